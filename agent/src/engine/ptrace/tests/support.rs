//! Targets under test: built, started, spoken to with a deadline, and ended with the test.

use crate::capture::interpreter::Captured;
use crate::capture::program::{Follow, FollowIndex, Piece, Place, Program, Register, RootRead};
use crate::engine::ptrace::PtraceEngine as Engine;
use crate::engine::{Counts, EngineEvent, Probe, ProbeSite};
use crate::publish::sink::{CapturedHit, HitQueue, QueueLimits};
use crate::target;
use object::{Object, ObjectSegment, ObjectSymbol};
use riptrace_protocol::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// For what takes no time as a rule; the machine may be busy.
pub(in crate::engine) const SOON: Duration = Duration::from_secs(60);

/// Looks until there is something.
#[track_caller]
pub(in crate::engine) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The C program, built once per test run, with these flags.
pub(in crate::engine) fn c_program(flag: &'static str) -> PathBuf {
    static BUILT: OnceLock<Mutex<(tempfile::TempDir, BTreeMap<&'static str, PathBuf>)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| Mutex::new((tempfile::tempdir().unwrap(), BTreeMap::new())));
    let mut built = built.lock().unwrap();
    if let Some(path) = built.1.get(flag) {
        return path.clone();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engine_target.c");
    let path = built.0.path().join(format!("target{flag}"));
    let status = Command::new("cc").args(["-O1", "-pthread", flag, "-o"]).arg(&path).arg(source).status();
    assert!(status.expect("a C compiler, cc, is needed").success());
    built.1.insert(flag, path.clone());
    path
}

/// A running target. Its parent is a shell: a tracer that belongs to the parent's process would take the target's end
/// from it, which an agent in production never does.
pub(in crate::engine) struct Target {
    shell: Child,
    pid: u32,
    stdin: ChildStdin,
    lines: Receiver<String>,
    program: PathBuf,
}

impl Target {
    pub(in crate::engine) fn start(program: &Path, args: &[&str]) -> Target {
        let mut child = Command::new("/bin/sh")
            .args(["-c", r#"setpriv --pdeathsig KILL -- "$0" "$@"; echo exited $?"#])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let mut target = Target { shell: child, pid: 0, stdin, lines, program: program.to_owned() };
        let hello = target.line();
        // `ready PID`, or an object in JSON that says so.
        let json: serde_json::Value = serde_json::from_str(&hello).unwrap_or_default();
        let in_json = json["pid"].as_u64().map(|pid| pid as u32);
        target.pid = hello.strip_prefix("ready ").and_then(|pid| pid.parse().ok()).or(in_json).expect(&hello);
        target
    }

    /// The C program, ready.
    pub(in crate::engine) fn c(flag: &'static str) -> Target {
        Target::start(&c_program(flag), &[])
    }

    pub(in crate::engine) fn pid(&self) -> u32 {
        self.pid
    }

    pub(in crate::engine) fn key(&self) -> ProcessKey {
        ProcessKey { pid: self.pid(), start_time: target::start_time(self.pid()).unwrap() }
    }

    pub(in crate::engine) fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    #[track_caller]
    pub(in crate::engine) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the target says something")
    }

    /// A line, if there is one by now.
    pub(in crate::engine) fn said(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    #[track_caller]
    pub(in crate::engine) fn expect(&self, want: &str) {
        assert_eq!(self.line(), want);
    }

    #[track_caller]
    pub(in crate::engine) fn ask(&mut self, command: &str, want: &str) {
        self.send(command);
        self.expect(want);
    }

    #[track_caller]
    pub(in crate::engine) fn exits_with(self, code: i32) {
        self.expect(&format!("exited {code}"));
    }

    /// Where a symbol is in the process.
    #[track_caller]
    pub(in crate::engine) fn symbol(&self, name: &str) -> Avma {
        let bytes = fs::read(&self.program).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap_or_else(|| panic!("no {name}"));
        Avma(symbol.address() + self.bias_of(&file))
    }

    /// By how much the executable was moved.
    #[track_caller]
    pub(in crate::engine) fn bias(&self) -> u64 {
        let bytes = fs::read(&self.program).unwrap();
        self.bias_of(&object::File::parse(&*bytes).unwrap())
    }

    fn bias_of(&self, file: &object::File<'_>) -> u64 {
        let first = file.segments().map(|segment| segment.address() & !0xfff).min().unwrap();
        let exe = self.program.canonicalize().unwrap();
        let maps = target::mappings(self.pid()).unwrap();
        maps.iter().find(|mapping| Path::new(&mapping.path) == exe).unwrap().lo - first
    }

    /// The executable code that is mapped, and what the file says it should be.
    #[track_caller]
    pub(in crate::engine) fn assert_text_is_the_files(&self) {
        let exe = self.program.canonicalize().unwrap();
        let file = fs::read(&exe).unwrap();
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut compared = 0;
        for mapping in target::mappings(self.pid()).unwrap() {
            if mapping.exec && Path::new(&mapping.path) == exe {
                let mut text = vec![0; (mapping.hi - mapping.lo) as usize];
                memory.read_exact_at(&mut text, mapping.lo).unwrap();
                let from_file = &file[mapping.file_offset as usize..];
                let length = text.len().min(from_file.len());
                assert!(text[..length] == from_file[..length], "the text at {:#x} differs", mapping.lo);
                compared += length;
            }
        }
        assert!(compared > 0);
    }

    /// No tracer, no mapping left behind, the text as it was.
    #[track_caller]
    pub(in crate::engine) fn assert_is_as_it_was(&self, maps_before: usize) {
        for tid in target::tasks(self.pid()).unwrap() {
            // The kernel lets go of sleeping threads a moment after the tracer's end.
            eventually("no tracer is left", || target::status(tid).map_or(Some(()), |s| (s.tracer == 0).then_some(())));
        }
        self.assert_text_is_the_files();
        assert_eq!(self.executable_maps(), maps_before);
    }

    /// How many executable mappings there are: slots are the only ones that the engine makes.
    pub(in crate::engine) fn executable_maps(&self) -> usize {
        target::mappings(self.pid()).unwrap().iter().filter(|mapping| mapping.exec && mapping.path.is_empty()).count()
    }

    pub(in crate::engine) fn signal(&self, signal: i32) {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.pid() as i32),
            nix::sys::signal::Signal::try_from(signal).unwrap(),
        )
        .unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The target is killed when its parent is (`setpriv`, util-linux).
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// An engine with everything around it.
pub(in crate::engine) struct Tracing {
    pub(in crate::engine) engine: Engine,
    queue: HitQueue,
    events: Receiver<EngineEvent>,
}

impl Tracing {
    #[track_caller]
    pub(in crate::engine) fn attach(target: &Target) -> Tracing {
        let queue = HitQueue::new(QueueLimits::default());
        let (tell, events) = mpsc::channel();
        let notify = Box::new(move |event| drop(tell.send(event)));
        let attached = Engine::attach(target.key(), queue.sink(), notify);
        let engine = attached.unwrap_or_else(|error| panic!("{error}; the target says {:?}", target.lines.try_recv()));
        Tracing { engine, queue, events }
    }

    /// A probe at some addresses that captures rdi, without a budget.
    #[track_caller]
    pub(in crate::engine) fn arm(&self, name: &str, sites: &[Avma]) {
        self.engine.arm(probe(name, sites, &Arc::new(captures_rdi()))).unwrap();
    }

    pub(in crate::engine) fn counts(&self, name: &str) -> Counts {
        let id = TracepointId::new(name).unwrap();
        self.engine.counts().into_iter().find(|(tracepoint, _)| *tracepoint == id).unwrap().1
    }

    /// All hits so far; they count as taken from the queue.
    pub(in crate::engine) fn hits(&mut self) -> Vec<CapturedHit> {
        let taken = self.queue.take(crate::clock::domain_now_ns);
        self.queue.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        taken.hits
    }

    #[track_caller]
    pub(in crate::engine) fn event(&self) -> EngineEvent {
        self.events.recv_timeout(SOON).expect("the engine tells of the end")
    }
}

pub(in crate::engine) fn id(name: &str) -> TracepointId {
    TracepointId::new(name).unwrap()
}

pub(in crate::engine) fn probe(name: &str, sites: &[Avma], program: &Arc<Program>) -> Probe {
    let site = |&address| ProbeSite {
        address,
        program: Arc::clone(program),
        layout: LayoutId([0; 16]),
        patch: Err("not asked".to_owned()),
    };
    Probe { tracepoint: id(name), sites: sites.iter().map(site).collect(), rate_per_s: None }
}

/// A program that captures the register of the first argument, and a stack.
pub(in crate::engine) fn captures_rdi() -> Program {
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: vec![RootRead::Read {
            offset: 0,
            pieces: vec![Piece { bytes: 8, place: Place::Register(Register(5)) }],
            follow: FollowIndex(0),
            depth: 2,
        }],
        root_bytes: 8,
        follow: vec![Follow::Plain],
        goroutine: None,
        stack_frames_max: 8,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 4096,
    }
}

/// The first argument that a hit has captured.
pub(in crate::engine) fn rdi(captured: &Captured) -> u64 {
    u64::from_le_bytes(captured.roots[..8].try_into().unwrap())
}

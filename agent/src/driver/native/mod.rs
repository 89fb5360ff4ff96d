//! Native programs traced for real: built here, started, armed at marked lines through the same path as in the service,
//! their hits unwound and decoded. What they show is compared with what the programs know of themselves.
#![allow(clippy::disallowed_methods, reason = "a deadline for programs that may hang")]

mod stacks;
mod values;

use super::builds::Builds;
use super::patches::Patches;
use crate::engine::{ArmError, AttachOptions, Engine, Mechanisms, Probe, ProbeSite, ProcessRuntime};
use crate::plan;
use crate::publish::frames::FrameResolver;
use crate::publish::sink::{CapturedHit, HitQueue, QueueLimits};
use crate::symbols::SymbolCache;
use crate::symbols::sources::Sources;
use riptrace_protocol::hit::Frame;
use riptrace_protocol::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// For what takes a second as a rule; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// Where the programs' sources are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native")
}

/// The lines of a source that are marked `// BP name`.
fn marks(source: &str) -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(sources().join(source)).unwrap();
    let mark =
        |(number, line): (usize, &str)| Some((line.split_once("// BP ")?.1.trim().to_owned(), number as u32 + 1));
    text.lines().enumerate().filter_map(mark).collect()
}

/// Runs a compiler in a folder.
fn compile(folder: &Path, compiler: &str, args: &[&str]) {
    let run = Command::new(compiler).current_dir(folder).args(args).output();
    let run = run.unwrap_or_else(|error| panic!("{compiler} is needed on PATH: {error}"));
    assert!(run.status.success(), "{compiler} {args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

/// A running program. Its parent is a shell: a tracer that belongs to the parent's process would take the program's end
/// from it, which an agent in production never does.
struct Target {
    shell: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    key: ProcessKey,
}

impl Target {
    fn start(program: &Path) -> Target {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", r#"setpriv --pdeathsig KILL -- "$0"; echo exited $?"#])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = shell.stdin.take().unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let mut target = Target { shell, stdin, lines, key: ProcessKey { pid: 0, start_time: 0 } };
        let hello = target.line();
        let pid = hello.strip_prefix("ready ").and_then(|pid| pid.parse().ok()).expect(&hello);
        target.key = ProcessKey { pid, start_time: crate::target::start_time(pid).unwrap() };
        target
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the program says something")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The program is killed when its parent is (`setpriv`, util-linux).
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A hit, with its frames.
struct Seen {
    hit: CapturedHit,
    frames: Vec<Frame>,
}

/// What a program left behind.
struct Run {
    /// By marker, in the order of time.
    seen: BTreeMap<String, Vec<Seen>>,
    layouts: BTreeMap<LayoutId, Layout>,
    /// What the program said after it was told to go on, its exit included.
    said: Vec<String>,
}

fn tracepoint(name: &str, file: &str, line: u32, limits: CaptureLimits) -> Tracepoint {
    Tracepoint {
        id: TracepointId::new(name).unwrap(),
        location: Location::Line { file: file.to_owned(), line },
        selector: Selector::default(),
        condition: None,
        hit_condition: None,
        log_message: None,
        captures: Vec::new(),
        mode: Mode::Hit,
        limits,
        source: Default::default(),
    }
}

/// Starts a program, arms all its marks, lets it run to its end and takes its hits.
fn trace(program: &Path, source: &str, mechanisms: Mechanisms, limits: CaptureLimits) -> Run {
    let mut target = Target::start(program);
    let builds = Builds::new(SymbolCache::none(), Sources::default());
    let loaded = builds.load(target.key).unwrap();
    let mut queue = HitQueue::new(QueueLimits::default());
    let options = AttachOptions {
        mechanisms,
        runtime: ProcessRuntime { is_go: false, go: None, is_gnu: loaded.is_gnu },
        cpu_percent: 100,
    };
    let engine = Engine::attach(target.key, queue.sink(), options, Box::new(drop)).unwrap();
    let mut patches = match mechanisms {
        Mechanisms::Ptrace => Err("nothing is injected".to_owned()),
        _ => loaded.code(target.key.pid).map(Patches::of),
    };
    let mut layouts = BTreeMap::new();
    for (name, line) in marks(source) {
        let tracepoint = tracepoint(&name, source, line, limits.clone());
        let mut sites = Vec::new();
        for site in loaded.build.resolve(&tracepoint.location).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let mut plan = plan::compile(&loaded.build, &site, &tracepoint, loaded.bias).unwrap();
            if let Some(slice) = &mut plan.program.stack_slice {
                slice.first_thread_end = loaded.first_stack_end;
            }
            plan.layout.check().unwrap();
            sites.push(ProbeSite {
                address: site.address.in_process(loaded.bias),
                program: Arc::new(plan.program),
                layout: plan.layout.id(),
                patch: patches.as_mut().map_err(|why| why.clone()).and_then(|patches| patches.at(site.address.0)),
            });
            layouts.insert(plan.layout.id(), plan.layout);
        }
        match engine.arm(Probe { tracepoint: tracepoint.id, sites, rate_per_s: None }) {
            // As an agent does where that is a process's first tracepoint.
            Err(ArmError::Breakpoint { why }) if matches!(mechanisms, Mechanisms::Auto) => {
                eprintln!("{source}: {name} by ptrace: {why}");
                drop((engine, target));
                return trace(program, source, Mechanisms::Ptrace, limits);
            }
            armed => drop(armed.unwrap()),
        }
    }
    writeln!(target.stdin, "go").unwrap();
    let mut said = Vec::new();
    let mut hits = Vec::new();
    let mut take = |hits: &mut Vec<CapturedHit>| {
        let taken = queue.take(crate::clock::domain_now_ns);
        queue.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        let mut taken = taken.hits;
        builds.unwind(&mut taken);
        hits.extend(taken);
    };
    let deadline = Instant::now() + SOON;
    loop {
        let line = target.line();
        // Libraries are mapped until the end: what can be unwound is.
        take(&mut hits);
        let ends = line.starts_with("exited");
        said.push(line);
        if ends || Instant::now() > deadline {
            break;
        }
    }
    engine.detach();
    take(&mut hits);
    hits.sort_by_key(|hit| hit.time_ns);
    let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for hit in hits {
        let inside = |(number, pc): (usize, &Avma)| Avma(pc.0 - u64::from(number > 0));
        let pcs: Vec<Avma> = hit.captured.stack.iter().enumerate().map(inside).collect();
        let frames = builds.resolve(target.key, &pcs).into_iter().flat_map(|entry| entry.frames).collect();
        seen.entry(hit.tracepoint.as_str().to_owned()).or_default().push(Seen { hit, frames });
    }
    Run { seen, layouts, said }
}

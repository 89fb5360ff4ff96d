//! Targets under test and what patches them: built, started, spoken to with a deadline, and ended with the test.

use super::super::visit::VisitCpus;
use super::super::{How, Patch, PatchError, Patcher, Report, Runtime, Synchronise, Way, Witness};
use crate::clock::domain_now_ns;
use crate::engine::x86_64::text::{JUMP, JUMP_BYTES};
use crate::target;
use object::{Object, ObjectSegment, ObjectSymbol};
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// For what takes no time as a rule; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// Looks until there is something.
#[track_caller]
pub(super) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline_ns = domain_now_ns() + SOON.as_nanos() as u64;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(domain_now_ns() < deadline_ns, "not within {SOON:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The C program, built once per test run.
fn c_program() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/patch_target.c");
        let path = folder.path().join("patch_target");
        let status = Command::new("cc").args(["-O1", "-pthread", "-pie", "-o"]).arg(&path).arg(source).status();
        assert!(status.expect("a C compiler, cc, is needed").success());
        (folder, path)
    });
    path
}

/// A running target. Its parent is a shell: a tracer that belongs to the parent's process would take the target's end
/// from it, which an agent in production never does.
pub(super) struct Target {
    shell: Child,
    pid: u32,
    stdin: ChildStdin,
    lines: Receiver<String>,
    program: PathBuf,
    memory: File,
}

impl Target {
    pub(super) fn start(program: &Path) -> Target {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", r#"setpriv --pdeathsig KILL -- "$0" "$@"; echo exited $?"#])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let stdin = shell.stdin.take().unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let hello: String = lines.recv_timeout(SOON).expect("the target starts");
        let pid = hello.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect(&hello);
        let memory = fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        Target { shell, pid, stdin, lines, program: program.to_owned(), memory }
    }

    /// The C program.
    pub(super) fn c() -> Target {
        Target::start(c_program())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn key(&self) -> ProcessKey {
        ProcessKey { pid: self.pid, start_time: target::start_time(self.pid).unwrap() }
    }

    pub(super) fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    #[track_caller]
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the target says something")
    }

    #[track_caller]
    pub(super) fn ask(&mut self, command: &str, want: &str) {
        self.send(command);
        assert_eq!(self.line(), want);
    }

    /// A line, if there is one by now.
    pub(super) fn said(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// It has said nothing: no mismatch.
    #[track_caller]
    pub(super) fn assert_silent(&self) {
        if let Ok(line) = self.lines.try_recv() {
            panic!("the target says {line:?}");
        }
    }

    /// Its threads in the background go on with right results.
    #[track_caller]
    pub(super) fn assert_goes_on(&mut self) {
        let before = self.passes();
        eventually("the target goes on", || (self.passes() > before + 10).then_some(()));
    }

    /// The number in the answer to "passes".
    #[track_caller]
    pub(super) fn passes(&mut self) -> u64 {
        self.send("passes");
        let line = self.line();
        line.strip_prefix("passes ").and_then(|rest| rest.split(' ').next()?.parse().ok()).expect(&line)
    }

    pub(super) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid as i32), signal).unwrap();
    }

    /// Where a symbol is in the process.
    #[track_caller]
    pub(super) fn symbol(&self, name: &str) -> Avma {
        let bytes = fs::read(&self.program).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap_or_else(|| panic!("no {name}"));
        let first = file.segments().map(|segment| segment.address() & !0xfff).min().unwrap();
        let exe = self.program.canonicalize().unwrap();
        let maps = target::mappings(self.pid).unwrap();
        let lo = maps.iter().find(|mapping| Path::new(&mapping.path) == exe).unwrap().lo;
        Avma(symbol.address() + lo - first)
    }

    pub(super) fn read<const N: usize>(&self, at: Avma) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, at.0).unwrap();
        bytes
    }

    pub(super) fn write(&self, at: Avma, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at.0).unwrap();
    }

    /// The first bytes of its memory: no other program has them at that place.
    pub(super) fn witness(&self, at: Avma) -> Witness {
        Witness { at, bytes: self.read::<16>(at).to_vec() }
    }

    /// No thread is traced and none is stopped by a tracer.
    #[track_caller]
    pub(super) fn assert_free(&self) {
        for tid in target::tasks(self.pid).unwrap() {
            // The kernel lets go of threads a moment after the tracer's end.
            eventually("no tracer is left", || {
                target::status(tid).map_or(Some(()), |s| (s.tracer == 0 && s.state != 't').then_some(()))
            });
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The target is killed when its parent is (`setpriv`, util-linux).
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A site of the C program, with the pad that its jump leads to: the displaced instructions, and the way back.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) at: Avma,
    pub(super) old: Vec<u8>,
    pub(super) jump: Vec<u8>,
    pub(super) boundaries: Vec<usize>,
    pub(super) pad: Range<Avma>,
    /// Where the pad leads.
    pub(super) end: Avma,
}

/// Bytes of one pad: an unused place in the memory that targets map for them.
pub(super) const PAD_BYTES: u64 = 64;

fn jump(from: Avma, to: Avma) -> Vec<u8> {
    let displacement = to.0.wrapping_sub(from.0 + JUMP_BYTES as u64) as i64 as i32;
    let mut bytes = vec![JUMP];
    bytes.extend(displacement.to_le_bytes());
    bytes
}

impl Site {
    /// Instructions that mean the same elsewhere, `length` bytes of them, and where those inside begin.
    pub(super) fn new(target: &Target, at: Avma, pad: Avma, length: usize, boundaries: &[usize]) -> Site {
        let bytes: [u8; 16] = target.read(at);
        let mut code = bytes[..length].to_vec();
        code.extend(jump(Avma(pad.0 + length as u64), Avma(at.0 + length as u64)));
        target.write(pad, &code);
        let boundaries = boundaries.to_vec();
        let (end, pad) = (Avma(at.0 + length as u64), pad..Avma(pad.0 + code.len() as u64));
        let (old, jump) = (bytes[..JUMP_BYTES].to_vec(), jump(at, pad.start));
        Site { at, old, jump, boundaries, pad, end }
    }

    /// The way back from the pad.
    pub(super) fn way(&self) -> Way {
        Way { code: self.pad.clone(), leads_to: vec![self.end] }
    }

    pub(super) fn jump(&self, how: How) -> Patch {
        let (old, new) = (self.old.clone(), self.jump.clone());
        Patch { at: self.at, old, new, how, boundaries: self.boundaries.clone() }
    }

    /// From what stands there now to what stood there at first, whoever has left it.
    pub(super) fn restore(&self, target: &Target) -> Option<Patch> {
        Patch::back_to(self.at, &target.read::<JUMP_BYTES>(self.at), &self.old, &self.boundaries)
    }
}

/// The sites of the C program.
pub(super) struct Sites {
    pub(super) single: Site,
    pub(super) multi: Site,
    pub(super) pun: Site,
    pub(super) cross: Site,
    pub(super) cross_multi: Site,
    pub(super) fault: Site,
}

impl Sites {
    /// Writes the pads and the trap map.
    pub(super) fn of(target: &Target) -> Sites {
        let pads = Avma(u64::from_le_bytes(target.read(target.symbol("pads"))));
        let pad = |n: u64| Avma(pads.0 + n * PAD_BYTES);
        let site = |name: &str, n, length, boundaries: &[usize]| {
            Site::new(target, target.symbol(name), pad(n), length, boundaries)
        };
        let pun_at = target.symbol("site_pun");
        let punned = Avma(pun_at.0 + JUMP_BYTES as u64 + 0x06cc_cccc);
        let sites = Sites {
            single: site("site_single", 0, 8, &[]),
            multi: site("site_multi", 1, 5, &[1]),
            pun: Site::new(target, pun_at, punned, 5, &[1, 2, 3, 4]),
            cross: site("site_cross", 2, 8, &[]),
            cross_multi: site("site_cross_multi", 3, 5, &[1]),
            fault: site("site_fault", 4, 6, &[3]),
        };
        let mut traps = Vec::new();
        for site in sites.all() {
            let pad = site.pad.start.0;
            // In these pads an instruction is as far from the beginning as it was at the site.
            let inside = if site.at == pun_at { 5 } else { 1 };
            traps.extend((0..inside).flat_map(|n| [site.at.0 + n, pad + n]));
        }
        let bytes: Vec<u8> = traps.iter().flat_map(|word| word.to_le_bytes()).collect();
        target.write(target.symbol("trap_map"), &bytes);
        sites
    }

    pub(super) fn all(&self) -> [&Site; 6] {
        [&self.single, &self.multi, &self.pun, &self.cross, &self.cross_multi, &self.fault]
    }
}

/// A patcher of the C program.
pub(super) fn patcher(target: &Target) -> Patcher {
    Patcher::open(target.key(), Runtime::Native, target.witness(target.symbol("pads")))
}

/// The same as if /proc/PID/mem could not be opened.
pub(super) fn patcher_by_thread(target: &Target) -> Patcher {
    let Patcher { pid, runtime, text, ways } = patcher(target);
    Patcher { pid, runtime, text: text.without_file(), ways }
}

/// One patch, synchronised by visits.
pub(super) fn apply(patcher: &Patcher, patch: Patch) -> Result<Report, PatchError> {
    apply_all(patcher, &[patch], &mut VisitCpus)
}

/// A batch; again if the machine had no time for a thread that was to stop.
pub(super) fn apply_all(
    patcher: &Patcher,
    patches: &[Patch],
    synchronise: &mut dyn Synchronise,
) -> Result<Report, PatchError> {
    loop {
        match patcher.apply(patches, synchronise) {
            Err(PatchError::Unstoppable { state: 'R', .. }) => {}
            other => return other,
        }
    }
}

/// Does nothing: for what must not need it.
pub(super) struct Unneeded;

impl Synchronise for Unneeded {
    fn synchronise(&mut self) -> io::Result<()> {
        panic!("nothing here needs to be synchronised")
    }
}

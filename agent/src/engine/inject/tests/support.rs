//! Targets, and agents in processes of their own.

use crate::capture::memory::PAGE_BYTES;
use crate::engine::inject::{Injection, RemoteCall};
use crate::target::{self, Mapping};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// For what takes no time as a rule; the machine may be busy.
pub(super) const SOON: Duration = Duration::from_secs(120);

/// Looks until there is something.
#[track_caller]
pub(super) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test waits with a deadline")]
    let now = Instant::now;
    let deadline = now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {SOON:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The C program, built once per test run.
pub(super) fn c_program() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        // Readable for every user: some tests start it as another one.
        let access = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(folder.path(), access).unwrap();
        let path = folder.path().join("inject_target");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inject_target.c");
        let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&path).arg(source).status();
        assert!(status.expect("a C compiler, cc, is needed").success());
        (folder, path)
    });
    path
}

/// A running program that takes commands.
pub(super) struct Target {
    shell: Child,
    pid: u32,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Target {
    /// The C program with these threads, all if there are none.
    pub(super) fn c(kinds: &[&str]) -> Target {
        Target::start(&mut Command::new("/bin/sh"), c_program(), kinds)
    }

    /// A program under a shell, which may be wrapped: the target's end is told to the shell, as that of a service is to
    /// whoever started it and not to the agent.
    pub(super) fn start(shell: &mut Command, program: &Path, args: &[&str]) -> Target {
        let mut shell = shell
            .args(["-c", r#""$0" "$@"; echo exited $?"#])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = shell.stdin.take().unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let mut target = Target { shell, pid: 0, stdin, lines };
        let hello = target.line();
        let json: serde_json::Value = serde_json::from_str(&hello).unwrap_or_default();
        let in_json = json["pid"].as_u64().map(|pid| pid as u32);
        target.pid = hello.strip_prefix("ready ").and_then(|pid| pid.parse().ok()).or(in_json).expect(&hello);
        target
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The process under another pid than it knows itself: it is in a pid namespace.
    pub(super) fn known_as(&mut self, pid: u32) {
        self.pid = pid;
    }

    pub(super) fn shell(&self) -> u32 {
        self.shell.id()
    }

    pub(super) fn key(&self) -> ProcessKey {
        key(self.pid)
    }

    pub(super) fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    #[track_caller]
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the target says something")
    }

    /// A line, if there is one by now.
    pub(super) fn said(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// The answer to a command of one word or two: what comes after its first word.
    #[track_caller]
    pub(super) fn ask(&mut self, command: &str, answer: &str) -> String {
        self.send(command);
        let line = self.line();
        line.strip_prefix(answer).unwrap_or_else(|| panic!("{command}: {line}")).trim().to_owned()
    }

    /// Every thread has gone on and found nothing wrong; how many calls have ended with EINTR so far.
    #[track_caller]
    pub(super) fn check(&mut self) -> u64 {
        self.ask("check", "ok").parse().unwrap()
    }

    pub(super) fn maps(&self) -> Vec<Mapping> {
        target::mappings(self.pid).unwrap()
    }

    /// How many pieces of the area are mapped.
    pub(super) fn pieces(&self) -> usize {
        self.maps().iter().filter(|mapping| mapping.path.starts_with("/memfd:riptrace")).count()
    }

    /// The vdso, and the unused bytes at its end.
    pub(super) fn padding(&self) -> Vec<u8> {
        let vdso = self.maps().into_iter().find(|mapping| mapping.path == "[vdso]").unwrap();
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut page = vec![0; PAGE_BYTES as usize];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut page, vdso.hi - PAGE_BYTES).unwrap();
        page
    }

    /// An address in the text of the program.
    pub(super) fn text(&self) -> Avma {
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap();
        let maps = self.maps();
        Avma(maps.iter().find(|mapping| mapping.exec && Path::new(&mapping.path) == exe).unwrap().lo)
    }

    pub(super) fn is_alive(&self) -> bool {
        target::status(self.pid).is_ok_and(|status| !matches!(status.state, 'Z' | 'X'))
    }

    /// Nobody traces it. The kernel lets go of sleeping threads a moment after the tracer's end.
    #[track_caller]
    pub(super) fn assert_free(&self) {
        for tid in target::tasks(self.pid).unwrap() {
            eventually("no tracer is left", || target::status(tid).map_or(Some(()), |s| (s.tracer == 0).then_some(())));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_alive() && self.pid != 0 {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid as i32), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

pub(super) fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_time: target::start_time(pid).unwrap() }
}

/// A call that does nothing to the process.
pub(super) fn getppid() -> RemoteCall {
    RemoteCall { number: libc::SYS_getppid, args: [0; 6] }
}

/// Asks the process for its pid, as it sees it itself.
pub(super) fn getpid(injection: &mut Injection) -> u64 {
    injection.call(&[RemoteCall { number: libc::SYS_getpid, args: [0; 6] }]).unwrap()[0].unwrap()
}

/// An agent in a process of its own.
pub(super) struct Agent(pub(super) Pid);

impl Agent {
    /// Does a job; exits with what it returns.
    pub(super) fn start(job: impl FnOnce() -> i32) -> Agent {
        // SAFETY: the C library makes the child's heap usable (fork(2) in glibc takes the locks of malloc), and the child
        // does nothing that needs a lock of another thread of this process; it never returns from here.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Agent(child),
            ForkResult::Child => {
                let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).unwrap_or(101);
                // SAFETY: ends the process without running what is the parent's.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Waits for its end: its status, or `None` if it was killed.
    pub(super) fn end(self) -> Option<i32> {
        match waitpid(self.0, None).unwrap() {
            WaitStatus::Exited(_, status) => Some(status),
            WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _) => None,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn kill(self) {
        nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(self.end(), None);
    }
}

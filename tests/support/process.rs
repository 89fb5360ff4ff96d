//! A process under a test: its lines with a deadline, its last words in the panic, its end with the test's.

use super::{SOON, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How many lines of standard error are kept for a panic.
const ERROR_LINES_MAX: usize = 400;

/// How long a process may take to end after SIGTERM when its test ends; then it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The program `name` with the kernel's promise that it dies with the test's thread, even if the test is killed.
pub fn command(name: impl AsRef<std::ffi::OsStr>) -> Command {
    // `setpriv` (util-linux) sets the wish and becomes the program; the pid stays.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(name);
    command
}

/// A process and what it says.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
    status: Option<ExitStatus>,
    /// Whether it is asked to end (SIGTERM) before it is killed when the test is over.
    orderly: bool,
}

impl Program {
    /// Starts `command`; `name` is for messages. Dropping it kills the process.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let (tell, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("piped"), move |line| tell.send(line).is_ok());
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        read_lines(child.stderr.take().expect("piped"), move |line| {
            let mut kept = kept.lock().unwrap();
            if kept.len() == ERROR_LINES_MAX {
                kept.pop_front();
            }
            kept.push_back(line);
            true
        });
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines,
            seen: Vec::new(),
            errors,
            status: None,
            orderly: false,
        }
    }

    /// The same, but dropping it sends SIGTERM first: for what has to clean up behind itself.
    pub fn spawn_orderly(name: &str, command: Command) -> Self {
        let mut program = Self::spawn(name, command);
        program.orderly = true;
        program
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// The next line of standard output, or `None` if it has ended.
    #[track_caller]
    pub fn try_line(&mut self, limit: Duration) -> Option<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} said nothing for {limit:?}\n{}", self.name, self.story())
            }
        }
    }

    /// The next line of standard output.
    #[track_caller]
    pub fn line(&mut self, limit: Duration) -> String {
        match self.try_line(limit) {
            Some(line) => line,
            None => panic!("{} has ended its output\n{}", self.name, self.story()),
        }
    }

    /// The next line of standard output, which must be JSON.
    #[track_caller]
    pub fn json(&mut self, limit: Duration) -> Value {
        let line = self.line(limit);
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{} printed no JSON ({error}): {line}\n{}", self.name, self.story()))
    }

    /// The next line of JSON that `wanted` accepts; the others are passed over.
    #[track_caller]
    pub fn json_where(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            let value = self.json(deadline.saturating_duration_since(Instant::now()));
            if wanted(&value) {
                return value;
            }
        }
    }

    /// The next line of JSON with this `type`.
    #[track_caller]
    pub fn json_of(&mut self, kind: &str, limit: Duration) -> Value {
        self.json_where(limit, |value| value["type"] == kind)
    }

    /// All lines of JSON that have arrived, without waiting.
    #[track_caller]
    pub fn json_so_far(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            all.push(
                serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("{} printed no JSON ({error}): {line}", self.name)),
            );
            self.seen.push(line);
        }
        all
    }

    /// All lines of JSON until the process ends its output.
    #[track_caller]
    pub fn json_to_end(&mut self, limit: Duration) -> Vec<Value> {
        let deadline = Instant::now() + limit;
        let mut all = Vec::new();
        while let Some(line) = self.try_line(deadline.saturating_duration_since(Instant::now())) {
            all.push(
                serde_json::from_str(&line).unwrap_or_else(|error| {
                    panic!("{} printed no JSON ({error}): {line}\n{}", self.name, self.story())
                }),
            );
        }
        all
    }

    /// Writes a line to standard input.
    #[track_caller]
    pub fn write_line(&mut self, line: &str) {
        let written = self.stdin.as_mut().expect("standard input is open").write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            panic!("cannot write to {}: {error}\n{}", self.name, self.story());
        }
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal)
            .unwrap_or_else(|error| panic!("cannot send {signal} to {}: {error}", self.name));
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("its status can be read");
        }
        self.status.is_none()
    }

    /// Fails the test if it has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if !self.is_running() {
            panic!("{} has ended: {:?}\n{}", self.name, self.status, self.story());
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() >= deadline {
                panic!("{} has not ended within {limit:?}\n{}", self.name, self.story());
            }
            thread::sleep(super::POLL);
        }
        self.status.expect("it has ended")
    }

    /// Waits for its end, which must be with this status.
    #[track_caller]
    pub fn wait_for_code(&mut self, code: i32, limit: Duration) {
        let status = self.wait(limit);
        if status.code() != Some(code) {
            panic!("{} ended with {status}, not {code}\n{}", self.name, self.story());
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        if self.is_running() {
            self.signal(Signal::SIGTERM);
        }
        self.wait(SOON)
    }

    /// The end of its standard error.
    pub fn stderr(&self) -> String {
        Vec::from_iter(self.errors.lock().unwrap().iter().cloned()).join("\n")
    }

    /// Waits until standard error has a line with this text.
    #[track_caller]
    pub fn stderr_has(&self, text: &str, limit: Duration) {
        eventually(&format!("{} writes {text:?}", self.name), limit, || self.stderr().contains(text).then_some(()));
    }

    /// What it has said, for a panic.
    pub fn story(&self) -> String {
        format!(
            "--- {} (pid {}), standard output so far:\n{}\n--- standard error:\n{}\n---",
            self.name,
            self.child.id(),
            self.seen.join("\n"),
            self.stderr()
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.orderly && self.is_running() {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let deadline = Instant::now() + END_LIMIT;
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(super::POLL);
            }
        }
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.story());
        }
    }
}

fn read_lines(from: impl Read + Send + 'static, mut take: impl FnMut(String) -> bool + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if !take(String::from_utf8_lossy(&line).into_owned()) {
                return;
            }
        }
    });
}

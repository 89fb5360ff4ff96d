//! A `nats-server` as a child process, with JetStream, for one machine: what `riptrace up`, the demo and the tests use.
//!
//! What it is not: the bus of a fleet. It has no users and no TLS, and listens on loopback unless told otherwise.
//!
//! Invariants:
//! - the server never outlives this process: it is ended when [`NatsServer`] is dropped, and the kernel ends it when
//!   this process dies by SIGKILL;
//! - it is in a process group of its own: Ctrl-C in the terminal reaches the parent only, which can still talk to the
//!   bus while it takes its probes out;
//! - a slow viewer is cut off and does not slow the publishers down (`no_fast_producer_stall`, `max_pending`).
//!
//! ```text
//! FOLDER/nats-server.conf   written at each start
//! FOLDER/nats-server.log    what the server says, of all starts
//! FOLDER/nats-server_PID.ports   written by the server once it listens
//! FOLDER/jetstream/         the store, kept over restarts
//! ```
#![allow(clippy::disallowed_methods, reason = "a driver: it waits for a child process")]

use nix::{
    sys::{
        prctl,
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use serde::Deserialize;
use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

/// How long the server may take until it answers. It takes some 50 ms; a store of gigabytes is read at start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How often a starting server is asked whether it answers.
const START_POLL: Duration = Duration::from_millis(10);

/// How long the server may take to end after SIGTERM; then it is killed. It takes some 20 ms.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The most bytes the server keeps for one reader that does not read, before it cuts that reader off.
const PENDING_PER_CLIENT: &str = "16MB";

/// How much of the log is shown in an error, and how much of the end of the file is read for it.
const LOG_TAIL_LINES: usize = 15;
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// Longest first line of a server that is believed: real ones have some 500 bytes.
const INFO_BYTES_MAX: usize = 64 << 10;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct NatsServerConfig {
    /// The program; see [`crate::provision::nats_server`].
    pub program: PathBuf,
    /// Its configuration, log and store go here. Made if it is not there; used by one server at a time.
    pub folder: PathBuf,
    /// The address to listen on. Anybody who reaches it may do anything.
    pub listen: IpAddr,
    /// The port, or `None` for one that is free.
    pub port: Option<u16>,
    /// The most bytes that JetStream keeps on disk.
    pub store_bytes_max: u64,
    /// The most bytes that JetStream keeps in memory.
    pub memory_bytes_max: u64,
    /// Further lines of the server's configuration file; empty as a rule.
    pub extra: String,
}

impl NatsServerConfig {
    /// A server on loopback with a free port and room for 1 GiB on disk and 64 MiB in memory.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            folder: folder.into(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: None,
            store_bytes_max: 1 << 30,
            memory_bytes_max: 64 << 20,
            extra: String::new(),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("nats-server.log")
    }

    fn configuration(&self, port: Option<u16>) -> String {
        let mut text = String::new();
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{arguments}");
        };
        // Minus one makes the server choose a free port.
        line(format_args!("host: {:?}\nport: {}", self.listen.to_string(), port.map_or(-1, i32::from)));
        line(format_args!("ports_file_dir: {:?}", text_of(&self.folder)));
        line(format_args!("max_pending: {PENDING_PER_CLIENT}\nno_fast_producer_stall: true"));
        line(format_args!(
            "jetstream {{\n  store_dir: {:?}\n  max_file_store: {}\n  max_memory_store: {}\n}}",
            text_of(&self.folder),
            self.store_bytes_max,
            self.memory_bytes_max
        ));
        line(format_args!("{}", self.extra));
        text
    }
}

/// Why there is no server. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NatsServerError {
    /// The folder or a file in it cannot be written.
    #[error("cannot {action} {path}: {source}; make it writable or give another folder", path = path.display())]
    Folder {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path that the server's configuration file cannot hold.
    #[error(
        "the folder {path:?} cannot be written into the configuration of nats-server; use a path of plain characters"
    )]
    FolderName {
        /// The folder.
        path: PathBuf,
    },
    /// The program cannot be started.
    #[error("cannot start {program}: {source}; check that it is a nats-server for this machine", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("nats-server ended at once; mend what its log ({log}) says and try again:\n{tail}", log = log.display())]
    Ended {
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It does not answer.
    #[error("nats-server has not answered within {} s; see its log {log}:\n{tail}", limit.as_secs(), log = log.display())]
    Silent {
        /// The limit.
        limit: Duration,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
}

/// A running server; ended when dropped (which waits for its end, 3 s at most).
#[derive(Debug)]
pub struct NatsServer {
    config: NatsServerConfig,
    address: SocketAddr,
    process: Process,
}

impl NatsServer {
    /// Starts a server and waits until it answers with JetStream on.
    ///
    /// # Errors
    /// [`NatsServerError`].
    pub async fn start(config: NatsServerConfig) -> Result<Self, NatsServerError> {
        let (process, address) = launch(&config, config.port).await?;
        tracing::debug!(%address, pid = process.pid.as_raw(), "nats-server answers");
        Ok(Self { config, address, process })
    }

    /// Where clients connect, for example `nats://127.0.0.1:4222`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid.as_raw()
    }

    /// Its log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.config.log_path()
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Ends the server as a crash would (SIGKILL) and waits for its end. [`Self::restart`] brings it back.
    pub fn kill(&mut self) {
        self.process.end(Duration::ZERO);
    }

    /// Ends the server, orderly if it still runs, and starts it on the same address and store.
    ///
    /// # Errors
    /// [`NatsServerError`]; the server is not running then.
    pub async fn restart(&mut self) -> Result<(), NatsServerError> {
        self.process.end(STOP_LIMIT);
        let (process, address) = launch(&self.config, Some(self.address.port())).await?;
        self.process = process;
        self.address = address;
        Ok(())
    }
}

async fn launch(config: &NatsServerConfig, port: Option<u16>) -> Result<(Process, SocketAddr), NatsServerError> {
    let folder_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| NatsServerError::Folder { action, path, source }
    };
    if !is_plain(&config.folder) {
        return Err(NatsServerError::FolderName { path: config.folder.clone() });
    }
    fs::create_dir_all(&config.folder).map_err(folder_error("make", &config.folder))?;
    let file = config.folder.join("nats-server.conf");
    fs::write(&file, config.configuration(port)).map_err(folder_error("write", &file))?;
    let log_path = config.log_path();
    let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(folder_error("open", &log_path))?;

    remove_old_ports(&config.folder).map_err(folder_error("clean", &config.folder))?;
    let process = Process::start(&config.program, &file, &log).await?;
    let ports = config.folder.join(format!("nats-server_{}.ports", process.pid));
    let deadline = Instant::now() + START_LIMIT;
    let address = loop {
        // Only the ports file tells that it is this server that listens there, also where the port was given.
        if let Some(address) = listening(&ports, config.listen)
            && timeout(START_LIMIT, answers(address)).await == Ok(true)
        {
            break address;
        }
        let tail = || tail_of(&log_path);
        if process.has_ended() {
            return Err(NatsServerError::Ended { tail: tail(), log: log_path });
        }
        if Instant::now() >= deadline {
            return Err(NatsServerError::Silent { limit: START_LIMIT, tail: tail(), log: log_path });
        }
        tokio::time::sleep(START_POLL).await;
    };
    // The server removes its ports file at an orderly end only; nothing needs it from here on.
    let _ = fs::remove_file(&ports);
    Ok((process, address))
}

/// Removes what servers that were killed left: a new one may get the same pid.
fn remove_old_ports(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "ports") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Where the server says that it listens, once its ports file is whole.
fn listening(ports: &Path, listen: IpAddr) -> Option<SocketAddr> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    let port = ports.nats.first()?.rsplit(':').next()?.parse().ok()?;
    Some(SocketAddr::new(listen, port))
}

/// Whether a server with JetStream greets who connects there.
async fn answers(address: SocketAddr) -> bool {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        jetstream: bool,
    }
    let Ok(stream) = TcpStream::connect(address).await else {
        return false;
    };
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(stream, INFO_BYTES_MAX as u64));
    if reader.read_line(&mut line).await.is_err() {
        return false;
    }
    line.strip_prefix("INFO ")
        .and_then(|info| serde_json::from_str::<Info>(info.trim()).ok())
        .is_some_and(|info| info.jetstream)
}

/// The child. A thread of its own starts it and waits for it, for two reasons: the kernel's promise to end a child
/// with its parent holds for the parent *thread*, so that thread has to live as long as the child; and the exit status
/// is collected there even where nobody polls.
#[derive(Debug)]
struct Process {
    pid: Pid,
    state: Arc<State>,
    keeper: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl State {
    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    async fn start(program: &Path, file: &Path, log: &File) -> Result<Self, NatsServerError> {
        let start_error = |source| NatsServerError::Start { program: program.to_owned(), source };
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(start_error)?)
            .stderr(log.try_clone().map_err(start_error)?)
            .process_group(0);
        die_with_parent(&mut command);

        let state = Arc::new(State::default());
        let (tell, started) = oneshot::channel();
        let keeper = thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn({
                let state = Arc::clone(&state);
                move || keep(command, tell, &state)
            })
            .map_err(start_error)?;
        match started.await {
            Ok(Ok(pid)) => Ok(Self { pid, state, keeper: Some(keeper) }),
            Ok(Err(source)) => Err(start_error(source)),
            Err(_) => Err(start_error(io::Error::other("the thread that starts it ended"))),
        }
    }

    fn has_ended(&self) -> bool {
        *self.state.ended()
    }

    /// Ends the process: SIGTERM, and SIGKILL if it still runs after `patience`.
    fn end(&mut self, patience: Duration) {
        {
            let ended = self.state.ended();
            if !*ended && !patience.is_zero() {
                // The pid cannot have been given to another process: it is collected under this lock only.
                let _ = killpg(self.pid, Signal::SIGTERM);
            }
            let (ended, _) = self
                .state
                .changed
                .wait_timeout_while(ended, patience, |ended| !*ended)
                .unwrap_or_else(PoisonError::into_inner);
            if !*ended {
                let _ = killpg(self.pid, Signal::SIGKILL);
            }
        }
        if let Some(keeper) = self.keeper.take() {
            // It can only have panicked, which the end of the process does not depend on.
            let _ = keeper.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(STOP_LIMIT);
    }
}

/// The life of the keeper thread.
fn keep(mut command: Command, tell: oneshot::Sender<io::Result<Pid>>, state: &State) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Nobody listens only when the start was given up.
            let _ = tell.send(Err(error));
            return;
        }
    };
    let pid = pid_of(&child);
    if tell.send(Ok(pid)).is_err() {
        let _ = child.kill();
    }
    // Waits without collecting, so that nobody can signal a pid that is already free again.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WNOTHREAD)
        == Err(nix::errno::Errno::EINTR)
    {}
    let mut ended = state.ended();
    let _ = child.wait();
    *ended = true;
    state.changed.notify_all();
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Makes the kernel kill the child when the thread that starts it dies, as it does when this process is killed.
fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let set = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above took effect.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    #[expect(unsafe_code, reason = "the standard library offers no safe way to this setting")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl(2) and getppid(2) are bare system
    // calls, and neither branch allocates (both errors are plain codes).
    unsafe {
        command.pre_exec(set);
    }
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether a path survives the quoting of the server's configuration file.
fn is_plain(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| !text.chars().any(|letter| letter.is_control() || matches!(letter, '"' | '\\' | '$')))
}

/// The last lines of a log.
fn tail_of(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines = Vec::from_iter(text.lines());
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(the log cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_bounds_the_store_and_keeps_publishers_fast() {
        let mut config = NatsServerConfig::new("/bin/nats-server", "/data/riptrace");
        config.store_bytes_max = 1000;
        config.memory_bytes_max = 10;
        let text = config.configuration(None);
        assert_eq!(
            text,
            "host: \"127.0.0.1\"\nport: -1\nports_file_dir: \"/data/riptrace\"\nmax_pending: 16MB\n\
             no_fast_producer_stall: true\njetstream {\n  store_dir: \"/data/riptrace\"\n  max_file_store: 1000\n  \
             max_memory_store: 10\n}\n\n"
        );
        assert!(config.configuration(Some(4222)).contains("\nport: 4222\n"));
    }

    #[test]
    fn paths_that_the_configuration_cannot_quote_are_refused() {
        assert!(is_plain(Path::new("/home/jörg/my cache")));
        for odd in ["/a\"b", "/a\\b", "/a\nb", "/a$HOME"] {
            assert!(!is_plain(Path::new(odd)), "{odd:?}");
        }
    }

    #[test]
    fn a_ports_file_is_believed_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ports");
        let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(listening(&file, listen), None);
        fs::write(&file, "{\"nats\":[\"nats://127.0.0").unwrap();
        assert_eq!(listening(&file, listen), None);
        fs::write(&file, "{\"nats\":[\"nats://127.0.0.1:34567\"],\"monitoring\":[]}").unwrap();
        assert_eq!(listening(&file, listen), Some(SocketAddr::new(listen, 34567)));
    }
}

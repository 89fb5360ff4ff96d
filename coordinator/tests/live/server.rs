//! A `nats-server` with JetStream for one test, ended and removed with it.

use async_nats::{Client, ConnectOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(20);

/// The server.
pub(crate) struct NatsServer {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl NatsServer {
    pub(crate) async fn start() -> NatsServer {
        let folder = tempfile::tempdir().unwrap();
        // The port is chosen here so that a restarted server has it again.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = NatsServer { child: spawn(folder.path(), port), folder, port };
        server.client().await;
        server
    }

    /// As SIGKILL does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with the same store.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.folder.path(), self.port);
        self.client().await;
    }

    /// A client of its own; waits until the server answers.
    pub(crate) async fn client(&self) -> Client {
        let url = format!("nats://127.0.0.1:{}", self.port);
        let options =
            ConnectOptions::new().retry_on_initial_connect().reconnect_delay_callback(|_| Duration::from_millis(50));
        let client = options.connect(url).await.unwrap();
        tokio::time::timeout(START, client.flush()).await.expect("nats-server does not answer").unwrap();
        client
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    let mut command = Command::new(program());
    command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(folder.join("store"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// `RIPTRACE_TEST_NATS_SERVER`, else `nats-server` of the PATH, else the one in RipTrace's cache.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("RIPTRACE_TEST_NATS_SERVER") {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|file| file.is_file());
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    on_path.or_else(|| find(&cache.join("riptrace"), 5)).unwrap_or_else(|| {
        panic!(
            "no nats-server: put one on the PATH, name one in RIPTRACE_TEST_NATS_SERVER, \
             or run `cargo run -- demo` once, which provisions one into the cache"
        )
    })
}

fn find(folder: &Path, depth: usize) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if entry.file_name() == "nats-server" {
            return Some(path);
        }
    }
    if depth == 0 { None } else { folders.iter().find_map(|folder| find(folder, depth - 1)) }
}

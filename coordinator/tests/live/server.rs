//! A `nats-server` with JetStream for one test, ended and removed with it.

use async_nats::{Client, ConnectOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(60);

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

/// The one on PATH if it is new enough, else the pinned one, provisioned into the user's cache.
fn program() -> PathBuf {
    let cache = riptrace_provision::Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    riptrace_provision::nats_server(&cache, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

//! The language server on a real `nats-server`; the test is the coordinator.

use super::test_editor::{DEADLINE, Editor};
use super::test_fleet::{fleet, hit, layout, message, probe, session};
use crate::environment::{BusTarget, CheckoutDefaults, ConnectError, Environment};
use async_nats::jetstream;
use futures::StreamExt;
use futures::future::BoxFuture;
use riptrace_protocol::agent_api::Reply;
use riptrace_protocol::fleet::ProbeState;
use riptrace_protocol::ids::SessionId;
use riptrace_protocol::stream::StreamItem;
use riptrace_protocol::subject;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A `nats-server` with JetStream, ended and removed with the test.
struct NatsServer {
    child: Child,
    url: String,
    _store: TempDir,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl NatsServer {
    async fn start() -> NatsServer {
        let store = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program());
        command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(store.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = NatsServer { child, url: format!("nats://127.0.0.1:{port}"), _store: store };
        server.client().await;
        server
    }

    async fn client(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(&self.url).await.unwrap();
        tokio::time::timeout(DEADLINE, client.flush()).await.expect("nats-server does not answer").unwrap();
        client
    }
}

/// The one on PATH if it is new enough, else the pinned one, provisioned into the user's cache.
fn program() -> PathBuf {
    let cache = riptrace_provision::Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    riptrace_provision::nats_server(&cache, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

struct Bus(async_nats::Client);

impl Environment for Bus {
    fn connect(&self, _: &BusTarget) -> BoxFuture<'static, Result<async_nats::Client, ConnectError>> {
        let client = self.0.clone();
        Box::pin(async move { Ok(client) })
    }

    fn checkout(&self, cwd: &Path) -> Result<CheckoutDefaults, ConnectError> {
        Ok(CheckoutDefaults { root: cwd.to_owned(), ..CheckoutDefaults::default() })
    }

    fn viewer(&self) -> String {
        "test".into()
    }

    fn new_session_id(&self) -> SessionId {
        SessionId::new("test").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_a_session_that_began_earlier_are_shown_with_their_values() {
    let server = NatsServer::start().await;
    let coordinator = server.client().await;
    let config = jetstream::stream::Config {
        name: subject::SESSION_STREAM.into(),
        subjects: vec![subject::SESSION_STREAM_ALL.into()],
        ..Default::default()
    };
    let kept = jetstream::new(coordinator.clone());
    kept.create_stream(config).await.unwrap();
    let say = async |items: Vec<StreamItem>, next_seq: u64| {
        let mut message = message(items);
        message.resume.next_seq = next_seq;
        let bytes = message.encode().unwrap();
        kept.publish(subject::session_stream(&session()), bytes.into()).await.unwrap().await.unwrap();
    };
    // The layout travels before anybody watches.
    say(vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3)], 2).await;

    let mut asked = coordinator.subscribe(subject::FLEET_GET).await.unwrap();
    coordinator.flush().await.unwrap();
    let mut editor = Editor::start(Arc::new(Bus(server.client().await)), |_| ()).await;

    // The server listens before it asks: what is said from now on is heard.
    let answer = async |asked: &mut async_nats::Subscriber| {
        let question = tokio::time::timeout(DEADLINE, asked.next()).await.expect("the fleet is not asked for").unwrap();
        let view = Reply::Ok(fleet(vec![probe("web-1", ProbeState::Armed, 1)]));
        let bytes = serde_json::to_vec(&view).unwrap();
        coordinator.publish(question.reply.unwrap(), bytes.into()).await.unwrap();
    };
    answer(&mut asked).await;
    say(vec![hit(2, "web-1", 4), hit(3, "web-1", 5)], 4).await;
    let shown = |lenses: &serde_json::Value| {
        lenses[0]["command"]["title"].as_str().is_some_and(|title| title.starts_with("web-1: 2 hits"))
    };
    editor.lenses_until(shown).await;
    let mut hints = editor.hints().await;
    while hints[0]["label"] != "n=5" {
        editor.until("workspace/inlayHint/refresh").await;
        hints = editor.hints().await;
    }

    // Nobody answers any more: what was shown may be over, and is taken back.
    drop(asked);
    coordinator.flush().await.unwrap();
    editor.lenses_until(|lenses| lenses.as_array().unwrap().is_empty()).await;
    editor.ends().await;
}

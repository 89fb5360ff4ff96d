//! A scripted editor. It fails on any message that was not read, on any request that was not answered exactly once, and
//! on any message that is not one of the protocol.

use super::fleet::{FakeFleet, PATIENCE, Way};
use super::schema;
use riptrace_dap_adapter::dap::{DapError, serve_fleets_keeping};
use riptrace_dap_adapter::timeline::TimelineLimits;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

/// Events whose number depends on the clock; read where a test is about them.
const TIMED: [&str; 7] = [
    "riptrace/statistics",
    "riptrace/fleetChanged",
    "riptrace/timelineChanged",
    "thread",
    "progressStart",
    "progressUpdate",
    "progressEnd",
];

/// Whether the clock decides if there is such a message: counts are told several times a second, and hits without rows
/// when their second is over.
fn is_timed(message: &Value) -> bool {
    let counts_hits = message["body"]["breakpoint"]["message"].as_str().is_some_and(|text| text.contains(" hit"));
    let no_rows = message["body"]["output"].as_str().is_some_and(|text| text.contains(" in the timeline: "));
    counts_hits || no_rows || message["event"].as_str().is_some_and(|event| TIMED.contains(&event))
}

pub(crate) struct Editor {
    pub(crate) fleet: Arc<FakeFleet>,
    /// The checkout: has `cart/cart.go`.
    pub(crate) checkout: tempfile::TempDir,
    writer: Option<WriteHalf<DuplexStream>>,
    reader: ReadHalf<DuplexStream>,
    buffer: Vec<u8>,
    adapter: JoinHandle<Result<(), DapError>>,
    seq: i64,
    last_read: i64,
    unanswered: BTreeSet<i64>,
    unread: VecDeque<Value>,
    checks: bool,
}

impl Editor {
    /// Starts an adapter on a fake fleet.
    pub(crate) fn start() -> Editor {
        Editor::start_keeping(TimelineLimits::default())
    }

    /// Starts an adapter whose timeline keeps so much.
    pub(crate) fn start_keeping(limits: TimelineLimits) -> Editor {
        let fleet = FakeFleet::new();
        let checkout = tempfile::tempdir().unwrap();
        std::fs::create_dir(checkout.path().join("cart")).unwrap();
        std::fs::write(checkout.path().join("cart/cart.go"), "package main\n".repeat(100)).unwrap();
        let (here, there) = tokio::io::duplex(1 << 16);
        let (adapter_reads, adapter_writes) = tokio::io::split(there);
        let (reader, writer) = tokio::io::split(here);
        let adapter =
            tokio::spawn(serve_fleets_keeping(adapter_reads, adapter_writes, Arc::new(Way(fleet.clone())), limits));
        Editor {
            fleet,
            checkout,
            writer: Some(writer),
            reader,
            buffer: Vec::new(),
            adapter,
            seq: 0,
            last_read: 0,
            unanswered: BTreeSet::new(),
            unread: VecDeque::new(),
            checks: true,
        }
    }

    /// Starts an adapter and attaches as VS Code does, up to before `configurationDone`.
    pub(crate) async fn attached() -> Editor {
        let mut editor = Editor::start();
        editor.initialize().await;
        let arguments = editor.attach_arguments();
        editor.ok("attach", arguments).await;
        editor.event("initialized").await;
        editor
    }

    /// Attached, with a breakpoint at cart.go:42, configured.
    pub(crate) async fn with_breakpoint() -> Editor {
        let mut editor = Editor::attached().await;
        editor.set(json!([{"line": 42}])).await;
        editor.ok("configurationDone", json!({})).await;
        editor
    }

    pub(crate) async fn initialize(&mut self) -> Value {
        let arguments = json!({
            "clientID": "test", "adapterID": "riptrace", "supportsVariableType": true, "supportsVariablePaging": true,
        });
        self.ok("initialize", arguments).await
    }

    pub(crate) fn attach_arguments(&self) -> Value {
        json!({"type": "riptrace", "request": "attach", "name": "shop", "cwd": self.checkout.path()})
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.checkout.path().join("cart/cart.go")
    }

    /// Sets the breakpoints of cart.go.
    pub(crate) async fn set(&mut self, breakpoints: Value) -> Value {
        let arguments = json!({"source": {"path": self.file()}, "breakpoints": breakpoints});
        self.ok("setBreakpoints", arguments).await["breakpoints"].take()
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.writer.as_mut().expect("not closed").write_all(bytes).await.unwrap();
    }

    /// Sends a request; returns its number.
    pub(crate) async fn send(&mut self, command: &str, arguments: Value) -> i64 {
        self.seq += 1;
        let mut message = json!({"seq": self.seq, "type": "request", "command": command});
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let body = message.to_string();
        self.unanswered.insert(self.seq);
        self.raw(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        self.seq
    }

    /// Expects that a response to a request that was sent raw will come.
    pub(crate) fn expect_answer(&mut self, seq: i64) {
        self.seq = self.seq.max(seq);
        self.unanswered.insert(seq);
    }

    /// Sends a request that must succeed; returns the body.
    pub(crate) async fn ok(&mut self, command: &str, arguments: Value) -> Value {
        let seq = self.send(command, arguments).await;
        let mut response = self.response(seq).await;
        assert_eq!((&response["command"], &response["success"]), (&json!(command), &json!(true)), "{response:#}");
        response["body"].take()
    }

    /// Sends a request that must fail; returns the message.
    pub(crate) async fn fails(&mut self, command: &str, arguments: Value) -> String {
        let seq = self.send(command, arguments).await;
        self.failed(seq).await
    }

    pub(crate) async fn failed(&mut self, seq: i64) -> String {
        let response = self.response(seq).await;
        assert_eq!(response["success"], false, "{response:#}");
        response["message"].as_str().unwrap().to_owned()
    }

    /// The response to a request.
    pub(crate) async fn response(&mut self, seq: i64) -> Value {
        self.wait_for(&format!("the answer to request {seq}"), |message| {
            message["type"] == "response" && message["request_seq"] == seq
        })
        .await
    }

    /// The next event of this name; returns its body.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let found = self.wait_for(&format!("event {name}"), |message| message["event"] == name).await;
        found["body"].clone()
    }

    /// The next event of this name that fits.
    pub(crate) async fn event_where(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = self.wait_for(&format!("a fitting event {name}"), |m| m["event"] == name && fits(&m["body"])).await;
        found["body"].clone()
    }

    /// The next event of one of these names; returns the name and the body.
    pub(crate) async fn first_of(&mut self, names: &[&str]) -> (String, Value) {
        let is_one = |message: &Value| message["event"].as_str().is_some_and(|event| names.contains(&event));
        let found = self.wait_for(&format!("one of the events {names:?}"), is_one).await;
        (found["event"].as_str().unwrap().to_owned(), found["body"].clone())
    }

    /// Forgets the events of this name that have come so far; later ones must be read.
    pub(crate) fn forget(&mut self, name: &str) {
        self.unread.retain(|message| message["event"] != name);
    }

    /// Whether messages are checked against the protocol's schema, which takes longer than making them.
    pub(crate) fn check_messages(&mut self, checks: bool) {
        self.checks = checks;
    }

    async fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&fits) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.read()).await;
            match message {
                Ok(Some(message)) if fits(&message) => return message,
                Ok(Some(message)) => self.unread.push_back(message),
                Ok(None) => panic!("the adapter went away before {what}; unread: {:#?}", self.unread),
                Err(_) => panic!("no {what}; unread: {:#?}", self.unread),
            }
        }
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.parse() {
                return Some(message);
            }
            if self.reader.read_buf(&mut self.buffer).await.unwrap() == 0 {
                assert!(self.buffer.is_empty(), "a message was cut off");
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<Value> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let header = std::str::from_utf8(&self.buffer[..end]).unwrap();
        let length: usize = header.strip_prefix("Content-Length: ").expect("one header").parse().unwrap();
        if self.buffer.len() < end + 4 + length {
            return None;
        }
        let message: Value = serde_json::from_slice(&self.buffer[end + 4..end + 4 + length]).unwrap();
        self.buffer.drain(..end + 4 + length);
        if self.checks {
            schema::check(&message);
        }
        assert_eq!(message["seq"], self.last_read + 1, "messages are numbered without gaps");
        self.last_read += 1;
        if message["type"] == "response" {
            let seq = message["request_seq"].as_i64().unwrap();
            assert!(self.unanswered.remove(&seq), "request {seq} was answered twice or never sent");
        }
        Some(message)
    }

    /// Closes the connection without a word, and waits for the adapter to end.
    pub(crate) async fn vanish(mut self) -> Arc<FakeFleet> {
        self.writer.take().unwrap().shutdown().await.unwrap();
        self.ended(&[]).await
    }

    /// Disconnects by the protocol; fails on anything unread or unanswered.
    pub(crate) async fn finish(self) -> Arc<FakeFleet> {
        self.finish_but(&[]).await
    }

    /// The same, but events of these names need not have been read.
    pub(crate) async fn finish_but(mut self, names: &[&str]) -> Arc<FakeFleet> {
        self.ok("disconnect", json!({"terminateDebuggee": true})).await;
        self.ended(names).await
    }

    async fn ended(mut self, names: &[&str]) -> Arc<FakeFleet> {
        while let Some(message) = tokio::time::timeout(PATIENCE, self.read()).await.expect("the adapter ends") {
            self.unread.push_back(message);
        }
        tokio::time::timeout(PATIENCE, &mut self.adapter).await.expect("the adapter ends").unwrap().unwrap();
        let is_named = |message: &Value| message["event"].as_str().is_some_and(|event| names.contains(&event));
        self.unread.retain(|message| !is_timed(message) && !is_named(message));
        assert!(self.unread.is_empty(), "unread: {:#?}", self.unread);
        assert!(self.unanswered.is_empty(), "unanswered: {:?}", self.unanswered);
        self.fleet
    }
}

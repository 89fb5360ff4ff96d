//! A scripted editor: speaks the Debug Adapter Protocol to `riptrace dap` and is strict about the answers.
//!
//! Every request must be answered exactly once; a response that the script did not read fails the test at its end.
//! Every message of the adapter must agree with the protocol's schema (see [`super::schema`]).
//! All messages of both sides are kept as a transcript, which is printed when a test fails.

use super::{
    SOON,
    process::Program,
    schema::{Schema, schema},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// Longest message that is believed.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One end of a session.
pub struct DapClient {
    child: Option<Child>,
    stream: Option<TcpStream>,
    schema: Option<&'static Schema>,
    to: Option<Box<dyn Write + Send>>,
    from: Receiver<Result<Value, String>>,
    errors: Arc<Mutex<Vec<u8>>>,
    /// Messages that arrived and were not asked for yet, oldest first.
    unread: Vec<Value>,
    transcript: Vec<(Direction, Value)>,
    next_seq: u64,
    last_seq: u64,
    /// Whether the script has only sent sound requests so far.
    sound: bool,
    checked: bool,
}

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The script.
    ToAdapter,
    /// The adapter.
    FromAdapter,
}

impl DapClient {
    /// Starts an adapter on its standard streams.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the adapter ({command:?}): {error}"));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&errors);
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                kept.lock().unwrap().append(&mut line);
            }
        });
        let to = Box::new(child.stdin.take().expect("piped"));
        let from = child.stdout.take().expect("piped");
        let mut client = Self::over(to, from, errors);
        client.child = Some(child);
        client.schema = Some(schema());
        client
    }

    /// Connects to an adapter that listens.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::connect_unchecked(address);
        client.schema = Some(schema());
        client
    }

    /// The same, without the check of messages against the schema: for adapters that are made up.
    #[track_caller]
    pub fn connect_unchecked(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, SOON)
            .unwrap_or_else(|error| panic!("cannot connect to the adapter at {address}: {error}"));
        let to = Box::new(stream.try_clone().expect("a second handle"));
        let from = stream.try_clone().expect("a third handle");
        let mut client = Self::over(to, from, Arc::default());
        client.stream = Some(stream);
        client
    }

    fn over(to: Box<dyn Write + Send>, from: impl Read + Send + 'static, errors: Arc<Mutex<Vec<u8>>>) -> Self {
        let (tell, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                match read_message(&mut from) {
                    Ok(Some(message)) => {
                        if tell.send(Ok(message)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        // The other end is gone only when the test is over.
                        let _ = tell.send(Err(error));
                        return;
                    }
                }
            }
        });
        Self {
            child: None,
            stream: None,
            schema: None,
            to: Some(to),
            from: messages,
            errors,
            unread: Vec::new(),
            transcript: Vec::new(),
            next_seq: 1,
            last_seq: 0,
            sound: true,
            checked: false,
        }
    }

    /// The process id of the adapter.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("an adapter that this client started");
        i32::try_from(child.id()).expect("a pid")
    }

    /// Sends a request and returns its number.
    #[track_caller]
    pub fn send(&mut self, command: &str, arguments: Value) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut message = json!({"seq": seq, "type": "request", "command": command});
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        self.post(message);
        seq
    }

    /// Sends a message as it is, in a right frame.
    #[track_caller]
    pub fn send_message(&mut self, message: Value) {
        self.sound = false;
        self.post(message);
    }

    #[track_caller]
    fn post(&mut self, message: Value) {
        let text = message.to_string();
        self.transcript.push((Direction::ToAdapter, message));
        self.write(format!("Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
    }

    /// Sends bytes, right or wrong.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.sound = false;
        self.write(bytes);
    }

    #[track_caller]
    fn write(&mut self, bytes: &[u8]) {
        let to = self.to.as_mut().expect("the way to the adapter is open");
        if let Err(error) = to.write_all(bytes).and_then(|()| to.flush()) {
            panic!("cannot send to the adapter: {error}\n{}", self.story());
        }
    }

    /// Closes the way to the adapter.
    pub fn close(&mut self) {
        self.to = None;
        if let Some(stream) = &self.stream {
            // Fails only when the other end has hung up already.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// The answer to the request with this number.
    #[track_caller]
    pub fn response(&mut self, seq: u64, limit: Duration) -> Value {
        self.take(&format!("the response to request {seq}"), limit, |message| {
            message["type"] == "response" && message["request_seq"] == seq
        })
    }

    /// Sends a request, which must succeed, and returns the body of the answer.
    #[track_caller]
    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        let seq = self.send(command, arguments);
        let mut response = self.response(seq, SOON);
        if response["success"] != true || response["command"] != command {
            panic!("{command} was refused: {response}\n{}", self.story());
        }
        response["body"].take()
    }

    /// Sends a request, which must be refused, and returns the answer.
    #[track_caller]
    pub fn call_refused(&mut self, command: &str, arguments: Value) -> Value {
        let seq = self.send(command, arguments);
        let response = self.response(seq, SOON);
        if response["success"] != false {
            panic!("{command} was not refused: {response}\n{}", self.story());
        }
        response
    }

    /// The body of the next event of this kind.
    #[track_caller]
    pub fn event(&mut self, event: &str, limit: Duration) -> Value {
        self.event_where(event, limit, |_| true)
    }

    /// The body of the next event of this kind that `wanted` accepts. Others stay to be read.
    #[track_caller]
    pub fn event_where(&mut self, event: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        self.take(&format!("an event {event}"), limit, |message| {
            message["type"] == "event" && message["event"] == event && wanted(&message["body"])
        })["body"]
            .take()
    }

    /// The bodies of all events of this kind that have arrived, without waiting.
    #[track_caller]
    pub fn events_so_far(&mut self, event: &str) -> Vec<Value> {
        while let Ok(message) = self.from.try_recv() {
            self.arrived(message);
        }
        let (wanted, kept) = std::mem::take(&mut self.unread)
            .into_iter()
            .partition(|message| message["type"] == "event" && message["event"] == event);
        self.unread = kept;
        Vec::into_iter(wanted).map(|mut message| message["body"].take()).collect()
    }

    /// The first message, read or not yet arrived, that `wanted` accepts.
    #[track_caller]
    pub fn take(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(index) = self.unread.iter().position(&wanted) {
                return self.unread.remove(index);
            }
            match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => self.arrived(message),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not within {limit:?}: {what}\n{}", self.story())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the adapter closed its output before {what}\n{}", self.story())
                }
            }
        }
    }

    /// Waits until the adapter has closed its output. Messages that arrive meanwhile can still be read.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => self.arrived(message),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the adapter has not closed its output within {limit:?}\n{}", self.story())
                }
            }
        }
    }

    /// Ends the session: `disconnect`, the adapter's end, and nothing left unanswered.
    #[track_caller]
    pub fn disconnect(mut self) -> Vec<(Direction, Value)> {
        self.call("disconnect", json!({}));
        self.close();
        self.wait_for_end(SOON);
        self.assert_nothing_unread();
        std::mem::take(&mut self.transcript)
    }

    /// Kills the adapter, as a crash of the editor would.
    pub fn kill(mut self) {
        self.checked = true;
        self.end_child();
    }

    /// All messages so far, of both sides.
    pub fn transcript(&self) -> &[(Direction, Value)] {
        &self.transcript
    }

    /// What the adapter has written to standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.errors.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn arrived(&mut self, message: Result<Value, String>) {
        match message {
            Ok(message) => {
                self.transcript.push((Direction::FromAdapter, message.clone()));
                if let Err(problem) = self.check_envelope(&message) {
                    panic!("{problem}: {message}\n{}", self.story());
                }
                let problems = self.schema.map(|schema| schema.problems(&message)).unwrap_or_default();
                if !problems.is_empty() {
                    panic!("not of the protocol: {problems:#?}\nin {message}\n{}", self.story());
                }
                self.unread.push(message);
            }
            Err(error) => panic!("the adapter sent what is no message: {error}\n{}", self.story()),
        }
    }

    /// The envelope of the protocol: rising numbers, and every response to a request that was sent.
    fn check_envelope(&mut self, message: &Value) -> Result<(), &'static str> {
        let seq = message["seq"].as_u64().ok_or("a message without a number")?;
        if seq <= self.last_seq {
            return Err("the number of a message does not rise");
        }
        self.last_seq = seq;
        match message["type"].as_str() {
            Some("event") if message["event"].is_string() => Ok(()),
            Some("request") if message["command"].is_string() => Ok(()),
            Some("response") => {
                let known = self.transcript.iter().any(|(direction, sent)| {
                    *direction == Direction::ToAdapter
                        && sent["seq"] == message["request_seq"]
                        && sent["command"] == message["command"]
                });
                // What a script sends with a broken envelope may have no number to answer to.
                if known || !self.sound { Ok(()) } else { Err("a response to what was not asked") }
            }
            _ => Err("a message of no known type"),
        }
    }

    #[track_caller]
    fn assert_nothing_unread(&mut self) {
        self.checked = true;
        while let Ok(message) = self.from.try_recv() {
            self.arrived(message);
        }
        let unread = self.unread.iter().find(|message| message["type"] == "response");
        if let Some(unread) = unread {
            panic!("nobody read this response: {unread}\n{}", self.story());
        }
    }

    fn end_child(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The transcript, for a panic.
    pub fn story(&self) -> String {
        let mut story = String::from("--- transcript:\n");
        for (direction, message) in &self.transcript {
            let arrow = match direction {
                Direction::ToAdapter => "-->",
                Direction::FromAdapter => "<--",
            };
            story += &format!("{arrow} {message}\n");
        }
        story + "--- standard error of the adapter:\n" + &self.stderr() + "\n---"
    }
}

impl Drop for DapClient {
    fn drop(&mut self) {
        self.close();
        self.end_child();
        if thread::panicking() {
            eprintln!("{}", self.story());
        } else if !self.checked {
            self.assert_nothing_unread();
        }
    }
}

/// Reads one message; `None` at the end of the stream between two messages.
pub(super) fn read_message(from: &mut impl BufRead) -> Result<Option<Value>, String> {
    let mut length = None;
    let mut first = true;
    loop {
        let mut line = String::new();
        match from.read_line(&mut line) {
            Ok(0) if first => return Ok(None),
            Ok(0) => return Err("the stream ends in a header".to_owned()),
            Ok(_) => {}
            // A killed peer resets the connection.
            Err(error) if first && error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        first = false;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(format!("a header line without CR LF: {line:?}"));
        };
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some(("Content-Length", value)) => {
                length = value.parse::<usize>().ok().filter(|&length| length <= MESSAGE_BYTES_MAX);
            }
            _ => return Err(format!("an unknown header: {line:?}")),
        }
    }
    let length = length.ok_or("no sound Content-Length")?;
    let mut text = vec![0; length];
    from.read_exact(&mut text).map_err(|error| format!("the stream ends in a message: {error}"))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&text)))
}

/// The address that `riptrace dap --listen` tells on its first line of output, as `{"listen":"127.0.0.1:4711"}`.
#[track_caller]
pub fn listening(adapter: &mut Program) -> SocketAddr {
    let hello = adapter.json(SOON);
    hello["listen"].as_str().and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {hello}"))
}

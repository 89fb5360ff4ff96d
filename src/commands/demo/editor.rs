//! The demo's editor: the client side of the Debug Adapter Protocol, on the standard streams of `riptrace dap`.

use crate::failure::Failure;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the adapter may take for an answer or an expected event.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest message that is believed, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// An editor with one debug session.
pub(super) struct Editor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    seq: u64,
    /// Messages that came in while something else was waited for.
    kept: VecDeque<Value>,
}

impl Editor {
    /// Starts the adapter.
    pub(super) fn start() -> Result<Editor, Failure> {
        let riptrace = std::env::current_exe().map_err(|e| Failure::Failed(format!("where is riptrace? {e}")))?;
        let mut child = Command::new(riptrace)
            .arg("dap")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::Failed(format!("cannot start the debug adapter: {e}")))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Failed("the debug adapter has no standard streams".to_owned()));
        };
        Ok(Editor { child, to, from: BufReader::new(from), seq: 0, kept: VecDeque::new() })
    }

    /// Sends a request; returns the body of the answer.
    pub(super) async fn request(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let seq = self.send(command, arguments).await?;
        self.response(command, seq).await
    }

    /// Sends a request whose answer is read later.
    pub(super) async fn send(&mut self, command: &str, arguments: Value) -> Result<u64, Failure> {
        self.seq += 1;
        let seq = self.seq;
        let message = json!({"seq": seq, "type": "request", "command": command, "arguments": arguments}).to_string();
        let framed = format!("Content-Length: {}\r\n\r\n{message}", message.len());
        let written = async {
            self.to.write_all(framed.as_bytes()).await?;
            self.to.flush().await
        };
        written.await.map_err(|e| Failure::Failed(format!("the debug adapter does not read {command}: {e}")))?;
        Ok(seq)
    }

    /// Reads the answer to a request.
    pub(super) async fn response(&mut self, command: &str, seq: u64) -> Result<Value, Failure> {
        let fits = |message: &Value| message["type"] == "response" && message["request_seq"] == seq;
        let answered = async {
            let mut message = self.take(fits).await?;
            if message["success"] == true {
                return Ok(message["body"].take());
            }
            Err(Failure::Failed(format!("{command} was refused: {}", message["message"])))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answered)
            .await
            .unwrap_or_else(|_| Err(Failure::Failed(format!("the debug adapter did not answer {command}"))))
    }

    /// The body of the next event of this name that `wanted` accepts; earlier ones of other kinds stay.
    pub(super) async fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let fits = |message: &Value| message["type"] == "event" && message["event"] == name && wanted(&message["body"]);
        let came = async { self.take(fits).await.map(|mut message| message["body"].take()) };
        tokio::time::timeout(ANSWER_TIMEOUT, came)
            .await
            .unwrap_or_else(|_| Err(Failure::Failed(format!("waited {} s for {name}", ANSWER_TIMEOUT.as_secs()))))
    }

    /// The first message that fits, of those that came in before and those to come; the others are kept.
    async fn take(&mut self, fits: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        if let Some(message) = self.kept.iter().position(&fits).and_then(|at| self.kept.remove(at)) {
            return Ok(message);
        }
        loop {
            let message = self.read().await?;
            if fits(&message) {
                return Ok(message);
            }
            self.kept.push_back(message);
        }
    }

    async fn read(&mut self) -> Result<Value, Failure> {
        let failed = |why: String| Failure::Failed(format!("the debug adapter: {why}"));
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).await.map_err(|e| failed(e.to_string()))? == 0 {
                return Err(failed("it ended".to_owned()));
            }
            match line.trim_end() {
                "" => break,
                header => {
                    if let Some(value) = header.strip_prefix("Content-Length: ") {
                        length = value.parse().ok().filter(|&n: &usize| n <= MESSAGE_BYTES_MAX);
                    }
                }
            }
        }
        let length = length.ok_or_else(|| failed("a message without a length".to_owned()))?;
        let mut body = vec![0; length];
        self.from.read_exact(&mut body).await.map_err(|e| failed(e.to_string()))?;
        serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))
    }

    /// Ends the session.
    pub(super) async fn disconnect(mut self) -> Result<(), Failure> {
        self.request("disconnect", json!({})).await?;
        drop(self.to);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Failed(format!("the debug adapter ended badly: {status:?}"))),
            Err(_) => Err(Failure::Failed("the debug adapter did not end after disconnect".to_owned())),
        }
    }
}

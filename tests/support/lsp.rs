//! A scripted editor for the language server: speaks to `riptrace lsp` on its standard streams and answers what it asks.

use super::SOON;
use super::dap::read_message;
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// One editor.
pub struct LspClient {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next_id: u64,
    /// Notifications that came while an answer was waited for, oldest first.
    unread: Vec<Value>,
}

impl LspClient {
    /// Starts a server and initialises it for a folder.
    #[track_caller]
    pub fn start(mut command: Command, folder: &std::path::Path) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the language server ({command:?}): {error}"));
        let to = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, from) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(Some(message)) = read_message(&mut stdout) {
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut client = Self { child, to, from, next_id: 0, unread: Vec::new() };
        let refresh = json!({"refreshSupport": true});
        let root = format!("file://{}", folder.display());
        let abilities = json!({
            "workspace": {"codeLens": refresh, "inlayHint": refresh},
            "general": {"positionEncodings": ["utf-8", "utf-16"]},
        });
        let answer = client.request("initialize", json!({"rootUri": root, "capabilities": abilities}));
        assert_eq!(answer["capabilities"]["positionEncoding"], "utf-8", "{answer}");
        client.notify("initialized", json!({}));
        client
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        write!(self.to, "Content-Length: {}\r\n\r\n{text}", text.len()).expect("the server reads");
        self.to.flush().expect("the server reads");
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Opens a file as it is on disk.
    #[track_caller]
    pub fn open(&mut self, file: &std::path::Path, language: &str) -> String {
        let uri = format!("file://{}", file.display());
        let text = std::fs::read_to_string(file).expect("the file");
        let document = json!({"uri": uri, "languageId": language, "version": 1, "text": text});
        self.notify("textDocument/didOpen", json!({"textDocument": document}));
        uri
    }

    /// The next message; what the server asks is answered.
    #[track_caller]
    fn receive(&mut self) -> Value {
        let message = self.from.recv_timeout(SOON).expect("the language server says something in time");
        if message.get("method").is_some() && message.get("id").is_some() {
            let id = message["id"].clone();
            self.send(&json!({"jsonrpc": "2.0", "id": id, "result": null}));
        }
        message
    }

    /// Asks, and gives the whole answer.
    #[track_caller]
    pub fn answer(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        self.send(&request);
        loop {
            let message = self.receive();
            if message.get("method").is_some() {
                self.unread.push(message);
            } else if message["id"] == id {
                return message;
            }
        }
    }

    /// Asks, and gives the result.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.answer(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The parameters of the next notification that fits.
    #[track_caller]
    pub fn until(&mut self, method: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let fits = |message: &Value| message["method"] == method && fits(&message["params"]);
        if let Some(at) = self.unread.iter().position(&fits) {
            return self.unread.remove(at)["params"].take();
        }
        loop {
            let mut message = self.receive();
            if fits(&message) {
                return message["params"].take();
            }
        }
    }

    /// Ends as an editor does.
    #[track_caller]
    pub fn exit(mut self) {
        self.request("shutdown", Value::Null);
        self.send(&json!({"jsonrpc": "2.0", "method": "exit"}));
        let status = self.child.wait().expect("the server's end");
        assert!(status.success(), "{status}");
    }
}

impl Drop for LspClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

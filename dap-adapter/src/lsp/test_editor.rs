//! An editor for tests: it speaks the protocol over a pipe and answers what the server asks.

use super::driver::Shared;
use super::server::serve;
use super::test_fleet::{FILE, TEXT};
use crate::environment::Environment;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tower_lsp::lsp_types::Url;

/// No step of a test takes longer, but on a machine that is overloaded.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct Editor {
    pub(super) pipe: DuplexStream,
    pub(super) shared: Shared,
    pub(super) serving: tokio::task::JoinHandle<()>,
    pub(super) folder: TempDir,
    /// Whether it answers what the server asks.
    pub(super) answers: bool,
    next_id: u64,
}

impl Editor {
    /// Opens [`FILE`] with [`TEXT`], which `prepare` may put into a repository.
    pub(super) async fn start(environment: Arc<dyn Environment>, prepare: impl FnOnce(&TempDir)) -> Editor {
        Editor::start_counting(environment, &[], prepare).await
    }

    /// The same, by an editor that offers to count columns so.
    pub(super) async fn start_counting(
        environment: Arc<dyn Environment>,
        encodings: &[&str],
        prepare: impl FnOnce(&TempDir),
    ) -> Editor {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("cart")).unwrap();
        std::fs::write(folder.path().join(FILE), TEXT).unwrap();
        prepare(&folder);
        let (pipe, theirs) = tokio::io::duplex(1 << 16);
        let (stdin, stdout) = tokio::io::split(theirs);
        let shared = Shared::default();
        let serving = tokio::spawn(serve(stdin, stdout, environment, shared.clone()));
        let mut editor = Editor { pipe, shared, serving, folder, answers: true, next_id: 0 };
        let refresh = json!({"refreshSupport": true});
        let root = Url::from_directory_path(editor.folder.path()).unwrap();
        let mut capabilities = json!({"workspace": {"codeLens": refresh, "inlayHint": refresh}});
        if !encodings.is_empty() {
            capabilities["general"] = json!({"positionEncodings": encodings});
        }
        let answer = editor.request("initialize", json!({"rootUri": root, "capabilities": capabilities})).await;
        assert_eq!(answer["capabilities"]["positionEncoding"], *encodings.first().unwrap_or(&"utf-16"));
        assert_eq!(answer["capabilities"]["inlayHintProvider"], true);
        editor.notify("initialized", json!({})).await;
        let document = json!({"uri": editor.uri(), "languageId": "go", "version": 1, "text": TEXT});
        editor.notify("textDocument/didOpen", json!({"textDocument": document})).await;
        editor
    }

    pub(super) fn uri(&self) -> Url {
        Url::from_file_path(self.folder.path().join(FILE)).unwrap()
    }

    pub(super) async fn send(&mut self, message: Value) {
        let body = message.to_string();
        self.pipe.write_all(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    }

    pub(super) async fn notify(&mut self, method: &str, params: Value) {
        let mut message = json!({"jsonrpc": "2.0", "method": method});
        if !params.is_null() {
            message["params"] = params;
        }
        self.send(message).await;
    }

    /// The next message; requests of the server are answered.
    pub(super) async fn receive(&mut self) -> Value {
        let message = tokio::time::timeout(DEADLINE, async {
            let mut header = Vec::new();
            while !header.ends_with(b"\r\n\r\n") {
                header.push(self.pipe.read_u8().await.unwrap());
            }
            let header = String::from_utf8(header).unwrap();
            let length = header.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            self.pipe.read_exact(&mut body).await.unwrap();
            serde_json::from_slice::<Value>(&body).unwrap()
        });
        let message = message.await.expect("the server says nothing");
        if self.answers && message.get("method").is_some() && message.get("id").is_some() {
            self.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": null})).await;
        }
        message
    }

    /// The parameters of the next message of this method; others are passed over.
    pub(super) async fn until(&mut self, method: &str) -> Value {
        loop {
            let message = self.receive().await;
            if message["method"] == method {
                return message["params"].clone();
            }
        }
    }

    /// The next answer; what the server asks and says is passed over.
    pub(super) async fn answer(&mut self) -> Value {
        loop {
            let message = self.receive().await;
            if message.get("method").is_none() {
                return message;
            }
        }
    }

    pub(super) async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if !params.is_null() {
            message["params"] = params;
        }
        self.send(message).await;
        let answer = self.answer().await;
        assert_eq!((&answer["id"], answer.get("error")), (&json!(id), None), "{method}");
        answer["result"].clone()
    }

    pub(super) async fn lenses(&mut self) -> Value {
        let uri = self.uri();
        self.request("textDocument/codeLens", json!({"textDocument": {"uri": uri}})).await
    }

    pub(super) async fn hints(&mut self) -> Value {
        let uri = self.uri();
        let range = json!({"start": {"line": 0, "character": 0}, "end": {"line": 6, "character": 0}});
        self.request("textDocument/inlayHint", json!({"textDocument": {"uri": uri}, "range": range})).await
    }

    /// Asks until the answer holds; each refresh of the server is a reason to ask again.
    pub(super) async fn lenses_until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let lenses = self.lenses().await;
            if holds(&lenses) {
                return lenses;
            }
            self.until("workspace/codeLens/refresh").await;
        }
    }

    /// The server ends though its input stays open.
    pub(super) async fn ends(mut self) {
        self.notify("exit", Value::Null).await;
        tokio::time::timeout(DEADLINE, self.serving).await.expect("the server stays after exit").unwrap();
    }
}

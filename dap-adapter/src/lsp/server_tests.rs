//! The server over a pipe, as an editor uses it.

use super::super::test_fleet::{FILE, TEXT, fleet, hit, layout, message, probe};
use super::*;
use crate::environment::{BusTarget, CheckoutDefaults, ConnectError};
use futures::future::BoxFuture;
use riptrace_protocol::fleet::ProbeState;
use riptrace_protocol::ids::SessionId;
use riptrace_protocol::stream::StreamItem;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// No step of a test takes longer, but on a machine that is overloaded.
const DEADLINE: Duration = Duration::from_secs(20);

/// A bus that is never reached, or refuses at once.
struct NoBus {
    refuses: bool,
}

impl Environment for NoBus {
    fn connect(&self, _: &BusTarget) -> BoxFuture<'static, std::result::Result<async_nats::Client, ConnectError>> {
        if self.refuses { Box::pin(async { Err(ConnectError::Unknown) }) } else { Box::pin(std::future::pending()) }
    }

    fn checkout(&self, cwd: &Path) -> std::result::Result<CheckoutDefaults, ConnectError> {
        Ok(CheckoutDefaults { root: cwd.to_owned(), ..CheckoutDefaults::default() })
    }

    fn viewer(&self) -> String {
        "test".into()
    }

    fn new_session_id(&self) -> SessionId {
        SessionId::new("test").unwrap()
    }
}

struct Editor {
    pipe: DuplexStream,
    shared: Shared,
    serving: tokio::task::JoinHandle<()>,
    folder: TempDir,
    next_id: u64,
}

impl Editor {
    async fn start(refuses: bool) -> Editor {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("cart")).unwrap();
        std::fs::write(folder.path().join(FILE), TEXT).unwrap();
        let (pipe, theirs) = tokio::io::duplex(1 << 16);
        let (stdin, stdout) = tokio::io::split(theirs);
        let shared = Shared::default();
        let serving = tokio::spawn(serve(stdin, stdout, Arc::new(NoBus { refuses }), shared.clone()));
        let mut editor = Editor { pipe, shared, serving, folder, next_id: 0 };
        let refresh = json!({"refreshSupport": true});
        let root = Url::from_directory_path(editor.folder.path()).unwrap();
        let answer = editor
            .request(
                "initialize",
                json!({"rootUri": root, "capabilities": {"workspace": {"codeLens": refresh, "inlayHint": refresh}}}),
            )
            .await;
        assert_eq!(answer["capabilities"]["inlayHintProvider"], true);
        editor.notify("initialized", json!({})).await;
        let document = json!({"uri": editor.uri(), "languageId": "go", "version": 1, "text": TEXT});
        editor.notify("textDocument/didOpen", json!({"textDocument": document})).await;
        editor
    }

    fn uri(&self) -> Url {
        Url::from_file_path(self.folder.path().join(FILE)).unwrap()
    }

    async fn send(&mut self, message: Value) {
        let body = message.to_string();
        self.pipe.write_all(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// The next message; requests of the server are answered.
    async fn receive(&mut self) -> Value {
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
        if message.get("method").is_some() && message.get("id").is_some() {
            self.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": null})).await;
        }
        message
    }

    async fn until(&mut self, method: &str) -> Value {
        loop {
            let message = self.receive().await;
            if message["method"] == method {
                return message["params"].clone();
            }
        }
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if !params.is_null() {
            message["params"] = params;
        }
        self.send(message).await;
        loop {
            let answer = self.receive().await;
            if answer["id"] == id && answer.get("method").is_none() {
                assert_eq!(answer.get("error"), None, "{method}");
                return answer["result"].clone();
            }
        }
    }

    async fn lenses(&mut self) -> Value {
        let uri = self.uri();
        self.request("textDocument/codeLens", json!({"textDocument": {"uri": uri}})).await
    }

    async fn hints(&mut self) -> Value {
        let uri = self.uri();
        let range = json!({"start": {"line": 0, "character": 0}, "end": {"line": 6, "character": 0}});
        self.request("textDocument/inlayHint", json!({"textDocument": {"uri": uri}, "range": range})).await
    }

    /// Asks until the answer holds; each refresh of the server is a reason to ask again.
    async fn lenses_until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let lenses = self.lenses().await;
            if holds(&lenses) {
                return lenses;
            }
            self.until("workspace/codeLens/refresh").await;
        }
    }

    /// The server ends though its input stays open.
    async fn ends(mut self) {
        self.notify("exit", Value::Null).await;
        tokio::time::timeout(DEADLINE, self.serving).await.expect("the server stays after exit").unwrap();
    }
}

#[tokio::test]
async fn without_a_fleet_everything_is_empty() {
    let mut editor = Editor::start(true).await;
    assert_eq!(editor.lenses().await, json!([]));
    assert_eq!(editor.hints().await, json!([]));
    let unsaved = json!({"textDocument": {"uri": "untitled:Untitled-1"}});
    assert_eq!(editor.request("textDocument/codeLens", unsaved).await, Value::Null);
    assert_eq!(editor.request("shutdown", Value::Null).await, Value::Null);
    editor.ends().await;
}

#[tokio::test]
async fn hits_show_up_on_the_line_and_move_with_it() {
    let mut editor = Editor::start(false).await;
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![probe("web-1", ProbeState::Armed, 0)]))));
    let items = vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3)];
    editor.shared.apply(Event::Stream(message(items)));
    let lenses = editor.lenses_until(|lenses| !lenses.as_array().unwrap().is_empty()).await;
    // Nothing tells the commit of the build: the line is taken as it is, and says so.
    let title = "web-1: 1 hit · armed in 1 process · line not certain";
    assert_eq!(lenses[0]["command"]["title"], title);
    assert_eq!(lenses[0]["range"]["start"]["line"], 3);
    let hints = editor.hints().await;
    assert_eq!(hints[0]["label"], "n=3");
    assert_eq!(hints[0]["position"], json!({"line": 3, "character": 11}));

    editor.shared.apply(Event::Stream(message(vec![hit(2, "web-1", 4)])));
    editor.until("workspace/inlayHint/refresh").await;
    let lenses = editor.lenses_until(|lenses| lenses[0]["command"]["title"] != title).await;
    assert_eq!(lenses[0]["command"]["title"], "web-1: 2 hits · armed in 1 process · line not certain");
    editor.ends().await;
}

#[tokio::test]
async fn a_tracepoint_that_no_build_takes_is_a_diagnostic() {
    let mut editor = Editor::start(false).await;
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![probe("web-1", ProbeState::Refused, 0)]))));
    let published = editor.until("textDocument/publishDiagnostics").await;
    assert_eq!(published["uri"], editor.uri().as_str());
    let diagnostic = &published["diagnostics"][0];
    assert_eq!(diagnostic["message"], "no running build takes this tracepoint; web-1 cart[812]: no code for line 4");
    assert_eq!(diagnostic["range"]["start"], json!({"line": 3, "character": 1}));
    let uri = editor.uri();
    editor.notify("textDocument/didClose", json!({"textDocument": {"uri": uri}})).await;
    let published = editor.until("textDocument/publishDiagnostics").await;
    assert_eq!(published["diagnostics"], json!([]));
    editor.ends().await;
}

#[tokio::test]
async fn the_newest_text_counts() {
    let mut editor = Editor::start(false).await;
    let uri = editor.uri();
    for version in 2..50 {
        let text = format!("// {version}\n").repeat(version);
        let document = json!({"uri": uri, "version": version});
        let change = json!({"textDocument": document, "contentChanges": [{"text": text}]});
        editor.notify("textDocument/didChange", change).await;
    }
    editor.lenses().await;
    let path = convert::path(&uri).unwrap();
    let text = editor.shared.look(|state| state.document(&path).unwrap().to_owned());
    assert_eq!(text, "// 49\n".repeat(49));
    editor.ends().await;
}

#[tokio::test]
async fn garbage_is_answered_and_the_server_lives_on() {
    let mut editor = Editor::start(true).await;
    editor.pipe.write_all(b"Content-Length: 5\r\n\r\n{nope").await.unwrap();
    let answer = editor.receive().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)));
    editor.pipe.write_all(b"what?\r\n\r\n").await.unwrap();
    let answer = editor.receive().await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("Content-Length: N"), "{answer}");
    editor.send(json!({"jsonrpc": "2.0", "id": 77, "method": "textDocument/noSuchThing", "params": {}})).await;
    let answer = editor.receive().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(77), &json!(-32601)));
    editor.send(json!({"jsonrpc": "2.0", "id": 78, "method": "textDocument/codeLens", "params": {"x": 1}})).await;
    assert_eq!(editor.receive().await["error"]["code"], -32602);
    assert_eq!(editor.lenses().await, json!([]));
    editor.ends().await;
}

#[tokio::test]
async fn the_server_ends_with_its_input() {
    let editor = Editor::start(true).await;
    let Editor { pipe, serving, .. } = editor;
    drop(pipe);
    tokio::time::timeout(DEADLINE, serving).await.expect("the server stays without input").unwrap();
}

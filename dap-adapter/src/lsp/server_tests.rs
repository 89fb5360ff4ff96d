//! The server over a pipe, as an editor uses it.

use super::super::test_editor::{DEADLINE, Editor};
use super::super::test_fleet::{build, fleet, hit, layout, message, probe};
use super::*;
use crate::environment::{BusTarget, CheckoutDefaults, ConnectError};
use futures::future::BoxFuture;
use riptrace_protocol::fleet::ProbeState;
use riptrace_protocol::ids::SessionId;
use riptrace_protocol::stream::StreamItem;
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

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

async fn editor(refuses: bool) -> Editor {
    Editor::start(Arc::new(NoBus { refuses }), |_| ()).await
}

#[tokio::test]
async fn without_a_fleet_everything_is_empty() {
    let mut editor = editor(true).await;
    assert_eq!(editor.lenses().await, json!([]));
    assert_eq!(editor.hints().await, json!([]));
    let unsaved = json!({"textDocument": {"uri": "untitled:Untitled-1"}});
    assert_eq!(editor.request("textDocument/codeLens", unsaved).await, Value::Null);
    assert_eq!(editor.request("shutdown", Value::Null).await, Value::Null);
    editor.ends().await;
}

#[tokio::test]
async fn hits_show_up_on_the_line_and_move_with_it() {
    let mut editor = editor(false).await;
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
    let mut editor = editor(false).await;
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
async fn a_breakpoint_on_a_line_that_was_added_locally_is_a_diagnostic() {
    let mut commit = String::new();
    let in_repository = |folder: &TempDir| {
        std::fs::write(folder.path().join("go.mod"), "module example.com/shop\n").unwrap();
        for arguments in ["init --quiet", "add --all", "commit --quiet --message first", "rev-parse HEAD"] {
            let identity = ["-c", "user.name=Ana", "-c", "user.email=ana@example.com", "-c", "commit.gpgsign=false"];
            let arguments = identity.into_iter().chain(arguments.split(' '));
            let output = Command::new("git").args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            commit = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        }
    };
    let mut editor = Editor::start(Arc::new(NoBus { refuses: false }), in_repository).await;
    let uri = editor.uri();
    let text = super::super::test_fleet::TEXT.replace("\tsave()", "\tlog(n)\n\tsave()");
    let document = json!({"uri": uri, "version": 2});
    let change = json!({"textDocument": document, "contentChanges": [{"text": text}]});
    editor.notify("textDocument/didChange", change).await;
    let breakpoints = json!({"breakpoints": [{"uri": uri, "lines": [4, 5]}, {"uri": "untitled:x", "lines": [0]}]});
    editor.notify("riptrace/breakpoints", breakpoints).await;
    let mut view = fleet(vec![]);
    view.tracepoints.clear();
    for host in &mut view.hosts {
        let running = &mut host.profile.processes[0].build;
        running.module = Some("example.com/shop".into());
        running.vcs_revision = Some(commit.clone());
    }
    editor.shared.apply(Event::Fleet(Box::new(view)));
    let published = editor.until("textDocument/publishDiagnostics").await;
    let diagnostics = published["diagnostics"].as_array().unwrap();
    assert_eq!(diagnostics.len(), 1, "{published}");
    assert_eq!(diagnostics[0]["range"]["start"], json!({"line": 4, "character": 1}));
    let message = format!(
        "no running build of example.com/shop has this line; line 5 does not exist in build {} (commit {}): it was \
         added or changed locally; the nearest line that it has is 6",
        build().id,
        &commit[..12]
    );
    assert_eq!(diagnostics[0]["message"], message);
    editor.ends().await;
}

#[tokio::test]
async fn a_hover_tells_the_values_of_recent_hits() {
    let mut editor = editor(false).await;
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![probe("web-1", ProbeState::Armed, 0)]))));
    let items =
        vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3), hit(2, "web-2", 4), hit(3, "web-1", 3)];
    editor.shared.apply(Event::Stream(message(items)));
    editor.lenses_until(|lenses| !lenses.as_array().unwrap().is_empty()).await;
    let uri = editor.uri();
    let at = |line: u32| json!({"textDocument": {"uri": uri}, "position": {"line": line, "character": 2}});
    let hover = editor.request("textDocument/hover", at(3)).await;
    assert_eq!(hover["contents"]["kind"], "markdown");
    let text = hover["contents"]["value"].as_str().unwrap();
    assert!(text.contains("| last 3 hits | values | web-1 | web-2 |\n| --- | --- | --- | --- |\n"), "{text}");
    assert!(text.contains("| `n` | `3` ×2, `4` ×1 | `3` ×2 | `4` ×1 |"), "{text}");
    let newest = text.lines().find(|line| line.starts_with("- ")).unwrap();
    assert!(newest.contains("web-1") && newest.ends_with("`n=3`"), "{text}");
    assert_eq!(editor.request("textDocument/hover", at(0)).await, Value::Null, "nothing is known of that line");
    editor.ends().await;
}

#[tokio::test]
async fn a_hover_names_the_last_five_of_more() {
    let mut editor = editor(false).await;
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![probe("web-1", ProbeState::Armed, 0)]))));
    let mut items = vec![StreamItem::Layout(Box::new(layout()))];
    items.extend((1..=8).map(|seq| hit(seq, "web-1", 10 + seq as i64)));
    editor.shared.apply(Event::Stream(message(items)));
    editor.lenses_until(|lenses| !lenses.as_array().unwrap().is_empty()).await;
    let at = json!({"textDocument": {"uri": editor.uri()}, "position": {"line": 3, "character": 2}});
    let hover = editor.request("textDocument/hover", at).await;
    let text = hover["contents"]["value"].as_str().unwrap();
    assert!(text.contains("| last 8 hits |"), "{text}");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("- ")).collect();
    let values: Vec<&str> = rows.iter().map(|row| row.rsplit_once(' ').unwrap().1).collect();
    assert_eq!(values, ["`n=18`", "`n=17`", "`n=16`", "`n=15`", "`n=14`"]);
    editor.ends().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it looks when refreshes come")]
async fn an_editor_is_refreshed_at_most_four_times_a_second_however_many_hits_come() {
    let mut editor = editor(false).await;
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![probe("web-1", ProbeState::Armed, 0)]))));
    editor.shared.apply(Event::Stream(message(vec![StreamItem::Layout(Box::new(layout()))])));
    let shared = editor.shared.clone();
    let hits = tokio::spawn(async move {
        for seq in 1.. {
            shared.apply(Event::Stream(message(vec![hit(seq, "web-1", 1)])));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let begun = std::time::Instant::now();
    let mut told: HashMap<String, Vec<Duration>> = HashMap::new();
    while begun.elapsed() < Duration::from_secs(4) {
        let message = editor.receive().await;
        if let Some(method) = message["method"].as_str().filter(|method| method.ends_with("/refresh")) {
            told.entry(method.to_owned()).or_default().push(begun.elapsed());
        }
    }
    hits.abort();
    assert_eq!(told.len(), 2, "of lenses and of hints: {told:?}");
    for (method, times) in &told {
        assert!(times.len() >= 2, "{method}: {times:?}");
        let crowded = times.windows(5).any(|five| five[4] - five[0] < Duration::from_secs(1));
        assert!(!crowded, "{method}: {times:?}");
    }
    editor.ends().await;
}

#[tokio::test]
async fn actions_are_offered_where_something_runs_and_fail_with_the_reason() {
    let mut editor = editor(false).await;
    let uri = editor.uri();
    let selection = json!({"start": {"line": 3, "character": 10}, "end": {"line": 3, "character": 11}});
    let asked = json!({"textDocument": {"uri": uri}, "range": selection, "context": {"diagnostics": []}});
    assert_eq!(editor.request("textDocument/codeAction", asked.clone()).await, Value::Null, "there is no fleet");
    editor.shared.apply(Event::Fleet(Box::new(fleet(vec![]))));
    let actions = editor.request("textDocument/codeAction", asked).await;
    assert_eq!(actions[0]["title"], "RipTrace: trace n here");
    assert_eq!(actions[1]["title"], "RipTrace: trace this line");
    let command = &actions[1]["command"];
    assert_eq!(command["command"], "riptrace.trace");
    let run = json!({"command": command["command"], "arguments": command["arguments"]});
    editor.send(json!({"jsonrpc": "2.0", "id": 90, "method": "workspace/executeCommand", "params": run})).await;
    let answer = editor.answer().await;
    assert_eq!(answer["error"]["message"], "there is no connection to a fleet");
    let run = json!({"command": "riptrace.fly", "arguments": []});
    editor.send(json!({"jsonrpc": "2.0", "id": 91, "method": "workspace/executeCommand", "params": run})).await;
    let answer = editor.answer().await;
    let known = "there is no command riptrace.fly; there are riptrace.trace, riptrace.stop, riptrace.show";
    assert_eq!(answer["error"]["message"], known);
    editor.ends().await;
}

#[tokio::test]
async fn the_newest_text_counts() {
    let mut editor = editor(false).await;
    let uri = editor.uri();
    for version in 2..50 {
        let text = format!("// {version}\n").repeat(version);
        let document = json!({"uri": uri, "version": version});
        let change = json!({"textDocument": document, "contentChanges": [{"text": text}]});
        editor.notify("textDocument/didChange", change).await;
    }
    editor.lenses().await;
    let path = convert::path(&uri).unwrap();
    let text = editor.shared.look(|state| state.document(&path).unwrap().as_str().to_owned());
    assert_eq!(text, "// 49\n".repeat(49));
    editor.ends().await;
}

#[tokio::test]
async fn garbage_is_answered_and_the_server_lives_on() {
    let mut editor = editor(true).await;
    editor.pipe.write_all(b"Content-Length: 5\r\n\r\n{nope").await.unwrap();
    let answer = editor.answer().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)));
    editor.pipe.write_all(b"what?\r\n\r\n").await.unwrap();
    let answer = editor.answer().await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("Content-Length: N"), "{answer}");
    editor.send(json!({"jsonrpc": "2.0", "id": 77, "method": "textDocument/noSuchThing", "params": {}})).await;
    let answer = editor.answer().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(77), &json!(-32601)));
    editor.send(json!({"jsonrpc": "2.0", "id": 78, "method": "textDocument/codeLens", "params": {"x": 1}})).await;
    assert_eq!(editor.answer().await["error"]["code"], -32602);
    assert_eq!(editor.lenses().await, json!([]));
    editor.ends().await;
}

#[tokio::test]
async fn an_answer_that_comes_after_shutdown_does_no_harm() {
    let mut editor = editor(false).await;
    editor.answers = false;
    let asked = loop {
        let message = editor.receive().await;
        if message["method"] == "workspace/codeLens/refresh" {
            break message["id"].clone();
        }
    };
    assert_eq!(editor.request("shutdown", Value::Null).await, Value::Null);
    editor.send(json!({"jsonrpc": "2.0", "id": asked, "result": null})).await;
    editor.send(json!({"jsonrpc": "2.0", "id": 4711, "method": "shutdown"})).await;
    assert_eq!(editor.answer().await["error"]["code"], -32600, "it was shut down already");
    editor.ends().await;
}

#[tokio::test]
async fn the_server_ends_with_its_input() {
    let editor = editor(true).await;
    let Editor { pipe, serving, .. } = editor;
    drop(pipe);
    tokio::time::timeout(DEADLINE, serving).await.expect("the server stays without input").unwrap();
}

#[tokio::test]
async fn the_table_of_methods_is_what_the_server_does() {
    use super::super::methods::{METHODS, Support};
    let mut editor = editor(true).await;
    let at = json!({
        "textDocument": {"uri": editor.uri()}, "position": {"line": 1, "character": 0},
        "range": {"start": {"line": 0, "character": 0}, "end": {"line": 1, "character": 0}}, "context": {"diagnostics": [], "triggerKind": 1},
        "command": "riptrace.nobody", "query": "",
    });
    let is_ours = |does: &str| does.starts_with("(to the editor)");
    // What begins and ends a conversation is done by the other tests.
    let apart = ["initialize", "initialized", "shutdown", "exit", "$/cancelRequest"];
    let requests = METHODS.iter().filter(|(method, support, does)| {
        let is_notification =
            *support == Support::Ignored || method.contains("/did") || *method == "riptrace/breakpoints";
        !is_notification && !is_ours(does) && !apart.contains(method)
    });
    for (number, (method, support, _)) in (1000..).zip(requests) {
        editor.send(json!({"jsonrpc": "2.0", "id": number, "method": method, "params": at})).await;
        let answer = editor.answer().await;
        assert_eq!(answer["id"], number, "{answer}");
        // Where the arguments are not those of the method, nothing is known but that it is not served.
        let is_served = answer["error"]["code"] != -32601 && answer["error"]["code"] != -32602;
        assert_eq!(is_served, *support == Support::Full, "{method}: {answer}");
    }
    editor.request("shutdown", Value::Null).await;
    editor.ends().await;
}

#[tokio::test]
async fn columns_are_counted_as_the_editor_counts_them() {
    for (encodings, from) in [(vec!["utf-8"], 37), (vec!["utf-16"], 34), (vec!["utf-32"], 33), (Vec::new(), 34)] {
        let environment = Arc::new(NoBus { refuses: true });
        let mut editor = Editor::start_counting(environment, &encodings, |_| ()).await;
        let uri = Url::from_file_path(editor.folder.path().join("scenario.toml")).unwrap();
        // An é is two bytes and one unit of UTF-16, a face four bytes and two units.
        let text = "stimulus = { body = \"é😀\", http = \"x\" }\n";
        let document = json!({"uri": uri, "languageId": "toml", "version": 1, "text": text});
        editor.notify("textDocument/didOpen", json!({"textDocument": document})).await;
        let problems = editor.until("textDocument/publishDiagnostics").await;
        let problems = problems["diagnostics"].as_array().unwrap();
        let of_http = |problem: &&Value| problem["message"].as_str().unwrap().contains("METHOD URL");
        let range = &problems.iter().find(of_http).unwrap_or_else(|| panic!("{problems:?}"))["range"];
        let column = |character: u32| json!({"line": 0, "character": character});
        assert_eq!((&range["start"], &range["end"]), (&column(from), &column(from + 3)), "{encodings:?}");
        // And the other way: where the editor says that its cursor is.
        let at = json!({"textDocument": {"uri": uri}, "position": {"line": 0, "character": from - 5}});
        let hover = editor.request("textDocument/hover", at).await;
        assert!(
            hover["contents"]["value"].as_str().unwrap().contains("A request: its method"),
            "{encodings:?}: {hover}"
        );
        editor.ends().await;
    }
}

#[tokio::test]
async fn a_scenario_is_checked_told_and_completed() {
    let mut editor = editor(true).await;
    let path = editor.folder.path().join("paid.scenario.toml");
    let text = "[[tracepoint]]\nname = \"charge\"\nat = \"pay.go:42\"\n[[expect]]\nabsent = \"\"\n";
    std::fs::write(&path, text).unwrap();
    let uri = Url::from_file_path(path.canonicalize().unwrap()).unwrap();
    let document = json!({"uri": uri, "languageId": "toml", "version": 1, "text": text});
    editor.notify("textDocument/didOpen", json!({"textDocument": document})).await;
    let problems = editor.until("textDocument/publishDiagnostics").await;
    assert_eq!(problems["diagnostics"][0]["range"]["start"], json!({"line": 4, "character": 9}), "{problems}");
    let named = json!({"textDocument": {"uri": uri}});
    let symbols = editor.request("textDocument/documentSymbol", named.clone()).await;
    assert_eq!((&symbols[0]["name"], &symbols[0]["detail"]), (&json!("charge"), &json!("pay.go:42")));
    let found = editor.request("workspace/symbol", json!({"query": "charg"})).await;
    assert_eq!((found.as_array().unwrap().len(), &found[0]["name"]), (1, &json!("charge")), "{found}");
    let at = json!({"textDocument": {"uri": uri}, "position": {"line": 4, "character": 10}});
    let items = editor.request("textDocument/completion", at.clone()).await;
    assert_eq!(items[0]["insertText"], "charge");
    let at = json!({"textDocument": {"uri": uri}, "position": {"line": 4, "character": 2}});
    let hover = editor.request("textDocument/hover", at).await;
    assert!(hover["contents"]["value"].as_str().unwrap().contains("A tracepoint that has no hit"), "{hover}");
    let change = json!({"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": text.replace("\"\"", "\"charge\"")}]});
    editor.notify("textDocument/didChange", change).await;
    let problems = editor.until("textDocument/publishDiagnostics").await;
    assert_eq!(problems["diagnostics"], json!([]));
    let source = json!({"textDocument": {"uri": editor.uri()}});
    assert_eq!(
        editor.request("textDocument/documentSymbol", source).await,
        Value::Null,
        "the language's own server does"
    );
    editor.ends().await;
}

#[tokio::test]
async fn what_is_offered_is_in_the_table() {
    use super::super::methods::{METHODS, Support};
    let offered = serde_json::to_value(capabilities(Encoding::Utf8)).unwrap();
    let mut methods: Vec<String> = Vec::new();
    for (capability, offer) in offered.as_object().unwrap() {
        let method = match capability.as_str() {
            "positionEncoding" => continue,
            "textDocumentSync" => "textDocument/didChange".to_owned(),
            "executeCommandProvider" => "workspace/executeCommand".to_owned(),
            "workspaceSymbolProvider" => "workspace/symbol".to_owned(),
            other => format!("textDocument/{}", other.strip_suffix("Provider").expect("a provider")),
        };
        assert_ne!(offer, &json!(false));
        methods.push(method);
    }
    for method in &methods {
        assert!(METHODS.iter().any(|(known, support, _)| known == method && *support == Support::Full), "{method}");
    }
    assert_eq!(methods.len(), 9);
}

//! Moving over the hits, and looking at one.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{Runner, WEB_1, WEB_2, hit, preamble};
use serde_json::{Value, json};

/// Hits 1 to 5 by web-1, web-2, web-1, web-2 (a logpoint's) and another goroutine of web-1; "paused in hit 1".
async fn five_hits() -> (Editor, Value) {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42}, {"line": 43, "logMessage": "log"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let created = editor.fleet.asked().created;
    let (plain, log) = (&created[0].id, &created[1].id);
    let other = Runner { goroutine: 99, ..WEB_1 };
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    items.extend([
        hit(1, plain, WEB_1, 1),
        hit(2, plain, WEB_2, 2),
        hit(3, plain, WEB_1, 3),
        hit(4, log, WEB_2, 4),
        hit(5, plain, other, 5),
    ]);
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    for _ in 0..5 {
        editor.event("output").await;
        editor.event("riptrace/hit").await;
    }
    (editor, stopped)
}

async fn finish(editor: Editor) {
    editor.finish_but(&["breakpoint"]).await;
}

/// Moves; returns the number of the hit that is open then, and why.
async fn moved(editor: &mut Editor, command: &str, thread: &Value) -> (i64, String, Value) {
    editor.ok(command, json!({"threadId": thread})).await;
    let stopped = editor.event("stopped").await;
    let description = stopped["description"].as_str().unwrap();
    let seq = description["Hit ".len()..].split(' ').next().unwrap().parse().unwrap();
    (seq, stopped["reason"].as_str().unwrap().to_owned(), stopped["threadId"].clone())
}

#[tokio::test]
async fn continue_goes_over_the_hits_of_breakpoints_and_waits_at_the_newest() {
    let (mut editor, stopped) = five_hits().await;
    let mut thread = stopped["threadId"].clone();
    for expect in [2, 3, 5] {
        let (seq, reason, next) = moved(&mut editor, "continue", &thread).await;
        assert_eq!((seq, reason.as_str()), (expect, "breakpoint"));
        thread = next;
    }
    let continued = editor.ok("continue", json!({"threadId": thread})).await;
    assert_eq!(continued["allThreadsContinued"], true);
    let created = editor.fleet.asked().created;
    editor.fleet.send(vec![hit(6, &created[1].id, WEB_1, 6), hit(7, &created[0].id, WEB_2, 7)]).await;
    let stopped = editor.event("stopped").await;
    assert!(stopped["description"].as_str().unwrap().starts_with("Hit 7 · web-2"), "{stopped}");
    for _ in 0..2 {
        editor.event("output").await;
        editor.event("riptrace/hit").await;
    }
    for expect in [5, 3, 2, 1] {
        let (seq, _, next) = moved(&mut editor, "reverseContinue", &thread).await;
        assert_eq!(seq, expect);
        thread = next;
    }
    let (seq, _, _) = moved(&mut editor, "reverseContinue", &thread).await;
    assert_eq!(seq, 1, "there is nothing before it, and the editor is stopped again");
    assert_eq!(editor.event("output").await["output"], "RipTrace: there is no earlier hit.\n");
    finish(editor).await;
}

#[tokio::test]
async fn steps_stay_with_the_goroutine() {
    let (mut editor, stopped) = five_hits().await;
    let thread = stopped["threadId"].clone();
    assert_eq!(moved(&mut editor, "next", &thread).await, (3, "step".into(), thread.clone()));
    assert_eq!(moved(&mut editor, "next", &thread).await.0, 3);
    let note = editor.event("output").await;
    assert!(note["output"].as_str().unwrap().contains("goroutine 34 has no later hit yet"), "{note}");
    assert_eq!(moved(&mut editor, "stepBack", &thread).await, (1, "step".into(), thread.clone()));
    assert_eq!(moved(&mut editor, "stepBack", &thread).await.0, 1);
    let note = editor.event("output").await;
    assert!(note["output"].as_str().unwrap().contains("no earlier hit of goroutine 34"), "{note}");
    for command in ["stepIn", "stepOut"] {
        let message = editor.fails(command, json!({"threadId": thread})).await;
        assert!(message.contains("no correlation key: name values"), "{message}");
    }
    finish(editor).await;
}

#[tokio::test]
async fn pause_goes_to_the_newest_hit_and_a_hit_may_be_opened_by_its_number() {
    let (mut editor, stopped) = five_hits().await;
    let thread = stopped["threadId"].clone();
    let (seq, reason, _) = moved(&mut editor, "pause", &thread).await;
    assert_eq!((seq, reason.as_str()), (5, "pause"));
    editor.ok("riptrace/openHit", json!({"seq": 4})).await;
    assert!(editor.event("stopped").await["description"].as_str().unwrap().starts_with("Hit 4 · "));
    finish(editor).await;
}

#[tokio::test]
async fn the_call_stack_is_given_in_pages_with_local_files_where_there_are_any() {
    let (mut editor, stopped) = five_hits().await;
    let thread = &stopped["threadId"];
    let top = editor.ok("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 1})).await;
    assert_eq!((top["totalFrames"].clone(), top["stackFrames"].as_array().unwrap().len()), (json!(5), 1));
    let rest = editor.ok("stackTrace", json!({"threadId": thread, "startFrame": 1, "levels": 19})).await;
    let all = editor.ok("stackTrace", json!({"threadId": thread})).await["stackFrames"].take();
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|frame| frame["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "main.(*Cart).Add",
            "main.handle (inlined)",
            "net/http.HandlerFunc.ServeHTTP",
            "0x403000 (nothing is known of this address)",
            "the stack goes on: its innermost 4 frames were captured",
        ]
    );
    assert_eq!(all[0], top["stackFrames"][0], "frames keep their numbers");
    assert_eq!(all[1], rest["stackFrames"][0]);
    assert_eq!((&all[0]["source"]["path"], &all[0]["line"]), (&json!(editor.file()), &json!(42)));
    assert_eq!((&all[1]["source"]["path"], &all[1]["line"]), (&json!(editor.file()), &json!(90)));
    assert_eq!(all[2]["source"]["presentationHint"], "deemphasize");
    let reference = &all[2]["source"]["sourceReference"];
    let message = editor.fails("source", json!({"sourceReference": reference})).await;
    assert!(
        message.starts_with("/usr/lib/go/src/net/http/server.go is not in this checkout, and the local"),
        "{message}"
    );
    let message = editor.fails("stackTrace", json!({"threadId": 1})).await;
    assert!(message.starts_with("the thread runs: the open hit 1 is another's"), "{message}");
    finish(editor).await;
}

#[tokio::test]
async fn scopes_hold_arguments_locals_and_the_hit_itself() {
    let (mut editor, stopped) = five_hits().await;
    let frames = editor.ok("stackTrace", json!({"threadId": stopped["threadId"]})).await["stackFrames"].take();
    let scopes = editor.ok("scopes", json!({"frameId": frames[0]["id"]})).await["scopes"].take();
    let names: Vec<&str> = scopes.as_array().unwrap().iter().map(|scope| scope["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Arguments", "Locals", "Hit"]);
    let arguments = editor.ok("variables", json!({"variablesReference": scopes[0]["variablesReference"]})).await;
    let qty = &arguments["variables"][0];
    assert_eq!((&qty["name"], &qty["value"], &qty["type"]), (&json!("qty"), &json!("1"), &json!("int")));
    assert_eq!((&qty["evaluateName"], &qty["variablesReference"]), (&json!("qty"), &json!(0)));
    let outer = editor.ok("scopes", json!({"frameId": frames[1]["id"]})).await["scopes"].take();
    assert_eq!(outer[0]["name"], "Not captured");
    let told = editor.ok("variables", json!({"variablesReference": outer[0]["variablesReference"]})).await;
    assert!(told["variables"][0]["value"].as_str().unwrap().starts_with("<not captured: "));
    // The same scopes of the same hit have the same numbers after a move away and back.
    let thread = stopped["threadId"].clone();
    moved(&mut editor, "continue", &thread).await;
    moved(&mut editor, "reverseContinue", &thread).await;
    let again = editor.ok("scopes", json!({"frameId": frames[0]["id"]})).await["scopes"].take();
    assert_eq!(again, scopes);
    finish(editor).await;
}

#[tokio::test]
async fn children_come_in_pages_and_in_hexadecimal_on_request() {
    let (mut editor, stopped) = five_hits().await;
    let frames = editor.ok("stackTrace", json!({"threadId": stopped["threadId"]})).await["stackFrames"].take();
    let scopes = editor.ok("scopes", json!({"frameId": frames[0]["id"]})).await["scopes"].take();
    let locals = editor.ok("variables", json!({"variablesReference": scopes[1]["variablesReference"]})).await;
    let prices = &locals["variables"][0];
    assert_eq!((&prices["name"], &prices["indexedVariables"]), (&json!("prices"), &json!(4)));
    assert_eq!(prices["namedVariables"], Value::Null);
    let reference = &prices["variablesReference"];
    let page =
        json!({"variablesReference": reference, "filter": "indexed", "start": 1, "count": 2, "format": {"hex": true}});
    let page = editor.ok("variables", page).await["variables"].take();
    let values: Vec<(&str, &str)> = page
        .as_array()
        .unwrap()
        .iter()
        .map(|child| (child["name"].as_str().unwrap(), child["value"].as_str().unwrap()))
        .collect();
    assert_eq!(values, [("[1]", "0x14"), ("[2]", "0x1e")]);
    let named = json!({"variablesReference": reference, "filter": "named"});
    assert_eq!(editor.ok("variables", named).await["variables"], json!([]));
    let item =
        editor.ok("variables", json!({"variablesReference": locals["variables"][1]["variablesReference"]})).await;
    assert_eq!((&item["variables"][1]["name"], &item["variables"][1]["value"]), (&json!("Left"), &json!("-1")));
    finish(editor).await;
}

#[tokio::test]
async fn expressions_are_over_the_captured_values_of_the_open_hit() {
    let (mut editor, stopped) = five_hits().await;
    let frames = editor.ok("stackTrace", json!({"threadId": stopped["threadId"]})).await["stackFrames"].take();
    let frame = &frames[0]["id"];
    for (expression, result) in
        [("qty + 1", "2"), ("item.ID", "17"), ("prices[3]", "40"), ("len(prices)", "4"), ("sku", "\"tea\"")]
    {
        let arguments = json!({
            "expression": expression, "frameId": frame, "context": "hover", "line": 1, "column": 2,
            "source": {"path": "vscode-remote://x/a.go"},
        });
        assert_eq!(editor.ok("evaluate", arguments).await["result"], result, "{expression}");
    }
    let arguments = json!({"expression": "qty * 16", "frameId": frame, "context": "watch", "format": {"hex": true}});
    assert_eq!(editor.ok("evaluate", arguments).await["result"], "0x10");
    let item = editor.ok("evaluate", json!({"expression": "item", "frameId": frame, "context": "watch"})).await;
    assert_eq!((&item["type"], &item["namedVariables"]), (&json!("main.Item"), &json!(2)));
    let parts = editor.ok("variables", json!({"variablesReference": item["variablesReference"]})).await;
    assert_eq!(parts["variables"][0]["value"], "17");
    let gone = editor.ok("evaluate", json!({"expression": "gone", "frameId": frame, "context": "hover"})).await;
    assert_eq!(gone["result"], "<optimised out>");
    for (expression, frame, why) in [
        ("qty +", frame, "at byte 5"),
        ("nothing", frame, "nothing"),
        ("qty", &frames[1]["id"], "innermost frame only"),
    ] {
        let message =
            editor.fails("evaluate", json!({"expression": expression, "frameId": frame, "context": "watch"})).await;
        assert!(message.contains(why), "{expression}: {message}");
    }
    finish(editor).await;
}

#[tokio::test]
async fn the_debug_console_works_while_the_session_runs() {
    let mut editor = Editor::attached().await;
    let repl = |expression: &str| json!({"expression": expression, "context": "repl"});
    assert!(editor.fails("evaluate", repl("qty")).await.contains("no hit yet"));
    editor.set(json!([{"line": 42, "logMessage": "log"}])).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend([hit(1, &tracepoint, WEB_1, 3), hit(2, &tracepoint, WEB_1, 4)]);
    editor.fleet.send(items).await;
    for _ in 0..2 {
        editor.event("output").await;
        editor.event("riptrace/hit").await;
    }
    assert_eq!(editor.ok("evaluate", repl("qty")).await["result"], "4", "the newest hit");
    assert!(editor.ok("evaluate", repl("help")).await["result"].as_str().unwrap().contains("hits"));
    let hits = editor.ok("evaluate", repl("hits")).await["result"].take();
    assert!(hits.as_str().unwrap().ends_with("2 hits arrived, 2 are kept; 0 were dropped and counted."), "{hits}");
    let fleet = editor.ok("evaluate", repl("fleet")).await["result"].take();
    assert!(fleet.as_str().unwrap().contains("  cart[812] go:cart-1"), "{fleet}");
    let targets = editor.ok("completions", json!({"text": "len(pri", "column": 8})).await["targets"].take();
    assert_eq!(targets, json!([{"label": "prices", "detail": "[]int", "type": "variable"}]));
    let targets = editor.ok("completions", json!({"text": "qty + item.Le", "column": 14})).await["targets"].take();
    assert_eq!(targets, json!([{"label": "Left", "detail": "int", "type": "field"}]));
    let targets = editor.ok("completions", json!({"text": "fl", "column": 3})).await["targets"].take();
    assert_eq!(targets[0]["label"], "fleet");
    finish(editor).await;
}

#[tokio::test]
async fn whole_hits_come_in_pages_and_modules_are_the_builds() {
    let (mut editor, _) = five_hits().await;
    let page = editor.ok("riptrace/timeline", json!({"from": 2, "count": 2})).await;
    let numbers: Vec<&Value> = page["hits"].as_array().unwrap().iter().map(|hit| &hit["seq"]).collect();
    assert_eq!(numbers, [2, 3]);
    let counts: Vec<&Value> =
        ["oldest", "newest", "open", "arrived", "evicted", "dropped"].map(|key| &page[key]).to_vec();
    assert_eq!(counts, [1, 5, 1, 5, 0, 0]);
    let newest = editor.ok("riptrace/timeline", json!({"count": 1})).await;
    assert_eq!(newest["hits"][0]["seq"], 5);
    let modules = editor.ok("modules", Value::Null).await;
    assert_eq!(modules["totalModules"], 2);
    assert_eq!(modules["modules"][0]["version"], "0123abc (with uncommitted changes)");
    let sources = editor.ok("loadedSources", json!({})).await["sources"].take();
    assert_eq!(sources[0], json!({"name": "cart.go", "path": editor.file()}));
    assert_eq!(sources[1]["name"], "cart.go @ 0123abc");
    assert!(sources[1]["sourceReference"].as_i64().unwrap() > 0);
    let page = editor.ok("modules", json!({"startModule": 1, "moduleCount": 5})).await;
    assert_eq!((page["modules"].as_array().unwrap().len(), &page["totalModules"]), (1, &json!(2)));
    finish(editor).await;
}

#[tokio::test]
async fn a_thread_is_announced_before_its_hit_opens() {
    let mut editor = Editor::with_breakpoint().await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.push(hit(1, &tracepoint, WEB_1, 3));
    editor.fleet.send(items).await;
    let (first, thread) = editor.first_of(&["thread", "stopped"]).await;
    let (second, stopped) = editor.first_of(&["thread", "stopped"]).await;
    assert_eq!((first.as_str(), second.as_str()), ("thread", "stopped"));
    assert_eq!((&thread["reason"], &thread["threadId"]), (&json!("started"), &stopped["threadId"]));
    editor.event("output").await;
    editor.event("riptrace/hit").await;
    finish(editor).await;
}

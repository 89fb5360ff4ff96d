//! New questions to hits that are already there, jumps, exceptions, and requests followed from process to process.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{WEB_1, WEB_2, hit, layout, ordered, preamble};
use riptrace_protocol::hit::{Chunk, ChunkEnd, RootState};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::layout::{FunctionCase, Layout, Moment, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::stream::StreamItem;
use serde_json::{Value, json};

async fn finish(editor: Editor) {
    editor.finish_but(&["breakpoint", "output", "riptrace/hit"]).await;
}

fn opened(stopped: &Value) -> u64 {
    let description = stopped["description"].as_str().unwrap();
    description["Hit ".len()..].split(' ').next().unwrap().parse().unwrap()
}

/// Six hits of cart.go:42 with qty 1 to 6, in turn by two hosts; the first is open.
async fn six_hits(correlate: Value) -> (Editor, Value) {
    let mut editor = Editor::start();
    editor.initialize().await;
    let mut arguments = editor.attach_arguments();
    arguments["correlate"] = correlate;
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    editor.set(json!([{"line": 42}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    items.extend((1..=6).map(|seq| hit(seq, &tracepoint, if seq % 2 == 1 { WEB_1 } else { WEB_2 }, seq as i64)));
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    editor.event_where("riptrace/statistics", |body| body["hits"] == 6).await;
    for event in ["output", "riptrace/hit"] {
        editor.forget(event);
    }
    (editor, stopped)
}

#[tokio::test]
async fn a_new_log_message_is_told_of_the_hits_that_are_there() {
    let (mut editor, _) = six_hits(Value::Null).await;
    editor.set(json!([{"line": 42, "condition": "qty > 4", "logMessage": "sold {qty}"}])).await;
    let title = editor.event("output").await;
    assert_eq!(title["output"], "RipTrace: the new message for the newest 2 of 6 hits that are already there\n");
    assert_eq!(title["group"], "startCollapsed");
    for qty in [5, 6] {
        let row = editor.event("output").await;
        assert!(row["output"].as_str().unwrap().starts_with(&format!("sold {qty} ")), "{row}");
    }
    assert_eq!(editor.event("output").await["group"], "end");
    let page = editor.ok("riptrace/timelinePage", json!({"from": 3, "count": 1})).await;
    assert_eq!((&page["hits"][0]["label"], &page["hits"][0]["log"]), (&json!("sold 3"), &json!(true)));
    finish(editor).await;
}

#[tokio::test]
async fn a_new_condition_says_which_of_the_hits_that_are_there_count() {
    let (mut editor, stopped) = six_hits(Value::Null).await;
    let set = editor.set(json!([{"line": 42, "condition": "qty == 5"}])).await;
    let thread = &stopped["threadId"];
    editor.ok("continue", json!({"threadId": thread})).await;
    assert_eq!(opened(&editor.event("stopped").await), 5);
    let tracepoint = editor.fleet.newest();
    editor.fleet.send(vec![hit(7, &tracepoint, WEB_1, 5)]).await;
    editor.event("riptrace/hit").await;
    editor.ok("continue", json!({"threadId": thread})).await;
    let stopped = editor.event("stopped").await;
    assert_eq!((opened(&stopped), &stopped["hitBreakpointIds"]), (7, &json!([set[0]["id"]])));
    finish(editor).await;
}

#[tokio::test]
async fn what_was_not_captured_is_offered_as_a_capture() {
    let (mut editor, _) = six_hits(Value::Null).await;
    let message = editor.fails("evaluate", json!({"expression": "missing", "context": "repl"})).await;
    assert!(message.contains("type `capture missing` in the debug console"), "{message}");
    let answer = editor.ok("evaluate", json!({"expression": "capture c.total", "context": "repl"})).await;
    assert!(answer["result"].as_str().unwrap().starts_with("c.total is captured with the next hits"), "{answer}");
    let asked = editor.fleet.until(|asked| asked.created.len() == 2 && asked.removed.len() == 1).await;
    assert_eq!(asked.created[1].captures, ["c.total"]);
    assert_eq!(asked.created[1].location, asked.created[0].location);
    editor.ok("riptrace/capture", json!({"breakpoint": 1, "expression": "c.items"})).await;
    let asked = editor.fleet.until(|asked| asked.created.len() == 3).await;
    assert_eq!(asked.created[2].captures, ["c.total", "c.items"]);
    let twice = editor.fails("riptrace/capture", json!({"breakpoint": 1, "expression": "c.items"})).await;
    assert_eq!(twice, "c.items is captured already");
    let page = editor.ok("riptrace/timelinePage", json!({"filter": {"breakpoint": 1}})).await;
    assert_eq!(page["hits"].as_array().unwrap().len(), 6, "the hits that were there are still its");
    finish(editor).await;
}

#[tokio::test]
async fn a_hit_is_reached_by_its_line_its_number_and_its_time() {
    let (mut editor, stopped) = six_hits(Value::Null).await;
    let arguments = json!({"source": {"path": editor.file()}, "line": 42});
    let targets = editor.ok("gotoTargets", arguments).await["targets"].take();
    let labels: Vec<&str> =
        targets.as_array().unwrap().iter().map(|target| target["label"].as_str().unwrap()).collect();
    assert_eq!(labels[0], "next: hit 2 · web-2 cart 10:00:00.002000");
    assert_eq!(labels[1], "newest: hit 6 · web-2 cart 10:00:00.006002");
    assert_eq!(labels.len(), 5, "{labels:?}");
    editor.ok("goto", json!({"threadId": stopped["threadId"], "targetId": targets[1]["id"]})).await;
    let stopped = editor.event("stopped").await;
    assert_eq!((opened(&stopped), &stopped["reason"]), (6, &json!("goto")));
    let nowhere = json!({"source": {"path": editor.file()}, "line": 41});
    assert_eq!(editor.ok("gotoTargets", nowhere).await["targets"], json!([]));
    for (name, expect) in [("goto 3", 3), ("goto #2", 2), ("goto 10:00:00.004", 4), ("goto 2026-11-23T10:00:00Z", 1)] {
        editor.ok("evaluate", json!({"expression": name, "context": "repl"})).await;
        assert_eq!(opened(&editor.event("stopped").await), expect, "{name}");
    }
    editor.ok("riptrace/openHit", json!({"time": "10:00:00.0045"})).await;
    assert_eq!(opened(&editor.event("stopped").await), 5);
    let late = editor.fails("evaluate", json!({"expression": "goto 11:00", "context": "repl"})).await;
    assert_eq!(late, "no hit is as late as 2026-11-23T11:00:00.000000000Z");
    finish(editor).await;
}

#[tokio::test]
async fn steps_into_and_out_of_follow_a_request_over_processes() {
    let (mut editor, stopped) = six_hits(json!(["gone", "qty / 3"])).await;
    let thread = &stopped["threadId"];
    // qty / 3: hits 1, 2 are request 0; 3, 4, 5 request 1; 6 request 2.
    editor.ok("stepIn", json!({"threadId": thread})).await;
    let stopped = editor.event("stopped").await;
    assert_eq!((opened(&stopped), &stopped["reason"]), (2, &json!("step")));
    editor.ok("stepIn", json!({"threadId": thread})).await;
    assert_eq!(opened(&editor.event("stopped").await), 2);
    let note = editor.event("output").await;
    assert_eq!(note["output"], "RipTrace: request 0 has no later hit on another process yet.\n");
    editor.ok("stepOut", json!({"threadId": thread})).await;
    assert_eq!(opened(&editor.event("stopped").await), 1);
    editor.ok("stepOut", json!({"threadId": thread})).await;
    assert_eq!(opened(&editor.event("stopped").await), 1);
    assert!(editor.event("output").await["output"].as_str().unwrap().contains("it came from outside"));
    finish(editor).await;
}

#[tokio::test]
async fn values_are_copied_whole_written_in_formats_and_have_a_place_of_declaration() {
    let (mut editor, stopped) = six_hits(Value::Null).await;
    let frames = editor.ok("stackTrace", json!({"threadId": stopped["threadId"]})).await["stackFrames"].take();
    let frame = &frames[0]["id"];
    for (expression, context, result) in [
        ("sku", "clipboard", "tea"),
        ("item", "clipboard", "main.Item {ID: 17, Left: -1}\n  ID: 17\n  Left: -1"),
        ("item.ID,x", "watch", "0x11"),
        ("item.ID,d", "watch", "17"),
        ("item.Left,d", "hover", "-1"),
        ("item.ID, b", "watch", "0b10001"),
        ("item.Left,o", "repl", "-0o1"),
        ("item.ID + 80,c", "repl", "'a'"),
        ("sku,m", "hover", "74 65 61"),
        ("sku,x", "hover", "\"tea\""),
    ] {
        let arguments = json!({"expression": expression, "frameId": frame, "context": context});
        assert_eq!(editor.ok("evaluate", arguments).await["result"], result, "{expression}");
    }
    let scopes = editor.ok("scopes", json!({"frameId": frame})).await["scopes"].take();
    let variables = editor.ok("variables", json!({"variablesReference": scopes[0]["variablesReference"]})).await;
    let reference = &variables["variables"][0]["declarationLocationReference"];
    let location = editor.ok("locations", json!({"locationReference": reference})).await;
    assert_eq!((&location["source"]["path"], &location["line"]), (&json!(editor.file()), &json!(40)));
    finish(editor).await;
}

/// Words behind the variables of the shop's hits: each a variable of this name, type and scope.
fn with_words(mut layout: Layout, words: &[&str], ty: TypeIndex, scope: Scope) -> Layout {
    for name in words {
        let root = Root::Whole { offset: 64 + 8 * (layout.variables.len() as u32 - 5), bytes: 8 };
        layout.variables.push(Variable { name: (*name).to_owned(), ty, scope, declared_line: 2, root });
    }
    layout
}

/// Lets a hit with this layout come, whose variables behind the shop's own have these words, and whose memory is `chunks`;
/// returns the scopes of its innermost frame.
async fn scopes_of(editor: &mut Editor, layout: Layout, words: &[u64], chunks: Vec<Chunk>) -> Value {
    editor.ok("configurationDone", json!({})).await;
    let mut hit = ordered(1, &editor.fleet.newest(), WEB_1, 3);
    hit.raw.layout = layout.id();
    for word in words {
        hit.raw.roots.extend_from_slice(&word.to_le_bytes());
        hit.raw.root_states.push(RootState::Captured);
    }
    hit.raw.chunks.extend(chunks);
    let mut items = preamble(WEB_1);
    items.extend([StreamItem::Layout(Box::new(layout)), StreamItem::Hit(Box::new(hit))]);
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    let frames = editor.ok("stackTrace", json!({"threadId": stopped["threadId"]})).await;
    editor.ok("scopes", json!({"frameId": frames["stackFrames"][0]["id"]})).await["scopes"].take()
}

async fn variables_of(editor: &mut Editor, scope: &Value) -> Value {
    let arguments = json!({"variablesReference": scope["variablesReference"]});
    editor.ok("variables", arguments).await["variables"].take()
}

#[tokio::test]
async fn a_function_that_is_a_value_leads_to_its_declaration() {
    let mut editor = Editor::attached().await;
    std::fs::write(editor.file(), "package cart\n\nfunc half(n int) int {\n\treturn n / 2\n}\n").unwrap();
    editor.set(json!([{"line": 4}])).await;
    let mut layout = layout();
    let function = |address, name: &str| FunctionCase { address, name: name.into(), bytes: 8, captured: Vec::new() };
    let functions = vec![function(0x400, "example.com/shop/cart.half"), function(0x500, "example.com/shop/cart.gone")];
    layout.types.push(Type { name: "func(int) int".into(), bytes: 8, kind: TypeKind::GoFunc { functions } });
    let ty = TypeIndex(layout.types.len() as u32 - 1);
    let layout = with_words(layout, &["known", "gone", "none"], ty, Scope::Local);
    let closure = |address, code: u64| {
        let bytes = code.to_le_bytes().to_vec();
        Chunk { address: Avma(address), wanted_bytes: 8, bytes, end: ChunkEnd::Complete }
    };
    let chunks = vec![closure(0x1_0000, 0x400), closure(0x1_1000, 0x500)];
    let scopes = scopes_of(&mut editor, layout, &[0x1_0000, 0x1_1000, 0], chunks).await;
    let variables = variables_of(&mut editor, &scopes[1]).await;
    let named = |name: &str| {
        let all = variables.as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}: {variables}"))
    };
    assert_eq!((&named("known")["value"], &named("none")["value"]), (&json!("cart.half"), &json!("nil")));
    let reference = |name: &str| named(name)["valueLocationReference"].clone();
    assert_eq!((reference("none"), reference("item")), (Value::Null, Value::Null));
    let location = editor.ok("locations", json!({"locationReference": reference("known")})).await;
    assert_eq!((&location["source"]["path"], &location["line"]), (&json!(editor.file()), &json!(3)));
    let why = editor.fails("locations", json!({"locationReference": reference("gone")})).await;
    assert!(why.starts_with("the checkout does not declare cart.gone"), "{why}");
    finish(editor).await;
}

#[tokio::test]
async fn package_variables_that_were_asked_for_are_a_scope() {
    let mut editor = Editor::with_breakpoint().await;
    // As an agent sends them: the function's own variables first, then what was asked for.
    let names = ["cart.Rate", "limit", "item.ID", "cart.Rates[\"tea\"]"];
    let layout = with_words(layout(), &names, TypeIndex(0), Scope::Capture);
    let scopes = scopes_of(&mut editor, layout, &[7, 8, 9, 10], Vec::new()).await;
    let names: Vec<&Value> = scopes.as_array().unwrap().iter().map(|scope| &scope["name"]).collect();
    assert_eq!(names, ["Arguments", "Locals", "Package variables", "Captures", "Hit"]);
    for (scope, expected) in
        [(2, vec![("cart.Rate", "7"), ("limit", "8"), ("cart.Rates[\"tea\"]", "10")]), (3, vec![("item.ID", "9")])]
    {
        let found = variables_of(&mut editor, &scopes[scope]).await;
        let found: Vec<(&str, &str)> = (found.as_array().unwrap().iter())
            .map(|it| (it["name"].as_str().unwrap(), it["value"].as_str().unwrap()))
            .collect();
        assert_eq!(found, expected);
    }
    finish(editor).await;
}

#[tokio::test]
async fn the_lines_of_a_file_that_builds_have_are_told() {
    let mut editor = Editor::attached().await;
    let file = editor.file();
    let arguments = |line: i64, end: i64| json!({"source": {"path": file}, "line": line, "endLine": end});
    editor.fleet.set_lines("go:cart-1", Some(vec![2, 3, 5, 41, 42, 98, 100, 101]));
    let found = editor.ok("breakpointLocations", arguments(98, 103)).await;
    assert_eq!(found["breakpoints"], json!([{"line": 98}, {"line": 100}]), "those with code; the file has 100 lines");
    assert_eq!(editor.ok("breakpointLocations", arguments(98, 103)).await, found);
    let others = editor.ok("breakpointLocations", arguments(1, 42)).await;
    let lines: Vec<&Value> = others["breakpoints"].as_array().unwrap().iter().map(|at| &at["line"]).collect();
    assert_eq!(lines, [2, 3, 5, 41, 42]);
    let asked = |build: &str| editor.fleet.asked().lines.iter().filter(|(of, _)| of == build).count();
    assert_eq!(asked("go:cart-1"), 3, "in three parts, once: a build does not change");
    // Where nobody can be asked, the text decides.
    editor.fleet.set_lines("go:gateway-1", None);
    let found = editor.ok("breakpointLocations", arguments(99, 103)).await;
    assert_eq!(found["breakpoints"], json!([{"line": 99}, {"line": 100}]));
    assert!(editor.fails("breakpointLocations", arguments(0, 1)).await.contains("0 is not a line"));
    editor.finish().await;
}

/// The layout of a return of `func Save() (error)` in which the error is a word: an address, or nil.
fn save_layout() -> Layout {
    let mut layout = layout();
    layout.moment = Moment::Return;
    layout.site.function = "store.Save".into();
    layout.types.push(Type { name: "error".into(), bytes: 8, kind: TypeKind::Pointer { to: None } });
    let ty = TypeIndex(layout.types.len() as u32 - 1);
    let root = Root::Whole { offset: 0, bytes: 8 };
    layout.variables = vec![Variable { name: "~r0".into(), ty, scope: Scope::Result, declared_line: 40, root }];
    layout
}

#[tokio::test]
async fn returns_with_an_error_open_and_the_others_are_counted() {
    let mut editor = Editor::attached().await;
    let none = editor.ok("setExceptionBreakpoints", json!({"filters": ["go-error", "nonsense"]})).await;
    assert!(none["breakpoints"][0]["message"].as_str().unwrap().starts_with("name the functions in its condition"));
    assert!(none["breakpoints"][1]["message"].as_str().unwrap().contains("no exception filter \"nonsense\""));
    let options = json!([{"filterId": "go-error", "condition": "store.Save, main.f:return"}]);
    let set = editor.ok("setExceptionBreakpoints", json!({"filters": ["go-panic"], "filterOptions": options})).await;
    assert_eq!(set["breakpoints"].as_array().unwrap().len(), 2);
    assert_eq!(set["breakpoints"][1]["verified"], true);
    let created = editor.fleet.asked().created;
    let places: Vec<String> = created.iter().map(|tracepoint| tracepoint.location.to_string()).collect();
    assert_eq!(places, ["runtime.gopanic", "store.Save:return", "main.f:return"]);
    editor.ok("configurationDone", json!({})).await;
    let mut items = preamble(WEB_1);
    let layout = save_layout();
    items.push(StreamItem::Layout(Box::new(layout.clone())));
    for (seq, error) in [(1, 0i64), (2, 0), (3, 0xc000)] {
        let mut hit = ordered(seq, &created[1].id, WEB_1, 0);
        hit.raw.layout = layout.id();
        hit.raw.roots = error.to_le_bytes().to_vec();
        hit.raw.root_states.truncate(1);
        items.push(StreamItem::Hit(Box::new(hit)));
    }
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    assert_eq!((opened(&stopped), &stopped["reason"]), (3, &json!("exception")));
    let info = editor.ok("exceptionInfo", json!({"threadId": stopped["threadId"]})).await;
    assert_eq!((&info["breakMode"], &info["details"]["typeName"]), (&json!("always"), &json!("error")));
    assert!(info["details"]["stackTrace"].as_str().unwrap().starts_with("main.(*Cart).Add\n\t"), "{info}");
    let counted = editor
        .event_where("breakpoint", |b| b["breakpoint"]["message"].as_str().unwrap().contains("2 returns without"))
        .await;
    assert!(counted["breakpoint"]["message"].as_str().unwrap().contains(", 1 hit, 2 returns without an error"));
    editor.event_where("riptrace/hit", |hit| hit["seq"] == 3).await;
    finish(editor).await;
}

#[tokio::test]
async fn what_takes_long_is_told_and_may_be_taken_back() {
    let mut editor = Editor::start();
    let arguments = json!({
        "adapterID": "riptrace", "supportsProgressReporting": true, "supportsInvalidatedEvent": true,
    });
    editor.ok("initialize", arguments).await;
    editor.fleet.answer_creations(false);
    let attach = editor.send("attach", json!({})).await;
    let start = editor.event("progressStart").await;
    assert_eq!((&start["requestId"], &start["cancellable"]), (&json!(attach), &json!(true)));
    editor.ok("cancel", json!({"progressId": start["progressId"]})).await;
    assert_eq!(editor.event("progressEnd").await["progressId"], start["progressId"]);
    assert_eq!(editor.failed(attach).await, "cancelled");
    editor.fleet.answer_creations(true);
    editor.ok("attach", json!({})).await;
    editor.event("progressStart").await;
    editor.event("progressEnd").await;
    editor.event("initialized").await;
    editor.ok("restart", Value::Null).await;
    assert_eq!(editor.event("invalidated").await["areas"], json!(["all"]));
    editor.event_where("output", |body| body["output"].as_str().unwrap().contains("armed again")).await;
    finish(editor).await;
}

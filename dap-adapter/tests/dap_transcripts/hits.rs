//! How hits and missing hits are shown as they come.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{WEB_1, WEB_2, hit, ordered, preamble};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::stream::{StreamDrop, StreamItem};
use serde_json::{Value, json};

fn text(output: &Value) -> &str {
    output["output"].as_str().unwrap()
}

#[tokio::test]
async fn the_first_hit_of_a_breakpoint_opens_and_the_others_do_not_steal_the_view() {
    let mut editor = Editor::with_breakpoint().await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    items.extend([hit(1, &tracepoint, WEB_1, 3), hit(2, &tracepoint, WEB_2, 4)]);
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    assert_eq!(stopped["description"], "Hit 1 · web-1 cart 10:00:00.001000 ±41 µs");
    assert_eq!((&stopped["reason"], &stopped["allThreadsStopped"]), (&json!("breakpoint"), &json!(false)));
    assert_eq!((&stopped["preserveFocusHint"], &stopped["hitBreakpointIds"]), (&json!(false), &json!([1])));
    let threads = editor.ok("threads", json!({})).await["threads"].take();
    assert_eq!(threads[1], json!({"id": stopped["threadId"], "name": "web-1 cart[812] goroutine 34"}));
    assert_eq!(threads[2]["name"], "web-2 cart[44] goroutine 7");
    let first = editor.event("output").await;
    assert_eq!(
        text(&first),
        "hit 1 cart.go:42 qty=3 sku=\"tea\" prices=[]int len: 4, cap: 8, [10,20,30,40] item=main.Item {ID: 17, Left: -1} \
         gone=<optimised out>  web-1 cart 10:00:00.001000 ±41µs\n"
    );
    assert_eq!((&first["category"], &first["line"]), (&json!("console"), &json!(42)));
    assert_eq!(first["source"], json!({"name": "cart.go", "path": editor.file()}));
    assert!(text(&editor.event("output").await).starts_with("hit 2 "));
    let own = editor.event("riptrace/hit").await;
    assert_eq!(own["time"], "2026-11-23T10:00:00.001000456Z");
    assert_eq!((&own["host"], &own["pid"], &own["goroutine"]), (&json!("web-1"), &json!(812), &json!(34)));
    assert_eq!((&own["function"], &own["line"]), (&json!("main.(*Cart).Add"), &json!(42)));
    assert_eq!(own["file"], json!(editor.file()));
    assert_eq!(editor.event("riptrace/hit").await["seq"], 2);
    let statistics = editor.event_where("riptrace/statistics", |body| body["hits"] == 2).await;
    assert_eq!(statistics, json!({"hits": 2, "dropped": 0, "hosts": 2, "processes": 3}));
    let changed =
        editor.event_where("breakpoint", |b| b["breakpoint"]["message"].as_str().unwrap().contains("2 hits")).await;
    assert_eq!(changed["breakpoint"]["id"], 1);
    editor.finish_but(&["breakpoint"]).await;
}

#[tokio::test]
async fn a_row_opens_to_exactly_one_record_with_all_that_is_known() {
    let mut editor = Editor::with_breakpoint().await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.push(hit(1, &tracepoint, WEB_1, 3));
    editor.fleet.send(items).await;
    let row = editor.event("output").await;
    let open = |value: &Value| json!({"variablesReference": value["variablesReference"]});
    let children = editor.ok("variables", open(&row)).await["variables"].take();
    assert_eq!(children.as_array().unwrap().len(), 1, "{children:#}");
    let record = editor.ok("variables", open(&children[0])).await["variables"].take();
    let named: Vec<(&str, &str)> = record
        .as_array()
        .unwrap()
        .iter()
        .map(|child| (child["name"].as_str().unwrap(), child["value"].as_str().unwrap()))
        .collect();
    assert_eq!(named[0], ("qty", "3"));
    assert_eq!(named[4], ("gone", "<optimised out>"));
    assert_eq!(named[5].0, "hit");
    assert_eq!(named[6], ("stack", "4 frames"));
    let facts = editor.ok("variables", open(&record[5])).await["variables"].take();
    let fact =
        |name: &str| facts.as_array().unwrap().iter().find(|fact| fact["name"] == name).unwrap()["value"].clone();
    assert_eq!(fact("time"), "2026-11-23T10:00:00.001000456Z");
    assert_eq!(fact("uncertainty"), "±41 µs");
    assert_eq!(fact("build"), "go:cart-1");
    assert_eq!(fact("order not certain with"), "none");
    let stack = editor.ok("variables", open(&record[6])).await["variables"].take();
    assert_eq!(stack[1]["value"], "main.handle /src/shop/cart/cart.go:90");
    assert_eq!(stack[4]["value"], "the stack goes on: its innermost 3 frames were captured");
    for event in ["stopped", "riptrace/hit"] {
        editor.event(event).await;
    }
    editor.finish_but(&["breakpoint"]).await;
}

#[tokio::test]
async fn a_logpoint_writes_its_message_and_never_opens_the_timeline() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42, "logMessage": "{qty} of {sku}, {missing}"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    let mut late = ordered(1, &tracepoint, WEB_1, 3);
    late.late = true;
    late.undetermined_with = vec![5, 6];
    items.push(StreamItem::Hit(Box::new(late)));
    editor.fleet.send(items).await;
    let row = editor.event("output").await;
    let told = text(&row);
    assert!(told.starts_with("3 of tea, <"), "{told}");
    assert!(
        told.ends_with(
            ">  web-1 cart 10:00:00.001000 ±41µs (order not certain with 5, 6) (late: later hits were shown before it)\n"
        ),
        "{told}"
    );
    let message = editor.event("riptrace/hit").await["message"].take();
    assert!(message.as_str().unwrap().starts_with("3 of tea, <"));
    assert!(editor.fails("stackTrace", json!({"threadId": 2})).await.starts_with("the thread runs"));
    editor.finish_but(&["breakpoint"]).await;
}

#[tokio::test]
async fn colours_are_for_editors_that_show_them() {
    for (client, coloured) in [("vscode", true), ("neovim", false)] {
        let mut editor = Editor::start();
        editor.ok("initialize", json!({"clientID": client, "adapterID": "riptrace"})).await;
        let arguments = editor.attach_arguments();
        editor.ok("attach", arguments).await;
        editor.event("initialized").await;
        editor.set(json!([{"line": 42, "logMessage": "x"}])).await;
        let tracepoint = editor.fleet.newest();
        editor.fleet.send(vec![hit(1, &tracepoint, WEB_1, 3)]).await;
        let row = editor.event("output").await;
        assert_eq!(text(&row).contains('\x1b'), coloured, "{client}: {row}");
        assert!(text(&row).contains("never arrived"), "without a layout nothing is guessed: {row}");
        // Unread, it would fail the test: VS Code is not told of a hit twice.
        if client != "vscode" {
            editor.event("riptrace/hit").await;
        }
        editor.finish_but(&["breakpoint"]).await;
    }
}

#[tokio::test]
async fn missing_hits_are_a_row_with_where_and_why() {
    let mut editor = Editor::with_breakpoint().await;
    let tracepoint = editor.fleet.newest();
    let process = crate::dap_support::hits::process(WEB_1);
    let drop = |process_known: bool, reason, count| {
        StreamItem::Drop(StreamDrop {
            host: process.host.clone(),
            process: process_known.then_some(process.key),
            tracepoint: process_known.then(|| tracepoint.clone()),
            reason,
            count,
        })
    };
    editor.fleet.send(vec![drop(true, DropReason::Rate, 120), drop(false, DropReason::Lost, 1)]).await;
    let row = editor.event("output").await;
    assert_eq!((text(&row), &row["category"]), ("120 hits dropped (rate) at web-1 pid 812\n", &json!("stderr")));
    assert_eq!((&row["source"]["path"], &row["line"]), (&json!(editor.file()), &json!(42)));
    let row = editor.event("output").await;
    assert_eq!((text(&row), &row["line"]), ("1 hit dropped (lost) at web-1\n", &Value::Null));
    let changed = editor.event("breakpoint").await["breakpoint"].take();
    assert!(changed["message"].as_str().unwrap().contains(", 120 dropped (rate); "), "{changed}");
    let statistics = editor.event_where("riptrace/statistics", |body| body["dropped"] == 121).await;
    assert_eq!(statistics["hits"], 0);
    editor.finish().await;
}

#[tokio::test]
async fn more_hits_than_a_console_can_show_are_counted_in_a_row_and_kept() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42, "logMessage": "x"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend((1..=1500).map(|seq| hit(seq, &tracepoint, WEB_1, 3)));
    editor.fleet.send(items).await;
    let held = editor.event_where("output", |body| text(body).contains("more hits are in the timeline")).await;
    assert!(text(&held).starts_with("1450 more hits"), "{held}");
    assert_eq!(editor.ok("riptrace/timeline", json!({"from": 1500})).await["hits"][0]["seq"], 1500);
    let statistics = editor.event_where("riptrace/statistics", |body| body["hits"] == 1500).await;
    assert_eq!(statistics["dropped"], 0);
    editor.finish_but(&["output", "riptrace/hit", "breakpoint"]).await;
}

#[tokio::test]
async fn without_stop_on_hit_the_timeline_opens_only_when_asked() {
    let mut editor = Editor::start();
    editor.initialize().await;
    let mut arguments = editor.attach_arguments();
    arguments["stopOnHit"] = json!(false);
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    editor.set(json!([{"line": 42}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.push(hit(1, &tracepoint, WEB_1, 3));
    editor.fleet.send(items).await;
    editor.event("riptrace/hit").await;
    editor.event("output").await;
    assert!(editor.fails("stackTrace", json!({"threadId": 2})).await.starts_with("the thread runs"));
    editor.ok("pause", json!({"threadId": 1})).await;
    assert_eq!(editor.event("stopped").await["reason"], "pause");
    editor.ok("continue", json!({"threadId": 2})).await;
    editor.fleet.send(vec![hit(2, &tracepoint, WEB_1, 3)]).await;
    editor.event("riptrace/hit").await;
    editor.event("output").await;
    editor.finish_but(&["breakpoint"]).await;
}

#[tokio::test]
async fn hits_that_come_before_the_configuration_is_done_open_after_it() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42}])).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend([hit(1, &tracepoint, WEB_1, 3), hit(2, &tracepoint, WEB_1, 3)]);
    editor.fleet.send(items).await;
    for _ in 0..2 {
        editor.event("output").await;
        editor.event("riptrace/hit").await;
    }
    editor.ok("configurationDone", json!({})).await;
    assert!(editor.event("stopped").await["description"].as_str().unwrap().starts_with("Hit 1 · "));
    editor.finish_but(&["breakpoint"]).await;
}

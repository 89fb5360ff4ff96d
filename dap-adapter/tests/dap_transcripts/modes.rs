//! What the hits of a breakpoint are for: snapshots, logs, counts, metrics; and hits by the request that they belong to.

use crate::dap_support::editor::Editor;
use crate::dap_support::fleet::status;
use crate::dap_support::hits::{Runner, WEB_1, WEB_2, hit, preamble};
use riptrace_protocol::tracepoint::Mode;
use serde_json::{Value, json};

async fn finish(editor: Editor) {
    editor
        .finish_but(&[
            "breakpoint",
            "output",
            "riptrace/hit",
            "riptrace/statistics",
            "riptrace/timelineChanged",
            "thread",
        ])
        .await;
}

fn message_has(part: &'static str) -> impl Fn(&Value) -> bool {
    move |body| body["breakpoint"]["message"].as_str().is_some_and(|message| message.contains(part))
}

#[tokio::test]
async fn modes_are_offered_and_one_that_is_unknown_or_incomplete_says_so() {
    let mut editor = Editor::start();
    let offered = editor.initialize().await;
    let modes: Vec<&Value> = offered["breakpointModes"].as_array().unwrap().iter().map(|mode| &mode["mode"]).collect();
    assert_eq!(modes, ["snapshot", "log", "count", "metric"]);
    let applies = |index: usize| &offered["breakpointModes"][index]["appliesTo"];
    assert_eq!((applies(0), applies(3)), (&json!(["source", "exception"]), &json!(["source"])));
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    let set =
        editor.set(json!([{"line": 1, "mode": "often"}, {"line": 2, "mode": "metric"}, {"line": 3, "mode": ""}])).await;
    assert!(set[0]["message"].as_str().unwrap().contains("there are snapshot, log, count, metric"), "{set}");
    assert!(set[1]["message"].as_str().unwrap().contains("a metric needs a log message"), "{set}");
    assert_eq!(
        (&set[0]["verified"], &set[1]["verified"], &set[2]["verified"]),
        (&json!(false), &json!(false), &json!(true))
    );
    editor.finish().await;
}

#[tokio::test]
async fn a_metric_is_summed_up_and_has_no_rows() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42, "logMessage": "sold {qty}", "mode": "metric"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend([3, 1, 5].into_iter().zip(1..).map(|(qty, seq)| hit(seq, &tracepoint, WEB_1, qty)));
    editor.fleet.send(items).await;
    editor.event_where("breakpoint", message_has("qty: 3 values, least 1, mean 3, greatest 5, last 5")).await;
    let statistics = editor.ok("riptrace/statistics", Value::Null).await;
    let metric = &statistics["tracepoints"][0]["metric"];
    assert_eq!((&metric["expression"], &metric["values"], &metric["mean"]), (&json!("qty"), &json!(3), &json!(3.0)));
    let page = editor.ok("riptrace/timelinePage", json!({})).await;
    assert_eq!(page["hits"].as_array().unwrap().len(), 3, "they are in the timeline all the same");
    assert_eq!(page["open"], Value::Null, "and open nothing");
    // A row would be unread here.
    editor.finish_but(&["breakpoint", "riptrace/statistics", "riptrace/timelineChanged", "thread"]).await;
}

#[tokio::test]
async fn a_log_without_a_message_opens_nothing_and_a_snapshot_with_one_does() {
    let mut editor = Editor::attached().await;
    editor
        .set(json!([{"line": 42, "mode": "log"}, {"line": 43, "logMessage": "sold {qty}", "mode": "snapshot"}]))
        .await;
    editor.ok("configurationDone", json!({})).await;
    let created = editor.fleet.asked().created;
    let mut items = preamble(WEB_1);
    items.push(hit(1, &created[0].id, WEB_1, 1));
    items.push(hit(2, &created[1].id, WEB_1, 2));
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    assert!(stopped["description"].as_str().unwrap().starts_with("Hit 2 "), "{stopped}");
    editor.event_where("output", |row| row["output"].as_str().unwrap().contains("sold 2")).await;
    finish(editor).await;
}

#[tokio::test]
async fn passages_are_counted_where_they_happen() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42, "mode": "count"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.asked().created[0].clone();
    assert_eq!(tracepoint.mode, Mode::Count);
    let mut counted = status(&tracepoint, &[]);
    counted.probes[0].hits = 1200;
    counted.probes[1].hits = 34;
    editor.fleet.tell_states(vec![counted]).await;
    editor.event_where("breakpoint", message_has("; 1234 passages counted")).await;
    finish(editor).await;
}

#[tokio::test]
async fn functions_and_exceptions_have_modes_too() {
    let mut editor = Editor::attached().await;
    let names = ["main.(*Cart).Add:return count", "main.f log", "main.g"].map(|name| json!({"name": name}));
    let set = editor.ok("setFunctionBreakpoints", json!({"breakpoints": names})).await;
    assert!(set["breakpoints"].as_array().unwrap().iter().all(|it| it["verified"] == true), "{set}");
    let options = json!([
        {"filterId": "go-panic", "mode": "log"},
        {"filterId": "go-error", "condition": "store.Save", "mode": "count"},
        {"filterId": "cpp-throw", "mode": "metric"},
        {"filterId": "rust-panic", "mode": "count"},
    ]);
    let set = editor.ok("setExceptionBreakpoints", json!({"filters": [], "filterOptions": options})).await;
    let said = |index: usize| set["breakpoints"][index]["message"].as_str().unwrap();
    assert!(said(1).starts_with("errors cannot be counted where they happen"), "{set}");
    assert!(said(2).starts_with("a metric needs a log message"), "{set}");
    let created = editor.fleet.asked().created;
    let places: Vec<(String, Mode)> = created.iter().map(|it| (it.location.to_string(), it.mode)).collect();
    let place = |name: &str, mode| (name.to_owned(), mode);
    assert_eq!(
        places,
        [
            place("main.(*Cart).Add:return", Mode::Count),
            place("main.f", Mode::Hit),
            place("main.g", Mode::Hit),
            place("runtime.gopanic", Mode::Hit),
            place("rust_panic", Mode::Count),
        ]
    );
    editor.ok("configurationDone", json!({})).await;
    let mut items = preamble(WEB_1);
    items.extend([(1, 1), (2, 3), (3, 2)].map(|(seq, of): (u64, usize)| hit(seq, &created[of].id, WEB_1, 1)));
    editor.fleet.send(items).await;
    let stopped = editor.event("stopped").await;
    assert!(stopped["description"].as_str().unwrap().starts_with("Hit 3 "), "logs open nothing: {stopped}");
    finish(editor).await;
}

#[tokio::test]
async fn a_page_may_be_of_one_request() {
    let mut editor = Editor::start();
    editor.initialize().await;
    let mut arguments = editor.attach_arguments();
    arguments["correlate"] = json!("qty");
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    editor.set(json!([{"line": 42, "logMessage": "x"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    for seq in 1..=6 {
        let runner: Runner = if seq % 2 == 0 { WEB_2 } else { WEB_1 };
        items.push(hit(seq, &tracepoint, runner, seq as i64 % 3));
    }
    editor.fleet.send(items).await;
    editor.event_where("riptrace/hit", |hit| hit["seq"] == 6).await;
    let page = editor.ok("riptrace/timelinePage", json!({"filter": {"correlation": "2"}})).await;
    let found: Vec<(&Value, &Value)> =
        page["hits"].as_array().unwrap().iter().map(|hit| (&hit["seq"], &hit["correlation"])).collect();
    assert_eq!(found, [(&json!(2), &json!("2")), (&json!(5), &json!("2"))]);
    let none = editor.ok("riptrace/timelinePage", json!({"filter": {"correlation": "9"}})).await;
    assert_eq!(none["hits"], json!([]));
    finish(editor).await;
}

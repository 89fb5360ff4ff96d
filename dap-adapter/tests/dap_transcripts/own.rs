//! The requests and events that RipTrace adds for views of its own: the fleet and the timeline.

use crate::dap_support::editor::Editor;
use crate::dap_support::fleet::status;
use crate::dap_support::hits::{Runner, WEB_1, WEB_2, hit, ordered, preamble};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::stream::{StreamDrop, StreamItem};
use serde_json::{Value, json};

/// Hits 1 to `count`, in turn by web-1 and web-2, of a logpoint; nothing is open.
async fn logged(count: u64) -> Editor {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42, "logMessage": "sold {qty}"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    items.extend((1..=count).map(|seq| {
        let runner = if seq.is_multiple_of(2) { WEB_2 } else { WEB_1 };
        hit(seq, &tracepoint, Runner { goroutine: seq % 3, ..runner }, seq as i64)
    }));
    editor.fleet.send(items).await;
    editor.event_where("riptrace/statistics", |body| body["hits"] == count).await;
    editor
}

async fn finish(editor: Editor) {
    editor.finish_but(&["breakpoint", "output", "riptrace/hit"]).await;
}

fn seqs(page: &Value) -> Vec<u64> {
    page["hits"].as_array().unwrap().iter().map(|hit| hit["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_fleet_is_hosts_processes_builds_and_tracepoints_with_their_states() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42}])).await;
    let fleet = editor.ok("riptrace/fleet", json!({})).await;
    assert_eq!(fleet["hosts"][0]["host"], "web-1");
    let cart = &fleet["hosts"][0]["processes"][0];
    assert_eq!((&cart["service"], &cart["build"], &cart["meant"]), (&json!("cart"), &json!("go:cart-1"), &json!(true)));
    let probe = &cart["probes"][0];
    assert_eq!((&probe["state"], &probe["mechanism"]), (&json!("armed"), &json!("jump")));
    assert_eq!(probe["hits_per_s"], Value::Null, "there was one look only");
    let gateway = &fleet["hosts"][0]["processes"][1]["probes"][0];
    assert_eq!(gateway["state"], "refused");
    assert_eq!(gateway["reason"], "no file cart/cart.go in build go:gateway-1");
    let builds: Vec<(&Value, &Value)> =
        fleet["builds"].as_array().unwrap().iter().map(|build| (&build["id"], &build["processes"])).collect();
    assert_eq!(builds, [(&json!("go:cart-1"), &json!(2)), (&json!("go:gateway-1"), &json!(1))]);
    let tracepoint = &fleet["tracepoints"][0];
    assert_eq!((&tracepoint["own"], &tracepoint["breakpoint"]), (&json!(true), &json!(1)));
    assert_eq!((&tracepoint["armed"], &tracepoint["processes"]), (&json!(2), &json!(3)));
    assert_eq!((&tracepoint["path"], &tracepoint["line"]), (&json!(editor.file()), &json!(42)));
    assert!(tracepoint["message"].as_str().unwrap().starts_with("armed in 2 of 3 processes"));
    let again = editor.ok("riptrace/fleet", json!({"refresh": true})).await;
    assert_eq!(again["hosts"], fleet["hosts"], "the fake fleet has not changed");
    assert!(editor.fails("riptrace/fleet", json!({"fresh": true})).await.contains("unknown field `fresh`"));
    finish(editor).await;
}

#[tokio::test]
async fn a_change_of_the_fleet_is_told() {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42}])).await;
    let before = editor.event("riptrace/fleetChanged").await["revision"].as_u64().unwrap();
    let tracepoint = editor.fleet.asked().created[0].clone();
    editor.fleet.tell_states(vec![status(&tracepoint, &[("cart", "over its budget")])]).await;
    editor.event_where("riptrace/fleetChanged", |body| body["revision"].as_u64().unwrap() > before).await;
    let fleet = editor.ok("riptrace/fleet", json!({})).await;
    assert_eq!(fleet["hosts"][0]["processes"][0]["probes"][0]["reason"], "over its budget");
    // States of breakpoints are told at most twice a second: the last one comes behind all that is told here.
    let told =
        |body: &Value| body["breakpoint"]["message"].as_str().is_some_and(|told| told.contains("over its budget"));
    editor.event_where("breakpoint", told).await;
    finish(editor).await;
}

#[tokio::test]
async fn hits_come_in_pages_to_both_sides() {
    let mut editor = logged(10).await;
    let newest = editor.ok("riptrace/timelinePage", json!({"count": 4})).await;
    assert_eq!((seqs(&newest), &newest["previous"]), (vec![7, 8, 9, 10], &json!(7)));
    let older = editor.ok("riptrace/timelinePage", json!({"count": 4, "before": 7})).await;
    assert_eq!((seqs(&older), &older["previous"]), (vec![3, 4, 5, 6], &json!(3)));
    let oldest = editor.ok("riptrace/timelinePage", json!({"count": 4, "before": 3})).await;
    assert_eq!((seqs(&oldest), &oldest["previous"]), (vec![1, 2], &Value::Null));
    let forward = editor.ok("riptrace/timelinePage", json!({"count": 9, "from": 1})).await;
    assert_eq!((seqs(&forward).len(), &forward["next"], &forward["previous"]), (9, &json!(10), &Value::Null));
    let rest = editor.ok("riptrace/timelinePage", json!({"from": 10})).await;
    assert_eq!((seqs(&rest), &rest["next"]), (vec![10], &Value::Null));
    let first = &forward["hits"][0];
    assert_eq!((&first["label"], &first["at_ns"], &first["log"]), (&json!("sold 1"), &json!(0), &json!(true)));
    assert_eq!(rest["hits"][0]["at_ns"], 9 * 1_000_456);
    assert_eq!(first["function"], "main.(*Cart).Add");
    assert_eq!((&first["file"], &first["line"]), (&json!(editor.file()), &json!(42)));
    let counts: Vec<&Value> =
        ["oldest", "newest", "open", "kept", "arrived", "evicted", "dropped"].map(|key| &newest[key]).to_vec();
    assert_eq!(counts, [&json!(1), &json!(10), &Value::Null, &json!(10), &json!(10), &json!(0), &json!(0)]);
    let both = editor.fails("riptrace/timelinePage", json!({"from": 1, "before": 2})).await;
    assert_eq!(both, "give \"from\" or \"before\", not both");
    finish(editor).await;
}

#[tokio::test]
async fn a_filter_is_by_origin_text_and_values() {
    let mut editor = logged(12).await;
    let tracepoint = editor.fleet.newest();
    for (filter, expect) in [
        (json!({"host": "web-2"}), vec![2, 4, 6, 8, 10, 12]),
        (json!({"host": "web-*", "goroutine": 0}), vec![3, 6, 9, 12]),
        (json!({"service": "gate*"}), vec![]),
        (json!({"pid": 812, "goroutine": 1}), vec![1, 7]),
        (json!({"thread": 815, "text": "SOLD 1"}), vec![1, 10, 11, 12]),
        (json!({"text": "cart).add", "when": "qty > 10 && sku == \"tea\""}), vec![11, 12]),
        (json!({"when": "nothing == 1"}), vec![]),
        (json!({"tracepoint": tracepoint, "breakpoint": 1, "when": "qty == 5"}), vec![5]),
        (json!({"breakpoint": 9}), vec![]),
    ] {
        let page = editor.ok("riptrace/timelinePage", json!({"filter": filter})).await;
        assert_eq!(seqs(&page), expect, "{filter}");
        let forward = editor.ok("riptrace/timelinePage", json!({"filter": filter, "from": 0})).await;
        assert_eq!(seqs(&forward), expect, "{filter}");
    }
    let message = editor.fails("riptrace/timelinePage", json!({"filter": {"when": "qty >"}})).await;
    assert!(message.starts_with("the filter's \"when\": "), "{message}");
    let message = editor.fails("riptrace/timelinePage", json!({"filter": {"hosts": "a"}})).await;
    assert!(message.contains("unknown field `hosts`"), "{message}");
    finish(editor).await;
}

#[tokio::test]
async fn an_overview_counts_the_hits_of_each_service_in_pieces_of_time() {
    let mut editor = logged(10).await;
    let whole = editor.ok("riptrace/timelineOverview", json!({"buckets": 5})).await;
    let cart = &whole["services"][0];
    assert_eq!((&cart["service"], &cart["hits"]), (&json!("cart"), &json!(10)));
    assert_eq!((&cart["counts"], &cart["first"]), (&json!([2, 2, 2, 2, 2]), &json!([1, 3, 5, 7, 9])));
    assert_eq!(cart["uncertainty_ns"], 41_000);
    let arguments = json!({"buckets": 2, "from_ns": 0, "to_ns": 3_000_000, "filter": {"host": "web-1"}});
    let part = editor.ok("riptrace/timelineOverview", arguments).await;
    assert_eq!(part["services"][0]["counts"], json!([1, 1]));
    assert!(
        editor.fails("riptrace/timelineOverview", json!({"filter": {"text": "x"}})).await.contains("by origin only")
    );
    assert!(
        editor.fails("riptrace/timelineOverview", json!({"from_ns": 5, "to_ns": 5})).await.contains("greater than")
    );
    finish(editor).await;
}

#[tokio::test]
async fn statistics_say_what_arrived_and_what_is_missing() {
    let mut editor = logged(3).await;
    let (process, tracepoint) = (crate::dap_support::hits::process(WEB_1), editor.fleet.newest());
    let drop = StreamDrop {
        host: process.host,
        process: Some(process.key),
        tracepoint: Some(tracepoint.clone()),
        reason: DropReason::Rate,
        count: 12,
    };
    editor.fleet.send(vec![StreamItem::Drop(drop)]).await;
    editor.event_where("riptrace/statistics", |body| body["dropped"] == 12).await;
    let statistics = editor.ok("riptrace/statistics", Value::Null).await;
    assert_eq!((&statistics["hits"], &statistics["drops"]), (&json!(3), &json!({"rate": 12})));
    assert_eq!((&statistics["services"], &statistics["kept"]), (&json!({"cart": 3}), &json!(3)));
    assert_eq!(
        statistics["tracepoints"],
        json!([{"tracepoint": tracepoint, "breakpoint": 1, "hits": 3, "drops": {"rate": 12}}])
    );
    finish(editor).await;
}

#[tokio::test]
async fn opening_and_leaving_a_hit_changes_the_timeline() {
    let mut editor = logged(3).await;
    editor.ok("riptrace/openHit", json!({"seq": 2})).await;
    let stopped = editor.event("stopped").await;
    editor.event_where("riptrace/timelineChanged", |body| body["open"] == 2 && body["newest"] == 3).await;
    assert_eq!(editor.ok("riptrace/timelinePage", json!({"count": 1})).await["open"], 2);
    editor.ok("continue", json!({"threadId": stopped["threadId"]})).await;
    editor.event("stopped").await;
    editor.ok("continue", json!({"threadId": stopped["threadId"]})).await;
    editor.event_where("riptrace/timelineChanged", |body| body["open"].is_null()).await;
    assert!(editor.fails("riptrace/openHit", json!({"seq": 99})).await.starts_with("hit 99 "));
    finish(editor).await;
}

#[tokio::test]
async fn neighbours_whose_order_is_not_certain_are_named() {
    let mut editor = logged(2).await;
    let tracepoint = editor.fleet.newest();
    let mut third = ordered(3, &tracepoint, WEB_1, 3);
    third.undetermined_with = vec![2];
    third.late = true;
    editor.fleet.send(vec![StreamItem::Hit(Box::new(third))]).await;
    editor.event_where("riptrace/timelineChanged", |body| body["newest"] == 3).await;
    let page = editor.ok("riptrace/timelinePage", json!({"from": 3})).await;
    let hit = &page["hits"][0];
    assert_eq!((&hit["undetermined_with"], &hit["late"]), (&json!([2]), &json!(true)));
    finish(editor).await;
}

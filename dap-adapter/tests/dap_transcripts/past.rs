//! Hits that have made room for newer ones, read back from the fleet's store.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{Runner, WEB_1, hit, preamble};
use riptrace_dap_adapter::timeline::TimelineLimits;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const HITS: u64 = 6000;
const KEPT: u64 = 100;

/// A session that keeps the newest 100 of 6,000 hits; one goroutine makes each thousandth. The fleet keeps all if it
/// `keeps`.
async fn many(keeps: bool) -> (Editor, Value) {
    let mut editor = Editor::start_keeping(TimelineLimits { hits: KEPT as usize, bytes: 1 << 20 });
    editor.initialize().await;
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    editor.set(json!([{"line": 42}])).await;
    editor.ok("configurationDone", json!({})).await;
    if keeps {
        editor.fleet.keep();
    }
    let tracepoint = editor.fleet.newest();
    editor.fleet.send(preamble(WEB_1)).await;
    for from in (1..=HITS).step_by(500) {
        let items = (from..from + 500).map(|seq| {
            let goroutine = if seq.is_multiple_of(1000) { 7 } else { 8 };
            hit(seq, &tracepoint, Runner { goroutine, ..WEB_1 }, seq as i64)
        });
        editor.fleet.send(items.collect()).await;
    }
    let stopped = editor.event("stopped").await;
    editor.event_where("riptrace/statistics", |body| body["hits"] == HITS).await;
    (editor, stopped)
}

async fn finish(editor: Editor) {
    editor.finish_but(&["breakpoint", "output", "riptrace/hit"]).await;
}

async fn opened(editor: &mut Editor) -> u64 {
    let stopped = editor.event("stopped").await;
    let description = stopped["description"].as_str().unwrap();
    description["Hit ".len()..].split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_hit_that_has_made_room_is_opened_and_left_to_both_sides() {
    let (mut editor, stopped) = many(true).await;
    let thread = json!({"threadId": stopped["threadId"]});
    editor.ok("riptrace/openHit", json!({"seq": 3000})).await;
    assert_eq!(opened(&mut editor).await, 3000);
    let value = editor.ok("evaluate", json!({"expression": "qty", "context": "repl"})).await;
    assert_eq!(value["result"], "3000", "its values are there as well");
    editor.ok("continue", thread.clone()).await;
    assert_eq!(opened(&mut editor).await, 3001);
    editor.ok("reverseContinue", thread.clone()).await;
    assert_eq!(opened(&mut editor).await, 3000);
    let before = editor.fleet.read_back.load(Ordering::Relaxed);
    // The same goroutine made hits 4000 and 2000, 1000: some are in another window.
    for (command, expect) in [("next", 4000), ("stepBack", 3000), ("stepBack", 2000), ("stepBack", 1000)] {
        editor.ok(command, thread.clone()).await;
        assert_eq!(opened(&mut editor).await, expect, "{command}");
    }
    editor.ok("stepBack", thread.clone()).await;
    assert_eq!(opened(&mut editor).await, 1000, "there is none before it");
    editor.event_where("output", |o| o["output"].as_str().unwrap().contains("no earlier hit of goroutine 7")).await;
    assert!(editor.fleet.read_back.load(Ordering::Relaxed) > before);
    finish(editor).await;
}

#[tokio::test]
async fn going_back_over_the_oldest_hit_that_is_kept_reads_those_before_it() {
    let (mut editor, stopped) = many(true).await;
    let thread = json!({"threadId": stopped["threadId"]});
    editor.ok("riptrace/openHit", json!({"seq": HITS - KEPT + 1})).await;
    assert_eq!(opened(&mut editor).await, HITS - KEPT + 1);
    editor.ok("reverseContinue", thread.clone()).await;
    assert_eq!(opened(&mut editor).await, HITS - KEPT);
    editor.ok("continue", thread.clone()).await;
    assert_eq!(opened(&mut editor).await, HITS - KEPT + 1, "and on into those that are kept");
    finish(editor).await;
}

#[tokio::test]
async fn requests_that_need_different_old_hits_at_once_are_all_answered() {
    let (mut editor, _) = many(true).await;
    let pages = [5, 5400, 2].map(|from| (from, json!({"from": from, "count": 2})));
    let mut asked = Vec::new();
    for (from, page) in pages {
        asked.push((from, editor.send("riptrace/timelinePage", page).await));
    }
    let opened_later = editor.send("riptrace/openHit", json!({"seq": 5300})).await;
    for (from, seq) in asked {
        let page = editor.response(seq).await;
        assert_eq!(page["body"]["hits"][0]["seq"], from, "{page}");
    }
    assert_eq!(editor.response(opened_later).await["success"], true);
    assert_eq!(opened(&mut editor).await, 5300);
    finish(editor).await;
}

#[tokio::test]
async fn pages_go_on_over_hits_that_have_made_room() {
    let (mut editor, _) = many(true).await;
    let mut before = Value::Null;
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let arguments = if before.is_null() { json!({"count": 500}) } else { json!({"count": 500, "before": before}) };
        let page = editor.ok("riptrace/timelinePage", arguments).await;
        let hits = page["hits"].as_array().unwrap();
        seen.extend(hits.iter().rev().map(|hit| hit["seq"].as_u64().unwrap()));
        before = page["previous"].clone();
        if before.is_null() {
            break;
        }
    }
    assert_eq!(seen, (1..=HITS).rev().collect::<Vec<u64>>(), "every hit is reached, once");
    let page = editor.ok("riptrace/timelinePage", json!({"from": 10, "count": 3})).await;
    let seqs: Vec<&Value> = page["hits"].as_array().unwrap().iter().map(|hit| &hit["seq"]).collect();
    assert_eq!((seqs, &page["next"]), (vec![&json!(10), &json!(11), &json!(12)], &json!(13)));
    finish(editor).await;
}

#[tokio::test]
async fn hits_that_the_fleet_has_let_go_of_are_said_to_be_gone() {
    let (mut editor, stopped) = many(false).await;
    let message = editor.fails("riptrace/openHit", json!({"seq": 3000})).await;
    assert!(message.starts_with("hit 3000 has made room for newer ones"), "{message}");
    editor.ok("riptrace/openHit", json!({"seq": HITS - KEPT + 1})).await;
    opened(&mut editor).await;
    editor.ok("reverseContinue", json!({"threadId": stopped["threadId"]})).await;
    assert_eq!(opened(&mut editor).await, HITS - KEPT + 1);
    editor
        .event_where("output", |o| o["output"].as_str().unwrap().contains("there is no earlier hit (5900 older"))
        .await;
    finish(editor).await;
}

//! Many hits: what they cost in memory, and how long a person waits for one of them.
//!
//! `RIPTRACE_TIMELINE_SCALE=500000 cargo test --release -p riptrace-dap-adapter --test dap_transcripts scale -- --nocapture`
//! measures the figures of `RESULTS.md`; without it the same runs with few hits and holds the size of a hit only.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{Runner, WEB_1, WEB_2, hit, preamble};
use serde_json::{Value, json};
use std::time::Duration;

/// Hits without the environment variable.
const FEW: u64 = 4_000;
/// Bytes that a hit of five values and three frames may take in the timeline.
const HIT_BYTES_MAX: u64 = 400;
/// What a person may wait for, in the figures' run.
const OPEN_MAX: Duration = Duration::from_millis(30);
/// What the whole process may take with 500,000 hits, in the figures' run.
const MEMORY_BYTES_MAX: u64 = 300_000_000;
/// Moves that are measured, and without the environment variable.
const MOVES: (u64, u64) = (1000, 40);

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hits_are_held_in_little_memory_and_opened_at_once() {
    let asked = std::env::var("RIPTRACE_TIMELINE_SCALE").ok().map(|count| count.parse().expect("a number of hits"));
    let hits: u64 = asked.unwrap_or(FEW);
    let before = resident_bytes();
    let mut editor = Editor::attached().await;
    editor.check_messages(false);
    editor.set(json!([{"line": 42}])).await;
    editor.ok("configurationDone", json!({})).await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    editor.fleet.send(items).await;
    for from in (1..=hits).step_by(1000) {
        let to = (from + 999).min(hits);
        let batch = (from..=to).map(|seq| {
            let runner = if seq.is_multiple_of(2) { WEB_2 } else { WEB_1 };
            // A server has a goroutine per request; some make many hits.
            let goroutine = if seq.is_multiple_of(5) { seq % 7 } else { seq / 3 };
            hit(seq, &tracepoint, Runner { goroutine, ..runner }, seq as i64)
        });
        editor.fleet.send(batch.collect()).await;
        if to < hits && !to.is_multiple_of(20_000) {
            continue;
        }
        // The counts come twice a second at most, so they are not waited for at each batch.
        editor.event_where("riptrace/statistics", |body| body["hits"].as_u64() >= Some(to)).await;
        for event in ["output", "riptrace/hit", "breakpoint", "riptrace/timelineChanged", "thread"] {
            editor.forget(event);
        }
    }
    let mut thread = editor.event("stopped").await["threadId"].clone();
    let statistics = editor.ok("riptrace/statistics", Value::Null).await;
    assert_eq!((statistics["hits"].as_u64(), statistics["kept"].as_u64()), (Some(hits), Some(hits.min(500_000))));
    let kept_bytes = statistics["kept_bytes"].as_u64().unwrap();
    let memory = resident_bytes();
    assert!(kept_bytes / hits.min(500_000) <= HIT_BYTES_MAX, "{kept_bytes} bytes for {hits} hits");

    let mut opened = Vec::new();
    let mut moved: Vec<(&str, Vec<Duration>)> =
        ["continue", "reverseContinue", "next", "stepBack"].map(|command| (command, Vec::new())).to_vec();
    let mut paged = Vec::new();
    let moves = if asked.is_some() { MOVES.0 } else { MOVES.1 };
    for round in 0..moves {
        // Anywhere, always the same: a multiplicative step over all hits.
        let seq = hits - hits.min(500_000) + 1 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % hits.min(500_000);
        let begun = tokio::time::Instant::now();
        editor.ok("riptrace/openHit", json!({"seq": seq})).await;
        let stopped = editor.event("stopped").await;
        thread = stopped["threadId"].clone();
        let frames = editor.ok("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 20})).await;
        let scopes = editor.ok("scopes", json!({"frameId": frames["stackFrames"][0]["id"]})).await;
        for scope in scopes["scopes"].as_array().unwrap() {
            editor.ok("variables", json!({"variablesReference": scope["variablesReference"]})).await;
        }
        opened.push(begun.elapsed());
        let command = (round % 4) as usize;
        let begun = tokio::time::Instant::now();
        editor.ok(moved[command].0, json!({"threadId": thread})).await;
        if seq < hits || command != 0 {
            editor.event("stopped").await;
        }
        moved[command].1.push(begun.elapsed());
        if round.is_multiple_of(20) {
            let begun = tokio::time::Instant::now();
            editor.ok("riptrace/timelinePage", json!({"from": seq, "filter": {"goroutine": 3, "host": "web-1"}})).await;
            paged.push(begun.elapsed());
        }
        for event in ["output", "thread", "riptrace/timelineChanged"] {
            editor.forget(event);
        }
    }
    let begun = tokio::time::Instant::now();
    editor.ok("riptrace/timelineOverview", json!({"buckets": 400})).await;
    let overview = begun.elapsed();
    eprintln!("hits {hits}, {kept_bytes} bytes in the timeline; process {before} -> {memory} bytes");
    let opened = p99(opened);
    eprintln!("open a hit with its frames, scopes and variables: p99 {opened:?}");
    let mut worst = opened;
    for (command, times) in moved {
        let time = p99(times);
        worst = worst.max(time);
        eprintln!("{command}: p99 {time:?}");
    }
    eprintln!("a filtered page: p99 {:?}; an overview: {overview:?}", p99(paged));
    if asked.is_some() {
        assert!(worst <= OPEN_MAX, "{worst:?}");
        assert!(memory <= MEMORY_BYTES_MAX, "{memory} bytes");
    }
    let _ = thread;
    editor.finish_but(&["output", "breakpoint", "stopped", "riptrace/hit"]).await;
}

//! What happens when a part of RipTrace ends or restarts: the target lives and is correct, and the counts add up.

use crate::shop::{interrupt, nothing_is_traced};
use crate::support::{LATER, SOON, eventually, process::Program};
use crate::torture::{fleet_with_target, sum};
use nix::sys::signal::Signal;
use riptrace_protocol::limits;
use serde_json::{Value, json};
use std::time::Duration;

/// A lease, and the time to act on it.
const LEASE: Duration = Duration::from_millis(limits::SESSION_LEASE_MS + 20_000);

#[test]
fn an_agent_that_is_told_to_end_takes_its_probes_out() {
    let (mut fleet, mut target) = fleet_with_target();
    let spot = target.spot("leaf");
    let mut trace = fleet.trace(&[&spot, "--rate", "none"], 1);
    target.program.write_line("run 20000 leaf");
    trace.json_of("hit", SOON);
    // In the middle of the hits.
    let status = fleet.agent("h").terminate();
    assert_eq!(status.code(), Some(0), "{}", fleet.agent("h").story());
    target.assert_untouched();
    let answer = target.program.json_of("run", LATER);
    assert_eq!(answer["passages"]["leaf"], 20_000);

    // The next agent arms what is still wanted.
    fleet.start_agent("h");
    trace.json_where(LEASE, |line| line["type"] == "status" && line["state"] == "armed");
    target.command("run 10 leaf");
    interrupt(trace);
    nothing_is_traced(&fleet);
    target.assert_untouched();
}

#[test]
fn a_killed_editor_takes_its_probes_along() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.fixture.spot("counted");
    let mut editor = fleet.editor();
    editor.call("initialize", json!({"adapterID": "riptrace", "clientID": "test"}));
    let attached = editor.send("attach", json!({"nats": fleet.nats_url(), "cwd": target.fixture.source}));
    editor.event("initialized", SOON);
    editor.call("setBreakpoints", json!({"source": {"path": spot.file}, "breakpoints": [{"line": spot.line}]}));
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    eventually("the breakpoint is armed", SOON, || {
        fleet.ps().iter().any(|line| line["state"] == "armed").then_some(())
    });
    target.command("run 3 counted");
    editor.kill();
    eventually("the lease has ended", LEASE, || fleet.ps().iter().all(|line| line["type"] != "status").then_some(()));
    target.assert_untouched();
    target.command("run 3 counted");
}

#[test]
fn a_coordinator_may_restart_in_the_middle() {
    let (mut fleet, mut target) = fleet_with_target();
    let spot = target.spot("counted");
    let mut trace = fleet.trace(&[&spot, "--rate", "none"], 1);
    target.command("run 100 counted");
    let mut seen: Vec<Value> = (0..50).map(|_| trace.json_of("hit", SOON)).collect();
    fleet.coordinator().kill();
    target.command("run 100 counted");
    fleet.start_coordinator();
    target.command("run 100 counted");
    seen.extend((0..250).map(|_| trace.json_of("hit", LATER)));
    let numbers: Vec<u64> = seen.iter().map(|hit| hit["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=300).collect::<Vec<u64>>(), "shown once each, in one order");
    let lines = interrupt(trace);
    assert_eq!(lines.last().unwrap()["hits"], 300);
    assert_eq!(lines.last().unwrap()["dropped"], 0);
    nothing_is_traced(&fleet);
    target.assert_untouched();
}

#[test]
fn the_bus_may_restart_in_the_middle() {
    let (mut fleet, mut target) = fleet_with_target();
    let spot = target.spot("counted");
    let mut trace = fleet.trace(&[&spot, "--rate", "none"], 1);
    target.command("run 100 counted");
    trace.json_of("hit", SOON);
    fleet.kill_nats();
    // Nobody can hear of it, and the target does not wait for anybody.
    let answer = target.command("run 1000 counted");
    assert_eq!(answer["passages"]["counted"], 1_100);
    fleet.restart_nats();
    target.command("run 100 counted");
    // Each of the 1,200 passages arrives, or is counted as dropped.
    let mut lines = vec![];
    while sum(&lines, "hit", "none") + sum(&lines, "drop", "count") + 1 < 1_200 {
        lines.push(trace.json_where(LATER, |line| line["type"] == "hit" || line["type"] == "drop"));
    }
    lines.extend(interrupt(trace));
    let summary = lines.last().unwrap();
    assert_eq!(summary["hits"].as_u64().unwrap() + summary["dropped"].as_u64().unwrap(), 1_200, "{summary}");
    target.assert_untouched();
}

#[test]
fn a_vanished_coordinator_takes_all_probes_along() {
    let (mut fleet, mut target) = fleet_with_target();
    let spot = target.spot("counted");
    let _trace = fleet.trace(&[&spot], 1);
    target.command("run 10 counted");
    fleet.coordinator().kill();
    let limit = Duration::from_millis(limits::COORDINATOR_LEASE_MS + 20_000);
    target.becomes_untouched(limit);
    fleet.agent("h").assert_running();
}

#[test]
fn up_takes_every_probe_out_at_ctrl_c() {
    let runtime = tempfile::tempdir().expect("a folder");
    let mut made = crate::support::process::command(crate::support::fleet::RIPTRACE);
    made.args(["up", "--json", "--host", "one", "--only-env", "RIPTRACE_HOST=one"]);
    made.env("RIPTRACE_RUNTIME_DIR", runtime.path()).env_remove("NATS_URL");
    let mut up = Program::spawn_orderly("riptrace up", made);
    let ready = up.json_of("ready", LATER);
    assert!(ready["nats"].as_str().is_some_and(|url| url.starts_with("nats://127.0.0.1:")), "{ready}");

    let fixture = crate::support::fixture::Fixture::go("torture", ".");
    let mut made = crate::support::process::command(&fixture.program);
    made.env("RIPTRACE_HOST", "one");
    let mut program = Program::spawn("torture", made);
    program.json_of("ready", SOON);
    let mut target = crate::torture::Target { program, fixture };

    // Found without being told where the bus is.
    let spot = target.spot("counted");
    let mut made = crate::support::process::command(crate::support::fleet::RIPTRACE);
    made.args(["trace", "--json", "--wait", &spot]);
    made.env("RIPTRACE_RUNTIME_DIR", runtime.path()).env_remove("NATS_URL");
    let mut trace = Program::spawn_orderly("riptrace trace", made);
    trace.json_where(SOON, |line| line["type"] == "status" && line["state"] == "armed");
    target.command("run 10 counted");
    trace.json_of("hit", SOON);

    up.signal(Signal::SIGINT);
    up.wait_for_code(0, SOON);
    target.assert_untouched();
    assert_eq!(target.command("run 10 counted")["passages"]["counted"], 20);
}

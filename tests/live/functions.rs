//! Function tracepoints: the results of each return are what the caller received, and a call's duration is its own.

use crate::shop::{interrupt, nothing_is_traced};
use crate::support::{SOON, eventually, fixture::Fixture, fleet::Fleet, process::Program, values};
use serde_json::{Value, json};

fn program(fleet: &Fleet) -> Program {
    let fixture = Fixture::go("calls", ".");
    let mut target = fleet.spawn_on("h", &fixture.program, &[]);
    target.json_of("ready", SOON);
    let pid = target.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    target
}

/// Has a function called, and gives what each call returned and the hits of `location`, in order.
fn run(fleet: &Fleet, target: &mut Program, location: &str, function: &str, count: u32) -> (Vec<Value>, Vec<Value>) {
    let mut trace = fleet.trace(&[location, "--rate", "none"], 1);
    target.write_line(&format!("run {function} {count}"));
    let ran = target.json_of("ran", SOON);
    let results = ran["results"].as_array().expect("results").clone();
    let per_call = if location.ends_with(":call") { 2 } else { 1 };
    let hits = (0..results.len() * per_call).map(|_| trace.json_of("hit", SOON)).collect();
    let end = interrupt(trace);
    assert_eq!(end.last().expect("a summary")["dropped"], 0);
    assert!(end.iter().all(|line| line["type"] != "hit"), "more hits than calls: {end:?}");
    (results, hits)
}

#[test]
fn results_are_what_the_caller_received() {
    let fleet = Fleet::start(&["h"]);
    let mut target = program(&fleet);
    for (name, shown) in [
        ("one", vec!["~r0"]),
        ("two", vec!["~r0", "~r1"]),
        ("named", vec!["moved.X", "moved.Y", "moved.Z", "text", "ratio"]),
        ("onStack", vec!["first.Words.[0]", "first.Words.[2]", "middle", "last.Words.[1]"]),
        ("blank", vec!["~r0", "last.Words.[2]", "half"]),
        ("padded", vec!["~r0.Small", "~r0.Wide", "~r0.Half", "~r0.Last", "~r1.[0]"]),
        ("(*counter).Add", vec!["longer.[1]", "ok"]),
        ("recovered", vec!["result"]),
    ] {
        let function = name.rsplit('.').next().expect("a name");
        let (results, hits) = run(&fleet, &mut target, &format!("main.{name}:return"), function, 4);
        assert_eq!(hits.len(), 4);
        for (hit, wanted) in hits.iter().zip(&results) {
            assert_eq!(hit["moment"], "return", "{hit}");
            values::check(&hit["values"], wanted).assert_shown(&shown);
        }
    }
    nothing_is_traced(&fleet);
    target.write_line("exit");
    target.wait_for_code(0, SOON);
}

#[test]
fn each_return_knows_its_entry() {
    let fleet = Fleet::start(&["h"]);
    let mut target = program(&fleet);

    // Three calls of 1, 2 and 3 levels more than one: entries, then returns from the inside out.
    let (results, hits) = run(&fleet, &mut target, "main.nested:call", "nested", 3);
    let mut open: Vec<&Value> = Vec::new();
    let mut returned = results.iter();
    for hit in &hits {
        match hit["moment"].as_str() {
            Some("entry") => {
                assert_eq!(hit["duration_ns"], Value::Null);
                open.push(hit);
            }
            Some("return") => {
                let entry = open.pop().expect("a return has its entry");
                let between = hit["time_ns"].as_i64().zip(entry["time_ns"].as_i64()).map(|(to, from)| to - from);
                // Both times were mapped to the coordinator's clock, which may run a little faster.
                let error_ns = hit["duration_ns"].as_i64().zip(between).map(|(told, between)| (told - between).abs());
                assert!(error_ns.is_some_and(|error_ns| error_ns < 10_000), "{error_ns:?}: {hit} {entry}");
                values::check(&hit["values"], returned.next().expect("a result")).assert_shown(&["~r0"]);
            }
            other => panic!("{other:?} in {hit}"),
        }
    }
    assert!(open.is_empty() && returned.next().is_none());

    // The goroutine sleeps, and may come back on another thread.
    let (_, hits) = run(&fleet, &mut target, "main.slow:call", "slow", 5);
    for (hit, slept_ms) in hits.iter().filter(|hit| hit["moment"] == "return").zip(1..) {
        let duration_ns = hit["duration_ns"].as_u64().expect("a duration");
        assert!(duration_ns >= slept_ms * 1_000_000, "{slept_ms} ms of sleep took {duration_ns} ns");
    }

    // A panic leaves by another way than it came: the deferred function's return is the function's own.
    let (results, hits) = run(&fleet, &mut target, "main.recovered:call", "recovered", 4);
    assert_eq!(hits.len(), 2 * results.len());
    assert!(hits.iter().filter(|hit| hit["moment"] == "return").all(|hit| hit["duration_ns"].is_u64()));
    target.write_line("exit");
    target.wait_for_code(0, SOON);
}

#[test]
fn an_editor_sees_results_in_a_scope_of_their_own() {
    let fleet = Fleet::start(&["h"]);
    let mut target = program(&fleet);
    let mut editor = fleet.editor();
    editor.call("initialize", json!({"adapterID": "riptrace", "clientID": "test"}));
    let attached = editor.send("attach", json!({"nats": fleet.nats_url()}));
    editor.event("initialized", SOON);
    let set = editor.call("setFunctionBreakpoints", json!({"breakpoints": [{"name": "main.two:return"}]}));
    let mut breakpoint = set["breakpoints"][0].clone();
    while breakpoint["verified"] != true {
        breakpoint = editor.event("breakpoint", SOON)["breakpoint"].take();
    }
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    target.write_line("run two 4");
    let ran = target.json_of("ran", SOON);
    let mut stopped = editor.event("stopped", SOON);
    let results = ran["results"].as_array().expect("results");
    assert_eq!(results.len(), 4);
    for (number, wanted) in results.iter().enumerate() {
        let trace = editor.call("stackTrace", json!({"threadId": stopped["threadId"]}));
        let scopes = editor.call("scopes", json!({"frameId": trace["stackFrames"][0]["id"]}));
        let scopes = scopes["scopes"].as_array().expect("scopes");
        let scope = scopes.iter().find(|scope| scope["name"] == "Results").expect("a scope of results");
        let shown = editor.call("variables", json!({"variablesReference": scope["variablesReference"]}));
        let shown: Vec<(&str, &str)> = (shown["variables"].as_array().expect("variables").iter())
            .map(|it| (it["name"].as_str().expect("a name"), it["value"].as_str().expect("a value")))
            .collect();
        let wanted = ["~r0", "~r1"].map(|name| (name, wanted[name].as_str().expect("what the caller received")));
        assert_eq!(shown, wanted);
        if number < 3 {
            editor.call("continue", json!({"threadId": stopped["threadId"]}));
            stopped = editor.event("stopped", SOON);
        }
    }
    editor.disconnect();
    nothing_is_traced(&fleet);
    target.write_line("exit");
    target.wait_for_code(0, SOON);
}

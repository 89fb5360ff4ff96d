//! The debug adapter against a real fleet, as an editor uses it.

use crate::shop::nothing_is_traced;
use crate::support::{SOON, dap::DapClient, fixture::Spot, fleet::Fleet};
use crate::torture::fleet_with_target;
use serde_json::{Value, json};

fn attach(fleet: &Fleet, cwd: &std::path::Path) -> (DapClient, u64) {
    let mut editor = fleet.editor();
    editor.call("initialize", json!({"adapterID": "riptrace", "clientID": "test", "supportsVariablePaging": true}));
    let attached = editor.send("attach", json!({"nats": fleet.nats_url(), "cwd": cwd}));
    editor.event("initialized", SOON);
    (editor, attached)
}

fn set(editor: &mut DapClient, spot: &Spot, mut breakpoint: Value) -> Value {
    breakpoint["line"] = spot.line.into();
    let set = json!({"source": {"path": spot.file}, "breakpoints": [breakpoint]});
    let mut breakpoint = editor.call("setBreakpoints", set)["breakpoints"][0].take();
    while breakpoint["verified"] != true {
        let id = breakpoint["id"].clone();
        breakpoint = editor.event_where("breakpoint", SOON, |body| body["breakpoint"]["id"] == id)["breakpoint"].take();
    }
    breakpoint
}

#[test]
fn a_breakpoint_opens_a_timeline_that_is_stepped_through_both_ways() {
    let (fleet, mut target) = fleet_with_target();
    let (mut editor, attached) = attach(&fleet, &target.fixture.source);
    let spot = target.fixture.spot("counted");
    let breakpoint = set(&mut editor, &spot, json!({}));
    assert!(
        breakpoint["message"].as_str().is_some_and(|text| text.contains("armed in 1 of 1 process on 1 host")),
        "{breakpoint}"
    );
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    target.command("run 5 counted");

    // Each hit is one row with exactly one child: the hit.
    for _ in 0..5 {
        let row = editor.event_where("output", SOON, |body| body["variablesReference"].as_u64().unwrap_or(0) > 0);
        assert!(row["output"].as_str().is_some_and(|text| text.ends_with('\n')), "{row}");
        assert_eq!(row["line"], spot.line);
        let children = editor.call("variables", json!({"variablesReference": row["variablesReference"]}));
        assert_eq!(children["variables"].as_array().map(Vec::len), Some(1), "{children}");
    }

    let stopped = editor.event("stopped", SOON);
    let look = |editor: &mut DapClient, stopped: &Value| {
        let trace = editor.call("stackTrace", json!({"threadId": stopped["threadId"]}));
        let frame = &trace["stackFrames"][0];
        assert_eq!(frame["line"], spot.line, "{frame}");
        let scopes = editor.call("scopes", json!({"frameId": frame["id"]}));
        let hit =
            scopes["scopes"].as_array().unwrap().iter().find(|scope| scope["name"] == "Hit").expect("a hit scope");
        let variables = editor.call("variables", json!({"variablesReference": hit["variablesReference"]}));
        variables.to_string()
    };
    let first = look(&mut editor, &stopped);
    let thread = stopped["threadId"].clone();
    editor.call("continue", json!({"threadId": thread}));
    let stopped = editor.event("stopped", SOON);
    let second = look(&mut editor, &stopped);
    assert_ne!(first, second);
    editor.call("reverseContinue", json!({"threadId": stopped["threadId"]}));
    let stopped = editor.event("stopped", SOON);
    assert_eq!(look(&mut editor, &stopped), first);

    editor.disconnect();
    nothing_is_traced(&fleet);
    target.assert_untouched();
    target.command("run 5 counted");
}

#[test]
fn a_condition_and_a_message_are_of_the_target() {
    let (fleet, mut target) = fleet_with_target();
    let (mut editor, attached) = attach(&fleet, &target.fixture.source);
    let spot = target.fixture.spot("loop");
    set(&mut editor, &spot, json!({"condition": "i == 3", "logMessage": "i is {i}"}));
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    target.command("run 100 loop");
    for _ in 0..10 {
        let row = editor.event_where("output", SOON, |body| body["variablesReference"].as_u64().unwrap_or(0) > 0);
        assert!(row["output"].as_str().is_some_and(|text| text.contains("i is 3")), "{row}");
    }
    editor.disconnect();
    nothing_is_traced(&fleet);
}

/// What is said of an expression at the open hit.
fn ask(editor: &mut DapClient, stopped: &Value, expression: &str) -> Value {
    let trace = editor.call("stackTrace", json!({"threadId": stopped["threadId"]}));
    let frame = trace["stackFrames"][0]["id"].clone();
    let asked = editor.send("evaluate", json!({"expression": expression, "frameId": frame, "context": "repl"}));
    editor.response(asked, SOON)
}

#[test]
fn what_was_not_captured_is_offered_and_later_hits_have_it() {
    let (fleet, mut target) = fleet_with_target();
    let (mut editor, attached) = attach(&fleet, &target.fixture.source);
    let spot = target.fixture.spot("counted");
    set(&mut editor, &spot, json!({}));
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    target.command("run 1 counted");
    let stopped = editor.event("stopped", SOON);
    let thread = json!({"threadId": stopped["threadId"]});

    // A variable of the package, which no hit has by itself.
    let wanted = "countedMarker.name";
    let refused = ask(&mut editor, &stopped, wanted);
    assert_eq!(refused["success"], false, "{refused}");
    let why = refused["message"].as_str().unwrap_or_default();
    assert!(why.contains(&format!("type `capture {wanted}` in the debug console")), "{why}");

    // What is offered is taken as it is said.
    let offered = why.split('`').nth(1).expect("a command");
    let taken = ask(&mut editor, &stopped, offered);
    let said = taken["body"]["result"].as_str().unwrap_or_default();
    assert!(said.starts_with("countedMarker.name is captured with the next hits"), "{taken}");
    let before = ask(&mut editor, &stopped, wanted);
    assert_eq!(before["success"], false, "the hit that was there does not have it: {before}");

    // Until the new tracepoint is armed, hits may still be of the old one, or of none.
    let told = crate::support::eventually("a later hit has the value", SOON, || {
        target.command("run 1 counted");
        editor.call("pause", thread.clone());
        let newest = editor.event("stopped", SOON);
        let mut answer = ask(&mut editor, &newest, wanted);
        (answer["success"] == true).then(|| answer["body"]["result"].take())
    });
    assert_eq!(told, "\"counted\"");
    editor.disconnect();
    nothing_is_traced(&fleet);
    target.assert_untouched();
    target.command("run 5 counted");
}

#[test]
fn a_hit_condition_counts_the_passages_of_the_target() {
    let (fleet, mut target) = fleet_with_target();
    let (mut editor, attached) = attach(&fleet, &target.fixture.source);
    let spot = target.fixture.spot("loop");
    set(&mut editor, &spot, json!({"hitCondition": "%5", "logMessage": "i is {i}"}));
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    // Each a job of ten passages, with i from 0 to 9: the fifth and the tenth of each.
    target.command("run 10 loop");
    target.command("run 10 loop");
    let mut seen = Vec::new();
    for _ in 0..4 {
        let row = editor.event_where("output", SOON, |body| body["variablesReference"].as_u64().unwrap_or(0) > 0);
        seen.push(row["output"].as_str().expect("a text").split_once(' ').expect("words").1[3..4].to_owned());
    }
    assert_eq!(seen, ["4", "9", "4", "9"]);
    // Nothing more comes of them: the next is of the next five.
    target.command("run 10 loop");
    let page = crate::support::eventually("two more", SOON, || {
        let page = editor.call("riptrace/timelinePage", json!({}));
        (page["arrived"].as_u64() >= Some(6)).then_some(page)
    });
    assert_eq!(page["arrived"], 6, "{page}");
    editor.disconnect();
    nothing_is_traced(&fleet);
}

#[test]
fn what_cannot_be_set_says_why_on_the_breakpoint() {
    let (fleet, target) = fleet_with_target();
    let (mut editor, attached) = attach(&fleet, &target.fixture.source);
    let spot = target.fixture.spot("loop");
    let ask = |breakpoint: Value| json!({"source": {"path": spot.file}, "breakpoints": [breakpoint]});
    for (breakpoint, part) in [
        (json!({"line": 1}), "work.go"),
        (json!({"line": spot.line, "condition": "i +"}), "condition"),
        (json!({"line": spot.line, "condition": "nobody == 1"}), "nobody"),
        (json!({"line": spot.line, "hitCondition": "often"}), "often"),
        (json!({"line": spot.line, "logMessage": "{i"}), "{"),
    ] {
        let mut answer = editor.call("setBreakpoints", ask(breakpoint.clone()))["breakpoints"][0].take();
        while !answer["message"].as_str().is_some_and(|text| text.contains(part)) {
            let id = answer["id"].clone();
            answer = editor.event_where("breakpoint", SOON, |body| body["breakpoint"]["id"] == id)["breakpoint"].take();
        }
        assert_eq!(answer["verified"], false, "{breakpoint}: {answer}");
    }
    editor.call("configurationDone", json!({}));
    editor.response(attached, SOON);
    editor.disconnect();
}

#[test]
fn garbage_on_standard_input_does_not_end_the_session() {
    let (fleet, _target) = fleet_with_target();
    let mut editor = fleet.editor();
    editor.send_bytes(b"Content-Length: 11\r\n\r\n{\"seq\": 900");
    let refused = editor.response(900, SOON);
    assert_eq!(refused["success"], false, "{refused}");
    editor.send_bytes(b"Content-Length: 4\r\n\r\nnull");
    editor.call_refused("no/such/request", json!({}));
    editor.call_refused("stackTrace", json!({"threadId": 1}));
    editor.call("initialize", json!({"adapterID": "riptrace"}));
    editor.call_refused("variables", json!({"variablesReference": "seven"}));
    editor.disconnect();
}

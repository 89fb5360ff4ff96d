//! Panics, throws and errors of programs that recover from them, as a debugger shows exceptions; and functions by
//! pattern.

use crate::shop::nothing_is_traced;
use crate::support::{SOON, dap::DapClient, eventually, fixture::Fixture, fleet::Fleet, process::Program};
use serde_json::{Value, json};

/// A program of a fixture on a host, and an editor that is attached to it.
struct Stage {
    fleet: Fleet,
    target: Program,
    editor: DapClient,
    attached: u64,
}

impl Stage {
    fn start(fixture: &Fixture) -> Stage {
        let fleet = Fleet::start(&["h"]);
        let mut target = fleet.spawn_on("h", &fixture.program, &[]);
        target.json_of("ready", SOON);
        let pid = target.pid();
        eventually("the agent has found the target", SOON, || {
            fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
        });
        let mut editor = fleet.editor();
        editor.call("initialize", json!({"adapterID": "riptrace", "clientID": "test"}));
        let attach =
            json!({"nats": fleet.nats_url(), "cwd": fixture.source, "selector": format!("pid={pid}"), "rate": "none"});
        let attached = editor.send("attach", attach);
        editor.event("initialized", SOON);
        Stage { fleet, target, editor, attached }
    }

    /// Sets breakpoints and waits until each is armed or says why not; their last states.
    fn set(&mut self, command: &str, arguments: Value) -> Vec<Value> {
        let mut all = self.editor.call(command, arguments)["breakpoints"].take();
        let all = all.as_array_mut().expect("breakpoints");
        for breakpoint in all.iter_mut() {
            while breakpoint["verified"] != true
                && breakpoint["message"].as_str().is_none_or(|why| why.contains("arming"))
            {
                let id = breakpoint["id"].clone();
                let mut event = self.editor.event_where("breakpoint", SOON, |body| body["breakpoint"]["id"] == id);
                *breakpoint = event["breakpoint"].take();
            }
        }
        all.clone()
    }

    fn configured(&mut self) {
        self.editor.call("configurationDone", json!({}));
        self.editor.response(self.attached, SOON);
    }

    fn command(&mut self, line: &str) -> Value {
        self.target.write_line(line);
        self.target.json_where(SOON, |answer| answer["type"] != "ready")
    }

    /// The exception that is open: what `exceptionInfo` says, and the functions of its stack.
    fn exception(&mut self) -> (Value, Vec<String>) {
        let stopped = self.editor.event("stopped", SOON);
        assert_eq!(stopped["reason"], "exception", "{stopped}");
        let thread = json!({"threadId": stopped["threadId"]});
        let trace = self.editor.call("stackTrace", thread.clone());
        let frames = trace["stackFrames"].as_array().expect("frames");
        let functions = frames.iter().map(|frame| frame["name"].as_str().expect("a name").to_owned()).collect();
        let info = self.editor.call("exceptionInfo", thread.clone());
        assert_eq!(info["breakMode"], "always");
        assert!(info["details"]["stackTrace"].as_str().is_some_and(|text| text.contains("\n\t")), "{info}");
        self.editor.call("continue", thread);
        (info, functions)
    }

    fn end(mut self) {
        self.editor.disconnect();
        nothing_is_traced(&self.fleet);
        self.target.write_line("exit");
        self.target.wait_for_code(0, SOON);
    }
}

fn filter(id: &str, condition: &str) -> Value {
    let mut option = json!({"filterId": id});
    if !condition.is_empty() {
        option["condition"] = condition.into();
    }
    json!({"filters": [], "filterOptions": [option]})
}

fn is_in(stack: &[String], function: &str) -> bool {
    stack.iter().any(|name| name.contains(function))
}

#[test]
fn each_panic_of_go_is_an_exception_with_its_value_and_the_program_recovers() {
    let mut stage = Stage::start(&Fixture::go("failures", "."));
    let set = stage.set("setExceptionBreakpoints", filter("go-panic", ""));
    assert_eq!(set[0]["verified"], true, "{set:?}");
    stage.configured();
    for (kind, told, message, type_name) in [
        ("text", "out of tea", "out of tea", "string"),
        ("number", "418", "418", "int"),
        ("error", "only 3 of tea", "tea", "*main.shortage"),
        ("index", "runtime error: index out of range [5] with length 1", "5", "runtime.boundsError"),
        (
            "nil",
            "runtime error: invalid memory address or nil pointer dereference",
            "nil pointer",
            "runtime.errorString",
        ),
    ] {
        assert_eq!(stage.command(&format!("panic {kind}"))["value"], told);
        let (info, stack) = stage.exception();
        assert_eq!(info["exceptionId"], type_name, "{info}");
        assert_eq!(info["details"]["typeName"], type_name, "{info}");
        assert!(info["description"].as_str().is_some_and(|text| text.contains(message)), "{info}");
        assert!(
            stack[0].contains("gopanic") && is_in(&stack, "main.fail") && is_in(&stack, "main.recovered"),
            "{stack:?}"
        );
    }
    stage.end();
}

#[test]
fn returns_with_an_error_are_exceptions_and_those_without_are_counted() {
    let mut stage = Stage::start(&Fixture::go("failures", "."));
    let set = stage.set("setExceptionBreakpoints", filter("go-error", "main.try"));
    assert_eq!(set[0]["verified"], true, "{set:?}");
    stage.configured();
    assert_eq!(stage.command("error 6")["errors"], 3);
    for count in ["1", "3", "5"] {
        let (info, stack) = stage.exception();
        assert_eq!(info["exceptionId"], "*main.shortage", "{info}");
        assert!(info["description"].as_str().is_some_and(|text| text.contains(&format!("Count: {count}"))), "{info}");
        assert!(is_in(&stack, "main.try"), "{stack:?}");
    }
    stage.editor.event_where("breakpoint", SOON, |body| {
        let message = body["breakpoint"]["message"].as_str().unwrap_or_default();
        message.contains("3 hits") && message.contains("3 returns without an error")
    });
    stage.end();
}

#[test]
fn panics_of_rust_are_exceptions_with_the_place_that_panicked() {
    let mut stage = Stage::start(&Fixture::rust("failures_native", &["-C", "opt-level=2", "-g"]));
    let set = stage.set("setExceptionBreakpoints", filter("rust-panic", ""));
    assert_eq!(set[0]["verified"], true, "{set:?}");
    stage.configured();
    for (kind, told) in [("text", "out of tea"), ("number", "only 3 of tea"), ("index", "index out of bounds")] {
        let answer = stage.command(&format!("panic {kind}"));
        assert!(answer["value"].as_str().is_some_and(|value| value.contains(told)), "{answer}");
        let (info, stack) = stage.exception();
        assert!(info["description"].as_str().is_some_and(|text| text.contains("in lib::fail at ")), "{info}");
        assert!(is_in(&stack, "rust_panic") && is_in(&stack, "lib::fail"), "{stack:?}");
    }
    stage.end();
}

#[test]
fn throws_of_cpp_are_exceptions_with_their_type_whoever_throws() {
    // The function that throws is in the C++ library.
    let mut stage = Stage::start(&Fixture::cpp("failures_native", &["-O2", "-g"]));
    let set = stage.set("setExceptionBreakpoints", filter("cpp-throw", ""));
    assert_eq!(set[0]["verified"], true, "{set:?}");
    stage.configured();
    for (kind, told, type_name) in [
        ("text", "out of tea", "std::runtime_error"),
        ("number", "418", "int"),
        ("error", "only 3", "shortage"),
        ("index", "vector", "std::out_of_range"),
    ] {
        let answer = stage.command(&format!("panic {kind}"));
        assert!(answer["value"].as_str().is_some_and(|value| value.contains(told)), "{answer}");
        let (info, stack) = stage.exception();
        assert_eq!(
            (&info["exceptionId"], &info["details"]["typeName"]),
            (&json!(type_name), &json!(type_name)),
            "{info}"
        );
        assert!(is_in(&stack, "__cxa_throw") && is_in(&stack, "fail"), "{stack:?}");
    }
    stage.end();
}

#[test]
fn functions_are_traced_by_pattern_at_their_entries_and_returns() {
    let mut stage = Stage::start(&Fixture::go("failures", "."));
    let functions =
        json!({"breakpoints": [{"name": "main.t*"}, {"name": "main.*:return"}, {"name": "*"}, {"name": "runtime.*"}]});
    let set = stage.set("setFunctionBreakpoints", functions);
    let messages: Vec<&str> = set.iter().map(|breakpoint| breakpoint["message"].as_str().unwrap_or_default()).collect();
    assert_eq!((&set[0]["verified"], &set[1]["verified"]), (&json!(true), &json!(true)), "{messages:?}");
    assert_eq!((&set[2]["verified"], &set[3]["verified"]), (&json!(false), &json!(false)), "{messages:?}");
    assert!(
        messages[2].contains("functions of this build") && messages[2].contains("write more of their names"),
        "{messages:?}"
    );
    assert!(messages[3].contains("belongs to Go's runtime"), "{messages:?}");
    stage.configured();
    assert_eq!(stage.command("error 1")["errors"], 1);
    let mut rows = Vec::new();
    for _ in 0..2 {
        let hit = stage.editor.event("riptrace/hit", SOON);
        rows.push((
            hit["function"].as_str().unwrap_or_default().to_owned(),
            hit["message"].as_str().unwrap_or_default().to_owned(),
        ));
    }
    assert!(rows.iter().all(|(function, _)| function == "main.try"), "{rows:?}");
    assert!(rows[0].1.contains("n=1"), "{rows:?}");
    assert_eq!(stage.command("panic text")["value"], "out of tea");
    let hit = stage.editor.event("riptrace/hit", SOON);
    assert!(hit["function"].as_str().is_some_and(|function| function.starts_with("main.recovered")), "{hit}");
    stage.end();
}

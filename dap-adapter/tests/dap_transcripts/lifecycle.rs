//! Beginning and end of a session.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{WEB_1, hit, preamble};
use riptrace_dap_adapter::environment::{BusTarget, CheckoutDefaults};
use riptrace_dap_adapter::fleet::SessionEvent;
use riptrace_protocol::tracepoint::CaptureLimits;
use serde_json::{Value, json};
use std::path::PathBuf;

#[tokio::test]
async fn capabilities_offer_what_the_adapter_can_and_nothing_else() {
    let mut editor = Editor::start();
    let capabilities = editor.initialize().await;
    for offered in [
        "supportsConfigurationDoneRequest",
        "supportsFunctionBreakpoints",
        "supportsConditionalBreakpoints",
        "supportsHitConditionalBreakpoints",
        "supportsLogPoints",
        "supportsEvaluateForHovers",
        "supportsStepBack",
        "supportsDelayedStackTraceLoading",
        "supportsTerminateRequest",
        "supportsGotoTargetsRequest",
        "supportsBreakpointLocationsRequest",
        "supportsLoadedSourcesRequest",
        "supportsExceptionInfoRequest",
        "supportsExceptionFilterOptions",
    ] {
        assert_eq!(capabilities[offered], true, "{offered}");
    }
    for missing in
        ["supportTerminateDebuggee", "supportsSetVariable", "supportsDataBreakpoints", "supportsReadMemoryRequest"]
    {
        assert_eq!(capabilities[missing], Value::Null, "{missing}");
    }
    editor.finish().await;
}

#[tokio::test]
async fn an_attach_joins_the_fleet_that_its_configuration_names() {
    let mut editor = Editor::start();
    editor.initialize().await;
    let arguments = json!({
        "nats": "nats://10.0.0.5:4222", "creds": "/home/ana/dev.creds", "cwd": editor.checkout.path(),
        "selector": "service=cart", "rate": 50, "substitutePath": [{"from": "/lib", "to": "/build/lib"}],
    });
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    let arguments = json!({"source": {"path": "/lib/x.go"}, "breakpoints": [{"line": 7}]});
    editor.ok("setBreakpoints", arguments).await;
    editor.ok("configurationDone", Value::Null).await;
    let threads = editor.ok("threads", json!({})).await;
    assert_eq!(threads["threads"], json!([{"id": 1, "name": "fleet: 2 processes on 2 hosts"}]));
    let statistics = editor.event("riptrace/statistics").await;
    assert_eq!(statistics, json!({"hits": 0, "dropped": 0, "hosts": 2, "processes": 2}));
    let asked = editor.fleet.asked();
    let target = BusTarget {
        nats: Some("nats://10.0.0.5:4222".into()),
        creds: Some("/home/ana/dev.creds".into()),
        cwd: editor.checkout.path().to_owned(),
    };
    assert_eq!(asked.targets, [target]);
    let tracepoint = &asked.created[0];
    assert_eq!(tracepoint.location.to_string(), "/build/lib/x.go:7");
    assert_eq!(tracepoint.selector.to_string(), "service=cart");
    assert_eq!(tracepoint.limits, CaptureLimits { rate_per_s: Some(50), ..CaptureLimits::default() });
    let fleet = editor.finish().await;
    assert_eq!(fleet.asked().closed, 1);
}

#[tokio::test]
async fn the_checkouts_defaults_hold_where_the_configuration_is_silent() {
    let mut editor = Editor::start();
    editor.fleet.set_defaults(CheckoutDefaults {
        root: PathBuf::from("/somewhere"),
        selector: Some("host=web-1".into()),
        rate_per_s: Some(None),
        substitute_path: vec![("/build".into(), "/here".into())],
    });
    editor.initialize().await;
    editor.ok("attach", json!({})).await;
    editor.event("initialized").await;
    for path in ["/here/a.go", "/somewhere/b/c.go"] {
        editor.ok("setBreakpoints", json!({"source": {"path": path}, "breakpoints": [{"line": 1}]})).await;
    }
    let created = editor.fleet.asked().created;
    assert_eq!(created[0].location.to_string(), "/build/a.go:1");
    assert_eq!(created[1].location.to_string(), "b/c.go:1");
    assert_eq!(created[1].selector.to_string(), "host=web-1");
    assert_eq!(created[1].limits.rate_per_s, None);
    editor.finish().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_named_and_may_be_mended() {
    let mut editor = Editor::start();
    editor.initialize().await;
    for (arguments, why) in [
        (json!({"nats": 1}), "\"nats\" must be a text"),
        (json!({"selector": "zone=a"}), "selector key \"zone\" is unknown"),
        (json!({"stopOnHit": "yes"}), "\"stopOnHit\" must be true or false"),
        (json!({"rate": 0}), "\"rate\" must be a whole number"),
        (json!({"rate": 1.5}), "\"rate\" must be a whole number"),
        (json!({"rate": "all"}), "\"rate\" must be a whole number"),
        (json!({"correlate": 3}), "\"correlate\" must be an expression"),
        (json!({"correlate": ["qty >"]}), "\"qty >\": "),
        (json!({"substitutePath": {"a": "b"}}), "\"substitutePath\" must be a list"),
        (json!({"substitutePath": [{"from": "b"}]}), "\"substitutePath\" must be a list"),
    ] {
        let message = editor.fails("attach", arguments).await;
        assert!(message.contains(why), "{message}");
    }
    editor.fleet.refuse_join("no coordinator answers on this bus: run `riptrace up`");
    let message = editor.fails("attach", json!({})).await;
    assert_eq!(message, "no coordinator answers on this bus: run `riptrace up`");
    editor.ok("attach", json!({"rate": "none"})).await;
    editor.event("initialized").await;
    let fleet = editor.finish().await;
    assert_eq!(fleet.asked().closed, 1);
}

#[tokio::test]
async fn launch_is_refused_and_says_what_to_use() {
    let mut editor = Editor::start();
    editor.initialize().await;
    let message = editor.fails("launch", json!({"program": "x"})).await;
    assert!(message.contains("\"request\": \"attach\"") && message.contains("riptrace up"), "{message}");
    let message = editor.fails("launch", json!({"recording": "/nowhere/x.rec"})).await;
    assert!(message.starts_with("/nowhere/x.rec: "), "{message}");
    editor.finish().await;
}

#[tokio::test]
async fn requests_out_of_order_are_refused_and_the_session_lives_on() {
    let mut editor = Editor::start();
    for command in ["attach", "threads", "configurationDone", "riptrace/fleet"] {
        assert_eq!(editor.fails(command, json!({})).await, "send 'initialize' first");
    }
    editor.initialize().await;
    assert!(editor.fails("initialize", json!({"adapterID": "x"})).await.contains("was sent already"));
    assert!(editor.fails("restart", Value::Null).await.contains("send 'attach' first"));
    assert!(editor.fails("riptrace/fleet", Value::Null).await.contains("not attached"));
    for command in ["next", "stepBack", "reverseContinue"] {
        assert!(editor.fails(command, json!({"threadId": 1})).await.starts_with("no hit is open"));
    }
    assert!(editor.fails("stackTrace", json!({"threadId": 1})).await.starts_with("the thread runs"));
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    assert!(editor.fails("attach", json!({})).await.contains("was sent already"));
    editor.finish().await;
}

#[tokio::test]
async fn an_attach_that_takes_long_may_be_cancelled_and_tried_again() {
    let mut editor = Editor::start();
    editor.initialize().await;
    editor.fleet.answer_creations(false);
    let attach = editor.send("attach", json!({})).await;
    editor.fleet.until(|asked| asked.targets.len() == 1).await;
    editor.ok("cancel", json!({"requestId": attach})).await;
    assert_eq!(editor.failed(attach).await, "cancelled");
    editor.fleet.answer_creations(true);
    editor.ok("attach", json!({})).await;
    editor.event("initialized").await;
    editor.finish().await;
}

#[tokio::test]
async fn terminate_ends_the_session_and_disconnect_the_conversation() {
    let mut editor = Editor::with_breakpoint().await;
    editor.ok("terminate", Value::Null).await;
    editor.event("terminated").await;
    assert_eq!(editor.fleet.asked().closed, 1);
    assert!(editor.fails("pause", json!({"threadId": 1})).await.contains("the session has ended"));
    assert_eq!(
        editor.fails("setBreakpoints", json!({"source": {"path": "/a"}})).await,
        "the session has ended; send 'disconnect'"
    );
    let fleet = editor.finish().await;
    assert_eq!(fleet.asked().closed, 1, "it is closed once");
}

#[tokio::test]
async fn an_editor_that_vanishes_takes_its_tracepoints_along() {
    let editor = Editor::with_breakpoint().await;
    let fleet = editor.vanish().await;
    assert_eq!(fleet.asked().closed, 1);
}

#[tokio::test]
async fn an_editor_that_vanishes_while_it_attaches_leaves_nothing_waiting() {
    let mut editor = Editor::start();
    editor.initialize().await;
    editor.fleet.answer_creations(false);
    let attach = editor.send("attach", json!({})).await;
    editor.fleet.until(|asked| asked.targets.len() == 1).await;
    editor.raw(b"").await;
    // The request is answered all the same: nobody knows whether somebody still reads.
    let disconnect = editor.send("disconnect", Value::Null).await;
    assert_eq!(editor.failed(attach).await, "cancelled");
    assert_eq!(editor.response(disconnect).await["success"], true);
    editor.vanish().await;
}

#[tokio::test]
async fn restart_arms_the_same_breakpoints_anew_and_empties_the_timeline() {
    let mut editor = Editor::with_breakpoint().await;
    let first = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.push(hit(1, &first, WEB_1, 3));
    editor.fleet.send(items).await;
    editor.event("stopped").await;
    editor.event("output").await;
    editor.event("riptrace/hit").await;
    editor.ok("restart", Value::Null).await;
    let asked = editor.fleet.until(|asked| asked.created.len() == 2 && asked.removed.len() == 1).await;
    assert_eq!(asked.removed, std::slice::from_ref(&first));
    assert_eq!(asked.created[1].location, asked.created[0].location);
    assert!(editor.event("output").await["output"].as_str().unwrap().contains("armed again"));
    assert_eq!(editor.ok("riptrace/timeline", Value::Null).await["hits"], json!([]));
    // The next hit of the new tracepoint opens the timeline again; a late one of the old does not.
    let second = editor.fleet.newest();
    editor.fleet.send(vec![hit(2, &first, WEB_1, 4), hit(3, &second, WEB_1, 5)]).await;
    let stopped = editor.event("stopped").await;
    assert!(stopped["description"].as_str().unwrap().starts_with("Hit 3 · "), "{stopped}");
    let arguments = json!({"arguments": {"request": "attach", "nats": "nats://elsewhere"}});
    assert!(editor.fails("restart", arguments).await.contains("stop this session"));
    editor.finish_but(&["output", "riptrace/hit", "breakpoint"]).await;
}

#[tokio::test]
async fn a_fleet_that_is_not_heard_is_told_and_counts_on_when_it_comes_back() {
    let mut editor = Editor::with_breakpoint().await;
    let tracepoint = editor.fleet.newest();
    let mut items = preamble(WEB_1);
    items.extend([hit(1, &tracepoint, WEB_1, 3), hit(2, &tracepoint, WEB_1, 4)]);
    editor.fleet.send(items).await;
    editor.event("stopped").await;
    for _ in 0..2 {
        editor.event("output").await;
        editor.event("riptrace/hit").await;
    }
    editor.fleet.tell(SessionEvent::Disconnected { why: "no answer".into() }).await;
    let output = editor.event("output").await;
    assert_eq!(output["category"], "stderr");
    assert!(output["output"].as_str().unwrap().contains("not heard (no answer)"), "{output}");
    // What was there already is not shown again.
    editor.fleet.tell(SessionEvent::Reconnected { reopened: false }).await;
    editor.fleet.send(vec![hit(2, &tracepoint, WEB_1, 4), hit(3, &tracepoint, WEB_1, 5)]).await;
    assert!(editor.event("output").await["output"].as_str().unwrap().contains("heard again"));
    assert_eq!(editor.event("riptrace/hit").await["seq"], 3);
    // A coordinator that has forgotten the session counts from 1: the timeline goes on.
    editor.fleet.tell(SessionEvent::Reconnected { reopened: true }).await;
    editor.fleet.send(vec![hit(1, &tracepoint, WEB_1, 6), hit(2, &tracepoint, WEB_1, 7)]).await;
    assert_eq!(editor.event("riptrace/hit").await["seq"], 4);
    assert_eq!(editor.event("riptrace/hit").await["seq"], 5);
    editor.finish_but(&["output", "breakpoint"]).await;
}

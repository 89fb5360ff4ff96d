//! What is no message, no request, or no argument.

use crate::dap_support::editor::Editor;
use crate::dap_support::fleet::{FakeFleet, PATIENCE, Way};
use riptrace_dap_adapter::dap::serve_connections;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn garbage_is_told_once_and_the_session_lives_on() {
    let mut editor = Editor::start();
    editor.raw(b"hello riptrace\nis anybody there\n\x00\xff\xfe\n").await;
    let output = editor.event("output").await;
    assert_eq!(output["category"], "stderr");
    assert!(output["output"].as_str().unwrap().contains("\"hello riptrace\" is not a header"), "{output}");
    editor.initialize().await;
    editor.raw(b"Content-Length: lots\r\n\r\n").await;
    assert!(editor.event("output").await["output"].as_str().unwrap().contains("\"lots\" is not a Content-Length"));
    editor.finish().await;
}

#[tokio::test]
async fn broken_requests_are_answered_where_their_number_can_be_made_out() {
    let mut editor = Editor::start();
    let frame = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    for (seq, body) in [
        (1, r#"{"seq":1,"type":"request","command":"threads","arguments":{"#),
        (2, r#"{"seq":2,"type":"request"}"#),
        (3, r#"{"seq":3,"command":"threads"}"#),
    ] {
        editor.expect_answer(seq);
        editor.raw(frame(body).as_bytes()).await;
        editor.failed(seq).await;
    }
    for body in ["", "null", "[]", "{}", "\u{1F980}", r#"{"type":"request","command":"threads"}"#] {
        editor.raw(frame(body).as_bytes()).await;
        let output = editor.event("output").await;
        assert!(output["output"].as_str().unwrap().starts_with("RipTrace could not answer a message"), "{output}");
    }
    editor
        .raw(
            frame(r#"{"seq":9,"type":"response","request_seq":1,"success":true,"command":"runInTerminal"}"#).as_bytes(),
        )
        .await;
    editor.initialize().await;
    editor.finish().await;
}

#[tokio::test]
async fn requests_that_nobody_offers_are_refused_by_name() {
    let mut editor = Editor::attached().await;
    for command in ["x", "riptrace/x", "stepInTargets", "readMemory", "restartFrame"] {
        let arguments = json!({"threadId": 1, "memoryReference": "0x1", "count": 1, "frameId": 1});
        let message = editor.fails(command, arguments).await;
        assert!(message.contains(&format!("'{command}'")), "{message}");
    }
    for (command, arguments) in [
        ("setVariable", json!({"variablesReference": 1, "name": "a", "value": "1"})),
        ("setExpression", json!({"expression": "a", "value": "1"})),
        ("terminateThreads", json!({"threadIds": [1]})),
    ] {
        assert!(editor.fails(command, arguments).await.starts_with("RipTrace never "));
    }
    editor.finish().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_named() {
    let mut editor = Editor::attached().await;
    for (command, arguments) in [
        ("setBreakpoints", json!({})),
        ("setBreakpoints", json!({"source": {"path": "/a.go"}, "breakpoints": [{}]})),
        ("setBreakpoints", json!({"source": {"path": "/a.go"}, "breakpoints": "none"})),
        ("setBreakpoints", json!([1])),
        ("stackTrace", json!({})),
        ("scopes", json!({"frameId": "one"})),
        ("variables", json!({"variablesReference": {}})),
        ("evaluate", json!({})),
        ("continue", json!("on")),
    ] {
        let message = editor.fails(command, arguments).await;
        assert!(message.contains(&format!("'{command}'")), "{message}");
    }
    for (command, arguments, why) in [
        ("setBreakpoints", json!({"source": {"name": "x"}}), "has no path"),
        ("variables", json!({"variablesReference": 99}), "nothing behind the reference 99"),
        ("scopes", json!({"frameId": 99}), "no frame 99"),
        ("evaluate", json!({"expression": "x"}), "no hit yet"),
        ("evaluate", json!({"expression": "x", "frameId": 99}), "no frame 99"),
        ("source", json!({"sourceReference": 99}), "no source with the reference 99"),
        ("locations", json!({"locationReference": 99}), "no location with the reference 99"),
        ("goto", json!({"threadId": 1, "targetId": 99}), "no target 99"),
        ("exceptionInfo", json!({"threadId": 1}), "the thread runs"),
        ("riptrace/capture", json!({"breakpoint": 9, "expression": "x"}), "is not set any more"),
        ("riptrace/openHit", json!({"time": "noon"}), "neither the number of a hit nor a time"),
        ("riptrace/timeline", json!({"from": "x"}), "\"from\" must be a whole number"),
        ("riptrace/openHit", json!({"seq": 1}), "hit 1 "),
    ] {
        let message = editor.fails(command, arguments).await;
        assert!(message.contains(why), "{command}: {message}");
    }
    let many: Vec<Value> = (1..=1001).map(|line| json!({"line": line})).collect();
    let message = editor.fails("setBreakpoints", json!({"source": {"path": "/a.go"}, "breakpoints": many})).await;
    assert_eq!(message, "1001 breakpoints in one set, at most 1000 are taken");
    editor.finish().await;
}

#[tokio::test]
async fn kinds_of_breakpoints_that_there_are_not_are_refused_without_an_error() {
    let mut editor = Editor::attached().await;
    editor.ok("setExceptionBreakpoints", json!({"filters": []})).await;
    let set = editor.ok("setDataBreakpoints", json!({"breakpoints": [{"dataId": "x"}]})).await;
    assert_eq!(set["breakpoints"][0]["verified"], false);
    let set = editor.ok("setInstructionBreakpoints", json!({"breakpoints": [{"instructionReference": "0x1"}]})).await;
    assert_eq!(set["breakpoints"][0]["verified"], false);
    let info = editor.ok("dataBreakpointInfo", json!({"name": "x"})).await;
    assert_eq!(info["dataId"], Value::Null);
    assert!(info["description"].as_str().unwrap().contains("cannot watch memory"));
    editor.finish().await;
}

#[tokio::test]
async fn each_connection_is_a_session_and_a_browser_gets_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve_connections(listener, Arc::new(Way(FakeFleet::new()))));
    let initialize = r#"{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"riptrace"}}"#;
    let disconnect = r#"{"seq":2,"type":"request","command":"disconnect"}"#;
    let frame = |origin: &str, body: &str| format!("{origin}Content-Length: {}\r\n\r\n{body}", body.len());
    let talk = |sent: String| async move {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, connection.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        answer
    };
    let whole = format!("{}{}", frame("", initialize), frame("", disconnect));
    let (one, two) = tokio::join!(talk(whole.clone()), talk(whole.clone()));
    assert!(one.contains("supportsStepBack") && one.ends_with(r#""type":"response"}"#), "{one}");
    assert_eq!(one, two);
    assert_eq!(talk(frame("Origin: http://evil.example\r\n", initialize)).await, "");
    assert_eq!(talk(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{whole}")).await, "");
    server.abort();
}

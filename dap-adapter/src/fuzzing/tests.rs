//! The bodies of the fuzz targets on what they begin with, and on random bytes. The adapter's conversations are damaged in
//! `dap/session/hostile_tests.rs`, recordings beside their reader.

use super::{conversation, language_server, recording};
use crate::timeline::recording::{Header, Writer};
use proptest::prelude::*;
use riptrace_protocol::fleet::FleetView;
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{HostName, Incarnation};
use riptrace_protocol::stream::{StreamDrop, StreamItem};
use serde_json::{Value, json};
use std::path::PathBuf;

fn framed(messages: &[Value]) -> Vec<u8> {
    let framed = |message: &Value| {
        let body = message.to_string();
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    };
    messages.iter().map(framed).collect::<String>().into_bytes()
}

/// What an editor says to the debug adapter.
fn session() -> Vec<u8> {
    let source = json!({"path": "/a/b.go"});
    let asked = [
        (
            "setBreakpoints",
            json!({"source": source, "breakpoints": [{"line": 1, "condition": "x > 1", "hitCondition": "%2", "logMessage": "{x}", "mode": "log"}]}),
        ),
        ("setFunctionBreakpoints", json!({"breakpoints": [{"name": "main.f:call count"}]})),
        (
            "setExceptionBreakpoints",
            json!({"filters": ["go-panic"], "filterOptions": [{"filterId": "go-error", "condition": "main.f"}]}),
        ),
        ("breakpointLocations", json!({"source": source, "line": 1, "endLine": 3})),
        ("configurationDone", json!({})),
        ("threads", json!({})),
        ("stackTrace", json!({"threadId": 2, "startFrame": 0, "levels": 20})),
        ("scopes", json!({"frameId": 1})),
        (
            "variables",
            json!({"variablesReference": 1, "filter": "named", "start": 0, "count": 5, "format": {"hex": true}}),
        ),
        ("evaluate", json!({"expression": "capture x", "context": "repl"})),
        ("evaluate", json!({"expression": "x.y[1],x", "context": "watch", "frameId": 1})),
        ("completions", json!({"text": "x.", "column": 3})),
        ("gotoTargets", json!({"source": source, "line": 1})),
        ("goto", json!({"threadId": 2, "targetId": 1})),
        ("source", json!({"source": {"sourceReference": 1}, "sourceReference": 1})),
        ("cancel", json!({"requestId": 1, "progressId": "1"})),
        ("riptrace/timelinePage", json!({"from": 1, "count": 5, "filter": {"host": "web-*", "when": "x > 1"}})),
        ("riptrace/timelineOverview", json!({"buckets": 5})),
        ("riptrace/openHit", json!({"time": "10:00:00.5"})),
        ("riptrace/save", json!({"path": "x"})),
        ("restart", json!({"arguments": {"correlate": ["x"]}})),
        ("disconnect", json!({"terminateDebuggee": true})),
    ];
    let message = |(seq, (command, arguments)): (i64, (&str, Value))| json!({"seq": seq, "type": "request", "command": command, "arguments": arguments});
    framed(&(1..).zip(asked).map(message).collect::<Vec<_>>())
}

/// What an editor says to the language server.
fn editor() -> Vec<u8> {
    let document = json!({"uri": "file:///a/riptrace.toml"});
    let at = json!({"line": 1, "character": 2});
    let range = json!({"start": {"line": 0, "character": 0}, "end": at});
    let text = "rate = 5\n[[substitute_path]]\nfr😀m = \".\"\n";
    let asked = [
        ("initialize", json!({"capabilities": {"general": {"positionEncodings": ["utf-8"]}}})),
        (
            "textDocument/didOpen",
            json!({"textDocument": {"uri": document["uri"], "languageId": "toml", "version": 1, "text": text}}),
        ),
        (
            "textDocument/didChange",
            json!({"textDocument": {"uri": document["uri"], "version": 2}, "contentChanges": [{"text": text}]}),
        ),
        ("textDocument/hover", json!({"textDocument": document, "position": at})),
        ("textDocument/inlayHint", json!({"textDocument": document, "range": range})),
        ("textDocument/codeAction", json!({"textDocument": document, "range": range, "context": {"diagnostics": []}})),
        (
            "workspace/executeCommand",
            json!({"command": "riptrace.trace", "arguments": [{"uri": document["uri"], "line": 1}]}),
        ),
        ("shutdown", Value::Null),
    ];
    let message = |(id, (method, params)): (i64, (&str, Value))| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    framed(&(1..).zip(asked).map(message).collect::<Vec<_>>())
}

fn saved() -> Vec<u8> {
    let fleet = FleetView { coordinator: Incarnation(1), hosts: Vec::new(), tracepoints: Vec::new() };
    let drop = StreamDrop {
        host: HostName::new("a").unwrap(),
        process: None,
        tracepoint: None,
        reason: DropReason::Lost,
        count: 3,
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Header::new(&fleet, &[], "/shop".into(), 7)).unwrap();
    writer.items(vec![StreamItem::Drop(drop)]).unwrap();
    writer.finish().unwrap();
    bytes
}

/// With `RIPTRACE_FUZZ_SEEDS=FOLDER`, they are written there: what the fuzz targets begin with.
#[test]
fn the_seeds_are_read() {
    let (session, editor, saved) = (session(), editor(), saved());
    // Beside these, the answers to what opens and ends a conversation.
    assert!(conversation(&session) >= 22 + 2, "{}", conversation(&session));
    assert_eq!(language_server(&editor), 8);
    recording(&saved);
    if let Some(folder) = std::env::var_os("RIPTRACE_FUZZ_SEEDS").map(PathBuf::from) {
        for (target, content) in [("conversation", session), ("language_server", editor), ("recording", saved)] {
            std::fs::create_dir_all(folder.join(target)).unwrap();
            std::fs::write(folder.join(target).join("whole"), content).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn damaged_messages_of_an_editor_are_survived(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut input = editor();
        for (at, byte) in damages {
            let at = at.index(input.len());
            input[at] = byte;
        }
        language_server(&input);
    }

    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..300)) {
        language_server(&input);
        recording(&input);
    }
}

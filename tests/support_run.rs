//! The test support itself: a harness that is wrong makes every test worthless.

mod support;

use riptrace::netns;
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpListener,
    panic::catch_unwind,
    process::Command,
    thread,
    time::Duration,
};
use support::{
    SOON,
    dap::DapClient,
    eventually,
    process::{Program, command},
    schema::schema,
    values,
};

/// Short, for what must not come.
const NEVER: Duration = Duration::from_millis(50);

/// An adapter that answers with these messages, whatever it is asked, and then closes.
fn adapter(messages: &[serde_json::Value]) -> DapClient {
    let mut bytes = Vec::new();
    for message in messages {
        let text = message.to_string();
        bytes.extend(format!("Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes());
    }
    adapter_of(bytes)
}

fn adapter_of(bytes: Vec<u8>) -> DapClient {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&bytes).unwrap();
        // Until the script hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    DapClient::connect_unchecked(address)
}

/// The text of a panic.
fn panic_of(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let cause = catch_unwind(f).expect_err("it panics");
    cause.downcast_ref::<String>().cloned().unwrap_or_else(|| (*cause.downcast::<&str>().unwrap()).to_owned())
}

#[test]
fn the_editor_reads_answers_and_events_in_any_order() {
    let mut editor = adapter(&[
        json!({"seq": 1, "type": "event", "event": "initialized"}),
        json!({"seq": 2, "type": "response", "request_seq": 1, "command": "a", "success": true, "body": {"x": 1}}),
        json!({"seq": 3, "type": "response", "request_seq": 2, "command": "b", "success": false, "message": "no"}),
        json!({"seq": 4, "type": "event", "event": "output", "body": {"output": "one"}}),
        json!({"seq": 5, "type": "event", "event": "output", "body": {"output": "two"}}),
    ]);
    assert_eq!(editor.call("a", json!({})), json!({"x": 1}));
    assert_eq!(editor.call_refused("b", json!({}))["message"], "no");
    assert_eq!(editor.event_where("output", SOON, |body| body["output"] == "two")["output"], "two");
    assert_eq!(editor.event("output", SOON)["output"], "one");
    editor.event("initialized", SOON);
    assert_eq!(editor.transcript().len(), 7);
}

#[test]
fn a_response_that_nobody_reads_fails_the_script() {
    let said = panic_of(|| {
        let mut editor = adapter(&[
            json!({"seq": 1, "type": "response", "request_seq": 1, "command": "a", "success": true}),
            json!({"seq": 2, "type": "response", "request_seq": 1, "command": "a", "success": true}),
            json!({"seq": 3, "type": "event", "event": "last"}),
        ]);
        editor.call("a", json!({}));
        editor.event("last", SOON);
    });
    assert!(said.contains("nobody read this response"), "{said}");
}

#[test]
fn a_wrong_envelope_fails_the_script() {
    let event = |seq: u64| json!({"seq": seq, "type": "event", "event": "x"});
    for (messages, problem) in [
        (vec![event(2), event(2)], "does not rise"),
        (vec![json!({"type": "event", "event": "x"})], "without a number"),
        (vec![json!({"seq": 1, "type": "response", "request_seq": 9, "command": "a"})], "was not asked"),
        (vec![json!({"seq": 1, "type": "news"})], "no known type"),
    ] {
        let said = panic_of(|| drop(adapter(&messages).event("y", SOON)));
        assert!(said.contains(problem), "{messages:?}: {said}");
    }
}

#[test]
fn the_schema_accepts_sound_messages_and_names_what_is_wrong_with_others() {
    let problems = |message: serde_json::Value| schema().problems(&message);
    let response = |command: &str, body: serde_json::Value| json!({"seq": 2, "type": "response", "request_seq": 1, "command": command, "success": true, "body": body});
    let variable = json!({"name": "qty", "value": "3", "variablesReference": 0, "valueLocationReference": 7});
    for sound in [
        json!({"seq": 1, "type": "event", "event": "initialized"}),
        json!({"seq": 1, "type": "event", "event": "output", "body": {"output": "hit", "variablesReference": 3}}),
        response("variables", json!({"variables": [variable]})),
        response("locations", json!({"source": {"path": "/cart.go"}, "line": 3})),
        response("initialize", json!({"supportsConfigurationDoneRequest": true, "supportsANSIStyling": true})),
        json!({"seq": 2, "type": "response", "request_seq": 1, "command": "zzz", "success": false, "message": "m",
               "body": {"error": {"id": 1, "format": "no"}}}),
    ] {
        assert_eq!(problems(sound.clone()), [""; 0], "{sound}");
    }
    for (bad, part) in [
        (json!({"seq": 1, "type": "event", "event": "outputs"}), "no event"),
        (json!({"seq": 1, "type": "event", "event": "output", "body": {"text": "x"}}), "output"),
        (json!({"seq": 1, "type": "event", "event": "output", "body": {"output": "x", "sauce": {}}}), "sauce"),
        (response("zzz", json!({})), "ZzzResponse"),
        (response("locations", json!({"source": {"path": "/cart.go"}})), "line"),
        (response("variables", json!({"variables": [{"name": "a", "value": 3, "variablesReference": 0}]})), "string"),
        (response("variables", json!({"variables": [{"name": "a", "value": "", "variableReference": 0}]})), "variable"),
        (response("stackTrace", json!({"stackFrames": [{"id": 1, "name": "f", "line": 1}]})), "column"),
        (response("initialize", json!({"supportsStepBackwards": true})), "supportsStepBackwards"),
    ] {
        let found = problems(bad.clone()).join("; ");
        assert!(found.contains(part), "{bad}: {found:?}");
    }
}

#[test]
fn what_is_no_message_fails_the_script() {
    for bad in
        ["Content-Length: 2\r\n\r\n{", "Content-Length: 2\n\n{}", "Length: 2\r\n\r\n{}", "Content-Length: x\r\n\r\n{}"]
    {
        let said = panic_of(|| {
            let mut editor = adapter_of(bad.as_bytes().to_vec());
            editor.close();
            editor.event("any", SOON);
        });
        assert!(said.contains("no message") || said.contains("closed its output"), "{bad:?}: {said}");
    }
}

#[test]
fn waiting_in_vain_ends_with_what_was_waited_for() {
    assert!(panic_of(|| eventually("the moon", NEVER, || None)).contains("the moon"));
    let said = panic_of(|| {
        let mut program = Program::spawn("sleeper", sleeper());
        program.line(NEVER);
    });
    assert!(said.contains("sleeper said nothing"), "{said}");
}

#[test]
fn a_program_ends_with_its_test() {
    let mut program = Program::spawn("sleeper", sleeper());
    let pid = program.pid();
    program.assert_running();
    drop(program);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());

    let mut shell = command("sh");
    shell.args(["-c", "echo out; echo err >&2; exit 7"]);
    let mut program = Program::spawn("shell", shell);
    assert_eq!(program.line(SOON), "out");
    program.wait_for_code(7, SOON);
    program.stderr_has("err", SOON);
}

fn sleeper() -> Command {
    let mut sleeper = command("sleep");
    sleeper.arg("600");
    sleeper
}

#[test]
fn hosts_reach_each_other_until_a_cable_is_cut() {
    assert!(netns::is_allowed(), "this test needs root and `ip`");
    let mut network = netns::Network::new().unwrap();
    let (first, second) = (network.add_host().unwrap(), network.add_host().unwrap());
    let listener = TcpListener::bind((network.gateway(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = writeln!(stream.unwrap(), "hello");
        }
    });
    let reads = |host: &netns::Namespace| {
        let output = Command::new("ip")
            .args(["netns", "exec", &host.name, "timeout", "1", "bash", "-c"])
            .arg(format!("read line < /dev/tcp/{}/{port} && echo $line", network.gateway()))
            .output()
            .unwrap();
        output.stdout == b"hello\n"
    };
    assert!(reads(&first) && reads(&second));
    network.connect(&first, false).unwrap();
    assert!(!reads(&first) && reads(&second));
    network.connect(&first, true).unwrap();
    eventually("the cable is mended", SOON, || reads(&first).then_some(()));

    let names = || String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout).unwrap();
    assert!(names().contains(&first.name));
    drop(network);
    assert!(!names().contains(&first.name));
}

#[test]
fn a_wrong_value_is_caught_and_a_withheld_one_is_counted() {
    let truth = json!({"a": "1", "p": {"*": {"X": "2"}}, "s": {"len": "1", "cap": "1", "[0]": "3"}, "gone": "4"});
    let int = |name: &str, value: &str| json!({"name": name, "type": "int", "value": value, "status": "exact"});
    let hit = |third: &str| {
        json!([
            int("a", "1"),
            {"name": "p", "value": "0xc000", "status": "exact", "children": [int("X", "2")]},
            {"name": "s", "value": "[]int len 1", "status": "exact", "children": [int("[0]", third)]},
            {"name": "gone", "value": "", "status": "optimised_out"},
        ])
    };
    let seen = values::check(&hit("3"), &truth);
    seen.assert_shown(&["a", "*p.X", "s.[0]", "s.len"]);
    assert_eq!(seen.withheld, [("gone".to_owned(), "optimised_out".to_owned())]);
    assert!(panic_of(|| drop(values::check(&hit("4"), &truth))).contains("s.[0]"));
}

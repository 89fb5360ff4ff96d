//! The language server against a real fleet, as an editor uses it.

use crate::shop::nothing_is_traced;
use crate::support::{SOON, eventually, fleet::Fleet, lsp::LspClient};
use crate::torture::fleet_with_target;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn start(fleet: &Fleet, folder: &std::path::Path) -> LspClient {
    LspClient::start(fleet.riptrace(["lsp", "--nats", &fleet.nats_url()]), folder)
}

#[test]
fn a_line_is_explained_traced_and_let_go_of() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.fixture.spot("counted");
    let file = PathBuf::from(&spot.file);
    let mut editor = start(&fleet, &target.fixture.source);
    let uri = editor.open(&file, "go");
    let line = spot.line - 1;
    let at = json!({"textDocument": {"uri": uri}, "position": {"line": line, "character": 2}});
    let text = |hover: &Value| hover["contents"]["value"].as_str().unwrap_or_default().to_owned();

    // Before anybody traces it: what a tracepoint would see, from the symbols of what runs.
    let prospect = eventually("the fleet tells of the line", SOON, || {
        let hover = text(&editor.request("textDocument/hover", at.clone()));
        (!hover.is_empty()).then_some(hover)
    });
    assert!(prospect.contains("torture: a tracepoint sees") && prospect.contains("`n` uint64"), "{prospect}");

    let range = json!({"start": {"line": line, "character": 0}, "end": {"line": line, "character": 0}});
    let asked = json!({"textDocument": {"uri": uri}, "range": range, "context": {"diagnostics": []}});
    let actions = editor.request("textDocument/codeAction", asked.clone());
    let trace = actions[0]["command"].clone();
    assert_eq!(trace["title"], "RipTrace: trace this line", "{actions}");
    let run = |editor: &mut LspClient, command: &Value| {
        let run = json!({"command": command["command"], "arguments": command["arguments"]});
        editor.request("workspace/executeCommand", run)
    };
    assert_eq!(run(&mut editor, &trace), "armed in 1 process");
    target.command("run 5 counted");
    let lens = |editor: &mut LspClient| {
        let lenses = editor.request("textDocument/codeLens", json!({"textDocument": {"uri": uri}}));
        let lens = lenses.as_array().and_then(|all| all.iter().find(|lens| lens["range"]["start"]["line"] == line));
        lens.and_then(|lens| lens["command"]["title"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    eventually("the hits are counted above the line", SOON, || lens(&mut editor).contains("h: ").then_some(()));
    // Asked for, each line around says whether it can be traced and what is there; asked again, it is silent.
    let show = json!({"command": "riptrace.show", "arguments": [{"uri": uri, "line": line}]});
    let hints = |editor: &mut LspClient| -> Vec<String> {
        let range = json!({"start": {"line": 0, "character": 0}, "end": {"line": 10_000, "character": 0}});
        let hints = editor.request("textDocument/inlayHint", json!({"textDocument": {"uri": uri}, "range": range}));
        hints.as_array().expect("hints").iter().filter_map(|hint| hint["label"].as_str().map(str::to_owned)).collect()
    };
    let silent = hints(&mut editor);
    assert!(silent.iter().all(|hint| !hint.starts_with('○')), "{silent:?}");
    let said = run(&mut editor, &show);
    assert!(said.as_str().is_some_and(|said| said.contains("lines around here have code")), "{said}");
    let shown = hints(&mut editor);
    assert!(shown.iter().any(|hint| hint.starts_with("○ torture: ") && hint.contains("n")), "{shown:?}");
    run(&mut editor, &show);
    assert!(hints(&mut editor).iter().all(|hint| !hint.starts_with('○')));
    let values = eventually("the values are told on the line", SOON, || {
        let hover = text(&editor.request("textDocument/hover", at.clone()));
        hover.contains("| `n` |").then_some(hover)
    });
    assert!(values.contains("armed in 1 process") && values.contains("×"), "{values}");

    let actions = editor.request("textDocument/codeAction", asked);
    assert_eq!(actions[0]["title"], "RipTrace: stop tracing this line", "{actions}");
    assert_eq!(run(&mut editor, &actions[0]["command"]), "the tracepoint is removed");
    nothing_is_traced(&fleet);

    // What is traced when the editor ends goes with it.
    assert_eq!(run(&mut editor, &trace), "armed in 1 process");
    editor.exit();
    nothing_is_traced(&fleet);
    target.assert_untouched();
    target.command("run 5 counted");
}

#[test]
fn a_settings_file_is_checked_and_completed() {
    let fleet = Fleet::start(&["h"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("riptrace.toml");
    std::fs::write(&file, "nats = \"nats://h:1\"\nratte = 5\n").expect("written");
    let mut editor = start(&fleet, folder.path());
    let uri = editor.open(&file, "toml");
    let published = editor.until("textDocument/publishDiagnostics", |params| params["uri"] == uri);
    let problem = &published["diagnostics"][0];
    assert!(problem["message"].as_str().is_some_and(|text| text.contains("unknown field `ratte`")), "{published}");
    assert_eq!(problem["range"]["start"], json!({"line": 1, "character": 0}));
    let at = json!({"textDocument": {"uri": uri}, "position": {"line": 2, "character": 0}});
    let offered = editor.request("textDocument/completion", at);
    let labels: Vec<&str> =
        offered.as_array().expect("a list").iter().filter_map(|item| item["label"].as_str()).collect();
    assert_eq!(labels, ["creds", "selector", "rate", "substitute_path"], "what is set is not offered again");
    let change = json!({"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": "rate = 5\n"}]});
    editor.notify("textDocument/didChange", change);
    editor.until("textDocument/publishDiagnostics", |params| params["diagnostics"] == json!([]));
    editor.exit();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it compares what is told with the time that has passed")]
fn a_rate_stands_above_a_line_that_is_passed_again_and_again() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.fixture.spot("counted");
    let mut editor = start(&fleet, &target.fixture.source);
    let uri = editor.open(&PathBuf::from(&spot.file), "go");
    let line = spot.line - 1;
    let trace = json!({"command": "riptrace.trace", "arguments": [{"uri": uri, "line": line}]});
    let armed = eventually("the fleet is there", SOON, || {
        let answer = editor.answer("workspace/executeCommand", trace.clone());
        answer.get("error").is_none().then(|| answer["result"].clone())
    });
    assert_eq!(armed, "armed in 1 process");
    let lens = |editor: &mut LspClient| {
        let lenses = editor.request("textDocument/codeLens", json!({"textDocument": {"uri": uri}}));
        let lens = lenses.as_array().and_then(|all| all.iter().find(|lens| lens["range"]["start"]["line"] == line));
        lens.and_then(|lens| lens["command"]["title"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    // `25/s over 10 s` as the two numbers.
    let rate = |title: &str| -> Option<(f64, u64)> {
        let part = title.split(" · ").find(|part| part.contains("/s over "))?;
        let (rate, over) = part.split_once("/s over ").unwrap();
        Some((rate.parse().unwrap(), over.strip_suffix(" s").unwrap().parse().unwrap()))
    };
    target.command("run 5 counted");
    let counted = eventually("hits are counted", SOON, || {
        let title = lens(&mut editor);
        title.starts_with("h: ").then_some(title)
    });
    assert!(rate(&counted).is_none_or(|(_, over)| over <= 10), "{counted}");

    // Passages of which this test knows when they were.
    let begun = Instant::now();
    let mut passages: Vec<(Duration, u64)> = Vec::new();
    let mut known = 5;
    let title = eventually("the rate is of ten seconds of passages", SOON, || {
        let passed = target.command("run 2 counted")["passages"]["counted"].as_u64().unwrap();
        passages.push((begun.elapsed(), passed - known));
        known = passed;
        let title = lens(&mut editor);
        assert!(!title.contains("dropped"), "{title}");
        (begun.elapsed() > Duration::from_secs(14) && rate(&title).is_some_and(|(_, over)| over >= 10)).then_some(title)
    });
    let (told, over) = rate(&title).unwrap();
    let (from, to) = (begun.elapsed() - Duration::from_secs(over), begun.elapsed());
    let meant: u64 = passages.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, passages)| passages).sum();
    let meant = meant as f64 / over as f64;
    assert!(meant > 1.0 && (told / meant - 1.0).abs() < 0.3, "{told} a second are told, {meant} were: {title}");

    // And when nothing comes any more, it says so.
    eventually("the rate has fallen to nothing", SOON, || {
        rate(&lens(&mut editor)).is_some_and(|(told, over)| told == 0.0 && over >= 10).then_some(())
    });
    editor.exit();
    nothing_is_traced(&fleet);
    target.assert_untouched();
}

#[test]
fn an_expression_is_traced_by_its_action_to_a_hit() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.fixture.spot("counted");
    let mut editor = start(&fleet, &target.fixture.source);
    let file = PathBuf::from(&spot.file);
    let uri = editor.open(&file, "go");
    let text = std::fs::read_to_string(&file).expect("the file");
    let offered = |editor: &mut LspClient, line: u64, from: usize, to: usize| -> Vec<Value> {
        let range = json!({"start": {"line": line, "character": from}, "end": {"line": line, "character": to}});
        let asked = json!({"textDocument": {"uri": uri}, "range": range, "context": {"diagnostics": []}});
        eventually("something is offered", SOON, || {
            editor.request("textDocument/codeAction", asked.clone()).as_array().filter(|all| !all.is_empty()).cloned()
        })
    };
    let run = |editor: &mut LspClient, actions: &[Value], title: &str| {
        let action = actions.iter().find(|action| action["title"] == title);
        let command = &action.unwrap_or_else(|| panic!("{title}: {actions:?}"))["command"];
        let run = json!({"command": command["command"], "arguments": command["arguments"]});
        editor.request("workspace/executeCommand", run)
    };
    let hints = |editor: &mut LspClient| -> Vec<(u64, String)> {
        let range = json!({"start": {"line": 0, "character": 0}, "end": {"line": 10_000, "character": 0}});
        let hints = editor.request("textDocument/inlayHint", json!({"textDocument": {"uri": uri}, "range": range}));
        let hints = hints.as_array().expect("hints").iter();
        hints.map(|it| (it["position"]["line"].as_u64().unwrap(), it["label"].as_str().unwrap().to_owned())).collect()
    };

    // What is selected in the text is captured with each hit of its line, and stands first: a variable of the package, which
    // a hit does not have by itself.
    let line = u64::from(spot.line) - 1;
    let selected = "countedMarker";
    let from = text.lines().nth(line as usize).expect("the line").find(selected).expect("the variable");
    let actions = offered(&mut editor, line, from, from + selected.len());
    assert_eq!(run(&mut editor, &actions, "RipTrace: trace countedMarker here"), "armed in 1 process");
    target.command("run 10 counted");
    let hint = eventually("the line has the values of its last passage", SOON, || {
        hints(&mut editor).into_iter().find(|(at, _)| *at == line)
    });
    assert!(hint.1.starts_with("countedMarker=") && hint.1.contains("name: \"counted\""), "{hint:?}");
    let actions = offered(&mut editor, line, 0, 0);
    assert_eq!(run(&mut editor, &actions, "RipTrace: stop tracing this line"), "the tracepoint is removed");
    nothing_is_traced(&fleet);
    editor.exit();
    target.assert_untouched();
}

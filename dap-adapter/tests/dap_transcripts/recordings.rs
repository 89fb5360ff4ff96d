//! Sessions that are saved and opened again without any fleet.

use crate::dap_support::editor::Editor;
use crate::dap_support::hits::{WEB_1, WEB_2, hit, preamble};
use serde_json::{Value, json};

/// A session of six hits of cart.go:42 and one of a logpoint, saved; the file is in the checkout.
async fn saved() -> Editor {
    let mut editor = Editor::attached().await;
    editor.set(json!([{"line": 42}, {"line": 43, "logMessage": "log {qty}"}])).await;
    editor.ok("configurationDone", json!({})).await;
    let created = editor.fleet.asked().created;
    let mut items = preamble(WEB_1);
    items.extend(preamble(WEB_2));
    items.extend((1..=6).map(|seq| hit(seq, &created[0].id, if seq % 2 == 1 { WEB_1 } else { WEB_2 }, seq as i64)));
    items.push(hit(7, &created[1].id, WEB_1, 7));
    editor.fleet.send(items).await;
    editor.event_where("riptrace/statistics", |body| body["hits"] == 7).await;
    let nothing = editor.fails("riptrace/save", json!({"path": "/nowhere/at/all.rec"})).await;
    assert!(nothing.starts_with("/nowhere/at/all.rec could not be written: "), "{nothing}");
    let saved = editor.ok("riptrace/save", json!({"path": "shop.rec"})).await;
    let path = editor.checkout.path().join("shop.rec");
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert_eq!(saved, json!({"path": path, "hits": 7, "bytes": bytes}));
    for event in ["stopped", "output", "riptrace/hit", "breakpoint"] {
        editor.forget(event);
    }
    editor
}

/// Opens the saved recording in another session, up to before `configurationDone`.
async fn launched(of: &Editor) -> Editor {
    let mut editor = Editor::start();
    editor.initialize().await;
    let arguments = json!({"recording": "shop.rec", "cwd": of.checkout.path(), "request": "launch"});
    editor.ok("launch", arguments).await;
    editor.event("initialized").await;
    let told = editor.event("output").await;
    assert_eq!(told["output"], "RipTrace: 7 hits from the recording.\n");
    editor
}

fn opened(stopped: &Value) -> u64 {
    let description = stopped["description"].as_str().unwrap();
    description["Hit ".len()..].split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_session_is_saved_and_opened_again_without_a_fleet() {
    let first = saved().await;
    let mut editor = launched(&first).await;
    editor.ok("configurationDone", json!({})).await;
    let stopped = editor.event("stopped").await;
    assert_eq!(opened(&stopped), 1);
    let thread = &stopped["threadId"];
    let frames = editor.ok("stackTrace", json!({"threadId": thread})).await["stackFrames"].take();
    assert_eq!((&frames[0]["name"], &frames[0]["line"]), (&json!("main.(*Cart).Add"), &json!(42)));
    assert_eq!(frames[0]["source"]["path"], json!(first.file()));
    let value = editor.ok("evaluate", json!({"expression": "item", "frameId": frames[0]["id"]})).await;
    assert_eq!(value["result"], "main.Item {ID: 17, Left: -1}");
    for expect in [2, 3, 4, 5, 6, 7] {
        editor.ok("continue", json!({"threadId": thread})).await;
        assert_eq!(opened(&editor.event("stopped").await), expect, "without breakpoints all hits are stations");
    }
    editor.ok("continue", json!({"threadId": thread})).await;
    assert_eq!(opened(&editor.event("stopped").await), 7);
    assert_eq!(editor.event("output").await["output"], "RipTrace: the recording has no later hit.\n");
    let page = editor.ok("riptrace/timelinePage", json!({"from": 7})).await;
    assert_eq!(page["hits"][0]["label"], "log 7", "the message was saved as well");
    let fleet = editor.ok("riptrace/fleet", json!({"refresh": true})).await;
    assert_eq!(fleet["hosts"][0]["host"], "web-1");
    editor.ok("restart", Value::Null).await;
    assert_eq!(opened(&editor.event("stopped").await), 1);
    assert!(editor.fleet.asked().targets.is_empty(), "no fleet was joined");
    let fleet = editor.finish().await;
    assert_eq!(fleet.asked().closed, 0);
    first.finish().await;
}

#[tokio::test]
async fn breakpoints_of_a_recording_say_which_of_its_hits_are_meant() {
    let first = saved().await;
    let mut editor = launched(&first).await;
    let breakpoints = json!([{"line": 42, "condition": "qty > 4"}, {"line": 9}]);
    let arguments = json!({"source": {"path": first.file()}, "breakpoints": breakpoints});
    let set = editor.ok("setBreakpoints", arguments).await["breakpoints"].take();
    assert_eq!((&set[0]["verified"], &set[0]["message"]), (&json!(true), &json!("6 recorded hits")));
    let none = "the recording has no hits of this place";
    assert_eq!((&set[1]["verified"], &set[1]["message"]), (&json!(false), &json!(none)));
    editor.ok("configurationDone", json!({})).await;
    let stopped = editor.event("stopped").await;
    assert_eq!((opened(&stopped), &stopped["hitBreakpointIds"]), (5, &json!([set[0]["id"]])));
    editor.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn a_recording_that_is_damaged_is_told_and_what_can_be_read_is_shown() {
    let first = saved().await;
    let path = first.checkout.path().join("shop.rec");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let mut editor = launched(&first).await;
    let told = editor.event("output").await;
    assert_eq!(told["category"], "stderr");
    assert!(told["output"].as_str().unwrap().contains("ends after 7 hits without its last part"), "{told}");
    editor.finish().await;
    std::fs::write(&path, b"no recording at all").unwrap();
    let mut editor = Editor::start();
    editor.initialize().await;
    let arguments = json!({"recording": path, "cwd": first.checkout.path()});
    assert!(editor.fails("launch", arguments).await.contains("this is no recording of RipTrace"));
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    editor.finish().await;
    first.finish().await;
}

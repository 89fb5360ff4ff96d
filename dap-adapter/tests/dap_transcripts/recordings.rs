//! Sessions that are saved and opened again without any fleet.

use crate::dap_support::editor::Editor;
use crate::dap_support::fleet::PATIENCE;
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

/// A file that nobody opens before the other end does.
fn waiting_file(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "mkfifo {}", path.display());
}

/// Opens the other end of a waiting file for a moment, so that whoever waits goes on.
async fn let_go(path: std::path::PathBuf, writes: bool) {
    let open = move || drop(std::fs::OpenOptions::new().read(!writes).write(writes).open(path).unwrap());
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(open)).await.expect("the adapter opened it").unwrap();
}

/// An editor that shows progress, initialised.
async fn with_progress() -> Editor {
    let mut editor = Editor::start();
    editor.ok("initialize", json!({"adapterID": "riptrace", "supportsProgressReporting": true})).await;
    editor
}

#[tokio::test]
async fn a_launch_may_be_taken_back_by_request_and_by_progress() {
    let first = saved().await;
    let folder = first.checkout.path().to_owned();
    let mut editor = with_progress().await;
    for by_request in [true, false] {
        let slow = folder.join(format!("slow-{by_request}.rec"));
        waiting_file(&slow);
        let launch = editor.send("launch", json!({"recording": slow, "cwd": folder})).await;
        let start = editor.event("progressStart").await;
        assert_eq!((&start["requestId"], &start["cancellable"]), (&json!(launch), &json!(true)));
        let cancel = if by_request { json!({"requestId": launch}) } else { json!({"progressId": start["progressId"]}) };
        editor.ok("cancel", cancel).await;
        assert_eq!(editor.failed(launch).await, "cancelled");
        assert_eq!(editor.event("progressEnd").await["progressId"], start["progressId"]);
        // What was being read comes to its end, and is of nobody.
        let_go(slow, true).await;
    }
    // The same session opens another one, whole.
    editor.ok("launch", json!({"recording": "shop.rec", "cwd": folder})).await;
    let start = editor.event("progressStart").await;
    assert_eq!(editor.event("progressEnd").await["progressId"], start["progressId"]);
    editor.event("initialized").await;
    assert_eq!(editor.event("output").await["output"], "RipTrace: 7 hits from the recording.\n");
    editor.finish().await;
    first.finish().await;
}

#[tokio::test]
async fn a_save_may_be_taken_back_by_request_and_by_progress_and_leaves_no_file() {
    let first = saved().await;
    let folder = first.checkout.path().to_owned();
    let mut editor = with_progress().await;
    editor.ok("launch", json!({"recording": "shop.rec", "cwd": folder})).await;
    for event in ["progressStart", "progressEnd", "initialized", "output"] {
        editor.event(event).await;
    }
    for by_request in [true, false] {
        let path = folder.join(format!("again-{by_request}.rec"));
        let part = folder.join(format!("again-{by_request}.rec.part"));
        waiting_file(&part);
        let save = editor.send("riptrace/save", json!({"path": path})).await;
        let start = editor.event("progressStart").await;
        assert_eq!((&start["requestId"], &start["cancellable"]), (&json!(save), &json!(true)));
        let cancel = if by_request { json!({"requestId": save}) } else { json!({"progressId": start["progressId"]}) };
        editor.ok("cancel", cancel).await;
        assert_eq!(editor.failed(save).await, "cancelled");
        assert_eq!(editor.event("progressEnd").await["progressId"], start["progressId"]);
        let_go(part.clone(), false).await;
        let gone = async {
            while part.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("what was begun is removed");
        assert!(!path.exists());
        // The hits are there still, and can be saved.
        let saved = editor.ok("riptrace/save", json!({"path": path})).await;
        assert_eq!(saved["hits"], 7);
        editor.event("progressStart").await;
        editor.event("progressEnd").await;
    }
    editor.ok("cancel", json!({"progressId": "no such progress", "requestId": 999})).await;
    editor.finish().await;
    first.finish().await;
}

//! Breakpoints and what the fleet makes of them.

use crate::dap_support::editor::Editor;
use crate::dap_support::fleet::status;
use riptrace_protocol::source::SourceFacts;
use riptrace_protocol::tracepoint::HitCondition;
use serde_json::{Value, json};

#[tokio::test]
async fn a_breakpoint_is_verified_and_counts_and_names_the_rest() {
    let mut editor = Editor::attached().await;
    let set = editor.set(json!([{"line": 42, "column": 19}])).await;
    assert_eq!(set.as_array().unwrap().len(), 1);
    assert_eq!((&set[0]["verified"], &set[0]["line"]), (&json!(true), &json!(42)));
    assert_eq!(
        set[0]["message"],
        "armed in 2 of 3 processes on 2 hosts; web-1 gateway pid 900: no file cart/cart.go in build go:gateway-1; \
         cart: the local file is in no git repository, so the build's text is not known"
    );
    let tracepoint = &editor.fleet.asked().created[0];
    assert_eq!(tracepoint.location.to_string(), "cart/cart.go:42");
    assert_eq!((tracepoint.condition.as_ref(), tracepoint.log_message.as_ref()), (None, None));
    editor.finish().await;
}

#[tokio::test]
async fn conditions_hit_counts_and_log_messages_reach_the_fleet() {
    let mut editor = Editor::attached().await;
    let breakpoint = json!({"line": 1, "condition": "qty > 1", "hitCondition": "%5", "logMessage": "sold {qty}"});
    editor.set(json!([breakpoint, {"line": 2, "condition": "", "logMessage": " "}])).await;
    let created = editor.fleet.asked().created;
    assert_eq!(created[0].condition.as_deref(), Some("qty > 1"));
    assert_eq!(created[0].hit_condition, Some(HitCondition::Every { n: 5 }));
    assert_eq!(created[0].log_message.as_deref(), Some("sold {qty}"));
    assert_eq!((created[1].condition.as_ref(), created[1].log_message.as_ref()), (None, None));
    let functions = json!({"breakpoints": [{"name": " main.(*Cart).Add ", "condition": "qty == 3"}, {"name": ""}]});
    let set = editor.ok("setFunctionBreakpoints", functions).await;
    assert_eq!(set["breakpoints"][0]["verified"], true);
    assert_eq!(set["breakpoints"][1]["message"], "a function breakpoint needs a name");
    let created = editor.fleet.asked().created;
    assert_eq!((created.len(), created[2].location.to_string().as_str()), (3, "main.(*Cart).Add"));
    editor.finish().await;
}

#[tokio::test]
async fn a_line_is_asked_for_with_what_its_source_says_of_the_variables() {
    let mut editor = Editor::attached().await;
    let go = "package cart\n\nfunc Add(n int) int {\n\ttotal := n\n\tif n > 1 {\n\t\ttotal = 2 * n\n\t}\n\treturn total\n}\n";
    std::fs::write(editor.file(), go).unwrap();
    editor.set(json!([{"line": 8}, {"line": 2}])).await;
    let created = editor.fleet.asked().created;
    let facts = SourceFacts::of_go(go, 8);
    assert!(facts.declared.iter().any(|it| it.name == "total") && facts.assigned.len() == 1, "{facts:?}");
    // All builds are of the text that is here: it is said once.
    assert_eq!(created[0].source, [facts]);
    assert_eq!(created[1].source, [], "the line is in no function");
    let names = ["cart.Add:return", "cart.Add:call", "cart.Add", "cart.*:return"].map(|name| json!({"name": name}));
    editor.ok("setFunctionBreakpoints", json!({"breakpoints": names})).await;
    // They are asked for side by side.
    let created = editor.fleet.asked().created;
    let function = SourceFacts::of_go_function(go, None, "Add");
    let source =
        |name: &str| &created.iter().find(|it| it.location.to_string() == name).expect("it was asked for").source;
    for returned in ["cart.Add:return", "cart.Add:call"] {
        assert_eq!(source(returned), std::slice::from_ref(&function), "{returned}");
    }
    assert!(source("cart.Add").is_empty(), "arguments are what they are where the function begins");
    assert!(source("cart.*:return").is_empty());
    editor.finish().await;
}

#[tokio::test]
async fn what_cannot_be_read_stays_unverified_on_its_line_and_is_not_asked_of_the_fleet() {
    let mut editor = Editor::attached().await;
    let set = editor
        .set(json!([
            {"line": 1, "condition": "qty >"},
            {"line": 2, "hitCondition": "often"},
            {"line": 3, "logMessage": "{qty"},
            {"line": 0},
            {"line": 5},
        ]))
        .await;
    for (index, (line, why)) in
        [(1, "condition: "), (2, "hit condition \"often\" is not one of"), (3, "log message, "), (0, "0 is not a line")]
            .into_iter()
            .enumerate()
    {
        assert_eq!((&set[index]["verified"], &set[index]["line"]), (&json!(false), &json!(line)));
        assert!(set[index]["message"].as_str().unwrap().starts_with(why), "{}", set[index]);
    }
    assert_eq!(set[4]["verified"], true);
    assert_eq!(editor.fleet.asked().created.len(), 1);
    let arguments = json!({"source": {"path": "vscode-remote://box/a.go"}, "breakpoints": [{"line": 1}]});
    let set = editor.ok("setBreakpoints", arguments).await;
    assert!(set["breakpoints"][0]["message"].as_str().unwrap().contains("is not a file of this machine"));
    editor.finish().await;
}

#[tokio::test]
async fn a_set_replaces_the_one_before_and_keeps_what_is_unchanged() {
    let mut editor = Editor::attached().await;
    let first = editor.set(json!([{"line": 1}, {"line": 2}, {"line": 2}])).await;
    let second = editor.set(json!([{"line": 2}, {"line": 3}, {"line": 1, "condition": "a"}])).await;
    assert_eq!(second[0]["id"], first[1]["id"]);
    let ids: Vec<&Value> = first.as_array().unwrap().iter().map(|b| &b["id"]).collect();
    assert!(!ids.contains(&&second[1]["id"]) && !ids.contains(&&second[2]["id"]));
    let asked = editor.fleet.until(|asked| asked.removed.len() == 2).await;
    let lines: Vec<String> = asked.created.iter().map(|tracepoint| tracepoint.location.to_string()).collect();
    assert_eq!(lines, ["cart/cart.go:1", "cart/cart.go:2", "cart/cart.go:2", "cart/cart.go:3", "cart/cart.go:1"]);
    let mut removed = asked.removed;
    removed.sort();
    assert_eq!(removed, [asked.created[0].id.clone(), asked.created[2].id.clone()]);
    editor.set(json!([])).await;
    editor.fleet.until(|asked| asked.removed.len() == 5).await;
    editor.finish().await;
}

#[tokio::test]
async fn a_fleet_that_takes_long_is_answered_for_and_the_change_is_told() {
    let mut editor = Editor::attached().await;
    editor.fleet.answer_creations(false);
    let set = editor.set(json!([{"line": 42}])).await;
    assert_eq!((&set[0]["verified"], &set[0]["message"]), (&json!(false), &json!("arming")));
    editor.fleet.answer_creations(true);
    let changed = editor.event("breakpoint").await;
    assert_eq!((&changed["reason"], &changed["breakpoint"]["id"]), (&json!("changed"), &set[0]["id"]));
    assert_eq!((&changed["breakpoint"]["verified"], &changed["breakpoint"]["line"]), (&json!(true), &json!(42)));
    editor.finish().await;
}

#[tokio::test]
async fn a_breakpoint_that_is_taken_back_while_it_is_created_is_removed_afterwards() {
    let mut editor = Editor::attached().await;
    editor.fleet.answer_creations(false);
    let arguments = json!({"source": {"path": editor.file()}, "breakpoints": [{"line": 42}]});
    let first = editor.send("setBreakpoints", arguments).await;
    editor.fleet.until(|asked| asked.created.len() == 1).await;
    editor.set(json!([])).await;
    assert_eq!(editor.response(first).await["body"]["breakpoints"][0]["message"], "arming");
    assert_eq!(editor.fleet.asked().removed, []);
    editor.fleet.answer_creations(true);
    let asked = editor.fleet.until(|asked| asked.removed.len() == 1).await;
    assert_eq!(asked.removed[0], asked.created[0].id);
    editor.finish().await;
}

#[tokio::test]
async fn what_the_fleet_refuses_is_told_in_its_words() {
    let mut editor = Editor::attached().await;
    editor.fleet.refuse_creation("this session may not trace service pricing");
    let set = editor.set(json!([{"line": 42}])).await;
    assert_eq!(set[0]["verified"], false);
    assert_eq!(set[0]["message"], "this session may not trace service pricing");
    editor.finish().await;
}

#[tokio::test]
async fn a_status_that_changes_is_told_and_one_that_does_not_is_not() {
    let mut editor = Editor::attached().await;
    let set = editor.set(json!([{"line": 42}])).await;
    let tracepoint = editor.fleet.asked().created[0].clone();
    let same = status(&tracepoint, &[("gateway", "no file cart/cart.go in build go:gateway-1")]);
    editor.fleet.tell_states(vec![same]).await;
    editor.fleet.tell_states(vec![status(&tracepoint, &[("cart", "over its budget"), ("gateway", "x")])]).await;
    let changed = editor.event("breakpoint").await["breakpoint"].take();
    assert_eq!((&changed["id"], &changed["verified"]), (&set[0]["id"], &json!(false)));
    assert_eq!(
        changed["message"],
        "armed in none of 3 processes; web-1 cart pid 812 and 1 more: over its budget; web-1 gateway pid 900: x",
        "nothing is said of the text of builds that are not armed"
    );
    editor.finish().await;
}

#[tokio::test]
async fn breakpoints_that_are_set_before_the_fleet_is_joined_are_armed_then() {
    let mut editor = Editor::start();
    editor.initialize().await;
    let set = editor.set(json!([{"line": 42}])).await;
    assert_eq!(set[0]["message"], "not attached to a fleet yet");
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    let changed = editor.event_where("breakpoint", |body| body["breakpoint"]["verified"] == true).await;
    assert_eq!(changed["breakpoint"]["id"], set[0]["id"]);
    editor.finish_but(&["breakpoint"]).await;
}

#[tokio::test]
async fn an_editor_may_count_lines_from_zero_and_name_files_by_uri() {
    let mut editor = Editor::start();
    let arguments =
        json!({"adapterID": "riptrace", "linesStartAt1": false, "columnsStartAt1": false, "pathFormat": "uri"});
    editor.ok("initialize", arguments).await;
    let arguments = editor.attach_arguments();
    editor.ok("attach", arguments).await;
    editor.event("initialized").await;
    let uri = format!("file://{}", editor.file().display());
    let set = editor.ok("setBreakpoints", json!({"source": {"path": uri}, "breakpoints": [{"line": 41}]})).await;
    assert_eq!(set["breakpoints"][0]["line"], 41);
    assert_eq!(editor.fleet.asked().created[0].location.to_string(), "cart/cart.go:42");
    editor.finish().await;
}

//! Values of optimised Go, as the program itself knows them: what is shown as exact is right.

use crate::shop::interrupt;
use crate::support::{SOON, eventually, fixture::Fixture, fleet::Fleet, values};

#[test]
fn no_value_that_is_shown_as_exact_is_wrong() {
    let fleet = Fleet::start(&["h"]);
    let fixture = Fixture::go("values", ".");
    let mut target = fleet.spawn_on("h", &fixture.program, &[]);
    target.json_of("ready", SOON);
    let pid = target.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    target.write_line("truth");
    let truth = target.json_of("truth", SOON)["truth"].take();
    let truth = truth.as_object().expect("markers");
    let (mut right, mut withheld) = (0, 0);
    for (marker, wanted) in truth {
        let spot = fixture.spot(marker).location();
        let mut trace = fleet.trace(&[&spot], 1);
        target.write_line(&format!("pass {marker}"));
        let hit = trace.json_of("hit", SOON);
        target.json_of("passed", SOON);
        let seen = values::check(&hit["values"], wanted);
        eprintln!("{marker}: {} right, withheld {:?}", seen.right.len(), seen.withheld);
        right += seen.right.len();
        withheld += seen.withheld.len();
        interrupt(trace);
    }
    eprintln!("{right} values shown and right, {withheld} withheld with a reason, none wrong");
    assert!(right > withheld, "more is shown than withheld");
}

#[test]
fn a_capture_has_limits_of_its_own() {
    let fleet = Fleet::start(&["h"]);
    let fixture = Fixture::go("values", ".");
    let mut target = fleet.spawn_on("h", &fixture.program, &[]);
    target.json_of("ready", SOON);
    let pid = target.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    let mut hit_of = |marker: &str, arguments: &[&str]| {
        let spot = fixture.spot(marker).location();
        let mut trace = fleet.trace(&[&[spot.as_str()], arguments].concat(), 1);
        target.write_line(&format!("pass {marker}"));
        let mut hit = trace.json_of("hit", SOON);
        target.json_of("passed", SOON);
        interrupt(trace);
        hit["values"].take()
    };
    let of = |values: &serde_json::Value, name: &str| -> serde_json::Value {
        let all = values.as_array().expect("values");
        all.iter().find(|value| value["name"] == name).unwrap_or_else(|| panic!("no {name} in {values}")).clone()
    };
    let seen = |value: &serde_json::Value| {
        let children = value["children"].as_array().map_or(0, Vec::len);
        (value["status"].as_str().unwrap_or_default().to_owned(), children)
    };
    let exact = |children| ("exact".to_owned(), children);
    let cut = |children| ("truncated".to_owned(), children);

    // Elements: the tracepoint has one, a variable in scope that is named has three.
    let values = hit_of("slices", &["--elements", "1", "--capture", "numbers with elements=3"]);
    assert_eq!(seen(&of(&values, "numbers")), exact(3), "{values}");
    assert_eq!(seen(&of(&values, "words")), cut(1), "{values}");

    // Bytes of a string, within a capture that has more of them than the tracepoint.
    let values = hit_of("strings", &["--string-bytes", "2", "--capture", "unicode with string_bytes=100"]);
    assert_eq!(of(&values, "unicode")["value"], "\"Grüße, 世界 🌍\"", "{values}");
    assert_eq!(seen(&of(&values, "plain")).0, "truncated", "{values}");

    // What an interface holds decides, inside of the process; of another type it is neither true nor false.
    let held = r#"number.(int) == 42 && pointer.(*main.Point).X == 1 && err.(*errors.errorString).s == "bad""#;
    let values = hit_of("interfaces", &["--when", held]);
    assert_eq!(of(&values, "number")["value"].as_str().map(|text| text.contains("42")), Some(true), "{values}");

    // Depth and fields: nothing is followed but one pointer, and of what is there one field is read.
    let values = hit_of("pointers", &["--depth", "0", "--capture", "point with depth=1, fields=1"]);
    let point = of(&values, "point");
    let text = point.to_string();
    assert!(text.contains("\"name\":\"X\"") && text.contains("it is beyond the limit of fields"), "{point}");
    assert_eq!(seen(&of(&values, "number")).1, 0, "{values}");

    // Fields of a tracepoint, more of a capture.
    let values = hit_of("structs", &["--fields", "2", "--capture", "line with fields=4"]);
    assert_eq!(seen(&of(&values, "line")).0, "exact", "{values}");
    let values = hit_of("structs", &["--fields", "2"]);
    assert_eq!(seen(&of(&values, "line")).0, "truncated", "{values}");
}

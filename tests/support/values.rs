//! Checks the values of a hit against what the program itself says is true (fixture `values`).
//!
//! A value may be missing with a reason: that is honest. A value that is shown as exact must be right.

use serde_json::{Map, Value};

/// What a check has seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Values that were shown and right, as paths such as `line.From.X`.
    pub right: Vec<String>,
    /// Values that were not shown, with their status.
    pub withheld: Vec<(String, String)>,
}

/// Checks the `values` of a hit, as `riptrace trace --json` prints them, against the truth of its marker.
///
/// # Panics
/// When an exact value is wrong.
#[track_caller]
pub fn check(values: &Value, truth: &Value) -> Seen {
    let mut seen = Seen::default();
    let truth = truth.as_object().expect("the truth of a marker is an object");
    for (name, wanted) in truth {
        match named(values, name) {
            Some(value) => check_one(name, value, wanted, &mut seen),
            // The compiler's debug information may not mention a variable at all.
            None => seen.withheld.push((name.clone(), "not mentioned".to_owned())),
        }
    }
    seen
}

#[track_caller]
fn check_one(path: &str, value: &Value, truth: &Value, seen: &mut Seen) {
    let status = value["status"].as_str().unwrap_or_default();
    if !matches!(status, "exact" | "truncated") {
        seen.withheld.push((path.to_owned(), status.to_owned()));
        return;
    }
    match truth {
        Value::String(wanted) => {
            let shown = value["value"].as_str().unwrap_or_default();
            // A number that is a constant's has its name in front: `Red (1)`.
            let number = shown.strip_suffix(')').and_then(|shown| shown.rsplit_once(" (")).map(|(_, number)| number);
            assert!(shown == wanted || number == Some(wanted.as_str()), "{path}: {shown}, not {wanted}, in {value}");
            seen.right.push(path.to_owned());
        }
        Value::Object(parts) => check_parts(path, value, parts, seen),
        other => panic!("an odd truth for {path}: {other}"),
    }
}

#[track_caller]
fn check_parts(path: &str, value: &Value, parts: &Map<String, Value>, seen: &mut Seen) {
    let children = &value["children"];
    for (name, wanted) in parts {
        match name.as_str() {
            // Lengths are shown in the text of the value, which is the renderer's own; its tests check it.
            "len" => {
                let elements = children.as_array().map_or(0, |children| {
                    children.iter().filter(|child| child["name"].as_str().is_some_and(|n| n.starts_with('['))).count()
                });
                assert_eq!(elements.to_string(), wanted.as_str().unwrap_or_default(), "{path}: elements of {value}");
                seen.right.push(format!("{path}.len"));
            }
            "cap" => {}
            "=" => {
                assert_eq!(value["value"].as_str(), wanted.as_str(), "{path}: the text of {value}");
                seen.right.push(format!("{path}="));
            }
            "()" => match children.as_array().map(Vec::as_slice) {
                Some([held]) => check_one(&format!("{path}.()"), held, wanted, seen),
                _ => panic!("{path}: nothing in the interface {value}"),
            },
            // The pointee's name is the renderer's own: it is the only child, or its fields are the children.
            "*" => match (wanted, children.as_array().map(Vec::as_slice)) {
                (Value::String(_), Some([only])) => check_one(&format!("*{path}"), only, wanted, seen),
                (Value::Object(fields), Some([only])) if !fields.contains_key(only["name"].as_str().unwrap_or("")) => {
                    check_one(&format!("*{path}"), only, wanted, seen);
                }
                (Value::Object(fields), Some(_)) => check_parts(&format!("*{path}"), value, fields, seen),
                _ => panic!("{path}: nothing behind the pointer {value}"),
            },
            _ => {
                let child = named(children, name).unwrap_or_else(|| panic!("no part {name} of {path} in {value}"));
                check_one(&format!("{path}.{name}"), child, wanted, seen);
            }
        }
    }
}

fn named<'a>(values: &'a Value, name: &str) -> Option<&'a Value> {
    values.as_array()?.iter().find(|value| value["name"] == name)
}

impl Seen {
    /// Fails the test unless every one of these was shown.
    #[track_caller]
    pub fn assert_shown(&self, paths: &[&str]) {
        for path in paths {
            assert!(self.right.iter().any(|right| right == path), "{path} was not shown: {self:?}");
        }
    }
}

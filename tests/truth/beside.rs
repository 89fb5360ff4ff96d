//! What is told beside the values themselves: the goroutine of a passage, and the names of constants and functions.

use crate::oracle::Marker;
use crate::report::Run;
use riptrace_protocol::decode::GoroutineFacts;
use riptrace_protocol::value::Value;
use std::collections::BTreeMap;

/// Where the corpus sets labels, and starts a goroutine that has them.
const LABELLED: &str = "labelled";
/// The end of the line that starts it.
const STATEMENT: &str = "go func() { // the statement that is told with the goroutine";
/// Names that are told with values where these are shown: marker, variable, text.
const NAMED: [(&str, &str, &str); 2] = [("mixed-branch", "at", "high (1)"), ("mixed-return", "at", "high (1)")];

/// Types that generic functions work on, where they are certain.
const TYPED: [(&str, &str, &[&str]); 4] = [
    ("described-loop", "each", &["main.id"]),
    ("list-add", "value", &["main.point"]),
    ("contains-found", "needle", &["int", "string"]),
    ("box-return", "value", &["string", "float64"]),
];

/// Checks what was told of the goroutines of a marker's passages.
pub(crate) fn goroutines(run: &mut Run, marker: &Marker, told: &[Option<GoroutineFacts>]) {
    for facts in told {
        let at = format!("{} {} {}", run.version, run.mode, marker.marker);
        let Some(facts) = facts else {
            run.odd.push(format!("{at}: nothing is told of the goroutine"));
            continue;
        };
        if facts.problem.is_some() || facts.id.is_none() {
            run.odd.push(format!("{at}: {facts}"));
        }
        let wanted = match marker.marker.as_str() {
            LABELLED => {
                let line = marker.source.lines().position(|line| line.trim() == STATEMENT).map_or(0, |line| line + 1);
                let labels =
                    [("tenant", "ann"), ("kind", "batch")].map(|(key, value)| (key.to_owned(), value.to_owned()));
                GoroutineFacts {
                    id: facts.id,
                    parent: Some(1),
                    created_by: Some(format!("main.labelled at goroutines.go:{line}")),
                    labels: BTreeMap::from(labels),
                    problem: None,
                }
            }
            // Iterators that are pulled run in goroutines of their own, made by the library.
            _ if facts.id != Some(1) => {
                let is_made =
                    facts.parent == Some(1) && facts.created_by.as_deref().is_some_and(|by| by.contains(".go:"));
                if !is_made || !facts.labels.is_empty() {
                    run.wrong.push(format!("{at}: {facts}"));
                }
                continue;
            }
            _ => GoroutineFacts { id: Some(1), parent: None, created_by: None, labels: BTreeMap::new(), problem: None },
        };
        if *facts != wanted {
            run.wrong.push(format!("{at}: told is {facts}, and it is {wanted}"));
        }
    }
}

/// Checks the names that are shown with values.
pub(crate) fn values(run: &mut Run, marker: &Marker, passages: &[Vec<Value>]) {
    for (_, name, types) in TYPED.iter().filter(|(of, ..)| *of == marker.marker) {
        for value in passages.iter().flatten().filter(|value| value.name == *name && value.status.is_shown()) {
            if !types.contains(&value.type_name.as_str()) {
                let type_name = &value.type_name;
                run.wrong.push(format!(
                    "{} {} {}: {name} is told to be a {type_name}",
                    run.version, run.mode, marker.marker
                ));
            }
        }
    }
    for (_, name, text) in NAMED.iter().filter(|(of, ..)| *of == marker.marker) {
        for value in passages.iter().flatten().filter(|value| value.name == *name && value.status.is_shown()) {
            if value.value != *text {
                run.wrong.push(format!(
                    "{} {} {}: {name} is shown as {}",
                    run.version, run.mode, marker.marker, value.value
                ));
            }
        }
    }
}

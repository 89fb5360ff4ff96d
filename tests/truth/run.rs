//! One build of the corpus: traced, and compared with the truth.

use crate::beside;
use crate::compare::{self, Compared};
use crate::delve;
use crate::oracle::{Marker, Truth};
use crate::report::{Mode, Outcome, Run};
use crate::support::fixture::Fixture;
use crate::trace::{self, Refused};
use riptrace::provision::GoVersion;
use riptrace_protocol::value::Value;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Builds, traces and compares.
#[track_caller]
pub(crate) fn one(truth: &Truth, version: GoVersion, mode: Mode) -> Run {
    let fixture = Fixture::go_with("truth", ".", version, &mode.flags());
    let markers: Vec<&Marker> = truth.markers.iter().filter(|marker| marker.is_in(version)).collect();
    let seen = trace::run(&fixture, &markers);
    let mut run = Run::new(version, mode);
    for (topic, sum) in &seen.sums {
        assert_eq!(truth.sums.get(topic), Some(sum), "{version} {mode}: {topic} computes something else while traced");
    }
    for &marker in &markers {
        match seen.refused.get(&marker.marker) {
            Some(Refused::NoCode) => {
                run.no_code += 1;
                continue;
            }
            Some(Refused::Odd(why)) => {
                run.odd.push(format!("{}: {why}", marker.marker));
                continue;
            }
            None => run.lines += 1,
        }
        let wanted = &truth.passages[&marker.marker];
        let passages = seen.passages.get(&marker.marker).map_or(&[][..], Vec::as_slice);
        if passages.len() != wanted.len() {
            let (hits, times) = (passages.len(), wanted.len());
            run.astray.push(format!("{}: {hits} hits of a line that ran {times} times", marker.marker));
            continue;
        }
        variables(&mut run, marker, wanted, passages);
        beside::values(&mut run, marker, passages);
        beside::goroutines(&mut run, marker, &seen.goroutines[&marker.marker]);
    }
    if let Some(dlv) = delve::found().filter(|_| mode == Mode::Default) {
        run.delve = Some(delve::run(&dlv, &fixture, truth, &markers, &run.outcomes));
    }
    if std::env::var_os("RIPTRACE_TRUTH_SHOW").is_some() {
        for (name, outcome) in &run.outcomes {
            if *outcome != Outcome::Exact {
                eprintln!("{version} {mode} {name}: {outcome:?}");
            }
        }
    }
    run
}

/// Compares the passages of one marker: a variable is as good as its worst passage.
fn variables(run: &mut Run, marker: &Marker, wanted: &[BTreeMap<String, Json>], passages: &[Vec<Value>]) {
    let mut worst: BTreeMap<String, Outcome> = BTreeMap::new();
    for (number, (truth, values)) in wanted.iter().zip(passages).enumerate() {
        let at = |name: &str| format!("{} {} {}[{number}].{name}", run.version, run.mode, marker.marker);
        for (name, truth) in truth {
            let outcome = match values.iter().find(|value| value.name == *name) {
                None => Outcome::Withheld("not mentioned".to_owned()),
                Some(value) => {
                    let mut compared = Compared::new(marker.cap);
                    compare::variable(value, truth, &mut compared);
                    run.wrong.extend(compared.wrong.iter().map(|wrong| format!("{}: {wrong}", at(name))));
                    run.odd.extend(compared.unchecked.iter().map(|what| format!("{}: {what}", at(name))));
                    compared.outcome(value)
                }
            };
            let entry = worst.entry(name.clone()).or_insert_with(|| outcome.clone());
            if outcome.rank() > entry.rank() {
                *entry = outcome;
            }
        }
        for value in values {
            if !marker.names.contains(&value.name) && value.status.is_shown() {
                run.wrong.push(format!("{}: {} is shown, and is not in scope", at(&value.name), value.value));
            }
        }
    }
    for (name, outcome) in worst {
        run.outcomes.push((format!("{}.{name}", marker.marker), outcome));
    }
}

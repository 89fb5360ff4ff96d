//! The oracle: the corpus that prints what it knows, run once, by the newest Go. The corpus always does the same, so what
//! is true of one build is true of all.

use crate::support::{LATER, SOON, fixture::Fixture, process::Program, process::command};
use riptrace::provision::{BuildFlags, GoVersion};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// A marked line.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Marker {
    pub(crate) marker: String,
    pub(crate) file: String,
    pub(crate) line: u32,
    /// Variables in scope.
    pub(crate) names: BTreeSet<String>,
    /// Go version that its file needs; empty for all.
    pub(crate) since: String,
    /// Whether capacities are the same in every build.
    pub(crate) cap: bool,
    /// Text of its file.
    #[serde(skip)]
    pub(crate) source: String,
}

/// What is true.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) markers: Vec<Marker>,
    /// The values of each passage, by marker, in the order of time.
    pub(crate) passages: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    /// What each topic computes.
    pub(crate) sums: BTreeMap<String, i64>,
}

/// Makes the oracle and runs it.
#[track_caller]
pub(crate) fn ask() -> Truth {
    let instrument = Fixture::go("truth", "./instrument");
    // Its sources stay where they are from run to run: the cache of fixtures knows them by their path.
    let sources: PathBuf = instrument.program.with_file_name("oracle");
    let output = Command::new(&instrument.program).arg(&instrument.source).arg(&sources).output();
    let output = output.expect("instrument runs");
    assert!(output.status.success(), "instrument: {}", String::from_utf8_lossy(&output.stderr));
    let mut markers: Vec<Marker> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("instrument: {error}: {line}")))
        .collect();
    for marker in &mut markers {
        marker.source = std::fs::read_to_string(instrument.source.join(&marker.file)).expect("a source");
    }
    let fixture = Fixture::go_in(&sources, ".", GoVersion::newest(), &BuildFlags::default());
    let mut program = Program::spawn("oracle", command(&fixture.program));
    program.json_of("ready", SOON);
    program.write_line("go");
    let mut passages: BTreeMap<String, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    loop {
        let line = program.json(LATER);
        match line["type"].as_str() {
            Some("truth") => {
                let marker = line["marker"].as_str().expect("a marker").to_owned();
                let values = serde_json::from_value(line["values"].clone()).expect("values");
                passages.entry(marker).or_default().push(values);
            }
            Some("done") => {
                let sums = serde_json::from_value(line["sums"].clone()).expect("sums");
                for marker in &markers {
                    assert!(passages.contains_key(&marker.marker), "no passage of {marker:?}");
                }
                return Truth { markers, passages, sums };
            }
            other => panic!("the oracle says {other:?}"),
        }
    }
}

impl Marker {
    /// Whether a Go version, such as `1.22.10`, compiles its file.
    pub(crate) fn is_in(&self, version: GoVersion) -> bool {
        let minor = |text: &str| text.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        self.since.is_empty() || minor(version.as_str()) >= minor(&self.since)
    }
}

//! A target that checks everything it computes, traced on lines that all its goroutines pass.

use crate::shop::{interrupt, nothing_is_traced};
use crate::support::{LATER, SOON, eventually, fixture::Fixture, fleet::Fleet, process::Program};
use serde_json::Value;
use std::fs;
use std::time::Duration;

pub(crate) struct Target {
    pub(crate) program: Program,
    pub(crate) fixture: Fixture,
}

/// A fleet of one host, on which the target waits for commands.
pub(crate) fn fleet_with_target() -> (Fleet, Target) {
    let fleet = Fleet::start(&["h"]);
    let target = start_target(&fleet);
    (fleet, target)
}

pub(crate) fn start_target(fleet: &Fleet) -> Target {
    let fixture = Fixture::go("torture", ".");
    let mut program = fleet.spawn_on("h", &fixture.program, &[]);
    program.json_of("ready", SOON);
    let pid = program.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    Target { program, fixture }
}

impl Target {
    pub(crate) fn command(&mut self, line: &str) -> Value {
        self.program.write_line(line);
        let kind = line.split(' ').next().unwrap().to_owned();
        self.program.json_where(LATER, |answer| answer["type"] == kind || answer["type"] == "error")
    }

    pub(crate) fn spot(&self, marker: &str) -> String {
        self.fixture.spot(marker).location()
    }

    /// Its text is as in its file, and nobody traces it.
    pub(crate) fn assert_untouched(&self) {
        self.becomes_untouched(SOON);
    }

    /// The same, within a time.
    pub(crate) fn becomes_untouched(&self, within: Duration) {
        let pid = self.program.pid();
        eventually("nobody traces the target, and its text is its file's", within, || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
            (status.contains("TracerPid:\t0") && self.has_its_own_text()).then_some(())
        });
    }

    fn has_its_own_text(&self) -> bool {
        let pid = self.program.pid();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
        let program = fs::read(&self.fixture.program).expect("its file");
        let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
        let (mut compared, mut same) = (0, true);
        for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains("torture")) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (lo, hi) = fields[0].split_once('-').unwrap();
            let (lo, hi) = (u64::from_str_radix(lo, 16).unwrap(), u64::from_str_radix(hi, 16).unwrap());
            let offset = usize::from_str_radix(fields[2], 16).unwrap();
            let mut text = vec![0; (hi - lo) as usize];
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut text, lo).expect("its text");
            let end = (offset + text.len()).min(program.len());
            same &= text[..end - offset] == program[offset..end];
            compared += 1;
        }
        assert_eq!(compared, 1, "one piece of text in:\n{maps}");
        same
    }
}

pub(crate) fn sum(lines: &[Value], kind: &str, field: &str) -> u64 {
    lines.iter().filter(|line| line["type"] == kind).map(|line| line[field].as_u64().unwrap_or(1)).sum()
}

#[test]
fn fifty_goroutines_compute_the_same_while_three_lines_are_hit_ten_thousand_times() {
    let (fleet, mut target) = fleet_with_target();
    let spots = ["leaf", "loop", "locals"].map(|marker| target.spot(marker));
    let arguments: Vec<&str> = spots.iter().map(String::as_str).chain(["--rate", "none"]).collect();
    let trace = fleet.trace(&arguments, 3);
    let before = target.command("stats");
    let after = target.command("run 10000 leaf loop locals");
    assert!(after["checks"].as_u64() > before["checks"].as_u64());
    for marker in ["leaf", "loop", "locals"] {
        assert_eq!(after["passages"][marker], 10_000, "{marker}");
    }
    let lines = interrupt(trace);
    let summary = lines.last().unwrap();
    let (hits, dropped) = (summary["hits"].as_u64().unwrap(), summary["dropped"].as_u64().unwrap());
    assert_eq!(hits + dropped, 30_000, "{summary}");
    assert_eq!(sum(&lines, "drop", "count"), dropped);
    assert!(hits > 0);
    nothing_is_traced(&fleet);
    target.assert_untouched();
    // It goes on as ever.
    assert_eq!(target.command("run 100")["error"], Value::Null);
    target.program.write_line("exit");
    target.program.wait_for_code(0, SOON);
}

#[test]
fn the_default_budget_drops_by_rate_and_counts_what_it_drops() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.spot("leaf");
    let trace = fleet.trace(&[&spot], 1);
    target.command("run 20000 leaf");
    let lines = interrupt(trace);
    let summary = lines.last().unwrap();
    assert_eq!(summary["hits"].as_u64().unwrap() + summary["dropped"].as_u64().unwrap(), 20_000, "{summary}");
    let by_rate: u64 = lines
        .iter()
        .filter(|line| line["type"] == "drop" && line["reason"] == "rate")
        .map(|line| line["count"].as_u64().unwrap())
        .sum();
    assert!(by_rate > 0, "20,000 passages are over 1,000 a second: {summary}");
    target.assert_untouched();
}

#[test]
fn every_odd_behaviour_of_a_target_survives_tracing() {
    let (fleet, mut target) = fleet_with_target();
    // Stack growth, new threads, new goroutines, nil dereferences and panics that are recovered from.
    let markers = ["recurse", "spawn", "nil", "panic", "thread", "counted"];
    let spots = markers.map(|marker| target.spot(marker));
    let arguments: Vec<&str> = spots.iter().map(String::as_str).chain(["--rate", "none"]).collect();
    let mut trace = fleet.trace(&arguments, markers.len());
    let after = target.command("run 1000");
    assert_eq!(after["error"], Value::Null);
    assert_eq!(target.command("fork")["error"], Value::Null);
    let passed: u64 = markers.iter().map(|&marker| after["passages"][marker].as_u64().unwrap()).sum();

    // It becomes another program: the probes are gone with the old one, and the new one is found and armed.
    target.program.write_line("exec");
    let ready = target.program.json_of("ready", SOON);
    assert_eq!(ready["generation"], 1);
    let mut lines = trace.json_so_far();
    // Without a budget a burst may be larger than the rings: then it is counted.
    let told = |lines: &[Value]| sum(lines, "hit", "none") + sum(lines, "drop", "count");
    while told(&lines) < passed {
        lines.push(trace.json_where(SOON, |line| line["type"] == "hit" || line["type"] == "drop"));
    }
    let mut unseen = 0;
    eventually("the new program is armed", SOON, || {
        unseen += 1;
        target.command("run 1 counted");
        lines.extend(trace.json_so_far());
        (told(&lines) > passed).then_some(())
    });
    let again = target.command("run 10 counted")["passages"]["counted"].as_u64().unwrap();

    lines.extend(interrupt(trace));
    let summary = lines.last().unwrap();
    let counted = summary["hits"].as_u64().unwrap() + summary["dropped"].as_u64().unwrap();
    // All but those before it was armed again.
    assert!(counted > passed + 10 && counted <= passed + again && again == unseen + 10, "{summary}, {again} passages");
    target.program.write_line("exit");
    target.program.wait_for_code(0, SOON);
}

#[test]
fn a_target_may_end_while_it_is_traced() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.spot("counted");
    let mut trace = fleet.trace(&[&spot], 1);
    target.command("run 10 counted");
    target.program.write_line("exit");
    target.program.wait_for_code(0, SOON);
    let gone = trace.json_where(SOON, |line| line["type"] == "status" && line["state"] == "off");
    assert!(gone["reason"].as_str().is_some_and(|why| !why.is_empty()), "{gone}");
    let lines = interrupt(trace);
    assert_eq!(lines.last().unwrap()["hits"], 10);
}

#[test]
fn a_counter_counts_the_passages_whose_condition_holds() {
    let (fleet, mut target) = fleet_with_target();
    let spot = target.spot("loop");
    let trace = fleet.trace(&[&spot, "--mode", "count", "--when", "i == 3"], 1);
    assert_eq!(target.command("run 100 loop")["passages"]["loop"], 100);
    // A job passes the line ten times, with i from 0 to 9.
    let lines = interrupt(trace);
    let counted = lines.iter().find(|line| line["type"] == "count").expect("a count");
    assert_eq!(counted["count"], 10, "{counted}");
    assert_eq!(sum(&lines, "hit", "none"), 0);
    target.assert_untouched();
}

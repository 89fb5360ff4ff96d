//! A native program takes every signal for its own while it is traced from the inside, as it may at any time: it installs
//! handlers of its own, blocks the signals in its threads, forbids itself system calls. What is captured leads nowhere half
//! of the time. It must not notice anything, and every passage is a hit or a counted drop.
//!
//! All of it in `Mechanisms::Auto`, the agent's default; the agent dies in between.

use crate::console::{Console, HOST};
use crate::support::{
    fixture::{Fixture, folder_of},
    fleet::FleetOptions,
};
use crate::target::Target;
use riptrace_protocol::fleet::Mechanism;
use serde_json::{Value, json};

/// What is armed at each line: plain, with a condition that follows pointers, with much behind pointers, counting.
fn kinds(marker: &str) -> Vec<Value> {
    let mut kinds = vec![
        json!({"limits": {"rate_per_s": null, "depth": 4, "elements": 8, "bytes_per_hit": 2048}}),
        json!({"mode": "count", "limits": {"rate_per_s": null}}),
    ];
    if marker == "pointer" {
        kinds.push(json!({"condition": "item.next.count != 5 || item.count == 3", "limits": {"rate_per_s": 1000}}));
    }
    kinds
}

/// Traces all lines in all ways over a while in which each is passed, and checks the counts. Says by which mechanisms.
#[track_caller]
fn traced(console: &mut Console, target: &mut Target) -> Vec<(String, Mechanism)> {
    let process = target.process(console);
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let before = target.pause();
    let mut armed = Vec::new();
    let mut mechanisms = Vec::new();
    for name in &names {
        for what in kinds(name) {
            let (id, mechanism) = console.arm(&target.location(name), &what, process);
            mechanisms.push(((*name).to_owned(), mechanism));
            armed.push((id, *name, what));
        }
    }
    target.resume();
    target.goes_on(&names);
    let after = target.pause();
    for (id, name, what) in armed {
        let probe = console.remove(&id);
        let passed = after[name] - before[name];
        // A passage whose condition is false is none.
        match what.get("condition") {
            Some(_) => assert!(probe.passages <= passed, "{name}: {probe:?} of {passed}"),
            None => assert_eq!(probe.passages, passed, "{name}: counted by the agent, by the target; {probe:?}"),
        }
        let tally = console.settled(&id, &what, &probe);
        let hits = if what["mode"] == "count" { probe.hits } else { tally.hits };
        assert!(what.get("condition").is_some() || hits > 0, "{name}: {tally:?} of {passed}");
    }
    target.resume();
    target.goes_on(&names);
    mechanisms
}

/// The agent dies while everything is armed; the next one finds the process as it left it.
#[track_caller]
fn agent_dies(console: &mut Console, target: &mut Target) {
    let process = target.process(console);
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    for name in &names {
        console.arm(&target.location(name), &json!({"limits": {"rate_per_s": null}}), process);
    }
    console.fleet.agent(HOST).kill();
    target.goes_on(&names);
    target.assert_untraced();
    console.fleet.start_agent(HOST);
    console.until_served();
}

#[track_caller]
fn quiet(flags: &[&str]) {
    assert!(folder_of("quiet_native").is_dir());
    let fixture = Fixture::c("quiet_native", flags);
    let mut options = FleetOptions::hosts(&[HOST]);
    options.agent_args.extend(["--mechanism", "auto"].map(str::to_owned));
    let mut console = Console::start_with(options);
    let mut target = Target::start(&console, &fixture, &[]);
    let mechanisms = traced(&mut console, &mut target);
    eprintln!("C {flags:?}: {mechanisms:?}");
    assert!(mechanisms.iter().all(|(_, mechanism)| *mechanism == Mechanism::Jump), "{mechanisms:?}");
    for command in ["takes", "blocks"] {
        target.ask(command);
        traced(&mut console, &mut target);
    }
    agent_dies(&mut console, &mut target);
    traced(&mut console, &mut target);
    target.pause();
    target.assert_clean();
    target.resume();
    // What is armed stays armed and right when the program takes system calls from itself; the next agent injects nothing.
    let process = target.process(&mut console);
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let before = target.pause();
    let what = &kinds("")[0];
    let armed: Vec<(String, &str)> =
        names.iter().map(|name| (console.arm(&target.location(name), what, process).0, *name)).collect();
    target.resume();
    target.ask("filters");
    target.goes_on(&names);
    let after = target.pause();
    for (id, name) in armed {
        let probe = console.remove(&id);
        assert_eq!(probe.passages, after[name] - before[name], "{name}: {probe:?}");
        console.settled(&id, what, &probe);
    }
    target.resume();
    target.goes_on(&names);
    target.exit();
}

#[test]
fn a_c_program_that_takes_all_signals_notices_nothing() {
    quiet(&["-g", "-O2"]);
}

#[test]
fn nor_does_one_at_fixed_addresses_without_frame_pointers() {
    quiet(&["-g", "-O2", "-no-pie", "-fomit-frame-pointer", "-fcf-protection=full"]);
}

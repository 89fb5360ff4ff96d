//! The truth corpus of C, C++ and Rust: programs that say their own values, built without and with optimisation, traced
//! outside and inside. A value that is shown as exact and is not what the program says fails the test; without
//! optimisation each one is shown.

use super::{Run, Seen, compile, sources, trace};
use crate::engine::Mechanisms;
use riptrace_protocol::decode;
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::tracepoint::CaptureLimits;
use riptrace_protocol::value::{Status, Value};
use std::path::PathBuf;

/// How often values of a program were shown as they are, not shown, and shown wrongly.
#[derive(Debug, Default)]
struct Tally {
    exact: usize,
    withheld: Vec<String>,
    wrong: Vec<String>,
}

/// The value at a path of names, and whether all around it is exact as well.
fn look<'v>(values: &'v [Value], path: &str) -> Option<&'v Value> {
    let named = |name: &str| values.iter().find(|value| value.name == name);
    if let Some(value) = named(path) {
        return Some(value);
    }
    // Names may have dots of their own.
    path.match_indices('.').find_map(|(dot, _)| look(&named(&path[..dot])?.children, &path[dot + 1..]))
}

fn check(run: &Run) -> Tally {
    let mut tally = Tally::default();
    let mut told = 0;
    for line in &run.said {
        let [mark, path, truth] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else { continue };
        told += 1;
        let seen = run.seen.get(mark).unwrap_or_else(|| panic!("no hit of {mark}"));
        // A line may have several addresses, which the program passes one after the other.
        let mut best: Option<Value> = None;
        for seen in seen {
            let values = values(run, seen);
            let Some(value) = look(&values, path) else { continue };
            if value.status == Status::Exact && value.value != truth {
                tally.wrong.push(format!("{path}: {}, and it is {truth}", value.value));
            }
            if best.as_ref().is_none_or(|best| best.status != Status::Exact) {
                best = Some(value.clone());
            }
        }
        match best {
            Some(value) if value.status == Status::Exact => tally.exact += usize::from(value.value == truth),
            Some(value) => tally.withheld.push(format!("{path}{}", value.status.note())),
            None => tally.withheld.push(format!("{path} is not there")),
        }
    }
    assert!(told > 0 && run.said.last().map(String::as_str) == Some("exited 0"), "{:?}", run.said);
    tally
}

/// The variables of a hit.
fn values(run: &Run, seen: &Seen) -> Vec<Value> {
    let captured = &seen.hit.captured;
    let raw = RawHit {
        number: 0,
        tracepoint: seen.hit.tracepoint.clone(),
        process: seen.hit.process,
        layout: seen.hit.layout,
        time_ns: seen.hit.time_ns,
        thread: seen.hit.thread,
        goroutine: captured.goroutine,
        roots: captured.roots.clone(),
        root_states: captured.root_states.clone(),
        chunks: captured.chunks.clone(),
        stack: captured.stack.clone(),
        stack_end: captured.stack_end,
        duration_ns: None,
    };
    decode::values(&run.layouts[&seen.hit.layout], &raw)
}

/// Builds a program of one source, and `others`, and traces it in all ways; the compiler gets the flags of one way.
fn all_ways(source: &str, others: &[&str], compiler: &str, ways: [&[&str]; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let path = sources().join(source);
    for (way, flags) in ways.into_iter().enumerate() {
        let others: Vec<PathBuf> = others.iter().map(|other| sources().join(other)).collect();
        let mut all = [flags, &["-g", path.to_str().unwrap(), "-o", "values"]].concat();
        all.extend(others.iter().map(|other| other.to_str().unwrap()));
        compile(folder.path(), compiler, &all);
        for mechanisms in [Mechanisms::Ptrace, Mechanisms::Auto] {
            // Deep enough for what is said, and wide enough for all of it.
            let limits =
                CaptureLimits { depth: 4, elements: 128, bytes_per_hit: 48 * 1024, ..CaptureLimits::default() };
            let tally = check(&trace(&folder.path().join("values"), source, mechanisms, limits));
            let all = tally.exact + tally.withheld.len() + tally.wrong.len();
            eprintln!("{source} {flags:?} {mechanisms:?}: {} of {all} exact; not: {:#?}", tally.exact, tally.withheld);
            assert!(tally.wrong.is_empty(), "{source} {flags:?} {mechanisms:?}: {:#?}", tally.wrong);
            if way == 0 {
                assert!(tally.withheld.is_empty(), "{source} {flags:?} {mechanisms:?}: {:#?}", tally.withheld);
            }
        }
    }
}

#[test]
fn c_values_are_what_the_program_says() {
    all_ways("values.c", &[], "cc", [&["-O0"], &["-O2"]]);
}

#[test]
fn cpp_values_are_what_the_program_says() {
    let ways: [&[&str]; 2] = [&["-O0", "-std=c++17"], &["-O2", "-std=c++17"]];
    all_ways("values.cc", &["hidden.cc"], "c++", ways);
}

#[test]
fn rust_values_are_what_the_program_says() {
    all_ways("values.rs", &[], "rustc", [&["--edition=2024", "-Copt-level=0"], &["--edition=2024", "-Copt-level=2"]]);
}

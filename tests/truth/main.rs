//! The truth corpus: Go programs that are traced by the real engine, and whose values are known. What is shown as exact
//! must be right; what is not shown says why.
//!
//! The corpus is `tests/fixtures/truth`; its second program, made by its `instrument`, prints the truth. It is built by
//! every Go version that RipTrace knows, optimised, not optimised, position-independent and with trimmed paths.
//!
//! In CI it is the newest Go, optimised and not. All of it, with `RIPTRACE_TRUTH=all`; with `UPDATE=1` besides, the table
//! of results, `RESULTS.md`, is written anew. `RIPTRACE_TRUTH=1.24` is one version in all modes. With
//! `RIPTRACE_TRUTH_SHOW=1` every variable that is not shown is listed with its reason. Where `dlv` is on PATH, default builds
//! are looked at with Delve as well.
//!
//! Not here: what the editor or the command line make of a value; how fast any of it is.
#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod compare;
mod delve;
mod oracle;
mod report;
mod run;
mod trace;

use report::{Mode, Run};
use riptrace::provision::GoVersion;

/// Which versions and modes are asked for.
fn wanted() -> Vec<(GoVersion, Mode)> {
    let every = |versions: Vec<GoVersion>| {
        versions.into_iter().flat_map(|version| Mode::ALL.map(|mode| (version, mode))).collect::<Vec<_>>()
    };
    match std::env::var("RIPTRACE_TRUTH").as_deref() {
        Err(_) => vec![(GoVersion::newest(), Mode::Default), (GoVersion::newest(), Mode::Unoptimised)],
        Ok("all") => every(GoVersion::all().collect()),
        Ok(version) => every(vec![version.parse().unwrap_or_else(|error| panic!("RIPTRACE_TRUTH: {error}"))]),
    }
}

#[test]
fn no_value_that_is_shown_as_exact_is_wrong() {
    let truth = oracle::ask();
    let runs: Vec<Run> = wanted().into_iter().map(|(version, mode)| run::one(&truth, version, mode)).collect();
    let table = report::table(&runs);
    eprintln!("{table}");
    let wrong: Vec<&String> = runs.iter().flat_map(|run| &run.wrong).collect();
    assert!(wrong.is_empty(), "{} values are wrong:\n{wrong:#?}", wrong.len());
    for run in &runs {
        assert!(run.odd.is_empty(), "{} {}: {:#?}", run.version, run.mode, run.odd);
        let is_optimised = run.mode != Mode::Unoptimised;
        assert!(is_optimised || run.astray.is_empty(), "{}: {:#?}", run.version, run.astray);
        let (least, exact) = if is_optimised { (45, run.exact()) } else { (95, run.exact()) };
        let share = exact * 100 / run.variables();
        assert!(share >= least, "{} {}: {share} % is shown, and {least} % was", run.version, run.mode);
        if let Some(peer) = &run.delve {
            eprintln!("{} {}, wrong in Delve: {:#?}", run.version, run.mode, peer.examples);
            eprintln!("{} {}, shown by Delve alone: {:#?}", run.version, run.mode, peer.ahead);
            assert!(peer.lines > 100, "{}: Delve was compared at {} lines", run.version, peer.lines);
        }
    }
    if std::env::var("RIPTRACE_TRUTH").as_deref() == Ok("all") && std::env::var_os("UPDATE").is_some() {
        report::keep(&table, &report::delve_table(&runs));
    }
}

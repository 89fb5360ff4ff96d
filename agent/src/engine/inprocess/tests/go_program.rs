//! A Go program that checks its own results in fifty goroutines, while garbage is collected, goroutines are preempted and
//! stacks grow.

use super::support::{Tracing, eventually, id};
use crate::engine::analysis::{Rel32, SiteChoice};
use crate::engine::ptrace::tests::go_program::{MARKERS, Torture};
use crate::engine::{ArmOutcome, EngineEvent, Probe, ProcessRuntime, SitePatch};
use riptrace_protocol::fleet::Mechanism;
use serde_json::Value;

fn attach(torture: &Torture) -> Tracing {
    let bias = torture.bias();
    let go = torture.build.go_runtime(bias);
    assert!(go.is_some(), "the build tells where its goroutines are");
    Tracing::go(&torture.target, ProcessRuntime { is_go: true, go, is_gnu: false }, bias)
}

fn arm(torture: &Torture, tracing: &Tracing, marker: &str) -> ArmOutcome {
    let sites = torture.programs(marker).into_iter().map(|(at, program)| tracing.site(at, &program)).collect();
    let probe = Probe { tracepoint: id(marker), sites, rate_per_s: None };
    tracing.engine.arm(probe).unwrap_or_else(|error| panic!("{marker}: {error}"))
}

#[test]
fn fifty_goroutines_pass_every_line_and_every_passage_is_counted() {
    let mut torture = Torture::start(&[]);
    let mut tracing = attach(&torture);
    let mechanisms: Vec<Mechanism> = MARKERS.iter().map(|marker| arm(&torture, &tracing, marker).mechanism).collect();
    assert!(mechanisms.contains(&Mechanism::Jump), "{mechanisms:?}");
    let said = torture.ask("run 2000");
    assert_eq!(said["type"], "run");
    for marker in MARKERS {
        let counts = tracing.counts(marker);
        assert_eq!(said["passages"][marker], counts.passages, "{marker}");
        assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{marker}: {counts:?}");
    }
    let hits = tracing.hits();
    assert!(hits.iter().all(|hit| hit.captured.goroutine.is_some()), "every hit of Go code has its goroutine");
    assert!(hits.iter().all(|hit| hit.thread != 0), "and its thread");
    tracing.engine.detach();
    torture.target.assert_text_is_the_files();
    assert_eq!(torture.ask("run 200")["type"], "run");
    torture.ask("exit");
    torture.target.exits_with(0);
}

/// As of a program that is stripped: where its goroutines are is not known, so that none can be looked at.
#[test]
fn what_needs_a_look_at_goroutines_that_are_not_found_is_a_trap() {
    let mut torture = Torture::start(&[]);
    let tracing = Tracing::go(&torture.target, ProcessRuntime { is_go: true, go: None, is_gnu: false }, torture.bias());
    let mut trapped = 0;
    for marker in MARKERS {
        let mut needs_look = false;
        let site = |(at, program)| {
            let mut site = tracing.site(at, &program);
            if let Ok(SitePatch { choice: SiteChoice::Jump { patch, .. }, .. }) = &mut site.patch
                && !patch.single_instruction
            {
                // No pad is so far away: it cannot be written in a way in which all of its inside are traps.
                patch.rel32 = Rel32 { mask: u32::MAX, value: 0x7fff_ffff };
                needs_look = true;
            }
            site
        };
        let sites = torture.programs(marker).into_iter().map(site).collect();
        let outcome = tracing.engine.arm(Probe { tracepoint: id(marker), sites, rate_per_s: None }).unwrap();
        if needs_look {
            assert_eq!(outcome.mechanism, Mechanism::Trap, "{marker}");
            trapped += 1;
        }
    }
    assert!(trapped > 2, "{trapped} of the lines are jumps over several instructions");
    let said = torture.ask("run 300");
    for marker in MARKERS {
        assert_eq!(said["passages"][marker], tracing.counts(marker).passages, "{marker}");
    }
    tracing.engine.detach();
    torture.target.assert_text_is_the_files();
}

#[test]
fn a_go_program_may_be_let_go_at_any_moment() {
    let torture = Torture::start(&["-forever", "-pause", "1ms"]);
    for round in 0..20 {
        let tracing = attach(&torture);
        MARKERS.iter().for_each(|marker| drop(arm(&torture, &tracing, marker)));
        let marker = MARKERS[round % (MARKERS.len() - 1)];
        eventually("a passage", || (tracing.counts(marker).passages > 0).then_some(()));
    }
    torture.target.assert_text_is_the_files();
    torture.target.signal(libc::SIGUSR1);
    assert_eq!(torture.answer()["type"], "stats");
    torture.target.signal(libc::SIGTERM);
    torture.answer();
    torture.target.exits_with(0);
}

#[test]
fn a_storm_of_preemptions_is_passed_on() {
    let mut torture = Torture::start(&[]);
    let tracing = attach(&torture);
    MARKERS.iter().for_each(|marker| drop(arm(&torture, &tracing, marker)));
    torture.target.send("run 1000");
    let said = loop {
        torture.target.signal(libc::SIGURG);
        if let Some(line) = torture.target.said() {
            break serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    for marker in MARKERS {
        assert_eq!(said["passages"][marker], tracing.counts(marker).passages, "{marker}");
    }
}

#[test]
fn children_and_successors_of_a_go_program_are_not_hurt() {
    let mut torture = Torture::start(&[]);
    let tracing = attach(&torture);
    MARKERS.iter().for_each(|marker| drop(arm(&torture, &tracing, marker)));
    for _ in 0..20 {
        assert_eq!(torture.ask("fork")["type"], "fork");
    }
    assert_eq!(torture.ask("run 100")["type"], "run");
    let said = torture.ask("exec");
    assert_eq!((&said["type"], said["generation"].as_u64()), (&Value::from("ready"), Some(1)));
    assert_eq!(tracing.event(), EngineEvent::Execed);
    assert_eq!(torture.ask("run 100")["type"], "run");
}

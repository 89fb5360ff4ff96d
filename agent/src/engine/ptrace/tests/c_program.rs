//! Threads, signals, forks, executions and exits of a C program, with exact counts.

use super::support::{SOON, Target, Tracing, captures_rdi, eventually, id, probe, rdi};
use crate::engine::EngineEvent;
use crate::target;
use riptrace_protocol::ids::Avma;
use std::sync::Arc;
use std::time::Instant;

/// Every label of the program, and how often one round of its functions passes it.
const LABELS: [(&str, u64); 15] = [
    ("site_push", 1),
    ("site_rip", 1),
    ("site_jcc", 1),
    ("site_call", 1),
    ("site_call_memory", 1),
    ("site_call_register", 1),
    ("site_ret", 1),
    ("site_jump", 1),
    ("site_loop", 5),
    ("site_copy", 1),
    ("site_red", 1),
    ("site_float", 1),
    ("site_fault", 2),
    ("site_jrcxz", 1),
    ("site_nop", 1),
];

fn arm_all(target: &Target, tracing: &Tracing) {
    for (label, _) in LABELS {
        tracing.arm(label, &[target.symbol(label)]);
    }
}

#[track_caller]
fn assert_counts(tracing: &Tracing, rounds: u64) {
    for (label, per_round) in LABELS {
        let counts = tracing.counts(label);
        assert_eq!(counts.passages, rounds * per_round, "{label}");
        assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{label}: {counts:?}");
    }
}

#[track_caller]
fn every_passage_is_counted(flag: &'static str) {
    let mut target = Target::c(flag);
    let maps = target.executable_maps();
    let mut tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("run 4 200", "ran");
    assert_counts(&tracing, 800);
    let hits = tracing.hits();
    assert!(hits.is_sorted_by_key(|hit| hit.time_ns), "one thread stamps them in order");
    let push: Vec<_> = hits.iter().filter(|hit| hit.tracepoint == id("site_push")).collect();
    assert_eq!(push.len(), 800);
    assert!((0..200).all(|n| push.iter().filter(|hit| rdi(&hit.captured) == n).count() == 4));
    assert!(push.iter().all(|hit| hit.captured.stack[0] == target.symbol("site_push")));
    tracing.engine.detach();
    target.assert_is_as_it_was(maps);
    target.ask("run 2 100", "ran");
    target.send("exit 0");
    target.exits_with(0);
}

#[test]
fn every_passage_of_every_kind_of_instruction_is_counted_and_harmless() {
    every_passage_is_counted("-no-pie");
}

#[test]
fn position_independent_code_is_as_good() {
    every_passage_is_counted("-pie");
}

#[test]
fn signals_arrive_once_each_and_never_in_a_slot() {
    let mut target = Target::c("-no-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("storm 5000", "stormed 12502500");
    tracing.engine.detach();
    target.ask("storm 1000", "stormed 500500");
}

#[test]
fn threads_that_come_and_go_are_followed() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("churn 200", "churned");
    assert_counts(&tracing, 200);
}

#[test]
fn a_forked_child_is_not_traced_and_not_hurt() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("fork", "forked 0");
    assert_counts(&tracing, 0);
    target.ask("run 1 1", "ran");
    assert_counts(&tracing, 1);
}

#[test]
fn a_child_in_the_same_memory_is_traced_until_it_runs_another_program() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    for _ in 0..20 {
        target.ask("vfork", "vforked 0");
    }
    assert_eq!(tracing.counts("site_push").passages, 20);
    assert_eq!(tracing.counts("site_nop").passages, 0);
}

#[test]
fn the_process_may_be_let_go_at_any_moment() {
    let mut target = Target::c("-pie");
    let maps = target.executable_maps();
    target.ask("background", "behind");
    for round in 0..200 {
        let tracing = Tracing::attach(&target);
        arm_all(&target, &tracing);
        let (label, _) = LABELS[round % LABELS.len()];
        eventually("a passage", || (tracing.counts(label).passages > 0).then_some(()));
        if round % 2 == 0 {
            tracing.engine.detach();
        }
    }
    target.assert_is_as_it_was(maps);
    target.ask("foreground", "in front");
    target.ask("run 1 1", "ran");
}

#[test]
fn probes_may_be_armed_and_removed_at_any_moment() {
    let mut target = Target::c("-no-pie");
    let maps = target.executable_maps();
    target.ask("background", "behind");
    let tracing = Tracing::attach(&target);
    for _ in 0..20 {
        for (label, _) in LABELS {
            tracing.arm(label, &[target.symbol(label)]);
        }
        for (label, _) in LABELS {
            tracing.engine.disarm(&id(label)).unwrap();
        }
    }
    target.assert_text_is_the_files();
    assert_eq!(tracing.engine.counts(), []);
    target.ask("foreground", "in front");
    tracing.engine.detach();
    target.assert_is_as_it_was(maps);
}

#[test]
fn one_address_serves_several_tracepoints_and_stays_until_the_last_is_removed() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    let at = target.symbol("site_push");
    tracing.arm("one", &[at]);
    tracing.arm("two", &[at, target.symbol("site_nop")]);
    target.ask("run 1 3", "ran");
    let counts = tracing.engine.disarm(&id("one")).unwrap();
    assert_eq!((counts.passages, counts.hits), (3, 3));
    target.ask("run 1 2", "ran");
    assert_eq!(tracing.engine.disarm(&id("two")).unwrap().passages, 10);
    assert_eq!(tracing.engine.disarm(&id("two")), None);
    target.assert_text_is_the_files();
}

#[test]
fn the_end_of_the_process_is_told_with_its_status() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.send("exit 7");
    assert_eq!(tracing.event(), EngineEvent::Exited { status: Some(7 << 8) });
    assert!(matches!(
        tracing.engine.arm(probe("late", &[Avma(0x1000)], &Arc::new(captures_rdi()))),
        Err(crate::engine::ArmError::Gone)
    ));
    target.exits_with(7);
}

#[test]
fn another_program_in_the_process_is_not_traced() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("background", "behind");
    target.send("exec");
    assert_eq!(tracing.event(), EngineEvent::Execed);
    let ready = format!("ready {}", target.pid());
    target.expect(&ready);
    target.assert_is_as_it_was(0);
    target.ask("run 2 10", "ran");
}

#[test]
fn a_process_killed_while_it_is_traced_is_told_of() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    arm_all(&target, &tracing);
    target.ask("background", "behind");
    eventually("a passage", || (tracing.counts("site_nop").passages > 0).then_some(()));
    target.signal(libc::SIGKILL);
    assert_eq!(tracing.event(), EngineEvent::Exited { status: Some(libc::SIGKILL) });
}

#[test]
fn a_stopped_process_stays_stopped_and_goes_on_when_it_is_told_to() {
    let mut target = Target::c("-pie");
    let maps = target.executable_maps();
    target.ask("background", "behind");
    let tracing = Tracing::attach(&target);
    tracing.arm("first", &[target.symbol("site_push")]);
    eventually("a passage", || (tracing.counts("first").passages > 0).then_some(()));
    // A thread at a site looks stopped, too, but not for long.
    let stand = |states: &str| {
        let mut seen = 0;
        eventually("all threads stand", || {
            let tasks = target::tasks(target.pid()).unwrap();
            let is_still = |tid| target::status(tid).is_ok_and(|status| states.contains(status.state));
            seen = if tasks.into_iter().all(is_still) { seen + 1 } else { 0 };
            (seen == 30).then_some(())
        });
    };
    for let_go_while_stopped in [false, true] {
        target.signal(libc::SIGSTOP);
        stand("tT");
        // Also a probe may come while it stands.
        tracing.arm("second", &[target.symbol("site_float")]);
        stand("tT");
        let before = tracing.counts("first").passages;
        assert_eq!(tracing.counts("second").passages, 0);
        assert_eq!(tracing.counts("first").passages, before, "nobody moves");
        if let_go_while_stopped {
            tracing.engine.detach();
            stand("T");
            target.assert_is_as_it_was(maps);
        }
        target.signal(libc::SIGCONT);
        if !let_go_while_stopped {
            eventually("a passage", || (tracing.counts("second").passages > 0).then_some(()));
            tracing.engine.disarm(&id("second")).unwrap();
        }
    }
    target.ask("foreground", "in front");
}

#[test]
fn a_wait_for_events_does_not_feel_the_engine() {
    let mut target = Target::c("-pie");
    target.ask("wait", "waiting");
    eventually("it waits", || {
        (super::super::remote::sleeps_in(target.pid() as i32)? == libc::SYS_epoll_wait).then_some(())
    });
    let tracing = Tracing::attach(&target);
    // The only thread there is must map the slots.
    arm_all(&target, &tracing);
    tracing.engine.detach();
    target.ask("run 1 1", "waited");
    target.expect("ran");
}

#[test]
fn what_a_passage_costs() {
    let mut target = Target::c("-no-pie");
    let tracing = Tracing::attach(&target);
    tracing.arm("one", &[target.symbol("site_loop")]);
    let start = Instant::now();
    target.ask("run 1 4000", "ran");
    let each = start.elapsed() / 20_000;
    assert_eq!(tracing.counts("one").passages, 20_000);
    eprintln!("a passage costs about {each:?}");
    assert!(each < SOON / 20_000);
}

//! Threads, signals, forks, executions and exits of a C program, with exact counts.

use super::support::{Target, Tracing, captures_rdi, eventually, id, rdi};
use crate::engine::analysis::{JumpPatch, Obstacle, Rel32, SiteChoice};
use crate::engine::area::ISLANDS_MAX;
use crate::engine::inprocess::sweep;
use crate::engine::x86_64::pads::island::PADS_LIMIT;
use crate::engine::{ArmError, EngineEvent, Probe, ProcessRuntime};
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::hit::DropReason;
use std::sync::Arc;

/// Every label of the program that can be traced, and how often one round of its functions passes it.
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

/// The same with a budget: threads that pass them all the time leave the reader something to do beside.
fn arm_all_with_a_budget(target: &Target, tracing: &Tracing) {
    for (label, _) in LABELS {
        let armed = tracing.arm_with(label, &[target.symbol(label)], &Arc::new(captures_rdi()), Some(500));
        armed.unwrap_or_else(|error| panic!("{label}: {error}"));
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
    let mut tracing = Tracing::c(&target);
    let mechanisms: Vec<_> =
        LABELS.iter().map(|(label, _)| tracing.arm(label, &[target.symbol(label)]).mechanism).collect();
    assert!(mechanisms.contains(&Mechanism::Jump), "{mechanisms:?}");
    target.ask("run 4 200", "ran");
    assert_counts(&tracing, 800);
    let hits = tracing.hits();
    let push: Vec<_> = hits.iter().filter(|hit| hit.tracepoint == id("site_push")).collect();
    assert_eq!(push.len(), 800);
    assert!((0..200).all(|n| push.iter().filter(|hit| rdi(&hit.captured) == n).count() == 4));
    assert!(push.iter().all(|hit| hit.captured.stack[0] == target.symbol("site_push")));
    assert!(push.iter().all(|hit| hit.thread != 0), "every hit has its thread");
    tracing.engine.detach();
    target.assert_text_is_the_files();
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
fn after_a_long_silence_a_glance_wakes_the_reader() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    let mut rounds = 0;
    // It looks by itself from time to time: once may be such a time.
    let woken = (0..3).any(|_| {
        eventually("the reader rests", || tracing.engine.rests().then_some(()));
        assert!(!tracing.engine.glance(), "nothing has come");
        target.ask("run 1 1", "ran");
        rounds += 1;
        tracing.engine.glance()
    });
    assert!(woken);
    eventually("the reader is awake", || (!tracing.engine.rests()).then_some(()));
    assert_counts(&tracing, rounds);
}

#[test]
fn signals_arrive_once_each() {
    let mut target = Target::c("-no-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    target.ask("storm 5000", "stormed 12502500");
    tracing.engine.detach();
    target.ask("storm 1000", "stormed 500500");
}

#[test]
fn threads_that_come_and_go_are_counted() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    target.ask("churn 200", "churned");
    assert_counts(&tracing, 200);
}

#[test]
fn a_forked_child_is_not_traced_and_not_hurt() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    target.ask("fork", "forked 0");
    assert_counts(&tracing, 0);
    target.ask("run 1 1", "ran");
    assert_counts(&tracing, 1);
}

#[test]
fn a_child_in_the_same_memory_is_not_hurt() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    for _ in 0..20 {
        target.ask("vfork", "vforked 0");
    }
    assert_eq!(tracing.counts("site_push").passages, 20);
}

#[test]
fn the_process_may_be_let_go_at_any_moment() {
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    for round in 0..40 {
        let tracing = Tracing::c(&target);
        arm_all_with_a_budget(&target, &tracing);
        let (label, _) = LABELS[round % LABELS.len()];
        eventually("a passage", || (tracing.counts(label).passages > 0).then_some(()));
        if round % 2 == 0 {
            tracing.engine.detach();
        }
    }
    target.assert_text_is_the_files();
    target.ask("foreground", "in front");
    target.ask("run 1 1", "ran");
}

#[test]
fn probes_may_be_armed_and_removed_at_any_moment() {
    let mut target = Target::c("-no-pie");
    target.ask("background", "behind");
    let tracing = Tracing::c(&target);
    for _ in 0..10 {
        arm_all_with_a_budget(&target, &tracing);
        for (label, _) in LABELS {
            let counts = tracing.engine.disarm(&id(label)).unwrap();
            assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{label}: {counts:?}");
        }
    }
    target.assert_text_is_the_files();
    assert_eq!(tracing.engine.counts(), []);
    target.ask("foreground", "in front");
}

#[test]
fn tracepoints_may_be_armed_more_often_than_there_is_room() {
    /// Of an island: fewer than the places that are armed one after the other.
    const PADS: usize = 4;
    PADS_LIMIT.set(PADS);
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    let tracing = Tracing::c(&target);
    let steady = target.symbol("site_nop");
    tracing.arm("steady", &[steady]);
    for round in 0..ISLANDS_MAX * PADS * 2 / LABELS.len() {
        for (label, _) in LABELS {
            let armed = tracing.arm_with(label, &[target.symbol(label)], &Arc::new(captures_rdi()), Some(500));
            armed.unwrap_or_else(|error| panic!("round {round}: {label}: {error}"));
            let counts = tracing.engine.disarm(&id(label)).unwrap();
            assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{label}: {counts:?}");
        }
    }
    let before = tracing.counts("steady").passages;
    eventually("what was armed all the time still is", || (tracing.counts("steady").passages > before).then_some(()));
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("foreground", "in front");
    target.ask("run 2 10", "ran");
}

#[test]
fn a_program_that_locks_its_memory_does_not_have_all_of_the_engines_in_it() {
    let mut target = Target::c("-pie");
    target.ask("lock", "locked");
    let locked_kb = |target: &Target| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = locked_kb(&target);
    assert!(before > 0);
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    target.ask("run 2 10", "ran");
    assert_counts(&tracing, 20);
    // The stacks of two threads, which the program locks itself.
    assert!(locked_kb(&target) < before + (20 << 10), "{} of {before}", locked_kb(&target));
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("run 1 1", "ran");
}

#[test]
fn a_jump_that_leads_nowhere_becomes_a_trap() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    let mut site = tracing.site(target.symbol("site_push"), &Arc::new(captures_rdi()));
    let patch = site.patch.as_mut().unwrap();
    let jump = patch.choice.patch().unwrap().clone();
    // Into the program's own code.
    let jump = JumpPatch { rel32: Rel32 { mask: u32::MAX, value: 0x10 }, ..jump };
    let why = Obstacle::Neighbour { at: 0 };
    patch.choice = SiteChoice::PunnedJump { patch: jump, slow_entries: Vec::new(), why };
    let armed = tracing.engine.arm(Probe { tracepoint: id("nowhere"), sites: vec![site], rate_per_s: None }).unwrap();
    assert_eq!(armed.mechanism, Mechanism::Trap);
    assert!(armed.note.is_some(), "{armed:?}");
    target.ask("run 2 10", "ran");
    assert_eq!(tracing.counts("nowhere").passages, 20);
}

#[test]
fn one_address_serves_several_tracepoints_and_stays_until_the_last_is_removed() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    let at = target.symbol("site_push");
    tracing.arm("one", &[at]);
    tracing.arm("two", &[at, target.symbol("site_nop")]);
    let again = tracing.arm_with("two", &[at], &Arc::new(captures_rdi()), None);
    assert_eq!(again, Err(ArmError::Duplicate(id("two"))));
    target.ask("run 1 3", "ran");
    let counts = tracing.engine.disarm(&id("one")).unwrap();
    assert_eq!((counts.passages, counts.hits), (3, 3));
    target.ask("run 1 2", "ran");
    assert_eq!(tracing.engine.disarm(&id("two")).unwrap().passages, 10);
    assert_eq!(tracing.engine.disarm(&id("two")), None);
    target.assert_text_is_the_files();
}

#[test]
fn over_its_budget_a_passage_is_counted_and_nothing_else() {
    let mut target = Target::c("-pie");
    let mut tracing = Tracing::c(&target);
    tracing.arm_with("few", &[target.symbol("site_push")], &Arc::new(captures_rdi()), Some(10)).unwrap();
    target.ask("run 1 5000", "ran");
    let counts = tracing.counts("few");
    assert_eq!(counts.passages, 5000);
    assert!((10..1000).contains(&counts.hits), "{counts:?}");
    assert_eq!(counts.hits + counts.dropped[&DropReason::Rate], 5000);
    assert_eq!(tracing.hits().len() as u64, counts.hits);
}

#[test]
fn a_probe_over_its_share_is_thinned_or_switched_off_and_says_so() {
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    let runtime = ProcessRuntime { is_go: false, go: None, is_gnu: true };
    let tracing = Tracing::attach(&target, runtime, target.bias(), 1);
    tracing.arm("jump", &[target.symbol("site_push")]);
    tracing.arm("trap", &[target.symbol("site_ret")]);
    eventually("a probe is over its share", || {
        let said = tracing.engine.counts().into_iter().filter_map(|(_, counts)| counts.off.or(counts.note));
        said.into_iter().find(|said| said.contains("% of a CPU"))
    });
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("foreground", "in front");
}

#[test]
fn the_end_of_the_process_is_told_with_its_status_and_no_hit_is_lost() {
    let mut target = Target::c("-pie");
    let mut tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    let late = target.symbol("site_push");
    target.ask("run 2 100", "ran");
    target.send("exit 7");
    assert!(matches!(tracing.event(), EngineEvent::Exited { status: None | Some(0x700) }));
    assert_eq!(tracing.counts("site_push").hits, 200);
    assert_eq!(tracing.hits().iter().filter(|hit| hit.tracepoint == id("site_push")).count(), 200);
    let late = tracing.arm_with("late", &[late], &Arc::new(captures_rdi()), None);
    assert_eq!(late, Err(ArmError::Gone));
    target.exits_with(7);
}

#[test]
fn another_program_in_the_process_is_not_traced() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all_with_a_budget(&target, &tracing);
    target.ask("background", "behind");
    target.send("exec");
    assert_eq!(tracing.event(), EngineEvent::Execed);
    target.expect(&format!("ready {}", target.pid()));
    target.assert_text_is_the_files();
    target.ask("run 2 10", "ran");
}

#[test]
fn a_process_killed_while_it_is_traced_is_told_of() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::c(&target);
    arm_all(&target, &tracing);
    target.ask("background", "behind");
    eventually("a passage", || (tracing.counts("site_nop").passages > 0).then_some(()));
    target.signal(libc::SIGKILL);
    assert!(matches!(tracing.event(), EngineEvent::Exited { status: None | Some(libc::SIGKILL) }));
}

#[test]
fn a_stopped_process_stays_stopped_and_its_probes_can_be_changed() {
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    let tracing = Tracing::c(&target);
    let arm = |name: &str, at| tracing.arm_with(name, &[at], &Arc::new(captures_rdi()), Some(500)).unwrap();
    arm("first", target.symbol("site_push"));
    eventually("a passage", || (tracing.counts("first").passages > 0).then_some(()));
    target.signal(libc::SIGSTOP);
    arm("second", target.symbol("site_float"));
    assert_eq!(tracing.counts("second").passages, 0);
    target.signal(libc::SIGCONT);
    eventually("a passage", || (tracing.counts("second").passages > 0).then_some(()));
    tracing.engine.disarm(&id("second")).unwrap();
    target.ask("foreground", "in front");
}

#[test]
fn a_traced_process_has_nothing_to_sweep_and_neither_has_a_clean_one() {
    let mut target = Target::c("-pie");
    assert_eq!(sweep(target.key()).unwrap(), 0);
    let tracing = Tracing::c(&target);
    tracing.arm("one", &[target.symbol("site_push")]);
    assert_eq!(sweep(target.key()).unwrap(), 0, "its own agent lives");
    target.ask("run 1 3", "ran");
    assert_eq!(tracing.counts("one").passages, 3);
}

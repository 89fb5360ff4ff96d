//! Budgets, conditions and refusals on a live process.

use super::support::{Target, Tracing, captures_rdi, id, probe, rdi};
use crate::capture::program::{Comparison, Operand, Piece, Place, Program, Register, Test};
use crate::engine::ptrace::PtraceEngine as Engine;
use crate::engine::{ArmError, AttachError, Probe};
use crate::publish::sink::{HitQueue, QueueLimits};
use crate::target::{self, TargetError};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{Avma, ProcessKey};
use riptrace_protocol::tracepoint::HitCondition;
use std::sync::Arc;

fn rdi_below(limit: i128) -> Test {
    let piece = Piece { bytes: 8, place: Place::Register(Register(5)) };
    Test::Integer {
        comparison: Comparison::Less,
        left: Operand::Read { pieces: vec![piece], signed: false },
        right: Operand::Constant(limit),
    }
}

#[test]
fn conditions_decide_before_hit_conditions_and_both_before_the_budget() {
    let mut target = Target::c("-pie");
    let mut tracing = Tracing::attach(&target);
    let program = Program {
        condition: Some(rdi_below(50)),
        hit_condition: Some(HitCondition::Every { n: 10 }),
        ..captures_rdi()
    };
    tracing.engine.arm(probe("some", &[target.symbol("site_push")], &Arc::new(program))).unwrap();
    target.ask("run 1 100", "ran");
    let counts = tracing.counts("some");
    // Those for which the condition is false are not counted.
    assert_eq!((counts.passages, counts.hits), (50, 5));
    let values: Vec<u64> = tracing.hits().iter().map(|hit| rdi(&hit.captured)).collect();
    assert_eq!(values, [9, 19, 29, 39, 49]);
}

#[test]
fn what_is_over_the_budget_is_counted() {
    let mut target = Target::c("-pie");
    let mut tracing = Tracing::attach(&target);
    let sites = [target.symbol("site_push")];
    let budgeted = Probe { rate_per_s: Some(7), ..probe("few", &sites, &Arc::new(captures_rdi())) };
    tracing.engine.arm(budgeted).unwrap();
    target.ask("run 1 500", "ran");
    let counts = tracing.counts("few");
    assert_eq!(counts.passages, 500);
    assert!(counts.hits >= 7 && counts.hits < 500, "{counts:?}");
    assert_eq!(counts.dropped[&DropReason::Rate], 500 - counts.hits);
    assert_eq!(tracing.hits().len() as u64, counts.hits);
}

#[test]
fn a_counting_probe_leaves_no_hits_behind() {
    let mut target = Target::c("-pie");
    let mut tracing = Tracing::attach(&target);
    let program = Program { count_only: true, ..captures_rdi() };
    tracing.engine.arm(probe("count", &[target.symbol("site_push")], &Arc::new(program))).unwrap();
    target.ask("run 1 100", "ran");
    assert_eq!((tracing.counts("count").passages, tracing.counts("count").hits), (100, 100));
    assert!(tracing.hits().is_empty());
}

#[test]
fn a_condition_that_cannot_be_told_is_a_counted_drop() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    let nowhere = crate::capture::program::Address { base: None, offset: 8, derefs: vec![] };
    let piece = Piece { bytes: 8, place: Place::Memory(nowhere) };
    let condition = Some(Test::Bool(Operand::Read { pieces: vec![piece], signed: false }));
    let program = Program { condition, ..captures_rdi() };
    tracing.engine.arm(probe("unknown", &[target.symbol("site_push")], &Arc::new(program))).unwrap();
    target.ask("run 1 10", "ran");
    assert_eq!(tracing.counts("unknown").dropped[&DropReason::Condition], 10);
}

#[test]
fn a_probe_is_armed_wholly_or_not_at_all() {
    let mut target = Target::c("-pie");
    let tracing = Tracing::attach(&target);
    let good = target.symbol("site_push");
    let program = Arc::new(captures_rdi());
    let refusal = |sites: &[Avma]| tracing.engine.arm(probe("p", sites, &program)).unwrap_err();
    assert_eq!(refusal(&[]), ArmError::NoSites(id("p")));
    assert_eq!(refusal(&[good, Avma(0x10)]), ArmError::NoInstruction(Avma(0x10)));
    target.assert_text_is_the_files();
    tracing.arm("p", &[good]);
    assert_eq!(refusal(&[good]), ArmError::Duplicate(id("p")));
    target.ask("run 1 1", "ran");
}

#[test]
fn who_is_not_there_or_already_traced_is_refused() {
    let target = Target::c("-pie");
    let queue = HitQueue::new(QueueLimits::default());
    let attach = |key| Engine::attach(key, queue.sink(), Box::new(|_| {})).map(|_| ()).unwrap_err();
    let reused = ProcessKey { start_time: 1, ..target.key() };
    assert!(matches!(attach(reused), AttachError::Target(TargetError::Gone { .. })));
    let _tracing = Tracing::attach(&target);
    let error = attach(target.key());
    assert!(matches!(error, AttachError::Target(TargetError::ForeignTracer { .. })), "{error}");
    assert_ne!(target::status(target.pid()).unwrap().tracer, 0);
}

//! A native program traced so that nothing in it relies on a signal handler, and what becomes of a site that would.

use super::support::{Target, captures_rdi, id};
use crate::engine::analysis::BinaryCode;
use crate::engine::{
    ArmError, AttachOptions, Counts, Engine, Mechanisms, Probe, ProbeSite, ProcessRuntime, SITE_BYTES, SitePatch,
};
use crate::publish::sink::{HitQueue, QueueLimits};
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::ids::{Avma, LayoutId};
use std::path::Path;
use std::sync::Arc;

/// Labels of the program, and how often one round of its functions passes each.
const LABELS: [(&str, u64); 12] = [
    ("site_push", 1),
    ("site_rip", 1),
    ("site_jcc", 1),
    ("site_call", 1),
    ("site_call_memory", 1),
    ("site_call_register", 1),
    ("site_jump", 1),
    ("site_loop", 5),
    ("site_copy", 1),
    ("site_red", 1),
    ("site_float", 1),
    ("site_nop", 1),
];

struct Traced {
    engine: Engine,
    _queue: HitQueue,
    code: BinaryCode,
    bias: u64,
}

impl Traced {
    #[track_caller]
    fn attach(target: &Target) -> Traced {
        let queue = HitQueue::new(QueueLimits::default());
        let runtime = ProcessRuntime { is_go: false, go: None, is_gnu: true };
        let options = AttachOptions { mechanisms: Mechanisms::Auto, runtime, cpu_percent: 1_000 };
        let engine = Engine::attach(target.key(), queue.sink(), options, Box::new(|_| ()));
        let code = BinaryCode::open(Path::new(&format!("/proc/{}/exe", target.pid()))).unwrap();
        Traced { engine: engine.unwrap(), _queue: queue, code, bias: target.bias() }
    }

    fn probe(&self, target: &Target, label: &str, patch: impl FnOnce(SitePatch) -> Result<SitePatch, String>) -> Probe {
        let address = target.symbol(label).0 - self.bias;
        let function = self.code.function_at(address).unwrap();
        let bytes = self.code.bytes_at(address);
        let known = SitePatch {
            choice: self.code.analyse(&function).unwrap().site(address),
            original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
            is_go: false,
        };
        let (program, layout) = (Arc::new(captures_rdi()), LayoutId([0; 16]));
        let site = ProbeSite { address: Avma(address + self.bias), program, layout, patch: patch(known) };
        Probe { tracepoint: id(label), sites: vec![site], rate_per_s: None }
    }

    #[track_caller]
    fn disarmed(&self, label: &str) -> Counts {
        self.engine.disarm(&id(label)).unwrap()
    }
}

#[track_caller]
fn every_label_takes_a_jump(flag: &'static str) {
    let mut target = Target::c(flag);
    let traced = Traced::attach(&target);
    let mut jumps = 0;
    for (label, per_round) in LABELS {
        match traced.engine.arm(traced.probe(&target, label, Ok)) {
            Ok(armed) => {
                assert_eq!(armed.mechanism, Mechanism::Jump, "{label}: {armed:?}");
                assert!(armed.stopped_ns > 0, "{label} was written while the process ran");
                target.ask("run 2 50", "ran");
                let counts = traced.disarmed(label);
                assert_eq!((counts.passages, counts.hits), (100 * per_round, 100 * per_round), "{label}: {counts:?}");
                jumps += 1;
            }
            Err(error) => panic!("{label}: {error}"),
        }
    }
    assert_eq!(jumps, LABELS.len());
    traced.engine.detach();
    target.assert_text_is_the_files();
    target.send("exit 0");
    target.exits_with(0);
}

#[test]
fn sites_of_a_native_program_are_jumps_that_are_written_while_it_stands_still() {
    every_label_takes_a_jump("-pie");
}

#[test]
fn a_site_without_a_jump_is_traced_from_outside_if_it_is_the_only_one() {
    let mut target = Target::c("-pie");
    let traced = Traced::attach(&target);
    let unknown = |_| Err("its code is not known".to_owned());
    // Alone: by ptrace, which says why.
    let armed = traced.engine.arm(traced.probe(&target, "site_push", unknown)).unwrap();
    assert_eq!(armed.mechanism, Mechanism::Ptrace);
    assert!(armed.note.as_ref().is_some_and(|note| note.contains("its code is not known")), "{armed:?}");
    target.ask("run 1 20", "ran");
    let counts = traced.disarmed("site_push");
    assert_eq!(counts.passages, 20);
    // After it, inside again; beside what is there it is refused.
    let armed = traced.engine.arm(traced.probe(&target, "site_rip", Ok)).unwrap();
    assert_eq!(armed.mechanism, Mechanism::Jump);
    let refused = traced.engine.arm(traced.probe(&target, "site_push", unknown)).unwrap_err();
    assert!(matches!(&refused, ArmError::Breakpoint { why } if why == "its code is not known"), "{refused}");
    target.ask("run 1 20", "ran");
    assert_eq!(traced.disarmed("site_rip").passages, 20);
    let armed = traced.engine.arm(traced.probe(&target, "site_push", unknown)).unwrap();
    assert_eq!(armed.mechanism, Mechanism::Ptrace);
    target.ask("run 1 20", "ran");
    assert_eq!(traced.disarmed("site_push").passages, 20);
    traced.engine.detach();
    target.assert_text_is_the_files();
    target.send("exit 0");
    target.exits_with(0);
}

//! An engine in a target, with everything around it.

pub(super) use crate::engine::ptrace::tests::support::{SOON, Target, captures_rdi, eventually, id, rdi};

use crate::capture::program::Program;
use crate::engine::analysis::{BinaryCode, Language};
use crate::engine::inprocess::InProcessEngine;
use crate::engine::{
    ArmError, ArmOutcome, AttachOptions, Counts, EngineEvent, Mechanisms, Probe, ProbeSite, ProcessRuntime, SITE_BYTES,
    SitePatch,
};
use crate::publish::sink::{CapturedHit, HitQueue, QueueLimits};
use riptrace_protocol::ids::{Avma, LayoutId};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

/// A share that no test exceeds.
const CPU_PERCENT: u32 = 1_000;

pub(super) struct Tracing {
    pub(super) engine: InProcessEngine,
    queue: HitQueue,
    events: Receiver<EngineEvent>,
    code: BinaryCode,
    bias: u64,
}

impl Tracing {
    /// Attaches to a process; `bias` is what its executable was moved by.
    #[track_caller]
    pub(super) fn attach(target: &Target, runtime: ProcessRuntime, bias: u64, cpu_percent: u32) -> Tracing {
        let queue = HitQueue::new(QueueLimits::default());
        let (tell, events) = mpsc::channel();
        let notify = Box::new(move |event| drop(tell.send(event)));
        let options = AttachOptions { mechanisms: Mechanisms::Inside, runtime, cpu_percent };
        let engine = InProcessEngine::attach(target.key(), queue.sink(), &options, notify)
            .unwrap_or_else(|error| panic!("{error:?}; the target says {:?}", target.said()));
        let code = BinaryCode::open(Path::new(&format!("/proc/{}/exe", target.pid()))).unwrap();
        Tracing { engine, queue, events, code, bias }
    }

    /// The same for the C program.
    #[track_caller]
    pub(super) fn c(target: &Target) -> Tracing {
        let runtime = ProcessRuntime { is_go: false, go: None, is_gnu: true };
        Tracing::attach(target, runtime, target.bias(), CPU_PERCENT)
    }

    /// The same for a Go program.
    #[track_caller]
    pub(super) fn go(target: &Target, runtime: ProcessRuntime, bias: u64) -> Tracing {
        Tracing::attach(target, runtime, bias, CPU_PERCENT)
    }

    pub(super) fn site(&self, at: Avma, program: &Arc<Program>) -> ProbeSite {
        let address = at.0 - self.bias;
        let function = self.code.function_at(address).unwrap();
        let bytes = self.code.bytes_at(address);
        let patch = SitePatch {
            choice: self.code.analyse(&function).unwrap().site(address),
            original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
            is_go: self.code.language(&function) == Language::Go,
        };
        ProbeSite { address: at, program: Arc::clone(program), layout: LayoutId([0; 16]), patch: Ok(patch) }
    }

    pub(super) fn arm_with(
        &self,
        name: &str,
        sites: &[Avma],
        program: &Arc<Program>,
        rate_per_s: Option<u32>,
    ) -> Result<ArmOutcome, ArmError> {
        let sites = sites.iter().map(|at| self.site(*at, program)).collect();
        self.engine.arm(Probe { tracepoint: id(name), sites, rate_per_s })
    }

    /// A probe at some addresses that captures rdi, without a budget.
    #[track_caller]
    pub(super) fn arm(&self, name: &str, sites: &[Avma]) -> ArmOutcome {
        self.arm_with(name, sites, &Arc::new(captures_rdi()), None).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Counts, once everything that was there is read.
    #[track_caller]
    pub(super) fn counts(&self, name: &str) -> Counts {
        self.engine.read_now();
        self.engine.counts().into_iter().find(|(tracepoint, _)| *tracepoint == id(name)).unwrap().1
    }

    /// All hits so far; they count as taken from the queue.
    pub(super) fn hits(&mut self) -> Vec<CapturedHit> {
        self.engine.read_now();
        let taken = self.queue.take(crate::clock::domain_now_ns);
        self.queue.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        taken.hits
    }

    /// What the engine has told by now.
    pub(super) fn told(&self) -> Option<EngineEvent> {
        self.events.try_recv().ok()
    }

    /// Up to when nothing is to come any more, in domain time.
    pub(super) fn watermark_ns(&mut self) -> u64 {
        let taken = self.queue.take(crate::clock::domain_now_ns);
        self.queue.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        taken.watermark_ns
    }

    #[track_caller]
    pub(super) fn event(&self) -> EngineEvent {
        self.events.recv_timeout(SOON).expect("the engine tells of the end")
    }
}

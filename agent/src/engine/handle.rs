//! The handle: chooses a backend for a process, and speaks to it.

use super::api::{ArmError, ArmOutcome, AttachError, Counts, EngineEvent, Probe};
use super::ptrace::PtraceEngine;
use crate::publish::sink::HitSink;
use riptrace_protocol::ids::{ProcessKey, TracepointId};

/// The tracepoints of one process. Dropping it lets the process go.
pub struct Engine {
    backend: PtraceEngine,
}

impl Engine {
    /// Begins to trace a process: nothing is patched, and no thread stands still for longer than a moment.
    ///
    /// `notify` is called at most once, by the engine's thread, when the process ends, starts another program, or cannot
    /// be traced any longer; it must not call the engine. Blocks for about a millisecond.
    pub fn attach(
        key: ProcessKey,
        sink: HitSink,
        notify: Box<dyn Fn(EngineEvent) + Send>,
    ) -> Result<Engine, AttachError> {
        PtraceEngine::attach(key, sink, notify).map(|backend| Engine { backend })
    }

    /// Arms a probe: all of its sites, or none. Blocks, for milliseconds as a rule.
    pub fn arm(&self, probe: Probe) -> Result<ArmOutcome, ArmError> {
        self.backend.arm(probe)
    }

    /// Removes a probe and says what became of its passages; `None` if there is none. When this returns its sites are as
    /// they were (unless another probe wants them).
    pub fn disarm(&self, tracepoint: &TracepointId) -> Option<Counts> {
        self.backend.disarm(tracepoint)
    }

    /// Counts of all probes. Does not block.
    pub fn counts(&self) -> Vec<(TracepointId, Counts)> {
        self.backend.counts()
    }

    /// Removes all probes, restores the process and lets it go. May be called more than once; dropping does the same.
    pub fn detach(&self) {
        self.backend.detach();
    }
}

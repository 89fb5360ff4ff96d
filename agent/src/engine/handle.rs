//! The handle: chooses a backend for a process, and speaks to it.

use super::api::{ArmError, ArmOutcome, AttachError, AttachOptions, Counts, EngineEvent, Mechanisms, Probe};
use super::inprocess::{self, InProcessEngine, NotInside};
use super::ptrace::PtraceEngine;
use crate::publish::sink::HitSink;
use riptrace_protocol::ids::{ProcessKey, TracepointId};
use std::sync::{Arc, Mutex, PoisonError};

/// The tracepoints of one process. Dropping it lets the process go.
pub struct Engine {
    backend: Backend,
}

enum Backend {
    Inside(InProcessEngine),
    /// With the reason why not inside.
    Ptrace(PtraceEngine, String),
}

/// Why a program that is not Go's is traced from outside.
const NATIVE: &str = "only Go programs are traced inside the process unless the agent runs with --mechanism inside";

/// What is said of a probe that stops threads.
fn note(why: &str) -> String {
    format!("stops the thread that hits, by ptrace: {why}")
}

impl Engine {
    /// Begins to trace a process: nothing is patched, and no thread stands still for longer than a moment.
    ///
    /// `notify` is called at most once, by the engine's thread, when the process ends, starts another program, or cannot
    /// be traced any longer; it must not call the engine. Blocks for some milliseconds.
    pub fn attach(
        key: ProcessKey,
        sink: HitSink,
        options: AttachOptions,
        notify: Box<dyn Fn(EngineEvent) + Send>,
    ) -> Result<Engine, AttachError> {
        // Whichever backend it is, the other one has let go of it.
        let notify = Arc::new(Mutex::new(notify));
        let told = || -> Box<dyn Fn(EngineEvent) + Send> {
            let notify = Arc::clone(&notify);
            Box::new(move |event| (notify.lock().unwrap_or_else(PoisonError::into_inner))(event))
        };
        let why = match options.mechanisms {
            Mechanisms::Ptrace => "the agent was told to inject nothing (--mechanism ptrace)".to_owned(),
            Mechanisms::Auto if !options.runtime.is_go => NATIVE.to_owned(),
            Mechanisms::Auto | Mechanisms::Inside => match InProcessEngine::attach(key, sink.clone(), &options, told())
            {
                Ok(engine) => return Ok(Engine { backend: Backend::Inside(engine) }),
                Err(NotInside::Never(error)) => return Err(error),
                Err(NotInside::Elsewhere(why)) => why,
            },
        };
        tracing::info!(target: "engine", pid = key.pid, %why, "traced from outside, by ptrace");
        // A breakpoint must not stand on the patch of an agent that was killed, or that is a parent's.
        inprocess::sweep(key).map_err(|error| AttachError::Remains { pid: key.pid, why: error.to_string() })?;
        PtraceEngine::attach(key, sink, told()).map(|engine| Engine { backend: Backend::Ptrace(engine, why) })
    }

    /// Arms a probe: all of its sites, or none. Blocks, for milliseconds as a rule.
    pub fn arm(&self, probe: Probe) -> Result<ArmOutcome, ArmError> {
        match &self.backend {
            Backend::Inside(engine) => engine.arm(probe),
            Backend::Ptrace(engine, why) => Ok(ArmOutcome { note: Some(note(why)), ..engine.arm(probe)? }),
        }
    }

    /// Removes a probe and says what became of its passages; `None` if there is none. When this returns its sites are as
    /// they were (unless another probe wants them).
    pub fn disarm(&self, tracepoint: &TracepointId) -> Option<Counts> {
        match &self.backend {
            Backend::Inside(engine) => engine.disarm(tracepoint),
            Backend::Ptrace(engine, _) => engine.disarm(tracepoint),
        }
    }

    /// Counts of all probes. Does not block for longer than the reader takes for a pass.
    pub fn counts(&self) -> Vec<(TracepointId, Counts)> {
        match &self.backend {
            Backend::Inside(engine) => engine.counts(),
            Backend::Ptrace(engine, why) => {
                let noted = |(tracepoint, counts)| (tracepoint, Counts { note: Some(note(why)), ..counts });
                engine.counts().into_iter().map(noted).collect()
            }
        }
    }

    /// Removes all probes, restores the process and lets it go. May be called more than once; dropping does the same.
    pub fn detach(&self) {
        match &self.backend {
            Backend::Inside(engine) => engine.detach(),
            Backend::Ptrace(engine, _) => engine.detach(),
        }
    }
}

/// Takes out the patches that a process has though nobody traces it: it is a child of one that is traced, or its agent was
/// killed. Says how many there were; `Err`, why that is not known. Blocks, for milliseconds where there are any.
pub fn sweep(process: ProcessKey) -> Result<usize, String> {
    inprocess::sweep(process).map_err(|error| error.to_string())
}

//! The handle: chooses a backend for a process, and speaks to it.

use super::api::{ArmError, ArmOutcome, AttachError, AttachOptions, Counts, EngineEvent, Mechanisms, Probe};
use super::inprocess::{self, InProcessEngine, NotInside};
use super::ptrace::PtraceEngine;
use crate::publish::sink::HitSink;
use riptrace_protocol::ids::{ProcessKey, TracepointId};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

/// The tracepoints of one process. Dropping it lets the process go.
pub struct Engine {
    key: ProcessKey,
    sink: HitSink,
    options: AttachOptions,
    notify: Notify,
    /// Read by whoever speaks to it, written where another one takes over.
    backend: RwLock<Backend>,
}

type Notify = Arc<Mutex<Box<dyn Fn(EngineEvent) + Send>>>;

enum Backend {
    Inside(InProcessEngine),
    Ptrace(PtraceEngine, Why),
    /// It was let go of.
    None,
}

/// Why not inside.
enum Why {
    /// Nothing may be injected.
    Process(String),
    /// A probe of it takes a breakpoint, and there is no other.
    Probe(String),
}

impl Why {
    fn text(&self) -> &str {
        match self {
            Why::Process(why) | Why::Probe(why) => why,
        }
    }
}

/// What is said of a probe that stops threads.
fn note(why: &Why) -> String {
    format!("stops the thread that hits, by ptrace: {}", why.text())
}

/// Whichever backend it is, the other one has let go of the process.
fn told(notify: &Notify) -> Box<dyn Fn(EngineEvent) + Send> {
    let notify = Arc::clone(notify);
    Box::new(move |event| (notify.lock().unwrap_or_else(PoisonError::into_inner))(event))
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
        let notify = Arc::new(Mutex::new(notify));
        let backend = match options.mechanisms {
            Mechanisms::Ptrace => {
                let why = Why::Process("the agent was told to inject nothing (--mechanism ptrace)".to_owned());
                outside(key, &sink, &notify, why)?
            }
            Mechanisms::Auto | Mechanisms::Inside => match inside(key, &sink, &options, &notify)? {
                Ok(engine) => Backend::Inside(engine),
                Err(why) => outside(key, &sink, &notify, Why::Process(why))?,
            },
        };
        Ok(Engine { key, sink, options, notify, backend: RwLock::new(backend) })
    }

    fn backend(&self) -> RwLockReadGuard<'_, Backend> {
        self.backend.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a probe: all of its sites, or none. Blocks, for milliseconds as a rule.
    ///
    /// The first probe of a native process may take it from one backend to the other ([`Mechanisms::Auto`]).
    pub fn arm(&self, probe: Probe) -> Result<ArmOutcome, ArmError> {
        if matches!(&*self.backend(), Backend::Ptrace(engine, Why::Probe(_)) if engine.counts().is_empty()) {
            self.turn(None)?;
        }
        let why = match &*self.backend() {
            Backend::None => return Err(ArmError::Gone),
            Backend::Ptrace(engine, why) => {
                return engine.arm(probe).map(|outcome| ArmOutcome { note: Some(note(why)), ..outcome });
            }
            Backend::Inside(engine) => match engine.arm(probe.clone()) {
                Err(ArmError::Breakpoint { why }) if engine.counts().is_empty() => why,
                other => return other,
            },
        };
        self.turn(Some(format!("a native program can take a breakpoint for its own signal, and this is one: {why}")))?;
        match &*self.backend() {
            Backend::Ptrace(engine, why) => {
                engine.arm(probe).map(|outcome| ArmOutcome { note: Some(note(why)), ..outcome })
            }
            Backend::Inside(_) | Backend::None => Err(ArmError::Gone),
        }
    }

    /// Has the other backend take the process over, which has no probe: from outside because of a probe, or inside again.
    fn turn(&self, why: Option<String>) -> Result<(), ArmError> {
        let mut backend = self.backend.write().unwrap_or_else(PoisonError::into_inner);
        let before = match std::mem::replace(&mut *backend, Backend::None) {
            Backend::Inside(engine) => {
                engine.detach();
                None
            }
            Backend::Ptrace(engine, why) => {
                engine.detach();
                Some(why)
            }
            Backend::None => None,
        };
        let refused = |error: AttachError| ArmError::Refused(error.to_string());
        let (key, sink, notify) = (self.key, &self.sink, &self.notify);
        *backend = match (why, before) {
            (Some(why), _) => outside(key, sink, notify, Why::Probe(why)).map_err(refused)?,
            (None, before) => match inside(key, sink, &self.options, notify).map_err(refused)? {
                Ok(engine) => Backend::Inside(engine),
                Err(why) => outside(key, sink, notify, before.unwrap_or(Why::Process(why))).map_err(refused)?,
            },
        };
        Ok(())
    }

    /// Removes a probe and says what became of its passages; `None` if there is none. When this returns its sites are as
    /// they were (unless another probe wants them).
    pub fn disarm(&self, tracepoint: &TracepointId) -> Option<Counts> {
        match &*self.backend() {
            Backend::Inside(engine) => engine.disarm(tracepoint),
            Backend::Ptrace(engine, _) => engine.disarm(tracepoint),
            Backend::None => None,
        }
    }

    /// After a long silence the reader of a process does not look at its rings by itself, since each reader that wakes up
    /// costs its host something: whoever has engines glances at all of them a few times a second, which is a few words of
    /// memory each and wakes up those for whom something has come. Does not block; does nothing while a backend is changed.
    pub fn glance(&self) {
        if let Ok(backend) = self.backend.try_read()
            && let Backend::Inside(engine) = &*backend
        {
            engine.glance();
        }
    }

    /// Counts of all probes. Does not block for longer than the reader takes for a pass.
    pub fn counts(&self) -> Vec<(TracepointId, Counts)> {
        match &*self.backend() {
            Backend::Inside(engine) => engine.counts(),
            Backend::Ptrace(engine, why) => {
                let noted = |(tracepoint, counts)| (tracepoint, Counts { note: Some(note(why)), ..counts });
                engine.counts().into_iter().map(noted).collect()
            }
            Backend::None => Vec::new(),
        }
    }

    /// Removes all probes, restores the process and lets it go. May be called more than once; dropping does the same.
    pub fn detach(&self) {
        match &*self.backend() {
            Backend::Inside(engine) => engine.detach(),
            Backend::Ptrace(engine, _) => engine.detach(),
            Backend::None => {}
        }
    }
}

/// The backend inside of a process; or why there is none, for a person.
fn inside(
    key: ProcessKey,
    sink: &HitSink,
    options: &AttachOptions,
    notify: &Notify,
) -> Result<Result<InProcessEngine, String>, AttachError> {
    match InProcessEngine::attach(key, sink.clone(), options, told(notify)) {
        Ok(engine) => Ok(Ok(engine)),
        Err(NotInside::Never(error)) => Err(error),
        Err(NotInside::Elsewhere(why)) => Ok(Err(why)),
    }
}

/// The backend outside.
fn outside(key: ProcessKey, sink: &HitSink, notify: &Notify, why: Why) -> Result<Backend, AttachError> {
    tracing::info!(target: "engine", pid = key.pid, why = why.text(), "traced from outside, by ptrace");
    // A breakpoint must not stand on the patch of an agent that was killed, or that is a parent's.
    inprocess::sweep(key).map_err(|error| AttachError::Remains { pid: key.pid, why: error.to_string() })?;
    PtraceEngine::attach(key, sink.clone(), told(notify)).map(|engine| Backend::Ptrace(engine, why))
}

/// Takes out the patches that a process has though nobody traces it: it is a child of one that is traced, or its agent was
/// killed. Says how many there were; `Err`, why that is not known. Blocks, for milliseconds where there are any.
pub fn sweep(process: ProcessKey) -> Result<usize, String> {
    inprocess::sweep(process).map_err(|error| error.to_string())
}

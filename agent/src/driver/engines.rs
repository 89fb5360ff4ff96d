//! The engines of this host, one per attached process, and which work armed what in them.
//!
//! Everything here may block (it stops threads of a process for a moment) and is called from blocking threads only.
//! No lock is held while an engine works, but for a glance at its rings.

use crate::engine::{AttachOptions, Counts, Engine, EngineEvent};
use crate::event::JobId;
use crate::publish::sink::HitSink;
use riptrace_protocol::ids::{ProcessKey, TracepointId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One attachment of an engine: events of an earlier one say nothing about a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The engines of this host.
#[derive(Default)]
pub(super) struct Engines {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    attached: BTreeMap<ProcessKey, Attached>,
    /// Set from before an engine attaches until it is let go of.
    epochs: BTreeMap<ProcessKey, Epoch>,
    last_epoch: u64,
    closed: bool,
}

struct Attached {
    engine: Arc<Engine>,
    armed: BTreeMap<TracepointId, JobId>,
}

/// Counts of one probe.
pub(super) struct Counted {
    pub(super) job: JobId,
    pub(super) tracepoint: TracepointId,
    pub(super) process: ProcessKey,
    pub(super) counts: Counts,
}

impl Engines {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine of a process; attaches when there is none. Only the process's own worker calls this.
    pub(super) fn attach(
        &self,
        process: ProcessKey,
        sink: HitSink,
        options: AttachOptions,
        tell: impl Fn(Epoch, EngineEvent) + Send + 'static,
    ) -> Result<Arc<Engine>, String> {
        let epoch = {
            let mut inner = self.inner();
            if inner.closed {
                return Err("the agent is stopping".to_owned());
            }
            if let Some(attached) = inner.attached.get(&process) {
                return Ok(Arc::clone(&attached.engine));
            }
            inner.last_epoch += 1;
            let epoch = Epoch(inner.last_epoch);
            inner.epochs.insert(process, epoch);
            epoch
        };
        let engine = match Engine::attach(process, sink, options, Box::new(move |event| tell(epoch, event))) {
            Ok(engine) => Arc::new(engine),
            Err(error) => {
                self.inner().epochs.remove(&process);
                return Err(error.to_string());
            }
        };
        let mut inner = self.inner();
        if inner.closed {
            drop(inner);
            engine.detach();
            return Err("the agent is stopping".to_owned());
        }
        inner.attached.insert(process, Attached { engine: Arc::clone(&engine), armed: BTreeMap::new() });
        Ok(engine)
    }

    /// The engine of a process, if one is attached.
    pub(super) fn get(&self, process: ProcessKey) -> Option<Arc<Engine>> {
        self.inner().attached.get(&process).map(|attached| Arc::clone(&attached.engine))
    }

    /// The processes that have an engine.
    pub(super) fn traced(&self) -> BTreeSet<ProcessKey> {
        self.inner().epochs.keys().copied().collect()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.inner().attached.is_empty()
    }

    /// Has a look at what comes after a long silence ([`Engine::glance`]). Does not block.
    pub(super) fn glance(&self) {
        let inner = self.inner();
        inner.attached.values().for_each(|attached| attached.engine.glance());
    }

    /// Whether an event of this attachment is news.
    pub(super) fn is_current(&self, process: ProcessKey, epoch: Epoch) -> bool {
        self.inner().epochs.get(&process) == Some(&epoch)
    }

    /// A probe is in place.
    pub(super) fn armed(&self, process: ProcessKey, tracepoint: TracepointId, job: JobId) {
        if let Some(attached) = self.inner().attached.get_mut(&process) {
            attached.armed.insert(tracepoint, job);
        }
    }

    /// A probe is gone.
    pub(super) fn disarmed(&self, process: ProcessKey, tracepoint: &TracepointId) {
        if let Some(attached) = self.inner().attached.get_mut(&process) {
            attached.armed.remove(tracepoint);
        }
    }

    /// Counts of all probes, or of those in one process.
    pub(super) fn counts(&self, only: Option<ProcessKey>) -> Vec<Counted> {
        let engines: Vec<_> = (self.inner().attached.iter())
            .filter(|(process, _)| only.is_none_or(|only| only == **process))
            .map(|(process, attached)| (*process, Arc::clone(&attached.engine), attached.armed.clone()))
            .collect();
        let mut counted = Vec::new();
        for (process, engine, armed) in engines {
            for (tracepoint, counts) in engine.counts() {
                if let Some(&job) = armed.get(&tracepoint) {
                    counted.push(Counted { job, tracepoint, process, counts });
                }
            }
        }
        counted
    }

    /// Takes all probes of a process out and lets go of it.
    pub(super) fn detach(&self, process: ProcessKey) {
        let attached = {
            let mut inner = self.inner();
            inner.epochs.remove(&process);
            inner.attached.remove(&process)
        };
        if let Some(attached) = attached {
            attached.engine.detach();
        }
    }

    /// Lets go of all processes; none is attached to any more.
    pub(super) fn close(&self) {
        let attached = {
            let mut inner = self.inner();
            inner.closed = true;
            std::mem::take(&mut inner.attached)
        };
        attached.into_values().for_each(|attached| attached.engine.detach());
    }
}

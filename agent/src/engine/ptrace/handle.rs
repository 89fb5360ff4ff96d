//! The handle: how the rest of the agent speaks to a tracer thread.
//!
//! A tracer waits in the kernel for its threads, where no channel can reach it. So a command is put into the channel and
//! the tracer's wait is interrupted by a signal, again and again until the answer is there: a signal that comes just
//! before the wait begins is lost, and the next one is not.

use super::counters::Counters;
use super::tracer::Tracer;
use crate::engine::api::{ArmError, ArmOutcome, AttachError, Counts, EngineEvent, Probe};
use crate::engine::sys::{self, Tid};
use crate::publish::sink::HitSink;
use riptrace_protocol::ids::{ProcessKey, TracepointId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a command waits for its answer before it interrupts the tracer's wait again. It is also the tick by which
/// the tracer notices that a wait within a command takes too long.
const WAKE_INTERVAL: Duration = Duration::from_millis(2);

/// What a tracer is asked to do. Each is answered exactly once; a tracer that ends drops the way to answer.
pub(super) enum Command {
    /// Arm a probe.
    Arm(Probe, Arc<Counters>, Sender<Result<ArmOutcome, ArmError>>),
    /// Remove a probe.
    Disarm(TracepointId, Sender<()>),
    /// Restore the process, let it go, and end.
    LetGo(Sender<()>),
}

/// The tracepoints of one process. Dropping it lets the process go.
pub(in crate::engine) struct PtraceEngine {
    commands: Mutex<Sender<Command>>,
    tracer: Arc<AtomicI32>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Mutex<BTreeMap<TracepointId, Arc<Counters>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PtraceEngine {
    /// Begins to trace a process: all its threads are followed, none is stopped, nothing is patched.
    ///
    /// `notify` is called at most once, by the engine's thread, when the process ends, starts another program, or cannot
    /// be traced any longer; it must not call the engine. Blocks for about a millisecond.
    pub(in crate::engine) fn attach(
        key: ProcessKey,
        sink: HitSink,
        notify: Box<dyn Fn(EngineEvent) + Send>,
    ) -> Result<PtraceEngine, AttachError> {
        let (commands, receiver) = mpsc::channel();
        let (attached, outcome) = mpsc::channel();
        let tracer = Arc::new(AtomicI32::new(0));
        let own_tid = Arc::clone(&tracer);
        let thread = thread::Builder::new()
            .name(format!("tracer-{}", key.pid))
            .spawn(move || {
                own_tid.store(sys::own_tid(), Ordering::Release);
                Tracer::run(key, sink, notify, receiver, &attached);
            })
            .map_err(|source| AttachError::Spawn { pid: key.pid, source })?;
        let gone = || AttachError::Seize { pid: key.pid, source: std::io::Error::other("the tracer thread ended") };
        let outcome = outcome.recv().unwrap_or_else(|_| Err(gone()));
        if let Err(error) = outcome {
            // It ends by itself after an error; a panic of it was reported by the error.
            let _ = thread.join();
            return Err(error);
        }
        Ok(PtraceEngine {
            commands: Mutex::new(commands),
            tracer,
            thread: Mutex::new(Some(thread)),
            counters: Mutex::default(),
        })
    }

    /// Arms a probe: all of its sites, or none. Blocks, for microseconds as a rule, longer while no thread of the process
    /// can be stopped to map memory.
    pub(in crate::engine) fn arm(&self, probe: Probe) -> Result<ArmOutcome, ArmError> {
        let tracepoint = probe.tracepoint.clone();
        let counters = Arc::new(Counters::default());
        let outcome =
            self.ask(|reply| Command::Arm(probe, Arc::clone(&counters), reply)).unwrap_or(Err(ArmError::Gone))?;
        lock(&self.counters).insert(tracepoint, counters);
        Ok(outcome)
    }

    /// Removes a probe and says what became of its passages; `None` if there is none. When this returns its sites are as
    /// they were (unless another probe wants them).
    pub(in crate::engine) fn disarm(&self, tracepoint: &TracepointId) -> Option<Counts> {
        // A process that is gone has no sites any more.
        let _ = self.ask(|reply| Command::Disarm(tracepoint.clone(), reply));
        lock(&self.counters).remove(tracepoint).map(|counters| counters.counts())
    }

    /// Counts of all probes. Does not block.
    pub(in crate::engine) fn counts(&self) -> Vec<(TracepointId, Counts)> {
        let counters = lock(&self.counters);
        counters.iter().map(|(tracepoint, counters)| (tracepoint.clone(), counters.counts())).collect()
    }

    /// Removes all probes, restores the process and lets it go. May be called more than once; dropping does the same.
    pub(in crate::engine) fn detach(&self) {
        let _ = self.ask(Command::LetGo);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!(target: "engine", "a tracer thread has panicked while it let its process go");
        }
    }

    /// Sends a command and waits for its answer; `None` if the tracer has ended.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = mpsc::channel();
        lock(&self.commands).send(command(reply)).ok()?;
        wait_for(&answer, self.tracer.load(Ordering::Acquire))
    }
}

fn wait_for<T>(answer: &Receiver<T>, tracer: Tid) -> Option<T> {
    loop {
        sys::wake(tracer);
        match answer.recv_timeout(WAKE_INTERVAL) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

impl Drop for PtraceEngine {
    fn drop(&mut self) {
        self.detach();
    }
}

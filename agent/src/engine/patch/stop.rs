//! Threads that stand still for a moment: all of a process, or one.
//!
//! Every thread is seized first, which stops none; then all are asked to stop, then all are waited for. While they are
//! being stopped they may make more, which the next pass finds: when a pass finds none, all stand still.
//!
//! Invariants
//! - A stop is looked at and left in the kernel ([`sys::wait`]). A thread that was about to receive a signal is let go
//!   with that same signal, siginfo untouched; if the agent is killed instead, the kernel does just that.
//! - No memory and no register of a thread is changed, but for the result of a system call that only the stop has
//!   interrupted ([`registers::restarted`]): one call sets all registers.
//! - All of it happens in a thread that ends with it: when that ends the kernel lets go of whatever is still seized, also
//!   of threads that never stopped.

use super::{PatchError, checkpoint};
use crate::clock::domain_now_ns;
use crate::engine::sys::{self, Alarm, Change, SI_KERNEL, Stop, Tid, UserRegisters, Whose};
use crate::engine::x86_64::registers;
use crate::target::{self, TargetError, proc_file};
use std::collections::BTreeSet;
use std::thread;

/// How long threads have to stop, in nanoseconds, if one of them is in an uninterruptible wait: the others stand still
/// meanwhile.
const STUCK_NS: u64 = 100_000_000;
/// The same if it is only waiting for its turn on a busy machine.
const CROWDED_NS: u64 = 1_000_000_000;
/// Threads that are asked to stop where one is wanted, at most.
const ONE_TRIES_MAX: usize = 8;
/// How often a wait looks at the clock, in nanoseconds.
const TICK_NS: u64 = 2_000_000;
/// Passes over the threads of a process, at most. Each finds what threads made that were not stopped by then; a process
/// that is ahead of this many makes threads without end.
const PASSES_MAX: usize = 64;

/// A thread that stands still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) tid: Tid,
    pub(super) registers: UserRegisters,
    stop: Stop,
}

impl Standing {
    /// Whether it has run into a breakpoint, whose signal it has not received yet: its instruction pointer is behind it.
    pub(super) fn has_trap_pending(&self) -> bool {
        let is_trap = |info: sys::SigInfo| info.signal() == libc::SIGTRAP && info.code() == SI_KERNEL;
        match self.stop {
            Stop::Signal(_) if sys::signal_info(self.tid).is_ok_and(is_trap) => true,
            _ => sys::has_pending_trap(self.tid).unwrap_or(false),
        }
    }

    /// Sets it going, with the signal that it was about to receive.
    fn let_go(&self) {
        let signal = if let Stop::Signal(signal) = self.stop { signal } else { 0 };
        // It fails if the thread was killed meanwhile. A process that was stopped by a signal stays so.
        let _ = sys::detach(self.tid, signal);
    }
}

/// Threads of a process that stand still, until this is dropped.
pub(super) struct Stopped {
    threads: Vec<Standing>,
    /// Seized, whatever became of them.
    known: BTreeSet<Tid>,
    asked_ns: u64,
    began_ns: Option<u64>,
    _alarm: Alarm,
}

/// Runs in a thread of its own, in which wakes are accepted.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, PatchError> + Send) -> Result<T, PatchError> {
    thread::scope(|scope| {
        let work = move || {
            sys::accept_wakes().map_err(PatchError::Spawn)?;
            sys::hurry();
            work()
        };
        let worker = thread::Builder::new().name("patcher".to_owned()).spawn_scoped(scope, work);
        match worker.map_err(PatchError::Spawn)?.join() {
            Ok(done) => done,
            // Our mistake; the kernel has let go of the threads.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Stopped {
    /// Calls `work` in a thread that may stop a process again and again by [`Stopped::all`].
    pub(super) fn session<T: Send>(work: impl FnOnce() -> Result<T, PatchError> + Send) -> Result<T, PatchError> {
        apart(work)
    }

    /// Stops all threads. Only within [`Stopped::session`].
    pub(super) fn all(pid: Tid) -> Result<Stopped, PatchError> {
        let mut stopped = Stopped::none()?;
        for _ in 0..PASSES_MAX {
            let tasks = target::tasks(pid as u32).map_err(|_| PatchError::Gone)?;
            let mut new = Vec::new();
            for tid in tasks.into_iter().map(|tid| tid as Tid) {
                if !stopped.known.contains(&tid) && stopped.seize(tid)? {
                    new.push(tid);
                }
            }
            if new.is_empty() {
                return if stopped.threads.is_empty() { Err(PatchError::Gone) } else { Ok(stopped) };
            }
            checkpoint();
            stopped.began_ns.get_or_insert_with(domain_now_ns);
            for &tid in &new {
                // One that has ended since says so when it is waited for.
                let _ = sys::interrupt(tid);
            }
            checkpoint();
            for &tid in &new {
                stopped.await_stop(tid)?;
            }
            checkpoint();
        }
        Err(PatchError::Threads)
    }

    /// Calls `work` while some one thread stands still.
    pub(super) fn one<T: Send>(
        pid: Tid,
        work: impl FnOnce(Tid) -> Result<T, PatchError> + Send,
    ) -> Result<T, PatchError> {
        apart(|| {
            let mut tasks = target::tasks(pid as u32).map_err(|_| PatchError::Gone)?;
            // One that runs stops at once; one that sleeps would have to be woken, and some waits cannot be.
            tasks.sort_by_key(|&tid| target::status(tid).map_or(2, |status| u8::from(status.state != 'R')));
            let mut last = PatchError::Gone;
            for tid in tasks.into_iter().map(|tid| tid as Tid).take(ONE_TRIES_MAX) {
                let mut stopped = Stopped::none()?;
                if !stopped.seize(tid)? {
                    continue;
                }
                let _ = sys::interrupt(tid);
                match stopped.await_stop(tid) {
                    Ok(()) if stopped.threads.is_empty() => {}
                    Ok(()) => return work(tid),
                    Err(error @ PatchError::Unstoppable { .. }) => last = error,
                    Err(error) => return Err(error),
                }
            }
            Err(last)
        })
    }

    fn none() -> Result<Stopped, PatchError> {
        let alarm = Alarm::start(TICK_NS).map_err(PatchError::Timer)?;
        let asked_ns = domain_now_ns();
        Ok(Stopped { threads: Vec::new(), known: BTreeSet::new(), asked_ns, began_ns: None, _alarm: alarm })
    }

    /// The threads.
    pub(super) fn threads(&self) -> &[Standing] {
        &self.threads
    }

    /// Sets all going and says for how many nanoseconds they stood still.
    pub(super) fn let_go(mut self) -> u64 {
        self.release();
        self.began_ns.map_or(0, |began_ns| domain_now_ns() - began_ns)
    }

    fn release(&mut self) {
        for thread in self.threads.drain(..) {
            checkpoint();
            thread.let_go();
        }
    }

    /// `false` for a thread that has ended or never runs code of the process.
    fn seize(&mut self, tid: Tid) -> Result<bool, PatchError> {
        let Err(source) = sys::seize_briefly(tid) else {
            self.known.insert(tid);
            return Ok(true);
        };
        if sys::is_gone(&source) {
            return Ok(false);
        }
        match target::status(tid as u32) {
            Err(TargetError::Gone { .. }) => Ok(false),
            Ok(status) if matches!(status.state, 'Z' | 'X') => Ok(false),
            Ok(status) if status.tracer != 0 => Err(PatchError::ForeignTracer { tid }),
            _ if is_kernels_own(tid) => Ok(false),
            _ => Err(PatchError::Trace { tid, source }),
        }
    }

    fn await_stop(&mut self, tid: Tid) -> Result<(), PatchError> {
        loop {
            match sys::wait(Whose::Only(tid)) {
                Ok(Some(Change::Stopped(_, stop))) => return self.stands(tid, stop),
                Ok(Some(Change::Ended(_))) => {
                    // For its real parent it ends when its tracer has seen it.
                    let _ = sys::take(tid);
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {
                    let state = target::status(tid as u32).map_or('X', |status| status.state);
                    let waited_ns = domain_now_ns() - self.asked_ns;
                    match state {
                        // The first thread of a process stays until the others have ended, and is not told of.
                        'Z' | 'X' => return Ok(()),
                        'D' if waited_ns > STUCK_NS => return Err(PatchError::Unstoppable { tid, waited_ns, state }),
                        _ if waited_ns > CROWDED_NS => return Err(PatchError::Unstoppable { tid, waited_ns, state }),
                        _ => {}
                    }
                }
                // An execve(2) of another thread has ended it.
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(source) => return Err(PatchError::Trace { tid, source }),
            }
        }
    }

    fn stands(&mut self, tid: Tid, stop: Stop) -> Result<(), PatchError> {
        let mut registers = match sys::registers(tid) {
            Ok(registers) => registers,
            Err(error) if sys::is_gone(&error) => return Ok(()),
            Err(source) => return Err(PatchError::Trace { tid, source }),
        };
        let mut standing = Standing { tid, registers, stop };
        if let Some(restarted) = registers::restarted(&registers) {
            // If it fails, the thread was killed.
            let _ = sys::set_registers(tid, &restarted);
            registers = restarted;
            standing.registers = registers;
        }
        self.threads.push(standing);
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether a thread is one that the kernel runs in the process for itself (io_uring's workers): it cannot be traced, and
/// never runs code of the process. proc_pid_stat(5), field 9; include/linux/sched.h.
fn is_kernels_own(tid: Tid) -> bool {
    const PF_IO_WORKER: u64 = 0x10;
    const PF_USER_WORKER: u64 = 0x4000;
    const PF_KTHREAD: u64 = 0x20_0000;
    let flags = || -> Option<u64> {
        let stat = proc_file::read(format!("/proc/{tid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&stat).into_owned();
        text.get(text.rfind(')')? + 1..)?.split_whitespace().nth(9 - 3)?.parse().ok()
    };
    flags().is_some_and(|flags| flags & (PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD) != 0)
}

//! One thread, stopped to make system calls for the agent.
//!
//! Invariants:
//! - The thread's registers are changed by single requests only, and whatever is set leads back to what the thread was
//!   doing without anybody's help ([`crate::engine::x86_64::call_slot`]): the agent may be killed between any two requests.
//! - A signal is never delivered in a slot while the agent lives: the thread is put back first, so its handler sees what
//!   the program was doing.
//! - A thread is not used while a signal is pending that its own instruction has raised, nor in a restartable sequence.
//! - All requests are made by a thread of their own: when it ends, for whatever reason, the kernel lets go of all that it
//!   has traced.

use super::alarm::Alarm;
use super::error::InjectError;
use super::slots::{SLOT_BYTES, SLOT_NAME, Slot};
use super::threads::{candidates, may_call};
use crate::capture::memory::Memory;
use crate::clock::domain_now_ns;
use crate::engine::memory::TargetMemory;
use crate::engine::sys::{self, Change, SYSTEM_CALL_STOP, Stop, Tid, UserRegisters};
use crate::engine::x86_64::call_slot::{CALL_SLOT_BYTES, call_slot, entering, is_64_bit, is_interrupted, kept};
use crate::target::{self, TargetError};
use riptrace_protocol::ids::Avma;
use std::io;

/// How long one thread has to stop before another one is asked, in nanoseconds: a runnable thread on a busy machine gets
/// its turn within that.
const STOP_NS: u64 = 200_000_000;
/// Threads asked to stop before the agent gives up.
const STOP_TRIES_MAX: usize = 8;
/// Stops until a thread can be used, at most: each signal that comes first is one.
const STOPS_MAX: usize = 256;
/// How long a system call of the agent may take in the process, in nanoseconds. None of them waits for anything but the
/// lock of the address space.
const CALL_NS: u64 = 2_000_000_000;
/// A successful system call returns no value above this (syscall(2): errors are the last 4095 values).
const ERROR_MIN: u64 = (-4095_i64) as u64;
/// Name of the memory file, for the call that takes one: at the end of each slot.
pub(super) const NAME: &[u8; 9] = b"riptrace\0";

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct RemoteCall {
    /// Its number.
    pub(in crate::engine) number: i64,
    /// Its arguments.
    pub(in crate::engine) args: [u64; 6],
}

/// What a call returned: a value, or an error number.
pub(in crate::engine) type CallResult = Result<u64, i32>;

/// How long a thread was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Stopped {
    /// Which thread.
    pub(in crate::engine) tid: u32,
    /// For how long, in nanoseconds.
    pub(in crate::engine) ns: u64,
}

/// Why a thread cannot be used; another one may.
enum Unusable {
    /// It does not stop, has ended, or runs in a state that is no good.
    Thread,
    /// It runs 32-bit code.
    Not64Bit,
    /// No thread can be used.
    Process(InjectError),
}

/// A stopped thread.
pub(super) struct Tracee<'a> {
    tid: Tid,
    alarm: Alarm,
    memory: TargetMemory,
    /// As it was stopped.
    original: UserRegisters,
    /// Whether its registers are other ones now.
    is_away: bool,
    /// The slot that is written for it.
    slot: Option<Slot<'a>>,
    /// When it was stopped.
    since_ns: u64,
}

/// Stops a thread of a process, has it do a job, and lets it go.
pub(super) fn with_thread<'a, T: Send>(
    pid: u32,
    mut job: impl FnMut(&mut Tracee<'a>) -> Result<T, InjectError> + Send,
) -> Result<(T, Stopped), InjectError> {
    let began_ns = domain_now_ns();
    let tids = candidates(pid)?;
    if tids.is_empty() {
        return Err(InjectError::NoThread { waited_ms: 0 });
    }
    let mut is_32_bit = false;
    for &tid in tids.iter().take(STOP_TRIES_MAX) {
        let attempt = std::thread::scope(|scope| {
            let attempt = scope.spawn(|| {
                let mut tracee = Tracee::stop(pid, tid as Tid)?;
                // A filter that it has given itself since the area was made may end the process for a call.
                let done = may_call(tid).and_then(|()| job(&mut tracee));
                let stopped = tracee.release().map_err(Unusable::Process)?;
                done.map(|value| (value, stopped)).map_err(Unusable::Process)
            });
            attempt.join()
        });
        match attempt.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(done) => return Ok(done),
            Err(Unusable::Thread) => {}
            Err(Unusable::Not64Bit) => is_32_bit = true,
            Err(Unusable::Process(error)) => return Err(error),
        }
    }
    if target::start_time(pid).is_err() {
        return Err(InjectError::Gone);
    }
    if is_32_bit {
        return Err(InjectError::Not64Bit);
    }
    Err(InjectError::NoThread { waited_ms: (domain_now_ns() - began_ns) / 1_000_000 })
}

impl<'a> Tracee<'a> {
    fn stop(pid: u32, tid: Tid) -> Result<Tracee<'a>, Unusable> {
        let trouble = |error: io::Error| match error.raw_os_error() {
            Some(libc::ESRCH) => Unusable::Thread,
            _ => Unusable::Process(InjectError::Trace(error)),
        };
        let mut alarm = Alarm::new().map_err(trouble)?;
        sys::seize_alone(tid).map_err(|error| refusal(pid, tid, error))?;
        alarm.set(STOP_NS).map_err(trouble)?;
        sys::interrupt(tid).map_err(trouble)?;
        let mut tracee = Tracee {
            tid,
            alarm,
            memory: TargetMemory::reader(tid),
            original: no_registers(),
            is_away: false,
            slot: None,
            since_ns: 0,
        };
        tracee.settle().map_err(|error| match error {
            Unsettled::Late | Unsettled::Ended => Unusable::Thread,
            Unsettled::Trace(error) => trouble(error),
        })?;
        if !is_64_bit(&tracee.original) {
            let _ = tracee.release();
            return Err(Unusable::Not64Bit);
        }
        if sys::dispatches_system_calls(tid).unwrap_or(false) {
            let _ = tracee.release();
            return Err(Unusable::Process(InjectError::SystemCallDispatch));
        }
        Ok(tracee)
    }

    /// Waits until the thread, which was asked to stop, has stopped where it can be used.
    fn settle(&mut self) -> Result<(), Unsettled> {
        for _ in 0..STOPS_MAX {
            match self.alarm.wait(self.tid).map_err(Unsettled::Trace)? {
                None => return Err(Unsettled::Late),
                Some(Change::Ended(_)) => {
                    let _ = sys::take(self.tid);
                    return Err(Unsettled::Ended);
                }
                Some(Change::Stopped(_, Stop::Event | Stop::Group)) => {
                    if sys::has_pending_raised(self.tid).map_err(Unsettled::Trace)? {
                        // It is the next thing that the thread stops for.
                        sys::resume(self.tid, 0).map_err(Unsettled::Trace)?;
                        continue;
                    }
                    self.original = sys::registers(self.tid).map_err(Unsettled::Trace)?;
                    if self.is_in_sequence() {
                        // The kernel takes it out on its way to the program (rseq(2)), and it stops again there.
                        sys::resume(self.tid, 0).map_err(Unsettled::Trace)?;
                        sys::interrupt(self.tid).map_err(Unsettled::Trace)?;
                        continue;
                    }
                    self.forget_temporary_mask().map_err(Unsettled::Trace)?;
                    if self.since_ns == 0 {
                        self.since_ns = domain_now_ns();
                    }
                    return Ok(());
                }
                Some(Change::Stopped(_, Stop::Signal(signal))) if signal != SYSTEM_CALL_STOP => {
                    sys::interrupt(self.tid).map_err(Unsettled::Trace)?;
                    sys::resume(self.tid, signal).map_err(Unsettled::Trace)?;
                }
                Some(Change::Stopped(..)) => sys::resume(self.tid, 0).map_err(Unsettled::Trace)?,
            }
        }
        Err(Unsettled::Late)
    }

    /// A call such as ppoll(2) or sigsuspend(2) lets signals through for its own time only, and one of those would still be
    /// delivered when the thread goes on: in the slot, where the interrupted call does not learn of it and is made again. With
    /// the mask that the thread has outside of the call it waits until the call is made again. Nothing else changes: made
    /// again, the call sets its mask anew, so the agent may be killed after this as well.
    fn forget_temporary_mask(&self) -> io::Result<()> {
        if self.original.orig_rax as i64 == -1 {
            return Ok(());
        }
        // The kernel tells the mask that is to be restored, if there is one (ptrace_request in kernel/ptrace.c).
        let mask = sys::signal_mask(self.tid)?;
        sys::set_signal_mask(self.tid, mask)
    }

    /// Whether the thread is in a restartable sequence: it must go on at the sequence's abort address.
    fn is_in_sequence(&self) -> bool {
        // A kernel that cannot tell (before 5.13) is taken to have none: the C library registers one from 2.35 on, and
        // uses no sequence itself.
        let Ok(area @ 1..) = sys::restartable_sequence(self.tid) else { return false };
        // struct rseq: rseq_cs at 8; struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip.
        let word = |at: u64| {
            let mut bytes = [0; 8];
            self.memory.read(Avma(at), &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
        };
        let Some(sequence @ 1..) = word(area + 8) else { return false };
        match (word(sequence + 8), word(sequence + 16)) {
            (Some(start), Some(bytes)) => self.original.rip.wrapping_sub(start) < bytes,
            _ => true,
        }
    }

    /// Writes what the process itself cannot.
    #[cfg(test)]
    pub(super) fn poke(&self, at: Avma, bytes: &[u8]) -> io::Result<()> {
        self.memory.poke(self.tid, at, bytes)
    }

    /// Whose slot the calls are made in. It must be free.
    pub(super) fn use_slot(&mut self, slot: Slot<'a>) -> Result<(), InjectError> {
        self.slot = Some(slot);
        self.write_slot().map_err(InjectError::of_trace)
    }

    fn write_slot(&self) -> io::Result<()> {
        let Some(slot) = &self.slot else { return Ok(()) };
        let mut bytes = [0; SLOT_BYTES];
        bytes[..CALL_SLOT_BYTES].copy_from_slice(&call_slot(&self.original));
        bytes[SLOT_NAME..SLOT_NAME + NAME.len()].copy_from_slice(NAME);
        slot.write(self.tid, &bytes)
    }

    /// Makes a system call.
    pub(super) fn call(&mut self, call: RemoteCall) -> Result<CallResult, InjectError> {
        let slot = self.slot.map(|slot| slot.at()).ok_or(InjectError::NoSlot)?;
        self.alarm.set(CALL_NS).map_err(InjectError::of_trace)?;
        for _ in 0..STOPS_MAX {
            let registers = entering(&self.original, slot, call.number, call.args);
            self.is_away = true;
            #[cfg(test)]
            super::tests::hooks::before_entering(self.tid);
            sys::set_registers(self.tid, &registers).map_err(InjectError::of_trace)?;
            #[cfg(test)]
            super::tests::hooks::inside(true);
            match self.run_call()? {
                Some(result) if is_interrupted(result) => {}
                Some(result @ ERROR_MIN..) => return Ok(Err(-(result as i64) as i32)),
                Some(result) => return Ok(Ok(result)),
                None => {}
            }
        }
        Err(InjectError::Stuck)
    }

    /// Lets the thread make the call that its registers are set for; `None` if a signal came first. The thread is stopped
    /// after that.
    fn run_call(&mut self) -> Result<Option<u64>, InjectError> {
        let tid = self.tid;
        let mut is_inside = false;
        loop {
            sys::resume_to_call(tid, 0).map_err(InjectError::of_trace)?;
            let change = self.alarm.wait(tid).map_err(InjectError::of_trace)?;
            match change {
                // It completes by itself, and its slot is not used again.
                None => {
                    self.slot = None;
                    return Err(InjectError::Stuck);
                }
                Some(Change::Ended(_)) => {
                    let _ = sys::take(tid);
                    return Err(InjectError::Gone);
                }
                Some(Change::Stopped(_, Stop::Signal(SYSTEM_CALL_STOP))) if !is_inside => is_inside = true,
                Some(Change::Stopped(_, Stop::Signal(SYSTEM_CALL_STOP))) => {
                    return Ok(Some(sys::registers(tid).map_err(InjectError::of_trace)?.rax));
                }
                Some(Change::Stopped(_, Stop::Signal(signal))) => {
                    self.deliver(signal)?;
                    return Ok(None);
                }
                Some(Change::Stopped(..)) => {}
            }
        }
    }

    /// Delivers a signal to the program as it was, and stops the thread again. It has made no call since.
    fn deliver(&mut self, signal: i32) -> Result<(), InjectError> {
        let tid = self.tid;
        sys::set_registers(tid, &kept(&self.original)).map_err(InjectError::of_trace)?;
        self.is_away = false;
        sys::interrupt(tid).map_err(InjectError::of_trace)?;
        sys::resume(tid, signal).map_err(InjectError::of_trace)?;
        self.settle().map_err(|error| match error {
            Unsettled::Late => InjectError::Stuck,
            Unsettled::Ended => InjectError::Gone,
            Unsettled::Trace(error) => InjectError::of_trace(error),
        })?;
        self.write_slot().map_err(InjectError::of_trace)
    }

    /// Puts the thread back, frees its slot and lets go of it. Says how long it was stopped.
    fn release(&mut self) -> Result<Stopped, InjectError> {
        let tid = self.tid;
        let back = || -> io::Result<()> {
            // Also of a thread that has made no call: what the stop itself has interrupted goes on.
            let kept = kept(&self.original);
            if self.is_away || kept.rax != self.original.rax {
                sys::set_registers(tid, &kept)?;
            }
            #[cfg(test)]
            super::tests::hooks::inside(false);
            if let Some(slot) = &self.slot {
                slot.write(tid, &[0; SLOT_BYTES])?;
            }
            sys::detach(tid, 0)
        };
        match back() {
            // Killed meanwhile, or in a call that does not end.
            Err(error) if !sys::is_gone(&error) => Err(InjectError::Trace(error)),
            _ => Ok(Stopped { tid: tid as u32, ns: domain_now_ns() - self.since_ns }),
        }
    }
}

enum Unsettled {
    Late,
    Ended,
    Trace(io::Error),
}

fn no_registers() -> UserRegisters {
    // SAFETY: a structure of integers; all zeroes is one of its values.
    unsafe { std::mem::zeroed() }
}

fn refusal(pid: u32, tid: Tid, error: io::Error) -> Unusable {
    if error.raw_os_error() == Some(libc::ESRCH) {
        return Unusable::Thread;
    }
    if let Ok(status) = target::status(tid as u32)
        && status.tracer != 0
    {
        let name = target::status(status.tracer).map_or_else(|_| "unknown".to_owned(), |tracer| tracer.name);
        return Unusable::Process(TargetError::ForeignTracer { pid, tracer: status.tracer, name }.into());
    }
    let why = target::status(pid)
        .ok()
        .and_then(|status| target::privileges().ok()?.refusal(status.user))
        .unwrap_or_else(|| format!("{error}; give the agent CAP_SYS_PTRACE in the user namespace of the process"));
    Unusable::Process(InjectError::Denied(why))
}

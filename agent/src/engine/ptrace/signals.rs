//! Signals: each is passed on exactly once, with its siginfo, and none is delivered inside a slot.
//!
//! A handler must not find a slot's address in the interrupted context: Go refuses to preempt at a place that it does not
//! know, and a thread that hits all the time receives most of its signals right there (they arrive while it is stopped
//! and are delivered before its next instruction). So a signal that finds its thread in a slot waits while the thread is
//! stepped out, with further signals blocked, and is delivered at the place behind. A fault of the displaced instruction
//! itself is shown at the site's own address, as if the instruction had never been moved.

use super::sites::Position;
use super::tracer::{Leaving, Tracer};
use crate::engine::sys::{self, SigInfo, Tid, UserRegisters};
use std::io;

/// Signals that an instruction raises itself: these are not blocked while a thread is stepped or made to call, since a
/// blocked one would kill the process.
const RAISED_BY_INSTRUCTIONS: [i32; 5] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// All signals but those that an instruction raises.
pub(super) fn all_but_raised() -> u64 {
    RAISED_BY_INSTRUCTIONS.iter().fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)))
}

impl Tracer {
    pub(super) fn is_leaving(&self, tid: Tid) -> bool {
        self.threads.get(&tid).is_some_and(|thread| thread.leaving.is_some())
    }

    /// A signal is about to be delivered.
    pub(super) fn signalled(&mut self, tid: Tid, signal: i32) -> io::Result<()> {
        let user = sys::registers(tid)?;
        let Some(position) = self.sites.position(user.rip) else { return self.go_on(tid, signal) };
        let info = sys::signal_info(tid)?;
        if RAISED_BY_INSTRUCTIONS.contains(&signal) && info.code() > 0 {
            return self.faulted(tid, position, user, &info);
        }
        if signal == libc::SIGSTOP && self.is_leaving(tid) {
            // It cannot be blocked, and it runs no handler.
            return self.go_on(tid, signal);
        }
        let Some(thread) = self.threads.get_mut(&tid) else { return self.go_on(tid, signal) };
        if thread.leaving.is_some() {
            // All others are blocked: this cannot be, and if it is, a signal in a slot is better than one that is lost.
            return self.go_on(tid, signal);
        }
        let mask = sys::signal_mask(tid)?;
        sys::set_signal_mask(tid, mask | all_but_raised())?;
        thread.leaving = Some(Leaving { signal: Some(info), mask });
        self.go_on(tid, 0)
    }

    /// Leads a stopped thread out of its slot, for no signal.
    pub(super) fn leave(&mut self, tid: Tid) -> io::Result<()> {
        let mask = sys::signal_mask(tid)?;
        sys::set_signal_mask(tid, mask | all_but_raised())?;
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.leaving = Some(Leaving { signal: None, mask });
        }
        self.go_on(tid, 0)
    }

    /// A step is done.
    pub(super) fn stepped(&mut self, tid: Tid, user: &UserRegisters) -> io::Result<()> {
        if self.sites.position(user.rip).is_some() {
            return self.go_on(tid, 0);
        }
        self.left(tid)
    }

    /// The thread is out of its slot: the signal that has waited is delivered in place of the step's own.
    fn left(&mut self, tid: Tid) -> io::Result<()> {
        let Some(leaving) = self.threads.get_mut(&tid).and_then(|thread| thread.leaving.take()) else {
            return self.go_on(tid, 0);
        };
        sys::set_signal_mask(tid, leaving.mask)?;
        match leaving.signal {
            None => self.go_on(tid, 0),
            Some(info) => {
                // With the right siginfo in place, the kernel takes it as the signal's own (kernel/signal.c,
                // ptrace_signal).
                sys::set_signal_info(tid, &info)?;
                self.go_on(tid, info.signal())
            }
        }
    }

    /// The displaced instruction has raised a signal.
    fn faulted(&mut self, tid: Tid, position: Position, mut user: UserRegisters, info: &SigInfo) -> io::Result<()> {
        let in_slot = user.rip;
        user.rip = position.site.0;
        if position.offset > 0 && position.is_call {
            // The return address was pushed and the target could not be read: nothing has happened yet.
            user.rsp = user.rsp.wrapping_add(8);
        }
        sys::set_registers(tid, &user)?;
        let Some(thread) = self.threads.get_mut(&tid) else { return self.go_on(tid, info.signal()) };
        thread.faulted = Some((position.site, user));
        if thread.leaving.is_some_and(|leaving| leaving.signal.is_some()) {
            // The signal that waits comes first; the fault comes again when the thread is back from its handler.
            return self.left(tid);
        }
        if let Some(leaving) = thread.leaving.take() {
            sys::set_signal_mask(tid, leaving.mask)?;
        }
        if info.address() == in_slot {
            sys::set_signal_info(tid, &info.with_address(position.site.0))?;
        }
        self.go_on(tid, info.signal())
    }
}

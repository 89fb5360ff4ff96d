//! What a stop means, and how it is answered.
//!
//! ```text
//! Signal(SIGTRAP)  a site's breakpoint (passage.rs), a step out of a slot (signals.rs), or the process's own
//! Signal(other)    passed on (signals.rs)
//! Event            asked for: the thread is held; else it goes on
//! Group            the process is stopped by SIGSTOP and the like: the thread stays so, and listens for the end of it
//! Created          goes on; the new thread or process tells of itself
//! Exec             the patched memory is gone
//! ```

use super::tracer::{Kind, Phase, Tracer};
use crate::capture::memory::Memory;
use crate::engine::api::EngineEvent;
use crate::engine::memory::TargetMemory;
use crate::engine::sys::{self, SI_KERNEL, Stop, Tid};
use crate::engine::x86_64::{BREAKPOINT, registers};
use crate::target;
use riptrace_protocol::ids::Avma;
use std::io;

impl Tracer {
    /// A thread has ended, or is the first one and all have.
    pub(super) fn ended(&mut self, tid: Tid) -> io::Result<()> {
        let status = sys::take(tid)?;
        let was_met = self.threads.remove(&tid).is_some();
        if !self.expected.remove(&tid) && !was_met {
            // Its parent may tell of it yet.
            self.met_early.insert(tid);
        }
        if self.held == Some(tid) {
            self.held = None;
        }
        if tid == self.pid {
            // A child in the same memory may live on.
            self.restore_text();
            self.end(EngineEvent::Exited { status: Some(status) });
        }
        Ok(())
    }

    pub(super) fn stopped(&mut self, tid: Tid, stop: Stop) -> io::Result<()> {
        if !self.threads.contains_key(&tid) && !self.meet(tid)? {
            return Ok(());
        }
        match stop {
            Stop::Signal(libc::SIGTRAP) => self.trapped(tid),
            Stop::Signal(signal) => self.signalled(tid, signal),
            Stop::Event => self.event(tid),
            Stop::Group => self.group_stopped(tid),
            Stop::Created => self.created(tid),
            Stop::Exec => self.execed(tid),
        }
    }

    /// A thread that is seen for the first time stands at its first instruction. One with a copy of the memory is given
    /// its text back and let go: `false`.
    fn meet(&mut self, tid: Tid) -> io::Result<bool> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        if !self.expected.remove(&tid) {
            self.met_early.insert(tid);
        }
        let process = target::status(tid as u32).map_err(|_| gone())?.process;
        if process == self.key.pid {
            self.met(tid, Kind::Own);
            return Ok(true);
        }
        if sys::shares_memory(tid, self.pid)? {
            self.met(tid, Kind::Sharer);
            return Ok(true);
        }
        let memory = TargetMemory::open(tid);
        // Also sites that are removed by now: the copy may be older than that.
        for (at, original) in self.sites.originals() {
            let mut byte = [0];
            if memory.read(at, &mut byte).is_err() || byte != [BREAKPOINT] {
                continue;
            }
            if let Err(error) = memory.write(at, &[original]).or_else(|_| memory.poke(tid, at, &[original])) {
                tracing::error!(target: "engine", child = tid, ?at, %error, "a child's copy of a site cannot be restored");
            }
        }
        sys::detach(tid, 0)?;
        Ok(false)
    }

    fn created(&mut self, tid: Tid) -> io::Result<()> {
        let child = sys::created(tid)?;
        if !self.met_early.remove(&child) && !self.threads.contains_key(&child) {
            self.expected.insert(child);
        }
        self.go_on(tid, 0)
    }

    fn trapped(&mut self, tid: Tid) -> io::Result<()> {
        let mut user = sys::registers(tid)?;
        let info = sys::signal_info(tid)?;
        let behind = Avma(user.rip.wrapping_sub(1));
        if info.signal() == libc::SIGTRAP && info.code() == SI_KERNEL && self.sites.is_known(behind) {
            if self.sites.live.contains_key(&behind) {
                return self.passed(tid, behind, user);
            }
            // It was removed after the thread had run into it: the instruction is back.
            user.rip = behind.0;
            sys::set_registers(tid, &user)?;
            return self.go_on(tid, 0);
        }
        if self.is_leaving(tid) && info.code() > 0 && info.code() != SI_KERNEL {
            return self.stepped(tid, &user);
        }
        self.signalled(tid, libc::SIGTRAP)
    }

    fn event(&mut self, tid: Tid) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        thread.listening = false;
        if !thread.wanted {
            return self.go_on(tid, 0);
        }
        let user = sys::registers(tid)?;
        if let Some(restarted) = registers::restarted(&user) {
            sys::set_registers(tid, &restarted)?;
        }
        // A trap comes first: of a breakpoint that was hit just before the stop, or of the step that leads out of a slot.
        // To ask for the stop again is left to the answer to that trap, or the thread would never get to it.
        if thread.leaving.is_some() {
            return sys::step(tid, 0);
        }
        let is_behind_site = self.sites.is_known(Avma(user.rip.wrapping_sub(1)));
        if is_behind_site && sys::has_pending_trap(tid)? {
            return sys::resume(tid, 0);
        }
        let is_needed = self.phase == Phase::Tracing || !self.sites.pools().is_empty();
        if self.held.is_none() && is_needed {
            if self.phase == Phase::LettingGo && !self.lead_out(tid, user)? {
                // It is wanted still: it comes back here when it is out.
                return Ok(());
            }
            self.is_wanted_no_more(tid);
            sys::take(tid)?;
            self.held = Some(tid);
            return Ok(());
        }
        self.is_wanted_no_more(tid);
        self.go_on(tid, 0)
    }

    fn is_wanted_no_more(&mut self, tid: Tid) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.wanted = false;
        }
    }

    fn group_stopped(&mut self, tid: Tid) -> io::Result<()> {
        sys::take(tid)?;
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let is_needed = self.phase == Phase::Tracing || !self.sites.pools().is_empty();
        if thread.wanted && thread.leaving.is_none() && self.held.is_none() && is_needed {
            // It may be made to call all the same; `go_on` sends it back into the group stop.
            thread.wanted = false;
            thread.listening = true;
            if self.phase == Phase::Tracing || self.lead_out(tid, sys::registers(tid)?)? {
                self.held = Some(tid);
            }
            return Ok(());
        }
        if self.phase != Phase::Tracing {
            thread.wanted = false;
            // The kernel keeps a let-go thread in the group stop that its process is in.
            return self.go_on(tid, 0);
        }
        thread.listening = true;
        sys::listen(tid)
    }

    fn execed(&mut self, tid: Tid) -> io::Result<()> {
        if self.threads.get(&tid).is_some_and(|thread| thread.kind == Kind::Sharer) {
            self.threads.remove(&tid);
            return sys::detach(tid, 0);
        }
        // The thread that does it becomes the first one; all others are gone.
        self.restore_text();
        self.threads.clear();
        self.held = None;
        let detached = sys::detach(tid, 0);
        self.end(EngineEvent::Execed);
        detached
    }

    /// Lets a stopped thread go on: to its next instruction, one step out of its slot, or for good.
    pub(super) fn go_on(&mut self, tid: Tid, signal: i32) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return sys::resume(tid, signal) };
        // Any stop takes away the one that was asked for; and a thread that goes on from a group stop would run while its
        // process stands, unless it is stopped again.
        let is_group_stopped = std::mem::take(&mut thread.listening);
        if thread.wanted || is_group_stopped && self.phase == Phase::Tracing {
            sys::interrupt(tid)?;
        }
        if thread.leaving.is_some() {
            return sys::step(tid, signal);
        }
        match self.phase {
            Phase::Tracing => sys::resume(tid, signal),
            Phase::LettingGo | Phase::Over(_) => self.let_go_of(tid, signal),
        }
    }
}

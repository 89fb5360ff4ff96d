//! Letting go: the process is left as it was found.
//!
//! Text first. From then on no thread enters a slot or runs into a breakpoint, so every thread needs to be looked at just
//! once: one that is in a slot is led out, one that has a breakpoint's trap pending is set back to the instruction. A
//! thread that sleeps in a system call can be in neither state, and is not even woken: the kernel lets go of it when the
//! tracer thread ends. At last one thread unmaps the slots.

use super::remote::sleeps_in;
use super::tracer::{Phase, Tracer};
use crate::clock::domain_now_ns;
use crate::engine::sys::{self, Tid, UserRegisters};
use riptrace_protocol::ids::Avma;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long threads have to stop for being let go, in nanoseconds. One that takes longer sleeps in the kernel, where it
/// is in no slot.
const LET_GO_NS: u64 = 3_000_000_000;
/// How often the wait for them looks at the clock.
const TICK: Duration = Duration::from_millis(2);

/// Whether a thread may run code of the process before it is looked at again, or is about to make a copy of the memory.
fn is_wakeful(tid: Tid) -> bool {
    const MAKES_CHILDREN: [i64; 4] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork];
    sleeps_in(tid).is_none_or(|call| MAKES_CHILDREN.contains(&call))
}

/// Interrupts the wait of the thread that has started it, every few milliseconds, until it is dropped.
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start() -> Option<Ticker> {
        let waiter = sys::own_tid();
        let (stop, stopped) = mpsc::channel::<()>();
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                sys::wake(waiter);
            }
        };
        let thread = thread::Builder::new().name("tracer-ticker".to_owned()).spawn(tick).ok()?;
        Some(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic, and nothing hangs on it.
            let _ = thread.join();
        }
    }
}

impl Tracer {
    /// Puts back all text, as far as it can be written while the threads run; returns what could not.
    pub(super) fn restore_text(&mut self) -> Vec<(Avma, u8)> {
        let sites = std::mem::take(&mut self.sites.live).into_iter().map(|(at, site)| (at, site.original));
        self.sites.probes.clear();
        sites.filter(|(at, original)| self.memory.write(*at, &[*original]).is_err()).collect()
    }

    /// Restores the process and lets it go. The tracer is over then.
    pub(super) fn let_go(&mut self) {
        if self.phase != Phase::Tracing {
            return;
        }
        let Some(_ticker) = Ticker::start() else {
            // Without it a thread that cannot stop would be waited for without end. The text is what matters.
            self.restore_text();
            self.phase = Phase::Over(None);
            return;
        };
        for (at, original) in self.restore_text() {
            self.restore(at, original);
        }
        self.phase = Phase::LettingGo;
        let deadline_ns = domain_now_ns() + LET_GO_NS;
        while self.ask_the_wakeful() && !self.is_over() && domain_now_ns() < deadline_ns {
            self.pump();
        }
        if !self.is_over() && !self.sites.pools().is_empty() && !self.ask_the_wakeful() {
            // All others are gone or sleep outside of the slots.
            if let Ok(tid) = self.stop_one()
                && let Err(error) = self.unmap_pools(tid)
                && !sys::is_gone(&error)
            {
                tracing::warn!(target: "engine", pid = self.pid, %error, "the slots stay mapped");
            }
        }
        if let Some(tid) = self.held.take() {
            // If it is gone, there is nothing to let go.
            let _ = self.go_on(tid, 0);
        }
        if !self.is_over() {
            self.phase = Phase::Over(None);
        }
    }

    /// Asks every thread to stop that may be in a slot or have a trap pending; whether any is still awaited.
    fn ask_the_wakeful(&mut self) -> bool {
        // A child with a copy of the patched text must be met before the tracer ends.
        let mut is_awaited = !self.expected.is_empty();
        for (&tid, thread) in &mut self.threads {
            if self.held == Some(tid) || thread.clear {
                continue;
            }
            if !thread.wanted && thread.leaving.is_none() {
                if thread.listening || is_wakeful(tid) {
                    thread.wanted = sys::interrupt(tid).is_ok();
                } else {
                    thread.clear = true;
                }
            }
            is_awaited |= thread.wanted || thread.leaving.is_some();
        }
        is_awaited
    }

    /// Puts a stopped thread where it would be without slots, while the text is as it was. `false` if it has to step.
    pub(super) fn lead_out(&mut self, tid: Tid, mut user: UserRegisters) -> io::Result<bool> {
        let Some(position) = self.sites.position(user.rip) else { return Ok(true) };
        if position.offset > 0 {
            self.leave(tid)?;
            return Ok(false);
        }
        user.rip = position.site.0;
        sys::set_registers(tid, &user)?;
        Ok(true)
    }

    /// Lets go of a stopped thread, out of its slot and behind no breakpoint.
    pub(super) fn let_go_of(&mut self, tid: Tid, signal: i32) -> io::Result<()> {
        let user = sys::registers(tid)?;
        if !self.lead_out(tid, user)? {
            return Ok(());
        }
        if self.sites.is_known(Avma(user.rip.wrapping_sub(1))) && sys::has_pending_trap(tid)? {
            return sys::resume(tid, signal);
        }
        self.threads.remove(&tid);
        sys::detach(tid, signal)
    }
}

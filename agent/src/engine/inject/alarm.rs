//! Deadlines of waits for a tracee: waitid(2) has none, so a timer interrupts it.

use crate::clock::domain_now_ns;
use crate::engine::sys::{self, Change, Tid, Whose};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// After the deadline the timer fires this often, in nanoseconds: one that fires just before the wait begins does not
/// interrupt it.
const REPEAT_NS: i64 = 5_000_000;

/// Interrupts waits of the thread that made it.
pub(super) struct Alarm {
    timer: libc::timer_t,
    deadline_ns: u64,
}

impl Alarm {
    /// An alarm of this thread. It must stay on it.
    pub(super) fn new() -> io::Result<Alarm> {
        sys::accept_wakes()?;
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        // SAFETY: sigevent is plain data and zeroed before the fields that SIGEV_THREAD_ID needs are set
        // (timer_create(2)); the call writes one timer id, read only if it says that it did.
        let timer = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = sys::wake_signal();
            event.sigev_notify_thread_id = sys::own_tid();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, timer.as_mut_ptr()) == -1 {
                return Err(io::Error::last_os_error());
            }
            timer.assume_init()
        };
        Ok(Alarm { timer, deadline_ns: 0 })
    }

    /// Waits end within this time from now.
    pub(super) fn set(&mut self, within_ns: u64) -> io::Result<()> {
        self.deadline_ns = domain_now_ns() + within_ns;
        let time = |ns: i64| libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        let spec = libc::itimerspec { it_interval: time(REPEAT_NS), it_value: time(within_ns.max(1) as i64) };
        // SAFETY: `spec` is read for the call; the timer is this one's own; the old value is not asked for.
        match unsafe { libc::timer_settime(self.timer, 0, &spec, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next change of a tracee; `None` if there is none until the deadline.
    pub(super) fn wait(&self, tid: Tid) -> io::Result<Option<Change>> {
        loop {
            match sys::wait(Whose::Only(tid)) {
                Ok(Some(change)) => return Ok(Some(change)),
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // No tracee any more: another thread's exec has ended it.
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Some(Change::Ended(tid))),
                Err(error) => return Err(error),
            }
            if domain_now_ns() >= self.deadline_ns {
                return Ok(None);
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this one's own and not used after this.
        unsafe { libc::timer_delete(self.timer) };
    }
}

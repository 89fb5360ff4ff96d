//! Which thread of a process makes calls for the agent, and what forbids it for all of them.

use super::error::InjectError;
use crate::target::{self, Seccomp, proc_file};
use riptrace_protocol::ids::ProcessKey;

/// Looks at a process with a thread that blocks a signal it must not block, before that counts as its way: the C library
/// and Go block all signals for some microseconds while they make a thread or a process, and a handler blocks its own.
const LOOKS_MAX: usize = 100;
/// The same for a thread that sleeps: nobody sleeps in those moments as a rule.
const SLEEPING_LOOKS_MAX: usize = 5;
/// Time between two looks, in nanoseconds.
const LOOK_NS: u64 = 4_000_000;

/// Signals that faults, breakpoints and bad instructions raise.
const RAISED: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGILL];

/// System calls in which a thread is stopped last: even a stop without a signal ends them with EINTR (signal(7)). While
/// the agent lives it makes up for that; if it is killed just then, the program sees it.
const UNEASY: [i64; 8] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    libc::SYS_io_uring_enter,
];
/// The same as places in the kernel (/proc/TID/wchan), where the system call may not be read.
const UNEASY_PLACES: [&str; 5] = ["ep_poll", "do_epoll_wait", "do_semtimedop", "do_sigtimedwait", "read_events"];
/// System calls that wait for a signal: best left alone, lest one is lost between two of them.
const AWAITS_SIGNAL: [i64; 2] = [libc::SYS_pause, libc::SYS_rt_sigsuspend];
const AWAITS_SIGNAL_PLACES: [&str; 3] = ["do_sys_pause", "__do_sys_pause", "sigsuspend"];

/// How much a thread minds being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unease {
    /// It runs, or may run.
    Runs,
    /// It sleeps in a system call that goes on after a stop as if nothing had been.
    Sleeps,
    /// It sleeps in one that a stop ends.
    Ends,
    /// It waits for a signal.
    AwaitsSignal,
    /// Its process is stopped.
    Stopped,
}

fn unease(tid: u32, state: char) -> Option<Unease> {
    match state {
        'R' => return Some(Unease::Runs),
        'T' => return Some(Unease::Stopped),
        'S' => {}
        // In a device's hands, held by another tracer, ended.
        _ => return None,
    }
    // "running", "-1 sp pc" for a thread that sleeps outside of a call, or "number arguments.. sp pc". The owner of the
    // process and root may read it.
    if let Ok(text) = proc_file::read_text(format!("/proc/{tid}/syscall")) {
        let number: Option<i64> = text.split_whitespace().next().and_then(|word| word.parse().ok());
        return Some(match number {
            Some(number) if UNEASY.contains(&number) => Unease::Ends,
            Some(number) if AWAITS_SIGNAL.contains(&number) => Unease::AwaitsSignal,
            _ => Unease::Sleeps,
        });
    }
    let place = proc_file::read_text(format!("/proc/{tid}/wchan")).unwrap_or_default();
    let is_in = |places: &[&str]| places.iter().any(|&name| place.trim() == name);
    Some(match () {
        () if is_in(&UNEASY_PLACES) => Unease::Ends,
        () if is_in(&AWAITS_SIGNAL_PLACES) => Unease::AwaitsSignal,
        () => Unease::Sleeps,
    })
}

/// The threads of a process that may be asked, those that mind it least first.
pub(super) fn candidates(pid: u32) -> Result<Vec<u32>, InjectError> {
    let mut candidates: Vec<(Unease, u32)> = target::tasks(pid)?
        .into_iter()
        .filter_map(|tid| {
            // Of a thread that has just ended nothing can be read.
            let state = target::status(tid).ok()?.state;
            Some((unease(tid, state)?, tid))
        })
        .collect();
    candidates.sort_unstable();
    #[cfg_attr(not(test), expect(unused_mut, reason = "tests choose another thread"))]
    let mut tids: Vec<u32> = candidates.into_iter().map(|(_, tid)| tid).collect();
    #[cfg(test)]
    super::tests::hooks::rotate(&mut tids);
    Ok(tids)
}

/// What is known of a process that can be injected into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fitness {
    /// Whether any thread has a shadow stack.
    pub(super) shadow_stack: bool,
}

/// Whether anything may be injected, as far as /proc tells of all threads. `raises`: what is injected may raise signals,
/// which no thread may block then.
pub(super) fn check(key: ProcessKey, raises: bool) -> Result<Fitness, InjectError> {
    let status = target::check(key)?;
    let privileges = target::privileges()?;
    if let Some(why) = privileges.refusal(status.user) {
        return Err(InjectError::Denied(why));
    }
    let (mut looks, mut sleeping) = (0, 0);
    loop {
        let (tid, signal) = match look(key.pid, raises)? {
            Look::Fit(fitness) => return Ok(fitness),
            Look::Blocks { tid, signal, sleeps } => {
                sleeping = if sleeps { sleeping + 1 } else { 0 };
                (tid, signal)
            }
        };
        looks += 1;
        if looks >= LOOKS_MAX || sleeping >= SLEEPING_LOOKS_MAX {
            return Err(InjectError::BlocksSignal { tid, signal });
        }
        wait_ns(LOOK_NS);
    }
}

enum Look {
    Fit(Fitness),
    Blocks { tid: u32, signal: i32, sleeps: bool },
}

/// Whether a thread may make a call that nobody has foreseen, as far as /proc tells.
pub(super) fn may_call(tid: u32) -> Result<(), InjectError> {
    match target::status(tid).map(|status| status.seccomp) {
        // One that has just ended makes none.
        Ok(Seccomp::Off) | Err(_) => Ok(()),
        Ok(Seccomp::Strict) => Err(InjectError::SeccompStrict),
        Ok(Seccomp::Filter) => Err(InjectError::SeccompFilter),
    }
}

fn look(pid: u32, raises: bool) -> Result<Look, InjectError> {
    let mut fitness = Fitness { shadow_stack: false };
    for tid in target::tasks(pid)? {
        let Ok(status) = target::status(tid) else { continue };
        match status.seccomp {
            Seccomp::Off => {}
            Seccomp::Strict => return Err(InjectError::SeccompStrict),
            Seccomp::Filter => return Err(InjectError::SeccompFilter),
        }
        if status.tracer != 0 {
            let name = target::status(status.tracer).map_or_else(|_| "unknown".to_owned(), |tracer| tracer.name);
            return Err(target::TargetError::ForeignTracer { pid, tracer: status.tracer, name }.into());
        }
        // A thread that has ended blocks whatever it did.
        let lives = !matches!(status.state, 'Z' | 'X');
        let blocked = |&signal: &i32| status.blocked_signals >> (signal - 1) & 1 == 1;
        if let Some(signal) = RAISED.into_iter().find(blocked)
            && lives
            && raises
        {
            return Ok(Look::Blocks { tid, signal, sleeps: status.state == 'S' });
        }
        fitness.shadow_stack |= status.shadow_stack;
    }
    Ok(Look::Fit(fitness))
}

/// Waits without anything to wait for: what is looked at tells of no change.
pub(super) fn wait_ns(ns: u64) {
    std::thread::park_timeout(std::time::Duration::from_nanos(ns));
}

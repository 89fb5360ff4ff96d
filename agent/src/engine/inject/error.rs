//! Why nothing can be injected into a process.

use crate::target::TargetError;
use riptrace_protocol::ids::Avma;
use std::io;

/// Why nothing can be injected, or why a call could not be made. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum InjectError {
    /// The process is gone, ended, traced by somebody else, or may not be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The process has ended meanwhile.
    #[error("the process has ended")]
    Gone,
    /// The kernel does not let the agent trace it.
    #[error("the kernel refuses to have it traced: {0}")]
    Denied(String),
    /// Its system calls are filtered: what the filter does with a call that it does not know cannot be told.
    #[error(
        "a seccomp filter may kill it for a system call that it does not know: tracepoints stop the thread that hits; \
         run it without the filter to have them inside"
    )]
    SeccompFilter,
    /// It may only read, write, exit and return from signals.
    #[error("it runs under strict seccomp: no call can be made in it")]
    SeccompStrict,
    /// A thread of it blocks a signal by which faults and breakpoints are told: the kernel kills it for one.
    #[error(
        "thread {tid} blocks signal {signal} (SIGILL, SIGTRAP, SIGBUS or SIGSEGV), so a breakpoint or a fault in it is \
         fatal: have it block other signals only"
    )]
    BlocksSignal {
        /// Which thread.
        tid: u32,
        /// Which signal.
        signal: i32,
    },
    /// It has its system calls dispatched to itself (Wine does so).
    #[error("it handles its own system calls (PR_SET_SYSCALL_USER_DISPATCH), so none can be made for the agent")]
    SystemCallDispatch,
    /// No thread of it runs 64-bit code.
    #[error("it runs 32-bit code: only 64-bit processes can be injected into")]
    Not64Bit,
    /// No thread stopped in time.
    #[error("none of its threads could be stopped within {waited_ms} ms: is it frozen, or waiting for a device?")]
    NoThread {
        /// How long all tries together took, in milliseconds.
        waited_ms: u64,
    },
    /// No place for the first call.
    #[error("it has no executable page with unused bytes at its end, not even the vdso: no call can be made in it")]
    NoSlot,
    /// No gap in its address space is near enough.
    #[error("no {bytes} bytes of its address space are free within 2 GB of {at:?}")]
    NoRoom {
        /// What the memory was to be near to.
        at: Avma,
        /// How much was needed.
        bytes: usize,
    },
    /// It has as many islands as there can be.
    #[error("it has code in more places than can be served: {at:?} is too far from all of them")]
    TooManyIslands {
        /// What was to be reached.
        at: Avma,
    },
    /// Another agent has it.
    #[error("the agent with pid {agent} traces it: stop that agent first")]
    Owned {
        /// That agent's pid.
        agent: u64,
    },
    /// Another version of RipTrace was here.
    #[error("an agent of another version (area version {found}) has left code in it: restart it to trace it again")]
    Version {
        /// The version it wrote.
        found: u32,
    },
    /// A system call in the process failed.
    #[error("{what} failed in the process: {}", io::Error::from_raw_os_error(*.errno))]
    Call {
        /// Which call.
        what: &'static str,
        /// Its error.
        errno: i32,
    },
    /// A system call in the process does not end. It completes by itself; its thread goes on then.
    #[error("a system call in the process does not end: it goes on by itself once it does")]
    Stuck,
    /// The memory file could not be taken from the process.
    #[error("cannot take the shared memory's descriptor from it (pidfd_getfd, since Linux 5.6): {0}")]
    Descriptor(io::Error),
    /// The agent's own mapping failed.
    #[error("cannot map the shared memory in the agent: {0}")]
    Memory(io::Error),
    /// Memory of the process could not be read or written.
    #[error("cannot {what} its memory at {at:?}")]
    Fault {
        /// "read" or "write".
        what: &'static str,
        /// Where.
        at: Avma,
    },
    /// ptrace failed in a way that has no name here.
    #[error("tracing it failed: {0}")]
    Trace(io::Error),
}

impl InjectError {
    /// Of a ptrace request on a thread that was stopped.
    pub(super) fn of_trace(error: io::Error) -> InjectError {
        if super::super::sys::is_gone(&error) { InjectError::Gone } else { InjectError::Trace(error) }
    }
}

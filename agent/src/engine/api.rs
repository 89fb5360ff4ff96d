//! What the engine is asked and what it answers.

use super::x86_64::analysis::SiteChoice;
use crate::capture::program::Program;
use crate::target::TargetError;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{Avma, LayoutId, TracepointId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One tracepoint in one process.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Its sites: at least one.
    pub sites: Vec<ProbeSite>,
    /// Hits per second, at most; `None` lifts the budget. What is over it is counted as [`DropReason::Rate`].
    pub rate_per_s: Option<u32>,
}

/// One address of a probe and what a passage through it does.
#[derive(Debug, Clone)]
pub struct ProbeSite {
    /// Where: the first byte of an instruction.
    pub address: Avma,
    /// What a passage does.
    pub program: Arc<Program>,
    /// How its hits are read.
    pub layout: LayoutId,
    /// What can be written there, as the analysis of the build's file says; or why that is not known, for a person.
    pub patch: Result<SitePatch, String>,
}

/// What can be written at a site.
#[derive(Debug, Clone)]
pub struct SitePatch {
    /// Which patch, and why not a cheaper one. Its addresses are the file's.
    pub choice: SiteChoice,
    /// The file's bytes from the site on: at least [`SITE_BYTES`], unless its section ends before.
    pub original: Vec<u8>,
    /// Whether the function that holds it is Go's: its goroutine may be preempted there, and it uses no red zone.
    pub is_go: bool,
}

/// Bytes of a site that are looked at: the most that a patch displaces.
pub const SITE_BYTES: usize = 19;

/// Where Go's runtime keeps what the engine looks at in a process: addresses in the process, offsets in bytes
/// (`runtime/runtime2.go`, `runtime/proc.go` of Go's source have the names).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoRuntime {
    /// `runtime.allglen`: how many `g`s there are, those of dead goroutines included.
    pub allglen: Avma,
    /// `runtime.allgptr`: address of the array of pointers to them.
    pub allgptr: Avma,
    /// Of the word that holds a thread's current `g`, from the thread pointer.
    pub g_tls: i64,
    /// `g.stack.lo`.
    pub g_stack_lo: u32,
    /// `g.stack.hi`.
    pub g_stack_hi: u32,
    /// `g.m`.
    pub g_m: u32,
    /// `g.sched.sp`.
    pub g_sched_sp: u32,
    /// `g.sched.pc`.
    pub g_sched_pc: u32,
    /// `g.atomicstatus`.
    pub g_status: u32,
    /// `g.goid`.
    pub g_goid: u32,
    /// `g.asyncSafePoint`: whether the goroutine was parked between two instructions of its own.
    pub g_async_safe_point: u32,
    /// `m.g0`.
    pub m_g0: u32,
    /// `m.gsignal`.
    pub m_gsignal: u32,
    /// `m.curg`.
    pub m_curg: u32,
    /// `m.procid`: the thread, as its own pid namespace numbers it.
    pub m_procid: u32,
}

/// What is known of the program that a process runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessRuntime {
    /// Whether it is a Go program.
    pub is_go: bool,
    /// Where Go keeps its goroutines, if the build tells.
    pub go: Option<GoRuntime>,
    /// Whether its C library is the GNU one.
    pub is_gnu: bool,
}

/// Which mechanisms may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mechanisms {
    /// The cheapest that is sound whatever the program does later. A program that is not Go's may take any signal for
    /// its own at any time, so inside of it nothing relies on a handler: it takes jumps only, which are written while it
    /// stands still, and no load of a capture faults. A probe that cannot be had so is had from outside, if the process has
    /// no other.
    #[default]
    Auto,
    /// Inside the process, whatever its language, with breakpoints where a site takes no jump: for native programs that
    /// leave SIGTRAP and SIGILL to the engine for as long as they are traced, and block neither. One that does not is
    /// killed by the next breakpoint.
    Inside,
    /// Nothing is injected: the agent stops the thread that hits.
    Ptrace,
}

/// How a process is to be traced.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions {
    /// What may be used.
    pub mechanisms: Mechanisms,
    /// What the process runs.
    pub runtime: ProcessRuntime,
    /// How much of one CPU all probes of the process may take, in percent.
    pub cpu_percent: u32,
}

/// A probe was armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmOutcome {
    /// Sites that are patched for it.
    pub sites: usize,
    /// The costliest mechanism of its sites.
    pub mechanism: Mechanism,
    /// Why it is not a cheaper one.
    pub note: Option<String>,
    /// Nanoseconds for which the whole process stood still for it; 0 where no site needed that, and where every passage
    /// stops its thread.
    pub stopped_ns: u64,
}

/// What became of the passages of a probe since it was armed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passages of threads through its sites, whatever became of them. One whose condition is false is none.
    pub passages: u64,
    /// Of these, how many became hits and were handed to the publisher (or, for a counting probe, were counted).
    pub hits: u64,
    /// Of these, how many should have become hits and did not, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// What is to be known of the probe besides: that it is sampled, why its mechanism is not a cheaper one.
    pub note: Option<String>,
    /// Why it was switched off though it is wanted.
    pub off: Option<String>,
    /// Whether there is more that is not counted yet, of a probe that was removed.
    pub unfinished: bool,
}

/// What happened to the process, told once, by the engine's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// The process ended.
    Exited {
        /// Its wait status, as in waitpid(2); `None` where it could not be learnt.
        status: Option<i32>,
    },
    /// The process runs another program now: all sites are gone with the old one.
    Execed,
    /// The engine let go of the process because it could not go on; the process runs on.
    Lost {
        /// Why.
        why: String,
    },
}

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The process is not as it has to be.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The kernel refused.
    #[error("cannot trace process {pid}: {source}")]
    Seize {
        /// Which process.
        pid: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// What another agent has left in the process could not be taken out.
    #[error("process {pid} has tracepoints of another agent that could not be taken out: {why}; try again")]
    Remains {
        /// Which process.
        pid: u32,
        /// Why not.
        why: String,
    },
    /// The process starts threads faster than they can be followed.
    #[error("process {pid} starts threads faster than they can be followed; try again when it is calmer")]
    Threads {
        /// Which process.
        pid: u32,
    },
    /// The agent's own thread could not be started.
    #[error("cannot start the thread that traces process {pid}: {source}; raise the agent's limit of threads")]
    Spawn {
        /// Which process.
        pid: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a probe cannot be armed. Nothing of it is armed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// The engine has let go of the process.
    #[error("the process is not traced any more: it ended, or started another program")]
    Gone,
    /// The tracepoint has a probe here already.
    #[error("tracepoint {0} is armed in this process already; remove it first")]
    Duplicate(TracepointId),
    /// A probe without sites.
    #[error("tracepoint {0} has no site in this process")]
    NoSites(TracepointId),
    /// The bytes at a site cannot be read or are no instruction.
    #[error("there is no instruction at {:#x} in the process: its memory is not the build's file", .0.0)]
    NoInstruction(Avma),
    /// A breakpoint of somebody else is there.
    #[error("another debugger's breakpoint is at {:#x}; detach it first", .0.0)]
    ForeignBreakpoint(Avma),
    /// The instruction at a site cannot be executed elsewhere.
    #[error("the instruction at {:#x} ({instruction}) cannot be traced; choose another line", at.0)]
    Instruction {
        /// Where.
        at: Avma,
        /// Which kind it is.
        instruction: String,
    },
    /// A call, jump or return at a site of a process with a shadow stack.
    #[error(
        "the instruction at {:#x} is a call or return, and the process has a shadow stack; choose another line", .0.0
    )]
    ShadowStack(Avma),
    /// The site's instruction needs a page in the process and none may be mapped.
    #[error("the process has a seccomp filter: no memory may be mapped in it for the instruction at {:#x}", .0.0)]
    Seccomp(Avma),
    /// A site can take no patch.
    #[error("{0}")]
    Refused(String),
    /// A site of a native program can only be had by a breakpoint, which the program could take for its own.
    #[error(
        "it takes a breakpoint, which a native program can take for its own signal ({why}); choose another line, or remove \
         the process's other tracepoints so that all of them can be traced by ptrace"
    )]
    Breakpoint {
        /// Why it is not a jump.
        why: String,
    },
    /// There are as many probes as there can be.
    #[error("the process has {0} tracepoints, which is the most there can be; remove one")]
    Probes(usize),
    /// No address range near the site is free.
    #[error("no free memory within 2 GB of {:#x} in the process", .0.0)]
    NoRoom(Avma),
    /// The process refused to map memory.
    #[error("mapping a page in the process failed: {}", std::io::Error::from_raw_os_error(*errno))]
    Map {
        /// What its kernel said.
        errno: i32,
    },
    /// No thread of the process could be stopped in time.
    #[error("no thread of the process could be stopped for a moment: all are in uninterruptible waits; try again")]
    NoThread,
    /// The text of the process cannot be written.
    #[error("the process's code at {:#x} cannot be written: {}", at.0, std::io::Error::from_raw_os_error(*errno))]
    Write {
        /// Where.
        at: Avma,
        /// What the kernel said.
        errno: i32,
    },
}

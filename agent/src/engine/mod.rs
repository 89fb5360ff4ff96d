//! Engine: the tracepoints inside one process.
//!
//! [`Engine`] is the handle that the rest of the agent holds. Two backends do the work:
//!
//! - `inprocess`: a passage runs inside the process, in tens of nanoseconds. ptrace only installs.
//! - [`ptrace`]: the last resort, for processes in which nothing may run that is not theirs. It stops the thread that
//!   hits.
//!
//! What is particular to an architecture is in a folder of its own ([`x86_64`]).
#![allow(unsafe_code, reason = "ptrace is the job of this module; each block says why it is sound")]

mod api;
mod area;
mod handle;
mod inject;
mod inprocess;

mod ptrace;

mod memory;
mod patch;
mod record;
mod sys;
mod x86_64;

pub use api::{
    ArmError, ArmOutcome, AttachError, AttachOptions, Counts, EngineEvent, GoRuntime, Mechanisms, Probe, ProbeSite,
    ProcessRuntime, SITE_BYTES, SitePatch,
};
pub use handle::{Engine, sweep};
#[doc(hidden)]
pub use record::exercise as exercise_record;
pub use x86_64::analysis;

/// Whether two processes have one memory: a child by vfork(2) has its parent's until it starts another program, and what is
/// written there is written into its parent. A kernel that does not tell (kcmp(2)) says no.
pub(crate) fn shares_memory(one: u32, other: u32) -> bool {
    sys::shares_memory(one as sys::Tid, other as sys::Tid).unwrap_or(false)
}

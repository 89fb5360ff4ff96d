//! Injection: the area in a process, and the system calls that the process makes for the agent.
//!
//! ```text
//! threads   which thread, and what forbids it       leftovers   what other agents have left
//! tracee    one thread, stopped                     place       where an island goes
//! slots     where it makes its calls                map         the agent's own view of the area
//! area      making, completing, taking over         allocate    which parts of an island's code are taken
//! handlers  setting signal handlers
//! ```
//!
//! Invariants:
//! - The agent may be killed at any instruction: the process goes on as it was, and what is left in it is found by the
//!   next agent ([`tracee`], [`leftovers`]).
//! - CAP_SYS_PTRACE is enough, whoever the process belongs to: nothing rests on /proc/PID/mem, /proc/PID/fd or
//!   /proc/PID/map_files, which the file permissions protect.
//! - At most one thread of the process is stopped, for as long as some system calls take.
//! - Nothing is ever unmapped: a thread may be in it.
//!
//! Not here: what code is in the area (the pads), and who writes the text (the patches).

mod alarm;
mod allocate;
mod area;
mod control;
mod descriptor;
mod error;
mod handlers;
pub(in crate::engine) mod leftovers;
mod map;
mod place;
mod slots;
mod threads;
mod tracee;

#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "the in-process backend is being wired")]
pub(in crate::engine) use self::{
    area::{Facts, Injection},
    error::InjectError,
    handlers::{Installed, KernelAction},
    map::{AreaMap, Window},
    place::Rel32,
    tracee::{CallResult, RemoteCall, Stopped},
};

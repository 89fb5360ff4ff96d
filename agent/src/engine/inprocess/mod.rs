//! The in-process backend: a passage runs inside the process and leaves a record in a ring; ptrace only installs.
//!
//! ```text
//! engine   arms, removes, lets go                    reader   the thread: when to look, budgets
//!   text   pads, patches, handlers                     drain  one pass: records become hits, promises are made
//!   chain  the engine's handlers, before those of the program
//!   reclaim  pads that nobody needs any more
//!   removal  what takes out what another agent has left, in whichever state
//!   sites  which patch each site takes                   rings    what is committed; up to when all was seen
//! book     probes, kinds of records, counts              tsc      the counter's time
//! budget   hits per second, share of a CPU               threads  ids
//! leftovers  patches of others in processes that nobody traces
//! shared   the words of the shared memory              life     whether the process is still the same
//! ```
//!
//! What always holds:
//! - A passage becomes a hit or is counted with a reason, inside the process or here; `passages = records + counters`.
//! - The process never waits for the agent, and does not need it: killed at any moment, it leaves a process that runs on.
//! - Hits leave a process in any order, but never after the reader has promised that nothing older is to come.
//!
//! Not here: how to get code and memory into a process ([`super::inject`]), how to change text that runs
//! ([`super::patch`]), what is executed there ([`super::x86_64`]).

mod book;
mod budget;
mod chain;
mod drain;
mod engine;
mod leftovers;
mod life;
mod reader;
mod reclaim;
mod removal;
mod rings;
mod shared;
mod sites;
mod text;
mod threads;
mod tsc;

#[cfg(test)]
mod tests;

pub(super) use engine::{InProcessEngine, NotInside};
pub(super) use leftovers::sweep;

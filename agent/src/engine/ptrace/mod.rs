//! The ptrace backend: the last resort, for processes in which nothing may run that is not theirs.
//!
//! It stops the thread that hits, and only that one.
//!
//! ```text
//! PtraceEngine (handle) --command + wake signal--> tracer thread --ptrace--> threads of the process
//!                        <------- reply ----------       |
//!                                                        '--hits, drops--> HitSink
//! ```
//!
//! Invariants:
//! - An armed site is an `int3` that stays where it is until the probe is removed: no thread can slip past while another
//!   one is handled. The displaced instruction runs out of line, in a slot: the thread that hit is sent there and comes
//!   back by itself, so a passage costs one stop.
//! - No thread outside a slot ever sees a slot's address: signals that arrive in one are delivered once the thread is
//!   out of it, faults are shown at the site's own address, a return address is always the original one.
//! - A stop is looked at without being taken from the kernel (`WNOWAIT`), and is answered in the same breath. If the
//!   agent is killed in between, the kernel still holds the signal and delivers it: none is ever lost with the agent.
//! - If the agent is killed, the process takes the breakpoints out by itself as it runs into them
//!   ([`super::x86_64::fallback`]); what it has not run into is taken over by the next agent.
//! - While a thread stands still the tracer waits for nothing but the kernel.
//! - The engine forgets nothing that it patched: text is restored, threads are led out of the slots, and the slots are
//!   unmapped before the process is let go.

mod counters;
mod detach;
mod handle;
pub(super) mod left;
mod passage;
mod remote;
mod signals;
mod sites;
mod stops;
mod tracer;

pub(super) use handle::PtraceEngine;

#[cfg(test)]
pub(super) mod tests;

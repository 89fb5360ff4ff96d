//! Publishing: from hits of many processes to batches in one order, with what was dropped.
//!
//! ```text
//! tracer threads --HitSink--> HitQueue --take--> Packer --> Outbox --one at a time--> Bus (JetStream)
//!      (sink)                  (sink)           (packer)   (outbox)                   (bus)
//!                                                  ^
//!                                    Frames: what program counters stand for
//! ```
//!
//! Each arrow has a bound and a drop reason: the queue ([`DropReason::Queue`]) and the outbox ([`DropReason::Bus`]).
//! [`publisher`] is the task that moves things along; it alone reads a clock.
//!
//! [`DropReason::Queue`]: riptrace_protocol::hit::DropReason::Queue
//! [`DropReason::Bus`]: riptrace_protocol::hit::DropReason::Bus

pub(crate) mod activations;
pub(crate) mod bus;
pub(crate) mod frames;
pub(crate) mod outbox;
mod pace;
pub(crate) mod packer;
pub(crate) mod publisher;
pub(crate) mod recent;
pub mod sink;
#[cfg(test)]
mod tests;

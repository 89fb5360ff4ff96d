//! One debug session: a pure state machine from the editor's requests and the fleet's events to answers and commands.
//!
//! ```text
//!            initialize            attach              joined              configurationDone
//!  [Fresh] ------------> [Ready] ----------> [Joining] ------> [Joined] -----------------------> (may stop at hits)
//!                           ^                    | failed         | terminate, disconnect
//!                           +--------------------+                v
//!                                                              [Ended]
//! ```
//! Nothing is ever stopped in the fleet. "Paused in hit n" is a view ([`state::View`]) on the timeline: `stopped` events
//! move it, and the services know nothing of it.
//!
//! Invariants
//! - Each request is answered exactly once, whatever it holds and whenever it comes.
//! - A hit has exactly one row, or is counted in one; a metric's is in its numbers.
//! - A tracepoint is removed only after its creation was answered; after `disconnect` none of the session's is left.

mod breakpoints;
mod client;
mod correlation;
mod evaluate;
mod event;
mod exceptions;
mod functions;
mod handles;
mod jump;
mod lifecycle;
mod mapping;
mod modes;
mod motion;
mod own;
mod past;
mod paths;
mod progress;
mod recording;
mod sources;
mod stack;
mod state;
mod status;
mod stream;
mod threads;
mod variables;
mod window;

pub(crate) use event::{Effect, Event, JoinedFleet, Mapped, OpenedRecording};
pub(crate) use paths::LocalFiles;
pub(crate) use state::State;

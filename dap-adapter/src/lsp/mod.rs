//! The language server: what the fleet's tracepoints say, in the text itself.
//!
//! On a line with a tracepoint it shows hit counts per host and their rate (code lens) and the last values (inlay hint),
//! refreshed as hits arrive; where no running build takes the tracepoint, a diagnostic says why.
//!
//! Unless a command asks it to trace a line ([`traces`]), it only looks. It learns the tracepoints of all sessions from the
//! coordinator's view of the fleet, which it asks for every second, and the hits from the sessions' streams. Without a
//! fleet it serves empty results and keeps trying quietly.
//!
//! ```text
//! editor --> server (tower-lsp) --> state <-- driver <-- observer <-- bus
//!                                     |          |
//!                                     +-effects->+--> line mapping, refresh, diagnostics
//! ```
//! [`state`] is pure; [`server`], [`input`] and [`convert`] are the only files that know the protocol's types; another LSP library
//! would change only them.

mod actions;
mod convert;
mod driver;
pub(crate) mod fuzzing;
mod hover;
mod input;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod methods;
mod observer;
mod rate;
#[cfg(test)]
mod scale_tests;
mod scenario;
mod server;
mod settings;
mod show;
mod state;
#[cfg(test)]
mod test_editor;
#[cfg(test)]
mod test_fleet;
mod text;
mod traces;

pub use server::serve_lsp;

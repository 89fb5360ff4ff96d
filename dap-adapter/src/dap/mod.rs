//! The debug adapter: an ordinary debugger's user interface over a fleet in which nothing is ever stopped.
//!
//! ```text
//!  editor  <->  codec (framing)  <->  envelope (seq, type)  <->  types (the crate `dap`)  <->  session (pure)
//!                                        driver: transport, clock, fleet client
//! ```
//! `DAP.md` beside the crate's manifest says what the adapter offers, request by request.

mod codec;
mod driver;
mod envelope;
pub mod fleet;
pub(crate) mod fuzzing;
mod limits;
mod locations;
mod recordings;
#[cfg(test)]
mod requests;
mod session;
mod types;

pub use driver::{DapError, listen_dap, serve_connections, serve_dap, serve_fleets, serve_fleets_keeping};

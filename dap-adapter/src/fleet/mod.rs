//! The fleet as the editor side sees it: a client of the coordinator's API.
//!
//! It keeps a session alive over lost messages, a restarted bus and a restarted coordinator: it renews the lease,
//! opens the session again when the coordinator has forgotten it, and reads the session's ordered stream from where it
//! was. It decides nothing about hits.

mod client;
mod session;

pub use client::{FleetClient, FleetError};
pub use session::{Session, SessionEvent, SessionEvents, SessionHandle};

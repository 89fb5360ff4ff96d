//! The words of RipTrace: everything that crosses a boundary between its parts.
//!
//! Ids, subjects, control messages (JSON), batches (binary), layouts and values, expressions, time
//! intervals and limits. It is plain data: no task, no socket, no clock, no DWARF, no editor protocol.
//! Every other crate imports this one, and no other library crate imports a sibling.
//!
//! Invariants
//! - Each subject and each message is spelled here once; `PROTOCOL.md` documents them and
//!   `tests/stored_bytes.rs` keeps them readable by later versions.
//! - Whatever comes from outside is checked where it is read ([`batch`], [`stream`], [`decode`]): a decoder
//!   returns an error that names the place, never panics, and never allocates more than [`limits`] allows.
//! - A [`value::Value`] that is not exact says so in its [`value::Status`].

pub mod agent_api;
pub mod batch;
pub mod coordinator_api;
pub mod decode;
pub mod expression;
pub mod fleet;
#[doc(hidden)]
pub mod fuzzing;
pub mod hit;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod location;
pub mod scenario;
pub mod selector;
pub mod source;
pub mod stream;
pub mod subject;
pub mod time;
pub mod tracepoint;
pub mod value;
mod wire;

pub use wire::WireError;

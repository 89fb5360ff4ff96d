//! RipTrace's fleet: who is there, what is wanted, clocks, order. The only crate that decides order.
//!
//! [`state`] is the whole coordinator as a pure state machine; [`run`] drives it on a real bus. Read on in this order:
//! [`merge`] (the rule of order), [`clock`] (what is known of the clocks), [`ingest`] (each agent's batches, once),
//! [`session`] (a viewer's stream), `fleet` (hosts and what they were asked), then [`event`], [`effect`], [`state`].
//!
//! What it is not: it loads no symbols and formats no value; hits go through it as they were captured.

pub mod clock;
mod driver;
pub mod effect;
pub mod event;
mod fleet;
pub mod ingest;
pub mod knowledge;
pub mod limits;
pub mod merge;
pub mod session;
pub mod state;

pub use driver::{CoordinatorConfig, CoordinatorError, run};

//! RipTrace on one host: discovery, symbols, capture plans, the probe engine, publishing.

pub mod capture;
pub mod clock;
mod config;
mod driver;
pub mod engine;
mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod publish;
mod state;
pub mod symbol_store;
pub mod symbols;
pub mod target;

pub use config::{AgentConfig, AgentError, CPU_PERCENT_DEFAULT};
pub use driver::run;
pub use engine::Mechanisms;

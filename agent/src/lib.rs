//! RipTrace on one host: discovery, symbols, capture plans, the probe engine, publishing.

pub mod capture;
pub mod clock;
pub mod engine;
pub mod plan;
pub mod publish;
pub mod symbols;
pub mod target;

//! Plans: a tracepoint at one site of one build, compiled to a capture program and its layout.

use crate::capture::program::Program;
use crate::symbols::{Build, Site};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::tracepoint::Tracepoint;

/// A tracepoint at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What a passage does.
    pub program: Program,
    /// How to read its hits.
    pub layout: Layout,
}

/// A tracepoint that cannot be compiled for a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The condition.
    #[error("condition: {0}")]
    Condition(String),
}

/// Compiles a tracepoint for one site in a process whose executable was moved by `bias` ([`Build::bias`]).
pub fn compile(build: &Build, site: &Site, tracepoint: &Tracepoint, bias: u64) -> Result<Plan, PlanError> {
    let _ = (build, site, tracepoint, bias);
    todo!()
}

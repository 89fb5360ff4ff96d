//! Go's function table: what the runtime itself needs for stack traces, and so what no strip takes away. Functions with
//! their code, files, lines and inlined calls; no variables and no types.
//!
//! Formats: those of Go 1.18 and 1.20 (all that RipTrace traces have the latter). Sources: `runtime/symtab.go` and
//! `runtime/symtabinl.go` (the structures), `cmd/link/internal/ld/pcln.go` (who writes them), `debug/gosym/pclntab.go`
//! (how far they can be believed).
//!
//! Invariants: the file is outside data; every offset is checked, every walk is bounded, a damaged table gives less and
//! never a panic. What the table does not tell is left out, never guessed.

mod module;
mod table;
#[cfg(test)]
pub(super) mod tests;

pub(super) use table::{Call, Func, FunctionTable};

/// Why a function table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TableError {
    /// There is none.
    #[error("the executable has no Go function table")]
    Missing,
    /// It is of another format.
    #[error("the Go function table is of an unknown format ({0:#x})")]
    Format(u32),
    /// It is damaged.
    #[error("the Go function table is damaged: {0}")]
    Damaged(&'static str),
}

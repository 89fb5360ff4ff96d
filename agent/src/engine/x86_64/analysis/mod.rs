//! Analysis: which patch a site can take, decided by decoding its whole function.
//!
//! ```text
//! binary      sections, functions, jump tables, landing pads, branches between functions of one file
//!   └ facts   what of it concerns one function
//! sweep       every instruction of the function, and every way into its middle
//! choice      for one address: jump, punned jump, trap, refused; and why not the cheaper
//! overlap     for several addresses of one function
//! classify    for all statements of a file, counted
//! ```
//!
//! It is pure: bytes in, decisions out. It reads no process, knows no clock, and writes nothing. The bytes must be
//! those that the compiler wrote, never patched ones.
//!
//! Invariants
//! - A jump is chosen only where no thread, goroutine, unwinder or table can arrive inside it; a punned jump only where
//!   everybody who does arrive inside meets a byte that traps. Where this cannot be proven the choice is a trap.
//! - What is not known counts as the worst: an indirect jump whose targets are not found may go to every instruction.
//! - Any bytes are decoded in time that is linear in their number; no input panics.
//!
//! Source of all encodings: Intel SDM volume 2. The hazards are those met by tracing real programs; each rule names its
//! own.

mod binary;
mod choice;
mod classify;
mod denied;
mod facts;
mod function;
mod indirect;
mod instruction;
mod known;
mod landing;
mod overlap;
mod sweep;
#[cfg(test)]
mod tests;

pub use binary::{BinaryCode, BinaryError, Function};
pub use choice::{Displaced, JumpPatch, Obstacle, Refusal, Rel32, SiteChoice};
pub use classify::{StatementsError, Summary, classify, statements};
pub use denied::{denied_function, denied_image};
pub use facts::{Data, Entry, EntryKind, FunctionFacts, Language};
pub use function::{AnalysisError, FUNCTION_BYTES_MAX, FunctionAnalysis};
pub use overlap::{Place, Placement};

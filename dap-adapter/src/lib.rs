//! RipTrace's editor side: DAP server, language server, timeline, rendering, line mapping.
//!
//! Only this crate knows the Debug Adapter Protocol and the Language Server Protocol.

pub mod dap;
pub mod environment;
pub mod fleet;
#[doc(hidden)]
pub mod fuzzing;
pub mod lines;
pub mod lsp;
pub mod render;
pub mod timeline;

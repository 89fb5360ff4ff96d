//! `riptrace lsp`: the language server, for editors.

use crate::args;
use crate::environment::CommandEnvironment;
use crate::failure::Failure;
use std::sync::Arc;

/// Serves the editor on standard input.
pub(super) async fn run(args: args::Lsp) -> Result<(), Failure> {
    let environment = Arc::new(CommandEnvironment { flags: args.bus.target(), part: "lsp" });
    riptrace_dap_adapter::lsp::serve_lsp(tokio::io::stdin(), tokio::io::stdout(), environment).await;
    Ok(())
}

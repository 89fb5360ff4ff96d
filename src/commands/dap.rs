//! `riptrace dap`: the debug adapter, for editors.

use crate::args;
use crate::environment::CommandEnvironment;
use crate::failure::Failure;
use std::sync::Arc;

/// Serves the editor on standard input, or those that connect to an address.
pub async fn run(args: args::Dap) -> Result<(), Failure> {
    let environment = Arc::new(CommandEnvironment { flags: args.bus.target(), part: "dap" });
    let served = match args.listen {
        Some(address) => riptrace_dap_adapter::dap::listen_dap(address, environment).await,
        None => riptrace_dap_adapter::dap::serve_dap(tokio::io::stdin(), tokio::io::stdout(), environment).await,
    };
    served.map_err(|e| Failure::Unreachable(format!("debug adapter: {e}")))
}

//! `riptrace dap`: the debug adapter, for editors.

use crate::args;
use crate::environment::CommandEnvironment;
use crate::failure::Failure;
use crate::output;
use crate::shutdown;
use std::sync::Arc;

/// Serves the editor on standard input, or those that connect to an address.
pub async fn run(args: args::Dap) -> Result<(), Failure> {
    let environment = Arc::new(CommandEnvironment { flags: args.bus.target(), part: "dap" });
    let Some(address) = args.listen else {
        riptrace_dap_adapter::dap::serve_dap(tokio::io::stdin(), tokio::io::stdout(), environment).await;
        return Ok(());
    };
    let signals = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let told = |address| {
        // Whoever started it reads the port here when it asked for any free one.
        if let Err(why) = output::json_line(&serde_json::json!({"listen": address})) {
            output::note(&format!("riptrace dap: listening on {address} ({why})"));
        }
    };
    tokio::select! {
        served = riptrace_dap_adapter::dap::listen_dap(address, environment, told) => {
            served.map_err(|e| Failure::Unreachable(e.to_string()))
        }
        () = signals.ended() => Ok(()),
    }
}

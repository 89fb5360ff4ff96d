//! `riptrace dap`: the debug adapter, for editors.

use crate::args;
use crate::environment::CommandEnvironment;
use crate::failure::Failure;
use crate::output;
use crate::shutdown;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves the editor on standard input, or those that connect to an address.
pub(super) async fn run(args: args::Dap) -> Result<(), Failure> {
    let environment = Arc::new(CommandEnvironment { flags: args.bus.target(), part: "dap" });
    let Some(address) = args.listen else {
        let served = riptrace_dap_adapter::dap::serve_dap(tokio::io::stdin(), tokio::io::stdout(), environment).await;
        return served.map_err(|e| Failure::Unreachable(e.to_string()));
    };
    let bind_failed =
        |e| Failure::Unreachable(format!("cannot listen on {address}: {e}; choose another port, or 0 for any"));
    let signals = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let listener = TcpListener::bind(address).await.map_err(bind_failed)?;
    // Whoever started it reads the port here when it asked for any free one.
    let listening = serde_json::json!({"listen": listener.local_addr().map_err(bind_failed)?});
    output::json_line(&listening).map_err(|e| Failure::Failed(format!("nobody reads the address: {e}")))?;
    tokio::select! {
        () = riptrace_dap_adapter::dap::listen_dap(listener, environment) => {}
        () = signals.ended() => {}
    }
    Ok(())
}

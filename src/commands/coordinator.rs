//! `riptrace coordinator`: the coordinator of a fleet.

use crate::args;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output;
use crate::shutdown;
use riptrace_coordinator::CoordinatorConfig;

/// Runs until Ctrl-C or SIGTERM.
pub(super) async fn run(args: args::Coordinator) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let bus = connect(&args.bus.target(), "riptrace coordinator").await?;
    output::note("riptrace coordinator: serving; Ctrl-C ends it");
    riptrace_coordinator::run(bus, config(), shutdown.ended()).await.map_err(|e| Failure::Unreachable(e.to_string()))
}

/// The coordinator's configuration.
pub(super) fn config() -> CoordinatorConfig {
    CoordinatorConfig::new(env!("CARGO_PKG_VERSION"))
}

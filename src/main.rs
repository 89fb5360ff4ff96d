//! The `riptrace` binary: reads arguments, runs the command, ends with its exit status.

use clap::Parser;
use riptrace::args::Arguments;
use riptrace::{commands, output};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("RIPTRACE_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    // Standard output belongs to protocols and results; the log goes to standard error.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            output::note(&format!("riptrace: no threads or timers could be set up: {why}"));
            return ExitCode::from(4);
        }
    };
    let ended = runtime.block_on(commands::run(arguments.command));
    // A thread that still reads standard input must not keep a finished command alive.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("riptrace: {failure}"));
            failure.exit_code()
        }
    }
}

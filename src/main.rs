//! The `riptrace` binary: reads arguments, runs the command, ends with its exit status.

use clap::Parser;
use riptrace::args::{Arguments, Command};
use riptrace::{commands, output};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("RIPTRACE_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    // Standard output belongs to protocols and results; the log goes to standard error.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match runtime(&arguments.command) {
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

/// An agent shares its host with what it traces: its tasks are small, and to wake one thread for all of them costs a third
/// of waking one for another. What takes longer has threads of its own in either case.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match command {
        Command::Agent(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

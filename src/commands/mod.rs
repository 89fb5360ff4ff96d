//! The commands: each wires parts together and does nothing that a part should do.

mod agent;
mod bench;
mod coordinator;
mod dap;
mod demo;
mod doctor;
mod lsp;
mod ps;
mod symbols;
mod trace;
mod up;

use crate::args::Command;
use crate::failure::Failure;

/// Runs a command to its end.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Coordinator(args) => coordinator::run(args).await,
        Command::Ps(args) => ps::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::Symbols(args) => symbols::run(args).await,
        Command::Dap(args) => dap::run(args).await,
        Command::Lsp(args) => lsp::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
    }
}

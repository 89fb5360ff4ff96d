//! `riptrace bench`: figures beside their bounds and beside peers, measured in one run.
//!
//! A figure is a median of interleaved rounds: with and without a probe, by turns, so that whatever else the machine does
//! weighs on both; rounds whose baseline was disturbed are made again ([`rounds`]). What a bound is set on is a ratio to something measured in the same run wherever that is possible.
//!
//! What is measured here is what a target feels, so the clock is the target's own. The engine is in a process of its own
//! ([`engine`]), as in a fleet, and can be stopped like one that hangs.
#![allow(clippy::disallowed_methods, reason = "measuring is reading clocks")]

mod collect;
mod cost;
mod engine;
mod figure;
mod idle;
mod native;
mod patchable;
mod peers;
mod rounds;
mod stop;
mod symbols;
mod target;

use crate::args;
use crate::failure::Failure;
use crate::output;
use figure::Report;

/// Runs a benchmark; fails when a figure misses its bound.
pub(super) async fn run(args: args::Bench) -> Result<(), Failure> {
    match args.what {
        args::BenchWhat::Probe(probe) => run_probe(probe).await,
        args::BenchWhat::Symbols(symbols) => symbols::run(symbols).await,
        args::BenchWhat::Engine => blocking(engine::serve).await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failure::Failed(e.to_string()))?
}

async fn run_probe(args: args::BenchProbe) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        output::note("riptrace bench: this is a debug build, whose agent is several times as slow as a release build");
    }
    let seconds = args.seconds;
    let mut report = Report::new(args.json);
    let program = blocking(target::build).await?;
    if args.idle {
        idle::measure(&program, seconds, &mut report).await?;
        return report.finish();
    }
    let built = program.clone();
    let mut report = blocking(move || {
        cost::measure(&built, seconds, &mut report)?;
        stop::measure(&built, &mut report)?;
        collect::measure(&built, seconds, &mut report)?;
        patchable::measure(&mut report)?;
        Ok(report)
    })
    .await?;
    idle::measure(&program, seconds, &mut report).await?;
    report.finish()
}

//! `riptrace bench symbols`: how long the first tracepoint in a large program takes, what memory it needs, and how fast
//! hits are read.
//!
//! Each round has a fresh agent and a fresh process, and the executable is in the kernel's page cache for everybody: a
//! process runs it. The time is that of the agent's answer on the bus, from the request to "armed".

mod decode;
mod first;
mod peers;
mod program;

use super::figure::{Bound, Figure, Report, median};
use super::target::failed;
use crate::args;
use crate::commands::up::start_nats;
use crate::failure::Failure;
use crate::output;
use first::{Bench, First};
use program::Program;

/// Generated packages of the large program: 100 MB or more with them.
const LARGE: usize = 60;
/// And of the one of 20 MB.
const SMALL: usize = 8;
const MB: f64 = 1e6;

pub(super) async fn run(args: args::BenchSymbols) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        output::note("riptrace bench symbols: this is a debug build, which is many times as slow as a release build");
    }
    let mut report = Report::new(args.json);
    let (large, small) = super::blocking(|| Ok((program::build(LARGE)?, program::build(SMALL)?))).await?;
    if large.bytes < 100_000_000 || !(18_000_000..24_000_000).contains(&small.bytes) {
        return Err(Failure::Failed(format!(
            "the generated programs have {} and {} bytes: change the number of packages",
            large.bytes, small.bytes
        )));
    }
    let folder = tempfile::tempdir().map_err(failed("a folder for the message store"))?;
    let server = start_nats(folder.path(), None).await?;
    let bench = Bench::new(&server.url()).await?;

    let (mut new, mut cached) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let cache = tempfile::tempdir().map_err(failed("a folder for the cache"))?;
        new.push(bench.first(&large, cache.path()).await?);
        cached.push(bench.first(&large, cache.path()).await?);
    }
    let mut small_new = Vec::new();
    for _ in 0..args.rounds {
        let cache = tempfile::tempdir().map_err(failed("a folder for the cache"))?;
        small_new.push(bench.first(&small, cache.path()).await?);
    }
    let note = |program: &Program, of: &[First]| {
        let mechanism = of.last().map_or("", |first| first.mechanism.as_str());
        format!("a Go program of {:.0} MB, {}:{}, {mechanism}", program.bytes as f64 / MB, program.file, program.line)
    };
    let ms = |of: &[First]| median(&of.iter().map(|first| first.ms).collect::<Vec<_>>());
    let mb = |of: &[First]| median(&of.iter().map(|first| first.grown_bytes as f64 / MB).collect::<Vec<_>>());
    let first_large = ms(&new);
    report.add(Figure::new("first-large", first_large, "ms", Bound::AtMost(250.0)).note(note(&large, &new)));
    report.add(Figure::new("first-large-memory", mb(&new), "MB", Bound::AtMost(120.0)).note("resident at its peak"));
    report.add(Figure::new("cached-large", ms(&cached), "ms", Bound::AtMost(30.0)).note("another agent, same cache"));
    report.add(Figure::new("cached-large-memory", mb(&cached), "MB", Bound::None).note("of the same"));
    report.add(Figure::new("first-20MB", ms(&small_new), "ms", Bound::AtMost(80.0)).note(note(&small, &small_new)));

    let hits = bench.hits(&small).await?;
    let report = super::blocking(move || {
        decode::measure(&hits, &mut report)?;
        peers::measure(&large, first_large, &mut report)?;
        Ok(report)
    })
    .await?;
    report.finish()
}

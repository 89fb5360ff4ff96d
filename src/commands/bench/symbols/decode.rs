//! How fast hits become values.

use super::first::Hits;
use crate::commands::bench::figure::{Bound, Figure, Report, median};
use crate::failure::Failure;
use riptrace_protocol::decode::values;
use riptrace_protocol::value::Status;
use std::hint::black_box;
use std::time::Instant;

/// Rounds, and hits of one round.
const ROUNDS: usize = 7;
const HITS: usize = 100_000;
/// Locals at the line.
const LOCALS: usize = 5;

/// Reads the hits again and again, on this thread.
pub(super) fn measure(hits: &Hits, report: &mut Report) -> Result<(), Failure> {
    for hit in &hits.hits {
        let values = values(&hits.layout, hit);
        if values.len() != LOCALS || values.iter().any(|value| value.status != Status::Exact) {
            return Err(Failure::Failed(format!("not {LOCALS} whole locals, but {values:?}")));
        }
    }
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let from = Instant::now();
        for hit in hits.hits.iter().cycle().take(HITS) {
            black_box(values(&hits.layout, black_box(hit)));
        }
        rates.push(HITS as f64 / from.elapsed().as_secs_f64());
    }
    let names: Vec<String> = hits.layout.variables.iter().map(|variable| variable.name.clone()).collect();
    let note = format!("on one core; locals {}", names.join(", "));
    report.add(Figure::new("decode", median(&rates), "hits/s", Bound::AtLeast(300_000.0)).note(note));
    Ok(())
}

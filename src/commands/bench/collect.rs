//! Whether the collector of a Go program still preempts loops that are traced.

use super::engine::{EngineProcess, Wanted};
use super::figure::{Bound, Figure, Report, median};
use super::target::{Program, Target};
use crate::failure::Failure;

/// Rounds with and without a probe.
const ROUNDS: u64 = 5;

pub(super) fn measure(program: &Program, seconds: u64, report: &mut Report) -> Result<(), Failure> {
    let mut target = Target::start(program, &[])?;
    let mut engine = EngineProcess::start()?;
    let (file, line) = program.spot("tight")?;
    let wanted = Wanted { pid: target.pid(), file, line, condition: None, frames: 0, trap: false };
    let ms = (seconds * 1000 / 4 / (2 * ROUNDS)).max(500);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for armed in [false, true] {
            if armed {
                engine.arm(&wanted)?;
            }
            let answer = target.ask(&format!("collect {ms}"))?;
            let per_second = f64::from(answer.collections) / (answer.ns as f64 / 1e9);
            if armed {
                with.push(per_second);
                engine.remove()?;
            } else {
                without.push(per_second);
            }
        }
    }
    let (traced, untraced) = (median(&with), median(&without));
    let note = format!("{traced:.1} collections a second by {untraced:.1} untraced");
    report.add(Figure::new("collections-ratio", traced / untraced, "times", Bound::AtLeast(0.9)).note(note));
    Ok(())
}

//! Whether the collector of a Go program still preempts loops that are traced.

use super::engine::{EngineProcess, Wanted};
use super::figure::{Bound, Figure, Report};
use super::rounds::Rounds;
use super::target::{Program, Target};
use crate::failure::Failure;
use riptrace_protocol::limits::RATE_PER_S_DEFAULT;

/// Rounds with and without a probe.
const ROUNDS: u64 = 5;

pub(super) fn measure(program: &Program, seconds: u64, report: &mut Report) -> Result<(), Failure> {
    let mut target = Target::start(program, &[])?;
    let mut engine = EngineProcess::start()?;
    let ms = (seconds * 1000 / 4 / (2 * ROUNDS)).max(500);
    // Each passage a hit or a drop of a full ring; and as a person's tracepoint is, unless she says otherwise.
    for (name, rate_per_s) in [("collections-ratio", None), ("collections-ratio-limited", Some(RATE_PER_S_DEFAULT))] {
        let wanted = Wanted { rate_per_s, ..Wanted::line(target.pid(), program.spot("tight")?) };
        let mut rounds = Rounds::of(ROUNDS);
        let mut per_second = || {
            let answer = target.ask(&format!("collect {ms}"))?;
            Ok::<_, Failure>(f64::from(answer.collections) / (answer.ns as f64 / 1e9))
        };
        rounds.baseline(per_second()?);
        while !rounds.is_enough() {
            engine.arm(&wanted)?;
            rounds.measured(per_second()?);
            engine.remove()?;
            rounds.baseline(per_second()?);
        }
        let note = format!("by {:.1} collections a second untraced{}", rounds.base(), rounds.note());
        report.add(Figure::new(name, rounds.ratio(), "times", Bound::AtLeast(0.9)).note(note));
    }
    Ok(())
}

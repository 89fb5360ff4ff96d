//! How long a whole process stands still while one tracepoint is armed, by its number of threads. The engine says so: none,
//! where each instruction that the jump covers is a trap while it is written.

use super::engine::{EngineProcess, Wanted};
use super::figure::{Bound, Figure, Report, median};
use super::target::{Program, Target};
use crate::failure::Failure;

/// Tracepoints armed for one figure.
const TIMES: usize = 7;

/// Arms a line of several short instructions, for which all threads stop, and one of a single long one, for which none
/// has to.
pub(super) fn measure(program: &Program, report: &mut Report) -> Result<(), Failure> {
    let mut target = Target::start(program, &[])?;
    let mut engine = EngineProcess::start()?;
    for (threads, bound_ms) in [(4, 0.5), (100, 8.0), (1000, 60.0)] {
        target.ask(&format!("threads {threads}"))?;
        for (function, bound) in [("words", Bound::AtMost(bound_ms)), ("single", Bound::AtMost(0.0))] {
            let (file, line) = program.spot(function)?;
            let wanted = Wanted { pid: target.pid(), file, line, condition: None, frames: 0, trap: false };
            let mut stopped = Vec::new();
            for _ in 0..TIMES {
                stopped.push(engine.arm(&wanted)?.stopped_ns as f64 / 1e6);
                engine.remove()?;
            }
            let kind = if function == "single" { "-single-instruction" } else { "" };
            let worst = stopped.iter().copied().fold(0.0, f64::max);
            let note = format!("of {TIMES}; the longest {worst:.3} ms");
            report
                .add(Figure::new(format!("stopped-{threads}-threads{kind}"), median(&stopped), "ms", bound).note(note));
        }
    }
    Ok(())
}

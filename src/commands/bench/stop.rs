//! How long a whole process stands still while one tracepoint is armed, by its number of threads, as the engine says. Most
//! jumps need no stop at all: each instruction that they cover is a trap while they are written. Where no pad can be placed
//! for that, all threads stop; the engine is made to take that way here.

use super::engine::{EngineProcess, Wanted, Way};
use super::figure::{Bound, Figure, Report, median};
use super::target::{Program, Target};
use crate::failure::Failure;

/// Tracepoints armed for one figure.
const TIMES: usize = 15;

/// A line of several short instructions, in either way, and one of a single long one.
const LINES: [(&str, &str, Way); 3] =
    [("", "words", Way::AllStop), ("-punned", "words", Way::Best), ("-single-instruction", "single", Way::Best)];

pub(super) fn measure(program: &Program, report: &mut Report) -> Result<(), Failure> {
    let mut target = Target::start(program, &[])?;
    let mut engine = EngineProcess::start()?;
    for (threads, bound_ms) in [(4, 0.5), (100, 8.0), (1000, 60.0)] {
        target.ask(&format!("threads {threads}"))?;
        for (kind, function, way) in LINES {
            let wanted = Wanted { way, ..Wanted::line(target.pid(), program.spot(function)?) };
            let mut stopped = Vec::new();
            for _ in 0..TIMES {
                let armed = engine.arm(&wanted)?;
                engine.remove()?;
                if (way, armed.stopped_ns) == (Way::AllStop, 0) || armed.mechanism != "jump" {
                    return Err(Failure::Failed(format!("{function} was armed otherwise than meant: {armed:?}")));
                }
                stopped.push(armed.stopped_ns as f64 / 1e6);
            }
            let bound = Bound::AtMost(if way == Way::AllStop { bound_ms } else { 0.0 });
            let worst = stopped.iter().copied().fold(0.0, f64::max);
            let least = stopped.iter().copied().fold(f64::INFINITY, f64::min);
            let note = format!("of {TIMES}; {least:.3} to {worst:.3} ms");
            report
                .add(Figure::new(format!("stopped-{threads}-threads{kind}"), median(&stopped), "ms", bound).note(note));
        }
    }
    Ok(())
}

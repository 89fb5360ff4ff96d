//! What a passage costs the target: jump sites, conditions, traps; and what the same passage costs with others.

use super::engine::{EngineProcess, Wanted, Way};
use super::figure::{Bound, Figure, Report, median};
use super::rounds::Rounds;
use super::target::{Program, Target};
use super::{native, peers};
use crate::failure::Failure;

/// Calls of a stride for what costs tens of nanoseconds, and for what costs microseconds.
const STRIDE: u32 = 200;
const TRAP_STRIDE: u32 = 20;
/// Calls a second on each thread, the highest first at which the agent keeps up (a debug build on a busy machine reads a
/// tenth of what a release build does).
const RATES: [u32; 5] = [500_000, 200_000, 100_000, 50_000, 20_000];
/// Of the passages that were to become hits, so many must: else what was measured is dropping.
const RECORDED_AT_LEAST: f64 = 0.99;
/// Bytes of records that a burst leaves, at most: less than a ring holds ([`burst`] says why).
const BURST_BYTES: u64 = 700_000;
/// Bytes that a hit of Go carries beside what was asked for, at most: who made its goroutine, where, and whether it has
/// labels.
const ORIGIN_BYTES: u64 = 64;
/// Bytes of a ring.
const RING_BYTES: u64 = 1 << 20;
/// Calls of a function that is called without a pause: enough to fill a ring a hundred times.
const HOT_CALLS: u64 = 10_000_000;
/// Frames of a call stack, as a tracepoint has them that nobody has said anything of.
const FRAMES: u16 = 64;
/// Rounds with and without a probe, at least.
const ROUNDS_MIN: u64 = 5;
/// Time of one measurement, in milliseconds.
const SLICE_MS: u64 = 150;

/// Who reads the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// An agent that keeps up.
    Drains,
    /// An agent that stands still; there is room in the rings.
    Stopped,
}

/// What is measured.
struct Case {
    function: &'static str,
    condition: Option<&'static str>,
    threads: u64,
    reader: Reader,
    record_bytes: u64,
    /// Frames of call stack that a hit carries, at most.
    frames: u16,
}

pub(super) struct Bench<'a> {
    program: &'a Program,
    target: Target,
    engine: EngineProcess,
    rounds: u64,
    /// Index of the rate that is used.
    rate: usize,
    /// Passages since the probe was armed.
    passed: u64,
}

/// What a passage adds to the time of a call, in nanoseconds.
struct Added {
    ns: f64,
    call_ns: f64,
    mechanism: String,
    /// Calls a second on each thread.
    rate: u32,
    /// Of a machine that was busy.
    disturbed: String,
}

impl Bench<'_> {
    fn wanted(&self, case: &Case) -> Result<Wanted, Failure> {
        let line = Wanted::line(self.target.pid(), self.program.spot(case.function)?);
        let way = if case.function == "trap" { Way::Trap } else { Way::Best };
        Ok(Wanted { condition: case.condition.map(str::to_owned), way, frames: case.frames, ..line })
    }

    /// Nanoseconds per call, with or without a probe.
    fn per_call(&mut self, case: &Case, armed: bool) -> Result<f64, Failure> {
        match case.reader {
            Reader::Drains => {
                let stride = if case.function == "trap" { TRAP_STRIDE } else { STRIDE };
                let rate = RATES[self.rate];
                let command = format!("paced {} {} {SLICE_MS} {stride} {rate}", case.function, case.threads);
                let answer = self.target.ask(&command)?;
                self.passed += answer.calls;
                Ok(answer.median_ns)
            }
            Reader::Stopped => self.bursts(case, armed),
        }
    }

    /// Short bursts into empty rings. The first ones are not timed: they touch each page of the rings for the first time.
    fn bursts(&mut self, case: &Case, armed: bool) -> Result<f64, Failure> {
        let each = BURST_BYTES / case.record_bytes / case.threads;
        let command = format!("burst {} {} {each}", case.function, case.threads);
        let warm = if armed { (RING_BYTES / (each * case.record_bytes) + 1) * 2 } else { 1 };
        let mut timed = Vec::new();
        for n in 0..warm + 8 {
            let target = &mut self.target;
            let answer =
                if armed { self.engine.while_stopped(|| target.ask(&command))? } else { target.ask(&command)? };
            self.passed += answer.calls;
            if armed {
                self.engine.settle(self.passed)?;
            }
            if n >= warm {
                timed.push(answer.per_call());
            }
        }
        Ok(median(&timed))
    }

    /// What a passage adds, at the highest rate at which the agent keeps up.
    fn added(&mut self, case: &Case) -> Result<Added, Failure> {
        // A trap takes two microseconds and more.
        let first = if case.function == "trap" { RATES.len() - 1 } else { 0 };
        for rate in first..RATES.len() {
            self.rate = rate;
            if let Some(added) = self.added_at_rate(case)? {
                return Ok(added);
            }
        }
        let least = RATES[RATES.len() - 1];
        Err(Failure::Failed(format!("the agent does not keep up with {least} passages a second of {}", case.function)))
    }

    /// The same at a rate; `None` if too many passages were dropped.
    fn added_at_rate(&mut self, case: &Case) -> Result<Option<Added>, Failure> {
        let wanted = self.wanted(case)?;
        let mut rounds = Rounds::of(self.rounds);
        let mut mechanism = String::new();
        rounds.baseline(self.per_call(case, false)?);
        while !rounds.is_enough() {
            mechanism = self.engine.arm(&wanted)?.mechanism;
            self.passed = 0;
            rounds.measured(self.per_call(case, true)?);
            let counted = self.engine.remove()?;
            let passed = self.passed;
            let is_right = match case.condition {
                None => counted.passages == passed && counted.hits + counted.dropped == passed,
                Some(_) => counted.passages == 0,
            };
            if !is_right {
                let name = case.function;
                return Err(Failure::Failed(format!("{name}: {passed} passages were made, counted were {counted:?}")));
            }
            if case.condition.is_none() && (counted.hits as f64) < RECORDED_AT_LEAST * passed as f64 {
                return Ok(None);
            }
            rounds.baseline(self.per_call(case, false)?);
        }
        Ok(Some(Added {
            ns: rounds.added(),
            call_ns: rounds.base(),
            mechanism,
            rate: RATES[self.rate],
            disturbed: rounds.note(),
        }))
    }
}

/// Measures all of them.
pub(super) fn measure(program: &Program, seconds: u64, report: &mut Report) -> Result<(), Failure> {
    let rounds = (seconds * 1000 / SLICE_MS / 40).max(ROUNDS_MIN);
    let target = Target::start(program, &[])?;
    let mut bench = Bench { program, target, engine: EngineProcess::start()?, rounds, rate: 0, passed: 0 };
    let mut jump_ns = f64::NAN;
    for threads in [1, 2] {
        let of_threads = if threads == 1 { String::new() } else { format!("-{threads}-threads") };
        for (function, bytes, record_bytes, drained, unread) in
            [("words", "64B", 64, 60.0, 30.0), ("text", "256B", 256, 90.0, 45.0)]
        {
            let record_bytes = record_bytes + ORIGIN_BYTES;
            for (reader, of_reader, bound) in
                [(Reader::Drains, "drained", drained), (Reader::Stopped, "unread", unread)]
            {
                let case = Case { function, condition: None, threads, reader, record_bytes, frames: 0 };
                let added = bench.added(&case)?;
                if (function, reader, threads) == ("words", Reader::Drains, 1) {
                    jump_ns = added.ns;
                }
                let name = format!("jump-{bytes}-{of_reader}{of_threads}");
                let at =
                    if reader == Reader::Drains { format!(", {} hits a second", added.rate) } else { String::new() };
                let note = format!(
                    "and where its goroutine is from; a call takes {:.1} ns; {}{at}{}",
                    added.call_ns, added.mechanism, added.disturbed
                );
                report.add(Figure::new(name, added.ns, "ns", Bound::AtMost(bound)).note(note));
            }
        }
        let case = Case {
            function: "words",
            condition: Some("b == 1 << 62"),
            threads,
            reader: Reader::Drains,
            record_bytes: 64,
            frames: 0,
        };
        let added = bench.added(&case)?;
        let note = format!("a call takes {:.1} ns{}", added.call_ns, added.disturbed);
        report.add(Figure::new(format!("condition-false{of_threads}"), added.ns, "ns", Bound::AtMost(5.0)).note(note));
    }
    traps(&mut bench, program, report)?;
    peers::measure(&mut bench, program, jump_ns, report)?;
    match native::build() {
        Ok(native) => natively(&native, rounds, report),
        Err(why) => {
            report.absent("native", why);
            Ok(())
        }
    }
}

/// A native program, as it is traced by default: loads are asked for first, as nothing inside it answers a fault; a hit
/// carries a copy of the stack, or none.
fn natively(program: &Program, rounds: u64, report: &mut Report) -> Result<(), Failure> {
    let target = Target::start(program, &[])?;
    let mut bench = Bench { program, target, engine: EngineProcess::start()?, rounds, rate: 0, passed: 0 };
    for (function, what, record_bytes, frames) in
        [("words", "64B", 64, 0), ("text", "256B", 512, 0), ("words", "stack", 2 * 1024 + 256, FRAMES)]
    {
        for (reader, of_reader) in [(Reader::Drains, "drained"), (Reader::Stopped, "unread")] {
            let name = format!("native-{what}-{of_reader}");
            let case = Case { function, condition: None, threads: 1, reader, record_bytes, frames };
            let added = match bench.added(&case) {
                Ok(added) => added,
                // It is left to a figure below how many it reads.
                Err(Failure::Failed(why)) if frames > 0 && reader == Reader::Drains => {
                    bench.engine.remove()?;
                    report.absent(&name, why);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let at = if reader == Reader::Drains { format!(", {} hits a second", added.rate) } else { String::new() };
            let note = format!("a call takes {:.1} ns; {}{at}{}", added.call_ns, added.mechanism, added.disturbed);
            report.add(Figure::new(name, added.ns, "ns", Bound::None).note(note));
        }
    }
    // Without a pause: a reader is outrun by any record, and what is not kept is counted.
    for (what, frames) in [("", 0), ("-stack", FRAMES)] {
        let case =
            Case { function: "words", condition: None, threads: 1, reader: Reader::Drains, record_bytes: 64, frames };
        let wanted = bench.wanted(&case)?;
        bench.engine.arm(&wanted)?;
        let answer = bench.target.ask(&format!("burst words 1 {HOT_CALLS}"))?;
        let counted = bench.engine.remove()?;
        if counted.passages != answer.calls || counted.hits + counted.dropped != answer.calls {
            return Err(Failure::Failed(format!("{} passages were made, counted were {counted:?}", answer.calls)));
        }
        let seconds = answer.ns as f64 / 1e9;
        let note =
            format!("of {:.1} million passages a second, the others counted", answer.calls as f64 / seconds / 1e6);
        let kept = counted.hits as f64 / seconds;
        report.add(Figure::new(format!("native-hot{what}-kept"), kept, "hits/s", Bound::None).note(note));
    }
    Ok(())
}

/// A trap site, by turns with a trap whose handler does nothing: what the kernel takes is common to both.
fn traps(bench: &mut Bench<'_>, program: &Program, report: &mut Report) -> Result<(), Failure> {
    let mut floor = Target::start(program, &[])?;
    let (mut traps, mut floors) = (Vec::new(), Vec::new());
    let rounds = std::mem::replace(&mut bench.rounds, 1);
    let mut mechanism = String::new();
    for _ in 0..rounds {
        floors.push(floor.ask("floor 20000")?.per_call());
        let case =
            Case { function: "trap", condition: None, threads: 1, reader: Reader::Drains, record_bytes: 64, frames: 0 };
        let added = bench.added(&case)?;
        traps.push(added.ns);
        mechanism = added.mechanism;
    }
    bench.rounds = rounds;
    let (trap_ns, floor_ns) = (median(&traps), median(&floors));
    report.add(Figure::new("int3-empty-handler", floor_ns, "ns", Bound::None).peer("int3"));
    report.add(Figure::new("trap", trap_ns, "ns", Bound::None).note(mechanism));
    let note = "trap site by an int3 with an empty handler";
    report.add(Figure::new("trap-ratio", trap_ns / floor_ns, "times", Bound::AtMost(1.15)).note(note));
    Ok(())
}

impl Bench<'_> {
    /// Where the line `words` is in the executable's file, and what the target is now.
    pub(super) fn place_of_words(&mut self) -> Result<(u64, &mut Target), Failure> {
        let case = Case {
            function: "words",
            condition: None,
            threads: 1,
            reader: Reader::Drains,
            record_bytes: 64,
            frames: 0,
        };
        let wanted = self.wanted(&case)?;
        let offset = self.engine.arm(&wanted)?.file_offset;
        self.engine.remove()?;
        Ok((offset, &mut self.target))
    }
}

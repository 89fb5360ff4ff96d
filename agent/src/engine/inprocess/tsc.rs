//! The clock of passages: the time stamp counter as domain time (CLOCK_MONOTONIC in nanoseconds).
//!
//! One broken line through (counter, time) for all processes of an agent: between two knots it is straight, knots are
//! only ever added at its end, and so the same counter always gives the same time, and a later counter never an earlier
//! one. The last knot is a little *ahead* of now: a record that was just written can be converted at once. Where the next
//! knot lies is decided by a fresh measurement, so an error of the one before does not grow: the line follows the
//! kernel's clock within a fraction of a microsecond, unless that is being slewed hard.
//!
//! [`Timeline`] is pure; [`TscClock`] reads the clocks.

use crate::clock::domain_now_ns;
use crate::engine::x86_64::counter::{self, NoClock};
use std::collections::VecDeque;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

/// How far ahead of now the line is drawn, at most. The kernel changes the rate of its clock by some parts in ten
/// million from second to second (by 500 at the very most): after this time that is some ten nanoseconds.
const AHEAD_NS: u64 = 100_000_000;
/// A rate is measured over at least this time, and at most twice this: long against the error of a measurement, short
/// against what the kernel does to the rate.
const BASE_NS: u64 = 1_000_000_000;
/// The first rate is measured over this time.
const FIRST_BASE_NS: u64 = 2_000_000;
/// Knots that are kept: a quarter of an hour. A record that took longer to be written is older than anything that may
/// still be published.
const KNOTS_MAX: usize = 8192;
/// Tries of a measurement; the one that took the least time counts.
const TRIES: usize = 8;

/// Counter and domain time of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The counter.
    pub(super) tsc: u64,
    /// Domain time, in nanoseconds.
    pub(super) ns: u64,
}

/// The line.
#[derive(Debug)]
pub(super) struct Timeline {
    knots: VecDeque<Moment>,
    /// Measurements that the rate comes from: the earlier is used until the later is old enough to replace it.
    base: Moment,
    next_base: Moment,
}

impl Timeline {
    /// A line from two measurements, the second later than the first.
    pub(super) fn new(first: Moment, second: Moment) -> Timeline {
        let mut line = Timeline { knots: VecDeque::from([first]), base: first, next_base: second };
        line.extend(second);
        line
    }

    /// The last counter that can be converted.
    pub(super) fn end(&self) -> u64 {
        self.knots.back().map_or(0, |knot| knot.tsc)
    }

    /// Draws the line on, from what was measured just now.
    pub(super) fn extend(&mut self, now: Moment) {
        if now.ns.saturating_sub(self.next_base.ns) >= BASE_NS {
            self.base = self.next_base;
            self.next_base = now;
        }
        let base_ns = now.ns.saturating_sub(self.base.ns);
        let base_tsc = now.tsc.saturating_sub(self.base.tsc);
        if base_ns == 0 || base_tsc == 0 {
            return;
        }
        if now.tsc > self.end() {
            // Nobody has asked beyond the end: the line may go through what was measured.
            self.push(now);
        }
        // No further than what was measured reaches back: an error of the rate is not made larger than it was.
        let ahead_ns = AHEAD_NS.min(base_ns);
        let ahead_tsc = scale(ahead_ns, base_tsc, base_ns);
        let at = now.tsc.saturating_add(ahead_tsc);
        if at > self.end() {
            self.push(Moment { tsc: at, ns: now.ns.saturating_add(ahead_ns) });
        }
    }

    fn push(&mut self, knot: Moment) {
        let last_ns = self.knots.back().map_or(0, |last| last.ns);
        self.knots.push_back(Moment { ns: knot.ns.max(last_ns), ..knot });
        if self.knots.len() > KNOTS_MAX {
            self.knots.pop_front();
        }
    }

    /// Domain time of a counter; `None` beyond the end. What is before the beginning is taken to have gone at the
    /// beginning's rate.
    pub(super) fn ns(&self, tsc: u64) -> Option<u64> {
        let after = self.knots.partition_point(|knot| knot.tsc < tsc);
        let right = after.clamp(1, self.knots.len().max(2) - 1);
        let (from, to) = (self.knots.get(right - 1)?, self.knots.get(right)?);
        if tsc > to.tsc {
            return None;
        }
        let (run, rise) = (to.tsc - from.tsc, to.ns - from.ns);
        Some(match tsc.checked_sub(from.tsc) {
            Some(beyond) => from.ns + scale(beyond, rise, run),
            None => from.ns.saturating_sub(scale(from.tsc - tsc, rise, run)),
        })
    }
}

/// `value * by / of`, without overflow in between.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

/// The line of this agent.
#[derive(Debug)]
pub(super) struct TscClock {
    line: RwLock<Timeline>,
}

impl TscClock {
    /// The clock that all processes of this agent share, or why there is none. The first call takes milliseconds.
    pub(super) fn shared() -> Result<&'static TscClock, NoClock> {
        static SHARED: OnceLock<Result<TscClock, NoClock>> = OnceLock::new();
        SHARED.get_or_init(|| counter::check().map(|()| TscClock::start())).as_ref().map_err(Clone::clone)
    }

    fn start() -> TscClock {
        let first = measure();
        let mut second = measure();
        while second.ns < first.ns + FIRST_BASE_NS {
            std::thread::sleep(std::time::Duration::from_nanos(FIRST_BASE_NS));
            second = measure();
        }
        TscClock { line: RwLock::new(Timeline::new(first, second)) }
    }

    /// Keeps it for this thread alone, so that the process can be copied by fork(2) while nobody else has it.
    #[cfg(test)]
    pub(super) fn held() -> std::sync::RwLockWriteGuard<'static, Timeline> {
        TscClock::shared().expect("a clock").line.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line, drawn at least up to this counter, which lies in the past.
    pub(super) fn up_to(&self, tsc: u64) -> RwLockReadGuard<'_, Timeline> {
        loop {
            let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
            if line.end() >= tsc {
                return line;
            }
            drop(line);
            self.line.write().unwrap_or_else(PoisonError::into_inner).extend(measure());
        }
    }
}

/// Both clocks at one instant, as nearly as can be told.
fn measure() -> Moment {
    let mut best = (u64::MAX, Moment { tsc: 0, ns: 0 });
    for _ in 0..TRIES {
        let before = counter::now();
        let ns = domain_now_ns();
        let took = counter::now().saturating_sub(before);
        if took < best.0 {
            best = (took, Moment { tsc: before + took / 2, ns });
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(tsc: u64, ns: u64) -> Moment {
        Moment { tsc, ns }
    }

    #[test]
    fn between_two_measurements_the_line_is_straight_and_it_ends_ahead_of_now() {
        let line = Timeline::new(at(1_000, 50), at(4_000, 1_050));
        assert_eq!(line.ns(1_000), Some(50));
        assert_eq!(line.ns(2_500), Some(550));
        assert_eq!(line.ns(4_000), Some(1_050));
        assert_eq!(line.ns(5_500), Some(1_550), "ahead, at the rate that was measured");
        assert_eq!(line.end(), 7_000);
        assert_eq!(line.ns(7_001), None, "unknown yet");
        assert_eq!(line.ns(970), Some(40), "before the beginning");
        assert_eq!(line.ns(0), Some(0));
    }

    #[test]
    fn what_was_said_stays_and_errors_do_not_grow() {
        // The counter runs at 3 per ns by the first measurement, and at 3.003 in truth.
        let second = 1_000_000_000u64;
        let mut line = Timeline::new(at(0, 0), at(3 * second, second));
        let before: Vec<_> = (0..100).map(|n| line.ns(n * 30_000_000)).collect();
        let mut worst = 0;
        for step in 1..200u64 {
            let ns = second + step * 50_000_000;
            let tsc = 3 * second + (ns - second) / 1000 * 3003;
            line.extend(at(tsc, ns));
            if step > 60 {
                worst = worst.max(line.ns(tsc).unwrap().abs_diff(ns));
            }
        }
        assert_eq!(before, (0..100).map(|n| line.ns(n * 30_000_000)).collect::<Vec<_>>());
        assert!(worst < 1_000, "{worst} ns off after the rate was learnt");
    }

    #[test]
    fn after_a_silence_the_line_goes_through_what_is_measured() {
        let mut line = Timeline::new(at(0, 0), at(2_000_000, 1_000_000));
        let hour = 3_600_000_000_000;
        line.extend(at(2 * hour + 5_000, hour));
        assert_eq!(line.ns(2 * hour + 5_000), Some(hour));
        assert!(line.end() > 2 * hour + 5_000);
    }

    #[test]
    fn no_more_knots_are_kept_than_needed() {
        let mut line = Timeline::new(at(0, 0), at(1_000, 1_000));
        for n in 1..3 * KNOTS_MAX as u64 {
            line.extend(at(n * 1_000_000_000, n * 1_000_000_000));
        }
        assert!(line.knots.len() <= KNOTS_MAX);
    }

    proptest! {
        #[test]
        fn a_later_counter_is_never_an_earlier_time(
            steps in prop::collection::vec((1u64..400_000_000, -2_000i64..2_000), 1..60),
            asked in prop::collection::vec(0u64..30_000_000_000, 1..50),
        ) {
            let mut line = Timeline::new(at(1_000, 0), at(3_001_000, 1_000_000));
            let (mut tsc, mut ns) = (3_001_000u64, 1_000_000u64);
            let mut said: Vec<(u64, u64)> = Vec::new();
            for (step, error) in steps {
                tsc += step * 3;
                ns += step;
                // A measurement is off by up to two microseconds.
                line.extend(at(tsc, ns.saturating_add_signed(error)));
                said.extend(asked.iter().filter_map(|&asked| line.ns(asked).map(|ns| (asked, ns))));
            }
            said.sort_unstable();
            for pair in said.windows(2) {
                prop_assert!(pair[0].1 <= pair[1].1, "{pair:?}");
                if pair[0].0 == pair[1].0 {
                    prop_assert_eq!(pair[0].1, pair[1].1, "said twice, not the same");
                }
            }
        }
    }

    #[test]
    fn the_shared_clock_is_the_monotonic_clock() {
        let clock = TscClock::shared().expect("this machine's counter is a clock");
        for _ in 0..200 {
            let before = domain_now_ns();
            let tsc = counter::now();
            let after = domain_now_ns();
            let ns = clock.up_to(tsc).ns(tsc).expect("the line was drawn");
            // Twenty microseconds: this test may be interrupted anywhere, and the line is a little off.
            assert!(ns + 20_000 >= before && ns <= after + 20_000, "{before} {ns} {after}");
        }
    }
}

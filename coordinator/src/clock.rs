//! Clocks: what is known of the offset between the coordinator's clock and a clock domain's, as an interval.
//!
//! One exchange gives two bounds. The ping was received after it was sent, so `offset >= sent - received`; the answer
//! came in after it went out, so `offset <= got - replied` (offset = coordinator's clock minus domain's clock). A bound
//! loosens by [`CLOCK_DRIFT_PPM`] with the distance from the moment it was made for, so that each is a cone over time,
//! and the estimate is what all cones allow. The quickest exchanges give the narrowest cones: that is the
//! minimum-delay filter, without a threshold.
//!
//! What it is not: a guess. It never says a point, and the middle of its interval means nothing more than the middle.
//!
//! Invariants: any two kept bounds agree with each other (so every moment has a non-empty interval); an exchange that
//! contradicts what is kept means that a clock was stepped, and starts the window anew.

use crate::limits::{CLOCK_BOUNDS_MAX, CLOCK_DRIFT_PPM, CLOCK_WINDOW_MS, MS};
use riptrace_protocol::time::Interval;

/// One exchange of clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Coordinator's monotonic clock when the ping was sent, nanoseconds.
    pub sent_ns: u64,
    /// Domain time when the ping came in.
    pub received_ns: u64,
    /// Domain time when the answer went out.
    pub replied_ns: u64,
    /// Coordinator's monotonic clock when the answer came in.
    pub got_ns: u64,
}

/// The coordinator's monotonic clock and unix time at one moment: coordinated time is the former, moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Monotonic nanoseconds.
    pub monotonic_ns: u64,
    /// Unix nanoseconds.
    pub unix_ns: i64,
}

impl Anchor {
    /// Unix nanoseconds of a monotonic moment.
    pub fn unix_ns(self, monotonic_ns: u64) -> i64 {
        clamp(i128::from(self.unix_ns) + i128::from(monotonic_ns) - i128::from(self.monotonic_ns))
    }
}

/// What an exchange did to the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken in.
    Taken,
    /// It contradicts all that was known: a clock was stepped. Only this exchange is kept.
    Restarted,
    /// It contradicts itself (the answer took longer inside than outside): it is ignored.
    Impossible,
}

/// A bound of the offset, made at a moment of domain time.
#[derive(Debug, Clone, Copy)]
struct Bound {
    at_ns: u64,
    offset_ns: i64,
}

/// The estimate of one clock domain.
#[derive(Debug, Clone, Default)]
pub struct DomainClock {
    lower: Vec<Bound>,
    upper: Vec<Bound>,
    newest_ns: u64,
    restarts: u64,
    impossible: u64,
}

impl DomainClock {
    /// Takes an exchange in.
    pub fn exchange(&mut self, exchange: Exchange) -> Outcome {
        let Exchange { sent_ns, received_ns, replied_ns, got_ns } = exchange;
        let lower = Bound { at_ns: received_ns, offset_ns: difference(sent_ns, received_ns) };
        let upper = Bound { at_ns: replied_ns, offset_ns: difference(got_ns, replied_ns) };
        if received_ns > replied_ns || sent_ns > got_ns || !agree(lower, upper) {
            self.impossible += 1;
            return Outcome::Impossible;
        }
        let agrees = self.upper.iter().all(|&u| agree(lower, u)) && self.lower.iter().all(|&l| agree(l, upper));
        if !agrees {
            *self = DomainClock { restarts: self.restarts + 1, impossible: self.impossible, ..DomainClock::default() };
        }
        self.newest_ns = self.newest_ns.max(replied_ns);
        let oldest_ns = self.newest_ns.saturating_sub(CLOCK_WINDOW_MS * MS);
        keep(&mut self.lower, lower, oldest_ns, |a, b| a.offset_ns >= b.offset_ns.saturating_add(drift_ns(a, b)));
        keep(&mut self.upper, upper, oldest_ns, |a, b| a.offset_ns <= b.offset_ns.saturating_sub(drift_ns(a, b)));
        if agrees { Outcome::Taken } else { Outcome::Restarted }
    }

    /// The offset at a moment of domain time; `None` before the first exchange.
    pub fn offset(&self, at_ns: u64) -> Option<Interval> {
        let here = Bound { at_ns, offset_ns: 0 };
        let lo_ns = self.lower.iter().map(|&b| b.offset_ns.saturating_sub(drift_ns(b, here))).max()?;
        let hi_ns = self.upper.iter().map(|&b| b.offset_ns.saturating_add(drift_ns(b, here))).min()?;
        // Kept bounds agree pairwise, so this cannot be empty; if it ever were, the wider truth is between the two.
        Some(Interval { lo_ns: lo_ns.min(hi_ns), hi_ns: hi_ns.max(lo_ns) })
    }

    /// Coordinated time of a moment of domain time; `None` before the first exchange.
    pub fn coordinated(&self, at_ns: u64, anchor: Anchor) -> Option<Interval> {
        let offset = self.offset(at_ns)?;
        let at = |offset_ns: i64| {
            let monotonic = i128::from(at_ns) + i128::from(offset_ns);
            clamp(monotonic + i128::from(anchor.unix_ns) - i128::from(anchor.monotonic_ns))
        };
        Some(Interval { lo_ns: at(offset.lo_ns), hi_ns: at(offset.hi_ns) })
    }

    /// Half the width of the interval at the newest exchange.
    pub fn uncertainty_ns(&self) -> Option<u64> {
        self.offset(self.newest_ns).map(Interval::uncertainty_ns)
    }

    /// How often a clock was seen to have been stepped.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How many exchanges contradicted themselves.
    pub fn impossible(&self) -> u64 {
        self.impossible
    }
}

/// Adds a bound unless it is implied, and removes what it implies and what is too old.
fn keep(bounds: &mut Vec<Bound>, new: Bound, oldest_ns: u64, implies: impl Fn(Bound, Bound) -> bool) {
    bounds.retain(|b| b.at_ns >= oldest_ns);
    if bounds.iter().any(|&b| implies(b, new)) {
        return;
    }
    bounds.retain(|&b| !implies(new, b));
    if bounds.len() >= CLOCK_BOUNDS_MAX {
        // Bounds are in the order of arrival: the first one is the oldest.
        bounds.remove(0);
    }
    bounds.push(new);
}

/// Whether a lower and an upper bound leave room for an offset, at the moment of either.
fn agree(lower: Bound, upper: Bound) -> bool {
    lower.offset_ns <= upper.offset_ns.saturating_add(drift_ns(lower, upper))
}

/// How far the offset may have moved between the moments of two bounds, rounded up.
fn drift_ns(a: Bound, b: Bound) -> i64 {
    let apart = u128::from(a.at_ns.abs_diff(b.at_ns));
    i64::try_from((apart * u128::from(CLOCK_DRIFT_PPM)).div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn difference(a: u64, b: u64) -> i64 {
    clamp(i128::from(a) - i128::from(b))
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANCHOR: Anchor = Anchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 };

    /// A domain whose clock reads `base + elapsed * (1 + drift)` when the coordinator's reads `elapsed`.
    struct Truth {
        base_ns: i64,
        drift_ppm: i64,
    }

    impl Truth {
        fn domain_ns(&self, coordinator_ns: u64) -> u64 {
            let elapsed = i128::from(coordinator_ns);
            let read = i128::from(self.base_ns) + elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000;
            u64::try_from(read).unwrap()
        }
    }

    proptest! {
        #[test]
        fn the_true_time_is_always_inside(
            base_ns in 1_000_000_000i64..1 << 50,
            drift_ppm in -150i64..=150,
            exchanges in proptest::collection::vec((1u64..500, 1u64..40_000_000, 0u64..5_000_000, 1u64..40_000_000), 1..80),
            lookback_ms in 0u64..20_000,
        ) {
            let truth = Truth { base_ns, drift_ppm };
            let mut clock = DomainClock::default();
            let mut now = 60_000_000_000u64;
            for (pause_ms, there, inside, back) in exchanges {
                now += pause_ms * MS;
                let outcome = clock.exchange(Exchange {
                    sent_ns: now,
                    received_ns: truth.domain_ns(now + there),
                    replied_ns: truth.domain_ns(now + there + inside),
                    got_ns: now + there + inside + back,
                });
                prop_assert_eq!(outcome, Outcome::Taken);
                now += there + inside + back;
                for at in [now, now - lookback_ms * MS, now + lookback_ms * MS] {
                    let told = clock.coordinated(truth.domain_ns(at), ANCHOR).unwrap();
                    let true_ns = ANCHOR.unix_ns(at);
                    // Both roundings of the simulated clock are below 2 ns.
                    prop_assert!(told.lo_ns <= true_ns + 2 && true_ns <= told.hi_ns + 2, "{told:?} {true_ns}");
                }
                prop_assert!(clock.lower.len() <= CLOCK_BOUNDS_MAX && clock.upper.len() <= CLOCK_BOUNDS_MAX);
            }
        }

        #[test]
        fn any_exchange_is_survived(
            exchanges in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..40),
            at_ns in any::<u64>(),
        ) {
            let mut clock = DomainClock::default();
            for (sent_ns, received_ns, replied_ns, got_ns) in exchanges {
                clock.exchange(Exchange { sent_ns, received_ns, replied_ns, got_ns });
                if let Some(interval) = clock.coordinated(at_ns, ANCHOR) {
                    prop_assert!(interval.lo_ns <= interval.hi_ns);
                }
            }
        }
    }

    #[test]
    fn a_quick_exchange_narrows_what_slow_ones_left_open() {
        let mut clock = DomainClock::default();
        let mut ping = |at: u64, there: u64, back: u64| {
            clock.exchange(Exchange {
                sent_ns: at,
                received_ns: at + there + 7_000,
                replied_ns: at + there + 7_000,
                got_ns: at + there + back,
            });
            clock.uncertainty_ns().unwrap()
        };
        assert_eq!(ping(10_000_000, 5_000_000, 5_000_000), 5_000_000);
        assert_eq!(ping(30_000_000, 50_000, 30_000), 40_000);
        let later = ping(1_000_000_000, 9_000_000, 9_000_000);
        assert!((40_000..40_000 + 210_000).contains(&later), "widened by drift only: {later}");
    }

    #[test]
    fn a_stepped_clock_starts_the_window_anew() {
        let mut clock = DomainClock::default();
        let at = |sent: u64, offset: u64| Exchange {
            sent_ns: sent,
            received_ns: sent + offset + 10_000,
            replied_ns: sent + offset + 11_000,
            got_ns: sent + 20_000,
        };
        assert_eq!(clock.exchange(at(1_000_000, 0)), Outcome::Taken);
        assert_eq!(clock.exchange(at(2_000_000, 3_000_000_000)), Outcome::Restarted);
        assert_eq!(clock.restarts(), 1);
        let told = clock.offset(3_002_010_000).unwrap();
        assert!(told.lo_ns <= -3_000_000_000 && -3_000_000_000 <= told.hi_ns, "{told:?}");
        assert_eq!(
            clock.exchange(Exchange { sent_ns: 5, received_ns: 9, replied_ns: 100, got_ns: 6 }),
            Outcome::Impossible
        );
        assert_eq!(clock.impossible(), 1);
    }
}

//! Time: what a clock can say, and what it cannot.
//!
//! Two clocks matter. *Domain time* is CLOCK_MONOTONIC, in nanoseconds, of one kernel and time namespace (a
//! [`ClockDomain`]): exact among all processes of that domain. *Coordinated time* is the coordinator's unix time in
//! nanoseconds; a domain's hits get it by an offset that is known only as an interval.

use serde::{Deserialize, Serialize};

/// A set of processes that share one monotonic clock: boot id and time namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClockDomain(pub String);

/// An interval of nanoseconds, `lo <= hi`, that certainly holds the true value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound, inclusive.
    pub lo_ns: i64,
    /// Upper bound, inclusive.
    pub hi_ns: i64,
}

impl Interval {
    /// `None` when `lo > hi`.
    pub fn new(lo_ns: i64, hi_ns: i64) -> Option<Interval> {
        (lo_ns <= hi_ns).then_some(Interval { lo_ns, hi_ns })
    }

    /// The middle, rounded down.
    pub fn middle_ns(self) -> i64 {
        ((i128::from(self.lo_ns) + i128::from(self.hi_ns)).div_euclid(2)) as i64
    }

    /// Half the width, rounded up: the middle is off by at most this.
    pub fn uncertainty_ns(self) -> u64 {
        ((i128::from(self.hi_ns) - i128::from(self.lo_ns) + 1) / 2) as u64
    }

    /// Whether the two have a point in common.
    pub fn overlaps(self, other: Interval) -> bool {
        self.lo_ns <= other.hi_ns && other.lo_ns <= self.hi_ns
    }

    /// What both allow; `None` when they contradict each other.
    pub fn intersect(self, other: Interval) -> Option<Interval> {
        Interval::new(self.lo_ns.max(other.lo_ns), self.hi_ns.min(other.hi_ns))
    }

    /// Wider by `by_ns` on both sides, saturating.
    pub fn widen(self, by_ns: u64) -> Interval {
        let by = i64::try_from(by_ns).unwrap_or(i64::MAX);
        Interval { lo_ns: self.lo_ns.saturating_sub(by), hi_ns: self.hi_ns.saturating_add(by) }
    }

    /// Moved by `by_ns`, saturating.
    pub fn shift(self, by_ns: i64) -> Interval {
        Interval { lo_ns: self.lo_ns.saturating_add(by_ns), hi_ns: self.hi_ns.saturating_add(by_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_never_further_off_than_the_uncertainty() {
        for (lo, hi) in [(0, 0), (0, 1), (-3, 4), (i64::MIN, i64::MAX), (-7, -2)] {
            let i = Interval::new(lo, hi).unwrap();
            let (m, u) = (i128::from(i.middle_ns()), i128::from(i.uncertainty_ns()));
            assert!(m - i128::from(lo) <= u && i128::from(hi) - m <= u, "{i:?}");
        }
    }

    #[test]
    fn intervals_that_contradict_each_other_do_not_intersect() {
        let a = Interval::new(0, 5).unwrap();
        let b = Interval::new(6, 9).unwrap();
        assert_eq!(a.intersect(b), None);
        assert!(!a.overlaps(b));
        assert!(a.overlaps(b.shift(-1)));
    }
}

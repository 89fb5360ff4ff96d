//! Counts of a probe, written by the tracer thread and read by anybody; and its budget of hits.

use crate::engine::api::Counts;
use riptrace_protocol::hit::DropReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// The reasons for which an engine drops.
const REASONS: [DropReason; 4] = [DropReason::Rate, DropReason::Queue, DropReason::Capture, DropReason::Condition];

/// Counts of one probe.
#[derive(Debug, Default)]
pub(super) struct Counters {
    passages: AtomicU64,
    hits: AtomicU64,
    dropped: [AtomicU64; REASONS.len()],
}

impl Counters {
    pub(super) fn passage(&self) {
        self.passages.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, reason: DropReason) {
        if let Some(index) = REASONS.iter().position(|&known| known == reason) {
            self.dropped[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A snapshot. A passage is counted first, so there are never more hits and drops than passages in it.
    pub(super) fn counts(&self) -> Counts {
        let hits = self.hits.load(Ordering::Acquire);
        let dropped = REASONS.iter().zip(&self.dropped).map(|(&reason, count)| (reason, count.load(Ordering::Acquire)));
        let dropped = dropped.filter(|&(_, count)| count > 0).collect();
        Counts {
            passages: self.passages.load(Ordering::Acquire),
            hits,
            dropped,
            note: None,
            off: None,
            unfinished: false,
        }
    }
}

/// A budget of hits: a bucket that fills with `per_s` tokens per second, and holds one second's worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budget {
    per_s: u64,
    /// Billionths of a token: filling needs no division.
    nano_tokens: u64,
    filled_ns: u64,
}

const TOKEN: u64 = 1_000_000_000;

impl Budget {
    /// A full bucket.
    pub(super) fn new(per_s: u32, now_ns: u64) -> Budget {
        let per_s = u64::from(per_s);
        Budget { per_s, nano_tokens: per_s * TOKEN, filled_ns: now_ns }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        // What fills in more than a second is full.
        let passed_ns = now_ns.saturating_sub(self.filled_ns).min(1_000_000_000);
        self.filled_ns = self.filled_ns.max(now_ns);
        self.nano_tokens = (self.nano_tokens + passed_ns * self.per_s).min(self.per_s * TOKEN);
        let has = self.nano_tokens >= TOKEN;
        if has {
            self.nano_tokens -= TOKEN;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_says_and_no_more() {
        let second = 1_000_000_000;
        let mut budget = Budget::new(10, 5 * second);
        // A passage every millisecond for three seconds: the bucket's ten, and ten per second.
        let taken = (0..3000).filter(|ms| budget.take(5 * second + ms * 1_000_000)).count();
        assert_eq!(taken, 10 + 29);
        assert!(!Budget::new(0, 0).take(100 * second), "no budget, no hit");
        let mut idle = Budget::new(2, 0);
        assert_eq!((0..5).filter(|_| idle.take(1000 * second)).count(), 2, "one second's worth at most");
        let mut back = Budget::new(1, 10 * second);
        assert!(back.take(second) && !back.take(second), "a clock that goes back fills nothing");
        let mut largest = Budget::new(u32::MAX, 0);
        assert!(largest.take(u64::MAX));
    }

    #[test]
    fn counts_are_kept_by_reason() {
        let counters = Counters::default();
        (0..3).for_each(|_| counters.passage());
        counters.hit();
        counters.dropped(DropReason::Rate);
        counters.dropped(DropReason::Condition);
        let counts = counters.counts();
        assert_eq!((counts.passages, counts.hits), (3, 1));
        assert_eq!(counts.dropped.into_iter().collect::<Vec<_>>(), [(DropReason::Rate, 1), (DropReason::Condition, 1)]);
    }
}

//! How fast the counts of a tracepoint grow: plain numbers and times in, a rate out.
//!
//! A rate is by how much the counts that are shown have grown within the last [`WINDOW`], divided by the time between the
//! two looks that it is made of. Agents report their counts once a second: a rate over ten seconds may be a tenth off.
//!
//! Invariants
//! - Nothing is said before two looks are [`SPAN_MIN`] apart, nor after a count that fell: it is of something else then.
//! - What is kept is bounded by the window and the pause between two looks.

use std::collections::VecDeque;
use std::time::Duration;

/// What a rate is of, at most.
const WINDOW: Duration = Duration::from_secs(10);
/// What a rate is of, at least: counts come once a second.
const SPAN_MIN: Duration = Duration::from_secs(3);
/// Looks that are closer together are one.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The counts of one tracepoint over the last seconds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The oldest first; the first is the newest of those that are as old as the window.
    looks: VecDeque<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    hits: u64,
    dropped: u64,
}

/// How often a line is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Hits in ten seconds.
    hits_per_10_s: u64,
    /// Hits that could not be taken, in ten seconds.
    dropped_per_10_s: u64,
    /// What it is of, in seconds.
    over_s: u64,
}

impl Counts {
    /// The counts as they are now; `now` never goes back.
    pub(super) fn look(&mut self, now: Duration, hits: u64, dropped: u64) {
        if let Some(last) = self.looks.back() {
            if hits < last.hits || dropped < last.dropped {
                self.forget();
            } else if now.saturating_sub(last.at) < PAUSE_MIN {
                return;
            }
        }
        self.looks.push_back(Look { at: now, hits, dropped });
        while self.looks.get(1).is_some_and(|second| now.saturating_sub(second.at) >= WINDOW) {
            self.looks.pop_front();
        }
    }

    /// The counts are of something else from here on.
    pub(super) fn forget(&mut self) {
        self.looks.clear();
    }

    /// `None` while it is not known, and where nothing was ever counted.
    pub(super) fn rate(&self) -> Option<Rate> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let span = last.at.saturating_sub(first.at);
        if span < SPAN_MIN || (last.hits, last.dropped) == (0, 0) {
            return None;
        }
        Some(Rate {
            hits_per_10_s: per_10_s(last.hits - first.hits, span),
            dropped_per_10_s: per_10_s(last.dropped - first.dropped, span),
            over_s: (span.as_millis() as u64 + 500) / 1000,
        })
    }
}

/// Rounded; what is more than nothing is never told as nothing.
fn per_10_s(count: u64, span: Duration) -> u64 {
    let millis = span.as_millis().max(1);
    let tenths = (u128::from(count) * 10_000 + millis / 2) / millis;
    u64::try_from(tenths).unwrap_or(u64::MAX).max(u64::from(count > 0))
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rate { hits_per_10_s, dropped_per_10_s, over_s } = *self;
        write!(f, "{}/s", number(hits_per_10_s))?;
        if dropped_per_10_s > 0 {
            write!(f, " and {} dropped/s", number(dropped_per_10_s))?;
        }
        write!(f, " over {over_s} s")
    }
}

/// `0`, `0.1`, `9.9`, `10`, `1234`: two digits are all that such a rate knows.
fn number(tenths: u64) -> String {
    match tenths {
        0 => "0".to_owned(),
        1..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10 + u64::from(tenths % 10 >= 5)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate after looks at these seconds.
    fn after(looks: &[(u64, u64, u64)]) -> Option<String> {
        let mut counts = Counts::default();
        looks.iter().for_each(|&(second, hits, dropped)| counts.look(Duration::from_secs(second), hits, dropped));
        counts.rate().map(|rate| rate.to_string())
    }

    #[test]
    fn nothing_is_said_while_nothing_is_known() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[(0, 120, 0)]), None, "how long they took is not known");
        assert_eq!(after(&[(0, 0, 0), (2, 50, 0)]), None, "too short");
        assert_eq!(after(&[(0, 0, 0), (30, 0, 0)]), None, "no hit at all");
    }

    #[test]
    fn a_rate_is_of_the_seconds_that_it_names() {
        assert_eq!(after(&[(0, 120, 0), (4, 160, 0)]).unwrap(), "10/s over 4 s");
        assert_eq!(after(&[(0, 0, 0), (3, 29, 0)]).unwrap(), "9.7/s over 3 s");
        let steady: Vec<(u64, u64, u64)> = (0..60).map(|second| (second, second * 25, second * 3)).collect();
        assert_eq!(after(&steady).unwrap(), "25/s and 3.0 dropped/s over 10 s");
        // It was fast, and has been silent since.
        let silent: Vec<(u64, u64, u64)> = (0..60).map(|second| (second, second.min(5) * 25, 1)).collect();
        assert_eq!(after(&silent[..=10]).unwrap(), "13/s over 10 s", "12.5; what was dropped before is no rate");
        assert_eq!(after(&silent[..=15]).unwrap(), "0/s over 10 s");
        assert_eq!(after(&[(0, 0, 0), (9, 0, 0), (19, 1, 0)]).unwrap(), "0.1/s over 10 s");
        assert_eq!(after(&[(0, 0, 0), (1000, 1, 0)]).unwrap(), "0.1/s over 1000 s", "a hit is never none");
    }

    #[test]
    fn a_count_that_falls_begins_anew() {
        assert_eq!(after(&[(0, 0, 0), (5, 50, 0), (6, 2, 0)]), None);
        assert_eq!(after(&[(0, 0, 0), (5, 50, 0), (6, 2, 0), (9, 5, 0)]).unwrap(), "1.0/s over 3 s");
        assert_eq!(after(&[(0, 0, 7), (5, 50, 6)]), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut counts = Counts::default();
        for milli in 0..100_000 {
            counts.look(Duration::from_millis(milli), milli, 0);
        }
        assert!(counts.looks.len() <= 21 + 1, "{}", counts.looks.len());
        assert_eq!(counts.rate().unwrap().to_string(), "1000/s over 10 s");
    }
}

//! How often the watermark is said: often while hits come or somebody waits for it, seldom else. Reads no clock.

use riptrace_protocol::limits::BUSY_MS;
use std::time::Duration;
use tokio::time::Instant;

/// While the host is busy: the merge waits for it, a person does not.
const BEAT: Duration = Duration::from_millis(200);
/// A host is calm when it has had no hits for so long, and nobody's hits have waited for its word: then it speaks with the
/// pulse of the agent. To wake up is what an agent costs whose probes are silent.
const CALM_AFTER: Duration = Duration::from_millis(BUSY_MS);

/// When the watermark is to be said next, if nothing carries it earlier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// `None`: with the next pulse.
    due_at: Option<Instant>,
    calm_at: Instant,
}

impl Pace {
    /// At once, and often at first.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { due_at: Some(now), calm_at: now + CALM_AFTER }
    }

    /// When it is to be said; `None`: not before the next pulse.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether it is to be said now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_some_and(|at| now >= at)
    }

    /// Hits have come.
    pub(super) fn busy(&mut self, now: Instant) {
        self.calm_at = now + CALM_AFTER;
    }

    /// It is wanted now: by hits of others, or because nothing comes after it.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.pulse(now);
        self.due_at = self.due_at.min(Some(now));
        self.busy(now);
    }

    /// What is done seldom is done now.
    pub(super) fn pulse(&mut self, now: Instant) {
        self.due_at.get_or_insert(now);
    }

    /// It was said.
    pub(super) fn said(&mut self, now: Instant) {
        self.due_at = (now < self.calm_at).then(|| now + BEAT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULSE: Duration = Duration::from_secs(1);

    /// Says it whenever it is due from `start` until `end`, with a pulse each second; returns how often.
    fn said(pace: &mut Pace, start: Instant, end: Instant) -> u32 {
        let (mut now, mut said) = (start, 0);
        while now < end {
            if now.duration_since(start).as_millis() % PULSE.as_millis() == 0 {
                pace.pulse(now);
            }
            if pace.is_due(now) {
                pace.said(now);
                said += 1;
            }
            now += Duration::from_millis(1);
        }
        said
    }

    #[test]
    fn a_calm_host_says_its_watermark_seldom_until_somebody_waits_for_it() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let calm = start + CALM_AFTER;
        assert_eq!(said(&mut pace, start, calm), 50);
        // The last word of the busy time was followed by another.
        let later = calm + 20 * PULSE;
        assert_eq!(said(&mut pace, calm + PULSE, later), 19);
        let now = later + Duration::from_millis(300);
        pace.hurry(now);
        assert!(pace.is_due(now));
        assert_eq!(said(&mut pace, now, now + CALM_AFTER), 50);
    }

    #[test]
    fn hits_keep_a_host_busy() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for second in 0..60 {
            let now = start + second * PULSE;
            pace.busy(now);
            assert_eq!(said(&mut pace, now, now + PULSE), 5, "second {second}");
        }
    }
}

//! Encoded batches that wait for the bus: one is under way at a time, tried again until it is acknowledged. Pure.
//!
//! ```text
//!            push                    start                acknowledged
//!  (packer) ------> front .. back  --------> under way  ----------------> gone
//!                     ^                          |
//!                     +--- after a pause --------+ failed
//! ```
//!
//! One at a time keeps the order of the numbers on the bus. A batch that was tried twice may be stored twice by a bus
//! that does not know its id; batches are numbered, so a reader sees that.

use super::packer::Packed;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Encoded batches that wait for the bus, at most, in bytes: half a minute of a busy host, or a night of an idle one.
pub(crate) const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Batches that wait for the bus, at most: a small one costs more than its bytes.
pub(crate) const BACKLOG_BATCHES_MAX: usize = 16_384;
/// Pause after the first failure: a server that restarts is back soon.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: what a person waits for without wondering.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Batches that wait for the bus.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes_max: usize,
    batches: VecDeque<Packed>,
    bytes: usize,
    under_way: bool,
    failures: u32,
    /// Not before this, in time since some fixed point.
    retry_at: Duration,
}

impl Outbox {
    /// An empty outbox for at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Outbox {
        Outbox {
            bytes_max,
            batches: VecDeque::new(),
            bytes: 0,
            under_way: false,
            failures: 0,
            retry_at: Duration::ZERO,
        }
    }

    /// Whether it takes no more for now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.batches.len() >= BACKLOG_BATCHES_MAX
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether the bus has been taking what it was given.
    pub(crate) fn is_flowing(&self) -> bool {
        self.failures == 0
    }

    /// How much waits: batches and bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.batches.len(), self.bytes)
    }

    /// Puts a batch at the end.
    pub(crate) fn push(&mut self, packed: Packed) {
        self.bytes += packed.bytes.len();
        self.batches.push_back(packed);
    }

    /// When the next try is due; `None` when there is nothing to try or a try is under way.
    pub(crate) fn due_at(&self) -> Option<Duration> {
        (!self.under_way && !self.batches.is_empty()).then_some(self.retry_at)
    }

    /// Begins a try, if one is due: number and bytes of the batch.
    pub(crate) fn start(&mut self, now: Duration) -> Option<(u64, Bytes)> {
        if self.due_at()? > now {
            return None;
        }
        self.under_way = true;
        self.batches.front().map(|packed| (packed.number, packed.bytes.clone()))
    }

    /// The try ended well: the batch is stored.
    pub(crate) fn acknowledged(&mut self) {
        self.under_way = false;
        self.failures = 0;
        if let Some(packed) = self.batches.pop_front() {
            self.bytes -= packed.bytes.len();
        }
    }

    /// The try failed: the same batch is tried again after a pause. Whether this is the first failure in a row.
    pub(crate) fn failed(&mut self, now: Duration) -> bool {
        self.under_way = false;
        let pause = RETRY_PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_PAUSE_MAX);
        self.retry_at = now + pause;
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(number: u64, bytes: usize) -> Packed {
        Packed { number, bytes: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn one_batch_is_under_way_and_the_same_one_is_tried_again() {
        let at = Duration::from_millis;
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.start(at(0)), None);
        outbox.push(packed(0, 10));
        outbox.push(packed(1, 10));
        assert_eq!(outbox.start(at(0)).unwrap().0, 0);
        assert_eq!(outbox.start(at(0)), None, "one at a time");
        assert!(outbox.failed(at(0)), "the first failure");
        assert_eq!(outbox.start(at(49)), None, "not before the pause is over");
        assert_eq!(outbox.start(at(50)).unwrap().0, 0);
        assert!(!outbox.failed(at(50)));
        assert_eq!(outbox.due_at(), Some(at(150)), "the pause doubles");
        assert_eq!(outbox.start(at(150)).unwrap().0, 0);
        outbox.acknowledged();
        assert_eq!(outbox.start(at(150)).unwrap().0, 1);
        outbox.acknowledged();
        assert!(outbox.is_empty() && outbox.waiting() == (0, 0));
    }

    #[test]
    fn pauses_end_within_a_second() {
        let mut outbox = Outbox::new(100);
        outbox.push(packed(0, 10));
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            assert!(outbox.start(now).is_some());
            outbox.failed(now);
            let due = outbox.due_at().unwrap();
            assert!(due > now && due - now <= RETRY_PAUSE_MAX);
            now = due;
        }
    }

    #[test]
    fn it_is_full_by_bytes() {
        let mut outbox = Outbox::new(100);
        outbox.push(packed(0, 99));
        assert!(!outbox.is_full());
        outbox.push(packed(1, 1));
        assert!(outbox.is_full());
        outbox.start(Duration::ZERO);
        outbox.acknowledged();
        assert!(!outbox.is_full());
    }
}

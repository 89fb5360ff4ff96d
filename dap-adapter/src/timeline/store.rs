//! The ordered hits themselves.
//!
//! Invariants: `seq` strictly increases from front to back; `bytes` is the sum of the kept hits' sizes; a hit that was
//! handed out as an `Arc` stays valid after it has left the timeline.

use riptrace_protocol::stream::OrderedHit;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much a timeline keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineLimits {
    /// Hits.
    pub hits: usize,
    /// Memory of the hits, in bytes.
    pub bytes: usize,
}

impl Default for TimelineLimits {
    /// 100,000 hits and 256 MiB: minutes at the default rate, and no burden on the editor's machine.
    fn default() -> Self {
        TimelineLimits { hits: 100_000, bytes: 256 * 1024 * 1024 }
    }
}

/// The ordered hits of a session.
#[derive(Debug, Default)]
pub struct Timeline {
    limits: TimelineLimits,
    hits: VecDeque<Arc<OrderedHit>>,
    bytes: usize,
    evicted: u64,
}

impl Timeline {
    /// Keeps no more than `limits` says, but at least the newest hit.
    pub fn new(limits: TimelineLimits) -> Timeline {
        Timeline { limits, ..Timeline::default() }
    }

    /// Appends a hit and returns those that made room for it. A hit that is not behind the newest (a stream that was
    /// read again from before) is refused: what was shown is not changed.
    pub fn push(&mut self, hit: Arc<OrderedHit>) -> Option<Vec<Arc<OrderedHit>>> {
        if self.hits.back().is_some_and(|newest| newest.seq >= hit.seq) {
            return None;
        }
        self.bytes += memory_bytes(&hit);
        self.hits.push_back(hit);
        let mut evicted = Vec::new();
        while self.hits.len() > 1 && (self.hits.len() > self.limits.hits || self.bytes > self.limits.bytes) {
            if let Some(oldest) = self.hits.pop_front() {
                self.bytes -= memory_bytes(&oldest);
                self.evicted += 1;
                evicted.push(oldest);
            }
        }
        Some(evicted)
    }

    /// The hit of this `seq`.
    pub fn get(&self, seq: u64) -> Option<&Arc<OrderedHit>> {
        let index = self.hits.partition_point(|hit| hit.seq < seq);
        self.hits.get(index).filter(|hit| hit.seq == seq)
    }

    /// The first hit behind `seq` for which `wanted` holds.
    pub fn next(&self, seq: u64, wanted: impl Fn(&OrderedHit) -> bool) -> Option<&Arc<OrderedHit>> {
        let from = self.hits.partition_point(|hit| hit.seq <= seq);
        self.hits.range(from..).find(|hit| wanted(hit))
    }

    /// The last hit in front of `seq` for which `wanted` holds.
    pub fn previous(&self, seq: u64, wanted: impl Fn(&OrderedHit) -> bool) -> Option<&Arc<OrderedHit>> {
        let to = self.hits.partition_point(|hit| hit.seq < seq);
        self.hits.range(..to).rev().find(|hit| wanted(hit))
    }

    /// The newest hit for which `wanted` holds.
    pub fn newest(&self, wanted: impl Fn(&OrderedHit) -> bool) -> Option<&Arc<OrderedHit>> {
        self.hits.iter().rev().find(|hit| wanted(hit))
    }

    /// Hits from `seq` on, oldest first.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = &Arc<OrderedHit>> {
        self.hits.range(self.hits.partition_point(|hit| hit.seq < seq)..)
    }

    /// How many hits are kept.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether no hit is kept.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// How many hits have made room for newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets all hits.
    pub fn clear(&mut self) {
        self.hits.clear();
        self.bytes = 0;
        self.evicted = 0;
    }
}

/// About what a hit occupies, in bytes.
fn memory_bytes(hit: &OrderedHit) -> usize {
    let raw = &hit.raw;
    let chunks: usize = raw.chunks.iter().map(|chunk| size_of_val(chunk) + chunk.bytes.len()).sum();
    size_of::<OrderedHit>()
        + hit.service.len()
        + hit.host.as_str().len()
        + raw.tracepoint.as_str().len()
        + raw.roots.len()
        + size_of_val(raw.root_states.as_slice())
        + size_of_val(raw.stack.as_slice())
        + chunks
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

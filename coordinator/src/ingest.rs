//! Ingest: each agent's batches, exactly once and in the order of their numbers, with what is missing counted.
//!
//! The bus may deliver a batch twice (a publisher that heard no acknowledgement asks again) or after its successor. A
//! duplicate is dropped; a gap is waited for, [`GAP_WAIT_MS`] long, and then counted by the numbers of the hits.
//! Of a batch that comes after its gap was counted, the hits are dropped, because they are counted as lost already.
//! A batch that says its watermark only takes no number: it is in its turn when all batches before that number are.
//!
//! What it is not: it orders one agent's batches only; across agents, [`crate::merge`] does.

use crate::limits::{GAP_WAIT_MS, MS, PARKED_BATCHES_MAX, SOURCES_MAX};
use crate::merge::SourceId;
use riptrace_protocol::batch::Batch;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// A batch with its place in the trace stream.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Sequence number in the trace stream.
    pub trace_sequence: u64,
    /// When it arrived, in coordinated time.
    pub arrived_ns: i64,
    /// The batch.
    pub batch: Batch,
}

/// A batch in its turn.
#[derive(Debug, Clone)]
pub struct InTurn {
    /// The batch; hits that were seen before are taken out.
    pub stored: Stored,
    /// Numbers of hits that are missing in front of it; may be empty.
    pub lost: Range<u64>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It was in its turn, or waits for it.
    Yes,
    /// Its hits are counted as lost already, or were shown by an earlier coordinator; what else it says is news.
    TooLate,
    /// It was seen before.
    Duplicate,
}

/// Gaps of one source that may still be filled too late, at most; the oldest is forgotten first.
const GAPS_MAX: usize = 64;

/// Where a batch stands among those of its source: its number, and whether it takes that. One that does not comes before
/// the one that does.
type Place = (u64, bool);

fn place(batch: &Batch) -> Place {
    (batch.number, !batch.is_watermark())
}

#[derive(Debug, Default)]
struct Source {
    /// Number of the next batch; `None` when only the hits are known, or nothing.
    next_batch: Option<u64>,
    /// Number of the next hit; `None` when nothing is known: then the first batch tells.
    next_hit: Option<u64>,
    /// Hits before `next_hit` are of no use to anybody: a first batch that reaches up to it is in its turn.
    behind: bool,
    parked: BTreeMap<Place, Stored>,
    /// Numbers of batches that were passed by without being seen.
    unseen: VecDeque<Range<u64>>,
    /// Since when batches wait, monotonic.
    gap_since_ns: u64,
    used_ns: u64,
}

/// All agents' batches.
#[derive(Debug, Default)]
pub struct Ingest {
    sources: BTreeMap<SourceId, Source>,
    /// Batches that were missing, over all sources.
    pub batches_missing: u64,
}

impl Ingest {
    /// Goes on with a source whose next hit is `next_hit`; 0 for one that has just begun. `behind` says that nobody
    /// has any use for hits before it; otherwise it only tells where losses begin.
    pub fn seed(&mut self, source: SourceId, next_hit: u64, behind: bool) {
        let source = self.sources.entry(source).or_default();
        if source.next_batch.is_none() && source.next_hit.is_none() {
            (source.next_hit, source.behind) = (Some(next_hit), behind);
        }
    }

    /// Takes a batch in; those whose turn has come are put out.
    pub fn accept(&mut self, now_ns: u64, stored: Stored, out: &mut Vec<InTurn>) -> Taken {
        let id = SourceId { host: stored.batch.host.clone(), incarnation: stored.batch.incarnation };
        if !self.sources.contains_key(&id) && self.sources.len() >= SOURCES_MAX {
            let oldest = self.sources.iter().min_by_key(|(_, s)| s.used_ns).map(|(id, _)| id.clone());
            oldest.map(|oldest| self.sources.remove(&oldest));
        }
        let source = self.sources.entry(id).or_default();
        source.used_ns = now_ns;
        let place = place(&stored.batch);
        let (number, is_numbered) = place;
        if source.next_batch.is_some_and(|next| number < next) {
            return if is_numbered && source.see(number) { Taken::TooLate } else { Taken::Duplicate };
        }
        if let Some(parked) = source.parked.get_mut(&place) {
            // Of several watermarks the latest says most: the one that waits says it.
            parked.batch.watermark_ns = parked.batch.watermark_ns.max(stored.batch.watermark_ns);
            return Taken::Duplicate;
        }
        if source.parked.is_empty() {
            source.gap_since_ns = now_ns;
        }
        source.parked.insert(place, stored);
        source.drain(now_ns, out);
        if source.parked.len() > PARKED_BATCHES_MAX {
            self.batches_missing += source.give_up_gap(now_ns, out);
        }
        Taken::Yes
    }

    /// Gives up gaps that have been waited for long enough.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<InTurn>) {
        for source in self.sources.values_mut() {
            if !source.parked.is_empty() && now_ns >= source.gap_since_ns + GAP_WAIT_MS * MS {
                self.batches_missing += source.give_up_gap(now_ns, out);
            }
        }
    }

    /// Forgets a source that says nothing more and of which nothing waits.
    pub fn forget(&mut self, source: &SourceId) {
        if self.sources.get(source).is_some_and(|source| source.parked.is_empty()) {
            self.sources.remove(source);
        }
    }

    /// Nothing could be heard for a while: gaps get their time anew.
    pub fn wait_anew(&mut self, now_ns: u64) {
        self.sources.values_mut().for_each(|source| source.gap_since_ns = now_ns);
    }

    /// When the first gap will be given up, if there is one.
    pub fn deadline_ns(&self) -> Option<u64> {
        let gaps = self.sources.values().filter(|source| !source.parked.is_empty());
        gaps.map(|source| source.gap_since_ns + GAP_WAIT_MS * MS).min()
    }
}

impl Source {
    /// Puts out what is in its turn.
    fn drain(&mut self, now_ns: u64, out: &mut Vec<InTurn>) {
        while let Some(entry) = self.parked.first_entry() {
            let batch = &entry.get().batch;
            let in_turn = match (self.next_batch, self.next_hit) {
                (Some(next), _) => batch.number == next,
                (None, Some(next_hit)) if self.behind => batch.number == 0 || batch.first_hit <= next_hit,
                (None, _) => batch.number == 0,
            };
            if !in_turn {
                break;
            }
            let stored = entry.remove();
            self.put_out(stored, out);
            self.gap_since_ns = now_ns;
        }
    }

    /// Takes the first batch behind the gap as the next one; tells how many batches are missing.
    fn give_up_gap(&mut self, now_ns: u64, out: &mut Vec<InTurn>) -> u64 {
        let Some(((number, _), stored)) = self.parked.pop_first() else { return 0 };
        let missing = self.next_batch.map_or(0, |next| number.saturating_sub(next));
        self.put_out(stored, out);
        self.gap_since_ns = now_ns;
        self.drain(now_ns, out);
        missing
    }

    /// Whether a batch that was passed by is seen for the first time.
    fn see(&mut self, number: u64) -> bool {
        let Some(at) = self.unseen.iter().position(|gap| gap.contains(&number)) else { return false };
        let gap = std::mem::replace(&mut self.unseen[at], number + 1..number + 1);
        self.unseen[at].end = gap.end;
        self.pass_by(gap.start..number);
        true
    }

    fn pass_by(&mut self, numbers: Range<u64>) {
        if !numbers.is_empty() {
            if self.unseen.len() >= GAPS_MAX {
                self.unseen.pop_front();
            }
            self.unseen.push_back(numbers);
        }
    }

    fn put_out(&mut self, mut stored: Stored, out: &mut Vec<InTurn>) {
        self.pass_by(self.next_batch.unwrap_or(0)..stored.batch.number);
        let first = stored.batch.first_hit;
        // A run that is new to us begins where its first batch does, unless it began after we did.
        let next = self.next_hit.unwrap_or(first);
        // Only a batch that goes on from a known one may not repeat hits; after a restart it is read again whole.
        if self.next_batch.is_some() {
            stored.batch.hits.retain(|hit| hit.number >= next);
        }
        let end = stored.batch.hits.last().map_or(first, |hit| hit.number.saturating_add(1));
        // What was seeded only tells where losses begin: batches that are read again go on from themselves.
        self.next_hit = Some(end);
        let (number, is_numbered) = place(&stored.batch);
        self.next_batch = Some(number.saturating_add(u64::from(is_numbered)));
        out.push(InTurn { stored, lost: next..first.max(next) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use riptrace_protocol::hit::RawHit;
    use riptrace_protocol::ids::{HostName, Incarnation, LayoutId, ProcessKey, TracepointId};
    use riptrace_protocol::time::ClockDomain;

    fn batch(number: u64, first_hit: u64, hits: u64) -> Stored {
        let hit = |number| RawHit {
            number,
            tracepoint: TracepointId::new("t").unwrap(),
            process: ProcessKey { pid: 1, start_time: 1 },
            layout: LayoutId([0; 16]),
            time_ns: 100 + number,
            thread: 1,
            goroutine: None,
            roots: Vec::new(),
            root_states: Vec::new(),
            chunks: Vec::new(),
            stack: Vec::new(),
            stack_end: riptrace_protocol::hit::StackEnd::Whole,
            duration_ns: None,
        };
        let batch = Batch {
            host: HostName::new("a").unwrap(),
            incarnation: Incarnation(7),
            number,
            clock_domain: ClockDomain("d".into()),
            watermark_ns: 100 + first_hit + hits,
            first_hit,
            hits: (first_hit..first_hit + hits).map(hit).collect(),
            drops: Vec::new(),
            frames: Vec::new(),
        };
        Stored { trace_sequence: number + 1, arrived_ns: 0, batch }
    }

    fn numbers(out: &[InTurn]) -> Vec<u64> {
        out.iter().map(|turn| turn.stored.batch.number).collect()
    }

    #[test]
    fn a_gap_is_waited_for_and_then_counted_exactly() {
        let mut ingest = Ingest::default();
        let mut out = Vec::new();
        ingest.accept(0, batch(0, 0, 3), &mut out);
        ingest.accept(1, batch(2, 8, 1), &mut out);
        assert_eq!(numbers(&out), [0]);
        assert_eq!(ingest.deadline_ns(), Some(1 + GAP_WAIT_MS * MS));
        ingest.tick(GAP_WAIT_MS * MS, &mut out);
        assert_eq!(numbers(&out), [0]);
        ingest.tick(1 + GAP_WAIT_MS * MS, &mut out);
        assert_eq!(numbers(&out), [0, 2]);
        assert_eq!(out[1].lost, 3..8);
        assert_eq!(ingest.batches_missing, 1);
        assert_eq!(ingest.accept(2 + GAP_WAIT_MS * MS, batch(1, 3, 5), &mut out), Taken::TooLate);
        assert_eq!(ingest.accept(3 + GAP_WAIT_MS * MS, batch(1, 3, 5), &mut out), Taken::Duplicate);
        assert_eq!(out.len(), 2);
    }

    /// A batch that says that everything up to now is in those before `number`.
    fn watermark(number: u64, first_hit: u64, watermark_ns: u64) -> Stored {
        let mut stored = batch(number, first_hit, 0);
        stored.batch.watermark_ns = watermark_ns;
        stored
    }

    fn watermarks(out: &[InTurn]) -> Vec<u64> {
        out.iter().map(|turn| turn.stored.batch.watermark_ns).collect()
    }

    #[test]
    fn a_watermark_takes_no_number_and_holds_once_all_before_it_is_there() {
        let mut ingest = Ingest::default();
        let mut out = Vec::new();
        for watermark_ns in [50, 60] {
            assert_eq!(ingest.accept(0, watermark(0, 0, watermark_ns), &mut out), Taken::Yes);
        }
        ingest.accept(0, batch(0, 0, 3), &mut out);
        assert_eq!(watermarks(&out), [50, 60, 103]);
        assert_eq!(ingest.accept(0, watermark(0, 0, 70), &mut out), Taken::Duplicate, "what is there says more");
        for watermark_ns in [300, 500, 400] {
            ingest.accept(0, watermark(2, 5, watermark_ns), &mut out);
        }
        assert_eq!(out.len(), 3, "batch 1 may still come");
        ingest.accept(0, batch(2, 5, 1), &mut out);
        ingest.accept(0, batch(1, 3, 2), &mut out);
        assert_eq!(watermarks(&out)[3..], [105, 500, 106]);
        assert!(out.iter().all(|turn| turn.lost.is_empty()) && ingest.deadline_ns().is_none());
    }

    #[test]
    fn a_watermark_tells_of_a_batch_that_was_lost() {
        let mut ingest = Ingest::default();
        let mut out = Vec::new();
        ingest.accept(0, batch(0, 0, 3), &mut out);
        ingest.accept(1, watermark(2, 8, 200), &mut out);
        assert_eq!(ingest.deadline_ns(), Some(1 + GAP_WAIT_MS * MS));
        ingest.tick(1 + GAP_WAIT_MS * MS, &mut out);
        assert_eq!((out[1].lost.clone(), ingest.batches_missing), (3..8, 1));
        assert_eq!(ingest.accept(2 + GAP_WAIT_MS * MS, batch(1, 3, 5), &mut out), Taken::TooLate);
        ingest.accept(3 + GAP_WAIT_MS * MS, batch(2, 8, 1), &mut out);
        assert_eq!((out.len(), out[2].stored.batch.hits.len(), out[2].lost.is_empty()), (3, 1, true));
    }

    #[test]
    fn a_run_that_was_there_before_us_begins_where_it_is_met() {
        let mut ingest = Ingest::default();
        let mut out = Vec::new();
        ingest.accept(0, batch(41, 900, 2), &mut out);
        assert!(out.is_empty(), "its predecessor may still come");
        ingest.accept(1, batch(40, 890, 10), &mut out);
        ingest.tick(GAP_WAIT_MS * MS, &mut out);
        assert_eq!(numbers(&out), [40, 41]);
        assert!(out.iter().all(|turn| turn.lost.is_empty()));
    }

    #[test]
    fn a_run_that_began_after_us_has_lost_what_is_missing_at_its_head() {
        let mut ingest = Ingest::default();
        let mut out = Vec::new();
        let stored = batch(2, 5, 1);
        ingest.seed(SourceId { host: stored.batch.host.clone(), incarnation: stored.batch.incarnation }, 0, true);
        ingest.accept(0, stored, &mut out);
        ingest.tick(GAP_WAIT_MS * MS, &mut out);
        assert_eq!(out[0].lost, 0..5);
    }

    proptest! {
        #[test]
        fn every_hit_is_put_out_once_or_counted_once(
            sizes in proptest::collection::vec(0u64..5, 1..30),
            deliveries in proptest::collection::vec((0usize..30, 0u64..1_500), 1..80),
        ) {
            let mut first = 0;
            let mut number = 0;
            let batches: Vec<Stored> = sizes.iter().map(|&hits| {
                let stored = batch(number, first, hits);
                first += hits;
                number += u64::from(hits > 0);
                stored
            }).collect();
            let mut ingest = Ingest::default();
            let mut out = Vec::new();
            let mut now = 0;
            ingest.accept(now, batches[0].clone(), &mut out);
            for (index, pause_ms) in deliveries {
                now += pause_ms * MS;
                ingest.tick(now, &mut out);
                ingest.accept(now, batches[index % batches.len()].clone(), &mut out);
            }
            ingest.accept(now, batches[batches.len() - 1].clone(), &mut out);
            // One gap is given up after another.
            while let Some(deadline) = ingest.deadline_ns() {
                ingest.tick(deadline, &mut out);
            }
            let mut expected = 0;
            for turn in &out {
                prop_assert_eq!(turn.lost.start, expected);
                for hit in &turn.stored.batch.hits {
                    prop_assert_eq!(hit.number, turn.lost.end.max(expected));
                    expected = hit.number + 1;
                }
                expected = expected.max(turn.lost.end);
            }
            prop_assert_eq!(expected, first);
        }
    }
}

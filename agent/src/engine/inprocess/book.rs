//! The books of one process: which probes are armed, what their records are, and what became of their passages.
//!
//! A passage ends in exactly one of these: a record, which the reader counts; or a counter that the process increments.
//! So `passages = records + counters`, and what is not a hit is there by its reason. Counters of the process never go
//! back; a probe begins with what they were when it was armed.
//!
//! Not here: memory of the process beyond its counters, time (given by the caller).

use super::budget::{Looked, Tokens, Usage};
use super::shared::{SharedMemory, Slot};
use crate::capture::program::Program;
use crate::engine::api::Counts;
use crate::engine::area::{
    COUNTER_CONDITION, COUNTER_COUNTED, COUNTER_RATE, COUNTER_RING, COUNTER_SAMPLED_OUT, COUNTER_STACK,
    COUNTER_UNSELECTED, PROBES_MAX,
};
use crate::engine::record::RecordLayout;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{LayoutId, TracepointId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// A probe's number is not given to another one for this long after it was removed, in nanoseconds: a thread may have
/// been interrupted in the old one's pad. (When all numbers are taken, it is given at once.)
const SLOT_REST_NS: u64 = 10_000_000_000;
/// The records of a removed probe are still understood for this long, in nanoseconds.
const KIND_REST_NS: u64 = 60_000_000_000;

/// Counters that are drops, with their reasons.
const DROPS: [(usize, DropReason); 5] = [
    (COUNTER_CONDITION, DropReason::Condition),
    (COUNTER_RATE, DropReason::Rate),
    (COUNTER_SAMPLED_OUT, DropReason::Sampled),
    (COUNTER_RING, DropReason::Ring),
    (COUNTER_STACK, DropReason::Stack),
];
/// Counters that are passages and neither hits nor drops.
const OTHERS: [usize; 1] = [COUNTER_UNSELECTED];
/// All counters that are passages: drops, others, and those of a counting probe.
const PASSAGES: usize = DROPS.len() + OTHERS.len() + 1;

/// What a record's kind stands for.
#[derive(Debug)]
pub(super) struct Kind {
    /// Of which tracepoint.
    pub(super) tracepoint: TracepointId,
    /// How a hit is read.
    pub(super) layout: LayoutId,
    /// What was run.
    pub(super) program: Arc<Program>,
    /// What a record looks like.
    pub(super) record: RecordLayout,
}

/// One armed probe.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    /// The costliest mechanism of its sites.
    pub(super) mechanism: Mechanism,
    kinds: Vec<u32>,
    is_counting: bool,
    pub(super) tokens: Option<Tokens>,
    /// One passage of `2^shift` is captured.
    pub(super) shift: u32,
    /// Why its mechanism is not a cheaper one.
    pub(super) why_mechanism: Option<String>,
    /// That it is sampled, and why.
    pub(super) sampling: Option<String>,
    /// Why it is off though it is wanted.
    pub(super) off: Option<String>,
    began: [u64; PASSAGES],
    told: [u64; PASSAGES],
    records: u64,
    bytes: u64,
    refused: BTreeMap<DropReason, u64>,
    looked: (u64, u64, u64),
}

fn read(memory: &SharedMemory, slot: Slot) -> [u64; PASSAGES] {
    let mut counters = DROPS.iter().map(|(counter, _)| *counter).chain(OTHERS).chain([COUNTER_COUNTED]);
    std::array::from_fn(|_| counters.next().map_or(0, |counter| memory.counter(slot, counter)))
}

impl Entry {
    fn since_began(&self, memory: &SharedMemory) -> [u64; PASSAGES] {
        let now = read(memory, self.slot);
        std::array::from_fn(|n| now[n].wrapping_sub(self.began[n]))
    }

    /// A record of it was read; `bytes` of the ring.
    pub(super) fn recorded(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
    }

    /// One of its records did not become a hit.
    pub(super) fn refused(&mut self, reason: DropReason) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// What became of its passages.
    pub(super) fn counts(&self, memory: &SharedMemory) -> Counts {
        let counters = self.since_began(memory);
        let counted = counters[PASSAGES - 1];
        let mut dropped = self.refused.clone();
        for ((_, reason), count) in DROPS.iter().zip(counters) {
            if count > 0 {
                *dropped.entry(*reason).or_default() += count;
            }
        }
        let refused: u64 = self.refused.values().sum();
        let hits = if self.is_counting { counted } else { self.records.saturating_sub(refused) };
        Counts {
            passages: self.records + counters.iter().sum::<u64>(),
            hits,
            dropped,
            note: note(self.sampling.as_deref(), self.why_mechanism.as_deref()),
            off: self.off.clone(),
            unfinished: false,
        }
    }

    /// What was dropped inside the process since this was asked last.
    pub(super) fn news(&mut self, memory: &SharedMemory) -> Vec<(DropReason, u64)> {
        let now = self.since_began(memory);
        let told = std::mem::replace(&mut self.told, now);
        (DROPS.iter().enumerate())
            .map(|(n, (_, reason))| (*reason, now[n].wrapping_sub(told[n])))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// What it did since this was asked last.
    pub(super) fn look(&mut self, memory: &SharedMemory) -> Looked {
        let passed = self.since_began(memory).iter().sum::<u64>();
        let before = std::mem::replace(&mut self.looked, (passed, self.records, self.bytes));
        let usage = Usage {
            passed: passed.saturating_sub(before.0),
            records: self.records - before.1,
            bytes: self.bytes - before.2,
        };
        Looked { mechanism: self.mechanism, shift: self.shift, usage }
    }
}

/// What is shown beside a probe's state.
fn note(sampling: Option<&str>, why_mechanism: Option<&str>) -> Option<String> {
    let parts: Vec<&str> = sampling.into_iter().chain(why_mechanism).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// All probes of a process.
#[derive(Debug)]
pub(super) struct Book {
    entries: BTreeMap<TracepointId, Entry>,
    kinds: HashMap<u32, Arc<Kind>>,
    next_kind: u32,
    /// Kinds of removed probes, with the time until which they are understood.
    resting_kinds: VecDeque<(u64, Vec<u32>)>,
    free: VecDeque<Slot>,
    /// Removed probes' numbers, with the time from which they may be given again.
    resting: VecDeque<(u64, Slot)>,
    /// Removed probes, with the time from which no passage of them is under way any more: a thread that was interrupted in
    /// a pad counts there when it comes back.
    closed: VecDeque<(u64, TracepointId, Entry)>,
}

impl Book {
    /// An empty book. Kinds begin at `first_kind`: another one for each agent, so that a record of an earlier one's pad
    /// is not taken for its own.
    pub(super) fn new(first_kind: u32) -> Book {
        Book {
            entries: BTreeMap::new(),
            kinds: HashMap::new(),
            next_kind: first_kind,
            resting_kinds: VecDeque::new(),
            free: (0..PROBES_MAX as u32).map(Slot).collect(),
            resting: VecDeque::new(),
            closed: VecDeque::new(),
        }
    }

    /// A number for a probe; `None` when there are [`PROBES_MAX`].
    pub(super) fn take_slot(&mut self, now_ns: u64) -> Option<Slot> {
        let is_rested = self.resting.front().is_some_and(|(from, _)| now_ns >= *from);
        let fresh = if is_rested { None } else { self.free.pop_front() };
        let slot = fresh.or_else(|| self.resting.pop_front().map(|(_, slot)| slot))?;
        self.closed.retain(|(_, _, entry)| entry.slot != slot);
        Some(slot)
    }

    /// Gives a number back.
    pub(super) fn give_slot(&mut self, slot: Slot, now_ns: u64) {
        self.resting.push_back((now_ns + SLOT_REST_NS, slot));
    }

    /// Names a kind of record.
    pub(super) fn add_kind(&mut self, kind: Kind) -> u32 {
        let number = self.next_kind;
        // 0 is what a record has that names none yet.
        self.next_kind = self.next_kind.wrapping_add(1).max(1);
        self.kinds.insert(number, Arc::new(kind));
        number
    }

    /// Forgets kinds that no pad has ever written.
    pub(super) fn drop_kinds(&mut self, kinds: &[u32]) {
        kinds.iter().for_each(|kind| drop(self.kinds.remove(kind)));
    }

    /// What a record's kind stands for.
    pub(super) fn kind(&self, number: u32) -> Option<Arc<Kind>> {
        self.kinds.get(&number).cloned()
    }

    /// A probe is about to be switched on: its counts begin.
    pub(super) fn open(
        &mut self,
        memory: &SharedMemory,
        tracepoint: TracepointId,
        slot: Slot,
        mechanism: Mechanism,
        kinds: Vec<u32>,
        tokens: Option<Tokens>,
    ) {
        let is_counting =
            kinds.first().and_then(|kind| self.kinds.get(kind)).is_some_and(|kind| kind.program.count_only);
        let entry = Entry {
            slot,
            mechanism,
            kinds,
            is_counting,
            tokens,
            shift: 0,
            why_mechanism: None,
            sampling: None,
            off: None,
            began: read(memory, slot),
            told: [0; PASSAGES],
            records: 0,
            bytes: 0,
            refused: BTreeMap::new(),
            looked: (0, 0, 0),
        };
        self.entries.insert(tracepoint, entry);
    }

    /// A probe is removed: what its number was. Its late records are still understood for a while, and its late drops told
    /// ([`Book::late`]). Its number is given to another one only when its patches are out (`is_out`).
    pub(super) fn close(&mut self, tracepoint: &TracepointId, now_ns: u64, is_out: bool) -> Option<Slot> {
        let entry = self.entries.remove(tracepoint)?;
        let slot = entry.slot;
        if is_out {
            self.give_slot(slot, now_ns);
        }
        self.resting_kinds.push_back((now_ns + KIND_REST_NS, entry.kinds.clone()));
        while self.resting_kinds.front().is_some_and(|(until, _)| now_ns >= *until) {
            if let Some((_, kinds)) = self.resting_kinds.pop_front() {
                self.drop_kinds(&kinds);
            }
        }
        while self.closed.front().is_some_and(|(until, ..)| now_ns >= *until) {
            self.closed.pop_front();
        }
        self.closed.push_back((now_ns + SLOT_REST_NS, tracepoint.clone(), entry));
        Some(slot)
    }

    /// Probes that were removed a short while ago.
    pub(super) fn late(&mut self) -> impl Iterator<Item = (&TracepointId, &mut Entry)> {
        self.closed.iter_mut().map(|(_, tracepoint, entry)| (&*tracepoint, entry))
    }

    /// The probe of a tracepoint.
    pub(super) fn entry(&mut self, tracepoint: &TracepointId) -> Option<&mut Entry> {
        self.entries.get_mut(tracepoint)
    }

    /// All probes.
    pub(super) fn entries(&mut self) -> impl Iterator<Item = (&TracepointId, &mut Entry)> {
        self.entries.iter_mut()
    }
}

#[cfg(test)]
pub(super) mod tests_support {
    use super::*;
    use riptrace_protocol::ids::Avma;

    fn program(count_only: bool) -> Arc<Program> {
        Arc::new(Program {
            condition: None,
            hit_condition: None,
            count_only,
            roots: Vec::new(),
            root_bytes: 0,
            follow: Vec::new(),
            goroutine: None,
            stack_frames_max: 0,
            return_address: None,
            stack_slice: None,
            bytes_per_hit: 64,
        })
    }

    /// A kind of record of a program that captures nothing.
    pub(in crate::engine::inprocess) fn kind(id: &TracepointId, count_only: bool) -> Kind {
        let program = program(count_only);
        let record = RecordLayout::of(&program, Avma(0x1000)).unwrap();
        Kind { tracepoint: id.clone(), layout: LayoutId([0; 16]), program, record }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::fake;
    use super::tests_support::kind;
    use super::*;

    #[test]
    fn passages_are_records_and_counters_since_the_probe_was_armed() {
        let memory = fake::memory(2);
        let id = TracepointId::new("t").unwrap();
        let mut book = Book::new(7);
        let slot = book.take_slot(0).unwrap();
        memory.count(0, slot, COUNTER_RATE, 100);
        let number = book.add_kind(kind(&id, false));
        assert_eq!(number, 7);
        book.open(&memory, id.clone(), slot, Mechanism::Jump, vec![number], None);
        memory.count(0, slot, COUNTER_RATE, 5);
        memory.count(1, slot, COUNTER_RATE, 2);
        memory.count(1, slot, COUNTER_UNSELECTED, 30);
        memory.count(0, slot, crate::engine::area::COUNTER_SAMPLED, 1000);
        let entry = book.entry(&id).unwrap();
        (0..4).for_each(|_| entry.recorded(64));
        entry.refused(DropReason::Queue);
        let counts = entry.counts(&memory);
        assert_eq!((counts.passages, counts.hits), (41, 3));
        assert_eq!(counts.dropped, BTreeMap::from([(DropReason::Rate, 7), (DropReason::Queue, 1)]));
        assert_eq!(entry.news(&memory), [(DropReason::Rate, 7)]);
        assert_eq!(entry.news(&memory), []);
        memory.count(1, slot, COUNTER_STACK, 1);
        assert_eq!(entry.news(&memory), [(DropReason::Stack, 1)]);
        let looked = entry.look(&memory);
        assert_eq!(looked.usage, Usage { passed: 38, records: 4, bytes: 256 });
        assert_eq!(entry.look(&memory).usage, Usage::default());
        // A removed probe's records are understood for a while, and its number rests.
        assert_eq!((book.close(&id, 1_000, true), book.close(&id, 1_000, true)), (Some(slot), None));
        // A thread that was in a pad counts its passage now.
        memory.count(0, slot, COUNTER_RING, 2);
        let late: Vec<_> = book.late().flat_map(|(_, entry)| entry.news(&memory)).collect();
        assert_eq!(late, [(DropReason::Ring, 2)]);
        assert!(book.kind(number).is_some());
        assert_ne!(book.take_slot(2_000), Some(slot));
        assert_eq!(book.take_slot(2_000 + SLOT_REST_NS), Some(slot));
        assert_eq!(book.late().count(), 0, "the number is another probe's");
    }

    #[test]
    fn a_counting_probe_has_its_counts_as_hits() {
        let memory = fake::memory(1);
        let id = TracepointId::new("t").unwrap();
        let mut book = Book::new(0);
        let slot = book.take_slot(0).unwrap();
        let number = book.add_kind(kind(&id, true));
        book.open(&memory, id.clone(), slot, Mechanism::Trap, vec![number], None);
        memory.count(0, slot, COUNTER_COUNTED, 9);
        let counts = book.entry(&id).unwrap().counts(&memory);
        assert_eq!((counts.passages, counts.hits, counts.dropped.len()), (9, 9, 0));
    }

    #[test]
    fn every_number_is_given_once() {
        let mut book = Book::new(0);
        let mut slots: Vec<Slot> = (0..PROBES_MAX).map(|_| book.take_slot(0).unwrap()).collect();
        assert_eq!(book.take_slot(0), None);
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), PROBES_MAX);
        book.give_slot(Slot(3), 0);
        assert_eq!(book.take_slot(1), Some(Slot(3)), "resting or not, when there is no other");
    }
}

//! What a pass over the rings does: takes the committed records out of each, and knows up to when it has seen all.
//!
//! A pad reserves its bytes first and reads the time stamp counter afterwards. So when the reader reads the counter (T),
//! *then* the head of a ring, and has consumed everything up to that head, every record of this ring that it has not
//! seen was reserved after T and is stamped later. The least T over all rings is what may be promised. A reservation
//! that is never committed (its thread was thrown out of the pad by longjmp) stops its ring, and so the promise: how
//! long is the caller's decision ([`Watch::waits`]).
//!
//! Bytes that were reserved and not needed are given back by moving the head back, so a head that was seen may be beyond
//! what there is: a ring whose tail is at its head now holds nothing either.

use super::shared::{HEAD_STEP, SharedMemory};
use crate::engine::area::RING_BYTES;
use crate::engine::record::{COMMIT, HEADER_BYTES, KIND, LENGTH, USED};

/// Length and use are the two halves of one word.
const _: () =
    assert!(LENGTH.is_multiple_of(8) && USED == LENGTH + 4 && COMMIT.is_multiple_of(8) && KIND.is_multiple_of(8));
/// The tail is moved after so many bytes: often enough for the process to find room, seldom enough not to take its cache
/// line away all the time.
const TAIL_BYTES: u64 = 32 * 1024;

/// How far a ring was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// All that was there.
    Done,
    /// Up to a reservation that is not committed.
    Waits,
    /// Up to something that is no record: the process has written into the ring by itself.
    Broken,
}

/// Takes out what is committed between a ring's tail and `head_seen`. `record` gets the bytes of one record at a time.
pub(super) fn consume(
    memory: &SharedMemory,
    cpu: usize,
    head_seen: u64,
    buffer: &mut Vec<u8>,
    record: &mut dyn FnMut(&[u8]),
) -> Stand {
    let mut tail = memory.tail(cpu);
    let mut told = tail;
    let stand = loop {
        if tail >= head_seen {
            break Stand::Done;
        }
        if memory.ring_word(cpu, tail + COMMIT as u64) != tail + 1 {
            // Given back?
            break if memory.head(cpu) <= tail { Stand::Done } else { Stand::Waits };
        }
        let sizes = memory.ring_word(cpu, tail + LENGTH as u64);
        let (length, used) = (sizes as u32 as usize, (sizes >> 32) as usize);
        let fits = length.is_multiple_of(8) && (HEADER_BYTES..=RING_BYTES).contains(&length);
        if !fits || used > length || used < HEADER_BYTES || memory.head(cpu) < tail + length as u64 {
            break Stand::Broken;
        }
        buffer.resize(length, 0);
        memory.copy(cpu, tail, buffer);
        record(buffer);
        memory.zero(cpu, tail, length);
        tail += length as u64;
        if tail - told >= TAIL_BYTES {
            memory.set_tail(cpu, tail);
            told = tail;
        }
    };
    if tail != told {
        memory.set_tail(cpu, tail);
    }
    stand
}

/// Passes by an abandoned reservation at a ring's tail. `reserved` is what a pad reserves for the records of a kind, in bytes.
///
/// Other threads write behind it meanwhile. A pad writes length and kind of a record right after it has reserved it, so
/// what is passed by is exactly the one reservation; where even that is missing, all up to the next that has it.
pub(super) fn skip(memory: &SharedMemory, cpu: usize, reserved: &dyn Fn(u32) -> Option<u32>) {
    loop {
        let (tail, head) = (memory.tail(cpu), memory.head(cpu));
        if tail >= head {
            return;
        }
        let used = (memory.ring_word(cpu, tail + LENGTH as u64) >> 32).next_multiple_of(8);
        let mut at = tail
            + match begun(memory, cpu, tail, reserved) {
                // It was about to give the rest back, or has.
                Some(length) if used != 0 => used.min(length.into()),
                Some(length) => length.into(),
                None => 8,
            };
        while at < head && !is_chain(memory, cpu, at, head) && begun(memory, cpu, at, reserved).is_none() {
            at += 8;
        }
        if at < head {
            memory.zero(cpu, tail, (at - tail) as usize);
            memory.set_tail(cpu, at);
            return;
        }
        // Nothing is behind it. Who reserved it may still come and give a part of it back: not once the head has moved.
        if memory.move_head(cpu, head) {
            memory.zero(cpu, tail, (head - tail).min(RING_BYTES as u64) as usize);
            memory.set_tail(cpu, head + HEAD_STEP);
            return;
        }
    }
}

/// The length of the record that a pad has begun here and not committed.
fn begun(memory: &SharedMemory, cpu: usize, at: u64, reserved: &dyn Fn(u32) -> Option<u32>) -> Option<u32> {
    let length = memory.ring_word(cpu, at + LENGTH as u64) as u32;
    let kind = memory.ring_word(cpu, at + KIND as u64) as u32;
    (memory.ring_word(cpu, at + COMMIT as u64) == 0 && length != 0 && reserved(kind) == Some(length)).then_some(length)
}

/// Whether records follow each other from here to the head, or to a further reservation that is not committed.
fn is_chain(memory: &SharedMemory, cpu: usize, from: u64, head: u64) -> bool {
    let mut at = from;
    while at < head && memory.ring_word(cpu, at + COMMIT as u64) == at + 1 {
        let length = memory.ring_word(cpu, at + LENGTH as u64) as u32;
        if !length.is_multiple_of(8) || (length as usize) < HEADER_BYTES || u64::from(length) > head - at {
            return false;
        }
        at += u64::from(length);
    }
    at > from
}

/// What is known of one ring.
#[derive(Debug, Clone, Copy)]
struct Ring {
    /// Nothing older than this counter is to come from it.
    clear: u64,
    /// A counter, and the head that was read after it: once the tail is there, `clear` is this counter.
    pending: Option<(u64, u64)>,
    /// Where it waits for a commit, and since when (domain time).
    waiting: Option<(u64, u64)>,
}

/// Up to when the rings were seen. Pure.
#[derive(Debug)]
pub(super) struct Watch {
    rings: Vec<Ring>,
}

impl Watch {
    /// Nothing is in the rings that is stamped before `start`.
    pub(super) fn new(cpus: usize, start: u64) -> Watch {
        Watch { rings: vec![Ring { clear: start, pending: None, waiting: None }; cpus] }
    }

    /// A ring was read: the counter was `counter`, then its head `head`, and its tail is at `tail` now.
    pub(super) fn read(&mut self, cpu: usize, counter: u64, head: u64, tail: u64, stand: Stand, now_ns: u64) {
        let ring = &mut self.rings[cpu];
        if stand == Stand::Done {
            // The tail is at the head that was read after the counter, or nothing is in the ring.
            *ring = Ring { clear: counter, pending: None, waiting: None };
            return;
        }
        match ring.pending {
            Some((before, until)) if tail >= until => {
                ring.clear = before;
                ring.pending = Some((counter, head));
            }
            Some(_) => {}
            None => ring.pending = Some((counter, head)),
        }
        ring.waiting = match ring.waiting {
            Some((at, since_ns)) if at == tail => Some((at, since_ns)),
            _ => Some((tail, now_ns)),
        };
    }

    /// For how long a ring has waited for one commit, in nanoseconds.
    pub(super) fn waits(&self, cpu: usize, now_ns: u64) -> Option<u64> {
        self.rings[cpu].waiting.map(|(_, since_ns)| now_ns.saturating_sub(since_ns))
    }

    /// The counter before which nothing is to come, over the rings that have waited for less than `given_up_ns`; `now`
    /// when all have waited longer.
    pub(super) fn clear(&self, now: u64, now_ns: u64, given_up_ns: u64) -> u64 {
        let counts = |ring: &&Ring| ring.waiting.is_none_or(|(_, since)| now_ns.saturating_sub(since) < given_up_ns);
        self.rings.iter().filter(counts).map(|ring| ring.clear).min().unwrap_or(now)
    }

    /// Where a ring waits.
    pub(super) fn waits_at(&self, cpu: usize) -> Option<u64> {
        self.rings[cpu].waiting.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::fake;
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn record(at: u64, length: u32, used: u32, mark: u64) -> Vec<u8> {
        let mut bytes = vec![0x5a; used as usize];
        bytes[..8].copy_from_slice(&(at + 1).to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&used.to_le_bytes());
        bytes[16..24].copy_from_slice(&mark.to_le_bytes());
        bytes
    }

    fn mark(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes[16..24].try_into().unwrap())
    }

    fn all(memory: &SharedMemory, head: u64) -> (Stand, Vec<u64>) {
        let (mut buffer, mut marks) = (Vec::new(), Vec::new());
        let stand = consume(memory, 0, head, &mut buffer, &mut |bytes| marks.push(mark(bytes)));
        (stand, marks)
    }

    #[test]
    fn records_come_out_in_order_and_leave_zeroes() {
        let memory = fake::memory(1);
        for n in 0..5 {
            let at = memory.reserve(0, 64).unwrap();
            memory.write(0, at, &record(at, 64, 56, n));
        }
        assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![0, 1, 2, 3, 4]));
        assert_eq!((memory.tail(0), memory.head(0)), (320, 320));
        let mut left = [1; 320];
        memory.copy(0, 0, &mut left);
        assert_eq!(left, [0; 320]);
    }

    #[test]
    fn a_reservation_stops_the_ring_until_it_is_committed_or_passed_by() {
        let memory = fake::memory(1);
        let first = memory.reserve(0, 64).unwrap();
        let second = memory.reserve(0, 128).unwrap();
        memory.write(0, second, &record(second, 128, 128, 2));
        assert_eq!(all(&memory, memory.head(0)), (Stand::Waits, vec![]));
        memory.write(0, first, &record(first, 64, 64, 1));
        assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![1, 2]));

        // A thread that never comes back, having written all but the commit word.
        let lost = memory.reserve(0, 256).unwrap();
        memory.write(0, lost + 8, &[0xff; 240]);
        let after = memory.reserve(0, 64).unwrap();
        memory.write(0, after, &record(after, 64, 64, 3));
        assert_eq!(all(&memory, memory.head(0)), (Stand::Waits, vec![]));
        skip(&memory, 0, &|_| None);
        assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![3]));
        let end = memory.reserve(0, 256).unwrap();
        skip(&memory, 0, &|_| None);
        assert_eq!((memory.tail(0), all(&memory, memory.head(0))), (end + 256 + HEAD_STEP, (Stand::Done, vec![])));
        assert!(!memory.give_back(0, end + 256, end + 64), "the head is never before the tail");
        let next = memory.reserve(0, 64).unwrap();
        memory.write(0, next, &record(next, 64, 64, 4));
        assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![4]));
    }

    /// What a pad writes first: how long its record is at most, and of which kind.
    fn begin(memory: &SharedMemory, at: u64, length: u32, used: u32) {
        let mut bytes = [0u8; 24];
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&used.to_le_bytes());
        bytes[KIND..KIND + 4].copy_from_slice(&7u32.to_le_bytes());
        memory.write(0, at + 8, &bytes[8..]);
    }

    #[test]
    fn what_others_write_behind_an_abandoned_reservation_is_not_passed_by() {
        let reserved = |kind| (kind == 7).then_some(256);
        for (given_back, abandoned_writes) in [(false, true), (false, false), (true, true)] {
            let memory = fake::memory(1);
            let lost = memory.reserve(0, 256).unwrap();
            if abandoned_writes {
                begin(&memory, lost, 256, if given_back { 80 } else { 0 });
            }
            if given_back {
                assert!(memory.give_back(0, lost + 256, lost + 80));
            }
            // Three threads at work behind it, one of them done.
            let behind: Vec<u64> = (0..3).map(|_| memory.reserve(0, 256).unwrap()).collect();
            behind.iter().for_each(|at| begin(&memory, *at, 256, 0));
            memory.write(0, behind[1], &record(behind[1], 256, 64, 2));
            skip(&memory, 0, &reserved);
            assert_eq!(memory.tail(0), behind[0], "{given_back} {abandoned_writes}");
            for (at, n) in behind.iter().zip([1, 2, 3]) {
                memory.write(0, *at, &record(*at, 256, 64, n));
            }
            assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![1, 2, 3]));
        }
    }

    #[test]
    fn a_thread_of_before_takes_nothing_back_from_a_ring_that_was_forgotten() {
        let memory = fake::memory(1);
        let old = memory.reserve(0, 512).unwrap();
        memory.forget(0);
        assert!(!memory.give_back(0, old + 512, old + 64));
        memory.write(0, old, &record(old, 512, 64, 1));
        assert!(memory.tail(0) == memory.head(0));
        let at = memory.reserve(0, 64).unwrap();
        memory.write(0, at, &record(at, 64, 64, 2));
        assert_eq!(all(&memory, memory.head(0)), (Stand::Done, vec![2]));
    }

    #[test]
    fn what_is_given_back_is_not_waited_for() {
        let memory = fake::memory(1);
        let at = memory.reserve(0, 512).unwrap();
        let seen = memory.head(0);
        memory.write(0, at, &record(at, 64, 64, 7));
        assert!(memory.give_back(0, at + 512, at + 64));
        assert_eq!(all(&memory, seen), (Stand::Done, vec![7]));
    }

    #[test]
    fn what_is_no_record_is_found_out() {
        for (length, used) in [(0, 64), (63, 56), (40, 40), (64, 65), (64, 40), (128, 64), (RING_BYTES as u32 + 8, 64)]
        {
            let memory = fake::memory(1);
            let at = memory.reserve(0, 64).unwrap();
            let mut bytes = record(at, length, 64, 0);
            bytes[12..16].copy_from_slice(&u32::to_le_bytes(used));
            memory.write(0, at, &bytes);
            assert_eq!(all(&memory, memory.head(0)), (Stand::Broken, vec![]), "{length} {used}");
        }
    }

    #[test]
    fn the_promise_is_what_all_rings_have_kept() {
        let mut watch = Watch::new(2, 100);
        assert_eq!(watch.clear(150, 0, 50), 100);
        watch.read(0, 200, 64, 64, Stand::Done, 10);
        assert_eq!(watch.clear(200, 10, 50), 100, "the other ring was not read");
        watch.read(1, 200, 640, 320, Stand::Waits, 10);
        assert_eq!((watch.clear(200, 10, 50), watch.waits(1, 15), watch.waits_at(1)), (100, Some(5), Some(320)));
        watch.read(0, 300, 64, 64, Stand::Done, 20);
        watch.read(1, 300, 960, 700, Stand::Waits, 20);
        assert_eq!(watch.clear(300, 20, 50), 200, "past what was there at 200");
        watch.read(1, 400, 960, 700, Stand::Waits, 40);
        watch.read(0, 400, 64, 64, Stand::Done, 40);
        assert_eq!((watch.clear(400, 40, 50), watch.waits(1, 40)), (200, Some(20)));
        assert_eq!(watch.clear(450, 80, 50), 400, "the other one is given up");
        watch.read(0, 460, 128, 64, Stand::Waits, 85);
        assert_eq!(watch.clear(490, 200, 50), 490, "both are");
        watch.read(1, 500, 960, 960, Stand::Done, 90);
        watch.read(0, 500, 64, 64, Stand::Done, 90);
        assert_eq!((watch.clear(600, 90, 50), watch.waits(1, 90)), (500, None));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve { cpu: usize, bytes: u16 },
        Commit { which: usize, short: bool },
        Pass,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..2, 6u16..400).prop_map(|(cpu, words)| Step::Reserve { cpu, bytes: words * 8 }),
            4 => (0usize..8, any::<bool>()).prop_map(|(which, short)| Step::Commit { which, short }),
            2 => Just(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever order threads reserve, stamp and commit in: each record comes out once, and none after a promise
        /// that it breaks.
        #[test]
        fn every_record_comes_out_once_and_keeps_the_promise(steps in prop::collection::vec(step(), 1..400)) {
            let memory = fake::memory(2);
            let mut watch = Watch::new(2, 0);
            let mut clock = 1u64;
            let mut open: VecDeque<(usize, u64, usize, u64)> = VecDeque::new();
            let (mut written, mut read) = (Vec::new(), Vec::new());
            let mut promised = 0;
            for step in steps.into_iter().chain([Step::Pass]) {
                clock += 1;
                match step {
                    Step::Reserve { cpu, bytes } => {
                        if let Some(at) = memory.reserve(cpu, bytes as usize) {
                            // Stamped some time after the reservation.
                            open.push_back((cpu, at, bytes as usize, clock + u64::from(bytes % 5)));
                        }
                    }
                    Step::Commit { which, short } if !open.is_empty() => {
                        let (cpu, at, bytes, stamp) = open.remove(which % open.len()).unwrap();
                        let end = at + bytes as u64;
                        let length = if short && memory.give_back(cpu, end, at + 48) { 48 } else { bytes };
                        memory.write(cpu, at, &record(at, length as u32, 48, stamp));
                        written.push(stamp);
                    }
                    Step::Commit { .. } => {}
                    Step::Pass => {
                        let counter = clock;
                        clock += 10;
                        let heads = [memory.head(0), memory.head(1)];
                        for (cpu, &head) in heads.iter().enumerate() {
                            let mut buffer = Vec::new();
                            let mut broken = None;
                            let stand = consume(&memory, cpu, head, &mut buffer, &mut |bytes| {
                                if mark(bytes) < promised { broken = Some(mark(bytes)); }
                                read.push(mark(bytes));
                            });
                            prop_assert_eq!(broken, None, "older than {}", promised);
                            prop_assert_ne!(stand, Stand::Broken);
                            watch.read(cpu, counter, head, memory.tail(cpu), stand, clock);
                        }
                        let clear = watch.clear(clock, clock, u64::MAX);
                        prop_assert!(clear >= promised);
                        promised = clear;
                    }
                }
            }
            if open.is_empty() {
                read.sort_unstable();
                written.sort_unstable();
                prop_assert_eq!(read, written);
            }
        }
    }
}

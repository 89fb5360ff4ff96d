//! The shared memory as the reader sees it: the words of a probe, its counters, the positions and bytes of the rings.
//!
//! The process writes here at any time, and what it writes is not trusted: words are read as atomics, and record bytes
//! are copied out before anybody looks at them.

use crate::engine::area::{
    COUNTERS, COUNTERS_BYTES, PROBE_ENABLED, PROBE_HELD, PROBE_SAMPLING, PROBE_TOKENS, PROBE_WORDS, PROBE_WORDS_BYTES,
    PROBES_MAX, RING_BYTES, RING_CONTROL, RING_CONTROL_BYTES, RING_HEAD, RING_TAIL,
};
use crate::engine::inject::AreaMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A probe's number in control: below [`PROBES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// By how much a ring's head is moved when nothing that was reserved before may be given back, in bytes.
pub(super) const HEAD_STEP: u64 = 8;

/// The agent's view of one process's control and rings.
pub(super) struct SharedMemory {
    area: Arc<AreaMap>,
}

fn probe_word(slot: Slot, word: usize) -> usize {
    assert!((slot.0 as usize) < PROBES_MAX, "{slot:?}");
    PROBE_WORDS + slot.0 as usize * PROBE_WORDS_BYTES + word
}

fn counter_word(cpu: usize, slot: Slot, counter: usize) -> usize {
    assert!((slot.0 as usize) < PROBES_MAX && counter < COUNTERS_BYTES, "{slot:?} {counter}");
    COUNTERS + (cpu * PROBES_MAX + slot.0 as usize) * COUNTERS_BYTES + counter
}

impl SharedMemory {
    /// Of an area.
    pub(super) fn of(area: Arc<AreaMap>) -> SharedMemory {
        SharedMemory { area }
    }

    /// CPUs that have a ring.
    pub(super) fn cpus(&self) -> usize {
        self.area.cpus()
    }

    /// Switches a probe on or off.
    pub(super) fn enable(&self, slot: Slot, on: bool) {
        self.area.u32_at(probe_word(slot, PROBE_ENABLED)).store(u32::from(on), Ordering::SeqCst);
    }

    /// Of the passages that would become hits, each `2^shift`-th does.
    pub(super) fn set_sampling(&self, slot: Slot, shift: u32) {
        let mask = 1u32.checked_shl(shift).map_or(u32::MAX, |one| one - 1);
        self.area.u32_at(probe_word(slot, PROBE_SAMPLING)).store(mask, Ordering::Release);
    }

    /// The word of a probe's tokens: what the process has not taken, as a number with a sign.
    fn tokens_word(&self, slot: Slot) -> &AtomicU64 {
        self.area.u64_at(probe_word(slot, PROBE_TOKENS))
    }

    /// The hits that a probe's budget still allows.
    pub(super) fn tokens(&self, slot: Slot) -> i64 {
        self.tokens_word(slot).load(Ordering::Relaxed) as i64
    }

    /// Sets them.
    pub(super) fn set_tokens(&self, slot: Slot, tokens: i64) {
        self.tokens_word(slot).store(tokens as u64, Ordering::SeqCst);
    }

    /// Gives more.
    pub(super) fn add_tokens(&self, slot: Slot, tokens: i64) {
        self.tokens_word(slot).fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Begins the numbering of a probe's hit condition anew.
    pub(super) fn reset_held(&self, slot: Slot) {
        self.area.u64_at(probe_word(slot, PROBE_HELD)).store(0, Ordering::SeqCst);
    }

    /// A counter of a probe, summed over the CPUs.
    pub(super) fn counter(&self, slot: Slot, counter: usize) -> u64 {
        let of_cpu = |cpu| self.area.u64_at(counter_word(cpu, slot, counter)).load(Ordering::Relaxed);
        (0..self.cpus()).map(of_cpu).fold(0, u64::wrapping_add)
    }

    fn ring_control(&self, cpu: usize, word: usize) -> &AtomicU64 {
        assert!(cpu < self.cpus(), "CPU {cpu} has no ring");
        self.area.u64_at(RING_CONTROL + cpu * RING_CONTROL_BYTES + word)
    }

    /// Position after the last reserved byte of a ring.
    pub(super) fn head(&self, cpu: usize) -> u64 {
        self.ring_control(cpu, RING_HEAD).load(Ordering::SeqCst)
    }

    /// Position up to which a ring was read.
    pub(super) fn tail(&self, cpu: usize) -> u64 {
        self.ring_control(cpu, RING_TAIL).load(Ordering::Acquire)
    }

    /// Gives the process the ring's bytes before `position` again; they are zero.
    pub(super) fn set_tail(&self, cpu: usize, position: u64) {
        self.ring_control(cpu, RING_TAIL).store(position, Ordering::Release);
    }

    /// Moves a ring's head on by [`HEAD_STEP`], if it is at `position`. A pad gives bytes back by moving the head from
    /// where its record ends; whoever has reserved something until now cannot any more, and so the head never comes to be
    /// before the tail.
    pub(super) fn move_head(&self, cpu: usize, position: u64) -> bool {
        let head = self.ring_control(cpu, RING_HEAD);
        head.compare_exchange(position, position + HEAD_STEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Gives all of a ring back: nobody will read what is in it. What a thread that is still in a pad writes there is
    /// before the tail, and nobody's.
    pub(super) fn forget(&self, cpu: usize) {
        loop {
            let head = self.head(cpu);
            if self.move_head(cpu, head) {
                self.area.ring_zero(cpu, 0, RING_BYTES);
                self.set_tail(cpu, head + HEAD_STEP);
                return;
            }
        }
    }

    /// The word at a position of a ring. What the process wrote before it is seen after it.
    pub(super) fn ring_word(&self, cpu: usize, position: u64) -> u64 {
        self.area.ring_u64(cpu, position).load(Ordering::Acquire)
    }

    /// Copies bytes out of a ring.
    pub(super) fn copy(&self, cpu: usize, position: u64, into: &mut [u8]) {
        self.area.ring_copy(cpu, position, into);
    }

    /// Zeroes bytes of a ring: what was read can never look like a commit.
    pub(super) fn zero(&self, cpu: usize, position: u64, bytes: usize) {
        self.area.ring_zero(cpu, position, bytes);
        fence(Ordering::Release);
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! The same memory without a process, and what a pad does to it.

    use super::*;
    use crate::engine::area::{ISLANDS_MAX, code_in_file};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    /// Shared memory of `cpus` CPUs that belongs to this process.
    pub(in crate::engine::inprocess) fn memory(cpus: usize) -> SharedMemory {
        let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, code_in_file(cpus, ISLANDS_MAX) as i64).unwrap();
        SharedMemory::of(Arc::new(AreaMap::new(file, cpus).unwrap()))
    }

    impl SharedMemory {
        /// What a pad does first: reserves, if there is room.
        pub(in crate::engine::inprocess) fn reserve(&self, cpu: usize, bytes: usize) -> Option<u64> {
            let head = self.ring_control(cpu, RING_HEAD);
            let at = head.load(Ordering::SeqCst);
            if at + bytes as u64 > self.tail(cpu) + RING_BYTES as u64 {
                return None;
            }
            head.compare_exchange(at, at + bytes as u64, Ordering::SeqCst, Ordering::SeqCst).ok()
        }

        /// What a pad does in the end: gives unused bytes back where it can.
        pub(in crate::engine::inprocess) fn give_back(&self, cpu: usize, from: u64, to: u64) -> bool {
            let head = self.ring_control(cpu, RING_HEAD);
            head.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        }

        /// Writes whole words into a ring, the first of them last.
        pub(in crate::engine::inprocess) fn write(&self, cpu: usize, position: u64, bytes: &[u8]) {
            assert!(bytes.len().is_multiple_of(8));
            for (n, word) in bytes.chunks_exact(8).enumerate().rev() {
                let word = u64::from_le_bytes(word.try_into().unwrap());
                self.area.ring_u64(cpu, position + 8 * n as u64).store(word, Ordering::Release);
            }
        }

        /// Increments a counter.
        pub(in crate::engine::inprocess) fn count(&self, cpu: usize, slot: Slot, counter: usize, by: u64) {
            self.area.u64_at(counter_word(cpu, slot, counter)).fetch_add(by, Ordering::SeqCst);
        }

        /// The words that a pad reads: enabled, sampling mask.
        pub(in crate::engine::inprocess) fn switches(&self, slot: Slot) -> (u32, u32) {
            let word = |word| self.area.u32_at(probe_word(slot, word)).load(Ordering::SeqCst);
            (word(PROBE_ENABLED), word(PROBE_SAMPLING))
        }
    }

    #[test]
    fn switches_are_where_a_pad_reads_them() {
        let memory = memory(2);
        memory.enable(Slot(3), true);
        memory.set_sampling(Slot(3), 4);
        assert_eq!((memory.switches(Slot(3)), memory.switches(Slot(2))), ((1, 15), (0, 0)));
        memory.set_sampling(Slot(3), 0);
        memory.enable(Slot(3), false);
        assert_eq!(memory.switches(Slot(3)), (0, 0));
        memory.set_tokens(Slot(3), -2);
        memory.add_tokens(Slot(3), 5);
        assert_eq!((memory.tokens(Slot(3)), memory.tokens(Slot(4))), (3, 0));
        memory.count(1, Slot(3), 8, 7);
        memory.count(0, Slot(3), 8, 1);
        assert_eq!((memory.counter(Slot(3), 8), memory.counter(Slot(3), 0)), (8, 0));
    }
}

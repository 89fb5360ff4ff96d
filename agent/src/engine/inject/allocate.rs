//! Which parts of an island's code are taken: kept in the island, so that the next agent knows.
//!
//! Code that was once reachable stays for as long as the process lives, so nothing is ever given back.

use super::map::Window;
use super::place::{BACK_BYTES, Rel32};
use super::slots::ISLAND_SLOTS;
use crate::engine::area::{CODE_BYTES, TABLES_BYTES};
use riptrace_protocol::ids::Avma;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Offset from the tables of the list: how many, then offset and length of each, as u32.
const LIST: usize = CODE_BYTES - BACK_BYTES;
/// Entries of the list, at most: pads are some hundred bytes, so code runs out first.
const ENTRIES_MAX: usize = (ISLAND_SLOTS - LIST - 8) / 8;
/// First offset beyond what can be allocated.
const END: usize = LIST;
/// Alignment of code that may be anywhere, in bytes.
const ALIGNMENT: usize = 16;

/// What is taken of one island.
#[derive(Debug)]
pub(super) struct Allocations {
    taken: BTreeMap<usize, usize>,
    /// Below it nothing is free that has room for a pad anywhere.
    cursor: usize,
}

impl Allocations {
    /// Reads the list of an island. Entries that make no sense end it.
    pub(super) fn read(window: Window<'_>) -> Allocations {
        let count = (window.u32_at(LIST).load(Ordering::Acquire) as usize).min(ENTRIES_MAX);
        let mut allocations = Allocations { taken: BTreeMap::new(), cursor: TABLES_BYTES };
        for n in 0..count {
            let word = |at: usize| window.u32_at(LIST + 8 + 8 * n + at).load(Ordering::Relaxed) as usize;
            let (offset, length) = (word(0), word(4));
            if offset < TABLES_BYTES || length > END || offset + length > END {
                break;
            }
            allocations.take(offset, length);
        }
        allocations
    }

    fn take(&mut self, offset: usize, length: usize) {
        self.taken.insert(offset, length);
        while let Some((&at, &length)) = self.taken.range(..self.cursor + ALIGNMENT).next_back()
            && at + length > self.cursor
        {
            self.cursor = (at + length).next_multiple_of(ALIGNMENT);
        }
    }

    /// A place of so many bytes; for `jump`, one to which that jump may go. `tables` is the island's.
    pub(super) fn find(&self, tables: Avma, bytes: usize, jump: Option<(Avma, Rel32)>) -> Option<usize> {
        let mut free = TABLES_BYTES.max(if jump.is_none() { self.cursor } else { 0 });
        let ends = self.taken.range(free..).map(|(&at, &length)| (at, at + length));
        for (end, next) in ends.chain(std::iter::once((END, END))) {
            let place = match jump {
                None => Some(free.next_multiple_of(ALIGNMENT)),
                Some((site, rel32)) if end >= free + bytes => rel32
                    .first_in(site, tables.0 + free as u64, tables.0 + (end - bytes) as u64 + 1)
                    .map(|at| (at - tables.0) as usize),
                Some(_) => None,
            };
            if let Some(place) = place.filter(|place| place + bytes <= end) {
                return Some(place);
            }
            free = free.max(next);
        }
        None
    }

    /// Takes a place, and says so in the island.
    #[cfg(test)]
    pub(super) fn commit(&mut self, window: Window<'_>, offset: usize, bytes: usize) -> Option<()> {
        let count = window.u32_at(LIST).load(Ordering::Relaxed) as usize;
        if count >= ENTRIES_MAX {
            return None;
        }
        window.u32_at(LIST + 8 + 8 * count).store(offset as u32, Ordering::Relaxed);
        window.u32_at(LIST + 12 + 8 * count).store(bytes as u32, Ordering::Relaxed);
        window.u32_at(LIST).store(count as u32 + 1, Ordering::Release);
        self.take(offset, bytes);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_do_not_overlap_and_are_where_the_jump_may_go(
            wishes in prop::collection::vec((1usize..2000, prop::option::of(0u64..1 << 20)), 1..200),
        ) {
            const TRAP_ON_TOP: Rel32 = Rel32 { mask: 0xffff_0000, value: 0x06cc_0000 };
            let text = 0x40_0000;
            // As place.rs puts it.
            let tables = Avma(text + 0x6c0_0000 - TABLES_BYTES as u64);
            let mut allocations = Allocations { taken: BTreeMap::new(), cursor: TABLES_BYTES };
            let mut all: Vec<(usize, usize)> = Vec::new();
            for (bytes, site) in wishes {
                let jump = site.map(|site| (Avma(text + site), TRAP_ON_TOP));
                // A window of 64 KB may be full.
                let Some(at) = allocations.find(tables, bytes, jump) else { prop_assert!(jump.is_some()); continue };
                prop_assert!(at >= TABLES_BYTES && at + bytes <= END);
                match jump {
                    None => prop_assert!(at.is_multiple_of(ALIGNMENT)),
                    Some((site, rel32)) => {
                        let rel = (tables.0 + at as u64 - site.0 - 5) as u32;
                        prop_assert_eq!(rel & rel32.mask, rel32.value);
                    }
                }
                for &(other, length) in &all {
                    prop_assert!(at + bytes <= other || other + length <= at);
                }
                all.push((at, bytes));
                allocations.take(at, bytes);
            }
        }
    }
}

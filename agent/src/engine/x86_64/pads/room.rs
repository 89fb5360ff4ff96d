//! Room: where in an island's code there is a place for so many bytes.
//!
//! Pure: which granules are taken goes in, an offset comes out. What is free is told by the granules alone, so that an
//! agent that adopts an island needs nothing else.

use super::tables::{GRANULE_SHIFT, GRANULES};
use crate::engine::area::{CODE_BYTES, TABLES_BYTES};

/// Which granules are taken.
pub(super) trait Taken {
    /// Whether one is.
    fn is_taken(&self, granule: usize) -> bool;
}

/// The granules that hold `bytes` bytes from `offset` on.
pub(super) fn granules(offset: usize, bytes: usize) -> std::ops::Range<usize> {
    let first = (offset - TABLES_BYTES) >> GRANULE_SHIFT;
    let last = (offset + bytes.max(1) - 1 - TABLES_BYTES) >> GRANULE_SHIFT;
    first..last + 1
}

/// A free place of `bytes` bytes: from the granule that `cursor` (an offset) is in, else from the beginning.
pub(super) fn anywhere(taken: &impl Taken, cursor: usize, bytes: usize) -> Option<usize> {
    let from = cursor.clamp(TABLES_BYTES, CODE_BYTES - 1);
    let from = (from - TABLES_BYTES).div_ceil(1 << GRANULE_SHIFT);
    run(taken, from, bytes).or_else(|| run(taken, 0, bytes))
}

fn run(taken: &impl Taken, from: usize, bytes: usize) -> Option<usize> {
    let wanted = bytes.max(1).div_ceil(1 << GRANULE_SHIFT);
    let mut free = 0;
    for granule in from..GRANULES {
        free = if taken.is_taken(granule) { 0 } else { free + 1 };
        if free == wanted {
            return Some(TABLES_BYTES + ((granule + 1 - wanted) << GRANULE_SHIFT));
        }
    }
    None
}

/// A free place of `bytes` bytes whose offset is such that `(offset + displacement) & mask == value`, in 32 bits.
/// `displacement` is what a jump at offset 0 would have for its own.
pub(super) fn punned(taken: &impl Taken, displacement: u32, bytes: usize, mask: u32, value: u32) -> Option<usize> {
    let mut offset = TABLES_BYTES;
    loop {
        // The displacement may pass zero within the island: what counts is how far on the next match is.
        let from = displacement.wrapping_add(offset as u32);
        let at = offset + next_match(from, mask, value)?.wrapping_sub(from) as usize;
        if at + bytes > CODE_BYTES {
            return None;
        }
        match granules(at, bytes).rev().find(|granule| taken.is_taken(*granule)) {
            None => return Some(at),
            Some(granule) => offset = TABLES_BYTES + ((granule + 1) << GRANULE_SHIFT),
        }
    }
}

/// The next number from `from` on with `number & mask == value`: behind the greatest number comes 0 again.
fn next_match(from: u32, mask: u32, value: u32) -> Option<u32> {
    if value & !mask != 0 {
        return None;
    }
    let differs = (from ^ value) & mask;
    if differs == 0 {
        return Some(from);
    }
    let highest = 31 - differs.leading_zeros();
    let below = (1u32 << highest) - 1;
    // The free bits above the first that differs; those below start again at zero.
    let above = from & !mask & !(below | 1 << highest);
    if value & (1 << highest) != 0 {
        return Some(above | value);
    }
    // The next number of the free bits above.
    let next = (above | mask | below | 1 << highest).wrapping_add(1);
    Some(next & !mask | value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Set(Vec<bool>);

    impl Taken for Set {
        fn is_taken(&self, granule: usize) -> bool {
            self.0[granule]
        }
    }

    fn free() -> Set {
        Set(vec![false; GRANULES])
    }

    proptest! {
        #[test]
        fn the_next_match_is_the_smallest_that_matches(from in any::<u32>(), mask in any::<u32>(), value in any::<u32>()) {
            // Small enough to try them all.
            let mask = mask | 0xffff_0000;
            let value = value & mask;
            let next = (0..=0xffffu32)
                .map(|low| value & 0xffff_0000 | low)
                .filter(|number| number & mask == value)
                .min_by_key(|number| number.wrapping_sub(from));
            prop_assert_eq!(next_match(from, mask, value), next);
        }

        #[test]
        fn a_place_has_the_bits_that_were_asked_for(
            // As it comes, and so that it passes zero within the island.
            displacement in prop_oneof![any::<u32>(), (0..CODE_BYTES as u32).prop_map(u32::wrapping_neg)],
            bits in 0usize..4,
        ) {
            let mask = [0xff, 0xff00, 0xffff, 0x00ff_0000][bits];
            let value = 0xcccc_cccc & mask;
            let mut taken = free();
            for _ in 0..20 {
                let Some(at) = punned(&taken, displacement, 300, mask, value) else {
                    // One window of 64 KB in 16 MB may lie outside.
                    prop_assert_eq!(mask, 0x00ff_0000);
                    return Ok(());
                };
                prop_assert_eq!(displacement.wrapping_add(at as u32) & mask, value);
                prop_assert!(at >= TABLES_BYTES && at + 300 <= CODE_BYTES);
                for granule in granules(at, 300) {
                    prop_assert!(!std::mem::replace(&mut taken.0[granule], true));
                }
            }
        }
    }

    #[test]
    fn places_follow_the_cursor_and_then_start_again() {
        let mut taken = free();
        assert_eq!(anywhere(&taken, 0, 1000), Some(TABLES_BYTES));
        taken.0[1] = true;
        assert_eq!(anywhere(&taken, 0, 128), Some(TABLES_BYTES));
        assert_eq!(anywhere(&taken, 0, 129), Some(TABLES_BYTES + 2 * 128));
        assert_eq!(anywhere(&taken, TABLES_BYTES + 5 * 128 + 1, 129), Some(TABLES_BYTES + 6 * 128));
        assert_eq!(anywhere(&taken, CODE_BYTES - 128, 129), Some(TABLES_BYTES + 2 * 128));
        assert_eq!(anywhere(&Set(vec![true; GRANULES]), 0, 1), None);
    }

    #[test]
    fn impossible_bits_have_no_place() {
        assert_eq!(punned(&free(), 0, 10, 0xff, 0x100), None);
        // Above the island only.
        assert_eq!(punned(&free(), 0, 10, 0xff00_0000, 0x0600_0000), None);
    }
}

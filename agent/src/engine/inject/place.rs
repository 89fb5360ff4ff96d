//! Where an island goes in the address space of a process.
//!
//! The code of an island is within reach of all of the module that it serves: its text, and its data, to which displaced
//! instructions refer relative to themselves. Jumps whose displacement must have given bytes (punned ones: 0x06 on top,
//! 0xcc below) want their pads in particular places, so the first island of a module is put where most of them go.

use crate::engine::area::{CODE_BYTES, CONTROL_BYTES, TABLES_BYTES};
use crate::target::Mapping;
use riptrace_protocol::ids::Avma;

/// Lowest address that is tried: below is vm.mmap_min_addr, as distributions set it.
const LOWEST: u64 = 0x1_0000;
/// First address beyond the user's half (x86-64, four-level paging).
const HIGHEST: u64 = 0x7fff_ffff_f000;
/// Distance from neighbouring mappings, in bytes, so that a heap or stack next to it can still grow a little.
const MARGIN: u64 = 0x10_0000;
/// Farthest distance between code and what it refers to, in bytes: 32 bits with a sign, less a page.
const REACH_BYTES: u64 = 0x7fff_f000;
/// Bytes of an island.
const ISLAND_BYTES: u64 = (CONTROL_BYTES + CODE_BYTES) as u64;
/// Distance from the begin of a module's text to its code, where it can be chosen: a jump with 0x06 and 0xcc on top goes
/// at least 0x06cc0005 bytes.
const DISTANCE: u64 = 0x6c0_0000;
/// Bytes at the end of an island that are no code.
pub(super) const BACK_BYTES: usize = 1 << 20;
/// Distance of the rings from other mappings, in bytes: what the process maps itself comes from there.
const RINGS_DISTANCE: u64 = 16 << 30;

/// What a jump's 32-bit displacement must be: `displacement & mask == value`. All zeroes: anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Rel32 {
    /// The bits that are given.
    pub(in crate::engine) mask: u32,
    /// What they are; 0 where `mask` is 0.
    pub(in crate::engine) value: u32,
}

impl Rel32 {
    /// The first displacement from this one on that is allowed, in the order of unsigned numbers.
    fn from(self, least: u32) -> Option<u32> {
        let Rel32 { mask, value } = self;
        let like = value | least & !mask;
        if like == least {
            return Some(like);
        }
        // The highest bit that differs is a given one; `below` are it and all lower ones.
        let below = u32::MAX >> (like ^ least).leading_zeros();
        if like > least {
            return Some(like & !below | value & below);
        }
        // A free bit above has to become one.
        let next = (like | mask | below).checked_add(1)?;
        Some(next & !mask | value)
    }

    /// The first address from `lo` on, below `hi`, to which a jump of 5 bytes at `site` may go.
    pub(super) fn first_in(self, site: Avma, lo: u64, hi: u64) -> Option<u64> {
        let behind = site.0.wrapping_add(5);
        let mut lo = lo;
        // Negative displacements first: as unsigned numbers, both halves are in order.
        while lo < hi {
            let distance = lo.wrapping_sub(behind) as i64;
            let half_end = if distance < 0 { 0 } else { i64::from(i32::MAX) + 1 };
            if distance < i64::from(i32::MIN) {
                lo = behind.wrapping_add_signed(i64::from(i32::MIN));
                continue;
            }
            if distance > i64::from(i32::MAX) {
                return None;
            }
            match self.from(distance as i32 as u32) {
                Some(found) if (found as i32 as i64) < half_end && found as i32 as i64 >= distance => {
                    let at = behind.wrapping_add_signed(i64::from(found as i32));
                    return (at < hi).then_some(at);
                }
                _ => lo = behind.wrapping_add_signed(half_end),
            }
        }
        None
    }
}

/// A module: all of it that is mapped, and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    lo: u64,
    hi: u64,
    text: u64,
}

impl Module {
    /// Whether all of it and the code of an island with its tables there are within reach of each other.
    pub(super) fn is_reached_from(&self, tables: Avma) -> bool {
        (tables.0 + CODE_BYTES as u64).abs_diff(self.lo) < REACH_BYTES && tables.0.abs_diff(self.hi) < REACH_BYTES
    }
}

/// The module that an address belongs to.
pub(super) fn module(maps: &[Mapping], at: Avma) -> Option<Module> {
    let index = maps.iter().position(|mapping| (mapping.lo..mapping.hi).contains(&at.0))?;
    let text = &maps[index];
    // Its other mappings lie next to it, and memory that is zero at first behind its data.
    let is_of_it = |mapping: &Mapping, hi_before: u64| {
        (mapping.inode == text.inode && mapping.dev == text.dev)
            || (mapping.path.is_empty() && mapping.inode == 0 && mapping.lo == hi_before)
    };
    let is_file = |mapping: &&Mapping| mapping.inode == text.inode && mapping.dev == text.dev;
    let lo = maps[..=index].iter().rev().take_while(is_file).last()?.lo;
    let hi = maps[index..].iter().scan(text.lo, |hi_before, mapping| {
        let is_of_it = is_of_it(mapping, *hi_before);
        *hi_before = mapping.hi;
        is_of_it.then_some(mapping.hi)
    });
    Some(Module { lo, hi: hi.last().unwrap_or(text.hi), text: text.lo })
}

/// Address ranges that are free, with a margin to their neighbours.
fn gaps(maps: &[Mapping]) -> impl Iterator<Item = (u64, u64)> {
    let starts = std::iter::once(LOWEST).chain(maps.iter().map(|mapping| mapping.hi));
    let ends = maps.iter().map(|mapping| mapping.lo).chain(std::iter::once(HIGHEST));
    starts
        .zip(ends)
        .map(|(lo, hi)| (lo.max(LOWEST), hi.min(HIGHEST)))
        .map(|(lo, hi)| ((lo + MARGIN).next_multiple_of(0x1000), hi.saturating_sub(MARGIN) & !0xfff))
        .filter(|(lo, hi)| lo < hi)
}

/// First address of code that pads may have, in an island whose control is at `control`.
fn code_of(control: u64) -> (u64, u64) {
    let tables = control + CONTROL_BYTES as u64;
    (tables + TABLES_BYTES as u64, tables + (CODE_BYTES - BACK_BYTES) as u64)
}

/// Where control of a new island for a module may be. With `jump` there is a place of `bytes` in its code to which that
/// jump may go.
pub(super) fn island(maps: &[Mapping], module: Module, jump: Option<(Avma, Rel32)>, bytes: usize) -> Option<Avma> {
    let gaps: Vec<(u64, u64)> =
        gaps(maps).filter(|(lo, hi)| hi - lo >= ISLAND_BYTES).map(|(lo, hi)| (lo, hi - ISLAND_BYTES)).collect();
    let is_near = |control: u64| module.is_reached_from(Avma(control + CONTROL_BYTES as u64));
    let serves = |control: u64| {
        let (lo, hi) = code_of(control);
        jump.is_none_or(|(site, rel32)| rel32.first_in(site, lo, hi - bytes as u64).is_some())
    };
    let fits = |control: u64| gaps.iter().any(|&(lo, hi)| (lo..=hi).contains(&control));
    let is_good = |&control: &u64| fits(control) && is_near(control) && serves(control);
    let code = (CONTROL_BYTES + TABLES_BYTES) as u64;
    let wish = (module.text + DISTANCE).checked_sub(code);
    if let Some(wish) = wish.filter(is_good) {
        return Some(Avma(wish));
    }
    if let Some((site, rel32)) = jump {
        // With the place that the jump wants in the middle of the code, if the gap allows it.
        let usable = (CODE_BYTES - BACK_BYTES - TABLES_BYTES) as u64;
        let placed = gaps.iter().filter_map(|&(lo, hi)| {
            let at = rel32.first_in(site, lo + code, hi + code + usable - bytes as u64)?;
            let control = (at & !0xfff).saturating_sub(code + usable / 2);
            Some(control.clamp(lo, hi))
        });
        return placed.filter(is_good).min_by_key(|control| control.abs_diff(module.lo)).map(Avma);
    }
    // Above a heap that grows upwards from behind the module, else below.
    let above = gaps.iter().map(|&(lo, hi)| wish.map_or(lo, |wish| wish.clamp(lo, hi)));
    let below = gaps.iter().map(|&(_, hi)| hi);
    let (above, below) = (above.filter(is_good), below.filter(is_good));
    let nearest = |control: &u64| control.abs_diff(wish.unwrap_or(module.lo));
    above.min_by_key(nearest).or_else(|| below.min_by_key(nearest)).map(Avma)
}

/// Where so many bytes of rings may be: far from everything.
pub(super) fn rings(maps: &[Mapping], bytes: usize) -> Option<Avma> {
    let (lo, hi) = gaps(maps).max_by_key(|(lo, hi)| hi - lo)?;
    let free = (hi - lo).checked_sub(bytes as u64)?;
    Some(Avma((hi - bytes as u64 - RINGS_DISTANCE.min(free / 2)) & !0xfff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(lo: u64, hi: u64, inode: u64) -> Mapping {
        Mapping {
            lo,
            hi,
            file_offset: 0,
            dev: 1.min(inode),
            inode,
            path: if inode == 0 { String::new() } else { format!("/file{inode}") },
            read: true,
            write: false,
            exec: true,
        }
    }

    /// As the top bytes of a punned jump demand.
    const UD_ON_TOP: Rel32 = Rel32 { mask: 0xff00_0000, value: 0x0600_0000 };
    const UD_AND_TRAP: Rel32 = Rel32 { mask: 0xffff_0000, value: 0x06cc_0000 };
    const ALL_GIVEN: Rel32 = Rel32 { mask: 0xffff_ffff, value: 0x06cc_cccc };

    #[test]
    fn an_island_of_a_large_program_serves_punned_jumps_from_all_of_it() {
        let (lo, hi) = (0x40_0000, 0x40_0000 + (50 << 20));
        let maps = [mapping(lo, hi, 7), mapping(hi, hi + (4 << 20), 0), mapping(0xc0_0000_0000, 0xc0_0400_0000, 0)];
        let module = module(&maps, Avma(lo + 0x1000)).unwrap();
        assert_eq!(module, Module { lo, hi: hi + (4 << 20), text: lo });
        let control = island(&maps, module, None, 0).unwrap();
        let (code_lo, code_hi) = code_of(control.0);
        for site in (lo..hi).step_by(4099) {
            for rel32 in [UD_ON_TOP, UD_AND_TRAP, ALL_GIVEN] {
                let at = rel32.first_in(Avma(site), code_lo, code_hi);
                assert!(at.is_some(), "{site:#x} {rel32:x?} in {code_lo:#x}..{code_hi:#x}");
            }
        }
    }

    #[test]
    fn an_island_goes_where_the_jump_wants_it() {
        // The usual place is taken.
        let (lo, hi) = (0x5555_0000_0000, 0x5555_0010_0000);
        let maps = [
            mapping(lo, hi, 7),
            mapping(lo + 0x470_0000, lo + 0x480_0000, 0),
            mapping(0x7fff_0000_0000, 0x7fff_0010_0000, 3),
        ];
        let module = module(&maps, Avma(lo)).unwrap();
        let free = island(&maps, module, None, 0).unwrap();
        assert!(free.0 > lo + 0x480_0000, "{free:?}");
        let site = Avma(lo + 0x777);
        let control = island(&maps, module, Some((site, UD_ON_TOP)), 64).unwrap();
        let (code_lo, code_hi) = code_of(control.0);
        assert!(UD_ON_TOP.first_in(site, code_lo, code_hi).is_some());
        // Down there nothing is free, and elsewhere the displacement is another one.
        let maps = [mapping(lo - (2 << 30), lo + (2 << 30), 7)];
        let tight = super::module(&maps, Avma(lo)).unwrap();
        assert_eq!(island(&maps, tight, None, 0), None);
        assert_eq!(island(&maps, tight, Some((site, UD_ON_TOP)), 64), None);
    }

    #[test]
    fn a_module_ends_where_another_begins() {
        let maps = [
            mapping(1 << 32, (1 << 32) + 0x1000, 5),
            mapping((1 << 32) + 0x1000, (1 << 32) + 0x2000, 6),
            mapping((1 << 32) + 0x2000, (1 << 32) + 0x3000, 6),
        ];
        let module = module(&maps, Avma((1 << 32) + 0x2800)).unwrap();
        assert_eq!(module, Module { lo: (1 << 32) + 0x1000, hi: (1 << 32) + 0x3000, text: (1 << 32) + 0x2000 });
        assert_eq!(super::module(&maps, Avma(5)), None);
    }

    #[test]
    fn rings_are_far_from_everything() {
        let maps = [mapping(0x40_0000, 0x50_0000, 1), mapping(0x7f00_0000_0000, 0x7f00_1000_0000, 2)];
        let at = rings(&maps, 8 << 20).unwrap().0;
        assert!(
            (0x50_0000 + MARGIN..0x7f00_0000_0000 - RINGS_DISTANCE).contains(&at) && at.is_multiple_of(0x1000),
            "{at:#x}"
        );
    }

    proptest! {
        #[test]
        fn the_first_displacement_is_the_first(mask: u32, value: u32, least: u32) {
            let rel32 = Rel32 { mask, value: value & mask };
            match rel32.from(least) {
                Some(found) => {
                    prop_assert!(found >= least);
                    prop_assert_eq!(found & mask, rel32.value);
                    // None between: the number before it that is allowed is below `least`.
                    let before = (least..found).rev().take(100_000).find(|n| n & mask == rel32.value);
                    prop_assert_eq!(before, None);
                }
                None => {
                    // The largest one that is allowed is below `least`.
                    prop_assert!(rel32.value | !mask < least);
                }
            }
        }

        #[test]
        fn a_place_is_inside_and_allowed(site in 0x1000u64..1 << 40, distance in -3i64 << 30..3 << 30, length in 1u64..1 << 28, mask: u32, value: u32) {
            let rel32 = Rel32 { mask, value: value & mask };
            let lo = site.saturating_add_signed(distance);
            if let Some(at) = rel32.first_in(Avma(site), lo, lo + length) {
                prop_assert!((lo..lo + length).contains(&at));
                let rel = i32::try_from(at as i64 - (site as i64 + 5)).unwrap();
                prop_assert_eq!(rel as u32 & mask, rel32.value);
            }
        }
    }
}

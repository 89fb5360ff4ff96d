//! The patched addresses of a process, who wants them, and the slots where their instructions run.
//!
//! Pure book-keeping: nothing here touches the process. A slot, once given to an address, stays its slot until the
//! process is let go, also when the site is removed: a thread may be on its way out of it.

use super::counters::{Budget, Counters};
use crate::capture::program::Program;
use crate::engine::x86_64::displaced::{Displaced, SLOT_BYTES};
use crate::engine::x86_64::fallback::{HEADER_BYTES, POOL_BYTES};
use crate::engine::x86_64::{INSTRUCTION_BYTES_MAX, REACH_BYTES};
use crate::target::Mapping;
use riptrace_protocol::ids::{Avma, LayoutId, TracepointId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slots in one piece of memory.
const POOL_SLOTS_MAX: usize = ((POOL_BYTES - HEADER_BYTES) / SLOT_BYTES as u64) as usize;
/// Lowest address that is tried: below is vm.mmap_min_addr, as distributions set it.
const LOWEST: u64 = 0x1_0000;
/// First address beyond the user's half (x86-64, four-level paging).
const HIGHEST: u64 = 0x7fff_ffff_f000;
/// Distance from neighbouring mappings, in bytes, so that a heap or stack next to the slots can still grow a little.
const MARGIN: u64 = 0x1_0000;

/// One probe as the tracer knows it.
pub(super) struct ArmedProbe {
    pub(super) tracepoint: TracepointId,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Option<Budget>,
    /// Passages whose condition held: what hit conditions count.
    pub(super) admitted: u64,
}

/// One probe's interest in a site.
pub(super) struct User {
    pub(super) probe: usize,
    pub(super) program: Arc<Program>,
    pub(super) layout: LayoutId,
    pub(super) reads_vectors: bool,
}

/// One patched address.
pub(super) struct Site {
    /// The byte that the breakpoint replaces.
    pub(super) original: u8,
    /// Where its instruction runs.
    pub(super) slot: Avma,
    pub(super) users: Vec<User>,
}

/// An address that has a slot: patched now, or once.
#[derive(Debug, Clone, Copy)]
struct Known {
    slot: Avma,
    is_call: bool,
    bytes: [u8; INSTRUCTION_BYTES_MAX],
}

/// Some memory in the process for slots.
#[derive(Debug, Clone)]
struct Pool {
    base: u64,
    /// The site of each slot, in order.
    sites: Vec<Avma>,
}

/// Where a thread is within a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) site: Avma,
    /// 0: the displaced instruction has not begun.
    pub(super) offset: u64,
    pub(super) is_call: bool,
}

/// All of a process.
#[derive(Default)]
pub(super) struct Sites {
    pub(super) live: BTreeMap<Avma, Site>,
    known: BTreeMap<Avma, Known>,
    pools: Vec<Pool>,
    /// `None` where a probe was removed.
    pub(super) probes: Vec<Option<ArmedProbe>>,
}

impl Sites {
    /// Whether an address is or was patched: a trap behind it is ours.
    pub(super) fn is_known(&self, at: Avma) -> bool {
        self.known.contains_key(&at)
    }

    /// What stood at every address that is or was patched.
    pub(super) fn originals(&self) -> impl Iterator<Item = (Avma, u8)> {
        self.known.iter().map(|(&at, known)| (at, known.bytes[0]))
    }

    /// Where a thread with this instruction pointer is, if it is in a slot.
    pub(super) fn position(&self, rip: u64) -> Option<Position> {
        let pool = self.pools.iter().find(|pool| (pool.base..pool.base + POOL_BYTES).contains(&rip))?;
        let from_base = (rip - pool.base).checked_sub(HEADER_BYTES)?;
        let site = *pool.sites.get((from_base / SLOT_BYTES as u64) as usize)?;
        let is_call = self.known.get(&site).is_some_and(|known| known.is_call);
        Some(Position { site, offset: from_base % SLOT_BYTES as u64, is_call })
    }

    /// The slot that an address has kept, if the same instruction is there as then.
    pub(super) fn kept_slot(&self, at: Avma, bytes: &[u8]) -> Option<Avma> {
        self.known
            .get(&at)
            .filter(|known| bytes.len() <= known.bytes.len() && known.bytes.starts_with(bytes))
            .map(|k| k.slot)
    }

    /// Gives an address a slot in a pool that it can reach.
    pub(super) fn give_slot(&mut self, at: Avma, bytes: &[u8], displaced: &Displaced) -> Option<Avma> {
        let pool =
            self.pools.iter_mut().find(|pool| pool.sites.len() < POOL_SLOTS_MAX && within_reach(pool.base, at.0))?;
        let slot = Avma(pool.base + HEADER_BYTES + pool.sites.len() as u64 * SLOT_BYTES as u64);
        pool.sites.push(at);
        let mut kept = [0; INSTRUCTION_BYTES_MAX];
        let length = bytes.len().min(kept.len());
        kept[..length].copy_from_slice(&bytes[..length]);
        self.known.insert(at, Known { slot, is_call: displaced.is_call(), bytes: kept });
        Some(slot)
    }

    /// More memory for slots.
    pub(super) fn add_pool(&mut self, base: Avma) {
        self.pools.push(Pool { base: base.0, sites: Vec::new() });
    }

    /// All memory for slots.
    pub(super) fn pools(&self) -> Vec<Avma> {
        self.pools.iter().map(|pool| Avma(pool.base)).collect()
    }

    /// The memory was given back.
    pub(super) fn forget_pools(&mut self) {
        self.pools.clear();
    }

    /// The probe of a tracepoint.
    pub(super) fn probe_of(&self, tracepoint: &TracepointId) -> Option<usize> {
        self.probes.iter().position(|probe| probe.as_ref().is_some_and(|probe| probe.tracepoint == *tracepoint))
    }

    /// Takes a probe out; returns the addresses that nobody wants any more, and what stood there.
    pub(super) fn remove_probe(&mut self, index: usize) -> Vec<(Avma, u8)> {
        self.probes[index] = None;
        let mut unwanted = Vec::new();
        self.live.retain(|&at, site| {
            site.users.retain(|user| user.probe != index);
            if site.users.is_empty() {
                unwanted.push((at, site.original));
            }
            !site.users.is_empty()
        });
        unwanted
    }
}

fn within_reach(base: u64, at: u64) -> bool {
    base.abs_diff(at) < REACH_BYTES && (base + POOL_BYTES).abs_diff(at) < REACH_BYTES
}

/// Where slots for `at` may be mapped: in the highest gap below it, else in the lowest above it that is near enough. Below
/// comes first because a heap grows upwards, from behind the executable.
pub(super) fn room(maps: &[Mapping], at: Avma) -> Option<Avma> {
    let needed = POOL_BYTES + 2 * MARGIN;
    let starts = std::iter::once(LOWEST).chain(maps.iter().map(|mapping| mapping.hi));
    let ends = maps.iter().map(|mapping| mapping.lo).chain(std::iter::once(HIGHEST));
    let gaps: Vec<(u64, u64)> = starts
        .zip(ends)
        .map(|(lo, hi)| (lo.max(LOWEST), hi.min(HIGHEST)))
        .filter(|(lo, hi)| hi.saturating_sub(*lo) >= needed)
        .collect();
    let below = gaps.iter().rev().filter(|(_, hi)| *hi <= at.0).map(|(_, hi)| hi - MARGIN - POOL_BYTES);
    // At its upper end, far from a heap at its lower one, if that can be reached; else as high as can be.
    let above = gaps.iter().filter(|(lo, _)| *lo > at.0).filter_map(|(lo, hi)| {
        let highest = (at.0 & !0xfff).checked_add(REACH_BYTES - POOL_BYTES - 0x1000)?;
        let base = highest.min(hi - MARGIN - POOL_BYTES);
        (base >= lo + MARGIN).then_some(base)
    });
    below.chain(above).find(|&base| within_reach(base, at.0)).map(Avma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u64, u64)]) -> Vec<Mapping> {
        let mapping = |&(lo, hi): &(u64, u64)| Mapping {
            lo,
            hi,
            file_offset: 0,
            dev: 0,
            inode: 0,
            path: String::new(),
            read: true,
            write: false,
            exec: true,
        };
        ranges.iter().map(mapping).collect()
    }

    #[test]
    fn slots_go_below_the_code_where_nothing_grows() {
        let maps = map(&[(0x40_0000, 0x80_0000), (0x90_0000, 0x100_0000)]);
        assert_eq!(room(&maps, Avma(0x40_1000)), Some(Avma(0x40_0000 - MARGIN - POOL_BYTES)));
    }

    #[test]
    fn slots_go_above_where_there_is_no_room_below_and_never_out_of_reach() {
        let maps = map(&[(0x1_0000, 0x80_0000), (0x1_0000_0000, 0x2_0000_0000)]);
        let base = room(&maps, Avma(0x40_1000)).unwrap();
        assert!(base.0 > 0x80_0000 + MARGIN && within_reach(base.0, 0x40_1000), "{base:?}");
        assert_eq!(base.0 % 0x1000, 0);
        let full = map(&[(0x1_0000, 0x2_0000_0000)]);
        assert_eq!(room(&full, Avma(0x40_1000)), None);
        let far_above = room(&map(&[]), Avma(0x5555_5555_0000));
        assert_eq!(far_above, None, "one gap around the address is none above or below it");
    }

    #[test]
    fn a_slot_knows_its_site_and_stays_with_it() {
        let mut sites = Sites::default();
        let site = Avma(0x40_1000);
        let call = [0xe8, 0, 0, 0, 0];
        let displaced = Displaced::decode(site, &call).unwrap();
        assert_eq!(sites.give_slot(site, &call, &displaced), None, "there is no pool yet");
        sites.add_pool(Avma(0x30_0000));
        let slot = sites.give_slot(site, &call, &displaced).unwrap();
        assert_eq!(sites.position(slot.0 + 6), Some(Position { site, offset: 6, is_call: true }));
        assert_eq!(sites.position(slot.0 + SLOT_BYTES as u64), None, "the next slot is nobody's");
        assert_eq!(sites.position(site.0), None);
        assert_eq!(sites.kept_slot(site, &call), Some(slot));
        assert_eq!(sites.kept_slot(site, &[0x90]), None, "another instruction");
        assert!(sites.is_known(site) && !sites.is_known(Avma(site.0 + 1)));
    }
}

//! Whether anything is to continue inside of bytes that are about to change, while all threads stand still.
//!
//! Looked at: the instruction pointer of every thread; its stack, for what a signal or a preemption has interrupted; the
//! stacks of parked goroutines. A word that only looks like such a place counts: to be wrong here would be silent.

use super::goroutines;
use super::stacks;
use super::stop::Standing;
use super::{Inside, Patch, PatchError, Runtime, Way};
use crate::engine::x86_64::text::JUMP;
use crate::engine::x86_64::{BREAKPOINT, registers};
use riptrace_protocol::ids::Avma;

/// Where nothing may continue, with the sites it belongs to: inside of the bytes, or on a way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boundaries {
    inside: Ranges,
    ways_in: Ranges,
}

/// By address; they do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges(Vec<Forbidden>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forbidden {
    start: u64,
    end: u64,
    site: Avma,
    /// Whether it is what a thread shows that has run into the site's breakpoint.
    is_behind_trap: bool,
}

impl Ranges {
    fn of(ranges: impl Iterator<Item = Forbidden>) -> Ranges {
        let mut ranges: Vec<Forbidden> = ranges.collect();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        // Two sites may have one way in: to name one of them will do.
        ranges.dedup_by(|next, last| {
            let is_same = next.start < last.end;
            last.end = if is_same { last.end.max(next.end) } else { last.end };
            is_same
        });
        Ranges(ranges)
    }

    #[inline]
    fn find(&self, address: u64) -> Option<&Forbidden> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        if address < first.start || address >= last.end {
            return None;
        }
        let after = self.0.partition_point(|range| range.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|range| address < range.end)
    }
}

impl Boundaries {
    /// Of patches that displace instructions, and of what leads there. Inside of a jump there is nothing.
    pub(super) fn of(patches: &[&Patch], ways: &[Way]) -> Boundaries {
        let displacing = patches.iter().filter(|patch| patch.old[0] != JUMP);
        let inside = Ranges::of(displacing.flat_map(|patch| {
            patch.boundaries.iter().map(|&offset| {
                let start = patch.at.0 + offset as u64;
                let is_behind_trap = patch.old[0] == BREAKPOINT && offset == 1;
                Forbidden { start, end: start + 1, site: patch.at, is_behind_trap }
            })
        }));
        let way_in = |way: &Way| {
            let site = way.leads_to.iter().find_map(|to| inside.find(to.0))?.site;
            let (start, end) = (way.code.start.0, way.code.end.0);
            (start < end).then_some(Forbidden { start, end, site, is_behind_trap: false })
        };
        let ways_in = Ranges::of(ways.iter().filter_map(way_in));
        Boundaries { inside, ways_in }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inside.0.is_empty()
    }

    fn find(&self, address: u64) -> Option<&Forbidden> {
        self.inside.find(address).or_else(|| self.ways_in.find(address))
    }

    /// The site whose bytes an address is inside of, or on its way into.
    pub(super) fn site(&self, address: u64) -> Option<Avma> {
        self.find(address).map(|range| range.site)
    }
}

/// What is to continue inside of a site, if anything is.
pub(super) fn inside(
    threads: &[Standing],
    runtime: &Runtime,
    boundaries: &Boundaries,
) -> Result<Option<(Avma, Inside)>, PatchError> {
    if boundaries.is_empty() {
        return Ok(None);
    }
    for thread in threads {
        if let Some(found) = boundaries.find(thread.registers.rip)
            && !(found.is_behind_trap && thread.has_trap_pending())
        {
            return Ok(Some((found.site, Inside::Thread(thread.tid))));
        }
        // A handler that has just looked up where to send its thread has it in a register only.
        if let Some(site) = registers::general(&thread.registers).iter().find_map(|&word| boundaries.site(word)) {
            return Ok(Some((site, Inside::Thread(thread.tid))));
        }
    }
    if let Some(found) = stacks::inside(threads, runtime, boundaries) {
        return Ok(Some(found));
    }
    match (runtime, threads.first()) {
        (Runtime::Go(go), Some(thread)) => goroutines::inside(thread.tid, go, boundaries),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::patch::How;

    fn patch(at: u64, old: &[u8], boundaries: &[usize]) -> Patch {
        let (old, new, boundaries) = (old.to_vec(), vec![JUMP; old.len()], boundaries.to_vec());
        Patch { at: Avma(at), old, new, how: How::AllStop, boundaries }
    }

    fn found(boundaries: &Boundaries, site: u64) -> Vec<u64> {
        (0..2000).filter(|&at| boundaries.site(at) == Some(Avma(site))).collect()
    }

    #[test]
    fn boundaries_are_of_the_code_that_goes() {
        let (jump, code) = (patch(100, &[JUMP, 1, 2, 3, 4], &[2]), patch(50, &[0x90, 1, 2, 3, 4], &[1, 3]));
        let boundaries = Boundaries::of(&[&jump, &code], &[]);
        assert_eq!(found(&boundaries, 50), [51, 53]);
        assert!(found(&boundaries, 100).is_empty() && !boundaries.is_empty());
        assert!(Boundaries::of(&[&jump], &[]).is_empty());
        let trap = Boundaries::of(&[&patch(50, &[BREAKPOINT, 1, 2, 3, 4], &[1, 3])], &[]);
        assert_eq!([51, 53].map(|at| trap.find(at).unwrap().is_behind_trap), [true, false]);
    }

    #[test]
    fn a_pad_that_leads_inside_is_as_bad_as_the_inside() {
        let way = |code: (u64, u64), leads_to: &[u64]| Way {
            code: Avma(code.0)..Avma(code.1),
            leads_to: leads_to.iter().copied().map(Avma).collect(),
        };
        // To the inside, before it, to its end, to another boundary of it, and two that are the same in part.
        let ways = [
            way((1000, 1064), &[9, 53]),
            way((1100, 1164), &[50]),
            way((1200, 1264), &[55]),
            way((1300, 1364), &[51]),
            way((1320, 1400), &[53]),
            way((1500, 1500), &[53]),
        ];
        let code = patch(50, &[0x90; 5], &[1, 3]);
        let want: Vec<u64> = [51, 53].into_iter().chain(1000..1064).chain(1300..1400).collect();
        assert_eq!(found(&Boundaries::of(&[&code], &ways), 50), want);
        // Over one instruction there is no inside, and so no way in.
        assert!(Boundaries::of(&[&Patch { boundaries: Vec::new(), ..code }], &ways).is_empty());
    }
}

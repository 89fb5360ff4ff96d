//! Whether anything is to continue inside of bytes that are about to change, while all threads stand still.
//!
//! Looked at: the instruction pointer of every thread; its stack, for what a signal or a preemption has interrupted; the
//! stacks of parked goroutines. A word that only looks like such a place counts: to be wrong here would be silent.

use super::goroutines;
use super::stacks;
use super::stop::Standing;
use super::{Inside, Patch, PatchError, Runtime};
use crate::engine::x86_64::BREAKPOINT;
use crate::engine::x86_64::text::JUMP;
use riptrace_protocol::ids::Avma;

/// Addresses at which nothing may continue, with the sites they belong to; by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boundaries(Vec<Boundary>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Boundary {
    at: u64,
    site: Avma,
    /// Whether it is what a thread shows that has run into the site's breakpoint.
    is_behind_trap: bool,
}

impl Boundaries {
    /// Of patches that displace instructions. Inside of a jump there is nothing.
    pub(super) fn of(patches: &[&Patch]) -> Boundaries {
        let of_one = |patch: &&Patch| {
            let (site, first) = (patch.at, patch.old[0]);
            let inside = if first == JUMP { Vec::new() } else { patch.boundaries.clone() };
            inside.into_iter().map(move |offset| {
                let is_behind_trap = first == BREAKPOINT && offset == 1;
                Boundary { at: site.0 + offset as u64, site, is_behind_trap }
            })
        };
        let mut boundaries: Vec<Boundary> = patches.iter().flat_map(of_one).collect();
        boundaries.sort_unstable();
        Boundaries(boundaries)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, address: u64) -> Option<Boundary> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        if !(first.at..=last.at).contains(&address) {
            return None;
        }
        self.0.binary_search_by_key(&address, |boundary| boundary.at).ok().map(|found| self.0[found])
    }

    /// The site whose bytes an address is inside of.
    pub(super) fn site(&self, address: u64) -> Option<Avma> {
        self.find(address).map(|boundary| boundary.site)
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
        if let Some(boundary) = boundaries.find(thread.registers.rip)
            && !(boundary.is_behind_trap && thread.has_trap_pending())
        {
            return Ok(Some((boundary.site, Inside::Thread(thread.tid))));
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
        Patch {
            at: Avma(at),
            old: old.to_vec(),
            new: vec![JUMP; old.len()],
            how: How::AllStop,
            boundaries: boundaries.to_vec(),
        }
    }

    #[test]
    fn boundaries_are_of_the_code_that_goes() {
        let (jump, code) = (patch(100, &[JUMP, 1, 2, 3, 4], &[2]), patch(50, &[0x90, 1, 2, 3, 4], &[1, 3]));
        let boundaries = Boundaries::of(&[&jump, &code]);
        let sites = |at: std::ops::Range<u64>| at.filter_map(|at| boundaries.site(at)).collect::<Vec<_>>();
        assert_eq!(sites(0..200), [Avma(50), Avma(50)]);
        assert_eq!(
            (boundaries.site(51), boundaries.site(52), boundaries.site(53)),
            (Some(Avma(50)), None, Some(Avma(50)))
        );
        assert!(Boundaries::of(&[&jump]).is_empty());
        let trap = Boundaries::of(&[&patch(50, &[BREAKPOINT, 1, 2, 3, 4], &[1, 3])]);
        assert_eq!([51, 53].map(|at| trap.find(at).unwrap().is_behind_trap), [true, false]);
    }
}

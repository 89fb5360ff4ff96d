//! What an agent has left that traced the process from outside, by ptrace, and was killed: its handler of SIGTRAP, its
//! slots, and breakpoints that no thread has run into since ([`crate::engine::x86_64::fallback`] mends those).
//!
//! A thread that has run into one writes a byte of the program's own code, after a while, whoever traces the process by
//! then. So the next agent minds it before it arms anything there. One inside the process takes the breakpoints out, puts
//! the handler behind its own, and waits until nobody mends (`inprocess/chain.rs`, `inprocess/text.rs`). One outside has
//! a slot of its own for the same site, to which its own handler leads; it writes a breakpoint over the byte that the old
//! slot has kept, so that mending changes nothing ([`super::tracer`]).

use crate::capture::memory::Memory;
use crate::engine::inject::KernelAction;
use crate::engine::patch::Way;
use crate::engine::x86_64::displaced::{ORIGINAL_AT, SITE_AT, SLOT_BYTES};
use crate::engine::x86_64::fallback::{ACTION_BYTES, HEADER_BYTES, POOL_BYTES, header, old_at};
use crate::engine::x86_64::{BREAKPOINT, INSTRUCTION_BYTES_MAX};
use riptrace_protocol::ids::Avma;

/// Handlers of killed agents, one before the other, at most: each maps 64 KB.
const HANDLERS_MAX: usize = 1024;
/// Bytes by which the handler is known: its code, which is the same wherever it is.
const KNOWN_BYTES: usize = 64;

/// What killed agents have left, by the handlers that lead to it.
#[derive(Debug, Default)]
pub(in crate::engine) struct Left {
    /// Where their handlers are, the one that is called first first.
    pools: Vec<Avma>,
    /// The action that the last of them passes on to; `None` if there is none of them.
    below: Option<KernelAction>,
    /// Each slot, and the site and byte of it.
    slots: Vec<(Avma, Avma, u8)>,
    /// Where a thread is that has run into the breakpoint of one, in order.
    behind: Vec<u64>,
}

fn is_handler(memory: &dyn Memory, at: Avma) -> bool {
    let mut found = [0; KNOWN_BYTES];
    at.0 > 1 && memory.read(at, &mut found).is_ok() && header(at).starts_with(&found)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

impl Left {
    /// Behind the action that SIGTRAP has.
    pub(in crate::engine) fn behind(memory: &dyn Memory, action: &KernelAction) -> Left {
        let mut left = Left::default();
        let mut next = *action;
        while left.pools.len() < HANDLERS_MAX && is_handler(memory, Avma(next.handler)) {
            let base = Avma(next.handler);
            let mut old = [0; ACTION_BYTES];
            if left.pools.contains(&base) || memory.read(old_at(base), &mut old).is_err() {
                break;
            }
            left.pools.push(base);
            left.read_slots(memory, base);
            next = KernelAction::from_bytes(&old);
            left.below = Some(next);
        }
        left.behind = left.slots.iter().map(|(_, site, _)| site.0.wrapping_add(1)).collect();
        left.behind.sort_unstable();
        left
    }

    fn read_slots(&mut self, memory: &dyn Memory, base: Avma) {
        let mut slots = vec![0; (POOL_BYTES - HEADER_BYTES) as usize];
        let start = Avma(base.0 + HEADER_BYTES);
        if memory.read(start, &mut slots).is_err() {
            return;
        }
        for (number, slot) in slots.chunks_exact(SLOT_BYTES).enumerate() {
            let site = word(slot, SITE_AT);
            if site == 0 {
                return;
            }
            let at = Avma(start.0 + (number * SLOT_BYTES) as u64);
            self.slots.push((at, Avma(site), slot[ORIGINAL_AT]));
        }
    }

    /// Whether one of the handlers is at an address.
    pub(in crate::engine) fn has_handler(&self, at: u64) -> bool {
        self.pools.contains(&Avma(at))
    }

    /// Whether a thread that has this word is in a handler, or on its way there from a breakpoint.
    pub(in crate::engine) fn is_mending(&self, word: u64) -> bool {
        let is_in = |base: &Avma| word.wrapping_sub(base.0) < HEADER_BYTES;
        self.pools.iter().any(is_in) || self.behind.binary_search(&word).is_ok()
    }

    /// The last handler, and the action that it passes on to.
    pub(in crate::engine) fn last(&self) -> Option<(Avma, KernelAction)> {
        Some((*self.pools.last()?, self.below?))
    }

    /// Where breakpoints may stand, and what was there before. Not those of which a later agent has a slot, too: it knows.
    pub(in crate::engine) fn breakpoints(&self) -> impl Iterator<Item = (Avma, u8)> {
        self.slots.iter().map(|&(_, site, original)| (site, original)).filter(|&(_, original)| original != BREAKPOINT)
    }

    /// Where the byte is kept that mending puts back at a site, and that byte.
    pub(in crate::engine) fn kept_bytes(&self, of: Avma) -> impl Iterator<Item = (Avma, u8)> {
        let own = move |&&(_, site, original): &&(Avma, Avma, u8)| site == of && original != BREAKPOINT;
        self.slots.iter().filter(own).map(|&(slot, _, original)| (Avma(slot.0 + ORIGINAL_AT as u64), original))
    }

    /// A thread may still be in a slot, which leads behind its site.
    pub(in crate::engine) fn ways(&self) -> impl Iterator<Item = Way> {
        self.slots.iter().map(|&(slot, site, _)| Way {
            code: slot..Avma(slot.0 + SLOT_BYTES as u64),
            leads_to: (1..=INSTRUCTION_BYTES_MAX as u64).map(|bytes| Avma(site.0 + bytes)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::memory::Fault;

    struct Pools(Vec<(u64, Vec<u8>)>);

    impl Memory for Pools {
        fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
            let piece = self.0.iter().find_map(|(base, bytes)| {
                let from = at.0.checked_sub(*base)? as usize;
                bytes.get(from..from.checked_add(into.len())?)
            });
            into.copy_from_slice(piece.ok_or(Fault { at })?);
            Ok(())
        }
    }

    /// Memory for slots whose handler passes on to another, with one site.
    fn pool(base: u64, passes_on_to: u64, site: u64) -> (u64, Vec<u8>) {
        let mut bytes = header(Avma(base));
        bytes.resize(POOL_BYTES as usize, 0);
        let old = (old_at(Avma(base)).0 - base) as usize;
        bytes[old..old + 8].copy_from_slice(&passes_on_to.to_le_bytes());
        let slot = HEADER_BYTES as usize;
        bytes[slot + SITE_AT..slot + SITE_AT + 8].copy_from_slice(&site.to_le_bytes());
        bytes[slot + ORIGINAL_AT] = 0x55;
        (base, bytes)
    }

    fn action(handler: u64) -> KernelAction {
        KernelAction { handler, ..KernelAction::default() }
    }

    #[test]
    fn handlers_that_pass_on_to_each_other_are_followed_to_the_last() {
        let memory = Pools(vec![pool(0x10_0000, 0x30_0000, 0x1000), pool(0x30_0000, 0x777, 0x2000)]);
        let left = Left::behind(&memory, &action(0x10_0000));
        assert_eq!(left.last(), Some((Avma(0x30_0000), action(0x777))));
        assert_eq!(left.breakpoints().collect::<Vec<_>>(), [(Avma(0x1000), 0x55), (Avma(0x2000), 0x55)]);
        let kept = Avma(0x30_0000 + HEADER_BYTES + ORIGINAL_AT as u64);
        assert_eq!(left.kept_bytes(Avma(0x2000)).collect::<Vec<_>>(), [(kept, 0x55)]);
        assert_eq!(left.kept_bytes(Avma(0x2001)).count(), 0);
        assert!([0x10_0000, 0x30_0010, 0x1001, 0x2001].iter().all(|&word| left.is_mending(word)));
        assert!(![0x1000, 0x2002, 0x10_0000 + HEADER_BYTES].iter().any(|&word| left.is_mending(word)));
        let slot = Avma(0x10_0000 + HEADER_BYTES);
        assert_eq!(
            left.ways().next().map(|way| (way.code, way.leads_to[0])),
            Some((slot..Avma(slot.0 + 64), Avma(0x1001)))
        );
        // The program's own, and one that is not there any more.
        for other in [0, 1, 0x30_0001, 0x50_0000] {
            assert_eq!(Left::behind(&memory, &action(other)).last(), None);
        }
    }

    #[test]
    fn what_a_later_agent_has_a_slot_of_is_no_breakpoint_of_the_former_one() {
        let (base, mut bytes) = pool(0x10_0000, 0x777, 0x1000);
        bytes[HEADER_BYTES as usize + ORIGINAL_AT] = BREAKPOINT;
        let left = Left::behind(&Pools(vec![(base, bytes)]), &action(0x10_0000));
        assert_eq!((left.breakpoints().count(), left.kept_bytes(Avma(0x1000)).count()), (0, 0));
        assert!(left.is_mending(0x1001) && left.ways().count() == 1, "a thread may be on its way all the same");
    }

    #[test]
    fn a_ring_of_handlers_ends() {
        let memory = Pools(vec![pool(0x10_0000, 0x30_0000, 0x1000), pool(0x30_0000, 0x10_0000, 0x2000)]);
        assert_eq!(Left::behind(&memory, &action(0x30_0000)).pools.len(), 2);
    }
}

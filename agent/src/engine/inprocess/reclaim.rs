//! Pads that can be given back: those that nothing leads to any more, neither a jump in the text nor a byte that traps,
//! once no thread is in one or on its way to one, and nobody else has the code.
//!
//! On its way is who has just trapped and not been sent on: its place, behind the trap or at it, is in a register, in a
//! signal frame or on a handler's stack, and so are the addresses in pads that a handler works with. Parked goroutines have
//! none of them: the runtime never parks one in a pad, and one that was preempted at the address of a trap goes on in the
//! program's own code, which is back by then.
//!
//! A child by fork(2) has the same code, and its parent's jumps until they are swept out of it: while there is one that has
//! not started another program, nothing is given back.

use crate::capture::memory::Memory;
use crate::engine::x86_64::pads::tables::View;
use crate::engine::x86_64::text::is_trap;
use crate::target::{self, TargetError};
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::DirEntryExt;
use std::time::Duration;

/// Pads that are given back at a time, at least, where something else helps as well: the whole process stands still for it.
pub(super) const RECLAIMED_MIN: usize = 16;
/// The same where something else is nearly as good.
const HALF_MIN: usize = 64;
/// Looks until nobody has a child that has the code, and the process can be stopped, at most.
pub(super) const TRIES_MAX: usize = 8;
/// Pause between two: a child that starts another program takes about as long.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// A pad that nothing leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unused {
    /// Number of its island.
    pub(super) island: usize,
    /// Its number there.
    pub(super) number: u32,
    /// Its code and its twin's.
    pub(super) code: Vec<Range<Avma>>,
}

/// How many pads are worth a stop of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Least {
    /// So many.
    Pads(usize),
    /// Half of all, and [`HALF_MIN`]: there is something else that helps.
    Half,
}

/// Address ranges, by address.
#[derive(Debug)]
pub(super) struct Ranges(Vec<(u64, u64)>);

/// Of the code of some pads.
pub(super) fn ranges(pads: &[&Unused]) -> Ranges {
    let mut ranges: Vec<_> =
        pads.iter().flat_map(|pad| pad.code.iter().map(|range| (range.start.0, range.end.0))).collect();
    ranges.sort_unstable();
    Ranges(ranges)
}

impl Ranges {
    /// Whether an address is in one.
    pub(super) fn has(&self, at: Avma) -> bool {
        let before = self.0.partition_point(|(start, _)| *start <= at.0).checked_sub(1);
        before.and_then(|before| self.0.get(before)).is_some_and(|(_, end)| at.0 < *end)
    }
}

/// The pads that nothing leads to, and what a thread would have that is in one or comes to one all the same.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pads, used or not.
    pub(super) all: usize,
    /// Those that nothing leads to.
    pub(super) unused: Vec<Unused>,
    /// Begin and end of their code, and which of them it is; by address.
    code: Vec<(u64, u64, usize)>,
    /// What the instruction pointer of a thread is that has trapped on its way to one, and which of them it is; in order.
    trapped: Vec<(u64, usize)>,
}

fn byte_at(text: &dyn Memory, at: Avma) -> Option<u8> {
    let mut byte = [0];
    text.read(at, &mut byte).ok().map(|()| byte[0])
}

/// The pads of some islands that nothing leads to. `kept` are the beginnings of those that something will lead to soon.
pub(super) fn unused(views: &[(usize, View<'_>)], text: &dyn Memory, kept: &BTreeSet<Avma>) -> Found {
    let pads: Vec<_> = views.iter().flat_map(|(island, view)| view.pads().map(|pad| (*island, pad))).collect();
    // Jumps that stand, from where to where. While one is there its site's traps are needed, whichever pad they lead to:
    // it goes by a trap.
    let mut standing: BTreeMap<u64, u64> = BTreeMap::new();
    let mut needed = vec![false; pads.len()];
    for ((_, pad), needed) in pads.iter().zip(&mut needed) {
        let patch = pad.patch();
        let mut found = vec![0; patch.len()];
        // What cannot be read is taken for patched.
        let is_there = text.read(pad.site, &mut found).is_err() || found == patch;
        if patch.len() > 1 && is_there {
            standing.insert(pad.site.0, pad.site.0 + patch.len() as u64);
        }
        *needed = patch.len() > 1 && is_there || kept.contains(&pad.start);
    }
    let is_standing = |at: Avma| standing.range(..=at.0).next_back().is_some_and(|(_, end)| at.0 < *end);
    let is_live = |from: Avma| is_standing(from) || byte_at(text, from).is_none_or(is_trap);
    let (live, dead): (Vec<_>, Vec<_>) =
        views.iter().flat_map(|(_, view)| view.traps()).partition(|trap| is_live(trap.0));
    let mut live: Vec<Avma> = live.into_iter().map(|(_, to)| to).collect();
    live.sort_unstable();
    let is_led_to = |range: &Range<Avma>| {
        let first = live.partition_point(|target| *target < range.start);
        live.get(first).is_some_and(|target| *target < range.end)
    };
    let mut found = Found { all: pads.len(), ..Found::default() };
    for ((island, pad), needed) in pads.iter().zip(needed) {
        let code: Vec<Range<Avma>> = pad.code().collect();
        if !needed && !code.iter().any(is_led_to) {
            let ranges = code.iter().map(|range| (range.start.0, range.end.0, found.unused.len()));
            found.code.extend(ranges);
            found.unused.push(Unused { island: *island, number: pad.number, code });
        }
    }
    found.code.sort_unstable();
    for (from, to) in dead {
        if let Some(pad) = found.at(to.0) {
            // Of SIGTRAP behind it, of SIGILL at it.
            found.trapped.extend([(from.0, pad), (from.0 + 1, pad)]);
        }
    }
    found.trapped.sort_unstable();
    found
}

impl Found {
    /// Whether there are so many.
    pub(super) fn is_enough(&self, least: Least) -> bool {
        let unused = self.unused.len();
        match least {
            Least::Pads(pads) => unused >= pads,
            Least::Half => unused >= HALF_MIN && unused >= self.all / 2,
        }
    }

    /// The unused pad that has code at an address.
    fn at(&self, address: u64) -> Option<usize> {
        let before = self.code.partition_point(|(start, ..)| *start <= address).checked_sub(1)?;
        self.code.get(before).filter(|(_, end, _)| address < *end).map(|(.., pad)| *pad)
    }

    fn trapped_at(&self, address: u64) -> impl Iterator<Item = usize> {
        let first = self.trapped.partition_point(|(at, _)| *at < address);
        self.trapped[first..].iter().take_while(move |(at, _)| *at == address).map(|(_, pad)| *pad)
    }

    /// Whether a thread that has this in a register or on its stack may be in an unused pad, or come to one.
    pub(super) fn is_watched(&self, word: u64) -> bool {
        self.at(word).is_some() || self.trapped_at(word).next().is_some()
    }

    /// The pads that no thread is concerned with that has one of these words.
    pub(super) fn without(&self, words: &BTreeSet<u64>) -> Vec<&Unused> {
        let busy: BTreeSet<usize> =
            words.iter().flat_map(|&word| self.at(word).into_iter().chain(self.trapped_at(word))).collect();
        self.unused.iter().enumerate().filter(|(n, _)| !busy.contains(n)).map(|(_, pad)| pad).collect()
    }
}

/// The processes that there were when they were looked at, none of which had the code of an area but its own.
#[derive(Debug)]
pub(super) struct Others {
    file: (u64, u64),
    start_time: u64,
    user: u32,
    /// By id, and by the inode of their directory: that goes with the process (fs/proc/base.c, `proc_flush_pid`), and the
    /// next one that has the id has another.
    known: BTreeSet<(u32, u64)>,
}

fn processes() -> Option<BTreeSet<(u32, u64)>> {
    let entries = fs::read_dir("/proc").ok()?;
    let process = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.ino()));
    Some(entries.flatten().filter_map(process).collect())
}

impl Others {
    /// Looks at all; `None` if another one has the code at this address of a process, or may have it.
    pub(super) fn without_the_code(process: ProcessKey, at: Avma) -> Option<Others> {
        let ProcessKey { pid, start_time } = process;
        let maps = target::mappings(pid).ok()?;
        let own = maps.iter().find(|map| map.exec && (map.lo..map.hi).contains(&at.0))?;
        let user = target::status(pid).ok()?.user;
        let others = Others { file: (own.dev, own.inode), start_time, user, known: processes()? };
        let is_alone = others.known.iter().all(|&(other, _)| other == pid || !others.may_have(other));
        is_alone.then_some(others)
    }

    fn may_have(&self, pid: u32) -> bool {
        match target::mappings(pid) {
            Ok(maps) => maps.iter().any(|map| map.exec && (map.dev, map.inode) == self.file),
            // One that has ended has nothing.
            Err(TargetError::Gone { .. }) => false,
            // A child that has made itself unreadable is its parent's user's (who may trace a process that can change its
            // user may read all), and no older.
            Err(_) => {
                let is_younger = target::start_time(pid).is_ok_and(|start_time| start_time >= self.start_time);
                is_younger && target::status(pid).is_ok_and(|status| status.user == self.user)
            }
        }
    }

    /// Whether one may have come since that has it. To be asked while the process stands still, so that it makes none.
    pub(super) fn may_have_come(&self) -> bool {
        processes().is_none_or(|now| now.difference(&self.known).any(|&(pid, _)| self.may_have(pid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::memory::Fault;
    use crate::engine::area::{CODE_BYTES, Island};
    use crate::engine::x86_64::BREAKPOINT;
    use crate::engine::x86_64::pads::island::IslandMemory;
    use crate::engine::x86_64::pads::{PadImage, PadRequest, PatchKind};

    /// Instructions of three and two bytes: mov rdi, r12; mov eax, ebx.
    const CODE: [u8; 5] = [0x4c, 0x89, 0xe7, 0x89, 0xd8];
    const SITES: u64 = 0x40_0000;

    struct Text(BTreeMap<u64, [u8; 5]>);

    impl Text {
        fn site(&mut self, number: u64) -> &mut [u8; 5] {
            self.0.entry(SITES + 16 * number).or_insert(CODE)
        }
    }

    impl Memory for Text {
        fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
            for (n, byte) in into.iter_mut().enumerate() {
                let at = at.0 + n as u64;
                let (site, bytes) = self.0.range(..=at).next_back().ok_or(Fault { at: Avma(at) })?;
                *byte = *bytes.get((at - site) as usize).unwrap_or(&0x90);
            }
            Ok(())
        }
    }

    #[test]
    fn what_a_jump_or_a_trap_leads_to_is_kept_and_so_are_the_traps_of_a_jump_that_stands() {
        let mut words = vec![0u64; CODE_BYTES / 8];
        let island = Island { number: 0, control: Avma(0x600_0000) };
        // SAFETY: all of the vector, as bytes, for as long as it lives.
        let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), CODE_BYTES) };
        let mut memory = IslandMemory::create(bytes, island, true).unwrap();
        let mut pad = |number: u64, patch: PatchKind| -> PadImage {
            let request = PadRequest {
                island,
                site: Avma(SITES + 16 * number),
                original: &CODE,
                displaced: CODE.len(),
                patch,
                bodies: &[],
                red_zone: false,
                go: true,
                shadow_stack: false,
            };
            memory.add_pad(&request).unwrap()
        };
        let punned = PatchKind::Punned { mask: 0x00ff_0000, value: 0x00cc_0000 };
        let (older, newer) = (pad(0, PatchKind::Jump), pad(0, PatchKind::Jump));
        let (trap, once, soon) = (pad(1, PatchKind::Trap), pad(2, punned), pad(3, PatchKind::Jump));
        let view = memory.view();
        let number = |image: &PadImage| view.find_pad(image.places.start).unwrap().0.number;
        let mut text = Text(BTreeMap::new());
        // The newer one was made, but the change to it failed.
        text.site(0).copy_from_slice(&older.patch);
        text.site(1)[0] = BREAKPOINT;
        for site in 2..5 {
            text.site(site);
        }
        let found = unused(&[(0, view)], &text, &BTreeSet::from([soon.places.start]));
        assert_eq!(found.all, 5);
        assert_eq!(found.unused.iter().map(|pad| pad.number).collect::<Vec<_>>(), [number(&once)]);
        let twin = once.places.twin.unwrap().0;
        let site = SITES + 32;
        for word in [once.places.start.0, twin + 3, site, site + 1, site + 3, site + 4] {
            assert!(found.is_watched(word), "{word:x}");
            assert!(found.without(&BTreeSet::from([word])).is_empty());
        }
        for word in [site - 1, site + 2, site + 5, trap.places.start.0, newer.places.start.0, 0] {
            assert!(!found.is_watched(word), "{word:x}");
        }
        assert_eq!(found.without(&BTreeSet::new()).len(), 1);
        // All go once nothing is patched; half way out of one, a trap stands at its site.
        text.site(0)[..].copy_from_slice(&CODE);
        text.site(1)[0] = CODE[0];
        assert_eq!(unused(&[(0, view)], &text, &BTreeSet::new()).unused.len(), 5);
        text.site(0)[0] = BREAKPOINT;
        let found = unused(&[(0, view)], &text, &BTreeSet::new());
        assert!(found.unused.iter().all(|pad| pad.number != number(&newer)) && found.unused.len() == 4);
        // A library that is not there now.
        text.0.clear();
        assert!(unused(&[(0, view)], &text, &BTreeSet::new()).unused.is_empty());
    }

    #[test]
    fn who_has_the_same_code_is_found() {
        let own = ProcessKey { pid: std::process::id(), start_time: target::start_time(std::process::id()).unwrap() };
        let at = Avma(who_has_the_same_code_is_found as fn() as usize as u64);
        let alone = Others::without_the_code(own, at);
        // SAFETY: the child does nothing but wait to be killed, and end.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => loop {
                nix::unistd::pause();
            },
        };
        if let Some(others) = alone {
            assert!(others.may_have_come());
        }
        assert!(Others::without_the_code(own, at).is_none());
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        assert!(Others::without_the_code(own, Avma(8)).is_none(), "nothing is there");
    }
}

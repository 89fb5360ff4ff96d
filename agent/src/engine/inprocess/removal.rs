//! What takes patches out of a text in which an agent has left them that was killed: whole, or half written. Pure, but
//! for the reads.
//!
//! While an agent changes a site its bytes are, one by one, the program's, those of the patch that goes, or those of the
//! patch that comes, and the first one may be a trap besides. All patches that a site ever had are known by its pads; a
//! site with any other byte is not touched, as somebody else has changed it.
//!
//! A place that was a site once may lie within another site's jump today, and bytes of that one may look like its own. So
//! whole jumps go first; what overlaps something that goes is looked at again when that is gone.

use crate::capture::memory::Memory;
use crate::engine::patch::Patch;
use crate::engine::x86_64::BREAKPOINT;
use crate::engine::x86_64::pads::tables::{JUMP_BYTES, Pad};
use iced_x86::{Decoder, DecoderOptions};
use riptrace_protocol::ids::Avma;
use std::collections::{BTreeMap, BTreeSet};

/// Times that [`of`] is asked and obeyed, at most: patches of one agent never overlap, so that the first time is enough
/// but where bytes look like something that they are not.
pub(super) const ROUNDS_MAX: usize = 4;

/// What was written at a site once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// The site.
    at: Avma,
    /// The program's own bytes: whole instructions, as many as the patch replaces or more.
    original: Vec<u8>,
    /// The patch.
    patch: Vec<u8>,
}

impl Written {
    /// A patch in place of some bytes.
    pub(super) fn new(at: Avma, original: Vec<u8>, patch: Vec<u8>) -> Written {
        Written { at, original, patch }
    }
}

impl From<Pad> for Written {
    fn from(pad: Pad) -> Written {
        Written { at: pad.site, patch: pad.patch(), original: pad.original }
    }
}

/// A place that was patched.
struct Place {
    /// The program's own bytes, from the first.
    code: Vec<u8>,
    /// All that agents have written there.
    patches: BTreeSet<Vec<u8>>,
}

/// Offsets other than 0 at which instructions begin, as far as the bytes tell.
fn boundaries(at: Avma, code: &[u8]) -> Vec<usize> {
    let decoder = Decoder::with_ip(64, code, at.0, DecoderOptions::NONE);
    let whole = decoder.into_iter().take_while(|instruction| !instruction.is_invalid());
    whole.map(|instruction| (instruction.next_ip() - at.0) as usize).filter(|&end| end < JUMP_BYTES).collect()
}

impl Place {
    /// A patch joins if it was one of the same code; another library may have been at the address before.
    fn join(&mut self, written: &Written) -> bool {
        let (short, long) = match self.code.len() < written.original.len() {
            true => (&self.code, &written.original),
            false => (&written.original, &self.code),
        };
        if !long.starts_with(short) {
            return false;
        }
        self.code = long.clone();
        self.patches.insert(written.patch.clone());
        true
    }

    /// Bytes that a patch may have changed.
    fn length(&self) -> usize {
        self.patches.iter().map(Vec::len).max().unwrap_or(0).min(self.code.len())
    }

    fn is_whole_jump(&self, found: &[u8]) -> bool {
        found.len() == JUMP_BYTES && self.patches.contains(found)
    }

    fn removal(&self, at: Avma, found: &[u8]) -> Option<Patch> {
        let is_ours = |n: usize| {
            found[n] == self.code[n]
                || n == 0 && found[0] == BREAKPOINT
                || self.patches.iter().any(|patch| patch.get(n) == Some(&found[n]))
        };
        let code = &self.code[..found.len()];
        let boundaries: Vec<usize> =
            boundaries(at, &self.code).into_iter().filter(|&boundary| boundary < found.len()).collect();
        (0..found.len()).all(is_ours).then(|| Patch::back_to(at, found, code, &boundaries)).flatten()
    }
}

/// The patches that take out what stands at the sites of all that was ever written, none of which overlap. What they do
/// not reach is found when they are applied and this is asked again.
pub(super) fn of(memory: &dyn Memory, all: impl IntoIterator<Item = Written>) -> Vec<Patch> {
    let mut places: BTreeMap<Avma, Vec<Place>> = BTreeMap::new();
    for written in all {
        let there = places.entry(written.at).or_default();
        if !there.iter_mut().any(|place| place.join(&written)) {
            there.push(Place { patches: BTreeSet::from([written.patch]), code: written.original });
        }
    }
    let found = |at: Avma, place: &Place| {
        let mut found = vec![0; place.length()];
        memory.read(at, &mut found).ok().map(|()| found)
    };
    let mut jumps = Vec::new();
    let mut others = Vec::new();
    for (&at, there) in &places {
        for place in there {
            let Some(found) = found(at, place) else { continue };
            let Some(patch) = place.removal(at, &found) else { continue };
            if place.is_whole_jump(&found) { jumps.push(patch) } else { others.push(patch) }
        }
    }
    let mut chosen: BTreeMap<Avma, Patch> = BTreeMap::new();
    for patch in jumps.into_iter().chain(others) {
        let end = Avma(patch.at.0 + patch.old.len() as u64);
        let before = chosen.range(..end).next_back();
        if before.is_none_or(|(at, other)| at.0 + other.old.len() as u64 <= patch.at.0) {
            chosen.insert(patch.at, patch);
        }
    }
    chosen.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::memory::Fault;
    use crate::engine::patch::How;
    use crate::engine::x86_64::text::{JUMP, UNDEFINED, Write, is_trap, phases};
    use proptest::prelude::*;

    const AT: Avma = Avma(0x1000);

    struct Text(Vec<u8>);

    impl Memory for Text {
        fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
            let from = at.0.checked_sub(AT.0).ok_or(Fault { at })? as usize;
            into.copy_from_slice(self.0.get(from..from + into.len()).ok_or(Fault { at })?);
            Ok(())
        }
    }

    fn written(offset: usize, original: &[u8], patch: &[u8]) -> Written {
        Written::new(Avma(AT.0 + offset as u64), original.to_vec(), patch.to_vec())
    }

    fn apply(text: &mut [u8], write: &Write) {
        text[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    #[test]
    fn the_tail_of_a_jump_is_no_boundary_though_it_may_look_like_a_trap() {
        // mov rdi, r12; add ebx, 1; call rax. The pun's last byte is an opcode that is none: with the byte in front of it
        // back and itself not, the code reads add dword ptr [rsi], 1.
        let code = [0x4c, 0x89, 0xe7, 0x83, 0xc3, 0x01, 0xff, 0xd0];
        let jump = [JUMP, 0xb9, 0x16, BREAKPOINT, UNDEFINED];
        let text = Text([&jump[..], &code[5..]].concat());
        let patches = of(&text, [written(0, &code[..6], &jump), written(0, &code[..3], &[BREAKPOINT])]);
        let want = Patch { at: AT, old: jump.to_vec(), new: code[..5].to_vec(), how: How::Poke, boundaries: vec![3] };
        assert_eq!(patches, [want]);
    }

    #[test]
    fn what_somebody_else_has_written_is_left_alone() {
        let code = [0x4c, 0x89, 0xe7, 0x83, 0xc3, 0x01];
        let jump = [JUMP, 1, 2, BREAKPOINT, 4];
        let found = |bytes: &[u8]| of(&Text(bytes.to_vec()), [written(0, &code, &jump)]).len();
        assert_eq!(found(&code), 0);
        assert_eq!(found(&[JUMP, 1, 2, BREAKPOINT, 5, 1]), 0, "another's jump");
        assert_eq!(found(&[BREAKPOINT, 0x89, 0xe7, 0x83, 0xc3, 1]), 1);
        // Unmapped, and the code of a library that was there before.
        assert!(of(&Text(Vec::new()), [written(0, &code, &jump)]).is_empty());
        let other = [0x90; 6];
        let both = [written(0, &code, &jump), written(0, &other, &[BREAKPOINT])];
        assert_eq!(of(&Text([&[BREAKPOINT], &other[1..]].concat()), both)[0].new, [0x90]);
    }

    #[test]
    fn a_jump_goes_before_what_only_looks_like_a_patch_inside_of_it() {
        // push; push; push; push; nop ..: a jump at the first, and traps at the fourth and fifth from earlier times.
        let code = [0x50, 0x51, 0x52, 0x53, 0x90, 0x90, 0x90, 0x90, 0x90];
        let jump = [JUMP, BREAKPOINT, BREAKPOINT, BREAKPOINT, UNDEFINED];
        let all = || {
            [
                written(3, &code[3..4], &[BREAKPOINT]),
                written(0, &code[..5], &jump),
                written(8, &code[8..9], &[BREAKPOINT]),
            ]
        };
        let mut text = Text([&jump[..], &code[5..8], &[BREAKPOINT]].concat());
        let patches = of(&text, all());
        assert_eq!(patches.iter().map(|patch| patch.at.0 - AT.0).collect::<Vec<_>>(), [0, 8]);
        for patch in patches {
            let at = (patch.at.0 - AT.0) as usize;
            text.0[at..at + patch.new.len()].copy_from_slice(&patch.new);
        }
        assert_eq!((&text.0[..], of(&text, all())), (&code[..], Vec::new()));
    }

    /// Instructions of one to five bytes, none of which begins or ends like a trap.
    const INSTRUCTIONS: [&[u8]; 6] = [
        &[0x55],
        &[0x89, 0xd8],
        &[0x4c, 0x89, 0xe7],
        &[0x83, 0xc3, 0x01],
        &[0x48, 0x83, 0xec, 0x08],
        &[0x49, 0x8b, 0x44, 0xc5, 0x00],
    ];

    proptest! {
        /// An agent changes a site from one patch to another, and is killed between any two writes. The next one takes it
        /// out: a thread at any boundary, at any moment, finds code, a trap or a jump that was there before.
        #[test]
        fn whatever_was_left_goes_and_no_thread_ever_runs_a_mixture(
            chosen in prop::collection::vec(0usize..INSTRUCTIONS.len(), 5),
            tails in any::<[[u8; 4]; 2]>(),
            states in prop::collection::vec(0usize..4, 1..5),
            killed in 0usize..60,
        ) {
            let mut starts = Vec::new();
            let mut code: Vec<u8> = Vec::new();
            for instruction in chosen.into_iter().map(|n| INSTRUCTIONS[n]) {
                if code.len() >= JUMP_BYTES {
                    break;
                }
                starts.push(code.len());
                code.extend(instruction);
            }
            let inside: Vec<usize> = starts.iter().copied().filter(|&at| at > 0).collect();
            let end_of = |at: usize| starts.iter().copied().find(|&start| start > at).unwrap_or(code.len());
            let jump = |tail: [u8; 4]| {
                let mut jump = [&[JUMP][..], &tail].concat();
                inside.iter().for_each(|&at| jump[at] = if at == 4 { UNDEFINED } else { BREAKPOINT });
                jump
            };
            let trap = [&[BREAKPOINT][..], &code[1..JUMP_BYTES]].concat();
            let all = [code[..JUMP_BYTES].to_vec(), jump(tails[0]), jump(tails[1]), trap];
            let mut text = all[0].clone();
            let mut writes = 0;
            'agent: for pair in std::iter::once(&0).chain(&states).collect::<Vec<_>>().windows(2) {
                for write in phases(&all[*pair[0]], &all[*pair[1]], &inside_of(&inside, &all[*pair[0]], &all[*pair[1]]))
                    .expect("a pun traps where code begins")
                    .iter()
                    .flatten()
                {
                    if writes == killed {
                        break 'agent;
                    }
                    writes += 1;
                    apply(&mut text, write);
                }
            }
            let history = || {
                [written(0, &code, &all[1]), written(0, &code, &all[2]), written(0, &code[..end_of(0)], &[BREAKPOINT])]
            };
            let patches = of(&Text(text.clone()), history());
            prop_assert_eq!(patches.is_empty(), text == all[0]);
            let is_jump = |seen: &[u8]| seen == &all[1][..] || seen == &all[2][..];
            for patch in patches {
                let planned = phases(&patch.old, &patch.new, &patch.boundaries);
                for write in planned.expect("it can be planned").iter().flatten() {
                    apply(&mut text, write);
                    let is_code = |at: usize| text[at..end_of(at).min(JUMP_BYTES)] == code[at..end_of(at).min(JUMP_BYTES)];
                    prop_assert!(text[0] == BREAKPOINT || is_jump(&text) || is_code(0), "{text:02x?}");
                    for &at in &inside {
                        prop_assert!(is_trap(text[at]) || is_code(at), "{text:02x?} at {at}");
                    }
                }
            }
            prop_assert_eq!(&text, &all[0]);
            prop_assert!(of(&Text(text), history()).is_empty());
        }
    }

    /// The boundaries that an agent minds for a change: those that trap before or after.
    fn inside_of(inside: &[usize], old: &[u8], new: &[u8]) -> Vec<usize> {
        inside.iter().copied().filter(|&at| is_trap(old[at]) || is_trap(new[at])).collect()
    }
}

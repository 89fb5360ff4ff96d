//! How the bytes of a patch change under running threads: which of them may be written at the same time.
//!
//! A processor may have fetched any part of an instruction before it is changed, so code that runs is changed in phases:
//! first every place where a thread may begin an instruction becomes a trap of one byte, then what lies between changes,
//! at last the traps go. Between two phases all processors must forget what they have fetched. A trap that is hit sends
//! its thread to the trap map, which must know the place before the first phase.
//!
//! Linux changes its own text in the same way (arch/x86/kernel/alternative.c, `smp_text_poke_batch_finish`); vendors
//! promise that a single byte may be replaced by `int3` and back at any time.
//!
//! Pure: nobody is written to here.

use super::BREAKPOINT;

/// `jmp rel32` (Intel SDM volume 2).
pub(in super::super) const JUMP: u8 = 0xe9;
/// Bytes of a [`JUMP`].
#[cfg(test)]
pub(in super::super) const JUMP_BYTES: usize = 5;
/// No instruction in 64-bit mode (once `push es`): raises SIGILL with the instruction pointer at it.
pub(in super::super) const UNDEFINED: u8 = 0x06;

/// Whether a thread that begins an instruction at this byte is sent to a handler at once, whatever follows.
pub(in super::super) fn is_trap(byte: u8) -> bool {
    byte == BREAKPOINT || byte == UNDEFINED
}

/// A write of bytes that stand side by side: offset from the site, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Write {
    pub(in super::super) offset: usize,
    pub(in super::super) bytes: Vec<u8>,
}

/// What is written in one phase. The writes of a phase may be made in any order.
pub(in super::super) type Phase = Vec<Write>;

/// An instruction boundary whose byte is a trap neither before nor after: its offset from the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct NoTrap(pub(in super::super) usize);

/// The three phases in which `old` becomes `new` while threads run; all processors must synchronise after the first and
/// after the second. `boundaries` are the offsets other than 0 at which a thread may begin an instruction.
pub(in super::super) fn phases(old: &[u8], new: &[u8], boundaries: &[usize]) -> Result<[Phase; 3], NoTrap> {
    let mut trapped = old.to_vec();
    trapped[0] = BREAKPOINT;
    for &at in boundaries {
        trapped[at] = match (old[at], new[at]) {
            (old, _) if is_trap(old) => old,
            (_, new) if is_trap(new) => new,
            _ => return Err(NoTrap(at)),
        };
    }
    // A boundary that is to trap does so for good by now, so that the last byte of a jump to be written is its first.
    let keeps = |at: usize| at == 0 || boundaries.contains(&at) && !is_trap(new[at]);
    let between: Vec<u8> = (0..old.len()).map(|at| if keeps(at) { trapped[at] } else { new[at] }).collect();
    // One byte each: a boundary's instruction becomes right by this byte alone.
    let single = |from: &[u8], to: &[u8]| -> Phase { changes(from, to).flat_map(Write::bytewise).collect() };
    Ok([single(old, &trapped), changes(&trapped, &between).collect(), single(&between, new)])
}

/// The same where no thread runs: each write leaves code that is right if nothing else is ever written. `is_one_write`:
/// all of it can be written at once.
pub(in super::super) fn steps(old: &[u8], new: &[u8], is_one_write: bool) -> Vec<Phase> {
    if old == new {
        return Vec::new();
    }
    if is_one_write {
        return vec![vec![Write { offset: 0, bytes: new.to_vec() }]];
    }
    let one = |byte: u8| vec![Write { offset: 0, bytes: vec![byte] }];
    let tail = Write { offset: 1, bytes: new[1..].to_vec() };
    vec![one(BREAKPOINT), vec![tail], one(new[0])]
}

/// Runs of bytes that differ.
fn changes<'a>(from: &'a [u8], to: &'a [u8]) -> impl Iterator<Item = Write> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += from[at..].iter().zip(&to[at..]).take_while(|(from, to)| from == to).count();
        let length = from[at..].iter().zip(&to[at..]).take_while(|(from, to)| from != to).count();
        let write = Write { offset: at, bytes: to[at..at + length].to_vec() };
        at += length;
        (length > 0).then_some(write)
    })
}

impl Write {
    fn bytewise(self) -> impl Iterator<Item = Write> {
        let offset = self.offset;
        self.bytes.into_iter().enumerate().map(move |(n, byte)| Write { offset: offset + n, bytes: vec![byte] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(text: &mut [u8], write: &Write) {
        text[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    #[test]
    fn a_single_instruction_becomes_a_jump_behind_a_breakpoint() {
        let old = [0x48, 0x8b, 0x44, 0x24, 0x08];
        let new = [JUMP, 1, 2, 3, 4];
        let write = |offset, bytes: &[u8]| Write { offset, bytes: bytes.to_vec() };
        let want = [vec![write(0, &[0xcc])], vec![write(1, &[1, 2, 3, 4])], vec![write(0, &[JUMP])]];
        assert_eq!(phases(&old, &new, &[]).unwrap(), want);
        let byte = phases(&[0x55], &[0xcc], &[]).unwrap();
        assert_eq!(byte, [vec![write(0, &[0xcc])], vec![], vec![]]);
        assert_eq!(phases(&[0xcc], &[0x55], &[]).unwrap(), [vec![], vec![], vec![write(0, &[0x55])]]);
    }

    #[test]
    fn a_boundary_without_a_trap_is_refused() {
        let old = [0x90, 0x90, 0x90, 0x90, 0x90];
        assert_eq!(phases(&old, &[JUMP, 1, 2, 3, 4], &[1, 2, 3, 4]), Err(NoTrap(1)));
        assert_eq!(phases(&old, &[JUMP, 0xcc, 2, 3, 4], &[1, 2]), Err(NoTrap(2)));
        assert!(phases(&old, &[JUMP, 0xcc, 0xcc, 0xcc, 0x06], &[1, 2, 3, 4]).is_ok());
    }

    #[test]
    fn without_threads_a_patch_that_needs_several_writes_stands_behind_a_breakpoint() {
        let (old, new) = ([1, 2, 3, 4, 5], [JUMP, 7, 8, 9, 10]);
        assert_eq!(steps(&old, &new, true), [vec![Write { offset: 0, bytes: new.to_vec() }]]);
        let mut text = old.to_vec();
        let steps = steps(&old, &new, false);
        for step in &steps[..2] {
            step.iter().for_each(|write| apply(&mut text, write));
            assert_eq!(text[0], BREAKPOINT);
        }
        steps[2].iter().for_each(|write| apply(&mut text, write));
        assert_eq!(text, new);
        assert!(super::steps(&old, &old, false).is_empty());
    }

    /// Code with instruction boundaries, and its patch with traps at those.
    fn patch() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<usize>)> {
        (any::<[u8; 5]>(), any::<[u8; 4]>(), any::<[bool; 4]>(), any::<[bool; 4]>()).prop_map(
            |(old, rel, cut, which)| {
                let boundaries: Vec<usize> = (1..5).filter(|&at| cut[at - 1]).collect();
                let mut new = vec![JUMP];
                new.extend(rel);
                for &at in &boundaries {
                    new[at] = if which[at - 1] { BREAKPOINT } else { UNDEFINED };
                }
                (old.to_vec(), new, boundaries)
            },
        )
    }

    proptest! {
        /// A thread at any boundary, at any moment, finds the old instruction, the new one or a trap: never a mixture,
        /// though a processor may see a byte as it was one phase ago.
        #[test]
        fn no_thread_ever_runs_a_mixture((original, jump, boundaries) in patch(), removed in any::<bool>(), order in any::<u64>()) {
            let (old, new) = if removed { (&jump, &original) } else { (&original, &jump) };
            let ends = |at: usize| boundaries.iter().copied().find(|&end| end > at).unwrap_or(5);
            let mut text = old.clone();
            for phase in phases(old, new, &boundaries).unwrap() {
                let before = text.clone();
                // A stale view is any mixture of before and after, byte by byte.
                let mut after = before.clone();
                phase.iter().for_each(|write| apply(&mut after, write));
                for mask in 0..32_u64 {
                    let mask = mask ^ (order & 31);
                    let seen: Vec<u8> =
                        (0..5).map(|at| if mask >> at & 1 == 1 { after[at] } else { before[at] }).collect();
                    let is_jump = seen == jump;
                    prop_assert!(seen[0] == BREAKPOINT || is_jump || seen[..ends(0)] == original[..ends(0)]);
                    for &at in &boundaries {
                        prop_assert!(is_trap(seen[at]) || seen[at..ends(at)] == original[at..ends(at)]);
                    }
                }
                text = after;
            }
            prop_assert_eq!(&text, new);
        }
    }
}

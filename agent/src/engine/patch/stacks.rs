//! What the stacks of stopped threads say is to continue: a place at which a signal or a preemption has interrupted.
//!
//! From the stack pointer upwards every word is looked at that could be such a place. A signal frame among them tells of
//! the stack that was interrupted, which is looked at in the same way: a handler may run on a stack of its own.

use super::check::Boundaries;
use super::goroutines;
use super::stop::Standing;
use super::{Inside, Runtime};
use crate::engine::sys::{self, Tid};
use riptrace_protocol::ids::Avma;
use std::collections::BTreeMap;

/// Bytes of a stack that are looked at: a signal handler that is deeper in calls than that is not seen through.
const STACK_BYTES: usize = 64 << 10;
/// Signal frames of one thread, one handler interrupted by the next, at most.
const FRAMES_MAX: usize = 16;

/// A stack to look at, from its pointer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stack {
    tid: Tid,
    sp: u64,
}

/// The first thread whose stack says that it is to continue inside of a site.
pub(super) fn inside(threads: &[Standing], runtime: &Runtime, boundaries: &Boundaries) -> Option<(Avma, Inside)> {
    find(threads, runtime, &|word| boundaries.site(word))
}

/// The first thread whose stack holds a word that `site` knows.
pub(super) fn find(
    threads: &[Standing],
    runtime: &Runtime,
    site: &dyn Fn(u64) -> Option<Avma>,
) -> Option<(Avma, Inside)> {
    let reader = threads.first()?.tid;
    let ends = match runtime {
        Runtime::Go(go) => goroutines::stacks_of(reader, threads, go),
        Runtime::Native | Runtime::OpaqueGo => BTreeMap::new(),
    };
    let mut bytes = vec![0; STACK_BYTES];
    for thread in threads {
        let mut stacks = vec![Stack { tid: thread.tid, sp: thread.registers.rsp }];
        let mut next = 0;
        while let Some(&stack) = stacks.get(next) {
            next += 1;
            let words = read(reader, stack.sp, &ends, &mut bytes);
            if let Some(site) = words.iter().find_map(|&word| site(word)) {
                return Some((site, Inside::Stack(thread.tid)));
            }
            for sp in signal_frames(&words) {
                if stacks.len() < FRAMES_MAX && !stacks.iter().any(|stack| stack.sp == sp) {
                    stacks.push(Stack { tid: thread.tid, sp });
                }
            }
        }
    }
    None
}

/// The words of a stack, up to its end or the limit.
fn read(reader: Tid, sp: u64, ends: &BTreeMap<u64, u64>, bytes: &mut [u8]) -> Vec<u64> {
    // An interrupted leaf may have its words below, in the red zone, and none of them is a place to continue at.
    let start = sp & !7;
    let end = ends.range(..=start).next_back().map(|(_, &hi)| hi).filter(|&hi| start < hi);
    let length = end.map_or(STACK_BYTES, |hi| STACK_BYTES.min((hi - start) as usize));
    // Up to the end of the mapping, where that comes first. A stack that cannot be read at all holds nothing.
    let read = sys::read_ranges(reader, &[(start, length)], &mut bytes[..length]).unwrap_or(0);
    bytes[..read].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
}

/// Stack pointers that the signal frames among some words have saved: struct ucontext and struct sigcontext_64 of
/// arch/x86/include/uapi/asm (uc_flags, uc_link, uc_stack of 3 words, r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip,
/// flags, cs gs fs ss, err, ..).
fn signal_frames(words: &[u64]) -> impl Iterator<Item = u64> + '_ {
    const UC_FLAGS_MAX: u64 = 7;
    const SP: usize = 5 + 15;
    const FLAGS: usize = SP + 2;
    const SEGMENTS: usize = SP + 3;
    /// Selectors of user code and user data (arch/x86/include/asm/segment.h).
    const USER_CODE: u64 = 0x33;
    const USER_DATA: u64 = 0x2b;
    words.windows(SEGMENTS + 1).filter_map(|frame| {
        let segments = frame[SEGMENTS];
        let is_user = segments & 0xffff == USER_CODE && [USER_DATA, 0].contains(&(segments >> 48));
        // Bit 1 is always set, and above bit 21 there is none.
        let is_flags = frame[FLAGS] & 2 != 0 && frame[FLAGS] >> 22 == 0;
        (is_user && is_flags && frame[0] <= UC_FLAGS_MAX && frame[1] == 0).then_some(frame[SP])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_frame_tells_of_the_stack_it_has_interrupted() {
        let mut words = vec![0x1234; 40];
        // As a kernel has written one: restorer, uc_flags 6, uc_link 0, no alternate stack, then the registers.
        words[3..8].copy_from_slice(&[7, 0, 0, 2, 0]);
        words[3 + 20] = 0x7fff_0000_1000;
        words[3 + 22] = 0x10246;
        words[3 + 23] = 0x002b_0000_0000_0033;
        assert_eq!(signal_frames(&words).collect::<Vec<_>>(), [0x7fff_0000_1000]);
        words[3 + 22] = 0;
        assert_eq!(signal_frames(&words).count(), 0);
        assert_eq!(signal_frames(&[]).count(), 0);
    }
}

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

/// Words of a stack that are looked at (64 KB): a signal handler that is deeper in calls than that is not seen through.
const STACK_WORDS: usize = 8 << 10;
/// The same where what is not seen would be code that is written over (1 MB).
const DEEP_STACK_WORDS: usize = 128 << 10;
/// Signal frames of one thread, one handler interrupted by the next, at most.
const FRAMES_MAX: usize = 16;

/// The first thread whose stack says that it is to continue inside of a site.
pub(super) fn inside(threads: &[Standing], runtime: &Runtime, boundaries: &Boundaries) -> Option<(Avma, Inside)> {
    find(threads, runtime, &|word| boundaries.site(word))
}

/// The first thread whose stack holds a word that `site` knows.
pub(super) fn find(
    threads: &[Standing],
    runtime: &Runtime,
    site: &impl Fn(u64) -> Option<Avma>,
) -> Option<(Avma, Inside)> {
    let known = |tid, word| site(word).map(|site| (site, Inside::Stack(tid)));
    first(threads, runtime, STACK_WORDS, known)
}

/// Calls `see` for every word on the threads' stacks, deeper than [`find`].
pub(super) fn each(threads: &[Standing], runtime: &Runtime, mut see: impl FnMut(u64)) {
    // Of a Go program whose stacks are not known a megabyte is that of hundreds of goroutines, and its handlers have
    // small stacks of their own.
    let deep = if *runtime == Runtime::Native { DEEP_STACK_WORDS } else { STACK_WORDS };
    first(threads, runtime, deep, |_, word| {
        see(word);
        None::<()>
    });
}

/// The first that `known` makes of a word on a stack.
fn first<T>(
    threads: &[Standing],
    runtime: &Runtime,
    words_max: usize,
    mut known: impl FnMut(Tid, u64) -> Option<T>,
) -> Option<T> {
    let reader = threads.first()?.tid;
    let ends = match runtime {
        Runtime::Go(go) => goroutines::stacks_of(reader, threads, go),
        Runtime::Native | Runtime::OpaqueGo => BTreeMap::new(),
    };
    let mut buffer = vec![0; words_max];
    for thread in threads {
        let mut stacks = vec![thread.registers.rsp];
        let mut next = 0;
        while let Some(&sp) = stacks.get(next) {
            next += 1;
            let words = read(reader, sp, &ends, &mut buffer);
            // One plain loop: nothing takes as long while all threads stand still.
            for (n, &word) in words.iter().enumerate() {
                if let Some(found) = known(thread.tid, word) {
                    return Some(found);
                }
                if word <= UC_FLAGS_MAX
                    && let Some(sp) = signal_frame(&words[n..])
                    && stacks.len() < FRAMES_MAX
                    && !stacks.contains(&sp)
                {
                    stacks.push(sp);
                }
            }
        }
    }
    None
}

/// The words of a stack, up to its end or the limit.
fn read<'a>(reader: Tid, sp: u64, ends: &BTreeMap<u64, u64>, buffer: &'a mut [u64]) -> &'a [u64] {
    // An interrupted leaf may have its words below, in the red zone, and none of them is a place to continue at.
    let start = sp & !7;
    let end = ends.range(..=start).next_back().map(|(_, &hi)| hi).filter(|&hi| start < hi);
    let most = buffer.len();
    let length = end.map_or(most, |hi| most.min((hi - start) as usize / 8));
    // Up to the end of the mapping, where that comes first. A stack that cannot be read at all holds nothing.
    let read = sys::read_words(reader, start, &mut buffer[..length]).unwrap_or(0);
    &buffer[..read]
}

/// The largest value of uc_flags (arch/x86/include/uapi/asm/ucontext.h).
const UC_FLAGS_MAX: u64 = 7;

/// The stack pointer that a signal frame has saved, if these words begin one: struct ucontext and struct sigcontext_64 of
/// arch/x86/include/uapi/asm (uc_flags, uc_link, uc_stack of 3 words, r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip,
/// flags, cs gs fs ss, err, ..).
fn signal_frame(words: &[u64]) -> Option<u64> {
    const SP: usize = 5 + 15;
    const FLAGS: usize = SP + 2;
    const SEGMENTS: usize = SP + 3;
    /// Selectors of user code and user data (arch/x86/include/asm/segment.h).
    const USER_CODE: u64 = 0x33;
    const USER_DATA: u64 = 0x2b;
    let &segments = words.get(SEGMENTS)?;
    let is_user = segments & 0xffff == USER_CODE && [USER_DATA, 0].contains(&(segments >> 48));
    // Bit 1 is always set, and above bit 21 there is none.
    let is_flags = words[FLAGS] & 2 != 0 && words[FLAGS] >> 22 == 0;
    (is_user && is_flags && words[0] <= UC_FLAGS_MAX && words[1] == 0).then_some(words[SP])
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
        let found = |words: &[u64]| (0..words.len()).filter_map(|n| signal_frame(&words[n..])).collect::<Vec<_>>();
        assert_eq!(found(&words), [0x7fff_0000_1000]);
        words[3 + 22] = 0;
        assert!(found(&words).is_empty());
        assert!(found(&[]).is_empty());
    }
}

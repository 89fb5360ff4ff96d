//! Goroutines that are to continue inside of a site: one that was preempted between two instructions has its place on its
//! own stack only (`asyncPreempt` in runtime/preempt_amd64.s has pushed it), wherever that is parked.
//!
//! Read in batches while all threads stand still, so the runtime changes nothing meanwhile; but it may have been stopped
//! in the middle of a change, so nothing here is trusted to be an address before the kernel has read it.

use super::check::Boundaries;
use super::stop::Standing;
use super::{Inside, PatchError};
use crate::engine::api::GoRuntime;
use crate::engine::sys::{self, Tid};
use riptrace_protocol::ids::Avma;
use std::collections::BTreeMap;

/// `g`s of one process, at most: a goroutine has at least 2 KB of stack, so these have 32 GB.
const GOROUTINES_MAX: usize = 1 << 24;
/// Up to so many goroutines are all looked at; of more, only those that the runtime says were preempted between two
/// instructions of their own (`g.asyncSafePoint`): the others were parked by a call, whose return is at no boundary that
/// a jump may displace.
const ALL_UP_TO: usize = 4096;
/// Bytes of a parked goroutine's stack that are looked at: `asyncPreempt` with all registers it saves has less than 700.
const PARKED_BYTES: usize = 1024;
/// Ranges of one process read by one call.
const BATCH: usize = 256;

// runtime/runtime2.go.
const GIDLE: u32 = 0;
const GRUNNING: u32 = 2;
const GDEAD: u32 = 6;
const GDEADEXTRA: u32 = 11;
const GSCAN: u32 = 0x1000;

/// Reads ranges of equal length, `None` where one cannot be read.
fn read_all(by: Tid, addresses: &[u64], length: usize) -> Vec<Option<Vec<u8>>> {
    let mut all = Vec::with_capacity(addresses.len());
    let mut bytes = vec![0; BATCH * length];
    while all.len() < addresses.len() {
        let rest = &addresses[all.len()..];
        let ranges: Vec<(u64, usize)> = rest.iter().take(BATCH).map(|&at| (at, length)).collect();
        let read = sys::read_ranges(by, &ranges, &mut bytes[..ranges.len() * length]).unwrap_or(0) / length;
        all.extend(bytes[..read * length].chunks_exact(length).map(|range| Some(range.to_vec())));
        if read < ranges.len() {
            all.push(None);
        }
    }
    all
}

fn word(bytes: &[u8], at: u32) -> u64 {
    let at = at as usize;
    bytes.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
}

fn read_words<const N: usize>(by: Tid, addresses: &[u64], offsets: [u32; N]) -> Vec<Option<[u64; N]>> {
    let length = offsets.iter().max().map_or(0, |&last| last as usize + 8);
    let words = |bytes: Option<Vec<u8>>| bytes.map(|bytes| offsets.map(|offset| word(&bytes, offset)));
    read_all(by, addresses, length).into_iter().map(words).collect()
}

/// A parked goroutine, or one that a thread works for, which is to continue inside of a site.
pub(super) fn inside(by: Tid, go: &GoRuntime, boundaries: &Boundaries) -> Result<Option<(Avma, Inside)>, PatchError> {
    let unreadable = |why| PatchError::Goroutines { why };
    let [length, array] = [go.allglen, go.allgptr].map(|at| read_words(by, &[at.0], [0])[0].map(|[word]| word));
    let length = length.ok_or_else(|| unreadable("runtime.allglen cannot be read"))? as usize;
    let array = array.ok_or_else(|| unreadable("runtime.allgptr cannot be read"))?;
    if length > GOROUTINES_MAX {
        return Err(unreadable("there are too many"));
    }
    let mut bytes = vec![0; length * 8];
    if length > 0 && sys::read_ranges(by, &[(array, bytes.len())], &mut bytes).ok() != Some(bytes.len()) {
        return Err(unreadable("runtime.allgs cannot be read"));
    }
    let all: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let offsets = [go.g_sched_sp, go.g_sched_pc, go.g_stack_lo, go.g_stack_hi, go.g_status, go.g_async_safe_point];
    let mut parked = Vec::new();
    for (&g, words) in all.iter().zip(read_words(by, &all, offsets)) {
        let [sp, pc, lo, hi, status, preempted] = words.ok_or_else(|| unreadable("a goroutine cannot be read"))?;
        let status = status as u32 & !GSCAN;
        if matches!(status, GIDLE | GDEAD | GDEADEXTRA) {
            continue;
        }
        if let Some(site) = boundaries.site(pc) {
            return Ok(Some((site, Inside::Goroutine(Avma(g)))));
        }
        // A running one may be about to be parked: its thread is in the runtime already.
        if length <= ALL_UP_TO || preempted as u8 != 0 || status == GRUNNING {
            parked.push((g, sp & !7, lo, hi));
        }
    }
    let starts: Vec<u64> = parked.iter().map(|&(_, sp, ..)| sp).collect();
    for (&(g, sp, lo, hi), bytes) in parked.iter().zip(read_all(by, &starts, PARKED_BYTES)) {
        // At the end of a mapping, as much as there is.
        let bytes = bytes.unwrap_or_else(|| {
            let mut bytes = vec![0; PARKED_BYTES];
            let read = sys::read_ranges(by, &[(sp, PARKED_BYTES)], &mut bytes).unwrap_or(0);
            bytes.truncate(read);
            bytes
        });
        // Beyond its end is the stack of another, or what was left of one; a stack that is being moved has two ends.
        let inside = if (lo..hi).contains(&sp) { ((hi - sp) / 8) as usize } else { PARKED_BYTES };
        let words = bytes.chunks_exact(8).take(inside);
        let mut words = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        if let Some(site) = words.find_map(|word| boundaries.site(word)) {
            return Ok(Some((site, Inside::Goroutine(Avma(g)))));
        }
    }
    Ok(None)
}

/// Where the stacks begin and end on which threads run for Go: each thread's system stack and signal stack, and that of
/// the goroutine it runs. Threads that are not Go's have none.
pub(super) fn stacks_of(by: Tid, threads: &[Standing], go: &GoRuntime) -> BTreeMap<u64, u64> {
    let tls: Vec<u64> = threads.iter().map(|t| t.registers.fs_base.wrapping_add_signed(go.g_tls)).collect();
    let current: Vec<u64> = read_words(by, &tls, [0]).into_iter().flatten().map(|[g]| g).filter(|&g| g != 0).collect();
    let machines: Vec<u64> =
        read_words(by, &current, [go.g_m]).into_iter().flatten().map(|[m]| m).filter(|&m| m != 0).collect();
    let stacks: Vec<u64> = read_words(by, &machines, [go.m_g0, go.m_gsignal, go.m_curg])
        .into_iter()
        .flatten()
        .flatten()
        .filter(|&g| g != 0)
        .collect();
    let bounds = read_words(by, &stacks, [go.g_stack_lo, go.g_stack_hi]);
    bounds.into_iter().flatten().map(|[lo, hi]| (lo, hi)).filter(|(lo, hi)| lo < hi).collect()
}

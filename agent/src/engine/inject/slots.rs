//! Where the slots of remote calls are: unused bytes of the vdso at first, then an island's own.
//!
//! A slot with bytes in it belongs to a thread that may be in it, for as long as the process lives: one whose agent was
//! killed inside a call. Nobody writes it again; there are others: thousands in an island, a few dozen in the padding, of
//! which only agents use one up that are killed while they map an area or look whether it is whole. A process in which all
//! are used up is refused ([`InjectError::NoSlot`](super::InjectError::NoSlot)), never hurt.

use super::map::Window;
use crate::capture::memory::{Memory, PAGE_BYTES};
use crate::engine::area::CODE_BYTES;
use crate::engine::memory::TargetMemory;
use crate::engine::sys::{self, Tid};
use crate::engine::x86_64::call_slot::CALL_SLOT_BYTES;
use crate::target::Mapping;
use riptrace_protocol::ids::Avma;
use std::io;

/// Bytes of a slot, with room for a name.
pub(super) const SLOT_BYTES: usize = 128;
/// Where a slot has room for the name of the memory, in bytes from its begin.
pub(super) const SLOT_NAME: usize = 112;
/// Bytes left alone after the last byte of somebody else, so that what ends in zeroes keeps them.
const DISTANCE: u64 = 64;
/// Offset from an island's tables of its slots: the last half of the back of its code.
pub(super) const ISLAND_SLOTS: usize = CODE_BYTES - ISLAND_SLOTS_MAX * SLOT_BYTES;
/// Slots of an island. Each agent that is killed inside a call uses one up.
pub(super) const ISLAND_SLOTS_MAX: usize = 4096;

const _: () = assert!(CALL_SLOT_BYTES <= SLOT_NAME);

/// A slot that no thread is in.
#[derive(Clone, Copy)]
pub(super) enum Slot<'a> {
    /// In a page that only a tracer can write.
    Poked(Avma),
    /// In an island: its address, the island's code, and the offset in it.
    Island(Avma, Window<'a>, usize),
}

impl Slot<'_> {
    pub(super) fn at(&self) -> Avma {
        match self {
            Slot::Poked(at) | Slot::Island(at, ..) => *at,
        }
    }

    /// Writes it by a stopped thread of the process.
    pub(super) fn write(&self, tid: Tid, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        match self {
            Slot::Island(_, window, offset) => window.write(*offset, bytes),
            Slot::Poked(at) => {
                for (n, word) in bytes.chunks_exact(8).enumerate() {
                    let word =
                        u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
                    sys::poke(tid, at.0 + 8 * n as u64, word)?;
                }
            }
        }
        Ok(())
    }
}

/// A free slot in an island.
pub(super) fn in_island(tables: Avma, window: Window<'_>) -> Option<Slot<'_>> {
    (0..ISLAND_SLOTS_MAX).map(|n| ISLAND_SLOTS + n * SLOT_BYTES).find_map(|offset| {
        let mut bytes = [0; SLOT_BYTES];
        window.read(offset, &mut bytes);
        let is_free = bytes == [0; SLOT_BYTES];
        is_free.then(|| Slot::Island(Avma(tables.0 + offset as u64), window, offset))
    })
}

/// A free slot at the end of an executable page that holds only zeroes there: of the vdso, which every process has,
/// else of a file's code. Such a page is the process's own copy once a tracer has written to it.
pub(super) fn in_padding(memory: &TargetMemory, maps: &[Mapping], use_vdso: bool) -> Option<Slot<'static>> {
    let vdso = maps.iter().filter(|mapping| use_vdso && mapping.path == "[vdso]");
    let files = maps.iter().filter(|mapping| mapping.exec && !mapping.write && mapping.path.starts_with('/'));
    vdso.chain(files.filter(|mapping| !mapping.path.starts_with("/memfd:"))).find_map(|mapping| {
        let mut page = [0; PAGE_BYTES as usize];
        let page_at = mapping.hi - PAGE_BYTES;
        memory.read(Avma(page_at), &mut page).ok()?;
        let used = page.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
        let offset = (used + DISTANCE).next_multiple_of(16);
        (offset + SLOT_BYTES as u64 <= PAGE_BYTES).then_some(Slot::Poked(Avma(page_at + offset)))
    })
}

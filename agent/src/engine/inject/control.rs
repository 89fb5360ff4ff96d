//! What the agent itself keeps in the first page of control, beside the header: for which process the area was made, and
//! room for what a system call reads or writes.

use super::handlers::ACTION_BYTES;
use super::map::AreaMap;
use crate::engine::area::{
    Header, ISLANDS_MAX, Island, MAGIC, RING_BASE, RING_BYTES, RING_CONTROL, RING_CONTROL_BYTES, VERSION,
};
use crate::target;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// Offset in control: pid of the process that the area was made for.
const PROCESS_PID: usize = 0x800;
/// Offset in control: its start time.
const PROCESS_START: usize = 0x808;
/// Offset in control: of which pieces the kernel was told what children and core dumps are to have, a bit for each.
pub(super) const ADVISED: usize = 0x818;
/// Kernel's sigactions that there is room for: more than the engine has handlers.
pub(super) const ACTIONS_MAX: usize = 8;
/// Offset in control: kernel's sigactions that calls read.
pub(super) const NEW_ACTIONS: usize = 0x840;
/// Offset in control: those that calls write.
pub(super) const OLD_ACTIONS: usize = NEW_ACTIONS + ACTIONS_MAX * ACTION_BYTES;
/// Bytes of the first page that say what the area is.
pub(super) const HEADER_BYTES: usize = 0x810;

const _: () = assert!(size_of::<Header>() <= PROCESS_PID);
const _: () = assert!(PROCESS_START + 8 <= ADVISED && ADVISED + 8 <= NEW_ACTIONS && ISLANDS_MAX < 64);
const _: () = assert!(OLD_ACTIONS + ACTIONS_MAX * ACTION_BYTES <= RING_CONTROL);

/// A piece of the area that is mapped as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Control, tables and code, by the island's number.
    Island(usize),
    /// All rings.
    Rings,
}

impl Piece {
    fn bit(self) -> u64 {
        match self {
            Piece::Island(number) => 1 << number,
            Piece::Rings => 1 << ISLANDS_MAX,
        }
    }
}

/// Whether the kernel was told what children and core dumps are to have of it.
pub(super) fn is_advised(map: &AreaMap, of: Piece) -> bool {
    map.u64_at(ADVISED).load(Ordering::Acquire) & of.bit() != 0
}

/// It was told.
pub(super) fn set_advised(map: &AreaMap, of: Piece) {
    map.u64_at(ADVISED).fetch_or(of.bit(), Ordering::AcqRel);
}

/// What an area says of itself. Read from the process's own memory, so all of it may be wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Description {
    pub(super) is_complete: bool,
    pub(super) version: u32,
    pub(super) cpus: usize,
    pub(super) owner_pid: u64,
    pub(super) owner_start: u64,
    pub(super) descriptor: u64,
    pub(super) rings: Avma,
    pub(super) process: ProcessKey,
    pub(super) islands: [Option<Island>; ISLANDS_MAX],
}

impl Description {
    pub(super) fn parse(page: &[u8; HEADER_BYTES]) -> Description {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&page[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let half = |at: usize| (word(at & !7) >> (8 * (at & 7))) as u32;
        let count = word(offset_of!(Header, islands));
        Description {
            is_complete: word(offset_of!(Header, magic)) == MAGIC,
            version: half(offset_of!(Header, version)),
            cpus: half(offset_of!(Header, cpus)) as usize,
            owner_pid: word(offset_of!(Header, owner_pid)),
            owner_start: word(offset_of!(Header, owner_start)),
            descriptor: word(offset_of!(Header, descriptor)),
            rings: Avma(word(offset_of!(Header, rings))),
            process: ProcessKey { pid: word(PROCESS_PID) as u32, start_time: word(PROCESS_START) },
            islands: std::array::from_fn(|number| {
                let control = Avma(word(offset_of!(Header, island_at) + 8 * number));
                ((number as u64) < count && control.0 != 0).then_some(Island { number, control })
            }),
        }
    }
}

/// This agent.
pub(super) fn own_key() -> ProcessKey {
    let pid = std::process::id();
    ProcessKey { pid, start_time: target::start_time(pid).unwrap_or(0) }
}

fn set(map: &AreaMap, offset: usize, value: u64) {
    map.u64_at(offset).store(value, Ordering::Relaxed);
}

/// Writes all of the header but the magic.
pub(super) fn describe(map: &AreaMap, process: ProcessKey, descriptor: u64, rings: Avma) {
    map.u32_at(offset_of!(Header, version)).store(VERSION, Ordering::Relaxed);
    map.u32_at(offset_of!(Header, cpus)).store(map.cpus() as u32, Ordering::Relaxed);
    set(map, offset_of!(Header, descriptor), descriptor);
    set(map, offset_of!(Header, rings), rings.0);
    set(map, PROCESS_PID, u64::from(process.pid));
    set(map, PROCESS_START, process.start_time);
    for cpu in 0..map.cpus() {
        let base = rings.0 + (cpu * 2 * RING_BYTES) as u64;
        set(map, RING_CONTROL + cpu * RING_CONTROL_BYTES + RING_BASE, base);
    }
}

/// Says who has the area; nobody if it is `None`.
pub(super) fn set_owner(map: &AreaMap, owner: Option<ProcessKey>) {
    let owner = owner.unwrap_or(ProcessKey { pid: 0, start_time: 0 });
    set(map, offset_of!(Header, owner_start), owner.start_time);
    set(map, offset_of!(Header, owner_pid), u64::from(owner.pid));
}

/// Who has the area, as it says.
pub(super) fn owner(map: &AreaMap) -> (u64, u64) {
    let word = |offset| map.u64_at(offset).load(Ordering::Relaxed);
    (word(offset_of!(Header, owner_pid)), word(offset_of!(Header, owner_start)))
}

/// Says where an island is.
pub(super) fn set_island(map: &AreaMap, island: Island) {
    set(map, offset_of!(Header, island_at) + 8 * island.number, island.control.0);
    let count = map.u64_at(offset_of!(Header, islands));
    count.store(count.load(Ordering::Relaxed).max(island.number as u64 + 1), Ordering::Release);
}

/// The area is complete.
pub(super) fn complete(map: &AreaMap) {
    map.u64_at(offset_of!(Header, magic)).store(MAGIC, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_nonsense_is_described_without_harm() {
        let description = Description::parse(&[0xff; HEADER_BYTES]);
        assert!(!description.is_complete);
        assert_eq!(description.version, u32::MAX);
        assert!(description.islands.iter().flatten().all(|island| island.control == Avma(u64::MAX)));
        assert!(Description::parse(&[0; HEADER_BYTES]).islands.iter().all(Option::is_none));
    }
}

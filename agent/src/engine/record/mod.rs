//! The record: what a passage leaves in a ring, byte by byte.
//!
//! ```text
//! 0   commit       u64  position of the record in its ring, plus 1; stored last
//! 8   length       u32  bytes of the ring that the record occupies, a multiple of 8; stored first
//! 12  used         u32  bytes of them that hold the record, a multiple of 8
//! 16  kind         u32  which site, program and layout
//! 20  flags        u16  FLAG_*
//! 22  frames       u16  words of call stack, the site itself not among them
//! 24  tsc          u64  time stamp counter, read after the ring's bytes were reserved; 0 where the process may not
//! 32  thread       u64  thread id as the process itself sees it, 0 where it is not known
//! 40  goroutine    u64  meant where FLAG_GOROUTINE is set
//! 48  failed       u64.. one bit for each variable that may be unreadable, where there are such
//! ..  roots        each at a multiple of 8; the first word of one that failed is the address that could not be read
//! ..  frames       u64.. return addresses, innermost first; or, where the program copies the stack: rax to r15 by their
//!                  DWARF numbers, then the stack's words from rsp on
//! ..  chunks       until `used`, each with a header of 40 bytes:
//!                  address u64 | wanted u64 | got u32 | data u32 | window u32 | stride u32 | walk u32 | count u16 |
//!                  depth u16 (12 bits, and ITEM_*); then `got` bytes, padded to a multiple of 8
//! ```
//!
//! A chunk's header is a work item of the walk as well: `count` values of `stride` bytes, in the `window` bytes at `data`
//! of the record, are gone through by `walk`. An item without bytes of its own (ITEM_ALIAS) is only that.
//!
//! Invariants: a ring is zero where no record is, so what a passage does not write is zero. The process writes records and
//! may write anything: [`decode`] takes nothing for granted.
//!
//! Not here: who writes it ([`crate::engine::x86_64`]), and where in a ring it lies.

mod decode;
mod exercise;
mod layout;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "the in-process backend is being wired")]
pub(in crate::engine) use decode::{Record, RecordError, decode};
#[allow(unused_imports, reason = "the in-process backend is being wired")]
pub(in crate::engine) use layout::{LayoutError, RecordLayout, RootSlot};

/// Decodes arbitrary bytes as a record of an arbitrary program, and panics if the result is not within its bounds.
pub fn exercise(input: &[u8]) {
    exercise::exercise(input);
}

/// Offset of the commit word, u64: the record's position in its ring plus 1, stored last with release order.
pub(in crate::engine) const COMMIT: usize = 0;
/// Offset of the length, u32: ring bytes that the record occupies, a multiple of 8. Stored right after the reservation,
/// so that a record that is never committed can be skipped; it may shrink until the record is committed.
pub(in crate::engine) const LENGTH: usize = 8;
/// Offset of the number of bytes in use, u32.
pub(in crate::engine) const USED: usize = 12;
/// Offset of the kind, u32.
pub(in crate::engine) const KIND: usize = 16;
/// Offset of the flags, u16.
pub(in crate::engine) const FLAGS: usize = 20;
/// Offset of the number of stack words, u16.
pub(in crate::engine) const FRAMES: usize = 22;
/// Offset of the time stamp counter, u64; 0 where the process has forbidden itself to read it.
pub(in crate::engine) const TSC: usize = 24;
/// Offset of the thread id, u64.
pub(in crate::engine) const THREAD: usize = 32;
/// Offset of the goroutine id, u64.
pub(in crate::engine) const GOROUTINE: usize = 40;
/// Bytes of the fixed part.
pub(in crate::engine) const HEADER_BYTES: usize = 48;

/// There is a goroutine id.
pub(in crate::engine) const FLAG_GOROUTINE: u16 = 1;
/// The call stack goes on, or may go on. Of a copied stack: at most [`SHORT_STACK_WORDS`] of it were copied.
pub(in crate::engine) const FLAG_STACK_TRUNCATED: u16 = 2;
/// Words of a stack that are copied at most while the ring is filling up: the innermost frames, some four of them.
pub(in crate::engine) const SHORT_STACK_WORDS: u32 = 32;

/// Offset in a chunk's header of the address, u64; 0 for an item of bytes that have none.
pub(in crate::engine) const ITEM_ADDRESS: usize = 0;
/// Offset of the number of bytes that are there, u64.
pub(in crate::engine) const ITEM_WANTED: usize = 8;
/// Offset of the number of bytes that follow, u32.
pub(in crate::engine) const ITEM_GOT: usize = 16;
/// Offset of the place of its bytes in the record, u32.
pub(in crate::engine) const ITEM_DATA: usize = 20;
/// Offset of the number of its bytes, u32.
pub(in crate::engine) const ITEM_WINDOW: usize = 24;
/// Offset of the distance of its values, u32.
pub(in crate::engine) const ITEM_STRIDE: usize = 28;
/// Offset of what is to be done in each, u32: the writer's own.
pub(in crate::engine) const ITEM_WALK: usize = 32;
/// Offset of their number, u16.
pub(in crate::engine) const ITEM_COUNT: usize = 36;
/// Offset of the remaining depth and the flags, u16.
pub(in crate::engine) const ITEM_DEPTH: usize = 38;
/// Bytes of a chunk's header.
pub(in crate::engine) const ITEM_BYTES: usize = 40;
/// Bits of [`ITEM_DEPTH`] that are the depth.
pub(in crate::engine) const ITEM_DEPTH_MASK: u16 = 0x0fff;
/// In [`ITEM_DEPTH`]: the memory beyond what is there could not be read.
pub(in crate::engine) const ITEM_FAULT: u16 = 0x1000;
/// In [`ITEM_DEPTH`]: no chunk, but a work item of bytes that are there already.
pub(in crate::engine) const ITEM_ALIAS: u16 = 0x2000;

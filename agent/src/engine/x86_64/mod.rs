//! What is particular to x86-64: its registers, its breakpoint instruction, and how an instruction runs elsewhere.
//!
//! A port to another architecture has the same files with the same functions.

pub mod analysis;
pub(super) mod call_slot;
pub(super) mod codegen;
pub(super) mod counter;
pub(super) mod displaced;
pub(super) mod fallback;
pub(super) mod pads;
pub(super) mod registers;
pub(super) mod text;

/// `int3`: raises SIGTRAP with the instruction pointer behind it (Intel SDM volume 3, 6.15, interrupt 3).
pub(super) const BREAKPOINT: u8 = 0xcc;
/// `syscall` (Intel SDM volume 2).
pub(super) const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];
/// Longest instruction, in bytes.
pub(super) const INSTRUCTION_BYTES_MAX: usize = 15;
/// A slot is within this of its site, in bytes: what a 32-bit displacement reaches, less a slot and room for operands
/// that lie beyond the site.
pub(super) const REACH_BYTES: u64 = 0x7000_0000;

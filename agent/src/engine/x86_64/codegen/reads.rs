//! Reads: from a place of the program to bytes in a register or in memory.
//!
//! A read uses rax, and rsi for addresses; long ones rdi and rcx, too. It never touches memory beyond the bytes that are
//! asked for: the next page may not be there.

use super::CodegenError;
use super::emitter::{Emitter, Kept, Label};
use crate::capture::program::{Address, Piece, Place};
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, byte_ptr, dword_ptr, gpr8::*, gpr16::*, gpr32::*, gpr64::*, ptr, qword_ptr,
    word_ptr, xmmword_ptr,
};
use std::ops::ControlFlow;

/// Pieces up to this are copied word by word, longer ones by a loop, in bytes.
const UNROLLED_BYTES_MAX: u32 = 64;

/// A place in memory whose base is in a register now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) base: AsmRegister64,
    pub(super) displacement: i32,
}

impl Spot {
    pub(super) fn at(self, offset: i32) -> AsmMemoryOperand {
        self.base + (self.displacement + offset)
    }
}

/// What becomes of a read that cannot be done.
pub(super) trait Recovery {
    /// Where to go on when one of the `bytes` bytes at `spot` cannot be read; the registers are as at the read.
    fn fault(&mut self, emitter: &mut Emitter<'_>, spot: Spot, bytes: u32) -> Label;
    /// Where to go on when the place is none.
    fn nowhere(&mut self, emitter: &mut Emitter<'_>) -> Label;
}

/// Reads that cannot be done all go to the same place.
pub(super) struct All(pub(super) Label);

impl Recovery for All {
    fn fault(&mut self, _: &mut Emitter<'_>, _: Spot, _: u32) -> Label {
        self.0
    }

    fn nowhere(&mut self, _: &mut Emitter<'_>) -> Label {
        self.0
    }
}

/// Whether the bytes of a place can be told at all, whatever memory holds: a register that there is, and wide enough.
pub(super) fn is_somewhere(piece: &Piece) -> bool {
    match &piece.place {
        Place::Register(register) => match register.0 {
            0..=16 => piece.bytes <= 8,
            17..=32 => piece.bytes <= 16,
            _ => false,
        },
        Place::Memory(address) => address.base.is_none_or(|register| register.0 <= 16),
        Place::Constant(bytes) => piece.bytes as usize <= bytes.len(),
    }
}

/// Whether reading a piece can fail.
pub(super) fn may_fail(piece: &Piece) -> bool {
    !is_somewhere(piece) || matches!(piece.place, Place::Memory(_))
}

impl Emitter<'_> {
    /// Computes an address. The place's base is `into`, or a register that already holds it. `Break`: the place is none,
    /// and the code so far ends with a jump.
    pub(super) fn spot(
        &mut self,
        address: &Address,
        into: AsmRegister64,
        recovery: &mut dyn Recovery,
    ) -> Result<ControlFlow<(), Spot>, CodegenError> {
        let kept = match address.base.map(|register| self.kept(register)) {
            None => Kept::Known(0),
            Some(Some(Kept::Vector(_)) | None) => {
                let label = recovery.nowhere(self);
                let label = self.at(label);
                self.a.jmp(label)?;
                return Ok(ControlFlow::Break(()));
            }
            Some(Some(kept)) => kept,
        };
        let mut spot = self.sum(kept, address.offset, into)?;
        for &offset in &address.derefs {
            let label = recovery.fault(self, spot, 8);
            self.guard(spot, 8, label)?;
            self.may_fault(label);
            self.a.mov(into, qword_ptr(spot.at(0)))?;
            spot = self.sum(Kept::Live(into), offset, into)?;
        }
        Ok(ControlFlow::Continue(spot))
    }

    /// A base plus an offset. Room is left for the displacements within a piece.
    fn sum(&mut self, kept: Kept, offset: i64, into: AsmRegister64) -> Result<Spot, CodegenError> {
        const LARGEST: i64 = i32::MAX as i64 / 2;
        let short = (-LARGEST..=LARGEST).contains(&offset).then_some(offset as i32);
        match (kept, short) {
            (Kept::Live(base), Some(displacement)) => Ok(Spot { base, displacement }),
            (Kept::Above(above), Some(offset)) => Ok(Spot { base: rsp, displacement: above + offset }),
            (Kept::Known(value), _) => {
                self.load(into, value.wrapping_add_signed(offset))?;
                Ok(Spot { base: into, displacement: 0 })
            }
            (Kept::Stack(_), Some(displacement)) => {
                self.load_kept(into, kept)?;
                Ok(Spot { base: into, displacement })
            }
            (Kept::Live(base), None) if base == into => {
                let word = self.data(&offset.to_le_bytes());
                let word = self.at(word);
                self.a.add(into, qword_ptr(word))?;
                Ok(Spot { base: into, displacement: 0 })
            }
            (Kept::Live(base), None) => {
                self.load(into, offset as u64)?;
                self.a.add(into, base)?;
                Ok(Spot { base: into, displacement: 0 })
            }
            (Kept::Stack(slot), None) => {
                self.load(into, offset as u64)?;
                self.a.add(into, qword_ptr(rsp + slot))?;
                Ok(Spot { base: into, displacement: 0 })
            }
            (Kept::Above(above), None) => {
                self.load(into, offset.wrapping_add(i64::from(above)) as u64)?;
                self.a.add(into, rsp)?;
                Ok(Spot { base: into, displacement: 0 })
            }
            (Kept::Vector(_), _) => unreachable!("an address is not computed from a vector register"),
        }
    }

    /// Copies a piece to `to`; rax and rsi are used, for long pieces rdi and rcx as well. `Break` as for [`Self::spot`].
    pub(super) fn copy_piece(
        &mut self,
        piece: &Piece,
        to: Spot,
        recovery: &mut dyn Recovery,
    ) -> Result<ControlFlow<()>, CodegenError> {
        if !is_somewhere(piece) && !matches!(piece.place, Place::Memory(_)) {
            let label = recovery.nowhere(self);
            let label = self.at(label);
            self.a.jmp(label)?;
            return Ok(ControlFlow::Break(()));
        }
        match &piece.place {
            Place::Register(register) => match self.kept(*register) {
                Some(Kept::Vector(vector)) => match piece.bytes {
                    16 => self.a.movups(xmmword_ptr(to.at(0)), vector)?,
                    8 => self.a.movq(qword_ptr(to.at(0)), vector)?,
                    4 => self.a.movd(dword_ptr(to.at(0)), vector)?,
                    bytes @ 9..=15 => {
                        self.a.movq(qword_ptr(to.at(0)), vector)?;
                        self.load_upper_half(vector)?;
                        self.store_parts(to, 8, bytes - 8)?;
                    }
                    bytes => {
                        self.a.movq(rax, vector)?;
                        self.store_parts(to, 0, bytes)?;
                    }
                },
                Some(Kept::Live(register)) if piece.bytes == 8 => self.a.mov(qword_ptr(to.at(0)), register)?,
                Some(kept) => {
                    self.load_kept(rax, kept)?;
                    self.store_parts(to, 0, piece.bytes)?;
                }
                None => unreachable!("the place is somewhere"),
            },
            Place::Constant(bytes) => self.copy_constant(&bytes[..piece.bytes as usize], to)?,
            Place::Memory(address) => {
                let spot = match self.spot(address, rsi, recovery)? {
                    ControlFlow::Continue(spot) => spot,
                    ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
                };
                self.copy_memory(spot, piece.bytes, to, recovery)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn copy_memory(
        &mut self,
        from: Spot,
        bytes: u32,
        to: Spot,
        recovery: &mut dyn Recovery,
    ) -> Result<(), CodegenError> {
        if bytes == 0 {
            return Ok(());
        }
        let (mut from, mut to, mut rest) = (from, to, bytes);
        if self.is_guarded() {
            let label = recovery.fault(self, from, bytes);
            self.guard(from, bytes, label)?;
        }
        if bytes > UNROLLED_BYTES_MAX {
            let again = self.label();
            self.a.lea(rsi, ptr(from.at(0)))?;
            self.a.lea(rdi, ptr(to.at(0)))?;
            self.a.mov(ecx, bytes / 32)?;
            from = Spot { base: rsi, displacement: 0 };
            self.bind(again)?;
            let label = recovery.fault(self, from, 32);
            for word in 0..4 {
                self.may_fault(label);
                self.a.mov(rax, qword_ptr(rsi + word * 8))?;
                self.a.mov(qword_ptr(rdi + word * 8), rax)?;
            }
            self.a.add(rsi, 32)?;
            self.a.add(rdi, 32)?;
            self.a.dec(ecx)?;
            let again = self.at(again);
            self.a.jne(again)?;
            to = Spot { base: rdi, displacement: 0 };
            rest = bytes % 32;
        }
        if rest == 0 {
            return Ok(());
        }
        let label = recovery.fault(self, from, rest);
        let mut done = 0;
        while done < rest {
            let at = done as i32;
            self.may_fault(label);
            done += match rest - done {
                8.. => {
                    self.a.mov(rax, qword_ptr(from.at(at)))?;
                    self.a.mov(qword_ptr(to.at(at)), rax)?;
                    8
                }
                4..8 => {
                    self.a.mov(eax, dword_ptr(from.at(at)))?;
                    self.a.mov(dword_ptr(to.at(at)), eax)?;
                    4
                }
                2..4 => {
                    self.a.movzx(eax, word_ptr(from.at(at)))?;
                    self.a.mov(word_ptr(to.at(at)), ax)?;
                    2
                }
                _ => {
                    self.a.movzx(eax, byte_ptr(from.at(at)))?;
                    self.a.mov(byte_ptr(to.at(at)), al)?;
                    1
                }
            };
        }
        Ok(())
    }

    fn copy_constant(&mut self, bytes: &[u8], to: Spot) -> Result<(), CodegenError> {
        if bytes.len() as u32 <= UNROLLED_BYTES_MAX {
            for (index, word) in bytes.chunks(8).enumerate() {
                let mut value = [0; 8];
                value[..word.len()].copy_from_slice(word);
                self.load(rax, u64::from_le_bytes(value))?;
                self.store_parts(to, index as i32 * 8, word.len() as u32)?;
            }
            return Ok(());
        }
        let is_zero = bytes.iter().all(|&byte| byte == 0);
        let again = self.label();
        if is_zero {
            self.a.xor(eax, eax)?;
        } else {
            let data = self.data(bytes);
            let data = self.at(data);
            self.a.lea(rsi, ptr(data))?;
        }
        self.a.lea(rdi, ptr(to.at(0)))?;
        self.a.mov(ecx, bytes.len() as u32 / 8)?;
        self.bind(again)?;
        if !is_zero {
            self.a.mov(rax, qword_ptr(rsi))?;
            self.a.add(rsi, 8)?;
        }
        self.a.mov(qword_ptr(rdi), rax)?;
        self.a.add(rdi, 8)?;
        self.a.dec(ecx)?;
        let again = self.at(again);
        self.a.jne(again)?;
        let tail = &bytes[bytes.len() / 8 * 8..];
        self.copy_constant(tail, Spot { base: rdi, displacement: 0 })
    }

    /// Stores the lowest bytes of rax; what is in it then is undefined.
    pub(super) fn store_parts(&mut self, to: Spot, offset: i32, bytes: u32) -> Result<(), CodegenError> {
        let mut at = offset;
        let mut rest = bytes;
        while rest > 0 {
            let done = match rest {
                8.. => {
                    self.a.mov(qword_ptr(to.at(at)), rax)?;
                    8
                }
                4..8 => {
                    self.a.mov(dword_ptr(to.at(at)), eax)?;
                    4
                }
                2..4 => {
                    self.a.mov(word_ptr(to.at(at)), ax)?;
                    2
                }
                _ => {
                    self.a.mov(byte_ptr(to.at(at)), al)?;
                    1
                }
            };
            rest -= done;
            at += done as i32;
            if rest > 0 {
                self.a.shr(rax, done * 8)?;
            }
        }
        Ok(())
    }
}

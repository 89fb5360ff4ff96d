//! Integers of conditions: computed in 64 bits as far as that is enough, else in 128.

use super::CodegenError;
use super::condition::{Conditions, USES_RCX, USES_RDX, USES_RSI};
use super::emitter::{Kept, Label};
use super::reads::Spot;
use super::truth::Integer;
use crate::capture::program::{Arithmetic, Piece, Place};
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister32, AsmRegister64, byte_ptr, dword_ptr, gpr8::*, gpr16::*, gpr32::*, gpr64::*,
    qword_ptr, word_ptr,
};
use std::ops::ControlFlow;

impl Conditions<'_, '_> {
    /// Computes the lowest 64 bits into rax; all of the value if it is not wide.
    pub(super) fn narrow(&mut self, value: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        match value {
            Integer::Known(value) => self.e.load(rax, *value as u64),
            Integer::Read { pieces: [piece], bits, signed } => self.load_piece(rax, piece, *bits, *signed, unknown),
            Integer::Read { pieces, bits, signed } => {
                let slot = self.assemble(pieces, unknown)?;
                let from = Spot { base: rsp, displacement: self.place(slot) };
                self.give_back(1);
                self.extend_from(rax, from, *bits, *signed)
            }
            Integer::Compute { .. } if value.is_wide() => self.wide(value, unknown),
            Integer::Compute { operation, sides, bits, signed } => {
                let (left, right) = &**sides;
                let signed_sides = left.fits_signed() && right.fits_signed();
                let unsigned_sides = left.fits_unsigned() && right.fits_unsigned();
                match operation {
                    Arithmetic::Divide | Arithmetic::Remainder => {
                        if !signed_sides && !unsigned_sides {
                            return self.wide(value, unknown);
                        }
                        self.divide(*operation, left, right, signed_sides, unknown)?;
                    }
                    Arithmetic::ShiftLeft | Arithmetic::ShiftRight => {
                        if left.is_wide() && *operation == Arithmetic::ShiftRight || right.is_wide() {
                            return self.wide(value, unknown);
                        }
                        self.shift(*operation, left, right, unknown)?;
                    }
                    // The lowest bits of the result come from the lowest bits of both sides.
                    _ => self.combine(*operation, left, right, unknown)?,
                }
                self.wrap(*bits, *signed)
            }
        }
    }

    /// Computes both: left in rax, right in rcx, the lowest 64 bits of each.
    pub(super) fn pair(&mut self, left: &Integer<'_>, right: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        self.uses(USES_RCX);
        if right.is_leaf() {
            self.narrow(left, unknown)?;
            return self.leaf(rcx, right, unknown);
        }
        if left.is_leaf() {
            self.narrow(right, unknown)?;
            self.e.a.mov(rcx, rax)?;
            return self.leaf(rax, left, unknown);
        }
        let left_first = left.weight() >= right.weight();
        let (first, second) = if left_first { (left, right) } else { (right, left) };
        let slot = self.slot_after(first, unknown)?;
        self.narrow(second, unknown)?;
        self.give_back(1);
        let at = self.place(slot);
        if left_first {
            self.e.a.mov(rcx, rax)?;
            Ok(self.e.a.mov(rax, qword_ptr(rsp + at))?)
        } else {
            Ok(self.e.a.mov(rcx, qword_ptr(rsp + at))?)
        }
    }

    fn slot_after(&mut self, value: &Integer<'_>, unknown: Label) -> Result<super::condition::Slot, CodegenError> {
        self.narrow(value, unknown)?;
        let slot = self.slot();
        self.keep(slot)?;
        Ok(slot)
    }

    fn leaf(&mut self, into: AsmRegister64, value: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        match value {
            Integer::Known(value) => self.e.load(into, *value as u64),
            Integer::Read { pieces: [piece], bits, signed } => self.load_piece(into, piece, *bits, *signed, unknown),
            _ => unreachable!("only constants and single reads are leaves"),
        }
    }

    /// Loads 1, 2, 4 or 8 bytes as an integer; no other register changes.
    fn load_piece(
        &mut self,
        into: AsmRegister64,
        piece: &Piece,
        bits: u8,
        signed: bool,
        unknown: Label,
    ) -> Result<(), CodegenError> {
        match &piece.place {
            Place::Register(register) => match self.e.kept(*register) {
                Some(Kept::Stack(offset)) => {
                    self.extend_from(into, Spot { base: rsp, displacement: offset }, bits, signed)
                }
                Some(kept) => {
                    self.e.load_kept(into, kept)?;
                    self.extend(into, bits, signed)
                }
                None => self.jump(unknown),
            },
            Place::Memory(address) => {
                let mut recovery = self.recovery(unknown);
                match self.e.spot(address, into, &mut recovery)? {
                    ControlFlow::Continue(spot) => {
                        self.e.guard(spot, u32::from(bits / 8), unknown)?;
                        self.e.may_fault(unknown);
                        self.extend_from(into, spot, bits, signed)
                    }
                    ControlFlow::Break(()) => Ok(()),
                }
            }
            Place::Constant(bytes) => {
                let mut word = [0; 8];
                let bytes = &bytes[..usize::from(bits / 8)];
                word[..bytes.len()].copy_from_slice(bytes);
                self.e.load(into, u64::from_le_bytes(word))?;
                self.extend(into, bits, signed)
            }
        }
    }

    /// Loads from memory, in one instruction.
    fn extend_from(&mut self, into: AsmRegister64, from: Spot, bits: u8, signed: bool) -> Result<(), CodegenError> {
        let half = lower_half(into);
        let at = |ptr: fn(AsmMemoryOperand) -> AsmMemoryOperand| ptr(from.at(0));
        let a = &mut *self.e.a;
        match (bits, signed) {
            (8, false) => a.movzx(half, at(byte_ptr))?,
            (8, true) => a.movsx(into, at(byte_ptr))?,
            (16, false) => a.movzx(half, at(word_ptr))?,
            (16, true) => a.movsx(into, at(word_ptr))?,
            (32, false) => a.mov(half, at(dword_ptr))?,
            (32, true) => a.movsxd(into, at(dword_ptr))?,
            _ => a.mov(into, at(qword_ptr))?,
        }
        Ok(())
    }

    /// Makes the lowest bits of a register the whole of it.
    fn extend(&mut self, register: AsmRegister64, bits: u8, signed: bool) -> Result<(), CodegenError> {
        let half = lower_half(register);
        let is_rax = register == rax;
        let a = &mut *self.e.a;
        match (bits, signed) {
            (8, false) => a.movzx(half, if is_rax { al } else { cl })?,
            (8, true) => a.movsx(register, if is_rax { al } else { cl })?,
            (16, false) => a.movzx(half, if is_rax { ax } else { cx })?,
            (16, true) => a.movsx(register, if is_rax { ax } else { cx })?,
            (32, false) => a.mov(half, half)?,
            (32, true) => a.movsxd(register, half)?,
            _ => {}
        }
        Ok(())
    }

    /// Wraps rax at 1 to 64 bits.
    pub(super) fn wrap(&mut self, bits: u8, signed: bool) -> Result<(), CodegenError> {
        if matches!(bits, 8 | 16 | 32 | 64) {
            return self.extend(rax, bits, signed);
        }
        let unused = 64 - u32::from(bits);
        self.e.a.shl(rax, unused)?;
        let a = &mut *self.e.a;
        Ok((if signed { a.sar(rax, unused) } else { a.shr(rax, unused) })?)
    }

    fn combine(
        &mut self,
        operation: Arithmetic,
        left: &Integer<'_>,
        right: &Integer<'_>,
        unknown: Label,
    ) -> Result<(), CodegenError> {
        let short = match right {
            Integer::Known(value) => i32::try_from(*value as i64).ok(),
            _ => None,
        };
        if let Some(value) = short {
            self.narrow(left, unknown)?;
            let a = &mut *self.e.a;
            let done = match operation {
                Arithmetic::Add => a.add(rax, value),
                Arithmetic::Subtract => a.sub(rax, value),
                Arithmetic::Multiply => a.imul_3(rax, rax, value),
                Arithmetic::And => a.and(rax, value),
                Arithmetic::Or => a.or(rax, value),
                _ => a.xor(rax, value),
            };
            return Ok(done?);
        }
        self.pair(left, right, unknown)?;
        let a = &mut *self.e.a;
        let done = match operation {
            Arithmetic::Add => a.add(rax, rcx),
            Arithmetic::Subtract => a.sub(rax, rcx),
            Arithmetic::Multiply => a.imul_2(rax, rcx),
            Arithmetic::And => a.and(rax, rcx),
            Arithmetic::Or => a.or(rax, rcx),
            _ => a.xor(rax, rcx),
        };
        Ok(done?)
    }

    fn divide(
        &mut self,
        operation: Arithmetic,
        left: &Integer<'_>,
        right: &Integer<'_>,
        signed: bool,
        unknown: Label,
    ) -> Result<(), CodegenError> {
        self.uses(USES_RDX);
        self.pair(left, right, unknown)?;
        if !matches!(right, Integer::Known(value) if *value != 0) {
            self.e.a.test(rcx, rcx)?;
            let unknown = self.e.at(unknown);
            self.e.a.je(unknown)?;
        }
        let done = self.e.label();
        if signed {
            // The processor faults on the quotient of the smallest integer and -1, which wraps: divide by -1 by hand.
            if !matches!(right, Integer::Known(value) if *value != -1) {
                let divides = self.e.label();
                self.e.a.cmp(rcx, -1)?;
                let other = self.e.at(divides);
                self.e.a.jne(other)?;
                match operation {
                    Arithmetic::Divide => self.e.a.neg(rax)?,
                    _ => self.e.a.xor(eax, eax)?,
                }
                self.jump(done)?;
                self.e.bind(divides)?;
            }
            self.e.a.cqo()?;
            self.e.a.idiv(rcx)?;
        } else {
            self.e.a.xor(edx, edx)?;
            self.e.a.div(rcx)?;
        }
        if operation == Arithmetic::Remainder {
            self.e.a.mov(rax, rdx)?;
        }
        self.e.bind(done)
    }

    /// Shifts; a count beyond the width leaves zeroes, or the sign.
    fn shift(
        &mut self,
        operation: Arithmetic,
        left: &Integer<'_>,
        right: &Integer<'_>,
        unknown: Label,
    ) -> Result<(), CodegenError> {
        let by_sign = operation == Arithmetic::ShiftRight && left.fits_signed() && !left.fits_unsigned();
        if let Integer::Known(count) = right {
            self.narrow(left, unknown)?;
            let a = &mut *self.e.a;
            return match (u32::try_from(*count), operation) {
                (Err(_), _) if *count < 0 => self.jump(unknown),
                (Ok(count @ 0..64), Arithmetic::ShiftLeft) => Ok(a.shl(rax, count)?),
                (Ok(count @ 0..64), _) if by_sign => Ok(a.sar(rax, count)?),
                (Ok(count @ 0..64), _) => Ok(a.shr(rax, count)?),
                _ if by_sign => Ok(a.sar(rax, 63)?),
                _ => Ok(a.xor(eax, eax)?),
            };
        }
        self.pair(left, right, unknown)?;
        if !right.fits_unsigned() {
            self.e.a.test(rcx, rcx)?;
            let unknown = self.e.at(unknown);
            self.e.a.js(unknown)?;
        }
        let (shifts, done) = (self.e.label(), self.e.label());
        self.e.a.cmp(rcx, 63)?;
        let near = self.e.at(shifts);
        self.e.a.jbe(near)?;
        if by_sign {
            self.e.a.sar(rax, 63)?;
        } else {
            self.e.a.xor(eax, eax)?;
        }
        self.jump(done)?;
        self.e.bind(shifts)?;
        match operation {
            Arithmetic::ShiftLeft => self.e.a.shl(rax, cl)?,
            _ if by_sign => self.e.a.sar(rax, cl)?,
            _ => self.e.a.shr(rax, cl)?,
        }
        self.e.bind(done)
    }

    /// Puts pieces of up to 16 bytes together in a slot.
    pub(super) fn assemble(
        &mut self,
        pieces: &[Piece],
        unknown: Label,
    ) -> Result<super::condition::Slot, CodegenError> {
        self.uses(USES_RSI);
        let slot = self.slot();
        let mut displacement = self.place(slot);
        let mut recovery = self.recovery(unknown);
        for piece in pieces {
            let to = Spot { base: rsp, displacement };
            if self.e.copy_piece(piece, to, &mut recovery)?.is_break() {
                break;
            }
            displacement += piece.bytes as i32;
        }
        Ok(slot)
    }
}

fn lower_half(register: AsmRegister64) -> AsmRegister32 {
    if register == rax { eax } else { ecx }
}

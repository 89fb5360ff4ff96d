//! Integers of 128 bits: what the constants of a language are computed in, and where signed meets unsigned.
//!
//! Rarely needed, and so straightforward before it is fast. The value is in rdx (upper half) and rax.

use super::CodegenError;
use super::condition::{Conditions, Exits, Slot, USES_RBX, mirrored};
use super::emitter::Label;
use super::truth::Integer;
use crate::capture::program::{Arithmetic, Comparison};
use iced_x86::code_asm::{AsmMemoryOperand, gpr8::*, gpr32::*, gpr64::*, qword_ptr};

/// Where the halves of a value in a slot are.
#[derive(Clone, Copy)]
struct Halves {
    low: AsmMemoryOperand,
    high: AsmMemoryOperand,
}

impl Conditions<'_, '_> {
    /// Computes a value, extended to 128 bits.
    pub(super) fn extended(&mut self, value: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        self.uses(USES_RBX);
        if value.is_wide() {
            return self.wide(value, unknown);
        }
        self.narrow(value, unknown)?;
        self.extend_to_wide(value.fits_signed())
    }

    fn extend_to_wide(&mut self, signed: bool) -> Result<(), CodegenError> {
        let a = &mut *self.e.a;
        Ok((if signed { a.cqo() } else { a.xor(edx, edx) })?)
    }

    fn halves(&self, slot: Slot) -> Halves {
        let at = self.place(slot);
        Halves { low: qword_ptr(rsp + at), high: qword_ptr(rsp + (at + 8)) }
    }

    /// Computes both into slots, which the caller gives back.
    fn both(
        &mut self,
        left: &Integer<'_>,
        right: &Integer<'_>,
        unknown: Label,
    ) -> Result<(Halves, Halves), CodegenError> {
        let left_first = left.weight() >= right.weight();
        let order = if left_first { [left, right] } else { [right, left] };
        let mut slots = [None; 2];
        for (value, slot) in order.into_iter().zip(&mut slots) {
            self.extended(value, unknown)?;
            let halves = {
                let slot = self.slot();
                self.halves(slot)
            };
            self.store(halves)?;
            *slot = Some(halves);
        }
        match (slots, left_first) {
            ([Some(left), Some(right)], true) | ([Some(right), Some(left)], false) => Ok((left, right)),
            _ => unreachable!("both were stored"),
        }
    }

    fn store(&mut self, halves: Halves) -> Result<(), CodegenError> {
        self.e.a.mov(halves.low, rax)?;
        Ok(self.e.a.mov(halves.high, rdx)?)
    }

    fn load(&mut self, halves: Halves) -> Result<(), CodegenError> {
        self.e.a.mov(rax, halves.low)?;
        Ok(self.e.a.mov(rdx, halves.high)?)
    }

    fn negate(&mut self) -> Result<(), CodegenError> {
        self.e.a.neg(rax)?;
        self.e.a.adc(rdx, 0)?;
        Ok(self.e.a.neg(rdx)?)
    }

    /// Makes a value in a slot its magnitude.
    fn magnitude(&mut self, halves: Halves) -> Result<(), CodegenError> {
        let done = self.e.label();
        self.load(halves)?;
        self.e.a.test(rdx, rdx)?;
        let to = self.e.at(done);
        self.e.a.jns(to)?;
        self.negate()?;
        self.store(halves)?;
        self.e.bind(done)
    }

    pub(super) fn compare_wide(
        &mut self,
        comparison: Comparison,
        left: &Integer<'_>,
        right: &Integer<'_>,
        exits: Exits,
    ) -> Result<(), CodegenError> {
        let (left, right) = self.both(left, right, exits.unknown)?;
        self.give_back(2);
        let (comparison, left, right) = match comparison {
            Comparison::Greater | Comparison::LessOrEqual => (mirrored(comparison), right, left),
            _ => (comparison, left, right),
        };
        self.load(left)?;
        if matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            self.e.a.xor(rax, right.low)?;
            self.e.a.xor(rdx, right.high)?;
            self.e.a.or(rax, rdx)?;
        } else {
            self.e.a.cmp(rax, right.low)?;
            self.e.a.sbb(rdx, right.high)?;
        }
        self.branch(comparison, true, exits)
    }

    /// Computes a value that was found to be wide, or that is computed of such.
    pub(super) fn wide(&mut self, value: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        self.uses(USES_RBX);
        let (operation, sides, bits, signed) = match value {
            Integer::Compute { operation, sides, bits, signed } => (*operation, sides, *bits, *signed),
            Integer::Known(value) => {
                self.e.load(rax, *value as u64)?;
                return self.e.load(rdx, (*value >> 64) as u64);
            }
            Integer::Read { signed, .. } => {
                self.narrow(value, unknown)?;
                return self.extend_to_wide(*signed);
            }
        };
        let (left, right) = self.both(&sides.0, &sides.1, unknown)?;
        // Without a width, a result beyond 128 bits cannot be told.
        let checked = bits == 0;
        match operation {
            Arithmetic::Multiply if checked => self.multiply_checked(left, right, unknown)?,
            Arithmetic::Multiply => self.multiply(left, right)?,
            Arithmetic::Divide | Arithmetic::Remainder => {
                self.divide_wide(operation, left, right, checked, unknown)?;
            }
            Arithmetic::ShiftLeft => self.shift_left(left, right, checked, unknown)?,
            Arithmetic::ShiftRight => self.shift_right(left, right, unknown)?,
            _ => {
                self.load(left)?;
                let a = &mut *self.e.a;
                match operation {
                    Arithmetic::Add => {
                        a.add(rax, right.low)?;
                        a.adc(rdx, right.high)?;
                    }
                    Arithmetic::Subtract => {
                        a.sub(rax, right.low)?;
                        a.sbb(rdx, right.high)?;
                    }
                    Arithmetic::And => {
                        a.and(rax, right.low)?;
                        a.and(rdx, right.high)?;
                    }
                    Arithmetic::Or => {
                        a.or(rax, right.low)?;
                        a.or(rdx, right.high)?;
                    }
                    _ => {
                        a.xor(rax, right.low)?;
                        a.xor(rdx, right.high)?;
                    }
                }
                if checked && matches!(operation, Arithmetic::Add | Arithmetic::Subtract) {
                    let unknown = self.e.at(unknown);
                    self.e.a.jo(unknown)?;
                }
            }
        }
        self.give_back(2);
        self.wrap_wide(bits, signed)
    }

    fn wrap_wide(&mut self, bits: u8, signed: bool) -> Result<(), CodegenError> {
        match bits {
            0 | 128.. => Ok(()),
            1..=64 => {
                self.wrap(bits, signed)?;
                self.extend_to_wide(signed)
            }
            65..128 => {
                let unused = 128 - u32::from(bits);
                self.e.a.shl(rdx, unused)?;
                let a = &mut *self.e.a;
                Ok((if signed { a.sar(rdx, unused) } else { a.shr(rdx, unused) })?)
            }
        }
    }

    fn multiply(&mut self, left: Halves, right: Halves) -> Result<(), CodegenError> {
        let a = &mut *self.e.a;
        a.mov(rax, left.low)?;
        a.mul(right.low)?;
        a.mov(rcx, left.low)?;
        a.imul_2(rcx, right.high)?;
        a.add(rdx, rcx)?;
        a.mov(rcx, left.high)?;
        a.imul_2(rcx, right.low)?;
        Ok(a.add(rdx, rcx)?)
    }

    /// Magnitudes multiplied, with the carries looked at.
    fn multiply_checked(&mut self, left: Halves, right: Halves, unknown: Label) -> Result<(), CodegenError> {
        let [short, positive, negative, done] = [(); 4].map(|()| self.e.label());
        let overflow = self.e.at(unknown);
        self.e.a.mov(rbx, left.high)?;
        self.e.a.xor(rbx, right.high)?;
        self.magnitude(left)?;
        self.magnitude(right)?;
        self.e.a.cmp(left.high, 0)?;
        let to = self.e.at(short);
        self.e.a.je(to)?;
        self.e.a.cmp(right.high, 0)?;
        self.e.a.jne(overflow)?;
        self.e.bind(short)?;
        self.e.a.mov(rax, left.low)?;
        self.e.a.mul(right.low)?;
        self.e.a.mov(rsi, rax)?;
        self.e.a.mov(rdi, rdx)?;
        for (high, low) in [(left.high, right.low), (right.high, left.low)] {
            self.e.a.mov(rax, high)?;
            self.e.a.mul(low)?;
            // mul sets the overflow flag where the upper half is not zero.
            self.e.a.jo(overflow)?;
            self.e.a.add(rdi, rax)?;
            self.e.a.jc(overflow)?;
        }
        self.e.a.mov(rax, rsi)?;
        self.e.a.mov(rdx, rdi)?;
        self.e.a.test(rbx, rbx)?;
        let to = self.e.at(positive);
        self.e.a.jns(to)?;
        // Up to 2^127.
        self.e.a.test(rdx, rdx)?;
        let to = self.e.at(negative);
        self.e.a.jns(to)?;
        self.e.load(rcx, 1 << 63)?;
        self.e.a.cmp(rdx, rcx)?;
        self.e.a.jne(overflow)?;
        self.e.a.test(rax, rax)?;
        self.e.a.jne(overflow)?;
        self.e.bind(negative)?;
        self.negate()?;
        self.jump(done)?;
        self.e.bind(positive)?;
        self.e.a.test(rdx, rdx)?;
        self.e.a.js(overflow)?;
        self.e.bind(done)
    }

    /// Bit by bit, on magnitudes: never the processor's division, which faults.
    fn divide_wide(
        &mut self,
        operation: Arithmetic,
        left: Halves,
        right: Halves,
        checked: bool,
        unknown: Label,
    ) -> Result<(), CodegenError> {
        let [again, less, positive] = [(); 3].map(|()| self.e.label());
        let never = self.e.at(unknown);
        self.e.a.mov(rax, right.low)?;
        self.e.a.or(rax, right.high)?;
        self.e.a.je(never)?;
        let sign = {
            let slot = self.slot();
            self.halves(slot).low
        };
        self.e.a.mov(rax, left.high)?;
        if operation == Arithmetic::Divide {
            self.e.a.xor(rax, right.high)?;
        }
        self.e.a.mov(sign, rax)?;
        self.magnitude(right)?;
        self.magnitude(left)?;
        self.load(left)?;
        self.e.a.xor(esi, esi)?;
        self.e.a.xor(edi, edi)?;
        self.e.a.mov(ecx, 128)?;
        self.e.bind(again)?;
        self.e.a.add(rax, rax)?;
        self.e.a.adc(rdx, rdx)?;
        self.e.a.adc(rsi, rsi)?;
        self.e.a.adc(rdi, rdi)?;
        self.e.a.mov(rbx, rdi)?;
        self.e.a.cmp(rsi, right.low)?;
        self.e.a.sbb(rbx, right.high)?;
        let to = self.e.at(less);
        self.e.a.jb(to)?;
        self.e.a.sub(rsi, right.low)?;
        self.e.a.sbb(rdi, right.high)?;
        self.e.a.inc(rax)?;
        self.e.bind(less)?;
        self.e.a.dec(ecx)?;
        let to = self.e.at(again);
        self.e.a.jne(to)?;
        if operation == Arithmetic::Remainder {
            self.e.a.mov(rax, rsi)?;
            self.e.a.mov(rdx, rdi)?;
        }
        let done = self.e.label();
        self.e.a.cmp(sign, 0)?;
        let to = self.e.at(positive);
        self.e.a.jns(to)?;
        self.negate()?;
        self.jump(done)?;
        self.e.bind(positive)?;
        if checked && operation == Arithmetic::Divide {
            self.e.a.test(rdx, rdx)?;
            self.e.a.js(never)?;
        }
        self.give_back(1);
        self.e.bind(done)
    }

    /// Loads the count of a shift into rcx; jumps where it is beyond 127.
    fn count(&mut self, right: Halves, beyond: Label, unknown: Label) -> Result<(), CodegenError> {
        let (beyond, unknown) = (self.e.at(beyond), self.e.at(unknown));
        self.e.a.cmp(right.high, 0)?;
        self.e.a.js(unknown)?;
        self.e.a.jne(beyond)?;
        self.e.a.mov(rcx, right.low)?;
        self.e.a.cmp(rcx, 127)?;
        Ok(self.e.a.ja(beyond)?)
    }

    fn shift_left(&mut self, left: Halves, right: Halves, checked: bool, unknown: Label) -> Result<(), CodegenError> {
        let [beyond, short, done] = [(); 3].map(|()| self.e.label());
        let lost = self.e.at(unknown);
        self.load(left)?;
        self.count(right, beyond, unknown)?;
        self.e.a.shld(rdx, rax, cl)?;
        self.e.a.shl(rax, cl)?;
        self.e.a.test(cl, 64)?;
        let to = self.e.at(short);
        self.e.a.je(to)?;
        self.e.a.mov(rdx, rax)?;
        self.e.a.xor(eax, eax)?;
        self.e.bind(short)?;
        if checked {
            // Shifted back it must be what it was.
            let near = self.e.label();
            self.e.a.mov(rsi, rax)?;
            self.e.a.mov(rdi, rdx)?;
            self.e.a.shrd(rsi, rdi, cl)?;
            self.e.a.sar(rdi, cl)?;
            self.e.a.test(cl, 64)?;
            let to = self.e.at(near);
            self.e.a.je(to)?;
            self.e.a.mov(rsi, rdi)?;
            self.e.a.sar(rdi, 63)?;
            self.e.bind(near)?;
            self.e.a.cmp(rsi, left.low)?;
            self.e.a.jne(lost)?;
            self.e.a.cmp(rdi, left.high)?;
            self.e.a.jne(lost)?;
        }
        self.jump(done)?;
        self.e.bind(beyond)?;
        if checked {
            self.e.a.or(rax, rdx)?;
            self.e.a.jne(lost)?;
        }
        self.e.a.xor(eax, eax)?;
        self.e.a.xor(edx, edx)?;
        self.e.bind(done)
    }

    fn shift_right(&mut self, left: Halves, right: Halves, unknown: Label) -> Result<(), CodegenError> {
        let [beyond, done] = [(); 2].map(|()| self.e.label());
        self.load(left)?;
        self.count(right, beyond, unknown)?;
        self.e.a.shrd(rax, rdx, cl)?;
        self.e.a.sar(rdx, cl)?;
        self.e.a.test(cl, 64)?;
        let to = self.e.at(done);
        self.e.a.je(to)?;
        self.e.a.mov(rax, rdx)?;
        self.e.a.sar(rdx, 63)?;
        self.jump(done)?;
        self.e.bind(beyond)?;
        self.e.a.sar(rdx, 63)?;
        self.e.a.mov(rax, rdx)?;
        self.e.bind(done)
    }
}

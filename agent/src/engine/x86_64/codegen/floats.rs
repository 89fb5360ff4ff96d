//! Floats of conditions, compared as integers: no vector register and no floating-point state of the process is touched,
//! and no floating-point exception can be raised, whatever the process has unmasked.
//!
//! IEEE 754: as integers of sign and magnitude, all numbers are in order; both zeroes are equal, NaNs have no order.

use super::CodegenError;
use super::condition::{Conditions, Exits, USES_RBX, USES_RSI};
use super::emitter::Label;
use super::truth::{Float, Integer};
use crate::capture::program::Comparison;
use iced_x86::code_asm::{gpr8::*, gpr32::*, gpr64::*, ptr, qword_ptr};

/// Sign of a double.
const SIGN: u64 = 1 << 63;
/// Infinity; what is above it, without its sign, is no number.
const INFINITY: u64 = 0x7ff << 52;
/// What is added to the exponent of a single to make it a double's.
const REBIAS: u64 = (1023 - 127) << 52;
/// Bits of a single: infinity, and the smallest normal number.
const SINGLE_INFINITY: u32 = 0x7f80_0000;
const SINGLE_NORMAL: u32 = 0x0080_0000;

impl Conditions<'_, '_> {
    pub(super) fn floats(
        &mut self,
        comparison: Comparison,
        left: &Float<'_>,
        right: &Float<'_>,
        exits: Exits,
    ) -> Result<(), CodegenError> {
        self.uses(USES_RSI);
        // What has no order is only unequal.
        let unordered = if comparison == Comparison::NotEqual { exits.yes } else { exits.no };
        // Both are computed before either decides: one that cannot be told makes the test so.
        self.float(left, exits.unknown)?;
        let slot = self.slot();
        self.keep(slot)?;
        self.float(right, exits.unknown)?;
        self.ordered(unordered)?;
        self.e.a.mov(rdx, rax)?;
        let at = self.place(slot);
        self.give_back(1);
        self.e.a.mov(rax, qword_ptr(rsp + at))?;
        self.ordered(unordered)?;
        self.e.a.cmp(rax, rdx)?;
        self.branch(comparison, true, exits)
    }

    /// From the bits of a double in rax to an integer of the same order; NaNs leave. Uses rcx and rsi.
    fn ordered(&mut self, unordered: Label) -> Result<(), CodegenError> {
        let done = self.e.label();
        self.e.load(rsi, INFINITY << 1)?;
        self.e.a.lea(rcx, ptr(rax + rax))?;
        self.e.a.cmp(rcx, rsi)?;
        let to = self.e.at(unordered);
        self.e.a.ja(to)?;
        self.e.a.test(rax, rax)?;
        let to = self.e.at(done);
        self.e.a.jns(to)?;
        self.e.load(rcx, SIGN)?;
        self.e.a.sub(rcx, rax)?;
        self.e.a.mov(rax, rcx)?;
        self.e.bind(done)
    }

    /// The bits of a float as a double, into rax.
    fn float(&mut self, value: &Float<'_>, unknown: Label) -> Result<(), CodegenError> {
        match value {
            Float::Known(value) => self.e.load(rax, value.to_bits()),
            Float::Double(pieces) => self.narrow(&Integer::Read { pieces, bits: 64, signed: false }, unknown),
            Float::Single(pieces) => {
                self.narrow(&Integer::Read { pieces, bits: 32, signed: false }, unknown)?;
                self.widen()
            }
            Float::Integer(value) => self.convert(value, unknown),
        }
    }

    /// From the bits of a single in eax to those of the double of the same value, in rax. Uses rcx and rdx.
    fn widen(&mut self) -> Result<(), CodegenError> {
        let [done, normal, with_sign] = [(); 3].map(|()| self.e.label());
        // rdx: the sign, in its place. rax: the magnitude.
        self.e.a.mov(edx, eax)?;
        self.e.a.shr(edx, 31)?;
        self.e.a.shl(rdx, 63)?;
        self.e.a.and(eax, 0x7fff_ffff)?;
        self.e.a.cmp(eax, SINGLE_NORMAL as i32)?;
        let to = self.e.at(normal);
        self.e.a.jae(to)?;
        self.e.a.test(eax, eax)?;
        let to = self.e.at(with_sign);
        self.e.a.je(to)?;
        // Below the normal numbers: mantissa * 2^-149. Its highest bit becomes the implied one.
        self.e.a.bsr(ecx, eax)?;
        self.e.a.xor(ecx, 31)?;
        self.e.a.add(ecx, 21)?;
        self.e.a.shl(rax, cl)?;
        // The highest bit is bit 52 now, and counts as one in the exponent: 2^(52 - shift) of 2^-149.
        self.e.a.neg(ecx)?;
        self.e.a.add(ecx, 1023 - 149 + 52 - 1)?;
        self.e.a.shl(rcx, 52)?;
        self.e.a.add(rax, rcx)?;
        self.jump(with_sign)?;
        self.e.bind(normal)?;
        self.e.a.cmp(eax, SINGLE_INFINITY as i32)?;
        // The flags outlive the moves.
        self.e.load(rcx, REBIAS)?;
        let finite = self.e.label();
        let to = self.e.at(finite);
        self.e.a.jb(to)?;
        self.e.load(rcx, REBIAS * 2)?;
        self.e.bind(finite)?;
        self.e.a.shl(rax, 29)?;
        self.e.a.add(rax, rcx)?;
        self.e.bind(with_sign)?;
        self.e.a.or(rax, rdx)?;
        self.e.bind(done)
    }

    /// The double nearest to an integer, halves to even; into rax.
    fn convert(&mut self, value: &Integer<'_>, unknown: Label) -> Result<(), CodegenError> {
        self.uses(USES_RBX);
        self.extended(value, unknown)?;
        let [positive, short, exact, done, no_carry] = [(); 5].map(|()| self.e.label());
        // rbx: the sign. rdx, rax: the magnitude. rsi: the exponent of the highest bit of rax when it is bit 63.
        self.e.a.mov(rbx, rdx)?;
        self.e.a.shr(rbx, 63)?;
        let to = self.e.at(positive);
        self.e.a.je(to)?;
        self.e.a.neg(rax)?;
        self.e.a.adc(rdx, 0)?;
        self.e.a.neg(rdx)?;
        self.e.bind(positive)?;
        self.e.a.shl(rbx, 63)?;
        self.e.load(rsi, 63 + 1023)?;
        self.e.a.test(rdx, rdx)?;
        let to = self.e.at(short);
        self.e.a.je(to)?;
        // More than 64 bits: the lowest are kept as one bit that says whether any is set.
        self.e.a.bsr(rcx, rdx)?;
        self.e.a.inc(ecx)?;
        self.e.a.add(esi, ecx)?;
        self.e.a.mov(rdi, rax)?;
        // A count of 64 shifts nothing: the upper word is all there is then.
        self.e.a.shrd(rax, rdx, cl)?;
        self.e.a.cmp(ecx, 64)?;
        self.e.a.cmove(rax, rdx)?;
        self.e.a.neg(ecx)?;
        self.e.a.add(ecx, 64)?;
        self.e.a.shl(rdi, cl)?;
        let to = self.e.at(exact);
        self.e.a.test(rdi, rdi)?;
        self.e.a.je(to)?;
        self.e.a.or(rax, 1)?;
        self.jump(exact)?;
        self.e.bind(short)?;
        self.e.a.test(rax, rax)?;
        let to = self.e.at(done);
        self.e.a.je(to)?;
        self.e.a.bsr(rcx, rax)?;
        self.e.a.xor(ecx, 63)?;
        self.e.a.sub(esi, ecx)?;
        self.e.a.shl(rax, cl)?;
        self.e.bind(exact)?;
        // Bit 63 is set. 53 bits stay; the 11 below decide: above a half up, a half to even.
        self.e.a.mov(rcx, rax)?;
        self.e.a.shr(rax, 11)?;
        self.e.a.and(ecx, 0x7ff)?;
        self.e.a.mov(edi, eax)?;
        self.e.a.and(edi, 1)?;
        self.e.a.add(ecx, edi)?;
        self.e.a.cmp(ecx, 0x400)?;
        let to = self.e.at(no_carry);
        self.e.a.jbe(to)?;
        self.e.a.inc(rax)?;
        self.e.bind(no_carry)?;
        // The implied bit, or the carry into it, counts in the exponent.
        self.e.a.dec(esi)?;
        self.e.a.shl(rsi, 52)?;
        self.e.a.add(rax, rsi)?;
        self.e.a.or(rax, rbx)?;
        self.e.bind(done)
    }
}

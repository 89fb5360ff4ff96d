//! Strings of conditions: compared by bytes, as far as it takes to tell.

use super::CodegenError;
use super::condition::{Conditions, Exits, USES_RBX};
use super::reads::Spot;
use super::truth::Text;
use crate::capture::program::Comparison;
use crate::capture::test::TEXT_BYTES_MAX;
use iced_x86::code_asm::{AsmRegister64, byte_ptr, gpr8::*, gpr32::*, gpr64::*, ptr, qword_ptr};

impl Conditions<'_, '_> {
    pub(super) fn texts(
        &mut self,
        comparison: Comparison,
        left: &Text<'_>,
        right: &Text<'_>,
        exits: Exits,
    ) -> Result<(), CodegenError> {
        self.uses(USES_RBX);
        // Both headers are read before the registers that they come from are overwritten.
        let slots = [left, right].map(|text| match text {
            Text::Known(_) => Ok(None),
            Text::Read(pieces) => self.assemble(pieces, exits.unknown).map(Some),
        });
        let [left_slot, right_slot] = slots;
        let (left_slot, right_slot) = (left_slot?, right_slot?);
        for (text, slot, at, length) in [(left, left_slot, rsi, rcx), (right, right_slot, rdi, rdx)] {
            match (text, slot) {
                (Text::Known(bytes), _) => {
                    let data = self.e.data(bytes);
                    let data = self.e.at(data);
                    self.e.a.lea(at, ptr(data))?;
                    self.e.load(length, bytes.len() as u64)?;
                }
                (Text::Read(_), Some(slot)) => {
                    let place = self.place(slot);
                    self.e.a.mov(at, qword_ptr(rsp + place))?;
                    self.e.a.mov(length, qword_ptr(rsp + (place + 8)))?;
                    self.e.a.test(length, length)?;
                    let unknown = self.e.at(exits.unknown);
                    self.e.a.js(unknown)?;
                    self.give_back(1);
                }
                (Text::Read(_), None) => unreachable!("every string that is read has a slot"),
            }
        }
        let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if is_equality {
            let unequal = if comparison == Comparison::Equal { exits.no } else { exits.yes };
            self.e.a.cmp(rcx, rdx)?;
            let unequal = self.e.at(unequal);
            self.e.a.jne(unequal)?;
        }
        for (text, length) in [(left, rcx), (right, rdx)] {
            if matches!(text, Text::Read(_)) {
                self.e.a.cmp(length, TEXT_BYTES_MAX as i32)?;
                let unknown = self.e.at(exits.unknown);
                self.e.a.ja(unknown)?;
            }
        }
        self.e.a.mov(rbx, rcx)?;
        if !is_equality {
            self.e.a.cmp(rdx, rcx)?;
            self.e.a.cmovb(rbx, rdx)?;
        }
        self.compare_bytes(rsi, rdi, comparison, exits)
    }

    /// Compares ebx bytes; where all are equal, the lengths in rcx and rdx.
    fn compare_bytes(
        &mut self,
        left: AsmRegister64,
        right: AsmRegister64,
        comparison: Comparison,
        exits: Exits,
    ) -> Result<(), CodegenError> {
        let [words, bytes, equal, differ] = [(); 4].map(|()| self.e.label());
        let at = |conditions: &Self, label| conditions.e.at(label);
        if self.e.is_guarded() {
            // The page of the first byte; each next one where it is come to.
            self.e.a.test(ebx, ebx)?;
            let to = at(self, equal);
            self.e.a.je(to)?;
            for side in [left, right] {
                self.e.guard(Spot { base: side, displacement: 0 }, 1, exits.unknown)?;
            }
        }
        self.e.bind(words)?;
        self.e.a.cmp(ebx, 8)?;
        let to = at(self, bytes);
        self.e.a.jb(to)?;
        // A word may reach into a page that is not there: then byte by byte, as where it differs.
        for side in [left, right] {
            self.e.guard_next_page(side, bytes)?;
        }
        self.e.may_fault(bytes);
        self.e.a.mov(rax, qword_ptr(left))?;
        self.e.may_fault(bytes);
        self.e.a.cmp(rax, qword_ptr(right))?;
        let to = at(self, bytes);
        self.e.a.jne(to)?;
        self.e.a.add(left, 8)?;
        self.e.a.add(right, 8)?;
        self.e.a.sub(ebx, 8)?;
        self.jump(words)?;
        self.e.bind(bytes)?;
        self.e.a.test(ebx, ebx)?;
        let to = at(self, equal);
        self.e.a.je(to)?;
        for side in [left, right] {
            self.e.guard_first_byte(side, exits.unknown)?;
        }
        self.e.may_fault(exits.unknown);
        self.e.a.movzx(eax, byte_ptr(left))?;
        self.e.may_fault(exits.unknown);
        self.e.a.cmp(al, byte_ptr(right))?;
        let to = at(self, differ);
        self.e.a.jne(to)?;
        self.e.a.inc(left)?;
        self.e.a.inc(right)?;
        self.e.a.dec(ebx)?;
        self.jump(bytes)?;
        self.e.bind(equal)?;
        self.e.a.cmp(rcx, rdx)?;
        self.e.bind(differ)?;
        self.branch(comparison, false, exits)
    }
}

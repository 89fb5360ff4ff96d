//! Conditions: jumps for true, false and cannot be told.
//!
//! A condition uses rax and, as far as it needs them, the first of the registers that a body may save, with variables
//! below them; a comparison of one number with a constant needs nothing but rax. What it needs is found by writing it
//! once to nowhere.

use super::CodegenError;
use super::emitter::{Emitter, Frame, Label};
use super::reads::All;
use super::truth::{Integer, Truth};
use crate::capture::program::Comparison;
use iced_x86::code_asm::{CodeAssembler, byte_ptr, gpr64::*, qword_ptr};
use riptrace_protocol::ids::Avma;

/// Registers of the process that a condition overwrites, by the number of [`super::emitter::SAVED`] that must be saved.
pub(super) const USES_RCX: usize = 1;
pub(super) const USES_RDX: usize = 2;
pub(super) const USES_RSI: usize = 3;
pub(super) const USES_RBX: usize = 5;

/// What a condition needs on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    saved: usize,
    /// Flags: one byte for each `and` or `or` within another whose unknown parts are remembered.
    flags: u32,
    /// Values of 16 bytes.
    slots: u32,
}

impl Need {
    /// What no condition exceeds: for writing it to nowhere.
    const ANYTHING: Need = Need { saved: USES_RBX, flags: 256, slots: 256 };

    pub(super) fn frame(self) -> Frame {
        Frame { saved: self.saved, locals: self.flags.next_multiple_of(8) + self.slots * 16 }
    }
}

/// Where a condition leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exits {
    pub(super) yes: Label,
    pub(super) no: Label,
    pub(super) unknown: Label,
}

/// Writes one condition.
pub(super) struct Conditions<'e, 'a> {
    pub(super) e: &'e mut Emitter<'a>,
    given: Need,
    need: Need,
    flags: u32,
    slots: u32,
    /// Code off the path: remembers that a part cannot be told.
    aside: Vec<(Label, u32, Label)>,
}

/// A value of 16 bytes on the stack, by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(u32);

/// What a condition needs on the stack.
pub(super) fn need(truth: &Truth<'_>) -> Result<Need, CodegenError> {
    let mut nowhere = CodeAssembler::new(64)?;
    let mut emitter = Emitter::new(&mut nowhere, Avma(0), false, None);
    emitter.stack_is(Need::ANYTHING.frame());
    let exits = Exits { yes: emitter.label(), no: emitter.label(), unknown: emitter.label() };
    let mut conditions = Conditions::new(&mut emitter, Need::ANYTHING);
    conditions.test(truth, exits)?;
    let mut need = conditions.need;
    if need.flags + need.slots > 0 {
        // Who counts needs rcx, and registers lie above the variables.
        need.saved = need.saved.max(USES_RCX);
    }
    Ok(need)
}

/// Writes a condition; all that it needs is on the stack. It falls through to nowhere.
pub(super) fn emit(e: &mut Emitter<'_>, truth: &Truth<'_>, need: Need, exits: Exits) -> Result<(), CodegenError> {
    let mut conditions = Conditions::new(e, need);
    conditions.test(truth, exits)?;
    for (label, flag, then) in std::mem::take(&mut conditions.aside) {
        conditions.e.bind(label)?;
        let flag = conditions.flag(flag);
        conditions.e.a.mov(byte_ptr(rsp + flag), 1)?;
        let then = conditions.e.at(then);
        conditions.e.a.jmp(then)?;
    }
    Ok(())
}

impl<'e, 'a> Conditions<'e, 'a> {
    fn new(e: &'e mut Emitter<'a>, given: Need) -> Self {
        let need = Need { saved: 0, flags: 0, slots: 0 };
        Conditions { e, given, need, flags: 0, slots: 0, aside: Vec::new() }
    }

    /// Registers are overwritten from here on.
    pub(super) fn uses(&mut self, registers: usize) {
        self.need.saved = self.need.saved.max(registers);
        debug_assert!(registers <= self.given.saved, "a register of the process would be lost");
    }

    pub(super) fn slot(&mut self) -> Slot {
        self.slots += 1;
        self.need.slots = self.need.slots.max(self.slots);
        debug_assert!(self.slots <= self.given.slots, "variables would overlap");
        Slot(self.slots - 1)
    }

    /// The slots that were taken last are free again.
    pub(super) fn give_back(&mut self, slots: u32) {
        self.slots -= slots;
    }

    /// Offset of a slot from rsp.
    pub(super) fn place(&self, slot: Slot) -> i32 {
        (self.given.flags.next_multiple_of(8) + slot.0 * 16) as i32
    }

    fn flag(&self, flag: u32) -> i32 {
        flag as i32
    }

    pub(super) fn jump(&mut self, to: Label) -> Result<(), CodegenError> {
        let to = self.e.at(to);
        Ok(self.e.a.jmp(to)?)
    }

    pub(super) fn test(&mut self, truth: &Truth<'_>, exits: Exits) -> Result<(), CodegenError> {
        match truth {
            Truth::Known(true) => self.jump(exits.yes),
            Truth::Known(false) => self.jump(exits.no),
            Truth::Unknown => self.jump(exits.unknown),
            Truth::Not(inner) => self.test(inner, Exits { yes: exits.no, no: exits.yes, unknown: exits.unknown }),
            Truth::All(parts) => self.chain(true, parts, exits),
            Truth::Any(parts) => self.chain(false, parts, exits),
            Truth::Bool(value) if value.is_wide() => {
                self.wide(value, exits.unknown)?;
                self.e.a.or(rax, rdx)?;
                self.branch(Comparison::NotEqual, false, exits)
            }
            Truth::Bool(value) => {
                self.narrow(value, exits.unknown)?;
                self.e.a.test(rax, rax)?;
                self.branch(Comparison::NotEqual, false, exits)
            }
            Truth::Integer(comparison, left, right) => self.integers(*comparison, left, right, exits),
            Truth::Float(comparison, left, right) => self.floats(*comparison, left, right, exits),
            Truth::Text(comparison, left, right) => self.texts(*comparison, left, right, exits),
        }
    }

    /// All parts must hold, or any: the first part that decides ends it. A part that cannot be told is remembered, as a
    /// later one may decide.
    fn chain(&mut self, all: bool, parts: &[Truth<'_>], exits: Exits) -> Result<(), CodegenError> {
        let first_unknown = parts.iter().position(Truth::may_be_unknown).unwrap_or(parts.len());
        let remembers = first_unknown + 1 < parts.len();
        let flag = self.flags;
        if remembers {
            self.flags += 1;
            self.need.flags = self.need.flags.max(self.flags);
            let flag = self.flag(flag);
            self.e.a.mov(byte_ptr(rsp + flag), 0)?;
        }
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let next = self.e.label();
            let go_on = if is_last && !remembers { if all { exits.yes } else { exits.no } } else { next };
            let unknown = match is_last {
                true => exits.unknown,
                false if part.may_be_unknown() => {
                    let label = self.e.label();
                    self.aside.push((label, flag, next));
                    label
                }
                false => exits.unknown,
            };
            let part_exits = match all {
                true => Exits { yes: go_on, no: exits.no, unknown },
                false => Exits { yes: exits.yes, no: go_on, unknown },
            };
            self.test(part, part_exits)?;
            self.e.bind(next)?;
        }
        if remembers {
            self.flags -= 1;
            let flag = self.flag(flag);
            self.e.a.cmp(byte_ptr(rsp + flag), 0)?;
            let unknown = self.e.at(exits.unknown);
            self.e.a.jne(unknown)?;
            self.jump(if all { exits.yes } else { exits.no })?;
        }
        Ok(())
    }

    fn integers(
        &mut self,
        comparison: Comparison,
        left: &Integer<'_>,
        right: &Integer<'_>,
        exits: Exits,
    ) -> Result<(), CodegenError> {
        if left.is_wide() || right.is_wide() {
            return self.compare_wide(comparison, left, right, exits);
        }
        let signed = left.fits_signed() && right.fits_signed();
        if signed || (left.fits_unsigned() && right.fits_unsigned()) {
            // A short constant is part of the instruction.
            for (value, constant, comparison) in [(left, right, comparison), (right, left, mirrored(comparison))] {
                let Integer::Known(known) = constant else { continue };
                let Ok(short) = i32::try_from(*known) else { continue };
                if !signed && short < 0 {
                    continue;
                }
                self.narrow(value, exits.unknown)?;
                self.e.a.cmp(rax, short)?;
                return self.branch(comparison, signed, exits);
            }
            self.pair(left, right, exits.unknown)?;
            self.e.a.cmp(rax, rcx)?;
            return self.branch(comparison, signed, exits);
        }
        // One may be negative, the other beyond all signed integers.
        self.pair(left, right, exits.unknown)?;
        let (negative, is_less) = if left.fits_signed() { (rax, true) } else { (rcx, false) };
        self.e.a.test(negative, negative)?;
        let decided = match (comparison, is_less) {
            (Comparison::Equal, _) => exits.no,
            (Comparison::NotEqual, _) => exits.yes,
            (Comparison::Less | Comparison::LessOrEqual, true) => exits.yes,
            (Comparison::Greater | Comparison::GreaterOrEqual, false) => exits.yes,
            _ => exits.no,
        };
        let decided = self.e.at(decided);
        self.e.a.js(decided)?;
        self.e.a.cmp(rax, rcx)?;
        self.branch(comparison, false, exits)
    }

    /// Jumps by the flags of a comparison.
    pub(super) fn branch(&mut self, comparison: Comparison, signed: bool, exits: Exits) -> Result<(), CodegenError> {
        let (yes, no) = (self.e.at(exits.yes), exits.no);
        let a = &mut *self.e.a;
        match (comparison, signed) {
            (Comparison::Equal, _) => a.je(yes)?,
            (Comparison::NotEqual, _) => a.jne(yes)?,
            (Comparison::Less, true) => a.jl(yes)?,
            (Comparison::LessOrEqual, true) => a.jle(yes)?,
            (Comparison::Greater, true) => a.jg(yes)?,
            (Comparison::GreaterOrEqual, true) => a.jge(yes)?,
            (Comparison::Less, false) => a.jb(yes)?,
            (Comparison::LessOrEqual, false) => a.jbe(yes)?,
            (Comparison::Greater, false) => a.ja(yes)?,
            (Comparison::GreaterOrEqual, false) => a.jae(yes)?,
        }
        self.jump(no)
    }

    /// Reads that fail make the test unknown.
    pub(super) fn recovery(&self, unknown: Label) -> All {
        All(unknown)
    }

    /// Stores rax.
    pub(super) fn keep(&mut self, slot: Slot) -> Result<(), CodegenError> {
        let at = self.place(slot);
        Ok(self.e.a.mov(qword_ptr(rsp + at), rax)?)
    }
}

/// The comparison with its sides exchanged.
pub(super) fn mirrored(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}

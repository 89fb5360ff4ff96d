//! The emitter: an assembler that knows how deep the stack is, which instructions may fault, and where the process's
//! registers are.
//!
//! Not here: what a program means. Everything that knows about a capture is in the modules beside it.

use super::guard::{Guard, Guards};
use super::{Body, CodegenError};
use crate::capture::program::Register;
use crate::capture::registers::{RIP, RSP, XMM0};
use iced_x86::code_asm::{
    AsmRegister64, AsmRegisterXmm, CodeAssembler, CodeLabel, gpr64::*, ptr, qword_ptr, registers::xmm::*,
};
use iced_x86::{Code, Instruction, MemoryOperand};
use riptrace_protocol::ids::Avma;

impl From<iced_x86::IcedError> for CodegenError {
    fn from(error: iced_x86::IcedError) -> CodegenError {
        CodegenError::Assembler(error.to_string())
    }
}

/// Bytes that a pad has pushed before a body begins: rax and the flags.
const PAD_PUSHED: u32 = 16;
/// Bytes of the red zone of native code (System V ABI, AMD64 supplement, 3.2.2).
const RED_ZONE: u32 = 128;

/// A place in the code. It may be bound after it was jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Registers by DWARF number that a body may save, in the order of their pushes.
pub(super) const SAVED: [(u16, AsmRegister64); 13] = [
    (2, rcx),
    (1, rdx),
    (4, rsi),
    (5, rdi),
    (3, rbx),
    (8, r8),
    (9, r9),
    (10, r10),
    (11, r11),
    (12, r12),
    (13, r13),
    (14, r14),
    (15, r15),
];

/// Where the value that a register of the process had at the site is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kept {
    /// In the register itself.
    Live(AsmRegister64),
    /// On the stack, at this offset from rsp.
    Stack(i32),
    /// It is rsp plus this: the stack pointer.
    Above(i32),
    /// It is this: the instruction pointer.
    Known(u64),
    /// In the vector register itself.
    Vector(AsmRegisterXmm),
}

/// An assembler for one body.
pub(super) struct Emitter<'a> {
    pub(super) a: &'a mut CodeAssembler,
    labels: Vec<CodeLabel>,
    fixups: Vec<(usize, Label)>,
    depths: Vec<(usize, u32)>,
    depth: u32,
    depth_max: u32,
    /// How many of [`SAVED`] are on the stack.
    saved: usize,
    /// Bytes below them that hold the body's own variables.
    locals: u32,
    red_zone: bool,
    site: Avma,
    /// Constants that lie behind the code.
    data: Vec<(Label, Vec<u8>)>,
    /// `None`: a load that faults is led on.
    pub(super) guards: Option<Guards>,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(a: &'a mut CodeAssembler, site: Avma, red_zone: bool, guard: Option<&Guard>) -> Emitter<'a> {
        let depths = vec![(a.instructions().len(), 0)];
        Emitter {
            a,
            labels: Vec::new(),
            fixups: Vec::new(),
            depths,
            depth: 0,
            depth_max: 0,
            saved: 0,
            locals: 0,
            red_zone,
            site,
            data: Vec::new(),
            guards: guard.map(Guards::new),
        }
    }

    /// Bytes that lie behind the code: where they will be.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Label {
        if let Some((label, _)) = self.data.iter().find(|(_, known)| known == bytes) {
            return *label;
        }
        let label = self.label();
        self.data.push((label, bytes.to_vec()));
        label
    }

    /// Writes the constants; nothing falls into them.
    pub(super) fn write_data(&mut self) -> Result<(), CodegenError> {
        for (label, bytes) in std::mem::take(&mut self.data) {
            self.bind(label)?;
            self.a.db(&bytes)?;
        }
        Ok(())
    }

    /// Most bytes that were pushed anywhere so far.
    pub(super) fn depth_max(&self) -> u32 {
        self.depth_max
    }

    pub(super) fn finish(self) -> Body {
        let fixups = self.fixups.iter().map(|&(index, label)| (index, self.labels[label.0])).collect();
        Body { fixups, depths: self.depths }
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(self.a.create_label());
        Label(self.labels.len() - 1)
    }

    /// For an instruction that jumps to the label or takes its address.
    pub(super) fn at(&self, label: Label) -> CodeLabel {
        self.labels[label.0]
    }

    /// The label is here. Several may be: each has an instruction of no bytes of its own.
    pub(super) fn bind(&mut self, label: Label) -> Result<(), CodegenError> {
        self.a.set_label(&mut self.labels[label.0])?;
        Ok(self.a.zero_bytes()?)
    }

    /// The next instruction may fault; then it goes on at the label, where the stack must be as deep.
    pub(super) fn may_fault(&mut self, recovery: Label) {
        self.fixups.push((self.a.instructions().len(), recovery));
    }

    /// From here on the stack holds `saved` registers and `locals` bytes of variables: said where code is reached by a
    /// jump.
    pub(super) fn stack_is(&mut self, frame: Frame) {
        (self.saved, self.locals) = (frame.saved, frame.locals);
        self.depth_changed();
    }

    /// What is on the stack.
    pub(super) fn frame(&self) -> Frame {
        Frame { saved: self.saved, locals: self.locals }
    }

    fn depth_changed(&mut self) {
        let depth = self.saved as u32 * 8 + self.locals;
        if depth != self.depth {
            self.depth = depth;
            self.depth_max = self.depth_max.max(depth);
            let index = self.a.instructions().len();
            match self.depths.last_mut() {
                Some(last) if last.0 == index => last.1 = depth,
                _ => self.depths.push((index, depth)),
            }
        }
    }

    /// Pushes registers until there are `count` of [`SAVED`] on the stack. There must be no variables yet.
    pub(super) fn save(&mut self, count: usize) -> Result<(), CodegenError> {
        debug_assert_eq!(self.locals, 0, "registers lie above the variables");
        while self.saved < count {
            self.a.push(SAVED[self.saved].1)?;
            self.saved += 1;
            self.depth_changed();
        }
        Ok(())
    }

    /// Makes room for variables; what is in it is undefined.
    pub(super) fn reserve(&mut self, locals: u32) -> Result<(), CodegenError> {
        if locals > self.locals {
            // lea: the flags do not matter, but it is as short.
            self.a.lea(rsp, ptr(rsp - (locals - self.locals) as i32))?;
            self.locals = locals;
            self.depth_changed();
        }
        Ok(())
    }

    /// Restores everything that was pushed beyond `to`. Changes no flags.
    pub(super) fn unwind(&mut self, to: Frame) -> Result<(), CodegenError> {
        if self.saved != to.saved || self.locals > to.locals {
            let locals = if self.saved == to.saved { to.locals } else { 0 };
            if self.locals > locals {
                self.a.lea(rsp, ptr(rsp + (self.locals - locals) as i32))?;
                self.locals = locals;
                self.depth_changed();
            }
        }
        while self.saved > to.saved {
            self.saved -= 1;
            self.a.pop(SAVED[self.saved].1)?;
            self.depth_changed();
        }
        Ok(())
    }

    /// Offset from rsp of a variable.
    pub(super) fn local(&self, offset: u32) -> i32 {
        debug_assert!(offset + 8 <= self.locals);
        offset as i32
    }

    /// Where a register of the process is; `None` for a number that is no register.
    pub(super) fn kept(&self, register: Register) -> Option<Kept> {
        if register == RIP {
            return Some(Kept::Known(self.site.0));
        }
        let pad = if self.red_zone { PAD_PUSHED + RED_ZONE } else { PAD_PUSHED };
        if register == RSP {
            return Some(Kept::Above((self.depth + pad) as i32));
        }
        if let Some(number) = register.0.checked_sub(XMM0.0) {
            const VECTORS: [AsmRegisterXmm; 16] =
                [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
            return VECTORS.get(usize::from(number)).map(|&vector| Kept::Vector(vector));
        }
        match register.0 {
            0 => Some(Kept::Stack((self.depth + 8) as i32)),
            6 => Some(Kept::Live(rbp)),
            number => {
                let index = SAVED.iter().position(|&(dwarf, _)| dwarf == number)?;
                Some(if index < self.saved {
                    Kept::Stack((self.depth - (index as u32 + 1) * 8) as i32)
                } else {
                    Kept::Live(SAVED[index].1)
                })
            }
        }
    }

    /// Loads what a general-purpose register of the process had.
    pub(super) fn load_kept(&mut self, into: AsmRegister64, kept: Kept) -> Result<(), CodegenError> {
        match kept {
            Kept::Live(register) if register == into => {}
            Kept::Live(register) => self.a.mov(into, register)?,
            Kept::Stack(offset) => self.a.mov(into, qword_ptr(rsp + offset))?,
            Kept::Above(offset) => self.a.lea(into, ptr(rsp + offset))?,
            Kept::Known(value) => self.load(into, value)?,
            Kept::Vector(vector) => self.a.movq(into, vector)?,
        }
        Ok(())
    }

    /// Loads the upper half of a vector register into rax.
    pub(super) fn load_upper_half(&mut self, vector: AsmRegisterXmm) -> Result<(), CodegenError> {
        // movhps is as old as the architecture; pextrq is not.
        let frame = self.frame();
        self.reserve(frame.locals + 8)?;
        self.a.movhps(qword_ptr(rsp), vector)?;
        self.a.mov(rax, qword_ptr(rsp))?;
        self.unwind(frame)
    }

    /// Loads a constant by the shortest instruction that changes no flags.
    pub(super) fn load(&mut self, into: AsmRegister64, value: u64) -> Result<(), CodegenError> {
        let into = into.into();
        let instruction = if let Ok(short) = u32::try_from(value) {
            let half = iced_x86::Register::full_register32(into);
            Instruction::with2(Code::Mov_r32_imm32, half, short)?
        } else if let Ok(short) = i32::try_from(value as i64) {
            Instruction::with2(Code::Mov_rm64_imm32, into, short)?
        } else {
            Instruction::with2(Code::Mov_r64_imm64, into, value)?
        };
        Ok(self.a.add_instruction(instruction)?)
    }

    /// Loads an address that is within 2 GB of the code.
    pub(super) fn load_near(&mut self, into: AsmRegister64, at: Avma) -> Result<(), CodegenError> {
        let place = MemoryOperand::with_base_displ_size(iced_x86::Register::RIP, at.0 as i64, 8);
        let into: iced_x86::Register = into.into();
        Ok(self.a.add_instruction(Instruction::with2(Code::Lea_r64_m, into, place)?)?)
    }
}

/// What a body has on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) saved: usize,
    pub(super) locals: u32,
}

impl Frame {
    /// Nothing: as a pad enters and leaves a body.
    pub(super) const NONE: Frame = Frame { saved: 0, locals: 0 };
}

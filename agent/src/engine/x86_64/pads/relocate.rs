//! One displaced instruction, made to run in a pad with the effects it has at its own address.
//!
//! ```text
//!                    in the pad                            in the twin, where it differs
//! any                the instruction
//! operand too far    push r; mov r, address; instruction with [r]; pop r
//! jcc, loop, jrcxz   jcc L; ..   L: exit to the target
//! jmp                exit to the target
//! jmp r/m            jmp r/m                               push r/m; exit to what is on the stack
//! ret                ret                                   push [rsp]; exit to what is on the stack
//! call               push [return address]; exit to the target
//! call r/m           push [return address]; jmp r/m        push [return address]; push r/m; exit
//!
//! exit               jmp target                            int3; 8 bytes: the target, or what to take from the stack
//! ```
//!
//! Both are equally long, so that a thread can be moved from one to the other between any two instructions. The return
//! address is the original one: the pad's must never be seen by an unwinder, a garbage collector or a profiler.

use super::PadError;
use iced_x86::code_asm::{CodeAssembler, CodeLabel, qword_ptr};
use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use riptrace_protocol::ids::Avma;
use std::ops::Range;

/// Which of the two copies of a pad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that the patch leads to. `alone`: there is no other, so that it needs no padding.
    First {
        /// No twin.
        alone: bool,
    },
    /// The one that traps at its end.
    Twin,
}

/// In a twin's exit, a number below this is no address but how many bytes to take from the stack, on whose top the
/// address is. No code lies so low (vm.mmap_min_addr, and no linker puts any there).
pub(super) const POP_LIMIT: u64 = 1 << 17;
/// Bytes of an exit in a pad that has a twin: `int3` and 8 bytes.
const EXIT_BYTES: usize = 9;
/// `jmp rel32` is shorter by this.
const EXIT_FILL: [u8; EXIT_BYTES - super::tables::JUMP_BYTES] = [super::super::BREAKPOINT; 4];
/// `ret` is shorter than `push [rsp]` by two bytes, and `ret imm16` is as long.
const PUSH_TOP_BYTES: usize = 3;

/// A part of what an instruction became: from the next instruction of the assembler on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of its first instruction in the assembler.
    pub(super) index: usize,
    /// Bytes that it has taken from the stack.
    pub(super) depth: u16,
    /// It leaves the pad.
    pub(super) exit: bool,
    /// The place in the program that it is, counted from the site.
    pub(super) original: u8,
    /// A register that is on top of the stack: its index in a `ucontext_t`.
    pub(super) saved: Option<u8>,
}

/// What stands behind all displaced instructions.
#[derive(Default)]
pub(super) struct Tail {
    /// Return addresses: what a call pushes.
    literals: Vec<(CodeLabel, u64)>,
    /// Branches that were taken: where from, and where to.
    exits: Vec<(CodeLabel, u64, u8)>,
}

/// Writes displaced instructions.
pub(super) struct Relocator<'a> {
    pub(super) asm: &'a mut CodeAssembler,
    pub(super) side: Side,
    /// Addresses that hold for all places the pad may get: what is within 2 GB of all of them is in reach.
    pub(super) reach: Range<u64>,
    pub(super) red_zone: bool,
    pub(super) shadow_stack: bool,
    pub(super) tail: Tail,
    /// Where the current instruction is, counted from the site.
    pub(super) original: u8,
    /// What was written.
    pub(super) parts: Vec<Part>,
}

impl Relocator<'_> {
    fn here(&self) -> usize {
        self.asm.instructions().len()
    }

    fn part(&mut self, depth: u16, exit: bool, saved: Option<u8>) {
        self.parts.push(Part { index: self.here(), depth, exit, original: self.original, saved });
    }

    fn in_reach(&self, address: u64) -> bool {
        let fits = |from: u64| i32::try_from(address.wrapping_sub(from) as i64).is_ok();
        fits(self.reach.start) && fits(self.reach.end)
    }

    /// Appends what `instruction` becomes.
    pub(super) fn displace(&mut self, instruction: &Instruction) -> Result<(), PadError> {
        // The mark has no bytes; whatever the assembler makes of what follows, its place is known.
        self.part(0, false, None);
        self.asm.zero_bytes()?;
        let refused = || PadError::refused(instruction);
        let mut copy = *instruction;
        // With an address the assembler would take branches elsewhere in the pad for branches to it.
        copy.set_ip(0);
        let far_operand = instruction.is_ip_rel_memory_operand() && !self.in_reach(instruction.ip_rel_memory_address());
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::Exception => {
                if matches!(instruction.mnemonic(), Mnemonic::Int3 | Mnemonic::Int1) {
                    return Err(refused());
                }
                if far_operand {
                    return self.far_operand(&copy, instruction);
                }
                self.asm.add_instruction(copy)?;
            }
            FlowControl::ConditionalBranch => {
                let taken = self.asm.create_label();
                copy.as_near_branch();
                copy.set_near_branch64(label_id(taken)?);
                self.asm.add_instruction(copy)?;
                self.tail.exits.push((taken, self.target(instruction)?, self.original));
            }
            FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
                let target = self.target(instruction)?;
                self.part(0, true, None);
                self.exit(target)?;
            }
            FlowControl::IndirectBranch if instruction.is_jmp_near_indirect() => {
                if far_operand {
                    return Err(PadError::TooFar { at: Avma(instruction.ip()) });
                }
                self.indirect(&copy, 0)?;
            }
            FlowControl::Return if matches!(instruction.mnemonic(), Mnemonic::Ret) => {
                self.ret(&copy).map_err(|error| error.unwrap_or_else(refused))?;
            }
            FlowControl::Call if instruction.is_call_near() => {
                let target = self.target(instruction)?;
                self.push_return(instruction)?;
                self.part(8, true, None);
                self.exit(target)?;
            }
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                if far_operand {
                    return Err(PadError::TooFar { at: Avma(instruction.ip()) });
                }
                let mut jump = copy;
                jump.set_code(Code::Jmp_rm64);
                if jump.op0_kind() == OpKind::Register && jump.op0_register() == Register::RSP {
                    return Err(refused());
                }
                if jump.op0_kind() == OpKind::Memory && jump.memory_base() == Register::RSP {
                    let displacement = jump.memory_displacement64() as i64;
                    // What the push overwrites cannot be read after it.
                    if jump.memory_index() != Register::None || (-15..0).contains(&displacement) {
                        return Err(refused());
                    }
                    jump.set_memory_displacement64(displacement.wrapping_add(8) as u64);
                    // 8 asks the encoder for a 32-bit displacement with 64-bit addresses.
                    jump.set_memory_displ_size(8);
                }
                self.push_return(instruction)?;
                self.part(8, false, None);
                self.asm.zero_bytes()?;
                self.indirect(&jump, 8)?;
            }
            _ => return Err(refused()),
        }
        Ok(())
    }

    /// The target of a direct branch.
    fn target(&self, instruction: &Instruction) -> Result<u64, PadError> {
        let target = instruction.near_branch_target();
        if !self.in_reach(target) {
            return Err(PadError::TooFar { at: Avma(instruction.ip()) });
        }
        Ok(target)
    }

    /// Leaves the pad for what stands behind the last displaced instruction, if that is ever reached.
    pub(super) fn go_on(&mut self, last: Option<&Instruction>) -> Result<(), PadError> {
        let Some(last) = last else { return Ok(()) };
        let falls_through =
            matches!(last.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Exception);
        if !falls_through {
            return Ok(());
        }
        if !self.in_reach(last.next_ip()) {
            return Err(PadError::TooFar { at: Avma(last.ip()) });
        }
        self.part(0, true, None);
        self.exit(last.next_ip())
    }

    /// Leaves the pad for an address.
    fn exit(&mut self, target: u64) -> Result<(), PadError> {
        if self.side == Side::Twin {
            return self.twin_exit(target);
        }
        self.asm.add_instruction(Instruction::with_branch(Code::Jmp_rel32_64, target)?)?;
        if self.side == (Side::First { alone: false }) {
            self.asm.db(&EXIT_FILL)?;
        }
        Ok(())
    }

    fn twin_exit(&mut self, literal: u64) -> Result<(), PadError> {
        let mut bytes = [super::super::BREAKPOINT; EXIT_BYTES];
        bytes[1..].copy_from_slice(&literal.to_le_bytes());
        Ok(self.asm.db(&bytes)?)
    }

    /// `push` of the address behind a call.
    fn push_return(&mut self, call: &Instruction) -> Result<(), PadError> {
        if self.shadow_stack {
            return Err(PadError::ShadowStack { at: Avma(call.ip()) });
        }
        let literal = self.asm.create_label();
        self.asm.push(qword_ptr(literal))?;
        self.tail.literals.push((literal, call.next_ip()));
        Ok(())
    }

    /// `jmp r/m`, in a twin `push r/m` and the exit.
    fn indirect(&mut self, jump: &Instruction, depth: u16) -> Result<(), PadError> {
        match self.side {
            Side::First { alone } => {
                self.asm.add_instruction(*jump)?;
                if !alone {
                    self.asm.db(&[super::super::BREAKPOINT; EXIT_BYTES])?;
                }
            }
            Side::Twin => {
                let mut push = *jump;
                push.set_code(Code::Push_rm64);
                self.asm.add_instruction(push)?;
                self.part(depth + 8, true, None);
                self.twin_exit(8)?;
            }
        }
        Ok(())
    }

    /// `ret`. An error without a value: it is of a kind that is refused.
    fn ret(&mut self, copy: &Instruction) -> Result<(), Option<PadError>> {
        let wrap = |error: iced_x86::IcedError| Some(PadError::from(error));
        let released = match copy.code() {
            Code::Retnq => 0,
            Code::Retnq_imm16 => u64::from(copy.immediate16()),
            _ => return Err(None),
        };
        match self.side {
            Side::First { alone: true } => self.asm.add_instruction(*copy).map_err(wrap)?,
            Side::First { alone: false } => {
                self.asm.add_instruction(plain_ret(copy).map_err(wrap)?).map_err(wrap)?;
                let bytes = if released == 0 { 1 } else { 3 };
                self.asm.db(&vec![super::super::BREAKPOINT; PUSH_TOP_BYTES - bytes + EXIT_BYTES]).map_err(wrap)?;
            }
            Side::Twin => {
                self.asm.push(qword_ptr(iced_x86::code_asm::rsp)).map_err(wrap)?;
                self.part(8, true, None);
                self.twin_exit(16 + released).map_err(Some)?;
            }
        }
        Ok(())
    }

    /// An instruction with an operand beside the code that the pad does not reach: through a register.
    fn far_operand(&mut self, copy: &Instruction, instruction: &Instruction) -> Result<(), PadError> {
        let too_far = || PadError::TooFar { at: Avma(instruction.ip()) };
        let mut factory = InstructionInfoFactory::new();
        let used: Vec<Register> =
            factory.info(instruction).used_registers().iter().map(|used| used.register().full_register()).collect();
        if instruction.memory_base() != Register::RIP || used.contains(&Register::RSP) {
            return Err(too_far());
        }
        // The low eight: an operand such as ah excludes the others.
        let (scratch, saved) =
            SCRATCH.into_iter().find(|(register, _)| !used.contains(register)).ok_or_else(too_far)?;
        let below: i32 = if self.red_zone { super::RED_ZONE_BYTES.into() } else { 0 };
        if self.red_zone {
            self.asm.lea(iced_x86::code_asm::rsp, iced_x86::code_asm::rsp - below)?;
            self.part(below as u16, false, None);
        }
        self.asm.add_instruction(Instruction::with1(Code::Push_r64, scratch)?)?;
        self.part(below as u16 + 8, false, Some(saved));
        self.asm.add_instruction(Instruction::with2(
            Code::Mov_r64_imm64,
            scratch,
            instruction.ip_rel_memory_address(),
        )?)?;
        let mut through = *copy;
        through.set_memory_base(scratch);
        through.set_memory_displacement64(0);
        through.set_memory_displ_size(1);
        self.asm.add_instruction(through)?;
        self.asm.add_instruction(Instruction::with1(Code::Pop_r64, scratch)?)?;
        if self.red_zone {
            self.part(below as u16, false, None);
            self.asm.lea(iced_x86::code_asm::rsp, iced_x86::code_asm::rsp + below)?;
        }
        Ok(())
    }

    /// Appends what stands behind the displaced instructions.
    pub(super) fn finish(&mut self) -> Result<(), PadError> {
        let tail = std::mem::take(&mut self.tail);
        for (mut label, target, original) in tail.exits {
            self.original = original;
            self.part(0, true, None);
            self.asm.set_label(&mut label)?;
            self.asm.zero_bytes()?;
            self.exit(target)?;
        }
        for (mut label, literal) in tail.literals {
            self.asm.set_label(&mut label)?;
            self.asm.dq(&[literal])?;
        }
        Ok(())
    }
}

/// Registers that may carry an address, and their indices in a `ucontext_t` (glibc's sys/ucontext.h, REG_*).
const SCRATCH: [(Register, u8); 7] = [
    (Register::RAX, super::REG_RAX),
    (Register::RCX, 14),
    (Register::RDX, 12),
    (Register::RBX, 11),
    (Register::RSI, 9),
    (Register::RDI, 8),
    (Register::RBP, 10),
];

/// The return without prefixes (`rep ret`), so that its length is known.
fn plain_ret(copy: &Instruction) -> Result<Instruction, iced_x86::IcedError> {
    match copy.code() {
        Code::Retnq_imm16 => Instruction::with1(Code::Retnq_imm16, u32::from(copy.immediate16())),
        _ => Ok(Instruction::with(Code::Retnq)),
    }
}

/// What the assembler has as the target of a branch to a label: the label's own number, which it does not tell.
pub(super) fn label_id(label: CodeLabel) -> Result<u64, PadError> {
    let mut asm = CodeAssembler::new(64)?;
    asm.jmp(label)?;
    asm.instructions().last().map(Instruction::near_branch_target).ok_or(PadError::Layout)
}

//! One instruction: what it does to the flow of control, and whether it can run elsewhere.
//!
//! "Elsewhere" is a pad that puts it, re-encoded on its own, behind the capture, with all registers and flags as they
//! were; a call there pushes the return address that was always pushed.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// What an instruction is, as far as patches care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes on to the next one.
    Plain,
    /// Does nothing: what compilers fill gaps with.
    Nop,
    /// Conditional branch, `loop` and `jrcxz` included (the encoder makes two of those).
    Branch,
    /// Direct jump.
    Jump,
    /// Jump by a register or through memory.
    IndirectJump,
    /// Near return.
    Return,
    /// Direct call.
    Call,
    /// Call by a register or through memory.
    IndirectCall,
    /// `int3`.
    Breakpoint,
    /// Raises a signal on purpose, and its handler looks at where.
    Raises,
    /// `endbr64`: an indirect branch may only arrive at one.
    Landing,
    /// Cannot run elsewhere.
    Fixed,
}

impl Kind {
    /// Whether the next instruction is not reached from this one. (After one that raises a signal it may be, if the
    /// handler says so.)
    pub(super) fn ends_block(self) -> bool {
        matches!(self, Kind::Jump | Kind::IndirectJump | Kind::Return)
    }

    /// Whether it pushes a return address.
    pub(super) fn is_call(self) -> bool {
        matches!(self, Kind::Call | Kind::IndirectCall)
    }
}

/// What `instruction`, a valid one, is.
pub(super) fn kind_of(instruction: &Instruction) -> Kind {
    let code = instruction.code();
    match instruction.flow_control() {
        FlowControl::Next => plain(instruction),
        FlowControl::UnconditionalBranch if matches!(code, Code::Jmp_rel8_64 | Code::Jmp_rel32_64) => Kind::Jump,
        // `notrack` and operand sizes do not matter, but a 16-bit target does.
        FlowControl::IndirectBranch if code == Code::Jmp_rm64 && is_movable_operand(instruction) => Kind::IndirectJump,
        FlowControl::ConditionalBranch if instruction.op0_kind() == OpKind::NearBranch64 => Kind::Branch,
        FlowControl::Return if matches!(code, Code::Retnq | Code::Retnq_imm16) => Kind::Return,
        FlowControl::Call if code == Code::Call_rel32_64 => Kind::Call,
        // The pad pushes the return address before it reads the operand.
        FlowControl::IndirectCall
            if code == Code::Call_rm64
                && is_movable_operand(instruction)
                && !(instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP) =>
        {
            Kind::IndirectCall
        }
        FlowControl::Interrupt if code == Code::Int3 => Kind::Breakpoint,
        // int n, int1; ud0, ud1, ud2.
        FlowControl::Interrupt | FlowControl::Exception => Kind::Raises,
        // Far transfers, returns from interrupts, 16-bit branches; `syscall` and `sysenter`, whose address the kernel
        // tells to seccomp filters and restarts from; transactions.
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::ConditionalBranch
        | FlowControl::Return
        | FlowControl::Call
        | FlowControl::IndirectCall
        | FlowControl::XbeginXabortXend => Kind::Fixed,
    }
}

fn plain(instruction: &Instruction) -> Kind {
    match instruction.mnemonic() {
        Mnemonic::Endbr64 => Kind::Landing,
        Mnemonic::Nop => Kind::Nop,
        // Interrupts are held back until after the next instruction, which the stack pointer's load is expected to be.
        Mnemonic::Mov | Mnemonic::Pop if instruction.op0_register() == Register::SS => Kind::Fixed,
        // Enclave calls return to where they stand; a pad within a transaction would be part of it.
        Mnemonic::Enclu | Mnemonic::Enclv | Mnemonic::Encls | Mnemonic::Xabort | Mnemonic::Xend => Kind::Fixed,
        _ if instruction.is_privileged() => Kind::Raises,
        _ if is_movable_operand(instruction) => Kind::Plain,
        _ => Kind::Fixed,
    }
}

/// An operand beside a 32-bit instruction pointer cannot be reached from elsewhere.
fn is_movable_operand(instruction: &Instruction) -> bool {
    instruction.memory_base() != Register::EIP
}

/// Whether it names memory relative to the instruction pointer, so that its displacement changes when it moves.
pub(super) fn is_rip_relative(instruction: &Instruction) -> bool {
    instruction.memory_base() == Register::RIP
}

/// Whether it may fault: it reads or writes memory.
pub(super) fn touches_memory(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Lea | Mnemonic::Nop => false,
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Leave | Mnemonic::Enter => true,
        _ => (0..instruction.op_count()).any(|operand| {
            !matches!(
                instruction.op_kind(operand),
                OpKind::Register
                    | OpKind::NearBranch16
                    | OpKind::NearBranch32
                    | OpKind::NearBranch64
                    | OpKind::FarBranch16
                    | OpKind::FarBranch32
                    | OpKind::Immediate8
                    | OpKind::Immediate8_2nd
                    | OpKind::Immediate16
                    | OpKind::Immediate32
                    | OpKind::Immediate64
                    | OpKind::Immediate8to16
                    | OpKind::Immediate8to32
                    | OpKind::Immediate8to64
                    | OpKind::Immediate32to64
            )
        }),
    }
}

/// An address that it makes a value of: `lea reg, [rip+x]`, or an immediate, where code knows its own address.
pub(super) fn formed_address(instruction: &Instruction, position_independent: bool) -> Option<u64> {
    if instruction.code() == Code::Lea_r64_m && is_rip_relative(instruction) {
        return Some(instruction.memory_displacement64());
    }
    if position_independent {
        return None;
    }
    let last = instruction.op_count().checked_sub(1)?;
    match instruction.op_kind(last) {
        OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => Some(instruction.immediate(last)),
        _ => None,
    }
}

//! What one instruction does to a register or to a place in the frame.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

/// A place that an instruction may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cell {
    /// A general register, or a vector register, in full.
    Register(Register),
    /// Bytes from an offset to the stack pointer.
    Stack { offset: i64, bytes: u64 },
}

/// What an instruction does to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// It computes what is there then.
    Writes,
    /// It moves there what is in another cell.
    Moves(Cell),
}

/// System V ABI, AMD64, figure 3.36.
pub(super) fn register(number: u16) -> Option<Register> {
    use Register::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, XMM0};
    const GENERAL: [Register; 16] = [RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15];
    match number {
        0..=15 => Some(GENERAL[usize::from(number)]),
        17..=32 => Some(XMM0 + u32::from(number - 17)),
        _ => None,
    }
}

/// The register that holds all bits of one.
pub(super) fn whole(register: Register) -> Register {
    if register.is_vector_register() {
        return Register::XMM0 + (register.number() as u32);
    }
    register.full_register()
}

pub(super) fn effect(instruction: &Instruction, cell: Cell, info: &mut InstructionInfoFactory) -> Effect {
    let calls = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
    match cell {
        Cell::Register(register) => {
            // Go's calls keep no register but these.
            if calls && !matches!(register, Register::RSP | Register::RBP | Register::R14) {
                return Effect::Writes;
            }
            let used = info.info(instruction);
            let writes =
                used.used_registers().iter().any(|used| whole(used.register()) == register && is_write(used.access()));
            if !writes {
                return Effect::Nothing;
            }
        }
        Cell::Stack { offset, bytes } => {
            let used = info.info(instruction);
            let writes = used.used_memory().iter().any(|memory| {
                is_write(memory.access())
                    && (on_stack(memory).is_some_and(|(at, size)| overlaps(at, size, offset, bytes)))
            });
            // What a call or an instruction with an address of its own writes is not seen; where it may be of a variable
            // that is in memory for good, it is taken to be.
            let elsewhere = |memory: &UsedMemory| is_write(memory.access()) && on_stack(memory).is_none();
            let blind = bytes > 8 && (calls || used.used_memory().iter().any(elsewhere));
            if !writes && !blind {
                return Effect::Nothing;
            }
        }
    }
    match moved(instruction, cell) {
        // Go keeps it zero (`abi-internal.md`).
        Some(Cell::Register(Register::XMM15)) => Effect::Writes,
        Some(from) => Effect::Moves(from),
        None => Effect::Writes,
    }
}

fn is_write(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Offset to the stack pointer and size of an access to the stack.
fn on_stack(memory: &UsedMemory) -> Option<(i64, u64)> {
    let is_plain = memory.base() == Register::RSP && memory.index() == Register::None;
    is_plain.then(|| (memory.displacement() as i64, memory.memory_size().size() as u64))
}

fn overlaps(at: i64, size: u64, offset: i64, bytes: u64) -> bool {
    let end = |at: i64, size: u64| i128::from(at) + i128::from(size);
    i128::from(at) < end(offset, bytes) && i128::from(offset) < end(at, size)
}

/// The cell whose content an instruction moves, as it is, to the one that it writes.
fn moved(instruction: &Instruction, to: Cell) -> Option<Cell> {
    let is_move = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Movss
            | Mnemonic::Movsd
            | Mnemonic::Movups
            | Mnemonic::Movaps
            | Mnemonic::Movq
            | Mnemonic::Movd
    );
    if !is_move || instruction.op_count() != 2 {
        return None;
    }
    match instruction.op1_kind() {
        OpKind::Register => Some(Cell::Register(whole(instruction.op1_register()))),
        OpKind::Memory => {
            let is_plain = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
            let bytes = match to {
                Cell::Stack { bytes, .. } => bytes,
                Cell::Register(_) => instruction.memory_size().size() as u64,
            };
            is_plain.then(|| Cell::Stack { offset: instruction.memory_displacement64() as i64, bytes })
        }
        _ => None,
    }
}

//! Where indirect jumps lead.
//!
//! Targets that are stored as whole addresses are found in the data sections ([`super::binary`]), however the jump
//! reads them; so a jump through memory, or by a register that was loaded from memory, needs nothing more. Tables of
//! offsets (gcc and clang for position-independent code) are found here, by the instructions that read them:
//!
//! ```text
//! cmp    edi, 8               the bound, where it is on the straight way to the jump
//! ja     default
//! lea    rdx, [rip+table]     the base; may be far away, where a loop keeps it in a register
//! movsxd rax, [rdx+rdi*4]
//! add    rax, rdx
//! jmp    rax                  with or without notrack
//! ```
//!
//! Without a bound a table is read until an entry leads to no code, or to where the function has another table: that
//! yields too many targets, never too few. A jump by a computed register that fits nothing here may lead anywhere.

use super::facts::{FunctionFacts, holds};
use super::instruction::{Kind, is_rip_relative};
use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::ops::Range;

/// Instructions before a jump that are looked at: compilers schedule a few others between those of the pattern.
const WINDOW: usize = 24;
/// Most entries of one table: no switch of a real program has as many cases.
const ENTRIES_MAX: usize = 1 << 16;
/// Most entries that are read for one function, over all its tables: bounds the time for hostile input.
const FUNCTION_ENTRIES_MAX: usize = 1 << 20;

/// The indirect jumps of a function and what they may read, collected while it is decoded.
#[derive(Debug)]
pub(super) struct Jumps {
    window: [Instruction; WINDOW],
    seen: usize,
    found: Vec<Jump>,
    /// Addresses of data that the code takes: where tables may be.
    bases: Vec<u64>,
    /// It takes addresses of its own code, to which offsets may be relative.
    takes_code: bool,
    /// It reads 32-bit offsets by index.
    reads_offsets: bool,
}

impl Default for Jumps {
    fn default() -> Self {
        Jumps {
            window: [Instruction::default(); WINDOW],
            seen: 0,
            found: Vec::new(),
            bases: Vec::new(),
            takes_code: false,
            reads_offsets: false,
        }
    }
}

/// What one indirect jump reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jump {
    /// A table of offsets, read on a straight way whose instructions after the first are `way`.
    Table { base: u64, entries: Option<usize>, way: (u64, u64) },
    /// A table whose base is taken elsewhere in the function, or nothing of the kind.
    Elsewhere,
    /// A value that is computed in no known way.
    Anything,
}

impl Jumps {
    /// Takes the next instruction.
    pub(super) fn see(&mut self, instruction: &Instruction, kind: Kind, function: &Range<u64>) {
        match instruction.code() {
            Code::Lea_r64_m if is_rip_relative(instruction) => {
                let address = instruction.memory_displacement64();
                if function.contains(&address) {
                    self.takes_code = true;
                } else {
                    self.bases.push(address);
                }
            }
            Code::Movsxd_r64_rm32 if instruction.op1_kind() == OpKind::Memory && is_indexed(instruction) => {
                self.reads_offsets = true;
                if instruction.memory_base() == Register::None {
                    self.bases.push(instruction.memory_displacement64());
                }
            }
            _ => {}
        }
        if kind == Kind::IndirectJump
            && let Some(found) = self.resolve(instruction)
        {
            self.found.push(found);
        }
        self.window[self.seen % WINDOW] = *instruction;
        self.seen += 1;
    }

    /// What an indirect jump reads; `None` when whole addresses.
    fn resolve(&self, jump: &Instruction) -> Option<Jump> {
        if jump.op0_kind() != OpKind::Register {
            return None;
        }
        let mut search = Search::new(jump.op0_register());
        let mut factory = InstructionInfoFactory::new();
        let before = (1..=WINDOW.min(self.seen)).map(|back| &self.window[(self.seen - back) % WINDOW]);
        for instruction in before {
            if search.is_over() {
                break;
            }
            match search.step(instruction, &mut factory) {
                Step::On => {}
                Step::Pointer => return None,
                Step::Unknown => return Some(Jump::Anything),
                Step::End => break,
            }
        }
        Some(match search.base {
            Some((base, from)) if search.index.is_some() => {
                let entries = match search.bound {
                    Bound::Known(entries) => Some(entries),
                    _ => None,
                };
                Jump::Table { base, entries, way: (search.bound_at.unwrap_or(from).min(from), jump.ip()) }
            }
            _ => Jump::Elsewhere,
        })
    }
}

/// Bases, 4 bytes apart, indexed.
fn is_indexed(instruction: &Instruction) -> bool {
    instruction.memory_index() != Register::None && instruction.memory_index_scale() == 4
}

/// The walk back from a jump to what its register was made of.
struct Search {
    state: State,
    /// The table's address, and of the instruction that takes it.
    base: Option<(u64, u64)>,
    /// What the table is read by, as its value is called where the walk is.
    index: Option<Register>,
    bound: Bound,
    bound_at: Option<u64>,
}

/// What is looked for.
#[derive(Clone, Copy)]
enum State {
    /// Where the register that is jumped by is written.
    Value(Register),
    /// Where the two registers are written whose sum it is: an offset and a base.
    Sum(Register, Register),
    /// Where the table's base is taken, which is in this register.
    Base(Register),
    /// Only the bound.
    Found,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Wanted,
    /// The index went through a branch that leaves at most so many values, of this comparison's operand.
    Branch {
        is_above: bool,
    },
    Known(usize),
    None,
}

enum Step {
    On,
    Pointer,
    Unknown,
    End,
}

impl Search {
    fn new(register: Register) -> Search {
        Search { state: State::Value(register), base: None, index: None, bound: Bound::Wanted, bound_at: None }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Found) && matches!(self.bound, Bound::Known(_) | Bound::None)
    }

    fn step(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> Step {
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch => {
                if self.index.is_some() && self.bound == Bound::Wanted {
                    self.bound = match instruction.mnemonic() {
                        Mnemonic::Ja => Bound::Branch { is_above: true },
                        Mnemonic::Jae => Bound::Branch { is_above: false },
                        _ => Bound::None,
                    };
                }
                return Step::On;
            }
            // What other code or a callee left in the registers is not seen.
            _ => return Step::End,
        }
        self.look_for_bound(instruction, factory);
        match self.state {
            State::Value(register) => self.value(instruction, register, factory),
            State::Sum(a, b) => self.sum(instruction, a, b, factory),
            State::Base(register) => self.take_base(instruction, register, factory),
            State::Found => Step::On,
        }
    }

    fn value(&mut self, instruction: &Instruction, wanted: Register, factory: &mut InstructionInfoFactory) -> Step {
        if !writes(instruction, wanted, factory) {
            return Step::On;
        }
        let from_register = instruction.op_count() == 2 && instruction.op1_kind() == OpKind::Register;
        match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if from_register => {
                self.state = State::Value(instruction.op1_register());
                Step::On
            }
            // Whole addresses: loaded, popped, or formed in the code, where the sweep sees them.
            Code::Mov_r64_rm64 | Code::Mov_r64_imm64 | Code::Mov_rm64_imm32 | Code::Mov_r32_imm32 => Step::Pointer,
            Code::Pop_r64 => Step::Pointer,
            Code::Lea_r64_m if is_rip_relative(instruction) => Step::Pointer,
            Code::Lea_r64_m
                if instruction.memory_index_scale() == 1
                    && instruction.memory_displacement64() == 0
                    && instruction.memory_base() != Register::None
                    && instruction.memory_index() != Register::None =>
            {
                self.state = State::Sum(instruction.memory_base(), instruction.memory_index());
                Step::On
            }
            Code::Add_r64_rm64 | Code::Add_rm64_r64 if from_register => {
                self.state = State::Sum(wanted, instruction.op1_register());
                Step::On
            }
            _ => Step::Unknown,
        }
    }

    fn sum(
        &mut self,
        instruction: &Instruction,
        a: Register,
        b: Register,
        factory: &mut InstructionInfoFactory,
    ) -> Step {
        let other = if writes(instruction, a, factory) {
            b
        } else if writes(instruction, b, factory) {
            a
        } else {
            return Step::On;
        };
        match instruction.code() {
            // The offset. Its base is the other one, unless it is named by the displacement.
            Code::Movsxd_r64_rm32 if instruction.op1_kind() == OpKind::Memory && is_indexed(instruction) => {
                let base = instruction.memory_base();
                if base == Register::None {
                    // mov other, table; movsxd reg, [table+index*4]: whether they are the same is seen at the base.
                    return Step::End;
                }
                if base != other || instruction.memory_displacement64() != 0 {
                    return Step::Unknown;
                }
                self.index = Some(instruction.memory_index().full_register());
                self.state = State::Base(other);
                Step::On
            }
            // The base, taken after the offset was read: by another register then.
            Code::Lea_r64_m if is_rip_relative(instruction) => Step::End,
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
                self.state = State::Sum(instruction.op1_register(), other);
                Step::On
            }
            _ => Step::Unknown,
        }
    }

    fn take_base(&mut self, instruction: &Instruction, wanted: Register, factory: &mut InstructionInfoFactory) -> Step {
        if !writes(instruction, wanted, factory) {
            return Step::On;
        }
        match instruction.code() {
            Code::Lea_r64_m if is_rip_relative(instruction) => {
                self.base = Some((instruction.memory_displacement64(), instruction.ip()));
                self.state = State::Found;
                Step::On
            }
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
                self.state = State::Base(instruction.op1_register());
                Step::On
            }
            // Kept in memory meanwhile.
            Code::Mov_r64_rm64 => Step::End,
            _ => Step::Unknown,
        }
    }

    /// Follows the index back to the comparison that bounds it.
    fn look_for_bound(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let Some(index) = self.index else { return };
        match self.bound {
            Bound::Branch { is_above } if instruction.mnemonic() == Mnemonic::Cmp => {
                let same = instruction.op0_kind() == OpKind::Register
                    && is_low(instruction.op0_register())
                    && instruction.op0_register().full_register() == index;
                let value = immediate(instruction).and_then(|value| usize::try_from(value).ok());
                self.bound = match value.and_then(|value| value.checked_add(usize::from(is_above))) {
                    Some(entries) if same => Bound::Known(entries),
                    _ => Bound::None,
                };
                self.bound_at = Some(instruction.ip());
            }
            // Moves between comparison and branch do not change the flags.
            Bound::Branch { .. }
                if matches!(
                    instruction.mnemonic(),
                    Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Movzx | Mnemonic::Movsxd
                ) && !writes(instruction, index, factory) => {}
            Bound::Branch { .. } => self.bound = Bound::None,
            Bound::Wanted if writes(instruction, index, factory) => match instruction.code() {
                // The upper half is cleared.
                Code::Mov_r32_rm32 | Code::Mov_rm32_r32 | Code::Movzx_r32_rm8 | Code::Movzx_r32_rm16
                    if instruction.op1_kind() == OpKind::Register && is_low(instruction.op1_register()) =>
                {
                    self.index = Some(instruction.op1_register().full_register());
                }
                _ => self.bound = Bound::None,
            },
            _ => {}
        }
    }
}

/// Not `ah` and its like.
fn is_low(register: Register) -> bool {
    !matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// The immediate that a value is compared with, when it is not negative.
fn immediate(instruction: &Instruction) -> Option<u64> {
    match instruction.op1_kind() {
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => {
            let value = instruction.immediate(1);
            (value < ENTRIES_MAX as u64).then_some(value)
        }
        _ => None,
    }
}

/// Whether an instruction writes any part of a register.
fn writes(instruction: &Instruction, register: Register, factory: &mut InstructionInfoFactory) -> bool {
    let full = register.full_register();
    factory.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == full
            && matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
    })
}

/// Where the jumps may lead, beyond the addresses that are stored whole; `None` when anywhere. `entered` tells whether
/// a branch leads to an address.
pub(super) fn targets(jumps: &Jumps, facts: &FunctionFacts<'_>, entered: impl Fn(u64) -> bool) -> Option<Vec<u64>> {
    if jumps.found.is_empty() {
        return Some(Vec::new());
    }
    let mut bases = jumps.bases.clone();
    bases.sort_unstable();
    bases.dedup();
    let mut targets = Vec::new();
    let mut left = FUNCTION_ENTRIES_MAX;
    let mut all_are_read = false;
    for jump in &jumps.found {
        match *jump {
            Jump::Anything => return None,
            Jump::Table { base, entries, way: (from, to) } if !(from + 1..=to).any(&entered) => {
                let before = targets.len();
                read(base, entries, &bases, facts, &mut left, &mut targets)?;
                if targets.len() == before {
                    return None;
                }
            }
            Jump::Table { .. } | Jump::Elsewhere if all_are_read => {}
            Jump::Table { .. } | Jump::Elsewhere => {
                // Nothing in the function reads offsets: the register held a whole address.
                if !jumps.reads_offsets {
                    continue;
                }
                if jumps.takes_code {
                    return None;
                }
                let before = targets.len();
                for &base in &bases {
                    read(base, None, &bases, facts, &mut left, &mut targets)?;
                }
                if targets.len() == before {
                    return None;
                }
                all_are_read = true;
            }
        }
    }
    Some(targets)
}

/// Reads a table; `None` when it is not as its bound says, or there is more than may be read.
fn read(
    base: u64,
    entries: Option<usize>,
    bases: &[u64],
    facts: &FunctionFacts<'_>,
    left: &mut usize,
    targets: &mut Vec<u64>,
) -> Option<()> {
    let content = facts.data.at(base);
    // The next table ends this one, if the bound does not.
    let next = bases.get(bases.partition_point(|other| *other <= base));
    let gap = next.map_or(usize::MAX, |next| usize::try_from((next - base) / 4).unwrap_or(usize::MAX));
    let most = entries.unwrap_or_else(|| gap.min(ENTRIES_MAX));
    let mut count = 0;
    for entry in content.chunks_exact(4).take(most) {
        let offset = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let target = base.wrapping_add_signed(i64::from(offset));
        if !holds(facts.text, target) {
            break;
        }
        *left = left.checked_sub(1)?;
        targets.push(target);
        count += 1;
    }
    (entries.is_none_or(|entries| entries == count)).then_some(())
}

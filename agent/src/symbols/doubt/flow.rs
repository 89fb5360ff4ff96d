//! What is held in the cells of a function in front of an instruction of it, whichever way led there.

use super::code::Code;
use super::effect::{Cell, whole};
use super::kept::{Held, Wanted};
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::BTreeSet;

/// Instructions that are looked at for one question, at most, each time round counted: a few milliseconds.
const STEPS_MAX: usize = 1 << 16;

impl Code {
    /// What is held in front of an instruction; `None` where that cannot be told, or takes too long to find out.
    pub(super) fn held(&self, at: usize, wanted: &Wanted) -> Option<BTreeSet<Held>> {
        if self.instructions().iter().any(|it| it.flow_control() == FlowControl::IndirectBranch) {
            return None;
        }
        let count = self.instructions().len();
        let mut info = InstructionInfoFactory::new();
        // Behind each instruction; `None` where nothing has led yet.
        let mut behind: Vec<Option<BTreeSet<Held>>> = vec![None; count];
        let mut steps = 0;
        loop {
            let mut is_changed = false;
            for number in 0..count {
                steps += 1;
                if steps > STEPS_MAX {
                    return None;
                }
                let Some(before) = self.met(number, &behind, wanted) else { continue };
                let after = self.after(number, before, wanted, &mut info);
                if behind[number].as_ref() != Some(&after) {
                    behind[number] = Some(after);
                    is_changed = true;
                }
            }
            if !is_changed {
                return self.met(at, &behind, wanted);
            }
        }
    }

    /// What all ways to an instruction agree on, and what is told of it; `None` where no way leads there.
    fn met(&self, number: usize, behind: &[Option<BTreeSet<Held>>], wanted: &Wanted) -> Option<BTreeSet<Held>> {
        let mut met: Option<BTreeSet<Held>> = self.is_entered(number).then(BTreeSet::new);
        for (from, is_back) in self.ways_to(number) {
            let Some(Some(held)) = behind.get(from) else { continue };
            let lasts = |it: &&Held| !is_back || wanted.lasting.contains(&it.variable);
            let held = held.iter().filter(lasts).copied();
            met = Some(match met {
                None => held.collect(),
                Some(met) => held.filter(|it| met.contains(it)).collect(),
            });
        }
        let mut met = met?;
        met.extend(wanted.told.get(&number).into_iter().flatten());
        Some(met)
    }

    fn after(
        &self,
        number: usize,
        before: BTreeSet<Held>,
        wanted: &Wanted,
        info: &mut InstructionInfoFactory,
    ) -> BTreeSet<Held> {
        let Some(instruction) = self.instructions().get(number) else { return BTreeSet::new() };
        let Some(depth) = self.depth(number) else {
            // Where the frame is, is not known here.
            return before.into_iter().filter(|it| matches!(it.cell, Cell::Register(_))).collect();
        };
        let copied = copied(instruction, depth);
        let copies: Vec<Held> = copied
            .into_iter()
            .flat_map(|(to, from, bytes)| {
                let is_from = move |it: &&Held| is_same(it.cell, from) && it.bytes <= bytes;
                before.iter().filter(is_from).map(move |it| match to {
                    Cell::Register(_) => Held { cell: to, ..*it },
                    Cell::Stack { offset, .. } => Held { cell: Cell::Stack { offset, bytes: it.bytes }, ..*it },
                })
            })
            .filter(|it| matches!(it.cell, Cell::Register(_)) || wanted.slots.contains(it))
            .collect();
        let calls = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        let keeps = calls && self.is_barrier(number);
        let used = info.info(instruction);
        let is_write = |access: OpAccess| {
            matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
        };
        let stays = |it: &Held| match it.cell {
            Cell::Register(Register::R11) if keeps => false,
            Cell::Register(_) if keeps => true,
            Cell::Register(_) if calls => false,
            Cell::Register(register) => {
                !used.used_registers().iter().any(|it| whole(it.register()) == register && is_write(it.access()))
            }
            Cell::Stack { offset, bytes } => !used.used_memory().iter().any(|memory| {
                let is_frame = memory.base() == Register::RSP && memory.index() == Register::None;
                let at = depth.wrapping_add(memory.displacement() as i64);
                let size = memory.memory_size().size() as i64;
                is_write(memory.access())
                    && is_frame
                    && !calls
                    && at < offset.saturating_add(bytes as i64)
                    && offset < at.saturating_add(size.max(1))
            }),
        };
        let mut after: BTreeSet<Held> = before.iter().filter(|it| stays(it)).copied().collect();
        after.extend(copies);
        // What is below the stack pointer is nobody's.
        let behind = self.depth_behind(number);
        after.retain(|it| match (it.cell, behind) {
            (Cell::Stack { offset, .. }, Some(depth)) => offset >= depth,
            (Cell::Stack { .. }, None) => false,
            (Cell::Register(_), _) => true,
        });
        after
    }
}

fn is_same(held: Cell, from: Cell) -> bool {
    match (held, from) {
        (Cell::Register(held), Cell::Register(from)) => held == from,
        (Cell::Stack { offset: held, .. }, Cell::Stack { offset: from, .. }) => held == from,
        _ => false,
    }
}

/// The cell that an instruction copies to another one: to, from, and how many bytes, from the lowest one on.
fn copied(instruction: &Instruction, depth: i64) -> Option<(Cell, Cell, u64)> {
    let is_copy = matches!(
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
    if !is_copy || instruction.op_count() != 2 {
        return None;
    }
    let of_register = |register: Register| {
        let is_high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
        (!is_high).then(|| (Cell::Register(whole(register)), register.size() as u64))
    };
    let in_frame = || {
        let is_frame = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
        let bytes = instruction.memory_size().size() as u64;
        let offset = depth.checked_add(instruction.memory_displacement64() as i64)?;
        is_frame.then_some((Cell::Stack { offset, bytes }, bytes))
    };
    let operand = |number: u32| match instruction.op_kind(number) {
        OpKind::Register => of_register(instruction.op_register(number)),
        OpKind::Memory => in_frame(),
        _ => None,
    };
    let ((to, into), (from, of)) = (operand(0)?, operand(1)?);
    // Between vector registers these copy less than all of it.
    let most = match instruction.mnemonic() {
        Mnemonic::Movss | Mnemonic::Movd => 4,
        Mnemonic::Movsd | Mnemonic::Movq => 8,
        _ => 16,
    };
    Some((to, from, into.min(of).min(most)))
}

/// What an instruction adds to the stack pointer; `None` where that cannot be told.
pub(super) fn moves_stack(instruction: &Instruction, info: &mut InstructionInfoFactory) -> Option<i64> {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return Some(0);
    }
    let is_write = |access: OpAccess| {
        !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess)
    };
    let used = info.info(instruction);
    if !used.used_registers().iter().any(|it| whole(it.register()) == Register::RSP && is_write(it.access())) {
        return Some(0);
    }
    let by = || match instruction.op1_kind() {
        OpKind::Immediate8to64 => Some(instruction.immediate8to64()),
        OpKind::Immediate32to64 => Some(instruction.immediate32to64()),
        _ => None,
    };
    let is_of_stack = instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pushfq | Mnemonic::Popfq => Some(i64::from(instruction.stack_pointer_increment())),
        Mnemonic::Pop if !is_of_stack => Some(i64::from(instruction.stack_pointer_increment())),
        Mnemonic::Add if is_of_stack => by(),
        Mnemonic::Sub if is_of_stack => by().and_then(i64::checked_neg),
        Mnemonic::Lea
            if is_of_stack
                && instruction.memory_base() == Register::RSP
                && instruction.memory_index() == Register::None =>
        {
            Some(instruction.memory_displacement64() as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::doubt::code::tests::code;
    use iced_x86::IcedError;
    use iced_x86::code_asm::*;

    const RAX: Cell = Cell::Register(Register::RAX);
    const RBX: Cell = Cell::Register(Register::RBX);

    fn held(variable: u32, cell: Cell) -> Held {
        Held { variable, offset: 0, bytes: 8, cell }
    }

    /// What is held in front of the last instruction, if the first one is told to be reached with these.
    fn at_end(
        told: &[Held],
        wanted: Wanted,
        count: usize,
        emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Option<Vec<Held>> {
        let code = code(&vec![1; count], emit);
        let mut wanted = wanted;
        wanted.told.entry(0).or_default().extend(told);
        Some(code.held(count - 1, &wanted)?.into_iter().collect())
    }

    #[test]
    fn a_register_holds_until_it_is_written() {
        let (a, b) = (held(0, RAX), held(1, RBX));
        let found = at_end(&[a, b], Wanted::default(), 4, |x| {
            x.cmp(rax, 3)?;
            x.mov(rcx, rax)?;
            x.xor(ebx, ebx)?;
            x.ret()
        });
        assert_eq!(found, Some(vec![held(0, RAX), held(0, Cell::Register(Register::RCX))]));
        let called = at_end(&[a, b], Wanted::default(), 2, |x| {
            x.call(0x9100u64)?;
            x.ret()
        });
        assert_eq!(called, Some(vec![]));
    }

    #[test]
    fn a_copy_of_too_few_bytes_is_none() {
        let found = at_end(&[held(0, RAX)], Wanted::default(), 2, |x| {
            x.mov(ecx, eax)?;
            x.ret()
        });
        assert_eq!(found, Some(vec![held(0, RAX)]));
        let narrow = Held { bytes: 4, ..held(0, RAX) };
        let found = at_end(&[narrow], Wanted::default(), 2, |x| {
            x.mov(ecx, eax)?;
            x.ret()
        });
        assert_eq!(found.map(|held| held.len()), Some(2));
    }

    #[test]
    fn all_ways_must_agree() {
        // On one of two ways the register is written.
        let found = at_end(&[held(0, RAX), held(1, RBX)], Wanted::default(), 4, |x| {
            let mut end = x.create_label();
            x.test(rcx, rcx)?;
            x.je(end)?;
            x.inc(rax)?;
            x.set_label(&mut end)?;
            x.ret()
        });
        assert_eq!(found, Some(vec![held(1, RBX)]));
    }

    #[test]
    fn what_was_held_in_the_turn_before_is_forgotten_but_of_what_lasts() {
        let emit = |x: &mut CodeAssembler| {
            let mut head = x.create_label();
            x.nop()?;
            x.set_label(&mut head)?;
            x.dec(rcx)?;
            x.jne(head)?;
            x.ret()
        };
        let told = [held(0, RAX), held(1, RBX)];
        assert_eq!(at_end(&told, Wanted::default(), 4, emit), Some(vec![]));
        let wanted = Wanted { lasting: BTreeSet::from([1]), ..Wanted::default() };
        assert_eq!(at_end(&told, wanted, 4, emit), Some(vec![held(1, RBX)]));
    }

    #[test]
    fn a_slot_of_the_frame_holds_what_is_stored_there_if_it_is_the_variables() {
        // Behind `sub rsp, 16` the slot at rsp + 8 is 8 below the stack pointer of the entry.
        let slot = held(0, Cell::Stack { offset: -8, bytes: 8 });
        let emit = |x: &mut CodeAssembler| {
            x.sub(rsp, 16)?;
            x.mov(qword_ptr(rsp + 8), rax)?;
            x.xor(eax, eax)?;
            x.call(0x9100u64)?;
            x.mov(qword_ptr(rsp), rax)?;
            x.ret()
        };
        assert_eq!(at_end(&[held(0, RAX)], Wanted::default(), 6, emit), Some(vec![]));
        let slots = || Wanted { slots: BTreeSet::from([slot]), ..Wanted::default() };
        assert_eq!(at_end(&[held(0, RAX)], slots(), 6, emit), Some(vec![slot]));
        // Half of it is written, or the frame is gone.
        for number in 0..2 {
            let found = at_end(&[held(0, RAX)], slots(), 5, |x| {
                x.sub(rsp, 16)?;
                x.mov(qword_ptr(rsp + 8), rax)?;
                x.xor(eax, eax)?;
                if number == 0 {
                    x.mov(dword_ptr(rsp + 12), ecx)?
                } else {
                    x.add(rsp, 16)?
                }
                x.ret()
            });
            assert_eq!(found, Some(vec![]), "{number}");
        }
    }

    #[test]
    fn nothing_is_concluded_of_code_with_tables_nor_where_the_runtime_goes_on() {
        let found = at_end(&[held(0, RAX)], Wanted::default(), 3, |x| {
            x.jmp(rdx)?;
            x.nop()?;
            x.ret()
        });
        assert_eq!(found, None);
    }
}

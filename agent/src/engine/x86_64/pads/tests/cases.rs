//! Functions of a program, each with a site whose displaced instructions are of one kind.

use super::world::{World, write};
use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

/// A function, where its site is, and what it is called with.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) function: u64,
    pub(super) site: u64,
    pub(super) displaced: usize,
    pub(super) arguments: Vec<(u64, u64)>,
    /// Passages of one call, by its first argument.
    pub(super) passages: fn(u64) -> u64,
}

impl Case {
    pub(super) fn call(&self, (one, two): (u64, u64)) -> u64 {
        call(self.function, one, two)
    }

    pub(super) fn results(&self) -> Vec<u64> {
        self.arguments.iter().map(|arguments| self.call(*arguments)).collect()
    }

    pub(super) fn passages_of_all(&self) -> u64 {
        self.arguments.iter().map(|(one, _)| (self.passages)(*one)).sum()
    }
}

pub(super) fn call(function: u64, one: u64, two: u64) -> u64 {
    // SAFETY: the address is that of a function of this kind, written by a test.
    let function: extern "C" fn(u64, u64) -> u64 = unsafe { std::mem::transmute(function as *const ()) };
    function(one, two)
}

type Write = fn(&mut CodeAssembler, &Data) -> Result<(CodeLabel, CodeLabel), IcedError>;

/// Name, passages of a call by its first argument, the function.
type Kind = (&'static str, fn(u64) -> u64, Write);

/// Addresses that functions use.
pub(super) struct Data {
    /// A word that holds 1000.
    number: u64,
    /// A word that holds the address of a function which returns its first argument and its own return address, added.
    pointer: u64,
    /// That function.
    callee: u64,
    /// A word out of the island's reach, holding 77.
    far: u64,
}

fn rip(address: u64) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, address as i64)
}

fn mark(asm: &mut CodeAssembler) -> Result<CodeLabel, IcedError> {
    // Another label may be here.
    asm.zero_bytes()?;
    let mut label = asm.create_label();
    asm.set_label(&mut label)?;
    asm.zero_bytes()?;
    Ok(label)
}

pub(super) fn all(world: &mut World) -> Vec<Case> {
    use iced_x86::code_asm::*;
    let (callee, _) = world.function(|asm| {
        asm.mov(rax, qword_ptr(rsp))?;
        asm.add(rax, rdi)?;
        asm.ret()?;
        Ok(vec![])
    });
    let data = Data { number: world.word(0), pointer: world.word(1), callee, far: world.far };
    write(data.number, &1000u64.to_le_bytes());
    write(data.pointer, &callee.to_le_bytes());
    write(data.far, &77u64.to_le_bytes());
    let once: fn(u64) -> u64 = |_| 1;
    let each: fn(u64) -> u64 = |count| count;
    let kinds: [Kind; 22] = [
        ("plain", once, |asm, _| {
            let site = mark(asm)?;
            asm.lea(rax, rdi + rsi + 1)?;
            let end = mark(asm)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("several", once, |asm, _| {
            let site = mark(asm)?;
            asm.mov(rax, rdi)?;
            asm.inc(rax)?;
            asm.add(rax, rsi)?;
            let end = mark(asm)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("operand beside the code", once, |asm, data| {
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, rip(data.number))?)?;
            let end = mark(asm)?;
            asm.add(rax, rdi)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("operand out of reach", once, |asm, data| {
            asm.mov(rax, rdi)?;
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with2(Code::Add_r64_rm64, Register::RAX, rip(data.far))?)?;
            let end = mark(asm)?;
            asm.adc(rax, rsi)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("operand out of reach, and a high byte", once, |asm, data| {
            asm.mov(rax, rdi)?;
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with2(Code::Add_r8_rm8, Register::AH, rip(data.far))?)?;
            let end = mark(asm)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("thread local", once, |asm, _| {
            let site = mark(asm)?;
            asm.mov(rax, qword_ptr(0).fs())?;
            let end = mark(asm)?;
            // The thread's own address is there twice (glibc's tcbhead_t).
            asm.sub(rax, qword_ptr(0x10).fs())?;
            asm.add(rax, rdi)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("flags", once, |asm, _| {
            asm.cmp(rdi, rsi)?;
            let site = mark(asm)?;
            asm.sbb(rax, rax)?;
            asm.nop()?;
            asm.nop()?;
            let end = mark(asm)?;
            asm.seto(al)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("division", once, |asm, _| {
            asm.xor(edx, edx)?;
            asm.mov(rax, rdi)?;
            let site = mark(asm)?;
            asm.or(rsi, 1)?;
            asm.div(rsi)?;
            let end = mark(asm)?;
            asm.add(rax, rdx)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("conditional branch", once, |asm, _| {
            let mut below = asm.create_label();
            asm.cmp(rdi, rsi)?;
            let site = mark(asm)?;
            asm.jb(below)?;
            asm.mov(eax, 1)?;
            let end = mark(asm)?;
            asm.ret()?;
            asm.set_label(&mut below)?;
            asm.mov(eax, 2)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("branch to the site", each, |asm, _| {
            asm.xor(eax, eax)?;
            let mut again = asm.create_label();
            asm.set_label(&mut again)?;
            let site = mark(asm)?;
            asm.inc(eax)?;
            asm.dec(rdi)?;
            asm.jne(again)?;
            let end = mark(asm)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("loop", each, |asm, _| {
            asm.mov(rcx, rdi)?;
            asm.xor(eax, eax)?;
            let mut again = asm.create_label();
            asm.set_label(&mut again)?;
            let site = mark(asm)?;
            asm.add(rax, rsi)?;
            asm.loop_(again)?;
            let end = mark(asm)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("jrcxz", once, |asm, _| {
            let mut zero = asm.create_label();
            asm.lea(rcx, rdi - 1)?;
            let site = mark(asm)?;
            asm.jrcxz(zero)?;
            asm.mov(eax, 1)?;
            let end = mark(asm)?;
            asm.ret()?;
            asm.set_label(&mut zero)?;
            asm.mov(eax, 2)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("jump", once, |asm, _| {
            let mut over = asm.create_label();
            let site = mark(asm)?;
            asm.mov(rax, rdi)?;
            asm.jmp(over)?;
            let end = mark(asm)?;
            asm.ud2()?;
            asm.set_label(&mut over)?;
            asm.inc(rax)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("jump by register", once, |asm, _| {
            let mut over = asm.create_label();
            asm.lea(rdx, qword_ptr(over))?;
            let site = mark(asm)?;
            asm.mov(rax, rdi)?;
            asm.jmp(rdx)?;
            let end = mark(asm)?;
            asm.ud2()?;
            asm.set_label(&mut over)?;
            asm.inc(rax)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("jump through memory", once, |asm, data| {
            // To the callee, whose return address is then the caller's.
            asm.sub(rsp, 8)?;
            let mut inner = asm.create_label();
            asm.call(inner)?;
            asm.add(rsp, 8)?;
            asm.ret()?;
            asm.set_label(&mut inner)?;
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with1(Code::Jmp_rm64, rip(data.pointer))?)?;
            let end = mark(asm)?;
            Ok((site, end))
        }),
        ("jump through the stack", once, |asm, data| {
            asm.sub(rsp, 8)?;
            let mut inner = asm.create_label();
            asm.call(inner)?;
            asm.add(rsp, 8)?;
            asm.ret()?;
            asm.set_label(&mut inner)?;
            asm.mov(rax, data.callee)?;
            asm.mov(qword_ptr(rsp + 8), rax)?;
            let site = mark(asm)?;
            asm.mov(ecx, 1)?;
            asm.jmp(qword_ptr(rsp + 8))?;
            let end = mark(asm)?;
            Ok((site, end))
        }),
        ("return", once, |asm, _| {
            let site = mark(asm)?;
            asm.lea(rax, rdi + rsi)?;
            asm.ret()?;
            let end = mark(asm)?;
            Ok((site, end))
        }),
        ("return that takes its argument along", once, |asm, _| {
            let mut inner = asm.create_label();
            asm.push(rdi)?;
            asm.call(inner)?;
            asm.ret()?;
            asm.set_label(&mut inner)?;
            let site = mark(asm)?;
            asm.mov(rax, qword_ptr(rsp + 8))?;
            asm.ret_1(8)?;
            let end = mark(asm)?;
            Ok((site, end))
        }),
        ("call", once, |asm, data| {
            asm.sub(rsp, 8)?;
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with_branch(Code::Call_rel32_64, data.callee)?)?;
            let end = mark(asm)?;
            asm.add(rsp, 8)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("call by register", once, |asm, data| {
            asm.sub(rsp, 8)?;
            asm.mov(rdx, data.callee)?;
            let site = mark(asm)?;
            asm.inc(rdi)?;
            asm.call(rdx)?;
            let end = mark(asm)?;
            asm.add(rsp, 8)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("call through memory", once, |asm, data| {
            asm.sub(rsp, 8)?;
            let site = mark(asm)?;
            asm.add_instruction(Instruction::with1(Code::Call_rm64, rip(data.pointer))?)?;
            let end = mark(asm)?;
            asm.add(rsp, 8)?;
            asm.ret()?;
            Ok((site, end))
        }),
        ("call through the stack", once, |asm, data| {
            asm.sub(rsp, 24)?;
            asm.mov(rax, data.callee)?;
            asm.mov(qword_ptr(rsp + 8), rax)?;
            let site = mark(asm)?;
            asm.nop()?;
            asm.call(qword_ptr(rsp + 8))?;
            let end = mark(asm)?;
            asm.add(rsp, 24)?;
            asm.ret()?;
            Ok((site, end))
        }),
    ];
    let mut cases = Vec::new();
    for (name, passages, kind) in kinds {
        let (function, labels) = world.function(|asm| {
            let (site, end) = kind(asm, &data)?;
            // Behind a return or a jump.
            asm.nop()?;
            asm.nop()?;
            asm.nop()?;
            asm.nop()?;
            Ok(vec![site, end])
        });
        let arguments = vec![(1, 2), (2, 1), (5, 5), (1, u64::MAX)];
        cases.push(Case {
            name,
            function,
            site: labels[0],
            displaced: (labels[1] - labels[0]) as usize,
            arguments,
            passages,
        });
    }
    cases
}

//! The program's state: all registers, the flags and the red zone are after a pad what they were before it, and what a
//! handler of the program sees in a pad is what it would see at the site.

use super::super::tables::Signal;
use super::super::{PadBody, PatchKind};
use super::cases::call;
use super::world::{Also, TestBody, World, program_handler, read, register, succeeds, word_at, write};
use iced_x86::code_asm::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Words of data: the general registers before the site, and after it, in the order of [`registers`]; then the flags;
/// then the stack pointer at the site.
const BEFORE: u64 = 100;
const AFTER: u64 = 120;
pub(super) const STACK: u64 = 140;
/// The red zone, as it was after the site.
const ZONE: u64 = 160;

fn registers() -> [AsmRegister64; 14] {
    [rax, rcx, rdx, rbx, rbp, rsi, r8, r9, r10, r11, r12, r13, r14, r15]
}

/// A function that sets all registers and the flags (its second argument) and fills its red zone, has a site of a five
/// byte `nop`, and keeps all of them after it. Its first argument stays in rdi.
pub(super) fn state_keeper(world: &mut World) -> (u64, u64) {
    let [before, after, stack, zone] = [BEFORE, AFTER, STACK, ZONE].map(|number| world.word(number));
    let (function, marks) = world.function(|asm| {
        let mut site = asm.create_label();
        for register in [rbx, rbp, r12, r13, r14, r15] {
            asm.push(register)?;
        }
        for slot in 1..=16 {
            asm.mov(qword_ptr(rsp - 8 * slot), 0x1000 + slot)?;
        }
        // The flags go through the stack, so they come before the red zone is used in earnest.
        asm.lea(rsp, rsp - 128)?;
        asm.push(rsi)?;
        asm.popfq()?;
        asm.lea(rsp, rsp + 128)?;
        asm.mov(rax, stack)?;
        asm.mov(qword_ptr(rax), rsp)?;
        for (number, register) in registers().into_iter().enumerate() {
            asm.mov(register, 0x1111_1111_1111_1111u64.wrapping_mul(number as u64 + 1))?;
        }
        asm.set_label(&mut site)?;
        asm.db(&[0x0f, 0x1f, 0x44, 0x00, 0x00])?;
        // rax by its own instruction (moffs), the others through it.
        asm.add_instruction(iced_x86::Instruction::with2(
            iced_x86::Code::Mov_moffs64_RAX,
            iced_x86::MemoryOperand::with_displ(after, 8),
            iced_x86::Register::RAX,
        )?)?;
        asm.mov(rax, after)?;
        for (number, register) in registers().into_iter().enumerate().skip(1) {
            asm.mov(qword_ptr(rax + 8 * number as i32), register)?;
        }
        asm.mov(rcx, zone)?;
        for slot in 1..=16 {
            asm.mov(rdx, qword_ptr(rsp - 8 * slot))?;
            asm.mov(qword_ptr(rcx + 8 * slot), rdx)?;
        }
        asm.mov(qword_ptr(rax + 8 * 14), rdi)?;
        asm.mov(qword_ptr(rax + 8 * 15), rsp)?;
        asm.lea(rsp, rsp - 128)?;
        asm.pushfq()?;
        asm.pop(rax)?;
        asm.lea(rsp, rsp + 128)?;
        for register in [r15, r14, r13, r12, rbp, rbx] {
            asm.pop(register)?;
        }
        asm.cld()?;
        asm.ret()?;
        Ok(vec![site])
    });
    let _ = before;
    (function, marks[0])
}

/// Carry, parity, auxiliary, zero, sign, direction, overflow.
const FLAGS: [u64; 7] = [1, 4, 0x10, 0x40, 0x80, 0x400, 0x800];
const ALWAYS: u64 = 0x202;

/// Calls the function with every combination of flags and each of the pointers in rdi, and looks at everything. Returns
/// how many calls that was.
pub(super) fn check(world: &World, function: u64, pointers: &[u64]) -> u64 {
    let mut calls = 0;
    for pointer in pointers {
        for combination in 0..1 << FLAGS.len() {
            let flags: u64 = (0..FLAGS.len()).filter(|bit| combination >> bit & 1 == 1).map(|bit| FLAGS[bit]).sum();
            let after = call(function, *pointer, flags | ALWAYS);
            assert_eq!(after & FLAGS.iter().sum::<u64>(), flags);
            calls += 1;
            for number in 0..registers().len() as u64 {
                let expected = 0x1111_1111_1111_1111u64.wrapping_mul(number + 1);
                assert_eq!(word_at(world.word(AFTER + number)), expected, "register {number}");
            }
            assert_eq!(word_at(world.word(AFTER + 14)), *pointer);
            assert_eq!(word_at(world.word(AFTER + 15)), word_at(world.word(STACK)));
            for slot in 1..=16 {
                assert_eq!(word_at(world.word(ZONE + slot)), 0x1000 + slot, "red zone");
            }
        }
    }
    calls
}

const PROBE: u32 = 9;

/// What a handler saw that was not as at the site.
static WRONG: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static SITE: AtomicU64 = AtomicU64::new(0);
static STACK_AT: AtomicU64 = AtomicU64::new(0);

/// A profiler: looks at the place, the stack pointer and rax.
extern "C" fn profiler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the context.
    let [place, stack, first] =
        [libc::REG_RIP, libc::REG_RSP, libc::REG_RAX].map(|number| unsafe { *register(context, number) });
    let as_at_the_site = place == SITE.load(Ordering::SeqCst)
        && stack == word_at(STACK_AT.load(Ordering::SeqCst))
        && first == 0x1111_1111_1111_1111;
    if !as_at_the_site {
        WRONG.fetch_add(1, Ordering::SeqCst);
    }
}

extern "C" fn quiet(_: i32) {}

#[test]
fn registers_flags_and_red_zone_are_what_they_were() {
    for (patch, go) in [(PatchKind::Jump, false), (PatchKind::Trap, false), (PatchKind::Jump, true)] {
        for also in [Also::Nothing, Also::Load, Also::Signal(Signal::Urgent), Also::Signal(Signal::Profile)] {
            succeeds(|| {
                let mut world = World::new(go);
                let usual = libc::SA_SIGINFO | libc::SA_ONSTACK;
                program_handler(libc::SIGPROF, profiler as *const () as usize, usual);
                program_handler(libc::SIGURG, quiet as *const () as usize, libc::SA_ONSTACK);
                world.install();
                let (function, site) = state_keeper(&mut world);
                SITE.store(site, Ordering::SeqCst);
                STACK_AT.store(world.word(STACK), Ordering::SeqCst);
                let body = TestBody { probe: PROBE, island: world.island, also };
                world.arm(site, 5, patch, &[&body]);
                // What rdi points to: the body of a load reads it, and a bad pointer is recovered from.
                let calls = check(&world, function, &[world.word(0), 0x10]);
                assert_eq!(world.hits(PROBE), calls);
                let profiled = if also == Also::Signal(Signal::Profile) { world.hits(PROBE) } else { 0 };
                assert_eq!(CALLS.load(Ordering::SeqCst), profiled);
                assert_eq!(WRONG.load(Ordering::SeqCst), 0);
            });
        }
    }
}

/// Single steps: the trap flag's own signal at each instruction.
static STEPPED_IN: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);
static INJECTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static STEPPING: AtomicBool = AtomicBool::new(false);

extern "C" fn stepper(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    const TRAP_FLAG: u64 = 0x100;
    // SAFETY: the context.
    let place = unsafe { *register(context, libc::REG_RIP) };
    // SAFETY: the siginfo.
    assert_eq!(unsafe { (*info).si_code }, 2, "TRAP_TRACE");
    STEPS.fetch_add(1, Ordering::SeqCst);
    if (INJECTED[0].load(Ordering::SeqCst)..INJECTED[1].load(Ordering::SeqCst)).contains(&place) {
        STEPPED_IN.fetch_add(1, Ordering::SeqCst);
    }
    if place == SITE.load(Ordering::SeqCst) {
        // SAFETY: the context.
        let [stack, first] = [libc::REG_RSP, libc::REG_RAX].map(|number| unsafe { *register(context, number) });
        let as_at_the_site = stack == word_at(STACK_AT.load(Ordering::SeqCst)) && first == 0x1111_1111_1111_1111;
        WRONG.fetch_add((!as_at_the_site).into(), Ordering::SeqCst);
    }
    if !STEPPING.load(Ordering::SeqCst) {
        // SAFETY: the context.
        unsafe { *register(context, libc::REG_EFL) &= !TRAP_FLAG };
    }
}

/// Single steps through the function, and so through every instruction of the pad: each is shown as the site, with its
/// stack pointer and rax. Returns the number of steps.
pub(super) fn step_through(world: &mut World, bodies: &[&dyn PadBody], pointer: u64) -> u64 {
    program_handler(libc::SIGTRAP, stepper as *const () as usize, libc::SA_SIGINFO);
    world.install();
    let (function, site) = state_keeper(world);
    let tables = world.island.tables().0;
    INJECTED[0].store(tables, Ordering::SeqCst);
    INJECTED[1].store(tables + crate::engine::area::CODE_BYTES as u64, Ordering::SeqCst);
    SITE.store(site, Ordering::SeqCst);
    STACK_AT.store(world.word(STACK), Ordering::SeqCst);
    let original = read(site, 5);
    let stepped = |world: &mut World, armed: bool| {
        if armed {
            world.arm(site, 5, PatchKind::Jump, bodies);
        }
        STEPS.store(0, Ordering::SeqCst);
        STEPPING.store(true, Ordering::SeqCst);
        // The function takes its flags from its argument, and leaves with the trap flag set.
        let after = call(function, pointer, 0x100 | ALWAYS);
        STEPPING.store(false, Ordering::SeqCst);
        assert_ne!(after & 0x100, 0);
        write(site, &original);
        STEPS.load(Ordering::SeqCst)
    };
    let plain = stepped(world, false);
    let through = stepped(world, true);
    assert!(through > plain + 8, "{through} {plain}");
    assert_eq!(STEPPED_IN.load(Ordering::SeqCst), 0);
    assert_eq!(WRONG.load(Ordering::SeqCst), 0);
    through - plain
}

#[test]
fn a_program_that_single_steps_itself_sees_no_pad() {
    for also in [Also::Nothing, Also::Load, Also::Signal(Signal::Urgent)] {
        succeeds(|| {
            program_handler(libc::SIGURG, quiet as *const () as usize, libc::SA_ONSTACK);
            let mut world = World::new(false);
            let body = TestBody { probe: PROBE, island: world.island, also };
            let pointer = world.word(0);
            step_through(&mut world, &[&body], pointer);
            assert_eq!(world.hits(PROBE), 1);
        });
    }
}

//! Faults: of displaced instructions, seen by the program's handler at their own place; of a pad's own accesses, seen by
//! nobody.

use super::super::PatchKind;
use super::super::tables::KernelAction;
use super::cases::call;
use super::world::{Also, TestBody, World, child, kernel_action, program_handler, register, succeeds, word_at, write};
use iced_x86::code_asm::*;
use nix::sys::signal::Signal as UnixSignal;
use nix::sys::wait::WaitStatus;
use std::sync::atomic::{AtomicU64, Ordering};

/// A function whose site is two loads through its first argument; returns their sum and the second argument.
struct Loads {
    function: u64,
    site: u64,
    /// The second load.
    second: u64,
    /// Behind both.
    after: u64,
    /// Returns 4242.
    landing: u64,
}

/// From the first word that it loads to the second.
const APART: u64 = 0x1000;
const PROBE: u32 = 3;
const SEGV_MAPERR: u64 = 1;
const SEGV_ACCERR: u64 = 2;

fn loads(world: &mut World) -> Loads {
    let (function, marks) = world.function(|asm| {
        let [mut site, mut second, mut after, mut landing] = std::array::from_fn(|_| asm.create_label());
        asm.mov(rax, rsi)?;
        asm.set_label(&mut site)?;
        asm.add(rax, qword_ptr(rdi))?;
        asm.set_label(&mut second)?;
        asm.add(rax, qword_ptr(rdi + APART as i32))?;
        asm.set_label(&mut after)?;
        asm.ret()?;
        asm.set_label(&mut landing)?;
        asm.mov(eax, 4242)?;
        asm.ret()?;
        Ok(vec![site, second, after, landing])
    });
    Loads { function, site: marks[0], second: marks[1], after: marks[2], landing: marks[3] }
}

/// In a child, for each way to the pad: the program's handler for SIGSEGV, the engine's over it, and the loads armed. The
/// second load is inside the jump, so that only a punned one may stand there.
fn for_all(handler: usize, flags: i32, scenario: impl Fn(&World, &Loads)) {
    for patch in [PatchKind::Trap, PatchKind::Punned { mask: 0x00ff_0000, value: 0x00cc_0000 }] {
        for go in [false, true] {
            succeeds(|| {
                let (world, loads) = armed(handler, flags, patch, go);
                scenario(&world, &loads);
            });
        }
    }
}

fn armed(handler: usize, flags: i32, patch: PatchKind, go: bool) -> (World, Loads) {
    let mut world = World::new(go);
    program_handler(libc::SIGSEGV, handler, flags);
    world.install();
    let loads = loads(&mut world);
    let body = TestBody { probe: PROBE, island: world.island, also: Also::Load };
    world.arm(loads.site, (loads.after - loads.site) as usize, patch, &[&body]);
    write(good(&world), &5u64.to_le_bytes());
    write(good(&world) + APART, &6u64.to_le_bytes());
    (world, loads)
}

/// Where both words can be loaded: 5 and 6.
fn good(world: &World) -> u64 {
    world.word(16)
}

/// Where no word can be loaded.
const NIL: u64 = 0x10;

// What the program's handler saw last.
static PLACE: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static CODE: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
// What it is to do.
static GO_ON: AtomicU64 = AtomicU64::new(0);
static GOOD: AtomicU64 = AtomicU64::new(0);

fn notice(info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel gave both.
    unsafe {
        PLACE.store(*register(context, libc::REG_RIP), Ordering::SeqCst);
        STACK.store(*register(context, libc::REG_RSP), Ordering::SeqCst);
        ADDRESS.store((*info).si_addr() as u64, Ordering::SeqCst);
        CODE.store((*info).si_code as u64, Ordering::SeqCst);
    }
}

fn seen() -> (u64, u64, u64) {
    (PLACE.load(Ordering::SeqCst), ADDRESS.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst))
}

/// As Go's runtime does for a nil dereference: goes on elsewhere.
extern "C" fn go_on_elsewhere(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    notice(info, context);
    // SAFETY: the context.
    unsafe { *register(context, libc::REG_RIP) = GO_ON.load(Ordering::SeqCst) };
}

/// Makes the pointer good: the instruction is tried again.
extern "C" fn mend(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    notice(info, context);
    // SAFETY: the context.
    unsafe { *register(context, libc::REG_RDI) = GOOD.load(Ordering::SeqCst) };
}

/// Does not come back: siglongjmp(3).
extern "C" fn jump_out(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    notice(info, context);
    let mut only = 1u64 << (libc::SIGSEGV - 1);
    // SAFETY: the mask, and then a function of the test's that restores what another has saved.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw mut only, 0, 8);
        let out: extern "C" fn() -> ! = std::mem::transmute(GO_ON.load(Ordering::SeqCst) as *const ());
        out()
    }
}

const USUAL: i32 = libc::SA_SIGINFO | libc::SA_ONSTACK;

#[test]
fn a_handler_sees_the_instructions_own_place_and_its_way_on_is_gone() {
    for_all(go_on_elsewhere as *const () as usize, USUAL, |world, loads| {
        assert_eq!(call(loads.function, good(world), 1), 12);
        assert_eq!(world.hits(PROBE), 1);
        GO_ON.store(loads.landing, Ordering::SeqCst);
        assert_eq!(call(loads.function, NIL, 1), 4242);
        assert_eq!(seen(), (loads.site, NIL, SEGV_MAPERR));
        // The body's own load faulted as well, and nobody saw that.
        assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (1, 2));
        let top = STACK.load(Ordering::SeqCst);
        // The first load is good: the data page ends behind it.
        assert_eq!(call(loads.function, world.far, 1), 4242);
        assert_eq!(seen(), (loads.second, world.far + APART, SEGV_ACCERR));
        assert_eq!(STACK.load(Ordering::SeqCst), top);
        assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (2, 3));
    });
}

#[test]
fn an_instruction_that_a_handler_has_mended_is_tried_again_and_counted_once() {
    for_all(mend as *const () as usize, USUAL, |world, loads| {
        GOOD.store(good(world), Ordering::SeqCst);
        assert_eq!(call(loads.function, NIL, 1), 12);
        assert_eq!(seen(), (loads.site, NIL, SEGV_MAPERR));
        write(world.far, &70u64.to_le_bytes());
        assert_eq!(call(loads.function, world.far, 1), 77);
        assert_eq!(seen(), (loads.second, world.far + APART, SEGV_ACCERR));
        assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (2, 2));
    });
}

#[test]
fn a_handler_that_skips_an_instruction_goes_on_with_the_next_one() {
    for_all(go_on_elsewhere as *const () as usize, USUAL, |world, loads| {
        GO_ON.store(loads.second, Ordering::SeqCst);
        // Nothing is mapped before the text; its own second word is the other.
        let before = world.text + 8 - APART;
        assert_eq!(call(loads.function, before, 1), word_at(world.text + 8).wrapping_add(1));
        assert_eq!(seen(), (loads.site, before, SEGV_ACCERR));
        assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (1, 1));
    });
}

#[test]
fn a_handler_need_not_come_back() {
    for flags in [USUAL, libc::SA_SIGINFO, USUAL | libc::SA_NODEFER] {
        succeeds(|| {
            let patch = PatchKind::Punned { mask: 0x00ff_0000, value: 0x00cc_0000 };
            let (mut world, loads) = armed(jump_out as *const () as usize, flags, patch, true);
            let saved = world.word(64);
            // sigsetjmp(3): calls the loads, and returns 99 where they were left.
            let (guarded, out) = world.function(|asm| {
                let mut out = asm.create_label();
                let registers = [rbx, rbp, r12, r13, r14, r15];
                for register in registers {
                    asm.push(register)?;
                }
                asm.mov(rax, saved)?;
                asm.mov(qword_ptr(rax), rsp)?;
                asm.sub(rsp, 8)?;
                asm.mov(rax, loads.function)?;
                asm.call(rax)?;
                asm.add(rsp, 8)?;
                for register in registers.into_iter().rev() {
                    asm.pop(register)?;
                }
                asm.ret()?;
                asm.set_label(&mut out)?;
                asm.mov(rax, saved)?;
                asm.mov(rsp, qword_ptr(rax))?;
                for register in registers.into_iter().rev() {
                    asm.pop(register)?;
                }
                asm.mov(eax, 99)?;
                asm.ret()?;
                Ok(vec![out])
            });
            GO_ON.store(out[0], Ordering::SeqCst);
            for _ in 0..1000 {
                assert_eq!(call(guarded, NIL, 1), 99);
                assert_eq!(call(guarded, good(&world), 1), 12);
            }
            assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (1000, 2000));
        });
    }
}

#[test]
fn a_handler_for_one_fault_is_gone_after_it_and_the_engines_own_faults_go_on() {
    let status = child(|| {
        let handler = mend as *const () as usize;
        let (mut world, loads) = armed(handler, USUAL | libc::SA_RESETHAND, PatchKind::Trap, false);
        GOOD.store(good(&world), Ordering::SeqCst);
        assert_eq!(call(loads.function, NIL, 1), 12);
        let all = world.memory().view().handlers().unwrap();
        let installed = kernel_action(libc::SIGSEGV, None).handler;
        assert_eq!(installed, all.entries[super::super::tables::Signal::Segment as usize].defaulted.0);
        // The body's load faults and is recovered from; what is displaced here cannot fault.
        let (harmless, marks) = world.function(|asm| {
            let mut site = asm.create_label();
            asm.set_label(&mut site)?;
            asm.lea(rax, rdi + 1)?;
            asm.nop()?;
            asm.ret()?;
            Ok(vec![site])
        });
        let body = TestBody { probe: PROBE, island: world.island, also: Also::Load };
        world.arm(marks[0], 5, PatchKind::Jump, &[&body]);
        assert_eq!(call(harmless, NIL, 0), NIL + 1);
        assert_eq!((CALLS.load(Ordering::SeqCst), world.hits(PROBE)), (1, 2));
        call(loads.function, NIL, 1);
    });
    assert!(matches!(status, WaitStatus::Signaled(_, UnixSignal::SIGSEGV, _)), "{status:?}");
}

#[test]
fn without_a_handler_the_fault_takes_the_process_as_it_would() {
    for (handler, patch) in [(libc::SIG_DFL, PatchKind::Trap), (libc::SIG_IGN, PatchKind::Trap)] {
        let status = child(|| {
            let (world, loads) = armed(handler, 0, patch, false);
            assert_eq!(call(loads.function, good(&world), 1), 12);
            call(loads.function, NIL, 1);
        });
        assert!(matches!(status, WaitStatus::Signaled(_, UnixSignal::SIGSEGV, _)), "{status:?}");
    }
}

/// What a tracer sees of a process that dies of a fault: the siginfo of each signal and the instruction pointer.
fn death(scenario: impl FnOnce()) -> Vec<([i32; 3], u64, u64)> {
    use nix::sys::ptrace;
    // SAFETY: as in `child`.
    let pid = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            nix::unistd::alarm::set(60);
            ptrace::traceme().unwrap();
            scenario();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
    };
    let mut seen = Vec::new();
    loop {
        match nix::sys::wait::waitpid(pid, None).unwrap() {
            WaitStatus::Stopped(_, signal) => {
                let info = ptrace::getsiginfo(pid).unwrap();
                let rip = ptrace::getregs(pid).unwrap().rip;
                // SAFETY: the signals of these tests are faults.
                let address = unsafe { info.si_addr() } as u64;
                seen.push(([info.si_signo, info.si_errno, info.si_code], address, rip));
                ptrace::cont(pid, signal).unwrap();
            }
            WaitStatus::Signaled(_, signal, _) => {
                assert_eq!(seen.last().map(|(info, ..)| info[0]), Some(signal as i32));
                return seen;
            }
            other => panic!("the child ended with {other:?}"),
        }
    }
}

#[test]
fn the_signal_that_takes_the_process_says_what_the_fault_said_at_the_place_of_the_program() {
    let site = std::cell::Cell::new(0u64);
    // The pipe carries the site's address out of the child.
    let (read, write_end) = nix::unistd::pipe().unwrap();
    let seen = death(|| {
        let (_, loads) = armed(libc::SIG_DFL, 0, PatchKind::Trap, false);
        nix::unistd::write(&write_end, &loads.site.to_le_bytes()).unwrap();
        call(loads.function, NIL, 1);
    });
    let mut bytes = [0; 8];
    nix::unistd::read(&read, &mut bytes).unwrap();
    site.set(u64::from_le_bytes(bytes));
    // The trap of the site, the guarded load, the displaced load, and the signal that it was sent again as.
    let [(trap, ..), (guarded, ..), (fault, address, _), last] = seen[..] else { panic!("{seen:x?}") };
    assert_eq!((trap[0], guarded[0], fault[0]), (libc::SIGTRAP, libc::SIGSEGV, libc::SIGSEGV));
    assert_eq!(last, (fault, address, site.get()));
    assert_eq!((fault[2] as u64, address), (SEGV_MAPERR, NIL));
}

#[test]
fn the_action_that_the_engine_installs_keeps_all_of_the_old_one_but_its_handler() {
    succeeds(|| {
        let mut world = World::new(false);
        let flags = USUAL | libc::SA_NODEFER | libc::SA_RESTART | libc::SA_RESETHAND;
        program_handler(libc::SIGSEGV, mend as *const () as usize, flags);
        let mut old = kernel_action(libc::SIGSEGV, None);
        old.mask = 0x40;
        kernel_action(libc::SIGSEGV, Some(old));
        world.install();
        let new = kernel_action(libc::SIGSEGV, None);
        assert_eq!(KernelAction { handler: old.handler, flags: old.flags, ..new }, old);
        assert_eq!(new.flags, old.flags & !(libc::SA_RESETHAND as u32 as u64));
        assert!(world.is_injected(new.handler));
        assert_eq!(world.memory().view().old_action(super::super::tables::Signal::Segment), Some(old));
    });
}

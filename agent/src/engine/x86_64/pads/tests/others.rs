//! Signals that have nothing to do with the engine: what a program's handler sees with the engine's installed is what it
//! saw before.

use super::super::PatchKind;
use super::super::tables::Signal;
use super::cases::call;
use super::world::{Also, TestBody, World, child, kernel_action, program_handler, read, register, succeeds, write};
use iced_x86::code_asm::*;
use nix::sys::signal::Signal as UnixSignal;
use nix::sys::wait::WaitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a handler saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Event {
    signal: i32,
    code: i32,
    address: u64,
    place: u64,
    stack: u64,
    blocked: u64,
    /// On the alternate stack.
    alternate: bool,
    /// What it returns to.
    returns_to: u64,
    aligned: bool,
    direction: bool,
}

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());
static SKIP: AtomicU64 = AtomicU64::new(0);
/// The end of the frame as the handler was entered: what stands there is the return address.
static ENTERED_AT: AtomicU64 = AtomicU64::new(0);

/// Steps over the faulting instruction, if it is one that would fault again.
extern "C" fn record(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let mut blocked = 0u64;
    // SAFETY: plain system calls, and what the kernel gave.
    let event = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, 0, &raw mut blocked, 8);
        let mut stack: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(std::ptr::null(), &mut stack);
        let entered = ENTERED_AT.load(Ordering::SeqCst);
        Event {
            signal,
            code: (*info).si_code,
            address: (*info).si_addr() as u64,
            place: *register(context, libc::REG_RIP),
            stack: *register(context, libc::REG_RSP),
            blocked,
            alternate: stack.ss_flags & libc::SS_ONSTACK != 0,
            returns_to: (entered as *const u64).read(),
            aligned: entered % 16 == 8,
            direction: false,
        }
    };
    EVENTS.lock().unwrap().push(event);
    // SAFETY: the context.
    unsafe { *register(context, libc::REG_RIP) += SKIP.load(Ordering::SeqCst) };
}

/// The handler as the kernel enters it: keeps the stack pointer and goes on to `record`.
fn entry(world: &mut World) -> usize {
    let (entry, _) = world.function(|asm| {
        asm.mov(rax, ENTERED_AT.as_ptr() as u64)?;
        asm.mov(qword_ptr(rax), rsp)?;
        asm.mov(rax, record as *const () as u64)?;
        asm.jmp(rax)?;
        Ok(vec![])
    });
    entry as usize
}

/// Functions that raise a signal of each kind, and how long the instruction is that has to be skipped.
fn raisers(world: &mut World) -> Vec<(i32, u64, u64)> {
    let mut raiser = |write: fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>| {
        world
            .function(|asm| {
                write(asm)?;
                asm.ret()?;
                Ok(vec![])
            })
            .0
    };
    vec![
        (libc::SIGTRAP, raiser(|asm| asm.int3()), 0),
        (libc::SIGTRAP, raiser(|asm| asm.int(3)), 0),
        (libc::SIGILL, raiser(|asm| asm.ud2()), 2),
        (libc::SIGILL, raiser(|asm| asm.db(&[0x06])), 1),
        (libc::SIGSEGV, raiser(|asm| asm.mov(rax, qword_ptr(rdi))), 3),
        (libc::SIGSEGV, raiser(|asm| asm.hlt()), 1),
        (
            libc::SIGFPE,
            raiser(|asm| {
                asm.xor(edx, edx)?;
                asm.xor(ecx, ecx)?;
                asm.div(ecx)
            }),
            2,
        ),
    ]
}

#[test]
fn a_handler_sees_with_the_engine_what_it_saw_without() {
    for flags in [0, libc::SA_SIGINFO, libc::SA_ONSTACK, libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_SIGINFO] {
        succeeds(|| {
            let mut world = World::new(true);
            let handler = entry(&mut world);
            for signal in Signal::ALL {
                // The siginfo is only filled with SA_SIGINFO; what is compared needs none of it without.
                program_handler(signal.number(), handler, flags);
                let mut action = kernel_action(signal.number(), None);
                action.mask = 1 << (libc::SIGUSR1 - 1) | 1 << (libc::SIGCHLD - 1);
                kernel_action(signal.number(), Some(action));
            }
            let raisers = raisers(&mut world);
            let run = || {
                for (_, function, skip) in &raisers {
                    SKIP.store(*skip, Ordering::SeqCst);
                    call(*function, 0x10, 0);
                }
                SKIP.store(0, Ordering::SeqCst);
                for signal in Signal::ALL {
                    // SAFETY: sends a signal to this thread.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal.number()) };
                }
                std::mem::take(&mut *EVENTS.lock().unwrap())
            };
            let mut without = run();
            let expected: Vec<i32> = raisers.iter().map(|(signal, ..)| *signal).collect();
            assert_eq!(without.iter().map(|event| event.signal).take(expected.len()).collect::<Vec<_>>(), expected);
            assert_eq!(without.len(), expected.len() + Signal::ALL.len());
            world.install();
            let mut with = run();
            if flags & libc::SA_SIGINFO == 0 {
                // Nothing fills it then: it is what the stack had there.
                for event in without.iter_mut().chain(&mut with) {
                    (event.code, event.address) = (0, 0);
                }
            }
            assert_eq!(with, without);
            assert!(with.iter().all(|event| event.aligned));
        });
    }
}

#[test]
fn default_actions_happen() {
    type Raise = fn(&mut World);
    let raises: [(UnixSignal, Raise); 6] = [
        (UnixSignal::SIGTRAP, |world| {
            let (function, _) = world.function(|asm| asm.int3().map(|()| vec![]));
            call(function, 0, 0);
        }),
        (UnixSignal::SIGILL, |world| {
            let (function, _) = world.function(|asm| asm.ud2().map(|()| vec![]));
            call(function, 0, 0);
        }),
        (UnixSignal::SIGSEGV, |world| {
            let (function, _) = world.function(|asm| asm.hlt().map(|()| vec![]));
            call(function, 0, 0);
        }),
        (UnixSignal::SIGBUS, |_| nix::sys::signal::raise(UnixSignal::SIGBUS).unwrap()),
        (UnixSignal::SIGSEGV, |_| nix::sys::signal::raise(UnixSignal::SIGSEGV).unwrap()),
        (UnixSignal::SIGPROF, |_| nix::sys::signal::raise(UnixSignal::SIGPROF).unwrap()),
    ];
    for (signal, raise) in raises {
        let status = child(|| {
            let mut world = World::new(true);
            for signal in Signal::ALL {
                program_handler(signal.number(), libc::SIG_DFL, 0);
            }
            world.install();
            // Its default action is none.
            nix::sys::signal::raise(UnixSignal::SIGURG).unwrap();
            raise(&mut world);
        });
        assert!(matches!(status, WaitStatus::Signaled(_, by, _) if by == signal), "{signal}: {status:?}");
    }
}

#[test]
fn ignored_signals_stay_ignored_unless_the_cpu_raises_them() {
    let status = child(|| {
        let mut world = World::new(true);
        for signal in Signal::ALL {
            program_handler(signal.number(), libc::SIG_IGN, 0);
        }
        world.install();
        for signal in Signal::ALL {
            nix::sys::signal::raise(UnixSignal::try_from(signal.number()).unwrap()).unwrap();
        }
        let (function, _) = world.function(|asm| asm.ud2().map(|()| vec![]));
        call(function, 0, 0);
    });
    assert!(matches!(status, WaitStatus::Signaled(_, UnixSignal::SIGILL, _)), "{status:?}");
}

#[test]
fn a_thread_that_comes_back_into_a_punned_jump_goes_on_in_the_pad() {
    // A first instruction of one to four bytes, so that the second is at each place of the displacement.
    let nops: [&[u8]; 4] = [&[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00], &[0x0f, 0x1f, 0x40, 0x00]];
    for (number, nop) in nops.into_iter().enumerate() {
        succeeds(|| {
            let mut world = World::new(true);
            world.install();
            let (function, _) = world.function(|asm| {
                asm.db(nop)?;
                asm.lea(rax, rdi + rsi)?;
                asm.inc(rax)?;
                asm.ret()?;
                Ok(vec![])
            });
            let byte: u32 = if nop.len() == 4 { 0x06 } else { 0xcc };
            let shift = 8 * number as u32;
            let patch = PatchKind::Punned { mask: 0xff << shift, value: byte << shift };
            let body = TestBody { probe: 1, island: world.island, also: Also::Nothing };
            let original = read(function, 5);
            let displaced = nop.len() + 4;
            let image = world.arm(function, displaced, patch, &[&body]);
            let inside = function + nop.len() as u64;
            assert_eq!(call(function, 20, 22), 43);
            assert_eq!(world.hits(1), 1);
            // Not through the site: nothing is counted.
            assert_eq!(call(inside, 20, 22), 43);
            assert_eq!(world.hits(1), 1);
            // The bytes are the program's again, but a thread has met the trap already.
            write(function, &original);
            let copy = image.boundaries[1].1;
            assert_eq!(world.memory().view().find_trap(riptrace_protocol::ids::Avma(inside)), Some(copy));
            assert_eq!(call(image.places.start.0, 20, 22), 43);
            assert_eq!(call(copy.0, 20, 22), 43);
        });
    }
}

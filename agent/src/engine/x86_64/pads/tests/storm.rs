//! Many threads through many pads, while preemption and profile signals fly and trap sites come and go: every result is
//! right, every passage is counted, and the program's profiler sees its own code only.

use super::super::PatchKind;
use super::super::tables::Signal;
use super::cases::{self, Case};
use super::world::{Also, TestBody, World, kernel_action, program_handler, read, register, succeeds};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

const THREADS: usize = 4;
/// The storm goes on until so many signals have met a thread in a pad; `RIPTRACE_STORM` asks for more.
const SIGNALS: u64 = 400;
/// How often a thread is interrupted, in nanoseconds: by each of the two signals.
const INTERVALS_NS: [i64; 2] = [90_000, 170_000];

static INJECTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static PROFILED: AtomicU64 = AtomicU64::new(0);
static PROFILED_INJECTED: AtomicU64 = AtomicU64::new(0);
static PREEMPTIBLE: AtomicU64 = AtomicU64::new(0);
static IN_PADS: AtomicU64 = AtomicU64::new(0);

fn is_injected(context: *mut libc::ucontext_t) -> bool {
    // SAFETY: the context.
    let place = unsafe { *register(context, libc::REG_RIP) };
    (INJECTED[0].load(Ordering::Relaxed)..INJECTED[1].load(Ordering::Relaxed)).contains(&place)
}

extern "C" fn profiler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    PROFILED.fetch_add(1, Ordering::Relaxed);
    PROFILED_INJECTED.fetch_add(is_injected(context).into(), Ordering::Relaxed);
}

extern "C" fn scheduler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let place = if is_injected(context) { &IN_PADS } else { &PREEMPTIBLE };
    place.fetch_add(1, Ordering::Relaxed);
}

/// As Go does: all signals are blocked in a handler, and it has a stack of its own.
fn go_handler(signal: Signal, handler: usize) {
    program_handler(signal.number(), handler, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART);
    let mut action = kernel_action(signal.number(), None);
    action.mask = u64::MAX;
    kernel_action(signal.number(), Some(action));
}

/// A timer that interrupts the calling thread, until the thread ends.
fn interrupted_by(signal: i32, interval_ns: i64) {
    // SAFETY: zeroes are valid, and both calls read what is given.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = std::mem::zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer), 0);
        let every = libc::timespec { tv_sec: 0, tv_nsec: interval_ns };
        let set = libc::itimerspec { it_interval: every, it_value: every };
        assert_eq!(libc::timer_settime(timer, 0, &set, std::ptr::null_mut()), 0);
    }
}

/// Rounds through all cases until the storm is over; returns how many.
fn work(cases: &[Case], expected: &[Vec<u64>], over: &AtomicBool) -> u64 {
    interrupted_by(libc::SIGURG, INTERVALS_NS[0]);
    interrupted_by(libc::SIGPROF, INTERVALS_NS[1]);
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        for (case, expected) in cases.iter().zip(expected) {
            assert_eq!(&case.results(), expected, "{}, round {rounds}", case.name);
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn everything_at_once() {
    succeeds(|| {
        let asked: Option<u64> = std::env::var("RIPTRACE_STORM").ok().map(|signals| signals.parse().unwrap());
        let mut world = World::new(true);
        go_handler(Signal::Profile, profiler as *const () as usize);
        go_handler(Signal::Urgent, scheduler as *const () as usize);
        program_handler(libc::SIGTRAP, libc::SIG_DFL, 0);
        world.install();
        let tables = world.island.tables().0;
        INJECTED[0].store(tables, Ordering::Relaxed);
        INJECTED[1].store(tables + crate::engine::area::CODE_BYTES as u64, Ordering::Relaxed);
        let cases = cases::all(&mut world);
        let expected: Vec<Vec<u64>> = cases.iter().map(Case::results).collect();
        // Jumps, punned jumps and traps in turn; every third is a trap that comes and goes.
        let mut toggled = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let body = TestBody { probe: number as u32, island: world.island, also: Also::Nothing };
            let patch = match number % 3 {
                _ if case.displaced < 5 => PatchKind::Trap,
                0 => PatchKind::Jump,
                1 => PatchKind::Punned { mask: 0xffff, value: 0x06cc },
                _ => PatchKind::Trap,
            };
            let original = read(case.site, 1)[0];
            world.arm(case.site, case.displaced, patch, &[&body]);
            if number % 3 == 2 && patch == PatchKind::Trap {
                toggled.push((case.site, original));
            }
        }
        assert!(toggled.len() > 3);
        let over = AtomicBool::new(false);
        let wanted = asked.unwrap_or(SIGNALS);
        let rounds: u64 = std::thread::scope(|scope| {
            let worker = || {
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&cases, &expected, &over)));
                over.store(true, Ordering::Relaxed);
                ran.expect("a wrong result; see above")
            };
            let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
            let mut turn = 0usize;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                let (site, original) = toggled[turn % toggled.len()];
                let byte = if (turn / toggled.len()).is_multiple_of(2) { original } else { 0xcc };
                // SAFETY: one byte of mapped text, written as a whole.
                unsafe { AtomicU8::from_ptr(site as *mut u8) }.store(byte, Ordering::SeqCst);
                if IN_PADS.load(Ordering::Relaxed).min(PROFILED.load(Ordering::Relaxed)) >= wanted {
                    over.store(true, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let sites: Vec<u64> = toggled.iter().map(|(site, _)| *site).collect();
        for (number, case) in cases.iter().enumerate() {
            let passages = case.passages_of_all() * rounds;
            let hits = world.hits(number as u32);
            if sites.contains(&case.site) {
                assert!(hits > 0 && hits <= passages, "{}: {hits} of {passages}", case.name);
            } else {
                assert_eq!(hits, passages, "{}", case.name);
            }
        }
        assert_eq!(PROFILED_INJECTED.load(Ordering::SeqCst), 0);
        assert!(PROFILED.load(Ordering::SeqCst) > 0);
        // Preemption works: what came in a pad came again at a place that the program knows.
        assert!(PREEMPTIBLE.load(Ordering::SeqCst) >= IN_PADS.load(Ordering::SeqCst));
        assert!(IN_PADS.load(Ordering::SeqCst) > 0);
        if asked.is_some() {
            let text = format!(
                "storm: {rounds} rounds of {} calls, {} profile signals, preemption: {} in pads, {} elsewhere\n",
                cases.iter().map(|case| case.arguments.len()).sum::<usize>(),
                PROFILED.load(Ordering::SeqCst),
                IN_PADS.load(Ordering::SeqCst),
                PREEMPTIBLE.load(Ordering::SeqCst),
            );
            // SAFETY: the bytes are there.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
    });
}

//! The agent killed in the middle of everything: the process it traced lives on, and mends itself.

use super::support::{Target, Tracing, captures_rdi, eventually, probe};
use crate::capture::memory::Memory;
use crate::engine::memory::TargetMemory;
use crate::engine::ptrace::PtraceEngine as Engine;
use crate::engine::sys::{self, Change, Stop, Tid, Whose};
use crate::publish::sink::{HitQueue, QueueLimits};
use crate::target as process;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use riptrace_protocol::ids::Avma;
use std::io::Write;
use std::sync::Arc;

/// An agent in a process of its own that traces these sites until it is killed.
pub(in crate::engine) fn agent(target: &Target, sites: &[Avma]) -> Pid {
    // SAFETY: the C library makes the child's heap usable (fork(2) in glibc takes the locks of malloc), and the child
    // does nothing that needs a lock of another thread of this process; it never returns from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let queue = HitQueue::new(QueueLimits::default());
            let traced = Engine::attach(target.key(), queue.sink(), Box::new(|_| {}))
                .map_err(|error| error.to_string())
                .and_then(|engine| {
                    let armed = engine.arm(probe("killed", sites, &Arc::new(captures_rdi())));
                    armed.map(|_| engine).map_err(|error| error.to_string())
                });
            if let Err(error) = &traced {
                // Not by a macro: the harness would keep it.
                let _ = writeln!(std::io::stderr(), "the agent to be killed: {error}");
            }
            loop {
                std::thread::park();
            }
        }
    }
}

pub(super) fn is_patched(memory: &TargetMemory, at: Avma) -> bool {
    let mut byte = [0];
    memory.read(at, &mut byte).is_ok() && byte == [0xcc]
}

#[test]
fn a_target_survives_its_agent_and_mends_itself() {
    // Not among them: an instruction that faults all the time (x86_64/fallback.rs says what is not covered).
    const LABELS: [&str; 6] = ["site_push", "site_rip", "site_loop", "site_call", "site_ret", "site_float"];
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    let sites: Vec<Avma> = LABELS.iter().map(|label| target.symbol(label)).collect();
    let memory = TargetMemory::open(target.pid() as i32);
    for round in 0..50 {
        assert_eq!(target.said(), None, "round {round}");
        let agent = agent(&target, &sites);
        eventually("all sites are patched", || {
            assert_eq!(target.said(), None, "round {round}");
            sites.iter().all(|&at| is_patched(&memory, at)).then_some(())
        });
        // A different moment each time.
        for _ in 0..round * 100 {
            std::hint::black_box(is_patched(&memory, sites[0]));
        }
        kill(agent, Signal::SIGKILL).unwrap();
        waitpid(agent, None).unwrap();
        eventually("the sites are mended", || sites.iter().all(|&at| !is_patched(&memory, at)).then_some(()));
    }
    target.assert_text_is_the_files();
    // Another agent finds nothing in its way, and is as good as the first one.
    let tracing = Tracing::attach(&target);
    tracing.arm("next", &sites);
    eventually("a passage", || (tracing.counts("next").passages > 100).then_some(()));
    tracing.engine.detach();
    target.ask("foreground", "in front");
    target.ask("run 2 10", "ran");
}

#[test]
fn a_breakpoint_that_a_killed_agent_has_left_behind_is_taken_over() {
    let mut target = Target::c("-pie");
    let site = target.symbol("site_nop");
    let memory = TargetMemory::open(target.pid() as i32);
    let agent = agent(&target, &[site]);
    eventually("the site is patched", || is_patched(&memory, site).then_some(()));
    kill(agent, Signal::SIGKILL).unwrap();
    waitpid(agent, None).unwrap();
    assert!(is_patched(&memory, site), "nobody has passed");
    let tracing = Tracing::attach(&target);
    tracing.arm("heir", &[site]);
    target.ask("run 1 10", "ran");
    assert_eq!(tracing.counts("heir").passages, 10);
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("run 1 10", "ran");
}

/// Runs the target into a breakpoint that a killed agent has left, up to where its thread has opened the memory to put the
/// byte back, and leaves all of it stopped there.
fn stopped_while_it_mends(target: &mut Target) {
    let pid = target.pid() as Tid;
    let next = |of: Whose| match sys::wait(of).unwrap() {
        Some(Change::Stopped(tid, stop)) => (tid, stop),
        other => panic!("{other:?}"),
    };
    // What it traces is let go of when the thread ends. Not by single steps: their traps, which the handler blocks, would
    // have the kernel take it away.
    let follow = || {
        sys::seize(pid).unwrap();
        target.send("run 1 10");
        let mending = loop {
            match next(Whose::Any) {
                (tid, Stop::Signal(libc::SIGTRAP)) => break tid,
                (tid, _) => sys::resume(tid, 0).unwrap(),
            }
        };
        for (is_end, signal) in [(false, libc::SIGTRAP), (true, 0)] {
            sys::resume_to_call(mending, signal).unwrap();
            assert_eq!(next(Whose::Only(mending)), (mending, Stop::Signal(libc::SIGTRAP)));
            let registers = sys::registers(mending).unwrap();
            assert_eq!(registers.orig_rax, libc::SYS_open as u64);
            assert_eq!((registers.rax as i64) >= 0, is_end);
        }
        sys::detach(mending, libc::SIGSTOP).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(follow).join().unwrap());
    for tid in process::tasks(pid as u32).unwrap() {
        eventually("it stands", || process::status(tid).is_ok_and(|status| status.state == 'T').then_some(()));
    }
}

#[test]
fn a_thread_that_mends_a_killed_agents_breakpoint_does_not_take_out_the_next_ones() {
    let mut target = Target::c("-pie");
    let site = target.symbol("site_nop");
    let memory = TargetMemory::open(target.pid() as i32);
    let agent = agent(&target, &[site]);
    eventually("the site is patched", || is_patched(&memory, site).then_some(()));
    kill(agent, Signal::SIGKILL).unwrap();
    waitpid(agent, None).unwrap();
    stopped_while_it_mends(&mut target);
    let tracing = Tracing::attach(&target);
    tracing.arm("heir", &[site]);
    target.signal(libc::SIGCONT);
    target.expect("ran");
    assert_eq!(tracing.counts("heir").passages, 10);
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("run 1 10", "ran");
}

//! The agent killed in the middle of everything: the process lives on, correct, and the next agent takes over.

use super::support::{Target, Tracing, captures_rdi, eventually, id};
use crate::capture::memory::Memory;
use crate::engine::inprocess::sweep;
use crate::engine::inprocess::tsc::TscClock;
use crate::engine::memory::TargetMemory;
use crate::engine::ptrace::tests::killed::agent as outside;
use crate::engine::x86_64::BREAKPOINT;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use riptrace_protocol::ids::Avma;
use std::io::Write;
use std::sync::Arc;

const LABELS: [&str; 6] = ["site_push", "site_rip", "site_loop", "site_call", "site_ret", "site_float"];

/// An agent in a process of its own that traces these sites until it is killed.
fn agent(target: &Target, sites: &[Avma]) -> Pid {
    let clock = TscClock::held();
    // SAFETY: the C library makes the child's heap usable (fork(2) in glibc takes the locks of malloc), and the child
    // does nothing that needs a lock of another thread of this process (the clock is this thread's own just now); it never
    // returns from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(clock);
            let tracing = Tracing::c(target);
            if let Err(error) = tracing.arm_with("killed", sites, &Arc::new(captures_rdi()), None) {
                // Not by a macro: the harness would keep it.
                let _ = writeln!(std::io::stderr(), "the agent to be killed: {error}; {:?}", tracing.told());
            }
            loop {
                std::thread::park();
            }
        }
    }
}

/// Whether a jump or a trap is at an address at which the program has neither.
fn is_patched(memory: &TargetMemory, at: Avma) -> bool {
    let mut byte = [0];
    memory.read(at, &mut byte).is_ok() && (byte[0] == BREAKPOINT || byte[0] == 0xe9)
}

fn end(agent: Pid) {
    kill(agent, Signal::SIGKILL).unwrap();
    waitpid(agent, None).unwrap();
}

#[test]
fn a_target_survives_its_agents_and_the_next_one_takes_over() {
    let mut target = Target::c("-pie");
    target.ask("background", "behind");
    let sites: Vec<Avma> = LABELS.iter().map(|label| target.symbol(label)).collect();
    let memory = TargetMemory::open(target.pid() as i32);
    for round in 0..12u32 {
        assert_eq!(target.said(), None, "round {round}");
        let agent = agent(&target, &sites);
        // While it attaches, while it arms, or when it is done.
        match round % 3 {
            0 => eventually("all sites are patched", || sites.iter().all(|&at| is_patched(&memory, at)).then_some(())),
            1 => eventually("a site is patched", || sites.iter().any(|&at| is_patched(&memory, at)).then_some(())),
            _ => {
                let looks = (0..round * 2_000).filter(|_| is_patched(&memory, sites[0])).count();
                std::hint::black_box(looks);
            }
        }
        end(agent);
    }
    let mut tracing = Tracing::c(&target);
    target.assert_text_is_the_files();
    tracing.arm_with("next", &sites, &Arc::new(captures_rdi()), Some(500)).unwrap();
    eventually("a passage", || (tracing.counts("next").hits > 100).then_some(()));
    assert!(tracing.hits().iter().all(|hit| hit.tracepoint == id("next")), "nothing of the agents before it");
    // An agent that was killed while it read has left its rings in any state.
    let now_ns = crate::clock::domain_now_ns();
    eventually("the order goes on", || (tracing.watermark_ns() > now_ns).then_some(()));
    tracing.engine.detach();
    target.assert_text_is_the_files();
    target.ask("foreground", "in front");
    target.ask("run 2 10", "ran");
}

/// Agents that trace from outside and from the inside by turns, each of which is killed: their handlers pass on to each
/// other, and never in a ring.
#[test]
fn an_agent_inside_takes_over_from_agents_outside() {
    let mut target = Target::c("-pie");
    let sites: Vec<Avma> = ["site_push", "site_nop"].iter().map(|label| target.symbol(label)).collect();
    let memory = TargetMemory::open(target.pid() as i32);
    let are_patched = || sites.iter().all(|&at| is_patched(&memory, at)).then_some(());
    for round in 0..3 {
        for is_outside in [false, true, true] {
            let agent = if is_outside { outside(&target, &sites) } else { agent(&target, &sites) };
            eventually("the sites are patched", are_patched);
            end(agent);
            assert_eq!(target.said(), None, "round {round}");
            match (is_outside, round) {
                (false, _) => drop(sweep(target.key()).unwrap()),
                // Some breakpoints are run into, the others are left to the next agent.
                (true, 1) => target.ask("run 1 1", "ran"),
                (true, _) => {}
            }
        }
        let tracing = Tracing::c(&target);
        target.assert_text_is_the_files();
        tracing.arm("heir", &sites);
        target.ask("run 2 50", "ran");
        assert_eq!(tracing.counts("heir").passages, 2 * 2 * 50, "round {round}");
        tracing.engine.detach();
        target.assert_text_is_the_files();
    }
    // Nobody's: it goes to the end of the chain, and does not come back.
    target.signal(libc::SIGTRAP);
    target.exits_with(128 + libc::SIGTRAP);
}

#[test]
fn what_a_killed_agent_has_left_is_swept_out_of_a_process_that_nobody_traces() {
    let mut target = Target::c("-no-pie");
    let sites = [target.symbol("site_nop"), target.symbol("site_ret")];
    let memory = TargetMemory::open(target.pid() as i32);
    let agent = agent(&target, &sites);
    eventually("the sites are patched", || sites.iter().all(|&at| is_patched(&memory, at)).then_some(()));
    end(agent);
    target.ask("run 2 100", "ran");
    assert_eq!(sweep(target.key()).unwrap(), 2);
    target.assert_text_is_the_files();
    assert_eq!(sweep(target.key()).unwrap(), 0);
    target.ask("run 2 100", "ran");
}

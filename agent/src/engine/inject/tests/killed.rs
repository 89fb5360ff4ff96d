//! The agent killed at every request, and at random moments: the process goes on as it was.

use super::hooks;
use super::support::{Agent, Target, getppid};
use crate::engine::inject::{Injection, leftovers};
use crate::engine::sys;
use crate::target;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opens and makes some calls, killed after so many requests; whether it came through.
fn runs_through(target: &Target, requests: i64, rotation: usize) -> bool {
    let key = target.key();
    let agent = Agent::start(|| {
        hooks::prefer(rotation);
        sys::killed::after(requests);
        let called = Injection::open(key).and_then(|mut injection| injection.call(&[getppid(), getppid()]));
        called.map_or_else(|error| panic!("{error}"), |_| 0)
    });
    match agent.end() {
        None => false,
        Some(0) => true,
        Some(status) => panic!("the agent that dies after {requests} requests ended with {status}"),
    }
}

#[test]
fn a_target_survives_its_agent_at_every_request() {
    // The first one finds nothing, each next one what its predecessor has left.
    let mut fresh = 0;
    loop {
        fresh += 1;
        let mut target = Target::c(&[]);
        let is_through = runs_through(&target, fresh, fresh as usize);
        target.check();
        target.assert_free();
        if is_through {
            break;
        }
        // The next agent completes what is there, and there is one area only.
        let mut injection = Injection::open(target.key()).unwrap();
        assert_eq!(injection.call(&[getppid()]).unwrap()[0], Ok(u64::from(target.shell())), "{fresh}");
        assert_eq!(leftovers::find(target.pid()).unwrap().len(), 1, "{fresh}");
        drop(injection);
        let files = fs::read_dir(format!("/proc/{}/fd", target.pid())).unwrap().filter_map(|entry| {
            let path = fs::read_link(entry.unwrap().path()).ok()?;
            path.to_string_lossy().contains("riptrace").then_some(path)
        });
        assert_eq!(files.count(), 1, "{fresh}");
        target.check();
        // Most requests are the slot's words; a few processes do for them.
        fresh += fresh / 8;
    }
    assert!(fresh > 60, "{fresh} requests: that is fewer than it takes");
}

#[test]
fn a_target_survives_every_step_of_a_call_by_each_of_its_threads() {
    let mut target = Target::c(&[]);
    drop(Injection::open(target.key()).unwrap());
    let mut killed = 0;
    for requests in 1.. {
        // Threads of other kinds each time.
        let through = [0, 5, 10].map(|more| runs_through(&target, requests, requests as usize + more));
        killed += through.iter().filter(|&&is_through| !is_through).count();
        if requests % 8 == 0 {
            target.check();
            target.assert_free();
        }
        if through == [true; 3] {
            break;
        }
    }
    assert!(killed > 30, "{killed}");
    target.check();
}

/// Words that an agent in another process shares with the test.
struct Shared(*const AtomicU64);

impl Shared {
    fn new() -> Shared {
        // SAFETY: a new mapping of a page; it stays for as long as the process lives, and is zero.
        let page = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        Shared(page.cast())
    }

    fn word(&self, n: usize) -> &'static AtomicU64 {
        assert!(n < 512);
        // SAFETY: inside of the page, aligned, and accessed by atomics only.
        unsafe { &*self.0.add(n) }
    }
}

/// Looks for an agent to be inside of a call, at most: one that is not by then is killed where it is.
const LOOKS_MAX: u64 = 10_000_000;

/// Kills agents that make calls, at random moments; how many of them were killed inside of a call.
pub(super) fn kill_some(target: &mut Target, rounds: usize, check: &mut dyn FnMut(&mut Target)) -> u64 {
    let shared = Shared::new();
    let (calls, inside) = (shared.word(0), shared.word(1));
    let mut killed_inside = 0;
    // A generator of its own (xorshift), so that a failure can be run again.
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..rounds {
        let key = target.key();
        calls.store(0, Ordering::SeqCst);
        inside.store(0, Ordering::SeqCst);
        let agent = Agent::start(|| {
            hooks::prefer(round);
            hooks::mark_inside(inside);
            let Ok(mut injection) = Injection::open(key) else { return 1 };
            loop {
                if injection.call(&[getppid(); 40]).is_err() {
                    return 2;
                }
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Some in the middle of taking over, some between calls, most inside of one.
        let (in_open, in_call) = (random.is_multiple_of(8), random % 8 > 2);
        super::support::eventually("calls are made", || {
            let is_there = in_open || calls.load(Ordering::SeqCst) >= random >> 8 & 3;
            (is_there || target.said().is_some()).then_some(())
        });
        let mut looks = 0u64;
        while in_call && inside.load(Ordering::SeqCst) == 0 && looks < LOOKS_MAX {
            looks += 1;
            std::thread::yield_now();
        }
        for _ in 0..random >> 32 & 0xfff {
            std::hint::spin_loop();
        }
        agent.kill();
        killed_inside += u64::from(inside.load(Ordering::SeqCst) == 1);
        assert!(target.is_alive(), "round {round}");
        if round % 10 == 9 {
            check(target);
        }
    }
    check(target);
    target.assert_free();
    killed_inside
}

/// So many kills: 50 take a second; RIPTRACE_KILLS sets more.
fn kills() -> usize {
    std::env::var("RIPTRACE_KILLS").map_or(50, |kills| kills.parse().unwrap())
}

#[test]
fn a_target_survives_agents_killed_at_random_moments() {
    let mut target = Target::c(&[]);
    let killed_inside = kill_some(&mut target, kills(), &mut |target| {
        target.check();
    });
    eprintln!("{} agents killed, {killed_inside} of them between the set registers and their return", kills());
    assert!(killed_inside as usize >= kills() / 4, "{killed_inside}");
    // One that comes after all of them finds its way.
    let mut injection = Injection::open(target.key()).unwrap();
    assert_eq!(injection.call(&[getppid()]).unwrap()[0], Ok(u64::from(target.shell())));
}

#[test]
fn a_wake_up_is_not_lost_with_the_agent() {
    let mut target = Target::c(&["suspend"]);
    target.check();
    drop(Injection::open(target.key()).unwrap());
    let (pid, key) = (target.pid(), target.key());
    let is_it = |tid: &u32| target::status(*tid).is_ok_and(|status| status.name == "suspend");
    let tid = target::tasks(pid).unwrap().into_iter().find(is_it).unwrap();
    for _ in 0..20 {
        // The thread stops in sigsuspend(2), gets the signal that it waits for, and its agent is killed.
        let agent = Agent::start(|| {
            hooks::only(tid);
            let Ok(mut injection) = Injection::open(key) else { return 1 };
            hooks::die_inside();
            hooks::signal_inside(pid, libc::SIGUSR1);
            let _ = injection.call(&[getppid()]);
            2
        });
        assert_eq!(agent.end(), None);
        // It notices if the signal came and its call did not end for it.
        target.check();
    }
}

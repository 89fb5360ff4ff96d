//! The agent killed at every request, and at random moments: the process goes on as it was.

use super::hooks;
use super::support::{Agent, Target, getppid};
use crate::engine::inject::{Injection, leftovers};
use crate::engine::sys;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Opens and makes some calls, killed after so many requests; whether it came through.
fn runs_through(target: &Target, requests: i64, rotation: usize) -> bool {
    let key = target.key();
    let agent = Agent::start(|| {
        hooks::prefer(rotation);
        sys::killed::after(requests);
        let Ok(mut injection) = Injection::open(key) else { return 1 };
        i32::from(injection.call(&[getppid(), getppid()]).is_err())
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
    let tasks = crate::target::tasks(target.pid()).unwrap().len();
    let mut killed = 0;
    for requests in 1.. {
        // A thread of another kind each time.
        let mut through = 0;
        for rotation in 0..tasks {
            if runs_through(&target, requests, rotation) {
                through += 1;
            } else {
                killed += 1;
            }
        }
        if requests % 4 == 0 {
            target.check();
            target.assert_free();
        }
        if through == tasks {
            break;
        }
    }
    assert!(killed > 10 * tasks, "{killed}");
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

/// Kills agents that make calls, at random moments; how many of them were killed inside of a call.
fn kill_some(target: &mut Target, rounds: usize) -> u64 {
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
        // Some in the middle of taking over, most while calls are made.
        let wait_for = random % 8;
        super::support::eventually("calls are made", || {
            (wait_for == 0 || calls.load(Ordering::SeqCst) >= wait_for || target.said().is_some()).then_some(())
        });
        std::thread::park_timeout(Duration::from_micros(random >> 32 & 0x3ff));
        agent.kill();
        killed_inside += u64::from(inside.load(Ordering::SeqCst) == 1);
        assert!(target.is_alive(), "round {round}");
        if round % 10 == 9 {
            target.check();
        }
    }
    target.check();
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
    let killed_inside = kill_some(&mut target, kills());
    eprintln!("{} agents killed, {killed_inside} of them between the set registers and their return", kills());
    assert!(killed_inside as usize >= kills() / 4, "{killed_inside}");
    // One that comes after all of them finds its way.
    let mut injection = Injection::open(target.key()).unwrap();
    assert_eq!(injection.call(&[getppid()]).unwrap()[0], Ok(u64::from(target.shell())));
}

//! The agent killed between any two of its steps: the process lives on, right, and the next agent can go on from there.

use super::super::{How, Patch, Patcher};
use super::support::{Site, Sites, Target, apply, patcher, patcher_by_thread};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// An agent in a process of its own that applies a patch and is killed after so many steps; `true` if it was, `false` if
/// it was done before.
fn is_killed(patcher: &Patcher, patch: &Patch, steps: i64) -> bool {
    // SAFETY: the C library makes the child's heap usable (fork(2) in glibc takes the locks of malloc), and the child
    // does nothing that needs a lock of another thread of this process; it never returns from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            WaitStatus::Exited(_, 0) => false,
            other => panic!("the agent to be killed: {other:?}"),
        },
        ForkResult::Child => {
            super::kill_after(steps);
            let applied = apply(patcher, patch.clone());
            if let Err(error) = &applied {
                eprintln!("the agent to be killed: {error}");
            }
            // SAFETY: ends this process; nothing of it is used any more.
            unsafe { libc::_exit(i32::from(applied.is_err())) }
        }
    }
}

/// Kills at every step of the way in and of the way out; says at how many.
fn killed_at_every_step(target: &mut Target, site: &Site, how: How, by: &Patcher, patcher: &Patcher) -> i64 {
    let mut kills = 0;
    for is_out in [false, true] {
        for steps in 0.. {
            if is_out {
                apply(patcher, site.jump(how)).unwrap();
            }
            let patch = if is_out { site.jump(how).reversed() } else { site.jump(how) };
            let killed = is_killed(by, &patch, steps);
            kills += i64::from(killed);
            target.assert_goes_on();
            target.assert_free();
            // Whatever was left, the next agent takes it out.
            if let Some(patch) = site.restore(target) {
                apply(patcher, patch).unwrap();
            }
            target.assert_silent();
            if !killed {
                break;
            }
        }
    }
    kills
}

fn ready() -> (Target, Sites) {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    target.ask("background 2", "behind");
    (target, sites)
}

#[test]
fn between_the_bytes_of_a_poke() {
    let (mut target, sites) = ready();
    let patcher = patcher(&target);
    for site in [&sites.single, &sites.pun, &sites.cross] {
        let kills = killed_at_every_step(&mut target, site, How::Poke, &patcher, &patcher);
        assert!(kills >= 8, "{kills}");
    }
}

#[test]
fn in_the_middle_of_an_all_stop() {
    let (mut target, sites) = ready();
    let patcher = patcher(&target);
    for (site, least) in [(&sites.multi, 12), (&sites.cross_multi, 16)] {
        let kills = killed_at_every_step(&mut target, site, How::AllStop, &patcher, &patcher);
        assert!(kills >= least, "{kills}");
    }
}

#[test]
fn while_it_writes_through_a_stopped_thread() {
    let (mut target, sites) = ready();
    let (by_thread, patcher) = (patcher_by_thread(&target), patcher(&target));
    for (site, how) in [(&sites.single, How::Poke), (&sites.cross_multi, How::AllStop)] {
        let kills = killed_at_every_step(&mut target, site, how, &by_thread, &patcher);
        assert!(kills >= 8, "{kills}");
    }
}

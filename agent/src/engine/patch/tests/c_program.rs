//! A C program is patched in every way while it runs, and while it does everything that makes that hard.

use super::super::visit::VisitCpus;
use super::super::{How, Inside, Patch, PatchError, Synchronise};
use super::support::{Sites, Target, Unneeded, apply, apply_all, eventually, patcher, patcher_by_thread};
use crate::engine::x86_64::BREAKPOINT;
use nix::sys::signal::Signal;
use riptrace_protocol::ids::Avma;
use std::io;

#[test]
fn pokes_in_and_out_under_threads_at_full_speed() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 2", "behind");
    let patches = [&sites.single, &sites.pun, &sites.cross].map(|site| site.jump(How::Poke));
    let back = patches.clone().map(|patch| patch.reversed());
    for round in 0..100 {
        for batch in [&patches, &back] {
            let report = apply_all(&patcher, batch, &mut VisitCpus).unwrap();
            assert_eq!(report.stopped_ns, 0, "round {round}");
        }
        target.assert_silent();
    }
    target.assert_goes_on();
}

#[test]
fn traps_go_in_and_out_without_a_stop() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 2", "behind");
    let trap = |site: &super::support::Site| {
        let mut new = site.old.clone();
        new[0] = BREAKPOINT;
        Patch { new, ..site.jump(How::Byte) }
    };
    let all = sites.all().map(trap).to_vec();
    // Of a trap nothing but the first byte changes, so its boundaries are of no concern.
    let all: Vec<Patch> = all.into_iter().map(|patch| Patch { boundaries: Vec::new(), ..patch }).collect();
    let back: Vec<Patch> = all.iter().map(Patch::reversed).collect();
    for _ in 0..1000 {
        apply_all(&patcher, &all, &mut Unneeded).unwrap();
        apply_all(&patcher, &back, &mut Unneeded).unwrap();
        target.assert_silent();
    }
    target.assert_goes_on();
}

#[test]
fn jumps_over_several_instructions_go_in_while_all_stand_still_and_out_while_they_run() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 2", "behind");
    let patches = [&sites.multi, &sites.cross_multi, &sites.fault].map(|site| site.jump(How::AllStop));
    let (mut retries, mut longest) = (0, 0);
    for _ in 0..200 {
        let report = apply_all(&patcher, &patches, &mut Unneeded).unwrap();
        assert!(report.threads == 3 && report.stopped_ns > 0, "{report:?}");
        retries += report.retries;
        longest = longest.max(report.longest_stop_ns);
        apply_all(&patcher, &patches.clone().map(|patch| patch.reversed()), &mut VisitCpus).unwrap();
        target.assert_silent();
    }
    eprintln!("200 cycles: {retries} retries, the longest stop was {longest} ns");
    assert!(retries > 0, "in loops that are interrupted at any instruction some are met inside");
    target.assert_goes_on();
    target.assert_free();
}

/// A jump that a probe of several instructions would be.
fn all_stop(target: &Target, sites: &Sites) -> Result<super::super::Report, PatchError> {
    apply(&patcher(target), sites.fault.jump(How::AllStop))
}

#[test]
fn a_frame_that_a_signal_has_interrupted_inside_is_found_on_any_stack() {
    for stack in ["plain", "apart"] {
        let mut target = Target::c();
        let sites = Sites::of(&target);
        target.ask(&format!("hold {stack}"), "held");
        let busy = all_stop(&target, &sites).unwrap_err();
        let PatchError::Busy { at, inside: Inside::Stack(tid), retries, .. } = busy else { panic!("{stack}: {busy}") };
        assert!(at == sites.fault.at && tid as u32 != target.pid() && retries > 10, "{stack}: {busy}");
        assert_eq!(target.read::<5>(at).to_vec(), sites.fault.old);
        target.ask("release", "released");
        assert_eq!(all_stop(&target, &sites).unwrap().retries, 0, "{stack}");
        target.assert_free();
    }
}

#[test]
fn signals_on_their_way_to_a_stopped_thread_arrive_as_they_were_sent() {
    const SENT: u64 = 20_000;
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    let mut stops = 0;
    while stops < 100 {
        target.send(&format!("storm {SENT}"));
        let said = loop {
            apply(&patcher, sites.multi.jump(How::AllStop)).unwrap();
            apply(&patcher, Patch { how: How::AllStop, ..sites.multi.jump(How::AllStop).reversed() }).unwrap();
            stops += 2;
            if let Some(line) = target.said() {
                break line;
            }
        };
        assert_eq!(said, format!("stormed {}", SENT * (SENT + 1) / 2), "after {stops} stops");
    }
}

#[test]
fn threads_that_wait_in_the_kernel_wait_on_and_threads_that_come_and_go_are_met() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("sleepers 20", "asleep");
    target.ask("churn", "churning");
    target.ask("background 2", "behind");
    for _ in 0..50 {
        apply(&patcher, sites.multi.jump(How::AllStop)).unwrap();
        target.assert_silent();
        apply(&patcher, sites.multi.jump(How::AllStop).reversed()).unwrap();
    }
    // One that had woken up would have said so.
    target.assert_goes_on();
    target.assert_free();
}

#[test]
fn a_stopped_process_stays_stopped() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    target.ask("background 2", "behind");
    target.signal(Signal::SIGSTOP);
    let is_stopped = |target: &Target| {
        let tasks = crate::target::tasks(target.pid()).unwrap();
        tasks.iter().all(|&tid| crate::target::status(tid).unwrap().state == 'T')
    };
    eventually("it is stopped", || is_stopped(&target).then_some(()));
    let patcher = patcher(&target);
    apply(&patcher, sites.multi.jump(How::AllStop)).unwrap();
    eventually("it is stopped again", || is_stopped(&target).then_some(()));
    target.signal(Signal::SIGCONT);
    target.assert_goes_on();
}

#[test]
fn a_thread_that_cannot_be_stopped_is_named_and_nothing_is_patched() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 1", "behind");
    target.ask("vfork 3000", "forking");
    eventually("a thread waits for its child", || {
        let tasks = crate::target::tasks(target.pid()).unwrap();
        tasks.iter().any(|&tid| crate::target::status(tid).is_ok_and(|status| status.state == 'D')).then_some(())
    });
    let refused = apply(&patcher, sites.multi.jump(How::AllStop)).unwrap_err();
    assert!(matches!(refused, PatchError::Unstoppable { .. }), "{refused}");
    assert_eq!(target.read::<5>(sites.multi.at).to_vec(), sites.multi.old);
    target.assert_goes_on();
    // What needs no thread is possible meanwhile.
    apply(&patcher, sites.single.jump(How::Poke)).unwrap();
    assert_eq!(target.line(), "forked");
    target.assert_free();
    apply(&patcher, sites.multi.jump(How::AllStop)).unwrap();
    target.assert_goes_on();
}

#[test]
fn the_successor_of_a_program_is_not_written_to() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    let by_thread = patcher_by_thread(&target);
    target.send("exec");
    assert_eq!(target.line(), format!("ready {}", target.pid()));
    for (patcher, how) in
        [(&patcher, How::AllStop), (&patcher, How::Poke), (&by_thread, How::AllStop), (&by_thread, How::Poke)]
    {
        let site = if how == How::Poke { &sites.single } else { &sites.multi };
        let refused = apply(patcher, site.jump(how)).unwrap_err();
        assert!(matches!(refused, PatchError::Gone), "{how:?}: {refused}");
    }
    target.assert_free();
}

#[test]
fn code_that_somebody_has_changed_is_left_alone() {
    let target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.write(Avma(sites.multi.at.0 + 1), &[0x90]);
    for how in [How::AllStop, How::Byte] {
        let mut patch = sites.multi.jump(How::AllStop);
        patch.how = how;
        if how == How::Byte {
            patch.new[1..].copy_from_slice(&patch.old[1..]);
            patch.new[0] = BREAKPOINT;
            patch.boundaries.clear();
        }
        let refused = apply_all(&patcher, &[patch], &mut Unneeded).unwrap_err();
        assert!(matches!(refused, PatchError::Changed { .. }), "{refused}");
    }
    let unsound = |change: fn(&mut Patch)| {
        let mut patch = sites.single.jump(How::Poke);
        change(&mut patch);
        matches!(apply_all(&patcher, &[patch], &mut Unneeded), Err(PatchError::Unsound { .. }))
    };
    assert!(unsound(|patch| patch.boundaries = vec![2]), "no trap at a boundary");
    assert!(unsound(|patch| patch.boundaries = vec![5]));
    assert!(unsound(|patch| patch.new.clear()));
    assert!(unsound(|patch| patch.how = How::Byte));
    assert_eq!(target.read::<5>(sites.single.at).to_vec(), sites.single.old);
}

#[test]
fn where_text_can_only_be_written_by_a_stopped_thread_it_is() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher_by_thread(&target);
    target.ask("background 2", "behind");
    for _ in 0..30 {
        for (site, how) in [
            (&sites.single, How::Poke),
            (&sites.pun, How::Poke),
            (&sites.cross, How::Poke),
            (&sites.multi, How::AllStop),
            (&sites.cross_multi, How::AllStop),
        ] {
            apply(&patcher, site.jump(how)).unwrap();
            apply(&patcher, site.jump(how).reversed()).unwrap();
            target.assert_silent();
        }
    }
    target.assert_goes_on();
    target.assert_free();
}

/// Fails at one of its calls.
struct Failing {
    calls: usize,
    fails_at: usize,
}

impl Synchronise for Failing {
    fn synchronise(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.calls == self.fails_at { Err(io::Error::other("as the test wants")) } else { VisitCpus.synchronise() }
    }
}

#[test]
fn without_synchronisation_a_site_is_as_it_was_or_a_trap() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 2", "behind");
    for (fails_at, left) in [(1, vec![]), (2, vec![sites.single.at])] {
        let batch = [sites.single.jump(How::Poke), sites.multi.jump(How::AllStop)];
        let failed = apply_all(&patcher, &batch, &mut Failing { calls: 0, fails_at }).unwrap_err();
        let PatchError::Synchronise { left: named, .. } = &failed else { panic!("{failed}") };
        assert_eq!(*named, left, "{fails_at}");
        let now = target.read::<5>(sites.single.at);
        assert_eq!(now[0] == BREAKPOINT, !left.is_empty());
        target.assert_goes_on();
        for site in [&sites.single, &sites.multi] {
            if let Some(patch) = site.restore(&target) {
                apply(&patcher, patch).unwrap();
            }
        }
        target.assert_goes_on();
    }
}

#[test]
fn a_trap_in_a_hot_loop_becomes_a_jump() {
    let mut target = Target::c();
    let sites = Sites::of(&target);
    let patcher = patcher(&target);
    target.ask("background 2", "behind");
    let site = &sites.multi;
    let mut trapped = site.old.clone();
    trapped[0] = BREAKPOINT;
    let mut jumps = 0;
    for _ in 0..50 {
        let trap = Patch { new: trapped.clone(), how: How::Byte, boundaries: Vec::new(), ..site.jump(How::Byte) };
        apply_all(&patcher, &[trap], &mut Unneeded).unwrap();
        // A thread that has just hit it stands behind the breakpoint, where an instruction begins as well.
        let upgrade = Patch { old: trapped.clone(), ..site.jump(How::AllStop) };
        match apply_all(&patcher, &[upgrade], &mut Unneeded) {
            Ok(_) => jumps += 1,
            Err(PatchError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        apply(&patcher, site.restore(&target).unwrap()).unwrap();
        target.assert_silent();
    }
    assert!(jumps > 25, "{jumps} of 50");
    target.assert_goes_on();
}

/// Not asserted: other work on the machine decides as well.
#[test]
fn how_long_a_process_stands_still() {
    for threads in [4, 100, 1000] {
        let mut target = Target::c();
        let sites = Sites::of(&target);
        let patcher = patcher(&target);
        target.ask("background 2", "behind");
        target.ask(&format!("sleepers {}", threads - 3), "asleep");
        let mut stops: Vec<u64> = (0..21)
            .map(|_| {
                let report = apply(&patcher, sites.multi.jump(How::AllStop)).unwrap();
                assert_eq!(report.threads, threads);
                apply(&patcher, sites.multi.jump(How::AllStop).reversed()).unwrap();
                report.longest_stop_ns
            })
            .collect();
        stops.sort_unstable();
        eprintln!(
            "{threads} threads stood still for {:?} us (least, median, most)",
            [0, 10, 20].map(|n| stops[n] / 1000)
        );
        target.assert_silent();
    }
}

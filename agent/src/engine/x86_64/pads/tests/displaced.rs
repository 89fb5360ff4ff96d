//! Each kind of displaced instruction does what it does at its own place; with a jump, a punned jump and a trap; in the
//! pad and in its twin.

use super::super::PatchKind;
use super::super::tables::Signal;
use super::cases::{self, Case};
use super::world::{Also, TestBody, World, program_handler, read, register, succeeds, write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Program counters that a handler of the program saw, with the signal's number.
static SEEN: Mutex<Vec<(i32, u64)>> = Mutex::new(Vec::new());

/// A handler of the program, for signals that its own thread sends: it never interrupts itself.
extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel gave it.
    assert_eq!(unsafe { (*info).si_signo }, signal);
    // SAFETY: in the context that the kernel gave.
    let place = unsafe { *register(context, libc::REG_RIP) };
    SEEN.lock().unwrap().push((signal, place));
}

fn note_signal(signal: Signal) {
    program_handler(signal.number(), note as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
}

/// How a site can be patched, whatever its instructions.
fn patches(case: &Case) -> Vec<PatchKind> {
    let mut patches = vec![PatchKind::Trap];
    if case.displaced >= 5 {
        patches.push(PatchKind::Jump);
        // As if there were instructions at the first and the last byte of the displacement.
        patches.push(PatchKind::Punned { mask: 0xff00_00ff, value: 0x0600_00cc });
        patches.push(PatchKind::Punned { mask: 0x0000_ff00, value: 0x0000_cc00 });
    }
    patches
}

fn for_all(go: bool, also: Also, check: impl Fn(&World, &Case, PatchKind)) {
    let mut world = World::new(go);
    world.install();
    for (number, case) in cases::all(&mut world).into_iter().enumerate() {
        let expected = case.results();
        let original = read(case.site, case.displaced.max(5));
        for (kind, patch) in patches(&case).into_iter().enumerate() {
            let probe = (number * 4 + kind) as u32;
            let body = TestBody { probe, island: world.island, also };
            SEEN.lock().unwrap().clear();
            world.arm(case.site, case.displaced, patch, &[&body]);
            assert_eq!(case.results(), expected, "{}, {patch:?}", case.name);
            assert_eq!(world.hits(probe), case.passages_of_all(), "{}, {patch:?}", case.name);
            check(&world, &case, patch);
            // Off: nothing is counted, and the pad does only what the program does.
            world.enable(probe, false);
            assert_eq!(case.results(), expected, "{}, {patch:?}, off", case.name);
            assert_eq!(world.hits(probe), case.passages_of_all(), "{}, {patch:?}, off", case.name);
            write(case.site, &original[..patch.bytes()]);
        }
    }
}

#[test]
fn displaced_instructions_have_the_effects_that_they_have_in_their_place() {
    succeeds(|| for_all(false, Also::Nothing, |_, _, _| {}));
}

#[test]
fn a_pad_with_a_twin_does_the_same() {
    succeeds(|| for_all(true, Also::Nothing, |_, _, _| {}));
}

#[test]
fn a_thread_that_is_preempted_in_a_pad_leaves_through_the_twin_at_a_place_the_program_knows() {
    succeeds(|| {
        note_signal(Signal::Urgent);
        for_all(true, Also::Signal(Signal::Urgent), |world, case, patch| {
            let seen = SEEN.lock().unwrap();
            let (in_pad, known): (Vec<(i32, u64)>, Vec<_>) =
                seen.iter().copied().partition(|(_, place)| world.is_injected(*place));
            assert!(seen.iter().all(|(signal, _)| *signal == libc::SIGURG), "{seen:?}");
            // Never swallowed, and then once more where the program can be preempted.
            assert_eq!(in_pad.len() as u64, case.passages_of_all(), "{}, {patch:?}: {seen:x?}", case.name);
            assert_eq!(known.len(), in_pad.len(), "{}, {patch:?}: {seen:x?}", case.name);
        });
    });
}

#[test]
fn a_profile_sees_the_site_and_never_the_pad() {
    succeeds(|| {
        note_signal(Signal::Profile);
        for_all(true, Also::Signal(Signal::Profile), |_, case, patch| {
            let seen = SEEN.lock().unwrap();
            assert_eq!(seen.len() as u64, case.passages_of_all(), "{}, {patch:?}", case.name);
            assert!(seen.iter().all(|seen| *seen == (libc::SIGPROF, case.site)), "{}: {seen:x?}", case.name);
        });
    });
}

#[test]
fn a_child_by_fork_goes_through_pads_and_leaves_its_parents_control_alone() {
    succeeds(|| {
        let mut world = World::new(true);
        world.install();
        let all = cases::all(&mut world);
        let case = all.iter().find(|case| case.name == "several").unwrap();
        let expected = case.results();
        let body = TestBody { probe: 1, island: world.island, also: Also::Nothing };
        world.arm(case.site, case.displaced, PatchKind::Jump, &[&body]);
        // SAFETY: the island's control is mapped; the advice is what the engine gives for it.
        let advised = unsafe {
            libc::madvise(world.island.control.0 as *mut _, crate::engine::area::CONTROL_BYTES, libc::MADV_DONTFORK)
        };
        assert_eq!(advised, 0);
        let results = AtomicU64::new(0);
        succeeds(|| {
            assert_eq!(case.results(), expected);
            results.store(1, Ordering::SeqCst);
        });
        assert_eq!(world.hits(1), 0);
        assert_eq!(case.results(), expected);
        assert_eq!(world.hits(1), case.passages_of_all());
    });
}

#[test]
fn a_child_of_a_program_without_our_handlers_goes_through_pads_as_well() {
    succeeds(|| {
        // No handler is installed: a pad that faults takes the process.
        let mut world = World::new(false);
        let all = cases::all(&mut world);
        let case = all.iter().find(|case| case.name == "several").unwrap();
        let expected = case.results();
        let body = TestBody { probe: 1, island: world.island, also: Also::Nothing };
        world.arm(case.site, case.displaced, PatchKind::Jump, &[&body]);
        let advise = |at: u64, bytes: usize, advice: i32| {
            // SAFETY: the island's control is mapped; the advice is what the engine gives for it.
            assert_eq!(unsafe { libc::madvise(at as *mut _, bytes, advice) }, 0);
        };
        advise(world.island.control.0, crate::engine::area::ALIVE, libc::MADV_DONTFORK);
        advise(world.island.alive().0, crate::engine::area::ALIVE_BYTES, libc::MADV_WIPEONFORK);
        succeeds(|| assert_eq!(case.results(), expected));
        assert_eq!(world.hits(1), 0);
        assert_eq!(case.results(), expected);
        assert_eq!(world.hits(1), case.passages_of_all());
    });
}

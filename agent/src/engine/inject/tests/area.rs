//! Making, using, taking over and leaving an area.

use super::support::{Agent, Target, eventually, getpid, getppid, key};
use crate::capture::memory::Memory;
use crate::engine::area::{
    ALIVE, Island, MAGIC, PROBE_ENABLED, PROBE_WORDS, PROBE_WORDS_BYTES, RING_BASE, RING_BYTES, RING_CONTROL,
    TABLES_BYTES,
};
use crate::engine::inject::control::ADVISED;
use crate::engine::inject::leftovers::{self, Original, Owner};
use crate::engine::inject::tracee::with_thread;
use crate::engine::inject::{InjectError, Injection, Installed, KernelAction, Rel32, RemoteCall, slots};
use crate::engine::memory::TargetMemory;
use riptrace_protocol::ids::Avma;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// A handler as the pads have them, but of a few bytes: it counts in control, passes nothing on, and skips two bytes.
/// `lock inc qword [rip+words]; add qword ptr [rdx+168], 2 (RIP in the context); ret`
fn counting_handler(at: Avma, counter: Avma) -> Vec<u8> {
    let mut code = vec![0xf0, 0x48, 0xff, 0x05];
    code.extend((counter.0.wrapping_sub(at.0 + 8) as i32).to_le_bytes());
    code.extend([0x48, 0x83, 0x82, 168, 0, 0, 0, 0x00, 0xc3]);
    code
}

#[test]
fn an_area_is_made_used_left_and_taken_over() {
    let mut target = Target::c(&[
        "integers", "vectors", "read", "futex", "sleep", "timed", "poll", "epoll", "suspend", "queued", "stacks",
        "rseq",
    ]);
    // All threads have begun, and have opened what they need.
    target.check();
    let (padding, file) = (target.padding(), target.ask("file", "file"));
    let mut injection = Injection::open(target.key()).unwrap();
    assert!(!injection.facts().is_adopted);
    assert_eq!(getpid(&mut injection), u64::from(target.pid()));
    // What the agent sees is what the process sees.
    let island = injection.first_island();
    let mut word = [0; 8];
    injection.read(island.control, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), MAGIC);
    let area = injection.area().clone();
    area.code(0).unwrap().write(TABLES_BYTES, b"code");
    let mut code = [0; 4];
    injection.read(Avma(island.tables().0 + TABLES_BYTES as u64), &mut code).unwrap();
    assert_eq!(&code, b"code");
    // Rings have no seam in the process either.
    let last = area.cpus() - 1;
    let base = area.u64_at(RING_CONTROL + last * 256 + RING_BASE).load(Ordering::Relaxed);
    area.ring_u64(last, RING_BYTES as u64 - 8).store(7, Ordering::Relaxed);
    area.ring_u64(last, RING_BYTES as u64).store(9, Ordering::Relaxed);
    let mut both = [0; 16];
    injection.read(Avma(base + RING_BYTES as u64 - 8), &mut both).unwrap();
    assert_eq!((both[0], both[8]), (7, 9));
    // Nothing that the process owns is changed.
    assert!(target.padding() == padding, "the vdso differs");
    assert_eq!(target.ask("file", "file"), file);
    // Code is never writable, control never executable.
    let maps = target.maps();
    assert!(maps.iter().filter(|map| map.path.starts_with("/memfd:")).all(|map| map.read && map.write != map.exec));
    let pieces = target.pieces();
    let first = injection.allocate(island, 100, None).unwrap();
    injection.close();
    target.check();
    target.assert_free();
    let found = leftovers::find(target.pid()).unwrap();
    assert_eq!((found.len(), found[0].owner, found[0].is_inherited), (1, Owner::Nobody, false));
    for _ in 0..300 {
        let mut injection = Injection::open(target.key()).unwrap();
        assert!(injection.facts().is_adopted);
        assert_eq!(injection.first_island(), island);
        assert_eq!(injection.call(&[getppid()]).unwrap()[0], Ok(u64::from(target.shell())));
    }
    let mut injection = Injection::open(target.key()).unwrap();
    assert_eq!(target.pieces(), pieces, "nothing more is mapped");
    assert_ne!(injection.allocate(island, 100, None).unwrap(), first, "what is taken stays taken");
    assert_eq!(target.check(), 0, "no call was interrupted");
}

/// A target whose heap is not where its first island goes: the kernel puts it anywhere within a gigabyte behind the
/// program.
fn with_room_behind() -> Target {
    const BEHIND_BYTES: u64 = 256 << 20;
    loop {
        let target = Target::c(&["integers"]);
        let text = target.text().0;
        let is_far = |lo: u64| !(text..text + BEHIND_BYTES).contains(&lo);
        if target.maps().iter().all(|map| map.path != "[heap]" || is_far(map.lo)) {
            return target;
        }
    }
}

#[test]
fn islands_serve_libraries_and_punned_jumps() {
    let target = with_room_behind();
    let mut injection = Injection::open(target.key()).unwrap();
    let site = Avma(target.text().0 + 0x345);
    let punned = Rel32 { mask: 0xffff_00ff, value: 0x06cc_00cc };
    for _ in 0..20 {
        let island = injection.island_for(site, Some(punned), 300).unwrap();
        assert_eq!(island.number, 0, "the first one is where such jumps go");
        let at = island.tables().0 + injection.allocate(island, 300, Some((site, punned))).unwrap() as u64;
        assert_eq!((at - site.0 - 5) as u32 & punned.mask, punned.value);
    }
    let libc = target.maps().into_iter().find(|map| map.exec && map.path.contains("libc")).unwrap();
    let library = injection.island_for(Avma(libc.lo), None, 300).unwrap();
    assert_eq!(library.number, 1);
    assert_eq!(injection.island_for(Avma(libc.lo + 0x1000), None, 300).unwrap(), library);
    assert_eq!(injection.allocate(library, 300, None).unwrap(), TABLES_BYTES);
    let exact = Rel32 { mask: u32::MAX, value: 0x06cc_cccc };
    let island = injection.island_for(Avma(libc.lo + 16), Some(exact), 64).unwrap();
    let at = island.tables().0 + injection.allocate(island, 64, Some((Avma(libc.lo + 16), exact))).unwrap() as u64;
    assert_eq!((at - (libc.lo + 16) - 5) as u32, exact.value);
    // The same place is not given again.
    assert!(injection.allocate(island, 64, Some((Avma(libc.lo + 16), exact))).is_err());
    drop(injection);
    let injection = Injection::open(target.key()).unwrap();
    assert!(injection.islands().contains(&library) && injection.islands().contains(&island));
}

#[test]
fn handlers_know_what_they_replace() {
    let mut target = Target::c(&["faults"]);
    let mut injection = Injection::open(target.key()).unwrap();
    let island = injection.first_island();
    let offset = injection.allocate(island, 64, None).unwrap();
    let at = Avma(island.tables().0 + offset as u64);
    let counter = Avma(island.probe_words(0).0 + 128);
    injection.area().code(0).unwrap().write(offset, &counting_handler(at, counter));
    let before = injection.action(libc::SIGSEGV).unwrap();
    let mut told = Vec::new();
    let mut choose = |signal: i32, old: &KernelAction| {
        told.push((signal, *old));
        let has_handler = old.handler > 1;
        // Of signals without a handler nothing is replaced here, for which the restorer is missing.
        has_handler.then_some(KernelAction { handler: at.0, ..*old })
    };
    let installed = injection.install_handlers(&[libc::SIGUSR1, libc::SIGURG], &mut choose).unwrap();
    assert_eq!(installed, [(libc::SIGUSR1, Installed::Now), (libc::SIGURG, Installed::Skipped)]);
    assert_eq!(told[1], (libc::SIGURG, KernelAction::default()));
    let usr1 = told[0].1;
    target.ask(&format!("raise {}", libc::SIGUSR1), "raised");
    let mut count = [0; 8];
    injection.read(counter, &mut count).unwrap();
    assert_eq!(count[0], 1);
    let again = injection.install_handlers(&[libc::SIGUSR1], &mut |_, _| panic!("asked again")).unwrap();
    assert_eq!(again, [(libc::SIGUSR1, Installed::Already)]);
    assert_eq!(injection.set_action(libc::SIGUSR1, &usr1).unwrap().handler, at.0);
    assert_eq!(injection.action(libc::SIGSEGV).unwrap(), before, "the others are as they were");
    target.check();
}

#[test]
fn a_child_is_told_from_its_parent_and_gets_its_own_area() {
    let mut target = Target::c(&["integers"]);
    let injection = Injection::open(target.key()).unwrap();
    let island = injection.first_island();
    let child: u32 = target.ask("fork", "forked").parse().unwrap();
    let found = leftovers::find(child).unwrap();
    assert_eq!((found.len(), found[0].is_inherited, found[0].owner), (1, true, Owner::Nobody));
    assert_eq!(found[0].islands, [island]);
    let mut word = [0; 4];
    let own = Injection::open(key(child)).unwrap();
    assert!(!own.facts().is_adopted);
    assert_ne!(own.first_island(), island);
    // The parent's text is the child's: what was patched is put back.
    let text = target.text();
    own.read(text, &mut word).unwrap();
    let mut originals = |_: &dyn Memory, _: Island| {
        vec![Original { at: text, bytes: vec![1, 2, 3, 4] }, Original { at: text, bytes: word.to_vec() }]
    };
    let mut written = Vec::new();
    let mut write = |original: &Original| {
        written.push(original.clone());
        Ok(())
    };
    let cleaned = leftovers::clean(child, &found[0], &mut originals, &mut write).unwrap();
    assert_eq!((cleaned.restored, cleaned.untouched), (1, 1));
    assert_eq!(written[0].bytes, [1, 2, 3, 4]);
    let mut injection = injection;
    assert_eq!(injection.call(&[getppid()]).unwrap().len(), 1, "the parent is as it was");
    drop(own);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn another_agents_area_is_left_alone_until_that_agent_is_gone() {
    let mut target = Target::c(&["integers", "sleep"]);
    let key = target.key();
    let agent = Agent::start(|| {
        let injection = Injection::open(key).unwrap();
        injection.area().u32_at(PROBE_WORDS + 3 * PROBE_WORDS_BYTES + PROBE_ENABLED).store(1, Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    });
    let is_owned = || {
        leftovers::find(key.pid)
            .unwrap()
            .first()
            .is_some_and(|found| found.version.is_some() && matches!(found.owner, Owner::Alive { .. }))
    };
    eventually("the other agent has it", || is_owned().then_some(()));
    let refused = Injection::open(key).err().unwrap();
    assert!(matches!(refused, InjectError::Owned { agent: pid } if pid == agent.0.as_raw() as u64), "{refused}");
    let enabled = Avma(leftovers::find(key.pid).unwrap()[0].islands[0].probe_words(3).0 + PROBE_ENABLED as u64);
    let memory = TargetMemory::reader(key.pid as i32);
    let mut word = [0; 4];
    eventually("its probe is on", || {
        memory.read(enabled, &mut word).unwrap();
        (word == [1, 0, 0, 0]).then_some(())
    });
    agent.kill();
    let left = leftovers::find(key.pid).unwrap().remove(0);
    assert_eq!(left.owner, Owner::Dead);
    let mut write = |_: &Original| panic!("there is nothing to write");
    let cleaned = leftovers::clean(key.pid, &left, &mut |_, _| Vec::new(), &mut write).unwrap();
    assert_eq!((cleaned.restored, cleaned.untouched), (0, 0));
    memory.read(enabled, &mut word).unwrap();
    assert_eq!(word, [0; 4], "its probes are off");
    assert!(Injection::open(key).unwrap().facts().is_adopted);
    target.check();
}

#[test]
fn a_process_that_closes_all_its_descriptors_gets_another_area() {
    let mut target = Target::c(&["integers"]);
    let island = Injection::open(target.key()).unwrap().first_island();
    target.ask("closefrom", "closed");
    let injection = Injection::open(target.key()).unwrap();
    assert!(!injection.facts().is_adopted);
    assert_ne!(injection.first_island(), island);
    target.check();
}

#[test]
fn calls_report_their_errors_and_do_what_they_say() {
    let target = Target::c(&["sleep"]);
    let mut injection = Injection::open(target.key()).unwrap();
    let calls = [
        RemoteCall { number: libc::SYS_close, args: [999_999, 0, 0, 0, 0, 0] },
        // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, then MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
        RemoteCall { number: libc::SYS_membarrier, args: [64, 0, 0, 0, 0, 0] },
        RemoteCall { number: libc::SYS_membarrier, args: [32, 0, 0, 0, 0, 0] },
    ];
    assert_eq!(injection.call(&calls).unwrap(), [Err(libc::EBADF), Ok(0), Ok(0)]);
    let facts = injection.facts();
    assert!(facts.longest_stop_ns > 0 && facts.stops > 1);
    let (mut stops, mut lengths) = (BTreeMap::new(), Vec::new());
    for _ in 0..200 {
        let before = injection.facts().stops;
        injection.call(&calls[2..]).unwrap();
        *stops.entry(injection.facts().stops - before).or_insert(0) += 1;
        lengths.push(injection.facts().last_stop_ns / 1000);
    }
    lengths.sort_unstable();
    eprintln!("stopped for one membarrier: median {} us, 90 % {} us", lengths[100], lengths[180]);
    assert_eq!(stops, BTreeMap::from([(1, 200)]), "one stop each");
}

#[test]
fn a_call_needs_no_vdso() {
    let mut target = Target::c(&["integers", "sleep", "poll"]);
    let maps = target.maps();
    let memory = TargetMemory::reader(target.pid() as i32);
    let slot = slots::in_padding(&memory, &maps, false).unwrap();
    assert!(maps.iter().any(|map| (map.lo..map.hi).contains(&slot.at().0) && map.path.starts_with('/') && map.exec));
    for _ in 0..20 {
        let (parent, stopped) = with_thread(target.pid(), |tracee| {
            tracee.use_slot(slot)?;
            tracee.call(getppid())
        })
        .unwrap();
        assert_eq!((parent, stopped.ns > 0), (Ok(u64::from(target.shell())), true));
    }
    assert_eq!(slots::in_padding(&memory, &maps, false).unwrap().at(), slot.at(), "it is free again");
    target.check();
}

/// Whether the mapping at an address is kept from children by fork(2): `dc` of its flags (proc_pid_smaps(5)).
fn is_kept_from_children(pid: u32, at: Avma) -> bool {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let start = format!("{:x}-", at.0);
    let flags =
        smaps.lines().skip_while(|line| !line.starts_with(&start)).find_map(|line| line.strip_prefix("VmFlags:"));
    flags.expect("it is mapped").split_whitespace().any(|flag| flag == "dc")
}

#[test]
fn what_an_agent_was_killed_before_it_said_of_its_memory_is_said_by_the_next() {
    let target = Target::c(&["sleep"]);
    let mut injection = Injection::open(target.key()).unwrap();
    let control = injection.first_island().control;
    let rings = Avma(injection.area().u64_at(RING_CONTROL + RING_BASE).load(Ordering::Relaxed));
    assert!(is_kept_from_children(target.pid(), control) && is_kept_from_children(target.pid(), rings));
    // As memory is right after it was mapped.
    let bytes = injection.area().cpus() * 2 * RING_BYTES;
    for (at, bytes) in [(control, ALIVE), (rings, bytes)] {
        let args = [at.0, bytes as u64, libc::MADV_DOFORK as u64, 0, 0, 0];
        assert_eq!(injection.call(&[RemoteCall { number: libc::SYS_madvise, args }]).unwrap()[0], Ok(0));
        assert!(!is_kept_from_children(target.pid(), at));
    }
    injection.area().u64_at(ADVISED).store(0, Ordering::Relaxed);
    drop(injection);
    let injection = Injection::open(target.key()).unwrap();
    assert!(injection.facts().is_adopted);
    assert!(is_kept_from_children(target.pid(), control) && is_kept_from_children(target.pid(), rings));
    target.assert_free();
}

//! The tables are what an earlier agent or a broken process left: any bytes are read, and what was written is found.

use super::super::island::IslandMemory;
use super::super::tables::*;
use super::super::{PadBody, PadError, PadRequest, PatchKind, Places, build, length};
use super::world::{Also, TestBody};
use crate::engine::area::{CODE_BYTES, CONTROL_BYTES, Island, TABLES_BYTES};
use proptest::prelude::*;
use riptrace_protocol::ids::Avma;

const SITE: Avma = Avma(0x40_1000);
/// `mov rax, [rdi]; add rax, [rdi + 0x1000]`
const TWO_LOADS: [u8; 10] = [0x48, 0x8b, 0x07, 0x48, 0x03, 0x87, 0, 0x10, 0, 0];

fn island() -> Island {
    Island { number: 0, control: Avma(0x0640_0000 + SITE.0 - CONTROL_BYTES as u64) }
}

/// A fresh island's memory, aligned as a mapping is.
fn memory() -> Vec<u64> {
    vec![0; CODE_BYTES / 8]
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: the same memory, as bytes.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8) }
}

fn request<'a>(bodies: &'a [&'a dyn PadBody], original: &'a [u8], patch: PatchKind) -> PadRequest<'a> {
    PadRequest {
        island: island(),
        site: SITE,
        original,
        displaced: original.len(),
        patch,
        bodies,
        red_zone: false,
        go: true,
        shadow_stack: false,
    }
}

const PUNNED: PatchKind = PatchKind::Punned { mask: 0x00ff_0000, value: 0x00cc_0000 };

#[test]
fn what_was_written_is_found_by_the_next_agent() {
    let mut words = memory();
    let body = TestBody { probe: 1, island: island(), also: Also::Load };
    let bodies: [&dyn PadBody; 1] = [&body];
    let request = request(&bodies, &TWO_LOADS, PUNNED);
    let mut written = IslandMemory::create(bytes_of(&mut words), island(), true).unwrap();
    written.set_islands(&[island().tables()]).unwrap();
    let handlers = written.install_handlers().unwrap();
    let old = KernelAction { handler: 0x1234, flags: 4, restorer: 0x99, mask: u64::MAX };
    written.set_old_action(Signal::Urgent, &old);
    let image = written.add_pad(&request).unwrap();

    let mut adopted = IslandMemory::adopt(bytes_of(&mut words)).unwrap();
    assert_eq!(adopted.install_handlers().unwrap(), handlers);
    assert_eq!(adopted.island(), island());
    let view = adopted.view();
    assert!(view.is_go());
    assert_eq!(view.islands(), [island().tables()]);
    assert_eq!((view.old_action(Signal::Urgent), view.old_action(Signal::Trap)), (Some(old), None));
    let pads: Vec<Pad> = view.pads().collect();
    let [pad] = &pads[..] else { panic!("{pads:?}") };
    assert_eq!((pad.site, pad.start, pad.twin), (SITE, image.places.start, image.places.twin));
    assert_eq!((&pad.original[..], pad.patch_bytes), (&TWO_LOADS[..], 5));
    assert_eq!(pad.patch(), image.patch);
    assert_eq!((image.patch[0], image.patch[3]), (0xe9, 0xcc));
    for (original, copy) in &image.boundaries {
        let trap = if *original == SITE { image.places.start } else { *copy };
        assert_eq!(view.find_trap(*original), Some(trap));
        let (found, place) = view.find_pad(*copy).unwrap();
        assert_eq!((&found, place.twin), (pad, false));
        let span = view.span(&found, place.offset).unwrap();
        assert_eq!((span.kind, SITE.0 + u64::from(span.original)), (SpanKind::Displaced, original.0));
    }
    let twin = image.places.twin.unwrap();
    assert_eq!(view.find_pad(twin).map(|(_, place)| place), Some(Place { twin: true, offset: 0 }));
    assert_eq!(view.find_pad(handlers.code.start), None);
    assert_eq!(view.find_trap(Avma(SITE.0 + 1)), None);
    assert_eq!(view.find_pad(SITE), None);
    assert_eq!(image.code.len(), length(&request).unwrap());
}

#[test]
fn the_same_request_gives_the_same_pad_and_its_length_depends_on_no_place() {
    let body = TestBody { probe: 1, island: island(), also: Also::Load };
    let bodies: [&dyn PadBody; 2] = [&body, &body];
    for patch in [PUNNED, PatchKind::Trap] {
        let request = request(&bodies, &TWO_LOADS, patch);
        let code = island().tables().0 + TABLES_BYTES as u64;
        let places = |start, twin| Places { start: Avma(code + start), twin: Some(Avma(code + twin)) };
        let one = build(&request, places(0, 0x1000)).unwrap();
        assert_eq!(one, build(&request, places(0, 0x1000)).unwrap());
        let other = build(&request, places(0x12345, 0x71)).unwrap();
        assert_eq!((&one.fixups, &one.spans), (&other.fixups, &other.spans));
        assert_eq!((one.code.len(), one.twin_code.len()), (length(&request).unwrap(), length(&request).unwrap()));
        assert_eq!(one.code.len(), other.code.len());
    }
}

#[test]
fn pads_share_no_byte_and_an_island_says_when_it_is_full() {
    let mut words = memory();
    let mut memory = IslandMemory::create(bytes_of(&mut words), island(), true).unwrap();
    let bodies: [&dyn PadBody; 0] = [];
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for number in 0..300u64 {
        let patch = [PatchKind::Jump, PUNNED, PatchKind::Trap][number as usize % 3];
        let request = PadRequest { site: Avma(SITE.0 + number * 16), ..request(&bodies, &TWO_LOADS, patch) };
        let image = memory.add_pad(&request).unwrap();
        for start in [image.places.start, image.places.twin.unwrap()] {
            taken.push((start.0, start.0 + image.code.len() as u64));
        }
    }
    taken.sort_unstable();
    assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    // A site of which no place in this island has the bits.
    let far = PatchKind::Punned { mask: 0xff00_0000, value: 0x5500_0000 };
    let refused = memory.add_pad(&request(&bodies, &TWO_LOADS, far));
    assert_eq!(refused, Err(PadError::Tables(TablesError::NoPlace)));
    for number in 0..TRAPS_MAX as u64 {
        if memory.set_trap(Avma(0x10_0000 + number), SITE).is_err() {
            break;
        }
    }
    let refused = memory.add_pad(&request(&bodies, &TWO_LOADS, PatchKind::Trap));
    assert_eq!(refused, Err(PadError::Tables(TablesError::Full { what: "trap" })));
    // A new value for an address that is there needs no room.
    memory.set_trap(Avma(0x10_0000), Avma(5)).unwrap();
    assert_eq!(memory.view().find_trap(Avma(0x10_0000)), Some(Avma(5)));
    assert_eq!(memory.retarget_trap(Avma(0x10_0000), Avma(6)), Ok(true));
    assert_eq!(memory.view().find_trap(Avma(0x10_0000)), Some(Avma(6)));
    assert_eq!(memory.retarget_trap(Avma(0x9_0000), Avma(6)), Ok(false));
    assert_eq!(memory.view().find_trap(Avma(0x9_0000)), None);
}

#[test]
fn pads_that_were_given_back_make_room_and_are_found_no_more() {
    const PADS: usize = 6;
    super::super::island::PADS_LIMIT.set(PADS);
    let mut words = memory();
    let mut memory = IslandMemory::create(bytes_of(&mut words), island(), true).unwrap();
    let body = TestBody { probe: 1, island: island(), also: Also::Load };
    let bodies: [&dyn PadBody; 1] = [&body];
    let of =
        |number: u64, patch| PadRequest { site: Avma(SITE.0 + number * 16), ..request(&bodies, &TWO_LOADS, patch) };
    let full = Err(PadError::Tables(TablesError::Full { what: "pad" }));
    let mut images: Vec<_> =
        (0..PADS as u64).map(|n| memory.add_pad(&of(n, [PUNNED, PatchKind::Jump][n as usize % 2])).unwrap()).collect();
    for round in 0..20u64 {
        assert_eq!(memory.add_pad(&of(99, PatchKind::Jump)), full);
        let (out, kept) = (round as usize % PADS, (round as usize + 1) % PADS);
        let pad = memory.view().find_pad(images[out].places.start).unwrap().0;
        let code: Vec<_> = pad.code().collect();
        memory.forget_traps(|to| code.iter().any(|code| code.contains(&to)));
        memory.give_back(&[pad.number]);
        assert!(memory.view().traps().all(|(_, to)| !code.iter().any(|code| code.contains(&to))));
        assert_eq!(memory.view().find_pad(images[out].places.start), None);
        assert_eq!(memory.view().find_pad(images[out].places.twin.unwrap()), None);
        assert_eq!(memory.view().pads().count(), PADS - 1);
        // Another kind, so that it needs other room.
        let kind = [PatchKind::Trap, PUNNED, PatchKind::Jump][round as usize % 3];
        images[out] = memory.add_pad(&of(round % 7, kind)).unwrap();
        let (pad, _) = memory.view().find_pad(images[kept].places.start).unwrap();
        assert_eq!(pad.start, images[kept].places.start, "the others stay");
        let span = memory.view().span(&pad, 0).map(|span| (span.start, span.depth, span.kind));
        assert_eq!(span, Some((0, 0, SpanKind::Body)));
    }
    let mut taken: Vec<_> = memory.view().pads().flat_map(|pad| pad.code().collect::<Vec<_>>()).collect();
    taken.sort_unstable_by_key(|range| range.start);
    assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start), "{taken:?}");
}

#[test]
fn traps_may_come_and_go_more_often_than_there_is_room() {
    let mut words = memory();
    let mut memory = IslandMemory::create(bytes_of(&mut words), island(), true).unwrap();
    // Some that stay, so that searches go on behind what was removed.
    let stays: Vec<Avma> = (0..2000).map(|n| Avma(0x70_0000 + n * 3)).collect();
    stays.iter().for_each(|&at| memory.set_trap(at, Avma(1 + at.0)).unwrap());
    let mut next = 0x10_0000u64;
    for round in 0..10 {
        let mut last = Vec::new();
        for _ in 0..TRAPS_MAX / 4 {
            memory.set_trap(Avma(next), Avma(7 + round)).unwrap();
            last.push(Avma(next));
            next += 1 + next % 5;
        }
        assert!(last.iter().all(|&at| memory.view().find_trap(at) == Some(Avma(7 + round))));
        memory.forget_traps(|to| to.0 == 7 + round);
        assert!(last.iter().all(|&at| memory.view().find_trap(at).is_none()));
        assert!(stays.iter().all(|&at| memory.view().find_trap(at) == Some(Avma(1 + at.0))));
    }
    let view = memory.view();
    assert_eq!(
        view.traps().map(|(from, _)| from).collect::<std::collections::BTreeSet<_>>(),
        stays.into_iter().collect()
    );
}

#[test]
fn what_cannot_run_elsewhere_is_refused_by_name() {
    let bodies: [&dyn PadBody; 0] = [];
    let error = |bytes: &[u8], shadow_stack| {
        let places = Places { start: Avma(island().tables().0 + TABLES_BYTES as u64), twin: None };
        build(&PadRequest { shadow_stack, ..request(&bodies, bytes, PatchKind::Trap) }, places).unwrap_err()
    };
    for (bytes, name) in [
        (&[0x0f, 0x05][..], "syscall"),
        (&[0xcc], "int3"),
        (&[0xcd, 0x80], "int"),
        (&[0xff, 0xd4], "call"),
        (&[0x48, 0xcf], "iretq"),
        (&[0xc7, 0xf8, 0, 0, 0, 0], "xbegin"),
        // call [rsp-8]: the word that the return address overwrites.
        (&[0xff, 0x54, 0x24, 0xf8], "call"),
    ] {
        assert_eq!(error(bytes, false), PadError::Kind { at: SITE, instruction: name.to_owned() }, "{bytes:x?}");
    }
    assert_eq!(error(&[0xe8, 0, 0, 0, 0], true), PadError::ShadowStack { at: SITE });
    assert_eq!(error(&[0xff, 0xd0], true), PadError::ShadowStack { at: SITE });
    // push [rip+x], where x is out of the island's reach only.
    assert_eq!(error(&[0xff, 0x35, 0, 0, 0, 0x80], false), PadError::TooFar { at: SITE });
    for bytes in [&[][..], &[0x06], &[0x48]] {
        assert!(matches!(error(bytes, false), PadError::NoInstruction { .. }), "{bytes:x?}");
    }
}

/// Tables of an island in use, to be broken.
fn in_use() -> Vec<u64> {
    let mut words = memory();
    let body = TestBody { probe: 1, island: island(), also: Also::Load };
    let bodies: [&dyn PadBody; 1] = [&body];
    let mut memory = IslandMemory::create(bytes_of(&mut words), island(), true).unwrap();
    memory.set_islands(&[island().tables()]).unwrap();
    memory.install_handlers().unwrap();
    for patch in [PUNNED, PatchKind::Trap] {
        memory.add_pad(&request(&bodies, &TWO_LOADS, patch)).unwrap();
    }
    words
}

fn read_all(bytes: &[u8], addresses: &[u64]) {
    let Ok(view) = View::new(bytes) else { return };
    let _ = (view.islands(), view.handlers(), view.is_go(), view.island());
    let _ = Signal::ALL.map(|signal| view.old_action(signal));
    let pads: Vec<Pad> = view.pads().take(8).collect();
    let starts = pads.iter().flat_map(|pad| [pad.start.0, pad.twin.map_or(0, |twin| twin.0)]);
    for address in starts.collect::<Vec<_>>().iter().chain(addresses) {
        for near in [address.wrapping_sub(1), *address, address.wrapping_add(90)] {
            let _ = view.find_trap(Avma(near));
            if let Some((pad, place)) = view.find_pad(Avma(near)) {
                let _ = (view.span(&pad, place.offset), pad.patch());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn broken_tables_are_read_without_a_panic(
        breaks in proptest::collection::vec((0usize..6, any::<prop::sample::Index>(), any::<u64>()), 1..40),
        addresses in proptest::collection::vec(any::<u64>(), 0..4),
    ) {
        thread_local!(static SOUND: Vec<u64> = in_use());
        SOUND.with(|sound| {
            let mut words = sound[..TABLES_BYTES / 8].to_vec();
            for (part, index, value) in breaks {
                let (from, length) = [
                    (8, 0x200),
                    (TRAPS_AT, TRAP_SLOTS * TRAP_BYTES),
                    (GRANULES_AT, 0x100),
                    (PADS_AT, 3 * PAD_BYTES),
                    (HEAP_AT, 0x100),
                    (0, TABLES_BYTES),
                ][part];
                words[from / 8 + index.index(length / 8)] = value;
            }
            let bytes = bytes_of(&mut words);
            read_all(bytes, &addresses);
            read_all(&bytes[..bytes.len() - 1], &addresses);
        });
    }
}

#[test]
fn other_versions_and_unfinished_tables_are_told_apart() {
    let mut words = in_use();
    assert!(View::new(bytes_of(&mut words)).is_ok());
    words[1] = 7;
    assert_eq!(View::new(bytes_of(&mut words)).unwrap_err(), TablesError::Version { found: 7 });
    words[0] = 0;
    assert_eq!(View::new(bytes_of(&mut words)).unwrap_err(), TablesError::Magic);
    let bytes = bytes_of(&mut words);
    let short = TablesError::Short { needed: TABLES_BYTES, found: 10 };
    assert_eq!(View::new(&bytes[..10]).unwrap_err(), short);
    assert_eq!(IslandMemory::adopt(&mut bytes[1..]).unwrap_err(), TablesError::Alignment);
}

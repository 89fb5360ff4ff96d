//! Pads with what the code generator makes of a capture program: the program's state is kept, at each instruction the
//! site is shown, and records hold what was there.

use super::super::{PadBody, PatchKind};
use super::state::{check, state_keeper, step_through};
use super::world::{World, succeeds, word_at, write};
use crate::capture::program::{Address, Follow, FollowIndex, Piece, Place, Program, Register, RootRead};
use crate::engine::area::{RING_BYTES, RING_CONTROL_BYTES, RING_HEAD};
use crate::engine::record::{RecordLayout, decode};
use crate::engine::x86_64::codegen::{BodyContext, ThreadPlace};
use riptrace_protocol::ids::Avma;

const PROBE: u32 = 5;
const KIND: u32 = 77;
const CPUS: u32 = 2;
/// rdi and r9 as DWARF numbers them.
const RDI: Register = Register(5);
const R9: Register = Register(9);

/// Captures rdi, r9, the word that rdi points to, and two frames of call stack.
fn program() -> Program {
    let read = |offset, place| RootRead::Read {
        offset,
        pieces: vec![Piece { bytes: 8, place }],
        follow: FollowIndex(0),
        depth: 2,
    };
    let word = Address { base: Some(RDI), offset: 0, derefs: vec![] };
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: vec![read(0, Place::Register(RDI)), read(8, Place::Register(R9)), read(16, Place::Memory(word))],
        root_bytes: 24,
        follow: vec![Follow::Plain],
        goroutine: None,
        stack_frames_max: 2,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 4096,
    }
}

/// Rings, mirrored or not: no record of these tests comes to the end of one.
fn rings() -> Avma {
    let bytes = CPUS as usize * 2 * RING_BYTES;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping where the kernel finds room.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    Avma(at as u64)
}

fn context<'a>(world: &World, program: &'a Program, record: &'a RecordLayout, rings: Avma) -> BodyContext<'a> {
    BodyContext {
        program,
        record,
        kind: KIND,
        probe: PROBE,
        island: world.island,
        rings,
        cpus: CPUS,
        has_budget: false,
        thread: ThreadPlace::Unknown,
        goroutine: None,
        red_zone: true,
        guard: None,
        rdpid: false,
    }
}

/// All records of all rings, as their roots.
fn records(world: &World, program: &Program, layout: &RecordLayout, rings: Avma) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for cpu in 0..u64::from(CPUS) {
        let head = word_at(world.island.ring_controls().0 + cpu * RING_CONTROL_BYTES as u64 + RING_HEAD as u64);
        let ring = rings.0 + cpu * 2 * RING_BYTES as u64;
        let mut at = 0;
        while at < head {
            assert_eq!(word_at(ring + at), at + 1, "committed");
            let length = word_at(ring + at + 8) & 0xffff_ffff;
            let record = decode(layout, program, &super::world::read(ring + at, length as usize)).unwrap();
            assert_eq!(record.kind, KIND);
            found.push(record.captured.roots);
            at += length;
        }
    }
    found
}

#[test]
fn a_capture_keeps_the_programs_state_and_records_it() {
    for (patch, go) in [(PatchKind::Jump, true), (PatchKind::Trap, false)] {
        succeeds(|| {
            let mut world = World::new(go);
            world.install();
            let rings = rings();
            let program = program();
            let (function, site) = state_keeper(&mut world);
            let layout = RecordLayout::of(&program, Avma(site)).unwrap();
            let body = context(&world, &program, &layout, rings);
            let bodies: [&dyn PadBody; 1] = [&body];
            world.arm(site, 5, patch, &bodies);
            write(world.word(0), &0xabcd_u64.to_le_bytes());
            let (good, bad) = (world.word(0), 0x10u64);
            let calls = check(&world, function, &[good, bad]);
            let records = records(&world, &program, &layout, rings);
            assert_eq!(records.len() as u64, calls);
            for roots in records {
                let root = |number: usize| u64::from_le_bytes(roots[number * 8..][..8].try_into().unwrap());
                assert!(root(0) == good || root(0) == bad);
                // The ninth register that the function sets is r10; r9 is the eighth.
                assert_eq!(root(1), 0x1111_1111_1111_1111u64.wrapping_mul(8));
                if root(0) == good {
                    assert_eq!(root(2), 0xabcd);
                }
            }
        });
    }
}

#[test]
fn every_instruction_of_a_capture_is_shown_as_its_site() {
    succeeds(|| {
        let mut world = World::new(false);
        let rings = rings();
        let program = program();
        let layout = RecordLayout::of(&program, Avma(0)).unwrap();
        let body = context(&world, &program, &layout, rings);
        let pointer = world.word(0);
        let steps = step_through(&mut world, &[&body], pointer);
        assert!(steps > 40, "{steps}");
        assert_eq!(records(&world, &program, &layout, rings).len(), 1);
    });
}

//! A process that writes over what it shares: records may be lost or wrong, and nothing else may happen.

use super::machine::{self, Machine, Processor, SITE};
use super::random::{Generator, Random};
use super::{cases, empty, first_seed};
use crate::capture::program::{FollowIndex, Piece, Place, Program, Register, RootRead};
use crate::engine::area::RING_BYTES;
use crate::engine::record::{RecordLayout, decode};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn rings_that_are_written_over_cannot_lead_a_body_astray() {
    let mut machine = Machine::new();
    let first = first_seed();
    let stop = AtomicBool::new(false);
    let rings = machine.ring_words();
    std::thread::scope(|scope| {
        // Writes garbage over all records while they are made, small numbers among it, which look like lengths.
        scope.spawn(|| {
            let mut random = Random(7);
            while !stop.load(Ordering::Relaxed) {
                let value = random.next() >> random.below(64);
                rings.store(random.below(512) as usize, value);
            }
        });
        for seed in first..first + cases(300) {
            let mut generator =
                Generator { random: Random(seed), base: machine.base(), rsp: machine.rsp(), g: machine.g_place() };
            let memory = generator.memory();
            let readable = generator.readable();
            machine.fill(&memory, readable);
            let program = generator.following();
            let Ok(layout) = RecordLayout::of(&program, SITE) else { continue };
            let loaded = machine.load(&machine.context(&program, &layout)).unwrap();
            for _ in 0..20 {
                // All records begin where the garbage is.
                machine.set_rings(0, 0);
                let registers = generator.registers(SITE.0, machine::fs_base());
                let before = Processor::of(&registers, generator.random.next(), false);
                machine.below_stack().fill(0xa5);
                let after = machine.run(&loaded, &before);
                assert_eq!(after.unchanged(&before), Ok(()), "seed {seed}");
                assert!(machine.memory_is(&memory, 2048), "seed {seed}: memory of the process was written");
                let bytes = machine.ring_bytes(layout.max_bytes as usize);
                // It may be refused; it must not end the agent.
                let _ = decode(&layout, &program, &bytes);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn positions_that_are_written_over_lead_to_no_place_outside_of_the_ring() {
    let machine = Machine::new();
    let pieces = vec![Piece { bytes: 8, place: Place::Register(Register(0)) }];
    let roots = vec![RootRead::Read { offset: 0, pieces, follow: FollowIndex(0), depth: 2 }];
    let program = Program { roots, root_bytes: 8, ..empty() };
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let loaded = machine.load(&machine.context(&program, &layout)).unwrap();
    let mut random = Random(first_seed());
    let mut written = 0;
    for _ in 0..2000 {
        let head = random.next() >> random.below(64);
        let tail =
            if random.one_in(2) { head.wrapping_sub(random.below(2 * RING_BYTES as u64)) } else { random.next() };
        machine.set_rings(head, tail);
        let mut registers = crate::capture::registers::Registers::default();
        registers.gpr[7] = machine.rsp();
        let before = Processor::of(&registers, 0, false);
        assert_eq!(machine.run(&loaded, &before).unchanged(&before), Ok(()), "{head:#x} {tail:#x}");
        written += usize::from(machine.heads().iter().any(|&now| now != head));
    }
    // The pages around the rings cannot be touched: a write there would have ended the test.
    assert!((500..2000).contains(&written), "{written} of 2000 had room");
}

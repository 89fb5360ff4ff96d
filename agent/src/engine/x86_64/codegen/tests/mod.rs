//! The generator against the interpreter: the same program, registers and memory give the same record, and nothing of the
//! process changes.

mod admission;
mod hostile;
mod identity;
mod machine;
mod random;

use super::Guard;
use super::guard;
use crate::capture::interpreter::{Captured, Truth, capture, test};
use crate::capture::program::Program;
use crate::engine::record::{LayoutError, RecordLayout};
use machine::{BELOW, KIND, Machine, Processor, SITE};
use random::{Generator, Random};
use std::sync::atomic::Ordering;

/// Cases of each kind; more with RIPTRACE_CODEGEN_CASES.
fn cases(usual: u64) -> u64 {
    std::env::var("RIPTRACE_CODEGEN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

fn first_seed() -> u64 {
    std::env::var("RIPTRACE_CODEGEN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// What a run of random cases has seen, so that none of it can be empty talk.
#[derive(Debug, Default)]
struct Seen {
    hits: u64,
    unknown: u64,
    not_held: u64,
    chunks: usize,
    frames: usize,
    unreadable: usize,
    depth: u32,
    code_bytes: usize,
    faults: usize,
}

fn compare(machine: &mut Machine, seed: u64, make: impl Fn(&mut Generator) -> Program, seen: &mut Seen) {
    let mut generator =
        Generator { random: Random(seed), base: machine.base(), rsp: machine.rsp(), g: machine.g_place() };
    let memory = generator.memory();
    let readable = generator.readable();
    let g = generator.word();
    machine::G.with(|cell| cell.set(g));
    machine.fill(&memory, readable);
    let mut program = make(&mut generator);
    // As for a program that is not Go's: every other case.
    let is_guarded = seed % 2 == 1;
    if is_guarded {
        program.goroutine = None;
    }
    let layout = match RecordLayout::of(&program, SITE) {
        Ok(layout) => layout,
        Err(LayoutError::Roots { .. }) => return,
    };
    let mut context = machine.context(&program, &layout);
    context.red_zone = generator.random.one_in(2);
    context.rdpid = !generator.random.one_in(4);
    if is_guarded {
        context.guard = Some(Guard { image: machine.image_range(generator.random.below(3)) });
    } else if generator.random.one_in(2) {
        context.goroutine = Some(machine.g_place());
        // Where g leads to a word, that word is the lower end of a stack: the tests of the stack's room are by hand.
        if machine.image_word(g).is_some() {
            context.goroutine = None;
        }
    }
    let loaded = machine.load(&context).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    seen.depth = seen.depth.max(loaded.depth);
    seen.code_bytes = seen.code_bytes.max(loaded.code_bytes);
    for _ in 0..3 {
        let registers = generator.registers(SITE.0, machine::fs_base());
        let before = Processor::of(&registers, generator.random.next(), generator.random.one_in(4));
        machine.below_stack().fill(0xa5);
        let image = machine.image();
        let faults = machine::FAULTS.load(Ordering::Relaxed);
        let after = machine.run(&loaded, &before);
        let faults = machine::FAULTS.load(Ordering::Relaxed) - faults;
        assert!(!is_guarded || faults == 0, "seed {seed}: {faults} loads have faulted\n{program:#?}");
        seen.faults += faults;
        if let Err(what) = after.unchanged(&before) {
            panic!("seed {seed}: {what}\n{program:#?}");
        }
        let red_zone = if context.red_zone { 128 } else { 0 };
        let asked = if is_guarded { guard::BELOW_BYTES } else { 0 };
        let touched = (16 + red_zone + loaded.depth + asked) as usize;
        let below = machine.below_stack();
        let intact = below.len() - touched;
        assert!(below[..intact].iter().all(|&byte| byte == 0xa5), "seed {seed}: more than {touched} bytes of stack");
        assert!(touched < BELOW);
        let passed = machine.take(&layout, &program);
        let mut counters = [0; 8];
        match test(&program, &registers, &image) {
            Truth::True => {
                seen.hits += 1;
                let [record] = passed.records.as_slice() else {
                    panic!("seed {seed}: {} records, {:?}\n{program:#?}", passed.records.len(), passed.counters);
                };
                let wanted = capture(&program, &registers, &image);
                if record.captured != wanted {
                    panic!("seed {seed}: {}\n{program:?}\n{registers:x?}", difference(&record.captured, &wanted));
                }
                assert_eq!((record.kind, record.thread), (KIND, Some(0x1234)), "seed {seed}");
                seen.chunks += wanted.chunks.len();
                seen.frames += wanted.stack.len();
                let unreadable = |state: &&_| matches!(state, riptrace_protocol::hit::RootState::Unreadable(_));
                seen.unreadable += wanted.root_states.iter().filter(unreadable).count();
            }
            Truth::False => {
                seen.not_held += 1;
                assert!(passed.records.is_empty(), "seed {seed}\n{:#?}\n{registers:x?}", program.condition);
            }
            Truth::Unknown(why) => {
                seen.unknown += 1;
                counters[0] = 1;
                assert!(passed.records.is_empty(), "seed {seed}: {why}\n{:#?}\n{registers:x?}", program.condition);
            }
        }
        assert_eq!(passed.counters, counters, "seed {seed}\n{:#?}\n{registers:x?}", program.condition);
    }
}

/// Where two captures differ first.
fn difference(got: &Captured, wanted: &Captured) -> String {
    for (number, (got, wanted)) in got.chunks.iter().zip(&wanted.chunks).enumerate() {
        if got != wanted {
            return format!("chunk {number}: {got:x?}, not {wanted:x?}");
        }
    }
    let [got, wanted] = [got, wanted].map(|captured| {
        let chunks = captured.chunks.len();
        format!(
            "{:x?}",
            (
                &captured.roots,
                &captured.root_states,
                chunks,
                captured.goroutine,
                &captured.stack,
                captured.stack_end,
                &captured.stack_memory
            )
        )
    });
    format!("{got}, not {wanted}")
}

#[test]
fn random_captures_are_the_interpreters() {
    let mut machine = Machine::new();
    let mut seen = Seen::default();
    let first = first_seed();
    for seed in first..first + cases(1500) {
        compare(&mut machine, seed, Generator::program, &mut seen);
    }
    assert!(
        seen.hits > 1000 && seen.chunks > 300 && seen.frames > 1000 && seen.unreadable > 300 && seen.faults > 300,
        "{seen:?}"
    );
}

#[test]
fn random_followings_are_the_interpreters() {
    let mut machine = Machine::new();
    let mut seen = Seen::default();
    let first = first_seed();
    for seed in first..first + cases(1500) {
        compare(&mut machine, seed, Generator::following, &mut seen);
    }
    assert!(seen.hits > 1000 && seen.chunks > 10_000, "{seen:?}");
}

#[test]
fn random_conditions_are_the_interpreters() {
    let mut machine = Machine::new();
    let mut seen = Seen::default();
    let first = first_seed();
    for seed in first..first + cases(3000) {
        let make = |generator: &mut Generator| {
            let condition = generator.test(4);
            Program { condition: Some(condition), ..empty() }
        };
        compare(&mut machine, seed, make, &mut seen);
    }
    assert!(seen.hits > 1000 && seen.unknown > 1000 && seen.not_held > 1000, "{seen:?}");
}

/// A program that captures nothing.
fn empty() -> Program {
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: Vec::new(),
        root_bytes: 0,
        follow: Vec::new(),
        goroutine: None,
        stack_frames_max: 0,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 8192,
    }
}

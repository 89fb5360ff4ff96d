//! What becomes of passages: counted by what was not wanted, and never lost silently.

use super::machine::{self, Machine, Processor, SITE};
use super::{empty, machine::Passed};
use crate::capture::program::{
    Comparison, Follow, FollowIndex, GoroutinePointer, Operand, Piece, Place, Program, Register, RootRead, StackSlice,
    Test,
};
use crate::capture::registers::Registers;
use crate::engine::area::{
    COUNTER_CONDITION, COUNTER_COUNTED, COUNTER_RATE, COUNTER_RING, COUNTER_SAMPLED, COUNTER_SAMPLED_OUT,
    COUNTER_STACK, COUNTER_UNSELECTED, PROBE_HELD, PROBE_SAMPLING, PROBE_TOKENS, RING_BYTES,
};
use crate::engine::record::{RecordLayout, SHORT_STACK_WORDS};
use crate::engine::x86_64::codegen::{BodyContext, Guard};
use riptrace_protocol::hit::ChunkEnd;
use riptrace_protocol::tracepoint::HitCondition;

fn counter(counter: usize) -> usize {
    counter / 8
}

/// Passages with rax 0, 1, 2 ..: which of them left a record, and the counters.
fn passages(
    machine: &Machine,
    program: &Program,
    count: u64,
    change: impl Fn(&mut BodyContext<'_>),
) -> (Vec<u64>, Passed) {
    let layout = RecordLayout::of(program, SITE).unwrap();
    let mut context = machine.context(program, &layout);
    change(&mut context);
    let loaded = machine.load(&context).unwrap();
    for number in 0..count {
        let mut registers = Registers::default();
        registers.gpr[0] = number;
        registers.gpr[7] = machine.rsp();
        let before = Processor::of(&registers, number * 0x41, false);
        machine.run(&loaded, &before).unchanged(&before).unwrap();
    }
    let passed = machine.take(&layout, program);
    let numbers = passed
        .records
        .iter()
        .map(|record| u64::from_le_bytes(record.captured.roots[..8].try_into().expect("the root is a word")));
    (numbers.collect(), passed)
}

/// Captures rax.
fn of_rax() -> Program {
    let pieces = vec![Piece { bytes: 8, place: Place::Register(Register(0)) }];
    let roots = vec![RootRead::Read { offset: 0, pieces, follow: FollowIndex(0), depth: 1 }];
    Program { roots, root_bytes: 8, ..empty() }
}

#[test]
fn hit_conditions_select_by_the_number_of_the_passage() {
    let machine = Machine::new();
    for condition in [
        HitCondition::Exactly { n: 3 },
        HitCondition::From { n: 4 },
        HitCondition::UpTo { n: 2 },
        HitCondition::Every { n: 3 },
        HitCondition::Every { n: 1 },
        HitCondition::Every { n: 0 },
        HitCondition::From { n: u64::MAX },
    ] {
        machine.set_probe_word(PROBE_HELD, 0);
        let program = Program { hit_condition: Some(condition), ..of_rax() };
        let (numbers, passed) = passages(&machine, &program, 10, |_| {});
        let wanted: Vec<u64> = (0..10).filter(|number| condition.admits(number + 1)).collect();
        assert_eq!(numbers, wanted, "{condition:?}");
        assert_eq!(passed.counters[counter(COUNTER_UNSELECTED)], 10 - wanted.len() as u64, "{condition:?}");
        assert_eq!(machine.probe_word(PROBE_HELD), 10);
    }
}

#[test]
fn only_passages_whose_condition_holds_are_numbered_and_a_false_one_counts_nothing() {
    let machine = Machine::new();
    let rax = Operand::Read { pieces: vec![Piece { bytes: 8, place: Place::Register(Register(0)) }], signed: false };
    let condition = Test::Integer { comparison: Comparison::GreaterOrEqual, left: rax, right: Operand::Constant(4) };
    let hit_condition = Some(HitCondition::Exactly { n: 2 });
    let program = Program { condition: Some(condition), hit_condition, ..of_rax() };
    let (numbers, passed) = passages(&machine, &program, 10, |_| {});
    assert_eq!(numbers, [5]);
    let mut counters = [0; 8];
    counters[counter(COUNTER_UNSELECTED)] = 5;
    assert_eq!(passed.counters, counters);
}

#[test]
fn a_condition_that_cannot_be_told_is_counted_and_takes_no_number() {
    let machine = Machine::new();
    let nowhere = crate::capture::program::Address { base: None, offset: 8, derefs: Vec::new() };
    let read = Operand::Read { pieces: vec![Piece { bytes: 8, place: Place::Memory(nowhere) }], signed: false };
    let hit_condition = Some(HitCondition::From { n: 1 });
    let program = Program { condition: Some(Test::Bool(read)), hit_condition, ..of_rax() };
    let (numbers, passed) = passages(&machine, &program, 3, |_| {});
    assert!(numbers.is_empty());
    assert_eq!(passed.counters[counter(COUNTER_CONDITION)], 3);
    assert_eq!(machine.probe_word(PROBE_HELD), 0);
}

#[test]
fn a_counting_probe_counts() {
    let machine = Machine::new();
    let program = Program { count_only: true, hit_condition: Some(HitCondition::From { n: 3 }), ..empty() };
    let (numbers, passed) = passages(&machine, &program, 10, |_| {});
    assert!(numbers.is_empty());
    assert_eq!(passed.counters[counter(COUNTER_COUNTED)], 8);
    assert_eq!(passed.counters[counter(COUNTER_UNSELECTED)], 2);
}

#[test]
fn sampling_leaves_out_what_it_says_and_counts_it() {
    let machine = Machine::new();
    machine.set_probe_word(PROBE_SAMPLING & !7, 3 << 32 | 1);
    let (numbers, passed) = passages(&machine, &of_rax(), 16, |context| context.cpus = 1);
    assert_eq!(numbers, [0, 4, 8, 12]);
    assert_eq!(passed.counters[counter(COUNTER_SAMPLED)], 16);
    assert_eq!(passed.counters[counter(COUNTER_SAMPLED_OUT)], 12);
}

#[test]
fn a_budget_is_taken_and_not_overdrawn() {
    let machine = Machine::new();
    machine.set_probe_word(PROBE_TOKENS, 4);
    let (numbers, passed) = passages(&machine, &of_rax(), 10, |context| context.has_budget = true);
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(passed.counters[counter(COUNTER_RATE)], 6);
    assert_eq!(machine.tokens(), 0);
    let (numbers, _) = passages(&machine, &of_rax(), 3, |_| {});
    assert_eq!(numbers.len(), 3, "without a budget the word is not looked at");
}

#[test]
fn stacks_are_short_while_a_ring_fills() {
    let machine = Machine::new();
    let image = machine.image_range(0);
    let slice = StackSlice { bytes: 1024, first_thread_end: None };
    let program = Program { stack_slice: Some(slice), stack_frames_max: 8, ..of_rax() };
    for is_guarded in [false, true] {
        // As many as fill a ring, on whichever CPU this runs.
        let (_, passed) = passages(&machine, &program, 3000, |context| {
            context.guard = is_guarded.then(|| Guard { image: image.clone() });
        });
        let stacks = passed.records.iter().map(|record| record.captured.stack_memory.as_ref().expect("it is copied"));
        let stacks: Vec<(usize, u32)> = stacks.map(|stack| (stack.bytes.len(), stack.bytes_max)).collect();
        let short = SHORT_STACK_WORDS as usize * 8;
        let (of_short, of_long): (Vec<_>, Vec<_>) = stacks.iter().partition(|&&stack| stack == (short, short as u32));
        assert!(of_long.iter().all(|&&(bytes, bytes_max)| bytes == 1024 && bytes_max == 1024), "{of_long:?}");
        // A quarter of a ring with long ones; a record has 200 bytes besides.
        let quarter = RING_BYTES / 4 / 1224;
        assert!(of_long.len() >= quarter && of_short.len() > 3 * of_long.len(), "{} {}", of_long.len(), of_short.len());
    }
}

#[test]
fn a_full_ring_counts_and_is_not_written() {
    let machine = Machine::new();
    let layout = RecordLayout::of(&of_rax(), SITE).unwrap();
    let bytes = u64::from(layout.max_bytes);
    let room = RING_BYTES as u64 / bytes;
    let (numbers, passed) = passages(&machine, &of_rax(), room + 5, |context| context.cpus = 1);
    assert_eq!(numbers, (0..room).collect::<Vec<_>>());
    assert_eq!(passed.counters[counter(COUNTER_RING)], 5);
    // Emptied, it goes on where it was: across the ring's end.
    let (numbers, _) = passages(&machine, &of_rax(), room, |context| context.cpus = 1);
    assert_eq!(numbers.len() as u64, room);
}

#[test]
fn what_a_record_does_not_need_is_given_back() {
    let mut machine = Machine::new();
    let text = b"riptrace";
    let mut memory = vec![0; machine::PAGES * machine::PAGE];
    memory[3 * machine::PAGE..3 * machine::PAGE + 8].copy_from_slice(text);
    machine.fill(&memory, [true; machine::PAGES]);
    let at = machine.base() + 3 * machine::PAGE as u64;
    let word = |word: u64| Piece { bytes: 8, place: Place::Constant(word.to_le_bytes().to_vec()) };
    let mut program = of_rax();
    program.roots.push(RootRead::Read { offset: 8, pieces: vec![word(at), word(5)], follow: FollowIndex(0), depth: 1 });
    (program.root_bytes, program.follow) = (24, vec![Follow::GoString { most: 4096 }]);
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let rounds = 4 * RING_BYTES as u64 / u64::from(layout.max_bytes);
    let (numbers, passed) = passages(&machine, &program, rounds, |context| context.cpus = 1);
    assert_eq!(numbers.len() as u64, rounds, "far more fit than the largest");
    assert_eq!(passed.counters, [0; 8]);
    let chunk = &passed.records[0].captured.chunks[0];
    assert_eq!((&chunk.bytes[..], chunk.end), (&text[..5], ChunkEnd::Complete));
    assert_eq!(machine.ring_bytes_in_use(), 0, "what was read was zeroed, and nothing else was written");
}

#[test]
fn a_stack_without_room_is_counted_and_not_used() {
    let mut machine = Machine::new();
    let mut memory = vec![0; machine::PAGES * machine::PAGE];
    let rsp = machine.rsp();
    let g = machine.base() + 4 * machine::PAGE as u64;
    let mut check = |low: u64, g_word: u64, hits: usize, what: &str| {
        memory[4 * machine::PAGE..4 * machine::PAGE + 8].copy_from_slice(&low.to_le_bytes());
        machine.fill(&memory, [true; machine::PAGES]);
        machine.below_stack().fill(0xa5);
        machine::G.with(|cell| cell.set(g_word));
        let place = machine.g_place();
        let (numbers, passed) = passages(&machine, &of_rax(), 1, |context| context.goroutine = Some(place));
        assert_eq!(numbers.len(), hits, "{what}");
        assert_eq!(passed.counters[counter(COUNTER_STACK)], 1 - hits as u64, "{what}");
        if hits == 0 {
            let below = machine.below_stack();
            let used = 16 + 8;
            assert!(below[..below.len() - used].iter().all(|&byte| byte == 0xa5), "{what}: the stack was used");
        }
    };
    check(rsp - 1024, g, 1, "a kilobyte is room");
    check(rsp - 64, g, 0, "64 bytes are none");
    check(rsp, g, 0, "at its end");
    check(rsp + 4096, g, 0, "beyond it");
    check(rsp, 0, 1, "no goroutine: another stack");
    check(rsp, 8, 1, "what is no goroutine has another stack");
    let far = Some(GoroutinePointer::ThreadLocal { offset: i64::MIN });
    let (numbers, _) = passages(&machine, &of_rax(), 1, |context| context.goroutine = far);
    assert_eq!(numbers.len(), 1, "no thread-local storage there");
}

#[test]
fn time_does_not_go_back_and_all_of_the_header_is_there() {
    let machine = Machine::new();
    let (_, passed) = passages(&machine, &of_rax(), 100, |context| context.cpus = 1);
    assert!(passed.records.iter().all(|record| record.tsc != 0 && record.kind == machine::KIND));
    assert!(passed.records.is_sorted_by_key(|record| record.tsc));
}

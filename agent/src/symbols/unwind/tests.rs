//! Stacks that are made up: each rule of a row, and each end.

use super::*;

/// A copy of 8 words from 0x1000 on.
fn memory(words: [u64; 8], bytes_max: u32) -> StackMemory {
    let mut registers = [0; STACK_REGISTERS];
    registers[RSP] = 0x1000;
    registers[6] = 0x1020;
    registers[3] = 0xb;
    StackMemory { registers, bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(), bytes_max }
}

fn row(frame: Frame, rules: &[(usize, Rule)]) -> Row {
    let mut row = Row { frame, rules: [const { None }; REGISTERS], return_address: RIP, is_signal: false };
    row.rules[RIP] = Some(Rule::Saved(-8));
    for (number, rule) in rules {
        row.rules[*number] = Some(rule.clone());
    }
    row
}

fn at(register: usize, offset: i64) -> Frame {
    Frame::At { register, offset }
}

fn frames(memory: &StackMemory, rows: &[(u64, Row)], frames_max: usize) -> (Vec<u64>, StackEnd) {
    let find = |pc: Avma| rows.iter().find(|(at, _)| *at == pc.0).map(|(_, row)| Arc::new(row.clone()));
    let (frames, end) = unwind(memory, Avma(0x10), frames_max, find);
    (frames.iter().map(|pc| pc.0).collect(), end)
}

/// Leaf with one word, a caller that keeps rbp, the outermost.
fn rows() -> Vec<(u64, Row)> {
    vec![
        (0x10, row(at(RSP, 16), &[])),
        (0x1f, row(at(6, 16), &[(6, Rule::Saved(-16))])),
        (0x2f, row(at(RSP, 8), &[(RIP, Rule::Nowhere)])),
    ]
}

#[test]
fn frames_are_found_outwards_through_rsp_and_rbp() {
    let memory = memory([0, 0x20, 0, 0, 0x9, 0x30, 0, 0], 64);
    assert_eq!(frames(&memory, &rows(), 64), (vec![0x10, 0x20, 0x30], StackEnd::Whole));
    assert_eq!(frames(&memory, &rows(), 2), (vec![0x10, 0x20], StackEnd::Frames));
    assert_eq!(frames(&memory, &rows()[..2], 64), (vec![0x10, 0x20, 0x30], StackEnd::Unknown));
}

#[test]
fn a_caller_beyond_the_copy_says_how_much_was_copied() {
    let cut = [0, 0x20, 0, 0, 0x9, 0x30, 0, 0];
    let mut short = memory(cut, 40);
    short.bytes.truncate(40);
    assert_eq!(frames(&short, &rows(), 64), (vec![0x10, 0x20], StackEnd::Bytes(40)));
    short.bytes_max = 64;
    assert_eq!(frames(&short, &rows(), 64), (vec![0x10, 0x20], StackEnd::Unknown), "the memory itself ended");
}

#[test]
fn a_return_address_of_zero_is_the_outermost_frames() {
    assert_eq!(frames(&memory([0; 8], 64), &rows(), 64), (vec![0x10], StackEnd::Whole));
}

#[test]
fn a_stack_that_does_not_lead_outwards_is_lost() {
    let memory = memory([0, 0x20, 0, 0, 0x9, 0x30, 0, 0], 64);
    for frame in [at(RSP, 0), at(RSP, -8), at(0, 0), at(99, 0)] {
        let rows = [(0x10, row(frame.clone(), &[(RIP, Rule::Is(vec![0x31]))]))];
        assert_eq!(frames(&memory, &rows, 64), (vec![0x10], StackEnd::Unknown), "{frame:?}");
    }
}

#[test]
fn expressions_reach_registers_and_the_copy_and_end() {
    // DW_OP_breg7 8, DW_OP_deref: the frame is what the word above rsp says.
    let memory = memory([0, 0x1018, 0x20, 0x2f, 0, 0, 0, 0], 64);
    let rows = [
        (0x10, row(Frame::Expression(vec![0x77, 8, 0x06]), &[])),
        // The kernel's frame: the registers are where expressions say, and the address is the interrupted one.
        (0x1f, Row { is_signal: true, ..row(at(RSP, 8), &[(RIP, Rule::At(vec![0x77, 0]))]) }),
        (0x2f, row(at(RSP, 8), &[(RIP, Rule::Nowhere)])),
    ];
    assert_eq!(frames(&memory, &rows, 64), (vec![0x10, 0x20, 0x30], StackEnd::Whole));
    // DW_OP_skip -3: endless. DW_OP_deref of nowhere. Nothing at all.
    for endless in [vec![0x30, 0x2f, 0xfd, 0xff], vec![0x31, 0x06], vec![]] {
        let rows = [(0x10, row(Frame::Expression(endless), &[]))];
        assert_eq!(frames(&memory, &rows, 64).0, [0x10]);
    }
}

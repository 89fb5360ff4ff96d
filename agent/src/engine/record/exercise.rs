//! One decoding of arbitrary bytes as a record of an arbitrary program, and what must hold of the result: for the fuzz
//! target, and for an ordinary test.

use super::{HEADER_BYTES, LENGTH, RecordLayout, USED, decode};
use crate::capture::program::{
    Address, Follow, FollowIndex, Goroutine, GoroutinePointer, Piece, Place, Program, Register, RootRead,
};
use riptrace_protocol::hit::{ChunkEnd, RootState};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, HIT_CHUNKS_MAX, STACK_FRAMES_MAX};

/// Splits the input into a program and a record of it; the record's sizes are made right if the first bit says so, so
/// that what lies behind them is reached.
pub(super) fn exercise(input: &[u8]) {
    let Some((&[shape, roots, sizes, frames, items], rest)) = input.split_first_chunk::<5>() else { return };
    let program = program(roots, sizes, frames, items);
    let Ok(layout) = RecordLayout::of(&program, Avma(0x40_1000)) else { return };
    assert!(layout.max_bytes as usize >= HEADER_BYTES && layout.max_bytes % 8 == 0);
    let mut record = rest.to_vec();
    if shape & 1 != 0 && record.len() >= HEADER_BYTES {
        let length = (record.len().min(layout.max_bytes as usize) as u32).to_le_bytes();
        record[LENGTH..LENGTH + 4].copy_from_slice(&length);
        record[USED..USED + 4].copy_from_slice(&length);
    }
    let Ok(decoded) = decode(&layout, &program, &record) else { return };
    let captured = decoded.captured;
    assert_eq!(captured.root_states.len(), program.roots.len());
    assert!(captured.roots.len() <= HIT_BYTES_MAX);
    assert!(captured.chunks.len() <= HIT_CHUNKS_MAX);
    assert!(captured.stack.len() <= usize::from(program.stack_frames_max).min(STACK_FRAMES_MAX));
    let bytes: usize = captured.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    assert!(bytes <= record.len());
    for (root, state) in program.roots.iter().zip(&captured.root_states) {
        assert_eq!(matches!(root, RootRead::Absent), *state == RootState::Absent);
    }
    for chunk in &captured.chunks {
        assert!(chunk.bytes.len() as u64 <= chunk.wanted_bytes);
        assert!(chunk.end != ChunkEnd::Complete || chunk.bytes.len() as u64 == chunk.wanted_bytes);
    }
}

fn program(roots: u8, sizes: u8, frames: u8, items: u8) -> Program {
    let mut program = Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: Vec::new(),
        root_bytes: 0,
        follow: vec![
            Follow::GoString { most: u32::from(sizes) * 16 },
            Follow::Pointer { bytes: u64::from(sizes), to: FollowIndex(u32::from(items % 3)) },
            Follow::Plain,
        ],
        goroutine: (frames & 1 != 0)
            .then_some(Goroutine { g: GoroutinePointer::ThreadLocal { offset: -8 }, goid_offset: 152 }),
        stack_frames_max: u16::from(frames),
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 1 << (sizes % 18),
    };
    for number in 0..u32::from(roots % 70) {
        let bytes = [16, 8, 3, 1][number as usize % 4];
        let stack = Address { base: Some(Register(7)), offset: i64::from(number) * 16, derefs: Vec::new() };
        let place = match number % 3 {
            0 => Place::Memory(stack),
            _ => Place::Constant(vec![0; bytes as usize]),
        };
        program.roots.push(match number % 7 {
            6 => RootRead::Absent,
            _ => RootRead::Read {
                offset: program.root_bytes,
                pieces: vec![Piece { bytes, place }],
                follow: FollowIndex(number % 4),
                depth: u32::from(items % 5),
            },
        });
        program.root_bytes += bytes;
    }
    program
}

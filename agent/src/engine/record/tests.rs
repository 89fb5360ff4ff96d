//! Records of any bytes: refused or decoded, within bounds. That true ones are decoded right is tested where they are
//! written (the code generator's tests).

use super::*;
use crate::capture::program::{
    Address, Follow, FollowIndex, Goroutine, GoroutinePointer, Piece, Place, Program, Register, RootRead,
};
use riptrace_protocol::hit::{ChunkEnd, RootState, StackEnd};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, HIT_CHUNKS_MAX};

const SITE: Avma = Avma(0x40_1000);

/// A string in registers, a word of the stack, a number in a register; two return addresses.
fn program() -> Program {
    let register = |number| Piece { bytes: 8, place: Place::Register(Register(number)) };
    let stack = Address { base: Some(Register(7)), offset: 16, derefs: Vec::new() };
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: vec![
            RootRead::Read { offset: 0, pieces: vec![register(0), register(3)], follow: FollowIndex(0), depth: 2 },
            RootRead::Absent,
            RootRead::Read {
                offset: 16,
                pieces: vec![Piece { bytes: 4, place: Place::Memory(stack) }],
                follow: FollowIndex(9),
                depth: 2,
            },
        ],
        root_bytes: 20,
        follow: vec![Follow::GoString { most: 16 }],
        goroutine: Some(Goroutine { g: GoroutinePointer::ThreadLocal { offset: -8 }, goid_offset: 152 }),
        stack_frames_max: 3,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 4096,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn put(mut self, at: usize, bytes: &[u8]) -> Writer {
        if self.0.len() < at + bytes.len() {
            self.0.resize(at + bytes.len(), 0);
        }
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u16(self, at: usize, word: u16) -> Writer {
        self.put(at, &word.to_le_bytes())
    }

    fn u32(self, at: usize, word: u32) -> Writer {
        self.put(at, &word.to_le_bytes())
    }

    fn u64(self, at: usize, word: u64) -> Writer {
        self.put(at, &word.to_le_bytes())
    }
}

/// A record as a passage writes it: the stack's word is unreadable, the string has 5 bytes.
fn record(layout: &RecordLayout) -> Vec<u8> {
    let frames = layout.frames_at as usize;
    let item = frames + 16;
    let used = item + ITEM_BYTES + 8;
    let slots: Vec<usize> = layout.roots.iter().flatten().map(|slot| slot.at as usize).collect();
    Writer(Vec::new())
        .u64(COMMIT, 1)
        .u32(LENGTH, used as u32)
        .u32(USED, used as u32)
        .u32(KIND, 7)
        .u16(FLAGS, FLAG_GOROUTINE | FLAG_STACK_TRUNCATED)
        .u16(FRAMES, 2)
        .u64(TSC, 99)
        .u64(THREAD, 12)
        .u64(GOROUTINE, 34)
        .u64(HEADER_BYTES, 1)
        .u64(slots[0], 0x7000)
        .u64(slots[0] + 8, 5)
        .u64(slots[1], 0x8000)
        .u64(frames, 0x40_2000)
        .u64(frames + 8, 0x40_3000)
        .u64(item + ITEM_ADDRESS, 0x7000)
        .u64(item + ITEM_WANTED, 5)
        .u32(item + ITEM_GOT, 5)
        .u16(item + ITEM_DEPTH, 2)
        .put(item + ITEM_BYTES, b"hello\0\0\0")
        .0
}

#[test]
fn a_record_is_decoded() {
    let program = program();
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let got = decode(&layout, &program, &record(&layout)).unwrap();
    assert_eq!((got.kind, got.tsc, got.thread), (7, 99, Some(12)));
    let captured = got.captured;
    assert_eq!(captured.root_states, [RootState::Captured, RootState::Absent, RootState::Unreadable(Avma(0x8000))]);
    assert_eq!(captured.roots[..12], [0, 0x70, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(captured.roots[16..], [0; 4]);
    assert_eq!((captured.goroutine, captured.stack_end), (Some(34), StackEnd::Frames));
    assert_eq!(captured.stack, [SITE, Avma(0x40_2000), Avma(0x40_3000)]);
    let [chunk] = captured.chunks.as_slice() else { panic!("{:?}", captured.chunks) };
    assert_eq!((&chunk.bytes[..], chunk.wanted_bytes, chunk.end), (&b"hello"[..], 5, ChunkEnd::Complete));
}

#[test]
fn what_is_no_record_is_refused_with_what_is_wrong() {
    let program = program();
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let whole = record(&layout);
    let item = layout.frames_at as usize + 16;
    let with = |at: usize, word: u32| decode(&layout, &program, &Writer(whole.clone()).u32(at, word).0);
    assert!(matches!(decode(&layout, &program, &whole[..40]), Err(RecordError::Short { .. })));
    assert!(matches!(decode(&layout, &program, &whole[..whole.len() - 1]), Err(RecordError::Length { .. })));
    assert!(matches!(with(USED, u32::MAX), Err(RecordError::Length { .. })));
    assert!(matches!(with(USED, 48), Err(RecordError::Short { .. })));
    assert!(matches!(with(FLAGS, 3 << 16), Err(RecordError::Frames { frames: 3, frames_max: 2 })));
    assert!(matches!(with(item + ITEM_GOT, 64), Err(RecordError::Chunk { .. })));
    assert!(matches!(with(item + ITEM_GOT, u32::MAX), Err(RecordError::Chunk { .. })));
    assert!(matches!(with(item + ITEM_WANTED, 4), Err(RecordError::Chunk { .. })));
    // Two items where the program can make one, though there is room for more.
    let mut program = program;
    program.follow = vec![Follow::GoString { most: 64 }];
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let used = item + 2 * ITEM_BYTES;
    let two = Writer(whole).u32(item + ITEM_GOT, 0).u32(USED, used as u32).u32(LENGTH, used as u32).put(used - 1, &[0]);
    assert!(matches!(decode(&layout, &program, &two.0), Err(RecordError::Chunks { items_max: 1 })));
}

#[test]
fn the_largest_record_fits_a_ring_many_times_and_a_small_one_is_small() {
    let mut program = program();
    let bytes = RecordLayout::of(&program, SITE).unwrap().max_bytes;
    // Header, failed bits, 16 and 8 bytes of roots, 2 frames, one chunk of 16 bytes.
    assert_eq!(bytes, (48 + 8 + 16 + 8 + 16 + 40 + 16 + 7u32).next_multiple_of(8));
    program.follow = vec![Follow::GoSlice { element_bytes: 16, element: FollowIndex(0), most: u32::MAX }];
    program.bytes_per_hit = u32::MAX;
    let layout = RecordLayout::of(&program, SITE).unwrap();
    assert_eq!(layout.items_max as usize, HIT_CHUNKS_MAX);
    assert!(layout.max_bytes as usize <= 3 * HIT_BYTES_MAX);
    program.roots = (0..64)
        .map(|_| RootRead::Read {
            offset: 0,
            pieces: vec![Piece { bytes: 60_000, place: Place::Constant(vec![0; 60_000]) }],
            follow: FollowIndex(9),
            depth: 2,
        })
        .collect();
    program.root_bytes = 60_000;
    assert!(matches!(RecordLayout::of(&program, SITE), Err(LayoutError::Roots { .. })), "roots over each other");
}

#[test]
fn any_bytes_are_refused_or_decoded_within_bounds() {
    let program = program();
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let whole = record(&layout);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state >> 33
    };
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random() % 4 {
            let at = random() as usize % bytes.len();
            bytes[at] = if round % 2 == 0 { random() as u8 } else { bytes[at].wrapping_add(random() as u8 % 17) };
        }
        bytes.truncate(bytes.len() - if random() % 4 == 0 { random() as usize % bytes.len() } else { 0 });
        match decode(&layout, &program, &bytes) {
            Ok(record) => {
                decoded += 1;
                let captured = record.captured;
                let chunk_bytes: usize = captured.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
                assert!(chunk_bytes <= bytes.len() && captured.chunks.len() <= layout.items_max as usize);
                assert_eq!((captured.roots.len(), captured.root_states.len()), (20, 3));
                assert!(captured.stack.len() <= 3);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(decoded > 1000 && refused > 1000, "{decoded} {refused}");
}

#[test]
fn any_program_and_any_bytes_hold_their_bounds() {
    // As in the analysis's tests: a long run has its own number and its own seed.
    let number = |name, usual| std::env::var(name).map_or(usual, |text| text.parse::<u64>().expect("a number"));
    let mut state = number("RIPTRACE_FUZZ_SEED", 3);
    for _ in 0..number("RIPTRACE_FUZZ_RUNS", 5_000) {
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state >> 33
        };
        let bytes = random() % 600;
        // Mostly zeroes: a length that is any number is rarely one that fits.
        let input: Vec<u8> = (0..bytes).map(|_| if random() % 4 == 0 { random() as u8 % 64 } else { 0 }).collect();
        exercise(&input);
    }
}

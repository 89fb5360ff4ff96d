//! Random programs over random registers and memories, and the rules that they may not break; then the cases by hand.

use super::interpreter::{Captured, Truth, Unknown, capture, test};
use super::memory::{CachedMemory, Image};
use super::program::{
    Address, Arithmetic, Case, Comparison, Count, FloatOperand, Follow, FollowIndex, Goroutine, GoroutinePointer, Key,
    Operand, Piece, Place, Program, Reach, Register, RootRead, STACK_SLICE_BYTES_MAX, StackSlice, Test, TextOperand,
};
use super::registers::Registers;
use proptest::prelude::*;
use riptrace_protocol::hit::{ChunkEnd, RootState};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, HIT_CHUNKS_MAX, STACK_FRAMES_MAX};

const BASE: u64 = 0x1000;

/// Addresses in, at the edges of, and far from the memory of the tests.
fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![4 => BASE..BASE + 0x1000, 1 => Just(0), 1 => Just(u64::MAX), 1 => 0u64..64, 1 => any::<u64>()]
}

fn any_register() -> impl Strategy<Value = Register> {
    (0u16..40).prop_map(Register)
}

fn any_address() -> impl Strategy<Value = Address> {
    let offset = prop_oneof![3 => -64i64..64, 1 => any::<i64>()];
    (prop::option::of(any_register()), offset, prop::collection::vec(-64i64..64, 0..3))
        .prop_map(|(base, offset, derefs)| Address { base, offset, derefs })
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let place = prop_oneof![
        any_register().prop_map(Place::Register),
        any_address().prop_map(Place::Memory),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Place::Constant),
    ];
    (prop_oneof![6 => 0u32..20, 1 => any::<u32>()], place).prop_map(|(bytes, place)| Piece { bytes, place })
}

fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
    prop::collection::vec(any_piece(), 0..3)
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        (0u64..16, 0u8..10).prop_map(|(at, bytes)| Key::Word { at, bytes }),
        (0u64..16, 0u64..16).prop_map(|(at, offset)| Key::Through { at, offset, bytes: offset + 8 }),
    ]
}

fn any_case() -> impl Strategy<Value = Case> {
    let reach = prop_oneof![Just(Reach::Here), (0u64..64).prop_map(|bytes| Reach::Address { bytes })];
    (reach, 0u32..8).prop_map(|(reach, follow)| Case { reach, follow: FollowIndex(follow) })
}

fn any_follow() -> impl Strategy<Value = Follow> {
    let index = || (0u32..8).prop_map(FollowIndex);
    let size = || prop_oneof![6 => 0u64..64, 1 => any::<u64>()];
    prop_oneof![
        Just(Follow::Plain),
        (size(), index()).prop_map(|(bytes, to)| Follow::Pointer { bytes, to }),
        (size(), index()).prop_map(|(bytes, to)| Follow::Owned { bytes, to }),
        limit().prop_map(|most| Follow::GoString { most }),
        (size(), index(), limit()).prop_map(|(element_bytes, element, most)| Follow::GoSlice {
            element_bytes,
            element,
            most
        }),
        (size(), size(), index(), limit()).prop_map(|(count, element_bytes, element, most)| Follow::Array {
            count,
            element_bytes,
            element,
            most
        }),
        prop::collection::vec((size(), index()), 0..4).prop_map(|fields| Follow::Struct { fields }),
        (0u64..24, 0u64..24, size(), index(), limit()).prop_map(
            |(address_at, count_at, element_bytes, element, most)| Follow::Run {
                address_at,
                count_at,
                count: Count::Mask,
                element_bytes,
                element,
                most,
            }
        ),
        (any_key(), prop::collection::vec((0u64..8, any_case()), 0..5), prop::option::of(any_case()))
            .prop_map(|(key, cases, otherwise)| Follow::Switch { key, value_at: 8, cases, otherwise }),
    ]
}

fn any_operand() -> impl Strategy<Value = Operand> {
    let leaf = prop_oneof![
        any::<i128>().prop_map(Operand::Constant),
        (-3i128..3).prop_map(Operand::Constant),
        (any_pieces(), any::<bool>()).prop_map(|(pieces, signed)| Operand::Read { pieces, signed }),
    ];
    let operation = prop::sample::select(vec![
        Arithmetic::Add,
        Arithmetic::Subtract,
        Arithmetic::Multiply,
        Arithmetic::Divide,
        Arithmetic::Remainder,
        Arithmetic::And,
        Arithmetic::Or,
        Arithmetic::Xor,
        Arithmetic::ShiftLeft,
        Arithmetic::ShiftRight,
    ]);
    leaf.prop_recursive(4, 12, 2, move |inner| {
        (operation.clone(), inner.clone(), inner, prop_oneof![Just(0), Just(8), Just(64), any::<u8>()], any::<bool>())
            .prop_map(|(operation, left, right, bits, signed)| Operand::Arithmetic {
                operation,
                left: Box::new(left),
                right: Box::new(right),
                bits,
                signed,
            })
    })
}

fn any_test() -> impl Strategy<Value = Test> {
    let comparison = prop::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ]);
    let float = || {
        prop_oneof![
            any::<f64>().prop_map(FloatOperand::Constant),
            any_pieces().prop_map(|pieces| FloatOperand::Read { pieces }),
            any_operand().prop_map(FloatOperand::Integer),
        ]
    };
    let text = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..5).prop_map(TextOperand::Constant),
            any_pieces().prop_map(|pieces| TextOperand::GoString { pieces }),
        ]
    };
    let leaf = prop_oneof![
        any_operand().prop_map(Test::Bool),
        (comparison.clone(), any_operand(), any_operand()).prop_map(|(comparison, left, right)| Test::Integer {
            comparison,
            left,
            right
        }),
        (comparison.clone(), float(), float()).prop_map(|(comparison, left, right)| Test::Float {
            comparison,
            left,
            right
        }),
        (comparison, text(), text()).prop_map(|(comparison, left, right)| Test::Text { comparison, left, right }),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| Test::And(Box::new(l), Box::new(r))),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| Test::Or(Box::new(l), Box::new(r))),
            inner.prop_map(|inner| Test::Not(Box::new(inner))),
        ]
    })
}

fn limit() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..300, 1 => any::<u32>()]
}

fn any_slice() -> impl Strategy<Value = StackSlice> {
    (prop_oneof![8 => 0u32..0x3000, 1 => any::<u32>()], prop::option::of(any_word()))
        .prop_map(|(bytes, first_thread_end)| StackSlice { bytes, first_thread_end })
}

fn any_program() -> impl Strategy<Value = Program> {
    let root = prop_oneof![
        1 => Just(RootRead::Absent),
        5 => (prop_oneof![8 => 0u32..64, 1 => any::<u32>()], any_pieces(), 0u32..9, 0u32..6)
            .prop_map(|(offset, pieces, follow, depth)| {
                RootRead::Read { offset, pieces, follow: FollowIndex(follow), depth }
            }),
    ];
    (
        prop::option::of(any_test()),
        prop::collection::vec(root, 0..6),
        prop_oneof![8 => 0u32..100, 1 => any::<u32>()],
        prop::collection::vec(any_follow(), 0..8),
        any::<u16>(),
        (prop::option::of(any_address()), prop::option::of(any_slice())),
        prop_oneof![0u32..9000, any::<u32>()],
        -64i64..64,
    )
        .prop_map(
            |(
                condition,
                roots,
                root_bytes,
                follow,
                stack_frames_max,
                (return_address, stack_slice),
                bytes_per_hit,
                offset,
            )| {
                Program {
                    condition,
                    hit_condition: None,
                    count_only: false,
                    roots,
                    root_bytes,
                    follow,
                    goroutine: Some(Goroutine { g: GoroutinePointer::ThreadLocal { offset }, goid_offset: 8 }),
                    stack_frames_max,
                    return_address,
                    stack_slice,
                    bytes_per_hit,
                }
            },
        )
}

fn any_registers() -> impl Strategy<Value = Registers> {
    (prop::array::uniform16(any_word()), any_word(), any_word()).prop_map(|(words, rip, fs_base)| {
        let mut registers = Registers { fs_base, ..Registers::default() };
        registers.gpr[..16].copy_from_slice(&words);
        registers.gpr[16] = rip;
        registers.xmm.iter_mut().zip(words).for_each(|(xmm, word)| xmm[4..12].copy_from_slice(&word.to_le_bytes()));
        registers
    })
}

/// A page whose words are mostly addresses in it, and small numbers.
fn any_memory() -> impl Strategy<Value = Image> {
    prop::collection::vec(any_word(), 0x1000 / 8).prop_map(|words| {
        let mut image = Image::default();
        image.map(Avma(BASE), words.into_iter().flat_map(u64::to_le_bytes).collect());
        image
    })
}

fn check_bounds(program: &Program, captured: &Captured) -> Result<(), TestCaseError> {
    let budget = (program.bytes_per_hit as usize).min(HIT_BYTES_MAX);
    let chunk_bytes: usize = captured.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    prop_assert!(captured.roots.len() + chunk_bytes <= budget);
    prop_assert!(captured.chunks.len() <= HIT_CHUNKS_MAX);
    prop_assert!(captured.stack.len() <= STACK_FRAMES_MAX.min(usize::from(program.stack_frames_max)));
    if let Some(memory) = &captured.stack_memory {
        prop_assert!(memory.bytes.len() <= memory.bytes_max as usize && memory.bytes_max <= STACK_SLICE_BYTES_MAX);
    }
    prop_assert_eq!(captured.root_states.len(), program.roots.len());
    for (root, state) in program.roots.iter().zip(&captured.root_states) {
        prop_assert_eq!(matches!(root, RootRead::Absent), *state == RootState::Absent);
    }
    for chunk in &captured.chunks {
        let complete = chunk.bytes.len() as u64 == chunk.wanted_bytes;
        prop_assert_eq!(complete, chunk.end == ChunkEnd::Complete, "{:?}", chunk);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_program_breaks_its_bounds_and_the_cache_changes_nothing(
        program in any_program(),
        registers in any_registers(),
        memory in any_memory(),
    ) {
        let captured = capture(&program, &registers, &memory);
        check_bounds(&program, &captured)?;
        let cached = CachedMemory::new(&memory);
        prop_assert_eq!(test(&program, &registers, &cached), test(&program, &registers, &memory));
        prop_assert_eq!(capture(&program, &registers, &cached), captured);
    }
}

fn registers(words: &[(usize, u64)]) -> Registers {
    let mut registers = Registers::default();
    words.iter().for_each(|&(register, word)| registers.gpr[register] = word);
    registers
}

fn image(ranges: &[(u64, &[u64])]) -> Image {
    let mut image = Image::default();
    for (at, words) in ranges {
        image.map(Avma(*at), words.iter().flat_map(|word| word.to_le_bytes()).collect());
    }
    image
}

/// One variable in rax (and rbx, rcx for the rest of it).
fn one_root(words: u32, follow: Vec<Follow>) -> Program {
    let pieces = [0, 3, 2][..words as usize]
        .iter()
        .map(|&register| Piece { bytes: 8, place: Place::Register(Register(register)) })
        .collect();
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: vec![RootRead::Read { offset: 0, pieces, follow: FollowIndex(0), depth: 2 }],
        root_bytes: 8 * words,
        follow,
        goroutine: None,
        stack_frames_max: 0,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 1000,
    }
}

#[test]
fn a_string_is_clamped_and_says_so() {
    let memory = image(&[(0x1000, &[u64::from_le_bytes(*b"riptrace"), 0])]);
    for (length, bytes, end) in [(3, 3, ChunkEnd::Complete), (8, 8, ChunkEnd::Complete), (9, 8, ChunkEnd::Limit)] {
        let captured =
            capture(&one_root(2, vec![Follow::GoString { most: 8 }]), &registers(&[(0, 0x1000), (3, length)]), &memory);
        assert_eq!(captured.chunks[0].bytes, b"riptrace"[..bytes], "{length}");
        assert_eq!((captured.chunks[0].end, captured.chunks[0].wanted_bytes), (end, length));
    }
    for (at, length) in [(0, 3), (0x1000, 0), (0x1000, u64::MAX)] {
        let captured =
            capture(&one_root(2, vec![Follow::GoString { most: 8 }]), &registers(&[(0, at), (3, length)]), &memory);
        assert_eq!(captured.chunks, [], "{at:#x} {length}");
    }
    let captured =
        capture(&one_root(2, vec![Follow::GoString { most: 8 }]), &registers(&[(0, 0x9000), (3, 4)]), &memory);
    assert_eq!((captured.chunks[0].bytes.len(), captured.chunks[0].end), (0, ChunkEnd::Fault));
}

#[test]
fn a_short_string_does_not_hide_a_longer_one_at_the_same_address() {
    let memory = image(&[(0x1000, &[0x2000, 2, 0x2000, 5, 0x2000, 2]), (0x2000, &[u64::from_le_bytes(*b"riptrace")])]);
    let fields = vec![(0, FollowIndex(2)), (16, FollowIndex(2)), (32, FollowIndex(2))];
    let follow = vec![
        Follow::Pointer { bytes: 48, to: FollowIndex(1) },
        Follow::Struct { fields },
        Follow::GoString { most: 8 },
    ];
    let captured = capture(&one_root(1, follow), &registers(&[(0, 0x1000)]), &memory);
    let strings: Vec<&[u8]> = captured.chunks[1..].iter().map(|chunk| &chunk.bytes[..]).collect();
    assert_eq!(strings, [&b"ri"[..], b"riptr"]);
}

#[test]
fn a_switch_goes_by_its_word_and_by_the_word_behind_its_address() {
    let memory = image(&[(0x1000, &[7]), (0x2000, &[0, 0x99]), (0x3000, &[8])]);
    let here = |follow| Case { reach: Reach::Here, follow: FollowIndex(follow) };
    let by = |key| {
        let away = Case { reach: Reach::Address { bytes: 8 }, follow: FollowIndex(9) };
        let follow = vec![
            Follow::Switch { key, value_at: 8, cases: vec![(0x99, here(1)), (5, away)], otherwise: None },
            Follow::Pointer { bytes: 8, to: FollowIndex(9) },
        ];
        move |word: u64, value: u64| {
            let captured = capture(&one_root(2, follow.clone()), &registers(&[(0, word), (3, value)]), &memory);
            captured.chunks.iter().map(|chunk| chunk.address.0).collect::<Vec<_>>()
        }
    };
    let word = by(Key::Word { at: 0, bytes: 2 });
    assert_eq!(word(0x99, 0x1000), [0x1000]);
    assert_eq!(word(0x0005_0005, 0x3000), [0x3000], "two bytes of it");
    assert_eq!(word(6, 0x1000), [0u64; 0]);
    let memory = image(&[(0x1000, &[7]), (0x2000, &[0, 0x99]), (0x3000, &[8])]);
    let follow = vec![
        Follow::Switch {
            key: Key::Through { at: 0, offset: 8, bytes: 16 },
            value_at: 8,
            cases: vec![(0x99, here(1))],
            otherwise: None,
        },
        Follow::Pointer { bytes: 8, to: FollowIndex(9) },
    ];
    let through = |word| {
        let captured = capture(&one_root(2, follow.clone()), &registers(&[(0, word), (3, 0x1000)]), &memory);
        captured.chunks.iter().map(|chunk| chunk.address.0).collect::<Vec<_>>()
    };
    assert_eq!(through(0x2000), [0x2000, 0x1000]);
    assert_eq!(through(0), [0u64; 0]);
    assert_eq!(through(0x3000), [0x3000], "its key cannot be read");
}

#[test]
fn an_array_within_itself_ends() {
    let memory = image(&[(0x1000, &[0x1000; 64])]);
    let follow = vec![
        Follow::Struct { fields: vec![(0, FollowIndex(1)), (0, FollowIndex(2))] },
        Follow::Array { count: 5, element_bytes: 0, element: FollowIndex(0), most: 2 },
        Follow::Pointer { bytes: 64, to: FollowIndex(0) },
    ];
    let captured = capture(&one_root(1, follow), &registers(&[(0, 0x1000)]), &memory);
    assert_eq!(captured.chunks.len(), 1);
}

#[test]
fn slices_are_followed_into_their_elements_and_a_broken_one_is_not() {
    let memory = image(&[(0x1000, &[0x2000, 2, 0x2008, 1, 0x2000, 1]), (0x2000, &[0x61_61, 0x62])]);
    let follow =
        vec![Follow::GoSlice { element_bytes: 16, element: FollowIndex(1), most: 2 }, Follow::GoString { most: 8 }];
    let captured = capture(&one_root(3, follow.clone()), &registers(&[(0, 0x1000), (3, 3), (2, 3)]), &memory);
    let seen: Vec<_> = captured.chunks.iter().map(|chunk| (chunk.address.0, chunk.bytes.len(), chunk.end)).collect();
    assert_eq!(seen, [(0x1000, 32, ChunkEnd::Limit), (0x2000, 2, ChunkEnd::Complete), (0x2008, 1, ChunkEnd::Complete)]);
    let broken = capture(&one_root(3, follow), &registers(&[(0, 0x1000), (3, 3), (2, 2)]), &memory);
    assert_eq!(broken.chunks, [], "more elements than room");
}

#[test]
fn a_list_that_leads_back_to_itself_ends_and_depth_is_kept() {
    let memory = image(&[(0x1000, &[0x1010, 0, 0x1000, 0]), (0x3000, &[0x3100]), (0x3100, &[0x3200]), (0x3200, &[1])]);
    let follow = vec![Follow::Pointer { bytes: 8, to: FollowIndex(0) }];
    let around = capture(&one_root(1, follow.clone()), &registers(&[(0, 0x1000)]), &memory);
    assert_eq!(around.chunks.len(), 2);
    let deep = capture(&one_root(1, follow), &registers(&[(0, 0x3000)]), &memory);
    assert_eq!(deep.chunks.iter().map(|chunk| chunk.address.0).collect::<Vec<_>>(), [0x3000, 0x3100]);
}

#[test]
fn memory_that_a_chunk_holds_is_not_read_again() {
    let memory = image(&[(0x1000, &[0x1008, 7])]);
    let follow = vec![
        Follow::Pointer { bytes: 16, to: FollowIndex(1) },
        Follow::Pointer { bytes: 8, to: FollowIndex(2) },
        Follow::Plain,
    ];
    let captured = capture(&one_root(1, follow), &registers(&[(0, 0x1000)]), &memory);
    assert_eq!(captured.chunks.len(), 1, "the second is inside of the first");
}

#[test]
fn a_variable_that_cannot_be_read_says_where_and_leaves_no_bytes() {
    let mut program = one_root(1, vec![Follow::Plain]);
    let place = Place::Memory(Address { base: Some(Register(0)), offset: 0, derefs: vec![0] });
    program.roots =
        vec![RootRead::Read { offset: 0, pieces: vec![Piece { bytes: 8, place }], follow: FollowIndex(0), depth: 2 }];
    let memory = image(&[(0x1000, &[0x7000])]);
    let captured = capture(&program, &registers(&[(0, 0x1000)]), &memory);
    assert_eq!(captured.root_states, [RootState::Unreadable(Avma(0x7000))]);
    assert_eq!(captured.roots, [0; 8]);
    program.bytes_per_hit = 7;
    assert_eq!(capture(&program, &registers(&[]), &memory).root_states, [RootState::OverBudget]);
}

#[test]
fn the_stack_is_walked_by_frame_pointers_and_a_leafs_caller_is_not_skipped() {
    // The caller's frame at 0x1040, its caller's at 0x1080, the end of the chain.
    let mut words = [0u64; 32];
    words[8] = 0x1080;
    words[9] = 0xbbb;
    words[17] = 0xccc;
    words[2] = 0xaaa;
    let memory = image(&[(0x1000, &words)]);
    let mut program = one_root(1, vec![]);
    program.stack_frames_max = 10;
    let leaf = registers(&[(6, 0x1040), (7, 0x1010), (16, 0x999)]);
    let frames = |program: &Program, registers: &Registers| {
        let captured = capture(program, registers, &memory);
        (captured.stack.iter().map(|pc| pc.0).collect::<Vec<_>>(), captured.stack_end.is_cut())
    };
    program.return_address = Some(Address { base: Some(Register(7)), offset: 0, derefs: vec![] });
    assert_eq!(frames(&program, &leaf), (vec![0x999, 0xaaa, 0xbbb, 0xccc], false));
    // The same function with a frame of its own: [rbp + 8] is its return address.
    program.return_address = Some(Address { base: Some(Register(7)), offset: 0x38, derefs: vec![] });
    assert_eq!(frames(&program, &leaf), (vec![0x999, 0xbbb, 0xccc], false));
    program.return_address = None;
    assert_eq!(frames(&program, &leaf), (vec![0x999, 0xbbb, 0xccc], false));
    program.stack_frames_max = 2;
    assert_eq!(frames(&program, &leaf), (vec![0x999, 0xbbb], true));
    program.stack_frames_max = 10;
    for rbp in [0x1041, 0x1008, 0x9000] {
        let garbage = registers(&[(6, rbp), (7, 0x1010), (16, 0x999)]);
        assert_eq!(frames(&program, &garbage), (vec![0x999], true), "{rbp:#x}");
    }
}

#[test]
fn the_goroutine_is_read_through_the_thread() {
    let mut program = one_root(1, vec![]);
    let g = GoroutinePointer::ThreadLocal { offset: -8 };
    program.goroutine = Some(Goroutine { g, goid_offset: 8 });
    let memory = image(&[(0x1000, &[0x2000]), (0x2000, &[0, 42])]);
    let with_base = |fs_base| Registers { fs_base, ..Registers::default() };
    assert_eq!(capture(&program, &with_base(0x1008), &memory).goroutine, Some(42));
    assert_eq!(capture(&program, &with_base(0x5008), &memory).goroutine, None);
}

fn holds(condition: Test, registers: &Registers, memory: &Image) -> Truth {
    test(&Program { condition: Some(condition), ..one_root(1, vec![]) }, registers, memory)
}

fn rax(bytes: u32, signed: bool) -> Operand {
    Operand::Read { pieces: vec![Piece { bytes, place: Place::Register(Register(0)) }], signed }
}

fn nowhere() -> Operand {
    let place = Place::Memory(Address { base: None, offset: 0x9000, derefs: vec![] });
    Operand::Read { pieces: vec![Piece { bytes: 8, place }], signed: false }
}

fn compare(left: Operand, comparison: Comparison, right: Operand) -> Test {
    Test::Integer { comparison, left, right }
}

#[test]
fn integers_have_their_width_and_sign() {
    let minus_one = registers(&[(0, 0xff)]);
    let equals = |operand, value| compare(operand, Comparison::Equal, Operand::Constant(value));
    let memory = Image::default();
    assert_eq!(holds(equals(rax(1, true), -1), &minus_one, &memory), Truth::True);
    assert_eq!(holds(equals(rax(1, false), 255), &minus_one, &memory), Truth::True);
    assert_eq!(holds(equals(rax(2, true), 255), &minus_one, &memory), Truth::True);
    let plus_one = |bits, signed| Operand::Arithmetic {
        operation: Arithmetic::Add,
        left: Box::new(rax(1, signed)),
        right: Box::new(Operand::Constant(1)),
        bits,
        signed,
    };
    assert_eq!(holds(equals(plus_one(8, false), 0), &minus_one, &memory), Truth::True, "it wraps as uint8 does");
    assert_eq!(holds(equals(plus_one(16, false), 256), &minus_one, &memory), Truth::True);
    let shifted = |count| Operand::Arithmetic {
        operation: Arithmetic::ShiftLeft,
        left: Box::new(Operand::Constant(1)),
        right: Box::new(Operand::Constant(count)),
        bits: 64,
        signed: false,
    };
    assert_eq!(holds(equals(shifted(63), 1 << 63), &minus_one, &memory), Truth::True);
    assert_eq!(holds(equals(shifted(200), 0), &minus_one, &memory), Truth::True);
    assert_eq!(holds(equals(shifted(-1), 0), &minus_one, &memory), Truth::Unknown(Unknown::NegativeShift));
}

#[test]
fn the_unknown_is_neither_true_nor_false_unless_it_does_not_matter() {
    let memory = Image::default();
    let none = Registers::default();
    let unknown = || Test::Bool(nowhere());
    let known = |value| Test::Bool(Operand::Constant(value));
    let both = |l, r| Test::And(Box::new(l), Box::new(r));
    let either = |l, r| Test::Or(Box::new(l), Box::new(r));
    let is_unknown = |truth| matches!(truth, Truth::Unknown(Unknown::Fault(_)));
    assert!(is_unknown(holds(unknown(), &none, &memory)));
    assert!(is_unknown(holds(Test::Not(Box::new(unknown())), &none, &memory)));
    assert!(is_unknown(holds(both(known(1), unknown()), &none, &memory)));
    assert!(is_unknown(holds(either(unknown(), known(0)), &none, &memory)));
    assert_eq!(holds(both(unknown(), known(0)), &none, &memory), Truth::False);
    assert_eq!(holds(either(unknown(), known(1)), &none, &memory), Truth::True);
    let by_zero = Operand::Arithmetic {
        operation: Arithmetic::Divide,
        left: Box::new(Operand::Constant(1)),
        right: Box::new(Operand::Constant(0)),
        bits: 64,
        signed: true,
    };
    assert_eq!(holds(Test::Bool(by_zero), &none, &memory), Truth::Unknown(Unknown::DivisionByZero));
}

#[test]
fn strings_compare_by_bytes_and_long_ones_by_length_alone() {
    let memory = image(&[(0x1000, &[u64::from_le_bytes(*b"riptrace")])]);
    let string = || TextOperand::GoString {
        pieces: [0, 3].map(|register| Piece { bytes: 8, place: Place::Register(Register(register)) }).to_vec(),
    };
    let against = |comparison, text: &[u8]| Test::Text {
        comparison,
        left: string(),
        right: TextOperand::Constant(text.to_vec()),
    };
    let rip = registers(&[(0, 0x1000), (3, 3)]);
    assert_eq!(holds(against(Comparison::Equal, b"rip"), &rip, &memory), Truth::True);
    assert_eq!(holds(against(Comparison::Less, b"ripe"), &rip, &memory), Truth::True);
    assert_eq!(holds(against(Comparison::NotEqual, b"rap"), &rip, &memory), Truth::True);
    let long = registers(&[(0, 0x1000), (3, 5000)]);
    assert_eq!(holds(against(Comparison::Equal, b"rip"), &long, &memory), Truth::False);
    assert_eq!(holds(against(Comparison::Less, b"rip"), &long, &memory), Truth::Unknown(Unknown::LongText));
    let empty = registers(&[(0, 0x9000), (3, 0)]);
    assert_eq!(holds(against(Comparison::Equal, b""), &empty, &memory), Truth::True);
    // Eight bytes can be read, the ninth cannot: it matters only where the eight are equal.
    let memory = image(&[(0x1ff8, &[u64::from_le_bytes(*b"riptrace")])]);
    let cut = registers(&[(0, 0x1ff8), (3, 9)]);
    assert_eq!(holds(against(Comparison::Equal, b"ripxxxxxx"), &cut, &memory), Truth::False);
    assert_eq!(holds(against(Comparison::Less, b"ripz"), &cut, &memory), Truth::True);
    let unknown = holds(against(Comparison::Equal, b"riptraces"), &cut, &memory);
    assert_eq!(unknown, Truth::Unknown(Unknown::Fault(super::memory::Fault { at: Avma(0x2000) })));
}

#[test]
fn a_short_float_compares_with_a_literal_as_the_language_does() {
    let bits = u64::from(0.1f32.to_bits());
    let single = FloatOperand::Read { pieces: vec![Piece { bytes: 4, place: Place::Register(Register(0)) }] };
    let equal = Test::Float { comparison: Comparison::Equal, left: single, right: FloatOperand::Constant(0.1) };
    assert_eq!(holds(equal, &registers(&[(0, bits)]), &Image::default()), Truth::True);
    let nan = FloatOperand::Constant(f64::NAN);
    let not_equal = Test::Float { comparison: Comparison::NotEqual, left: nan.clone(), right: nan };
    assert_eq!(holds(not_equal, &Registers::default(), &Image::default()), Truth::True);
}

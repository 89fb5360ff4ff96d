//! Random programs, registers and memories: what a plan makes, and what no plan would.

use super::machine::{PAGE, PAGES, STACK_PAGE};
use crate::capture::program::{
    Address, Arithmetic, Case, Comparison, Count, FloatOperand, Follow, FollowIndex, Goroutine, GoroutinePointer, Key,
    Operand, Piece, Place, Program, RUN_ELEMENTS_MAX, Reach, Register, RootRead, StackSlice, Test, TextOperand,
};
use crate::capture::registers::Registers;

/// A generator of numbers (splitmix64): the same seed, the same numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn list<T>(&mut self, most: u64, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| item(self)).collect()
    }
}

/// What random things are made of.
pub(super) struct Generator {
    pub(super) random: Random,
    /// Address of the process's memory.
    pub(super) base: u64,
    pub(super) rsp: u64,
    /// Where `g` is found.
    pub(super) g: GoroutinePointer,
}

impl Generator {
    /// An address in the process's memory, rarely at the edge of a page, but not below the stack pointer.
    fn address(&mut self) -> u64 {
        let page = self.random.below(PAGES as u64);
        let offset = match self.random.below(6) {
            0 => PAGE as u64 - 1 - self.random.below(24),
            1 => self.random.below(16),
            _ => self.random.below(PAGE as u64 / 8) * 8,
        };
        // What is read from a little before the stack's page would run into it.
        let offset = if page + 1 == STACK_PAGE as u64 { offset % (PAGE as u64 / 2) } else { offset };
        let at = self.base + page * PAGE as u64 + offset;
        let forbidden = self.rsp - PAGE as u64 / 2..self.rsp + 256;
        if page == STACK_PAGE as u64 && forbidden.contains(&at) { self.rsp + 256 } else { at }
    }

    pub(super) fn word(&mut self) -> u64 {
        match self.random.below(16) {
            0..8 => self.address(),
            8 => 0,
            9 => self.random.next(),
            10 => u64::MAX - self.random.below(4),
            11 => 0x8000_0000_0000_0000u64.wrapping_add(self.random.below(5)).wrapping_sub(2),
            12 => self.random.next() >> self.random.below(64),
            _ => self.random.below(40),
        }
    }

    /// A process's memory: mostly addresses in it and small numbers, strings that begin alike, slices of short length.
    pub(super) fn memory(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGES * PAGE);
        while bytes.len() < PAGES * PAGE {
            bytes.extend(self.word().to_le_bytes());
        }
        for _ in 0..300 {
            let at = self.random.below((PAGES * PAGE / 8 - 3) as u64) as usize * 8;
            let length = self.random.below(12);
            for (index, word) in [self.address(), length, length + self.random.below(3)].into_iter().enumerate() {
                bytes[at + index * 8..at + index * 8 + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
        let text = b"riptrace riptrace riptrace riptrace riptrace";
        for _ in 0..8 {
            let at = self.random.below((PAGES * PAGE - text.len()) as u64) as usize;
            bytes[at..at + text.len()].copy_from_slice(text);
        }
        bytes
    }

    pub(super) fn readable(&mut self) -> [bool; PAGES] {
        std::array::from_fn(|_| !self.random.one_in(4))
    }

    pub(super) fn registers(&mut self, site: u64, fs_base: u64) -> Registers {
        let mut registers = Registers { fs_base, ..Registers::default() };
        for number in 0..16 {
            registers.gpr[number] = self.word();
        }
        registers.gpr[7] = self.rsp;
        if !self.random.one_in(3) {
            // A chain of frames.
            registers.gpr[6] = self.rsp + 256 + self.random.below(64) * 8;
        }
        registers.gpr[16] = site;
        for xmm in &mut registers.xmm {
            let value = match self.random.below(4) {
                0 => f64::from(self.random.below(100) as u32) / 4.0,
                1 => f64::NAN,
                _ => f64::from_bits(self.random.next()),
            };
            xmm[..8].copy_from_slice(&value.to_bits().to_le_bytes());
            if self.random.one_in(2) {
                xmm[..4].copy_from_slice(&(value as f32).to_bits().to_le_bytes());
            }
            xmm[8..].copy_from_slice(&self.random.next().to_le_bytes());
        }
        registers
    }

    fn register(&mut self) -> Register {
        Register(match self.random.below(12) {
            0 => self.random.below(40) as u16,
            1..3 => 17 + self.random.below(16) as u16,
            _ => self.random.below(17) as u16,
        })
    }

    fn slice(&mut self) -> StackSlice {
        StackSlice {
            bytes: self.random.pick(&[0, 7, 8, 64, 1000, 8192, u32::MAX]),
            first_thread_end: if self.random.one_in(2) { Some(self.address()) } else { None },
        }
    }

    fn place(&mut self) -> Address {
        let base = match self.random.below(8) {
            0 => None,
            1..4 => Some(Register(7)),
            4 => Some(self.register()),
            _ => Some(Register(self.random.below(16) as u16)),
        };
        let offset = match (base, self.random.below(8)) {
            (None, _) => self.address() as i64,
            (Some(Register(7)), _) => self.random.below(1500) as i64,
            (_, 0) => self.random.next() as i64,
            (_, 1) => (self.random.next() as i32).into(),
            _ => self.random.below(128) as i64 - 64,
        };
        let derefs = match self.random.below(3) {
            0 => self.random.list(3, |random| match random.below(12) {
                0 => random.next() as i64,
                _ => random.below(128) as i64 - 64,
            }),
            _ => Vec::new(),
        };
        Address { base, offset, derefs }
    }

    fn piece(&mut self, bytes: u32) -> Piece {
        let place = match self.random.below(10) {
            0 => {
                let length = u64::from(bytes) + self.random.below(3) - u64::from(self.random.one_in(8) && bytes > 0);
                Place::Constant((0..length).map(|_| self.random.next() as u8).collect())
            }
            1..5 => Place::Register(self.register()),
            _ => Place::Memory(self.place()),
        };
        Piece { bytes, place }
    }

    fn pieces_of(&mut self, bytes: u32) -> Vec<Piece> {
        if bytes > 1 && self.random.one_in(4) {
            let first = self.random.below(u64::from(bytes)) as u32;
            return vec![self.piece(first), self.piece(bytes - first)];
        }
        vec![self.piece(bytes)]
    }

    fn header(&mut self) -> Vec<Piece> {
        if self.random.one_in(3) { self.pieces_of(16) } else { vec![self.piece(8), self.small_length()] }
    }

    fn small_length(&mut self) -> Piece {
        if self.random.one_in(2) {
            return self.piece(8);
        }
        let length = self.random.pick(&[0, 1, 3, 7, 8, 9, 40, 100, 4096, 5000]);
        Piece { bytes: 8, place: Place::Constant(u64::to_le_bytes(length).to_vec()) }
    }

    fn size(&mut self) -> u64 {
        match self.random.below(10) {
            0 => self.random.next(),
            1 => self.random.below(9000),
            2 => 0,
            _ => self.random.below(12) * 8,
        }
    }

    /// A limit of elements; each type has its own.
    fn elements(&mut self) -> u32 {
        self.random.pick(&[0, 1, 3, 3, 16, 16, 300, u32::MAX])
    }

    /// A limit of pointers; each variable has its own.
    fn depth(&mut self) -> u32 {
        self.random.pick(&[0, 1, 2, 2, 3, 7, 20, u32::MAX])
    }

    fn index(&mut self, follows: usize) -> FollowIndex {
        FollowIndex(self.random.below(follows as u64 + 1) as u32)
    }

    /// A length and a capacity that are one.
    fn lengths(&mut self) -> [Piece; 2] {
        let length = self.random.below(20);
        let piece = |word: u64| Piece { bytes: 8, place: Place::Constant(word.to_le_bytes().to_vec()) };
        [piece(length), piece(length + self.random.below(4))]
    }

    /// A program that follows a lot.
    pub(super) fn following(&mut self) -> Program {
        let mut program = self.program();
        let follows = 4 + self.random.below(12) as usize;
        program.follow = (0..follows).map(|_| self.follow(follows)).collect();
        program.follow.retain(|follow| *follow != Follow::Plain);
        program.follow.resize(follows, Follow::GoString { most: 64 });
        program.roots.clear();
        program.root_bytes = 0;
        for _ in 0..1 + self.random.below(5) {
            let place = match self.random.below(4) {
                0 => Place::Register(Register(8 + self.random.below(8) as u16)),
                _ => Place::Constant(self.address().to_le_bytes().to_vec()),
            };
            let mut pieces = vec![Piece { bytes: 8, place }];
            pieces.extend(self.lengths());
            if self.random.one_in(3) {
                let at = Address { base: Some(Register(self.random.below(6) as u16)), offset: 0, derefs: Vec::new() };
                pieces.push(Piece { bytes: 64, place: Place::Memory(at) });
            }
            let bytes: u32 = pieces.iter().map(|piece| piece.bytes).sum();
            let follow = FollowIndex(self.random.below(follows as u64) as u32);
            let depth = self.depth();
            program.roots.push(RootRead::Read { offset: program.root_bytes, pieces, follow, depth });
            program.root_bytes += bytes;
        }
        program.bytes_per_hit = program.bytes_per_hit.max(1000);
        program
    }

    fn follow(&mut self, follows: usize) -> Follow {
        match self.random.below(10) {
            0 => Follow::Plain,
            1 => Follow::Pointer { bytes: self.size(), to: self.index(follows) },
            2 => Follow::Owned { bytes: self.size(), to: self.index(follows) },
            3 => Follow::GoString { most: self.random.pick(&[0, 1, 8, 64, 255, 4096, u32::MAX]) },
            4 => {
                let (element_bytes, element) = (self.size(), self.index(follows));
                Follow::GoSlice { element_bytes, element, most: self.elements() }
            }
            5 => {
                let (count, element_bytes, element) = (self.size(), self.size(), self.index(follows));
                Follow::Array { count, element_bytes, element, most: self.elements() }
            }
            6 => {
                let fields = (0..self.random.below(5)).map(|_| (self.size(), self.index(follows))).collect();
                Follow::Struct { fields }
            }
            7 => Follow::Run {
                address_at: self.random.below(3) * 8,
                count_at: self.random.below(3) * 8,
                count: self.random.pick(&[
                    Count::Word,
                    Count::WordBehindCounts,
                    Count::Mask,
                    Count::MaskBelow,
                    Count::Power,
                    Count::End,
                ]),
                element_bytes: self.size(),
                element: self.index(follows),
                most: if self.random.one_in(2) { RUN_ELEMENTS_MAX } else { self.elements() },
            },
            _ => {
                let key = match self.random.below(3) {
                    0 => Key::Through { at: self.random.below(3) * 8, offset: self.size(), bytes: self.size() },
                    _ => Key::Word { at: self.random.below(20), bytes: self.random.below(10) as u8 },
                };
                let cases = (0..self.random.below(40)).map(|_| (self.random.below(40), self.case(follows))).collect();
                let otherwise = if self.random.one_in(2) { Some(self.case(follows)) } else { None };
                Follow::Switch { key, value_at: self.random.below(4) * 8, cases, otherwise }
            }
        }
    }

    fn case(&mut self, follows: usize) -> Case {
        let reach = if self.random.one_in(2) { Reach::Here } else { Reach::Address { bytes: self.size() } };
        Case { reach, follow: self.index(follows) }
    }

    fn operand(&mut self, depth: u32) -> Operand {
        if depth == 0 || self.random.one_in(3) {
            return match self.random.below(6) {
                0 => Operand::Constant(i128::from(self.word() as i64)),
                1 if self.random.one_in(3) => {
                    Operand::Constant((i128::from(self.word()) << 64) | i128::from(self.word()))
                }
                1 => Operand::Constant(i128::from(self.word())),
                2 => Operand::Constant(self.random.below(10) as i128 - 5),
                _ => {
                    let bytes = self.random.pick(&[1, 2, 4, 8, 8, 8, 3]);
                    Operand::Read { pieces: self.pieces_of(bytes), signed: self.random.one_in(2) }
                }
            };
        }
        let operation = self.random.pick(&[
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
        let bits = match self.random.below(8) {
            0 => 0,
            1 => self.random.next() as u8,
            _ => self.random.pick(&[8, 16, 32, 64]),
        };
        let (left, right) = (Box::new(self.operand(depth - 1)), Box::new(self.operand(depth - 1)));
        Operand::Arithmetic { operation, left, right, bits, signed: self.random.one_in(2) }
    }

    fn float(&mut self) -> FloatOperand {
        match self.random.below(4) {
            0 => FloatOperand::Constant(self.random.pick(&[0.0, -0.0, 0.1, 1.0, 24.25, f64::NAN, f64::INFINITY])),
            1 => FloatOperand::Integer(self.operand(2)),
            _ => {
                let bytes = self.random.pick(&[4, 8]);
                let pieces = match self.random.one_in(2) {
                    true => vec![Piece { bytes, place: Place::Register(Register(17 + self.random.below(16) as u16)) }],
                    false => self.pieces_of(bytes),
                };
                FloatOperand::Read { pieces }
            }
        }
    }

    fn text(&mut self) -> TextOperand {
        if self.random.one_in(3) {
            let text = b"riptrace riptrace";
            return TextOperand::Constant(text[..self.random.below(text.len() as u64) as usize].to_vec());
        }
        TextOperand::GoString { pieces: self.header() }
    }

    pub(super) fn test(&mut self, depth: u32) -> Test {
        let comparison = self.random.pick(&[
            Comparison::Equal,
            Comparison::NotEqual,
            Comparison::Less,
            Comparison::LessOrEqual,
            Comparison::Greater,
            Comparison::GreaterOrEqual,
        ]);
        if depth > 0 && !self.random.one_in(3) {
            let left = Box::new(self.test(depth - 1));
            return match self.random.below(5) {
                0 => Test::Not(left),
                1 | 2 => Test::And(left, Box::new(self.test(depth - 1))),
                _ => Test::Or(left, Box::new(self.test(depth - 1))),
            };
        }
        match self.random.below(8) {
            0 => Test::Bool(self.operand(2)),
            1..5 => Test::Integer { comparison, left: self.operand(3), right: self.operand(2) },
            5 | 6 => Test::Float { comparison, left: self.float(), right: self.float() },
            _ => Test::Text { comparison, left: self.text(), right: self.text() },
        }
    }

    /// A program without a condition.
    pub(super) fn program(&mut self) -> Program {
        let follows = self.random.below(10) as usize;
        let mut offset = 0;
        let mut roots = Vec::new();
        for _ in 0..self.random.below(7) {
            if self.random.one_in(10) {
                roots.push(RootRead::Absent);
                continue;
            }
            let bytes = match self.random.below(16) {
                0 => self.random.below(700) as u32,
                1 => self.random.below(5000) as u32,
                _ => self.random.pick(&[0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 16, 24, 24, 33, 64]),
            };
            let pieces = if bytes == 16 { self.header() } else { self.pieces_of(bytes) };
            let at = if self.random.one_in(20) { self.random.below(64) as u32 } else { offset };
            roots.push(RootRead::Read { offset: at, pieces, follow: self.index(follows), depth: self.depth() });
            offset = at + bytes;
        }
        let small = self.random.one_in(3);
        let bytes_per_hit =
            if small { self.random.below(200) as u32 } else { self.random.pick(&[1000, 8192, 65536, u32::MAX]) };
        let goroutine = match self.random.below(3) {
            0 => None,
            1 => Some(GoroutinePointer::ThreadLocal { offset: self.random.next() as i64 }),
            _ => Some(self.g),
        };
        Program {
            condition: None,
            hit_condition: None,
            count_only: false,
            roots,
            root_bytes: if self.random.one_in(10) { self.random.below(64) as u32 } else { offset },
            follow: (0..follows).map(|_| self.follow(follows)).collect(),
            goroutine: goroutine.map(|g| Goroutine { g, goid_offset: self.random.pick(&[8, 152, 152, u32::MAX]) }),
            stack_frames_max: self.random.pick(&[0, 0, 1, 2, 5, 32, 200]),
            return_address: if self.random.one_in(2) { Some(self.place()) } else { None },
            stack_slice: if self.random.one_in(4) { Some(self.slice()) } else { None },
            bytes_per_hit,
        }
    }
}

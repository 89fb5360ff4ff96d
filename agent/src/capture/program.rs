//! The capture program: what a passage through one site does, as plain data.
//!
//! It is compiled from a tracepoint and a build's symbols ([`crate::plan`]) and is small and bounded: no loop without a
//! bound, no read that can fault, no allocation that limits do not cap. Executors: the interpreter
//! ([`super::interpreter`]) for ptrace sites and stored images; a code generator for sites inside the process.

use riptrace_protocol::tracepoint::HitCondition;

/// A general-purpose register or a vector register, by its DWARF number.
///
/// System V ABI, AMD64 supplement, figure 3.36: 0 rax, 1 rdx, 2 rcx, 3 rbx, 4 rsi, 5 rdi, 6 rbp, 7 rsp, 8-15 r8-r15,
/// 16 return address (rip), 17-32 xmm0-xmm15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register(pub u16);

/// What a passage through one site does.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Must hold for the passage to become a hit.
    pub condition: Option<Test>,
    /// Which of the passages whose condition held become hits.
    pub hit_condition: Option<HitCondition>,
    /// Whether a passage leaves a hit behind, or only counts.
    pub count_only: bool,
    /// One per variable of the layout, in its order.
    pub roots: Vec<RootRead>,
    /// Bytes of all roots together.
    pub root_bytes: u32,
    /// What the roots' types point to; [`FollowIndex`] names an entry.
    pub follow: Vec<Follow>,
    /// Where the goroutine id is; `None` outside Go.
    pub goroutine: Option<Goroutine>,
    /// Frames of call stack to walk by frame pointers (rbp chain); 0 for none.
    pub stack_frames_max: u16,
    /// Where the return address of the site's own frame is (CFA - 8 by the call frame information at the site). A
    /// function without a frame of its own (many leaves) leaves rbp to its caller: without this, the walk would skip
    /// the caller. `None` where it is not known: then rbp is taken to be the function's own.
    pub return_address: Option<Address>,
    /// What of the thread's stack is copied, where frame pointers do not lead to all callers: then nothing is walked,
    /// and the frames, `stack_frames_max` of them at most, are found from the copy ([`crate::symbols::Unwinder`]).
    pub stack_slice: Option<StackSlice>,
    /// Bytes of roots and chunks together, at most.
    pub bytes_per_hit: u32,
}

/// A copy of the innermost part of a thread's stack, from its stack pointer on, and of its general-purpose registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackSlice {
    /// Bytes, at most: a multiple of 8, up to [`STACK_SLICE_BYTES_MAX`].
    pub bytes: u32,
    /// Where the first thread's stack ends (the end of `[stack]`, proc_pid_maps(5)): nothing beyond it is read. Other
    /// threads' stacks end at their thread control block, which the C libraries put at the end of the stack, if at all
    /// in it: the copy ends there, too. A read that can be told to fault is not tried.
    pub first_thread_end: Option<u64>,
}

/// Bytes of a [`StackSlice`], at most.
pub const STACK_SLICE_BYTES_MAX: u32 = 64 * 1024;

impl StackSlice {
    /// Words that are copied, at most.
    pub fn words_max(&self) -> u32 {
        self.bytes.min(STACK_SLICE_BYTES_MAX) / 8
    }
}

impl Program {
    /// Whether any part of it reads a vector register: they cost a system call of their own per passage.
    pub fn reads_vectors(&self) -> bool {
        fn pieces(pieces: &[Piece]) -> bool {
            pieces.iter().any(|piece| matches!(piece.place, Place::Register(register) if register.0 > 16))
        }
        fn operand(it: &Operand) -> bool {
            match it {
                Operand::Constant(_) => false,
                Operand::Read { pieces: read, .. } => pieces(read),
                Operand::Arithmetic { left, right, .. } => operand(left) || operand(right),
            }
        }
        fn float(it: &FloatOperand) -> bool {
            match it {
                FloatOperand::Constant(_) => false,
                FloatOperand::Read { pieces: read } => pieces(read),
                FloatOperand::Integer(integer) => operand(integer),
            }
        }
        fn text(it: &TextOperand) -> bool {
            matches!(it, TextOperand::GoString { pieces: read } if pieces(read))
        }
        fn test(it: &Test) -> bool {
            match it {
                Test::And(left, right) | Test::Or(left, right) => test(left) || test(right),
                Test::Not(inner) => test(inner),
                Test::Bool(value) => operand(value),
                Test::Integer { left, right, .. } => operand(left) || operand(right),
                Test::Float { left, right, .. } => float(left) || float(right),
                Test::Text { left, right, .. } => text(left) || text(right),
            }
        }
        self.condition.as_ref().is_some_and(test)
            || self.roots.iter().any(|root| matches!(root, RootRead::Read { pieces: read, .. } if pieces(read)))
    }
}

/// How the root of one variable is read.
#[derive(Debug, Clone, PartialEq)]
pub enum RootRead {
    /// There is nothing to read; the layout says why.
    Absent,
    /// Read these pieces, in order, to `offset` of the roots.
    Read {
        /// Offset in the roots.
        offset: u32,
        /// Pieces; their sizes sum up to the variable's.
        pieces: Vec<Piece>,
        /// What to follow in it.
        follow: FollowIndex,
        /// Pointers followed below it, at most.
        depth: u32,
    },
}

/// Some bytes of a variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// How many.
    pub bytes: u32,
    /// From where.
    pub place: Place,
}

/// Where bytes are at the moment of the hit.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In a register, from its lowest byte.
    Register(Register),
    /// In memory.
    Memory(Address),
    /// Known to the compiler.
    Constant(Vec<u8>),
}

/// An address computed at the moment of the hit: `base + offset`, then for each entry of `derefs`: the word at that
/// address, plus the entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// A register, or `None` for an absolute address in the process (already relocated).
    pub base: Option<Register>,
    /// Added to the base, wrapping.
    pub offset: i64,
    /// Dereferences, in order.
    pub derefs: Vec<i64>,
}

/// Index of a [`Follow`] in [`Program::follow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FollowIndex(pub u32);

/// What a type points to.
#[derive(Debug, Clone, PartialEq)]
pub enum Follow {
    /// Nothing.
    Plain,
    /// The first word is an address of `bytes` bytes with this inside. Uses up one of the root's `depth`.
    Pointer {
        /// Size of the pointee.
        bytes: u64,
        /// What is in it.
        to: FollowIndex,
    },
    /// The same for what belongs to the value: the header and the tables of a map, what an interface holds. Does not use
    /// up depth.
    Owned {
        /// Size of what is there.
        bytes: u64,
        /// What is in it.
        to: FollowIndex,
    },
    /// Address, length in bytes. Does not use up depth: a string's bytes are its value.
    GoString {
        /// Bytes that are copied, at most.
        most: u32,
    },
    /// Address, length, capacity. Does not use up depth: a slice's elements are its value.
    GoSlice {
        /// Size of an element.
        element_bytes: u64,
        /// What is in it.
        element: FollowIndex,
        /// Elements that are copied, at most.
        most: u32,
    },
    /// `count` of the same back to back; the bytes are there already.
    Array {
        /// How many.
        count: u64,
        /// Size of an element.
        element_bytes: u64,
        /// What is in it.
        element: FollowIndex,
        /// Elements in which something is followed, at most: the first ones.
        most: u32,
    },
    /// Parts at offsets; parts that are plain are left out.
    Struct {
        /// Offset and content.
        fields: Vec<(u64, FollowIndex)>,
    },
    /// Elements back to back at an address, their number somewhere else in the value: buffers of channels, directories
    /// and groups of maps, buckets, vectors. Does not use up depth: the elements are the value.
    Run {
        /// Offset of the word that holds the address.
        address_at: u64,
        /// Offset of the word that the number of elements is computed from.
        count_at: u64,
        /// How.
        count: Count,
        /// Size of an element.
        element_bytes: u64,
        /// What is in it.
        element: FollowIndex,
        /// Elements that are copied, at most: what a limit of elements says, or [`RUN_ELEMENTS_MAX`].
        most: u32,
    },
    /// What there is depends on a word: the dynamic type of an interface, the code of a function value, the variant of
    /// an enum, whether a map is small. Does not use up depth unless the case is reached through an address.
    Switch {
        /// The word.
        key: Key,
        /// Offset of the word that holds the value's address, or, for [`Reach::Here`], of the value itself.
        value_at: u64,
        /// What there is, by the word; sorted by it, each once.
        cases: Vec<(u64, Case)>,
        /// What there is for every other word; `None`: nothing is followed.
        otherwise: Option<Case>,
    },
}

/// Elements of a [`Follow::Run`] that no limit of the tracepoint clamps, at most: the directory of a map of some
/// hundred thousand entries.
pub const RUN_ELEMENTS_MAX: u32 = 256;

/// How a word gives a number of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// It is the number; none if it is negative.
    Word,
    /// The same, and the elements lie [`COUNTS_BYTES`] behind the address.
    ///
    /// [`COUNTS_BYTES`]: riptrace_protocol::layout::COUNTS_BYTES
    WordBehindCounts,
    /// One more than it: a mask.
    Mask,
    /// The same, and the elements lie in front of the address, from it backwards: those nearest to it are copied.
    MaskBelow,
    /// Two to its lowest byte: `B` of a classic map; none if that is over 62.
    Power,
    /// It is the address behind the last: none if that is before the first, or not a whole number of elements behind it.
    End,
}

/// Where the word of a [`Follow::Switch`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// In the value, at this offset.
    Word {
        /// Offset in bytes.
        at: u64,
        /// Bytes of it, 1, 2, 4 or 8; taken as unsigned.
        bytes: u8,
    },
    /// In memory: the word at `at` of the value is an address; the key is the word at `offset` from there. The `bytes`
    /// bytes at that address are captured as a chunk, so that a reader finds the key again. No address, no key: nothing
    /// is followed.
    Through {
        /// Offset of the address in the value.
        at: u64,
        /// Offset of the key from the address.
        offset: u64,
        /// Bytes captured at the address, at least `offset + 8`.
        bytes: u64,
    },
}

/// What there is in one case of a [`Follow::Switch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// How it is reached.
    pub reach: Reach,
    /// What is in it.
    pub follow: FollowIndex,
}

/// How the value of a case is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// It is in place, at `value_at`.
    Here,
    /// The word at `value_at` is its address. Uses up one of `depth`.
    Address {
        /// Its size.
        bytes: u64,
    },
}

/// Where the goroutine id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goroutine {
    /// Where the address of the current `g` is.
    pub g: GoroutinePointer,
    /// Offset of `goid` in `runtime.g`, in bytes.
    pub goid_offset: u32,
}

/// Where the address of the current `g` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoroutinePointer {
    /// In memory at the thread's FS base plus this offset (`-8` for a plain Go executable).
    ThreadLocal {
        /// Offset from the FS base.
        offset: i64,
    },
}

/// A condition. Three-valued: a read that cannot be done makes it unknown, and an unknown condition is counted as such,
/// never taken for false or true.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Both hold.
    And(Box<Test>, Box<Test>),
    /// At least one holds.
    Or(Box<Test>, Box<Test>),
    /// It does not hold.
    Not(Box<Test>),
    /// A truth value: not zero.
    Bool(Operand),
    /// Two integers compare.
    Integer {
        /// How.
        comparison: Comparison,
        /// Left.
        left: Operand,
        /// Right.
        right: Operand,
    },
    /// Two floats compare.
    Float {
        /// How.
        comparison: Comparison,
        /// Left.
        left: FloatOperand,
        /// Right.
        right: FloatOperand,
    },
    /// Two strings compare, by bytes. Strings longer than 4096 bytes are unknown unless their lengths decide.
    Text {
        /// How.
        comparison: Comparison,
        /// Left.
        left: TextOperand,
        /// Right.
        right: TextOperand,
    },
}

/// How two operands compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// An integer of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A literal.
    Constant(i128),
    /// Bytes read as an integer of 1, 2, 4 or 8 bytes.
    Read {
        /// The pieces, in order, lowest byte first.
        pieces: Vec<Piece>,
        /// Whether it is signed.
        signed: bool,
    },
    /// Computed. Wraps around at `bits`, as the language does; division by zero is unknown.
    Arithmetic {
        /// How.
        operation: Arithmetic,
        /// Left.
        left: Box<Operand>,
        /// Right.
        right: Box<Operand>,
        /// Width that the result wraps at: 8, 16, 32, 64; 0 for untyped constants (no wrapping).
        bits: u8,
        /// Whether the result is signed.
        signed: bool,
    },
}

/// A float of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum FloatOperand {
    /// A literal.
    Constant(f64),
    /// Four or eight bytes, IEEE 754.
    Read {
        /// The pieces, in order.
        pieces: Vec<Piece>,
    },
    /// An integer, converted.
    Integer(Operand),
}

/// A string of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum TextOperand {
    /// A literal.
    Constant(Vec<u8>),
    /// A Go string: the pieces make its address and its length.
    GoString {
        /// The pieces, in order, 16 bytes together.
        pieces: Vec<Piece>,
    },
}

/// An operation on integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`, toward zero
    Divide,
    /// `%`, with the sign of the left side
    Remainder,
    /// `&`
    And,
    /// `|`
    Or,
    /// `^`
    Xor,
    /// `<<`
    ShiftLeft,
    /// `>>`
    ShiftRight,
}

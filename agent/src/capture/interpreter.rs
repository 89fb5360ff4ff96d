//! The interpreter: runs a capture program over registers and memory that somebody else holds still.
//!
//! It is pure: no clock, no counter, no system call of its own. It never panics and its work is bounded whatever the
//! program and the memory hold: bytes, chunks, frames and steps each have a limit. What a limit or a fault kept back is
//! said in the result; there is no zero in place of a value.
//!
//! Not here: counting passages, hit conditions, rates. Those belong to whoever owns the passage.

use super::memory::{Fault, Memory};
use super::program::{
    Address, Case, Clamp, Count, Follow, FollowIndex, Goroutine, GoroutinePointer, Key, Piece, Place, Program,
    RUN_ELEMENTS_MAX, Reach, RootRead,
};
use super::registers::{RBP, RSP, Registers};
use riptrace_protocol::hit::{Chunk, ChunkEnd, RootState};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, HIT_CHUNKS_MAX, STACK_FRAMES_MAX};
use std::collections::{HashSet, VecDeque};

pub use super::test::{Truth, Unknown, test};

/// Values looked at for pointers during one hit, at most: it bounds the time a thread stands still, whatever the types
/// are. A thousand chunks of sixteen fields each fit.
const FOLLOW_STEPS_MAX: usize = 16 * HIT_CHUNKS_MAX;

/// Bytes of one variable read from registers or memory, at most the budget of a hit.
const ROOT_BYTES_MAX: usize = HIT_BYTES_MAX;

/// What a passage left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// Bytes of the variables, back to back as the layout says; what was not captured is zero here and said so in
    /// `root_states`.
    pub roots: Vec<u8>,
    /// One per variable of the layout, in its order.
    pub root_states: Vec<RootState>,
    /// Memory that the variables point to. An address may lie inside a chunk that begins before it: what a chunk holds
    /// already is not read again.
    pub chunks: Vec<Chunk>,
    /// Goroutine id, where there is one and it could be read.
    pub goroutine: Option<u64>,
    /// Program counters, innermost first; the first is the site itself, the others are return addresses.
    pub stack: Vec<Avma>,
    /// Whether the stack goes on, or may go on, beyond what was captured.
    pub stack_truncated: bool,
}

/// Copies what the program asks for.
pub fn capture(program: &Program, registers: &Registers, memory: &dyn Memory) -> Captured {
    let mut capture = Capture::new(program, registers, memory);
    capture.roots();
    capture.follow();
    let (stack, stack_truncated) = stack(program, registers, memory);
    Captured {
        roots: capture.roots,
        root_states: capture.states,
        chunks: capture.chunks,
        goroutine: program.goroutine.and_then(|goroutine| goroutine_id(goroutine, registers, memory)),
        stack,
        stack_truncated,
    }
}

/// The address that an [`Address`] computes to.
pub(crate) fn address(address: &Address, registers: &Registers, memory: &dyn Memory) -> Result<Avma, Fault> {
    let base = match address.base {
        None => 0,
        // A register that holds no address computes to none.
        Some(register) => registers.word(register).ok_or(Fault { at: Avma(0) })?,
    };
    let mut at = base.wrapping_add_signed(address.offset);
    for &offset in &address.derefs {
        at = word(memory, Avma(at))?.wrapping_add_signed(offset);
    }
    Ok(Avma(at))
}

/// The bytes of some pieces, in order; a piece that its place does not hold in full is a fault at address 0.
pub(crate) fn pieces(
    pieces: &[Piece],
    registers: &Registers,
    memory: &dyn Memory,
    into: &mut [u8],
) -> Result<(), Fault> {
    let nowhere = Fault { at: Avma(0) };
    let mut rest = into;
    for piece in pieces {
        let bytes = usize::try_from(piece.bytes).map_err(|_| nowhere)?;
        let (here, after) = rest.split_at_mut_checked(bytes).ok_or(nowhere)?;
        match &piece.place {
            Place::Register(register) => {
                let (value, size) = registers.bytes(*register).ok_or(nowhere)?;
                here.copy_from_slice(value[..size].get(..bytes).ok_or(nowhere)?);
            }
            Place::Memory(place) => memory.read(address(place, registers, memory)?, here)?,
            Place::Constant(value) => here.copy_from_slice(value.get(..bytes).ok_or(nowhere)?),
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(nowhere) }
}

/// Bytes of some pieces together.
pub(crate) fn pieces_bytes(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.bytes)).sum()
}

pub(crate) fn word(memory: &dyn Memory, at: Avma) -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn goroutine_id(goroutine: Goroutine, registers: &Registers, memory: &dyn Memory) -> Option<u64> {
    let GoroutinePointer::ThreadLocal { offset } = goroutine.g;
    let g = word(memory, Avma(registers.fs_base.wrapping_add_signed(offset))).ok().filter(|&g| g != 0)?;
    word(memory, Avma(g.wrapping_add(u64::from(goroutine.goid_offset)))).ok()
}

/// Walks the frame pointers: `[rbp]` is the caller's rbp, `[rbp + 8]` the return address. A chain that does not lead
/// upwards, is not aligned or cannot be read is no chain: the walk stops and says that the stack may go on.
fn stack(program: &Program, registers: &Registers, memory: &dyn Memory) -> (Vec<Avma>, bool) {
    let frames_max = usize::from(program.stack_frames_max).min(STACK_FRAMES_MAX);
    if frames_max == 0 {
        return (Vec::new(), false);
    }
    let mut frames = Vec::with_capacity(frames_max);
    frames.push(registers.rip());
    let mut frame_pointer = registers.word(RBP).unwrap_or(0);
    // Everything of callers is above this.
    let mut above = registers.word(RSP).unwrap_or(0);
    if let Some(place) = &program.return_address {
        if frames.len() == frames_max {
            return (frames, true);
        }
        let Ok(at) = address(place, registers, memory) else { return (frames, true) };
        match word(memory, at) {
            Ok(0) => return (frames, false),
            Ok(return_address) => frames.push(Avma(return_address)),
            Err(_) => return (frames, true),
        }
        above = at.0.saturating_add(8);
        // The function keeps its caller's rbp right below its return address: this link is done.
        if frame_pointer.checked_add(8) == Some(at.0) {
            match word(memory, Avma(frame_pointer)) {
                Ok(next) => frame_pointer = next,
                Err(_) => return (frames, true),
            }
        }
    }
    loop {
        if frame_pointer == 0 {
            return (frames, false);
        }
        if frames.len() == frames_max || frame_pointer < above || !frame_pointer.is_multiple_of(8) {
            return (frames, true);
        }
        let mut link = [0; 16];
        if memory.read(Avma(frame_pointer), &mut link).is_err() {
            return (frames, true);
        }
        let (next, return_address) = link.split_at(8);
        let as_word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        let return_address = as_word(return_address);
        if return_address == 0 {
            return (frames, false);
        }
        frames.push(Avma(return_address));
        above = frame_pointer.saturating_add(16);
        frame_pointer = as_word(next);
    }
}

/// How many elements a word of a [`Follow::Run`] stands for.
fn elements_of(count: Count, word: u64) -> Option<u64> {
    match count {
        Count::Word => i64::try_from(word).is_ok().then_some(word),
        Count::Mask => word.checked_add(1),
        Count::Power => {
            let power = word & 0xff;
            (power <= 62).then(|| 1 << power)
        }
    }
}

/// Where the bytes of a value are.
#[derive(Debug, Clone, Copy)]
enum Source {
    Roots,
    Chunk(usize),
}

/// A value whose pointers are to be followed.
#[derive(Debug, Clone, Copy)]
struct Value {
    source: Source,
    offset: usize,
    follow: FollowIndex,
    depth: u32,
}

struct Capture<'a> {
    program: &'a Program,
    registers: &'a Registers,
    memory: &'a dyn Memory,
    clamp: Clamp,
    roots: Vec<u8>,
    states: Vec<RootState>,
    chunks: Vec<Chunk>,
    bytes_left: usize,
    /// Breadth first: what is near the variables comes before what is far from them.
    queue: VecDeque<Value>,
    steps_left: usize,
    /// Places already followed as a type: lists that lead back to themselves end here.
    followed: HashSet<(u64, u32)>,
}

impl<'a> Capture<'a> {
    fn new(program: &'a Program, registers: &'a Registers, memory: &'a dyn Memory) -> Self {
        let budget = (program.clamp.bytes_per_hit as usize).min(HIT_BYTES_MAX);
        let root_bytes = (program.root_bytes as usize).min(budget);
        Capture {
            program,
            registers,
            memory,
            clamp: program.clamp,
            roots: vec![0; root_bytes],
            states: Vec::with_capacity(program.roots.len()),
            chunks: Vec::new(),
            bytes_left: budget - root_bytes,
            queue: VecDeque::new(),
            steps_left: FOLLOW_STEPS_MAX,
            followed: HashSet::new(),
        }
    }

    fn roots(&mut self) {
        for root in &self.program.roots {
            let state = match root {
                RootRead::Absent => RootState::Absent,
                RootRead::Read { offset, pieces: from, follow } => {
                    let offset = *offset as usize;
                    let bytes = usize::try_from(pieces_bytes(from)).unwrap_or(usize::MAX);
                    let into = match offset.checked_add(bytes) {
                        Some(end) if bytes <= ROOT_BYTES_MAX => self.roots.get_mut(offset..end),
                        _ => None,
                    };
                    match into {
                        None => RootState::OverBudget,
                        Some(into) => match pieces(from, self.registers, self.memory, into) {
                            Ok(()) => {
                                let depth = self.clamp.depth;
                                self.push(Value { source: Source::Roots, offset, follow: *follow, depth });
                                RootState::Captured
                            }
                            Err(fault) => {
                                into.fill(0);
                                RootState::Unreadable(fault.at)
                            }
                        },
                    }
                }
            };
            self.states.push(state);
        }
    }

    fn push(&mut self, value: Value) {
        let plain = matches!(self.program.follow.get(value.follow.0 as usize), None | Some(Follow::Plain));
        if !plain && self.queue.len() < FOLLOW_STEPS_MAX {
            self.queue.push_back(value);
        }
    }

    fn follow(&mut self) {
        while let Some(value) = self.queue.pop_front() {
            if self.steps_left == 0 {
                return;
            }
            self.steps_left -= 1;
            let program = self.program;
            match &program.follow[value.follow.0 as usize] {
                Follow::Plain => {}
                Follow::Pointer { bytes, to } => {
                    let Some(depth) = value.depth.checked_sub(1) else { continue };
                    let Some(at) = self.word(value, 0) else { continue };
                    self.chunk(Avma(at), *bytes, *bytes, *to, 1, 0, depth);
                }
                Follow::GoString => {
                    let (Some(at), Some(length)) = (self.word(value, 0), self.length(value, 8)) else { continue };
                    let clamped = length.min(u64::from(self.clamp.string_bytes));
                    self.chunk(Avma(at), length, clamped, FollowIndex(u32::MAX), 0, 0, value.depth);
                }
                Follow::GoSlice { element_bytes, element } => {
                    let (Some(at), Some(length)) = (self.word(value, 0), self.length(value, 8)) else { continue };
                    // More elements than there is room for: no slice, whatever it is.
                    if self.length(value, 16).is_none_or(|capacity| capacity < length) {
                        continue;
                    }
                    let count = length.min(u64::from(self.clamp.elements));
                    let wanted = length.saturating_mul(*element_bytes);
                    let clamped = count.saturating_mul(*element_bytes);
                    self.chunk(Avma(at), wanted, clamped, *element, count, *element_bytes, value.depth);
                }
                Follow::Array { count, element_bytes, element } => {
                    let count = (*count).min(u64::from(self.clamp.elements));
                    self.elements(value.source, value.offset, *element, count, *element_bytes, value.depth);
                }
                Follow::Struct { fields } => {
                    for (offset, follow) in fields {
                        let Some(offset) = usize::try_from(*offset).ok().and_then(|o| o.checked_add(value.offset))
                        else {
                            continue;
                        };
                        self.push(Value { offset, follow: *follow, ..value });
                    }
                }
                Follow::Run { address_at, count_at, count, element_bytes, element, clamped } => {
                    let at = usize::try_from(*address_at).ok().and_then(|offset| self.word(value, offset));
                    let word = usize::try_from(*count_at).ok().and_then(|offset| self.word(value, offset));
                    let (Some(at), Some(elements)) = (at, word.and_then(|word| elements_of(*count, word))) else {
                        continue;
                    };
                    let most = if *clamped { u64::from(self.clamp.elements) } else { RUN_ELEMENTS_MAX };
                    let number = elements.min(most);
                    let wanted = elements.saturating_mul(*element_bytes);
                    let taken = number.saturating_mul(*element_bytes);
                    self.chunk(Avma(at), wanted, taken, *element, number, *element_bytes, value.depth);
                }
                Follow::Switch { key, value_at, cases, otherwise } => {
                    let Some(key) = self.key(value, *key) else { continue };
                    let found = cases.binary_search_by_key(&key, |&(word, _)| word);
                    let Some(case) = found.map(|index| cases[index].1).ok().or(*otherwise) else { continue };
                    self.case(value, *value_at, case);
                }
            }
        }
    }

    /// The word that a switch goes by. One behind an address is captured with what surrounds it.
    fn key(&mut self, value: Value, key: Key) -> Option<u64> {
        match key {
            Key::Word { at, bytes } => {
                let start = value.offset.checked_add(usize::try_from(at).ok()?)?;
                let word = self.source(value.source).get(start..start.checked_add(usize::from(bytes.min(8)))?)?;
                Some(word.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
            }
            Key::Through { at, offset, bytes } => {
                let address = self.word(value, usize::try_from(at).ok()?)?;
                if address == 0 {
                    return None;
                }
                self.chunk(Avma(address), bytes, bytes, FollowIndex(u32::MAX), 0, 0, value.depth);
                word(self.memory, Avma(address.wrapping_add(offset))).ok()
            }
        }
    }

    fn case(&mut self, value: Value, value_at: u64, case: Case) {
        let Some(offset) = usize::try_from(value_at).ok().and_then(|at| at.checked_add(value.offset)) else { return };
        match case.reach {
            Reach::Here => self.push(Value { offset, follow: case.follow, ..value }),
            Reach::Address { bytes } => {
                let Some(depth) = value.depth.checked_sub(1) else { return };
                let Some(at) = self.word(Value { offset, ..value }, 0) else { return };
                self.chunk(Avma(at), bytes, bytes, case.follow, 1, 0, depth);
            }
        }
    }

    fn elements(&mut self, source: Source, start: usize, follow: FollowIndex, count: u64, size: u64, depth: u32) {
        if matches!(self.program.follow.get(follow.0 as usize), None | Some(Follow::Plain)) {
            return;
        }
        for index in 0..count.min(FOLLOW_STEPS_MAX as u64) {
            let Some(offset) =
                index.checked_mul(size).and_then(|o| usize::try_from(o).ok()).and_then(|o| o.checked_add(start))
            else {
                return;
            };
            self.push(Value { source, offset, follow, depth });
        }
    }

    fn source(&self, source: Source) -> &[u8] {
        match source {
            Source::Roots => &self.roots,
            Source::Chunk(index) => &self.chunks[index].bytes,
        }
    }

    /// A word of a value; `None` where its bytes were not captured.
    fn word(&self, value: Value, offset: usize) -> Option<u64> {
        let start = value.offset.checked_add(offset)?;
        let bytes = self.source(value.source).get(start..start.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// A length or capacity: `None` if it is negative.
    fn length(&self, value: Value, offset: usize) -> Option<u64> {
        self.word(value, offset).filter(|&length| i64::try_from(length).is_ok())
    }

    /// Reads `clamped` of `wanted` bytes at `at`, and goes on with `count` values in it.
    #[expect(clippy::too_many_arguments, reason = "one call per kind of pointer; a struct would only rename them")]
    fn chunk(
        &mut self,
        at: Avma,
        wanted: u64,
        clamped: u64,
        follow: FollowIndex,
        count: u64,
        element_bytes: u64,
        depth: u32,
    ) {
        if at.0 == 0 || wanted == 0 || !self.followed.insert((at.0, follow.0)) {
            return;
        }
        let known = self.chunks.iter().position(|chunk| {
            at.0.checked_sub(chunk.address.0)
                .and_then(|offset| offset.checked_add(clamped))
                .is_some_and(|end| end <= chunk.bytes.len() as u64)
        });
        if let Some(index) = known {
            // It fits: the chunk holds it.
            let offset = (at.0 - self.chunks[index].address.0) as usize;
            self.elements(Source::Chunk(index), offset, follow, count, element_bytes, depth);
            return;
        }
        if self.chunks.len() == HIT_CHUNKS_MAX {
            return;
        }
        let bytes_max = usize::try_from(clamped).unwrap_or(usize::MAX).min(self.bytes_left);
        let mut bytes = vec![0; bytes_max];
        let read = self.memory.read_prefix(at, &mut bytes).min(bytes_max);
        bytes.truncate(read);
        self.bytes_left -= read;
        let end = if read < bytes_max {
            ChunkEnd::Fault
        } else if (read as u64) < wanted {
            ChunkEnd::Limit
        } else {
            ChunkEnd::Complete
        };
        self.chunks.push(Chunk { address: at, wanted_bytes: wanted, bytes, end });
        self.elements(Source::Chunk(self.chunks.len() - 1), 0, follow, count, element_bytes, depth);
    }
}

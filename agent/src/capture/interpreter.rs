//! The interpreter: runs a capture program over registers and memory that somebody else holds still.
//!
//! It is pure: no clock, no counter, no system call of its own. It never panics and its work is bounded whatever the
//! program and the memory hold: bytes, chunks, frames and steps each have a limit. What a limit or a fault kept back is
//! said in the result; there is no zero in place of a value.
//!
//! Not here: counting passages, hit conditions, rates. Those belong to whoever owns the passage.

use super::memory::{Fault, Memory};
use super::program::{Address, Count, Goroutine, GoroutinePointer, Piece, Place, Program, RootRead, StackSlice};
use super::registers::{RBP, RSP, Registers};
use super::walk::{Action, DEPTH_MAX, ITEMS_MAX, STEPS_MAX, SwitchKey, WalkIndex, Walks};
use riptrace_protocol::hit::{Chunk, ChunkEnd, RootState, StackEnd};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::layout::COUNTS_BYTES;
use riptrace_protocol::limits::{HIT_BYTES_MAX, STACK_FRAMES_MAX};
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

pub use super::test::{Truth, Unknown, test};

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
    /// How `stack` ends.
    pub stack_end: StackEnd,
    /// What the callers are to be found in; `stack` has the site only until then.
    pub stack_memory: Option<Box<StackMemory>>,
}

/// The innermost part of a thread's stack, and its registers: see [`super::program::StackSlice`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackMemory {
    /// General-purpose registers by DWARF number, rax to r15.
    pub registers: [u64; STACK_REGISTERS],
    /// Memory from rsp on.
    pub bytes: Vec<u8>,
    /// Bytes that would have been copied at most.
    pub bytes_max: u32,
}

/// Registers of a [`StackMemory`].
pub const STACK_REGISTERS: usize = 16;

/// How frames that were walked end: `is_cut` when the stack goes on, or may go on.
pub(crate) fn end_of_walk(is_cut: bool, frames: usize, frames_max: usize) -> StackEnd {
    match (is_cut, frames >= frames_max) {
        (false, _) => StackEnd::Whole,
        (true, true) => StackEnd::Frames,
        (true, false) => StackEnd::Unknown,
    }
}

/// Copies what the program asks for.
pub fn capture(program: &Program, registers: &Registers, memory: &dyn Memory) -> Captured {
    let walks = Walks::of(program);
    let mut capture = Capture::new(program, &walks, registers, memory);
    capture.roots();
    capture.follow();
    let frames_max = usize::from(program.stack_frames_max).min(STACK_FRAMES_MAX);
    let (stack, stack_memory, is_cut) = match program.stack_slice.filter(|_| frames_max > 0) {
        Some(slice) => (vec![registers.rip()], Some(Box::new(stack_memory(slice, registers, memory))), true),
        None => {
            let (stack, is_cut) = stack(frames_max, program, registers, memory);
            (stack, None, is_cut)
        }
    };
    Captured {
        roots: capture.roots,
        root_states: capture.states,
        chunks: capture.chunks,
        goroutine: program.goroutine.and_then(|goroutine| goroutine_id(goroutine, registers, memory)),
        stack_end: end_of_walk(is_cut, stack.len(), frames_max),
        stack,
        stack_memory,
    }
}

/// Copies the registers and the innermost part of the stack.
fn stack_memory(slice: StackSlice, registers: &Registers, memory: &dyn Memory) -> StackMemory {
    let rsp = registers.word(RSP).unwrap_or(0);
    // An end below rsp is another stack's: it is far away.
    let ends = slice.first_thread_end.into_iter().chain((registers.fs_base != 0).then_some(registers.fs_base));
    let words = ends.fold(u64::from(slice.words_max()), |words, end| words.min(end.wrapping_sub(rsp) / 8));
    let mut bytes = vec![0; words as usize * 8];
    let read = memory.read_prefix(Avma(rsp), &mut bytes);
    bytes.truncate(read / 8 * 8);
    let mut kept = [0; STACK_REGISTERS];
    kept.copy_from_slice(&registers.gpr[..STACK_REGISTERS]);
    StackMemory { registers: kept, bytes, bytes_max: slice.words_max() * 8 }
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
fn stack(frames_max: usize, program: &Program, registers: &Registers, memory: &dyn Memory) -> (Vec<Avma>, bool) {
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

/// How many elements a word of a run stands for.
fn elements_of(count: Count, word: u64, address: u64, element_bytes: u64) -> Option<u64> {
    match count {
        Count::Word | Count::WordBehindCounts => i64::try_from(word).is_ok().then_some(word),
        Count::Mask | Count::MaskBelow => word.checked_add(1),
        Count::Power => {
            let power = word & 0xff;
            (power <= 62).then(|| 1 << power)
        }
        Count::End => {
            let bytes = word.checked_sub(address)?;
            (bytes.checked_rem(element_bytes)? == 0).then(|| bytes / element_bytes)
        }
    }
}

/// Where the bytes of a work item are.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A variable, by its number.
    Root(usize),
    Chunk(usize),
}

/// Values back to back whose pointers are to be followed.
#[derive(Debug, Clone, Copy)]
struct Item {
    source: Source,
    /// They begin here, and end before `end`: what lies outside is not theirs.
    start: usize,
    end: usize,
    walk: WalkIndex,
    count: u64,
    element_bytes: u64,
    depth: u32,
}

/// Memory to be captured, and what is in it.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    at: u64,
    /// Bytes, and how many of them the clamps leave.
    bytes: u64,
    clamped: u64,
    to: Option<WalkIndex>,
    count: u64,
    element_bytes: u64,
    depth: u32,
}

struct Capture<'a> {
    program: &'a Program,
    registers: &'a Registers,
    memory: &'a dyn Memory,
    walks: &'a Walks,
    roots: Vec<u8>,
    states: Vec<RootState>,
    /// What was read of each variable; variables may overlap in `roots`.
    values: Vec<Vec<u8>>,
    chunks: Vec<Chunk>,
    bytes_left: usize,
    /// Breadth first: what is near the variables comes before what is far from them.
    items: Vec<Item>,
    items_left: usize,
    steps_left: usize,
    /// Memory already followed as a type: lists that lead back to themselves end here.
    followed: HashSet<(u64, u64, Option<WalkIndex>)>,
}

impl<'a> Capture<'a> {
    fn new(program: &'a Program, walks: &'a Walks, registers: &'a Registers, memory: &'a dyn Memory) -> Self {
        let budget = (program.bytes_per_hit as usize).min(HIT_BYTES_MAX);
        let root_bytes = (program.root_bytes as usize).min(budget);
        Capture {
            program,
            registers,
            memory,
            walks,
            roots: vec![0; root_bytes],
            states: Vec::with_capacity(program.roots.len()),
            values: Vec::with_capacity(program.roots.len()),
            chunks: Vec::new(),
            bytes_left: budget - root_bytes,
            items: Vec::new(),
            items_left: ITEMS_MAX,
            steps_left: STEPS_MAX,
            followed: HashSet::new(),
        }
    }

    fn roots(&mut self) {
        for (number, root) in self.program.roots.iter().enumerate() {
            let mut value = Vec::new();
            let state = match root {
                RootRead::Absent => RootState::Absent,
                &RootRead::Read { offset, pieces: ref from, follow, depth } => {
                    match root_range(self.program, offset, from).and_then(|range| self.roots.get_mut(range)) {
                        None => RootState::OverBudget,
                        Some(into) => match pieces(from, self.registers, self.memory, into) {
                            Ok(()) => {
                                value = into.to_vec();
                                if let Some(walk) = self.walks.at(follow) {
                                    self.items.push(Item {
                                        source: Source::Root(number),
                                        start: 0,
                                        end: value.len(),
                                        walk,
                                        count: 1,
                                        element_bytes: 0,
                                        depth: depth.min(DEPTH_MAX),
                                    });
                                }
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
            self.values.push(value);
        }
    }

    fn follow(&mut self) {
        let mut next = 0;
        while let Some(&item) = self.items.get(next) {
            next += 1;
            let mut start = item.start;
            for _ in 0..item.count.min(STEPS_MAX as u64) {
                if start >= item.end {
                    break;
                }
                let Some(steps_left) = self.steps_left.checked_sub(1) else { return };
                self.steps_left = steps_left;
                if self.walk(item, start, item.walk).is_break() {
                    return;
                }
                let stride = usize::try_from(item.element_bytes).unwrap_or(usize::MAX);
                start = start.saturating_add(stride);
            }
        }
    }

    /// Does what is to be done in the value at `start` of an item. `Break` when the steps are used up.
    fn walk(&mut self, item: Item, start: usize, walk: WalkIndex) -> ControlFlow<()> {
        let walks = self.walks;
        for step in walks.steps(walk) {
            let Some(steps_left) = self.steps_left.checked_sub(1) else { return ControlFlow::Break(()) };
            self.steps_left = steps_left;
            let at = start + step.at as usize;
            let word = |capture: &Self, offset: usize| capture.word(item, at + offset);
            let nothing =
                Wanted { at: 0, bytes: 0, clamped: 0, to: None, count: 0, element_bytes: 0, depth: item.depth };
            match &step.action {
                &Action::Pointer { bytes, to, cost } => {
                    let Some(depth) = item.depth.checked_sub(u32::from(cost)) else { continue };
                    let Some(at) = word(self, 0) else { continue };
                    self.chunk(Wanted { at, bytes, clamped: bytes, to, count: 1, depth, ..nothing });
                }
                &Action::Text { most } => {
                    let (Some(at), Some(bytes)) = (word(self, 0), word(self, 8).filter(is_length)) else { continue };
                    let clamped = bytes.min(u64::from(most));
                    self.chunk(Wanted { at, bytes, clamped, ..nothing });
                }
                &Action::Slice { element_bytes, most, to } => {
                    let (Some(at), Some(length)) = (word(self, 0), word(self, 8).filter(is_length)) else { continue };
                    // More elements than there is room for: no slice, whatever it is.
                    if word(self, 16).filter(is_length).is_none_or(|capacity| capacity < length) {
                        continue;
                    }
                    let count = length.min(u64::from(most));
                    self.chunk(elements(Wanted { at, to, element_bytes, ..nothing }, length, count));
                }
                &Action::Run { count_at, count: how, element_bytes, most, to } => {
                    let Some(at) = word(self, 0) else { continue };
                    let Some(length) = self.word(item, start + count_at as usize) else { continue };
                    let Some(length) = elements_of(how, length, at, element_bytes) else { continue };
                    let count = length.min(u64::from(most));
                    let at = if how == Count::WordBehindCounts { at.wrapping_add(COUNTS_BYTES) } else { at };
                    let mut wanted = elements(Wanted { at, to, element_bytes, ..nothing }, length, count);
                    if how == Count::MaskBelow {
                        // What is farther from the address is as if it were not there.
                        wanted = Wanted { at: at.wrapping_sub(wanted.clamped), bytes: wanted.clamped, ..wanted };
                    }
                    self.chunk(wanted);
                }
                &Action::Inside { count, element_bytes, to } => {
                    if at < item.end && self.items_left > 0 {
                        self.items_left -= 1;
                        let (count, walk) = (u64::from(count), to);
                        self.items.push(Item { start: at, count, element_bytes, walk, ..item });
                    }
                }
                Action::Switch { key, cases, otherwise } => {
                    let key = match *key {
                        SwitchKey::Word { bytes } => self
                            .bytes(item, at, usize::from(bytes))
                            .map(|bytes| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))),
                        SwitchKey::Through { offset, bytes } => word(self, 0).filter(|&at| at != 0).and_then(|at| {
                            self.chunk(Wanted { at, bytes, clamped: bytes, ..nothing });
                            self::word(self.memory, Avma(at.wrapping_add(offset))).ok()
                        }),
                    };
                    let Some(key) = key else { continue };
                    let found = cases.binary_search_by_key(&key, |&(word, _)| word);
                    if let Some(case) = found.map_or(*otherwise, |index| cases[index].1) {
                        self.walk(item, start, case)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Bytes of a value; `None` where they were not captured.
    fn bytes(&self, item: Item, at: usize, bytes: usize) -> Option<&[u8]> {
        let source = match item.source {
            Source::Root(number) => &self.values[number],
            Source::Chunk(number) => &self.chunks[number].bytes,
        };
        let end = at.checked_add(bytes).filter(|&end| end <= item.end)?;
        source.get(at..end)
    }

    fn word(&self, item: Item, at: usize) -> Option<u64> {
        self.bytes(item, at, 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    /// Captures memory, unless a chunk holds it already, and lists what is in it.
    fn chunk(&mut self, wanted: Wanted) {
        let Wanted { at, bytes, clamped, to, count, element_bytes, depth } = wanted;
        if at == 0 || bytes == 0 || self.items_left == 0 || self.followed.contains(&(at, bytes, to)) {
            return;
        }
        let known = self.chunks.iter().enumerate().find_map(|(number, chunk)| {
            let offset = at.checked_sub(chunk.address.0)?;
            let behind = (chunk.bytes.len() as u64).checked_sub(offset).filter(|&behind| behind > 0)?;
            (clamped <= behind).then_some((number, offset as usize))
        });
        let (source, start, end) = match known {
            Some(_) if to.is_none() || count == 0 => return,
            Some((number, offset)) => (Source::Chunk(number), offset, offset + clamped as usize),
            None => {
                let bytes_max = usize::try_from(clamped).unwrap_or(usize::MAX).min(self.bytes_left);
                let mut into = vec![0; bytes_max];
                let read = self.memory.read_prefix(Avma(at), &mut into).min(bytes_max);
                into.truncate(read);
                self.bytes_left -= read;
                let end = if read < bytes_max {
                    ChunkEnd::Fault
                } else if (read as u64) < bytes {
                    ChunkEnd::Limit
                } else {
                    ChunkEnd::Complete
                };
                self.chunks.push(Chunk { address: Avma(at), wanted_bytes: bytes, bytes: into, end });
                (Source::Chunk(self.chunks.len() - 1), 0, read)
            }
        };
        self.followed.insert((at, bytes, to));
        self.items_left -= 1;
        if let Some(walk) = to {
            self.items.push(Item { source, start, end, walk, count, element_bytes, depth });
        }
    }
}

/// Where a variable is in the roots; `None` if it cannot be.
pub(crate) fn root_range(program: &Program, offset: u32, from: &[Piece]) -> Option<Range<usize>> {
    let budget = (program.bytes_per_hit as usize).min(HIT_BYTES_MAX);
    let root_bytes = (program.root_bytes as usize).min(budget);
    let bytes = usize::try_from(pieces_bytes(from)).ok()?;
    let end = (offset as usize).checked_add(bytes)?;
    (end <= root_bytes).then_some(offset as usize..end)
}

/// A length or capacity is not negative.
fn is_length(word: &u64) -> bool {
    i64::try_from(*word).is_ok()
}

/// `length` elements, of which `count` are taken.
fn elements(wanted: Wanted, length: u64, count: u64) -> Wanted {
    let bytes = length.saturating_mul(wanted.element_bytes);
    let clamped = count.saturating_mul(wanted.element_bytes);
    Wanted { bytes, clamped, count, ..wanted }
}

//! From the bytes of a record to what was captured: bounded by the record's own size, and never a panic.

use super::{
    FLAG_GOROUTINE, FLAG_STACK_TRUNCATED, FLAGS, FRAMES, GOROUTINE, HEADER_BYTES, ITEM_ADDRESS, ITEM_ALIAS, ITEM_BYTES,
    ITEM_DEPTH, ITEM_FAULT, ITEM_GOT, ITEM_WANTED, KIND, LENGTH, RecordLayout, SHORT_STACK_WORDS, THREAD, TSC, USED,
};
use crate::capture::interpreter::{Captured, STACK_REGISTERS, StackMemory, end_of_walk, root_range};
use crate::capture::program::{Program, RootRead};
use riptrace_protocol::hit::{Chunk, ChunkEnd, RootState};
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, STACK_FRAMES_MAX};

/// A record, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Record {
    /// Which site, program and layout.
    pub(in crate::engine) kind: u32,
    /// Time stamp counter; 0 where the process has forbidden itself to read it (PR_SET_TSC, prctl(2)).
    pub(in crate::engine) tsc: u64,
    /// Thread id as the process itself sees it; `None` where it could not be read.
    pub(in crate::engine) thread: Option<u64>,
    /// What was captured.
    pub(in crate::engine) captured: Captured,
}

/// Bytes that are no record of the layout: the process has written over its ring, or the layout is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum RecordError {
    /// It is shorter than a record of its layout.
    #[error("a record has {bytes} bytes, and its layout needs {needed}; the ring was overwritten")]
    Short {
        /// Bytes that there are.
        bytes: usize,
        /// Bytes that are needed.
        needed: usize,
    },
    /// It says that it is longer than it can be.
    #[error("a record says it has {used} of {bytes} bytes in use; the ring was overwritten")]
    Length {
        /// What it says.
        used: usize,
        /// What there is.
        bytes: usize,
    },
    /// More return addresses than the program asks for.
    #[error("a record has {frames} return addresses, and its layout at most {frames_max}; the ring was overwritten")]
    Frames {
        /// How many.
        frames: u16,
        /// How many it may have.
        frames_max: u16,
    },
    /// Fewer words than the registers that the program asks for.
    #[error(
        "a record has {words} words of registers and stack, fewer than there are registers; the ring was overwritten"
    )]
    Registers {
        /// How many.
        words: u16,
    },
    /// A chunk reaches beyond its record, or has more bytes than were wanted.
    #[error("a chunk at byte {at} of a record is longer than it can be; the ring was overwritten")]
    Chunk {
        /// Where in the record.
        at: usize,
    },
    /// More chunks than the program can make.
    #[error("a record has more than {items_max} chunks; the ring was overwritten")]
    Chunks {
        /// How many it may have.
        items_max: u32,
    },
}

/// The bytes of a record, from its commit word on: at least those that it says it occupies.
pub(in crate::engine) fn decode(layout: &RecordLayout, program: &Program, bytes: &[u8]) -> Result<Record, RecordError> {
    let fixed = layout.frames_at as usize;
    let reader = Reader(bytes);
    let short = |needed| RecordError::Short { bytes: bytes.len(), needed };
    if bytes.len() < fixed.max(HEADER_BYTES) {
        return Err(short(fixed));
    }
    let (used, length) = (reader.u32(USED) as usize, reader.u32(LENGTH) as usize);
    if used > length || length > bytes.len() || used > layout.max_bytes as usize {
        return Err(RecordError::Length { used, bytes: bytes.len().min(length) });
    }
    let frames = reader.u16(FRAMES);
    if frames > layout.frames_max {
        return Err(RecordError::Frames { frames, frames_max: layout.frames_max });
    }
    let chunks_at = fixed + usize::from(frames) * 8;
    if used < chunks_at {
        return Err(short(chunks_at));
    }
    let reader = Reader(&bytes[..used]);
    let flags = reader.u16(FLAGS);
    let (roots, root_states) = roots(layout, program, reader);
    let words = (0..usize::from(frames)).map(|frame| reader.u64(fixed + frame * 8));
    let (stack, stack_memory) = stack(layout, program, flags & FLAG_STACK_TRUNCATED != 0, words)?;
    let frames_max = usize::from(program.stack_frames_max).min(STACK_FRAMES_MAX);
    let is_cut = stack_memory.is_some() || flags & FLAG_STACK_TRUNCATED != 0;
    let thread = reader.u64(THREAD);
    Ok(Record {
        kind: reader.u32(KIND),
        tsc: reader.u64(TSC),
        thread: (thread != 0).then_some(thread),
        captured: Captured {
            roots,
            root_states,
            chunks: chunks(layout, reader, chunks_at)?,
            goroutine: (flags & FLAG_GOROUTINE != 0).then(|| reader.u64(GOROUTINE)),
            stack_end: end_of_walk(is_cut, stack.len(), frames_max),
            stack,
            stack_memory,
        },
    })
}

/// The call stack, or what it is to be found in.
fn stack(
    layout: &RecordLayout,
    program: &Program,
    is_short: bool,
    mut words: impl Iterator<Item = u64>,
) -> Result<(Vec<Avma>, Option<Box<StackMemory>>), RecordError> {
    if program.stack_frames_max == 0 {
        return Ok((Vec::new(), None));
    }
    let Some(slice) = program.stack_slice else {
        return Ok((std::iter::once(layout.site).chain(words.map(Avma)).collect(), None));
    };
    let mut registers = [0; STACK_REGISTERS];
    for (number, register) in registers.iter_mut().enumerate() {
        *register = words.next().ok_or(RecordError::Registers { words: number as u16 })?;
    }
    let bytes = words.flat_map(u64::to_le_bytes).collect();
    let words_max = if is_short { SHORT_STACK_WORDS } else { slice.words_max() };
    let memory = StackMemory { registers, bytes, bytes_max: words_max * 8 };
    Ok((vec![layout.site], Some(Box::new(memory))))
}

fn roots(layout: &RecordLayout, program: &Program, reader: Reader<'_>) -> (Vec<u8>, Vec<RootState>) {
    let budget = (program.bytes_per_hit as usize).min(HIT_BYTES_MAX);
    let mut roots = vec![0; (program.root_bytes as usize).min(budget)];
    let states = program.roots.iter().enumerate().map(|(number, root)| {
        let RootRead::Read { offset, pieces, .. } = root else { return RootState::Absent };
        let slot = layout.roots.get(number).copied().flatten();
        let range = root_range(program, *offset, pieces);
        let (Some(slot), Some(into)) = (slot, range.and_then(|range| roots.get_mut(range))) else {
            return RootState::OverBudget;
        };
        let at = slot.at as usize;
        let failed = slot.failed_bit.is_some_and(|bit| {
            let word = reader.u64(HEADER_BYTES + bit as usize / 64 * 8);
            word >> (bit % 64) & 1 != 0
        });
        if failed {
            into.fill(0);
            return RootState::Unreadable(Avma(reader.u64(at)));
        }
        match reader.0.get(at..at + into.len()) {
            Some(bytes) => into.copy_from_slice(bytes),
            // The layout is another program's.
            None => return RootState::OverBudget,
        }
        RootState::Captured
    });
    let states = states.collect();
    (roots, states)
}

fn chunks(layout: &RecordLayout, reader: Reader<'_>, from: usize) -> Result<Vec<Chunk>, RecordError> {
    let mut chunks = Vec::new();
    let mut at = from;
    let mut items = 0;
    while at < reader.0.len() {
        let bytes_at = at + ITEM_BYTES;
        let header = reader.0.get(at..bytes_at).map(Reader).ok_or(RecordError::Chunk { at })?;
        items += 1;
        if items > layout.items_max {
            return Err(RecordError::Chunks { items_max: layout.items_max });
        }
        let got = header.u32(ITEM_GOT) as usize;
        let flags = header.u16(ITEM_DEPTH);
        let bytes = got.checked_add(bytes_at).and_then(|end| reader.0.get(bytes_at..end));
        let bytes = bytes.ok_or(RecordError::Chunk { at })?;
        let wanted_bytes = header.u64(ITEM_WANTED);
        if flags & ITEM_ALIAS == 0 {
            if got as u64 > wanted_bytes {
                return Err(RecordError::Chunk { at });
            }
            let end = if flags & ITEM_FAULT != 0 {
                ChunkEnd::Fault
            } else if (got as u64) < wanted_bytes {
                ChunkEnd::Limit
            } else {
                ChunkEnd::Complete
            };
            let address = Avma(header.u64(ITEM_ADDRESS));
            chunks.push(Chunk { address, wanted_bytes, bytes: bytes.to_vec(), end });
        }
        at = bytes_at + got.next_multiple_of(8);
    }
    Ok(chunks)
}

/// Little-endian words at offsets; zero beyond the end, which the callers have looked at.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = at.checked_add(N).and_then(|end| self.0.get(at..end));
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.word(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.word(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.word(at))
    }
}

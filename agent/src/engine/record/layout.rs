//! Layouts of records: what is where, as far as the program alone decides it.

use super::{HEADER_BYTES, ITEM_BYTES};
use crate::capture::interpreter::{STACK_REGISTERS, pieces_bytes, root_range};
use crate::capture::program::{Piece, Place, Program, RootRead, STACK_SLICE_BYTES_MAX};
use crate::capture::walk::{Extent, ITEMS_MAX, Walks, extent};
use crate::engine::area::RING_BYTES;
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::{HIT_BYTES_MAX, STACK_FRAMES_MAX};

/// Bytes of one record, at most: roots and chunks of the largest hit with all their headers; a fraction of a ring.
const RECORD_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(RECORD_BYTES_MAX * 2 <= RING_BYTES);

/// Why a program has no records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum LayoutError {
    /// Its variables lie over each other, so that all of them do not fit a record.
    #[error("the variables of one hit take {bytes} bytes, more than {RECORD_BYTES_MAX}; capture fewer")]
    Roots {
        /// Bytes that they take.
        bytes: usize,
    },
}

/// What the records of one program at one site look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct RecordLayout {
    /// Address of the site: the innermost program counter.
    pub(in crate::engine) site: Avma,
    /// Bytes of the ring that a passage reserves: a multiple of 8, far below [`RING_BYTES`].
    pub(in crate::engine) max_bytes: u32,
    /// One per variable of the program; `None` where nothing is read.
    pub(in crate::engine) roots: Vec<Option<RootSlot>>,
    /// Words of bits for the variables that may be unreadable.
    pub(in crate::engine) failed_words: u32,
    /// Where the call stack begins; behind it come the chunks.
    pub(in crate::engine) frames_at: u32,
    /// Words of call stack, at most, the site itself not among them; or of registers and stack.
    pub(in crate::engine) frames_max: u16,
    /// Work items, at most.
    pub(in crate::engine) items_max: u32,
    /// Bytes of chunks, at most.
    pub(in crate::engine) chunk_bytes_max: u32,
    /// What is followed.
    pub(in crate::engine) walks: Walks,
}

/// Where a variable is in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct RootSlot {
    /// Offset in the record, a multiple of 8. The slot has `bytes` rounded up to a multiple of 8, and at least 8.
    pub(in crate::engine) at: u32,
    /// Its size.
    pub(in crate::engine) bytes: u32,
    /// Its bit, if reading it may fail.
    pub(in crate::engine) failed_bit: Option<u32>,
}

impl RootSlot {
    /// Bytes of the slot.
    pub(in crate::engine) fn room(&self) -> u32 {
        self.bytes.next_multiple_of(8).max(8)
    }
}

impl RecordLayout {
    /// The layout for a program at a site.
    pub(in crate::engine) fn of(program: &Program, site: Avma) -> Result<RecordLayout, LayoutError> {
        let mut bits = 0;
        let sized: Vec<Option<RootSlot>> = program
            .roots
            .iter()
            .map(|root| match root {
                RootRead::Read { offset, pieces, .. } if root_range(program, *offset, pieces).is_some() => {
                    let failed_bit = pieces.iter().any(may_fail).then(|| {
                        bits += 1;
                        bits - 1
                    });
                    Some(RootSlot { at: 0, bytes: pieces_bytes(pieces) as u32, failed_bit })
                }
                _ => None,
            })
            .collect();
        let failed_words = bits.div_ceil(64);
        let mut at = HEADER_BYTES + failed_words as usize * 8;
        let mut roots = sized;
        for slot in roots.iter_mut().flatten() {
            slot.at = u32::try_from(at).unwrap_or(u32::MAX);
            at += slot.room() as usize;
        }
        let frames = match (program.stack_frames_max, program.stack_slice) {
            (0, _) => 0,
            (_, Some(slice)) => STACK_REGISTERS + slice.words_max() as usize,
            (frames, None) => usize::from(frames).min(STACK_FRAMES_MAX) - 1,
        };
        let walks = Walks::of(program);
        let followed = program.roots.iter().zip(&roots).filter_map(|(root, slot)| match root {
            RootRead::Read { follow, depth, .. } if slot.is_some() => Some((walks.at(*follow)?, *depth)),
            _ => None,
        });
        let Extent { items, bytes } = extent(&walks, followed);
        let budget = (program.bytes_per_hit as usize).min(HIT_BYTES_MAX);
        let chunk_bytes = (bytes as usize).min(budget - (program.root_bytes as usize).min(budget));
        // Each chunk is padded to a multiple of 8.
        let fixed = at + frames * 8;
        let max_bytes = fixed + items as usize * (ITEM_BYTES + 7) + chunk_bytes;
        if max_bytes > RECORD_BYTES_MAX {
            return Err(LayoutError::Roots { bytes: at });
        }
        Ok(RecordLayout {
            site,
            max_bytes: (max_bytes as u32).next_multiple_of(8),
            roots,
            failed_words,
            frames_at: at as u32,
            frames_max: frames as u16,
            items_max: items,
            chunk_bytes_max: chunk_bytes as u32,
            walks,
        })
    }
}

/// Whether a piece may turn out to be unreadable: it is in memory, or in no register that there is.
fn may_fail(piece: &Piece) -> bool {
    match &piece.place {
        Place::Register(register) => match register.0 {
            0..=16 => piece.bytes > 8,
            17..=32 => piece.bytes > 16,
            _ => true,
        },
        Place::Memory(_) => true,
        Place::Constant(bytes) => piece.bytes as usize > bytes.len(),
    }
}

const _: () =
    assert!(ITEMS_MAX * (ITEM_BYTES + 7) + 2 * HIT_BYTES_MAX + (STACK_SLICE_BYTES_MAX as usize) < RECORD_BYTES_MAX);
const _: () = assert!(STACK_REGISTERS + (STACK_SLICE_BYTES_MAX as usize / 8) < u16::MAX as usize);

//! The memory that a hit brought along: chunks, which may overlap, and into whose middle a pointer may point.

use crate::hit::{Chunk, ChunkEnd};
use crate::value::Status;

/// Why there are no more bytes than there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All that was asked for is there.
    Whole,
    /// A limit of the tracepoint cut it.
    Limit,
    /// Memory at this address could not be read.
    Fault(u64),
    /// Nothing captured it.
    Uncovered,
    /// The capture is smaller than its layout says.
    Mismatch,
}

/// Bytes of a value, or the first of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// What is there.
    pub(super) bytes: &'a [u8],
    /// Why there is no more.
    pub(super) end: End,
    /// Where it was in the target, where that is known.
    pub(super) address: Option<u64>,
}

impl<'a> Place<'a> {
    /// A part of the value; what lies beyond its bytes is missing for the same reason.
    pub(super) fn part(&self, offset: u64, bytes: u64) -> Place<'a> {
        let available = self.bytes.len() as u64;
        let start = offset.min(available);
        let end = offset.saturating_add(bytes).min(available);
        // Both fit the length of a slice.
        let part = &self.bytes[start as usize..end as usize];
        let why = match self.end {
            _ if part.len() as u64 == bytes => End::Whole,
            End::Whole => End::Mismatch,
            end => end,
        };
        Place { bytes: part, end: why, address: self.address.and_then(|address| address.checked_add(offset)) }
    }

    /// The first `N` bytes, or the reason why they are not there.
    pub(super) fn array<const N: usize>(&self) -> Result<[u8; N], Status> {
        match self.bytes.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => Err(missing(if self.end == End::Whole { End::Mismatch } else { self.end })),
        }
    }

    /// The word at `offset`, little-endian as on every machine that RipTrace traces.
    pub(super) fn word(&self, offset: u64) -> Result<u64, Status> {
        self.part(offset, 8).array().map(u64::from_le_bytes)
    }
}

/// The status of a value whose bytes ended before its own.
pub(super) fn missing(end: End) -> Status {
    let detail = match end {
        End::Fault(address) => return Status::Unreadable { detail: format!("{address:#x}") },
        End::Limit => "it lies beyond a limit of the tracepoint",
        End::Uncovered => "its memory was not captured",
        End::Whole | End::Mismatch => "the capture does not fit its layout",
    };
    Status::NotCaptured { detail: detail.to_owned() }
}

/// What is there of the `bytes` bytes at `address`: of the chunks that hold its start, the one that holds most of it.
pub(super) fn read(chunks: &[Chunk], address: u64, bytes: u64) -> Place<'_> {
    let nothing = Place { bytes: &[], end: End::Uncovered, address: Some(address) };
    if bytes == 0 {
        return Place { end: End::Whole, ..nothing };
    }
    let mut best = nothing;
    for chunk in chunks {
        let Some(offset) = address.checked_sub(chunk.address.0) else {
            continue;
        };
        let held = chunk.bytes.len() as u64;
        if offset >= held.max(chunk.wanted_bytes) {
            continue;
        }
        let start = offset.min(held);
        let end = offset.saturating_add(bytes).min(held);
        let part = &chunk.bytes[start as usize..end as usize];
        let why = match chunk.end {
            _ if part.len() as u64 == bytes => End::Whole,
            ChunkEnd::Fault => End::Fault(chunk.address.0.saturating_add(held)),
            ChunkEnd::Limit => End::Limit,
            // The chunk was captured for something smaller.
            ChunkEnd::Complete => End::Uncovered,
        };
        if best.end == End::Uncovered && best.bytes.is_empty() || part.len() > best.bytes.len() {
            best = Place { bytes: part, end: why, address: Some(address) };
        }
    }
    best
}

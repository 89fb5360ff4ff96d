//! One function, analysed.

use super::choice::{self, SiteChoice};
use super::facts::{Entry, FunctionFacts};
use super::sweep::{Sweep, sweep};
use super::{denied, facts};

/// Largest function that is analysed, in bytes: ten times the largest met (generated initialisers of 1.5 MB). An
/// analysis takes four times this memory.
pub const FUNCTION_BYTES_MAX: usize = 16 << 20;

/// Bytes that cannot be a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// There are none.
    #[error("the function has no code; choose a place in another function")]
    Empty,
    /// More than [`FUNCTION_BYTES_MAX`].
    #[error(
        "the function has {bytes} bytes, and functions of up to {FUNCTION_BYTES_MAX} are analysed; trace the code that calls it"
    )]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Its end is before its start, or behind the bytes that were given.
    #[error(
        "the function's end {end:#x} is not within its code, which is at {start:#x} and has {bytes} bytes; the symbol table is damaged: rebuild the executable"
    )]
    BadEnd {
        /// First byte.
        start: u64,
        /// As the facts say.
        end: u64,
        /// How many were given.
        bytes: usize,
    },
}

/// A decoded function, which answers what patch each of its addresses can take.
#[derive(Debug)]
pub struct FunctionAnalysis {
    pub(super) start: u64,
    /// Bytes of the function, without the padding behind it.
    pub(super) length: usize,
    pub(super) sweep: Sweep,
    /// The bytes, with those of the padding.
    pub(super) code: Box<[u8]>,
    pub(super) denied: Option<&'static str>,
    /// Those restartable sequences that the function has a part in.
    pub(super) restartable: Vec<std::ops::Range<u64>>,
}

impl FunctionAnalysis {
    /// Decodes a function.
    ///
    /// `code`: its original bytes, from its first to the last byte of the padding behind it (or to its end).
    /// `start`: address of the first byte, of the same kind as those in `facts`.
    ///
    /// # Errors
    /// [`AnalysisError`], when the bytes cannot be a function. Bytes that are no instructions are none: sites before
    /// them can still be traced.
    pub fn of(code: &[u8], start: u64, facts: &FunctionFacts<'_>) -> Result<FunctionAnalysis, AnalysisError> {
        if code.is_empty() {
            return Err(AnalysisError::Empty);
        }
        if code.len() > FUNCTION_BYTES_MAX {
            return Err(AnalysisError::TooLong { bytes: code.len() });
        }
        let bad_end = AnalysisError::BadEnd { start, end: facts.end, bytes: code.len() };
        // No function reaches the end of the address space; so sums below do not overflow.
        let last = start.checked_add(code.len() as u64).ok_or(bad_end)?;
        if facts.end <= start || facts.end > last {
            return Err(bad_end);
        }
        let length = (facts.end - start) as usize;
        let restartable =
            facts.restartable.iter().filter(|range| range.start < facts.end && range.end > start).cloned().collect();
        Ok(FunctionAnalysis {
            start,
            length,
            sweep: sweep(code, start, length, facts),
            code: code.into(),
            denied: denied::denied_function(facts.name, facts.language),
            restartable,
        })
    }

    /// Which patch a site at `address` can take, and why not a cheaper one.
    pub fn site(&self, address: u64) -> SiteChoice {
        choice::site(self, address)
    }

    /// The function's addresses.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.length as u64
    }

    /// Where instructions begin, in order.
    pub fn boundaries(&self) -> impl Iterator<Item = u64> {
        let cells = self.sweep.cells[..self.length].iter().enumerate();
        cells.filter(|(_, cell)| cell.length != 0).map(|(offset, _)| self.start + offset as u64)
    }

    /// Length of the instruction at `address`; `None` where none begins.
    pub fn instruction_bytes(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let cell = self.sweep.cells[..self.length].get(offset)?;
        (cell.length != 0).then_some(usize::from(cell.length))
    }

    /// Addresses within the function where somebody may arrive other than from the instruction before, in order:
    /// branch targets, entries of jump tables, landing pads, and where `recover` goes on.
    pub fn targets(&self) -> impl Iterator<Item = u64> {
        let cells = self.sweep.cells[..self.length].iter().enumerate();
        cells.filter(|(_, cell)| cell.is_entered()).map(|(offset, _)| self.start + offset as u64)
    }

    /// Whether an indirect jump may lead to any instruction, for all that is known.
    pub fn has_unknown_targets(&self) -> bool {
        self.sweep.any_target
    }

    /// Ways into other functions that its code shows: branches, addresses that it takes, what its jump tables hold.
    pub fn outgoing(&self) -> &[Entry] {
        &self.sweep.outgoing
    }

    /// Where the first bytes are that are no instruction, if there are any.
    pub fn undecoded(&self) -> Option<u64> {
        self.sweep.undecoded.map(|offset| self.start + offset as u64)
    }

    pub(super) fn is_restartable(&self, address: u64) -> bool {
        facts::holds(&self.restartable, address)
    }
}

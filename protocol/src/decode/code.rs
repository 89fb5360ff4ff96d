//! Addresses of code that a hit has in its values: which they are, and what they stand for.
//!
//! An address is resolved where the build is, and its frames travel like those of the stack, once
//! ([`crate::batch::FrameEntry`], [`crate::stream::StreamFrames`]). Which addresses a hit has is read from the hit by
//! all who handle it, so it is not told.
//!
//! It names candidates: a word that only looks like an address of code is looked up, and nothing is found.

use crate::hit::{ChunkEnd, Frame, RawHit, RootState};
use crate::ids::Avma;
use crate::layout::{Layout, Root, TypeKind};
use std::fmt::Debug;

/// Addresses of code in one hit, at most: a struct of callbacks, and a few slices of them.
pub const CODE_ADDRESSES_MAX: usize = 32;

/// Names for addresses of code in the process of a hit.
pub trait CodeNames: Debug {
    /// The frames at an address, innermost first; `None` where nothing is known of it.
    fn frames(&self, address: Avma) -> Option<&[Frame]>;
}

/// Where the hits of one layout have addresses of code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeWords {
    /// Offsets in the roots of words that are addresses behind calls, each with its variable's number.
    behind_calls: Vec<(usize, usize)>,
    has_functions: bool,
}

impl CodeWords {
    /// Finds out.
    pub fn of(layout: &Layout) -> CodeWords {
        let mut behind_calls = Vec::new();
        for (number, variable) in layout.variables.iter().enumerate() {
            let Root::Whole { offset, .. } = variable.root else { continue };
            let Some(TypeKind::Struct { fields }) = layout.ty(variable.ty).map(|ty| &ty.kind) else { continue };
            let at = fields
                .iter()
                .filter(|field| matches!(layout.ty(field.ty).map(|ty| &ty.kind), Some(TypeKind::ReturnAddress)))
                .filter_map(|field| usize::try_from(u64::from(offset).checked_add(field.offset)?).ok());
            behind_calls.extend(at.take(CODE_ADDRESSES_MAX).map(|at| (number, at)));
        }
        let has_functions = layout.types.iter().any(|ty| matches!(ty.kind, TypeKind::GoFunc { .. }));
        CodeWords { behind_calls, has_functions }
    }

    /// Whether no hit has any.
    pub fn is_empty(&self) -> bool {
        self.behind_calls.is_empty() && !self.has_functions
    }

    /// The addresses that are to be looked up for a hit, as [`CodeNames::frames`] is asked for them;
    /// [`CODE_ADDRESSES_MAX`] at most.
    pub fn addresses(&self, raw: &RawHit) -> Vec<Avma> {
        let mut found: Vec<Avma> = Vec::new();
        let mut add = |address: u64| {
            if address != 0 && found.len() < CODE_ADDRESSES_MAX && !found.contains(&Avma(address)) {
                found.push(Avma(address));
            }
        };
        let word =
            |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.first_chunk()).map(|&word| u64::from_le_bytes(word));
        for &(number, at) in &self.behind_calls {
            let is_there = raw.root_states.get(number) == Some(&RootState::Captured);
            if let Some(address) = word(raw.roots.get(at..)).filter(|_| is_there) {
                add(address.saturating_sub(1));
            }
        }
        if self.has_functions {
            // What a function value points to begins with the address of the code, which is captured as one word.
            let words = raw.chunks.iter().filter(|chunk| chunk.wanted_bytes == 8 && chunk.end == ChunkEnd::Complete);
            words.filter_map(|chunk| word(Some(&chunk.bytes))).for_each(add);
        }
        found
    }
}

/// A frame as a person reads it: `main.serve at server.go:12`.
pub(super) fn written(frame: &Frame) -> String {
    let function = super::text::short_type(&frame.function);
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    if file.is_empty() { function } else { format!("{function} at {file}:{}", frame.line) }
}

//! What a binary tells about one function, beyond the function's own bytes.

use std::ops::Range;

/// What a function was compiled from; the two have different runtimes and so different ways into their middles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Go, its assembly included.
    Go,
    /// C, C++, Rust and their like.
    Native,
}

/// How somebody may arrive at an address without a branch of the function itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A word in a data section points there: an absolute jump table, a computed goto, a function pointer.
    Pointer,
    /// The unwinder goes there with an exception.
    LandingPad,
    /// Code of another function branches there: a cold part, hand-written assembly.
    Branch,
    /// Perhaps somebody does: a jump table of unknown length, or bytes between functions that may be code. Counts only
    /// where an instruction begins.
    Guess,
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Where it leads.
    pub address: u64,
    /// What uses it.
    pub kind: EntryKind,
}

/// The data sections of a binary, for jump tables that hold offsets.
#[derive(Debug, Default, Clone)]
pub struct Data {
    /// Address and content, by address; none overlap.
    sections: Vec<(u64, Vec<u8>)>,
}

impl Data {
    /// From sections in any order; one that overlaps an earlier one is left out.
    pub fn new(mut sections: Vec<(u64, Vec<u8>)>) -> Data {
        sections.sort_by_key(|(address, _)| *address);
        let mut free_from = 0;
        sections.retain(|(address, content)| {
            let Some(end) = address.checked_add(content.len() as u64) else { return false };
            let is_free = *address >= free_from;
            if is_free {
                free_from = end;
            }
            is_free
        });
        Data { sections }
    }

    /// The sections, by address.
    pub fn sections(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.sections.iter().map(|(address, content)| (*address, content.as_slice()))
    }

    /// What is stored from an address to the end of its section; empty where nothing is.
    pub fn at(&self, address: u64) -> &[u8] {
        let after = self.sections.partition_point(|(start, _)| *start <= address);
        let Some((start, content)) = self.sections[..after].last() else { return &[] };
        usize::try_from(address - start).ok().and_then(|into| content.get(into..)).unwrap_or_default()
    }
}

/// What the binary tells about one function. All addresses are of the same kind as the function's start: either the
/// binary's own (Svma) or those of one process.
#[derive(Debug, Clone, Copy)]
pub struct FunctionFacts<'a> {
    /// As the symbol table or the debug information calls it; empty when it has no name.
    pub name: &'a str,
    /// What it was compiled from.
    pub language: Language,
    /// First address behind its last instruction. The code that is analysed may go on behind it, up to the next
    /// function at most: that is padding, which a patch may cover if it is one.
    pub end: u64,
    /// Ways into the function and the padding behind it that its own instructions do not show, by address. Those to
    /// its first instruction may be left out.
    pub entries: &'a [Entry],
    /// Whether `entries` has all of them. If not, every instruction may be arrived at.
    pub entries_complete: bool,
    /// For jump tables that hold offsets.
    pub data: &'a Data,
    /// Where code is, in all of the binary, by address: what a jump table's entry may point to.
    pub text: &'a [Range<u64>],
    /// Whether the binary is position-independent: constants in its code are never addresses then.
    pub position_independent: bool,
    /// Go: where `runtime.deferreturn` is. `recover` goes on at a call of it (`runtime.recovery`, src/runtime/panic.go).
    pub deferreturn: Option<u64>,
    /// Restartable sequences (`struct rseq_cs`, linux/rseq.h): the kernel restarts them by where the instruction
    /// pointer is, so nothing of them may run elsewhere.
    pub restartable: &'a [Range<u64>],
}

/// Whether sorted ranges hold an address.
pub(super) fn holds(ranges: &[Range<u64>], address: u64) -> bool {
    let after = ranges.partition_point(|range| range.start <= address);
    ranges[..after].last().is_some_and(|range| address < range.end)
}

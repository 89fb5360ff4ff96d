//! What a binary tells about one function, beyond the function's own bytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

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
#[derive(Debug, Default)]
pub struct Data {
    /// By address; none overlap.
    sections: Vec<Section>,
}

/// One section, in memory or still in its file.
#[derive(Debug)]
struct Section {
    address: u64,
    bytes: u64,
    file: Option<(Arc<File>, u64)>,
    content: OnceLock<Vec<u8>>,
}

impl Section {
    /// Reads the content from the file when it is first asked for; empty where that fails.
    fn content(&self) -> &[u8] {
        self.content.get_or_init(|| {
            let mut content = vec![0; usize::try_from(self.bytes).unwrap_or_default()];
            match &self.file {
                Some((file, offset)) if file.read_exact_at(&mut content, *offset).is_ok() => content,
                _ => Vec::new(),
            }
        })
    }
}

impl Data {
    /// From sections in any order; one that overlaps an earlier one is left out.
    pub fn new(sections: Vec<(u64, Vec<u8>)>) -> Data {
        let held = |(address, content): (u64, Vec<u8>)| {
            let bytes = content.len() as u64;
            Section { address, bytes, file: None, content: OnceLock::from(content) }
        };
        Data::of(sections.into_iter().map(held).collect())
    }

    /// From sections of a file as address, offset and size, read when they are first asked for. All are in the file.
    pub fn in_file(file: &Arc<File>, sections: Vec<(u64, u64, u64)>) -> Data {
        let stored = |(address, offset, bytes)| {
            let file = Some((Arc::clone(file), offset));
            Section { address, bytes, file, content: OnceLock::new() }
        };
        Data::of(sections.into_iter().map(stored).collect())
    }

    fn of(mut sections: Vec<Section>) -> Data {
        sections.sort_by_key(|section| section.address);
        let mut free_from = 0;
        sections.retain(|section| {
            let Some(end) = section.address.checked_add(section.bytes) else { return false };
            let is_free = section.address >= free_from;
            if is_free {
                free_from = end;
            }
            is_free
        });
        Data { sections }
    }

    /// Hands over all content in pieces, by address; what is still in the file does not stay in memory.
    pub fn scan(&self, mut take: impl FnMut(u64, &[u8])) {
        /// A multiple of a page, so that words do not fall between pieces.
        const PIECE_BYTES: usize = 256 << 10;
        let mut buffer = Vec::new();
        for section in &self.sections {
            let (Some((file, offset)), None) = (&section.file, section.content.get()) else {
                take(section.address, section.content());
                continue;
            };
            // The first piece ends where a whole one would, so that all others begin at a multiple of a word.
            let mut at = 0;
            while at < section.bytes {
                let to_end = PIECE_BYTES as u64 - (section.address + at) % PIECE_BYTES as u64;
                let bytes = to_end.min(section.bytes - at);
                buffer.resize(bytes as usize, 0);
                if file.read_exact_at(&mut buffer, offset + at).is_err() {
                    break;
                }
                take(section.address + at, &buffer);
                at += bytes;
            }
        }
    }

    /// What is stored from an address to the end of its section; empty where nothing is.
    pub fn at(&self, address: u64) -> &[u8] {
        let after = self.sections.partition_point(|section| section.address <= address);
        let Some(section) = self.sections[..after].last().filter(|section| address - section.address < section.bytes)
        else {
            return &[];
        };
        usize::try_from(address - section.address)
            .ok()
            .and_then(|into| section.content().get(into..))
            .unwrap_or_default()
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

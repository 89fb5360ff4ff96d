//! What a look at all of a file has found: its functions, and the ways into them; searched in place, so that it can be kept
//! on disk.
//!
//! ```text
//! header      HEADER_WORDS words: functions, entries, bytes of names, what else is known
//! functions   start, end, begin and end of the name in the names; by start, none overlap
//! entries     address, kind; by address
//! names
//! ```
//! Words have 8 bytes, little endian; `u64::MAX` stands for what there is none of.

use super::binary::Function;
use super::facts::{Entry, EntryKind};
use crate::target::{Content, Table, bytes_of};
use std::ops::Range;
use std::sync::Arc;

/// Words before the functions.
const HEADER_WORDS: usize = 7;
/// A word that stands for nothing.
const NONE: u64 = u64::MAX;

/// What was found, before it is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// By address; none overlap.
    pub(super) functions: Vec<Function>,
    /// Pointers, landing pads, and symbols within functions; by address.
    pub(super) entries: Vec<Entry>,
    pub(super) entries_complete: bool,
    /// Go's code, where there is some.
    pub(super) go: Option<Range<u64>>,
    /// Where `runtime.deferreturn` is.
    pub(super) deferreturn: Option<u64>,
}

impl Made {
    /// As it is kept.
    pub(super) fn encoded(&self) -> Vec<u8> {
        let names: usize = self.functions.iter().map(|function| function.name.len()).sum();
        let (go_start, go_end) = self.go.as_ref().map_or((NONE, NONE), |go| (go.start, go.end));
        let mut bytes = bytes_of([
            self.functions.len() as u64,
            self.entries.len() as u64,
            names as u64,
            u64::from(self.entries_complete),
            go_start,
            go_end,
            self.deferreturn.unwrap_or(NONE),
        ]);
        bytes.reserve_exact(self.functions.len() * 32 + self.entries.len() * 16 + names);
        let mut name_at = 0u64;
        for Function { range, name } in &self.functions {
            let name_end = name_at + name.len() as u64;
            bytes.extend(bytes_of([range.start, range.end, name_at, name_end]));
            name_at = name_end;
        }
        for Entry { address, kind } in &self.entries {
            bytes.extend(bytes_of([*address, number_of(*kind)]));
        }
        self.functions.iter().for_each(|function| bytes.extend(function.name.as_bytes()));
        bytes
    }
}

fn number_of(kind: EntryKind) -> u64 {
    match kind {
        EntryKind::Pointer => 0,
        EntryKind::LandingPad => 1,
        EntryKind::Branch => 2,
        EntryKind::Guess => 3,
    }
}

/// A number of a later version means what is worst: that somebody goes there.
fn kind_of(number: u64) -> EntryKind {
    match number {
        0 => EntryKind::Pointer,
        1 => EntryKind::LandingPad,
        3 => EntryKind::Guess,
        _ => EntryKind::Branch,
    }
}

/// What is known of a file.
#[derive(Debug)]
pub(super) struct Known {
    content: Arc<Content>,
    functions: Table<4>,
    entries: Table<2>,
    names: Range<usize>,
    pub(super) entries_complete: bool,
    pub(super) go: Option<Range<u64>>,
    pub(super) deferreturn: Option<u64>,
}

impl Known {
    /// `None` for what is not as [`Made::encoded`] makes it.
    pub(super) fn of(content: Content) -> Option<Known> {
        let content = Arc::new(content);
        let [functions, entries, names, complete, go_start, go_end, deferreturn] =
            Table::<HEADER_WORDS>::within(&content, 0, 1)?.row(0)?;
        let functions = Table::within(&content, HEADER_WORDS * 8, usize::try_from(functions).ok()?)?;
        let entries_at = HEADER_WORDS * 8 + functions.len() * Table::<4>::ROW_BYTES;
        let entries = Table::within(&content, entries_at, usize::try_from(entries).ok()?)?;
        let names_at = entries_at + entries.len() * Table::<2>::ROW_BYTES;
        let names = names_at..names_at.checked_add(usize::try_from(names).ok()?)?;
        (names.end == content.len()).then_some(Known {
            content,
            functions,
            entries,
            names,
            entries_complete: complete == 1,
            go: (go_start != NONE).then_some(go_start..go_end),
            deferreturn: Some(deferreturn).filter(|at| *at != NONE),
        })
    }

    /// All functions, by address.
    pub(super) fn functions(&self) -> impl ExactSizeIterator<Item = Function> + '_ {
        (0..self.functions.len()).map(|number| self.function(number).unwrap_or_default())
    }

    pub(super) fn function(&self, number: usize) -> Option<Function> {
        let [start, end, name, name_end] = self.functions.row(number)?;
        let names = self.content.get(self.names.clone()).unwrap_or_default();
        let name = names.get(usize::try_from(name).ok()?..usize::try_from(name_end).ok()?).unwrap_or_default();
        Some(Function { range: start..end.max(start), name: String::from_utf8_lossy(name).into_owned() })
    }

    /// The number of the function that holds an address.
    pub(super) fn number_at(&self, address: u64) -> Option<usize> {
        let number = self.functions.partition_point(|[start, ..]| start <= address).checked_sub(1)?;
        let [_, end, ..] = self.functions.row(number)?;
        (address < end).then_some(number)
    }

    /// Where the first function begins that begins at an address or behind it.
    pub(super) fn first_start(&self, address: u64) -> Option<u64> {
        let next = self.functions.partition_point(|[start, ..]| start < address);
        self.functions.row(next).map(|[start, ..]| start)
    }

    /// The ways in that lead to some addresses, by address.
    pub(super) fn entries(&self, range: Range<u64>) -> Vec<Entry> {
        let from = self.entries.partition_point(|[address, _]| address < range.start);
        let to = self.entries.partition_point(|[address, _]| address < range.end);
        self.entries.rows(from..to).map(|[address, kind]| Entry { address, kind: kind_of(kind) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Made {
        let function = |range, name: &str| Function { range, name: name.to_owned() };
        let entry = |address, kind| Entry { address, kind };
        Made {
            functions: vec![
                function(0x1000..0x1040, "main.main"),
                function(0x1040..0x1050, ""),
                function(0x1080..0x1100, "gr\u{f6}\u{df}e"),
            ],
            entries: vec![
                entry(0x1004, EntryKind::Pointer),
                entry(0x1004, EntryKind::Guess),
                entry(0x1044, EntryKind::LandingPad),
                entry(0x1099, EntryKind::Branch),
            ],
            entries_complete: true,
            go: Some(0x1000..0x1050),
            deferreturn: None,
        }
    }

    #[test]
    fn what_is_kept_is_what_was_found() {
        let made = made();
        let known = Known::of(Content::Held(made.encoded())).unwrap();
        assert_eq!(known.functions().collect::<Vec<_>>(), made.functions);
        assert_eq!(known.entries(0..u64::MAX), made.entries);
        assert_eq!((known.go.clone(), known.deferreturn, known.entries_complete), (made.go.clone(), None, true));
        let numbers = [0xfff, 0x1000, 0x103f, 0x1040, 0x1050, 0x107f, 0x10ff, 0x1100].map(|at| known.number_at(at));
        assert_eq!(numbers, [None, Some(0), Some(0), Some(1), None, None, Some(2), None]);
        assert_eq!([0x1000, 0x1001, 0x1081].map(|at| known.first_start(at)), [Some(0x1000), Some(0x1040), None]);
        assert_eq!(known.entries(0x1004..0x1044), made.entries[..2]);
        let nothing = Made { functions: Vec::new(), entries: Vec::new(), go: None, deferreturn: Some(7), ..made };
        let known = Known::of(Content::Held(nothing.encoded())).unwrap();
        assert_eq!((known.functions().len(), known.number_at(0), known.go.clone()), (0, None, None));
        assert_eq!(known.deferreturn, Some(7));
    }

    #[test]
    fn what_was_not_written_by_this_is_not_taken() {
        let whole = made().encoded();
        for length in 0..whole.len() {
            assert!(Known::of(Content::Held(whole[..length].to_vec())).is_none(), "{length} bytes");
        }
        assert!(Known::of(Content::Held([&whole[..], b"x"].concat())).is_none());
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            let Some(known) = Known::of(Content::Held(damaged)) else { continue };
            for function in known.functions() {
                known.number_at(function.range.start);
                known.entries(function.range);
            }
        }
    }
}

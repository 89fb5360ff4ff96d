//! The first index of a build: its units, the addresses they cover and the files their line programs name.
//!
//! It reads one entry and one line program header per unit, and keeps what it found on disk. Lines and functions of a unit
//! are read when a question first needs them, and kept in memory.
//!
//! Invariants: units are in the order of their offsets; a unit that cannot be read fails the whole index, because a
//! site that is silently missed would be a lie.

use super::ResolveError;
use super::cache;
use super::debug_info::{self, Bytes, Die, Sections, Unit};
use super::functions::Functions;
use super::lines::Lines;
use gimli::{Abbreviations, DebugInfoOffset, DebugTypeSignature, UnitHeader, UnitOffset, UnitType};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Most address ranges of one unit that are read: a unit has one per function at most.
const UNIT_RANGES_MAX: usize = 1 << 20;
/// Name of the piece in the cache; the number grows when its content means something else.
const PIECE: &str = "units-1";

/// A source file of the build, by its number in [`Index::paths`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileNumber(pub(super) u32);

/// One unit.
pub(super) struct IndexedUnit {
    pub(super) offset: DebugInfoOffset<usize>,
    pub(super) is_go: bool,
    /// Its files, by the numbers its line program uses; `None` where a number means nothing.
    pub(super) files: Vec<Option<FileNumber>>,
    pub(super) functions: OnceLock<Result<Arc<Functions>, ResolveError>>,
    pub(super) lines: OnceLock<Result<Arc<Lines>, ResolveError>>,
}

/// All units.
pub(super) struct Index {
    pub(super) units: Vec<IndexedUnit>,
    paths: Paths,
    /// Types that have a unit of their own (DWARF 5), by signature.
    signatures: HashMap<u64, Die>,
    /// Start, end, unit; by start.
    ranges: Vec<(u64, u64, u32)>,
    /// By their offsets: the units of a Go program share one table of them.
    abbreviations: Mutex<HashMap<usize, Arc<Abbreviations>>>,
}

/// What reading all units has found, as it is kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    units: Vec<FoundUnit>,
    paths: Paths,
    /// Signature, unit, offset in it.
    signatures: Vec<(u64, u32, u64)>,
    ranges: Vec<(u64, u64, u32)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FoundUnit {
    offset: u64,
    is_go: bool,
    files: Vec<Option<FileNumber>>,
}

/// Paths by their numbers, in one text: a large program has tens of thousands.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Paths {
    text: String,
    /// Where each ends in the text; the next begins there.
    ends: Vec<u32>,
}

impl Paths {
    /// `None` when there is no more room: 4 GB of paths.
    fn push(&mut self, path: &str) -> Option<FileNumber> {
        let number = FileNumber(u32::try_from(self.ends.len()).ok()?);
        self.ends.push(u32::try_from(self.text.len() + path.len()).ok()?);
        self.text.push_str(path);
        Some(number)
    }

    fn get(&self, number: usize) -> Option<&str> {
        let from = number.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).map(|&end| end as usize))?;
        self.text.get(from..*self.ends.get(number)? as usize)
    }
}

impl Index {
    /// What is kept of an earlier reading, else what the units' first entries and line program headers say; that is kept.
    pub(super) fn of(sections: &Sections, kept: &cache::Entry) -> Result<Index, ResolveError> {
        if let Some(piece) = kept.get(PIECE, None) {
            match postcard::from_bytes::<Found>(&piece) {
                Ok(found) => return Ok(Index::from(found)),
                Err(error) => tracing::warn!(%error, "the kept index of a build cannot be read; it is made again"),
            }
        }
        let found = read(sections)?;
        let bytes = postcard::to_stdvec(&found).unwrap_or_default();
        kept.put(PIECE, &bytes);
        Ok(Index::from(found))
    }

    /// The abbreviations of a unit.
    pub(super) fn abbreviations(
        &self,
        dwarf: &gimli::Dwarf<Bytes<'_>>,
        header: &UnitHeader<Bytes<'_>>,
    ) -> Result<Arc<Abbreviations>, ResolveError> {
        let mut known = self.abbreviations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&header.debug_abbrev_offset().0) {
            return Ok(Arc::clone(known));
        }
        let parsed = dwarf.abbreviations(header)?;
        known.insert(header.debug_abbrev_offset().0, Arc::clone(&parsed));
        Ok(parsed)
    }
    /// Units whose ranges hold an address: one in all sound files.
    pub(super) fn units_at(&self, address: u64) -> impl Iterator<Item = u32> {
        // Ranges of units do not overlap; a few steps back bound the search where they do.
        const OVERLAP_MAX: usize = 8;
        let after = self.ranges.partition_point(|&(start, _, _)| start <= address);
        self.ranges[..after]
            .iter()
            .rev()
            .take(OVERLAP_MAX)
            .filter(move |&&(_, end, _)| address < end)
            .map(|&(_, _, unit)| unit)
    }

    /// The entry at an offset of `.debug_info`.
    pub(super) fn die_at(&self, offset: DebugInfoOffset<usize>) -> Option<Die> {
        let after = self.units.partition_point(|unit| unit.offset <= offset);
        let number = after.checked_sub(1)?;
        let offset = UnitOffset(offset.0 - self.units[number].offset.0);
        Some(Die { unit: number as u32, offset })
    }

    /// The type with a signature.
    pub(super) fn signed_type(&self, signature: DebugTypeSignature) -> Option<Die> {
        self.signatures.get(&signature.0).copied()
    }

    /// A file's path.
    pub(super) fn path(&self, file: FileNumber) -> &str {
        self.paths.get(file.0 as usize).unwrap_or_default()
    }

    /// The paths of all source files.
    pub(super) fn paths(&self) -> impl Iterator<Item = (FileNumber, &str)> {
        let numbers = 0..self.paths.ends.len();
        numbers.filter_map(|number| Some((FileNumber(number as u32), self.paths.get(number)?)))
    }

    /// The file that a unit's line program or `DW_AT_decl_file` calls by `number`.
    pub(super) fn file(&self, unit: u32, number: u64) -> Option<FileNumber> {
        self.units.get(unit as usize)?.files.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

/// Reads the units' first entries and line program headers.
fn read(sections: &Sections) -> Result<Found, ResolveError> {
    let dwarf = sections.dwarf();
    let mut abbreviations: HashMap<usize, Arc<Abbreviations>> = HashMap::new();
    let mut files = Files::default();
    let mut found = Found::default();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let Some(offset) = header.debug_info_offset() else { continue };
        if header.address_size() != 8 {
            return Err(ResolveError::BadDwarf(format!("addresses of {} bytes", header.address_size())));
        }
        let number = found.units.len() as u32;
        if let UnitType::Type { type_signature, type_offset } = header.type_() {
            found.signatures.push((type_signature.0, number, type_offset.0 as u64));
        }
        let shared = match abbreviations.get(&header.debug_abbrev_offset().0) {
            Some(shared) => Arc::clone(shared),
            None => {
                let parsed = dwarf.abbreviations(&header)?;
                abbreviations.insert(header.debug_abbrev_offset().0, Arc::clone(&parsed));
                parsed
            }
        };
        let unit = Unit::new_with_abbreviations(&dwarf, header, shared)?;
        let root = unit.entry(unit.header.root_offset())?;
        let language = match root.attr_value(gimli::DW_AT_language) {
            Some(gimli::AttributeValue::Language(language)) => Some(language),
            _ => None,
        };
        let mut ranges = debug_info::ranges(&dwarf, &unit, &root)?;
        let mut count = 0;
        while let Some(range) = ranges.next()? {
            count += 1;
            if count > UNIT_RANGES_MAX {
                return Err(ResolveError::BadDwarf(format!("unit {number} has too many address ranges")));
            }
            if range.begin < range.end && range.begin != 0 {
                found.ranges.push((range.begin, range.end, number));
            }
        }
        found.units.push(FoundUnit {
            offset: offset.0 as u64,
            is_go: language == Some(gimli::DW_LANG_Go),
            files: files.of_unit(&dwarf, &unit)?,
        });
    }
    found.ranges.sort_unstable();
    found.paths = files.paths;
    Ok(found)
}

impl From<Found> for Index {
    fn from(found: Found) -> Index {
        let unit = |unit: FoundUnit| IndexedUnit {
            offset: DebugInfoOffset(unit.offset as usize),
            is_go: unit.is_go,
            files: unit.files,
            functions: OnceLock::new(),
            lines: OnceLock::new(),
        };
        let signed = |(signature, unit, offset)| (signature, Die { unit, offset: UnitOffset(offset as usize) });
        Index {
            units: found.units.into_iter().map(unit).collect(),
            paths: found.paths,
            signatures: found.signatures.into_iter().map(signed).collect(),
            ranges: found.ranges,
            abbreviations: Mutex::default(),
        }
    }
}

/// Paths by number and numbers by path.
#[derive(Default)]
struct Files {
    paths: Paths,
    numbers: HashMap<String, FileNumber>,
}

impl Files {
    fn of_unit(
        &mut self,
        dwarf: &gimli::Dwarf<Bytes<'_>>,
        unit: &Unit<'_>,
    ) -> Result<Vec<Option<FileNumber>>, ResolveError> {
        let Some(program) = &unit.line_program else { return Ok(Vec::new()) };
        let header = program.header();
        let names = header.file_names().len() as u64;
        // DWARF 5 counts files from 0, earlier versions from 1.
        let last = if header.version() >= 5 { names } else { names + 1 };
        (0..last)
            .map(|number| {
                let Some(file) = header.file(number) else { return Ok(None) };
                let name = dwarf.attr_string(unit, file.path_name())?.to_string_lossy().into_owned();
                let directory = match file.directory(header) {
                    Some(directory) => dwarf.attr_string(unit, directory)?.to_string_lossy().into_owned(),
                    None => String::new(),
                };
                let compiled_in = unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
                Ok(self.number(joined(&compiled_in, &directory, &name)))
            })
            .collect()
    }

    fn number(&mut self, path: String) -> Option<FileNumber> {
        if let Some(&number) = self.numbers.get(&path) {
            return Some(number);
        }
        let number = self.paths.push(&path)?;
        self.numbers.insert(path, number);
        Some(number)
    }
}

/// A path as the build knows it: relative to its directory, which is relative to where it was compiled.
fn joined(compiled_in: &str, directory: &str, name: &str) -> String {
    let mut path = String::new();
    for part in [compiled_in, directory, name] {
        if part.starts_with('/') {
            path.clear();
        }
        if part.is_empty() || part == "." {
            continue;
        }
        if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(part.trim_start_matches("./"));
    }
    path
}

/// Whether an address is in one of some ranges.
pub(super) fn contains(ranges: &[Range<u64>], address: u64) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_found() {
        let mut paths = Paths::default();
        for path in ["/src/main.go", "", "/src/\u{e4}.go"] {
            paths.push(path).unwrap();
        }
        let unit = FoundUnit { offset: 1 << 40, is_go: true, files: vec![None, Some(FileNumber(2))] };
        let found = Found {
            units: vec![unit],
            paths,
            signatures: vec![(u64::MAX, 0, 77)],
            ranges: vec![(0x40_0000, 0x50_0000, 0)],
        };
        let bytes = postcard::to_stdvec(&found).unwrap();
        assert_eq!(postcard::from_bytes::<Found>(&bytes).unwrap(), found);
        for length in 0..bytes.len() {
            assert!(postcard::from_bytes::<Found>(&bytes[..length]).is_err(), "{length} bytes");
        }
        let index = Index::from(found);
        assert_eq!(index.paths().map(|(_, path)| path).collect::<Vec<_>>(), ["/src/main.go", "", "/src/\u{e4}.go"]);
        assert_eq!(index.file(0, 1).map(|file| index.path(file)), Some("/src/\u{e4}.go"));
        assert_eq!(
            (index.file(0, 0), index.file(0, 2), index.file(1, 0), index.path(FileNumber(3))),
            (None, None, None, "")
        );
        // Whatever a damaged text says, nothing is sliced within a character.
        let odd = Paths { text: "\u{e4}".to_owned(), ends: vec![1, 9, 0] };
        assert_eq!([0, 1, 2, 3].map(|number| odd.get(number)), [None; 4]);
    }

    #[test]
    fn a_path_is_joined_up_to_its_first_absolute_part() {
        assert_eq!(joined("/build", "src", "a.c"), "/build/src/a.c");
        assert_eq!(joined("/build", "/usr/include", "a.h"), "/usr/include/a.h");
        assert_eq!(joined(".", "", "/src/main.go"), "/src/main.go");
        assert_eq!(joined("", "", "./main.c"), "main.c");
    }
}

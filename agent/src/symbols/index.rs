//! The first index of a build: its units, the addresses they cover and the files their line programs name.
//!
//! It reads one entry and one line program header per unit. Lines and functions of a unit are read when a question
//! first needs them, and kept.
//!
//! Invariants: units are in the order of their offsets; a unit that cannot be read fails the whole index, because a
//! site that is silently missed would be a lie.

use super::ResolveError;
use super::debug_info::{self, Bytes, Die, Sections, Unit};
use super::functions::Functions;
use super::lines::Lines;
use gimli::{Abbreviations, DebugInfoOffset, DebugTypeSignature, UnitOffset, UnitType};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Most address ranges of one unit that are read: a unit has one per function at most.
const UNIT_RANGES_MAX: usize = 1 << 20;

/// A source file of the build, by its number in [`Index::files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileNumber(pub(super) u32);

/// One unit.
pub(super) struct IndexedUnit {
    pub(super) offset: DebugInfoOffset<usize>,
    pub(super) abbreviations: Arc<Abbreviations>,
    pub(super) is_go: bool,
    /// Its files, by the numbers its line program uses; `None` where a number means nothing.
    pub(super) files: Vec<Option<FileNumber>>,
    pub(super) functions: OnceLock<Result<Arc<Functions>, ResolveError>>,
    pub(super) lines: OnceLock<Result<Arc<Lines>, ResolveError>>,
}

/// All units.
pub(super) struct Index {
    pub(super) units: Vec<IndexedUnit>,
    /// Paths of all source files.
    pub(super) files: Vec<String>,
    /// Types that have a unit of their own (DWARF 5), by signature.
    signatures: HashMap<u64, Die>,
    /// Start, end, unit; by start.
    ranges: Vec<(u64, u64, u32)>,
}

impl Index {
    /// Reads the units' first entries and line program headers.
    pub(super) fn build(sections: &Sections) -> Result<Index, ResolveError> {
        let dwarf = sections.dwarf();
        let mut abbreviations: HashMap<usize, Arc<Abbreviations>> = HashMap::new();
        let mut files = Files::default();
        let mut index = Index { units: Vec::new(), files: Vec::new(), signatures: HashMap::new(), ranges: Vec::new() };
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(offset) = header.debug_info_offset() else { continue };
            if header.address_size() != 8 {
                return Err(ResolveError::BadDwarf(format!("addresses of {} bytes", header.address_size())));
            }
            let number = index.units.len() as u32;
            if let UnitType::Type { type_signature, type_offset } = header.type_() {
                index.signatures.insert(type_signature.0, Die { unit: number, offset: type_offset });
            }
            let shared = match abbreviations.get(&header.debug_abbrev_offset().0) {
                Some(shared) => Arc::clone(shared),
                None => {
                    let parsed = dwarf.abbreviations(&header)?;
                    abbreviations.insert(header.debug_abbrev_offset().0, Arc::clone(&parsed));
                    parsed
                }
            };
            let unit = Unit::new_with_abbreviations(&dwarf, header, Arc::clone(&shared))?;
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
                    index.ranges.push((range.begin, range.end, number));
                }
            }
            index.units.push(IndexedUnit {
                offset,
                abbreviations: shared,
                is_go: language == Some(gimli::DW_LANG_Go),
                files: files.of_unit(&dwarf, &unit)?,
                functions: OnceLock::new(),
                lines: OnceLock::new(),
            });
        }
        index.ranges.sort_unstable();
        index.files = files.paths;
        Ok(index)
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
        self.files.get(file.0 as usize).map_or("", String::as_str)
    }

    /// The file that a unit's line program or `DW_AT_decl_file` calls by `number`.
    pub(super) fn file(&self, unit: u32, number: u64) -> Option<FileNumber> {
        self.units.get(unit as usize)?.files.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

/// Paths by number and numbers by path.
#[derive(Default)]
struct Files {
    paths: Vec<String>,
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
                Ok(Some(self.number(joined(&compiled_in, &directory, &name))))
            })
            .collect()
    }

    fn number(&mut self, path: String) -> FileNumber {
        if let Some(&number) = self.numbers.get(&path) {
            return number;
        }
        let number = FileNumber(self.paths.len() as u32);
        self.paths.push(path.clone());
        self.numbers.insert(path, number);
        number
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
    fn a_path_is_joined_up_to_its_first_absolute_part() {
        assert_eq!(joined("/build", "src", "a.c"), "/build/src/a.c");
        assert_eq!(joined("/build", "/usr/include", "a.h"), "/usr/include/a.h");
        assert_eq!(joined(".", "", "/src/main.go"), "/src/main.go");
        assert_eq!(joined("", "", "./main.c"), "main.c");
    }
}

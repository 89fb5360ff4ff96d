//! What is looked for by its name among the entries at the top of Go's units: the runtime's own types and variables, and
//! all types that the runtime describes. It is found in one pass over the unit that holds them, and kept on disk: that
//! pass is what the first question about a large program would wait for.
//!
//! A kept piece is a header of [`HEADER_WORDS`] words, `u64::MAX` for what there is none of, then the number of types,
//! then for each its offset, unit, entry and the length of its name, then the names; words of 8 bytes, little endian.
//!
//! It knows no process and decides nothing: an entry that is not what its name says is found out where it is read.

use super::cache;
use super::debug_info::{Die, Entry, Unit, View};
use super::types::{self, go};
use super::{Build, ResolveError};
use gimli::{AttributeValue, Operation, UnitOffset};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Types that are remembered of one build, at most: Kubernetes has some 60,000.
const TYPES_MAX: usize = 1 << 20;
/// Name of the piece in the cache; the number grows when its content means something else.
const PIECE: &str = "landmarks-1";
/// Words before the number of types.
const HEADER_WORDS: usize = 10;
/// Words of one type, without its name.
const TYPE_WORDS: usize = 4;
/// A word that stands for nothing.
const NONE: u64 = u64::MAX;

/// A type that the runtime describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// Offset of its description from `runtime.types`.
    pub(super) offset: u64,
    pub(crate) die: Die,
    pub(crate) name: Name,
}

/// A part of the text that holds the names of all types: a large program has some hundred thousand.
#[derive(Clone)]
pub(crate) struct Name {
    all: Arc<str>,
    at: Range<usize>,
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.all.get(self.at.clone()).unwrap_or_default()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Types while they are gathered: offset, entry, where the name is in the text.
#[derive(Debug, Default)]
struct Gathered {
    types: Vec<(u64, Die, Range<usize>)>,
    names: String,
}

impl Gathered {
    fn push(&mut self, offset: u64, die: Die, name: &str) {
        let from = self.names.len();
        self.names.push_str(name);
        self.types.push((offset, die, from..self.names.len()));
    }

    /// By their offsets, each once.
    fn described(mut self) -> Arc<[Described]> {
        self.types.sort_by_key(|(offset, ..)| *offset);
        self.types.dedup_by_key(|(offset, ..)| *offset);
        let all: Arc<str> = self.names.into();
        let one = |(offset, die, at)| Described { offset, die, name: Name { all: Arc::clone(&all), at } };
        self.types.into_iter().map(one).collect()
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Landmarks {
    /// The type `runtime.g`.
    pub(super) g: Option<Die>,
    /// The type `runtime.m`.
    pub(super) m: Option<Die>,
    /// Address of `runtime.allglen`.
    pub(super) allglen: Option<u64>,
    /// Address of `runtime.allgptr`.
    pub(super) allgptr: Option<u64>,
    /// The type `runtime.moduledata`.
    pub(super) module_data: Option<Die>,
    /// Address of `runtime.firstmoduledata`.
    pub(super) module_data_at: Option<u64>,
    /// Bytes of `abi.MapType`, behind which the methods of map types are.
    pub(super) map_type_bytes: Option<u64>,
    /// By their offsets.
    pub(super) described: Arc<[Described]>,
}

impl Build {
    /// What there is in this build; read when it is first asked for.
    pub(super) fn landmarks(&self, view: &View<'_>) -> Result<&Landmarks, ResolveError> {
        let found = self.landmarks.get_or_init(|| {
            if let Some(kept) = self.kept.get(PIECE, None).and_then(|piece| decode(&piece)) {
                return Ok(kept);
            }
            let found = find(view)?;
            keep(&found, &self.kept);
            Ok(found)
        });
        found.as_ref().map_err(Clone::clone)
    }
}

/// Looks through the unit of the runtime, where the linker puts all types; through the others where it is not there.
fn find(view: &View<'_>) -> Result<Landmarks, ResolveError> {
    let (mut found, mut described) = (Landmarks::default(), Gathered::default());
    for is_runtime in [true, false] {
        for number in 0..view.index.units.len() as u32 {
            if !view.index.units[number as usize].is_go {
                continue;
            }
            let unit = view.unit(number)?;
            let root = unit.entry(unit.header.root_offset())?;
            if (view.name_of(&unit, &root).as_deref() == Some("runtime")) == is_runtime {
                search(view, number, &mut found, &mut described)?;
            }
        }
        if !described.types.is_empty() && found.is_whole() {
            break;
        }
    }
    found.described = described.described();
    Ok(found)
}

impl Landmarks {
    fn is_whole(&self) -> bool {
        self.g.is_some() && self.m.is_some() && self.allglen.is_some() && self.allgptr.is_some()
    }
}

/// Looks through the entries of a unit at its top.
fn search(view: &View<'_>, number: u32, found: &mut Landmarks, described: &mut Gathered) -> Result<(), ResolveError> {
    let unit = view.unit(number)?;
    let mut reader = unit.entries_raw(None)?;
    let mut entry = Entry::null();
    while !reader.is_empty() {
        let (depth, before) = (reader.next_depth(), reader.clone());
        let Some(abbreviation) = reader.read_abbreviation()? else { continue };
        // Functions and what is in them are nearly all there is: to step over an entry costs a tenth of reading it.
        if depth != 1 || abbreviation.tag() == gimli::DW_TAG_subprogram {
            reader.skip_attributes(abbreviation.attributes())?;
            continue;
        }
        reader = before;
        reader.read_entry(&mut entry)?;
        let die = Die { unit: number, offset: entry.offset() };
        if entry.tag() == gimli::DW_TAG_variable {
            match view.name_of(&unit, &entry).as_deref() {
                Some("runtime.allglen") => found.allglen = address(&unit, &entry),
                Some("runtime.allgptr") => found.allgptr = address(&unit, &entry),
                Some("runtime.firstmoduledata") => found.module_data_at = address(&unit, &entry),
                _ => {}
            }
            continue;
        }
        let name = match entry.tag() {
            gimli::DW_TAG_structure_type => view.name_of(&unit, &entry),
            _ => None,
        };
        match name.as_deref() {
            Some("runtime.g") => found.g = Some(die),
            Some("runtime.m") => found.m = Some(die),
            Some("runtime.moduledata") => found.module_data = Some(die),
            Some(
                "internal/abi.MapType" | "internal/abi.SwissMapType" | "internal/abi.OldMapType" | "runtime.maptype",
            ) => found.map_type_bytes = types::unsigned(&entry, gimli::DW_AT_byte_size),
            _ => {}
        }
        if let Some(offset) = go::runtime_type(&entry) {
            let Some(name) = name.or_else(|| view.name_of(&unit, &entry)) else { continue };
            if described.types.len() < TYPES_MAX {
                described.push(offset, die, &name);
            }
        } else if entry.tag() == gimli::DW_TAG_typedef
            // The name that variables refer to follows its struct.
            && let Some((_, last, _)) = described.types.last_mut()
            && view.target(number, entry.attr_value(gimli::DW_AT_type)) == Some(*last)
        {
            *last = die;
        }
    }
    Ok(())
}

/// Address of a variable that has a fixed one.
fn address(unit: &Unit<'_>, entry: &Entry<'_>) -> Option<u64> {
    let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_location) else { return None };
    match expression.operations(unit.encoding()).next() {
        Ok(Some(Operation::Address { address })) => Some(address),
        _ => None,
    }
}

/// Writes it for the next agent that meets the build, if there is a cache and it takes it.
fn keep(found: &Landmarks, kept: &cache::Entry) {
    let Some(mut writer) = kept.begin(PIECE) else { return };
    let written = writer.write(&encode(found)).and_then(|()| writer.finish());
    if let Err(error) = written {
        tracing::warn!(%error, "the symbol cache cannot be written: the next agent looks for the runtime's types again");
    }
}

fn encode(found: &Landmarks) -> Vec<u8> {
    let die = |die: Option<Die>| die.map_or([NONE; 2], |die| [u64::from(die.unit), die.offset.0 as u64]);
    let [g, m, module_data] = [found.g, found.m, found.module_data].map(die);
    let values = [found.allglen, found.allgptr, found.module_data_at, found.map_type_bytes];
    let mut words = [g, m, module_data].concat();
    words.extend(values.map(|value| value.unwrap_or(NONE)));
    words.push(found.described.len() as u64);
    for Described { offset, die, name } in found.described.iter() {
        words.extend([*offset, u64::from(die.unit), die.offset.0 as u64, name.len() as u64]);
    }
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    found.described.iter().for_each(|described| bytes.extend(described.name.as_bytes()));
    bytes
}

/// `None` for what [`encode`] has not made.
fn decode(bytes: &[u8]) -> Option<Landmarks> {
    let (words, rest) = bytes.split_at_checked((HEADER_WORDS + 1) * 8)?;
    let mut words = words.chunks_exact(8).map(word);
    let mut next = || words.next().filter(|&word| word != NONE);
    let mut die = || {
        let (unit, offset) = (next(), next());
        Some(Die { unit: u32::try_from(unit?).ok()?, offset: UnitOffset(usize::try_from(offset?).ok()?) })
    };
    let [g, m, module_data] = [die(), die(), die()];
    let [allglen, allgptr, module_data_at, map_type_bytes] = [next(), next(), next(), next()];
    let count = usize::try_from(next()?).ok().filter(|&count| count <= TYPES_MAX)?;
    let (types, names) = rest.split_at_checked(count * TYPE_WORDS * 8)?;
    let all: Arc<str> = std::str::from_utf8(names).ok()?.into();
    let mut described = Vec::with_capacity(count);
    let mut from = 0usize;
    for one in types.chunks_exact(TYPE_WORDS * 8) {
        let [offset, unit, entry, length] = [0, 8, 16, 24].map(|at| word(&one[at..at + 8]));
        let at = from..from.checked_add(usize::try_from(length).ok()?)?;
        from = at.end;
        all.get(at.clone())?;
        let die = Die { unit: u32::try_from(unit).ok()?, offset: UnitOffset(usize::try_from(entry).ok()?) };
        described.push(Described { offset, die, name: Name { all: Arc::clone(&all), at } });
    }
    let found =
        Landmarks { g, m, allglen, allgptr, module_data, module_data_at, map_type_bytes, described: described.into() };
    (from == all.len()).then_some(found)
}

/// Eight bytes.
fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_le_bytes).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn die(unit: u32, offset: usize) -> Die {
        Die { unit, offset: UnitOffset(offset) }
    }

    fn some() -> Landmarks {
        let mut described = Gathered::default();
        for (name, number) in ["main.Order", "", "map[string]int"].iter().zip(1u32..) {
            described.push(u64::from(number) * 64, die(number, 11), name);
        }
        Landmarks {
            g: Some(die(3, 0x1234)),
            allgptr: Some(0x55_0000),
            map_type_bytes: Some(104),
            described: described.described(),
            ..Landmarks::default()
        }
    }

    #[test]
    fn what_is_kept_is_what_was_found() {
        for found in [some(), Landmarks::default()] {
            assert_eq!(decode(&encode(&found)), Some(found));
        }
    }

    #[test]
    fn what_was_not_written_by_this_is_not_taken() {
        let whole = encode(&some());
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(decode(&[&whole[..], b"x"].concat()), None);
        let mut many = whole.clone();
        many[HEADER_WORDS * 8 + 5] = 1;
        assert_eq!(decode(&many), None, "more types than any build has");
        let mut no_text = whole;
        *no_text.last_mut().unwrap() = 0xff;
        assert_eq!(decode(&no_text), None);
    }
}

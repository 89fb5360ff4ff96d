//! What is looked for by its name among the entries at the top of Go's units: the runtime's own types and variables, and
//! all types that the runtime describes. It is found in one pass over the unit that holds them, and kept on disk: that
//! pass is what the first question about a large program would wait for.
//!
//! A kept piece is a header of [`HEADER_WORDS`] words, `u64::MAX` for what there is none of, then the number of types,
//! then for each its offset, unit, entry and where its name ends, then the names; words of 8 bytes, little endian.
//!
//! It knows no process and decides nothing: an entry that is not what its name says is found out where it is read.

use super::debug_info::{Die, Entry, Unit, View};
use super::types::{self, go};
use super::{Build, ResolveError};
use crate::target::{Content, Table, bytes_of};
use gimli::{AttributeValue, Operation, UnitOffset};
use std::ops::Range;
use std::sync::Arc;

/// Types that are remembered of one build, at most: Kubernetes has some 60,000.
const TYPES_MAX: usize = 1 << 20;
/// Name of the piece in the cache; the number grows when its content means something else.
const PIECE: &str = "landmarks-2";
/// Words before the number of types.
const HEADER_WORDS: usize = 14;
/// Words of one type; its name is behind all of them.
const TYPE_WORDS: usize = 4;
/// A word that stands for nothing.
const NONE: u64 = u64::MAX;

/// A type that the runtime describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described<'t> {
    /// Offset of its description from `runtime.types`.
    pub(super) offset: u64,
    pub(crate) die: Die,
    pub(crate) name: &'t str,
}

/// All of them, by their offsets. A large program has some hundred thousand: they are searched where they are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct DescribedTypes {
    /// Offset, unit, entry, end of the name in the names; the name begins where the one before ends.
    rows: Table<TYPE_WORDS>,
    content: Arc<Content>,
    /// Where the names are in the content.
    names: Range<usize>,
}

impl DescribedTypes {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, number: usize) -> Option<Described<'_>> {
        let [offset, unit, entry, end] = self.rows.row(number)?;
        let before = number.checked_sub(1).and_then(|before| self.rows.row(before));
        let begin = before.map_or(0, |[.., end]| end);
        let names = self.content.get(self.names.clone())?;
        let name = names.get(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)?;
        let die = Die { unit: u32::try_from(unit).ok()?, offset: UnitOffset(usize::try_from(entry).ok()?) };
        Some(Described { offset, die, name: std::str::from_utf8(name).ok()? })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Described<'_>> {
        (0..self.len()).filter_map(|number| self.get(number))
    }

    /// The type with an offset.
    pub(super) fn at(&self, wanted: u64) -> Option<Described<'_>> {
        let number = self.rows.partition_point(|[offset, ..]| offset < wanted);
        self.get(number).filter(|described| described.offset == wanted)
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

    fn name(&self, at: &Range<usize>) -> &str {
        self.names.get(at.clone()).unwrap_or_default()
    }

    /// By their offsets, each once.
    fn sort(&mut self) {
        self.types.sort_by_key(|(offset, ..)| *offset);
        self.types.dedup_by_key(|(offset, ..)| *offset);
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
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
    /// Value of the symbol `runtime.types`.
    pub(super) types_at: Option<u64>,
    /// Value of the symbol `runtime.tlsg`.
    pub(super) tlsg: Option<u64>,
    /// The type `runtime/pprof.labelMap`.
    pub(super) labels: Option<Die>,
    pub(super) described: DescribedTypes,
}

/// What `runtime/pprof` labels goroutines with.
const LABELS: &str = "runtime/pprof.labelMap";

impl Build {
    /// What there is in this build; read when it is first asked for.
    pub(super) fn landmarks(&self, view: &View<'_>) -> Result<&Landmarks, ResolveError> {
        let found = self.landmarks.get_or_init(|| {
            if let Some(kept) = self.kept.get(PIECE, None).and_then(|piece| decode(Content::Mapped(piece))) {
                return Ok(kept);
            }
            let (mut found, described) = find(view)?;
            let symbol = |name| self.debug_image().symbol(name).or_else(|| self.image.symbol(name));
            (found.types_at, found.tlsg) = (symbol("runtime.types"), symbol("runtime.tlsg"));
            let made = encode(&found, &described);
            let kept = self.kept.put(PIECE, &made).map_or(Content::Held(made), Content::Mapped);
            decode(kept).ok_or_else(|| ResolveError::BadDwarf("its runtime's types cannot be told".to_owned()))
        });
        found.as_ref().map_err(Clone::clone)
    }
}

/// Looks through the unit of the runtime, where the linker puts all types; through the others where it is not there.
fn find(view: &View<'_>) -> Result<(Landmarks, Gathered), ResolveError> {
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
    described.sort();
    let labels = described.types.iter().find(|(.., name)| described.name(name) == LABELS);
    found.labels = labels.map(|(_, die, _)| *die);
    Ok((found, described))
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

fn encode(found: &Landmarks, described: &Gathered) -> Vec<u8> {
    let die = |die: Option<Die>| die.map_or([NONE; 2], |die| [u64::from(die.unit), die.offset.0 as u64]);
    let [g, m, module_data, labels] = [found.g, found.m, found.module_data, found.labels].map(die);
    let Landmarks { allglen, allgptr, module_data_at, map_type_bytes, types_at, tlsg, .. } = *found;
    let values = [allglen, allgptr, module_data_at, map_type_bytes, types_at, tlsg];
    let mut words = [g, m, module_data, labels].concat();
    words.extend(values.map(|value| value.unwrap_or(NONE)));
    words.push(described.types.len() as u64);
    let mut end = 0u64;
    for (offset, die, name) in &described.types {
        end += name.len() as u64;
        words.extend([*offset, u64::from(die.unit), die.offset.0 as u64, end]);
    }
    let mut bytes = bytes_of(words);
    described.types.iter().for_each(|(.., name)| bytes.extend(described.name(name).as_bytes()));
    bytes
}

/// `None` for what [`encode`] has not made.
fn decode(content: Content) -> Option<Landmarks> {
    let content = Arc::new(content);
    let header: [u64; HEADER_WORDS + 1] = Table::within(&content, 0, 1)?.row(0)?;
    let some = |word: u64| Some(word).filter(|&word| word != NONE);
    let die = |unit: u64, offset: u64| {
        Some(Die { unit: u32::try_from(some(unit)?).ok()?, offset: UnitOffset(usize::try_from(some(offset)?).ok()?) })
    };
    let [g_unit, g, m_unit, m, module_unit, module, labels_unit, labels, values @ .., count] = header;
    let [allglen, allgptr, module_data_at, map_type_bytes, types_at, tlsg] = values.map(some);
    let count = usize::try_from(count).ok().filter(|&count| count <= TYPES_MAX)?;
    let rows: Table<TYPE_WORDS> = Table::within(&content, (HEADER_WORDS + 1) * 8, count)?;
    let names = (HEADER_WORDS + 1) * 8 + count * Table::<TYPE_WORDS>::ROW_BYTES..content.len();
    let named = count.checked_sub(1).and_then(|last| rows.row(last)).map_or(0, |[.., end]| end);
    (named == names.len() as u64).then_some(Landmarks {
        g: die(g_unit, g),
        m: die(m_unit, m),
        module_data: die(module_unit, module),
        labels: die(labels_unit, labels),
        allglen,
        allgptr,
        module_data_at,
        map_type_bytes,
        types_at,
        tlsg,
        described: DescribedTypes { rows, content, names },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn die(unit: u32, offset: usize) -> Die {
        Die { unit, offset: UnitOffset(offset) }
    }

    fn some() -> (Landmarks, Gathered) {
        let mut described = Gathered::default();
        for (name, number) in ["main.Order", "", "map[string]int"].iter().zip(1u32..) {
            described.push(u64::from(number) * 64, die(number, 11), name);
        }
        let found = Landmarks {
            g: Some(die(3, 0x1234)),
            labels: Some(die(2, 11)),
            allgptr: Some(0x55_0000),
            map_type_bytes: Some(104),
            tlsg: Some(0),
            ..Landmarks::default()
        };
        (found, described)
    }

    #[test]
    fn what_is_kept_is_what_was_found() {
        for (found, described) in [some(), Default::default()] {
            let kept = decode(Content::Held(encode(&found, &described))).unwrap();
            let dies = |of: &Landmarks| [of.g, of.m, of.module_data, of.labels];
            let values =
                |of: &Landmarks| [of.allglen, of.allgptr, of.module_data_at, of.map_type_bytes, of.types_at, of.tlsg];
            assert_eq!((dies(&kept), values(&kept)), (dies(&found), values(&found)));
            let told: Vec<(u64, Die, &str)> =
                kept.described.iter().map(|described| (described.offset, described.die, described.name)).collect();
            let expected: Vec<_> =
                described.types.iter().map(|(offset, die, name)| (*offset, *die, described.name(name))).collect();
            assert_eq!(told, expected);
            assert_eq!(kept.described.at(63), None);
            assert_eq!(kept.described.at(192).map(|described| described.name), told.last().map(|last| last.2));
        }
    }

    #[test]
    fn what_was_not_written_by_this_is_not_taken() {
        let (found, described) = some();
        let whole = encode(&found, &described);
        let taken = |bytes: &[u8]| decode(Content::Held(bytes.to_vec()));
        for length in 0..whole.len() {
            assert!(taken(&whole[..length]).is_none(), "{length} bytes");
        }
        assert!(taken(&[&whole[..], b"x"].concat()).is_none());
        let mut many = whole.clone();
        many[HEADER_WORDS * 8 + 5] = 1;
        assert!(taken(&many).is_none(), "more types than any build has");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let Some(kept) = taken(&damaged) else { continue };
            assert!(kept.described.iter().count() <= 3);
            kept.described.at(64);
        }
    }
}

//! The debug sections of a build, loaded once, and a view of them for the length of one question.
//!
//! The sections own their bytes; a [`View`] borrows them as `gimli` readers, so that no index holds a reference.
//! Places in the debug information are kept as [`Die`]: which unit, and where in it.

use super::cache::Entry as Kept;
use super::call_frame::FrameIndex;
use super::content;
use super::image::Image;
use super::index::Index;
use super::types::go_constants::Constants;
use super::{ResolveError, SymbolsError};
use crate::target::Content;
use gimli::{AttributeValue, DwarfSections, EndianSlice, LittleEndian, UnitOffset};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::OnceLock;

/// Bytes of a section.
pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
/// A unit with its header read.
pub(super) type Unit<'a> = gimli::Unit<Bytes<'a>>;
/// An entry of the debug information with its attributes.
pub(super) type Entry<'a> = gimli::DebuggingInformationEntry<Bytes<'a>>;
/// An attribute's value.
pub(super) type Value<'a> = AttributeValue<Bytes<'a>>;

/// What locating code and variables needs.
pub(crate) const NEEDED: [&str; 13] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_line_str",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_addr",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_loc",
    ".debug_loclists",
    ".debug_frame",
    ".eh_frame",
];

/// How far `DW_AT_abstract_origin` and `DW_AT_specification` are followed: compilers chain two, damaged files loop.
const ORIGIN_HOPS_MAX: usize = 8;

/// A debugging information entry: which unit (by its number in the [`Index`]), and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Die {
    pub(super) unit: u32,
    pub(super) offset: UnitOffset<usize>,
}

/// The loaded sections.
pub(super) struct Sections {
    dwarf: DwarfSections<Content>,
    debug_frame: Content,
    eh_frame: Content,
    /// Address of `.eh_frame`, which its entries are relative to.
    eh_frame_at: u64,
    text_at: u64,
    frame_index: OnceLock<FrameIndex>,
    constants: Constants,
    kept: Kept,
}

impl Sections {
    /// Loads what locating code and variables needs.
    ///
    /// `debug` has the debug information and `image` the code; they may be one file.
    pub(super) fn load(image: &Image, debug: &Image, kept: &Kept) -> Result<Sections, SymbolsError> {
        let mut contents = content::load(debug, kept, &NEEDED)?;
        // A file with nothing but debug information leaves what is loaded to the executable.
        if !contents.contains_key(".eh_frame") {
            contents.extend(content::load(image, kept, &[".eh_frame"])?);
        }
        let mut take = |name: &str| contents.remove(name).unwrap_or_default();
        let dwarf = DwarfSections::load(|id| Ok::<_, SymbolsError>(take(id.name())))?;
        Ok(Sections {
            dwarf,
            debug_frame: take(".debug_frame"),
            eh_frame: take(".eh_frame"),
            eh_frame_at: image.section_range(".eh_frame").map_or(0, |range| range.start),
            text_at: image.section_range(".text").map_or(0, |range| range.start),
            frame_index: OnceLock::new(),
            constants: Constants::default(),
            // What is made of two files is not kept for one of them.
            kept: if std::ptr::eq(image, debug) { kept.clone() } else { Kept::none() },
        })
    }

    /// The sections as readers.
    pub(super) fn dwarf(&self) -> gimli::Dwarf<Bytes<'_>> {
        self.dwarf.borrow(|bytes| EndianSlice::new(bytes, LittleEndian))
    }

    /// Call frame information of the debugger's section; Go writes only this one.
    pub(super) fn debug_frame(&self) -> gimli::DebugFrame<Bytes<'_>> {
        let mut section = gimli::DebugFrame::new(&self.debug_frame, LittleEndian);
        section.set_address_size(8);
        section
    }

    /// Call frame information of the unwinder's section; C compilers write this one.
    pub(super) fn eh_frame(&self) -> gimli::EhFrame<Bytes<'_>> {
        let mut section = gimli::EhFrame::new(&self.eh_frame, LittleEndian);
        section.set_address_size(8);
        section
    }

    /// Go's constants, as far as they were asked for.
    pub(super) fn constants(&self) -> &Constants {
        &self.constants
    }

    /// The entries of both sections by address.
    pub(super) fn frame_index(&self) -> &FrameIndex {
        self.frame_index
            .get_or_init(|| FrameIndex::kept(&self.debug_frame(), &self.eh_frame(), &self.bases(), &self.kept))
    }

    /// What the entries of `.eh_frame` are relative to.
    pub(super) fn bases(&self) -> gimli::BaseAddresses {
        gimli::BaseAddresses::default().set_eh_frame(self.eh_frame_at).set_text(self.text_at)
    }
}

/// Address ranges of an entry. One that ends beyond all addresses is an error: the library would add without looking.
pub(super) fn ranges<'a>(
    dwarf: &gimli::Dwarf<Bytes<'a>>,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
) -> Result<gimli::RangeIter<Bytes<'a>>, ResolveError> {
    let begin = match entry.attr_value(gimli::DW_AT_low_pc) {
        Some(value) => dwarf.attr_address(unit, value)?,
        None => None,
    };
    if let (Some(begin), Some(AttributeValue::Udata(bytes))) = (begin, entry.attr_value(gimli::DW_AT_high_pc))
        && begin.checked_add(bytes).is_none()
    {
        return Err(ResolveError::BadDwarf(format!("{bytes} bytes at {begin:#x} end beyond all addresses")));
    }
    Ok(dwarf.die_ranges(unit, entry)?)
}

/// The debug information for the length of one question; units are parsed when first met.
pub(crate) struct View<'a> {
    pub(super) dwarf: gimli::Dwarf<Bytes<'a>>,
    pub(super) sections: &'a Sections,
    pub(super) index: &'a Index,
    units: RefCell<HashMap<u32, Rc<Unit<'a>>>>,
}

impl<'a> View<'a> {
    /// A view of loaded sections and their index.
    pub(super) fn new(sections: &'a Sections, index: &'a Index) -> View<'a> {
        View { dwarf: sections.dwarf(), sections, index, units: RefCell::new(HashMap::new()) }
    }

    /// A unit by its number.
    pub(super) fn unit(&self, number: u32) -> Result<Rc<Unit<'a>>, ResolveError> {
        if let Some(unit) = self.units.borrow().get(&number) {
            return Ok(Rc::clone(unit));
        }
        let Some(entry) = self.index.units.get(number as usize) else {
            return Err(ResolveError::BadDwarf(format!("unit {number} does not exist")));
        };
        let header = self.dwarf.unit_header(entry.offset)?;
        let abbreviations = self.index.abbreviations(&self.dwarf, &header)?;
        let unit = Rc::new(Unit::new_with_abbreviations(&self.dwarf, header, abbreviations)?);
        self.units.borrow_mut().insert(number, Rc::clone(&unit));
        Ok(unit)
    }

    /// An entry with its unit.
    pub(super) fn entry(&self, die: Die) -> Result<(Rc<Unit<'a>>, Entry<'a>), ResolveError> {
        let unit = self.unit(die.unit)?;
        if !die.offset.is_in_bounds(&unit.header) {
            return Err(ResolveError::BadDwarf(format!("offset {:#x} is not in its unit", die.offset.0)));
        }
        let entry = unit.entry(die.offset)?;
        Ok((unit, entry))
    }

    /// What a reference attribute of an entry of unit `unit` refers to.
    pub(super) fn target(&self, unit: u32, value: Option<Value<'a>>) -> Option<Die> {
        match value? {
            AttributeValue::UnitRef(offset) => Some(Die { unit, offset }),
            AttributeValue::DebugInfoRef(offset) => self.index.die_at(offset),
            AttributeValue::DebugTypesRef(signature) => self.index.signed_type(signature),
            _ => None,
        }
    }

    /// The entry itself, then what it was instantiated from or specifies; innermost first.
    pub(super) fn origins(&self, die: Die) -> Result<Vec<(Die, Entry<'a>)>, ResolveError> {
        let mut found = Vec::new();
        let mut next = Some(die);
        while let Some(die) = next.filter(|_| found.len() < ORIGIN_HOPS_MAX) {
            let (_, entry) = self.entry(die)?;
            let origin =
                entry.attr_value(gimli::DW_AT_abstract_origin).or_else(|| entry.attr_value(gimli::DW_AT_specification));
            next = self.target(die.unit, origin);
            found.push((die, entry));
        }
        Ok(found)
    }

    /// The name of an entry, taken from its origin where it has none of its own.
    pub(super) fn name(&self, die: Die) -> Result<Option<String>, ResolveError> {
        for (at, entry) in self.origins(die)? {
            if let Some(value) = entry.attr_value(gimli::DW_AT_name) {
                let unit = self.unit(at.unit)?;
                return Ok(Some(self.dwarf.attr_string(&unit, value)?.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// The name of an entry that is at hand.
    pub(super) fn name_of(&self, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<String> {
        let value = entry.attr_value(gimli::DW_AT_name)?;
        Some(self.dwarf.attr_string(unit, value).ok()?.to_string_lossy().into_owned())
    }
}

//! Types of Rust, C and C++ that are more than their members: texts, sequences, references, smart pointers, containers,
//! variants, unions, bit fields.
//!
//! A type of a library is known by its name and by the names of its members, and read by where the debug information puts
//! these members: a library that is laid out otherwise, or a type of the same name that is something else, is then an
//! ordinary struct. Nothing is assumed of a member that was not found.

mod classes;
mod cpp;
mod rust;
mod vtables;

pub(crate) use classes::{Classes, has_table};
pub(crate) use vtables::Vtables;

use super::super::ResolveError;
use super::super::debug_info::{Die, Entry, Unit, View};
use super::{HOPS_MAX, MEMBERS_MAX, Member, Shape, for_children, unsigned};
use gimli::AttributeValue;
use riptrace_protocol::layout::SequenceLength;

/// What a type is; other types by their entries, offsets in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NativeShape {
    Char,
    CharArray,
    CharPointer,
    Text {
        address_at: u32,
        length_at: u32,
    },
    Sequence {
        address_at: u32,
        length: SequenceLength,
        element: Die,
    },
    /// `element`: none for a text.
    Shared {
        address_at: u32,
        length_at: u32,
        element: Option<Die>,
    },
    List {
        first_at: u32,
        count_at: u32,
        entry_at: u32,
        entry: Die,
    },
    Tree {
        root_at: u32,
        count_at: u32,
        left_at: u32,
        right_at: u32,
        entry_at: u32,
        entry: Die,
    },
    Ring {
        address_at: u32,
        capacity_at: u32,
        first_at: u32,
        length_at: u32,
        element: Die,
    },
    HashTable {
        control_at: u32,
        mask_at: u32,
        count_at: u32,
        entry: Die,
    },
    BTree(BTreeFacts),
    /// `counted`: the type of what is at the address where the value is behind its counts.
    Object {
        at: u32,
        table_at: u32,
        of_trait: String,
        counted: Option<Die>,
    },
    Part {
        at: u32,
        ty: Die,
    },
    Reference {
        at: u32,
        to: Option<Die>,
    },
    Union(Vec<Member>),
    Variants {
        tag: Option<(u32, u8)>,
        variants: Vec<VariantFacts>,
    },
    Grid {
        element: Die,
        counts: Vec<u64>,
    },
}

/// Where things are in a B-tree: see [`riptrace_protocol::layout::BTreeForm`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BTreeFacts {
    pub(crate) root_at: u32,
    pub(crate) height_at: u32,
    pub(crate) count_at: u32,
    pub(crate) leaf_bytes: u32,
    pub(crate) used_at: u32,
    pub(crate) keys_at: u32,
    pub(crate) values_at: u32,
    pub(crate) edges_at: u32,
    pub(crate) key: Die,
    pub(crate) value: Option<Die>,
}

/// One variant: its name, the tags that mean it (none: all others), and what it holds, where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VariantFacts {
    pub(crate) name: String,
    pub(crate) tags: Vec<(u64, u64)>,
    pub(crate) at: u32,
    pub(crate) ty: Option<Die>,
}

/// Structs within structs that a member is looked for in, and members that are looked at, at most: libraries nest a
/// dozen deep.
const NESTING_MAX: usize = 12;
const LOOKS_MAX: usize = 512;

/// Languages that have types of their own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tongue {
    Rust,
    Cpp,
    Other,
}

fn tongue(unit: &Unit<'_>) -> Tongue {
    let root = unit.entry(unit.header.root_offset());
    match root.ok().and_then(|root| root.attr_value(gimli::DW_AT_language)) {
        Some(AttributeValue::Language(gimli::DW_LANG_Rust)) => Tongue::Rust,
        Some(AttributeValue::Language(
            gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20,
        )) => Tongue::Cpp,
        _ => Tongue::Other,
    }
}

/// What a struct or class is, if it is one of those; `Struct` is left to the caller.
pub(super) fn structure<'a>(
    view: &View<'a>,
    at: Die,
    unit: &Unit<'a>,
    name: &str,
) -> Result<Option<Shape>, ResolveError> {
    Ok(match tongue(unit) {
        Tongue::Rust => rust::structure(view, at, unit, name)?,
        Tongue::Cpp => cpp::structure(view, at, name)?.map(Shape::Native),
        Tongue::Other => None,
    })
}

/// What a pointer or reference is, if it is more than an address.
pub(super) fn pointer<'a>(
    view: &View<'a>,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
    name: &str,
    to: Option<Die>,
) -> Result<Option<NativeShape>, ResolveError> {
    let is_reference = match tongue(unit) {
        Tongue::Rust => name.starts_with('&') || name.contains("boxed::Box<"),
        _ => entry.tag() != gimli::DW_TAG_pointer_type,
    };
    if is_reference {
        return Ok(Some(NativeShape::Reference { at: 0, to }));
    }
    let Some(to) = to else { return Ok(None) };
    Ok((is_char(view, to)? && tongue(unit) != Tongue::Rust).then_some(NativeShape::CharPointer))
}

/// What an array of `counts` is, if it is more than its elements.
pub(super) fn array(
    view: &View<'_>,
    unit: &Unit<'_>,
    element: Die,
    counts: &[Option<u64>],
) -> Result<Option<NativeShape>, ResolveError> {
    let known: Option<Vec<u64>> = counts.iter().copied().collect();
    match known {
        Some(counts) if counts.len() == 1 && tongue(unit) != Tongue::Rust && is_char(view, element)? => {
            Ok(Some(NativeShape::CharArray))
        }
        Some(counts) if counts.len() > 1 => Ok(Some(NativeShape::Grid { element, counts })),
        _ => Ok(None),
    }
}

/// What a number is, if it is none: Rust's and C++'s characters of 32 bits.
pub(super) fn base(name: &str, bytes: u64) -> Option<Shape> {
    match (name, bytes) {
        ("char" | "char32_t", 4) => Some(Shape::Native(NativeShape::Char)),
        // Rust's unit.
        ("()", 0) => Some(Shape::Struct(Vec::new())),
        _ => None,
    }
}

/// Where the bits of a bit field are: offset in bytes of the first byte that holds some, bits below them in it, how many.
/// `None` for a member that is none.
pub(super) fn bit_field(entry: &Entry<'_>) -> Option<(u64, u8, u8)> {
    let bits = u8::try_from(unsigned(entry, gimli::DW_AT_bit_size)?).ok().filter(|bits| (1..=64).contains(bits))?;
    let first = match unsigned(entry, gimli::DW_AT_data_bit_offset) {
        Some(first) => first,
        None => {
            // DWARF 3: counted from the most significant bit of a unit of storage, which is little-endian here.
            let unit_bits = unsigned(entry, gimli::DW_AT_byte_size)?.checked_mul(8)?;
            let above = unsigned(entry, gimli::DW_AT_bit_offset)?;
            let at = unsigned(entry, gimli::DW_AT_data_member_location).unwrap_or(0).checked_mul(8)?;
            at.checked_add(unit_bits.checked_sub(above.checked_add(bits.into())?)?)?
        }
    };
    Some((first / 8, (first % 8) as u8, bits))
}

/// A type behind its names and qualifiers.
fn stripped(view: &View<'_>, die: Die) -> Result<Die, ResolveError> {
    let mut at = die;
    for _ in 0..HOPS_MAX {
        let (_, entry) = view.entry(at)?;
        let is_transparent = matches!(
            entry.tag(),
            gimli::DW_TAG_typedef
                | gimli::DW_TAG_const_type
                | gimli::DW_TAG_volatile_type
                | gimli::DW_TAG_restrict_type
        );
        match view.target(at.unit, entry.attr_value(gimli::DW_AT_type)).filter(|_| is_transparent) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(at)
}

fn is_char(view: &View<'_>, die: Die) -> Result<bool, ResolveError> {
    let (unit, entry) = view.entry(stripped(view, die)?)?;
    let is_byte = entry.tag() == gimli::DW_TAG_base_type && unsigned(&entry, gimli::DW_AT_byte_size) == Some(1);
    Ok(is_byte && view.name_of(&unit, &entry).is_some_and(|name| matches!(name.as_str(), "char" | "char8_t")))
}

/// What a pointer points to; `None` for other types.
fn pointee(view: &View<'_>, die: Die) -> Result<Option<Die>, ResolveError> {
    let at = stripped(view, die)?;
    let (_, entry) = view.entry(at)?;
    let to = view.target(at.unit, entry.attr_value(gimli::DW_AT_type));
    Ok(to.filter(|_| entry.tag() == gimli::DW_TAG_pointer_type))
}

fn is_pointer(view: &View<'_>, die: Die) -> Result<bool, ResolveError> {
    Ok(view.entry(stripped(view, die)?)?.1.tag() == gimli::DW_TAG_pointer_type)
}

/// The members and bases of a struct, class or union: name, offset, type.
fn members(view: &View<'_>, die: Die) -> Result<Vec<(String, u64, Die)>, ResolveError> {
    let at = stripped(view, die)?;
    let (unit, entry) = view.entry(at)?;
    let mut found = Vec::new();
    let is_compound =
        matches!(entry.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type);
    if !is_compound {
        return Ok(found);
    }
    for_children(&unit, at, |entry| {
        let is_member = matches!(entry.tag(), gimli::DW_TAG_member | gimli::DW_TAG_inheritance);
        let is_static = entry.has_attr(gimli::DW_AT_external) || entry.has_attr(gimli::DW_AT_declaration);
        if !is_member || is_static || found.len() >= MEMBERS_MAX {
            return;
        }
        let offset = match entry.attr_value(gimli::DW_AT_data_member_location) {
            None => Some(0),
            Some(value) => value.udata_value(),
        };
        let ty = view.target(at.unit, entry.attr_value(gimli::DW_AT_type));
        if let (Some(offset), Some(ty)) = (offset, ty) {
            found.push((view.name_of(&unit, entry).unwrap_or_default(), offset, ty));
        }
    })?;
    Ok(found)
}

/// The first member of a name, also inside of members and bases, that `fits`: its offset and type.
fn find(
    view: &View<'_>,
    die: Die,
    name: &str,
    fits: &dyn Fn(Die) -> Result<bool, ResolveError>,
) -> Result<Option<(u32, Die)>, ResolveError> {
    let mut looks_left = LOOKS_MAX;
    find_within(view, die, name, fits, 0, &mut looks_left)
}

fn find_within(
    view: &View<'_>,
    die: Die,
    name: &str,
    fits: &dyn Fn(Die) -> Result<bool, ResolveError>,
    nesting: usize,
    looks_left: &mut usize,
) -> Result<Option<(u32, Die)>, ResolveError> {
    if nesting > NESTING_MAX {
        return Ok(None);
    }
    for (own, offset, ty) in members(view, die)? {
        let Some(left) = looks_left.checked_sub(1) else { return Ok(None) };
        *looks_left = left;
        let Ok(offset) = u32::try_from(offset) else { continue };
        if own == name && fits(ty)? {
            return Ok(Some((offset, ty)));
        }
        if let Some((inner, ty)) = find_within(view, ty, name, fits, nesting + 1, looks_left)?
            && let Some(offset) = offset.checked_add(inner)
        {
            return Ok(Some((offset, ty)));
        }
    }
    Ok(None)
}

/// Any member of a name.
fn find_any(view: &View<'_>, die: Die, name: &str) -> Result<Option<(u32, Die)>, ResolveError> {
    find(view, die, name, &|_| Ok(true))
}

/// A member of a name that is a pointer.
fn find_pointer(view: &View<'_>, die: Die, name: &str) -> Result<Option<(u32, Die)>, ResolveError> {
    find(view, die, name, &|ty| is_pointer(view, ty))
}

/// The types that a generic type was made with.
fn parameters(view: &View<'_>, die: Die) -> Result<Vec<Die>, ResolveError> {
    let at = stripped(view, die)?;
    let (unit, _) = view.entry(at)?;
    let mut found = Vec::new();
    for_children(&unit, at, |entry| {
        if entry.tag() == gimli::DW_TAG_template_type_parameter && found.len() < MEMBERS_MAX {
            found.extend(view.target(at.unit, entry.attr_value(gimli::DW_AT_type)));
        }
    })?;
    Ok(found)
}

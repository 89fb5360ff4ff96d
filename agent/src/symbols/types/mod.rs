//! Types, one at a time, as the debug information states them.
//!
//! What all languages have in common is here; what only Go has is in [`go`], which types a Go interface may hold in
//! [`go_dynamic`], which functions a Go function value may call in [`go_functions`], which constants an integer type has
//! in [`go_constants`].

pub(crate) mod go;
pub(crate) mod go_constants;
pub(crate) mod go_dynamic;
pub(crate) mod go_functions;
pub(crate) mod native;

use super::ResolveError;
use super::debug_info::{Die, Entry, Unit, View};
use gimli::{AttributeValue, DwAt};
use go::{DW_AT_GO_EMBEDDED_FIELD, DW_AT_GO_KIND};
use native::NativeShape;
use std::rc::Rc;

/// Typedefs, qualifiers and the like between a name and its type, at most: real chains have a few, damaged ones loop.
const HOPS_MAX: usize = 32;
/// Fields of a struct and names of an enumeration that are read, at most.
const MEMBERS_MAX: usize = 1024;

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TypeFacts {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) shape: Shape,
}

/// What a type is; other types by their entries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Signed,
    Unsigned,
    Float,
    Complex,
    Bool,
    Pointer(Option<Die>),
    GoString,
    GoSlice(Die),
    /// What a Go interface holds is known at run time only. `die` says which methods it has.
    Interface {
        empty: bool,
        die: Die,
    },
    /// `header` is the runtime's description of the map.
    Map {
        key: Die,
        element: Die,
        header: Die,
    },
    /// `header` is the runtime's description of the channel.
    Chan {
        element: Die,
        header: Die,
    },
    /// A Go function value: a pointer to its code's address and to what it captured.
    Func,
    Array {
        element: Die,
        count: u64,
    },
    Struct(Vec<Member>),
    Enum {
        signed: bool,
        names: Vec<(String, i64)>,
    },
    /// A type of Rust, C or C++ that is more than its members.
    Native(NativeShape),
    Opaque(&'static str),
}

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `None` for what is at a place that is computed (a virtual base).
    pub(crate) ty: Option<Die>,
    /// Of a bit field: bits of the byte at `offset` that are below it, and how many it has.
    pub(crate) bits: Option<(u8, u8)>,
    pub(crate) offset: u64,
    pub(crate) embedded: bool,
}

/// Reads a type.
pub(crate) fn read(view: &View<'_>, die: Die) -> Result<TypeFacts, ResolveError> {
    let mut name: Option<String> = None;
    let mut at = die;
    for _ in 0..HOPS_MAX {
        let (unit, entry) = view.entry(at)?;
        let own_name = view.name_of(&unit, &entry);
        let kind = unsigned(&entry, DW_AT_GO_KIND);
        let is_named = entry.tag() == gimli::DW_TAG_typedef;
        // A type parameter's typedef (`.param0`) names nothing a person wrote.
        if is_named && name.is_none() {
            name = own_name.clone().filter(|name| !name.starts_with('.'));
        }
        if let Some((bytes, shape)) = go::reference(view, at, &entry, kind)? {
            let name = name.or(own_name).unwrap_or_default();
            return Ok(TypeFacts { name, bytes, shape });
        }
        let is_transparent = matches!(
            entry.tag(),
            gimli::DW_TAG_typedef
                | gimli::DW_TAG_const_type
                | gimli::DW_TAG_volatile_type
                | gimli::DW_TAG_restrict_type
                | gimli::DW_TAG_atomic_type
        );
        if is_transparent {
            match view.target(at.unit, entry.attr_value(gimli::DW_AT_type)) {
                Some(next) => {
                    at = next;
                    continue;
                }
                None => return Ok(opaque(name.unwrap_or_else(|| "void".to_owned()), 0, "void")),
            }
        }
        let mut facts = plain(view, at, unit, &entry, kind)?;
        if let Some(name) = name {
            facts.name = name;
        }
        return Ok(facts);
    }
    Ok(opaque(name.unwrap_or_default(), 0, "endless type"))
}

fn opaque(name: String, bytes: u64, what: &'static str) -> TypeFacts {
    TypeFacts { name, bytes, shape: Shape::Opaque(what) }
}

fn plain<'a>(
    view: &View<'a>,
    at: Die,
    unit: Rc<Unit<'a>>,
    entry: &Entry<'a>,
    kind: Option<u64>,
) -> Result<TypeFacts, ResolveError> {
    let name = view.name_of(&unit, entry).unwrap_or_default();
    let bytes = unsigned(entry, gimli::DW_AT_byte_size);
    let target = || view.target(at.unit, entry.attr_value(gimli::DW_AT_type));
    if let Some((own, shape)) = go::structure(view, at, entry, kind) {
        return Ok(TypeFacts { name, bytes: bytes.unwrap_or(own), shape });
    }
    let facts = match entry.tag() {
        gimli::DW_TAG_base_type => {
            let mut facts = base(entry, name, bytes.unwrap_or(0));
            let signed = match facts.shape {
                Shape::Signed => Some(true),
                Shape::Unsigned => Some(false),
                _ => None,
            };
            if let Some(signed) = signed.filter(|_| kind.is_some() && matches!(facts.bytes, 1 | 2 | 4 | 8)) {
                let mut names = go_constants::of_type(view, at, &facts.name)?;
                // A negative one of an unsigned type is one that needs all 64 bits.
                names.retain(|(_, value)| signed || *value >= 0);
                if !names.is_empty() {
                    facts.shape = Shape::Enum { signed, names };
                }
            }
            facts
        }
        gimli::DW_TAG_pointer_type | gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
            let to = target();
            let name = if name.is_empty() { pointer_name(view, to)? } else { name };
            // All pointers share one shape, so what such a pointer points to is not what its type says.
            let to = to.filter(|_| !name.starts_with("go.shape."));
            if let Some(shape) = native::pointer(view, &unit, entry, &name, to)? {
                return Ok(TypeFacts { name, bytes: bytes.unwrap_or(8), shape: Shape::Native(shape) });
            }
            TypeFacts { name, bytes: bytes.unwrap_or(8), shape: Shape::Pointer(to) }
        }
        gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type => {
            let Some(bytes) = bytes else { return Ok(opaque(name, 0, "incomplete type")) };
            let shape = match native::structure(view, at, &unit, &name)? {
                Some(shape) => shape,
                None => members(view, at, &unit)?.map_or(Shape::Opaque("type with variants"), Shape::Struct),
            };
            TypeFacts { name, bytes, shape }
        }
        gimli::DW_TAG_array_type => array(view, at, &unit, name, bytes, target())?,
        gimli::DW_TAG_enumeration_type => enumeration(view, at, &unit, entry, name, bytes)?,
        gimli::DW_TAG_union_type => match (bytes, members(view, at, &unit)?) {
            (Some(bytes), Some(members)) => {
                TypeFacts { name, bytes, shape: Shape::Native(NativeShape::Union(members)) }
            }
            _ => opaque(name, bytes.unwrap_or(0), "incomplete type"),
        },
        gimli::DW_TAG_subroutine_type => opaque(name, bytes.unwrap_or(0), "function"),
        _ => opaque(name, bytes.unwrap_or(0), "type of an unknown kind"),
    };
    Ok(facts)
}

fn base(entry: &Entry<'_>, name: String, bytes: u64) -> TypeFacts {
    if let Some(shape) = native::base(&name, bytes) {
        return TypeFacts { name, bytes, shape };
    }
    let encoding = match entry.attr_value(gimli::DW_AT_encoding) {
        Some(AttributeValue::Encoding(encoding)) => encoding,
        _ => return opaque(name, bytes, "number of an unknown encoding"),
    };
    let is_integer_size = matches!(bytes, 1 | 2 | 4 | 8 | 16);
    let shape = match encoding {
        gimli::DW_ATE_boolean if bytes == 1 => Shape::Bool,
        gimli::DW_ATE_signed | gimli::DW_ATE_signed_char if is_integer_size => Shape::Signed,
        gimli::DW_ATE_boolean
        | gimli::DW_ATE_unsigned
        | gimli::DW_ATE_unsigned_char
        | gimli::DW_ATE_address
        | gimli::DW_ATE_UTF
        | gimli::DW_ATE_ASCII
            if is_integer_size =>
        {
            Shape::Unsigned
        }
        gimli::DW_ATE_float if matches!(bytes, 4 | 8) => Shape::Float,
        gimli::DW_ATE_complex_float if matches!(bytes, 8 | 16) => Shape::Complex,
        gimli::DW_ATE_float => Shape::Opaque("float of an unusual size"),
        _ => Shape::Opaque("number of an unusual kind"),
    };
    TypeFacts { name, bytes, shape }
}

fn pointer_name(view: &View<'_>, to: Option<Die>) -> Result<String, ResolveError> {
    let Some(to) = to else { return Ok("void *".to_owned()) };
    let mut stars = String::from("*");
    let mut at = to;
    for _ in 0..HOPS_MAX {
        let (unit, entry) = view.entry(at)?;
        if let Some(name) = view.name_of(&unit, &entry) {
            return Ok(format!("{name} {stars}"));
        }
        match entry.tag() {
            gimli::DW_TAG_pointer_type => stars.push('*'),
            gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type | gimli::DW_TAG_restrict_type => {}
            gimli::DW_TAG_subroutine_type => return Ok(format!("function {stars}")),
            _ => break,
        }
        match view.target(at.unit, entry.attr_value(gimli::DW_AT_type)) {
            Some(next) => at = next,
            None => return Ok(format!("void {stars}")),
        }
    }
    Ok(format!("? {stars}"))
}

/// The fields of a struct; `None` where it has variants.
fn members<'a>(view: &View<'a>, at: Die, unit: &Unit<'a>) -> Result<Option<Vec<Member>>, ResolveError> {
    let mut found = Vec::new();
    let mut has_variants = false;
    for_children(unit, at, |entry| {
        let is_base = entry.tag() == gimli::DW_TAG_inheritance;
        has_variants |= entry.tag() == gimli::DW_TAG_variant_part;
        // A static member is a variable elsewhere.
        let is_static = entry.has_attr(gimli::DW_AT_external) || entry.has_attr(gimli::DW_AT_declaration);
        if !(entry.tag() == gimli::DW_TAG_member && !is_static || is_base) || found.len() >= MEMBERS_MAX {
            return;
        }
        let ty = view.target(at.unit, entry.attr_value(gimli::DW_AT_type));
        let is_bits = entry.has_attr(gimli::DW_AT_bit_size);
        let bits = native::bit_field(entry);
        // A location that is computed (a virtual base) is not an offset.
        let offset = match entry.attr_value(gimli::DW_AT_data_member_location) {
            None => Some(0),
            Some(value) => value.udata_value(),
        };
        let name = view.name_of(unit, entry);
        let is_anonymous = name.is_none();
        found.push(Member {
            name: name.unwrap_or_default(),
            ty: ty.filter(|_| is_bits == bits.is_some() && offset.is_some()),
            bits: bits.map(|(_, shift, bits)| (shift, bits)),
            offset: bits.map(|(offset, ..)| offset).or(offset).unwrap_or(0),
            embedded: is_base || is_anonymous || entry.attr_value(DW_AT_GO_EMBEDDED_FIELD).is_some_and(is_true),
        });
    })?;
    // Bases go by their type's name; members without a name have none in the source either.
    for member in found.iter_mut().filter(|member| member.name.is_empty()) {
        let name = member.ty.map_or(Ok(String::new()), |ty| shallow(view, ty).map(|(name, _)| name))?;
        member.name = if name.is_empty() { "<anonymous>".to_owned() } else { name };
    }
    Ok((!has_variants).then_some(found))
}

fn is_true(value: AttributeValue<super::debug_info::Bytes<'_>>) -> bool {
    match value {
        AttributeValue::Flag(flag) => flag,
        other => other.udata_value() == Some(1),
    }
}

fn array<'a>(
    view: &View<'a>,
    at: Die,
    unit: &Unit<'a>,
    name: String,
    bytes: Option<u64>,
    element: Option<Die>,
) -> Result<TypeFacts, ResolveError> {
    let mut counts: Vec<Option<u64>> = Vec::new();
    for_children(unit, at, |entry| {
        if entry.tag() == gimli::DW_TAG_subrange_type {
            let last = unsigned(entry, gimli::DW_AT_upper_bound).and_then(|last| last.checked_add(1));
            counts.push(unsigned(entry, gimli::DW_AT_count).or(last));
        }
    })?;
    let Some(element) = element else { return Ok(opaque(name, bytes.unwrap_or(0), "array of an unknown type")) };
    if let Some(shape) = native::array(view, unit, element, &counts)? {
        let count = counts.iter().try_fold(1u64, |all, count| all.checked_mul((*count)?));
        let (element_name, element_bytes) = shallow(view, element)?;
        let bytes = bytes.or_else(|| element_bytes.checked_mul(count?));
        let dimensions = || counts.iter().flatten().map(|count| format!("[{count}]")).collect::<String>();
        let name = if name.is_empty() { format!("{element_name}{}", dimensions()) } else { name };
        return Ok(match bytes {
            Some(bytes) => TypeFacts { name, bytes, shape: Shape::Native(shape) },
            None => opaque(name, 0, "array larger than memory"),
        });
    }
    let [Some(count)] = counts[..] else {
        return Ok(opaque(name, bytes.unwrap_or(0), "array of unknown length"));
    };
    let element_facts = if bytes.is_none() || name.is_empty() { Some(shallow(view, element)?) } else { None };
    let name = match &element_facts {
        Some((element_name, _)) if name.is_empty() => format!("{element_name}[{count}]"),
        _ => name,
    };
    let bytes = bytes.or_else(|| element_facts.and_then(|(_, element_bytes)| element_bytes.checked_mul(count)));
    let Some(bytes) = bytes else { return Ok(opaque(name, 0, "array larger than memory")) };
    Ok(TypeFacts { name, bytes, shape: Shape::Array { element, count } })
}

/// What a type is aligned to, in bytes; `None` where the compiler does not say.
pub(crate) fn alignment(view: &View<'_>, die: Die) -> Result<Option<u64>, ResolveError> {
    let (_, entry) = view.entry(die)?;
    Ok(match unsigned(&entry, gimli::DW_AT_alignment) {
        // Numbers, addresses: as large as they are.
        None => unsigned(&entry, gimli::DW_AT_byte_size).filter(|bytes| matches!(bytes, 1 | 2 | 4 | 8 | 16)),
        known => known,
    })
}

/// Name and size of an array's element, without reading its fields. Nested arrays without a size are not measured.
fn shallow(view: &View<'_>, die: Die) -> Result<(String, u64), ResolveError> {
    let mut at = die;
    let mut name: Option<String> = None;
    for _ in 0..HOPS_MAX {
        let (unit, entry) = view.entry(at)?;
        name = name.or(view.name_of(&unit, &entry));
        if let Some(bytes) = unsigned(&entry, gimli::DW_AT_byte_size) {
            return Ok((name.unwrap_or_default(), bytes));
        }
        if entry.tag() == gimli::DW_TAG_pointer_type {
            return Ok((pointer_name(view, view.target(at.unit, entry.attr_value(gimli::DW_AT_type)))?, 8));
        }
        match view.target(at.unit, entry.attr_value(gimli::DW_AT_type)) {
            Some(next) if entry.tag() != gimli::DW_TAG_array_type => at = next,
            _ => break,
        }
    }
    Ok((name.unwrap_or_default(), 0))
}

fn enumeration<'a>(
    view: &View<'a>,
    at: Die,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
    name: String,
    bytes: Option<u64>,
) -> Result<TypeFacts, ResolveError> {
    let mut names = Vec::new();
    let mut signed = match entry.attr_value(gimli::DW_AT_encoding) {
        Some(AttributeValue::Encoding(encoding)) => encoding == gimli::DW_ATE_signed,
        _ => false,
    };
    for_children(unit, at, |entry| {
        if entry.tag() != gimli::DW_TAG_enumerator || names.len() >= MEMBERS_MAX {
            return;
        }
        let Some(value) = entry.attr_value(gimli::DW_AT_const_value) else { return };
        let number = match value {
            AttributeValue::Sdata(number) => Some(number),
            other => other.udata_value().map(|number| number as i64).or(other.sdata_value()),
        };
        if let (Some(name), Some(number)) = (view.name_of(unit, entry), number) {
            signed |= matches!(value, AttributeValue::Sdata(number) if number < 0);
            names.push((name, number));
        }
    })?;
    match bytes {
        Some(bytes @ (1 | 2 | 4 | 8)) => Ok(TypeFacts { name, bytes, shape: Shape::Enum { signed, names } }),
        other => Ok(opaque(name, other.unwrap_or(0), "enumeration of an unusual size")),
    }
}

/// Calls `visit` for each direct child of an entry.
pub(super) fn for_children<'a>(
    unit: &Unit<'a>,
    parent: Die,
    mut visit: impl FnMut(&Entry<'a>),
) -> Result<(), ResolveError> {
    let mut reader = unit.entries_raw(Some(parent.offset))?;
    let mut entry = Entry::null();
    if !reader.read_entry(&mut entry)? || !entry.has_children() {
        return Ok(());
    }
    let parent_depth = entry.depth();
    while !reader.is_empty() && reader.next_depth() > parent_depth {
        if reader.read_entry(&mut entry)? && entry.depth() == parent_depth + 1 {
            visit(&entry);
        }
    }
    Ok(())
}

pub(super) fn unsigned(entry: &Entry<'_>, name: DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

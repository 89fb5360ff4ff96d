//! Rust: enums with data, references to slices, texts and trait objects, and the standard library's strings, vectors,
//! hash tables, B-trees, cells and reference-counted boxes.
//!
//! An enum is a struct with a variant part (DWARF 5, section 5.7.10): a tag, and for each variant the value of the tag
//! that means it; a variant without a value is the one that all other values mean (niches). The library's types are
//! those of Rust's `library/alloc` and `library/core`.

use super::super::super::ResolveError;
use super::super::super::debug_info::{Die, Unit, View};
use super::super::{MEMBERS_MAX, Shape, for_children, read, unsigned};
use super::vtables::trait_of;
use super::{BTreeFacts, NativeShape, VariantFacts, find, find_any, find_pointer, members, parameters, pointee};
use gimli::AttributeValue;
use riptrace_protocol::layout::{COUNTS_BYTES, SequenceLength};

/// What wraps one value and nothing else.
const WRAPPERS: [&str; 12] = [
    "Cell<",
    "UnsafeCell<",
    "SyncUnsafeCell<",
    "Wrapping<",
    "Saturating<",
    "ManuallyDrop<",
    "Atomic",
    "NonZero",
    "NonNull<",
    "Unique<",
    "Pin<",
    "UsizeNoHighBit",
];
/// What is shown as its entries, or not at all: the members say nothing to a person.
const CONTAINERS: [(&str, &str); 5] = [
    ("HashMap<", "hash map"),
    ("HashSet<", "hash set"),
    ("RawTable<", "hash table"),
    ("BTreeMap<", "B-tree map"),
    ("BTreeSet<", "B-tree set"),
];

/// What a struct of Rust is, if it is more than its fields.
pub(super) fn structure<'a>(
    view: &View<'a>,
    at: Die,
    unit: &Unit<'a>,
    name: &str,
) -> Result<Option<Shape>, ResolveError> {
    let mut part = None;
    for_children(unit, at, |entry| {
        if entry.tag() == gimli::DW_TAG_variant_part && part.is_none() {
            part = Some(Die { unit: at.unit, offset: entry.offset() });
        }
    })?;
    if let Some(part) = part {
        return Ok(Some(variants(view, unit, part)?.map_or(Shape::Opaque("type with variants"), Shape::Native)));
    }
    if let Some((_, what)) = CONTAINERS.iter().find(|(known, _)| name.starts_with(known)) {
        let shape = if name.starts_with('B') { b_tree(view, at)? } else { hash_table(view, at)? };
        return Ok(Some(shape.map_or(Shape::Opaque(what), Shape::Native)));
    }
    Ok(match () {
        () if name == "String" => text(view, at)?,
        () if name.starts_with("Vec<") => vector(view, at)?,
        () if name.starts_with("VecDeque<") => ring(view, at)?,
        () if name.starts_with("Rc<") || name.starts_with("Arc<") => counted(view, at, name)?,
        () if WRAPPERS.iter().any(|wrapper| name.starts_with(wrapper)) => wrapper(view, at)?,
        () => wide_pointer(view, at, name)?,
    }
    .map(Shape::Native))
}

/// `&str`, `&[T]` and the like: an address and a number of elements.
fn wide_pointer(view: &View<'_>, at: Die, name: &str) -> Result<Option<NativeShape>, ResolveError> {
    let prefixes = ["&mut ", "&", "*const ", "*mut ", "alloc::boxed::Box<"];
    let Some(target) = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) else { return Ok(None) };
    let members = members(view, at)?;
    let offset = |name: &str| {
        members.iter().find(|(own, ..)| own == name).and_then(|&(_, at, ty)| Some((u32::try_from(at).ok()?, ty)))
    };
    if let (Some((at, _)), Some((table_at, _)), Some(of_trait)) =
        (offset("pointer"), offset("vtable"), trait_of(target))
    {
        return Ok(Some(NativeShape::Object { at, table_at, of_trait, counted: None }));
    }
    let (Some((address_at, pointer)), Some((length_at, _))) = (offset("data_ptr"), offset("length")) else {
        return Ok(None);
    };
    if target == "str" || target.starts_with("str,") || target == "str>" {
        return Ok(Some(NativeShape::Text { address_at, length_at }));
    }
    let element = pointee(view, pointer)?.filter(|_| target.starts_with('['));
    let length = SequenceLength::Count(length_at);
    Ok(element.map(|element| NativeShape::Sequence { address_at, length, element }))
}

fn vector_parts(view: &View<'_>, at: Die) -> Result<Option<(u32, u32)>, ResolveError> {
    let own = members(view, at)?;
    let member = |name: &str| own.iter().find(|(own, ..)| own == name);
    let (Some(&(_, buffer_at, buffer)), Some(&(_, length_at, _))) = (member("buf"), member("len")) else {
        return Ok(None);
    };
    let pointer = find_pointer(view, buffer, "pointer")?;
    Ok(pointer
        .and_then(|(at, _)| Some((u32::try_from(buffer_at).ok()?.checked_add(at)?, u32::try_from(length_at).ok()?))))
}

fn vector(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let (Some((address_at, length_at)), Some(&element)) = (vector_parts(view, at)?, parameters(view, at)?.first())
    else {
        return Ok(None);
    };
    Ok(Some(NativeShape::Sequence { address_at, length: SequenceLength::Count(length_at), element }))
}

/// `VecDeque`: a `RawVec`, the place of the first element, and the number of elements.
fn ring(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let own = members(view, at)?;
    let member = |name: &str| own.iter().find(|(own, ..)| own == name);
    let (Some(&(_, first_at, _)), Some(&(_, length_at, _)), Some(&(_, buffer_at, buffer))) =
        (member("head"), member("len"), member("buf"))
    else {
        return Ok(None);
    };
    let (pointer, capacity) = (find_pointer(view, buffer, "pointer")?, find_any(view, buffer, "cap")?);
    let (Some((pointer_at, _)), Some((capacity_at, capacity))) = (pointer, capacity) else { return Ok(None) };
    let Some(&element) = parameters(view, at)?.first() else { return Ok(None) };
    // Of elements without a size there is no buffer, and its capacity means nothing.
    if read(view, capacity)?.bytes != 8 || read(view, element)?.bytes == 0 {
        return Ok(None);
    }
    let inside = |at: u32| u32::try_from(buffer_at).ok()?.checked_add(at);
    let shape = || {
        Some(NativeShape::Ring {
            address_at: inside(pointer_at)?,
            capacity_at: inside(capacity_at)?,
            first_at: u32::try_from(first_at).ok()?,
            length_at: u32::try_from(length_at).ok()?,
            element,
        })
    };
    Ok(shape())
}

fn text(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let Some((vector_at, vector)) = find_any(view, at, "vec")? else { return Ok(None) };
    let parts = vector_parts(view, vector)?;
    Ok(parts.and_then(|(address_at, length_at)| {
        Some(NativeShape::Text {
            address_at: vector_at.checked_add(address_at)?,
            length_at: vector_at.checked_add(length_at)?,
        })
    }))
}

/// `Rc` and `Arc`: the address of the counts and the value.
fn counted(view: &View<'_>, at: Die, name: &str) -> Result<Option<NativeShape>, ResolveError> {
    let held = name.split_once('<').map_or("", |(_, held)| held);
    if held.starts_with('[') || held.starts_with("str,") || held == "str>" {
        let shared = shared(view, at, !held.starts_with('['))?;
        // An array has its size in its type.
        if shared.is_some() {
            return Ok(shared);
        }
    }
    let Some((address_at, pointer)) = find_pointer(view, at, "pointer")? else { return Ok(None) };
    let Some(to) = pointee(view, pointer)? else { return Ok(None) };
    if let Some((table_at, _)) = find_any(view, at, "vtable")? {
        let of_trait = view.name(to)?.as_deref().and_then(trait_of);
        return Ok(of_trait.map(|of_trait| NativeShape::Object {
            at: address_at,
            table_at,
            of_trait,
            counted: Some(to),
        }));
    }
    Ok(Some(NativeShape::Reference { at: address_at, to: Some(to) }))
}

/// The same of a text or a slice, whose length is beside the address: with the type of the counts and of the first element,
/// which lies behind them unless it is aligned to more than they are.
fn shared(view: &View<'_>, at: Die, is_text: bool) -> Result<Option<NativeShape>, ResolveError> {
    let (Some((address_at, pointer)), Some((length_at, length))) =
        (find_pointer(view, at, "data_ptr")?, find_any(view, at, "length")?)
    else {
        return Ok(None);
    };
    let Some(inner) = pointee(view, pointer)? else { return Ok(None) };
    let own = members(view, inner)?;
    let Some((_, offset, element)) = own.iter().find(|(name, ..)| matches!(name.as_str(), "value" | "data")) else {
        return Ok(None);
    };
    let is_behind = *offset == COUNTS_BYTES && read(view, length)?.bytes == 8;
    let element = (!is_text).then_some(*element);
    Ok(is_behind.then_some(NativeShape::Shared { address_at, length_at, element }))
}

/// `HashMap`, `HashSet`: those of the crate `hashbrown`, `raw::RawTable`, whatever they are wrapped in.
fn hash_table(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let is_table = |ty| Ok(view.name(ty)?.is_some_and(|name| name.starts_with("RawTable<")));
    let (table_at, table) = match is_table(at)? {
        true => (0, at),
        false => match find(view, at, "table", &is_table)? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    let Some(&entry) = parameters(view, table)?.first() else { return Ok(None) };
    let word = |name: &str| -> Result<Option<u32>, ResolveError> {
        let Some((at, ty)) = find_any(view, table, name)? else { return Ok(None) };
        Ok((read(view, ty)?.bytes == 8).then_some(at).and_then(|at| table_at.checked_add(at)))
    };
    let (Some(control_at), Some(mask_at), Some(count_at)) = (word("ctrl")?, word("bucket_mask")?, word("items")?)
    else {
        return Ok(None);
    };
    Ok(Some(NativeShape::HashTable { control_at, mask_at, count_at, entry }))
}

/// `BTreeMap`, `BTreeSet`: `root`, an optional `NodeRef` (`height` and `node`), and `length`.
fn b_tree(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let (map_at, map) = match members(view, at)?.iter().find(|(name, ..)| name == "map") {
        Some(&(_, offset, map)) => (offset, map),
        None => (0, at),
    };
    let own = members(view, map)?;
    let member = |name: &str| own.iter().find(|(own, ..)| own == name).map(|&(_, at, ty)| (at, ty));
    let (Some((root_at, root)), Some((count_at, _))) = (member("root"), member("length")) else { return Ok(None) };
    let Some((some_at, reference)) = some(view, root)? else { return Ok(None) };
    let (Some((height_at, _)), Some((node_at, node))) =
        (find_any(view, reference, "height")?, find_pointer(view, reference, "pointer")?)
    else {
        return Ok(None);
    };
    let Some(leaf) = pointee(view, node)? else { return Ok(None) };
    let (Some((used_at, used)), Some((keys_at, _)), Some((values_at, _)), Some((_, parent))) = (
        find_any(view, leaf, "len")?,
        find_any(view, leaf, "keys")?,
        find_any(view, leaf, "vals")?,
        find_any(view, leaf, "parent")?,
    ) else {
        return Ok(None);
    };
    let inner = match some(view, parent)? {
        Some((_, parent)) => match find_pointer(view, parent, "pointer")? {
            Some((_, pointer)) => pointee(view, pointer)?,
            None => None,
        },
        None => None,
    };
    let Some(inner) = inner else { return Ok(None) };
    let (Some((edges_at, _)), Some((data_at, _))) = (find_any(view, inner, "edges")?, find_any(view, inner, "data")?)
    else {
        return Ok(None);
    };
    let [key, value, ..] = parameters(view, map)?[..] else { return Ok(None) };
    // A node that is no leaf begins with one: so it is laid out (`repr(C)`), and so its addresses are used.
    if data_at != 0 || read(view, used)?.bytes != 2 {
        return Ok(None);
    }
    let inside = |offset: u64, inside: u32| u32::try_from(map_at.checked_add(offset)?).ok()?.checked_add(inside);
    let (Some(root_word), Some(height_at), Some(count_at), Ok(leaf_bytes)) = (
        inside(root_at, some_at.saturating_add(node_at)),
        inside(root_at, some_at.saturating_add(height_at)),
        inside(count_at, 0),
        u32::try_from(read(view, leaf)?.bytes),
    ) else {
        return Ok(None);
    };
    // The values of a set are of no size (`SetValZST`).
    let value = (map == at).then_some(value);
    Ok(Some(NativeShape::BTree(BTreeFacts {
        root_at: root_word,
        height_at,
        count_at,
        leaf_bytes,
        used_at,
        keys_at,
        values_at,
        edges_at,
        key,
        value,
    })))
}

/// What `Some` of an `Option` holds, and where.
fn some(view: &View<'_>, option: Die) -> Result<Option<(u32, Die)>, ResolveError> {
    let Shape::Native(NativeShape::Variants { variants, .. }) = read(view, option)?.shape else { return Ok(None) };
    let some = variants.into_iter().find(|variant| variant.name == "Some");
    Ok(some.and_then(|some| Some((some.at, some.ty?))))
}

fn wrapper(view: &View<'_>, at: Die) -> Result<Option<NativeShape>, ResolveError> {
    let mut only = None;
    for (_, offset, ty) in members(view, at)? {
        if read(view, ty)?.bytes > 0 && only.replace((offset, ty)).is_some() {
            return Ok(None);
        }
    }
    Ok(only.and_then(|(at, ty)| Some(NativeShape::Part { at: u32::try_from(at).ok()?, ty })))
}

/// The variants of a variant part; `None` where it says something that cannot be read.
fn variants<'a>(view: &View<'a>, unit: &Unit<'a>, part: Die) -> Result<Option<NativeShape>, ResolveError> {
    let mut tag = None;
    let mut found = Vec::new();
    for_children(unit, part, |entry| match entry.tag() {
        gimli::DW_TAG_member => {
            let ty = view.target(part.unit, entry.attr_value(gimli::DW_AT_type));
            tag = ty.map(|ty| (unsigned(entry, gimli::DW_AT_data_member_location).unwrap_or(0), ty));
        }
        gimli::DW_TAG_variant if found.len() < MEMBERS_MAX => {
            let value = entry.attr_value(gimli::DW_AT_discr_value);
            let is_listed = entry.has_attr(gimli::DW_AT_discr_list);
            found.push((Die { unit: part.unit, offset: entry.offset() }, value, is_listed));
        }
        _ => {}
    })?;
    let tag = match tag {
        Some((at, ty)) => {
            let (Ok(at), bytes @ (1 | 2 | 4 | 8)) = (u32::try_from(at), read(view, ty)?.bytes) else { return Ok(None) };
            Some((at, bytes as u8))
        }
        None => None,
    };
    let mut variants = Vec::with_capacity(found.len());
    for (die, value, is_listed) in found {
        let tags = match (value, tag) {
            _ if is_listed => return Ok(None),
            (None, _) | (_, None) => Vec::new(),
            (Some(value), Some((_, bytes))) => {
                let number = match value {
                    AttributeValue::Sdata(number) => Some(number as u64),
                    other => other.udata_value().or(other.sdata_value().map(|number| number as u64)),
                };
                let Some(number) = number else { return Ok(None) };
                let mask = if bytes == 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 };
                vec![(number & mask, number & mask)]
            }
        };
        let mut member = None;
        for_children(unit, die, |entry| {
            if entry.tag() == gimli::DW_TAG_member {
                let ty = view.target(part.unit, entry.attr_value(gimli::DW_AT_type));
                let at = unsigned(entry, gimli::DW_AT_data_member_location).unwrap_or(0);
                member = Some((view.name_of(unit, entry).unwrap_or_default(), at, ty));
            }
        })?;
        let Some((name, at, ty)) = member else { continue };
        let Ok(at) = u32::try_from(at) else { return Ok(None) };
        variants.push(VariantFacts { name, tags, at, ty });
    }
    // Two that take all other values: one of them is not known.
    if tag.is_some() && variants.iter().filter(|variant| variant.tags.is_empty()).count() > 1 {
        return Ok(None);
    }
    Ok(Some(NativeShape::Variants { tag, variants }))
}

//! C++: the standard library's types as GNU libstdc++ lays them out, known by the names of its members
//! (`bits/basic_string.h`, `bits/stl_vector.h`, `bits/stl_tree.h`, `bits/hashtable.h`, `bits/unique_ptr.h`,
//! `bits/shared_ptr_base.h`, `optional`).

use super::super::super::ResolveError;
use super::super::super::debug_info::{Die, View};
use super::super::read;
use super::{NativeShape, VariantFacts, find, find_any, find_pointer, parameters, pointee, stripped};
use riptrace_protocol::layout::SequenceLength;

/// Bytes of `_Rb_tree_node_base`, behind which is the entry of a node: a multiple of every alignment up to 32.
const TREE_NODE_BASE: u32 = 32;
/// Bytes of `_Hash_node_base`, behind which is the entry, unless it is aligned to more.
const HASH_NODE_BASE: u32 = 8;

/// What a class is, if it is more than its members.
pub(super) fn structure(view: &View<'_>, at: Die, name: &str) -> Result<Option<NativeShape>, ResolveError> {
    let Some((class, _)) = name.split_once('<') else { return Ok(None) };
    match class {
        "basic_string" if name.starts_with("basic_string<char,") => {
            let (Some((address_at, _)), Some((length_at, _))) =
                (find_pointer(view, at, "_M_p")?, find_any(view, at, "_M_string_length")?)
            else {
                return Ok(None);
            };
            Ok(Some(NativeShape::Text { address_at, length_at }))
        }
        "basic_string_view" if name.starts_with("basic_string_view<char,") => {
            let (Some((address_at, _)), Some((length_at, _))) =
                (find_pointer(view, at, "_M_str")?, find_any(view, at, "_M_len")?)
            else {
                return Ok(None);
            };
            Ok(Some(NativeShape::Text { address_at, length_at }))
        }
        "vector" => {
            let ends = (find_pointer(view, at, "_M_start")?, find_pointer(view, at, "_M_finish")?);
            let (Some((address_at, pointer)), Some((end_at, _))) = ends else { return Ok(None) };
            let element = pointee(view, pointer)?;
            let length = SequenceLength::End(end_at);
            Ok(element.map(|element| NativeShape::Sequence { address_at, length, element }))
        }
        "array" => Ok(find_any(view, at, "_M_elems")?.map(|(at, ty)| NativeShape::Part { at, ty })),
        "atomic" => {
            let inner = find_any(view, at, "_M_i")?.or(find_any(view, at, "_M_p")?);
            Ok(inner.map(|(at, ty)| NativeShape::Part { at, ty }))
        }
        "unique_ptr" => {
            let Some(&held) = parameters(view, at)?.first() else { return Ok(None) };
            let held = stripped(view, held)?;
            // The deleter may have a pointer of the same name.
            let points_there = |ty| match pointee(view, ty)? {
                Some(to) => Ok(stripped(view, to)? == held),
                None => Ok(false),
            };
            let pointer = find(view, at, "_M_head_impl", &points_there)?;
            Ok(pointer.map(|(at, _)| NativeShape::Reference { at, to: Some(held) }))
        }
        "shared_ptr" => {
            let Some((address_at, pointer)) = find_pointer(view, at, "_M_ptr")? else { return Ok(None) };
            Ok(Some(NativeShape::Reference { at: address_at, to: pointee(view, pointer)? }))
        }
        "optional" => {
            let (Some((engaged_at, _)), Some((value_at, value))) =
                (find_any(view, at, "_M_engaged")?, find_any(view, at, "_M_value")?)
            else {
                return Ok(None);
            };
            let variant =
                |name: &str, tag, at, ty| VariantFacts { name: name.to_owned(), tags: vec![(tag, tag)], at, ty };
            let variants = vec![variant("nullopt", 0, 0, None), variant("", 1, value_at, Some(value))];
            Ok(Some(NativeShape::Variants { tag: Some((engaged_at, 1)), variants }))
        }
        "map" | "set" | "multimap" | "multiset" => {
            let Some((tree_at, tree)) = find_any(view, at, "_M_t")? else { return Ok(None) };
            let Some(&entry) = parameters(view, tree)?.get(1) else { return Ok(None) };
            let (Some((root_at, _)), Some((count_at, _))) =
                (find_pointer(view, tree, "_M_parent")?, find_any(view, tree, "_M_node_count")?)
            else {
                return Ok(None);
            };
            let Some((header_at, header)) = find_any(view, tree, "_M_header")? else { return Ok(None) };
            let (Some((left_at, _)), Some((right_at, _))) =
                (find_pointer(view, header, "_M_left")?, find_pointer(view, header, "_M_right")?)
            else {
                return Ok(None);
            };
            let is_inside = root_at >= header_at && read(view, header)?.bytes == u64::from(TREE_NODE_BASE);
            Ok(is_inside.then_some(NativeShape::Tree {
                root_at: tree_at.saturating_add(root_at),
                count_at: tree_at.saturating_add(count_at),
                left_at,
                right_at,
                entry_at: TREE_NODE_BASE,
                entry,
            }))
        }
        "unordered_map" | "unordered_set" | "unordered_multimap" | "unordered_multiset" => {
            let Some((table_at, table)) = find_any(view, at, "_M_h")? else { return Ok(None) };
            let Some(&entry) = parameters(view, table)?.get(1) else { return Ok(None) };
            let (Some((first_at, first)), Some((count_at, _))) =
                (find_any(view, table, "_M_before_begin")?, find_any(view, table, "_M_element_count")?)
            else {
                return Ok(None);
            };
            // An entry that is aligned to sixteen bytes lies elsewhere in its node.
            if read(view, first)?.bytes != u64::from(HASH_NODE_BASE) || has_wide_parts(view, entry, 0)? {
                return Ok(None);
            }
            Ok(Some(NativeShape::List {
                first_at: table_at.saturating_add(first_at),
                count_at: table_at.saturating_add(count_at),
                entry_at: HASH_NODE_BASE,
                entry,
            }))
        }
        _ => Ok(None),
    }
}

/// Whether there may be something in it that is aligned to more than eight bytes.
fn has_wide_parts(view: &View<'_>, die: Die, nesting: usize) -> Result<bool, ResolveError> {
    if nesting > super::NESTING_MAX {
        return Ok(true);
    }
    let at = stripped(view, die)?;
    let (_, entry) = view.entry(at)?;
    if entry.has_attr(gimli::DW_AT_alignment) {
        return Ok(true);
    }
    if entry.tag() == gimli::DW_TAG_base_type {
        return Ok(read(view, at)?.bytes > 8);
    }
    if entry.tag() == gimli::DW_TAG_array_type {
        let element = view.target(at.unit, entry.attr_value(gimli::DW_AT_type));
        return element.map_or(Ok(true), |element| has_wide_parts(view, element, nesting + 1));
    }
    for (_, _, ty) in super::members(view, at)? {
        if has_wide_parts(view, ty, nesting + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

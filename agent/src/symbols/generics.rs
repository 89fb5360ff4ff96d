//! Concrete types of what generic functions of Go work on.
//!
//! Go compiles one body for all types of one shape (`put[go.shape.int]`) and passes it a dictionary that tells the types
//! (`cmd/compile/internal/noder/reader.go`). A variable whose type depends on a type parameter has a typedef `.paramN`
//! with the place of its type in the dictionary (`DW_AT_go_dict_index`; Delve: `pkg/proc/types.go`,
//! `resolveParametricType`). Where the dictionary is at a site, the debug information states wrongly in optimised code
//! (it names a slot that nobody has written), so it is not asked.
//!
//! Instead, all dictionaries that the body could be called with are looked at: each is an object of its own
//! (`main..dict.put[int]`), and whoever calls the body refers to one of them. What all of those agree on that fit the
//! shapes of the function's variables is certain; where they do not agree, a variable keeps the name of its shape.
//! A copy of the function inside another one needs no dictionary, so nothing is concluded for those, nor for closures.

use super::debug_info::{Die, View};
use super::scope::Local;
use super::types::go::DW_AT_GO_KIND;
use super::types::{self, go_constants, unsigned};
use super::{Build, ResolveError, Site, Svma};
use gimli::DwAt;
use std::collections::BTreeMap;

const DW_AT_GO_DICT_INDEX: DwAt = DwAt(0x2906);
/// Dictionaries of one function that are looked at, at most; of more, nothing is concluded.
const DICTIONARIES_MAX: usize = 256;
/// Place in a dictionary that is believed, at most.
const INDEX_MAX: u64 = 1024;
/// Typedefs between a name and its type, at most.
const HOPS_MAX: usize = 8;

/// Gives variables their concrete types, where these are certain.
pub(crate) fn concrete(build: &Build, view: &View<'_>, site: &Site, locals: &mut [Local]) -> Result<(), ResolveError> {
    let Some(prefix) = dictionary_prefix(&site.function).filter(|_| !site.is_inlined()) else { return Ok(()) };
    let mut shaped: BTreeMap<Die, u64> = BTreeMap::new();
    for ty in locals.iter().filter_map(|local| local.ty) {
        if let Some(index) = dictionary_index(view, ty)? {
            shaped.insert(ty, index);
        }
    }
    if shaped.is_empty() {
        return Ok(());
    }
    let Some(types) = build.go_types(view) else { return Ok(()) };
    let dictionaries = build.objects_named(&prefix, DICTIONARIES_MAX + 1);
    if dictionaries.len() > DICTIONARIES_MAX {
        return Ok(());
    }
    // By the typedefs: what the dictionaries say that fit all of them.
    let mut told: BTreeMap<Die, Vec<Option<Die>>> = BTreeMap::new();
    for dictionary in dictionaries {
        let mut of_this = Vec::new();
        let mut fits = true;
        for (&shape, &index) in &shaped {
            let word = build.initial_word(Svma(dictionary.0.wrapping_add(index * 8)));
            let found = word.and_then(|word| types.at(word));
            fits &= match found {
                Some(found) => is_of_shape(view, shape, found)?,
                // A type without debug information may be of any shape.
                None => true,
            };
            of_this.push((shape, found));
        }
        if fits {
            of_this.into_iter().for_each(|(shape, found)| told.entry(shape).or_default().push(found));
        }
    }
    for local in locals {
        let Some(all) = local.ty.and_then(|ty| told.get(&ty)) else { continue };
        if let Some(&Some(first)) = all.first()
            && all.iter().all(|other| *other == Some(first))
        {
            local.ty = Some(first);
        }
    }
    Ok(())
}

/// What the names of the dictionaries of a function begin with: `main..dict.put[` of `main.put[go.shape.int]`,
/// `main..dict.box[` of `main.(*box[go.shape.int]).put`. `None` for what is not generic, and for closures.
fn dictionary_prefix(function: &str) -> Option<String> {
    let at = function.find("[go.shape.")?;
    let mut open = 0usize;
    let end = function[at..].char_indices().find_map(|(offset, c)| {
        match c {
            '[' => open += 1,
            ']' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(at + offset + 1)
    })?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let rest = &function[end..];
    let method = rest.strip_prefix(").").or_else(|| rest.strip_prefix('.'));
    if !rest.is_empty() && !method.is_some_and(is_name) {
        return None;
    }
    let head = &function[..at];
    let package = go_constants::package(head)?;
    let own = head.get(package.len() + 1..)?.trim_start_matches("(*");
    // `F.func1`: a closure of a method or function is none of these; it has no type arguments of its own.
    (is_name(own) && !method.is_some_and(|name| name.starts_with("func") && name[4..].parse::<u32>().is_ok()))
        .then(|| format!("{package}..dict.{own}["))
}

/// The place in the dictionary of a type that depends on a type parameter; `None` for other types.
fn dictionary_index(view: &View<'_>, ty: Die) -> Result<Option<u64>, ResolveError> {
    let (_, entry) = view.entry(ty)?;
    let index = unsigned(&entry, DW_AT_GO_DICT_INDEX).filter(|index| *index <= INDEX_MAX);
    Ok(index.filter(|_| entry.tag() == gimli::DW_TAG_typedef))
}

/// Whether a type may be what a shape stands for: kind and size are the same.
fn is_of_shape(view: &View<'_>, shape: Die, ty: Die) -> Result<bool, ResolveError> {
    let same_kind = match (kind(view, shape)?, kind(view, ty)?) {
        (Some(shape), Some(own)) => shape == own,
        _ => true,
    };
    Ok(same_kind && types::read(view, shape)?.bytes == types::read(view, ty)?.bytes)
}

/// `reflect.Kind` of a type.
fn kind(view: &View<'_>, die: Die) -> Result<Option<u64>, ResolveError> {
    let mut at = die;
    for _ in 0..HOPS_MAX {
        let (_, entry) = view.entry(at)?;
        if let Some(kind) = unsigned(&entry, DW_AT_GO_KIND) {
            return Ok(Some(kind));
        }
        match view.target(at.unit, entry.attr_value(gimli::DW_AT_type)) {
            Some(next) if entry.tag() == gimli::DW_TAG_typedef => at = next,
            _ => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::dictionary_prefix;

    #[test]
    fn dictionaries_are_named_after_functions_and_types() {
        for (function, wanted) in [
            ("main.put[go.shape.int,go.shape.uint8]", Some("main..dict.put[")),
            ("main.(*box[go.shape.string]).put", Some("main..dict.box[")),
            ("main.box[go.shape.[]int].Get", Some("main..dict.box[")),
            ("example.com/p/st.Map[go.shape.*uint8]", Some("example.com/p/st..dict.Map[")),
            ("main.put[go.shape.int].func1", None),
            ("main.put[go.shape.int].func1.2", None),
            ("main.(*box[go.shape.string]).put-fm", None),
            ("main.main", None),
        ] {
            assert_eq!(dictionary_prefix(function).as_deref(), wanted, "{function}");
        }
    }
}

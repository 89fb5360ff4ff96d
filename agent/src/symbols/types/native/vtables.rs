//! Tables of methods of Rust's trait objects: which type a table is of.
//!
//! The compiler describes each as a variable of its own, named `<Type as Trait>::{vtable}`, whose type contains the type
//! that the table is of (`DW_AT_containing_type`; `rustc_codegen_llvm`, `debuginfo/metadata.rs`,
//! `create_vtable_di_node`). Linkers may make one of equal tables of several types: such a table tells no type.

use super::{Tongue, tongue};
use crate::symbols::debug_info::{Die, Unit, View};
use crate::symbols::{ResolveError, Svma};
use gimli::{AttributeValue, Operation};
use std::collections::HashMap;

/// Tables that are kept, at most: those of a program of 100 MB are some ten thousand.
const TABLES_MAX: usize = 1 << 17;

/// A table of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vtable {
    /// Where it is.
    pub(crate) address: Svma,
    /// The type whose methods are in it.
    pub(crate) of: Die,
}

/// All tables of a build, by the trait that they are for.
#[derive(Debug, Default)]
pub(crate) struct Vtables {
    by_trait: HashMap<Box<str>, Vec<Vtable>>,
}

impl Vtables {
    /// Reads them.
    pub(in crate::symbols) fn read(view: &View<'_>) -> Result<Vtables, ResolveError> {
        let mut found: HashMap<u64, (Box<str>, Die, String)> = HashMap::new();
        let mut shared: Vec<u64> = Vec::new();
        for number in 0..view.index.units.len() as u32 {
            let unit = view.unit(number)?;
            if tongue(&unit) != Tongue::Rust {
                continue;
            }
            for offset in variables(&unit)? {
                let die = Die { unit: number, offset };
                let name = view.name(die)?.unwrap_or_default();
                let Some((_, of_trait)) = parts(&name).filter(|_| found.len() < TABLES_MAX) else { continue };
                let Some((address, of)) = read_one(view, die)? else { continue };
                let name = view.name(of)?.unwrap_or_default();
                // Each unit that uses a type describes it.
                match found.get(&address.0) {
                    Some((_, _, known)) if *known != name => shared.push(address.0),
                    Some(_) => {}
                    None => drop(found.insert(address.0, (of_trait.into(), of, name))),
                }
            }
        }
        let mut by_trait: HashMap<Box<str>, Vec<Vtable>> = HashMap::new();
        for (address, (of_trait, of, _)) in found {
            if !shared.contains(&address) {
                by_trait.entry(of_trait).or_default().push(Vtable { address: Svma(address), of });
            }
        }
        by_trait.values_mut().for_each(|tables| tables.sort_by_key(|table| table.address));
        Ok(Vtables { by_trait })
    }

    /// The tables for a trait, by their addresses.
    pub(crate) fn of(&self, of_trait: &str) -> &[Vtable] {
        self.by_trait.get(of_trait).map_or(&[], Vec::as_slice)
    }
}

/// The variables of a unit that are in nothing else: whatever is in functions and types is passed over.
fn variables(unit: &Unit<'_>) -> Result<Vec<gimli::UnitOffset<usize>>, ResolveError> {
    let mut reader = unit.entries_raw(None)?;
    let mut found = Vec::new();
    while !reader.is_empty() {
        let (offset, depth) = (reader.next_offset(), reader.next_depth());
        let Some(abbreviation) = reader.read_abbreviation()? else { continue };
        reader.skip_attributes(abbreviation.attributes())?;
        if depth == 1 && abbreviation.tag() == gimli::DW_TAG_variable {
            found.push(offset);
        }
    }
    Ok(found)
}

/// Type and trait of a table's name.
fn parts(name: &str) -> Option<(&str, &str)> {
    let inner = name.strip_prefix('<')?.strip_suffix(">::{vtable}")?;
    // The type may have another `as` in it, and the trait as well: the one outside of all brackets parts them.
    let mut nesting = 0i32;
    let bytes = inner.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => nesting += 1,
            // Not the arrow of a function's result.
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => nesting -= 1,
            b' ' if nesting == 0 && inner[at..].starts_with(" as ") => return Some((&inner[..at], &inner[at + 4..])),
            _ => {}
        }
    }
    None
}

fn read_one(view: &View<'_>, die: Die) -> Result<Option<(Svma, Die)>, ResolveError> {
    let (unit, entry) = view.entry(die)?;
    let Some(ty) = view.target(die.unit, entry.attr_value(gimli::DW_AT_type)) else { return Ok(None) };
    let (_, described) = view.entry(ty)?;
    let Some(of) = view.target(ty.unit, described.attr_value(gimli::DW_AT_containing_type)) else { return Ok(None) };
    let Some(AttributeValue::Exprloc(place)) = entry.attr_value(gimli::DW_AT_location) else { return Ok(None) };
    let mut operations = place.operations(unit.encoding());
    let address = match operations.next()? {
        Some(Operation::Address { address }) => address,
        Some(Operation::AddressIndex { index }) => view.dwarf.address(&unit, index)?,
        _ => return Ok(None),
    };
    Ok((operations.next()?.is_none() && address != 0).then_some((Svma(address), of)))
}

/// The trait that a trait object is of, as the names of tables write it: of `dyn t::Shape`, `(dyn t::Shape +
/// core::marker::Send)`, `alloc::rc::RcInner<dyn t::Shape>`, without the types that the object's type binds
/// (`Output=i32`).
pub(super) fn trait_of(name: &str) -> Option<String> {
    let (_, rest) = name.split_once("dyn ")?;
    let mut found = String::new();
    let mut nesting = 0i32;
    // Where a bound type begins: what follows is left out up to the end of its list.
    let mut bound = None;
    let bytes = rest.as_bytes();
    for (at, c) in rest.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => nesting += 1,
            '>' if at > 0 && bytes[at - 1] == b'-' => {}
            '>' | ')' | ']' | '}' => {
                nesting -= 1;
                if nesting < 0 {
                    break;
                }
                if bound.is_some_and(|level| nesting < level) {
                    bound = None;
                    // A list of nothing but bound types is none.
                    if found.ends_with('<') {
                        found.pop();
                        continue;
                    }
                }
            }
            ',' if nesting == 0 => break,
            ' ' if nesting == 0 && rest[at..].starts_with(" + ") => break,
            '=' if bound.is_none() && nesting > 0 => {
                // Back to where the name of the bound type began.
                let start = found.rfind([',', '<']).unwrap_or(0);
                found.truncate(if found[start..].starts_with('<') { start + 1 } else { start });
                bound = Some(nesting);
            }
            _ => {}
        }
        if bound.is_none() {
            found.push(c);
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::{parts, trait_of};

    #[test]
    fn a_tables_name_tells_type_and_trait() {
        for (name, wanted) in [
            ("<t::Sq as t::Shape>::{vtable}", Some(("t::Sq", "t::Shape"))),
            ("<t::W<u8> as core::ops::Fn<(i32)>>::{vtable}", Some(("t::W<u8>", "core::ops::Fn<(i32)>"))),
            ("<<a::T as b::Q>::R as t::Shape>::{vtable}", Some(("<a::T as b::Q>::R", "t::Shape"))),
            ("<fn(u8) -> u8 as t::Shape>::{vtable}", Some(("fn(u8) -> u8", "t::Shape"))),
            ("<t::Sq as t::Shape>::{vtable_type}", None),
            ("counter", None),
        ] {
            assert_eq!(parts(name), wanted, "{name}");
        }
    }

    #[test]
    fn the_trait_of_an_object_is_without_what_it_is_marked_with_and_binds() {
        for (name, wanted) in [
            ("dyn t::Shape", Some("t::Shape")),
            ("&dyn t::Shape", Some("t::Shape")),
            ("alloc::boxed::Box<dyn t::Shape, alloc::alloc::Global>", Some("t::Shape")),
            ("&(dyn t::Shape + core::marker::Send)", Some("t::Shape")),
            ("RcInner<dyn t::Of<u8, i32>>", Some("t::Of<u8, i32>")),
            ("dyn core::ops::function::Fn<(i32, u8), Output=i32>", Some("core::ops::function::Fn<(i32, u8)>")),
            ("dyn core::iter::Iterator<Item=alloc::vec::Vec<u8>>", Some("core::iter::Iterator")),
            ("&str", None),
        ] {
            assert_eq!(trait_of(name).as_deref(), wanted, "{name}");
        }
    }
}

//! Classes of C++ with virtual functions, and which objects have which: by the tables that their first words lead to.
//!
//! An object of a class with virtual functions begins with the address of a place in the class's table, sixteen bytes
//! behind the symbol `_ZTV..` (Itanium C++ ABI, 2.5.2: offset to top and type information come first) unless the class
//! has virtual bases, whose offsets come before: such a class is not told. The table of another class never has that
//! address, so an object whose first word is it begins where the pointer leads, whatever the pointer says of it. Which
//! description belongs to a table is told by the name. A linker may make one of equal tables of several classes: such a
//! table tells no class, and its objects are what their pointers say.
//!
//! A namespace without a name is another one in each unit: the table and the description of a class in one belong
//! together if both are of a source file of the same name, and of one unit only.

use super::vtables::Vtable;
use super::{Tongue, stripped, tongue};
use crate::symbols::debug_info::{self, Die, View};
use crate::symbols::demangle::demangled;
use crate::symbols::names::{Symbol, SymbolNames};
use crate::symbols::types::{for_children, unsigned};
use crate::symbols::{ResolveError, Svma};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Classes with virtual functions that are kept, at most, each once for every unit that describes it.
const CLASSES_MAX: usize = 1 << 17;
/// Namespaces and classes within each other, at most.
const NESTING_MAX: usize = 64;
/// Bases of bases, at most.
const BASES_MAX: usize = 32;
/// Where objects lead to, behind a table's symbol.
const ADDRESS_POINT: u64 = 16;
/// How a namespace without a name is written: by demanglers, and in names of templates by GCC.
const UNNAMED: &str = "(anonymous namespace)";
const UNNAMED_BY_GCC: &str = "{anonymous}";

/// The classes of a build.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// The full name of each description; behind that of a class that only one unit knows is its source file.
    names: HashMap<Die, String>,
    /// By the full name of a class: the tables of itself and of those that begin with one of it.
    tables: HashMap<String, Vec<Vtable>>,
}

impl Classes {
    /// Reads them.
    pub(in crate::symbols) fn read(view: &View<'_>, symbols: &SymbolNames) -> Result<Classes, ResolveError> {
        let mut classes = Classes::default();
        // The class that an object of a class begins with.
        let mut first_bases: HashMap<Die, Die> = HashMap::new();
        for unit in 0..view.index.units.len() as u32 {
            classes.add_unit(view, unit, &mut first_bases)?;
        }
        let mut described: HashMap<&str, (Die, Option<u64>)> = HashMap::new();
        let mut tables: HashMap<String, Vec<Vtable>> = HashMap::new();
        let (mut seen, mut ambiguous) = (HashMap::new(), HashSet::new());
        for (die, name) in &classes.names {
            let bytes = unsigned(&view.entry(*die)?.1, gimli::DW_AT_byte_size);
            let known = described.entry(name).or_insert((*die, bytes));
            // Two of one name are one class, unless the program breaks the language's rule, or each is its unit's own.
            if known.1 != bytes || (known.0 != *die && is_hidden(name)) {
                ambiguous.insert(name.clone());
            }
            known.0 = known.0.min(*die);
        }
        // What a table is named for, by its address; `None` for several.
        let mut named: HashMap<u64, Option<String>> = HashMap::new();
        for Symbol { address, name: symbol, file } in symbols.named_like("_ZTV") {
            let Some(name) = class_of(symbol) else { continue };
            let name = in_file(name, file);
            match named.entry(address) {
                Entry::Occupied(mut other) => {
                    if other.get().as_ref() != Some(&name) {
                        other.insert(None);
                    }
                }
                Entry::Vacant(vacant) => drop(vacant.insert(Some(name))),
            }
        }
        for (address, name) in named {
            let Some(name) = name else { continue };
            if seen.insert(name.clone(), address).is_some_and(|before| before != address) {
                ambiguous.insert(name);
            }
        }
        for (name, address) in seen {
            let Some(&(of, _)) = described.get(name.as_str()).filter(|_| !ambiguous.contains(&name)) else { continue };
            let table = Vtable { address: Svma(address.saturating_add(ADDRESS_POINT)), of };
            let mut at = Some(of);
            for _ in 0..BASES_MAX {
                let Some(name) = at.and_then(|at| classes.names.get(&at)) else { break };
                tables.entry(name.clone()).or_default().push(table);
                at = at.and_then(|at| first_bases.get(&at)).copied();
            }
        }
        tables.values_mut().for_each(|tables| tables.sort_by_key(|table| table.address));
        classes.tables = tables;
        Ok(classes)
    }

    fn add_unit(
        &mut self,
        view: &View<'_>,
        number: u32,
        first_bases: &mut HashMap<Die, Die>,
    ) -> Result<(), ResolveError> {
        let unit = view.unit(number)?;
        if tongue(&unit) != Tongue::Cpp {
            return Ok(());
        }
        let root = unit.entry(unit.header.root_offset())?;
        let source = view.name_of(&unit, &root);
        let source = source.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
        let mut reader = unit.entries_raw(None)?;
        // Names of what an entry is in, as long as all of it is namespaces and classes.
        let mut within: Vec<String> = Vec::new();
        while !reader.is_empty() && self.names.len() < CLASSES_MAX {
            let (offset, depth) = (reader.next_offset(), reader.next_depth());
            let Some(abbreviation) = reader.read_abbreviation()? else { continue };
            reader.skip_attributes(abbreviation.attributes())?;
            let tag = abbreviation.tag();
            let Some(above) = usize::try_from(depth).ok().and_then(|depth| depth.checked_sub(1)) else {
                continue;
            };
            // What is in a function is in no namespace that is open.
            within.truncate(above);
            let is_class = matches!(tag, gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type);
            if !(is_class || tag == gimli::DW_TAG_namespace) || above > within.len() || above >= NESTING_MAX {
                continue;
            }
            let entry = unit.entry(offset)?;
            let name = match view.name_of(&unit, &entry) {
                Some(name) => name,
                None if is_class => continue,
                None => UNNAMED.to_owned(),
            };
            within.push(name);
            if !is_class || !is_polymorphic(&entry) {
                continue;
            }
            let die = Die { unit: number, offset };
            self.names.insert(die, in_file(plain(&within.join("::")), source));
            let mut first = Vec::new();
            for_children(&unit, die, |child| {
                let is_first = child.tag() == gimli::DW_TAG_inheritance
                    && match child.attr_value(gimli::DW_AT_data_member_location) {
                        None => true,
                        Some(offset) => offset.udata_value() == Some(0),
                    };
                if is_first {
                    first.extend(view.target(number, child.attr_value(gimli::DW_AT_type)));
                }
            })?;
            // A base of no size may lie there as well.
            for base in first {
                let base = stripped(view, base)?;
                if has_table(view, base)? {
                    first_bases.insert(die, base);
                }
            }
        }
        Ok(())
    }

    /// The tables of the objects that a pointer to a class may lead to: its own and those of what begins with it.
    pub(crate) fn of(&self, view: &View<'_>, class: Die) -> Result<&[Vtable], ResolveError> {
        let name = self.names.get(&stripped(view, class)?);
        Ok(name.and_then(|name| self.tables.get(name)).map_or(&[], Vec::as_slice))
    }
}

/// Whether a type is a class with virtual functions: the compilers say which class it has its table from.
pub(crate) fn has_table(view: &View<'_>, ty: Die) -> Result<bool, ResolveError> {
    let (unit, entry) = view.entry(stripped(view, ty)?)?;
    Ok(tongue(&unit) == Tongue::Cpp && is_polymorphic(&entry))
}

fn is_polymorphic(entry: &debug_info::Entry<'_>) -> bool {
    entry.has_attr(gimli::DW_AT_containing_type) && !entry.has_attr(gimli::DW_AT_declaration)
}

/// The class that a table's symbol names.
fn class_of(symbol: &str) -> Option<String> {
    let name = demangled(symbol);
    let class = name.strip_prefix("{vtable(").and_then(|rest| rest.strip_suffix(")}"));
    class.or_else(|| name.strip_prefix("vtable for ")).map(plain)
}

/// A name without spaces: compilers and demanglers write them differently.
fn plain(name: &str) -> String {
    name.replace(UNNAMED_BY_GCC, UNNAMED).chars().filter(|c| !c.is_whitespace()).collect()
}

/// Whether a plain name has a namespace without a name in it.
fn is_hidden(name: &str) -> bool {
    name.contains(&plain(UNNAMED))
}

/// A plain name; of what only one unit knows, with the source file of that unit.
fn in_file(name: String, file: Option<&str>) -> String {
    match is_hidden(&name) {
        true => format!("{name} in {}", file.unwrap_or("no file")),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::{class_of, in_file, plain};

    #[test]
    fn what_only_a_unit_knows_is_named_with_its_file() {
        let named = |name: &str| in_file(plain(name), Some("a.cc"));
        assert_eq!(named("shop::Circle"), "shop::Circle");
        assert_eq!(named("(anonymous namespace)::Hidden"), "(anonymousnamespace)::Hidden in a.cc");
        assert_eq!(named("Tagged<{anonymous}::Tag>"), "Tagged<(anonymousnamespace)::Tag> in a.cc");
    }

    #[test]
    fn a_tables_symbol_names_its_class() {
        assert_eq!(class_of("_ZTVN4shop6CircleE").as_deref(), Some("shop::Circle"));
        assert_eq!(class_of("_ZTV4PairIiE").as_deref(), Some("Pair<int>"));
        assert_eq!(class_of("_ZTVN12_GLOBAL__N_16HiddenE").as_deref(), Some("(anonymousnamespace)::Hidden"));
        assert_eq!(class_of("_ZTIN4shop6CircleE"), None);
        assert_eq!(class_of("work"), None);
    }
}

//! The constants of Go's integer types.
//!
//! Go's linker writes the typed integer constants of a package beside its functions (`DW_TAG_constant`;
//! `cmd/compile/internal/gc/obj.go`, `dumpGlobalConst`), from Go 1.21 to 1.27 alike; of a package that has no code in the
//! executable, and of constants within functions, it writes none. The constants of a type are those of its own package:
//! another one's may be of the type without naming what it stands for.

use super::unsigned;
use crate::symbols::ResolveError;
use crate::symbols::debug_info::{Die, Entry, View};
use gimli::AttributeValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Constants of one type that are names of its values, at most: a type with more is a table of numbers.
const NAMES_MAX: usize = 256;
/// Constants of one package that are read, at most: `syscall` has some three thousand.
const PACKAGE_MAX: usize = 1 << 16;
/// Types whose values are told by rules of their own: `2s`, `no such file or directory`.
const TOLD_OTHERWISE: [&str; 2] = ["time.Duration", "syscall.Errno"];

/// A constant: its name without the package, its type, its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Constant {
    name: String,
    ty: Die,
    value: i64,
}

/// The constants of the packages that were asked about; shared by all views of a build.
#[derive(Debug, Default)]
pub(in crate::symbols) struct Constants {
    /// Units by the packages that they are of.
    packages: OnceLock<HashMap<String, Vec<u32>>>,
    read: Mutex<HashMap<String, Arc<[Constant]>>>,
}

/// The constants of a named integer type, in the order of the source; none where there are none, or too many.
pub(super) fn of_type(view: &View<'_>, ty: Die, name: &str) -> Result<Vec<(String, i64)>, ResolveError> {
    let Some(package) = package(name).filter(|_| !name.contains('[') && !TOLD_OTHERWISE.contains(&name)) else {
        return Ok(Vec::new());
    };
    let all = of_package(view, package)?;
    let own = || all.iter().filter(|constant| constant.ty == ty);
    if own().count() > NAMES_MAX {
        return Ok(Vec::new());
    }
    Ok(own().map(|constant| (constant.name.clone(), constant.value)).collect())
}

/// The constant of a package, with its type.
pub(crate) fn named(view: &View<'_>, package: &str, name: &str) -> Result<Option<(i64, Die)>, ResolveError> {
    let all = of_package(view, package)?;
    Ok(all.iter().find(|constant| constant.name == name).map(|constant| (constant.value, constant.ty)))
}

/// The package whose path ends with `/name`, if there is but one.
pub(crate) fn package_by_suffix(view: &View<'_>, name: &str) -> Result<Option<String>, ResolveError> {
    let is_it = |path: &&String| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let mut found = packages(view)?.keys().filter(is_it);
    Ok(found.next().filter(|_| found.next().is_none()).cloned())
}

/// The units of the packages that a variable's name may belong to: of all whose path ends with its package.
pub(crate) fn units_of(view: &View<'_>, variable: &str) -> Result<Vec<u32>, ResolveError> {
    let Some(package) = package(variable) else { return Ok(Vec::new()) };
    let is_it = |path: &str| path.strip_suffix(package).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let found = packages(view)?.iter().filter(|(path, _)| is_it(path));
    Ok(found.flat_map(|(_, units)| units.iter().copied()).collect())
}

/// The package of a type or function: what is in front of the first dot behind the last slash.
pub(crate) fn package(name: &str) -> Option<&str> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    Some(&name[..last + name[last..].find('.')?])
}

fn packages<'v>(view: &'v View<'_>) -> Result<&'v HashMap<String, Vec<u32>>, ResolveError> {
    let known = &view.sections.constants().packages;
    if let Some(known) = known.get() {
        return Ok(known);
    }
    let mut found: HashMap<String, Vec<u32>> = HashMap::new();
    for number in (0..view.index.units.len() as u32).filter(|&number| view.index.units[number as usize].is_go) {
        let unit = view.unit(number)?;
        let root = unit.entry(unit.header.root_offset())?;
        if let Some(name) = view.name_of(&unit, &root) {
            found.entry(name).or_default().push(number);
        }
    }
    Ok(known.get_or_init(|| found))
}

fn of_package(view: &View<'_>, package: &str) -> Result<Arc<[Constant]>, ResolveError> {
    let lock = || view.sections.constants().read.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(package) {
        return Ok(Arc::clone(known));
    }
    let mut found = Vec::new();
    for &unit in packages(view)?.get(package).map_or(&[][..], Vec::as_slice) {
        read(view, unit, package, &mut found)?;
    }
    let found: Arc<[Constant]> = found.into();
    lock().insert(package.to_owned(), Arc::clone(&found));
    Ok(found)
}

fn read(view: &View<'_>, number: u32, package: &str, found: &mut Vec<Constant>) -> Result<(), ResolveError> {
    let unit = view.unit(number)?;
    let mut reader = unit.entries_raw(None)?;
    let mut entry = Entry::null();
    while !reader.is_empty() && found.len() < PACKAGE_MAX {
        if !reader.read_entry(&mut entry)? || entry.depth() != 1 || entry.tag() != gimli::DW_TAG_constant {
            continue;
        }
        let value = match entry.attr_value(gimli::DW_AT_const_value) {
            Some(AttributeValue::Sdata(value)) => Some(value),
            // Of an unsigned type that needs all its bits: not told, rather than told as negative.
            Some(other) => other.sdata_value().or(unsigned(&entry, gimli::DW_AT_const_value).map(|value| value as i64)),
            None => None,
        };
        let ty = view.target(number, entry.attr_value(gimli::DW_AT_type));
        if let (Some(value), Some(ty), Some(name)) = (value, ty, view.name_of(&unit, &entry))
            && let Some(name) = name.strip_prefix(package).and_then(|rest| rest.strip_prefix('.'))
            && name != "_"
        {
            found.push(Constant { name: name.to_owned(), ty, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn the_package_of_a_name_ends_in_front_of_its_dot() {
        for (name, wanted) in [
            ("main.color", Some("main")),
            ("example.com/p/st.Status", Some("example.com/p/st")),
            ("gopkg.in/yaml%2ev3.Kind", Some("gopkg.in/yaml%2ev3")),
            ("int", None),
        ] {
            assert_eq!(package(name), wanted);
        }
    }
}

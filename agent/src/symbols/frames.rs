//! Which functions a program counter is in: the one that holds it, and those inlined around it.

use super::ResolveError;
use super::debug_info::{Die, View};
use super::demangle::demangled;
use super::functions::{Function, Functions};
use super::image::Image;
use super::index::FileNumber;
use super::lines::Lines;
use riptrace_protocol::hit::Frame;
use std::sync::Arc;

/// The unit that holds an address, and its functions.
pub(super) fn functions_at(view: &View<'_>, address: u64) -> Result<Option<(u32, Arc<Functions>)>, ResolveError> {
    for unit in view.index.units_at(address) {
        let functions = Functions::of_unit(view, unit)?;
        if functions.at(address).is_some() {
            return Ok(Some((unit, functions)));
        }
    }
    Ok(None)
}

/// The frames at an address, innermost first.
pub(super) fn at(view: &View<'_>, image: &Image, address: u64) -> Result<Vec<Frame>, ResolveError> {
    let Some((unit, functions)) = functions_at(view, address)? else { return Ok(Vec::new()) };
    let Some(function) = functions.at(address) else { return Ok(Vec::new()) };
    let lines = Lines::of_unit(view, image, unit)?;
    let row = lines.at(address);
    let (file, line) = row.map_or((None, 0), |row| (row.file, row.line));
    // Where a copy begins, a row may belong to the call of it: then the copy is not entered yet.
    let innermost = match row.filter(|row| row.address == address) {
        Some(row) => function.innermost_of(row),
        None => function.innermost(address),
    };
    of_function(view, function, innermost, file, line)
}

fn of_function(
    view: &View<'_>,
    function: &Function,
    innermost: Option<usize>,
    file: Option<FileNumber>,
    line: u32,
) -> Result<Vec<Frame>, ResolveError> {
    let path = |file: Option<FileNumber>| file.map_or(String::new(), |file| view.index.path(file).to_owned());
    let (mut file, mut line) = (file, line);
    let mut frames = Vec::new();
    for inlined in function.inlined_from(innermost) {
        let name = match inlined.origin {
            Some(origin) => display_name(view, origin)?.unwrap_or_default(),
            None => String::new(),
        };
        frames.push(Frame { function: name, file: path(file), line, inlined: true });
        (file, line) = (inlined.call_file, inlined.call_line);
    }
    let name = display_name(view, function.die)?.unwrap_or_else(|| function.name.clone());
    frames.push(Frame { function: name, file: path(file), line, inlined: false });
    Ok(frames)
}

/// The name of a function with what it is in: namespaces, classes, modules. The linker's name tells them; a language
/// without them has none, nor has C++ for what no other unit sees.
fn display_name(view: &View<'_>, die: Die) -> Result<Option<String>, ResolveError> {
    for (at, entry) in view.origins(die)? {
        if let Some(value) = entry.attr_value(gimli::DW_AT_linkage_name) {
            let unit = view.unit(at.unit)?;
            let mangled = view.dwarf.attr_string(&unit, value)?.to_string_lossy().into_owned();
            // Other languages keep names there that are no mangled ones.
            if mangled.starts_with("_R") || mangled.starts_with("_Z") {
                return Ok(Some(demangled(&mangled)));
            }
        }
    }
    view.name(die)
}

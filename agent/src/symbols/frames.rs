//! Which functions a program counter is in: the one that holds it, and those inlined around it.

use super::ResolveError;
use super::debug_info::View;
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
    let (file, line) = lines.at(address).map_or((None, 0), |row| (row.file, row.line));
    of_function(view, function, address, file, line)
}

fn of_function(
    view: &View<'_>,
    function: &Function,
    address: u64,
    file: Option<FileNumber>,
    line: u32,
) -> Result<Vec<Frame>, ResolveError> {
    let path = |file: Option<FileNumber>| file.map_or(String::new(), |file| view.index.path(file).to_owned());
    let (mut file, mut line) = (file, line);
    let mut frames = Vec::new();
    for inlined in function.inlined_at(address) {
        let name = match inlined.origin {
            Some(origin) => view.name(origin)?.unwrap_or_default(),
            None => String::new(),
        };
        frames.push(Frame { function: name, file: path(file), line, inlined: true });
        (file, line) = (inlined.call_file, inlined.call_line);
    }
    frames.push(Frame { function: function.name.clone(), file: path(file), line, inlined: false });
    Ok(frames)
}

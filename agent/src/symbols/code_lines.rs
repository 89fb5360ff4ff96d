//! Which lines of a source file have code: where a tracepoint can be asked for.
//!
//! The same rows that [`super::resolve`] takes sites from, so that a line listed here resolves, and one that resolves is
//! listed.

use super::functions::Functions;
use super::lines::Lines;
use super::{Build, ResolveError, resolve};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

impl Build {
    /// The file as the build knows it, and its lines with code in a range, in order. `file` as in a location.
    ///
    /// # Errors
    /// [`ResolveError`], when no file or several are meant, or the debug information cannot be read.
    pub(crate) fn code_lines(
        &self,
        file: &str,
        range: RangeInclusive<u32>,
    ) -> Result<(String, BTreeSet<u32>), ResolveError> {
        let view = self.view()?;
        let file = resolve::find_file(&view, file)?;
        let mut found = BTreeSet::new();
        for unit in resolve::users_of(&view, file) {
            let lines = Lines::of_unit(&view, &self.image, unit)?;
            let functions = Functions::of_unit(&view, unit)?;
            for row in lines.rows.iter().filter(|row| row.file == Some(file) && range.contains(&row.line)) {
                let is_written = |function: &super::functions::Function| {
                    !function.is_trampoline && !function.name.contains("·dwrap·")
                };
                if row.line != 0 && !found.contains(&row.line) && functions.at(row.address).is_some_and(is_written) {
                    found.insert(row.line);
                }
            }
            // A line whose only code is a call that was inlined has no row of its own.
            let calls = functions.concrete.iter().filter(|function| !function.is_trampoline);
            let calls = calls.flat_map(|function| &function.inlined);
            let calls = calls.filter(|call| call.call_file == Some(file) && range.contains(&call.call_line));
            found.extend(calls.map(|call| call.call_line).filter(|line| *line != 0));
        }
        Ok((view.index.path(file).to_owned(), found))
    }
}

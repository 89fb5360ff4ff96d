//! Every address of a build that a line table marks as a statement: where tracepoints can be.

use super::debug_info::View;
use super::image::Image;
use super::{Build, ResolveError, Svma};

impl Build {
    /// All distinct statement addresses, in order. Reads every line program and keeps none.
    ///
    /// # Errors
    /// [`ResolveError`], when there is no debug information or it cannot be read.
    pub(crate) fn statements(&self) -> Result<Vec<Svma>, ResolveError> {
        let view = self.view()?;
        let mut found = Vec::new();
        for number in 0..view.index.units.len() as u32 {
            of_unit(&view, &self.image, number, &mut found)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn of_unit(view: &View<'_>, image: &Image, number: u32, found: &mut Vec<Svma>) -> Result<(), ResolveError> {
    let unit = view.unit(number)?;
    let Some(program) = unit.line_program.clone() else { return Ok(()) };
    let mut rows = program.rows();
    // Where the sequence began; those of functions that the linker removed are at addresses without code.
    let mut first = None;
    let mut begun_at = found.len();
    while let Some((_, row)) = rows.next_row()? {
        let address = Svma(row.address());
        if row.end_sequence() {
            if !first.is_some_and(|first| image.is_code(first)) {
                found.truncate(begun_at);
            }
            first = None;
            begun_at = found.len();
            continue;
        }
        first.get_or_insert(address);
        if row.is_stmt() {
            found.push(address);
        }
    }
    // A sequence without an end is damage: nothing is known of where its code goes.
    found.truncate(begun_at);
    Ok(())
}

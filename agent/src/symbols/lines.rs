//! The line table of one unit: which instructions belong to which source line.

use super::ResolveError;
use super::Svma;
use super::debug_info::View;
use super::image::Image;
use super::index::FileNumber;
use std::sync::Arc;

/// One row: the instructions from `address` to the next row's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: u64,
    /// Address of the next row of the sequence.
    pub(super) end: u64,
    pub(super) file: Option<FileNumber>,
    /// 0 for code that belongs to no line.
    pub(super) line: u32,
    /// A good place for a breakpoint, says the compiler.
    pub(super) is_statement: bool,
    pub(super) is_prologue_end: bool,
}

/// All rows of a unit, by address; rows of one address stay in the order of the line program.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) rows: Vec<Row>,
}

impl Lines {
    /// The lines of a unit; read once.
    pub(super) fn of_unit(view: &View<'_>, image: &Image, unit: u32) -> Result<Arc<Lines>, ResolveError> {
        let Some(entry) = view.index.units.get(unit as usize) else {
            return Err(ResolveError::BadDwarf(format!("unit {unit} does not exist")));
        };
        entry.lines.get_or_init(|| Lines::read(view, image, unit).map(Arc::new)).clone()
    }

    fn read(view: &View<'_>, image: &Image, number: u32) -> Result<Lines, ResolveError> {
        let unit = view.unit(number)?;
        let mut lines = Lines { rows: Vec::new() };
        let Some(program) = unit.line_program.clone() else { return Ok(lines) };
        let mut rows = program.rows();
        let mut sequence: Vec<Row> = Vec::new();
        // Each opcode is at least a byte and makes one row at most, so the section bounds the loop.
        while let Some((_, row)) = rows.next_row()? {
            if let Some(last) = sequence.last_mut() {
                last.end = row.address();
            }
            if row.end_sequence() {
                // The linker leaves sequences of removed functions behind, at addresses without code.
                if sequence.first().is_some_and(|first| image.is_code(Svma(first.address))) {
                    lines.rows.append(&mut sequence);
                }
                sequence.clear();
                continue;
            }
            sequence.push(Row {
                address: row.address(),
                end: row.address(),
                file: view.index.file(number, row.file_index()),
                line: row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0)),
                is_statement: row.is_stmt(),
                is_prologue_end: row.prologue_end(),
            });
        }
        lines.rows.sort_by_key(|row| row.address);
        Ok(lines)
    }

    /// The row that holds an address.
    pub(super) fn at(&self, address: u64) -> Option<&Row> {
        let after = self.rows.partition_point(|row| row.address <= address);
        // Rows without instructions may stand behind the one that holds the address.
        self.rows[..after]
            .iter()
            .rev()
            .take_while(|row| row.end <= row.address || address < row.end)
            .find(|row| address < row.end)
    }

    /// Rows whose first address is in a range.
    pub(super) fn within(&self, start: u64, end: u64) -> &[Row] {
        let first = self.rows.partition_point(|row| row.address < start);
        let last = self.rows.partition_point(|row| row.address < end);
        self.rows.get(first..last).unwrap_or_default()
    }
}

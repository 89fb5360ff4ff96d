//! The functions of one unit: where their code is, and which functions were inlined where.

use super::ResolveError;
use super::debug_info::{self, Die, Entry, Unit, View};
use super::index::{FileNumber, contains};
use super::lines::Row;
use std::ops::Range;
use std::sync::Arc;

/// Most address ranges of one unit's functions and inlined copies: real units have a few per entry; a damaged file
/// could have each entry point to the same long list.
const RANGES_MAX: usize = 4 << 20;

/// A function with code of its own.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) die: Die,
    pub(super) name: String,
    /// Where it is entered.
    pub(super) entry: u64,
    pub(super) ranges: Vec<Range<u64>>,
    /// Made by the compiler to call another one with other arguments.
    pub(super) is_trampoline: bool,
    /// Copies of other functions inside it; an outer copy comes before those inside it.
    pub(super) inlined: Vec<Inlined>,
}

/// A copy of a function inside another.
#[derive(Debug)]
pub(super) struct Inlined {
    pub(super) die: Die,
    /// The function it is a copy of.
    pub(super) origin: Option<Die>,
    pub(super) ranges: Vec<Range<u64>>,
    /// The copy that it is directly inside, by its number in [`Function::inlined`].
    pub(super) parent: Option<usize>,
    pub(super) call_file: Option<FileNumber>,
    pub(super) call_line: u32,
}

/// A function that is only inlined, or the common part of its copies.
#[derive(Debug)]
pub(super) struct Abstract {
    pub(super) die: Die,
    pub(super) name: String,
}

/// A variable of the whole program or of one file.
#[derive(Debug)]
pub(super) struct Global {
    pub(super) die: Die,
    pub(super) name: String,
}

/// All functions of a unit, and its variables outside of functions.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub(super) globals: Vec<Global>,
    pub(super) concrete: Vec<Function>,
    pub(super) inlinable: Vec<Abstract>,
    /// Start, end, number in `concrete`; by start.
    spans: Vec<(u64, u64, u32)>,
}

impl Functions {
    /// The functions of a unit; read once.
    pub(super) fn of_unit(view: &View<'_>, unit: u32) -> Result<Arc<Functions>, ResolveError> {
        let Some(entry) = view.index.units.get(unit as usize) else {
            return Err(ResolveError::BadDwarf(format!("unit {unit} does not exist")));
        };
        entry.functions.get_or_init(|| Functions::read(view, unit).map(Arc::new)).clone()
    }

    /// The function that holds an address.
    pub(super) fn at(&self, address: u64) -> Option<&Function> {
        let after = self.spans.partition_point(|&(start, _, _)| start <= address);
        let &(_, end, number) = self.spans[..after].last()?;
        if address < end { self.concrete.get(number as usize) } else { None }
    }

    fn read(view: &View<'_>, number: u32) -> Result<Functions, ResolveError> {
        let unit = view.unit(number)?;
        let mut functions = Functions::default();
        let mut reader = unit.entries_raw(None)?;
        let mut entry = Entry::null();
        let mut ranges_left = RANGES_MAX;
        // What the entries being read are inside of: depth, function, inlined copy.
        let mut inside: Vec<(isize, Option<usize>, Option<usize>)> = Vec::new();
        while !reader.is_empty() {
            if !reader.read_entry(&mut entry)? {
                continue;
            }
            let depth = entry.depth();
            while inside.last().is_some_and(|&(outer, _, _)| outer >= depth) {
                inside.pop();
            }
            let die = Die { unit: number, offset: entry.offset() };
            match entry.tag() {
                gimli::DW_TAG_subprogram => {
                    let ranges = read_ranges(view, &unit, &entry, &mut ranges_left)?;
                    if ranges.is_empty() {
                        let is_inlinable = entry.has_attr(gimli::DW_AT_inline);
                        if is_inlinable && let Some(name) = view.name(die)? {
                            functions.inlinable.push(Abstract { die, name });
                        }
                        inside.push((depth, None, None));
                        continue;
                    }
                    inside.push((depth, Some(functions.concrete.len()), None));
                    functions.concrete.push(Function {
                        die,
                        name: view.name(die)?.unwrap_or_default(),
                        entry: entry_address(view, &unit, &entry).unwrap_or(ranges[0].start),
                        ranges,
                        is_trampoline: entry.has_attr(gimli::DW_AT_trampoline),
                        inlined: Vec::new(),
                    });
                }
                gimli::DW_TAG_inlined_subroutine => {
                    let Some(&(_, Some(function), parent)) = inside.last() else { continue };
                    let ranges = read_ranges(view, &unit, &entry, &mut ranges_left)?;
                    let unsigned = |name| entry.attr_value(name).and_then(|value| value.udata_value());
                    let inlined = &mut functions.concrete[function].inlined;
                    inside.push((depth, Some(function), Some(inlined.len())));
                    inlined.push(Inlined {
                        die,
                        origin: view.target(number, entry.attr_value(gimli::DW_AT_abstract_origin)),
                        ranges,
                        parent,
                        call_file: call_file(view, number, &entry),
                        call_line: unsigned(gimli::DW_AT_call_line)
                            .and_then(|line| u32::try_from(line).ok())
                            .unwrap_or(0),
                    });
                }
                gimli::DW_TAG_variable if depth == 1 && entry.has_attr(gimli::DW_AT_location) => {
                    if let Some(name) = view.name(die)? {
                        functions.globals.push(Global { die, name });
                    }
                }
                _ => {}
            }
        }
        for (number, function) in functions.concrete.iter().enumerate() {
            functions.spans.extend(function.ranges.iter().map(|range| (range.start, range.end, number as u32)));
        }
        functions.spans.sort_unstable();
        Ok(functions)
    }
}

impl Function {
    /// The innermost inlined copy that holds an address, by its number.
    pub(super) fn innermost(&self, address: u64) -> Option<usize> {
        // An outer copy comes before those inside it, so the last one is the innermost.
        self.inlined.iter().rposition(|inlined| contains(&inlined.ranges, address))
    }

    /// The innermost inlined copy that a row of the line table belongs to. Where a copy begins, compilers put a row for
    /// the call itself, which belongs to the caller.
    pub(super) fn innermost_of(&self, row: &Row) -> Option<usize> {
        let mut number = self.innermost(row.address)?;
        loop {
            let copy = &self.inlined[number];
            let is_call = row.file.is_some()
                && (copy.call_file, copy.call_line) == (row.file, row.line)
                && copy.ranges.iter().any(|range| range.start == row.address);
            if !is_call {
                return Some(number);
            }
            // A parent comes before its copies, so this ends.
            number = copy.parent?;
        }
    }

    /// A copy and those around it, innermost first.
    pub(super) fn inlined_from(&self, innermost: Option<usize>) -> impl Iterator<Item = &Inlined> {
        let mut next = innermost;
        std::iter::from_fn(move || {
            let inlined = &self.inlined[next?];
            next = inlined.parent;
            Some(inlined)
        })
    }
}

fn call_file(view: &View<'_>, unit: u32, entry: &Entry<'_>) -> Option<FileNumber> {
    let number = match entry.attr_value(gimli::DW_AT_call_file)? {
        gimli::AttributeValue::FileIndex(number) => number,
        other => other.udata_value()?,
    };
    view.index.file(unit, number)
}

/// Where a function is entered: `DW_AT_entry_pc`, else its lowest address.
fn entry_address<'a>(view: &View<'a>, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<u64> {
    [gimli::DW_AT_entry_pc, gimli::DW_AT_low_pc]
        .into_iter()
        .find_map(|name| view.dwarf.attr_address(unit, entry.attr_value(name)?).ok().flatten())
}

/// Address ranges of an entry, without those of code that the linker removed.
pub(super) fn read_ranges<'a>(
    view: &View<'a>,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
    left: &mut usize,
) -> Result<Vec<Range<u64>>, ResolveError> {
    let mut found = Vec::new();
    let mut ranges = debug_info::ranges(&view.dwarf, unit, entry)?;
    while let Some(range) = ranges.next()? {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| ResolveError::BadDwarf("more address ranges than a unit can have".to_owned()))?;
        if range.begin < range.end && range.begin != 0 {
            found.push(range.begin..range.end);
        }
    }
    Ok(found)
}

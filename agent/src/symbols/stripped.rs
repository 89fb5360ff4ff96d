//! A Go build without debug information: places and frames from the function table alone.
//!
//! The same lines and functions are found as with debug information; the address of a line may differ where the compiler
//! marked another instruction of it as the statement. There are no variables: at a function's entry, the words that the
//! calling convention passes arguments in are known (`abi-internal.md`), and not what they mean.

use super::debug_info::Die;
use super::exits::{self, Exit};
use super::image::Image;
use super::lines::Lines;
use super::pclntab::{Call, Func, FunctionTable};
use super::resolve::{checked, choose_names, common_end};
use super::{Build, ResolveError, Site, Svma, prologue};
use gimli::UnitOffset;
use riptrace_protocol::hit::Frame;
use riptrace_protocol::layout::Moment;
use riptrace_protocol::location::{FunctionPoint, Location, path_has_suffix};
use std::collections::{BTreeMap, BTreeSet};

/// Candidates that an error names, at most: what a person reads.
const CANDIDATES_MAX: usize = 5;
/// Registers of integer arguments, in the order of Go's ABIInternal for amd64, with their numbers in DWARF.
const ARGUMENT_REGISTERS: [(&str, u16); 9] =
    [("rax", 0), ("rbx", 3), ("rcx", 2), ("rdi", 5), ("rsi", 4), ("r8", 8), ("r9", 9), ("r10", 10), ("r11", 11)];

/// What stands for a function in a site: no entry of any debug information.
fn nothing(number: usize) -> Die {
    Die { unit: u32::MAX, offset: UnitOffset(number) }
}

impl Build {
    /// Whether the function table is all that is known of the build.
    pub(crate) fn is_stripped(&self) -> bool {
        self.table().is_some()
    }

    /// Registers that may hold arguments at a function's entry, by name and number; no more than the function's room to
    /// spill them.
    pub(crate) fn argument_registers(&self, site: &Site) -> &'static [(&'static str, u16)] {
        let func = self.table().and_then(Result::ok).and_then(|table| table.at(site.address.0));
        let words = func.filter(|_| site.moment == Moment::Entry && !site.is_inlined()).map_or(0, |func| {
            // Assembly tells no size, or the one of another convention.
            if func.args_bytes == u32::MAX || func.args_bytes > 1 << 20 { 0 } else { func.args_bytes as usize / 8 }
        });
        &ARGUMENT_REGISTERS[..words.min(ARGUMENT_REGISTERS.len())]
    }
}

/// The frames at an address, innermost first.
pub(super) fn frames(table: &FunctionTable, address: u64) -> Vec<Frame> {
    let Some(func) = table.at(address) else { return Vec::new() };
    let calls = table.calls(&func, address);
    let last = calls.len().saturating_sub(1);
    let frame = |(number, call): (usize, Call<'_>)| Frame {
        function: call.function.to_owned(),
        file: call.file.to_owned(),
        line: call.line,
        inlined: number < last,
    };
    calls.into_iter().enumerate().map(frame).collect()
}

/// Every address of a location, in the order of addresses.
pub(super) fn resolve(table: &FunctionTable, image: &Image, location: &Location) -> Result<Vec<Site>, ResolveError> {
    let mut sites = match location {
        Location::Line { file, line } => of_line(table, image, file, *line)?,
        Location::Function { name, at } => of_function(table, image, name, *at)?,
    };
    checked(&mut sites)?;
    Ok(sites)
}

/// The one file that a path or a suffix means.
fn find_file<'a>(table: &'a FunctionTable, wanted: &str) -> Result<&'a str, ResolveError> {
    if let Some(exact) = table.files().find(|path| *path == wanted) {
        return Ok(exact);
    }
    let matching: BTreeSet<&str> = table.files().filter(|path| path_has_suffix(path, wanted)).collect();
    let owned = |paths: Vec<&str>| paths.into_iter().take(CANDIDATES_MAX).map(str::to_owned).collect();
    let mut found = matching.iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            let candidates = owned(matching.into_iter().collect());
            Err(ResolveError::AmbiguousFile { file: wanted.to_owned(), candidates })
        }
        (None, _) => {
            let base = wanted.rsplit('/').next().unwrap_or(wanted);
            let mut candidates: Vec<&str> = table.files().filter(|path| path_has_suffix(path, base)).collect();
            candidates.sort_by_key(|path| std::cmp::Reverse(common_end(path, wanted)));
            Err(ResolveError::NoSuchFile { file: wanted.to_owned(), candidates: owned(candidates) })
        }
    }
}

/// Whether only the compiler knows of a function: its lines are those of another one.
fn is_made_up(name: &str) -> bool {
    name.contains("·dwrap·") || name.ends_with("-fm")
}

fn site(function: &str, is_inlined: bool, address: u64, (file, line): (&str, u32), moment: Moment) -> Site {
    Site {
        address: Svma(address),
        function: function.to_owned(),
        file: file.to_owned(),
        line,
        moment,
        is_tail_call: false,
        body: nothing(0),
        scope: nothing(usize::from(is_inlined)),
        is_go: true,
    }
}

fn past_prologue(image: &Image, func: &Func, address: u64) -> u64 {
    let bytes = prologue::PROLOGUE_BYTES_MAX.min(func.end.saturating_sub(func.entry));
    let code = image.read(Svma(func.entry), bytes);
    let past = prologue::end(func.entry, func.end, &code, &Lines { rows: Vec::new() }, true);
    if (func.entry..past).contains(&address) { past } else { address }
}

fn of_line(table: &FunctionTable, image: &Image, wanted: &str, line: u32) -> Result<Vec<Site>, ResolveError> {
    let wanted = find_file(table, wanted)?;
    let mut lines_with_code = BTreeSet::new();
    let mut sites = Vec::new();
    let mut calls_sites = Vec::new();
    for func in table.functions() {
        let name = table.name(&func);
        let lines = table.lines(&func);
        if !lines.iter().any(|&(_, _, file, _)| file == wanted) && table.inlined_runs(&func).is_empty() {
            continue;
        }
        if is_made_up(name) {
            continue;
        }
        lines_with_code
            .extend(lines.iter().filter(|&&(_, _, file, line)| file == wanted && line != 0).map(|run| run.3));
        // One site for each copy, at its lowest address.
        let mut groups: BTreeMap<Option<i32>, u64> = BTreeMap::new();
        for &(start, end, file, at_line) in &lines {
            if file != wanted || at_line != line {
                continue;
            }
            for begins in pieces(table, &func, start, end) {
                let copy = table.calls(&func, begins).first().and_then(|call| call.copy);
                let lowest = groups.entry(copy).or_insert(begins);
                *lowest = begins.min(*lowest);
            }
        }
        // A line whose only code is a call that was inlined has none of its own: it is where the copy begins.
        let mut inlined_here: BTreeMap<Option<i32>, (u64, bool)> = BTreeMap::new();
        for (start, ..) in table.inlined_runs(&func) {
            let calls = table.calls(&func, start);
            for pair in calls.windows(2) {
                if pair[1].file == wanted && pair[1].line == line {
                    let lowest = inlined_here.entry(pair[0].copy).or_insert((start, pair[1].copy.is_some()));
                    lowest.0 = start.min(lowest.0);
                }
            }
        }
        let of = |(copy, start): (&Option<i32>, &u64)| {
            let address = if copy.is_none() { past_prologue(image, &func, *start) } else { *start };
            site(name, copy.is_some(), address, (wanted, line), Moment::Line)
        };
        calls_sites.extend(
            inlined_here
                .values()
                .map(|&(start, is_inlined)| site(name, is_inlined, start, (wanted, line), Moment::Line)),
        );
        sites.extend(groups.iter().map(of));
    }
    if sites.is_empty() {
        sites = calls_sites;
    }
    if sites.is_empty() {
        let before = lines_with_code.range(..line).next_back();
        let after = lines_with_code.range(line..).find(|&&other| other != line);
        let nearest = before.into_iter().chain(after).copied().collect();
        return Err(ResolveError::NoCode { file: wanted.to_owned(), line, nearest });
    }
    Ok(sites)
}

/// Where the parts of a run of instructions begin that are in different copies.
fn pieces(table: &FunctionTable, func: &Func, start: u64, end: u64) -> Vec<u64> {
    let inlined = table.inlined_runs(func);
    let inner = inlined.iter().flat_map(|&(from, to, _)| [from, to]).filter(|at| (start + 1..end).contains(at));
    std::iter::once(start).chain(inner).collect()
}

fn of_function(
    table: &FunctionTable,
    image: &Image,
    wanted: &str,
    point: FunctionPoint,
) -> Result<Vec<Site>, ResolveError> {
    let all: Vec<Func> = table.functions().collect();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    // Where a function was inlined: name, into which, first address of each copy.
    let mut copies: Vec<(&str, Func, u64)> = Vec::new();
    for func in &all {
        names.insert(table.name(func));
        let mut seen = BTreeSet::new();
        for (start, ..) in table.inlined_runs(func) {
            let calls = table.calls(func, start);
            for call in calls.iter().filter(|call| call.copy.is_some()) {
                if seen.insert(call.copy) {
                    names.insert(call.function);
                    copies.push((call.function, *func, start));
                }
            }
        }
    }
    let chosen = choose_names(&names, wanted)?;
    let mut sites = Vec::new();
    for func in all.iter().filter(|func| chosen.contains(table.name(func))) {
        let mut add = |address: u64, moment: Moment, is_tail_call: bool| {
            let calls = table.calls(func, address);
            let own = calls.last().map_or(("", 0), |call| (call.file, call.line));
            sites.push(Site { is_tail_call, ..site(table.name(func), false, address, own, moment) });
        };
        if point != FunctionPoint::Return {
            add(past_prologue(image, func, func.entry), Moment::Entry, false);
        }
        if point != FunctionPoint::Entry {
            for exit in exits::of(image, std::slice::from_ref(&(func.entry..func.end))) {
                match exit {
                    Exit::Return(address) => add(address, Moment::Return, false),
                    Exit::TailCall(address) => add(address, Moment::Return, true),
                }
            }
        }
    }
    let copies = copies.iter().filter(|(name, ..)| chosen.contains(name));
    if point == FunctionPoint::Return {
        if sites.is_empty() {
            let callers: BTreeSet<&str> = copies.map(|(_, func, _)| table.name(func)).collect();
            let callers = callers.into_iter().take(CANDIDATES_MAX).map(str::to_owned).collect();
            return Err(ResolveError::NoReturn { name: wanted.to_owned(), callers });
        }
        return Ok(sites);
    }
    for (name, func, start) in copies {
        let calls = table.calls(func, *start);
        let own = calls.iter().find(|call| call.function == *name).map_or(("", 0), |call| (call.file, call.line));
        sites.push(site(table.name(func), true, *start, own, Moment::Entry));
    }
    Ok(sites)
}

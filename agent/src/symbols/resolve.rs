//! From a location to every address a debugger would pick.
//!
//! For a line: each function and each inlined copy that has instructions of the line gets one site, at the lowest
//! address that the compiler marked as a statement, so that one passage is reported once (Delve does the same in
//! `pkg/proc/bininfo.go`, `FindFileLocation`). A site at a function's entry moves behind the prologue. For a function:
//! its entry behind the prologue, and each inlined copy's first statement. A pattern means all functions that fit it
//! ([`super::pattern`]).

use super::debug_info::{Die, View};
use super::exits::{self, Exit};
use super::functions::{Function, Functions};
use super::image::Image;
use super::index::FileNumber;
use super::lines::{Lines, Row};
use super::{ResolveError, Site, Svma, pattern, prologue};
use riptrace_protocol::layout::Moment;
use riptrace_protocol::limits::{PATTERN_FUNCTIONS_MAX, PROBE_SITES_MAX};
use riptrace_protocol::location::{FunctionPoint, Location, path_has_suffix};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Candidates that an error names, at most: what a person reads.
const CANDIDATES_MAX: usize = 5;

/// Every address of a location, in the order of addresses.
pub(super) fn resolve(view: &View<'_>, image: &Image, location: &Location) -> Result<Vec<Site>, ResolveError> {
    let mut sites = match location {
        Location::Line { file, line } => of_line(view, image, file, *line)?,
        Location::Function { name, at } => of_function(view, image, name, *at)?,
    };
    checked(&mut sites)?;
    Ok(sites)
}

/// Puts sites into the order of addresses, and refuses what must not be traced.
pub(super) fn checked(sites: &mut Vec<Site>) -> Result<(), ResolveError> {
    sites.sort_by_key(|site| site.address);
    sites.dedup_by(|a, b| a.address == b.address);
    if sites.len() > PROBE_SITES_MAX {
        return Err(ResolveError::TooManySites { count: sites.len() });
    }
    match sites.iter().find_map(|site| Some((site, denied_at(site)?))) {
        Some((site, why)) => Err(ResolveError::Denied { function: site.function.clone(), why }),
        None => Ok(()),
    }
}

/// Where every panic of Go passes: the one function of the runtime that may be traced, at its entry only.
///
/// It is an ordinary function on the goroutine's own stack: it checks the stack for room and may grow it, no lock is
/// held, no signal is blocked (a panic in a signal handler is a `throw`, which does not pass here), and nothing of it runs
/// between fork and exec. On a system stack it does nothing but end the program. Read in Go 1.21 to 1.27,
/// `src/runtime/panic.go`, `gopanic`.
const GO_PANIC: &str = "runtime.gopanic";

/// Why a site must not be patched.
fn denied_at(site: &Site) -> Option<&'static str> {
    if site.function == GO_PANIC && site.moment == Moment::Entry && !site.is_inlined() {
        return None;
    }
    denied(&site.function).filter(|_| site.is_go)
}

/// Why a Go function must not be stopped in.
fn denied(function: &str) -> Option<&'static str> {
    let runtime = ["runtime.", "internal/runtime/", "runtime/internal/"];
    if runtime.iter().any(|prefix| function.starts_with(prefix)) {
        return Some("it belongs to Go's runtime, which must not be stopped");
    }
    let fork = ["syscall.raw", "syscall.forkAndExecInChild", "syscall.runtime_", "syscall.forkExec"];
    if fork.iter().any(|prefix| function.starts_with(prefix)) {
        return Some("it runs between fork and exec or in a raw system call, where a trap would be fatal");
    }
    None
}

/// The one file that a path or a suffix means.
pub(super) fn find_file(view: &View<'_>, wanted: &str) -> Result<FileNumber, ResolveError> {
    let paths = || view.index.paths();
    if let Some((number, _)) = paths().find(|(_, path)| *path == wanted) {
        return Ok(number);
    }
    let matching: Vec<_> = paths().filter(|(_, path)| path_has_suffix(path, wanted)).collect();
    match matching.as_slice() {
        [(number, _)] => Ok(*number),
        [] => {
            let base = wanted.rsplit('/').next().unwrap_or(wanted);
            let mut candidates: Vec<String> =
                paths().filter(|(_, path)| path_has_suffix(path, base)).map(|(_, path)| path.to_owned()).collect();
            // Those that share more of the path's end are more likely meant.
            candidates.sort_by_key(|path| std::cmp::Reverse(common_end(path, wanted)));
            candidates.truncate(CANDIDATES_MAX);
            Err(ResolveError::NoSuchFile { file: wanted.to_owned(), candidates })
        }
        several => {
            let mut candidates: Vec<String> = several.iter().map(|(_, path)| (*path).to_owned()).collect();
            candidates.truncate(CANDIDATES_MAX);
            Err(ResolveError::AmbiguousFile { file: wanted.to_owned(), candidates })
        }
    }
}

pub(super) fn common_end(a: &str, b: &str) -> usize {
    a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count()
}

/// Where a group of a line's rows belongs: unit, function, inlined copy.
type Group = (u32, u64, Option<usize>);

fn of_line(view: &View<'_>, image: &Image, wanted: &str, line: u32) -> Result<Vec<Site>, ResolveError> {
    let file = find_file(view, wanted)?;
    let mut groups: BTreeMap<Group, Vec<Row>> = BTreeMap::new();
    let mut lines_with_code = BTreeSet::new();
    let mut functions_of_unit = BTreeMap::new();
    let users = users_of(view, file);
    for &unit in &users {
        let lines = Lines::of_unit(view, image, unit)?;
        let of_file = lines.rows.iter().filter(|row| row.file == Some(file) && row.line != 0);
        lines_with_code.extend(of_file.clone().map(|row| row.line));
        let rows: Vec<Row> = of_file.filter(|row| row.line == line).copied().collect();
        if rows.is_empty() {
            continue;
        }
        let functions = Functions::of_unit(view, unit)?;
        for row in rows {
            let Some(function) = functions.at(row.address) else { continue };
            // Compiler-made wrappers only lead to the function itself.
            if function.is_trampoline || function.name.contains("·dwrap·") {
                continue;
            }
            groups.entry((unit, function.entry, function.innermost_of(&row))).or_default().push(row);
        }
        functions_of_unit.insert(unit, (functions, lines));
    }
    let mut sites = Vec::new();
    for ((unit, _, inlined), mut rows) in groups {
        let Some((functions, lines)) = functions_of_unit.get(&unit) else { continue };
        rows.sort_by_key(|row| (!row.is_statement, row.address));
        let Some(function) = rows.first().and_then(|row| functions.at(row.address)) else { continue };
        let mut address = rows[0].address;
        if inlined.is_none() {
            address = past_prologue(view, image, unit, function, lines, address);
        }
        sites.push(site(view, unit, function, inlined, address, (file, line)));
    }
    if sites.is_empty() {
        sites = of_inlined_call(view, image, &users, file, line)?;
    }
    if sites.is_empty() {
        let before = lines_with_code.range(..line).next_back();
        let after = lines_with_code.range(line..).find(|&&other| other != line);
        return Err(ResolveError::NoCode {
            file: view.index.path(file).to_owned(),
            line,
            nearest: before.into_iter().chain(after).copied().collect(),
        });
    }
    Ok(sites)
}

/// Units whose line program may name a file.
pub(super) fn users_of(view: &View<'_>, file: FileNumber) -> Vec<u32> {
    let units = view.index.units.iter().enumerate();
    units.filter(|(_, unit)| unit.files.contains(&Some(file))).map(|(number, _)| number as u32).collect()
}

/// A line whose only code is a call that was inlined has no row of its own: it is where the copy starts.
fn of_inlined_call(
    view: &View<'_>,
    image: &Image,
    units: &[u32],
    file: FileNumber,
    line: u32,
) -> Result<Vec<Site>, ResolveError> {
    let mut sites = Vec::new();
    for &unit in units {
        let functions = Functions::of_unit(view, unit)?;
        let lines = Lines::of_unit(view, image, unit)?;
        for function in functions.concrete.iter().filter(|function| !function.is_trampoline) {
            let calls = function.inlined.iter().filter(|call| call.call_file == Some(file) && call.call_line == line);
            for call in calls {
                if let Some(address) = first_statement(&lines, call.ranges.iter().map(|range| (range.start, range.end)))
                {
                    sites.push(site(view, unit, function, call.parent, address, (file, line)));
                }
            }
        }
    }
    Ok(sites)
}

/// The lowest address of some ranges that the compiler marked as a statement, else the lowest.
fn first_statement(lines: &Lines, ranges: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    let marked = ranges.iter().find_map(|&(start, end)| {
        lines.within(start, end).iter().find(|row| row.is_statement && row.line != 0).map(|row| row.address)
    });
    marked.or(ranges.first().map(|&(start, _)| start))
}

fn past_prologue(view: &View<'_>, image: &Image, unit: u32, function: &Function, lines: &Lines, address: u64) -> u64 {
    let end =
        function.ranges.iter().find(|range| range.contains(&function.entry)).map_or(function.entry, |range| range.end);
    let code = image.read(Svma(function.entry), prologue::PROLOGUE_BYTES_MAX.min(end.saturating_sub(function.entry)));
    let is_go = view.index.units.get(unit as usize).is_some_and(|unit| unit.is_go);
    let past = prologue::end(function.entry, end, &code, lines, is_go);
    if (function.entry..past).contains(&address) { past } else { address }
}

fn site(
    view: &View<'_>,
    unit: u32,
    function: &Function,
    inlined: Option<usize>,
    address: u64,
    (file, line): (FileNumber, u32),
) -> Site {
    let copy = inlined.and_then(|number| function.inlined.get(number));
    Site {
        address: Svma(address),
        function: function.name.clone(),
        file: view.index.path(file).to_owned(),
        line,
        moment: Moment::Line,
        is_tail_call: false,
        body: function.die,
        scope: copy.map_or(function.die, |copy| copy.die),
        is_go: view.index.units.get(unit as usize).is_some_and(|unit| unit.is_go),
    }
}

/// File and line of an address as the function or one of its inlined copies has it: the line of the call where a copy
/// inside it holds the address.
fn line_in(function: &Function, lines: &Lines, inlined: Option<usize>, address: u64) -> (Option<FileNumber>, u32) {
    let mut place = lines.at(address).map_or((None, 0), |row| (row.file, row.line));
    let mut next = function.innermost(address);
    while let Some(number) = next.filter(|_| next != inlined) {
        let copy = &function.inlined[number];
        place = (copy.call_file, copy.call_line);
        next = copy.parent;
    }
    place
}

/// What may match a function's name: the name, without type arguments, without pointer receivers.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut brackets = 0usize;
    for character in name.chars() {
        match character {
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            _ if brackets == 0 => plain.push(character),
            _ => {}
        }
    }
    plain.replace("(*", "").replace(").", ".")
}

fn is_suffix(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || rest.ends_with('.') || rest.ends_with("::"))
}

fn of_function(view: &View<'_>, image: &Image, wanted: &str, point: FunctionPoint) -> Result<Vec<Site>, ResolveError> {
    let mut units: Vec<(u32, Arc<Functions>)> = Vec::new();
    for unit in 0..view.index.units.len() as u32 {
        units.push((unit, Functions::of_unit(view, unit)?));
    }
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (_, functions) in &units {
        let concrete = functions.concrete.iter().filter(|function| !function.is_trampoline);
        names.extend(concrete.map(|function| function.name.as_str()));
        names.extend(functions.inlinable.iter().map(|function| function.name.as_str()));
    }
    let chosen = choose_names(&names, wanted)?;
    let mut sites = Vec::new();
    let mut inlined_only: BTreeSet<&str> = BTreeSet::new();
    let mut origins: BTreeSet<Die> = BTreeSet::new();
    for (_, functions) in &units {
        let inlinable = functions.inlinable.iter().filter(|function| chosen.contains(function.name.as_str()));
        origins.extend(inlinable.map(|function| function.die));
        // The common part of a function with copies may be the function's own entry.
        let concrete = functions.concrete.iter().filter(|function| chosen.contains(function.name.as_str()));
        origins.extend(concrete.map(|function| function.die));
    }
    for (unit, functions) in &units {
        for function in functions.concrete.iter().filter(|function| !function.is_trampoline) {
            let is_copy = |origin: Option<Die>| origin.is_some_and(|origin| origins.contains(&origin));
            let is_chosen = chosen.contains(function.name.as_str());
            if !is_chosen && !function.inlined.iter().any(|copy| is_copy(copy.origin)) {
                continue;
            }
            let lines = Lines::of_unit(view, image, *unit)?;
            let mut add = |address: u64, inlined: Option<usize>, moment: Moment, is_tail_call: bool| {
                let (file, line) = line_in(function, &lines, inlined, address);
                let site = site(view, *unit, function, inlined, address, (FileNumber(0), line));
                let file = file.map_or(String::new(), |file| view.index.path(file).to_owned());
                sites.push(Site { file, moment, is_tail_call, ..site });
            };
            if is_chosen && point != FunctionPoint::Return {
                let entry = past_prologue(view, image, *unit, function, &lines, function.entry);
                add(entry, None, Moment::Entry, false);
            }
            if is_chosen && point != FunctionPoint::Entry {
                for exit in exits::of(image, &function.ranges) {
                    match exit {
                        Exit::Return(address) => add(address, None, Moment::Return, false),
                        Exit::TailCall(address) => add(address, None, Moment::Return, true),
                    }
                }
            }
            let copies = function.inlined.iter().enumerate().filter(|(_, copy)| is_copy(copy.origin));
            for (number, copy) in copies {
                // A copy has no return of its own.
                if point == FunctionPoint::Return {
                    inlined_only.insert(function.name.as_str());
                    continue;
                }
                if let Some(address) = first_statement(&lines, copy.ranges.iter().map(|range| (range.start, range.end)))
                {
                    add(address, Some(number), Moment::Entry, false);
                }
            }
        }
    }
    if sites.is_empty() && !inlined_only.is_empty() {
        let callers = inlined_only.into_iter().take(CANDIDATES_MAX).map(str::to_owned).collect();
        return Err(ResolveError::NoReturn { name: wanted.to_owned(), callers });
    }
    if sites.is_empty() {
        return Err(ResolveError::NoSuchFunction { name: wanted.to_owned(), candidates: Vec::new() });
    }
    Ok(sites)
}

/// The full names that fit a pattern. Functions that must not be traced are never meant by one.
fn names_of_pattern<'a>(names: &BTreeSet<&'a str>, wanted: &str) -> Result<BTreeSet<&'a str>, ResolveError> {
    let wanted_plain = plain(wanted);
    // What the compiler made of `go f(x)` only leads to the function itself.
    let written = names.iter().copied().filter(|name| !name.contains("·dwrap·"));
    let fitting: BTreeSet<&str> = written.filter(|name| pattern::fits(&wanted_plain, &plain(name))).collect();
    let denied_one = fitting.iter().find_map(|name| Some(((*name).to_owned(), denied(name)?)));
    let meant: BTreeSet<&str> = fitting.into_iter().filter(|name| denied(name).is_none()).collect();
    match (meant.len(), denied_one) {
        (0, Some((function, why))) => Err(ResolveError::Denied { function, why }),
        (0, None) => Err(ResolveError::NoSuchFunction { name: wanted.to_owned(), candidates: Vec::new() }),
        (count, _) if count > PATTERN_FUNCTIONS_MAX => {
            let some = meant.into_iter().take(CANDIDATES_MAX).map(str::to_owned).collect();
            Err(ResolveError::TooManyFunctions { pattern: wanted.to_owned(), count, some })
        }
        _ => Ok(meant),
    }
}

/// The full names that a name means: itself, else all that fit it if it is a pattern, else its generic instances, else
/// what ends in it if that is one function.
pub(super) fn choose_names<'a>(names: &BTreeSet<&'a str>, wanted: &str) -> Result<BTreeSet<&'a str>, ResolveError> {
    if let Some(exact) = names.get(wanted) {
        return Ok(BTreeSet::from([*exact]));
    }
    if pattern::is_pattern(wanted) {
        return names_of_pattern(names, wanted);
    }
    let wanted_plain = plain(wanted);
    let instances: BTreeSet<&str> = names.iter().copied().filter(|name| plain(name) == wanted_plain).collect();
    if !instances.is_empty() {
        return Ok(instances);
    }
    let mut by_plain: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for name in names.iter().copied().filter(|name| name.ends_with(wanted) || is_suffix(&plain(name), &wanted_plain)) {
        if is_suffix(name, wanted) || is_suffix(&plain(name), &wanted_plain) {
            by_plain.entry(plain(name)).or_default().insert(name);
        }
    }
    if by_plain.len() > 1 {
        let candidates = by_plain.into_keys().take(CANDIDATES_MAX).collect();
        return Err(ResolveError::AmbiguousFunction { name: wanted.to_owned(), candidates });
    }
    by_plain.into_values().next().ok_or_else(|| {
        let last = wanted_plain.rsplit(['.', '/']).next().unwrap_or_default().to_lowercase();
        let alike = names.iter().filter(|name| {
            let name = plain(name);
            name.rsplit(['.', '/']).next().is_some_and(|end| end.to_lowercase() == last)
        });
        ResolveError::NoSuchFunction {
            name: wanted.to_owned(),
            candidates: alike.take(CANDIDATES_MAX).map(|name| (*name).to_owned()).collect(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_name_instance_or_suffix() {
        let names = BTreeSet::from([
            "main.(*Cart).Add",
            "example.com/shop/stock.(*Shelf).Add",
            "main.Contains[go.shape.int]",
            "main.Contains[go.shape.string]",
            "main.Pick",
        ]);
        let chosen = |wanted| choose_names(&names, wanted).map(|names| names.into_iter().collect::<Vec<_>>());
        assert_eq!(chosen("main.(*Cart).Add").unwrap(), ["main.(*Cart).Add"]);
        assert_eq!(chosen("main.Cart.Add").unwrap(), ["main.(*Cart).Add"]);
        assert_eq!(chosen("(*Cart).Add").unwrap(), ["main.(*Cart).Add"]);
        assert_eq!(chosen("Cart.Add").unwrap(), ["main.(*Cart).Add"]);
        assert_eq!(chosen("Pick").unwrap(), ["main.Pick"]);
        assert_eq!(chosen("main.Contains").unwrap().len(), 2);
        assert!(
            matches!(chosen("Add"), Err(ResolveError::AmbiguousFunction { candidates, .. }) if candidates.len() == 2)
        );
        assert!(matches!(chosen("ick"), Err(ResolveError::NoSuchFunction { .. })));
        assert!(
            matches!(chosen("main.pick"), Err(ResolveError::NoSuchFunction { candidates, .. }) if candidates == ["main.Pick"])
        );
    }

    #[test]
    fn a_pattern_means_all_functions_that_fit_and_none_of_the_runtime() {
        let many: Vec<String> = (0..=PATTERN_FUNCTIONS_MAX).map(|n| format!("gen.f{n}")).collect();
        let mut names = BTreeSet::from([
            "main.(*Cart).Add",
            "main.main",
            "main.main.func1",
            "main.worker·dwrap·1",
            "example.com/shop/stock.(*Shelf).Add",
            "main.Contains[go.shape.int]",
            "main.Contains[go.shape.string]",
            "runtime.mallocgc",
            "runtime.makemap",
            "internal/runtime/maps.newTable",
        ]);
        names.extend(many.iter().map(String::as_str));
        let chosen = |wanted| names_of_pattern(&names, wanted).map(|names| names.into_iter().collect::<Vec<_>>());
        assert_eq!(
            chosen("main.*").unwrap(),
            [
                "main.(*Cart).Add",
                "main.Contains[go.shape.int]",
                "main.Contains[go.shape.string]",
                "main.main",
                "main.main.func1"
            ]
        );
        assert_eq!(chosen("main.(*Cart).*").unwrap(), ["main.(*Cart).Add"]);
        assert_eq!(chosen("*.Add").unwrap(), ["example.com/shop/stock.(*Shelf).Add", "main.(*Cart).Add"]);
        assert_eq!(chosen("*.ma*").unwrap(), ["main.main", "main.main.func1"]);
        assert!(
            matches!(chosen("runtime.m*"), Err(ResolveError::Denied { function, .. }) if function == "runtime.makemap")
        );
        assert!(matches!(chosen("nobody.*"), Err(ResolveError::NoSuchFunction { .. })));
        let refused = chosen("gen.*").unwrap_err();
        assert!(matches!(refused, ResolveError::TooManyFunctions { count, .. } if count == PATTERN_FUNCTIONS_MAX + 1));
        assert!(refused.to_string().contains("gen.f0, gen.f1, "), "{refused}");
    }

    #[test]
    fn the_runtime_is_denied() {
        for name in ["runtime.mallocgc", "internal/runtime/maps.newTable", "syscall.rawVforkSyscall"] {
            assert!(denied(name).is_some(), "{name}");
        }
        for name in ["runtime/pprof.Do", "main.runtime", "syscall.Read"] {
            assert!(denied(name).is_none(), "{name}");
        }
    }
}

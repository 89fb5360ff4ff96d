//! Variables whose described place may hold another value than the variable's: what the source says of them, held against
//! the machine code.
//!
//! Go's compiler describes the places of the values that it computes, under the names of all variables that ever have
//! them. So, in optimised code,
//! - a variable that was assigned a new value may still be described at the place of its old one: the new one was computed
//!   under another name, or later, or only where it is needed;
//! - a variable that is assigned the value of another one later may be described at that one's place before;
//! - what an `if` assigns may be computed before it is known whether it is: that is described as the variable at once;
//! - a constant that hides an outer variable of its name is not described at all.
//!
//! A variable that is assigned only where it is declared is believed. For one that is assigned again, each assignment
//! that may have run must be seen in the code: an instruction of its line that writes the variable's place, or what is
//! moved there. And whatever may have been written there last, on any way through the code, must be of a line that assigns
//! the variable, other than the line that is about to run. What is not seen so is suspect.
//!
//! Three things are known of how a compiler writes an assignment elsewhere:
//! - Where the result of a step of the variable (`x += y`, `x++`) meets another value in a place that is the variable's, that
//!   is the variable's value too, whatever line makes it: what meets is one value to the compiler, which a variable that is
//!   only stepped shares with no other variable behind its declaration.
//! - An `if` whose block only assigns may become a conditional move, or a sum with 0 or 1, of the line of the `if`, which
//!   keeps what was there.
//! - The runtime may move the elements of a slice to other memory; to the source it is the same slice.
//!
//! What a loop makes of a variable may be certain besides: see `turns`.
//!
//! Nothing becomes more certain here, but for what `kept` finds: numbers that the code still holds where the debug
//! information names no place of theirs any more.
//!
//! Not here: which assignments cannot both have run. What this misses the truth corpus has to find.

mod code;
mod effect;
mod flow;
mod kept;
mod turns;

use super::debug_info::View;
use super::functions::Functions;
use super::place::{Part, Place, Spot};
use super::scope::{Local, Presence};
use super::types::{self, Shape};
use super::{Build, ResolveError, Site};
use code::{Code, Origin};
use effect::{Cell, register};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::source::{Assigned, AssignedPart, SOURCE_BYTES_MAX, SourceFacts};
use riptrace_protocol::tracepoint::SOURCES_MAX;
use std::collections::BTreeSet;
use std::path::Path;

/// DWARF number of the stack pointer.
const STACK_POINTER: u16 = 7;

const UNSEEN: &str = "the code does not show that this place has what was assigned to it";

/// Makes suspect what cannot be confirmed.
///
/// `sources` may be of several builds: those that do not fit this one say nothing of it. Where there are none, the source
/// on this host is asked.
pub(crate) fn judge(
    build: &Build,
    view: &View<'_>,
    site: &Site,
    sources: &[SourceFacts],
    locals: &mut [Local],
) -> Result<(), ResolveError> {
    if !site.is_go() || is_unoptimised(view, site)? {
        return Ok(());
    }
    let here = if sources.is_empty() { vec![facts_here(site)] } else { Vec::new() };
    let sources = sources.iter().chain(&here).take(SOURCES_MAX);
    let fitting: Vec<&SourceFacts> = sources.filter(|facts| fits(facts, locals)).collect();
    if fitting.is_empty() {
        return Ok(());
    }
    let code = Code::of(&build.image, view, site)?;
    let begun = begun(view, site)?;
    if let Some(code) = &code {
        let is_believed = |local: &Local| fitting.iter().all(|facts| is_one_value(facts, local));
        let believed: Vec<usize> =
            locals.iter().enumerate().filter(|(_, local)| is_believed(local)).map(|(number, _)| number).collect();
        kept::recover(view, site, code, &believed, locals)?;
    }
    for facts in fitting {
        judge_by(view, site, facts, (&code, &begun), locals)?;
    }
    Ok(())
}

/// Whether the source assigns a variable only where it declares it, and its name means it at the site.
fn is_one_value(facts: &SourceFacts, local: &Local) -> bool {
    let is_meant = |it: &riptrace_protocol::source::Declared| {
        it.visible && it.name == local.name && it.line == local.declared_line
    };
    let is_assigned = |it: &Assigned| it.name == local.name && it.declared == local.declared_line;
    matches!(local.scope, Scope::Argument | Scope::Local)
        && local.declared_line != 0
        && facts.declared.iter().any(is_meant)
        && !facts.assigned.iter().any(is_assigned)
}

fn judge_by(
    view: &View<'_>,
    site: &Site,
    facts: &SourceFacts,
    (code, begun): (&Option<Code>, &[(u64, u64)]),
    locals: &mut [Local],
) -> Result<(), ResolveError> {
    for local in locals {
        if local.declared_line == 0 || local.scope == Scope::Capture {
            continue;
        }
        let means = facts.declared.iter().find(|declared| declared.visible && declared.name == local.name);
        if let Some(means) = means.filter(|means| means.line != local.declared_line) {
            let line = means.line;
            local.presence =
                Presence::Unknown(format!("the variable of this name that line {line} declares is not described"));
            continue;
        }
        let (Presence::Here(parts) | Presence::Partial { parts, .. }) = &local.presence else { continue };
        if code.as_ref().is_some_and(|code| is_begun(code, begun, parts)) {
            local.presence = Presence::Suspect("the line has begun to change it in front of this place".to_owned());
            continue;
        }
        if let Some(code) = code
            && let [part] = parts.as_slice()
            && let Some(cell) = cell(part)
            && turns::confirms(view, site, code, facts, local, cell)?
        {
            continue;
        }
        if let Some(why) = doubt(view, code, site, facts, local, parts)? {
            local.presence = Presence::Suspect(why);
        }
    }
    Ok(())
}

/// What the source of a site says, where it is on this host, as it is where programs are developed.
///
/// The path is the executable's, which is outside data: only a plain file of moderate size is read, and nothing of it is
/// shown.
fn facts_here(site: &Site) -> SourceFacts {
    let path = Path::new(&site.file);
    let is_plain = || std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= SOURCE_BYTES_MAX as u64);
    if !site.is_go() || !path.is_absolute() || !is_plain() {
        return SourceFacts::default();
    }
    let text = std::fs::read_to_string(path);
    text.map(|text| SourceFacts::of_go(&text, site.line)).unwrap_or_default()
}

/// Whether the facts are of the source of this build: they know every variable that the debug information describes.
fn fits(facts: &SourceFacts, locals: &[Local]) -> bool {
    let is_known = |local: &Local| {
        let declared =
            |it: &riptrace_protocol::source::Declared| it.name == local.name && it.line == local.declared_line;
        local.declared_line == 0 || facts.declared.iter().any(declared)
    };
    !facts.is_empty() && locals.iter().all(is_known)
}

/// Whether the compiler was told not to optimise: its places are the variables' own then.
fn is_unoptimised(view: &View<'_>, site: &Site) -> Result<bool, ResolveError> {
    let unit = view.unit(site.body().unit)?;
    let mut reader = unit.entries_raw(None)?;
    let mut entry = super::debug_info::Entry::null();
    if !reader.read_entry(&mut entry)? {
        return Ok(false);
    }
    let Some(value) = entry.attr_value(gimli::DW_AT_producer) else { return Ok(false) };
    let producer = view.dwarf.attr_string(&unit, value)?.to_string_lossy().into_owned();
    Ok(producer.split([';', ' ']).any(|flag| flag == "-N"))
}

/// Why a variable is not to be believed.
fn doubt(
    view: &View<'_>,
    code: &Option<Code>,
    site: &Site,
    facts: &SourceFacts,
    local: &Local,
    parts: &[Part],
) -> Result<Option<String>, ResolveError> {
    let shape = match local.ty {
        Some(ty) => types::read(view, ty)?.shape,
        None => return Ok(None),
    };
    let assigned: Vec<(&Assigned, Option<(u64, u64)>)> = facts
        .assigned
        .iter()
        .filter(|it| it.name == local.name && it.declared == local.declared_line)
        .map(|it| Ok((it, range_of(view, &shape, &it.part)?)))
        .collect::<Result<_, ResolveError>>()?;
    // What is assigned is behind the variable, not in it.
    let assigned: Vec<_> = assigned.into_iter().filter_map(|(it, range)| range.map(|range| (it, range))).collect();
    if assigned.is_empty() {
        return Ok(None);
    }
    let Some(code) = code else { return Ok(Some(UNSEEN.to_owned())) };
    let is_argument = matches!(local.scope, Scope::Argument | Scope::Result);
    let own: BTreeSet<u32> =
        assigned.iter().filter(|(it, _)| it.before).map(|(it, _)| it.line).chain([local.declared_line]).collect();
    // `i++` in the head of a loop is of the line that declares `i`, and runs behind the body.
    let is_stepped = assigned.iter().any(|(it, _)| it.line == it.declared);
    // Then it has no longer what it was declared with.
    let is_assigned =
        |(start, end): (u64, u64)| assigned.iter().any(|(it, (from, to))| it.always && *from < end && start < *to);
    // Where all assignments are steps of the variable or in the block of an `if`, the compiler may make the block a
    // computation of the `if` itself: a conditional move to the variable, or a sum with 0 or 1.
    let is_guarded = assigned.iter().all(|(it, _)| it.part == AssignedPart::Whole && (it.step || it.guard != 0));
    let guards: BTreeSet<u32> =
        assigned.iter().filter(|(it, _)| is_guarded && it.before && it.guard != 0).map(|(it, _)| it.guard).collect();
    // The block may also become a conditional move of the line behind it: then what it chooses is of the block's line.
    let chosen = |number: u32| is_guarded.then(|| turns::chosen(code, number, site.line, &assigned)).flatten();
    let is_guard = |origin: &Origin| match *origin {
        Origin::Made { line, keeps: true, at, .. } => guards.contains(&line) || chosen(at).is_some(),
        _ => false,
    };
    let only_steps = assigned.iter().all(|(it, _)| it.part == AssignedPart::Whole && it.step);
    let is_right = |origin: &Origin, is_assigned: bool| match *origin {
        Origin::Entry => is_argument && !is_assigned,
        Origin::Made { line, .. } if is_assigned && line == local.declared_line && !is_stepped => false,
        // Code of the line itself, in front of this place, has changed it already.
        Origin::Made { line, is_left: false, .. } if line == site.line => false,
        Origin::Made { line, .. } if !own.contains(&line) && !is_guard(origin) => false,
        // What runs behind this place is in front of it only the last time round.
        Origin::Made { line, is_constant, is_back, .. }
            if line > site.line || is_stepped && line == local.declared_line =>
        {
            is_constant || is_back
        }
        Origin::Made { .. } => true,
    };
    let mut at = 0;
    for part in parts {
        let (start, end) = (at, at + part.bytes);
        at = end;
        let Some(cell) = cell(part) else {
            match &part.place {
                // Behind a pointer it is in memory of its own, which its assignments write; a constant is padding.
                Place::Memory(_) | Place::Constant(_) => continue,
                _ => return Ok(Some(UNSEEN.to_owned())),
            }
        };
        let is_assigned = is_assigned((start, end));
        let is_memory = matches!(cell, Cell::Stack { .. }) && part.bytes > 8;
        let mut seen = BTreeSet::new();
        if !is_memory {
            let Some(origins) = origins_through(code, code.index(site.address.0), cell, is_guard) else {
                return Ok(Some(UNSEEN.to_owned()));
            };
            // Within a turn it is the choice of this one.
            let nearest = code.origins(code.index(site.address.0), cell).unwrap_or_default();
            let choices: BTreeSet<(u32, bool)> = nearest
                .iter()
                .filter_map(|origin| match *origin {
                    Origin::Made { line, keeps: true, is_back, at, .. } if !guards.contains(&line) => {
                        chosen(at).map(|line| (line, is_back))
                    }
                    _ => None,
                })
                .collect();
            let is_chosen = |origin: &Origin| match *origin {
                Origin::Made { line, at, .. } => !guards.contains(&line) && is_guard(origin) && chosen(at).is_some(),
                Origin::Entry => false,
            };
            let is_old = |line: u32| choices.contains(&(line, true)) || !choices.contains(&(line, false));
            if origins.iter().any(|origin| match *origin {
                Origin::Made { at, .. } if is_chosen(origin) => chosen(at).is_some_and(is_old),
                _ => false,
            }) {
                return Ok(Some(format!("{UNSEEN} in this turn of the loop")));
            }
            seen.extend(choices.iter().map(|(line, _)| *line));
            if let Some(line) = overwritten(&origins, &assigned, (start, end), site.line) {
                return Ok(Some(format!("{UNSEEN} on line {line}")));
            }
            if let Some(line) = made_too_often(&origins, &assigned, local.declared_line) {
                return Ok(Some(format!("the code computes what line {line} assigns, also where that does not run")));
            }
            // What was assigned again meets here what was there before: that is the variable's first value, whose code may
            // be of any line.
            let meets = origins.iter().any(|origin| {
                let Origin::Made { line, .. } = *origin else { return false };
                is_right(origin, is_assigned)
                    && (is_guard(origin) || assigned.iter().any(|(it, _)| it.before && it.line == line))
            });
            // Where what a step of the variable makes meets something else, that is a value of the variable as well, whatever
            // makes it: of other variables, none takes part in the steps of this one, and this one never takes the value of
            // another one behind its declaration.
            let is_step = |origin: &&Origin| match **origin {
                Origin::Made { line, is_constant: false, .. } => {
                    only_steps
                        && is_right(origin, is_assigned)
                        && assigned.iter().any(|(it, _)| it.before && it.line == line)
                }
                _ => false,
            };
            let number = |origin: &Origin| match *origin {
                Origin::Made { at, .. } => Some(at),
                Origin::Entry => None,
            };
            let steps: BTreeSet<Option<u32>> = origins.iter().filter(is_step).map(number).collect();
            let is_other_than_a_step = |origin: &Origin| match *origin {
                Origin::Entry => true,
                Origin::Made { line, is_left, .. } => {
                    let is_of_step = assigned.iter().any(|(it, _)| it.line == line && line != local.declared_line);
                    !is_of_step && !steps.contains(&number(origin)) && (is_left || line != site.line)
                }
            };
            let meets_step = |origin: &Origin| !steps.is_empty() && is_other_than_a_step(origin);
            let is_first = |origin: &Origin| match *origin {
                Origin::Entry => true,
                Origin::Made { line, is_constant, is_left, .. } => is_constant && (is_left || line != site.line),
            };
            let is_wrong = |origin: &&Origin| {
                let is_first = meets && is_first(origin) || meets_step(origin);
                !is_right(origin, is_assigned) && (is_assigned || !is_first)
            };
            if let Some(other) = origins.iter().find(is_wrong) {
                return Ok(Some(format!("{UNSEEN} (it is of {})", other.said())));
            }
        }
        let touching = assigned.iter().filter(|(it, (from, to))| it.before && *from < end && start < *to);
        let mut touching = touching.map(|(it, _)| (it.line, it.guard)).peekable();
        // To find all that write a place is the dearest question here.
        if touching.peek().is_some() {
            let Some(lines) = code.written_at(cell) else { return Ok(Some(UNSEEN.to_owned())) };
            let is_seen = |line: u32, guard: u32| {
                lines.contains(&line) || seen.contains(&line) || guards.contains(&guard) && lines.contains(&guard)
            };
            if let Some((line, _)) = touching.find(|&(line, guard)| !is_seen(line, guard)) {
                return Ok(Some(format!("{UNSEEN} on line {line}")));
            }
        }
    }
    Ok(None)
}

/// The line that has assigned a part of a variable last, on all ways to a site, where its place has what another line assigned
/// before that: a later value is elsewhere then, and described nowhere.
fn overwritten(
    origins: &BTreeSet<Origin>,
    assigned: &[(&Assigned, (u64, u64))],
    (start, end): (u64, u64),
    site_line: u32,
) -> Option<u32> {
    let is_all = |it: &Assigned, from: u64, to: u64| {
        it.always && it.before && !it.literal && it.line < site_line && from <= start && end <= to
    };
    let last = assigned.iter().filter(|(it, (from, to))| is_all(it, *from, *to)).map(|(it, _)| it.line).max()?;
    let is_older = |origin: &Origin| match *origin {
        Origin::Made { line, .. } => {
            assigned.iter().any(|(it, _)| it.line == line) && !(last <= line && line < site_line)
        }
        Origin::Entry => false,
    };
    origins.iter().any(is_older).then_some(last)
}

/// A line that does not run on all ways to the site, and still is the only one that the content of a place comes from: then
/// the code computes it on all ways, and chooses elsewhere between it and what was there.
fn made_too_often(origins: &BTreeSet<Origin>, assigned: &[(&Assigned, (u64, u64))], declared_line: u32) -> Option<u32> {
    let line_of = |origin: &Origin| match *origin {
        Origin::Made { line, .. } => Some(line),
        Origin::Entry => None,
    };
    let line = origins.iter().next().and_then(line_of).filter(|line| *line != declared_line)?;
    let is_only = origins.iter().all(|origin| line_of(origin) == Some(line));
    let mut here = assigned.iter().filter(|(it, _)| it.line == line).peekable();
    (is_only && here.peek().is_some() && here.all(|(it, _)| it.before && !it.always)).then_some(line)
}

/// Where the content of a cell comes from: also through instructions that keep what was there, where those are meant.
fn origins_through(code: &Code, at: usize, cell: Cell, is_meant: impl Fn(&Origin) -> bool) -> Option<BTreeSet<Origin>> {
    /// Such instructions of one question, at most: each is asked for anew.
    const THROUGH_MAX: usize = 8;
    let mut found = code.origins(at, cell)?;
    let mut asked = BTreeSet::new();
    while let Some(number) = found.iter().find_map(|origin| match *origin {
        Origin::Made { at, .. } if is_meant(origin) && !asked.contains(&at) => Some(at),
        _ => None,
    }) {
        if asked.len() == THROUGH_MAX {
            return None;
        }
        asked.insert(number);
        let cell = code.target(number as usize)?;
        found.extend(code.origins(number as usize, cell)?);
    }
    Some(found)
}

/// Whether the line has begun: a call of it that was inlined has written a variable in front of the site.
fn is_begun(code: &Code, begun: &[(u64, u64)], parts: &[Part]) -> bool {
    parts.iter().filter_map(cell).any(|cell| begun.iter().any(|&range| code.may_write(range, cell)))
}

/// The code between the beginnings of the line's inlined calls and the site, where they are in front of it.
fn begun(view: &View<'_>, site: &Site) -> Result<Vec<(u64, u64)>, ResolveError> {
    let functions = Functions::of_unit(view, site.body().unit)?;
    let Some(function) = functions.at(site.address.0) else { return Ok(Vec::new()) };
    let is_of_line = |call: &&super::functions::Inlined| {
        call.call_line == site.line && call.call_file.is_some_and(|file| view.index.path(file) == site.file.as_str())
    };
    let starts = function.inlined.iter().filter(is_of_line).flat_map(|call| &call.ranges).map(|range| range.start);
    Ok(starts.filter(|start| *start < site.address.0).map(|start| (start, site.address.0)).collect())
}

/// The bytes of a variable that an assignment changes; `None` where it changes what the variable points to.
fn range_of(view: &View<'_>, shape: &Shape, part: &AssignedPart) -> Result<Option<(u64, u64)>, ResolveError> {
    const ALL: (u64, u64) = (0, u64::MAX);
    Ok(match (part, shape) {
        (AssignedPart::Whole, _) | (AssignedPart::Element, Shape::Array { .. }) => Some(ALL),
        (AssignedPart::Field { name, deeper }, Shape::Struct(members)) => {
            let Some(member) = members.iter().find(|member| member.name == *name) else {
                // A promoted one: in an embedded struct, or behind an embedded pointer.
                return Ok(Some(ALL));
            };
            let Some(ty) = member.ty else { return Ok(Some(ALL)) };
            let facts = types::read(view, ty)?;
            let is_in_it = matches!(facts.shape, Shape::Struct(_) | Shape::Array { .. });
            (!deeper || is_in_it).then_some((member.offset, member.offset.saturating_add(facts.bytes)))
        }
        _ => None,
    })
}

/// Where a part is, if the function's own code writes it.
fn cell(part: &Part) -> Option<Cell> {
    match &part.place {
        Place::Register(number) => register(*number).map(Cell::Register),
        Place::Memory(Spot { base: Some(STACK_POINTER), offset, derefs }) if derefs.is_empty() => {
            Some(Cell::Stack { offset: *offset, bytes: part.bytes })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_assigned_before_the_last_one_is_not_there_any_more() {
        let assigned = |line: u32, always: bool| Assigned {
            name: "sum".to_owned(),
            declared: 55,
            part: AssignedPart::Whole,
            line,
            before: true,
            always,
            step: true,
            guard: 0,
            takes: None,
            turn: None,
            literal: false,
        };
        let made = |line: u32, is_back: bool| Origin::Made {
            line,
            is_constant: false,
            is_left: true,
            is_back,
            keeps: false,
            at: line,
        };
        // Go 1.27 for `sum += x` (58), `sum += at` (62), a call of its value (63): ADDQ SI, DX; LEAQ (DX)(CX), AX, and DX is
        // described up to the call.
        let told = |origins: &[Origin], always: bool| {
            let all = [assigned(58, true), assigned(62, always)];
            let all: Vec<_> = all.iter().map(|it| (it, (0, u64::MAX))).collect();
            overwritten(&origins.iter().copied().collect(), &all, (0, 8), 63)
        };
        assert_eq!(told(&[made(58, false)], true), Some(62));
        assert_eq!(told(&[made(62, false)], true), None);
        assert_eq!(told(&[made(58, false), made(62, false)], false), None, "it runs on some ways only");
        assert_eq!(told(&[made(62, true), made(40, false)], true), None, "what is no assignment is asked elsewhere");
    }

    #[test]
    fn what_is_computed_on_all_ways_is_not_what_only_some_assign() {
        let assigned = |line: u32, always: bool| Assigned {
            name: "odd".to_owned(),
            declared: 54,
            part: AssignedPart::Whole,
            line,
            before: true,
            always,
            step: true,
            guard: 62,
            takes: None,
            turn: None,
            literal: false,
        };
        let made = |line: u32| Origin::Made {
            line,
            is_constant: false,
            is_left: true,
            is_back: false,
            keeps: false,
            at: line,
        };
        let told = |origins: &[Origin], it: &Assigned| {
            made_too_often(&origins.iter().copied().collect(), &[(it, (0, u64::MAX))], 54)
        };
        // Go 1.25 for `if each%2 == 1 { odd++ }`: LEAQ 1(SI), BX on all ways, described as the variable, and a CMOVE of it behind.
        assert_eq!(told(&[made(63)], &assigned(63, false)), Some(63));
        assert_eq!(told(&[made(63)], &assigned(63, true)), None, "all ways lead over it");
        assert_eq!(told(&[made(63), made(54)], &assigned(63, false)), None, "what was there before comes as well");
        assert_eq!(told(&[made(63), Origin::Entry], &assigned(63, false)), None);
        assert_eq!(told(&[made(54)], &assigned(54, false)), None, "a declaration");
        assert_eq!(told(&[made(70)], &assigned(63, false)), None, "no assignment of it");
    }
}

//! The variables in scope at a site, and how far each can be believed.
//!
//! Ordinary optimised builds describe some variables wrongly, and debuggers then show wrong values. Here a variable is
//! only read when its description is whole and free of contradictions:
//! - a description narrower than the type is partial; it is never interpreted;
//! - Go splits a string into `x.ptr` and `x.len` with entries of their own: a description of `x` as a whole that
//!   disagrees with theirs is suspect (compilers have described the length's slot as the string);
//! - two variables whose memory overlaps without being the same cannot both be right: both are suspect;
//! - an empty description, or none, means optimised out;
//! - a variable declared on the site's line or after it does not hold its value yet: it is not in scope.

use super::debug_info::{Bytes, Die, Entry, Unit, View};
use super::functions::{Functions, read_ranges};
use super::index::contains;
use super::place::{Located, Moment, Part, Place, Spot, capacity};
use super::types::{self, Shape, TypeFacts, go_constants, unsigned};
use super::{ResolveError, Site};
use gimli::{AttributeValue, DwAt};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::limits;
use std::collections::BTreeSet;

const DW_AT_GO_CLOSURE_OFFSET: DwAt = DwAt(0x2907);
/// Address ranges of one function's lexical blocks that are read, at most.
const RANGES_MAX: usize = 1 << 16;

/// A variable at a site.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Local {
    pub(crate) name: String,
    /// 0 when unknown.
    pub(crate) declared_line: u32,
    pub(crate) scope: Scope,
    /// `None` when the debug information names no type.
    pub(crate) ty: Option<Die>,
    pub(crate) presence: Presence,
    /// The entry that describes it; `None` where that is not what describes its place here.
    pub(crate) die: Option<Die>,
}

/// Whether a variable can be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Presence {
    /// All its bytes, in order; their sizes sum up to the type's.
    Here(Vec<Part>),
    /// Only parts of it exist.
    Partial {
        /// Which, for a person.
        present: String,
        /// All its bytes, in order, with what is no place of theirs where they are missing; none where it is not known which
        /// parts those are that exist.
        parts: Vec<Part>,
        /// Beginnings and ends of what is missing.
        missing: Vec<(u64, u64)>,
    },
    /// It is described in a way that cannot be right.
    Suspect(String),
    OptimisedOut,
    /// RipTrace cannot read it.
    Unknown(String),
}

/// What is read of an entry before variables are judged together.
struct Candidate {
    name: String,
    declared_line: u32,
    scope: Scope,
    ty: Option<Die>,
    located: Located,
    die: Option<Die>,
    /// How many lexical blocks around it: the innermost of one name hides the others.
    nesting: usize,
    /// Its places have no parts, though it has one place here and another there.
    is_one_slot: bool,
}

/// The variables in scope at a site: arguments, results, then locals in the order of their declaration.
pub(crate) fn at_site(view: &View<'_>, site: &Site) -> Result<Vec<Local>, ResolveError> {
    let moment = Moment::new(view, site.body, site.address.0)?;
    let candidates = candidates(view, &moment, site)?;
    let mut locals = Vec::new();
    let mut memory: Vec<(usize, Spot, u64)> = Vec::new();
    for candidate in &candidates {
        // Split parts and what the compiler made for itself are no variables of the source.
        if candidate.name.contains('.')
            || candidate.name.starts_with(['~', '#'])
            || matches!(&*candidate.name, "" | "_")
        {
            continue;
        }
        let facts = candidate.ty.map(|ty| types::read(view, ty)).transpose()?;
        let mut presence = match &facts {
            Some(facts) if site.is_go() && candidate.is_one_slot && is_split(view, facts)? => {
                unknown_part(facts.bytes.min(8), facts.bytes)
            }
            Some(facts) => judge(view, facts, &candidate.located)?,
            None => Presence::Unknown("its type is not described".to_owned()),
        };
        if let (Presence::Here(_), Some(why)) = (&presence, contradiction(candidate, &candidates)) {
            presence = Presence::Suspect(why);
        }
        let mut local = Local {
            name: candidate.name.clone(),
            declared_line: candidate.declared_line,
            scope: candidate.scope,
            ty: candidate.ty,
            presence,
            die: candidate.die,
        };
        if let (Located::Whole(Place::Memory(spot)), Presence::Here(_), Some(facts)) =
            (&candidate.located, &local.presence, &facts)
        {
            memory.push((locals.len(), spot.clone(), facts.bytes));
        }
        unescape(view, &mut local, facts)?;
        locals.push((local, candidate.nesting));
    }
    for (number, why) in overlaps(&locals, &memory) {
        locals[number].0.presence = Presence::Suspect(why);
    }
    Ok(visible(locals))
}

/// The variable outside of all functions that a name means at a site: one of this name (C), of the site's package, or
/// `package.name` (Go). Several of one name are told apart by the site's own unit, else they are unknown.
pub(crate) fn global(view: &View<'_>, site: &Site, name: &str) -> Result<Option<Local>, ResolveError> {
    let (path, function) =
        site.function.rsplit_once('/').map_or(("", site.function.as_str()), |(path, rest)| (path, rest));
    let package = function.split('.').next().unwrap_or_default();
    let in_package = if path.is_empty() { format!("{package}.{name}") } else { format!("{path}/{package}.{name}") };
    // In Go a variable is in its package's unit, mostly: only where it is not there, all others are read.
    let own = match site.is_go() {
        true => go_constants::units_of(view, name.split_once('.').map_or(&*in_package, |_| name))?,
        false => Vec::new(),
    };
    let others = (0..view.index.units.len() as u32).filter(|unit| !own.contains(unit));
    let mut found = Vec::new();
    for (number, unit) in own.iter().copied().chain(others).enumerate() {
        if number == own.len() && !found.is_empty() {
            break;
        }
        let functions = Functions::of_unit(view, unit)?;
        let globals = functions.globals.iter().filter(|global| {
            let is_suffix =
                || name.contains('.') && global.name.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'));
            global.name == name || site.is_go && (global.name == in_package || is_suffix())
        });
        found.extend(globals.map(|global| global.die));
    }
    if found.len() > 1 && found.iter().any(|die| die.unit == site.body.unit) {
        found.retain(|die| die.unit == site.body.unit);
    }
    let Some(&die) = found.first() else { return Ok(None) };
    let (unit, entry) = view.entry(die)?;
    let moment = Moment::new(view, site.body, site.address.0)?;
    let origins = view.origins(die)?;
    let ty = origins.iter().find_map(|(at, entry)| view.target(at.unit, entry.attr_value(gimli::DW_AT_type)));
    let presence = match (found.len(), ty) {
        (1, Some(ty)) => {
            let located = moment.locate(&unit, entry.attr_value(gimli::DW_AT_location))?;
            judge(view, &types::read(view, ty)?, &located)?
        }
        (1, None) => Presence::Unknown("its type is not described".to_owned()),
        (count, _) => Presence::Unknown(format!("{count} variables have this name: write more of it")),
    };
    Ok(Some(Local { name: name.to_owned(), declared_line: 0, scope: Scope::Capture, ty, presence, die: None }))
}

/// A variable that moved to the heap is described as a pointer named `&x`: it is shown as `x`.
fn unescape(view: &View<'_>, local: &mut Local, facts: Option<TypeFacts>) -> Result<(), ResolveError> {
    let Some(name) = local.name.strip_prefix('&') else { return Ok(()) };
    local.name = name.to_owned();
    local.die = None;
    let Some(TypeFacts { shape: Shape::Pointer(Some(to)), .. }) = facts else {
        local.presence = Presence::Unknown("it moved to the heap, and where is not described".to_owned());
        return Ok(());
    };
    local.ty = Some(to);
    let Presence::Here(parts) = &local.presence else { return Ok(()) };
    let pointee = match parts.as_slice() {
        [Part { place: Place::Register(register), .. }] => {
            Some(Spot { base: Some(*register), offset: 0, derefs: Vec::new() })
        }
        [Part { place: Place::Memory(spot), .. }] => Some(spot.clone().deref()),
        _ => None,
    };
    local.presence = match pointee {
        Some(spot) => Presence::Here(vec![Part { bytes: types::read(view, to)?.bytes, place: Place::Memory(spot) }]),
        None => Presence::Unknown("it moved to the heap, and the pointer to it is not in one place".to_owned()),
    };
    Ok(())
}

/// Orders the variables and leaves out those that an inner one of the same name hides.
fn visible(mut locals: Vec<(Local, usize)>) -> Vec<Local> {
    // Inner before outer, later before earlier; the first of a name is the visible one.
    let mut order: Vec<usize> = (0..locals.len()).collect();
    order.sort_by_key(|&number| {
        let (local, nesting) = &locals[number];
        std::cmp::Reverse((*nesting, local.declared_line, number))
    });
    let mut names = BTreeSet::new();
    let shown: BTreeSet<usize> = order.into_iter().filter(|&n| names.insert(locals[n].0.name.clone())).collect();
    let mut number = 0;
    locals.retain(|_| {
        number += 1;
        shown.contains(&(number - 1))
    });
    let rank = |scope| match scope {
        Scope::Argument => 0,
        Scope::Result => 1,
        Scope::Local | Scope::Capture | Scope::Goroutine => 2,
    };
    let line = |local: &Local| if local.scope == Scope::Local { local.declared_line } else { 0 };
    locals.sort_by_key(|(local, _)| (rank(local.scope), line(local)));
    locals.into_iter().map(|(local, _)| local).collect()
}

/// Variables in memory that overlap without being the same.
fn overlaps(locals: &[(Local, usize)], memory: &[(usize, Spot, u64)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let is_frame = |spot: &Spot| spot.base.is_some() && spot.derefs.is_empty();
    for (a, at, bytes) in memory.iter().filter(|(_, spot, _)| is_frame(spot)) {
        let end = |spot: &Spot, bytes: u64| i128::from(spot.offset) + i128::from(bytes);
        let other = memory.iter().find(|(b, other, other_bytes)| {
            a != b
                && at.base == other.base
                && is_frame(other)
                && (at.offset, bytes) != (other.offset, other_bytes)
                && i128::from(at.offset) < end(other, *other_bytes)
                && i128::from(other.offset) < end(at, *bytes)
        });
        if let Some((b, _, _)) = other {
            let name = &locals[*b].0.name;
            found.push((*a, format!("the debug information gives it memory that is also said to be {name}'s")));
        }
    }
    found
}

/// Why a whole variable disagrees with the entries of its own parts.
fn contradiction(variable: &Candidate, all: &[Candidate]) -> Option<String> {
    let Located::Whole(Place::Memory(whole)) = &variable.located else { return None };
    all.iter().find_map(|part| {
        let name = part.name.strip_prefix(variable.name.as_str())?.strip_prefix('.')?;
        let offset = part_offset(name)?;
        let Located::Whole(Place::Memory(at)) = &part.located else { return None };
        (*at != whole.clone().plus(offset)).then(|| {
            format!(
                "the debug information gives the whole variable and its part .{name} places that do not fit together"
            )
        })
    })
}

/// Offset of a part that Go's compiler split off (`cmd/compile/internal/ssa/decompose.go`).
fn part_offset(part: &str) -> Option<i64> {
    match part {
        "ptr" | "real" | "itab" | "type" => Some(0),
        "len" | "imag" | "data" => Some(8),
        "cap" => Some(16),
        _ => None,
    }
}

/// Whether optimised Go takes values of a type apart into parts that have places of their own. Where a single part is left of
/// such a variable, its place is described as if it were the variable's: without `DW_OP_piece`, and without saying which part
/// (`cmd/compile/internal/ssa/debug.go`, `writePendingEntry`: pieces are written for several slots only).
///
/// What has an array of several elements is never taken apart: it is in memory, all of it, and indexed there
/// (`cmd/compile/internal/ssa/value.go`, `CanSSA`).
fn is_split(view: &View<'_>, facts: &TypeFacts) -> Result<bool, ResolveError> {
    /// A type within a type within a type: damaged files loop.
    const NESTING_MAX: usize = 16;
    if has_array(view, facts, NESTING_MAX)? {
        return Ok(false);
    }
    let mut facts = facts.clone();
    for _ in 0..NESTING_MAX {
        let Shape::Struct(members) = &facts.shape else { break };
        let mut held = Vec::new();
        for ty in members.iter().filter_map(|member| member.ty) {
            held.extend(Some(types::read(view, ty)?).filter(|member| member.bytes > 0));
        }
        // A struct of one member is that member.
        match <[TypeFacts; 1]>::try_from(held) {
            Ok([only]) => facts = only,
            Err(several) => return Ok(!several.is_empty()),
        }
    }
    Ok(facts.bytes > 8 || matches!(facts.shape, Shape::Complex))
}

/// Whether there is an array of several elements in a value, however deep.
fn has_array(view: &View<'_>, facts: &TypeFacts, nesting: usize) -> Result<bool, ResolveError> {
    let Some(nesting) = nesting.checked_sub(1).filter(|_| facts.bytes > 0) else { return Ok(false) };
    match &facts.shape {
        Shape::Array { count, .. } if *count > 1 => Ok(true),
        Shape::Array { element, .. } => has_array(view, &types::read(view, *element)?, nesting),
        Shape::Struct(members) => {
            for ty in members.iter().filter_map(|member| member.ty) {
                if has_array(view, &types::read(view, ty)?, nesting)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Named parts of a value: what a partial description can be told in.
fn components(view: &View<'_>, facts: &TypeFacts) -> Result<Vec<(String, u64, u64)>, ResolveError> {
    let words = |names: &[&str]| {
        names.iter().zip(0u64..).map(|(name, number)| ((*name).to_owned(), number * 8, 8)).collect::<Vec<_>>()
    };
    Ok(match &facts.shape {
        Shape::GoString => words(&["ptr", "len"]),
        Shape::GoSlice(_) => words(&["ptr", "len", "cap"]),
        Shape::Interface { .. } => words(&["type", "data"]),
        Shape::Complex => {
            let half = facts.bytes / 2;
            vec![("real".to_owned(), 0, half), ("imag".to_owned(), half, half)]
        }
        Shape::Struct(members) => {
            let mut components = Vec::new();
            for member in members {
                let bytes = match member.ty {
                    Some(ty) => types::read(view, ty)?.bytes,
                    None => facts.bytes.saturating_sub(member.offset),
                };
                components.push((member.name.clone(), member.offset, bytes));
            }
            components
        }
        _ => vec![(String::new(), 0, facts.bytes)],
    })
}

/// Whether a description covers a whole value of its type.
fn judge(view: &View<'_>, facts: &TypeFacts, located: &Located) -> Result<Presence, ResolveError> {
    if facts.bytes == 0 && !matches!(facts.shape, Shape::Opaque(_)) {
        return Ok(Presence::Here(Vec::new()));
    }
    let parts = match located {
        Located::Nowhere => return Ok(Presence::OptimisedOut),
        Located::Unknown(why) => return Ok(Presence::Unknown(why.clone())),
        Located::Whole(Place::Nothing) => return Ok(Presence::OptimisedOut),
        Located::Whole(place) if capacity(place) < facts.bytes => {
            let known = capacity(place);
            return Ok(unknown_part(known, facts.bytes));
        }
        // Go keeps eight bytes in a vector register, never more.
        Located::Whole(Place::Register(_))
            if facts.bytes > 8
                && matches!(facts.shape, Shape::GoString | Shape::GoSlice(_) | Shape::Interface { .. }) =>
        {
            return Ok(unknown_part(8, facts.bytes));
        }
        Located::Whole(place) => {
            let mut place = place.clone();
            if let Place::Constant(bytes) = &mut place {
                bytes.truncate(facts.bytes as usize);
            }
            return Ok(Presence::Here(vec![Part { bytes: facts.bytes, place }]));
        }
        Located::Pieces(parts) => parts,
    };
    if facts.bytes > limits::HIT_BYTES_MAX as u64 {
        return Ok(Presence::Unknown(format!("{} bytes, more than a hit can hold", facts.bytes)));
    }
    let described: u64 = parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes));
    if described > facts.bytes {
        return Ok(Presence::Suspect(format!("{described} bytes are described for a type of {} bytes", facts.bytes)));
    }
    // Bytes that are not there: harmless where they are padding.
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    let mut whole = Vec::new();
    let mut at = 0;
    for part in parts {
        let missing = part.place == Place::Nothing || capacity(&part.place) < part.bytes;
        if missing {
            gaps.push((at, at + part.bytes));
            whole.push(Part { bytes: part.bytes, place: Place::Constant(vec![0; part.bytes as usize]) });
        } else {
            whole.push(part.clone());
        }
        at += part.bytes;
    }
    if at < facts.bytes {
        gaps.push((at, facts.bytes));
        whole.push(Part { bytes: facts.bytes - at, place: Place::Constant(vec![0; (facts.bytes - at) as usize]) });
    }
    if gaps.is_empty() {
        return Ok(Presence::Here(whole));
    }
    if gaps.iter().map(|(start, end)| end - start).sum::<u64>() >= facts.bytes {
        return Ok(Presence::OptimisedOut);
    }
    let is_missing =
        |offset: u64, bytes: u64| gaps.iter().any(|&(start, end)| offset < end && start < offset.saturating_add(bytes));
    let components = components(view, facts)?;
    let (missing, present): (Vec<_>, Vec<_>) =
        components.into_iter().partition(|(_, offset, bytes)| is_missing(*offset, *bytes));
    if missing.is_empty() {
        return Ok(Presence::Here(whole));
    }
    let names: Vec<String> = present.into_iter().map(|(name, _, _)| name).collect();
    let present = match names.as_slice() {
        [] => "some bytes, no whole part".to_owned(),
        names => format!("{} only", names.join(", ")),
    };
    Ok(Presence::Partial { present, parts: whole, missing: gaps })
}

fn unknown_part(known: u64, bytes: u64) -> Presence {
    let present = format!("{known} of {bytes} bytes, not known which");
    Presence::Partial { present, parts: Vec::new(), missing: Vec::new() }
}

fn candidates<'a>(view: &View<'a>, moment: &Moment<'_, 'a>, site: &Site) -> Result<Vec<Candidate>, ResolveError> {
    let (unit, _) = view.entry(site.scope)?;
    let mut found = Vec::new();
    let mut described: BTreeSet<Die> = BTreeSet::new();
    let mut ranges_left = RANGES_MAX;
    let mut reader = unit.entries_raw(Some(site.scope.offset))?;
    let mut entry = Entry::null();
    if !reader.read_entry(&mut entry)? || !entry.has_children() {
        return Ok(found);
    }
    let scope_depth = entry.depth();
    // While set, entries deeper than this are not in scope.
    let mut skip_below: Option<isize> = None;
    let mut blocks: Vec<isize> = Vec::new();
    while !reader.is_empty() && reader.next_depth() > scope_depth {
        if !reader.read_entry(&mut entry)? {
            continue;
        }
        let depth = entry.depth();
        if skip_below.is_some_and(|below| depth > below) {
            continue;
        }
        skip_below = None;
        while blocks.last().is_some_and(|&block| block >= depth) {
            blocks.pop();
        }
        match entry.tag() {
            gimli::DW_TAG_formal_parameter | gimli::DW_TAG_variable => {
                let die = Die { unit: site.scope.unit, offset: entry.offset() };
                let origins = view.origins(die)?;
                described.extend(origins.iter().map(|(origin, _)| *origin));
                found.extend(candidate(view, moment, site, &unit, &origins, blocks.len())?);
            }
            gimli::DW_TAG_lexical_block => {
                let ranges = read_ranges(view, &unit, &entry, &mut ranges_left)?;
                if contains(&ranges, site.address.0) {
                    blocks.push(depth);
                } else {
                    skip_below = Some(depth);
                }
            }
            _ => skip_below = Some(depth),
        }
    }
    // A copy leaves out variables that it does not keep anywhere; the common part still knows them.
    for (origin, _) in view.origins(site.scope)?.into_iter().skip(1) {
        let (origin_unit, _) = view.entry(origin)?;
        let mut missing = Vec::new();
        types::for_children(&origin_unit, origin, |entry| {
            let die = Die { unit: origin.unit, offset: entry.offset() };
            let is_variable = matches!(entry.tag(), gimli::DW_TAG_formal_parameter | gimli::DW_TAG_variable);
            if is_variable && !described.contains(&die) {
                missing.push(die);
            }
        })?;
        for die in missing {
            let origins = view.origins(die)?;
            described.extend(origins.iter().map(|(origin, _)| *origin));
            let candidate = candidate(view, moment, site, &origin_unit, &origins, 0)?;
            found.extend(candidate.map(|candidate| Candidate { located: Located::Nowhere, die: None, ..candidate }));
        }
    }
    Ok(found)
}

/// What an entry says, with what it leaves to its origins; `None` where the variable is not in scope yet.
fn candidate<'a>(
    view: &View<'a>,
    moment: &Moment<'_, 'a>,
    site: &Site,
    unit: &Unit<'a>,
    origins: &[(Die, Entry<'a>)],
    nesting: usize,
) -> Result<Option<Candidate>, ResolveError> {
    let Some((die, own)) = origins.first() else { return Ok(None) };
    let attribute = |name: DwAt| origins.iter().find_map(|(die, entry)| Some((die, entry.attr_value(name)?)));
    let declared_line = origins
        .iter()
        .find_map(|(_, entry)| unsigned(entry, gimli::DW_AT_decl_line))
        .and_then(|line| u32::try_from(line).ok())
        .unwrap_or(0);
    let is_parameter = own.tag() == gimli::DW_TAG_formal_parameter;
    let is_result = is_parameter
        && matches!(
            attribute(gimli::DW_AT_variable_parameter),
            Some((_, AttributeValue::Flag(true) | AttributeValue::Data1(1)))
        );
    // What a closure captured was declared outside of it.
    let is_captured = attribute(DW_AT_GO_CLOSURE_OFFSET).is_some();
    if !is_parameter && !is_captured && declared_line >= site.line {
        return Ok(None);
    }
    let located = match own.attr_value(gimli::DW_AT_location) {
        Some(location) => moment.locate(unit, Some(location))?,
        None => match attribute(gimli::DW_AT_const_value) {
            Some((_, value)) => constant(value),
            None => Located::Nowhere,
        },
    };
    let ty = attribute(gimli::DW_AT_type).and_then(|(at, value)| view.target(at.unit, Some(value)));
    let places = moment.history(unit, own.attr_value(gimli::DW_AT_location))?;
    let is_one_slot =
        matches!(located, Located::Whole(_)) && !places.iter().any(|(_, place)| matches!(place, Located::Pieces(_)));
    Ok(Some(Candidate {
        name: view.name(*die)?.unwrap_or_default(),
        declared_line,
        scope: match (is_parameter, is_result) {
            (true, true) => Scope::Result,
            (true, false) => Scope::Argument,
            (false, _) => Scope::Local,
        },
        ty,
        located,
        // What a closure captured is not its own, and may change outside of it.
        die: (!is_captured).then_some(*die),
        nesting,
        is_one_slot: is_one_slot && !places.is_empty(),
    }))
}

fn constant(value: AttributeValue<Bytes<'_>>) -> Located {
    let bytes = match value {
        AttributeValue::Block(bytes) => bytes.slice().to_vec(),
        AttributeValue::Sdata(number) => i128::from(number).to_le_bytes().to_vec(),
        other => match other.udata_value() {
            Some(number) => i128::from(number).to_le_bytes().to_vec(),
            None => return Located::Unknown("its constant has an unknown form".to_owned()),
        },
    };
    Located::Whole(Place::Constant(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Spot {
        Spot { base: Some(7), offset, derefs: Vec::new() }
    }

    fn candidate(name: &str, place: Place) -> Candidate {
        Candidate {
            name: name.to_owned(),
            declared_line: 1,
            scope: Scope::Local,
            ty: None,
            located: Located::Whole(place),
            die: None,
            nesting: 0,
            is_one_slot: false,
        }
    }

    fn local(name: &str, declared_line: u32, nesting: usize) -> (Local, usize) {
        let presence = Presence::OptimisedOut;
        (Local { name: name.to_owned(), declared_line, scope: Scope::Local, ty: None, presence, die: None }, nesting)
    }

    #[test]
    fn a_whole_at_the_place_of_its_own_length_is_no_value() {
        // As Go describes `k` of `for k := range m`: the slot of `k.len`.
        let k = candidate("k", Place::Memory(at(-40)));
        let check = |part: Candidate| contradiction(&k, &[candidate("k", Place::Memory(at(-40))), part]);
        assert!(check(candidate("k.len", Place::Memory(at(-40)))).is_some());
        assert!(check(candidate("k.ptr", Place::Memory(at(-64)))).is_some());
        assert_eq!(check(candidate("k.ptr", Place::Memory(at(-40)))), None);
        assert_eq!(check(candidate("k.len", Place::Memory(at(-32)))), None);
        assert_eq!(check(candidate("key.len", Place::Memory(at(-40)))), None);
    }

    #[test]
    fn two_variables_that_overlap_are_both_suspect() {
        let locals = [local("text", 1, 0), local("number", 2, 0), local("copy", 3, 0)];
        let overlapping = [(0, at(-40), 16), (1, at(-32), 8)];
        let found: Vec<usize> = overlaps(&locals, &overlapping).into_iter().map(|(number, _)| number).collect();
        assert_eq!(found, [0, 1]);
        // Neighbours are no overlap, and two names of one value share its place.
        assert!(overlaps(&locals, &[(0, at(-40), 16), (1, at(-24), 8)]).is_empty());
        assert!(overlaps(&locals, &[(1, at(-24), 8), (2, at(-24), 8)]).is_empty());
        assert!(overlaps(&locals, &[(0, at(-40), 16), (1, at(-32).deref(), 8)]).is_empty());
    }

    #[test]
    fn an_inner_variable_hides_an_outer_one_of_its_name() {
        let shown = visible(vec![local("x", 1, 0), local("y", 9, 0), local("x", 5, 1), local("z", 3, 2)]);
        let names: Vec<(&str, u32)> = shown.iter().map(|local| (local.name.as_str(), local.declared_line)).collect();
        assert_eq!(names, [("z", 3), ("x", 5), ("y", 9)]);
    }
}

//! What the turns of a loop make of a variable, where other code than that of its assignments makes it.
//!
//! A compiler names the values of its intermediate form. At the head of a loop, and behind an `if`, it has a value that
//! chooses between what came in and what was assigned: that one is the variable's by how it was made. Two kinds of it are
//! told by the machine code.
//!
//! - **A value that is taken over**: the only assignment of the variable is `x = y`, of a `y` that is only declared. What
//!   comes from an instruction behind which the debug information says that its register holds `y` is the value of `y`.
//!   A conditional move of it is the `if` around the assignment, whichever line it is of.
//! - **What the last step of a turn makes**: all assignments of the variable are steps in one loop, and the last of them runs
//!   in every turn. In front of the next turn the variable has what that step has made, and nothing else: also what the steps
//!   before it did, however they were computed.
//!
//! Invariants
//! - `y` is declared in the loop of the assignment and computed in each of its turns, behind the value that the turn began
//!   with: so the place of that one is never taken for `x` again where `y` is already.
//! - In front of the assignment its value is of the turn before, and behind it of this one.
//! - Behind a loop only what all ways from its head have is believed: nobody has left the middle of it.

use super::code::{Code, Origin};
use super::effect::{Cell, register};
use crate::symbols::debug_info::{Die, Entry, View};
use crate::symbols::place::{Located, Moment, Place};
use crate::symbols::scope::{Local, Presence};
use crate::symbols::types::unsigned;
use crate::symbols::{ResolveError, Site};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::source::{Assigned, AssignedPart, SourceFacts, Taken};
use std::collections::BTreeSet;

/// Entries of a function that are looked at for one variable, at most.
const ENTRIES_MAX: usize = 1 << 12;

/// Whether a cell has a variable's value in front of a site, as its loops make it.
pub(super) fn confirms(
    view: &View<'_>,
    site: &Site,
    code: &Code,
    facts: &SourceFacts,
    local: &Local,
    cell: Cell,
) -> Result<bool, ResolveError> {
    let is_plain = !site.is_inlined() && local.scope == Scope::Local && matches!(local.presence, Presence::Here(_));
    let is_of_it = |it: &&Assigned| it.name == local.name && it.declared == local.declared_line;
    let assigned: Vec<&Assigned> = facts.assigned.iter().filter(is_of_it).collect();
    let is_simple = |it: &&Assigned| it.part == AssignedPart::Whole && !it.literal && it.line > local.declared_line;
    let is_wide = matches!(cell, Cell::Stack { bytes, .. } if bytes > 8);
    if !is_plain || is_wide || assigned.is_empty() || !assigned.iter().all(is_simple) {
        return Ok(false);
    }
    let at = code.index(site.address.0);
    if let [only] = assigned.as_slice()
        && let Some(taken) = &only.takes
        && only.before
        && !facts.assigned.iter().any(|it| it.name == taken.name && it.declared == taken.declared)
    {
        let holders = holders(view, site, code, taken)?;
        return Ok(is_taken(code, at, site.line, cell, local.declared_line, only, taken, &holders));
    }
    Ok(is_last_step(code, at, site.line, cell, local.declared_line, &assigned))
}

/// The instructions behind which a register is said to hold a variable that they have just made.
fn holders(view: &View<'_>, site: &Site, code: &Code, taken: &Taken) -> Result<BTreeSet<(usize, Cell)>, ResolveError> {
    let mut found = BTreeSet::new();
    let Some(die) = declared_in(view, site, taken)? else { return Ok(found) };
    let moment = Moment::new(view, site.body, site.address.0)?;
    let (unit, entry) = view.entry(die)?;
    for (start, located) in moment.history(&unit, entry.attr_value(gimli::DW_AT_location))? {
        let Located::Whole(Place::Register(number)) = located else { continue };
        let Some(cell) = register(number).map(Cell::Register) else { continue };
        let Some(maker) = code.exactly(start).and_then(|next| next.checked_sub(1)) else { continue };
        if code.target(maker) == Some(cell) {
            found.insert((maker, cell));
        }
    }
    Ok(found)
}

/// The entry of a variable in the function of a site, wherever it is in scope; `None` where it is not the only one.
fn declared_in(view: &View<'_>, site: &Site, taken: &Taken) -> Result<Option<Die>, ResolveError> {
    let (unit, _) = view.entry(site.scope)?;
    let mut reader = unit.entries_raw(Some(site.scope.offset))?;
    let mut entry = Entry::null();
    if !reader.read_entry(&mut entry)? || !entry.has_children() {
        return Ok(None);
    }
    let top = entry.depth();
    let (mut found, mut skipped, mut left) = (None, None, ENTRIES_MAX);
    while !reader.is_empty() && reader.next_depth() > top {
        left -= 1;
        if left == 0 {
            return Ok(None);
        }
        if !reader.read_entry(&mut entry)? || skipped.is_some_and(|below| entry.depth() > below) {
            continue;
        }
        skipped = None;
        match entry.tag() {
            gimli::DW_TAG_lexical_block => {}
            gimli::DW_TAG_variable => {
                let die = Die { unit: site.scope.unit, offset: entry.offset() };
                let origins = view.origins(die)?;
                let line = origins.iter().find_map(|(_, entry)| unsigned(entry, gimli::DW_AT_decl_line));
                if line == Some(u64::from(taken.declared)) && view.name(die)?.as_deref() == Some(&*taken.name) {
                    if found.is_some() {
                        return Ok(None);
                    }
                    found = Some(die);
                }
            }
            _ => skipped = Some(entry.depth()),
        }
    }
    Ok(found)
}

/// Whether a cell has what `x = y` makes of `x`.
#[expect(clippy::too_many_arguments, reason = "plain facts of one question, so that tests can ask it")]
fn is_taken(
    code: &Code,
    at: usize,
    line: u32,
    cell: Cell,
    declared_line: u32,
    only: &Assigned,
    taken: &Taken,
    holders: &BTreeSet<(usize, Cell)>,
) -> bool {
    let Some(turn) = only.turn else { return false };
    // Declared in the body, or by the `range` in the head: what else a head declares is made in front of all turns, once.
    let is_of_turn = taken.declared >= turn.start && taken.declared < only.line && declared_line < turn.start;
    let is_made = |number: usize| {
        let cell = code.target(number);
        cell.is_some_and(|cell| holders.contains(&(number, cell))) && code.is_repeated(number)
    };
    if !is_of_turn || holders.is_empty() {
        return false;
    }
    let is_inside = turn.start <= line && line <= turn.end;
    if !is_inside && line < only.line {
        return false;
    }
    let (at, cell) = match is_inside {
        true => (at, cell),
        false => match code.head_before(at, cell) {
            Some(head) => head,
            None => return false,
        },
    };
    // What comes from where, with what a conditional move leaves there.
    let mut open = vec![(at, cell, false)];
    let mut seen = BTreeSet::new();
    let (mut is_fresh, mut has_any) = (false, false);
    while let Some((at, cell, is_behind)) = open.pop() {
        if seen.len() > 16 {
            return false;
        }
        let Some(origins) = code.origins(at, cell) else { return false };
        for origin in origins {
            let Origin::Made { line: made, is_constant, is_left, is_back, at: number, .. } = origin else {
                return false;
            };
            let (number, is_back) = (number as usize, is_back || is_behind);
            let choice = code.choice(number);
            if let Some((kept, chosen)) = choice.filter(|_| only.guard != 0) {
                let is_y = |origin: &Origin| match *origin {
                    Origin::Made { at, is_back: false, .. } => is_made(at as usize),
                    _ => false,
                };
                let Some(chosen) = code.origins(number, chosen) else { return false };
                if chosen.is_empty() || !chosen.iter().all(is_y) {
                    return false;
                }
                if seen.insert((number, is_back)) {
                    open.push((number, kept, is_back));
                }
            } else if is_made(number) {
                // That it is taken on some ways only, a move that is no choice does not tell within a turn.
                if is_inside && !(only.always || only.line >= line) {
                    return false;
                }
            } else {
                // What was declared, where the assignment does not come behind it for certain.
                let is_first = made == declared_line || is_constant && (is_left || made != line);
                if !is_first || is_inside && only.always && only.line < line {
                    return false;
                }
                continue;
            }
            has_any = true;
            if is_inside && only.line >= line && !is_back {
                return false;
            }
            if is_inside && only.line < line && only.always && is_back {
                return false;
            }
            is_fresh |= !is_back;
        }
    }
    has_any && (is_fresh || !is_inside || only.line >= line)
}

/// Whether a cell has what the last step of all turns has made.
fn is_last_step(code: &Code, at: usize, line: u32, cell: Cell, declared_line: u32, assigned: &[&Assigned]) -> bool {
    let Some(last) = assigned.iter().max_by_key(|it| it.line) else { return false };
    let Some(turn) = last.turn.filter(|turn| turn.each) else { return false };
    let is_step = |it: &&Assigned| {
        let is_in_it = it.turn.is_some_and(|other| (other.start, other.end) == (turn.start, turn.end));
        it.step && it.before && is_in_it && it.line > turn.start
    };
    if line <= turn.end || declared_line >= turn.start || !assigned.iter().all(is_step) {
        return false;
    }
    let Some((head, cell)) = code.head_before(at, cell) else { return false };
    let Some(origins) = code.origins(head, cell) else { return false };
    let (mut has_first, mut has_last) = (false, false);
    for origin in origins {
        match origin {
            Origin::Made { line: made, is_constant: false, is_back: true, .. } if made == last.line => has_last = true,
            Origin::Made { line: made, is_constant, is_back: false, .. } if is_constant || made == declared_line => {
                has_first = true;
            }
            _ => return false,
        }
    }
    has_first && has_last
}

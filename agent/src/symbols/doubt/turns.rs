//! What the turns of a loop make of a variable, where other code than that of its assignments makes it.
//!
//! A compiler names the values of its intermediate form. At the head of a loop, and behind an `if`, it has a value that
//! chooses between what came in and what was assigned: that one is the variable's by how it was made. Two kinds of it are
//! told by the machine code, and a third is what a counter is.
//!
//! - **A value that is taken over**: the only assignment of the variable is `x = y`, of a `y` that is only declared. What
//!   comes from an instruction behind which the debug information says that its register holds `y` is the value of `y`.
//!   A conditional move of it is the `if` around the assignment, whichever line it is of.
//! - **What the last step of a turn makes**: all assignments of the variable are steps in one loop, and the last of them runs
//!   in every turn. In front of the next turn the variable has what that step has made, and nothing else: also what the steps
//!   before it did, however they were computed.
//!
//! - **A counter**: the only assignment is the step in the head of its loop, and the place has a constant at first and then the
//!   next number of what was in this very place, though the body has computed that number for itself.
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
    let at = code.index(site.address.0);
    if is_plain && counts(code, at, cell, local.declared_line, &assigned) {
        return Ok(true);
    }
    if !is_plain || is_wide || assigned.is_empty() || !assigned.iter().all(is_simple) {
        return Ok(false);
    }
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

/// Whether a cell has the counter of a loop, where the code of its body makes the next number.
pub(super) fn counts(code: &Code, at: usize, cell: Cell, declared_line: u32, assigned: &[&Assigned]) -> bool {
    let [only] = assigned else { return false };
    let is_head = only.step && only.part == AssignedPart::Whole && only.line == declared_line && !only.literal;
    let Some(origins) = code.origins(at, cell).filter(|_| is_head) else { return false };
    let numbers = |origins: &BTreeSet<Origin>| -> BTreeSet<Option<u32>> {
        let number = |origin: &Origin| match *origin {
            Origin::Made { at, .. } => Some(at),
            Origin::Entry => None,
        };
        origins.iter().map(number).collect()
    };
    let (mut has_first, mut has_next) = (false, false);
    for origin in &origins {
        match *origin {
            Origin::Made { is_constant: true, is_back: false, .. } => has_first = true,
            // The next number, of the one that was there.
            Origin::Made { is_constant: false, is_back: true, at: number, .. } => {
                let number = number as usize;
                let Some(from) = code.next_of(number) else { return false };
                if code.origins(number, from).is_none_or(|before| numbers(&before) != numbers(&origins)) {
                    return false;
                }
                has_next = true;
            }
            _ => return false,
        }
    }
    has_first && has_next
}

/// The line of the assignment of an `if`'s block that a conditional move chooses; `None` where it is not one in front of the
/// site, in the same turn of a loop.
pub(super) fn chosen(code: &Code, number: u32, line: u32, assigned: &[(&Assigned, (u64, u64))]) -> Option<u32> {
    let (_, from) = code.choice(number as usize)?;
    let origins = code.origins(number as usize, from)?;
    let line_of = |origin: &Origin| match *origin {
        Origin::Made { line, is_back: false, is_constant: false, .. } => Some(line),
        _ => None,
    };
    let chosen = origins.first().and_then(line_of)?;
    let is_it = |it: &&(&Assigned, (u64, u64))| {
        let is_here = it.0.turn.is_none_or(|turn| turn.start <= line && line <= turn.end);
        it.0.line == chosen && it.0.guard != 0 && it.0.before && !it.0.literal && chosen < line && is_here
    };
    (origins.iter().all(|origin| line_of(origin) == Some(chosen)) && assigned.iter().any(|it| is_it(&it)))
        .then_some(chosen)
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

#[cfg(test)]
mod tests {
    use super::super::code::tests::code;
    use super::*;
    use iced_x86::Register::{RAX, RDX, RSI};
    use iced_x86::code_asm::*;
    use riptrace_protocol::source::Turn;

    /// Lines of the tests: declarations on 2, the loop from 3 to 8, and the site is on 5 or behind it.
    fn assigned(line: u32, step: bool, guard: u32) -> Assigned {
        Assigned {
            name: "x".to_owned(),
            declared: 2,
            part: AssignedPart::Whole,
            line,
            before: true,
            always: false,
            step,
            guard,
            takes: None,
            turn: Some(Turn { start: 3, end: 8, each: guard == 0 }),
            literal: false,
        }
    }

    /// xor edx; jmp head; body: mov rsi, [rax] (3); cmp (4); cmovg rdx, rsi (7); nop (7); head: dec rcx; jne body; ret.
    fn choosing() -> Code {
        code(&[2, 3, 3, 4, 7, 7, 3, 3, 9], |a| {
            let (mut body, mut head) = (a.create_label(), a.create_label());
            a.xor(edx, edx)?;
            a.jmp(head)?;
            a.set_label(&mut body)?;
            a.mov(rsi, qword_ptr(rax))?;
            a.cmp(rsi, rdx)?;
            a.cmovg(rdx, rsi)?;
            a.nop()?;
            a.set_label(&mut head)?;
            a.dec(rcx)?;
            a.jne(body)?;
            a.ret()
        })
    }

    #[test]
    fn what_an_if_takes_over_is_chosen_by_whichever_line() {
        let (code, x) = (choosing(), Cell::Register(RDX));
        let taken = Taken { name: "y".to_owned(), declared: 3 };
        let holders = BTreeSet::from([(2, Cell::Register(RSI))]);
        let asked = |at: usize, line: u32, only: &Assigned, taken: &Taken, holders: &BTreeSet<(usize, Cell)>| {
            is_taken(&code, at, line, x, 2, only, taken, holders)
        };
        let only = assigned(5, false, 4);
        assert!(asked(5, 7, &only, &taken, &holders), "behind the choice");
        assert!(asked(8, 9, &only, &taken, &holders), "behind the loop");
        // In front of the choice the place has what the turn before chose, which is right up to the assignment only.
        assert!(!asked(4, 6, &only, &taken, &holders));
        assert!(asked(3, 4, &only, &taken, &holders));
        assert!(!asked(8, 9, &only, &taken, &BTreeSet::new()), "nothing says that the register held it");
        assert!(!asked(8, 9, &assigned(5, false, 0), &taken, &holders), "no `if` is around it");
        let outside = Taken { declared: 2, ..taken.clone() };
        assert!(!asked(8, 9, &only, &outside, &holders), "it is made before the turn begins");
    }

    #[test]
    fn the_last_step_of_a_turn_makes_what_the_next_one_begins_with() {
        // xor edx; jmp head; body: lea rdx, [rdx + 3] (6); head: dec rcx; jne body; ret.
        let code = code(&[2, 3, 6, 3, 3, 9], |a| {
            let (mut body, mut head) = (a.create_label(), a.create_label());
            a.xor(edx, edx)?;
            a.jmp(head)?;
            a.set_label(&mut body)?;
            a.lea(rdx, qword_ptr(rdx + 3))?;
            a.set_label(&mut head)?;
            a.dec(rcx)?;
            a.jne(body)?;
            a.ret()
        });
        let asked = |at: usize, line: u32, all: &[Assigned]| {
            is_last_step(&code, at, line, Cell::Register(RDX), 2, &all.iter().collect::<Vec<_>>())
        };
        let steps = [assigned(5, true, 4), assigned(6, true, 0)];
        assert!(asked(5, 9, &steps));
        assert!(!asked(3, 7, &steps), "inside of the loop");
        assert!(!asked(5, 9, &[assigned(5, true, 4), assigned(7, true, 0)]), "the last one is of another line");
        assert!(!asked(5, 9, &[assigned(5, true, 4), assigned(6, true, 4)]), "it does not run in every turn");
        assert!(!asked(5, 9, &[assigned(5, false, 4), assigned(6, true, 0)]), "it takes another value on the way");
    }

    #[test]
    fn a_loop_that_is_left_in_the_middle_tells_nothing_behind_it() {
        // As above, but `test rsi; je end` leaves the body in front of the second step.
        let code = code(&[2, 3, 5, 5, 5, 6, 3, 3, 9], |a| {
            let (mut body, mut head, mut end) = (a.create_label(), a.create_label(), a.create_label());
            a.xor(edx, edx)?;
            a.jmp(head)?;
            a.set_label(&mut body)?;
            a.inc(rdx)?;
            a.test(rsi, rsi)?;
            a.je(end)?;
            a.inc(rdx)?;
            a.set_label(&mut head)?;
            a.dec(rcx)?;
            a.jne(body)?;
            a.set_label(&mut end)?;
            a.ret()
        });
        let steps = [assigned(5, true, 0), assigned(6, true, 0)];
        let all: Vec<&Assigned> = steps.iter().collect();
        assert!(!is_last_step(&code, 8, 9, Cell::Register(RDX), 2, &all));
    }

    #[test]
    fn a_counter_is_the_next_number_of_itself() {
        // xor edx; jmp head; body: lea rsi, [rdx + 1] (5); mov rdx, rsi (3); head: dec rcx; jne body; ret.
        let counting = |other: bool| {
            code(&[2, 3, 5, 3, 3, 3, 9], |a| {
                let (mut body, mut head) = (a.create_label(), a.create_label());
                a.xor(edx, edx)?;
                a.jmp(head)?;
                a.set_label(&mut body)?;
                if other {
                    a.lea(rsi, qword_ptr(rax + 1))?
                } else {
                    a.lea(rsi, qword_ptr(rdx + 1))?
                }
                a.mov(rdx, rsi)?;
                a.set_label(&mut head)?;
                a.dec(rcx)?;
                a.jne(body)?;
                a.ret()
            })
        };
        let step = Assigned { declared: 3, line: 3, ..assigned(3, true, 0) };
        let asked =
            |code: &Code, at: usize, register, step: &Assigned| counts(code, at, Cell::Register(register), 3, &[step]);
        assert!(asked(&counting(false), 2, RDX, &step));
        assert!(!asked(&counting(false), 3, RSI, &step), "the next number is not the counter yet");
        assert!(!asked(&counting(true), 2, RDX, &step), "a number of something else");
        assert!(!asked(&counting(false), 2, RAX, &step));
        assert!(!asked(&counting(false), 2, RDX, &Assigned { line: 6, ..step.clone() }), "a step of the body");
    }
}

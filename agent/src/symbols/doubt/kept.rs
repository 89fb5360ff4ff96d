//! What the code of a function still holds of variables whose places the debug information no longer names.
//!
//! A compiler describes a variable up to its last use. A register or a spill slot that held it keeps it until something
//! else is written there, which may be long after. A part of a variable is taken from such a cell where every way through
//! the code to the site leads through a place at which the debug information says that the cell holds it, and no
//! instruction on the way writes the cell.
//!
//! Invariants
//! - Only variables that the source assigns nowhere but where it declares them: their value is one value.
//! - What a cell held in one turn of a loop is no longer believed in the next, except for arguments.
//! - Only what is no pointer: the garbage collector keeps neither what a forgotten pointer leads to, nor the pointer itself
//!   right when a stack moves.
//! - A described register is believed at the beginning of its range only, where one instruction has ended and the next has
//!   not begun. A slot of the frame is believed only behind an instruction that stores there what is held, and only where the
//!   debug information somewhere calls it a place of the same part: nothing else is written there by way of an address.
//! - Of a function that jumps through tables nothing is concluded: who comes from where is not known for certain.

use super::code::Code;
use super::effect::{Cell, register};
use crate::symbols::debug_info::{Die, View};
use crate::symbols::place::{Located, Moment, Part, Place, Spot};
use crate::symbols::scope::{Local, Presence};
use crate::symbols::types::{self, Shape};
use crate::symbols::{ResolveError, Site};
use riptrace_protocol::layout::Scope;
use std::collections::{BTreeMap, BTreeSet};

/// DWARF number of the stack pointer.
const STACK_POINTER: u16 = 7;
/// Nesting of types, and parts of one variable, at most: what has more was in memory all along.
const NESTING_MAX: usize = 8;
const LEAVES_MAX: usize = 16;
/// Bytes of a word.
const WORD_BYTES: u64 = 8;

/// Bytes of a variable that are one number, or one pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    offset: u64,
    bytes: u64,
    is_pointer: bool,
}

/// A part of a variable that a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Held {
    /// Number of the variable.
    pub(super) variable: u32,
    /// Where the part begins in it.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Offsets of the frame are relative to the stack pointer at the entry of the function.
    pub(super) cell: Cell,
}

/// What is asked of the code.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By the instruction in front of which it holds.
    pub(super) told: BTreeMap<usize, Vec<Held>>,
    /// What may be stored in the frame.
    pub(super) slots: BTreeSet<Held>,
    /// The variables that are the same in every turn of every loop.
    pub(super) lasting: BTreeSet<u32>,
}

/// Gives those of `locals` that are not, or not all, described the parts that the code still holds. `believed` are the
/// numbers of those that are assigned only where they are declared.
pub(super) fn recover(
    view: &View<'_>,
    site: &Site,
    code: &Code,
    believed: &[usize],
    locals: &mut [Local],
) -> Result<(), ResolveError> {
    let at = code.index(site.address.0);
    let Some(depth) = code.depth(at) else { return Ok(()) };
    let moment = Moment::new(view, site.body, site.address.0)?;
    let mut wanted = Wanted::default();
    let mut asked = Vec::new();
    for &number in believed {
        let Some(local) = locals.get(number) else { continue };
        let is_gone = matches!(local.presence, Presence::OptimisedOut | Presence::Partial { .. });
        let (Some(die), Some(ty), true) = (local.die, local.ty, is_gone) else { continue };
        let mut leaves = Vec::new();
        if leaves_of(view, ty, 0, 0, &mut leaves)?.is_none() || leaves.is_empty() {
            continue;
        }
        let described = described(view, &moment, die)?;
        let missing = |leaf: &Leaf| cut(&described, leaf).is_none();
        if leaves.iter().any(|leaf| leaf.is_pointer && missing(leaf)) {
            continue;
        }
        let numbered = number as u32;
        for (start, located) in history(view, &moment, die)? {
            for leaf in leaves.iter().filter(|leaf| missing(leaf)) {
                let cell = match cut(&located, leaf) {
                    Some(Place::Register(number)) => register(number).map(Cell::Register),
                    Some(Place::Memory(Spot { base: Some(STACK_POINTER), offset, derefs })) if derefs.is_empty() => {
                        offset.checked_add(depth).map(|offset| Cell::Stack { offset, bytes: leaf.bytes })
                    }
                    _ => None,
                };
                let Some(cell) = cell else { continue };
                let held = Held { variable: numbered, offset: leaf.offset, bytes: leaf.bytes, cell };
                match cell {
                    Cell::Register(_) => {
                        if let Some(instruction) = code.exactly(start) {
                            wanted.told.entry(instruction).or_default().push(held);
                        }
                    }
                    Cell::Stack { .. } => {
                        wanted.slots.insert(held);
                    }
                }
            }
        }
        if local.scope == Scope::Argument && !site.is_inlined() {
            wanted.lasting.insert(numbered);
        }
        asked.push((number, leaves, described));
    }
    if wanted.told.is_empty() {
        return Ok(());
    }
    let Some(held) = code.held(at, &wanted) else { return Ok(()) };
    for (number, leaves, described) in asked {
        let Some(local) = locals.get_mut(number) else { continue };
        let Some(bytes) = local.ty.map(|ty| types::read(view, ty)).transpose()?.map(|facts| facts.bytes) else {
            continue;
        };
        if let Some(parts) = assemble(number as u32, &leaves, &described, &held, depth, bytes) {
            local.presence = Presence::Here(parts);
        }
    }
    Ok(())
}

/// All parts of a variable; `None` where one is nowhere.
fn assemble(
    variable: u32,
    leaves: &[Leaf],
    described: &Located,
    held: &BTreeSet<Held>,
    depth: i64,
    bytes: u64,
) -> Option<Vec<Part>> {
    let padding = |bytes: u64| Part { bytes, place: Place::Constant(vec![0; bytes as usize]) };
    let mut parts = Vec::new();
    let mut at = 0;
    for leaf in leaves {
        let kept = || {
            let is_it = |it: &&Held| (it.variable, it.offset, it.bytes) == (variable, leaf.offset, leaf.bytes);
            place(held.iter().find(is_it)?.cell, depth)
        };
        let place = cut(described, leaf).or_else(kept)?;
        if leaf.offset > at {
            parts.push(padding(leaf.offset - at));
        }
        parts.push(Part { bytes: leaf.bytes, place });
        at = leaf.offset + leaf.bytes;
    }
    if bytes > at {
        parts.push(padding(bytes - at));
    }
    Some(parts)
}

/// A cell as a place of the site.
fn place(cell: Cell, depth: i64) -> Option<Place> {
    match cell {
        Cell::Register(of_it) => (0..33).find(|&number| register(number) == Some(of_it)).map(Place::Register),
        Cell::Stack { offset, .. } => {
            let offset = offset.checked_sub(depth)?;
            Some(Place::Memory(Spot { base: Some(STACK_POINTER), offset, derefs: Vec::new() }))
        }
    }
}

/// Where a description has all bytes of a leaf in one place.
fn cut(located: &Located, leaf: &Leaf) -> Option<Place> {
    let inner = |place: &Place, skipped: u64, bytes: u64| match place {
        Place::Register(number) if skipped == 0 && bytes >= leaf.bytes => Some(Place::Register(*number)),
        Place::Memory(spot) => Some(Place::Memory(spot.clone().plus(i64::try_from(skipped).ok()?))),
        Place::Constant(all) => {
            let end = skipped.checked_add(leaf.bytes)?;
            Some(Place::Constant(all.get(usize::try_from(skipped).ok()?..usize::try_from(end).ok()?)?.to_vec()))
        }
        _ => None,
    };
    match located {
        // A register without a size of its own: only what fits it can be meant.
        Located::Whole(place @ Place::Register(_)) => (leaf.offset == 0).then(|| inner(place, 0, WORD_BYTES)).flatten(),
        Located::Whole(place) => inner(place, leaf.offset, u64::MAX),
        Located::Pieces(parts) => {
            let mut at = 0u64;
            for part in parts {
                let end = at.checked_add(part.bytes)?;
                if at <= leaf.offset && leaf.offset + leaf.bytes <= end {
                    return inner(&part.place, leaf.offset - at, part.bytes);
                }
                at = end;
            }
            None
        }
        Located::Nowhere | Located::Unknown(_) => None,
    }
}

/// What is described at the site; nothing of what is too narrow to tell which part it is.
fn described<'a>(view: &View<'a>, moment: &Moment<'_, 'a>, die: Die) -> Result<Located, ResolveError> {
    let (unit, entry) = view.entry(die)?;
    let located = moment.locate(&unit, entry.attr_value(gimli::DW_AT_location))?;
    narrow(view, die, located)
}

/// What is described anywhere in the function: from which address on, and where.
fn history<'a>(view: &View<'a>, moment: &Moment<'_, 'a>, die: Die) -> Result<Vec<(u64, Located)>, ResolveError> {
    let (unit, entry) = view.entry(die)?;
    let all = moment.history(&unit, entry.attr_value(gimli::DW_AT_location))?;
    all.into_iter().map(|(start, located)| Ok((start, narrow(view, die, located)?))).collect()
}

fn narrow(view: &View<'_>, die: Die, located: Located) -> Result<Located, ResolveError> {
    if !matches!(located, Located::Whole(Place::Register(_))) {
        return Ok(located);
    }
    let origins = view.origins(die)?;
    let ty = origins.iter().find_map(|(at, entry)| view.target(at.unit, entry.attr_value(gimli::DW_AT_type)));
    let bytes = ty.map(|ty| types::read(view, ty)).transpose()?.map_or(u64::MAX, |facts| facts.bytes);
    Ok(if bytes > WORD_BYTES { Located::Nowhere } else { located })
}

/// The numbers and pointers that a type consists of, in order; `None` for a type that is never in registers.
fn leaves_of(
    view: &View<'_>,
    ty: Die,
    base: u64,
    nesting: usize,
    found: &mut Vec<Leaf>,
) -> Result<Option<()>, ResolveError> {
    if nesting == NESTING_MAX || found.len() > LEAVES_MAX {
        return Ok(None);
    }
    let facts = types::read(view, ty)?;
    let mut add = |offset, bytes, is_pointer| found.push(Leaf { offset: base + offset, bytes, is_pointer });
    match &facts.shape {
        Shape::Signed | Shape::Unsigned | Shape::Bool | Shape::Enum { .. } | Shape::Float if facts.bytes <= 8 => {
            add(0, facts.bytes, false);
        }
        Shape::Complex => {
            add(0, facts.bytes / 2, false);
            add(facts.bytes / 2, facts.bytes / 2, false);
        }
        Shape::Pointer(_) | Shape::Map { .. } | Shape::Chan { .. } | Shape::Func => add(0, WORD_BYTES, true),
        Shape::GoString => {
            add(0, WORD_BYTES, true);
            add(8, WORD_BYTES, false);
        }
        Shape::GoSlice(_) => {
            add(0, WORD_BYTES, true);
            add(8, WORD_BYTES, false);
            add(16, WORD_BYTES, false);
        }
        Shape::Interface { .. } => {
            add(0, WORD_BYTES, true);
            add(8, WORD_BYTES, true);
        }
        Shape::Array { count: 0, .. } => {}
        Shape::Array { count: 1, element } => return leaves_of(view, *element, base, nesting + 1, found),
        Shape::Struct(members) => {
            for member in members {
                let Some(ty) = member.ty else { return Ok(None) };
                if leaves_of(view, ty, base + member.offset, nesting + 1, found)?.is_none() {
                    return Ok(None);
                }
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(()))
}

//! The types of a layout, and what to follow in each.
//!
//! Types are described as far as a capture may reach: through values, slices and arrays, and through as many pointers
//! as the tracepoint follows; a pointer beyond that is only an address. Each type of the layout has its entry of the
//! follow table at the same index.
//!
//! Secrets: a field that is named like one has an opaque type and is not followed. What a pointer or slice leads to is
//! read only up to the first secret field in it, so that a secret is never read.

use super::secrets::is_secret;
use crate::capture::program::{Follow, FollowIndex};
use crate::symbols::types::{self, Shape, TypeFacts};
use crate::symbols::{Die, ResolveError, View};
use riptrace_protocol::layout::{Field, REDACTED, Type, TypeIndex, TypeKind};
use riptrace_protocol::limits::LAYOUT_TYPES_MAX;
use std::collections::{HashMap, HashSet, VecDeque};

/// Nesting of values in values that is looked through for pointers and secrets: real types have a dozen levels, and
/// damaged ones contain themselves.
const NESTING_MAX: usize = 48;
/// Secret ranges of one value that are told apart, at most; a value with more is redacted as a whole.
const SECRET_RANGES_MAX: usize = 256;

/// A table that is being filled.
pub(super) struct TypeTable<'v, 'a> {
    view: &'v View<'a>,
    types: Vec<Type>,
    known: HashMap<Die, TypeIndex>,
    /// Types reached with the current number of pointers, and with one more.
    here: VecDeque<(Die, TypeIndex)>,
    behind: VecDeque<(Die, TypeIndex)>,
    done: HashSet<TypeIndex>,
    opaque: HashMap<String, TypeIndex>,
}

impl<'v, 'a> TypeTable<'v, 'a> {
    /// An empty table.
    pub(super) fn new(view: &'v View<'a>) -> TypeTable<'v, 'a> {
        TypeTable {
            view,
            types: Vec::new(),
            known: HashMap::new(),
            here: VecDeque::new(),
            behind: VecDeque::new(),
            done: HashSet::new(),
            opaque: HashMap::new(),
        }
    }

    /// The index of a variable's type.
    pub(super) fn root(&mut self, die: Die) -> TypeIndex {
        self.request(die, false)
    }

    fn request(&mut self, die: Die, behind_pointer: bool) -> TypeIndex {
        if let Some(&index) = self.known.get(&die) {
            // Met behind a pointer before, and now nearer.
            if !behind_pointer && !self.done.contains(&index) {
                self.here.push_back((die, index));
            }
            return index;
        }
        // The last few places are for the opaque types that stand for the rest.
        if self.types.len() >= LAYOUT_TYPES_MAX - 16 {
            return self.opaque("", "type beyond the limit of types");
        }
        let index = self.push(Type { name: String::new(), bytes: 0, kind: TypeKind::Opaque { what: String::new() } });
        self.known.insert(die, index);
        let queue = if behind_pointer { &mut self.behind } else { &mut self.here };
        queue.push_back((die, index));
        index
    }

    fn push(&mut self, ty: Type) -> TypeIndex {
        let index = TypeIndex(self.types.len() as u32);
        self.types.push(ty);
        index
    }

    /// A type for what has none or must not be read.
    pub(super) fn opaque(&mut self, name: &str, what: &str) -> TypeIndex {
        let key = format!("{name}\0{what}");
        if let Some(&index) = self.opaque.get(&key) {
            return index;
        }
        if self.types.len() >= LAYOUT_TYPES_MAX {
            return TypeIndex(self.types.len() as u32 - 1);
        }
        let index =
            self.push(Type { name: name.to_owned(), bytes: 0, kind: TypeKind::Opaque { what: what.to_owned() } });
        self.opaque.insert(key, index);
        index
    }

    /// Describes all types that were asked for and what `depth` pointers lead to.
    pub(super) fn finish(mut self, depth: u32) -> Result<(Vec<Type>, Vec<Follow>), ResolveError> {
        let mut depth_left = depth;
        loop {
            while let Some((die, index)) = self.here.pop_front() {
                if self.done.insert(index) {
                    let facts = types::read(self.view, die)?;
                    let ty = self.describe(facts, depth_left > 0)?;
                    self.types[index.0 as usize] = ty;
                }
            }
            if self.behind.is_empty() {
                break;
            }
            depth_left = depth_left.saturating_sub(1);
            std::mem::swap(&mut self.here, &mut self.behind);
        }
        let follow = (0..self.types.len()).map(|index| follow(&self.types, index)).collect();
        Ok((self.types, follow))
    }

    fn describe(&mut self, facts: TypeFacts, may_follow: bool) -> Result<Type, ResolveError> {
        let kind = match facts.shape {
            Shape::Signed => TypeKind::Signed,
            Shape::Unsigned => TypeKind::Unsigned,
            Shape::Float => TypeKind::Float,
            Shape::Complex => TypeKind::Complex,
            Shape::Bool => TypeKind::Bool,
            Shape::GoString => TypeKind::GoString,
            Shape::Enum { signed, names } => TypeKind::Enum { signed, names },
            Shape::Opaque(what) => TypeKind::Opaque { what: what.to_owned() },
            Shape::Pointer(to) => {
                let to = match to.filter(|_| may_follow) {
                    // There is nothing to show behind a pointer to what cannot be read.
                    Some(to) if matches!(types::read(self.view, to)?.shape, Shape::Opaque(_)) => None,
                    Some(to) => Some(self.request(to, true)),
                    None => None,
                };
                TypeKind::Pointer { to }
            }
            Shape::GoSlice(element) => TypeKind::GoSlice { element: self.request(element, false) },
            Shape::Array { element, count } => TypeKind::Array { element: self.request(element, false), count },
            Shape::Struct(members) => {
                let mut fields = Vec::with_capacity(members.len());
                for member in members {
                    let ty = match member.ty {
                        Some(ty) if is_secret(&member.name) => {
                            let name = types::read(self.view, ty)?.name;
                            self.opaque(&name, REDACTED)
                        }
                        Some(ty) => self.request(ty, false),
                        None => self.opaque("", "bit field"),
                    };
                    fields.push(Field { name: member.name, ty, offset: member.offset, embedded: member.embedded });
                }
                fields.sort_by_key(|field| field.offset);
                TypeKind::Struct { fields }
            }
        };
        Ok(Type { name: facts.name, bytes: facts.bytes, kind })
    }
}

/// What to follow in the type at `index`.
fn follow(types: &[Type], index: usize) -> Follow {
    let at = |index: TypeIndex| FollowIndex(index.0);
    match types.get(index).map(|ty| &ty.kind) {
        Some(TypeKind::Pointer { to: Some(to) }) => match readable_bytes(types, *to) {
            0 => Follow::Plain,
            bytes => Follow::Pointer { bytes, to: at(*to) },
        },
        Some(TypeKind::GoString) => Follow::GoString,
        Some(TypeKind::GoSlice { element }) => {
            let bytes = types.get(element.0 as usize).map_or(0, |ty| ty.bytes);
            // Elements lie back to back: there is no way to read them without their secrets.
            if bytes == 0 || readable_bytes(types, *element) < bytes {
                Follow::Plain
            } else {
                Follow::GoSlice { element_bytes: bytes, element: at(*element) }
            }
        }
        Some(TypeKind::Array { element, count }) if leads_on(types, *element, 0) => Follow::Array {
            count: *count,
            element_bytes: types.get(element.0 as usize).map_or(0, |ty| ty.bytes),
            element: at(*element),
        },
        Some(TypeKind::Struct { fields }) => {
            let fields: Vec<_> = fields
                .iter()
                .filter(|field| leads_on(types, field.ty, 0))
                .map(|field| (field.offset, at(field.ty)))
                .collect();
            if fields.is_empty() { Follow::Plain } else { Follow::Struct { fields } }
        }
        _ => Follow::Plain,
    }
}

/// Whether there is something to follow in a value of a type.
fn leads_on(types: &[Type], index: TypeIndex, nesting: usize) -> bool {
    if nesting > NESTING_MAX {
        return false;
    }
    match types.get(index.0 as usize).map(|ty| &ty.kind) {
        Some(TypeKind::Pointer { to }) => to.is_some(),
        Some(TypeKind::GoString | TypeKind::GoSlice { .. }) => true,
        Some(TypeKind::Array { element, count }) => *count > 0 && leads_on(types, *element, nesting + 1),
        Some(TypeKind::Struct { fields }) => fields.iter().any(|field| leads_on(types, field.ty, nesting + 1)),
        _ => false,
    }
}

/// Bytes of a value before its first secret; all of them where it has none.
fn readable_bytes(types: &[Type], index: TypeIndex) -> u64 {
    let bytes = types.get(index.0 as usize).map_or(0, |ty| ty.bytes);
    match secret_ranges(types, index) {
        Some(ranges) => ranges.first().map_or(bytes, |&(start, _)| start.min(bytes)),
        None => 0,
    }
}

/// Where the secrets in a value of a type are: start and end, in order. `None` where they cannot be told apart.
pub(super) fn secret_ranges(types: &[Type], index: TypeIndex) -> Option<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut steps_left = 1 << 14;
    collect_secrets(types, index, 0, 0, &mut ranges, &mut steps_left)?;
    ranges.sort_unstable();
    Some(ranges)
}

fn collect_secrets(
    types: &[Type],
    index: TypeIndex,
    at: u64,
    nesting: usize,
    ranges: &mut Vec<(u64, u64)>,
    steps_left: &mut usize,
) -> Option<()> {
    *steps_left = steps_left.checked_sub(1)?;
    if nesting > NESTING_MAX || ranges.len() > SECRET_RANGES_MAX {
        return None;
    }
    let ty = types.get(index.0 as usize)?;
    match &ty.kind {
        TypeKind::Struct { fields } => {
            for (number, field) in fields.iter().enumerate() {
                let start = at.saturating_add(field.offset);
                let is_redacted = types
                    .get(field.ty.0 as usize)
                    .is_some_and(|ty| matches!(&ty.kind, TypeKind::Opaque { what } if what == REDACTED));
                if is_redacted {
                    // The field's own size is not kept: it reaches to the next field, or to the end.
                    let next = fields[number + 1..].iter().map(|next| next.offset).find(|&next| next > field.offset);
                    ranges.push((start, at.saturating_add(next.unwrap_or(ty.bytes))));
                } else {
                    collect_secrets(types, field.ty, start, nesting + 1, ranges, steps_left)?;
                }
            }
        }
        TypeKind::Array { element, count } => {
            let before = ranges.len();
            let bytes = types.get(element.0 as usize)?.bytes;
            for number in 0..*count {
                let start = at.saturating_add(number.saturating_mul(bytes));
                collect_secrets(types, *element, start, nesting + 1, ranges, steps_left)?;
                // The first element has none, so no other has.
                if ranges.len() == before {
                    break;
                }
            }
        }
        _ => {}
    }
    Some(())
}

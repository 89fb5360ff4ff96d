//! The types of a layout, and what to follow in each.
//!
//! Types are described as far as a capture may reach: through values, slices, arrays, maps and channels, and through as
//! many pointers as the tracepoint follows; a pointer beyond that is only an address. What interfaces may hold comes last
//! ([`dynamic`]), as far as there is room. Each type of the layout has its entry of the follow table at the same index;
//! behind them are entries for what has no type of its own (the groups of a map).
//!
//! Secrets: a field that is named like one has an opaque type and is not followed. What a pointer or slice leads to is
//! read only up to the first secret field in it, so that a secret is never read.

mod dynamic;
mod follow;
mod native;

pub(super) use dynamic::{Dynamic, Room};
pub(super) use follow::secret_ranges;

use super::secrets::is_secret;
use crate::capture::program::Follow;
use crate::symbols::types::native::{self as native_types, NativeShape};
use crate::symbols::types::{self, Member, Shape, TypeFacts, go};
use crate::symbols::{Build, Die, ResolveError, View};
use dynamic::{Interface, Object, ObjectOf};
use riptrace_protocol::layout::{FIELD_LIMIT, Field, REDACTED, Type, TypeIndex, TypeKind};
use riptrace_protocol::limits::LAYOUT_TYPES_MAX;
use riptrace_protocol::tracepoint::CaptureLimits;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A table that is being filled.
pub(super) struct TypeTable<'v, 'a> {
    view: &'v View<'a>,
    /// The limits that values are captured within: those of the tracepoint, then those of single captures.
    limits: Vec<ValueLimits>,
    /// Which of them hold for what is described now.
    class: usize,
    types: Vec<Type>,
    /// For each type, which limits its values are captured within.
    classes: Vec<usize>,
    /// Types by their limits and entries: what is followed in a type depends on both.
    known: HashMap<(usize, Die), TypeIndex>,
    /// Types that are still to be described, by the pointers on the way to them.
    pending: BTreeMap<u32, VecDeque<(Die, TypeIndex)>>,
    /// Types that are described, and the pointers on the way to them.
    done: HashMap<TypeIndex, u32>,
    opaque: HashMap<String, TypeIndex>,
    interfaces: Vec<Interface>,
    objects: Vec<Object>,
    /// What the types take in a message, about, in bytes.
    bytes: usize,
}

/// How much of one value is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ValueLimits {
    /// Bytes of a string.
    pub(super) string_bytes: u32,
    /// Elements of a slice, array, map or channel.
    pub(super) elements: u32,
    /// Pointers followed below it.
    pub(super) depth: u32,
    /// Fields of a struct.
    pub(super) fields: u32,
}

impl ValueLimits {
    /// Those of a tracepoint.
    pub(super) fn of(limits: &CaptureLimits) -> ValueLimits {
        let &CaptureLimits { string_bytes, elements, depth, fields, .. } = limits;
        ValueLimits { string_bytes, elements, depth, fields }
    }
}

impl<'v, 'a> TypeTable<'v, 'a> {
    /// An empty table.
    pub(super) fn new(view: &'v View<'a>, limits: ValueLimits) -> TypeTable<'v, 'a> {
        TypeTable {
            view,
            limits: vec![limits],
            class: 0,
            types: Vec::new(),
            classes: Vec::new(),
            known: HashMap::new(),
            pending: BTreeMap::new(),
            done: HashMap::new(),
            opaque: HashMap::new(),
            interfaces: Vec::new(),
            objects: Vec::new(),
            bytes: 0,
        }
    }

    /// The index of a variable's type.
    pub(super) fn root(&mut self, die: Die) -> TypeIndex {
        self.request(die, 0)
    }

    /// The same for a variable with limits of its own.
    pub(super) fn root_within(&mut self, die: Die, limits: ValueLimits) -> TypeIndex {
        self.class = self.limits.iter().position(|known| *known == limits).unwrap_or_else(|| {
            self.limits.push(limits);
            self.limits.len() - 1
        });
        let index = self.request(die, 0);
        self.class = 0;
        index
    }

    /// The limits that values of a type are captured within.
    fn limits_of(&self, index: TypeIndex) -> ValueLimits {
        self.limits[self.classes[index.0 as usize]]
    }

    /// Pointers that are followed below what is described now.
    fn depth(&self) -> u32 {
        self.limits[self.class].depth
    }

    /// The index of a type that is reached through some pointers.
    fn request(&mut self, die: Die, pointers: u32) -> TypeIndex {
        if let Some(&index) = self.known.get(&(self.class, die)) {
            // Met behind more pointers before, and now nearer: more of it may be followed.
            if self.done.get(&index).is_some_and(|&before| pointers < before) {
                self.pending.entry(pointers).or_default().push_back((die, index));
            }
            return index;
        }
        // The last few places are for the opaque types that stand for the rest.
        if self.types.len() >= LAYOUT_TYPES_MAX - 16 {
            return self.opaque("", "type beyond the limit of types");
        }
        let index = self.push(Type { name: String::new(), bytes: 0, kind: TypeKind::Opaque { what: String::new() } });
        self.known.insert((self.class, die), index);
        self.pending.entry(pointers).or_default().push_back((die, index));
        index
    }

    /// A type that is made up, whole; before [`TypeTable::finish`].
    pub(super) fn add(&mut self, ty: Type) -> TypeIndex {
        self.bytes += message_bytes(&ty);
        self.push(ty)
    }

    fn push(&mut self, ty: Type) -> TypeIndex {
        let index = TypeIndex(self.types.len() as u32);
        self.types.push(ty);
        self.classes.push(self.class);
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

    /// Describes all types that were asked for and what they lead to.
    pub(super) fn finish(
        mut self,
        build: &Build,
        bias: u64,
        dynamic: Option<&Dynamic<'_>>,
        room: Room,
    ) -> Result<(Vec<Type>, Vec<Follow>), ResolveError> {
        self.close()?;
        if let Some(dynamic) = dynamic {
            self.functions(dynamic, room)?;
            self.expand(dynamic, room)?;
        }
        self.objects(build, bias, room)?;
        let limits: Vec<ValueLimits> = self.classes.iter().map(|&class| self.limits[class]).collect();
        let follow = follow::of(&self.types, &limits);
        Ok((self.types, follow))
    }

    /// Describes what is pending, what is near first.
    fn close(&mut self) -> Result<(), ResolveError> {
        while let Some(mut nearest) = self.pending.first_entry() {
            let pointers = *nearest.key();
            let Some((die, index)) = nearest.get_mut().pop_front() else {
                nearest.remove();
                continue;
            };
            if self.done.get(&index).is_some_and(|&before| before <= pointers) {
                continue;
            }
            self.done.insert(index, pointers);
            let class = std::mem::replace(&mut self.class, self.classes[index.0 as usize]);
            let facts = types::read(self.view, die)?;
            let ty = self.describe(facts, index, pointers)?;
            self.class = class;
            self.bytes += message_bytes(&ty);
            self.types[index.0 as usize] = ty;
        }
        Ok(())
    }

    fn describe(&mut self, facts: TypeFacts, index: TypeIndex, pointers: u32) -> Result<Type, ResolveError> {
        if let Shape::Pointer(Some(to)) | Shape::Native(NativeShape::Reference { to: Some(to), .. }) = facts.shape
            && native_types::has_table(self.view, to)?
        {
            self.object(index, pointers, || ObjectOf::Class(to));
        }
        let kind = match facts.shape {
            Shape::Signed => TypeKind::Signed,
            Shape::Unsigned => TypeKind::Unsigned,
            Shape::Float => TypeKind::Float,
            Shape::Complex => TypeKind::Complex,
            Shape::Bool => TypeKind::Bool,
            Shape::GoString => TypeKind::GoString,
            Shape::Enum { signed, names } => TypeKind::Enum { signed, names },
            Shape::Opaque(what) => TypeKind::Opaque { what: what.to_owned() },
            // A link of a chain that is read as one value leads on without being counted.
            Shape::Pointer(Some(to)) if follow::is_link(&facts.name) => {
                TypeKind::Pointer { to: Some(self.request(to, pointers)) }
            }
            Shape::Pointer(to) => TypeKind::Pointer { to: self.pointee(to, pointers)? },
            Shape::GoSlice(element) => TypeKind::GoSlice { element: self.request(element, pointers) },
            Shape::Array { element, count } => TypeKind::Array { element: self.request(element, pointers), count },
            Shape::Struct(members) => TypeKind::Struct { fields: self.fields(members, pointers)? },
            Shape::Interface { empty, die } => self.interface(index, empty, die, pointers),
            Shape::Map { key, element, header } => {
                let [key_bytes, element_bytes] =
                    [types::read(self.view, key)?.bytes, types::read(self.view, element)?.bytes];
                match go::map_form(self.view, header, key_bytes, element_bytes)? {
                    Some(form) => {
                        let (key, element) = (self.request(key, pointers), self.request(element, pointers));
                        TypeKind::GoMap { key, element, form }
                    }
                    None => TypeKind::Opaque { what: "map".to_owned() },
                }
            }
            Shape::Chan { element, header } => match go::chan_form(self.view, header)? {
                Some(form) => TypeKind::GoChan { element: self.request(element, pointers), form },
                None => TypeKind::Opaque { what: "chan".to_owned() },
            },
            Shape::Func => TypeKind::GoFunc { functions: Vec::new() },
            Shape::Native(shape) => self.native(shape, index, pointers)?,
        };
        Ok(Type { name: facts.name, bytes: facts.bytes, kind })
    }

    /// Remembers an object whose types come later.
    fn object(&mut self, index: TypeIndex, pointers: u32, of: impl FnOnce() -> ObjectOf) {
        match self.objects.iter_mut().find(|known| known.index == index) {
            Some(known) => known.pointers = known.pointers.min(pointers),
            None => self.objects.push(Object { index, of: of(), pointers }),
        }
    }

    fn fields(&mut self, members: Vec<Member>, pointers: u32) -> Result<Vec<Field>, ResolveError> {
        let mut fields = Vec::with_capacity(members.len());
        let most = self.limits[self.class].fields as usize;
        for (number, member) in members.into_iter().enumerate() {
            let ty = match member.ty {
                Some(ty) if number >= most && !is_secret(&member.name) => {
                    let name = types::read(self.view, ty)?.name;
                    self.opaque(&name, FIELD_LIMIT)
                }
                Some(ty) if is_secret(&member.name) => {
                    let name = types::read(self.view, ty)?.name;
                    self.opaque(&name, REDACTED)
                }
                Some(ty) => match member.bits {
                    Some((shift, bits)) => self.bits(ty, shift, bits, pointers),
                    None => self.request(ty, pointers),
                },
                None => self.opaque("", "virtual base"),
            };
            fields.push(Field { name: member.name, ty, offset: member.offset, embedded: member.embedded });
        }
        fields.sort_by_key(|field| field.offset);
        Ok(fields)
    }
}

/// What a type takes in a message, in bytes, about: rather too much.
fn message_bytes(ty: &Type) -> usize {
    let own = match &ty.kind {
        TypeKind::Struct { fields } => fields.iter().map(|field| 64 + field.name.len()).sum(),
        TypeKind::Enum { names, .. } => names.iter().map(|(name, _)| 16 + name.len()).sum(),
        TypeKind::GoMap { .. } => 480,
        TypeKind::GoChan { .. } => 240,
        TypeKind::Opaque { what } => what.len(),
        _ => 24,
    };
    64 + ty.name.len() + own
}

//! What interfaces, trait objects of Rust and pointers to classes of C++ may hold, as far as a layout has room.
//!
//! A capture follows what it knows beforehand: for each interface, the types that it may hold are chosen here, the
//! likeliest first (those of the program's own packages, and those that are met everywhere); what is left is named, so
//! that a value of such a type is shown with its type. A type that is not even named is shown by its address.
//!
//! All interfaces take turns, those that variables lead to without passing through another interface first: none of them
//! takes the room of all others.

use super::TypeTable;
use crate::symbols::types::go_dynamic::{Candidate, Described, GoTypes};
use crate::symbols::types::{self, Shape, go_functions};
use crate::symbols::{Build, Die, ResolveError, Site, View};
use riptrace_protocol::layout::{
    COUNTS_BYTES, DynamicType, Field, FunctionCase, NamedType, NativeKind, ObjectTable, Type, TypeIndex, TypeKind,
};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Types that one interface of a variable may hold with their contents, at most: an error has some hundred in a large
/// program, of which one code path meets a handful.
const CASES_MAX: usize = 40;
/// The same for an interface within what another one holds.
const INNER_CASES_MAX: usize = 24;
/// Types of one interface that are only named, at most.
const NAMES_MAX: usize = 256;
/// Bytes of a layout that dynamic types may take in a message, about.
const BYTES_MAX: usize = 32 * 1024;
/// Bytes of names of types and functions, at most, beside them.
const NAME_BYTES_MAX: usize = 24 * 1024;
/// Functions that function values of one type may call, at most: those of a large package.
const FUNCTIONS_MAX: usize = 192;

/// How much room there is for what interfaces may hold, in bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) struct Room {
    types: usize,
    names: usize,
}

impl Room {
    /// For one of the `sites` of a probe, which share the room of one message.
    pub(in crate::plan) fn of_one(sites: usize) -> Room {
        // A few layouts fit as they are; of more, each gets less: what must be told comes first.
        let share = sites.max(1).div_ceil(3);
        Room { types: BYTES_MAX / share, names: NAME_BYTES_MAX / share }
    }

    /// A quarter less of it for types; nothing when little is left.
    pub(in crate::plan) fn less(self) -> Room {
        Room { types: if self.types < 1024 { 0 } else { self.types / 4 * 3 }, names: self.names }
    }

    /// Whether there is none for types.
    pub(in crate::plan) fn is_none(self) -> bool {
        self.types == 0
    }
}

/// Where types of interfaces are looked for.
pub(in crate::plan) struct Dynamic<'b> {
    build: &'b Build,
    site: &'b Site,
    /// How far the process moved the executable.
    bias: u64,
    /// Package of the function that is traced, with the dot behind it.
    package: &'b str,
    /// Types that an interface type may hold, the likeliest first.
    known: RefCell<HashMap<Option<Die>, Rc<[Described<'b>]>>>,
}

impl<'b> Dynamic<'b> {
    pub(in crate::plan) fn new(build: &'b Build, bias: u64, site: &'b Site) -> Dynamic<'b> {
        // What a panic holds (`runtime.gopanic`) comes from the program, not from the runtime.
        let package = Some(package(&site.function)).filter(|package| *package != "runtime.").unwrap_or_default();
        Dynamic { build, site, bias, package, known: RefCell::default() }
    }

    /// The types that an interface may hold, the likeliest first, no more than are told.
    fn candidates(
        &self,
        types: &'b GoTypes,
        view: &View<'_>,
        methods: Option<Die>,
    ) -> Result<Rc<[Described<'b>]>, ResolveError> {
        if let Some(known) = self.known.borrow().get(&methods) {
            return Ok(Rc::clone(known));
        }
        let all = types.candidates(view, self.build, methods)?;
        let mut ranked: Vec<_> = all.into_iter().map(|described| (self.rank(described.name), described)).collect();
        let order = |(rank, described): &(u32, Described<'b>)| (*rank, described.name);
        // An empty interface may hold any type there is: only those that are told are put in order.
        if ranked.len() > CASES_MAX + NAMES_MAX {
            ranked.select_nth_unstable_by(CASES_MAX + NAMES_MAX, |a, b| order(a).cmp(&order(b)));
            ranked.truncate(CASES_MAX + NAMES_MAX);
        }
        ranked.sort_by(|a, b| order(a).cmp(&order(b)));
        let all: Rc<[_]> = ranked.into_iter().map(|(_, described)| described).collect();
        self.known.borrow_mut().insert(methods, Rc::clone(&all));
        Ok(all)
    }

    /// How soon a type is looked at; smaller is sooner.
    fn rank(&self, name: &str) -> u32 {
        let base = name.trim_start_matches(['*', '[', ']']);
        let module = self.build.facts().module.as_deref().unwrap_or("main");
        let in_module = base.strip_prefix(module).is_some_and(|rest| rest.starts_with(['/', '.']));
        match name {
            _ if BASIC.contains(&name) => 0,
            _ if PANICS.contains(&name) && self.site.function.starts_with("runtime.") => 0,
            _ if !self.package.is_empty() && base.starts_with(self.package) => 1,
            _ if in_module || base.starts_with("main.") => 2,
            _ if COMMON.contains(&name) => 3,
            _ if name.starts_with("noalg.") || base.starts_with("go.shape.") => 9,
            _ if base.starts_with("runtime.") || base.starts_with("internal/") => 8,
            _ if base.starts_with("struct {") || base.starts_with("func(") || name.starts_with('[') => 7,
            _ if base.contains('/') && base.split('/').next().is_some_and(|first| first.contains('.')) => 4,
            _ => 5,
        }
    }
}

/// Types that interfaces hold in any program, before all others.
const BASIC: [&str; 6] = ["bool", "int", "int64", "float64", "string", "[]uint8"];

/// What Go's runtime itself panics with.
const PANICS: [&str; 6] = [
    "runtime.boundsError",
    "runtime.errorString",
    "runtime.errorAddressString",
    "runtime.plainError",
    "*runtime.TypeAssertionError",
    "*runtime.PanicNilError",
];

/// The same, after those of the program itself.
const COMMON: [&str; 37] = [
    "*errors.errorString",
    "*fmt.wrapError",
    "context.backgroundCtx",
    "*context.emptyCtx",
    "*context.valueCtx",
    "*context.cancelCtx",
    "*context.timerCtx",
    "int8",
    "int16",
    "int32",
    "uint",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "uintptr",
    "float32",
    "complex128",
    "[]string",
    "[]int",
    "[]interface {}",
    "map[string]interface {}",
    "map[string]int",
    "map[string]string",
    "time.Time",
    "time.Duration",
    "*errors.joinError",
    "*fmt.wrapErrors",
    "*io/fs.PathError",
    "syscall.Errno",
    "*os.SyscallError",
    "*net.OpError",
    "*net/url.Error",
    "*strconv.NumError",
    "context.deadlineExceededError",
    "context.todoCtx",
    "context.withoutCancelCtx",
];

/// The package of a function, with the dot behind it: `example.com/shop/cart.` of `example.com/shop/cart.(*Cart).Add`.
fn package(function: &str) -> &str {
    // Type arguments may have paths of their own.
    let name = function.split('[').next().unwrap_or(function);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    name[last..].find('.').map_or("", |dot| &name[..=last + dot])
}

/// An interface type of the layout.
pub(super) struct Interface {
    index: TypeIndex,
    empty: bool,
    die: Die,
    /// Pointers on the way to it.
    pointers: u32,
}

/// An interface that is being filled.
struct Open<'t> {
    index: TypeIndex,
    pointers: u32,
    waiting: VecDeque<Described<'t>>,
    cases: Vec<DynamicType>,
    cases_max: usize,
}

/// A trait object of the layout, or a pointer to an object with virtual functions.
pub(super) struct Object {
    pub(super) index: TypeIndex,
    pub(super) of: ObjectOf,
    /// Pointers on the way to it.
    pub(super) pointers: u32,
}

/// What the source says of an object.
pub(super) enum ObjectOf {
    /// It has the methods of a trait.
    Trait {
        name: String,
        /// Where the value is behind its counts: the type of both, whose last member has no size of its own.
        counted: Option<Die>,
    },
    /// It is of this class, or begins with one.
    Class(Die),
}

impl TypeTable<'_, '_> {
    /// Fills the trait objects with the types that have tables of their traits, and pointers to classes with virtual
    /// functions with those that an object may be of, as far as there is room.
    pub(super) fn objects(&mut self, build: &Build, bias: u64, room: Room) -> Result<(), ResolveError> {
        let bytes_max = self.bytes.saturating_add(room.types);
        let mut next = 0;
        while next < self.objects.len() {
            let Object { index, pointers, .. } = self.objects[next];
            let (tables, counted) = match &self.objects[next].of {
                ObjectOf::Trait { name, counted } => (build.vtables(self.view).of(name), *counted),
                ObjectOf::Class(class) => (build.classes(self.view).of(self.view, *class)?, None),
            };
            next += 1;
            let mut cases: Vec<DynamicType> = Vec::new();
            for table in tables {
                // More than are prepared for: which of them are the likely ones, nothing tells.
                if cases.len() >= CASES_MAX || self.bytes >= bytes_max || pointers >= self.limits_of(index).depth {
                    break;
                }
                let class = std::mem::replace(&mut self.class, self.classes[index.0 as usize]);
                let held = self.request(table.of, pointers + 1);
                self.close()?;
                let ty = match counted {
                    Some(counted) => self.behind_counts(counted, held, table.of)?,
                    None => Some(held),
                };
                self.class = class;
                let Some(ty) = ty else { continue };
                cases.push(DynamicType { address: table.address.in_process(bias).0, ty, direct: false });
            }
            cases.sort_by_key(|case| case.address);
            let kind = &mut self.types[index.0 as usize].kind;
            let first = |declared, is_reference| ObjectTable::First { declared, is_reference };
            *kind = match std::mem::replace(kind, TypeKind::Signed) {
                TypeKind::Native(NativeKind::Object { at, table, .. }) => {
                    TypeKind::Native(NativeKind::Object { at, table, cases })
                }
                // Without a type that it may be of besides the declared one it stays what it is.
                TypeKind::Pointer { to: Some(to) } if cases.iter().any(|case| case.ty != to) => {
                    TypeKind::Native(NativeKind::Object { at: 0, table: first(to, false), cases })
                }
                TypeKind::Native(NativeKind::Reference { at, to: Some(to) })
                    if cases.iter().any(|case| case.ty != to) =>
                {
                    TypeKind::Native(NativeKind::Object { at, table: first(to, true), cases })
                }
                other => other,
            };
        }
        Ok(())
    }

    /// The type of a value behind the counts of `Rc` and `Arc` (`repr(C)`: strong, weak, value).
    fn behind_counts(&mut self, counted: Die, held: TypeIndex, of: Die) -> Result<Option<TypeIndex>, ResolveError> {
        let facts = types::read(self.view, counted)?;
        let Shape::Struct(members) = facts.shape else { return Ok(None) };
        let (Some(last), alignment) =
            (members.iter().max_by_key(|member| member.offset), types::alignment(self.view, of)?)
        else {
            return Ok(None);
        };
        let Some(alignment) = alignment.filter(|bytes| bytes.is_power_of_two()) else { return Ok(None) };
        let name = last.name.clone();
        let counts = members.iter().filter(|member| member.name != name).cloned().collect();
        let offset = COUNTS_BYTES.next_multiple_of(alignment);
        let mut fields = self.fields(counts, 0)?;
        self.close()?;
        fields.push(Field { name, ty: held, offset, embedded: false });
        let held_type = &self.types[held.0 as usize];
        let (bytes, name) = (offset.saturating_add(held_type.bytes), held_type.name.clone());
        let base = facts.name.split('<').next().unwrap_or_default();
        let ty = Type { name: format!("{base}<{name}>"), bytes, kind: TypeKind::Struct { fields } };
        Ok(Some(self.add(ty)))
    }

    /// An interface type, whose types come later.
    pub(super) fn interface(&mut self, index: TypeIndex, empty: bool, die: Die, pointers: u32) -> TypeKind {
        match self.interfaces.iter_mut().find(|known| known.index == index) {
            Some(known) => known.pointers = known.pointers.min(pointers),
            None => self.interfaces.push(Interface { index, empty, die, pointers }),
        }
        TypeKind::GoInterface { empty, cases: Vec::new(), others: Vec::new() }
    }

    /// Fills the function types with the functions of the site's package, as far as there is room.
    pub(super) fn functions(&mut self, dynamic: &Dynamic<'_>, room: Room) -> Result<(), ResolveError> {
        let is_function = |kind: &TypeKind| matches!(kind, TypeKind::GoFunc { .. });
        let of: Vec<usize> = (0..self.types.len()).filter(|&number| is_function(&self.types[number].kind)).collect();
        if of.is_empty() {
            return Ok(());
        }
        let mut bytes_left = room.names / of.len();
        let mut functions = Vec::new();
        for callable in go_functions::callable(self.view, dynamic.site, FUNCTIONS_MAX)? {
            let bytes = callable.name.len() + 80 + 80 * callable.captured.len();
            let Some(left) = bytes_left.checked_sub(bytes) else { break };
            bytes_left = left;
            let captured = self.fields(callable.captured, 0)?;
            // The object ends where the last captured variable does.
            self.close()?;
            let end = |field: &Field| {
                field.offset.saturating_add(self.types.get(field.ty.0 as usize).map_or(0, |ty| ty.bytes))
            };
            let bytes = captured.iter().map(end).max().unwrap_or(8).max(8);
            functions.push(FunctionCase {
                address: callable.address.in_process(dynamic.bias).0,
                name: callable.name,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                captured,
            });
        }
        functions.sort_by_key(|function| function.address);
        functions.dedup_by_key(|function| function.address);
        for number in of {
            self.types[number].kind = TypeKind::GoFunc { functions: functions.clone() };
        }
        Ok(())
    }

    /// Fills the interfaces, as far as there is room.
    pub(super) fn expand(&mut self, dynamic: &Dynamic<'_>, room: Room) -> Result<(), ResolveError> {
        let Some(types) = dynamic.build.go_types(self.view) else { return Ok(()) };
        let bytes_max = self.bytes.saturating_add(room.types);
        let mut opened: Vec<Open<'_>> = Vec::new();
        let mut turn = 0;
        loop {
            // Interfaces that were met since.
            for interface in self.interfaces.iter().skip(opened.len()) {
                let methods = (!interface.empty).then_some(interface.die);
                let all = dynamic.candidates(types, self.view, methods)?;
                opened.push(Open {
                    index: interface.index,
                    pointers: interface.pointers,
                    waiting: all.iter().copied().collect(),
                    cases: Vec::new(),
                    cases_max: if turn == 0 { CASES_MAX } else { INNER_CASES_MAX },
                });
            }
            let mut took = false;
            for open in &mut opened {
                if open.cases.len() >= open.cases_max || self.bytes >= bytes_max {
                    continue;
                }
                let Some(described) = open.waiting.pop_front() else { continue };
                took = true;
                let Some(candidate) = types.candidate(described, dynamic.build) else { continue };
                let Candidate { address, direct, .. } = candidate;
                // Within the limits of what holds it.
                self.class = self.classes[open.index.0 as usize];
                let ty = self.request(described.die, open.pointers);
                self.class = 0;
                open.cases.push(DynamicType { address: address.in_process(dynamic.bias).0, ty, direct });
            }
            turn += 1;
            self.close()?;
            if !took && self.interfaces.len() == opened.len() {
                break;
            }
        }
        let mut name_bytes_left = room.names;
        for Open { index, waiting, mut cases, .. } in opened {
            let mut others = Vec::new();
            for described in waiting.iter().take(NAMES_MAX) {
                let Some(left) = name_bytes_left.checked_sub(40 + described.name.len()) else { break };
                name_bytes_left = left;
                let address = types.address(*described).in_process(dynamic.bias).0;
                others.push(NamedType { address, name: described.name.to_string() });
            }
            cases.sort_by_key(|case| case.address);
            others.sort_by_key(|other| other.address);
            let TypeKind::GoInterface { cases: into, others: names, .. } = &mut self.types[index.0 as usize].kind
            else {
                continue;
            };
            (*into, *names) = (cases, others);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn the_package_of_a_function_ends_at_the_first_dot_behind_its_path() {
        for (function, wanted) in [
            ("main.main", "main."),
            ("example.com/shop/cart.(*Cart).Add", "example.com/shop/cart."),
            ("example.com/a.b/v2.F.func1", "example.com/a.b/v2."),
            ("main.Map[example.com/x/y.K]", "main."),
            ("C", ""),
        ] {
            assert_eq!(package(function), wanted, "{function}");
        }
    }
}

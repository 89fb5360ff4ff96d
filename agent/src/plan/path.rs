//! Places that an expression names: a variable, a field, an element, what a pointer points to; found in the debug
//! information, as parts that a passage can read.

use super::roots;
use super::secrets::is_secret;
use crate::symbols::place::{self, Part, Spot};
use crate::symbols::scope::{self, Local, Presence};
use crate::symbols::types::{self, Member, Shape, TypeFacts, go_constants};
use crate::symbols::{Build, Die, ResolveError, Site, Svma, View};
use riptrace_protocol::expression::{BinaryOp, Expr, Literal, UnaryOp, is_type_named};

/// Levels of embedded structs that a promoted field is looked for in.
const EMBEDDING_MAX: usize = 8;

/// Why an expression cannot be compiled for a place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// No variable of this name is in scope.
    #[error("no variable {name} is in scope here{}", listed(.known))]
    NoSuchName {
        /// The name.
        name: String,
        /// Names in scope.
        known: Vec<String>,
    },
    /// The variable cannot be read here.
    #[error("{name} {why}")]
    NotHere {
        /// The variable.
        name: String,
        /// Why, as the rest of a sentence.
        why: String,
    },
    /// It is named like a secret.
    #[error("{0} is named like a secret, and secrets are never read")]
    Secret(String),
    /// No such field.
    #[error("{of} of type {type_name} has no field {field}")]
    NoSuchField {
        /// What should have it.
        of: String,
        /// Its type.
        type_name: String,
        /// The field.
        field: String,
    },
    /// The wrong kind of type for what is done with it.
    #[error("{what} of type {type_name} is not {wanted}")]
    NotA {
        /// The expression.
        what: String,
        /// Its type.
        type_name: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// An index that is not known before the hit.
    #[error("the index of {0} must be a constant here; filter on the hits instead")]
    ComputedIndex(String),
    /// An index beyond an array.
    #[error("index {index} is outside of {of}, which has {count} elements")]
    Outside {
        /// What is indexed.
        of: String,
        /// The index.
        index: i128,
        /// Its elements.
        count: u64,
    },
    /// It is in the middle of a register or otherwise in no place that can be read alone.
    #[error("{0} is kept together with other values here and cannot be read alone")]
    NoPlace(String),
    /// Operands that the language does not combine.
    #[error("{left} {operator} {right}: the types do not match; Go would not compile this")]
    Mismatch {
        /// Type or kind of the left side.
        left: String,
        /// The operator.
        operator: &'static str,
        /// Type or kind of the right side.
        right: String,
    },
    /// A constant that its other side's type cannot hold.
    #[error("the constant {value} does not fit the type {type_name}")]
    ConstantRange {
        /// The constant.
        value: String,
        /// The type.
        type_name: String,
    },
    /// A type that an interface is said to hold.
    #[error("no type of this build that an interface may hold is called {0}")]
    NoSuchType(String),
    /// Something that the agent does not compute at the target.
    #[error("{0} cannot be computed at the target; filter on the hits instead")]
    Unsupported(String),
    /// A condition that is no truth value.
    #[error("it is of type {0}, not a truth value; compare it with something")]
    NotTruth(String),
    /// The debug information is damaged.
    #[error(transparent)]
    Symbols(#[from] ResolveError),
}

fn listed(names: &[String]) -> String {
    /// Names that an error lists, at most: what a person reads.
    const LISTED_MAX: usize = 12;
    match names {
        [] => String::new(),
        names => format!(" (there are: {})", names[..names.len().min(LISTED_MAX)].join(", ")),
    }
}

/// What must hold for a place to be one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Guard {
    /// An element exists only if the slice or string is long enough. The length has eight bytes.
    Element { length: Vec<Part>, index: u64 },
    /// What an interface holds is of a type only if its word, of eight bytes, is the address of the type's description.
    Type { word: Vec<Part>, description: Svma },
}

/// A place, by its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// `None` for a byte of a string.
    pub(super) ty: Option<Die>,
    pub(super) parts: Vec<Part>,
    pub(super) guards: Vec<Guard>,
    /// Pointers followed on the way.
    pub(super) pointers: usize,
}

/// The variables at a site.
pub(super) struct Names<'v, 'a> {
    pub(super) build: &'v Build,
    pub(super) view: &'v View<'a>,
    pub(super) locals: &'v [Local],
    pub(super) site: &'v Site,
    /// Whether Go's rules for types hold; other languages convert.
    pub(super) is_go: bool,
}

impl Names<'_, '_> {
    /// The type of a place.
    pub(super) fn facts(&self, found: &Found) -> Result<TypeFacts, Problem> {
        match found.ty {
            Some(ty) => Ok(types::read(self.view, ty)?),
            None => Ok(TypeFacts { name: "uint8".to_owned(), bytes: 1, shape: Shape::Unsigned }),
        }
    }

    /// The place that an expression names.
    pub(super) fn place(&self, expr: &Expr) -> Result<Found, Problem> {
        match expr {
            Expr::Name(name) => self.variable(name),
            Expr::Select { of, field } => {
                // A package is not a value: `cart.Rate` is one name.
                if let Expr::Name(package) = &**of
                    && !self.is_local(package)
                    && let Some(found) = self.global(&format!("{package}.{field}"))?
                {
                    return Ok(found);
                }
                let outer = self.through_pointer(of, self.place(of)?)?;
                self.select(of, outer, field)
            }
            Expr::Index { of, index } => self.element(expr, of, index),
            Expr::Assert { of, type_name } => self.asserted(expr, of, type_name),
            Expr::Unary { op: UnaryOp::Deref, of } => {
                let pointer = self.place(of)?;
                match self.facts(&pointer)?.shape {
                    Shape::Pointer(Some(to)) => self.deref(of, pointer, to),
                    _ => Err(self.not_a(of, &pointer, "a pointer that can be followed")),
                }
            }
            other => Err(Problem::Unsupported(other.to_string())),
        }
    }

    /// What an interface holds, if that is of a type: the type's description is among those of the build, and the
    /// interface leads to it.
    fn asserted(&self, expr: &Expr, of: &Expr, type_name: &str) -> Result<Found, Problem> {
        let outer = self.place(of)?;
        let Shape::Interface { empty, .. } = self.facts(&outer)?.shape else {
            return Err(self.not_a(of, &outer, "an interface"));
        };
        let types = self.build.go_types(self.view).ok_or_else(|| Problem::Unsupported(expr.to_string()))?;
        let mut found = types.named(|name| is_type_named(name, type_name));
        if found.len() > 1 {
            // One of them may be written as it is.
            found.retain(|described| described.name == type_name);
        }
        let described = match found[..] {
            [described] => described,
            [] => return Err(Problem::NoSuchType(type_name.to_owned())),
            _ => return Err(Problem::Unsupported(format!("{expr}: several types have the name {type_name}"))),
        };
        let candidate = types.candidate(described, self.build).ok_or_else(|| Problem::Unsupported(expr.to_string()))?;
        let no_place = || Problem::NoPlace(of.to_string());
        let word_of = |spot: Spot| vec![Part { bytes: 8, place: place::Place::Memory(spot) }];
        let word = match empty {
            true => roots::range(&outer.parts, 0, 8).ok_or_else(no_place)?,
            // `abi.ITab`: Inter, Type. There is none in a nil interface, and nothing at the address 8.
            false => word_of(word(&outer.parts, 0).ok_or_else(no_place)?.plus(8)),
        };
        let bytes = types::read(self.view, described.die)?.bytes;
        let parts = if candidate.direct {
            roots::range(&outer.parts, 8, 8).filter(|_| bytes == 8).ok_or_else(no_place)?
        } else {
            let spot = self::word(&outer.parts, 8).ok_or_else(no_place)?;
            vec![Part { bytes, place: place::Place::Memory(spot) }]
        };
        let mut guards = outer.guards;
        guards.push(Guard::Type { word, description: candidate.address });
        Ok(Found { ty: Some(described.die), parts, guards, pointers: outer.pointers + 1 })
    }

    fn not_a(&self, what: &Expr, found: &Found, wanted: &'static str) -> Problem {
        match self.facts(found) {
            Ok(facts) => Problem::NotA { what: what.to_string(), type_name: facts.name, wanted },
            Err(problem) => problem,
        }
    }

    fn variable(&self, name: &str) -> Result<Found, Problem> {
        if is_secret(name) {
            return Err(Problem::Secret(name.to_owned()));
        }
        if let Some(local) = self.locals.iter().find(|local| local.name == name) {
            return found(local);
        }
        self.global(name)?.ok_or_else(|| {
            let known = self.locals.iter().map(|local| local.name.clone()).filter(|name| !is_secret(name)).collect();
            Problem::NoSuchName { name: name.to_owned(), known }
        })
    }

    /// Whether a name is one of a variable of the function.
    pub(super) fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local.name == name)
    }

    fn global(&self, name: &str) -> Result<Option<Found>, Problem> {
        if is_secret(name) {
            return Err(Problem::Secret(name.to_owned()));
        }
        scope::global(self.view, self.site, name)?.as_ref().map(found).transpose()
    }

    /// The integer constant that a name means: one of the site's package, or of the one that is named, with its type.
    pub(super) fn constant(&self, expr: &Expr) -> Result<Option<(i64, TypeFacts)>, Problem> {
        let found = match expr {
            Expr::Name(name) => match go_constants::package(&self.site.function) {
                Some(package) => go_constants::named(self.view, package, name)?,
                None => None,
            },
            Expr::Select { of, field } => match &**of {
                Expr::Name(package) => match go_constants::package_by_suffix(self.view, package)? {
                    Some(package) => go_constants::named(self.view, &package, field)?,
                    None => None,
                },
                _ => None,
            },
            _ => None,
        };
        found.filter(|_| self.is_go).map(|(value, ty)| Ok((value, types::read(self.view, ty)?))).transpose()
    }

    fn through_pointer(&self, of: &Expr, found: Found) -> Result<Found, Problem> {
        match self.facts(&found)?.shape {
            Shape::Pointer(Some(to)) => self.deref(of, found, to),
            _ => Ok(found),
        }
    }

    fn deref(&self, of: &Expr, pointer: Found, to: Die) -> Result<Found, Problem> {
        let spot = word(&pointer.parts, 0).ok_or_else(|| Problem::NoPlace(of.to_string()))?;
        let bytes = types::read(self.view, to)?.bytes;
        let parts = vec![Part { bytes, place: place::Place::Memory(spot) }];
        Ok(Found { ty: Some(to), parts, pointers: pointer.pointers + 1, ..pointer })
    }

    fn select(&self, of: &Expr, outer: Found, field: &str) -> Result<Found, Problem> {
        if is_secret(field) {
            return Err(Problem::Secret(format!("{of}.{field}")));
        }
        // Go's rule: the field at the shallowest depth; level by level through the embedded ones.
        let mut level = vec![outer.clone()];
        for _ in 0..EMBEDDING_MAX {
            let mut next = Vec::new();
            for found in level {
                let Shape::Struct(members) = self.facts(&found)?.shape else {
                    continue;
                };
                if let Some(member) = members.iter().find(|member| member.name == field) {
                    return self.member(of, &found, member);
                }
                for member in members.iter().filter(|member| member.embedded && !is_secret(&member.name)) {
                    let inner = self.member(of, &found, member)?;
                    // A nil embedded pointer is found out at the hit.
                    next.push(self.through_pointer(of, inner)?);
                }
            }
            level = next;
        }
        let facts = self.facts(&outer)?;
        match facts.shape {
            Shape::Struct(_) => {
                Err(Problem::NoSuchField { of: of.to_string(), type_name: facts.name, field: field.to_owned() })
            }
            _ => Err(Problem::NotA { what: of.to_string(), type_name: facts.name, wanted: "a struct" }),
        }
    }

    fn member(&self, of: &Expr, outer: &Found, member: &Member) -> Result<Found, Problem> {
        let no_place = || Problem::NoPlace(format!("{of}.{}", member.name));
        let ty = member.ty.ok_or_else(no_place)?;
        let bytes = types::read(self.view, ty)?.bytes;
        let parts = roots::range(&outer.parts, member.offset, bytes).ok_or_else(no_place)?;
        Ok(Found { ty: Some(ty), parts, ..outer.clone() })
    }

    fn element(&self, expr: &Expr, of: &Expr, index: &Expr) -> Result<Found, Problem> {
        if let Ok(outer) = self.place(of)
            && let Shape::Map { .. } = self.facts(&outer)?.shape
        {
            return Err(Problem::Unsupported(format!("the look-up {expr} in a map")));
        }
        let number = match index {
            Expr::Literal(Literal::Int(number)) => *number,
            Expr::Literal(Literal::Rune(rune)) => i128::from(u32::from(*rune)),
            _ => return Err(Problem::ComputedIndex(expr.to_string())),
        };
        let mut outer = self.place(of)?;
        // `p[i]` works through a pointer to an array.
        if let Shape::Pointer(Some(to)) = self.facts(&outer)?.shape
            && matches!(types::read(self.view, to)?.shape, Shape::Array { .. })
        {
            outer = self.deref(of, outer, to)?;
        }
        let no_place = || Problem::NoPlace(expr.to_string());
        let element = match self.facts(&outer)?.shape {
            Shape::Array { element, count } => {
                let index = u64::try_from(number).ok().filter(|index| *index < count);
                let index = index.ok_or(Problem::Outside { of: of.to_string(), index: number, count })?;
                let bytes = types::read(self.view, element)?.bytes;
                let offset = index.checked_mul(bytes).ok_or_else(no_place)?;
                let parts = roots::range(&outer.parts, offset, bytes).ok_or_else(no_place)?;
                return Ok(Found { ty: Some(element), parts, ..outer });
            }
            Shape::GoSlice(element) => Some(element),
            Shape::GoString => None,
            _ => return Err(self.not_a(of, &outer, "an array, slice or string")),
        };
        let bytes = match element {
            Some(element) => types::read(self.view, element)?.bytes,
            None => 1,
        };
        let outside = Problem::Outside { of: of.to_string(), index: number, count: i64::MAX as u64 };
        let index = u64::try_from(number).map_err(|_| outside)?;
        let offset = index.checked_mul(bytes).and_then(|offset| i64::try_from(offset).ok()).ok_or_else(no_place)?;
        let start = word(&outer.parts, 0).ok_or_else(no_place)?;
        let length = roots::range(&outer.parts, 8, 8).ok_or_else(no_place)?;
        let parts = vec![Part { bytes, place: place::Place::Memory(start.plus(offset)) }];
        let mut guards = outer.guards;
        guards.push(Guard::Element { length, index });
        Ok(Found { ty: element, parts, guards, pointers: outer.pointers + 1 })
    }
}

fn found(local: &Local) -> Result<Found, Problem> {
    let why = match &local.presence {
        Presence::Here(parts) => {
            return Ok(Found { ty: local.ty, parts: parts.clone(), guards: Vec::new(), pointers: 0 });
        }
        Presence::OptimisedOut => "is optimised out".to_owned(),
        Presence::Partial { present, .. } => format!("exists only in part ({present})"),
        Presence::Suspect(why) => format!("cannot be trusted: {why}"),
        Presence::Unknown(why) => format!("cannot be read: {why}"),
    };
    Err(Problem::NotHere { name: local.name.clone(), why })
}

/// The address that the word at `offset` of some parts holds.
pub(super) fn word(parts: &[Part], offset: u64) -> Option<Spot> {
    match roots::range(parts, offset, 8)?.as_slice() {
        [Part { bytes: 8, place: place::Place::Register(register) }] => {
            Some(Spot { base: Some(*register), offset: 0, derefs: Vec::new() })
        }
        [Part { bytes: 8, place: place::Place::Memory(spot) }] => Some(spot.clone().deref()),
        _ => None,
    }
}

/// The places that an expression names: what a capture reads for it.
pub(super) fn places(expr: &Expr) -> Vec<&Expr> {
    fn walk<'e>(expr: &'e Expr, into: &mut Vec<&'e Expr>) {
        match expr {
            Expr::Name(_)
            | Expr::Select { .. }
            | Expr::Index { .. }
            | Expr::Slice { .. }
            | Expr::Assert { .. }
            | Expr::Unary { op: UnaryOp::Deref, .. } => into.push(expr),
            Expr::Unary { of, .. } | Expr::Call { argument: of, .. } => walk(of, into),
            Expr::Binary { left, right, .. } => {
                walk(left, into);
                walk(right, into);
            }
            Expr::Literal(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(expr, &mut found);
    found
}

/// What an expression is made of, one level down.
pub(super) fn operands(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Literal(_) | Expr::Name(_) => Vec::new(),
        Expr::Select { of, .. }
        | Expr::Assert { of, .. }
        | Expr::Unary { of, .. }
        | Expr::Call { argument: of, .. } => {
            vec![of.as_ref()]
        }
        Expr::Index { of, index } => vec![of.as_ref(), index.as_ref()],
        Expr::Slice { of, low, high } => {
            [Some(of), low.as_ref(), high.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect()
        }
        Expr::Binary { left, right, .. } => vec![left.as_ref(), right.as_ref()],
    }
}

/// Whether an operator makes a truth value of truth values.
pub(super) fn is_logical(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::And | BinaryOp::Or)
}

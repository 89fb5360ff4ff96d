//! Layouts: how to read the raw bytes of a hit. Made once per site by the agent, from the build's debug information.
//!
//! Layouts travel as JSON (in replies) and as postcard (in streams), so their enums are tagged from outside: postcard
//! does not describe itself.

mod go;
mod native;

pub use go::{ChanForm, DynamicType, FunctionCase, MapForm, MapTables, NamedType, SLOTS, Slots};
pub use native::{B_TREE_ENTRIES_MAX, BTreeForm, COUNTS_BYTES, NativeKind, ObjectTable, SequenceLength, Variant};

use crate::fleet::{Language, SiteFacts};
use crate::ids::{BuildId, LayoutId};
use crate::limits;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Index of a type in [`Layout::types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TypeIndex(pub u32);

/// How to read the hits of one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Which build it is for.
    pub build: BuildId,
    /// Its language.
    pub language: Language,
    /// Where the site is.
    pub site: SiteFacts,
    /// What a passage through it means.
    #[serde(default)]
    pub moment: Moment,
    /// Variables in scope: arguments, then locals in the order of their declaration, then asked-for captures.
    pub variables: Vec<Variable>,
    /// Types, each named by its index.
    pub types: Vec<Type>,
    /// Clamp that strings were captured with, in bytes; captures may have their own.
    pub string_bytes: u32,
    /// Clamp that slices and arrays were captured with, in elements; captures may have their own.
    pub elements: u32,
    /// How many pointers were followed; captures may have their own.
    pub depth: u32,
}

/// What a passage through a site means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A line is about to run.
    #[default]
    Line,
    /// A function was entered: its arguments are there.
    Entry,
    /// A function is about to return: its results are there.
    Return,
}

/// Where a variable belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Parameter or receiver.
    Argument,
    /// Local variable.
    Local,
    /// Result parameter.
    Result,
    /// Captured because the tracepoint asked for this expression.
    Capture,
    /// No variable of the program: what Go's runtime knows of the goroutine
    /// ([`crate::decode::Decoder::goroutine`]).
    Goroutine,
}

/// One variable of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Name in the source.
    pub name: String,
    /// Type.
    pub ty: TypeIndex,
    /// Where it belongs.
    pub scope: Scope,
    /// Where it was declared; 0 when unknown.
    pub declared_line: u32,
    /// Where its bytes are in [`crate::hit::RawHit::roots`].
    pub root: Root,
}

/// Where a variable's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// `bytes` bytes at `offset` of the roots: the whole variable.
    Whole {
        /// Offset in the roots.
        offset: u32,
        /// Size; equals the type's.
        bytes: u32,
    },
    /// Only some pieces of it exist at this place: it is never shown as a value.
    Partial {
        /// Which parts are there, for a person (`"len only"`).
        present: String,
    },
    /// The debug information contradicts itself or the rules of the language: it is never shown as a value.
    Suspect {
        /// Why.
        why: String,
    },
    /// The compiler keeps it nowhere at this place.
    OptimisedOut,
    /// Not captured, by a limit or because RipTrace cannot read it.
    NotCaptured {
        /// Why.
        why: String,
    },
    /// Its name is on the list of secrets.
    Redacted,
    /// `bytes` bytes at `offset` of the roots, of which some are not the variable's: it is shown as a value only where what
    /// is there tells all of it, as the type word of a nil interface does.
    Pieces {
        /// Offset in the roots.
        offset: u32,
        /// Size; equals the type's.
        bytes: u32,
        /// Beginnings and ends of what is not there, in bytes of the variable.
        missing: Vec<(u32, u32)>,
        /// Which parts are there, for a person (`"len only"`).
        present: String,
    },
}

/// What the type of a field is that is never read because of its name ([`TypeKind::Opaque`]).
pub const REDACTED: &str = "redacted";

/// What the type of a field is that is beyond the limit of fields ([`TypeKind::Opaque`]).
pub const FIELD_LIMIT: &str = "field beyond the limit of fields";

/// A type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type {
    /// Name as the language writes it.
    pub name: String,
    /// Size of a value, in bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: TypeKind,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeKind {
    /// Signed integer of the type's size (1, 2, 4, 8 or 16 bytes).
    Signed,
    /// Unsigned integer of the type's size.
    Unsigned,
    /// IEEE 754 of the type's size (4 or 8 bytes).
    Float,
    /// Two floats of half the type's size each.
    Complex,
    /// 0 is false, 1 is true; anything else is suspect.
    Bool,
    /// An address. Followed when a chunk for it was captured.
    Pointer {
        /// What it points to; `None` for an untyped address.
        to: Option<TypeIndex>,
    },
    /// Go string: address, then length in bytes.
    GoString,
    /// Go slice: address, then length, then capacity.
    GoSlice {
        /// Element.
        element: TypeIndex,
    },
    /// `count` elements back to back.
    Array {
        /// Element.
        element: TypeIndex,
        /// How many.
        count: u64,
    },
    /// Fields at offsets.
    Struct {
        /// In the order of their offsets.
        fields: Vec<Field>,
    },
    /// Something RipTrace cannot read yet: shown as not captured, with this word for what it is (`"map"`).
    Opaque {
        /// What it is.
        what: String,
    },
    /// Another name for a type.
    Alias {
        /// The type.
        to: TypeIndex,
    },
    /// Integer with named values.
    Enum {
        /// Whether the integer is signed.
        signed: bool,
        /// Names and values.
        names: Vec<(String, i64)>,
    },
    /// Go interface: what it holds is told by its first word.
    GoInterface {
        /// The first word is the address of the type's description; else that of an `abi.ITab`, whose second word is.
        empty: bool,
        /// Types that it may hold, by their addresses.
        cases: Vec<DynamicType>,
        /// Further types that it may hold, by their addresses.
        others: Vec<NamedType>,
    },
    /// Go map: the address of its header.
    GoMap {
        /// Key.
        key: TypeIndex,
        /// Element.
        element: TypeIndex,
        /// Where things are in it.
        form: MapForm,
    },
    /// Go channel: the address of its header.
    GoChan {
        /// Element.
        element: TypeIndex,
        /// Where things are in it.
        form: ChanForm,
    },
    /// Go function value: the address of the address of its code, behind which are the variables that it captured.
    GoFunc {
        /// Functions that it may call, by the addresses of their code.
        functions: Vec<FunctionCase>,
    },
    /// A type of Rust, C or C++ that is more than its members.
    Native(NativeKind),
    /// The address behind a call, as a stack has it: shown as the call's function and line.
    ReturnAddress,
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: TypeIndex,
    /// Offset in the struct, in bytes.
    pub offset: u64,
    /// Whether its fields are promoted (Go embedding).
    pub embedded: bool,
}

/// A layout that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLayout {
    /// Too many types.
    #[error("layout has {0} types, at most {max} are allowed", max = limits::LAYOUT_TYPES_MAX)]
    Types(usize),
    /// Too many variables.
    #[error("layout has {0} variables, at most {max} are allowed", max = limits::LAYOUT_VARIABLES_MAX)]
    Variables(usize),
    /// A type index that names nothing.
    #[error("layout names type {0}, which it does not have")]
    Index(u32),
}

impl Layout {
    /// Its id: a hash of its content.
    pub fn id(&self) -> LayoutId {
        // Postcard of plain data with no maps cannot fail and is the same on every host.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        let digest = Sha256::digest(&bytes);
        let mut id = [0u8; 16];
        id.copy_from_slice(&digest[..16]);
        LayoutId(id)
    }

    /// Checks sizes and indices; every layout from outside goes through here before it is used.
    pub fn check(&self) -> Result<(), BadLayout> {
        if self.types.len() > limits::LAYOUT_TYPES_MAX {
            return Err(BadLayout::Types(self.types.len()));
        }
        if self.variables.len() > limits::LAYOUT_VARIABLES_MAX {
            return Err(BadLayout::Variables(self.variables.len()));
        }
        let known = |index: &TypeIndex| {
            if (index.0 as usize) < self.types.len() { Ok(()) } else { Err(BadLayout::Index(index.0)) }
        };
        self.variables.iter().try_for_each(|variable| known(&variable.ty))?;
        self.types.iter().try_for_each(|ty| match &ty.kind {
            TypeKind::Pointer { to: Some(to) } | TypeKind::Alias { to } => known(to),
            TypeKind::GoSlice { element } | TypeKind::Array { element, .. } => known(element),
            TypeKind::Struct { fields } => fields.iter().try_for_each(|field| known(&field.ty)),
            TypeKind::GoInterface { cases, .. } => cases.iter().try_for_each(|case| known(&case.ty)),
            TypeKind::GoMap { key, element, .. } => known(key).and_then(|()| known(element)),
            TypeKind::GoChan { element, .. } => known(element),
            TypeKind::Native(kind) => kind.types().iter().try_for_each(known),
            TypeKind::GoFunc { functions } => {
                functions.iter().flat_map(|function| &function.captured).try_for_each(|captured| known(&captured.ty))
            }
            _ => Ok(()),
        })
    }

    /// The type of an index that [`Layout::check`] has seen.
    pub fn ty(&self, index: TypeIndex) -> Option<&Type> {
        self.types.get(index.0 as usize)
    }
}

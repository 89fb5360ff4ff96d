//! What a hit tells of the goroutine that passed besides its id: who made it and where, and its labels.
//!
//! It is read from the runtime's `g` by the register that Go's compiler keeps its address in. Code that was not compiled
//! from Go may use that register otherwise: whoever reads the hit compares the id in the `g` with the one that was read by
//! way of the thread ([`riptrace_protocol::decode::Decoder::goroutine`]).

use super::table::TypeTable;
use super::{Source, Wanted};
use crate::symbols::goroutine::{GoroutinePlace, OriginPlace};
use crate::symbols::place::{Part, Place, Spot};
use crate::symbols::{Build, Die, Site, View};
use riptrace_protocol::layout::{Field, Scope, Type, TypeIndex, TypeKind};
use riptrace_protocol::tracepoint::CaptureLimits;

/// `R14` holds the current `g` in Go code: <https://go.dev/s/regabi>, amd64.
const GO_G: u16 = 14;
const WORD_BYTES: u64 = 8;

/// What is captured of a goroutine, and how.
pub(super) struct Origin {
    pub(super) wanted: Wanted,
    pub(super) labels: Labels,
}

/// How the labels are captured.
#[derive(Clone, Copy)]
pub(super) enum Labels {
    /// Whether there are any: to read them takes as long as all the rest of a hit, which is to be cheap where their number
    /// has no limit.
    AreThere,
    /// All, as values of this type; `None` if the build does not describe it.
    Read(Option<Die>),
}

/// What is captured; `None` where the build does not tell, or the code is not the Go compiler's.
pub(super) fn of_site(
    build: &Build,
    view: &View<'_>,
    site: &Site,
    place: Option<GoroutinePlace>,
    limits: &CaptureLimits,
) -> Option<Origin> {
    let place = place.filter(|_| site.is_go() && !site.file.ends_with(".s"))?;
    let OriginPlace { parent_goid, go_pc, labels } = place.origin?;
    let word = |offset: u32| Part {
        bytes: WORD_BYTES,
        place: Place::Memory(Spot { base: Some(GO_G), offset: offset.into(), derefs: Vec::new() }),
    };
    let wanted = Wanted {
        name: "goroutine".to_owned(),
        declared_line: 0,
        scope: Scope::Goroutine,
        ty: None,
        source: Source::Parts([place.goid_offset, parent_goid, go_pc, labels].map(word).to_vec()),
        limits: None,
    };
    let labels = match limits.rate_per_s {
        Some(_) => Labels::Read(build.go_types(view).and_then(|types| types.labels)),
        None => Labels::AreThere,
    };
    Some(Origin { wanted, labels })
}

impl TypeTable<'_, '_> {
    /// The type of what is captured of a `g`.
    pub(super) fn goroutine(&mut self, labels: Labels) -> TypeIndex {
        let labels = match labels {
            Labels::Read(labels) => TypeKind::Pointer { to: labels.map(|labels| self.root(labels)) },
            Labels::AreThere => TypeKind::Unsigned,
        };
        let mut add = |name: &str, bytes, kind| self.add(Type { name: name.to_owned(), bytes, kind });
        let id = add("uint64", WORD_BYTES, TypeKind::Unsigned);
        let code = add("uintptr", WORD_BYTES, TypeKind::ReturnAddress);
        let labels = add("*runtime/pprof.labelMap", WORD_BYTES, labels);
        let fields = [("goid", id), ("parentGoid", id), ("gopc", code), ("labels", labels)];
        let field = |((name, ty), number): ((&str, TypeIndex), u64)| Field {
            name: name.to_owned(),
            ty,
            offset: number * WORD_BYTES,
            embedded: false,
        };
        let fields: Vec<Field> = fields.into_iter().zip(0..).map(field).collect();
        let bytes = fields.len() as u64 * WORD_BYTES;
        add("runtime.g", bytes, TypeKind::Struct { fields })
    }
}

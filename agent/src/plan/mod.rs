//! Plans: a tracepoint at one site of one build, compiled to a capture program and its layout.
//!
//! This is where a policy becomes a program: what is named like a secret is left out here, so that it is never read;
//! what the debug information describes badly is left out with its reason; sizes are clamped to the tracepoint's
//! limits. The program and the layout list the same variables in the same order.

mod activation;
mod condition;
mod goroutine;
pub mod listing;
mod path;
mod roots;
mod secrets;
mod stripped;
pub mod symbol;
mod table;

pub use activation::ActivationPlace;
pub use path::Problem;

use crate::capture::program::{Follow, FollowIndex, Goroutine, GoroutinePointer, Piece, Program, RootRead, StackSlice};
use crate::capture::walk::Walks;
use crate::symbols::doubt;
use crate::symbols::place::{Moment, Part};
use crate::symbols::scope::{self, Presence};
use crate::symbols::{self, Build, Die, ResolveError, Site, View, types};
use goroutine::Labels;
use path::{Found, Names};
use riptrace_protocol::expression::{Capture, Expr, OwnLimits, ParseError, Template, parse};
use riptrace_protocol::fleet::SiteFacts;
use riptrace_protocol::ids::BuildId;
use riptrace_protocol::layout::{Layout, Moment as Meaning, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::limits::{HIT_BYTES_MAX, LAYOUT_VARIABLES_MAX};
use riptrace_protocol::location::{FunctionPoint, Location};
use riptrace_protocol::tracepoint::{Mode, Tracepoint};
use table::{Dynamic, Room, TypeTable, ValueLimits};

/// Frames of call stack that a hit carries: each costs a read while the thread stands still; deeper stacks say that
/// they go on.
const STACK_FRAMES: u16 = 32;
/// Bytes that the tables of one capture may take before fewer of the types are told that interfaces may hold: all captures
/// at one site share 32 KiB with their code.
const TABLE_BYTES_MAX: usize = 12 * 1024;
/// Bytes of stack that a hit of native code copies: some thirty frames of a hundred bytes, twice.
const STACK_BYTES: u32 = 8 * 1024;
/// The same where hits have no budget: they are to be cheap.
const STACK_BYTES_UNLIMITED: u32 = 2 * 1024;

/// A tracepoint at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What a passage does.
    pub program: Program,
    /// How to read its hits.
    pub layout: Layout,
    /// Where the hits tell which call of the function they belong to; `None` where they do not.
    pub activation: Option<ActivationPlace>,
}

/// A tracepoint that cannot be compiled for a site.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The condition is no expression.
    #[error("condition: {0}")]
    ConditionSyntax(ParseError),
    /// The condition cannot be computed at the site.
    #[error("condition: {problem} (at {file}:{line} in build {build})")]
    Condition {
        /// Why.
        problem: Box<Problem>,
        /// File of the site.
        file: String,
        /// Line of the site.
        line: u32,
        /// Build.
        build: BuildId,
    },
    /// A capture is no expression.
    #[error("capture {text:?}: {error}")]
    CaptureSyntax {
        /// The capture.
        text: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// A capture names what does not exist at the site.
    #[error("capture {text:?}: {problem} (at {file}:{line} in build {build})")]
    Capture {
        /// The capture.
        text: String,
        /// Why.
        problem: Box<Problem>,
        /// File of the site.
        file: String,
        /// Line of the site.
        line: u32,
        /// Build.
        build: BuildId,
    },
    /// The debug information is damaged.
    #[error(transparent)]
    Symbols(#[from] ResolveError),
}

/// Compiles a tracepoint for one site in a process whose executable was moved by `bias` ([`Build::bias`]).
pub fn compile(build: &Build, site: &Site, tracepoint: &Tracepoint, bias: u64) -> Result<Plan, PlanError> {
    compile_one_of(build, site, tracepoint, bias, 1)
}

/// The same for one of several sites of a probe: their layouts share the room of one message.
pub fn compile_one_of(
    build: &Build,
    site: &Site,
    tracepoint: &Tracepoint,
    bias: u64,
    sites: usize,
) -> Result<Plan, PlanError> {
    if build.is_stripped() {
        return stripped::compile(build, site, tracepoint);
    }
    let view = build.view()?;
    let mut locals = scope::at_site(&view, site)?;
    // What is said of a function is of its returns: at its entry the arguments are what they are.
    let source = if site.moment == Meaning::Entry { &[] } else { tracepoint.source.as_slice() };
    doubt::judge(build, &view, site, source, &mut locals)?;
    if site.moment == Meaning::Return {
        // Where the calling convention puts them; what the debug information says of them holds before.
        locals.retain(|local| local.scope != Scope::Result);
        let arguments = locals.iter().take_while(|local| local.scope == Scope::Argument).count();
        locals.splice(arguments..arguments, symbols::at_return(&view, site)?);
    }
    symbols::generics::concrete(build, &view, site, &mut locals)?;
    // A Go executable may have C in it.
    let is_go = site.is_go();
    let names = Names { build, view: &view, locals: &locals, site, is_go };
    let condition = compile_condition(build, site, tracepoint, &names, bias)?;
    let limits = &tracepoint.limits;
    let bytes_per_hit = limits.bytes_per_hit.min(HIT_BYTES_MAX as u32);
    let counts_only = tracepoint.mode == Mode::Count;
    let wanted = if counts_only { Vec::new() } else { wanted(build, site, tracepoint, &names)? };
    let goroutine = build.goroutine(&view).filter(|_| !counts_only);
    let origin = goroutine::of_site(build, &view, site, goroutine, limits);
    let dynamic = is_go.then(|| Dynamic::new(build, bias, site));
    let labels = origin.as_ref().map(|origin| origin.labels);
    let Described { typed, types, follow, goroutine: goroutine_type } = describe(
        (build, bias),
        &view,
        &wanted,
        ValueLimits::of(limits),
        dynamic.as_ref(),
        Room::of_one(sites),
        labels,
    )?;
    let depth_of = |wanted: &Wanted| wanted.limits.map_or(limits.depth, |own| own.depth);
    let plain = follow.iter().position(|follow| *follow == Follow::Plain).map(|index| FollowIndex(index as u32));
    let mut roots = Roots { bytes: 0, budget: bytes_per_hit, plain, variables: Vec::new(), reads: Vec::new() };
    for (wanted, ty) in typed {
        roots.add(wanted.clone(), ty, depth_of(wanted), &types, bias);
    }
    // Behind the variables: it is not to take the room of one.
    if let (Some(origin), Some(ty)) = (origin, goroutine_type)
        && roots.variables.len() < LAYOUT_VARIABLES_MAX
    {
        roots.add(origin.wanted, ty, limits.depth, &types, bias);
    }
    let frame = Moment::new(&view, site.body(), site.address.0)?.frame();
    let activation = match (&tracepoint.location, &frame) {
        (Location::Function { at: FunctionPoint::Call, .. }, Some(frame)) => {
            activation::read(tracepoint, site, frame, &mut roots)
        }
        _ => None,
    };
    let return_address = frame.map(|frame| roots::address(&frame.plus(-8), bias));
    let program = Program {
        condition,
        hit_condition: tracepoint.hit_condition,
        count_only: counts_only,
        roots: roots.reads,
        root_bytes: roots.bytes,
        follow,
        goroutine: goroutine.map(|place| Goroutine {
            g: GoroutinePointer::ThreadLocal { offset: place.g_offset },
            goid_offset: place.goid_offset,
        }),
        stack_frames_max: if counts_only { 0 } else { STACK_FRAMES },
        return_address,
        // Other compilers keep no frame pointers, or some: only the unwind tables lead to all callers.
        stack_slice: (!is_go && !counts_only).then_some(StackSlice {
            bytes: limits.rate_per_s.map_or(STACK_BYTES_UNLIMITED, |_| STACK_BYTES),
            first_thread_end: None,
        }),
        bytes_per_hit,
    };
    let layout = Layout {
        build: build.facts().id.clone(),
        language: build.facts().language,
        site: SiteFacts { function: site.function.clone(), file: site.file.clone(), line: site.line },
        moment: site.moment,
        variables: roots.variables,
        types,
        string_bytes: limits.string_bytes,
        elements: limits.elements,
        depth: limits.depth,
    };
    Ok(Plan { program, layout, activation })
}

/// What is wanted, with its types.
struct Described<'w> {
    typed: Vec<(&'w Wanted, TypeIndex)>,
    /// All types of the layout.
    types: Vec<Type>,
    /// What to follow in them.
    follow: Vec<Follow>,
    /// The type of what is known of the goroutine.
    goroutine: Option<TypeIndex>,
}

/// Describes what is wanted: as much of what interfaces may hold (`dynamic`) as the tables of one capture have room for;
/// and what is known of the goroutine, if its `labels` are captured somehow.
fn describe<'w>(
    (build, bias): (&Build, u64),
    view: &View<'_>,
    wanted: &'w [Wanted],
    limits: ValueLimits,
    dynamic: Option<&Dynamic<'_>>,
    mut room: Room,
    labels: Option<Labels>,
) -> Result<Described<'w>, ResolveError> {
    loop {
        let mut table = TypeTable::new(view, limits);
        let typed: Vec<(&Wanted, TypeIndex)> = wanted
            .iter()
            .map(|wanted| {
                let ty = match wanted.ty {
                    // What is not captured needs a name for its type, not the type.
                    Some(ty) if matches!(wanted.source, Source::Parts(_) | Source::Pieces { .. }) => {
                        table.root_within(ty, wanted.limits.unwrap_or(limits))
                    }
                    Some(ty) => {
                        let name = types::read(view, ty)?.name;
                        table.opaque(&name, "value that was not captured")
                    }
                    None => table.opaque("", "value of an unknown type"),
                };
                Ok((wanted, ty))
            })
            .collect::<Result<_, ResolveError>>()?;
        let goroutine = labels.map(|labels| table.goroutine(labels));
        let (types, follow) = table.finish(build, bias, dynamic, room)?;
        let tables = Walks::of_types(&follow).table_bytes();
        if tables <= TABLE_BYTES_MAX || room.is_none() {
            return Ok(Described { typed, types, follow, goroutine });
        }
        tracing::debug!(tables, "the types that interfaces may hold are cut");
        room = room.less();
    }
}

fn compile_condition(
    build: &Build,
    site: &Site,
    tracepoint: &Tracepoint,
    names: &Names<'_, '_>,
    bias: u64,
) -> Result<Option<crate::capture::program::Test>, PlanError> {
    let Some(text) = tracepoint.condition.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let expr = parse(text).map_err(PlanError::ConditionSyntax)?;
    let test = condition::compile(names, bias, &expr).map_err(|problem| PlanError::Condition {
        problem: Box::new(problem),
        file: site.file.clone(),
        line: site.line,
        build: build.facts().id.clone(),
    })?;
    Ok(Some(test))
}

/// A variable of the layout that is being made.
#[derive(Clone)]
struct Wanted {
    name: String,
    declared_line: u32,
    scope: Scope,
    ty: Option<Die>,
    source: Source,
    /// Limits of its own; the tracepoint's where there are none.
    limits: Option<ValueLimits>,
}

#[derive(Clone)]
enum Source {
    Parts(Vec<Part>),
    /// All bytes, of which some are not the variable's.
    Pieces {
        parts: Vec<Part>,
        missing: Vec<(u64, u64)>,
        present: String,
    },
    /// There is nothing to read.
    Missing(Root),
}

impl From<Presence> for Source {
    fn from(presence: Presence) -> Source {
        Source::Missing(match presence {
            Presence::Here(parts) => return Source::Parts(parts),
            Presence::Partial { present, parts, missing } if !parts.is_empty() => {
                return Source::Pieces { parts, missing, present };
            }
            Presence::Partial { present, .. } => Root::Partial { present },
            Presence::Suspect(why) => Root::Suspect { why },
            Presence::OptimisedOut => Root::OptimisedOut,
            Presence::Unknown(why) => Root::NotCaptured { why },
        })
    }
}

/// The variables in scope, then what the tracepoint asks for besides.
fn wanted(
    build: &Build,
    site: &Site,
    tracepoint: &Tracepoint,
    names: &Names<'_, '_>,
) -> Result<Vec<Wanted>, PlanError> {
    let mut found: Vec<Wanted> = names
        .locals
        .iter()
        .map(|local| Wanted {
            name: local.name.clone(),
            declared_line: local.declared_line,
            scope: local.scope,
            ty: local.ty,
            source: if secrets::is_secret(&local.name) {
                Source::Missing(Root::Redacted)
            } else {
                local.presence.clone().into()
            },
            limits: None,
        })
        .collect();
    for text in &tracepoint.captures {
        let error = |error| PlanError::CaptureSyntax { text: text.clone(), error };
        let Capture { expr, limits } = Capture::parse(text).map_err(error)?;
        let limits = (limits != OwnLimits::default()).then(|| ValueLimits::of(&limits.over(&tracepoint.limits)));
        add_captures(&mut found, names, &expr, 0, limits).map_err(|problem| PlanError::Capture {
            text: text.clone(),
            problem: Box::new(problem),
            file: site.file.clone(),
            line: site.line,
            build: build.facts().id.clone(),
        })?;
    }
    // A message may go deeper than the capture does; what it cannot name is said where it is shown.
    if let Some(message) = tracepoint.log_message.as_deref().and_then(|text| Template::parse(text).ok()) {
        for expr in message.expressions() {
            if let Err(problem) = add_captures(&mut found, names, expr, tracepoint.limits.depth as usize, None) {
                tracing::debug!(%expr, %problem, "not captured for the message");
            }
        }
    }
    if found.len() > LAYOUT_VARIABLES_MAX {
        let rest = found.len() - (LAYOUT_VARIABLES_MAX - 1);
        found.truncate(LAYOUT_VARIABLES_MAX - 1);
        found.push(Wanted {
            name: "…".to_owned(),
            declared_line: 0,
            scope: Scope::Local,
            ty: None,
            source: Source::Missing(Root::NotCaptured { why: format!("{rest} more variables are in scope") }),
            limits: None,
        });
    }
    Ok(found)
}

/// Adds the places of an expression that are behind more than `pointers_min` pointers, or all when that is 0. They are
/// captured within `limits`, where there are some of their own.
fn add_captures(
    found: &mut Vec<Wanted>,
    names: &Names<'_, '_>,
    expr: &Expr,
    pointers_min: usize,
    limits: Option<ValueLimits>,
) -> Result<(), Problem> {
    for place in path::places(expr) {
        let name = place.to_string();
        // Variables of the function are captured anyway.
        if matches!(place, Expr::Name(name) if names.is_local(name)) {
            let own = found.iter_mut().filter(|wanted| wanted.scope != Scope::Capture && wanted.name == name);
            own.for_each(|wanted| wanted.limits = limits.or(wanted.limits));
            continue;
        }
        if found.iter().any(|wanted| wanted.scope == Scope::Capture && wanted.name == name) {
            continue;
        }
        let (ty, source) = match names.place(place) {
            Ok(Found { pointers, .. }) if pointers_min > 0 && pointers <= pointers_min => continue,
            // An element may be beyond the length: it is read through its slice, which says so.
            Ok(Found { guards, .. }) if !guards.is_empty() => {
                add_parts(found, names, place, pointers_min, limits)?;
                continue;
            }
            Ok(Found { ty: Some(ty), parts, .. }) => (Some(ty), Source::Parts(parts)),
            Ok(Found { ty: None, .. }) => continue,
            Err(Problem::Secret(_)) => (None, Source::Missing(Root::Redacted)),
            Err(problem @ (Problem::NotHere { .. } | Problem::NoPlace(_))) => {
                (None, Source::Missing(Root::NotCaptured { why: problem.to_string() }))
            }
            // It is computed of what was captured, where somebody looks.
            Err(Problem::ComputedIndex(_) | Problem::Unsupported(_)) => {
                add_parts(found, names, place, pointers_min, limits)?;
                continue;
            }
            Err(problem) => return Err(problem),
        };
        found.push(Wanted { name, declared_line: 0, scope: Scope::Capture, ty, source, limits });
    }
    Ok(())
}

/// Adds what an expression is computed of that has no place of its own.
fn add_parts(
    found: &mut Vec<Wanted>,
    names: &Names<'_, '_>,
    expr: &Expr,
    pointers_min: usize,
    limits: Option<ValueLimits>,
) -> Result<(), Problem> {
    let mut operands = path::operands(expr).into_iter();
    operands.try_for_each(|operand| add_captures(found, names, operand, pointers_min, limits))
}

/// Roots that are being laid out.
struct Roots {
    bytes: u32,
    budget: u32,
    /// A type in which nothing is followed.
    plain: Option<FollowIndex>,
    variables: Vec<Variable>,
    reads: Vec<RootRead>,
}

impl Roots {
    fn add(&mut self, wanted: Wanted, ty: TypeIndex, depth: u32, types: &[riptrace_protocol::layout::Type], bias: u64) {
        let (root, read) = match wanted.source {
            Source::Missing(root) => (root, RootRead::Absent),
            Source::Parts(parts) => match self.place(&parts, ty, types, bias) {
                Ok((offset, bytes, pieces)) => {
                    (Root::Whole { offset, bytes }, RootRead::Read { offset, pieces, follow: FollowIndex(ty.0), depth })
                }
                Err(root) => (root, RootRead::Absent),
            },
            Source::Pieces { parts, missing, present } => {
                self.pieces(parts, &missing, present, (ty, depth), types, bias)
            }
        };
        self.reads.push(read);
        self.variables.push(Variable {
            name: wanted.name,
            ty,
            scope: wanted.scope,
            declared_line: wanted.declared_line,
            root,
        });
    }

    /// A variable of which some bytes are missing. Only what is there in full is followed: the elements of a slice whose
    /// capacity nobody knows.
    fn pieces(
        &mut self,
        mut parts: Vec<Part>,
        missing: &[(u64, u64)],
        present: String,
        (ty, depth): (TypeIndex, u32),
        types: &[riptrace_protocol::layout::Type],
        bias: u64,
    ) -> (Root, RootRead) {
        let nothing = |present: String| (Root::Partial { present }, RootRead::Absent);
        let kind = types.get(ty.0 as usize).map(|ty| &ty.kind);
        let is_only_capacity = matches!(missing, [(16, 24)]) && matches!(kind, Some(TypeKind::GoSlice { .. }));
        let follow = match kind {
            Some(TypeKind::GoSlice { .. }) if is_only_capacity => {
                // A slice is followed where its capacity is no smaller than its length: the length stands for it.
                let Some(length) = roots::range(&parts, 8, 8) else { return nothing(present) };
                parts.truncate(parts.len() - 1);
                parts.extend(length);
                Some(FollowIndex(ty.0))
            }
            Some(TypeKind::GoSlice { .. } | TypeKind::GoString | TypeKind::GoInterface { .. }) => self.plain,
            Some(TypeKind::Struct { fields }) => {
                let is_plain = |field: &riptrace_protocol::layout::Field| {
                    let kind = types.get(field.ty.0 as usize).map(|ty| &ty.kind);
                    use TypeKind::{Bool, Enum, Float, Signed, Unsigned};
                    matches!(kind, Some(Signed | Unsigned | Float | Bool | Enum { .. }))
                };
                self.plain.filter(|_| fields.iter().all(is_plain))
            }
            _ => None,
        };
        let narrow = |&(from, to): &(u64, u64)| Some((u32::try_from(from).ok()?, u32::try_from(to).ok()?));
        let missing: Option<Vec<(u32, u32)>> = missing.iter().map(narrow).collect();
        let (Some(follow), Some(missing)) = (follow, missing) else { return nothing(present) };
        match self.place(&parts, ty, types, bias) {
            Ok((offset, bytes, pieces)) => {
                (Root::Pieces { offset, bytes, missing, present }, RootRead::Read { offset, pieces, follow, depth })
            }
            Err(Root::Redacted) => (Root::Redacted, RootRead::Absent),
            Err(_) => nothing(present),
        }
    }

    /// Offset, size and pieces of a variable, or why there is nothing to read.
    fn place(
        &mut self,
        parts: &[Part],
        ty: TypeIndex,
        types: &[riptrace_protocol::layout::Type],
        bias: u64,
    ) -> Result<(u32, u32, Vec<Piece>), Root> {
        let not_captured = |why: String| Root::NotCaptured { why };
        let described: u64 = parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes));
        if types.get(ty.0 as usize).is_none_or(|ty| ty.bytes != described) {
            return Err(not_captured("it has more types than a layout can hold".to_owned()));
        }
        let left = u64::from(self.budget - self.bytes);
        if described > left {
            let budget = self.budget;
            return Err(not_captured(format!("{described} bytes, and {left} are left of the {budget} bytes per hit")));
        }
        let secrets = table::secret_ranges(types, ty).ok_or(Root::Redacted)?;
        let parts = roots::without(parts, &secrets).ok_or(Root::Redacted)?;
        let pieces = roots::pieces(&parts, bias).ok_or_else(|| not_captured("its pieces are too large".to_owned()))?;
        let offset = self.bytes;
        // It fits the budget, which fits 32 bits.
        self.bytes += described as u32;
        Ok((offset, described as u32, pieces))
    }
}

//! A tracepoint in a build without debug information: the stack, and at a function's entry the words of its arguments.

use super::{PlanError, STACK_FRAMES};
use crate::capture::program::{Follow, FollowIndex, Piece, Place, Program, Register, RootRead};
use crate::plan::Plan;
use crate::symbols::{Build, ResolveError, Site};
use riptrace_protocol::fleet::SiteFacts;
use riptrace_protocol::layout::{Layout, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::limits::HIT_BYTES_MAX;
use riptrace_protocol::tracepoint::{Mode, Tracepoint};

/// What such a word is called: nothing more is known of it.
const WORD_TYPE: &str = "argument word";
const WORD_BYTES: u32 = 8;

/// Compiles it. Conditions and captures need variables.
pub(super) fn compile(build: &Build, site: &Site, tracepoint: &Tracepoint) -> Result<Plan, PlanError> {
    let has_condition = tracepoint.condition.as_deref().is_some_and(|text| !text.trim().is_empty());
    if has_condition || !tracepoint.captures.is_empty() {
        return Err(PlanError::Symbols(ResolveError::NoDwarf));
    }
    let limits = &tracepoint.limits;
    let bytes_per_hit = limits.bytes_per_hit.min(HIT_BYTES_MAX as u32);
    let counts_only = tracepoint.mode == Mode::Count;
    let mut roots = Vec::new();
    let mut variables = Vec::new();
    let registers = if counts_only { &[] } else { build.argument_registers(site) };
    let fitting = (bytes_per_hit / WORD_BYTES) as usize;
    let registers = &registers[..registers.len().min(fitting)];
    for (number, &(name, register)) in (0..).zip(registers) {
        let offset = number * WORD_BYTES;
        let piece = Piece { bytes: WORD_BYTES, place: Place::Register(Register(register)) };
        roots.push(RootRead::Read { offset, pieces: vec![piece], follow: FollowIndex(0), depth: 0 });
        variables.push(Variable {
            name: name.to_owned(),
            ty: TypeIndex(0),
            scope: Scope::Argument,
            declared_line: 0,
            root: Root::Whole { offset, bytes: WORD_BYTES },
        });
    }
    let word = Type { name: WORD_TYPE.to_owned(), bytes: u64::from(WORD_BYTES), kind: TypeKind::Unsigned };
    Ok(Plan {
        program: Program {
            condition: None,
            hit_condition: tracepoint.hit_condition,
            count_only: counts_only,
            root_bytes: registers.len() as u32 * WORD_BYTES,
            roots,
            follow: vec![Follow::Plain],
            goroutine: None,
            // Go keeps frame pointers.
            stack_frames_max: if counts_only { 0 } else { STACK_FRAMES },
            return_address: None,
            stack_slice: None,
            bytes_per_hit,
        },
        layout: Layout {
            build: build.facts().id.clone(),
            language: build.facts().language,
            site: SiteFacts { function: site.function.clone(), file: site.file.clone(), line: site.line },
            moment: site.moment,
            variables,
            types: vec![word],
            string_bytes: limits.string_bytes,
            elements: limits.elements,
            depth: limits.depth,
        },
        activation: None,
    })
}

//! A tracepoint at a function of which nothing but its symbol is known: one of a shared library as a rule. It tells the
//! stack; of a throw of C++ also the type of what is thrown, which the calling convention and the ABI of exceptions place.

use super::{Plan, PlanError, STACK_BYTES, STACK_BYTES_UNLIMITED, STACK_FRAMES};
use crate::capture::program::{Address, Follow, FollowIndex, Piece, Place, Program, Register, RootRead, StackSlice};
use crate::symbols::{Build, ResolveError};
use riptrace_protocol::fleet::SiteFacts;
use riptrace_protocol::layout::{Layout, Moment, NativeKind, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::limits::HIT_BYTES_MAX;
use riptrace_protocol::tracepoint::{Mode, Tracepoint};

/// `void __cxa_throw(void *thrown, std::type_info *type, void (*destructor)(void *))`
/// (Itanium C++ ABI, exception handling, 2.4.3).
const CXX_THROW: &str = "__cxa_throw";
/// The second argument, by its number in DWARF (System V ABI, AMD64, 3.2.3 and 3.6.2): rsi.
const SECOND_ARGUMENT: Register = Register(4);
/// The stack pointer.
const RSP: Register = Register(7);
/// Where a `std::type_info` has the address of its name (Itanium C++ ABI, 2.9.4): behind its virtual table.
const TYPE_INFO_NAME: i64 = 8;
/// Bytes of a type's name, at most.
const TYPE_NAME_BYTES: u64 = 256;
const WORD_BYTES: u32 = 8;

/// Compiles it for the function's first instruction. `file` is what holds the function.
///
/// # Errors
/// [`ResolveError::OnlyName`], when the tracepoint needs variables.
pub fn compile(build: &Build, function: &str, file: &str, tracepoint: &Tracepoint) -> Result<Plan, PlanError> {
    let has_condition = tracepoint.condition.as_deref().is_some_and(|text| !text.trim().is_empty());
    if has_condition || !tracepoint.captures.is_empty() {
        return Err(PlanError::Symbols(ResolveError::OnlyName { function: function.to_owned() }));
    }
    let limits = &tracepoint.limits;
    let bytes_per_hit = limits.bytes_per_hit.min(HIT_BYTES_MAX as u32);
    let counts_only = tracepoint.mode == Mode::Count;
    let tells_type = function == CXX_THROW && !counts_only && bytes_per_hit >= WORD_BYTES;
    let name = Address { base: Some(SECOND_ARGUMENT), offset: TYPE_INFO_NAME, derefs: Vec::new() };
    let read = RootRead::Read {
        offset: 0,
        pieces: vec![Piece { bytes: WORD_BYTES, place: Place::Memory(name) }],
        follow: FollowIndex(0),
        depth: 0,
    };
    let variable = Variable {
        name: "type".to_owned(),
        ty: TypeIndex(0),
        scope: Scope::Argument,
        declared_line: 0,
        root: Root::Whole { offset: 0, bytes: WORD_BYTES },
    };
    let text = Type {
        name: "const char *".to_owned(),
        bytes: u64::from(WORD_BYTES),
        kind: TypeKind::Native(NativeKind::CharPointer),
    };
    Ok(Plan {
        program: Program {
            condition: None,
            hit_condition: tracepoint.hit_condition,
            count_only: counts_only,
            root_bytes: if tells_type { WORD_BYTES } else { 0 },
            roots: tells_type.then_some(read).into_iter().collect(),
            follow: vec![
                Follow::Owned { bytes: TYPE_NAME_BYTES.min(u64::from(limits.string_bytes)), to: FollowIndex(1) },
                Follow::Plain,
            ],
            goroutine: None,
            stack_frames_max: if counts_only { 0 } else { STACK_FRAMES },
            // Nothing was pushed yet.
            return_address: Some(Address { base: Some(RSP), offset: 0, derefs: Vec::new() }),
            stack_slice: (!counts_only).then_some(StackSlice {
                bytes: limits.rate_per_s.map_or(STACK_BYTES_UNLIMITED, |_| STACK_BYTES),
                first_thread_end: None,
            }),
            bytes_per_hit,
        },
        layout: Layout {
            build: build.facts().id.clone(),
            language: build.facts().language,
            site: SiteFacts { function: function.to_owned(), file: file.to_owned(), line: 0 },
            moment: Moment::Entry,
            variables: tells_type.then_some(variable).into_iter().collect(),
            types: vec![text],
            string_bytes: limits.string_bytes,
            elements: limits.elements,
            depth: limits.depth,
        },
        activation: None,
    })
}

//! The results of a function at its return instruction, where the calling convention puts them: the debug information of
//! optimised code does not say.
//!
//! - Go: `ABIInternal`, <https://go.dev/s/regabi> (`cmd/compile/abi-internal.md`), amd64. Results that fit the registers
//!   left are there, word by word; one that does not fit is on the stack, above the return address, behind the
//!   arguments that are on the stack. The debug information lists all parameters and results in their order, unnamed
//!   ones as `~p0`, `~r0`; a list with a gap, or a place on the stack that contradicts the computed one, makes the
//!   result suspect.
//! - C: System V ABI, AMD64 supplement, section 3.2.3, for numbers, pointers and structs without bit fields.
//! - C++ numbers and pointers as C; its objects depend on what the debug information does not tell. Rust's convention is
//!   not specified: not read.

use super::debug_info::{Die, View};
use super::place::{Located, Moment, Part, Place, Spot};
use super::scope::{Local, Presence};
use super::types::{self, Shape, TypeFacts};
use super::{ResolveError, Site};
use riptrace_protocol::layout::Scope;

/// Integer registers of results, by DWARF number: RAX RBX RCX RDI RSI R8 R9 R10 R11.
const GO_INTEGERS: [u16; 9] = [0, 3, 2, 5, 4, 8, 9, 10, 11];
/// Vector registers of results: X0 to X14.
const GO_FLOATS: usize = 15;
/// DWARF number of xmm0.
const XMM0: u16 = 17;
/// Nesting of types, at most: deeper ones do not fit registers, or are damage.
const NESTING_MAX: usize = 32;
/// Parameters and results of one function, at most.
const PARAMETERS_MAX: usize = 512;

/// Why nothing is read behind a jump to another function.
const TAIL_CALL: &str = "the function ends in a jump to another one, which returns in its place";

/// A parameter or result as it is declared.
struct Parameter {
    name: String,
    ty: Option<Die>,
    is_result: bool,
    declared: Die,
}

/// The results at a return site.
pub(crate) fn at_return(view: &View<'_>, site: &Site) -> Result<Vec<Local>, ResolveError> {
    if site.is_go {
        return of_go(view, site);
    }
    let body = view.origins(site.body)?;
    let ty = body.iter().find_map(|(die, entry)| view.target(die.unit, entry.attr_value(gimli::DW_AT_type)));
    // No type: the function has no result.
    let Some(ty) = ty else { return Ok(Vec::new()) };
    let presence = match language(view, site.body)? {
        _ if site.is_tail_call => Presence::Unknown(TAIL_CALL.to_owned()),
        language => of_c(view, ty, language)?,
    };
    Ok(vec![local("return", Some(ty), presence)])
}

fn local(name: &str, ty: Option<Die>, presence: Presence) -> Local {
    Local { name: name.to_owned(), declared_line: 0, scope: Scope::Result, ty, presence, die: None }
}

/// Where the words of a value go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Integer,
    Float,
}

/// A word of a value: offset, size, class.
type Leaf = (u64, u64, Class);

/// Splits a value into words; `None` where the convention does not put its type into registers.
fn leaves(
    view: &View<'_>,
    ty: Die,
    base: u64,
    nesting: usize,
    found: &mut Vec<Leaf>,
) -> Result<Option<()>, ResolveError> {
    if nesting == NESTING_MAX || found.len() > GO_INTEGERS.len() + GO_FLOATS {
        return Ok(None);
    }
    let facts = types::read(view, ty)?;
    let words = |found: &mut Vec<Leaf>, count: u64| {
        found.extend((0..count).map(|word| (base + word * 8, 8, Class::Integer)));
    };
    match &facts.shape {
        Shape::Signed | Shape::Unsigned | Shape::Bool | Shape::Enum { .. } | Shape::Pointer(_) if facts.bytes <= 8 => {
            found.push((base, facts.bytes, Class::Integer));
        }
        Shape::Float => found.push((base, facts.bytes, Class::Float)),
        Shape::Complex => {
            let half = facts.bytes / 2;
            found.extend([(base, half, Class::Float), (base + half, half, Class::Float)]);
        }
        Shape::GoString | Shape::Interface { .. } => words(found, 2),
        Shape::GoSlice(_) => words(found, 3),
        Shape::Map { .. } | Shape::Chan { .. } | Shape::Func => words(found, 1),
        Shape::Array { count: 0, .. } => {}
        Shape::Array { count: 1, element } => return leaves(view, *element, base, nesting + 1, found),
        Shape::Struct(members) => {
            for member in members {
                let Some(ty) = member.ty else { return Ok(None) };
                if leaves(view, ty, base + member.offset, nesting + 1, found)?.is_none() {
                    return Ok(None);
                }
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(()))
}

/// Alignment of a Go type, in bytes; `None` where it is not known.
fn alignment(view: &View<'_>, ty: Die, nesting: usize) -> Result<Option<u64>, ResolveError> {
    if nesting == NESTING_MAX {
        return Ok(None);
    }
    let facts = types::read(view, ty)?;
    Ok(match &facts.shape {
        Shape::Signed | Shape::Unsigned | Shape::Bool | Shape::Enum { .. } | Shape::Float if facts.bytes <= 8 => {
            Some(facts.bytes.max(1))
        }
        Shape::Complex => Some((facts.bytes / 2).max(1)),
        Shape::Pointer(_)
        | Shape::GoString
        | Shape::GoSlice(_)
        | Shape::Interface { .. }
        | Shape::Map { .. }
        | Shape::Chan { .. }
        | Shape::Func => Some(8),
        Shape::Array { element, .. } => alignment(view, *element, nesting + 1)?,
        Shape::Struct(members) => {
            let mut most = 1;
            for member in members {
                let Some(ty) = member.ty else { return Ok(None) };
                let Some(own) = alignment(view, ty, nesting + 1)? else { return Ok(None) };
                most = most.max(own);
            }
            Some(most)
        }
        _ => None,
    })
}

/// Registers that are left while values are assigned to them.
#[derive(Debug, Clone, Copy, Default)]
struct Registers {
    integers: usize,
    floats: usize,
}

impl Registers {
    /// The registers of a value's words, in order; `None`, and nothing taken, where they do not all fit.
    fn assign(&mut self, leaves: &[Leaf]) -> Option<Vec<u16>> {
        let mut after = *self;
        let mut found = Vec::with_capacity(leaves.len());
        for (_, _, class) in leaves {
            match class {
                Class::Integer => {
                    found.push(*GO_INTEGERS.get(after.integers)?);
                    after.integers += 1;
                }
                Class::Float => {
                    if after.floats == GO_FLOATS {
                        return None;
                    }
                    found.push(XMM0 + after.floats as u16);
                    after.floats += 1;
                }
            }
        }
        *self = after;
        Some(found)
    }
}

/// The bytes of a value whose words are in registers; what is between the words is padding.
fn in_registers(leaves: &[Leaf], registers: &[u16], bytes: u64) -> Vec<Part> {
    let padding = |bytes: u64| Part { bytes, place: Place::Constant(vec![0; bytes as usize]) };
    let mut words: Vec<(&Leaf, u16)> = leaves.iter().zip(registers.iter().copied()).collect();
    words.sort_by_key(|((offset, ..), _)| *offset);
    let mut parts = Vec::new();
    let mut at = 0;
    for (&(offset, size, _), register) in words {
        if offset > at {
            parts.push(padding(offset - at));
        }
        parts.push(Part { bytes: size, place: Place::Register(register) });
        at = offset + size;
    }
    if bytes > at {
        parts.push(padding(bytes - at));
    }
    parts
}

/// Offsets on the stack, counted from the first argument's.
#[derive(Debug, Default)]
struct Stack {
    /// `None` once a type of unknown size or alignment was put there.
    next: Option<u64>,
}

impl Stack {
    fn put(&mut self, bytes: u64, align: Option<u64>) -> Option<u64> {
        let at = self.next.zip(align).map(|(next, align)| next.next_multiple_of(align));
        self.next = at.and_then(|at| at.checked_add(bytes));
        at
    }
}

fn of_go(view: &View<'_>, site: &Site) -> Result<Vec<Local>, ResolveError> {
    let parameters = parameters(view, site.body)?;
    let is_whole = is_whole(&parameters);
    let moment = Moment::new(view, site.body, site.address.0)?;
    let mut registers = Registers::default();
    let mut stack = Stack { next: Some(0) };
    let mut is_first_result = true;
    let mut found = Vec::new();
    for parameter in &parameters {
        if parameter.is_result && is_first_result {
            is_first_result = false;
            registers = Registers::default();
            stack.put(0, Some(8));
        }
        let name = parameter.name.trim_start_matches('&');
        let Some((ty, facts)) = declared_type(view, parameter)? else {
            stack.next = None;
            if parameter.is_result {
                found.push(local(name, None, Presence::Unknown("its type is not described".to_owned())));
            }
            continue;
        };
        let mut words = Vec::new();
        let fits = leaves(view, ty, 0, 0, &mut words)?.is_some();
        let place = if facts.bytes == 0 {
            stack.put(0, alignment(view, ty, 0)?).map(|_| Vec::new())
        } else if let Some(registers) = registers.assign(&words).filter(|_| fits) {
            Some(in_registers(&words, &registers, facts.bytes))
        } else {
            // The first argument is right above the return address: at the canonical frame address.
            let at = stack.put(facts.bytes, alignment(view, ty, 0)?);
            let spot = at.zip(moment.frame()).map(|(at, frame)| frame.plus(at as i64));
            spot.map(|spot| vec![Part { bytes: facts.bytes, place: Place::Memory(spot) }])
        };
        if !parameter.is_result {
            continue;
        }
        let presence = match place {
            _ if site.is_tail_call => Presence::Unknown(TAIL_CALL.to_owned()),
            _ if !is_whole => Presence::Suspect("the debug information does not list all results".to_owned()),
            None => Presence::Unknown("where it is returned is not known".to_owned()),
            Some(parts) => match contradiction(view, &moment, parameter, &parts)? {
                Some(why) => Presence::Suspect(why),
                None => Presence::Here(parts),
            },
        };
        found.push(local(name, Some(ty), presence));
    }
    Ok(found)
}

/// The type that is returned: a result that moved to the heap is described as a pointer named `&x`.
fn declared_type(view: &View<'_>, parameter: &Parameter) -> Result<Option<(Die, TypeFacts)>, ResolveError> {
    let Some(ty) = parameter.ty else { return Ok(None) };
    let facts = types::read(view, ty)?;
    if !parameter.name.starts_with('&') {
        return Ok(Some((ty, facts)));
    }
    let Shape::Pointer(Some(to)) = facts.shape else { return Ok(None) };
    Ok(Some((to, types::read(view, to)?)))
}

/// Whether unnamed results are there without a gap; Go numbers them by their position among the results.
fn is_whole(parameters: &[Parameter]) -> bool {
    let results = parameters.iter().filter(|parameter| parameter.is_result);
    results.enumerate().all(|(position, parameter)| {
        parameter.name.strip_prefix("~r").is_none_or(|number| number.parse() == Ok(position))
    })
}

/// Why a place on the stack is not where the debug information puts the same result.
fn contradiction<'a>(
    view: &View<'a>,
    moment: &Moment<'_, 'a>,
    parameter: &Parameter,
    parts: &[Part],
) -> Result<Option<String>, ResolveError> {
    let [Part { place: Place::Memory(computed), .. }] = parts else { return Ok(None) };
    if parameter.name.starts_with('&') {
        return Ok(None);
    }
    let (unit, entry) = view.entry(parameter.declared)?;
    let Located::Whole(Place::Memory(described)) = moment.locate(&unit, entry.attr_value(gimli::DW_AT_location))?
    else {
        return Ok(None);
    };
    Ok((described != *computed)
        .then(|| "the debug information and the calling convention give it different places on the stack".to_owned()))
}

/// Parameters and results in the order of their declaration.
fn parameters(view: &View<'_>, body: Die) -> Result<Vec<Parameter>, ResolveError> {
    let mut found = Vec::new();
    // The concrete function's own list; where it is a copy of a common part, that one's list is complete.
    for (die, _) in view.origins(body)? {
        let (unit, _) = view.entry(die)?;
        let mut here = Vec::new();
        types::for_children(&unit, die, |entry| {
            if entry.tag() == gimli::DW_TAG_formal_parameter && here.len() < PARAMETERS_MAX {
                here.push(Die { unit: die.unit, offset: entry.offset() });
            }
        })?;
        if here.len() >= found.len() {
            found = here;
        }
    }
    let mut parameters = Vec::with_capacity(found.len());
    for declared in found {
        let origins = view.origins(declared)?;
        let attribute = |name| origins.iter().find_map(|(die, entry)| Some((die.unit, entry.attr_value(name)?)));
        let flag = attribute(gimli::DW_AT_variable_parameter).map(|(_, value)| value);
        parameters.push(Parameter {
            name: view.name(declared)?.unwrap_or_default(),
            ty: attribute(gimli::DW_AT_type).and_then(|(unit, value)| view.target(unit, Some(value))),
            is_result: matches!(flag, Some(gimli::AttributeValue::Flag(true) | gimli::AttributeValue::Data1(1))),
            declared,
        });
    }
    Ok(parameters)
}

/// Languages whose conventions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Convention {
    C,
    CPlusPlus,
    Unspecified,
}

fn language(view: &View<'_>, body: Die) -> Result<Convention, ResolveError> {
    let unit = view.unit(body.unit)?;
    let mut reader = unit.entries_raw(None)?;
    let mut entry = super::debug_info::Entry::null();
    if !reader.read_entry(&mut entry)? {
        return Ok(Convention::Unspecified);
    }
    Ok(match entry.attr_value(gimli::DW_AT_language) {
        Some(gimli::AttributeValue::Language(language)) => match language {
            gimli::DW_LANG_C | gimli::DW_LANG_C89 | gimli::DW_LANG_C99 | gimli::DW_LANG_C11 | gimli::DW_LANG_C17 => {
                Convention::C
            }
            gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20 => Convention::CPlusPlus,
            _ => Convention::Unspecified,
        },
        _ => Convention::Unspecified,
    })
}

/// Where a C function leaves its result (section 3.2.3, "Returning of Values").
fn of_c(view: &View<'_>, ty: Die, convention: Convention) -> Result<Presence, ResolveError> {
    const RAX: u16 = 0;
    const RDX: u16 = 1;
    let unknown = |why: &str| Ok(Presence::Unknown(why.to_owned()));
    let facts = types::read(view, ty)?;
    let is_object = matches!(facts.shape, Shape::Struct(_) | Shape::Opaque(_) | Shape::Array { .. });
    match convention {
        Convention::Unspecified => return unknown("how this language returns values is not specified"),
        Convention::CPlusPlus if is_object => return unknown("how this C++ object is returned is not described"),
        _ => {}
    }
    if matches!(facts.shape, Shape::Signed | Shape::Unsigned) && facts.bytes == 16 {
        let half = |register| Part { bytes: 8, place: Place::Register(register) };
        return Ok(Presence::Here(vec![half(RAX), half(RDX)]));
    }
    if facts.bytes > 16 && matches!(facts.shape, Shape::Struct(_) | Shape::Array { .. }) {
        // The caller's memory; its address is returned.
        let spot = Spot { base: Some(RAX), offset: 0, derefs: Vec::new() };
        return Ok(Presence::Here(vec![Part { bytes: facts.bytes, place: Place::Memory(spot) }]));
    }
    let mut words = Vec::new();
    let mut is_plain = leaves_of_c(view, ty, 0, 0, &mut words)?;
    is_plain &= facts.bytes > 0 && facts.bytes <= 16;
    if !is_plain {
        return unknown("how a value of this type is returned is not known");
    }
    // Each eight bytes are integers if any of their parts is one, else floats.
    let (mut integers, mut floats) = ([RAX, RDX].into_iter(), [XMM0, XMM0 + 1].into_iter());
    let mut parts = Vec::new();
    let mut at = 0;
    while at < facts.bytes {
        let within = |leaf: &&Leaf| leaf.0 < at + 8 && at < leaf.0 + leaf.1;
        let is_integer = words.iter().filter(within).any(|&(_, _, class)| class == Class::Integer);
        let register = if is_integer { integers.next() } else { floats.next() };
        let Some(register) = register else { return unknown("how a value of this type is returned is not known") };
        let bytes = (facts.bytes - at).min(8);
        parts.push(Part { bytes, place: Place::Register(register) });
        at += 8;
    }
    Ok(Presence::Here(parts))
}

/// The numbers and pointers of a C value; false where it has something else, or something that is not aligned.
fn leaves_of_c(
    view: &View<'_>,
    ty: Die,
    base: u64,
    nesting: usize,
    found: &mut Vec<Leaf>,
) -> Result<bool, ResolveError> {
    if nesting == NESTING_MAX || base >= 16 {
        return Ok(false);
    }
    let facts = types::read(view, ty)?;
    match &facts.shape {
        Shape::Signed | Shape::Unsigned | Shape::Bool | Shape::Enum { .. } | Shape::Pointer(_) if facts.bytes <= 8 => {
            found.push((base, facts.bytes, Class::Integer));
            Ok(facts.bytes > 0 && base.is_multiple_of(facts.bytes))
        }
        Shape::Float => {
            found.push((base, facts.bytes, Class::Float));
            Ok(facts.bytes > 0 && base.is_multiple_of(facts.bytes))
        }
        Shape::Complex => {
            let half = facts.bytes / 2;
            found.extend([(base, half, Class::Float), (base + half, half, Class::Float)]);
            Ok(half > 0 && base.is_multiple_of(half))
        }
        Shape::Array { element, count } if *count <= 16 => {
            let bytes = types::read(view, *element)?.bytes;
            for index in 0..*count {
                if !leaves_of_c(view, *element, base + index * bytes, nesting + 1, found)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Shape::Struct(members) => {
            for member in members {
                let Some(ty) = member.ty else { return Ok(false) };
                if !leaves_of_c(view, ty, base + member.offset, nesting + 1, found)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_registers_wholly_or_not_at_all() {
        let word = |offset, class| (offset, 8, class);
        let mut registers = Registers { integers: 7, floats: 0 };
        let three = [word(0, Class::Integer), word(8, Class::Integer), word(16, Class::Integer)];
        assert_eq!(registers.assign(&three), None);
        // What did not fit took nothing: a shorter one still fits.
        assert_eq!(registers.assign(&three[..2]), Some(vec![10, 11]));
        assert_eq!(registers.assign(&three[..1]), None);
        assert_eq!(registers.assign(&[word(0, Class::Float)]), Some(vec![XMM0]));
    }

    #[test]
    fn padding_between_the_words_is_no_value() {
        // struct { a uint8; b float64; c int32 }
        let leaves = [(0, 1, Class::Integer), (8, 8, Class::Float), (16, 4, Class::Integer)];
        let parts = in_registers(&leaves, &[0, XMM0, 3], 24);
        let sizes: Vec<u64> = parts.iter().map(|part| part.bytes).collect();
        assert_eq!(sizes, [1, 7, 8, 4, 4]);
        assert_eq!(parts[2].place, Place::Register(XMM0));
        assert_eq!(parts[3].place, Place::Register(3));
    }

    #[test]
    fn the_stack_is_lost_behind_an_unknown_type() {
        let mut stack = Stack { next: Some(0) };
        assert_eq!(stack.put(1, Some(1)), Some(0));
        assert_eq!(stack.put(24, Some(8)), Some(8));
        assert_eq!(stack.put(8, None), None);
        assert_eq!(stack.put(8, Some(8)), None);
    }
}

//! Expressions computed over captured values.
//!
//! The rules are Go's where the types are known: integers wrap at their size, constants have none, `&&` and `||` stop
//! early. Comparing integers of different types is allowed here, because it has only one meaning.
//!
//! What is not exact is never computed with: an operand that was not captured, cut or suspect ends the evaluation
//! with an error that names it, unless what is known of it decides the result (`len` of a cut string, a cut string
//! compared with a text that differs in what is known).

use super::ast::{Builtin, Expr, Literal, UnaryOp};
use super::compute::{self, Operand};
use super::parts;
use super::quote;
use super::reach;
use crate::value::{Number, Scalar, Status, Value};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Most names that an error suggests.
const NEAR_NAMES_MAX: usize = 3;

/// The variables that an expression can name.
pub trait Scope {
    /// The variable of this name, or the capture that was asked for by this text; the innermost one where a name is
    /// declared more than once.
    fn lookup(&self, name: &str) -> Option<Cow<'_, Value>>;
    /// All names, for suggestions.
    fn names(&self) -> Vec<&str>;
}

impl Scope for &[Value] {
    fn lookup(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.iter().rev().find(|value| value.name == name).map(Cow::Borrowed)
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|value| value.name.as_str()).collect()
    }
}

impl Scope for Vec<Value> {
    fn lookup(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.iter().rev().find(|value| value.name == name).map(Cow::Borrowed)
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|value| value.name.as_str()).collect()
    }
}

/// An expression that has no value here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// No variable of this name is in scope.
    #[error("{name} is not a variable in scope here{}", suggestion(.near))]
    UnknownName {
        /// The name.
        name: String,
        /// Names in scope that are written much like it.
        near: Vec<String>,
    },
    /// The struct has no field of this name.
    #[error("{of} ({type_name}) has no field {field}{}", suggestion(.near))]
    UnknownField {
        /// What was looked into.
        of: String,
        /// Its type.
        type_name: String,
        /// The name.
        field: String,
        /// Fields that are written much like it.
        near: Vec<String>,
    },
    /// An operand was not captured.
    #[error("{what} was not captured: {detail}")]
    NotCaptured {
        /// The operand.
        what: String,
        /// Why.
        detail: String,
    },
    /// The compiler keeps an operand nowhere.
    #[error("{what} is optimised out here")]
    OptimisedOut {
        /// The operand.
        what: String,
    },
    /// Only a part of an operand is known.
    #[error("{what} is known only in part: {detail}")]
    Partial {
        /// The operand.
        what: String,
        /// Which part.
        detail: String,
    },
    /// An operand is not to be believed.
    #[error("{what} is suspect: {detail}")]
    Suspect {
        /// The operand.
        what: String,
        /// Why.
        detail: String,
    },
    /// An operand was cut, and what is known of it does not decide the result.
    #[error("{what} was cut ({detail}), and what is known of it does not decide this")]
    Truncated {
        /// The operand.
        what: String,
        /// Which limit cut it.
        detail: String,
    },
    /// An operand's memory could not be read.
    #[error("{what} could not be read (memory at {detail})")]
    Unreadable {
        /// The operand.
        what: String,
        /// The address.
        detail: String,
    },
    /// An operand is withheld because of its name.
    #[error("{what} is redacted")]
    Redacted {
        /// The operand.
        what: String,
    },
    /// An operand is of another kind than its operator needs.
    #[error("{what} ({type_name}) is not {wanted}")]
    NotA {
        /// The operand.
        what: String,
        /// Its type.
        type_name: String,
        /// What it would have to be, with its article.
        wanted: &'static str,
    },
    /// Two operands do not go together.
    #[error("{left} {operator} {right}: the types do not go together")]
    TypeMismatch {
        /// The operator.
        operator: &'static str,
        /// Type of the left operand.
        left: String,
        /// Type of the right operand.
        right: String,
    },
    /// A constant does not fit the type that it is used with, or a computation of constants outgrew 128 bits.
    #[error("{what} does not fit {type_name}")]
    Overflow {
        /// The constant or computation.
        what: String,
        /// The type.
        type_name: String,
    },
    /// Division by zero.
    #[error("{what}: division by zero")]
    DivisionByZero {
        /// The division.
        what: String,
    },
    /// A shift by less than nothing.
    #[error("{what}: the shift count is negative")]
    NegativeShift {
        /// The shift.
        what: String,
    },
    /// An element that is not there.
    #[error("{what}: index {index} is out of range, the length is {len}")]
    IndexOutOfRange {
        /// The element.
        what: String,
        /// Its index.
        index: i128,
        /// How many elements there are.
        len: u64,
    },
    /// A map has no such key. Go would make up a zero.
    #[error("{what} is not there: the map has no such key")]
    NoSuchKey {
        /// The look-up.
        what: String,
    },
    /// An interface holds another type than the one that is named.
    #[error("{what} holds a {held}, and is read as nothing else")]
    Holds {
        /// The interface.
        what: String,
        /// The type of what it holds.
        held: String,
    },
    /// A nil pointer was followed.
    #[error("{what} is nil")]
    Nil {
        /// The pointer.
        what: String,
    },
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (is it {}?)", near.join(" or ")) }
}

impl EvalError {
    /// Why a value of this status cannot be computed with; `None` when it can.
    pub(super) fn of_status(what: &Expr, status: &Status) -> Option<EvalError> {
        let what = what.to_string();
        Some(match status.clone() {
            Status::Exact => return None,
            Status::Partial { detail } => EvalError::Partial { what, detail },
            Status::Suspect { detail } => EvalError::Suspect { what, detail },
            Status::OptimisedOut => EvalError::OptimisedOut { what },
            Status::Truncated { detail } => EvalError::Truncated { what, detail },
            Status::Unreadable { detail } => EvalError::Unreadable { what, detail },
            Status::Redacted => EvalError::Redacted { what },
            Status::NotCaptured { detail } => EvalError::NotCaptured { what, detail },
        })
    }

    /// The error in angle brackets, as it stands in a log message or a table in place of a value.
    pub fn note(&self) -> String {
        format!("<{self}>")
    }
}

/// Computes `expr`. A plain variable, field or element comes back as it was captured, with its children and its
/// status (which may say that there is no value); everything else is computed and exact.
///
/// The name of the result is the expression's text.
pub fn eval(expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    let mut value = if is_place(expr) {
        place(expr, scope)?.into_owned()
    } else if let Some(captured) = capture(expr, scope) {
        captured.into_owned()
    } else {
        operand(expr, scope)?.into_value(expr)
    };
    value.name = expr.to_string();
    Ok(value)
}

/// Whether the expression names something that exists in the program.
fn is_place(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Name(_)
            | Expr::Select { .. }
            | Expr::Index { .. }
            | Expr::Slice { .. }
            | Expr::Assert { .. }
            | Expr::Unary { op: UnaryOp::Deref, .. }
    )
}

/// What the tracepoint captured because it was asked for by this very text.
fn capture<'a>(expr: &Expr, scope: &'a dyn Scope) -> Option<Cow<'a, Value>> {
    if matches!(expr, Expr::Literal(_)) { None } else { scope.lookup(&expr.to_string()) }
}

/// What a name, field, element or dereference stands for.
fn place<'a>(expr: &Expr, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, EvalError> {
    if let Some(value) = capture(expr, scope) {
        return Ok(value);
    }
    match expr {
        Expr::Name(name) => {
            Err(EvalError::UnknownName { name: name.clone(), near: near(name, scope.names().into_iter()) })
        }
        Expr::Select { of, field } => {
            let outer = through_pointer(of, place_or_computed(of, scope)?)?;
            select(of, outer, field)
        }
        Expr::Index { of, index } => {
            let outer = place_or_computed(of, scope)?;
            let outer = match outer.scalar {
                Some(Scalar::Address(_)) => through_pointer(of, outer)?,
                _ => outer,
            };
            if matches!(outer.scalar, Some(Scalar::Map { .. })) {
                return reach::entry(expr, of, outer, &operand(index, scope)?);
            }
            let at = operand(index, scope)?.into_index(index)?;
            element(expr, of, outer, at)
        }
        Expr::Slice { of, low, high } => {
            let outer = place_or_computed(of, scope)?;
            let outer = match outer.scalar {
                Some(Scalar::Address(_)) => through_pointer(of, outer)?,
                _ => outer,
            };
            parts::slice(expr, of, outer.into_owned(), (low.as_deref(), high.as_deref()), scope).map(Cow::Owned)
        }
        Expr::Assert { of, type_name } => reach::asserted(of, place_or_computed(of, scope)?, type_name),
        Expr::Unary { op: UnaryOp::Deref, of } => {
            let pointer = place_or_computed(of, scope)?;
            if !matches!(pointer.scalar, Some(Scalar::Address(_))) && pointer.status == Status::Exact {
                return Err(not_a(of, &pointer, "a pointer"));
            }
            through_pointer(of, pointer)
        }
        _ => Ok(Cow::Owned(operand(expr, scope)?.into_value(expr))),
    }
}

fn place_or_computed<'a>(expr: &Expr, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, EvalError> {
    match expr {
        // A package is not a value: `main.counter` is found as a whole or not at all.
        _ if is_place(expr) => place(expr, scope),
        _ => Ok(Cow::Owned(operand(expr, scope)?.into_value(expr))),
    }
}

pub(super) fn not_a(what: &Expr, value: &Value, wanted: &'static str) -> EvalError {
    EvalError::NotA { what: what.to_string(), type_name: value.type_name.clone(), wanted }
}

/// The child of `parent` that `choose` picks, without a copy where the parent is borrowed.
pub(super) fn child<'a>(parent: Cow<'a, Value>, index: usize) -> Option<Cow<'a, Value>> {
    match parent {
        Cow::Borrowed(parent) => parent.children.get(index).map(Cow::Borrowed),
        Cow::Owned(mut parent) if index < parent.children.len() => Some(Cow::Owned(parent.children.swap_remove(index))),
        Cow::Owned(_) => None,
    }
}

/// What a pointer points to; what is no pointer comes back as it is.
fn through_pointer<'a>(what: &Expr, value: Cow<'a, Value>) -> Result<Cow<'a, Value>, EvalError> {
    let Some(Scalar::Address(address)) = value.scalar else {
        return Ok(value);
    };
    if address == 0 {
        return Err(EvalError::Nil { what: what.to_string() });
    }
    let not_captured =
        EvalError::NotCaptured { what: format!("*{what}"), detail: format!("only the address {address:#x} is known") };
    child(value, 0).ok_or(not_captured)
}

fn select<'a>(of: &Expr, outer: Cow<'a, Value>, field: &str) -> Result<Cow<'a, Value>, EvalError> {
    let path = match find_field(&outer, field) {
        Found::At(path) => path,
        Found::Nowhere => {
            if let Some(error) = EvalError::of_status(of, &outer.status) {
                return Err(error);
            }
            // A pointer in front of it was followed already; elements and scalars have no fields.
            if outer.scalar.is_some() {
                return Err(not_a(of, &outer, "a struct"));
            }
            let near = near(field, outer.children.iter().map(|child| child.name.as_str()));
            let (of, type_name) = (of.to_string(), outer.type_name.clone());
            return Err(EvalError::UnknownField { of, type_name, field: field.to_owned(), near });
        }
        Found::PerhapsIn { embedded, status } => {
            let embedded = Expr::Select { of: Box::new(of.clone()), field: embedded };
            return Err(EvalError::of_status(&embedded, &status).unwrap_or_else(|| EvalError::NotCaptured {
                what: embedded.to_string(),
                detail: "its fields are not known".to_owned(),
            }));
        }
    };
    let mut value = outer;
    for index in path {
        let what = Expr::Select { of: Box::new(of.clone()), field: field.to_owned() };
        value = through_pointer(&what, value)?;
        value = child(value, index).ok_or_else(|| EvalError::NotCaptured {
            what: what.to_string(),
            detail: "its struct was not captured".to_owned(),
        })?;
    }
    Ok(value)
}

/// Where a field is.
enum Found {
    /// Behind these indices of children: more than one where the field is promoted through embedded ones.
    At(Vec<usize>),
    /// There is no such field.
    Nowhere,
    /// An embedded field whose own fields are not known may have it.
    PerhapsIn { embedded: String, status: Status },
}

/// Looks for a field, through embedded fields where it is promoted. As in Go, the shallowest field of the name counts.
fn find_field(value: &Value, field: &str) -> Found {
    let mut level: Vec<(Vec<usize>, &Value)> = vec![(Vec::new(), value)];
    // Each level is one embedding deeper, and the depth of a value is bounded.
    while !level.is_empty() {
        let mut deeper = Vec::new();
        let mut unknown = None;
        for (path, value) in &level {
            let with = |index: usize| path.iter().copied().chain([index]).collect::<Vec<usize>>();
            if value.scalar.is_none()
                && let Some(index) = value.children.iter().position(|child| child.name == field)
            {
                return Found::At(with(index));
            }
            for (index, child) in value.children.iter().enumerate().filter(|(_, child)| child.facts.embedded) {
                let inner = match child.scalar {
                    // Nil promotes nothing: whoever follows it is told so.
                    Some(Scalar::Address(0)) => continue,
                    Some(Scalar::Address(_)) => child.children.first().unwrap_or(child),
                    _ => child,
                };
                if inner.children.is_empty() && inner.status != Status::Exact {
                    unknown = Some((child.name.clone(), inner.status.clone()));
                }
                deeper.push((with(index), inner));
            }
        }
        // A field further in cannot be told from one of the same name in what is not known.
        if let Some((embedded, status)) = unknown {
            return Found::PerhapsIn { embedded, status };
        }
        level = deeper;
    }
    Found::Nowhere
}

/// `of[at]`, which is written `whole`.
fn element<'a>(whole: &Expr, of: &Expr, outer: Cow<'a, Value>, at: i128) -> Result<Cow<'a, Value>, EvalError> {
    let out_of_range = |len| EvalError::IndexOutOfRange { what: whole.to_string(), index: at, len };
    let not_known = || match EvalError::of_status(whole, &outer.status) {
        Some(error) => error,
        None => EvalError::NotCaptured { what: whole.to_string(), detail: "the element is missing".to_owned() },
    };
    let index_below = |len: u64| usize::try_from(at).ok().filter(|&index| (index as u64) < len);
    match &outer.scalar {
        Some(Scalar::Sequence { len, .. }) => {
            let index = index_below(*len).ok_or_else(|| out_of_range(*len))?;
            let error = not_known();
            let found = child(outer, index).ok_or_else(|| error.clone())?;
            if found.name == format!("[{index}]") { Ok(found) } else { Err(error) }
        }
        Some(Scalar::Text(bytes) | Scalar::TextPart { shown: bytes, .. }) => {
            let len = match &outer.scalar {
                Some(Scalar::TextPart { len, .. }) => *len,
                _ => bytes.len() as u64,
            };
            let index = index_below(len).ok_or_else(|| out_of_range(len))?;
            let byte = *bytes.get(index).ok_or_else(not_known)?;
            let mut value = Value::exact(format!("[{index}]"), "uint8", byte.to_string());
            value.scalar = Some(Scalar::Int(i128::from(byte)));
            value.facts.number = Some(Number::Unsigned { bits: 8 });
            Ok(Cow::Owned(value))
        }
        _ => match EvalError::of_status(of, &outer.status) {
            Some(error) => Err(error),
            None => Err(not_a(of, &outer, "an array, slice or string")),
        },
    }
}

/// What an expression computes with.
pub(super) fn operand(expr: &Expr, scope: &dyn Scope) -> Result<Operand, EvalError> {
    if let Some(captured) = capture(expr, scope) {
        return Operand::of_value(expr, &captured);
    }
    match expr {
        Expr::Name(_)
        | Expr::Select { .. }
        | Expr::Index { .. }
        | Expr::Slice { .. }
        | Expr::Assert { .. }
        | Expr::Unary { op: UnaryOp::Deref, .. } => Operand::of_value(expr, &*place(expr, scope)?),
        Expr::Literal(literal) => Ok(match literal {
            Literal::Int(value) => Operand::Int { value: *value, ty: None },
            Literal::Rune(value) => Operand::Int { value: i128::from(u32::from(*value)), ty: None },
            Literal::Float(value) => Operand::Float { value: *value, ty: None },
            Literal::Text(bytes) => Operand::Text { shown: bytes.clone(), len: bytes.len() as u64 },
            Literal::Bool(value) => Operand::Bool(*value),
            Literal::Nil => Operand::Nil,
        }),
        Expr::Unary { op, of } => compute::unary(expr, *op, operand(of, scope)?),
        Expr::Binary { op, left, right } => compute::binary(expr, *op, (left, right), scope),
        Expr::Call { function: Builtin::String, argument } => string_of(argument, scope),
        Expr::Call { function, argument } => {
            let value = place_or_computed(argument, scope)?;
            let value = match value.scalar {
                // As in Go, a pointer to an array has a length too.
                Some(Scalar::Address(address)) if address != 0 && !value.children.is_empty() => {
                    through_pointer(argument, value)?
                }
                _ => value,
            };
            let count = match (&value.scalar, function) {
                (
                    Some(
                        Scalar::Sequence { len, .. }
                        | Scalar::TextPart { len, .. }
                        | Scalar::Map { len, .. }
                        | Scalar::Channel { len, .. },
                    ),
                    Builtin::Len,
                ) => *len,
                (Some(Scalar::Text(bytes)), Builtin::Len) => bytes.len() as u64,
                (Some(Scalar::Sequence { len, cap, .. }), Builtin::Cap) => cap.unwrap_or(*len),
                (Some(Scalar::Channel { cap, .. }), Builtin::Cap) => *cap,
                _ => {
                    let wanted =
                        if *function == Builtin::Len { "an array, slice or string" } else { "an array or slice" };
                    return Err(EvalError::of_status(argument, &value.status)
                        .unwrap_or_else(|| not_a(argument, &value, wanted)));
                }
            };
            Ok(Operand::int(i128::from(count)))
        }
    }
}

/// `string(x)`.
fn string_of(argument: &Expr, scope: &dyn Scope) -> Result<Operand, EvalError> {
    let value = place_or_computed(argument, scope)?;
    match &value.scalar {
        Some(Scalar::Text(bytes)) => Ok(Operand::Text { shown: bytes.clone(), len: bytes.len() as u64 }),
        Some(Scalar::TextPart { shown, len }) => Ok(Operand::Text { shown: shown.clone(), len: *len }),
        Some(Scalar::Int(code)) => {
            let c = u32::try_from(*code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            let shown = c.to_string().into_bytes();
            Ok(Operand::Text { len: shown.len() as u64, shown })
        }
        Some(Scalar::Sequence { len, .. }) => {
            let byte = |child: &Value| match child.scalar {
                Some(Scalar::Int(byte)) if child.status == Status::Exact => u8::try_from(byte).ok(),
                _ => None,
            };
            let is_bytes = |child: &Value| child.facts.number == Some(Number::Unsigned { bits: 8 });
            if !value.children.iter().all(is_bytes) {
                return Err(not_a(argument, &value, "a string, byte slice or rune"));
            }
            Ok(Operand::Text { shown: value.children.iter().map_while(byte).collect(), len: *len })
        }
        _ => Err(EvalError::of_status(argument, &value.status)
            .unwrap_or_else(|| not_a(argument, &value, "a string, byte slice or rune"))),
    }
}

/// The text of a value where it stands in a sentence (a log message): texts without quotes, and on one line; what is
/// not exact says so.
pub fn in_message(value: &Value) -> String {
    let mut text = match &value.scalar {
        Some(Scalar::Text(bytes) | Scalar::TextPart { shown: bytes, .. }) => quote::plain(bytes),
        _ => value.value.clone(),
    };
    if value.status != Status::Exact {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { " " }, value.status.note());
    }
    text
}

/// Names that are written much like `name`, nearest first.
fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut found: Vec<(usize, &str)> = names
        .filter_map(|other| {
            let other_lower = other.to_lowercase();
            let distance = distance(&lower, &other_lower);
            let extends = lower.len().min(other_lower.len()) >= 2
                && (other_lower.starts_with(&lower) || lower.starts_with(&other_lower));
            (distance <= lower.chars().count().div_ceil(3) || extends).then_some((distance, other))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(NEAR_NAMES_MAX).map(|(_, name)| name.to_owned()).collect()
}

/// Edit distance; names longer than 64 characters are far from everything.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().max(right.len()) > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;

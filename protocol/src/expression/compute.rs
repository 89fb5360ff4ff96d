//! Operators on numbers, texts, truth values and addresses, as Go computes them
//! (<https://go.dev/ref/spec#Arithmetic_operators>, <https://go.dev/ref/spec#Comparison_operators>).

use super::ast::{BinaryOp, Expr, UnaryOp};
use super::eval::{EvalError, Scope, operand};
use super::quote;
use crate::value::{Number, Scalar, Status, Value};
use std::cmp::Ordering;

/// Type of a number of the program; constants have none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NumberType {
    name: String,
    number: Number,
}

/// What an operator works on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// An integer; without a type it is a constant.
    Int { value: i128, ty: Option<NumberType> },
    /// A float; without a type it is a constant.
    Float { value: f64, ty: Option<NumberType> },
    /// A truth value.
    Bool(bool),
    /// A text of `len` bytes, of which the first ones are known.
    Text { shown: Vec<u8>, len: u64 },
    /// A pointer.
    Address(u64),
    /// A slice, of which only this can be compared.
    Slice { nil: bool },
    /// `nil`.
    Nil,
}

impl Operand {
    /// A value of Go's type `int`.
    pub(super) fn int(value: i128) -> Operand {
        let ty = NumberType { name: "int".to_owned(), number: Number::Signed { bits: 64 } };
        Operand::Int { value, ty: Some(ty) }
    }

    /// What can be computed of a captured value, which is written `what`.
    pub(super) fn of_value(what: &Expr, value: &Value) -> Result<Operand, EvalError> {
        let number_type = || {
            value.facts.number.map(|number| NumberType {
                // Go's two other names for types.
                name: match value.type_name.as_str() {
                    "byte" => "uint8".to_owned(),
                    "rune" => "int32".to_owned(),
                    name => name.to_owned(),
                },
                number,
            })
        };
        match &value.scalar {
            // How long a text is and whether a slice is nil is known even where their bytes are not.
            Some(Scalar::TextPart { shown, len }) => Ok(Operand::Text { shown: shown.clone(), len: *len }),
            Some(
                Scalar::Sequence { nil, cap: Some(_), .. }
                | Scalar::Interface { nil }
                | Scalar::Map { nil, .. }
                | Scalar::Channel { nil, .. }
                | Scalar::Function { nil },
            ) => Ok(Operand::Slice { nil: *nil }),
            scalar => {
                if let Some(error) = EvalError::of_status(what, &value.status) {
                    return Err(error);
                }
                match scalar {
                    Some(Scalar::Int(number)) => Ok(Operand::Int { value: *number, ty: number_type() }),
                    Some(Scalar::Float(number)) => Ok(Operand::Float { value: *number, ty: number_type() }),
                    Some(Scalar::Bool(truth)) => Ok(Operand::Bool(*truth)),
                    Some(Scalar::Text(bytes)) => Ok(Operand::Text { shown: bytes.clone(), len: bytes.len() as u64 }),
                    Some(Scalar::Address(address)) => Ok(Operand::Address(*address)),
                    _ => Err(EvalError::NotA {
                        what: what.to_string(),
                        type_name: value.type_name.clone(),
                        wanted: "a number, text, truth value or pointer",
                    }),
                }
            }
        }
    }

    /// The result of an expression as a value.
    pub(super) fn into_value(self, expr: &Expr) -> Value {
        let name = expr.to_string();
        let type_name = self.type_name();
        let (text, scalar, number) = match self {
            Operand::Int { value, ty } => (value.to_string(), Some(Scalar::Int(value)), ty.map(|ty| ty.number)),
            Operand::Float { value, ty } => {
                let number = ty.map(|ty| ty.number);
                let single = number == Some(Number::Float { bits: 32 });
                (quote::float(value, single), Some(Scalar::Float(value)), number)
            }
            Operand::Bool(truth) => (truth.to_string(), Some(Scalar::Bool(truth)), None),
            Operand::Text { shown, len } if shown.len() as u64 == len => {
                (quote::text(&shown), Some(Scalar::Text(shown)), None)
            }
            Operand::Text { shown, len } => {
                let detail = format!("{} of {len} bytes", shown.len());
                let mut value = Value::exact(name, type_name, quote::text(&shown));
                value.status = Status::Truncated { detail };
                value.scalar = Some(Scalar::TextPart { shown, len });
                return value;
            }
            Operand::Address(address) => (format!("{address:#x}"), Some(Scalar::Address(address)), None),
            Operand::Slice { .. } | Operand::Nil => ("nil".to_owned(), Some(Scalar::Address(0)), None),
        };
        let mut value = Value::exact(name, type_name, text);
        value.scalar = scalar;
        value.facts.number = number;
        value
    }

    /// The operand as the index of an element.
    pub(super) fn into_index(self, what: &Expr) -> Result<i128, EvalError> {
        let type_name = self.type_name();
        match self {
            Operand::Int { value, .. } => Ok(value),
            Operand::Float { value, ty: None } if value.fract() == 0.0 && value.abs() < 1e18 => Ok(value as i128),
            _ => Err(EvalError::NotA { what: what.to_string(), type_name, wanted: "an integer" }),
        }
    }

    /// Name of its type.
    pub(super) fn type_name(&self) -> String {
        match self {
            Operand::Int { ty: Some(ty), .. } | Operand::Float { ty: Some(ty), .. } => ty.name.clone(),
            Operand::Int { ty: None, .. } => "untyped int".to_owned(),
            Operand::Float { ty: None, .. } => "untyped float".to_owned(),
            Operand::Bool(_) => "bool".to_owned(),
            Operand::Text { .. } => "string".to_owned(),
            Operand::Address(_) => "pointer".to_owned(),
            Operand::Slice { .. } => "slice".to_owned(),
            Operand::Nil => "nil".to_owned(),
        }
    }
}

/// `expr` is the whole, for messages.
pub(super) fn unary(expr: &Expr, op: UnaryOp, of: Operand) -> Result<Operand, EvalError> {
    let wanted = match (op, of) {
        (UnaryOp::Plus, number @ (Operand::Int { .. } | Operand::Float { .. })) => return Ok(number),
        (UnaryOp::Negate, Operand::Int { value, ty }) => return sized(expr, value.checked_neg(), ty),
        (UnaryOp::Negate, Operand::Float { value, ty }) => return Ok(Operand::Float { value: -value, ty }),
        (UnaryOp::Complement, Operand::Int { value, ty }) => return sized(expr, Some(!value), ty),
        (UnaryOp::Not, Operand::Bool(truth)) => return Ok(Operand::Bool(!truth)),
        (UnaryOp::Not, other) => ("a truth value", other),
        (UnaryOp::Complement, other) => ("an integer", other),
        (UnaryOp::Deref, other) => ("a pointer", other),
        (UnaryOp::Plus | UnaryOp::Negate, other) => ("a number", other),
    };
    let what = match expr {
        Expr::Unary { of, .. } => of.to_string(),
        _ => expr.to_string(),
    };
    Err(EvalError::NotA { what, type_name: wanted.1.type_name(), wanted: wanted.0 })
}

/// `expr` is the whole, for messages; `left` and `right` are its operands.
pub(super) fn binary(
    expr: &Expr,
    op: BinaryOp,
    (left, right): (&Expr, &Expr),
    scope: &dyn Scope,
) -> Result<Operand, EvalError> {
    if let BinaryOp::And | BinaryOp::Or = op {
        let truth = |of: &Expr| match operand(of, scope)? {
            Operand::Bool(truth) => Ok(truth),
            other => {
                Err(EvalError::NotA { what: of.to_string(), type_name: other.type_name(), wanted: "a truth value" })
            }
        };
        let decided_by = op == BinaryOp::Or;
        return Ok(Operand::Bool(if truth(left)? == decided_by { decided_by } else { truth(right)? }));
    }
    let (l, r) = (operand(left, scope)?, operand(right, scope)?);
    let mismatch = EvalError::TypeMismatch { operator: op.symbol(), left: l.type_name(), right: r.type_name() };
    if let BinaryOp::ShiftLeft | BinaryOp::ShiftRight = op {
        return match (l, r) {
            (Operand::Int { value, ty }, Operand::Int { value: count, .. }) => shift(expr, op, value, count, ty),
            _ => Err(mismatch),
        };
    }
    match (l, r) {
        (Operand::Int { value: l, ty: lt }, Operand::Int { value: r, ty: rt }) => integers(expr, op, (l, lt), (r, rt)),
        (Operand::Float { value: l, ty: lt }, Operand::Float { value: r, ty: rt }) => {
            if lt.is_some() && rt.is_some() && lt != rt && !op.compares() {
                return Err(mismatch);
            }
            floats(expr, op, l, r, lt.or(rt))
        }
        // A float constant with an integer of the program: only where it is whole.
        (Operand::Int { value: l, ty: lt @ Some(_) }, Operand::Float { value: r, ty: None }) => {
            integers(expr, op, (l, lt.clone()), (whole(r, lt.as_ref())?, None))
        }
        (Operand::Float { value: l, ty: None }, Operand::Int { value: r, ty: rt @ Some(_) }) => {
            integers(expr, op, (whole(l, rt.as_ref())?, None), (r, rt))
        }
        (Operand::Int { value: l, ty: None }, Operand::Float { value: r, ty }) => floats(expr, op, l as f64, r, ty),
        (Operand::Float { value: l, ty }, Operand::Int { value: r, ty: None }) => floats(expr, op, l, r as f64, ty),
        (Operand::Bool(l), Operand::Bool(r)) => equality(op, l == r, mismatch),
        (Operand::Text { shown: l, len: l_len }, Operand::Text { shown: r, len: r_len }) => {
            texts(op, (left, l, l_len), (right, r, r_len), mismatch)
        }
        (Operand::Address(l), Operand::Address(r)) => equality(op, l == r, mismatch),
        (Operand::Address(address), Operand::Nil) | (Operand::Nil, Operand::Address(address)) => {
            equality(op, address == 0, mismatch)
        }
        (Operand::Slice { nil }, Operand::Nil) | (Operand::Nil, Operand::Slice { nil }) => equality(op, nil, mismatch),
        _ => Err(mismatch),
    }
}

fn equality(op: BinaryOp, equal: bool, mismatch: EvalError) -> Result<Operand, EvalError> {
    match op {
        BinaryOp::Equal => Ok(Operand::Bool(equal)),
        BinaryOp::NotEqual => Ok(Operand::Bool(!equal)),
        _ => Err(mismatch),
    }
}

fn ordered(op: BinaryOp, order: Option<Ordering>) -> Option<bool> {
    Some(match op {
        BinaryOp::Equal => order == Some(Ordering::Equal),
        BinaryOp::NotEqual => order != Some(Ordering::Equal),
        BinaryOp::Less => order == Some(Ordering::Less),
        BinaryOp::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        BinaryOp::Greater => order == Some(Ordering::Greater),
        BinaryOp::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => return None,
    })
}

/// A float constant as an integer.
fn whole(value: f64, ty: Option<&NumberType>) -> Result<i128, EvalError> {
    if value.fract() == 0.0 && value.abs() < 1e30 {
        return Ok(value as i128);
    }
    let type_name = ty.map_or_else(|| "int".to_owned(), |ty| ty.name.clone());
    Err(EvalError::Overflow { what: quote::float(value, false), type_name })
}

fn range(number: Number) -> (i128, i128) {
    match number {
        Number::Signed { bits: bits @ 1..=127 } => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        Number::Unsigned { bits: bits @ 1..=126 } => (0, (1i128 << bits) - 1),
        Number::Unsigned { .. } => (0, i128::MAX),
        Number::Signed { .. } | Number::Float { .. } => (i128::MIN, i128::MAX),
    }
}

/// Cuts a result to the size of its type; a constant has to fit 128 bits.
fn sized(expr: &Expr, value: Option<i128>, ty: Option<NumberType>) -> Result<Operand, EvalError> {
    let overflow = |type_name: &str| EvalError::Overflow { what: expr.to_string(), type_name: type_name.to_owned() };
    let Some(value) = value else {
        return Err(overflow(ty.as_ref().map_or("128 bits", |ty| &ty.name)));
    };
    let Some(ty) = ty else {
        return Ok(Operand::Int { value, ty: None });
    };
    let value = match ty.number {
        Number::Signed { bits: bits @ 1..=127 } => (value << (128 - bits)) >> (128 - bits),
        Number::Unsigned { bits: bits @ 1..=126 } => value & ((1i128 << bits) - 1),
        Number::Unsigned { .. } if value < 0 => return Err(overflow(&ty.name)),
        _ => value,
    };
    Ok(Operand::Int { value, ty: Some(ty) })
}

type Integer = (i128, Option<NumberType>);

fn integers(expr: &Expr, op: BinaryOp, (l, lt): Integer, (r, rt): Integer) -> Result<Operand, EvalError> {
    // A constant takes the type of the other operand, and has to fit it.
    for (constant, constant_type, other) in [(l, &lt, &rt), (r, &rt, &lt)] {
        if let (None, Some(ty)) = (constant_type, other) {
            let (min, max) = range(ty.number);
            if !(min..=max).contains(&constant) {
                return Err(EvalError::Overflow { what: constant.to_string(), type_name: ty.name.clone() });
            }
        }
    }
    if let Some(truth) = ordered(op, Some(l.cmp(&r))) {
        return Ok(Operand::Bool(truth));
    }
    let ty = match (lt, rt) {
        (Some(lt), Some(rt)) if lt != rt => {
            return Err(EvalError::TypeMismatch { operator: op.symbol(), left: lt.name, right: rt.name });
        }
        (lt, rt) => lt.or(rt),
    };
    let divide_by_zero = || EvalError::DivisionByZero { what: expr.to_string() };
    let typed = ty.is_some();
    let value = match op {
        // What is cut to a type afterwards may wrap at 128 bits before: the lower bits are the same.
        BinaryOp::Add if typed => Some(l.wrapping_add(r)),
        BinaryOp::Subtract if typed => Some(l.wrapping_sub(r)),
        BinaryOp::Multiply if typed => Some(l.wrapping_mul(r)),
        BinaryOp::Add => l.checked_add(r),
        BinaryOp::Subtract => l.checked_sub(r),
        BinaryOp::Multiply => l.checked_mul(r),
        BinaryOp::Divide | BinaryOp::Remainder if r == 0 => return Err(divide_by_zero()),
        BinaryOp::Divide => l.checked_div(r),
        BinaryOp::Remainder => Some(l.wrapping_rem(r)),
        BinaryOp::BitAnd => Some(l & r),
        BinaryOp::BitOr => Some(l | r),
        BinaryOp::BitXor => Some(l ^ r),
        BinaryOp::BitClear => Some(l & !r),
        _ => None,
    };
    sized(expr, value, ty)
}

fn shift(expr: &Expr, op: BinaryOp, value: i128, count: i128, ty: Option<NumberType>) -> Result<Operand, EvalError> {
    let count = u32::try_from(count.clamp(-1, 128)).map_err(|_| EvalError::NegativeShift { what: expr.to_string() })?;
    let shifted = match op {
        BinaryOp::ShiftRight => Some(value >> count.min(127)),
        _ if ty.is_some() => Some(value.checked_shl(count).unwrap_or(0)),
        // A constant keeps all its bits or is refused.
        _ => value.checked_shl(count).filter(|shifted| shifted >> count == value),
    };
    sized(expr, shifted, ty)
}

fn floats(expr: &Expr, op: BinaryOp, l: f64, r: f64, ty: Option<NumberType>) -> Result<Operand, EvalError> {
    if let Some(truth) = ordered(op, l.partial_cmp(&r)) {
        return Ok(Operand::Bool(truth));
    }
    let value = match op {
        BinaryOp::Add => l + r,
        BinaryOp::Subtract => l - r,
        BinaryOp::Multiply => l * r,
        BinaryOp::Divide if r == 0.0 && ty.is_none() => {
            return Err(EvalError::DivisionByZero { what: expr.to_string() });
        }
        BinaryOp::Divide => l / r,
        _ => {
            let name = ty.map_or_else(|| "untyped float".to_owned(), |ty| ty.name);
            return Err(EvalError::TypeMismatch { operator: op.symbol(), left: name.clone(), right: name });
        }
    };
    let single = matches!(&ty, Some(ty) if ty.number == Number::Float { bits: 32 });
    Ok(Operand::Float { value: if single { f64::from(value as f32) } else { value }, ty })
}

type PartOfText<'a> = (&'a Expr, Vec<u8>, u64);

fn texts(
    op: BinaryOp,
    (left, l, l_len): PartOfText<'_>,
    (right, r, r_len): PartOfText<'_>,
    mismatch: EvalError,
) -> Result<Operand, EvalError> {
    let whole = (l.len() as u64 == l_len, r.len() as u64 == r_len);
    if op == BinaryOp::Add {
        let mut shown = l;
        if whole.0 {
            shown.extend(r);
        }
        return Ok(Operand::Text { shown, len: l_len.saturating_add(r_len) });
    }
    if !op.compares() {
        return Err(mismatch);
    }
    let common = l.len().min(r.len());
    let order = match l[..common].cmp(&r[..common]) {
        Ordering::Equal if whole == (true, true) => Some(l.len().cmp(&r.len())),
        // One ends where the other is known to go on.
        Ordering::Equal if whole.0 && l.len() == common && l_len < r_len => Some(Ordering::Less),
        Ordering::Equal if whole.1 && r.len() == common && r_len < l_len => Some(Ordering::Greater),
        Ordering::Equal => None,
        decided => Some(decided),
    };
    match (order, op) {
        (Some(_), _) => ordered(op, order).map(Operand::Bool).ok_or(mismatch),
        (None, BinaryOp::Equal) if l_len != r_len => Ok(Operand::Bool(false)),
        (None, BinaryOp::NotEqual) if l_len != r_len => Ok(Operand::Bool(true)),
        (None, _) => {
            let (what, shown, len) = if whole.0 { (right, r.len(), r_len) } else { (left, l.len(), l_len) };
            Err(EvalError::Truncated { what: what.to_string(), detail: format!("{shown} of {len} bytes") })
        }
    }
}

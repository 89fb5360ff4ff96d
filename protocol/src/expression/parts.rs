//! `of[low:high]`: a part of an array, slice or string, of what was captured of it.

use super::ast::Expr;
use super::eval::{EvalError, Scope, operand};
use crate::decode::text;
use crate::value::{Scalar, Status, Value};

/// The bounds of a slice that is written `whole`: where they begin and end, of `len` elements.
fn bounds(
    whole: &Expr,
    (low, high): (Option<&Expr>, Option<&Expr>),
    len: u64,
    scope: &dyn Scope,
) -> Result<(u64, u64), EvalError> {
    let bound = |bound: Option<&Expr>, otherwise: u64| match bound {
        None => Ok(i128::from(otherwise)),
        Some(bound) => operand(bound, scope)?.into_index(bound),
    };
    let (low, high) = (bound(low, 0)?, bound(high, len)?);
    let outside = |index: i128| EvalError::IndexOutOfRange { what: whole.to_string(), index, len };
    let inside = |index: i128| u64::try_from(index).ok().filter(|&index| index <= len).ok_or_else(|| outside(index));
    let (from, to) = (inside(low)?, inside(high)?);
    if from <= to { Ok((from, to)) } else { Err(outside(low)) }
}

/// The part of `outer` (written `of`) that `whole` means. A pointer to an array was followed already.
pub(super) fn slice(
    whole: &Expr,
    of: &Expr,
    outer: Value,
    between: (Option<&Expr>, Option<&Expr>),
    scope: &dyn Scope,
) -> Result<Value, EvalError> {
    match &outer.scalar {
        Some(Scalar::Sequence { len, cap, nil }) => {
            let (from, to) = bounds(whole, between, *len, scope)?;
            let scalar =
                Scalar::Sequence { len: to - from, cap: Some(cap.unwrap_or(*len).saturating_sub(from)), nil: *nil };
            Ok(elements(outer, from, to, scalar))
        }
        Some(Scalar::Text(bytes)) => {
            let (from, to) = bounds(whole, between, bytes.len() as u64, scope)?;
            let part = bytes.get(from as usize..to as usize).unwrap_or_default();
            Ok(text_part(whole, part, to - from, &outer))
        }
        Some(Scalar::TextPart { shown, len }) => {
            let (from, to) = bounds(whole, between, *len, scope)?;
            let known = shown.len() as u64;
            let part = shown.get(from.min(known) as usize..to.min(known) as usize).unwrap_or_default();
            Ok(text_part(whole, part, to - from, &outer))
        }
        _ => Err(EvalError::of_status(of, &outer.status).unwrap_or_else(|| EvalError::NotA {
            what: of.to_string(),
            type_name: outer.type_name.clone(),
            wanted: "an array, slice or string",
        })),
    }
}

fn elements(outer: Value, from: u64, to: u64, scalar: Scalar) -> Value {
    let Value { type_name, status, children, .. } = outer;
    // A slice of an array is a slice.
    let type_name = match type_name.split_once(']') {
        Some((count, element)) if count.starts_with('[') => format!("[]{element}"),
        _ => type_name,
    };
    let (skip, take) = (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to - from).unwrap_or(usize::MAX));
    let children: Vec<Value> = children
        .into_iter()
        .skip(skip)
        .take(take)
        .enumerate()
        .map(|(number, child)| Value { name: format!("[{number}]"), ..child })
        .collect();
    let (len, listed) = (to - from, children.len() as u64);
    let cap = match &scalar {
        Scalar::Sequence { cap: Some(cap), .. } => *cap,
        _ => len,
    };
    let head = format!("{} len: {len}, cap: {cap}", text::short_type(&type_name));
    let mut value = Value::exact("", type_name, format!("{head}, {}", text::of_elements(&children, len)));
    if listed < len {
        value.status = match status {
            Status::Exact => Status::NotCaptured { detail: format!("{listed} of {len} elements are there") },
            Status::Truncated { .. } => Status::Truncated { detail: format!("{listed} of {len} elements") },
            other => other,
        };
    }
    value.scalar = Some(scalar);
    value.children = children;
    value
}

fn text_part(whole: &Expr, part: &[u8], len: u64, outer: &Value) -> Value {
    let value = super::compute::Operand::Text { shown: part.to_vec(), len }.into_value(whole);
    Value { type_name: outer.type_name.clone(), ..value }
}

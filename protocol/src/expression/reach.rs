//! What an expression reaches by a key or by a type: entries of maps, what interfaces hold; of what was captured of them.
//!
//! Go makes a zero of a key that is not there. Here that is an error: nothing of the kind was in the program's memory.

use super::ast::Expr;
use super::compute::Operand;
use super::eval::{EvalError, child, not_a};
use crate::decode::text::short_type;
use crate::value::{Scalar, Status, Value};
use std::borrow::Cow;

/// The entry of the map `outer` (written `of`) that `whole` means.
pub(super) fn entry<'a>(
    whole: &Expr,
    of: &Expr,
    outer: Cow<'a, Value>,
    key: &Operand,
) -> Result<Cow<'a, Value>, EvalError> {
    let mut is_all_known = true;
    for (number, entry) in outer.children.iter().enumerate() {
        let Some(own) = entry.key.as_deref() else { continue };
        match is_key(own, key) {
            Some(true) => {
                return child(outer, number).ok_or_else(|| EvalError::NoSuchKey { what: whole.to_string() });
            }
            Some(false) => {}
            None if own.status != Status::Exact => is_all_known = false,
            None => {
                let (left, right) = (own.type_name.clone(), key.type_name());
                return Err(EvalError::TypeMismatch { operator: "==", left, right });
            }
        }
    }
    let not_captured = |detail: String| EvalError::NotCaptured { what: whole.to_string(), detail };
    Err(match &outer.status {
        _ if !is_all_known => not_captured("not all keys of the map were captured whole".to_owned()),
        Status::Truncated { detail } => {
            not_captured(format!("it may be in the rest of the map, of which {detail} were captured"))
        }
        status => EvalError::of_status(of, status).unwrap_or_else(|| EvalError::NoSuchKey { what: whole.to_string() }),
    })
}

/// Whether a key of a map is the one that is looked for; `None` where that is not known or cannot be.
fn is_key(own: &Value, wanted: &Operand) -> Option<bool> {
    if let (Some(Scalar::Interface { nil: false }), [held]) = (&own.scalar, own.children.as_slice()) {
        // Of an interface, type and value must be the same; a constant is of its default type.
        let is_type = match wanted {
            Operand::Int { ty: None, .. } => held.type_name == "int",
            Operand::Float { ty: None, .. } => held.type_name == "float64",
            Operand::Bool(_) => held.type_name == "bool",
            Operand::Text { .. } => held.type_name == "string",
            other => other.type_name() == held.type_name,
        };
        return if is_type { is_key(held, wanted) } else { Some(false) };
    }
    match (&own.scalar, wanted) {
        (Some(Scalar::TextPart { shown, len }), Operand::Text { shown: wanted, len: wanted_len }) => {
            let is_other = len != wanted_len || !wanted.starts_with(shown) && !shown.starts_with(wanted);
            is_other.then_some(false)
        }
        _ if own.status != Status::Exact => None,
        (Some(Scalar::Text(own)), Operand::Text { shown, len }) if shown.len() as u64 == *len => Some(own == shown),
        (Some(Scalar::Int(own)), Operand::Int { value, .. }) => Some(own == value),
        (Some(Scalar::Float(own)), Operand::Float { value, .. }) => Some(own == value),
        // A constant without a fraction is written as an integer.
        (Some(Scalar::Float(own)), Operand::Int { value, ty: None }) => Some(*own == *value as f64),
        (Some(Scalar::Bool(own)), Operand::Bool(wanted)) => Some(own == wanted),
        (Some(Scalar::Address(own)), Operand::Address(wanted)) => Some(own == wanted),
        _ => None,
    }
}

/// What the interface `outer` (written `of`) holds, if that is of the type.
///
/// A type may be written with or without its package, or with the last element of its package's path, as Go writes it.
pub(super) fn asserted<'a>(of: &Expr, outer: Cow<'a, Value>, type_name: &str) -> Result<Cow<'a, Value>, EvalError> {
    match outer.scalar {
        Some(Scalar::Interface { nil: true }) => return Err(EvalError::Nil { what: of.to_string() }),
        Some(Scalar::Interface { nil: false }) => {}
        _ => return Err(EvalError::of_status(of, &outer.status).unwrap_or_else(|| not_a(of, &outer, "an interface"))),
    }
    let Some(held) = outer.children.first() else {
        return Err(EvalError::of_status(of, &outer.status).unwrap_or_else(|| EvalError::NotCaptured {
            what: of.to_string(),
            detail: "what it holds was not captured".to_owned(),
        }));
    };
    if !is_type_named(&held.type_name, type_name) {
        return Err(EvalError::Holds { what: of.to_string(), held: short_type(&held.type_name) });
    }
    child(outer, 0).ok_or_else(|| EvalError::Nil { what: of.to_string() })
}

/// Whether a type whose full name is known is meant by what was written: with or without its package, or with the last
/// element of its package's path, as Go writes it.
pub fn is_type_named(full: &str, written: &str) -> bool {
    let plain = |name: &str| {
        let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
        name.replace("interface{}", "any")
    };
    let (full, short, written) = (plain(full), plain(&short_type(full)), plain(written));
    let (prefix, base) = short.split_at(short.find(|c: char| c.is_alphanumeric() || c == '_').unwrap_or(0));
    let own = match base.split_once('.') {
        // In its own package a type is written without it.
        Some((package, name)) if !package.contains(['[', '(', '{']) => format!("{prefix}{name}"),
        _ => short.clone(),
    };
    [full, short, own].contains(&written)
}

#[cfg(test)]
mod tests {
    use super::is_type_named;

    #[test]
    fn a_type_is_named_as_go_names_it_here_or_elsewhere() {
        for (full, written, wanted) in [
            ("*example.com/shop/cart.Item", "*example.com/shop/cart.Item", true),
            ("*example.com/shop/cart.Item", "*cart.Item", true),
            ("*example.com/shop/cart.Item", "*Item", true),
            ("*example.com/shop/cart.Item", "cart.Item", false),
            ("*example.com/shop/cart.Item", "*card.Item", false),
            ("map[string]interface {}", "map[string]any", true),
            ("[]main.T", "[]T", true),
            ("int", "int", true),
            ("main.int64", "int", false),
        ] {
            assert_eq!(is_type_named(full, written), wanted, "{full} {written}");
        }
    }
}

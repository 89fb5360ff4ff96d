//! A value as RipTrace shows it beside the same value as Go's reflection sees it.
//!
//! Every part that is shown must be right. What is not shown is noted with its reason. A part of a kind that this module
//! cannot compare is noted as unchecked, which fails the test: nothing passes unseen.

use crate::report::Outcome;
use riptrace_protocol::value::{Scalar, Status, Value};
use serde_json::Value as Json;

/// What a comparison has seen.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Parts that are shown and wrong.
    pub(crate) wrong: Vec<String>,
    /// Parts that are not shown: where, and why.
    pub(crate) withheld: Vec<String>,
    /// Parts that are shown and could not be compared.
    pub(crate) unchecked: Vec<String>,
    /// Whether capacities are to be compared.
    cap: bool,
}

impl Compared {
    pub(crate) fn new(cap: bool) -> Compared {
        Compared { cap, ..Compared::default() }
    }

    /// How far the variable is shown.
    pub(crate) fn outcome(&self, value: &Value) -> Outcome {
        if !self.wrong.is_empty() {
            Outcome::Wrong
        } else if !value.status.is_shown() {
            Outcome::Withheld(value.status.note())
        } else if let Some(first) = self.withheld.first() {
            Outcome::InPart(first.clone())
        } else {
            Outcome::Exact
        }
    }

    fn check(&mut self, path: &str, holds: bool, shown: &Value, truth: &Json) {
        if !holds {
            let scalar = &shown.scalar;
            self.wrong.push(format!("{path} is shown as {} ({scalar:?}), and is {truth}", shown.value));
        }
    }
}

/// Compares a variable.
pub(crate) fn variable(value: &Value, truth: &Json, seen: &mut Compared) {
    compare(&value.name, value, truth, seen);
}

fn compare(path: &str, value: &Value, truth: &Json, seen: &mut Compared) {
    if !value.status.is_shown() {
        seen.withheld.push(format!("{path} {}", value.status.note()));
        // What is there of it must be right.
        match truth["k"].as_str() {
            Some("slice") if !value.children.is_empty() => elements(path, value, truth, seen),
            Some("struct") if !value.children.is_empty() => fields(path, value, truth, seen),
            _ => {}
        }
        return;
    }
    let text = |key: &str| truth[key].as_str().unwrap_or_default();
    let number = |key: &str| truth[key].as_u64().unwrap_or_default();
    let is_nil = truth["nil"] == true;
    match text("k") {
        "deep" => {}
        "int" | "int8" | "int16" | "int32" | "int64" | "uint" | "uint8" | "uint16" | "uint32" | "uint64"
        | "uintptr" => {
            let wanted = text("v").parse::<i128>().ok().map(Scalar::Int);
            seen.check(path, value.scalar == wanted && wanted.is_some(), value, truth);
        }
        "float32" | "float64" => {
            let wanted = text("v").parse::<u64>().ok();
            let shown = match value.scalar {
                Some(Scalar::Float(number)) => Some(number.to_bits()),
                _ => None,
            };
            seen.check(path, shown == wanted && wanted.is_some(), value, truth);
        }
        "complex64" | "complex128" => seen.check(path, value.value == text("v"), value, truth),
        "bool" => seen.check(path, value.scalar == text("v").parse().ok().map(Scalar::Bool), value, truth),
        "string" => string(path, value, truth, seen),
        "slice" => {
            let Some(Scalar::Sequence { len, cap, nil }) = value.scalar else {
                return seen.check(path, false, value, truth);
            };
            let has_cap = if seen.cap { cap == Some(number("cap")) } else { cap >= Some(len) };
            seen.check(path, len == number("len") && has_cap && nil == is_nil, value, truth);
            elements(path, value, truth, seen);
        }
        "array" => {
            let is_right = matches!(value.scalar, Some(Scalar::Sequence { len, .. }) if len == number("len"));
            seen.check(path, is_right, value, truth);
            elements(path, value, truth, seen);
        }
        "struct" => fields(path, value, truth, seen),
        "ptr" => {
            let Some(Scalar::Address(address)) = value.scalar else { return seen.check(path, false, value, truth) };
            seen.check(path, (address == 0) == is_nil, value, truth);
            match value.children.first() {
                Some(pointee) => compare(&format!("*{path}"), pointee, &truth["to"], seen),
                None if is_nil || truth["to"]["k"] == "deep" => {}
                // What has no bytes has nothing to follow.
                None if truth["to"]["f"].as_array().is_some_and(Vec::is_empty) => {}
                None => seen.withheld.push(format!("*{path} is not followed")),
            }
        }
        "interface" => {
            let is_right = matches!(value.scalar, Some(Scalar::Interface { nil }) if nil == is_nil);
            seen.check(path, is_right, value, truth);
            match value.children.first() {
                Some(held) => compare(&format!("{path}.()"), held, &truth["to"], seen),
                None if is_nil => {}
                None => seen.withheld.push(format!("{path} is not followed")),
            }
        }
        "map" => entries(path, value, truth, seen),
        "chan" => {
            let is_right = match value.scalar {
                Some(Scalar::Channel { nil: true, .. }) => is_nil,
                Some(Scalar::Channel { len, cap, .. }) => !is_nil && (len, cap) == (number("len"), number("cap")),
                _ => false,
            };
            seen.check(path, is_right, value, truth);
        }
        "func" => {
            let is_right = matches!(value.scalar, Some(Scalar::Function { nil }) if nil == is_nil);
            seen.check(path, is_right, value, truth);
        }
        "unsafe.Pointer" => {
            let is_right = matches!(value.scalar, Some(Scalar::Address(address)) if (address == 0) == is_nil);
            seen.check(path, is_right, value, truth);
        }
        other => seen.unchecked.push(format!("{path}: {other} is shown as {:?} ({:?})", value.value, value.scalar)),
    }
}

fn string(path: &str, value: &Value, truth: &Json, seen: &mut Compared) {
    let wanted = bytes(truth["v"].as_str().unwrap_or_default());
    let is_right = match &value.scalar {
        Some(Scalar::Text(shown)) => *shown == wanted,
        Some(Scalar::TextPart { shown, len }) => {
            let is_cut = matches!(value.status, Status::Truncated { .. });
            is_cut && *len == wanted.len() as u64 && wanted.starts_with(shown)
        }
        _ => false,
    };
    seen.check(path, is_right, value, truth);
}

fn elements(path: &str, value: &Value, truth: &Json, seen: &mut Compared) {
    let wanted = truth["e"].as_array().map_or(&[][..], Vec::as_slice);
    if value.children.len() > wanted.len() {
        let count = value.children.len();
        seen.wrong.push(format!("{path} has {count} elements shown, and has {}", wanted.len()));
    }
    if value.children.len() < wanted.len() {
        seen.withheld.push(format!("{path} has {} of {} elements", value.children.len(), wanted.len()));
    }
    for (number, (child, truth)) in value.children.iter().zip(wanted).enumerate() {
        if child.name != format!("[{number}]") {
            seen.wrong.push(format!("{path} has an element {} in place of [{number}]", child.name));
        }
        compare(&format!("{path}[{number}]"), child, truth, seen);
    }
}

/// The entries of a map, each found by its key.
fn entries(path: &str, value: &Value, truth: &Json, seen: &mut Compared) {
    let wanted = truth["e"].as_array().map_or(&[][..], Vec::as_slice);
    let is_nil = truth["nil"] == true;
    let is_right = match value.scalar {
        Some(Scalar::Map { len, nil }) => nil == is_nil && len == wanted.len() as u64,
        _ => false,
    };
    seen.check(path, is_right, value, truth);
    if value.children.len() < wanted.len() {
        seen.withheld.push(format!("{path} has {} of {} entries", value.children.len(), wanted.len()));
    }
    for child in &value.children {
        let at = format!("{path}{}", child.name);
        let Some(key) = &child.key else {
            seen.wrong.push(format!("{at} has no key"));
            continue;
        };
        let compared = |entry: &Json| {
            let mut key_seen = Compared::default();
            compare(&at, key, &entry[0], &mut key_seen);
            key_seen
        };
        // A key of which a part is withheld may be any that the rest fits.
        let is_perhaps = |entry: &Json| compared(entry).wrong.is_empty();
        let is_key = |entry: &&Json| {
            let key_seen = compared(entry);
            key_seen.wrong.is_empty() && key_seen.withheld.is_empty() && key_seen.unchecked.is_empty()
        };
        match wanted.iter().find(is_key) {
            Some(entry) => compare(&at, child, &entry[1], seen),
            None if wanted.iter().any(is_perhaps) => seen.withheld.push(format!("the key of {at}")),
            None => seen.wrong.push(format!("{at} is no entry that the map has")),
        }
    }
}

fn fields(path: &str, value: &Value, truth: &Json, seen: &mut Compared) {
    let wanted = truth["f"].as_array().map_or(&[][..], Vec::as_slice);
    for field in wanted {
        let name = field[0].as_str().unwrap_or_default();
        match value.children.iter().find(|child| child.name == name) {
            Some(child) => compare(&format!("{path}.{name}"), child, &field[1], seen),
            // Several blank fields have one name, and nobody can name them.
            None if name == "_" => {}
            None => seen.withheld.push(format!("{path}.{name} is missing")),
        }
    }
    // The truth is of the newest Go, whose library's own types have other fields.
    let is_own = truth["t"].as_str().is_some_and(|name| name.starts_with("main.") || name.starts_with("struct"));
    if let Some(extra) = value.children.iter().find(|child| !wanted.iter().any(|field| field[0] == child.name)) {
        let list = if is_own { &mut seen.wrong } else { &mut seen.withheld };
        list.push(format!("{path} has a field {} that its type has not", extra.name));
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or_default();
    digits.chunks(2).map(byte).collect()
}

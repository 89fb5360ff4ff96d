//! Variables of which only some bytes are there: what those bytes tell.
//!
//! A part may tell all of a value: an interface without a type is nil, a string without a length is empty, a slice at
//! address 0 is nil, whatever else they would hold. Everything else stays partial, and shows the parts that are there.

use super::build::{Builder, elements_text, plausible};
use super::memory::{End, Place, missing, read};
use super::text;
use crate::layout::{TypeIndex, TypeKind};
use crate::limits;
use crate::value::{Scalar, Status, Value};

impl<'a> Builder<'a> {
    /// A variable whose bytes are in `place`, but for those in the ranges `gaps`; `present` says which parts are there.
    pub(super) fn pieces(
        &mut self,
        name: &str,
        ty: TypeIndex,
        place: Place<'a>,
        (gaps, present): (&[(u32, u32)], &str),
    ) -> Value {
        let Some((type_name, resolved)) = self.resolved(ty) else {
            return Value::missing(name, self.type_name(ty), missing(End::Mismatch));
        };
        if resolved.bytes != place.bytes.len() as u64 {
            return Value::missing(name, type_name, missing(End::Mismatch));
        }
        let is_there = |offset: u64, bytes: u64| {
            let end = offset.saturating_add(bytes);
            !gaps.iter().any(|&(from, to)| offset < u64::from(to) && u64::from(from) < end)
        };
        let word = |offset: u64| place.word(offset).ok().filter(|_| is_there(offset, 8));
        let mut value = Value::exact(name, type_name, "");
        match &resolved.kind {
            TypeKind::GoInterface { .. } if word(0) == Some(0) => {
                value.value = "nil".to_owned();
                value.scalar = Some(Scalar::Interface { nil: true });
                return value;
            }
            TypeKind::GoString => match word(8) {
                Some(0) => {
                    value.value = "\"\"".to_owned();
                    value.scalar = Some(Scalar::Text(Vec::new()));
                    return value;
                }
                Some(len) => value.value = format!("{{len: {len}}}"),
                None => {}
            },
            TypeKind::GoSlice { element } => {
                let (at, len, cap) = (word(0), word(8), word(16));
                if at == Some(0) && len.is_none_or(|len| len == 0) && cap.is_none_or(|cap| cap == 0) {
                    value.value = format!("{} len: 0, cap: 0, nil", text::short_type(type_name));
                    value.scalar = Some(Scalar::Sequence { len: 0, cap: Some(0), nil: true });
                    return value;
                }
                let head = |part: &str, number: Option<u64>| number.map(|number| format!("{part}: {number}"));
                let known: Vec<String> = [head("len", len), head("cap", cap)].into_iter().flatten().collect();
                let known = known.join(", ");
                match (at, len, self.bytes_of(*element)) {
                    (Some(at), Some(len), Some(bytes)) => {
                        if let Err(status) = plausible("slice", at, len, len.saturating_mul(bytes.max(1))) {
                            return Value { status, ..value };
                        }
                        let elements = read(&self.raw.chunks, at, len.saturating_mul(bytes));
                        self.elements(&mut value, (*element, bytes), len, elements, 0);
                        let elements = elements_text(&value.children, len);
                        value.value = format!("{} {known}, {elements}", text::short_type(type_name));
                    }
                    _ if !known.is_empty() => value.value = format!("{{{known}}}"),
                    _ => {}
                }
            }
            TypeKind::Struct { fields } => {
                for field in fields.iter().take(limits::VALUE_CHILDREN_MAX) {
                    let bytes = self.bytes_of(field.ty).unwrap_or(0);
                    let name = field.name.clone();
                    let mut child = match is_there(field.offset, bytes) {
                        true => self.value(name, field.ty, place.part(field.offset, bytes), 1),
                        false => Value::missing(name, self.type_name(field.ty), Status::OptimisedOut),
                    };
                    child.facts.embedded = field.embedded;
                    value.children.push(child);
                }
                let all = value.children.len() == fields.len();
                value.value = text::of_struct(type_name, &value.children, all);
            }
            _ => {}
        }
        value.status = Status::Partial { detail: present.to_owned() };
        value
    }
}

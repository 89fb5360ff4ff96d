//! Interfaces: two words, of which the first tells the type of what the second holds or points to.

use super::{context, error, suspect};
use crate::decode::build::Builder;
use crate::decode::memory::{End, Place};
use crate::decode::text;
use crate::layout::{DynamicType, NamedType};
use crate::value::{Scalar, Status, Value};

impl<'a> Builder<'a> {
    /// Fills in an interface: its text names the dynamic type, its only child is what it holds.
    pub(in crate::decode) fn interface(
        &mut self,
        value: &mut Value,
        empty: bool,
        (cases, others): (&'a [DynamicType], &'a [NamedType]),
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let (first, data) = (place.word(0)?, place.word(8)?);
        if first == 0 {
            if data != 0 {
                return Err(suspect("it has no type, but something that it holds"));
            }
            value.value = "nil".to_owned();
            value.scalar = Some(Scalar::Interface { nil: true });
            return Ok(());
        }
        // Whatever it holds, it is not nil.
        value.scalar = Some(Scalar::Interface { nil: false });
        // `abi.ITab`: Inter, Type.
        let key = if empty { first } else { self.owned("its type", first, 16)?.word(8)? };
        let Ok(found) = cases.binary_search_by_key(&key, |case| case.address) else {
            return Err(Status::Partial { detail: unknown(key, others) });
        };
        let DynamicType { ty, direct, .. } = cases[found];
        let Some(bytes) = self.bytes_of(ty) else { return Err(Status::Partial { detail: unknown(key, others) }) };
        let held = text::short_type(self.type_name(ty));
        let name = format!("{}.({held})", value.name);
        let content = if direct {
            Ok(place.part(8, 8))
        } else if bytes == 0 {
            Ok(Place { bytes: &[], end: End::Whole, address: Some(data) })
        } else if data == 0 {
            Err(suspect(format!("a value of {bytes} bytes at nil cannot be")))
        } else {
            self.owned("what it holds", data, bytes)
        };
        let child = match content {
            Ok(content) if content.bytes.len() as u64 <= bytes => self.value(name, ty, content, depth + 1),
            Ok(_) => self.withheld(name, ty, suspect("its type does not fit it")),
            Err(status) => self.withheld(name, ty, status),
        };
        let content = error::written(&child).map(|text| crate::expression::quote::text(&text));
        let content = content.or_else(|| context::written(&child)).unwrap_or_else(|| text::part(&child));
        value.value = format!("{}({held}) {content}", text::short_type(&value.type_name));
        value.children.push(child);
        Ok(())
    }
}

/// In front of the name of a type that was not expected.
const NAMED: &str = "its type is ";
/// Behind it.
const UNEXPECTED: &str = ", whose values were not expected here and not captured";

/// The type of what an interface holds whose value was not captured; `None` where only its address is known.
pub(super) fn named_type(status: &Status) -> Option<&str> {
    match status {
        Status::Partial { detail } => detail.strip_prefix(NAMED)?.strip_suffix(UNEXPECTED),
        _ => None,
    }
}

/// What is known of a type that is not among those that were expected.
fn unknown(key: u64, others: &[NamedType]) -> String {
    match others.binary_search_by_key(&key, |other| other.address) {
        Ok(found) => {
            format!("{NAMED}{}{UNEXPECTED}", others[found].name)
        }
        Err(_) => format!("its type, at {key:#x}, is none of those that were expected here"),
    }
}

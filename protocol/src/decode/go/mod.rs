//! Values that only Go has: interfaces, maps, channels, function values, and the few library types that a person reads
//! as one thing (errors, times, contexts).
//!
//! All of it is read from captured bytes, at the offsets that the layout states; the methods of the program are never
//! called. What the runtime may change while a hit is captured (the tables of a map, the buffer of a channel) is checked
//! against its own counts: where they disagree, the value is suspect and its parts are not shown.

mod chan;
mod constant;
mod context;
mod error;
mod func;
mod goroutine;
mod interface;
mod map;
mod time;

pub(super) use constant::written as constant;
pub use goroutine::GoroutineFacts;
pub(super) use goroutine::facts as goroutine;

use super::build::Builder;
use super::memory::{End, Place, missing, read};
use crate::layout::TypeIndex;
use crate::value::{Status, Value};

/// Groups and buckets of maps that are looked at in one hit, at most: many maps may share one chunk of memory. A hit's
/// bytes hold some thousand.
pub(super) const GROUPS_MAX: usize = 8 * 1024;

/// A number of elements beyond this is none: no address space holds them.
const COUNT_MAX: u64 = 1 << 48;

impl<'a> Builder<'a> {
    /// What is at an address that belongs to a value; an error where nothing of it was captured.
    fn owned(&self, what: &str, address: u64, bytes: u64) -> Result<Place<'a>, Status> {
        let place = read(&self.raw.chunks, address, bytes);
        match place.end {
            End::Uncovered if place.bytes.is_empty() => {
                Err(Status::NotCaptured { detail: format!("{what} was not followed (limits: depth, bytes per hit)") })
            }
            End::Fault(_) if place.bytes.is_empty() => Err(missing(place.end)),
            _ => Ok(place),
        }
    }

    /// What a value is of which only the type is to be shown.
    fn withheld(&self, name: String, ty: TypeIndex, status: Status) -> Value {
        Value::missing(name, self.type_name(ty), status)
    }
}

/// How a library type is written by a person; `None` where it is no such type, or not all of it is known.
pub(super) fn written(value: &Value) -> Option<String> {
    time::written(value)
}

fn suspect(detail: impl Into<String>) -> Status {
    Status::Suspect { detail: detail.into() }
}

/// A field of a struct, or of the struct that a pointer leads to; only where it is whole.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let value = pointee(value);
    value.children.iter().find(|child| child.name == name).filter(|child| child.status == Status::Exact)
}

/// What a pointer points to, where that was captured; any other value itself.
fn pointee(value: &Value) -> &Value {
    match (&value.scalar, value.children.as_slice()) {
        (Some(crate::value::Scalar::Address(_)), [to]) => to,
        _ => value,
    }
}

/// What an interface holds; `None` where it holds nothing, or that was not captured.
fn held(value: &Value) -> Option<&Value> {
    match (&value.scalar, value.children.as_slice()) {
        (Some(crate::value::Scalar::Interface { nil: false }), [held]) => Some(held),
        _ => None,
    }
}

/// A text field.
fn text<'v>(value: &'v Value, name: &str) -> Option<&'v [u8]> {
    match &field(value, name)?.scalar {
        Some(crate::value::Scalar::Text(bytes)) => Some(bytes),
        _ => None,
    }
}

/// A number field.
fn int(value: &Value, name: &str) -> Option<i128> {
    match field(value, name)?.scalar {
        Some(crate::value::Scalar::Int(number)) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

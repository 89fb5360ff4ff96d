//! Channels: a ring of elements, and who waits for it.
//!
//! Source: `runtime/chan.go`. The element that is received next is at `recvx`, the others follow in a ring.

use super::{COUNT_MAX, suspect};
use crate::decode::build::Builder;
use crate::decode::memory::{End, Place, missing, read};
use crate::decode::text;
use crate::layout::{ChanForm, TypeIndex};
use crate::limits;
use crate::value::{Scalar, Status, Value};

/// Goroutines that are counted as waiting, at most: a hit follows a few.
const WAITING_MAX: u32 = 64;

impl<'a> Builder<'a> {
    /// Fills in a channel: its children are the elements in its buffer, the next one first.
    pub(in crate::decode) fn chan(
        &mut self,
        value: &mut Value,
        element: TypeIndex,
        form: &'a ChanForm,
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let address = place.word(0)?;
        if address == 0 {
            value.value = "nil".to_owned();
            value.scalar = Some(Scalar::Channel { len: 0, cap: 0, nil: true });
            return Ok(());
        }
        let bytes = self.bytes_of(element).ok_or_else(|| missing(End::Mismatch))?;
        let header = self.owned("the channel", address, u64::from(form.bytes))?;
        let word = |at: u32| header.word(at.into());
        let (len, cap, first) = (word(form.count_at)?, word(form.capacity_at)?, word(form.first_at)?);
        let buffer = word(form.buffer_at)?;
        let closed = header.part(form.closed_at.into(), 4).array::<4>()? != [0; 4];
        if len > cap || cap > COUNT_MAX || first > 0 && first >= cap {
            return Err(suspect(format!("{len} elements, the next one at {first}, in room for {cap} cannot be")));
        }
        let (receivers, senders) =
            (self.waiting(form, word(form.receivers_at)?), self.waiting(form, word(form.senders_at)?));
        value.scalar = Some(Scalar::Channel { len, cap, nil: false });
        let mut end = End::Limit;
        for number in 0..len.min(limits::VALUE_CHILDREN_MAX as u64) {
            if self.nodes_left == 0 {
                break;
            }
            // Both are less than 2^48.
            let at = (first + number) % cap;
            let place = read(&self.raw.chunks, buffer.wrapping_add(at.wrapping_mul(bytes)), bytes);
            if place.end != End::Whole {
                end = place.end;
                break;
            }
            let child = self.value(format!("[{number}]"), element, place, depth + 1);
            value.children.push(child);
        }
        let listed = value.children.len() as u64;
        if listed < len {
            value.status = match end {
                End::Fault(address) => Status::Unreadable { detail: format!("{address:#x}") },
                _ => Status::Truncated { detail: format!("{listed} of {len} elements") },
            };
        }
        let mut text = format!("{} len: {len}, cap: {cap}", text::short_type(&value.type_name));
        if len > 0 {
            text.push_str(", ");
            text.push_str(&text::of_elements(&value.children, len));
        }
        if closed {
            text.push_str(", closed");
            let mut child = Value::exact("closed", "bool", "true");
            child.scalar = Some(Scalar::Bool(true));
            value.children.push(child);
        }
        for (name, waiting, whole) in [("receivers", receivers.0, receivers.1), ("senders", senders.0, senders.1)] {
            if waiting == 0 {
                continue;
            }
            let who = if waiting == 1 && whole { name.trim_end_matches('s') } else { name };
            text.push_str(&format!(", {waiting}{} {who} waiting", if whole { "" } else { " or more" }));
            let mut child = Value::exact(name, "int", waiting.to_string());
            if !whole {
                child.status = Status::Truncated { detail: "there may be more: they were not followed further".into() };
            }
            value.children.push(child);
        }
        value.value = text;
        Ok(())
    }

    /// How many wait in a list, and whether it ends there.
    fn waiting(&self, form: &ChanForm, mut address: u64) -> (u32, bool) {
        let mut count = 0;
        while address != 0 {
            count += 1;
            let next = read(&self.raw.chunks, address, u64::from(form.next_at) + 8).word(form.next_at.into());
            match next {
                Ok(next) if count < WAITING_MAX => address = next,
                _ => return (count, false),
            }
        }
        (count, true)
    }
}

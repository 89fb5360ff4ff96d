//! Maps: tables of groups (since Go 1.24), or buckets with overflow, of which there are old and new ones while the map
//! grows.
//!
//! Sources: `internal/runtime/maps` (`group.go`: a control byte below 0x80 is a slot in use; `table.go`: a table is found
//! at its first place in the directory, as `index` says), `runtime/map.go` up to Go 1.23 (`tophash`: from 5 on a slot in
//! use, 2 to 4 in the first slot: moved to the new buckets).
//!
//! A map is shown only if as many entries were found as its header counts, or fewer because a limit cut them.

use super::{COUNT_MAX, suspect};
use crate::decode::build::Builder;
use crate::decode::memory::{End, Place, missing, read};
use crate::decode::text;
use crate::layout::{MapForm, MapTables, SLOTS, Slots, TypeIndex};
use crate::limits;
use crate::value::{Scalar, Status, Value};
use std::cmp::Ordering;

/// Bytes of the smallest group: its control word.
const GROUP_BYTES_MIN: u32 = SLOTS;
/// The map grows without more buckets (`sameSizeGrow`).
const FLAG_SAME_SIZE: u8 = 8;
/// Slots of a bucket whose first control byte is one of these have moved (`evacuatedX`, `evacuatedY`, `evacuatedEmpty`).
const MOVED: std::ops::RangeInclusive<u8> = 2..=4;
/// The least control byte of a slot of a bucket that is in use (`minTopHash`).
const TOP_HASH_MIN: u8 = 5;

/// Entries that were found so far.
struct Found<'a> {
    /// Keys and elements, as places.
    entries: Vec<(Place<'a>, Place<'a>)>,
    /// Slots in use, those beyond the limits of a value included.
    count: u64,
    /// Why not all slots were seen.
    cut: Option<End>,
}

/// What the types of a map's entries are.
#[derive(Clone, Copy)]
struct Entry {
    key: TypeIndex,
    key_bytes: u64,
    element: TypeIndex,
    element_bytes: u64,
}

impl<'a> Builder<'a> {
    /// Fills in a map: its children are the elements, named by their keys, in the order of the keys.
    pub(in crate::decode) fn map(
        &mut self,
        value: &mut Value,
        (key, element): (TypeIndex, TypeIndex),
        form: &'a MapForm,
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let address = place.word(0)?;
        if address == 0 {
            value.value = "nil".to_owned();
            value.scalar = Some(Scalar::Map { len: 0, nil: true });
            return Ok(());
        }
        let (Some(key_bytes), Some(element_bytes)) = (self.bytes_of(key), self.bytes_of(element)) else {
            return Err(missing(End::Mismatch));
        };
        if form.slots.bytes < GROUP_BYTES_MIN {
            return Err(missing(End::Mismatch));
        }
        if self.following.contains(&(address, key)) {
            return Err(Status::NotCaptured { detail: "it is shown further up: this leads back".to_owned() });
        }
        let header = self.owned("the map", address, u64::from(form.bytes))?;
        let count = header.word(form.count_at.into())?;
        if count > COUNT_MAX {
            return Err(suspect(format!("a map of {count} entries cannot be")));
        }
        let [writing] = header.part(form.writing_at.into(), 1).array()?;
        if writing & form.writing_mask != 0 {
            return Err(suspect("a goroutine was writing to it"));
        }
        let mut found = Found { entries: Vec::new(), count: 0, cut: None };
        let entry = Entry { key, key_bytes, element, element_bytes };
        match &form.tables {
            MapTables::Swiss { .. } => self.tables(form, header, entry, &mut found)?,
            MapTables::Buckets { .. } => self.buckets(form, header, entry, &mut found)?,
        }
        if found.count > count || found.cut.is_none() && found.count < count {
            let seen = found.count;
            return Err(suspect(format!("it counts {count} entries and has {seen}: it was changed meanwhile")));
        }
        value.scalar = Some(Scalar::Map { len: count, nil: false });
        self.following.push((address, key));
        for (key_place, element_place) in found.entries {
            if self.nodes_left < 2 {
                break;
            }
            let key = self.value(String::new(), entry.key, key_place, depth + 1);
            let mut child = self.value(format!("[{}]", text::part(&key)), entry.element, element_place, depth + 1);
            child.key = Some(Box::new(key));
            value.children.push(child);
        }
        self.following.pop();
        value.children.sort_by(by_key);
        let listed = value.children.len() as u64;
        if listed < count {
            value.status = match found.cut {
                Some(End::Fault(address)) => Status::Unreadable { detail: format!("{address:#x}") },
                _ => Status::Truncated { detail: format!("{listed} of {count} entries") },
            };
        }
        let entries = text::of_entries(&value.children, count);
        value.value = format!("{} len: {count}, {entries}", text::short_type(&value.type_name));
        Ok(())
    }

    fn tables(
        &mut self,
        form: &'a MapForm,
        header: Place<'a>,
        entry: Entry,
        found: &mut Found<'a>,
    ) -> Result<(), Status> {
        let MapTables::Swiss { directory_at, tables_at, table_bytes, index_at, groups_at, mask_at } = form.tables
        else {
            return Ok(());
        };
        let group_bytes = u64::from(form.slots.bytes);
        let (directory, tables) = (header.word(directory_at.into())?, header.word(tables_at.into())?);
        if tables == 0 {
            // An empty map may have no group yet.
            if directory != 0 {
                self.groups(form, read(&self.raw.chunks, directory, group_bytes), 1, entry, found);
            }
            return Ok(());
        }
        if !tables.is_power_of_two() || tables > COUNT_MAX {
            return Err(suspect(format!("a directory of {tables} tables cannot be")));
        }
        let directory = read(&self.raw.chunks, directory, tables.saturating_mul(8));
        let known = directory.bytes.len() as u64 / 8;
        if known < tables {
            found.cut = Some(directory.end);
        }
        for number in 0..known {
            if self.groups_left == 0 {
                found.cut = Some(End::Limit);
                break;
            }
            self.groups_left -= 1;
            let address = directory.word(number * 8)?;
            let table = read(&self.raw.chunks, address, u64::from(table_bytes));
            if table.end != End::Whole {
                found.cut = Some(table.end);
                continue;
            }
            // A table with fewer hash bits than the directory has several places in it.
            let index = table.word(index_at.into())? as i64;
            match i64::try_from(number).unwrap_or(i64::MAX).cmp(&index) {
                Ordering::Greater if index >= 0 => continue,
                Ordering::Equal => {}
                _ => return Err(suspect("one of its tables was replaced meanwhile")),
            }
            let (groups, mask) = (table.word(groups_at.into())?, table.word(mask_at.into())?);
            let count = mask.wrapping_add(1);
            if !count.is_power_of_two() || count > COUNT_MAX {
                return Err(suspect(format!("a table of {count} groups cannot be")));
            }
            let place = read(&self.raw.chunks, groups, count.saturating_mul(group_bytes));
            self.groups(form, place, count, entry, found);
        }
        Ok(())
    }

    /// Groups back to back.
    fn groups(&mut self, form: &'a MapForm, place: Place<'a>, count: u64, entry: Entry, found: &mut Found<'a>) {
        let bytes = u64::from(form.slots.bytes);
        let known = (place.bytes.len() as u64 / bytes).min(count);
        if known < count {
            found.cut = Some(if place.end == End::Whole { End::Mismatch } else { place.end });
        }
        for number in 0..known {
            if self.groups_left == 0 {
                found.cut = Some(End::Limit);
                return;
            }
            self.groups_left -= 1;
            let group = place.part(number * bytes, bytes);
            self.slots(&form.slots, group, |control| control & 0x80 == 0, entry, found);
        }
    }

    fn buckets(
        &mut self,
        form: &'a MapForm,
        header: Place<'a>,
        entry: Entry,
        found: &mut Found<'a>,
    ) -> Result<(), Status> {
        let MapTables::Buckets { power_at, flags_at, buckets_at, old_buckets_at, .. } = form.tables else {
            return Ok(());
        };
        let [power] = header.part(power_at.into(), 1).array()?;
        let [flags] = header.part(flags_at.into(), 1).array()?;
        let (buckets, old) = (header.word(buckets_at.into())?, header.word(old_buckets_at.into())?);
        if power > 44 {
            return Err(suspect(format!("two to the power of {power} buckets cannot be")));
        }
        let count = 1u64 << power;
        if buckets != 0 {
            self.chains(form, buckets, count, entry, found);
        }
        if old != 0 {
            let count = if flags & FLAG_SAME_SIZE != 0 { count } else { count / 2 };
            self.chains(form, old, count, entry, found);
        }
        Ok(())
    }

    /// Buckets back to back, each with those that it overflows into.
    fn chains(&mut self, form: &'a MapForm, address: u64, count: u64, entry: Entry, found: &mut Found<'a>) {
        let MapTables::Buckets { overflow_at, .. } = form.tables else { return };
        let bytes = u64::from(form.slots.bytes);
        let place = read(&self.raw.chunks, address, count.saturating_mul(bytes));
        let known = (place.bytes.len() as u64 / bytes).min(count);
        if known < count {
            found.cut = Some(if place.end == End::Whole { End::Mismatch } else { place.end });
        }
        for number in 0..known {
            let mut bucket = place.part(number * bytes, bytes);
            loop {
                if self.groups_left == 0 {
                    found.cut = Some(End::Limit);
                    return;
                }
                self.groups_left -= 1;
                let first = bucket.part(form.slots.control_at.into(), 1).array::<1>();
                if first.is_ok_and(|[first]| MOVED.contains(&first)) {
                    break;
                }
                self.slots(&form.slots, bucket, |control| control >= TOP_HASH_MIN, entry, found);
                let Ok(overflow) = bucket.word(overflow_at.into()) else { break };
                if overflow == 0 {
                    break;
                }
                bucket = read(&self.raw.chunks, overflow, bytes);
                if bucket.end != End::Whole {
                    found.cut = Some(bucket.end);
                    break;
                }
            }
        }
    }

    /// The slots of one group or bucket.
    fn slots(
        &mut self,
        slots: &Slots,
        group: Place<'a>,
        in_use: impl Fn(u8) -> bool,
        entry: Entry,
        found: &mut Found<'a>,
    ) {
        let Ok(control) = group.part(slots.control_at.into(), SLOTS.into()).array::<{ SLOTS as usize }>() else {
            found.cut = Some(group.end);
            return;
        };
        for (number, control) in (0u64..).zip(control) {
            if !in_use(control) {
                continue;
            }
            found.count += 1;
            if found.entries.len() >= limits::VALUE_CHILDREN_MAX {
                found.cut = Some(End::Limit);
                continue;
            }
            let at = |first: u32, stride: u32| u64::from(first) + number * u64::from(stride);
            let part = |at: u64, bytes: u64, indirect: bool| {
                if !indirect {
                    return group.part(at, bytes);
                }
                match group.word(at) {
                    Ok(address) => read(&self.raw.chunks, address, bytes),
                    Err(_) => group.part(u64::MAX, bytes),
                }
            };
            let key = part(at(slots.keys_at, slots.key_stride), entry.key_bytes, slots.indirect_key);
            let element =
                part(at(slots.elements_at, slots.element_stride), entry.element_bytes, slots.indirect_element);
            found.entries.push((key, element));
        }
    }
}

/// As `fmt` prints maps: numbers by size, texts by bytes, anything else by how it is written.
fn by_key(left: &Value, right: &Value) -> Ordering {
    let scalar = |value: &'_ Value| value.key.as_ref().and_then(|key| key.scalar.clone());
    match (scalar(left), scalar(right)) {
        (Some(Scalar::Int(left)), Some(Scalar::Int(right))) => left.cmp(&right),
        (Some(Scalar::Float(left)), Some(Scalar::Float(right))) => left.total_cmp(&right),
        (Some(Scalar::Text(left)), Some(Scalar::Text(right))) => left.cmp(&right),
        _ => left.name.cmp(&right.name),
    }
}

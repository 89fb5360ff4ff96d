//! What only Go has: strings, slices, interfaces, maps, channels and functions.
//!
//! Go describes its own kinds by vendor attributes (`cmd/internal/dwarf` in Go's source): `DW_AT_go_kind` is
//! `reflect.Kind`, `DW_AT_go_key` and `DW_AT_go_elem` the types of keys and elements, `DW_AT_go_embedded_field` marks
//! embedding, `DW_AT_go_runtime_type` is the offset of the runtime's description of the type from `runtime.types`.
//!
//! The linker makes a type of each map (`map<K,V>`, before Go 1.24 `hash<K,V>`) and channel (`hchan<T>`) from the runtime's
//! own (`cmd/link/internal/ld/dwarf.go`, `synthesizemaptypes` and `synthesizechantypes`): where things are in them is read
//! from there, so that no version's layout is written down here. What does not look as expected is no map.

use super::{Member, ResolveError, Shape};
use crate::symbols::debug_info::{Die, Entry, View};
use gimli::{AttributeValue, DwAt};
use riptrace_protocol::layout::{ChanForm, MapForm, MapTables, Slots};

pub(crate) const DW_AT_GO_KIND: DwAt = DwAt(0x2900);
const DW_AT_GO_KEY: DwAt = DwAt(0x2901);
const DW_AT_GO_ELEM: DwAt = DwAt(0x2902);
pub(super) const DW_AT_GO_EMBEDDED_FIELD: DwAt = DwAt(0x2903);
pub(super) const DW_AT_GO_RUNTIME_TYPE: DwAt = DwAt(0x2904);

// reflect.Kind.
const KIND_CHAN: u64 = 18;
const KIND_FUNC: u64 = 19;
const KIND_INTERFACE: u64 = 20;
const KIND_MAP: u64 = 21;
const KIND_SLICE: u64 = 23;
const KIND_STRING: u64 = 24;

/// Slots of a group or bucket: `abi.MapGroupSlots`, `abi.MapBucketCount`.
const SLOTS: u64 = 8;
/// A key or element that is larger is kept elsewhere: `abi.MapMaxKeyBytes`, `abi.MapMaxElemBytes`.
const INLINE_BYTES_MAX: u64 = 128;
/// Largest group or bucket: eight slots of two inline values, control word and overflow pointer.
const GROUP_BYTES_MAX: u64 = 8 * 2 * INLINE_BYTES_MAX + 16;
/// Largest header of a map or channel: they have 40 to 112 bytes.
const HEADER_BYTES_MAX: u64 = 256;

/// Size and shape of the kinds that are references to what the runtime keeps, and of interfaces.
pub(super) fn reference<'a>(
    view: &View<'a>,
    at: Die,
    entry: &Entry<'a>,
    kind: Option<u64>,
) -> Result<Option<(u64, Shape)>, ResolveError> {
    if entry.tag() == gimli::DW_TAG_subroutine_type && kind.is_some() {
        return Ok(Some((8, Shape::Func)));
    }
    let target = |name| view.target(at.unit, entry.attr_value(name));
    // A pointer to the header.
    let header = || -> Result<Option<Die>, ResolveError> {
        let Some(pointer) = target(gimli::DW_AT_type) else { return Ok(None) };
        match super::read(view, pointer)?.shape {
            Shape::Pointer(to) => Ok(to),
            _ => Ok(None),
        }
    };
    Ok(Some(match kind {
        Some(KIND_FUNC) => (8, Shape::Func),
        Some(KIND_INTERFACE) => {
            let empty = match target(gimli::DW_AT_type) {
                Some(words) => view.name(words)?.as_deref() == Some("runtime.eface"),
                None => return Ok(Some((16, Shape::Opaque("interface")))),
            };
            (16, Shape::Interface { empty, die: at })
        }
        Some(KIND_MAP) => match (target(DW_AT_GO_KEY), target(DW_AT_GO_ELEM), header()?) {
            (Some(key), Some(element), Some(header)) => (8, Shape::Map { key, element, header }),
            _ => (8, Shape::Opaque("map")),
        },
        Some(KIND_CHAN) => match (target(DW_AT_GO_ELEM), header()?) {
            (Some(element), Some(header)) => (8, Shape::Chan { element, header }),
            _ => (8, Shape::Opaque("chan")),
        },
        _ => return Ok(None),
    }))
}

/// Strings and slices: structs with a kind.
pub(super) fn structure<'a>(view: &View<'a>, at: Die, entry: &Entry<'a>, kind: Option<u64>) -> Option<(u64, Shape)> {
    if !matches!(entry.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type) {
        return None;
    }
    match kind? {
        KIND_STRING => Some((16, Shape::GoString)),
        KIND_SLICE => Some(match view.target(at.unit, entry.attr_value(DW_AT_GO_ELEM)) {
            Some(element) => (24, Shape::GoSlice(element)),
            None => (24, Shape::Opaque("slice of an unknown type")),
        }),
        _ => None,
    }
}

/// Offset of the runtime's description of a type from `runtime.types`; `None` where there is none.
pub(in crate::symbols) fn runtime_type(entry: &Entry<'_>) -> Option<u64> {
    let offset = match entry.attr_value(DW_AT_GO_RUNTIME_TYPE)? {
        // Its form is that of an address.
        AttributeValue::Addr(offset) => offset,
        other => other.udata_value()?,
    };
    Some(offset).filter(|&offset| offset != 0)
}

/// The fields of a struct.
struct Fields {
    bytes: u64,
    members: Vec<Member>,
}

impl Fields {
    fn of(view: &View<'_>, die: Die) -> Result<Option<Fields>, ResolveError> {
        let facts = super::read(view, die)?;
        Ok(match facts.shape {
            Shape::Struct(members) => Some(Fields { bytes: facts.bytes, members }),
            _ => None,
        })
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Offset of a field that lies within the struct.
    fn at(&self, name: &str, bytes: u64) -> Option<u32> {
        let at = self.member(name)?.offset;
        at.checked_add(bytes).filter(|&end| end <= self.bytes)?;
        u32::try_from(at).ok()
    }

    fn ty(&self, name: &str) -> Option<Die> {
        self.member(name)?.ty
    }
}

/// What the pointer type at `die` points to.
fn pointee(view: &View<'_>, die: Option<Die>) -> Result<Option<Die>, ResolveError> {
    let Some(die) = die else { return Ok(None) };
    Ok(match super::read(view, die)?.shape {
        Shape::Pointer(to) => to,
        _ => None,
    })
}

/// Where things are in a map; `None` where its header is none that is known.
pub(crate) fn map_form(
    view: &View<'_>,
    header: Die,
    key_bytes: u64,
    element_bytes: u64,
) -> Result<Option<MapForm>, ResolveError> {
    let Some(fields) = Fields::of(view, header)? else { return Ok(None) };
    if fields.bytes > HEADER_BYTES_MAX {
        return Ok(None);
    }
    let indirect = (key_bytes > INLINE_BYTES_MAX, element_bytes > INLINE_BYTES_MAX);
    let form = if fields.member("dirPtr").is_some() {
        swiss(view, &fields, indirect)?
    } else {
        buckets(view, &fields, indirect)?
    };
    Ok(form.filter(|form| {
        let Slots { bytes, control_at, keys_at, key_stride, elements_at, element_stride, .. } = form.slots;
        let in_place = |bytes: u64, indirect: bool| if indirect { 8 } else { bytes };
        let fits = |at: u32, stride: u32, one: u64| {
            u64::from(at) + (SLOTS - 1) * u64::from(stride) + one <= u64::from(bytes) && u64::from(stride) >= one
        };
        u64::from(bytes) <= GROUP_BYTES_MAX
            && u64::from(control_at) + SLOTS <= u64::from(bytes)
            && fits(keys_at, key_stride, in_place(key_bytes, indirect.0))
            && fits(elements_at, element_stride, in_place(element_bytes, indirect.1))
    }))
}

/// Since Go 1.24: `internal/runtime/maps`.
fn swiss(view: &View<'_>, map: &Fields, indirect: (bool, bool)) -> Result<Option<MapForm>, ResolveError> {
    let Some(table) = pointee(view, pointee(view, map.ty("dirPtr"))?)? else { return Ok(None) };
    let Some(table) = Fields::of(view, table)? else { return Ok(None) };
    let Some(reference) = table.ty("groups") else { return Ok(None) };
    let Some(reference) = Fields::of(view, reference)? else { return Ok(None) };
    let Some(group) = pointee(view, reference.ty("data"))? else { return Ok(None) };
    let Some(group) = Fields::of(view, group)? else { return Ok(None) };
    let slots = match group.member("slots") {
        Some(slots) => {
            let Some(of) = slots.ty else { return Ok(None) };
            let array = super::read(view, of)?;
            let Shape::Array { element, count: SLOTS } = array.shape else { return Ok(None) };
            let Some(slot) = Fields::of(view, element)? else { return Ok(None) };
            let (Some(key), Some(element)) = (slot.at("key", 0), slot.at("elem", 0)) else { return Ok(None) };
            let Ok(at) = u32::try_from(slots.offset) else { return Ok(None) };
            let stride = (array.bytes / SLOTS) as u32;
            (at.saturating_add(key), stride, at.saturating_add(element), stride)
        }
        // GOEXPERIMENT=mapsplitgroup, since 1.27: all keys, then all elements.
        None => {
            let stride = |name| -> Result<Option<u32>, ResolveError> {
                let Some(of) = group.ty(name) else { return Ok(None) };
                Ok(Some((super::read(view, of)?.bytes / SLOTS) as u32))
            };
            let (Some(keys), Some(elements)) = (group.at("keys", 0), group.at("elems", 0)) else { return Ok(None) };
            let (Some(key), Some(element)) = (stride("keys")?, stride("elems")?) else { return Ok(None) };
            (keys, key, elements, element)
        }
    };
    let form = || {
        let groups_at = table.at("groups", 16)?;
        Some(MapForm {
            bytes: map.bytes as u32,
            count_at: map.at("used", 8)?,
            writing_at: map.at("writing", 1)?,
            writing_mask: 0xff,
            slots: Slots {
                bytes: u32::try_from(group.bytes).ok()?,
                control_at: group.at("ctrl", SLOTS)?,
                keys_at: slots.0,
                key_stride: slots.1,
                elements_at: slots.2,
                element_stride: slots.3,
                indirect_key: indirect.0,
                indirect_element: indirect.1,
            },
            tables: MapTables::Swiss {
                directory_at: map.at("dirPtr", 8)?,
                tables_at: map.at("dirLen", 8)?,
                table_bytes: u32::try_from(table.bytes).ok().filter(|&bytes| u64::from(bytes) <= HEADER_BYTES_MAX)?,
                index_at: table.at("index", 8)?,
                groups_at: groups_at.checked_add(reference.at("data", 8)?)?,
                mask_at: groups_at.checked_add(reference.at("lengthMask", 8)?)?,
            },
        })
    };
    Ok(form())
}

/// Before Go 1.24: `runtime/map.go`.
fn buckets(view: &View<'_>, map: &Fields, indirect: (bool, bool)) -> Result<Option<MapForm>, ResolveError> {
    let Some(bucket) = pointee(view, map.ty("buckets"))? else { return Ok(None) };
    let Some(bucket) = Fields::of(view, bucket)? else { return Ok(None) };
    let stride = |name| -> Result<Option<u32>, ResolveError> {
        let Some(of) = bucket.ty(name) else { return Ok(None) };
        Ok(Some((super::read(view, of)?.bytes / SLOTS) as u32))
    };
    let (Some(key_stride), Some(element_stride)) = (stride("keys")?, stride("values")?) else { return Ok(None) };
    let form = || {
        Some(MapForm {
            bytes: map.bytes as u32,
            count_at: map.at("count", 8)?,
            writing_at: map.at("flags", 1)?,
            // hashWriting
            writing_mask: 4,
            slots: Slots {
                bytes: u32::try_from(bucket.bytes).ok()?,
                control_at: bucket.at("tophash", SLOTS)?,
                keys_at: bucket.at("keys", 0)?,
                key_stride,
                elements_at: bucket.at("values", 0)?,
                element_stride,
                indirect_key: indirect.0,
                indirect_element: indirect.1,
            },
            tables: MapTables::Buckets {
                // The word at `B` is read for its lowest byte.
                power_at: map.at("B", 8)?,
                flags_at: map.at("flags", 1)?,
                buckets_at: map.at("buckets", 8)?,
                old_buckets_at: map.at("oldbuckets", 8)?,
                overflow_at: bucket.at("overflow", 8)?,
            },
        })
    };
    Ok(form())
}

/// Where things are in a channel; `None` where its header is none that is known.
pub(crate) fn chan_form(view: &View<'_>, header: Die) -> Result<Option<ChanForm>, ResolveError> {
    let Some(fields) = Fields::of(view, header)? else { return Ok(None) };
    if fields.bytes > HEADER_BYTES_MAX {
        return Ok(None);
    }
    let queue = |name| -> Result<Option<(u32, Fields)>, ResolveError> {
        let (Some(at), Some(ty)) = (fields.at(name, 16), fields.ty(name)) else { return Ok(None) };
        let Some(queue) = Fields::of(view, ty)? else { return Ok(None) };
        let Some(waiting) = pointee(view, queue.ty("first"))? else { return Ok(None) };
        let Some(waiting) = Fields::of(view, waiting)? else { return Ok(None) };
        Ok(queue.at("first", 8).map(|first| (at + first, waiting)))
    };
    let (Some((receivers_at, waiting)), Some((senders_at, _))) = (queue("recvq")?, queue("sendq")?) else {
        return Ok(None);
    };
    let form = || {
        Some(ChanForm {
            bytes: fields.bytes as u32,
            count_at: fields.at("qcount", 8)?,
            capacity_at: fields.at("dataqsiz", 8)?,
            buffer_at: fields.at("buf", 8)?,
            closed_at: fields.at("closed", 4)?,
            first_at: fields.at("recvx", 8)?,
            receivers_at,
            senders_at,
            next_at: waiting.at("next", 8).filter(|&at| u64::from(at) < HEADER_BYTES_MAX)?,
        })
    };
    Ok(form())
}

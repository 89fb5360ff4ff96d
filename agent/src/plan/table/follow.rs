//! What to follow in each type of a layout, and which bytes are secrets.

use super::ValueLimits;
use super::native::{native_leads_on, parts_of};
use crate::capture::program::{Case, Count, Follow, FollowIndex, Key, RUN_ELEMENTS_MAX, Reach};
use riptrace_protocol::layout::{
    ChanForm, DynamicType, FunctionCase, MapForm, MapTables, REDACTED, SLOTS, Slots, Type, TypeIndex, TypeKind,
};

/// Nesting of values in values that is looked through for pointers and secrets: real types have a dozen levels, and
/// damaged ones contain themselves.
const NESTING_MAX: usize = 48;
/// Secret ranges of one value that are told apart, at most; a value with more is redacted as a whole.
const SECRET_RANGES_MAX: usize = 256;
/// Largest element of a channel whose whole buffer is captured (up to the limit of every run), in bytes: what waits in it
/// may be anywhere in it. Buffers of larger ones are cut by the tracepoint's limit of elements.
pub(super) const BUFFERED_BYTES_MAX: u64 = 8;

/// Whether a pointer is a link of a chain that a person reads as one value: errors that wrap errors, contexts. Such a
/// pointer uses up nothing of the depth; the bytes and the number of chunks of a hit bound the chain.
pub(super) fn is_link(name: &str) -> bool {
    matches!(
        name,
        "*errors.errorString"
            | "*errors.joinError"
            | "*fmt.wrapError"
            | "*fmt.wrapErrors"
            | "*io/fs.PathError"
            | "*os.SyscallError"
            | "*net.OpError"
            | "*net/url.Error"
            | "*strconv.NumError"
            | "*context.emptyCtx"
            | "*context.valueCtx"
            | "*context.cancelCtx"
            | "*context.timerCtx"
            // What labels a goroutine belongs to it.
            | "*runtime/pprof.labelMap"
    )
}

/// The follow table: an entry for each type, within its limits, then what else they lead to.
pub(super) fn of(types: &[Type], limits: &[ValueLimits]) -> Vec<Follow> {
    let mut follow = vec![Follow::Plain; types.len()];
    for (index, &limits) in limits.iter().enumerate().take(types.len()) {
        let mut table = Table { types, limits, follow };
        table.follow[index] = table.of(index);
        follow = table.follow;
    }
    follow
}

pub(super) struct Table<'t> {
    pub(super) types: &'t [Type],
    /// How much of a value of the type at hand is captured.
    pub(super) limits: ValueLimits,
    pub(super) follow: Vec<Follow>,
}

pub(super) fn at(index: TypeIndex) -> FollowIndex {
    FollowIndex(index.0)
}

fn here(follow: FollowIndex) -> Case {
    Case { reach: Reach::Here, follow }
}

impl Table<'_> {
    pub(super) fn add(&mut self, follow: Follow) -> FollowIndex {
        self.follow.push(follow);
        FollowIndex(self.follow.len() as u32 - 1)
    }

    pub(super) fn bytes(&self, index: TypeIndex) -> u64 {
        self.types.get(index.0 as usize).map_or(0, |ty| ty.bytes)
    }

    /// Elements that are captured of a buffer that begins anew where it ends: the first may be anywhere in it.
    pub(super) fn buffered(&self, element_bytes: u64) -> u32 {
        if element_bytes > BUFFERED_BYTES_MAX { self.limits.elements } else { RUN_ELEMENTS_MAX }
    }

    /// Whether a value can be read without reading a secret.
    pub(super) fn is_open(&self, index: TypeIndex) -> bool {
        readable_bytes(self.types, index) == self.bytes(index)
    }

    /// What to follow in the type at `index`.
    fn of(&mut self, index: usize) -> Follow {
        let types = self.types;
        match types.get(index).map(|ty| &ty.kind) {
            Some(TypeKind::Pointer { to: Some(to) }) => match readable_bytes(types, *to) {
                0 => Follow::Plain,
                bytes if is_link(&types[index].name) => Follow::Owned { bytes, to: at(*to) },
                bytes => Follow::Pointer { bytes, to: at(*to) },
            },
            Some(TypeKind::GoString) => Follow::GoString { most: self.limits.string_bytes },
            Some(TypeKind::GoSlice { element }) => {
                // Elements lie back to back: there is no way to read them without their secrets.
                match self.bytes(*element) {
                    0 => Follow::Plain,
                    _ if !self.is_open(*element) => Follow::Plain,
                    element_bytes => {
                        Follow::GoSlice { element_bytes, element: at(*element), most: self.limits.elements }
                    }
                }
            }
            Some(TypeKind::Array { element, count }) if leads_on(types, *element, 0) => {
                let (count, element_bytes, most) = (*count, self.bytes(*element), self.limits.elements);
                Follow::Array { count, element_bytes, element: at(*element), most }
            }
            Some(TypeKind::Struct { fields }) => {
                let fields: Vec<_> = fields
                    .iter()
                    .filter(|field| leads_on(types, field.ty, 0))
                    .map(|field| (field.offset, at(field.ty)))
                    .collect();
                if fields.is_empty() { Follow::Plain } else { Follow::Struct { fields } }
            }
            Some(TypeKind::GoInterface { empty, cases, .. }) => self.interface(*empty, cases),
            Some(TypeKind::GoMap { key, element, form }) => self.map(*key, *element, form),
            Some(TypeKind::GoChan { element, form }) => self.chan(*element, form),
            Some(TypeKind::GoFunc { functions }) => self.func(functions),
            Some(TypeKind::Native(kind)) => self.native(kind),
            _ => Follow::Plain,
        }
    }

    fn interface(&mut self, empty: bool, cases: &[DynamicType]) -> Follow {
        let cases: Vec<_> = cases
            .iter()
            .filter_map(|case| {
                let follow = if case.direct {
                    leads_on(self.types, case.ty, 0).then(|| at(case.ty))?
                } else {
                    match readable_bytes(self.types, case.ty) {
                        0 => return None,
                        bytes => self.add(Follow::Owned { bytes, to: at(case.ty) }),
                    }
                };
                Some((case.address, here(follow)))
            })
            .collect();
        if empty && cases.is_empty() {
            return Follow::Plain;
        }
        // `abi.ITab`: Inter, Type. It is captured even where no type is known: it tells which one it is.
        let key = if empty { Key::Word { at: 0, bytes: 8 } } else { Key::Through { at: 0, offset: 8, bytes: 16 } };
        Follow::Switch { key, value_at: 8, cases, otherwise: None }
    }

    fn map(&mut self, key: TypeIndex, element: TypeIndex, form: &MapForm) -> Follow {
        let bytes = u64::from(form.bytes);
        // Entries lie side by side: there is no way to read them without their secrets.
        if !self.is_open(key) || !self.is_open(element) {
            return Follow::Owned { bytes, to: self.add(Follow::Plain) };
        }
        let Slots { keys_at, key_stride, elements_at, element_stride, indirect_key, indirect_element, .. } = form.slots;
        let mut fields = Vec::new();
        for (ty, first, stride, indirect) in
            [(key, keys_at, key_stride, indirect_key), (element, elements_at, element_stride, indirect_element)]
        {
            let follow = if indirect {
                Some(self.add(Follow::Owned { bytes: self.bytes(ty), to: at(ty) }))
            } else {
                leads_on(self.types, ty, 0).then(|| at(ty))
            };
            if let Some(follow) = follow {
                let offset = |slot: u32| u64::from(first) + u64::from(slot) * u64::from(stride);
                fields.extend((0..SLOTS).map(|slot| (offset(slot), follow)));
            }
        }
        let group_bytes = u64::from(form.slots.bytes);
        let run = |address_at: u32, count_at: u32, count, element_bytes, element, most| Follow::Run {
            address_at: u64::from(address_at),
            count_at: u64::from(count_at),
            count,
            element_bytes,
            element,
            most,
        };
        let clamped = self.limits.elements;
        let header = match form.tables {
            MapTables::Swiss { directory_at, tables_at, table_bytes, groups_at, mask_at, .. } => {
                let group = self.add(if fields.is_empty() { Follow::Plain } else { Follow::Struct { fields } });
                // Without a directory, the number of tables is 0: as a mask it makes one group.
                let single = self.add(run(directory_at, tables_at, Count::Mask, group_bytes, group, RUN_ELEMENTS_MAX));
                let groups = self.add(run(groups_at, mask_at, Count::Mask, group_bytes, group, clamped));
                let table = self.add(Follow::Owned { bytes: u64::from(table_bytes), to: groups });
                let directory = self.add(run(directory_at, tables_at, Count::Word, 8, table, RUN_ELEMENTS_MAX));
                Follow::Switch {
                    key: Key::Word { at: u64::from(tables_at), bytes: 8 },
                    value_at: 0,
                    cases: vec![(0, here(single))],
                    otherwise: Some(here(directory)),
                }
            }
            MapTables::Buckets { power_at, buckets_at, old_buckets_at, overflow_at, .. } => {
                let bucket = self.add(Follow::Plain);
                let overflow = self.add(Follow::Owned { bytes: group_bytes, to: bucket });
                fields.push((u64::from(overflow_at), overflow));
                self.follow[bucket.0 as usize] = Follow::Struct { fields };
                let now = self.add(run(buckets_at, power_at, Count::Power, group_bytes, bucket, clamped));
                // Half as many, most of the time: what is read beyond them is not looked at.
                let old = self.add(run(old_buckets_at, power_at, Count::Power, group_bytes, bucket, clamped));
                Follow::Struct { fields: vec![(0, now), (0, old)] }
            }
        };
        Follow::Owned { bytes, to: self.add(header) }
    }

    fn chan(&mut self, element: TypeIndex, form: &ChanForm) -> Follow {
        let mut fields = Vec::new();
        let element_bytes = self.bytes(element);
        if element_bytes > 0 && self.is_open(element) {
            let buffer = self.add(Follow::Run {
                address_at: u64::from(form.buffer_at),
                count_at: u64::from(form.capacity_at),
                count: Count::Word,
                element_bytes,
                element: at(element),
                most: self.buffered(element_bytes),
            });
            fields.push((0, buffer));
        }
        // Who waits is in a list: the first belongs to the channel, the others are behind as many pointers.
        let bytes = u64::from(form.next_at) + 8;
        let waiting = self.add(Follow::Plain);
        let next = self.add(Follow::Pointer { bytes, to: waiting });
        self.follow[waiting.0 as usize] = Follow::Struct { fields: vec![(u64::from(form.next_at), next)] };
        let first = self.add(Follow::Owned { bytes, to: waiting });
        fields.extend([(u64::from(form.receivers_at), first), (u64::from(form.senders_at), first)]);
        let header = self.add(Follow::Struct { fields });
        Follow::Owned { bytes: u64::from(form.bytes), to: header }
    }

    fn func(&mut self, functions: &[FunctionCase]) -> Follow {
        let mut cases = Vec::new();
        for function in functions.iter().filter(|function| !function.captured.is_empty()) {
            let captured = &function.captured;
            let is_redacted = |ty: TypeIndex| {
                self.types
                    .get(ty.0 as usize)
                    .is_some_and(|ty| matches!(&ty.kind, TypeKind::Opaque { what } if what == REDACTED))
            };
            // What is captured is read up to the first secret.
            let secret =
                captured.iter().filter(|it| is_redacted(it.ty) || !self.is_open(it.ty)).map(|it| it.offset).min();
            let bytes = secret.unwrap_or(u64::MAX).min(u64::from(function.bytes));
            let fields: Vec<_> = captured
                .iter()
                .filter(|it| it.offset < bytes && leads_on(self.types, it.ty, 0))
                .map(|it| (it.offset, at(it.ty)))
                .collect();
            let object = self.add(Follow::Struct { fields });
            cases.push((function.address, here(self.add(Follow::Owned { bytes, to: object }))));
        }
        Follow::Switch { key: Key::Through { at: 0, offset: 0, bytes: 8 }, value_at: 0, cases, otherwise: None }
    }
}

/// Whether there is something to follow in a value of a type.
pub(super) fn leads_on(types: &[Type], index: TypeIndex, nesting: usize) -> bool {
    if nesting > NESTING_MAX {
        return false;
    }
    match types.get(index.0 as usize).map(|ty| &ty.kind) {
        Some(TypeKind::Pointer { to }) => to.is_some(),
        Some(TypeKind::GoString | TypeKind::GoSlice { .. }) => true,
        Some(TypeKind::GoMap { .. } | TypeKind::GoChan { .. } | TypeKind::GoFunc { .. }) => true,
        Some(TypeKind::GoInterface { empty, cases, .. }) => !empty || !cases.is_empty(),
        Some(TypeKind::Native(kind)) => native_leads_on(types, kind, nesting),
        Some(TypeKind::Array { element, count }) => *count > 0 && leads_on(types, *element, nesting + 1),
        Some(TypeKind::Struct { fields }) => fields.iter().any(|field| leads_on(types, field.ty, nesting + 1)),
        _ => false,
    }
}

/// Bytes of a value before its first secret; all of them where it has none.
pub(super) fn readable_bytes(types: &[Type], index: TypeIndex) -> u64 {
    let bytes = types.get(index.0 as usize).map_or(0, |ty| ty.bytes);
    match secret_ranges(types, index) {
        Some(ranges) => ranges.first().map_or(bytes, |&(start, _)| start.min(bytes)),
        None => 0,
    }
}

/// Where the secrets in a value of a type are: start and end, in order. `None` where they cannot be told apart.
pub(in crate::plan) fn secret_ranges(types: &[Type], index: TypeIndex) -> Option<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut steps_left = 1 << 14;
    collect_secrets(types, index, 0, 0, &mut ranges, &mut steps_left)?;
    ranges.sort_unstable();
    Some(ranges)
}

fn collect_secrets(
    types: &[Type],
    index: TypeIndex,
    at: u64,
    nesting: usize,
    ranges: &mut Vec<(u64, u64)>,
    steps_left: &mut usize,
) -> Option<()> {
    *steps_left = steps_left.checked_sub(1)?;
    if nesting > NESTING_MAX || ranges.len() > SECRET_RANGES_MAX {
        return None;
    }
    let ty = types.get(index.0 as usize)?;
    match &ty.kind {
        TypeKind::Struct { fields } => {
            for (number, field) in fields.iter().enumerate() {
                let start = at.saturating_add(field.offset);
                if is_redacted(types, field.ty) {
                    // The field's own size is not kept: it reaches to the next field, or to the end.
                    let next = fields[number + 1..].iter().map(|next| next.offset).find(|&next| next > field.offset);
                    ranges.push((start, at.saturating_add(next.unwrap_or(ty.bytes))));
                } else {
                    collect_secrets(types, field.ty, start, nesting + 1, ranges, steps_left)?;
                }
            }
        }
        TypeKind::Array { element, count } => {
            let before = ranges.len();
            let bytes = types.get(element.0 as usize)?.bytes;
            for number in 0..*count {
                let start = at.saturating_add(number.saturating_mul(bytes));
                collect_secrets(types, *element, start, nesting + 1, ranges, steps_left)?;
                // The first element has none, so no other has.
                if ranges.len() == before {
                    break;
                }
            }
        }
        TypeKind::Native(kind) => {
            for (offset, part) in parts_of(kind) {
                let start = at.saturating_add(offset);
                match is_redacted(types, part) {
                    true => ranges.push((start, at.saturating_add(ty.bytes))),
                    false => collect_secrets(types, part, start, nesting + 1, ranges, steps_left)?,
                }
            }
        }
        _ => {}
    }
    Some(())
}

fn is_redacted(types: &[Type], index: TypeIndex) -> bool {
    types.get(index.0 as usize).is_some_and(|ty| matches!(&ty.kind, TypeKind::Opaque { what } if what == REDACTED))
}

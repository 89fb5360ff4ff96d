//! Values of Rust, C and C++: texts, sequences, references, variants, unions, bit fields; read as the layout states.
//!
//! What a program leaves uninitialised looks like a value in these languages, so each rule that a value must obey is
//! checked: a character is one, a tag means a variant, a length fits an address space. What breaks one is suspect. Nodes
//! of lists and trees are counted: a structure that is changed while it is captured, or damaged, says how much was read.

use super::build::{Builder, elements_text, plausible, whole_characters};
use super::memory::{End, Place, missing, read};
use super::text;
use crate::expression::quote;
use crate::layout::{
    B_TREE_ENTRIES_MAX, BTreeForm, COUNTS_BYTES, DynamicType, Field, NativeKind, ObjectTable, SequenceLength, Type,
    TypeIndex, TypeKind, Variant,
};
use crate::limits;
use crate::value::{Number, Scalar, Status, Value};

/// Levels of a tree, at most: a balanced one of all nodes that a hit can hold has a dozen.
const LEVELS_MAX: usize = 128;
/// Levels above the leaves of a B-tree, at most: a hundred million entries have eleven.
const B_TREE_HEIGHT_MAX: u64 = 16;

impl<'a> Builder<'a> {
    /// Fills in a value. An error is the status of a value that is not there.
    pub(super) fn native(
        &mut self,
        value: &mut Value,
        kind: &'a NativeKind,
        ty: &Type,
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        match kind {
            NativeKind::Char => {
                let number = u32::from_le_bytes(place.array()?);
                let character =
                    char::from_u32(number).ok_or_else(|| suspect(format!("{number:#x} is no character")))?;
                value.value = quote::rune(character);
                value.scalar = Some(Scalar::Int(number.into()));
                value.facts.number = Some(Number::Unsigned { bits: 32 });
            }
            NativeKind::CharArray => return self.characters(value, ty.bytes, place),
            NativeKind::CharPointer => return self.char_pointer(value, place.word(0)?),
            NativeKind::Text { address_at, length_at } => {
                let (address, length) = (place.word((*address_at).into())?, place.word((*length_at).into())?);
                return self.string(value, address, length);
            }
            NativeKind::Sequence { address_at, length, element } => {
                let address = place.word((*address_at).into())?;
                let length = match *length {
                    SequenceLength::Count(at) => Ok(place.word(at.into())?),
                    SequenceLength::End(at) => Err(place.word(at.into())?),
                };
                return self.sequence(value, *element, address, length, depth);
            }
            NativeKind::Shared { address_at, length_at, element } => {
                let counts = place.word((*address_at).into())?;
                let length = place.word((*length_at).into())?;
                // There always are counts, also in front of nothing.
                let address = counts.checked_add(COUNTS_BYTES).filter(|_| counts != 0);
                let address = address.ok_or_else(|| suspect(format!("there can be nothing at {counts:#x}")))?;
                return match element {
                    Some(element) => self.sequence(value, *element, address, Ok(length), depth),
                    None => self.string(value, address, length),
                };
            }
            NativeKind::List { first_at, count_at, entry_at, entry } => {
                let (first, count) = (place.word((*first_at).into())?, place.word((*count_at).into())?);
                return self.list(value, (first, count), *entry_at, *entry, depth);
            }
            NativeKind::Tree { .. } => return self.tree(value, kind, place, depth),
            NativeKind::Ring { .. } => return self.ring(value, kind, place, depth),
            NativeKind::HashTable { .. } => return self.hash_table(value, kind, place, depth),
            NativeKind::BTree(form) => return self.b_tree(value, form, place, depth),
            NativeKind::Object { at, table, cases } => {
                let address = place.word((*at).into())?;
                self.object(value, address, *table, cases, place, depth)?;
            }
            NativeKind::Part { at, ty } => {
                let bytes = self.bytes_of(*ty).ok_or_else(|| missing(End::Mismatch))?;
                let inner = self.value(value.name.clone(), *ty, place.part((*at).into(), bytes), depth + 1);
                // It is the part, under the wrapper's name.
                let type_name = std::mem::take(&mut value.type_name);
                *value = Value { type_name, ..inner };
            }
            NativeKind::Reference { at, to } => {
                let address = place.word((*at).into())?;
                self.reference(value, address, *to, depth);
            }
            NativeKind::Union { fields } => {
                self.structure(value, fields, place, depth);
            }
            NativeKind::Bits { ty, shift, bits } => return self.bits(value, *ty, (*shift, *bits), place),
            NativeKind::Variants { tag, variants } => return self.variants(value, *tag, variants, place, depth),
        }
        Ok(())
    }

    /// An address of something whose type a table tells.
    fn object(
        &mut self,
        value: &mut Value,
        address: u64,
        table: ObjectTable,
        cases: &[DynamicType],
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let of = |table: u64| {
            let found = cases.binary_search_by_key(&table, |case| case.address);
            found.ok().map(|number| cases[number].ty)
        };
        match table {
            ObjectTable::Beside { at } => {
                let table = place.word(at.into())?;
                let found = of(table);
                self.reference(value, address, found, depth);
                if address != 0 && found.is_none() {
                    let detail = format!("its type, told by the table at {table:#x}, is none that was prepared for");
                    let name = format!("*{}", value.name);
                    value.children.push(Value::missing(name, "", Status::NotCaptured { detail }));
                }
            }
            ObjectTable::First { declared, is_reference } => {
                let table = read(&self.raw.chunks, address, 8).word(0).ok();
                let ty = table.and_then(of).unwrap_or(declared);
                match is_reference {
                    true => self.reference(value, address, Some(ty), depth),
                    false => self.pointer(value, address, Some(ty), depth),
                }
            }
        }
        Ok(())
    }

    /// An address that is shown as what is there.
    fn reference(&mut self, value: &mut Value, address: u64, to: Option<TypeIndex>, depth: usize) {
        self.pointer(value, address, to, depth);
        if let [pointee] = value.children.as_slice()
            && pointee.status.is_shown()
            && !pointee.value.is_empty()
        {
            value.value = text::part(pointee);
        }
    }

    /// Characters in place, up to the first zero.
    fn characters(&mut self, value: &mut Value, bytes: u64, place: Place<'a>) -> Result<(), Status> {
        if place.bytes.is_empty() && bytes > 0 {
            return Err(missing(place.end));
        }
        let text = match place.bytes.iter().position(|&byte| byte == 0) {
            Some(end) => &place.bytes[..end],
            // All of it, as a field of a fixed width, or all that is there.
            None => place.bytes,
        };
        let ends = text.len() < place.bytes.len() || place.end == End::Whole;
        self.show(value, text, ends, place.end)
    }

    fn char_pointer(&mut self, value: &mut Value, address: u64) -> Result<(), Status> {
        if address == 0 {
            value.value = "0x0".to_owned();
            value.scalar = Some(Scalar::Address(0));
            return Ok(());
        }
        let place = read(&self.raw.chunks, address, limits::HIT_BYTES_MAX as u64);
        if place.bytes.is_empty() {
            value.value = format!("{address:#x}");
            value.scalar = Some(Scalar::Address(address));
            value.children.push(Value::missing(
                format!("*{}", value.name),
                "char",
                match place.end {
                    End::Fault(at) => Status::Unreadable { detail: format!("{at:#x}") },
                    _ => Status::NotCaptured {
                        detail: "the text was not read (limits: depth, bytes per hit)".to_owned(),
                    },
                },
            ));
            return Ok(());
        }
        match place.bytes.iter().position(|&byte| byte == 0) {
            Some(end) => self.show(value, &place.bytes[..end], true, place.end),
            None => self.show(value, place.bytes, false, place.end),
        }
    }

    /// A text that is all there, or the first of it.
    fn show(&mut self, value: &mut Value, text: &[u8], is_all: bool, end: End) -> Result<(), Status> {
        let shown = &text[..text.len().min(self.text_left)];
        self.text_left -= shown.len();
        if is_all && shown.len() == text.len() {
            value.value = quote::text(shown);
            value.scalar = Some(Scalar::Text(shown.to_vec()));
            return Ok(());
        }
        value.value = format!("{}...", quote::text(whole_characters(shown)));
        value.status = match end {
            End::Fault(at) => Status::Unreadable { detail: format!("{at:#x}") },
            _ => Status::Truncated { detail: format!("its first {} bytes", shown.len()) },
        };
        Ok(())
    }

    /// `length`: the number of elements, or (`Err`) the address behind the last.
    fn sequence(
        &mut self,
        value: &mut Value,
        element: TypeIndex,
        address: u64,
        length: Result<u64, u64>,
        depth: usize,
    ) -> Result<(), Status> {
        let element_bytes = self.bytes_of(element).ok_or_else(|| missing(End::Mismatch))?;
        let length = match length {
            Ok(length) => length,
            Err(end) => {
                let bytes = end.checked_sub(address).ok_or_else(|| suspect("it ends before it begins"))?;
                match bytes.checked_rem(element_bytes) {
                    Some(0) => bytes / element_bytes,
                    _ => return Err(suspect(format!("its {bytes} bytes are no whole elements of {element_bytes}"))),
                }
            }
        };
        // Nothing at all may be anywhere, also at no address.
        if length > 0 {
            plausible("sequence", address, length, length.saturating_mul(element_bytes.max(1)))?;
        }
        value.scalar = Some(Scalar::Sequence { len: length, cap: None, nil: false });
        let place = read(&self.raw.chunks, address, length.saturating_mul(element_bytes));
        self.elements(value, (element, element_bytes), length, place, depth);
        value.value = format!("len: {length}, {}", elements_text(&value.children, length));
        Ok(())
    }

    /// The elements of a ring, from its first one on.
    fn ring(&mut self, value: &mut Value, kind: &'a NativeKind, place: Place<'a>, depth: usize) -> Result<(), Status> {
        let NativeKind::Ring { address_at, capacity_at, first_at, length_at, element } = *kind else { return Ok(()) };
        let bytes = self.bytes_of(element).ok_or_else(|| missing(End::Mismatch))?;
        let [address, capacity, first, length] = [
            place.word(address_at.into())?,
            place.word(capacity_at.into())?,
            place.word(first_at.into())?,
            place.word(length_at.into())?,
        ];
        if length > capacity || first >= capacity.max(1) {
            return Err(suspect(format!("{length} elements from {first} on do not fit a buffer of {capacity}")));
        }
        if capacity > 0 {
            plausible("buffer", address, capacity, capacity.saturating_mul(bytes.max(1)))?;
        }
        value.scalar = Some(Scalar::Sequence { len: length, cap: None, nil: false });
        let buffer = read(&self.raw.chunks, address, capacity.saturating_mul(bytes));
        for number in 0..length.min(limits::VALUE_CHILDREN_MAX as u64) {
            // Neither is beyond the capacity, which an address space holds.
            let at = (first + number) % capacity * bytes;
            let part = buffer.part(at, bytes);
            if self.nodes_left == 0 || part.end != End::Whole {
                break;
            }
            let child = self.value(format!("[{number}]"), element, part, depth + 1);
            value.children.push(child);
        }
        let listed = value.children.len() as u64;
        if listed < length {
            value.status = match buffer.end {
                End::Fault(at) => Status::Unreadable { detail: format!("{at:#x}") },
                _ => Status::Truncated { detail: format!("{listed} of {length} elements") },
            };
        }
        value.value = format!("len: {length}, {}", elements_text(&value.children, length));
        Ok(())
    }

    fn list(
        &mut self,
        value: &mut Value,
        (first, count): (u64, u64),
        entry_at: u32,
        entry: TypeIndex,
        depth: usize,
    ) -> Result<(), Status> {
        let bytes = self.bytes_of(entry).ok_or_else(|| missing(End::Mismatch))?;
        let mut at = first;
        let mut end = End::Whole;
        while at != 0 && (value.children.len() as u64) < count {
            if self.nodes_left == 0 || value.children.len() >= limits::VALUE_CHILDREN_MAX {
                end = End::Limit;
                break;
            }
            let node = read(&self.raw.chunks, at, u64::from(entry_at) + bytes);
            if node.end != End::Whole {
                end = node.end;
                break;
            }
            self.entry(value, entry, node.part(entry_at.into(), bytes), depth);
            at = node.word(0)?;
        }
        self.entries(value, count, end, end == End::Whole && at != 0)
    }

    fn tree(&mut self, value: &mut Value, kind: &'a NativeKind, place: Place<'a>, depth: usize) -> Result<(), Status> {
        let NativeKind::Tree { root_at, count_at, left_at, right_at, entry_at, entry } = *kind else { return Ok(()) };
        let count = place.word(count_at.into())?;
        let bytes = self.bytes_of(entry).ok_or_else(|| missing(End::Mismatch))?;
        let node_bytes = u64::from(left_at.max(right_at)) + 8;
        let node_bytes = node_bytes.max(u64::from(entry_at) + bytes);
        // In order: down to the left, the node, then its right side. What is below a node that was not captured is left
        // out; its neighbours have their order all the same.
        let mut above: Vec<Place<'a>> = Vec::new();
        let mut at = place.word(root_at.into())?;
        let mut end = End::Whole;
        let mut goes_on = false;
        loop {
            while at != 0 {
                let node = read(&self.raw.chunks, at, node_bytes);
                if node.end != End::Whole {
                    end = node.end;
                    break;
                }
                if above.len() >= LEVELS_MAX {
                    return Err(suspect("its levels do not end"));
                }
                at = node.word(left_at.into())?;
                above.push(node);
            }
            let Some(node) = above.pop() else { break };
            if value.children.len() as u64 >= count {
                goes_on = true;
                break;
            }
            if self.nodes_left == 0 || value.children.len() >= limits::VALUE_CHILDREN_MAX {
                end = End::Limit;
                break;
            }
            self.entry(value, entry, node.part(entry_at.into(), bytes), depth);
            at = node.word(right_at.into())?;
        }
        self.entries(value, count, end, goes_on)
    }

    /// Adds an entry: of a map by its key, of a set by its number among those that are shown.
    fn entry(&mut self, value: &mut Value, ty: TypeIndex, place: Place<'a>, depth: usize) {
        let number = value.children.len();
        let mut entry = self.value(format!("[{number}]"), ty, place, depth + 1);
        // Rust's tables hold pairs of keys and values, and those of its sets have values of no size.
        if entry.type_name.starts_with('(')
            && let [key, held] = entry.children.as_slice()
        {
            let number = entry.name;
            entry = if held.type_name == "()" {
                Value { name: number, ..key.clone() }
            } else {
                let name = format!("[{}]", text::part(key));
                Value { name, key: Some(Box::new(key.clone())), ..held.clone() }
            };
        }
        // `std::pair`: what it holds, behind a base without members.
        let held = |entry: &Value, name: &str| entry.children.iter().position(|child| child.name == name);
        if entry.type_name.starts_with("pair<")
            && let (Some(first), Some(second)) = (held(&entry, "first"), held(&entry, "second"))
        {
            let key = entry.children[first].clone();
            let name = format!("[{}]", text::part(&key));
            entry = Value { name, key: Some(Box::new(key)), ..entry.children.swap_remove(second) };
        }
        value.children.push(entry);
    }

    /// The entries of a hash table, in the order of their places: that in which the program goes through them.
    fn hash_table(
        &mut self,
        value: &mut Value,
        kind: &'a NativeKind,
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let NativeKind::HashTable { control_at, mask_at, count_at, entry } = *kind else { return Ok(()) };
        let bytes = self.bytes_of(entry).ok_or_else(|| missing(End::Mismatch))?;
        let [control, mask, count] =
            [place.word(control_at.into())?, place.word(mask_at.into())?, place.word(count_at.into())?];
        let places = mask.checked_add(1).filter(|places| places.is_power_of_two() && count <= *places);
        let Some(places) = places else {
            return Err(suspect(format!("{count} entries and a mask of {mask:#x} are no hash table")));
        };
        plausible("hash table", control, places, places.saturating_mul(bytes.max(1)))?;
        let used = read(&self.raw.chunks, control, places);
        let mut end = used.end;
        for (number, &byte) in (1..).zip(used.bytes) {
            if byte & 0x80 != 0 {
                continue;
            }
            if self.nodes_left == 0 || value.children.len() >= limits::VALUE_CHILDREN_MAX {
                end = End::Limit;
                break;
            }
            // Not beyond what an address space holds.
            let Some(at) = control.checked_sub(bytes * number) else {
                return Err(suspect("its entries lie in front of all memory"));
            };
            let there = read(&self.raw.chunks, at, bytes);
            if there.end != End::Whole {
                end = if there.end == End::Uncovered { End::Limit } else { there.end };
                continue;
            }
            self.entry(value, entry, there, depth);
        }
        let goes_on = value.children.len() as u64 > count;
        self.entries(value, count, end, goes_on)
    }

    /// The entries of a B-tree, from the least on, as far as its nodes were captured.
    fn b_tree(&mut self, value: &mut Value, form: &'a BTreeForm, place: Place<'a>, depth: usize) -> Result<(), Status> {
        let count = place.word(form.count_at.into())?;
        let root = place.word(form.root_at.into())?;
        let mut end = End::Whole;
        if root != 0 {
            let height = place.word(form.height_at.into())?;
            // Each level has at least five times the entries of the one above it.
            if height > B_TREE_HEIGHT_MAX {
                return Err(suspect(format!("a B-tree of {height} levels cannot be")));
            }
            end = self.b_tree_node(value, form, root, height, depth)?;
        }
        let goes_on = value.children.len() as u64 > count;
        self.entries(value, count, end, goes_on)
    }

    /// Adds what is in a node and below it; tells why that is not all.
    fn b_tree_node(
        &mut self,
        value: &mut Value,
        form: &'a BTreeForm,
        at: u64,
        height: u64,
        depth: usize,
    ) -> Result<End, Status> {
        let key_bytes = self.bytes_of(form.key).ok_or_else(|| missing(End::Mismatch))?;
        let value_bytes = match form.value {
            Some(ty) => self.bytes_of(ty).ok_or_else(|| missing(End::Mismatch))?,
            None => 0,
        };
        let node_bytes = match height {
            0 => u64::from(form.leaf_bytes),
            _ => u64::from(form.edges_at) + u64::from(B_TREE_ENTRIES_MAX + 1) * 8,
        };
        let node = read(&self.raw.chunks, at, node_bytes);
        if node.end != End::Whole {
            return Ok(node.end);
        }
        let used = u32::from(u16::from_le_bytes(node.part(form.used_at.into(), 2).array()?));
        if used > B_TREE_ENTRIES_MAX {
            return Err(suspect(format!("a node of a B-tree says that it has {used} entries")));
        }
        for number in 0..=u64::from(used) {
            if height > 0 {
                let below = node.word(u64::from(form.edges_at) + number * 8)?;
                let end = self.b_tree_node(value, form, below, height - 1, depth)?;
                if end != End::Whole {
                    return Ok(end);
                }
            }
            if number == u64::from(used) {
                break;
            }
            if self.nodes_left == 0 || value.children.len() >= limits::VALUE_CHILDREN_MAX {
                return Ok(End::Limit);
            }
            let key = node.part(u64::from(form.keys_at).saturating_add(number.saturating_mul(key_bytes)), key_bytes);
            let name = format!("[{}]", value.children.len());
            let key = self.value(name, form.key, key, depth + 1);
            let entry = match form.value {
                Some(ty) => {
                    let at = u64::from(form.values_at).saturating_add(number.saturating_mul(value_bytes));
                    let held = node.part(at, value_bytes);
                    let name = format!("[{}]", text::part(&key));
                    Value { key: Some(Box::new(key)), ..self.value(name, ty, held, depth + 1) }
                }
                None => key,
            };
            value.children.push(entry);
        }
        Ok(End::Whole)
    }

    /// Text and status of a container of `count` entries, of which those that could be read are children.
    fn entries(&mut self, value: &mut Value, count: u64, end: End, goes_on: bool) -> Result<(), Status> {
        let listed = value.children.len() as u64;
        if goes_on || end == End::Whole && listed < count {
            value.children.clear();
            return Err(suspect(format!(
                "it says that it has {count} entries, and {} were found; it was changed meanwhile, or never set up",
                if goes_on { format!("more than {listed}") } else { listed.to_string() }
            )));
        }
        value.scalar = Some(Scalar::Sequence { len: count, cap: None, nil: false });
        if listed < count {
            value.status = match end {
                End::Fault(at) => Status::Unreadable { detail: format!("{at:#x}") },
                _ => Status::Truncated { detail: format!("{listed} of {count} entries") },
            };
        }
        value.value = format!("len: {count}, {}", of_entries(&value.children, count));
        Ok(())
    }

    fn bits(
        &mut self,
        value: &mut Value,
        ty: TypeIndex,
        (shift, bits): (u8, u8),
        place: Place<'a>,
    ) -> Result<(), Status> {
        if place.end != End::Whole {
            return Err(missing(place.end));
        }
        if bits == 0 || bits > 64 || place.bytes.len() > 16 {
            return Err(missing(End::Mismatch));
        }
        let all = place.bytes.iter().rev().fold(0u128, |all, &byte| all << 8 | u128::from(byte));
        let number = (all >> shift.min(127)) & ((1u128 << bits) - 1);
        let signed = {
            let unused = 128 - u32::from(bits);
            ((number << unused) as i128) >> unused
        };
        let Some((name, resolved)) = self.resolved(ty) else { return Err(missing(End::Mismatch)) };
        value.type_name = format!("{name}:{bits}");
        let number = number as i128;
        let (number, text) = match &resolved.kind {
            TypeKind::Signed => (signed, signed.to_string()),
            TypeKind::Unsigned => (number, number.to_string()),
            TypeKind::Bool if number <= 1 => {
                value.value = (number == 1).to_string();
                value.scalar = Some(Scalar::Bool(number == 1));
                return Ok(());
            }
            TypeKind::Enum { signed: is_signed, names } => {
                let number = if *is_signed { signed } else { number };
                (number, enum_text(number, names))
            }
            _ => return Err(missing(End::Mismatch)),
        };
        value.value = text;
        value.scalar = Some(Scalar::Int(number));
        Ok(())
    }

    fn variants(
        &mut self,
        value: &mut Value,
        tag: Option<(u32, u8)>,
        variants: &'a [Variant],
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let variant = match tag {
            None => variants.first(),
            Some((at, bytes)) => {
                let word = place.part(at.into(), bytes.into());
                if word.end != End::Whole {
                    return Err(missing(word.end));
                }
                let tag = word.bytes.iter().rev().fold(0u128, |all, &byte| all << 8 | u128::from(byte));
                let means = |variant: &&Variant| {
                    variant.tags.iter().any(|&(first, last)| (u128::from(first)..=u128::from(last)).contains(&tag))
                };
                let found = variants.iter().find(means).or_else(|| variants.iter().find(|it| it.tags.is_empty()));
                Some(found.ok_or_else(|| suspect(format!("the tag {tag} means no variant")))?)
            }
        };
        let variant = variant.ok_or_else(|| suspect("a type without variants has no values"))?;
        value.value.clone_from(&variant.name);
        let Some(ty) = variant.ty else { return Ok(()) };
        let bytes = self.bytes_of(ty).ok_or_else(|| missing(End::Mismatch))?;
        let inner = self.value(variant.name.clone(), ty, place.part(variant.at.into(), bytes), depth + 1);
        let is_struct = matches!(self.resolved(ty).map(|(_, ty)| &ty.kind), Some(TypeKind::Struct { .. }));
        if variant.name.is_empty() {
            // The value itself, where there is one.
            let (name, type_name) = (std::mem::take(&mut value.name), std::mem::take(&mut value.type_name));
            *value = Value { name, type_name, ..inner };
            return Ok(());
        }
        if !is_struct {
            value.value = format!("{}({})", variant.name, text::part(&inner));
            value.children.push(inner);
            return Ok(());
        }
        let parts = of_fields(&inner.children);
        value.value = match inner.children.is_empty() {
            true => variant.name.clone(),
            false => format!("{}{}", variant.name, parts),
        };
        value.status = inner.status;
        value.children = inner.children;
        Ok(())
    }
}

/// A text for a struct of Rust whose fields have no names: `(1, 2)`, `Pair(1, 2)`; `None` for all others.
pub(super) fn of_tuple(type_name: &str, fields: &[Field], children: &[Value]) -> Option<String> {
    let is_tuple = !fields.is_empty() && fields.iter().enumerate().all(|(n, field)| is_number(&field.name, n));
    if fields.is_empty() && type_name == "()" {
        return Some(type_name.to_owned());
    }
    if !is_tuple || fields.len() != children.len() {
        return None;
    }
    let name = if type_name.starts_with('(') { "" } else { type_name };
    Some(format!("{name}{}", of_fields(children)))
}

/// `{"ann": 31, "bob": 42}`, `{1, 3, 5}`.
fn of_entries(entries: &[Value], count: u64) -> String {
    let mut out = String::from("{");
    let mut listed = 0;
    for entry in entries {
        if out.len() >= limits::SUMMARY_BYTES_MAX {
            break;
        }
        if listed > 0 {
            out.push_str(", ");
        }
        if let Some(key) = &entry.key {
            out.push_str(&text::part(key));
            out.push_str(": ");
        }
        out.push_str(&text::part(entry));
        listed += 1;
    }
    if listed < count {
        let comma = if listed > 0 { ", " } else { "" };
        out.push_str(&format!("{comma}...+{} more", count - listed));
    }
    out.push('}');
    out
}

/// `__0`, `__1`: how Rust's compiler calls fields without names.
fn is_number(name: &str, number: usize) -> bool {
    name.strip_prefix("__").and_then(|digits| digits.parse().ok()) == Some(number)
}

fn of_fields(children: &[Value]) -> String {
    let is_tuple = children.iter().enumerate().all(|(number, child)| is_number(&child.name, number));
    let mut out = String::from(if is_tuple { "(" } else { " { " });
    for (number, child) in children.iter().enumerate() {
        if number > 0 {
            out.push_str(", ");
        }
        if out.len() >= limits::SUMMARY_BYTES_MAX {
            out.push_str("...");
            break;
        }
        if !is_tuple {
            out.push_str(&child.name);
            out.push_str(": ");
        }
        out.push_str(&text::part(child));
    }
    out.push_str(if is_tuple { ")" } else { " }" });
    out
}

/// The name of an enumeration's value, or of the flags that make it: `READ|WRITE`.
pub(super) fn enum_text(number: i128, names: &[(String, i64)]) -> String {
    if let Some((name, _)) = names.iter().find(|(_, named)| i128::from(*named) == number) {
        return name.clone();
    }
    // Flags are single bits, each with a name of its own.
    let is_flags = number > 0 && names.iter().all(|(_, named)| *named >= 0 && named.count_ones() <= 1);
    if is_flags {
        let set: Vec<_> = names.iter().filter(|(_, named)| *named > 0 && number & i128::from(*named) != 0).collect();
        let all = set.iter().fold(0, |all, (_, named)| all | i128::from(*named));
        if all == number && set.len() > 1 {
            return set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("|");
        }
    }
    number.to_string()
}

fn suspect(detail: impl Into<String>) -> Status {
    Status::Suspect { detail: detail.into() }
}

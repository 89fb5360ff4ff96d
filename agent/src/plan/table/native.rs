//! Types of Rust, C and C++ in a layout, and what to follow in them.

use super::TypeTable;
use super::dynamic::ObjectOf;
use super::follow::{Table, at, leads_on, readable_bytes};
use crate::capture::program::{Case, Count, Follow, FollowIndex, Key, RUN_ELEMENTS_MAX, Reach};
use crate::symbols::types::native::{NativeShape, VariantFacts};
use crate::symbols::types::{self, Shape};
use crate::symbols::{Die, ResolveError};
use riptrace_protocol::layout::{
    B_TREE_ENTRIES_MAX, BTreeForm, Field, NativeKind, ObjectTable, SequenceLength, Type, TypeIndex, TypeKind, Variant,
};

/// Bytes of a text that ends with a zero byte, at most, whatever the tracepoint's limit is: nothing tells how long it is,
/// so this is what each passage copies.
pub(super) const ENDED_TEXT_BYTES_MAX: u64 = 256;
/// Levels of a B-tree that are followed, at most: those of a thousand entries.
const B_TREE_LEVELS_MAX: u64 = 4;

impl TypeTable<'_, '_> {
    /// What the type at `index` is in the layout, reached through some pointers.
    pub(super) fn native(
        &mut self,
        shape: NativeShape,
        index: TypeIndex,
        pointers: u32,
    ) -> Result<TypeKind, ResolveError> {
        let kind = match shape {
            NativeShape::Char => NativeKind::Char,
            NativeShape::CharArray => NativeKind::CharArray,
            NativeShape::CharPointer => NativeKind::CharPointer,
            NativeShape::Text { address_at, length_at } => NativeKind::Text { address_at, length_at },
            NativeShape::Sequence { address_at, length, element } => {
                NativeKind::Sequence { address_at, length, element: self.request(element, pointers) }
            }
            NativeShape::Shared { address_at, length_at, element } => {
                let element = element.map(|element| self.request(element, pointers));
                NativeKind::Shared { address_at, length_at, element }
            }
            NativeShape::List { first_at, count_at, entry_at, entry } => {
                NativeKind::List { first_at, count_at, entry_at, entry: self.request(entry, pointers) }
            }
            NativeShape::Tree { root_at, count_at, left_at, right_at, entry_at, entry } => {
                let entry = self.request(entry, pointers);
                NativeKind::Tree { root_at, count_at, left_at, right_at, entry_at, entry }
            }
            NativeShape::Ring { address_at, capacity_at, first_at, length_at, element } => {
                let element = self.request(element, pointers);
                NativeKind::Ring { address_at, capacity_at, first_at, length_at, element }
            }
            NativeShape::HashTable { control_at, mask_at, count_at, entry } => {
                NativeKind::HashTable { control_at, mask_at, count_at, entry: self.request(entry, pointers) }
            }
            NativeShape::BTree(facts) => NativeKind::BTree(BTreeForm {
                root_at: facts.root_at,
                height_at: facts.height_at,
                count_at: facts.count_at,
                leaf_bytes: facts.leaf_bytes,
                used_at: facts.used_at,
                keys_at: facts.keys_at,
                values_at: facts.values_at,
                edges_at: facts.edges_at,
                key: self.request(facts.key, pointers),
                value: facts.value.map(|value| self.request(value, pointers)),
            }),
            NativeShape::Object { at, table_at, of_trait, counted } => {
                self.object(index, pointers, || ObjectOf::Trait { name: of_trait, counted });
                NativeKind::Object { at, table: ObjectTable::Beside { at: table_at }, cases: Vec::new() }
            }
            NativeShape::Part { at, ty } => NativeKind::Part { at, ty: self.request(ty, pointers) },
            NativeShape::Reference { at, to } => NativeKind::Reference { at, to: self.pointee(to, pointers)? },
            NativeShape::Union(members) => NativeKind::Union { fields: self.fields(members, pointers)? },
            NativeShape::Variants { tag, variants } => {
                let variant = |it: VariantFacts, table: &mut Self| Variant {
                    name: it.name,
                    tags: it.tags,
                    at: it.at,
                    ty: it.ty.map(|ty| table.request(ty, pointers)),
                };
                let variants = variants.into_iter().map(|it| variant(it, self)).collect();
                NativeKind::Variants { tag, variants }
            }
            NativeShape::Grid { element, counts } => return self.grid(element, &counts, pointers),
        };
        Ok(TypeKind::Native(kind))
    }

    /// The type behind a pointer; `None` where there is nothing to show, or nothing is followed any more.
    pub(super) fn pointee(&mut self, to: Option<Die>, pointers: u32) -> Result<Option<TypeIndex>, ResolveError> {
        Ok(match to.filter(|_| pointers < self.depth()) {
            // There is nothing to show behind a pointer to what cannot be read.
            Some(to) if matches!(types::read(self.view, to)?.shape, Shape::Opaque(_)) => None,
            Some(to) => Some(self.request(to, pointers + 1)),
            None => None,
        })
    }

    /// An array of arrays: each row is an element.
    fn grid(&mut self, element: Die, counts: &[u64], pointers: u32) -> Result<TypeKind, ResolveError> {
        let facts = types::read(self.view, element)?;
        let (mut ty, mut bytes, mut name) = (self.request(element, pointers), facts.bytes, facts.name);
        for &count in counts.iter().skip(1).rev() {
            bytes = bytes.saturating_mul(count);
            name = format!("{name}[{count}]");
            ty = self.push(Type { name: name.clone(), bytes, kind: TypeKind::Array { element: ty, count } });
        }
        Ok(TypeKind::Array { element: ty, count: counts.first().copied().unwrap_or(0) })
    }

    /// Some bits of an integer, whose first byte that holds some has `shift` other bits below them.
    pub(super) fn bits(&mut self, ty: Die, shift: u8, bits: u8, pointers: u32) -> TypeIndex {
        let kind = TypeKind::Native(NativeKind::Bits { ty: self.request(ty, pointers), shift, bits });
        self.push(Type { name: String::new(), bytes: u64::from(shift + bits).div_ceil(8), kind })
    }
}

impl Table<'_> {
    /// What to follow in a value of Rust, C or C++.
    pub(super) fn native(&mut self, kind: &NativeKind) -> Follow {
        let elements = self.limits.elements;
        match kind {
            NativeKind::Char | NativeKind::CharArray | NativeKind::Bits { .. } | NativeKind::Union { .. } => {
                // Which reading of a union is meant is not known: none of its addresses is followed.
                Follow::Plain
            }
            NativeKind::CharPointer => {
                let to = self.add(Follow::Plain);
                Follow::Owned { bytes: u64::from(self.limits.string_bytes).min(ENDED_TEXT_BYTES_MAX), to }
            }
            NativeKind::Text { address_at, length_at } if address_at.checked_add(8) == Some(*length_at) => {
                self.inside(*address_at, Follow::GoString { most: self.limits.string_bytes })
            }
            NativeKind::Text { address_at, length_at } => Follow::Run {
                address_at: (*address_at).into(),
                count_at: (*length_at).into(),
                count: Count::Word,
                element_bytes: 1,
                element: self.add(Follow::Plain),
                most: self.limits.string_bytes,
            },
            NativeKind::Sequence { address_at, length, element } => {
                // Elements lie back to back: there is no way to read them without their secrets.
                let element_bytes = self.bytes(*element);
                if element_bytes == 0 || !self.is_open(*element) {
                    return Follow::Plain;
                }
                let (count, count_at) = match *length {
                    SequenceLength::Count(at) => (Count::Word, at),
                    SequenceLength::End(at) => (Count::End, at),
                };
                Follow::Run {
                    address_at: (*address_at).into(),
                    count_at: count_at.into(),
                    count,
                    element_bytes,
                    element: at(*element),
                    most: self.limits.elements,
                }
            }
            NativeKind::Shared { address_at, length_at, element } => {
                let (element_bytes, follow, most) = match *element {
                    None => (1, self.add(Follow::Plain), self.limits.string_bytes),
                    Some(element) if self.bytes(element) == 0 || !self.is_open(element) => return Follow::Plain,
                    Some(element) => (self.bytes(element), at(element), self.limits.elements),
                };
                Follow::Run {
                    address_at: (*address_at).into(),
                    count_at: (*length_at).into(),
                    count: Count::WordBehindCounts,
                    element_bytes,
                    element: follow,
                    most,
                }
            }
            NativeKind::Ring { address_at, capacity_at, element, .. } => {
                let element_bytes = self.bytes(*element);
                if element_bytes == 0 || !self.is_open(*element) {
                    return Follow::Plain;
                }
                Follow::Run {
                    address_at: (*address_at).into(),
                    count_at: (*capacity_at).into(),
                    count: Count::Word,
                    element_bytes,
                    element: at(*element),
                    most: self.buffered(element_bytes),
                }
            }
            NativeKind::List { first_at, entry_at, entry, .. } => self.nodes(*first_at, &[0], *entry_at, *entry),
            NativeKind::Tree { root_at, left_at, right_at, entry_at, entry, .. } => {
                self.nodes(*root_at, &[*left_at, *right_at], *entry_at, *entry)
            }
            NativeKind::HashTable { control_at, mask_at, entry, .. } => {
                let element_bytes = self.bytes(*entry);
                if !self.is_open(*entry) {
                    return Follow::Plain;
                }
                let element = self.add(Follow::Plain);
                let mut run = |count, element_bytes, element, most| {
                    let (address_at, count_at) = (u64::from(*control_at), u64::from(*mask_at));
                    self.add(Follow::Run { address_at, count_at, count, element_bytes, element, most })
                };
                // More places than entries are looked at: an eighth of them is free, at least, and half of them at most
                // in a table that only grew.
                let places = elements.saturating_mul(2).min(RUN_ELEMENTS_MAX);
                let used = run(Count::Mask, 1, element, places);
                let entries = run(Count::MaskBelow, element_bytes, at(*entry), places);
                Follow::Struct { fields: vec![(0, used), (0, entries)] }
            }
            NativeKind::BTree(form) => self.b_tree(form),
            NativeKind::Object { at: offset, table, cases } => {
                let cases: Vec<_> = cases
                    .iter()
                    .filter_map(|case| match readable_bytes(self.types, case.ty) {
                        0 => None,
                        bytes => {
                            let follow = self.add(Follow::Pointer { bytes, to: at(case.ty) });
                            Some((case.address, Case { reach: Reach::Here, follow }))
                        }
                    })
                    .collect();
                let value_at = (*offset).into();
                match *table {
                    ObjectTable::Beside { at } => {
                        let key = Key::Word { at: at.into(), bytes: 8 };
                        Follow::Switch { key, value_at, cases, otherwise: None }
                    }
                    ObjectTable::First { declared, .. } => {
                        let key = Key::Through { at: value_at, offset: 0, bytes: 8 };
                        let bytes = readable_bytes(self.types, declared);
                        let follow = self.add(Follow::Pointer { bytes, to: at(declared) });
                        let otherwise = (bytes > 0).then_some(Case { reach: Reach::Here, follow });
                        Follow::Switch { key, value_at, cases, otherwise }
                    }
                }
            }
            NativeKind::Part { at: offset, ty } => self.field(*offset, *ty),
            NativeKind::Reference { at: offset, to: Some(to) } => match readable_bytes(self.types, *to) {
                0 => Follow::Plain,
                bytes => self.inside(*offset, Follow::Pointer { bytes, to: at(*to) }),
            },
            NativeKind::Reference { to: None, .. } => Follow::Plain,
            NativeKind::Variants { tag: None, variants } => match variants.first() {
                Some(Variant { at: offset, ty: Some(ty), .. }) => self.field(*offset, *ty),
                _ => Follow::Plain,
            },
            NativeKind::Variants { tag: Some((tag_at, bytes)), variants } => self.variants(*tag_at, *bytes, variants),
        }
    }

    /// Nodes of a B-tree, by how many levels are below them.
    fn b_tree(&mut self, form: &BTreeForm) -> Follow {
        if !self.is_open(form.key) || !form.value.is_none_or(|value| self.is_open(value)) {
            return Follow::Plain;
        }
        let mut fields = Vec::new();
        for (first, ty) in [(form.keys_at, Some(form.key)), (form.values_at, form.value)] {
            let Some(ty) = ty.filter(|&ty| leads_on(self.types, ty, 0)) else { continue };
            let bytes = self.bytes(ty);
            fields.extend((0..B_TREE_ENTRIES_MAX).map(|number| (u64::from(first) + u64::from(number) * bytes, at(ty))));
        }
        // A node has five entries, at least: no more nodes than are needed for what is shown.
        let edges = (self.limits.elements / 5).saturating_add(1).min(B_TREE_ENTRIES_MAX + 1);
        let inner_bytes = u64::from(form.edges_at) + u64::from(B_TREE_ENTRIES_MAX + 1) * 8;
        let mut cases = Vec::new();
        let (mut bytes, mut below): (u64, Option<FollowIndex>) = (form.leaf_bytes.into(), None);
        for height in 0..B_TREE_LEVELS_MAX {
            let mut fields = fields.clone();
            let edge = |number: u32| u64::from(form.edges_at) + u64::from(number) * 8;
            fields.extend(below.into_iter().flat_map(|below| (0..edges).map(move |number| (edge(number), below))));
            let node = self.add(if fields.is_empty() { Follow::Plain } else { Follow::Struct { fields } });
            let reached = self.add(Follow::Owned { bytes, to: node });
            cases.push((height, Case { reach: Reach::Here, follow: reached }));
            (bytes, below) = (inner_bytes, Some(reached));
        }
        let key = Key::Word { at: form.height_at.into(), bytes: 8 };
        Follow::Switch { key, value_at: form.root_at.into(), cases, otherwise: None }
    }

    fn variants(&mut self, tag_at: u32, bytes: u8, variants: &[Variant]) -> Follow {
        let mut cases = Vec::new();
        let mut otherwise = None;
        for variant in variants {
            let follow = variant.ty.filter(|&ty| leads_on(self.types, ty, 0)).map(|ty| self.field(variant.at, ty));
            let case = follow.map(|follow| Case { reach: Reach::Here, follow: self.add(follow) });
            // The tags of variants that lead nowhere must not be taken for the others.
            let case = case.unwrap_or_else(|| Case { reach: Reach::Here, follow: self.add(Follow::Plain) });
            match variant.tags.as_slice() {
                [] => otherwise = Some(case),
                tags => cases.extend(tags.iter().filter(|(first, last)| first == last).map(|&(tag, _)| (tag, case))),
            }
        }
        Follow::Switch { key: Key::Word { at: tag_at.into(), bytes }, value_at: 0, cases, otherwise }
    }

    /// Nodes that lead to further nodes through the words at `links`.
    fn nodes(&mut self, first_at: u32, links: &[u32], entry_at: u32, entry: TypeIndex) -> Follow {
        if !self.is_open(entry) {
            return Follow::Plain;
        }
        let links_end = links.iter().copied().max().unwrap_or(0).saturating_add(8);
        let bytes = u64::from(entry_at).saturating_add(self.bytes(entry)).max(links_end.into());
        let node = self.add(Follow::Plain);
        let next = self.add(Follow::Owned { bytes, to: node });
        let mut fields: Vec<(u64, FollowIndex)> = links.iter().map(|&link| (link.into(), next)).collect();
        if leads_on(self.types, entry, 0) {
            fields.push((entry_at.into(), at(entry)));
        }
        self.follow[node.0 as usize] = Follow::Struct { fields };
        Follow::Struct { fields: vec![(first_at.into(), next)] }
    }

    fn field(&mut self, offset: u32, ty: TypeIndex) -> Follow {
        match leads_on(self.types, ty, 0) {
            true => Follow::Struct { fields: vec![(offset.into(), at(ty))] },
            false => Follow::Plain,
        }
    }

    fn inside(&mut self, offset: u32, follow: Follow) -> Follow {
        match offset {
            0 => follow,
            offset => Follow::Struct { fields: vec![(offset.into(), self.add(follow))] },
        }
    }
}

/// Whether there is something to follow in a value of Rust, C or C++.
pub(super) fn native_leads_on(types: &[Type], kind: &NativeKind, nesting: usize) -> bool {
    match kind {
        NativeKind::Char | NativeKind::CharArray | NativeKind::Bits { .. } | NativeKind::Union { .. } => false,
        NativeKind::CharPointer | NativeKind::Text { .. } => true,
        NativeKind::Sequence { .. } | NativeKind::Ring { .. } | NativeKind::Shared { .. } => true,
        NativeKind::List { .. } | NativeKind::Tree { .. } => true,
        NativeKind::HashTable { .. } | NativeKind::BTree(_) => true,
        NativeKind::Object { table: ObjectTable::Beside { .. }, cases, .. } => !cases.is_empty(),
        NativeKind::Object { table: ObjectTable::First { .. }, .. } => true,
        NativeKind::Part { ty, .. } => leads_on(types, *ty, nesting + 1),
        NativeKind::Reference { to, .. } => to.is_some(),
        NativeKind::Variants { variants, .. } => {
            variants.iter().any(|variant| variant.ty.is_some_and(|ty| leads_on(types, ty, nesting + 1)))
        }
    }
}

/// The types inside a value of Rust, C or C++, and where: what may hold secrets. The fields of a union are among them.
pub(super) fn parts_of(kind: &NativeKind) -> Vec<(u64, TypeIndex)> {
    match kind {
        NativeKind::Part { at, ty } => vec![((*at).into(), *ty)],
        NativeKind::Variants { variants, .. } => {
            variants.iter().filter_map(|variant| Some((variant.at.into(), variant.ty?))).collect()
        }
        NativeKind::Union { fields } => fields.iter().map(|field: &Field| (field.offset, field.ty)).collect(),
        _ => Vec::new(),
    }
}

//! Decoding of Rust's tables and trees and of objects whose type a table tells, built here and of random bytes.

use super::tests::{Hit, number, words};
use super::*;
use crate::layout::{
    BTreeForm, DynamicType, Field, NativeKind, ObjectTable, SequenceLength, TypeIndex, TypeKind, Variant,
};
use proptest::prelude::*;

const EMPTY: u8 = 0xff;

fn tuple(hit: &mut Hit, types: [(TypeIndex, u64); 2], bytes: u64) -> TypeIndex {
    let fields =
        types.iter().zip(["__0", "__1"]).map(|(&(ty, offset), name)| field(name, ty, offset)).collect::<Vec<_>>();
    hit.ty("(i64, i64)", bytes, TypeKind::Struct { fields })
}

fn field(name: &str, ty: TypeIndex, offset: u64) -> Field {
    Field { name: name.into(), ty, offset, embedded: false }
}

#[test]
fn the_entries_of_a_hash_table_lie_in_front_of_its_control_bytes() {
    let mut hit = Hit::new();
    let int = hit.int();
    let pair = tuple(&mut hit, [(int, 0), (int, 8)], 16);
    let table = NativeKind::HashTable { control_at: 0, mask_at: 8, count_at: 24, entry: pair };
    let table = hit.ty("HashMap<i64, i64>", 32, TypeKind::Native(table));
    // Four places; in use are the first, which is nearest, and the third.
    hit.memory(0x1000, &words(&[40, 41, 30, 31, 20, 21, 10, 11]));
    hit.memory(0x1040, &[1, EMPTY, 0x7f, 0x80]);
    hit.words("map", table, &[0x1040, 3, 0, 2]);
    hit.words("empty", table, &[0x1041, 0, 0, 0]);
    hit.words("mask", table, &[0x1040, 2, 0, 1]);
    hit.words("lost", table, &[0x1040, 3, 0, 3]);
    hit.words("more", table, &[0x1040, 3, 0, 1]);
    hit.words("away", table, &[0x9000, 3, 0, 2]);
    hit.words("low", table, &[8, 3, 0, 2]);
    hit.check(&[
        "map = len: 2, {10: 11, 30: 31}",
        "  [10] = 11",
        "  [30] = 31",
        "empty = len: 0, {}",
        "mask = <suspect: 1 entries and a mask of 0x2 are no hash table>",
        "lost = <suspect: it says that it has 3 entries, and 2 were found; it was changed meanwhile, or never set up>",
        "more = <suspect: it says that it has 1 entries, and more than 2 were found; it was changed meanwhile, or never set up>",
        "away = len: 2, {...+2 more} <truncated: 0 of 2 entries>",
        "low = len: 2, {...+2 more} <truncated: 0 of 2 entries>",
    ]);
}

#[test]
fn a_b_tree_is_shown_in_its_order_as_far_as_it_was_captured() {
    let mut hit = Hit::new();
    let int = hit.int();
    // Keys at 0, values at 88, the number of entries at 176; edges at 184.
    let form = BTreeForm {
        root_at: 0,
        height_at: 8,
        count_at: 16,
        leaf_bytes: 184,
        used_at: 176,
        keys_at: 0,
        values_at: 88,
        edges_at: 184,
        key: int,
        value: Some(int),
    };
    let set =
        hit.ty("BTreeSet<i64>", 24, TypeKind::Native(NativeKind::BTree(BTreeForm { value: None, ..form.clone() })));
    let map = hit.ty("BTreeMap<i64, i64>", 24, TypeKind::Native(NativeKind::BTree(form)));
    let node = |keys: &[u64], edges: &[u64]| {
        let mut bytes = words(&[0; 23 + 12]);
        for (number, key) in keys.iter().enumerate() {
            bytes[number * 8..][..8].copy_from_slice(&key.to_le_bytes());
            bytes[88 + number * 8..][..8].copy_from_slice(&(key * 10).to_le_bytes());
        }
        bytes[176..178].copy_from_slice(&(keys.len() as u16).to_le_bytes());
        for (number, edge) in edges.iter().enumerate() {
            bytes[184 + number * 8..][..8].copy_from_slice(&edge.to_le_bytes());
        }
        bytes.truncate(if edges.is_empty() { 184 } else { 280 });
        bytes
    };
    hit.memory(0x1000, &node(&[3], &[0x2000, 0x3000]));
    hit.memory(0x2000, &node(&[1, 2], &[]));
    hit.memory(0x3000, &node(&[4], &[]));
    hit.memory(0x4000, &node(&[3], &[0x2000, 0x9000]));
    hit.memory(0x5000, &node(&[7], &[0x5000, 0x5000]));
    let mut overfull = node(&[1], &[]);
    overfull[176] = 12;
    hit.memory(0x6000, &overfull);
    hit.words("map", map, &[0x1000, 1, 4]);
    hit.words("set", set, &[0x2000, 0, 2]);
    hit.words("none", map, &[0, 99, 0]);
    hit.words("cut", map, &[0x4000, 1, 4]);
    hit.words("fewer", map, &[0x1000, 1, 5]);
    hit.words("high", map, &[0x1000, 17, 4]);
    hit.words("overfull", map, &[0x6000, 0, 12]);
    hit.check(&[
        "map = len: 4, {1: 10, 2: 20, 3: 30, 4: 40}",
        "  [1] = 10",
        "  [2] = 20",
        "  [3] = 30",
        "  [4] = 40",
        "set = len: 2, {1, 2}",
        "  [0] = 1",
        "  [1] = 2",
        "none = len: 0, {}",
        "cut = len: 4, {1: 10, 2: 20, 3: 30, ...+1 more} <truncated: 3 of 4 entries>",
        "  [1] = 10",
        "  [2] = 20",
        "  [3] = 30",
        "fewer = <suspect: it says that it has 5 entries, and 4 were found; it was changed meanwhile, or never set up>",
        "high = <suspect: a B-tree of 17 levels cannot be>",
        "overfull = <suspect: a node of a B-tree says that it has 12 entries>",
    ]);
    // One that leads back to itself ends by the limits.
    let mut endless = Hit::new();
    let int = endless.int();
    let form = BTreeForm {
        root_at: 0,
        height_at: 8,
        count_at: 16,
        key: int,
        value: None,
        ..match &hit.layout.types[map.0 as usize].kind {
            TypeKind::Native(NativeKind::BTree(form)) => form.clone(),
            other => panic!("{other:?}"),
        }
    };
    let set = endless.ty("BTreeSet<i64>", 24, TypeKind::Native(NativeKind::BTree(form)));
    endless.memory(0x5000, &node(&[7], &[0x5000, 0x5000]));
    endless.words("round", set, &[0x5000, 16, 1 << 40]);
    let value = &values(&endless.layout, &endless.raw)[0];
    assert!(matches!(value.status, Status::Truncated { .. }) && value.children.len() <= limits::VALUE_CHILDREN_MAX);
}

#[test]
fn a_table_tells_what_an_address_leads_to() {
    let mut hit = Hit::new();
    hit.layout.language = crate::fleet::Language::Native;
    let int = hit.int();
    let of = |hit: &mut Hit, name: &str, fields: &[&str]| {
        let fields: Vec<_> = fields.iter().zip(0..).map(|(name, n)| field(name, int, 8 + n * 8)).collect();
        hit.ty(name, 8 + 8 * fields.len() as u64, TypeKind::Struct { fields })
    };
    let (base, derived) = (of(&mut hit, "Base", &["id"]), of(&mut hit, "Derived", &["id", "more"]));
    let cases = vec![DynamicType { address: 0x7000, ty: derived, direct: false }];
    let object = |table| TypeKind::Native(NativeKind::Object { at: 0, table, cases: cases.clone() });
    let fat = hit.ty("&dyn Trait", 16, object(ObjectTable::Beside { at: 8 }));
    let reference = hit.ty("Base &", 8, object(ObjectTable::First { declared: base, is_reference: true }));
    let pointer = hit.ty("Base *", 8, object(ObjectTable::First { declared: base, is_reference: false }));
    hit.memory(0x1000, &words(&[0x7000, 1, 2]));
    hit.memory(0x2000, &words(&[0x7100, 3]));
    hit.words("told", fat, &[0x1000, 0x7000]);
    hit.words("untold", fat, &[0x1000, 0x7001]);
    hit.words("derived", reference, &[0x1000]);
    hit.words("declared", reference, &[0x2000]);
    hit.words("pointer", pointer, &[0x1000]);
    hit.words("nothing", pointer, &[0]);
    hit.words("away", pointer, &[0x9000]);
    hit.check(&[
        "told = Derived {id: 1, more: 2}",
        "  *told = Derived {id: 1, more: 2}",
        "    id = 1",
        "    more = 2",
        "untold = 0x1000",
        "  *untold = <not captured: its type, told by the table at 0x7001, is none that was prepared for>",
        "derived = Derived {id: 1, more: 2}",
        "  *derived = Derived {id: 1, more: 2}",
        "    id = 1",
        "    more = 2",
        "declared = Base {id: 3}",
        "  *declared = Base {id: 3}",
        "    id = 3",
        "pointer = 0x1000",
        "  *pointer = Derived {id: 1, more: 2}",
        "    id = 1",
        "    more = 2",
        "nothing = 0x0",
        "away = 0x9000",
        "  *away = <not captured: the pointer was not followed (limits: depth, bytes per hit)>",
    ]);
}

/// Any native type, whose offsets mostly fit a few words.
pub(super) fn native_kind() -> impl Strategy<Value = TypeKind> {
    let index = || (0..10u32).prop_map(TypeIndex);
    let offset = || prop_oneof![8 => (0..5u32).prop_map(|word| word * 8), 1 => any::<u32>()];
    let offsets = || (offset(), offset(), offset(), offset());
    let variants = proptest::collection::vec((proptest::collection::vec((number(), number()), 0..2), offset()), 0..3);
    prop_oneof![
        Just(NativeKind::Char),
        Just(NativeKind::CharArray),
        Just(NativeKind::CharPointer),
        (offset(), offset()).prop_map(|(address_at, length_at)| NativeKind::Text { address_at, length_at }),
        (offset(), offset(), any::<bool>(), index()).prop_map(|(address_at, at, end, element)| {
            let length = if end { SequenceLength::End(at) } else { SequenceLength::Count(at) };
            NativeKind::Sequence { address_at, length, element }
        }),
        (offset(), offset(), proptest::option::of(index()))
            .prop_map(|(address_at, length_at, element)| NativeKind::Shared { address_at, length_at, element }),
        (offset(), offset(), offset(), index()).prop_map(|(first_at, count_at, entry_at, entry)| NativeKind::List {
            first_at,
            count_at,
            entry_at,
            entry
        }),
        (offsets(), offset(), index()).prop_map(|((root_at, count_at, left_at, right_at), entry_at, entry)| {
            NativeKind::Tree { root_at, count_at, left_at, right_at, entry_at, entry }
        }),
        (offset(), index()).prop_map(|(at, ty)| NativeKind::Part { at, ty }),
        (offset(), proptest::option::of(index())).prop_map(|(at, to)| NativeKind::Reference { at, to }),
        (index(), 0..70u8, 0..70u8).prop_map(|(ty, shift, bits)| NativeKind::Bits { ty, shift, bits }),
        (proptest::option::of((offset(), 0..9u8)), variants, index()).prop_map(|(tag, variants, ty)| {
            let variants =
                variants.into_iter().map(|(tags, at)| Variant { name: "V".into(), tags, at, ty: Some(ty) }).collect();
            NativeKind::Variants { tag, variants }
        }),
        (offsets(), index()).prop_map(|((address_at, capacity_at, first_at, length_at), element)| {
            NativeKind::Ring { address_at, capacity_at, first_at, length_at, element }
        }),
        (offset(), offset(), offset(), index()).prop_map(|(control_at, mask_at, count_at, entry)| {
            NativeKind::HashTable { control_at, mask_at, count_at, entry }
        }),
        (offsets(), offsets(), index(), proptest::option::of(index())).prop_map(
            |((root_at, height_at, count_at, used_at), (keys_at, values_at, edges_at, leaf_bytes), key, value)| {
                let form = BTreeForm {
                    root_at,
                    height_at,
                    count_at,
                    leaf_bytes,
                    used_at,
                    keys_at,
                    values_at,
                    edges_at,
                    key,
                    value,
                };
                NativeKind::BTree(form)
            }
        ),
        (offset(), offset(), any::<bool>(), index(), number()).prop_map(|(at, table_at, beside, ty, address)| {
            let table = match beside {
                true => ObjectTable::Beside { at: table_at },
                false => ObjectTable::First { declared: ty, is_reference: table_at == 0 },
            };
            NativeKind::Object { at, table, cases: vec![DynamicType { address, ty, direct: false }] }
        }),
    ]
    .prop_map(TypeKind::Native)
}

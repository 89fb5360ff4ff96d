//! Go's values built byte by byte, sound and torn.

use crate::decode::tests::{Hit, words};
use crate::decode::{CodeNames, CodeWords, Decoder, values};
use crate::expression::{eval, parse};
use crate::hit::{ChunkEnd, Frame, RootState};
use crate::ids::Avma;
use crate::layout::{
    ChanForm, DynamicType, Field, FunctionCase, MapForm, MapTables, NamedType, SLOTS, Scope, Slots, TypeIndex, TypeKind,
};

const HEADER: u64 = 0x1000;
const GROUP: u64 = 0x2000;
const TABLES: u64 = 0x3000;

fn field(name: &str, ty: TypeIndex, offset: u64) -> Field {
    Field { name: name.into(), ty, offset, embedded: false }
}

/// `map[int]int` since Go 1.24: header of count, writing, directory, tables.
fn swiss(hit: &mut Hit) -> TypeIndex {
    let int = hit.int();
    let form = MapForm {
        bytes: 32,
        count_at: 0,
        writing_at: 8,
        writing_mask: 0xff,
        slots: Slots {
            bytes: 8 + 16 * SLOTS,
            control_at: 0,
            keys_at: 8,
            key_stride: 16,
            elements_at: 16,
            element_stride: 16,
            indirect_key: false,
            indirect_element: false,
        },
        tables: MapTables::Swiss {
            directory_at: 16,
            tables_at: 24,
            table_bytes: 24,
            index_at: 0,
            groups_at: 8,
            mask_at: 16,
        },
    };
    hit.ty("map[int]int", 8, TypeKind::GoMap { key: int, element: int, form })
}

/// A group with these entries, and one that was deleted.
fn group(entries: &[(u64, u64)]) -> Vec<u8> {
    let mut control = [0x80; SLOTS as usize];
    control[..entries.len()].fill(0x11);
    if let Some(deleted) = control.get_mut(entries.len()) {
        *deleted = 0xfe;
    }
    let mut slots = vec![77; 2 * SLOTS as usize];
    for (number, &(key, element)) in entries.iter().enumerate() {
        slots[2 * number] = key;
        slots[2 * number + 1] = element;
    }
    [control.to_vec(), words(&slots)].concat()
}

#[test]
fn a_small_map_is_one_group() {
    let mut hit = Hit::new();
    let map = swiss(&mut hit);
    hit.memory(HEADER, &words(&[3, 0, GROUP, 0]));
    hit.memory(GROUP, &group(&[(30, 1), (4, 2), (5, 3)]));
    hit.memory(0x5000, &words(&[0, 0, 0, 0]));
    hit.words("m", map, &[HEADER]);
    hit.words("empty", map, &[0x5000]);
    hit.words("nil", map, &[0]);
    hit.words("away", map, &[0x9000]);
    hit.check(&[
        "m = map[int]int len: 3, [4: 2, 5: 3, 30: 1]",
        "  [4] = 2",
        "  [5] = 3",
        "  [30] = 1",
        "empty = map[int]int len: 0, []",
        "nil = nil",
        "away = <not captured: the map was not followed (limits: depth, bytes per hit)>",
    ]);
}

#[test]
fn a_large_map_has_tables_each_once() {
    let mut hit = Hit::new();
    let map = swiss(&mut hit);
    let (one, other) = (0x4000, 0x4100);
    hit.memory(HEADER, &words(&[3, 0, TABLES, 4]));
    // The first table has two places in the directory.
    hit.memory(TABLES, &words(&[one, one, other, other]));
    hit.memory(one, &words(&[0, GROUP, 0]));
    hit.memory(other, &words(&[2, GROUP + 0x800, 1]));
    hit.memory(GROUP, &group(&[(1, 10)]));
    hit.memory(GROUP + 0x800, &[group(&[(2, 20)]), group(&[(3, 30)])].concat());
    hit.words("m", map, &[HEADER]);
    hit.check(&["m = map[int]int len: 3, [1: 10, 2: 20, 3: 30]", "  [1] = 10", "  [2] = 20", "  [3] = 30"]);
}

#[test]
fn a_map_that_was_cut_says_how_many_entries_it_has() {
    let mut hit = Hit::new();
    let map = swiss(&mut hit);
    hit.memory(HEADER, &words(&[9, 0, TABLES, 1]));
    hit.memory(TABLES, &words(&[0x4000]));
    hit.memory(0x4000, &words(&[0, GROUP, 1]));
    hit.chunk(GROUP, 2 * 136, &group(&[(1, 10)]), ChunkEnd::Limit);
    hit.words("m", map, &[HEADER]);
    hit.check(&["m = map[int]int len: 9, [1: 10, ...+8 more] <truncated: 1 of 9 entries>", "  [1] = 10"]);
}

#[test]
fn a_map_that_changed_while_it_was_read_is_not_shown() {
    for (header, group_entries, why) in [
        ([2, 0, GROUP, 0], 1, "it counts 2 entries and has 1: it was changed meanwhile"),
        ([1, 0, GROUP, 0], 2, "it counts 1 entries and has 2: it was changed meanwhile"),
        ([2, 1, GROUP, 0], 2, "a goroutine was writing to it"),
        ([1 << 60, 0, GROUP, 0], 2, "a map of 1152921504606846976 entries cannot be"),
        ([2, 0, TABLES, 3], 2, "a directory of 3 tables cannot be"),
        ([2, 0, TABLES, u64::MAX], 2, "a directory of 18446744073709551615 tables cannot be"),
        ([2, 0, TABLES, 1], 2, "one of its tables was replaced meanwhile"),
        ([2, 0, TABLES + 8, 1], 2, "a table of 8 groups cannot be"),
    ] {
        let mut hit = Hit::new();
        let map = swiss(&mut hit);
        hit.memory(HEADER, &words(&header));
        hit.memory(TABLES, &words(&[0x4000, 0x4100]));
        hit.memory(0x4000, &words(&[u64::MAX, GROUP, 0]));
        hit.memory(0x4100, &words(&[0, GROUP, 6]));
        hit.memory(GROUP, &group(&[(1, 10), (2, 20)][..group_entries]));
        hit.words("m", map, &[HEADER]);
        let why = why.replace("8 groups", "7 groups");
        hit.check(&[&format!("m = <suspect: {why}>")]);
    }
}

/// `map[int]int` before Go 1.24: header of count, flags and power, buckets, old buckets.
fn buckets(hit: &mut Hit) -> TypeIndex {
    let int = hit.int();
    let form = MapForm {
        bytes: 32,
        count_at: 0,
        writing_at: 8,
        writing_mask: 4,
        slots: Slots {
            bytes: 8 + 16 * SLOTS + 8,
            control_at: 0,
            keys_at: 8,
            key_stride: 8,
            elements_at: 8 + 8 * SLOTS,
            element_stride: 8,
            indirect_key: false,
            indirect_element: false,
        },
        tables: MapTables::Buckets {
            power_at: 9,
            flags_at: 8,
            buckets_at: 16,
            old_buckets_at: 24,
            overflow_at: 8 + 16 * SLOTS,
        },
    };
    hit.ty("map[int]int", 8, TypeKind::GoMap { key: int, element: int, form })
}

fn bucket(control: u8, entries: &[(u64, u64)], overflow: u64) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[..entries.len()].fill(control);
    let mut slots = vec![0; 2 * SLOTS as usize + 1];
    for (number, &(key, element)) in entries.iter().enumerate() {
        slots[number] = key;
        slots[number + SLOTS as usize] = element;
    }
    slots[2 * SLOTS as usize] = overflow;
    bytes.extend(words(&slots));
    bytes
}

#[test]
fn buckets_overflow_and_move_while_the_map_grows() {
    let mut hit = Hit::new();
    let map = buckets(&mut hit);
    // Two new buckets, one old one that has not moved yet, and one that has.
    let (new, old, more) = (0x4000, 0x5000, 0x6000);
    let power = 2 << 8;
    hit.memory(HEADER, &words(&[4, power, new, old]));
    let empty = bucket(0, &[], 0);
    hit.memory(new, &[bucket(9, &[(1, 10)], more), empty.clone(), empty.clone(), empty].concat());
    hit.memory(more, &bucket(200, &[(2, 20)], 0));
    hit.memory(old, &[bucket(2, &[(1, 10), (2, 20)], 0), bucket(5, &[(3, 30), (7, 70)], 0)].concat());
    hit.words("m", map, &[HEADER]);
    // The same size: as many old buckets as new ones, of which only two were captured.
    hit.memory(0x7000, &words(&[4, power | 8, new, old]));
    hit.words("same", map, &[0x7000]);
    hit.memory(0x7100, &words(&[4, power | 4, new, old]));
    hit.words("torn", map, &[0x7100]);
    hit.memory(0x7200, &words(&[4, 63 << 8, new, old]));
    hit.words("absurd", map, &[0x7200]);
    // A bucket that overflows into itself.
    hit.memory(0x8000, &bucket(9, &[(1, 10)], 0x8000));
    hit.memory(0x7300, &words(&[1, 0, 0x8000, 0]));
    hit.words("endless", map, &[0x7300]);
    let shown = hit.show();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        lines,
        [
            "m = map[int]int len: 4, [1: 10, 2: 20, 3: 30, 7: 70]",
            "same = map[int]int len: 4, [1: 10, 2: 20, 3: 30, 7: 70]",
            "torn = <suspect: a goroutine was writing to it>",
            "absurd = <suspect: two to the power of 63 buckets cannot be>",
            "endless = <suspect: it counts 1 entries and has 8178: it was changed meanwhile>",
        ]
    );
}

fn chan(hit: &mut Hit) -> TypeIndex {
    let int = hit.int();
    let form = ChanForm {
        bytes: 56,
        count_at: 0,
        capacity_at: 8,
        buffer_at: 16,
        closed_at: 24,
        first_at: 32,
        receivers_at: 40,
        senders_at: 48,
        next_at: 8,
    };
    hit.ty("chan int", 8, TypeKind::GoChan { element: int, form })
}

#[test]
fn a_channel_is_its_buffer_in_order_and_who_waits() {
    let mut hit = Hit::new();
    let chan = chan(&mut hit);
    hit.memory(0x2000, &words(&[10, 11, 12]));
    hit.memory(0x3000, &words(&[7, 0x3100]));
    hit.memory(0x3100, &words(&[7, 0]));
    hit.memory(0x3200, &words(&[7, 0x9900]));
    for (name, header) in [
        ("ring", [2, 3, 0x2000, 0, 2, 0, 0]),
        ("closed", [0, 3, 0x2000, 1, 0, 0, 0]),
        ("awaited", [0, 0, 0, 0, 0, 0x3000, 0]),
        ("full", [3, 3, 0x2000, 0, 0, 0, 0x3200]),
        ("cut", [2, 9, 0x2000, 0, 2, 0, 0]),
        ("torn", [4, 3, 0x2000, 0, 0, 0, 0]),
        ("far", [1, 3, 0x2000, 0, 3, 0, 0]),
        ("absurd", [1, u64::MAX, 0x2000, 0, 0, 0, 0]),
    ] {
        let at = 0x10000 + 0x100 * hit.raw.roots.len() as u64;
        hit.memory(at, &words(&header));
        hit.words(name, chan, &[at]);
    }
    hit.words("nil", chan, &[0]);
    let shown = hit.show();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        lines,
        [
            "ring = chan int len: 2, cap: 3, [12,10]",
            "closed = chan int len: 0, cap: 3, closed",
            "awaited = chan int len: 0, cap: 0, 2 receivers waiting",
            "full = chan int len: 3, cap: 3, [10,11,12], 2 or more senders waiting",
            "cut = chan int len: 2, cap: 9, [12,...+1 more] <truncated: 1 of 2 elements>",
            "torn = <suspect: 4 elements, the next one at 0, in room for 3 cannot be>",
            "far = <suspect: 1 elements, the next one at 3, in room for 3 cannot be>",
            "absurd = <suspect: 1 elements, the next one at 0, in room for 18446744073709551615 cannot be>",
            "nil = nil",
        ]
    );
}

#[test]
fn an_interface_shows_what_it_holds_or_at_least_its_type() {
    let mut hit = Hit::new();
    let (int, string) = (hit.int(), hit.string());
    let text = hit.ty("errors.errorString", 16, TypeKind::Struct { fields: vec![field("s", string, 0)] });
    let error = hit.ty("*errors.errorString", 8, TypeKind::Pointer { to: Some(text) });
    let cases = || {
        vec![
            DynamicType { address: 0x100, ty: int, direct: false },
            DynamicType { address: 0x200, ty: error, direct: true },
        ]
    };
    let others = || vec![NamedType { address: 0x300, name: "*main.Rare".into() }];
    let any = TypeKind::GoInterface { empty: true, cases: cases(), others: others() };
    let any = hit.ty("interface {}", 16, any);
    let err = TypeKind::GoInterface { empty: false, cases: cases(), others: others() };
    let err = hit.ty("error", 16, err);
    hit.memory(0x1000, &words(&[42]));
    hit.memory(0x1100, &words(&[0x1200, 3]));
    hit.memory(0x1200, b"bad");
    hit.memory(0x2000, &words(&[0, 0x200]));
    hit.memory(0x2100, &words(&[0, 0x300]));
    hit.words("int", any, &[0x100, 0x1000]);
    hit.words("err", err, &[0x2000, 0x1100]);
    hit.words("nil", err, &[0, 0]);
    hit.words("rare", err, &[0x2100, 0x1100]);
    hit.words("unknown", any, &[0x400, 0x1100]);
    hit.words("torn", any, &[0, 0x1100]);
    hit.words("nowhere", any, &[0x100, 0]);
    hit.words("away", any, &[0x100, 0x9000]);
    hit.words("tab", err, &[0x9000, 0x1100]);
    hit.check(&[
        "int = interface {}(int) 42",
        "  int.(int) = 42",
        "err = error(*errors.errorString) \"bad\"",
        "  err.(*errors.errorString) = *errors.errorString {s: \"bad\"}",
        "    *err.(*errors.errorString) = errors.errorString {s: \"bad\"}",
        "      s = \"bad\"",
        "nil = nil",
        "rare = <partial: its type is *main.Rare, whose values were not expected here and not captured>",
        "unknown = <partial: its type, at 0x400, is none of those that were expected here>",
        "torn = <suspect: it has no type, but something that it holds>",
        "nowhere = interface {}(int) <suspect>",
        "  nowhere.(int) = <suspect: a value of 8 bytes at nil cannot be>",
        "away = interface {}(int) <not captured>",
        "  away.(int) = <not captured: what it holds was not followed (limits: depth, bytes per hit)>",
        "tab = <not captured: its type was not followed (limits: depth, bytes per hit)>",
    ]);
}

#[test]
fn a_map_within_itself_ends() {
    let mut hit = Hit::new();
    let int = hit.int();
    let map = TypeIndex(2);
    let cases = vec![DynamicType { address: 0x100, ty: map, direct: true }];
    let any = hit.ty("interface {}", 16, TypeKind::GoInterface { empty: true, cases, others: vec![] });
    let mut form_of = Hit::new();
    let of = swiss(&mut form_of);
    let TypeKind::GoMap { mut form, .. } = form_of.layout.types[of.0 as usize].kind.clone() else { unreachable!() };
    form.slots = Slots { bytes: 8 + 24 * SLOTS, key_stride: 24, element_stride: 24, ..form.slots };
    assert_eq!(hit.ty("map[int]interface {}", 8, TypeKind::GoMap { key: int, element: any, form }), map);
    hit.memory(HEADER, &words(&[1, 0, GROUP, 0]));
    let mut slots = vec![0; 3 * SLOTS as usize];
    slots[..3].copy_from_slice(&[5, 0x100, HEADER]);
    let mut bytes = vec![0x80; 8];
    bytes[0] = 1;
    bytes.extend(words(&slots));
    hit.memory(GROUP, &bytes);
    hit.words("m", map, &[HEADER]);
    hit.check(&[
        "m = map[int]interface {} len: 1, [5: interface {}(map[int]interface {}) <not captured>]",
        "  [5] = interface {}(map[int]interface {}) <not captured>",
        "    [5].(map[int]interface {}) = <not captured: it is shown further up: this leads back>",
    ]);
}

#[test]
fn a_function_value_is_its_name_and_what_it_captured() {
    let mut hit = Hit::new();
    let int = hit.int();
    let ints = hit.ty("*int", 8, TypeKind::Pointer { to: Some(int) });
    let functions = vec![FunctionCase {
        address: 0x400,
        name: "example.com/x/y.F.func1".into(),
        bytes: 24,
        captured: vec![field("n", int, 8), field("&sum", ints, 16)],
    }];
    let func = hit.ty("func(int)", 8, TypeKind::GoFunc { functions });
    hit.memory(0x1000, &words(&[0x400, 7, 0x2000]));
    hit.memory(0x1100, &words(&[0x500]));
    hit.memory(0x2000, &words(&[99]));
    hit.words("f", func, &[0x1000]);
    hit.words("other", func, &[0x1100]);
    hit.words("nil", func, &[0]);
    hit.words("away", func, &[0x9000]);
    hit.check(&[
        "f = y.F.func1",
        "  n = 7",
        "  sum = 99",
        "other = func(int) at 0x500",
        "nil = nil",
        "away = <not captured: the function was not followed (limits: depth, bytes per hit)>",
    ]);
}

/// Names for two addresses.
#[derive(Debug)]
struct Named;

impl CodeNames for Named {
    fn frames(&self, address: Avma) -> Option<&[Frame]> {
        static FRAMES: std::sync::OnceLock<[Frame; 2]> = std::sync::OnceLock::new();
        let frame = |function: &str, file: &str, inlined| Frame {
            function: function.into(),
            file: file.into(),
            line: 12,
            inlined,
        };
        let frames =
            FRAMES.get_or_init(|| [frame("strings.Map", "x/map.go", true), frame("a.b/c.Serve", "c/serve.go", false)]);
        (address == Avma(0x4ff) || address == Avma(0x500)).then_some(frames)
    }
}

/// A hit of goroutine 5, whose `g` says that it is `goid`; `labels` is their type and their address.
fn goroutine(goid: u64, labels: impl FnOnce(&mut Hit) -> (Option<TypeIndex>, u64)) -> Hit {
    let mut hit = Hit::new();
    let (to, address) = labels(&mut hit);
    let int = hit.ty("uint64", 8, TypeKind::Unsigned);
    let code = hit.ty("uintptr", 8, TypeKind::ReturnAddress);
    let labels = hit.ty("*runtime/pprof.labelMap", 8, TypeKind::Pointer { to });
    let fields =
        vec![field("goid", int, 0), field("parentGoid", int, 8), field("gopc", code, 16), field("labels", labels, 24)];
    let g = hit.ty("runtime.g", 32, TypeKind::Struct { fields });
    hit.words("goroutine", g, &[goid, 1, 0x500, address]);
    hit.layout.variables[0].scope = Scope::Goroutine;
    hit
}

fn told(hit: &Hit) -> String {
    let decoder = Decoder::new(&hit.layout, &hit.raw);
    assert_eq!(decoder.variables(None), vec![], "it is no variable of the program");
    assert!(decoder.variable("goroutine").is_none());
    decoder.with_names(&Named).goroutine().unwrap().to_string()
}

#[test]
fn a_goroutine_is_told_with_who_made_it_and_its_labels() {
    let pair = |hit: &mut Hit| {
        let string = hit.string();
        hit.ty(
            "label.Label",
            32,
            TypeKind::Struct { fields: vec![field("Key", string, 0), field("Value", string, 16)] },
        )
    };
    let list = goroutine(5, |hit| {
        let element = pair(hit);
        let list = hit.ty("[]label.Label", 24, TypeKind::GoSlice { element });
        let set = hit.ty("label.Set", 24, TypeKind::Struct { fields: vec![field("List", list, 0)] });
        let map = hit.ty("pprof.labelMap", 24, TypeKind::Struct { fields: vec![field("Set", set, 0)] });
        hit.memory(0x7000, &words(&[0x7100, 1, 1]));
        hit.memory(0x7100, &words(&[0x7200, 4, 0x7204, 3]));
        hit.memory(0x7200, b"kindann");
        (Some(map), 0x7000)
    });
    assert_eq!(told(&list), "goroutine 5, created by strings.Map at map.go:12 in goroutine 1, labels {kind: ann}");
    let none = goroutine(5, |_| (None, 0));
    assert_eq!(told(&none), "goroutine 5, created by strings.Map at map.go:12 in goroutine 1");
    assert_eq!(CodeWords::of(&none.layout).addresses(&none.raw), vec![Avma(0x4ff)]);
    let unknown = goroutine(5, |_| (None, 0x7000));
    assert!(told(&unknown).ends_with("<labels: partial: they are set, and the build does not describe their type>"));
    let is_set = |hit: &mut Hit| {
        let kind = hit.layout.types.iter_mut().find(|ty| ty.name == "*runtime/pprof.labelMap").map(|ty| &mut ty.kind);
        *kind.unwrap() = TypeKind::Unsigned;
    };
    for (address, note) in
        [(0, ""), (0x7000, " <labels: partial: they are set, and not read where hits have no rate limit>")]
    {
        let mut unread = goroutine(5, |_| (None, address));
        is_set(&mut unread);
        assert_eq!(told(&unread), format!("goroutine 5, created by strings.Map at map.go:12 in goroutine 1{note}"));
    }
    let forged = goroutine(5, |hit| {
        let int = hit.int();
        hit.memory(0x7000, &words(&[3]));
        (Some(int), 0x7000)
    });
    assert!(told(&forged).ends_with("<labels: suspect: they are neither a map nor a list>"), "{}", told(&forged));
}

#[test]
fn a_g_that_is_another_goroutines_is_not_believed() {
    let hit = goroutine(6, |_| (None, 0));
    let text = "goroutine 5 <who made it: suspect: the register that should lead to the goroutine leads elsewhere>";
    assert_eq!(told(&hit), text);
    let mut gone = goroutine(5, |_| (None, 0));
    gone.raw.root_states = vec![RootState::Unreadable(Avma(0x10))];
    assert_eq!(told(&gone), "goroutine 5 <who made it: unreadable: 0x10>");
    assert_eq!(CodeWords::of(&gone.layout).addresses(&gone.raw), vec![]);
}

#[test]
fn a_function_of_another_package_has_the_name_that_its_address_has() {
    let mut hit = Hit::new();
    let func = hit.ty("func(int)", 8, TypeKind::GoFunc { functions: vec![] });
    hit.memory(0x1100, &words(&[0x500]));
    hit.words("f", func, &[0x1100]);
    assert_eq!(CodeWords::of(&hit.layout).addresses(&hit.raw), vec![Avma(0x500)]);
    let values = Decoder::new(&hit.layout, &hit.raw).with_names(&Named).variables(None);
    assert_eq!(values[0].value, "c.Serve");
}

#[test]
fn entries_are_looked_up_and_interfaces_asserted() {
    let mut hit = Hit::new();
    let map = swiss(&mut hit);
    let int = hit.int();
    let cases = vec![DynamicType { address: 0x100, ty: int, direct: false }];
    let any = hit.ty("interface {}", 16, TypeKind::GoInterface { empty: true, cases, others: vec![] });
    hit.memory(HEADER, &words(&[3, 0, GROUP, 0]));
    hit.memory(GROUP, &group(&[(30, 1), (4, 2), (5, 3)]));
    hit.memory(0x9000, &words(&[41]));
    hit.words("m", map, &[HEADER]);
    hit.words("x", any, &[0x100, 0x9000]);
    hit.words("nothing", any, &[0, 0]);
    let values = values(&hit.layout, &hit.raw);
    let of = |text: &str| match eval(&parse(text).unwrap(), &values) {
        Ok(value) => format!("{} {}", value.name, value.value),
        Err(error) => error.to_string(),
    };
    for (text, wanted) in [
        ("m[4]", "m[4] 2"),
        ("m[2 + 3] * 2", "m[2 + 3] * 2 6"),
        ("m[6]", "m[6] is not there: the map has no such key"),
        ("m[\"a\"]", "int == string: the types do not go together"),
        ("x.(int) + 1", "x.(int) + 1 42"),
        ("x.(string)", "x holds a int, and is read as nothing else"),
        ("nothing.(int)", "nothing is nil"),
        ("m.(int)", "m (map[int]int) is not an interface"),
    ] {
        assert_eq!(of(text), wanted, "{text}");
    }
}

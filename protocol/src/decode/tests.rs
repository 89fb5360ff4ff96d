//! Decoding of hits that are built here, and of hits that are made of random bytes.

use super::*;
use crate::expression::{Scope as _, Template, eval, parse};
use crate::fleet::{Language, SiteFacts};
use crate::hit::{Chunk, ChunkEnd};
use crate::ids::{Avma, BuildId, LayoutId, ProcessKey, TracepointId};
use crate::layout::{
    ChanForm, DynamicType, Field, FunctionCase, MapForm, MapTables, NamedType, NativeKind, Slots, Type, TypeIndex,
    TypeKind,
};
use proptest::prelude::*;

/// A layout and a hit that grow together.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) layout: Layout,
    pub(super) raw: RawHit,
}

impl Hit {
    pub(super) fn new() -> Hit {
        let site = SiteFacts { function: "main.f".into(), file: "main.go".into(), line: 1 };
        Hit {
            layout: Layout {
                build: BuildId("go:x".into()),
                language: Language::Go,
                site,
                moment: crate::layout::Moment::Line,
                variables: vec![],
                types: vec![],
                string_bytes: 256,
                elements: 16,
                depth: 2,
            },
            raw: RawHit {
                number: 0,
                tracepoint: TracepointId::new("t").unwrap(),
                process: ProcessKey { pid: 1, start_time: 2 },
                layout: LayoutId([0; 16]),
                time_ns: 3,
                thread: 4,
                goroutine: Some(5),
                roots: vec![],
                root_states: vec![],
                chunks: vec![],
                stack: vec![],
                stack_end: crate::hit::StackEnd::Whole,
                duration_ns: None,
            },
        }
    }

    pub(super) fn ty(&mut self, name: &str, bytes: u64, kind: TypeKind) -> TypeIndex {
        self.layout.types.push(Type { name: name.into(), bytes, kind });
        TypeIndex(self.layout.types.len() as u32 - 1)
    }

    pub(super) fn int(&mut self) -> TypeIndex {
        self.ty("int", 8, TypeKind::Signed)
    }

    pub(super) fn string(&mut self) -> TypeIndex {
        self.ty("string", 16, TypeKind::GoString)
    }

    pub(super) fn root(&mut self, name: &str, ty: TypeIndex, root: Root, state: RootState) {
        let name = name.into();
        self.layout.variables.push(Variable { name, ty, scope: Scope::Local, declared_line: 1, root });
        self.raw.root_states.push(state);
    }

    pub(super) fn var(&mut self, name: &str, ty: TypeIndex, bytes: &[u8]) {
        let root = Root::Whole { offset: self.raw.roots.len() as u32, bytes: bytes.len() as u32 };
        self.raw.roots.extend(bytes);
        self.root(name, ty, root, RootState::Captured);
    }

    pub(super) fn words(&mut self, name: &str, ty: TypeIndex, words: &[u64]) {
        self.var(name, ty, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    }

    pub(super) fn chunk(&mut self, address: u64, wanted_bytes: u64, bytes: &[u8], end: ChunkEnd) {
        self.raw.chunks.push(Chunk { address: Avma(address), wanted_bytes, bytes: bytes.to_vec(), end });
    }

    pub(super) fn memory(&mut self, address: u64, bytes: &[u8]) {
        self.chunk(address, bytes.len() as u64, bytes, ChunkEnd::Complete);
    }

    pub(super) fn item(&mut self) -> TypeIndex {
        let (string, int) = (self.string(), self.int());
        let field = |name: &str, ty, offset| Field { name: name.into(), ty, offset, embedded: false };
        self.ty("main.Item", 24, TypeKind::Struct { fields: vec![field("SKU", string, 0), field("Qty", int, 16)] })
    }

    /// `name = value` a line, with the status behind what is not exact; children indented.
    pub(super) fn show(&self) -> String {
        fn line(value: &Value, depth: usize, out: &mut String) {
            let note = value.status.note();
            let text = [value.value.as_str(), note.as_str()].join(" ");
            out.push_str(&format!("{}{} = {}\n", "  ".repeat(depth), value.name, text.trim()));
            value.children.iter().for_each(|child| line(child, depth + 1, out));
        }
        let mut out = String::new();
        values(&self.layout, &self.raw).iter().for_each(|value| line(value, 0, &mut out));
        out
    }

    pub(super) fn check(&self, expected: &[&str]) {
        assert_eq!(self.show().lines().collect::<Vec<_>>(), expected);
    }
}

pub(super) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn scalars_are_written_as_go_writes_them() {
    let mut hit = Hit::new();
    let int = hit.int();
    let u8 = hit.ty("uint8", 1, TypeKind::Unsigned);
    let rune = hit.ty("rune", 4, TypeKind::Signed);
    let f32 = hit.ty("float32", 4, TypeKind::Float);
    let f64 = hit.ty("float64", 8, TypeKind::Float);
    let bool = hit.ty("bool", 1, TypeKind::Bool);
    let complex = hit.ty("complex128", 16, TypeKind::Complex);
    let qty = hit.ty("main.Qty", 8, TypeKind::Alias { to: int });
    let huge = hit.ty("unsigned __int128", 16, TypeKind::Unsigned);
    let long = hit.ty("long double", 16, TypeKind::Float);
    let colour = TypeKind::Enum { signed: false, names: vec![("Red".into(), 0), ("Blue".into(), 2)] };
    let colour = hit.ty("Colour", 1, colour);
    hit.var("i", int, &(-5i64).to_le_bytes());
    hit.var("b", u8, &[200]);
    hit.var("r", rune, &u32::from('é').to_le_bytes());
    hit.var("f", f32, &0.1f32.to_le_bytes());
    hit.var("d", f64, &1e21f64.to_le_bytes());
    hit.var("t", bool, &[1]);
    hit.var("x", bool, &[7]);
    hit.var("c", complex, &[1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat());
    hit.var("q", qty, &3i64.to_le_bytes());
    hit.var("h", huge, &[0xff; 16]);
    hit.var("l", long, &[0; 16]);
    hit.var("blue", colour, &[2]);
    hit.var("odd", colour, &[9]);
    hit.check(&[
        "i = -5",
        "b = 200",
        "r = 233 'é'",
        "f = 0.1",
        "d = 1e+21",
        "t = true",
        "x = <suspect: the byte of a truth value is 7>",
        "c = (1.5-2i)",
        "q = 3",
        "h = 340282366920938463463374607431768211455",
        "l = <not captured: RipTrace cannot read a float of 16 bytes yet>",
        "blue = Blue (2)",
        "odd = 9",
    ]);
    let q = Decoder::new(&hit.layout, &hit.raw).variable("q").unwrap();
    assert_eq!(q.type_name, "main.Qty");
}

#[test]
fn a_string_says_how_much_of_it_is_there() {
    let mut hit = Hit::new();
    let string = hit.string();
    hit.memory(0x1000, b"hello\n\xff");
    hit.chunk(0x2000, 300, "größe".as_bytes().get(..3).unwrap(), ChunkEnd::Limit);
    hit.chunk(0x3000, 10, b"abc", ChunkEnd::Fault);
    hit.chunk(0x4000, 10, b"", ChunkEnd::Fault);
    hit.words("whole", string, &[0x1000, 7]);
    hit.words("inside", string, &[0x1001, 4]);
    hit.words("empty", string, &[0, 0]);
    hit.words("cut", string, &[0x2000, 300]);
    hit.words("faulty", string, &[0x3000, 10]);
    hit.words("unmapped", string, &[0x4000, 10]);
    hit.words("away", string, &[0x9000, 10]);
    hit.words("nil", string, &[0, 10]);
    hit.words("absurd", string, &[0x1000, 1 << 60]);
    hit.check(&[
        r#"whole = "hello\n\xff""#,
        "inside = \"ello\"",
        "empty = \"\"",
        "cut = \"gr\"...+298 more <truncated: 3 of 300 bytes>",
        "faulty = \"abc\"...+7 more <unreadable: 0x3003>",
        "unmapped = <unreadable: 0x4000>",
        "away = <truncated: 0 of 10 bytes>",
        "nil = <suspect: a string of 10 at nil cannot be>",
        "absurd = <suspect: a string of 1152921504606846976 cannot be>",
    ]);
}

#[test]
fn slices_and_arrays_list_their_elements() {
    let mut hit = Hit::new();
    let int = hit.int();
    let u8 = hit.ty("uint8", 1, TypeKind::Unsigned);
    let empty = hit.ty("struct {}", 0, TypeKind::Struct { fields: vec![] });
    let ints = hit.ty("[]int", 24, TypeKind::GoSlice { element: int });
    let bytes = hit.ty("[]uint8", 24, TypeKind::GoSlice { element: u8 });
    let empties = hit.ty("[]struct {}", 24, TypeKind::GoSlice { element: empty });
    let array = hit.ty("[2]int", 16, TypeKind::Array { element: int, count: 2 });
    hit.memory(0x1000, &words(&[1, 2, 3]));
    hit.chunk(0x2000, 800, &words(&[7, 8]), ChunkEnd::Limit);
    hit.chunk(0x3000, 16, &words(&[9]), ChunkEnd::Fault);
    hit.memory(0x4000, "höher".as_bytes());
    hit.words("s", ints, &[0x1000, 3, 4]);
    hit.words("nil", ints, &[0, 0, 0]);
    hit.words("none", ints, &[0x1000, 0, 5]);
    hit.words("cut", ints, &[0x2000, 100, 128]);
    hit.words("faulty", ints, &[0x3000, 2, 2]);
    hit.words("away", ints, &[0x9000, 2, 2]);
    hit.words("wrong", ints, &[0x1000, 5, 4]);
    hit.words("absurd", ints, &[0x1000, 1, 1 << 50]);
    hit.words("text", bytes, &[0x4000, 6, 8]);
    hit.words("units", empties, &[0x77, 2, 2]);
    hit.words("a", array, &[1, 2]);
    hit.check(&[
        "s = []int len: 3, cap: 4, [1,2,3]",
        "  [0] = 1",
        "  [1] = 2",
        "  [2] = 3",
        "nil = []int len: 0, cap: 0, nil",
        "none = []int len: 0, cap: 5, []",
        "cut = []int len: 100, cap: 128, [7,8,...+98 more] <truncated: 2 of 100 elements>",
        "  [0] = 7",
        "  [1] = 8",
        "faulty = []int len: 2, cap: 2, [9,...+1 more] <unreadable: 0x3008>",
        "  [0] = 9",
        "away = []int len: 2, cap: 2, [...+2 more] <truncated: 0 of 2 elements>",
        "wrong = <suspect: its length 5 is beyond its capacity 4>",
        "absurd = <suspect: a slice of 1125899906842624 cannot be>",
        "text = []uint8 len: 6, cap: 8, \"höher\"",
        "  [0] = 104",
        "  [1] = 195",
        "  [2] = 182",
        "  [3] = 104",
        "  [4] = 101",
        "  [5] = 114",
        "units = []struct {} len: 2, cap: 2, [struct {} {},struct {} {}]",
        "  [0] = struct {} {}",
        "  [1] = struct {} {}",
        "a = [2]int [1,2]",
        "  [0] = 1",
        "  [1] = 2",
    ]);
}

#[test]
fn pointers_show_what_they_point_to() {
    let mut hit = Hit::new();
    let item = hit.item();
    let int = hit.int();
    let items = hit.ty("*main.Item", 8, TypeKind::Pointer { to: Some(item) });
    let ints = hit.ty("*int", 8, TypeKind::Pointer { to: Some(int) });
    let any = hit.ty("unsafe.Pointer", 8, TypeKind::Pointer { to: None });
    hit.memory(0x1000, &words(&[0x2000, 3, 9]));
    hit.memory(0x2000, b"abc");
    hit.chunk(0x3000, 24, &words(&[0x2000, 2]), ChunkEnd::Limit);
    hit.chunk(0x4000, 24, &[], ChunkEnd::Fault);
    hit.words("p", items, &[0x1000]);
    hit.words("inner", ints, &[0x1010]);
    hit.words("nil", items, &[0]);
    hit.words("far", items, &[0x9000]);
    hit.words("cut", items, &[0x3000]);
    hit.words("bad", items, &[0x4000]);
    hit.words("any", any, &[0x1000]);
    hit.check(&[
        "p = *main.Item {SKU: \"abc\", Qty: 9}",
        "  *p = main.Item {SKU: \"abc\", Qty: 9}",
        "    SKU = \"abc\"",
        "    Qty = 9",
        "inner = *9",
        "  *inner = 9",
        "nil = nil",
        "far = (*main.Item)(0x9000)",
        "  *far = <not captured: the pointer was not followed (limits: depth, bytes per hit)>",
        "cut = *main.Item {SKU: \"ab\", Qty: <not captured>}",
        "  *cut = main.Item {SKU: \"ab\", Qty: <not captured>} <truncated: 16 bytes of it were captured>",
        "    SKU = \"ab\"",
        "    Qty = <not captured: it lies beyond a limit of the tracepoint>",
        "bad = (*main.Item)(0x4000)",
        "  *bad = main.Item {SKU: <unreadable>, Qty: <unreadable>} <unreadable: 0x4000>",
        "    SKU = <unreadable: 0x4000>",
        "    Qty = <unreadable: 0x4000>",
        "any = unsafe.Pointer(0x1000)",
    ]);
}

#[test]
fn a_list_that_leads_back_ends() {
    let mut hit = Hit::new();
    let node = TypeIndex(1);
    let pointer = hit.ty("*main.Node", 8, TypeKind::Pointer { to: Some(node) });
    let field = Field { name: "Next".into(), ty: pointer, offset: 0, embedded: false };
    hit.ty("main.Node", 8, TypeKind::Struct { fields: vec![field] });
    hit.memory(0x1000, &words(&[0x2000]));
    hit.memory(0x2000, &words(&[0x1000]));
    hit.words("p", pointer, &[0x1000]);
    hit.check(&[
        "p = *main.Node {Next: *main.Node {Next: (*main.Node)(0x1000)}}",
        "  *p = main.Node {Next: *main.Node {Next: (*main.Node)(0x1000)}}",
        "    Next = *main.Node {Next: (*main.Node)(0x1000)}",
        "      *Next = main.Node {Next: (*main.Node)(0x1000)}",
        "        Next = (*main.Node)(0x1000)",
        "          *Next = <not captured: it is shown further up: this points back>",
    ]);
}

#[test]
fn a_variable_without_bytes_says_why() {
    let mut hit = Hit::new();
    let int = hit.int();
    let map = hit.ty("map[string]int", 8, TypeKind::Opaque { what: "map".into() });
    let absent = RootState::Absent;
    hit.var("x", int, &1i64.to_le_bytes());
    hit.root("out", int, Root::OptimisedOut, absent);
    hit.root("part", int, Root::Partial { present: "len only".into() }, absent);
    hit.root("odd", int, Root::Suspect { why: "its place is that of x.len".into() }, absent);
    hit.root("secret", int, Root::Redacted, absent);
    hit.root("skipped", int, Root::NotCaptured { why: "no such field".into() }, absent);
    hit.root("gone", int, Root::Whole { offset: 0, bytes: 8 }, RootState::Unreadable(Avma(0xdead)));
    hit.root("late", int, Root::Whole { offset: 0, bytes: 8 }, RootState::OverBudget);
    hit.root("short", int, Root::Whole { offset: 1000, bytes: 8 }, RootState::Captured);
    hit.root("size", int, Root::Whole { offset: 0, bytes: 4 }, RootState::Captured);
    hit.root("type", TypeIndex(99), Root::Whole { offset: 0, bytes: 4 }, RootState::Captured);
    hit.words("m", map, &[0x1000]);
    hit.var("x", int, &2i64.to_le_bytes());
    hit.raw.root_states.pop();
    hit.check(&[
        "(x) = 1",
        "out = <optimised out>",
        "part = <partial: len only>",
        "odd = <suspect: its place is that of x.len>",
        "secret = <redacted>",
        "skipped = <not captured: no such field>",
        "gone = <unreadable: 0xdead>",
        "late = <not captured: the hit's budget of bytes was used up>",
        "short = <not captured: the capture does not fit its layout>",
        "size = <not captured: the capture does not fit its layout>",
        "type = <not captured: the capture does not fit its layout>",
        "m = <not captured: RipTrace does not read map values yet>",
        "x = <not captured: the capture does not fit its layout>",
    ]);
}

#[test]
fn a_part_that_tells_all_of_a_value_is_that_value() {
    let mut hit = Hit::new();
    let int = hit.int();
    let text = hit.ty("string", 16, TypeKind::GoString);
    let list = hit.ty("[]int", 24, TypeKind::GoSlice { element: int });
    let interface = TypeKind::GoInterface { empty: false, cases: Vec::new(), others: Vec::new() };
    let error = hit.ty("error", 16, interface);
    let field = |name: &str, offset| Field { name: name.into(), ty: int, offset, embedded: false };
    let point = hit.ty("main.point", 16, TypeKind::Struct { fields: vec![field("X", 0), field("Y", 8)] });
    hit.memory(0x1000, &words(&[7, 8]));
    let pieces = |hit: &mut Hit, name: &str, ty, held: &[u64], missing: &[(u32, u32)]| {
        hit.words(name, ty, held);
        let Some(variable) = hit.layout.variables.last_mut() else { return };
        let Root::Whole { offset, bytes } = variable.root else { return };
        variable.root = Root::Pieces { offset, bytes, missing: missing.to_vec(), present: "some".into() };
    };
    pieces(&mut hit, "none", error, &[0, 99], &[(8, 16)]);
    pieces(&mut hit, "some", error, &[0x5000, 0], &[(8, 16)]);
    pieces(&mut hit, "untyped", error, &[0, 0x1000], &[(0, 8)]);
    pieces(&mut hit, "empty", text, &[99, 0], &[(0, 8)]);
    pieces(&mut hit, "long", text, &[0, 4], &[(0, 8)]);
    pieces(&mut hit, "unsized", text, &[0, 0], &[(8, 16)]);
    pieces(&mut hit, "nothing", list, &[0, 99, 99], &[(8, 24)]);
    pieces(&mut hit, "two", list, &[0x1000, 2, 2], &[(16, 24)]);
    pieces(&mut hit, "count", list, &[0, 2, 0], &[(0, 8), (16, 24)]);
    pieces(&mut hit, "lost", list, &[0, 2, 2], &[(16, 24)]);
    pieces(&mut hit, "zero", list, &[0x1000, 0, 0], &[(16, 24)]);
    pieces(&mut hit, "at", point, &[3, 0], &[(8, 16)]);
    pieces(&mut hit, "number", int, &[3], &[(0, 4)]);
    hit.check(&[
        "none = nil",
        "some = <partial: some>",
        "untyped = <partial: some>",
        "empty = \"\"",
        "long = {len: 4} <partial: some>",
        "unsized = <partial: some>",
        "nothing = []int len: 0, cap: 0, nil",
        "two = []int len: 2, [7,8] <partial: some>",
        "  [0] = 7",
        "  [1] = 8",
        "count = {len: 2} <partial: some>",
        "lost = <suspect: a slice of 2 at nil cannot be>",
        "zero = []int len: 0, [] <partial: some>",
        "at = main.point {X: 3, Y: <optimised out>} <partial: some>",
        "  X = 3",
        "  Y = <optimised out>",
        "number = <partial: some>",
    ]);
}

#[test]
fn expressions_read_a_hit_without_building_all_of_it() {
    let mut hit = Hit::new();
    let item = hit.item();
    let pointer = hit.ty("*main.Item", 8, TypeKind::Pointer { to: Some(item) });
    let outer_fields = vec![Field { name: "Item".into(), ty: pointer, offset: 0, embedded: true }];
    let outer = hit.ty("main.Outer", 8, TypeKind::Struct { fields: outer_fields });
    hit.memory(0x1000, &words(&[0x2000, 3, 9]));
    hit.memory(0x2000, b"abc");
    hit.words("o", outer, &[0x1000]);
    hit.words("far", outer, &[0x9000]);
    let decoder = Decoder::new(&hit.layout, &hit.raw);
    assert_eq!(decoder.names(), ["o", "far"]);
    assert!(decoder.has(Scope::Local) && !decoder.has(Scope::Argument));
    assert_eq!(decoder.variables(Some(Scope::Local)).len(), 2);
    let text = |text: &str| eval(&parse(text).unwrap(), &decoder).map(|value| value.value);
    assert_eq!(text("o.SKU + \"!\"").unwrap(), "\"abc!\"");
    assert_eq!(text("o.Item.Qty * 2").unwrap(), "18");
    // A field of what was not captured is not known: it may well exist.
    assert_eq!(
        text("far.SKU").unwrap_err().to_string(),
        "far.Item was not captured: the pointer was not followed (limits: depth, bytes per hit)"
    );
    assert_eq!(Template::parse("{o.SKU}x{o.Qty}").unwrap().render(&decoder), "abcx9");
}

#[test]
fn shared_memory_does_not_blow_up_the_tree() {
    // Each of 64 pointers leads to the same 64 pointers of the next level, 20 levels deep: 64^20 values.
    let mut hit = Hit::new();
    let mut element = hit.int();
    for level in 0..20 {
        let array = hit.ty(&format!("[64]level{level}"), 512, TypeKind::Array { element, count: 64 });
        element = hit.ty(&format!("*level{level}"), 8, TypeKind::Pointer { to: Some(array) });
        hit.memory(0x10000 * (level + 1), &words(&[0x10000 * level; 64]));
    }
    hit.words("p", element, &[0x10000 * 20]);
    let mut count = 0;
    fn walk(value: &Value, count: &mut usize) {
        *count += 1;
        assert!(value.value.len() < 1024);
        value.children.iter().for_each(|child| walk(child, count));
    }
    values(&hit.layout, &hit.raw).iter().for_each(|value| walk(value, &mut count));
    assert!(count <= 2 * limits::VALUE_NODES_MAX, "{count}");
    let many = hit.show();
    assert!(many.contains("<truncated: "), "{many:.200}");
}

/// Small numbers, and the ones at which things break.
pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..40u64, Just(u64::MAX), Just(1 << 47), Just(u64::MAX / 8), (0..8u64).prop_map(|i| 0x1000 + 8 * i)]
}

fn kind() -> impl Strategy<Value = TypeKind> {
    let index = || (0..10u32).prop_map(TypeIndex);
    prop_oneof![
        Just(TypeKind::Signed),
        Just(TypeKind::Unsigned),
        Just(TypeKind::Float),
        Just(TypeKind::Complex),
        Just(TypeKind::Bool),
        Just(TypeKind::GoString),
        proptest::option::of(index()).prop_map(|to| TypeKind::Pointer { to }),
        index().prop_map(|element| TypeKind::GoSlice { element }),
        index().prop_map(|to| TypeKind::Alias { to }),
        (index(), number()).prop_map(|(element, count)| TypeKind::Array { element, count }),
        proptest::collection::vec((index(), number(), any::<bool>()), 0..5).prop_map(|fields| TypeKind::Struct {
            fields: fields
                .into_iter()
                .map(|(ty, offset, embedded)| Field { name: format!("f{}", ty.0), ty, offset, embedded })
                .collect()
        }),
        any::<bool>().prop_map(|signed| TypeKind::Enum { signed, names: vec![("A".into(), 1)] }),
        go_kind(),
        super::native_tests::native_kind(),
    ]
}

fn go_kind() -> impl Strategy<Value = TypeKind> {
    let index = || (0..10u32).prop_map(TypeIndex);
    let offset = || prop_oneof![8 => (0..5u32).prop_map(|word| word * 8), 1 => any::<u32>()];
    let slots =
        (offset(), offset(), offset(), offset(), any::<bool>()).prop_map(|(bytes, at, stride, next, indirect)| Slots {
            bytes,
            control_at: 0,
            keys_at: at,
            key_stride: stride,
            elements_at: next,
            element_stride: stride,
            indirect_key: indirect,
            indirect_element: !indirect,
        });
    let tables = (any::<bool>(), offset(), offset(), offset()).prop_map(|(swiss, a, b, c)| {
        if swiss {
            let (table_bytes, index_at, groups_at, mask_at) = (24, a, b, c);
            MapTables::Swiss { directory_at: a, tables_at: b, table_bytes, index_at, groups_at, mask_at }
        } else {
            MapTables::Buckets { power_at: a, flags_at: a, buckets_at: b, old_buckets_at: c, overflow_at: a }
        }
    });
    let map =
        (index(), index(), offset(), offset(), slots, tables).prop_map(|(key, element, bytes, at, slots, tables)| {
            let form = MapForm { bytes, count_at: at, writing_at: at, writing_mask: 0, slots, tables };
            TypeKind::GoMap { key, element, form }
        });
    let chan = (index(), offset(), offset(), offset()).prop_map(|(element, a, b, c)| TypeKind::GoChan {
        element,
        form: ChanForm {
            bytes: 40,
            count_at: a,
            capacity_at: b,
            buffer_at: c,
            closed_at: a,
            first_at: b,
            receivers_at: c,
            senders_at: a,
            next_at: b,
        },
    });
    let cases = proptest::collection::vec((number(), index(), any::<bool>()), 0..4);
    let interface = (any::<bool>(), cases).prop_map(|(empty, cases)| {
        let mut cases: Vec<DynamicType> =
            cases.into_iter().map(|(address, ty, direct)| DynamicType { address, ty, direct }).collect();
        cases.sort_by_key(|case| case.address);
        TypeKind::GoInterface { empty, cases, others: vec![NamedType { address: 0x1000, name: "T".into() }] }
    });
    let func = (number(), number(), index(), any::<u32>()).prop_map(|(address, offset, ty, bytes)| TypeKind::GoFunc {
        functions: vec![FunctionCase {
            address,
            name: "main.f".into(),
            bytes,
            captured: vec![Field { name: "&x".into(), ty, offset, embedded: false }],
        }],
    });
    prop_oneof![map, chan, interface, func]
}

fn hits() -> impl Strategy<Value = Hit> {
    let bytes_of_type = prop_oneof![Just(0u64), Just(1), Just(8), Just(16), Just(24), number()];
    let types = proptest::collection::vec((bytes_of_type, kind()), 1..9);
    let variables = proptest::collection::vec((0..10u32, 0..64u32, 0..64u32, any::<bool>()), 0..6);
    let memory = || proptest::collection::vec(number(), 0..9).prop_map(|numbers| words(&numbers));
    let end = prop_oneof![Just(ChunkEnd::Complete), Just(ChunkEnd::Fault), Just(ChunkEnd::Limit)];
    let chunks = proptest::collection::vec((number(), number(), memory(), end), 0..6);
    (types, variables, memory(), chunks).prop_map(|(types, variables, roots, chunks)| {
        let mut hit = Hit::new();
        for (index, (bytes, kind)) in types.into_iter().enumerate() {
            hit.ty(&format!("T{index}"), bytes, kind);
        }
        for (ty, offset, bytes, whole) in variables {
            // Half of them fit their type, so that decoding goes deep.
            let bytes = match hit.layout.types.get(ty as usize) {
                Some(known) if whole => u32::try_from(known.bytes).unwrap_or(bytes),
                _ => bytes,
            };
            hit.root(&format!("v{ty}"), TypeIndex(ty), Root::Whole { offset, bytes }, RootState::Captured);
        }
        hit.raw.roots = roots;
        for (address, wanted, bytes, end) in chunks {
            hit.chunk(address, wanted, &bytes, end);
        }
        hit
    })
}

fn count(values: &[Value], depth: usize) -> (usize, usize) {
    values
        .iter()
        .map(|value| count(&value.children, depth + 1))
        .fold((values.len(), depth), |(n, d), (cn, cd)| (n + cn, d.max(cd)))
}

proptest! {
    #[test]
    fn a_random_hit_is_decoded_within_its_bounds(hit in hits()) {
        let values = values(&hit.layout, &hit.raw);
        prop_assert_eq!(values.len(), hit.layout.variables.len());
        let (nodes, depth) = count(&values, 0);
        prop_assert!(nodes <= 2 * limits::VALUE_NODES_MAX, "{} values", nodes);
        prop_assert!(depth <= limits::VALUE_DEPTH_MAX + 2, "{} deep", depth);
        let decoder = Decoder::new(&hit.layout, &hit.raw);
        for text in ["v0.f1.f2", "*v1", "v2[0]", "len(v3) + v4", "v5 == v6", "string(v7)"] {
            // Whatever the outcome, it is one.
            let _ = eval(&parse(text).unwrap(), &decoder);
        }
    }
}

#[test]
fn a_ring_is_read_from_its_first_element_on() {
    let mut hit = Hit::new();
    let element = hit.int();
    let ring = NativeKind::Ring { address_at: 8, capacity_at: 0, first_at: 16, length_at: 24, element };
    let ring = hit.ty("VecDeque<i64>", 32, TypeKind::Native(ring));
    hit.memory(0x1000, &words(&[5, 2, 3, 4]));
    hit.words("wrapped", ring, &[4, 0x1000, 1, 4]);
    hit.words("empty", ring, &[0, 8, 0, 0]);
    hit.words("torn", ring, &[4, 0x1000, 1, 9]);
    hit.words("away", ring, &[4, 0x9000, 0, 1]);
    hit.check(&[
        "wrapped = len: 4, [2,3,4,5]",
        "  [0] = 2",
        "  [1] = 3",
        "  [2] = 4",
        "  [3] = 5",
        "empty = len: 0, []",
        "torn = <suspect: 9 elements from 1 on do not fit a buffer of 4>",
        "away = len: 1, [...+1 more] <truncated: 0 of 1 elements>",
    ]);
}

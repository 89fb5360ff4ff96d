// Values of Rust that the program knows itself: it says each one as `mark TAB path TAB text`, before its mark.
#![allow(dead_code)]
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hint::black_box;
use std::io::BufRead;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, PartialEq)]
struct Point {
    x: i32,
    y: f64,
}
#[derive(Debug, Clone, Copy)]
struct Meters(u16);
#[derive(Debug, Clone)]
enum Shape {
    Empty,
    Circle { radius: f64 },
    Line(i32, i32),
    Named(String),
}
#[derive(Debug, Clone, Copy, PartialEq)]
enum Level {
    Low = -3,
    High = 9,
}

fn say(mark: &str, path: &str, value: impl Debug) {
    println!("{mark}\t{path}\t{value:?}");
}
fn tell(mark: &str, path: &str, text: impl std::fmt::Display) {
    println!("{mark}\t{path}\t{text}");
}

/// A call is on a line whatever is optimised.
#[inline(never)]
fn mark(number: i32) -> i32 {
    black_box(number)
}

#[inline(never)]
fn scalars(count: i8, wide: u128, letter: char, flag: bool, text: &str) -> usize {
    let string = String::from("owned");
    let bytes: &[u8] = &[250, 251, 252];
    let level = Level::Low;
    let unit_like = Meters(12);
    let pair = (count, 2.5f32);
    say("scalars", "count", count);
    say("scalars", "wide", wide);
    say("scalars", "letter", letter);
    say("scalars", "flag", flag);
    say("scalars", "text", text);
    say("scalars", "string", &string);
    tell("scalars", "bytes", "len: 3, [250,251,252]");
    say("scalars", "level", level);
    say("scalars", "unit_like", unit_like);
    say("scalars", "pair", pair);
    say("scalars", "pair.__1", pair.1);
    black_box((&string, &bytes, &level, &unit_like, &pair, &count, &wide, &letter, &flag, &text));
    black_box(string.len() + text.len()) // BP scalars
}

#[inline(never)]
fn enums(shape: &Shape) -> i32 {
    let none: Option<i32> = None;
    let some = Some(7u8);
    let boxed: Option<Box<i32>> = Some(Box::new(8));
    let no_box: Option<Box<i32>> = None;
    let reference: Option<&str> = Some("here");
    let no_string: Option<String> = None;
    let circle = Shape::Circle { radius: 1.5 };
    let line = Shape::Line(3, -4);
    let named = Shape::Named("n".to_owned());
    let empty = Shape::Empty;
    let good: Result<u16, String> = Ok(5);
    let bad: Result<u16, String> = Err("broken".into());
    let nested: Option<Option<bool>> = Some(None);
    let order = std::cmp::Ordering::Less;
    say("enums", "shape", shape);
    say("enums", "none", none);
    say("enums", "some", some);
    tell("enums", "boxed", "Some(8)");
    say("enums", "no_box", &no_box);
    say("enums", "reference", reference);
    say("enums", "no_string", &no_string);
    say("enums", "circle", &circle);
    say("enums", "circle.radius", 1.5);
    say("enums", "line", &line);
    say("enums", "named", &named);
    say("enums", "empty", &empty);
    say("enums", "good", &good);
    say("enums", "bad", &bad);
    say("enums", "nested", nested);
    say("enums", "order", order);
    black_box((&none, &some, &boxed, &no_box, &reference, &no_string, &circle, &line, &named, &empty));
    black_box((&good, &bad, &nested, &order));
    mark(9) // BP enums
}

#[inline(never)]
fn owners(point: &Point, points: &[Point], list: &mut Vec<i64>) -> i64 {
    let boxed = Box::new(Point { x: 5, y: 0.5 });
    let counted = Rc::new(RefCell::new(33));
    let shared = Arc::new(44u32);
    let cell = Cell::new(55);
    let atomic = AtomicU32::new(66);
    let mutex = Mutex::new(77u8);
    let strings = vec!["a".to_owned(), "bc".to_owned()];
    let none: Vec<u8> = Vec::new();
    let array = [1u16, 2, 3];
    let map: HashMap<u32, u32> = HashMap::from([(1, 2)]);
    let other = Rc::clone(&counted);
    let mut ring: VecDeque<u32> = VecDeque::with_capacity(4);
    ring.extend([1, 2, 3, 4]);
    ring.pop_front();
    ring.push_back(5);
    let mut texts: VecDeque<String> = VecDeque::new();
    texts.push_front("front".to_owned());
    let shared_text: Rc<str> = "counted text".into();
    let no_text: Arc<str> = "".into();
    let shared_list: Rc<[u16]> = [7u16, 8, 9].into();
    let shared_texts: Arc<[String]> = ["x".to_owned(), "yz".to_owned()].into();
    let shared_array: Rc<[u8; 2]> = Rc::new([5, 6]);
    let boxed_list: Box<[i64]> = vec![-1, -2].into();
    let boxed_text: Box<str> = "boxed text".into();
    say("owners", "shared_text", &shared_text);
    say("owners", "no_text", &no_text);
    tell("owners", "shared_list", "len: 3, [7,8,9]");
    say("owners", "shared_list.[2]", shared_list[2]);
    tell("owners", "shared_texts", "len: 2, [\"x\",\"yz\"]");
    say("owners", "shared_array.*shared_array.value.[1]", shared_array[1]);
    tell("owners", "boxed_list", "len: 2, [-1,-2]");
    say("owners", "boxed_text", &boxed_text);
    black_box((&shared_text, &no_text, &shared_list, &shared_texts, &shared_array, &boxed_list, &boxed_text));
    say("owners", "point.*point.x", point.x);
    say("owners", "point.*point.y", point.y);
    say("owners", "points.[1].x", points[1].x);
    tell("owners", "list", format!("len: {}, [10,-20]", list.len()));
    say("owners", "boxed.*boxed.x", boxed.x);
    say("owners", "counted.*counted.value.value", 33);
    say("owners", "counted.*counted.strong", 2);
    say("owners", "shared.*shared.data", 44);
    say("owners", "cell", cell.get());
    say("owners", "atomic", atomic.load(Ordering::SeqCst));
    say("owners", "mutex.data", 77);
    tell("owners", "strings", "len: 2, [\"a\",\"bc\"]");
    say("owners", "strings.[1]", &strings[1]);
    tell("owners", "none", "len: 0, []");
    say("owners", "array.[2]", array[2]);
    tell("owners", "ring", "len: 4, [2,3,4,5]");
    say("owners", "ring.[3]", ring[3]);
    tell("owners", "texts", "len: 1, [\"front\"]");
    black_box((&boxed, &counted, &shared, &cell, &atomic, &mutex, &strings, &none, &array, &map, &other, &ring, &texts));
    black_box(list[0] + i64::from(point.x)) // BP owners
}

/// Containers that find their entries by hashes or by order.
#[inline(never)]
fn tables(many: &HashMap<u32, String>) -> usize {
    let one: HashMap<&str, i64> = HashMap::from([("only", -7)]);
    let none: HashMap<u8, u8> = HashMap::new();
    let mut removed: HashMap<u64, u64> = (0..10).map(|n| (n, n * n)).collect();
    removed.retain(|n, _| n % 3 == 0);
    let set: HashSet<char> = HashSet::from(['s']);
    let pairs: HashSet<(u8, i16)> = HashSet::from([(4, -4)]);
    let unit: HashMap<u16, ()> = HashMap::from([(9, ())]);
    let tree: BTreeMap<i32, String> = [(5, "five"), (-1, "less"), (3, "three")].map(|(n, s)| (n, s.to_owned())).into();
    let deep: BTreeMap<u16, u32> = (0..100).map(|n| (n, u32::from(n) * 3)).collect();
    let sorted: BTreeSet<u8> = [9, 1, 5].into();
    let bare: BTreeMap<u8, u8> = BTreeMap::new();
    let within: Option<BTreeMap<&str, Vec<u8>>> = Some([("list", vec![1, 2])].into());
    for (key, value) in many {
        say("tables", &format!("many.*many.[{key}]"), value);
    }
    say("tables", "one.[\"only\"]", one["only"]);
    tell("tables", "one", "len: 1, {\"only\": -7}");
    tell("tables", "none", "len: 0, {}");
    for (key, value) in &removed {
        say("tables", &format!("removed.[{key}]"), value);
    }
    tell("tables", "set", "len: 1, {'s'}");
    tell("tables", "pairs", "len: 1, {(4, -4)}");
    tell("tables", "tree", "len: 3, {-1: \"less\", 3: \"three\", 5: \"five\"}");
    say("tables", "tree.[3]", &tree[&3]);
    for key in [0, 11, 50, 99] {
        say("tables", &format!("deep.[{key}]"), deep[&key]);
    }
    tell("tables", "sorted", "len: 3, {1, 5, 9}");
    tell("tables", "bare", "len: 0, {}");
    tell("tables", "within.__0.[\"list\"]", "len: 2, [1,2]");
    black_box((&one, &none, &removed, &set, &pairs, &unit, &tree, &deep, &sorted, &bare, &within));
    black_box(many.len()) // BP tables
}

trait Figure {
    fn area(&self) -> f64;
}
trait Named<T> {
    fn name(&self) -> T;
}
struct Square {
    side: f64,
}
struct Circle {
    radius: f64,
    label: String,
}
#[repr(align(64))]
struct Wide {
    far: u8,
}
impl Figure for Square {
    fn area(&self) -> f64 {
        self.side * self.side
    }
}
impl Figure for Circle {
    fn area(&self) -> f64 {
        self.radius * 3.0
    }
}
impl Figure for Wide {
    fn area(&self) -> f64 {
        self.far.into()
    }
}
impl Named<String> for Circle {
    fn name(&self) -> String {
        self.label.clone()
    }
}
impl Named<u8> for Square {
    fn name(&self) -> u8 {
        1
    }
}

/// Values whose types only their tables of methods tell.
#[inline(never)]
fn objects(reference: &dyn Figure, other: &(dyn Figure + Send)) -> f64 {
    let boxed: Box<dyn Figure> = Box::new(Circle { radius: 2.5, label: "round".to_owned() });
    let counted: Rc<dyn Figure> = Rc::new(Square { side: 6.5 });
    let shared: Arc<dyn Figure + Send + Sync> = Arc::new(Wide { far: 8 });
    let named: Box<dyn Named<String>> = Box::new(Circle { radius: 1.0, label: "generic".to_owned() });
    let numbered: Box<dyn Named<u8>> = Box::new(Square { side: 0.25 });
    let all: Vec<Box<dyn Figure>> = vec![Box::new(Square { side: 1.5 }), Box::new(Wide { far: 3 })];
    let step = 5;
    let call: Box<dyn Fn(i32) -> i32> = Box::new(move |n| n + step);
    say("objects", "reference.*reference.side", 3.5);
    say("objects", "other.*other.label", "sent");
    say("objects", "boxed.*boxed.radius", 2.5);
    say("objects", "boxed.*boxed.label", "round");
    say("objects", "counted.*counted.value.side", 6.5);
    say("objects", "counted.*counted.strong", 1);
    say("objects", "shared.*shared.data.far", 8);
    say("objects", "named.*named.label", "generic");
    say("objects", "numbered.*numbered.side", 0.25);
    say("objects", "all.[0].*[0].side", 1.5);
    say("objects", "all.[1].*[1].far", 3);
    black_box((&boxed, &counted, &shared, &named, &numbered, &all, &call, named.name(), numbered.name()));
    black_box(reference.area() + other.area() + f64::from(call(1))) // BP objects
}

fn main() {
    println!("ready {}", std::process::id());
    std::io::stdin().lock().lines().next().unwrap().unwrap();
    let mut list = vec![10, -20];
    let points = [Point { x: 1, y: 1.5 }, Point { x: 2, y: 2.5 }];
    let sum = scalars(-5, u128::MAX - 1, 'ß', true, "a text") as i64
        + i64::from(enums(&Shape::Line(1, 2)))
        + owners(&points[0], &points, &mut list)
        + tables(&(0..6).map(|n| (n, format!("number {n}"))).collect()) as i64
        + objects(&Square { side: 3.5 }, &Circle { radius: 4.0, label: "sent".to_owned() }) as i64;
    assert_ne!(sum, 0);
}

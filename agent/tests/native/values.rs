// Values of Rust that the program knows itself: it says each one as `mark TAB path TAB text`, before its mark.
#![allow(dead_code)]
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
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

fn main() {
    println!("ready {}", std::process::id());
    std::io::stdin().lock().lines().next().unwrap().unwrap();
    let mut list = vec![10, -20];
    let points = [Point { x: 1, y: 1.5 }, Point { x: 2, y: 2.5 }];
    let sum = scalars(-5, u128::MAX - 1, 'ß', true, "a text") as i64
        + i64::from(enums(&Shape::Line(1, 2)))
        + owners(&points[0], &points, &mut list);
    assert_ne!(sum, 0);
}

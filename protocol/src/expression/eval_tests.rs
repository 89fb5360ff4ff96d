//! Expressions over a small tree of values, as a table of text and result.

use super::*;
use crate::expression::{Template, parse};
use crate::value::Facts;

fn number(name: &str, ty: &str, value: i128, number: Number) -> Value {
    let mut v = Value::exact(name, ty, value.to_string());
    v.scalar = Some(Scalar::Int(value));
    v.facts.number = Some(number);
    v
}

fn int(name: &str, value: i128) -> Value {
    number(name, "int", value, Number::Signed { bits: 64 })
}

fn text(name: &str, value: &str) -> Value {
    let mut v = Value::exact(name, "string", quote::text(value.as_bytes()));
    v.scalar = Some(Scalar::Text(value.as_bytes().to_vec()));
    v
}

fn float(name: &str, ty: &str, bits: u16, value: f64) -> Value {
    let mut v = Value::exact(name, ty, quote::float(value, bits == 32));
    v.scalar = Some(Scalar::Float(value));
    v.facts.number = Some(Number::Float { bits });
    v
}

fn parts(name: &str, ty: &str, children: Vec<Value>) -> Value {
    Value { children, ..Value::exact(name, ty, format!("{ty} {{...}}")) }
}

fn pointer(name: &str, ty: &str, address: u64, to: Option<Value>) -> Value {
    let mut v = Value::exact(name, ty, if address == 0 { "nil".into() } else { format!("{address:#x}") });
    v.scalar = Some(Scalar::Address(address));
    v.children = to.into_iter().collect();
    v
}

fn slice(name: &str, ty: &str, len: u64, cap: u64, children: Vec<Value>) -> Value {
    let mut v = Value::exact(name, ty, "[...]");
    if (children.len() as u64) < len {
        v.status = Status::Truncated { detail: format!("{} of {len} elements", children.len()) };
    }
    v.children = children;
    v.scalar = Some(Scalar::Sequence { len, cap: Some(cap), nil: len == 0 && cap == 0 });
    v
}

fn embedded(mut value: Value) -> Value {
    value.facts = Facts { embedded: true, ..value.facts };
    value
}

fn scope() -> Vec<Value> {
    let base = || parts("Base", "main.Base", vec![int("ID", 7), text("Name", "shadowed")]);
    let item =
        parts("item", "main.Item", vec![text("SKU", "apple"), int("Qty", 3), embedded(base()), text("Name", "outer")]);
    let mut long = Value::exact("long", "string", "\"abc\"");
    long.status = Status::Truncated { detail: "3 of 9 bytes".into() };
    long.scalar = Some(Scalar::TextPart { shown: b"abc".to_vec(), len: 9 });
    let bytes = (0..3)
        .map(|i| number(&format!("[{i}]"), "uint8", i128::from(b'a') + i, Number::Unsigned { bits: 8 }))
        .collect();
    let mut yes = Value::exact("ok", "bool", "true");
    yes.scalar = Some(Scalar::Bool(true));
    let mut e = item.clone();
    e.name = "[0]".into();
    vec![
        int("n", 5),
        int("zero", 0),
        number("i8", "int8", 127, Number::Signed { bits: 8 }),
        number("u8", "byte", 250, Number::Unsigned { bits: 8 }),
        number("u64", "uint64", i128::from(u64::MAX), Number::Unsigned { bits: 64 }),
        number("qty", "main.Qty", 2, Number::Signed { bits: 32 }),
        float("price", "float64", 64, 2.5),
        float("f32", "float32", 32, f64::from(0.1f32)),
        text("name", "bob"),
        yes,
        item.clone(),
        pointer("p", "*main.Item", 0xc000, Some(Value { name: "*p".into(), ..item })),
        pointer("far", "*main.Item", 0xc100, None),
        pointer("none", "*main.Item", 0, None),
        slice("items", "[]main.Item", 20, 32, vec![e]),
        slice("empty", "[]int", 0, 0, vec![]),
        slice("bytes", "[]uint8", 3, 8, bytes),
        long,
        Value::missing("gone", "int", Status::OptimisedOut),
        Value::missing("m", "map[string]int", Status::NotCaptured { detail: "map".into() }),
        Value::missing("secret", "string", Status::Redacted),
        parts(
            "outer",
            "main.Outer",
            vec![embedded(pointer("Base", "*main.Base", 0xd000, Some(Value { name: "*Base".into(), ..base() })))],
        ),
        int("len(items) * 2", 40),
    ]
}

fn check(expr: &str, expected: &str) {
    let value = eval(&parse(expr).unwrap(), &scope()).unwrap_or_else(|e| panic!("{expr}: {e}"));
    assert_eq!(value.status, Status::Exact, "{expr}");
    assert_eq!(value.value, expected, "{expr}");
    assert_eq!(value.name, parse(expr).unwrap().to_string());
}

fn refused(expr: &str, message: &str) {
    let error = eval(&parse(expr).unwrap(), &scope()).expect_err(expr);
    assert_eq!(error.to_string(), message, "{expr}");
}

#[test]
fn places_are_found_through_pointers_and_embedded_fields() {
    check("item.SKU", "\"apple\"");
    check("p.Qty", "3");
    check("(*p).Qty", "3");
    check("p.ID", "7");
    check("p.Base.ID", "7");
    check("p.Name", "\"outer\"");
    check("outer.ID", "7");
    check("items[0].Base.Name", "\"shadowed\"");
    check("items[n-5].Qty", "3");
    check("name[1]", "111");
    check("bytes[0]", "97");
    check("long[2]", "99");
    check("none", "nil");
}

#[test]
fn slices_are_cut_from_what_was_captured() {
    check("name[1:]", "\"ob\"");
    check("name[:n-4]", "\"b\"");
    check("name[1:2] == \"o\"", "true");
    check("bytes[1:]", "[]uint8 len: 2, cap: 7, [98,99]");
    check("bytes[1:][0]", "98");
    check("len(items[3:10])", "7");
    check("cap(items[3:])", "29");
    check("items[:1][0].Qty", "3");
    check("string(bytes[:2])", "\"ab\"");
    check("len(long[2:])", "7");
    check("long[:2]", "\"ab\"");
    refused("name[2:9]", "name[2:9]: index 9 is out of range, the length is 3");
    refused("name[2:1]", "name[2:1]: index 2 is out of range, the length is 3");
    refused("n[1:2]", "n (int) is not an array, slice or string");
    refused("gone[1:]", "gone is optimised out here");
    let part = eval(&parse("items[:3]").unwrap(), &scope()).unwrap();
    assert_eq!(part.status, Status::Truncated { detail: "1 of 3 elements".into() });
    let part = eval(&parse("long[1:5]").unwrap(), &scope()).unwrap();
    assert_eq!(part.status, Status::Truncated { detail: "2 of 4 bytes".into() });
}

#[test]
fn integers_wrap_at_the_size_of_their_type() {
    check("i8 + 1", "-128");
    check("-i8 - 2", "127");
    check("u8 + 10", "4");
    check("u64 * u64", "1");
    check("u64 + 1", "0");
    check("^u8", "5");
    check("i8 << 1", "-2");
    check("u8 << 9", "0");
    check("u8 >> 1", "125");
    check("-n / 2", "-2");
    check("-n % 3", "-2");
    check("n &^ 1 | 8 ^ 2", "14");
    check("1 << 100", "1267650600228229401496703205376");
    check("qty * 3", "6");
}

#[test]
fn comparisons_are_exact() {
    check("n == 5 && name == \"bob\" || m", "true");
    check("ok && !ok", "false");
    check("zero != 0 && n / zero == 1", "false");
    check("u64 > i8", "true");
    check("price * 2 == 5", "true");
    check("price > 2", "true");
    check("n == 5.0", "true");
    check("f32 + f32", "0.2");
    check("name < \"carl\"", "true");
    check("name + \"!\" == \"bob!\"", "true");
    check("p != nil && none == nil", "true");
    check("empty == nil", "true");
    check("items == nil", "false");
    check("'a' + 1", "98");
    check("1.5 + 1", "2.5");
    check("7 / 2", "3");
    check("7 / 2.0", "3.5");
}

#[test]
fn functions_of_the_language_read_what_is_known() {
    check("len(items)", "20");
    check("cap(items) - len(items)", "12");
    check("len(long)", "9");
    check("len(\"日\")", "3");
    check("len(empty)", "0");
    check("string(bytes) == \"abc\"", "true");
    check("string(bytes[1])", "\"b\"");
    check("string(name)", "\"bob\"");
}

#[test]
fn a_cut_text_is_compared_only_where_that_is_decided() {
    check("long == \"abc\"", "false");
    check("long != \"abcdefghij\"", "true");
    check("long == \"xbcdefghi\"", "false");
    check("long < \"b\"", "true");
    check("long > \"ab\"", "true");
    check("long > \"abc\"", "true");
    refused("long == \"abcdefghi\"", "long was cut (3 of 9 bytes), and what is known of it does not decide this");
    refused(
        "long < \"abd\" && long > \"abcd\"",
        "long was cut (3 of 9 bytes), and what is known of it does not decide this",
    );
    refused("\"abcd\" < long", "long was cut (3 of 9 bytes), and what is known of it does not decide this");
    let sum = eval(&parse("\"x\" + long + \"y\"").unwrap(), &scope()).unwrap();
    assert_eq!(sum.value, "\"xabc\"");
    assert_eq!(sum.status, Status::Truncated { detail: "4 of 11 bytes".into() });
}

#[test]
fn what_has_no_value_says_so() {
    let gone = eval(&parse("gone").unwrap(), &scope()).unwrap();
    assert_eq!((gone.value.as_str(), gone.status), ("", Status::OptimisedOut));
    refused("gone + 1", "gone is optimised out here");
    refused("secret == \"x\"", "secret is redacted");
    refused("m[0]", "m was not captured: map");
    refused("len(m)", "m was not captured: map");
    refused("far.SKU", "*far was not captured: only the address 0xc100 is known");
    refused("items[7].SKU", "items[7] was cut (1 of 20 elements), and what is known of it does not decide this");
    refused("long[5]", "long[5] was cut (3 of 9 bytes), and what is known of it does not decide this");
    refused("none.SKU", "none is nil");
    refused("nam", "nam is not a variable in scope here (is it name?)");
    refused("xyzzy", "xyzzy is not a variable in scope here");
    refused("item.sku", "item (main.Item) has no field sku (is it SKU?)");
}

#[test]
fn mistakes_are_told_apart() {
    refused("n / zero", "n / zero: division by zero");
    refused("n % 0", "n % 0: division by zero");
    refused("1 / 0.0", "1 / 0.0: division by zero");
    refused("n << -1", "n << -1: the shift count is negative");
    refused("items[20]", "items[20]: index 20 is out of range, the length is 20");
    refused("items[-1]", "items[-1]: index -1 is out of range, the length is 20");
    refused("name[3]", "name[3]: index 3 is out of range, the length is 3");
    refused("n + qty", "int + main.Qty: the types do not go together");
    refused("n + name", "int + string: the types do not go together");
    refused("ok < ok", "bool < bool: the types do not go together");
    refused("p < p", "pointer < pointer: the types do not go together");
    refused("nil == nil", "nil == nil: the types do not go together");
    refused("price % 2", "float64 % float64: the types do not go together");
    refused("u8 == 300", "300 does not fit uint8");
    refused("i8 + 128", "128 does not fit int8");
    refused("n == 1.5", "1.5 does not fit int");
    refused("1 << 127 << 1", "1 << 127 does not fit 128 bits");
    refused("!n", "n (int) is not a truth value");
    refused("-name", "name (string) is not a number");
    refused("n && ok", "n (int) is not a truth value");
    refused("*n", "n (int) is not a pointer");
    refused("n.x", "n (int) is not a struct");
    refused("n[0]", "n (int) is not an array, slice or string");
    refused("item == item", "item (main.Item) is not a number, text, truth value or pointer");
    refused("items[name]", "name (string) is not an integer");
}

#[test]
fn what_was_captured_by_its_text_is_found_by_its_text() {
    check("len(items)*2", "40");
    check("len(items)*2 + 1", "41");
}

#[test]
fn a_log_message_shows_values_and_the_reasons_why_not() {
    let template = Template::parse("{name}: qty={item.Qty * 2} {{{gone}}} {gone + 1} {long} {p.Base.Name}").unwrap();
    assert_eq!(
        template.render(&scope()),
        "bob: qty=6 {<optimised out>} <gone is optimised out here> abc <truncated: 3 of 9 bytes> shadowed"
    );
}

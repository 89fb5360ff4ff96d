//! What is said of sources that are written here.

use super::*;
use proptest::prelude::*;

#[test]
fn a_function_by_its_name_is_any_place_in_it() {
    let source = "package cart\n\nfunc Add(n int) int {\n\treturn n\n}\n\nfunc (c *Cart[K]) Add(n int) (total int) {\n\ttotal = n\n\
                  \tif n > 1 {\n\t\tn := 2\n\t\treturn n\n\t}\n\tlast := n\n\treturn last\n}\n";
    let names = |facts: &SourceFacts| -> Vec<(String, u32, bool)> {
        facts.declared.iter().map(|it| (it.name.clone(), it.line, it.visible)).collect()
    };
    let name = |name: &str, line, visible| (name.to_owned(), line, visible);
    let plain = SourceFacts::of_go_function(source, None, "Add");
    assert_eq!(names(&plain), [name("n", 3, true)]);
    let method = SourceFacts::of_go_function(source, Some("Cart"), "Add");
    let all = names(&method);
    for expected in [name("c", 7, true), name("last", 13, true), name("n", 7, false), name("n", 10, false)] {
        assert!(all.contains(&expected), "{expected:?} in {all:?}");
    }
    assert_eq!(method.assigned.len(), 1);
    assert_eq!(go_function_line(source, Some("Cart"), "Add"), Some(7));
    assert_eq!(go_function_line(source, None, "Sub"), None);
    assert!(method.assigned[0].before && !method.assigned[0].always, "{:?}", method.assigned);
    for (receiver, name) in [(None, "Sub"), (Some("K"), "Add"), (Some("Cart"), "Sub"), (Some("c"), "Add")] {
        assert!(SourceFacts::of_go_function(source, receiver, name).is_empty(), "{receiver:?} {name}");
    }
}

/// The line that ends with `// HERE`.
fn at(source: &str) -> SourceFacts {
    let line = source.lines().position(|line| line.ends_with("// HERE")).expect("a line is marked") + 1;
    SourceFacts::of_go(source, line as u32)
}

fn visible(source: &str) -> Vec<(String, u32)> {
    let facts = at(source);
    let mut visible: Vec<_> = facts.declared.into_iter().filter(|it| it.visible).map(|it| (it.name, it.line)).collect();
    visible.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    visible
}

fn assigned(source: &str) -> Vec<(String, u32, u32, bool)> {
    at(source).assigned.into_iter().map(|it| (it.name, it.declared, it.line, it.before)).collect()
}

fn owned(list: &[(&str, u32)]) -> Vec<(String, u32)> {
    list.iter().map(|&(name, line)| (name.to_owned(), line)).collect()
}

#[test]
fn an_inner_variable_is_the_one_that_its_name_means() {
    let source = "package p\n\nfunc f(x int) int {\n\ty := x\n\tif y > 3 {\n\t\tx := \"inner\"\n\t\tuse(x) // HERE\n\t}\n\treturn x\n}\n";
    assert_eq!(visible(source), owned(&[("y", 4), ("x", 6)]));
    let outer = source.replace(" // HERE", "").replace("return x", "return x // HERE");
    assert_eq!(visible(&outer), owned(&[("x", 3), ("y", 4)]));
    assert!(assigned(&outer).is_empty());
}

#[test]
fn what_the_line_itself_declares_is_not_there_yet() {
    let source = "package p\nfunc f(x int) {\n\tx, y := 1, x // HERE\n\tz := 2\n}\n";
    assert_eq!(visible(source), owned(&[("x", 2)]));
    assert_eq!(assigned(source), [("x".to_owned(), 2, 3, false)]);
}

#[test]
fn an_assignment_in_a_loop_around_the_line_comes_before_it() {
    let source = "package p\nfunc f(in []int) {\n\tsum := 0\n\tfor i, v := range in {\n\t\tw := v\n\t\tuse(w, sum) // HERE\n\t\tw++\n\t\tsum += v * i\n\t}\n\tsum = 0\n}\n";
    assert_eq!(visible(source), owned(&[("in", 2), ("sum", 3), ("i", 4), ("v", 4), ("w", 5)]));
    let wanted = [("w".to_owned(), 5, 7, false), ("sum".to_owned(), 3, 8, true), ("sum".to_owned(), 3, 10, false)];
    assert_eq!(assigned(source), wanted);
}

#[test]
fn heads_clauses_and_closures_have_scopes_of_their_own() {
    let source = "package p
func (s *T) f(v any) (err error) {
	for i := 0; i < 3; i++ {
		if x, err := g(i); err != nil {
			err = nil
		} else if y := []int{x}; len(y) > 1 {
			i = y[0]
		}
	}
	for _, n := range []pkg.N{{1}, {2}} {
		use(n)
	}
	switch t := v.(type) {
	case int:
		a := t
		use(a)
	default:
		b := func(c int) { err = nil; s.n.m = c; s.list[0] = 1 }
		b(1) // HERE
	}
	return err
}
";
    assert_eq!(visible(source), owned(&[("err", 2), ("s", 2), ("v", 2), ("t", 13), ("b", 18)]));
    let facts = at(source);
    let parts: Vec<_> = facts.assigned.iter().map(|it| (it.name.as_str(), it.declared, it.line, &it.part)).collect();
    let deep = |name: &str| AssignedPart::Field { name: name.to_owned(), deeper: true };
    assert_eq!(
        parts,
        [
            ("i", 3, 3, &AssignedPart::Whole),
            ("err", 4, 5, &AssignedPart::Whole),
            ("i", 3, 7, &AssignedPart::Whole),
            ("err", 2, 18, &AssignedPart::Whole),
            ("s", 2, 18, &deep("n")),
            ("s", 2, 18, &deep("list")),
        ]
    );
}

#[test]
fn several_on_the_left_and_groups_are_read() {
    let source = "package p
type t struct { f func() int }
var f = func() { x = 1 }
func g(a, b int, l []int) {
	var (
		c, d = 1, 2
		e int
	)
	a, l[a], *p, q.f = b, c, d, e
	const k = 3
	use(a) // HERE
}
";
    let names: Vec<String> = visible(source).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "l", "c", "d", "e", "k"]);
    let facts = at(source);
    let parts: Vec<_> = facts.assigned.iter().map(|it| (it.name.as_str(), &it.part, it.before)).collect();
    assert_eq!(parts, [("a", &AssignedPart::Whole, true), ("l", &AssignedPart::Element, true)]);
}

#[test]
fn what_is_assigned_in_the_blocks_around_a_line_has_always_run() {
    let source = "package p
func f(x, y, z int) {
	x = 1
	for i := 0; i < 3; i++ {
		if z > 0 { y = 2 }
		z--
		func() { x++ // HERE
		}()
		z++
	}
	use(func() { y = 3 })
}
";
    let facts = at(source);
    let found: Vec<_> = facts.assigned.iter().map(|it| (it.name.as_str(), it.line, it.before, it.always)).collect();
    let expected = [
        ("x", 3, true, true),
        ("i", 4, true, false),
        ("y", 5, true, false),
        ("z", 6, true, true),
        ("x", 7, true, false),
        ("z", 9, true, false),
        ("y", 11, false, false),
    ];
    assert_eq!(found, expected);
}

#[test]
fn steps_and_what_an_if_guards_are_told() {
    let source = "package p
func f(x, y, z int) {
	x += 1; y++
	if x > 2 {
		x = y
		y -= 2; y = 3
		for z > 0 { z-- }
	} else {
		z <<= 1
	}
	switch { case x > 1: x++ }
	if y > 1 { if z > 1 { z = 4 } } // HERE
}
";
    let facts = at(source);
    let found: Vec<_> = facts.assigned.iter().map(|it| (it.name.as_str(), it.line, it.step, it.guard)).collect();
    let expected = [
        ("x", 3, true, 0),
        ("y", 3, true, 0),
        ("x", 5, false, 4),
        ("y", 6, false, 4),
        ("z", 7, true, 0),
        ("z", 9, true, 4),
        ("x", 11, true, 0),
        ("z", 12, false, 12),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_takes_the_value_of_a_variable_and_the_loop_around_it_are_told() {
    let source = "package p
func f(list []int) {
	low, last, sum, n := 9, 0, 0, 0
	for _, each := range list {
		if each < low {
			low = each
		}
		last = each
		sum += each
		n = each + 1
		n, sum = sum, n
	}
	add := func() { last = n }
	last = n; use(last) // HERE
}
";
    let told = |source: &str| -> Vec<_> {
        let taken = |it: Option<Taken>| it.map(|it| (it.name, it.declared));
        let turn = |it: Option<Turn>| it.map(|it| (it.start, it.end, it.each));
        let all = at(source).assigned.into_iter();
        all.map(|it| (it.name.clone(), it.line, taken(it.takes), turn(it.turn), it.literal)).collect()
    };
    let each = || Some(("each".to_owned(), 4));
    let n = || Some(("n".to_owned(), 3));
    let (turn, inner) = (Some((4, 12, true)), Some((4, 12, false)));
    let expected = [
        ("low".to_owned(), 6, each(), inner, false),
        ("last".to_owned(), 8, each(), turn, false),
        ("sum".to_owned(), 9, None, turn, false),
        ("n".to_owned(), 10, None, turn, false),
        ("n".to_owned(), 11, None, turn, false),
        ("sum".to_owned(), 11, None, turn, false),
        ("last".to_owned(), 13, n(), None, true),
        ("last".to_owned(), 14, n(), None, false),
    ];
    assert_eq!(told(source), expected);
    // A turn may end before its body does.
    let jumps = source.replace("last = each", "last = each; if low > 3 { continue }");
    assert!(told(&jumps).iter().all(|(_, _, _, turn, _)| turn.is_none_or(|(_, _, each)| !each)));
    // Two of one line are told apart by nothing.
    let twice = source.replace("last = n; use(last)", "last = n; last = low; use(last)");
    assert_eq!(told(&twice)[7], ("last".to_owned(), 14, None, None, false));
}

#[test]
fn a_line_outside_of_functions_has_no_facts() {
    let source = "package p\nvar x = 1\nfunc f() { x = 2 }\n";
    assert!(SourceFacts::of_go(source, 2).is_empty());
    assert!(SourceFacts::of_go(source, 9).is_empty());
    assert!(SourceFacts::of_go("", 0).is_empty());
}

proptest! {
    #[test]
    fn any_text_is_read(text in any::<String>(), line in 0..9u32) {
        let _ = SourceFacts::of_go(&text, line);
    }

    #[test]
    fn any_tokens_are_read(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "func", "f", "(", ")", "{", "}", "[", "]", "for", "if", "else", "case", "default", ":", ":=", "=", "++", "x",
            ",", ".", "*", "\n", ";", "var", "struct", "range", "\"t\"", "`r", "'", "\\", "/*", "*/", "//", "é", "switch",
        ]), 0..60),
        line in 0..9u32,
    ) {
        let text = format!("func f() {{\n{}", words.join(" "));
        let facts = SourceFacts::of_go(&text, line);
        prop_assert!(facts.declared.len() <= FACTS_MAX && facts.assigned.len() <= FACTS_MAX);
    }
}

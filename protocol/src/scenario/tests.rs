//! Scenarios as people write them, whole and wrong.

use super::*;
use proptest::prelude::*;

const WHOLE: &str = r#"
name = "an order is paid once"
within = "10s"

[[tracepoint]]
name = "reserve"
at = "stock/stock.go:12"
where = "service=stock"

[[tracepoint]]
name = "charge"
at = "main.(*Payment).Charge:return"
when = "amount > 0"
capture = ["order.ID", "len(items)"]

[stimulus]
http = "POST http://127.0.0.1:8080/orders"
headers = { "Content-Type" = "application/json" }
body = "{}"
status = 201

[[expect]]
tracepoint = "charge"
count = "1..3"
each = "amount == 1295"

[[expect]]
order = ["reserve", "charge"]

[[expect]]
from = "reserve"
to = "charge"
at_most = "50ms"
"#;

#[test]
fn a_whole_scenario_is_read() {
    let scenario = parse(WHOLE).unwrap();
    assert_eq!(scenario.name.as_deref(), Some("an order is paid once"));
    assert_eq!(scenario.within, Duration::from_secs(10));
    let [reserve, charge] = scenario.tracepoints.as_slice() else { panic!("{scenario:?}") };
    assert_eq!(
        (reserve.location.to_string(), reserve.selector.to_string()),
        ("stock/stock.go:12".into(), "service=stock".into())
    );
    assert_eq!((charge.condition.as_deref(), charge.captures.len()), (Some("amount > 0"), 2));
    assert_eq!(&WHOLE[charge.span.clone()], "[[tracepoint]]");
    assert!(charge.span.start > reserve.span.end);
    let Some(Stimulus::Http { method, url, headers, status, .. }) = &scenario.stimulus else { panic!("{scenario:?}") };
    assert_eq!(
        (method.as_str(), url.as_str(), headers.len(), *status),
        ("POST", "http://127.0.0.1:8080/orders", 1, Some(201))
    );
    let expected: Vec<&Expected> = scenario.expectations.iter().map(|expectation| &expectation.what).collect();
    let hits = Expected::Hits { of: 1, count: 1..=3, each: Some("amount == 1295".into()), some: None };
    let between = Expected::Between { from: 0, to: 1, at_least: Duration::ZERO, at_most: Duration::from_millis(50) };
    assert_eq!(expected, [&hits, &Expected::Order(vec![0, 1]), &between]);
}

/// A scenario with one tracepoint `a`, and these lines.
fn with(lines: &str) -> String {
    format!("[[tracepoint]]\nname = \"a\"\nat = \"a.go:1\"\n{lines}\n")
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let expect = "[[expect]]\nabsent = \"a\"";
    for (text, place, part) in [
        ("x = 1".to_owned(), "x", "unknown field `x`"),
        ("name = ".to_owned(), "", ""),
        (with(""), "", "nothing is expected"),
        (expect.replace("absent = \"a\"", "absent = \"b\""), "", "nothing is watched"),
        (with("[[expect]]\nabsent = \"b\""), "\"b\"", "no tracepoint is called \"b\": there are a"),
        (with(&format!("{expect}\n[[tracepoint]]\nname = \"a\"\nat = \"f\"")), "\"a\"", "another tracepoint is called"),
        (with(&format!("when = \"x >\"\n{expect}")), "\"x >\"", ""),
        (with(&format!("where = \"zone=a\"\n{expect}")), "\"zone=a\"", "selector key"),
        (with(&format!("capture = [\"ok\", \"(\"]\n{expect}")), "\"(\"", ""),
        (with("[[expect]]\ntracepoint = \"a\"\ncount = 0"), "0", "`absent` means none"),
        (with("[[expect]]\ntracepoint = \"a\"\ncount = \"3..1\""), "\"3..1\"", "a range"),
        (with("[[expect]]\ntracepoint = \"a\"\ncount = \"..\""), "\"..\"", "a range"),
        (with("[[expect]]\ntracepoint = \"a\"\nabsent = \"a\""), "", "an expectation is one of"),
        (with("[[expect]]\ncount = 1"), "", "add `tracepoint"),
        (with("[[expect]]\norder = [\"a\"]"), "[\"a\"]", "two tracepoints"),
        (with("[[expect]]\nfrom = \"a\"\nat_most = \"1s\""), "", "write `from` and `to`"),
        (with("[[expect]]\nfrom = \"a\"\nto = \"a\""), "", "how long may it take"),
        (with("[[expect]]\nfrom = \"a\"\nto = \"a\"\nat_most = \"1s\"\nat_least = \"2s\""), "", "no time is both"),
        (with("[[expect]]\nfrom = \"a\"\nto = \"a\"\nat_most = \"1 day\""), "\"1 day\"", "no duration"),
        (with(&format!("{expect}\n[stimulus]\nrun = []")), "", "names no program"),
        (with(&format!("{expect}\n[stimulus]\nrun = [\"x\"]\nbody = \"\"")), "", "belong to `http`"),
        (with(&format!("{expect}\n[stimulus]")), "", "either `run"),
        (with(&format!("{expect}\n[stimulus]\nhttp = \"PUT it\"")), "\"PUT it\"", "METHOD URL"),
        (with(&format!("{expect}\n[stimulus]\nhttp = \"http://h/\"\nstatus = 7")), "7", "from 100 to 599"),
    ] {
        let problems = parse(&text).unwrap_err();
        let fits = |problem: &ScenarioProblem| {
            problem.message.contains(part) && (place.is_empty() || text[problem.span.clone()] == *place)
        };
        assert!(problems.iter().any(fits), "{text}: {problems:?}");
    }
    let large = format!("name = \"{}\"", "x".repeat(SCENARIO_BYTES_MAX));
    assert!(parse(&large).unwrap_err()[0].message.contains("at most"));
    let many = with(&"[[expect]]\nabsent = \"b\"\n".repeat(PROBLEMS_MAX + 5));
    assert_eq!(parse(&many).unwrap_err().len(), PROBLEMS_MAX, "all of it at once, but for the rest");
}

#[test]
fn the_keys_told_to_editors_are_those_that_are_read() {
    for table in ["", "tracepoint", "stimulus", "expect"] {
        let keys: Vec<&Key> = KEYS.iter().filter(|key| key.table == table).collect();
        let unknown = if table.is_empty() {
            "no_key = 1".to_owned()
        } else {
            let header = if table == "stimulus" { "[stimulus]".to_owned() } else { format!("[[{table}]]") };
            format!("{header}\nno_key = 1")
        };
        // The reader names all keys that it knows when it meets another.
        let message = &parse(&unknown).unwrap_err()[0].message;
        for key in &keys {
            assert!(message.contains(&format!("`{}`", key.name)), "{message}");
        }
        assert_eq!(message.matches('`').count(), 2 * (1 + keys.len()), "{message}");
    }
    for key in KEYS {
        // What an example says can be read: nothing but names and what is missing may be wrong with it.
        let text = match (key.table, key.example.starts_with('[')) {
            ("", _) => key.example.to_owned(),
            ("stimulus", _) => format!("[stimulus]\n{}", key.example),
            (table, _) => format!("[[{table}]]\n{}", key.example),
        };
        for problem in parse(&text).unwrap_err() {
            let is_known =
                ["nothing is", "no tracepoint is called", "missing field", "write `", "either `run", "`tracepoint"];
            assert!(is_known.iter().any(|part| problem.message.contains(part)), "{text}: {problem}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\PC|\n){0,120}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_scenario_is_read_or_refused(
        damages in prop::collection::vec((any::<prop::sample::Index>(), "\\PC{0,3}", 0usize..4), 1..6),
    ) {
        let mut text = WHOLE.to_owned();
        for (at, with, less) in damages {
            let at = at.index(text.len());
            let near = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let range = near(at)..near(at + less);
            text.replace_range(range, &with);
        }
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| text.get(problem.span.clone()).is_some()), "{problems:?}");
        }
    }
}

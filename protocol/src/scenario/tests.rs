//! Scenarios as people write them, whole and wrong.

use super::*;
use proptest::prelude::*;

const WHOLE: &str = r#"
version = 1
name = "an order is paid once"
within = "10s"
settle = "500ms"

[[tracepoint]]
name = "reserve"
at = "stock/stock.go:12"
where = "service=stock"
rate = "none"
log = "{n} of {sku}"

[[tracepoint]]
name = "charge"
at = "main.(*Payment).Charge:return"
when = "amount > 0"
capture = ["order.ID", "len(items)", "order.Lines with elements=500, depth=4"]
rate = 5_000

[[tracepoint]]
at = "refund.go:9"
mode = "count"

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

[[expect]]
absent = "refund.go:9"
"#;

#[test]
fn a_whole_scenario_is_read() {
    let scenario = parse(WHOLE).unwrap();
    assert_eq!(scenario.name.as_deref(), Some("an order is paid once"));
    assert_eq!((scenario.within, scenario.settle), (Duration::from_secs(10), Duration::from_millis(500)));
    let [reserve, charge, refund] = scenario.tracepoints.as_slice() else { panic!("{scenario:?}") };
    assert_eq!(
        (reserve.location.to_string(), reserve.selector.to_string()),
        ("stock/stock.go:12".into(), "service=stock".into())
    );
    assert_eq!((charge.condition.as_deref(), charge.captures.len()), (Some("amount > 0"), 3));
    assert_eq!((reserve.log_message.as_deref(), reserve.rate_per_s), (Some("{n} of {sku}"), Some(None)));
    assert_eq!((charge.rate_per_s, refund.rate_per_s, refund.mode), (Some(Some(5_000)), None, Mode::Count));
    assert_eq!(refund.name, "refund.go:9", "what has no name is called as its place");
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
    assert_eq!(expected, [&hits, &Expected::Order(vec![0, 1]), &between, &Expected::Absent(2)]);
}

#[test]
fn a_tracepoint_is_asked_of_a_fleet_as_it_was_written() {
    let scenario = parse(WHOLE).unwrap();
    let defaults = CaptureLimits { rate_per_s: Some(7), depth: 5, ..CaptureLimits::default() };
    let asked: Vec<Tracepoint> = scenario
        .tracepoints
        .iter()
        .map(|watched| watched.tracepoint(TracepointId::new("t").unwrap(), &defaults))
        .collect();
    let rates: Vec<Option<u32>> = asked.iter().map(|tracepoint| tracepoint.limits.rate_per_s).collect();
    assert_eq!(rates, [None, Some(5_000), Some(7)]);
    assert!(asked.iter().all(|tracepoint| tracepoint.limits.depth == 5));
    assert_eq!(
        (asked[0].selector.to_string(), asked[0].log_message.as_deref()),
        ("service=stock".into(), Some("{n} of {sku}"))
    );
    assert_eq!((asked[1].condition.as_deref(), asked[1].captures.len()), (Some("amount > 0"), 3));
    assert_eq!((asked[1].location.to_string(), asked[2].mode), ("main.(*Payment).Charge:return".into(), Mode::Count));
}

/// A scenario with one tracepoint `a`, and these lines.
fn with(lines: &str) -> String {
    format!("[[tracepoint]]\nname = \"a\"\nat = \"a.go:1\"\n{lines}\n")
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let expect = "[[expect]]\nabsent = \"a\"";
    for (text, place, part) in [
        ("x = 1".to_owned(), "x", "a scenario has no `x`: its keys are version, name, within"),
        ("name = ".to_owned(), "", ""),
        ("versoin = 1".to_owned(), "versoin", "did you mean `version`?"),
        ("timeout = \"1s\"".to_owned(), "timeout", "did you mean `within`?"),
        ("version = 2\nnew = 1".to_owned(), "2", "version 2 of the format is not known"),
        ("within = 10".to_owned(), "10", "`within` is written otherwise: write such as within = \"10s\""),
        ("[tracepoint]".to_owned(), "", "`tracepoint` may be given several times: write such as [[tracepoint]]"),
        ("stimulus = 1".to_owned(), "1", "`stimulus` is a table"),
        ("[[tracepoint]]\nname = \"a\"".to_owned(), "[[tracepoint]]", "where is it? add `at"),
        (
            with(&format!("condition = \"x\"\n{expect}")),
            "condition",
            "a tracepoint has no `condition`: did you mean `when`?",
        ),
        (with(&format!("{expect}\nwhere = \"a=b\"")), "where", "it belongs to a tracepoint"),
        (with(&format!("capture = [\"ok\", 3]\n{expect}")), "3", "`capture` is written otherwise"),
        (with(&format!("capture = [\"ok with elements=x\"]\n{expect}")), "\"ok with elements=x\"", ""),
        (with(&format!("log = \"{{x\"\n{expect}")), "\"{x\"", ""),
        (with(&format!("rate = 0\n{expect}")), "0", "a rate is a number"),
        (with(&format!("rate = \"all\"\n{expect}")), "\"all\"", "or \"none\""),
        (with(&format!("mode = \"log\"\n{expect}")), "\"log\"", "a mode is"),
        (with(&format!("mode = \"count\"\nlog = \"x\"\n{expect}")), "[[tracepoint]]", "are of hits"),
        (with("mode = \"count\"\n[[expect]]\ntracepoint = \"a\"\neach = \"x > 1\""), "\"a\"", "is only counted"),
        (with("[[expect]]\norder = [\"a\", \"a\"]"), "\"a\"", "in this order already"),
        (with("[[expect]]\nfrom = \"a\"\nto = \"a\"\nat_most = \"1s\""), "", "the same tracepoint"),
        (with("name = \"\"\n").replacen("name = \"a\"\n", "", 1), "\"\"", "a name of 0 characters"),
        (
            with(&format!("{expect}\n[stimulus]\nhttp = \"http://h/\"\nheaders = {{ a = 1 }}")),
            "1",
            "`headers` is written otherwise",
        ),
        (with(""), "", "nothing is expected"),
        (expect.replace("absent = \"a\"", "absent = \"b\""), "", "nothing is watched"),
        (with("[[expect]]\nabsent = \"b\""), "\"b\"", "no tracepoint is called \"b\": there are a"),
        (
            with("[[expect]]\nabsent = \"refnud\"\n[[tracepoint]]\nat = \"refund\""),
            "\"refnud\"",
            "no tracepoint is called \"refnud\": did you mean \"refund\"?",
        ),
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
    let several = with("when = \"(\"\nwhen_not = 1\n[[expect]]\ncuont = 1\ntracepoint = \"b\"\n[stimulus]\nrun = 3");
    let places: Vec<&str> = parse(&several).unwrap_err().iter().map(|problem| &several[problem.span.clone()]).collect();
    assert_eq!(places, ["\"(\"", "when_not", "cuont", "\"b\"", "3"], "all of it at once, by place");
}

#[test]
fn what_is_told_of_a_hostile_scenario_is_bounded() {
    let names: String =
        (0..TRACEPOINTS_MAX + 5).map(|n| format!("[[tracepoint]]\nat = \"{n}{}.go:1\"\n", "x".repeat(1_000))).collect();
    let order = format!("[[expect]]\norder = [{}]\n", "\"nobody\", ".repeat(10_000));
    let absent = "[[expect]]\nabsent = \"b\"\n".repeat(EXPECTATIONS_MAX + 5);
    let keys: String = (0..100).map(|n| format!("{}{n} = 1\n", "k".repeat(200))).collect();
    for (text, part) in [
        (format!("{names}[[expect]]\nabsent = \"b\"\n"), "at most 100 of [[tracepoint]]"),
        (with(&absent), "at most 1000 of [[expect]]"),
        (format!("{names}{order}"), ""),
        (keys, "a scenario has no `kkk"),
    ] {
        let problems = parse(&text).unwrap_err();
        assert!(
            problems.len() <= PROBLEMS_MAX && problems.iter().any(|problem| problem.message.contains(part)),
            "{problems:?}"
        );
        let bytes: usize = problems.iter().map(|problem| problem.message.len()).sum();
        assert!(bytes < PROBLEMS_MAX * 1_000, "{bytes}: {problems:?}");
    }
}

#[test]
fn a_place_is_told_as_compilers_tell_it() {
    let text = "name = \"ä\"\nwithin = \"é\" # late\n";
    let problems = parse(text).unwrap_err();
    let within = problems.iter().find(|problem| problem.message.contains("no duration")).unwrap();
    assert_eq!(within.place(text), Place { line: 2, column: 10 });
    assert!(within.told("a/scenario.toml", text).starts_with("a/scenario.toml:2:10: \"é\" is no duration"));
    let end = ScenarioProblem { message: String::new(), span: text.len()..text.len() };
    assert_eq!(end.place(text), Place { line: 3, column: 1 });
    let other = ScenarioProblem { message: String::new(), span: 9..9 };
    assert_eq!(other.place("é").column, 2, "a place in another text is its end");
}

#[test]
fn the_keys_told_to_editors_are_those_that_are_read() {
    for key in KEYS {
        let written = |value: &str| match (key.table, value.starts_with('[')) {
            ("", _) => value.to_owned(),
            ("stimulus", _) => format!("[stimulus]\n{value}"),
            (table, _) => format!("[[{table}]]\n{value}"),
        };
        // What an example says can be read: nothing but names and what is missing may be wrong with it.
        let text = written(key.example);
        for problem in parse(&text).unwrap_err() {
            let is_known =
                ["nothing is", "no tracepoint is called", "where is it?", "write `", "either `run", "`tracepoint"];
            assert!(is_known.iter().any(|part| problem.message.contains(part)), "{text}: {problem}");
        }
        // And it is read: what no key takes is refused.
        let beside = if ["headers", "body", "status"].contains(&key.name) { "http = \"http://h/\"\n" } else { "" };
        let text = written(&format!("{beside}{} = 2001-01-01", key.name));
        let problems = parse(&text).unwrap_err();
        assert!(problems.iter().any(|problem| text[problem.span.clone()] == *"2001-01-01"), "{text}: {problems:?}");
    }
    for (word, key) in super::keys::MEANT {
        assert!(KEYS.iter().any(|known| known.name == key) && KEYS.iter().all(|known| known.name != word), "{word}");
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

//! Symbols of real Go programs, checked against Go's own tools: the function table that `go tool addr2line` reads is
//! another one than the debug information.

mod support;

use riptrace::provision::{self, BuildFlags, GoVersion};
use riptrace_agent::plan::{Plan, compile};
use riptrace_agent::symbols::{self, Build, ResolveError, Site, Svma};
use riptrace_protocol::fleet::Language;
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::layout::{Root, Scope};
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use support::fixture::{Fixture, Spot, cache};

const MARKERS: [&str; 25] = [
    "ints",
    "uints",
    "floats",
    "bools",
    "letters",
    "strings",
    "slices",
    "arrays",
    "structs",
    "embedded",
    "pointers",
    "named",
    "receiver",
    "value-receiver",
    "interfaces",
    "maps",
    "channels",
    "closure",
    "generic-int",
    "escaped",
    "range",
    "inlined",
    "results",
    "wide",
    "stack",
];

fn flags() -> [BuildFlags; 4] {
    [
        BuildFlags::default(),
        BuildFlags::with_args(["-gcflags=all=-N -l"]),
        BuildFlags::with_args(["-buildmode=pie"]),
        BuildFlags::with_args(["-ldflags=-compressdwarf=false"]),
    ]
}

fn values(flags: &BuildFlags) -> (Fixture, Build) {
    let fixture = Fixture::go_with("values", ".", GoVersion::newest(), flags);
    let build = Build::open(&fixture.program).unwrap();
    (fixture, build)
}

fn at(spot: &Spot) -> Location {
    Location::parse(&spot.location()).unwrap()
}

fn plan(build: &Build, site: &Site, condition: Option<&str>, captures: &[&str]) -> Plan {
    let tracepoint = Tracepoint {
        id: TracepointId::new("test").unwrap(),
        location: Location::Line { file: site.file.clone(), line: site.line },
        selector: Selector::default(),
        condition: condition.map(str::to_owned),
        hit_condition: None,
        log_message: None,
        captures: captures.iter().map(|&capture| capture.to_owned()).collect(),
        mode: Mode::Hit,
        limits: CaptureLimits::default(),
        source: Default::default(),
    };
    let plan = compile(build, site, &tracepoint, 0).unwrap_or_else(|error| panic!("{error}"));
    plan.layout.check().unwrap();
    plan
}

/// What Go's tool says of addresses: function and `FILE:LINE`, of the innermost function.
fn addr2line(fixture: &Fixture, addresses: &[Svma]) -> Vec<(String, String)> {
    let go = provision::go(&cache(), GoVersion::newest(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let mut child = Command::new(go.program())
        .args(["tool", "addr2line"])
        .arg(&fixture.program)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for address in addresses {
        writeln!(input, "{:#x}", address.0).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

#[test]
fn every_marked_line_is_where_gos_own_function_table_has_it() {
    for flags in flags() {
        let (fixture, build) = values(&flags);
        let mut sites = Vec::new();
        for marker in MARKERS {
            let spot = fixture.spot(marker);
            let found = build.resolve(&at(&spot)).unwrap_or_else(|error| panic!("{flags:?} {marker}: {error}"));
            assert!(!found.is_empty());
            sites.extend(found.into_iter().map(|site| (marker, spot.location(), site)));
        }
        let addresses: Vec<Svma> = sites.iter().map(|(_, _, site)| site.address).collect();
        let truth = addr2line(&fixture, &addresses);
        assert_eq!(truth.len(), sites.len());
        for ((marker, location, site), (_, told)) in sites.iter().zip(&truth) {
            assert_eq!(told, location, "{flags:?} {marker} at {:#x}", site.address.0);
            let frames = build.frames(site.address, false);
            assert_eq!(&format!("{}:{}", frames[0].file, frames[0].line), location, "{flags:?} {marker}");
            assert_eq!(frames.last().unwrap().function, site.function, "{flags:?} {marker}");
            assert!(frames.split_last().unwrap().1.iter().all(|frame| frame.inlined));
        }
    }
}

#[test]
fn inlined_functions_instances_and_closures_are_found() {
    let (fixture, build) = values(&BuildFlags::default());
    let functions = |marker: &str| -> Vec<Vec<String>> {
        let sites = build.resolve(&at(&fixture.spot(marker))).unwrap();
        let names = |site: &Site| build.frames(site.address, false).into_iter().map(|frame| frame.function).collect();
        sites.iter().map(names).collect()
    };
    assert_eq!(functions("inlined"), [["main.small", "main.callsInlined"]]);
    assert_eq!(functions("generic-int"), [["main.index[go.shape.int]"]]);
    assert_eq!(functions("receiver"), [["main.(*Stack).Push"]]);
    for name in ["main.index", "main.small", "(*Stack).Push", "Stack.Push", "main.closure.func1"] {
        let sites = build.resolve(&Location::Function {
            name: name.to_owned(),
            at: riptrace_protocol::location::FunctionPoint::Entry,
        });
        assert_eq!(sites.unwrap_or_else(|error| panic!("{name}: {error}")).len(), 1, "{name}");
    }
    let several = build.resolve(&Location::Function {
        name: "index".to_owned(),
        at: riptrace_protocol::location::FunctionPoint::Entry,
    });
    let Err(ResolveError::AmbiguousFunction { candidates, .. }) = several else { panic!("{several:?}") };
    assert!(candidates.iter().any(|name| name == "main.index"), "{candidates:?}");
}

#[test]
fn a_function_is_entered_once_and_with_its_arguments() {
    for flags in flags() {
        let (fixture, build) = values(&flags);
        let sites = build
            .resolve(&Location::Function {
                name: "main.ints".to_owned(),
                at: riptrace_protocol::location::FunctionPoint::Entry,
            })
            .unwrap();
        let [site] = sites.as_slice() else { panic!("{sites:?}") };
        // Behind the stack check and the frame: a restart for a larger stack does not pass it again.
        let (_, place) = addr2line(&fixture, &[site.address]).remove(0);
        assert!(place.contains("kinds.go:"), "{place}");
        let plan = plan(&build, site, None, &[]);
        let arguments = plan.layout.variables.iter().filter(|variable| variable.scope == Scope::Argument);
        let names: Vec<&str> = arguments
            .map(|variable| {
                assert!(matches!(variable.root, Root::Whole { .. }), "{flags:?} {variable:?}");
                variable.name.as_str()
            })
            .collect();
        assert_eq!(names, ["a", "b", "c", "d", "e"], "{flags:?}");
        let return_address = plan.program.return_address.unwrap();
        assert!(return_address.offset > 0, "the frame is set up: {return_address:?}");
    }
}

#[test]
fn an_unoptimised_build_has_every_variable_that_is_set() {
    let (fixture, build) = values(&BuildFlags::with_args(["-gcflags=all=-N -l"]));
    for (marker, expect) in [
        ("structs", vec!["point", "line"]),
        ("closure", vec!["by", "captured", "text"]),
        ("generic-int", vec!["list", "needle", "i", "item"]),
        ("escaped", vec!["n", "local"]),
        ("range", vec!["entries", "sum", "key", "value"]),
        ("inlined", vec!["a", "b", "product"]),
    ] {
        let sites = build.resolve(&at(&fixture.spot(marker))).unwrap();
        let plan = plan(&build, &sites[0], None, &[]);
        let whole: BTreeMap<&str, bool> = plan
            .layout
            .variables
            .iter()
            .filter(|variable| variable.scope != Scope::Goroutine)
            .map(|variable| (variable.name.as_str(), matches!(variable.root, Root::Whole { .. })))
            .collect();
        let mut expected: Vec<&str> = expect;
        expected.sort_unstable();
        assert_eq!(whole.keys().copied().collect::<Vec<_>>(), expected, "{marker}");
        assert!(whole.values().all(|whole| *whole), "{marker}: {whole:?}");
    }
}

#[test]
fn what_the_compiler_dropped_is_never_given_a_place() {
    let (fixture, build) = values(&BuildFlags::default());
    let root = |marker: &str, name: &str| {
        let sites = build.resolve(&at(&fixture.spot(marker))).unwrap();
        let plan = plan(&build, &sites[0], None, &[]);
        plan.layout.variables.into_iter().find(|variable| variable.name == name).map(|variable| variable.root)
    };
    // Go 1.27 keeps only the first two words of this slice at the line.
    assert!(matches!(root("generic-int", "list"), Some(Root::Pieces { present, .. }) if present == "ptr, len only"));
    assert_eq!(root("results", "rest"), Some(Root::OptimisedOut));
    assert_eq!(root("range", "entries"), Some(Root::OptimisedOut));
    // Declared on the line itself: it does not hold its value yet.
    assert_eq!(root("ints", "negative"), None);
}

#[test]
fn conditions_and_captures_reach_globals_fields_and_elements() {
    let (fixture, build) = values(&BuildFlags::default());
    let site = |marker: &str| build.resolve(&at(&fixture.spot(marker))).unwrap().remove(0);
    for (marker, condition) in [
        ("ints", "a == -8 && e < 0 && counter == 42"),
        ("uints", "d > 1 << 62 && f == 0xdead"),
        ("strings", "plain == \"plain\" && len(odd) > 3 && empty < plain"),
        ("slices", "len(numbers) == 3 && numbers[1] == 20 && none == nil && words[0] == \"x\""),
        ("structs", "line.From.X == 1 && line.Name != \"\" && !line.hidden"),
        ("embedded", "car.Power > 80 && car.Fuel == \"gas\""),
        ("pointers", "point.X == 7 && *number == 42 && none == nil"),
        ("floats", "a == 1.5 && c > 1"),
        ("interfaces", "number != nil && none == nil"),
        ("interfaces", "number.(int) == 42 && pointer.(*Point).X == 1 && err.(*errors.errorString).s == \"bad\""),
    ] {
        assert!(plan(&build, &site(marker), Some(condition), &[]).program.condition.is_some(), "{marker}");
    }
    let plan = plan(&build, &site("pointers"), None, &["point.X", "main.counter", "*number", "len(point.Y)"]);
    let captured: Vec<&str> = plan
        .layout
        .variables
        .iter()
        .filter(|variable| variable.scope == Scope::Capture && matches!(variable.root, Root::Whole { .. }))
        .map(|variable| variable.name.as_str())
        .collect();
    assert_eq!(captured, ["point.X", "main.counter", "*number", "point.Y"]);
}

#[test]
fn the_runtime_is_refused() {
    let (_, build) = values(&BuildFlags::default());
    for name in ["runtime.mallocgc", "runtime.newproc"] {
        let refused = build.resolve(&Location::Function {
            name: name.to_owned(),
            at: riptrace_protocol::location::FunctionPoint::Entry,
        });
        assert!(matches!(&refused, Err(ResolveError::Denied { function, .. }) if function == name), "{refused:?}");
    }
    // Where each panic passes is the one exception, and at its entry only.
    let gopanic = |at| build.resolve(&Location::Function { name: "runtime.gopanic".to_owned(), at });
    let sites = gopanic(riptrace_protocol::location::FunctionPoint::Entry).expect("panics can be traced");
    assert_eq!((sites.len(), sites[0].function.as_str()), (1, "runtime.gopanic"));
    let refused = gopanic(riptrace_protocol::location::FunctionPoint::Return);
    assert!(matches!(refused, Err(ResolveError::Denied { .. })), "{refused:?}");
}

#[test]
fn facts_survive_stripping() {
    let stripped = Fixture::go_with("values", ".", GoVersion::newest(), &BuildFlags::with_args(["-ldflags=-s -w"]));
    let whole = Fixture::go("values", ".");
    for (fixture, dwarf) in [(&whole, true), (&stripped, false)] {
        let facts = symbols::facts(&fixture.program).unwrap();
        assert_eq!(facts.language, Language::Go);
        assert_eq!(facts.dwarf, dwarf);
        assert_eq!(facts.go_version, Some(format!("go{}", GoVersion::newest())));
        assert_eq!(facts.settings.get("GOARCH").map(String::as_str), Some("amd64"));
        assert!(!facts.settings.contains_key("-ldflags"), "it may hold secrets: {:?}", facts.settings);
        assert_eq!(facts.module.as_deref(), Some("example.com/values"));
        assert!(facts.id.0.starts_with("go:") && facts.id.0.len() > 20, "{}", facts.id);
    }
    let build = Build::open(&stripped.program).unwrap();
    // Places are known by the function table alone.
    let entry =
        Location::Function { name: "main.ints".to_owned(), at: riptrace_protocol::location::FunctionPoint::Entry };
    let places = |build: &Build| -> Vec<(String, u32)> {
        build.resolve(&entry).unwrap().into_iter().map(|site| (site.file, site.line)).collect()
    };
    assert_eq!(places(&build), places(&Build::open(&whole.program).unwrap()));
    assert!(build.frames(Svma(0x1000), false).is_empty());
}

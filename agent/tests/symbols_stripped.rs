//! Go programs without debug information: functions, lines and stacks are those of the same program with it.

use riptrace_agent::plan::compile;
use riptrace_agent::symbols::{Build, ResolveError};
use riptrace_protocol::hit::Frame;
use riptrace_protocol::layout::{Moment, Root};
use riptrace_protocol::location::{FunctionPoint, Location};
use riptrace_protocol::tracepoint::Tracepoint;
use riptrace_provision::{BuildFlags, Cache, GoVersion};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A fixture with and without debug information.
struct Twins {
    whole: Build,
    stripped: Build,
    sources: PathBuf,
    _folder: tempfile::TempDir,
}

impl Twins {
    fn build(fixture: &str, version: GoVersion, arguments: &[&str]) -> Twins {
        let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
        let go = riptrace_provision::go(&cache, version, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(fixture);
        // As the compiler writes it down.
        let sources = sources.canonicalize().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, further: &[&str]| {
            let out = folder.path().join(name);
            let flags = BuildFlags::with_args(arguments.iter().chain(further).copied());
            go.build(&sources, ".", &out, &flags).unwrap_or_else(|error| panic!("{error}"));
            Build::open(&out).unwrap()
        };
        let (whole, stripped) = (program("whole", &[]), program("stripped", &["-ldflags=-s -w"]));
        assert!(whole.facts().dwarf && !stripped.facts().dwarf);
        Twins { whole, stripped, sources, _folder: folder }
    }
}

/// Type arguments are not in the function table.
fn without_types(name: &str) -> String {
    let mut depth = 0;
    let outside = |character: char| match character {
        '[' => {
            depth += 1;
            false
        }
        ']' => {
            depth -= 1;
            false
        }
        _ => depth == 0,
    };
    name.chars()
        .filter({
            let mut outside = outside;
            move |&character| outside(character)
        })
        .collect()
}

/// The frames at a site: function, file, line, and whether it was inlined.
type Stack = Vec<(String, String, u32, bool)>;

/// The stacks of all sites of a location.
fn stacks(build: &Build, location: &Location) -> Result<BTreeSet<Stack>, ResolveError> {
    let frame = |frame: Frame| (without_types(&frame.function), frame.file, frame.line, frame.inlined);
    let sites = build.resolve(location)?;
    Ok(sites.iter().map(|site| build.frames(site.address, false).into_iter().map(frame).collect()).collect())
}

#[test]
fn lines_of_a_stripped_build_have_the_stacks_of_the_whole_one() {
    for (version, arguments) in
        [("1.27", [].as_slice()), ("1.27", &["-buildmode=pie"]), ("1.22", &["-gcflags=all=-N -l"])]
    {
        let twins = Twins::build("values", version.parse().unwrap(), arguments);
        let mut lines = 0;
        for file in std::fs::read_dir(&twins.sources).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "go") {
                continue;
            }
            let count = std::fs::read_to_string(&path).unwrap().lines().count() as u32;
            // Each third line: every kind of statement is among them, and the test takes seconds.
            for line in (1..=count).step_by(3) {
                let location = Location::Line { file: path.display().to_string(), line };
                let what = format!("go {version} {arguments:?} {location}");
                match (stacks(&twins.whole, &location), stacks(&twins.stripped, &location)) {
                    (Ok(whole), Ok(stripped)) => {
                        assert_eq!(stripped, whole, "{what}");
                        lines += 1;
                    }
                    (Err(whole), Err(stripped)) => {
                        let kind = |error: &ResolveError| std::mem::discriminant(error);
                        assert_eq!(kind(&whole), kind(&stripped), "{what}: {whole}; {stripped}");
                    }
                    (whole, stripped) => panic!("{what}: whole {whole:?}, stripped {stripped:?}"),
                }
            }
        }
        assert!(lines > 40, "go {version}: {lines} lines have code");
    }
}

#[test]
fn functions_of_a_stripped_build_are_found_and_their_argument_words_told() {
    let twins = Twins::build("values", GoVersion::newest(), &[]);
    for name in ["main.index", "main.small", "(*Stack).Push", "Stack.Push", "main.closure.func1"] {
        for at in [FunctionPoint::Entry, FunctionPoint::Return] {
            let location = Location::Function { name: name.to_owned(), at };
            let stacks = (stacks(&twins.whole, &location), stacks(&twins.stripped, &location));
            match stacks {
                (Ok(whole), Ok(stripped)) => assert_eq!(stripped, whole, "{location}"),
                (Err(whole), Err(stripped)) => assert_eq!(stripped.to_string(), whole.to_string(), "{location}"),
                (whole, stripped) => panic!("{location}: whole {whole:?}, stripped {stripped:?}"),
            }
        }
    }
    let location = Location::Function { name: "(*Stack).Push".to_owned(), at: FunctionPoint::Entry };
    let site = &twins.stripped.resolve(&location).unwrap()[0];
    assert_eq!(site.moment, Moment::Entry);
    let tracepoint = |condition: Option<&str>| -> Tracepoint {
        serde_json::from_value(json!({"id": "t", "location": location, "condition": condition})).unwrap()
    };
    let plan = compile(&twins.stripped, site, &tracepoint(None), 0).unwrap();
    plan.layout.check().unwrap();
    // The receiver and an int.
    let names: Vec<&str> = plan.layout.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["rax", "rbx"]);
    assert!(plan.layout.variables.iter().all(|variable| matches!(variable.root, Root::Whole { bytes: 8, .. })));
    assert!(plan.layout.types.iter().all(|ty| ty.name == "argument word"));
    let error = compile(&twins.stripped, site, &tracepoint(Some("x > 1")), 0).unwrap_err();
    assert!(error.to_string().contains("riptrace symbols push"), "{error}");
    let absent = Location::Line { file: "values/main.go".to_owned(), line: 1 };
    assert!(matches!(twins.stripped.resolve(&absent), Err(ResolveError::NoCode { .. })));
}

/// Marsaglia's xorshift: the same damage in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_damaged_program_gives_less_and_never_a_panic() {
    let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    let go = riptrace_provision::go(&cache, GoVersion::newest(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/values");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let flags = BuildFlags::with_args(["-ldflags=-s -w"]);
    go.build(&sources, ".", &program, &flags).unwrap_or_else(|error| panic!("{error}"));
    let whole = std::fs::read(&program).unwrap();
    // Magic, two zeroes, quantum 1, words of eight bytes: where the function table begins.
    let table = whole.windows(8).position(|bytes| bytes == [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]).unwrap();
    let location = Location::Function { name: "main.main".to_owned(), at: FunctionPoint::Entry };
    let address = Build::open(&program).unwrap().resolve(&location).unwrap()[0].address;
    let damaged = folder.path().join("damaged");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..15 {
        let mut bytes = whole.clone();
        // ELF headers, the table's header, or anywhere in the table.
        let (from, room) = match round % 3 {
            0 => (0, 1024),
            1 => (table, 72),
            _ => (table, whole.len() - table),
        };
        for _ in 0..=next(&mut state) % 8 {
            let at = from + (next(&mut state) % room as u64) as usize;
            bytes[at] = next(&mut state) as u8;
        }
        if round % 5 == 4 {
            bytes.truncate((next(&mut state) % whole.len() as u64) as usize);
        }
        std::fs::write(&damaged, &bytes).unwrap();
        let Ok(build) = Build::open(&damaged) else { continue };
        // Any answer will do that is one.
        let _ = build.resolve(&location);
        let _ = build.resolve(&Location::Line { file: "values/main.go".to_owned(), line: 30 });
        let _ = build.frames(address, false);
    }
}

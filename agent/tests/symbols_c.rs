//! Symbols and plans of C programs, built here with the machine's own compiler: DWARF 4 and 5, compressed or not,
//! optimised or not, damaged or not. Go programs are in the tests of the whole.
#![allow(clippy::disallowed_methods, reason = "the time that a damaged file takes is what is tested")]

use riptrace_agent::capture::interpreter::{self, Truth};
use riptrace_agent::capture::memory::{Fault, Memory};
use riptrace_agent::capture::registers::Registers;
use riptrace_agent::plan::{Plan, PlanError, compile, listing};
use riptrace_agent::symbols::{Build, ResolveError, Site, SymbolsError};
use riptrace_protocol::agent_api::LinesGet;
use riptrace_protocol::decode;
use riptrace_protocol::fleet::Language;
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::ids::{Avma, ProcessKey, TracepointId};
use riptrace_protocol::layout::Root;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use riptrace_protocol::value::{Status, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SOURCE: &str = r#"
#include <stdio.h>
typedef struct { int x; char *password; double w; } point;
typedef struct { int id; int token; int after; } session;
enum color { RED, GREEN = 5, BLUE = -1 };
static inline int square(int v) {
    int r = v * v;              // BP inlined
    return r + 1;
}
int counter = 3;
__attribute__((noinline)) int work(point *p, int n, const short *list, enum color c, session s) {
    int sum = 0;
    long big = 1L << 40;
    short pair[2] = { 7, -8 };
    for (int i = 0; i < n; i++) {
        sum += square(i) + p->x; // BP loop
        if (sum > 100)
            sum -= 7;
    }
    const char *secret_word = "hush";
    int *here = &sum;
    printf("%d %ld %d %s %d\n", sum, big, pair[0], secret_word, *here); // BP end
    return sum + (int)c + s.after + list[0] + counter;
}
int main(int argc, char **argv) {
    point p = { 3, argv[0], 1.5 };
    session s = { 1, 2, 3 };
    short list[1] = { (short)argc };
    return work(&p, argc + 3, list, GREEN, s) == 0;
}
"#;

struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn build(flags: &[&str]) -> Program {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("work.c"), SOURCE).unwrap();
        let status = Command::new("cc")
            .current_dir(folder.path())
            .args(flags)
            .args(["work.c", "-o", "work"])
            .status()
            .expect("a C compiler, cc, is on PATH");
        assert!(status.success(), "cc {flags:?}");
        Program { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn open(&self) -> Build {
        Build::open(&self.path()).unwrap()
    }
}

fn line_of(marker: &str) -> u32 {
    let end = format!("// BP {marker}");
    SOURCE.lines().position(|line| line.ends_with(&end)).unwrap() as u32 + 1
}

fn at(marker: &str) -> Location {
    Location::Line { file: "work.c".to_owned(), line: line_of(marker) }
}

fn function(name: &str) -> Location {
    Location::Function { name: name.to_owned(), at: riptrace_protocol::location::FunctionPoint::Entry }
}

fn tracepoint(condition: Option<&str>, captures: &[&str]) -> Tracepoint {
    Tracepoint {
        id: TracepointId::new("test").unwrap(),
        location: at("end"),
        selector: Selector::default(),
        condition: condition.map(str::to_owned),
        hit_condition: None,
        log_message: None,
        captures: captures.iter().map(|&capture| capture.to_owned()).collect(),
        mode: Mode::Hit,
        limits: CaptureLimits::default(),
        source: Default::default(),
    }
}

fn only(build: &Build, location: &Location) -> Site {
    let mut sites = build.resolve(location).unwrap();
    assert_eq!(sites.len(), 1, "{location}: {sites:?}");
    sites.remove(0)
}

/// One stretch of memory.
struct Stretch {
    at: u64,
    bytes: Vec<u8>,
}

struct Stretches(Vec<Stretch>);

impl Memory for Stretches {
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
        let found = self.0.iter().find_map(|stretch| {
            let start = usize::try_from(at.0.checked_sub(stretch.at)?).ok()?;
            stretch.bytes.get(start..start.checked_add(into.len())?)
        });
        into.copy_from_slice(found.ok_or(Fault { at })?);
        Ok(())
    }
}

const FRAME: u64 = 0x7ffc_0000_1000;
const POINT: u64 = 0x60_0000;

/// Runs a plan of the unoptimised program as if it stood at its site, and reads the hit.
fn run(plan: &Plan, registers: &Registers, memory: &Stretches) -> Vec<Value> {
    plan.layout.check().unwrap();
    let captured = interpreter::capture(&plan.program, registers, memory);
    let hit = RawHit {
        number: 0,
        tracepoint: TracepointId::new("test").unwrap(),
        process: ProcessKey { pid: 1, start_time: 1 },
        layout: plan.layout.id(),
        time_ns: 0,
        thread: 1,
        goroutine: captured.goroutine,
        roots: captured.roots,
        root_states: captured.root_states,
        chunks: captured.chunks,
        stack: captured.stack,
        stack_end: captured.stack_end,
        duration_ns: None,
    };
    decode::values(&plan.layout, &hit)
}

fn text(values: &[Value], path: &[&str]) -> String {
    let (first, rest) = path.split_first().unwrap();
    let value = values.iter().find(|value| value.name == *first).unwrap_or_else(|| panic!("no {first} in {values:?}"));
    if rest.is_empty() { format!("{}{}", value.value, value.status.note()) } else { text(&value.children, rest) }
}

/// A frame of `work` at -O0, filled through the program's own layout: parts of the frame are found by the plan.
fn frame_of(plan: &Plan, values: &[(&str, Vec<u8>)]) -> Stretches {
    use riptrace_agent::capture::program::{Place, RootRead};
    let mut stack = Stretch { at: FRAME - 0x800, bytes: vec![0; 0x1000] };
    for (name, bytes) in values {
        let number = plan.layout.variables.iter().position(|variable| variable.name == *name).unwrap();
        let RootRead::Read { pieces, .. } = &plan.program.roots[number] else { panic!("{name} is not read") };
        let Place::Memory(address) = &pieces[0].place else { panic!("{name} is not in memory") };
        let start = (0x800 + address.offset) as usize;
        stack.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
    let mut point = vec![0; 24];
    point[..4].copy_from_slice(&3i32.to_le_bytes());
    point[8..16].copy_from_slice(&0x1234_5678u64.to_le_bytes());
    point[16..].copy_from_slice(&1.5f64.to_le_bytes());
    Stretches(vec![stack, Stretch { at: POINT, bytes: point }])
}

fn registers() -> Registers {
    let mut registers = Registers::default();
    registers.gpr[6] = FRAME;
    registers.gpr[7] = FRAME - 0x100;
    registers
}

const VARIANTS: [&[&str]; 5] = [
    &["-g", "-O0"],
    &["-gdwarf-4", "-O0", "-no-pie"],
    &["-gdwarf-5", "-O0", "-gz"],
    &["-gdwarf-4", "-O0", "-gz=zlib-gnu"],
    &["-gdwarf-5", "-O0", "-fdebug-types-section"],
];

#[test]
fn facts_need_no_debug_information() {
    let program = Program::build(&["-g", "-O0", "-Wl,--build-id=0x00112233445566778899aabbccddeeff00112233"]);
    let facts = riptrace_agent::symbols::facts(&program.path()).unwrap();
    assert_eq!(facts.language, Language::Native);
    assert_eq!(facts.id.0, "gnu:00112233445566778899aabbccddeeff00112233");
    assert!(facts.dwarf);
    let stripped = Program::build(&["-s", "-O0", "-Wl,--build-id=none"]);
    let facts = riptrace_agent::symbols::facts(&stripped.path()).unwrap();
    assert!(!facts.dwarf);
    assert!(facts.id.0.starts_with("file:") && facts.id.0.len() == 5 + 32, "{}", facts.id);
    assert_eq!(stripped.open().resolve(&at("end")), Err(ResolveError::NoDwarf));
}

#[test]
fn every_form_of_debug_information_tells_the_same() {
    for flags in VARIANTS {
        let build = Program::build(flags).open();
        let site = only(&build, &at("end"));
        assert_eq!((site.function.as_str(), site.line), ("work", line_of("end")), "{flags:?}");
        let frames = build.frames(site.address, false);
        assert_eq!(frames.len(), 1, "{flags:?}");
        assert!(frames[0].file.ends_with("/work.c") && frames[0].line == line_of("end"), "{flags:?}: {frames:?}");

        let plan = compile(&build, &site, &tracepoint(None, &[]), 0).unwrap();
        let memory = frame_of(
            &plan,
            &[
                ("p", POINT.to_le_bytes().to_vec()),
                ("n", 4i32.to_le_bytes().to_vec()),
                ("c", (-1i32).to_le_bytes().to_vec()),
                ("sum", (-70_000i32).to_le_bytes().to_vec()),
                ("big", (1i64 << 40).to_le_bytes().to_vec()),
                ("pair", [7i16.to_le_bytes(), (-8i16).to_le_bytes()].concat()),
            ],
        );
        let values = run(&plan, &registers(), &memory);
        for (path, expect) in [
            (&["n"][..], "4"),
            (&["c"], "BLUE"),
            (&["sum"], "-70000"),
            (&["big"], "1099511627776"),
            (&["pair", "[1]"], "-8"),
            (&["secret_word"], "<redacted>"),
            (&["s", "id"], "0"),
        ] {
            assert_eq!(text(&values, path), expect, "{flags:?} {path:?}");
        }
        // The loop's own variable is not in scope behind the loop.
        assert!(values.iter().all(|value| value.name != "i"), "{flags:?}");
    }
}

#[test]
fn a_function_is_traced_behind_its_prologue() {
    for flags in [&["-g", "-O0"][..], &["-g", "-O0", "-no-pie", "-fcf-protection=none"]] {
        let build = Program::build(flags).open();
        let site = only(&build, &function("work"));
        // Its parameters are in the frame by then: the first statement is about to run.
        assert_eq!(site.line, SOURCE.lines().position(|line| line.contains("int sum = 0")).unwrap() as u32 + 1);
        let plan = compile(&build, &site, &tracepoint(None, &[]), 0).unwrap();
        let names: Vec<&str> = plan.layout.variables.iter().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names, ["p", "n", "list", "c", "s"]);
        assert!(plan.layout.variables.iter().all(|variable| matches!(variable.root, Root::Whole { .. })));
    }
}

#[test]
fn an_inlined_copy_is_found_with_the_functions_around_it() {
    let build = Program::build(&["-g", "-O2"]).open();
    let site = only(&build, &at("inlined"));
    assert_eq!(site.function, "work");
    let names: Vec<_> =
        build.frames(site.address, false).into_iter().map(|f| (f.function, f.line, f.inlined)).collect();
    assert_eq!(names, [("square".to_owned(), line_of("inlined"), true), ("work".to_owned(), line_of("loop"), false),]);
    let by_name = only(&build, &function("square"));
    assert_eq!(by_name.function, "work");
    // The line of the call is one site: where the copy begins belongs to the caller.
    let call = only(&build, &at("loop"));
    assert_eq!(call.function, "work");
}

#[test]
fn what_is_not_there_is_said_with_what_is_near() {
    let build = Program::build(&["-g", "-O0"]).open();
    let no_code = build.resolve(&Location::Line { file: "work.c".to_owned(), line: 10 });
    let Err(ResolveError::NoCode { nearest, line: 10, .. }) = no_code else { panic!("{no_code:?}") };
    assert_eq!(nearest, [9, 11]);
    let no_file = build.resolve(&Location::Line { file: "src/work.c".to_owned(), line: 10 });
    let Err(ResolveError::NoSuchFile { candidates, .. }) = no_file else { panic!("{no_file:?}") };
    assert!(candidates.len() == 1 && candidates[0].ends_with("/work.c"), "{candidates:?}");
    let no_function = build.resolve(&function("Work"));
    let Err(ResolveError::NoSuchFunction { candidates, .. }) = no_function else { panic!("{no_function:?}") };
    assert_eq!(candidates, ["work"]);
    assert!(build.frames(riptrace_agent::symbols::Svma(0x10), false).is_empty());
}

#[test]
fn secrets_are_left_out_of_structs_and_of_what_pointers_lead_to() {
    let build = Program::build(&["-g", "-O0"]).open();
    let plan = compile(&build, &only(&build, &at("end")), &tracepoint(None, &["p.password", "s.token", "s.after"]), 0);
    let plan = plan.unwrap();
    let session: Vec<u8> = [11i32, 22, 33].iter().flat_map(|number| number.to_le_bytes()).collect();
    let memory = frame_of(&plan, &[("s", session), ("p", POINT.to_le_bytes().to_vec())]);
    let captured = interpreter::capture(&plan.program, &registers(), &memory);
    let holds = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(!holds(&captured.roots, &22i32.to_le_bytes()), "the token was captured");
    assert!(
        captured.chunks.iter().all(|chunk| !holds(&chunk.bytes, &0x1234_5678u32.to_le_bytes())),
        "the pointer to the password was captured"
    );
    let values = run(&plan, &registers(), &memory);
    assert_eq!(text(&values, &["s", "id"]), "11");
    assert_eq!(text(&values, &["s", "after"]), "33");
    assert_eq!(text(&values, &["s", "token"]), "<redacted>");
    assert_eq!(text(&values, &["s.after"]), "33");
    for name in ["p.password", "s.token", "secret_word"] {
        let value = values.iter().find(|value| value.name == name).unwrap();
        assert_eq!(value.status, Status::Redacted, "{name}");
    }
}

#[test]
fn conditions_are_computed_at_the_site() {
    let build = Program::build(&["-g", "-O0"]).open();
    let site = only(&build, &at("end"));
    let plain = compile(&build, &site, &tracepoint(None, &[]), 0).unwrap();
    let memory = frame_of(
        &plain,
        &[
            ("p", POINT.to_le_bytes().to_vec()),
            ("n", 4i32.to_le_bytes().to_vec()),
            ("sum", (-7i32).to_le_bytes().to_vec()),
            ("big", (1i64 << 40).to_le_bytes().to_vec()),
            ("pair", [7i16.to_le_bytes(), (-8i16).to_le_bytes()].concat()),
            ("list", 0x10u64.to_le_bytes().to_vec()),
        ],
    );
    for (condition, expect) in [
        ("n == 4", true),
        ("n != 4 || sum < 0", true),
        ("!(n == 4)", false),
        ("p.x == 3 && p.w == 1.5", true),
        ("p.w > 2", false),
        ("p != nil", true),
        ("pair[1] == -8 && pair[0] + 1 == 8", true),
        ("sum / 2 == -3 && sum % 2 == -1", true),
        ("big >> 40 == 1 && (n << 1) &^ 8 == 0", true),
        ("sum + n * 2 > 0", true),
        ("-n == -4 && ^n == -5", true),
    ] {
        let plan = compile(&build, &site, &tracepoint(Some(condition), &[]), 0);
        let plan = plan.unwrap_or_else(|error| panic!("{condition}: {error}"));
        let truth = interpreter::test(&plan.program, &registers(), &memory);
        assert_eq!(truth, if expect { Truth::True } else { Truth::False }, "{condition}");
    }
    // Memory that is not there decides nothing.
    let plan = compile(&build, &site, &tracepoint(Some("*list == 1"), &[]), 0).unwrap();
    assert!(matches!(interpreter::test(&plan.program, &registers(), &memory), Truth::Unknown(_)));
    let plan = compile(&build, &site, &tracepoint(Some("n / (n - 4) == 1"), &[]), 0).unwrap();
    assert!(matches!(interpreter::test(&plan.program, &registers(), &memory), Truth::Unknown(_)));
}

#[test]
fn a_condition_that_cannot_be_computed_says_why() {
    let build = Program::build(&["-g", "-O0"]).open();
    let site = only(&build, &at("end"));
    for (condition, expect) in [
        ("m == 4", "no variable m is in scope here (there are: p, n,"),
        ("p.y == 4", "p of type point has no field y"),
        ("n.x == 4", "n of type int is not a struct"),
        ("n", "it is of type int, not a truth value"),
        ("secret_word == \"hush\"", "secret_word is named like a secret"),
        ("p.password == nil", "p.password is named like a secret"),
        ("n == 5000000000", "the constant 5000000000 does not fit the type int"),
        ("n == \"4\"", "int == string: the types do not match"),
        ("pair[n] == 1", "the index of pair[n] must be a constant"),
        ("pair[2] == 1", "index 2 is outside of pair, which has 2 elements"),
        ("n ==", "condition: "),
    ] {
        let error = compile(&build, &site, &tracepoint(Some(condition), &[]), 0).unwrap_err();
        assert!(error.to_string().contains(expect), "{condition}: {error}");
        if !matches!(error, PlanError::ConditionSyntax(_)) {
            assert!(error.to_string().contains("work.c:"), "{error}");
        }
    }
}

#[test]
fn a_program_that_was_moved_is_read_where_it_is() {
    let build = Program::build(&["-g", "-O0", "-pie", "-fPIE"]).open();
    let bias = 0x5555_5555_4000;
    assert_eq!(build.bias(Avma(bias), 0), Some(bias));
    let fixed = Program::build(&["-g", "-O0", "-no-pie"]).open();
    assert_eq!(fixed.bias(Avma(0x40_0000), 0), Some(0));
    assert_eq!(fixed.bias(Avma(0x40_0000), 1 << 40), None);
    let site = only(&build, &at("end"));
    let moved = compile(&build, &site, &tracepoint(None, &["counter"]), bias).unwrap();
    let counter = moved.layout.variables.iter().position(|variable| variable.name == "counter").unwrap();
    let riptrace_agent::capture::program::RootRead::Read { pieces, .. } = &moved.program.roots[counter] else {
        panic!("the global is not read")
    };
    let riptrace_agent::capture::program::Place::Memory(address) = &pieces[0].place else { panic!("{pieces:?}") };
    assert!(address.base.is_none() && address.offset > bias as i64, "{address:?}");
}

#[test]
fn what_is_no_executable_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for content in [&b""[..], b"#!/bin/sh\n", &[0x7f, b'E', b'L', b'F'], &[0xff; 4096]] {
        std::fs::write(&file, content).unwrap();
        assert!(matches!(Build::open(&file), Err(SymbolsError::BadElf { .. })), "{content:?}");
    }
    assert!(matches!(Build::open(&folder.path().join("none")), Err(SymbolsError::Read { .. })));
    let mut arm = std::fs::read(Program::build(&["-O0"]).path()).unwrap();
    arm[18] = 183;
    std::fs::write(&file, arm).unwrap();
    assert!(matches!(Build::open(&file), Err(SymbolsError::Machine { machine: 183, .. })));
}

/// Asks everything of a file that may be damaged. Errors are fine; panics and endless loops are not.
fn ask_everything(path: &Path) {
    let Ok(build) = Build::open(path) else { return };
    for location in [at("end"), at("loop"), at("inlined"), function("work"), function("square"), function("main")] {
        for site in build.resolve(&location).unwrap_or_default().iter().take(8) {
            drop(build.frames(site.address, false));
            if let Ok(plan) = compile(&build, site, &tracepoint(None, &["p.w"]), 0x1000) {
                plan.layout.check().unwrap();
            }
            drop(compile(&build, site, &tracepoint(Some("p.x == 1 && pair[0] == 2"), &[]), 0));
        }
    }
}

#[test]
fn damaged_files_give_errors_and_come_to_an_end() {
    /// For one file; whole ones take milliseconds, also where other tests have the CPU for seconds.
    const LIMIT: Duration = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("damaged");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        // xorshift64*: the same files in every run.
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    };
    for flags in [&["-g", "-O2"][..], &["-gdwarf-4", "-O2"], &["-g", "-O0", "-gz"]] {
        let whole = std::fs::read(Program::build(flags).path()).unwrap();
        let check = |content: &[u8], what: &str| {
            std::fs::write(&file, content).unwrap();
            let start = Instant::now();
            ask_everything(&file);
            assert!(start.elapsed() < LIMIT, "{flags:?} {what}: {:?}", start.elapsed());
        };
        check(&whole, "whole");
        for step in 0..64 {
            let length = whole.len() * step / 64;
            check(&whole[..length], &format!("cut at {length}"));
        }
        for round in 0..200 {
            let mut content = whole.clone();
            for _ in 0..1 + next(12) {
                let at = next(content.len());
                content[at] = next(256) as u8;
            }
            check(&content, &format!("round {round}"));
        }
    }
}

#[test]
fn lines_with_code_are_listed_with_what_can_be_read_there() {
    let program = Program::build(&["-g", "-O0"]);
    let build = program.open();
    let asked = |first, last, variables| LinesGet {
        build: build.facts().id.clone(),
        file: "work.c".to_owned(),
        first,
        last,
        variables,
    };
    let all = listing::lines(&build, &asked(1, u32::MAX, false)).unwrap();
    assert!(all.file.ends_with("/work.c") && !all.more, "{}", all.file);
    let lines: Vec<u32> = all.lines.iter().map(|facts| facts.line).collect();
    let has_code = |line: u32| build.resolve(&Location::Line { file: "work.c".to_owned(), line }).is_ok();
    let expected: Vec<u32> = (1..=SOURCE.lines().count() as u32).filter(|line| has_code(*line)).collect();
    assert_eq!(lines, expected, "a line is listed if and only if it resolves");
    assert!(lines.contains(&line_of("end")) && !lines.contains(&1));

    let end = line_of("end");
    let one = listing::lines(&build, &asked(end, end, true)).unwrap();
    let [facts] = one.lines.as_slice() else { panic!("{one:?}") };
    let variable = |name: &str| facts.variables.iter().find(|variable| variable.name == name).unwrap();
    assert_eq!((variable("sum").type_name.as_str(), &variable("sum").missing), ("int", &None));
    assert_eq!(variable("secret_word").missing.as_deref(), Some("named like a secret: never read"));
    assert!(facts.variables.iter().all(|variable| variable.name != "r"), "it belongs to another function");

    let wrong = LinesGet { file: "other.c".to_owned(), ..asked(1, 2, false) };
    assert!(matches!(listing::lines(&build, &wrong), Err(ResolveError::NoSuchFile { .. })));
}

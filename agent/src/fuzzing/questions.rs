//! All that is ever asked of a build. Each answer may be an error; none may be a panic, and none may take long.

use crate::plan::{self, listing};
use crate::symbols::{Build, Svma};
use riptrace_protocol::agent_api::LinesGet;
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::limits::{HIT_BYTES_MAX, LAYOUT_TYPES_MAX, LAYOUT_VARIABLES_MAX};
use riptrace_protocol::location::{FunctionPoint, Location};
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};

/// Addresses that are asked about, spread over the code: a small program has few instructions.
const ADDRESSES: u64 = 24;
/// Sites that are planned, of each location.
const SITES: usize = 6;
/// Lines of a file that are asked for.
const LINES: u32 = 64;
/// What the seeds (`tests.rs`) are compiled from.
const FILES: [&str; 4] = ["work.c", "work.cc", "a.go", "work.rs"];
/// Captures and conditions: members, elements, pointers, what is not there.
const EXPRESSIONS: [&str; 6] = ["p.x", "*p", "list[1]", "n > 3 && sum < 100", "len(text)", "any.(int)"];

fn tracepoint(location: Location, condition: Option<&str>) -> Tracepoint {
    Tracepoint {
        id: TracepointId::new("fuzzed").expect("a good id"),
        location,
        selector: Selector::default(),
        condition: condition.map(str::to_owned),
        hit_condition: None,
        log_message: None,
        captures: EXPRESSIONS.map(str::to_owned).to_vec(),
        mode: Mode::Hit,
        limits: CaptureLimits::default(),
        source: Vec::new(),
    }
}

pub(super) fn ask(build: &Build) {
    let code = build.code_range(0);
    let step = (code.end.saturating_sub(code.start) / ADDRESSES).max(1);
    for address in (0..ADDRESSES).map(|number| code.start.saturating_add(number * step)) {
        for is_return_address in [false, true] {
            let frames = build.frames(Svma(address), is_return_address);
            assert!(frames.len() < 1_000, "{} frames at one address", frames.len());
        }
        build.symbol_at(Svma(address));
        build.unwind_row(Svma(address));
    }
    build.symbol_named("main");
    types(build);
    let mut locations: Vec<Location> = [FunctionPoint::Entry, FunctionPoint::Return, FunctionPoint::Call]
        .map(|at| Location::Function { name: "*".to_owned(), at })
        .to_vec();
    for file in FILES {
        let asked =
            LinesGet { build: build.facts().id.clone(), file: file.to_owned(), first: 1, last: LINES, variables: true };
        if let Ok(reply) = listing::lines(build, &asked) {
            let lines = reply.lines.iter().take(SITES);
            locations.extend(lines.map(|line| Location::Line { file: reply.file.clone(), line: line.line }));
        }
    }
    for location in locations {
        plans(build, &location);
    }
}

/// Plans of the first sites of a location: what they promise of their sizes holds.
fn plans(build: &Build, location: &Location) {
    let Ok(sites) = build.resolve(location) else { return };
    for (number, site) in sites.iter().take(SITES).enumerate() {
        let condition = (number == 0).then_some("n > 1");
        let Ok(plan) = plan::compile(build, site, &tracepoint(location.clone(), condition), 0) else { continue };
        assert_eq!(plan.layout.check(), Ok(()), "what is sent can be read");
        assert!(plan.layout.types.len() <= LAYOUT_TYPES_MAX && plan.layout.variables.len() <= LAYOUT_VARIABLES_MAX);
        // Behind those of the variables stands what tells the call of the function.
        assert!(plan.program.roots.len() >= plan.layout.variables.len());
        assert!(plan.program.bytes_per_hit as usize <= HIT_BYTES_MAX);
    }
}

/// What the runtime of a Go program says of its types.
fn types(build: &Build) {
    let Ok(view) = build.view() else { return };
    let _ = build.goroutine(&view);
    let Some(types) = build.go_types(&view) else { return };
    let Ok(all) = types.candidates(&view, build, None) else { return };
    for described in all.into_iter().take(16) {
        types.candidate(described, build);
        types.at(types.address(described).0);
        let _ = types.candidates(&view, build, Some(described.die));
    }
}

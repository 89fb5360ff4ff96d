//! A long file with many tracepoints: how long an editor waits for its hints and lenses.
//!
//! `RIPTRACE_LSP_SCALE=1 cargo test --release -p riptrace-dap-adapter --lib long_file -- --nocapture` measures the figure
//! of `RESULTS.md`; without it the same runs once and checks what is shown.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use super::convert;
use super::show::{hints, lenses};
use super::state::{Effect, Event, State, handle};
use super::test_fleet::{build, fleet, host, layout, message, probe};
use super::text::Encoding;
use crate::lines::Local;
use riptrace_protocol::fleet::{ProbeState, SiteFacts, TracepointStatus};
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::layout::{Root, Scope, TypeIndex, Variable};
use riptrace_protocol::stream::StreamItem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LINES: u32 = 5_000;
/// One on each tenth line: more than a person ever sets.
const TRACEPOINTS: u32 = 500;
const HOSTS: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];
const VARIABLES: u32 = 5;
/// What the issue allows.
const BOUND: Duration = Duration::from_millis(20);
const ROUNDS: usize = 200;

fn line_of(tracepoint: u32) -> u32 {
    (tracepoint + 1) * (LINES / TRACEPOINTS)
}

fn id_of(tracepoint: u32) -> TracepointId {
    TracepointId::new(format!("t{tracepoint}")).unwrap()
}

/// A state that has everything to show in one file.
fn state(path: &std::path::Path) -> State {
    let mut state = State::default();
    let mut event = |event| {
        let mut effects = Vec::new();
        handle(&mut state, event, &mut effects);
        effects
    };
    let text: String = (1..=LINES).map(|line| format!("\ttotal{line} += qty * price // é{line}\n")).collect();
    event(Event::Text { path: path.to_owned(), version: 1, text });
    let mut view = fleet(Vec::new());
    let status = |tracepoint: u32| {
        let probes = HOSTS.iter().map(|host| {
            let mut probe = probe(host, ProbeState::Armed, 120);
            let SiteFacts { function, file, .. } = probe.sites[0].clone();
            probe.sites = vec![SiteFacts { function, file, line: line_of(tracepoint) }];
            probe
        });
        let location = view.tracepoints[0].location.clone();
        TracepointStatus { tracepoint: id_of(tracepoint), location, probes: probes.collect(), ended: None }
    };
    let statuses: Vec<TracepointStatus> = (0..TRACEPOINTS).map(status).collect();
    view.tracepoints = statuses;
    event(Event::Fleet(Box::new(view)));
    let mut layout = layout();
    layout.variables = (0..VARIABLES)
        .map(|number| Variable {
            name: format!("value{number}"),
            ty: TypeIndex(0),
            scope: Scope::Local,
            declared_line: 3,
            root: Root::Whole { offset: number * 8, bytes: 8 },
        })
        .collect();
    let mut items = vec![StreamItem::Layout(Box::new(layout.clone()))];
    for tracepoint in 0..TRACEPOINTS {
        for (number, name) in (0u64..).zip(HOSTS) {
            let StreamItem::Hit(mut hit) = super::test_fleet::hit(1 + number, name, 3) else { unreachable!() };
            hit.host = host(name);
            hit.raw.tracepoint = id_of(tracepoint);
            hit.raw.layout = layout.id();
            hit.raw.roots = (0..VARIABLES).flat_map(|n| (i64::from(n * tracepoint) << 20).to_le_bytes()).collect();
            hit.raw.root_states = vec![riptrace_protocol::hit::RootState::Captured; VARIABLES as usize];
            items.push(StreamItem::Hit(hit));
        }
    }
    event(Event::Stream(message(items)));
    for effect in event(Event::Tick(Duration::ZERO)) {
        if let Effect::Map { site, build: facts } = effect {
            assert_eq!(facts.map(|facts| *facts), Some(build()));
            let local = Some(Local { path: path.to_owned(), line: Some(site.line), note: None });
            event(Event::Mapped { site, local });
        }
    }
    state
}

/// As the server answers: for the whole file, as the protocol writes it.
fn answers(state: &State, path: &std::path::Path) -> (String, String) {
    let text = state.document(path).unwrap();
    let hints: Vec<_> =
        hints(state, path, 1, LINES).iter().map(|hint| convert::hint(hint, text, Encoding::Utf16)).collect();
    let lenses: Vec<_> = lenses(state, path).iter().map(convert::lens).collect();
    assert_eq!((hints.len(), lenses.len()), (TRACEPOINTS as usize, TRACEPOINTS as usize));
    (serde_json::to_string(&hints).unwrap(), serde_json::to_string(&lenses).unwrap())
}

#[test]
fn hints_and_lenses_of_a_long_file_are_there_at_once() {
    let path = PathBuf::from("/home/ana/shop/cart/cart.go");
    let state = state(&path);
    let (hints, lenses) = answers(&state, &path);
    assert!(hints.contains("value4=") && lenses.contains("web-4: 120 hits"), "{}", &lenses[..200]);
    if std::env::var_os("RIPTRACE_LSP_SCALE").is_none() {
        return;
    }
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            answers(&state, &path);
            begun.elapsed()
        })
        .collect();
    times.sort();
    let (middle, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    eprintln!(
        "hints and lenses of {LINES} lines with {TRACEPOINTS} tracepoints on {} hosts: median {middle:?}, p99 {p99:?}",
        HOSTS.len()
    );
    assert!(p99 <= BOUND, "{p99:?}");
}

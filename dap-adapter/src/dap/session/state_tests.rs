//! Random conversations: whatever comes, each request is answered exactly once, and nothing is left in the fleet.

#[path = "hostile_tests.rs"]
mod hostile;

use super::super::super::fuzzing::{NoFiles, answer};
use super::*;
use crate::fleet::SessionEvent;
use proptest::prelude::*;
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::ids::{HostName, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::stream::StreamItem;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// One step of a conversation.
#[derive(Debug, Clone)]
enum Step {
    Ask(&'static str, Value),
    /// Answers the effect that waits longest; fails it where the flag says so.
    Answer {
        at: usize,
        fails: bool,
    },
    Hit {
        tracepoint: usize,
        goroutine: u64,
    },
    Reconnected {
        reopened: bool,
    },
    Later {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let line = |n: u8| json!({"line": n % 4, "logMessage": if n.is_multiple_of(3) { "x={x}" } else { "" }});
    let set = proptest::collection::vec(any::<u8>(), 0..4).prop_map(move |lines| {
        let breakpoints: Vec<Value> = lines.into_iter().map(line).collect();
        Step::Ask("setBreakpoints", json!({"source": {"path": "/a/b.go"}, "breakpoints": breakpoints}))
    });
    let plain = prop::sample::select(vec![
        "initialize",
        "attach",
        "configurationDone",
        "threads",
        "continue",
        "reverseContinue",
        "next",
        "stepBack",
        "stepIn",
        "pause",
        "restart",
        "modules",
        "loadedSources",
        "terminate",
        "nonsense",
        "riptrace/timeline",
        "cancel",
        "setFunctionBreakpoints",
        "setExceptionBreakpoints",
        "stepOut",
        "exceptionInfo",
        "gotoTargets",
        "breakpointLocations",
        "riptrace/fleet",
        "riptrace/timelinePage",
        "riptrace/timelineOverview",
        "riptrace/statistics",
        "riptrace/capture",
        "riptrace/save",
        "launch",
    ])
    .prop_map(|command| {
        let arguments = match command {
            "riptrace/fleet" => json!({"refresh": true}),
            "riptrace/timelinePage" => json!({"count": 3, "filter": {"text": "x"}}),
            "riptrace/timelineOverview" => json!({"buckets": 3}),
            "riptrace/save" => json!({"path": "x"}),
            "launch" => json!({"recording": "x"}),
            "riptrace/capture" => json!({"breakpoint": 1, "expression": "x"}),
            _ => json!({
                "threadId": 2, "requestId": 2, "breakpoints": [{"name": "main.f"}], "filters": ["go-panic", "x"],
                "source": {"path": "/a/b.go"}, "line": 1, "endLine": 3,
            }),
        };
        Step::Ask(command, arguments)
    });
    let numbered = (
        prop::sample::select(vec![
            "scopes",
            "variables",
            "stackTrace",
            "evaluate",
            "source",
            "goto",
            "locations",
            "riptrace/openHit",
        ]),
        0i64..40,
    )
        .prop_map(|(command, n)| {
            let arguments = json!({
                "frameId": n, "variablesReference": n, "threadId": n, "sourceReference": n, "seq": n, "expression": "x",
                "targetId": (1 << 30) + n, "locationReference": n,
            });
            Step::Ask(command, arguments)
        });
    prop_oneof![
        3 => set,
        4 => plain,
        3 => numbered,
        8 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(at, fails)| Step::Answer { at, fails }),
        5 => (0usize..6, 1u64..4).prop_map(|(tracepoint, goroutine)| Step::Hit { tracepoint, goroutine }),
        1 => any::<bool>().prop_map(|reopened| Step::Reconnected { reopened }),
        2 => (0u64..3000).prop_map(|ms| Step::Later { ms }),
    ]
}

/// The world around a session.
struct World {
    state: State,
    now: Duration,
    seq: i64,
    unanswered: BTreeSet<i64>,
    waiting: Vec<Effect>,
    /// Tracepoints that the fleet has; true while the creation is under way.
    fleet: BTreeMap<TracepointId, bool>,
    named: Vec<TracepointId>,
    hits: u64,
    rows: u64,
    exited: bool,
}

impl World {
    fn new() -> World {
        World {
            state: State::new(Box::new(NoFiles), TimelineLimits { hits: 8, bytes: 1 << 20 }),
            now: Duration::ZERO,
            seq: 0,
            unanswered: BTreeSet::new(),
            waiting: Vec::new(),
            fleet: BTreeMap::new(),
            named: Vec::new(),
            hits: 0,
            rows: 0,
            exited: false,
        }
    }

    fn happen(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.state.handle(self.now, event, &mut effects);
        for effect in effects {
            assert!(!self.exited, "nothing is done after the end: {effect:?}");
            match effect {
                Effect::Send(Outgoing::Response { request_seq, .. }) => {
                    assert!(self.unanswered.remove(&request_seq), "request {request_seq} was answered twice");
                }
                Effect::Send(Outgoing::Event { event, .. }) => self.rows += u64::from(event == "riptrace/hit"),
                Effect::Create { tracepoint, builds } => {
                    assert_eq!(self.fleet.insert(tracepoint.id.clone(), true), None, "an id is used once");
                    self.named.push(tracepoint.id.clone());
                    self.waiting.push(Effect::Create { tracepoint, builds });
                }
                Effect::Remove(id) => {
                    assert_eq!(self.fleet.remove(&id), Some(false), "only what was created is removed, and once");
                    self.waiting.push(Effect::Remove(id));
                }
                Effect::Close => {
                    self.fleet.clear();
                    self.waiting.push(Effect::Close);
                }
                Effect::Exit => self.exited = true,
                other => self.waiting.push(other),
            }
        }
    }

    fn ask(&mut self, command: &str, arguments: Value) {
        self.seq += 1;
        self.unanswered.insert(self.seq);
        self.happen(Event::Request { seq: self.seq, command: command.to_owned(), arguments: Some(arguments) });
    }

    fn answer(&mut self, at: usize, fails: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let effect = self.waiting.remove(at % self.waiting.len());
        if let Effect::Create { tracepoint, .. } = &effect {
            if fails {
                self.fleet.remove(&tracepoint.id);
            } else if let Some(creating) = self.fleet.get_mut(&tracepoint.id) {
                *creating = false;
            }
        }
        let Some(event) = answer(effect, fails) else { return };
        self.happen(event);
    }

    fn hit(&mut self, tracepoint: usize, goroutine: u64) {
        let Some(tracepoint) = self.named.get(tracepoint).cloned() else { return };
        if self.state.phase != Phase::Joined {
            return;
        }
        self.hits += 1;
        let raw = RawHit {
            number: self.hits,
            tracepoint,
            process: ProcessKey { pid: 1, start_time: 1 },
            layout: LayoutId([0; 16]),
            time_ns: self.hits,
            thread: 1,
            goroutine: Some(goroutine),
            roots: Vec::new(),
            root_states: Vec::new(),
            chunks: Vec::new(),
            stack: Vec::new(),
            stack_end: riptrace_protocol::hit::StackEnd::Whole,
            duration_ns: None,
        };
        let hit = OrderedHit {
            seq: self.hits,
            time_ns: 0,
            uncertainty_ns: 0,
            host: HostName::new("a").unwrap(),
            service: "s".into(),
            undetermined_with: Vec::new(),
            late: false,
            raw,
        };
        self.happen(Event::Stream(SessionEvent::Items(vec![StreamItem::Hit(Box::new(hit))])));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(command, arguments) => self.ask(command, arguments),
            Step::Answer { at, fails } => self.answer(at, fails),
            Step::Hit { tracepoint, goroutine } => self.hit(tracepoint, goroutine),
            Step::Reconnected { reopened } => self.happen(Event::Stream(SessionEvent::Reconnected { reopened })),
            Step::Later { ms } => {
                self.now += Duration::from_millis(ms);
                self.happen(Event::Tick);
            }
        }
        if let Some(deadline) = self.state.deadline() {
            assert!(deadline > self.now, "what is due is done, or the driver would spin");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn each_request_is_answered_once_and_nothing_is_left_in_the_fleet(steps in proptest::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        // Most conversations begin as they should.
        for (command, arguments) in [("initialize", json!({})), ("attach", json!({}))] {
            world.ask(command, arguments);
        }
        world.answer(0, false);
        for step in steps {
            world.step(step);
        }
        world.ask("disconnect", json!({}));
        while !world.exited && !world.waiting.is_empty() {
            world.answer(0, false);
        }
        prop_assert!(world.exited, "the conversation ends");
        prop_assert!(world.unanswered.is_empty(), "unanswered: {:?}", world.unanswered);
        prop_assert!(world.fleet.is_empty(), "left in the fleet: {:?}", world.fleet);
        // More than an editor can show in a second are counted in a row.
        if world.hits <= u64::from(super::super::super::limits::ROWS_PER_S_MAX) {
            prop_assert_eq!(world.rows, world.hits, "each hit has one row");
        }
    }
}

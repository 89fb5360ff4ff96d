//! Scripted runs, and random ones against a world that does the work in order and fails at will.

use super::*;
use proptest::prelude::*;
use riptrace_protocol::agent_api::{LinesGet, LinesReply};
use riptrace_protocol::fleet::{BuildFacts, Language, Mechanism, SiteFacts};
use riptrace_protocol::ids::HostName;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode};
use std::collections::VecDeque;

fn profile() -> HostProfile {
    HostProfile {
        host: HostName::new("web-1").unwrap(),
        incarnation: Incarnation(42),
        version: "0.1.0".into(),
        kernel: "6.1".into(),
        clock_domain: ClockDomain("boot:1".into()),
        labels: BTreeMap::new(),
        revision: 9,
        processes: vec![],
    }
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_time: 123 }
}

fn facts(pid: u32, build: &str) -> ProcessFacts {
    ProcessFacts {
        key: key(pid),
        service: "cart".into(),
        exe: "/bin/cartd".into(),
        build: BuildFacts {
            id: BuildId(build.into()),
            language: Language::Go,
            dwarf: true,
            go_version: None,
            module: None,
            module_version: None,
            vcs_revision: None,
            vcs_modified: None,
            settings: Default::default(),
        },
        container: None,
        labels: BTreeMap::new(),
        refused: None,
    }
}

fn id(name: &str) -> TracepointId {
    TracepointId::new(name).unwrap()
}

fn tracepoint(name: &str, line: u32) -> Tracepoint {
    Tracepoint {
        id: id(name),
        location: Location::Line { file: "cart.go".into(), line },
        selector: Selector::default(),
        condition: None,
        hit_condition: None,
        log_message: None,
        captures: vec![],
        mode: Mode::Hit,
        limits: CaptureLimits::default(),
        source: Default::default(),
    }
}

fn create(name: &str, line: u32, pids: &[u32]) -> Ask {
    Ask::Create(Box::new(Create {
        tracepoint: tracepoint(name, line),
        processes: pids.iter().map(|pid| key(*pid)).collect(),
    }))
}

fn armed() -> Outcome {
    let site = SiteFacts { function: "main.f".into(), file: "cart.go".into(), line: 3 };
    let layout = Layout {
        build: BuildId("go:a".into()),
        language: Language::Go,
        site: site.clone(),
        moment: riptrace_protocol::layout::Moment::Line,
        variables: vec![],
        types: vec![],
        string_bytes: 1,
        elements: 1,
        depth: 1,
    };
    Outcome::Armed(Ok(Armed {
        mechanism: Mechanism::Ptrace,
        note: None,
        sites: vec![site],
        layouts: vec![Arc::new(layout)],
    }))
}

/// A state with what it did.
struct Script {
    state: State,
    now_ms: u64,
    next_request: u64,
    effects: Vec<Effect>,
}

impl Script {
    fn new() -> Script {
        let mut script = Script { state: State::new(profile()), now_ms: 0, next_request: 0, effects: vec![] };
        script.tell(Event::Discovered(vec![facts(1, "go:a"), facts(2, "go:a")]));
        script.effects.clear();
        script
    }

    fn tell(&mut self, event: Event) {
        self.state.handle(self.now_ms, event, &mut self.effects);
    }

    fn ask(&mut self, ask: Ask) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.tell(Event::Asked { request, ask });
        request
    }

    /// Lets time go by in steps of 100 ms, with or without a coordinator.
    fn wait(&mut self, ms: u64, coordinator: bool) {
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            if coordinator {
                self.tell(Event::CoordinatorHeard(Incarnation(7)));
            }
            self.tell(Event::Tick);
        }
    }

    /// The work asked for so far; forgets it.
    fn work(&mut self) -> Vec<(JobId, ProcessKey, Work)> {
        let mut work = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Run { job, process, work: what } => {
                work.push((*job, *process, what.clone()));
                false
            }
            _ => true,
        });
        work
    }

    /// All work asked for so far succeeds.
    fn succeed(&mut self) {
        for (job, _, work) in self.work() {
            let outcome = match work {
                Work::Load => Outcome::Loaded(Ok(())),
                Work::Arm(_) => armed(),
                Work::Disarm(_) => {
                    Outcome::Disarmed(Some(ProbeCounts { passages: 9, hits: 7, dropped: 2, ..ProbeCounts::default() }))
                }
                Work::Detach => Outcome::Detached,
                Work::Lines(asked) => Outcome::Lines(Ok(lines_of(&asked))),
            };
            self.tell(Event::Done { job, outcome });
        }
    }

    fn answer(&mut self, to: RequestId) -> Option<Answer> {
        let answers: Vec<Answer> = (self.effects.iter())
            .filter_map(|effect| match effect {
                Effect::Reply { request, answer } if *request == to => Some(answer.clone()),
                _ => None,
            })
            .collect();
        assert!(answers.len() <= 1, "answered more than once: {answers:?}");
        answers.into_iter().next()
    }

    fn created(&mut self, to: RequestId) -> Vec<(ProbeState, Option<String>)> {
        match self.answer(to) {
            Some(Answer::Create(reply)) => {
                reply.probes.into_iter().map(|status| (status.state, status.reason)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn said(&mut self) -> Vec<ProbeStatus> {
        let mut said = Vec::new();
        self.effects.retain_mut(|effect| match effect {
            Effect::Heartbeat(heartbeat) => {
                said.append(&mut heartbeat.probes);
                false
            }
            _ => true,
        });
        said
    }
}

#[test]
fn a_tracepoint_is_armed_counted_and_removed() {
    let mut script = Script::new();
    let request = script.ask(create("t", 3, &[1, 2]));
    assert_eq!(script.answer(request), None, "not before the work is done");
    script.wait(HEARTBEAT_MS, true);
    assert_eq!(script.said(), [], "a probe on its way in is no news");
    assert!(script.effects.contains(&Effect::ProbesExist(true)));
    script.succeed();
    let Some(Answer::Create(reply)) = script.answer(request) else { panic!() };
    assert_eq!(reply.probes.iter().map(|probe| probe.state).collect::<Vec<_>>(), [ProbeState::Armed; 2]);
    assert_eq!(reply.layouts.len(), 1, "both processes run the same build");
    script.tell(Event::Counted(vec![(
        JobId(0),
        ProbeCounts { passages: 5, hits: 4, dropped: 1, ..ProbeCounts::default() },
    )]));
    script.wait(1_000, true);
    let said = script.said();
    assert!(said.iter().any(|status| status.process.key == key(1) && status.passages == 5), "{said:?}");
    let removal = script.ask(Ask::Remove(id("t")));
    script.succeed();
    let Some(Answer::Remove(reply)) = script.answer(removal) else { panic!() };
    assert_eq!(reply.probes.iter().map(|probe| probe.passages).collect::<Vec<_>>(), [9, 9]);
    assert!(script.effects.contains(&Effect::ProbesExist(false)));
    script.wait(DETACH_GRACE_MS + 100, true);
    assert_eq!(script.work().into_iter().map(|(_, _, work)| work).collect::<Vec<_>>(), [Work::Detach, Work::Detach]);
}

#[test]
fn a_probe_that_its_engine_thins_or_switches_off_says_so_and_can_be_removed() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    let counted = |note: Option<&str>, off: Option<&str>| {
        let counts = ProbeCounts {
            passages: 9,
            note: note.map(str::to_owned),
            off: off.map(str::to_owned),
            ..ProbeCounts::default()
        };
        Event::Counted(vec![(JobId(0), counts)])
    };
    let told = |script: &mut Script, event: Event| {
        script.tell(event);
        script.wait(1_000, true);
        let status = script.said().pop().expect("it is news");
        (status.state, status.note, status.reason)
    };
    let note = Some("sampling 1/8".to_owned());
    assert_eq!(told(&mut script, counted(Some("sampling 1/8"), None)), (ProbeState::Armed, note, None));
    assert_eq!(told(&mut script, counted(None, None)), (ProbeState::Armed, None, None));
    let why = Some("too hot".to_owned());
    assert_eq!(told(&mut script, counted(None, Some("too hot"))), (ProbeState::Off, None, why));
    let removal = script.ask(Ask::Remove(id("t")));
    script.succeed();
    assert!(matches!(script.answer(removal), Some(Answer::Remove(_))));
}

#[test]
fn the_same_content_is_left_as_it_is_and_other_content_replaces_it() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    let again = script.ask(create("t", 3, &[1]));
    assert_eq!(script.work(), []);
    assert_eq!(script.created(again), [(ProbeState::Armed, None)]);
    let other = script.ask(create("t", 4, &[1]));
    let work = script.work();
    assert!(matches!(&work[..], [(_, _, Work::Disarm(_)), (_, _, Work::Arm(new))] if **new == tracepoint("t", 4)));
    script.tell(Event::Done { job: work[0].0, outcome: Outcome::Disarmed(None) });
    script.tell(Event::Done { job: work[1].0, outcome: armed() });
    assert_eq!(script.created(other), [(ProbeState::Armed, None)]);
}

#[test]
fn what_cannot_be_armed_says_why() {
    let mut script = Script::new();
    let mut refused = facts(3, "go:a");
    refused.refused = Some("another tracer".into());
    script.tell(Event::Discovered(vec![facts(1, "go:a"), refused]));
    let request = script.ask(create("t", 3, &[1, 3, 812]));
    let work = script.work();
    script.tell(Event::Done { job: work[0].0, outcome: Outcome::Armed(Err("no code at cart.go:3".to_owned().into())) });
    let why = |why: &str| (ProbeState::Refused, Some(why.to_owned()));
    assert_eq!(
        script.created(request),
        [
            why("no code at cart.go:3"),
            why("another tracer"),
            why("process 812 (start 123) is not running on host web-1"),
        ]
    );
}

#[test]
fn a_request_is_answered_at_its_deadline_with_what_is_known() {
    let mut script = Script::new();
    let request = script.ask(create("t", 3, &[1, 2]));
    let attach = script.ask(Ask::Attach(key(1)));
    let work = script.work();
    script.tell(Event::Done { job: work[0].0, outcome: armed() });
    script.wait(ANSWER_MS - 100, true);
    assert_eq!(script.answer(request), None);
    script.wait(100, true);
    let states: Vec<ProbeState> = script.created(request).into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [ProbeState::Armed, ProbeState::Pending]);
    assert!(matches!(script.answer(attach), Some(Answer::Error(why)) if why.contains("ask again")));
    script.said();
    script.tell(Event::Done { job: work[1].0, outcome: armed() });
    script.wait(200, true);
    assert!(script.said().iter().any(|status| status.process.key == key(2) && status.state == ProbeState::Armed));
}

#[test]
fn without_a_coordinator_all_probes_go() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    script.wait(COORDINATOR_LEASE_MS - 100, false);
    assert_eq!(script.work(), []);
    script.wait(100, false);
    assert!(matches!(&script.work()[..], [(_, _, Work::Disarm(_))]));
    script.wait(HEARTBEAT_GAP_MS, false);
    let said = script.said();
    let reason = said.last().unwrap().reason.as_deref();
    assert_eq!(reason, Some("no coordinator was heard for 20 s"));
    let Answer::List { tracepoints, .. } = script.state.list() else { panic!() };
    assert_eq!(tracepoints, []);
}

#[test]
fn an_agent_that_did_not_run_has_not_missed_its_coordinator() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    // It was stopped, and the first that it sees is what time it is.
    script.now_ms += 3 * COORDINATOR_LEASE_MS;
    script.tell(Event::Tick);
    assert_eq!(script.work(), []);
    // Nobody is there.
    script.wait(COORDINATOR_LEASE_MS, false);
    assert!(matches!(&script.work()[..], [(_, _, Work::Disarm(_))]));
}

/// The statuses of a removal: passages, and whether there are more.
fn removed(script: &mut Script, request: RequestId) -> Option<Vec<(u64, bool)>> {
    let Answer::Remove(reply) = script.answer(request)? else { panic!("another answer") };
    Some(reply.probes.iter().map(|status| (status.passages, status.unfinished)).collect())
}

#[test]
fn counts_that_are_not_final_say_so_and_the_final_ones_follow() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    let removal = script.ask(Ask::Remove(id("t")));
    let work = script.work();
    script.wait(ANSWER_MS, true);
    assert_eq!(removed(&mut script, removal), Some(vec![(0, true)]));
    let again = script.ask(Ask::Remove(id("t")));
    assert_eq!((script.work(), removed(&mut script, again)), (vec![], None));
    let counts = ProbeCounts { passages: 1308, hits: 1308, ..ProbeCounts::default() };
    script.tell(Event::Done { job: work[0].0, outcome: Outcome::Disarmed(Some(counts)) });
    assert_eq!(removed(&mut script, again), Some(vec![(1308, false)]));
    // Whoever did not get that answer.
    let third = script.ask(Ask::Remove(id("t")));
    assert_eq!(removed(&mut script, third), Some(vec![(1308, false)]));
    script.wait(ENDED_KEPT_MS, true);
    let late = script.ask(Ask::Remove(id("t")));
    assert_eq!(removed(&mut script, late), Some(vec![]));
    // A tracepoint of the same name is another one.
    script.ask(create("t", 3, &[1]));
    script.succeed();
    script.ask(Ask::Remove(id("t")));
    script.succeed();
    script.ask(create("t", 4, &[2]));
    script.succeed();
    let other = script.ask(Ask::Remove(id("t")));
    script.succeed();
    assert_eq!(removed(&mut script, other).map(|probes| probes.len()), Some(1));
}

#[test]
fn the_last_counts_of_probes_that_nobody_removed_follow_by_heartbeat() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    script.wait(COORDINATOR_LEASE_MS, false);
    script.wait(HEARTBEAT_GAP_MS, false);
    let said = script.said();
    assert!(said.last().is_some_and(|status| status.unfinished), "{said:?}");
    script.succeed();
    script.wait(HEARTBEAT_GAP_MS, false);
    let said = script.said();
    let last: Vec<_> = said.iter().map(|status| (status.passages, status.unfinished)).collect();
    assert_eq!(last, [(9, false)]);
    // Its engine was gone, and its counts with it.
    script.ask(create("u", 3, &[1]));
    script.succeed();
    let removal = script.ask(Ask::Remove(id("u")));
    let work = script.work();
    script.tell(Event::Done { job: work[0].0, outcome: Outcome::Disarmed(None) });
    assert_eq!(removed(&mut script, removal), Some(vec![(0, true)]));
}

#[test]
fn a_removal_overtakes_an_arming_that_is_not_done() {
    let mut script = Script::new();
    let creation = script.ask(create("t", 3, &[1]));
    let removal = script.ask(Ask::Remove(id("t")));
    assert_eq!(
        script.created(creation),
        [(ProbeState::Off, Some("removed or replaced before it was armed".to_owned()))]
    );
    assert_eq!(script.answer(removal), None);
    script.succeed();
    assert!(matches!(script.answer(removal), Some(Answer::Remove(reply)) if reply.probes.len() == 1));
    assert!(script.state.probes.is_empty());
}

#[test]
fn the_last_counts_of_a_process_that_is_gone_from_proc_are_waited_for() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    // It is seen to be gone before its engine has told.
    script.tell(Event::Discovered(vec![facts(2, "go:a")]));
    script.wait(1_000, true);
    let last = ProbeCounts { passages: 5, hits: 4, dropped: 1, ..ProbeCounts::default() };
    script.tell(Event::Counted(vec![(JobId(0), last)]));
    script.tell(Event::ProcessGone { process: key(1), how: Gone::Exited("exit status 0".into()) });
    script.wait(200, true);
    let said = script.said();
    assert!(said.iter().any(|status| status.state == ProbeState::Off && status.passages == 5), "{said:?}");
    // One whose engine never tells is gone all the same.
    script.ask(create("u", 3, &[2]));
    script.succeed();
    for _ in 0..=UNTOLD_MS / 1_000 {
        script.tell(Event::Discovered(Vec::new()));
        script.wait(1_000, true);
    }
    let said = script.said();
    assert!(said.iter().any(|status| status.process.key == key(2) && status.state == ProbeState::Off), "{said:?}");
}

#[test]
fn an_exit_turns_the_probe_off_and_is_told_soon() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    script.wait(300, true);
    script.said();
    script.tell(Event::ProcessGone { process: key(1), how: Gone::Exited("killed by signal 9".into()) });
    script.wait(200, true);
    let said = script.said();
    assert!(
        said.iter().any(|status| status.reason.as_deref() == Some("the process ended (killed by signal 9)")),
        "{said:?}"
    );
    script.wait(ENDED_KEPT_MS, true);
    assert!(script.state.probes.is_empty(), "its status is not kept for ever");
}

#[test]
fn after_an_exec_the_probe_is_armed_again() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    script.tell(Event::ProcessGone { process: key(1), how: Gone::Execed });
    script.succeed();
    script.tell(Event::Discovered(vec![facts(1, "go:b"), facts(2, "go:a")]));
    assert!(matches!(&script.work()[..], [(_, process, Work::Arm(_))] if *process == key(1)));
    assert_eq!(script.state.probes[&(id("t"), key(1))].status.build, BuildId("go:b".into()));
}

#[test]
fn shutdown_takes_everything_out_and_says_goodbye() {
    let mut script = Script::new();
    script.ask(create("t", 3, &[1]));
    script.succeed();
    let waiting = script.ask(create("u", 4, &[1]));
    script.tell(Event::Shutdown);
    assert!(!script.effects.contains(&Effect::Finished));
    script.succeed();
    assert!(script.answer(waiting).is_some());
    assert!(script.effects.contains(&Effect::Finished));
    assert!(script.effects.iter().any(|effect| matches!(effect, Effect::Heartbeat(heartbeat) if heartbeat.leaving)));
    let late = script.ask(create("v", 5, &[1]));
    assert!(matches!(script.answer(late), Some(Answer::Error(why)) if why.contains("stopping")));
}

#[test]
fn the_revision_grows_with_each_change_of_the_processes_only() {
    let mut script = Script::new();
    let before = script.state.profile().revision;
    script.tell(Event::Discovered(vec![facts(1, "go:a"), facts(2, "go:a")]));
    assert_eq!(script.state.profile().revision, before);
    script.tell(Event::Discovered(vec![facts(1, "go:a")]));
    assert_eq!(script.state.profile().revision, before + 1);
    script.tell(Event::Discovered(vec![facts(1, "go:b")]));
    assert_eq!(script.state.profile().revision, before + 2);
}

fn lines(build: &str) -> Ask {
    let build = BuildId(build.into());
    Ask::Lines(LinesGet { build, file: "cart.go".into(), first: 1, last: 9, variables: false })
}

fn lines_of(asked: &LinesGet) -> LinesReply {
    LinesReply { file: asked.file.clone(), lines: vec![], more: false }
}

#[test]
fn lines_are_looked_up_in_a_process_that_runs_the_build() {
    let mut world = Script::new();
    world.tell(Event::Discovered(vec![facts(812, "go:a"), facts(813, "go:b")]));
    let request = world.ask(lines("go:b"));
    assert!(
        matches!(world.effects.last(), Some(Effect::Run { process, work: Work::Lines(_), .. }) if process.pid == 813)
    );
    world.succeed();
    let Ask::Lines(asked) = lines("go:b") else { unreachable!() };
    assert_eq!(world.answer(request), Some(Answer::Lines(lines_of(&asked))));
    let request = world.ask(lines("go:c"));
    let refusal = Answer::Error("no process of host web-1 runs build go:c".into());
    assert_eq!(world.answer(request), Some(refusal));
}

#[derive(Debug, Clone)]
enum Step {
    Create {
        tracepoint: u8,
        line: u32,
        pids: Vec<u32>,
    },
    Remove(u8),
    Attach(u32),
    Detach(u32),
    List,
    Lines(u8),
    /// The oldest work of a process ends; some of it fails.
    Work {
        pid: u32,
        fails: bool,
    },
    Exit(u32),
    Exec(u32),
    Lost(u32),
    /// The engine's news arrive.
    News,
    Discover,
    Ping,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pid = 1u32..4;
    prop_oneof![
        4 => (0u8..3, 3u32..5, prop::collection::vec(1u32..5, 0..4))
            .prop_map(|(tracepoint, line, pids)| Step::Create { tracepoint, line, pids }),
        2 => (0u8..3).prop_map(Step::Remove),
        1 => (0u8..3).prop_map(Step::Lines),
        1 => pid.clone().prop_map(Step::Attach),
        1 => pid.clone().prop_map(Step::Detach),
        1 => Just(Step::List),
        8 => (pid.clone(), prop::bool::weighted(0.2)).prop_map(|(pid, fails)| Step::Work { pid, fails }),
        1 => pid.clone().prop_map(Step::Exit),
        1 => pid.clone().prop_map(Step::Exec),
        1 => pid.prop_map(Step::Lost),
        2 => Just(Step::News),
        2 => Just(Step::Discover),
        4 => Just(Step::Ping),
        3 => prop_oneof![0u64..2_000, 0u64..25_000].prop_map(Step::Wait),
    ]
}

/// The processes and engines of a host.
struct World {
    state: State,
    now_ms: u64,
    sign_of_coordinator_ms: Option<u64>,
    alive: BTreeMap<u32, u32>,
    armed: BTreeMap<(TracepointId, u32), JobId>,
    queues: BTreeMap<u32, VecDeque<(JobId, Work)>>,
    news: VecDeque<Event>,
    requests: BTreeMap<RequestId, (u64, u32)>,
    finished: bool,
}

impl World {
    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.state.handle(self.now_ms, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Reply { request, .. } => self.requests.get_mut(&request).unwrap().1 += 1,
                Effect::Run { job, process, work } => {
                    if matches!(work, Work::Arm(_)) {
                        let sign_ms = self.sign_of_coordinator_ms.expect("armed with no coordinator ever heard");
                        assert!(self.now_ms < sign_ms + COORDINATOR_LEASE_MS, "armed without a lease");
                    }
                    self.queues.entry(process.pid).or_default().push_back((job, work));
                }
                Effect::Finished => {
                    assert!(!self.finished);
                    self.finished = true;
                }
                Effect::Heartbeat(_) | Effect::ProbesExist(_) | Effect::NewCoordinator => {}
            }
        }
        for (asked_ms, answers) in self.requests.values() {
            assert!(*answers <= 1, "a request was answered twice");
            assert!(*answers == 1 || self.now_ms < asked_ms + ANSWER_MS, "a request was not answered in time");
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.sign_of_coordinator_ms = Some(self.now_ms);
        let request = RequestId(self.requests.len() as u64);
        self.requests.insert(request, (self.now_ms, 0));
        self.tell(Event::Asked { request, ask });
    }

    fn work(&mut self, pid: u32, fails: bool) -> bool {
        let Some((job, work)) = self.queues.get_mut(&pid).and_then(VecDeque::pop_front) else { return false };
        let outcome = match work {
            Work::Load => Outcome::Loaded(if fails { Err("no".into()) } else { Ok(()) }),
            Work::Arm(_) if fails || !self.alive.contains_key(&pid) => Outcome::Armed(Err("no".to_owned().into())),
            Work::Arm(tracepoint) => {
                self.armed.insert((tracepoint.id.clone(), pid), job);
                armed()
            }
            Work::Lines(asked) => Outcome::Lines(if fails { Err("no".into()) } else { Ok(lines_of(&asked)) }),
            Work::Disarm(tracepoint) => {
                Outcome::Disarmed(self.armed.remove(&(tracepoint, pid)).map(|_| ProbeCounts::default()))
            }
            Work::Detach => {
                self.armed.retain(|(_, of), _| *of != pid);
                Outcome::Detached
            }
        };
        self.tell(Event::Done { job, outcome });
        true
    }

    fn gone(&mut self, pid: u32, how: Gone) {
        self.armed.retain(|(_, of), _| *of != pid);
        self.news.push_back(Event::ProcessGone { process: key(pid), how });
    }

    fn discover(&mut self) {
        let seen = self.alive.iter().map(|(pid, build)| facts(*pid, &format!("go:{build}"))).collect();
        self.tell(Event::Discovered(seen));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create { tracepoint, line, pids } => self.ask(create(&format!("t{tracepoint}"), line, &pids)),
            Step::Remove(tracepoint) => self.ask(Ask::Remove(id(&format!("t{tracepoint}")))),
            Step::Attach(pid) => self.ask(Ask::Attach(key(pid))),
            Step::Detach(pid) => self.ask(Ask::Detach(key(pid))),
            Step::List => self.ask(Ask::List),
            Step::Lines(build) => self.ask(lines(&format!("go:{build}"))),
            Step::Work { pid, fails } => {
                self.work(pid, fails);
            }
            Step::Exit(pid) => {
                if self.alive.remove(&pid).is_some() {
                    self.gone(pid, Gone::Exited("exit status 0".into()));
                }
            }
            Step::Exec(pid) => {
                if let Some(build) = self.alive.get_mut(&pid) {
                    *build += 1;
                    self.gone(pid, Gone::Execed);
                }
            }
            Step::Lost(pid) => self.gone(pid, Gone::Lost("lost".into())),
            Step::News => {
                while let Some(news) = self.news.pop_front() {
                    self.tell(news);
                }
            }
            Step::Discover => self.discover(),
            Step::Ping => {
                self.sign_of_coordinator_ms = Some(self.now_ms);
                self.tell(Event::CoordinatorHeard(Incarnation(7)));
            }
            Step::Wait(ms) => {
                for _ in 0..ms.div_ceil(100) {
                    self.now_ms += 100;
                    self.tell(Event::Tick);
                }
            }
        }
    }

    /// All news arrive and all work is done.
    fn drain(&mut self) {
        self.step(Step::News);
        while (1..5).any(|pid| self.work(pid, false)) {}
    }

    /// What the state takes for armed is in place, and nothing else is.
    fn check_probes(&self) {
        let believed: BTreeMap<(TracepointId, u32), JobId> = (self.state.probes.iter())
            .filter_map(|((tracepoint, process), probe)| match probe.phase {
                Phase::Armed(job) => Some(((tracepoint.clone(), process.pid), job)),
                _ => None,
            })
            .collect();
        assert_eq!(believed, self.armed);
        assert!(self.state.ending.is_empty() && self.state.detaching.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Over any run: each request is answered exactly once and in time, nothing is armed without a lease, and when all
    /// work is done, exactly the wanted probes are in place.
    #[test]
    fn any_run_keeps_the_rules(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World {
            state: State::new(profile()),
            now_ms: 0,
            sign_of_coordinator_ms: None,
            alive: BTreeMap::from([(1, 0), (2, 0), (3, 0)]),
            armed: BTreeMap::new(),
            queues: BTreeMap::new(),
            news: VecDeque::new(),
            requests: BTreeMap::new(),
            finished: false,
        };
        world.discover();
        for step in steps {
            world.step(step);
        }
        world.drain();
        world.check_probes();
        for (tracepoint, _) in world.armed.keys() {
            prop_assert!(world.state.tracepoints.contains_key(tracepoint), "a removed tracepoint is in place");
        }
        // The coordinator falls silent: everything goes.
        world.step(Step::Wait(COORDINATOR_LEASE_MS));
        world.drain();
        world.check_probes();
        prop_assert!(world.armed.is_empty() && world.state.tracepoints.is_empty());
        prop_assert!(!world.state.probes_exist);
        // And it comes back, and the agent is stopped in the middle.
        world.step(Step::Create { tracepoint: 0, line: 3, pids: vec![1, 2, 3] });
        world.tell(Event::Shutdown);
        world.drain();
        prop_assert!(world.finished && world.armed.is_empty());
        prop_assert!(world.requests.values().all(|(_, answers)| *answers == 1));
    }
}

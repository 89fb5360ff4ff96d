//! Scripts of events, and what is shown after them.

use super::super::show::{hints, lenses};
use super::super::test_fleet::{TEXT, build, dropped, fleet, hit, layout, message, probe, session};
use super::*;
use crate::lines::Note;
use riptrace_protocol::fleet::ProbeState::{Absent, Armed, Pending, Refused};

/// A tick, where the time does not matter.
const TICK: Event = Event::Tick(Duration::ZERO);

struct Script {
    state: State,
}

fn file() -> PathBuf {
    PathBuf::from("/home/ana/shop/cart/cart.go")
}

impl Script {
    /// A document is open and one tracepoint has these probes; where they are is not known yet.
    fn new(probes: Vec<riptrace_protocol::fleet::ProbeStatus>) -> Script {
        let mut script = Script { state: State::default() };
        script.event(Event::Text { path: file(), version: 1, text: TEXT.into() });
        script.event(Event::Fleet(Box::new(fleet(probes))));
        script
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        handle(&mut self.state, event, &mut effects);
        effects
    }

    /// Ticks, answers all questions about places with `line`, and ticks again.
    fn settle(&mut self, line: Option<u32>, note: Option<Note>) -> Vec<Effect> {
        for effect in self.event(TICK) {
            if let Effect::Map { site, build: facts } = effect {
                assert_eq!(facts.map(|facts| *facts), site.build.as_ref().map(|_| build()));
                let local = Some(Local { path: file(), line, note: note.clone() });
                assert_eq!(self.event(Event::Mapped { site, local }), []);
            }
        }
        self.event(TICK)
    }

    fn lenses(&self) -> Vec<(u32, String)> {
        lenses(&self.state, &file()).into_iter().map(|lens| (lens.line, lens.title)).collect()
    }

    fn hints(&self) -> Vec<(u32, String)> {
        hints(&self.state, &file(), 1, 100).into_iter().map(|hint| (hint.line, hint.text)).collect()
    }
}

#[test]
fn counts_and_last_values_stand_where_the_site_is_in_the_local_text() {
    let mut script = Script::new(vec![probe("web-1", Armed, 120), probe("web-2", Armed, 0)]);
    assert_eq!(script.lenses(), [], "where it is has not been asked yet");
    assert_eq!(script.settle(Some(5), None), [Effect::Refresh]);
    assert_eq!(script.lenses(), [(5, "web-1: 120 hits · armed in 2 processes".to_owned())]);
    assert_eq!(script.hints(), []);

    let items =
        vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3), hit(2, "web-2", 4), dropped("web-2", 7)];
    assert_eq!(script.event(Event::Stream(message(items))), []);
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert_eq!(script.event(TICK), [], "nothing has changed since");
    let title = "web-1: 120 hits, web-2: 1 hit (7 dropped) · armed in 2 processes";
    assert_eq!(script.lenses(), [(5, title.to_owned())]);
    assert_eq!(script.hints(), [(5, "n=4  web-2".to_owned())]);
    let tooltip = &hints(&script.state, &file(), 5, 5)[0].tooltip;
    let told = "web-2 cart 00:00:02.000000 ±1µs: n=4\nweb-1 cart 00:00:01.000000 ±1µs: n=3";
    assert_eq!(*tooltip, format!("{title}\n{told}"));
    assert!(hints(&script.state, &file(), 6, 9).is_empty(), "only of the lines asked for");
}

#[test]
fn what_can_be_read_is_shown_where_it_was_asked_for_until_the_text_changes() {
    let mut script = Script::new(vec![probe("web-1", Armed, 1)]);
    script.settle(Some(5), None);
    script.event(Event::Stream(message(vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3)])));
    let lines = BTreeMap::from([(4, "cart: n; not total".to_owned()), (5, "cart: n".to_owned())]);
    let seen = |version| Event::Traceable { path: file(), version, lines: lines.clone() };
    let traced = (5, "n=3".to_owned());
    script.event(seen(0));
    assert_eq!(script.hints(), std::slice::from_ref(&traced), "the lines of another text");
    script.event(TICK);
    script.event(seen(1));
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    let shown = [(4, "○ cart: n; not total".to_owned()), traced.clone()];
    assert_eq!(script.hints(), shown, "a line that is traced says its values");
    script.event(Event::TraceableHidden { path: file() });
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert_eq!(script.hints(), std::slice::from_ref(&traced));
    script.event(seen(1));
    script.event(Event::Text { path: file(), version: 2, text: format!("{TEXT}// More.\n") });
    assert!(script.state.traceable(&file()).is_none());
}

#[test]
fn a_burst_of_hits_is_one_refresh() {
    let mut script = Script::new(vec![probe("web-1", Armed, 0)]);
    script.settle(Some(4), None);
    for seq in 1..=1000 {
        assert_eq!(
            script.event(Event::Stream(message(vec![StreamItem::Layout(Box::new(layout())), hit(seq, "web-1", 1)]))),
            []
        );
    }
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert_eq!(script.lenses(), [(4, "web-1: 1000 hits · armed in 1 process".to_owned())]);
}

#[test]
fn a_rate_is_shown_once_it_is_known_and_falls_when_nothing_comes() {
    let mut script = Script::new(vec![probe("web-1", Armed, 120)]);
    script.settle(Some(4), None);
    let tick = |second| Event::Tick(Duration::from_secs(second));
    let count = |hits, dropped| {
        let mut probe = probe("web-1", Armed, hits);
        probe.dropped = dropped;
        Event::Fleet(Box::new(fleet(vec![probe])))
    };
    let title = |script: &Script| script.lenses()[0].1.clone();
    for second in 1..=2 {
        script.event(count(120 + 20 * second, 0));
        assert_eq!(script.event(tick(second)), [Effect::Refresh]);
        assert_eq!(title(&script), format!("web-1: {} hits · armed in 1 process", 120 + 20 * second));
    }
    for second in 3..=20 {
        script.event(count(120 + 20 * second, 5 * second));
        assert_eq!(script.event(tick(second)), [Effect::Refresh]);
    }
    assert_eq!(title(&script), "web-1: 520 hits (100 dropped) · 20/s and 5.0 dropped/s over 10 s · armed in 1 process");

    // Nothing comes any more: the editor is told as long as that changes what is shown.
    for second in 21..=30 {
        assert_eq!(script.event(tick(second)), [Effect::Refresh], "{second}");
    }
    assert_eq!(title(&script), "web-1: 520 hits (100 dropped) · 0/s over 10 s · armed in 1 process");
    assert_eq!(script.event(tick(31)), []);

    // Its process is another one now, though it has counted further.
    let mut probe = probe("web-1", Armed, 700);
    probe.process.key.start_time = 2;
    script.event(Event::Fleet(Box::new(fleet(vec![probe.clone()]))));
    script.event(tick(32));
    assert_eq!(title(&script), "web-1: 700 hits · armed in 1 process");

    // What has ended has no rate.
    probe.hits = 800;
    script.event(Event::Fleet(Box::new(fleet(vec![probe.clone()]))));
    script.event(tick(36));
    assert_eq!(title(&script), "web-1: 800 hits · 25/s over 4 s · armed in 1 process");
    let mut view = fleet(vec![probe]);
    view.tracepoints[0].ended = Some("limit".into());
    script.event(Event::Fleet(Box::new(view)));
    assert_eq!(script.event(tick(37)), [Effect::Refresh]);
    assert_eq!(title(&script), "web-1: 800 hits · ended: limit");
}

#[test]
fn a_tracepoint_that_no_build_takes_is_a_problem_with_the_reason() {
    let mut script = Script::new(vec![probe("web-1", Refused, 0), probe("web-2", Refused, 0)]);
    let problem = |message: &str| Effect::Publish {
        path: file(),
        problems: vec![Problem { line: 4, message: message.to_owned() }],
    };
    let message = "no running build takes this tracepoint; web-1 cart[812] and 1 more: no code for line 4";
    assert_eq!(script.settle(Some(4), None), [Effect::Refresh, problem(message)]);
    assert_eq!(script.lenses(), [(4, "no hits yet · armed in 0 of 2 processes".to_owned())]);

    // One that takes it is enough.
    let probes = vec![probe("web-1", Refused, 0), probe("web-2", Armed, 0)];
    script.event(Event::Fleet(Box::new(fleet(probes))));
    let effects = script.settle(Some(4), None);
    assert!(effects.contains(&Effect::Refresh));
    assert_eq!(script.state.problems(&file()), []);
    assert_eq!(script.lenses(), [(4, "no hits yet · armed in 1 of 2 processes".to_owned())]);

    // Another program of the fleet is no failure, unless there is nothing else.
    let mut other = Script::new(vec![probe("web-1", Armed, 0), probe("web-2", Absent, 0)]);
    other.settle(Some(4), None);
    assert_eq!(other.lenses(), [(4, "no hits yet · armed in 1 process".to_owned())]);
    let mut others = Script::new(vec![probe("web-1", Absent, 0), probe("web-2", Absent, 0)]);
    assert_eq!(others.settle(Some(4), None), [Effect::Refresh, problem(message)]);

    let mut pending = Script::new(vec![probe("web-1", Pending, 0)]);
    pending.settle(Some(4), None);
    assert_eq!(pending.state.problems(&file()), [], "it has not been answered yet");

    let mut nobody = Script::new(vec![]);
    let message = "no running process is meant by this tracepoint: none matches its selector";
    assert_eq!(nobody.settle(Some(4), None), [Effect::Refresh, problem(message)]);
}

#[test]
fn a_changed_text_is_mapped_again_and_an_old_one_is_ignored() {
    let mut script = Script::new(vec![probe("web-1", Armed, 1)]);
    script.settle(Some(4), Some(Note::NoRevision));
    assert_eq!(script.lenses(), [(4, "web-1: 1 hit · armed in 1 process · line not certain".to_owned())]);
    assert_eq!(script.event(TICK), []);

    script.event(Event::Text { path: file(), version: 3, text: format!("// new\n{TEXT}") });
    script.event(Event::Text { path: file(), version: 2, text: "old".into() });
    assert!(script.state.document(&file()).unwrap().as_str().starts_with("// new"));
    let effects = script.event(TICK);
    assert!(matches!(effects.as_slice(), [Effect::Map { .. }, Effect::Refresh]), "{effects:?}");
    let Effect::Map { site, .. } = effects.into_iter().next().unwrap() else { panic!() };
    assert_eq!(script.event(TICK), [], "asked only once");
    script.event(Event::Mapped { site: site.clone(), local: Some(Local { path: file(), line: Some(5), note: None }) });
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert_eq!(script.lenses()[0].0, 5);

    // A line that is not there any more has no lens.
    script.event(Event::Mapped { site, local: Some(Local { path: file(), line: None, note: None }) });
    assert_eq!(script.lenses(), []);
}

#[test]
fn what_ends_is_not_shown_any_more() {
    let mut script = Script::new(vec![probe("web-1", Refused, 0)]);
    script.settle(Some(4), None);
    let mut without = fleet(vec![]);
    without.tracepoints.clear();
    script.event(Event::Fleet(Box::new(without)));
    assert_eq!(script.lenses(), []);
    let cleared = Effect::Publish { path: file(), problems: vec![] };
    assert_eq!(script.event(TICK), [Effect::Refresh, cleared.clone()]);

    let mut script = Script::new(vec![probe("web-1", Refused, 0)]);
    script.settle(Some(4), None);
    script.event(Event::FleetLost);
    assert_eq!(script.event(TICK), [Effect::Refresh, cleared]);
    assert_eq!(script.event(Event::FleetLost), []);
    assert_eq!(script.event(TICK), []);
}

#[test]
fn hits_may_come_before_the_fleet_tells_of_their_tracepoint() {
    let mut script = Script { state: State::default() };
    script.event(Event::Text { path: file(), version: 1, text: TEXT.into() });
    let items = vec![StreamItem::Layout(Box::new(layout())), hit(1, "web-1", 3)];
    script.event(Event::Stream(message(items)));
    script.event(Event::Fleet(Box::new(fleet(vec![probe("web-1", Armed, 0)]))));
    script.settle(Some(4), None);
    assert_eq!(script.lenses(), [(4, "web-1: 1 hit · armed in 1 process".to_owned())]);
    assert_eq!(script.hints(), [(4, "n=3".to_owned())]);
}

#[test]
fn layouts_that_were_sent_before_are_fetched_once() {
    let mut script = Script::new(vec![probe("web-1", Armed, 0)]);
    script.settle(Some(4), None);
    let fetch = [Effect::FetchLayouts { session: session() }];
    assert_eq!(script.event(Event::Stream(message(vec![hit(1, "web-1", 3), hit(2, "web-1", 4)]))), fetch);
    assert_eq!(script.event(Event::Stream(message(vec![hit(3, "web-1", 5)]))), [], "it is under way");
    assert_eq!(script.hints(), [], "bytes without a layout are no values");
    script.event(Event::Layouts { session: session(), layouts: vec![layout()] });
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert_eq!(script.hints(), [(4, "n=5".to_owned())]);

    let mut script = Script::new(vec![probe("web-1", Armed, 0)]);
    assert_eq!(script.event(Event::Stream(message(vec![hit(1, "web-1", 3)]))), fetch);
    script.event(Event::Layouts { session: session(), layouts: vec![] });
    assert_eq!(script.event(Event::Stream(message(vec![hit(2, "web-1", 3)]))), [], "it is not there");
}

#[test]
fn a_closed_document_has_no_diagnostics() {
    let mut script = Script::new(vec![probe("web-1", Refused, 0)]);
    script.settle(Some(4), None);
    script.event(Event::Closed { path: file() });
    script.event(Event::FleetLost);
    assert_eq!(script.event(TICK), [Effect::Refresh]);
    assert!(script.state.document(&file()).is_none());
}

#[test]
fn a_breakpoint_that_no_build_has_is_a_problem_until_it_is_gone() {
    let mut script = Script { state: State::default() };
    script.event(Event::Text { path: file(), version: 1, text: TEXT.into() });
    let set = |lines: &[u32]| Event::Breakpoints(lines.iter().map(|&line| (file(), line)).collect());
    script.event(set(&[3, 5]));
    assert_eq!(script.event(TICK), [Effect::Refresh], "without a fleet there is nobody to ask");
    let mut view = fleet(vec![]);
    view.tracepoints.clear();
    script.event(Event::Fleet(Box::new(view.clone())));
    let judge = |line| Effect::Judge { path: file(), line, builds: vec![build()] };
    assert_eq!(script.event(TICK), [judge(3), judge(5)]);
    assert_eq!(script.event(TICK), [], "asked only once");
    script.event(Event::Judged { path: file(), line: 3, problem: Some("why".into()) });
    script.event(Event::Judged { path: file(), line: 5, problem: None });
    let publish = |problems: &[(u32, &str)]| {
        let problem = |&(line, message): &(u32, &str)| Problem { line, message: message.to_owned() };
        Effect::Publish { path: file(), problems: problems.iter().map(problem).collect() }
    };
    assert_eq!(script.event(TICK), [Effect::Refresh, publish(&[(3, "why")])]);

    script.event(Event::Text { path: file(), version: 2, text: TEXT.into() });
    assert_eq!(script.event(TICK), [judge(3), judge(5), Effect::Refresh], "a changed text is judged again");
    script.event(set(&[5]));
    script.event(Event::Judged { path: file(), line: 3, problem: Some("why".into()) });
    assert_eq!(script.event(TICK), [Effect::Refresh, publish(&[])]);
}

//! What the language server knows: documents, tracepoints, hits, and where they are in the local text.
//!
//! ```text
//! Opened/Changed/Closed ─┐                      ┌─> Map: where is this site in the local text? (answer: Mapped)
//! Breakpoints ───────────┤                      ├─> Judge: has any build this line? (answer: Judged)
//! Fleet/FleetLost ───────┼─> State ─> on Tick ──┼─> Refresh: hints and lenses have changed
//! Stream/Layouts ────────┘      │               └─> Publish: the diagnostics of a document have changed
//!                               └─> on Stream ────> FetchLayouts: hits whose layout was sent before we listened
//! ```
//! Whatever arrives between two ticks is answered at the next one, so that a storm of hits costs no more than a few
//! refreshes a second.
//!
//! Invariants
//! - No IO, no clock: a tick brings the time along. Every `Map`, `Judge` and `FetchLayouts` is answered by exactly one event, even when it failed.
//! - Everything is bounded; what is forgotten is only what the fleet does not have any more, or the oldest.
//! - Values are decoded when they are shown: a hit costs a reference count here.

use super::rate::{Counts, Rate};
use super::text::Text;
use crate::lines::Local;
use riptrace_protocol::fleet::{BuildFacts, FleetView, ProbeState, ProbeStatus, TracepointStatus};
use riptrace_protocol::ids::{BuildId, HostName, LayoutId, SessionId, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::location::Location;
use riptrace_protocol::stream::{OrderedHit, StreamItem, StreamMessage};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Tracepoints that are followed, at most; a fleet view with more is cut.
const TRACEPOINTS_MAX: usize = 2048;
/// Last hits that are kept for a look at their values, per tracepoint, at most: what a person reads at a glance.
const RECENT_MAX: usize = 64;
/// Hosts whose last hit is kept, per tracepoint, at most.
const HOSTS_MAX: usize = 256;
/// Layouts that are kept, at most; when there are more, all are forgotten and fetched again where needed.
const LAYOUTS_MAX: usize = 4096;
/// Breakpoints of the editor that are judged, at most.
const BREAKPOINTS_MAX: usize = 1024;
/// Reasons that a diagnostic names before it counts the rest.
const REASONS_MAX: usize = 3;
/// Answers of the fleet without a tracepoint after which its hits are forgotten: hits may be faster than the answer.
const ABSENT_MAX: u8 = 2;

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// The editor opened a document or changed it.
    Text { path: PathBuf, version: i32, text: String },
    /// The editor closed a document.
    Closed { path: PathBuf },
    /// The fleet, as the coordinator sees it.
    Fleet(Box<FleetView>),
    /// The coordinator is not heard.
    FleetLost,
    /// A message of a session's stream.
    Stream(Box<StreamMessage>),
    /// Answer to [`Effect::FetchLayouts`].
    Layouts { session: SessionId, layouts: Vec<Layout> },
    /// Answer to [`Effect::Map`]; `None` when the site is in no local file.
    Mapped { site: Site, local: Option<Local> },
    /// What can be read on lines of a document, for a person, as long as its text is of this version.
    Traceable { path: PathBuf, version: i32, lines: BTreeMap<u32, String> },
    /// That is not to be seen any more.
    TraceableHidden { path: PathBuf },
    /// All breakpoints of the editor: files and lines, from 1.
    Breakpoints(BTreeSet<(PathBuf, u32)>),
    /// Answer to [`Effect::Judge`]; `None` when a build may have the line.
    Judged { path: PathBuf, line: u32, problem: Option<String> },
    /// Time to answer: how much of it has passed since the beginning.
    Tick(Duration),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Find a site in the local text. Answered with [`Event::Mapped`].
    Map { site: Site, build: Option<Box<BuildFacts>> },
    /// Read the layouts that a session's stream began with. Answered with [`Event::Layouts`].
    FetchLayouts { session: SessionId },
    /// Find out whether a line of a document is in any of these builds. Answered with [`Event::Judged`].
    Judge { path: PathBuf, line: u32, builds: Vec<BuildFacts> },
    /// Ask the editor to fetch hints and lenses again.
    Refresh,
    /// Show the diagnostics of a document.
    Publish { path: PathBuf, problems: Vec<Problem> },
}

/// A line of a build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Site {
    /// `None` where no process runs that could have it.
    pub(super) build: Option<BuildId>,
    pub(super) file: String,
    pub(super) line: u32,
}

/// A line of a document that cannot be traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Line, from 1.
    pub(super) line: u32,
    pub(super) message: String,
}

/// A tracepoint on a line.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) status: &'a TracepointStatus,
    /// The last hit of each host that was seen, with the count of those seen.
    pub(super) hosts: &'a BTreeMap<HostName, Seen>,
    /// The last hits, newest first.
    pub(super) recent: &'a VecDeque<Arc<OrderedHit>>,
    /// How fast its counts grow, where that is known.
    pub(super) rate: Option<Rate>,
    /// What is not certain about the line.
    pub(super) note: Option<String>,
}

/// Hits of one tracepoint on one host.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How many passed by since we listen.
    pub(super) hits: u64,
    /// How many were missing since we listen.
    pub(super) dropped: u64,
    pub(super) last: Option<Arc<OrderedHit>>,
}

#[derive(Debug)]
struct Document {
    version: i32,
    text: Text,
    problems: Vec<Problem>,
}

/// Where a site is in the local text.
#[derive(Debug, Default)]
struct Mapping {
    /// The last answer.
    local: Option<Local>,
    /// The text has changed since it was asked for, or it was never asked for.
    stale: bool,
    /// Asked, and not answered yet.
    asked: bool,
    /// A tracepoint has it.
    used: bool,
}

/// A breakpoint of the editor, which no tracepoint may stand for.
#[derive(Debug, Default)]
struct Breakpoint {
    /// Why no build has its line.
    problem: Option<String>,
    /// As with [`Mapping`].
    stale: bool,
    asked: bool,
}

#[derive(Debug, Default)]
struct Tracked {
    status: Option<TracepointStatus>,
    hosts: BTreeMap<HostName, Seen>,
    recent: VecDeque<Arc<OrderedHit>>,
    counts: Counts,
    /// Of the last tick.
    rate: Option<Rate>,
    absent: u8,
    /// Where it is, as far as the fleet says.
    sites: BTreeSet<Site>,
}

/// The whole state.
#[derive(Debug, Default)]
pub(super) struct State {
    documents: HashMap<PathBuf, Document>,
    tracepoints: BTreeMap<TracepointId, Tracked>,
    builds: HashMap<BuildId, BuildFacts>,
    /// What the processes that run a build are called.
    services: HashMap<BuildId, BTreeSet<String>>,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    /// Layouts that were asked for and not found: not asked for again.
    lost_layouts: HashSet<LayoutId>,
    fetching: HashSet<SessionId>,
    mappings: HashMap<Site, Mapping>,
    breakpoints: BTreeMap<(PathBuf, u32), Breakpoint>,
    /// What somebody asked to see of lines, until the text changes.
    traceable: HashMap<PathBuf, BTreeMap<u32, String>>,
    /// Something that is shown has changed since the last tick.
    changed: bool,
}

/// Takes in one event.
pub(super) fn handle(state: &mut State, event: Event, effects: &mut Vec<Effect>) {
    match event {
        Event::Text { path, version, text } => state.text(path, version, text),
        Event::Closed { path } => {
            state.traceable.remove(&path);
            state.documents.remove(&path);
        }
        Event::Fleet(view) => state.fleet(*view),
        Event::FleetLost => state.fleet_lost(),
        Event::Stream(message) => state.stream(*message, effects),
        Event::Layouts { session, layouts } => state.fetched(&session, layouts),
        Event::Mapped { site, local } => state.mapped(&site, local),
        Event::Breakpoints(all) => state.all_breakpoints(all),
        Event::Traceable { path, version, lines } => {
            if state.version(&path) == Some(version) {
                state.changed = true;
                state.traceable.insert(path, lines);
            }
        }
        Event::TraceableHidden { path } => state.changed |= state.traceable.remove(&path).is_some(),
        Event::Judged { path, line, problem } => state.judged(path, line, problem),
        Event::Tick(now) => state.tick(now, effects),
    }
}

impl State {
    fn text(&mut self, path: PathBuf, version: i32, text: String) {
        // Handlers run concurrently: an older text must not replace a newer one.
        if self.documents.get(&path).is_some_and(|known| known.version > version) {
            return;
        }
        // Lines have moved.
        self.traceable.remove(&path);
        let opened = !self.documents.contains_key(&path);
        for ((of, _), breakpoint) in &mut self.breakpoints {
            breakpoint.stale |= *of == path;
        }
        for mapping in self.mappings.values_mut() {
            match &mapping.local {
                Some(local) if local.path == path => mapping.stale = true,
                // A document that was just opened may bring a module that was not known.
                None if opened => mapping.stale = true,
                _ => {}
            }
        }
        let problems = self.documents.remove(&path).map(|document| document.problems).unwrap_or_default();
        self.documents.insert(path, Document { version, text: Text::from(text), problems });
        self.changed = true;
    }

    fn fleet(&mut self, view: FleetView) {
        let processes = view.hosts.iter().flat_map(|host| &host.profile.processes);
        self.services.clear();
        for process in processes.clone() {
            self.services.entry(process.build.id.clone()).or_default().insert(process.service.clone());
        }
        let builds: HashMap<_, _> =
            processes.map(|process| (process.build.id.clone(), process.build.clone())).collect();
        if builds != self.builds {
            self.builds = builds;
            self.mappings.values_mut().for_each(|mapping| mapping.stale = true);
            self.breakpoints.values_mut().for_each(|breakpoint| breakpoint.stale = true);
        }
        for tracked in self.tracepoints.values_mut() {
            tracked.absent = tracked.absent.saturating_add(1);
        }
        for status in view.tracepoints.into_iter().take(TRACEPOINTS_MAX) {
            let tracked = self.tracepoints.entry(status.tracepoint.clone()).or_default();
            tracked.absent = 0;
            if tracked.status.as_ref() != Some(&status) {
                tracked.sites = sites(&status);
                if tracked.status.as_ref().is_some_and(|before| is_of_others(before, &status)) {
                    tracked.counts.forget();
                }
                tracked.status = Some(status);
                self.changed = true;
            }
        }
        let before = self.tracepoints.len();
        for tracked in self.tracepoints.values_mut().filter(|tracked| tracked.absent > 0) {
            self.changed |= tracked.status.take().is_some();
            tracked.sites.clear();
        }
        self.tracepoints.retain(|_, tracked| tracked.absent < ABSENT_MAX);
        self.changed |= self.tracepoints.len() != before;
    }

    /// Without the coordinator nothing is known: what was shown may be over.
    fn fleet_lost(&mut self) {
        self.changed |= !self.tracepoints.is_empty();
        self.tracepoints.clear();
        self.builds.clear();
        self.services.clear();
        for breakpoint in self.breakpoints.values_mut() {
            self.changed |= breakpoint.problem.take().is_some();
        }
    }

    fn stream(&mut self, message: StreamMessage, effects: &mut Vec<Effect>) {
        let mut unknown = false;
        for item in message.items {
            match item {
                StreamItem::Layout(layout) => self.layout(*layout),
                StreamItem::Hit(hit) => {
                    let layout = hit.raw.layout;
                    unknown |= !self.layouts.contains_key(&layout) && !self.lost_layouts.contains(&layout);
                    let hit: Arc<OrderedHit> = Arc::from(hit);
                    if let Some(seen) = self.seen(&hit.raw.tracepoint, &hit.host) {
                        seen.hits += 1;
                        seen.last = Some(Arc::clone(&hit));
                        self.changed = true;
                    }
                    if let Some(tracked) = self.tracepoints.get_mut(&hit.raw.tracepoint) {
                        tracked.recent.truncate(RECENT_MAX - 1);
                        tracked.recent.push_front(hit);
                    }
                }
                StreamItem::Drop(drop) => {
                    if let Some(tracepoint) = &drop.tracepoint
                        && let Some(seen) = self.seen(tracepoint, &drop.host)
                    {
                        seen.dropped = seen.dropped.saturating_add(drop.count);
                        self.changed = true;
                    }
                }
                StreamItem::Frames(_) => {}
            }
        }
        if unknown && self.fetching.insert(message.session.clone()) {
            effects.push(Effect::FetchLayouts { session: message.session });
        }
    }

    fn seen(&mut self, tracepoint: &TracepointId, host: &HostName) -> Option<&mut Seen> {
        if self.tracepoints.len() >= TRACEPOINTS_MAX && !self.tracepoints.contains_key(tracepoint) {
            return None;
        }
        let tracked = self.tracepoints.entry(tracepoint.clone()).or_default();
        if tracked.hosts.len() >= HOSTS_MAX && !tracked.hosts.contains_key(host) {
            return None;
        }
        Some(tracked.hosts.entry(host.clone()).or_default())
    }

    fn layout(&mut self, layout: Layout) {
        // What does not pass its own check is not used: its hits are shown without values.
        if layout.check().is_err() {
            return;
        }
        if self.layouts.len() >= LAYOUTS_MAX {
            self.layouts.clear();
            self.lost_layouts.clear();
        }
        self.layouts.insert(layout.id(), Arc::new(layout));
        self.changed = true;
    }

    fn fetched(&mut self, session: &SessionId, layouts: Vec<Layout>) {
        self.fetching.remove(session);
        layouts.into_iter().for_each(|layout| self.layout(layout));
        let hits = self.tracepoints.values().flat_map(|tracked| tracked.hosts.values()).filter_map(|s| s.last.as_ref());
        let lost: Vec<LayoutId> =
            hits.map(|hit| hit.raw.layout).filter(|layout| !self.layouts.contains_key(layout)).collect();
        if self.lost_layouts.len() >= LAYOUTS_MAX {
            self.lost_layouts.clear();
        }
        self.lost_layouts.extend(lost);
    }

    fn mapped(&mut self, site: &Site, local: Option<Local>) {
        if let Some(mapping) = self.mappings.get_mut(site) {
            mapping.asked = false;
            self.changed |= mapping.local != local;
            mapping.local = local;
        }
    }

    fn all_breakpoints(&mut self, all: BTreeSet<(PathBuf, u32)>) {
        let before = self.breakpoints.len();
        self.breakpoints.retain(|at, _| all.contains(at));
        self.changed |= self.breakpoints.len() != before;
        for at in all.into_iter().take(BREAKPOINTS_MAX) {
            self.breakpoints.entry(at).or_insert_with(|| Breakpoint { stale: true, ..Breakpoint::default() });
        }
    }

    fn judged(&mut self, path: PathBuf, line: u32, problem: Option<String>) {
        if let Some(breakpoint) = self.breakpoints.get_mut(&(path, line)) {
            breakpoint.asked = false;
            // Without a fleet there is nobody who could have the line, and nothing to say.
            let problem = problem.filter(|_| !self.builds.is_empty());
            self.changed |= breakpoint.problem != problem;
            breakpoint.problem = problem;
        }
    }

    fn judge(&mut self, effects: &mut Vec<Effect>) {
        if self.builds.is_empty() {
            return;
        }
        for ((path, line), breakpoint) in &mut self.breakpoints {
            if breakpoint.stale && !breakpoint.asked && self.documents.contains_key(path) {
                breakpoint.stale = false;
                breakpoint.asked = true;
                let mut builds: Vec<BuildFacts> = self.builds.values().cloned().collect();
                builds.sort_by(|left, right| left.id.cmp(&right.id));
                effects.push(Effect::Judge { path: path.clone(), line: *line, builds });
            }
        }
    }

    /// How fast counts grow: a rate that has changed is shown, also where no hit has come.
    fn rates(&mut self, now: Duration) {
        for tracked in self.tracepoints.values_mut() {
            let Some(status) = tracked.status.as_ref().filter(|status| status.ended.is_none()) else {
                tracked.counts.forget();
                self.changed |= tracked.rate.take().is_some();
                continue;
            };
            let (hits, dropped) =
                counts_by_host(status, &tracked.hosts).values().fold((0, 0), |(hits, dropped): (u64, u64), of| {
                    (hits.saturating_add(of.0), dropped.saturating_add(of.1))
                });
            tracked.counts.look(now, hits, dropped);
            let rate = tracked.counts.rate();
            self.changed |= tracked.rate != rate;
            tracked.rate = rate;
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.rates(now);
        self.mappings.values_mut().for_each(|mapping| mapping.used = false);
        for site in self.tracepoints.values().flat_map(|tracked| &tracked.sites) {
            let mapping =
                self.mappings.entry(site.clone()).or_insert_with(|| Mapping { stale: true, ..Mapping::default() });
            mapping.used = true;
            if mapping.stale && !mapping.asked {
                mapping.stale = false;
                mapping.asked = true;
                let build = site.build.as_ref().and_then(|build| self.builds.get(build)).cloned().map(Box::new);
                effects.push(Effect::Map { site: site.clone(), build });
            }
        }
        self.mappings.retain(|_, mapping| mapping.used || mapping.asked);
        self.judge(effects);
        if !std::mem::take(&mut self.changed) {
            return;
        }
        effects.push(Effect::Refresh);
        let mut paths: Vec<PathBuf> = self.documents.keys().cloned().collect();
        paths.sort();
        for path in paths {
            let problems = self.problems(&path);
            if let Some(document) = self.documents.get_mut(&path)
                && document.problems != problems
            {
                document.problems.clone_from(&problems);
                effects.push(Effect::Publish { path, problems });
            }
        }
    }

    /// Something that is shown has changed.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// The text of an open document.
    pub(super) fn document(&self, path: &Path) -> Option<&Text> {
        self.documents.get(path).map(|document| &document.text)
    }

    /// The version of the text of an open document.
    pub(super) fn version(&self, path: &Path) -> Option<i32> {
        self.documents.get(path).map(|document| document.version)
    }

    /// What was asked to be seen of the lines of a document.
    pub(super) fn traceable(&self, path: &Path) -> Option<&BTreeMap<u32, String>> {
        self.traceable.get(path)
    }

    /// Whether anything runs that could be traced.
    pub(super) fn has_builds(&self) -> bool {
        !self.builds.is_empty()
    }

    /// The builds that run: those of a module, where it is known and any is of it, else all. In the order of their ids.
    pub(super) fn builds_of(&self, module: Option<&str>) -> Vec<BuildFacts> {
        let mut builds: Vec<BuildFacts> = self.builds.values().cloned().collect();
        builds.sort_by(|left, right| left.id.cmp(&right.id));
        if module.is_some() && builds.iter().any(|build| build.module.as_deref() == module) {
            builds.retain(|build| build.module.as_deref() == module);
        }
        builds
    }

    /// What a build is called: the services that run it.
    pub(super) fn services_of(&self, build: &BuildId) -> String {
        let services = self.services.get(build).into_iter().flatten();
        services.map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The layout of a hit, once it is known.
    pub(super) fn layout_of(&self, hit: &OrderedHit) -> Option<&Layout> {
        self.layouts.get(&hit.raw.layout).map(|layout| &**layout)
    }

    /// The lines of a document that have tracepoints, in order.
    pub(super) fn lines(&self, path: &Path) -> BTreeMap<u32, Vec<Shown<'_>>> {
        let mut lines: BTreeMap<u32, Vec<Shown<'_>>> = BTreeMap::new();
        for tracked in self.tracepoints.values() {
            let Some(status) = &tracked.status else { continue };
            // Builds that have the line at different places may come from the same local line.
            let mut places: BTreeMap<u32, Option<String>> = BTreeMap::new();
            for site in &tracked.sites {
                if let Some(local) = self.mappings.get(site).and_then(|mapping| mapping.local.as_ref())
                    && local.path == path
                    && let Some(line) = local.line
                {
                    let note = local.note.as_ref().map(ToString::to_string);
                    places.entry(line).and_modify(|known| *known = known.take().or(note.clone())).or_insert(note);
                }
            }
            for (line, note) in places {
                lines.entry(line).or_default().push(Shown {
                    status,
                    hosts: &tracked.hosts,
                    recent: &tracked.recent,
                    rate: tracked.rate,
                    note,
                });
            }
        }
        lines
    }

    fn problems(&self, path: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (line, shown) in self.lines(path) {
            let untaken = |status: &TracepointStatus| {
                status.ended.is_none()
                    && !status.probes.iter().any(|p| matches!(p.state, ProbeState::Armed | ProbeState::Pending))
            };
            let messages =
                shown.iter().filter(|shown| untaken(shown.status)).map(|shown| untaken_message(shown.status));
            // Two sessions may ask for the same line: one diagnostic says it.
            let messages: BTreeSet<String> = messages.collect();
            problems.extend(messages.into_iter().map(|message| Problem { line, message }));
        }
        for ((of, line), breakpoint) in &self.breakpoints {
            if let (true, Some(message)) = (of == path, &breakpoint.problem) {
                problems.push(Problem { line: *line, message: message.clone() });
            }
        }
        problems
    }
}

/// The probes that count: processes whose program has no such place at all are left out, unless none has it.
pub(super) fn relevant(status: &TracepointStatus) -> Vec<&ProbeStatus> {
    let relevant: Vec<&ProbeStatus> = status.probes.iter().filter(|p| p.state != ProbeState::Absent).collect();
    if relevant.is_empty() { status.probes.iter().collect() } else { relevant }
}

/// Hits and drops of each host of a tracepoint.
pub(super) fn counts_by_host<'a>(
    status: &'a TracepointStatus,
    seen: &'a BTreeMap<HostName, Seen>,
) -> BTreeMap<&'a HostName, (u64, u64)> {
    let mut hosts: BTreeMap<&HostName, (u64, u64)> = BTreeMap::new();
    for probe in &status.probes {
        let (hits, dropped) = hosts.entry(&probe.process.host).or_default();
        *hits += probe.hits;
        *dropped += probe.dropped;
    }
    // The agents' own counts come about once a second; between two of them, more hits may have been seen here. Both
    // are counts of hits that certainly were: the higher one is the better.
    for (host, seen) in seen {
        let (hits, dropped) = hosts.entry(host).or_default();
        *hits = seen.hits.max(*hits);
        *dropped = seen.dropped.max(*dropped);
    }
    hosts
}

/// Whether counts are of other processes than before: one has ended, or has begun to count anew.
fn is_of_others(before: &TracepointStatus, now: &TracepointStatus) -> bool {
    before.probes.iter().any(|before| {
        let same = now.probes.iter().find(|probe| probe.process == before.process);
        same.is_none_or(|same| same.hits < before.hits || same.dropped < before.dropped)
    })
}

/// Where a tracepoint is: its patched sites; where it was asked for, for processes that do not have it.
fn sites(status: &TracepointStatus) -> BTreeSet<Site> {
    let mut sites = BTreeSet::new();
    for probe in &status.probes {
        for site in &probe.sites {
            sites.insert(Site { build: Some(probe.build.clone()), file: site.file.clone(), line: site.line });
        }
    }
    if let (true, Location::Line { file, line }) = (sites.is_empty(), &status.location) {
        for probe in relevant(status) {
            sites.insert(Site { build: Some(probe.build.clone()), file: file.clone(), line: *line });
        }
        if status.probes.is_empty() {
            sites.insert(Site { build: None, file: file.clone(), line: *line });
        }
    }
    sites
}

/// Why no process takes a tracepoint: each reason once, with the processes that gave it.
fn untaken_message(status: &TracepointStatus) -> String {
    if status.probes.is_empty() {
        return "no running process is meant by this tracepoint: none matches its selector".to_owned();
    }
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for probe in relevant(status) {
        let reason = probe.reason.as_deref().unwrap_or("no reason given");
        let who = format!("{} {}[{}]", probe.process.host, probe.service, probe.process.key.pid);
        reasons.entry(reason).or_default().push(who);
    }
    let more = reasons.len().saturating_sub(REASONS_MAX);
    let reasons = reasons.into_iter().take(REASONS_MAX).map(|(reason, who)| match who.as_slice() {
        [one] => format!("{one}: {reason}"),
        [first, rest @ ..] => format!("{first} and {} more: {reason}", rest.len()),
        [] => reason.to_owned(),
    });
    let more = if more == 0 { String::new() } else { format!("; and {more} more reasons") };
    format!("no running build takes this tracepoint; {}{more}", reasons.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

//! Breakpoints, logpoints and function breakpoints: the editor's sets, and the tracepoints that serve them.
//!
//! The editor always sends the whole set of one file. A breakpoint that is in it again keeps its id and its tracepoint;
//! one that is not is removed from the fleet; one that was changed becomes another tracepoint.

mod past;

use super::super::envelope::Failure;
use super::super::limits::{
    BREAKPOINT_EVENT_INTERVAL, BREAKPOINTS_MAX, CAPTURES_MAX, RETIRED_MAX, SET_BREAKPOINTS_WAIT,
};
use super::super::types::{
    Breakpoint as DapBreakpoint, BreakpointEventBody, BreakpointEventReason, Event as DapEvent, OutputEventCategory,
    ResponseBody, SetBreakpointsArguments, SetBreakpointsResponse, SetExceptionBreakpointsResponse,
    SetFunctionBreakpointsResponse, Source, SourceBreakpoint,
};
use super::event::Effect;
use super::exceptions::Exception;
use super::functions;
use super::mapping::Mapping;
use super::modes::{HitMode, Metric};
use super::state::{Asked, Phase, State, Turn};
use super::status::{Arrived, Folded, fold};
use riptrace_protocol::expression::{self, Expr, Template};
use riptrace_protocol::fleet::TracepointStatus;
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::location::Location;
use riptrace_protocol::tracepoint::{CaptureLimits, HitCondition, Tracepoint};
use riptrace_protocol::value::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// All breakpoints of a session.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    last_id: i64,
    last_tracepoint: u64,
    pub(super) set: BTreeMap<i64, Breakpoint>,
    tracepoints: BTreeMap<TracepointId, Armed>,
    /// Tracepoints that no breakpoint has any more, oldest first; hits of theirs may still be under way.
    retired: VecDeque<TracepointId>,
    pending: Vec<PendingSet>,
}

/// Which set a breakpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The file of this path, as the editor spells it.
    Source(String),
    /// Function breakpoints.
    Functions,
    /// Exception breakpoints.
    Exceptions,
}

pub(super) use crate::lines::Asked as Place;

/// What makes a breakpoint another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) at: At,
    pub(super) condition: Option<String>,
    pub(super) hit_condition: Option<String>,
    pub(super) log_message: Option<String>,
    /// What its hits are for, as the editor names it.
    pub(super) mode: Option<String>,
    /// Which kind of failure it is about.
    pub(super) exception: Option<Exception>,
    /// What is captured besides the variables in scope.
    pub(super) captures: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// As the editor counts.
    Line(i64),
    /// Functions, as the command line names them.
    Functions(Vec<String>),
    /// Nowhere, and why.
    Nowhere(String),
}

#[derive(Debug)]
pub(super) struct Breakpoint {
    owner: Owner,
    source: Option<Source>,
    pub(super) spec: Spec,
    /// What is to be asked of the fleet, or why nothing is.
    pub(super) plan: Result<Plan, String>,
    /// One per place that the line has in the builds.
    tracepoints: Vec<TracepointId>,
    pub(super) mapping: Mapping,
    told: Option<Told>,
    dirty: bool,
}

/// A breakpoint that was understood.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Local file and line; `None` for a function.
    pub(super) local: Option<(String, u32)>,
    /// Functions; none for a line.
    pub(super) functions: Vec<String>,
    hit_condition: Option<HitCondition>,
    pub(super) template: Option<Template>,
    pub(super) mode: HitMode,
}

#[derive(Debug)]
struct Told {
    folded: Folded,
    at: Duration,
}

/// A tracepoint of a breakpoint.
#[derive(Debug)]
struct Armed {
    breakpoint: i64,
    place: Place,
    stage: Stage,
    wanted: bool,
    /// It is not wanted any more, and a newer breakpoint at its place has taken over its hits.
    adopted: bool,
    /// Condition of that breakpoint, which is asked of those hits here.
    recheck: Option<Arc<Expr>>,
    exception: Option<Exception>,
    is_log: bool,
    /// The numbers of its hits, which have no rows then.
    metric: Option<Metric>,
    /// Local file and line of the breakpoint, and the line that was asked of the builds.
    local: Option<(String, u32)>,
    asked: Tracepoint,
    status: Option<TracepointStatus>,
    arrived: Arrived,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Creating,
    Live,
    Refused(String),
    Removing,
    Gone,
}

#[derive(Debug)]
struct PendingSet {
    asked: Asked,
    owner: Owner,
    ids: Vec<i64>,
    deadline: Duration,
}

impl Breakpoints {
    /// When something here is to be done; a status that was told rests so long.
    pub(super) fn deadline(&self, rest: Duration) -> Option<Duration> {
        let answers = self.pending.iter().map(|pending| pending.deadline).min();
        let events = self
            .set
            .iter()
            .filter(|(id, breakpoint)| breakpoint.dirty && !self.is_pending(**id))
            .map(|(_, breakpoint)| breakpoint.told.as_ref().map_or(Duration::ZERO, |told| told.at + rest))
            .min();
        [answers, events].into_iter().flatten().min()
    }

    fn is_pending(&self, id: i64) -> bool {
        self.pending.iter().any(|pending| pending.ids.contains(&id))
    }

    /// Whether a hit of this tracepoint opens the timeline: it is a breakpoint's that is still set, not a logpoint's.
    pub(super) fn opens_timeline(&self, tracepoint: &TracepointId) -> bool {
        self.tracepoints.get(tracepoint).is_some_and(|armed| armed.wanted && !armed.is_log)
    }

    /// Whether a hit of this tracepoint is a logpoint's.
    pub(super) fn is_log(&self, tracepoint: &TracepointId) -> bool {
        self.tracepoints.get(tracepoint).is_some_and(|armed| armed.is_log)
    }

    /// Whether any breakpoint is set that is no logpoint.
    pub(super) fn has_plain(&self) -> bool {
        self.tracepoints.values().any(|armed| (armed.wanted || armed.adopted) && !armed.is_log)
    }

    /// The breakpoint of a tracepoint, if it is still set.
    pub(super) fn of(&self, tracepoint: &TracepointId) -> Option<i64> {
        self.tracepoints.get(tracepoint).filter(|armed| armed.wanted || armed.adopted).map(|armed| armed.breakpoint)
    }

    /// Which kind of failure a tracepoint's hits are.
    pub(super) fn exception_of(&self, tracepoint: &TracepointId) -> Option<Exception> {
        self.tracepoints.get(tracepoint)?.exception
    }

    /// The condition that hits of a tracepoint have to fulfil though it was not asked of them where they happened.
    pub(super) fn recheck(&self, tracepoint: &TracepointId) -> Option<&Expr> {
        self.tracepoints.get(tracepoint)?.recheck.as_deref()
    }

    /// What is measured at a tracepoint; `None` where its hits are shown.
    pub(super) fn measured(&self, tracepoint: &TracepointId) -> Option<&Expr> {
        self.tracepoints.get(tracepoint)?.metric.as_ref().map(Metric::expression)
    }

    /// Takes the value of a hit into the numbers of its tracepoint.
    pub(super) fn measure(&mut self, tracepoint: &TracepointId, value: Option<&Value>) {
        if let Some(metric) = self.tracepoints.get_mut(tracepoint).and_then(|armed| armed.metric.as_mut()) {
            metric.add(value);
        }
    }

    /// The numbers of a tracepoint.
    pub(super) fn metric(&self, tracepoint: &TracepointId) -> Option<&Metric> {
        self.tracepoints.get(tracepoint)?.metric.as_ref()
    }

    /// Counts a return that is not shown.
    pub(super) fn count_passed(&mut self, tracepoint: &TracepointId, is_unreadable: bool) {
        self.arrived(tracepoint, |arrived| {
            if is_unreadable {
                arrived.unreadable += 1;
            } else {
                arrived.without_error += 1;
            }
        });
    }

    /// Whether a tracepoint is, or was, this session's.
    pub(super) fn knows(&self, tracepoint: &TracepointId) -> bool {
        self.tracepoints.contains_key(tracepoint)
    }

    /// The states of the tracepoints that are wanted, as far as they are known.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (&TracepointId, &TracepointStatus)> {
        let wanted = self.tracepoints.iter().filter(|(_, armed)| armed.wanted);
        wanted.filter_map(|(id, armed)| Some((id, armed.status.as_ref()?)))
    }

    /// What has arrived of each tracepoint, with its breakpoint where that is still set.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&TracepointId, Option<i64>, &Arrived)> {
        self.tracepoints.iter().map(|(id, armed)| (id, armed.wanted.then_some(armed.breakpoint), &armed.arrived))
    }

    /// The tracepoints of a breakpoint.
    pub(super) fn tracepoints_of(&self, breakpoint: i64) -> Vec<TracepointId> {
        let is_own = |armed: &Armed| armed.breakpoint == breakpoint && (armed.wanted || armed.adopted);
        let own = self.tracepoints.iter().filter(|(_, armed)| is_own(armed));
        own.map(|(id, _)| id.clone()).collect()
    }

    /// What the editor was last told of a breakpoint.
    pub(super) fn told_message(&self, breakpoint: i64) -> Option<&str> {
        Some(self.set.get(&breakpoint)?.told.as_ref()?.folded.message.as_str())
    }

    /// Local file and line of a tracepoint's breakpoint.
    pub(super) fn local(&self, tracepoint: &TracepointId) -> Option<&(String, u32)> {
        self.tracepoints.get(tracepoint)?.local.as_ref()
    }

    /// Counts a hit.
    pub(super) fn count_hit(&mut self, tracepoint: &TracepointId) {
        self.arrived(tracepoint, |arrived| arrived.hits += 1);
    }

    /// Counts hits that are missing.
    pub(super) fn count_drop(&mut self, tracepoint: &TracepointId, reason: DropReason, count: u64) {
        self.arrived(tracepoint, |arrived| {
            let dropped = arrived.drops.entry(reason).or_default();
            *dropped = dropped.saturating_add(count);
        });
    }

    fn arrived(&mut self, tracepoint: &TracepointId, change: impl FnOnce(&mut Arrived)) {
        if let Some(armed) = self.tracepoints.get_mut(tracepoint) {
            change(&mut armed.arrived);
            if let Some(breakpoint) = self.set.get_mut(&armed.breakpoint) {
                breakpoint.dirty = true;
            }
        }
    }

    fn settled(&self, id: i64) -> bool {
        let Some(breakpoint) = self.set.get(&id) else { return true };
        let created = |tracepoint| self.tracepoints.get(tracepoint).is_none_or(|armed| armed.stage != Stage::Creating);
        !breakpoint.mapping.under_way && breakpoint.tracepoints.iter().all(created)
    }

    fn folded(&self, breakpoint: &Breakpoint, selector: &str, joined: bool) -> Folded {
        let unverified = |message: &str| Folded { verified: false, message: message.to_owned() };
        if let Err(why) = &breakpoint.plan {
            return unverified(why);
        }
        let armed: Vec<&Armed> = breakpoint.tracepoints.iter().filter_map(|id| self.tracepoints.get(id)).collect();
        let statuses: Vec<&TracepointStatus> = armed.iter().filter_map(|armed| armed.status.as_ref()).collect();
        let refused = armed.iter().find_map(|armed| match &armed.stage {
            Stage::Refused(why) => Some(why),
            _ => None,
        });
        let mapping = &breakpoint.mapping;
        match (statuses.is_empty(), refused) {
            (true, Some(why)) => unverified(why),
            (true, None) if breakpoint.mapping.under_way || !armed.is_empty() => unverified("arming"),
            (true, None) if !joined => unverified("not attached to a fleet yet"),
            (true, None) => unverified(&mapping.refused.join("; ")),
            (false, refused) => {
                let mut arrived = Arrived::default();
                armed.iter().for_each(|armed| arrived.add(&armed.arrived));
                let mut folded = fold(&statuses, selector, &arrived);
                let counts_only = breakpoint.plan.as_ref().is_ok_and(|plan| plan.mode == HitMode::Count);
                if counts_only {
                    let probes = || statuses.iter().flat_map(|status| &status.probes);
                    let passages: u64 = probes().map(|probe| probe.hits).sum();
                    let least = if probes().any(|probe| probe.unfinished) { "at least " } else { "" };
                    folded.message.push_str(&format!("; {least}{passages} passages counted"));
                }
                let mut metrics = armed.iter().filter_map(|armed| armed.metric.clone());
                if let Some(mut metric) = metrics.next() {
                    metrics.for_each(|other| metric.merge(&other));
                    folded.message.push_str(&format!("; {}", metric.text()));
                }
                let notes = mapping.notes_of(&statuses);
                for more in refused.into_iter().chain(&mapping.refused).chain(&notes) {
                    folded.message.push_str("; ");
                    folded.message.push_str(more);
                }
                folded
            }
        }
    }
}

impl State {
    /// `modes` are those of the breakpoints, in their order.
    pub(super) fn set_breakpoints(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: SetBreakpointsArguments,
        modes: Vec<Option<String>>,
    ) {
        let Some(path) = arguments.source.path.clone().filter(|path| !path.is_empty()) else {
            let why = "breakpoints can be set in files only: this source has no path";
            return turn.answer(asked, Err(Failure::quiet(why)));
        };
        #[expect(deprecated, reason = "old editors send lines only")]
        let lines = arguments.lines;
        let wanted = arguments.breakpoints.unwrap_or_else(|| {
            let lines = lines.unwrap_or_default().into_iter();
            lines.map(|line| SourceBreakpoint { line, ..SourceBreakpoint::default() }).collect()
        });
        let specs = wanted
            .into_iter()
            .zip(modes.into_iter().chain(std::iter::repeat(None)))
            .map(|(breakpoint, mode)| Spec {
                at: At::Line(breakpoint.line),
                mode,
                condition: meant(breakpoint.condition),
                hit_condition: meant(breakpoint.hit_condition),
                log_message: meant(breakpoint.log_message),
                exception: None,
                captures: Vec::new(),
            })
            .collect();
        let name = path.rsplit('/').next().map(str::to_owned);
        let source = Source { name, path: Some(path.clone()), ..Source::default() };
        self.replace(turn, asked, Owner::Source(path), Some(source), specs);
    }

    /// Replaces the set of one owner.
    pub(super) fn replace(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        owner: Owner,
        source: Option<Source>,
        specs: Vec<Spec>,
    ) {
        if specs.len() > BREAKPOINTS_MAX {
            let why = format!("{} breakpoints in one set, at most {BREAKPOINTS_MAX} are taken", specs.len());
            return turn.answer(asked, Err(Failure::quiet(why)));
        }
        // An older request for the same set is answered with what holds now, before it changes.
        self.answer_sets(turn, |pending| pending.owner == owner);
        let mut old: Vec<i64> =
            self.breakpoints.set.iter().filter(|(_, b)| b.owner == owner).map(|(id, _)| *id).collect();
        let mut ids = Vec::with_capacity(specs.len());
        let mut new = Vec::new();
        for spec in specs {
            let is_same = |known: &Breakpoint| {
                // What was asked to be captured besides is not the editor's to say, so it does not count here.
                Spec { captures: Vec::new(), ..known.spec.clone() } == spec
            };
            let same = old.iter().position(|id| self.breakpoints.set.get(id).is_some_and(is_same));
            let id = match same {
                Some(index) => old.remove(index),
                None => {
                    let id = self.add(owner.clone(), source.clone(), spec);
                    new.push(id);
                    id
                }
            };
            ids.push(id);
        }
        for id in old {
            let removed = self.breakpoints.set.remove(&id);
            for tracepoint in removed.into_iter().flat_map(|breakpoint| breakpoint.tracepoints) {
                self.retire(turn, &tracepoint);
            }
            let orphans = self.breakpoints.tracepoints.values_mut().filter(|armed| armed.breakpoint == id);
            orphans.for_each(|armed| armed.adopted = false);
        }
        for id in new {
            self.adopt(turn, id);
        }
        for &id in &ids {
            self.create(turn, id);
        }
        let deadline = turn.now + SET_BREAKPOINTS_WAIT;
        self.breakpoints.pending.push(PendingSet { asked, owner, ids, deadline });
    }

    fn add(&mut self, owner: Owner, source: Option<Source>, spec: Spec) -> i64 {
        self.breakpoints.last_id += 1;
        let id = self.breakpoints.last_id;
        let plan = self.plan(&owner, &spec);
        let (tracepoints, mapping) = (Vec::new(), Mapping::default());
        let breakpoint = Breakpoint { owner, source, spec, plan, tracepoints, mapping, told: None, dirty: false };
        self.breakpoints.set.insert(id, breakpoint);
        id
    }

    /// Understands what was asked, before anything is asked of the fleet.
    fn plan(&self, owner: &Owner, spec: &Spec) -> Result<Plan, String> {
        let local = match (owner, &spec.at) {
            (Owner::Source(path), At::Line(line)) => {
                let file = self.client.path_in(path).map_err(|error| error.to_string())?;
                let from_one = self.client.line_in(*line).ok_or_else(|| format!("{line} is not a line of a file"))?;
                Some((file, from_one))
            }
            _ => None,
        };
        let functions: Vec<String> = match &spec.at {
            At::Functions(names) => names.iter().map(|name| name.trim().to_owned()).collect(),
            At::Nowhere(why) => return Err(why.clone()),
            At::Line(_) => Vec::new(),
        };
        if functions.iter().any(String::is_empty) {
            return Err("a function breakpoint needs a name".into());
        }
        if let Some(condition) = &spec.condition {
            expression::parse(condition).map_err(|error| format!("condition: {error}"))?;
        }
        let hit_condition = spec.hit_condition.as_deref().map(HitCondition::parse).transpose();
        let hit_condition = hit_condition.map_err(|error| error.to_string())?;
        let template =
            spec.log_message.as_deref().map(Template::parse).transpose().map_err(|error| error.to_string())?;
        let mode = HitMode::of(spec.mode.as_deref(), template.as_ref())?;
        if mode == HitMode::Count && spec.exception.is_some_and(Exception::is_told_by_result) {
            return Err(
                "errors cannot be counted where they happen: which returns have one is seen in their results; \
                        the mode log has a row of each"
                    .to_owned(),
            );
        }
        Ok(Plan { local, functions, hit_condition, template, mode })
    }

    /// Asks the fleet for a breakpoint that has no tracepoint yet: a function by its name, a line once it is known where
    /// the builds have it.
    fn create(&mut self, turn: &mut Turn<'_>, id: i64) {
        let Some(breakpoint) = self.breakpoints.set.get(&id).filter(|_| self.phase == Phase::Joined) else { return };
        let Ok(plan) = &breakpoint.plan else { return };
        if !breakpoint.tracepoints.is_empty() || self.attachment.is_recording {
            return;
        }
        if plan.functions.is_empty() {
            return self.map(turn, id);
        }
        let selector = self.attachment.config.selector.clone().unwrap_or_default();
        let place = |name: &String| Place {
            location: functions::location(name),
            selector: selector.clone(),
            source: Vec::new(),
        };
        let places = plan.functions.iter().map(place).collect();
        self.reconcile(turn, id, places);
    }

    /// Makes the tracepoints of a breakpoint those of `places`.
    pub(super) fn reconcile(&mut self, turn: &mut Turn<'_>, id: i64, mut places: Vec<Place>) {
        let Some(breakpoint) = self.breakpoints.set.get_mut(&id) else { return };
        let known = &self.breakpoints.tracepoints;
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut breakpoint.tracepoints).into_iter().partition(|tracepoint| {
                let place = known.get(tracepoint).map(|armed| &armed.place);
                let at = places.iter().position(|wanted| Some(wanted) == place);
                at.map(|at| places.remove(at)).is_some()
            });
        breakpoint.tracepoints = kept;
        breakpoint.dirty = true;
        for tracepoint in gone {
            self.retire(turn, &tracepoint);
        }
        for place in places {
            self.ask_for(turn, id, place);
        }
    }

    /// Asks the fleet for one place of a breakpoint.
    fn ask_for(&mut self, turn: &mut Turn<'_>, id: i64, place: Place) {
        let Some(session) = &self.attachment.session else { return };
        let Some(breakpoint) = self.breakpoints.set.get_mut(&id) else { return };
        let Ok(plan) = &breakpoint.plan else { return };
        self.breakpoints.last_tracepoint += 1;
        let name = format!("{session}-{}", self.breakpoints.last_tracepoint);
        let tracepoint = match TracepointId::new(name) {
            Ok(tracepoint) => tracepoint,
            Err(error) => {
                breakpoint.plan = Err(error.to_string());
                return;
            }
        };
        let config = &self.attachment.config;
        let defaults = CaptureLimits::default();
        let limits = CaptureLimits { rate_per_s: config.rate_per_s.unwrap_or(defaults.rate_per_s), ..defaults };
        let wanted = Tracepoint {
            id: tracepoint.clone(),
            location: place.location.clone(),
            selector: place.selector.clone(),
            condition: breakpoint.spec.condition.clone(),
            hit_condition: plan.hit_condition,
            log_message: breakpoint.spec.log_message.clone(),
            captures: breakpoint.spec.captures.clone(),
            mode: plan.mode.at_target(),
            limits,
            source: place.source.clone(),
        };
        self.dictionaries.set_message(&tracepoint, plan.template.clone());
        let armed = Armed {
            breakpoint: id,
            place,
            stage: Stage::Creating,
            wanted: true,
            adopted: false,
            recheck: None,
            exception: breakpoint.spec.exception,
            is_log: !plan.mode.opens_timeline(),
            metric: plan.template.as_ref().filter(|_| plan.mode == HitMode::Metric).and_then(Metric::of),
            local: plan.local.clone(),
            asked: wanted.clone(),
            status: None,
            arrived: Arrived::default(),
        };
        breakpoint.tracepoints.push(tracepoint.clone());
        self.breakpoints.tracepoints.insert(tracepoint, armed);
        let is_function = matches!(wanted.location, Location::Function { .. });
        let builds = if is_function { self.builds_meant() } else { Vec::new() };
        turn.effect(Effect::Create { tracepoint: wanted, builds });
    }

    /// Asks the fleet for all breakpoints that were set before it was joined.
    pub(super) fn create_all(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<i64> = self.breakpoints.set.keys().copied().collect();
        for id in ids {
            self.create(turn, id);
        }
    }

    /// Captures another expression for the coming hits of a breakpoint: its tracepoints are asked for anew, and those it
    /// had keep their hits.
    pub(super) fn capture(&mut self, turn: &mut Turn<'_>, id: i64, expression: String) -> Result<(), String> {
        let Some(breakpoint) = self.breakpoints.set.get_mut(&id) else {
            return Err("the breakpoint of this hit is not set any more".to_owned());
        };
        if breakpoint.spec.captures.contains(&expression) {
            return Err(format!("{expression} is captured already"));
        }
        if breakpoint.spec.captures.len() >= CAPTURES_MAX {
            return Err(format!("{CAPTURES_MAX} expressions are captured already, which is the most"));
        }
        breakpoint.spec.captures.push(expression);
        for tracepoint in std::mem::take(&mut breakpoint.tracepoints) {
            self.retire(turn, &tracepoint);
        }
        self.adopt(turn, id);
        self.create(turn, id);
        Ok(())
    }

    /// Removes all tracepoints and asks for them anew.
    pub(super) fn rearm_all(&mut self, turn: &mut Turn<'_>) {
        let tracepoints: Vec<TracepointId> = self
            .breakpoints
            .set
            .values_mut()
            .flat_map(|breakpoint| std::mem::take(&mut breakpoint.tracepoints))
            .collect();
        for tracepoint in tracepoints {
            self.retire(turn, &tracepoint);
        }
        self.create_all(turn);
    }

    /// A tracepoint that no breakpoint wants any more.
    fn retire(&mut self, turn: &mut Turn<'_>, tracepoint: &TracepointId) {
        let Some(armed) = self.breakpoints.tracepoints.get_mut(tracepoint) else { return };
        armed.wanted = false;
        match armed.stage {
            // Removed once its creation was answered: the two must not overtake each other.
            Stage::Creating => {}
            Stage::Live => {
                armed.stage = Stage::Removing;
                turn.effect(Effect::Remove(tracepoint.clone()));
            }
            Stage::Refused(_) | Stage::Removing | Stage::Gone => {}
        }
        self.breakpoints.retired.push_back(tracepoint.clone());
        while self.breakpoints.retired.len() > RETIRED_MAX {
            if let Some(oldest) = self.breakpoints.retired.pop_front() {
                self.breakpoints.tracepoints.remove(&oldest);
                self.dictionaries.set_message(&oldest, None);
            }
        }
    }

    pub(super) fn created(
        &mut self,
        turn: &mut Turn<'_>,
        tracepoint: &TracepointId,
        outcome: Result<TracepointStatus, String>,
    ) {
        let ended = self.phase == Phase::Ended;
        let Some(armed) = self.breakpoints.tracepoints.get_mut(tracepoint) else {
            // Forgotten by then: nobody would remove it.
            if outcome.is_ok() && !ended {
                turn.effect(Effect::Remove(tracepoint.clone()));
            }
            return;
        };
        armed.stage = match outcome {
            Ok(status) => {
                // A state that was published since then is newer than the answer.
                armed.status.get_or_insert(status);
                Stage::Live
            }
            Err(why) => Stage::Refused(why),
        };
        if !armed.wanted && armed.stage == Stage::Live && !ended {
            armed.stage = Stage::Removing;
            turn.effect(Effect::Remove(tracepoint.clone()));
        }
        if let Some(breakpoint) = self.breakpoints.set.get_mut(&armed.breakpoint) {
            breakpoint.dirty = true;
        }
    }

    pub(super) fn removed(&mut self, turn: &mut Turn<'_>, tracepoint: &TracepointId, outcome: Result<(), String>) {
        if let Some(armed) = self.breakpoints.tracepoints.get_mut(tracepoint) {
            armed.stage = Stage::Gone;
        }
        if let Err(why) = outcome
            && self.phase == Phase::Joined
        {
            let text = format!("RipTrace: a breakpoint could not be removed from the fleet: {why}");
            turn.note(OutputEventCategory::Stderr, text);
        }
    }

    /// The fleet's states of the session's tracepoints.
    pub(super) fn states_seen(&mut self, statuses: Vec<TracepointStatus>) {
        for status in statuses {
            let Some(armed) = self.breakpoints.tracepoints.get_mut(&status.tracepoint) else { continue };
            if armed.status.as_ref() == Some(&status) {
                continue;
            }
            armed.status = Some(status);
            self.statistics.fleet_changed();
            if let Some(breakpoint) = self.breakpoints.set.get_mut(&armed.breakpoint) {
                breakpoint.dirty = true;
            }
        }
    }

    /// Answers sets that are settled or due, and tells what has changed.
    pub(super) fn breakpoints_due(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let joined = self.phase == Phase::Joined;
        let breakpoints = &self.breakpoints;
        let ready: Vec<i64> = breakpoints
            .pending
            .iter()
            .filter(|set| !joined || set.deadline <= now || set.ids.iter().all(|id| breakpoints.settled(*id)))
            .map(|set| set.asked.seq)
            .collect();
        if !ready.is_empty() {
            self.answer_sets(turn, |pending| ready.contains(&pending.asked.seq));
        }
        let rest = self.rows.rest(BREAKPOINT_EVENT_INTERVAL);
        let due: Vec<i64> = self
            .breakpoints
            .set
            .iter()
            .filter(|(id, breakpoint)| {
                let rested = breakpoint.told.as_ref().is_none_or(|told| told.at + rest <= now);
                breakpoint.dirty && rested && !self.breakpoints.is_pending(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let before = self.breakpoints.set.get(&id).and_then(|b| b.told.as_ref().map(|told| told.folded.clone()));
            let Some(breakpoint) = self.tell(id, now) else { continue };
            let after = self.breakpoints.set.get(&id).and_then(|b| b.told.as_ref().map(|told| told.folded.clone()));
            if before != after {
                let reason = BreakpointEventReason::Changed;
                turn.emit(DapEvent::Breakpoint(BreakpointEventBody { reason, breakpoint }));
            }
        }
    }

    /// Answers all sets with what is known.
    pub(super) fn answer_pending_sets(&mut self, turn: &mut Turn<'_>) {
        self.answer_sets(turn, |_| true);
    }

    fn answer_sets(&mut self, turn: &mut Turn<'_>, which: impl Fn(&PendingSet) -> bool) {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.breakpoints.pending).into_iter().partition(|pending| which(pending));
        self.breakpoints.pending = waiting;
        for PendingSet { asked, owner, ids, .. } in ready {
            let breakpoints = ids.into_iter().filter_map(|id| self.tell(id, turn.now)).collect();
            let body = match owner {
                Owner::Source(_) => ResponseBody::SetBreakpoints(SetBreakpointsResponse { breakpoints }),
                Owner::Functions => {
                    ResponseBody::SetFunctionBreakpoints(SetFunctionBreakpointsResponse { breakpoints })
                }
                Owner::Exceptions => {
                    let breakpoints = Some(breakpoints).filter(|breakpoints: &Vec<_>| !breakpoints.is_empty());
                    ResponseBody::SetExceptionBreakpoints(SetExceptionBreakpointsResponse { breakpoints })
                }
            };
            turn.answer(asked, Ok(Some(body)));
        }
    }

    /// A breakpoint as the editor is told it now.
    fn tell(&mut self, id: i64, now: Duration) -> Option<DapBreakpoint> {
        let selector = self.attachment.config.selector.as_ref().map_or_else(String::new, ToString::to_string);
        let joined = self.phase == Phase::Joined;
        let breakpoint = self.breakpoints.set.get(&id)?;
        let folded = match breakpoint.plan.is_ok() && self.attachment.is_recording {
            true => self.breakpoints.folded_in_recording(id),
            false => self.breakpoints.folded(breakpoint, &selector, joined),
        };
        let breakpoint = self.breakpoints.set.get_mut(&id)?;
        breakpoint.dirty = false;
        breakpoint.told = Some(Told { folded: folded.clone(), at: now });
        // The asked line is echoed: an editor finds its mark by it.
        let line = match breakpoint.spec.at {
            At::Line(line) => Some(line),
            At::Functions(_) | At::Nowhere(_) => None,
        };
        Some(DapBreakpoint {
            id: Some(id),
            verified: folded.verified,
            message: Some(folded.message),
            source: breakpoint.source.clone(),
            line,
            ..DapBreakpoint::default()
        })
    }
}

/// An empty text means nothing.
pub(super) fn meant(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

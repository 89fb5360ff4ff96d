//! What the server asks of the fleet itself: tracepoints of its own, in one session that lives as long as it does, and
//! what a tracepoint on a line would see.
//!
//! The session is opened with the first tracepoint and closed at the end, so that nothing of it outlives the editor. Its
//! hits come back the way all hits do, through the observer.

use super::driver::Shared;
use crate::environment::Environment;
use crate::fleet::{FleetClient, Session, SessionHandle};
use crate::lines::{Asked, InBuild, LineMapper, Plan};
use riptrace_protocol::agent_api::{LineFacts, VariableFacts};
use riptrace_protocol::fleet::{BuildFacts, ProbeState, TracepointStatus};
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::limits::LINES_WITH_VARIABLES_MAX;
use riptrace_protocol::location::{FunctionPoint, Location};
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Builds that a look at a line asks, at most: each is a question to an agent.
const BUILDS_ASKED_MAX: usize = 4;
/// Longest that a look at a line takes: an editor shows a hover while the mouse is still there.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Longest that a build is waited for whose lines are to be shown: its agent may have to read symbols first.
const AROUND_DEADLINE: Duration = Duration::from_secs(10);

/// Local file and line, from 1.
type At = (PathBuf, u32);

/// The server's own tracepoints.
pub(super) struct Traces {
    shared: Shared,
    environment: Arc<dyn Environment>,
    mappers: Arc<Vec<LineMapper>>,
    /// Held while it is opened, so that two commands do not open two.
    session: tokio::sync::Mutex<Option<SessionHandle>>,
    own: Mutex<BTreeMap<At, Vec<TracepointId>>>,
    numbers: std::sync::atomic::AtomicU64,
}

/// What is to be traced on a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) function: bool,
    pub(super) expression: Option<String>,
}

/// What can be read on lines of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Around {
    /// Version of the text whose lines they are.
    pub(super) version: i32,
    /// By line, from 1.
    pub(super) lines: BTreeMap<u32, String>,
}

/// What builds say of one line: each thing once, with the services that say it.
#[derive(Debug, Default)]
struct Said(Vec<(String, Vec<String>)>);

impl Said {
    fn add(&mut self, who: &str, what: String) {
        let known = self.0.iter_mut().find(|(said, _)| *said == what);
        match known {
            Some((_, services)) if services.iter().any(|service| service == who) => {}
            Some((_, services)) => services.push(who.to_owned()),
            None => self.0.push((what, vec![who.to_owned()])),
        }
    }

    fn text(&self) -> String {
        let texts = self.0.iter().map(|(what, who)| format!("{}: {what}", who.join(", ")));
        texts.collect::<Vec<_>>().join("; ")
    }
}

impl Traces {
    pub(super) fn new(shared: Shared, environment: Arc<dyn Environment>, mappers: Arc<Vec<LineMapper>>) -> Traces {
        Traces {
            shared,
            environment,
            mappers,
            session: tokio::sync::Mutex::default(),
            own: Mutex::default(),
            numbers: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn own(&self) -> std::sync::MutexGuard<'_, BTreeMap<At, Vec<TracepointId>>> {
        // Each holder does one insert, remove or look.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server itself traces a line.
    pub(super) fn has(&self, path: &Path, line: u32) -> bool {
        self.own().contains_key(&(path.to_owned(), line))
    }

    /// Asks the fleet for tracepoints; says how it went. The error is a sentence for a person.
    pub(super) async fn trace(&self, path: &Path, line: u32, wish: &Wish) -> Result<String, String> {
        let session = self.session().await?;
        let (mut plan, selector) = self.plan(path, line).await?;
        if !wish.function {
            let text = self.shared.look(|state| state.document(path).map(|text| text.as_str().to_owned()));
            let builds = self.shared.look(|state| state.builds_of(None));
            self.mapper(path)?.add_sources(path, text.as_deref(), &builds, &mut plan).await;
        }
        let refused: Vec<String> = plan.refused.iter().map(|refused| refused.why.to_string()).collect();
        let places = if wish.function { self.functions(plan, &selector).await? } else { plan.places(&selector) };
        if places.is_empty() {
            return Err(match refused.as_slice() {
                [] => "no process of the fleet runs a build that could have this line".to_owned(),
                reasons => format!("no running build has this line: {}", reasons.join("; ")),
            });
        }
        let (_, root_rate) = self.defaults(path);
        let mut statuses = Vec::new();
        let mut made = Vec::new();
        for Asked { location, selector, source } in places {
            let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let id = TracepointId::new(format!("{}-{number}", session.id())).map_err(|error| error.to_string())?;
            let defaults = CaptureLimits::default();
            let tracepoint = Tracepoint {
                id: id.clone(),
                location,
                selector,
                condition: None,
                hit_condition: None,
                log_message: None,
                captures: wish.expression.iter().cloned().collect(),
                mode: Mode::Hit,
                limits: CaptureLimits { rate_per_s: root_rate.unwrap_or(defaults.rate_per_s), ..defaults },
                source,
            };
            made.push(id);
            match session.create(tracepoint).await {
                Ok(status) => statuses.push(status),
                Err(why) => {
                    self.remove_all(&session, made).await;
                    return Err(why.to_string());
                }
            }
        }
        let summary = summary(&statuses);
        if summary.is_err() {
            self.remove_all(&session, made).await;
        } else {
            let replaced = self.own().insert((path.to_owned(), line), made);
            self.remove_all(&session, replaced.unwrap_or_default()).await;
        }
        summary
    }

    /// Removes the server's tracepoints of a line.
    pub(super) async fn stop(&self, path: &Path, line: u32) -> Result<String, String> {
        let own = self.own().remove(&(path.to_owned(), line));
        let Some(own) = own else { return Err("nothing was traced on this line from here".to_owned()) };
        let session = self.session().await?;
        self.remove_all(&session, own).await;
        Ok("the tracepoint is removed".to_owned())
    }

    /// Ends the session with all its tracepoints.
    pub(super) async fn close(&self) {
        if let Some(session) = self.session.lock().await.take() {
            self.own().clear();
            if let Err(why) = session.close().await {
                tracing::warn!("the session was not closed; its tracepoints end with its lease: {why}");
            }
        }
    }

    /// What a tracepoint on a line would see in the builds that run: who, and what, or why not.
    pub(super) async fn look(&self, path: &Path, line: u32) -> Vec<(String, Result<Option<LineFacts>, String>)> {
        let looking = async {
            let client = self.client().ok()?;
            let (plan, _) = self.plan(path, line).await.ok()?;
            let mut found = Vec::new();
            let mut asked = Vec::new();
            for target in &plan.targets {
                asked.extend(target.builds.iter().map(|build| (target.file.clone(), target.line, build.clone())));
            }
            for (file, line, build) in asked.into_iter().take(BUILDS_ASKED_MAX) {
                let who = self.shared.look(|state| state.services_of(&build));
                let facts = client.lines(build, file, line..=line, true).await;
                let facts = facts.map(|reply| reply.lines.into_iter().next()).map_err(|why| why.to_string());
                found.push((who, facts));
            }
            Some(found)
        };
        tokio::time::timeout(LOOK_DEADLINE, looking).await.ok().flatten().unwrap_or_default()
    }

    /// Which lines around one have code in the builds that run, and what can be read there: of each, what every build
    /// says of it, in a few words. Nothing where the text has changed meanwhile.
    pub(super) async fn around(&self, path: &Path, line: u32) -> Result<Around, String> {
        let client = self.client()?;
        let mapper = self.mapper(path)?;
        let module = mapper.module(path).await;
        let builds: Vec<BuildFacts> = self.shared.look(|state| state.builds_of(module.as_deref()));
        let known =
            self.shared.look(|state| state.version(path).zip(state.document(path).map(|it| it.as_str().to_owned())));
        let (version, text) = known.ok_or("the file is not open")?;
        let half = LINES_WITH_VARIABLES_MAX as u32 / 2;
        let range = line.saturating_sub(half).max(1)..=line.saturating_add(half - 1);
        let places = mapper.lines_in_builds(path, range, Some(&text), &builds).await.map_err(|why| why.to_string())?;
        let mut found: BTreeMap<u32, Said> = BTreeMap::new();
        let mut why = "no process of the fleet runs a build that has these lines".to_owned();
        for InBuild { build, file, lines } in places.into_iter().take(BUILDS_ASKED_MAX) {
            let there = lines.iter().map(|(_, there)| *there);
            let (Some(first), Some(last)) = (there.clone().min(), there.max()) else { continue };
            let who = self.shared.look(|state| state.services_of(&build));
            let asked = client.lines(build, file, first..=last, true);
            let facts = match tokio::time::timeout(AROUND_DEADLINE, asked).await {
                Ok(Ok(reply)) => reply.lines,
                Ok(Err(error)) => {
                    why = error.to_string();
                    continue;
                }
                Err(_) => {
                    why = format!("no answer within {} s", AROUND_DEADLINE.as_secs());
                    continue;
                }
            };
            for fact in facts {
                if let Some((local, _)) = lines.iter().find(|(_, there)| *there == fact.line) {
                    found.entry(*local).or_default().add(&who, sees(&fact));
                }
            }
        }
        let lines: BTreeMap<u32, String> = found.into_iter().map(|(line, said)| (line, said.text())).collect();
        if lines.is_empty() { Err(why) } else { Ok(Around { version, lines }) }
    }

    async fn session(&self) -> Result<SessionHandle, String> {
        let mut session = self.session.lock().await;
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        let client = self.client()?;
        let opened = client.open_session(self.environment.new_session_id(), self.environment.viewer()).await;
        let Session { handle, mut events } = opened.map_err(|why| why.to_string())?;
        // The hits are read by the observer; the session's tasks keep its lease as long as somebody listens.
        tokio::spawn(async move { while events.next().await.is_some() {} });
        Ok(session.insert(handle).clone())
    }

    async fn remove_all(&self, session: &SessionHandle, tracepoints: Vec<TracepointId>) {
        for tracepoint in tracepoints {
            if let Err(why) = session.remove(&tracepoint).await {
                tracing::warn!("tracepoint {tracepoint} was not removed; it ends with the session: {why}");
            }
        }
    }

    fn client(&self) -> Result<FleetClient, String> {
        Ok(FleetClient::new(self.shared.bus().ok_or("there is no connection to a fleet")?))
    }

    fn mapper(&self, path: &Path) -> Result<&LineMapper, String> {
        let mapper = self.mappers.iter().find(|mapper| mapper.holds(path)).or_else(|| self.mappers.first());
        mapper.ok_or_else(|| "no folder is open".to_owned())
    }

    /// Where a line is in the builds that run, and which processes a tracepoint means by default.
    async fn plan(&self, path: &Path, line: u32) -> Result<(Plan, Selector), String> {
        let mapper = self.mapper(path)?;
        let (selector, _) = self.defaults(path);
        let module = mapper.module(path).await;
        let builds: Vec<BuildFacts> = self.shared.look(|state| state.builds_of(module.as_deref()));
        let text = self.shared.look(|state| state.document(path).map(|text| text.as_str().to_owned()));
        let plan = mapper.plan(path, line, text.as_deref(), &builds).await.map_err(|why| why.to_string())?;
        Ok((plan, selector))
    }

    /// What the checkout's settings say of tracepoints.
    fn defaults(&self, path: &Path) -> (Selector, Option<Option<u32>>) {
        let folder = path.parent().unwrap_or(path);
        let checkout = self.environment.checkout(folder).unwrap_or_default();
        let selector = checkout.selector.as_deref().and_then(|text| Selector::parse(text).ok());
        (selector.unwrap_or_default(), checkout.rate_per_s)
    }

    /// The functions that a line belongs to in the builds.
    async fn functions(&self, plan: Plan, selector: &Selector) -> Result<Vec<Asked>, String> {
        let client = self.client()?;
        let mut places: Vec<Asked> = Vec::new();
        let builds: Vec<_> = plan.targets.iter().map(|target| target.builds.first().cloned()).collect();
        let mut why = "the line belongs to no function".to_owned();
        for (build, Asked { location, selector, .. }) in builds.into_iter().zip(plan.places(selector)) {
            let (Some(build), Location::Line { file, line }) = (build, location) else { continue };
            match client.lines(build, file, line..=line, true).await {
                Ok(reply) => {
                    if let Some(facts) = reply.lines.into_iter().find(|facts| !facts.function.is_empty()) {
                        let location = Location::Function { name: facts.function, at: FunctionPoint::Call };
                        // A function's arguments are what they are at its entry.
                        let asked = Asked { location, selector, source: Vec::new() };
                        if !places.contains(&asked) {
                            places.push(asked);
                        }
                    }
                }
                Err(error) => why = error.to_string(),
            }
        }
        if places.is_empty() { Err(why) } else { Ok(places) }
    }
}

/// What a tracepoint on a line sees, in a few words.
fn sees(facts: &LineFacts) -> String {
    if let Some(why) = &facts.refused {
        return format!("cannot be traced ({why})");
    }
    let (there, missing): (Vec<_>, Vec<_>) = facts.variables.iter().partition(|variable| variable.missing.is_none());
    let names = |variables: Vec<&VariableFacts>| {
        variables.iter().map(|variable| variable.name.clone()).collect::<Vec<_>>().join(", ")
    };
    match (there.is_empty(), missing.is_empty()) {
        (true, true) => "no variables".to_owned(),
        (false, true) => names(there),
        (true, false) => format!("not {}", names(missing)),
        (false, false) => format!("{}; not {}", names(there), names(missing)),
    }
}

/// In how many processes it is armed; an error when in none.
fn summary(statuses: &[TracepointStatus]) -> Result<String, String> {
    let probes: Vec<_> = statuses.iter().flat_map(super::state::relevant).collect();
    let armed = probes.iter().filter(|probe| probe.state == ProbeState::Armed).count();
    let reason = probes.iter().find_map(|probe| probe.reason.clone());
    match (armed, probes.len(), reason) {
        (_, 0, _) => Err("no process of the fleet is meant: none runs this code now".to_owned()),
        (0, _, Some(why)) => Err(why),
        (0, all, None) => Ok(format!("asked for in {all} processes, which have not answered yet")),
        (armed, all, _) if armed == all => {
            Ok(format!("armed in {armed} {}", if all == 1 { "process" } else { "processes" }))
        }
        (armed, all, why) => Ok(format!("armed in {armed} of {all} processes: {}", why.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::layout::Scope;

    fn variable(name: &str, missing: Option<&str>) -> VariableFacts {
        let (name, missing) = (name.to_owned(), missing.map(str::to_owned));
        VariableFacts { name, type_name: "int".into(), scope: Scope::Local, missing }
    }

    #[test]
    fn a_line_says_what_can_be_read_there_and_what_not() {
        let line = |variables| LineFacts { line: 3, function: "main.f".into(), refused: None, variables };
        assert_eq!(sees(&line(Vec::new())), "no variables");
        assert_eq!(sees(&line(vec![variable("a", None), variable("b", None)])), "a, b");
        assert_eq!(sees(&line(vec![variable("a", None), variable("b", Some("optimised out"))])), "a; not b");
        assert_eq!(sees(&line(vec![variable("b", Some("optimised out"))])), "not b");
        let refused = LineFacts { refused: Some("no room".into()), ..line(Vec::new()) };
        assert_eq!(sees(&refused), "cannot be traced (no room)");
    }

    #[test]
    fn what_builds_agree_on_is_said_once() {
        let mut said = Said::default();
        for (who, what) in [("cart", "a, b"), ("cart", "a, b"), ("stock", "a, b"), ("cart", "a; not b")] {
            said.add(who, what.to_owned());
        }
        assert_eq!(said.text(), "cart, stock: a, b; cart: a; not b");
    }
}

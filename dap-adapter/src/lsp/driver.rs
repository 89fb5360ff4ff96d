//! Runs the effects of the state: line mapping, layouts, refreshes and diagnostics.
//!
//! One task owns the loop; the state is behind a lock that is never held over an `await`, because the protocol's
//! handlers read it too. While an editor answers its refreshes, one is under way at a time, and none more often than
//! [`TICK`].
//!
//! A refresh is never cancelled, whatever ends: tower-lsp panics when an answer comes that nobody waits for any more.

use super::observer::{Observed, fetch_layouts, observe};
use super::state::{Effect, Event, Problem, Site, State, handle};
use super::text::Text;
use crate::environment::{BusTarget, Environment};
use crate::lines::{LineMapper, Local};
use riptrace_protocol::fleet::{BuildFacts, Language};
use riptrace_protocol::ids::BuildId;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// How often the editor is told of changes, at most. VS Code fetches lenses after a pause of 250 ms, and of 1.5 times its
/// average wait for an answer on a busy machine: told more often than it pauses, it would never fetch them.
const TICK: Duration = Duration::from_secs(1);
/// Events of the bus that wait for the state, at most; the observer waits then, and the bus drops for us alone.
const OBSERVED_MAX: usize = 256;
/// Mappings under way at a time: each may run git.
const MAPPINGS_MAX: usize = 4;
/// An editor that has not answered a refresh after this many ticks (five seconds) is asked again.
const REFRESH_TICKS_MAX: u32 = 5;
/// Refreshes that an editor may leave unanswered before it is not asked any more.
const REFRESHES_MAX: usize = 8;

/// What the driver asks of the editor.
pub(super) trait Editor: Send + Sync + 'static {
    /// Asks to fetch hints and lenses again; ends when the editor has answered.
    fn refresh(&self) -> impl Future<Output = ()> + Send;
    /// Shows the diagnostics of a document, whose text is given.
    fn publish(&self, path: &Path, problems: &[Problem], text: &Text) -> impl Future<Output = ()> + Send;
}

/// The state as handlers and driver share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
    /// The connection, once there is one.
    bus: Arc<Mutex<Option<async_nats::Client>>>,
}

impl Shared {
    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Takes in an event at once; what it leads to is done at the next tick.
    pub(super) fn apply(&self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        handle(&mut self.lock(), event, &mut effects);
        effects
    }

    /// The connection to the fleet.
    pub(super) fn bus(&self) -> Option<async_nats::Client> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the next tick tell the editor again.
    fn look_again(&self) {
        self.lock().touch();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A handler that panicked has left a state that is at worst a document behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is dropped.
pub(super) async fn drive<E: Editor>(
    shared: Shared,
    editor: Arc<E>,
    environment: Arc<dyn Environment>,
    folders: Vec<PathBuf>,
    mappers: Arc<Vec<LineMapper>>,
) {
    let target = BusTarget { cwd: folders.into_iter().next().unwrap_or_default(), ..BusTarget::default() };
    let (send, mut observed) = mpsc::channel(OBSERVED_MAX);
    let mut observing = JoinSet::new();
    observing.spawn(observe(environment, target, send));

    let mut driver = Driver {
        shared,
        editor,
        mappers,
        answers: JoinSet::new(),
        waiting: VecDeque::new(),
        refreshing: Vec::new(),
        ticks_waited: 0,
    };
    let begun = tokio::time::Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            now = tick.tick() => Event::Tick(now.duration_since(begun)),
            Some(heard) = observed.recv() => match heard {
                Observed::Connected(bus) => {
                    *driver.shared.bus.lock().unwrap_or_else(PoisonError::into_inner) = Some(bus);
                    continue;
                }
                Observed::Event(event) => event,
            },
            Some(answer) = driver.answers.join_next() => match answer {
                Ok(event) => event,
                Err(why) => {
                    tracing::error!("a task of the language server failed: {why}");
                    continue;
                }
            },
        };
        driver.run(event).await;
    }
}

/// What maps the lines of each folder.
pub(super) fn mappers(environment: &dyn Environment, folders: &[PathBuf]) -> Arc<Vec<LineMapper>> {
    Arc::new(folders.iter().map(|folder| mapper(environment, folder)).collect())
}

/// Rules of the checkout; one that cannot be read is told and does without.
fn mapper(environment: &dyn Environment, folder: &Path) -> LineMapper {
    let rules = match environment.checkout(folder) {
        Ok(defaults) => defaults.substitute_path,
        Err(why) => {
            tracing::warn!("{why}");
            Vec::new()
        }
    };
    LineMapper::new(folder.to_owned(), rules)
}

/// A question about a line, which may run git.
enum Question {
    Map(Site, Option<Box<BuildFacts>>),
    Judge(PathBuf, u32, Vec<BuildFacts>),
}

struct Driver<E> {
    shared: Shared,
    editor: Arc<E>,
    mappers: Arc<Vec<LineMapper>>,
    /// Tasks that end in an event.
    answers: JoinSet<Event>,
    /// Questions about lines that wait for their turn.
    waiting: VecDeque<Question>,
    /// Refreshes that are not answered yet. Dropping a handle does not end its task.
    refreshing: Vec<JoinHandle<()>>,
    /// Since the last of them was asked.
    ticks_waited: u32,
}

impl<E: Editor> Driver<E> {
    async fn run(&mut self, event: Event) {
        for effect in self.shared.apply(event) {
            match effect {
                Effect::Map { site, build } => self.waiting.push_back(Question::Map(site, build)),
                Effect::Judge { path, line, builds } => self.waiting.push_back(Question::Judge(path, line, builds)),
                Effect::FetchLayouts { session } => {
                    let bus = self.shared.bus();
                    self.answers.spawn(async move {
                        let layouts = match bus {
                            Some(bus) => fetch_layouts(bus, session.clone()).await,
                            None => Vec::new(),
                        };
                        Event::Layouts { session, layouts }
                    });
                }
                Effect::Refresh => self.refresh(),
                Effect::Publish { path, problems } => {
                    let text = self.shared.look(|state| state.document(&path).map(|text| text.as_str().to_owned()));
                    self.editor.publish(&path, &problems, &text.unwrap_or_default().into()).await;
                }
            }
        }
        while self.answers.len() < MAPPINGS_MAX
            && let Some(question) = self.waiting.pop_front()
        {
            let (mappers, shared) = (self.mappers.clone(), self.shared.clone());
            self.answers.spawn(async move {
                match question {
                    Question::Map(site, build) => {
                        let local = find_locally(&mappers, &shared, &site, build.as_deref()).await;
                        Event::Mapped { site, local }
                    }
                    Question::Judge(path, line, builds) => {
                        let problem = judge(&mappers, &shared, &path, line, builds).await;
                        Event::Judged { path, line, problem }
                    }
                }
            });
        }
    }

    fn refresh(&mut self) {
        self.refreshing.retain(|refresh| !refresh.is_finished());
        if !self.refreshing.is_empty() {
            self.ticks_waited += 1;
            if self.ticks_waited < REFRESH_TICKS_MAX || self.refreshing.len() >= REFRESHES_MAX {
                // The one under way may have been answered from before this change: ask again.
                self.shared.look_again();
                return;
            }
            tracing::debug!("the editor does not answer a refresh");
        }
        self.ticks_waited = 0;
        let editor = self.editor.clone();
        self.refreshing.push(tokio::spawn(async move { editor.refresh().await }));
    }
}

async fn find_locally(
    mappers: &[LineMapper],
    shared: &Shared,
    site: &Site,
    build: Option<&BuildFacts>,
) -> Option<Local> {
    let nothing_known = unknown_build();
    let build = build.unwrap_or(&nothing_known);
    for mapper in mappers {
        let text = |path: &Path| shared.look(|state| state.document(path).map(|text| text.as_str().to_owned()));
        if let Some(local) = mapper.to_local(&site.file, site.line, build, text).await {
            return Some(local);
        }
    }
    None
}

/// Why no running build of the file's own module has a line. Builds of other modules may have the file too (as a
/// dependency), which only their symbols tell: they are left to the tracepoint itself.
async fn judge(
    mappers: &[LineMapper],
    shared: &Shared,
    path: &Path,
    line: u32,
    mut builds: Vec<BuildFacts>,
) -> Option<String> {
    let mapper = mappers.iter().find(|mapper| mapper.holds(path)).or_else(|| mappers.first())?;
    let module = mapper.module(path).await?;
    builds.retain(|build| build.module.as_ref() == Some(&module));
    if builds.is_empty() {
        return None;
    }
    let text = shared.look(|state| state.document(path).map(|text| text.as_str().to_owned()));
    match mapper.plan(path, line, text.as_deref(), &builds).await {
        Ok(plan) if plan.targets.is_empty() => {
            let reasons: Vec<String> = plan.refused.iter().map(|refused| refused.why.to_string()).collect();
            Some(format!("no running build of {module} has this line; {}", reasons.join("; ")))
        }
        Ok(_) => None,
        Err(why) => Some(why.to_string()),
    }
}

/// A build of which nothing is known: lines are taken as they are, with a note.
fn unknown_build() -> BuildFacts {
    BuildFacts {
        id: BuildId(String::new()),
        language: Language::Go,
        dwarf: false,
        go_version: None,
        module: None,
        module_version: None,
        vcs_revision: None,
        vcs_modified: None,
        settings: Default::default(),
    }
}

//! Runs the effects of the state: line mapping, layouts, refreshes and diagnostics.
//!
//! One task owns the loop; the state is behind a lock that is never held over an `await`, because the protocol's
//! handlers read it too. At most one refresh is under way at a time, and none more often than [`TICK`].

use super::observer::{Observed, fetch_layouts, observe};
use super::state::{Effect, Event, Problem, Site, State, handle};
use crate::environment::{BusTarget, Environment};
use crate::lines::{LineMapper, Local};
use riptrace_protocol::fleet::{BuildFacts, Language};
use riptrace_protocol::ids::BuildId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often the editor is told of changes, at most: three times a second is as often as a person reads.
const TICK: Duration = Duration::from_millis(334);
/// Events of the bus that wait for the state, at most; the observer waits then, and the bus drops for us alone.
const OBSERVED_MAX: usize = 256;
/// Mappings under way at a time: each may run git.
const MAPPINGS_MAX: usize = 4;
/// An editor that has not answered a refresh for this long is asked again.
const REFRESH_DEADLINE: Duration = Duration::from_secs(5);

/// What the driver asks of the editor.
pub(super) trait Editor: Send + Sync + 'static {
    /// Asks to fetch hints and lenses again; ends when the editor has answered.
    fn refresh(&self) -> impl Future<Output = ()> + Send;
    /// Shows the diagnostics of a document, whose text is given.
    fn publish(&self, path: &Path, problems: &[Problem], text: &str) -> impl Future<Output = ()> + Send;
}

/// The state as handlers and driver share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
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
) {
    let mappers: Arc<Vec<LineMapper>> = Arc::new(folders.iter().map(|folder| mapper(&*environment, folder)).collect());
    let target = BusTarget { cwd: folders.into_iter().next().unwrap_or_default(), ..BusTarget::default() };
    let (send, mut observed) = mpsc::channel(OBSERVED_MAX);
    let mut observing = JoinSet::new();
    observing.spawn(observe(environment, target, send));

    let mut driver = Driver {
        shared,
        editor,
        mappers,
        bus: None,
        answers: JoinSet::new(),
        waiting: Vec::new(),
        refreshing: JoinSet::new(),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            _ = tick.tick() => Event::Tick,
            Some(heard) = observed.recv() => match heard {
                Observed::Connected(bus) => {
                    driver.bus = Some(bus);
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

struct Driver<E> {
    shared: Shared,
    editor: Arc<E>,
    mappers: Arc<Vec<LineMapper>>,
    bus: Option<async_nats::Client>,
    /// Tasks that end in an event.
    answers: JoinSet<Event>,
    /// Mappings that wait for their turn.
    waiting: Vec<(Site, Option<Box<BuildFacts>>)>,
    refreshing: JoinSet<()>,
}

impl<E: Editor> Driver<E> {
    async fn run(&mut self, event: Event) {
        let ticked = matches!(event, Event::Tick);
        for effect in self.shared.apply(event) {
            match effect {
                Effect::Map { site, build } => self.waiting.push((site, build)),
                Effect::FetchLayouts { session } => {
                    let bus = self.bus.clone();
                    self.answers.spawn(async move {
                        let layouts = match bus {
                            Some(bus) => fetch_layouts(bus, session.clone()).await,
                            None => Vec::new(),
                        };
                        Event::Layouts { session, layouts }
                    });
                }
                Effect::Refresh => {
                    while self.refreshing.try_join_next().is_some() {}
                    if self.refreshing.is_empty() {
                        let editor = self.editor.clone();
                        self.refreshing.spawn(async move {
                            if tokio::time::timeout(REFRESH_DEADLINE, editor.refresh()).await.is_err() {
                                tracing::debug!("the editor does not answer a refresh");
                            }
                        });
                    } else {
                        // The one under way may have been answered from before this change: ask again.
                        self.shared.look_again();
                    }
                }
                Effect::Publish { path, problems } => {
                    let text = self.shared.look(|state| state.document(&path).unwrap_or_default().to_owned());
                    self.editor.publish(&path, &problems, &text).await;
                }
            }
        }
        if ticked {
            while self.answers.len() < MAPPINGS_MAX
                && let Some((site, build)) = self.waiting.pop()
            {
                let (mappers, shared) = (self.mappers.clone(), self.shared.clone());
                self.answers.spawn(async move {
                    let local = find_locally(&mappers, &shared, &site, build.as_deref()).await;
                    Event::Mapped { site, local }
                });
            }
        }
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
        let text = |path: &Path| shared.look(|state| state.document(path).map(str::to_owned));
        if let Some(local) = mapper.to_local(&site.file, site.line, build, text).await {
            return Some(local);
        }
    }
    None
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
    }
}

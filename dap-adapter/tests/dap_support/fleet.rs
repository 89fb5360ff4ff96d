//! A fleet that does what the test says: two hosts with a process of the service `cart` each, one with a `gateway`.

use futures::future::BoxFuture;
use riptrace_dap_adapter::dap::fleet::{FleetEvents, FleetSession, Fleets, Joined, LinesFailure};
use riptrace_dap_adapter::environment::{BusTarget, CheckoutDefaults};
use riptrace_dap_adapter::fleet::SessionEvent;
use riptrace_protocol::agent_api::{LineFacts, LinesReply};
use riptrace_protocol::coordinator_api::SessionState;
use riptrace_protocol::fleet::{
    BuildFacts, FleetView, HostProfile, HostView, Language, Mechanism, ProbeState, ProbeStatus, ProcessFacts,
    TracepointStatus,
};
use riptrace_protocol::ids::{BuildId, HostName, Incarnation, ProcessId, ProcessKey, SessionId, TracepointId};
use riptrace_protocol::stream::{OrderedHit, StreamItem};
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The fleet and what was asked of it.
pub(crate) struct FakeFleet {
    asked: watch::Sender<Asked>,
    answers: Mutex<Answers>,
    events: Mutex<Option<mpsc::Sender<SessionEvent>>>,
    /// Creations are answered while this is true.
    answering: watch::Sender<bool>,
    /// The hits that were sent, as the fleet's store has them.
    sent: Mutex<Vec<OrderedHit>>,
    /// How often hits were read back.
    pub(crate) read_back: std::sync::atomic::AtomicUsize,
    keeps: std::sync::atomic::AtomicBool,
}

/// What was asked, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) targets: Vec<BusTarget>,
    pub(crate) created: Vec<Tracepoint>,
    pub(crate) removed: Vec<TracepointId>,
    pub(crate) closed: usize,
    /// Builds and files whose lines were asked for.
    pub(crate) lines: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Answers {
    join: Option<String>,
    create: Option<String>,
    defaults: CheckoutDefaults,
    /// Lines with code, by build; `None` for an agent that does not answer.
    lines: BTreeMap<String, Option<Vec<u32>>>,
}

impl FakeFleet {
    pub(crate) fn new() -> Arc<FakeFleet> {
        Arc::new(FakeFleet {
            asked: watch::Sender::default(),
            answers: Mutex::default(),
            events: Mutex::default(),
            answering: watch::Sender::new(true),
            sent: Mutex::default(),
            read_back: Default::default(),
            keeps: Default::default(),
        })
    }

    pub(crate) fn refuse_join(&self, why: &str) {
        self.answers.lock().unwrap().join = Some(why.to_owned());
    }

    pub(crate) fn refuse_creation(&self, why: &str) {
        self.answers.lock().unwrap().create = Some(why.to_owned());
    }

    pub(crate) fn set_defaults(&self, defaults: CheckoutDefaults) {
        self.answers.lock().unwrap().defaults = defaults;
    }

    /// The lines with code that a build has, of whatever file; `None`: its agent does not answer.
    pub(crate) fn set_lines(&self, build: &str, lines: Option<Vec<u32>>) {
        self.answers.lock().unwrap().lines.insert(build.to_owned(), lines);
    }

    /// Answers creations, or lets them wait.
    pub(crate) fn answer_creations(&self, answering: bool) {
        self.answering.send_replace(answering);
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked.borrow().clone()
    }

    /// Waits until what was asked fits.
    pub(crate) async fn until(&self, fits: impl FnMut(&Asked) -> bool) -> Asked {
        let mut asked = self.asked.subscribe();
        let waited = tokio::time::timeout(PATIENCE, asked.wait_for(fits)).await;
        waited.unwrap_or_else(|_| panic!("the fleet was asked only {:#?}", self.asked())).unwrap().clone()
    }

    /// The id of the newest tracepoint.
    pub(crate) fn newest(&self) -> TracepointId {
        self.asked().created.last().expect("a tracepoint was created").id.clone()
    }

    pub(crate) async fn tell(&self, event: SessionEvent) {
        let events = self.events.lock().unwrap().clone().expect("the fleet was joined");
        events.send(event).await.expect("the adapter listens");
    }

    /// Keeps what is sent from here on, so that it can be read back.
    pub(crate) fn keep(&self) {
        self.keeps.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) async fn send(&self, items: Vec<StreamItem>) {
        if self.keeps.load(std::sync::atomic::Ordering::Relaxed) {
            let hits = items.iter().filter_map(|item| match item {
                StreamItem::Hit(hit) => Some(hit.as_ref().clone()),
                _ => None,
            });
            self.sent.lock().unwrap().extend(hits);
        }
        self.tell(SessionEvent::Items(items)).await;
    }

    pub(crate) async fn tell_states(&self, tracepoints: Vec<TracepointStatus>) {
        let state = SessionState { session: session_id(), coordinator: Incarnation(1), tracepoints };
        self.tell(SessionEvent::State(state)).await;
    }
}

fn session_id() -> SessionId {
    SessionId::new("dap-test").unwrap()
}

fn host(name: &str, processes: &[(u32, &str, &str)]) -> HostView {
    let processes = processes.iter().map(|&(pid, service, build)| ProcessFacts {
        key: ProcessKey { pid, start_time: 1 },
        service: service.into(),
        exe: format!("/srv/{service}"),
        build: BuildFacts {
            id: BuildId(build.into()),
            language: Language::Go,
            dwarf: true,
            go_version: Some("go1.22.3".into()),
            module: Some("example.com/shop".into()),
            module_version: None,
            vcs_revision: Some("0123abc".into()),
            vcs_modified: Some(true),
            settings: Default::default(),
        },
        container: None,
        labels: Default::default(),
        refused: None,
    });
    HostView {
        profile: HostProfile {
            host: HostName::new(name).unwrap(),
            incarnation: Incarnation(1),
            version: "0.1.0".into(),
            kernel: "6.1".into(),
            clock_domain: ClockDomain("boot:1".into()),
            labels: Default::default(),
            revision: 1,
            processes: processes.collect(),
        },
        alive: true,
        clock_uncertainty_ns: Some(41_000),
    }
}

pub(crate) fn view() -> FleetView {
    FleetView {
        coordinator: Incarnation(1),
        hosts: vec![
            host("web-1", &[(812, "cart", "go:cart-1"), (900, "gateway", "go:gateway-1")]),
            host("web-2", &[(44, "cart", "go:cart-1")]),
        ],
        tracepoints: Vec::new(),
    }
}

/// The status of a tracepoint that is armed in all processes that it means, but for those of `refused`.
pub(crate) fn status(tracepoint: &Tracepoint, refused: &[(&str, &str)]) -> TracepointStatus {
    let mut probes = Vec::new();
    for host in &view().hosts {
        for process in &host.profile.processes {
            if !tracepoint.selector.matches(&host.profile.host, process) {
                continue;
            }
            let reason =
                refused.iter().find(|(service, _)| *service == process.service).map(|(_, why)| (*why).to_owned());
            probes.push(ProbeStatus {
                tracepoint: tracepoint.id.clone(),
                process: ProcessId { host: host.profile.host.clone(), key: process.key },
                service: process.service.clone(),
                build: process.build.id.clone(),
                state: if reason.is_some() { ProbeState::Refused } else { ProbeState::Armed },
                mechanism: reason.is_none().then_some(Mechanism::Jump),
                sites: Vec::new(),
                reason,
                note: None,
                passages: 0,
                hits: 0,
                dropped: 0,
                unfinished: false,
            });
        }
    }
    TracepointStatus { tracepoint: tracepoint.id.clone(), location: tracepoint.location.clone(), probes, ended: None }
}

/// The way to the fake fleet.
pub(crate) struct Way(pub(crate) Arc<FakeFleet>);

impl Fleets for Way {
    fn checkout(&self, cwd: &Path) -> Result<CheckoutDefaults, String> {
        let mut defaults = self.0.answers.lock().unwrap().defaults.clone();
        if defaults.root.as_os_str().is_empty() {
            defaults.root = cwd.to_owned();
        }
        Ok(defaults)
    }

    fn join(
        &self,
        target: BusTarget,
        session: SessionId,
        viewer: String,
    ) -> BoxFuture<'static, Result<Joined, String>> {
        assert_eq!((session, viewer.as_str()), (session_id(), "ana@laptop"));
        let fleet = self.0.clone();
        fleet.asked.send_modify(|asked| asked.targets.push(target));
        Box::pin(async move {
            let mut answering = fleet.answering.subscribe();
            answering.wait_for(|answering| *answering).await.unwrap();
            if let Some(why) = fleet.answers.lock().unwrap().join.take() {
                return Err(why);
            }
            let (send, receive) = mpsc::channel(64);
            *fleet.events.lock().unwrap() = Some(send);
            Ok(Joined { fleet: view(), session: Arc::new(Session(fleet.clone())), events: Box::new(Events(receive)) })
        })
    }

    fn viewer(&self) -> String {
        "ana@laptop".to_owned()
    }

    fn new_session_id(&self) -> SessionId {
        session_id()
    }
}

struct Session(Arc<FakeFleet>);

impl FleetSession for Session {
    fn fleet(&self) -> BoxFuture<'static, Result<FleetView, String>> {
        Box::pin(async { Ok(view()) })
    }

    fn create(&self, tracepoint: Tracepoint) -> BoxFuture<'static, Result<TracepointStatus, String>> {
        let fleet = self.0.clone();
        fleet.asked.send_modify(|asked| asked.created.push(tracepoint.clone()));
        Box::pin(async move {
            let mut answering = fleet.answering.subscribe();
            answering.wait_for(|answering| *answering).await.unwrap();
            match fleet.answers.lock().unwrap().create.take() {
                Some(why) => Err(why),
                None => Ok(status(&tracepoint, &[("gateway", "no file cart/cart.go in build go:gateway-1")])),
            }
        })
    }

    fn remove(&self, tracepoint: TracepointId) -> BoxFuture<'static, Result<(), String>> {
        self.0.asked.send_modify(|asked| asked.removed.push(tracepoint));
        Box::pin(async { Ok(()) })
    }

    fn hits_before(&self, before: u64, count: usize) -> BoxFuture<'static, Result<Vec<OrderedHit>, String>> {
        let hits = self.0.sent.lock().unwrap();
        let mut hits: Vec<OrderedHit> = hits.iter().filter(|hit| hit.seq < before).cloned().collect();
        hits.drain(..hits.len().saturating_sub(count));
        self.0.read_back.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async { Ok(hits) })
    }

    fn lines(
        &self,
        build: BuildId,
        file: String,
        first: u32,
        last: u32,
    ) -> BoxFuture<'static, Result<LinesReply, LinesFailure>> {
        self.0.asked.send_modify(|asked| asked.lines.push((build.0.clone(), file.clone())));
        let answer = match self.0.answers.lock().unwrap().lines.get(&build.0) {
            None => Err(LinesFailure::Refused(format!("{file} is no file of {build}"))),
            Some(None) => Err(LinesFailure::Unknown("the agent does not answer".into())),
            Some(Some(lines)) => {
                let mut wanted = lines.iter().copied().filter(|line| (first..=last).contains(line));
                let facts = |line| LineFacts { line, function: String::new(), refused: None, variables: Vec::new() };
                // In parts, as of a long file.
                let lines = wanted.by_ref().take(3).map(facts).collect();
                Ok(LinesReply { file, lines, more: wanted.next().is_some() })
            }
        };
        Box::pin(async { answer })
    }

    fn close(&self) -> BoxFuture<'static, Result<(), String>> {
        self.0.asked.send_modify(|asked| asked.closed += 1);
        Box::pin(async { Ok(()) })
    }
}

struct Events(mpsc::Receiver<SessionEvent>);

impl FleetEvents for Events {
    fn next(&mut self) -> BoxFuture<'_, Option<SessionEvent>> {
        Box::pin(self.0.recv())
    }
}

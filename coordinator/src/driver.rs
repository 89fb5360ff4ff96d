//! The coordinator on a real bus: turns NATS into events and effects into NATS. No decision is taken here.
//!
//! ```text
//! heartbeats, API, answers, pongs --control--> +-------+ --> outbox: replies, statuses       (may be lost)
//! trace stream, in its order ------hits------> | state | --> questions, pings: a task each   (always answered)
//! timer, connection ------------------------> +-------+ --> one publisher per session       (repeated until stored)
//!                                                        --> bucket writer: newest record wins
//! ```
//! Control and hits never share a queue. The clocks are read here and nowhere else.

mod api;
mod ask;
mod bus;
mod publish;
mod trace;

use crate::clock::Anchor;
use crate::effect::Effect;
use crate::event::{Event, RequestId};
use crate::limits::{MS, STARTUP_LISTEN_MS};
use crate::state::{self, SavedSession, State, StateConfig};
use async_nats::Client;
use async_nats::connection::State as Connection;
use futures::StreamExt;
use riptrace_protocol::agent_api::Heartbeat;
use riptrace_protocol::coordinator_api::CoordinatorStatus;
use riptrace_protocol::ids::{HostName, Incarnation, SessionId};
use riptrace_protocol::limits::HEARTBEAT_MS;
use riptrace_protocol::subject;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Control events that wait for the state, at most: more than a fleet's answers at one time.
const CONTROL_QUEUE: usize = 4096;
/// Batches that wait for the state, at most: the rest waits in the store.
const HITS_QUEUE: usize = 64;
/// How often the connection is looked at: the client tells changes only to whoever made it.
const CONNECTION_POLL: Duration = Duration::from_millis(50);
/// Events that are handled before effects of time are looked at again.
const BURST_MAX: usize = 256;
/// At the end, how long what was released may take to be published.
const SHUTDOWN_FLUSH: Duration = Duration::from_millis(1_000);

/// How a coordinator is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoordinatorConfig {
    /// Version of RipTrace (`major.minor.patch`), as told to the fleet.
    pub version: String,
}

impl CoordinatorConfig {
    /// The usual configuration of this version.
    pub fn new(version: impl Into<String>) -> CoordinatorConfig {
        CoordinatorConfig { version: version.into() }
    }
}

/// Why a coordinator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// There is one already.
    #[error(
        "another coordinator runs on this bus (riptrace {version}, run {:016x}): stop it first, or use it",
        incarnation.0
    )]
    AnotherCoordinator {
        /// Its run.
        incarnation: Incarnation,
        /// Its version.
        version: String,
    },
    /// The bus does not let us listen.
    #[error("cannot listen on {subject}: {detail}; check the connection and the user's permissions")]
    Subscribe {
        /// Where.
        subject: &'static str,
        /// What the client says.
        detail: String,
    },
    /// The store is not there.
    #[error("cannot use JetStream ({what}): {detail}; start nats-server with JetStream (-js) and let this user use it")]
    JetStream {
        /// What was to be done.
        what: &'static str,
        /// What the client says.
        detail: String,
    },
    /// The micro service cannot be registered.
    #[error("cannot register the service riptrace-coordinator: {detail}")]
    Service {
        /// What the client says.
        detail: String,
    },
    /// The client was closed under us.
    #[error("the connection to NATS was closed for good: start the coordinator again")]
    Closed,
}

/// Coordinator's clock: monotonic nanoseconds since an arbitrary moment.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Not zero at the origin, so that moments a little before it exist.
    const ORIGIN_NS: u64 = 3_600_000_000_000;

    #[expect(clippy::disallowed_methods, reason = "the driver reads the clocks")]
    fn new() -> (Clock, Anchor) {
        let clock = Clock { origin: std::time::Instant::now() };
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let unix_ns = i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX);
        (clock, Anchor { monotonic_ns: Clock::ORIGIN_NS, unix_ns })
    }

    #[expect(clippy::disallowed_methods, reason = "the driver reads the clocks")]
    fn now_ns(self) -> u64 {
        let elapsed = std::time::Instant::now().duration_since(self.origin);
        Clock::ORIGIN_NS.saturating_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Runs the coordinator of a fleet until `shutdown` completes. It survives restarts of the server; its own restart
/// takes up every session where its stream ends.
pub async fn run(
    client: Client,
    config: CoordinatorConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), CoordinatorError> {
    tokio::pin!(shutdown);
    let incarnation = Incarnation(std::collections::hash_map::RandomState::new().build_hasher().finish());
    let (clock, anchor) = Clock::new();
    let mut others = listen(&client, subject::COORDINATOR_STATUS).await?;
    let store = async {
        let alone = alone(&mut others, incarnation, Duration::from_millis(STARTUP_LISTEN_MS));
        let (alone, store) = tokio::join!(alone, bus::Store::open(&client));
        alone?;
        store
    };
    let store = tokio::select! {
        store = store => store?,
        () = &mut shutdown => return Ok(()),
    };
    let heartbeats = listen(&client, subject::STATUS_ALL).await?;
    let (saved, trace_sequence) = store.saved_sessions().await?;
    tracing::info!(sessions = saved.len(), trace_sequence, "coordinator starts");
    let (control, control_in) = mpsc::channel(CONTROL_QUEUE);
    let (hits, hits_in) = mpsc::channel(HITS_QUEUE);
    let (connects, connects_seen) = watch::channel(0u64);
    let mut tasks = JoinSet::new();
    let service = api::serve(&client, &config.version, control.clone(), &mut tasks).await?;
    // A subscription counts once the server has it.
    let flushed = client.flush().await;
    flushed.map_err(|e| CoordinatorError::Subscribe { subject: "riptrace.>", detail: e.to_string() })?;
    tasks.spawn(trace::read(store.clone(), trace_sequence, connects_seen, hits));
    let state_config = StateConfig { incarnation, anchor };
    let mut driver = Driver::new(client, clock, state_config, saved, trace_sequence, store, control, tasks);
    let status = CoordinatorStatus { coordinator: incarnation, version: config.version };
    let inputs = Inputs { others, heartbeats, control: control_in, hits: hits_in, connects, status };
    let ended = driver.drive(inputs, &mut shutdown).await;
    let _ = service.stop().await;
    driver.tasks.shutdown().await;
    ended
}

async fn listen(client: &Client, to: &'static str) -> Result<async_nats::Subscriber, CoordinatorError> {
    let subscriber = client.subscribe(to).await;
    subscriber.map_err(|e| CoordinatorError::Subscribe { subject: to, detail: e.to_string() })
}

/// Listens for another coordinator, and is content when there is none.
async fn alone(
    others: &mut async_nats::Subscriber,
    own: Incarnation,
    listen_for: Duration,
) -> Result<(), CoordinatorError> {
    let heard = async {
        while let Some(message) = others.next().await {
            if let Some(other) = other_coordinator(&message.payload, own) {
                return Err(other);
            }
        }
        Err(CoordinatorError::Closed)
    };
    tokio::time::timeout(listen_for, heard).await.unwrap_or(Ok(()))
}

fn other_coordinator(payload: &[u8], own: Incarnation) -> Option<CoordinatorError> {
    let status: CoordinatorStatus = serde_json::from_slice(payload).ok()?;
    let CoordinatorStatus { coordinator: incarnation, version } = status;
    (incarnation != own).then_some(CoordinatorError::AnotherCoordinator { incarnation, version })
}

/// Host that a subject belongs to, if it is one.
fn host_of(subject: &str) -> Option<HostName> {
    HostName::new(subject.split('.').next()?).ok()
}

/// A control event, or a request with the way to answer it.
enum Input {
    Event(Event),
    Request { body: crate::event::Request, reply: Box<async_nats::service::Request> },
}

/// What wakes the driver.
struct Inputs {
    others: async_nats::Subscriber,
    heartbeats: async_nats::Subscriber,
    control: mpsc::Receiver<Input>,
    hits: mpsc::Receiver<Event>,
    connects: watch::Sender<u64>,
    status: CoordinatorStatus,
}

struct Driver {
    client: Client,
    clock: Clock,
    state: State,
    store: bus::Store,
    control: mpsc::Sender<Input>,
    outbox: mpsc::Sender<publish::Outgoing>,
    records: publish::Records,
    publishers: BTreeMap<SessionId, publish::Publisher>,
    requests: BTreeMap<RequestId, Box<async_nats::service::Request>>,
    next_request: u64,
    tasks: JoinSet<()>,
    effects: Vec<Effect>,
    heartbeats_bad: u64,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "the parts that `run` has made")]
    fn new(
        client: Client,
        clock: Clock,
        config: StateConfig,
        saved: Vec<SavedSession>,
        trace_sequence: u64,
        store: bus::Store,
        control: mpsc::Sender<Input>,
        mut tasks: JoinSet<()>,
    ) -> Driver {
        let outbox = publish::outbox(client.clone(), &mut tasks);
        let records = publish::Records::start(store.clone(), &mut tasks);
        let state = State::new(config, clock.now_ns(), saved, trace_sequence);
        Driver {
            client,
            clock,
            state,
            store,
            control,
            outbox,
            records,
            publishers: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            tasks,
            effects: Vec::new(),
            heartbeats_bad: 0,
        }
    }

    async fn drive(
        &mut self,
        mut inputs: Inputs,
        shutdown: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<(), CoordinatorError> {
        let mut alive = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut connection = (Connection::Connected, self.connects());
        loop {
            let now_ns = self.clock.now_ns();
            let pause = state::next_deadline(&self.state, now_ns).map_or(CONNECTION_POLL, |deadline_ns| {
                Duration::from_nanos(deadline_ns.saturating_sub(now_ns).max(MS)).min(CONNECTION_POLL)
            });
            tokio::select! {
                biased;
                () = &mut *shutdown => break,
                Some(message) = inputs.others.next() => {
                    // Two that started at the same time have not heard each other: the one with the lower number stays.
                    if let Some(other) = other_coordinator(&message.payload, inputs.status.coordinator)
                        && matches!(&other, CoordinatorError::AnotherCoordinator { incarnation, .. }
                            if *incarnation < inputs.status.coordinator)
                    {
                        return Err(other);
                    }
                }
                _ = alive.tick() => {
                    let payload = serde_json::to_vec(&inputs.status).unwrap_or_default();
                    self.send(publish::Outgoing::Publish(subject::COORDINATOR_STATUS.to_owned(), payload));
                }
                message = inputs.heartbeats.next() => match message {
                    Some(message) => self.heartbeat(&message),
                    None => return Err(CoordinatorError::Closed),
                },
                Some(input) = inputs.control.recv() => {
                    self.input(input);
                    for _ in 0..BURST_MAX {
                        let Ok(input) = inputs.control.try_recv() else { break };
                        self.input(input);
                    }
                }
                Some(event) = inputs.hits.recv() => self.handle(event),
                () = tokio::time::sleep(pause) => {}
            }
            connection = self.connection(connection, &inputs.connects)?;
            let now_ns = self.clock.now_ns();
            if state::next_deadline(&self.state, now_ns).is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                self.handle(Event::Tick);
            }
            // Tasks that have ended are let go of.
            while self.tasks.try_join_next().is_some() {}
        }
        self.flush(&mut inputs).await;
        Ok(())
    }

    /// Publishes what was released before the end, so that the next coordinator has less to do again.
    async fn flush(&mut self, inputs: &mut Inputs) {
        let flushed = async {
            while !self.state.is_flushed() {
                let Some(input) = inputs.control.recv().await else { return };
                self.input(input);
            }
            self.records.idle().await;
            let _ = self.client.flush().await;
        };
        if tokio::time::timeout(SHUTDOWN_FLUSH, flushed).await.is_err() {
            tracing::info!("the end of some session streams is left to the next coordinator");
        }
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Tells the state when the bus goes and comes; a quick reconnect counts as both.
    fn connection(
        &mut self,
        (was, connects_were): (Connection, u64),
        told: &watch::Sender<u64>,
    ) -> Result<(Connection, u64), CoordinatorError> {
        let (is, connects) = (self.client.connection_state(), self.connects());
        if was == Connection::Connected && (is != Connection::Connected || connects != connects_were) {
            tracing::warn!("the connection to NATS was lost");
            self.handle(Event::Disconnected);
        }
        let back = is == Connection::Connected && (was != is || connects != connects_were);
        if back {
            tracing::info!("the connection to NATS is there");
            self.handle(Event::Connected);
            told.send_replace(connects);
        }
        Ok((is, connects))
    }

    fn heartbeat(&mut self, message: &async_nats::Message) {
        let heartbeat = serde_json::from_slice::<Heartbeat>(&message.payload).ok();
        match heartbeat.filter(|heartbeat| host_of(&message.subject).as_ref() == Some(&heartbeat.host)) {
            Some(heartbeat) => self.handle(Event::Heartbeat(heartbeat)),
            None => {
                self.heartbeats_bad += 1;
                // Once per power of two: garbage must not fill the log.
                if self.heartbeats_bad.is_power_of_two() {
                    let (subject, count) = (message.subject.as_str(), self.heartbeats_bad);
                    tracing::warn!(subject, count, "not a heartbeat of that host; ignored");
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Request { body, reply } => {
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.requests.insert(request, reply);
                self.handle(Event::Request { request, body });
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        state::handle(&mut self.state, self.clock.now_ns(), event, &mut effects);
        effects.drain(..).for_each(|effect| self.effect(effect));
        self.effects = effects;
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { ask, host, body } => {
                let (client, store, control) = (self.client.clone(), self.store.clone(), self.control.clone());
                self.tasks.spawn(async move {
                    let answer = ask::ask(&client, &store, &host, body).await;
                    let _ = control.send(Input::Event(Event::Answered { ask, answer })).await;
                });
            }
            Effect::Ping { host, is_waited_for } => {
                let (client, control, clock) = (self.client.clone(), self.control.clone(), self.clock);
                let coordinator = self.state.incarnation();
                self.tasks.spawn(async move {
                    let event = ask::ping(&client, coordinator, host, is_waited_for, clock).await;
                    let _ = control.send(Input::Event(event)).await;
                });
            }
            Effect::Reply { request, reply } => {
                if let Some(to) = self.requests.remove(&request) {
                    self.send(publish::Outgoing::Reply(to, api::encode_reply(reply)));
                }
            }
            Effect::PublishStatus(status) => {
                let payload = serde_json::to_vec(&*status).unwrap_or_default();
                self.send(publish::Outgoing::Publish(subject::session_status(&status.session), payload));
            }
            Effect::PublishStream { session, number, message } => {
                let publisher = self.publishers.entry(session.clone()).or_insert_with(|| {
                    publish::Publisher::start(
                        session,
                        self.state.incarnation(),
                        self.store.clone(),
                        self.control.clone(),
                    )
                });
                publisher.publish(number, message);
            }
            Effect::SaveSession(record) => self.records.put(record.session.clone(), Some(*record)),
            Effect::ForgetSession(session) => {
                self.publishers.remove(&session);
                self.records.put(session, None);
            }
            Effect::LoadSession(session) => {
                let (store, control) = (self.store.clone(), self.control.clone());
                self.tasks.spawn(async move {
                    let resume = store.resume(&session).await;
                    let _ = control.send(Input::Event(Event::SessionLoaded { session, resume })).await;
                });
            }
        }
    }

    /// Hands something to the outbox. While the bus is away and the outbox is full, it is lost: the asker's own
    /// deadline has passed by then, and the next status says all.
    fn send(&self, outgoing: publish::Outgoing) {
        if self.outbox.try_send(outgoing).is_err() {
            tracing::debug!("outbox is full: a reply or status is lost");
        }
    }
}

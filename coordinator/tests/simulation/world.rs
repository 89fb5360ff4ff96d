//! The world around the coordinator: true time, a bus that loses, delays, repeats and goes away, agents with clocks of
//! their own, viewers that come and vanish, and a coordinator that is killed and started again. All from one seed.

use crate::agent::{Agent, Domain, MS};
use crate::check::{Stream, Truth};
use crate::rng::Rng;
use riptrace_coordinator::clock::{Anchor, Exchange};
use riptrace_coordinator::effect::{Ask, Effect, ReplyBody, SessionRecord};
use riptrace_coordinator::event::{AskError, AskId, Event, Request, RequestId};
use riptrace_coordinator::state::{self, SavedSession, State, StateConfig, handle, next_deadline, trace_start};
use riptrace_protocol::batch::Batch;
use riptrace_protocol::coordinator_api::{SessionOpen, SessionRef, TracepointCreate, TracepointRemove};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{HostName, Incarnation, SessionId, TracepointId};
use riptrace_protocol::limits::{AGENT_REQUEST_MS, SESSION_RENEW_MS};
use riptrace_protocol::stream::StreamMessage;
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::Tracepoint;
use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{Hash, Hasher};

const START_NS: u64 = 3_600_000 * MS;
const ANCHOR: Anchor = Anchor { monotonic_ns: 0, unix_ns: 1_795_000_000_000_000_000 };
const BATCH_MS: u64 = 50;

/// What happens in the world. `run` is the run of the coordinator that it belongs to: a dead one hears nothing.
#[derive(Debug)]
enum Happening {
    Tick { run: u64 },
    ToCoordinator { run: u64, event: Event },
    AgentAsked { run: u64, ask: AskId, host: HostName, body: Ask },
    AskDeadline { run: u64, ask: AskId },
    Pinged { run: u64, host: HostName, sent_ns: u64 },
    PingDeadline { run: u64, host: HostName, sent_ns: u64 },
    Heartbeat { host: HostName },
    BatchTime { host: HostName },
    Pass { host: HostName },
    TraceStored { batch: Box<Batch> },
    TraceDelivered { run: u64 },
    StreamStored { run: u64, session: SessionId, number: u64, message: Box<StreamMessage> },
    RecordSaved { run: u64, session: SessionId, record: Option<Box<SessionRecord>> },
    SessionRead { run: u64, session: SessionId },
    Viewer { index: usize },
    Trouble,
    CoordinatorStarts,
    AgentStarts { host: HostName },
    BusBack,
}

struct Scheduled {
    at_ns: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ns, self.order) == (other.at_ns, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

/// What a viewer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Create,
    Watch,
    Gone,
}

#[derive(Debug)]
struct Viewer {
    session: SessionId,
    tracepoint: Tracepoint,
    step: Step,
    /// Stays until the end; its hits and drops must add up.
    steady: bool,
    asked: Option<RequestId>,
}

/// How bad the world is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Control messages and pings that are lost, of a hundred.
    pub(crate) loss: u64,
    /// Batches that are lost for good, of a hundred.
    pub(crate) batch_loss: u64,
    /// Batches that are delivered twice, of a hundred.
    pub(crate) repeat: u64,
    /// Longest delay on the bus, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Least and most time between two troubles, in milliseconds; `None`: no crash, no outage.
    pub(crate) trouble_ms: Option<(u64, u64)>,
}

pub(crate) struct World {
    rng: Rng,
    weather: Weather,
    now_ns: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    coordinator: Option<State>,
    run: u64,
    tick_at_ns: u64,
    bus_up: bool,
    pub(crate) agents: BTreeMap<HostName, Agent>,
    /// When each run of an agent began, to tell which one a hit is of.
    incarnations: BTreeMap<HostName, Vec<(u64, Incarnation)>>,
    domain_index: BTreeMap<HostName, usize>,
    next_incarnation: u64,
    /// The store.
    trace: Vec<Batch>,
    trace_read: usize,
    stored_once: BTreeSet<(HostName, Incarnation, u64)>,
    pub(crate) streams: BTreeMap<SessionId, Stream>,
    records: BTreeMap<SessionId, SessionRecord>,
    open_asks: BTreeSet<(u64, AskId)>,
    open_pings: BTreeMap<HostName, u64>,
    viewers: Vec<Viewer>,
    next_request: u64,
    open_requests: BTreeMap<RequestId, (u64, usize)>,
    /// Hits made by each tracepoint, and those of them that the bus lost (with a later batch to tell).
    pub(crate) made: BTreeMap<TracepointId, u64>,
    lost_batches: Vec<Batch>,
    /// Drops told in batches that were stored.
    pub(crate) told: BTreeMap<TracepointId, u64>,
    pub(crate) digest: u64,
    keep_digest: bool,
    passing: bool,
    pub(crate) crashes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather, keep_digest: bool) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            weather,
            now_ns: START_NS,
            queue: BinaryHeap::new(),
            order: 0,
            coordinator: None,
            run: 0,
            tick_at_ns: 0,
            bus_up: true,
            agents: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            domain_index: BTreeMap::new(),
            next_incarnation: 100,
            trace: Vec::new(),
            trace_read: 0,
            stored_once: BTreeSet::new(),
            streams: BTreeMap::new(),
            records: BTreeMap::new(),
            open_asks: BTreeSet::new(),
            open_pings: BTreeMap::new(),
            viewers: Vec::new(),
            next_request: 0,
            open_requests: BTreeMap::new(),
            made: BTreeMap::new(),
            lost_batches: Vec::new(),
            told: BTreeMap::new(),
            digest: 0,
            keep_digest,
            passing: true,
            crashes: 0,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let domains: Vec<Domain> = (0..2)
            .map(|i| Domain {
                name: ClockDomain(format!("boot-{i}")),
                base_ns: i64::try_from(self.rng.range(0, 1 << 50)).unwrap(),
                drift_ppm: i64::try_from(self.rng.range(0, 161)).unwrap() - 80,
            })
            .collect();
        // Two hosts share a clock, as containers of one machine do.
        for (i, domain) in [0usize, 1, 1].into_iter().enumerate() {
            let host = HostName::new(format!("web-{i}")).unwrap();
            self.domain_index.insert(host.clone(), domain);
            let agent = Agent::new(host.as_str(), domains[domain].clone(), self.next_incarnation, self.now_ns);
            self.agents.insert(host.clone(), agent);
            self.agent_born(&host);
            for what in [
                Happening::Heartbeat { host: host.clone() },
                Happening::BatchTime { host: host.clone() },
                Happening::Pass { host: host.clone() },
            ] {
                let delay_ns = self.rng.range(0, 200 * MS);
                self.schedule(delay_ns, what);
            }
        }
        for (i, steady) in [true, false, false].into_iter().enumerate() {
            let json = serde_json::json!({
                "id": format!("t{i}"),
                "location": { "kind": "line", "file": "cart.go", "line": 42 },
                "selector": if i == 1 { "host=web-1" } else { "" },
            });
            let mut tracepoint: Tracepoint = serde_json::from_value(json).unwrap();
            tracepoint.limits.count = (i == 2).then_some(25);
            let session = SessionId::new(format!("s{i}")).unwrap();
            self.viewers.push(Viewer { session, tracepoint, step: Step::Open, steady, asked: None });
            let delay_ns = self.rng.range(0, 3_000 * MS);
            self.schedule(delay_ns, Happening::Viewer { index: i });
        }
        self.schedule(0, Happening::CoordinatorStarts);
        self.next_trouble();
    }

    fn agent_born(&mut self, host: &HostName) {
        let runs = self.incarnations.entry(host.clone()).or_default();
        runs.push((self.now_ns, Incarnation(self.next_incarnation)));
        self.next_incarnation += 1;
    }

    fn next_trouble(&mut self) {
        if let Some((lo_ms, hi_ms)) = self.weather.trouble_ms {
            let delay_ns = self.rng.range(lo_ms, hi_ms) * MS;
            self.schedule(delay_ns, Happening::Trouble);
        }
    }

    fn schedule(&mut self, delay_ns: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at_ns: self.now_ns + delay_ns, order: self.order, what }));
    }

    fn delay_ns(&mut self) -> u64 {
        // Mostly quick, sometimes not.
        let max = if self.rng.chance(80) { self.weather.delay_ms.div_ceil(10) } else { self.weather.delay_ms };
        self.rng.range(20_000, max * MS + 20_001)
    }

    fn lost(&mut self) -> bool {
        !self.bus_up || self.rng.chance(self.weather.loss)
    }

    /// Lets the world go on for so long.
    pub(crate) fn run_for(&mut self, milliseconds: u64) {
        let until_ns = self.now_ns + milliseconds * MS;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at_ns <= until_ns) {
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now_ns = next.at_ns;
            self.happen(next.what);
        }
        self.now_ns = until_ns;
    }

    /// The weather clears up: nothing is lost any more, nobody crashes, and no thread passes a site.
    pub(crate) fn calm(&mut self) {
        self.weather = Weather { loss: 0, batch_loss: 0, repeat: 0, delay_ms: 2, trouble_ms: None };
        self.passing = false;
    }

    /// All viewers vanish without a word.
    pub(crate) fn viewers_vanish(&mut self) {
        self.viewers.iter_mut().for_each(|viewer| viewer.step = Step::Gone);
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Tick { run } => {
                if run == self.run && self.tick_at_ns <= self.now_ns {
                    self.tick_at_ns = u64::MAX;
                    self.coordinator_hears(run, Event::Tick);
                }
            }
            Happening::ToCoordinator { run, event } => self.coordinator_hears(run, event),
            Happening::AgentAsked { run, ask, host, body } => self.agent_asked(run, ask, &host, &body),
            Happening::AskDeadline { run, ask } => {
                if self.open_asks.remove(&(run, ask)) {
                    self.coordinator_hears(run, Event::Answered { ask, answer: Err(AskError::Timeout) });
                }
            }
            Happening::Pinged { run, host, sent_ns } => self.pinged(run, host, sent_ns),
            Happening::PingDeadline { run, host, sent_ns } => {
                if run == self.run && self.open_pings.get(&host) == Some(&sent_ns) {
                    self.open_pings.remove(&host);
                    self.coordinator_hears(run, Event::PingLost { host });
                }
            }
            Happening::Heartbeat { host } => self.heartbeat(host),
            Happening::BatchTime { host } => self.batch_time(host),
            Happening::Pass { host } => self.pass(host),
            Happening::TraceStored { batch } => self.trace_stored(*batch),
            Happening::TraceDelivered { run } => self.trace_delivered(run),
            Happening::StreamStored { run, session, number, message } => {
                self.stream_stored(run, session, number, message);
            }
            Happening::RecordSaved { run, session, record } => {
                if run == self.run && self.coordinator.is_some() {
                    match record {
                        Some(record) => drop(self.records.insert(session, *record)),
                        None => drop(self.records.remove(&session)),
                    }
                }
            }
            Happening::SessionRead { run, session } => {
                let resume = self.resume(&session);
                self.coordinator_hears(run, Event::SessionLoaded { session, resume });
            }
            Happening::Viewer { index } => self.viewer(index),
            Happening::Trouble => self.trouble(),
            Happening::CoordinatorStarts => self.coordinator_starts(),
            Happening::AgentStarts { host } => self.agent_starts(&host),
            Happening::BusBack => {
                self.bus_up = true;
                self.coordinator_hears(self.run, Event::Connected);
            }
        }
    }

    fn resume(&self, session: &SessionId) -> Option<riptrace_protocol::stream::Resume> {
        let stream = self.streams.get(session)?;
        stream.messages.last().map(|message| message.resume.clone())
    }

    fn coordinator_hears(&mut self, run: u64, event: Event) {
        if run != self.run {
            return;
        }
        let Some(state) = &mut self.coordinator else { return };
        let mut effects = Vec::new();
        handle(state, self.now_ns, event, &mut effects);
        if let Some(deadline_ns) = next_deadline(state, self.now_ns) {
            let at_ns = deadline_ns.max(self.now_ns + MS);
            if at_ns < self.tick_at_ns {
                self.tick_at_ns = at_ns;
                self.schedule(at_ns - self.now_ns, Happening::Tick { run });
            }
        }
        for effect in effects {
            if self.keep_digest {
                let mut hasher = DefaultHasher::new();
                (self.digest, self.now_ns, format!("{effect:?}")).hash(&mut hasher);
                self.digest = hasher.finish();
            }
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        let run = self.run;
        match effect {
            Effect::Ask { ask, host, body } => {
                assert!(self.open_asks.insert((run, ask)), "a question's number is used twice");
                self.schedule(AGENT_REQUEST_MS * MS, Happening::AskDeadline { run, ask });
                if !self.lost() {
                    let delay_ns = self.delay_ns();
                    self.schedule(delay_ns, Happening::AgentAsked { run, ask, host, body });
                }
            }
            Effect::Ping { host, is_waited_for: _ } => {
                let sent_ns = self.now_ns;
                assert!(self.open_pings.insert(host.clone(), sent_ns).is_none(), "two pings at a time");
                self.schedule(1_000 * MS, Happening::PingDeadline { run, host: host.clone(), sent_ns });
                if !self.lost() {
                    let delay_ns = self.delay_ns();
                    self.schedule(delay_ns, Happening::Pinged { run, host, sent_ns });
                }
            }
            Effect::Reply { request, reply } => {
                let (_, index) = self.open_requests.remove(&request).expect("a request is answered once");
                if !self.lost() {
                    self.replied(index, request, reply);
                }
            }
            Effect::PublishStream { session, number, message } => {
                let delay_ns = self.delay_ns();
                self.schedule(delay_ns, Happening::StreamStored { run, session, number, message });
            }
            Effect::PublishStatus(state) => {
                for status in &state.tracepoints {
                    let places: Vec<_> = status.probes.iter().map(|probe| &probe.process).collect();
                    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "probes are not sorted");
                }
            }
            Effect::SaveSession(record) => {
                // Written one after the other, so all take equally long.
                let session = record.session.clone();
                self.schedule(5 * MS, Happening::RecordSaved { run, session, record: Some(record) });
            }
            Effect::ForgetSession(session) => {
                self.schedule(5 * MS, Happening::RecordSaved { run, session, record: None });
            }
            Effect::LoadSession(session) => {
                let delay_ns = self.delay_ns();
                self.schedule(delay_ns, Happening::SessionRead { run, session });
            }
        }
    }

    fn agent_asked(&mut self, run: u64, ask: AskId, host: &HostName, body: &Ask) {
        let Some(agent) = self.agents.get_mut(host).filter(|agent| agent.running) else { return };
        let answer = agent.answer(body, &mut self.rng);
        if self.lost() || !self.open_asks.remove(&(run, ask)) {
            return;
        }
        let delay_ns = self.delay_ns();
        self.schedule(delay_ns, Happening::ToCoordinator { run, event: Event::Answered { ask, answer } });
    }

    fn pinged(&mut self, run: u64, host: HostName, sent_ns: u64) {
        let Some(agent) = self.agents.get_mut(&host).filter(|agent| agent.running) else { return };
        agent.pinged_ns = self.now_ns;
        let inside_ns = self.rng.range(1_000, 200_000);
        let (received_ns, clock_domain) = (agent.domain.read(self.now_ns), agent.domain.name.clone());
        let replied_ns = agent.domain.read(self.now_ns + inside_ns);
        if self.lost() {
            return;
        }
        let delay_ns = inside_ns + self.delay_ns();
        let got_ns = self.now_ns + delay_ns;
        if run == self.run && self.open_pings.get(&host) == Some(&sent_ns) && delay_ns < 900 * MS {
            self.open_pings.remove(&host);
            let exchange = Exchange { sent_ns, received_ns, replied_ns, got_ns };
            let event = Event::Pong { host, clock_domain, exchange };
            self.schedule(delay_ns, Happening::ToCoordinator { run, event });
        }
    }

    fn heartbeat(&mut self, host: HostName) {
        let Some(agent) = self.agents.get_mut(&host) else { return };
        if agent.running {
            agent.check_lease(self.now_ns);
            if self.rng.chance(5) && self.passing {
                agent.change_processes(&mut self.rng);
            }
            let heartbeat = agent.heartbeat(false);
            if !self.lost() {
                let delay_ns = self.delay_ns();
                let event = Event::Heartbeat(heartbeat);
                self.schedule(delay_ns, Happening::ToCoordinator { run: self.run, event });
            }
        }
        self.schedule(1_000 * MS, Happening::Heartbeat { host });
    }

    fn batch_time(&mut self, host: HostName) {
        // Nothing happens in the calm: its batches are rarer, which makes the simulation quicker.
        let pause_ms = if self.passing { BATCH_MS } else { 5 * BATCH_MS };
        self.schedule(pause_ms * MS, Happening::BatchTime { host: host.clone() });
        let Some(agent) = self.agents.get_mut(&host).filter(|agent| agent.running) else { return };
        let Some(batch) = agent.batch(self.now_ns) else { return };
        // The first batch of a run is never lost for good: nothing could tell that it was there. And while the steady
        // viewer has no tracepoint, it is not to be told of losses.
        let told = batch.number > 0 && self.viewers[0].step == Step::Watch;
        if told && self.rng.chance(self.weather.batch_loss) {
            self.lost_batches.push(batch);
            return;
        }
        for _ in 0..=u64::from(self.rng.chance(self.weather.repeat)) {
            let delay_ns = self.delay_ns();
            self.schedule(delay_ns, Happening::TraceStored { batch: Box::new(batch.clone()) });
        }
    }

    fn pass(&mut self, host: HostName) {
        let pause_ns = self.rng.range(MS, 60 * MS);
        self.schedule(pause_ns, Happening::Pass { host: host.clone() });
        let Some(agent) = self.agents.get_mut(&host).filter(|agent| agent.running && self.passing) else { return };
        let armed: Vec<TracepointId> = agent.armed.keys().cloned().collect();
        for id in armed {
            if agent.pass(&id, self.now_ns, &mut self.rng).is_some() {
                *self.made.entry(id).or_insert(0) += 1;
            }
        }
    }

    fn trace_stored(&mut self, batch: Batch) {
        if !self.bus_up {
            // Its publisher asks again until the bus is back.
            return self.schedule(300 * MS, Happening::TraceStored { batch: Box::new(batch) });
        }
        // As it is read by others.
        let batch = Batch::decode(&batch.encode().unwrap()).unwrap();
        if !batch.is_watermark() && self.stored_once.insert((batch.host.clone(), batch.incarnation, batch.number)) {
            for drop in &batch.drops {
                *self.told.entry(drop.tracepoint.clone()).or_insert(0) += drop.count;
            }
        }
        self.trace.push(batch);
        let (run, delay_ns) = (self.run, self.delay_ns());
        self.schedule(delay_ns, Happening::TraceDelivered { run });
    }

    /// The next message of the trace stream reaches the coordinator: in order, whatever the delays.
    fn trace_delivered(&mut self, run: u64) {
        if !self.bus_up {
            return self.schedule(300 * MS, Happening::TraceDelivered { run });
        }
        if run != self.run || self.coordinator.is_none() {
            return;
        }
        if let Some(batch) = self.trace.get(self.trace_read).cloned() {
            self.trace_read += 1;
            let trace_sequence = self.trace_read as u64;
            self.coordinator_hears(run, Event::Batch { trace_sequence, batch: Box::new(batch) });
        }
    }

    fn stream_stored(&mut self, run: u64, session: SessionId, number: u64, message: Box<StreamMessage>) {
        if run != self.run {
            return;
        }
        if !self.bus_up {
            return self.schedule(300 * MS, Happening::StreamStored { run, session, number, message });
        }
        let (incarnations, domain_index) = (&self.incarnations, &self.domain_index);
        let truth_of = |host: &HostName, true_ns: u64| {
            let runs = &incarnations[host];
            let (_, incarnation) = runs.iter().rev().find(|(born_ns, _)| *born_ns <= true_ns).unwrap();
            Truth { unix_ns: ANCHOR.unix_ns(true_ns), incarnation: *incarnation, domain: domain_index[host] }
        };
        self.streams.entry(session.clone()).or_default().take(&message, run, truth_of);
        let delay_ns = self.delay_ns();
        let event = Event::StreamPublished { session, number };
        self.schedule(delay_ns, Happening::ToCoordinator { run, event });
    }

    fn request(&mut self, index: usize, body: Request) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.viewers[index].asked = Some(request);
        if self.coordinator.is_some() && !self.lost() {
            self.open_requests.insert(request, (self.now_ns, index));
            self.coordinator_hears(self.run, Event::Request { request, body });
        }
    }

    /// A viewer asks again until it is answered, then goes on; one that is not steady comes and goes.
    fn viewer(&mut self, index: usize) {
        let viewer = &self.viewers[index];
        let (session, tracepoint) = (viewer.session.clone(), viewer.tracepoint.clone());
        let mut again_ms = SESSION_RENEW_MS;
        match viewer.step {
            Step::Open => self.request(index, Request::SessionOpen(SessionOpen { session, viewer: "test".into() })),
            Step::Create => {
                self.request(index, Request::TracepointCreate(TracepointCreate { session, tracepoint }));
            }
            Step::Watch => {
                let whim = self.rng.range(0, 12);
                if viewer.steady || whim > 4 || !self.passing {
                    self.request(index, Request::SessionRenew(SessionRef { session }));
                } else if whim == 0 {
                    self.request(index, Request::SessionClose(SessionRef { session }));
                    self.viewers[index].step = Step::Gone;
                    again_ms = self.rng.range(1_000, 8_000);
                } else if whim == 1 {
                    // Vanishes; its lease will end the session.
                    self.viewers[index].step = Step::Gone;
                    again_ms = self.rng.range(1_000, 20_000);
                } else if whim == 2 {
                    let tracepoint = tracepoint.id;
                    self.request(index, Request::TracepointRemove(TracepointRemove { session, tracepoint }));
                    self.viewers[index].step = Step::Create;
                } else {
                    // The same tracepoint with other content.
                    let mut tracepoint = tracepoint;
                    tracepoint.log_message = Some(format!("message {}", self.next_request));
                    self.viewers[index].tracepoint = tracepoint.clone();
                    self.request(index, Request::TracepointCreate(TracepointCreate { session, tracepoint }));
                }
            }
            Step::Gone if self.passing => self.viewers[index].step = Step::Open,
            Step::Gone => {}
        }
        self.schedule(again_ms * MS, Happening::Viewer { index });
    }

    fn replied(&mut self, index: usize, request: RequestId, reply: Result<ReplyBody, String>) {
        let viewer = &mut self.viewers[index];
        if viewer.asked != Some(request) || viewer.step == Step::Gone {
            return;
        }
        match (viewer.step, &reply) {
            (Step::Open, Ok(_)) => {
                viewer.step = Step::Create;
                self.schedule(0, Happening::Viewer { index });
            }
            (Step::Create, Ok(ReplyBody::Tracepoint(_))) => viewer.step = Step::Watch,
            (_, Err(why)) if why.contains("is not open") => {
                // A crash may take a session along that was not written down yet.
                assert!(!viewer.steady || self.crashes > 0, "a session that was renewed has ended");
                viewer.step = Step::Open;
            }
            _ => {}
        }
    }

    fn trouble(&mut self) {
        self.next_trouble();
        if self.weather.trouble_ms.is_none() {
            return;
        }
        match self.rng.range(0, 4) {
            0 => self.coordinator_dies(),
            1 if self.bus_up => {
                self.bus_up = false;
                self.coordinator_hears(self.run, Event::Disconnected);
                let outage_ns = self.rng.range(200, 4_000) * MS;
                self.schedule(outage_ns, Happening::BusBack);
            }
            2 => {
                // An agent leaves in order, or is killed.
                let hosts: Vec<HostName> = self.agents.keys().cloned().collect();
                let host = hosts[usize::try_from(self.rng.range(0, hosts.len() as u64)).unwrap()].clone();
                let Some(agent) = self.agents.get_mut(&host).filter(|agent| agent.running) else { return };
                agent.running = false;
                if self.rng.chance(50) {
                    agent.armed.clear();
                    let event = Event::Heartbeat(agent.heartbeat(true));
                    if !self.lost() {
                        self.schedule(100_000, Happening::ToCoordinator { run: self.run, event });
                    }
                }
                let pause_ns = self.rng.range(100, 7_000) * MS;
                self.schedule(pause_ns, Happening::AgentStarts { host });
            }
            _ => {}
        }
    }

    fn agent_starts(&mut self, host: &HostName) {
        let Some(old) = self.agents.get(host) else { return };
        let domain = old.domain.clone();
        self.agents.insert(host.clone(), Agent::new(host.as_str(), domain, self.next_incarnation, self.now_ns));
        self.agent_born(host);
    }

    pub(crate) fn coordinator_dies(&mut self) {
        if self.coordinator.take().is_some() {
            self.crashes += 1;
            self.run += 1;
            self.open_asks.clear();
            self.open_pings.clear();
            self.open_requests.clear();
            self.tick_at_ns = u64::MAX;
            let pause_ns = self.rng.range(300, 6_000) * MS;
            self.schedule(pause_ns, Happening::CoordinatorStarts);
        }
    }

    /// As the driver starts it: from the bucket, the streams' ends, and the trace stream.
    fn coordinator_starts(&mut self) {
        let saved: Vec<SavedSession> = (self.records.values())
            .map(|record| SavedSession { record: record.clone(), resume: self.resume(&record.session) })
            .collect();
        let end = self.trace.len() as u64 + 1;
        let start = trace_start(&saved, end);
        let config = StateConfig { incarnation: Incarnation(self.run), anchor: ANCHOR };
        self.coordinator = Some(state::State::new(config, self.now_ns, saved, start));
        self.trace_read = usize::try_from(start - 1).unwrap();
        self.tick_at_ns = u64::MAX;
        let run = self.run;
        for i in self.trace_read..self.trace.len() {
            // The store sends what it has as fast as it can.
            self.schedule((i as u64 + 1) * 1_000, Happening::TraceDelivered { run });
        }
        if !self.bus_up {
            self.coordinator_hears(run, Event::Disconnected);
        }
        self.coordinator_hears(run, Event::Tick);
    }

    /// Requests that were not answered though they have waited longer than any may.
    pub(crate) fn overdue_requests(&self) -> usize {
        self.open_requests.values().filter(|(since_ns, _)| self.now_ns > since_ns + 16_000 * MS).count()
    }

    /// Hits that the bus lost for good and that a later batch of the same run tells of.
    pub(crate) fn lost_and_told(&self) -> u64 {
        let told = |lost: &&Batch| {
            let later = |batch: &Batch| {
                batch.host == lost.host && batch.incarnation == lost.incarnation && batch.number > lost.number
            };
            self.trace.iter().any(later)
        };
        self.lost_batches.iter().filter(told).map(|lost| lost.hits.len() as u64).sum()
    }

    /// Hits of a tracepoint in batches that were stored.
    pub(crate) fn stored_hits(&self, id: &TracepointId) -> u64 {
        let mut seen = BTreeSet::new();
        let mut is_first = |batch: &Batch| seen.insert((batch.host.clone(), batch.incarnation, batch.number));
        let first = |batch: &&Batch| !batch.is_watermark() && is_first(batch);
        let batches = self.trace.iter().filter(first);
        batches.flat_map(|batch| &batch.hits).filter(|hit| hit.tracepoint == *id).count() as u64
    }

    pub(crate) fn told_drops(&self, session: &SessionId, id: &TracepointId) -> u64 {
        let stream = self.streams.get(session);
        stream.and_then(|stream| stream.dropped.get(&(id.clone(), DropReason::Rate))).copied().unwrap_or(0)
    }
}

//! The coordinator as a pure state machine: events in, effects out; time, randomness and the bus are outside.
//!
//! ```text
//! agents:   heartbeat -> profile, list -> create / remove until what is wanted and what is armed agree   (agents.rs)
//! viewers:  open -> (load) -> renew .. | lease passes -> end; create, remove: answered exactly once      (requests.rs)
//! hits:     batch -> ingest -> merge -> session stream -> publish, one message in flight                 (hits.rs)
//! ```
//! What it is not: it never reads a clock, and an effect is only a wish until its event comes back.
//!
//! Invariants
//! - Every request gets exactly one reply; every question to an agent has exactly one place that waits for it.
//! - A tracepoint belongs to one session; when the session ends, every host that may have it armed is asked to remove
//!   it until it says so or is gone.
//! - Every hit of a wanted tracepoint gets into its session's stream, or is counted in a drop there, exactly once.

mod agents;
mod hits;
mod requests;

use crate::clock::{Anchor, DomainClock};
use crate::effect::{Effect, SessionRecord};
use crate::event::{AskId, Event, RequestId};
use crate::fleet::Host;
use crate::ingest::Ingest;
use crate::knowledge::Knowledge;
use crate::limits::{MS, REPLAY_MARGIN};
use crate::merge::{Merge, SourceId};
use crate::session::{Position, SessionStream};
use riptrace_protocol::fleet::TracepointStatus;
use riptrace_protocol::hit::{RawDrop, RawHit};
use riptrace_protocol::ids::{HostName, Incarnation, ProcessKey, SessionId, TracepointId};
use riptrace_protocol::limits::SESSION_LEASE_MS;
use riptrace_protocol::stream::Resume;
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::BTreeMap;

/// What does not change during a run.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// This run of the coordinator.
    pub incarnation: Incarnation,
    /// How the coordinator's clock becomes unix time.
    pub anchor: Anchor,
}

/// What an earlier coordinator left of a session.
#[derive(Debug, Clone)]
pub struct SavedSession {
    /// Its record in the bucket.
    pub record: SessionRecord,
    /// The end of its stream, if it has any.
    pub resume: Option<Resume>,
}

impl SavedSession {
    /// From where on the session needs the trace stream.
    pub fn trace_sequence(&self) -> u64 {
        self.resume.as_ref().map_or(0, |resume| resume.trace_sequence).max(self.record.trace_sequence)
    }
}

/// From where on a coordinator reads the trace stream, which ends before sequence `end`.
pub fn trace_start(saved: &[SavedSession], end: u64) -> u64 {
    let needed = saved.iter().map(SavedSession::trace_sequence).min();
    needed.map_or(end, |needed| needed.saturating_sub(REPLAY_MARGIN)).clamp(1, end.max(1))
}

/// A tracepoint that a session wants.
#[derive(Debug)]
struct Wanted {
    session: SessionId,
    tracepoint: Tracepoint,
    /// Grows at each replacement.
    generation: u64,
    ended: Option<String>,
    /// Hits that the stream has, towards its `count`.
    counted: u64,
    /// Hits that came after its `count` was reached.
    beyond: u64,
}

/// A tracepoint that was removed, while hits that were captured before may still come.
#[derive(Debug)]
struct Retired {
    session: SessionId,
    until_ns: u64,
    /// Hits that its `count` still allows.
    remaining: u64,
}

#[derive(Debug)]
enum Phase {
    /// Its stream's end is being read; these wait for it.
    Opening(Vec<RequestId>),
    Open,
}

#[derive(Debug)]
struct Session {
    viewer: String,
    lease_until_ns: u64,
    phase: Phase,
    stream: SessionStream,
    /// As in its record.
    trace_sequence: u64,
    status_dirty: bool,
    status_due_ns: u64,
    status_said: Vec<TracepointStatus>,
}

/// A request whose answer waits for agents.
#[derive(Debug)]
struct Waiter {
    request: RequestId,
    deadline_ns: u64,
    session: SessionId,
    awaited: Awaited,
}

#[derive(Debug)]
enum Awaited {
    /// Every process that is meant has answered for this version of the tracepoint.
    Created { tracepoint: TracepointId, generation: u64 },
    /// Every host has taken the tracepoint out.
    Removed { last: Box<TracepointStatus> },
    /// Every host has taken all tracepoints of the session out.
    Closed { last: Vec<TracepointStatus> },
}

impl Awaited {
    /// The last statuses of what is being removed.
    fn last(&mut self) -> &mut [TracepointStatus] {
        match self {
            Awaited::Created { .. } => &mut [],
            Awaited::Removed { last } => std::slice::from_mut(last),
            Awaited::Closed { last } => last,
        }
    }
}

/// What a question to an agent was about.
#[derive(Debug)]
enum Asked {
    Profile,
    List,
    Create {
        tracepoint: TracepointId,
        generation: u64,
        processes: Vec<ProcessKey>,
    },
    Remove {
        tracepoint: TracepointId,
    },
    /// For a viewer, who gets the answer as it is.
    Lines {
        request: RequestId,
    },
}

/// A batch whose hits are not all released.
#[derive(Debug)]
struct Outstanding {
    host: HostName,
    remaining: usize,
    drops: Vec<RawDrop>,
}

/// What goes through the merge.
#[derive(Debug)]
enum Payload {
    Hit(Box<RawHit>),
    /// Hits up to this number (exclusive) are missing.
    Lost {
        end: u64,
    },
}

#[derive(Debug)]
struct Carried {
    trace_sequence: u64,
    payload: Payload,
}

/// What happened that no viewer is told of, for the log and the tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches that came twice.
    pub batches_duplicate: u64,
    /// Batches that came after their gap was counted: their hits are lost, their drops are not.
    pub batches_late: u64,
    /// Messages of the trace stream that were no batch.
    pub batches_bad: u64,
    /// Heartbeats of runs that were replaced.
    pub heartbeats_past: u64,
    /// Hits of tracepoints that nobody wants any more.
    pub hits_unwanted: u64,
    /// Layouts that were not sound.
    pub layouts_bad: u64,
    /// Hosts that were not taken in because there are too many.
    pub hosts_refused: u64,
}

/// The coordinator.
#[derive(Debug)]
pub struct State {
    config: StateConfig,
    connected: bool,
    hosts: BTreeMap<HostName, Host>,
    clocks: BTreeMap<ClockDomain, DomainClock>,
    sessions: BTreeMap<SessionId, Session>,
    wanted: BTreeMap<TracepointId, Wanted>,
    /// Tracepoints that were removed, while hits of them may still be on their way.
    retired: BTreeMap<TracepointId, Retired>,
    generation: u64,
    waiters: Vec<Waiter>,
    asks: BTreeMap<AskId, (HostName, Asked)>,
    next_ask: u64,
    /// Number of the next stream message, of whichever session.
    next_message: u64,
    knowledge: Knowledge,
    ingest: Ingest,
    merge: Merge<Carried>,
    outstanding: BTreeMap<u64, Outstanding>,
    /// Where each source's newest batch is in the trace stream, and when it came.
    sources: BTreeMap<SourceId, (u64, u64)>,
    position: Position,
    /// Sequence of the trace stream that comes next.
    trace_next: u64,
    /// Something about what is wanted or known of hosts has changed: compare them.
    dirty: bool,
    counters: Counters,
}

impl State {
    /// A coordinator that goes on with `saved` sessions, and reads the trace stream from `trace_sequence` on.
    pub fn new(config: StateConfig, now_ns: u64, saved: Vec<SavedSession>, trace_sequence: u64) -> State {
        let released = saved.iter().filter_map(|s| s.resume.as_ref()).map(|resume| resume.released_ns).min();
        let mut state = State {
            config,
            connected: true,
            hosts: BTreeMap::new(),
            clocks: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wanted: BTreeMap::new(),
            retired: BTreeMap::new(),
            generation: 0,
            waiters: Vec::new(),
            asks: BTreeMap::new(),
            next_ask: 0,
            next_message: 0,
            knowledge: Knowledge::default(),
            ingest: Ingest::default(),
            merge: Merge::new(released.unwrap_or(i64::MIN)),
            outstanding: BTreeMap::new(),
            sources: BTreeMap::new(),
            position: Position { next_hit: BTreeMap::new(), trace_sequence },
            trace_next: trace_sequence,
            dirty: false,
            counters: Counters::default(),
        };
        saved.into_iter().for_each(|saved| state.restore(now_ns, saved));
        // What any session has not shown yet is what has to be put in order again. A source that one of them does not
        // know yet begins where its batches do.
        let looking: Vec<&SessionStream> = (state.sessions.iter())
            .filter(|(id, _)| state.wanted.values().any(|wanted| wanted.session == **id))
            .map(|(_, session)| &session.stream)
            .collect();
        let mut sources: Vec<SourceId> = looking.iter().flat_map(|stream| stream.from_hits().keys().cloned()).collect();
        sources.sort();
        sources.dedup();
        for source in sources {
            let shown: Vec<Option<u64>> = looking.iter().map(|s| s.from_hits().get(&source).copied()).collect();
            let next_hit = shown.iter().flatten().copied().min().unwrap_or(0);
            let by_all = shown.iter().all(Option::is_some);
            state.ingest.seed(source.clone(), next_hit, by_all);
            if by_all {
                state.position.next_hit.insert(source.clone(), next_hit);
            }
            state.merge.expect(&source, now_ns);
            state.sources.insert(source, (0, now_ns));
        }
        state
    }

    fn restore(&mut self, now_ns: u64, saved: SavedSession) {
        let SavedSession { record, resume } = saved;
        let stream = SessionStream::new(record.session.clone(), resume, record.trace_sequence);
        for kept in record.tracepoints {
            self.generation += 1;
            let wanted = Wanted {
                session: record.session.clone(),
                generation: self.generation,
                ended: kept.ended,
                counted: stream.counted(&kept.tracepoint.id),
                beyond: 0,
                tracepoint: kept.tracepoint,
            };
            self.wanted.insert(wanted.tracepoint.id.clone(), wanted);
        }
        let session = Session {
            viewer: record.viewer,
            lease_until_ns: now_ns + SESSION_LEASE_MS * MS,
            phase: Phase::Open,
            stream,
            trace_sequence: record.trace_sequence,
            status_dirty: true,
            status_due_ns: now_ns,
            status_said: Vec::new(),
        };
        self.sessions.insert(record.session, session);
    }

    /// This run of the coordinator.
    pub fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// What happened that no viewer is told of.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sequence of the trace stream that comes next.
    pub fn trace_next(&self) -> u64 {
        self.trace_next
    }

    /// Whether everything that was released is published.
    pub fn is_flushed(&self) -> bool {
        self.sessions.values().all(|session| session.stream.is_idle())
    }
}

/// Takes an event in at `now_ns` (the coordinator's monotonic clock) and appends what is to be done.
pub fn handle(state: &mut State, now_ns: u64, event: Event, effects: &mut Vec<Effect>) {
    match event {
        Event::Tick => state.tick(now_ns, effects),
        Event::Connected => state.connected_again(now_ns),
        Event::Disconnected => state.connected = false,
        Event::Heartbeat(heartbeat) => state.heartbeat(now_ns, heartbeat),
        Event::Pong { host, clock_domain, exchange } => state.pong(now_ns, &host, &clock_domain, exchange),
        Event::PingLost { host } => state.ping_lost(&host),
        Event::Answered { ask, answer } => state.answered(now_ns, ask, answer, effects),
        Event::Batch { trace_sequence, batch } => state.batch(now_ns, trace_sequence, *batch),
        Event::BadBatch { trace_sequence } => state.bad_batch(trace_sequence),
        Event::TraceReset => state.trace_reset(),
        Event::Request { request, body } => state.request(now_ns, request, body, effects),
        Event::SessionLoaded { session, resume } => state.session_loaded(now_ns, &session, resume, effects),
        Event::StreamPublished { session, number } => {
            if let Some(session) = state.sessions.get_mut(&session) {
                session.stream.published(number);
            }
        }
    }
    state.release(now_ns, effects);
    state.flush(now_ns, effects);
    if std::mem::take(&mut state.dirty) {
        state.reconcile(now_ns, effects);
        state.answer_waiters(now_ns, effects);
    }
    state.publish_statuses(now_ns, effects);
}

/// When time alone will change something: the driver sends [`Event::Tick`] then, or earlier.
pub fn next_deadline(state: &State, now_ns: u64) -> Option<u64> {
    let hosts = state.hosts.values().flat_map(Host::deadlines);
    let sessions = state.sessions.values().flat_map(|session| {
        let status = session.status_dirty.then_some(session.status_due_ns);
        [Some(session.lease_until_ns), session.stream.deadline_ns(now_ns), status].into_iter().flatten()
    });
    let waiters = state.waiters.iter().map(|waiter| waiter.deadline_ns);
    let hits = [state.merge.deadline_ns(now_ns), state.ingest.deadline_ns()].into_iter().flatten();
    hosts.chain(sessions).chain(waiters).chain(hits).min()
}

impl State {
    fn tick(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        if self.connected {
            self.tick_hosts(now_ns);
            self.tick_sessions(now_ns, effects);
            self.tick_ingest(now_ns);
        }
        self.ping(now_ns, effects);
        // Pauses between repeated requests may have passed.
        self.dirty = true;
    }

    fn connected_again(&mut self, now_ns: u64) {
        if !std::mem::replace(&mut self.connected, true) {
            self.hosts.values_mut().for_each(|host| {
                host.heard_ns = now_ns;
                host.relist();
            });
            let lease_until_ns = now_ns + SESSION_LEASE_MS * MS;
            self.sessions.values_mut().for_each(|session| session.lease_until_ns = lease_until_ns);
            self.merge.wait_anew(now_ns);
            self.ingest.wait_anew(now_ns);
            self.dirty = true;
        }
    }

    fn status_dirty(&mut self, tracepoint: &TracepointId) {
        if let Some(session) = self.wanted.get(tracepoint).and_then(|wanted| self.sessions.get_mut(&wanted.session)) {
            session.status_dirty = true;
        }
    }

    fn all_statuses_dirty(&mut self) {
        self.sessions.values_mut().for_each(|session| session.status_dirty = true);
        self.dirty = true;
    }
}

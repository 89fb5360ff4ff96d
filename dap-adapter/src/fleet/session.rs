//! One session: its lease, its tracepoints, its ordered stream.
//!
//! Three tasks, ended when the last handle and the events are dropped:
//! - *lease* renews; when the coordinator does not know the session any more, opens it again with its tracepoints;
//! - *stream* reads the JetStream copy of the ordered stream from the last message it has handed on;
//! - *status* reads the session's status messages.
//!
//! Events are handed on through a bounded queue; a slow reader holds back its own stream and nobody else's.

use super::client::{FleetClient, FleetError};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt;
use riptrace_protocol::coordinator_api::{
    SessionOpen, SessionOpened, SessionRef, SessionState, TracepointCreate, TracepointRemove,
};
use riptrace_protocol::fleet::TracepointStatus;
use riptrace_protocol::ids::{SessionId, TracepointId};
use riptrace_protocol::stream::{OrderedHit, StreamItem, StreamMessage};
use riptrace_protocol::tracepoint::Tracepoint;
use riptrace_protocol::{limits, subject};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Stream messages and states that wait for a slow reader, at most: a few seconds of a busy session.
const EVENTS_MAX: usize = 64;
/// Pause before a failed subscription is tried again: short beside a lease, long beside a refused connection.
const RETRY: Duration = Duration::from_millis(300);

/// What happens in a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// The next items of the ordered stream.
    Items(Vec<StreamItem>),
    /// The state of its tracepoints changed.
    State(SessionState),
    /// The coordinator is not heard; tracepoints end unless it comes back within the lease.
    Disconnected {
        /// Why, for a person.
        why: String,
    },
    /// The coordinator is heard again; `reopened` when it had forgotten the session, which was then opened again.
    Reconnected {
        /// Whether the session was opened again.
        reopened: bool,
    },
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// To ask for things.
    pub handle: SessionHandle,
    /// What happens.
    pub events: SessionEvents,
}

/// Messages of the stream whose place is remembered, at most: as many as the stream keeps of one session.
const KEPT_MAX: usize = 100_000;
/// Messages that are read back at once, at most.
const READ_BACK_MAX: usize = 256;

/// Where hits are in the kept stream: of each message the first and the last hit, and its place.
#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<(u64, u64, u64)>,
}

impl Kept {
    fn note(&mut self, stored_at: u64, items: &[StreamItem]) {
        let mut seqs = items.iter().filter_map(|item| match item {
            StreamItem::Hit(hit) => Some(hit.seq),
            _ => None,
        });
        let Some(first) = seqs.next() else { return };
        let last = seqs.next_back().unwrap_or(first);
        // The fleet had forgotten the session and counts from 1 again: what was before has other numbers.
        if self.messages.back().is_some_and(|(_, newest, _)| *newest >= first) {
            self.messages.clear();
        }
        self.messages.push_back((first, last, stored_at));
        while self.messages.len() > KEPT_MAX {
            self.messages.pop_front();
        }
    }

    /// Places of the messages with about `count` hits in front of one, oldest first.
    fn before(&self, before: u64, count: usize) -> Vec<u64> {
        let end = self.messages.partition_point(|(first, _, _)| *first < before);
        let mut hits = 0;
        let mut found: Vec<u64> = Vec::new();
        for (first, last, stored_at) in self.messages.range(..end).rev().take(READ_BACK_MAX) {
            if hits >= count as u64 {
                break;
            }
            hits += (*last).min(before - 1) - first + 1;
            found.push(*stored_at);
        }
        found.reverse();
        found
    }
}

/// Asks for things in a session. Dropping it does not end the session; [`SessionHandle::close`] or the lease does.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    shared: Arc<Shared>,
}

/// What happens in a session, in order.
#[derive(Debug)]
pub struct SessionEvents {
    queue: mpsc::Receiver<SessionEvent>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    client: FleetClient,
    open: SessionOpen,
    /// What was asked for, to ask again when the coordinator has forgotten it.
    wanted: Mutex<BTreeMap<TracepointId, Tracepoint>>,
    /// Where the hits are in the kept stream.
    kept: Mutex<Kept>,
}

impl Shared {
    fn wanted(&self) -> std::sync::MutexGuard<'_, BTreeMap<TracepointId, Tracepoint>> {
        // The map is valid after any panic of a holder: each holder does one insert, remove or clone.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Valid after any panic of a holder: each adds or reads whole entries.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reference(&self) -> SessionRef {
        SessionRef { session: self.open.session.clone() }
    }
}

impl Session {
    pub(super) async fn start(client: FleetClient, open: SessionOpen) -> Result<Session, FleetError> {
        let status_subject = subject::session_status(&open.session);
        let status = client
            .bus()
            .subscribe(status_subject.clone())
            .await
            .map_err(|e| FleetError::Bus { subject: status_subject, why: e.to_string() })?;
        let shared = Arc::new(Shared { client, open, wanted: Mutex::default(), kept: Mutex::default() });
        let (send, queue) = mpsc::channel(EVENTS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_lease(shared.clone(), send.clone()));
        tasks.spawn(read_stream(shared.clone(), send.clone()));
        tasks.spawn(read_status(status, send));
        Ok(Session { handle: SessionHandle { shared }, events: SessionEvents { queue, _tasks: tasks } })
    }
}

impl SessionHandle {
    /// The session's id.
    pub fn id(&self) -> &SessionId {
        &self.shared.open.session
    }

    /// Creates a tracepoint, or replaces the one of its id. Returns its state once all processes have answered.
    pub async fn create(&self, tracepoint: Tracepoint) -> Result<TracepointStatus, FleetError> {
        let id = tracepoint.id.clone();
        self.shared.wanted().insert(id.clone(), tracepoint.clone());
        let create = TracepointCreate { session: self.id().clone(), tracepoint };
        let answer = self.shared.client.request(subject::TRACEPOINT_CREATE, &create).await;
        if let Err(FleetError::Refused(_)) = &answer {
            self.shared.wanted().remove(&id);
        }
        answer
    }

    /// Removes a tracepoint. Returns its last state.
    pub async fn remove(&self, tracepoint: &TracepointId) -> Result<TracepointStatus, FleetError> {
        self.shared.wanted().remove(tracepoint);
        let remove = TracepointRemove { session: self.id().clone(), tracepoint: tracepoint.clone() };
        self.shared.client.request(subject::TRACEPOINT_REMOVE, &remove).await
    }

    /// Hits in front of the one with this number, as JetStream still has them: about `count` of those nearest to it,
    /// oldest first, without gaps. Fewer, or none, where the stream has let go of them.
    pub async fn hits_before(&self, before: u64, count: usize) -> Result<Vec<OrderedHit>, FleetError> {
        let stored = self.shared.kept().before(before, count);
        let bus = |what: String| FleetError::Bus { subject: subject::SESSION_STREAM.to_owned(), why: what };
        let jetstream = async_nats::jetstream::new(self.shared.client.bus().clone());
        let stream = jetstream.get_stream(subject::SESSION_STREAM).await.map_err(|error| bus(error.to_string()))?;
        let mut parts: Vec<Vec<OrderedHit>> = Vec::new();
        // Newest first: what is missing ends the stretch without gaps.
        for stored_at in stored.into_iter().rev() {
            let Ok(message) =
                stream.get_raw_message(stored_at).await.inspect_err(|e| tracing::debug!("{stored_at}: {e}"))
            else {
                break;
            };
            let Ok(decoded) = StreamMessage::decode(&message.payload) else { break };
            let hits = decoded.items.into_iter().filter_map(|item| match item {
                StreamItem::Hit(hit) if hit.seq < before => Some(*hit),
                _ => None,
            });
            parts.push(hits.collect());
        }
        let mut hits: Vec<OrderedHit> = parts.into_iter().rev().flatten().collect();
        hits.drain(..hits.len().saturating_sub(count));
        Ok(hits)
    }

    /// Ends the session: all its tracepoints are removed from all processes.
    pub async fn close(&self) -> Result<SessionState, FleetError> {
        self.shared.wanted().clear();
        self.shared.client.request(subject::SESSION_CLOSE, &self.shared.reference()).await
    }
}

impl SessionEvents {
    /// The next event; `None` when the session's tasks have ended.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        self.queue.recv().await
    }
}

async fn keep_lease(shared: Arc<Shared>, events: mpsc::Sender<SessionEvent>) {
    let mut lost = false;
    let mut every = tokio::time::interval(Duration::from_millis(limits::SESSION_RENEW_MS));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // A coordinator that hangs must not make us miss the next tries of this lease.
        let renewed = tokio::time::timeout(
            Duration::from_millis(limits::SESSION_RENEW_MS),
            shared.client.request::<_, SessionState>(subject::SESSION_RENEW, &shared.reference()),
        )
        .await;
        let event = match renewed {
            Ok(Ok(state)) => {
                if std::mem::take(&mut lost)
                    && events.send(SessionEvent::Reconnected { reopened: false }).await.is_err()
                {
                    return;
                }
                Some(SessionEvent::State(state))
            }
            Ok(Err(FleetError::Refused(_))) => match reopen(&shared).await {
                Ok(()) => {
                    lost = false;
                    Some(SessionEvent::Reconnected { reopened: true })
                }
                Err(why) => disconnected(&mut lost, why.to_string()),
            },
            Ok(Err(why)) => disconnected(&mut lost, why.to_string()),
            Err(_) => disconnected(&mut lost, "the coordinator does not answer".to_owned()),
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

fn disconnected(lost: &mut bool, why: String) -> Option<SessionEvent> {
    let first = !std::mem::replace(lost, true);
    first.then_some(SessionEvent::Disconnected { why })
}

async fn reopen(shared: &Shared) -> Result<(), FleetError> {
    let _: SessionOpened = shared.client.request(subject::SESSION_OPEN, &shared.open).await?;
    let wanted: Vec<Tracepoint> = shared.wanted().values().cloned().collect();
    for tracepoint in wanted {
        let create = TracepointCreate { session: shared.open.session.clone(), tracepoint };
        let _: TracepointStatus = shared.client.request(subject::TRACEPOINT_CREATE, &create).await?;
    }
    Ok(())
}

async fn read_stream(shared: Arc<Shared>, events: mpsc::Sender<SessionEvent>) {
    let filter = subject::session_stream(&shared.open.session);
    let jetstream = async_nats::jetstream::new(shared.client.bus().clone());
    let mut next_sequence = 1;
    loop {
        let config = pull::OrderedConfig {
            filter_subject: filter.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next_sequence },
            ..Default::default()
        };
        let consumer = match jetstream.get_stream(subject::SESSION_STREAM).await {
            Ok(stream) => stream.create_consumer(config).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let messages = match consumer {
            Ok(consumer) => consumer.messages().await.map_err(|e| e.to_string()),
            Err(e) => Err(e),
        };
        match messages {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let Ok(message) = message.inspect_err(|e| tracing::debug!("session stream: {e}")) else { break };
                    let stored_at = message.info().map(|info| info.stream_sequence).ok();
                    if let Some(stored_at) = stored_at {
                        next_sequence = stored_at + 1;
                    }
                    match StreamMessage::decode(&message.payload) {
                        Ok(decoded) => {
                            if let Some(stored_at) = stored_at {
                                shared.kept().note(stored_at, &decoded.items);
                            }
                            if events.send(SessionEvent::Items(decoded.items)).await.is_err() {
                                return;
                            }
                        }
                        Err(why) => tracing::warn!("session stream: {why}"),
                    }
                }
            }
            Err(why) => tracing::debug!("session stream: {why}"),
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read_status(mut status: async_nats::Subscriber, events: mpsc::Sender<SessionEvent>) {
    while let Some(message) = status.next().await {
        match serde_json::from_slice(&message.payload) {
            Ok(state) => {
                if events.send(SessionEvent::State(state)).await.is_err() {
                    return;
                }
            }
            Err(why) => tracing::warn!("session status cannot be read: {why}"),
        }
    }
}

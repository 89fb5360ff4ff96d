//! Everything that goes out: replies and statuses, session streams, and the records of sessions.

use super::{Input, bus::Store};
use crate::effect::SessionRecord;
use crate::event::Event;
use crate::limits::{MS, RETRY_MS_MIN};
use async_nats::{Client, HeaderMap, header};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{Incarnation, SessionId};
use riptrace_protocol::stream::{StreamDrop, StreamItem, StreamMessage};
use riptrace_protocol::subject;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// Replies and statuses that wait for the bus, at most.
const OUTBOX: usize = 4096;

/// A message that may be lost.
pub(super) enum Outgoing {
    /// On this subject.
    Publish(String, Vec<u8>),
    /// As the answer to this request.
    Reply(Box<async_nats::service::Request>, Vec<u8>),
}

/// Starts the task that sends what is put into the outbox.
pub(super) fn outbox(client: Client, tasks: &mut JoinSet<()>) -> mpsc::Sender<Outgoing> {
    let (sender, mut receiver) = mpsc::channel(OUTBOX);
    tasks.spawn(async move {
        while let Some(outgoing) = receiver.recv().await {
            let sent = match outgoing {
                Outgoing::Publish(to, payload) => client.publish(to, payload.into()).await,
                Outgoing::Reply(request, payload) => request.respond(Ok(payload.into())).await,
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a reply or status could not be sent");
            }
        }
    });
    sender
}

/// Publishes one session's stream, message by message.
pub(super) struct Publisher {
    messages: mpsc::UnboundedSender<(u64, Box<StreamMessage>)>,
    task: AbortHandle,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    pub(super) fn start(
        session: SessionId,
        incarnation: Incarnation,
        store: Store,
        control: mpsc::Sender<Input>,
    ) -> Publisher {
        // The state has one message in flight for each session, so this never holds more than one.
        let (messages, mut receiver) = mpsc::unbounded_channel::<(u64, Box<StreamMessage>)>();
        let task = tokio::spawn(async move {
            while let Some((number, message)) = receiver.recv().await {
                let id = format!("{:016x}-{number}", incarnation.0);
                publish(&store, &session, &id, *message).await;
                let event = Event::StreamPublished { session: session.clone(), number };
                if control.send(Input::Event(event)).await.is_err() {
                    return;
                }
            }
        });
        Publisher { messages, task: task.abort_handle() }
    }

    pub(super) fn publish(&self, number: u64, message: Box<StreamMessage>) {
        let _ = self.messages.send((number, message));
    }
}

/// Publishes until the message is stored, once.
async fn publish(store: &Store, session: &SessionId, id: &str, message: StreamMessage) {
    let to = subject::session_stream(session);
    let payload: bytes::Bytes = match message.encode() {
        Ok(payload) => payload.into(),
        Err(error) => {
            tracing::error!(%session, %error, "a stream message cannot be written: its hits become drops");
            match without_hits(message).encode() {
                Ok(payload) => payload.into(),
                Err(_) => return,
            }
        }
    };
    let mut tries = 0u32;
    loop {
        // The answer may have been lost though the message was stored: the stream's end tells.
        if tries > 0 && is_last(store, &to, id).await {
            return;
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        let stored = async { store.context.publish_with_headers(to.clone(), headers, payload.clone()).await?.await };
        match stored.await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%session, %error, tries, "a stream message is not stored yet"),
        }
        tries = tries.saturating_add(1);
        tokio::time::sleep(Duration::from_nanos(RETRY_MS_MIN * MS)).await;
        if tries.is_multiple_of(4)
            && let Err(error) = store.ensure().await
        {
            tracing::warn!(%error, "the store is not there");
        }
    }
}

/// Whether the last message of a subject is this one.
async fn is_last(store: &Store, to: &str, id: &str) -> bool {
    let Ok(stream) = store.session_stream().await else { return false };
    let Ok(last) = stream.get_last_raw_message_by_subject(to).await else { return false };
    last.headers.get(header::NATS_MESSAGE_ID).is_some_and(|found| found.as_str() == id)
}

/// The same message with its hits counted instead of shown.
fn without_hits(message: StreamMessage) -> StreamMessage {
    let counted = message.items.into_iter().filter_map(|item| match item {
        StreamItem::Hit(hit) => Some(StreamItem::Drop(StreamDrop {
            host: hit.host,
            process: Some(hit.raw.process),
            tracepoint: Some(hit.raw.tracepoint),
            reason: DropReason::Session,
            count: 1,
        })),
        StreamItem::Drop(drop) => Some(StreamItem::Drop(drop)),
        StreamItem::Layout(_) | StreamItem::Frames(_) => None,
    });
    StreamMessage { items: counted.collect(), ..message }
}

/// The records of sessions that are still to be written: the newest of each session, `None` to remove it.
#[derive(Clone)]
pub(super) struct Records {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
    idle: Notify,
}

#[derive(Default)]
struct Pending {
    records: BTreeMap<SessionId, Option<SessionRecord>>,
    writing: bool,
}

impl Records {
    /// Starts the task that writes them.
    pub(super) fn start(store: Store, tasks: &mut JoinSet<()>) -> Records {
        let records = Records { shared: Arc::default() };
        let shared = records.shared.clone();
        tasks.spawn(async move {
            loop {
                let next = {
                    let mut pending = shared.lock();
                    let next = pending.records.pop_first();
                    pending.writing = next.is_some();
                    next
                };
                let Some((session, record)) = next else {
                    shared.idle.notify_waiters();
                    shared.changed.notified().await;
                    continue;
                };
                if let Err(error) = write(&store, &session, record.as_ref()).await {
                    tracing::warn!(%session, %error, "a session's record is not written yet");
                    // A newer one may have come meanwhile.
                    shared.lock().records.entry(session).or_insert(record);
                    tokio::time::sleep(Duration::from_nanos(RETRY_MS_MIN * MS)).await;
                }
            }
        });
        records
    }

    /// Has a record written, or removed.
    pub(super) fn put(&self, session: SessionId, record: Option<SessionRecord>) {
        self.shared.lock().records.insert(session, record);
        self.shared.changed.notify_one();
    }

    /// Waits until everything is written.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            {
                let pending = self.shared.lock();
                if pending.records.is_empty() && !pending.writing {
                    return;
                }
            }
            idle.await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change under the lock is one assignment: a panic elsewhere cannot leave it half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(store: &Store, session: &SessionId, record: Option<&SessionRecord>) -> Result<(), async_nats::Error> {
    let bucket = store.bucket().await?;
    match record {
        Some(record) => drop(bucket.put(session.as_str(), serde_json::to_vec(record)?.into()).await?),
        None => bucket.purge(session.as_str()).await?,
    }
    Ok(())
}

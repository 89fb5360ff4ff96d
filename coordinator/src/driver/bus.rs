//! The store: the streams and the bucket that RipTrace keeps in JetStream, made if they are not there.
//!
//! The trace stream names each host's subject: JetStream refuses to acknowledge a stream over `*.debugger.trace`
//! (error 10052, because `*` covers `$JS`), and agents need the acknowledgement. A host's subject is added before
//! anything is asked of its agent that makes hits.

use super::CoordinatorError;
use crate::effect::SessionRecord;
use crate::limits::{
    DUPLICATE_WINDOW_S, MS, RETRY_MS_MIN, SESSION_AGE_MAX_S, SESSION_BYTES_MAX, SESSION_MESSAGES_MAX, TRACE_AGE_MAX_S,
    TRACE_BYTES_MAX,
};
use crate::state::{SavedSession, trace_start};
use async_nats::Client;
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageErrorKind, StorageType, Stream};
use async_nats::jetstream::{self, Context, kv};
use futures::TryStreamExt;
use riptrace_protocol::ids::{HostName, SessionId};
use riptrace_protocol::limits::MESSAGE_BYTES_MAX;
use riptrace_protocol::stream::{Resume, StreamMessage};
use riptrace_protocol::subject;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long one answer of the store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the store may take to be there when the coordinator starts (a server that has just been started).
const STORE_START: Duration = Duration::from_secs(10);
/// Room for NATS headers beside a message.
const HEADER_BYTES: i32 = 16 * 1024;

/// Subject of the trace stream while no host is known: a stream has at least one. Nobody publishes there.
const NO_HOST: &str = "riptrace.trace.none";

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) context: Context,
    /// Subjects of the trace stream that were asked for; the lock is held while the stream is changed.
    trace_subjects: Arc<Mutex<BTreeSet<String>>>,
}

fn trace_config() -> Config {
    Config {
        name: subject::TRACE_STREAM.to_owned(),
        description: Some("RipTrace: batches of hits, as agents publish them".to_owned()),
        subjects: vec![NO_HOST.to_owned()],
        max_age: Duration::from_secs(TRACE_AGE_MAX_S),
        max_bytes: TRACE_BYTES_MAX,
        max_message_size: MESSAGE_BYTES_MAX as i32 + HEADER_BYTES,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(DUPLICATE_WINDOW_S),
        ..Config::default()
    }
}

fn session_config() -> Config {
    Config {
        name: subject::SESSION_STREAM.to_owned(),
        description: Some("RipTrace: each session's hits, in their order".to_owned()),
        subjects: vec![subject::SESSION_STREAM_ALL.to_owned()],
        max_age: Duration::from_secs(SESSION_AGE_MAX_S),
        max_bytes: SESSION_BYTES_MAX,
        max_messages_per_subject: SESSION_MESSAGES_MAX,
        max_message_size: MESSAGE_BYTES_MAX as i32 + HEADER_BYTES,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(DUPLICATE_WINDOW_S),
        ..Config::default()
    }
}

fn bucket_config() -> kv::Config {
    kv::Config {
        bucket: subject::SESSION_BUCKET.to_owned(),
        description: "RipTrace: open sessions and the tracepoints they want".to_owned(),
        history: 1,
        max_value_size: MESSAGE_BYTES_MAX as i32,
        storage: StorageType::File,
        ..kv::Config::default()
    }
}

fn failed(what: &'static str) -> impl Fn(async_nats::Error) -> CoordinatorError {
    move |error| CoordinatorError::JetStream { what, detail: error.to_string() }
}

impl Store {
    /// Opens the store of a bus; what is not there is made. Waits a little for a server that has just started.
    pub(super) async fn open(client: &Client) -> Result<Store, CoordinatorError> {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(STORE_TIMEOUT);
        let store = Store { context, trace_subjects: Arc::default() };
        let attempts = async {
            loop {
                match store.ensure().await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "the store is not ready"),
                }
                tokio::time::sleep(Duration::from_nanos(RETRY_MS_MIN * MS)).await;
            }
        };
        if tokio::time::timeout(STORE_START, attempts).await.is_err() {
            // Once more, for the reason.
            store.ensure().await?;
        }
        Ok(store)
    }

    /// Makes the streams and the bucket unless they are there. Those of an operator, with other limits, are left.
    pub(super) async fn ensure(&self) -> Result<(), CoordinatorError> {
        self.trace_stream().await.map_err(failed("stream of batches"))?;
        self.session_stream().await.map_err(failed("stream of sessions"))?;
        self.bucket().await.map_err(failed("bucket of sessions"))?;
        Ok(())
    }

    /// The trace stream, with the subjects of all hosts that were ever met.
    pub(super) async fn trace_stream(&self) -> Result<Stream, async_nats::Error> {
        let subjects = self.trace_subjects.lock().await;
        self.trace_stream_with(&subjects).await
    }

    async fn trace_stream_with(&self, subjects: &BTreeSet<String>) -> Result<Stream, async_nats::Error> {
        let stream = self.context.get_or_create_stream(trace_config()).await?;
        let mut config = stream.cached_info().config.clone();
        let missing: Vec<String> = subjects.iter().filter(|s| !config.subjects.contains(s)).cloned().collect();
        if missing.is_empty() {
            return Ok(stream);
        }
        config.subjects.extend(missing);
        self.context.update_stream(config).await?;
        Ok(self.context.get_stream(subject::TRACE_STREAM).await?)
    }

    /// Has a host's batches kept from now on.
    pub(super) async fn keep_host(&self, host: &HostName) -> Result<(), async_nats::Error> {
        let mut subjects = self.trace_subjects.lock().await;
        if subjects.insert(subject::trace(host)) {
            let kept = self.trace_stream_with(&subjects).await;
            if kept.is_err() {
                subjects.remove(&subject::trace(host));
            }
            kept?;
        }
        Ok(())
    }

    pub(super) async fn session_stream(&self) -> Result<Stream, async_nats::Error> {
        Ok(self.context.get_or_create_stream(session_config()).await?)
    }

    pub(super) async fn bucket(&self) -> Result<kv::Store, async_nats::Error> {
        match self.context.get_key_value(subject::SESSION_BUCKET).await {
            Ok(bucket) => Ok(bucket),
            Err(_) => Ok(self.context.create_key_value(bucket_config()).await?),
        }
    }

    /// The sessions that an earlier coordinator left, and the sequence from which on they need the trace stream.
    pub(super) async fn saved_sessions(&self) -> Result<(Vec<SavedSession>, u64), CoordinatorError> {
        self.try_saved_sessions().await.map_err(failed("reading what an earlier coordinator left"))
    }

    async fn try_saved_sessions(&self) -> Result<(Vec<SavedSession>, u64), async_nats::Error> {
        let stream = self.trace_stream().await?.get_info().await?.state;
        let bucket = self.bucket().await?;
        let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
        let mut saved = Vec::new();
        for key in keys {
            let Some(value) = bucket.get(key.clone()).await? else { continue };
            match serde_json::from_slice::<SessionRecord>(&value) {
                Ok(record) if record.session.as_str() == key => {
                    let resume = self.try_resume(&record.session).await?;
                    saved.push(SavedSession { record, resume });
                }
                _ => tracing::warn!(key, "not the record of a session; ignored"),
            }
        }
        let end = stream.last_sequence.saturating_add(1);
        // A sequence beyond the end is of a stream that was lost.
        for saved in saved.iter_mut().filter(|saved| saved.trace_sequence() > end) {
            saved.record.trace_sequence = 0;
            if let Some(resume) = &mut saved.resume {
                resume.trace_sequence = 0;
            }
        }
        let start = trace_start(&saved, end).max(stream.first_sequence);
        Ok((saved, start))
    }

    /// Where a session's stream ends; asks until the store answers.
    pub(super) async fn resume(&self, session: &SessionId) -> Option<Resume> {
        loop {
            match self.try_resume(session).await {
                Ok(resume) => return resume,
                Err(error) => tracing::warn!(%session, %error, "cannot read the end of a session's stream yet"),
            }
            tokio::time::sleep(Duration::from_nanos(RETRY_MS_MIN * MS)).await;
        }
    }

    async fn try_resume(&self, session: &SessionId) -> Result<Option<Resume>, async_nats::Error> {
        let stream = self.session_stream().await?;
        let last = stream.get_last_raw_message_by_subject(&subject::session_stream(session)).await;
        match last {
            Ok(message) => match StreamMessage::decode(&message.payload) {
                Ok(message) => Ok(Some(message.resume)),
                Err(error) => {
                    tracing::warn!(%session, %error, "the last message of a session's stream is not one of ours");
                    Ok(None)
                }
            },
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

//! The bus as the publisher needs it: store one message, surely, or say why not; or take one that may be lost.

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use riptrace_protocol::subject::TRACE_STREAM;
use std::time::Duration;

/// How long the bus may take to say that a batch is stored: a round trip takes a millisecond, a server that restarts
/// forgets what it was sent.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a batch was not stored, as far as is known; it may be stored all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("NATS is not connected: hits are kept until it is back")]
    NotConnected,
    #[error(
        "NATS has no stream {TRACE_STREAM:?} yet: hits are kept until a coordinator makes it (riptrace coordinator)"
    )]
    NoStream,
    #[error("NATS did not acknowledge a batch within {} s", ACKNOWLEDGE_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("NATS refused a batch: {0}")]
    Refused(String),
}

/// Where batches go.
pub(crate) trait Bus: Send + 'static {
    /// Stores a message. Of several with the same id, the bus keeps one, if it can.
    fn publish(&self, message_id: String, bytes: Bytes) -> BoxFuture<'static, Result<(), BusError>>;

    /// Stores a message, if the bus can take it now. Nobody hears whether it did: an answer would wake the agent.
    fn tell(&self, bytes: Bytes);
}

/// A subject kept by a JetStream stream.
pub(crate) struct JetStreamBus {
    client: Client,
    context: jetstream::Context,
    subject: String,
}

impl JetStreamBus {
    pub(crate) fn new(client: Client, subject: String) -> JetStreamBus {
        JetStreamBus { context: jetstream::new(client.clone()), client, subject }
    }
}

impl Bus for JetStreamBus {
    fn publish(&self, message_id: String, bytes: Bytes) -> BoxFuture<'static, Result<(), BusError>> {
        // The client would keep the message until it is connected again, and each further try beside it.
        if self.client.connection_state() != State::Connected {
            return Box::pin(async { Err(BusError::NotConnected) });
        }
        let context = self.context.clone();
        let subject = self.subject.clone();
        let message = PublishMessage::build().payload(bytes).message_id(message_id);
        Box::pin(async move {
            let stored = async { context.send_publish(subject, message).await?.await };
            match tokio::time::timeout(ACKNOWLEDGE_TIMEOUT, stored).await {
                Ok(Ok(_acknowledgement)) => Ok(()),
                Ok(Err(error)) => Err(match error.kind() {
                    PublishErrorKind::StreamNotFound => BusError::NoStream,
                    PublishErrorKind::TimedOut => BusError::NoAnswer,
                    _ => BusError::Refused(error.to_string()),
                }),
                Err(_elapsed) => Err(BusError::NoAnswer),
            }
        })
    }

    fn tell(&self, bytes: Bytes) {
        // What the client cannot take at once would be outdated when it can.
        if self.client.connection_state() == State::Connected {
            match self.client.publish(self.subject.clone(), bytes).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "a watermark was not said"),
                None => tracing::debug!("a watermark was not said: the connection is busy"),
            }
        }
    }
}

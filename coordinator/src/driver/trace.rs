//! Reads the trace stream: every message once, in the order of the store, over restarts of the server.

use super::{bus::Store, host_of};
use crate::event::Event;
use crate::limits::{MS, RETRY_MS_MIN};
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::message::Message;
use futures::StreamExt;
use riptrace_protocol::batch::Batch;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Reads from sequence `next` on until nobody takes the events any more. `connects` changes at each reconnect.
pub(super) async fn read(store: Store, mut next: u64, mut connects: watch::Receiver<u64>, hits: mpsc::Sender<Event>) {
    let mut bad = 0u64;
    while !hits.is_closed() {
        connects.mark_unchanged();
        match read_on(&store, &mut next, &mut connects, &hits, &mut bad).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, next, "the trace stream cannot be read; trying again");
                tokio::time::sleep(Duration::from_nanos(RETRY_MS_MIN * MS)).await;
            }
        }
    }
}

/// Reads until something is wrong, or the connection was made anew.
async fn read_on(
    store: &Store,
    next: &mut u64,
    connects: &mut watch::Receiver<u64>,
    hits: &mpsc::Sender<Event>,
    bad: &mut u64,
) -> Result<(), async_nats::Error> {
    // What an operator or a lost disk took away is made again.
    store.ensure().await?;
    let stream = store.trace_stream().await?;
    let state = stream.get_info().await?.state;
    if state.last_sequence.saturating_add(1) < *next {
        tracing::warn!(was = *next, is = state.last_sequence, "the trace stream was made anew: the store was lost");
        *next = 1;
        if hits.send(Event::TraceReset).await.is_err() {
            return Ok(());
        }
    }
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: (*next).max(1) };
    let consumer = stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await?;
    let mut messages = consumer.messages().await?;
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            // The consumer would find out by itself, but only after a missed heartbeat.
            changed = connects.changed() => {
                return match changed {
                    Ok(()) => Ok(()),
                    Err(closed) => Err(closed.into()),
                };
            }
        };
        let Some(message) = message else { return Ok(()) };
        let message = message?;
        let trace_sequence = message.info()?.stream_sequence;
        if trace_sequence < *next {
            continue;
        }
        *next = trace_sequence.saturating_add(1);
        let event = event_of(&message, trace_sequence).unwrap_or_else(|why| {
            *bad += 1;
            if bad.is_power_of_two() {
                let subject = message.subject.as_str();
                tracing::warn!(subject, trace_sequence, why, count = *bad, "not a batch; ignored");
            }
            Event::BadBatch { trace_sequence }
        });
        if hits.send(event).await.is_err() {
            return Ok(());
        }
    }
}

fn event_of(message: &Message, trace_sequence: u64) -> Result<Event, String> {
    let batch = Batch::decode(&message.payload).map_err(|error| error.to_string())?;
    if host_of(&message.subject).as_ref() != Some(&batch.host) {
        return Err(format!("it says that it is of host {}", batch.host));
    }
    Ok(Event::Batch { trace_sequence, batch: Box::new(batch) })
}

//! Watches the fleet over the bus and turns what it hears into events. It asks and listens; it changes nothing.

use super::state::Event;
use crate::environment::{BusTarget, Environment};
use crate::fleet::FleetClient;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt;
use riptrace_protocol::ids::SessionId;
use riptrace_protocol::layout::Layout;
use riptrace_protocol::stream::{StreamItem, StreamMessage};
use riptrace_protocol::{limits, subject};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the fleet is asked for: as often as agents report counts.
const FLEET_INTERVAL: Duration = Duration::from_millis(limits::HEARTBEAT_MS);
/// Pause before a refused connection is tried again: somebody may be about to run `riptrace up`.
const RETRY: Duration = Duration::from_secs(2);
/// Longest that reading a session's layouts may take; its hits are shown without values then.
const LAYOUTS_DEADLINE: Duration = Duration::from_secs(10);

/// What the observer says.
#[derive(Debug)]
pub(super) enum Observed {
    /// There is a connection now.
    Connected(async_nats::Client),
    /// Something happened.
    Event(Event),
}

/// Watches until the receiver is gone.
pub(super) async fn observe(environment: Arc<dyn Environment>, target: BusTarget, out: mpsc::Sender<Observed>) {
    let mut told = None;
    while !out.is_closed() {
        match environment.connect(&target).await {
            Ok(bus) => {
                told = None;
                if out.send(Observed::Connected(bus.clone())).await.is_err() {
                    return;
                }
                watch(bus, &out).await;
            }
            Err(why) => {
                // Once, not every two seconds: without a fleet there is nothing wrong.
                let why = why.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::info!("no fleet to show: {why}");
                    told = Some(why);
                }
            }
        }
        if out.send(Observed::Event(Event::FleetLost)).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn watch(bus: async_nats::Client, out: &mpsc::Sender<Observed>) {
    let mut stream = match bus.subscribe(subject::SESSION_STREAM_ALL).await {
        Ok(stream) => stream,
        Err(why) => {
            tracing::warn!("{} cannot be listened to: {why}", subject::SESSION_STREAM_ALL);
            return;
        }
    };
    let asking = ask_for_fleet(FleetClient::new(bus), out.clone());
    tokio::pin!(asking);
    loop {
        let event = tokio::select! {
            () = &mut asking => return,
            message = stream.next() => match message {
                Some(message) => match StreamMessage::decode(&message.payload) {
                    Ok(decoded) => Event::Stream(Box::new(decoded)),
                    Err(why) => {
                        tracing::debug!("{}: {why}", message.subject);
                        continue;
                    }
                },
                None => return,
            },
        };
        if out.send(Observed::Event(event)).await.is_err() {
            return;
        }
    }
}

async fn ask_for_fleet(client: FleetClient, out: mpsc::Sender<Observed>) {
    let mut every = tokio::time::interval(FLEET_INTERVAL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        every.tick().await;
        let event = match client.fleet().await {
            Ok(view) => {
                told = None;
                Event::Fleet(Box::new(view))
            }
            Err(why) => {
                let why = why.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::info!("no fleet to show: {why}");
                    told = Some(why);
                }
                Event::FleetLost
            }
        };
        if out.send(Observed::Event(event)).await.is_err() {
            return;
        }
    }
}

/// The layouts in a session's kept stream: they travel once, perhaps before we listened. Whatever goes wrong, what was
/// read until then comes back.
pub(super) async fn fetch_layouts(bus: async_nats::Client, session: SessionId) -> Vec<Layout> {
    let mut layouts = Vec::new();
    let reading = read_layouts(bus, &session, &mut layouts);
    match tokio::time::timeout(LAYOUTS_DEADLINE, reading).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::warn!("the layouts of session {session} cannot be read: {why}"),
        Err(_) => tracing::warn!("reading the layouts of session {session} took too long"),
    }
    layouts
}

async fn read_layouts(
    bus: async_nats::Client,
    session: &SessionId,
    into: &mut Vec<Layout>,
) -> Result<(), async_nats::Error> {
    let stream = async_nats::jetstream::new(bus).get_stream(subject::SESSION_STREAM).await?;
    let config = pull::OrderedConfig {
        filter_subject: subject::session_stream(session),
        deliver_policy: DeliverPolicy::All,
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await?;
    if consumer.info().await?.num_pending == 0 {
        return Ok(());
    }
    let mut messages = consumer.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Ok(decoded) = StreamMessage::decode(&message.payload) {
            into.extend(decoded.items.into_iter().filter_map(|item| match item {
                StreamItem::Layout(layout) => Some(*layout),
                StreamItem::Frames(_) | StreamItem::Hit(_) | StreamItem::Drop(_) => None,
            }));
        }
        if message.info()?.pending == 0 {
            break;
        }
    }
    Ok(())
}

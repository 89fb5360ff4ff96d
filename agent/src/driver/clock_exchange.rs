//! Clock exchange: its own subscription and task, so that a ping is stamped as soon as it is there and never waits
//! behind other work.

use super::requests;
use crate::clock::domain_now_ns;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use riptrace_protocol::agent_api::{ClockPing, ClockPong};
use riptrace_protocol::ids::Incarnation;
use riptrace_protocol::time::ClockDomain;
use tokio::sync::watch;

/// Who asked last, and how often somebody did: the service renews its lease when this changes.
pub(super) type Heard = Option<(Incarnation, u64)>;

/// Answers pings until the subscription ends.
pub(super) async fn serve(
    client: Client,
    mut pings: Subscriber,
    clock_domain: ClockDomain,
    incarnation: Incarnation,
    heard: watch::Sender<Heard>,
) {
    while let Some(message) = pings.next().await {
        let received_ns = domain_now_ns();
        let Some(reply) = message.reply.clone() else { continue };
        let answer = match read(&message) {
            Ok(ping) => {
                heard.send_modify(|heard| {
                    let count = heard.map_or(0, |(_, count)| count);
                    *heard = Some((ping.coordinator, count + 1));
                });
                let clock_domain = clock_domain.clone();
                let replied_ns = domain_now_ns();
                let pong = ClockPong { sent_ns: ping.sent_ns, clock_domain, received_ns, replied_ns, incarnation };
                // Numbers and a text: JSON takes them.
                Bytes::from(serde_json::to_vec(&pong).unwrap_or_default())
            }
            Err(why) => requests::refusal(format!("{}: {why}", message.subject)),
        };
        if let Err(error) = client.publish(reply, answer).await {
            tracing::debug!(%error, "a clock ping could not be answered");
        }
    }
}

fn read(message: &Message) -> Result<ClockPing, String> {
    serde_json::from_slice(&message.payload).map_err(|error| format!("not a valid request: {error}"))
}

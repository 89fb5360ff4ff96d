//! Clock exchange: its own subscription and task, so that a ping is stamped as soon as it is there and never waits
//! behind other work.

use super::requests;
use crate::clock::domain_now_ns;
use crate::publish::publisher::PublisherHandle;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use riptrace_protocol::agent_api::{ClockPing, ClockPong};
use riptrace_protocol::ids::Incarnation;
use riptrace_protocol::time::ClockDomain;
use tokio::sync::watch;

/// Who asked last, and when that was told last, in domain time: the service renews its lease when this changes.
pub(super) type Heard = Option<(Incarnation, u64)>;

/// Of one coordinator the service is told so often, in nanoseconds: a fraction of its lease.
const TELL_NS: u64 = 1_000_000_000;

/// Answers pings until the subscription ends.
pub(super) async fn serve(
    client: Client,
    mut pings: Subscriber,
    clock_domain: ClockDomain,
    incarnation: Incarnation,
    heard: watch::Sender<Heard>,
    publisher: PublisherHandle,
) {
    while let Some(message) = pings.next().await {
        let received_ns = domain_now_ns();
        let Some(reply) = message.reply.clone() else { continue };
        let answer = match read(&message) {
            Ok(ping) => {
                if ping.is_waited_for {
                    publisher.is_waited_for();
                }
                heard.send_if_modified(|heard| {
                    let is_told = heard.is_some_and(|(coordinator, told_ns)| {
                        coordinator == ping.coordinator && received_ns < told_ns + TELL_NS
                    });
                    if !is_told {
                        *heard = Some((ping.coordinator, received_ns));
                    }
                    !is_told
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

//! Questions to agents: JSON over request and reply, each answered exactly once, if only by its deadline.

use super::{Clock, bus::Store};
use crate::clock::Exchange;
use crate::effect::Ask;
use crate::event::{Answer, AskError, Event};
use crate::limits::PING_TIMEOUT_MS;
use async_nats::client::RequestErrorKind;
use async_nats::{Client, Request};
use riptrace_protocol::agent_api::{ClockPing, ClockPong, List, ProfileGet, Remove, Reply};
use riptrace_protocol::ids::{HostName, Incarnation};
use riptrace_protocol::limits::AGENT_REQUEST_MS;
use riptrace_protocol::subject;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Asks an agent. Before the first question, its host's batches are kept: they may follow at once.
pub(super) async fn ask(client: &Client, store: &Store, host: &HostName, body: Ask) -> Result<Answer, AskError> {
    let kept = tokio::time::timeout(Duration::from_millis(AGENT_REQUEST_MS), store.keep_host(host)).await;
    if let Err(error) = kept.map_err(|_| AskError::Timeout)? {
        tracing::warn!(%host, %error, "the host's batches cannot be kept yet");
        return Err(AskError::Timeout);
    }
    match body {
        Ask::Profile => request(client, subject::profile_get(host), &ProfileGet {}).await.map(Answer::Profile),
        Ask::Create(create) => request(client, subject::create_tracepoint(host), &*create).await.map(Answer::Create),
        Ask::Remove(tracepoint) => {
            request(client, subject::remove_tracepoint(host), &Remove { tracepoint }).await.map(Answer::Remove)
        }
        Ask::Lines(lines) => request(client, subject::lines(host), &lines).await.map(Answer::Lines),
        Ask::List => request(client, subject::list_tracepoints(host), &List {}).await.map(Answer::List),
    }
}

async fn request<T: DeserializeOwned>(client: &Client, to: String, body: &impl Serialize) -> Result<T, AskError> {
    let payload = serde_json::to_vec(body).map_err(|error| AskError::Malformed(error.to_string()))?;
    let timeout = Duration::from_millis(AGENT_REQUEST_MS);
    let request = Request::new().payload(payload.into()).timeout(Some(timeout));
    // The client's own deadline begins once it has taken the request; while the bus is away it may not.
    let answered = tokio::time::timeout(timeout, client.send_request(to, request)).await;
    let message = answered.map_err(|_| AskError::Timeout)?.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => AskError::NoResponder,
        RequestErrorKind::MaxPayloadExceeded => AskError::Refused("the request is larger than NATS allows".to_owned()),
        _ => AskError::Timeout,
    })?;
    match serde_json::from_slice::<Reply<T>>(&message.payload) {
        Ok(Reply::Ok(answer)) => Ok(answer),
        Ok(Reply::Error(why)) => Err(AskError::Refused(why)),
        Err(error) => Err(AskError::Malformed(error.to_string())),
    }
}

/// One exchange of clocks. The stamps are taken as close to the bus as this side gets.
pub(super) async fn ping(
    client: &Client,
    coordinator: Incarnation,
    host: HostName,
    is_waited_for: bool,
    clock: Clock,
) -> Event {
    let timeout = Duration::from_millis(PING_TIMEOUT_MS);
    let to = subject::clock_ping(&host);
    let exchange = async {
        let sent_ns = clock.now_ns();
        let payload = serde_json::to_vec(&ClockPing { coordinator, sent_ns, is_waited_for }).ok()?;
        let request = Request::new().payload(payload.into()).timeout(Some(timeout));
        let message = client.send_request(to, request).await.ok()?;
        let got_ns = clock.now_ns();
        let pong: ClockPong = serde_json::from_slice(&message.payload).ok()?;
        let exchange = Exchange { sent_ns, received_ns: pong.received_ns, replied_ns: pong.replied_ns, got_ns };
        (pong.sent_ns == sent_ns).then_some((pong.clock_domain, exchange))
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(Some((clock_domain, exchange))) => Event::Pong { host, clock_domain, exchange },
        _ => Event::PingLost { host },
    }
}

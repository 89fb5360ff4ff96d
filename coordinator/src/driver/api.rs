//! The coordinator's API as a NATS micro service: `nats micro ls` sees it. Garbage is answered with an error.

use super::{CoordinatorError, Input};
use crate::effect::ReplyBody;
use crate::event::Request;
use async_nats::Client;
use async_nats::service::{Service, ServiceExt};
use futures::StreamExt;
use riptrace_protocol::agent_api::Reply;
use riptrace_protocol::coordinator_api::FleetGet;
use riptrace_protocol::subject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Name of the micro service.
const SERVICE: &str = "riptrace-coordinator";

type Decode = fn(&[u8]) -> Result<Request, serde_json::Error>;

fn decode<T: DeserializeOwned>(bytes: &[u8], request: fn(T) -> Request) -> Result<Request, serde_json::Error> {
    serde_json::from_slice(bytes).map(request)
}

const ENDPOINTS: [(&str, Decode); 7] = [
    (subject::FLEET_GET, |bytes| match bytes {
        // A person with the `nats` tool sends nothing.
        [] => Ok(Request::FleetGet),
        bytes => decode::<FleetGet>(bytes, |_| Request::FleetGet),
    }),
    (subject::SESSION_OPEN, |bytes| decode(bytes, Request::SessionOpen)),
    (subject::SESSION_RENEW, |bytes| decode(bytes, Request::SessionRenew)),
    (subject::SESSION_CLOSE, |bytes| decode(bytes, Request::SessionClose)),
    (subject::TRACEPOINT_CREATE, |bytes| decode(bytes, Request::TracepointCreate)),
    (subject::TRACEPOINT_REMOVE, |bytes| decode(bytes, Request::TracepointRemove)),
    (subject::LINES_GET, |bytes| decode(bytes, Request::LinesGet)),
];

/// Registers the service; requests go to `control`.
pub(super) async fn serve(
    client: &Client,
    version: &str,
    control: mpsc::Sender<Input>,
    tasks: &mut JoinSet<()>,
) -> Result<Service, CoordinatorError> {
    let failed = |error: async_nats::Error| CoordinatorError::Service { detail: error.to_string() };
    let builder = client.service_builder().description("RipTrace: the fleet, sessions and tracepoints");
    let service = builder.start(SERVICE, version).await.map_err(failed)?;
    for (to, decode) in ENDPOINTS {
        let mut endpoint = service.endpoint(to).await.map_err(failed)?;
        let control = control.clone();
        tasks.spawn(async move {
            while let Some(reply) = endpoint.next().await {
                match decode(&reply.message.payload) {
                    Ok(body) => {
                        if control.send(Input::Request { body, reply: Box::new(reply) }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let why = format!("{to}: the request cannot be read: {error}");
                        let _ = reply.respond(Ok(encode(&Reply::<()>::Error(why)).into())).await;
                    }
                }
            }
        });
    }
    Ok(service)
}

/// An answer as it goes out.
pub(super) fn encode_reply(reply: Result<ReplyBody, String>) -> Vec<u8> {
    match reply {
        Ok(ReplyBody::Fleet(body)) => encode(&Reply::Ok(body)),
        Ok(ReplyBody::Opened(body)) => encode(&Reply::Ok(body)),
        Ok(ReplyBody::Session(body)) => encode(&Reply::Ok(body)),
        Ok(ReplyBody::Tracepoint(body)) => encode(&Reply::Ok(body)),
        Ok(ReplyBody::Lines(body)) => encode(&Reply::Ok(body)),
        Err(why) => encode(&Reply::<()>::Error(why)),
    }
}

/// Our own messages have string keys only and always become JSON; if one ever did not, an error is sent, not nothing.
fn encode(message: &impl Serialize) -> Vec<u8> {
    let unreadable = |error: serde_json::Error| format!("{{\"error\":{:?}}}", error.to_string()).into_bytes();
    serde_json::to_vec(message).unwrap_or_else(unreadable)
}

//! A viewer: opens a session, creates tracepoints, and reads its stream, checking it at every item.

use crate::server::NatsServer;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::{Client, jetstream};
use futures::StreamExt;
use riptrace_protocol::agent_api::Reply;
use riptrace_protocol::coordinator_api::{
    FleetGet, SessionOpen, SessionOpened, SessionRef, SessionState, TracepointCreate, TracepointRemove,
};
use riptrace_protocol::fleet::{FleetView, TracepointStatus};
use riptrace_protocol::ids::{HostName, SessionId, TracepointId};
use riptrace_protocol::location::Location;
use riptrace_protocol::stream::{OrderedHit, StreamDrop, StreamItem, StreamMessage};
use riptrace_protocol::subject;
use riptrace_protocol::tracepoint::Tracepoint;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most time that anything in these tests waits for the coordinator.
const WAIT: Duration = Duration::from_secs(60);

pub(crate) fn tracepoint(id: &str) -> Tracepoint {
    let json = serde_json::json!({ "id": id, "location": Location::Line { file: "cart.go".into(), line: 42 } });
    serde_json::from_value(json).unwrap()
}

/// The viewer.
pub(crate) struct Viewer {
    client: Client,
    session: SessionId,
    stream: jetstream::consumer::pull::Ordered,
    layouts: BTreeSet<String>,
    next_number: BTreeMap<HostName, u64>,
    pub(crate) hits: Vec<OrderedHit>,
    pub(crate) drops: Vec<StreamDrop>,
}

async fn ask<T: DeserializeOwned>(client: &Client, to: &'static str, body: &impl Serialize) -> Option<Reply<T>> {
    let payload = serde_json::to_vec(body).unwrap();
    let message = client.request(to, payload.into()).await.ok()?;
    Some(serde_json::from_slice(&message.payload).unwrap())
}

/// Asks until somebody answers.
async fn answer<T: DeserializeOwned>(client: &Client, to: &'static str, body: &impl Serialize) -> Result<T, String> {
    let answered = async {
        loop {
            match ask(client, to, body).await {
                Some(Reply::Ok(answer)) => return Ok(answer),
                Some(Reply::Error(why)) => return Err(why),
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(WAIT, answered).await.expect("no answer")
}

impl Viewer {
    pub(crate) async fn wait_for_coordinator(server: &NatsServer) {
        let _: FleetView = answer(&server.client().await, subject::FLEET_GET, &FleetGet {}).await.unwrap();
    }

    pub(crate) async fn open(server: &NatsServer, session: &str) -> Viewer {
        let client = server.client().await;
        let session = SessionId::new(session).unwrap();
        let open = SessionOpen { session: session.clone(), viewer: "test".into() };
        let _: SessionOpened = answer(&client, subject::SESSION_OPEN, &open).await.unwrap();
        let stream = jetstream::new(client.clone()).get_stream(subject::SESSION_STREAM).await.unwrap();
        let config = OrderedConfig {
            filter_subject: subject::session_stream(&session),
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let stream = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        Viewer {
            client,
            session,
            stream,
            layouts: BTreeSet::new(),
            next_number: BTreeMap::new(),
            hits: Vec::new(),
            drops: Vec::new(),
        }
    }

    pub(crate) async fn wait_for_hosts(&self, count: usize) {
        let there = async {
            loop {
                let fleet: FleetView = answer(&self.client, subject::FLEET_GET, &FleetGet {}).await.unwrap();
                let ready =
                    |host: &&riptrace_protocol::fleet::HostView| host.alive && host.clock_uncertainty_ns.is_some();
                if fleet.hosts.iter().filter(ready).count() >= count {
                    return;
                }
            }
        };
        tokio::time::timeout(WAIT, there).await.expect("the hosts never came");
    }

    pub(crate) async fn create(&self, tracepoint: &Tracepoint) -> TracepointStatus {
        let create = TracepointCreate { session: self.session.clone(), tracepoint: tracepoint.clone() };
        answer(&self.client, subject::TRACEPOINT_CREATE, &create).await.unwrap()
    }

    pub(crate) async fn remove(&self, tracepoint: &str) -> Result<TracepointStatus, String> {
        let tracepoint = TracepointId::new(tracepoint).unwrap();
        let remove = TracepointRemove { session: self.session.clone(), tracepoint };
        answer(&self.client, subject::TRACEPOINT_REMOVE, &remove).await
    }

    pub(crate) async fn renew(&self) -> Result<SessionState, String> {
        answer(&self.client, subject::SESSION_RENEW, &SessionRef { session: self.session.clone() }).await
    }

    pub(crate) async fn close(&self) {
        let close = SessionRef { session: self.session.clone() };
        let _: SessionState = answer(&self.client, subject::SESSION_CLOSE, &close).await.unwrap();
    }

    /// Reads so many more hits and returns them.
    pub(crate) async fn read_hits(&mut self, count: usize) -> Vec<OrderedHit> {
        let from = self.hits.len();
        self.read_until(|viewer| viewer.hits.len() >= from + count).await;
        self.hits[from..].to_vec()
    }

    /// Reads until so many drops were told in all.
    pub(crate) async fn read_drops(&mut self, count: usize) {
        self.read_until(|viewer| viewer.drops.len() >= count).await;
    }

    async fn read_until(&mut self, done: impl Fn(&Viewer) -> bool) {
        let deadline = tokio::time::sleep(WAIT);
        tokio::pin!(deadline);
        let mut renew = tokio::time::interval(Duration::from_secs(2));
        while !done(self) {
            tokio::select! {
                message = self.stream.next() => match message.expect("the stream ends") {
                    Ok(message) => self.take(&StreamMessage::decode(&message.payload).unwrap()),
                    // The server was restarted: the ordered consumer makes itself anew.
                    Err(_) => tokio::task::yield_now().await,
                },
                _ = renew.tick() => {
                    let renew = serde_json::to_vec(&SessionRef { session: self.session.clone() }).unwrap();
                    self.client.publish(subject::SESSION_RENEW, renew.into()).await.unwrap();
                }
                () = &mut deadline => panic!("only {} hits and {:?}", self.hits.len(), self.drops),
            }
        }
    }

    fn take(&mut self, message: &StreamMessage) {
        for item in &message.items {
            match item {
                StreamItem::Layout(layout) => {
                    self.layouts.insert(layout.id().to_string());
                }
                StreamItem::Frames(_) => {}
                StreamItem::Hit(hit) => {
                    assert_eq!(hit.seq, self.hits.len() as u64 + 1, "a gap, or a hit shown twice");
                    assert!(self.layouts.contains(&hit.raw.layout.to_string()), "a hit before its layout");
                    let next = self.next_number.entry(hit.host.clone()).or_insert(0);
                    assert!(hit.raw.number >= *next, "hits of one host out of order");
                    *next = hit.raw.number + 1;
                    self.hits.push((**hit).clone());
                }
                StreamItem::Drop(drop) => self.drops.push(drop.clone()),
            }
        }
    }
}

//! An agent that speaks the real protocol but traces nothing: the test says when a hit happens.

use crate::server::NatsServer;
use async_nats::{Client, HeaderMap, header, jetstream};
use futures::StreamExt;
use riptrace_protocol::agent_api::{
    ClockPing, ClockPong, Create, CreateReply, Heartbeat, ListReply, Remove, RemoveReply, Reply,
};
use riptrace_protocol::batch::{Batch, FrameEntry};
use riptrace_protocol::fleet::{
    BuildFacts, HostProfile, Language, Mechanism, ProbeState, ProbeStatus, ProcessFacts, SiteFacts,
};
use riptrace_protocol::hit::{DropReason, Frame, RawDrop, RawHit};
use riptrace_protocol::ids::{Avma, BuildId, HostName, Incarnation, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::PUBLISH_INTERVAL_MS;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::subject;
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::Tracepoint;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most time that anything in these tests waits for an agent.
const WAIT: Duration = Duration::from_secs(60);
const PROCESS: ProcessKey = ProcessKey { pid: 812, start_time: 99 };
const SITE: Avma = Avma(0x40_1000);

/// True time of a hit, which the agent wrote into the hit's bytes: nanoseconds of the machine's clock.
pub(crate) fn truth(hit: &OrderedHit) -> u64 {
    u64::from_le_bytes(hit.raw.roots[..8].try_into().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "the agent of a live test reads the clock")]
fn machine_ns() -> u64 {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    u64::try_from(Instant::now().duration_since(origin).as_nanos()).unwrap() + 1_000_000_000
}

fn layout() -> Layout {
    Layout {
        build: BuildId("go:test".into()),
        language: Language::Go,
        site: SiteFacts { function: "main.main".into(), file: "cart.go".into(), line: 42 },
        moment: riptrace_protocol::layout::Moment::Line,
        variables: Vec::new(),
        types: Vec::new(),
        string_bytes: 0,
        elements: 0,
        depth: 0,
    }
}

struct Inner {
    host: HostName,
    incarnation: Incarnation,
    offset_ns: u64,
    tracepoints: BTreeMap<TracepointId, Tracepoint>,
    hits: VecDeque<RawHit>,
    drops: Vec<RawDrop>,
    next_hit: u64,
    next_batch: u64,
}

impl Inner {
    fn now_ns(&self) -> u64 {
        machine_ns() + self.offset_ns
    }

    fn domain(&self) -> ClockDomain {
        ClockDomain(format!("boot-of-{}", self.host))
    }

    fn status(&self, tracepoint: &TracepointId, state: ProbeState) -> ProbeStatus {
        ProbeStatus {
            tracepoint: tracepoint.clone(),
            process: ProcessId { host: self.host.clone(), key: PROCESS },
            service: "cart".into(),
            build: BuildId("go:test".into()),
            state,
            mechanism: Some(Mechanism::Ptrace),
            sites: vec![layout().site],
            reason: None,
            note: None,
            passages: 0,
            hits: 0,
            dropped: 0,
            unfinished: false,
        }
    }

    fn profile(&self) -> HostProfile {
        let build = BuildFacts {
            id: BuildId("go:test".into()),
            language: Language::Go,
            dwarf: true,
            go_version: None,
            module: None,
            module_version: None,
            vcs_revision: None,
            vcs_modified: None,
            settings: Default::default(),
        };
        let process = ProcessFacts {
            key: PROCESS,
            service: "cart".into(),
            exe: "/cart".into(),
            build,
            container: None,
            labels: BTreeMap::new(),
            refused: None,
        };
        HostProfile {
            host: self.host.clone(),
            incarnation: self.incarnation,
            version: "0.1.0".into(),
            kernel: "test".into(),
            clock_domain: self.domain(),
            labels: BTreeMap::new(),
            revision: 1,
            processes: vec![process],
        }
    }

    fn batch(&mut self) -> Batch {
        let hits: Vec<RawHit> = self.hits.drain(..).collect();
        let batch = Batch {
            host: self.host.clone(),
            incarnation: self.incarnation,
            number: self.next_batch,
            clock_domain: self.domain(),
            watermark_ns: self.now_ns(),
            first_hit: hits.first().map_or(self.next_hit, |hit| hit.number),
            frames: if self.next_batch == 0 { vec![frame()] } else { Vec::new() },
            hits,
            drops: std::mem::take(&mut self.drops),
        };
        self.next_batch += u64::from(!batch.is_watermark());
        batch
    }
}

fn frame() -> FrameEntry {
    let frame = Frame { function: "main.main".into(), file: "cart.go".into(), line: 42, inlined: false };
    FrameEntry { build: BuildId("go:test".into()), process: PROCESS, pc: SITE, frames: vec![frame] }
}

/// A tracepoint whose passages are not all counted when its removal is first asked for.
pub(crate) const STARVED: &str = "starved";

/// The agent; ends when dropped.
pub(crate) struct FakeAgent {
    inner: Arc<Mutex<Inner>>,
    armed: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl FakeAgent {
    /// Starts an agent whose clock is ahead of the machine's by `offset_ns`.
    pub(crate) async fn start(server: &NatsServer, name: &str, offset_ns: u64) -> FakeAgent {
        let host = HostName::new(name).unwrap();
        let inner = Arc::new(Mutex::new(Inner {
            host: host.clone(),
            incarnation: Incarnation(machine_ns()),
            offset_ns,
            tracepoints: BTreeMap::new(),
            hits: VecDeque::new(),
            drops: Vec::new(),
            next_hit: 0,
            next_batch: 0,
        }));
        let client = server.client().await;
        let (told, armed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let serve = [
            subject::profile_get(&host),
            subject::create_tracepoint(&host),
            subject::remove_tracepoint(&host),
            subject::list_tracepoints(&host),
            subject::clock_ping(&host),
        ];
        for to in serve {
            let mut requests = client.subscribe(to).await.unwrap();
            let (client, inner, told) = (client.clone(), inner.clone(), told.clone());
            tasks.spawn(async move {
                while let Some(request) = requests.next().await {
                    let answer = answer(&mut inner.lock().unwrap(), &request.subject, &request.payload);
                    told.send_replace(inner.lock().unwrap().tracepoints.len());
                    client.publish(request.reply.unwrap(), answer.into()).await.unwrap();
                }
            });
        }
        client.flush().await.unwrap();
        tasks.spawn(heartbeats(client.clone(), inner.clone()));
        tasks.spawn(batches(client, inner.clone()));
        FakeAgent { inner, armed, _tasks: tasks }
    }

    /// A thread passes the site of a tracepoint now.
    pub(crate) async fn hit(&self, tracepoint: &str) {
        {
            let mut inner = self.inner.lock().unwrap();
            let at_ns = machine_ns();
            let hit = RawHit {
                number: inner.next_hit,
                tracepoint: TracepointId::new(tracepoint).unwrap(),
                process: PROCESS,
                layout: layout().id(),
                time_ns: at_ns + inner.offset_ns,
                thread: 1,
                goroutine: None,
                roots: at_ns.to_le_bytes().to_vec(),
                root_states: Vec::new(),
                chunks: Vec::new(),
                stack: vec![SITE],
                stack_end: riptrace_protocol::hit::StackEnd::Whole,
                duration_ns: None,
            };
            inner.next_hit += 1;
            inner.hits.push_back(hit);
        }
        tokio::task::yield_now().await;
    }

    /// A batch with `hits` hits never reaches the bus.
    pub(crate) async fn lose_next_batch(&self, hits: u64) {
        for _ in 0..hits {
            // Hits and batch are taken away under one lock: none of them can be published.
            let mut inner = self.inner.lock().unwrap();
            inner.next_hit += 1;
        }
        self.inner.lock().unwrap().next_batch += 1;
    }

    /// Hits that the agent itself did not keep.
    pub(crate) async fn drop_hits(&self, tracepoint: &str, count: u64) {
        let tracepoint = TracepointId::new(tracepoint).unwrap();
        let drop = RawDrop { tracepoint, process: PROCESS, reason: DropReason::Rate, count };
        self.inner.lock().unwrap().drops.push(drop);
    }

    pub(crate) fn armed(&self) -> Vec<TracepointId> {
        self.inner.lock().unwrap().tracepoints.keys().cloned().collect()
    }

    pub(crate) async fn wait_for_armed(&self, count: usize) {
        let mut armed = self.armed.clone();
        tokio::time::timeout(WAIT, armed.wait_for(|&now| now == count)).await.expect("never armed so").unwrap();
    }
}

fn answer(inner: &mut Inner, to: &str, payload: &[u8]) -> Vec<u8> {
    fn ok<T: Serialize>(body: T) -> Vec<u8> {
        serde_json::to_vec(&Reply::Ok(body)).unwrap()
    }
    let kind = to.rsplit('.').next().unwrap();
    match kind {
        "ping" => {
            let received_ns = inner.now_ns();
            let ping: ClockPing = serde_json::from_slice(payload).unwrap();
            let pong = ClockPong {
                sent_ns: ping.sent_ns,
                clock_domain: inner.domain(),
                received_ns,
                replied_ns: inner.now_ns(),
                incarnation: inner.incarnation,
            };
            serde_json::to_vec(&pong).unwrap()
        }
        "get" => ok(inner.profile()),
        "createTracepoint" => {
            let create: Create = serde_json::from_slice(payload).unwrap();
            let id = create.tracepoint.id.clone();
            inner.tracepoints.insert(id.clone(), create.tracepoint);
            ok(CreateReply { probes: vec![inner.status(&id, ProbeState::Armed)], layouts: vec![layout()] })
        }
        "removeTracepoint" => {
            let remove: Remove = serde_json::from_slice(payload).unwrap();
            let id = &remove.tracepoint;
            let gone = inner.tracepoints.remove(id);
            let mut probes: Vec<ProbeStatus> =
                gone.iter().map(|gone| inner.status(&gone.id, ProbeState::Off)).collect();
            if id.as_str() == STARVED {
                // Asked for the first time it knows less than when it is asked again.
                let (passages, unfinished) = if gone.is_some() { (197, true) } else { (1308, false) };
                let status = ProbeStatus { passages, unfinished, ..inner.status(id, ProbeState::Off) };
                probes = vec![status];
            }
            ok(RemoveReply { probes })
        }
        _ => ok(ListReply {
            incarnation: inner.incarnation,
            tracepoints: inner.tracepoints.values().cloned().collect(),
            probes: inner.tracepoints.keys().map(|id| inner.status(id, ProbeState::Armed)).collect(),
            layouts: vec![layout()],
            frames: vec![frame()],
        }),
    }
}

async fn heartbeats(client: Client, inner: Arc<Mutex<Inner>>) {
    let mut every = tokio::time::interval(Duration::from_millis(200));
    loop {
        every.tick().await;
        let (host, incarnation) = {
            let inner = inner.lock().unwrap();
            (inner.host.clone(), inner.incarnation)
        };
        let to = subject::status(&host);
        let heartbeat = Heartbeat { host, incarnation, profile_revision: 1, probes: Vec::new(), leaving: false };
        let _ = client.publish(to, serde_json::to_vec(&heartbeat).unwrap().into()).await;
    }
}

/// Publishes what there is, each batch until it is stored, in order.
async fn batches(client: Client, inner: Arc<Mutex<Inner>>) {
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(1));
    let mut every = tokio::time::interval(Duration::from_millis(PUBLISH_INTERVAL_MS));
    loop {
        every.tick().await;
        let batch = {
            let mut inner = inner.lock().unwrap();
            if inner.tracepoints.is_empty() && inner.hits.is_empty() {
                continue;
            }
            inner.batch()
        };
        let id = format!("{}-{}", batch.incarnation.0, batch.number);
        let payload: bytes::Bytes = batch.encode().unwrap().into();
        loop {
            let mut headers = HeaderMap::new();
            if !batch.is_watermark() {
                headers.insert(header::NATS_MESSAGE_ID, id.as_str());
            }
            let sent = context.publish_with_headers(subject::trace(&batch.host), headers, payload.clone()).await;
            let Ok(stored) = sent else { continue };
            if stored.await.is_ok() {
                break;
            }
        }
    }
}

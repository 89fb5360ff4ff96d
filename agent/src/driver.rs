//! The service's driver: NATS, timers and blocking work around the pure [`State`].
//!
//! ```text
//!  NATS requests --> requests --+                       +--> speaker --> NATS replies, heartbeats
//!  clock pings ----> watch -----+                       |
//!  /proc, each s --> lookout ---+--> State::handle -----+--> workers --> builds, plans, engines
//!  workers --------> news ------+    (one task)         |
//!  engines --------> news ------+                       +--> publisher (active, frames)
//! ```
//!
//! One task owns the state and never waits for anything but the next event: what takes time (the bus, files, stopped
//! threads) is done elsewhere and comes back as an event. Requests that come faster than they are handled wait in the
//! subscription.

mod builds;
mod clock_exchange;
mod discovery;
mod engines;
mod lookout;
#[cfg(test)]
mod native;
mod patches;
mod pushed;
mod requests;
mod rival;
mod stacks;
mod sweeper;
mod worker;

use crate::clock;
use crate::config::{AgentConfig, AgentError};
use crate::engine::EngineEvent;
use crate::event::{Answer, Effect, Event, Gone, RequestId};
use crate::publish::bus::JetStreamBus;
use crate::publish::outbox::BACKLOG_BYTES_MAX;
use crate::publish::packer::Source;
use crate::publish::publisher::Publisher;
use crate::publish::sink::{HitQueue, QueueLimits};
use crate::state::State;
use async_nats::client::RequestErrorKind;
use async_nats::connection::State as Connection;
use async_nats::service::{Request, Service, ServiceExt};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use builds::Builds;
use bytes::Bytes;
use engines::{Engines, Epoch};
use futures::StreamExt;
use lookout::{Lookout, Sight};
use requests::{Kind, PID_HEADER};
use riptrace_protocol::agent_api::{Heartbeat, ProfileGet, Reply};
use riptrace_protocol::fleet::HostProfile;
use riptrace_protocol::ids::{HostName, Incarnation, ProcessKey};
use riptrace_protocol::limits::{CALM_WATERMARK_MS, HEARTBEAT_MS, HOST_LEASE_MS, MESSAGE_BYTES_MAX};
use riptrace_protocol::subject;
use rival::Rival;
use std::collections::HashMap;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use worker::{Host, News, Workers};

/// Everything that is done again and again is done when the lookout has looked around ([`lookout::PAUSE`]), all of it at
/// once: to wake up is what costs. Heartbeats and a calm host's watermark are said as often. If a look takes longer than
/// this, the pulse does not wait for it: well within the lease of a host. It is not shorter since a timer that is put off
/// again and again still wakes its thread up once in its time.
const PULSE_MAX: Duration = Duration::from_millis(HEARTBEAT_MS * 3);
const _: () = assert!(HEARTBEAT_MS * 3 < HOST_LEASE_MS);
const _: () = assert!(lookout::PAUSE.as_millis() as u64 == HEARTBEAT_MS && CALM_WATERMARK_MS == HEARTBEAT_MS);
/// The state is told that time went on when nothing has happened for so long: a fraction of its shortest time.
const TICK: Duration = Duration::from_millis(200);
/// Requests that were read and wait for the state, at most: further ones wait in the subscriptions.
const REQUESTS_MAX: usize = 64;
/// Replies and heartbeats that wait for the connection, at most. More are lost and logged: whoever asked asks again,
/// and heartbeats repeat themselves.
const SAYINGS_MAX: usize = 1024;
/// How long an agent that may have the same name has to answer.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the connection may take for the last words.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Room that a message's subject and headers take beside its payload, in bytes.
const HEADER_BYTES: usize = 4096;
/// Version of an agent that does not say it.
const UNKNOWN_VERSION: &str = "of unknown version";
/// Name of the service, as in `nats micro ls`.
const SERVICE: &str = "riptrace-agent";

/// Serves one host until `shutdown` is ready: discovers its processes, arms and removes probes as a coordinator asks,
/// and publishes hits. When it returns, all probes are out.
pub async fn run(client: Client, config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let clock_domain = clock::clock_domain()?;
    let incarnation = random_incarnation().map_err(AgentError::Random)?;
    refuse_if_taken(&client, &config.host).await?;

    let builds = Arc::new(Builds::new(config.symbols.clone(), pushed::sources(&client, &config)));
    let queue = HitQueue::new(QueueLimits::default());
    let sink = queue.sink();
    let publisher = Publisher::new(
        Source { host: config.host.clone(), incarnation, clock_domain: clock_domain.clone() },
        client.max_payload().saturating_sub(HEADER_BYTES),
        BACKLOG_BYTES_MAX,
        queue,
        Arc::clone(&builds) as _,
        JetStreamBus::new(client.clone(), subject::trace(&config.host)),
    );
    let (news, heard_news) = mpsc::unbounded_channel();
    let host = Arc::new(Host {
        builds,
        engines: Engines::default(),
        publisher: publisher.handle(),
        sink,
        mechanisms: config.mechanisms,
        cpu_percent: config.cpu_percent,
        news,
    });

    let mut tasks = JoinSet::new();
    let (heard, heard_coordinator) = watch::channel(None);
    let pings = subject::clock_ping(&config.host);
    let pings = client.subscribe(pings.clone()).await.map_err(|error| cannot_serve(&pings, error))?;
    let watermarks = host.publisher.clone();
    tasks.spawn(clock_exchange::serve(client.clone(), pings, clock_domain.clone(), incarnation, heard, watermarks));
    let status = subject::status(&config.host);
    let own_status = client.subscribe(status.clone()).await.map_err(|error| cannot_serve(&status, error))?;
    let (service, requests) = serve_requests(&client, &config, &mut tasks).await?;
    // Whoever hears of the agent from now on finds its subscriptions.
    client.flush().await.map_err(|error| cannot_serve(SERVICE, error))?;
    let (seen, sights) = mpsc::channel(1);
    let lookout = Lookout::start(Arc::clone(&host), config.clone(), seen).map_err(AgentError::Thread)?;
    let publisher = tokio::spawn(publisher.run());
    let (sayings, to_say) = mpsc::channel(SAYINGS_MAX);
    let speaker = tokio::spawn(speak(client.clone(), status.clone(), to_say));
    tracing::info!(host = %config.host, incarnation = incarnation.0, "the agent serves");

    let profile = HostProfile {
        host: config.host.clone(),
        incarnation,
        version: config.version.clone(),
        kernel: kernel(),
        clock_domain,
        labels: config.labels.clone(),
        revision: 0,
        processes: Vec::new(),
    };
    let agent = Agent {
        state: State::new(profile),
        incarnation,
        workers: Workers::new(Arc::clone(&host)),
        host: Arc::clone(&host),
        pending: HashMap::new(),
        next_request: 0,
        sayings,
        rival: Rival::default(),
        _lookout: lookout,
        farewell: None,
        finished: false,
    };
    let inputs = Inputs { requests, news: heard_news, heard: heard_coordinator, sights, own_status };
    let (result, farewell) = agent.serve(inputs, shutdown).await;

    tasks.shutdown().await;
    let last = Arc::clone(&host);
    // Whatever the state believes: no process keeps a probe when its agent goes.
    if tokio::task::spawn_blocking(move || last.engines.close()).await.is_err() {
        tracing::error!("an engine failed while it let go of its process");
    }
    host.publisher.finish();
    let _ = publisher.await;
    if let Some(farewell) = farewell {
        say_heartbeat(&client, &status, farewell).await;
    }
    // The speaker ends when everything that was to be said is said; the agent's end of it is gone.
    let last_words = async {
        let _ = speaker.await;
        let _ = service.stop().await;
        let _ = client.flush().await;
    };
    if timeout(FAREWELL_TIMEOUT, last_words).await.is_err() {
        tracing::warn!("NATS did not take the agent's last words in time");
    }
    tracing::info!(host = %config.host, "the agent is gone");
    result
}

fn cannot_serve(subject: &str, error: impl std::fmt::Display) -> AgentError {
    AgentError::Serve { subject: subject.to_owned(), why: error.to_string() }
}

fn random_incarnation() -> std::io::Result<Incarnation> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // It travels in JSON, where many readers keep 53 bits of a number.
    Ok(Incarnation(u64::from_le_bytes(bytes) >> 11))
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn now_ms() -> u64 {
    clock::domain_now_ns() / 1_000_000
}

/// Two agents of one name would each do a part of what is asked.
async fn refuse_if_taken(client: &Client, host: &HostName) -> Result<(), AgentError> {
    let question = Bytes::from(serde_json::to_vec(&ProfileGet {}).unwrap_or_default());
    let request = async_nats::Request::new().payload(question).timeout(Some(TAKEN_TIMEOUT));
    let subject = subject::profile_get(host);
    match client.send_request(subject.clone(), request).await {
        Ok(message) => {
            let reply = serde_json::from_slice::<Reply<HostProfile>>(&message.payload);
            let version = match reply {
                Ok(Reply::Ok(profile)) => profile.version,
                Ok(Reply::Error(_)) | Err(_) => UNKNOWN_VERSION.to_owned(),
            };
            let pid = message.headers.and_then(|headers| headers.get(PID_HEADER).map(ToString::to_string));
            Err(AgentError::HostTaken { host: host.clone(), version, pid })
        }
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
        Err(error) if error.kind() == RequestErrorKind::TimedOut => {
            // A machine that lost power still has its subscriptions, until the server notices.
            tracing::warn!(%host, "NATS knows an agent of this name that does not answer; going on without it");
            Ok(())
        }
        Err(error) => Err(cannot_serve(&subject, error)),
    }
}

/// A request with what it takes to answer it.
struct Incoming {
    kind: Kind,
    request: Box<Request>,
}

/// Registers the agent as a NATS service whose endpoints are the host's subjects.
async fn serve_requests(
    client: &Client,
    config: &AgentConfig,
    tasks: &mut JoinSet<()>,
) -> Result<(Service, mpsc::Receiver<Incoming>), AgentError> {
    let metadata = HashMap::from([
        ("host".to_owned(), config.host.to_string()),
        ("pid".to_owned(), std::process::id().to_string()),
    ]);
    let service = client
        .service_builder()
        .description(format!("RipTrace on host {}", config.host))
        .metadata(metadata)
        .start(SERVICE, &config.version)
        .await
        .map_err(|error| cannot_serve(SERVICE, error))?;
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    for kind in Kind::ALL {
        let subject = kind.subject(&config.host);
        let mut endpoint = service.endpoint(&subject).await.map_err(|error| cannot_serve(&subject, error))?;
        let sender = sender.clone();
        tasks.spawn(async move {
            while let Some(request) = endpoint.next().await {
                if sender.send(Incoming { kind, request: Box::new(request) }).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok((service, receiver))
}

/// What is to be said on NATS.
enum Saying {
    Reply { request: Box<Request>, payload: Bytes },
    Heartbeat(Heartbeat),
}

/// Says things, in order.
async fn speak(client: Client, status: String, mut sayings: mpsc::Receiver<Saying>) {
    while let Some(saying) = sayings.recv().await {
        match saying {
            Saying::Reply { request, payload } => {
                let mut headers = HeaderMap::new();
                headers.insert(PID_HEADER, std::process::id().to_string());
                if let Err(error) = request.respond_with_headers(Ok(payload), headers).await {
                    tracing::debug!(%error, subject = %request.message.subject, "a request could not be answered");
                }
            }
            Saying::Heartbeat(heartbeat) => say_heartbeat(&client, &status, heartbeat).await,
        }
    }
}

/// Publishes a heartbeat, in several messages when it is too large for one. While NATS is away, it is not kept: it
/// would be old when it arrives.
async fn say_heartbeat(client: &Client, status: &str, heartbeat: Heartbeat) {
    if client.connection_state() != Connection::Connected {
        return;
    }
    let mut rest = vec![heartbeat];
    while let Some(mut heartbeat) = rest.pop() {
        let payload = serde_json::to_vec(&heartbeat).unwrap_or_default();
        if payload.len() > MESSAGE_BYTES_MAX && heartbeat.probes.len() > 1 {
            let probes = heartbeat.probes.split_off(heartbeat.probes.len() / 2);
            rest.push(Heartbeat { probes, ..heartbeat.clone() });
            rest.push(heartbeat);
        } else if let Err(error) = client.publish(status.to_owned(), payload.into()).await {
            tracing::debug!(%error, "a heartbeat could not be published");
        }
    }
}

/// Where events come from.
struct Inputs {
    requests: mpsc::Receiver<Incoming>,
    news: mpsc::UnboundedReceiver<News>,
    heard: watch::Receiver<clock_exchange::Heard>,
    sights: mpsc::Receiver<Sight>,
    own_status: Subscriber,
}

/// The state with what carries its effects out.
struct Agent {
    state: State,
    incarnation: Incarnation,
    workers: Workers,
    host: Arc<Host>,
    pending: HashMap<RequestId, Box<Request>>,
    next_request: u64,
    sayings: mpsc::Sender<Saying>,
    rival: Rival,
    /// It looks for as long as this is there.
    _lookout: Lookout,
    /// The last heartbeat: it is said when everything else is done.
    farewell: Option<Heartbeat>,
    finished: bool,
}

impl Agent {
    async fn serve(
        mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> (Result<(), AgentError>, Option<Heartbeat>) {
        tokio::pin!(shutdown);
        let mut stopping = false;
        let mut result = Ok(());
        let overdue = sleep(PULSE_MAX);
        tokio::pin!(overdue);
        while !self.finished {
            let is_quiet = self.state.is_quiet();
            tokio::select! {
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    self.tell(Event::Shutdown);
                }
                incoming = inputs.requests.recv(), if result.is_ok() => match incoming {
                    Some(incoming) => self.asked(incoming),
                    None => {
                        result = Err(AgentError::Closed);
                        stopping = true;
                        self.tell(Event::Shutdown);
                    }
                },
                Some(message) = inputs.own_status.next() => {
                    if let Some(taken) = self.gives_way(&message).filter(|_| result.is_ok()) {
                        result = Err(taken);
                        stopping = true;
                        self.tell(Event::Shutdown);
                    }
                }
                Some(news) = inputs.news.recv() => self.news(news).await,
                Ok(()) = inputs.heard.changed() => {
                    let heard = *inputs.heard.borrow_and_update();
                    if let Some((coordinator, _)) = heard {
                        self.tell(Event::CoordinatorHeard(coordinator));
                    }
                }
                Some(Sight { processes, counts }) = inputs.sights.recv() => {
                    if let Some(processes) = processes {
                        self.tell(Event::Discovered(processes));
                    }
                    if !counts.is_empty() {
                        self.tell(Event::Counted(counts));
                    }
                    self.pulse();
                    overdue.as_mut().reset(Instant::now() + PULSE_MAX);
                }
                () = &mut overdue => {
                    self.pulse();
                    overdue.as_mut().reset(Instant::now() + PULSE_MAX);
                }
                () = sleep(TICK), if !is_quiet => self.tell(Event::Tick),
            }
        }
        (result, self.farewell)
    }

    /// What is done again and again.
    fn pulse(&mut self) {
        self.host.publisher.pulse();
        self.tell(Event::Tick);
    }

    /// Whether another agent of this name stays and this one goes.
    fn gives_way(&mut self, message: &Message) -> Option<AgentError> {
        let heartbeat: Heartbeat = serde_json::from_slice(&message.payload).ok()?;
        let (host, version) = (self.state.host().clone(), UNKNOWN_VERSION.to_owned());
        let gives_way = self.rival.heard(self.incarnation, &heartbeat);
        gives_way.then_some(AgentError::HostTaken { host, version, pid: None })
    }

    fn asked(&mut self, incoming: Incoming) {
        let Incoming { kind, request } = incoming;
        match kind.read(self.state.host(), &request.message.payload) {
            Ok(ask) => {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                self.pending.insert(id, request);
                self.tell(Event::Asked { request: id, ask });
            }
            Err(why) => {
                tracing::warn!("{why}");
                self.say(Saying::Reply { request, payload: requests::refusal(why) });
            }
        }
    }

    async fn news(&mut self, news: News) {
        match news {
            News::Done { process, job, outcome } => {
                self.workers.done(process);
                self.tell(Event::Done { job, outcome });
            }
            News::Engine { process, epoch, event } => self.engine_news(process, epoch, event).await,
        }
    }

    async fn engine_news(&mut self, process: ProcessKey, epoch: Epoch, event: EngineEvent) {
        if !self.host.engines.is_current(process, epoch) {
            return;
        }
        // Its last counts, while the engine still has them. A few words of memory: this does not take long.
        let host = Arc::clone(&self.host);
        if let Ok(counts) = tokio::task::spawn_blocking(move || host.count(Some(process))).await {
            self.tell(Event::Counted(counts));
        }
        let how = match event {
            EngineEvent::Exited { status } => Gone::Exited(how_it_ended(status)),
            EngineEvent::Execed => {
                self.host.publisher.forget_frames(process);
                Gone::Execed
            }
            EngineEvent::Lost { why } => Gone::Lost(why),
        };
        self.tell(Event::ProcessGone { process, how });
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.state.handle(now_ms(), event, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { request, answer } => self.reply(request, answer),
            Effect::Run { job, process, work } => self.workers.run(process, job, work),
            Effect::Heartbeat(heartbeat) if heartbeat.leaving => self.farewell = Some(heartbeat),
            Effect::Heartbeat(heartbeat) => self.say(Saying::Heartbeat(heartbeat)),
            Effect::ProbesExist(exist) => self.host.publisher.set_active(exist),
            Effect::NewCoordinator => self.host.publisher.forget_sent_frames(),
            Effect::Finished => self.finished = true,
        }
    }

    fn reply(&mut self, to: RequestId, answer: Answer) {
        if let Some(request) = self.pending.remove(&to) {
            let publisher = self.host.publisher.clone();
            let payload = requests::write(answer, self.incarnation, |bytes_max| publisher.frames(bytes_max));
            self.say(Saying::Reply { request, payload });
        }
    }

    fn say(&mut self, saying: Saying) {
        if self.sayings.try_send(saying).is_err() {
            tracing::warn!("NATS takes nothing: an answer or a heartbeat is lost (whoever asked asks again)");
        }
    }
}

/// A wait status in words: waitpid(2).
fn how_it_ended(status: Option<i32>) -> String {
    let Some(status) = status else { return "its status is not known".to_owned() };
    if libc::WIFEXITED(status) {
        format!("exit status {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("wait status {status:#x}")
    }
}

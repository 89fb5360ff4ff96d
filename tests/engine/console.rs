//! A coordinator by hand: asks one real agent for tracepoints, without an order to keep or a person to tell, and adds
//! up what arrives.
//!
//! Invariants that it checks of every batch: numbers without gaps within one run of the agent, hits in the order of
//! time, and none that is older than what was promised before.

use crate::support::{
    SOON,
    fleet::{Fleet, FleetOptions},
};
use async_nats::Client;
use async_nats::jetstream::{self, consumer::pull::OrderedConfig, stream};
use futures::StreamExt;
use riptrace_protocol::agent_api::{ClockPing, CreateReply, ListReply, RemoveReply, Reply};
use riptrace_protocol::batch::Batch;
use riptrace_protocol::fleet::{HostProfile, Mechanism, ProbeState, ProbeStatus};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{HostName, Incarnation, ProcessKey};
use riptrace_protocol::{limits, subject};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long an agent may take to answer. The targets leave it little of the machine.
const ANSWER: Duration = Duration::from_secs(60);
/// How long an agent is asked again and again: on a machine whose processors all others take first, its threads and those
/// of the test are given a few thousandths of them.
const PATIENCE: Duration = Duration::from_secs(420);
/// How long an answer to a ping is waited for before the next one.
const PONG: Duration = Duration::from_secs(1);
/// What the client says of a request that was not answered.
const TIMED_OUT: &str = "timed out";
/// How often the counts are looked at.
const POLL: Duration = Duration::from_millis(10);
/// Name of the one host.
pub(crate) const HOST: &str = "h";

/// What arrived of one tracepoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Hits.
    pub(crate) hits: u64,
    /// Drops, by reason.
    pub(crate) drops: BTreeMap<DropReason, u64>,
}

impl Tally {
    /// Drops of any reason.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

/// What was read of the stream.
#[derive(Default)]
struct Read {
    tallies: HashMap<String, Tally>,
    /// Of each run of the agent: next batch, next hit, watermark.
    runs: HashMap<Incarnation, (u64, u64, u64)>,
    batches: u64,
    wrong: Option<String>,
}

impl Read {
    fn batch(&mut self, batch: &Batch) -> Result<(), String> {
        let (next, hit, watermark) = self.runs.entry(batch.incarnation).or_default();
        if (*next, *hit) != (batch.number, batch.first_hit) {
            return Err(format!("batch {next} was to begin with hit {hit}: {} {}", batch.number, batch.first_hit));
        }
        if let Some(old) = batch.hits.iter().find(|old| old.time_ns < *watermark) {
            return Err(format!("a hit at {} after the promise of {watermark}: {old:?}", old.time_ns));
        }
        if batch.watermark_ns < *watermark {
            return Err(format!("watermark {} after {watermark}", batch.watermark_ns));
        }
        self.batches += 1;
        (*next, *hit, *watermark) =
            (*next + u64::from(!batch.is_watermark()), *hit + batch.hits.len() as u64, batch.watermark_ns);
        for hit in &batch.hits {
            self.tallies.entry(hit.tracepoint.as_str().to_owned()).or_default().hits += 1;
        }
        for drop in &batch.drops {
            let tally = self.tallies.entry(drop.tracepoint.as_str().to_owned()).or_default();
            *tally.drops.entry(drop.reason).or_default() += drop.count;
        }
        Ok(())
    }
}

/// One host with its agent, and who asks it.
pub(crate) struct Console {
    pub(crate) fleet: Fleet,
    client: Client,
    host: HostName,
    read: Arc<Mutex<Read>>,
    tasks: Vec<JoinHandle<()>>,
    heard: Arc<Mutex<Heard>>,
    next_id: u64,
}

/// When the agent last answered a ping, and the longest that it has not.
struct Heard {
    last: Instant,
    longest: Duration,
}

impl Console {
    /// A bus and an agent that serves.
    #[track_caller]
    pub(crate) fn start() -> Console {
        Self::start_with(FleetOptions::hosts(&[HOST]))
    }

    #[track_caller]
    pub(crate) fn start_with(options: FleetOptions) -> Console {
        let mut console = Self::without_agent(options);
        console.fleet.start_agent(HOST);
        console.until_served();
        console
    }

    /// A bus only.
    #[track_caller]
    pub(crate) fn without_agent(options: FleetOptions) -> Console {
        let fleet = Fleet::start_bus(options);
        let host = HostName::new(HOST).expect("a name");
        let url = fleet.nats_url();
        let read = Arc::<Mutex<Read>>::default();
        let runtime = fleet.runtime().handle().clone();
        let client = runtime.block_on(async { async_nats::connect(&url).await.expect("the bus") });
        let reader = runtime.block_on(read_stream(client.clone(), &host, Arc::clone(&read)));
        let heard = Arc::new(Mutex::new(Heard { last: Instant::now(), longest: Duration::ZERO }));
        let pinger = runtime.spawn(keep_lease(client.clone(), host.clone(), Arc::clone(&heard)));
        Console { fleet, client, host, read, tasks: vec![reader, pinger], heard, next_id: 0 }
    }

    /// Waits for the agent to serve.
    #[track_caller]
    pub(crate) fn until_served(&mut self) {
        let subject = subject::profile_get(&self.host);
        crate::support::eventually("the agent serves", SOON, || {
            self.fleet.agent(HOST).assert_running();
            let client = self.client.clone();
            self.fleet.runtime().block_on(async { client.request(subject.clone(), "{}".into()).await.ok() })
        });
    }

    /// Asks the agent.
    pub(crate) async fn ask_with<T: DeserializeOwned>(
        client: &Client,
        subject: String,
        request: Value,
    ) -> Result<T, String> {
        let request = async_nats::Request::new().payload(request.to_string().into()).timeout(Some(ANSWER));
        let message = client.send_request(subject.clone(), request).await.map_err(|e| format!("{subject}: {e}"))?;
        match serde_json::from_slice(&message.payload).map_err(|e| format!("{subject}: {e}"))? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(why) => Err(why),
        }
    }

    #[track_caller]
    fn ask<T: DeserializeOwned>(&mut self, subject: String, request: Value) -> T {
        let client = self.client.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.fleet.runtime().block_on(Self::ask_with(&client, subject.clone(), request.clone()));
            let agent = self.fleet.agent(HOST);
            match answer {
                Ok(answer) => return answer,
                // As a coordinator does: whatever was asked is asked again, until it is answered.
                Err(why) if why.contains(TIMED_OUT) && Instant::now() < deadline && agent.is_running() => {
                    eprintln!("{why}; it is asked again\n{}", threads_of(agent.pid()));
                }
                Err(why) => panic!("{why}\n{}\n{}", threads_of(agent.pid()), agent.story()),
            }
        }
    }

    /// The client, the runtime and the host, for a test that asks in the background.
    pub(crate) fn asker(&self) -> (Client, tokio::runtime::Handle, HostName) {
        (self.client.clone(), self.fleet.runtime().handle().clone(), self.host.clone())
    }

    /// The process, once the agent has discovered it.
    #[track_caller]
    pub(crate) fn process(&mut self, pid: i32) -> ProcessKey {
        let subject = subject::profile_get(&self.host);
        let client = self.client.clone();
        let runtime = self.fleet.runtime().handle().clone();
        crate::support::eventually("the agent has found the target", SOON, || {
            self.fleet.agent(HOST).assert_running();
            let ask = Self::ask_with::<HostProfile>(&client, subject.clone(), json!({}));
            let profile = runtime.block_on(ask).ok()?;
            let found = profile.processes.into_iter().find(|facts| i64::from(facts.key.pid) == i64::from(pid))?;
            assert_eq!(found.refused, None);
            Some(found.key)
        })
    }

    /// The request to arm a tracepoint; `what` has its fields besides id and location.
    pub(crate) fn create(id: &str, location: &Value, what: &Value, process: ProcessKey) -> Value {
        let mut tracepoint = json!({"id": id, "location": location});
        for (name, value) in what.as_object().into_iter().flatten() {
            tracepoint[name] = value.clone();
        }
        json!({"tracepoint": tracepoint, "processes": [process]})
    }

    /// An id that no other tracepoint of this console has.
    pub(crate) fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        format!("t{}", self.next_id)
    }

    /// Asks for a tracepoint, and says what became of it.
    #[track_caller]
    pub(crate) fn try_arm(&mut self, location: &Value, what: &Value, process: ProcessKey) -> (String, ProbeStatus) {
        let id = self.fresh_id();
        let request = Self::create(&id, location, what, process);
        let reply: CreateReply = self.ask(subject::create_tracepoint(&self.host), request);
        let [mut probe] = <[ProbeStatus; 1]>::try_from(reply.probes).expect("one status");
        // An agent that was off its processor for long answers before it is done.
        let deadline = Instant::now() + PATIENCE;
        while probe.state == ProbeState::Pending && Instant::now() < deadline {
            let reply: ListReply = self.ask(subject::list_tracepoints(&self.host), json!({}));
            let found = reply.probes.into_iter().find(|status| status.tracepoint == probe.tracepoint);
            probe = found.unwrap_or(probe);
            std::thread::sleep(POLL);
        }
        (id, probe)
    }

    /// Arms a tracepoint.
    #[track_caller]
    pub(crate) fn arm(&mut self, location: &Value, what: &Value, process: ProcessKey) -> (String, Mechanism) {
        let (id, probe) = self.try_arm(location, what, process);
        if probe.state != ProbeState::Armed {
            panic!("{location} is not armed: {probe:?}\n{}", self.fleet.agent(HOST).story());
        }
        (id, probe.mechanism.expect("an armed probe has a mechanism"))
    }

    /// The longest time, since this was asked last, in which the agent has answered no ping: on a machine that gives it or
    /// this process no processor, it may rightly take the coordinator for gone.
    pub(crate) fn longest_silence(&self) -> Duration {
        let mut heard = self.heard.lock().expect("the pinger lives");
        std::mem::take(&mut heard.longest).max(heard.last.elapsed())
    }

    /// Removes a tracepoint and returns its last counts.
    #[track_caller]
    pub(crate) fn remove(&mut self, id: &str) -> ProbeStatus {
        let (probe, _) = self.remove_told(id);
        probe.unwrap_or_else(|| panic!("{id} is not known\n{}", self.fleet.agent(HOST).story()))
    }

    /// The same, and how often the agent had to be asked until it knew them. It does not know a tracepoint that it took out
    /// itself more than a minute ago.
    #[track_caller]
    pub(crate) fn remove_told(&mut self, id: &str) -> (Option<ProbeStatus>, u32) {
        let mut asked = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            asked += 1;
            let reply: RemoveReply = self.ask(subject::remove_tracepoint(&self.host), json!({"tracepoint": id}));
            assert!(reply.probes.len() <= 1, "{id} is in one process: {reply:?}");
            let Some(probe) = reply.probes.into_iter().next() else { return (None, asked) };
            // An agent that was off its processor for long answers before it is done, and says so.
            if !probe.unfinished {
                return (Some(probe), asked);
            }
            assert!(
                Instant::now() < deadline,
                "{id} is still not counted: {probe:?}\n{}",
                self.fleet.agent(HOST).story()
            );
        }
    }

    /// Waits until all that a removed probe counted has arrived: of one that only counts, the drops.
    #[track_caller]
    pub(crate) fn settled(&self, id: &str, what: &Value, probe: &ProbeStatus) -> Tally {
        assert_eq!(probe.hits + probe.dropped, probe.passages, "{probe:?}");
        let recorded = if what["mode"] == "count" { 0 } else { probe.hits };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tally = self.tally(id);
            // What the bus does not take any more is a hit in the last counts and a drop in the stream.
            let arrived = tally.hits + tally.dropped();
            if arrived == recorded + probe.dropped && tally.hits <= recorded {
                return tally;
            }
            assert!(tally.hits <= recorded && arrived <= recorded + probe.dropped, "{id}: {tally:?} of {probe:?}");
            assert!(Instant::now() < deadline, "{id}: {tally:?} has arrived of {probe:?}; {}", self.story());
            std::thread::sleep(POLL);
        }
    }

    /// What was read and what was stored, for a panic.
    fn story(&self) -> String {
        let client = self.client.clone();
        let last = self.fleet.runtime().block_on(async {
            let mut stream = jetstream::new(client).get_stream(subject::TRACE_STREAM).await.ok()?;
            Some(stream.info().await.ok()?.state.last_sequence)
        });
        format!("{} batches were read, the last that is stored is {last:?}", self.read.lock().expect("read").batches)
    }

    /// What has arrived of a tracepoint.
    #[track_caller]
    pub(crate) fn tally(&self, id: &str) -> Tally {
        let read = self.read.lock().expect("the reader lives");
        if let Some(wrong) = &read.wrong {
            panic!("{wrong}");
        }
        read.tallies.get(id).cloned().unwrap_or_default()
    }
}

/// What the threads of a process do, and how long each has run and waited for a processor, for a person: whether it hangs or
/// is given none.
fn threads_of(pid: i32) -> String {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let line = |task: std::fs::DirEntry| {
        let [comm, wchan, stat, schedstat] =
            ["comm", "wchan", "stat", "schedstat"].map(|name| read(format!("{}/{name}", task.path().display())));
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
        format!("  {comm} {state} {wchan}; ran, waited (ns), turns: {schedstat}")
    };
    tasks.map(line).collect::<Vec<_>>().join("\n")
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Renews the lease of the probes, as a coordinator's clock exchange does: it waits for no answer for long.
async fn keep_lease(client: Client, host: HostName, heard: Arc<Mutex<Heard>>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(limits::CLOCK_PING_MS));
    let ping = ClockPing { coordinator: Incarnation(1), sent_ns: 0, is_waited_for: false };
    let ping = serde_json::to_vec(&ping).expect("JSON");
    loop {
        ticks.tick().await;
        // With nobody who serves there is nothing to keep.
        let asked = client.request(subject::clock_ping(&host), ping.clone().into());
        if let Ok(Ok(_)) = tokio::time::timeout(PONG, asked).await {
            let mut heard = heard.lock().expect("the test lives");
            heard.longest = heard.longest.max(heard.last.elapsed());
            heard.last = Instant::now();
        }
    }
}

/// Makes the stream of batches and adds up what is in it.
async fn read_stream(client: Client, host: &HostName, read: Arc<Mutex<Read>>) -> JoinHandle<()> {
    let config = stream::Config {
        name: subject::TRACE_STREAM.to_owned(),
        subjects: vec![subject::trace(host)],
        max_bytes: 256 << 20,
        ..Default::default()
    };
    let stream = jetstream::new(client).create_stream(config).await.expect("a stream");
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("its messages");
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let wrong = match message {
                Ok(message) => match Batch::decode(&message.payload) {
                    Ok(batch) => read.lock().expect("the test lives").batch(&batch).err(),
                    Err(error) => Some(error.to_string()),
                },
                Err(error) => Some(format!("the stream: {error}")),
            };
            if wrong.is_some() {
                read.lock().expect("the test lives").wrong = wrong;
                return;
            }
        }
        read.lock().expect("the test lives").wrong = Some("the stream of batches has ended".to_owned());
    })
}

//! The agent service against a real nats-server and a real process: what a coordinator would see of it.
//!
//! The target is a small C program that works as often as it is told on its standard input and says the sum, so that
//! the number of passages is exact and its results are checked.

use async_nats::jetstream;
use futures::StreamExt;
use riptrace_agent::symbols::SymbolCache;
use riptrace_agent::{AgentConfig, AgentError, CPU_PERCENT_DEFAULT, Mechanisms};
use riptrace_protocol::agent_api::{ClockPing, ClockPong, CreateReply, Heartbeat, ListReply, RemoveReply, Reply};
use riptrace_protocol::batch::Batch;
use riptrace_protocol::fleet::{HostProfile, ProbeState, ProbeStatus, ProcessFacts};
use riptrace_protocol::ids::{HostName, Incarnation, TracepointId};
use riptrace_protocol::subject;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const TARGET: &str = r#"#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static volatile long total;
__attribute__((noinline)) static long work(long i, long twice) {
    total += twice;
    return total + i;
}
int main(int count, char **arguments) {
    char line[64];
    (void)count;
    /* Unbuffered: what is not read yet is left to the next program. */
    setvbuf(stdin, NULL, _IONBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'x')
            execv("/proc/self/exe", arguments);
        long sum = 0;
        for (long i = 0, n = atol(line); i < n; i++)
            sum += work(i, 2 * i);
        printf("%ld\n", total);
        fflush(stdout);
    }
    return 0;
}
"#;

/// Ends its child.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one on PATH if it is new enough, else the pinned one, provisioned into the user's cache.
fn nats_server_binary() -> PathBuf {
    let cache = riptrace_provision::Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    riptrace_provision::nats_server(&cache, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

struct Nats {
    server: Option<Killed>,
    url: String,
    store: tempfile::TempDir,
}

impl Nats {
    async fn start() -> Nats {
        let store = tempfile::tempdir().unwrap();
        let server = spawn_server(store.path(), "-1");
        let ports = store.path().join(format!("nats-server_{}.ports", server.0.id()));
        let url = until("nats-server writes its ports", async || {
            let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        })
        .await;
        Nats { server: Some(server), url, store }
    }

    /// The server dies without a word; what it stored stays.
    fn kill(&mut self) {
        self.server = None;
    }

    fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap();
        self.server = Some(spawn_server(self.store.path(), port));
    }
}

fn spawn_server(store: &Path, port: &str) -> Killed {
    let log = std::fs::File::create(store.join("log")).unwrap();
    let server = Command::new(nats_server_binary())
        .args(["-a", "127.0.0.1", "-p", port, "-js", "-sd"])
        .arg(store.join("js"))
        .arg("--ports_file_dir")
        .arg(store)
        .stderr(log)
        .spawn();
    Killed(server.unwrap())
}

/// Asks again and again, with a deadline, until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    let answer = async {
        loop {
            poll.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

struct Target {
    child: Killed,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    total: i64,
    source: String,
    _folder: tempfile::TempDir,
}

impl Target {
    fn start(host: &HostName) -> Target {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("svc_target.c");
        std::fs::write(&source, TARGET).unwrap();
        let program = compile(&source, folder.path());
        let mut child = Command::new(program)
            .env("RIPTRACE_TEST_HOST", host.as_str())
            .env("RIPTRACE_SERVICE", "worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let source = source.file_name().unwrap().to_str().unwrap().to_owned();
        Target { child: Killed(child), stdin, stdout, total: 0, source, _folder: folder }
    }

    /// Has it work `times`, and checks its result.
    fn work(&mut self, times: i64) {
        writeln!(self.stdin, "{times}").unwrap();
        self.stdin.flush().unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.total += times * (times - 1);
        assert_eq!(line.trim().parse(), Ok(self.total), "the target computes as without probes");
    }
}

impl Target {
    /// Has it start its program anew, as the same process.
    fn exec(&mut self) {
        writeln!(self.stdin, "x").unwrap();
        self.stdin.flush().unwrap();
        self.total = 0;
    }
}

fn compile(source: &Path, folder: &Path) -> PathBuf {
    let program = folder.join("svc_target");
    let done = Command::new("cc")
        .args(["-g", "-O1", "-fno-omit-frame-pointer", "-o"])
        .args([&program, source])
        .status()
        .expect("these tests need a C compiler (cc)");
    assert!(done.success());
    program
}

struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.expect("the agent ends").unwrap().unwrap();
    }
}

fn config(host: &HostName) -> AgentConfig {
    AgentConfig {
        mechanisms: Mechanisms::Auto,
        cpu_percent: CPU_PERCENT_DEFAULT,
        symbols: SymbolCache::none(),
        debuginfod: Vec::new(),
        host: host.clone(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        only_env: Some(("RIPTRACE_TEST_HOST".to_owned(), host.as_str().to_owned())),
        version: "0.1.0".to_owned(),
    }
}

fn host(name: &str) -> HostName {
    HostName::new(format!("{name}-{}", std::process::id())).unwrap()
}

async fn start(nats: &Nats, host: &HostName) -> Agent {
    let (stop, stopped) = oneshot::channel::<()>();
    let client = async_nats::connect(&nats.url).await.unwrap();
    let config = config(host);
    let shutdown = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(riptrace_agent::run(client.clone(), config, shutdown));
    until("the agent serves", async || client.request(subject::profile_get(host), "".into()).await.ok()).await;
    Agent { stop, task }
}

async fn ask_raw<T: DeserializeOwned>(client: &async_nats::Client, subject: String, request: serde_json::Value) -> T {
    let message = client.request(subject, request.to_string().into()).await.unwrap();
    serde_json::from_slice(&message.payload).unwrap()
}

async fn ask<T: DeserializeOwned>(client: &async_nats::Client, subject: String, request: serde_json::Value) -> T {
    match ask_raw(client, subject, request).await {
        Reply::Ok(answer) => answer,
        Reply::Error(why) => panic!("{why}"),
    }
}

async fn process(client: &async_nats::Client, host: &HostName) -> ProcessFacts {
    until("the target is discovered", async || {
        let profile: HostProfile = ask(client, subject::profile_get(host), json!({})).await;
        profile.processes.into_iter().next()
    })
    .await
}

/// Makes the stream as a coordinator does, and reads it.
async fn trace_stream(client: &async_nats::Client, host: &HostName) -> jetstream::consumer::pull::Ordered {
    let stream = jetstream::new(client.clone())
        .create_stream(jetstream::stream::Config {
            name: subject::TRACE_STREAM.to_owned(),
            // Host by host: NATS refuses acknowledgements for a pattern that begins with `*`, because `$JS` fits it.
            subjects: vec![subject::trace(host)],
            ..Default::default()
        })
        .await
        .unwrap();
    let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.unwrap();
    consumer.messages().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_served_and_garbage_is_answered() {
    let nats = Nats::start().await;
    let host = host("garbage");
    let target = Target::start(&host);
    let agent = start(&nats, &host).await;
    let client = async_nats::connect(&nats.url).await.unwrap();

    let facts = process(&client, &host).await;
    assert_eq!((facts.key.pid, facts.service.as_str()), (target.child.0.id(), "worker"));
    assert_eq!(facts.labels["zone"], "a");

    for subject in [
        subject::attach(&host),
        subject::detach(&host),
        subject::create_tracepoint(&host),
        subject::remove_tracepoint(&host),
        subject::list_tracepoints(&host),
        subject::lines(&host),
        subject::profile_get(&host),
        subject::clock_ping(&host),
    ] {
        for garbage in ["\u{0}garbage", "[]", "{\"tracepoint\":7}x"] {
            let message = client.request(subject.clone(), garbage.into()).await.unwrap();
            let reply: Reply<serde_json::Value> = serde_json::from_slice(&message.payload).unwrap();
            let Reply::Error(why) = reply else { panic!("{subject} took {garbage:?}: {reply:?}") };
            assert!(why.starts_with(&subject), "{why}");
        }
    }
    let gone = json!({ "process": { "pid": 1_000_000_000, "start_time": 123 } });
    let reply: Reply<serde_json::Value> = ask_raw(&client, subject::attach(&host), gone).await;
    let why = format!("process 1000000000 (start 123) is not running on host {host}");
    assert_eq!(reply, Reply::Error(why));

    let ping = ClockPing { coordinator: Incarnation(7), sent_ns: 12, is_waited_for: false };
    let before = riptrace_agent::clock::domain_now_ns();
    let pong: ClockPong = ask_raw(&client, subject::clock_ping(&host), serde_json::to_value(ping).unwrap()).await;
    let after = riptrace_agent::clock::domain_now_ns();
    assert_eq!(pong.sent_ns, 12);
    assert!(before <= pong.received_ns && pong.received_ns <= pong.replied_ns && pong.replied_ns <= after);

    let info = client.request("$SRV.INFO.riptrace-agent", "".into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["metadata"]["host"], host.as_str());
    assert_eq!(info["endpoints"].as_array().unwrap().len(), 7);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_of_one_name_refuses_to_start() {
    let nats = Nats::start().await;
    let host = host("twice");
    let agent = start(&nats, &host).await;
    let client = async_nats::connect(&nats.url).await.unwrap();
    let second = riptrace_agent::run(client.clone(), config(&host), std::future::pending::<()>());
    let error = timeout(PATIENCE, second).await.expect("it refuses").unwrap_err();
    let told = error.to_string();
    assert!(told.contains(host.as_str()) && told.contains("0.1.0") && told.contains("--host NAME"), "{told}");
    assert!(told.contains(&format!("pid {}", std::process::id())), "{told}");

    // The first goes, and says so; then its name is free.
    let mut status = client.subscribe(subject::status(&host)).await.unwrap();
    client.flush().await.unwrap();
    agent.stop().await;
    let leaving = async {
        loop {
            let message = status.next().await.unwrap();
            let heartbeat: Heartbeat = serde_json::from_slice(&message.payload).unwrap();
            if heartbeat.leaving {
                return;
            }
        }
    };
    timeout(PATIENCE, leaving).await.expect("the agent says that it leaves");
    start(&nats, &host).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_of_a_real_process_arrive_and_add_up() {
    // The ring has room for as many: the target does not wait for anybody.
    const TIMES: i64 = 200;
    let nats = Nats::start().await;
    let host = host("hits");
    let mut target = Target::start(&host);
    let agent = start(&nats, &host).await;
    let client = async_nats::connect(&nats.url).await.unwrap();
    let facts = process(&client, &host).await;

    let where_not = json!({
        "tracepoint": { "id": "nowhere", "location": { "kind": "line", "file": target.source, "line": 1 } },
        "processes": [facts.key],
    });
    let reply: CreateReply = ask(&client, subject::create_tracepoint(&host), where_not).await;
    assert_eq!(reply.probes[0].state, ProbeState::Absent);
    let reason = reply.probes[0].reason.clone().unwrap();
    assert!(reason.contains("no code at") && reason.contains(":1"), "{reason}");

    let create = json!({
        "tracepoint": {
            "id": "t",
            "location": { "kind": "line", "file": target.source, "line": 6 },
            "limits": { "rate_per_s": null },
        },
        "processes": [facts.key],
    });
    let reply: CreateReply = ask(&client, subject::create_tracepoint(&host), create.clone()).await;
    assert_eq!(reply.probes[0].state, ProbeState::Armed, "{:?}", reply.probes[0].reason);
    assert_eq!(reply.layouts.len(), 1);
    let again: CreateReply = ask(&client, subject::create_tracepoint(&host), create).await;
    assert_eq!(again, reply, "asking again changes nothing");

    // The hits happen before there is a stream: they are kept until a coordinator makes it.
    target.work(TIMES);
    let mut messages = trace_stream(&client, &host).await;
    let (mut hits, mut frames, mut batches) = (Vec::new(), BTreeSet::new(), 0);
    while hits.len() < TIMES as usize {
        let message = timeout(PATIENCE, messages.next()).await.expect("hits arrive").unwrap().unwrap();
        let batch = Batch::decode(&message.payload).unwrap();
        assert_eq!((batch.number, batch.first_hit), (batches, hits.len() as u64));
        batches += u64::from(!batch.is_watermark());
        assert_eq!(batch.drops, []);
        frames.extend(batch.frames.into_iter().flat_map(|entry| entry.frames).map(|frame| frame.function));
        hits.extend(batch.hits);
    }
    assert!(hits.is_sorted_by_key(|hit| hit.time_ns));
    assert!(hits.iter().all(|hit| hit.layout == reply.layouts[0].id() && hit.process == facts.key));
    assert!(hits.iter().all(|hit| hit.stack.len() >= 2 && hit.thread == facts.key.pid));
    assert!(frames.contains("work") && frames.contains("main"), "{frames:?}");

    let list: ListReply = ask(&client, subject::list_tracepoints(&host), json!({})).await;
    assert_eq!((list.tracepoints.len(), list.layouts.len()), (2, 1));
    assert!(list.frames.iter().any(|entry| entry.frames.iter().any(|frame| frame.function == "main")));

    let remove = json!({ "tracepoint": TracepointId::new("t").unwrap() });
    let removed: RemoveReply = ask(&client, subject::remove_tracepoint(&host), remove).await;
    let counts = &removed.probes[0];
    assert_eq!((counts.passages, counts.hits, counts.dropped), (TIMES as u64, TIMES as u64, 0));
    target.work(10);

    // Armed again, the agent goes while the target works: the target does not notice.
    let create = json!({
        "tracepoint": { "id": "u", "location": { "kind": "function", "name": "work" } },
        "processes": [facts.key],
    });
    let reply: CreateReply = ask(&client, subject::create_tracepoint(&host), create).await;
    assert_eq!(reply.probes[0].state, ProbeState::Armed, "{:?}", reply.probes[0].reason);
    target.work(10);
    agent.stop().await;
    target.work(1_000);
    let status = std::fs::read_to_string(format!("/proc/{}/status", facts.key.pid)).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_that_start_at_once_one_stays() {
    let nats = Nats::start().await;
    let host = host("at-once");
    let (stop, stopped) = tokio::sync::watch::channel(());
    let run = |client: async_nats::Client| {
        let mut stopped = stopped.clone();
        let shutdown = async move {
            let _ = stopped.changed().await;
        };
        tokio::spawn(riptrace_agent::run(client, config(&host), shutdown))
    };
    let clients = (async_nats::connect(&nats.url).await.unwrap(), async_nats::connect(&nats.url).await.unwrap());
    let (mut first, mut second) = (run(clients.0), run(clients.1));
    let gone = async {
        tokio::select! {
            result = &mut first => (result, second),
            result = &mut second => (result, first),
        }
    };
    let (result, stays) = timeout(PATIENCE, gone).await.expect("one gives way");
    let error = result.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::HostTaken { .. }), "{error}");
    let client = async_nats::connect(&nats.url).await.unwrap();
    let _: HostProfile = ask(&client, subject::profile_get(&host), json!({})).await;
    drop(stop);
    timeout(PATIENCE, stays).await.expect("the other ends when it is told").unwrap().unwrap();
}

/// The state of a process's probe, as heartbeats tell.
async fn told(status: &mut async_nats::Subscriber, what: impl Fn(&ProbeStatus) -> bool) -> ProbeStatus {
    let search = async {
        loop {
            let message = status.next().await.unwrap();
            let heartbeat: Heartbeat = serde_json::from_slice(&message.payload).unwrap();
            if let Some(probe) = heartbeat.probes.into_iter().find(|probe| what(probe)) {
                return probe;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("a heartbeat tells")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_that_dies_costs_no_hit_and_an_exit_is_told() {
    // The ring has room for three times as many: the targets do not wait for anybody.
    const TIMES: i64 = 60;
    let mut nats = Nats::start().await;
    let host = host("outage");
    let mut targets = [Target::start(&host), Target::start(&host)];
    let agent = start(&nats, &host).await;
    let client = async_nats::connect(&nats.url).await.unwrap();
    let processes = until("both targets are discovered", async || {
        let profile: HostProfile = ask(&client, subject::profile_get(&host), json!({})).await;
        (profile.processes.len() == 2).then_some(profile.processes)
    })
    .await;
    let create = json!({
        "tracepoint": {
            "id": "t",
            "location": { "kind": "line", "file": targets[0].source, "line": 6 },
            "limits": { "rate_per_s": null },
        },
        "processes": processes.iter().map(|facts| facts.key).collect::<Vec<_>>(),
    });
    let _messages = trace_stream(&client, &host).await;
    let reply: CreateReply = ask(&client, subject::create_tracepoint(&host), create).await;
    assert_eq!(reply.probes.iter().map(|probe| probe.state).collect::<Vec<_>>(), [ProbeState::Armed; 2]);

    targets.iter_mut().for_each(|target| target.work(TIMES));
    nats.kill();
    targets.iter_mut().for_each(|target| target.work(TIMES));
    nats.restart();
    targets.iter_mut().for_each(|target| target.work(TIMES));

    let expected = 2 * 3 * TIMES as u64;
    let total = until("all hits are stored", async || {
        let context = jetstream::new(client.clone());
        let mut stream = timeout(PATIENCE, context.get_stream(subject::TRACE_STREAM)).await.ok()?.ok()?;
        let last = stream.info().await.ok()?.state.last_sequence;
        let mut numbers = BTreeSet::new();
        for sequence in 1..=last {
            let batch = Batch::decode(&stream.get_raw_message(sequence).await.ok()?.payload).unwrap();
            assert_eq!(batch.drops, []);
            numbers.extend(batch.hits.iter().map(|hit| hit.number));
        }
        (numbers.len() as u64 == expected).then_some(numbers)
    })
    .await;
    assert_eq!(total.last(), Some(&(expected - 1)), "numbered without gaps");

    let mut status = client.subscribe(subject::status(&host)).await.unwrap();
    client.flush().await.unwrap();
    let [mut first, second] = targets;
    let gone = first.child.0.id();
    // Not waited for here: this process is its parent and its tracer at once, and the tracer is to see it end.
    first.child.0.kill().unwrap();
    let probe = told(&mut status, |probe| probe.state == ProbeState::Off).await;
    assert_eq!((probe.process.key.pid, probe.passages), (gone, 3 * TIMES as u64));
    assert_eq!(probe.reason.as_deref(), Some("the process ended (killed by signal 9)"));
    let removed: RemoveReply = ask(&client, subject::remove_tracepoint(&host), json!({ "tracepoint": "t" })).await;
    assert_eq!(removed.probes.len(), 2);
    assert!(
        removed
            .probes
            .iter()
            .all(|probe| (probe.passages, probe.hits, probe.dropped) == (3 * TIMES as u64, 3 * TIMES as u64, 0))
    );
    drop((first, second));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_exec_the_probe_is_armed_in_the_new_program() {
    let nats = Nats::start().await;
    let host = host("exec");
    let mut target = Target::start(&host);
    let agent = start(&nats, &host).await;
    let client = async_nats::connect(&nats.url).await.unwrap();
    let facts = process(&client, &host).await;
    let mut status = client.subscribe(subject::status(&host)).await.unwrap();
    let create = json!({
        "tracepoint": { "id": "t", "location": { "kind": "line", "file": target.source, "line": 6 } },
        "processes": [facts.key],
    });
    let reply: CreateReply = ask(&client, subject::create_tracepoint(&host), create).await;
    assert_eq!(reply.probes[0].state, ProbeState::Armed, "{:?}", reply.probes[0].reason);
    target.work(10);
    target.exec();
    let off = told(&mut status, |probe| probe.state == ProbeState::Off).await;
    assert_eq!(off.reason.as_deref(), Some("the process replaced its program (exec)"));
    assert_eq!(off.passages, 10);
    told(&mut status, |probe| probe.state == ProbeState::Armed).await;
    target.work(7);
    let counted = told(&mut status, |probe| probe.passages == 7).await;
    assert_eq!((counted.passages, counted.hits, counted.dropped), (7, 7, 0));
    agent.stop().await;
    target.work(5);
}

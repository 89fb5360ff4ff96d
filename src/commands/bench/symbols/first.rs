//! The first tracepoint of a fresh agent in a fresh process, and the hits that one makes.

use super::program::{FIVE, Program};
use crate::commands::bench::target::failed;
use crate::failure::Failure;
use async_nats::{Client, Request, jetstream};
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use riptrace_protocol::agent_api::{CreateReply, Reply};
use riptrace_protocol::batch::Batch;
use riptrace_protocol::fleet::{HostProfile, ProbeState};
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::ids::{HostName, ProcessKey};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::subject;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Name of the host, and what only its process has in its environment.
const HOST: &str = "bench";
const MARK: &str = "RIPTRACE_BENCH";
/// How long any step may take; a debug build on a busy machine takes a tenth of it.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// How often a starting agent is asked.
const POLL: Duration = Duration::from_millis(20);
/// Hits that are wanted for decoding.
const HITS_MIN: usize = 200;

/// One measured first tracepoint.
#[derive(Debug, Clone)]
pub(super) struct First {
    pub(super) ms: f64,
    /// By how much the agent's resident memory was larger at its peak than before the request.
    pub(super) grown_bytes: u64,
    pub(super) mechanism: String,
}

/// Hits of one tracepoint with how they are read.
pub(super) struct Hits {
    pub(super) layout: Layout,
    pub(super) hits: Vec<RawHit>,
}

/// The bus.
pub(super) struct Bench {
    url: String,
    client: Client,
    host: HostName,
}

/// An agent with the one process it knows, both fresh.
struct Pair {
    agent: Child,
    pid: u32,
    _target: Child,
    target_in: ChildStdin,
    process: ProcessKey,
}

impl Bench {
    pub(super) async fn new(url: &str) -> Result<Bench, Failure> {
        let client = async_nats::connect(url).await.map_err(|e| Failure::Unreachable(e.to_string()))?;
        let host = HostName::new(HOST).map_err(|e| Failure::Failed(e.to_string()))?;
        Ok(Bench { url: url.to_owned(), client, host })
    }

    /// Measures one.
    pub(super) async fn first(&self, program: &Program, cache: &Path) -> Result<First, Failure> {
        let pair = self.start(program, cache).await?;
        let before = memory(pair.pid, "VmRSS:")?;
        // The highest it gets from here on (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{}/clear_refs", pair.pid), "5").map_err(failed("clear_refs of the agent"))?;
        let from = Instant::now();
        let reply = self.create(&pair, &program.file, program.line).await?;
        let ms = from.elapsed().as_secs_f64() * 1000.0;
        let grown_bytes = memory(pair.pid, "VmHWM:")?.saturating_sub(before);
        let mechanism = armed(&reply)?;
        pair.stop().await?;
        Ok(First { ms, grown_bytes, mechanism })
    }

    /// Hits with five locals.
    pub(super) async fn hits(&self, program: &Program) -> Result<Hits, Failure> {
        let cache = tempfile::tempdir().map_err(failed("a folder for the cache"))?;
        let mut pair = self.start(program, cache.path()).await?;
        let trace = subject::trace(&self.host);
        // An agent holds its hits until somebody keeps them.
        let stream = jetstream::stream::Config {
            name: subject::TRACE_STREAM.to_owned(),
            subjects: vec![trace.clone()],
            ..jetstream::stream::Config::default()
        };
        let made = jetstream::new(self.client.clone()).create_stream(stream).await;
        made.map_err(|error| Failure::Failed(format!("the stream of hits: {error}")))?;
        let mut batches = self.client.subscribe(trace).await.map_err(|e| Failure::Failed(e.to_string()))?;
        self.client.flush().await.map_err(|e| Failure::Failed(e.to_string()))?;
        let reply = self.create(&pair, FIVE.0, FIVE.1(program)).await?;
        armed(&reply)?;
        let layout = reply.layouts.into_iter().next().ok_or_else(|| Failure::Failed("no layout".to_owned()))?;
        pair.target_in.write_all(b"go\n").await.map_err(failed("the program does not listen"))?;
        let mut hits: Vec<RawHit> = Vec::new();
        let collect = async {
            while hits.len() < HITS_MIN
                && let Some(message) = batches.next().await
            {
                let batch = Batch::decode(&message.payload).map_err(|e| Failure::Failed(e.to_string()))?;
                hits.extend(batch.hits.into_iter().filter(|hit| hit.layout == layout.id()));
            }
            Ok::<_, Failure>(())
        };
        tokio::time::timeout(STEP_LIMIT, collect)
            .await
            .map_err(|_| Failure::Failed("the program's hits did not come in time".to_owned()))??;
        pair.stop().await?;
        Ok(Hits { layout, hits })
    }

    async fn start(&self, program: &Program, cache: &Path) -> Result<Pair, Failure> {
        let mut target = Command::new(&program.executable)
            .env(MARK, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("the generated program"))?;
        let (Some(target_in), Some(out)) = (target.stdin.take(), target.stdout.take()) else {
            return Err(Failure::Failed("the generated program has no standard streams".to_owned()));
        };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).await.map_err(failed("the generated program does not speak"))?;
        let own = std::env::current_exe().map_err(failed("this program's own path"))?;
        let agent = Command::new(own)
            .args(["agent", "--host", HOST, "--only-env", &format!("{MARK}={}", std::process::id()), "--cache"])
            .arg(cache)
            .env("NATS_URL", &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("riptrace agent"))?;
        let pid = agent.id().ok_or_else(|| Failure::Failed("the agent has ended".to_owned()))?;
        let wanted = target.id();
        let found = async {
            loop {
                // Until the agent is there, nobody answers.
                if let Ok(profile) = self.ask::<HostProfile>(subject::profile_get(&self.host), json!({})).await
                    && let Some(seen) = profile.processes.iter().find(|seen| Some(seen.key.pid) == wanted)
                {
                    return seen.key;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let process = tokio::time::timeout(STEP_LIMIT, found)
            .await
            .map_err(|_| Failure::Failed("the agent did not find the program in time".to_owned()))?;
        Ok(Pair { agent, pid, _target: target, target_in, process })
    }

    async fn create(&self, pair: &Pair, file: &str, line: u32) -> Result<CreateReply, Failure> {
        let location = json!({"kind": "line", "file": file, "line": line});
        let request = json!({
            "tracepoint": {"id": "bench", "location": location, "limits": {"rate_per_s": null}},
            "processes": [pair.process],
        });
        self.ask(subject::create_tracepoint(&self.host), request).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, subject: String, request: Value) -> Result<T, Failure> {
        let request = Request::new().payload(request.to_string().into()).timeout(Some(STEP_LIMIT));
        let message = self.client.send_request(subject, request).await.map_err(|e| Failure::Failed(e.to_string()))?;
        match serde_json::from_slice(&message.payload) {
            Ok(Reply::Ok(answer)) => Ok(answer),
            Ok(Reply::Error(why)) => Err(Failure::Failed(why)),
            Err(error) => Err(Failure::Failed(format!("the agent's answer: {error}"))),
        }
    }
}

impl Pair {
    /// Has the agent take its probes out and end.
    async fn stop(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)
            .map_err(|e| Failure::Failed(format!("SIGTERM to the agent: {e}")))?;
        let ended = tokio::time::timeout(STEP_LIMIT, self.agent.wait()).await;
        ended.map_err(|_| Failure::Failed("the agent did not end in time".to_owned()))?.map_err(failed("the agent"))?;
        Ok(())
    }
}

/// The mechanism, when everything is armed.
fn armed(reply: &CreateReply) -> Result<String, Failure> {
    let [probe] = reply.probes.as_slice() else {
        return Err(Failure::Failed(format!("the agent tells of {} probes", reply.probes.len())));
    };
    if probe.state != ProbeState::Armed {
        let why = probe.reason.as_deref().unwrap_or("no reason");
        return Err(Failure::Failed(format!("the tracepoint is {:?}: {why}", probe.state)));
    }
    Ok(probe.mechanism.map(|mechanism| format!("{mechanism:?}").to_lowercase()).unwrap_or_default())
}

/// A figure of `/proc/PID/status`, in bytes.
pub(super) fn memory(pid: u32, name: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(failed("status of the agent"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Failure::Failed(format!("process {pid} has no {name}")))
}

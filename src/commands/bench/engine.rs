//! The engine in a process of its own: `riptrace bench engine`, which traces one line of one process as it is told on
//! standard input, and forgets the hits as soon as they are where the publisher would take them from.
//!
//! It is what an agent is, less the bus. As a process of its own it can be stopped, like an agent that hangs.

use super::target::failed;
use crate::failure::Failure;
use crate::output;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use riptrace_agent::engine::analysis::{BinaryCode, Language, Obstacle, Rel32, SiteChoice};
use riptrace_agent::engine::{
    AttachOptions, Engine, Mechanisms, Probe, ProbeSite, ProcessRuntime, SITE_BYTES, SitePatch,
};
use riptrace_agent::plan;
use riptrace_agent::publish::sink::{HitQueue, HitSink, QueueLimits};
use riptrace_agent::symbols::Build;
use riptrace_agent::target;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::ids::{Avma, ProcessKey, TracepointId};
use riptrace_protocol::location::Location;
use riptrace_protocol::tracepoint::Tracepoint;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the hits are taken: as the publisher does when there is a lot.
const TAKE_INTERVAL: Duration = Duration::from_millis(1);
/// How long the hits of a burst may take to be counted.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Share of one CPU that a probe may take, in percent: what is measured is a probe, not its budget.
const CPU_PERCENT: u32 = 1000;

/// How a site is to be patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// As the analysis chooses.
    Best,
    /// With a trap, though it could be a jump.
    Trap,
    /// As where no pad can be placed so that each boundary inside the jump is a trap while it is written: all threads stand
    /// still meanwhile.
    AllStop,
}

/// What to trace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) pid: u32,
    pub(super) file: PathBuf,
    pub(super) line: u32,
    pub(super) condition: Option<String>,
    /// Frames of call stack that a hit carries.
    pub(super) frames: u16,
    pub(super) way: Way,
    /// Hits per second, at most; `None`: no limit.
    pub(super) rate_per_s: Option<u32>,
}

impl Wanted {
    /// A line, with everything else as it is measured most.
    pub(super) fn line(pid: u32, (file, line): (PathBuf, u32)) -> Wanted {
        Wanted { pid, file, line, condition: None, frames: 0, way: Way::Best, rate_per_s: None }
    }
}

/// What was armed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Armed {
    /// Address of the site in the executable's file, as an offset.
    pub(super) file_offset: u64,
    /// `jump`, `trap` or `ptrace`.
    pub(super) mechanism: String,
    /// How long the whole process stood still, in nanoseconds.
    pub(super) stopped_ns: u64,
}

/// What became of the passages so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) passages: u64,
    pub(super) hits: u64,
    pub(super) dropped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Arm(Wanted),
    Counts,
    Remove,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Armed(Armed),
    Counted(Counted),
    Failed(String),
}

/// Serves until standard input ends.
pub(super) fn serve() -> Result<(), Failure> {
    let mut queue = HitQueue::new(QueueLimits::default());
    let sink = queue.sink();
    std::thread::spawn(move || {
        loop {
            queue.discard();
            std::thread::sleep(TAKE_INTERVAL);
        }
    });
    let mut server = Server { sink, traced: None };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(failed("standard input"))?;
        let told = match serde_json::from_str(&line) {
            Ok(Ask::Arm(wanted)) => server.arm(&wanted).map_or_else(Told::Failed, Told::Armed),
            Ok(Ask::Counts) => Told::Counted(server.counts()),
            Ok(Ask::Remove) => Told::Counted(server.remove()),
            Err(error) => Told::Failed(error.to_string()),
        };
        output::json_line(&json!(told)).map_err(failed("standard output"))?;
    }
    Ok(())
}

struct Traced {
    key: ProcessKey,
    engine: Engine,
    build: Build,
    code: BinaryCode,
    bias: u64,
}

struct Server {
    sink: HitSink,
    traced: Option<Traced>,
}

fn id() -> TracepointId {
    TracepointId::new("bench").unwrap_or_else(|error| unreachable!("{error}"))
}

impl Server {
    fn attach(&mut self, pid: u32) -> Result<&Traced, String> {
        if self.traced.as_ref().is_none_or(|traced| traced.key.pid != pid) {
            self.traced = None;
            let exe = PathBuf::from(format!("/proc/{pid}/exe"));
            let start_time = target::start_time(pid).map_err(|e| e.to_string())?;
            let key = ProcessKey { pid, start_time };
            let build = Build::open(&exe).map_err(|e| e.to_string())?;
            let bias = bias(&build, pid, &exe)?;
            let code = BinaryCode::open(&exe).map_err(|e| e.to_string())?;
            let is_go = build.facts().language == riptrace_protocol::fleet::Language::Go;
            let is_gnu = mappings(pid)?.iter().any(|mapping| mapping.path.ends_with("/libc.so.6"));
            let runtime = ProcessRuntime { is_go, go: build.go_runtime(bias), is_gnu };
            let options = AttachOptions { mechanisms: Mechanisms::Auto, runtime, cpu_percent: CPU_PERCENT };
            let engine =
                Engine::attach(key, self.sink.clone(), options, Box::new(|_| ())).map_err(|e| e.to_string())?;
            self.traced = Some(Traced { key, engine, build, code, bias });
        }
        self.traced.as_ref().ok_or_else(|| "nothing is traced".to_owned())
    }

    fn arm(&mut self, wanted: &Wanted) -> Result<Armed, String> {
        let traced = self.attach(wanted.pid)?;
        let location = Location::Line { file: wanted.file.display().to_string(), line: wanted.line };
        let sites = traced.build.resolve(&location).map_err(|e| e.to_string())?;
        let [site] = sites.as_slice() else {
            return Err(format!("{location} has {} addresses", sites.len()));
        };
        let limits = json!({"rate_per_s": wanted.rate_per_s});
        let request = json!({"id": "bench", "location": location, "condition": wanted.condition, "limits": limits});
        let tracepoint: Tracepoint = serde_json::from_value(request).map_err(|e| e.to_string())?;
        let mut plan = plan::compile(&traced.build, site, &tracepoint, traced.bias).map_err(|e| e.to_string())?;
        plan.program.stack_frames_max = plan.program.stack_frames_max.min(wanted.frames);
        if let Some(slice) = &mut plan.program.stack_slice {
            slice.first_thread_end =
                mappings(wanted.pid)?.iter().find(|mapping| mapping.path == "[stack]").map(|mapping| mapping.hi);
        }
        let address = site.address.in_process(traced.bias);
        let probe = Probe {
            tracepoint: id(),
            sites: vec![ProbeSite {
                address,
                program: Arc::new(plan.program),
                layout: plan.layout.id(),
                patch: patch(&traced.code, site.address.0, wanted.way),
            }],
            rate_per_s: wanted.rate_per_s,
        };
        let outcome = traced.engine.arm(probe).map_err(|e| e.to_string())?;
        let file_offset = file_offset(wanted.pid, address)?;
        let mechanism = match outcome.mechanism {
            Mechanism::Jump => "jump",
            Mechanism::Trap => "trap",
            Mechanism::Ptrace => "ptrace",
        };
        Ok(Armed { file_offset, mechanism: mechanism.to_owned(), stopped_ns: outcome.stopped_ns })
    }

    fn counts(&self) -> Counted {
        let counts = self.traced.as_ref().map(|traced| traced.engine.counts()).unwrap_or_default();
        counts.into_iter().next().map(|(_, counts)| counted(&counts)).unwrap_or_default()
    }

    fn remove(&self) -> Counted {
        let counts = self.traced.as_ref().and_then(|traced| traced.engine.disarm(&id()));
        counts.map(|counts| counted(&counts)).unwrap_or_default()
    }
}

fn counted(counts: &riptrace_agent::engine::Counts) -> Counted {
    Counted { passages: counts.passages, hits: counts.hits, dropped: counts.dropped.values().sum() }
}

/// What can be written at an address of the file, in the way that is asked for.
fn patch(code: &BinaryCode, address: u64, way: Way) -> Result<SitePatch, String> {
    let function = code.function_at(address).ok_or_else(|| format!("no function holds {address:#x}"))?;
    let analysis = code.analyse(&function).map_err(|e| e.to_string())?;
    let bytes = code.bytes_at(address);
    let choice = match analysis.site(address) {
        SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } if way == Way::Trap => {
            let first = patch.displaced.into_iter().next().ok_or("a jump that displaces nothing")?;
            SiteChoice::Trap { why: Obstacle::Short { bytes: first.bytes }, displaced: first }
        }
        SiteChoice::Jump { mut patch, why_stop } if way == Way::AllStop && !patch.single_instruction => {
            // No pad is two gigabytes away.
            patch.rel32 = Rel32 { mask: u32::MAX, value: 0x7fff_ffff };
            SiteChoice::Jump { patch, why_stop }
        }
        _ if way == Way::AllStop => return Err("the line is no jump over several instructions".to_owned()),
        choice => choice,
    };
    Ok(SitePatch {
        choice,
        original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
        is_go: code.language(&function) == Language::Go,
    })
}

fn mappings(pid: u32) -> Result<Vec<target::Mapping>, String> {
    target::mappings(pid).map_err(|e| e.to_string())
}

/// By how much the executable was moved.
fn bias(build: &Build, pid: u32, exe: &Path) -> Result<u64, String> {
    let inode = std::fs::metadata(exe).map_err(|e| e.to_string())?.ino();
    let mappings = target::mappings(pid).map_err(|e| e.to_string())?;
    let mut of_exe = mappings.iter().filter(|mapping| mapping.inode == inode);
    of_exe
        .find_map(|mapping| build.bias(Avma(mapping.lo), mapping.file_offset))
        .ok_or_else(|| "the target does not have its executable in memory".to_owned())
}

/// Where an address of a process is in the file that is mapped there.
fn file_offset(pid: u32, address: Avma) -> Result<u64, String> {
    let mappings = target::mappings(pid).map_err(|e| e.to_string())?;
    let holds = mappings.iter().find(|mapping| (mapping.lo..mapping.hi).contains(&address.0));
    holds.map(|mapping| address.0 - mapping.lo + mapping.file_offset).ok_or_else(|| "the site is in no file".to_owned())
}

/// The parent's end; the engine takes its probes out and ends when it is dropped.
pub(super) struct EngineProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl EngineProcess {
    pub(super) fn start() -> Result<EngineProcess, Failure> {
        let own = std::env::current_exe().map_err(failed("this program's own path"))?;
        let mut child = Command::new(own)
            .args(["bench", "engine"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("riptrace bench engine"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Failure::Failed("no pipe from the engine".to_owned()))?;
        Ok(EngineProcess { child, stdin, stdout: BufReader::new(stdout) })
    }

    fn ask(&mut self, ask: &Ask) -> Result<Told, Failure> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Failure::Failed("no pipe to the engine".to_owned()))?;
        writeln!(stdin, "{}", json!(ask)).map_err(failed("the engine's process does not listen"))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(failed("the engine's process does not speak"))?;
        match serde_json::from_str(&line) {
            Ok(Told::Failed(why)) => Err(Failure::Failed(format!("the engine: {why}"))),
            Ok(told) => Ok(told),
            Err(error) => Err(Failure::Failed(format!("the engine's process said {line:?}: {error}"))),
        }
    }

    pub(super) fn arm(&mut self, wanted: &Wanted) -> Result<Armed, Failure> {
        match self.ask(&Ask::Arm(wanted.clone()))? {
            Told::Armed(armed) => Ok(armed),
            told => Err(Failure::Failed(format!("the engine answered {told:?}"))),
        }
    }

    fn counted(&mut self, ask: &Ask) -> Result<Counted, Failure> {
        match self.ask(ask)? {
            Told::Counted(counted) => Ok(counted),
            told => Err(Failure::Failed(format!("the engine answered {told:?}"))),
        }
    }

    pub(super) fn remove(&mut self) -> Result<Counted, Failure> {
        self.counted(&Ask::Remove)
    }

    /// Waits until so many passages are counted, all of them as hits or drops.
    pub(super) fn settle(&mut self, passages: u64) -> Result<Counted, Failure> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let counted = self.counted(&Ask::Counts)?;
            if counted.passages >= passages && counted.hits + counted.dropped == counted.passages {
                return Ok(counted);
            }
            if Instant::now() >= deadline {
                return Err(Failure::Failed(format!(
                    "{passages} passages were made, and the engine knows of {counted:?}"
                )));
            }
            std::thread::sleep(TAKE_INTERVAL);
        }
    }

    /// Does something while the engine's process is stopped, as one that hangs.
    pub(super) fn while_stopped<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let pid = Pid::from_raw(self.child.id() as i32);
        let signal = |signal| kill(pid, signal).map_err(|e| Failure::Failed(format!("{signal}: {e}")));
        signal(Signal::SIGSTOP)?;
        // It stands when the kernel says so; what it did last may still be under way until then.
        let stopped =
            |status: &str| status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"));
        let path = format!("/proc/{pid}/status");
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !std::fs::read_to_string(&path).is_ok_and(|status| stopped(&status)) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let done = work();
        signal(Signal::SIGCONT)?;
        done
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.stdin = None;
        // Fails only when it has ended.
        let _ = self.child.wait();
    }
}

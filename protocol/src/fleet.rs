//! The fleet: facts about hosts, processes and builds, and the state of probes.

use crate::ids::{BuildId, HostName, Incarnation, ProcessId, ProcessKey, TracepointId};
use crate::location::Location;
use crate::time::ClockDomain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an agent says of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProfile {
    /// The host's name.
    pub host: HostName,
    /// This run of the agent.
    pub incarnation: Incarnation,
    /// Version of RipTrace.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Which monotonic clock stamps this host's hits.
    pub clock_domain: ClockDomain,
    /// Labels given to the agent.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Grows whenever `processes` changes.
    pub revision: u64,
    /// The processes that can be traced.
    pub processes: Vec<ProcessFacts>,
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Which process.
    pub key: ProcessKey,
    /// `RIPTRACE_SERVICE` or `OTEL_SERVICE_NAME` of the process, else the executable's name.
    pub service: String,
    /// Path of the executable as the process sees it.
    pub exe: String,
    /// What it runs.
    pub build: BuildFacts,
    /// Container id, where the process's cgroup tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Labels of the agent and of the process (`RIPTRACE_LABELS=k=v,..`).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why it cannot be traced, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Language of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Go.
    Go,
    /// Any other language with DWARF.
    Native,
}

/// What is known of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// Its id.
    pub id: BuildId,
    /// Its language.
    pub language: Language,
    /// Whether it has DWARF.
    pub dwarf: bool,
    /// Version of the Go toolchain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_version: Option<String>,
    /// Module path of the main package's module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Version of that module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_version: Option<String>,
    /// Commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_revision: Option<String>,
    /// Whether the checkout had changes when it was built: its text is not known exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_modified: Option<bool>,
    /// How Go built it, as `runtime/debug.BuildSetting` has it: `GOARCH`, `-tags`, `vcs.time` and their like, at most
    /// [`BUILD_SETTINGS_MAX`]. Flags for compilers and linkers are left out: they may hold secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// Settings of one build, at most: Go 1.27 writes some twenty.
pub const BUILD_SETTINGS_MAX: usize = 64;

/// How a site is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A jump to a pad inside the process: tens of nanoseconds.
    Jump,
    /// A trap handled inside the process: microseconds.
    Trap,
    /// A trap handled by the agent, which stops the thread that hits: tens of microseconds.
    Ptrace,
}

/// State of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Asked of the agent, not answered yet.
    Pending,
    /// Every site is patched.
    Armed,
    /// It cannot be armed; the reason says why.
    Refused,
    /// The build has no code for this place, so there is nothing to arm; the reason says what it lacks. Not a failure:
    /// a fleet runs more than one program.
    Absent,
    /// It was armed and is no more, though it is still wanted; the reason says why (over its budget, process gone).
    Off,
}

/// One site of a probe, as it is shown to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFacts {
    /// Function that holds it (the outermost, where the line is inlined).
    pub function: String,
    /// File as the build knows it.
    pub file: String,
    /// Line.
    pub line: u32,
}

/// Status of one tracepoint in one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Which process.
    pub process: ProcessId,
    /// Service of the process.
    pub service: String,
    /// Build of the process.
    pub build: BuildId,
    /// State.
    pub state: ProbeState,
    /// The costliest mechanism of its sites, once armed.
    pub mechanism: Option<Mechanism>,
    /// The patched places, once armed.
    #[serde(default)]
    pub sites: Vec<SiteFacts>,
    /// Why not, unless armed.
    pub reason: Option<String>,
    /// What is to be known of an armed probe: that it is sampled, and why; why its mechanism is not a cheaper one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Passages of threads through its sites. Those for which the condition is false are not counted: telling them takes
    /// a few nanoseconds, counting them would take more.
    pub passages: u64,
    /// Of these, how many became hits.
    pub hits: u64,
    /// Of these, how many did not though they should have (drops of any reason).
    pub dropped: u64,
    /// Whether there are more than these: the probe is removed, and what it counted is not all known yet. Whoever asks to
    /// remove it again is told the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
}

/// Status of a tracepoint over the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracepointStatus {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Where it was asked for.
    pub location: Location,
    /// One entry per process that the selector means, in the order of host, pid.
    pub probes: Vec<ProbeStatus>,
    /// Set once the tracepoint has ended by itself (its `count` was reached).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A host as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// What its agent said.
    pub profile: HostProfile,
    /// Whether its agent is heard.
    pub alive: bool,
    /// Uncertainty of its clock, in nanoseconds; `None` before the first exchange.
    pub clock_uncertainty_ns: Option<u64>,
}

/// The whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// This run of the coordinator.
    pub coordinator: Incarnation,
    /// Hosts, in the order of their names.
    pub hosts: Vec<HostView>,
    /// Tracepoints of all sessions.
    pub tracepoints: Vec<TracepointStatus>,
}

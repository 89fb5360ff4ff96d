//! Control messages between coordinator and agents: JSON, request and reply on the host's subjects.
//!
//! Every request is answered exactly once, with [`Reply::Ok`] or with an error that says why. All requests are
//! idempotent: a coordinator that heard no answer asks again.

use crate::batch::FrameEntry;
use crate::fleet::ProbeStatus;
use crate::ids::{BuildId, HostName, Incarnation, ProcessKey, TracepointId};
use crate::layout::{Layout, Scope};
use crate::time::ClockDomain;
use crate::tracepoint::Tracepoint;
use serde::{Deserialize, Serialize};

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// Done.
    Ok(T),
    /// Not done, in a sentence for a person.
    Error(String),
}

/// `<host>.profile.get`; answered with [`crate::fleet::HostProfile`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileGet {}

/// `<host>.debugger.attach` and `.detach`: load symbols of a process, or let go of it with all its probes.
/// Answered with [`AttachReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which process.
    pub process: ProcessKey,
}

/// Answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    /// Whether the process's symbols are loaded now.
    pub loaded: bool,
}

/// `<host>.debugger.createTracepoint`: arm a tracepoint in these processes. Answered with [`CreateReply`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// What is asked for. An id that is armed already with the same content is left as it is; with other content,
    /// it is replaced.
    pub tracepoint: Tracepoint,
    /// In which processes of the host.
    pub processes: Vec<ProcessKey>,
}

/// Answer to [`Create`]: one status per process asked for, armed or with the reason why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateReply {
    /// Statuses, in the order of the request.
    pub probes: Vec<ProbeStatus>,
    /// How to read the hits of their sites.
    pub layouts: Vec<Layout>,
}

/// `<host>.debugger.removeTracepoint`: disarm in all processes of the host. Answered with [`RemoveReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
}

/// Answer to [`Remove`]: final counts, unless a status says that it is [unfinished](ProbeStatus::unfinished). Asked again
/// within a minute, it is answered again; an unknown tracepoint has no counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReply {
    /// Final status of each probe that was removed.
    pub probes: Vec<ProbeStatus>,
}

/// `<host>.debugger.listTracepoints`. Answered with [`ListReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {}

/// Answer to [`List`]: everything a coordinator that knows nothing needs to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListReply {
    /// Which run of the agent answers.
    pub incarnation: Incarnation,
    /// Tracepoints with the processes they are armed or refused in.
    pub tracepoints: Vec<Tracepoint>,
    /// Status of every probe.
    pub probes: Vec<ProbeStatus>,
    /// Every layout made in this incarnation.
    pub layouts: Vec<Layout>,
    /// Every program counter seen in this incarnation (bounded by the agent's cache).
    pub frames: Vec<FrameEntry>,
}

/// `<host>.debugger.lines` and `riptrace.lines.get`: which lines of a source file can be traced in a build that runs, and
/// what can be read there. Answered with [`LinesReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesGet {
    /// Which build; a process of the host (or fleet) runs it.
    pub build: BuildId,
    /// File, as in a tracepoint's location: a path as the build knows it, or an unambiguous end of one.
    pub file: String,
    /// First line, from 1.
    pub first: u32,
    /// Last line.
    pub last: u32,
    /// Whether the variables of each line are wanted as well. It takes longer, and only so many lines are answered
    /// ([`crate::limits::LINES_WITH_VARIABLES_MAX`]).
    #[serde(default)]
    pub variables: bool,
}

/// Answer to [`LinesGet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesReply {
    /// The file as the build knows it.
    pub file: String,
    /// Lines with code, in order.
    pub lines: Vec<LineFacts>,
    /// Whether there are more lines with code between the first and the last asked for.
    pub more: bool,
}

/// A line that can be traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFacts {
    /// Line, from 1.
    pub line: u32,
    /// Function that holds its first address; empty unless the variables were asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// Why it cannot be traced though it has code; known where the variables were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its variables at its first address, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<VariableFacts>,
}

/// A variable in scope at a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableFacts {
    /// Name in the source.
    pub name: String,
    /// Type as the language writes it; empty when it is not described.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it belongs.
    pub scope: Scope,
    /// Why it cannot be read there, for a person (`"optimised out"`); `None` when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// `<host>.clock.ping`: one exchange. Answered with [`ClockPong`] (without [`Reply`]: it cannot fail). It also renews
/// the lease of all probes of the host ([`crate::limits::COORDINATOR_LEASE_MS`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPing {
    /// Which run of the coordinator asks.
    pub coordinator: Incarnation,
    /// The coordinator's clock when it asked, in its own nanoseconds.
    pub sent_ns: u64,
    /// Hits wait for this host's watermark: it is to be said now, and often for the next [`crate::limits::BUSY_MS`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_waited_for: bool,
}

/// Answer to [`ClockPing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPong {
    /// As asked.
    pub sent_ns: u64,
    /// Which clock `received_ns` and `replied_ns` are of.
    pub clock_domain: ClockDomain,
    /// Domain time when the ping came in.
    pub received_ns: u64,
    /// Domain time when the answer went out.
    pub replied_ns: u64,
    /// Which run of the agent answers.
    pub incarnation: Incarnation,
}

/// `<host>.debugger.status`: an agent says that it lives and what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which host.
    pub host: HostName,
    /// Which run of its agent.
    pub incarnation: Incarnation,
    /// Revision of the host profile; when it grows, the coordinator asks for the profile.
    pub profile_revision: u64,
    /// Probes whose state, reason or counts changed since the last heartbeat.
    pub probes: Vec<ProbeStatus>,
    /// The agent is going: it has taken its probes out.
    pub leaving: bool,
}

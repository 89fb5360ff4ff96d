//! Control messages between coordinator and agents: JSON, request and reply on the host's subjects.
//!
//! Every request is answered exactly once, with [`Reply::Ok`] or with an error that says why. All requests are
//! idempotent: a coordinator that heard no answer asks again.

use crate::batch::FrameEntry;
use crate::fleet::ProbeStatus;
use crate::ids::{HostName, Incarnation, ProcessKey, TracepointId};
use crate::layout::Layout;
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

/// Answer to [`Remove`]: final counts. An unknown tracepoint has none.
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

/// `<host>.clock.ping`: one exchange. Answered with [`ClockPong`] (without [`Reply`]: it cannot fail). It also renews
/// the lease of all probes of the host ([`crate::limits::COORDINATOR_LEASE_MS`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPing {
    /// Which run of the coordinator asks.
    pub coordinator: Incarnation,
    /// The coordinator's clock when it asked, in its own nanoseconds.
    pub sent_ns: u64,
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

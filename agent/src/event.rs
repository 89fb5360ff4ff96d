//! What the service's state machine is told, and what it wants done. Plain data; [`crate::state`] holds the rules.

use riptrace_protocol::agent_api::{AttachReply, Create, CreateReply, Heartbeat, LinesGet, LinesReply, RemoveReply};
use riptrace_protocol::fleet::{HostProfile, Mechanism, ProbeStatus, ProcessFacts, SiteFacts};
use riptrace_protocol::ids::{Incarnation, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::tracepoint::Tracepoint;
use std::sync::Arc;

/// A request that is owed exactly one answer; given out by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// A piece of work in one process that ends with exactly one [`Event::Done`]; given out by the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u64);

/// What a coordinator asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    Profile,
    Attach(ProcessKey),
    Detach(ProcessKey),
    Create(Box<Create>),
    Remove(TracepointId),
    List,
    Lines(LinesGet),
}

/// Why the probes of a process are gone without having been asked to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It ended, in these words (`"exit status 1"`).
    Exited(String),
    /// It runs another program now.
    Execed,
    /// The engine lost it.
    Lost(String),
}

/// Passages of one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeCounts {
    pub(crate) passages: u64,
    pub(crate) hits: u64,
    pub(crate) dropped: u64,
    /// What is to be known of the probe besides.
    pub(crate) note: Option<String>,
    /// Why the engine has switched it off.
    pub(crate) off: Option<String>,
    /// Whether there is more that the engine could not count.
    pub(crate) unfinished: bool,
}

/// A probe that is in place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Armed {
    pub(crate) mechanism: Mechanism,
    /// Why it is not a cheaper one.
    pub(crate) note: Option<String>,
    pub(crate) sites: Vec<SiteFacts>,
    pub(crate) layouts: Vec<Arc<Layout>>,
}

/// Why a probe is not in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotArmed {
    /// Whether the build has no code for the place, rather than that something failed.
    pub(crate) absent: bool,
    /// Why, for a person.
    pub(crate) why: String,
}

impl From<String> for NotArmed {
    fn from(why: String) -> NotArmed {
        NotArmed { absent: false, why }
    }
}

/// How a piece of work ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Of [`Work::Load`]: done, or why not.
    Loaded(Result<(), String>),
    /// Of [`Work::Arm`]: in place, or why not.
    Armed(Result<Armed, NotArmed>),
    /// Of [`Work::Disarm`]: the final counts, if it was there.
    Disarmed(Option<ProbeCounts>),
    /// Of [`Work::Detach`].
    Detached,
    /// Of [`Work::Lines`].
    Lines(Result<LinesReply, String>),
}

/// What the state machine is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A request came in.
    Asked { request: RequestId, ask: Ask },
    /// A coordinator exchanged clocks.
    CoordinatorHeard(Incarnation),
    /// The processes of the host, all of them.
    Discovered(Vec<ProcessFacts>),
    /// A piece of work ended.
    Done { job: JobId, outcome: Outcome },
    /// Counts of probes, each named by the job that armed it.
    Counted(Vec<(JobId, ProbeCounts)>),
    /// The probes of a process are gone.
    ProcessGone { process: ProcessKey, how: Gone },
    /// Time went on.
    Tick,
    /// The agent is asked to stop.
    Shutdown,
}

/// A piece of work in one process. The driver does the work of one process in the order in which it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// Load its symbols.
    Load,
    /// Put the tracepoint's sites in place, attaching first if need be.
    Arm(Arc<Tracepoint>),
    /// Take the tracepoint's sites out.
    Disarm(TracepointId),
    /// Take everything out and let go of the process.
    Detach,
    /// Look up lines in the debug information of what it runs.
    Lines(LinesGet),
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Profile(HostProfile),
    Attach(AttachReply),
    Create(CreateReply),
    Remove(RemoveReply),
    Lines(LinesReply),
    /// To [`Ask::List`]; the driver adds the frames.
    List {
        tracepoints: Vec<Tracepoint>,
        probes: Vec<ProbeStatus>,
        layouts: Vec<Arc<Layout>>,
    },
    Error(String),
}

/// What the state machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Answer a request.
    Reply { request: RequestId, answer: Answer },
    /// Do a piece of work.
    Run { job: JobId, process: ProcessKey, work: Work },
    /// Publish a heartbeat.
    Heartbeat(Heartbeat),
    /// Whether there are probes now, in place or on their way in or out.
    ProbesExist(bool),
    /// Another run of a coordinator speaks: it has heard nothing yet.
    NewCoordinator,
    /// The agent may end: everything is out, and everybody was answered.
    Finished,
}

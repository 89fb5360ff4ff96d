//! Everything that can happen to the coordinator. The driver turns the outside into these; nothing else wakes the state.

use crate::clock::Exchange;
use riptrace_protocol::agent_api::{CreateReply, Heartbeat, LinesGet, LinesReply, ListReply, RemoveReply};
use riptrace_protocol::batch::Batch;
use riptrace_protocol::coordinator_api::{SessionOpen, SessionRef, TracepointCreate, TracepointRemove};
use riptrace_protocol::fleet::HostProfile;
use riptrace_protocol::ids::{HostName, SessionId};
use riptrace_protocol::stream::Resume;
use riptrace_protocol::time::ClockDomain;

/// A question to an agent; numbered by the state, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// A request to the coordinator; numbered by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed ([`crate::state::next_deadline`] says when it matters).
    Tick,
    /// The bus is there (again).
    Connected,
    /// The bus is away: that nobody is heard means nothing now.
    Disconnected,
    /// An agent says that it lives. The driver has checked that it speaks for the host of its subject.
    Heartbeat(Heartbeat),
    /// Answer to [`crate::effect::Effect::Ping`].
    Pong {
        /// Who was asked.
        host: HostName,
        /// Which clock answered.
        clock_domain: ClockDomain,
        /// What the clocks said.
        exchange: Exchange,
    },
    /// [`crate::effect::Effect::Ping`] was not answered in time.
    PingLost {
        /// Who was asked.
        host: HostName,
    },
    /// Answer to [`crate::effect::Effect::Ask`]: exactly one, if only that there is none.
    Answered {
        /// Which question.
        ask: AskId,
        /// The answer.
        answer: Result<Answer, AskError>,
    },
    /// A batch of the trace stream. The driver has checked that it speaks for the host of its subject.
    Batch {
        /// Its sequence number in the trace stream.
        trace_sequence: u64,
        /// The batch.
        batch: Box<Batch>,
    },
    /// A message of the trace stream that is no batch.
    BadBatch {
        /// Its sequence number in the trace stream.
        trace_sequence: u64,
    },
    /// The trace stream was made anew (the store was lost): sequence numbers begin again.
    TraceReset,
    /// A viewer or tool asks.
    Request {
        /// Which request.
        request: RequestId,
        /// What.
        body: Request,
    },
    /// Answer to [`crate::effect::Effect::LoadSession`].
    SessionLoaded {
        /// Which session.
        session: SessionId,
        /// Where its stream ends; `None` when it has none.
        resume: Option<Resume>,
    },
    /// Answer to [`crate::effect::Effect::PublishStream`]: the message is stored.
    StreamPublished {
        /// Which session.
        session: SessionId,
        /// Which message.
        number: u64,
    },
}

/// A request to the coordinator, as in [`riptrace_protocol::coordinator_api`].
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "requests are rare, and one is handled at a time")]
pub enum Request {
    /// The fleet.
    FleetGet,
    /// Open a session, or take it up again.
    SessionOpen(SessionOpen),
    /// Keep a session alive.
    SessionRenew(SessionRef),
    /// End a session.
    SessionClose(SessionRef),
    /// Create a tracepoint.
    TracepointCreate(TracepointCreate),
    /// Remove a tracepoint.
    TracepointRemove(TracepointRemove),
    /// Lines of a build.
    LinesGet(LinesGet),
}

/// What an agent answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`crate::effect::Ask::Profile`].
    Profile(HostProfile),
    /// To [`crate::effect::Ask::Create`].
    Create(CreateReply),
    /// To [`crate::effect::Ask::Remove`].
    Remove(RemoveReply),
    /// To [`crate::effect::Ask::List`].
    List(Box<ListReply>),
    /// To [`crate::effect::Ask::Lines`].
    Lines(LinesReply),
}

/// Why an agent did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It took too long.
    #[error("the agent did not answer in time; it is asked again")]
    Timeout,
    /// Nobody listens on the subject.
    #[error("no agent listens; it is asked again when it is back")]
    NoResponder,
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// The answer cannot be read.
    #[error("the agent's answer cannot be read ({0}): run the same riptrace on all hosts")]
    Malformed(String),
}

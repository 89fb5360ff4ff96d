//! Everything that the coordinator does to the outside. Each says which event answers it.

use crate::event::{AskId, RequestId};
use riptrace_protocol::agent_api::{Create, LinesGet, LinesReply};
use riptrace_protocol::coordinator_api::{SessionOpened, SessionState};
use riptrace_protocol::fleet::{FleetView, TracepointStatus};
use riptrace_protocol::ids::{HostName, SessionId, TracepointId};
use riptrace_protocol::stream::StreamMessage;
use riptrace_protocol::tracepoint::Tracepoint;
use serde::{Deserialize, Serialize};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask an agent; answered by [`crate::event::Event::Answered`] within `AGENT_REQUEST_MS`.
    Ask {
        /// Which question.
        ask: AskId,
        /// Whom.
        host: HostName,
        /// What.
        body: Ask,
    },
    /// Exchange clocks; answered by [`crate::event::Event::Pong`] or [`crate::event::Event::PingLost`].
    Ping {
        /// With whom.
        host: HostName,
        /// Hits wait for its watermark.
        is_waited_for: bool,
    },
    /// Answer a request: exactly one for each [`crate::event::Event::Request`].
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer, or a sentence for a person.
        reply: Result<ReplyBody, String>,
    },
    /// Append to a session's stream. One at a time for each session; repeated until it is stored, then answered by
    /// [`crate::event::Event::StreamPublished`].
    PublishStream {
        /// Which session.
        session: SessionId,
        /// Number of the message in this run of the coordinator.
        number: u64,
        /// The message.
        message: Box<StreamMessage>,
    },
    /// Tell a session's viewers about its tracepoints; not answered, may be lost.
    PublishStatus(Box<SessionState>),
    /// Keep a session for the next coordinator; not answered. A later one replaces it.
    SaveSession(Box<SessionRecord>),
    /// A session has ended: forget its record, and what is not published of its stream; not answered.
    ForgetSession(SessionId),
    /// Read where a session's stream ends; answered by [`crate::event::Event::SessionLoaded`].
    LoadSession(SessionId),
}

/// A question to an agent, as in [`riptrace_protocol::agent_api`].
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// `profile.get`
    Profile,
    /// `debugger.createTracepoint`
    Create(Box<Create>),
    /// `debugger.removeTracepoint`
    Remove(TracepointId),
    /// `debugger.listTracepoints`
    List,
    /// `debugger.lines`
    Lines(LinesGet),
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyBody {
    /// The fleet.
    Fleet(Box<FleetView>),
    /// The session is open.
    Opened(SessionOpened),
    /// State of a session.
    Session(SessionState),
    /// Status of a tracepoint.
    Tracepoint(Box<TracepointStatus>),
    /// Lines of a build.
    Lines(LinesReply),
}

/// What is kept of a session over a restart of the coordinator: JSON in the sessions' bucket, key: session id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Which session.
    pub session: SessionId,
    /// Who looks.
    pub viewer: String,
    /// It ends unless it is renewed within this time, in milliseconds; counted anew by a new coordinator.
    pub lease_ms: u64,
    /// Sequence of the trace stream from which on its hits are.
    pub trace_sequence: u64,
    /// What it wants.
    pub tracepoints: Vec<TracepointRecord>,
}

/// A tracepoint of a [`SessionRecord`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracepointRecord {
    /// What.
    pub tracepoint: Tracepoint,
    /// Set once it has ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

//! The ordered stream of a session: what the coordinator publishes on `riptrace.session.<id>.stream`.
//!
//! Each message is self-contained in order: its items follow those of the message before. A layout and the frames of
//! a program counter travel once per session, in front of the first hit that needs them. The last message of a
//! session tells a restarted coordinator where to go on ([`Resume`]): nothing shown is shown again or moved.

use crate::hit::{DropReason, Frame, RawHit};
use crate::ids::{HostName, Incarnation, LayoutId, ProcessId, SessionId, TracepointId};
use crate::layout::Layout;
use crate::limits;
use crate::wire::{self, WireError};
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const STREAM_VERSION: u8 = 3;
const WHAT: &str = "session stream message";

/// One message of a session's ordered stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamMessage {
    /// Which session.
    pub session: SessionId,
    /// Items, in order.
    pub items: Vec<StreamItem>,
    /// Where a restarted coordinator goes on.
    pub resume: Resume,
}

/// One item of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StreamItem {
    /// A layout that hits from here on use.
    Layout(Box<Layout>),
    /// Frames that program counters of hits from here on stand for.
    Frames(Vec<StreamFrames>),
    /// A hit with its place in the order.
    Hit(Box<OrderedHit>),
    /// Hits that are missing about here.
    Drop(StreamDrop),
}

/// Frames of one program counter of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFrames {
    /// Which process.
    pub process: ProcessId,
    /// Program counter, as in [`RawHit::stack`].
    pub pc: crate::ids::Avma,
    /// Frames, innermost first; empty when nothing is known of it.
    pub frames: Vec<Frame>,
}

/// A hit with its place in the session's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedHit {
    /// Place in the session, from 1, strictly increasing without gaps.
    pub seq: u64,
    /// Coordinated time: unix nanoseconds, never before that of the hit in front unless `late`.
    pub time_ns: i64,
    /// Coordinated time is off by at most this, in nanoseconds.
    pub uncertainty_ns: u64,
    /// Where it happened.
    pub host: HostName,
    /// Service of the process.
    pub service: String,
    /// Earlier hits (by `seq`, at most [`limits::UNDETERMINED_MAX`]) that may in truth have come after this one.
    pub undetermined_with: Vec<u64>,
    /// It arrived after later hits had been shown: its place is not its time's.
    pub late: bool,
    /// What was captured.
    pub raw: RawHit,
}

/// Hits that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDrop {
    /// Where.
    pub host: HostName,
    /// In which process; `None` when a whole batch is missing.
    pub process: Option<crate::ids::ProcessKey>,
    /// Of which tracepoint; `None` when a whole batch is missing.
    pub tracepoint: Option<TracepointId>,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
}

/// Where a restarted coordinator goes on with a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// `seq` of the next hit.
    pub next_seq: u64,
    /// Coordinated time of the newest hit that was released, unix nanoseconds.
    pub released_ns: i64,
    /// Hits counted towards each tracepoint's `count`.
    pub counted: Vec<(TracepointId, u64)>,
    /// Per host and incarnation: number of the first hit that was not released yet.
    pub next_hit: Vec<(HostName, Incarnation, u64)>,
    /// JetStream sequence of the trace stream up to which (exclusive) nothing is needed any more.
    pub trace_sequence: u64,
    /// Layouts that were sent in this session.
    pub layouts_sent: Vec<LayoutId>,
}

impl StreamMessage {
    /// Writes the message; fails when it is larger than a message may be.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(WHAT, STREAM_VERSION, self)
    }

    /// Reads a message and checks what it promises about itself.
    pub fn decode(bytes: &[u8]) -> Result<StreamMessage, WireError> {
        let message: StreamMessage = wire::decode(WHAT, STREAM_VERSION, bytes)?;
        let inconsistent = |rule| Err(WireError::Inconsistent { what: WHAT, rule });
        let mut last = 0;
        for item in &message.items {
            if let StreamItem::Hit(hit) = item {
                if hit.seq <= last {
                    return inconsistent("sequence numbers do not increase");
                }
                last = hit.seq;
                if hit.undetermined_with.len() > limits::UNDETERMINED_MAX {
                    return inconsistent("more undetermined neighbours than a hit may name");
                }
            }
        }
        if last != 0 && message.resume.next_seq <= last {
            return inconsistent("the next sequence number is not beyond the last");
        }
        Ok(message)
    }
}

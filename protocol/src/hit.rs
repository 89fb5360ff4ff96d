//! Hits as they are captured: raw bytes and where they came from, not yet values.
//!
//! The capture program copies, per variable, the bytes of its *root* (the variable itself, from registers or the
//! stack) and, for pointers, strings and slices within the limits, *chunks* of memory they point to. A layout tells
//! how to read them; [`crate::decode`] does, where somebody looks.

use crate::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use serde::{Deserialize, Serialize};

/// One passage of one thread through one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawHit {
    /// Number of the hit among all hits of this incarnation of the agent, from 0, without gaps, in domain-time order.
    pub number: u64,
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Which process.
    pub process: ProcessKey,
    /// How to read `roots` and `chunks`.
    pub layout: LayoutId,
    /// When, in domain time (nanoseconds).
    pub time_ns: u64,
    /// Thread id as the host sees it.
    pub thread: u32,
    /// Goroutine id, where there is one and it could be read.
    pub goroutine: Option<u64>,
    /// Bytes of the variables, back to back as the layout says.
    pub roots: Vec<u8>,
    /// One per variable of the layout, in its order.
    pub root_states: Vec<RootState>,
    /// Memory that the variables point to.
    pub chunks: Vec<Chunk>,
    /// Program counters, innermost first; the first is the site itself, each other one lies inside a call (its return
    /// address less one: the instruction after a call may belong to another line).
    pub stack: Vec<Avma>,
    /// Whether the stack goes on beyond `stack`, and why it is cut there.
    pub stack_end: StackEnd,
    /// At a return: nanoseconds since the same call passed the entry. `None` where that is not known: the entry was not
    /// seen, or a passage in between was dropped.
    pub duration_ns: Option<u64>,
}

/// How the frames of a hit end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StackEnd {
    /// The outermost frame is there.
    #[default]
    Whole,
    /// Only so many frames are captured.
    Frames,
    /// The caller of the last frame is not known: no frame pointer and no unwind table leads to it.
    Unknown,
    /// Only so many bytes of the thread's stack were captured, and the last frame's caller is beyond them.
    Bytes(u32),
}

impl StackEnd {
    /// Whether frames are missing.
    pub fn is_cut(self) -> bool {
        self != StackEnd::Whole
    }

    /// What is to be said below the last of `frames` frames; `None` where nothing is missing.
    pub fn note(self, frames: usize) -> Option<String> {
        match self {
            StackEnd::Whole => None,
            StackEnd::Frames => Some(format!("the stack goes on: its innermost {frames} frames were captured")),
            StackEnd::Unknown => Some(format!(
                "the stack goes on: who called frame {frames} is not known (no frame pointer, no unwind table leads there)"
            )),
            StackEnd::Bytes(bytes) => Some(format!("stack cut: only {bytes} bytes of it were captured")),
        }
    }
}

/// Whether a variable's root was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootState {
    /// Its bytes are in `roots`.
    Captured,
    /// Memory at this address could not be read.
    Unreadable(Avma),
    /// The hit's byte budget was used up.
    OverBudget,
    /// The layout says why there is nothing to capture (optimised out, partial, suspect).
    Absent,
}

/// A piece of the target's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where it began.
    pub address: Avma,
    /// How many bytes the program wanted from there (it may have been clamped before, by a limit).
    pub wanted_bytes: u64,
    /// What was read; shorter than wanted when a limit or a fault cut it.
    pub bytes: Vec<u8>,
    /// Why it is shorter than wanted.
    pub end: ChunkEnd,
}

/// How a chunk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkEnd {
    /// All that was wanted is there.
    Complete,
    /// The memory beyond could not be read.
    Fault,
    /// A limit of the tracepoint (string bytes, elements, bytes per hit) cut it.
    Limit,
}

/// Why passages did not become hits that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Over the tracepoint's budget of hits per second.
    Rate,
    /// The agent's queue between engine and publisher was full.
    Queue,
    /// The bus did not take the batches fast enough, or was away too long.
    Bus,
    /// A batch was lost between agent and coordinator (a gap in the numbers).
    Lost,
    /// The coordinator's buffer for the session was full.
    Session,
    /// The thread was gone, or its registers unreadable, when it was to be captured.
    Capture,
    /// The condition could not be evaluated (it read memory that is not there).
    Condition,
    /// The probe is sampled: tracing took more of the process's time than it may.
    Sampled,
    /// The thread's stack had no room for the capture.
    Stack,
    /// The ring between process and agent was full: hits came faster than the agent takes them.
    Ring,
}

impl DropReason {
    /// The word of the reason, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Rate => "rate",
            DropReason::Queue => "queue",
            DropReason::Bus => "bus",
            DropReason::Lost => "lost",
            DropReason::Session => "session",
            DropReason::Capture => "capture",
            DropReason::Condition => "condition",
            DropReason::Sampled => "sampled",
            DropReason::Stack => "stack",
            DropReason::Ring => "ring",
        }
    }
}

/// Passages that did not become hits since the last batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawDrop {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Which process.
    pub process: ProcessKey,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
}

/// A frame of a call stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Function name.
    pub function: String,
    /// File as the build knows it; where its lines are not known, the shared library that holds the function, or empty.
    pub file: String,
    /// Line; 0 when unknown.
    pub line: u32,
    /// Whether the function was inlined into the next frame.
    pub inlined: bool,
}

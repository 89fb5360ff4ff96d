//! What happens to a session, and what it wants done.

use super::super::envelope::{Malformed, Outgoing};
use crate::environment::{BusTarget, CheckoutDefaults};
use crate::fleet::SessionEvent;
use crate::lines::Plan;
use crate::timeline::recording::Header;
use riptrace_protocol::fleet::{BuildFacts, FleetView, TracepointStatus};
use riptrace_protocol::ids::{SessionId, TracepointId};
use riptrace_protocol::stream::{OrderedHit, StreamItem};
use riptrace_protocol::tracepoint::Tracepoint;
use serde_json::Value;
use std::path::PathBuf;

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum Event {
    /// The editor asks.
    Request {
        /// Number of the request.
        seq: i64,
        /// What is asked.
        command: String,
        /// Arguments, as they came.
        arguments: Option<Value>,
    },
    /// The editor sent a body that is no message.
    Malformed(Malformed),
    /// The editor sent bytes that are no message at all.
    Garbage(String),
    /// Answer to [`Effect::Join`].
    Joined {
        /// Which try.
        attempt: u64,
        /// The fleet, or why not.
        outcome: Result<Box<JoinedFleet>, String>,
    },
    /// Answer to [`Effect::OpenRecording`].
    RecordingOpened {
        /// Which try.
        attempt: u64,
        /// What it says of itself, or why it cannot be read.
        outcome: Result<Box<OpenedRecording>, String>,
    },
    /// Answer to [`Effect::ReadRecording`].
    RecordingRead {
        /// Which try.
        attempt: u64,
        /// The next items; `None` after the last.
        outcome: Result<Option<Vec<StreamItem>>, String>,
    },
    /// Answer to [`Effect::BeginSave`], [`Effect::SaveItems`] and, with the bytes of the file, [`Effect::EndSave`].
    Saved {
        /// Which recording.
        save: u64,
        /// See above.
        outcome: Result<Option<u64>, String>,
    },
    /// Answer to [`Effect::ReadPast`].
    PastRead {
        /// As it was asked.
        before: u64,
        /// Hits in front of it, oldest first, without gaps; none where the store has none any more.
        outcome: Result<Vec<OrderedHit>, String>,
    },
    /// Answer to [`Effect::AskFleet`].
    Fleet(Result<FleetView, String>),
    /// Answer to [`Effect::Map`].
    Mapped {
        /// Which breakpoint.
        breakpoint: i64,
        /// Where its line is in the builds, or why it is no line at all.
        outcome: Result<Mapped, String>,
    },
    /// Answer to [`Effect::FindFunction`].
    FunctionFound {
        /// Which search.
        find: u64,
        /// Its name.
        name: String,
        /// Local file, and line from 1.
        place: Option<(PathBuf, u32)>,
    },
    /// Answer to [`Effect::ReadSource`].
    SourceRead {
        /// Which.
        read: u64,
        /// File, as the build knows it.
        file: String,
        /// Its text as it was deployed; `None` when that is not at hand.
        text: Option<String>,
    },
    /// Answer to [`Effect::Locate`].
    Located {
        /// Which.
        locate: u64,
        /// Lines that some build has, in order.
        lines: Vec<u32>,
    },
    /// Answer to [`Effect::Create`].
    Created {
        /// Which tracepoint.
        tracepoint: TracepointId,
        /// Its state, or why there is none.
        outcome: Result<TracepointStatus, String>,
    },
    /// Answer to [`Effect::Remove`].
    Removed {
        /// Which tracepoint.
        tracepoint: TracepointId,
        /// Why it could not be removed.
        outcome: Result<(), String>,
    },
    /// The session's stream and state.
    Stream(SessionEvent),
    /// The session's stream has ended for good.
    StreamEnded,
    /// The editor has closed the connection.
    EditorGone,
    /// Answer to [`Effect::Close`].
    Closed(Result<(), String>),
    /// A deadline of [`super::State::deadline`] has come.
    Tick,
}

/// What is known once a fleet is joined.
#[derive(Debug, Clone)]
pub(crate) struct JoinedFleet {
    /// The session's id: tracepoints are named after it.
    pub(crate) session: SessionId,
    /// Defaults of the checkout.
    pub(crate) defaults: CheckoutDefaults,
    /// The fleet.
    pub(crate) fleet: FleetView,
}

/// A recording whose beginning was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenedRecording {
    /// Defaults of the checkout.
    pub(crate) defaults: CheckoutDefaults,
    /// What the recording says of itself.
    pub(crate) header: Header,
}

/// Where a local line is in the builds of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// As the line mapper says.
    Plan(Plan),
    /// The local file cannot be read here (the editor is on another machine): the line is taken as it is.
    Unread,
    /// No build is there to map to: the line is taken as it is, in the file that builds know by this path.
    Path(String),
}

/// What a session wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Send a message to the editor.
    Send(Outgoing),
    /// Join a fleet: answered by [`Event::Joined`].
    Join {
        /// Which try; a later one or a cancel makes it void.
        attempt: u64,
        /// Which fleet.
        target: BusTarget,
        /// Local prefix and the build's prefix, for the mapping of lines.
        substitutes: Vec<(String, String)>,
    },
    /// Open a recording: answered by [`Event::RecordingOpened`].
    OpenRecording {
        /// Which try; a later one or a cancel makes it void.
        attempt: u64,
        /// The file.
        path: PathBuf,
        /// Folder of the checkout.
        cwd: PathBuf,
        /// Local prefix and the build's prefix.
        substitutes: Vec<(String, String)>,
    },
    /// Read on in the recording: answered by [`Event::RecordingRead`].
    ReadRecording {
        /// Which try.
        attempt: u64,
    },
    /// Begin to write a recording: answered by [`Event::Saved`].
    BeginSave {
        /// Which recording.
        save: u64,
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        header: Box<Header>,
    },
    /// Write items into it: answered by [`Event::Saved`].
    SaveItems {
        /// Which recording.
        save: u64,
        /// Items, in order.
        items: Vec<StreamItem>,
    },
    /// End it: answered by [`Event::Saved`].
    EndSave {
        /// Which recording.
        save: u64,
    },
    /// Remove what was written of it.
    AbortSave,
    /// Read hits that the timeline does not keep any more: answered by [`Event::PastRead`].
    ReadPast {
        /// The hits have smaller numbers.
        before: u64,
        /// Hits, about.
        count: usize,
    },
    /// Look at the fleet: answered by [`Event::Fleet`].
    AskFleet,
    /// Find a local line in builds: answered by [`Event::Mapped`].
    Map {
        /// Which breakpoint.
        breakpoint: i64,
        /// Local file.
        path: PathBuf,
        /// Line, from 1.
        line: u32,
        /// Builds that may have it.
        builds: Vec<BuildFacts>,
    },
    /// Find where the checkout declares a function: answered by [`Event::FunctionFound`].
    FindFunction {
        /// Which search.
        find: u64,
        /// Its name.
        name: String,
    },
    /// Read a file as a build has it: answered by [`Event::SourceRead`].
    ReadSource {
        /// Which.
        read: u64,
        /// File, as the build knows it.
        file: String,
        /// The build.
        build: Box<BuildFacts>,
    },
    /// Find the lines that some build has: answered by [`Event::Located`].
    Locate {
        /// Which.
        locate: u64,
        /// Local file.
        path: PathBuf,
        /// First line, from 1.
        from: u32,
        /// Last line.
        to: u32,
        /// Builds that may have them.
        builds: Vec<BuildFacts>,
    },
    /// Create a tracepoint: answered by [`Event::Created`].
    Create {
        /// What is asked for.
        tracepoint: Tracepoint,
        /// For a function, the builds whose texts say more of its variables; none for a line, which has been mapped.
        builds: Vec<BuildFacts>,
    },
    /// Remove a tracepoint: answered by [`Event::Removed`].
    Remove(TracepointId),
    /// End the session in the fleet: answered by [`Event::Closed`].
    Close,
    /// The conversation is over: send what is to be sent and let go.
    Exit,
}

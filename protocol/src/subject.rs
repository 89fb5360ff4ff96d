//! NATS subjects and names of buckets and streams: each is spelled here, once.

use crate::ids::{HostName, SessionId};

/// Host facts and the processes that can be traced.
pub fn profile_get(host: &HostName) -> String {
    format!("{host}.profile.get")
}

/// Load symbols and prepare a process.
pub fn attach(host: &HostName) -> String {
    format!("{host}.debugger.attach")
}

/// Let go of a process.
pub fn detach(host: &HostName) -> String {
    format!("{host}.debugger.detach")
}

/// Arm a tracepoint in processes of the host.
pub fn create_tracepoint(host: &HostName) -> String {
    format!("{host}.debugger.createTracepoint")
}

/// Disarm a tracepoint.
pub fn remove_tracepoint(host: &HostName) -> String {
    format!("{host}.debugger.removeTracepoint")
}

/// The probes of the host with their state, layouts and frames.
pub fn list_tracepoints(host: &HostName) -> String {
    format!("{host}.debugger.listTracepoints")
}

/// Which lines of a source file can be traced in a build.
pub fn lines(host: &HostName) -> String {
    format!("{host}.debugger.lines")
}

/// Batches of hits, drops and watermarks (published by the agent, kept by [`TRACE_STREAM`]).
pub fn trace(host: &HostName) -> String {
    format!("{host}.debugger.trace")
}

/// Heartbeats (published by the agent).
pub fn status(host: &HostName) -> String {
    format!("{host}.debugger.status")
}

/// Clock exchange.
pub fn clock_ping(host: &HostName) -> String {
    format!("{host}.clock.ping")
}

/// Every host's heartbeats.
pub const STATUS_ALL: &str = "*.debugger.status";

/// The fleet as the coordinator sees it.
pub const FLEET_GET: &str = "riptrace.fleet.get";
/// Open (or take up again) a session.
pub const SESSION_OPEN: &str = "riptrace.session.open";
/// Keep a session alive.
pub const SESSION_RENEW: &str = "riptrace.session.renew";
/// End a session and remove its tracepoints.
pub const SESSION_CLOSE: &str = "riptrace.session.close";
/// Create a tracepoint in a session.
pub const TRACEPOINT_CREATE: &str = "riptrace.tracepoint.create";
/// Remove a tracepoint of a session.
pub const TRACEPOINT_REMOVE: &str = "riptrace.tracepoint.remove";
/// Which lines of a source file can be traced in a build that runs somewhere.
pub const LINES_GET: &str = "riptrace.lines.get";
/// A coordinator says that it is there (published every heartbeat), so that a second one can refuse to start.
pub const COORDINATOR_STATUS: &str = "riptrace.coordinator.status";

/// The ordered stream of a session (published by the coordinator, kept by [`SESSION_STREAM`]).
pub fn session_stream(session: &SessionId) -> String {
    format!("riptrace.session.{session}.stream")
}

/// Status of a session's tracepoints: JSON, published at each change; never in the queue of the hits.
pub fn session_status(session: &SessionId) -> String {
    format!("riptrace.session.{session}.status")
}

/// Every session's ordered stream.
pub const SESSION_STREAM_ALL: &str = "riptrace.session.*.stream";
/// JetStream stream that keeps every host's [`trace`]: a subject for each host, because JetStream refuses a wildcard in
/// the first token of a stream that acknowledges (it would cover `$JS` as well).
pub const TRACE_STREAM: &str = "riptrace_trace";
/// JetStream stream that keeps [`SESSION_STREAM_ALL`].
pub const SESSION_STREAM: &str = "riptrace_session";
/// JetStream object store of pushed builds; name of an object: the key of its code.
pub const SYMBOLS_BUCKET: &str = "riptrace_symbols";
/// JetStream key-value bucket of open sessions and the tracepoints they want; key: session id.
pub const SESSION_BUCKET: &str = "riptrace_sessions";

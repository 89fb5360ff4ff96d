//! Limits of the coordinator, in one place, each with its reason. What both sides must agree on is in
//! [`riptrace_protocol::limits`].

use riptrace_protocol::limits as wire;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// How long a batch that is missing is waited for, in milliseconds: its publisher may be asking again. Not longer than
/// the merge waits for a silent host, because a gap holds the merge back in the same way.
pub const GAP_WAIT_MS: u64 = wire::MERGE_WAIT_MS;
/// Batches of one agent that wait behind a gap, at most; one more and the gap is given up at once.
pub const PARKED_BATCHES_MAX: usize = 512;
/// Hits that wait in the merge, at most: two seconds of 100,000 hits per second. Beyond, the oldest are released though
/// a host has not spoken yet; what that host still has to say is then marked late.
pub const MERGE_HITS_MAX: usize = 200_000;
/// Bytes that wait in the merge, at most, for the same reason.
pub const MERGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Batches that are not all released, at most: a minute of a hundred busy hosts. Beyond, the oldest is let go of, so
/// that a restart would not read it again.
pub const OUTSTANDING_MAX: usize = 300_000;
/// A coordinator that is started anew reads so many messages of the trace stream more than it needs: batches that the
/// bus delivered out of order before that point would look like lost ones. Two seconds of twenty busy hosts.
pub const REPLAY_MARGIN: u64 = 2048;
/// Agents' runs whose batches are remembered, at most; the oldest that have ended are forgotten first.
pub const SOURCES_MAX: usize = 8192;

/// Bytes of a session's items that are not published yet, at most; hits beyond become drops with their count.
pub const SESSION_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A stream message is closed at this size, in bytes: large enough to amortise an acknowledged publish.
pub const STREAM_MESSAGE_BYTES_TARGET: usize = 256 * 1024;
/// How long a hit whose layout or service is unknown waits for the agent to tell, in milliseconds. Then it is shown
/// without: a viewer says that it cannot read it.
pub const FACTS_WAIT_MS: u64 = 3_000;
/// Layouts that are remembered, at most.
pub const LAYOUTS_MAX: usize = 16_384;
/// Program counters whose frames are remembered, at most.
pub const FRAMES_MAX: usize = 262_144;
/// Processes whose service is remembered, at most.
pub const SERVICES_MAX: usize = 65_536;
/// Hits that a new hit is compared with, to tell whose order is not certain: more than
/// [`wire::UNDETERMINED_MAX`], because hits of the same clock lie between.
pub const NEIGHBOURS_MAX: usize = 256;

/// Sessions at one time, at most.
pub const SESSIONS_MAX: usize = 256;
/// Tracepoints of one session, at most.
pub const SESSION_TRACEPOINTS_MAX: usize = 1024;
/// Hosts that are remembered, at most.
pub const HOSTS_MAX: usize = 4096;
/// How long a host that is gone is still shown, in milliseconds.
pub const HOST_FORGET_MS: u64 = 600_000;
/// Earlier runs of one host's agent that are remembered, so that a late heartbeat of an old run is not taken for a
/// new one.
pub const PAST_INCARNATIONS_MAX: usize = 16;
/// Least time between two status messages of one session, in milliseconds: ten per second.
pub const STATUS_INTERVAL_MS: u64 = 100;
/// First pause before a request to an agent is repeated, in milliseconds; it doubles up to [`RETRY_MS_MAX`].
pub const RETRY_MS_MIN: u64 = 500;
/// Longest pause before a request to an agent is repeated, in milliseconds.
pub const RETRY_MS_MAX: u64 = 10_000;
/// How often an agent is asked for all that it has, in milliseconds: what a lost message has left different is found
/// then at the latest.
pub const RELIST_MS: u64 = 30_000;
/// How long a request that takes probes out waits for the agents before it is answered, in milliseconds; the removal
/// goes on after it.
pub const REMOVE_WAIT_MS: u64 = 5_000;
/// How long hits of a removed tracepoint are still shown: they were captured before it was removed, and a bus that
/// restarts may hold them back.
pub const RETIRED_MS: u64 = 60_000;

/// How fast two clocks may drift apart, in parts per million: quartz is within 100, twice because there are two.
pub const CLOCK_DRIFT_PPM: u64 = 200;
/// Exchanges older than this tell nothing that newer ones do not tell better, in milliseconds: at the drift above
/// the bound has widened by 12 ms.
pub const CLOCK_WINDOW_MS: u64 = 60_000;
/// Bounds that a clock keeps on each side, at most. Few survive: a bound that another one implies is removed.
pub const CLOCK_BOUNDS_MAX: usize = 64;
/// The first exchanges with a host follow each other quickly: so many of them ..
pub const PING_BURST: u32 = 8;
/// .. this far apart, in milliseconds, so that its first hits can be placed.
pub const PING_BURST_MS: u64 = 20;
/// How long a clock exchange may take, in milliseconds; a slower one would say nothing.
pub const PING_TIMEOUT_MS: u64 = 1_000;
/// How long before its arrival a hit may have happened when nothing is known of its clock, in nanoseconds: as long as
/// the trace stream keeps it.
pub const UNKNOWN_CLOCK_NS: i64 = TRACE_AGE_MAX_S as i64 * 1_000_000_000;

/// Batches are kept this long for a coordinator that comes back, in seconds.
pub const TRACE_AGE_MAX_S: u64 = 3_600;
/// Batches are kept up to so many bytes.
pub const TRACE_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// Session streams are kept this long for viewers that come late, in seconds.
pub const SESSION_AGE_MAX_S: u64 = 6 * 3_600;
/// Session streams are kept up to so many bytes, all together.
pub const SESSION_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// Messages of one session that are kept, at most, so that one session cannot push out all others.
pub const SESSION_MESSAGES_MAX: i64 = 100_000;
/// A message that is published twice within this time is stored once, in seconds.
pub const DUPLICATE_WINDOW_S: u64 = 120;
/// At start, another coordinator is listened for so long, in milliseconds: longer than a heartbeat.
pub const STARTUP_LISTEN_MS: u64 = 1_500;

const _: () = assert!(GAP_WAIT_MS <= wire::MERGE_WAIT_MS);
const _: () = assert!(STARTUP_LISTEN_MS > wire::HEARTBEAT_MS);
const _: () = assert!(STREAM_MESSAGE_BYTES_TARGET + wire::HIT_BYTES_MAX < wire::MESSAGE_BYTES_MAX);
const _: () = assert!(NEIGHBOURS_MAX >= wire::UNDETERMINED_MAX);
const _: () = assert!(REMOVE_WAIT_MS < wire::COORDINATOR_REQUEST_MS);

//! Limits of the protocol, in one place, each with its reason.

/// Largest batch or stream message, in bytes: below NATS' default `max_payload` of 1 MiB, with room for headers.
pub const MESSAGE_BYTES_MAX: usize = 960 * 1024;
/// A batch is closed at this size, in bytes: large enough to amortise a publish, small enough to arrive soon.
pub const BATCH_BYTES_TARGET: usize = 256 * 1024;
/// Most hits in one batch.
pub const BATCH_HITS_MAX: usize = 4096;
/// Raw bytes of one hit, at most: roots and chunks together.
pub const HIT_BYTES_MAX: usize = 64 * 1024;
/// Call stack of one hit, at most, in frames.
pub const STACK_FRAMES_MAX: usize = 64;
/// Chunks of memory in one hit, at most.
pub const HIT_CHUNKS_MAX: usize = 1024;
/// Nesting of a decoded value, at most: below any thread's stack.
pub const VALUE_DEPTH_MAX: usize = 24;
/// Children that a decoded value lists, at most; the rest is said to be truncated.
pub const VALUE_CHILDREN_MAX: usize = 1000;
/// Values in one decoded hit, at most, children included: many pointers may share one chunk of memory, and each shows
/// it below itself.
pub const VALUE_NODES_MAX: usize = 16 * 1024;
/// Bytes of strings in one decoded hit, at most: many strings may share one chunk of memory.
pub const VALUE_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the one-line text of a struct, array or slice, about: a row of a variables pane.
pub const SUMMARY_BYTES_MAX: usize = 256;
/// Bytes of one part in such a text, about: no single part hides all others.
pub const SUMMARY_PART_BYTES_MAX: usize = 80;
/// Types in one layout, at most.
pub const LAYOUT_TYPES_MAX: usize = 4096;
/// Variables in one layout, at most.
pub const LAYOUT_VARIABLES_MAX: usize = 512;
/// Bytes of an expression, condition or log message, at most.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// Nesting of an expression, at most.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Lines that one answer about a file's lines names, at most: longer files are asked about in parts.
pub const LINES_MAX: usize = 4096;
/// Lines whose variables one answer names, at most: each takes the agent about a millisecond.
pub const LINES_WITH_VARIABLES_MAX: usize = 64;
/// Sites of one probe, at most: a hot inlined function may have thousands of copies; more is refused with the count.
pub const PROBE_SITES_MAX: usize = 4096;
/// Functions that one pattern may mean in a build: more are a profile, for which a tracepoint is the wrong tool.
pub const PATTERN_FUNCTIONS_MAX: usize = 100;
/// Sequence numbers named as "order not certain" by one hit, at most.
pub const UNDETERMINED_MAX: usize = 8;

/// How often an agent says that it lives, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;
/// A host that is silent this long is gone, in milliseconds.
pub const HOST_LEASE_MS: u64 = 5_000;
/// A coordinator that is silent this long takes its probes along, in milliseconds: longer than its restart.
pub const COORDINATOR_LEASE_MS: u64 = 20_000;
/// A session that is not renewed for this long ends and takes its tracepoints along, in milliseconds.
pub const SESSION_LEASE_MS: u64 = 10_000;
/// How often a viewer renews its session, in milliseconds: three tries within a lease.
pub const SESSION_RENEW_MS: u64 = 3_000;
/// How often the coordinator exchanges clocks with an agent whose host has hits, in milliseconds.
pub const CLOCK_PING_MS: u64 = 250;
/// The same while it has none, in milliseconds, at most: to wake up is all that an agent costs whose probes are silent. A
/// little more than a heartbeat: the ping follows that, while the agent is awake.
pub const CLOCK_CALM_PING_MS: u64 = HEARTBEAT_MS * 3 / 2;
/// A host is busy for so long after its last hit, and after somebody else's hits waited for it, in milliseconds.
pub const BUSY_MS: u64 = 10_000;
/// How often an agent with probes says its watermark while its host is not busy, in milliseconds: twice within what the
/// merge waits for it. Hits of other hosts do not wait for that: they make it busy.
pub const CALM_WATERMARK_MS: u64 = 1_000;
/// How long the merge waits for a silent host before it goes on without it, in milliseconds.
pub const MERGE_WAIT_MS: u64 = 2_000;
/// Deadline of one control request to an agent, in milliseconds: loading symbols of a large binary included.
pub const AGENT_REQUEST_MS: u64 = 15_000;
/// Deadline of one request to the coordinator, in milliseconds: longer than what it asks of agents.
pub const COORDINATOR_REQUEST_MS: u64 = 20_000;
/// How often an agent publishes what it has, in milliseconds: latency a person does not feel.
pub const PUBLISH_INTERVAL_MS: u64 = 20;

/// Default budget of hits per second and process.
pub const RATE_PER_S_DEFAULT: u32 = 1_000;
/// Default bytes captured of one string.
pub const STRING_BYTES_DEFAULT: u32 = 256;
/// Default elements captured of one slice or array.
pub const ELEMENTS_DEFAULT: u32 = 16;
/// Default pointers followed below a variable.
pub const DEPTH_DEFAULT: u32 = 2;
/// Default fields captured of one struct: more than people write.
pub const FIELDS_DEFAULT: u32 = 256;
/// Default raw bytes captured per hit.
pub const BYTES_PER_HIT_DEFAULT: u32 = 8 * 1024;

const _: () = assert!(SESSION_RENEW_MS * 3 <= SESSION_LEASE_MS);
const _: () = assert!(HEARTBEAT_MS * 3 <= HOST_LEASE_MS);
const _: () = assert!(HOST_LEASE_MS < COORDINATOR_LEASE_MS);
const _: () = assert!(CLOCK_CALM_PING_MS * 3 <= COORDINATOR_LEASE_MS);
const _: () = assert!(CALM_WATERMARK_MS * 2 <= MERGE_WAIT_MS);
const _: () = assert!(AGENT_REQUEST_MS < COORDINATOR_REQUEST_MS);
const _: () = assert!(BATCH_BYTES_TARGET + HIT_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(BYTES_PER_HIT_DEFAULT as usize <= HIT_BYTES_MAX);

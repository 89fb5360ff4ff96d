//! Limits of the debug adapter, in one place, each with its reason.

use std::time::Duration;

/// Largest message that is read, in bytes: a `setBreakpoints` of thousands of breakpoints fits, a mistaken length
/// does not make the adapter wait for gigabytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest header line, in bytes: `Content-Length: 4194304` is 23.
pub(crate) const HEADER_LINE_BYTES_MAX: usize = 4096;
/// Messages that wait for the editor to read them, at most; then the adapter reads no further hits until it does.
pub(crate) const OUTGOING_MAX: usize = 1024;
/// Answers and notices of background work that wait for the state machine, at most.
pub(crate) const COMPLETIONS_MAX: usize = 256;
/// Breakpoints of one source or of all functions, at most: a request of more is refused as a whole.
pub(crate) const BREAKPOINTS_MAX: usize = 1000;
/// How long `setBreakpoints` waits for the first processes to be armed before it answers with what is known: long
/// enough for a fleet whose symbols are loaded, short enough that an editor's start is not felt.
pub(crate) const SET_BREAKPOINTS_WAIT: Duration = Duration::from_millis(1500);
/// A breakpoint's status is sent again no sooner than this: twice a second. Editors draw all their breakpoints anew at
/// each, and nobody reads a count faster.
pub(crate) const BREAKPOINT_EVENT_INTERVAL: Duration = Duration::from_millis(500);
/// `riptrace/statistics` and `thread` events are sent no more often than this: a status bar need not be faster.
pub(crate) const STATISTICS_INTERVAL: Duration = Duration::from_millis(500);
/// `riptrace/fleetChanged` and `riptrace/timelineChanged` are sent no more often than this, each: a view that asks again
/// at each of them is drawn twice a second at most.
pub(crate) const CHANGED_INTERVAL: Duration = Duration::from_millis(500);
/// How often the fleet is asked for its processes, for counts, modules and threads: a new pod shows up in seconds.
pub(crate) const FLEET_INTERVAL: Duration = Duration::from_secs(5);
/// Output rows of hits per second: more are read by nobody, and VS Code asks for the variables behind each row, while it
/// takes up no more than some 200 answers a second, so that with more rows all else that is asked would wait behind them
/// (`tests/editors/RESULTS.md`). Hits above it are in the timeline, and a row says how many.
pub(crate) const ROWS_PER_S_MAX: u32 = 50;
/// Rows that an editor may be behind with asking for their variables, at most, before it gets fewer: half a second's.
pub(crate) const ROWS_BEHIND_MAX: usize = 25;
/// By how much longer counts and changes rest while an editor is so far behind: VS Code draws all breakpoints at each count,
/// and takes longer to catch up.
pub(crate) const REST_BEHIND: u32 = 6;
/// Rows per second that an editor gets however far behind it is: it may have stopped asking. One that takes longer for a row
/// than this is lost either way; with five, VS Code in a browser that was slow enough did not catch up while hits came.
pub(crate) const ROWS_PER_S_MIN: u32 = 1;
/// Newest hits in which threads to list are looked for, at most: milliseconds, however many hits are kept.
pub(crate) const THREADS_SCANNED_MAX: usize = 20_000;
/// Threads whose numbers the editor may use again, at most; the oldest are forgotten first.
pub(crate) const THREADS_KNOWN_MAX: usize = 10_000;
/// Hits whose variables and frames have numbers, at most: those that were opened or unfolded last.
pub(crate) const HITS_WITH_NUMBERS_MAX: usize = 4_096;
/// Threads that are listed, at most, those with the newest hits first: more do not fit an editor's view.
pub(crate) const THREADS_LISTED_MAX: usize = 200;
/// Variables in one answer when the editor asks for no page.
pub(crate) const VARIABLES_MAX: usize = 5000;
/// Hits in one page of `riptrace/timeline` and `riptrace/timelinePage`, at most.
pub(crate) const TIMELINE_PAGE_MAX: usize = 500;
/// Hits whose values one search decodes, at most, before it says where to go on: about 100 ms.
pub(crate) const SEARCH_HITS_MAX: usize = 10_000;
/// Pieces of time in one overview, at most: more than a screen has columns.
pub(crate) const OVERVIEW_BUCKETS_MAX: usize = 4096;
/// Targets of one `gotoTargets`, at most: what fits a menu.
pub(crate) const GOTO_TARGETS_MAX: usize = 20;
/// Hits that a new log message is told of anew, at most: a person reads no more of them as text.
pub(crate) const RETOLD_MAX: usize = 100;
/// Sources and lines that are looked for at the same time, at most.
pub(crate) const READS_MAX: usize = 64;
/// Lines of one `breakpointLocations`, at most; editors ask for one.
pub(crate) const LINES_ASKED_MAX: u32 = 500;
/// How long an answer to `breakpointLocations` holds: an editor asks many times in a row for the same line.
pub(crate) const LOCATIONS_KEPT: Duration = Duration::from_secs(5);
/// Line tables of files of builds that are kept, at most: the open files of a person times the builds that run.
pub(crate) const LINE_TABLES_MAX: usize = 512;
/// Parts in which a file's line table is asked for, at most: 65,536 lines with code.
pub(crate) const LINE_TABLE_ROUNDS_MAX: usize = 16;
/// How long a line table is waited for before the text decides: an agent may have to read symbols first, and an editor
/// waits for the answer.
pub(crate) const LINE_TABLES_WAIT: Duration = Duration::from_secs(3);
/// Such answers that are kept, at most.
pub(crate) const LOCATIONS_KEPT_MAX: usize = 256;
/// Files in one `loadedSources`, at most.
pub(crate) const LOADED_SOURCES_MAX: usize = 500;
/// Expressions that are captured for one breakpoint, at most.
pub(crate) const CAPTURES_MAX: usize = 32;
/// Expressions of `correlate`, at most: each is computed for every hit.
pub(crate) const CORRELATE_MAX: usize = 8;
/// Hits that are read back from the fleet's store at once: a page of a timeline view and its surroundings.
pub(crate) const PAST_WINDOW_HITS: usize = 4_096;
/// Windows that one motion reads back, at most, before it says that there is nothing: 100,000 hits.
pub(crate) const PAST_ROUNDS_MAX: usize = 25;
/// Requests that wait for older hits, at most.
pub(crate) const PARKED_MAX: usize = 32;
/// How long a disconnect waits for the fleet to take the tracepoints out before it answers all the same: the
/// session's lease ends them then.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// Processes with a reason that a breakpoint's message names, at most; the rest is counted.
pub(crate) const REASONS_NAMED_MAX: usize = 3;
/// Tracepoints that were removed and may still have hits under way, at most.
pub(crate) const RETIRED_MAX: usize = 1024;

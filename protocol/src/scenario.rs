//! Scenarios: what a person writes of tracepoints over a set of services, of a stimulus, and of what must be seen.
//!
//! ```toml
//! version = 1                             # of this format; absent: 1
//! name = "an order is paid once"          # absent: the file's name
//! within = "10s"                          # how long it may take from the stimulus on; 30s
//! settle = "500ms"                        # how long is watched, after all else, for what must not come; 1s
//!
//! [[tracepoint]]
//! at = "payment/charge.go:42"             # FILE:LINE or a function, as everywhere
//! name = "charge"                         # what expectations call it; absent: as `at` says
//! where = "service=payment"               # which processes; all
//! when = "amount > 0"                     # which passages; all
//! capture = ["order.ID"]                  # besides what is in scope; with limits of its own behind `with`
//! log = "{amount} of {order.ID}"          # what a report says of each hit
//! rate = 5000                             # hits per second and process, or "none"; as in `riptrace.toml`, else 1000
//! # mode = "count"                        # passages are counted where they happen, and leave no hits
//!
//! [stimulus]                              # `run`, or `http`; without it, what happens anyway is watched
//! http = "POST http://127.0.0.1:8080/orders"
//! headers = { "Content-Type" = "application/json" }
//! body = "{}"
//! status = 200                            # what it must answer; any of 200 to 299
//! # run = ["./order", "--sku", "tea"]     # must end with status 0
//!
//! [[expect]]                              # one thing each; all must hold
//! tracepoint = "charge"
//! count = "1..3"                          # N, or FROM..TO (either may be absent); `each` and `some` may stand beside it
//! each = "amount == 1295"                 # holds in each of its hits
//! some = "amount > 1000"                  # holds in one of them at least
//!
//! [[expect]]
//! order = ["reserve", "charge"]           # the first hit of each in this order, over all hosts
//!
//! [[expect]]
//! absent = "refund"                       # no hit, and none dropped
//!
//! [[expect]]
//! from = "reserve"                        # time from the first hit of one to the first hit of another
//! to = "charge"
//! at_most = "50ms"                        # or `at_least`, or both
//! ```
//!
//! What it means where the fleet leaves something open (who runs scenarios has to do so):
//! - Time runs from when all tracepoints are armed. Then comes the stimulus; the scenario ends when all that must be seen was
//!   seen, the stimulus has ended, and `settle` has passed since, or when `within` is over. Without a stimulus, one that says
//!   what must not come (`absent`, a greatest `count`, `each`) is watched for all of `within`.
//! - What is not known does not hold. Hits that were dropped may have been any: `absent`, `each` and a greatest `count` do not
//!   hold beside them; a least `count` and `some` do. An order that the clocks cannot tell is none that was seen, and a time
//!   is at most, or at least, so long if it is with all of its uncertainty. An expression over what was not captured holds in
//!   no hit. Each is told with its reason, apart from what is known to be wrong.
//! - `count` and `absent` are over the fleet; with `mode = "count"` they are of passages, otherwise of hits.
//!
//! It is data: nothing here asks a fleet or reads a file. [`parse`] is the decoder; editors check with it while a scenario is
//! written.
//!
//! Invariants
//! - Every name that an expectation uses is a tracepoint's; names are distinct.
//! - Places, selectors, expressions and durations have been read: what [`parse`] gives can be asked of a fleet.
//! - What needs hits is not asked of a tracepoint that leaves none.
//! - [`parse`] never panics, and what it gives is bounded by the constants below.

mod keys;
mod read;
mod table;

pub use keys::{KEYS, Key};
pub use read::parse;

use crate::ids::TracepointId;
use crate::location::Location;
use crate::selector::Selector;
use crate::tracepoint::{CaptureLimits, Mode, Tracepoint};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// Version of the format: what is written in another one is refused. It grows when a file that was right would mean
/// something else; keys that are added leave it as it is.
pub const VERSION: u16 = 1;
/// Largest scenario, in bytes: a hand-written file is far below.
pub const SCENARIO_BYTES_MAX: usize = 256 * 1024;
/// Tracepoints of one scenario, at most: each is one in every process that is meant.
pub const TRACEPOINTS_MAX: usize = 100;
/// Expectations of one scenario, at most.
pub const EXPECTATIONS_MAX: usize = 1_000;
/// Problems that are told of one scenario, at most: a person mends the first ones first.
pub const PROBLEMS_MAX: usize = 50;
/// Characters of a tracepoint's name, at most: it stands in reports, in one line with others.
pub const NAME_CHARACTERS_MAX: usize = 100;
/// Hits where no greatest number of them is said.
pub const COUNT_MAX: u64 = u64::MAX;
/// How long a scenario takes that does not say it.
pub const WITHIN_DEFAULT: Duration = Duration::from_secs(30);
/// How long is watched for what must not come where a scenario does not say it: a request that is made twice by mistake is
/// mostly made twice at once.
pub const SETTLE_DEFAULT: Duration = Duration::from_secs(1);
/// The longest that a scenario may take, or that may be expected between two hits.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// A scenario that can be asked of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called; `None` where the file does not say.
    pub name: Option<String>,
    /// How long it may take, from when the tracepoints are armed.
    pub within: Duration,
    /// How long is watched for what must not come, after all that must be seen was seen and the stimulus has ended.
    pub settle: Duration,
    /// What is watched: at least one.
    pub tracepoints: Vec<Watched>,
    /// What sets it off; `None` where what happens anyway is watched.
    pub stimulus: Option<Stimulus>,
    /// What must be seen: at least one.
    pub expectations: Vec<Expectation>,
}

/// A tracepoint of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// What expectations call it.
    pub name: String,
    /// Where.
    pub location: Location,
    /// In which processes.
    pub selector: Selector,
    /// Expression that must hold for a passage to become a hit; it can be read.
    pub condition: Option<String>,
    /// Text with `{expression}` parts that is told of each hit; it can be read.
    pub log_message: Option<String>,
    /// What to capture besides the variables in scope, each an expression that may have limits of its own; they can be read.
    pub captures: Vec<String>,
    /// What a passage leaves behind.
    pub mode: Mode,
    /// Hits per second and process: `None` where the file does not say, `Some(None)` where there is no budget.
    pub rate_per_s: Option<Option<u32>>,
    /// Bytes of the text that its header is in.
    pub span: Range<usize>,
}

impl Watched {
    /// What is asked of a fleet; `defaults` are the limits where the scenario does not say them.
    pub fn tracepoint(&self, id: TracepointId, defaults: &CaptureLimits) -> Tracepoint {
        let rate_per_s = self.rate_per_s.unwrap_or(defaults.rate_per_s);
        Tracepoint {
            id,
            location: self.location.clone(),
            selector: self.selector.clone(),
            condition: self.condition.clone(),
            hit_condition: None,
            log_message: self.log_message.clone(),
            captures: self.captures.clone(),
            mode: self.mode,
            limits: CaptureLimits { rate_per_s, ..defaults.clone() },
            source: Vec::new(),
        }
    }
}

/// What sets a scenario off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stimulus {
    /// A program with its arguments, run in the folder of the scenario; it must end with status 0.
    Run(Vec<String>),
    /// A request.
    Http {
        /// Such as `POST`.
        method: String,
        /// `http://` or `https://`.
        url: String,
        /// Names and values, in the order of the names.
        headers: Vec<(String, String)>,
        /// What is sent; empty where nothing is.
        body: String,
        /// What it must answer; `None`: any status from 200 to 299.
        status: Option<u16>,
    },
}

/// One thing that must be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// What.
    pub what: Expected,
    /// Bytes of the text that its header is in.
    pub span: Range<usize>,
}

/// What must be seen. Tracepoints are named by their places in [`Scenario::tracepoints`].
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// Hits of one tracepoint.
    Hits {
        /// Of which.
        of: usize,
        /// How many.
        count: RangeInclusive<u64>,
        /// Expression that holds in each of them.
        each: Option<String>,
        /// Expression that holds in one of them at least.
        some: Option<String>,
    },
    /// The first hit of each, in this order over all hosts: at least two, each once.
    Order(Vec<usize>),
    /// No hit of this one, and none that was dropped.
    Absent(usize),
    /// The time from the first hit of one to the first hit of another.
    Between {
        /// From this one.
        from: usize,
        /// To that one.
        to: usize,
        /// At least so long.
        at_least: Duration,
        /// At most so long.
        at_most: Duration,
    },
}

/// A place in a text, as compilers and editors tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// What is wrong with a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScenarioProblem {
    /// For a person: what, and what to write instead.
    pub message: String,
    /// Bytes of the text that it is about.
    pub span: Range<usize>,
}

impl ScenarioProblem {
    /// Where it begins in the text that was read.
    pub fn place(&self, text: &str) -> Place {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }

    /// `FILE:LINE:COLUMN: what is wrong`, which terminals and editors make a link of.
    pub fn told(&self, file: &str, text: &str) -> String {
        let Place { line, column } = self.place(text);
        format!("{file}:{line}:{column}: {}", self.message)
    }
}

#[cfg(test)]
mod tests;

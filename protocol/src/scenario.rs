//! Scenarios: what a person writes of tracepoints over a set of services, of a stimulus, and of what must be seen.
//!
//! ```toml
//! name = "an order is paid once"          # absent: the file's name
//! within = "10s"                          # how long all of it may take; 30s
//!
//! [[tracepoint]]
//! name = "charge"                         # what expectations call it
//! at = "payment/charge.go:42"             # FILE:LINE or a function, as everywhere
//! where = "service=payment"               # which processes; all
//! when = "amount > 0"                     # which passages; all
//! capture = ["order.ID"]                  # besides what is in scope
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
//! It is data: nothing here asks a fleet or reads a file. [`parse`] is the decoder; editors check with it while a scenario is
//! written.
//!
//! Invariants
//! - Every name that an expectation uses is a tracepoint's; names are distinct.
//! - Places, selectors, expressions and durations have been read: what [`parse`] gives can be asked of a fleet.
//! - [`parse`] never panics, and what it gives is bounded by the constants below.

mod keys;
mod read;

pub use keys::{KEYS, Key};
pub use read::parse;

use crate::location::Location;
use crate::selector::Selector;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// Largest scenario, in bytes: a hand-written file is far below.
pub const SCENARIO_BYTES_MAX: usize = 256 * 1024;
/// Tracepoints of one scenario, at most: each is one in every process that is meant.
pub const TRACEPOINTS_MAX: usize = 100;
/// Expectations of one scenario, at most.
pub const EXPECTATIONS_MAX: usize = 1_000;
/// Problems that are told of one scenario, at most: a person mends the first ones first.
pub const PROBLEMS_MAX: usize = 50;
/// How long a scenario takes that does not say it.
pub const WITHIN_DEFAULT: Duration = Duration::from_secs(30);
/// The longest that a scenario may take, or that may be expected between two hits.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// A scenario that can be asked of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called; `None` where the file does not say.
    pub name: Option<String>,
    /// How long all of it may take.
    pub within: Duration,
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
    /// Expressions to capture besides the variables in scope; they can be read.
    pub captures: Vec<String>,
    /// Bytes of the text that its header is in.
    pub span: Range<usize>,
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
    /// The first hit of each, in this order over all hosts: at least two.
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

/// What is wrong with a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScenarioProblem {
    /// For a person: what, and what to write instead.
    pub message: String,
    /// Bytes of the text that it is about.
    pub span: Range<usize>,
}

#[cfg(test)]
mod tests;

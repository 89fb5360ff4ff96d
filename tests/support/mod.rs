//! What the end-to-end tests are written with: fixtures built on demand, processes that never outlive their test, a
//! whole fleet on one machine, and a scripted editor.
//!
//! Not here: expectations about RipTrace. Those are in the tests.
//!
//! Invariants:
//! - nothing waits without a limit, and a limit that passes fails the test with what was seen so far;
//! - no sleeps: a test waits for an event, or polls with [`eventually`];
//! - every process, network namespace and file that a test makes is gone when the test ends, also when it fails; what
//!   a killed test run leaves is swept by the next one.
#![allow(dead_code, unreachable_pub, reason = "every test file compiles this module and uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]

pub mod dap;
pub mod fixture;
pub mod fleet;
pub mod lsp;
pub mod process;
pub mod schema;
pub mod shop;
pub mod values;

use std::{
    thread,
    time::{Duration, Instant},
};

/// For what takes no time as a rule: a message through the fleet, a process that starts. Generous, since the machine
/// may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// For what is allowed to take long: a build, a load of thousands of requests.
pub const LATER: Duration = Duration::from_secs(180);

/// How often [`eventually`] looks.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `probe` finds something.
///
/// # Panics
/// When it has found nothing within `limit`; `what` then says what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

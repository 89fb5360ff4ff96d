//! The engine under fire: programs that do everything that is hard on a tracer, agents that are killed at any moment,
//! programs that nobody here wrote. Each target checks its own results; a wrong one ends it, and so the test.
//!
//! In CI each test takes seconds. What they do for longer, and on more, behind a flag, is in `RESULTS.md`, with the last
//! results.
//!
//! Not here: what the editor or the command line make of a hit.
#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod console;
mod kill;
mod libraries;
mod places;
mod quiet;
mod raw;
mod real;
mod redis;
mod standard_library;
mod starved;
mod target;

//! The instruction analysis on arbitrary bytes: it ends, does not panic, and its answers hold.
#![no_main]

use riptrace_agent::engine::analysis;

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: &[u8]| exercise::exercise(input));

//! The decoder of records on arbitrary bytes: it ends, does not panic, and stays within its bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_agent::fuzzing::record(input));

//! Messages of a session's stream, their hits as values, and an expression over them. It ends, does not panic, and what was read is the same when it
//! is written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_protocol::fuzzing::values(input));

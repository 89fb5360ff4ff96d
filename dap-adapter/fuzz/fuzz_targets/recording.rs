//! Recordings: what can be read of any file is written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_dap_adapter::fuzzing::recording(input));

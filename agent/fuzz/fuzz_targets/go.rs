//! What only programs of Go have: build information, the function table, the runtime's types, Go's debug information.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_agent::fuzzing::sections(input));

//! Debug information (lines, locations, types, frames), unwind and symbol tables of native programs, in a sound file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_agent::fuzzing::sections(input));

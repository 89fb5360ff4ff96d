//! Whole executable files: headers, notes, symbol tables, and all that is behind them. Seeds: `tests/fuzz.sh`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| riptrace_agent::fuzzing::executable(input));

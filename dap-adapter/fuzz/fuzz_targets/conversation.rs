//! A conversation with the debug adapter made of arbitrary bytes: framing, envelope and arguments. It ends, does not
//! panic, and answers each request exactly once.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    riptrace_dap_adapter::fuzzing::conversation(input);
});

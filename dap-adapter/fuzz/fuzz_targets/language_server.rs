//! What an editor sends to the language server, made of arbitrary bytes. It ends and does not panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    riptrace_dap_adapter::fuzzing::language_server(input);
});

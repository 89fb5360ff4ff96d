//! Stacks of programs that keep no frame pointers, through libraries and signals, inside and outside of the process.

use super::{Run, Seen, compile, sources, trace};
use crate::engine::Mechanisms;
use riptrace_protocol::hit::Frame;
use riptrace_protocol::hit::StackEnd;
use riptrace_protocol::tracepoint::CaptureLimits;

fn functions(seen: &Seen) -> Vec<&str> {
    seen.frames.iter().map(|frame| frame.function.as_str()).collect()
}

/// The functions of the program's own source, from the site outwards.
fn own(seen: &Seen) -> Vec<&str> {
    let of_program = |frame: &&Frame| frame.file.ends_with("stacks.c");
    seen.frames.iter().filter(of_program).map(|frame| frame.function.as_str()).collect()
}

fn check(run: &Run, is_optimised: bool) {
    let one = |name: &str| &run.seen.get(name).unwrap_or_else(|| panic!("no hit of {name}"))[0];
    for name in ["compare", "visit", "handler"] {
        let seen = one(name);
        assert_eq!(seen.hit.captured.stack_end, StackEnd::Whole, "{name}: {:?}", functions(seen));
        assert!(seen.hit.captured.stack_memory.is_none());
        assert!(functions(seen).iter().all(|function| !function.is_empty()), "{:?}", functions(seen));
    }
    let compare = one("compare");
    assert_eq!(own(compare), ["compare", "sort_all", "main"], "{:?}", functions(compare));
    // A machine may have the debug information of its C library installed.
    let of_library = &compare.frames[1];
    assert!(of_library.line > 0 || of_library.file.ends_with("libc.so.6"), "{of_library:?}");
    // Where a copy begins at the very address of the call of it, the stack shows the copy as well.
    let visit = one("visit");
    let without_copy = |names: Vec<&str>| -> Vec<String> {
        let is_copy = is_optimised && names.first() == Some(&"twice");
        names.into_iter().skip(usize::from(is_copy)).map(str::to_owned).collect()
    };
    assert_eq!(without_copy(own(visit)), ["visit", "walk", "main"], "{:?}", functions(visit));
    let named = without_copy(functions(visit));
    assert_eq!(named[..3], ["visit", "each", "walk"], "a library's function is named by its symbol");
    let inlined = one("inlined");
    let (inner, outer) = (&inlined.frames[0], &inlined.frames[1]);
    assert_eq!((inner.function.as_str(), outer.function.as_str()), ("twice", "visit"));
    assert_eq!(inner.inlined, is_optimised);
    assert_eq!(own(one("handler")), ["handler", "interrupted", "main"], "{:?}", functions(one("handler")));
    // Each level takes 1,500 bytes, and some thousand bytes are copied.
    let deep = one("deep");
    assert!(matches!(deep.hit.captured.stack_end, StackEnd::Bytes(8192)), "{:?}", deep.hit.captured.stack_end);
    assert!((4..7).contains(&own(deep).len()) && own(deep).iter().all(|name| *name == "deep"), "{:?}", own(deep));
    // In the other thread the stack ends at its thread control block.
    let thread = &run.seen["visit"][1];
    assert_eq!(without_copy(own(thread)), ["visit", "walk", "thread"], "{:?}", functions(thread));
    assert_eq!(thread.hit.captured.stack_end, StackEnd::Whole, "{:?}", functions(thread));
    assert_eq!(run.said.last().map(String::as_str), Some("exited 0"), "{:?}", run.said);
}

#[test]
fn callers_are_found_by_unwind_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| sources().join(name).to_str().unwrap().to_owned();
    let library = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", &path("callbacks.c"), "-o", "libcallbacks.so"];
    compile(folder.path(), "cc", &library);
    for flags in [&["-O0"][..], &["-O2", "-fomit-frame-pointer"], &["-O2", "-no-pie"]] {
        let rest = ["-g", "-pthread", &path("stacks.c"), "-o", "stacks", "-L.", "-lcallbacks", "-Wl,-rpath,$ORIGIN"];
        compile(folder.path(), "cc", &[flags, &rest].concat());
        for mechanisms in [Mechanisms::Ptrace, Mechanisms::Auto] {
            let run = trace(&folder.path().join("stacks"), "stacks.c", mechanisms, CaptureLimits::default());
            check(&run, flags[0] != "-O0");
        }
    }
}

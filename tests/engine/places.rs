//! Targets in every kind of place: other namespaces, other users, filters of system calls, each Go that is supported.
//!
//! What is traced is the same everywhere: all marked lines at once, over a window in which the target counts its own
//! passages.

use crate::console::{Console, HOST};
use crate::support::{
    SOON, eventually,
    fixture::Fixture,
    fleet::{FleetOptions, RIPTRACE},
    process::Program,
};
use crate::target::{Target, chaos_native};
use nix::unistd::geteuid;
use riptrace::provision::{BuildFlags, GoVersion};
use riptrace_protocol::fleet::{Mechanism, ProbeState};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What is armed at each line.
fn unlimited() -> Value {
    json!({"limits": {"rate_per_s": null}})
}

/// Traces all lines of a target at once, for as long as it takes to pass each of them, and returns their mechanisms.
#[track_caller]
pub(crate) fn traced_once(console: &mut Console, target: &mut Target, what: &Value) -> BTreeMap<String, Mechanism> {
    let process = target.process(console);
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let before = target.pause();
    let armed: Vec<(String, &str, Mechanism)> = names
        .iter()
        .map(|name| {
            let (id, mechanism) = console.arm(&target.location(name), what, process);
            (id, *name, mechanism)
        })
        .collect();
    target.resume();
    target.goes_on(&names);
    let after = target.pause();
    let mut mechanisms = BTreeMap::new();
    for (id, name, mechanism) in armed {
        let probe = console.remove(&id);
        let passed = after[name] - before[name];
        assert_eq!(probe.passages, passed, "{name}: counted by the agent, by the target; {probe:?}");
        let tally = console.settled(&id, what, &probe);
        assert!(passed == 0 || tally.hits > 0, "{name}: {tally:?} of {passed}");
        mechanisms.insert(name.to_owned(), mechanism);
    }
    target.assert_clean();
    target.resume();
    target.goes_on(&names);
    mechanisms
}

/// The one child of a process, once it has one whose program is this.
#[track_caller]
fn child_of(program: &mut Program, exe: &str) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", program.pid());
    eventually("the program in the namespace runs", SOON, || {
        program.assert_running();
        let children = fs::read_to_string(&path).ok()?;
        let pid: i32 = children.split_whitespace().next()?.parse().ok()?;
        let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        link.ends_with(exe).then_some(pid)
    })
}

/// A fixture in new namespaces, by `unshare` with these arguments; a shell command may prepare them, and `$0` is the
/// program.
#[track_caller]
fn unshared(fixture: &Fixture, arguments: &[&str], script: &str) {
    assert!(geteuid().is_root(), "namespaces of their own need root");
    let mut console = Console::start();
    let mut made = console.fleet.host(HOST).command("unshare");
    made.args(["--fork", "--kill-child"]).args(arguments);
    made.args(["sh", "-c", script]).arg(&fixture.program).args(["-workers", "2"]);
    let mut program = Program::spawn(&format!("unshare {arguments:?}"), made);
    let exe = fixture.program.file_name().expect("a name").to_string_lossy().into_owned();
    let pid = child_of(&mut program, &exe);
    let mut target = Target::of(program, fixture);
    target.runs_as(pid);
    let mechanisms = traced_once(&mut console, &mut target, &unlimited());
    eprintln!("{arguments:?}: {mechanisms:?}");
    target.exit();
}

#[test]
fn a_target_in_a_pid_and_mount_namespace_is_traced() {
    // Its executable is on a file system that nobody else sees.
    let script = r#"mount -t tmpfs none /mnt && cp "$0" /mnt/chaos && exec /mnt/chaos "$@""#;
    unshared(&Fixture::go("chaos", "."), &["--pid", "--mount", "--mount-proc"], script);
}

#[test]
fn a_target_in_a_user_namespace_is_traced() {
    let arguments = ["--user", "--map-root-user", "--pid", "--mount", "--mount-proc"];
    unshared(&Fixture::go("chaos", "."), &arguments, r#"exec "$0" "$@""#);
}

#[test]
fn a_target_in_a_time_namespace_is_traced_in_the_hosts_time() {
    // The console checks that no hit is older than what was promised: a shifted clock breaks that at once.
    let arguments = ["--time", "--monotonic", "100000", "--boottime", "100000"];
    unshared(&Fixture::go("chaos", "."), &arguments, r#"exec "$0" "$@""#);
}

/// A folder that every user can read, with a copy of a program in it.
fn public_copy(folder: &Path, program: &Path) -> PathBuf {
    let copy = folder.join(program.file_name().expect("a name"));
    fs::copy(program, &copy).expect("copied");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("public");
    copy
}

#[test]
fn an_agent_with_cap_sys_ptrace_alone_traces_another_users_process() {
    assert!(geteuid().is_root(), "other users need root");
    let folder = tempfile::tempdir().expect("a folder");
    let agent = public_copy(folder.path(), Path::new(RIPTRACE));
    let mut options = FleetOptions::hosts(&[HOST]);
    options.agent_program = Some(agent);
    options.every_process = true;
    options.agent_wrapper = [
        "setpriv",
        "--reuid",
        "65533",
        "--regid",
        "65533",
        "--clear-groups",
        "--inh-caps",
        "-all,+sys_ptrace",
        "--ambient-caps",
        "-all,+sys_ptrace",
        "--bounding-set",
        "-all,+sys_ptrace",
        "--",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut console = Console::start_with(options);
    let fixture = Fixture::go("chaos", ".");
    let program = public_copy(folder.path(), &fixture.program);
    let mut made = console.fleet.host(HOST).command("setpriv");
    made.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&program);
    made.args(["-workers", "2"]).current_dir("/");
    let mut target = Target::of(Program::spawn("chaos of nobody", made), &fixture);
    let mechanisms = traced_once(&mut console, &mut target, &unlimited());
    eprintln!("CAP_SYS_PTRACE alone: {mechanisms:?}");
    target.exit();
}

#[test]
fn a_process_whose_filter_kills_is_left_alive() {
    let mut console = Console::start();
    let fixture = chaos_native(&["-g", "-O2"]);
    let mut target = Target::start(&console, &fixture, &["kill"]);
    let process = target.process(&mut console);
    let markers = ["redzone", "table", "vector", "fault", "handler", "call"];
    let before = target.pause();
    let mut armed = Vec::new();
    for marker in markers {
        let (id, probe) = console.try_arm(&target.location(marker), &unlimited(), process);
        match probe.state {
            // Nothing may run in it that is not its own.
            ProbeState::Armed => assert_eq!(probe.mechanism, Some(Mechanism::Ptrace), "{marker}: {probe:?}"),
            ProbeState::Refused => {
                let reason = probe.reason.as_deref().unwrap_or_default();
                assert!(reason.contains("seccomp"), "{marker}: {reason}");
            }
            _ => panic!("{marker}: {probe:?}"),
        }
        if probe.state == ProbeState::Armed {
            armed.push((id, marker));
        }
    }
    target.resume();
    target.goes_on(&markers);
    let after = target.pause();
    for (id, marker) in armed {
        let probe = console.remove(&id);
        assert_eq!(probe.passages, after[marker] - before[marker], "{marker}: {probe:?}");
    }
    target.assert_clean();
    target.resume();
    target.goes_on(&markers);
    target.exit();
}

/// A child by vfork(2) has its parent's memory until it starts another program, as each child of a Go program has: what the
/// agent took out of it, as it does out of a child with inherited patches, would be its parent's.
#[test]
fn a_child_in_its_parents_memory_leaves_its_parent_traced() {
    let mut console = Console::start();
    let fixture = chaos_native(&["-g", "-O2"]);
    let mut target = Target::start(&console, &fixture, &[]);
    let process = target.process(&mut console);
    let before = target.pause();
    let (id, _) = console.arm(&target.location("vector"), &unlimited(), process);
    target.resume();
    target.program.write_line("guest");
    let guest = target.program.json_of("guest-pid", SOON)["guest"].clone();
    target.program.json_of("guest", SOON);
    assert!(Path::new(&format!("/proc/{guest}/exe")).exists());
    // Who has found these has looked at the child as well.
    for _ in 0..2 {
        let later = Target::start(&console, &fixture, &[]);
        later.process(&mut console);
        later.exit();
    }
    assert!(!target.patched_bytes().is_empty(), "the parent's patches stay");
    target.goes_on(&["vector"]);
    target.ask("guest-ends");
    let after = target.pause();
    let probe = console.remove(&id);
    assert_eq!(probe.passages, after["vector"] - before["vector"], "{probe:?}");
    target.assert_clean();
    target.resume();
    target.exit();
}

#[test]
fn profiles_of_a_traced_program_are_booked_to_its_own_functions() {
    let mut console = Console::start();
    let fixture = Fixture::go("chaos", ".");
    let arguments = ["-only", "head,middle", "-loops", "3000000", "-stress", "none", "-workers", "2"];
    let mut target = Target::start(&console, &fixture, &arguments);
    let process = target.process(&mut console);
    let share = |answer: &Value| {
        let of = |name: &str| answer[name].as_f64().unwrap_or(0.0);
        (of("samples"), of("external") / of("samples"), of("marked") / of("samples"))
    };
    let (samples, external, marked) = share(&target.ask("profile"));
    assert!(samples > 50.0 && external < 0.05 && marked > 0.8, "untraced: {samples} {external} {marked}");
    let ids = ["head", "middle"].map(|name| console.arm(&target.location(name), &json!({}), process).0);
    let (samples, external, marked) = share(&target.ask("profile"));
    eprintln!("samples: {samples}, external: {external}, in the functions with the marked lines: {marked}");
    assert!(samples > 50.0 && external < 0.05 && marked > 0.8, "traced: {samples} {external} {marked}");
    for id in ids {
        console.remove(&id);
    }
    target.exit();
}

/// With `RIPTRACE_ENGINE_MATRIX=1` every Go that is supported (some 70 MB each are provisioned) with every way to build that
/// makes another kind of code, else the newest in two of them.
#[test]
fn programs_of_every_go_are_traced() {
    let all: Vec<GoVersion> = GoVersion::all().collect();
    let whole = env::var("RIPTRACE_ENGINE_MATRIX").is_ok_and(|value| value == "1");
    let versions = if whole { all } else { all[..1].to_vec() };
    let cgo = BuildFlags { cgo: true, ..BuildFlags::default() };
    let ways = [
        BuildFlags::default(),
        BuildFlags::with_args(["-buildmode=pie"]),
        BuildFlags::with_args(["-gcflags=-N -l"]),
        cgo,
    ];
    for version in versions {
        for flags in if whole { &ways[..] } else { &ways[..2] } {
            let fixture = Fixture::go_with("chaos", ".", version, flags);
            let mut console = Console::start();
            let mut target = Target::start(&console, &fixture, &["-workers", "2"]);
            let mechanisms = traced_once(&mut console, &mut target, &unlimited());
            eprintln!("Go {version} {flags:?}: {mechanisms:?}");
            target.exit();
        }
    }
}

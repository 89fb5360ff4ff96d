//! Bad input and missing parts: one clear error that says what to do, and everything else goes on.

use crate::support::{
    SOON, eventually,
    fleet::{Fleet, RIPTRACE},
    process::{Program, command},
};
use crate::torture::fleet_with_target;
use riptrace_protocol::ids::HostName;
use riptrace_protocol::subject;
use std::time::Duration;

fn riptrace(arguments: &[&str]) -> Program {
    let folder = std::env::temp_dir();
    let mut made = command(RIPTRACE);
    made.args(arguments).current_dir(folder).env_remove("NATS_URL");
    made.env("RIPTRACE_RUNTIME_DIR", "/nonexistent");
    Program::spawn("riptrace", made)
}

#[test]
fn without_a_bus_a_command_says_what_to_do_and_exits_with_4() {
    let mut none = riptrace(&["ps"]);
    none.wait_for_code(4, SOON);
    none.stderr_has("riptrace up", SOON);
    for arguments in [
        ["ps", "--nats", "nats://127.0.0.1:1"].as_slice(),
        &["agent", "--nats", "nats://127.0.0.1:1", "--host", "x"],
        &["coordinator", "--nats", "nats://127.0.0.1:1"],
        &["trace", "x.go:1", "--nats", "nats://127.0.0.1:1"],
    ] {
        let mut program = riptrace(arguments);
        program.wait_for_code(4, SOON);
        program.stderr_has("no connection to nats://127.0.0.1:1", SOON);
    }
}

#[test]
fn a_bus_without_a_coordinator_is_named() {
    let fleet = Fleet::start_bus(crate::support::fleet::FleetOptions::hosts(&[]));
    let mut ps = Program::spawn("riptrace ps", fleet.riptrace(["ps"]));
    ps.wait_for_code(4, SOON);
    ps.stderr_has("riptrace coordinator", SOON);
}

#[test]
fn wrong_arguments_exit_with_2_and_name_the_argument() {
    for (arguments, part) in [
        (["trace", "x.go:1", "--where", "zone=a"].as_slice(), "selector key"),
        (&["trace", "x.go:1", "--when", "a +"], "--when"),
        (&["trace", "x.go:1", "--log", "{a"], "--log"),
        (&["trace", "x.go:0"], "line"),
        (&["agent", "--host", "a.b"], "--host"),
        (&["nonsense"], "nonsense"),
    ] {
        let mut program = riptrace(arguments);
        program.wait_for_code(2, SOON);
        program.stderr_has(part, SOON);
    }
}

#[test]
fn garbage_in_riptrace_toml_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("riptrace.toml"), "nats = \"nats://127.0.0.1:1\"\n[[[\n").unwrap();
    let mut made = command(RIPTRACE);
    made.arg("ps").current_dir(folder.path()).env_remove("NATS_URL");
    let mut program = Program::spawn("riptrace ps", made);
    program.wait_for_code(2, SOON);
    program.stderr_has("riptrace.toml", SOON);
    program.stderr_has("line 2", SOON);
}

#[test]
fn a_second_agent_of_the_same_name_refuses_to_start() {
    let mut fleet = Fleet::start(&["h"]);
    let mut second = Program::spawn("second agent", fleet.riptrace(["agent", "--host", "h"]));
    second.wait_for_code(4, SOON);
    second.stderr_has("--host", SOON);
    fleet.agent("h").assert_running();
}

#[test]
fn a_second_coordinator_refuses_to_start() {
    let mut fleet = Fleet::start(&["h"]);
    let mut second = Program::spawn("second coordinator", fleet.riptrace(["coordinator"]));
    second.wait_for_code(4, SOON);
    fleet.coordinator().assert_running();
}

#[test]
fn garbage_on_every_subject_hurts_nobody() {
    let (mut fleet, mut target) = fleet_with_target();
    let host = HostName::new("h").unwrap();
    let asked = [
        subject::profile_get(&host),
        subject::attach(&host),
        subject::detach(&host),
        subject::create_tracepoint(&host),
        subject::remove_tracepoint(&host),
        subject::list_tracepoints(&host),
        subject::clock_ping(&host),
        subject::FLEET_GET.to_owned(),
        subject::SESSION_OPEN.to_owned(),
        subject::SESSION_RENEW.to_owned(),
        subject::SESSION_CLOSE.to_owned(),
        subject::TRACEPOINT_CREATE.to_owned(),
        subject::TRACEPOINT_REMOVE.to_owned(),
    ];
    let told = [subject::trace(&host), subject::status(&host), subject::COORDINATOR_STATUS.to_owned()];
    let garbage: [&[u8]; 6] =
        [b"", b"{", b"null", b"{\"session\":\"a.b\"}", b"\xff\xfe\x00\x01garbage", &[0x41; 100_000]];
    let url = fleet.nats_url();
    fleet.runtime().block_on(async {
        let bus = async_nats::connect(&url).await.expect("the bus");
        for payload in garbage {
            for subject in &told {
                bus.publish(subject.clone(), payload.to_vec().into()).await.expect("published");
            }
            for subject in &asked {
                // Answered with an error, or not at all where there is nobody to answer to; never with silence
                // that ends the service.
                let request = async_nats::Request::new()
                    .payload(payload.to_vec().into())
                    .timeout(Some(Duration::from_millis(500)));
                let _ = bus.send_request(subject.clone(), request).await;
            }
        }
        bus.flush().await.expect("flushed");
    });
    fleet.agent("h").assert_running();
    fleet.coordinator().assert_running();
    let spot = target.spot("counted");
    let mut trace = fleet.trace(&[&spot, "--count", "10"], 1);
    target.command("run 10 counted");
    let lines = trace.json_to_end(SOON);
    assert_eq!(lines.last().unwrap()["hits"], 10);
    fleet.agent("h").assert_running();
    fleet.coordinator().assert_running();
}

#[test]
fn a_process_that_dies_during_attach_is_an_answer_and_not_a_hang() {
    let mut fleet = Fleet::start(&["h"]);
    let torture = crate::support::fixture::Fixture::go("torture", ".");
    let spot = torture.spot("counted").location();
    for _ in 0..5 {
        let mut target = fleet.spawn_on("h", &torture.program, &["-forever", "-only", "counted"]);
        let pid = target.pid();
        eventually("the agent has found the target", SOON, || {
            fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
        });
        let mut trace = Program::spawn_orderly("riptrace trace", fleet.riptrace(["trace", "--json", &spot]));
        target.kill();
        // Refused because it is gone, or armed and then off: either way it is said, and nothing hangs.
        match trace.try_line(SOON) {
            Some(line) => assert!(line.contains("\"status\"") || line.contains("\"hit\""), "{line}"),
            // It was gone before anything was asked of it.
            None => trace.wait_for_code(3, SOON),
        }
        drop(trace);
        fleet.agent("h").assert_running();
    }
    fleet.coordinator().assert_running();
}

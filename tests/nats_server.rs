//! The nats-server that RipTrace starts: real processes, real stores.

mod support;

use riptrace::{
    nats_server::{NatsServer, NatsServerConfig, NatsServerError},
    provision,
};
use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    thread,
};
use support::{
    SOON, eventually,
    fixture::cache,
    process::{Program, command},
};

fn config(folder: &Path) -> NatsServerConfig {
    let program = provision::nats_server(&cache(), &mut |_| {}).expect("a nats-server");
    NatsServerConfig::new(program, folder.join("nats"))
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[tokio::test]
async fn a_restart_keeps_the_address_and_what_jetstream_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(config(folder.path())).await.unwrap();
    let url = server.url();
    let client = async_nats::connect(&url).await.unwrap();
    let buckets = async_nats::jetstream::new(client);
    let bucket = buckets
        .create_key_value(async_nats::jetstream::kv::Config { bucket: "wanted".to_owned(), ..Default::default() })
        .await
        .unwrap();
    bucket.put("tracepoint", "kept".into()).await.unwrap();

    let orderly = server.pid();
    server.restart().await.unwrap();
    assert_ne!(server.pid(), orderly);
    assert_eq!(server.url(), url);

    server.kill();
    assert!(server.has_ended());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    let client = async_nats::connect(server.url()).await.unwrap();
    let bucket = async_nats::jetstream::new(client).get_key_value("wanted").await.unwrap();
    assert_eq!(bucket.get("tracepoint").await.unwrap().as_deref(), Some(&b"kept"[..]));
}

#[tokio::test]
async fn two_servers_run_side_by_side_and_end_when_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let first = NatsServer::start(config(&folder.path().join("1"))).await.unwrap();
    let second = NatsServer::start(config(&folder.path().join("2"))).await.unwrap();
    assert_ne!(first.address(), second.address());
    let (first_pid, second_pid) = (first.pid(), second.pid());
    drop(first);
    assert!(!is_alive(first_pid));
    assert!(is_alive(second_pid));
    drop(second);
    assert!(!is_alive(second_pid));
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_shown_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.extra = "no_such_setting: 1".to_owned();
    let error = NatsServer::start(config).await.unwrap_err();
    assert!(matches!(error, NatsServerError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_and_not_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let first = NatsServer::start(config(&folder.path().join("1"))).await.unwrap();
    let mut second = config(&folder.path().join("2"));
    second.port = Some(first.address().port());
    let error = NatsServer::start(second).await.unwrap_err();
    assert!(error.to_string().contains("address already in use"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = NatsServerConfig::new("/no/nats-server", folder.path());
    let error = NatsServer::start(config).await.unwrap_err();
    assert!(matches!(error, NatsServerError::Start { .. }), "{error}");
    assert!(error.to_string().contains("/no/nats-server"), "{error}");
}

/// Tells this test program, started once more by the test below, to be the parent that is killed.
const PARENT: &str = "RIPTRACE_TEST_PARENT_FOLDER";

#[test]
fn a_server_ends_with_a_parent_that_is_killed_and_is_not_in_its_process_group() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(folder) = env::var_os(PARENT) {
        let server = runtime.block_on(NatsServer::start(config(Path::new(&folder)))).unwrap();
        writeln!(io::stdout(), "{{\"type\":\"server\",\"pid\":{}}}", server.pid()).unwrap();
        loop {
            thread::park();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "a_server_ends_with_a_parent_that_is_killed_and_is_not_in_its_process_group";
    let mut parent = command(env::current_exe().unwrap());
    parent.args(["--exact", name, "--nocapture"]).env(PARENT, folder.path());
    let mut parent = Program::spawn("parent", parent);
    let line = loop {
        let line = parent.line(SOON);
        if let Some(start) = line.find("{\"type\"") {
            break line[start..].to_owned();
        }
    };
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let server = i32::try_from(told["pid"].as_i64().unwrap()).unwrap();
    assert!(is_alive(server));
    let group = |pid| nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_ne!(group(server), group(parent.pid()));
    parent.kill();
    eventually("the server ends", SOON, || (!is_alive(server)).then_some(()));
}

#[tokio::test]
async fn a_server_that_dies_by_itself_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(config(folder.path())).await.unwrap();
    assert!(!server.has_ended());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the end is noticed", SOON, || server.has_ended().then_some(()));
}

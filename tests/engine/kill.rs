//! An agent that is killed at any moment, arming and removing included: the target lives and is right every time, the
//! next agent takes over what it finds, and the last one leaves nothing.
//!
//! Most kills wait until the agent holds the target by ptrace, so that they fall into what it does then: calls in the
//! target, patches, the check of its threads. `RIPTRACE_KILLS` says how many there are; 200 make a full
//! run. Without it there are none: see `RESULTS.md` for what the last run found.

use crate::chaos::Random;
use crate::console::{Console, HOST};
use crate::support::{SOON, eventually, fixture::Fixture};
use crate::target::{Target, chaos_native};
use async_nats::Client;
use riptrace_protocol::agent_api::{CreateReply, RemoveReply};
use riptrace_protocol::ids::{HostName, ProcessKey};
use riptrace_protocol::subject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{env, fs};

/// An agent that takes hold of nothing for so long is killed as it is.
const HOLD_LIMIT: Duration = Duration::from_secs(2);
/// How long after the agent took hold of the target it is killed, at most: about as long as it holds.
const HELD_MAX: Duration = Duration::from_millis(1);
/// The same for a kill at any other moment.
const ALIVE_MAX: Duration = Duration::from_millis(400);

fn kills() -> u64 {
    env::var("RIPTRACE_KILLS").map_or(0, |text| text.parse().expect("a number of kills"))
}

/// Whether there are any: without the variable the test says that it did nothing.
fn is_wanted() -> bool {
    let is_wanted = kills() > 0;
    if !is_wanted {
        eprintln!("not run: RIPTRACE_KILLS is not set (tests/engine/RESULTS.md has the last run)");
    }
    is_wanted
}

/// Arms and removes, until the agent is gone.
async fn load(client: Client, host: HostName, process: ProcessKey, places: Vec<Value>, first: u64) {
    let mut armed = Vec::new();
    for n in first.. {
        let id = format!("k{n}");
        let location = &places[(n as usize).wrapping_mul(7) % places.len()];
        let what = json!({"limits": {"rate_per_s": if n % 3 == 0 { Value::Null } else { json!(1000) }}});
        let create = Console::create(&id, location, &what, process);
        // Who is killed answers nothing; the test ends this task then.
        let _ = Console::ask_with::<CreateReply>(&client, subject::create_tracepoint(&host), create).await;
        armed.push(id);
        if armed.len() > 6 {
            let id = armed.remove(n as usize % armed.len());
            let remove = json!({"tracepoint": id});
            let _ = Console::ask_with::<RemoveReply>(&client, subject::remove_tracepoint(&host), remove).await;
        }
    }
}

/// Whether a tracer holds the process.
fn is_held(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the target lives");
    !status.contains("TracerPid:\t0\n")
}

/// Waits without giving the processor away: the kernel's timers are too coarse for a random moment in a microsecond.
fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// What became of the kills, by the moment of each.
#[derive(Debug, Default)]
struct Killed {
    /// While the agent held the target by ptrace.
    held: u64,
    /// At any other moment.
    alive: u64,
}

#[track_caller]
fn kill_again_and_again(console: &mut Console, target: &mut Target) -> Killed {
    let mut random = Random::seeded();
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let places: Vec<Value> = names.iter().map(|name| target.location(name)).collect();
    let pid = target.pid();
    let mut killed = Killed::default();
    for n in 0..kills() {
        let process = target.process(console);
        let (client, runtime, host) = console.asker();
        let task = runtime.spawn(load(client, host, process, places.clone(), n * 10_000));
        if n % 4 == 3 {
            spin(ALIVE_MAX.mul_f64(random.below(1000) as f64 / 1000.0));
        } else {
            // Not the first time that it takes hold, at times: the later ones arm more and remove.
            for _ in 0..[0, 0, 0, 1, 4][random.below(5)] {
                let limit = Instant::now() + HOLD_LIMIT;
                while !is_held(pid) && Instant::now() < limit {}
                while is_held(pid) && Instant::now() < limit {}
            }
            let limit = Instant::now() + HOLD_LIMIT;
            while !is_held(pid) && Instant::now() < limit {}
            spin(HELD_MAX.mul_f64((random.below(1000) as f64 / 1000.0).powi(2)));
        }
        if is_held(pid) {
            killed.held += 1
        } else {
            killed.alive += 1
        }
        console.fleet.agent(HOST).kill();
        task.abort();
        // It lives, all of it goes on, and nobody has it.
        target.goes_on(&names);
        target.assert_untraced();
        console.fleet.start_agent(HOST);
        console.until_served();
    }
    killed
}

/// Nothing is left: not for the next agent's eyes, and not in the text.
#[track_caller]
fn assert_left_clean(console: &mut Console, target: &mut Target) {
    let process = target.process(console);
    // What a new agent is asked for works as if nothing had been before it.
    let marker = target.markers().remove(0);
    let before = target.pause();
    let (id, _) = console.arm(&target.location(&marker), &json!({}), process);
    target.resume();
    target.goes_on(&[&marker]);
    let after: BTreeMap<String, u64> = target.pause();
    let probe = console.remove(&id);
    assert_eq!(probe.passages, after[&marker] - before[&marker], "{probe:?}");
    console.settled(&id, &json!({}), &probe);
    target.resume();
    target.assert_clean();
    target.assert_untraced();
    console.fleet.start_coordinator();
    let pid = target.pid();
    let lines = eventually("riptrace ps shows the process", SOON, || {
        let lines = console.fleet.ps();
        lines.iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(lines)
    });
    assert!(lines.iter().all(|line| line["type"] != "status"), "no tracepoint is left: {lines:?}");
}

#[test]
fn a_go_program_outlives_every_agent() {
    if !is_wanted() {
        return;
    }
    let mut console = Console::start();
    let fixture = Fixture::go("chaos", ".");
    let mut target = Target::start(&console, &fixture, &["-workers", "3"]);
    let killed = kill_again_and_again(&mut console, &mut target);
    eprintln!("agents of a Go program: {killed:?}");
    assert!(killed.held >= kills() / 4, "too few kills fell into what this test is about: {killed:?}");
    assert_left_clean(&mut console, &mut target);
    target.exit();
}

#[test]
fn a_c_program_outlives_every_agent() {
    if !is_wanted() {
        return;
    }
    let mut console = Console::start();
    let fixture = chaos_native(&["-g", "-O2"]);
    let mut target = Target::start(&console, &fixture, &[]);
    let killed = kill_again_and_again(&mut console, &mut target);
    eprintln!("agents of a C program: {killed:?}");
    assert!(killed.held >= kills() / 4, "too few kills fell into what this test is about: {killed:?}");
    assert_left_clean(&mut console, &mut target);
    target.exit();
}

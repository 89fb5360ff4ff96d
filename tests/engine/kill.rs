//! An agent that is killed at any moment, arming and removing included: the target lives and is right every time, the
//! next agent takes over what it finds, and the last one leaves nothing.
//!
//! Most kills are aimed: at a system call that the agent has the target make (its code stands in the target's memory from
//! before the thread is sent there until it is back), or at any other moment in which the agent holds the target by
//! ptrace. Which moment it was is told by what the dead agent has left. A few kills are made each time;
//! `RIPTRACE_KILLS` says how many there are otherwise, and 200 make a full run: `RESULTS.md` has the last one.

use crate::chaos::Random;
use crate::console::{Console, HOST};
use crate::support::{SOON, eventually, fixture::Fixture};
use crate::target::{Target, chaos_native};
use async_nats::Client;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use riptrace::provision::{BuildFlags, GoVersion};
use riptrace_protocol::agent_api::{CreateReply, RemoveReply};
use riptrace_protocol::ids::{HostName, ProcessKey};
use riptrace_protocol::subject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use std::{env, fs};

/// An agent that takes hold of nothing for so long is killed as it is. On a busy machine it reads debug information, and
/// waits until no thread is in a handler of SIGSEGV, for seconds.
const HOLD_LIMIT: Duration = Duration::from_secs(30);
/// How long after the agent took hold of the target it is killed, at most: about as long as it holds.
const HELD_MAX: Duration = Duration::from_millis(1);
/// The same for a kill at any other moment.
const ALIVE_MAX: Duration = Duration::from_millis(400);

/// Kills where nobody says how many: enough to see that an agent can be killed at all.
const KILLS: u64 = 4;
/// From so many kills on, a quarter of them must have fallen into a remote call: fewer may miss by chance.
const KILLS_THAT_COUNT: u64 = 20;
/// Kills between two lines of progress.
const PROGRESS: u64 = 20;
/// How long the agent runs between two looks at whether it is in a remote call, at most: a few times as long as one takes.
const STEP_MAX: Duration = Duration::from_micros(500);
/// The same before it gets at the target at all: it reads debug information.
const STRIDE: Duration = Duration::from_millis(4);
/// Of the moments in a remote call that are found, each so-many-th is taken: not always the first call.
const TAKEN: usize = 2;

fn kills() -> u64 {
    env::var("RIPTRACE_KILLS").map_or(KILLS, |text| text.parse().expect("a number of kills"))
}

/// Where a target makes calls for its agents: slots at the end of an island's code, and one at the end of the vdso before
/// there is an island. The agent clears a slot when it is done; one that is left belongs to an agent that was killed.
struct Calls {
    pid: i32,
    memory: fs::File,
}

impl Calls {
    /// How each slot begins: `syscall; mov rdi, ..`.
    const BEGIN: [u8; 4] = [0x0f, 0x05, 0x48, 0xbf];
    const SLOT: usize = 128;
    /// Slots of an island.
    const SLOTS: usize = 4096;
    /// Slots of the vdso are at multiples of it, in its last page.
    const STEP: usize = 16;
    const PAGE: usize = 4096;

    fn of(pid: i32) -> Calls {
        Calls { pid, memory: fs::File::open(format!("/proc/{pid}/mem")).expect("its memory") }
    }

    /// The places of slots: from where on, how many bytes, and the distance of two.
    fn places(&self) -> Vec<(u64, usize, usize)> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).expect("its maps");
        let place = |line: &str| {
            let end = u64::from_str_radix(line.split([' ', '-']).nth(1)?, 16).ok()?;
            if line.ends_with("[vdso]") {
                return Some((end - Self::PAGE as u64, Self::PAGE, Self::STEP));
            }
            let is_code = line.contains("/memfd:riptrace") && line.contains(" r-x");
            is_code.then_some((end - (Self::SLOTS * Self::SLOT) as u64, Self::SLOTS * Self::SLOT, Self::SLOT))
        };
        maps.lines().filter_map(place).collect()
    }

    /// Slots that have something in them.
    fn used(&self) -> usize {
        let used = |(at, bytes, step): (u64, usize, usize)| {
            let mut slots = vec![0; bytes];
            self.memory.read_exact_at(&mut slots, at).expect("its memory");
            (0..bytes / step).filter(|n| slots[n * step..].starts_with(&Self::BEGIN)).count()
        };
        self.places().into_iter().map(used).sum()
    }
}

/// Stops an agent wherever it is just now: all of its threads.
#[track_caller]
fn stop(agent: Pid) {
    kill(agent, Signal::SIGSTOP).expect("the agent runs");
    waitid(Id::Pid(agent), WaitPidFlag::WSTOPPED).expect("the agent stops");
}

/// Whether the agent has the target's memory open: it is about to get inside.
fn is_at_work(agent: Pid, pid: i32) -> bool {
    let memory = format!("/proc/{pid}/mem");
    let open = fs::read_dir(format!("/proc/{agent}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path.as_os_str() == memory.as_str())
}

/// Has the agent run by short steps, and leaves it stopped where it has the target make a system call for it, at one of
/// many random moments of those; or lets it run, where none was found. What it does to a target it does not miss: it is
/// stopped itself meanwhile.
fn in_call(agent: Pid, calls: &Calls, left: usize, random: &mut Random, limit: Instant) {
    while Instant::now() < limit {
        stop(agent);
        if calls.used() > left && random.below(TAKEN) == 0 {
            return;
        }
        let step = if is_at_work(agent, calls.pid) { STEP_MAX } else { STRIDE };
        kill(agent, Signal::SIGCONT).expect("the agent is there");
        // The processor is the agent's meanwhile.
        let step = Instant::now() + step.mul_f64(random.below(1000) as f64 / 1000.0);
        while Instant::now() < step {
            std::thread::yield_now();
        }
    }
}

/// Arms and removes, until the agent is gone.
async fn load(client: Client, host: HostName, process: ProcessKey, places: Vec<Value>, first: u64) {
    let mut armed = Vec::new();
    for n in first.. {
        let id = format!("k{n}");
        let location = &places[n as usize % places.len()];
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
    /// While the target made a system call for the agent: its slot was left.
    in_call: u64,
    /// While the agent held the target by ptrace, otherwise.
    held: u64,
    /// At any other moment.
    alive: u64,
}

/// Waits for a moment at which the agent is to be killed.
fn aim(n: u64, pid: i32, agent: Pid, calls: &Calls, left: usize, random: &mut Random) {
    let fraction = random.below(1000) as f64 / 1000.0;
    let limit = Instant::now() + HOLD_LIMIT;
    match n % 4 {
        3 if n % 8 == 3 => spin(ALIVE_MAX.mul_f64(fraction)),
        3 => {
            // Not the first time that it takes hold, at times: the later ones arm more and remove.
            for _ in 0..[0, 0, 0, 1, 4][random.below(5)] {
                while !is_held(pid) && Instant::now() < limit {}
                while is_held(pid) && Instant::now() < limit {}
            }
            while !is_held(pid) && Instant::now() < limit {}
            spin(HELD_MAX.mul_f64(fraction.powi(2)));
        }
        _ => in_call(agent, calls, left, random, limit),
    }
}

#[track_caller]
fn kill_again_and_again(console: &mut Console, target: &mut Target) -> Killed {
    let mut random = Random::seeded();
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let places: Vec<Value> = names.iter().map(|name| target.location(name)).collect();
    let pid = target.pid();
    let calls = Calls::of(pid);
    let mut killed = Killed::default();
    let mut left = calls.used();
    for n in 0..kills() {
        let process = target.process(console);
        let (client, runtime, host) = console.asker();
        let task = runtime.spawn(load(client, host, process, places.clone(), n * 10_000));
        let agent = Pid::from_raw(console.fleet.agent(HOST).pid());
        aim(n, pid, agent, &calls, left, &mut random);
        let was_held = is_held(pid);
        console.fleet.agent(HOST).kill();
        task.abort();
        // It lives, all of it goes on, and nobody has it.
        target.goes_on(&names);
        target.assert_untraced();
        let now_left = calls.used();
        match (now_left > left, was_held) {
            (true, _) => killed.in_call += 1,
            (false, true) => killed.held += 1,
            (false, false) => killed.alive += 1,
        }
        left = now_left;
        if (n + 1) % PROGRESS == 0 {
            eprintln!("{}: {killed:?}", n + 1);
        }
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

/// Kills the agents of a target, and looks at what is left.
#[track_caller]
fn outlives(what: &str, mut console: Console, mut target: Target) {
    let killed = kill_again_and_again(&mut console, &mut target);
    eprintln!("agents of {what}, {} killed: {killed:?}", kills());
    let is_enough = kills() < KILLS_THAT_COUNT || killed.in_call >= kills() / 4;
    assert!(is_enough, "too few kills fell into what this test is about: {killed:?}");
    assert_left_clean(&mut console, &mut target);
    target.exit();
}

#[test]
fn a_go_program_outlives_every_agent() {
    let console = Console::start();
    let fixture = Fixture::go("chaos", ".");
    let target = Target::start(&console, &fixture, &["-workers", "3"]);
    outlives("a Go program", console, target);
}

#[test]
fn a_position_independent_go_program_with_c_outlives_every_agent() {
    let console = Console::start();
    let flags = BuildFlags { cgo: true, ..BuildFlags::with_args(["-buildmode=pie"]) };
    let fixture = Fixture::go_with("chaos", ".", GoVersion::newest(), &flags);
    let target = Target::start(&console, &fixture, &["-workers", "3"]);
    outlives("a Go program, PIE with cgo,", console, target);
}

#[test]
fn a_c_program_outlives_every_agent() {
    let console = Console::start();
    let fixture = chaos_native(&["-g", "-O2"]);
    let target = Target::start(&console, &fixture, &[]);
    outlives("a C program", console, target);
}

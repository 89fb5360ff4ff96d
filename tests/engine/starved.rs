//! An agent that is given no processor, or next to none: what it says then is either the whole truth or says that it is
//! not, and the whole truth follows. Its tracepoints stay.
//!
//! It is starved for a few seconds here; `RIPTRACE_STARVED_SECONDS` says for how long otherwise: from 15 on an agent
//! answers before it is done, from 20 on a coordinator's lease would be over. `RESULTS.md` has the last run of 25.

use crate::console::{Console, HOST};
use crate::support::fixture::Fixture;
use crate::target::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use riptrace_protocol::fleet::ProbeState;
use serde_json::json;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long it is starved where nobody says it.
const SHORT: Duration = Duration::from_secs(2);
/// Of each so long, ..
const TURN: Duration = Duration::from_millis(100);
/// .. it may run for so long, or little more: less than a hundredth.
const RUN: Duration = Duration::from_micros(300);

fn how_long() -> Duration {
    let seconds = env::var("RIPTRACE_STARVED_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    seconds.map_or(SHORT, Duration::from_secs)
}

/// Stops an agent and lets it run in turn; it runs on when this is dropped.
struct Starved {
    agent: Pid,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Starved {
    /// Of each `turn` it runs for `run`, until `limit` has passed.
    fn new(agent: i32, run: Duration, turn: Duration, limit: Duration) -> Starved {
        let agent = Pid::from_raw(agent);
        let over = Arc::new(AtomicBool::new(false));
        let end = Instant::now() + limit;
        let is_over = Arc::clone(&over);
        kill(agent, Signal::SIGSTOP).expect("the agent runs");
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) && Instant::now() < end {
                std::thread::sleep(turn.saturating_sub(run).min(end.saturating_duration_since(Instant::now())));
                if !run.is_zero() {
                    let _ = kill(agent, Signal::SIGCONT);
                    std::thread::sleep(run);
                    let _ = kill(agent, Signal::SIGSTOP);
                }
            }
            let _ = kill(agent, Signal::SIGCONT);
        });
        Starved { agent, over, thread: Some(thread) }
    }

    /// Waits until it runs again.
    fn wait(mut self) {
        self.thread.take().expect("it is joined once").join().expect("it does not panic");
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            let _ = kill(self.agent, Signal::SIGCONT);
        }
    }
}

/// Arms all lines of a target, has it pass them while the agent is starved, and removes them; the counts are the target's.
/// `while_starved` says whether the removals are asked for in that time.
#[track_caller]
fn counts_are_whole(run: Duration, turn: Duration, while_starved: bool) {
    let fixture = Fixture::go("chaos", ".");
    let mut console = Console::start();
    let mut target = Target::start(&console, &fixture, &["-workers", "3"]);
    let process = target.process(&mut console);
    let names = target.markers();
    let before = target.pause();
    let what = [json!({"limits": {"rate_per_s": null}}), json!({}), json!({"mode": "count"})];
    let armed: Vec<_> = (names.iter().zip(what.iter().cycle()))
        .map(|(name, what)| (console.arm(&target.location(name), what, process).0, name, what))
        .collect();
    target.resume();
    let lines: Vec<&str> = names.iter().map(String::as_str).collect();
    target.goes_on(&lines);
    let starved = Starved::new(console.fleet.agent(HOST).pid(), run, turn, how_long());
    target.goes_on(&lines);
    let after = target.pause();
    if !while_starved {
        starved.wait();
    }
    let mut unfinished = 0;
    for (id, name, what) in armed {
        let (probe, asked) = console.remove_told(&id);
        let probe = probe.unwrap_or_else(|| panic!("{name} is not known any more"));
        unfinished += asked - 1;
        let ended = (probe.state, probe.reason.as_deref());
        assert_eq!(ended, (ProbeState::Off, Some("removed")), "{name}: {probe:?}");
        assert_eq!(
            probe.passages,
            after[name] - before[name],
            "{name}: counted by the agent, by the target; {probe:?}"
        );
        console.settled(&id, what, &probe);
    }
    eprintln!("{unfinished} answers said that they were not the whole");
    target.resume();
    target.goes_on(&lines);
    target.pause();
    target.assert_clean();
    target.exit();
}

#[test]
fn an_agent_that_is_given_next_to_no_processor_says_what_it_does_not_know() {
    counts_are_whole(RUN, TURN, true);
}

#[test]
fn an_agent_that_is_stopped_for_long_keeps_its_tracepoints() {
    counts_are_whole(Duration::ZERO, how_long(), false);
}

#[test]
fn an_agent_that_is_stopped_when_it_is_asked_tells_all_counts() {
    counts_are_whole(Duration::ZERO, how_long(), true);
}

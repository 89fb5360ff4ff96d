//! Tracepoints come and go at every kind of place of a program in which everything that is hard on a tracer goes on at
//! once. The program checks every result; records and drops add up to the passages that it counts itself.
//!
//! A round: while the workers are paused some tracepoints are armed that stay for the whole round; while they work,
//! others are armed and removed all the time, at the same places and elsewhere; while they are paused again the first
//! ones are removed, and their counts must be the target's own.
//!
//! `RIPTRACE_CHAOS_SECONDS` makes each test go on for so long (an hour: 3600), `RIPTRACE_CHAOS_SEED` repeats a choice.

use crate::console::Console;
use crate::support::fixture::Fixture;
use crate::target::{Target, chaos_native};
use riptrace::provision::{BuildFlags, GoVersion};
use riptrace_protocol::fleet::{Mechanism, ProbeState, ProbeStatus};
use riptrace_protocol::ids::ProcessKey;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

/// How long a test goes on in CI.
const SHORT: Duration = Duration::from_secs(12);
/// How long the workers work in a round.
const ROUND: Duration = Duration::from_millis(1500);
/// Tracepoints that stay for a round, beside those that come and go.
const STEADY: usize = 5;

/// How long each test goes on.
fn duration() -> Duration {
    let seconds = env::var("RIPTRACE_CHAOS_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    seconds.map_or(SHORT, Duration::from_secs)
}

/// Random numbers of a seed: xorshift64* (Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    /// Of the seed that the environment gives, else of one that differs from run to run; it is printed, and so shown
    /// when the test fails.
    pub(crate) fn seeded() -> Random {
        let given = env::var("RIPTRACE_CHAOS_SEED").ok().map(|text| text.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            now.as_nanos() as u64
        });
        eprintln!("RIPTRACE_CHAOS_SEED={seed}");
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn choose<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Kinds of tracepoints of which every passage is a hit or a drop.
fn kinds() -> [Value; 5] {
    [
        json!({}),
        json!({"limits": {"rate_per_s": null}}),
        json!({"limits": {"rate_per_s": 20}}),
        json!({"mode": "count", "limits": {"rate_per_s": null}}),
        json!({"limits": {"rate_per_s": 50_000, "string_bytes": 16, "depth": 4, "bytes_per_hit": 512}}),
    ]
}

/// What a test of chaos saw.
#[derive(Debug, Default)]
struct Seen {
    rounds: u64,
    armed: u64,
    passages: u64,
    hits: u64,
    dropped: u64,
    mechanisms: BTreeMap<Mechanism, u64>,
    /// Tracepoints that the agent took out because it had heard nobody, on a machine that let nobody speak.
    unheard: u64,
    /// Tracepoints that were refused because their site had as many captures as its pad has room for.
    full: u64,
}

/// What an agent says of a site whose pad is full, and of nothing else.
const FULL: &str = "the captures at one site need";

/// A coordinator that was silent for nearly its lease may have been so for all of it, as its agent sees it.
const SILENCE: Duration = Duration::from_millis(riptrace_protocol::limits::COORDINATOR_LEASE_MS * 3 / 4);
/// What an agent says then, and nobody else.
const UNHEARD: &str = "no coordinator was heard";

/// Traces a target for [`duration`].
#[track_caller]
fn chaos(console: &mut Console, target: &mut Target, more: &[(&str, Value)]) -> Seen {
    let mut random = Random::seeded();
    let process = target.process(console);
    let markers = target.markers();
    let names: Vec<&str> = markers.iter().map(String::as_str).collect();
    let mut places: Vec<(&str, Value)> = names.iter().map(|name| (*name, target.location(name))).collect();
    places.extend(more.iter().cloned());
    let mut seen = Seen::default();
    let deadline = Instant::now() + duration();
    // Each place at least once.
    while Instant::now() < deadline || seen.rounds < places.len().div_ceil(STEADY) as u64 {
        round(console, target, process, &places, &mut random, &mut seen);
        target.goes_on(&names);
    }
    target.pause();
    target.assert_clean();
    target.resume();
    target.goes_on(&names);
    seen
}

#[track_caller]
fn round(
    console: &mut Console,
    target: &mut Target,
    process: ProcessKey,
    places: &[(&str, Value)],
    random: &mut Random,
    seen: &mut Seen,
) {
    let unheard = seen.unheard;
    let before = target.pause();
    let kinds = kinds();
    let mut steady = Vec::new();
    for n in 0..STEADY {
        let (marker, location) = &places[(seen.rounds as usize * STEADY + n) % places.len()];
        let what = random.choose(&kinds);
        let (id, mechanism) = console.arm(location, what, process);
        *seen.mechanisms.entry(mechanism).or_default() += 1;
        steady.push((id, *marker, what));
    }
    target.resume();
    let until = Instant::now() + ROUND;
    let mut passing: Vec<String> = Vec::new();
    while Instant::now() < until {
        if passing.len() > 3 || (!passing.is_empty() && random.below(2) == 0) {
            let id = passing.swap_remove(random.below(passing.len()));
            if let Some(probe) = console.remove_told(&id).0 {
                assert_eq!(probe.hits + probe.dropped, probe.passages, "{probe:?}");
            } else {
                seen.unheard += 1;
            }
        } else {
            let (_, location) = random.choose(places);
            let (id, probe) = console.try_arm(location, random.choose(&kinds), process);
            match (probe.state, probe.reason.as_deref()) {
                (ProbeState::Armed, _) => passing.push(id),
                (ProbeState::Refused, Some(why)) if why.starts_with(FULL) && !passing.is_empty() => {
                    console.remove_told(&id);
                    seen.full += 1;
                    continue;
                }
                _ => panic!("{location} is not armed: {probe:?}"),
            }
            seen.armed += 1;
        }
    }
    let after = target.pause();
    for id in passing {
        console.remove_told(&id);
    }
    for (id, marker, what) in steady {
        let passed = after[marker] - before[marker];
        let probe = console.remove_told(&id).0;
        let is_unheard = |probe: &ProbeStatus| probe.reason.as_deref().is_some_and(|why| why.starts_with(UNHEARD));
        let Some(probe) = probe.filter(|probe| !is_unheard(probe)) else {
            seen.unheard += 1;
            continue;
        };
        let ended = (probe.state, probe.reason.as_deref());
        assert_eq!(ended, (ProbeState::Off, Some("removed")), "{marker}: it was armed all the time; {probe:?}");
        assert_eq!(probe.passages, passed, "{marker}: counted by the agent, by the target; {probe:?}");
        let tally = console.settled(&id, what, &probe);
        seen.armed += 1;
        seen.passages += passed;
        seen.hits += probe.hits;
        seen.dropped += tally.dropped();
    }
    let silence = console.longest_silence();
    assert!(seen.unheard == unheard || silence >= SILENCE, "a lease was over though pings were answered: {seen:?}");
    target.resume();
    seen.rounds += 1;
}

/// How many workers a target has, so that CI's two cores have something left for the agent.
const ARGUMENTS: [&str; 2] = ["-workers", "4"];

#[track_caller]
fn go_chaos(flags: &BuildFlags, version: GoVersion) {
    let fixture = Fixture::go_with("chaos", ".", version, flags);
    let mut console = Console::start();
    let mut target = Target::start(&console, &fixture, &ARGUMENTS);
    let prologue = ("recurse", json!({"kind": "function", "name": "main.recurse"}));
    let seen = chaos(&mut console, &mut target, &[prologue]);
    eprintln!("Go {version} {flags:?}: {seen:?}");
    let answer = target.exit();
    eprintln!("{answer}");
    assert_eq!(answer["cgo"], flags.cgo);
}

#[test]
fn a_go_program_survives_chaos() {
    go_chaos(&BuildFlags::default(), GoVersion::newest());
}

#[test]
fn a_position_independent_go_program_with_c_in_it_survives_chaos() {
    let flags = BuildFlags { cgo: true, ..BuildFlags::with_args(["-buildmode=pie"]) };
    go_chaos(&flags, GoVersion::newest());
}

#[track_caller]
fn native_chaos(flags: &[&str]) {
    let fixture = chaos_native(flags);
    let mut console = Console::start();
    let mut target = Target::start(&console, &fixture, &[]);
    let seen = chaos(&mut console, &mut target, &[]);
    eprintln!("C {flags:?}: {seen:?}");
    target.exit();
}

#[test]
fn a_c_program_survives_chaos() {
    native_chaos(&["-g", "-O2"]);
}

#[test]
fn a_c_program_at_fixed_addresses_without_frame_pointers_survives_chaos() {
    native_chaos(&["-g", "-O2", "-no-pie", "-fomit-frame-pointer", "-fcf-protection=full"]);
}

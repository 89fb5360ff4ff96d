//! `riptrace/fleet`: hosts, their processes, builds and tracepoints, with what each of them does now.

use super::super::super::envelope::Failure;
use super::super::event::Effect;
use super::super::state::{Asked, State, Turn};
use super::read;
use crate::render::json::{mechanism_word, state_word};
use riptrace_protocol::fleet::{FleetView, Mechanism, ProbeState, ProbeStatus, TracepointStatus};
use riptrace_protocol::ids::{ProcessId, TracepointId};
use riptrace_protocol::selector::Selector;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Two countings nearer than this make no rate: agents report once a second.
const RATE_INTERVAL: Duration = Duration::from_millis(900);
/// Requests that wait for a fresh look at the fleet, at most.
const WAITING_MAX: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FleetArguments {
    /// Ask the coordinator now; else what was seen at most five seconds ago.
    refresh: bool,
}

/// How fast probes count: passages and hits per second, from two looks at the fleet.
#[derive(Debug, Default)]
pub(in super::super) struct Rates {
    counted: BTreeMap<(TracepointId, ProcessId), Counted>,
    /// Requests that are answered by the next look.
    waiting: Vec<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Duration,
    passages: u64,
    hits: u64,
    per_s: Option<(f64, f64)>,
}

impl Rates {
    /// Takes a look at the fleet; forgets probes that are not there any more.
    pub(in super::super) fn seen(&mut self, now: Duration, fleet: &FleetView) {
        let mut before = std::mem::take(&mut self.counted);
        for probe in fleet.tracepoints.iter().flat_map(|tracepoint| &tracepoint.probes) {
            let key = (probe.tracepoint.clone(), probe.process.clone());
            let fresh = Counted { at: now, passages: probe.passages, hits: probe.hits, per_s: None };
            let counted = match before.remove(&key) {
                // A probe that was armed anew counts from nothing.
                Some(old) if old.passages > probe.passages || old.hits > probe.hits => fresh,
                Some(old) if now.saturating_sub(old.at) < RATE_INTERVAL => old,
                Some(old) => {
                    let seconds = (now - old.at).as_secs_f64();
                    let rate = |new: u64, old: u64| (new - old) as f64 / seconds;
                    Counted { per_s: Some((rate(probe.passages, old.passages), rate(probe.hits, old.hits))), ..fresh }
                }
                None => fresh,
            };
            self.counted.insert(key, counted);
        }
    }

    /// Passages and hits per second; `None` before the second look.
    fn of(&self, probe: &ProbeStatus) -> Option<(f64, f64)> {
        self.counted.get(&(probe.tracepoint.clone(), probe.process.clone()))?.per_s
    }

    /// The requests that wait for a look.
    pub(in super::super) fn take_waiting(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.waiting)
    }
}

impl State {
    pub(super) fn own_fleet(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: Value) {
        let arguments: FleetArguments = match read("fleet", arguments) {
            Ok(arguments) => arguments,
            Err(failure) => return turn.answer_raw(asked, Err(failure)),
        };
        let is_live = self.is_joined() && !self.attachment.is_recording;
        if arguments.refresh && is_live && self.rates.waiting.len() < WAITING_MAX {
            self.rates.waiting.push(asked);
            if self.attachment.ask_fleet() {
                turn.effect(Effect::AskFleet);
            }
            return;
        }
        turn.answer_raw(asked, self.fleet_json().map(Some));
    }

    /// Answers those who wait for a look at the fleet.
    pub(in super::super) fn answer_fleet(&mut self, turn: &mut Turn<'_>, failure: Option<&str>) {
        for asked in self.rates.take_waiting() {
            let outcome = match failure {
                Some(why) => Err(Failure::quiet(why)),
                None => self.fleet_json().map(Some),
            };
            turn.answer_raw(asked, outcome);
        }
    }

    pub(super) fn fleet_json(&self) -> Result<Value, Failure> {
        let fleet = self.attachment.fleet.as_ref().ok_or_else(|| Failure::quiet("not attached to a fleet yet"))?;
        let statuses = self.statuses(fleet);
        let everything = Selector::default();
        let selector = self.attachment.config.selector.as_ref().unwrap_or(&everything);
        let mut probes: BTreeMap<&ProcessId, Vec<Value>> = BTreeMap::new();
        for probe in statuses.iter().flat_map(|status| &status.probes) {
            // Absent: the program has no such place, which is no fact about the process worth a row.
            if probe.state != ProbeState::Absent {
                probes.entry(&probe.process).or_default().push(self.probe_json(probe));
            }
        }
        let mut builds: BTreeMap<&str, (Value, usize)> = BTreeMap::new();
        let mut hosts = Vec::with_capacity(fleet.hosts.len());
        for view in &fleet.hosts {
            let profile = &view.profile;
            let mut processes = Vec::with_capacity(profile.processes.len());
            for process in &profile.processes {
                let build = builds.entry(&process.build.id.0).or_insert_with(|| (json!(process.build), 0));
                build.1 += 1;
                let id = ProcessId { host: profile.host.clone(), key: process.key };
                processes.push(json!({
                    "pid": process.key.pid,
                    "start_time": process.key.start_time,
                    "service": process.service,
                    "exe": process.exe,
                    "build": process.build.id,
                    "container": process.container,
                    "labels": process.labels,
                    "refused": process.refused,
                    "meant": selector.matches(&profile.host, process),
                    "probes": probes.remove(&id).unwrap_or_default(),
                }));
            }
            hosts.push(json!({
                "host": profile.host,
                "alive": view.alive,
                "version": profile.version,
                "kernel": profile.kernel,
                "labels": profile.labels,
                "clock_uncertainty_ns": view.clock_uncertainty_ns,
                "processes": processes,
            }));
        }
        let builds: Vec<Value> = builds
            .into_values()
            .map(|(mut build, processes)| {
                build["processes"] = json!(processes);
                build
            })
            .collect();
        let tracepoints: Vec<Value> = statuses.iter().map(|status| self.tracepoint_json(status)).collect();
        Ok(json!({
            "session": self.attachment.session,
            "selector": selector.to_string(),
            "revision": self.statistics.fleet_revision(),
            "hosts": hosts,
            "builds": builds,
            "tracepoints": tracepoints,
        }))
    }

    /// The states of all sessions' tracepoints, this session's as they were told last.
    fn statuses<'a>(&'a self, fleet: &'a FleetView) -> Vec<&'a TracepointStatus> {
        let mut own: BTreeMap<&TracepointId, &TracepointStatus> = self.breakpoints.statuses().collect();
        let mut all: Vec<&TracepointStatus> = Vec::with_capacity(fleet.tracepoints.len());
        for status in &fleet.tracepoints {
            all.push(own.remove(&status.tracepoint).unwrap_or(status));
        }
        all.extend(own.into_values());
        all
    }

    fn probe_json(&self, probe: &ProbeStatus) -> Value {
        let per_s = self.rates.of(probe);
        json!({
            "tracepoint": probe.tracepoint,
            "state": state_word(probe.state),
            "mechanism": probe.mechanism.map(mechanism_word),
            "sites": probe.sites,
            "reason": probe.reason,
            "note": probe.note,
            "passages": probe.passages,
            "hits": probe.hits,
            "dropped": probe.dropped,
            "passages_per_s": per_s.map(|(passages, _)| passages),
            "hits_per_s": per_s.map(|(_, hits)| hits),
        })
    }

    fn tracepoint_json(&self, status: &TracepointStatus) -> Value {
        let id = &status.tracepoint;
        let local = self.breakpoints.local(id);
        let meant: Vec<&ProbeStatus> = status.probes.iter().filter(|p| p.state != ProbeState::Absent).collect();
        let sum = |count: fn(&ProbeStatus) -> u64| meant.iter().map(|probe| count(probe)).fold(0, u64::saturating_add);
        let rates: Vec<(f64, f64)> = meant.iter().filter_map(|probe| self.rates.of(probe)).collect();
        let rate = |which: fn(&(f64, f64)) -> f64| (!rates.is_empty()).then(|| rates.iter().map(which).sum::<f64>());
        let costliest: Option<Mechanism> = meant.iter().filter_map(|probe| probe.mechanism).max();
        json!({
            "id": id,
            "location": status.location.to_string(),
            "own": self.breakpoints.knows(id),
            "breakpoint": self.breakpoints.of(id),
            "log": self.breakpoints.is_log(id),
            "path": local.map(|(path, _)| self.client.path_out(path)),
            "line": local.map(|(_, line)| self.client.line_out(*line)),
            "state": state_word(folded(&status.probes)),
            "mechanism": costliest.map(mechanism_word),
            "armed": meant.iter().filter(|probe| probe.state == ProbeState::Armed).count(),
            "processes": meant.len(),
            "passages": sum(|probe| probe.passages),
            "hits": sum(|probe| probe.hits),
            "dropped": sum(|probe| probe.dropped),
            "passages_per_s": rate(|(passages, _)| *passages),
            "hits_per_s": rate(|(_, hits)| *hits),
            "message": self.breakpoints.of(id).and_then(|breakpoint| self.breakpoints.told_message(breakpoint)),
            "ended": status.ended,
        })
    }
}

/// The state of a tracepoint over the fleet: the best that any process has.
fn folded(probes: &[ProbeStatus]) -> ProbeState {
    let order = [ProbeState::Armed, ProbeState::Pending, ProbeState::Off, ProbeState::Refused, ProbeState::Absent];
    order.into_iter().find(|state| probes.iter().any(|probe| probe.state == *state)).unwrap_or(ProbeState::Pending)
}

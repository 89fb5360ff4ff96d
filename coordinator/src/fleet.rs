//! Hosts: who is there, what each one's agent was asked, and what it answered.
//!
//! For each tracepoint that a host has to do with there is a [`Link`]: at most one request is under way for it, and
//! it is repeated, with growing pauses, until what is wanted and what the agent said agree.
//!
//! ```text
//! heartbeat -> (new run?) -> profile, list -> per tracepoint: create what is missing | remove what nobody wants
//! ```
//! What it is not: it knows no session and sends nothing; [`crate::state`] turns what is due into effects.

use crate::event::AskId;
use crate::limits::{MS, PAST_INCARNATIONS_MAX, RETRY_MS_MAX, RETRY_MS_MIN};
use riptrace_protocol::fleet::{HostProfile, ProbeState, ProbeStatus, ProcessFacts};
use riptrace_protocol::ids::{HostName, Incarnation, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::limits::{BUSY_MS, CLOCK_CALM_PING_MS, CLOCK_PING_MS};
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::{BTreeMap, VecDeque};

/// A request that is repeated until it is answered.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// The question that is under way.
    pub(crate) in_flight: Option<AskId>,
    /// Not before this.
    pub(crate) due_ns: u64,
    failures: u32,
}

impl Call {
    pub(crate) fn may_start(&self, now_ns: u64) -> bool {
        self.in_flight.is_none() && now_ns >= self.due_ns
    }

    pub(crate) fn answered(&mut self) {
        *self = Call::default();
    }

    pub(crate) fn failed(&mut self, now_ns: u64) {
        self.in_flight = None;
        let pause_ms = (RETRY_MS_MIN << self.failures.min(8)).min(RETRY_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.due_ns = now_ns + pause_ms * MS;
    }
}

/// One tracepoint on one host.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The request that is under way for it: create or remove.
    pub(crate) call: Call,
    /// Which version of the tracepoint `probes` are about.
    pub(crate) generation: Option<u64>,
    /// What the agent said of each process.
    pub(crate) probes: BTreeMap<ProcessKey, ProbeStatus>,
    /// A create was sent (or found), and no removal was answered since.
    pub(crate) may_be_armed: bool,
    /// It must be removed before it is created: processes are armed that are not meant any more.
    pub(crate) remove_first: bool,
    /// When a request for it was last sent or answered: a list that was asked for before says nothing about it.
    pub(crate) touched_ns: u64,
    /// Why the last request failed, and whether the agent itself said so.
    pub(crate) failure: Option<(String, bool)>,
}

/// What is due for a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Create in these processes.
    Create(Vec<ProcessKey>),
    Remove,
    /// It has nothing to do with the host any more.
    Forget,
}

impl Link {
    /// What is due, given the processes that are meant: `None` when nobody wants the tracepoint.
    pub(crate) fn due(&self, now_ns: u64, generation: u64, desired: Option<&[ProcessKey]>) -> Due {
        if self.call.in_flight.is_some() {
            return Due::Nothing;
        }
        let may = |due| if now_ns >= self.call.due_ns { due } else { Due::Nothing };
        match desired {
            None if self.may_be_armed => may(Due::Remove),
            None => Due::Forget,
            Some(_) if self.remove_first && self.may_be_armed => may(Due::Remove),
            Some(desired) => {
                let current = self.generation == Some(generation);
                let known = |key: &ProcessKey| current && self.probes.contains_key(key);
                let missing: Vec<ProcessKey> = desired.iter().copied().filter(|key| !known(key)).collect();
                if missing.is_empty() { Due::Nothing } else { may(Due::Create(missing)) }
            }
        }
    }
}

/// Clock exchanges with a host.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    pub(crate) in_flight: bool,
    pub(crate) due_ns: u64,
    pub(crate) answered: u32,
    /// Until then its clock is looked at often: it has hits.
    busy_until_ns: u64,
    /// Until then its agent says its watermark often: it was told that hits wait for it.
    hurried_until_ns: u64,
    /// The next one tells that hits wait for it.
    hurries: bool,
}

impl Pings {
    /// Hits of this host have come: their places are as certain as the exchanges around them are near.
    pub(crate) fn has_hits(&mut self, now_ns: u64) {
        if now_ns >= self.busy_until_ns {
            self.due_ns = self.due_ns.min(now_ns);
        }
        self.busy_until_ns = now_ns + BUSY_MS * MS;
    }

    /// Its agent was heard: it is awake, and to wake up once more is all that a ping costs it. A calm host's ping that is due
    /// soon goes out now.
    pub(crate) fn heard(&mut self, now_ns: u64) {
        if now_ns >= self.busy_until_ns && now_ns + CLOCK_CALM_PING_MS / 2 * MS >= self.due_ns {
            self.due_ns = self.due_ns.min(now_ns);
        }
    }

    /// Hits wait for this host's watermark.
    pub(crate) fn is_waited_for(&mut self, now_ns: u64) {
        if now_ns >= self.hurried_until_ns {
            self.hurries = true;
            self.due_ns = self.due_ns.min(now_ns);
            // Told again before its agent is calm again.
            self.hurried_until_ns = now_ns + BUSY_MS / 2 * MS;
        }
    }

    /// One goes out; returns whether it tells that hits wait.
    pub(crate) fn start(&mut self, now_ns: u64) -> bool {
        let pause_ms = if now_ns < self.busy_until_ns { CLOCK_PING_MS } else { CLOCK_CALM_PING_MS };
        self.in_flight = true;
        self.due_ns = now_ns + pause_ms * MS;
        std::mem::take(&mut self.hurries)
    }
}

/// One host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) incarnation: Incarnation,
    /// Earlier runs of its agent.
    past: VecDeque<Incarnation>,
    pub(crate) alive: bool,
    /// Its agent said that it goes.
    pub(crate) left: bool,
    pub(crate) heard_ns: u64,
    pub(crate) profile: Option<HostProfile>,
    /// Revision that the agent's heartbeats speak of.
    pub(crate) profile_revision: u64,
    pub(crate) profile_call: Call,
    /// Whether the agent has told what it has, since it was last met anew.
    pub(crate) listed: bool,
    /// It is to be asked for what it has.
    pub(crate) list_wanted: bool,
    /// When it was last asked for it.
    pub(crate) list_asked_ns: u64,
    pub(crate) list_call: Call,
    /// Its list is not asked for because of a hit's facts before this.
    pub(crate) facts_due_ns: u64,
    pub(crate) pings: Pings,
    /// When the agent last answered a ping: its lease of our probes counts from there.
    pub(crate) ponged_ns: u64,
    pub(crate) links: BTreeMap<TracepointId, Link>,
}

/// Whose heartbeat it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The run that is known.
    Known,
    /// The run that is known, after it was thought to be gone.
    Back,
    /// A new run, which has forgotten everything.
    NewRun,
    /// A run that was replaced: two agents use one name, or the message is old.
    Past,
}

impl Host {
    pub(crate) fn new(name: HostName, incarnation: Incarnation, now_ns: u64) -> Host {
        Host {
            name,
            incarnation,
            past: VecDeque::new(),
            alive: true,
            left: false,
            heard_ns: now_ns,
            profile: None,
            profile_revision: 0,
            profile_call: Call::default(),
            listed: false,
            list_wanted: true,
            list_asked_ns: now_ns,
            list_call: Call::default(),
            facts_due_ns: 0,
            pings: Pings { due_ns: now_ns, ..Pings::default() },
            ponged_ns: now_ns,
            links: BTreeMap::new(),
        }
    }

    /// Its agent was heard.
    pub(crate) fn heard(&mut self, incarnation: Incarnation, now_ns: u64) -> Heard {
        if self.past.contains(&incarnation) {
            return Heard::Past;
        }
        self.heard_ns = now_ns;
        if incarnation != self.incarnation {
            if self.past.len() >= PAST_INCARNATIONS_MAX {
                self.past.pop_front();
            }
            self.past.push_back(self.incarnation);
            let past = std::mem::take(&mut self.past);
            let links = std::mem::take(&mut self.links);
            let in_flight = self.pings.in_flight;
            *self = Host { past, ..Host::new(self.name.clone(), incarnation, now_ns) };
            self.pings.in_flight = in_flight;
            // The links stay, empty: whoever waits for them goes on waiting.
            self.links = links.into_keys().map(|id| (id, Link::default())).collect();
            return Heard::NewRun;
        }
        self.left = false;
        if self.alive { Heard::Known } else { Heard::Back }
    }

    /// It is not heard any more, or has left. What was under way will not be answered by this run.
    pub(crate) fn gone(&mut self) {
        self.alive = false;
        self.listed = false;
        self.list_wanted = true;
        // One that is under way is still answered, if only that it is lost.
        self.pings = Pings { in_flight: self.pings.in_flight, ..Pings::default() };
    }

    /// All that is known of its probes may be wrong: ask for the list.
    pub(crate) fn relist(&mut self) {
        self.list_wanted = true;
    }

    /// Processes that a tracepoint means here, whether they can be traced or not.
    pub(crate) fn meant<'a>(&'a self, tracepoint: &'a Tracepoint) -> impl Iterator<Item = &'a ProcessFacts> {
        let processes = self.profile.as_ref().map_or(&[][..], |profile| &profile.processes);
        processes.iter().filter(|process| tracepoint.selector.matches(&self.name, process))
    }

    /// Processes that a tracepoint is to be armed in.
    pub(crate) fn desired(&self, tracepoint: &Tracepoint) -> Vec<ProcessKey> {
        self.meant(tracepoint).filter(|process| process.refused.is_none()).map(|process| process.key).collect()
    }

    /// Whether the agent has answered for all processes that are meant here (or said that it will not).
    pub(crate) fn settled(&self, tracepoint: &Tracepoint, generation: u64) -> bool {
        if !self.alive || !tracepoint.selector.may_match_host(&self.name) {
            return true;
        }
        if self.profile.is_none() || self.profile_call.in_flight.is_some() {
            return false;
        }
        let desired = self.desired(tracepoint);
        if desired.is_empty() {
            return true;
        }
        let Some(link) = self.links.get(&tracepoint.id) else { return false };
        let refused = link.failure.as_ref().is_some_and(|(_, by_agent)| *by_agent);
        refused
            || matches!(link.due(u64::MAX, generation, Some(&desired)), Due::Nothing if link.call.in_flight.is_none())
    }

    /// Whether a tracepoint is certain to be out of this host (or the host is gone, and its agent's lease with it).
    pub(crate) fn removed(&self, tracepoint: &TracepointId) -> bool {
        !self.alive || self.links.get(tracepoint).is_none_or(|link| !link.may_be_armed)
    }

    /// Status of a tracepoint in each process that it means here.
    pub(crate) fn statuses(&self, tracepoint: &Tracepoint, generation: u64) -> Vec<ProbeStatus> {
        let link = self.links.get(&tracepoint.id);
        let mut statuses: Vec<ProbeStatus> = self
            .meant(tracepoint)
            .map(|process| {
                let known = link
                    .filter(|link| link.generation == Some(generation))
                    .and_then(|link| link.probes.get(&process.key))
                    .cloned();
                let failure = link.and_then(|link| link.failure.as_ref());
                let mut status = known.unwrap_or_else(|| ProbeStatus {
                    tracepoint: tracepoint.id.clone(),
                    process: ProcessId { host: self.name.clone(), key: process.key },
                    service: process.service.clone(),
                    build: process.build.id.clone(),
                    state: match failure {
                        Some((_, true)) => ProbeState::Refused,
                        _ => ProbeState::Pending,
                    },
                    mechanism: None,
                    sites: Vec::new(),
                    reason: failure.map(|(reason, _)| reason.clone()),
                    note: None,
                    passages: 0,
                    hits: 0,
                    dropped: 0,
                    unfinished: false,
                });
                if let Some(reason) = &process.refused {
                    (status.state, status.reason) = (ProbeState::Refused, Some(reason.clone()));
                } else if !self.alive {
                    let why = if self.left { "has stopped" } else { "is not heard" };
                    status.state = ProbeState::Off;
                    status.reason = Some(format!("the agent of host {} {why}", self.name));
                }
                status
            })
            .collect();
        statuses.sort_by_key(|status| status.process.key);
        statuses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::limits::HEARTBEAT_MS;

    #[test]
    fn clocks_are_exchanged_often_only_while_there_are_hits() {
        let mut pings = Pings::default();
        assert!(!pings.start(0));
        assert_eq!(pings.due_ns, CLOCK_CALM_PING_MS * MS);
        // The first hit does not wait for the next one, and the others follow at the pace of hits.
        pings.has_hits(300 * MS);
        assert_eq!(pings.due_ns, 300 * MS);
        pings.start(300 * MS);
        assert_eq!(pings.due_ns, (300 + CLOCK_PING_MS) * MS);
        pings.has_hits(400 * MS);
        assert_eq!(pings.due_ns, (300 + CLOCK_PING_MS) * MS);
        pings.start((400 + BUSY_MS) * MS);
        assert_eq!(pings.due_ns, (400 + BUSY_MS + CLOCK_CALM_PING_MS) * MS);
    }

    #[test]
    fn a_calm_agent_is_pinged_while_it_is_awake() {
        let mut pings = Pings::default();
        pings.start(0);
        // The first heartbeat comes too early for it; each one after that takes its ping along.
        pings.heard(HEARTBEAT_MS / 3 * MS);
        assert_eq!(pings.due_ns, CLOCK_CALM_PING_MS * MS);
        let mut last_ns = 0;
        for beat in 1..10 {
            let now_ns = (HEARTBEAT_MS / 3 + beat * HEARTBEAT_MS) * MS;
            assert!(pings.due_ns > now_ns, "it is not due before the heartbeat");
            pings.heard(now_ns);
            assert_eq!(pings.due_ns, now_ns);
            pings.start(now_ns);
            assert!(now_ns - last_ns <= CLOCK_CALM_PING_MS * MS);
            last_ns = now_ns;
        }
        // A busy one has its own pace.
        pings.has_hits(last_ns);
        pings.start(last_ns);
        pings.heard(last_ns + CLOCK_PING_MS / 2 * MS);
        assert_eq!(pings.due_ns, last_ns + CLOCK_PING_MS * MS);
    }

    #[test]
    fn an_agent_whose_watermark_is_waited_for_is_told_so_before_it_is_calm_again() {
        let mut pings = Pings::default();
        pings.start(0);
        let mut told = Vec::new();
        for now_ms in (100..2 * BUSY_MS).step_by(100) {
            pings.is_waited_for(now_ms * MS);
            if now_ms * MS >= pings.due_ns && pings.start(now_ms * MS) {
                told.push(now_ms);
            }
        }
        assert_eq!(told[0], 100);
        assert!(
            told.windows(2).all(|pair| pair[1] - pair[0] < BUSY_MS && pair[1] - pair[0] >= BUSY_MS / 2),
            "{told:?}"
        );
        assert!(told.last().is_some_and(|last| 2 * BUSY_MS - last < BUSY_MS));
    }

    #[test]
    fn a_failed_call_is_repeated_with_growing_pauses() {
        let mut call = Call::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(call.may_start(now));
            call.in_flight = Some(AskId(1));
            assert!(!call.may_start(now));
            call.failed(now);
            pauses.push((call.due_ns - now) / MS);
            now = call.due_ns;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        call.answered();
        assert!(call.may_start(0));
    }

    #[test]
    fn a_run_that_was_replaced_is_not_taken_for_a_new_one() {
        let mut host = Host::new(HostName::new("a").unwrap(), Incarnation(1), 0);
        assert_eq!(host.heard(Incarnation(1), 1), Heard::Known);
        assert_eq!(host.heard(Incarnation(2), 2), Heard::NewRun);
        assert_eq!(host.heard(Incarnation(1), 3), Heard::Past);
        assert_eq!(host.heard_ns, 2);
        host.gone();
        assert_eq!(host.heard(Incarnation(2), 4), Heard::Back);
    }

    #[test]
    fn a_link_asks_for_what_is_missing_and_takes_out_what_is_not_wanted() {
        let key = |pid| ProcessKey { pid, start_time: 1 };
        let mut link = Link::default();
        assert_eq!(link.due(0, 1, Some(&[key(1), key(2)])), Due::Create(vec![key(1), key(2)]));
        assert_eq!(link.due(0, 1, Some(&[])), Due::Nothing);
        assert_eq!(link.due(0, 1, None), Due::Forget);
        link.may_be_armed = true;
        assert_eq!(link.due(0, 1, None), Due::Remove);
        link.call.in_flight = Some(AskId(1));
        assert_eq!(link.due(0, 1, None), Due::Nothing, "one request at a time");
    }
}

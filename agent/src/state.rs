//! The service's state: which processes are there, which probes are wanted, and which answers are owed. Pure.
//!
//! ```text
//!                        Create
//!                          |
//!                          v          Armed(Ok)
//!        +-- same ----> Arming ---------------------> Armed
//!        |   content,      |                            |
//!        |   later         | Armed(Err)                 | process exits, execs, is lost
//!        |                 v                            v
//!        +------------- Refused                        Off --- process is there after an exec ---> Arming
//!                                                       |
//!   from each of them: Remove, Detach, lost lease, shutdown, other content
//!                          |
//!                          v          Disarmed (final counts)
//!                        Ending ---------------------> (gone)
//! ```
//!
//! Rules
//! - A probe that is wanted is in `probes`. What is not wanted any more leaves it at once and is in `ending` until the
//!   work of taking it out has ended. The driver does the work of a process in order, so a probe that is still on its
//!   way in is taken out after it got there.
//! - No probe without a lease: when no coordinator is heard for [`COORDINATOR_LEASE_MS`], nothing is wanted any more.
//! - Each request is answered once: when its work has ended, or at its deadline with what is known then. Counts that
//!   are not final are said to be [unfinished](ProbeStatus::unfinished), and the final ones are told to whoever asks again.
//! - An agent that is given no processor hears nobody: that time does not count as a coordinator's silence.
//! - The state of the whole host is bounded by [`PROBES_MAX`], [`TRACEPOINTS_MAX`] and [`LAYOUTS_MAX`].

use crate::event::{Answer, Armed, Ask, Effect, Event, Gone, JobId, NotArmed, Outcome, ProbeCounts, RequestId, Work};
use crate::publish::recent::Recent;
use riptrace_protocol::agent_api::{AttachReply, Create, Heartbeat};
use riptrace_protocol::fleet::{HostProfile, ProbeState, ProbeStatus, ProcessFacts};
use riptrace_protocol::ids::{BuildId, HostName, Incarnation, LayoutId, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::{AGENT_REQUEST_MS, COORDINATOR_LEASE_MS, HEARTBEAT_MS};
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Probes of one host, at most: each costs the host memory, and each site a patched word.
pub(crate) const PROBES_MAX: usize = 4096;
/// Tracepoints of one host, at most: more than any team looks at.
pub(crate) const TRACEPOINTS_MAX: usize = 1000;
/// Layouts that are remembered, at most.
const LAYOUTS_MAX: usize = 4096;
/// A request is answered after this time at the latest, in milliseconds: before whoever asked gives up.
const ANSWER_MS: u64 = AGENT_REQUEST_MS - 1_000;
/// A heartbeat that has news to tell is sent early, but not sooner than this after the last, in milliseconds.
const HEARTBEAT_GAP_MS: u64 = 200;
/// The pulse that heartbeats go with may come so much earlier after the last one, in milliseconds: it is not left out then.
const PULSE_EARLY_MS: u64 = 50;
/// All statuses are said again this often, in milliseconds: a heartbeat may be lost.
const REFRESH_MS: u64 = 10_000;
/// Statuses in one heartbeat, at most: it must fit in a message.
const HEARTBEAT_PROBES_MAX: usize = 500;
/// A process without probes is let go of after this time, in milliseconds: an editor that replaces its breakpoints
/// removes and creates them.
const DETACH_GRACE_MS: u64 = 5_000;
/// The status of a probe whose process ended is kept this long, in milliseconds: long enough for anybody to see it.
const ENDED_KEPT_MS: u64 = 60_000;
/// Statuses of removed probes that are kept as long, so that a removal that is asked for again has an answer, at most.
const REMOVED_MAX: usize = 2 * PROBES_MAX;
/// Events that are further apart, in milliseconds, are so because the agent did not run: its driver tells it of the time with
/// each heartbeat at the latest.
const STALL_MS: u64 = 2 * HEARTBEAT_MS;
/// A refused probe is tried again no sooner than this, in milliseconds: what was refused is mostly refused again.
const RETRY_MS: u64 = 2_000;
/// Requests that wait for work, at most: a coordinator has a few under way.
const OWED_MAX: usize = 1024;
/// The agent ends after this time at the latest once it is asked to, in milliseconds.
const SHUTDOWN_MS: u64 = 5_000;

/// Why a probe goes whose tracepoint has other content now.
const REPLACED: &str = "replaced";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Arming(JobId),
    /// Armed by this job.
    Armed(JobId),
    Refused,
    /// Off since; `after_exec` when it is armed again as soon as the process is seen again.
    Off {
        since_ms: u64,
        after_exec: bool,
    },
}

#[derive(Debug)]
struct Probe {
    tracepoint: Arc<Tracepoint>,
    phase: Phase,
    tried_at_ms: u64,
    status: ProbeStatus,
    layouts: Vec<Arc<Layout>>,
    changed: bool,
}

#[derive(Debug)]
struct Process {
    facts: ProcessFacts,
    /// Whether an engine is, or will be, attached to it.
    attached: bool,
    /// Since when it is attached without probes.
    idle_since_ms: Option<u64>,
    /// Since when it is not seen.
    missing_since_ms: Option<u64>,
}

/// How long an engine has to tell of the end of its process, in milliseconds: it comes with the last counts, which would be
/// lost if what is seen of /proc were believed first.
const UNTOLD_MS: u64 = 5_000;

#[derive(Debug)]
enum Owed {
    Attach { process: ProcessKey, job: JobId },
    Detach { process: ProcessKey, job: JobId },
    Create { tracepoint: Arc<Tracepoint>, processes: Vec<ProcessKey>, jobs: BTreeSet<JobId> },
    Remove { jobs: BTreeSet<JobId>, probes: Vec<ProbeStatus> },
    Lines { job: JobId },
}

/// The state of one agent.
#[derive(Debug)]
pub(crate) struct State {
    /// Everything but the processes.
    profile: HostProfile,
    processes: BTreeMap<ProcessKey, Process>,
    tracepoints: BTreeMap<TracepointId, Arc<Tracepoint>>,
    probes: BTreeMap<(TracepointId, ProcessKey), Probe>,
    /// Probes on their way out, by the job that takes them out.
    ending: BTreeMap<JobId, ProbeStatus>,
    /// Last statuses of probes that are gone and were not replaced, each with the time until which it is kept.
    removed: VecDeque<(u64, ProbeStatus)>,
    /// Processes that are being let go of.
    detaching: BTreeSet<JobId>,
    layouts: Recent<LayoutId, Arc<Layout>>,
    owed: BTreeMap<RequestId, (u64, Owed)>,
    next_job: u64,
    coordinator: Option<Incarnation>,
    lease_until_ms: Option<u64>,
    /// When the last event was.
    told_ms: u64,
    /// Statuses of probes that are gone and that no reply tells of.
    parting: Vec<ProbeStatus>,
    heartbeat_at_ms: u64,
    heard_at_ms: u64,
    refresh_at_ms: u64,
    urgent: bool,
    probes_exist: bool,
    /// When it ends at the latest, once it is asked to.
    ends_at_ms: Option<u64>,
    finished: bool,
}

impl State {
    /// A state without processes. `profile` tells who this is; its processes and revision are the state's own.
    pub(crate) fn new(mut profile: HostProfile) -> State {
        profile.processes.clear();
        profile.revision = 0;
        State {
            profile,
            processes: BTreeMap::new(),
            tracepoints: BTreeMap::new(),
            probes: BTreeMap::new(),
            ending: BTreeMap::new(),
            removed: VecDeque::new(),
            detaching: BTreeSet::new(),
            layouts: Recent::new(LAYOUTS_MAX),
            owed: BTreeMap::new(),
            next_job: 0,
            coordinator: None,
            lease_until_ms: None,
            told_ms: 0,
            parting: Vec::new(),
            heartbeat_at_ms: 0,
            heard_at_ms: 0,
            refresh_at_ms: REFRESH_MS,
            urgent: false,
            probes_exist: false,
            ends_at_ms: None,
            finished: false,
        }
    }

    /// Which host this is.
    pub(crate) fn host(&self) -> &HostName {
        &self.profile.host
    }

    /// Whether nothing is under way: time alone changes nothing before the next heartbeat.
    pub(crate) fn is_quiet(&self) -> bool {
        self.owed.is_empty()
            && self.ending.is_empty()
            && self.detaching.is_empty()
            && !self.urgent
            && self.ends_at_ms.is_none()
    }

    /// Takes one event; what is to be done is added to `effects`. `now_ms` never goes back.
    pub(crate) fn handle(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        let stalled_ms = now_ms.saturating_sub(self.told_ms);
        self.told_ms = now_ms;
        if stalled_ms > STALL_MS {
            self.lease_until_ms = self.lease_until_ms.map(|until_ms| until_ms + stalled_ms);
        }
        match event {
            Event::Asked { request, ask } => self.asked(now_ms, request, ask, effects),
            Event::CoordinatorHeard(coordinator) => self.coordinator_heard(now_ms, coordinator, effects),
            Event::Discovered(processes) => self.discovered(now_ms, processes, effects),
            Event::Done { job, outcome } => self.done(now_ms, job, outcome, effects),
            Event::Counted(counts) => self.counted(counts),
            Event::ProcessGone { process, how } => self.process_gone(now_ms, process, &how, effects),
            Event::Tick => {}
            Event::Shutdown => self.shutdown(now_ms, effects),
        }
        self.time_passed(now_ms, effects);
        self.settle(effects);
    }

    fn job(&mut self, process: ProcessKey, work: Work, effects: &mut Vec<Effect>) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        effects.push(Effect::Run { job, process, work });
        job
    }

    fn not_running(&self, process: ProcessKey) -> String {
        let host = &self.profile.host;
        format!("process {} (start {}) is not running on host {host}", process.pid, process.start_time)
    }

    // --- requests ---

    fn asked(&mut self, now_ms: u64, request: RequestId, ask: Ask, effects: &mut Vec<Effect>) {
        // An agent that starts asks for the profile too, so that is no sign of a coordinator.
        if ask != Ask::Profile {
            self.lease_until_ms = Some(now_ms + COORDINATOR_LEASE_MS);
        }
        if let Some(answer) = self.answer_at_once(&ask) {
            effects.push(Effect::Reply { request, answer });
            return;
        }
        let owed = match ask {
            Ask::Profile | Ask::List => return,
            Ask::Attach(process) => Owed::Attach { process, job: self.job(process, Work::Load, effects) },
            Ask::Detach(process) => {
                for id in self.tracepoints.keys().cloned().collect::<Vec<_>>() {
                    if let Some((_, status)) = self.end_probe(&id, process, "detached on request", effects) {
                        self.parting.extend(status);
                    }
                }
                Owed::Detach { process, job: self.detach(process, effects) }
            }
            Ask::Create(create) => self.create(now_ms, *create, effects),
            Ask::Remove(tracepoint) => self.remove(now_ms, &tracepoint, effects),
            Ask::Lines(lines) => {
                let Some(process) = self.process_of(&lines.build) else { return };
                Owed::Lines { job: self.job(process, Work::Lines(lines), effects) }
            }
        };
        self.owed.insert(request, (now_ms + ANSWER_MS, owed));
    }

    /// The answer to what needs no work, or cannot be done.
    fn answer_at_once(&self, ask: &Ask) -> Option<Answer> {
        let host = &self.profile.host;
        match ask {
            Ask::Profile => Some(Answer::Profile(self.profile())),
            Ask::List => Some(self.list()),
            _ if self.ends_at_ms.is_some() => Some(Answer::Error(format!("the agent of host {host} is stopping"))),
            _ if self.owed.len() >= OWED_MAX => {
                Some(Answer::Error(format!("host {host} works on {OWED_MAX} requests already: ask again later")))
            }
            Ask::Attach(process) | Ask::Detach(process) => match self.processes.get(process) {
                None => Some(Answer::Error(self.not_running(*process))),
                Some(known) if matches!(ask, Ask::Attach(_)) => known.facts.refused.clone().map(Answer::Error),
                Some(_) => None,
            },
            Ask::Lines(lines) if self.process_of(&lines.build).is_none() => {
                Some(Answer::Error(format!("no process of host {host} runs build {}", lines.build)))
            }
            Ask::Create(_) | Ask::Remove(_) | Ask::Lines(_) => None,
        }
    }

    /// A process that runs a build and can be traced.
    fn process_of(&self, build: &BuildId) -> Option<ProcessKey> {
        let mut running = self.processes.iter();
        let found = running.find(|(_, known)| known.facts.build.id == *build && known.facts.refused.is_none());
        found.map(|(process, _)| *process)
    }

    fn profile(&self) -> HostProfile {
        let processes = self.processes.values().map(|process| process.facts.clone()).collect();
        HostProfile { processes, ..self.profile.clone() }
    }

    fn list(&self) -> Answer {
        Answer::List {
            tracepoints: self.tracepoints.values().map(|tracepoint| (**tracepoint).clone()).collect(),
            probes: self.probes.values().map(|probe| probe.status.clone()).collect(),
            layouts: self.layouts.values().cloned().collect(),
        }
    }

    fn create(&mut self, now_ms: u64, create: Create, effects: &mut Vec<Effect>) -> Owed {
        let id = create.tracepoint.id.clone();
        let same = self.tracepoints.get(&id).is_some_and(|known| **known == create.tracepoint);
        if !same {
            self.end_tracepoint(&id, REPLACED, effects);
        }
        self.removed.retain(|(_, status)| status.tracepoint != id);
        let full = !self.tracepoints.contains_key(&id) && self.tracepoints.len() >= TRACEPOINTS_MAX;
        let tracepoint = match self.tracepoints.get(&id) {
            Some(known) => Arc::clone(known),
            None => Arc::new(create.tracepoint),
        };
        if !full {
            self.tracepoints.insert(id.clone(), Arc::clone(&tracepoint));
        }
        let mut jobs = BTreeSet::new();
        for &process in &create.processes {
            if !full {
                jobs.extend(self.want(now_ms, &tracepoint, process, effects));
            }
        }
        Owed::Create { tracepoint, processes: create.processes, jobs }
    }

    /// Makes sure that a probe is tried; returns the work that its status waits for.
    fn want(
        &mut self,
        now_ms: u64,
        tracepoint: &Arc<Tracepoint>,
        process: ProcessKey,
        effects: &mut Vec<Effect>,
    ) -> Option<JobId> {
        match self.probes.get(&(tracepoint.id.clone(), process)).map(|probe| (probe.phase, probe.tried_at_ms)) {
            Some((Phase::Arming(job), _)) => Some(job),
            Some((Phase::Armed(_), _)) => None,
            Some((Phase::Refused | Phase::Off { .. }, tried_at_ms)) if now_ms < tried_at_ms + RETRY_MS => None,
            None if self.probes.len() >= PROBES_MAX => None,
            Some((Phase::Refused | Phase::Off { .. }, _)) | None => {
                self.try_probe(now_ms, tracepoint, process, effects)
            }
        }
    }

    /// Begins a probe, if its process is there.
    fn try_probe(
        &mut self,
        now_ms: u64,
        tracepoint: &Arc<Tracepoint>,
        process: ProcessKey,
        effects: &mut Vec<Effect>,
    ) -> Option<JobId> {
        let facts = self.processes.get(&process)?.facts.clone();
        let mut probe = Probe {
            tracepoint: Arc::clone(tracepoint),
            phase: Phase::Refused,
            tried_at_ms: now_ms,
            status: self.status(&tracepoint.id, process, Some(&facts)),
            layouts: Vec::new(),
            changed: true,
        };
        let job = match facts.refused {
            Some(why) => {
                probe.status.state = ProbeState::Refused;
                probe.status.reason = Some(why);
                None
            }
            None => {
                let job = self.job(process, Work::Arm(Arc::clone(tracepoint)), effects);
                probe.phase = Phase::Arming(job);
                self.attached(process);
                Some(job)
            }
        };
        self.probes.insert((tracepoint.id.clone(), process), probe);
        job
    }

    // --- probes ---

    fn status(&self, id: &TracepointId, process: ProcessKey, facts: Option<&ProcessFacts>) -> ProbeStatus {
        ProbeStatus {
            tracepoint: id.clone(),
            process: ProcessId { host: self.profile.host.clone(), key: process },
            service: facts.map(|facts| facts.service.clone()).unwrap_or_default(),
            build: facts.map_or(BuildId(String::new()), |facts| facts.build.id.clone()),
            state: ProbeState::Pending,
            mechanism: None,
            sites: Vec::new(),
            reason: Some("being armed".to_owned()),
            note: None,
            passages: 0,
            hits: 0,
            dropped: 0,
            unfinished: false,
        }
    }

    fn probes_of(&self, id: &TracepointId) -> impl Iterator<Item = ProcessKey> {
        let first = (id.clone(), ProcessKey { pid: 0, start_time: 0 });
        let last = (id.clone(), ProcessKey { pid: u32::MAX, start_time: u64::MAX });
        self.probes.range(first..=last).map(|((_, process), _)| *process)
    }

    /// Nobody waits for this job any more.
    fn job_over(&mut self, job: JobId) {
        for (_, owed) in self.owed.values_mut() {
            if let Owed::Create { jobs, .. } | Owed::Remove { jobs, .. } = owed {
                jobs.remove(&job);
            }
        }
    }

    fn done(&mut self, now_ms: u64, job: JobId, outcome: Outcome, effects: &mut Vec<Effect>) {
        match outcome {
            Outcome::Loaded(result) => {
                let request = self.owed_by(|owed| matches!(owed, Owed::Attach { job: waits, .. } if *waits == job));
                if let Some(request) = request {
                    let answer = match result {
                        Ok(()) => Answer::Attach(AttachReply { loaded: true }),
                        Err(why) => Answer::Error(why),
                    };
                    self.answer(request, answer, effects);
                }
            }
            Outcome::Armed(result) => {
                self.armed(job, result);
                self.job_over(job);
            }
            Outcome::Disarmed(counts) => self.disarmed(now_ms, job, counts),
            Outcome::Lines(result) => {
                if let Some(request) = self.owed_by(|owed| matches!(owed, Owed::Lines { job: waits } if *waits == job))
                {
                    self.answer(request, result.map_or_else(Answer::Error, Answer::Lines), effects);
                }
            }
            Outcome::Detached => {
                self.detaching.remove(&job);
                let request = self.owed_by(|owed| matches!(owed, Owed::Detach { job: waits, .. } if *waits == job));
                if let Some(request) = request {
                    self.answer(request, Answer::Attach(AttachReply { loaded: false }), effects);
                }
            }
        }
    }

    fn armed(&mut self, job: JobId, result: Result<Armed, NotArmed>) {
        // A probe that is not wanted any more, or was replaced, has left: the work that takes it out is on its way.
        let Some(probe) = self.probes.values_mut().find(|probe| probe.phase == Phase::Arming(job)) else { return };
        probe.changed = true;
        self.urgent = true;
        match result {
            Ok(armed) => {
                probe.phase = Phase::Armed(job);
                probe.status.state = ProbeState::Armed;
                probe.status.mechanism = Some(armed.mechanism);
                probe.status.note = armed.note;
                probe.status.sites = armed.sites;
                probe.status.reason = None;
                for layout in &armed.layouts {
                    self.layouts.insert(layout.id(), Arc::clone(layout));
                }
                probe.layouts = armed.layouts;
            }
            Err(NotArmed { absent, why }) => {
                probe.phase = Phase::Refused;
                probe.status.state = if absent { ProbeState::Absent } else { ProbeState::Refused };
                probe.status.reason = Some(why);
            }
        }
    }

    fn counted(&mut self, counts: Vec<(JobId, ProbeCounts)>) {
        let mut counts: BTreeMap<JobId, ProbeCounts> = counts.into_iter().collect();
        for probe in self.probes.values_mut() {
            if let Phase::Armed(job) = probe.phase
                && let Some(counts) = counts.remove(&job)
            {
                // A probe that its engine has switched off stays in place, to be removed as any other.
                let is_off = counts.off.is_some();
                self.urgent |= is_off && probe.status.state == ProbeState::Armed;
                if is_off {
                    probe.status.state = ProbeState::Off;
                }
                probe.changed |= set_counts(&mut probe.status, counts);
            }
        }
    }

    // --- processes ---

    fn attached(&mut self, process: ProcessKey) {
        if let Some(known) = self.processes.get_mut(&process) {
            known.attached = true;
            known.idle_since_ms = None;
        }
    }

    fn detach(&mut self, process: ProcessKey, effects: &mut Vec<Effect>) -> JobId {
        let job = self.job(process, Work::Detach, effects);
        self.detaching.insert(job);
        if let Some(known) = self.processes.get_mut(&process) {
            known.attached = false;
            known.idle_since_ms = None;
        }
        job
    }

    fn discovered(&mut self, now_ms: u64, seen: Vec<ProcessFacts>, effects: &mut Vec<Effect>) {
        let seen: BTreeMap<ProcessKey, ProcessFacts> = seen.into_iter().map(|facts| (facts.key, facts)).collect();
        let mut gone = Vec::new();
        for (&key, known) in &mut self.processes {
            if seen.contains_key(&key) {
                known.missing_since_ms = None;
                continue;
            }
            let since_ms = *known.missing_since_ms.get_or_insert(now_ms);
            if !known.attached || now_ms >= since_ms + UNTOLD_MS {
                gone.push(key);
            }
        }
        for process in gone {
            self.process_gone(now_ms, process, &Gone::Exited("gone from /proc".to_owned()), effects);
        }
        for (key, facts) in seen {
            match self.processes.get_mut(&key) {
                Some(known) if known.facts == facts => {}
                Some(known) => {
                    known.facts = facts;
                    self.profile_changed();
                }
                None => {
                    self.processes
                        .insert(key, Process { facts, attached: false, idle_since_ms: None, missing_since_ms: None });
                    self.profile_changed();
                }
            }
        }
        self.rearm_after_exec(now_ms, effects);
    }

    fn profile_changed(&mut self) {
        self.profile.revision += 1;
        self.urgent = true;
    }

    /// Probes of processes that run another program now, or the same one anew.
    fn rearm_after_exec(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let again: Vec<(Arc<Tracepoint>, ProcessKey)> = (self.probes.iter())
            .filter(|(_, probe)| matches!(probe.phase, Phase::Off { after_exec: true, .. }))
            .map(|((_, process), probe)| (Arc::clone(&probe.tracepoint), *process))
            .collect();
        for (tracepoint, process) in again {
            let host = &self.profile.host;
            let meant =
                (self.processes.get(&process)).is_some_and(|known| tracepoint.selector.matches(host, &known.facts));
            if let Some(probe) = self.probes.get_mut(&(tracepoint.id.clone(), process)) {
                probe.phase = Phase::Off { since_ms: now_ms, after_exec: false };
                if meant {
                    self.try_probe(now_ms, &tracepoint, process, effects);
                }
            }
        }
    }

    fn process_gone(&mut self, now_ms: u64, process: ProcessKey, how: &Gone, effects: &mut Vec<Effect>) {
        let reason = match how {
            Gone::Exited(how) => format!("the process ended ({how})"),
            Gone::Execed => "the process replaced its program (exec)".to_owned(),
            Gone::Lost(why) => why.clone(),
        };
        let mut over = Vec::new();
        for ((_, of), probe) in &mut self.probes {
            if *of != process {
                continue;
            }
            match probe.phase {
                Phase::Arming(job) => over.push(job),
                Phase::Armed(_) => {}
                // What was refused of a process that ended is no news; after an exec it may be possible.
                Phase::Refused if *how == Gone::Execed => {}
                Phase::Refused | Phase::Off { .. } if !matches!(how, Gone::Exited(_)) => continue,
                Phase::Refused | Phase::Off { .. } => {
                    probe.phase = Phase::Off { since_ms: now_ms, after_exec: false };
                    continue;
                }
            }
            probe.phase = Phase::Off { since_ms: now_ms, after_exec: *how == Gone::Execed };
            probe.status.state = ProbeState::Off;
            probe.status.reason = Some(reason.clone());
            probe.changed = true;
            self.urgent = true;
        }
        over.into_iter().for_each(|job| self.job_over(job));
        if self.processes.get(&process).is_some_and(|known| known.attached) {
            self.detach(process, effects);
        }
        if matches!(how, Gone::Exited(_)) && self.processes.remove(&process).is_some() {
            self.profile_changed();
        }
    }

    // --- coordinator, time, end ---

    fn coordinator_heard(&mut self, now_ms: u64, coordinator: Incarnation, effects: &mut Vec<Effect>) {
        self.lease_until_ms = Some(now_ms + COORDINATOR_LEASE_MS);
        if self.coordinator != Some(coordinator) {
            self.coordinator = Some(coordinator);
            self.say_all_again();
            effects.push(Effect::NewCoordinator);
        }
    }

    fn say_all_again(&mut self) {
        self.probes.values_mut().for_each(|probe| probe.changed = true);
    }

    fn shutdown(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.ends_at_ms.is_some() {
            return;
        }
        self.ends_at_ms = Some(now_ms + SHUTDOWN_MS);
        self.end_all("the agent stopped", effects);
        let attached: Vec<ProcessKey> =
            self.processes.iter().filter(|(_, process)| process.attached).map(|(key, _)| *key).collect();
        for process in attached {
            self.detach(process, effects);
        }
    }

    fn time_passed(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.lease_until_ms.is_some_and(|until| now_ms >= until) {
            self.lease_until_ms = None;
            let reason = format!("no coordinator was heard for {} s", COORDINATOR_LEASE_MS / 1_000);
            self.end_all(&reason, effects);
        }
        self.probes.retain(|(_, process), probe| match probe.phase {
            Phase::Off { since_ms, .. } => self.processes.contains_key(process) || now_ms < since_ms + ENDED_KEPT_MS,
            _ => true,
        });
        while self.removed.front().is_some_and(|(until_ms, _)| now_ms >= *until_ms) {
            self.removed.pop_front();
        }
        self.let_go_of_idle(now_ms, effects);
        let late: Vec<RequestId> =
            self.owed.iter().filter(|(_, (deadline, _))| now_ms >= *deadline).map(|(request, _)| *request).collect();
        for request in late {
            self.answer_late(request, effects);
        }
        if now_ms >= self.refresh_at_ms {
            self.refresh_at_ms = now_ms + REFRESH_MS;
            self.say_all_again();
        }
        let early = self.urgent && now_ms >= self.heard_at_ms + HEARTBEAT_GAP_MS;
        if !self.finished && (now_ms >= self.heartbeat_at_ms || early) {
            self.heartbeat_at_ms = now_ms + HEARTBEAT_MS - PULSE_EARLY_MS;
            self.heard_at_ms = now_ms;
            effects.push(Effect::Heartbeat(self.heartbeat(false)));
        }
        let out = self.ending.is_empty() && self.detaching.is_empty();
        if !self.finished && self.ends_at_ms.is_some_and(|at| out || now_ms >= at) {
            self.finished = true;
            for request in self.owed.keys().copied().collect::<Vec<_>>() {
                self.answer_late(request, effects);
            }
            effects.push(Effect::Heartbeat(self.heartbeat(true)));
            effects.push(Effect::Finished);
        }
    }

    fn let_go_of_idle(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let busy: BTreeSet<ProcessKey> = (self.probes.iter())
            .filter(|(_, probe)| matches!(probe.phase, Phase::Arming(_) | Phase::Armed(_)))
            .map(|((_, process), _)| *process)
            .chain(self.ending.values().map(|status| status.process.key))
            .collect();
        let mut idle = Vec::new();
        for (key, process) in self.processes.iter_mut().filter(|(_, process)| process.attached) {
            if busy.contains(key) {
                process.idle_since_ms = None;
            } else if now_ms >= *process.idle_since_ms.get_or_insert(now_ms) + DETACH_GRACE_MS {
                idle.push(*key);
            }
        }
        for process in idle {
            self.detach(process, effects);
        }
    }

    fn heartbeat(&mut self, leaving: bool) -> Heartbeat {
        let mut probes: Vec<ProbeStatus> = Vec::new();
        let parting = self.parting.len().min(HEARTBEAT_PROBES_MAX);
        // One that is there again has a status of its own.
        let is_gone =
            |status: &ProbeStatus| !self.probes.contains_key(&(status.tracepoint.clone(), status.process.key));
        probes.extend(self.parting.drain(..parting).filter(is_gone));
        // A probe on its way in is no news: a reply or a later heartbeat tells what became of it, and a heartbeat that
        // arrives after that reply must not take it back.
        let settled = |probe: &&mut Probe| probe.changed && !matches!(probe.phase, Phase::Arming(_));
        for probe in self.probes.values_mut().filter(settled) {
            if probes.len() >= HEARTBEAT_PROBES_MAX {
                break;
            }
            probe.changed = false;
            probes.push(probe.status.clone());
        }
        // What did not fit goes with the next one, soon.
        self.urgent = probes.len() >= HEARTBEAT_PROBES_MAX;
        Heartbeat {
            host: self.profile.host.clone(),
            incarnation: self.profile.incarnation,
            profile_revision: self.profile.revision,
            probes,
            leaving,
        }
    }
}

/// Whether they are news.
fn set_counts(status: &mut ProbeStatus, counts: ProbeCounts) -> bool {
    let before = (status.passages, status.hits, status.dropped, status.note.take(), status.reason.clone());
    (status.passages, status.hits, status.dropped, status.note) =
        (counts.passages, counts.hits, counts.dropped, counts.note);
    if let Some(off) = counts.off.filter(|_| status.state == ProbeState::Off) {
        status.reason = Some(off);
    }
    (status.passages, status.hits, status.dropped, &status.note, &status.reason)
        != (before.0, before.1, before.2, &before.3, &before.4)
}

mod answers;
mod removal;
#[cfg(test)]
mod tests;

//! A simulated agent: a clock of its own, processes, probes, batches; it crashes and comes back as a new run.

use crate::rng::Rng;
use riptrace_coordinator::effect::Ask;
use riptrace_coordinator::event::{Answer, AskError};
use riptrace_protocol::agent_api::{CreateReply, Heartbeat, ListReply, RemoveReply};
use riptrace_protocol::batch::{Batch, FrameEntry};
use riptrace_protocol::fleet::{
    BuildFacts, HostProfile, Language, Mechanism, ProbeState, ProbeStatus, ProcessFacts, SiteFacts,
};
use riptrace_protocol::hit::{DropReason, Frame, RawDrop, RawHit};
use riptrace_protocol::ids::{Avma, BuildId, HostName, Incarnation, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::COORDINATOR_LEASE_MS;
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const MS: u64 = 1_000_000;

/// A clock that several hosts may share.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    pub(crate) name: ClockDomain,
    pub(crate) base_ns: i64,
    pub(crate) drift_ppm: i64,
}

impl Domain {
    pub(crate) fn read(&self, true_ns: u64) -> u64 {
        let elapsed = i128::from(true_ns);
        let read = elapsed + i128::from(self.base_ns) + elapsed * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(read).unwrap()
    }
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) host: HostName,
    pub(crate) domain: Domain,
    pub(crate) incarnation: Incarnation,
    pub(crate) running: bool,
    revision: u64,
    pub(crate) processes: Vec<ProcessKey>,
    pub(crate) armed: BTreeMap<TracepointId, (Tracepoint, BTreeSet<ProcessKey>)>,
    pub(crate) pinged_ns: u64,
    hits: Vec<RawHit>,
    drops: Vec<RawDrop>,
    next_hit: u64,
    next_batch: u64,
    changed: Vec<ProbeStatus>,
}

impl Agent {
    pub(crate) fn new(host: &str, domain: Domain, incarnation: u64, now_ns: u64) -> Agent {
        Agent {
            host: HostName::new(host).unwrap(),
            domain,
            incarnation: Incarnation(incarnation),
            running: true,
            revision: 1,
            processes: vec![ProcessKey { pid: 10, start_time: incarnation }],
            armed: BTreeMap::new(),
            pinged_ns: now_ns,
            hits: Vec::new(),
            drops: Vec::new(),
            next_hit: 0,
            next_batch: 0,
            changed: Vec::new(),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout {
            build: BuildId(format!("go:{}", self.host)),
            language: Language::Go,
            site: SiteFacts { function: "main.main".into(), file: "cart.go".into(), line: 42 },
            moment: riptrace_protocol::layout::Moment::Line,
            variables: Vec::new(),
            types: Vec::new(),
            string_bytes: 0,
            elements: 0,
            depth: 0,
        }
    }

    fn frame(&self, process: ProcessKey) -> FrameEntry {
        let frame = Frame { function: "main.main".into(), file: "cart.go".into(), line: 42, inlined: false };
        FrameEntry { build: self.layout().build, process, pc: Avma(7), frames: vec![frame] }
    }

    /// A process comes or goes.
    pub(crate) fn change_processes(&mut self, rng: &mut Rng) {
        self.revision += 1;
        if self.processes.len() > 1 && rng.chance(50) {
            let gone = self.processes.remove(0);
            self.armed.values_mut().for_each(|(_, processes)| processes.retain(|key| *key != gone));
        } else if self.processes.len() < 4 {
            let pid = 11 + u32::try_from(self.revision).unwrap();
            self.processes.push(ProcessKey { pid, start_time: self.incarnation.0 });
        }
    }

    /// Nobody has pinged for a lease: the coordinator is gone, and its probes go with it.
    pub(crate) fn check_lease(&mut self, now_ns: u64) {
        if now_ns >= self.pinged_ns + COORDINATOR_LEASE_MS * MS {
            self.armed.clear();
        }
    }

    pub(crate) fn heartbeat(&mut self, leaving: bool) -> Heartbeat {
        Heartbeat {
            host: self.host.clone(),
            incarnation: self.incarnation,
            profile_revision: self.revision,
            probes: std::mem::take(&mut self.changed),
            leaving,
        }
    }

    /// A thread passes a site. Returns the number of the hit, unless it was dropped by the rate.
    pub(crate) fn pass(&mut self, tracepoint: &TracepointId, now_ns: u64, rng: &mut Rng) -> Option<u64> {
        let (_, processes) = self.armed.get(tracepoint)?;
        let processes: Vec<ProcessKey> = processes.iter().copied().collect();
        if processes.is_empty() {
            return None;
        }
        let process = processes[usize::try_from(rng.range(0, processes.len() as u64)).unwrap()];
        if rng.chance(5) {
            let drop = RawDrop { tracepoint: tracepoint.clone(), process, reason: DropReason::Rate, count: 1 };
            self.drops.push(drop);
            return None;
        }
        let number = self.next_hit;
        self.next_hit += 1;
        self.hits.push(RawHit {
            number,
            tracepoint: tracepoint.clone(),
            process,
            layout: self.layout().id(),
            time_ns: self.domain.read(now_ns),
            thread: 1,
            goroutine: None,
            roots: now_ns.to_le_bytes().to_vec(),
            root_states: Vec::new(),
            chunks: Vec::new(),
            stack: vec![Avma(7)],
            stack_end: riptrace_protocol::hit::StackEnd::Whole,
            duration_ns: None,
        });
        Some(number)
    }

    /// What has come together since the last batch; `None` when there is nothing to say.
    pub(crate) fn batch(&mut self, now_ns: u64) -> Option<Batch> {
        if self.armed.is_empty() && self.hits.is_empty() && self.drops.is_empty() {
            return None;
        }
        let hits = std::mem::take(&mut self.hits);
        let batch = Batch {
            host: self.host.clone(),
            incarnation: self.incarnation,
            number: self.next_batch,
            clock_domain: self.domain.name.clone(),
            watermark_ns: self.domain.read(now_ns),
            first_hit: hits.first().map_or(self.next_hit, |hit| hit.number),
            frames: hits.iter().map(|hit| self.frame(hit.process)).take(1).collect(),
            hits,
            drops: std::mem::take(&mut self.drops),
        };
        self.next_batch += u64::from(!batch.is_watermark());
        Some(batch)
    }

    fn status(&self, tracepoint: &TracepointId, key: ProcessKey, state: ProbeState) -> ProbeStatus {
        ProbeStatus {
            tracepoint: tracepoint.clone(),
            process: ProcessId { host: self.host.clone(), key },
            service: "cart".into(),
            build: self.layout().build,
            state,
            mechanism: Some(Mechanism::Ptrace),
            sites: vec![self.layout().site],
            reason: None,
            note: None,
            passages: 0,
            hits: 0,
            dropped: 0,
            unfinished: false,
        }
    }

    fn statuses(&self) -> Vec<ProbeStatus> {
        let all = self.armed.iter().flat_map(|(id, (_, keys))| keys.iter().map(move |key| (id, *key)));
        all.map(|(id, key)| self.status(id, key, ProbeState::Armed)).collect()
    }

    pub(crate) fn answer(&mut self, ask: &Ask, rng: &mut Rng) -> Result<Answer, AskError> {
        match ask {
            Ask::Profile => Ok(Answer::Profile(self.profile())),
            Ask::List => Ok(Answer::List(Box::new(ListReply {
                incarnation: self.incarnation,
                tracepoints: self.armed.values().map(|(tracepoint, _)| tracepoint.clone()).collect(),
                probes: self.statuses(),
                layouts: vec![self.layout()],
                frames: Vec::new(),
            }))),
            Ask::Lines(_) => Err(AskError::Refused("the simulated host has no sources".into())),
            Ask::Remove(id) if rng.chance(8) => {
                let still = self.armed.get(id).map(|(_, keys)| keys.clone()).unwrap_or_default();
                let status = |key| ProbeStatus { unfinished: true, ..self.status(id, key, ProbeState::Off) };
                Ok(Answer::Remove(RemoveReply { probes: still.into_iter().map(status).collect() }))
            }
            Ask::Remove(id) => {
                let gone = self.armed.remove(id).map(|(_, keys)| keys).unwrap_or_default();
                let probes = gone.into_iter().map(|key| self.status(id, key, ProbeState::Off)).collect();
                Ok(Answer::Remove(RemoveReply { probes }))
            }
            Ask::Create(_) if rng.chance(8) => Err(AskError::Refused("the agent is busy".into())),
            Ask::Create(create) => {
                let id = create.tracepoint.id.clone();
                let (tracepoint, keys) =
                    self.armed.entry(id.clone()).or_insert_with(|| (create.tracepoint.clone(), BTreeSet::new()));
                if *tracepoint != create.tracepoint {
                    (*tracepoint, *keys) = (create.tracepoint.clone(), BTreeSet::new());
                }
                let there = |key: &&ProcessKey| self.processes.contains(key);
                keys.extend(create.processes.iter().filter(there));
                let probes = (create.processes.iter())
                    .map(|key| {
                        let state = if there(&key) { ProbeState::Armed } else { ProbeState::Off };
                        self.status(&id, *key, state)
                    })
                    .collect();
                Ok(Answer::Create(CreateReply { probes, layouts: vec![self.layout()] }))
            }
        }
    }

    fn profile(&self) -> HostProfile {
        let build = BuildFacts {
            id: self.layout().build,
            language: Language::Go,
            dwarf: true,
            go_version: None,
            module: None,
            module_version: None,
            vcs_revision: None,
            vcs_modified: None,
            settings: Default::default(),
        };
        let process = |key: &ProcessKey| ProcessFacts {
            key: *key,
            service: "cart".into(),
            exe: "/cart".into(),
            build: build.clone(),
            container: None,
            labels: BTreeMap::new(),
            refused: None,
        };
        HostProfile {
            host: self.host.clone(),
            incarnation: self.incarnation,
            version: "0.1.0".into(),
            kernel: "simulated".into(),
            clock_domain: self.domain.name.clone(),
            labels: BTreeMap::new(),
            revision: self.revision,
            processes: self.processes.iter().map(process).collect(),
        }
    }
}

//! The work in processes: each process has a queue whose work is done in order, on blocking threads.
//!
//! A tracepoint's way into a process: debug information (opened once per build), sites, one plan per site, engine
//! (attached with the first probe), sites patched. What goes wrong on it is the reason that a person reads.

use super::builds::Builds;
use super::engines::{Counted, Engines, Epoch};
use super::patches::Patches;
use crate::engine::{AttachOptions, EngineEvent, Mechanisms, Probe, ProbeSite, ProcessRuntime};
use crate::event::{Armed, JobId, NotArmed, Outcome, ProbeCounts, Work};
use crate::plan::{self, listing};
use crate::publish::activations::Telling;
use crate::publish::publisher::PublisherHandle;
use crate::publish::sink::HitSink;
use crate::symbols::ResolveError;
use riptrace_protocol::agent_api::{LinesGet, LinesReply};
use riptrace_protocol::decode::CodeWords;
use riptrace_protocol::fleet::{Language, SiteFacts};
use riptrace_protocol::ids::{LayoutId, ProcessKey};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::{MESSAGE_BYTES_MAX, PROBE_SITES_MAX};
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Debug information that is read at the same time, at most: it costs processor time and memory of the host.
const LOADS_MAX: usize = 2;
/// Layouts of one probe, at most, in bytes of JSON: the reply that carries them is one message.
const LAYOUT_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Sites that a status names, at most; a person reads a few.
const SITES_SHOWN_MAX: usize = 16;

/// What all workers share.
pub(super) struct Host {
    pub(super) builds: Arc<Builds>,
    pub(super) engines: Engines,
    pub(super) publisher: PublisherHandle,
    pub(super) sink: HitSink,
    pub(super) mechanisms: Mechanisms,
    pub(super) cpu_percent: u32,
    pub(super) news: mpsc::UnboundedSender<News>,
}

/// What workers and engines tell. The channel has no bound of its own: a piece of work and an attachment tell one thing
/// each, and the state machine bounds those.
pub(super) enum News {
    Done { process: ProcessKey, job: JobId, outcome: Outcome },
    Engine { process: ProcessKey, epoch: Epoch, event: EngineEvent },
}

/// The queues.
pub(super) struct Workers {
    host: Arc<Host>,
    loads: Arc<Semaphore>,
    /// With the work that is not done yet.
    queues: HashMap<ProcessKey, (mpsc::UnboundedSender<(JobId, Work)>, usize)>,
}

impl Workers {
    pub(super) fn new(host: Arc<Host>) -> Workers {
        Workers { host, loads: Arc::new(Semaphore::new(LOADS_MAX)), queues: HashMap::new() }
    }

    /// Puts work at the end of a process's queue.
    pub(super) fn run(&mut self, process: ProcessKey, job: JobId, work: Work) {
        let (queue, outstanding) = self.queues.entry(process).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(serve(Arc::clone(&self.host), Arc::clone(&self.loads), process, receiver));
            (sender, 0)
        });
        *outstanding += 1;
        // The receiver lives as long as the sender is in the map.
        let _ = queue.send((job, work));
    }

    /// A piece of work of the process ended; a queue that is empty goes.
    pub(super) fn done(&mut self, process: ProcessKey) {
        if let Some((_, outstanding)) = self.queues.get_mut(&process) {
            *outstanding -= 1;
            if *outstanding == 0 {
                self.queues.remove(&process);
            }
        }
    }
}

async fn serve(
    host: Arc<Host>,
    loads: Arc<Semaphore>,
    process: ProcessKey,
    mut queue: mpsc::UnboundedReceiver<(JobId, Work)>,
) {
    while let Some((job, work)) = queue.recv().await {
        let permit = match work {
            Work::Load | Work::Arm(_) | Work::Lines(_) => loads.acquire().await.ok(),
            Work::Disarm(_) | Work::Detach => None,
        };
        let failed = match work {
            Work::Load => Outcome::Loaded(Err(PANICKED.to_owned())),
            Work::Arm(_) => Outcome::Armed(Err(PANICKED.to_owned().into())),
            Work::Disarm(_) => Outcome::Disarmed(None),
            Work::Detach => Outcome::Detached,
            Work::Lines(_) => Outcome::Lines(Err(PANICKED.to_owned())),
        };
        let worker = Arc::clone(&host);
        let outcome = tokio::task::spawn_blocking(move || worker.work(process, job, work)).await.unwrap_or(failed);
        drop(permit);
        let _ = host.news.send(News::Done { process, job, outcome });
    }
}

const PANICKED: &str = "the agent has a defect: its log says where (please report it)";

impl Host {
    fn work(self: &Arc<Self>, process: ProcessKey, job: JobId, work: Work) -> Outcome {
        match work {
            Work::Load => Outcome::Loaded(self.builds.load(process).map(|_| ())),
            Work::Arm(tracepoint) => Outcome::Armed(self.arm(process, job, &tracepoint)),
            Work::Lines(asked) => Outcome::Lines(self.lines(process, &asked)),
            Work::Disarm(tracepoint) => {
                let counts = self.engines.get(process).and_then(|engine| engine.disarm(&tracepoint));
                self.engines.disarmed(process, &tracepoint);
                Outcome::Disarmed(counts.map(|counts| self.counts(&Counted { job, tracepoint, process, counts })))
            }
            Work::Detach => {
                self.engines.detach(process);
                Outcome::Detached
            }
        }
    }

    fn lines(&self, process: ProcessKey, asked: &LinesGet) -> Result<LinesReply, String> {
        let loaded = self.builds.load(process)?;
        if loaded.id != asked.build {
            return Err(format!("process {} runs another build by now: {}", process.pid, loaded.id));
        }
        listing::lines(&loaded.build, asked).map_err(|error| error.to_string())
    }

    fn arm(self: &Arc<Self>, process: ProcessKey, job: JobId, tracepoint: &Tracepoint) -> Result<Armed, NotArmed> {
        let loaded = self.builds.load(process)?;
        if self.mechanisms != Mechanisms::Ptrace {
            loaded.read_ahead(process.pid);
        }
        let mut by_name = None;
        let found = match loaded.build.resolve(&tracepoint.location) {
            Ok(found) => found,
            Err(error) => {
                if matches!(error, ResolveError::NoSuchFunction { .. } | ResolveError::NoDwarf) {
                    by_name = self.builds.symbol(process, &loaded, &tracepoint.location)?;
                }
                if by_name.is_none() {
                    return Err(NotArmed { absent: error.is_absence(), why: error.to_string() });
                }
                Vec::new()
            }
        };
        if found.len() > PROBE_SITES_MAX {
            return Err(NotArmed::from(format!(
                "{} addresses belong to {}, at most {PROBE_SITES_MAX} can be traced",
                found.len(),
                tracepoint.location
            )));
        }
        let mut sites = Vec::new();
        let mut layouts: BTreeMap<LayoutId, Layout> = BTreeMap::new();
        let mut shown = Vec::new();
        let mut telling: Vec<Telling> = Vec::new();
        let mut patches = match self.mechanisms {
            Mechanisms::Auto | Mechanisms::Inside => loaded.code(process.pid).map(Patches::of),
            Mechanisms::Ptrace => Err("nothing is injected".to_owned()),
        };
        if let Some((address, function, file)) = by_name {
            let mut plan = plan::symbol::compile(&loaded.build, &function, &file, tracepoint)
                .map_err(|error| error.to_string())?;
            if let Some(slice) = &mut plan.program.stack_slice {
                slice.first_thread_end = loaded.first_stack_end;
            }
            let layout = plan.layout.id();
            let patch = Err(format!("{function} is known by its name only, and its code is not analysed"));
            sites.push(ProbeSite { address, program: Arc::new(plan.program), layout, patch });
            layouts.insert(layout, plan.layout);
            shown.push(SiteFacts { function, file, line: 0 });
        }
        for site in &found {
            let mut plan = plan::compile_one_of(&loaded.build, site, tracepoint, loaded.bias, found.len())
                .map_err(|error| error.to_string())?;
            if let Some(slice) = &mut plan.program.stack_slice {
                slice.first_thread_end = loaded.first_stack_end;
            }
            let layout = plan.layout.id();
            if let Some(place) = plan.activation {
                telling.push(Telling { layout, moment: site.moment, place });
            }
            sites.push(ProbeSite {
                address: site.address.in_process(loaded.bias),
                program: Arc::new(plan.program),
                layout,
                patch: patches.as_mut().map_err(|why| why.clone()).and_then(|patches| patches.at(site.address.0)),
            });
            layouts.insert(layout, plan.layout);
            if shown.len() < SITES_SHOWN_MAX {
                shown.push(SiteFacts { function: site.function.clone(), file: site.file.clone(), line: site.line });
            }
        }
        let bytes: usize = layouts.values().map(json_bytes).sum();
        if bytes > LAYOUT_BYTES_MAX {
            return Err(format!(
                "{} addresses belong to {}, and their variables take {bytes} bytes to describe (at most {LAYOUT_BYTES_MAX}): choose a line that is inlined less",
                found.len(),
                tracepoint.location
            )
            .into());
        }
        let news = self.news.clone();
        let tell = move |epoch, event| {
            let _ = news.send(News::Engine { process, epoch, event });
        };
        let options = AttachOptions {
            mechanisms: self.mechanisms,
            runtime: ProcessRuntime {
                is_go: loaded.build.facts().language == Language::Go,
                go: loaded.build.go_runtime(loaded.bias),
                is_gnu: loaded.is_gnu,
            },
            cpu_percent: self.cpu_percent,
        };
        let engine = self.engines.attach(process, self.sink.clone(), options, tell)?;
        self.publisher.forget_lost(&tracepoint.id, process);
        self.publisher.expect_calls(&tracepoint.id, process, telling);
        let code = loaded.build.code_range(loaded.bias);
        for (id, layout) in &layouts {
            self.publisher.expect_code(process, *id, CodeWords::of(layout), code.clone());
        }
        let probe = Probe { tracepoint: tracepoint.id.clone(), sites, rate_per_s: tracepoint.limits.rate_per_s };
        let outcome = engine.arm(probe).map_err(|error| error.to_string())?;
        self.engines.armed(process, tracepoint.id.clone(), job);
        Ok(Armed {
            mechanism: outcome.mechanism,
            note: [outcome.note, loaded.build.symbols_note()].into_iter().flatten().reduce(|a, b| format!("{a}; {b}")),
            sites: shown,
            layouts: layouts.into_values().map(Arc::new).collect(),
        })
    }

    /// Counts as the fleet sees them: what the engine handed over and the bus did not take is no hit.
    pub(super) fn counts(&self, counted: &Counted) -> ProbeCounts {
        let lost = self.publisher.lost_to_bus(&counted.tracepoint, counted.process);
        ProbeCounts {
            passages: counted.counts.passages,
            hits: counted.counts.hits.saturating_sub(lost),
            dropped: counted.counts.dropped.values().sum::<u64>() + lost,
            note: counted.counts.note.clone(),
            off: counted.counts.off.clone(),
            unfinished: counted.counts.unfinished,
        }
    }

    /// Counts of all probes, or of those in one process. Blocks.
    pub(super) fn count(&self, only: Option<ProcessKey>) -> Vec<(JobId, ProbeCounts)> {
        self.engines.counts(only).iter().map(|counted| (counted.job, self.counts(counted))).collect()
    }
}

fn json_bytes(layout: &Layout) -> usize {
    serde_json::to_vec(layout).map_or(0, |json| json.len())
}

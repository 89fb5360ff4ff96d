//! The publisher's task: takes hits from the queue, has them packed, and keeps one batch under way to the bus.
//!
//! It reads the clocks and moves data between [`HitQueue`], [`Packer`] and [`Outbox`], which hold all rules. It waits
//! for the bus and for debug information, never the other way round: a tracer only ever meets the queue.
//!
//! It looks into the queue when something has come into it, for as long as hits wait for the watermark, and to say the
//! watermark. Nothing of this depends on whether there are probes: the last hits of the last one may become publishable
//! long after it is gone. With nothing to do it sleeps. A watermark alone waits for no acknowledgement: the next one says
//! more, and to hear it would be to wake up.

use super::activations::Telling;
use super::bus::{Bus, BusError};
use super::frames::{FrameResolver, Frames};
use super::outbox::Outbox;
use super::pace::Pace;
use super::packer::{Packer, Source};
use super::sink::{CapturedHit, HitQueue, Taken};
use crate::clock;
use futures::future::BoxFuture;
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::decode::CodeWords;
use riptrace_protocol::ids::{Avma, BuildId, Incarnation, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::limits::{MERGE_WAIT_MS, PUBLISH_INTERVAL_MS};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// What has come into the queue may gather for so long when it was empty: it is rarely alone, and the promise that lets it
/// go follows it.
const GATHER: Duration = Duration::from_millis(5);
/// Between two looks into the queue, at least.
const INTERVAL: Duration = Duration::from_millis(PUBLISH_INTERVAL_MS);
/// How long the watermark is still said after the last probe is gone: beyond what the merge waits for its last hits.
const BEAT_TAIL: Duration = Duration::from_millis(MERGE_WAIT_MS + 1_000);
/// How long the agent waits, when it goes, for the bus to take what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// What publisher and service share: never locked across a wait.
#[derive(Debug)]
struct Core {
    packer: Packer,
    frames: Frames,
}

/// What the publisher is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// There are no probes.
    Quiet,
    /// There are probes.
    Active,
    /// Nothing more will come: publish what is left, and end.
    Finish,
}

/// The service's end.
#[derive(Debug, Clone)]
pub(crate) struct PublisherHandle {
    core: Arc<Mutex<Core>>,
    mode: watch::Sender<Mode>,
    waited_for: Arc<Notify>,
    pulse: Arc<Notify>,
}

impl PublisherHandle {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether there are probes.
    pub(crate) fn set_active(&self, active: bool) {
        let mode = if active { Mode::Active } else { Mode::Quiet };
        self.mode.send_if_modified(|current| {
            let changes = *current != mode && *current != Mode::Finish;
            if changes {
                *current = mode;
            }
            changes
        });
    }

    /// Hits of others wait for the watermark: it is said at once, and often for a while.
    pub(crate) fn is_waited_for(&self) {
        self.waited_for.notify_one();
    }

    /// Everything that is not pressing is done now.
    pub(crate) fn pulse(&self) {
        self.pulse.notify_one();
    }

    /// Publish what is left, and end.
    pub(crate) fn finish(&self) {
        self.mode.send_replace(Mode::Finish);
    }

    /// Hits of a probe that its engine counted as hits and that the bus did not take.
    pub(crate) fn lost_to_bus(&self, tracepoint: &TracepointId, process: ProcessKey) -> u64 {
        self.core().packer.lost_to_bus(tracepoint, process)
    }

    /// A probe is armed anew: its counts begin at 0.
    pub(crate) fn forget_lost(&self, tracepoint: &TracepointId, process: ProcessKey) {
        self.core().packer.forget_lost(tracepoint, process);
    }

    /// A probe is about to be armed whose hits tell which call they belong to (none do: an empty list).
    pub(crate) fn expect_calls(&self, tracepoint: &TracepointId, process: ProcessKey, telling: Vec<Telling>) {
        self.core().packer.expect_calls(tracepoint, process, telling);
    }

    /// Hits of a layout are about to come; `code` is where the process has its code.
    pub(crate) fn expect_code(&self, process: ProcessKey, layout: LayoutId, words: CodeWords, code: Range<u64>) {
        self.core().packer.expect_code(process, layout, words, code);
    }

    /// Frames used last, as many as fit in `bytes_max` of JSON.
    pub(crate) fn frames(&self, bytes_max: usize) -> Vec<FrameEntry> {
        self.core().frames.list(bytes_max)
    }

    /// A process runs another program now: its addresses mean something else.
    pub(crate) fn forget_frames(&self, process: ProcessKey) {
        let mut core = self.core();
        core.frames.forget_process(process);
        core.packer.forget_calls(process);
    }

    /// A new coordinator has heard no frames: they are sent again as they are needed.
    pub(crate) fn forget_sent_frames(&self) {
        self.core().frames.forget_sent();
    }
}

/// The task's end.
pub(crate) struct Publisher<B> {
    incarnation: Incarnation,
    queue: HitQueue,
    handle: PublisherHandle,
    mode: watch::Receiver<Mode>,
    resolver: Arc<dyn FrameResolver>,
    bus: B,
    outbox: Outbox,
    started: Instant,
    active_until: Instant,
    pace: Pace,
    /// When the queue was looked into.
    collected_at: Instant,
    /// When something came into the empty queue.
    came_at: Option<Instant>,
}

type UnderWay = BoxFuture<'static, Result<(), BusError>>;

impl<B: Bus> Publisher<B> {
    /// A publisher of `queue`; it does nothing until it runs.
    pub(crate) fn new(
        source: Source,
        message_bytes_max: usize,
        backlog_bytes_max: usize,
        queue: HitQueue,
        resolver: Arc<dyn FrameResolver>,
        bus: B,
    ) -> Publisher<B> {
        let incarnation = source.incarnation;
        let core = Core { packer: Packer::new(source, message_bytes_max), frames: Frames::default() };
        let (mode, receiver) = watch::channel(Mode::Quiet);
        let now = Instant::now();
        Publisher {
            incarnation,
            queue,
            handle: PublisherHandle {
                core: Arc::new(Mutex::new(core)),
                mode,
                waited_for: Arc::default(),
                pulse: Arc::default(),
            },
            mode: receiver,
            resolver,
            bus,
            outbox: Outbox::new(backlog_bytes_max),
            started: now,
            active_until: now,
            pace: Pace::new(now),
            collected_at: now,
            came_at: None,
        }
    }

    /// The service's end.
    pub(crate) fn handle(&self) -> PublisherHandle {
        self.handle.clone()
    }

    /// Publishes until [`PublisherHandle::finish`].
    pub(crate) async fn run(mut self) {
        let mut under_way: Option<UnderWay> = None;
        let mut was_active = false;
        let (waited_for, pulse) = (Arc::clone(&self.handle.waited_for), Arc::clone(&self.handle.pulse));
        loop {
            let mode = *self.mode.borrow_and_update();
            if mode == Mode::Finish {
                break;
            }
            self.start(&mut under_way);
            let now = Instant::now();
            if mode == Mode::Active || was_active {
                self.active_until = now + BEAT_TAIL;
            }
            was_active = mode == Mode::Active;
            let retry_at = self.retry_at();
            let collect_at = self.collect_at(now);
            tokio::select! {
                result = ended(&mut under_way) => self.finish_try(&mut under_way, result),
                () = reached(collect_at) => self.collect().await,
                () = self.queue.came() => {
                    let came_at = Instant::now();
                    self.came_at = Some(came_at);
                    self.pace.busy(came_at);
                }
                () = waited_for.notified() => self.pace.hurry(Instant::now()),
                () = pulse.notified() => self.pace.pulse(Instant::now()),
                () = reached(retry_at) => {}
                changed = self.mode.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        self.flush(under_way).await;
    }

    /// When the queue is to be looked into next; `None`: when something comes.
    fn collect_at(&self, now: Instant) -> Option<Instant> {
        let came = self.came_at.map(|at| at + GATHER);
        let holds = self.holds().then_some(self.collected_at);
        let beats = self.pace.due_at().filter(|_| now < self.active_until && self.outbox.is_empty());
        let next = came.into_iter().chain(holds).chain(beats).min()?;
        Some(next.max(self.collected_at + INTERVAL))
    }

    /// Whether hits wait for the watermark, or something did not find room in the outbox.
    fn holds(&self) -> bool {
        let core = self.handle.core();
        core.packer.is_waiting() || core.packer.has_work()
    }

    /// Publishes what is left, within a time.
    async fn flush(&mut self, mut under_way: Option<UnderWay>) {
        self.pace.hurry(Instant::now());
        self.collect().await;
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        loop {
            // Drop counts of a full outbox travel once there is room.
            self.pack();
            let holds = self.holds();
            if self.outbox.is_empty() && !holds {
                return;
            }
            self.start(&mut under_way);
            let retry_at = self.retry_at();
            let collect_at = holds.then_some(self.collected_at + INTERVAL);
            tokio::select! {
                result = ended(&mut under_way) => self.finish_try(&mut under_way, result),
                () = reached(retry_at) => {}
                // The watermark goes on: what waits for it is let go.
                () = reached(collect_at) => self.collect().await,
                () = sleep_until(deadline) => {
                    let (batches, bytes) = self.outbox.waiting();
                    tracing::warn!(batches, bytes, "the agent ends before NATS took its last hits");
                    return;
                }
            }
        }
    }

    /// From the queue into the outbox.
    async fn collect(&mut self) {
        // What comes while this goes on is news again.
        (self.came_at, self.collected_at) = (None, Instant::now());
        let taken = self.queue.take(clock::domain_now_ns);
        let taken = self.unwind(taken).await;
        let unknown = {
            let mut core = self.handle.core();
            core.packer.accept(taken);
            if self.outbox.is_full() { Default::default() } else { core.frames.unknown(core.packer.stacks()) }
        };
        if !unknown.is_empty() {
            self.resolve(unknown).await;
        }
        self.pack();
    }

    /// Finds the callers of hits that brought a copy of their stack along.
    async fn unwind(&self, mut taken: Taken) -> Taken {
        let has_memory = |hit: &CapturedHit| hit.captured.stack_memory.is_some();
        if !taken.hits.iter().any(has_memory) {
            return taken;
        }
        let weight = |hits: &[CapturedHit]| hits.iter().map(CapturedHit::weight).sum::<usize>();
        let before = weight(&taken.hits);
        // Shared, so that a defect in there costs frames, not hits.
        let shared = Arc::new(Mutex::new(std::mem::take(&mut taken.hits)));
        let (resolver, hits) = (Arc::clone(&self.resolver), Arc::clone(&shared));
        let unwound = tokio::task::spawn_blocking(move || {
            resolver.unwind(&mut hits.lock().unwrap_or_else(PoisonError::into_inner));
        });
        if let Err(error) = unwound.await {
            tracing::error!(%error, "stacks could not be unwound: hits arrive without their callers");
        }
        taken.hits = std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
        taken.hits.iter_mut().for_each(|hit| hit.captured.stack_memory = None);
        self.queue.release(0, before.saturating_sub(weight(&taken.hits)));
        taken
    }

    /// Finds out what program counters stand for; nothing is known of those of which nothing is heard.
    async fn resolve(&self, unknown: BTreeMap<ProcessKey, Vec<Avma>>) {
        let mut nothing: BTreeMap<(ProcessKey, Avma), FrameEntry> = BTreeMap::new();
        for (&process, pcs) in &unknown {
            nothing.extend(pcs.iter().map(|&pc| {
                ((process, pc), FrameEntry { build: BuildId(String::new()), process, pc, frames: Vec::new() })
            }));
        }
        let resolver = Arc::clone(&self.resolver);
        let resolved = tokio::task::spawn_blocking(move || {
            unknown.into_iter().flat_map(|(process, pcs)| resolver.resolve(process, &pcs)).collect()
        });
        let entries: Vec<FrameEntry> = resolved.await.unwrap_or_else(|error| {
            tracing::error!(%error, "frames could not be resolved: stacks arrive without names");
            Vec::new()
        });
        entries.iter().for_each(|entry| {
            nothing.remove(&(entry.process, entry.pc));
        });
        let mut core = self.handle.core();
        core.frames.learn(entries);
        core.frames.learn(nothing.into_values().collect());
    }

    /// From the packer into the outbox, as far as there is room; what there is no room for is dropped and counted.
    fn pack(&mut self) {
        let now = Instant::now();
        let mut guard = self.handle.core();
        let core = &mut *guard;
        let speaks = now < self.active_until || core.packer.is_waiting();
        while !self.outbox.is_full() {
            let Some(packed) = core.packer.pack(&mut core.frames) else { break };
            self.outbox.push(packed);
            self.pace.said(now);
        }
        // Behind batches that were not acknowledged it would arrive before them.
        if speaks
            && self.pace.is_due(now)
            && self.outbox.is_empty()
            && let Some(watermark) = core.packer.watermark()
        {
            self.bus.tell(watermark);
            self.pace.said(now);
        }
        if self.outbox.is_full() {
            core.packer.drop_ready();
        }
        let released = core.packer.take_released();
        drop(guard);
        self.queue.release(released.hits, released.bytes);
    }

    fn start(&mut self, under_way: &mut Option<UnderWay>) {
        if under_way.is_none()
            && let Some((number, bytes)) = self.outbox.start(self.started.elapsed())
        {
            let message_id = format!("{}-{number}", self.incarnation.0);
            *under_way = Some(self.bus.publish(message_id, bytes));
        }
    }

    fn finish_try(&mut self, under_way: &mut Option<UnderWay>, result: Result<(), BusError>) {
        *under_way = None;
        match result {
            Ok(()) => {
                if !self.outbox.is_flowing() {
                    tracing::info!("NATS takes hits again");
                }
                self.outbox.acknowledged();
            }
            Err(error) => {
                if self.outbox.failed(self.started.elapsed()) {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        self.outbox.due_at().map(|due| self.started + due)
    }
}

/// Ends at `instant`; never, when there is none. What is due takes no timer: one of the runtime ends a millisecond later.
async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) if instant <= Instant::now() => {}
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Ends when the try that is under way does; never, when there is none.
async fn ended(under_way: &mut Option<UnderWay>) -> Result<(), BusError> {
    match under_way {
        Some(publish) => publish.await,
        None => std::future::pending().await,
    }
}

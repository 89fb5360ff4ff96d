//! The way from the tracers to the publisher: a bounded queue of hits, the counts of what did not fit, and the marks
//! by which the publisher knows that nothing older is still to come.
//!
//! A tracer is one thread that captures hits of one process. It never waits here: a full queue is a counted drop.
//!
//! The watermark rule. A tracer says [`HitSink::begin`] *before* it reads the clock, and [`Begun::stamp`] with what it
//! read; when it is done with the passage it drops the guard. The publisher reads the clock first and looks at the
//! tracers afterwards:
//!
//! ```text
//! tracer:     idle --begin--> busy --clock, stamp(t)--> at t --hits into the queue--> idle
//! publisher:  T = clock; for each tracer: idle => T, busy => the watermark before, at t => t; the least of all;
//!             only then it takes what is in the queue
//! ```
//!
//! A tracer seen idle reads the clock after T; one seen at `t` has its hits at `t` or later; of one seen busy nothing
//! new is known. So no hit older than the least of these is still to come. All of these accesses are sequentially
//! consistent: the rule is an argument over their single order.
//!
//! A tracer that hands over what happened some time ago, as the reader of a process's rings does, has no passage to mark.
//! It promises instead, with [`HitSink::promise`], and its mark stays where the last promise was:
//!
//! ```text
//! tracer:     at p --hits at p or later into the queue--> promise(q): at q --hits at q or later into the queue--> ..
//! publisher:  T = clock; at p => p; the least of all; only then it takes what is in the queue
//! ```
//!
//! A tracer seen at `p` has its hits before `p` in the queue already, for they went there before the promise was made;
//! whatever it hands over afterwards is at `p` or later, which [`HitSink::submit_all`] makes sure of. So the watermark
//! holds for these as well.

use crate::capture::interpreter::{Captured, StackMemory};
use riptrace_protocol::hit::{Chunk, DropReason, RawDrop};
use riptrace_protocol::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Hits between tracers and publisher, at most: two seconds of what the fastest tracer can capture.
pub const QUEUE_HITS_MAX: usize = 65_536;
/// Bytes of hits between tracers and publisher, at most: what an agent may cost its host in memory.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Two CPUs that read the clock at one instant agree within this, in nanoseconds. None was ever seen to differ; it also
/// covers that a CPU may look at a tracer's mark a little before the clock read in front of it is over.
const CLOCK_READ_SLACK_NS: u64 = 1_000;

const IDLE: u64 = 0;
const BUSY: u64 = 1;

/// A hit as a tracer captured it: not numbered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedHit {
    /// Which tracepoint.
    pub tracepoint: TracepointId,
    /// Which process.
    pub process: ProcessKey,
    /// How to read it.
    pub layout: LayoutId,
    /// Domain time of the passage, as given to [`Begun::stamp`], in nanoseconds.
    pub time_ns: u64,
    /// Thread id as the host sees it.
    pub thread: u32,
    /// What was captured.
    pub captured: Captured,
}

impl CapturedHit {
    /// What it costs in memory, in bytes, within a few words.
    pub fn weight(&self) -> usize {
        let captured = &self.captured;
        let chunks: usize = captured.chunks.iter().map(|chunk| mem::size_of::<Chunk>() + chunk.bytes.len()).sum();
        mem::size_of::<CapturedHit>()
            + captured.roots.len()
            + mem::size_of_val(captured.root_states.as_slice())
            + chunks
            + captured.stack.len() * mem::size_of::<Avma>()
            + captured.stack_memory.as_ref().map_or(0, |stack| mem::size_of::<StackMemory>() + stack.bytes.len())
    }
}

/// The queue was full: the hit is counted as [`DropReason::Queue`] and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue between engine and publisher is full: the hit is counted as dropped")]
pub struct QueueFull;

/// How many hits and bytes the queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Hits.
    pub hits: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { hits: QUEUE_HITS_MAX, bytes: QUEUE_BYTES_MAX }
    }
}

/// What was dropped, by tracepoint, process and reason.
#[derive(Debug, Default)]
pub(crate) struct DropCounts(BTreeMap<(TracepointId, ProcessKey, DropReason), u64>);

impl DropCounts {
    pub(crate) fn add(&mut self, tracepoint: &TracepointId, process: ProcessKey, reason: DropReason, count: u64) {
        if count > 0 {
            let sum = self.0.entry((tracepoint.clone(), process, reason)).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    pub(crate) fn add_all(&mut self, drops: impl IntoIterator<Item = RawDrop>) {
        for drop in drops {
            self.add(&drop.tracepoint, drop.process, drop.reason, drop.count);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<RawDrop> {
        let counted = mem::take(&mut self.0);
        counted
            .into_iter()
            .map(|((tracepoint, process, reason), count)| RawDrop { tracepoint, process, reason, count })
            .collect()
    }
}

#[derive(Debug, Default)]
struct Contents {
    hits: Vec<CapturedHit>,
    drops: DropCounts,
    /// Hits and bytes that were submitted and not yet released: in `hits`, or taken by the publisher and not yet
    /// packed. A stalled watermark therefore fills the queue, not the memory of the host.
    held_hits: usize,
    held_bytes: usize,
}

impl Contents {
    /// Whether there is nothing that the publisher has not taken.
    fn is_empty(&self) -> bool {
        self.hits.is_empty() && self.drops.is_empty()
    }
}

#[derive(Debug)]
struct Shared {
    limits: QueueLimits,
    contents: Mutex<Contents>,
    /// Told when something comes into an empty queue. A tracer does not wait for whoever hears it.
    news: Notify,
    /// One mark per tracer: IDLE, BUSY, or the time of the passage it works on.
    tracers: Mutex<Vec<Arc<AtomicU64>>>,
}

/// Neither a panic of a tracer nor one of the publisher leaves the queue in a state that others could not go on with.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The publisher's end.
#[derive(Debug)]
pub struct HitQueue {
    shared: Arc<Shared>,
    /// The watermark before: what is known of a tracer that is busy.
    watermark_ns: u64,
}

/// What [`HitQueue::take`] found.
#[derive(Debug)]
pub(crate) struct Taken {
    /// No hit older than this is still to come, neither here nor later.
    pub(crate) watermark_ns: u64,
    /// Hits in the order of submission.
    pub(crate) hits: Vec<CapturedHit>,
    /// What was dropped since the last time.
    pub(crate) drops: Vec<RawDrop>,
    /// The clock after these were taken: none of the drops is later.
    pub(crate) now_ns: u64,
}

impl HitQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> HitQueue {
        let shared = Shared { limits, contents: Mutex::default(), news: Notify::new(), tracers: Mutex::default() };
        HitQueue { shared: Arc::new(shared), watermark_ns: 0 }
    }

    /// A sink to make further ones of: one per tracer.
    pub fn sink(&self) -> HitSink {
        HitSink::register(&self.shared)
    }

    /// Reads the clock, then the tracers, then takes what is there. The hits keep counting towards the queue's limits
    /// until [`HitQueue::release`].
    pub(crate) fn take(&mut self, domain_now_ns: impl Fn() -> u64) -> Taken {
        {
            // A tracer that registers while the lock is held has its first passage after this clock read; one that
            // registers between two scans has it after the watermark of the first.
            let tracers = lock(&self.shared.tracers);
            let now_ns = domain_now_ns().saturating_sub(CLOCK_READ_SLACK_NS);
            fence(Ordering::SeqCst);
            let least = tracers.iter().fold(now_ns, |least, tracer| match tracer.load(Ordering::SeqCst) {
                IDLE => least,
                BUSY => least.min(self.watermark_ns),
                stamped_ns => least.min(stamped_ns),
            });
            self.watermark_ns = self.watermark_ns.max(least);
        }
        let mut contents = lock(&self.shared.contents);
        let hits = mem::take(&mut contents.hits);
        let drops = contents.drops.take();
        let now_ns = domain_now_ns().saturating_add(CLOCK_READ_SLACK_NS);
        Taken { watermark_ns: self.watermark_ns, hits, drops, now_ns }
    }

    /// Ends once something has come into the empty queue since [`HitQueue::take`].
    pub(crate) async fn came(&self) {
        self.shared.news.notified().await;
    }

    /// Takes what is there and forgets it, as a publisher without a bus would, and says how many hits that were: to
    /// measure what is in front of the queue.
    pub fn discard(&mut self) -> usize {
        let taken = self.take(crate::clock::domain_now_ns);
        self.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        taken.hits.len()
    }

    /// Takes what is there, in the order of submission, as a publisher without a bus would: for who reads hits where
    /// they were captured.
    pub fn drain(&mut self) -> Vec<CapturedHit> {
        let taken = self.take(crate::clock::domain_now_ns);
        self.release(taken.hits.len(), taken.hits.iter().map(CapturedHit::weight).sum());
        taken.hits
    }

    /// Makes room: hits that were taken are packed or dropped now.
    pub(crate) fn release(&self, hits: usize, bytes: usize) {
        let mut contents = lock(&self.shared.contents);
        contents.held_hits = contents.held_hits.saturating_sub(hits);
        contents.held_bytes = contents.held_bytes.saturating_sub(bytes);
    }
}

/// A tracer's end: one per thread that captures. A clone is a further tracer with its own mark.
#[derive(Debug)]
pub struct HitSink {
    shared: Arc<Shared>,
    mark: Arc<AtomicU64>,
}

impl HitSink {
    fn register(shared: &Arc<Shared>) -> HitSink {
        let mark = Arc::new(AtomicU64::new(IDLE));
        lock(&shared.tracers).push(Arc::clone(&mark));
        HitSink { shared: Arc::clone(shared), mark }
    }

    /// A passage begins: to be called before the clock is read for it.
    pub fn begin(&mut self) -> Begun<'_> {
        self.mark.store(BUSY, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Begun { passage: InProgress { sink: self, time_ns: 0 } }
    }

    /// Says that all hits before this domain time, in nanoseconds, were handed over: none older will be. From the first
    /// promise on the watermark waits for the next one; a tracer that ends drops its sink. A promise is never taken back:
    /// an earlier time than the last changes nothing.
    pub fn promise(&mut self, time_ns: u64) {
        // The two lowest values are marks; a clock that reads them is at boot.
        let promised_ns = self.mark.load(Ordering::SeqCst).max(time_ns).max(BUSY + 1);
        self.mark.store(promised_ns, Ordering::SeqCst);
    }

    /// Hands over hits that carry their own times. Never waits: what does not fit in the queue is counted as dropped
    /// ([`DropReason::Queue`]), and so is a hit before the last promise ([`DropReason::Capture`]): its place in the order
    /// is taken. `refused` hears of each of these; `hits` is empty afterwards.
    pub fn submit_all(&mut self, hits: &mut Vec<CapturedHit>, mut refused: impl FnMut(&CapturedHit, DropReason)) {
        if hits.is_empty() {
            return;
        }
        let promised_ns = self.mark.load(Ordering::SeqCst);
        let limits = self.shared.limits;
        let mut contents = lock(&self.shared.contents);
        let was_empty = contents.is_empty();
        for hit in hits.drain(..) {
            let weight = hit.weight();
            let fits = contents.held_hits < limits.hits && contents.held_bytes + weight <= limits.bytes;
            let reason = match (hit.time_ns < promised_ns, fits) {
                (true, _) => DropReason::Capture,
                (false, false) => DropReason::Queue,
                (false, true) => {
                    contents.held_hits += 1;
                    contents.held_bytes += weight;
                    contents.hits.push(hit);
                    continue;
                }
            };
            contents.drops.add(&hit.tracepoint, hit.process, reason, 1);
            refused(&hit, reason);
        }
        drop(contents);
        if was_empty {
            self.shared.news.notify_one();
        }
    }

    /// Counts passages that did not become hits. They travel with the next batch.
    pub fn count_dropped(&self, tracepoint: &TracepointId, process: ProcessKey, reason: DropReason, count: u64) {
        let mut contents = lock(&self.shared.contents);
        let was_empty = contents.is_empty();
        contents.drops.add(tracepoint, process, reason, count);
        drop(contents);
        if was_empty {
            self.shared.news.notify_one();
        }
    }
}

impl Clone for HitSink {
    fn clone(&self) -> Self {
        HitSink::register(&self.shared)
    }
}

impl Drop for HitSink {
    fn drop(&mut self) {
        lock(&self.shared.tracers).retain(|mark| !Arc::ptr_eq(mark, &self.mark));
    }
}

/// A passage whose time is not read yet. While it lives, the watermark stands still.
#[derive(Debug)]
pub struct Begun<'a> {
    passage: InProgress<'a>,
}

impl<'a> Begun<'a> {
    /// Says when the passage is: [`crate::clock::domain_now_ns`], read after [`HitSink::begin`].
    pub fn stamp(mut self, now_ns: u64) -> InProgress<'a> {
        // The two lowest values are marks; a clock that reads them is at boot.
        self.passage.time_ns = now_ns.max(BUSY + 1);
        self.passage.sink.mark.store(self.passage.time_ns, Ordering::SeqCst);
        self.passage
    }
}

/// A passage that is being captured. While it lives, the watermark stays at its time or before.
#[derive(Debug)]
pub struct InProgress<'a> {
    sink: &'a mut HitSink,
    time_ns: u64,
}

impl InProgress<'_> {
    /// Domain time of the passage, in nanoseconds.
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// Hands a hit of this passage over; its time becomes the passage's. Never waits: a full queue counts the hit as
    /// dropped ([`DropReason::Queue`]) and says so.
    pub fn submit(&mut self, mut hit: CapturedHit) -> Result<(), QueueFull> {
        hit.time_ns = self.time_ns;
        let weight = hit.weight();
        let limits = self.sink.shared.limits;
        let mut contents = lock(&self.sink.shared.contents);
        let was_empty = contents.is_empty();
        let fits = contents.held_hits < limits.hits && contents.held_bytes + weight <= limits.bytes;
        if fits {
            contents.held_hits += 1;
            contents.held_bytes += weight;
            contents.hits.push(hit);
        } else {
            contents.drops.add(&hit.tracepoint, hit.process, DropReason::Queue, 1);
        }
        drop(contents);
        if was_empty {
            self.sink.shared.news.notify_one();
        }
        if fits { Ok(()) } else { Err(QueueFull) }
    }

    /// As [`HitSink::count_dropped`].
    pub fn count_dropped(&self, tracepoint: &TracepointId, process: ProcessKey, reason: DropReason, count: u64) {
        self.sink.count_dropped(tracepoint, process, reason, count);
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.sink.mark.store(IDLE, Ordering::SeqCst);
    }
}

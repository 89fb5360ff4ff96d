//! The ordered hits themselves, packed.
//!
//! ```text
//!  segments  [head head head ..][body bytes body bytes ..]   [head ..][..]      oldest first
//!  shared    origins (host, process, service), tracepoints, layouts, call stacks: once each
//! ```
//! A *head* is what a search looks at: number, time, who, which tracepoint. A *body* is all the rest, encoded; it is
//! decoded where somebody looks at the hit. A hit of five values takes about 250 bytes this way, and a search that
//! needs no values goes over half a million heads in milliseconds.
//!
//! Invariants: `seq` strictly increases from front to back; `bytes` is the sum of the kept hits' sizes; a hit that was
//! handed out stays valid after it has left the timeline; what is handed out equals what was pushed.

use super::intern::Shared;
use riptrace_protocol::hit::{Chunk, RawHit, RootState, StackEnd};
use riptrace_protocol::ids::{Avma, HostName, LayoutId, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::stream::OrderedHit;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Hits in one segment, at most. Memory is given back a segment at a time.
const SEGMENT_HITS_MAX: usize = 1024;
/// Bytes of bodies in one segment, about, at most: a segment of large hits is closed early.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024;

/// How much a timeline keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineLimits {
    /// Hits.
    pub hits: usize,
    /// Memory of the hits, in bytes.
    pub bytes: usize,
}

impl Default for TimelineLimits {
    /// 500,000 hits and 224 MiB: with all else that an adapter holds, below 300 MB.
    fn default() -> Self {
        TimelineLimits { hits: 500_000, bytes: 224 * 1024 * 1024 }
    }
}

/// Where hits come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Host.
    pub host: HostName,
    /// Process.
    pub process: ProcessKey,
    /// Its service.
    pub service: String,
}

/// Who made a hit: a goroutine, or where there is none, a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runner {
    /// A goroutine, by its id.
    Goroutine(u64),
    /// A thread, by its id on its host.
    Thread(u32),
}

/// What a search looks at.
#[derive(Debug, Clone, Copy)]
struct Head {
    seq: u64,
    time_ns: i64,
    uncertainty_ns: u64,
    goroutine: u64,
    correlation: u64,
    thread: u32,
    origin: u32,
    tracepoint: u32,
    layout: u32,
    stack: u32,
    body_at: u32,
    has_goroutine: bool,
    /// Numbers of the hits of the same runner in front of this one and behind it; 0 where there is none.
    before: u64,
    after: u64,
}

impl Head {
    fn runner(&self) -> Runner {
        if self.has_goroutine { Runner::Goroutine(self.goroutine) } else { Runner::Thread(self.thread) }
    }
}

/// The rest of a hit, borrowed for writing.
#[derive(Serialize)]
struct BodyOut<'a> {
    number: u64,
    time_ns: u64,
    roots: &'a [u8],
    root_states: &'a [RootState],
    chunks: &'a [Chunk],
    stack_end: StackEnd,
    duration_ns: Option<u64>,
    undetermined_with: &'a [u64],
    late: bool,
}

/// The rest of a hit, as it is read back: the same fields in the same order.
#[derive(Deserialize)]
struct BodyIn {
    number: u64,
    time_ns: u64,
    roots: Vec<u8>,
    root_states: Vec<RootState>,
    chunks: Vec<Chunk>,
    stack_end: StackEnd,
    duration_ns: Option<u64>,
    undetermined_with: Vec<u64>,
    late: bool,
}

#[derive(Debug, Default)]
struct Segment {
    heads: VecDeque<Head>,
    bodies: Vec<u8>,
}

impl Segment {
    fn is_full(&self) -> bool {
        self.heads.len() >= SEGMENT_HITS_MAX || self.bodies.len() >= SEGMENT_BYTES_MAX
    }

    /// End of the body of the head at `index`.
    fn body_end(&self, index: usize) -> usize {
        self.heads.get(index + 1).map_or(self.bodies.len(), |next| next.body_at as usize)
    }

    /// What the hit at `index` occupies, in bytes.
    fn hit_bytes(&self, index: usize) -> usize {
        let body = self.heads.get(index).map_or(0, |head| self.body_end(index) - head.body_at as usize);
        body + size_of::<Head>()
    }
}

/// The ordered hits of a session.
#[derive(Debug, Default)]
pub struct Timeline {
    limits: TimelineLimits,
    segments: VecDeque<Segment>,
    origins: Shared<Origin>,
    tracepoints: Shared<TracepointId>,
    layouts: Shared<LayoutId>,
    stacks: Shared<[Avma]>,
    /// The newest hit of each runner, so that its hits are a chain.
    newest_of: HashMap<(u32, Runner), u64>,
    len: usize,
    bytes: usize,
    evicted: u64,
}

/// A hit as far as its head tells.
#[derive(Clone, Copy)]
pub struct Glance<'a> {
    head: &'a Head,
    timeline: &'a Timeline,
    segment: usize,
    index: usize,
}

/// For each tracepoint, whether it is meant: made once before a search.
#[derive(Debug, Clone, Default)]
pub struct Marks(Vec<bool>);

impl Marks {
    fn holds(&self, number: u32) -> bool {
        self.0.get(number as usize).copied().unwrap_or(false)
    }
}

impl<'a> Glance<'a> {
    /// Place in the session's order.
    pub fn seq(&self) -> u64 {
        self.head.seq
    }

    /// Coordinated time, unix nanoseconds.
    pub fn time_ns(&self) -> i64 {
        self.head.time_ns
    }

    /// Coordinated time is off by at most this, in nanoseconds.
    pub fn uncertainty_ns(&self) -> u64 {
        self.head.uncertainty_ns
    }

    /// Where it comes from.
    pub fn origin(&self) -> Option<&'a Origin> {
        self.timeline.origins.get(self.head.origin).map(AsRef::as_ref)
    }

    /// Which tracepoint's it is.
    pub fn tracepoint(&self) -> Option<&'a TracepointId> {
        self.timeline.tracepoints.get(self.head.tracepoint).map(AsRef::as_ref)
    }

    /// Who made it.
    pub fn runner(&self) -> Runner {
        self.head.runner()
    }

    /// Thread id.
    pub fn thread(&self) -> u32 {
        self.head.thread
    }

    /// Goroutine id.
    pub fn goroutine(&self) -> Option<u64> {
        self.head.has_goroutine.then_some(self.head.goroutine)
    }

    /// Hash of the key that it shares with other hits of its request; 0 where it has none.
    pub fn correlation(&self) -> u64 {
        self.head.correlation
    }

    /// Whether its tracepoint is marked.
    pub fn is_of(&self, tracepoints: &Marks) -> bool {
        tracepoints.holds(self.head.tracepoint)
    }

    /// Whether its origin is marked.
    pub fn is_from(&self, origins: &Marks) -> bool {
        origins.holds(self.head.origin)
    }

    /// The hit itself.
    pub fn whole(&self) -> Option<Arc<OrderedHit>> {
        self.timeline.decode(self.segment, self.index)
    }
}

impl Timeline {
    /// Keeps no more than `limits` says, but at least the newest hit.
    pub fn new(limits: TimelineLimits) -> Timeline {
        Timeline { limits, ..Timeline::default() }
    }

    /// Appends a hit and returns the numbers of those that made room for it. `correlation` is the hash of what it shares
    /// with other hits of its request (0: nothing). A hit that is not behind the newest (a stream that was read again
    /// from before) is refused: what was shown is not changed.
    pub fn push(&mut self, hit: &OrderedHit, correlation: u64) -> Option<Vec<u64>> {
        if self.newest_seq().is_some_and(|newest| newest >= hit.seq) {
            return None;
        }
        if self.segments.back().is_none_or(Segment::is_full) {
            self.segments.push_back(Segment::default());
        }
        let raw = &hit.raw;
        let body = BodyOut {
            number: raw.number,
            time_ns: raw.time_ns,
            roots: &raw.roots,
            root_states: &raw.root_states,
            chunks: &raw.chunks,
            stack_end: raw.stack_end,
            duration_ns: raw.duration_ns,
            undetermined_with: &hit.undetermined_with,
            late: hit.late,
        };
        // Plain data without maps: it can always be written.
        let body = postcard::to_stdvec(&body).ok()?;
        let origin = Origin { host: hit.host.clone(), process: raw.process, service: hit.service.clone() };
        let origin = self.origins.take_made(origin);
        let before = self.newest_of.insert((origin, Runner::of(hit)), hit.seq).unwrap_or(0);
        if let Some(head) = self.head_mut(before) {
            head.after = hit.seq;
        }
        let segment = self.segments.back_mut()?;
        segment.heads.push_back(Head {
            seq: hit.seq,
            time_ns: hit.time_ns,
            uncertainty_ns: hit.uncertainty_ns,
            goroutine: raw.goroutine.unwrap_or(0),
            correlation,
            thread: raw.thread,
            origin,
            tracepoint: self.tracepoints.take_made(raw.tracepoint.clone()),
            layout: self.layouts.take_made(raw.layout),
            stack: self.stacks.take(raw.stack.as_slice()),
            // A segment is full long before 4 GiB.
            body_at: segment.bodies.len() as u32,
            has_goroutine: raw.goroutine.is_some(),
            before,
            after: 0,
        });
        segment.bodies.extend_from_slice(&body);
        if segment.is_full() {
            segment.heads.shrink_to_fit();
            segment.bodies.shrink_to_fit();
        }
        self.len += 1;
        self.bytes += body.len() + size_of::<Head>();
        let mut evicted = Vec::new();
        while self.len > 1 && (self.len > self.limits.hits || self.bytes > self.limits.bytes) {
            evicted.extend(self.evict());
        }
        Some(evicted)
    }

    /// Forgets the oldest hit.
    fn evict(&mut self) -> Option<u64> {
        let segment = self.segments.front_mut()?;
        let bytes = segment.hit_bytes(0);
        let head = segment.heads.pop_front()?;
        if segment.heads.is_empty() {
            self.segments.pop_front();
        }
        self.bytes -= bytes;
        self.len -= 1;
        self.evicted += 1;
        let runner = head.runner();
        if self.newest_of.get(&(head.origin, runner)) == Some(&head.seq) {
            self.newest_of.remove(&(head.origin, runner));
        }
        self.origins.release(head.origin);
        self.tracepoints.release(head.tracepoint);
        self.layouts.release(head.layout);
        self.stacks.release(head.stack);
        Some(head.seq)
    }

    fn decode(&self, segment: usize, index: usize) -> Option<Arc<OrderedHit>> {
        let segment = self.segments.get(segment)?;
        let head = segment.heads.get(index)?;
        let bytes = segment.bodies.get(head.body_at as usize..segment.body_end(index))?;
        // Written by `push` from the same fields: it reads back.
        let body: BodyIn = postcard::from_bytes(bytes).ok()?;
        let origin = self.origins.get(head.origin)?;
        Some(Arc::new(OrderedHit {
            seq: head.seq,
            time_ns: head.time_ns,
            uncertainty_ns: head.uncertainty_ns,
            host: origin.host.clone(),
            service: origin.service.clone(),
            undetermined_with: body.undetermined_with,
            late: body.late,
            raw: RawHit {
                number: body.number,
                tracepoint: self.tracepoints.get(head.tracepoint)?.as_ref().clone(),
                process: origin.process,
                layout: **self.layouts.get(head.layout)?,
                time_ns: body.time_ns,
                thread: head.thread,
                goroutine: head.has_goroutine.then_some(head.goroutine),
                roots: body.roots,
                root_states: body.root_states,
                chunks: body.chunks,
                stack: self.stacks.get(head.stack)?.to_vec(),
                stack_end: body.stack_end,
                duration_ns: body.duration_ns,
            },
        }))
    }

    fn head_mut(&mut self, seq: u64) -> Option<&mut Head> {
        let (segment, index) = self.find(seq);
        self.segments.get_mut(segment)?.heads.get_mut(index).filter(|head| head.seq == seq)
    }

    /// The next, or the previous, hit of who made the hit of this number; at once, however far away it is.
    pub fn neighbour(&self, seq: u64, forward: bool) -> Option<Arc<OrderedHit>> {
        let head = self.glance(seq)?.head;
        self.get(if forward { head.after } else { head.before })
    }

    /// Segment and index of the first hit whose number is at least `seq`.
    fn find(&self, seq: u64) -> (usize, usize) {
        let is_before = |segment: &Segment| segment.heads.back().is_some_and(|newest| newest.seq < seq);
        let at = self.segments.partition_point(is_before);
        let index = self.segments.get(at).map_or(0, |segment| segment.heads.partition_point(|head| head.seq < seq));
        (at, index)
    }

    /// The hit of this number, as far as its head tells.
    pub fn glance(&self, seq: u64) -> Option<Glance<'_>> {
        self.from(seq).next().filter(|hit| hit.seq() == seq)
    }

    /// The hit of this number.
    pub fn get(&self, seq: u64) -> Option<Arc<OrderedHit>> {
        self.glance(seq)?.whole()
    }

    /// Hits from `seq` on, oldest first.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = Glance<'_>> {
        let (first, skipped) = self.find(seq);
        (first..self.segments.len()).flat_map(move |at| {
            let segment = &self.segments[at];
            let from = if at == first { skipped } else { 0 };
            (from..segment.heads.len()).map(move |index| Glance {
                head: &segment.heads[index],
                timeline: self,
                segment: at,
                index,
            })
        })
    }

    /// Hits in front of `seq`, newest first.
    pub fn before(&self, seq: u64) -> impl Iterator<Item = Glance<'_>> {
        let (last, kept) = self.find(seq);
        let segments = if last < self.segments.len() { last + 1 } else { self.segments.len() };
        (0..segments).rev().flat_map(move |at| {
            let segment = &self.segments[at];
            let to = if at == last { kept } else { segment.heads.len() };
            (0..to).rev().map(move |index| Glance { head: &segment.heads[index], timeline: self, segment: at, index })
        })
    }

    /// The first hit behind `seq` for which `wanted` holds.
    pub fn next(&self, seq: u64, wanted: impl Fn(&Glance<'_>) -> bool) -> Option<Arc<OrderedHit>> {
        self.from(seq.saturating_add(1)).find(|hit| wanted(hit))?.whole()
    }

    /// The last hit in front of `seq` for which `wanted` holds.
    pub fn previous(&self, seq: u64, wanted: impl Fn(&Glance<'_>) -> bool) -> Option<Arc<OrderedHit>> {
        self.before(seq).find(|hit| wanted(hit))?.whole()
    }

    /// The newest hit.
    pub fn newest(&self) -> Option<Arc<OrderedHit>> {
        self.before(u64::MAX).next()?.whole()
    }

    /// Number of the newest hit.
    pub fn newest_seq(&self) -> Option<u64> {
        Some(self.segments.back()?.heads.back()?.seq)
    }

    /// Number of the oldest hit that is kept.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.segments.front()?.heads.front()?.seq)
    }

    /// Marks the tracepoints for which `wanted` holds.
    pub fn mark_tracepoints(&self, wanted: impl Fn(&TracepointId) -> bool) -> Marks {
        Marks(self.tracepoints.marks(wanted))
    }

    /// Marks the origins for which `wanted` holds.
    pub fn mark_origins(&self, wanted: impl Fn(&Origin) -> bool) -> Marks {
        Marks(self.origins.marks(wanted))
    }

    /// Earliest and latest coordinated time of the hits that are kept, unix nanoseconds.
    pub fn span_ns(&self) -> Option<(i64, i64)> {
        let mut times = self.from(0).map(|hit| hit.time_ns());
        let first = times.next()?;
        Some(times.fold((first, first), |(min, max), time| (min.min(time), max.max(time))))
    }

    /// What the hits occupy, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many hits are kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no hit is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many hits have made room for newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets all hits.
    pub fn clear(&mut self) {
        *self = Timeline::new(self.limits);
    }
}

impl Origin {
    /// The process over the whole fleet.
    pub fn process_id(&self) -> ProcessId {
        ProcessId { host: self.host.clone(), key: self.process }
    }

    /// Where a hit comes from.
    pub fn of(hit: &OrderedHit) -> Origin {
        Origin { host: hit.host.clone(), process: hit.raw.process, service: hit.service.clone() }
    }
}

impl Runner {
    /// Who made a hit.
    pub fn of(hit: &OrderedHit) -> Runner {
        hit.raw.goroutine.map_or(Runner::Thread(hit.raw.thread), Runner::Goroutine)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

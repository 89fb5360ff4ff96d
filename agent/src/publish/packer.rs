//! From captured hits to encoded batches: sorted, numbered, split, and with what was dropped. Pure.
//!
//! Invariants
//! - Hits are numbered from 0 without gaps, in the order of domain time, as far as the watermark allows; what is not
//!   packed gets no number.
//! - Each hit that comes in is packed, waits for the watermark, or is counted as dropped; a drop count stays here until
//!   it is in a batch.
//! - A batch is never larger than a message may be.

use super::activations::{Activations, Telling};
use super::frames::{Frames, wire_bytes};
use super::recent::Recent;
use super::sink::{CapturedHit, DropCounts, Taken};
use bytes::Bytes;
use riptrace_protocol::batch::{Batch, FrameEntry};
use riptrace_protocol::decode::CodeWords;
use riptrace_protocol::hit::{DropReason, RawDrop, RawHit, StackEnd};
use riptrace_protocol::ids::{Avma, HostName, Incarnation, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::limits;
use riptrace_protocol::time::ClockDomain;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Drop counts in one batch, at most: with them and a full load of hits it still fits in a message.
const BATCH_DROPS_MAX: usize = 1024;

/// Who publishes.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) host: HostName,
    pub(crate) incarnation: Incarnation,
    pub(crate) clock_domain: ClockDomain,
}

/// An encoded batch.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    /// Its number in this incarnation.
    pub(crate) number: u64,
    /// What goes over the bus.
    pub(crate) bytes: Bytes,
}

/// What a hit costs the queue until it is packed or dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) hits: usize,
    pub(crate) bytes: usize,
}

/// Layouts of which it is remembered where their hits have addresses of code, at most. Of a layout that is forgotten, such
/// addresses are shown as numbers.
const CODE_LAYOUTS_MAX: usize = 16 * 1024;

/// A hit with the program counters that it needs the frames of: its stack's, and those that its values have.
#[derive(Debug)]
struct Ready {
    hit: RawHit,
    in_values: Vec<Avma>,
}

/// Hits on their way into batches.
#[derive(Debug)]
pub(crate) struct Packer {
    source: Source,
    message_bytes_max: usize,
    next_batch: u64,
    next_hit: u64,
    watermark_ns: u64,
    /// Hits that something older may still come before.
    waiting: Vec<CapturedHit>,
    /// Hits below the watermark, in order, not packed yet.
    ready: VecDeque<Ready>,
    /// Where hits have addresses of code, and where code is.
    code: Recent<(ProcessKey, LayoutId), (CodeWords, Range<u64>)>,
    released: Released,
    drops: DropCounts,
    activations: Activations,
    /// Hits that the engine counted as hits and that the bus did not take, since each probe was armed.
    lost_to_bus: BTreeMap<(TracepointId, ProcessKey), u64>,
}

impl Packer {
    /// A packer of a new incarnation. Batches are kept below `message_bytes_max` and below what the protocol allows.
    pub(crate) fn new(source: Source, message_bytes_max: usize) -> Packer {
        Packer {
            source,
            message_bytes_max: message_bytes_max.min(limits::MESSAGE_BYTES_MAX),
            next_batch: 0,
            next_hit: 0,
            watermark_ns: 0,
            waiting: Vec::new(),
            ready: VecDeque::new(),
            code: Recent::new(CODE_LAYOUTS_MAX),
            released: Released::default(),
            drops: DropCounts::default(),
            activations: Activations::default(),
            lost_to_bus: BTreeMap::new(),
        }
    }

    /// Takes over what the queue had.
    pub(crate) fn accept(&mut self, taken: Taken) {
        for drop in &taken.drops {
            self.activations.lost(&drop.tracepoint, drop.process, taken.now_ns);
        }
        self.drops.add_all(taken.drops);
        self.watermark_ns = self.watermark_ns.max(taken.watermark_ns);
        self.waiting.extend(taken.hits);
        let watermark_ns = self.watermark_ns;
        let (mut ready, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|hit: &CapturedHit| hit.time_ns < watermark_ns);
        self.waiting = waiting;
        // Stable: hits of one passage keep the order in which its tracer handed them over.
        ready.sort_by_key(|hit| hit.time_ns);
        for mut hit in ready {
            self.released.hits += 1;
            self.released.bytes += hit.weight();
            let probe = (&hit.tracepoint, hit.process);
            let duration_ns = self.activations.hit(probe, hit.layout, hit.thread, hit.time_ns, &mut hit.captured);
            let ready = self.with_code(raw(hit, duration_ns));
            self.ready.push_back(ready);
        }
    }

    /// Program counters of the hits that are about to be packed.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = (ProcessKey, &[Avma])> {
        self.ready.iter().flat_map(|Ready { hit, in_values }| {
            [(hit.process, hit.stack.as_slice()), (hit.process, in_values.as_slice())]
        })
    }

    fn with_code(&mut self, hit: RawHit) -> Ready {
        let in_values = match self.code.get_mut(&(hit.process, hit.layout)) {
            Some((words, code)) => {
                words.addresses(&hit).into_iter().filter(|address| code.contains(&address.0)).collect()
            }
            None => Vec::new(),
        };
        Ready { hit, in_values }
    }

    /// Hits of a layout are about to come; `code` is where the process has its code.
    pub(crate) fn expect_code(&mut self, process: ProcessKey, layout: LayoutId, words: CodeWords, code: Range<u64>) {
        if !words.is_empty() {
            self.code.insert((process, layout), (words, code));
        }
    }

    /// Whether something has to travel.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.drops.is_empty()
    }

    /// Whether hits wait for the watermark.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A batch that says the watermark and nothing else, and takes no number; `None` while something else is to be said,
    /// for that says it as well.
    pub(crate) fn watermark(&self) -> Option<Bytes> {
        let batch = self.batch(Vec::new(), Vec::new(), Vec::new());
        // Two names and some numbers fit in any message.
        if self.has_work() { None } else { batch.encode().ok().map(Bytes::from) }
    }

    fn batch(&self, hits: Vec<RawHit>, drops: Vec<RawDrop>, frames: Vec<FrameEntry>) -> Batch {
        Batch {
            host: self.source.host.clone(),
            incarnation: self.source.incarnation,
            number: self.next_batch,
            clock_domain: self.source.clock_domain.clone(),
            watermark_ns: self.ready.front().map_or(self.watermark_ns, |next| next.hit.time_ns),
            first_hit: self.next_hit,
            hits,
            drops,
            frames,
        }
    }

    /// The next batch, if there are hits or drops.
    pub(crate) fn pack(&mut self, frames: &mut Frames) -> Option<Packed> {
        if !self.has_work() {
            return None;
        }
        let mut hits_max = limits::BATCH_HITS_MAX;
        let drops = self.take_drops();
        loop {
            let (hits, entries) = self.take_hits(frames, hits_max);
            let count = hits.len();
            let batch = self.batch(hits, drops.clone(), entries);
            match batch.encode() {
                Ok(bytes) if bytes.len() <= self.message_bytes_max => {
                    let packed = Packed { number: self.next_batch, bytes: Bytes::from(bytes) };
                    self.next_batch += 1;
                    self.next_hit += count as u64;
                    return Some(packed);
                }
                // The sizes are estimated from above, so this is for messages of a server that allows less.
                Ok(_) | Err(_) if count > 0 => {
                    frames.not_sent(&batch.frames);
                    for hit in batch.hits.into_iter().rev() {
                        let ready = self.with_code(hit);
                        self.ready.push_front(ready);
                    }
                    if count == 1 {
                        self.drop_oldest();
                        self.drops.add_all(drops);
                        return self.pack(frames);
                    }
                    hits_max = count / 2;
                }
                Ok(_) | Err(_) => {
                    // Drop counts alone do not fit: they wait for a server that takes messages of a usual size.
                    self.drops.add_all(drops);
                    return None;
                }
            }
        }
    }

    /// The bus does not take any more: what is ready is dropped and counted.
    pub(crate) fn drop_ready(&mut self) {
        while !self.ready.is_empty() {
            self.drop_oldest();
        }
    }

    /// What left the queue's account since the last call: packed or dropped.
    pub(crate) fn take_released(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    /// Hits of a probe that the bus did not take.
    pub(crate) fn lost_to_bus(&self, tracepoint: &TracepointId, process: ProcessKey) -> u64 {
        self.lost_to_bus.get(&(tracepoint.clone(), process)).copied().unwrap_or(0)
    }

    /// A probe is armed anew: its counts begin at 0.
    pub(crate) fn forget_lost(&mut self, tracepoint: &TracepointId, process: ProcessKey) {
        self.lost_to_bus.remove(&(tracepoint.clone(), process));
    }

    /// A probe is about to be armed whose hits tell which call they belong to (none do: an empty list).
    pub(crate) fn expect_calls(&mut self, tracepoint: &TracepointId, process: ProcessKey, telling: Vec<Telling>) {
        self.activations.expect(tracepoint, process, telling);
    }

    /// A process ended, or runs another program: none of its calls goes on.
    pub(crate) fn forget_calls(&mut self, process: ProcessKey) {
        self.activations.forget(process);
        self.code.retain(|(of, _)| *of != process);
    }

    fn drop_oldest(&mut self) {
        if let Some(Ready { hit, .. }) = self.ready.pop_front() {
            self.drops.add(&hit.tracepoint, hit.process, DropReason::Bus, 1);
            *self.lost_to_bus.entry((hit.tracepoint, hit.process)).or_default() += 1;
        }
    }

    fn take_drops(&mut self) -> Vec<RawDrop> {
        let mut drops = self.drops.take();
        if drops.len() > BATCH_DROPS_MAX {
            self.drops.add_all(drops.split_off(BATCH_DROPS_MAX));
        }
        drops
    }

    /// Hits from the front until the batch is large enough, numbered, with the frames that they need.
    fn take_hits(&mut self, frames: &mut Frames, hits_max: usize) -> (Vec<RawHit>, Vec<FrameEntry>) {
        let mut hits = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while hits.len() < hits_max && bytes < limits::BATCH_BYTES_TARGET {
            let Some(Ready { mut hit, in_values }) = self.ready.pop_front() else { break };
            hit.number = self.next_hit + hits.len() as u64;
            let mut needed = frames.take_unsent(hit.process, &hit.stack);
            needed.extend(frames.take_unsent(hit.process, &in_values));
            bytes += hit_wire_bytes(&hit) + needed.iter().map(wire_bytes).sum::<usize>();
            entries.extend(needed);
            hits.push(hit);
        }
        (hits, entries)
    }
}

/// A hit in the words of the protocol, without its number. Return addresses become addresses inside their calls: the
/// instruction after a call may be on another line, and may be another tracepoint's site. What is more than the protocol allows is cut, so that one
/// such hit does not cost a whole batch; the reader sees that it was cut.
fn raw(hit: CapturedHit, duration_ns: Option<u64>) -> RawHit {
    let mut captured = hit.captured;
    captured.chunks.truncate(limits::HIT_CHUNKS_MAX);
    if captured.stack.len() > limits::STACK_FRAMES_MAX {
        captured.stack.truncate(limits::STACK_FRAMES_MAX);
        captured.stack_end = StackEnd::Frames;
    }
    for caller in captured.stack.iter_mut().skip(1) {
        caller.0 = caller.0.saturating_sub(1);
    }
    RawHit {
        number: 0,
        tracepoint: hit.tracepoint,
        process: hit.process,
        layout: hit.layout,
        time_ns: hit.time_ns,
        thread: hit.thread,
        goroutine: captured.goroutine,
        roots: captured.roots,
        root_states: captured.root_states,
        chunks: captured.chunks,
        stack: captured.stack,
        stack_end: captured.stack_end,
        duration_ns,
    }
}

/// What a hit takes in a batch, in bytes, at most: postcard writes a 64-bit number in up to 10 bytes.
fn hit_wire_bytes(hit: &RawHit) -> usize {
    const FIXED: usize = 128;
    let chunks: usize = hit.chunks.iter().map(|chunk| 32 + chunk.bytes.len()).sum();
    FIXED + hit.tracepoint.as_str().len() + hit.roots.len() + 11 * hit.root_states.len() + chunks + 10 * hit.stack.len()
}

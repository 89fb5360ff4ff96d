//! A session's stream: hits in their final order, with layouts and frames in front of the first hit that needs them,
//! drops where they belong, cut into messages that are published one after the other.
//!
//! ```text
//! merge --> admit: number, neighbours --> queue --> next_message (one in flight) --> published --> next_message ..
//!                                           | full: hits become a counted drop
//! ```
//! Invariants
//! - `seq` has no gaps, and an item never moves once it has one.
//! - A message's [`Resume`] covers exactly what was put into this message and those before it: a coordinator that
//!   reads it goes on with the next item, and shows nothing twice.
//!
//! What it is not: it does not decide order (that is [`crate::merge`]) and knows no tracepoint's limits.

use crate::knowledge::Knowledge;
use crate::limits::{
    FACTS_WAIT_MS, FRAMES_MAX, MS, NEIGHBOURS_MAX, SESSION_QUEUE_BYTES_MAX, STREAM_MESSAGE_BYTES_TARGET,
};
use crate::merge::{Released, SourceId};
use riptrace_protocol::hit::{DropReason, RawHit};
use riptrace_protocol::ids::{Avma, HostName, LayoutId, ProcessId, SessionId, TracepointId};
use riptrace_protocol::limits::{MESSAGE_BYTES_MAX, UNDETERMINED_MAX};
use riptrace_protocol::stream::{OrderedHit, Resume, StreamDrop, StreamFrames, StreamItem, StreamMessage};
use riptrace_protocol::time::{ClockDomain, Interval};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How far the coordinator has come with the agents' batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Per source: number of the first hit that was not released yet.
    pub next_hit: BTreeMap<SourceId, u64>,
    /// Sequence of the trace stream up to which (exclusive) nothing is needed any more.
    pub trace_sequence: u64,
}

/// What an entry of the queue means for the position, once it is published.
#[derive(Debug, Default)]
struct Mark {
    next_hit: Option<(SourceId, u64)>,
    trace_sequence: Option<u64>,
}

#[derive(Debug)]
enum Entry {
    Hit { hit: Box<OrderedHit>, hold_until_ns: u64 },
    Drop(StreamDrop),
}

#[derive(Debug)]
struct Queued {
    entry: Entry,
    mark: Mark,
    bytes: usize,
}

/// A hit that was shown, for the comparison with those that follow.
#[derive(Debug)]
struct Shown {
    seq: u64,
    domain: ClockDomain,
    interval: Interval,
}

/// A message that waits for its acknowledgement.
#[derive(Debug)]
struct InFlight {
    number: u64,
}

/// The stream of one session.
#[derive(Debug)]
pub struct SessionStream {
    session: SessionId,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    next_seq: u64,
    /// Coordinated time of the newest hit in the queue or published.
    released_ns: i64,
    neighbours: VecDeque<Shown>,
    in_flight: Option<InFlight>,
    /// What the messages so far have said.
    said: Resume,
    said_hits: BTreeMap<SourceId, u64>,
    counted: BTreeMap<TracepointId, u64>,
    layouts_sent: BTreeSet<LayoutId>,
    frames_sent: BTreeSet<(ProcessId, Avma)>,
    /// Where this session took up: what is before it was published by an earlier coordinator.
    from_hits: BTreeMap<SourceId, u64>,
    from_trace_sequence: u64,
    /// Hits that did not fit in the queue, over the session's life.
    pub dropped: u64,
}

impl SessionStream {
    /// A stream that goes on where `resume` says, or begins at `trace_sequence` of the trace stream.
    pub fn new(session: SessionId, resume: Option<Resume>, trace_sequence: u64) -> Self {
        let said = resume.unwrap_or(Resume { next_seq: 1, released_ns: i64::MIN, trace_sequence, ..Resume::default() });
        let from_hits: BTreeMap<SourceId, u64> = said
            .next_hit
            .iter()
            .map(|(host, incarnation, next)| (SourceId { host: host.clone(), incarnation: *incarnation }, *next))
            .collect();
        SessionStream {
            session,
            queue: VecDeque::new(),
            queue_bytes: 0,
            next_seq: said.next_seq.max(1),
            released_ns: said.released_ns,
            neighbours: VecDeque::new(),
            in_flight: None,
            said_hits: from_hits.clone(),
            counted: said.counted.iter().cloned().collect(),
            layouts_sent: said.layouts_sent.iter().copied().collect(),
            frames_sent: BTreeSet::new(),
            from_hits,
            from_trace_sequence: said.trace_sequence,
            said,
            dropped: 0,
        }
    }

    /// Where the session is after what has been put into messages.
    pub fn resume(&self) -> &Resume {
        &self.said
    }

    /// Where the session took up.
    pub fn from_hits(&self) -> &BTreeMap<SourceId, u64> {
        &self.from_hits
    }

    /// Whether an earlier coordinator has published this hit of the batch at `trace_sequence` already, or it was
    /// before the session.
    pub fn has_shown(&self, source: &SourceId, number: u64, trace_sequence: u64) -> bool {
        trace_sequence < self.from_trace_sequence || self.from_hits.get(source).is_some_and(|&next| number < next)
    }

    /// A source says nothing more, and all of its batches are behind every session.
    pub fn forget(&mut self, source: &SourceId) {
        self.said_hits.remove(source);
        self.from_hits.remove(source);
    }

    /// The trace stream begins anew: its sequence numbers say nothing about the past any more.
    pub fn forget_trace_sequence(&mut self) {
        self.from_trace_sequence = 0;
        self.said.trace_sequence = 0;
    }

    /// Hits of a tracepoint that messages have counted (in earlier runs of the coordinator, too).
    pub fn counted(&self, tracepoint: &TracepointId) -> u64 {
        self.counted.get(tracepoint).copied().unwrap_or(0)
    }

    /// Forgets the count of a tracepoint: it was replaced by another one of the same id.
    pub fn reset_count(&mut self, tracepoint: &TracepointId) {
        self.counted.remove(tracepoint);
    }

    /// Appends a hit. It gets its number now, and keeps it. Returns false when the queue was full: the hit is then
    /// part of a drop.
    pub fn admit(&mut self, now_ns: u64, released: Released<RawHit>) -> bool {
        let uncertainty_ns = released.uncertainty_ns();
        let Released { source, domain, number, mut time_ns, interval, mut late, payload: raw } = released;
        let mark = Mark { next_hit: Some((source.clone(), number.saturating_add(1))), trace_sequence: None };
        let bytes = hit_bytes(&raw);
        if self.queue_bytes + bytes > SESSION_QUEUE_BYTES_MAX {
            self.dropped += 1;
            self.push_drop(
                StreamDrop {
                    host: source.host,
                    process: Some(raw.process),
                    tracepoint: Some(raw.tracepoint),
                    reason: DropReason::Session,
                    count: 1,
                },
                mark,
            );
            return false;
        }
        // A session that took up behind others may have shown more than the merge knows of.
        late |= interval.hi_ns < self.released_ns;
        let mut uncertainty_ns = uncertainty_ns;
        if !late && time_ns < self.released_ns {
            time_ns = self.released_ns;
            uncertainty_ns = time_ns.abs_diff(interval.lo_ns).max(time_ns.abs_diff(interval.hi_ns));
        }
        if !late {
            self.released_ns = time_ns;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut undetermined_with: Vec<u64> = (self.neighbours.iter().rev())
            .filter(|shown| shown.domain != domain && shown.interval.overlaps(interval))
            .map(|shown| shown.seq)
            .take(UNDETERMINED_MAX)
            .collect();
        undetermined_with.reverse();
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            self.neighbours.pop_front();
        }
        self.neighbours.push_back(Shown { seq, domain, interval });
        let hit = Box::new(OrderedHit {
            seq,
            time_ns,
            uncertainty_ns,
            host: source.host,
            service: String::new(),
            undetermined_with,
            late,
            raw,
        });
        self.queue_bytes += bytes;
        let hold_until_ns = now_ns + FACTS_WAIT_MS * MS;
        self.queue.push_back(Queued { entry: Entry::Hit { hit, hold_until_ns }, mark, bytes });
        true
    }

    /// Appends the loss of hits `first..end` of a source, which the batch at `trace_sequence` shows; what was told
    /// already, or was before the session, is left out.
    pub fn lost(&mut self, source: &SourceId, first: u64, end: u64, trace_sequence: u64) {
        if trace_sequence < self.from_trace_sequence {
            return;
        }
        let first = first.max(self.from_hits.get(source).copied().unwrap_or(0));
        if first < end {
            let drop = StreamDrop {
                host: source.host.clone(),
                process: None,
                tracepoint: None,
                reason: DropReason::Lost,
                count: end - first,
            };
            self.push_drop(drop, Mark { next_hit: Some((source.clone(), end)), trace_sequence: None });
        }
    }

    /// Appends a drop that an agent told in the batch at `trace_sequence`, once all batches before it are released.
    pub fn agent_drop(&mut self, drop: StreamDrop, trace_sequence: u64) {
        if trace_sequence >= self.from_trace_sequence && drop.count > 0 {
            let mark = Mark { next_hit: None, trace_sequence: Some(trace_sequence.saturating_add(1)) };
            self.push_drop(drop, mark);
        }
    }

    fn push_drop(&mut self, drop: StreamDrop, mark: Mark) {
        if let Some(Queued { entry: Entry::Drop(last), mark: last_mark, .. }) = self.queue.back_mut() {
            let same_place = (&last.host, last.process, &last.tracepoint, last.reason)
                == (&drop.host, drop.process, &drop.tracepoint, drop.reason);
            let same_source = match (&last_mark.next_hit, &mark.next_hit) {
                (Some((a, _)), Some((b, _))) => a == b,
                _ => true,
            };
            if same_place && same_source {
                last.count = last.count.saturating_add(drop.count);
                last_mark.next_hit = mark.next_hit.or(last_mark.next_hit.take());
                last_mark.trace_sequence = mark.trace_sequence.or(last_mark.trace_sequence);
                return;
            }
        }
        // A drop is never dropped: drops of one place are added up, so there are few.
        self.queue.push_back(Queued { entry: Entry::Drop(drop), mark, bytes: 0 });
    }

    /// Hosts whose facts the first items of the queue wait for.
    pub fn waits_for(&self, knowledge: &Knowledge, now_ns: u64) -> Option<&HostName> {
        match self.queue.front().map(|queued| &queued.entry) {
            Some(Entry::Hit { hit, hold_until_ns })
                if now_ns < *hold_until_ns && !known(knowledge, &self.layouts_sent, hit) =>
            {
                Some(&hit.host)
            }
            _ => None,
        }
    }

    /// When time alone will let an item go.
    pub fn deadline_ns(&self, now_ns: u64) -> Option<u64> {
        match self.queue.front().map(|queued| &queued.entry) {
            Some(Entry::Hit { hold_until_ns, .. }) if self.in_flight.is_none() && *hold_until_ns > now_ns => {
                Some(*hold_until_ns)
            }
            _ => None,
        }
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Message `number` is stored.
    pub fn published(&mut self, number: u64) {
        if self.in_flight.as_ref().is_some_and(|in_flight| in_flight.number == number) {
            self.in_flight = None;
        }
    }

    /// The next message, unless one is in flight or there is nothing to say. It gets `number`, which the coordinator
    /// never uses again.
    pub fn next_message(
        &mut self,
        number: u64,
        now_ns: u64,
        knowledge: &Knowledge,
        position: &Position,
    ) -> Option<StreamMessage> {
        if self.in_flight.is_some() {
            return None;
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(front) = self.queue.front_mut() {
            if bytes >= STREAM_MESSAGE_BYTES_TARGET {
                break;
            }
            let mut needed = Vec::new();
            if let Entry::Hit { hit, hold_until_ns } = &mut front.entry {
                if now_ns < *hold_until_ns && !known(knowledge, &self.layouts_sent, hit) {
                    break;
                }
                let process = ProcessId { host: hit.host.clone(), key: hit.raw.process };
                hit.service = knowledge.service(&process).unwrap_or_default().to_owned();
                if !self.layouts_sent.contains(&hit.raw.layout)
                    && let Some(layout) = knowledge.layout(hit.raw.layout)
                {
                    needed.push(StreamItem::Layout(Box::new(layout.clone())));
                    // A layout that no message can carry is not sent: its hits are shown as ones that cannot be read.
                    needed.retain(|layout| item_bytes(layout) < MESSAGE_BYTES_MAX / 2);
                }
                let in_values = knowledge.code_in(&hit.raw);
                let frames = hit.raw.stack.iter().chain(&in_values).filter_map(|&pc| {
                    let key = (process.clone(), pc);
                    let frames = (!self.frames_sent.contains(&key)).then(|| knowledge.frames(&key)).flatten()?;
                    Some(StreamFrames { process: process.clone(), pc, frames: frames.to_vec() })
                });
                let frames: Vec<StreamFrames> = frames.collect();
                if !frames.is_empty() {
                    needed.push(StreamItem::Frames(frames));
                }
            }
            let more = front.bytes.max(64) + needed.iter().map(item_bytes).sum::<usize>();
            // What does not fit behind the others goes first in the next message.
            if bytes > 0 && bytes + more > MESSAGE_BYTES_MAX * 3 / 4 {
                break;
            }
            let Some(Queued { entry, mark, bytes: queued_bytes }) = self.queue.pop_front() else { break };
            self.queue_bytes -= queued_bytes;
            bytes += more;
            for item in needed {
                match &item {
                    StreamItem::Layout(layout) => drop(self.layouts_sent.insert(layout.id())),
                    StreamItem::Frames(frames) => {
                        if self.frames_sent.len() > FRAMES_MAX {
                            // Sending them again is harmless.
                            self.frames_sent.clear();
                        }
                        self.frames_sent.extend(frames.iter().map(|f| (f.process.clone(), f.pc)));
                    }
                    _ => {}
                }
                items.push(item);
            }
            items.push(self.say(entry, mark));
        }
        if items.is_empty() {
            return None;
        }
        if self.queue.is_empty() {
            // Everything that was released is in this message or one before it, perhaps of an earlier coordinator.
            for (source, &next) in &position.next_hit {
                let said = self.said_hits.entry(source.clone()).or_insert(next);
                *said = (*said).max(next);
            }
            self.said.trace_sequence = self.said.trace_sequence.max(position.trace_sequence);
        }
        self.said.next_hit = (self.said_hits.iter()).map(|(s, &n)| (s.host.clone(), s.incarnation, n)).collect();
        self.said.counted = self.counted.iter().map(|(id, &n)| (id.clone(), n)).collect();
        self.said.layouts_sent = self.layouts_sent.iter().copied().collect();
        self.in_flight = Some(InFlight { number });
        Some(StreamMessage { session: self.session.clone(), items, resume: self.said.clone() })
    }

    fn say(&mut self, entry: Entry, mark: Mark) -> StreamItem {
        if let Some((source, next)) = mark.next_hit {
            let said = self.said_hits.entry(source).or_insert(next);
            *said = (*said).max(next);
        }
        if let Some(next) = mark.trace_sequence {
            self.said.trace_sequence = self.said.trace_sequence.max(next);
        }
        match entry {
            Entry::Hit { hit, .. } => {
                self.said.next_seq = hit.seq + 1;
                if !hit.late {
                    self.said.released_ns = hit.time_ns;
                }
                *self.counted.entry(hit.raw.tracepoint.clone()).or_insert(0) += 1;
                StreamItem::Hit(hit)
            }
            Entry::Drop(drop) => StreamItem::Drop(drop),
        }
    }
}

/// Whether all is there that a viewer needs to read the hit.
fn known(knowledge: &Knowledge, layouts_sent: &BTreeSet<LayoutId>, hit: &OrderedHit) -> bool {
    let process = ProcessId { host: hit.host.clone(), key: hit.raw.process };
    let layout = layouts_sent.contains(&hit.raw.layout) || knowledge.layout(hit.raw.layout).is_some();
    layout && knowledge.service(&process).is_some()
}

/// About how many bytes a hit takes in a message: never less than it does.
pub(crate) fn hit_bytes(raw: &RawHit) -> usize {
    let chunks: usize = raw.chunks.iter().map(|chunk| 32 + chunk.bytes.len()).sum();
    512 + raw.roots.len() + 12 * raw.root_states.len() + chunks + 10 * raw.stack.len()
}

/// About how many bytes a layout or frames take in a message: never less than they do.
fn item_bytes(item: &StreamItem) -> usize {
    match item {
        // JSON spells out what postcard leaves to the schema.
        StreamItem::Layout(layout) => serde_json::to_vec(layout).map_or(MESSAGE_BYTES_MAX, |json| json.len()),
        StreamItem::Frames(frames) => (frames.iter())
            .map(|f| 128 + f.frames.iter().map(|f| 24 + f.function.len() + f.file.len()).sum::<usize>())
            .sum(),
        StreamItem::Hit(_) | StreamItem::Drop(_) => 0,
    }
}

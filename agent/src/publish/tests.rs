//! Publishing as a whole: many tracers at once, a bus that fails, limits that are reached. Whatever happens, hits and
//! drops add up, and the order holds.

use super::bus::{Bus, BusError};
use super::frames::{FrameResolver, Frames};
use super::outbox::Outbox;
use super::packer::{Packer, Source};
use super::publisher::Publisher;
use super::sink::{CapturedHit, HitQueue, QueueLimits, Taken};
use crate::capture::interpreter::{Captured, StackMemory};
use crate::clock;
use bytes::Bytes;
use futures::future::BoxFuture;
use proptest::prelude::*;
use riptrace_protocol::batch::{Batch, FrameEntry};
use riptrace_protocol::decode::CodeWords;
use riptrace_protocol::fleet::{Language, SiteFacts};
use riptrace_protocol::hit::{Chunk, ChunkEnd, DropReason, Frame, RawDrop, StackEnd};
use riptrace_protocol::ids::{Avma, BuildId, HostName, Incarnation, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::layout::{Layout, Moment, Type, TypeKind};
use riptrace_protocol::limits::{BATCH_HITS_MAX, MESSAGE_BYTES_MAX, STACK_FRAMES_MAX};
use riptrace_protocol::time::ClockDomain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PROCESS: ProcessKey = ProcessKey { pid: 812, start_time: 123 };

fn tracepoint() -> TracepointId {
    TracepointId::new("t").unwrap()
}

fn source() -> Source {
    Source {
        host: HostName::new("web-1").unwrap(),
        incarnation: Incarnation(42),
        clock_domain: ClockDomain("boot:1".into()),
    }
}

fn hit(time_ns: u64, bytes: usize) -> CapturedHit {
    CapturedHit {
        tracepoint: tracepoint(),
        process: PROCESS,
        layout: LayoutId([1; 16]),
        time_ns,
        thread: 1,
        captured: Captured {
            roots: vec![7; bytes],
            root_states: vec![],
            chunks: vec![],
            goroutine: None,
            stack: vec![Avma(0x1000 + time_ns % 7)],
            stack_end: StackEnd::Whole,
            stack_memory: None,
        },
    }
}

fn entry(process: ProcessKey, pc: Avma) -> FrameEntry {
    let frame = Frame { function: format!("f{}", pc.0), file: "f.go".into(), line: 1, inlined: false };
    FrameEntry { build: BuildId("go:x".into()), process, pc, frames: vec![frame] }
}

/// What a stream keeps: one message per id.
#[derive(Debug, Default)]
struct Stored(BTreeMap<String, Bytes>, Vec<String>);

impl Stored {
    fn store(&mut self, id: &str, bytes: &Bytes) {
        if self.0.insert(id.to_owned(), bytes.clone()).is_none() {
            self.1.push(id.to_owned());
        }
    }

    /// What has no id is kept each time.
    fn tell(&mut self, bytes: &Bytes) {
        let id = format!("told-{}", self.1.len());
        self.store(&id, bytes);
    }

    fn batches(&self) -> Vec<Batch> {
        self.1.iter().map(|id| Batch::decode(&self.0[id]).unwrap()).collect()
    }
}

/// Checks order, numbers and promises of a whole run; returns hits and drops.
fn check(batches: &[Batch]) -> (u64, BTreeMap<DropReason, u64>) {
    let mut next_batch = 0;
    let mut next_hit = 0;
    let mut watermark_ns = 0;
    let mut newest_ns = 0;
    let mut drops = BTreeMap::new();
    let mut known = BTreeSet::new();
    for batch in batches {
        assert_eq!(batch.number, next_batch, "batches are numbered without gaps");
        next_batch += u64::from(!batch.is_watermark());
        assert_eq!(batch.first_hit, next_hit, "hits are numbered without gaps");
        assert!(batch.watermark_ns >= watermark_ns, "the watermark never goes back");
        known.extend(batch.frames.iter().map(|frame| (frame.process, frame.pc)));
        for hit in &batch.hits {
            assert!(hit.time_ns >= watermark_ns, "a hit older than a promised watermark");
            assert!(hit.time_ns >= newest_ns, "hits are in the order of time");
            let named = |pc: &Avma| known.is_empty() || known.contains(&(hit.process, *pc));
            assert!(hit.stack.iter().all(named), "frames come with their first hit");
            newest_ns = hit.time_ns;
            next_hit += 1;
        }
        watermark_ns = batch.watermark_ns;
        for drop in &batch.drops {
            *drops.entry(drop.reason).or_default() += drop.count;
        }
    }
    (next_hit, drops)
}

#[derive(Debug, Clone)]
enum Step {
    /// Hits at these times after the watermark, of these sizes; then the watermark moves on by this.
    Take(Vec<(u64, usize)>, u64),
    /// The engine dropped some.
    Dropped(u64),
    /// The bus stores a batch and says so.
    Stored,
    /// The bus stores a batch, and the acknowledgement is lost.
    AcknowledgementLost,
    /// The bus does not get it.
    NotStored,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hits = prop::collection::vec((0u64..200, 0usize..3_000), 0..12);
    let step = prop_oneof![
        4 => (hits, 0u64..150).prop_map(|(hits, by)| Step::Take(hits, by)),
        1 => (1u64..9).prop_map(Step::Dropped),
        3 => Just(Step::Stored),
        1 => Just(Step::AcknowledgementLost),
        2 => Just(Step::NotStored),
    ];
    prop::collection::vec(step, 1..60)
}

struct Simulation {
    packer: Packer,
    frames: Frames,
    outbox: Outbox,
    stored: Stored,
    now: Duration,
    watermark_ns: u64,
    released: usize,
}

impl Simulation {
    fn take(&mut self, hits: Vec<CapturedHit>, drops: Vec<RawDrop>, watermark_ns: u64) {
        self.packer.accept(Taken { watermark_ns, hits, drops, now_ns: watermark_ns });
        let unknown = self.frames.unknown(self.packer.stacks());
        let resolved = unknown.iter().flat_map(|(process, pcs)| pcs.iter().map(|pc| entry(*process, *pc))).collect();
        self.frames.learn(resolved);
        while !self.outbox.is_full() {
            let Some(packed) = self.packer.pack(&mut self.frames) else { break };
            self.outbox.push(packed);
        }
        if self.outbox.is_full() {
            self.packer.drop_ready();
        }
        self.released += self.packer.take_released().hits;
    }

    fn bus(&mut self, stored: bool, acknowledged: bool) {
        self.now = self.outbox.due_at().unwrap_or(self.now).max(self.now);
        let Some((number, bytes)) = self.outbox.start(self.now) else { return };
        if stored {
            self.stored.store(&format!("42-{number}"), &bytes);
        }
        if acknowledged {
            self.outbox.acknowledged();
        } else {
            self.outbox.failed(self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the bus does, each hit arrives in order or is counted.
    #[test]
    fn hits_and_drops_add_up_over_any_bus(steps in steps(), message_bytes_max in 1_500usize..20_000, backlog in 500usize..20_000) {
        let mut simulation = Simulation {
            packer: Packer::new(source(), message_bytes_max),
            frames: Frames::default(),
            outbox: Outbox::new(backlog),
            stored: Stored::default(),
            now: Duration::ZERO,
            watermark_ns: 10,
            released: 0,
        };
        let (mut submitted, mut dropped_before) = (0, 0);
        for step in steps {
            match step {
                Step::Take(hits, by) => {
                    submitted += hits.len() as u64;
                    let at = simulation.watermark_ns;
                    simulation.watermark_ns += by;
                    let hits = hits.into_iter().map(|(after, bytes)| hit(at + after, bytes)).collect();
                    simulation.take(hits, vec![], at + by);
                }
                Step::Dropped(count) => {
                    dropped_before += count;
                    let drop = RawDrop { tracepoint: tracepoint(), process: PROCESS, reason: DropReason::Queue, count };
                    simulation.take(vec![], vec![drop], simulation.watermark_ns);
                }
                Step::Stored => simulation.bus(true, true),
                Step::AcknowledgementLost => simulation.bus(true, false),
                Step::NotStored => simulation.bus(false, false),
            }
        }
        // The bus is well again, and nothing more happens.
        for _ in 0..2 {
            simulation.take(vec![], vec![], simulation.watermark_ns + 1_000);
            while !simulation.outbox.is_empty() {
                simulation.bus(true, true);
            }
        }
        prop_assert!(!simulation.packer.has_work() && !simulation.packer.is_waiting());
        prop_assert_eq!(simulation.released as u64, submitted, "the queue gets all of its room back");
        prop_assert!(simulation.stored.0.values().all(|bytes| bytes.len() <= message_bytes_max));
        let (hits, drops) = check(&simulation.stored.batches());
        let by_bus = drops.get(&DropReason::Bus).copied().unwrap_or(0);
        prop_assert_eq!(hits + by_bus, submitted);
        prop_assert_eq!(drops.get(&DropReason::Queue).copied().unwrap_or(0), dropped_before);
        prop_assert_eq!(simulation.packer.lost_to_bus(&tracepoint(), PROCESS), by_bus);
    }
}

#[test]
fn a_batch_is_closed_by_count_and_by_size() {
    let sizes = |hits: Vec<CapturedHit>| {
        let mut packer = Packer::new(source(), MESSAGE_BYTES_MAX);
        packer.accept(Taken { watermark_ns: u64::MAX, hits, drops: vec![], now_ns: 0 });
        let packed = std::iter::from_fn(|| packer.pack(&mut Frames::default()));
        let batches: Vec<_> = packed.map(|packed| Batch::decode(&packed.bytes).unwrap()).collect();
        check(&batches);
        batches.iter().map(|batch| batch.hits.len()).collect::<Vec<_>>()
    };
    let small = sizes(
        (0..10_000)
            .map(|time| CapturedHit { captured: Captured { stack: vec![], ..hit(0, 0).captured }, ..hit(time, 0) })
            .collect(),
    );
    assert_eq!(small.iter().sum::<usize>(), 10_000);
    assert!(small.iter().all(|&hits| hits <= BATCH_HITS_MAX) && small[0] > BATCH_HITS_MAX / 4, "{small:?}");
    assert_eq!(sizes((0..12).map(|time| hit(time, 60_000)).collect()), [5, 5, 2], "256 KiB a batch");
}

#[test]
fn a_return_address_is_sent_as_an_address_inside_its_call() {
    let mut packer = Packer::new(source(), MESSAGE_BYTES_MAX);
    let mut with_stack = hit(5, 0);
    with_stack.captured.stack = vec![Avma(0x100), Avma(0x205), Avma(0)];
    packer.accept(Taken { watermark_ns: 10, hits: vec![with_stack], drops: vec![], now_ns: 0 });
    let batch = Batch::decode(&packer.pack(&mut Frames::default()).unwrap().bytes).unwrap();
    assert_eq!(batch.hits[0].stack, [Avma(0x100), Avma(0x204), Avma(0)]);
}

#[test]
fn addresses_of_code_in_values_are_named_like_those_of_the_stack() {
    let word = |kind| Type { name: "w".into(), bytes: 8, kind };
    let layout = Layout {
        build: BuildId("go:x".into()),
        language: Language::Go,
        site: SiteFacts { function: "f".into(), file: "f.go".into(), line: 1 },
        moment: Moment::Line,
        variables: vec![],
        types: vec![word(TypeKind::GoFunc { functions: vec![] })],
        string_bytes: 8,
        elements: 8,
        depth: 1,
    };
    let mut packer = Packer::new(source(), MESSAGE_BYTES_MAX);
    packer.expect_code(PROCESS, LayoutId([1; 16]), CodeWords::of(&layout), 0x4000..0x5000);
    let mut hit = hit(5, 8);
    let chunk = |address: u64, code: u64| Chunk {
        address: Avma(address),
        wanted_bytes: 8,
        bytes: code.to_le_bytes().to_vec(),
        end: ChunkEnd::Complete,
    };
    // A function, and a number that is none.
    hit.captured.chunks = vec![chunk(0xc000, 0x4400), chunk(0xc008, 0x9999)];
    let mut frames = Frames::default();
    packer.accept(Taken { hits: vec![hit], drops: vec![], watermark_ns: 10, now_ns: 10 });
    let stacks: BTreeSet<Avma> = packer.stacks().flat_map(|(_, pcs)| pcs.to_vec()).collect();
    assert_eq!(stacks, BTreeSet::from([Avma(0x1005), Avma(0x4400)]));
    frames.learn(stacks.iter().map(|&pc| entry(PROCESS, pc)).collect());
    let batch = Batch::decode(&packer.pack(&mut frames).unwrap().bytes).unwrap();
    assert_eq!(batch.frames.iter().map(|entry| entry.pc).collect::<BTreeSet<_>>(), stacks);
    // The process runs another program: its words mean nothing any more.
    packer.forget_calls(PROCESS);
    let mut later = self::hit(15, 8);
    later.captured.chunks = vec![chunk(0xc000, 0x4400)];
    packer.accept(Taken { hits: vec![later], drops: vec![], watermark_ns: 20, now_ns: 20 });
    assert!(packer.stacks().all(|(_, pcs)| !pcs.contains(&Avma(0x4400))));
}

#[test]
fn a_beat_says_the_watermark_and_nothing_else() {
    let mut packer = Packer::new(source(), MESSAGE_BYTES_MAX);
    packer.accept(Taken { watermark_ns: 77, hits: vec![hit(80, 1)], drops: vec![], now_ns: 0 });
    assert!(packer.pack(&mut Frames::default()).is_none(), "a hit beyond the watermark waits");
    for _ in 0..2 {
        let beat = Batch::decode(&packer.watermark().unwrap()).unwrap();
        assert!(beat.is_watermark());
        assert_eq!((beat.number, beat.watermark_ns, beat.first_hit), (0, 77, 0), "it takes no number");
    }
    packer.accept(Taken { watermark_ns: 90, hits: vec![], drops: vec![], now_ns: 0 });
    assert!(packer.watermark().is_none(), "the hit says it");
    let batch = Batch::decode(&packer.pack(&mut Frames::default()).unwrap().bytes).unwrap();
    assert_eq!((batch.number, batch.watermark_ns, batch.hits.len()), (0, 90, 1));
    let beat = Batch::decode(&packer.watermark().unwrap()).unwrap();
    assert_eq!((beat.number, beat.watermark_ns, beat.first_hit), (1, 90, 1));
}

#[test]
fn a_full_queue_counts_and_has_room_again_when_hits_are_released() {
    let mut queue = HitQueue::new(QueueLimits { hits: 2, bytes: usize::MAX });
    let mut sink = queue.sink();
    let mut submit = |time| sink.begin().stamp(time).submit(hit(0, 10));
    assert_eq!((submit(5), submit(6)), (Ok(()), Ok(())));
    assert!(submit(7).is_err());
    let taken = queue.take(clock::domain_now_ns);
    assert_eq!(taken.hits.iter().map(|hit| hit.time_ns).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(taken.drops.iter().map(|drop| (drop.reason, drop.count)).collect::<Vec<_>>(), [(DropReason::Queue, 1)]);
    assert!(submit(8).is_err(), "what was taken and not packed is still held");
    queue.release(1, 0);
    assert!(submit(9).is_ok());
}

#[test]
fn a_tracer_at_work_holds_the_watermark_back() {
    let mut queue = HitQueue::new(QueueLimits::default());
    let mut first = queue.sink();
    let mut second = first.clone();
    let slack = 1_000;
    assert_eq!(queue.take(|| 10_000).watermark_ns, 10_000 - slack);
    let begun = first.begin();
    assert_eq!(queue.take(|| 20_000).watermark_ns, 10_000 - slack, "its time is not known: nothing new is promised");
    let passage = begun.stamp(15_000);
    let other = second.begin().stamp(17_000);
    assert_eq!(queue.take(|| 30_000).watermark_ns, 15_000);
    drop(passage);
    assert_eq!(queue.take(|| 40_000).watermark_ns, 17_000);
    drop(other);
    drop((first, second));
    assert_eq!(queue.take(|| 50_000).watermark_ns, 50_000 - slack);
}

/// The watermark's promise, with real threads and the real clock: no hit is older than what was promised before it was
/// taken.
#[test]
fn no_tracer_breaks_the_promise_of_the_watermark() {
    const PASSAGES: u64 = 5_000;
    const TRACERS: u64 = 4;
    let mut queue = HitQueue::new(QueueLimits { hits: 300, bytes: usize::MAX });
    let running = Arc::new(AtomicU64::new(TRACERS));
    let tracers: Vec<_> = (0..TRACERS)
        .map(|tracer| {
            let (mut sink, running) = (queue.sink(), Arc::clone(&running));
            std::thread::spawn(move || {
                let mut kept = 0;
                for passage in 0..PASSAGES {
                    let begun = sink.begin();
                    let now_ns = clock::domain_now_ns();
                    if (passage + tracer) % 3 == 0 {
                        std::thread::yield_now();
                    }
                    let mut in_progress = begun.stamp(now_ns);
                    if passage % 5 == 0 {
                        std::thread::yield_now();
                    }
                    kept += u64::from(in_progress.submit(hit(0, 8)).is_ok());
                }
                running.fetch_sub(1, Ordering::SeqCst);
                kept
            })
        })
        .collect();
    let (mut promised_ns, mut hits, mut dropped) = (0, 0, 0);
    loop {
        let over = running.load(Ordering::SeqCst) == 0;
        let taken = queue.take(clock::domain_now_ns);
        assert!(taken.watermark_ns >= promised_ns);
        for hit in &taken.hits {
            assert!(hit.time_ns >= promised_ns, "a hit {} ns before the watermark", promised_ns - hit.time_ns);
        }
        promised_ns = taken.watermark_ns;
        hits += taken.hits.len() as u64;
        dropped += taken.drops.iter().map(|drop| drop.count).sum::<u64>();
        queue.release(taken.hits.len(), 0);
        if over {
            break;
        }
    }
    let kept: u64 = tracers.into_iter().map(|tracer| tracer.join().unwrap()).sum();
    assert_eq!(hits, kept);
    assert_eq!(hits + dropped, TRACERS * PASSAGES);
    assert!(hits > 0);
}

/// A bus that is away at times, and loses every third acknowledgement.
#[derive(Clone, Default)]
struct FlakyBus {
    news: Arc<tokio::sync::Notify>,
    stored: Arc<Mutex<Stored>>,
    away: Arc<AtomicBool>,
    tries: Arc<AtomicU64>,
}

impl Bus for FlakyBus {
    fn publish(&self, message_id: String, bytes: Bytes) -> BoxFuture<'static, Result<(), BusError>> {
        let bus = self.clone();
        Box::pin(async move {
            let number = bus.tries.fetch_add(1, Ordering::SeqCst);
            if bus.away.load(Ordering::SeqCst) {
                return Err(BusError::NotConnected);
            }
            bus.stored.lock().unwrap().store(&message_id, &bytes);
            bus.news.notify_one();
            if number % 3 == 2 { Err(BusError::NoAnswer) } else { Ok(()) }
        })
    }

    fn tell(&self, bytes: Bytes) {
        if !self.away.load(Ordering::SeqCst) {
            self.stored.lock().unwrap().tell(&bytes);
            self.news.notify_one();
        }
    }
}

struct NamedByNumber;

impl FrameResolver for NamedByNumber {
    fn resolve(&self, process: ProcessKey, pcs: &[Avma]) -> Vec<FrameEntry> {
        pcs.iter().map(|pc| entry(process, *pc)).collect()
    }

    /// The callers are what the copy says.
    fn unwind(&self, hits: &mut [CapturedHit]) {
        for hit in hits {
            let Some(memory) = hit.captured.stack_memory.take() else { continue };
            hit.captured.stack.extend(memory.bytes.chunks(8).map(|word| Avma(u64::from(word[0]))));
            hit.captured.stack_end = StackEnd::Bytes(memory.bytes_max);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_delivers_or_counts_every_hit_over_an_outage() {
    let queue = HitQueue::new(QueueLimits { hits: 2_000, bytes: usize::MAX });
    let bus = FlakyBus::default();
    let mut sink = queue.sink();
    let publisher = Publisher::new(source(), MESSAGE_BYTES_MAX, 100_000, queue, Arc::new(NamedByNumber), bus.clone());
    let handle = publisher.handle();
    let task = tokio::spawn(publisher.run());
    handle.set_active(true);
    let away = Arc::clone(&bus.away);
    let tries = Arc::clone(&bus.tries);
    const HITS: u64 = 6_000;
    let queued = tokio::task::spawn_blocking(move || {
        let mut queued = 0;
        for number in 0..HITS {
            // The bus goes away in the middle, until the publisher has met it away and been refused.
            if number == HITS / 3 {
                away.store(true, Ordering::SeqCst);
            }
            if number == 2 * HITS / 3 {
                let met = tries.load(Ordering::SeqCst) + 2;
                while tries.load(Ordering::SeqCst) < met {
                    std::thread::yield_now();
                }
                away.store(false, Ordering::SeqCst);
            }
            let begun = sink.begin();
            let mut passage = begun.stamp(clock::domain_now_ns());
            queued += u64::from(passage.submit(hit(0, 100)).is_ok());
        }
        queued
    })
    .await
    .unwrap();
    handle.finish();
    task.await.unwrap();
    let (hits, drops) = check(&bus.stored.lock().unwrap().batches());
    let by = |reason| drops.get(&reason).copied().unwrap_or(0);
    assert_eq!(hits + by(DropReason::Bus), queued, "{drops:?}");
    assert_eq!(by(DropReason::Queue), HITS - queued);
    assert_eq!(by(DropReason::Bus), handle.lost_to_bus(&tracepoint(), PROCESS));
    assert!(hits > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_stacks_become_callers_and_give_their_room_back() {
    let bus = FlakyBus::default();
    const COPY: usize = 4096;
    let room = 64 * (COPY + 1024);
    let queue = HitQueue::new(QueueLimits { hits: 2_000, bytes: room });
    let mut sink = queue.sink();
    let publisher =
        Publisher::new(source(), MESSAGE_BYTES_MAX, usize::MAX, queue, Arc::new(NamedByNumber), bus.clone());
    let handle = publisher.handle();
    let task = tokio::spawn(publisher.run());
    handle.set_active(true);
    // Far more than fit at once: each waits until there is room.
    const HITS: u64 = 1_000;
    tokio::task::spawn_blocking(move || {
        for number in 0..HITS {
            let mut hit = hit(0, 8);
            let memory = StackMemory { registers: [0; 16], bytes: vec![number as u8; COPY], bytes_max: COPY as u32 };
            hit.captured.stack_memory = Some(Box::new(memory));
            while sink.begin().stamp(clock::domain_now_ns()).submit(hit.clone()).is_err() {
                std::thread::yield_now();
            }
        }
    })
    .await
    .unwrap();
    handle.finish();
    task.await.unwrap();
    let batches = bus.stored.lock().unwrap().batches();
    let hits: Vec<_> = batches.iter().flat_map(|batch| &batch.hits).collect();
    assert_eq!(hits.len() as u64, HITS);
    for (number, hit) in hits.iter().enumerate() {
        // The stack has as many frames as a hit may have; callers are inside their calls.
        assert_eq!(hit.stack[1].0, u64::from(number as u8).saturating_sub(1));
        assert_eq!((hit.stack.len(), hit.stack_end), (STACK_FRAMES_MAX, StackEnd::Frames));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_there_are_probes_the_watermark_moves_on_without_hits() {
    let bus = FlakyBus::default();
    let queue = HitQueue::new(QueueLimits::default());
    let _tracer = queue.sink();
    let publisher = Publisher::new(source(), MESSAGE_BYTES_MAX, 100_000, queue, Arc::new(NamedByNumber), bus.clone());
    let handle = publisher.handle();
    let task = tokio::spawn(publisher.run());
    let since_ns = clock::domain_now_ns();
    handle.set_active(true);
    let beats = async {
        while bus.stored.lock().unwrap().1.len() < 4 {
            bus.news.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), beats).await.expect("the publisher says the watermark");
    handle.finish();
    task.await.unwrap();
    let batches = bus.stored.lock().unwrap().batches();
    check(&batches);
    assert!(batches.windows(2).all(|pair| pair[0].watermark_ns < pair[1].watermark_ns));
    assert!(
        batches.iter().all(Batch::is_watermark) && bus.tries.load(Ordering::SeqCst) == 0,
        "nobody says that it arrived"
    );
    assert!(batches[3].watermark_ns > since_ns && batches[3].watermark_ns < clock::domain_now_ns());
}

/// A publisher over a bus that is well, and what it stores.
struct Publishing {
    bus: FlakyBus,
    handle: super::publisher::PublisherHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Publishing {
    fn of(queue: HitQueue) -> Publishing {
        let bus = FlakyBus::default();
        let named = Arc::new(NamedByNumber);
        let publisher = Publisher::new(source(), MESSAGE_BYTES_MAX, 100_000, queue, named, bus.clone());
        let handle = publisher.handle();
        Publishing { bus, handle, task: tokio::spawn(publisher.run()) }
    }

    /// Waits until batches fulfil a condition.
    async fn until(&self, what: &str, holds: impl Fn(&[Batch]) -> bool) {
        let arrived = async {
            while !holds(&self.bus.stored.lock().unwrap().batches()) {
                self.bus.news.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrived).await.unwrap_or_else(|_| panic!("{what}"));
    }

    /// Ends, and returns hits and drops.
    async fn finish(self) -> (u64, BTreeMap<DropReason, u64>) {
        self.handle.finish();
        self.task.await.unwrap();
        check(&self.bus.stored.lock().unwrap().batches())
    }
}

fn hits_of(batches: &[Batch]) -> usize {
    batches.iter().map(|batch| batch.hits.len()).sum()
}

/// A ring that waits for a commit holds the promise back; it may come after the last probe is long gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_hits_arrive_however_long_the_watermark_stands_still() {
    let queue = HitQueue::new(QueueLimits::default());
    let mut sink = queue.sink();
    let now_ns = clock::domain_now_ns();
    sink.promise(now_ns);
    // No probe is there, and none ever was: nobody beats.
    let publishing = Publishing::of(queue);
    sink.submit_all(&mut vec![hit(now_ns + 10, 8), hit(now_ns + 20, 8)], |_, reason| panic!("{reason:?}"));
    sink.count_dropped(&tracepoint(), PROCESS, DropReason::Ring, 3);
    // The drops travel at once: by then the hits were taken, and wait.
    publishing.until("drops arrive", |batches| batches.iter().any(|batch| !batch.drops.is_empty())).await;
    assert_eq!(hits_of(&publishing.bus.stored.lock().unwrap().batches()), 0);
    sink.promise(now_ns + 15);
    publishing.until("what was promised to be complete arrives", |batches| hits_of(batches) == 1).await;
    drop(sink);
    publishing.until("a tracer that is gone holds nothing back", |batches| hits_of(batches) == 2).await;
    let (hits, drops) = publishing.finish().await;
    assert_eq!((hits, drops), (2, BTreeMap::from([(DropReason::Ring, 3)])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_waits_for_the_watermark_of_its_last_hits() {
    let queue = HitQueue::new(QueueLimits::default());
    let mut sink = queue.sink();
    let publishing = Publishing::of(queue);
    // As a clock that is read elsewhere may be ahead of this one.
    let ahead_ns = clock::domain_now_ns() + 60_000_000;
    sink.submit_all(&mut vec![hit(ahead_ns, 8)], |_, reason| panic!("{reason:?}"));
    assert_eq!(publishing.finish().await.0, 1);
}

//! One pass over the rings of a process: records become hits, and a promise is made of what can no longer come.
//!
//! The order of a pass is the argument of [`super::rings`]: read the counter, then the heads, consume up to them, hand
//! over, promise. It reads the counter and no other clock.

use super::book::{Book, Entry, Kind};
use super::rings::{Stand, Watch, consume, skip};
use super::shared::SharedMemory;
use super::threads::Threads;
use super::tsc::TscClock;
use crate::engine::record::{KIND, Record};
use crate::engine::x86_64::counter;
use crate::publish::sink::{CapturedHit, HitSink};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::ProcessKey;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A ring that has waited so long for a commit is looked into: is the thread still in the pad? In nanoseconds: a thread
/// is off its CPU for a few milliseconds as a rule, on a loaded machine for some hundred.
pub(super) const LOOKED_INTO_NS: u64 = 1_000_000_000;
/// After so long a ring that waits holds back the order no more, in nanoseconds: a stopped process must not stop the
/// stream of its host. What is committed later is dropped and counted.
pub(super) const GIVEN_UP_NS: u64 = 5_000_000_000;

/// How a record's bytes are read.
pub(super) type Decode = fn(&Kind, &[u8]) -> Option<Record>;

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Records taken out.
    pub(super) records: usize,
    /// Bytes that were in the fullest ring.
    pub(super) fullest: u64,
    /// A ring that has waited for [`LOOKED_INTO_NS`], and the position that it waits at.
    pub(super) stuck: Option<(usize, u64)>,
    /// The process has written something else into a ring.
    pub(super) is_broken: bool,
    /// Domain time of the pass, in nanoseconds.
    pub(super) now_ns: u64,
}

/// The reader's state.
pub(super) struct Drain {
    process: ProcessKey,
    memory: Arc<SharedMemory>,
    book: Arc<Mutex<Book>>,
    sink: HitSink,
    clock: &'static TscClock,
    decode: Decode,
    threads: Threads,
    watch: Watch,
    buffer: Vec<u8>,
    found: Vec<(Arc<Kind>, Record)>,
    hits: Vec<CapturedHit>,
}

/// A panic elsewhere leaves the book in a state that others can go on with.
pub(super) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drain {
    /// Begins: no probe is on yet. What is in the rings is an earlier agent's.
    pub(super) fn new(
        process: ProcessKey,
        memory: Arc<SharedMemory>,
        book: Arc<Mutex<Book>>,
        sink: HitSink,
        clock: &'static TscClock,
        decode: Decode,
        threads: Threads,
    ) -> Drain {
        let watch = Watch::new(memory.cpus(), counter::now());
        let mut drain = Drain {
            process,
            memory,
            book,
            sink,
            clock,
            decode,
            threads,
            watch,
            buffer: Vec::new(),
            found: Vec::new(),
            hits: Vec::new(),
        };
        drain.promise(0, counter::now());
        drain
    }

    /// One pass.
    pub(super) fn pass(&mut self) -> Passed {
        let started = counter::now();
        let now_ns = self.clock.up_to(started).ns(started).unwrap_or_default();
        let book = Arc::clone(&self.book);
        let mut book = lock(&book);
        let heads: Vec<u64> = (0..self.memory.cpus()).map(|cpu| self.memory.head(cpu)).collect();
        let mut passed = Passed { now_ns, ..Passed::default() };
        for (cpu, &head) in heads.iter().enumerate() {
            passed.fullest = passed.fullest.max(head.saturating_sub(self.memory.tail(cpu)));
            let (found, decode) = (&mut self.found, self.decode);
            let stand = consume(&self.memory, cpu, head, &mut self.buffer, &mut |bytes| {
                passed.records += 1;
                take(&mut book, decode, bytes, found);
            });
            passed.is_broken |= stand == Stand::Broken;
            self.watch.read(cpu, started, head, self.memory.tail(cpu), stand, now_ns);
            if self.watch.waits(cpu, now_ns).is_some_and(|ns| ns >= LOOKED_INTO_NS) {
                passed.stuck = passed.stuck.or(self.watch.waits_at(cpu).map(|at| (cpu, at)));
            }
        }
        self.hand_over(&mut book);
        self.promise(now_ns, started);
        passed
    }

    /// A look that costs next to nothing: if no ring holds anything, everything until now was seen, and that is promised.
    /// Says whether it was so.
    pub(super) fn glance(&mut self) -> bool {
        let started = counter::now();
        let is_empty = |cpu| self.memory.head(cpu) == self.memory.tail(cpu);
        if !(0..self.memory.cpus()).all(is_empty) {
            return false;
        }
        let now_ns = self.clock.up_to(started).ns(started).unwrap_or_default();
        for cpu in 0..self.memory.cpus() {
            let tail = self.memory.tail(cpu);
            self.watch.read(cpu, started, tail, tail, Stand::Done, now_ns);
        }
        self.promise(now_ns, started);
        true
    }

    fn hand_over(&mut self, book: &mut Book) {
        if self.found.is_empty() {
            return;
        }
        let latest = counter::now();
        let line = self.clock.up_to(latest);
        for (kind, record) in self.found.drain(..) {
            // A stamp from the future is none.
            let time_ns = if record.tsc <= latest { line.ns(record.tsc) } else { None };
            let Some(time_ns) = time_ns else {
                self.sink.count_dropped(&kind.tracepoint, self.process, DropReason::Capture, 1);
                book.entry(&kind.tracepoint).into_iter().for_each(|entry| entry.refused(DropReason::Capture));
                continue;
            };
            self.hits.push(CapturedHit {
                tracepoint: kind.tracepoint.clone(),
                process: self.process,
                layout: kind.layout,
                time_ns,
                thread: self.threads.on_host(record.thread),
                captured: record.captured,
            });
        }
        drop(line);
        self.sink.submit_all(&mut self.hits, |hit, reason| {
            book.entry(&hit.tracepoint).into_iter().for_each(|entry| entry.refused(reason));
        });
    }

    fn promise(&mut self, now_ns: u64, now: u64) {
        let clear = self.watch.clear(now, now_ns, GIVEN_UP_NS);
        if let Some(clear_ns) = self.clock.up_to(clear).ns(clear) {
            self.sink.promise(clear_ns);
        }
    }

    /// Passes by the reservation that a ring waits for, as nobody will ever commit it: no thread is in a pad, or there is
    /// none any more. It is counted as dropped, for the probe that it names; if it names none, for any.
    pub(super) fn pass_by(&mut self, cpu: usize) {
        let tail = self.memory.tail(cpu);
        let kind = self.memory.ring_word(cpu, tail + KIND as u64) as u32;
        let book = Arc::clone(&self.book);
        let mut book = lock(&book);
        skip(&self.memory, cpu, &|kind| book.kind(kind).map(|kind| kind.record.max_bytes));
        let named = book.kind(kind).map(|kind| kind.tracepoint.clone());
        // One that names a kind of an earlier agent is none of this one's passages.
        let is_nameless = kind == 0;
        let any = book.entries().next().map(|(tracepoint, _)| tracepoint.clone()).filter(|_| is_nameless);
        let Some(tracepoint) = named.or(any) else { return };
        self.sink.count_dropped(&tracepoint, self.process, DropReason::Capture, 1);
        if let Some(entry) = book.entry(&tracepoint) {
            entry.recorded(0);
            entry.refused(DropReason::Capture);
        }
    }

    /// The process has ended: what is in the rings is all there will be.
    pub(super) fn finish(&mut self) {
        for cpu in 0..self.memory.cpus() {
            loop {
                let passed = self.pass();
                if passed.is_broken || self.memory.tail(cpu) >= self.memory.head(cpu) {
                    break;
                }
                if self.watch.waits(cpu, passed.now_ns).is_some() {
                    self.pass_by(cpu);
                }
            }
        }
    }

    /// Tells the publisher what the process has dropped since this was called last.
    pub(super) fn tell_drops(&mut self) {
        let mut book = lock(&self.book);
        let tell = |(tracepoint, entry): (&_, &mut Entry)| {
            for (reason, count) in entry.news(&self.memory) {
                self.sink.count_dropped(tracepoint, self.process, reason, count);
            }
        };
        book.entries().for_each(tell);
        book.late().for_each(tell);
    }
}

/// Decodes one record and counts it for its probe. What cannot be decoded is a drop; what is of no known kind was left
/// by an agent before this one, or of a probe that is long gone.
fn take(book: &mut Book, decode: Decode, bytes: &[u8], found: &mut Vec<(Arc<Kind>, Record)>) {
    let number = bytes.get(KIND..KIND + 4).map(|kind| u32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]));
    let Some(kind) = number.and_then(|number| book.kind(number)) else {
        tracing::debug!(target: "engine", ?number, "a record of an unknown kind");
        return;
    };
    if let Some(entry) = book.entry(&kind.tracepoint) {
        entry.recorded(bytes.len());
    }
    // A record that does not decode still says when it was not: its stamp is from the future, which counts as a drop.
    let undecoded =
        || Record { kind: number.unwrap_or_default(), tsc: u64::MAX, thread: None, captured: Default::default() };
    let record = decode(&kind, bytes).unwrap_or_else(undecoded);
    found.push((kind, record));
}

#[cfg(test)]
mod tests {
    use super::super::shared::{Slot, fake};
    use super::*;
    use crate::capture::interpreter::Captured;
    use crate::clock::domain_now_ns;
    use crate::engine::area::COUNTER_RING;
    use crate::engine::inprocess::book::tests_support::kind;
    use crate::publish::sink::{HitQueue, QueueLimits};
    use riptrace_protocol::fleet::Mechanism;
    use riptrace_protocol::ids::TracepointId;
    use std::sync::atomic::{AtomicBool, Ordering};

    const PROCESS: ProcessKey = ProcessKey { pid: 1, start_time: 2 };

    /// A record that is nothing but its stamp, in the place where the generator has it.
    fn decode(_: &Kind, bytes: &[u8]) -> Option<Record> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Some(Record { kind: word(16) as u32, tsc: word(24), thread: Some(7), captured: Captured::default() })
    }

    fn bytes_of(at: u64, length: u32, kind: u32, tsc: u64) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[..8].copy_from_slice(&(at + 1).to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&48u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&kind.to_le_bytes());
        bytes[24..32].copy_from_slice(&tsc.to_le_bytes());
        bytes
    }

    struct World {
        memory: Arc<SharedMemory>,
        book: Arc<Mutex<Book>>,
        drain: Drain,
        queue: HitQueue,
        id: TracepointId,
        kind: u32,
        slot: Slot,
    }

    fn world(cpus: usize) -> World {
        let memory = Arc::new(fake::memory(cpus));
        let mut book = Book::new(40);
        let id = TracepointId::new("t").unwrap();
        let slot = book.take_slot(0).unwrap();
        let number = book.add_kind(kind(&id, false));
        book.open(&memory, id.clone(), slot, Mechanism::Jump, vec![number], None);
        let book = Arc::new(Mutex::new(book));
        let queue = HitQueue::new(QueueLimits::default());
        let clock = TscClock::shared().unwrap();
        let threads = Threads::same_namespace();
        let drain = Drain::new(PROCESS, Arc::clone(&memory), Arc::clone(&book), queue.sink(), clock, decode, threads);
        World { memory, book, drain, queue, id, kind: number, slot }
    }

    /// What a pad does.
    fn passage(memory: &SharedMemory, cpu: usize, slot: Slot, kind: u32, bytes: usize) -> bool {
        let Some(at) = memory.reserve(cpu, bytes) else {
            memory.count(cpu, slot, COUNTER_RING, 1);
            return false;
        };
        let record = bytes_of(at, bytes as u32, kind, counter::now());
        memory.write(cpu, at + 8, &record[8..]);
        memory.write(cpu, at, &record[..8]);
        true
    }

    #[test]
    fn records_become_hits_with_their_times() {
        let mut world = world(2);
        let before = domain_now_ns();
        for n in 0..10 {
            assert!(passage(&world.memory, n % 2, world.slot, world.kind, 64));
        }
        let after = domain_now_ns();
        // Of an agent before this one.
        assert!(passage(&world.memory, 0, world.slot, 3, 64));
        let passed = world.drain.pass();
        assert_eq!((passed.records, passed.is_broken, passed.stuck), (11, false, None));
        let taken = world.queue.take(domain_now_ns);
        assert_eq!(taken.hits.len(), 10);
        for hit in &taken.hits {
            assert!(hit.time_ns + 20_000 > before && hit.time_ns < after + 20_000, "{before} {} {after}", hit.time_ns);
            assert_eq!((hit.thread, &hit.tracepoint), (7, &world.id));
        }
        assert!(taken.watermark_ns + 20_000 > after, "{} {after}", taken.watermark_ns);
        let counts = lock(&world.book).entry(&world.id).unwrap().counts(&world.memory);
        assert_eq!((counts.passages, counts.hits), (10, 10));
    }

    #[test]
    fn a_reservation_holds_the_promise_and_an_abandoned_one_is_counted() {
        let mut world = world(1);
        world.drain.pass();
        let promised = world.queue.take(domain_now_ns).watermark_ns;
        let at = world.memory.reserve(0, 128).unwrap();
        let tsc = counter::now();
        assert!(passage(&world.memory, 0, world.slot, world.kind, 64));
        world.drain.pass();
        world.drain.pass();
        assert_eq!(world.queue.take(domain_now_ns).watermark_ns, promised, "the record may still be committed");
        // It is, and everything goes on.
        world.memory.write(0, at, &bytes_of(at, 128, world.kind, tsc));
        world.drain.pass();
        let taken = world.queue.take(domain_now_ns);
        assert_eq!(taken.hits.len(), 2);
        assert!(taken.watermark_ns > promised && taken.hits.iter().all(|hit| hit.time_ns >= promised));
        // Another one is not.
        let lost = world.memory.reserve(0, 256).unwrap();
        world.memory.write(0, lost + 8, &bytes_of(lost, 256, world.kind, 0)[8..]);
        assert!(passage(&world.memory, 0, world.slot, world.kind, 64));
        world.drain.pass();
        world.drain.pass_by(0);
        world.drain.pass();
        let taken = world.queue.take(domain_now_ns);
        assert_eq!((taken.hits.len(), taken.drops.len()), (1, 1));
        assert_eq!((taken.drops[0].reason, taken.drops[0].count), (DropReason::Capture, 1));
        let counts = lock(&world.book).entry(&world.id).unwrap().counts(&world.memory);
        assert_eq!((counts.passages, counts.hits, counts.dropped[&DropReason::Capture]), (4, 3, 1));
    }

    #[test]
    fn the_end_of_a_process_leaves_nothing_behind() {
        let mut world = world(2);
        world.memory.reserve(0, 64).unwrap();
        assert!(passage(&world.memory, 0, world.slot, world.kind, 64));
        world.memory.reserve(0, 96).unwrap();
        assert!(passage(&world.memory, 1, world.slot, world.kind, 64));
        world.memory.reserve(1, 64).unwrap();
        world.drain.finish();
        assert_eq!(world.queue.take(domain_now_ns).hits.len(), 2);
        assert_eq!((world.memory.tail(0), world.memory.tail(1)), (world.memory.head(0), world.memory.head(1)));
        let counts = lock(&world.book).entry(&world.id).unwrap().counts(&world.memory);
        assert_eq!((counts.passages, counts.hits), (5, 2));
    }

    #[test]
    fn a_ring_that_the_process_has_overwritten_is_told() {
        let mut world = world(1);
        let at = world.memory.reserve(0, 64).unwrap();
        world.memory.write(0, at, &bytes_of(at, 7, world.kind, 0));
        assert!(world.drain.pass().is_broken);
        // From the future.
        let mut world = self::world(1);
        let at = world.memory.reserve(0, 64).unwrap();
        world.memory.write(0, at, &bytes_of(at, 64, world.kind, u64::MAX));
        world.drain.pass();
        let taken = world.queue.take(domain_now_ns);
        assert_eq!((taken.hits.len(), taken.drops[0].reason), (0, DropReason::Capture));
    }

    /// Two threads that hit all the time beside a reader and a publisher: every passage arrives or is counted, and none
    /// after a watermark that it breaks.
    #[test]
    fn hits_and_drops_are_the_passages_under_load() {
        let mut world = world(2);
        let running = Arc::new(AtomicBool::new(true));
        let writers: Vec<_> = (0..2)
            .map(|cpu| {
                let (memory, running) = (Arc::clone(&world.memory), Arc::clone(&running));
                let (slot, kind) = (world.slot, world.kind);
                std::thread::spawn(move || {
                    let mut count = (0u64, 0u64);
                    while running.load(Ordering::Relaxed) {
                        match passage(&memory, cpu, slot, kind, 64 + (count.0 as usize % 5) * 8) {
                            true => count.0 += 1,
                            false => count.1 += 1,
                        }
                    }
                    count
                })
            })
            .collect();
        let (mut received, mut watermark_ns, mut drops, mut read) = (0u64, 0, 0u64, 0);
        let mut take = |queue: &mut HitQueue| {
            let taken = queue.take(domain_now_ns);
            assert!(taken.hits.iter().all(|hit| hit.time_ns >= watermark_ns), "older than {watermark_ns}");
            watermark_ns = taken.watermark_ns;
            let bytes = taken.hits.iter().map(CapturedHit::weight).sum();
            queue.release(taken.hits.len(), bytes);
            received += taken.hits.len() as u64;
            drops += taken.drops.iter().map(|drop| drop.count).sum::<u64>();
        };
        let mut passes = 0;
        while read < 20_000 {
            passes += 1;
            assert!(passes < 1_000_000, "the writers have stopped");
            read += world.drain.pass().records;
            take(&mut world.queue);
        }
        running.store(false, Ordering::Relaxed);
        let (mut recorded, mut no_room) = (0, 0);
        for writer in writers {
            let count = writer.join().unwrap();
            recorded += count.0;
            no_room += count.1;
        }
        world.drain.finish();
        world.drain.tell_drops();
        take(&mut world.queue);
        let counts = lock(&world.book).entry(&world.id).unwrap().counts(&world.memory);
        assert_eq!(counts.passages, recorded + no_room);
        assert_eq!(counts.hits, received);
        assert_eq!(counts.dropped.values().sum::<u64>(), drops);
        assert_eq!(received + drops, recorded + no_room);
    }
}

//! The reader: one thread per process that takes the hits out of its rings, and keeps its probes within their budgets.
//!
//! It sleeps between passes, the longer the less there is: [`SHORTEST`] while hits come, [`LONGEST`] when none do, and not
//! at all while a ring is filling up, as far as its own share of the host goes ([`Effort`]). It wakes up for the end of
//! the process and for whoever rings its bell. While the rings stay empty it only glances at them: a pass follows after
//! [`GLANCES_MAX`]. After [`CALM_AFTER_NS`] without anything it rests, and others glance for it.
//!
//! Not here: what a pass does ([`super::drain`]), what a budget decides ([`super::budget`]).

use super::book::Book;
use super::budget::{Effort, Share, Verdict};
use super::drain::{Drain, Passed, lock};
use super::life::{Life, Watched};
use super::shared::SharedMemory;
use crate::clock::domain_now_ns;
use crate::engine::api::EngineEvent;
use crate::engine::area::RING_BYTES;
use crate::engine::sys::Tid;
use nix::time::{ClockId, clock_gettime};
use riptrace_protocol::ids::TracepointId;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sleep while hits come: five passes within the time that a batch waits to be published. What comes faster than 30 MB/s
/// fills a ring to a part of [`FILLING`] meanwhile, and is read without sleep.
const SHORTEST: Duration = Duration::from_millis(4);
/// Sleep when none come: a ring takes 10 MB/s for so long. To wake up is what costs: ten times a second is well below a
/// thousandth of a core.
const LONGEST: Duration = Duration::from_millis(100);
/// Sleep after a long silence: after so long there is a pass, whether or not somebody else has had a glance at the rings.
const CALM: Duration = Duration::from_secs(2);
/// How long a silence is long, in nanoseconds.
const CALM_AFTER_NS: u64 = 10_000_000_000;
/// Glances at empty rings in a row, before a pass looks at the process, its counters and the budgets: twice a second.
const GLANCES_MAX: u32 = 4;
/// A ring that is filled to this part is read again at once.
const FILLING: u64 = RING_BYTES as u64 / 8;
/// Budgets are filled and drops told this often, in nanoseconds: well within the second that a budget holds.
const REFILL_NS: u64 = 50_000_000;
/// The share of a CPU is looked at this often, in nanoseconds.
const SHARE_NS: u64 = 500_000_000;
/// A ring that is stuck is looked into again after this, in nanoseconds: all threads stop for it.
const LOOK_INTO_AGAIN_NS: u64 = 2_000_000_000;
/// Wakes the reader up, and waits until it has read all that was there.
#[derive(Debug)]
pub(super) struct Bell {
    event: OwnedFd,
    passes: Mutex<(u64, u64)>,
    passed: Condvar,
    stop: AtomicBool,
    is_needed: AtomicBool,
}

impl Bell {
    /// A bell.
    pub(super) fn new() -> io::Result<Bell> {
        // SAFETY: a system call without pointers (eventfd(2)).
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and belongs to nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let (passes, passed) = (Mutex::new((0, 0)), Condvar::new());
        Ok(Bell { event, passes, passed, stop: AtomicBool::new(false), is_needed: AtomicBool::new(false) })
    }

    /// Whether the reader looks at nothing by itself for a while.
    pub(super) fn is_needed(&self) -> bool {
        self.is_needed.load(Ordering::SeqCst)
    }

    /// Wakes the reader up.
    pub(super) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes that live for the call. It fails only when the counter is full: then it is ringing already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn silence(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes of this function's own.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Ends the reader after one more pass.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Waits until a pass that began after now is over, or the reader has ended ([`Ended`] says so, however it ends). A
    /// reader that is given no processor is waited for: what it has not read is not counted, and would be lost silently.
    /// Says whether there will be further passes.
    pub(super) fn wait_for_pass(&self) -> bool {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.0 += 1;
        let wanted = passes.0;
        self.ring();
        let passes = self.passed.wait_while(passes, |passes| passes.1 < wanted);
        passes.unwrap_or_else(PoisonError::into_inner).1 != u64::MAX
    }

    /// The requests until now: what a pass that begins now answers.
    fn asked(&self) -> u64 {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn answer(&self, asked: u64) {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.1 = passes.1.max(asked);
        self.passed.notify_all();
    }
}

/// Nobody waits for a reader that has ended, be it by a panic.
struct Ended(Arc<Bell>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.answer(u64::MAX);
    }
}

/// The threads of the process that are in a pad, or will come back to one, while all stand still; `None` where that cannot
/// be told.
pub(super) type InPads = Box<dyn Fn() -> Option<BTreeSet<Tid>> + Send>;

/// A reservation that is not committed, and the threads that may have made it: those that were in a pad at every look.
struct Suspects {
    cpu: usize,
    at: u64,
    threads: BTreeSet<Tid>,
}

/// The thread's state.
pub(super) struct Reader {
    pub(super) drain: Arc<Mutex<Drain>>,
    pub(super) memory: Arc<SharedMemory>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) watched: Arc<Watched>,
    pub(super) bell: Arc<Bell>,
    pub(super) share: Share,
    pub(super) in_pads: InPads,
    /// Takes the traps of a probe that was switched off out of the text: they cost as much as before.
    pub(super) switched_off: Box<dyn Fn(TracepointId) + Send>,
}

impl Reader {
    /// Reads until the process ends or the bell says so. Returns what happened to the process, if anything did.
    pub(super) fn run(mut self) -> Option<EngineEvent> {
        let _ended = Ended(Arc::clone(&self.bell));
        let mut sleep = SHORTEST;
        let (mut refilled_ns, mut shared_ns, mut looked_into_ns) = (0, 0, 0);
        let mut came_ns = domain_now_ns();
        let mut answered = 0;
        let mut suspects: Option<Suspects> = None;
        let mut effort = Effort::new(self.memory.cpus(), domain_now_ns());
        let mut worked_ns = thread_cpu_ns();
        loop {
            let asked = self.bell.asked();
            let stops = self.bell.stop.load(Ordering::SeqCst);
            let passed = self.drain().pass();
            if asked > answered {
                // Whoever waits is about to close a probe's books.
                self.drain().tell_drops();
                answered = asked;
            }
            self.bell.answer(asked);
            if passed.records > 0 {
                came_ns = passed.now_ns;
            }
            if passed.is_broken {
                return Some(self.give_up());
            }
            if let Some((cpu, at)) = passed.stuck
                && passed.now_ns >= looked_into_ns + LOOK_INTO_AGAIN_NS
            {
                looked_into_ns = passed.now_ns;
                suspects = self.look_into(cpu, at, suspects);
                if suspects.is_none() {
                    self.drain().pass_by(cpu);
                    continue;
                }
            }
            if passed.now_ns >= refilled_ns + REFILL_NS {
                refilled_ns = passed.now_ns;
                self.refill(passed.now_ns);
            }
            if passed.now_ns >= shared_ns + SHARE_NS {
                self.look_at_share(passed.now_ns.saturating_sub(shared_ns));
                shared_ns = passed.now_ns;
            }
            if stops {
                self.drain().tell_drops();
                self.bell.answer(u64::MAX);
                return None;
            }
            sleep = after(sleep, passed);
            let work_ns = thread_cpu_ns();
            let rest = effort.took(passed.now_ns, work_ns.saturating_sub(worked_ns));
            worked_ns = work_ns;
            let wait = sleep.max(Duration::from_nanos(rest));
            if wait > Duration::ZERO {
                let is_quiet = wait == LONGEST && passed.stuck.is_none();
                let is_calm = is_quiet && passed.now_ns >= came_ns + CALM_AFTER_NS;
                match (is_quiet, is_calm) {
                    (_, true) => {
                        self.bell.is_needed.store(true, Ordering::SeqCst);
                        self.rest(CALM, 0);
                        self.bell.is_needed.store(false, Ordering::SeqCst);
                    }
                    (true, false) => self.rest(wait, GLANCES_MAX),
                    (false, false) => self.rest(wait, 0),
                }
            }
            match self.watched.look() {
                Life::Lives => {}
                Life::Ended => {
                    self.end();
                    return Some(EngineEvent::Exited { status: self.watched.status() });
                }
                Life::Execed => {
                    self.end();
                    return Some(EngineEvent::Execed);
                }
            }
        }
    }

    fn drain(&self) -> MutexGuard<'_, Drain> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, and again for as long as all rings are empty, so many times.
    fn rest(&mut self, sleep: Duration, glances_max: u32) {
        for glance in 0..=glances_max {
            if glance > 0 && !self.drain().glance() {
                break;
            }
            if wait_readable([self.watched.descriptor(), self.bell.event.as_fd()], sleep) {
                self.bell.silence();
                break;
            }
        }
    }

    /// Who may have made the reservation that a ring waits for; nobody, if it is abandoned. Others pass pads all the time,
    /// so that some thread is in one at each look; the one that made it is in one at every look.
    fn look_into(&self, cpu: usize, at: u64, before: Option<Suspects>) -> Option<Suspects> {
        let before = before.filter(|suspects| (suspects.cpu, suspects.at) == (cpu, at));
        let Some(now) = (self.in_pads)() else {
            return Some(before.unwrap_or(Suspects { cpu, at, threads: BTreeSet::from([Tid::MAX]) }));
        };
        let is_known = |suspects: &Suspects| !suspects.threads.contains(&Tid::MAX);
        let threads: BTreeSet<Tid> = match before.filter(is_known) {
            Some(before) => before.threads.intersection(&now).copied().collect(),
            None => now,
        };
        (!threads.is_empty()).then_some(Suspects { cpu, at, threads })
    }

    /// Nothing more will come.
    fn end(&mut self) {
        self.drain().finish();
        self.drain().tell_drops();
        self.bell.stop.store(true, Ordering::SeqCst);
        self.bell.answer(u64::MAX);
    }

    fn give_up(&mut self) -> EngineEvent {
        for (_, entry) in lock(&self.book).entries() {
            self.memory.enable(entry.slot, false);
        }
        self.drain().tell_drops();
        self.bell.stop.store(true, Ordering::SeqCst);
        self.bell.answer(u64::MAX);
        let why = "the process has written into the memory of its tracepoints by itself: they are off; it may have a \
                   defect that overwrites memory";
        EngineEvent::Lost { why: why.to_owned() }
    }

    fn refill(&mut self, now_ns: u64) {
        let mut book = lock(&self.book);
        for (_, entry) in book.entries() {
            if let Some(tokens) = &mut entry.tokens {
                let more = tokens.refill(now_ns, self.memory.tokens(entry.slot));
                if more > 0 {
                    self.memory.add_tokens(entry.slot, more);
                }
            }
        }
        drop(book);
        self.drain().tell_drops();
    }

    fn look_at_share(&mut self, passed_ns: u64) {
        let mut book = lock(&self.book);
        let mut live = Vec::new();
        let mut looks = Vec::new();
        for (tracepoint, entry) in book.entries() {
            let looked = entry.look(&self.memory);
            if entry.off.is_none() {
                live.push(tracepoint.clone());
                looks.push(looked);
            }
        }
        let verdicts = self.share.look(passed_ns, &looks);
        let mut off = Vec::new();
        for (tracepoint, verdict) in live.into_iter().zip(verdicts) {
            let Some(entry) = book.entry(&tracepoint) else { continue };
            match verdict {
                Verdict::Keep => {}
                Verdict::Thin { shift, why } => {
                    self.memory.set_sampling(entry.slot, shift);
                    entry.shift = shift;
                    entry.sampling = (!why.is_empty()).then_some(why);
                }
                Verdict::Off { why } => {
                    self.memory.enable(entry.slot, false);
                    entry.off = Some(why);
                    off.push(tracepoint);
                }
            }
        }
        drop(book);
        off.into_iter().for_each(|tracepoint| (self.switched_off)(tracepoint));
    }
}

/// Processor time of this thread, in nanoseconds; 0 where it cannot be told.
fn thread_cpu_ns() -> u64 {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.map_or(0, |spent| spent.tv_sec() as u64 * 1_000_000_000 + spent.tv_nsec() as u64)
}

/// Waits until one of them can be read, for at most a time, and says whether one can. A signal ends the wait early, which
/// does no harm.
fn wait_readable(descriptors: [BorrowedFd<'_>; 2], within: Duration) -> bool {
    let poll = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls = descriptors.map(poll);
    let within = libc::timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    // SAFETY: two entries and a time, which live for the call; no signal mask is given.
    unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, &within, std::ptr::null()) > 0 }
}

/// How long to sleep after a pass.
fn after(sleep: Duration, passed: Passed) -> Duration {
    if passed.fullest >= FILLING {
        Duration::ZERO
    } else if passed.records > 0 {
        SHORTEST
    } else {
        (sleep * 2).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_sleeps_the_longer_the_less_there_is() {
        let passed = |records, fullest| Passed { records, fullest, ..Passed::default() };
        assert_eq!(after(LONGEST, passed(1, 64)), SHORTEST);
        assert_eq!(after(SHORTEST, passed(100, FILLING)), Duration::ZERO);
        let mut sleep = Duration::ZERO;
        let sleeps: Vec<u128> = (0..7)
            .map(|_| {
                sleep = after(sleep, passed(0, 0));
                sleep.as_millis()
            })
            .collect();
        assert_eq!(sleeps, [4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn whoever_rings_hears_of_a_pass_that_began_afterwards() {
        let bell = Arc::new(Bell::new().unwrap());
        let reader = Arc::clone(&bell);
        let thread = std::thread::spawn(move || {
            let mut passes = 0;
            while !reader.stop.load(Ordering::SeqCst) {
                let asked = reader.asked();
                passes += 1;
                reader.answer(asked);
                wait_readable([reader.event.as_fd(); 2], Duration::from_millis(5));
                reader.silence();
            }
            passes
        });
        (0..20).for_each(|_| assert!(bell.wait_for_pass()));
        bell.end();
        assert!(thread.join().unwrap() >= 20);
        // Nobody answers any more, and nobody waits, however the reader ended.
        let ended = Ended(Arc::clone(&bell));
        let panicked = std::thread::spawn(move || {
            let _ended = ended;
            panic!("a reader that panics");
        });
        assert!(panicked.join().is_err());
        assert!(!bell.wait_for_pass());
    }
}

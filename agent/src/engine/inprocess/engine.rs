//! The engine of one process: arms and removes probes, and lets the process go.
//!
//! Three parts share one process. [`Text`] (behind a lock) is what is installed; [`Book`] (behind another, never held
//! while the process is waited for) is what is counted; the reader thread takes hits out, with its [`Drain`] locked, which
//! is shared for glances while it rests. Locks are taken in the order text, drain, book.

use super::book::{Book, Kind};
use super::budget::{Share, Tokens};
use super::drain::{Decode, Drain, GIVEN_UP_NS, lock};
use super::leftovers::{Alone, sweep_alone};
use super::life::{Life, Watched};
use super::reader::{Bell, Reader};
use super::shared::SharedMemory;
use super::sites::{Form, JUMP_BYTES, Placed, Placement, place};
use super::text::{Change, Text, User};
use super::threads::Threads;
use super::tsc::TscClock;
use crate::clock::domain_now_ns;
use crate::engine::api::{
    ArmError, ArmOutcome, AttachError, AttachOptions, Counts, EngineEvent, Mechanisms, Probe, SitePatch,
};
use crate::engine::area::PROBES_MAX;
use crate::engine::inject::{InjectError, Injection, RemoteCall};
use crate::engine::patch;
use crate::engine::record::{self, RecordLayout};
use crate::engine::sys::Tid;
use crate::engine::x86_64::analysis::{Refusal, SiteChoice};
use crate::engine::x86_64::counter;
use crate::publish::sink::HitSink;
use crate::target;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::ids::{Avma, ProcessKey, TracepointId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Tries to arm sites, each time with those as traps that could not be jumps.
const TRIES_MAX: usize = 4;
/// Where in control a remote call may write its result: behind what injection uses.
const SCRATCH: usize = 0x8c0;
/// An earlier agent's pads are looked into so many times, until nobody is in one.
const QUIET_TRIES_MAX: u32 = 20;
/// Pause between two looks: a thread leaves a pad within some microseconds, if it runs.
const QUIET_PAUSE: Duration = Duration::from_millis(5);
/// A ring that so many passes did not get through, each [`QUIET_PAUSE`] after the one before, is stuck, and not only behind
/// threads that were off their CPUs.
const READ_PASSES_MAX: u32 = 100;
/// `PR_GET_TSC` and its answer for a process that may read the counter (prctl(2)).
const PR_GET_TSC: u64 = 25;
const PR_TSC_ENABLE: u32 = 1;

/// Why a process is not traced from the inside.
#[derive(Debug)]
pub(in crate::engine) enum NotInside {
    /// It cannot be traced at all.
    Never(AttachError),
    /// The other backend may do it. For a person.
    Elsewhere(String),
}

/// The tracepoints inside one process. Dropping it lets the process go.
pub(in crate::engine) struct InProcessEngine {
    inside: Arc<Inside>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

/// What the engine shares with its helpers.
struct Inside {
    key: ProcessKey,
    memory: Arc<SharedMemory>,
    book: Arc<Mutex<Book>>,
    /// Behind the lock of the text, and before the book's.
    drain: Arc<Mutex<Drain>>,
    bell: Arc<Bell>,
    watched: Arc<Watched>,
    /// `None` once the process was let go of.
    text: Mutex<Option<Text>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode() -> Decode {
    |kind, bytes| match record::decode(&kind.record, &kind.program, bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::debug!(target: "engine", %error, "a record cannot be read");
            None
        }
    }
}

impl InProcessEngine {
    /// Prepares a process: memory, handlers, reader. Nothing is patched.
    ///
    /// `notify` is called at most once, by the reader, when the process ends, starts another program, or cannot be traced
    /// any longer; it must not call the engine. Blocks for some milliseconds.
    pub(in crate::engine) fn attach(
        key: ProcessKey,
        sink: HitSink,
        options: &AttachOptions,
        notify: Box<dyn Fn(EngineEvent) + Send>,
    ) -> Result<InProcessEngine, NotInside> {
        let never = |error| NotInside::Never(AttachError::Target(error));
        target::check(key).map_err(never)?;
        let clock = TscClock::shared().map_err(|error| NotInside::Elsewhere(error.to_string()))?;
        let elsewhere = |error: InjectError| match error {
            InjectError::Target(error) => never(error),
            InjectError::Gone => never(target::TargetError::Gone { pid: key.pid }),
            other => NotInside::Elsewhere(other.to_string()),
        };
        // A child by fork(2) has its parent's patches.
        let alone = Alone::with(key);
        match sweep_alone(&alone) {
            Ok(0) => {}
            Ok(sites) => tracing::info!(target: "engine", pid = key.pid, sites, "patches of others were taken out"),
            Err(error) => tracing::debug!(target: "engine", pid = key.pid, %error, "what others left is not known"),
        }
        let may_trap = options.runtime.is_go || options.mechanisms == Mechanisms::Inside;
        let mut injection = Injection::open_for(key, may_trap).map_err(elsewhere)?;
        if !reads_counter(&mut injection).map_err(elsewhere)? {
            return Err(NotInside::Elsewhere("it has forbidden itself to read the time stamp counter".to_owned()));
        }
        let memory = Arc::new(SharedMemory::of(Arc::clone(injection.area())));
        let header = injection.first_island().control;
        let is_adopted = injection.facts().is_adopted;
        let text = Text::open(key, injection, options.runtime, may_trap).map_err(elsewhere)?;
        if is_adopted {
            forget_rings(key, &text, &memory);
        }
        drop(alone);
        let spawn = |source| NotInside::Never(AttachError::Spawn { pid: key.pid, source });
        let watched = Arc::new(Watched::new(key, header).map_err(spawn)?);
        let bell = Arc::new(Bell::new().map_err(spawn)?);
        let book = Arc::new(Mutex::new(Book::new((counter::now() >> 12) as u32 | 1)));
        let threads = Threads::of(key);
        let drain = Drain::new(key, Arc::clone(&memory), Arc::clone(&book), sink, clock, decode(), threads);
        let drain = Arc::new(Mutex::new(drain));
        let inside = Arc::new(Inside {
            key,
            memory: Arc::clone(&memory),
            book: Arc::clone(&book),
            drain: Arc::clone(&drain),
            bell: Arc::clone(&bell),
            watched: Arc::clone(&watched),
            text: Mutex::new(Some(text)),
        });
        let (pads, off) = (Arc::downgrade(&inside), Arc::downgrade(&inside));
        let reader = Reader {
            drain,
            memory,
            book,
            watched,
            bell,
            share: Share::new(options.cpu_percent),
            in_pads: Box::new(move || in_pads(&pads)),
            switched_off: Box::new(move |tracepoint| switched_off(&off, tracepoint)),
        };
        let thread = thread::Builder::new().name(format!("reader-{}", key.pid)).spawn(move || {
            if let Some(event) = reader.run() {
                notify(event);
            }
        });
        Ok(InProcessEngine { inside, reader: Mutex::new(Some(thread.map_err(spawn)?)) })
    }

    /// Arms a probe: all of its sites, or none.
    pub(in crate::engine) fn arm(&self, probe: Probe) -> Result<ArmOutcome, ArmError> {
        let mut text = held(&self.inside.text);
        let text = text.as_mut().filter(|_| self.inside.watched.look() == Life::Lives).ok_or(ArmError::Gone)?;
        self.inside.arm(text, probe)
    }

    /// Removes a probe and says what became of its passages.
    pub(in crate::engine) fn disarm(&self, tracepoint: &TracepointId) -> Option<Counts> {
        let inside = &self.inside;
        let slot = lock(&inside.book).entry(tracepoint).map(|entry| entry.slot)?;
        inside.memory.enable(slot, false);
        let is_out = inside.take_out(tracepoint);
        let is_read = inside.wait_until_read();
        let mut book = lock(&inside.book);
        let counts = book.entry(tracepoint).map(|entry| entry.counts(&inside.memory))?;
        book.close(tracepoint, domain_now_ns(), is_out);
        Some(Counts { unfinished: !is_read, ..counts })
    }

    /// Wakes the reader up where it rests and something has come; says whether it did.
    pub(in crate::engine) fn glance(&self) -> bool {
        let inside = &self.inside;
        let finds = |drain: &mut Drain| !drain.glance();
        let wakes = inside.bell.is_needed() && inside.drain.try_lock().is_ok_and(|mut drain| finds(&mut drain));
        if wakes {
            inside.bell.ring();
        }
        wakes
    }

    /// Whether the reader leaves it to others to look at the rings.
    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        self.inside.bell.is_needed()
    }

    /// Counts of all probes.
    pub(in crate::engine) fn counts(&self) -> Vec<(TracepointId, Counts)> {
        let mut book = lock(&self.inside.book);
        book.entries().map(|(tracepoint, entry)| (tracepoint.clone(), entry.counts(&self.inside.memory))).collect()
    }

    /// Returns once everything that is in the rings now is read.
    #[cfg(test)]
    pub(super) fn read_now(&self) {
        assert!(self.inside.wait_until_read());
    }

    /// Takes everything out of the process and lets it go. May be called more than once.
    pub(in crate::engine) fn detach(&self) {
        let inside = &self.inside;
        for (_, entry) in lock(&inside.book).entries() {
            inside.memory.enable(entry.slot, false);
        }
        let mut text = held(&inside.text);
        if let Some(text) = text.as_mut()
            && inside.watched.look() == Life::Lives
            && let Err(error) = text.take_all_out()
        {
            tracing::warn!(
                target: "engine", pid = inside.key.pid, %error,
                "patches stay in the process: they do nothing, and the next agent takes them out"
            );
        }
        inside.bell.end();
        if let Some(reader) = held(&self.reader).take()
            && reader.join().is_err()
        {
            tracing::error!(target: "engine", "a reader has panicked");
        }
        // Gives the area up, so that another agent may take it over.
        *text = None;
    }
}

impl Drop for InProcessEngine {
    fn drop(&mut self) {
        self.detach();
    }
}

/// One site of a probe that is being armed.
struct Arming {
    patch: SitePatch,
    user: User,
}

impl Inside {
    fn arm(&self, text: &mut Text, probe: Probe) -> Result<ArmOutcome, ArmError> {
        let Probe { tracepoint, sites, rate_per_s } = probe;
        let now_ns = domain_now_ns();
        let mut book = lock(&self.book);
        if book.entry(&tracepoint).is_some() {
            return Err(ArmError::Duplicate(tracepoint));
        }
        if sites.is_empty() {
            return Err(ArmError::NoSites(tracepoint));
        }
        let slot = book.take_slot(now_ns).ok_or(ArmError::Probes(PROBES_MAX))?;
        let mut arming: BTreeMap<Avma, Arming> = BTreeMap::new();
        let mut kinds = Vec::new();
        let mut refused = None;
        for site in sites {
            let at = site.address;
            let patch = match site.patch {
                Ok(patch) => patch,
                Err(why) => {
                    refused = Some(cannot(text, why));
                    break;
                }
            };
            if let SiteChoice::Refused { why } = &patch.choice {
                let is_final = matches!(why, Refusal::Denied { .. } | Refusal::Restartable);
                let why = why.to_string();
                refused = Some(if is_final { ArmError::Refused(why) } else { cannot(text, why) });
                break;
            }
            let record = match RecordLayout::of(&site.program, at) {
                Ok(record) => record,
                Err(error) => {
                    refused = Some(ArmError::Refused(error.to_string()));
                    break;
                }
            };
            let kind = book.add_kind(Kind {
                tracepoint: tracepoint.clone(),
                layout: site.layout,
                program: Arc::clone(&site.program),
                record: record.clone(),
            });
            kinds.push(kind);
            let has_budget = rate_per_s.is_some() && !site.program.count_only;
            let user = User { tracepoint: tracepoint.clone(), slot, kind, program: site.program, record, has_budget };
            arming.entry(at).or_insert(Arming { patch, user });
        }
        drop(book);
        let stopped_before = text.stopped_ns;
        let outcome = match refused {
            Some(error) => Err(error),
            None => self.put_in(text, &arming),
        };
        let mut book = lock(&self.book);
        let placed = match outcome {
            Ok(placed) => placed,
            Err(error) => {
                book.drop_kinds(&kinds);
                book.give_slot(slot, now_ns);
                return Err(error);
            }
        };
        let costliest = placed.iter().max_by_key(|placed| (placed.form.mechanism(), placed.why.is_some()));
        let mechanism = costliest.map_or(Mechanism::Jump, |placed| placed.form.mechanism());
        let note = costliest.filter(|_| mechanism != Mechanism::Jump).and_then(|placed| placed.why.clone());
        let tokens = rate_per_s.map(|per_s| Tokens::new(per_s, now_ns));
        self.memory.set_tokens(slot, tokens.as_ref().map_or(0, Tokens::most));
        self.memory.set_sampling(slot, 0);
        self.memory.reset_held(slot);
        book.open(&self.memory, tracepoint.clone(), slot, mechanism, kinds, tokens);
        if let Some(entry) = book.entry(&tracepoint) {
            entry.why_mechanism = note.clone();
        }
        self.memory.enable(slot, true);
        Ok(ArmOutcome {
            sites: placed.len(),
            mechanism,
            note,
            stopped_ns: text.stopped_ns.saturating_sub(stopped_before),
        })
    }

    /// Patches the sites of a probe; those that cannot be jumps just now become traps.
    fn put_in(&self, text: &mut Text, arming: &BTreeMap<Avma, Arming>) -> Result<Vec<Placed>, ArmError> {
        let mut wanted: Vec<(Avma, Form, Option<String>)> = Vec::new();
        for (at, site) in arming {
            let SitePatch { choice, original, .. } = &site.patch;
            let form = if text.may_trap() { Form::of(choice) } else { Form::quiet(choice, original) };
            let why = choice.reason();
            let form = form.ok_or_else(|| cannot(text, why.clone().unwrap_or_default()))?;
            wanted.push((*at, form, why));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let placement = place(&text.forms(), &wanted).map_err(|error| ArmError::Refused(error.to_string()))?;
            if !text.may_trap() {
                no_traps(&placement)?;
            }
            // First those that make room: the new sites are in the middle of what stands there. If the new ones fail they
            // stay traps, which are as right as what they were.
            let to_trap = |at: &Avma| {
                let site = text.sites.get(at)?;
                Some(Change { form: site.form.as_trap(), ..site.change(*at, site.users.clone()) })
            };
            let room: Vec<Change> = placement.to_traps.iter().filter_map(to_trap).collect();
            let mut changes = Vec::new();
            for placed in &placement.sites {
                let Some(site) = arming.get(&placed.at) else { continue };
                let mut users = text.sites.get(&placed.at).map(|site| site.users.clone()).unwrap_or_default();
                users.push(site.user.clone());
                changes.push(Change {
                    at: placed.at,
                    original: original(&placed.form, &site.patch.original),
                    form: placed.form.clone(),
                    is_go: site.patch.is_go,
                    users,
                });
            }
            let error = match text.change(room).and_then(|()| text.change(changes)) {
                Ok(()) => return Ok(placement.sites),
                Err(error) => error,
            };
            let why = error.to_string();
            let traps = |form: &mut Form, reason: &mut Option<String>| {
                *form = form.as_trap();
                *reason = Some(why.clone());
            };
            match error.use_trap() {
                // Something stays inside of the jump: one that has no inside.
                Some(Some(at)) if !text.may_trap() && tries < TRIES_MAX => {
                    let site = arming.get(&at).map(|site| &site.patch);
                    let form = site.and_then(|patch| Form::overlaid(&patch.choice, &patch.original));
                    let form = form.ok_or_else(|| cannot(text, why.clone()))?;
                    let meant = wanted.iter_mut().filter(|(site, ..)| *site == at);
                    meant.for_each(|wanted| (wanted.1, wanted.2) = (form.clone(), Some(why.clone())));
                }
                _ if !text.may_trap() && error.is_no_jump() => return Err(cannot(text, why)),
                Some(at) if tries < TRIES_MAX => {
                    let meant = wanted.iter_mut().filter(|(site, ..)| at.is_none_or(|at| at == *site));
                    meant.for_each(|(_, form, reason)| traps(form, reason));
                }
                _ => return Err(error.into_arm_error()),
            }
        }
    }

    /// Waits until the reader has taken out what is in the rings now, for as long as the reader needs, if it is given no
    /// processor. Says `false` where a ring waits for a thread that stands still in a pad: not for longer than the
    /// stream of the host waits for it.
    fn wait_until_read(&self) -> bool {
        let heads: Vec<u64> = (0..self.memory.cpus()).map(|cpu| self.memory.head(cpu)).collect();
        let until_ns = domain_now_ns() + GIVEN_UP_NS;
        let mut passes = 0;
        loop {
            let goes_on = self.bell.wait_for_pass();
            passes += 1;
            let is_read = heads.iter().enumerate().all(|(cpu, &head)| {
                let tail = self.memory.tail(cpu);
                // Bytes that were not needed are given back: then the head is where the tail is.
                tail >= head || self.memory.head(cpu) <= tail
            });
            if is_read || !goes_on || (passes >= READ_PASSES_MAX && domain_now_ns() >= until_ns) {
                return is_read;
            }
            thread::sleep(QUIET_PAUSE);
        }
    }

    /// Takes the sites of a probe out of the text, those of others stay. Says whether that was done.
    fn take_out(&self, tracepoint: &TracepointId) -> bool {
        let mut text = held(&self.text);
        let Some(text) = text.as_mut().filter(|_| self.watched.look() == Life::Lives) else { return true };
        let changes = text.without(tracepoint);
        match text.change(changes) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    target: "engine", pid = self.key.pid, %tracepoint, %error,
                    "a tracepoint stays in the text: it is off and does nothing"
                );
                false
            }
        }
    }
}

/// A site that cannot be patched here: from outside, a breakpoint may do.
fn cannot(text: &Text, why: String) -> ArmError {
    if text.may_trap() { ArmError::Refused(why) } else { ArmError::Breakpoint { why } }
}

/// An error where sites can only be traced by breakpoints, be it only for the moment of a change.
fn no_traps(placement: &Placement) -> Result<(), ArmError> {
    let refused = |why: String| Err(ArmError::Breakpoint { why });
    if let Some(at) = placement.to_traps.first() {
        return refused(format!("the tracepoint at {:#x}, which is armed, is within the 5 bytes of a jump", at.0));
    }
    for placed in &placement.sites {
        if matches!(&placed.form, Form::Trap { .. } | Form::Jump { must_pun: true, .. }) {
            return refused(placed.why.clone().unwrap_or_else(|| format!("{:#x} takes no jump", placed.at.0)));
        }
        // Two writes, of which an agent that is killed may have made one, stand behind a breakpoint.
        if !patch::is_one_write(placed.at, JUMP_BYTES) {
            return refused(format!("the jump at {:#x} would lie on two pages of memory", placed.at.0));
        }
    }
    Ok(())
}

/// As many of the file's bytes as a patch of this form needs.
fn original(form: &Form, bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(form.extent().max(form.displaced()))].to_vec()
}

/// Whether the process may read its time stamp counter.
fn reads_counter(injection: &mut Injection) -> Result<bool, InjectError> {
    let area = Arc::clone(injection.area());
    let answer = area.u32_at(SCRATCH);
    answer.store(PR_TSC_ENABLE, std::sync::atomic::Ordering::SeqCst);
    let at = injection.first_island().control.0 + SCRATCH as u64;
    injection.call(&[RemoteCall { number: libc::SYS_prctl, args: [PR_GET_TSC, at, 0, 0, 0, 0] }])?;
    Ok(answer.load(std::sync::atomic::Ordering::SeqCst) == PR_TSC_ENABLE)
}

/// The threads that are in a pad or will return to one; `None` where that cannot be told.
fn in_pads(inside: &Weak<Inside>) -> Option<BTreeSet<Tid>> {
    let inside = inside.upgrade()?;
    // Whoever changes the text needs the reader's passes: it does not wait here.
    let text = inside.text.try_lock().ok()?;
    patch::threads_in(inside.key, &text.as_ref()?.code()).ok()
}

/// What an earlier agent has not read is nobody's, and it may have been killed in the middle of it: its rings begin anew.
/// Its probes are off and its patches are out; a thread that is still in one of its pads is waited for.
fn forget_rings(key: ProcessKey, text: &Text, memory: &SharedMemory) {
    let is_used = |cpu: &usize| memory.head(*cpu) != memory.tail(*cpu);
    if !(0..memory.cpus()).any(|cpu| is_used(&cpu)) {
        return;
    }
    for _ in 0..QUIET_TRIES_MAX {
        match patch::threads_in(key, &text.code()) {
            Ok(threads) if !threads.is_empty() => thread::sleep(QUIET_PAUSE),
            // Who cannot be looked at is not waited for: what it commits is of an unknown kind.
            Ok(_) | Err(_) => break,
        }
    }
    (0..memory.cpus()).filter(is_used).for_each(|cpu| memory.forget(cpu));
}

/// A probe is over the process's share of a CPU and was switched off: its traps would cost as much as before, so they are
/// taken out. By a thread of its own, as the reader is waited for by who changes the text.
fn switched_off(inside: &Weak<Inside>, tracepoint: TracepointId) {
    let Some(inside) = inside.upgrade() else { return };
    let name = format!("remover-{}", inside.key.pid);
    let job = move || {
        inside.take_out(&tracepoint);
    };
    if let Err(error) = thread::Builder::new().name(name).spawn(job) {
        tracing::warn!(target: "engine", %error, "a probe that is off stays in the text");
    }
}

//! The tracer thread: its state, its loop, and its commands.
//!
//! One OS thread per process, because ptrace answers only the thread that began it. All of the state below belongs to it
//! alone; the counters are the only thing that others read.

use super::counters::{Budget, Counters};
use super::handle::Command;
use super::left::Left;
use super::sites::{ArmedProbe, Site, Sites, User};
use crate::capture::memory::Memory;
use crate::clock::domain_now_ns;
use crate::engine::api::{ArmError, ArmOutcome, AttachError, EngineEvent, Probe};
use crate::engine::memory::TargetMemory;
use crate::engine::sys::{self, Change, SigInfo, Tid, UserRegisters, Whose};
use crate::engine::x86_64::displaced::{DisplaceError, Displaced};
use crate::engine::x86_64::{BREAKPOINT, INSTRUCTION_BYTES_MAX};
use crate::publish::sink::HitSink;
use crate::target;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::ids::{Avma, ProcessKey, TracepointId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

/// Passes over the list of threads until one finds no new one, at most.
const SEIZE_PASSES_MAX: usize = 100;
/// The kernel tells of the first thread that has stopped, in a fixed order. After so many stops every thread is asked in
/// turn, so that a few that hit all the time cannot keep the others waiting.
const STOPS_PER_SWEEP: u32 = 64;

/// Whose thread it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The process's own.
    Own,
    /// Of a child that runs in the process's memory until it starts another program (vfork).
    Sharer,
}

/// On the way out of a slot, by single steps.
#[derive(Clone, Copy)]
pub(super) struct Leaving {
    /// The signal that waits for it.
    pub(super) signal: Option<SigInfo>,
    /// What the thread has blocked of its own accord.
    pub(super) mask: u64,
}

/// A traced thread.
pub(super) struct Thread {
    pub(super) kind: Kind,
    /// It was asked to stop and has not yet.
    pub(super) wanted: bool,
    /// It is in a group stop.
    pub(super) listening: bool,
    pub(super) leaving: Option<Leaving>,
    /// Its displaced instruction has raised a signal at this site with these registers: if it comes back just so, that
    /// is the same passage.
    pub(super) faulted: Option<(Avma, UserRegisters)>,
    /// Since the text was restored it was seen where no slot and no breakpoint can concern it any more.
    pub(super) clear: bool,
}

/// What the tracer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Following the process.
    Tracing,
    /// Text is restored; threads are let go as they stop.
    LettingGo,
    /// Nothing is traced any more; the event is for the service.
    Over(Option<EngineEvent>),
}

/// The state of a tracer thread.
pub(super) struct Tracer {
    pub(super) key: ProcessKey,
    pub(super) pid: Tid,
    pub(super) sink: HitSink,
    pub(super) memory: TargetMemory,
    pub(super) threads: BTreeMap<Tid, Thread>,
    pub(super) sites: Sites,
    pub(super) phase: Phase,
    /// A thread that stands still because the tracer asked for it.
    pub(super) held: Option<Tid>,
    /// What killed agents have left that traced from outside, too; known once there is memory for slots.
    pub(super) left: Left,
    /// Bytes that their slots had kept of sites that are armed now: where, and which.
    pub(super) superseded: Vec<(Avma, u8)>,
    /// Children that were made and have not been met yet.
    pub(super) expected: BTreeSet<Tid>,
    /// Children that were met before their parent has told of them.
    pub(super) met_early: BTreeSet<Tid>,
}

impl Tracer {
    /// The life of the thread: attach, tell how that went, follow, let go, tell what happened.
    pub(super) fn run(
        key: ProcessKey,
        sink: HitSink,
        notify: Box<dyn Fn(EngineEvent) + Send>,
        commands: Receiver<Command>,
        attached: &Sender<Result<(), AttachError>>,
    ) {
        let mut tracer = match Tracer::attach(key, sink) {
            Ok(tracer) => tracer,
            Err(error) => {
                // Whoever asked waits for it.
                let _ = attached.send(Err(error));
                return;
            }
        };
        let _ = attached.send(Ok(()));
        let followed = catch_unwind(AssertUnwindSafe(|| tracer.follow(&commands)));
        if followed.is_err() {
            // Our mistake must not become the target's: restore it with what is still known.
            let restored = catch_unwind(AssertUnwindSafe(|| tracer.let_go()));
            let why = if restored.is_ok() { "and has let it go" } else { "and could not restore it: restart it" };
            let why = format!("the tracer of process {} has panicked, {why}; please report this", key.pid);
            tracer.phase = Phase::Over(Some(EngineEvent::Lost { why }));
        }
        if let Phase::Over(Some(event)) = tracer.phase {
            notify(event);
        }
    }

    fn attach(key: ProcessKey, sink: HitSink) -> Result<Tracer, AttachError> {
        target::check(key)?;
        let pid = key.pid as Tid;
        let refused = |source| AttachError::Seize { pid: key.pid, source };
        sys::accept_wakes().map_err(refused)?;
        // Without it, a child with a copy of the memory could not be told from one that shares it.
        sys::shares_memory(pid, pid).map_err(refused)?;
        let mut tracer = Tracer {
            key,
            pid,
            sink,
            memory: TargetMemory::open(pid),
            threads: BTreeMap::new(),
            sites: Sites::default(),
            phase: Phase::Tracing,
            held: None,
            left: Left::default(),
            superseded: Vec::new(),
            expected: BTreeSet::new(),
            met_early: BTreeSet::new(),
        };
        match tracer.seize_all() {
            // The process may have been replaced by another of its pid between the check and the first seize.
            Ok(()) if target::start_time(key.pid).is_ok_and(|start_time| start_time == key.start_time) => Ok(tracer),
            Ok(()) => Err(AttachError::Target(target::TargetError::Gone { pid: key.pid })),
            // The kernel lets go of all threads when this one ends.
            Err(error) => Err(error),
        }
    }

    /// Seizes every thread. Threads that a seized one makes are traced from their first instruction, so a pass that finds
    /// nothing new has found all.
    fn seize_all(&mut self) -> Result<(), AttachError> {
        let pid = self.key.pid;
        for _ in 0..SEIZE_PASSES_MAX {
            let mut is_new = false;
            for tid in target::tasks(pid)? {
                let tid = tid as Tid;
                if self.threads.contains_key(&tid) {
                    continue;
                }
                match sys::seize(tid) {
                    Ok(()) => {}
                    Err(error) if sys::is_gone(&error) => continue,
                    // Already traced, as the child of one that is; or a thread that has ended and stays for the others.
                    Err(error) => match target::status(tid as u32) {
                        Ok(status) if status.tracer == sys::own_tid() as u32 => drop(self.met_early.insert(tid)),
                        Ok(status) if matches!(status.state, 'Z' | 'X') => continue,
                        Err(target::TargetError::Gone { .. }) => continue,
                        _ => return Err(AttachError::Seize { pid, source: error }),
                    },
                }
                is_new = true;
                self.met(tid, Kind::Own);
            }
            if !is_new {
                return if self.threads.is_empty() {
                    Err(AttachError::Target(target::TargetError::Gone { pid }))
                } else {
                    Ok(())
                };
            }
        }
        Err(AttachError::Threads { pid })
    }

    /// A thread that is traced from now on.
    pub(super) fn met(&mut self, tid: Tid, kind: Kind) {
        let thread = Thread { kind, wanted: false, listening: false, leaving: None, faulted: None, clear: false };
        self.threads.insert(tid, thread);
    }

    fn follow(&mut self, commands: &Receiver<Command>) {
        let mut stops = 0;
        while !self.is_over() {
            match commands.try_recv() {
                Ok(command) => {
                    self.obey(command);
                    continue;
                }
                // The handle is gone and nobody will ask again.
                Err(TryRecvError::Disconnected) => {
                    self.let_go();
                    continue;
                }
                Err(TryRecvError::Empty) => {}
            }
            self.pump();
            stops += 1;
            if stops == STOPS_PER_SWEEP {
                stops = 0;
                self.sweep();
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// Waits for one change, or for a wake, and answers it.
    pub(super) fn pump(&mut self) {
        match sys::wait(Whose::Any) {
            Ok(Some(change)) => self.answer(change),
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // Nothing is traced any more, and the first thread was not among those that ended.
            Err(_) => self.end(EngineEvent::Lost { why: "all traced threads of the process have ended".to_owned() }),
        }
    }

    fn sweep(&mut self) {
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in tids {
            if self.is_over() {
                return;
            }
            if self.held != Some(tid)
                && let Ok(Some(change)) = sys::wait(Whose::Now(tid))
            {
                self.answer(change);
            }
        }
    }

    /// Answers a change; an answer that fails because the thread was killed meanwhile is one more change to come.
    pub(super) fn answer(&mut self, change: Change) {
        let answered = match change {
            Change::Ended(tid) => self.ended(tid),
            Change::Stopped(tid, stop) => self.stopped(tid, stop),
        };
        match answered {
            Ok(()) => {}
            Err(error) if sys::is_gone(&error) => {}
            Err(error) => {
                tracing::error!(target: "engine", pid = self.pid, ?change, %error, "a stop could not be answered");
                if matches!(self.phase, Phase::Tracing) {
                    self.let_go();
                    let why = format!("a stop of process {} could not be answered: {error}; it was let go", self.pid);
                    self.phase = Phase::Over(Some(EngineEvent::Lost { why }));
                }
            }
        }
    }

    /// Nothing is left to trace.
    pub(super) fn end(&mut self, event: EngineEvent) {
        if !self.is_over() {
            self.phase = Phase::Over(Some(event));
        }
    }

    fn obey(&mut self, command: Command) {
        // An answer that nobody waits for any more is no error.
        match command {
            Command::Arm(probe, counters, reply) => {
                let outcome = self.arm(probe, counters);
                let _ = reply.send(outcome);
            }
            Command::Disarm(tracepoint, reply) => {
                self.disarm(&tracepoint);
                let _ = reply.send(());
            }
            Command::LetGo(reply) => {
                self.let_go();
                let _ = reply.send(());
            }
        }
    }

    fn arm(&mut self, probe: Probe, counters: Arc<Counters>) -> Result<ArmOutcome, ArmError> {
        if probe.sites.is_empty() {
            return Err(ArmError::NoSites(probe.tracepoint));
        }
        if self.sites.probe_of(&probe.tracepoint).is_some() {
            return Err(ArmError::Duplicate(probe.tracepoint));
        }
        let addresses: BTreeSet<Avma> = probe.sites.iter().map(|site| site.address).collect();
        let new: Vec<Avma> = addresses.iter().copied().filter(|at| !self.sites.live.contains_key(at)).collect();
        let mut sites = Vec::with_capacity(new.len());
        for &at in &new {
            sites.push(self.prepare(at)?);
        }
        self.supersede(&new)?;
        let index = self.sites.probes.len();
        self.sites.probes.push(Some(ArmedProbe {
            tracepoint: probe.tracepoint,
            counters,
            budget: probe.rate_per_s.map(|per_s| Budget::new(per_s, domain_now_ns())),
            admitted: 0,
        }));
        self.sites.live.extend(new.iter().copied().zip(sites));
        for site in probe.sites {
            let user = User {
                probe: index,
                reads_vectors: site.program.reads_vectors(),
                program: site.program,
                layout: site.layout,
            };
            if let Some(live) = self.sites.live.get_mut(&site.address) {
                live.users.push(user);
            }
        }
        for (done, &at) in new.iter().enumerate() {
            if let Err(error) = self.write_code(at, &[BREAKPOINT]) {
                for (at, original) in self.sites.remove_probe(index) {
                    if new[..done].contains(&at) {
                        self.restore(at, original);
                    }
                }
                return Err(error);
            }
        }
        tracing::debug!(target: "engine", pid = self.pid, sites = addresses.len(), patched = new.len(), "armed");
        Ok(ArmOutcome { sites: addresses.len(), mechanism: Mechanism::Ptrace, note: None, stopped_ns: 0 })
    }

    /// Makes the slot of a new site; nothing is patched yet.
    fn prepare(&mut self, at: Avma) -> Result<Site, ArmError> {
        let mut bytes = [0; INSTRUCTION_BYTES_MAX];
        let read = self.memory.read_prefix(at, &mut bytes);
        let refused = |error| match error {
            DisplaceError::NoInstruction => ArmError::NoInstruction(at),
            DisplaceError::Breakpoint => ArmError::ForeignBreakpoint(at),
            DisplaceError::Kind(instruction) => ArmError::Instruction { at, instruction },
            DisplaceError::TooFar => ArmError::NoRoom(at),
        };
        let mut displaced = Displaced::decode(at, &bytes[..read]);
        if displaced.as_ref().err() == Some(&DisplaceError::Breakpoint)
            && let Some(from_file) = self.bytes_of_file(at)
        {
            // Nobody else traces the process, so an agent or a debugger was killed and has left it behind.
            bytes = from_file;
            displaced = Displaced::decode(at, &bytes);
        }
        let displaced = displaced.map_err(refused)?;
        if displaced.is_call() && target::status(self.key.pid).is_ok_and(|status| status.shadow_stack) {
            return Err(ArmError::ShadowStack(at));
        }
        let instruction = &bytes[..displaced.length()];
        if let Some(slot) = self.sites.kept_slot(at, instruction) {
            return Ok(Site { original: bytes[0], slot, users: Vec::new() });
        }
        let slot = match self.sites.give_slot(at, instruction, &displaced) {
            Some(slot) => slot,
            None => {
                self.map_pool(at)?;
                self.sites.give_slot(at, instruction, &displaced).ok_or(ArmError::NoRoom(at))?
            }
        };
        let code = displaced.slot(slot, bytes[0]).map_err(refused)?;
        self.write_code(slot, &code)?;
        Ok(Site { original: bytes[0], slot, users: Vec::new() })
    }

    /// A thread that has run into the breakpoint of a killed agent puts a byte back, even when that is a breakpoint of
    /// ours by then: at these sites, the byte that it puts back is a breakpoint from now on. Their own slots are complete,
    /// so if this agent is killed now, they are mended by its own handler.
    fn supersede(&mut self, sites: &[Avma]) -> Result<(), ArmError> {
        let is_superseded = |at| self.superseded.iter().any(|&(superseded, _)| superseded == at);
        let kept: Vec<(Avma, u8)> =
            sites.iter().flat_map(|&at| self.left.kept_bytes(at)).filter(|&(at, _)| !is_superseded(at)).collect();
        if kept.is_empty() {
            return Ok(());
        }
        for &(at, original) in &kept {
            self.write_code(at, &[BREAKPOINT])?;
            self.superseded.push((at, original));
        }
        // The kernel may have read the byte for a thread, and not written it yet.
        self.see_all_out_of(libc::SYS_pwrite64)
    }

    /// What the mapped file says is at an address.
    fn bytes_of_file(&self, at: Avma) -> Option<[u8; INSTRUCTION_BYTES_MAX]> {
        let maps = target::mappings(self.key.pid).ok()?;
        let mapping = maps.iter().find(|mapping| (mapping.lo..mapping.hi).contains(&at.0))?;
        let exe = PathBuf::from(format!("/proc/{}/exe", self.key.pid));
        let is_mapped = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == mapping.inode);
        let library = PathBuf::from(format!("/proc/{}/root{}", self.key.pid, mapping.path));
        let path = [exe, library].into_iter().find(|path| is_mapped(path))?;
        let mut bytes = [0; INSTRUCTION_BYTES_MAX];
        let offset = at.0 - mapping.lo + mapping.file_offset;
        fs::File::open(path).ok()?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    /// Writes code while the threads run; where that is refused, through one that is stopped for it.
    fn write_code(&mut self, at: Avma, bytes: &[u8]) -> Result<(), ArmError> {
        let Err(error) = self.memory.write(at, bytes) else { return Ok(()) };
        tracing::debug!(target: "engine", pid = self.pid, %error, "writing through a stopped thread instead");
        let tid = self.stop_one()?;
        let written = self.memory.poke(tid, at, bytes);
        self.release_held();
        written.map_err(|error| ArmError::Write { at, errno: error.raw_os_error().unwrap_or(libc::EIO) })
    }

    /// Puts back the byte that a breakpoint replaced.
    pub(super) fn restore(&mut self, at: Avma, original: u8) {
        match self.write_code(at, &[original]) {
            Ok(()) | Err(ArmError::Gone) => {}
            // The site stays a breakpoint whose trap is still answered, until the process is let go.
            Err(error) => tracing::error!(target: "engine", pid = self.pid, ?at, %error, "a site cannot be restored"),
        }
    }

    fn disarm(&mut self, tracepoint: &TracepointId) {
        let Some(index) = self.sites.probe_of(tracepoint) else { return };
        for (at, original) in self.sites.remove_probe(index) {
            self.restore(at, original);
        }
    }
}

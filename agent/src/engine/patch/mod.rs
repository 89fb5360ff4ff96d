//! Patches: the bytes at sites of a running process change, and at no instant is what stands there wrong.
//!
//! | way | for | the process |
//! | --- | --- | --- |
//! | [`How::Byte`] | one byte: a trap goes in or out | runs |
//! | [`How::Poke`] | a jump over one instruction; a jump with traps at all boundaries inside; any removal of a jump | runs |
//! | [`How::AllStop`] | a jump over several instructions | stands still for a moment |
//!
//! The way back of a jump is a poke whatever it displaced: no thread is inside of a jump, so nothing has to be looked for.
//!
//! Invariants
//! - The agent may be killed between any two instructions: what then stands at a site is the old code, the new code, or a
//!   trap whose handler knows where to go; threads that were stopped are set going by the kernel, with the signals that
//!   were on their way to them.
//! - Nothing is written before the process has proved to be the one that is meant ([`Witness`]) and the old bytes have
//!   been seen at the site.
//! - A batch is applied wholly or not at all; what could not be taken back is named by the error.
//!
//! Not here: which way suits a site (the analysis), what a jump leads to (pads), the trap map. A trap map entry for the
//! first byte of every site, and for each boundary that the new bytes trap at, is there before a patch is applied.

mod check;
mod goroutines;
mod memory;
mod poke;
mod stacks;
mod stop;
pub(in crate::engine) mod visit;

use super::api::GoRuntime;
use super::sys::Tid;
use super::x86_64::{registers, text};
use crate::clock::domain_now_ns;
use check::Boundaries;
use memory::Text;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;
use std::{io, thread};
use stop::{Standing, Stopped};

/// Bytes of one patch, at most.
pub(in crate::engine) const PATCH_BYTES_MAX: usize = 8;

/// How a patch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::engine) enum How {
    /// Old and new bytes differ in the first byte only.
    Byte,
    /// Behind a trap, in three phases. Each of [`Patch::boundaries`] is a trap in the old or in the new bytes.
    Poke,
    /// While every thread is stopped and no thread, goroutine or signal frame is to continue at one of
    /// [`Patch::boundaries`], nor in code that leads to one
    /// ([`Way`]).
    AllStop,
}

/// One change of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Patch {
    /// First byte.
    pub(in crate::engine) at: Avma,
    /// What stands there now.
    pub(in crate::engine) old: Vec<u8>,
    /// What is to stand there: as many bytes, 1 to [`PATCH_BYTES_MAX`].
    pub(in crate::engine) new: Vec<u8>,
    /// How.
    pub(in crate::engine) how: How,
    /// Offsets strictly inside at which an instruction of the program's own code begins, and at which something may
    /// therefore continue. Of a jump that is taken out, the same ones as when it was put in.
    pub(in crate::engine) boundaries: Vec<usize>,
}

/// Whether so many bytes at an address are written at once.
pub(in crate::engine) fn is_one_write(at: Avma, bytes: usize) -> bool {
    memory::is_in_one_page(at, bytes)
}

impl Patch {
    /// The change back. A jump comes out by a poke, for which its boundaries are of no concern unless they are traps.
    pub(in crate::engine) fn reversed(&self) -> Patch {
        let is_poke = self.how == How::AllStop;
        let traps = || self.boundaries.iter().copied().filter(|&at| text::is_trap(self.new[at]));
        Patch {
            at: self.at,
            old: self.new.clone(),
            new: self.old.clone(),
            how: if is_poke { How::Poke } else { self.how },
            boundaries: if is_poke { traps().collect() } else { self.boundaries.clone() },
        }
    }

    /// From what was found at a site to the program's own code, whoever has left it in whichever state: an agent that was
    /// killed while it patched. `boundaries` are those of the code, all of them and no other: a byte that is none and
    /// looks like a trap is the tail of a jump, and must be gone before the byte in front of it is code again. `None` if
    /// nothing is to be done.
    pub(in crate::engine) fn back_to(at: Avma, found: &[u8], code: &[u8], boundaries: &[usize]) -> Option<Patch> {
        // At a boundary that does not trap, something continues only where the code still is as it was.
        let is_trap = |&boundary: &usize| found.get(boundary).is_some_and(|&byte| text::is_trap(byte));
        let boundaries = boundaries.iter().copied().filter(is_trap).collect();
        let how = if found.get(1..) == code.get(1..) { How::Byte } else { How::Poke };
        (found != code).then(|| Patch { at, old: found.to_vec(), new: code.to_vec(), how, boundaries })
    }
}

/// Code elsewhere, which a thread may be in for long after nothing leads there any more, and where it goes on from there:
/// a pad with its twin. Its end may be in the middle of a site that overlaps the pad's own, or that was a trap before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Way {
    /// The code.
    pub(in crate::engine) code: Range<Avma>,
    /// Where it leads.
    pub(in crate::engine) leads_to: Vec<Avma>,
}

/// Bytes that only the memory of the process as it was prepared for patches has at a place: the header of the area, for
/// one. A process that has started another program since has others there, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Witness {
    /// Where.
    pub(in crate::engine) at: Avma,
    /// Which bytes.
    pub(in crate::engine) bytes: Vec<u8>,
}

/// What schedules the threads' work besides the kernel: something parked by it continues where no thread shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Runtime {
    /// Nothing.
    Native,
    /// Go, and its goroutines can be looked at.
    Go(GoRuntime),
    /// Go without debug information: goroutines cannot be looked at, so no jump is put over several instructions by
    /// [`How::AllStop`].
    OpaqueGo,
}

/// Makes every processor that runs the process forget what it has fetched of its code.
pub(in crate::engine) trait Synchronise {
    /// Returns once every thread of the process that was in its code at the time of the call has executed a serializing
    /// instruction: by membarrier(2), `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`, made by the process itself, or by
    /// [`visit::VisitCpus`].
    fn synchronise(&mut self) -> io::Result<()>;
}

/// What a batch has cost the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Report {
    /// Nanoseconds for which the whole process stood still, all attempts together: from the first request to stop to the
    /// last thread that was let go.
    pub(in crate::engine) stopped_ns: u64,
    /// The longest of them.
    pub(in crate::engine) longest_stop_ns: u64,
    /// Attempts that found something inside of the bytes and were given up.
    pub(in crate::engine) retries: u32,
    /// Threads at the last stop.
    pub(in crate::engine) threads: usize,
}

/// Where something is to continue that stands in the way of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Inside {
    /// A thread is there, on a way there, or about to be sent there.
    Thread(Tid),
    /// The address is on the stack of a thread: it was interrupted there by a signal or by preemption.
    Stack(Tid),
    /// The address is on the stack of a parked goroutine, whose `g` is here.
    Goroutine(Avma),
}

impl std::fmt::Display for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Inside::Thread(tid) => write!(f, "thread {tid}"),
            Inside::Stack(tid) => write!(f, "an interrupted frame of thread {tid}"),
            Inside::Goroutine(g) => write!(f, "a parked goroutine (g at {:#x})", g.0),
        }
    }
}

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum PatchError {
    /// The process ended or runs another program.
    #[error("the process ended, or started another program")]
    Gone,
    /// Another tracer has a thread of the process.
    #[error("thread {tid} is traced by somebody else; detach that debugger first")]
    ForeignTracer {
        /// Which thread.
        tid: Tid,
    },
    /// The bytes at a site are not the ones that were to be replaced.
    #[error("the code at {:#x} is {found:02x?} and not {old:02x?}: somebody else has changed it; remove their patch", at.0)]
    Changed {
        /// Which site.
        at: Avma,
        /// What was to be there.
        old: Vec<u8>,
        /// What is.
        found: Vec<u8>,
    },
    /// Something is to continue inside of the bytes, at every attempt. A trap or a punned jump is possible.
    #[error("{inside} is to continue within the instructions at {:#x}, after {retries} attempts; use a trap there", at.0)]
    Busy {
        /// Which site.
        at: Avma,
        /// What was in the way at the last attempt.
        inside: Inside,
        /// Attempts.
        retries: u32,
        /// What they have cost.
        stopped_ns: u64,
    },
    /// A thread did not stop in time: it is in an uninterruptible wait (`D`; also for a child made by vfork(2)), or the
    /// machine has no time for it (`R`).
    #[error("thread {tid} (state {state}) could not be stopped within {} ms; try again", waited_ns / 1_000_000)]
    Unstoppable {
        /// Which thread.
        tid: Tid,
        /// How long was waited for, in nanoseconds.
        waited_ns: u64,
        /// Its state, as in proc_pid_stat(5).
        state: char,
    },
    /// The process makes threads faster than they can be stopped.
    #[error("the process starts threads faster than they can be stopped; try again when it is calmer")]
    Threads,
    /// Goroutines cannot be looked at.
    #[error("the parked goroutines of the process cannot be looked at ({why}); use a trap or a punned jump there")]
    Goroutines {
        /// Why.
        why: &'static str,
    },
    /// The processors could not be synchronised. The sites are as they were, but for these.
    #[error("the processors could not be synchronised: {source}; {} sites are traps that work now", left.len())]
    Synchronise {
        /// What was said.
        source: io::Error,
        /// Sites that begin with a trap now; it works, and a later patch may replace it.
        left: Vec<Avma>,
    },
    /// The text could not be written.
    #[error("the process's code at {:#x} cannot be written: {source}; {} sites are traps or patched now, and work", at.0, left.len())]
    Write {
        /// Where.
        at: Avma,
        /// What the kernel said.
        source: io::Error,
        /// Sites that begin with a trap now, or are as they were to be; both work, and a later patch may replace them.
        left: Vec<Avma>,
    },
    /// A thread could not be traced.
    #[error("thread {tid} cannot be traced: {source}; give the agent CAP_SYS_PTRACE")]
    Trace {
        /// Which thread.
        tid: Tid,
        /// What the kernel said.
        source: io::Error,
    },
    /// The agent has no thread left.
    #[error("cannot start the thread that stops the process: {0}; raise the agent's limit of threads")]
    Spawn(io::Error),
    /// The agent gets no timer, by which it would know that threads do not stop.
    #[error(
        "cannot start the timer of a stop: {0}; timers and waiting signals of all processes of the agent's user count \
         together: raise the agent's limit of them (ulimit -i), or give it CAP_SYS_RESOURCE"
    )]
    Timer(io::Error),
    /// A mistake of the caller: such a patch would not be sound.
    #[error("the patch at {:#x} is not sound: {why}; please report this", at.0)]
    Unsound {
        /// Which site.
        at: Avma,
        /// Why.
        why: &'static str,
    },
}

/// Attempts of an all-stop patch, at most. What is in the way is gone within a few: a preempted goroutine runs again, a
/// signal handler returns.
const ATTEMPTS_MAX: u32 = 200;
/// How long the attempts may take altogether, in nanoseconds.
const ATTEMPTS_NS: u64 = 2_000_000_000;
/// Attempts that are given up because a thread does not stop, at most: the others stand still for a tenth of a second
/// each time.
const WAITS_MAX: u32 = 3;
/// Pause after an attempt; it doubles up to the longest.
const PAUSE: Duration = Duration::from_micros(200);
/// The longest pause: some turns of the scheduler.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Patches the text of one process, as it was when this was opened.
pub(in crate::engine) struct Patcher {
    pid: Tid,
    runtime: Runtime,
    text: Text,
    ways: Vec<Way>,
}

impl Patcher {
    /// For the program that a process runs now. Stops and writes nothing.
    pub(in crate::engine) fn open(key: ProcessKey, runtime: Runtime, witness: Witness) -> Patcher {
        let pid = key.pid as Tid;
        Patcher { pid, runtime, text: Text::open(pid, witness), ways: Vec::new() }
    }

    /// Tells of code that leads back into the program: every pad that was ever there, those of earlier agents included.
    /// [`How::AllStop`] looks for threads in it where its end is inside of a site.
    pub(in crate::engine) fn add_way(&mut self, way: Way) {
        self.ways.push(way);
    }

    /// Forgets the ways whose code begins at one of these addresses: it is there no more.
    pub(in crate::engine) fn forget_ways(&mut self, starts: &BTreeSet<Avma>) {
        self.ways.retain(|way| !starts.contains(&way.code.start));
    }

    /// Calls `then` while the whole process stands still, with the words that threads have in a register or on a stack
    /// and that `is_watched` knows. What goroutines that are parked have is not looked at.
    ///
    /// A program that switches stacks within a signal handler, and so has a signal frame on a stack that no thread is on,
    /// is not seen through.
    pub(in crate::engine) fn standing_still<T: Send>(
        &self,
        is_watched: impl Fn(u64) -> bool + Sync,
        then: impl FnOnce(&BTreeSet<u64>) -> T + Send,
    ) -> Result<T, PatchError> {
        Stopped::session(|| {
            let stopped = Stopped::all(self.pid)?;
            let mut found = BTreeSet::new();
            let mut see = |word: u64| {
                if is_watched(word) {
                    found.insert(word);
                }
            };
            for thread in stopped.threads() {
                see(thread.registers.rip);
                registers::general(&thread.registers).into_iter().for_each(&mut see);
            }
            stacks::each(stopped.threads(), &self.runtime, see);
            let outcome = then(&found);
            stopped.let_go();
            Ok(outcome)
        })
    }

    /// Applies patches, all or none; sites of one batch do not overlap. Blocks: for microseconds, or for as long as it
    /// takes to stop all threads, up to some seconds where something stays inside of a site.
    ///
    /// No thread of this process may be tracing a thread of that one meanwhile.
    pub(in crate::engine) fn apply(
        &self,
        patches: &[Patch],
        synchronise: &mut dyn Synchronise,
    ) -> Result<Report, PatchError> {
        patches.iter().try_for_each(sound)?;
        let (stopped, running): (Vec<&Patch>, Vec<&Patch>) =
            patches.iter().partition(|patch| patch.how == How::AllStop);
        let plans = poke::plan(&running)?;
        self.text.verify(self.text.reader()?, &patches.iter().collect::<Vec<_>>())?;
        let mut report = Report::default();
        if !stopped.is_empty() {
            report = self.all_stop(&stopped)?;
        }
        poke::apply(&self.text, &running, &plans, synchronise).inspect_err(|_| {
            let back: Vec<Patch> = stopped.iter().map(|patch| patch.reversed()).collect();
            let back: Vec<&Patch> = back.iter().collect();
            // What cannot be taken back is right as it is, and is seen by whoever reads it.
            if let Ok(plans) = poke::plan(&back) {
                let _ = poke::apply(&self.text, &back, &plans, synchronise);
            }
        })?;
        Ok(report)
    }

    fn all_stop(&self, patches: &[&Patch]) -> Result<Report, PatchError> {
        let mut waited = 0;
        loop {
            match self.all_stop_once(patches) {
                // Mostly one whose child by vfork(2) is about to start its program: until then that runs in this memory, and
                // nothing may change.
                Err(PatchError::Unstoppable { .. }) if waited < WAITS_MAX => {
                    waited += 1;
                    thread::sleep(PAUSE_MAX);
                }
                outcome => return outcome,
            }
        }
    }

    fn all_stop_once(&self, patches: &[&Patch]) -> Result<Report, PatchError> {
        let boundaries = Boundaries::of(patches, &self.ways);
        if self.runtime == Runtime::OpaqueGo && !boundaries.is_empty() {
            return Err(PatchError::Goroutines { why: "the program has no debug information" });
        }
        Stopped::session(|| {
            let give_up_ns = domain_now_ns() + ATTEMPTS_NS;
            let mut report = Report::default();
            let mut pause = PAUSE;
            loop {
                let stopped = Stopped::all(self.pid)?;
                report.threads = stopped.threads().len();
                let outcome = self.attempt(&stopped, patches, &boundaries);
                let stopped_ns = stopped.let_go();
                report.stopped_ns += stopped_ns;
                report.longest_stop_ns = report.longest_stop_ns.max(stopped_ns);
                let Some((at, inside)) = outcome? else { return Ok(report) };
                report.retries += 1;
                if report.retries == ATTEMPTS_MAX || domain_now_ns() > give_up_ns {
                    let Report { retries, stopped_ns, .. } = report;
                    return Err(PatchError::Busy { at, inside, retries, stopped_ns });
                }
                thread::sleep(pause);
                pause = PAUSE_MAX.min(pause * 2);
            }
        })
    }

    /// What is in the way of a patch at this moment, which is left as it is.
    #[cfg(test)]
    fn look(&self, patch: &Patch) -> Result<Option<(Avma, Inside)>, PatchError> {
        let boundaries = Boundaries::of(&[patch], &self.ways);
        Stopped::session(|| check::inside(Stopped::all(self.pid)?.threads(), &self.runtime, &boundaries))
    }

    /// While all stand still: looks, and writes if nothing is in the way.
    fn attempt(
        &self,
        stopped: &Stopped,
        patches: &[&Patch],
        boundaries: &Boundaries,
    ) -> Result<Option<(Avma, Inside)>, PatchError> {
        let by = stopped.threads().first().ok_or(PatchError::Gone)?.tid;
        self.text.verify(by, patches)?;
        if let Some(found) = check::inside(stopped.threads(), &self.runtime, boundaries)? {
            return Ok(Some(found));
        }
        for (done, patch) in patches.iter().enumerate() {
            if let Err(source) = self.text.replace(by, patch.at, &patch.old, &patch.new) {
                let back = |patch: &&&Patch| self.text.replace(by, patch.at, &patch.new, &patch.old).is_err();
                let left = patches[..=done].iter().filter(back).map(|patch| patch.at).collect();
                return Err(PatchError::Write { at: patch.at, source, left });
            }
        }
        Ok(None)
    }
}

/// The threads that are in one of some ranges, or have an address in one of them on their stack, so that they may come
/// back to it. The whole process stands still for it.
pub(in crate::engine) fn threads_in(key: ProcessKey, ranges: &[Range<Avma>]) -> Result<BTreeSet<Tid>, PatchError> {
    let holder = |word: u64| ranges.iter().find(|range| range.contains(&Avma(word))).map(|range| range.start);
    Stopped::session(|| {
        let stopped = Stopped::all(key.pid as Tid)?;
        let is_there = |thread: &&Standing| {
            holder(thread.registers.rip).is_some()
                || stacks::find(std::slice::from_ref(*thread), &Runtime::Native, &holder).is_some()
        };
        let found = stopped.threads().iter().filter(is_there).map(|thread| thread.tid).collect();
        stopped.let_go();
        Ok(found)
    })
}

/// What is wrong with a patch, whatever the process.
fn sound(patch: &Patch) -> Result<(), PatchError> {
    let why = if patch.old.is_empty() || patch.old.len() > PATCH_BYTES_MAX {
        "it has no bytes, or too many"
    } else if patch.old.len() != patch.new.len() {
        "old and new bytes are not as many"
    } else if patch.boundaries.iter().any(|boundary| !(1..patch.old.len()).contains(boundary)) {
        "a boundary is not inside"
    } else {
        return Ok(());
    };
    Err(PatchError::Unsound { at: patch.at, why })
}

/// A place at which the agent may be killed: tests do.
#[cfg(not(test))]
fn checkpoint() {}

#[cfg(test)]
use tests::checkpoint;

#[cfg(test)]
mod tests;

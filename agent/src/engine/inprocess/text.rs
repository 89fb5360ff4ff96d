//! What is installed in a process: pads, patches, handlers; and how they change.
//!
//! Every change is made in an order in which the agent may be killed at any point: a pad is complete before anything
//! leads to it, a site is patched last; and on the way back the text first, while pads and handlers stay. Handlers stay for
//! good, pads until there is no room for others ([`super::reclaim`]).
//!
//! Not here: probes as such, counts, budgets ([`super::book`]); which patch a site takes ([`super::sites`]).

use super::chain;
use super::reclaim::{self, Least, Others};
use super::removal::{self, Written};
use super::shared::Slot;
use super::sites::Form;
use crate::capture::memory::Memory;
use crate::capture::program::Program;
use crate::engine::api::{ArmError, ProcessRuntime};
use crate::engine::area::{CODE_BYTES, ISLANDS_MAX, Island, MAGIC};
use crate::engine::inject::{InjectError, Injection, Rel32, RemoteCall, Window};
use crate::engine::patch::visit::VisitCpus;
use crate::engine::patch::{How, Patch, PatchError, Patcher, Runtime, Synchronise, Way, Witness};
use crate::engine::ptrace::left::Left;
use crate::engine::record::RecordLayout;
use crate::engine::x86_64::codegen::{BodyContext, Guard, ThreadPlace};
use crate::engine::x86_64::pads::island::IslandMemory;
use crate::engine::x86_64::pads::tables::{TablesError, View};
use crate::engine::x86_64::pads::{self, PadBody, PadError, PadImage, PadRequest, PatchKind};
use crate::engine::x86_64::{BREAKPOINT, REACH_BYTES, counter};
use riptrace_protocol::ids::{Avma, ProcessKey, TracepointId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// `struct pthread.tid` of the GNU C library, from the thread pointer (nptl/descr.h; the same since 2.4).
const GNU_TID: i32 = 0x2d0;
/// Commands of membarrier(2).
const MEMBARRIER_SYNC_CORE: u64 = 1 << 5;
const MEMBARRIER_REGISTER_SYNC_CORE: u64 = 1 << 6;

/// Looks at whether a thread puts the byte of a killed agent's breakpoint back just now, at most: that is some system
/// calls of it.
const MENDING_LOOKS_MAX: usize = 40;
/// Pause between two.
const MENDING_PAUSE: Duration = Duration::from_millis(5);

/// Islands that a process has before jumps whose last bytes are the program's own, or more pads, make no more of them.
const OVERLAID_ISLANDS_MAX: usize = ISLANDS_MAX - 2;

/// One probe at a site.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) tracepoint: TracepointId,
    pub(super) slot: Slot,
    pub(super) kind: u32,
    pub(super) program: Arc<Program>,
    pub(super) record: RecordLayout,
    pub(super) has_budget: bool,
}

/// A patched address.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) form: Form,
    /// The program's own bytes.
    pub(super) original: Vec<u8>,
    /// Whether its function is Go's.
    pub(super) is_go: bool,
    pub(super) users: Vec<User>,
    /// What stands there now, as many bytes as the patch has.
    patched: Vec<u8>,
    is_punned: bool,
}

/// A site that is to be: its probes, and what is to be there.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) at: Avma,
    pub(super) form: Form,
    pub(super) original: Vec<u8>,
    pub(super) is_go: bool,
    /// None: the program's own bytes are to be back.
    pub(super) users: Vec<User>,
}

/// What is installed in one process.
pub(super) struct Text {
    key: ProcessKey,
    injection: Injection,
    patcher: Patcher,
    runtime: ProcessRuntime,
    /// Whether the process may run into breakpoints: else its text only changes while it stands still.
    may_trap: bool,
    /// Where the file is mapped that the site is in for which a pad is made.
    image: Range<Avma>,
    has_rdpid: bool,
    rings: Avma,
    /// For how long the whole process has stood still so far, in nanoseconds.
    pub(super) stopped_ns: u64,
    pub(super) sites: BTreeMap<Avma, Site>,
    /// Where the pads begin that were made for the changes that are being prepared: nothing leads to them yet.
    fresh: BTreeSet<Avma>,
    synchronises: Option<bool>,
}

/// A change that is prepared: its pad is there.
struct Prepared {
    at: Avma,
    patch: Option<Patch>,
    site: Option<Site>,
}

/// Tables and code of an island, to write: nobody else writes there, and the process only reads.
fn island_bytes<'a>(window: Window<'a>) -> &'a mut [u8] {
    let bytes = window.len().min(CODE_BYTES);
    // SAFETY: the window is a mapping of that length, which lives as long as 'a. Only this engine writes to tables and
    // code, from one place at a time (`Text` is behind a lock, and each slice ends before the next is made); the process
    // has them mapped without write access.
    unsafe { std::slice::from_raw_parts_mut(window.as_ptr(), bytes) }
}

/// Whether a jump at a site reaches all code of an island.
fn reaches(island: &Island, site: Avma) -> bool {
    let end = island.tables().0 + CODE_BYTES as u64;
    island.tables().0.abs_diff(site.0) < REACH_BYTES && end.abs_diff(site.0) < REACH_BYTES
}

impl Text {
    /// Installs the handlers, and takes out what an earlier agent has left.
    ///
    /// `may_trap`: breakpoints may stand in the text, for a moment or for as long as a site is armed. Only where the
    /// program leaves the handler of SIGTRAP alone, and the signal unblocked, may they.
    pub(super) fn open(
        key: ProcessKey,
        injection: Injection,
        runtime: ProcessRuntime,
        may_trap: bool,
    ) -> Result<Text, InjectError> {
        let goroutines = match (runtime.is_go, runtime.go) {
            (false, _) => Runtime::Native,
            (true, Some(go)) => Runtime::Go(go),
            (true, None) => Runtime::OpaqueGo,
        };
        let first = injection.first_island();
        let witness = Witness { at: first.control, bytes: MAGIC.to_le_bytes().to_vec() };
        let rings = Avma(
            injection
                .area()
                .u64_at(std::mem::offset_of!(crate::engine::area::Header, rings))
                .load(std::sync::atomic::Ordering::Relaxed),
        );
        let mut text = Text {
            key,
            patcher: Patcher::open(key, goroutines, witness),
            injection,
            runtime,
            may_trap,
            image: Avma(0)..Avma(0),
            has_rdpid: counter::has_rdpid(),
            rings,
            stopped_ns: 0,
            sites: BTreeMap::new(),
            fresh: BTreeSet::new(),
            synchronises: None,
        };
        let facts = text.injection.facts();
        tracing::debug!(target: "engine", pid = key.pid, adopted = facts.is_adopted, stops = facts.stops, "inside");
        let left = text.install_handlers()?;
        text.know_pads();
        left.ways().for_each(|way| text.patcher.add_way(way));
        text.take_out_leftovers(&left);
        text.wait_until_nobody_mends(&left)?;
        Ok(text)
    }

    /// The island's tables and code; made when they are fresh.
    fn island(&self, island: Island) -> Result<IslandMemory<'_>, TablesError> {
        let window = self.injection.area().code(island.number).ok_or(TablesError::Magic)?;
        let bytes = island_bytes(window);
        if View::new(bytes).is_ok() {
            return IslandMemory::adopt(island_bytes(window));
        }
        IslandMemory::create(bytes, island, self.runtime.is_go)
    }

    /// Says what agents have left that have traced from outside.
    fn install_handlers(&mut self) -> Result<Left, InjectError> {
        let defect = |error: PadError| {
            tracing::error!(target: "engine", %error, "the handlers cannot be made");
            InjectError::Call { what: "making the signal handlers", errno: libc::ENOEXEC }
        };
        self.name_islands().map_err(|error| defect(error.into()))?;
        let first = self.injection.first_island();
        let handlers = self.island(first).map_err(|error| defect(error.into()))?.install_handlers().map_err(defect)?;
        let area = Arc::clone(self.injection.area());
        let window = area.code(first.number).ok_or(InjectError::Gone)?;
        chain::install(self.key, &mut self.injection, &handlers, &|| IslandMemory::adopt(island_bytes(window)).ok())
    }

    /// The handlers look for the tables of all islands in those of the first.
    fn name_islands(&mut self) -> Result<(), TablesError> {
        let islands = self.injection.islands();
        for island in &islands {
            self.island(*island)?;
        }
        let tables: Vec<Avma> = islands.iter().map(Island::tables).collect();
        self.island(self.injection.first_island())?.set_islands(&tables)
    }

    /// Threads may still be in an earlier agent's pads. Where each leads is not kept: it is one of its instructions' ends.
    fn know_pads(&mut self) {
        for island in self.injection.islands() {
            let pads = match self.island(island) {
                Ok(memory) => memory.view().pads().collect::<Vec<_>>(),
                Err(_) => continue,
            };
            for pad in pads {
                let leads_to: Vec<Avma> =
                    (1..=pad.original.len() as u64).map(|bytes| Avma(pad.site.0 + bytes)).collect();
                for start in [Some(pad.start), pad.twin].into_iter().flatten() {
                    let code = start..Avma(start.0 + u64::from(pad.length));
                    self.patcher.add_way(Way { code, leads_to: leads_to.clone() });
                }
            }
        }
    }

    /// An earlier agent's patches go: their probes are off, and nobody waits for their hits.
    fn take_out_leftovers(&mut self, left: &Left) {
        for _ in 0..removal::ROUNDS_MAX {
            let breakpoint = |(site, original)| Written::new(site, vec![original], vec![BREAKPOINT]);
            let mut written: Vec<Written> = left.breakpoints().map(breakpoint).collect();
            for island in self.injection.islands() {
                let pads =
                    self.island(island).map(|memory| memory.view().pads().map(Written::from).collect::<Vec<_>>());
                written.extend(pads.unwrap_or_default());
            }
            let patches = removal::of(&self.injection, written);
            if patches.is_empty() {
                return;
            }
            tracing::info!(target: "engine", sites = patches.len(), "an earlier agent's tracepoints are taken out");
            match self.apply(&patches) {
                Ok(()) => {}
                Err(PatchError::Gone) => return,
                Err(error) => {
                    tracing::warn!(target: "engine", %error, "an earlier agent's tracepoints stay in the text; they do nothing");
                    return;
                }
            }
        }
    }

    /// A thread that ran into a breakpoint of an agent that traced from outside takes it out by itself, which may come to
    /// be written over a patch of today. Nobody runs into one any more; who did is waited for.
    fn wait_until_nobody_mends(&self, left: &Left) -> Result<(), InjectError> {
        if left.last().is_none() {
            return Ok(());
        }
        for _ in 0..MENDING_LOOKS_MAX {
            let is_quiet = self.patcher.standing_still(|word| left.is_mending(word), BTreeSet::is_empty);
            match is_quiet {
                Ok(true) => return Ok(()),
                Err(PatchError::Gone) => return Err(InjectError::Gone),
                Ok(false) | Err(_) => thread::sleep(MENDING_PAUSE),
            }
        }
        Err(InjectError::Stuck)
    }

    fn apply(&mut self, patches: &[Patch]) -> Result<(), PatchError> {
        if patches.is_empty() {
            return Ok(());
        }
        let mut barrier = Barrier { injection: &mut self.injection, synchronises: &mut self.synchronises };
        let still = |patch: &Patch| Patch { how: How::AllStop, ..patch.clone() };
        let still: Vec<Patch> = if self.may_trap { patches.to_vec() } else { patches.iter().map(still).collect() };
        let report = self.patcher.apply(&still, &mut barrier)?;
        self.stopped_ns += report.stopped_ns;
        tracing::debug!(target: "engine", patches = patches.len(), ?report, "text changed");
        Ok(())
    }

    /// Carries out changes of sites, all or none.
    pub(super) fn change(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        let mut prepared = Vec::with_capacity(changes.len());
        self.fresh.clear();
        for change in changes {
            prepared.push(self.prepare(change)?);
        }
        let patches: Vec<Patch> = prepared.iter().filter_map(|change| change.patch.clone()).collect();
        self.apply(&patches)?;
        for Prepared { at, site, .. } in prepared {
            match site {
                Some(site) => drop(self.sites.insert(at, site)),
                None => drop(self.sites.remove(&at)),
            }
        }
        Ok(())
    }

    fn prepare(&mut self, change: Change) -> Result<Prepared, ChangeError> {
        let Change { at, form, original, is_go, users } = change;
        let before = self.sites.get(&at).cloned();
        if users.is_empty() {
            let patch = before.map(|site| site.removal(at));
            return Ok(Prepared { at, patch, site: None });
        }
        if before.is_none() {
            self.verify(at, &original)?;
        }
        let mut failed = None;
        let may_trap = self.may_trap;
        let is_quiet = |kind: &PatchKind| *kind == PatchKind::Jump || matches!(form, Form::Overlaid { .. });
        for kind in form.kinds().into_iter().filter(|kind| may_trap || is_quiet(kind)) {
            match self.pad(at, &form, &original, is_go, &users, kind) {
                Ok(image) => {
                    let is_punned = matches!(kind, PatchKind::Punned { .. });
                    let site =
                        Site { form: form.clone(), original, is_go, users, patched: image.patch.clone(), is_punned };
                    let patch = site.arming(at, before.as_ref());
                    return Ok(Prepared { at, patch, site: Some(site) });
                }
                Err(error) => failed = Some(error),
            }
        }
        let error = failed.unwrap_or(ChangeError::Nothing { at });
        match form {
            Form::Jump { .. } if error.is_no_jump() => Err(ChangeError::NoJump { at, why: Box::new(error) }),
            _ => Err(error),
        }
    }

    /// The bytes at a site are those of the build's file.
    fn verify(&self, at: Avma, original: &[u8]) -> Result<(), ChangeError> {
        let mut found = vec![0; original.len()];
        self.injection.read(at, &mut found).map_err(|_| ChangeError::NotTheFile { at })?;
        // Neighbours' patches stand for what they replaced.
        let from = Avma(at.0.saturating_sub(16));
        for (&other, site) in self.sites.range(from..Avma(at.0 + original.len() as u64)) {
            for (n, byte) in site.original.iter().take(site.patched.len()).enumerate() {
                let place = (other.0 + n as u64).checked_sub(at.0).and_then(|offset| found.get_mut(offset as usize));
                place.into_iter().for_each(|place| *place = *byte);
            }
        }
        if found == original {
            return Ok(());
        }
        match found[0] == crate::engine::x86_64::BREAKPOINT && original[0] != found[0] {
            true => Err(ChangeError::ForeignBreakpoint { at }),
            false => Err(ChangeError::NotTheFile { at }),
        }
    }

    /// A pad for a site. Where there is no room, that of pads is taken that nobody needs any more, or another island is made.
    fn pad(
        &mut self,
        at: Avma,
        form: &Form,
        original: &[u8],
        is_go: bool,
        users: &[User],
        kind: PatchKind,
    ) -> Result<PadImage, ChangeError> {
        let may_be_elsewhere = matches!((form, kind), (Form::Jump { must_pun: false, .. }, PatchKind::Punned { .. }));
        let mut has_grown = false;
        loop {
            let error = match self.new_pad(at, form, original, is_go, users, kind) {
                Ok(image) => {
                    self.fresh.insert(image.places.start);
                    return Ok(image);
                }
                Err(error) => error,
            };
            // Each time there are fewer that nobody needs.
            let has_reclaimed = match &error {
                ChangeError::Pad(PadError::Tables(TablesError::NoPlace)) => {
                    self.reclaim(if may_be_elsewhere { Least::Half } else { Least::Pads(1) })
                }
                ChangeError::Pad(PadError::Tables(TablesError::Full { .. })) if !has_grown => {
                    let has_reclaimed = self.reclaim(Least::Pads(reclaim::RECLAIMED_MIN));
                    has_grown = !has_reclaimed;
                    has_reclaimed || self.grow(at) || self.reclaim(Least::Pads(1))
                }
                _ => false,
            };
            if !has_reclaimed {
                return Err(error);
            }
        }
    }

    /// One more island for a site; the last ones are for the code of further libraries.
    fn grow(&mut self, at: Avma) -> bool {
        if self.injection.islands().len() >= OVERLAID_ISLANDS_MAX {
            return false;
        }
        let grown = self.injection.another_island(at).map_err(|error| error.to_string());
        let named = grown.and_then(|()| self.name_islands().map_err(|error| error.to_string()));
        named.inspect_err(|error| tracing::debug!(target: "engine", %error, "no further island")).is_ok()
    }

    /// Gives back the pads that nobody needs any more, if there are so many; says whether any.
    fn reclaim(&mut self, least: Least) -> bool {
        let area = Arc::clone(self.injection.area());
        let memory = |island: usize| IslandMemory::adopt(island_bytes(area.code(island)?)).ok();
        let islands = self.injection.islands();
        let found = {
            let memories: Vec<_> =
                islands.iter().filter_map(|island| Some((island.number, memory(island.number)?))).collect();
            let views: Vec<_> = memories.iter().map(|(number, memory)| (*number, memory.view())).collect();
            reclaim::unused(&views, &self.injection, &self.fresh)
        };
        if !found.is_enough(least) {
            return false;
        }
        let first = self.injection.first_island().tables();
        for _ in 0..reclaim::TRIES_MAX {
            let Some(others) = Others::without_the_code(self.key, first) else {
                tracing::debug!(target: "engine", pid = self.key.pid, "pads are kept: a child has them, too");
                thread::sleep(reclaim::PAUSE);
                continue;
            };
            let give_back = |words: &BTreeSet<u64>| {
                if others.may_have_come() {
                    return None;
                }
                let given = found.without(words);
                let starts: BTreeSet<Avma> =
                    given.iter().flat_map(|pad| pad.code.iter().map(|range| range.start)).collect();
                let code = reclaim::ranges(&given);
                for island in &islands {
                    memory(island.number).iter_mut().for_each(|memory| memory.forget_traps(|to| code.has(to)));
                }
                for island in &islands {
                    let of_it = given.iter().filter(|pad| pad.island == island.number);
                    let numbers: Vec<u32> = of_it.map(|pad| pad.number).collect();
                    memory(island.number).iter_mut().for_each(|memory| memory.give_back(&numbers));
                }
                Some(starts)
            };
            match self.patcher.standing_still(|word| found.is_watched(word), give_back) {
                Ok(Some(starts)) => {
                    self.patcher.forget_ways(&starts);
                    let (pads, all) = (starts.len(), found.all);
                    tracing::info!(target: "engine", pid = self.key.pid, pads, all, "pads are free again");
                    return !starts.is_empty();
                }
                Err(PatchError::Gone) => return false,
                // A child has come, or a thread waits for one that it has lent its memory to.
                Ok(None) | Err(_) => thread::sleep(reclaim::PAUSE),
            }
        }
        false
    }

    fn new_pad(
        &mut self,
        at: Avma,
        form: &Form,
        original: &[u8],
        is_go: bool,
        users: &[User],
        kind: PatchKind,
    ) -> Result<PadImage, ChangeError> {
        if !is_go {
            self.image = self.injection.file_around(at)?;
        }
        let first = self.injection.first_island();
        // The length is the same wherever it will be. A site of a library may have no island near it yet: this one is not
        // there, but it would be in reach.
        let beside = Island { number: first.number, control: Avma(at.0 & !0xfff) };
        let near = if reaches(&first, at) { first } else { beside };
        let bytes = self.with_request(near, at, form, original, is_go, users, kind, pads::length)?;
        let rel32 = match kind {
            PatchKind::Punned { mask, value } => Some(Rel32 { mask, value }),
            PatchKind::Jump | PatchKind::Trap => None,
        };
        let must_be_here = !matches!((form, kind), (Form::Jump { must_pun: false, .. }, PatchKind::Punned { .. }));
        let islands = self.injection.islands().len();
        // Such a jump may want an island of its own; the last ones are for the code of further libraries.
        let must_be_here = must_be_here && (islands < OVERLAID_ISLANDS_MAX || !matches!(form, Form::Overlaid { .. }));
        // For a jump that need not be punned no further island is made.
        let chosen = if must_be_here { Some(self.injection.island_for(at, rel32, bytes)?) } else { None };
        if self.injection.islands().len() != islands {
            self.name_islands()?;
        }
        // The pads know their own room; the chosen island may be used up by them, another one may not.
        let others =
            self.injection.islands().into_iter().filter(|island| Some(*island) != chosen && reaches(island, at));
        let mut failed = None;
        for island in chosen.into_iter().chain(others) {
            let outcome = self.with_request(island, at, form, original, is_go, users, kind, |request| {
                self.island(island).map_err(PadError::from)?.add_pad(request)
            });
            match outcome {
                Ok(image) => {
                    self.retarget(island, at, &image)?;
                    let length = image.code.len() as u64;
                    let end = Avma(at.0 + form.displaced() as u64);
                    for start in [Some(image.places.start), image.places.twin].into_iter().flatten() {
                        self.patcher.add_way(Way { code: start..Avma(start.0 + length), leads_to: vec![end] });
                    }
                    return Ok(image);
                }
                Err(error @ PadError::Tables(_)) => failed = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failed.map_or(ChangeError::Nothing { at }, ChangeError::Pad))
    }

    /// The handlers take the first entry that they find: those of islands where the site had a pad before lead to the new
    /// one.
    fn retarget(&self, made: Island, at: Avma, image: &PadImage) -> Result<(), TablesError> {
        for island in self.injection.islands().into_iter().filter(|island| *island != made) {
            let mut memory = self.island(island)?;
            memory.retarget_trap(at, image.places.start)?;
            for (original, copy) in image.boundaries.iter().skip(1) {
                memory.retarget_trap(*original, *copy)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn with_request<T>(
        &self,
        island: Island,
        at: Avma,
        form: &Form,
        original: &[u8],
        is_go: bool,
        users: &[User],
        kind: PatchKind,
        job: impl FnOnce(&PadRequest<'_>) -> Result<T, PadError>,
    ) -> Result<T, PadError> {
        let bodies: Vec<BodyContext<'_>> = users.iter().map(|user| self.body(island, user, is_go)).collect();
        let bodies: Vec<&dyn PadBody> = bodies.iter().map(|body| body as &dyn PadBody).collect();
        job(&PadRequest {
            island,
            site: at,
            original,
            displaced: form.displaced(),
            patch: kind,
            bodies: &bodies,
            red_zone: !is_go,
            go: is_go,
            shadow_stack: self.injection.facts().has_shadow_stack,
        })
    }

    fn body<'a>(&self, island: Island, user: &'a User, is_go: bool) -> BodyContext<'a> {
        let goroutine = user.program.goroutine.map(|goroutine| goroutine.g).filter(|_| is_go);
        let thread = match (goroutine, self.runtime.go) {
            (Some(g), Some(go)) => ThreadPlace::Go { g, m_offset: go.g_m, procid_offset: go.m_procid },
            _ if is_go || self.runtime.is_go => ThreadPlace::Unknown,
            _ if self.runtime.is_gnu => ThreadPlace::ThreadLocal { offset: GNU_TID },
            _ => ThreadPlace::Unknown,
        };
        BodyContext {
            program: &user.program,
            record: &user.record,
            kind: user.kind,
            probe: user.slot.0,
            island,
            rings: self.rings,
            cpus: self.injection.area().cpus() as u32,
            has_budget: user.has_budget,
            thread,
            goroutine,
            red_zone: !is_go,
            guard: (!is_go).then(|| Guard { image: self.image.clone() }),
            rdpid: self.has_rdpid,
        }
    }

    /// Takes everything out of the text. What cannot be taken out does nothing, as its probes are off.
    pub(super) fn take_all_out(&mut self) -> Result<(), PatchError> {
        let patches: Vec<Patch> = self.sites.iter().map(|(at, site)| site.removal(*at)).collect();
        self.apply(&patches)?;
        self.sites.clear();
        Ok(())
    }

    /// The sites that a probe has, with what they become without it.
    pub(super) fn without(&self, tracepoint: &TracepointId) -> Vec<Change> {
        let has = |site: &Site| site.users.iter().any(|user| user.tracepoint == *tracepoint);
        let without = |(at, site): (&Avma, &Site)| {
            let users = site.users.iter().filter(|user| user.tracepoint != *tracepoint).cloned().collect();
            site.change(*at, users)
        };
        self.sites.iter().filter(|(_, site)| has(site)).map(without).collect()
    }

    /// The pads' and handlers' address ranges: whoever is there is in a pad.
    pub(super) fn code(&self) -> Vec<std::ops::Range<Avma>> {
        self.injection
            .islands()
            .iter()
            .map(|island| island.tables()..Avma(island.tables().0 + CODE_BYTES as u64))
            .collect()
    }

    /// Whether sites may be traps, or jumps that trap inside.
    pub(super) fn may_trap(&self) -> bool {
        self.may_trap
    }

    /// What is placed at which site.
    pub(super) fn forms(&self) -> BTreeMap<Avma, Form> {
        self.sites.iter().map(|(at, site)| (*at, site.form.clone())).collect()
    }
}

impl Site {
    /// The same site for other probes.
    pub(super) fn change(&self, at: Avma, users: Vec<User>) -> Change {
        Change { at, form: self.form.clone(), original: self.original.clone(), is_go: self.is_go, users }
    }

    /// Boundaries inside the jump that trap.
    fn traps(&self) -> Vec<usize> {
        if self.is_punned { self.form.boundaries() } else { Vec::new() }
    }

    /// What has to be written for it; `None` when it stands there already.
    fn arming(&self, at: Avma, before: Option<&Site>) -> Option<Patch> {
        let own = |bytes: usize| self.original[..bytes].to_vec();
        let Some(before) = before else {
            let old = own(self.patched.len());
            let boundaries = self.form.boundaries();
            let how = match (&self.form, boundaries.is_empty() || self.is_punned) {
                (Form::Trap { .. }, _) => How::Byte,
                (Form::Jump { .. } | Form::Overlaid { .. }, true) => How::Poke,
                (Form::Jump { .. } | Form::Overlaid { .. }, false) => How::AllStop,
            };
            return Some(Patch { at, old, new: self.patched.clone(), how, boundaries });
        };
        // From one patch to another: nobody is inside of a jump, but where it traps.
        let bytes = self.patched.len().max(before.patched.len());
        let with = |patched: &[u8]| [patched, &self.original[patched.len()..bytes]].concat();
        let (old, new) = (with(&before.patched), with(&self.patched));
        if old == new {
            return None;
        }
        let mut boundaries: BTreeSet<usize> = before.traps().into_iter().chain(self.traps()).collect();
        boundaries.retain(|at| *at < bytes);
        let how = if bytes == 1 { How::Byte } else { How::Poke };
        Some(Patch { at, old, new, how, boundaries: boundaries.into_iter().collect() })
    }

    fn removal(&self, at: Avma) -> Patch {
        let bytes = self.patched.len();
        let how = if bytes == 1 { How::Byte } else { How::Poke };
        Patch { at, old: self.patched.clone(), new: self.original[..bytes].to_vec(), how, boundaries: self.traps() }
    }
}

/// So many processors are visited rather than asked: it takes a fraction of a millisecond and leaves the process alone,
/// while a call that the process makes stops one of its threads several times.
const VISITED_CPUS_MAX: i64 = 16;

/// All processors forget what they have fetched: few are visited; many are asked by the process itself.
struct Barrier<'a> {
    injection: &'a mut Injection,
    /// Whether the process can make the call; not known before the first time.
    synchronises: &'a mut Option<bool>,
}

impl Barrier<'_> {
    fn call(&mut self, command: u64) -> Result<(), i32> {
        let call = RemoteCall { number: libc::SYS_membarrier, args: [command, 0, 0, 0, 0, 0] };
        match self.injection.call(&[call]) {
            Ok(results) => results.first().map_or(Err(libc::EIO), |result| result.map(|_| ())),
            Err(error) => {
                tracing::debug!(target: "engine", %error, "the process cannot make a call");
                Err(libc::EIO)
            }
        }
    }
}

impl Synchronise for Barrier<'_> {
    fn synchronise(&mut self) -> io::Result<()> {
        // SAFETY: a call without pointers (sysconf(3)).
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        if (1..=VISITED_CPUS_MAX).contains(&cpus) && VisitCpus.synchronise().is_ok() {
            return Ok(());
        }
        if self.synchronises.is_none() {
            *self.synchronises = Some(self.call(MEMBARRIER_REGISTER_SYNC_CORE).is_ok());
        }
        if *self.synchronises == Some(true) && self.call(MEMBARRIER_SYNC_CORE).is_ok() {
            return Ok(());
        }
        VisitCpus.synchronise()
    }
}

/// Why sites could not be changed. They are as they were.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// The bytes of the process are not those of the file.
    #[error("the code at {:#x} in the process is not that of the build's file: somebody has changed it", at.0)]
    NotTheFile {
        /// Where.
        at: Avma,
    },
    /// Another debugger's.
    #[error("another debugger's breakpoint is at {:#x}; detach it first", at.0)]
    ForeignBreakpoint {
        /// Where.
        at: Avma,
    },
    /// No kind of patch.
    #[error("no patch can be made at {:#x}", at.0)]
    Nothing {
        /// Where.
        at: Avma,
    },
    /// No jump leads from there to a pad; a trap may.
    #[error("no jump can be made at {:#x}: {why}", at.0)]
    NoJump {
        /// Where.
        at: Avma,
        /// Why not.
        why: Box<ChangeError>,
    },
    /// No pad.
    #[error(transparent)]
    Pad(#[from] PadError),
    /// No island.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// The text.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

impl From<TablesError> for ChangeError {
    fn from(error: TablesError) -> ChangeError {
        ChangeError::Pad(PadError::Tables(error))
    }
}

impl ChangeError {
    /// The site that could be a trap instead, if that would help.
    pub(super) fn use_trap(&self) -> Option<Option<Avma>> {
        match self {
            ChangeError::Patch(PatchError::Busy { at, .. }) => Some(Some(*at)),
            ChangeError::Patch(PatchError::Goroutines { .. }) => Some(None),
            ChangeError::NoJump { at, .. } => Some(Some(*at)),
            _ => None,
        }
    }

    /// Whether a breakpoint from outside could do what no jump can.
    pub(super) fn is_no_jump(&self) -> bool {
        match self {
            ChangeError::Nothing { .. } | ChangeError::NoJump { .. } | ChangeError::Pad(_) => true,
            ChangeError::Inject(error) => {
                matches!(error, InjectError::NoRoom { .. } | InjectError::TooManyIslands { .. })
            }
            ChangeError::Patch(error) => matches!(error, PatchError::Busy { .. }),
            ChangeError::NotTheFile { .. } | ChangeError::ForeignBreakpoint { .. } => false,
        }
    }

    /// For who asked.
    pub(super) fn into_arm_error(self) -> ArmError {
        match self {
            ChangeError::Patch(PatchError::Gone) | ChangeError::Inject(InjectError::Gone) => ArmError::Gone,
            ChangeError::ForeignBreakpoint { at } => ArmError::ForeignBreakpoint(at),
            ChangeError::NoJump { why, .. } => why.into_arm_error(),
            other => ArmError::Refused(other.to_string()),
        }
    }
}

//! The area of a process: made, completed where an agent was killed in the middle of that, or taken over.
//!
//! The order of making it is such that whatever exists can be found: the descriptor first, then the header in the memory
//! file (where everything is to be), then the mappings, and the magic last.

use super::allocate::Allocations;
use super::control::{self, Piece};
use super::descriptor::{self, FileId, is_memory};
use super::error::InjectError;
use super::leftovers::{self, Leftover, Owner};
use super::map::{AreaMap, Window};
use super::place::{self, Rel32};
use super::slots::{self, Slot};
use super::threads;
use super::tracee::{CallResult, NAME, RemoteCall, Stopped, Tracee, with_thread};
use crate::capture::memory::{Fault, Memory};
use crate::engine::area::{
    ALIVE, ALIVE_BYTES, CODE_BYTES, CONTROL_BYTES, CPUS_MAX, ISLANDS_MAX, Island, PROBE_ENABLED, PROBE_WORDS,
    PROBE_WORDS_BYTES, PROBES_MAX, RING_BYTES, TABLES_BYTES, VERSION, code_in_file, ring_in_file,
};
use crate::engine::memory::TargetMemory;
use crate::target::{self, Mapping, proc_file};
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::fs;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Lowest number that the memory file's descriptor gets in the process, if its limit and its table allow: below are those
/// that a program expects to be given.
const DESCRIPTOR_MIN: u64 = 512;
/// Times that a place is chosen anew because the process has mapped something there in between.
const PLACES_MAX: usize = 4;
/// System calls made by one thread while it is stopped, at most: about 20 us each.
const CALLS_PER_STOP_MAX: usize = 16;
/// `MFD_EXEC` of memfd_create(2), since Linux 6.3: the file may be mapped executable whatever vm.memfd_noexec says.
const MFD_EXEC: u64 = 0x10;
const MFD_CLOEXEC: u64 = 1;

/// What is known of an injection.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Facts {
    /// Whether the area is one that another agent has made: its tables and pads are in use.
    pub(in crate::engine) is_adopted: bool,
    /// Whether any thread had a shadow stack: nothing that returns elsewhere than it was called from works there.
    pub(in crate::engine) has_shadow_stack: bool,
    /// The longest that a thread was stopped so far, in nanoseconds.
    pub(in crate::engine) longest_stop_ns: u64,
    /// How long the last stop took, in nanoseconds.
    pub(in crate::engine) last_stop_ns: u64,
    /// How often a thread was stopped so far.
    pub(in crate::engine) stops: u64,
}

/// An agent's access to the inside of one process. Dropped, it gives the area up; that stays mapped.
pub(in crate::engine) struct Injection {
    key: ProcessKey,
    memory: TargetMemory,
    map: Arc<AreaMap>,
    allocations: Vec<Allocations>,
    descriptor: u64,
    rings: Avma,
    facts: Facts,
}

/// A mapping that the process is to have.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    at: u64,
    bytes: usize,
    file_offset: u64,
    protection: i32,
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const READ_EXECUTE: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// The CPUs that this machine can have.
fn cpus() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    // "0-63", or "0", or "0-3,8-11": the last number is the highest.
    let highest: Option<usize> = text.trim().rsplit(['-', ',']).next().and_then(|number| number.parse().ok());
    highest.map_or(CPUS_MAX, |highest| highest + 1).min(CPUS_MAX)
}

impl Injection {
    /// Makes the area of a process, or takes over the one that it has.
    ///
    /// `raises`: what will run in the process may raise signals that a handler of the engine's answers. It is refused then
    /// where a thread blocks them.
    pub(in crate::engine) fn open_for(key: ProcessKey, raises: bool) -> Result<Injection, InjectError> {
        let fitness = threads::check(key, raises)?;
        let memory = TargetMemory::open(key.pid as i32);
        let facts = Facts {
            is_adopted: false,
            has_shadow_stack: fitness.shadow_stack,
            longest_stop_ns: 0,
            last_stop_ns: 0,
            stops: 0,
        };
        let maps = target::mappings(key.pid)?;
        let found = leftovers::find_in(key, &maps, &memory);
        for leftover in found.iter().filter(|leftover| !leftover.is_inherited) {
            match (leftover.owner, leftover.version) {
                (Owner::Alive { pid: agent }, _) if agent != u64::from(control::own_key().pid) => {
                    return Err(InjectError::Owned { agent });
                }
                (_, Some(found)) if found != VERSION => return Err(InjectError::Version { found }),
                _ => {}
            }
        }
        for leftover in found.iter().filter(|leftover| leftover.is_adoptable()) {
            // One whose descriptor the process has closed cannot be used again; it stays, and its handlers pass on.
            match Injection::adopt(key, leftover) {
                Ok((map, descriptor, rings)) => {
                    return Injection::with(key, memory, map, descriptor, rings, facts, true);
                }
                Err(InjectError::Descriptor(error)) => {
                    tracing::warn!(target: "engine", pid = key.pid, %error, "an older area cannot be taken over");
                }
                Err(error) => return Err(error),
            }
        }
        let (map, descriptor, rings) = Injection::create(key, &memory)?;
        Injection::with(key, memory, map, descriptor, rings, facts, false)
    }

    /// The same for what may raise signals.
    #[cfg(test)]
    pub(in crate::engine) fn open(key: ProcessKey) -> Result<Injection, InjectError> {
        Injection::open_for(key, true)
    }

    fn with(
        key: ProcessKey,
        memory: TargetMemory,
        map: AreaMap,
        descriptor: u64,
        rings: Avma,
        facts: Facts,
        is_adopted: bool,
    ) -> Result<Injection, InjectError> {
        let facts = Facts { is_adopted, ..facts };
        let map = Arc::new(map);
        let mut injection = Injection { key, memory, map, allocations: Vec::new(), descriptor, rings, facts };
        injection.complete()?;
        Ok(injection)
    }

    /// Has the process make the memory file.
    fn create(key: ProcessKey, memory: &TargetMemory) -> Result<(AreaMap, u64, Avma), InjectError> {
        let maps = target::mappings(key.pid)?;
        let slot = slots::in_padding(memory, &maps, true).ok_or(InjectError::NoSlot)?;
        // Of an agent that was killed before it mapped anything.
        let orphans = descriptor::open_ones(key.pid);
        let mapped: Vec<FileId> = maps
            .iter()
            .filter(|mapping| is_memory(&mapping.path))
            .map(|mapping| FileId { dev: mapping.dev, inode: mapping.inode })
            .collect();
        // The last one is where the program does not expect a descriptor.
        let orphan = orphans.into_iter().rev().find_map(|descriptor| {
            let (file, id) = descriptor::take_memory(key.pid, descriptor).ok()?;
            (!mapped.contains(&id)).then_some((file, descriptor))
        });
        let (file, descriptor) = match orphan {
            Some(orphan) => orphan,
            None => {
                let least = descriptor_min(key.pid);
                let (descriptor, _) = with_thread(key.pid, |tracee| {
                    tracee.use_slot(slot)?;
                    make_file(tracee, slot, least)
                })?;
                (descriptor::take_memory(key.pid, descriptor)?.0, descriptor)
            }
        };
        let cpus = cpus();
        descriptor::resize(&file, cpus)?;
        let map = AreaMap::new(file, cpus)?;
        let rings = place::rings(&maps, cpus * 2 * RING_BYTES)
            .ok_or(InjectError::NoRoom { at: Avma(0), bytes: cpus * 2 * RING_BYTES })?;
        control::describe(&map, key, descriptor, rings);
        Ok((map, descriptor, rings))
    }

    /// Takes over an area that is mapped, at least in parts.
    fn adopt(key: ProcessKey, leftover: &Leftover) -> Result<(AreaMap, u64, Avma), InjectError> {
        let Some(description) = leftover.description else { return Err(InjectError::Gone) };
        let (file, id): (OwnedFd, FileId) = descriptor::take_memory(key.pid, description.descriptor)?;
        if id != leftover.file {
            return Err(InjectError::Descriptor(std::io::Error::from_raw_os_error(libc::ESTALE)));
        }
        let map = AreaMap::new(file, description.cpus)?;
        for probe in 0..PROBES_MAX {
            map.u32_at(PROBE_WORDS + probe * PROBE_WORDS_BYTES + PROBE_ENABLED).store(0, Ordering::Relaxed);
        }
        for island in description.islands.into_iter().flatten() {
            map.add(island)?;
        }
        Ok((map, description.descriptor, description.rings))
    }

    /// Maps what is not mapped yet, and says that it is complete.
    fn complete(&mut self) -> Result<(), InjectError> {
        control::set_owner(&self.map, Some(control::own_key()));
        if self.map.island(0).is_none() {
            let at = self.executable()?;
            self.add_island(at, None, 0)?;
        }
        for number in 0..ISLANDS_MAX {
            if let Some(island) = self.map.island(number) {
                self.map_all(&island_mappings(&self.map, island), Piece::Island(number))?;
                self.map_alive(island)?;
            }
        }
        self.map_all(&self.ring_mappings(), Piece::Rings)?;
        self.allocations = (0..ISLANDS_MAX).map_while(|number| self.map.code(number)).map(Allocations::read).collect();
        control::complete(&self.map);
        self.close_others()
    }

    /// Has the process close descriptors of memory files that agents have left when they were killed: second ones of this
    /// area's, and those of files that are not mapped. Those of a parent's area, which its child has inherited, are left.
    fn close_others(&mut self) -> Result<(), InjectError> {
        let others = descriptor::open_ones(self.key.pid).into_iter().filter(|&open| open != self.descriptor);
        let others: Vec<u64> = others.collect();
        if others.is_empty() {
            return Ok(());
        }
        let Ok((_, own)) = descriptor::take_memory(self.key.pid, self.descriptor) else { return Ok(()) };
        let maps = target::mappings(self.key.pid)?;
        for open in others {
            let Ok((_, id)) = descriptor::take_memory(self.key.pid, open) else { continue };
            let is_mapped = maps.iter().any(|map| map.dev == id.dev && map.inode == id.inode);
            if id == own || !is_mapped {
                // A thread of the process may have closed it meanwhile: then there is nothing to do.
                self.call(&[RemoteCall { number: libc::SYS_close, args: [open, 0, 0, 0, 0, 0] }])?;
            }
        }
        Ok(())
    }

    /// An address in the text of the executable.
    fn executable(&self) -> Result<Avma, InjectError> {
        let maps = target::mappings(self.key.pid)?;
        let exe = fs::read_link(format!("/proc/{}/exe", self.key.pid)).unwrap_or_default();
        let exe = exe.to_string_lossy();
        let texts = || maps.iter().filter(|mapping| mapping.exec && mapping.inode != 0);
        let text = texts().find(|mapping| mapping.path == exe).or_else(|| texts().next());
        Ok(Avma(text.ok_or(InjectError::NoSlot)?.lo))
    }

    /// Maps one more island near `site`.
    fn add_island(&mut self, site: Avma, jump: Option<Rel32>, bytes: usize) -> Result<Island, InjectError> {
        let number = (0..ISLANDS_MAX)
            .find(|&number| self.map.island(number).is_none())
            .ok_or(InjectError::TooManyIslands { at: site })?;
        let no_room = || InjectError::NoRoom { at: site, bytes: CONTROL_BYTES + CODE_BYTES };
        for _ in 0..PLACES_MAX {
            let maps = target::mappings(self.key.pid)?;
            let module = place::module(&maps, site).ok_or_else(no_room)?;
            let control = place::island(&maps, module, jump.map(|rel32| (site, rel32)), bytes).ok_or_else(no_room)?;
            let island = Island { number, control };
            control::set_island(&self.map, island);
            let mapped = self
                .map_all(&island_mappings(&self.map, island), Piece::Island(number))
                .and_then(|()| self.map_alive(island));
            match mapped {
                Ok(()) => {
                    self.map.add(island)?;
                    return Ok(island);
                }
                Err(InjectError::Call { errno: libc::EEXIST, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(no_room())
    }

    fn ring_mappings(&self) -> Vec<Wanted> {
        let ring = |n: usize| Wanted {
            at: self.rings.0 + (n * RING_BYTES) as u64,
            bytes: RING_BYTES,
            file_offset: ring_in_file(n / 2),
            protection: READ_WRITE,
        };
        (0..2 * self.map.cpus()).map(ring).collect()
    }

    /// Has the process map what it has not.
    fn map_all(&mut self, wanted: &[Wanted], of: Piece) -> Result<(), InjectError> {
        let maps = target::mappings(self.key.pid)?;
        let is_said = control::is_advised(&self.map, of);
        // A process that has all it maps locked into memory (mlockall(2), MCL_FUTURE) would have all of this there at
        // once: so nothing may be accessed at first, which the kernel does not fill, and then it is unlocked.
        let locks = locks_memory(self.key.pid);
        // Neighbours are told of together.
        let mut ranges: Vec<(u64, u64, i32)> = Vec::new();
        let mut calls = Vec::new();
        for wanted in wanted {
            let Wanted { at, bytes, file_offset, protection } = *wanted;
            let found = found(&maps, wanted);
            // An agent that was killed may have had it mapped, and not have said yet that children are not to have it.
            if found == Found::Mapped && (is_said || protection != READ_WRITE) {
                continue;
            }
            let end = at + bytes as u64;
            match ranges.last_mut() {
                Some((_, hi, last)) if *hi == at && *last == protection => *hi = end,
                _ => ranges.push((at, end, protection)),
            }
            if found == Found::Nothing {
                let at_first = if locks { libc::PROT_NONE } else { protection };
                let args = [at, bytes as u64, at_first as u64, flags_of_mapping(), self.descriptor, file_offset];
                calls.push(RemoteCall { number: libc::SYS_mmap, args });
            }
            if found == Found::Closed || (locks && found == Found::Nothing) {
                calls.push(RemoteCall { number: libc::SYS_munlock, args: [at, bytes as u64, 0, 0, 0, 0] });
                let args = [at, bytes as u64, protection as u64, 0, 0, 0];
                calls.push(RemoteCall { number: libc::SYS_mprotect, args });
            }
        }
        let advise = |lo: u64, hi: u64, advice: i32| RemoteCall {
            number: libc::SYS_madvise,
            args: [lo, hi - lo, advice as u64, 0, 0, 0],
        };
        for &(lo, hi, protection) in &ranges {
            if protection == READ_WRITE {
                calls.push(advise(lo, hi, libc::MADV_DONTFORK));
            }
            // A core dump of the process is not to have the agent's memory in it.
            calls.push(advise(lo, hi, libc::MADV_DONTDUMP));
        }
        for some in calls.chunks(CALLS_PER_STOP_MAX) {
            for (call, result) in some.iter().zip(self.call(some)?) {
                match result {
                    Err(errno) if call.number == libc::SYS_mmap => {
                        return Err(InjectError::Call { what: "mmap", errno });
                    }
                    Err(errno) if call.number == libc::SYS_mprotect => {
                        return Err(InjectError::Call { what: "mprotect", errno });
                    }
                    // Then it takes more memory than it needs.
                    Err(_) if call.number == libc::SYS_munlock => {}
                    // A kernel that does not know MAP_FIXED_NOREPLACE takes the address for a wish (before 4.17).
                    Ok(at) if call.number == libc::SYS_mmap && at != call.args[0] => {
                        return Err(InjectError::Call { what: "mmap at a fixed place", errno: libc::EEXIST });
                    }
                    Err(errno) => return Err(InjectError::Call { what: "madvise", errno }),
                    Ok(_) => {}
                }
            }
        }
        control::set_advised(&self.map, of);
        Ok(())
    }

    /// Has the process map the page that a child by fork(2) finds empty, and fills it.
    fn map_alive(&mut self, island: Island) -> Result<(), InjectError> {
        let at = island.alive().0;
        let bytes = ALIVE_BYTES as u64;
        let is_there = |mapping: &Mapping| mapping.lo <= at && at + bytes <= mapping.hi;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
        let map = RemoteCall { number: libc::SYS_mmap, args: [at, bytes, READ_WRITE as u64, flags, u64::MAX, 0] };
        // It is filled last, so that it is never full and inherited.
        let mut word = [0; 4];
        if self.memory.read(island.alive(), &mut word).is_ok() && word == 1u32.to_ne_bytes() {
            return Ok(());
        }
        let advice = libc::MADV_WIPEONFORK as u64;
        let advise = RemoteCall { number: libc::SYS_madvise, args: [at, bytes, advice, 0, 0, 0] };
        let is_missing = !target::mappings(self.key.pid)?.iter().any(is_there);
        let calls = if is_missing { vec![map, advise] } else { vec![advise] };
        for (call, result) in calls.iter().zip(self.call(&calls)?) {
            match result {
                Err(errno) if call.number == libc::SYS_mmap => return Err(InjectError::Call { what: "mmap", errno }),
                Ok(mapped) if call.number == libc::SYS_mmap && mapped != at => {
                    return Err(InjectError::Call { what: "mmap at a fixed place", errno: libc::EEXIST });
                }
                Err(errno) => return Err(InjectError::Call { what: "madvise", errno }),
                Ok(_) => {}
            }
        }
        leftovers::write_word(self.key.pid, island.alive(), 1)
    }

    /// The agent's own mappings.
    pub(in crate::engine) fn area(&self) -> &Arc<AreaMap> {
        &self.map
    }

    /// What is known.
    pub(in crate::engine) fn facts(&self) -> Facts {
        self.facts
    }

    /// The island that has the handlers.
    pub(in crate::engine) fn first_island(&self) -> Island {
        match self.map.island(0) {
            Some(island) => island,
            // `complete` maps it before anybody has an injection.
            None => unreachable!("an area without an island"),
        }
    }

    /// All islands.
    pub(in crate::engine) fn islands(&self) -> Vec<Island> {
        (0..ISLANDS_MAX).filter_map(|number| self.map.island(number)).collect()
    }

    /// Whether an address is in this area's tables or code.
    pub(in crate::engine) fn is_own(&self, at: Avma) -> bool {
        self.islands().iter().any(|island| at.0.wrapping_sub(island.tables().0) < CODE_BYTES as u64)
    }

    fn window(&self, island: Island) -> Window<'_> {
        match self.map.code(island.number) {
            Some(window) => window,
            None => unreachable!("an island that is not mapped"),
        }
    }

    /// The island whose code a jump at `site` reaches, with room for so many bytes; where the jump's displacement is given
    /// in parts, with room where it may go. Maps one more if there is none.
    pub(in crate::engine) fn island_for(
        &mut self,
        site: Avma,
        rel32: Option<Rel32>,
        bytes: usize,
    ) -> Result<Island, InjectError> {
        let maps = target::mappings(self.key.pid)?;
        let module = place::module(&maps, site).ok_or(InjectError::Fault { what: "read", at: site })?;
        let jump = rel32.map(|rel32| (site, rel32));
        for island in self.islands() {
            let tables = island.tables();
            if module.is_reached_from(tables) && self.allocations[island.number].find(tables, bytes, jump).is_some() {
                return Ok(island);
            }
        }
        let island = self.add_island(site, rel32, bytes)?;
        // Islands are numbered without gaps.
        self.allocations.push(Allocations::read(self.window(island)));
        Ok(island)
    }

    /// Where the file that an address is mapped from can be read, around it and without holes; empty where it is of none.
    pub(in crate::engine) fn file_around(&self, at: Avma) -> Result<Range<Avma>, InjectError> {
        let maps = target::mappings(self.key.pid)?;
        let Some(index) = maps.iter().position(|mapping| (mapping.lo..mapping.hi).contains(&at.0)) else {
            return Ok(at..at);
        };
        let own = &maps[index];
        let is_of_it = |mapping: &&Mapping| {
            mapping.read && mapping.inode != 0 && (mapping.dev, mapping.inode) == (own.dev, own.inode)
        };
        let (mut lo, mut hi) = (at.0, at.0);
        for mapping in maps[index..].iter().take_while(is_of_it) {
            if mapping.lo > hi {
                break;
            }
            hi = mapping.hi;
        }
        for mapping in maps[..=index].iter().rev().take_while(is_of_it) {
            if mapping.hi < lo {
                break;
            }
            lo = mapping.lo;
        }
        Ok(Avma(lo)..Avma(hi))
    }

    /// Maps one more island that code near `site` reaches, where those that there are have no room.
    pub(in crate::engine) fn another_island(&mut self, site: Avma) -> Result<(), InjectError> {
        let island = self.add_island(site, None, 0)?;
        self.allocations.push(Allocations::read(self.window(island)));
        Ok(())
    }

    /// Takes a piece of an island's code: its offset from the island's tables. It is never given twice, also not by the
    /// next agent. Aligned to 16 where no jump says where it must be.
    #[cfg(test)]
    pub(in crate::engine) fn allocate(
        &mut self,
        island: Island,
        bytes: usize,
        jump: Option<(Avma, Rel32)>,
    ) -> Result<usize, InjectError> {
        let full = || InjectError::NoRoom { at: jump.map_or(island.tables(), |(site, _)| site), bytes };
        let map = Arc::clone(&self.map);
        let window = map.code(island.number).ok_or_else(full)?;
        let allocations = self.allocations.get_mut(island.number).ok_or_else(full)?;
        let offset = allocations.find(island.tables(), bytes, jump).ok_or_else(full)?;
        allocations.commit(window, offset, bytes).ok_or_else(full)?;
        Ok(offset)
    }

    /// Has a thread of the process make system calls, one after the other; it is stopped for all of them. An error means
    /// that they could not be made, or not all of them.
    pub(in crate::engine) fn call(&mut self, calls: &[RemoteCall]) -> Result<Vec<CallResult>, InjectError> {
        let map = Arc::clone(&self.map);
        let (results, stopped) = self.with_slot(&map, |tracee, slot| {
            tracee.use_slot(slot)?;
            calls.iter().map(|&call| tracee.call(call)).collect::<Result<Vec<CallResult>, InjectError>>()
        })?;
        self.note(stopped);
        Ok(results)
    }

    /// Has a job done by a stopped thread and a slot.
    fn with_slot<'a, T: Send>(
        &self,
        map: &'a AreaMap,
        mut job: impl FnMut(&mut Tracee<'a>, Slot<'a>) -> Result<T, InjectError> + Send,
    ) -> Result<(T, Stopped), InjectError> {
        let mapped = match map.island(0).zip(map.code(0)) {
            // One that was described but could not be mapped is of no use yet.
            Some((island, window)) if !self.allocations.is_empty() => slots::in_island(island.tables(), window),
            _ => None,
        };
        let slot = match mapped {
            Some(slot) => slot,
            None => {
                let maps = target::mappings(self.key.pid)?;
                slots::in_padding(&self.memory, &maps, true).ok_or(InjectError::NoSlot)?
            }
        };
        with_thread(self.key.pid, |tracee| job(tracee, slot))
    }

    fn note(&mut self, stopped: Stopped) {
        self.facts.longest_stop_ns = self.facts.longest_stop_ns.max(stopped.ns);
        self.facts.last_stop_ns = stopped.ns;
        self.facts.stops += 1;
    }

    /// Writes text, also where the process may not write: through /proc/PID/mem where that may be opened, else by a thread
    /// that is stopped for it.
    #[cfg(test)]
    pub(in crate::engine) fn write_text(&mut self, at: Avma, bytes: &[u8]) -> Result<(), InjectError> {
        if self.memory.write(at, bytes).is_ok() {
            return Ok(());
        }
        let ((), stopped) = with_thread(self.key.pid, |tracee| {
            tracee.poke(at, bytes).map_err(|_| InjectError::Fault { what: "write", at })
        })?;
        self.note(stopped);
        Ok(())
    }

    /// Gives the area up. It stays mapped, and the next agent may take it over.
    #[cfg(test)]
    pub(in crate::engine) fn close(self) {}
}

impl Drop for Injection {
    fn drop(&mut self) {
        let own = control::own_key();
        if control::owner(&self.map) == (u64::from(own.pid), own.start_time) {
            control::set_owner(&self.map, None);
        }
    }
}

impl Memory for Injection {
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(at, into)
    }
}

/// Has a stopped thread make the memory file; returns its descriptor in the process, which is `least` or above it.
fn make_file(tracee: &mut Tracee<'_>, slot: Slot<'_>, least: u64) -> Result<u64, InjectError> {
    let mut call = |what: &'static str, number, args| {
        tracee.call(RemoteCall { number, args })?.map_err(|errno| InjectError::Call { what, errno })
    };
    let name = slot.at().0 + slots::SLOT_NAME as u64;
    let mut create = |flags| call("memfd_create", libc::SYS_memfd_create, [name, flags, 0, 0, 0, 0]);
    let made = match create(MFD_CLOEXEC | MFD_EXEC) {
        // A kernel that does not know the flag.
        Err(InjectError::Call { errno: libc::EINVAL, .. }) => create(MFD_CLOEXEC)?,
        other => other?,
    };
    let duplicate = [made, libc::F_DUPFD_CLOEXEC as u64, least, 0, 0, 0];
    match call("fcntl", libc::SYS_fcntl, duplicate) {
        Ok(parked) => {
            call("close", libc::SYS_close, [made, 0, 0, 0, 0, 0])?;
            Ok(parked)
        }
        // Its limit is below that.
        Err(InjectError::Call { .. }) => Ok(made),
        Err(error) => Err(error),
    }
}

fn island_mappings(map: &AreaMap, island: Island) -> [Wanted; 2] {
    let control = Wanted { at: island.control.0, bytes: ALIVE, file_offset: 0, protection: READ_WRITE };
    let code = Wanted {
        at: island.tables().0,
        bytes: CODE_BYTES,
        file_offset: code_in_file(map.cpus(), island.number),
        protection: READ_EXECUTE,
    };
    [control, code]
}

/// What is where a piece of the memory file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Not that.
    Nothing,
    /// The piece, and nobody may access it: an agent was killed in between.
    Closed,
    /// The piece.
    Mapped,
}

/// Looks. Neighbours may be one mapping.
fn found(maps: &[Mapping], wanted: &Wanted) -> Found {
    let is_there = |mapping: &&Mapping| {
        is_memory(&mapping.path)
            && mapping.lo <= wanted.at
            && wanted.at + wanted.bytes as u64 <= mapping.hi
            && mapping.file_offset + (wanted.at - mapping.lo) == wanted.file_offset
    };
    match maps.iter().find(is_there) {
        None => Found::Nothing,
        Some(mapping) if !mapping.read => Found::Closed,
        Some(mapping) if mapping.write == (wanted.protection & libc::PROT_WRITE != 0) => Found::Mapped,
        Some(_) => Found::Nothing,
    }
}

fn flags_of_mapping() -> u64 {
    (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE) as u64
}

/// From where on a process's descriptor for the memory file is looked for: out of the program's way, but within its table
/// of descriptors (proc_pid_status(5), `FDSize`). For a larger one the kernel waits until no CPU reads the old one, some 7 ms
/// for which the thread would stand still (linux/fs/file.c, `expand_fdtable`).
fn descriptor_min(pid: u32) -> u64 {
    let status = proc_file::read_text(format!("/proc/{pid}/status")).unwrap_or_default();
    let table = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse::<u64>().ok());
    table.map_or(DESCRIPTOR_MIN, |size| size.saturating_sub(2).min(DESCRIPTOR_MIN))
}

/// Whether a process has memory locked (proc_pid_status(5), `VmLck`): then it may have asked for more of it.
fn locks_memory(pid: u32) -> bool {
    let status = proc_file::read_text(format!("/proc/{pid}/status")).unwrap_or_default();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    locked.is_some_and(|text| !text.trim_start().starts_with("0 "))
}

const _: () = assert!(NAME.len() <= slots::SLOT_BYTES - slots::SLOT_NAME);
const _: () = assert!(TABLES_BYTES < CODE_BYTES - place::BACK_BYTES);

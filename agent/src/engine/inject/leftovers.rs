//! What agents have left in a process: found by its memory map, taken out or taken over.
//!
//! An agent that was killed leaves its patches, handlers and area: hits turn into drops, nothing else. A child by fork(2)
//! has the patches, the handlers and the code of its parent, but neither control nor rings.

use super::control::{Description, HEADER_BYTES, own_key};
use super::descriptor::{FileId, is_memory};
use super::error::InjectError;
use crate::capture::memory::Memory;
use crate::engine::area::{
    CONTROL_BYTES, CPUS_MAX, ISLANDS_MAX, Island, PROBE_ENABLED, PROBE_WORDS, PROBE_WORDS_BYTES, PROBES_MAX, VERSION,
};
use crate::engine::memory::TargetMemory;
use crate::target::{self, Mapping};
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::io;

/// Who has an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Owner {
    /// An agent that runs: this one, or another.
    Alive {
        /// Its pid.
        pid: u64,
    },
    /// An agent that is gone.
    Dead,
    /// Nobody: its agent has let go of it.
    Nobody,
}

/// An area that a process has mapped, whole or in parts.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Leftover {
    /// Its islands' code, where it is mapped.
    pub(in crate::engine) islands: Vec<Island>,
    /// Whether the process is a child that has the code only.
    pub(in crate::engine) is_inherited: bool,
    /// Version of its header; `None` if it was never complete, or is not mapped.
    pub(in crate::engine) version: Option<u32>,
    /// Who has it. Of one that is inherited: nobody.
    pub(in crate::engine) owner: Owner,
    pub(super) file: FileId,
    pub(super) description: Option<Description>,
}

impl Leftover {
    /// Whether an agent may take it over: of this version, made for this process, and without another agent.
    pub(super) fn is_adoptable(&self) -> bool {
        let own = u64::from(own_key().pid);
        let is_free = match self.owner {
            Owner::Alive { pid } => pid == own,
            Owner::Dead | Owner::Nobody => true,
        };
        !self.is_inherited && self.description.is_some() && self.version.is_none_or(|found| found == VERSION) && is_free
    }
}

/// What an instruction was before it was patched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Original {
    /// Where.
    pub(in crate::engine) at: Avma,
    /// Its bytes.
    pub(in crate::engine) bytes: Vec<u8>,
}

/// What was cleaned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Cleaned {
    /// Sites that have their own bytes again.
    pub(in crate::engine) restored: usize,
    /// Sites that had them already.
    pub(in crate::engine) untouched: usize,
}

/// The areas that a process has.
pub(in crate::engine) fn find(pid: u32) -> Result<Vec<Leftover>, InjectError> {
    let maps = target::mappings(pid)?;
    let start_time = target::start_time(pid)?;
    Ok(find_in(ProcessKey { pid, start_time }, &maps, &TargetMemory::reader(pid as i32)))
}

pub(super) fn find_in(process: ProcessKey, maps: &[Mapping], memory: &impl Memory) -> Vec<Leftover> {
    let mut files: Vec<FileId> = maps.iter().filter(|mapping| is_memory(&mapping.path)).map(file_of).collect();
    files.sort_unstable_by_key(|file| (file.dev, file.inode));
    files.dedup();
    files.into_iter().map(|file| describe(process, maps, memory, file)).collect()
}

fn file_of(mapping: &Mapping) -> FileId {
    FileId { dev: mapping.dev, inode: mapping.inode }
}

fn describe(process: ProcessKey, maps: &[Mapping], memory: &impl Memory, file: FileId) -> Leftover {
    let own = || maps.iter().filter(move |mapping| file_of(mapping) == file);
    // All views of control are the same memory.
    let description = own().find(|mapping| mapping.file_offset == 0 && mapping.write).and_then(|control| {
        let mut page = [0; HEADER_BYTES];
        memory.read(Avma(control.lo), &mut page).ok()?;
        Some(Description::parse(&page))
    });
    // One that the parent's fork came before the kernel was told not to give on is not this process's either.
    let description = description.filter(|found| found.process.pid == 0 || found.process == process);
    let code = own().filter(|mapping| mapping.exec && mapping.lo > CONTROL_BYTES as u64);
    let islands = code.take(ISLANDS_MAX).enumerate().map(|(number, mapping)| {
        let control = Avma(mapping.lo - CONTROL_BYTES as u64);
        let known = description.iter().flat_map(|found| found.islands.iter().flatten());
        known.copied().find(|island| island.control == control).unwrap_or(Island { number, control })
    });
    let mut islands: Vec<Island> = islands.collect();
    islands.sort_unstable_by_key(|island| island.number);
    let owner = match &description {
        Some(found) if found.owner_pid == 0 => Owner::Nobody,
        Some(found) => match target::start_time(found.owner_pid as u32) {
            Ok(start) if start == found.owner_start => Owner::Alive { pid: found.owner_pid },
            _ => Owner::Dead,
        },
        None => Owner::Nobody,
    };
    Leftover {
        is_inherited: description.is_none(),
        version: description.filter(|found| found.is_complete).map(|found| found.version),
        description: description.filter(|found| found.cpus <= CPUS_MAX),
        islands,
        owner,
        file,
    }
}

/// Takes an area out of use: its probes are off, and the text is what it was. Handlers, code and memory stay: a thread may
/// be in them, and handlers that find nothing of theirs pass signals on.
///
/// `originals` reads what the tables of an island say of its patches; `write` restores one, at a moment when no thread is
/// in the middle of it. An area that another agent has is refused.
pub(in crate::engine) fn clean(
    pid: u32,
    leftover: &Leftover,
    originals: &mut dyn FnMut(&dyn Memory, Island) -> Vec<Original>,
    write: &mut dyn FnMut(&Original) -> io::Result<()>,
) -> Result<Cleaned, InjectError> {
    if let Owner::Alive { pid: agent } = leftover.owner
        && agent != u64::from(own_key().pid)
    {
        return Err(InjectError::Owned { agent });
    }
    let memory = TargetMemory::reader(pid as i32);
    if let Some(island) = leftover.islands.first()
        && !leftover.is_inherited
        && leftover.version == Some(VERSION)
    {
        switch_off(pid, island)?;
    }
    let mut cleaned = Cleaned::default();
    for &island in &leftover.islands {
        for original in originals(&memory, island) {
            let mut now = vec![0; original.bytes.len()];
            // Unmapped since: a library that was closed.
            if memory.read(original.at, &mut now).is_err() {
                continue;
            }
            if now == original.bytes {
                cleaned.untouched += 1;
                continue;
            }
            write(&original).map_err(|_| InjectError::Fault { what: "write", at: original.at })?;
            cleaned.restored += 1;
        }
    }
    Ok(cleaned)
}

/// Switches all probes of an area off: control is the process's own memory, which it may write.
fn switch_off(pid: u32, island: &Island) -> Result<(), InjectError> {
    (0..PROBES_MAX).try_for_each(|probe| {
        let at = island.control.0 + (PROBE_WORDS + probe * PROBE_WORDS_BYTES + PROBE_ENABLED) as u64;
        write_word(pid, Avma(at), 0)
    })
}

/// Writes a word of a process's own memory, which it may write itself.
pub(super) fn write_word(pid: u32, at: Avma, word: u32) -> Result<(), InjectError> {
    let bytes = word.to_ne_bytes();
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: at.0 as *mut libc::c_void, iov_len: bytes.len() };
    let written = |pid: u32| {
        // SAFETY: `local` is read only; the kernel checks the address in the other process.
        unsafe { libc::process_vm_writev(pid as i32, &local, 1, &remote, 1, 0) == bytes.len() as isize }
    };
    // A first thread that has ended has no memory any more; the others have.
    let others = || target::tasks(pid).unwrap_or_default();
    match written(pid) || others().into_iter().any(written) {
        true => Ok(()),
        false => Err(InjectError::Fault { what: "write", at }),
    }
}

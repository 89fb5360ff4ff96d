//! Memory of a live process: read by process_vm_readv(2), written through /proc/PID/mem.

use super::sys::{self, Tid};
use crate::capture::memory::{Fault, Memory};
use riptrace_protocol::ids::Avma;
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Memory of a process, by any of its threads.
pub(super) struct TargetMemory {
    tid: Cell<Tid>,
    /// `None` where opening it was refused (CAP_SYS_PTRACE alone does not overrule file permissions); code is written
    /// through a stopped thread then.
    file: Option<File>,
    /// Set when the process was gone at a read.
    gone: Cell<bool>,
}

impl TargetMemory {
    pub(super) fn open(tid: Tid) -> TargetMemory {
        let file = OpenOptions::new().read(true).write(true).open(format!("/proc/{tid}/mem")).ok();
        TargetMemory { tid: Cell::new(tid), file, gone: Cell::new(false) }
    }

    /// The same for reading, and for writing through a stopped thread.
    pub(super) fn reader(tid: Tid) -> TargetMemory {
        TargetMemory { tid: Cell::new(tid), file: None, gone: Cell::new(false) }
    }

    /// Reads by this thread from now on: the first thread of a process may have ended before the others.
    pub(super) fn read_by(&self, tid: Tid) {
        self.tid.set(tid);
    }

    /// Whether the process was gone at some read since the last time this was asked.
    pub(super) fn was_gone(&self) -> bool {
        self.gone.replace(false)
    }

    /// Writes also where the process itself may only read and execute. Works while its threads run: it replaces the
    /// page by a private copy the first time (proc_pid_mem(5)).
    pub(super) fn write(&self, at: Avma, bytes: &[u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => file.write_all_at(bytes, at.0),
            None => Err(io::Error::from_raw_os_error(libc::EACCES)),
        }
    }

    /// The same through a stopped thread, in words; the bytes beside them are written as they were read.
    pub(super) fn poke(&self, tid: Tid, at: Avma, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let start = at.0 + done as u64;
            let mut word = [0; 8];
            let n = (bytes.len() - done).min(8);
            // The word must not reach into the next page, which may not be there.
            let word_at = if n < 8 { start & !7 } else { start };
            let skip = (start - word_at) as usize;
            let n = n.min(8 - skip);
            self.read(Avma(word_at), &mut word).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
            word[skip..skip + n].copy_from_slice(&bytes[done..done + n]);
            sys::poke(tid, word_at, u64::from_ne_bytes(word))?;
            done += n;
        }
        Ok(())
    }
}

impl Memory for TargetMemory {
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
        if into.is_empty() {
            return Ok(());
        }
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec { iov_base: at.0 as *mut libc::c_void, iov_len: into.len() };
        // SAFETY: `local` describes `into`, which is exclusively borrowed for the call; `remote` is an address in the
        // other process, which the kernel checks.
        let read = unsafe { libc::process_vm_readv(self.tid.get(), &local, 1, &remote, 1, 0) };
        match usize::try_from(read) {
            Ok(read) if read == into.len() => Ok(()),
            Ok(read) => Err(Fault { at: Avma(at.0.wrapping_add(read as u64)) }),
            Err(_) => {
                if io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT) {
                    // The thread that it was to be read by has ended; the file is of the memory, not of a thread.
                    if self.file.as_ref().is_some_and(|file| file.read_exact_at(into, at.0).is_ok()) {
                        return Ok(());
                    }
                    self.gone.set(true);
                }
                Err(Fault { at })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_and_written_where_it_is_mapped() {
        let memory = TargetMemory::open(std::process::id() as Tid);
        let bytes = [1u8, 2, 3, 4];
        let at = Avma(bytes.as_ptr() as u64);
        let mut read = [0; 4];
        memory.read(at, &mut read).unwrap();
        assert_eq!(read, bytes);
        memory.write(at, &[9]).unwrap();
        memory.read(at, &mut read).unwrap();
        assert_eq!(read, [9, 2, 3, 4]);
        assert_eq!(memory.read(Avma(8), &mut read), Err(Fault { at: Avma(8) }));
        assert!(memory.write(Avma(8), &[9]).is_err());
        assert!(!memory.was_gone());
    }
}

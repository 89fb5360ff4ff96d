//! The text of the process: read and written as one program's, never its successor's.

use super::stop::Stopped;
use super::{Patch, PatchError, Witness};
use crate::capture::memory::PAGE_BYTES;
use crate::engine::sys::{self, Tid};
use crate::engine::x86_64::text;
use crate::target;
use riptrace_protocol::ids::Avma;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// The memory that a process had when this was opened.
pub(super) struct Text {
    pid: Tid,
    /// /proc/PID/mem belongs to the memory that was there at its opening, also after an execve(2). `None` where opening
    /// it was refused (CAP_SYS_PTRACE alone does not overrule file permissions): a stopped thread is written through.
    file: Option<File>,
    witness: Witness,
}

impl Text {
    pub(super) fn open(pid: Tid, witness: Witness) -> Text {
        // The first thread may have ended, and has no memory then.
        let others = || target::tasks(pid as u32).unwrap_or_default().into_iter().map(|tid| tid as Tid);
        let file = std::iter::once(pid).chain(others()).find_map(|tid| {
            let file = OpenOptions::new().read(true).write(true).open(format!("/proc/{tid}/mem")).ok()?;
            file.read_exact_at(&mut [0], witness.at.0).ok()?;
            Some(file)
        });
        Text { pid, file, witness }
    }

    /// As if /proc/PID/mem could not be opened.
    #[cfg(test)]
    pub(super) fn without_file(mut self) -> Text {
        self.file = None;
        self
    }

    /// Reads memory, by this thread of the process if need be.
    pub(super) fn read(&self, by: Tid, at: Avma, into: &mut [u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(into, at.0),
            None => match sys::read_ranges(by, &[(at.0, into.len())], into)? {
                read if read == into.len() => Ok(()),
                _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            },
        }
    }

    /// The program must be the one that is meant, and the bytes at all sites the ones that are to be replaced. While a
    /// thread of the process is stopped it stays the same program.
    pub(super) fn verify(&self, by: Tid, patches: &[&Patch]) -> Result<(), PatchError> {
        let mut bytes = vec![0; self.witness.bytes.len()];
        match self.read(by, self.witness.at, &mut bytes) {
            Ok(()) if bytes == self.witness.bytes => {}
            _ => return Err(PatchError::Gone),
        }
        for patch in patches {
            let mut found = vec![0; patch.old.len()];
            self.read(by, patch.at, &mut found).map_err(|source| PatchError::Write {
                at: patch.at,
                source,
                left: Vec::new(),
            })?;
            if found != patch.old {
                return Err(PatchError::Changed { at: patch.at, old: patch.old.clone(), found });
            }
        }
        Ok(())
    }

    /// A thread of the process that can be read by.
    pub(super) fn reader(&self) -> Result<Tid, PatchError> {
        let tasks = target::tasks(self.pid as u32).map_err(|_| PatchError::Gone)?;
        let lives = |&tid: &u32| target::status(tid).is_ok_and(|status| !matches!(status.state, 'Z' | 'X'));
        tasks.into_iter().find(lives).map(|tid| tid as Tid).ok_or(PatchError::Gone)
    }

    /// Writes these bytes, each run at once if it does not cross a page, while the threads run.
    pub(super) fn write(&self, writes: &[(Avma, &[u8])]) -> Result<(), PatchError> {
        let failed = |at, source| PatchError::Write { at, source, left: Vec::new() };
        let Some(file) = &self.file else {
            return Stopped::one(self.pid, |tid| {
                self.verify(tid, &[])?;
                writes.iter().try_for_each(|&(at, bytes)| {
                    super::checkpoint();
                    self.write_by(tid, at, bytes).map_err(|source| failed(at, source))
                })
            });
        };
        for &(at, bytes) in writes {
            super::checkpoint();
            file.write_all_at(bytes, at.0).map_err(|source| match source.kind() {
                // The memory is gone with its process or program.
                io::ErrorKind::WriteZero => PatchError::Gone,
                _ => failed(at, source),
            })?;
        }
        Ok(())
    }

    /// The same through a stopped thread. Bytes of one page are written at once, with those beside them as they are.
    pub(super) fn write_by(&self, tid: Tid, at: Avma, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let start = at.0 + done as u64;
            let page_end = (start & !(PAGE_BYTES - 1)) + PAGE_BYTES;
            // A word that reaches into the next page might be written in two parts, or not at all.
            let word_at = start.min(page_end - 8);
            let skip = (start - word_at) as usize;
            let length = (bytes.len() - done).min(8 - skip);
            let mut word = sys::peek(tid, word_at)?.to_ne_bytes();
            word[skip..skip + length].copy_from_slice(&bytes[done..done + length]);
            sys::poke(tid, word_at, u64::from_ne_bytes(word))?;
            done += length;
        }
        Ok(())
    }
}

impl Text {
    /// Replaces code while no thread runs. After each write what stands there is right by itself.
    pub(super) fn replace(&self, by: Tid, at: Avma, old: &[u8], new: &[u8]) -> io::Result<()> {
        for write in text::steps(old, new, is_in_one_page(at, new.len())).into_iter().flatten() {
            super::checkpoint();
            let at = Avma(at.0 + write.offset as u64);
            match &self.file {
                Some(file) => file.write_all_at(&write.bytes, at.0)?,
                None => self.write_by(by, at, &write.bytes)?,
            }
            super::checkpoint();
        }
        Ok(())
    }
}

/// Whether bytes are in one page, so that they can be written at once.
pub(super) fn is_in_one_page(at: Avma, length: usize) -> bool {
    at.0 / PAGE_BYTES == (at.0 + length as u64 - 1) / PAGE_BYTES
}

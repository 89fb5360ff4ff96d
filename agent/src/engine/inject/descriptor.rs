//! The memory file's descriptor: taken out of the process without its help, and recognised.

use super::error::InjectError;
use crate::engine::area::{ISLANDS_MAX, MEMORY_NAME, code_in_file};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// A memory file, as /proc/PID/maps names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) inode: u64,
}

/// Whether a path, of a mapping or of a descriptor, is that of the memory file.
pub(super) fn is_memory(path: &str) -> bool {
    path.strip_prefix("/memfd:").is_some_and(|name| name.trim_end_matches(" (deleted)") == MEMORY_NAME)
}

/// A descriptor of another process, by pidfd_getfd(2): CAP_SYS_PTRACE is enough for it.
pub(super) fn take(pid: u32, descriptor: u64) -> io::Result<OwnedFd> {
    let owned = |result: libc::c_long| match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for the caller, who is its only owner.
        Ok(descriptor @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: two numbers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: three numbers; the first is a descriptor that is open.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor as libc::c_uint, 0) })
}

/// The memory file behind a descriptor of the process, if that is what it is.
pub(super) fn take_memory(pid: u32, descriptor: u64) -> Result<(OwnedFd, FileId), InjectError> {
    let file = take(pid, descriptor).map_err(InjectError::Descriptor)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(InjectError::Descriptor)?;
    if !is_memory(&path.to_string_lossy()) {
        return Err(InjectError::Descriptor(io::Error::from_raw_os_error(libc::EBADF)));
    }
    let file = File::from(file);
    let metadata = file.metadata().map_err(InjectError::Descriptor)?;
    Ok((file.into(), FileId { dev: metadata.dev(), inode: metadata.ino() }))
}

/// Gives the file the size of an area with so many CPUs. It is sparse: nothing of it is memory until it is written.
pub(super) fn resize(file: &OwnedFd, cpus: usize) -> Result<(), InjectError> {
    let bytes = code_in_file(cpus, ISLANDS_MAX);
    nix::unistd::ftruncate(file, bytes as i64).map_err(|errno| InjectError::Memory(errno.into()))
}

/// Descriptors of memory files that a process has open, as far as the agent may look: an agent that was killed in the
/// middle of making an area leaves one that is mapped nowhere.
pub(super) fn open_ones(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let is_one =
        |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|path| is_memory(&path.to_string_lossy()));
    let open = entries.filter_map(Result::ok).filter(is_one);
    let mut open: Vec<u64> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    open.sort_unstable();
    open
}

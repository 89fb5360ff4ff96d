//! Whether a process is still the one that was attached to: by a descriptor of it, and by the magic word of its header.

use crate::engine::area::MAGIC;
use crate::target::proc_file;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It goes on.
    Lives,
    /// It has ended.
    Ended,
    /// It runs another program.
    Execed,
}

/// A process that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    process: ProcessKey,
    pidfd: OwnedFd,
    /// Address of the header of its area.
    header: Avma,
}

impl Watched {
    /// Watches a process whose area's header is there.
    pub(super) fn new(process: ProcessKey, header: Avma) -> io::Result<Watched> {
        // SAFETY: a system call without pointers (pidfd_open(2)).
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid as libc::pid_t, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened and belongs to nobody else.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Watched { process, pidfd, header })
    }

    /// Readable once the process has ended.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Looks.
    pub(super) fn look(&self) -> Life {
        let mut magic = [0u8; 8];
        let local = libc::iovec { iov_base: magic.as_mut_ptr().cast(), iov_len: magic.len() };
        let remote = libc::iovec { iov_base: self.header.0 as *mut libc::c_void, iov_len: magic.len() };
        // SAFETY: `local` describes `magic`, which is this function's own; the kernel checks the other address.
        let read = unsafe { libc::process_vm_readv(self.process.pid as i32, &local, 1, &remote, 1, 0) };
        let is_there = match read {
            8 => u64::from_le_bytes(magic) == MAGIC,
            // Nothing is mapped there. Any other error says nothing about it: the main thread may have ended before the
            // others, and then memory cannot be read by its id.
            _ => io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT),
        };
        match (is_there, self.has_ended()) {
            (_, true) => Life::Ended,
            (true, false) => Life::Lives,
            (false, false) => Life::Execed,
        }
    }

    /// Whether all its threads have ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives for the call; it does not wait.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    /// How it ended, as in waitpid(2); `None` where nobody tells those who are not its parent.
    pub(super) fn status(&self) -> Option<i32> {
        // Before its parent has asked for it: proc_pid_stat(5), field 52, the 50th behind the name in parentheses.
        let stat = proc_file::read_text(format!("/proc/{}/stat", self.process.pid)).ok();
        let of_stat = stat.as_deref().and_then(exit_code);
        of_stat.or_else(|| self.status_of_reaped())
    }

    /// After its parent has asked: by the descriptor, since Linux 6.15 (include/uapi/linux/pidfd.h, PIDFD_INFO_EXIT).
    fn status_of_reaped(&self) -> Option<i32> {
        const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        #[repr(C)]
        struct Info {
            mask: u64,
            cgroup: u64,
            ids: [u32; 11],
            exit_code: i32,
        }
        const _: () = assert!(size_of::<Info>() == 64);
        let mut info = Info { mask: PIDFD_INFO_EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
        // SAFETY: the request reads and writes 64 bytes, which `info` has.
        let result = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), PIDFD_GET_INFO, &mut info) };
        (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
    }
}

/// The exit code of a process that has ended, by its stat line.
fn exit_code(stat: &str) -> Option<i32> {
    let behind_name = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    if !matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(49)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;
    use std::process::Command;

    fn watched(pid: u32, header: Avma) -> Watched {
        Watched::new(ProcessKey { pid, start_time: target::start_time(pid).unwrap() }, header).unwrap()
    }

    #[test]
    fn a_process_lives_for_as_long_as_its_header_is_there() {
        let header = MAGIC;
        let at = Avma(&raw const header as u64);
        assert_eq!(watched(std::process::id(), at).look(), Life::Lives);
        assert_eq!(watched(std::process::id(), Avma(8)).look(), Life::Execed);
    }

    #[test]
    fn how_a_process_ended_is_known_before_and_after_its_parent_has_asked() {
        let mut child =
            Command::new("sh").args(["-c", "read line; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let watched = watched(child.id(), Avma(8));
        assert!(!watched.has_ended());
        drop(child.stdin.take());
        let mut poll = libc::pollfd { fd: watched.descriptor().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives for the call.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1);
        assert_eq!(watched.look(), Life::Ended);
        let before = watched.status();
        assert_eq!(before, Some(7 << 8));
        child.wait().unwrap();
        // Older kernels do not tell any more; a wrong answer would be worse than none.
        assert!(matches!(watched.status(), None | Some(0x700)));
    }
}

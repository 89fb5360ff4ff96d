//! Memory maps: /proc/PID/maps, proc_pid_maps(5).

use super::{TargetError, proc_file};

/// Mappings of one process that are read, at most: the kernel's own default limit (vm.max_map_count) is 65530.
pub const MAPPINGS_MAX: usize = 1 << 17;

/// One line of /proc/PID/maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub lo: u64,
    /// First address beyond.
    pub hi: u64,
    /// Offset in the file of what is at `lo`.
    pub file_offset: u64,
    /// Device of the file, as in `stat`; 0 for anonymous memory.
    pub dev: u64,
    /// Inode of the file; 0 for anonymous memory.
    pub inode: u64,
    /// Path of the file as the process sees it, `[vdso]` and the like, or empty.
    pub path: String,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed.
    pub exec: bool,
}

/// The memory map of a process, in the order of addresses.
pub fn mappings(pid: u32) -> Result<Vec<Mapping>, TargetError> {
    let path = format!("/proc/{pid}/maps");
    // Paths are bytes to the kernel; a path that is no text is shown with replacement characters.
    let text = proc_file::read(&path).map_err(|source| TargetError::of_read(pid, path, source))?;
    Ok(String::from_utf8_lossy(&text).lines().take(MAPPINGS_MAX).filter_map(parse).collect())
}

/// `lo-hi perms offset major:minor inode path`, numbers in hexadecimal but for the inode.
fn parse(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let trimmed = rest.trim_start_matches(' ');
        let (field, after) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        rest = after;
        field
    };
    let (range, permissions, offset, device, inode) = (field(), field(), field(), field(), field());
    let (lo, hi) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let permission = |letter| permissions.contains(letter);
    Some(Mapping {
        lo: hex(lo)?,
        hi: hex(hi)?,
        file_offset: hex(offset)?,
        dev: nix::sys::stat::makedev(hex(major)?, hex(minor)?),
        inode: inode.parse().ok()?,
        path: rest.trim_start_matches(' ').to_owned(),
        read: permission('r'),
        write: permission('w'),
        exec: permission('x'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_map_are_read() {
        let file = parse("55e0-55f0 r-xp 00001000 fd:01 1234                       /opt/my service (deleted)").unwrap();
        assert_eq!((file.lo, file.hi, file.file_offset, file.inode), (0x55e0, 0x55f0, 0x1000, 1234));
        assert_eq!(file.dev, nix::sys::stat::makedev(0xfd, 1));
        assert_eq!(file.path, "/opt/my service (deleted)");
        assert!(file.read && !file.write && file.exec);
        let anonymous = parse("7f00-7f10 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.path.as_str(), anonymous.dev), ("", 0));
        for bad in ["", "x", "1-2", "1-2 r-xp", "1-2 r-xp 0 0 0", "zz-2 r-xp 0 0:0 0"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn this_process_has_a_map_with_its_executable() {
        let exe = std::env::current_exe().unwrap();
        let maps = mappings(std::process::id()).unwrap();
        let text = maps.iter().find(|mapping| mapping.exec && mapping.path == exe.to_str().unwrap()).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(text.inode, std::fs::metadata(exe).unwrap().ino());
        assert!(maps.iter().any(|mapping| mapping.path == "[vdso]"));
        assert!(maps.is_sorted_by_key(|mapping| mapping.lo));
    }
}

//! A file of RipTrace's own cache, mapped for reading.
//!
//! What it is not: a way to read executables or whatever else others write to. A mapped file that is cut short under its
//! reader ends the reader with SIGBUS; so only files are mapped that this user's agents alone write, that have their
//! final size before they are mapped, and that are replaced by renaming and deleted by unlinking only. Both leave the
//! file behind a mapping as it is.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Bytes that are in memory, or in a file of the cache.
#[derive(Debug, Default)]
pub(crate) enum Content {
    /// There are none.
    #[default]
    Empty,
    /// In memory.
    Held(Vec<u8>),
    /// In a file of the cache.
    Mapped(FileMap),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Empty => &[],
            Content::Held(bytes) => bytes,
            Content::Mapped(map) => map,
        }
    }
}

/// The first bytes of a file, mapped for reading; pages that are not looked at take no memory.
#[derive(Debug)]
pub(crate) struct FileMap {
    at: NonNull<u8>,
    bytes: usize,
}

impl FileMap {
    /// Maps the first `bytes` of a file, which has as many.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` when the file is shorter than that, or `bytes` is 0.
    pub(crate) fn new(file: &File, bytes: usize) -> io::Result<FileMap> {
        if bytes == 0 || file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choice; the descriptor is open for the call.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(at.cast()) {
            Some(at) => Ok(FileMap { at, bytes }),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, of this length, and lives as long as `self`; its file keeps its size and
        // content (see the module).
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no reference to it outlives `self`.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: memory that nobody writes may be read and unmapped by any thread.
unsafe impl Send for FileMap {}
// SAFETY: as above.
unsafe impl Sync for FileMap {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_mapping_outlives_the_name_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(&[7; 10_000]).unwrap();
        let map = FileMap::new(&File::open(&path).unwrap(), 10_000).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*map, [7; 10_000]);
    }

    #[test]
    fn what_is_not_there_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        assert!(FileMap::new(&file, 0).is_err());
        assert!(FileMap::new(&file, 1).is_err());
    }
}

//! The agent's own view of the area: control, rings and islands, mapped from the memory file.
//!
//! The process writes to control and rings at any time, so what is read from them is a copy or an atomic word, never a
//! reference to plain memory.

use super::error::InjectError;
use crate::engine::area::{CODE_BYTES, CONTROL_BYTES, ISLANDS_MAX, Island, RING_BYTES, code_in_file, ring_in_file};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Memory mapped by the agent.
struct Region {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is shared with another process anyway; all access is by atomics or by copies through raw pointers.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Address space without memory.
    fn reserve(bytes: usize) -> io::Result<Region> {
        // SAFETY: a new mapping where the kernel wants it, of nothing.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        match NonNull::new(at.cast()) {
            Some(at) if at.as_ptr() as usize != usize::MAX => Ok(Region { at, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Maps a piece of a file over a part of a reservation.
    fn place(&self, offset: usize, bytes: usize, file: BorrowedFd<'_>, file_offset: u64) -> io::Result<()> {
        assert!(offset + bytes <= self.bytes);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: replaces a part of this region's own reservation, which nobody refers to yet.
        let at = unsafe {
            let want = self.at.as_ptr().add(offset).cast();
            libc::mmap(want, bytes, protection, flags, file.as_raw_fd(), file_offset as libc::off_t)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn of_file(bytes: usize, file: BorrowedFd<'_>, file_offset: u64) -> io::Result<Region> {
        let region = Region::reserve(bytes)?;
        region.place(0, bytes, file, file_offset)?;
        Ok(region)
    }

    fn window(&self) -> Window<'_> {
        Window { at: self.at, bytes: self.bytes, region: PhantomData }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region is this one's own, and windows into it do not live longer.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

/// A piece of shared memory. Offsets are in bytes from its begin; all of them are checked.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Window<'a> {
    at: NonNull<u8>,
    bytes: usize,
    region: PhantomData<&'a Region>,
}

// SAFETY: as for `Region`.
unsafe impl Send for Window<'_> {}
// SAFETY: as for `Region`.
unsafe impl Sync for Window<'_> {}

impl<'a> Window<'a> {
    /// Its size, in bytes.
    pub(in crate::engine) fn len(&self) -> usize {
        self.bytes
    }

    /// Its first byte, in the agent. Valid for as long as the area is.
    pub(in crate::engine) fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    fn place(&self, offset: usize, bytes: usize) -> *mut u8 {
        let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(is_inside, "{bytes} bytes at {offset:#x} of {:#x}", self.bytes);
        // SAFETY: inside of the mapping, as just checked.
        unsafe { self.at.as_ptr().add(offset) }
    }

    /// Copies from it.
    pub(in crate::engine) fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.place(offset, into.len());
        // SAFETY: the place is mapped for that length, and `into` is not part of the mapping. Another process may write
        // meanwhile: any bytes are values.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Copies into it.
    pub(in crate::engine) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.place(offset, bytes.len());
        // SAFETY: as for `read`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Fills a part of it with zeroes.
    pub(in crate::engine) fn zero(&self, offset: usize, bytes: usize) {
        let to = self.place(offset, bytes);
        // SAFETY: as for `read`.
        unsafe { ptr::write_bytes(to, 0, bytes) };
    }

    /// A word of it; the offset is a multiple of 4.
    pub(in crate::engine) fn u32_at(&self, offset: usize) -> &'a AtomicU32 {
        let at = self.place(offset, 4);
        assert!(offset.is_multiple_of(4), "{offset:#x}");
        // SAFETY: mapped for as long as 'a, aligned (mappings begin at pages), and only accessed by atomics where words
        // are shared.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// A word of it; the offset is a multiple of 8.
    pub(in crate::engine) fn u64_at(&self, offset: usize) -> &'a AtomicU64 {
        let at = self.place(offset, 8);
        assert!(offset.is_multiple_of(8), "{offset:#x}");
        // SAFETY: as for `u32_at`.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }
}

/// The agent's mappings of one area.
pub(in crate::engine) struct AreaMap {
    file: OwnedFd,
    cpus: usize,
    control: Region,
    /// All rings, each twice, in the order of their CPUs.
    rings: Region,
    islands: [OnceLock<(Island, Region)>; ISLANDS_MAX],
}

impl AreaMap {
    /// Maps control and rings of a memory file that has its full size.
    pub(in crate::engine) fn new(file: OwnedFd, cpus: usize) -> Result<AreaMap, InjectError> {
        use std::os::fd::AsFd;
        let map = || {
            let control = Region::of_file(CONTROL_BYTES, file.as_fd(), 0)?;
            let rings = Region::reserve(cpus * 2 * RING_BYTES)?;
            for cpu in 0..cpus {
                for copy in 0..2 {
                    rings.place((2 * cpu + copy) * RING_BYTES, RING_BYTES, file.as_fd(), ring_in_file(cpu))?;
                }
            }
            Ok((control, rings))
        };
        let (control, rings) = map().map_err(InjectError::Memory)?;
        Ok(AreaMap { file, cpus, control, rings, islands: Default::default() })
    }

    /// Maps the code of an island. It may be mapped already.
    pub(super) fn add(&self, island: Island) -> Result<(), InjectError> {
        use std::os::fd::AsFd;
        let place = &self.islands[island.number];
        if place.get().is_none() {
            let code = Region::of_file(CODE_BYTES, self.file.as_fd(), code_in_file(self.cpus, island.number));
            // Islands are added by the one injection that has the area, so nobody else has set it since.
            let _ = place.set((island, code.map_err(InjectError::Memory)?));
        }
        Ok(())
    }

    /// CPUs that have a ring.
    pub(in crate::engine) fn cpus(&self) -> usize {
        self.cpus
    }

    /// Control.
    pub(in crate::engine) fn control(&self) -> Window<'_> {
        self.control.window()
    }

    /// A word of control, at a multiple of 4.
    pub(in crate::engine) fn u32_at(&self, control_offset: usize) -> &AtomicU32 {
        self.control().u32_at(control_offset)
    }

    /// A word of control, at a multiple of 8.
    pub(in crate::engine) fn u64_at(&self, control_offset: usize) -> &AtomicU64 {
        self.control().u64_at(control_offset)
    }

    /// Offset of a position of a ring from the begin of all rings.
    fn ring_offset(&self, cpu: usize, position: u64) -> usize {
        assert!(cpu < self.cpus, "CPU {cpu} has no ring");
        2 * cpu * RING_BYTES + (position as usize & (RING_BYTES - 1))
    }

    /// A word of a ring. Positions count on; a multiple of 8.
    pub(in crate::engine) fn ring_u64(&self, cpu: usize, position: u64) -> &AtomicU64 {
        self.rings.window().u64_at(self.ring_offset(cpu, position))
    }

    /// Copies from a ring, at most all of it: there is no seam.
    pub(in crate::engine) fn ring_copy(&self, cpu: usize, position: u64, into: &mut [u8]) {
        assert!(into.len() <= RING_BYTES);
        self.rings.window().read(self.ring_offset(cpu, position), into);
    }

    /// Fills a part of a ring with zeroes, at most all of it.
    pub(in crate::engine) fn ring_zero(&self, cpu: usize, position: u64, bytes: usize) {
        assert!(bytes <= RING_BYTES);
        self.rings.window().zero(self.ring_offset(cpu, position), bytes);
    }

    /// An island, if there is one with this number.
    pub(in crate::engine) fn island(&self, number: usize) -> Option<Island> {
        self.islands.get(number)?.get().map(|(island, _)| *island)
    }

    /// Tables and code of an island: [`CODE_BYTES`], the tables first.
    pub(in crate::engine) fn code(&self, number: usize) -> Option<Window<'_>> {
        self.islands.get(number)?.get().map(|(_, region)| region.window())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::area::{RING_CONTROL, RING_HEAD};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use riptrace_protocol::ids::Avma;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_ring_has_no_seam_and_islands_do_not_overlap() {
        let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, code_in_file(2, ISLANDS_MAX) as i64).unwrap();
        let map = AreaMap::new(file, 2).unwrap();
        // Across the end of CPU 1's ring.
        let at = 7 * RING_BYTES as u64 - 8;
        map.ring_u64(1, at).store(1, Ordering::Relaxed);
        map.ring_u64(1, at + 8).store(2, Ordering::Relaxed);
        let mut both = [0; 16];
        map.ring_copy(1, at, &mut both);
        assert_eq!((both[0], both[8]), (1, 2));
        map.ring_zero(1, at, 16);
        map.ring_copy(1, at, &mut both);
        assert_eq!(both, [0; 16]);
        map.u64_at(RING_CONTROL + RING_HEAD).store(5, Ordering::Relaxed);
        for number in 0..2 {
            map.add(Island { number, control: Avma(0x1000) }).unwrap();
            map.code(number).unwrap().write(CODE_BYTES - 1, &[number as u8 + 1]);
        }
        let mut byte = [0];
        map.code(0).unwrap().read(CODE_BYTES - 1, &mut byte);
        assert_eq!((byte[0], map.u64_at(RING_CONTROL + RING_HEAD).load(Ordering::Relaxed)), (1, 5));
        assert!(map.island(2).is_none() && map.code(ISLANDS_MAX).is_none());
    }
}

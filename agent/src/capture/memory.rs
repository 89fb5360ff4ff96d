//! Memory of a target as the capture program sees it: a live process, a stored image and a test buffer are equal.
//!
//! A read either fills the whole buffer or says at which address it could not: there is no zero in place of a value.

use riptrace_protocol::ids::Avma;
use std::cell::RefCell;

/// Granularity in which memory is mapped, in bytes. x86-64 and the usual aarch64 configuration; where pages are larger,
/// reading page by page only costs more reads.
pub const PAGE_BYTES: u64 = 4096;

/// Pages that one hit keeps while it is captured: a stack, its caller's frames and a few structures. More pages are read
/// again when they are needed again.
const CACHED_PAGES_MAX: usize = 16;

/// Memory at this address could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("memory at {:#x} cannot be read: it is not mapped, or not readable", at.0)]
pub struct Fault {
    /// The first address that could not be read, to the page.
    pub at: Avma,
}

/// Memory that can be read.
pub trait Memory {
    /// Fills `into` from `at` on, or fails as a whole: what is in `into` then means nothing.
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault>;

    /// Fills as much of `into` as is mapped from `at` on, page by page; returns how many bytes that is.
    fn read_prefix(&self, at: Avma, into: &mut [u8]) -> usize {
        if into.is_empty() || self.read(at, into).is_ok() {
            return into.len();
        }
        let mut done = 0;
        while done < into.len() {
            let Some(address) = at.0.checked_add(done as u64) else { break };
            let in_page = (PAGE_BYTES - address % PAGE_BYTES) as usize;
            let end = into.len().min(done + in_page);
            if self.read(Avma(address), &mut into[done..end]).is_err() {
                break;
            }
            done = end;
        }
        done
    }
}

/// Memory that is read a page at a time and kept: one hit reads a few places of the same few pages, and a read of
/// another process costs a system call whatever its size. It lives for one passage of one stopped thread.
pub struct CachedMemory<'a, M: Memory + ?Sized> {
    source: &'a M,
    pages: RefCell<Vec<(u64, Box<[u8; PAGE_BYTES as usize]>)>>,
}

impl<'a, M: Memory + ?Sized> CachedMemory<'a, M> {
    /// Nothing is kept yet.
    pub fn new(source: &'a M) -> Self {
        CachedMemory { source, pages: RefCell::new(Vec::with_capacity(CACHED_PAGES_MAX)) }
    }
}

impl<M: Memory + ?Sized> Memory for CachedMemory<'_, M> {
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
        let in_page = (at.0 % PAGE_BYTES) as usize;
        if into.len() > PAGE_BYTES as usize - in_page {
            return self.source.read(at, into);
        }
        let page = at.0 - in_page as u64;
        let mut pages = self.pages.borrow_mut();
        if let Some((_, bytes)) = pages.iter().find(|(address, _)| *address == page) {
            into.copy_from_slice(&bytes[in_page..in_page + into.len()]);
            return Ok(());
        }
        let mut bytes = Box::new([0; PAGE_BYTES as usize]);
        if pages.len() == CACHED_PAGES_MAX || self.source.read(Avma(page), bytes.as_mut_slice()).is_err() {
            return self.source.read(at, into);
        }
        into.copy_from_slice(&bytes[in_page..in_page + into.len()]);
        pages.push((page, bytes));
        Ok(())
    }
}

/// Memory of a test or a stored image: byte ranges at addresses.
#[derive(Debug, Clone, Default)]
pub struct Image {
    ranges: Vec<(u64, Vec<u8>)>,
}

impl Image {
    /// Maps `bytes` at `at`. Ranges must not overlap; what is mapped first is what is read.
    pub fn map(&mut self, at: Avma, bytes: Vec<u8>) {
        self.ranges.push((at.0, bytes));
    }
}

impl Memory for Image {
    fn read(&self, at: Avma, into: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0usize;
        while done < into.len() {
            let address = at.0.checked_add(done as u64).ok_or(Fault { at })?;
            let found = self.ranges.iter().find_map(|(start, bytes)| {
                let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
                bytes.get(offset..).filter(|rest| !rest.is_empty())
            });
            let rest = found.ok_or(Fault { at: Avma(address) })?;
            let n = rest.len().min(into.len() - done);
            into[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let mut image = Image::default();
        image.map(Avma(0x1000), (0..=255).cycle().take(0x1800).collect());
        image
    }

    #[test]
    fn a_read_is_whole_or_a_fault() {
        let image = image();
        let mut two = [0; 2];
        image.read(Avma(0x1001), &mut two).unwrap();
        assert_eq!(two, [1, 2]);
        assert_eq!(image.read(Avma(0x27ff), &mut two), Err(Fault { at: Avma(0x2800) }));
        assert_eq!(image.read(Avma(u64::MAX), &mut two), Err(Fault { at: Avma(u64::MAX) }));
    }

    #[test]
    fn a_prefix_ends_where_the_mapping_ends_to_the_page() {
        let mut into = [0xee; 0x2000];
        assert_eq!(image().read_prefix(Avma(0x1ffe), &mut into), 2);
        assert_eq!(into[..2], [254, 255]);
        assert_eq!(image().read_prefix(Avma(0x9000), &mut into), 0);
        assert_eq!(image().read_prefix(Avma(u64::MAX), &mut into), 0);
    }

    #[test]
    fn the_cache_reads_what_the_source_has_also_at_its_edges() {
        let image = image();
        let cached = CachedMemory::new(&image);
        for (at, bytes) in [(0x1000, 8), (0x1ffc, 8), (0x2000, 0x800), (0x27fc, 4), (0x1000, 0x1800)] {
            let (mut want, mut got) = (vec![0; bytes], vec![0; bytes]);
            image.read(Avma(at), &mut want).unwrap();
            cached.read(Avma(at), &mut got).unwrap();
            assert_eq!(got, want, "{at:#x}");
        }
        assert!(cached.read(Avma(0x27fd), &mut [0; 4]).is_err());
    }
}

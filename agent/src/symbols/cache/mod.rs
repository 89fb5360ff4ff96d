//! Symbols on disk: what took work to make from a build's file is kept for the next agent that meets the build.
//!
//! ```text
//! ROOT/v1/KEY/NAME        one piece of one build: content, then a footer of 32 bytes
//! ROOT/v1/KEY/.NAME.PID.N a piece that is being written
//! ROOT/v1/KEY/.NAME.checked says in which boot the piece was found whole
//! ```
//! A footer is the magic `riptrace`, version u32, CRC-32 of the content u32, length of the content u64, CRC-32 of the
//! footer before it u32, zero u32; little endian.
//!
//! Invariants
//! - A piece has its name only when it is whole: it is written under another name and renamed. Two agents that write
//!   the same piece at once write the same bytes; the later name wins, and a mapping of the earlier one stays valid.
//! - A piece is used only when footer, length and checksum are right (a power cut may leave a whole name with half the
//!   bytes); one that is not is deleted and made again.
//! - The cache is never needed: where it cannot be written, everything works from memory.
//! - It does not grow beyond its limit by more than what was made last; builds that were used longest ago go first.

mod evict;
mod piece;

pub(super) use piece::PieceWriter;

use crate::target::{Content, FileMap};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How much is kept on disk if nothing else is said, in bytes: the symbols of some twenty large builds.
pub const CACHE_BYTES_DEFAULT: u64 = 2 << 30;
/// Raised whenever a piece is made otherwise: pieces of other versions are not read, and go when they are old.
const VERSION_FOLDER: &str = "v1";

/// Where symbols are kept between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolCache {
    root: Option<PathBuf>,
    bytes_max: u64,
}

impl SymbolCache {
    /// No cache: everything is made anew and held in memory.
    pub const fn none() -> SymbolCache {
        SymbolCache { root: None, bytes_max: 0 }
    }

    /// A folder of this user's, made when it is first written to, with at most so many bytes.
    pub fn at(root: impl Into<PathBuf>, bytes_max: u64) -> SymbolCache {
        SymbolCache { root: Some(root.into()), bytes_max }
    }

    /// The folder, if there is one.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Something was added that is in use: makes room when the cache has grown over its limit.
    pub(super) fn made_room_for(&self, folder: &Path) {
        if let Some(root) = &self.root {
            evict::make_room(root, folder, self.bytes_max);
        }
    }

    /// What is kept of one build. `key` is lower-case hexadecimal.
    pub(super) fn entry(&self, key: &str) -> Entry {
        let folder = self.root.as_ref().map(|root| root.join(VERSION_FOLDER).join(key));
        Entry { folder, cache: self.clone() }
    }
}

/// What is kept of one build.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    folder: Option<PathBuf>,
    cache: SymbolCache,
}

impl Entry {
    /// Nothing is kept.
    pub(super) fn none() -> Entry {
        SymbolCache::none().entry("")
    }

    /// A piece that is whole, with `bytes` of content; `None` when it has to be made.
    pub(super) fn get(&self, name: &str, bytes: Option<u64>) -> Option<FileMap> {
        let path = self.folder.as_ref()?.join(name);
        match piece::open(&path, bytes) {
            Ok(map) => Some(map),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a piece of the symbol cache is damaged and made again");
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Begins a piece. `None` when there is no cache or it cannot be written.
    pub(super) fn begin(&self, name: &str) -> Option<PieceWriter> {
        let folder = self.folder.as_ref()?;
        // Nobody else may read what a process's symbols say, or put a file of theirs in its place.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        match made.and_then(|()| PieceWriter::create(folder, name)) {
            Ok(writer) => Some(writer),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the symbol cache cannot be written; symbols are kept in memory");
                None
            }
        }
    }

    /// A piece from the cache; else it is made, and kept for the next agent if the cache takes it.
    pub(super) fn piece(&self, name: &str, make: impl FnOnce() -> Vec<u8>) -> Content {
        if let Some(map) = self.get(name, None) {
            return Content::Mapped(map);
        }
        let made = make();
        self.put(name, &made).map_or(Content::Held(made), Content::Mapped)
    }

    /// Keeps a piece for the next agent; `None` when the cache does not take it.
    pub(super) fn put(&self, name: &str, content: &[u8]) -> Option<FileMap> {
        let mut writer = self.begin(name).filter(|_| !content.is_empty())?;
        let written = writer.write(content).and_then(|()| writer.finish());
        if let Err(error) = &written {
            tracing::warn!(%error, name, "the symbol cache cannot be written: the next agent makes this again");
        }
        written.ok()
    }

    /// Says that the build is in use, and makes room when the cache has grown over its limit.
    pub(super) fn used(&self) {
        let (Some(folder), Some(root)) = (&self.folder, &self.cache.root) else { return };
        evict::touch(folder);
        evict::make_room(root, folder, self.cache.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entry: &Entry, name: &str, content: &[u8]) -> FileMap {
        let mut writer = entry.begin(name).unwrap();
        for chunk in content.chunks(1000) {
            writer.write(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_piece_is_found_again_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let cache = SymbolCache::at(root.path(), 1 << 20);
        let entry = cache.entry("00");
        let content: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        assert!(entry.get("a", None).is_none());
        assert_eq!(*written(&entry, "a", &content), content);
        assert_eq!(*entry.get("a", Some(10_000)).unwrap(), content);
        let path = root.path().join("v1/00/a");
        let whole = std::fs::read(&path).unwrap();
        for damage in [0, 5000, 9_999, 10_000, 10_008, 10_012, 10_016, 10_024] {
            let mut damaged = whole.clone();
            damaged[damage] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert!(entry.get("a", None).is_none(), "byte {damage}");
            assert!(!path.exists(), "what is damaged goes");
        }
        for length in [0, 1, 31, 32, 10_000, 10_031] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(entry.get("a", None).is_none(), "{length} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(entry.get("a", Some(9_999)).is_none(), "a piece of another length is another build's");
    }

    #[test]
    fn a_half_written_piece_has_no_name_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let entry = SymbolCache::at(root.path(), 1 << 20).entry("00");
        let mut writer = entry.begin("a").unwrap();
        writer.write(&[1; 5000]).unwrap();
        assert!(entry.get("a", None).is_none());
        drop(writer);
        assert_eq!(std::fs::read_dir(root.path().join("v1/00")).unwrap().count(), 0);
    }

    #[test]
    fn two_agents_may_write_the_same_piece() {
        let root = tempfile::tempdir().unwrap();
        let entry = SymbolCache::at(root.path(), 1 << 20).entry("00");
        let (mut one, mut two) = (entry.begin("a").unwrap(), entry.begin("a").unwrap());
        one.write(b"same").unwrap();
        two.write(b"same").unwrap();
        let first = one.finish().unwrap();
        assert_eq!(*two.finish().unwrap(), *b"same");
        assert_eq!(*first, *b"same");
        assert_eq!(*entry.get("a", Some(4)).unwrap(), *b"same");
    }

    #[test]
    fn the_builds_used_longest_ago_go_first() {
        let root = tempfile::tempdir().unwrap();
        let cache = SymbolCache::at(root.path(), 25_000);
        for key in ["00", "01", "02"] {
            written(&cache.entry(key), "a", &[0; 10_000]);
        }
        // Files of the same instant have an order all the same.
        let long_ago = |key: &str, seconds| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::open(root.path().join("v1").join(key)).unwrap().set_modified(time).unwrap();
        };
        long_ago("00", 3000);
        long_ago("01", 1000);
        cache.entry("02").used();
        let left: Vec<bool> = ["00", "01", "02"].map(|key| cache.entry(key).get("a", None).is_some()).to_vec();
        assert_eq!(left, [true, false, true]);
        let none = SymbolCache::none().entry("00");
        assert!(none.begin("a").is_none() && none.get("a", None).is_none());
    }
}

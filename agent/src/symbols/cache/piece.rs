//! One piece of a cached build: written front to back, found whole or not at all.

use crate::target::FileMap;
use flate2::Crc;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"riptrace";
const VERSION: u32 = 1;
const FOOTER_BYTES: usize = 32;
/// Bytes that are read and summed at once: fits the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;
/// Another one at each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A piece that is being written; gone without a trace when it is dropped unfinished.
#[derive(Debug)]
pub(in crate::symbols) struct PieceWriter {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    bytes: u64,
    crc: Crc,
    finished: bool,
}

impl PieceWriter {
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<PieceWriter> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{name}.{}.{number}", std::process::id()));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let path = folder.join(name);
        Ok(PieceWriter { file, temporary, path, bytes: 0, crc: Crc::new(), finished: false })
    }

    /// Appends.
    pub(in crate::symbols) fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.crc.update(content);
        self.bytes += content.len() as u64;
        self.file.write_all(content)
    }

    /// Gives the piece its name, and the content.
    pub(in crate::symbols) fn finish(&mut self) -> io::Result<FileMap> {
        self.file.write_all(&footer(self.bytes, self.crc.sum()))?;
        std::fs::rename(&self.temporary, &self.path)?;
        self.finished = true;
        // What was written in this boot is what is read in it.
        Checked::of(&self.file).mark(&self.path);
        FileMap::new(&self.file, usize::try_from(self.bytes).map_err(io::Error::other)?)
    }
}

impl Drop for PieceWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What stays where this fails is deleted when it is old.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn footer(bytes: u64, crc: u32) -> [u8; FOOTER_BYTES] {
    let mut footer = [0; FOOTER_BYTES];
    footer[..8].copy_from_slice(MAGIC);
    footer[8..12].copy_from_slice(&VERSION.to_le_bytes());
    footer[12..16].copy_from_slice(&crc.to_le_bytes());
    footer[16..24].copy_from_slice(&bytes.to_le_bytes());
    let mut own = Crc::new();
    own.update(&footer[..24]);
    footer[24..28].copy_from_slice(&own.sum().to_le_bytes());
    footer
}

/// Opens a piece and checks all of it, unless that was done since the machine has booted.
///
/// What the checksum finds is a name that a power cut has left with other bytes: once a boot is enough for that, and the
/// sections of a large build take longer to sum than anything else that is done with them.
pub(super) fn open(path: &Path, bytes: Option<u64>) -> io::Result<FileMap> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let file = File::open(path)?;
    let there = file.metadata()?.len();
    let content = there.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
    if bytes.is_some_and(|bytes| bytes != content) {
        return Err(damaged("it has another length"));
    }
    let mut last = [0; FOOTER_BYTES];
    file.read_exact_at(&mut last, content)?;
    let map = || FileMap::new(&file, usize::try_from(content).map_err(io::Error::other)?);
    let checked = Checked::of(&file);
    if checked.is_marked(path) {
        return map();
    }
    let mut crc = Crc::new();
    // Read, not mapped: what is only summed should not count as this process's memory.
    let mut buffer = vec![0; CHUNK_BYTES.min(content as usize)];
    let mut at = 0;
    while at < content {
        let chunk = buffer.len().min((content - at) as usize);
        file.read_exact_at(&mut buffer[..chunk], at)?;
        crc.update(&buffer[..chunk]);
        at += chunk as u64;
    }
    if footer(content, crc.sum()) != last {
        return Err(damaged("its checksum is wrong"));
    }
    checked.mark(path);
    map()
}

/// That a file was found whole: in which boot, and which file at which state of it. It is written beside the file, after
/// it: `.NAME.checked`.
struct Checked(Option<String>);

impl Checked {
    /// Empty where the machine does not tell.
    fn of(file: &File) -> Checked {
        let told = || -> io::Result<String> {
            let about = file.metadata()?;
            let boot = std::fs::read_to_string(BOOT_ID)?;
            let (seconds, ns) = (about.ctime(), about.ctime_nsec());
            Ok(format!("{} {} {} {seconds}.{ns:09}\n", boot.trim(), about.ino(), about.len()))
        };
        Checked(told().ok())
    }

    fn is_marked(&self, path: &Path) -> bool {
        let Some((told, mark)) = self.0.as_ref().zip(mark_of(path)) else { return false };
        std::fs::read_to_string(mark).is_ok_and(|marked| marked == *told)
    }

    /// Where it cannot be written, the file is checked again the next time.
    fn mark(&self, path: &Path) {
        if let Some((told, mark)) = self.0.as_ref().zip(mark_of(path)) {
            let _ = std::fs::write(mark, told);
        }
    }
}

fn mark_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}.checked")))
}

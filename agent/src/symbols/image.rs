//! The executable file: ELF headers, sections, notes, and the bytes behind an address.
//!
//! Deliberately not a memory map: an executable that is overwritten in place after its process ended would raise
//! SIGBUS in the agent, and an agent that dies leaves its traps in the processes it traces. Bytes are read with
//! `pread` into memory of our own, section by section, when first needed.
//!
//! Invariants: nothing is allocated for more than the file holds, except for decompression, which is bounded by
//! [`SECTION_BYTES_MAX`] and by the ratio that the format can reach. A malformed file is an error, never a panic.
//!
//! Source: System V ABI, chapter 4 (object files), and its AMD64 supplement; ELF64 little endian only.

use super::sources::code::CodeKey;
use super::{Svma, SymbolsError};
use object::{CompressedData, CompressionFormat};
use riptrace_protocol::ids::Avma;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Largest section that is loaded, in bytes after decompression: four times the debug information of the largest
/// executables met (Chromium, about 500 MB), and far below what a small host has.
const SECTION_BYTES_MAX: u64 = 2 << 30;
/// Deflate reaches 1032:1 at most; a header that claims more is wrong.
const DEFLATE_RATIO_MAX: u64 = 1032;
/// Zstandard has no bound of its own; debug information compresses 10:1 at most.
const ZSTD_RATIO_MAX: u64 = 4096;
/// Bytes of a section that are unpacked at once: fits the processor's cache.
const UNPACK_BYTES: usize = 256 << 10;
/// Most section and program headers that are read: object files have thousands, executables dozens.
const HEADERS_MAX: u64 = 65_536;
/// Notes are tens of bytes; a longer note section is not read further.
const NOTES_BYTES_MAX: u64 = 64 * 1024;

const EM_X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
const R_X86_64_RELATIVE: u64 = 8;
const SHF_COMPRESSED: u64 = 0x800;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// A part of the file that is mapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    pub(super) address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

/// A named part of the file.
#[derive(Debug, Clone)]
struct Section {
    name: String,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    bytes: u64,
    link: u32,
}

/// The thread-local storage of the executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadLocal {
    /// Address of the initial image.
    pub(super) address: u64,
    /// Size in memory.
    pub(super) memory_bytes: u64,
    /// Alignment; a power of two.
    pub(super) align: u64,
}

/// An open executable.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    position_independent: bool,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    code_key: OnceLock<CodeKey>,
}

/// How a section is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is.
    None,
    /// Deflate in zlib's frame.
    Zlib,
    /// Zstandard.
    Zstandard,
}

/// Where a section is stored, checked against the file's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) packing: Packing,
    pub(super) unpacked_bytes: u64,
}

/// Reads a part of a file front to back, by `pread`: others may read the file at the same time.
struct FilePart<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for FilePart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..bytes], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Reads exactly so many bytes, to the end of what is read from.
fn pour(mut from: impl Read, bytes: u64, take: &mut impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut buffer = vec![0; UNPACK_BYTES];
    let mut left = bytes;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read == 0 {
            return if left == 0 { Ok(()) } else { Err(std::io::Error::other(format!("{left} bytes are missing"))) };
        }
        left = left
            .checked_sub(read as u64)
            .ok_or_else(|| std::io::Error::other("it has more bytes than its header says"))?;
        take(&buffer[..read])?;
    }
}

/// One note of the file.
pub(super) struct Note {
    /// Who defined it.
    pub(super) owner: Vec<u8>,
    /// Its type, within the owner's.
    pub(super) kind: u32,
    /// Its content.
    pub(super) content: Vec<u8>,
}

impl Image {
    /// Opens a file and reads its headers.
    pub(super) fn open(path: &Path) -> Result<Image, SymbolsError> {
        let read = |source| SymbolsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        let mut image = Image {
            path: path.to_owned(),
            file,
            file_bytes: metadata.len(),
            position_independent: false,
            segments: Vec::new(),
            sections: Vec::new(),
            code_key: OnceLock::new(),
        };
        image.read_headers()?;
        Ok(image)
    }

    fn read_headers(&mut self) -> Result<(), SymbolsError> {
        let header = self.file_range(0, 64)?;
        if header[..4] != *b"\x7fELF" {
            return Err(self.bad("no ELF magic number"));
        }
        if header[4] != 2 || header[5] != 1 {
            return Err(self.bad("not 64-bit little endian"));
        }
        let machine = u16_at(&header, 18);
        if machine != EM_X86_64 {
            return Err(SymbolsError::Machine { path: self.path.clone(), machine });
        }
        self.position_independent = match u16_at(&header, 16) {
            ET_EXEC => false,
            ET_DYN => true,
            other => return Err(self.bad(format!("type {other} is neither an executable nor a shared object"))),
        };
        let (segments_at, sections_at) = (u64_at(&header, 32), u64_at(&header, 40));
        let (segment_bytes, segments) = (u64::from(u16_at(&header, 54)), u64::from(u16_at(&header, 56)));
        let (section_bytes, mut sections) = (u64::from(u16_at(&header, 58)), u64::from(u16_at(&header, 60)));
        let mut names = u32::from(u16_at(&header, 62));
        if segments > 0 {
            if segment_bytes != 56 {
                return Err(self.bad("program headers of an unknown size"));
            }
            let table = self.file_range(segments_at, segments * segment_bytes)?;
            let file_bytes = self.file_bytes;
            self.segments = table.chunks_exact(56).map(|header| segment(header, file_bytes)).collect();
        }
        if sections_at == 0 {
            return Ok(());
        }
        if section_bytes != 64 {
            return Err(self.bad("section headers of an unknown size"));
        }
        // With 65,280 sections or more, the real numbers are in the first section header.
        let first = self.file_range(sections_at, 64)?;
        if sections == 0 {
            sections = u64_at(&first, 32);
        }
        if names == 0xffff {
            names = u32_at(&first, 40);
        }
        if sections > HEADERS_MAX {
            return Err(self.bad(format!("{sections} sections")));
        }
        let table = self.file_range(sections_at, sections * 64)?;
        let headers: Vec<&[u8]> = table.chunks_exact(64).collect();
        let Some(header) = headers.get(names as usize) else {
            return Err(self.bad("the section with the names of the sections is missing"));
        };
        let strings = self.file_range(u64_at(header, 24), u64_at(header, 32))?;
        self.sections = headers
            .iter()
            .map(|header| Section {
                name: string_at(&strings, u32_at(header, 0)),
                kind: u32_at(header, 4),
                flags: u64_at(header, 8),
                address: u64_at(header, 16),
                offset: u64_at(header, 24),
                bytes: u64_at(header, 32),
                link: u32_at(header, 40),
            })
            .collect();
        Ok(())
    }

    /// What is wrong with a file that has no code.
    pub(super) fn without_code(&self) -> SymbolsError {
        self.bad("it has no code")
    }

    /// Its code's key, computed once.
    pub(super) fn code_key(&self) -> Result<CodeKey, SymbolsError> {
        match self.code_key.get() {
            Some(key) => Ok(key.clone()),
            None => self.hash_code().map(|key| self.code_key.get_or_init(|| key).clone()),
        }
    }

    /// The GNU build-id (`NT_GNU_BUILD_ID` is 3).
    pub(super) fn gnu_build_id(&self) -> Option<Vec<u8>> {
        let note = self.notes().into_iter().find(|note| note.owner == b"GNU" && note.kind == 3)?;
        Some(note.content).filter(|id| !id.is_empty())
    }

    fn bad(&self, why: impl Into<String>) -> SymbolsError {
        SymbolsError::BadElf { path: self.path.clone(), why: why.into() }
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads bytes of the file; an error when they are not all there.
    pub(super) fn file_range(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, SymbolsError> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.file_bytes);
        if !inside || bytes > SECTION_BYTES_MAX {
            return Err(self.bad(format!("{bytes} bytes at offset {offset:#x} are beyond its end: is it cut short?")));
        }
        let mut content = vec![0; bytes as usize];
        self.file
            .read_exact_at(&mut content, offset)
            .map_err(|source| SymbolsError::Read { path: self.path.clone(), source })?;
        Ok(content)
    }

    /// Whether there is a section of this name (or its old compressed form, for `.debug_*`).
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.find_section(name).is_some_and(|section| section.kind != SHT_NOBITS && section.bytes > 0)
    }

    fn find_section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name).or_else(|| {
            let rest = name.strip_prefix(".debug_")?;
            self.sections.iter().find(|section| section.name.strip_prefix(".zdebug_") == Some(rest))
        })
    }

    /// Address and size of a section in memory.
    pub(super) fn section_range(&self, name: &str) -> Option<Range<u64>> {
        let section = self.find_section(name)?;
        Some(section.address..section.address.checked_add(section.bytes)?)
    }

    /// Where and how a section is stored; `None` when there is none.
    pub(super) fn stored(&self, name: &str) -> Result<Option<Stored>, SymbolsError> {
        let Some(section) = self.find_section(name).filter(|section| section.kind != SHT_NOBITS) else {
            return Ok(None);
        };
        let (packing, header_bytes, unpacked_bytes) = if section.flags & SHF_COMPRESSED != 0 {
            // Elf64_Chdr: ch_type, ch_reserved, ch_size, ch_addralign.
            if section.bytes < 24 {
                return Err(self.bad(format!("section {name} has no room for its compression header")));
            }
            let header = self.file_range(section.offset, 24)?;
            let packing = match u32_at(&header, 0) {
                1 => Packing::Zlib,
                2 => Packing::Zstandard,
                other => return Err(self.bad(format!("section {name} is compressed by unknown method {other}"))),
            };
            (packing, 24, u64_at(&header, 8))
        } else if section.name.starts_with(".zdebug_") {
            // GNU form: "ZLIB", then the size in big endian.
            let header = if section.bytes < 12 { Vec::new() } else { self.file_range(section.offset, 12)? };
            let Some(size) = header.strip_prefix(b"ZLIB").and_then(|size| <[u8; 8]>::try_from(size).ok()) else {
                return Err(self.bad(format!("section {} has no compression header", section.name)));
            };
            (Packing::Zlib, 12, u64::from_be_bytes(size))
        } else {
            (Packing::None, 0, section.bytes)
        };
        let (offset, bytes) = (section.offset.saturating_add(header_bytes), section.bytes - header_bytes);
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.file_bytes);
        if !inside || bytes > SECTION_BYTES_MAX {
            return Err(self.bad(format!("section {name} goes beyond its end: is it cut short?")));
        }
        let ratio = match packing {
            Packing::None => 1,
            Packing::Zlib => DEFLATE_RATIO_MAX,
            Packing::Zstandard => ZSTD_RATIO_MAX,
        };
        if unpacked_bytes > SECTION_BYTES_MAX.min(bytes.saturating_mul(ratio).saturating_add(64)) {
            return Err(self.bad(format!("section {name} claims to unpack to {unpacked_bytes} bytes")));
        }
        Ok(Some(Stored { name: section.name.clone(), offset, bytes, packing, unpacked_bytes }))
    }

    /// Content of a section, unpacked; empty when there is none.
    pub(super) fn section(&self, name: &str) -> Result<Vec<u8>, SymbolsError> {
        self.stored(name)?.map_or_else(|| Ok(Vec::new()), |stored| self.unpacked(&stored))
    }

    /// Content of a section, in memory.
    pub(super) fn unpacked(&self, stored: &Stored) -> Result<Vec<u8>, SymbolsError> {
        if stored.packing == Packing::None {
            return self.file_range(stored.offset, stored.bytes);
        }
        // Grows with what is there, not with what a header claims.
        let mut content = Vec::new();
        self.unpack(stored, |chunk| {
            content.extend_from_slice(chunk);
            Ok(())
        })
        .map_err(|error| self.not_unpacked(stored, &error))?;
        Ok(content)
    }

    /// Why a section could not be unpacked.
    pub(super) fn not_unpacked(&self, stored: &Stored, error: &std::io::Error) -> SymbolsError {
        self.bad(format!("section {} cannot be unpacked: {error}", stored.name))
    }

    /// Unpacks a section front to back, handing over a piece at a time. The errors of `take` are given back as they are.
    pub(super) fn unpack(
        &self,
        stored: &Stored,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let part = FilePart { file: &self.file, at: stored.offset, left: stored.bytes };
        let part = BufReader::with_capacity(UNPACK_BYTES / 2, part);
        match stored.packing {
            Packing::None => pour(part, stored.unpacked_bytes, &mut take),
            Packing::Zlib => pour(flate2::bufread::ZlibDecoder::new(part), stored.unpacked_bytes, &mut take),
            Packing::Zstandard => {
                let mut packed = Vec::new();
                let mut part = part;
                part.read_to_end(&mut packed)?;
                let data = CompressedData {
                    format: CompressionFormat::Zstandard,
                    data: &packed,
                    uncompressed_size: stored.unpacked_bytes,
                };
                take(&data.decompress().map_err(std::io::Error::other)?)
            }
        }
    }

    /// The notes of the file, from sections and segments.
    pub(super) fn notes(&self) -> Vec<Note> {
        let segments = self.segments.iter().filter(|segment| segment.kind == PT_NOTE);
        let ranges = self
            .sections
            .iter()
            .filter(|section| section.name.starts_with(".note."))
            .map(|section| (section.offset, section.bytes))
            .chain(segments.map(|segment| (segment.offset, segment.file_bytes)));
        let mut notes = Vec::new();
        for (offset, bytes) in ranges {
            if let Ok(content) = self.file_range(offset, bytes.min(NOTES_BYTES_MAX)) {
                read_notes(&content, &mut notes);
            }
        }
        notes
    }

    /// What tells the debug sections of one build from those of another, as lower-case hexadecimal. `id` is the build's.
    pub(super) fn key(&self, id: &str) -> String {
        // A stripped build may have the id of the whole one, so the sections count as well.
        let mut hash = Sha256::new();
        hash.update(id);
        hash.update([0]);
        hash.update(self.file_bytes.to_le_bytes());
        for section in &self.sections {
            hash.update(&section.name);
            hash.update([0]);
            hash.update(section.offset.to_le_bytes());
            hash.update(section.bytes.to_le_bytes());
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads initialised memory at an address, up to `bytes`; shorter where the file holds no more, empty where nothing
    /// is mapped from the file.
    pub(super) fn read(&self, address: Svma, bytes: u64) -> Vec<u8> {
        let Some((segment, into)) = self.loaded().find_map(|segment| {
            let into = address.0.checked_sub(segment.address)?;
            (into < segment.file_bytes).then_some((segment, into))
        }) else {
            return Vec::new();
        };
        let Some(offset) = segment.offset.checked_add(into) else { return Vec::new() };
        let bytes = bytes.min(segment.file_bytes - into).min(self.file_bytes.saturating_sub(offset));
        self.file_range(offset, bytes).unwrap_or_default()
    }

    fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD)
    }

    /// Whether an address holds code.
    pub(super) fn is_code(&self, address: Svma) -> bool {
        self.loaded()
            .filter(|segment| segment.flags & PF_X != 0)
            .any(|segment| address.0.checked_sub(segment.address).is_some_and(|into| into < segment.memory_bytes))
    }

    /// Writable initialised memory, by address.
    pub(super) fn writable(&self) -> impl Iterator<Item = Range<u64>> {
        self.loaded()
            .filter(|segment| segment.flags & PF_W != 0)
            .filter_map(|segment| Some(segment.address..segment.address.checked_add(segment.file_bytes)?))
    }

    /// Initialised memory, by the order of the segments.
    pub(super) fn loaded_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.loaded().filter_map(|segment| Some(segment.address..segment.address.checked_add(segment.file_bytes)?))
    }

    /// The words that the loader fills with addresses of this file: where they are and what they become, by address
    /// (psABI, 4.4, `R_X86_64_RELATIVE`). Empty for an executable that is not moved.
    pub(super) fn relative_relocations(&self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for section in self.sections.iter().filter(|section| section.kind == SHT_RELA && section.flags & SHF_ALLOC != 0)
        {
            let Ok(content) = self.file_range(section.offset, section.bytes) else { continue };
            // Elf64_Rela: r_offset, r_info, r_addend.
            let relative = content.chunks_exact(24).filter(|entry| u64_at(entry, 8) == R_X86_64_RELATIVE);
            found.extend(relative.map(|entry| (u64_at(entry, 0), u64_at(entry, 16))));
        }
        found.sort_unstable();
        found
    }

    /// By how much the executable was moved, told by one mapping of it.
    pub(super) fn bias(&self, mapped_at: Avma, file_offset: u64) -> Option<u64> {
        // A mapping starts at the page that holds the segment's first byte. Two segments may share a page of the file,
        // and some loaders split a segment: the one that begins there is meant, else the one that goes on there.
        let begins = |segment: &&Segment| segment.offset & !0xfff == file_offset;
        let goes_on = |segment: &&Segment| {
            let end = segment.offset.saturating_add(segment.file_bytes);
            (segment.offset & !0xfff..end).contains(&file_offset)
        };
        let segment = self.loaded().find(begins).or_else(|| self.loaded().find(goes_on))?;
        let bias = mapped_at.0.wrapping_sub(segment.address.wrapping_sub(segment.offset).wrapping_add(file_offset));
        (self.position_independent || bias == 0).then_some(bias)
    }

    /// The thread-local storage, if the executable has some.
    pub(super) fn thread_local(&self) -> Option<ThreadLocal> {
        let segment = self.segments.iter().find(|segment| segment.kind == PT_TLS)?;
        Some(ThreadLocal {
            address: segment.address,
            memory_bytes: segment.memory_bytes,
            align: if segment.align.is_power_of_two() { segment.align } else { 1 },
        })
    }

    /// Value of a symbol of `.symtab`.
    pub(super) fn symbol(&self, name: &str) -> Option<u64> {
        let table = self.sections.iter().find(|section| section.kind == SHT_SYMTAB)?;
        let strings = self.sections.get(table.link as usize)?;
        let symbols = self.file_range(table.offset, table.bytes).ok()?;
        let strings = self.file_range(strings.offset, strings.bytes).ok()?;
        // Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size.
        symbols
            .chunks_exact(24)
            .find(|symbol| {
                let at = u32_at(symbol, 0) as usize;
                strings
                    .get(at..)
                    .is_some_and(|rest| rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
            })
            .map(|symbol| u64_at(symbol, 8))
    }
}

/// A segment, which is from the file as far as the file goes: whoever walks over it would go on for years else.
fn segment(header: &[u8], file_bytes: u64) -> Segment {
    let offset = u64_at(header, 8);
    Segment {
        kind: u32_at(header, 0),
        flags: u32_at(header, 4),
        offset,
        address: u64_at(header, 16),
        file_bytes: u64_at(header, 32).min(file_bytes.saturating_sub(offset)),
        memory_bytes: u64_at(header, 40),
        align: u64_at(header, 48),
    }
}

/// Notes are: name size, content size, type, name, content; name and content are padded to four bytes.
fn read_notes(mut rest: &[u8], notes: &mut Vec<Note>) {
    while rest.len() >= 12 {
        let (name_bytes, content_bytes) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize);
        let kind = u32_at(rest, 8);
        let content_at = 12 + name_bytes.next_multiple_of(4);
        let end = content_at.saturating_add(content_bytes);
        let (Some(name), Some(content)) = (rest.get(12..12 + name_bytes), rest.get(content_at..end)) else { return };
        let owner = name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        notes.push(Note { owner, kind, content: content.to_vec() });
        rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn string_at(strings: &[u8], at: u32) -> String {
    let bytes = strings.get(at as usize..).unwrap_or_default();
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Panics when out of bounds: callers pass a buffer of the header's fixed size.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// See [`u16_at`].
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// See [`u16_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

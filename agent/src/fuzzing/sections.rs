//! Sections of an executable in a row, and a sound ELF file around them: what a fuzzer changes is then what is in the
//! sections, and not the headers, without which nothing of them is read.
//!
//! ```text
//!  packed = section ..      section = name (1 byte, a place in NAMES) , address (u32 LE) , length (u16 LE) , content
//! ```
//! A section of address 0 is not loaded. What cannot be read ends the row; a section without content is left out.
//!
//! Source: System V ABI, chapter 4 (object files).

use crate::symbols::NEEDED;
use object::{Object, ObjectSection};

/// The sections that are read anywhere: those of debug information stand behind the first two.
const NAMES: [&str; 15 + NEEDED.len()] = {
    let mut names = [
        "",
        ".text",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        ".eh_frame_hdr",
        ".symtab",
        ".strtab",
        ".dynsym",
        ".dynstr",
        ".gopclntab",
        ".go.buildinfo",
        ".go.type",
        ".data",
        ".rodata",
        ".note.go.buildid",
        ".gnu_debuglink",
        ".rela.dyn",
    ];
    let mut at = 0;
    while at < NEEDED.len() {
        names[2 + at] = NEEDED[at];
        at += 1;
    }
    names
};
/// Sections of one file, at most.
const SECTIONS_MAX: usize = 64;
/// Where the tables of symbols find their names, one place behind them.
const SYMBOL_TABLES: [&str; 2] = [".symtab", ".dynsym"];

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const SECTION_BYTES: usize = 64;

/// A section: its place in [`NAMES`], its address, its content.
type Section<'a> = (usize, u32, &'a [u8]);

/// The sections of a row.
pub(super) fn unpack(mut rest: &[u8]) -> Vec<Section<'_>> {
    let mut sections = Vec::new();
    while let Some((&[name, a, b, c, d, low, high], behind)) = rest.split_first_chunk::<7>()
        && sections.len() < SECTIONS_MAX
    {
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (content, behind) = behind.split_at(length);
        sections.push((usize::from(name) % NAMES.len(), u32::from_le_bytes([a, b, c, d]), content));
        rest = behind;
    }
    sections
}

/// The sections of an executable in a row: for the seeds of a fuzzer. What a fuzzer cannot hold is left out: sections of more
/// than 65,535 bytes, and addresses beyond 32 bits.
///
/// # Errors
/// When it is no executable, in the words of its reader.
pub fn pack(executable: &[u8]) -> Result<Vec<u8>, String> {
    let file = object::File::parse(executable).map_err(|error| error.to_string())?;
    let mut packed = Vec::new();
    for (number, name) in NAMES.iter().enumerate().skip(1) {
        let Some(section) = file.section_by_name(name) else { continue };
        let content = section.uncompressed_data().map_err(|error| error.to_string())?;
        if let (Ok(length), Ok(address)) = (u16::try_from(content.len()), u32::try_from(section.address())) {
            packed.push(number as u8);
            packed.extend(address.to_le_bytes());
            packed.extend(length.to_le_bytes());
            packed.extend_from_slice(&content);
        }
    }
    Ok(packed)
}

fn half(file: &mut Vec<u8>, value: u16) {
    file.extend(value.to_le_bytes());
}

fn word(file: &mut Vec<u8>, value: u32) {
    file.extend(value.to_le_bytes());
}

fn long(file: &mut Vec<u8>, value: u64) {
    file.extend(value.to_le_bytes());
}

/// A sound executable for x86-64 with these sections, each loaded one in a segment of its own.
pub(super) fn executable(sections: &[Section<'_>]) -> Vec<u8> {
    let loaded: Vec<usize> = (0..sections.len()).filter(|&number| sections[number].1 != 0).collect();
    let mut names = vec![0];
    let mut name_at = |name: &str| {
        let at = names.len() as u32;
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        at
    };
    let named: Vec<u32> = sections.iter().map(|&(name, ..)| name_at(NAMES[name])).collect();
    let names_named = name_at(".shstrtab");
    let contents_at = HEADER_BYTES + loaded.len() * SEGMENT_BYTES;
    let mut at = contents_at;
    let mut place = |bytes: usize| {
        at += bytes;
        at - bytes
    };
    let places: Vec<usize> = sections.iter().map(|(.., content)| place(content.len())).collect();
    let names_at = place(names.len());
    let headers_at = place(0);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64, version; entry, program headers, section headers; flags; sizes and numbers.
    half(&mut file, 2);
    half(&mut file, 62);
    word(&mut file, 1);
    [0, HEADER_BYTES as u64, headers_at as u64].into_iter().for_each(|value| long(&mut file, value));
    word(&mut file, 0);
    let counts = [loaded.len(), SECTION_BYTES, sections.len() + 2, sections.len() + 1];
    [HEADER_BYTES, SEGMENT_BYTES].into_iter().chain(counts).for_each(|value| half(&mut file, value as u16));
    for &number in &loaded {
        let (name, address, content) = sections[number];
        // PT_LOAD; code may be executed, all else written.
        word(&mut file, 1);
        word(&mut file, if NAMES[name] == ".text" { 5 } else { 6 });
        let (bytes, address) = (content.len() as u64, u64::from(address));
        [places[number] as u64, address, address, bytes, bytes, 1].into_iter().for_each(|value| long(&mut file, value));
    }
    sections.iter().for_each(|(.., content)| file.extend_from_slice(content));
    file.extend_from_slice(&names);

    file.extend([0; SECTION_BYTES]);
    let strings = |of: &str| {
        let wanted = if of == ".dynsym" { ".dynstr" } else { ".strtab" };
        sections.iter().position(|&(name, ..)| NAMES[name] == wanted).map_or(0, |number| number as u32 + 1)
    };
    let mut header = |name: u32, kind: u32, flags: u64, place: [u64; 3], link: u32, entry: u64| {
        word(&mut file, name);
        word(&mut file, kind);
        long(&mut file, flags);
        place.into_iter().for_each(|value| long(&mut file, value));
        word(&mut file, link);
        word(&mut file, 0);
        long(&mut file, 1);
        long(&mut file, entry);
    };
    for (number, &(name, address, content)) in sections.iter().enumerate() {
        // SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_DYNSYM; SHF_ALLOC where it is loaded.
        let (kind, entry) = match NAMES[name] {
            ".symtab" => (2, 24),
            ".rela.dyn" => (4, 24),
            ".dynsym" => (11, 24),
            _ => (1, 0),
        };
        let place = [u64::from(address), places[number] as u64, content.len() as u64];
        let link = if SYMBOL_TABLES.contains(&NAMES[name]) { strings(NAMES[name]) } else { 0 };
        header(named[number], kind, if address == 0 { 0 } else { 2 }, place, link, entry);
    }
    // SHT_STRTAB.
    header(names_named, 3, 0, [0, names_at as u64, names.len() as u64], 0, 0);
    file
}

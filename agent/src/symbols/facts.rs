//! What an executable is: language, toolchain, module, commit, ids. Headers, notes and build information only.
//!
//! Go's build information is described in Go's `debug/buildinfo` package: a 32-byte header with the magic
//! `\xff Go buildinf:`, then (since Go 1.18) two strings, each after its length as a varint; before, the header holds
//! pointers to two string headers.

use super::image::Image;
use super::{Svma, SymbolsError};
use riptrace_protocol::fleet::{BUILD_SETTINGS_MAX, BuildFacts, Language};
use riptrace_protocol::ids::BuildId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The header is aligned to this.
const ALIGN: usize = 16;
/// How far into the writable data the header is looked for where sections are gone: the linker puts it at the start.
const SEARCH_BYTES_MAX: u64 = 1 << 20;
/// Longest module information: a line per module of the build; thousands of modules fit.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Longest setting that is kept, with its name: profiles of all processes travel in one message.
const SETTING_BYTES_MAX: usize = 256;
/// Longest id that is kept, in bytes: Go's are 83, GNU's 20.
const ID_BYTES_MAX: usize = 256;

/// Reads the facts of an open executable.
pub(super) fn read(image: &Image) -> Result<BuildFacts, SymbolsError> {
    let notes = image.notes();
    let note = |owner: &[u8], kind| {
        notes
            .iter()
            .find(|note| note.owner == owner && note.kind == kind)
            .map(|note| &note.content[..note.content.len().min(ID_BYTES_MAX)])
            .filter(|content| !content.is_empty())
    };
    // Go's linker: cmd/link/internal/ld/elf.go, ELF_NOTE_GOBUILDID_TAG is 4. GNU: NT_GNU_BUILD_ID is 3.
    let go_id = note(b"Go", 4);
    let gnu_id = note(b"GNU", 3);
    let info = build_information(image);
    let id = match (go_id, gnu_id) {
        (Some(id), _) => format!("go:{}", String::from_utf8_lossy(id)),
        (None, Some(id)) => format!("gnu:{}", hexadecimal(id)),
        (None, None) => format!("file:{}", file_hash(image)?),
    };
    let is_go = go_id.is_some() || info.is_some() || image.has_section(".gopclntab");
    let (go_version, text) = info.unwrap_or_default();
    let module = ModuleFacts::parse(&text);
    Ok(BuildFacts {
        id: BuildId(id),
        language: if is_go { Language::Go } else { Language::Native },
        dwarf: image.has_section(".debug_info") && image.has_section(".debug_line"),
        go_version: Some(go_version).filter(|version| !version.is_empty()),
        module: module.path,
        module_version: module.version,
        vcs_revision: module.revision,
        vcs_modified: module.modified,
        settings: module.settings,
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ModuleFacts {
    path: Option<String>,
    version: Option<String>,
    revision: Option<String>,
    modified: Option<bool>,
    settings: BTreeMap<String, String>,
}

/// Settings that name what a linker puts into variables (`-X main.token=..`), or what else a person passes to compilers.
const WITHHELD: [&str; 3] = ["-ldflags", "-gccgoflags", "CGO_LDFLAGS"];

impl ModuleFacts {
    /// Reads the tab-separated lines of `runtime/debug.ParseBuildInfo`.
    fn parse(text: &str) -> ModuleFacts {
        let mut facts = ModuleFacts::default();
        for line in text.lines() {
            let mut words = line.split('\t');
            match (words.next(), words.next(), words.next()) {
                (Some("mod"), Some(path), version) => {
                    facts.path = Some(path.to_owned());
                    // A build from a checkout without a tag has no version of its own.
                    facts.version = version.filter(|version| !matches!(*version, "" | "(devel)")).map(str::to_owned);
                }
                (Some("path"), Some(path), _) if facts.path.is_none() => facts.path = Some(path.to_owned()),
                (Some("build"), Some(setting), _) => {
                    let Some((name, value)) = setting.split_once('=') else { continue };
                    let (name, value) = (unquoted(name), unquoted(value));
                    match name.as_str() {
                        "vcs.revision" => facts.revision = Some(value.clone()),
                        "vcs.modified" => facts.modified = Some(value == "true"),
                        _ => {}
                    }
                    let is_told = !WITHHELD.contains(&name.as_str()) && name.len() + value.len() <= SETTING_BYTES_MAX;
                    if is_told && facts.settings.len() < BUILD_SETTINGS_MAX {
                        facts.settings.insert(name, value);
                    }
                }
                _ => {}
            }
        }
        facts
    }
}

fn unquoted(text: &str) -> String {
    text.trim_matches(['"', '`']).to_owned()
}

/// The Go version and the module information, framing removed.
fn build_information(image: &Image) -> Option<(String, String)> {
    let range = image.section_range(".go.buildinfo").or_else(|| image.writable().next())?;
    let bytes = (range.end - range.start).min(SEARCH_BYTES_MAX);
    let data = image.read(Svma(range.start), bytes);
    let at = data.chunks(ALIGN).position(|chunk| chunk.starts_with(MAGIC))? * ALIGN;
    let header = image.read(Svma(range.start.checked_add(at as u64)?), 32);
    if header.len() < 32 {
        return None;
    }
    let (pointer_bytes, flags) = (header[14], header[15]);
    let (version, module) = if flags & 2 != 0 {
        let (version, next) = inline_string(image, range.start + at as u64 + 32)?;
        let module = inline_string(image, next).map(|(module, _)| module).unwrap_or_default();
        (version, module)
    } else if pointer_bytes == 8 && flags & 1 == 0 {
        let version = pointed_string(image, word(&header, 16)?)?;
        (version, pointed_string(image, word(&header, 24)?).unwrap_or_default())
    } else {
        return None;
    };
    if version.is_empty() {
        return None;
    }
    // Sixteen bytes before and after mark the text's place for tools that search for it.
    let framed = module.len() >= 33 && module[module.len() - 17] == b'\n';
    let module = if framed { &module[16..module.len() - 16] } else { &[] };
    Some((String::from_utf8_lossy(&version).into_owned(), String::from_utf8_lossy(module).into_owned()))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A string after its length as a varint, and the address after it.
fn inline_string(image: &Image, address: u64) -> Option<(Vec<u8>, u64)> {
    let prefix = image.read(Svma(address), 10);
    let mut length = 0u64;
    let mut used = 0;
    for &byte in &prefix {
        length |= u64::from(byte & 0x7f).checked_shl(used * 7)?;
        used += 1;
        if byte & 0x80 == 0 {
            let at = address.checked_add(u64::from(used))?;
            let content = bounded(image, at, length)?;
            return Some((content, at + length));
        }
    }
    None
}

/// A string behind a Go string header.
fn pointed_string(image: &Image, header_at: u64) -> Option<Vec<u8>> {
    let header = image.read(Svma(header_at), 16);
    bounded(image, word(&header, 0)?, word(&header, 8)?)
}

fn bounded(image: &Image, address: u64, length: u64) -> Option<Vec<u8>> {
    if length > TEXT_BYTES_MAX {
        return None;
    }
    let content = image.read(Svma(address), length);
    (content.len() as u64 == length).then_some(content)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sixteen bytes of SHA-256 over the file, for executables that carry no id.
fn file_hash(image: &Image) -> Result<String, SymbolsError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut offset = 0;
    loop {
        let read = image
            .file()
            .read_at(&mut buffer, offset)
            .map_err(|source| SymbolsError::Read { path: image.path().to_owned(), source })?;
        if read == 0 {
            return Ok(hexadecimal(&hash.finalize()[..16]));
        }
        hash.update(&buffer[..read]);
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_information_tells_path_version_and_commit() {
        let text = "path\texample.com/shop/cmd/cart\nmod\texample.com/shop\tv1.2.3\th1:x\ndep\tb\tv1\n\
                    build\tvcs=git\nbuild\tvcs.revision=abc\nbuild\tvcs.modified=true\n\
                    build\t-ldflags=\"-X main.token=secret\"\nbuild\t-tags=a,b\n";
        let facts = ModuleFacts::parse(text);
        assert_eq!(facts.path.as_deref(), Some("example.com/shop"));
        assert_eq!(facts.version.as_deref(), Some("v1.2.3"));
        assert_eq!(facts.revision.as_deref(), Some("abc"));
        assert_eq!(facts.modified, Some(true));
        let settings: Vec<_> = facts.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(settings, ["-tags=a,b", "vcs=git", "vcs.modified=true", "vcs.revision=abc"]);
        assert_eq!(ModuleFacts::parse("path\tp\nmod\tm\t(devel)\t\n").version, None);
        assert_eq!(ModuleFacts::parse("\u{0}\t\t\nbuild\tx\n"), ModuleFacts::default());
    }
}

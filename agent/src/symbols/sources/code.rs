//! Which code a build has: what a stripped build and the whole one have in common, whatever their ids say.

use super::super::SymbolsError;
use super::super::facts;
use super::super::image::Image;
use riptrace_protocol::fleet::BuildFacts;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// Code that is hashed at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// SHA-256 of the address and the bytes of a build's code, as lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CodeKey(String);

impl CodeKey {
    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a file is that someone wants to push.
#[derive(Debug, Clone)]
pub struct Pushable {
    /// Its code.
    pub code: CodeKey,
    /// What it is.
    pub facts: BuildFacts,
}

/// Reads what a file is, and refuses one that would help nobody.
///
/// # Errors
/// In a sentence for a person.
pub fn pushable(path: &Path) -> Result<Pushable, String> {
    let image = Image::open(path).map_err(|error| error.to_string())?;
    let facts = facts::read(&image).map_err(|error| error.to_string())?;
    if !facts.dwarf {
        return Err(format!(
            "{} has no debug information itself: push the build before it was stripped (no -ldflags=-s or -w)",
            path.display()
        ));
    }
    let code = image.code_key().map_err(|error| error.to_string())?;
    Ok(Pushable { code, facts })
}

impl Image {
    /// Which code it has: its section `.text`, which strip leaves as it is.
    pub(in crate::symbols) fn hash_code(&self) -> Result<CodeKey, SymbolsError> {
        let mut hash = Sha256::new();
        let text = self.stored(".text")?.ok_or_else(|| self.without_code())?;
        hash.update(self.section_range(".text").map_or(0, |range| range.start).to_le_bytes());
        let mut at = 0;
        while at < text.bytes {
            let bytes = CHUNK_BYTES.min(text.bytes - at);
            hash.update(self.file_range(text.offset + at, bytes)?);
            at += bytes;
        }
        Ok(CodeKey(hexadecimal(&hash.finalize())))
    }
}

/// Bytes as lower-case hexadecimal.
pub(in crate::symbols) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

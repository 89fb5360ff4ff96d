//! Finding the function table and the module data that goes with it.
//!
//! The table is the section `.gopclntab` (`.data.rel.ro.gopclntab` in position-independent executables), the symbol
//! `runtime.pclntab`, or else the one place in read-only memory that looks like its header: external linkers merge it
//! into another section. The module data (`runtime.moduledata`) begins with a pointer to the table.

use super::super::Svma;
use super::super::image::Image;
use super::TableError;
use super::table::{HEADER_BYTES, Header};
use riptrace_protocol::fleet::BuildFacts;

/// Memory that is searched at once.
const SEARCH_BYTES: u64 = 1 << 20;
/// Memory that is searched, at most: four times the largest executables met.
const SEARCH_BYTES_MAX: u64 = 2 << 30;
/// Largest function table: a tenth of the largest code that can be.
const TABLE_BYTES_MAX: u64 = 512 << 20;
/// Words of the module data up to the one that is read last.
const MODULE_WORDS: usize = 44;

/// Where things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    /// First address of Go's code: what the table's entries are relative to.
    pub(super) text: u64,
    /// What the offsets of function data are relative to; `None` where it is not known.
    pub(super) functions_data: Option<u64>,
}

/// Address and size of the table, as far as it can be told.
pub(super) fn find_table(image: &Image) -> Result<(u64, u64), TableError> {
    for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
        if let Some(range) = image.section_range(name) {
            return Ok((range.start, (range.end - range.start).min(TABLE_BYTES_MAX)));
        }
    }
    let at = match image.symbol("runtime.pclntab") {
        Some(at) => at,
        None => search(image).ok_or(TableError::Missing)?,
    };
    let end = image.loaded_ranges().find(|range| range.contains(&at)).map_or(at, |range| range.end);
    Ok((at, (end - at).min(TABLE_BYTES_MAX)))
}

/// The first place in memory that is a plausible header.
fn search(image: &Image) -> Option<u64> {
    let mut left = SEARCH_BYTES_MAX;
    for range in image.loaded_ranges() {
        let mut at = range.start.checked_next_multiple_of(8).unwrap_or(range.end);
        while at < range.end && left > 0 {
            let bytes = image.read(Svma(at), SEARCH_BYTES.min(range.end - at) + HEADER_BYTES as u64);
            for into in (0..bytes.len().saturating_sub(HEADER_BYTES)).step_by(8) {
                if let Ok(header) = Header::read(&bytes[into..])
                    && header.is_plausible(range.end - at - into as u64)
                {
                    return Some(at + into as u64);
                }
            }
            at = at.saturating_add(SEARCH_BYTES);
            left = left.saturating_sub(SEARCH_BYTES);
        }
    }
    None
}

/// The module data of the table at `table`.
pub(super) fn find_module(image: &Image, facts: &BuildFacts, table: u64, header: &Header) -> Option<Module> {
    let relocations = image.relative_relocations();
    let candidates: Vec<u64> = if relocations.is_empty() {
        words_equal_to(image, table)
    } else {
        relocations.iter().filter(|&&(_, to)| to == table).map(|&(at, _)| at).collect()
    };
    candidates.into_iter().find_map(|at| {
        let bytes = image.read(Svma(at), (MODULE_WORDS * 8) as u64);
        let word = |number: usize| -> Option<u64> {
            let place = at.checked_add(number as u64 * 8)?;
            if let Ok(found) = relocations.binary_search_by_key(&place, |&(at, _)| at) {
                return Some(relocations[found].1);
            }
            Some(u64::from_le_bytes(bytes.get(number * 8..number * 8 + 8)?.try_into().ok()?))
        };
        // runtime.moduledata: pcHeader; funcnametab, cutab, filetab, pctab, pclntable, ftab (a slice each);
        // findfunctab; minpc, maxpc; text, etext; ...
        let (functions, min_pc, max_pc, text, text_end) = (word(17)?, word(20)?, word(21)?, word(22)?, word(23)?);
        // The table of functions ends with an entry that is none.
        let is_it = functions == header.functions + 1 && min_pc < max_pc && text <= min_pc && max_pc <= text_end;
        let functions_data = functions_data_word(facts).and_then(word);
        is_it.then_some(Module { text, functions_data })
    })
}

/// Number of the word `gofunc` of the module data. Before it: `types`, `etypes`, `rodata`, and since Go 1.27
/// `typedesclen`, `itaboffset` and `itabsize`; and since Go 1.20 `covctrs` and `ecovctrs`.
fn functions_data_word(facts: &BuildFacts) -> Option<usize> {
    match minor(facts.go_version.as_deref()?)? {
        18 | 19 => Some(38),
        20..=26 => Some(40),
        27 => Some(43),
        _ => None,
    }
}

/// `1.27.3` or `go1.27.3` is 27.
fn minor(version: &str) -> Option<u32> {
    let rest = version.trim_start_matches("go").strip_prefix("1.")?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Where in writable memory a word has a value.
fn words_equal_to(image: &Image, wanted: u64) -> Vec<u64> {
    /// Few words can be equal to one address; more are damage.
    const FOUND_MAX: usize = 64;
    let mut found = Vec::new();
    // Segments may lie over one another.
    let mut left = SEARCH_BYTES_MAX;
    for range in image.writable() {
        let mut at = range.start.checked_next_multiple_of(8).unwrap_or(range.end);
        while at < range.end && left > 0 && found.len() < FOUND_MAX {
            let bytes = image.read(Svma(at), SEARCH_BYTES.min(range.end - at));
            let words = bytes.chunks_exact(8).zip((at..).step_by(8));
            found.extend(words.filter(|(word, _)| *word == wanted.to_le_bytes()).map(|(_, at)| at));
            at = at.saturating_add(SEARCH_BYTES);
            left = left.saturating_sub(SEARCH_BYTES);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn a_version_has_a_minor_number() {
        assert_eq!(minor("go1.27.3"), Some(27));
        assert_eq!(minor("1.21rc2"), Some(21));
        assert_eq!(minor("go1.26"), Some(26));
        assert_eq!((minor("devel go1.28-abc"), minor("go2"), minor("")), (None, None, None));
    }
}

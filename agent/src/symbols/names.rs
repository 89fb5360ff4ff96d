//! The symbol table of a file: names of functions and objects at addresses, where there is no debug information.
//!
//! `.symtab` where the file was not stripped, and `.dynsym`, which a shared library keeps for those who link to it. A
//! name is given only within the symbol's own size: the nearest symbol before an address is not its function.
//!
//! Source: System V ABI, chapter 4, symbol table (`Elf64_Sym`).

use super::image::Image;

/// Symbols that are read, at most: the largest executables have a few million.
const SYMBOLS_MAX: usize = 8 << 20;
/// Bytes of one name, at most.
const NAME_BYTES_MAX: usize = 4096;

// Types of symbols.
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// The named functions and objects of a file.
#[derive(Debug, Default)]
pub(super) struct SymbolNames {
    /// Address, size, string table, offset in it; by address.
    symbols: Vec<(u64, u64, u8, u32)>,
    strings: [Vec<u8>; 2],
}

impl SymbolNames {
    /// Reads both tables as far as they can be read.
    pub(super) fn load(image: &Image) -> SymbolNames {
        let mut names = SymbolNames::default();
        for (table, (symbols, strings)) in [(".symtab", ".strtab"), (".dynsym", ".dynstr")].into_iter().enumerate() {
            let (Ok(symbols), Ok(strings)) = (image.section(symbols), image.section(strings)) else { continue };
            names.add(&symbols, table as u8);
            names.strings[table] = strings;
        }
        names.symbols.sort_unstable();
        names
    }

    fn add(&mut self, symbols: &[u8], table: u8) {
        let room = SYMBOLS_MAX.saturating_sub(self.symbols.len());
        // Elf64_Sym: st_name u32, st_info u8, st_other u8, st_shndx u16, st_value u64, st_size u64.
        self.symbols.extend(symbols.chunks_exact(24).take(room).filter_map(|symbol| {
            let word = |at: usize| symbol[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            let name = symbol[..4].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            let is_named = matches!(symbol[4] & 0xf, STT_OBJECT | STT_FUNC | STT_GNU_IFUNC);
            let is_defined = symbol[6..8] != [0, 0];
            (is_named && is_defined && word(8) != 0).then(|| (word(8), word(16), table, name))
        }));
    }

    /// The mangled name of what holds an address, and the address where it begins.
    pub(super) fn at(&self, address: u64) -> Option<(&str, u64)> {
        /// Names of one address, and small objects within large ones.
        const OVERLAP_MAX: usize = 16;
        let after = self.symbols.partition_point(|&(start, ..)| start <= address);
        let around = self.symbols[..after].iter().rev().take(OVERLAP_MAX);
        around
            .filter(|&&(start, size, ..)| address - start < size)
            .find_map(|&(start, _, table, name)| Some((self.name(table, name)?, start)))
    }

    /// Where the function or object of a name is; the lowest of several.
    pub(super) fn named(&self, wanted: &str) -> Option<u64> {
        let is_it = |&&(.., table, name): &&(u64, u64, u8, u32)| self.name(table, name) == Some(wanted);
        self.symbols.iter().find(is_it).map(|&(start, ..)| start)
    }

    /// Where the functions and objects are whose names begin with a text.
    pub(super) fn beginning_with(&self, prefix: &str) -> impl Iterator<Item = u64> {
        let is_it = move |&&(.., table, name): &&(u64, u64, u8, u32)| {
            self.name(table, name).is_some_and(|name| name.starts_with(prefix))
        };
        self.symbols.iter().filter(is_it).map(|&(start, ..)| start)
    }

    fn name(&self, table: u8, at: u32) -> Option<&str> {
        let rest = self.strings.get(usize::from(table))?.get(at as usize..)?;
        let name = rest.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(name.get(..name.len().min(NAME_BYTES_MAX))?).ok().filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: u32, kind: u8, value: u64, size: u64) -> Vec<u8> {
        let mut bytes = name.to_le_bytes().to_vec();
        bytes.extend([kind, 0, 1, 0]);
        bytes.extend(value.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes
    }

    #[test]
    fn a_name_is_given_within_its_symbol_only() {
        let mut names = SymbolNames::default();
        let table = [symbol(1, STT_FUNC, 0x100, 0x10), symbol(6, STT_OBJECT, 0x200, 8), symbol(99, STT_FUNC, 0x300, 8)]
            .concat();
        names.add(&table, 0);
        names.add(&table[..30], 1);
        names.strings[0] = b"\0work\0table\0".to_vec();
        names.symbols.sort_unstable();
        assert_eq!(names.at(0x100), Some(("work", 0x100)));
        assert_eq!(names.at(0x10f), Some(("work", 0x100)));
        assert_eq!(names.at(0x110), None);
        assert_eq!(names.at(0x207), Some(("table", 0x200)));
        assert_eq!(names.at(0x300), None);
        assert_eq!(names.at(0), None);
        assert_eq!(names.beginning_with("wo").collect::<Vec<_>>(), [0x100]);
        assert_eq!((names.named("table"), names.named("tabl"), names.named("")), (Some(0x200), None, None));
    }
}

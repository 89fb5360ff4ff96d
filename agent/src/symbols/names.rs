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
const STT_FILE: u8 = 4;
const STT_GNU_IFUNC: u8 = 10;

/// The named functions and objects of a file.
#[derive(Debug, Default)]
pub(super) struct SymbolNames {
    /// Address, size, string table, offset in it; by address.
    symbols: Vec<(u64, u64, u8, u32)>,
    /// Of the objects that only their own source file knows: address, and the name of that file; by address.
    files: Vec<(u64, u32)>,
    strings: [Vec<u8>; 2],
}

/// A symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol<'s> {
    pub(super) address: u64,
    /// Mangled.
    pub(super) name: &'s str,
    /// The name of the source file, without its folder, of an object that no other file knows.
    pub(super) file: Option<&'s str>,
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
        names.files.sort_unstable();
        names
    }

    fn add(&mut self, symbols: &[u8], table: u8) {
        let room = SYMBOLS_MAX.saturating_sub(self.symbols.len());
        // Elf64_Sym: st_name u32, st_info u8, st_other u8, st_shndx u16, st_value u64, st_size u64.
        let mut file = None;
        let files = &mut self.files;
        self.symbols.extend(symbols.chunks_exact(24).take(room).filter_map(|symbol| {
            let word = |at: usize| symbol[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            let name = symbol[..4].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            let is_named = matches!(symbol[4] & 0xf, STT_OBJECT | STT_FUNC | STT_GNU_IFUNC);
            let is_defined = symbol[6..8] != [0, 0];
            // The local symbols of a file come behind its name; none has one behind the last of them.
            match (symbol[4] & 0xf, symbol[4] >> 4) {
                (STT_FILE, _) => file = (table == 0 && name != 0).then_some(name),
                (STT_OBJECT, 0) if is_defined => files.extend(file.map(|file| (word(8), file))),
                _ => {}
            }
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
        self.named_like(prefix).map(|symbol| symbol.address)
    }

    /// The functions and objects whose names begin with a text, by address; each name of one that has several.
    pub(super) fn named_like(&self, prefix: &str) -> impl Iterator<Item = Symbol<'_>> {
        self.symbols.iter().filter_map(move |&(address, _, table, name)| {
            let name = self.name(table, name).filter(|name| name.starts_with(prefix))?;
            let file = self.files.binary_search_by_key(&address, |&(address, _)| address).ok();
            Some(Symbol { address, name, file: file.and_then(|found| self.name(0, self.files[found].1)) })
        })
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
        let all: Vec<Symbol<'_>> = names.named_like("t").collect();
        assert_eq!(all, [Symbol { address: 0x200, name: "table", file: None }]);
        assert_eq!((names.named("table"), names.named("tabl"), names.named("")), (Some(0x200), None, None));
    }

    #[test]
    fn an_object_that_only_its_file_knows_has_the_name_of_that_file() {
        let mut names = SymbolNames::default();
        let of = |symbol: Vec<u8>, binding: u8| {
            let mut symbol = symbol;
            symbol[4] |= binding << 4;
            symbol
        };
        let table = [
            symbol(1, STT_OBJECT, 0x50, 8),
            symbol(5, STT_FILE, 0, 0),
            symbol(1, STT_OBJECT, 0x100, 8),
            symbol(10, STT_FILE, 0, 0),
            symbol(1, STT_OBJECT, 0x200, 8),
            // Behind the last file.
            symbol(0, STT_FILE, 0, 0),
            symbol(1, STT_OBJECT, 0x300, 8),
            of(symbol(1, STT_OBJECT, 0x400, 8), 1),
        ];
        names.add(&table.concat(), 0);
        names.strings[0] = b"\0tab\0a.cc\0b.cc\0".to_vec();
        let files: Vec<_> = names.named_like("tab").map(|symbol| (symbol.address, symbol.file)).collect();
        assert_eq!(files, [(0x50, None), (0x100, Some("a.cc")), (0x200, Some("b.cc")), (0x300, None), (0x400, None)]);
    }
}

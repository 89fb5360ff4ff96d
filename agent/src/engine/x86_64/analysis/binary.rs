//! One executable or shared library: what of it concerns the analysis of its functions.
//!
//! Addresses are the file's own (Svma). It is read once per build and serves all processes that run it, from any
//! thread. The file is outside data: a damaged one gives an error or fewer functions, never a panic. What takes a look at
//! all of the file (its functions, and the ways into them) can be kept on disk ([`super::known`]).
//!
//! - Functions: the symbol tables, then the unwinder's entries for code without symbols.
//! - Ways in: words of data sections that point into code, as the loader will have relocated them; landing pads; and
//!   branches between functions. For the last, all code but Go's is decoded when the first function outside of Go is
//!   asked for. Go's compiler, linker and assembler know no such branch but those into `runtime.duffzero` and
//!   `runtime.duffcopy`, which are never traced.

use super::facts::{Data, Entry, EntryKind, FunctionFacts, Language, holds};
use super::function::{AnalysisError, FunctionAnalysis};
use super::known::{Known, Made};
use super::landing;
use crate::target::Content;
use object::elf::{
    R_X86_64_IRELATIVE, R_X86_64_RELATIVE, SHF_ALLOC, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOBITS, SHT_RELA, SHT_SYMTAB,
    STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use object::read::ReadCache;
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{LittleEndian, Object, ObjectSection};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Most bytes of code and data of one file: ten times the largest executables met, debug information aside.
const LOADED_BYTES_MAX: u64 = 4 << 30;
/// Most functions of one file: four times what the largest executables have.
const FUNCTIONS_MAX: usize = 8 << 20;
/// Most padding behind a function that is looked at, in bytes: a patch needs four.
const PADDING_BYTES_MAX: u64 = 16;
/// Bytes behind a function and its padding that are read with it: a patch may cover as many.
const BEHIND_BYTES: u64 = 64;
/// Go's function table: no word of it points into a function, and nothing else that is analysed is in it.
const GO_TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// A file that cannot be analysed, or an address of it.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It cannot be opened.
    #[error("cannot read {path}: {source}; the agent needs read access to the executables of the processes it traces")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a 64-bit little endian ELF file, or is cut short.
    #[error("{path} is not a usable ELF file ({why}); rebuild or redeploy it")]
    BadElf {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Its code and data are larger than can be held.
    #[error(
        "{path} has {bytes} bytes of code and data, and files of up to {LOADED_BYTES_MAX} are analysed; trace a smaller build"
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// No function is known at an address.
    #[error("no function is known at {address:#x}; deploy a build that keeps its symbol table or its unwind tables")]
    NoFunction {
        /// The address.
        address: u64,
    },
    /// The function's bytes cannot be a function.
    #[error(transparent)]
    Function(#[from] AnalysisError),
}

/// One function of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// Its addresses, without padding.
    pub range: Range<u64>,
    /// As the symbol table calls it; empty for code that only the unwinder knows.
    pub name: String,
}

/// A file's code, and what is known about the ways into it.
#[derive(Debug)]
pub struct BinaryCode {
    /// Sections with code, by address.
    code: Data,
    /// Where they are in the file: address, offset, size.
    code_at: Vec<(u64, u64, u64)>,
    file: Arc<File>,
    /// Code of Go's functions by their number, with what is around their ends: read function by function, for the code
    /// of a large program is larger than all that is known about it.
    go_code: Vec<OnceLock<Box<Piece>>>,
    text: Vec<Range<u64>>,
    data: Data,
    known: Known,
    restartable: Vec<Range<u64>>,
    position_independent: bool,
    /// With the branches between functions as well; made when first needed.
    native_entries: OnceLock<Vec<Entry>>,
}

/// Functions whose code is remembered together: a large program has hundreds of thousands, of which few are traced.
const PIECE_FUNCTIONS: usize = 512;
/// Code by the function's number, less that of the first.
type Piece = [OnceLock<Box<[u8]>>; PIECE_FUNCTIONS];

impl BinaryCode {
    /// Reads a file.
    ///
    /// # Errors
    /// [`BinaryError`], when it cannot be read or is no ELF file for x86-64.
    pub fn open(path: &Path) -> Result<BinaryCode, BinaryError> {
        BinaryCode::open_with(path, |make| make().map(Content::Held))
    }

    /// The same; what takes a look at all of the file is `keep`'s answer, who may have kept what it was given the means to
    /// make for this very file before.
    pub(crate) fn open_with(
        path: &Path,
        keep: impl FnOnce(&mut dyn FnMut() -> Result<Vec<u8>, BinaryError>) -> Result<Content, BinaryError>,
    ) -> Result<BinaryCode, BinaryError> {
        let file = File::open(path).map_err(|source| BinaryError::Open { path: path.to_owned(), source })?;
        let file = Arc::new(file);
        let cache = ReadCache::new(&*file);
        Reader::of(&cache, &file, path)?.read(keep)
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = Function> + '_ {
        self.known.functions()
    }

    /// The code from an address on, as far as it concerns the function that holds it; empty where no code is.
    pub fn bytes_at(&self, address: u64) -> &[u8] {
        let number = self.known.number_at(address).filter(|_| self.is_go(address));
        let of_go = number.and_then(|number| Some((self.known.function(number)?, self.go_code(number)?)));
        let Some((function, code)) = of_go else { return self.code.at(address) };
        let code = code.get_or_init(|| self.read_function(&function).unwrap_or_default());
        code.get((address - function.range.start) as usize..).unwrap_or_default()
    }

    fn go_code(&self, number: usize) -> Option<&OnceLock<Box<[u8]>>> {
        let piece = self.go_code.get(number / PIECE_FUNCTIONS)?;
        let piece = piece.get_or_init(|| Box::new([const { OnceLock::new() }; PIECE_FUNCTIONS]));
        piece.get(number % PIECE_FUNCTIONS)
    }

    fn is_go(&self, address: u64) -> bool {
        self.known.go.as_ref().is_some_and(|go| go.contains(&address))
    }

    /// Reads a function with its padding, and what a patch at its end may cover.
    fn read_function(&self, function: &Function) -> Option<Box<[u8]>> {
        let start = function.range.start;
        let after = self.code_at.partition_point(|(address, ..)| *address <= start);
        let (address, offset, bytes) = *self.code_at[..after].last()?;
        let into = start - address;
        let bytes = (self.padding_end(function).saturating_add(BEHIND_BYTES) - start).min(bytes.checked_sub(into)?);
        let mut code = vec![0; usize::try_from(bytes).ok()?];
        self.file.read_exact_at(&mut code, offset.checked_add(into)?).ok()?;
        Some(code.into_boxed_slice())
    }

    /// The function that holds an address.
    pub fn function_at(&self, address: u64) -> Option<Function> {
        self.known.function(self.known.number_at(address)?)
    }

    /// Analyses the function that holds an address.
    ///
    /// # Errors
    /// [`BinaryError::NoFunction`], or [`BinaryError::Function`] when its bytes cannot be one.
    pub fn analyse_at(&self, address: u64) -> Result<FunctionAnalysis, BinaryError> {
        let function = self.function_at(address).ok_or(BinaryError::NoFunction { address })?;
        Ok(self.analyse(&function)?)
    }

    /// Analyses a function of this file.
    ///
    /// # Errors
    /// [`AnalysisError`], when its bytes cannot be one.
    pub fn analyse(&self, function: &Function) -> Result<FunctionAnalysis, AnalysisError> {
        self.analyse_with(function, self.language(function), &self.entries_of(function))
    }

    /// What a function was compiled from.
    pub fn language(&self, function: &Function) -> Language {
        if self.is_go(function.range.start) { Language::Go } else { Language::Native }
    }

    /// Ways into a function and the padding behind it, by address, other than from its own branches.
    pub fn entries_of(&self, function: &Function) -> Vec<Entry> {
        let (start, end) = (function.range.start, self.padding_end(function));
        match self.language(function) {
            Language::Go => self.known.entries(start..end),
            Language::Native => {
                let entries = self.native_entries.get_or_init(|| self.with_branches());
                let from = entries.partition_point(|entry| entry.address < start);
                let to = entries.partition_point(|entry| entry.address < end);
                entries.get(from..to).unwrap_or_default().to_vec()
            }
        }
    }

    /// First address behind a function that is no padding of it, or of which nothing is known.
    fn padding_end(&self, function: &Function) -> u64 {
        let end = function.range.end;
        self.known.first_start(end).unwrap_or(u64::MAX).min(end.saturating_add(PADDING_BYTES_MAX))
    }

    fn analyse_with(
        &self,
        function: &Function,
        language: Language,
        entries: &[Entry],
    ) -> Result<FunctionAnalysis, AnalysisError> {
        let (start, end) = (function.range.start, function.range.end);
        let with_padding = self.padding_end(function);
        let code = self.bytes_at(start);
        let bytes = usize::try_from(with_padding - start).unwrap_or(usize::MAX).min(code.len());
        let facts = FunctionFacts {
            name: &function.name,
            language,
            end,
            entries,
            entries_complete: self.known.entries_complete,
            data: &self.data,
            text: &self.text,
            position_independent: self.position_independent,
            deferreturn: self.known.deferreturn,
            restartable: &self.restartable,
        };
        FunctionAnalysis::of(&code[..bytes], start, &facts)
    }

    /// The entries with those that branches of other functions make, outside of Go.
    fn with_branches(&self) -> Vec<Entry> {
        let mut entries = self.known.entries(0..u64::MAX);
        let functions: Vec<Function> = self.functions().collect();
        let mut add = |function: &Function, is_guess: bool| {
            if self.language(function) == Language::Go {
                return;
            }
            let own = self.known.entries(function.range.start..self.padding_end(function));
            let Ok(analysis) = self.analyse_with(function, Language::Native, &own) else { return };
            let inner = analysis.outgoing().iter().filter(|entry| self.is_inner(entry.address));
            entries.extend(inner.map(|entry| Entry {
                address: entry.address,
                kind: if is_guess { EntryKind::Guess } else { entry.kind },
            }));
        };
        functions.iter().for_each(|function| add(function, false));
        // Code that no symbol is for branches as well; but what is between functions need not be code.
        for range in &self.text {
            let mut from = range.start;
            let first = functions.partition_point(|function| function.range.end <= range.start);
            for function in functions[first..].iter().take_while(|function| function.range.start < range.end) {
                if from < function.range.start {
                    add(&Function { range: from..function.range.start, name: String::new() }, true);
                }
                from = function.range.end;
            }
            if from < range.end {
                add(&Function { range: from..range.end, name: String::new() }, true);
            }
        }
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    /// Whether an address is within a function, not its beginning.
    fn is_inner(&self, address: u64) -> bool {
        self.function_at(address).is_some_and(|function| function.range.start != address)
    }
}

/// A file that is being read.
struct Reader<'a> {
    path: &'a Path,
    file: &'a Arc<File>,
    elf: ElfFile64<'a, LittleEndian, &'a ReadCache<&'a File>>,
    left: u64,
}

impl<'a> Reader<'a> {
    fn of(cache: &'a ReadCache<&'a File>, file: &'a Arc<File>, path: &'a Path) -> Result<Reader<'a>, BinaryError> {
        let elf = ElfFile64::<LittleEndian, _>::parse(cache)
            .map_err(|error| BinaryError::BadElf { path: path.to_owned(), why: error.to_string() })?;
        if elf.elf_header().e_machine(LittleEndian) != object::elf::EM_X86_64 {
            return Err(BinaryError::BadElf { path: path.to_owned(), why: "it is not for x86-64".to_owned() });
        }
        Ok(Reader { path, file, elf, left: LOADED_BYTES_MAX })
    }

    fn bad(&self, why: impl ToString) -> BinaryError {
        BinaryError::BadElf { path: self.path.to_owned(), why: why.to_string() }
    }

    fn section(&self, name: &str) -> Option<Range<u64>> {
        self.elf.section_by_name(name).map(|section| section.address()..section.address() + section.size())
    }

    fn read(
        mut self,
        keep: impl FnOnce(&mut dyn FnMut() -> Result<Vec<u8>, BinaryError>) -> Result<Content, BinaryError>,
    ) -> Result<BinaryCode, BinaryError> {
        let (code_at, data) = self.sections()?;
        let text: Vec<Range<u64>> =
            code_at.iter().map(|(address, _, bytes)| *address..address.saturating_add(*bytes)).collect();
        let data = self.data(data)?;
        let known = match Known::of(keep(&mut || Ok(self.known(&text, &data)?.encoded()))?) {
            Some(known) => known,
            // What was kept is of no use.
            None => Known::of(Content::Held(self.known(&text, &data)?.encoded()))
                .ok_or_else(|| self.bad("its functions cannot be told"))?,
        };
        let pieces = if known.go.is_some() { known.functions().len().div_ceil(PIECE_FUNCTIONS) } else { 0 };
        Ok(BinaryCode {
            code: Data::in_file(self.file, code_at.clone()),
            code_at,
            file: Arc::clone(self.file),
            go_code: std::iter::repeat_with(OnceLock::new).take(pieces).collect(),
            text,
            restartable: self.section("__rseq_cs").map(|range| sequences(&data, range)).unwrap_or_default(),
            data,
            known,
            position_independent: self.elf.elf_header().e_type(LittleEndian) == object::elf::ET_DYN,
            native_entries: OnceLock::new(),
        })
    }

    /// Looks at all symbols, unwinding tables and words of data.
    fn known(&self, text: &[Range<u64>], data: &Data) -> Result<Made, BinaryError> {
        let text_at = self.section(".text").map_or(0, |range| range.start);
        let unwinding = match self.section(".eh_frame") {
            Some(frames) => {
                let content = data.at(frames.start);
                let bytes = content.len().min((frames.end - frames.start) as usize);
                landing::read(&content[..bytes], frames.start, text_at, data)
            }
            None => landing::Unwinding::default(),
        };
        let symbols = self.symbols(text)?;
        let of_name = |name: &str| symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.start);
        let go = match (of_name("runtime.text"), of_name("runtime.etext")) {
            // The mark of the end stands on a byte of its own.
            (Some(start), Some(end)) if start < end => Some(start..end.saturating_add(1)),
            // A symbol table without Go's marks is none of Go's linker.
            _ => None,
        };
        let deferreturn = of_name("runtime.deferreturn");
        let (functions, mut entries) = functions(symbols, &unwinding.ranges, text);
        entries.extend(unwinding.pads.iter().map(|pad| Entry { address: *pad, kind: EntryKind::LandingPad }));
        pointers(data, text, &functions, &mut entries);
        entries.sort_unstable();
        entries.dedup();
        Ok(Made { functions, entries, entries_complete: !unwinding.is_incomplete, go, deferreturn })
    }

    /// Where what is loaded is in the file, as address, offset and size: code, then the rest.
    #[expect(clippy::type_complexity, reason = "two lists of the same kind")]
    fn sections(&mut self) -> Result<(Vec<(u64, u64, u64)>, Vec<(u64, u64, u64)>), BinaryError> {
        let (mut code, mut data) = (Vec::new(), Vec::new());
        let file_bytes = self.file.metadata().map_err(|error| self.bad(error))?.len();
        let mut loaded = 0u64;
        for section in self.elf.sections() {
            let header = section.elf_section_header();
            let flags = header.sh_flags(LittleEndian);
            if !flags.contains(SHF_ALLOC) || header.sh_type(LittleEndian) == SHT_NOBITS {
                continue;
            }
            if section.name().is_ok_and(|name| GO_TABLES.contains(&name)) {
                continue;
            }
            let (offset, bytes) = (header.sh_offset(LittleEndian), section.size());
            loaded = loaded.saturating_add(bytes);
            if loaded > self.left {
                return Err(BinaryError::TooLarge { path: self.path.to_owned(), bytes: loaded });
            }
            if offset.checked_add(bytes).is_none_or(|end| end > file_bytes) {
                return Err(self.bad("a section goes beyond the end of the file"));
            }
            if section.address().checked_add(bytes).is_none() {
                return Err(self.bad("a section reaches beyond the address space"));
            }
            let into = if flags.contains(SHF_EXECINSTR) { &mut code } else { &mut data };
            into.push((section.address(), offset, bytes));
        }
        code.sort_unstable();
        data.sort_unstable();
        Ok((code, data))
    }

    /// The data as the loader will have it: held in memory where it relocates some, else left in the file.
    fn data(&self, sections: Vec<(u64, u64, u64)>) -> Result<Data, BinaryError> {
        let relocated = self.elf.sections().any(|section| {
            let header = section.elf_section_header();
            header.sh_type(LittleEndian) == SHT_RELA
                && header.sh_flags(LittleEndian).contains(SHF_ALLOC)
                && section.size() > 0
        });
        if !relocated {
            return Ok(Data::in_file(self.file, sections));
        }
        let mut held = Vec::new();
        for (address, offset, bytes) in sections {
            let mut content = vec![0; usize::try_from(bytes).map_err(|error| self.bad(error))?];
            self.file.read_exact_at(&mut content, offset).map_err(|error| self.bad(error))?;
            held.push((address, content));
        }
        self.relocate(&mut held)?;
        Ok(Data::new(held))
    }

    /// Writes into the data what the loader will: addresses within the file (psABI, 4.4, `R_X86_64_RELATIVE`). Those in
    /// `.relr.dyn` stand in the data already.
    fn relocate(&self, data: &mut [(u64, Vec<u8>)]) -> Result<(), BinaryError> {
        for section in self.elf.sections() {
            let header = section.elf_section_header();
            if header.sh_type(LittleEndian) != SHT_RELA || !header.sh_flags(LittleEndian).contains(SHF_ALLOC) {
                continue;
            }
            let content = section.data().map_err(|error| self.bad(error))?;
            for entry in content.chunks_exact(24) {
                let kind = word(entry, 8) as u32;
                if kind != R_X86_64_RELATIVE.0 && kind != R_X86_64_IRELATIVE.0 {
                    continue;
                }
                let (at, addend) = (word(entry, 0), word(entry, 16));
                let after = data.partition_point(|(address, _)| *address <= at);
                let Some((address, content)) = after.checked_sub(1).and_then(|last| data.get_mut(last)) else {
                    continue;
                };
                let into = usize::try_from(at - *address).unwrap_or(usize::MAX);
                if let Some(place) = content.get_mut(into..into.saturating_add(8)) {
                    place.copy_from_slice(&addend.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    /// Functions of the symbol tables.
    fn symbols(&self, text: &[Range<u64>]) -> Result<Vec<Symbol>, BinaryError> {
        let mut found = Vec::new();
        for section in self.elf.sections() {
            let header = section.elf_section_header();
            if !matches!(header.sh_type(LittleEndian), SHT_SYMTAB | SHT_DYNSYM) {
                continue;
            }
            let symbols = section.data().map_err(|error| self.bad(error))?;
            let strings = self
                .elf
                .section_by_index(object::SectionIndex(header.sh_link(LittleEndian) as usize))
                .and_then(|strings| strings.data())
                .map_err(|error| self.bad(error))?;
            // Elf64_Sym: st_name u32, st_info u8, st_other u8, st_shndx u16, st_value u64, st_size u64.
            for symbol in symbols.chunks_exact(24) {
                let (kind, start, bytes) = (symbol[4] & 0xf, word(symbol, 8), word(symbol, 16));
                // Assembly without `.type` has names without kinds; sizes of 0 last to the next function.
                let is_function = kind == STT_FUNC.0 || kind == STT_GNU_IFUNC.0;
                let is_code = is_function || (kind == STT_NOTYPE.0 && start != 0);
                let is_defined = symbol[6..8] != [0, 0];
                // Go marks where its code ends by a symbol there.
                let is_end = text.iter().any(|range| range.end == start);
                if !is_code || !is_defined || !(holds(text, start) || is_end) {
                    continue;
                }
                if found.len() == FUNCTIONS_MAX {
                    return Err(self.bad("too many symbols"));
                }
                let name = strings.get(word(symbol, 0) as u32 as usize..).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                found.push(Symbol { start, bytes, is_function, name: String::from_utf8_lossy(name).into_owned() });
            }
        }
        Ok(found)
    }
}

struct Symbol {
    start: u64,
    bytes: u64,
    is_function: bool,
    name: String,
}

/// Functions that do not overlap, and the ways in that symbols within functions are.
fn functions(mut symbols: Vec<Symbol>, unwound: &[Range<u64>], text: &[Range<u64>]) -> (Vec<Function>, Vec<Entry>) {
    // Of several at one address the longest function counts; and it has a name, if one of them does.
    symbols.extend(unwound.iter().map(|range| Symbol {
        start: range.start,
        bytes: range.end - range.start,
        is_function: true,
        name: String::new(),
    }));
    symbols.retain(|symbol| holds(text, symbol.start));
    symbols.sort_by(|a, b| {
        let key = |symbol: &Symbol| {
            (symbol.start, !symbol.is_function, std::cmp::Reverse(symbol.bytes), symbol.name.is_empty())
        };
        key(a).cmp(&key(b))
    });
    let mut found: Vec<Function> = Vec::new();
    let mut inner = Vec::new();
    for symbol in symbols {
        let section_end = text[text.partition_point(|range| range.start <= symbol.start) - 1].end;
        let end = symbol.start.saturating_add(symbol.bytes).min(section_end);
        let Some(last) = found.last_mut() else {
            found.push(Function { range: symbol.start..end, name: symbol.name });
            continue;
        };
        if last.range.start == symbol.start {
            last.range.end = last.range.end.max(end);
            if last.name.is_empty() {
                last.name = symbol.name;
            }
        } else if symbol.start < last.range.end && (end <= last.range.end || !symbol.is_function) {
            inner.push(Entry { address: symbol.start, kind: EntryKind::Branch });
        } else {
            // Whoever runs from the one into the other does so over its end.
            last.range.end = last.range.end.min(symbol.start);
            found.push(Function { range: symbol.start..end, name: symbol.name });
        }
    }
    // A symbol without a size lasts to the next.
    for number in 0..found.len() {
        if found[number].range.is_empty() {
            let start = found[number].range.start;
            let section_end = text[text.partition_point(|range| range.start <= start) - 1].end;
            let next = found.get(number + 1).map_or(u64::MAX, |next| next.range.start);
            found[number].range.end = next.min(section_end);
        }
    }
    (found, inner)
}

/// Words of the data that point into functions, not to their beginnings.
fn pointers(data: &Data, text: &[Range<u64>], functions: &[Function], entries: &mut Vec<Entry>) {
    let (Some(first), Some(last)) = (text.first(), text.last()) else { return };
    let all = first.start..last.end;
    let starts = Starts::of(functions, &all);
    data.scan(|address, content| {
        let skip = (address.wrapping_neg() % 8) as usize;
        for bytes in content.get(skip..).unwrap_or_default().chunks_exact(8) {
            let pointer = word(bytes, 0);
            if all.contains(&pointer) && !starts.has(functions, pointer) {
                entries.push(Entry { address: pointer, kind: EntryKind::Pointer });
            }
        }
    });
}

/// Where functions begin, by page: large programs have hundreds of thousands of pointers to functions.
struct Starts {
    first: u64,
    /// Number of the first function that begins on the page or behind it; one more than there are pages.
    pages: Vec<u32>,
}

impl Starts {
    const PAGE_BITS: u32 = 12;
    /// Pages that are indexed, at most: 4 GB of code. Beyond, all functions are searched.
    const PAGES_MAX: u64 = 1 << 20;

    fn of(functions: &[Function], all: &Range<u64>) -> Starts {
        let pages = ((all.end - all.start) >> Starts::PAGE_BITS) + 2;
        let mut index = Vec::new();
        if pages <= Starts::PAGES_MAX {
            let mut number = 0;
            for page in 0..pages {
                let begins = all.start.saturating_add(page << Starts::PAGE_BITS);
                while functions.get(number).is_some_and(|function| function.range.start < begins) {
                    number += 1;
                }
                index.push(number as u32);
            }
        }
        Starts { first: all.start, pages: index }
    }

    fn has(&self, functions: &[Function], address: u64) -> bool {
        let page = ((address - self.first) >> Starts::PAGE_BITS) as usize;
        let on_page = match (self.pages.get(page), self.pages.get(page + 1)) {
            (Some(from), Some(to)) => functions.get(*from as usize..*to as usize).unwrap_or_default(),
            _ => functions,
        };
        on_page.binary_search_by_key(&address, |function| function.range.start).is_ok()
    }
}

/// Restartable sequences: `struct rseq_cs` is version u32, flags u32, start, length and abort address u64 each.
fn sequences(data: &Data, range: Range<u64>) -> Vec<Range<u64>> {
    let content = data.at(range.start);
    let content = &content[..content.len().min((range.end - range.start) as usize)];
    let mut found: Vec<Range<u64>> = content
        .chunks_exact(32)
        .map(|entry| word(entry, 8)..word(entry, 8).saturating_add(word(entry, 16)))
        .filter(|range| !range.is_empty())
        .collect();
    found.sort_by_key(|range| range.start);
    found
}

/// Panics when out of bounds: callers pass chunks of a fixed size.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

//! The table itself: header, functions, and the tables of values by program counter.

use super::super::Svma;
use super::super::image::Image;
use super::TableError;
use super::module::{self, Module};
use riptrace_protocol::fleet::BuildFacts;

/// `runtime.pcHeader`: magic u32, two zeroes, quantum u8, pointer size u8, nine words.
pub(super) const HEADER_BYTES: usize = 72;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Most functions of a table: four times what the largest executables have.
const FUNCTIONS_MAX: u64 = 8 << 20;
/// Steps of one table of values, at most: a function of 16 MB has no more instructions.
const STEPS_MAX: usize = 16 << 20;
/// Inlined calls around one instruction, at most: compilers nest tens.
const CALLS_MAX: usize = 256;
/// Longest name of a function or file.
const NAME_BYTES_MAX: usize = 64 << 10;
/// `internal/abi/symtab.go`: PCDATA_InlTreeIndex, FUNCDATA_InlTree.
const PCDATA_INLINE_INDEX: u32 = 2;
const FUNCDATA_INLINE_TREE: u8 = 3;

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    is_1_20: bool,
    pub(super) functions: u64,
    /// 0 since Go 1.26.
    text: u64,
    names: u64,
    units: u64,
    files: u64,
    values: u64,
    table: u64,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Header, TableError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(TableError::Damaged("it is too short for its header"))?;
        let magic = u32_at(bytes, 0).unwrap_or_default();
        if magic != MAGIC_1_18 && magic != MAGIC_1_20 {
            return Err(TableError::Format(magic));
        }
        // Quantum 1 and words of eight bytes: x86-64.
        if bytes[4..8] != [0, 0, 1, 8] {
            return Err(TableError::Damaged("it is for another machine"));
        }
        let word = |number: usize| u64_at(bytes, 8 + number * 8).unwrap_or_default();
        Ok(Header {
            is_1_20: magic == MAGIC_1_20,
            functions: word(0),
            text: word(2),
            names: word(3),
            units: word(4),
            files: word(5),
            values: word(6),
            table: word(7),
        })
    }

    /// Whether its parts can be in so many bytes, in the order in which Go's linker writes them.
    pub(super) fn is_plausible(&self, bytes: u64) -> bool {
        let parts = [HEADER_BYTES as u64, self.names, self.units, self.files, self.values, self.table, bytes];
        self.functions > 0 && self.functions <= FUNCTIONS_MAX && parts.windows(2).all(|pair| pair[0] <= pair[1])
    }
}

/// Go's function table of one executable.
pub(in crate::symbols) struct FunctionTable {
    bytes: Vec<u8>,
    header: Header,
    module: Module,
    /// Inlined calls are where this says.
    functions_data: Vec<u8>,
}

/// One function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::symbols) struct Func {
    pub(in crate::symbols) entry: u64,
    pub(in crate::symbols) end: u64,
    /// Bytes of arguments and results on the stack, with the room to spill register arguments to.
    pub(in crate::symbols) args_bytes: u32,
    name: u32,
    /// Where its structure is in the table.
    at: usize,
}

/// An instruction as one function sees it: its own line, or that of the call which was inlined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::symbols) struct Call<'a> {
    pub(in crate::symbols) function: &'a str,
    pub(in crate::symbols) file: &'a str,
    pub(in crate::symbols) line: u32,
    /// Which inlined call of the function that holds the instruction; `None` for that function itself.
    pub(in crate::symbols) copy: Option<i32>,
}

impl FunctionTable {
    /// Finds and reads the table of an executable.
    pub(in crate::symbols) fn read(image: &Image, facts: &BuildFacts) -> Result<FunctionTable, TableError> {
        let (at, bytes) = module::find_table(image)?;
        let bytes = image.read(Svma(at), bytes);
        let header = Header::read(&bytes)?;
        let found = module::find_module(image, facts, at, &header);
        let module = match (found, header.text) {
            (Some(module), _) => module,
            (None, 0) => return Err(TableError::Damaged("its module data cannot be found")),
            (None, text) => Module { text, functions_data: None },
        };
        let mut table = FunctionTable::new(bytes, module)?;
        if let Some(start) = module.functions_data {
            table.functions_data = image.read(Svma(start), table.functions_data_bytes());
        }
        Ok(table)
    }

    pub(super) fn new(bytes: Vec<u8>, module: Module) -> Result<FunctionTable, TableError> {
        let header = Header::read(&bytes)?;
        if !header.is_plausible(bytes.len() as u64) {
            return Err(TableError::Damaged("its parts are not where its header says"));
        }
        let entries = (header.functions * 8 + 4).checked_add(header.table);
        if entries.is_none_or(|end| end > bytes.len() as u64) {
            return Err(TableError::Damaged("it has fewer functions than its header says"));
        }
        Ok(FunctionTable { bytes, header, module, functions_data: Vec::new() })
    }

    /// How much of the functions' data is needed: up to the last tree of inlined calls, and room for that.
    fn functions_data_bytes(&self) -> u64 {
        /// Room for one tree: compilers inline thousands of calls into one function.
        const TREE_BYTES: u64 = 1 << 20;
        let last = self.functions().filter_map(|func| self.inline_tree(&func)).max();
        last.map_or(0, |last| u64::from(last) + TREE_BYTES)
    }

    /// All functions, by address.
    pub(in crate::symbols) fn functions(&self) -> impl Iterator<Item = Func> + '_ {
        (0..self.header.functions as usize).filter_map(|number| self.function(number))
    }

    /// The function that holds an address.
    pub(in crate::symbols) fn at(&self, address: u64) -> Option<Func> {
        let offset = u32::try_from(address.checked_sub(self.module.text)?).ok()?;
        let (mut low, mut high) = (0, self.header.functions as usize);
        // The first function that begins behind the address.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_offset(middle)? <= offset { low = middle + 1 } else { high = middle }
        }
        self.function(low.checked_sub(1)?).filter(|func| (func.entry..func.end).contains(&address))
    }

    fn entry_offset(&self, number: usize) -> Option<u32> {
        u32_at(&self.bytes, self.header.table as usize + number * 8)
    }

    fn function(&self, number: usize) -> Option<Func> {
        let (start, end) = (self.entry_offset(number)?, self.entry_offset(number + 1)?);
        let into = u32_at(&self.bytes, self.header.table as usize + number * 8 + 4)? as usize;
        let at = (self.header.table as usize).checked_add(into)?;
        Some(Func {
            entry: self.module.text.checked_add(u64::from(start))?,
            end: self.module.text.checked_add(u64::from(end))?,
            name: u32_at(&self.bytes, at + 4)?,
            args_bytes: u32_at(&self.bytes, at + 8)?,
            at,
        })
    }

    /// A function's name.
    pub(in crate::symbols) fn name(&self, func: &Func) -> &str {
        self.name_at(func.name)
    }

    fn name_at(&self, offset: u32) -> &str {
        text(self.part(self.header.names, self.header.units), offset as usize)
    }

    fn part(&self, from: u64, to: u64) -> &[u8] {
        self.bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The source files.
    pub(in crate::symbols) fn files(&self) -> impl Iterator<Item = &str> {
        let files = self.part(self.header.files, self.header.values);
        files.split(|&byte| byte == 0).filter(|name| !name.is_empty()).filter_map(|name| str::from_utf8(name).ok())
    }

    /// Number `field` of the structure's words from `pcsp` on: pcsp, pcfile, pcln, npcdata, cuOffset.
    fn field(&self, func: &Func, field: usize) -> Option<u32> {
        u32_at(&self.bytes, func.at + 16 + field * 4)
    }

    /// Where the structure ends and its lists begin: 1.18 has no `startLine`.
    fn lists_at(&self, func: &Func) -> usize {
        func.at + 36 + if self.header.is_1_20 { 8 } else { 4 }
    }

    /// A table of values by program counter: each value with the first address behind the instructions it is for.
    fn values(&self, func: &Func, table: Option<u32>) -> Values<'_> {
        let values = self.part(self.header.values, self.header.table);
        // Offset 0 is no table.
        let rest = table.filter(|&table| table != 0).and_then(|table| values.get(table as usize..)).unwrap_or_default();
        Values { rest, value: -1, end: func.entry, first: true, left: STEPS_MAX }
    }

    fn value_at(&self, func: &Func, table: Option<u32>, address: u64) -> Option<i32> {
        self.values(func, table).find(|&(_, end)| address < end).map(|(value, _)| value)
    }

    fn file(&self, func: &Func, number: i32) -> &str {
        let unit = self.field(func, 4).filter(|&unit| unit != u32::MAX);
        let offset = unit.and_then(|unit| unit.checked_add(u32::try_from(number).ok()?)).and_then(|entry| {
            u32_at(self.part(self.header.units, self.header.files), (entry as usize).checked_mul(4)?)
        });
        // Code of the linker has no file.
        let offset = offset.filter(|&offset| offset != u32::MAX);
        offset.map_or("", |offset| text(self.part(self.header.files, self.header.values), offset as usize))
    }

    /// Whether a function has code of a file, its own or inlined. The line of an inlined call is also that of an
    /// instruction of the function.
    pub(in crate::symbols) fn has_code_of(&self, func: &Func, file: &str) -> bool {
        self.values(func, self.field(func, 1)).any(|(number, _)| self.file(func, number) == file)
    }

    /// Every run of instructions of a function with one file and line, by address: start, end, file, line.
    pub(in crate::symbols) fn lines<'a>(&'a self, func: &Func) -> Vec<(u64, u64, &'a str, u32)> {
        let mut files = self.values(func, self.field(func, 1));
        let mut lines = self.values(func, self.field(func, 2));
        let (mut found, mut start) = (Vec::new(), func.entry);
        let (mut file, mut line) = (files.next(), lines.next());
        while let (Some((number, files_end)), Some((value, lines_end))) = (file, line) {
            let end = files_end.min(lines_end).min(func.end);
            if end > start {
                found.push((start, end, self.file(func, number), u32::try_from(value).unwrap_or(0)));
            }
            start = end.max(start);
            if files_end <= end {
                file = files.next();
            }
            if lines_end <= end {
                line = lines.next();
            }
            if start >= func.end {
                break;
            }
        }
        found
    }

    fn pcdata(&self, func: &Func, number: u32) -> Option<u32> {
        let count = self.field(func, 3)?;
        if number >= count {
            return None;
        }
        u32_at(&self.bytes, self.lists_at(func).checked_add(number as usize * 4)?)
    }

    /// Where a function's tree of inlined calls is in the functions' data.
    fn inline_tree(&self, func: &Func) -> Option<u32> {
        let count = *self.bytes.get(self.lists_at(func) - 1)?;
        if FUNCDATA_INLINE_TREE >= count {
            return None;
        }
        let pcdata = self.field(func, 3)? as usize;
        let at = self.lists_at(func).checked_add(pcdata.checked_mul(4)?)?;
        u32_at(&self.bytes, at.checked_add(usize::from(FUNCDATA_INLINE_TREE) * 4)?).filter(|&tree| tree != u32::MAX)
    }

    /// One entry of a tree: the function's name, and an instruction of the function that has the line of the call.
    fn inlined(&self, func: &Func, index: i32) -> Option<(u32, u64)> {
        let tree = self.inline_tree(func)? as usize;
        // runtime.inlinedCall; before Go 1.20: parent i16, funcID u8, pad u8, file, line, func_, parentPc, i32 each.
        let (entry_bytes, name_at, parent_at) = if self.header.is_1_20 { (16, 4, 8) } else { (20, 12, 16) };
        let at = tree.checked_add(usize::try_from(index).ok()?.checked_mul(entry_bytes)?)?;
        let parent = u32_at(&self.functions_data, at.checked_add(parent_at)?)?;
        Some((u32_at(&self.functions_data, at + name_at)?, func.entry.checked_add(u64::from(parent))?))
    }

    /// The functions that an instruction belongs to, innermost first; the last is the one that holds it.
    pub(in crate::symbols) fn calls<'a>(&'a self, func: &Func, address: u64) -> Vec<Call<'a>> {
        let mut calls = Vec::new();
        let mut address = address;
        while calls.len() < CALLS_MAX {
            let file = self.value_at(func, self.field(func, 1), address).map_or("", |number| self.file(func, number));
            let line = self.value_at(func, self.field(func, 2), address).and_then(|line| u32::try_from(line).ok());
            let call = |function: &'a str, copy| Call { function, file, line: line.unwrap_or(0), copy };
            let index = self.value_at(func, self.pcdata(func, PCDATA_INLINE_INDEX), address).filter(|&n| n >= 0);
            let Some((name, parent)) = index.and_then(|index| self.inlined(func, index)) else {
                calls.push(call(self.name(func), None));
                break;
            };
            calls.push(call(self.name_at(name), index));
            address = parent;
        }
        calls
    }

    /// The tree index of each run of instructions that belong to an inlined call: start, end, index.
    pub(in crate::symbols) fn inlined_runs(&self, func: &Func) -> Vec<(u64, u64, i32)> {
        let mut start = func.entry;
        let mut runs = Vec::new();
        for (index, end) in self.values(func, self.pcdata(func, PCDATA_INLINE_INDEX)) {
            if index >= 0 {
                runs.push((start, end.min(func.end), index));
            }
            start = end;
        }
        runs
    }
}

/// `runtime.step`: pairs of varints, a zigzag difference of values and a difference of program counters.
struct Values<'a> {
    rest: &'a [u8],
    value: i32,
    end: u64,
    first: bool,
    left: usize,
}

impl Iterator for Values<'_> {
    type Item = (i32, u64);

    fn next(&mut self) -> Option<(i32, u64)> {
        self.left = self.left.checked_sub(1)?;
        let delta = varint(&mut self.rest)?;
        if delta == 0 && !self.first {
            self.rest = &[];
            return None;
        }
        self.first = false;
        let signed = if delta & 1 != 0 { !(delta >> 1) } else { delta >> 1 };
        self.value = self.value.wrapping_add(signed.cast_signed());
        self.end = self.end.checked_add(u64::from(varint(&mut self.rest)?))?;
        Some((self.value, self.end))
    }
}

fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Text up to its zero byte; empty where there is none.
fn text(bytes: &[u8], at: usize) -> &str {
    let rest = bytes.get(at..).unwrap_or_default();
    let rest = &rest[..rest.len().min(NAME_BYTES_MAX)];
    let name = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    str::from_utf8(name).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

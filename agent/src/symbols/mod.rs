//! Symbols: what the debug information of a build says. Where lines and functions are, which functions a program
//! counter is in, which variables are in scope there and where they live, and what their types are.
//!
//! It reads files only, never a process, and knows no tracepoint: [`crate::plan`] combines the two. DWARF 4 and 5, in
//! one file if need be, for x86-64; Go first, other native languages as far as their debug information is plain.
//!
//! Invariants
//! - An executable is outside data: a malformed one gives an error, never a panic, and no allocation beyond what the
//!   file can hold ([`image`] has the limits).
//! - The debug information is read lazily: headers and line program headers of all units once, lines and functions of
//!   a unit when a question needs them. Answers are kept for the life of the [`Build`].
//! - A location that the debug information contradicts itself about is reported as such ([`scope`]), never evaluated.

pub mod cache;
mod call_frame;
mod code_lines;
mod content;
mod debug_info;
mod demangle;
pub(crate) mod doubt;
mod error;
mod exits;
mod facts;
mod frames;
mod functions;
pub(crate) mod generics;
mod go_runtime;
pub(crate) mod goroutine;
mod image;
mod index;
mod landmarks;
mod lines;
mod names;
mod pattern;
mod pclntab;
pub(crate) mod place;
mod prologue;
mod resolve;
mod results;
pub(crate) mod scope;
pub mod sources;
mod statements;
pub(crate) mod stripped;
pub(crate) mod types;
pub(crate) mod unwind;

pub use cache::SymbolCache;
pub(crate) use debug_info::{Die, NEEDED, View};
pub use error::{ResolveError, SymbolsError};
pub(crate) use goroutine::GoroutinePlace;
#[cfg(test)]
pub(crate) use pclntab::tests::small as small_function_table;
pub(crate) use results::at_return;

use crate::engine::GoRuntime;
use crate::target::Content;
use debug_info::Sections;
use image::Image;
use index::Index;
use landmarks::Landmarks;
use names::SymbolNames;
use pclntab::FunctionTable;
use riptrace_protocol::fleet::{BuildFacts, Language};
use riptrace_protocol::hit::Frame;
use riptrace_protocol::ids::Avma;
use riptrace_protocol::layout::Moment;
use riptrace_protocol::location::Location;
use sources::{Origin, Sources};
use std::path::Path;
use std::sync::OnceLock;
use types::go_dynamic::GoTypes;
use types::native::{Classes, Vtables};
use unwind::{Row, UnwindTables};

/// An address as the executable file states it, before the loader moved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Svma(pub u64);

impl Svma {
    /// Where this address is in a process whose executable was moved by `bias`.
    pub fn in_process(self, bias: u64) -> Avma {
        Avma(self.0.wrapping_add(bias))
    }

    /// The address of the file that is at `address` in a process whose executable was moved by `bias`.
    pub fn of_process(address: Avma, bias: u64) -> Svma {
        Svma(address.0.wrapping_sub(bias))
    }
}

/// One address of a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Where to patch.
    pub address: Svma,
    /// Function that holds the address (the outermost, where the line is inlined).
    pub function: String,
    /// File as the build knows it.
    pub file: String,
    /// Line.
    pub line: u32,
    /// What a passage means.
    pub moment: Moment,
    /// At a return: whether it is a jump to another function, which returns in its place.
    is_tail_call: bool,
    /// The function that holds the address.
    body: Die,
    /// The function or the inlined copy that the line belongs to.
    scope: Die,
    is_go: bool,
}

impl Site {
    /// The function that holds the address.
    pub(crate) fn body(&self) -> Die {
        self.body
    }

    /// Whether the function is compiled from Go.
    pub(crate) fn is_go(&self) -> bool {
        self.is_go
    }

    /// Whether the site is in a copy of the function inside another one, which has neither frame nor return.
    pub(crate) fn is_inlined(&self) -> bool {
        self.scope != self.body
    }
}

/// What an executable is, from its headers, notes and build information alone: cheap, no DWARF is read.
pub fn facts(path: &Path) -> Result<BuildFacts, SymbolsError> {
    facts::read(&Image::open(path)?)
}

/// One executable file and what its debug information says. Shared by all processes that run it (`Send + Sync`).
pub struct Build {
    image: Image,
    facts: BuildFacts,
    loaded: OnceLock<Result<Loaded, ResolveError>>,
    goroutine: OnceLock<Option<GoroutinePlace>>,
    landmarks: OnceLock<Result<Landmarks, ResolveError>>,
    go_types: OnceLock<Option<GoTypes>>,
    /// With the addresses of the file.
    go_runtime: OnceLock<Option<GoRuntime>>,
    relocations: OnceLock<Vec<(u64, u64)>>,
    vtables: OnceLock<Vtables>,
    classes: OnceLock<Classes>,
    names: OnceLock<SymbolNames>,
    unwind_tables: OnceLock<Option<UnwindTables>>,
    kept: cache::Entry,
    /// Another file with the debug information of the same code, where the executable has none.
    debug: Option<(Image, Origin)>,
    /// Go's function table, where there is no debug information.
    table: OnceLock<Result<FunctionTable, ResolveError>>,
}

/// Debug information that is in memory.
struct Loaded {
    sections: Sections,
    index: Index,
}

impl std::fmt::Debug for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Build {
    /// Opens an executable (for example `/proc/PID/exe`). The debug information is read when it is first needed, and
    /// kept in memory.
    pub fn open(path: &Path) -> Result<Build, SymbolsError> {
        Build::open_with(path, &SymbolCache::none(), &Sources::default())
    }

    /// The same; what takes work to read is kept on disk as well, and taken from there, and an executable without debug
    /// information gets that of another file of the same code. May take as long as the network does.
    pub fn open_with(path: &Path, cache: &SymbolCache, sources: &Sources) -> Result<Build, SymbolsError> {
        let image = Image::open(path)?;
        let facts = facts::read(&image)?;
        let debug = match facts.dwarf {
            true => None,
            false => sources::find(path, &image, image.gnu_build_id().as_deref(), cache, sources),
        };
        let kept = cache.entry(&debug.as_ref().map_or(&image, |(debug, _)| debug).key(&facts.id.0));
        Ok(Build {
            image,
            facts,
            loaded: OnceLock::new(),
            goroutine: OnceLock::new(),
            landmarks: OnceLock::new(),
            go_types: OnceLock::new(),
            go_runtime: OnceLock::new(),
            relocations: OnceLock::new(),
            vtables: OnceLock::new(),
            classes: OnceLock::new(),
            names: OnceLock::new(),
            unwind_tables: OnceLock::new(),
            kept,
            debug,
            table: OnceLock::new(),
        })
    }

    /// What it is.
    pub fn facts(&self) -> &BuildFacts {
        &self.facts
    }

    /// By how much a process moved the executable, told by any one mapping of the executable file in that process:
    /// its first address and its offset in the file. `None` when no segment of the file fits the mapping. Zero for an
    /// executable that is not position-independent.
    pub fn bias(&self, mapped_at: Avma, file_offset: u64) -> Option<u64> {
        self.image.bias(mapped_at, file_offset)
    }

    /// Every address of a location, as a debugger would pick them.
    pub fn resolve(&self, location: &Location) -> Result<Vec<Site>, ResolveError> {
        match self.table() {
            Some(table) => stripped::resolve(table?, &self.image, location),
            None => resolve::resolve(&self.view()?, &self.image, location),
        }
    }

    /// The frames at a program counter, inlined ones included, innermost first. Empty when nothing is known there.
    /// `is_return_address`: the pc is where a call returns to, so the call is the instruction before it.
    pub fn frames(&self, pc: Svma, is_return_address: bool) -> Vec<Frame> {
        let address = pc.0.wrapping_sub(u64::from(is_return_address));
        let frames = match self.table() {
            Some(table) => table.map(|table| stripped::frames(table, address)),
            None => self.view().and_then(|view| frames::at(&view, &self.image, address)),
        };
        let frames = frames.unwrap_or_else(|error| {
            tracing::debug!(%error, pc = format_args!("{:#x}", pc.0), "no frames");
            Vec::new()
        });
        match self.symbol_at(Svma(address)).filter(|_| frames.is_empty()) {
            // Nothing but its name is known: the function is of a library without debug information.
            Some((function, _)) => vec![Frame { function, file: String::new(), line: 0, inlined: false }],
            None => frames,
        }
    }

    /// The symbol table; that of the file with the debug information where the executable was stripped of its own.
    fn symbol_names(&self) -> &SymbolNames {
        self.names.get_or_init(|| {
            let is_stripped = !self.image.has_section(".symtab");
            SymbolNames::load(if is_stripped { self.debug_image() } else { &self.image })
        })
    }

    /// The symbol that holds an address, its name as its author wrote it, and how far behind its beginning the address
    /// is; from the file's symbol tables.
    pub(crate) fn symbol_at(&self, address: Svma) -> Option<(String, u64)> {
        let names = self.symbol_names();
        names.at(address.0).map(|(name, start)| (demangle::demangled(name), address.0 - start))
    }

    /// Where the function of a symbol begins, behind the instruction that an indirect call lands on (`endbr64`, Intel SDM
    /// volume 2A), which stays where it is.
    pub(crate) fn symbol_named(&self, name: &str) -> Option<Svma> {
        const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
        let names = self.symbol_names();
        let start = names.named(name)?;
        let lands = self.image.read(Svma(start), ENDBR64.len() as u64) == ENDBR64;
        Some(Svma(start + if lands { ENDBR64.len() as u64 } else { 0 }))
    }

    /// Where the objects are whose names begin with a text, `most` at most, in the order of their addresses.
    fn objects_named(&self, prefix: &str, most: usize) -> Vec<Svma> {
        let names = self.symbol_names();
        names.beginning_with(prefix).take(most).map(Svma).collect()
    }

    /// The word that is at an address when the program starts, as an address of the file. In a program that may be moved
    /// it is the loader that puts addresses there.
    fn initial_word(&self, at: Svma) -> Option<u64> {
        let word = u64::from_le_bytes(self.image.read(at, 8).try_into().ok()?);
        if word != 0 {
            return Some(word);
        }
        let relocations = self.relocations.get_or_init(|| self.image.relative_relocations());
        let found = relocations.binary_search_by_key(&at.0, |&(place, _)| place).ok()?;
        Some(relocations[found].1)
    }

    /// How a caller is found at an address; `None` where the file does not tell.
    pub(crate) fn unwind_row(&self, pc: Svma) -> Option<Row> {
        let tables = self.unwind_tables.get_or_init(|| {
            UnwindTables::load(&self.image).inspect_err(|error| tracing::debug!(%error, "no unwind tables")).ok()
        });
        tables.as_ref()?.row(pc.0)
    }

    /// Where the goroutine id of a thread is; `None` outside Go or where the build does not tell.
    pub(crate) fn goroutine(&self, view: &View<'_>) -> Option<GoroutinePlace> {
        if self.facts.language != Language::Go {
            return None;
        }
        *self.goroutine.get_or_init(|| {
            let found = self.landmarks(view);
            found.and_then(|found| goroutine::find(view, found, self.debug_image(), &self.facts)).unwrap_or_else(
                |error| {
                    tracing::debug!(%error, "no goroutine ids");
                    None
                },
            )
        })
    }

    /// The types that the runtime of a Go program describes; `None` where the build does not tell.
    pub(crate) fn go_types(&self, view: &View<'_>) -> Option<&GoTypes> {
        if self.facts.language != Language::Go {
            return None;
        }
        let types = self.go_types.get_or_init(|| {
            let found = self.landmarks(view);
            found.and_then(|found| GoTypes::of(view, found, &self.image)).unwrap_or_else(|error| {
                tracing::debug!(%error, "no dynamic types");
                None
            })
        });
        types.as_ref()
    }

    /// The tables of methods of trait objects; none where they cannot be read.
    pub(crate) fn vtables(&self, view: &View<'_>) -> &Vtables {
        self.vtables.get_or_init(|| {
            Vtables::read(view).unwrap_or_else(|error| {
                tracing::debug!(%error, "no types of trait objects");
                Vtables::default()
            })
        })
    }

    /// The classes of C++ with virtual functions; none where they cannot be read.
    pub(crate) fn classes(&self, view: &View<'_>) -> &Classes {
        self.classes.get_or_init(|| {
            Classes::read(view, self.symbol_names()).unwrap_or_else(|error| {
                tracing::debug!(%error, "no dynamic types of objects");
                Classes::default()
            })
        })
    }

    /// Whether neither the executable nor another file has debug information of it. One may be pushed later.
    pub fn lacks_debug_info(&self) -> bool {
        !self.facts.dwarf && self.debug.is_none()
    }

    /// What a person should know of where the symbols are from; `None` when they are the executable's own.
    pub fn symbols_note(&self) -> Option<String> {
        match &self.debug {
            Some((_, origin)) => Some(origin.to_string()),
            None if self.lacks_debug_info() => Some(
                "no variables: the build was stripped; `riptrace symbols push` a build of the same code that was not"
                    .to_owned(),
            ),
            None => None,
        }
    }

    /// The file whose code and symbol table should be analysed, when it is not the executable itself.
    pub(crate) fn code_file(&self) -> Option<&Path> {
        let (debug, _) = self.debug.as_ref()?;
        let is_better =
            !self.image.has_section(".symtab") && debug.has_section(".symtab") && debug.has_section(".text");
        is_better.then(|| debug.path())
    }

    /// What the analysis of the code file has kept of it, else what it makes now, which is kept.
    pub(crate) fn kept_code<E>(&self, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Content, E> {
        /// Name of the piece in the cache; the number grows when its content means something else.
        const PIECE: &str = "code-1";
        // What is kept is kept of the file with the debug information: the code may be in another one.
        let is_of_it = self.debug.is_none() || self.code_file().is_some();
        match if is_of_it { self.kept.get(PIECE, None) } else { None } {
            Some(map) => Ok(Content::Mapped(map)),
            None => {
                let made = make()?;
                let kept = if is_of_it { self.kept.put(PIECE, &made) } else { None };
                Ok(kept.map_or(Content::Held(made), Content::Mapped))
            }
        }
    }

    /// Where the code is in a process whose executable was moved by `bias`.
    pub(crate) fn code_range(&self, bias: u64) -> std::ops::Range<u64> {
        let range = self.image.section_range(".text").unwrap_or_default();
        range.start.wrapping_add(bias)..range.end.wrapping_add(bias)
    }

    fn debug_image(&self) -> &Image {
        self.debug.as_ref().map_or(&self.image, |(debug, _)| debug)
    }

    /// Go's function table, when it is all that there is.
    fn table(&self) -> Option<Result<&FunctionTable, ResolveError>> {
        if !self.lacks_debug_info() || self.facts.language != Language::Go {
            return None;
        }
        let table = self.table.get_or_init(|| {
            FunctionTable::read(&self.image, &self.facts).map_err(|error| ResolveError::NoTable(error.to_string()))
        });
        Some(table.as_ref().map_err(Clone::clone))
    }

    /// The debug information, for the length of one question.
    pub(crate) fn view(&self) -> Result<View<'_>, ResolveError> {
        let loaded = self.loaded.get_or_init(|| {
            if self.lacks_debug_info() {
                return Err(ResolveError::NoDwarf);
            }
            let sections = Sections::load(&self.image, self.debug_image(), &self.kept)
                .map_err(|error| ResolveError::BadDwarf(error.to_string()))?;
            self.kept.used();
            let index = Index::of(&sections, &self.kept)?;
            Ok(Loaded { sections, index })
        });
        match loaded {
            Ok(loaded) => Ok(View::new(&loaded.sections, &loaded.index)),
            Err(error) => Err(error.clone()),
        }
    }
}

/// One build serves all processes that run it, from any thread.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Build>();
};

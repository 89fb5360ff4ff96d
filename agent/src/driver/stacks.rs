//! The files that a process has mapped as code, and what its stacks and program counters are by them: its executable and
//! its shared libraries, each opened once per host.
//!
//! Mappings are read when a process is loaded, and again when a program counter is in none of them: libraries
//! come at run time. Everything here reads files and may block.

use super::builds::{FileKey, Loaded};
use crate::capture::interpreter::Captured;
use crate::symbols::unwind::{Row, unwind};
use crate::symbols::{Build, Svma};
use crate::target::{self, Mapping};
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::hit::Frame;
use riptrace_protocol::ids::{Avma, BuildId, ProcessKey};
use riptrace_protocol::limits::STACK_FRAMES_MAX;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are remembered for one process, at most: the calls on its stacks; a hundred bytes each.
const ROWS_MAX: usize = 16_384;
/// Libraries of one process that are opened, at most: large programs have some hundred.
const LIBRARIES_MAX: usize = 4096;

/// The mapped code of all traced processes.
#[derive(Default)]
pub(super) struct Stacks {
    processes: Mutex<BTreeMap<ProcessKey, Arc<Mutex<Modules>>>>,
    /// With `None` for those that are no libraries that can be read.
    libraries: Mutex<BTreeMap<FileKey, Option<Arc<Build>>>>,
}

/// A mapping of code and the file that it is of.
struct Module {
    lo: u64,
    hi: u64,
    /// Address in the process less address in the file.
    bias: u64,
    build: Arc<Build>,
    id: BuildId,
    /// Path of a shared library; `None` for the executable.
    library: Option<String>,
}

/// The code of one process.
#[derive(Default)]
struct Modules {
    modules: Vec<Module>,
    is_read: bool,
    rows: HashMap<u64, Option<Arc<Row>>>,
}

impl Stacks {
    /// Forgets processes that are not traced any more, and the libraries that only they had.
    pub(super) fn retain(&self, keep: impl Fn(&ProcessKey) -> bool) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = processes.len();
        processes.retain(|process, _| keep(process));
        if processes.len() < before {
            let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
            libraries.retain(|_, build| build.as_ref().is_some_and(|build| Arc::strong_count(build) > 1));
        }
    }

    fn modules(&self, process: ProcessKey) -> Arc<Mutex<Modules>> {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(processes.entry(process).or_default())
    }

    /// Puts the callers into a hit that brought a copy of its stack along.
    pub(super) fn unwind(&self, process: ProcessKey, loaded: &Loaded, captured: &mut Captured) {
        let (Some(memory), Some(&site)) = (captured.stack_memory.take(), captured.stack.first()) else { return };
        let modules = self.modules(process);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |pc: Avma| self.row(&mut modules, process, loaded, pc);
        (captured.stack, captured.stack_end) = unwind(&memory, site, STACK_FRAMES_MAX, row);
    }

    /// Where the function of a symbol begins in a process, and the file that has it: the executable's own first, as for
    /// the loader.
    pub(super) fn function(&self, process: ProcessKey, loaded: &Loaded, name: &str) -> Option<(Avma, String)> {
        let modules = self.modules(process);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        // A library may have come since.
        self.read(&mut modules, process, loaded);
        let (own, libraries): (Vec<&Module>, Vec<&Module>) =
            modules.modules.iter().partition(|module| module.library.is_none());
        own.into_iter().chain(libraries).find_map(|module| {
            let at = module.build.symbol_named(name)?.in_process(module.bias);
            // Objects have names as well: only code can be traced.
            let file = module.library.clone().unwrap_or_default();
            (module.lo..module.hi).contains(&at.0).then_some((at, file))
        })
    }

    fn row(&self, modules: &mut Modules, process: ProcessKey, loaded: &Loaded, pc: Avma) -> Option<Arc<Row>> {
        if let Some(known) = modules.rows.get(&pc.0) {
            return known.clone();
        }
        let module = self.module(modules, process, loaded, pc);
        let row = module.and_then(|module| module.build.unwind_row(Svma::of_process(pc, module.bias))).map(Arc::new);
        if modules.rows.len() >= ROWS_MAX {
            modules.rows.clear();
        }
        modules.rows.insert(pc.0, row.clone());
        row
    }

    /// The frames of program counters that lie inside their instructions.
    pub(super) fn frames(&self, process: ProcessKey, loaded: &Loaded, pcs: &[Avma]) -> Vec<FrameEntry> {
        let modules = self.modules(process);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::with_capacity(pcs.len());
        for &pc in pcs {
            let (build, frames) = match self.module(&mut modules, process, loaded, pc) {
                Some(module) => (module.id.clone(), module.frames(pc)),
                None => (loaded.id.clone(), loaded.build.frames(Svma::of_process(pc, loaded.bias), false)),
            };
            entries.push(FrameEntry { build, process, pc, frames });
        }
        entries
    }

    /// The module that holds a program counter.
    fn module<'m>(
        &self,
        modules: &'m mut Modules,
        process: ProcessKey,
        loaded: &Loaded,
        pc: Avma,
    ) -> Option<&'m Module> {
        let found =
            |modules: &Modules| modules.modules.iter().position(|module| (module.lo..module.hi).contains(&pc.0));
        if found(modules).is_none() && (!modules.is_read || !modules.rows.contains_key(&pc.0)) {
            self.read(modules, process, loaded);
        }
        found(modules).map(|number| &modules.modules[number])
    }

    /// Reads the mappings of a process. Of one that is gone, what was known stays.
    fn read(&self, modules: &mut Modules, process: ProcessKey, loaded: &Loaded) {
        let Ok(mappings) = target::mappings(process.pid) else { return };
        // The pid may belong to another process by now.
        if target::start_time(process.pid).ok() == Some(process.start_time) {
            self.learn(modules, process, loaded, &mappings);
        }
    }

    /// Opens the files of a process's mappings before its first hit comes: it may have ended when that is looked at.
    pub(super) fn prepare(&self, process: ProcessKey, loaded: &Loaded, mappings: &[Mapping]) {
        let modules = self.modules(process);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        self.learn(&mut modules, process, loaded, mappings);
    }

    fn learn(&self, modules: &mut Modules, process: ProcessKey, loaded: &Loaded, mappings: &[Mapping]) {
        modules.is_read = true;
        let exe = std::fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
        let code = mappings.iter().filter(|mapping| mapping.exec && mapping.inode != 0);
        let found: Vec<Module> = code
            .take(LIBRARIES_MAX)
            .filter_map(|mapping| {
                let at = (Avma(mapping.lo), mapping.file_offset);
                let is_exe = Path::new(&mapping.path) == exe && loaded.build.bias(at.0, at.1) == Some(loaded.bias);
                let build = if is_exe { Arc::clone(&loaded.build) } else { self.library(process.pid, mapping)? };
                Some(Module {
                    lo: mapping.lo,
                    hi: mapping.hi,
                    bias: build.bias(at.0, at.1)?,
                    id: if is_exe { loaded.id.clone() } else { build.facts().id.clone() },
                    build,
                    library: (!is_exe).then(|| mapping.path.clone()),
                })
            })
            .collect();
        if found.len() != modules.modules.len() {
            modules.rows.clear();
        }
        modules.modules = found;
    }

    /// The file of a mapping; opened once.
    fn library(&self, pid: u32, mapping: &Mapping) -> Option<Arc<Build>> {
        use std::os::unix::fs::MetadataExt;
        let path = PathBuf::from(format!("/proc/{pid}/root{}", mapping.path));
        // Replaced since, or deleted: its tables are another's.
        let metadata = std::fs::metadata(&path).ok().filter(|metadata| metadata.ino() == mapping.inode)?;
        let key = FileKey::of(&metadata);
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = libraries.entry(key).or_insert_with(|| {
            Build::open(&path)
                .inspect_err(|error| tracing::debug!(%error, path = %path.display(), "no symbols of a library"))
                .ok()
                .map(Arc::new)
        });
        opened.clone()
    }
}

impl Module {
    fn frames(&self, pc: Avma) -> Vec<Frame> {
        let at = Svma::of_process(pc, self.bias);
        let mut frames = self.build.frames(at, false);
        let Some(path) = &self.library else { return frames };
        if frames.is_empty() {
            let file = path.rsplit('/').next().unwrap_or(path);
            let function = format!("{file}+{:#x}", at.0);
            frames.push(Frame { function, file: String::new(), line: 0, inlined: false });
        }
        for frame in frames.iter_mut().filter(|frame| frame.file.is_empty()) {
            frame.file.clone_from(path);
        }
        frames
    }
}

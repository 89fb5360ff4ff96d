//! The executables of this host: facts cached by file, debug information opened once per build, and what each traced
//! process runs.
//!
//! Everything here reads files and may block; it is called from blocking threads only.

use super::stacks::Stacks;
use crate::engine::analysis::{BinaryCode, Language as CodeLanguage, denied_function, denied_image};
use crate::publish::frames::FrameResolver;
use crate::publish::sink::CapturedHit;
use crate::symbols::sources::Sources;
use crate::symbols::{self, Build, ResolveError, SymbolCache};
use crate::target::{self, Mapping, TargetError};
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::fleet::{BuildFacts, Language};
use riptrace_protocol::ids::{Avma, BuildId, ProcessKey};
use riptrace_protocol::location::{FunctionPoint, Location};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a process runs is remembered for this many polls after it was last traced: its last hits are still to be
/// published, and whoever sets a breakpoint again need not wait for its debug information again. Then the memory for it
/// is given back, though the process lives.
const UNTRACED_POLLS: u32 = 300;

/// Files whose facts are remembered, at most, besides those that run now: a build machine starts the same tools again
/// and again.
const FACTS_MAX: usize = 4096;

/// A file as it was when it was looked at: a changed one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileKey {
    dev: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
}

impl FileKey {
    pub(super) fn of(metadata: &Metadata) -> FileKey {
        FileKey {
            dev: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

/// What a process runs, and where in its memory.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) build: Arc<Build>,
    pub(super) id: BuildId,
    /// Address in the process less address in the file.
    pub(super) bias: u64,
    /// Whether its C library is the GNU one.
    pub(super) is_gnu: bool,
    /// Where the first thread's stack ends.
    pub(super) first_stack_end: Option<u64>,
    code: Reading,
}

/// Read once; whoever comes second waits for the first.
type Reading = Arc<OnceLock<Result<BinaryCode, String>>>;

impl Loaded {
    /// The code of what process `pid` runs, to be analysed; read when it is first asked for.
    pub(super) fn code(&self, pid: u32) -> Result<&BinaryCode, String> {
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let exe = self.build.code_file().map_or(exe, Path::to_owned);
        let code = self.code.get_or_init(|| {
            let opened = BinaryCode::open_with(&exe, |make| self.build.kept_code(make));
            opened.map_err(|error| error.to_string())
        });
        code.as_ref().map_err(Clone::clone)
    }

    /// Begins to read, beside whatever is asked of the build now, what arming a probe in it will need.
    pub(super) fn read_ahead(&self, pid: u32) {
        if self.code.get().is_none() {
            let loaded = self.clone();
            // Whoever needs it waits for it, or reads it where no thread could be made.
            let started = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || {
                let _ = loaded.code(pid);
                let _ = loaded.build.go_runtime(loaded.bias);
            });
            if let Err(error) = started {
                tracing::debug!(%error, "no thread to read ahead");
            }
        }
    }
}

/// Opened once; whoever comes second waits for the first.
type Opening = Arc<OnceLock<Result<Arc<Build>, String>>>;

/// The executables of this host.
pub(super) struct Builds {
    cache: SymbolCache,
    sources: Sources,
    facts: Mutex<BTreeMap<FileKey, Result<BuildFacts, String>>>,
    opened: Mutex<BTreeMap<BuildId, Opening>>,
    codes: Mutex<BTreeMap<BuildId, Reading>>,
    /// With the number of polls since the process was last traced.
    loaded: Mutex<BTreeMap<ProcessKey, (Loaded, u32)>>,
    stacks: Stacks,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Builds {
    /// None yet; what takes work to read is kept in `cache`, and what builds lack is looked for in `sources`.
    pub(super) fn new(cache: SymbolCache, sources: Sources) -> Builds {
        Builds {
            cache,
            sources,
            facts: Mutex::default(),
            opened: Mutex::default(),
            codes: Mutex::default(),
            loaded: Mutex::default(),
            stacks: Stacks::default(),
        }
    }

    /// What an executable is; read once per file.
    pub(super) fn facts(&self, exe: &Path) -> (Option<FileKey>, Result<BuildFacts, String>) {
        let key = match std::fs::metadata(exe) {
            Ok(metadata) => FileKey::of(&metadata),
            Err(error) => return (None, Err(format!("cannot read {}: {error}", exe.display()))),
        };
        if let Some(known) = lock(&self.facts).get(&key) {
            return (Some(key), known.clone());
        }
        let facts = symbols::facts(exe).map_err(|error| error.to_string());
        lock(&self.facts).insert(key, facts.clone());
        (Some(key), facts)
    }

    /// Opens the debug information of what a process runs now.
    pub(super) fn load(&self, process: ProcessKey) -> Result<Loaded, String> {
        let exe = PathBuf::from(format!("/proc/{}/exe", process.pid));
        let facts = self.facts(&exe).1?;
        let build = self.open(&facts.id, &exe)?;
        let mappings = target::mappings(process.pid).map_err(|error| error.to_string())?;
        let bias = bias(&build, &exe, &mappings)
            .ok_or_else(|| format!("process {} does not have its executable in memory: is it ending?", process.pid))?;
        // The pid may belong to another process by now.
        let start_time = target::start_time(process.pid).map_err(|error| error.to_string())?;
        if start_time != process.start_time {
            return Err(TargetError::Gone { pid: process.pid }.to_string());
        }
        let code = {
            let mut codes = lock(&self.codes);
            let code = codes.entry(facts.id.clone()).or_default();
            if matches!(code.get(), Some(Err(_))) {
                // The next one tries again.
                *code = Reading::default();
            }
            Arc::clone(code)
        };
        let loaded = Loaded {
            build,
            id: facts.id,
            bias,
            is_gnu: is_gnu(&mappings),
            first_stack_end: mappings.iter().find(|mapping| mapping.path == "[stack]").map(|mapping| mapping.hi),
            code,
        };
        self.stacks.prepare(process, &loaded, &mappings);
        lock(&self.loaded).insert(process, (loaded.clone(), 0));
        Ok(loaded)
    }

    fn open(&self, id: &BuildId, exe: &Path) -> Result<Arc<Build>, String> {
        let opening = Arc::clone(lock(&self.opened).entry(id.clone()).or_default());
        let result = opening.get_or_init(|| {
            let opened = Build::open_with(exe, &self.cache, &self.sources);
            opened.map(Arc::new).map_err(|error| error.to_string())
        });
        if result.is_err() {
            // The next one tries again.
            lock(&self.opened).remove(id);
        }
        // Somebody may have pushed its symbols by now.
        if let Ok(build) = result
            && build.lacks_debug_info()
            && let Ok(better) = Build::open_with(exe, &self.cache, &self.sources)
            && !better.lacks_debug_info()
        {
            let better = Arc::new(better);
            lock(&self.opened).insert(id.clone(), Arc::new(OnceLock::from(Ok(Arc::clone(&better)))));
            lock(&self.codes).remove(id);
            return Ok(better);
        }
        result.clone()
    }

    /// Forgets what nobody needs any more. `traced` are the processes that have an engine, `files` the executables seen
    /// by this poll.
    pub(super) fn forget_unused(&self, traced: &BTreeSet<ProcessKey>, files: &BTreeSet<FileKey>) {
        let mut facts = lock(&self.facts);
        if facts.len() > FACTS_MAX {
            facts.retain(|file, _| files.contains(file));
        }
        drop(facts);
        let mut loaded = lock(&self.loaded);
        loaded.retain(|process, (_, missed)| {
            *missed = if traced.contains(process) { 0 } else { *missed + 1 };
            *missed <= UNTRACED_POLLS
        });
        self.stacks.retain(|process| loaded.contains_key(process));
        let used: BTreeSet<BuildId> = loaded.values().map(|(loaded, _)| loaded.id.clone()).collect();
        lock(&self.codes).retain(|id, _| used.contains(id));
        // An opening that is under way is shared with whoever opens.
        lock(&self.opened).retain(|id, opening| used.contains(id) || Arc::strong_count(opening) > 1);
    }
}

impl Builds {
    /// Where the function of a symbol begins in a process, and the shared library that has it (empty for the
    /// executable). `None` in Go, where debug information or the function table knows all functions.
    ///
    /// # Errors
    /// Why the function must not be traced.
    pub(super) fn symbol(
        &self,
        process: ProcessKey,
        loaded: &Loaded,
        location: &Location,
    ) -> Result<Option<(Avma, String, String)>, String> {
        let Location::Function { name, at: FunctionPoint::Entry } = location else { return Ok(None) };
        if loaded.build.facts().language == Language::Go {
            return Ok(None);
        }
        let Some((address, file)) = self.stacks.function(process, loaded, name) else { return Ok(None) };
        let denied = denied_function(name, CodeLanguage::Native).or_else(|| denied_image(&file));
        match denied {
            Some(why) => Err(ResolveError::Denied { function: name.clone(), why }.to_string()),
            None => Ok(Some((address, name.clone(), file))),
        }
    }
}

/// Whether the GNU C library is mapped: by its name, as it is installed everywhere.
fn is_gnu(mappings: &[Mapping]) -> bool {
    let name = |mapping: &Mapping| mapping.path.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let is_it = |name: String| name == "libc.so.6" || (name.starts_with("libc-2.") && name.ends_with(".so"));
    mappings.iter().map(name).any(is_it)
}

/// By how much the executable was moved: its mappings are those of the same file, or, where a file system numbers the
/// files of its layers differently, of the same path.
fn bias(build: &Build, exe: &Path, mappings: &[Mapping]) -> Option<u64> {
    let inode = std::fs::metadata(exe).ok().map(|metadata| metadata.ino());
    let path = std::fs::read_link(exe).ok().map(|path| path.to_string_lossy().into_owned());
    let of_exe = |mapping: &&Mapping| {
        (mapping.inode != 0 && Some(mapping.inode) == inode) || Some(&mapping.path) == path.as_ref()
    };
    mappings.iter().filter(of_exe).find_map(|mapping| build.bias(Avma(mapping.lo), mapping.file_offset))
}

impl FrameResolver for Builds {
    fn resolve(&self, process: ProcessKey, pcs: &[Avma]) -> Vec<FrameEntry> {
        let Some((loaded, _)) = lock(&self.loaded).get(&process).cloned() else { return Vec::new() };
        self.stacks.frames(process, &loaded, pcs)
    }

    fn unwind(&self, hits: &mut [CapturedHit]) {
        for hit in hits.iter_mut().filter(|hit| hit.captured.stack_memory.is_some()) {
            let Some((loaded, _)) = lock(&self.loaded).get(&hit.process).cloned() else { continue };
            self.stacks.unwind(hit.process, &loaded, &mut hit.captured);
        }
    }
}

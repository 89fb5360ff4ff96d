//! A local line in every build, and a build's line in the local checkout.

use super::functions::{self, GoName};
use super::git::{GitError, Repository};
use super::map::LineMap;
use super::paths::{self, Home, Root};
use riptrace_protocol::fleet::BuildFacts;
use riptrace_protocol::ids::BuildId;
use riptrace_protocol::source::{SourceFacts, go_function_line};
use riptrace_protocol::tracepoint::SOURCES_MAX;
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Deployed files that are remembered, at most: the files with breakpoints times the commits that run.
const DEPLOYED_MAX: usize = 512;
/// Folders whose repository and module are remembered, at most.
const FOLDERS_MAX: usize = 1024;
/// Characters of a commit that a person is shown.
const SHORT_COMMIT: usize = 12;

/// Where a local line is in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path that the build knows the file by, or the end of it: what a tracepoint asks for.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// What is not certain about it.
    pub note: Option<Note>,
}

/// Where a build's line is in the local checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The local file.
    pub path: PathBuf,
    /// Line, from 1; `None` when the local text does not have it any more.
    pub line: Option<u32>,
    /// What is not certain about it.
    pub note: Option<Note>,
}

/// Why the text of a build is not known exactly, so that the line may be another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The binary does not say what it was built from.
    NoRevision,
    /// The checkout had changes that were never committed when it was built.
    Modified {
        /// The commit it was at.
        commit: String,
    },
    /// The local clone does not have the commit.
    UnknownCommit {
        /// The commit.
        commit: String,
    },
    /// The local file is in no repository.
    NoRepository,
    /// Git could not be asked.
    Git {
        /// What it said.
        why: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::NoRevision => f.write_str("the binary names no commit, so its text is not known exactly"),
            Note::Modified { commit } => {
                write!(
                    f,
                    "it was built from {} with uncommitted changes, so its text is not known exactly",
                    short(commit)
                )
            }
            Note::UnknownCommit { commit } => {
                write!(
                    f,
                    "commit {} is not in the local clone (git fetch may bring it), so its text is not known",
                    short(commit)
                )
            }
            Note::NoRepository => {
                f.write_str("the local file is in no git repository, so the build's text is not known")
            }
            Note::Git { why } => write!(f, "the build's text is not known: {why}"),
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..SHORT_COMMIT).unwrap_or(commit)
}

/// Why a local line is not in a build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// The line was added or changed since.
    #[error("line {line} does not exist in build {build} (commit {commit}): it was added or changed locally{}", instead(.nearest))]
    Changed {
        /// The local line.
        line: u32,
        /// The build.
        build: BuildId,
        /// Its commit, shortened.
        commit: String,
        /// The nearest local line that the build has.
        nearest: Option<u32>,
    },
    /// The file was added since.
    #[error("{file} does not exist in build {build} (commit {commit}): it was added locally")]
    FileAdded {
        /// The file, from the root of its repository.
        file: String,
        /// The build.
        build: BuildId,
        /// Its commit, shortened.
        commit: String,
    },
    /// The local file ends before the line.
    #[error("line {line} is beyond the end of the local file, which has {lines} lines")]
    BeyondEnd {
        /// The local line.
        line: u32,
        /// Lines of the local file.
        lines: u32,
    },
    /// The local file cannot be read.
    #[error("the local file {path} cannot be read: {why}")]
    Unreadable {
        /// The local file.
        path: String,
        /// What the system said.
        why: String,
    },
}

fn instead(nearest: &Option<u32>) -> String {
    nearest.map_or_else(String::new, |line| format!("; the nearest line that it has is {line}"))
}

/// A local line over all builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to ask for: one entry per place, each with the builds that have the line there.
    pub targets: Vec<Target>,
    /// Builds that do not have the line, and why.
    pub refused: Vec<Refused>,
}

/// One place of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Path or end of a path, for [`riptrace_protocol::location::Location::Line`].
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// The builds that have the line here.
    pub builds: Vec<BuildId>,
    /// What is not certain, each with the build it is about.
    pub notes: Vec<(BuildId, Note)>,
    /// What the builds' texts say of the variables there, each that says something else, once it was asked for
    /// ([`LineMapper::add_sources`]); none for a language other than Go.
    pub sources: Vec<SourceFacts>,
}

/// Lines of a local file in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InBuild {
    /// Which build.
    pub build: BuildId,
    /// Path or end of a path, as the build knows the file.
    pub file: String,
    /// Local line and the build's, both from 1, in order.
    pub lines: Vec<(u32, u32)>,
}

/// A build that does not have the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The build.
    pub build: BuildId,
    /// Why.
    pub why: NotThere,
}

/// Maps lines between the local checkout and builds. Cheap to ask again: repositories and deployed texts are
/// remembered; local texts are not, they change.
#[derive(Debug)]
pub struct LineMapper {
    cwd: PathBuf,
    rules: Vec<(String, String)>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    folders: HashMap<PathBuf, Folder>,
    /// By repository, and revision as the build names it.
    commits: HashMap<(PathBuf, String), String>,
    /// By repository, commit and path of the local file.
    deployed: HashMap<(PathBuf, String, String), Deployed>,
}

/// What a folder belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    repository: Option<Repository>,
    /// Folder of the nearest `go.mod`.
    module: Option<PathBuf>,
    /// The path that it declares.
    module_path: Option<String>,
}

/// A file at a commit.
#[derive(Debug, Clone)]
struct Deployed {
    /// Its name then, from the root of the repository.
    path: String,
    text: Arc<str>,
}

/// What is known of a file in a build.
enum Text {
    Known { deployed: Deployed, commit: String, note: Option<Note> },
    Added { commit: String },
    Unknown(Note),
}

impl LineMapper {
    /// `cwd` is the folder of the checkout; `rules` are pairs of a path of the build and a path here
    /// (`substitutePath`).
    pub fn new(cwd: PathBuf, rules: Vec<(String, String)>) -> LineMapper {
        LineMapper { cwd, rules, memory: Mutex::default() }
    }

    /// Where line `line` of the local file `path` is in each of `builds`. `text` is what the editor shows; without it
    /// the file is read. Builds that have the line at the same place share an entry. What their sources say of the
    /// variables there is not in it: [`LineMapper::add_sources`].
    pub async fn plan(
        &self,
        path: &Path,
        line: u32,
        text: Option<&str>,
        builds: &[BuildFacts],
    ) -> Result<Plan, NotThere> {
        let path = self.absolute(path);
        let text = local_text(&path, text).await?;
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        if line == 0 || line > lines {
            return Err(NotThere::BeyondEnd { line, lines });
        }
        let mut plan = Plan::default();
        for build in builds {
            match self.place(&path, line, &text, build).await {
                Ok(place) => {
                    let known = plan.targets.iter_mut().find(|t| t.file == place.file && t.line == place.line);
                    let target = match known {
                        Some(target) => target,
                        None => {
                            let Place { file, line, .. } = place;
                            plan.targets.push(Target {
                                file,
                                line,
                                builds: Vec::new(),
                                notes: Vec::new(),
                                sources: Vec::new(),
                            });
                            // It was pushed just now.
                            let last = plan.targets.len() - 1;
                            &mut plan.targets[last]
                        }
                    };
                    target.builds.push(build.id.clone());
                    target.notes.extend(place.note.map(|note| (build.id.clone(), note)));
                }
                Err(why) => plan.refused.push(Refused { build: build.id.clone(), why }),
            }
        }
        Ok(plan)
    }

    /// Adds to a plan what the builds' texts say of the variables at its places, and where a text is not known what the
    /// local one says: the agent holds it against the build. For whoever makes tracepoints of the plan; builds of one text
    /// are read once.
    pub async fn add_sources(&self, path: &Path, text: Option<&str>, builds: &[BuildFacts], plan: &mut Plan) {
        let path = self.absolute(path);
        if path.extension().is_none_or(|extension| extension != "go") {
            return;
        }
        // It was read for the plan; were it gone since, its builds would say nothing.
        let Ok(local) = local_text(&path, text).await else { return };
        let local: Arc<str> = local.into();
        for target in &mut plan.targets {
            let mut read: Vec<Arc<str>> = Vec::new();
            for build in builds.iter().filter(|build| target.builds.contains(&build.id)) {
                let text = self.deployed_text(&path, build).await.unwrap_or_else(|| local.clone());
                if read.contains(&text) || target.sources.len() >= SOURCES_MAX {
                    continue;
                }
                let facts = SourceFacts::of_go(&text, target.line);
                read.push(text);
                if !facts.is_empty() && !target.sources.contains(&facts) {
                    target.sources.push(facts);
                }
            }
        }
    }

    /// What the texts of the builds say of the variables of a Go function, by its name; where a text is not known, what the
    /// local one says. Nothing for patterns, and for functions that the checkout does not have.
    pub async fn function_sources(&self, name: &str, builds: &[BuildFacts]) -> Vec<SourceFacts> {
        let Some(name) = GoName::parse(name) else { return Vec::new() };
        let (root, wanted) = (self.absolute(Path::new(".")), name.clone());
        let searching = tokio::task::spawn_blocking(move || functions::declaring(&root, &wanted));
        let mut sources = Vec::new();
        for (path, local) in searching.await.unwrap_or_default() {
            let mut texts: Vec<Arc<str>> = Vec::new();
            for build in builds {
                texts.extend(self.deployed_text(&path, build).await.filter(|text| !texts.contains(text)));
            }
            let local: Arc<str> = local.into();
            if !texts.contains(&local) {
                texts.push(local);
            }
            for text in texts {
                let facts = SourceFacts::of_go_function(&text, name.receiver.as_deref(), &name.function);
                if !facts.is_empty() && !sources.contains(&facts) {
                    sources.push(facts);
                }
            }
        }
        sources.truncate(SOURCES_MAX);
        sources
    }

    /// Where the checkout declares a Go function, by its name: file and line, from 1. `None` where it does not, and where
    /// several functions have the name.
    pub async fn function_place(&self, name: &str) -> Option<(PathBuf, u32)> {
        let (root, name) = (self.absolute(Path::new(".")), GoName::parse(name)?);
        let searching = tokio::task::spawn_blocking(move || {
            let files = functions::declaring(&root, &name).into_iter();
            let mut places = files.filter_map(|(path, text)| {
                Some((path, go_function_line(&text, name.receiver.as_deref(), &name.function)?))
            });
            places.next().filter(|_| places.next().is_none())
        });
        searching.await.ok().flatten()
    }

    /// Where the lines of a local file between two are in each of `builds`; those that a build does not have are left
    /// out. `text` is what the editor shows; without it the file is read.
    pub async fn lines_in_builds(
        &self,
        path: &Path,
        range: RangeInclusive<u32>,
        text: Option<&str>,
        builds: &[BuildFacts],
    ) -> Result<Vec<InBuild>, NotThere> {
        let path = self.absolute(path);
        let text = local_text(&path, text).await?;
        let count = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        let range = (*range.start()).max(1)..=(*range.end()).min(count);
        let folder = self.folder(&path).await;
        let mut found = Vec::new();
        for build in builds {
            let (file, lines) = match self.deployed(&path, folder.as_ref(), build).await {
                Text::Known { deployed, .. } => {
                    let map = LineMap::new(&text, &deployed.text);
                    let there = |line| Some((line, map.to_deployed(line)?));
                    (self.file_in_build(&path, &folder, Some(&deployed)), range.clone().filter_map(there).collect())
                }
                Text::Unknown(_) => {
                    (self.file_in_build(&path, &folder, None), range.clone().map(|line| (line, line)).collect())
                }
                Text::Added { .. } => continue,
            };
            found.push(InBuild { build: build.id.clone(), file, lines });
        }
        Ok(found)
    }

    /// How a build knows a local file.
    fn file_in_build(&self, path: &Path, folder: &Result<Folder, GitError>, deployed: Option<&Deployed>) -> String {
        // A file that was renamed since is known to the build by its old name.
        let repository = folder.as_ref().ok().and_then(|folder| folder.repository.as_ref());
        let then = match (repository, deployed) {
            (Some(repository), Some(deployed)) => repository.root().join(&deployed.path),
            _ => path.to_owned(),
        };
        match folder {
            Ok(folder) => self.suffix(&then, folder),
            Err(_) => paths::slashes(&then),
        }
    }

    /// Where a local line is in one build.
    pub async fn to_build(
        &self,
        path: &Path,
        line: u32,
        text: Option<&str>,
        build: &BuildFacts,
    ) -> Result<Place, NotThere> {
        let path = self.absolute(path);
        let text = local_text(&path, text).await?;
        self.place(&path, line, &text, build).await
    }

    /// How a local file is asked for where nothing is known of the builds (a fleet without processes yet).
    pub async fn build_path(&self, path: &Path) -> String {
        let path = self.absolute(path);
        let folder = self.folder(&path).await.unwrap_or(Folder { repository: None, module: None, module_path: None });
        self.suffix(&path, &folder)
    }

    /// Where a build's line is in the local checkout; `None` when no local file stands for it. `text` tells what the
    /// editor shows of a local file; where it does not know, the file is read.
    pub async fn to_local(
        &self,
        file: &str,
        line: u32,
        build: &BuildFacts,
        text: impl Fn(&Path) -> Option<String>,
    ) -> Option<Local> {
        let roots = self.roots().await;
        let candidates = paths::local_candidates(file, &roots, &self.rules);
        let mut found = None;
        for candidate in candidates {
            if tokio::fs::metadata(&candidate).await.is_ok_and(|metadata| metadata.is_file()) {
                found = Some(candidate);
                break;
            }
        }
        let path = found?;
        let shown = text(&path);
        let local = local_text(&path, shown.as_deref()).await.ok()?;
        let folder = self.folder(&path).await;
        Some(match self.deployed(&path, folder.as_ref(), build).await {
            Text::Known { deployed, note, .. } => {
                let line = LineMap::new(&local, &deployed.text).to_local(line);
                Local { path, line, note }
            }
            Text::Added { .. } => Local { path, line: None, note: None },
            Text::Unknown(note) => Local { path, line: Some(line), note: Some(note) },
        })
    }

    /// The text of a local file as a build has it, where that is known.
    pub async fn deployed_text(&self, path: &Path, build: &BuildFacts) -> Option<Arc<str>> {
        let path = self.absolute(path);
        let folder = self.folder(&path).await;
        match self.deployed(&path, folder.as_ref(), build).await {
            Text::Known { deployed, .. } => Some(deployed.text),
            Text::Added { .. } | Text::Unknown(_) => None,
        }
    }

    /// The text of a file of a build, by the path that the build knows it by, where the local clone has it: the file
    /// itself may be gone from the checkout.
    pub async fn deployed_file(&self, file: &str, build: &BuildFacts) -> Option<Arc<str>> {
        let roots = self.roots().await;
        for candidate in paths::local_candidates(file, &roots, &self.rules) {
            if let Some(text) = self.deployed_text(&candidate, build).await {
                return Some(text);
            }
        }
        None
    }

    /// Whether a local file is in the folder of the checkout.
    pub fn holds(&self, path: &Path) -> bool {
        self.absolute(path).starts_with(self.absolute(Path::new(".")))
    }

    /// The path of the Go module that a local file belongs to.
    pub async fn module(&self, path: &Path) -> Option<String> {
        let path = self.absolute(path);
        self.folder(&path).await.ok()?.module_path
    }

    async fn place(&self, path: &Path, line: u32, text: &str, build: &BuildFacts) -> Result<Place, NotThere> {
        let folder = self.folder(path).await;
        match self.deployed(path, folder.as_ref(), build).await {
            Text::Known { deployed, commit, note } => {
                let map = LineMap::new(text, &deployed.text);
                let Some(there) = map.to_deployed(line) else {
                    let lines = map.local_lines();
                    if line == 0 || line > lines {
                        return Err(NotThere::BeyondEnd { line, lines });
                    }
                    let nearest = map.nearest_local(line);
                    let commit = short(&commit).to_owned();
                    return Err(NotThere::Changed { line, build: build.id.clone(), commit, nearest });
                };
                let file = self.file_in_build(path, &folder, Some(&deployed));
                Ok(Place { file, line: there, note })
            }
            Text::Added { commit } => {
                let root = folder.as_ref().ok().and_then(|folder| folder.repository.as_ref()).map(Repository::root);
                let file = paths::slashes(root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path));
                Err(NotThere::FileAdded { file, build: build.id.clone(), commit: short(&commit).to_owned() })
            }
            Text::Unknown(note) => {
                let file = self.file_in_build(path, &folder, None);
                Ok(Place { file, line, note: Some(note) })
            }
        }
    }

    fn suffix(&self, path: &Path, folder: &Folder) -> String {
        let home =
            Home { repository: folder.repository.as_ref().map(Repository::root), module: folder.module.as_deref() };
        paths::build_path(path, &home, &self.rules)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        let path = if path.is_absolute() { path.to_owned() } else { self.cwd.join(path) };
        // Git names the repository by its real path.
        path.canonicalize().unwrap_or(path)
    }

    /// Folders of the checkout that a build's path may be below of.
    async fn roots(&self) -> Vec<Root> {
        let cwd = self.absolute(Path::new("."));
        let here = self.folder(&cwd.join("_")).await;
        let mut roots: Vec<Root> = Vec::new();
        let known: Vec<Folder> = self.memory().folders.values().cloned().collect();
        for folder in here.iter().chain(&known) {
            let (module, module_path) = (folder.module.clone(), folder.module_path.clone());
            roots.extend(module.map(|folder| Root { folder, module: module_path }));
        }
        roots.push(Root { folder: cwd, module: None });
        if let Ok(Folder { repository: Some(repository), .. }) = here {
            roots.push(Root { folder: repository.root().to_owned(), module: None });
        }
        let mut seen = std::collections::HashSet::new();
        roots.retain(|root| seen.insert(root.folder.clone()));
        roots
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // Each holder does one lookup or insertion: the maps are valid after any panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn folder(&self, path: &Path) -> Result<Folder, GitError> {
        let folder = path.parent().unwrap_or(path).to_owned();
        if let Some(known) = self.memory().folders.get(&folder) {
            return Ok(known.clone());
        }
        let repository = if folder.is_dir() { Repository::find(&folder).await? } else { None };
        let (mut module, mut module_path) = (None, None);
        for above in folder.ancestors() {
            if let Ok(go_mod) = tokio::fs::read_to_string(above.join("go.mod")).await {
                module = Some(above.to_owned());
                module_path = paths::module_path(&go_mod).map(str::to_owned);
                break;
            }
        }
        let found = Folder { repository, module, module_path };
        let mut memory = self.memory();
        if memory.folders.len() >= FOLDERS_MAX {
            memory.folders.clear();
        }
        memory.folders.insert(folder, found.clone());
        Ok(found)
    }

    /// What is known of the local file `path` in a build.
    async fn deployed(&self, path: &Path, folder: Result<&Folder, &GitError>, build: &BuildFacts) -> Text {
        let git = |why: &GitError| Text::Unknown(Note::Git { why: why.to_string() });
        let folder = match folder {
            Ok(folder) => folder,
            Err(why) => return git(why),
        };
        let Some(revision) = build.vcs_revision.as_deref() else {
            return Text::Unknown(Note::NoRevision);
        };
        let Some(repository) = &folder.repository else {
            return Text::Unknown(Note::NoRepository);
        };
        let Ok(inner) = path.strip_prefix(repository.root()) else {
            return Text::Unknown(Note::NoRepository);
        };
        let commit = match self.commit(repository, revision).await {
            Ok(Some(commit)) => commit,
            Ok(None) => return Text::Unknown(Note::UnknownCommit { commit: revision.to_owned() }),
            Err(why) => return git(&why),
        };
        let note = build.vcs_modified.unwrap_or(false).then(|| Note::Modified { commit: commit.clone() });
        if let Some(note) = &note {
            // Built from what is checked out here, most likely from this very tree: the local text is the better one.
            match repository.head().await {
                Ok(Some(head)) if head == commit => return Text::Unknown(note.clone()),
                Ok(_) => {}
                Err(why) => return git(&why),
            }
        }
        match self.file_at(repository, &commit, &paths::slashes(inner)).await {
            Ok(Some(deployed)) => Text::Known { deployed, commit, note },
            Ok(None) => match note {
                Some(note) => Text::Unknown(note),
                None => Text::Added { commit },
            },
            Err(why) => git(&why),
        }
    }

    /// The full id of a commit; remembered once it is there, asked for again while it is not (`git fetch`).
    async fn commit(&self, repository: &Repository, revision: &str) -> Result<Option<String>, GitError> {
        let key = (repository.root().to_owned(), revision.to_owned());
        if let Some(known) = self.memory().commits.get(&key) {
            return Ok(Some(known.clone()));
        }
        let commit = repository.resolve(revision).await?;
        if let Some(commit) = &commit {
            let mut memory = self.memory();
            if memory.commits.len() >= DEPLOYED_MAX {
                memory.commits.clear();
            }
            memory.commits.insert(key, commit.clone());
        }
        Ok(commit)
    }

    async fn file_at(&self, repository: &Repository, commit: &str, path: &str) -> Result<Option<Deployed>, GitError> {
        let key = (repository.root().to_owned(), commit.to_owned(), path.to_owned());
        if let Some(known) = self.memory().deployed.get(&key) {
            return Ok(Some(known.clone()));
        }
        let mut found = repository.show(commit, path).await?.map(|text| (path.to_owned(), text));
        if found.is_none()
            && let Some(old) = repository.old_name(commit, path).await?
        {
            found = repository.show(commit, &old).await?.map(|text| (old, text));
        }
        let Some((old_path, text)) = found else {
            // Not remembered: the local file may be renamed back.
            return Ok(None);
        };
        let deployed = Deployed { path: old_path, text: text.into() };
        let mut memory = self.memory();
        if memory.deployed.len() >= DEPLOYED_MAX {
            memory.deployed.clear();
        }
        memory.deployed.insert(key, deployed.clone());
        Ok(Some(deployed))
    }
}

async fn local_text(path: &Path, shown: Option<&str>) -> Result<String, NotThere> {
    if let Some(text) = shown {
        return Ok(text.to_owned());
    }
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) => Err(NotThere::Unreadable { path: path.display().to_string(), why: e.to_string() }),
    }
}

#[cfg(test)]
#[path = "mapper_tests.rs"]
mod tests;

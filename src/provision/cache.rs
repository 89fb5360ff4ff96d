//! The cache directory: where it is, its locks, and folders that appear whole or not at all.
#![allow(clippy::disallowed_methods, reason = "a driver: it waits for a lock that another process holds")]

use super::{Progress, ProvisionError, pins::Pin};
use nix::fcntl::{Flock, FlockArg};
use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

/// How long one run waits for another that provisions the same tool. Longer than
/// [`super::python::DOWNLOAD_LIMIT`], which bounds the other's work.
const LOCK_WAIT_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How often a held lock is tried again: unseen by a person, and next to nothing for the machine.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The user's cache directory. Nothing is made until it is needed.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The directory that the environment asks for: `$RIPTRACE_CACHE`, else `$XDG_CACHE_HOME/riptrace`, else
    /// `~/.cache/riptrace`. A relative path is passed over, as the XDG base directory specification demands.
    ///
    /// # Errors
    /// [`ProvisionError::NoCacheDirectory`].
    pub fn from_env() -> Result<Self, ProvisionError> {
        from_variables(|name| env::var_os(name)).map(Self::at).ok_or(ProvisionError::NoCacheDirectory)
    }

    /// A cache in `root`, for tests and for callers that were told where.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself. It may not exist yet.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the go command keeps: its build cache, module cache, settings and temporary folders.
    pub(super) fn go_folder(&self) -> PathBuf {
        self.root.join("go")
    }

    pub(super) fn tool_folder(&self, pin: &Pin) -> PathBuf {
        self.root.join("tools").join(pin.folder())
    }

    /// Takes the lock of one tool, waiting for another run that has it. The kernel releases it when the holder ends,
    /// however it ends.
    pub(super) fn lock(&self, pin: &Pin, progress: &mut dyn FnMut(Progress)) -> Result<ToolLock, ProvisionError> {
        self.lock_within(pin, LOCK_WAIT_LIMIT, progress)
    }

    fn lock_within(
        &self,
        pin: &Pin,
        limit: Duration,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ToolLock, ProvisionError> {
        let tools = self.root.join("tools");
        make(&tools)?;
        let path = tools.join(format!(".{}.lock", pin.folder()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(cache_error("open", &path))?;
        let deadline = Instant::now() + limit;
        let mut told = false;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(ToolLock { _held: held }),
                Err((again, nix::errno::Errno::EWOULDBLOCK)) => file = again,
                Err((_, errno)) => return Err(cache_error("lock", &path)(errno.into())),
            }
            if !told {
                progress(Progress::Waiting { tool: pin.folder() });
                told = true;
            }
            if Instant::now() >= deadline {
                return Err(ProvisionError::LockTimeout { tool: pin.folder(), path, limit });
            }
            thread::sleep(LOCK_POLL);
        }
    }

    /// An empty folder to make the tool in, on the same file system as its final place. What dead runs left of the
    /// same tool is removed first: whoever has the lock is the only one who makes it.
    pub(super) fn staging(&self, pin: &Pin, _lock: &ToolLock) -> Result<Staging, ProvisionError> {
        let all = self.root.join("staging");
        make(&all)?;
        let prefix = format!("{}.", pin.folder());
        for entry in fs::read_dir(&all).map_err(cache_error("read", &all))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(cache_error("remove", &path))?;
            }
        }
        // A tool's folder without its program is no whole tool (somebody emptied it); it would block the rename.
        let target = self.tool_folder(pin);
        if target.exists() {
            fs::remove_dir_all(&target).map_err(cache_error("remove", &target))?;
        }
        let folder = all.join(format!("{prefix}{}", process::id()));
        make(&folder)?;
        Ok(Staging { folder, target })
    }
}

/// The lock of one tool; released when dropped.
#[derive(Debug)]
pub(super) struct ToolLock {
    _held: Flock<File>,
}

/// A folder in which a tool is being made; removed when dropped.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    target: PathBuf,
}

impl Staging {
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Moves `whole`, a folder in this one, to the tool's place by one rename.
    pub(super) fn publish(self, whole: &Path) -> Result<(), ProvisionError> {
        fs::rename(whole, &self.target).map_err(cache_error("make", &self.target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A folder that cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder and those above it.
pub(super) fn make(folder: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(folder).map_err(cache_error("make", folder))
}

pub(super) fn cache_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProvisionError {
    let path = path.to_owned();
    move |source| ProvisionError::Cache { action, path, source }
}

fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("RIPTRACE_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|cache| cache.join("riptrace")))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache").join("riptrace")))
}

#[cfg(test)]
mod tests {
    use super::{super::pins::NATS_SERVER, *};
    use std::sync::mpsc;

    fn located(variables: &[(&str, &str)]) -> Option<PathBuf> {
        from_variables(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_most_particular_variable_decides_where_the_cache_is() {
        let (ours, xdg, home) = (("RIPTRACE_CACHE", "/r"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(located(&[home, xdg, ours]), Some("/r".into()));
        assert_eq!(located(&[home, xdg]), Some("/x/riptrace".into()));
        assert_eq!(located(&[home]), Some("/h/.cache/riptrace".into()));
        assert_eq!(located(&[home, ("XDG_CACHE_HOME", "relative")]), Some("/h/.cache/riptrace".into()));
        assert_eq!(located(&[]), None);
    }

    #[test]
    fn the_second_run_waits_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let first = cache.lock(&NATS_SERVER, &mut |_| {}).unwrap();
        let (told, waiting) = mpsc::channel();
        let (taken, second_has_it) = mpsc::channel();
        let second = thread::spawn(move || {
            let lock = cache.lock(&NATS_SERVER, &mut |step| told.send(step).unwrap());
            taken.send(()).unwrap();
            lock.unwrap()
        });
        assert_eq!(
            waiting.recv_timeout(Duration::from_secs(10)),
            Ok(Progress::Waiting { tool: "nats-server-2.15.1".into() })
        );
        assert!(second_has_it.try_recv().is_err());
        drop(first);
        second_has_it.recv_timeout(Duration::from_secs(10)).expect("the lock is free");
        drop(second.join().unwrap());
    }

    #[test]
    fn a_lock_that_stays_held_ends_in_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let _held = cache.lock(&NATS_SERVER, &mut |_| {}).unwrap();
        let error = cache.lock_within(&NATS_SERVER, Duration::ZERO, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(".nats-server-2.15.1.lock"), "{error}");
    }

    #[test]
    fn leftovers_of_dead_runs_are_removed_and_those_of_other_tools_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let dead = folder.path().join("staging/nats-server-2.15.1.1");
        let other = folder.path().join("staging/go-1.27.3.1");
        fs::create_dir_all(dead.join("half")).unwrap();
        fs::create_dir_all(&other).unwrap();
        let lock = cache.lock(&NATS_SERVER, &mut |_| {}).unwrap();
        let staging = cache.staging(&NATS_SERVER, &lock).unwrap();
        assert!(!dead.exists());
        assert!(other.exists());

        let whole = staging.path().join("unpacked");
        fs::create_dir(&whole).unwrap();
        fs::write(whole.join("nats-server"), "x").unwrap();
        let own = staging.path().to_owned();
        staging.publish(&whole).unwrap();
        assert!(cache.tool_folder(&NATS_SERVER).join("nats-server").exists());
        assert!(!own.exists());
    }

    #[test]
    fn a_cache_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Cache::at(&file).lock(&NATS_SERVER, &mut |_| {}).unwrap_err();
        assert!(matches!(error, ProvisionError::Cache { action: "make", .. }), "{error}");
        assert!(error.to_string().contains("RIPTRACE_CACHE"), "{error}");
    }
}

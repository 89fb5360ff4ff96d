//! Where the symbols of a build without debug information come from: a file with the debug information of the same code.
//!
//! In this order: installed on the host (`/usr/lib/debug/.build-id`, `.gnu_debuglink`), pushed into the fleet's store
//! with `riptrace symbols push` (by the hash of the code), a debuginfod server (by the GNU build-id).
//!
//! Invariants
//! - A file counts only when it is proved to be of the same build: its GNU build-id, the checksum that the executable
//!   names, or the hash of its code; and it has debug information.
//! - What comes over a network is bounded, written under another name, checked, and then renamed.

pub mod code;
mod debuginfod;
mod local;

use super::cache::SymbolCache;
use super::error::SymbolsError;
use super::image::Image;
use code::CodeKey;
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Largest file with symbols that is fetched: eight times the largest executables met.
pub const SYMBOL_FILE_BYTES_MAX: u64 = 4 << 30;
/// Folders of the cache with fetched files, one for each.
const PUSHED: &str = "pushed";
const SERVED: &str = "debuginfod";
/// The fetched file's name.
const FILE: &str = "build";

/// Where symbols came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file of the host.
    Installed(PathBuf),
    /// The fleet's store.
    Pushed,
    /// A debuginfod server.
    Debuginfod(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Installed(path) => write!(f, "symbols from {}", path.display()),
            Origin::Pushed => write!(f, "symbols from a pushed build of the same code"),
            Origin::Debuginfod(server) => write!(f, "symbols from {server}"),
        }
    }
}

/// The fleet's store of pushed builds, as an agent asks it. Blocks.
pub trait PushedBuilds: Send + Sync {
    /// Fetches the build with this code into a new file; `false` when none was pushed.
    ///
    /// # Errors
    /// Why it could not be fetched.
    fn fetch(&self, code: &CodeKey, into: &Path) -> Result<bool, String>;
}

/// Where an agent may look.
#[derive(Default)]
pub struct Sources {
    /// The fleet's store.
    pub pushed: Option<Box<dyn PushedBuilds>>,
    /// Servers as `DEBUGINFOD_URLS` lists them.
    pub debuginfod: Vec<String>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("debuginfod", &self.debuginfod).finish_non_exhaustive()
    }
}

/// The first file that has the symbols of an executable, with where it came from.
pub(super) fn find(
    exe: &Path,
    image: &Image,
    gnu_id: Option<&[u8]>,
    cache: &SymbolCache,
    sources: &Sources,
) -> Option<(Image, Origin)> {
    if let Some((found, path)) = local::find(exe, image, gnu_id) {
        return Some((found, Origin::Installed(path)));
    }
    let told = |result: Result<Option<(Image, Origin)>, String>| {
        result.unwrap_or_else(|why| {
            tracing::warn!(exe = %exe.display(), why, "symbols could not be fetched");
            None
        })
    };
    if let Some(found) = told(pushed(image, cache, sources)) {
        return Some(found);
    }
    told(served(gnu_id?, cache, sources))
}

fn pushed(image: &Image, cache: &SymbolCache, sources: &Sources) -> Result<Option<(Image, Origin)>, String> {
    let Some(store) = &sources.pushed else { return Ok(None) };
    let key = image.code_key().map_err(|error| error.to_string())?;
    let is_it = |found: &Image| found.code_key().is_ok_and(|found| found == key);
    let fetched = fetched(cache, PUSHED, key.as_str(), is_it, |into| store.fetch(&key, into))?;
    Ok(fetched.map(|found| (found, Origin::Pushed)))
}

fn served(gnu_id: &[u8], cache: &SymbolCache, sources: &Sources) -> Result<Option<(Image, Origin)>, String> {
    let id = code::hexadecimal(gnu_id);
    for server in &sources.debuginfod {
        let is_it = |found: &Image| found.gnu_build_id().as_deref() == Some(gnu_id);
        match fetched(cache, SERVED, &id, is_it, |into| debuginfod::fetch(server, &id, into)) {
            Ok(Some(found)) => return Ok(Some((found, Origin::Debuginfod(server.clone())))),
            Ok(None) => {}
            Err(why) => tracing::warn!(server, why, "a debuginfod server could not be asked"),
        }
    }
    Ok(None)
}

/// A file from the cache, else fetched into it and checked.
fn fetched(
    cache: &SymbolCache,
    kind: &str,
    key: &str,
    is_it: impl Fn(&Image) -> bool,
    fetch: impl FnOnce(&Path) -> Result<bool, String>,
) -> Result<Option<Image>, String> {
    let Some(root) = cache.root() else {
        return Err("there is no folder to keep symbols in: start the agent with --cache DIR".to_owned());
    };
    let folder = root.join(kind).join(key);
    let path = folder.join(FILE);
    let usable = |path: &Path| Image::open(path).ok().filter(|found| has_symbols(found) && is_it(found));
    if path.is_file() {
        if let Some(found) = usable(&path) {
            return Ok(Some(found));
        }
        let _ = std::fs::remove_file(&path);
    }
    let text = |error: std::io::Error| format!("{}: {error}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(text)?;
    let half = tempfile_in(&folder).map_err(text)?;
    if !fetch(&half.0)? {
        let _ = std::fs::remove_dir(&folder);
        return Ok(None);
    }
    let Some(_) = usable(&half.0) else {
        return Err(format!("what was fetched as {kind} {key} is not a build of this code with debug information"));
    };
    std::fs::rename(&half.0, &path).map_err(text)?;
    cache.made_room_for(&folder);
    Image::open(&path).map(Some).map_err(|error: SymbolsError| error.to_string())
}

/// A file that goes when it is dropped, unless it was renamed.
struct Half(PathBuf);

impl Drop for Half {
    fn drop(&mut self) {
        // Fails when it has another name by now.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn tempfile_in(folder: &Path) -> std::io::Result<Half> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".{FILE}.{}.{number}", std::process::id()));
    std::fs::File::create(&path)?;
    Ok(Half(path))
}

fn has_symbols(image: &Image) -> bool {
    image.has_section(".debug_info") && image.has_section(".debug_line")
}

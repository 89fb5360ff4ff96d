//! Which builds go when the cache is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Builds that are looked at, at most: the cache holds some dozens, and a folder that has more was not made by RipTrace.
const BUILDS_MAX: usize = 10_000;

/// One build on disk.
struct Kept {
    folder: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// Says that a build is in use now.
pub(super) fn touch(folder: &Path) {
    // A file in the folder is made and removed: that sets the folder's time without reading a clock.
    let mark = folder.join(format!(".used.{}", std::process::id()));
    if fs::write(&mark, b"").is_ok() {
        let _ = fs::remove_file(&mark);
    }
}

/// Deletes whole builds, those used longest ago first, until the rest fits; never the one that is `in_use`.
pub(super) fn make_room(root: &Path, in_use: &Path, bytes_max: u64) {
    let mut builds = Vec::new();
    for version in folders(root) {
        for folder in folders(&version) {
            if builds.len() < BUILDS_MAX {
                builds.extend(kept(folder));
            }
        }
    }
    let mut total: u64 = builds.iter().map(|build| build.bytes).sum();
    builds.sort_by_key(|build| build.used);
    for build in builds {
        if total <= bytes_max {
            return;
        }
        if build.folder != in_use && fs::remove_dir_all(&build.folder).is_ok() {
            tracing::info!(folder = %build.folder.display(), "symbols used long ago were deleted: the cache was full");
            total = total.saturating_sub(build.bytes);
        }
    }
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(of) else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    entries.map(|entry| entry.path()).collect()
}

fn kept(folder: PathBuf) -> Option<Kept> {
    let used = fs::metadata(&folder).ok()?.modified().ok()?;
    let files = fs::read_dir(&folder).ok()?.flatten();
    let bytes = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    Some(Kept { folder, used, bytes })
}

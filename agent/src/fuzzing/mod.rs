//! What the fuzz targets of this crate (`agent/fuzz`) reach of its private parts. No part of the library's interface.

mod questions;
mod sections;

pub use crate::engine::exercise_record as record;
pub use sections::pack;

use crate::symbols::Build;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Reads `input` as an executable file, and asks of it all that is ever asked: headers, notes, build information, symbol
/// tables, function table, unwind tables, debug information, and plans of tracepoints.
pub fn executable(input: &[u8]) {
    with_file(input, questions::ask);
}

/// The same of a sound executable with the sections that `input` holds, as [`pack`] writes them: what is behind the headers
/// is reached in more of the runs.
pub fn sections(input: &[u8]) {
    with_file(&sections::executable(&sections::unpack(input)), questions::ask);
}

/// Gives a file in memory with this content the chance to be opened.
///
/// # Panics
/// When the machine has no memory for it.
fn with_file(content: &[u8], ask: impl FnOnce(&Build)) {
    let file = nix::sys::memfd::memfd_create("fuzzed", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = std::fs::File::from(file.expect("a file in memory"));
    file.write_all(content).expect("room in memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Ok(build) = Build::open(Path::new(&path)) {
        ask(&build);
    }
}

#[cfg(test)]
mod tests;

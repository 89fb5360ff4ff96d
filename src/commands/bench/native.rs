//! The native target: a C program of this folder, built once per version of its source with the C compiler that is there.

use super::target::Program;
use crate::provision::Cache;
use sha2::{Digest, Sha256};
use std::fs;
use std::process::Command;

const SOURCE: &str = include_str!("native/native.c");

/// Unpacks and builds it; or why that cannot be done, for a person.
pub(super) fn build() -> Result<Program, String> {
    let hash = Sha256::digest(SOURCE);
    let version: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let cache = Cache::from_env().map_err(|e| e.to_string())?;
    let sources = cache.root().join(format!("bench-native-{version}"));
    let path = sources.join("native.c");
    let executable = sources.join("bench-native");
    let failed = |error: std::io::Error| format!("{}: {error}", sources.display());
    fs::create_dir_all(&sources).map_err(failed)?;
    if !executable.is_file() {
        fs::write(&path, SOURCE).map_err(failed)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-g", "-pthread", "-o"]).args([&executable, &path]);
        let output = compiler.output().map_err(|error| format!("there is no C compiler: cc: {error}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(Program { executable, sources })
}

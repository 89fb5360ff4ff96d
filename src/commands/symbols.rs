//! `riptrace symbols`: the fleet's store of builds whose symbols every agent may use.

use crate::args;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output;
use riptrace_agent::symbol_store::{StoredBuild, SymbolStore};
use riptrace_agent::symbols::sources::SYMBOL_FILE_BYTES_MAX;
use riptrace_agent::symbols::sources::code::{Pushable, pushable};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes between two words of progress, and what takes none.
const PROGRESS_BYTES: u64 = 32 << 20;

pub(super) async fn run(args: args::Symbols) -> Result<(), Failure> {
    match args.what {
        args::SymbolsWhat::Push(push) => run_push(push).await,
        args::SymbolsWhat::Ls(list) => run_list(list).await,
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

async fn run_push(args: args::SymbolsPush) -> Result<(), Failure> {
    // Before anything is sent: all of them are builds, or nothing is done.
    let mut builds: Vec<(PathBuf, Pushable, u64)> = Vec::new();
    for path in &args.files {
        let of = path.clone();
        let build = tokio::task::spawn_blocking(move || pushable(&of)).await.map_err(failed)?;
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if bytes > SYMBOL_FILE_BYTES_MAX {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "{path} has {bytes} bytes; at most {SYMBOL_FILE_BYTES_MAX} can be pushed"
            )));
        }
        builds.push((path.clone(), build.map_err(Failure::Usage)?, bytes));
    }
    let store = SymbolStore::new(connect(&args.bus.target(), "riptrace symbols").await?);
    for (path, build, bytes) in builds {
        let known = store.find(&build.code).await.map_err(failed)?.is_some();
        if !known {
            push(&store, &path, &build, bytes).await?;
        }
        if args.json {
            let _ = output::json_line(&json!({
                "type": "symbols", "code": build.code.as_str(), "build": build.facts.id, "file": path,
                "bytes": bytes, "pushed": !known,
            }));
        } else {
            let done = if known { "was there already" } else { "pushed" };
            let _ = output::line(&format!("{}  {}  {done}", &build.code.as_str()[..16], path.display()));
        }
    }
    Ok(())
}

async fn push(store: &SymbolStore, path: &Path, build: &Pushable, bytes: u64) -> Result<(), Failure> {
    let mut metadata = BTreeMap::from([
        ("build".to_owned(), build.facts.id.0.clone()),
        ("file".to_owned(), path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()),
    ]);
    let more = [
        ("go", &build.facts.go_version),
        ("module", &build.facts.module),
        ("version", &build.facts.module_version),
        ("revision", &build.facts.vcs_revision),
    ];
    metadata.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    let mut told = 0;
    let progress = |done: u64| {
        if done / PROGRESS_BYTES != told {
            told = done / PROGRESS_BYTES;
            output::note(&format!("{}: {} of {} MB", path.display(), done >> 20, bytes >> 20));
        }
    };
    store.push(&build.code, metadata, path, progress).await.map_err(failed)
}

async fn run_list(args: args::SymbolsLs) -> Result<(), Failure> {
    let store = SymbolStore::new(connect(&args.bus.target(), "riptrace symbols").await?);
    let builds = store.list().await.map_err(failed)?;
    let said = |build: &StoredBuild, name: &str| build.metadata.get(name).cloned().unwrap_or_default();
    if args.json {
        for build in &builds {
            let _ = output::json_line(&json!({
                "type": "symbols", "code": build.name, "build": said(build, "build"), "file": said(build, "file"),
                "bytes": build.size, "module": build.metadata.get("module"), "revision": build.metadata.get("revision"),
            }));
        }
        return Ok(());
    }
    if builds.is_empty() {
        output::note("no build was pushed yet: riptrace symbols push FILE");
        return Ok(());
    }
    let row = |build: &StoredBuild| {
        let code = build.name.get(..16).unwrap_or(&build.name).to_owned();
        let version = [said(build, "version"), said(build, "revision")].join(" ");
        vec![code, said(build, "file"), format!("{} MB", build.size >> 20), said(build, "module"), version]
    };
    let rows: Vec<Vec<String>> = builds.iter().map(row).collect();
    for line in output::table(&["CODE", "FILE", "SIZE", "MODULE", "VERSION"], &rows) {
        let _ = output::line(&line);
    }
    Ok(())
}

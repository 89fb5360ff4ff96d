//! Discovery: one look at the processes of this host.

use super::builds::Builds;
use super::engines::Engines;
use crate::config::AgentConfig;
use crate::engine;
use crate::target::{DiscoverConfig, Discovery, ProcessSeen, TargetError};
use riptrace_protocol::fleet::{BuildFacts, Language, ProcessFacts};
use std::collections::BTreeSet;

/// The processes that can be traced, or that say why they cannot: Go programs, and others with debug information. What
/// is neither (shells, tools) is left out.
pub(super) fn look(
    discovery: &mut Discovery,
    builds: &Builds,
    engines: &Engines,
    config: &AgentConfig,
) -> Result<Vec<ProcessFacts>, TargetError> {
    let traced = engines.traced();
    let seen = discovery.look(&DiscoverConfig { only_env: config.only_env.clone() }, &traced)?;
    let mut files = BTreeSet::new();
    let mut processes = Vec::new();
    for process in seen {
        // A child in its parent's memory (vfork(2), as Go starts programs) is no process of its own yet: what was taken out
        // of it, as of a child that has inherited patches, would be taken out of its parent.
        let key = process.key;
        let others = traced.iter().map(|other| other.pid).chain([process.parent]).filter(|&other| other != key.pid);
        if others.into_iter().any(|other| engine::shares_memory(key.pid, other)) {
            continue;
        }
        let (file, build) = builds.facts(&process.exe_path);
        files.extend(file);
        match build {
            Ok(build) if build.dwarf || build.language == Language::Go => {
                processes.push(facts(process, build, config));
            }
            // A file that cannot be read is mostly a process that ended just now.
            Ok(_) | Err(_) => {}
        }
    }
    builds.forget_unused(&traced, &files);
    Ok(processes)
}

fn facts(process: ProcessSeen, build: BuildFacts, config: &AgentConfig) -> ProcessFacts {
    let mut labels = config.labels.clone();
    labels.extend(process.labels);
    ProcessFacts {
        key: process.key,
        service: process.service,
        exe: process.exe,
        build,
        container: process.container,
        labels,
        refused: process.refused,
    }
}

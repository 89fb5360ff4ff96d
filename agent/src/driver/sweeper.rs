//! Processes seen for the first time are looked into once: a child by fork(2) of a traced process has its patches, and so
//! has a process whose agent was killed.

use crate::engine;
use riptrace_protocol::ids::ProcessKey;
use std::collections::BTreeSet;

/// Which processes were looked into.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    looked: BTreeSet<ProcessKey>,
}

impl Sweeper {
    /// Looks into the processes that are new. `traced` are those that this agent has an engine in. Blocks.
    pub(super) fn look(&mut self, seen: &BTreeSet<ProcessKey>, traced: &BTreeSet<ProcessKey>) {
        self.looked.retain(|process| seen.contains(process));
        for &process in seen {
            if !self.looked.insert(process) || traced.contains(&process) {
                continue;
            }
            match engine::sweep(process) {
                Ok(0) => {}
                Ok(sites) => {
                    tracing::info!(pid = process.pid, sites, "patches that nobody needs were taken out of a process");
                }
                // Most of them have just ended.
                Err(error) => tracing::debug!(pid = process.pid, %error, "a process could not be looked into"),
            }
        }
    }
}

//! The fleet's store of pushed builds, as the builds of this host ask it.

use crate::config::AgentConfig;
use crate::symbol_store::SymbolStore;
use crate::symbols::sources::code::CodeKey;
use crate::symbols::sources::{PushedBuilds, Sources};
use async_nats::Client;
use std::path::Path;
use tokio::runtime::Handle;

/// Bytes between two words of progress in the log.
const PROGRESS_BYTES: u64 = 64 << 20;

/// Where this agent looks for what builds lack.
pub(super) fn sources(client: &Client, config: &AgentConfig) -> Sources {
    let pushed = Pushed { store: SymbolStore::new(client.clone()), runtime: Handle::current() };
    Sources { pushed: Some(Box::new(pushed)), debuginfod: config.debuginfod.clone() }
}

struct Pushed {
    store: SymbolStore,
    runtime: Handle,
}

impl PushedBuilds for Pushed {
    fn fetch(&self, code: &CodeKey, into: &Path) -> Result<bool, String> {
        let mut told = 0;
        let progress = |done: u64, bytes: u64| {
            if done / PROGRESS_BYTES != told {
                told = done / PROGRESS_BYTES;
                tracing::info!(%code, done, bytes, "fetching a pushed build");
            }
        };
        // Builds are opened on blocking threads.
        self.runtime.block_on(self.store.fetch(code, into, progress)).map_err(|error| error.to_string())
    }
}

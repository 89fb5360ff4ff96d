//! `riptrace agent`: the agent of a host.

use crate::args;
use crate::connect::connect_without_echo;
use crate::failure::Failure;
use crate::output;
use crate::provision::Cache;
use crate::shutdown;
use riptrace_agent::symbols::SymbolCache;
use riptrace_agent::{AgentConfig, Mechanisms};
use riptrace_protocol::ids::HostName;
use std::path::PathBuf;

/// Runs until Ctrl-C or SIGTERM; every probe is out when it returns.
pub(super) async fn run(args: args::Agent) -> Result<(), Failure> {
    let config = config(args.host)?;
    let shutdown = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let bus = connect_without_echo(&args.bus.target(), &format!("riptrace agent {}", config.host)).await?;
    output::note(&format!("riptrace agent {}: serving; Ctrl-C takes every probe out", config.host));
    // A task: whenever the future that the runtime blocks on is woken, its thread is, by a system call.
    let agent = tokio::spawn(async move { riptrace_agent::run(bus, config, shutdown.ended()).await });
    let ended =
        agent.await.map_err(|e| Failure::Unreachable(format!("the agent has failed; please report this: {e}")))?;
    ended.map_err(|e| Failure::Unreachable(e.to_string()))
}

/// The configuration that the flags mean.
pub(super) fn config(flags: args::HostFlags) -> Result<AgentConfig, Failure> {
    let host = match flags.host {
        Some(name) => HostName::new(name).map_err(|e| Failure::Usage(format!("--host: {e}")))?,
        None => {
            let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
            HostName::escaped(&hostname)
                .ok_or_else(|| Failure::Usage("this machine has no hostname: give --host NAME".to_owned()))?
        }
    };
    Ok(AgentConfig {
        host,
        labels: flags.labels.into_iter().collect(),
        only_env: flags.only_env,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mechanisms: match flags.mechanism {
            args::MechanismFlag::Auto => Mechanisms::Auto,
            args::MechanismFlag::Inside => Mechanisms::Inside,
            args::MechanismFlag::Ptrace => Mechanisms::Ptrace,
        },
        cpu_percent: flags.cpu_share,
        symbols: symbol_cache(flags.cache, flags.cache_size),
        debuginfod: debuginfod_servers(),
    })
}

/// Where symbols are kept: the folder that was asked for, else one of the user's cache directory, else nowhere.
fn symbol_cache(folder: Option<PathBuf>, mib: u64) -> SymbolCache {
    let folder = folder.or_else(|| Cache::from_env().ok().map(|cache| cache.root().join("symbols")));
    match folder.filter(|_| mib > 0) {
        Some(folder) => SymbolCache::at(folder, mib.saturating_mul(1 << 20)),
        None => SymbolCache::none(),
    }
}

/// What `DEBUGINFOD_URLS` lists: URLs with spaces between them, and `ima:` settings that are not for us.
fn debuginfod_servers() -> Vec<String> {
    let urls = std::env::var("DEBUGINFOD_URLS").unwrap_or_default();
    urls.split_whitespace().filter(|word| !word.starts_with("ima:")).map(str::to_owned).collect()
}

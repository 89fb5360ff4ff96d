//! What the agent is told at its start, and why it may end.

use crate::clock::ClockDomainError;
use crate::engine::Mechanisms;
use crate::symbols::SymbolCache;
use riptrace_protocol::ids::HostName;
use std::collections::BTreeMap;

/// What the agent is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Name of the host in the fleet: the first token of its subjects.
    pub host: HostName,
    /// Labels of all its processes; a process's own labels go before them.
    pub labels: BTreeMap<String, String>,
    /// Only processes whose environment has this variable with this value belong to the host: several hosts on one
    /// machine.
    pub only_env: Option<(String, String)>,
    /// Version of RipTrace, as `1.2.3`.
    pub version: String,
    /// Which mechanisms may be used in processes of this host.
    pub mechanisms: Mechanisms,
    /// How much of one CPU the tracepoints of one process may take, in percent; see [`CPU_PERCENT_DEFAULT`].
    pub cpu_percent: u32,
    /// Where symbols are kept between runs.
    pub symbols: SymbolCache,
    /// Servers that are asked for symbols by build-id, as `DEBUGINFOD_URLS` lists them.
    pub debuginfod: Vec<String>,
}

/// Share of one CPU that the tracepoints of one process may take if nothing else is said, in percent: what nobody who
/// watches a service's latency would find.
pub const CPU_PERCENT_DEFAULT: u32 = 5;

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent answers as this host.
    #[error(
        "host {host} has an agent already (riptrace {version}{}): stop that one, or start this one with --host NAME",
        pid.as_ref().map(|pid| format!(", pid {pid}")).unwrap_or_default()
    )]
    HostTaken {
        /// The host.
        host: HostName,
        /// Version of the other agent, as it says.
        version: String,
        /// Pid of the other agent, as it says; on which machine it cannot tell.
        pid: Option<String>,
    },
    /// The host's clock has no name.
    #[error(transparent)]
    Clock(#[from] ClockDomainError),
    /// No random number could be drawn.
    #[error("cannot draw a random number for this run of the agent from /dev/urandom: {0}")]
    Random(std::io::Error),
    /// NATS did not take the subscriptions.
    #[error("cannot serve {subject} on NATS: {why}; check the connection and the permissions of the agent's user")]
    Serve {
        /// The subject, or the name of the service.
        subject: String,
        /// What NATS says.
        why: String,
    },
    /// A thread could not be made.
    #[error("cannot start the thread that looks for the processes of this host: {0}")]
    Thread(std::io::Error),
    /// The connection was closed for good.
    #[error("the connection to NATS was closed: all probes are out; start the agent again")]
    Closed,
}

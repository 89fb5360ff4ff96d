//! What the editor side needs from outside: a connection to the bus, and who is looking.
//!
//! The root package implements it (it knows flags, environment variables, `riptrace.toml` and the `up` that is
//! running); tests implement it with a bus of their own. Nothing here reads a clock or draws a random number.

use futures::future::BoxFuture;
use riptrace_protocol::ids::SessionId;
use std::path::PathBuf;

/// Which bus is meant, as an editor's configuration says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusTarget {
    /// URL; `None` falls back to `$NATS_URL`, then `riptrace.toml` above `cwd`, then the `up` that is running.
    pub nats: Option<String>,
    /// Credentials file.
    pub creds: Option<PathBuf>,
    /// Where the checkout is.
    pub cwd: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where the bus is.
    #[error(
        "no NATS server is known: give --nats URL (or \"nats\" in the attach configuration), set NATS_URL, write \
         `nats = \"URL\"` to riptrace.toml, or run `riptrace up` on this machine"
    )]
    Unknown,
    /// The bus does not answer.
    #[error("no connection to {url}: {why}; check that nats-server runs there and that the URL is right")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the client said.
        why: String,
    },
    /// The bus refused the credentials.
    #[error("{url} refused the credentials: {why}; give the right file with --creds")]
    Refused {
        /// Which bus.
        url: String,
        /// What the server said.
        why: String,
    },
    /// A configuration file cannot be used.
    #[error("{0}")]
    Configuration(String),
}

/// Defaults of a checkout, from its `riptrace.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckoutDefaults {
    /// Root of the checkout: the folder that holds `riptrace.toml`, else the one asked about.
    pub root: PathBuf,
    /// Selector that tracepoints have unless they give one.
    pub selector: Option<String>,
    /// Hits per second and process; `Some(None)` lifts the budget.
    pub rate_per_s: Option<Option<u32>>,
    /// Paths of the build to paths here.
    pub substitute_path: Vec<(String, String)>,
}

/// A key of `riptrace.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsKey {
    /// As it is written.
    pub name: &'static str,
    /// The table it belongs to (`"substitute_path"`); empty at the top.
    pub table: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// A whole line (or table) that sets it, as an example.
    pub example: &'static str,
}

/// What is wrong with a `riptrace.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SettingsProblem {
    /// For a person.
    pub message: String,
    /// Bytes of the text that it is about.
    pub span: std::ops::Range<usize>,
}

/// What the editor side needs from outside.
pub trait Environment: Send + Sync + 'static {
    /// Connects to the bus.
    fn connect(&self, target: &BusTarget) -> BoxFuture<'static, Result<async_nats::Client, ConnectError>>;

    /// Defaults for a checkout; an unreadable `riptrace.toml` is an error that names the place.
    fn checkout(&self, cwd: &std::path::Path) -> Result<CheckoutDefaults, ConnectError>;

    /// Who looks, for a person (`"ana@laptop"`).
    fn viewer(&self) -> String;

    /// A session id that nobody else has.
    fn new_session_id(&self) -> SessionId;

    /// The keys that a `riptrace.toml` may have, for completion. None in a world without such files.
    fn settings_keys(&self) -> &'static [SettingsKey] {
        &[]
    }

    /// Whether a text can be a `riptrace.toml`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    fn check_settings(&self, text: &str) -> Result<(), SettingsProblem> {
        let _ = text;
        Ok(())
    }
}

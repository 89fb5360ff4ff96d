//! The connection to the bus: one way of making it, for all parts.

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use riptrace_dap_adapter::environment::{BusTarget, ConnectError};
use std::time::Duration;

use crate::settings::Settings;
use crate::up_file;

/// How long a server may take to answer the first connection: one that is away should be named soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of the pause between tries to reconnect: a restarted server is found within half a second, and a fleet does
/// not fall over it at once.
const RECONNECT_MIN_MS: u64 = 50;
const RECONNECT_MAX_MS: u64 = 500;

/// Which bus is meant: the flag, else `$NATS_URL`, else `riptrace.toml`, else the `up` that is running.
pub fn resolve(target: &BusTarget) -> Result<BusTarget, ConnectError> {
    let from_environment = || std::env::var("NATS_URL").ok().filter(|url| !url.is_empty());
    let settings = Settings::find(&target.cwd)?;
    let nats = target
        .nats
        .clone()
        .or_else(from_environment)
        .or(settings.nats)
        .or_else(up_file::read)
        .ok_or(ConnectError::Unknown)?;
    let creds = target.creds.clone().or(settings.creds);
    Ok(BusTarget { nats: Some(nats), creds, cwd: target.cwd.clone() })
}

/// Connects to the bus that is meant; `name` is what the server's operators see.
pub async fn connect(target: &BusTarget, name: &str) -> Result<Client, ConnectError> {
    connect_with(target, name, ConnectOptions::new()).await
}

/// The same, but nothing that is published by it comes back to its own subscriptions: an agent listens where it speaks,
/// to hear of others with its name.
pub async fn connect_without_echo(target: &BusTarget, name: &str) -> Result<Client, ConnectError> {
    connect_with(target, name, ConnectOptions::new().no_echo()).await
}

async fn connect_with(target: &BusTarget, name: &str, options: ConnectOptions) -> Result<Client, ConnectError> {
    let target = resolve(target)?;
    let url = target.nats.unwrap_or_default();
    let mut options = options
        .name(name)
        .connection_timeout(CONNECT_TIMEOUT)
        .reconnect_delay_callback(|attempt| {
            let doubled = RECONNECT_MIN_MS << attempt.min(10);
            Duration::from_millis(doubled.min(RECONNECT_MAX_MS))
        })
        .event_callback(|event| async move { report(&event) });
    if let Some(creds) = target.creds {
        options = options
            .credentials_file(&creds)
            .await
            .map_err(|e| ConnectError::Configuration(format!("credentials {}: {e}", creds.display())))?;
    }
    options.connect(url.as_str()).await.map_err(|e| match e.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Refused { url: without_password(&url), why: e.to_string() }
        }
        _ => ConnectError::Unreachable { url: without_password(&url), why: e.to_string() },
    })
}

fn report(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to the bus"),
        Event::Disconnected => tracing::warn!("the bus is away; reconnecting"),
        Event::SlowConsumer(_) => tracing::debug!("a subscription of this process is too slow"),
        other => tracing::warn!("bus: {other}"),
    }
}

/// A URL as it may be shown: `nats://user:secret@host` without the secret.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let shown = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_password() {
        assert_eq!(without_password("nats://ana:secret@h:4222"), "nats://ana@h:4222");
        assert_eq!(without_password("nats://h:4222"), "nats://h:4222");
        assert_eq!(without_password("h:4222"), "h:4222");
    }
}

//! The world as the editor side sees it when it runs in this binary.

use crate::connect;
use crate::settings::{self, Settings};
use futures::future::BoxFuture;
use riptrace_dap_adapter::environment::{
    BusTarget, CheckoutDefaults, ConnectError, Environment, SettingsKey, SettingsProblem,
};
use riptrace_protocol::ids::SessionId;
use std::path::Path;

/// The world of a command: what its flags say goes before what a request says nothing about.
#[derive(Debug, Clone, Default)]
pub struct CommandEnvironment {
    /// `--nats` and `--creds` of the command line.
    pub flags: BusTarget,
    /// Which part connects (`"dap"`), for the bus's operators.
    pub part: &'static str,
}

impl Environment for CommandEnvironment {
    fn connect(&self, target: &BusTarget) -> BoxFuture<'static, Result<async_nats::Client, ConnectError>> {
        let target = BusTarget {
            nats: target.nats.clone().or_else(|| self.flags.nats.clone()),
            creds: target.creds.clone().or_else(|| self.flags.creds.clone()),
            cwd: target.cwd.clone(),
        };
        let name = format!("riptrace {}", self.part);
        Box::pin(async move { connect::connect(&target, &name).await })
    }

    fn checkout(&self, cwd: &Path) -> Result<CheckoutDefaults, ConnectError> {
        Settings::find(cwd).map(|settings| settings.checkout())
    }

    fn settings_keys(&self) -> &'static [SettingsKey] {
        &settings::KEYS
    }

    fn check_settings(&self, text: &str) -> Result<(), SettingsProblem> {
        settings::check(text)
    }

    fn viewer(&self) -> String {
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "someone".to_owned());
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        format!("{user}@{} ({})", host.as_deref().unwrap_or("unknown host"), self.part)
    }

    fn new_session_id(&self) -> SessionId {
        let text = format!("{}-{:016x}", self.part, random());
        SessionId::new(text).unwrap_or_else(|_| unreachable!("part names and hexadecimal digits make a token"))
    }
}

/// A number that nobody else has drawn: 64 bits of the kernel's random source.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes));
    if read.is_err() {
        // A system without /dev/urandom still has distinct processes and times.
        #[expect(clippy::disallowed_methods, reason = "a source of distinct numbers, not a time")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return (u64::from(std::process::id()) << 40) ^ u64::from(now.subsec_nanos()) ^ now.as_secs().rotate_left(32);
    }
    u64::from_ne_bytes(bytes)
}

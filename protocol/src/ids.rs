//! Ids: newtypes for everything that is named on the wire.
//!
//! Ids that end up in a NATS subject or a key-value key ([`HostName`], [`TracepointId`], [`SessionId`]) are one
//! subject token: `[A-Za-z0-9_-]`, 1 to 64 bytes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest subject token, in bytes: long enough for an escaped host name, short enough for a subject.
pub const TOKEN_BYTES_MAX: usize = 64;

/// A text that is not one subject token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not a name of 1 to 64 letters, digits, '-' or '_'")]
pub struct BadToken {
    /// Which id was meant.
    pub what: &'static str,
    /// The text that was refused.
    pub text: String,
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOKEN_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! token_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks that `text` is one subject token.
            pub fn new(text: impl Into<String>) -> Result<Self, BadToken> {
                let text = text.into();
                if is_token(&text) { Ok(Self(text)) } else { Err(BadToken { what: $what, text }) }
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadToken;
            fn try_from(text: String) -> Result<Self, BadToken> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token_id!(
    /// A machine or container with an agent; first token of the host's subjects.
    HostName, "host name");
token_id!(
    /// What a person asked for; chosen by the session that creates it, unique in the fleet.
    TracepointId, "tracepoint id");
token_id!(
    /// One editor's, command line's or scenario's view; chosen by the viewer, unique in the fleet.
    SessionId, "session id");

impl HostName {
    /// Makes a host name of any text: characters that a subject token cannot hold become `-`, and what is
    /// longer than a token is cut. Two machines may collide: the agent refuses to start as a host that answers.
    pub fn escaped(text: &str) -> Option<HostName> {
        let escaped: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .take(TOKEN_BYTES_MAX)
            .collect();
        HostName::new(escaped).ok()
    }
}

/// One run of an agent or coordinator: a random number drawn when it starts. A new incarnation has forgotten
/// whatever the old one knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A process of one host. The start time (clock ticks since boot, `/proc/PID/stat` field 22) makes it survive
/// the reuse of a pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Pid as the host's agent sees it.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
}

/// A process of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Where it runs.
    pub host: HostName,
    /// Which process of that host.
    pub key: ProcessKey,
}

/// What a process runs: Go build ID (`go:..`), GNU build-id (`gnu:..`), or a hash of the file (`file:..`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BuildId(pub String);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hash of a [`crate::layout::Layout`]'s content: the same layout has the same id on every host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayoutId(pub [u8; 16]);

impl fmt::Display for LayoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for LayoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayoutId({self})")
    }
}

impl From<LayoutId> for String {
    fn from(id: LayoutId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for LayoutId {
    type Error = BadToken;
    fn try_from(text: String) -> Result<Self, BadToken> {
        let bad = || BadToken { what: "layout id", text: text.clone() };
        if text.len() != 32 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0u8; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(LayoutId(bytes))
    }
}

/// Address in a process's memory (after relocation).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Avma(pub u64);

/// Address as written in the ELF file (before relocation).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Svma(pub u64);

impl fmt::Debug for Avma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "avma:{:#x}", self.0)
    }
}

impl fmt::Debug for Svma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "svma:{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_one_subject_token() {
        assert!(HostName::new("web-1").is_ok());
        for bad in ["", "a.b", "*", ">", "a b", &"x".repeat(65)] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(HostName::escaped("web-1.example.com").unwrap().as_str(), "web-1-example-com");
        assert!(HostName::escaped("").is_none());
    }

    #[test]
    fn a_layout_id_reads_back_what_it_writes() {
        let id = LayoutId([0xab; 16]);
        assert_eq!(LayoutId::try_from(id.to_string()).unwrap(), id);
        assert!(LayoutId::try_from("é".repeat(16)).is_err());
    }
}

//! Binary messages: one version byte, then postcard. Postcard is positional: fields are never reordered or removed
//! within a version; a change raises the version.

use crate::limits::MESSAGE_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};

/// A binary message that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Nothing there.
    #[error("{what}: empty message")]
    Empty {
        /// Which message.
        what: &'static str,
    },
    /// Another version of RipTrace wrote it.
    #[error("{what}: version {found}, this riptrace reads version {known}: run the same riptrace on all hosts")]
    Version {
        /// Which message.
        what: &'static str,
        /// Version found.
        found: u8,
        /// Version that this build reads.
        known: u8,
    },
    /// Larger than a message may be.
    #[error("{what}: {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Which message.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Bytes that do not make a message.
    #[error("{what}: malformed ({detail})")]
    Malformed {
        /// Which message.
        what: &'static str,
        /// What postcard says.
        detail: String,
    },
    /// A relation inside the message does not hold.
    #[error("{what}: {rule}")]
    Inconsistent {
        /// Which message.
        what: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
}

pub(crate) fn encode<T: Serialize>(what: &'static str, version: u8, message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_extend(message, vec![version])
        .map_err(|e| WireError::Malformed { what, detail: e.to_string() })?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { what, bytes: bytes.len() });
    }
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, known: u8, bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { what, bytes: bytes.len() });
    }
    let (&found, body) = bytes.split_first().ok_or(WireError::Empty { what })?;
    if found != known {
        return Err(WireError::Version { what, found, known });
    }
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|e| WireError::Malformed { what, detail: e.to_string() })?;
    if !rest.is_empty() {
        return Err(WireError::Inconsistent { what, rule: "bytes after the end of the message" });
    }
    Ok(message)
}

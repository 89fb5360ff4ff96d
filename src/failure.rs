//! Why a command ends without having done its work, with the exit status that says so.

use riptrace_dap_adapter::environment::ConnectError;
use riptrace_dap_adapter::fleet::FleetError;
use std::process::ExitCode;

/// Why a command ends without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something that was checked does not hold: a scenario, the demo, a doctor's finding. Exit status 1.
    #[error("{0}")]
    Failed(String),
    /// The command line or a configuration file cannot be used. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// No running process has what was asked for. Exit status 3.
    #[error("{0}")]
    NothingMatched(String),
    /// The bus or the coordinator cannot be reached, or an agent or coordinator cannot start. Exit status 4.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// The exit status, as documented in `riptrace --help`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NothingMatched(_) => 3,
            Failure::Unreachable(_) => 4,
        })
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::Configuration(_) => Failure::Usage(error.to_string()),
            _ => Failure::Unreachable(error.to_string()),
        }
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Failure {
        match error {
            FleetError::Refused(_) => Failure::Usage(error.to_string()),
            _ => Failure::Unreachable(error.to_string()),
        }
    }
}

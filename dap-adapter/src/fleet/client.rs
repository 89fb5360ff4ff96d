//! Requests to the coordinator.

use super::session::Session;
use riptrace_protocol::agent_api::{LinesGet, LinesReply, Reply};
use riptrace_protocol::coordinator_api::{FleetGet, SessionOpen, SessionOpened};
use riptrace_protocol::fleet::FleetView;
use riptrace_protocol::ids::{BuildId, SessionId};
use riptrace_protocol::{limits, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Why the coordinator's answer is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// Nobody listens on the coordinator's subjects.
    #[error(
        "no coordinator answers on this bus: run `riptrace up`, or `riptrace coordinator --nats URL` on one machine of \
         the fleet"
    )]
    NoCoordinator,
    /// It did not answer in time.
    #[error("the coordinator did not answer {subject} within {seconds} s: is its machine overloaded or partitioned?")]
    Timeout {
        /// What was asked.
        subject: String,
        /// The deadline.
        seconds: u64,
    },
    /// The bus failed.
    #[error("the bus failed on {subject}: {why}")]
    Bus {
        /// What was asked.
        subject: String,
        /// What the client said.
        why: String,
    },
    /// The coordinator refused.
    #[error("{0}")]
    Refused(String),
    /// Its answer cannot be read.
    #[error("the coordinator's answer to {subject} cannot be read ({why}): run the same riptrace on all machines")]
    Malformed {
        /// What was asked.
        subject: String,
        /// Where it is wrong.
        why: String,
    },
}

/// A client of the coordinator's API.
#[derive(Debug, Clone)]
pub struct FleetClient {
    bus: async_nats::Client,
}

impl FleetClient {
    /// Uses a connection.
    pub fn new(bus: async_nats::Client) -> FleetClient {
        FleetClient { bus }
    }

    /// The connection.
    pub fn bus(&self) -> &async_nats::Client {
        &self.bus
    }

    /// The whole fleet.
    pub async fn fleet(&self) -> Result<FleetView, FleetError> {
        self.request(subject::FLEET_GET, &FleetGet {}).await
    }

    /// Opens a session, or takes up one of this id again.
    pub async fn open_session(&self, session: SessionId, viewer: String) -> Result<Session, FleetError> {
        let open = SessionOpen { session, viewer };
        let _: SessionOpened = self.request(subject::SESSION_OPEN, &open).await?;
        Session::start(self.clone(), open).await
    }

    /// Which lines of a file have code in a build that runs, and with `variables` what can be read there.
    pub async fn lines(
        &self,
        build: BuildId,
        file: String,
        range: std::ops::RangeInclusive<u32>,
        variables: bool,
    ) -> Result<LinesReply, FleetError> {
        let asked = LinesGet { build, file, first: *range.start(), last: *range.end(), variables };
        self.request(subject::LINES_GET, &asked).await
    }

    pub(super) async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        question: &Q,
    ) -> Result<A, FleetError> {
        let malformed =
            |e: serde_json::Error| FleetError::Malformed { subject: subject.to_owned(), why: e.to_string() };
        let payload = serde_json::to_vec(question).map_err(malformed)?;
        let request = async_nats::Request::new()
            .payload(payload.into())
            .timeout(Some(Duration::from_millis(limits::COORDINATOR_REQUEST_MS)));
        let message = self.bus.send_request(subject.to_owned(), request).await.map_err(|e| match e.kind() {
            async_nats::RequestErrorKind::NoResponders => FleetError::NoCoordinator,
            async_nats::RequestErrorKind::TimedOut => {
                FleetError::Timeout { subject: subject.to_owned(), seconds: limits::COORDINATOR_REQUEST_MS / 1000 }
            }
            _ => FleetError::Bus { subject: subject.to_owned(), why: e.to_string() },
        })?;
        match serde_json::from_slice(&message.payload).map_err(malformed)? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(why) => Err(FleetError::Refused(why)),
        }
    }
}

//! The coordinator's own API (`riptrace.*`): JSON, request and reply, for editors and the command line.
//!
//! Replies are wrapped in [`crate::agent_api::Reply`]. A session is chosen and named by its viewer, so that opening it
//! again after a lost answer, a reconnect or a coordinator's restart takes up the same session.

use crate::fleet::TracepointStatus;
use crate::ids::{Incarnation, SessionId, TracepointId};
use crate::tracepoint::Tracepoint;
use serde::{Deserialize, Serialize};

/// `riptrace.fleet.get`; answered with [`crate::fleet::FleetView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetGet {}

/// `riptrace.session.open`; answered with [`SessionOpened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpen {
    /// Chosen by the viewer, random enough to be unique.
    pub session: SessionId,
    /// Who looks, for a person (`"vscode ana@laptop"`).
    pub viewer: String,
}

/// Answer to [`SessionOpen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Which run of the coordinator answers.
    pub coordinator: Incarnation,
    /// The session ends unless it is renewed within this time, in milliseconds.
    pub lease_ms: u64,
}

/// `riptrace.session.renew` and `riptrace.session.close`; answered with [`SessionState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// Which session.
    pub session: SessionId,
}

/// State of a session: answer to renew and close, and what is published on `riptrace.session.<id>.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Which session.
    pub session: SessionId,
    /// Which run of the coordinator speaks.
    pub coordinator: Incarnation,
    /// Its tracepoints over the fleet.
    pub tracepoints: Vec<TracepointStatus>,
}

/// `riptrace.tracepoint.create`; answered with [`TracepointStatus`] once every process that is meant now has answered
/// or the deadline of the agents has passed (then some probes are still pending).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracepointCreate {
    /// In which session.
    pub session: SessionId,
    /// What; an id that the session has already is replaced.
    pub tracepoint: Tracepoint,
}

/// `riptrace.tracepoint.remove`; answered with the last [`TracepointStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracepointRemove {
    /// In which session.
    pub session: SessionId,
    /// Which.
    pub tracepoint: TracepointId,
}

/// `riptrace.coordinator.status`: a coordinator says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorStatus {
    /// Which run of the coordinator.
    pub coordinator: Incarnation,
    /// Version of RipTrace.
    pub version: String,
}

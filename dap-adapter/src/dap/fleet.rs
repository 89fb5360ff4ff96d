//! What the adapter needs of the fleet, as traits: the real fleet client is one implementation, the tests' fake fleet
//! another. Commands and hits never share a queue: [`FleetSession`] asks, [`FleetEvents`] tells.

use crate::environment::{BusTarget, CheckoutDefaults, Environment};
use crate::fleet::{FleetClient, FleetError, SessionEvent, SessionEvents, SessionHandle};
use futures::future::BoxFuture;
use riptrace_protocol::agent_api::LinesReply;
use riptrace_protocol::fleet::{FleetView, TracepointStatus};
use riptrace_protocol::ids::{BuildId, SessionId, TracepointId};
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::tracepoint::Tracepoint;
use std::path::Path;
use std::sync::Arc;

/// Why the fleet did not do what was asked, for a person; says what to do.
pub type FleetFailure = String;

/// The way to fleets.
pub trait Fleets: Send + Sync + 'static {
    /// Defaults of a checkout.
    fn checkout(&self, cwd: &Path) -> Result<CheckoutDefaults, FleetFailure>;

    /// Joins the fleet: connects, looks at it and opens a session.
    fn join(
        &self,
        target: BusTarget,
        session: SessionId,
        viewer: String,
    ) -> BoxFuture<'static, Result<Joined, FleetFailure>>;

    /// Who looks, for a person.
    fn viewer(&self) -> String;

    /// A session id that nobody else has.
    fn new_session_id(&self) -> SessionId;
}

/// A fleet that was joined.
pub struct Joined {
    /// The fleet as it was then.
    pub fleet: FleetView,
    /// To ask for things.
    pub session: Arc<dyn FleetSession>,
    /// What happens.
    pub events: Box<dyn FleetEvents>,
}

/// Asks for things in a session.
pub trait FleetSession: Send + Sync {
    /// The whole fleet.
    fn fleet(&self) -> BoxFuture<'static, Result<FleetView, FleetFailure>>;

    /// Creates a tracepoint; answered once the processes that are meant now have answered.
    fn create(&self, tracepoint: Tracepoint) -> BoxFuture<'static, Result<TracepointStatus, FleetFailure>>;

    /// Removes a tracepoint.
    fn remove(&self, tracepoint: TracepointId) -> BoxFuture<'static, Result<(), FleetFailure>>;

    /// Hits of the session in front of the one with this number, as the fleet's store still has them: about `count` of
    /// those nearest to it, oldest first, without gaps.
    fn hits_before(&self, before: u64, count: usize) -> BoxFuture<'static, Result<Vec<OrderedHit>, FleetFailure>>;

    /// Lines of a file with code in a build that runs, between two.
    fn lines(
        &self,
        build: BuildId,
        file: String,
        first: u32,
        last: u32,
    ) -> BoxFuture<'static, Result<LinesReply, LinesFailure>>;

    /// Ends the session; all its tracepoints are removed.
    fn close(&self) -> BoxFuture<'static, Result<(), FleetFailure>>;
}

/// Why there are no lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinesFailure {
    /// The build has none of the file, or nobody runs it any more.
    #[error("{0}")]
    Refused(String),
    /// Nobody could be asked.
    #[error("{0}")]
    Unknown(String),
}

/// What happens in a session, in order.
pub trait FleetEvents: Send {
    /// The next event; `None` when there will be no more. Safe to drop before it is ready.
    fn next(&mut self) -> BoxFuture<'_, Option<SessionEvent>>;
}

/// The real fleets of an environment.
pub(super) struct RealFleets(pub(super) Arc<dyn Environment>);

impl Fleets for RealFleets {
    fn checkout(&self, cwd: &Path) -> Result<CheckoutDefaults, FleetFailure> {
        self.0.checkout(cwd).map_err(|error| error.to_string())
    }

    fn join(
        &self,
        target: BusTarget,
        session: SessionId,
        viewer: String,
    ) -> BoxFuture<'static, Result<Joined, FleetFailure>> {
        let connect = self.0.connect(&target);
        Box::pin(async move {
            let client = FleetClient::new(connect.await.map_err(|error| error.to_string())?);
            let fleet = client.fleet().await.map_err(|error| error.to_string())?;
            let session = client.open_session(session, viewer).await.map_err(|error| error.to_string())?;
            let commands = RealSession { client, handle: session.handle };
            Ok(Joined { fleet, session: Arc::new(commands), events: Box::new(session.events) })
        })
    }

    fn viewer(&self) -> String {
        self.0.viewer()
    }

    fn new_session_id(&self) -> SessionId {
        self.0.new_session_id()
    }
}

struct RealSession {
    client: FleetClient,
    handle: SessionHandle,
}

impl FleetSession for RealSession {
    fn fleet(&self) -> BoxFuture<'static, Result<FleetView, FleetFailure>> {
        let client = self.client.clone();
        Box::pin(async move { client.fleet().await.map_err(|error| error.to_string()) })
    }

    fn create(&self, tracepoint: Tracepoint) -> BoxFuture<'static, Result<TracepointStatus, FleetFailure>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.create(tracepoint).await.map_err(|error| error.to_string()) })
    }

    fn remove(&self, tracepoint: TracepointId) -> BoxFuture<'static, Result<(), FleetFailure>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.remove(&tracepoint).await.map(drop).map_err(|error| error.to_string()) })
    }

    fn hits_before(&self, before: u64, count: usize) -> BoxFuture<'static, Result<Vec<OrderedHit>, FleetFailure>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.hits_before(before, count).await.map_err(|error| error.to_string()) })
    }

    fn lines(
        &self,
        build: BuildId,
        file: String,
        first: u32,
        last: u32,
    ) -> BoxFuture<'static, Result<LinesReply, LinesFailure>> {
        let client = self.client.clone();
        Box::pin(async move {
            client.lines(build, file, first..=last, false).await.map_err(|error| match error {
                FleetError::Refused(why) => LinesFailure::Refused(why),
                error => LinesFailure::Unknown(error.to_string()),
            })
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<(), FleetFailure>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.close().await.map(drop).map_err(|error| error.to_string()) })
    }
}

impl FleetEvents for SessionEvents {
    fn next(&mut self) -> BoxFuture<'_, Option<SessionEvent>> {
        Box::pin(SessionEvents::next(self))
    }
}

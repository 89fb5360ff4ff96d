//! The lookout: a thread that looks around on the host again and again, and by what it says sets the pulse of the agent.
//!
//! It is a thread, not a task, since a thread that sleeps wakes up once, just when it is to: a timer of the runtime wakes
//! its thread before that as well, and whoever is sent to look wakes two more.

use super::discovery;
use super::sweeper::Sweeper;
use super::worker::Host;
use crate::config::AgentConfig;
use crate::event::{JobId, ProbeCounts};
use crate::target::{Discovery, TargetError};
use riptrace_protocol::fleet::ProcessFacts;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// From one look to the next. A process that starts is traced within about this; counts are read as often.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Meanwhile it glances so often at the rings of processes whose readers rest: what comes first after a long silence is
/// read within a half of [`PAUSE`], however many processes are traced.
const GLANCES: u32 = 2;

/// What one look at the host has shown.
pub(super) struct Sight {
    /// `None`: they cannot be seen.
    pub(super) processes: Option<Vec<ProcessFacts>>,
    pub(super) counts: Vec<(JobId, ProbeCounts)>,
}

/// The thread; it ends when this is dropped, or when nobody wants to know any more.
pub(super) struct Lookout {
    _is_wanted: Sender<()>,
}

impl Lookout {
    /// Begins with a look.
    pub(super) fn start(
        host: Arc<Host>,
        config: AgentConfig,
        seen: tokio::sync::mpsc::Sender<Sight>,
    ) -> io::Result<Lookout> {
        let (is_wanted, ends) = mpsc::channel();
        let run = move || run(&host, &config, &seen, &ends);
        thread::Builder::new().name("lookout".to_owned()).spawn(run)?;
        Ok(Lookout { _is_wanted: is_wanted })
    }
}

fn run(host: &Host, config: &AgentConfig, seen: &tokio::sync::mpsc::Sender<Sight>, ends: &Receiver<()>) {
    let (mut discovery, mut sweeper) = (Discovery::default(), Sweeper::default());
    let mut failing = false;
    loop {
        let looked =
            catch_unwind(AssertUnwindSafe(|| (look(host, config, &mut discovery, &mut sweeper), host.count(None))));
        let sight = match looked {
            Ok((processes, counts)) => {
                if let Err(error) = processes.as_ref()
                    && !failing
                {
                    tracing::error!(%error, "the processes of this host cannot be seen");
                }
                failing = processes.is_err();
                Sight { processes: processes.ok(), counts }
            }
            Err(_) => {
                tracing::error!("looking at the processes of this host has panicked; please report this");
                Sight { processes: None, counts: Vec::new() }
            }
        };
        if seen.blocking_send(sight).is_err() || !rest(host, ends) {
            return;
        }
    }
}

/// Until the next look. The last glance comes just before it: what it promises is said with the pulse. Says whether there
/// is a next look.
fn rest(host: &Host, ends: &Receiver<()>) -> bool {
    let glances = if host.engines.is_empty() { 1 } else { GLANCES };
    (0..glances).all(|_| {
        let goes_on = ends.recv_timeout(PAUSE / glances) == Err(RecvTimeoutError::Timeout);
        if goes_on {
            host.engines.glance();
        }
        goes_on
    })
}

fn look(
    host: &Host,
    config: &AgentConfig,
    discovery: &mut Discovery,
    sweeper: &mut Sweeper,
) -> Result<Vec<ProcessFacts>, TargetError> {
    let processes = discovery::look(discovery, &host.builds, &host.engines, config)?;
    let seen = processes.iter().filter(|process| process.refused.is_none()).map(|process| process.key).collect();
    sweeper.look(&seen, &host.engines.traced());
    Ok(processes)
}

//! `riptrace up`: one machine, nothing to set up.
//!
//! A NATS server as a child on loopback, a coordinator and an agent as tasks of this process. They end in the order in
//! which they need each other: the agent first, so that every probe is out while the rest still runs.

use super::{agent, coordinator};
use crate::args;
use crate::connect::{connect, connect_without_echo};
use crate::failure::Failure;
use crate::nats_server::{NatsServer, NatsServerConfig};
use crate::output;
use crate::provision::{self, Cache};
use crate::shutdown::{self, Trigger};
use crate::up_file;
use riptrace_dap_adapter::environment::BusTarget;
use riptrace_dap_adapter::fleet::FleetClient;
use riptrace_protocol::ids::HostName;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long coordinator and agent may take to find each other.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const READY_POLL: Duration = Duration::from_millis(100);

/// Runs until Ctrl-C or SIGTERM; every probe is out when it returns.
pub(super) async fn run(args: args::Up) -> Result<(), Failure> {
    if let Some(url) = up_file::read() {
        return Err(Failure::Usage(format!(
            "a `riptrace up` of yours is running already, at {url}: use it (other commands find it by themselves), or \
             end it first"
        )));
    }
    let config = agent::config(args.host)?;
    let host = config.host.clone();
    let signals = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let store = tempfile::Builder::new()
        .prefix("riptrace-up-")
        .tempdir()
        .map_err(|e| Failure::Unreachable(format!("no folder for the message store: {e}")))?;
    let server = start_nats(store.path(), args.port).await?;
    let url = server.url();
    let target = BusTarget { nats: Some(url.clone()), ..BusTarget::default() };

    let (stop_coordinator, coordinator_end) = shutdown::manual();
    let bus = connect(&target, "riptrace coordinator").await?;
    let coordinator_task = tokio::spawn(async move {
        riptrace_coordinator::run(bus, coordinator::config(), coordinator_end.ended()).await.map_err(|e| e.to_string())
    });
    let (stop_agent, agent_end) = shutdown::manual();
    let bus = connect_without_echo(&target, &format!("riptrace agent {host}")).await?;
    let agent_task =
        tokio::spawn(
            async move { riptrace_agent::run(bus, config, agent_end.ended()).await.map_err(|e| e.to_string()) },
        );
    let mut parts =
        Parts { coordinator: (stop_coordinator, Some(coordinator_task)), agent: (stop_agent, Some(agent_task)) };

    let served = async {
        wait_until_ready(&target, &host).await?;
        let up_file = up_file::write(&url)
            .map_err(|e| Failure::Unreachable(format!("other commands could not be told where `up` is: {e}")))?;
        if args.json {
            let ready = serde_json::json!({"type": "ready", "nats": url});
            output::json_line(&ready).map_err(|e| Failure::Failed(e.to_string()))?;
        } else {
            output::note(&format!(
                "riptrace up: tracing host {host}, bus at {url}\n  riptrace ps                   shows what can be \
                 traced\n  riptrace trace FILE:LINE      prints each passage\nCtrl-C takes every probe out and ends it"
            ));
        }
        Ok(up_file)
    };
    let outcome = tokio::select! {
        ready = served => match ready {
            Ok(_up_file) => tokio::select! {
                () = signals.clone().ended() => Ok(()),
                failure = parts.failed() => Err(failure),
            },
            Err(failure) => Err(failure),
        },
        () = signals.clone().ended() => Ok(()),
        failure = parts.failed() => Err(failure),
    };
    parts.stop().await;
    drop(server);
    outcome
}

struct Parts {
    coordinator: (Trigger, Option<JoinHandle<Result<(), String>>>),
    agent: (Trigger, Option<JoinHandle<Result<(), String>>>),
}

impl Parts {
    /// Waits for a part that ends though nobody asked it to.
    async fn failed(&mut self) -> Failure {
        async fn end(task: &mut Option<JoinHandle<Result<(), String>>>) -> String {
            match task.as_mut() {
                Some(handle) => {
                    let why = match handle.await {
                        Ok(Ok(())) => "it ended by itself".to_owned(),
                        Ok(Err(why)) => why,
                        Err(panic) => panic.to_string(),
                    };
                    *task = None;
                    why
                }
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            why = end(&mut self.coordinator.1) => Failure::Unreachable(format!("coordinator: {why}")),
            why = end(&mut self.agent.1) => Failure::Unreachable(format!("agent: {why}")),
        }
    }

    async fn stop(&mut self) {
        for (trigger, task) in [&mut self.agent, &mut self.coordinator] {
            trigger.pull();
            if let Some(task) = task.take()
                && let Ok(Err(why)) = task.await
            {
                output::note(&format!("riptrace up: while ending: {why}"));
            }
        }
    }
}

/// Finds or provisions a NATS server and starts it.
pub(super) async fn start_nats(folder: &std::path::Path, port: Option<u16>) -> Result<NatsServer, Failure> {
    let program = tokio::task::spawn_blocking(|| {
        let cache = Cache::from_env()?;
        provision::nats_server(&cache, &mut |progress| output::note(&progress.to_string()))
    })
    .await
    .map_err(|e| Failure::Unreachable(e.to_string()))?
    .map_err(|e| Failure::Unreachable(e.to_string()))?;
    let config = NatsServerConfig { port, ..NatsServerConfig::new(program, folder) };
    NatsServer::start(config).await.map_err(|e| Failure::Unreachable(e.to_string()))
}

async fn wait_until_ready(target: &BusTarget, host: &HostName) -> Result<(), Failure> {
    let client = FleetClient::new(connect(target, "riptrace up").await?);
    let ready = async {
        loop {
            if let Ok(fleet) = client.fleet().await
                && fleet.hosts.iter().any(|view| view.alive && view.profile.host == *host)
            {
                return;
            }
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, ready).await.map_err(|_| {
        Failure::Unreachable(format!(
            "coordinator and agent did not find each other within {} s: set RIPTRACE_LOG=info to see why",
            READY_TIMEOUT.as_secs()
        ))
    })
}

//! The demo's hosts: each service has one, with an agent of its own.
//!
//! Where network namespaces can be made (as root, with `ip`), each host has a network of its own; elsewhere all are on
//! the loopback interface. Either way they share this machine's processes, so an agent is told by an environment
//! variable which of them are its host's.

use crate::connect::connect;
use crate::failure::Failure;
use crate::netns::{self, Namespace, Network};
use riptrace_dap_adapter::environment::BusTarget;
use riptrace_dap_adapter::fleet::FleetClient;
use riptrace_protocol::fleet::FleetView;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Which environment variable says on which host a process is.
const HOST_VARIABLE: &str = "RIPTRACE_HOST";
/// How long the fleet may take to be complete.
const FLEET_TIMEOUT: Duration = Duration::from_secs(30);
const FLEET_POLL: Duration = Duration::from_millis(100);
/// How long a part may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The demo's hosts.
pub(super) struct Hosts {
    names: Vec<&'static str>,
    namespaces: Vec<Namespace>,
    /// Removes the namespaces when dropped.
    network: Option<Network>,
}

/// Coordinator and agents.
pub(super) struct Fleet {
    agents: Vec<Child>,
    coordinator: Child,
    client: FleetClient,
}

impl Hosts {
    pub(super) fn new(names: &[&'static str], loopback: bool) -> Result<Hosts, Failure> {
        let mut hosts = Hosts { names: names.to_vec(), namespaces: Vec::new(), network: None };
        if !loopback && netns::is_allowed() {
            let mut network = Network::new().map_err(|e| Failure::Failed(format!("network of the demo: {e}")))?;
            for _ in names {
                let namespace = network.add_host().map_err(|e| Failure::Failed(format!("host of the demo: {e}")))?;
                hosts.namespaces.push(namespace);
            }
            hosts.network = Some(network);
        }
        Ok(hosts)
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    pub(super) fn describe(&self) -> String {
        let names = self.names.join(", ");
        match self.network {
            Some(_) => format!("hosts {names}, each in a network namespace of its own"),
            None => format!("hosts {names}, all on the loopback interface"),
        }
    }

    /// Where the bus listens.
    pub(super) fn gateway(&self) -> IpAddr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, Network::gateway).into()
    }

    /// Where the services of a host listen.
    pub(super) fn address(&self, host: &str) -> Ipv4Addr {
        self.namespace(host).map_or(Ipv4Addr::LOCALHOST, |namespace| namespace.address)
    }

    fn namespace(&self, host: &str) -> Option<&Namespace> {
        let index = self.names.iter().position(|&name| name == host)?;
        self.namespaces.get(index)
    }

    /// A program as a process in the network of a host. It is killed when its handle is dropped.
    pub(super) fn command(&self, host: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.namespace(host) {
            Some(namespace) => {
                // `ip` enters the namespace and becomes the program; the pid stays.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace.name]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        command
    }

    /// The same, as one of the processes that the host's agent looks at.
    pub(super) fn service(&self, host: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(host, program);
        command.env(HOST_VARIABLE, host);
        command
    }

    /// Starts a coordinator and an agent per host, and waits until they have found each other.
    pub(super) async fn start_fleet(&self, nats: &str) -> Result<Fleet, Failure> {
        let spawn = |mut command: Command| {
            command.stderr(Stdio::inherit()).stdout(Stdio::null());
            command.spawn().map_err(|e| Failure::Failed(format!("cannot start {command:?}: {e}")))
        };
        let riptrace = std::env::current_exe().map_err(|e| Failure::Failed(format!("where is riptrace? {e}")))?;
        let mut coordinator = Command::new(&riptrace);
        coordinator.args(["coordinator", "--nats", nats]).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        let coordinator = spawn(coordinator)?;
        let mut agents = Vec::new();
        for host in &self.names {
            let mut agent = self.command(host, &riptrace);
            agent.args(["agent", "--nats", nats, "--host", host]);
            agent.arg("--only-env").arg(format!("{HOST_VARIABLE}={host}"));
            agents.push(spawn(agent)?);
        }
        let target = BusTarget { nats: Some(nats.to_owned()), ..BusTarget::default() };
        let client = FleetClient::new(connect(&target, "riptrace demo").await?);
        let fleet = Fleet { agents, coordinator, client };
        let hosts = self.names.len();
        fleet
            .wait_for("all hosts to be there", |view| view.hosts.iter().filter(|host| host.alive).count() == hosts)
            .await?;
        Ok(fleet)
    }
}

impl Fleet {
    /// Waits until the fleet is as wanted.
    pub(super) async fn wait_for(&self, what: &str, wanted: impl Fn(&FleetView) -> bool) -> Result<(), Failure> {
        let wait = async {
            loop {
                if let Ok(view) = self.client.fleet().await
                    && wanted(&view)
                {
                    return;
                }
                tokio::time::sleep(FLEET_POLL).await;
            }
        };
        tokio::time::timeout(FLEET_TIMEOUT, wait)
            .await
            .map_err(|_| Failure::Failed(format!("waited {} s for {what}", FLEET_TIMEOUT.as_secs())))
    }

    /// Ends the agents, which take their probes out, then the coordinator.
    pub(super) async fn stop(self) {
        for child in self.agents.into_iter().chain([self.coordinator]) {
            terminate(child).await;
        }
    }
}

/// Asks a child to end, and kills it when it does not.
pub(super) async fn terminate(mut child: Child) {
    if let Some(pid) = child.id() {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(END_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

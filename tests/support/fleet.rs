//! A fleet on one machine: nats-server, a coordinator, and an agent per host.
//!
//! With namespaces every host has its own network (see [`riptrace::netns`]); its agent and its services run in it. All
//! hosts share this machine's processes, so each agent is told to look only at those whose environment has
//! `RIPTRACE_HOST` as the host has it (`--only-env`); it differs between tests, which run side by side.

use super::{
    SOON,
    dap::DapClient,
    eventually,
    fixture::cache,
    process::{Program, command},
};
use riptrace::{
    nats_server::{NatsServer, NatsServerConfig},
    netns::{self, Namespace, Network},
    provision,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The binary under test.
pub const RIPTRACE: &str = env!("CARGO_BIN_EXE_riptrace");

/// What a fleet is made of.
#[derive(Debug, Clone, Default)]
pub struct FleetOptions {
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// Whether each host has a network of its own; needs root.
    pub namespaces: bool,
    /// Further arguments of every agent.
    pub agent_args: Vec<String>,
    /// The agents' program, where it is not the binary under test itself (but a copy that another user can read).
    pub agent_program: Option<PathBuf>,
    /// A program with its arguments that becomes the agent: it may change the user or the capabilities first.
    pub agent_wrapper: Vec<String>,
    /// Whether agents look at all processes of this machine: one that may not read environments cannot tell whose a
    /// process is.
    pub every_process: bool,
    /// Further arguments of the coordinator.
    pub coordinator_args: Vec<String>,
    /// Further variables of the environment of coordinator and agents.
    pub env: Vec<(String, String)>,
}

impl FleetOptions {
    /// These hosts on loopback.
    pub fn hosts(names: &[&str]) -> Self {
        Self { hosts: names.iter().map(|&name| name.to_owned()).collect(), ..Self::default() }
    }

    /// These hosts, each with a network of its own.
    pub fn networked(names: &[&str]) -> Self {
        Self { namespaces: true, ..Self::hosts(names) }
    }
}

/// A host of the fleet.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What `RIPTRACE_HOST` is in its processes; no other test's host of the same name has it.
    pub tag: String,
    /// Its network, or `None` on loopback.
    pub namespace: Option<Namespace>,
}

/// Fleets of this process so far.
static FLEETS: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// Where its services listen.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, |namespace| namespace.address)
    }

    /// The program `name` as a process of this host.
    pub fn command(&self, name: impl AsRef<OsStr>) -> Command {
        let mut made = match &self.namespace {
            Some(namespace) => {
                // `ip` enters the namespace and becomes the program; the pid stays.
                let mut made = command("ip");
                made.args(["netns", "exec", &namespace.name]).arg(name);
                made
            }
            None => command(name),
        };
        made.env("RIPTRACE_HOST", &self.tag);
        made
    }
}

/// A running fleet; everything in it ends when it is dropped, agents before the bus.
pub struct Fleet {
    agents: BTreeMap<String, Program>,
    coordinator: Option<Program>,
    nats: NatsServer,
    runtime: Runtime,
    hosts: Vec<Host>,
    network: Option<Network>,
    options: FleetOptions,
    folder: TempDir,
}

impl Fleet {
    /// A fleet with these hosts on loopback, once the coordinator sees them all.
    #[track_caller]
    pub fn start(hosts: &[&str]) -> Self {
        Self::start_with(FleetOptions::hosts(hosts))
    }

    /// A fleet, once the coordinator sees all hosts.
    #[track_caller]
    pub fn start_with(options: FleetOptions) -> Self {
        let mut fleet = Self::start_bus(options);
        fleet.start_coordinator();
        for host in fleet.hosts.clone() {
            fleet.start_agent(&host.name);
        }
        fleet.wait_for_hosts();
        fleet
    }

    /// Only the bus and the networks: no coordinator and no agent yet.
    #[track_caller]
    pub fn start_bus(options: FleetOptions) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut network = options.namespaces.then(|| {
            assert!(netns::is_allowed(), "hosts with networks of their own need root and `ip`");
            Network::new().unwrap_or_else(|error| panic!("{error}"))
        });
        let fleet = FLEETS.fetch_add(1, Ordering::Relaxed);
        let hosts = options
            .hosts
            .iter()
            .map(|name| Host {
                name: name.clone(),
                tag: format!("{name}.{}.{fleet}", std::process::id()),
                namespace: network.as_mut().map(|network| network.add_host().unwrap_or_else(|error| panic!("{error}"))),
            })
            .collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let program = provision::nats_server(&cache(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        let mut config = NatsServerConfig::new(program, folder.path().join("nats"));
        if let Some(network) = &network {
            // This machine has that address as well.
            config.listen = IpAddr::V4(network.gateway());
        }
        let nats = runtime.block_on(NatsServer::start(config)).unwrap_or_else(|error| panic!("{error}"));
        Self { agents: BTreeMap::new(), coordinator: None, nats, runtime, hosts, network, options, folder }
    }

    /// Where the bus is, for agents, the coordinator and the test.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// A folder that is removed with the fleet.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The runtime, for tests that speak to the bus themselves.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// `riptrace` with these arguments, as somebody at this machine runs it against the fleet.
    pub fn riptrace<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut made = command(RIPTRACE);
        made.args(arguments).env("NATS_URL", self.nats_url());
        made.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        made
    }

    /// An editor's end of a new `riptrace dap` on its standard streams; nothing is sent yet.
    #[track_caller]
    pub fn editor(&self) -> DapClient {
        DapClient::spawn(self.riptrace(["dap"]))
    }

    /// Starts `riptrace trace --json` with these arguments and waits until every probe it asked for is settled:
    /// `statuses` lines of status have been printed, none of them pending.
    #[track_caller]
    pub fn trace(&self, arguments: &[&str], statuses: usize) -> Program {
        let mut program =
            Program::spawn_orderly("riptrace trace", self.riptrace(["trace", "--json"].iter().chain(arguments)));
        let mut settled = 0;
        while settled < statuses {
            let status = program.json_of("status", SOON);
            settled += usize::from(status["state"] != "pending");
        }
        program
    }

    /// The lines of `riptrace ps --json`.
    #[track_caller]
    pub fn ps(&self) -> Vec<Value> {
        let mut program = Program::spawn("riptrace ps", self.riptrace(["ps", "--json"]));
        let lines = program.json_to_end(SOON);
        program.wait(SOON);
        lines
    }

    /// Starts the coordinator.
    #[track_caller]
    pub fn start_coordinator(&mut self) {
        let mut made = self.riptrace(["coordinator", "--nats", &self.nats_url()]);
        made.args(&self.options.coordinator_args);
        self.coordinator = Some(Program::spawn_orderly("coordinator", made));
    }

    #[track_caller]
    pub fn coordinator(&mut self) -> &mut Program {
        self.coordinator.as_mut().expect("the coordinator was started")
    }

    /// Starts the agent of a host; the one that it has is killed.
    #[track_caller]
    pub fn start_agent(&mut self, host: &str) {
        let program = self.options.agent_program.as_ref().map_or(OsStr::new(RIPTRACE), |path| path.as_os_str());
        let mut made = match self.options.agent_wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut made = self.host(host).command(wrapper);
                made.args(arguments).arg(program);
                made
            }
            None => self.host(host).command(program),
        };
        made.args(["agent", "--nats", &self.nats_url(), "--host", host]);
        if !self.options.every_process {
            made.arg("--only-env").arg(format!("RIPTRACE_HOST={}", self.host(host).tag));
        }
        made.args(&self.options.agent_args);
        made.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        // The agent itself is no process of its host that anybody wants to trace.
        made.env_remove("RIPTRACE_HOST");
        self.agents.remove(host);
        let agent = Program::spawn_orderly(&format!("agent {host}"), made);
        self.agents.insert(host.to_owned(), agent);
    }

    #[track_caller]
    pub fn agent(&mut self, host: &str) -> &mut Program {
        self.agents.get_mut(host).unwrap_or_else(|| panic!("no agent of {host}"))
    }

    /// Waits until `riptrace ps` names every host.
    #[track_caller]
    pub fn wait_for_hosts(&mut self) {
        let names = self.options.hosts.clone();
        let seen = |lines: &[Value], name: &str| lines.iter().any(|line| line["host"] == name || line["name"] == name);
        eventually("riptrace ps names every host", SOON, || {
            for program in self.agents.values_mut().chain(self.coordinator.as_mut()) {
                program.assert_running();
            }
            let lines = self.ps();
            names.iter().all(|name| seen(&lines, name)).then_some(())
        });
    }

    /// Cuts a host off the network, or connects it again.
    #[track_caller]
    pub fn connect(&self, host: &str, connected: bool) {
        let network = self.network.as_ref().expect("a fleet with networks");
        let namespace = self.host(host).namespace.as_ref().expect("a host with a network");
        network.connect(namespace, connected).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Kills the bus, as a crash would.
    pub fn kill_nats(&mut self) {
        self.nats.kill();
    }

    /// Starts the bus again on the same address with the same store.
    #[track_caller]
    pub fn restart_nats(&mut self) {
        self.runtime.block_on(self.nats.restart()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts a program as a process of a host.
    #[track_caller]
    pub fn spawn_on(&self, host: &str, program: &PathBuf, arguments: &[&str]) -> Program {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut made = self.host(host).command(program);
        made.args(arguments);
        Program::spawn(&name, made)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Agents take their probes out while the bus is there.
        self.agents.clear();
        self.coordinator = None;
    }
}

//! Hosts as network namespaces, for the demo and the tests: a bridge on this machine, and a pair of virtual Ethernet
//! devices per host.
//!
//! What it is not: a container. Hosts share this machine's files and processes; only their networks are apart.
//!
//! Invariant: a network is removed when it is dropped. What a killed process leaves is removed by the next one that
//! makes a network: the names carry the pid of their maker.
//!
//! ```text
//! this machine, 198.18.N.1 ── bridge rtb… ─┬─ host 0: namespace riptrace-PID-N-0, 198.18.N.10
//!                                          └─ host 1: namespace riptrace-PID-N-1, 198.18.N.11
//! ```
//!
//! The addresses are from the block for benchmarks of networks (RFC 2544), which nobody routes.

use nix::fcntl::{Flock, FlockArg};
use std::{
    env, fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// Networks of this process so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Hosts of one network: the last byte of their addresses is 10 to 209.
const HOSTS_MAX: u8 = 200;

/// The number of /24 networks in 198.18.0.0/15.
const NETWORKS: u32 = 512;

/// A network of hosts; removed when dropped.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    prefix: String,
    base: [u8; 3],
    hosts: Vec<Namespace>,
}

/// A host's namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// The name, for `ip netns`.
    pub name: String,
    /// The host's address.
    pub address: Ipv4Addr,
    /// The end of the host's cable that is in the bridge; setting it down cuts the host off.
    pub device: String,
}

/// Why there is no network. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The program `ip` cannot be run.
    #[error("cannot run ip: {source}; install it (Debian, Ubuntu: apt install iproute2)")]
    NoIp {
        /// What the system said.
        source: io::Error,
    },
    /// `ip` refused.
    #[error(
        "`ip {arguments}` failed; this needs root (CAP_NET_ADMIN) and a kernel with bridges and veth. It said: {said}"
    )]
    Refused {
        /// What it was asked.
        arguments: String,
        /// What it said.
        said: String,
    },
    /// The file that keeps two processes from taking the same addresses.
    #[error("cannot lock {path}: {source}; remove it and try again", path = path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many hosts.
    #[error("a network has {HOSTS_MAX} hosts at most; use fewer")]
    Full,
    /// All addresses are in use.
    #[error("all networks of 198.18.0.0/15 are taken; remove bridges that are left over (`ip link` names them)")]
    NoFreeAddresses,
}

/// Whether this process can make network namespaces: finds out by making one, in some 50 ms.
pub fn is_allowed() -> bool {
    nix::unistd::geteuid().is_root() && Network::new().and_then(|mut network| network.add_host()).is_ok()
}

impl Network {
    /// Makes a bridge. Networks of dead processes are removed first.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub fn new() -> Result<Self, NetnsError> {
        // Two tests at once must not take the same addresses, nor sweep what the other is making.
        let path = env::temp_dir().join("riptrace-networks.lock");
        let lock_error = |source| NetnsError::Lock { path: path.clone(), source };
        let file = fs::File::create(&path).map_err(lock_error)?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| lock_error(errno.into()))?;
        sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = process::id();
        let base = free_base(pid.wrapping_mul(7).wrapping_add(number))?;
        let network = Self {
            bridge: format!("rtb{pid}x{number}"),
            prefix: format!("riptrace-{pid}-{number}-"),
            base,
            hosts: Vec::new(),
        };
        let address = format!("{}/24", network.gateway());
        ip(&["link", "add", "name", &network.bridge, "type", "bridge"])?;
        ip(&["addr", "add", &address, "dev", &network.bridge])?;
        ip(&["link", "set", &network.bridge, "up"])?;
        Ok(network)
    }

    /// The address of this machine in the network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Adds a host.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub fn add_host(&mut self) -> Result<Namespace, NetnsError> {
        let index = self.hosts.len();
        let number = u8::try_from(index).ok().filter(|&number| number < HOSTS_MAX).ok_or(NetnsError::Full)?;
        let host = Namespace {
            name: format!("{}{index}", self.prefix),
            address: self.address(10 + number),
            device: format!("{}v{index}", self.bridge.replacen("rtb", "rt", 1)),
        };
        self.hosts.push(host.clone());
        let name = host.name.as_str();
        let address = format!("{}/24", host.address);
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &host.device, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["link", "set", &host.device, "master", &self.bridge, "up"])?;
        ip(&["-n", name, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Cuts a host's cable, or mends it.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub fn connect(&self, host: &Namespace, connected: bool) -> Result<(), NetnsError> {
        let state = if connected { "up" } else { "down" };
        ip(&["link", "set", &host.device, state]).map(drop)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.base;
        Ipv4Addr::new(a, b, c, last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        for host in &self.hosts {
            let _ = ip(&["link", "del", &host.device]);
            let _ = ip(&["netns", "del", &host.name]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

/// Removes the networks of processes that are dead.
fn sweep() {
    let dead = |pid: &str| !pid.is_empty() && !Path::new("/proc").join(pid).exists();
    for line in ip(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if let Some(pid) = pid_in(name, "riptrace-", '-')
            && dead(pid)
        {
            let _ = ip(&["netns", "del", name]);
        }
    }
    let Ok(devices) = fs::read_dir("/sys/class/net") else { return };
    for device in devices.flatten() {
        let name = device.file_name().to_string_lossy().into_owned();
        if let Some(pid) = pid_in(&name, "rtb", 'x').or_else(|| pid_in(&name, "rt", 'x'))
            && dead(pid)
        {
            let _ = ip(&["link", "del", &name]);
        }
    }
}

/// The pid in a name such as `rtb812x0`.
fn pid_in<'a>(name: &'a str, prefix: &str, end: char) -> Option<&'a str> {
    let (pid, _) = name.strip_prefix(prefix)?.split_once(end)?;
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then_some(pid)
}

/// The first three bytes of a network that no device of this machine is in.
fn free_base(first: u32) -> Result<[u8; 3], NetnsError> {
    free_among(first, &ip(&["-o", "-4", "addr"])?)
}

/// The first free network, given what `ip -o -4 addr` prints.
fn free_among(first: u32, taken: &str) -> Result<[u8; 3], NetnsError> {
    (0..NETWORKS)
        .map(|step| first.wrapping_add(step) % NETWORKS)
        .map(|number| {
            let [.., high, low] = number.to_be_bytes();
            [198, 18 + high, low]
        })
        .find(|[a, b, c]| !taken.contains(&format!(" {a}.{b}.{c}.")))
        .ok_or(NetnsError::NoFreeAddresses)
}

fn ip(arguments: &[&str]) -> Result<String, NetnsError> {
    let output = Command::new("ip").args(arguments).output().map_err(|source| NetnsError::NoIp { source })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(NetnsError::Refused {
            arguments: arguments.join(" "),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maker_of_a_device_is_known_by_its_name() {
        assert_eq!(pid_in("rtb812x0", "rtb", 'x'), Some("812"));
        assert_eq!(pid_in("rt812x0v1", "rt", 'x'), Some("812"));
        assert_eq!(pid_in("riptrace-812-0-1", "riptrace-", '-'), Some("812"));
        for other in ["rtbx0", "rtb812", "rt-eth0", "docker0", "riptrace-web-1"] {
            assert_eq!(pid_in(other, "rtb", 'x').or(pid_in(other, "riptrace-", '-')), None, "{other}");
        }
    }

    #[test]
    fn a_base_address_passes_over_networks_in_use() {
        let taken = "2: rtb1x0    inet 198.18.7.1/24 scope global rtb1x0\n3: rtb1x1    inet 198.18.8.1/24 brd";
        assert_eq!(free_among(7, taken).unwrap(), [198, 18, 9]);
        assert_eq!(free_among(511, taken).unwrap(), [198, 19, 255]);
        assert_eq!(free_among(512, taken).unwrap(), [198, 18, 0]);
    }
}

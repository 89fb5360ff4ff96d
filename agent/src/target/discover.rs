//! Which processes this host has.

use super::TargetError;
use super::environment;
use super::status::{self, Privileges};
use riptrace_protocol::ids::ProcessKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes of an environment that are read: longer ones are cut. Linux allows some megabytes, people some kilobytes.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a cgroup file that are read.
const CGROUP_BYTES_MAX: u64 = 1 << 16;

/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// Which processes are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoverConfig {
    /// Only processes whose environment has this variable with this value: several hosts on one machine.
    pub only_env: Option<(String, String)>,
}

/// A process that runs an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Which process.
    pub key: ProcessKey,
    /// Its parent, when it was looked at.
    pub parent: u32,
    /// Where its executable can be read: /proc/PID/exe, which works across mount namespaces and for deleted files.
    pub exe_path: PathBuf,
    /// Path of the executable as the process sees it.
    pub exe: String,
    /// `RIPTRACE_SERVICE` or `OTEL_SERVICE_NAME` of its environment, else the executable's name.
    pub service: String,
    /// `RIPTRACE_LABELS` of its environment.
    pub labels: BTreeMap<String, String>,
    /// Container id, where its control group tells one.
    pub container: Option<String>,
    /// Why it cannot be traced, as far as the agent's privileges go.
    pub refused: Option<String>,
}

/// A process is looked at this often before it is taken for what it is: a child runs its parent's program until it calls
/// execve(2), and a shell may become the service that it starts.
const YOUNG_LOOKS: u64 = 5;
/// After that it is looked at by turns, each this often: a pid may be another process's by then, or run another program.
const TURNS: u64 = 8;
/// Every so many turns it is looked at whole, though it is the same process and program: it may have started that anew, in
/// another environment. What runs no program is looked at only then: most pids of a host are threads of the kernel's own.
const WHOLE_TURNS: u64 = 8;
/// What changes with every process that begins or ends.
const LOAD: &str = "/proc/loadavg";

/// The processes of this host, looked at again and again.
#[derive(Debug, Default)]
pub struct Discovery {
    looks: u64,
    known: BTreeMap<u32, Known>,
    /// [`LOAD`], kept open: what is read from its beginning is what holds then.
    load: Option<File>,
    /// How many tasks there were at the last look through /proc, and which began last.
    tasks: Option<(String, String)>,
}

#[derive(Debug)]
struct Known {
    /// The look that saw the pid first.
    first: u64,
    /// The link to its program and when it began, at its last look.
    identity: Option<(PathBuf, u64)>,
    seen: Option<ProcessSeen>,
}

impl Discovery {
    /// The processes of this host now, by pid. Kernel threads, zombies, the agent itself, processes that run no ELF file
    /// and those whose executable the agent may not read are left out.
    ///
    /// A process that is new is looked at each time, which costs some small reads of /proc; others by turns. One of
    /// `traced` is asked each time whether it is the same. That one has ended is known at once. While no process begins
    /// or ends /proc is not looked through.
    pub fn look(
        &mut self,
        config: &DiscoverConfig,
        traced: &BTreeSet<ProcessKey>,
    ) -> Result<Vec<ProcessSeen>, TargetError> {
        let own = std::process::id();
        // Read before: what begins meanwhile is a change the next time.
        let tasks = self.tasks_now();
        self.looks += 1;
        if tasks.is_none() || tasks != self.tasks {
            let path = "/proc".to_owned();
            let entries = fs::read_dir(&path).map_err(|source| TargetError::Read { path, source })?;
            let pids: BTreeSet<u32> = entries
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .filter(|&pid| pid != own)
                .collect();
            self.known.retain(|pid, _| pids.contains(pid));
            for pid in pids {
                self.known.entry(pid).or_insert(Known { first: self.looks, identity: None, seen: None });
            }
            self.tasks = tasks;
        }
        let mut privileges = None;
        let traced: BTreeSet<u32> = traced.iter().map(|key| key.pid).collect();
        for (&pid, known) in &mut self.known {
            let is_young = self.looks - known.first < YOUNG_LOOKS;
            let is_turn = self.looks % TURNS == u64::from(pid) % TURNS;
            let is_whole = is_turn && self.looks / TURNS % WHOLE_TURNS == u64::from(pid) / TURNS % WHOLE_TURNS;
            let is_due = if known.identity.is_some() { is_turn } else { is_whole };
            if !is_young && !is_due && !traced.contains(&pid) {
                continue;
            }
            let identity = identity(pid);
            if identity.is_none() {
                (known.identity, known.seen) = (None, None);
                continue;
            }
            if is_young || is_whole || identity != known.identity {
                if identity != known.identity {
                    // It is another one, and may become a third.
                    known.first = self.looks;
                }
                let privileges = match privileges {
                    Some(known) => known,
                    None => *privileges.insert(status::privileges()?),
                };
                known.seen = look_at(pid, config, privileges);
                known.identity = identity;
            }
        }
        Ok(self.known.values().filter_map(|known| known.seen.clone()).collect())
    }

    /// How many tasks there are, and which began last (proc_loadavg(5)); `None` where that is not told.
    fn tasks_now(&mut self) -> Option<(String, String)> {
        let load = match &mut self.load {
            Some(load) => load,
            none => none.insert(File::open(LOAD).ok()?),
        };
        // Five short fields.
        let mut text = [0; 128];
        let bytes = load.read_at(&mut text, 0).ok()?;
        let mut fields = str::from_utf8(text.get(..bytes)?).ok()?.split_whitespace().skip(3);
        let (_, all) = fields.next()?.split_once('/')?;
        Some((all.to_owned(), fields.next()?.to_owned()))
    }
}

/// Which program a process runs, and since when the process is there; `None` for a kernel thread and a zombie.
fn identity(pid: u32) -> Option<(PathBuf, u64)> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some((exe, status::start_time(pid).ok()?))
}

/// `None` for what is left out; a process that ends while it is looked at is left out, too.
fn look_at(pid: u32, config: &DiscoverConfig, privileges: Privileges) -> Option<ProcessSeen> {
    let exe_path = PathBuf::from(format!("/proc/{pid}/exe"));
    // A kernel thread and a zombie have no executable.
    let exe = fs::read_link(&exe_path).ok()?.to_string_lossy().into_owned();
    let (parent, start_time) = status::parent_and_start_time(pid).ok()?;
    let key = ProcessKey { pid, start_time };
    let environment = read_some(&format!("/proc/{pid}/environ"), ENVIRONMENT_BYTES_MAX).unwrap_or_default();
    if let Some((name, value)) = &config.only_env
        && environment::variable(&environment, name).as_ref() != Some(value)
    {
        return None;
    }
    let mut magic = [0; 4];
    File::open(&exe_path).ok()?.read_exact(&mut magic).ok()?;
    if &magic != b"\x7fELF" {
        return None;
    }
    let user = status::status(pid).ok()?.user;
    let cgroup = read_some(&format!("/proc/{pid}/cgroup"), CGROUP_BYTES_MAX).unwrap_or_default();
    // The pid may have been reused since its start time was read.
    if status::start_time(pid).ok()? != key.start_time {
        return None;
    }
    Some(ProcessSeen {
        key,
        parent,
        service: environment::service(&environment, &exe),
        labels: environment::labels(&environment),
        container: environment::container(&String::from_utf8_lossy(&cgroup)),
        refused: privileges.refusal(user),
        exe_path,
        exe,
    })
}

fn read_some(path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Most are smaller: one read, and one that finds the end.
    let mut bytes = Vec::with_capacity(READ_BYTES);
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Killed(Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Starts `command` and returns once its environment can be read.
    fn spawned(command: &mut Command) -> Killed {
        let child = Killed(command.spawn().unwrap());
        until_environment(&child);
        child
    }

    /// An exec gives up the old memory, which is when `spawn` returns and the link to the executable is the new one,
    /// a moment before the new memory holds the environment.
    fn until_environment(child: &Killed) {
        while fs::read(format!("/proc/{}/environ", child.0.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_seen_with_what_its_environment_says_and_only_on_its_host() {
        let host = format!("host-{}", std::process::id());
        let child = spawned(
            Command::new("/bin/sleep")
                .arg("60")
                .env("RIPTRACE_HOST", &host)
                .env("RIPTRACE_SERVICE", "sleeper")
                .env("RIPTRACE_LABELS", "env=test"),
        );
        let only = |value: &str| DiscoverConfig { only_env: Some(("RIPTRACE_HOST".to_owned(), value.to_owned())) };
        let discover = |config: &DiscoverConfig| Discovery::default().look(config, &BTreeSet::new());
        let seen = discover(&only(&host)).unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!((seen[0].key.pid, seen[0].service.as_str()), (child.0.id(), "sleeper"));
        assert_eq!(seen[0].labels["env"], "test");
        assert!(fs::read(&seen[0].exe_path).unwrap().starts_with(b"\x7fELF"));
        assert!(discover(&only("another")).unwrap().is_empty());
        let all = discover(&DiscoverConfig::default()).unwrap();
        assert!(all.iter().any(|process| process.key == seen[0].key));
        assert!(all.iter().all(|process| process.key.pid != std::process::id()), "itself is left out");
    }

    #[test]
    fn what_a_process_becomes_is_seen_and_that_it_ended() {
        let host = format!("becoming-{}", std::process::id());
        let config = DiscoverConfig { only_env: Some(("RIPTRACE_HOST".to_owned(), host.clone())) };
        let shell = |script: &str| {
            let mut made = Command::new("/bin/sh");
            spawned(made.args(["-c", script]).env("RIPTRACE_HOST", &host).stdin(std::process::Stdio::piped()))
        };
        let mut child = shell("read line; exec sleep 60");
        let mut discovery = Discovery::default();
        // Long enough for it to be old.
        for _ in 0..=YOUNG_LOOKS + TURNS {
            assert_eq!(discovery.look(&config, &BTreeSet::new()).unwrap().len(), 1);
        }
        drop(child.0.stdin.take());
        let exe = fs::canonicalize("/bin/sleep").unwrap();
        // The kernel says when it has become the other program.
        while fs::read_link(format!("/proc/{}/exe", child.0.id())).unwrap() != exe {
            std::thread::yield_now();
        }
        until_environment(&child);
        let became = |discovery: &mut Discovery, traced: &BTreeSet<ProcessKey>| {
            let seen = discovery.look(&config, traced).unwrap();
            seen[0].exe == exe.to_string_lossy()
        };
        assert!((0..TURNS).any(|_| became(&mut discovery, &BTreeSet::new())), "at its turn");
        let key = discovery.look(&config, &BTreeSet::new()).unwrap()[0].key;
        // One that is traced is looked at each time.
        let traced = BTreeSet::from([key]);
        discovery.known.values_mut().for_each(|known| (known.first, known.identity, known.seen) = (0, None, None));
        assert!(became(&mut discovery, &traced));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        assert!(discovery.look(&config, &traced).unwrap().is_empty(), "at once");
    }
}

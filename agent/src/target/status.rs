//! Whether a process can be traced: proc_pid_status(5), proc_pid_stat(5).

use super::proc_file;
use riptrace_protocol::ids::ProcessKey;
use std::fs::File;
use std::io::Read;
use std::{fs, io};

/// Why a process cannot be looked at or traced.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not there, or another process has its pid now.
    #[error("process {pid} is gone")]
    Gone {
        /// Which process.
        pid: u32,
    },
    /// It has ended and waits for its parent.
    #[error("process {pid} has ended and waits for its parent to notice")]
    Zombie {
        /// Which process.
        pid: u32,
    },
    /// Another tracer has it.
    #[error("process {pid} is traced by process {tracer} ({name}); detach that debugger first")]
    ForeignTracer {
        /// Which process.
        pid: u32,
        /// Its tracer.
        tracer: u32,
        /// The tracer's name.
        name: String,
    },
    /// The agent may not look into it.
    #[error(
        "not allowed to read {path}: run the agent as the user of process {pid}, or give it CAP_SYS_PTRACE \
         (setcap cap_sys_ptrace+ep RIPTRACE, or as root); with Yama, kernel.yama.ptrace_scope=0 allows same-user tracing"
    )]
    Denied {
        /// Which process.
        pid: u32,
        /// What was to be read.
        path: String,
    },
    /// A file of /proc could not be read.
    #[error("cannot read {path}: {source}; is /proc mounted?")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of /proc does not say what it should.
    #[error("{path} does not tell {what}; is /proc mounted?")]
    Format {
        /// Which file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
}

impl TargetError {
    pub(crate) fn of_read(pid: u32, path: String, source: io::Error) -> TargetError {
        match source.kind() {
            io::ErrorKind::NotFound => TargetError::Gone { pid },
            io::ErrorKind::PermissionDenied => TargetError::Denied { pid, path },
            _ if source.raw_os_error() == Some(libc::ESRCH) => TargetError::Gone { pid },
            _ => TargetError::Read { path, source },
        }
    }
}

/// How system calls of a process are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// Not at all.
    Off,
    /// Strictly: read, write, exit and sigreturn only.
    Strict,
    /// By a program, which may kill the process for a call that it does not know.
    Filter,
}

/// What /proc/TID/status tells of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Name of the thread.
    pub name: String,
    /// Its process.
    pub process: u32,
    /// State letter: R, S, D, T, t, Z, X.
    pub state: char,
    /// Who traces it; 0 for nobody.
    pub tracer: u32,
    /// Effective user.
    pub user: u32,
    /// How its system calls are filtered.
    pub seccomp: Seccomp,
    /// Signals it has handlers for: bit 0 is signal 1.
    pub caught_signals: u64,
    /// Signals it has blocked.
    pub blocked_signals: u64,
    /// Whether it runs on a shadow stack.
    pub shadow_stack: bool,
}

/// Bytes of a stat line that are read: 52 numbers and a name take some hundred, field 22 is in the middle.
const STAT_BYTES_MAX: usize = 2048;

/// The status of a thread (a process's id is that of its first thread).
pub fn status(tid: u32) -> Result<Status, TargetError> {
    let path = format!("/proc/{tid}/status");
    let text = proc_file::read_text(&path).map_err(|source| TargetError::of_read(tid, path.clone(), source))?;
    parse_status(&text).map_err(|what| TargetError::Format { path, what })
}

fn parse_status(text: &str) -> Result<Status, &'static str> {
    let field = |name: &'static str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).ok_or(name)
    };
    let number = |name: &'static str| field(name)?.parse::<u32>().map_err(|_| name);
    let signals = |name: &'static str| u64::from_str_radix(field(name)?, 16).map_err(|_| name);
    Ok(Status {
        name: field("Name")?.to_owned(),
        process: number("Tgid")?,
        state: field("State")?.chars().next().ok_or("State")?,
        tracer: number("TracerPid")?,
        user: field("Uid")?.split_whitespace().nth(1).and_then(|id| id.parse().ok()).ok_or("Uid")?,
        // A kernel without seccomp has no such line.
        seccomp: match field("Seccomp").unwrap_or("0") {
            "0" => Seccomp::Off,
            "1" => Seccomp::Strict,
            _ => Seccomp::Filter,
        },
        caught_signals: signals("SigCgt")?,
        blocked_signals: signals("SigBlk")?,
        shadow_stack: field("x86_Thread_features").is_ok_and(|features| features.contains("shstk")),
    })
}

/// When a process started, in clock ticks since boot.
pub fn start_time(pid: u32) -> Result<u64, TargetError> {
    parent_and_start_time(pid).map(|(_, start_time)| start_time)
}

/// A process's parent, and when it started, in clock ticks since boot.
pub(super) fn parent_and_start_time(pid: u32) -> Result<(u32, u64), TargetError> {
    let path = format!("/proc/{pid}/stat");
    // It is looked at again and again for each process: one read, and none to find out how long it is.
    let mut text = [0; STAT_BYTES_MAX];
    let read = File::open(&path).and_then(|mut file| file.read(&mut text));
    let read = read.map_err(|source| TargetError::of_read(pid, path.clone(), source))?;
    parse_stat(&String::from_utf8_lossy(&text[..read]))
        .ok_or(TargetError::Format { path, what: "the parent and the start time (fields 4 and 22)" })
}

/// Fields 4 and 22; field 2 is the name in parentheses and may hold any character, parentheses included.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(4 - 3);
    let parent = fields.next()?.parse().ok()?;
    Some((parent, fields.nth(22 - 5)?.parse().ok()?))
}

/// The threads of a process.
pub fn tasks(pid: u32) -> Result<Vec<u32>, TargetError> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).map_err(|source| TargetError::of_read(pid, path, source))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Whether a process can be traced as far as /proc tells: there, the same one, alive, and nobody else's tracee.
pub fn check(key: ProcessKey) -> Result<Status, TargetError> {
    let pid = key.pid;
    let status = status(pid)?;
    if start_time(pid)? != key.start_time {
        return Err(TargetError::Gone { pid });
    }
    if matches!(status.state, 'Z' | 'X') {
        return Err(TargetError::Zombie { pid });
    }
    if status.tracer != 0 {
        let tracer = status.tracer;
        let name = self::status(tracer).map_or_else(|_| "unknown".to_owned(), |tracer| tracer.name);
        return Err(TargetError::ForeignTracer { pid, tracer, name });
    }
    Ok(status)
}

/// What the agent itself may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privileges {
    /// Whether it may trace processes of other users (CAP_SYS_PTRACE).
    pub ptrace_others: bool,
    /// Yama's restriction of same-user tracing: 0 none, 1 only own children, 2 only with CAP_SYS_PTRACE, 3 nobody.
    pub yama_scope: u8,
    /// The agent's own effective user.
    pub user: u32,
}

/// CAP_SYS_PTRACE, capabilities(7) and linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;

/// What this process may do.
pub fn privileges() -> Result<Privileges, TargetError> {
    let path = "/proc/self/status".to_owned();
    let text =
        proc_file::read_text(&path).map_err(|source| TargetError::of_read(std::process::id(), path.clone(), source))?;
    let effective = text
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or(TargetError::Format { path, what: "the capabilities (CapEff)" })?;
    // Without Yama there is no such file, and no such restriction.
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    Ok(Privileges {
        ptrace_others: effective >> CAP_SYS_PTRACE & 1 == 1,
        yama_scope: yama.ok().and_then(|scope| scope.trim().parse().ok()).unwrap_or(0),
        user: nix::unistd::geteuid().as_raw(),
    })
}

impl Privileges {
    /// Why a process of `user` cannot be traced with these; `None` if it can.
    pub fn refusal(&self, user: u32) -> Option<String> {
        if self.yama_scope >= 3 {
            return Some("kernel.yama.ptrace_scope=3 forbids all tracing until the next boot; boot with 0".to_owned());
        }
        if self.ptrace_others {
            return None;
        }
        if self.user != user {
            return Some(format!(
                "it belongs to user {user} and the agent runs as user {}: give the agent CAP_SYS_PTRACE, or run one \
                 as that user",
                self.user
            ));
        }
        (self.yama_scope > 0).then(|| {
            format!(
                "kernel.yama.ptrace_scope={} forbids tracing own processes: set it to 0, or give the agent \
                 CAP_SYS_PTRACE",
                self.yama_scope
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_start_time() {
        let rest = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("1 (a) b) {rest}")), Some((4, 22)));
        assert_eq!(parse_stat("1 (a"), None);
        assert_eq!(parse_stat("1 (a) S 2"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        let status = status(pid).unwrap();
        assert_eq!((status.process, status.tracer), (pid, 0));
        assert!(tasks(pid).unwrap().contains(&pid));
        let key = ProcessKey { pid, start_time: start_time(pid).unwrap() };
        assert_eq!(parent_and_start_time(pid).unwrap().0, std::os::unix::process::parent_id());
        assert!(check(key).is_ok());
        let reused = ProcessKey { start_time: key.start_time + 1, ..key };
        assert!(matches!(check(reused), Err(TargetError::Gone { .. })));
    }

    #[test]
    fn a_status_with_a_field_missing_says_which() {
        assert_eq!(parse_status("Name:\tx\nTgid:\t1\n"), Err("State"));
        assert_eq!(parse_status(""), Err("Name"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let root = Privileges { ptrace_others: true, yama_scope: 1, user: 0 };
        assert_eq!(root.refusal(1000), None);
        let user = Privileges { ptrace_others: false, yama_scope: 0, user: 1000 };
        assert_eq!(user.refusal(1000), None);
        assert!(user.refusal(0).unwrap().contains("CAP_SYS_PTRACE"));
        assert!(Privileges { yama_scope: 1, ..user }.refusal(1000).unwrap().contains("ptrace_scope=1"));
        assert!(Privileges { yama_scope: 3, ..root }.refusal(0).unwrap().contains("boot"));
    }
}

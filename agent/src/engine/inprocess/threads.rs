//! Thread ids: what a record has is the id as the process itself sees it; a hit has the host's.

use crate::target::{self, proc_file};
use riptrace_protocol::ids::ProcessKey;
use std::collections::HashMap;
use std::fs;

/// Looks for a thread that is not known, in a row without finding one, at most; a thread that ended before it was looked
/// for is never found. The next success allows them again.
const MISSES_MAX: u32 = 64;

/// The threads of one process.
#[derive(Debug)]
pub(super) struct Threads {
    /// `None` where the process numbers threads as the agent does.
    other: Option<(ProcessKey, HashMap<u64, u32>)>,
    misses: u32,
}

impl Threads {
    /// Of a process.
    pub(super) fn of(process: ProcessKey) -> Threads {
        let own = fs::read_link("/proc/self/ns/pid").ok();
        let its = fs::read_link(format!("/proc/{}/ns/pid", process.pid)).ok();
        match own.is_some() && own == its {
            true => Threads { other: None, misses: 0 },
            false => Threads { other: Some((process, HashMap::new())), misses: 0 },
        }
    }

    /// Of a process that numbers threads as the agent does.
    #[cfg(test)]
    pub(super) fn same_namespace() -> Threads {
        Threads { other: None, misses: 0 }
    }

    /// The host's id of a thread; 0 where it is not known.
    pub(super) fn on_host(&mut self, inside: Option<u64>) -> u32 {
        let Some(inside) = inside.filter(|id| *id != 0) else { return 0 };
        let Some((process, known)) = &mut self.other else { return u32::try_from(inside).unwrap_or(0) };
        if let Some(id) = known.get(&inside) {
            return *id;
        }
        if self.misses >= MISSES_MAX {
            return 0;
        }
        self.misses += 1;
        for tid in target::tasks(process.pid).unwrap_or_default() {
            let status = proc_file::read_text(format!("/proc/{}/task/{tid}/status", process.pid)).unwrap_or_default();
            if let Some(innermost) = innermost(&status) {
                known.insert(innermost, tid);
            }
        }
        match known.get(&inside) {
            Some(id) => {
                self.misses = 0;
                *id
            }
            None => 0,
        }
    }
}

/// The last of a thread's ids: that in its own namespace (proc_pid_status(5), `NSpid`).
fn innermost(status: &str) -> Option<u64> {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_id_is_the_process_s_own() {
        assert_eq!(innermost("Name:\tx\nNSpid:\t4711\t12\nThreads:\t3\n"), Some(12));
        assert_eq!(innermost("NSpid:\t4711\n"), Some(4711));
        assert_eq!(innermost("Name:\tx\n"), None);
    }

    #[test]
    fn threads_of_this_process_are_known_and_others_are_not() {
        let pid = std::process::id();
        let start_time = target::start_time(pid).unwrap();
        let mut threads = Threads { other: Some((ProcessKey { pid, start_time }, HashMap::new())), misses: 0 };
        assert_eq!(threads.on_host(Some(u64::from(pid))), pid);
        assert_eq!(threads.on_host(Some(u64::MAX)), 0);
        assert_eq!(threads.on_host(None), 0);
        assert_eq!(Threads::of(ProcessKey { pid, start_time }).on_host(Some(4711)), 4711);
    }
}

//! Synchronisation without the process: a thread of the agent runs on every processor for a moment.
//!
//! Whatever ran there is switched out and in again by a write of CR3, which is a serializing instruction (Intel SDM
//! volume 3, 10.3; AMD APM volume 2, 7.6.4), and a thread that comes from elsewhere finds a processor that has fetched
//! nothing old. It takes a scheduler's turn per processor: fine for a process that can make no call, slow for many.

use super::Synchronise;
use crate::engine::sys;
use std::{fs, io, thread};

/// Runs on every processor that is online.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct VisitCpus;

/// The processors that are online (proc(5), cpu(7) of the kernel's ABI documentation: `0-3,8`).
const ONLINE: &str = "/sys/devices/system/cpu/online";

impl Synchronise for VisitCpus {
    /// Fails where the agent may not run on every processor.
    fn synchronise(&mut self) -> io::Result<()> {
        let online = fs::read_to_string(ONLINE)?;
        let cpus = list(&online).ok_or_else(|| io::Error::other(format!("{ONLINE} says {online:?}")))?;
        // In a thread of its own: it keeps its last processor.
        thread::scope(|scope| {
            let visit = || {
                // A machine that is busy would make it wait for its turn on each.
                sys::hurry();
                cpus.iter().try_for_each(|&cpu| sys::run_on(cpu))
            };
            let visits = thread::Builder::new().name("visit-cpus".to_owned()).spawn_scoped(scope, visit)?;
            visits.join().unwrap_or_else(|_| Err(io::Error::other("the visiting thread has panicked")))
        })
    }
}

/// Numbers and ranges, separated by commas.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_is_visited() {
        assert_eq!(list("0\n"), Some(vec![0]));
        assert_eq!(list("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(list(""), None);
        let before = sys::cpus_of(0).unwrap();
        VisitCpus.synchronise().unwrap();
        assert_eq!(sys::cpus_of(0).unwrap(), before, "this thread may run where it might");
    }
}

//! Threads as the editor sees them: one per process and goroutine (or thread) that has hits, and one for the fleet as a
//! whole, which is always there: an editor cannot pause a session without threads.

use super::super::limits::THREADS_LISTED_MAX;
use riptrace_protocol::ids::ProcessId;
use riptrace_protocol::stream::OrderedHit;
use std::collections::{BTreeMap, HashMap};

/// The fleet as a whole.
pub(super) const FLEET_THREAD: i64 = 1;

/// Who made a hit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Who {
    process: ProcessId,
    runner: Runner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Runner {
    Goroutine(u64),
    Thread(u32),
}

#[derive(Debug)]
struct Known {
    who: Who,
    name: String,
    hits: usize,
    newest: u64,
}

/// Threads that have hits in the timeline.
#[derive(Debug)]
pub(super) struct Threads {
    last: i64,
    ids: HashMap<Who, i64>,
    known: BTreeMap<i64, Known>,
}

impl Default for Threads {
    fn default() -> Self {
        Threads { last: FLEET_THREAD, ids: HashMap::new(), known: BTreeMap::new() }
    }
}

/// Who made a hit.
pub(super) fn who(hit: &OrderedHit) -> Who {
    let process = ProcessId { host: hit.host.clone(), key: hit.raw.process };
    Who { process, runner: hit.raw.goroutine.map_or(Runner::Thread(hit.raw.thread), Runner::Goroutine) }
}

impl Threads {
    /// Counts a hit; returns its thread and whether it is new.
    pub(super) fn add(&mut self, hit: &OrderedHit) -> (i64, bool) {
        let who = who(hit);
        if let Some(&id) = self.ids.get(&who) {
            if let Some(known) = self.known.get_mut(&id) {
                known.hits += 1;
                known.newest = hit.seq;
            }
            return (id, false);
        }
        self.last += 1;
        let runner = match who.runner {
            Runner::Goroutine(id) => format!("goroutine {id}"),
            Runner::Thread(id) => format!("thread {id}"),
        };
        let name = format!("{} {}[{}] {runner}", hit.host, hit.service, hit.raw.process.pid);
        self.ids.insert(who.clone(), self.last);
        self.known.insert(self.last, Known { who, name, hits: 1, newest: hit.seq });
        (self.last, true)
    }

    /// Takes back a hit that is not kept any more.
    pub(super) fn forget(&mut self, hit: &OrderedHit) {
        let Some(&id) = self.ids.get(&who(hit)) else { return };
        let Some(known) = self.known.get_mut(&id) else { return };
        known.hits -= 1;
        if known.hits == 0 {
            self.ids.remove(&known.who);
            self.known.remove(&id);
        }
    }

    /// The thread of a hit that is in the timeline.
    pub(super) fn of(&self, hit: &OrderedHit) -> Option<i64> {
        self.ids.get(&who(hit)).copied()
    }

    /// The newest hit of a thread.
    pub(super) fn newest_hit(&self, id: i64) -> Option<u64> {
        self.known.get(&id).map(|known| known.newest)
    }

    /// Ids and names, in the order of ids: those with the newest hits, and `always`, if it is one.
    pub(super) fn list(&self, always: Option<i64>) -> Vec<(i64, &str)> {
        let mut newest_first: Vec<(&i64, &Known)> = self.known.iter().collect();
        newest_first.sort_by_key(|(id, known)| (always != Some(**id), std::cmp::Reverse(known.newest)));
        newest_first.truncate(THREADS_LISTED_MAX);
        let mut listed: Vec<(i64, &str)> = newest_first.into_iter().map(|(&id, k)| (id, k.name.as_str())).collect();
        listed.sort_unstable();
        listed
    }

    /// Forgets all; ids are not used again.
    pub(super) fn clear(&mut self) {
        *self = Threads { last: self.last, ..Threads::default() };
    }
}

//! Threads of the editor: the fleet as a whole, and one per host, process and goroutine that has hits.
//!
//! A busy server has a goroutine per request, so a thread gets its number when the editor is first told of it (its hit
//! is opened, or it is listed), not when its hit comes: what is kept here is bounded by what was looked at.

use super::super::limits::{THREADS_KNOWN_MAX, THREADS_LISTED_MAX, THREADS_SCANNED_MAX};
use crate::timeline::{Glance, Origin, Runner, Timeline};
use riptrace_protocol::stream::OrderedHit;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The fleet as a whole.
pub(super) const FLEET_THREAD: i64 = 1;

/// Who made a hit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) origin: Origin,
    pub(super) runner: Runner,
}

impl Who {
    /// Who made a hit.
    pub(super) fn of(hit: &OrderedHit) -> Who {
        Who { origin: Origin::of(hit), runner: Runner::of(hit) }
    }

    fn of_glance(hit: &Glance<'_>) -> Option<Who> {
        Some(Who { origin: hit.origin()?.clone(), runner: hit.runner() })
    }

    fn name(&self) -> String {
        let Origin { host, process, service } = &self.origin;
        match self.runner {
            Runner::Goroutine(id) => format!("{host} {service}[{}] goroutine {id}", process.pid),
            Runner::Thread(id) => format!("{host} {service}[{}] thread {id}", process.pid),
        }
    }
}

/// Threads that the editor knows.
#[derive(Debug)]
pub(super) struct Threads {
    last: i64,
    ids: HashMap<Who, i64>,
    known: BTreeMap<i64, Who>,
}

impl Default for Threads {
    fn default() -> Self {
        Threads { last: FLEET_THREAD, ids: HashMap::new(), known: BTreeMap::new() }
    }
}

impl Threads {
    /// The number of a thread, and whether the editor does not know it yet.
    pub(super) fn number(&mut self, who: &Who) -> (i64, bool) {
        if let Some(&id) = self.ids.get(who) {
            return (id, false);
        }
        self.last += 1;
        self.ids.insert(who.clone(), self.last);
        self.known.insert(self.last, who.clone());
        while self.known.len() > THREADS_KNOWN_MAX {
            if let Some((_, oldest)) = self.known.pop_first() {
                self.ids.remove(&oldest);
            }
        }
        (self.last, true)
    }

    /// The number of a thread that the editor knows.
    pub(super) fn of(&self, hit: &OrderedHit) -> Option<i64> {
        self.ids.get(&Who::of(hit)).copied()
    }

    /// The thread of a number.
    pub(super) fn who(&self, id: i64) -> Option<&Who> {
        self.known.get(&id)
    }

    /// Ids and names in the order of ids: `always`, and those with the newest hits.
    pub(super) fn list(&mut self, timeline: &Timeline, always: Option<&OrderedHit>) -> Vec<(i64, String)> {
        let mut seen: HashSet<(&Origin, Runner)> = HashSet::new();
        let mut newest_first: Vec<Who> = always.map(Who::of).into_iter().collect();
        for hit in timeline.before(u64::MAX).take(THREADS_SCANNED_MAX) {
            if newest_first.len() >= THREADS_LISTED_MAX {
                break;
            }
            let Some(origin) = hit.origin() else { continue };
            if seen.insert((origin, hit.runner())) {
                newest_first.extend(Who::of_glance(&hit).filter(|who| always.map(Who::of).as_ref() != Some(who)));
            }
        }
        // Numbers grow with time, as far as they are given here.
        let mut listed: Vec<(i64, String)> =
            newest_first.iter().rev().map(|who| (self.number(who).0, who.name())).collect();
        listed.sort_unstable_by_key(|(id, _)| *id);
        listed
    }

    /// Forgets all; ids are not used again.
    pub(super) fn clear(&mut self) {
        *self = Threads { last: self.last, ..Threads::default() };
    }
}

/// Number of the newest hit of a thread that is kept.
pub(super) fn newest_of(timeline: &Timeline, who: &Who) -> Option<u64> {
    let origins = timeline.mark_origins(|origin| *origin == who.origin);
    timeline.before(u64::MAX).find(|hit| hit.runner() == who.runner && hit.is_from(&origins)).map(|hit| hit.seq())
}

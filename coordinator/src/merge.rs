//! The merge: in which order the fleet's hits are shown. This file is the whole rule.
//!
//! ```text
//! source = one run of one agent; its hits come in number order and its watermark says "nothing older is to come"
//! domain = all sources that share a clock: merged exactly, by (domain time, host, run, number)
//! fleet  = all domains: merged by coordinated time (the middle of the interval), ties by (domain, host, run, number)
//! ```
//!
//! - A hit is released once every source that is waited for has said that nothing older is to come. A source is waited
//!   for until it has been silent for [`MERGE_WAIT_MS`].
//! - Released time never runs backwards: a hit gets the middle of its interval, or the newest released time if that
//!   is later and the interval allows it. The uncertainty told covers the interval from wherever the time was put.
//! - A hit is *late* when its interval lies wholly before what has been released, or a later hit of its own domain
//!   has been released. It is appended with its own time and never inserted.
//! - Each source's hits are released in number order, each exactly once.
//!
//! What it is not: it knows no session, no batch and no NATS; a payload is carried, not looked at.

use crate::limits::{MERGE_BYTES_MAX, MERGE_HITS_MAX, MS, SOURCES_MAX, UNKNOWN_CLOCK_NS};
use riptrace_protocol::ids::{HostName, Incarnation};
use riptrace_protocol::limits::MERGE_WAIT_MS;
use riptrace_protocol::time::{ClockDomain, Interval};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// One run of one agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId {
    /// Which host.
    pub host: HostName,
    /// Which run of its agent.
    pub incarnation: Incarnation,
}

/// What is put into the merge.
#[derive(Debug)]
pub struct Item<T> {
    /// Its number among all hits of the source; never below that of the item before.
    pub number: u64,
    /// When it happened, in domain time.
    pub domain_ns: u64,
    /// When it arrived, in coordinated time: it cannot have happened after that.
    pub arrived_ns: i64,
    /// About how much memory it takes.
    pub bytes: usize,
    /// What is carried.
    pub payload: T,
}

/// What comes out of the merge, in order.
#[derive(Debug)]
pub struct Released<T> {
    /// Where it is from.
    pub source: SourceId,
    /// Whose clock stamped it.
    pub domain: ClockDomain,
    /// Its number.
    pub number: u64,
    /// Its place in coordinated time.
    pub time_ns: i64,
    /// When it truly happened, as far as the clocks can tell.
    pub interval: Interval,
    /// Its place is not its time's.
    pub late: bool,
    /// What was carried.
    pub payload: T,
}

impl<T> Released<T> {
    /// How far the truth may be from `time_ns`.
    pub fn uncertainty_ns(&self) -> u64 {
        self.time_ns.abs_diff(self.interval.lo_ns).max(self.time_ns.abs_diff(self.interval.hi_ns))
    }
}

#[derive(Debug)]
struct Source {
    /// `None` until its first batch: then it holds everything back.
    domain: Option<ClockDomain>,
    watermark_ns: u64,
    last_ns: u64,
    heard_ns: u64,
}

impl Source {
    fn waited_for(&self, now_ns: u64) -> bool {
        now_ns < self.heard_ns + MERGE_WAIT_MS * MS
    }
}

/// Key of an item within its domain.
type Key = (u64, SourceId, u64);

#[derive(Debug)]
struct Domain<T> {
    items: BTreeMap<Key, Item<T>>,
    /// Domain time of the newest item that was released.
    released_ns: u64,
    /// Since when its clock is unknown, monotonic; meaningless while it is known.
    unmapped_since_ns: u64,
}

/// The merge.
#[derive(Debug)]
pub struct Merge<T> {
    sources: BTreeMap<SourceId, Source>,
    domains: BTreeMap<ClockDomain, Domain<T>>,
    released_ns: i64,
    held: usize,
    held_bytes: usize,
}

impl<T> Merge<T> {
    /// An empty merge that goes on after `released_ns` of coordinated time.
    pub fn new(released_ns: i64) -> Self {
        Merge { sources: BTreeMap::new(), domains: BTreeMap::new(), released_ns, held: 0, held_bytes: 0 }
    }

    /// Waits for a source from now on, though nothing was heard of it yet, or not for long: it was just armed.
    pub fn expect(&mut self, source: &SourceId, now_ns: u64) {
        let source = self.source(source, now_ns);
        if !source.waited_for(now_ns) {
            source.heard_ns = now_ns;
        }
    }

    /// A source has said that nothing older than `watermark_ns` of its domain's time is to come.
    pub fn heard(&mut self, source: &SourceId, domain: &ClockDomain, watermark_ns: u64, now_ns: u64) {
        let source = self.source(source, now_ns);
        // One run of an agent has one clock: the one it named first.
        let domain = source.domain.get_or_insert_with(|| domain.clone()).clone();
        source.watermark_ns = source.watermark_ns.max(watermark_ns);
        source.heard_ns = now_ns;
        self.domains.entry(domain).or_insert_with(|| Domain {
            items: BTreeMap::new(),
            released_ns: 0,
            unmapped_since_ns: now_ns,
        });
    }

    /// Puts an item in; its source must have been [`Merge::heard`] before.
    pub fn push(&mut self, source: &SourceId, mut item: Item<T>) {
        let Some(state) = self.sources.get_mut(source) else { return };
        let Some(domain) = state.domain.as_ref().and_then(|domain| self.domains.get_mut(domain)) else { return };
        // A source whose clock ran backwards keeps its own order.
        item.domain_ns = item.domain_ns.max(state.last_ns);
        state.last_ns = item.domain_ns;
        self.held += 1;
        self.held_bytes += item.bytes;
        domain.items.insert((item.domain_ns, source.clone(), item.number), item);
    }

    /// Forgets a source that says nothing more. What it has said is still released.
    pub fn forget(&mut self, source: &SourceId) {
        self.sources.remove(source);
    }

    /// Nothing could be heard for a while: all sources get their time anew.
    pub fn wait_anew(&mut self, now_ns: u64) {
        self.sources.values_mut().for_each(|source| source.heard_ns = now_ns);
        self.domains.values_mut().for_each(|domain| domain.unmapped_since_ns = now_ns);
    }

    /// Coordinated time of the newest hit that was released.
    pub fn released_ns(&self) -> i64 {
        self.released_ns
    }

    /// How many items wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The sources whose word is waited for.
    pub fn waited_for(&self, now_ns: u64) -> impl Iterator<Item = &SourceId> {
        self.sources.iter().filter(move |(_, source)| source.waited_for(now_ns)).map(|(id, _)| id)
    }

    /// When time alone will release something, if it will: the first moment at which a source is given up.
    pub fn deadline_ns(&self, now_ns: u64) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        let sources = self.sources.values().filter(|s| s.waited_for(now_ns)).map(|s| s.heard_ns);
        let domains = self.domains.values().filter(|d| !d.items.is_empty()).map(|d| d.unmapped_since_ns);
        sources.chain(domains).map(|since| since + MERGE_WAIT_MS * MS).filter(|&at| at > now_ns).min()
    }

    /// Releases all that may be released now. `coordinated` maps domain time to coordinated time, as far as known.
    pub fn release(
        &mut self,
        now_ns: u64,
        coordinated: impl Fn(&ClockDomain, u64) -> Option<Interval>,
        mut out: impl FnMut(Released<T>),
    ) {
        if self.held == 0 {
            return;
        }
        let bound_ns = self.bound_ns(now_ns, &coordinated);
        let place = |name: &ClockDomain, item: &Item<T>| place(coordinated(name, item.domain_ns), item.arrived_ns);
        let mut heads = BinaryHeap::new();
        for (name, domain) in &self.domains {
            if let Some((key, item)) = domain.items.first_key_value() {
                let (middle_ns, interval) = place(name, item);
                heads.push(Reverse((middle_ns, name.clone(), key.clone(), (interval.lo_ns, interval.hi_ns))));
            }
        }
        while let Some(Reverse((middle_ns, name, key, (lo_ns, hi_ns)))) = heads.pop() {
            let overfull = self.held > MERGE_HITS_MAX || self.held_bytes > MERGE_BYTES_MAX;
            if bound_ns.is_some_and(|bound| middle_ns >= bound) && !overfull {
                break;
            }
            let Some(domain) = self.domains.get_mut(&name) else { continue };
            let Some(item) = domain.items.remove(&key) else { continue };
            self.held -= 1;
            self.held_bytes -= item.bytes;
            let interval = Interval { lo_ns, hi_ns };
            let late = hi_ns < self.released_ns || item.domain_ns < domain.released_ns;
            let time_ns = if late { middle_ns } else { middle_ns.max(self.released_ns) };
            self.released_ns = self.released_ns.max(time_ns);
            domain.released_ns = domain.released_ns.max(item.domain_ns);
            if let Some((key, item)) = domain.items.first_key_value() {
                let (middle_ns, interval) = place(&name, item);
                heads.push(Reverse((middle_ns, name.clone(), key.clone(), (interval.lo_ns, interval.hi_ns))));
            }
            let (_, source, number) = key;
            out(Released { source, domain: name, number, time_ns, interval, late, payload: item.payload });
        }
    }

    /// The coordinated time before which everything has arrived: `None` when nobody is waited for.
    fn bound_ns(&self, now_ns: u64, coordinated: &impl Fn(&ClockDomain, u64) -> Option<Interval>) -> Option<i64> {
        let mut bound: Option<i64> = None;
        let mut lower = |to: i64| bound = Some(bound.map_or(to, |bound| bound.min(to)));
        for source in self.sources.values().filter(|source| source.waited_for(now_ns)) {
            match &source.domain {
                None => lower(i64::MIN),
                Some(domain) => match coordinated(domain, source.watermark_ns) {
                    Some(interval) => lower(interval.middle_ns()),
                    None if self.clock_waited_for(domain, now_ns) => lower(i64::MIN),
                    None => {}
                },
            }
        }
        // A source may be gone while its hits still wait for a first word about its clock.
        for (name, domain) in self.domains.iter().filter(|(_, domain)| !domain.items.is_empty()) {
            if self.clock_waited_for(name, now_ns) && coordinated(name, domain.released_ns).is_none() {
                lower(i64::MIN);
            }
        }
        bound
    }

    fn clock_waited_for(&self, domain: &ClockDomain, now_ns: u64) -> bool {
        self.domains.get(domain).is_some_and(|domain| now_ns < domain.unmapped_since_ns + MERGE_WAIT_MS * MS)
    }

    fn source(&mut self, id: &SourceId, now_ns: u64) -> &mut Source {
        if !self.sources.contains_key(id) && self.sources.len() >= SOURCES_MAX {
            let oldest = self.sources.iter().min_by_key(|(_, s)| s.heard_ns).map(|(id, _)| id.clone());
            oldest.map(|oldest| self.sources.remove(&oldest));
        }
        self.sources.entry(id.clone()).or_insert(Source { domain: None, watermark_ns: 0, last_ns: 0, heard_ns: now_ns })
    }
}

/// Where in coordinated time an item belongs: its place, and the interval that holds the truth. With an unknown clock,
/// or one that claims the future, all that is certain is that it happened before it arrived.
fn place(interval: Option<Interval>, arrived_ns: i64) -> (i64, Interval) {
    match interval {
        Some(interval) if interval.lo_ns <= arrived_ns => (interval.middle_ns(), interval),
        _ => (arrived_ns, Interval { lo_ns: arrived_ns.saturating_sub(UNKNOWN_CLOCK_NS), hi_ns: arrived_ns }),
    }
}

#[cfg(test)]
mod tests;

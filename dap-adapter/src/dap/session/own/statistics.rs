//! `riptrace/statistics`: what has arrived and what is missing, in numbers; and the events that say that something
//! has changed, none of them more often than an editor can draw.

use super::super::super::limits::{CHANGED_INTERVAL, STATISTICS_INTERVAL};
use super::super::state::{Phase, State, Turn};
use riptrace_protocol::hit::DropReason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Seconds over which the rate of hits is told.
const RATE_SECONDS: usize = 5;

/// Numbers of the session, and what is still to be told.
#[derive(Debug, Default)]
pub(in super::super) struct Statistics {
    hits: u64,
    dropped: u64,
    drops: BTreeMap<DropReason, u64>,
    by_service: BTreeMap<String, u64>,
    /// Coordinated time of the first hit, unix nanoseconds.
    origin_ns: Option<i64>,
    /// Hits that arrived in each of the last seconds; the second of the newest.
    per_second: [u64; RATE_SECONDS],
    second: u64,
    dirty: bool,
    told_at: Duration,
    fleet_revision: u64,
    fleet_dirty: bool,
    fleet_told_at: Duration,
    timeline_revision: u64,
    timeline_dirty: bool,
    timeline_told_at: Duration,
}

impl Statistics {
    /// When something is to be told.
    pub(in super::super) fn deadline(&self) -> Option<Duration> {
        let statistics = self.dirty.then_some(self.told_at);
        let fleet = self.fleet_dirty.then_some(self.fleet_told_at);
        let timeline = self.timeline_dirty.then_some(self.timeline_told_at);
        [statistics, fleet, timeline].into_iter().flatten().min()
    }

    /// Counts a hit that arrived.
    pub(in super::super) fn hit(&mut self, now: Duration, service: &str, time_ns: i64) {
        self.hits += 1;
        match self.by_service.get_mut(service) {
            Some(hits) => *hits += 1,
            None => _ = self.by_service.insert(service.to_owned(), 1),
        }
        self.origin_ns.get_or_insert(time_ns);
        self.pass(now);
        self.per_second[self.second as usize % RATE_SECONDS] += 1;
        self.dirty = true;
        self.timeline_changed();
    }

    /// Counts hits that are missing.
    pub(in super::super) fn missing(&mut self, reason: DropReason, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
        let dropped = self.drops.entry(reason).or_default();
        *dropped = dropped.saturating_add(count);
        self.dirty = true;
        self.timeline_changed();
    }

    /// Takes over what was counted as missing before a recording was made.
    pub(in super::super) fn missing_before(&mut self, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
        self.dirty = true;
    }

    /// Counts have changed.
    pub(in super::super) fn changed(&mut self) {
        self.dirty = true;
    }

    /// What `riptrace/fleet` would answer has changed.
    pub(in super::super) fn fleet_changed(&mut self) {
        self.fleet_revision += 1;
        self.fleet_dirty = true;
    }

    /// What `riptrace/timelinePage` would answer has changed.
    pub(in super::super) fn timeline_changed(&mut self) {
        self.timeline_revision += 1;
        self.timeline_dirty = true;
    }

    /// The timeline begins anew.
    pub(in super::super) fn restarted(&mut self) {
        (self.hits, self.dropped, self.origin_ns) = (0, 0, None);
        self.drops.clear();
        self.by_service.clear();
        self.per_second = [0; RATE_SECONDS];
        self.dirty = true;
        self.timeline_changed();
    }

    /// Hits and dropped hits that have arrived.
    pub(in super::super) fn counts(&self) -> (u64, u64) {
        (self.hits, self.dropped)
    }

    /// How often the fleet has changed.
    pub(in super::super) fn fleet_revision(&self) -> u64 {
        self.fleet_revision
    }

    /// Time of the first hit, from which those of the others are counted; unix nanoseconds.
    pub(in super::super) fn origin_ns(&self) -> Option<i64> {
        self.origin_ns
    }

    /// Forgets seconds that have passed without a hit.
    fn pass(&mut self, now: Duration) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.second).min(RATE_SECONDS as u64);
        for behind in 0..passed {
            self.per_second[(second - behind) as usize % RATE_SECONDS] = 0;
        }
        self.second = second.max(self.second);
    }

    /// Hits per second over the last full seconds.
    fn per_s(&mut self, now: Duration) -> f64 {
        self.pass(now);
        let full = self.per_second.iter().sum::<u64>() - self.per_second[self.second as usize % RATE_SECONDS];
        full as f64 / (RATE_SECONDS - 1) as f64
    }
}

impl State {
    pub(super) fn statistics_json(&mut self, now: Duration) -> Value {
        let hits_per_s = self.statistics.per_s(now);
        let (hosts, processes) = self.meant();
        let newest = self.timeline.newest_seq();
        let statistics = &self.statistics;
        let drops: BTreeMap<&str, u64> = statistics.drops.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
        let tracepoints: Vec<Value> = self
            .breakpoints
            .counts()
            .map(|(tracepoint, breakpoint, arrived)| {
                let drops: BTreeMap<&str, u64> = arrived.drops.iter().map(|(r, n)| (r.as_str(), *n)).collect();
                let mut entry =
                    json!({"tracepoint": tracepoint, "breakpoint": breakpoint, "hits": arrived.hits, "drops": drops});
                if let Some(metric) = self.breakpoints.metric(tracepoint) {
                    entry["metric"] = metric.json();
                }
                entry
            })
            .collect();
        json!({
            "hits": statistics.hits,
            "hits_per_s": hits_per_s,
            "dropped": statistics.dropped,
            "drops": drops,
            "services": statistics.by_service,
            "hosts": hosts,
            "processes": processes,
            "kept": self.timeline.len(),
            "kept_bytes": self.timeline.bytes(),
            "evicted": self.timeline.evicted(),
            "newest": newest,
            "tracepoints": tracepoints,
        })
    }

    /// Tells what has changed, where it is time.
    pub(in super::super) fn changes_due(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Joined {
            return;
        }
        let now = turn.now;
        if self.statistics.dirty && now >= self.statistics.told_at {
            self.statistics.dirty = false;
            self.statistics.told_at = now + self.rows.rest(STATISTICS_INTERVAL);
            let (hosts, processes) = self.meant();
            let (hits, dropped) = self.statistics.counts();
            let body = json!({"hits": hits, "dropped": dropped, "hosts": hosts, "processes": processes});
            turn.emit_own("statistics", body);
        }
        if self.statistics.fleet_dirty && now >= self.statistics.fleet_told_at {
            self.statistics.fleet_dirty = false;
            self.statistics.fleet_told_at = now + self.rows.rest(CHANGED_INTERVAL);
            turn.emit_own("fleetChanged", json!({"revision": self.statistics.fleet_revision}));
        }
        if self.statistics.timeline_dirty && now >= self.statistics.timeline_told_at {
            self.statistics.timeline_dirty = false;
            self.statistics.timeline_told_at = now + self.rows.rest(CHANGED_INTERVAL);
            let body = json!({
                "revision": self.statistics.timeline_revision,
                "oldest": self.timeline.oldest(),
                "newest": self.timeline.newest_seq(),
                "open": self.paused_hit().map(|hit| hit.seq),
            });
            turn.emit_own("timelineChanged", body);
        }
    }
}

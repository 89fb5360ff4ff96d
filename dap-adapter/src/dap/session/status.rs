//! One breakpoint over many processes: whether it is verified, and the sentence that says the rest.

use super::super::limits::REASONS_NAMED_MAX;
use riptrace_protocol::fleet::{Mechanism, ProbeState, ProbeStatus, TracepointStatus};
use riptrace_protocol::hit::DropReason;
use std::collections::{BTreeMap, BTreeSet};

/// What has arrived of a breakpoint's hits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Hits.
    pub(super) hits: u64,
    /// Hits that are missing, by reason.
    pub(super) drops: BTreeMap<DropReason, u64>,
    /// Returns that are not shown because they have no error.
    pub(super) without_error: u64,
    /// Returns that are not shown because nobody knows whether they have an error.
    pub(super) unreadable: u64,
}

impl Arrived {
    /// Adds what has arrived of another tracepoint of the same breakpoint.
    pub(super) fn add(&mut self, other: &Arrived) {
        self.hits += other.hits;
        self.without_error += other.without_error;
        self.unreadable += other.unreadable;
        for (reason, count) in &other.drops {
            let dropped = self.drops.entry(*reason).or_default();
            *dropped = dropped.saturating_add(*count);
        }
    }
}

/// Status of a breakpoint for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folded {
    /// Whether at least one process is armed.
    pub(super) verified: bool,
    /// Where, and where not and why.
    pub(super) message: String,
}

/// Folds the states of all probes of a breakpoint.
pub(super) fn fold(statuses: &[&TracepointStatus], selector: &str, arrived: &Arrived) -> Folded {
    let all = || statuses.iter().flat_map(|status| &status.probes);
    // Other programs of the fleet are no failures; they are named only where no process has the line.
    let mut probes: Vec<&ProbeStatus> = all().filter(|probe| probe.state != ProbeState::Absent).collect();
    if probes.is_empty() {
        probes = all().collect();
    }
    let armed: Vec<&ProbeStatus> = probes.iter().copied().filter(|probe| probe.state == ProbeState::Armed).collect();
    let ended = statuses.iter().find_map(|status| status.ended.as_deref());
    let mut message = if probes.is_empty() {
        let meant = if selector.is_empty() { String::new() } else { format!(" that fits {selector}") };
        format!("no process{meant} is there yet; it is armed in each that appears")
    } else if armed.is_empty() {
        format!("armed in none of {}", count(probes.len(), "process", "processes"))
    } else {
        let hosts: BTreeSet<_> = armed.iter().map(|probe| &probe.process.host).collect();
        let of = count(probes.len(), "process", "processes");
        format!("armed in {} of {of} on {}", armed.len(), count(hosts.len(), "host", "hosts"))
    };
    match armed.iter().filter_map(|probe| probe.mechanism).max() {
        Some(Mechanism::Ptrace) => message.push_str(" by ptrace (a hit stops its thread for tens of microseconds)"),
        Some(Mechanism::Trap) => message.push_str(" by trap (microseconds per hit)"),
        Some(Mechanism::Jump) | None => {}
    }
    if arrived.hits > 0 {
        message.push_str(&format!(", {}", count_u64(arrived.hits, "hit", "hits")));
    }
    if arrived.without_error > 0 {
        message.push_str(&format!(
            ", {}",
            count_u64(arrived.without_error, "return without an error", "returns without an error")
        ));
    }
    if arrived.unreadable > 0 {
        let returns = count_u64(arrived.unreadable, "return", "returns");
        message.push_str(&format!(", {returns} whose error could not be read"));
    }
    for (reason, dropped) in &arrived.drops {
        message.push_str(&format!(", {dropped} dropped ({})", reason.as_str()));
    }
    if let Some(ended) = ended {
        message.push_str(&format!("; ended: {ended}"));
    }
    for reason in reasons(&probes).into_iter().chain(notes(&armed)) {
        message.push_str("; ");
        message.push_str(&reason);
    }
    Folded { verified: !armed.is_empty(), message }
}

/// `web-2 cart pid 812: sampling 1/8: ..`: what is to be known of probes that are armed, the same notes together.
fn notes(armed: &[&ProbeStatus]) -> Vec<String> {
    let mut by_note: BTreeMap<&str, Vec<&ProbeStatus>> = BTreeMap::new();
    for probe in armed {
        if let Some(note) = &probe.note {
            by_note.entry(note).or_default().push(probe);
        }
    }
    let text = |(note, who): (&str, Vec<&ProbeStatus>)| {
        let others = if who.len() > 1 { format!(" and {} more", who.len() - 1) } else { String::new() };
        let first = &who[0];
        format!("{} {} pid {}{others}: {note}", first.process.host, first.service, first.process.key.pid)
    };
    by_note.into_iter().take(REASONS_NAMED_MAX).map(text).collect()
}

/// `web-2 cart pid 812: reason`, those with the same reason together.
fn reasons(probes: &[&ProbeStatus]) -> Vec<String> {
    let mut by_reason: Vec<(String, Vec<&ProbeStatus>)> = Vec::new();
    for probe in probes.iter().copied().filter(|probe| probe.state != ProbeState::Armed) {
        let reason = match (probe.state, &probe.reason) {
            (_, Some(reason)) => reason.clone(),
            (ProbeState::Pending, None) => "arming".to_owned(),
            (ProbeState::Off, None) => "off, no reason given".to_owned(),
            (_, None) => "refused, no reason given".to_owned(),
        };
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, who)) => who.push(probe),
            None => by_reason.push((reason, vec![probe])),
        }
    }
    let more = by_reason.len().saturating_sub(REASONS_NAMED_MAX);
    let mut texts: Vec<String> = by_reason
        .iter()
        .take(REASONS_NAMED_MAX)
        .map(|(reason, who)| {
            let first = who[0];
            let others = match who.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            format!("{} {} pid {}{others}: {reason}", first.process.host, first.service, first.process.key.pid)
        })
        .collect();
    if more > 0 {
        texts.push(format!("and {}", count(more, "other reason", "other reasons")));
    }
    texts
}

/// `1 host`, `2 hosts`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    count_u64(n as u64, one, many)
}

fn count_u64(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::ids::{BuildId, HostName, ProcessId, ProcessKey, TracepointId};
    use riptrace_protocol::location::Location;

    fn probe(host: &str, pid: u32, state: ProbeState, reason: Option<&str>) -> ProbeStatus {
        ProbeStatus {
            tracepoint: TracepointId::new("t").unwrap(),
            process: ProcessId { host: HostName::new(host).unwrap(), key: ProcessKey { pid, start_time: 1 } },
            service: "cart".into(),
            build: BuildId("go:1".into()),
            state,
            mechanism: (state == ProbeState::Armed).then_some(Mechanism::Jump),
            sites: Vec::new(),
            reason: reason.map(str::to_owned),
            note: None,
            passages: 0,
            hits: 0,
            dropped: 0,
            unfinished: false,
        }
    }

    fn check(probes: Vec<ProbeStatus>, arrived: &Arrived, expect: (bool, &str)) {
        let status = TracepointStatus {
            tracepoint: TracepointId::new("t").unwrap(),
            location: Location::Line { file: "a.go".into(), line: 1 },
            probes,
            ended: None,
        };
        let folded = fold(&[&status], "service=cart", arrived);
        assert_eq!((folded.verified, folded.message.as_str()), expect);
    }

    #[test]
    fn one_armed_process_verifies_and_the_rest_is_counted_and_named() {
        let armed = |host, pid| probe(host, pid, ProbeState::Armed, None);
        let refused = |host, pid, why| probe(host, pid, ProbeState::Refused, Some(why));
        let none = Arrived::default();
        check(
            vec![],
            &none,
            (false, "no process that fits service=cart is there yet; it is armed in each that appears"),
        );
        check(vec![armed("a", 1)], &none, (true, "armed in 1 of 1 process on 1 host"));
        let sampled = |pid| ProbeStatus { note: Some("sampling 1/8: too hot".to_owned()), ..armed("a", pid) };
        check(
            vec![sampled(1), armed("a", 2), sampled(3)],
            &none,
            (true, "armed in 3 of 3 processes on 1 host; a cart pid 1 and 1 more: sampling 1/8: too hot"),
        );
        check(
            vec![probe("a", 1, ProbeState::Pending, None)],
            &none,
            (false, "armed in none of 1 process; a cart pid 1: arming"),
        );
        let arrived =
            Arrived { hits: 120, drops: [(DropReason::Rate, 3), (DropReason::Lost, 1)].into(), ..Arrived::default() };
        check(
            vec![armed("a", 1), armed("b", 2), armed("c", 3), refused("web-2", 812, "no line 42")],
            &arrived,
            (
                true,
                "armed in 3 of 4 processes on 3 hosts, 120 hits, 3 dropped (rate), 1 dropped (lost); \
                 web-2 cart pid 812: no line 42",
            ),
        );
        check(
            vec![
                refused("a", 1, "x"),
                refused("b", 2, "x"),
                refused("a", 3, "y"),
                refused("a", 4, "z"),
                refused("a", 5, "w"),
                refused("a", 6, "v"),
            ],
            &none,
            (
                false,
                "armed in none of 6 processes; a cart pid 1 and 1 more: x; a cart pid 3: y; a cart pid 4: z; \
                 and 2 other reasons",
            ),
        );
    }
}

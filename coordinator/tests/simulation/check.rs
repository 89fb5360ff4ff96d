//! What must hold of a session's stream, compared with what truly happened.

use riptrace_coordinator::limits::NEIGHBOURS_MAX;
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{HostName, Incarnation, LayoutId, TracepointId};
use riptrace_protocol::limits::UNDETERMINED_MAX;
use riptrace_protocol::stream::{StreamItem, StreamMessage};
use std::collections::{BTreeMap, BTreeSet};

/// A hit as it truly was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truth {
    pub(crate) unix_ns: i64,
    pub(crate) incarnation: Incarnation,
    pub(crate) domain: usize,
}

#[derive(Debug)]
struct Shown {
    seq: u64,
    truth: Truth,
    time_ns: i64,
    uncertainty_ns: u64,
    late: bool,
    /// Which run of the coordinator showed it.
    run: u64,
}

/// One session's stream as a viewer reads it.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) messages: Vec<StreamMessage>,
    shown: Vec<Shown>,
    layouts: BTreeSet<LayoutId>,
    released_ns: BTreeMap<u64, i64>,
    numbers: BTreeMap<(HostName, Incarnation), u64>,
    pub(crate) hits: BTreeMap<TracepointId, u64>,
    pub(crate) lost: u64,
    pub(crate) dropped: BTreeMap<(TracepointId, DropReason), u64>,
    pub(crate) late: u64,
    pub(crate) undetermined: u64,
}

impl Stream {
    pub(crate) fn len(&self) -> usize {
        self.shown.len()
    }

    /// Takes a message in; `run` is the run of the coordinator that wrote it.
    pub(crate) fn take(&mut self, message: &StreamMessage, run: u64, truth_of: impl Fn(&HostName, u64) -> Truth) {
        // As it is read by others.
        let message = StreamMessage::decode(&message.encode().unwrap()).unwrap();
        for item in &message.items {
            match item {
                StreamItem::Layout(layout) => {
                    self.layouts.insert(layout.id());
                }
                StreamItem::Frames(frames) => assert!(!frames.is_empty()),
                StreamItem::Hit(hit) => {
                    assert_eq!(hit.seq, self.shown.len() as u64 + 1, "a gap in the sequence, or a hit shown twice");
                    // What only a dead agent could tell a coordinator that was started anew stays unknown.
                    assert!(run > 0 || self.layouts.contains(&hit.raw.layout), "a hit before its layout");
                    assert!(hit.service == "cart" || (run > 0 && hit.service.is_empty()), "{:?}", hit.service);
                    let true_ns = u64::from_le_bytes(hit.raw.roots[..8].try_into().unwrap());
                    let truth = truth_of(&hit.host, true_ns);
                    let next = self.numbers.entry((hit.host.clone(), truth.incarnation)).or_insert(0);
                    assert!(hit.raw.number >= *next, "a host's hits out of its order, or one of them twice");
                    *next = hit.raw.number + 1;
                    let off_ns = truth.unix_ns.abs_diff(hit.time_ns);
                    assert!(off_ns <= hit.uncertainty_ns + 2, "time off by {off_ns} ns, told {}", hit.uncertainty_ns);
                    let shown = Shown {
                        seq: hit.seq,
                        truth,
                        time_ns: hit.time_ns,
                        uncertainty_ns: hit.uncertainty_ns,
                        late: hit.late,
                        run,
                    };
                    self.compare(&shown, &hit.undetermined_with);
                    *self.hits.entry(hit.raw.tracepoint.clone()).or_insert(0) += 1;
                    self.late += u64::from(hit.late);
                    self.undetermined += u64::from(!hit.undetermined_with.is_empty());
                    self.shown.push(shown);
                }
                StreamItem::Drop(drop) => {
                    assert!(drop.count > 0);
                    match &drop.tracepoint {
                        None => self.lost += drop.count,
                        Some(id) => *self.dropped.entry((id.clone(), drop.reason)).or_insert(0) += drop.count,
                    }
                }
            }
        }
        self.messages.push(message);
    }

    /// The order shown is true, or said to be uncertain, or the hit is marked late.
    fn compare(&mut self, new: &Shown, undetermined_with: &[u64]) {
        assert!(undetermined_with.iter().all(|seq| *seq < new.seq));
        if !new.late {
            let released_ns = self.released_ns.entry(0).or_insert(i64::MIN);
            assert!(new.time_ns >= *released_ns, "time runs backwards without a mark");
            *released_ns = new.time_ns;
        }
        for earlier in self.shown.iter().rev().take(NEIGHBOURS_MAX).filter(|_| !new.late) {
            if earlier.truth.unix_ns <= new.truth.unix_ns + 2 {
                continue;
            }
            let wrong_by = earlier.truth.unix_ns.abs_diff(new.truth.unix_ns);
            let told = earlier.uncertainty_ns + new.uncertainty_ns;
            assert!(wrong_by <= told + 4, "wrong by {wrong_by} ns, told {told}");
            // What an earlier run of the coordinator knew of its neighbours is gone.
            if earlier.run == new.run && !earlier.late {
                assert_ne!(earlier.truth.domain, new.truth.domain, "hits of one clock out of their exact order");
                let named = undetermined_with.contains(&earlier.seq) || undetermined_with.len() == UNDETERMINED_MAX;
                assert!(named, "a wrong order that is not said to be uncertain: {} after {}", new.seq, earlier.seq);
            }
        }
    }
}

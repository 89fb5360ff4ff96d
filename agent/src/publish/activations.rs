//! Calls in progress: matches each return with the entry of the same call, which gives the call's duration.
//!
//! Pure. Hits come in the order of their times. A duration is told only if it is certain: every passage of the probe
//! between the entry and the return was seen. Whoever drops a passage counts it before anything later of the same
//! thread can be published, so a loss that is told together with the clock at that moment lies before that moment: all
//! entries up to then are forgotten.

use crate::capture::interpreter::Captured;
use crate::plan::ActivationPlace;
use riptrace_protocol::hit::RootState;
use riptrace_protocol::ids::{LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Moment;
use std::collections::HashMap;

/// Calls in progress of one probe, at most: more are deep recursions or functions left by panics. What is over it is
/// forgotten, all at once.
const CALLS_MAX: usize = 16 * 1024;

/// A kind of hit that tells its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Telling {
    /// Which hits: those with this layout.
    pub(crate) layout: LayoutId,
    /// What they mean.
    pub(crate) moment: Moment,
    /// Where they tell it.
    pub(crate) place: ActivationPlace,
}

/// The calls in progress of all probes that tell them.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    probes: HashMap<(TracepointId, ProcessKey), Probe>,
}

#[derive(Debug, Default)]
struct Probe {
    telling: Vec<Telling>,
    entered_ns: HashMap<Call, u64>,
    /// Of passages up to here it is not known that all were seen.
    blind_until_ns: u64,
}

/// A call, for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Call {
    /// Goroutine or thread.
    who: u64,
    /// Its frame.
    frame: u64,
}

impl Activations {
    /// A probe is about to be armed whose hits tell their calls, or tell them no more.
    ///
    /// Hits of one layout that tell their calls in different ways are not told apart: then none of them does.
    pub(crate) fn expect(&mut self, tracepoint: &TracepointId, process: ProcessKey, mut telling: Vec<Telling>) {
        let key = (tracepoint.clone(), process);
        let is_ambiguous = telling.iter().any(|a| telling.iter().any(|b| a.layout == b.layout && a != b));
        if is_ambiguous {
            telling.clear();
        }
        telling.dedup();
        if telling.is_empty() {
            self.probes.remove(&key);
        } else {
            self.probes.insert(key, Probe { telling, ..Probe::default() });
        }
    }

    /// The process ended, or runs another program.
    pub(crate) fn forget(&mut self, process: ProcessKey) {
        self.probes.retain(|(_, of), _| *of != process);
    }

    /// Passages of a probe were lost, none of them later than `now_ns`.
    pub(crate) fn lost(&mut self, tracepoint: &TracepointId, process: ProcessKey, now_ns: u64) {
        if let Some(probe) = self.probes.get_mut(&(tracepoint.clone(), process)) {
            probe.entered_ns.clear();
            probe.blind_until_ns = probe.blind_until_ns.max(now_ns);
        }
    }

    /// Takes what tells a hit's call out of what was captured, and, for a return, says how long the call took, in
    /// nanoseconds. `thread` is the thread's id.
    pub(crate) fn hit(
        &mut self,
        (tracepoint, process): (&TracepointId, ProcessKey),
        layout: LayoutId,
        thread: u32,
        time_ns: u64,
        captured: &mut Captured,
    ) -> Option<u64> {
        if self.probes.is_empty() {
            return None;
        }
        let probe = self.probes.get_mut(&(tracepoint.clone(), process))?;
        let telling = *probe.telling.iter().find(|telling| telling.layout == layout)?;
        let call = take(&telling.place, thread, captured);
        match (telling.moment, call) {
            (Moment::Entry, Some(call)) if time_ns > probe.blind_until_ns => {
                if probe.entered_ns.len() >= CALLS_MAX {
                    probe.entered_ns.clear();
                }
                probe.entered_ns.insert(call, time_ns);
                None
            }
            (Moment::Return, Some(call)) => {
                probe.entered_ns.remove(&call).and_then(|entered_ns| time_ns.checked_sub(entered_ns))
            }
            // It may be the entry of any call.
            (Moment::Entry, None) => {
                probe.entered_ns.clear();
                None
            }
            _ => None,
        }
    }
}

fn take(place: &ActivationPlace, thread: u32, captured: &mut Captured) -> Option<Call> {
    let word = |number: usize| {
        let is_there = captured.root_states.get(place.root + number) == Some(&RootState::Captured);
        let start = place.offset.checked_add(number * 8)?;
        let bytes = captured.roots.get(start..start.checked_add(8)?)?;
        is_there.then(|| bytes.try_into().map(u64::from_le_bytes).ok()).flatten()
    };
    let frame = word(0).map(|base| base.wrapping_add_signed(place.add));
    let call = if place.is_go {
        let goroutine = captured.goroutine;
        let frame = frame.zip(word(1)).map(|(frame, high)| high.wrapping_sub(frame));
        frame.zip(goroutine).map(|(frame, who)| Call { who, frame })
    } else {
        frame.map(|frame| Call { who: u64::from(thread), frame })
    };
    captured.roots.truncate(place.offset);
    captured.root_states.truncate(place.root);
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: ActivationPlace = ActivationPlace { root: 1, offset: 4, add: 16, is_go: true };
    const ENTRY: LayoutId = LayoutId([1; 16]);
    const RETURN: LayoutId = LayoutId([2; 16]);
    const PROCESS: ProcessKey = ProcessKey { pid: 9, start_time: 1 };

    fn captured(goroutine: u64, base: u64, high: u64) -> Captured {
        let mut roots = vec![1, 2, 3, 4];
        roots.extend(base.to_le_bytes());
        roots.extend(high.to_le_bytes());
        let root_states = vec![RootState::Captured; 3];
        Captured { roots, root_states, goroutine: Some(goroutine), ..Captured::default() }
    }

    struct Told(Activations, TracepointId);

    impl Told {
        fn new() -> Told {
            let id = TracepointId::new("calls").unwrap();
            let mut activations = Activations::default();
            let telling = |layout, moment| Telling { layout, moment, place: PLACE };
            activations.expect(&id, PROCESS, vec![telling(ENTRY, Moment::Entry), telling(RETURN, Moment::Return)]);
            Told(activations, id)
        }

        fn hit(&mut self, layout: LayoutId, time_ns: u64, mut captured: Captured) -> Option<u64> {
            let duration = self.0.hit((&self.1, PROCESS), layout, 1, time_ns, &mut captured);
            // What is not the variables' is gone.
            assert_eq!((captured.roots, captured.root_states.len()), (vec![1, 2, 3, 4], 1));
            duration
        }

        fn lost(&mut self, now_ns: u64) {
            self.0.lost(&self.1.clone(), PROCESS, now_ns);
        }
    }

    #[test]
    fn a_return_knows_its_entry_though_the_stack_moved() {
        let mut told = Told::new();
        assert_eq!(told.hit(ENTRY, 100, captured(7, 0x1000, 0x2000)), None);
        // Another goroutine, another frame, then the same frame on a stack that was moved.
        assert_eq!(told.hit(RETURN, 130, captured(8, 0x1000, 0x2000)), None);
        assert_eq!(told.hit(RETURN, 140, captured(7, 0x0f00, 0x2000)), None);
        assert_eq!(told.hit(RETURN, 150, captured(7, 0x9000, 0xa000)), Some(50));
        assert_eq!(told.hit(RETURN, 160, captured(7, 0x9000, 0xa000)), None);
    }

    #[test]
    fn recursion_is_told_apart_by_frame() {
        let mut told = Told::new();
        for (depth, time_ns) in [(0u64, 10), (1, 20), (2, 40)] {
            told.hit(ENTRY, time_ns, captured(7, 0x1000 - depth * 64, 0x2000));
        }
        let mut back = |depth: u64, time_ns| told.hit(RETURN, time_ns, captured(7, 0x1000 - depth * 64, 0x2000));
        assert_eq!([back(2, 50), back(1, 100), back(0, 1000)], [Some(10), Some(80), Some(990)]);
    }

    #[test]
    fn nothing_is_told_across_a_loss() {
        let mut told = Told::new();
        told.hit(ENTRY, 100, captured(7, 0x1000, 0x2000));
        told.lost(300);
        assert_eq!(told.hit(RETURN, 150, captured(7, 0x1000, 0x2000)), None);
        // An entry that is published after the loss was told, and happened before.
        told.hit(ENTRY, 200, captured(7, 0x1000, 0x2000));
        assert_eq!(told.hit(RETURN, 400, captured(7, 0x1000, 0x2000)), None);
        told.hit(ENTRY, 500, captured(7, 0x1000, 0x2000));
        assert_eq!(told.hit(RETURN, 600, captured(7, 0x1000, 0x2000)), Some(100));
    }

    #[test]
    fn an_entry_whose_frame_could_not_be_read_may_be_of_any_call() {
        let mut told = Told::new();
        told.hit(ENTRY, 200, captured(7, 0x1000, 0x2000));
        let mut unread = captured(9, 0, 0);
        unread.root_states[1] = RootState::OverBudget;
        told.hit(ENTRY, 210, unread);
        assert_eq!(told.hit(RETURN, 250, captured(7, 0x1000, 0x2000)), None);
    }
}

//! What program counters stand for: resolved once, sent once, remembered within a bound.
//!
//! A frame is resolved where hits are packed, never where they are captured. It is sent with the first batch whose
//! hits need it; when the memory for it was taken by newer ones, or a new coordinator asks, it is sent again.

use super::recent::Recent;
use super::sink::CapturedHit;
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::collections::{BTreeMap, BTreeSet};

/// Program counters that are remembered, at most: some hundred bytes each.
pub(crate) const FRAMES_MAX: usize = 32_768;
/// Text of one program counter's frames that is sent, at most, in bytes: a batch must hold the frames of one stack.
/// Longer ones (C++ templates) are sent as unknown.
pub(crate) const FRAME_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Finds out what program counters stand for.
pub(crate) trait FrameResolver: Send + Sync + 'static {
    /// Entries for those of `pcs` whose process is known, in any order; empty frames where nothing is known. May take
    /// long: it reads debug information.
    fn resolve(&self, process: ProcessKey, pcs: &[Avma]) -> Vec<FrameEntry>;

    /// Finds the callers of hits that carry a copy of their stack, and takes the copies away. May take long: it reads
    /// unwind tables. A hit that keeps its copy has the innermost frame only, and says that the others are not known.
    fn unwind(&self, hits: &mut [CapturedHit]);
}

#[derive(Debug)]
struct Known {
    entry: FrameEntry,
    sent: bool,
}

/// The frames of this incarnation.
#[derive(Debug)]
pub(crate) struct Frames {
    known: Recent<(ProcessKey, Avma), Known>,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { known: Recent::new(FRAMES_MAX) }
    }
}

impl Frames {
    /// Which of these are not known yet.
    pub(crate) fn unknown<'a>(
        &self,
        stacks: impl Iterator<Item = (ProcessKey, &'a [Avma])>,
    ) -> BTreeMap<ProcessKey, Vec<Avma>> {
        let mut unknown: BTreeMap<ProcessKey, BTreeSet<Avma>> = BTreeMap::new();
        for (process, stack) in stacks {
            for &pc in stack {
                if !self.known.contains(&(process, pc)) {
                    unknown.entry(process).or_default().insert(pc);
                }
            }
        }
        unknown.into_iter().map(|(process, pcs)| (process, pcs.into_iter().collect())).collect()
    }

    /// Remembers what was resolved.
    pub(crate) fn learn(&mut self, entries: Vec<FrameEntry>) {
        for mut entry in entries {
            if text_bytes(&entry) > FRAME_TEXT_BYTES_MAX {
                entry.frames.clear();
            }
            self.known.insert((entry.process, entry.pc), Known { entry, sent: false });
        }
    }

    /// The entries of a stack that were not sent yet; they count as sent from now on.
    pub(crate) fn take_unsent(&mut self, process: ProcessKey, stack: &[Avma]) -> Vec<FrameEntry> {
        let mut entries = Vec::new();
        for &pc in stack {
            if let Some(known) = self.known.get_mut(&(process, pc))
                && !known.sent
            {
                known.sent = true;
                entries.push(known.entry.clone());
            }
        }
        entries
    }

    /// These did not go out after all.
    pub(crate) fn not_sent(&mut self, entries: &[FrameEntry]) {
        for entry in entries {
            if let Some(known) = self.known.get_mut(&(entry.process, entry.pc)) {
                known.sent = false;
            }
        }
    }

    /// A new coordinator has heard none of them.
    pub(crate) fn forget_sent(&mut self) {
        self.known.values_mut().for_each(|known| known.sent = false);
    }

    /// A process runs another program now: its addresses mean something else.
    pub(crate) fn forget_process(&mut self, process: ProcessKey) {
        self.known.retain(|(of, _)| *of != process);
    }

    /// Those used last, until `bytes_max` of text are collected.
    pub(crate) fn list(&self, bytes_max: usize) -> Vec<FrameEntry> {
        let mut bytes = 0;
        self.known
            .values()
            .take_while(|known| {
                bytes += json_bytes(&known.entry);
                bytes <= bytes_max
            })
            .map(|known| known.entry.clone())
            .collect()
    }
}

fn text_bytes(entry: &FrameEntry) -> usize {
    entry.frames.iter().map(|frame| frame.function.len() + frame.file.len()).sum::<usize>()
}

/// What an entry takes as JSON, in bytes; rather too much, so that a list of them fits in one message.
fn json_bytes(entry: &FrameEntry) -> usize {
    160 + entry.build.0.len() + 64 * entry.frames.len() + 2 * text_bytes(entry)
}

/// What an entry takes in a batch, in bytes, at most.
pub(crate) fn wire_bytes(entry: &FrameEntry) -> usize {
    48 + entry.build.0.len() + 32 * entry.frames.len() + text_bytes(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::hit::Frame;
    use riptrace_protocol::ids::BuildId;

    const PROCESS: ProcessKey = ProcessKey { pid: 7, start_time: 9 };

    fn entry(pc: u64, function: &str) -> FrameEntry {
        let frame = Frame { function: function.into(), file: "a.go".into(), line: 3, inlined: false };
        FrameEntry { build: BuildId("go:x".into()), process: PROCESS, pc: Avma(pc), frames: vec![frame] }
    }

    #[test]
    fn a_frame_is_asked_for_once_and_sent_once() {
        let mut frames = Frames::default();
        let stack = [Avma(1), Avma(2), Avma(1)];
        let unknown = frames.unknown([(PROCESS, stack.as_slice())].into_iter());
        assert_eq!(unknown, BTreeMap::from([(PROCESS, vec![Avma(1), Avma(2)])]));
        frames.learn(vec![entry(1, "f"), entry(2, "g")]);
        assert!(frames.unknown([(PROCESS, stack.as_slice())].into_iter()).is_empty());
        let first = frames.take_unsent(PROCESS, &stack);
        assert_eq!(first.len(), 2);
        assert!(frames.take_unsent(PROCESS, &stack).is_empty());
        frames.not_sent(&first[..1]);
        assert_eq!(frames.take_unsent(PROCESS, &stack), first[..1]);
        frames.forget_sent();
        assert_eq!(frames.take_unsent(PROCESS, &stack).len(), 2);
        frames.forget_process(PROCESS);
        assert_eq!(frames.unknown([(PROCESS, stack.as_slice())].into_iter()), unknown);
    }

    #[test]
    fn a_text_that_no_batch_could_hold_is_sent_as_unknown() {
        let mut frames = Frames::default();
        frames.learn(vec![entry(1, &"x".repeat(FRAME_TEXT_BYTES_MAX))]);
        assert_eq!(frames.take_unsent(PROCESS, &[Avma(1)])[0].frames, vec![]);
    }

    #[test]
    fn a_list_fits_in_what_it_may_take() {
        let mut frames = Frames::default();
        frames.learn((0..1000).map(|pc| entry(pc, &"\"".repeat(100))).collect());
        let list = frames.list(64 * 1024);
        let json = serde_json::to_vec(&list).unwrap();
        assert!(list.len() > 50 && json.len() <= 64 * 1024, "{} entries, {} bytes", list.len(), json.len());
    }
}

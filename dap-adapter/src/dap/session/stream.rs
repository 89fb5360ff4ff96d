//! The fleet's ordered stream: each hit becomes a row of the debug console and a place in the timeline; what is missing
//! becomes a row as well.

use super::super::limits::{REST_BEHIND, ROWS_BEHIND_MAX, ROWS_PER_S_MAX, ROWS_PER_S_MIN, STATISTICS_INTERVAL};
use super::super::types::{
    Event as DapEvent, OutputEventBody, OutputEventCategory, Source, ThreadEventBody, ThreadEventReason,
};
use super::exceptions::{ErrorResult, Exception, error_result};
use super::handles::Thing;
use super::motion::Reason;
use super::state::{Phase, State, Turn, View};
use super::threads::Who;
use super::window::Past;
use crate::fleet::SessionEvent;
use crate::render::{text, time};
use crate::timeline::values::HitValues;
use riptrace_protocol::stream::{OrderedHit, StreamDrop, StreamItem};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What was shown of the stream, and what is still to be said of it.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// A hit has come since threads were announced.
    threads_dirty: bool,
    thread_at: Duration,
    /// Second in which rows are counted, and how many it has.
    second: Duration,
    in_second: u32,
    /// Whether the editor asks for what is behind each row.
    asks: bool,
    /// The hits of the newest rows for which it has not asked yet, at most [`ROWS_BEHIND_MAX`].
    unasked: VecDeque<u64>,
    /// Hits that have no row and of which nothing was said yet.
    unshown: u64,
    /// When they are told, and whether one of them has none because the editor cannot keep up.
    unshown_due: Duration,
    held_back: bool,
    /// Added to sequence numbers since the fleet had forgotten the session and counts from 1 again.
    seq_offset: u64,
    /// The fleet had forgotten the session: the next hit may begin to count anew.
    reopened: bool,
    newest_seq: u64,
    /// The numbers of hits that came before are not those of the fleet's store any more.
    renumbered: bool,
}

impl Rows {
    /// When something is to be said.
    pub(super) fn deadline(&self, phase: Phase) -> Option<Duration> {
        if phase != Phase::Joined {
            return None;
        }
        let thread = self.threads_dirty.then_some(self.thread_at);
        let unshown = (self.unshown > 0).then_some(self.unshown_due);
        [thread, unshown].into_iter().flatten().min()
    }

    /// The timeline begins anew; sequence numbers go on.
    pub(super) fn restarted(&mut self) {
        self.threads_dirty = false;
    }

    /// A number of the editor as the fleet's store has it, and the other way round by adding.
    pub(super) fn offset(&self) -> u64 {
        self.seq_offset
    }

    /// Whether the editor cannot keep up. Where VS Code is behind with the variables behind the rows, all else that it does
    /// waits as well, a person's keys among it.
    fn is_behind(&self) -> bool {
        self.asks && self.unasked.len() >= ROWS_BEHIND_MAX
    }

    /// How long what is told again and again rests: an editor that cannot keep up is told less often.
    pub(super) fn rest(&self, interval: Duration) -> Duration {
        if self.is_behind() { interval * REST_BEHIND } else { interval }
    }

    /// A hit has no row: it is told with the others of its second, or of a longer while where the editor cannot keep up.
    fn withhold(&mut self) {
        if self.unshown == 0 {
            self.unshown_due = self.second + self.rest(SECOND);
            self.held_back = false;
        }
        self.held_back |= self.is_behind();
        self.unshown += 1;
    }

    /// Whether the hit may have a row now.
    fn admit(&mut self, now: Duration, seq: u64) -> bool {
        if now >= self.second + SECOND {
            self.second = now;
            self.in_second = 0;
        }
        if self.in_second >= if self.is_behind() { ROWS_PER_S_MIN } else { ROWS_PER_S_MAX } {
            return false;
        }
        self.in_second += 1;
        self.unasked.push_back(seq);
        if self.unasked.len() > ROWS_BEHIND_MAX {
            self.unasked.pop_front();
        }
        true
    }

    /// The editor asks for what is behind a row, as it does in their order.
    pub(super) fn asked(&mut self, seq: u64) {
        self.asks = true;
        while self.unasked.front().is_some_and(|unasked| *unasked <= seq) {
            self.unasked.pop_front();
        }
    }

    /// The hit as it is counted in this session; `None` when it was there before.
    fn numbered(&mut self, mut hit: Box<OrderedHit>) -> Option<Arc<OrderedHit>> {
        if std::mem::take(&mut self.reopened) && hit.seq.saturating_add(self.seq_offset) <= self.newest_seq {
            self.seq_offset = self.newest_seq;
            self.renumbered = true;
        }
        if self.seq_offset > 0 {
            hit.seq = hit.seq.saturating_add(self.seq_offset);
            hit.undetermined_with.iter_mut().for_each(|seq| *seq = seq.saturating_add(self.seq_offset));
        }
        if hit.seq <= self.newest_seq {
            return None;
        }
        self.newest_seq = hit.seq;
        Some(Arc::from(hit))
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn stream(&mut self, turn: &mut Turn<'_>, event: SessionEvent) {
        if self.phase != Phase::Joined {
            return;
        }
        match event {
            SessionEvent::Items(items) => items.into_iter().for_each(|item| self.item(turn, item)),
            SessionEvent::State(state) => self.states_seen(state.tracepoints),
            SessionEvent::Disconnected { why } => {
                let text = format!(
                    "RipTrace: the fleet is not heard ({why}). Services run on; hits are kept for a while and shown \
                     when it is back, else tracepoints end by themselves."
                );
                turn.note(OutputEventCategory::Stderr, text);
            }
            SessionEvent::Reconnected { reopened: false } => {
                turn.note(OutputEventCategory::Console, "RipTrace: the fleet is heard again.");
            }
            SessionEvent::Reconnected { reopened: true } => {
                self.rows.reopened = true;
                let text = "RipTrace: the fleet is heard again. It had ended this session, so its tracepoints are armed \
                            anew; hits since then are missing and were not counted.";
                turn.note(OutputEventCategory::Stderr, text);
            }
        }
    }

    pub(super) fn stream_ended(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Joined {
            let text = "RipTrace: the session's stream has ended; no further hit will be shown. Restart the session.";
            turn.note(OutputEventCategory::Stderr, text);
        }
    }

    fn item(&mut self, turn: &mut Turn<'_>, item: StreamItem) {
        if let Err(error) = self.dictionaries.learn(&item) {
            let text = format!("RipTrace: a layout cannot be used ({error}); the values of its hits cannot be shown.");
            turn.note(OutputEventCategory::Stderr, text);
        }
        match item {
            StreamItem::Layout(_) | StreamItem::Frames(_) => {}
            StreamItem::Hit(hit) => match self.rows.numbered(hit) {
                Some(hit) => {
                    if std::mem::take(&mut self.rows.renumbered) {
                        self.past = Past::after(hit.seq - 1);
                    }
                    self.arrived(turn, hit);
                }
                None => tracing::debug!("a hit came twice and is shown once"),
            },
            StreamItem::Drop(drop) => self.missing(turn, &drop),
        }
    }

    fn arrived(&mut self, turn: &mut Turn<'_>, hit: Arc<OrderedHit>) {
        if !self.is_failure(&hit) {
            return;
        }
        let correlation = self.correlation_hash(&hit);
        let Some(evicted) = self.timeline.push(&hit, correlation) else { return };
        for old in evicted {
            if self.paused_hit().is_none_or(|paused| paused.seq != old) {
                self.handles.forget(old);
            }
        }
        self.rows.threads_dirty = true;
        self.statistics.hit(turn.now, &hit.service, hit.time_ns);
        self.breakpoints.count_hit(&hit.raw.tracepoint);
        if self.measures(&hit) {
            // Its number is in the breakpoint's message.
        } else if self.rows.admit(turn.now, hit.seq) {
            self.row(turn, &hit);
        } else {
            self.rows.withhold();
        }
        if let View::Running { stop_after: Some(seq) } = self.view
            && self.configured
            && hit.seq > seq
            && self.breakpoints.opens_timeline(&hit.raw.tracepoint)
        {
            self.open_hit(turn, hit, Reason::Breakpoint);
        }
    }

    /// Takes the hit of a metric into its numbers; whether it is one.
    fn measures(&mut self, hit: &OrderedHit) -> bool {
        let Some(expression) = self.breakpoints.measured(&hit.raw.tracepoint) else { return false };
        let value = HitValues::decode(hit, &self.dictionaries).evaluate(expression).ok();
        self.breakpoints.measure(&hit.raw.tracepoint, value.as_ref());
        true
    }

    /// Whether a hit is to be shown: of the returns that are recorded for their errors, those with one. The others are
    /// counted in the breakpoint's message.
    fn is_failure(&mut self, hit: &OrderedHit) -> bool {
        if self.breakpoints.exception_of(&hit.raw.tracepoint) != Some(Exception::GoError) {
            return true;
        }
        let said = error_result(&HitValues::decode(hit, &self.dictionaries));
        if said != ErrorResult::Error {
            self.breakpoints.count_passed(&hit.raw.tracepoint, said == ErrorResult::Unknown);
        }
        said == ErrorResult::Error
    }

    /// The one row of a hit.
    fn row(&mut self, turn: &mut Turn<'_>, hit: &OrderedHit) {
        let values = HitValues::decode(hit, &self.dictionaries);
        let mut output = text::hit_with(hit, &self.dictionaries, &values, self.client.style);
        output.push('\n');
        let place = self.place_of(hit);
        let (source, line) = match &place {
            Some((source, line)) => (Some(source.clone()), Some(self.client.line_out(*line))),
            None => (None, None),
        };
        turn.emit(DapEvent::Output(OutputEventBody {
            category: Some(OutputEventCategory::Console),
            output,
            // Exactly one child is behind it: with none or several, VS Code drops the text.
            variables_reference: Some(self.handles.number(Thing::Row(hit.seq))),
            source: source.clone(),
            line,
            ..OutputEventBody::default()
        }));
        if !self.client.takes_hits {
            return;
        }
        let function = self.dictionaries.place(hit).map(|frame| frame.function);
        let body = json!({
            "seq": hit.seq,
            "time": time::rfc3339(hit.time_ns),
            "uncertainty_ns": hit.uncertainty_ns,
            "host": hit.host,
            "pid": hit.raw.process.pid,
            "service": hit.service,
            "goroutine": hit.raw.goroutine,
            "function": function,
            "file": source.and_then(|source| source.path),
            "line": line,
            "duration_ns": hit.raw.duration_ns,
            "message": text::message(hit, &self.dictionaries, &values),
        });
        turn.emit_own("hit", body);
    }

    /// Local file and line of a hit: its breakpoint's, else what the build's file is here.
    pub(super) fn place_of(&mut self, hit: &OrderedHit) -> Option<(Source, u32)> {
        let frame = self.dictionaries.place(hit);
        if let Some((path, line)) = self.breakpoints.local(&hit.raw.tracepoint) {
            let (path, line) = (path.clone(), *line);
            return Some((self.local_source(&path), line));
        }
        let frame = frame.filter(|frame| !frame.file.is_empty() && frame.line > 0)?;
        let build = self.dictionaries.layout(&hit.raw.layout).map(|layout| layout.build.clone());
        Some((self.source_of(&frame.file, build.as_ref()), frame.line))
    }

    fn missing(&mut self, turn: &mut Turn<'_>, drop: &StreamDrop) {
        self.statistics.missing(drop.reason, drop.count);
        if let Some(tracepoint) = &drop.tracepoint {
            self.breakpoints.count_drop(tracepoint, drop.reason, drop.count);
        }
        let local = drop.tracepoint.as_ref().and_then(|tracepoint| self.breakpoints.local(tracepoint)).cloned();
        let mut output = text::drop(drop, self.client.style);
        output.push('\n');
        turn.emit(DapEvent::Output(OutputEventBody {
            category: Some(OutputEventCategory::Stderr),
            output,
            source: local.as_ref().map(|(path, _)| self.local_source(path)),
            line: local.map(|(_, line)| self.client.line_out(line)),
            ..OutputEventBody::default()
        }));
    }

    /// The thread of a hit. An editor is told of a thread before it is told that the thread stopped.
    pub(super) fn announced_thread(&mut self, turn: &mut Turn<'_>, hit: &OrderedHit) -> i64 {
        let (thread_id, is_new) = self.threads.number(&Who::of(hit));
        if is_new {
            turn.emit(DapEvent::Thread(ThreadEventBody { reason: ThreadEventReason::Started, thread_id }));
        }
        thread_id
    }

    /// Says what was held back.
    pub(super) fn rows_due(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Joined {
            return;
        }
        if self.rows.unshown > 0 && turn.now >= self.rows.unshown_due {
            let unshown = std::mem::take(&mut self.rows.unshown);
            let more = if unshown == 1 { "hit is" } else { "hits are" };
            let why = if self.rows.held_back {
                "the editor is busy with the rows before.".to_owned()
            } else {
                format!("no more than {ROWS_PER_S_MAX} a second are shown as rows.")
            };
            let text = format!("{unshown} more {more} in the timeline: {why}");
            turn.note(OutputEventCategory::Console, text);
        }
        if self.rows.threads_dirty && turn.now >= self.rows.thread_at {
            self.rows.threads_dirty = false;
            self.rows.thread_at = turn.now + self.rows.rest(STATISTICS_INTERVAL);
            // One that is new makes the editor ask for all.
            if let Some(newest) = self.timeline.newest() {
                self.announced_thread(turn, &newest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the hits of a second that begins there have a row.
    fn rows(rows: &mut Rows, second: u64, hits: u64, asks: impl Fn(u64) -> bool) -> usize {
        let from = second * 1000;
        let shown = (from..from + hits).filter(|&seq| {
            let is_shown = rows.admit(Duration::from_secs(second), seq);
            if is_shown && asks(seq) {
                rows.asked(seq);
            }
            is_shown
        });
        shown.count()
    }

    #[test]
    fn an_editor_that_is_behind_with_asking_for_the_rows_gets_fewer() {
        let (most, least) = (ROWS_PER_S_MAX as usize, ROWS_PER_S_MIN as usize);
        let mut never = Rows::default();
        for second in 1..4 {
            assert_eq!(rows(&mut never, second, 500, |_| false), most, "it does not ask, so it is not behind");
        }
        let mut asking = Rows::default();
        assert_eq!(rows(&mut asking, 1, 500, |_| true), most);
        assert_eq!(asking.rest(SECOND), SECOND);
        assert_eq!(rows(&mut asking, 2, 500, |_| false), ROWS_BEHIND_MAX);
        assert_eq!(asking.rest(SECOND), REST_BEHIND * SECOND, "all else is told less often as well");
        assert_eq!(rows(&mut asking, 3, 500, |_| false), least);
        asking.asked(2_010);
        assert_eq!(asking.unasked.len(), ROWS_BEHIND_MAX - 10, "the row of the third second came after it");
        asking.asked(3_000);
        assert_eq!(rows(&mut asking, 4, 500, |_| true), most, "it has caught up");
    }

    #[test]
    fn hits_without_rows_are_told_less_often_while_the_editor_is_behind() {
        let due = |rows: &Rows| rows.deadline(Phase::Joined).unwrap();
        let mut asking = Rows::default();
        rows(&mut asking, 1, 500, |_| true);
        asking.withhold();
        assert_eq!((due(&asking), asking.held_back), (2 * SECOND, false));
        asking.unshown = 0;
        rows(&mut asking, 2, 500, |_| false);
        asking.withhold();
        rows(&mut asking, 3, 500, |_| false);
        asking.withhold();
        assert_eq!((due(&asking), asking.held_back), (2 * SECOND + REST_BEHIND * SECOND, true), "of the first of them");
    }
}

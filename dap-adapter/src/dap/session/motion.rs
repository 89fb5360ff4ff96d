//! Moving over the timeline: continue, step, pause and their ways back.

use super::super::envelope::Failure;
use super::super::limits::SEARCH_HITS_MAX;
use super::super::types::{
    ContinueResponse, Event as DapEvent, OutputEventCategory, ResponseBody, StoppedEventBody, StoppedEventReason,
};
use super::state::{Answer, Asked, State, Turn, View};
use super::threads::Who;
use super::window::Goal;
use crate::render::time;
use riptrace_protocol::stream::OrderedHit;
use std::sync::Arc;

/// Why a hit is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is a breakpoint's.
    Breakpoint,
    /// The person stepped to it.
    Step,
    /// The person asked for the newest hit.
    Pause,
    /// The person jumped to it.
    Goto,
}

/// The answer to steps where no hit is open.
pub(super) fn not_stopped() -> Failure {
    Failure::quiet("no hit is open: wait for the hit of a breakpoint, or pause to open the newest one")
}

impl State {
    /// Opens a hit: "paused in hit n". The services run on.
    pub(super) fn open_hit(&mut self, turn: &mut Turn<'_>, hit: Arc<OrderedHit>, reason: Reason) {
        let breakpoint = self.breakpoints.of(&hit.raw.tracepoint);
        let clock = time::clock(hit.time_ns);
        let uncertainty = time::uncertainty(hit.uncertainty_ns, " ");
        let description = format!("Hit {} · {} {} {clock} {uncertainty}", hit.seq, hit.host, hit.service);
        let is_function = breakpoint.is_some() && self.breakpoints.local(&hit.raw.tracepoint).is_none();
        let is_exception = self.breakpoints.exception_of(&hit.raw.tracepoint).is_some();
        self.leave();
        let thread_id = self.announced_thread(turn, &hit);
        self.view = View::Paused { hit };
        self.statistics.timeline_changed();
        turn.emit(DapEvent::Stopped(StoppedEventBody {
            reason: match reason {
                Reason::Breakpoint if is_exception => StoppedEventReason::Exception,
                Reason::Breakpoint if is_function => StoppedEventReason::String("function breakpoint".to_owned()),
                Reason::Breakpoint => StoppedEventReason::Breakpoint,
                Reason::Step => StoppedEventReason::Step,
                Reason::Pause => StoppedEventReason::Pause,
                Reason::Goto => StoppedEventReason::Goto,
            },
            description: Some(description),
            thread_id: Some(thread_id),
            preserve_focus_hint: Some(false),
            text: None,
            all_threads_stopped: Some(false),
            hit_breakpoint_ids: breakpoint.map(|id| vec![id]),
        }));
    }

    /// Looks away from the open hit.
    fn leave(&mut self) {
        if let View::Paused { hit } = &self.view
            && self.timeline.get(hit.seq).is_none()
        {
            self.handles.forget(hit.seq);
        }
        self.statistics.timeline_changed();
        self.view = View::Running { stop_after: None };
    }

    /// `continue`: the next hit in fleet order; at the newest one, the next that comes.
    pub(super) fn resume(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        let continued: Answer =
            Ok(Some(ResponseBody::Continue(ContinueResponse { all_threads_continued: Some(true) })));
        let Some(current) = self.paused_hit().map(|hit| hit.seq) else {
            // Editors continue threads that are not stopped when they tidy up; nothing is to be done.
            return turn.answer(asked, continued);
        };
        turn.answer(asked, continued);
        self.go(turn, Goal::Station, true, current);
    }

    /// There is no hit that a motion could go to; the editor is where it was, or waits for the next hit.
    pub(super) fn found_nothing(&mut self, turn: &mut Turn<'_>, goal: &Goal, forward: bool) {
        let Some(current) = self.paused_hit().cloned() else { return };
        let runner = || current.raw.goroutine.map_or("this thread".to_owned(), |id| format!("goroutine {id}"));
        match (goal, forward) {
            (Goal::Station, true) if self.attachment.is_recording => return self.say_end(turn),
            (Goal::Station, true) => {
                self.leave();
                self.view = View::Running { stop_after: self.attachment.config.stop_on_hit.then_some(current.seq) };
                return;
            }
            (Goal::Station, false) => self.say_no_earlier(turn, "hit"),
            (Goal::Of(_), true) => {
                let text =
                    format!("RipTrace: {} has no later hit yet; Continue waits for the next hit of any.", runner());
                turn.note(OutputEventCategory::Console, text);
            }
            (Goal::Of(_), false) => self.say_no_earlier(turn, &format!("hit of {}", runner())),
        }
        self.open_hit(turn, current, goal.reason());
    }

    /// Opens the first hit of a recording.
    pub(super) fn open_first(&mut self, turn: &mut Turn<'_>) {
        let stations = self.stations();
        if let Some(hit) = self.timeline.next(0, |hit| self.is_station(&stations, hit)) {
            self.open_hit(turn, hit, Reason::Breakpoint);
        }
    }

    /// There is no later hit in the recording; the editor is where it was.
    fn say_end(&mut self, turn: &mut Turn<'_>) {
        turn.note(OutputEventCategory::Console, "RipTrace: the recording has no later hit.");
        if let Some(current) = self.paused_hit().cloned() {
            self.open_hit(turn, current, Reason::Step);
        }
    }

    /// `reverseContinue`: the previous hit in fleet order.
    pub(super) fn reverse(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        let Some(current) = self.paused_hit().cloned() else { return turn.answer(asked, Err(not_stopped())) };
        turn.answer(asked, Ok(None));
        self.go(turn, Goal::Station, false, current.seq);
    }

    /// `next` and `stepBack`: the next or previous hit of the same goroutine.
    pub(super) fn step(&mut self, turn: &mut Turn<'_>, asked: Asked, forward: bool) {
        let Some(current) = self.paused_hit().cloned() else { return turn.answer(asked, Err(not_stopped())) };
        turn.answer(asked, Ok(None));
        self.go(turn, Goal::Of(Box::new(Who::of(&current))), forward, current.seq);
    }

    /// A search over hits that a later condition is asked of was cut; the editor is where it was.
    pub(super) fn say_cut(&mut self, turn: &mut Turn<'_>) {
        let text = format!(
            "RipTrace: none of the nearest {SEARCH_HITS_MAX} hits fulfils the condition; a filter of the timeline finds those \
             farther away."
        );
        turn.note(OutputEventCategory::Console, text);
        if let Some(current) = self.paused_hit().cloned() {
            self.open_hit(turn, current, Reason::Step);
        }
    }

    fn say_no_earlier(&self, turn: &mut Turn<'_>, what: &str) {
        let gone = match self.timeline.evicted() {
            0 => String::new(),
            n => format!(" ({n} older hits have made room for newer ones)"),
        };
        turn.note(OutputEventCategory::Console, format!("RipTrace: there is no earlier {what}{gone}."));
    }

    /// `pause`: the newest hit.
    pub(super) fn pause(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        turn.answer(asked, Ok(None));
        match self.timeline.newest() {
            Some(hit) => self.open_hit(turn, hit, Reason::Pause),
            None => {
                self.view = View::Running { stop_after: Some(0) };
                turn.note(
                    OutputEventCategory::Console,
                    "RipTrace: there is no hit yet; the first one of a breakpoint opens.",
                );
            }
        }
    }
}

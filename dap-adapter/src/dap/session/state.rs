//! The state of a session and the one door to it: [`State::handle`]. What each kind of request and event does is in
//! the files beside this one.

use super::super::envelope::{Failure, Malformed, Outgoing};
use super::super::types::{
    self, Command, Event as DapEvent, Module, OutputEventBody, OutputEventCategory, Request, ResponseBody,
};
use super::breakpoints::Breakpoints;
use super::client::Client;
use super::event::{Effect, Event};
use super::handles::Handles;
use super::lifecycle::Attachment;
use super::own::{Rates, Statistics};
use super::paths::{LocalFiles, Paths};
use super::progress::Progress;
use super::recording::Recordings;
use super::sources::Sources;
use super::stream::Rows;
use super::threads::Threads;
use super::variables::ValueCache;
use super::window::Past;
use crate::timeline::{Dictionaries, Timeline, TimelineLimits};
use riptrace_protocol::stream::OrderedHit;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How far the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before `initialize`.
    Fresh,
    /// Before `attach`, or after one that failed.
    Ready,
    /// `attach` is under way.
    Joining,
    /// Part of a fleet.
    Joined,
    /// After `terminate` or `disconnect`.
    Ended,
}

/// What the editor looks at.
#[derive(Debug, Clone)]
pub(super) enum View {
    /// At no hit. `stop_after`: the first hit of a breakpoint behind this `seq` is opened; `None` opens none.
    Running {
        /// See above.
        stop_after: Option<u64>,
    },
    /// "Paused in hit n". The hit is kept even when it has left the timeline.
    Paused {
        /// The hit.
        hit: Arc<OrderedHit>,
    },
}

/// The state of a debug session.
pub(crate) struct State {
    pub(super) phase: Phase,
    pub(super) client: Client,
    pub(super) attachment: Attachment,
    pub(super) configured: bool,
    pub(super) breakpoints: Breakpoints,
    pub(super) timeline: Timeline,
    pub(super) dictionaries: Dictionaries,
    pub(super) values: ValueCache,
    pub(super) handles: Handles,
    pub(super) threads: Threads,
    pub(super) view: View,
    pub(super) rows: Rows,
    pub(super) statistics: Statistics,
    pub(super) rates: Rates,
    pub(super) sources: Sources,
    pub(super) progress: Progress,
    pub(super) recordings: Recordings,
    pub(super) past: Past,
    /// Builds that the editor knows as modules.
    pub(super) told_modules: BTreeMap<String, Module>,
    pub(super) paths: Paths,
}

/// What a turn of the state machine works with besides the state.
pub(super) struct Turn<'a> {
    /// Time since the session began; never goes back.
    pub(super) now: Duration,
    effects: &'a mut Vec<Effect>,
}

/// A request that is to be answered.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Number of the request.
    pub(super) seq: i64,
    /// Its command.
    pub(super) command: String,
}

/// What a request leads to: an answer now, or later by somebody who keeps the [`Asked`].
pub(super) type Answer = Result<Option<ResponseBody>, Failure>;

impl Turn<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, asked: Asked, answer: Answer) {
        let outcome = answer.and_then(|body| match body {
            None => Ok(None),
            Some(body) => types::response_body(body).map_err(|e| Failure::quiet(format!("the answer is no JSON: {e}"))),
        });
        self.answer_raw(asked, outcome);
    }

    /// Answers a request with a body that is no type of the protocol.
    pub(super) fn answer_raw(&mut self, asked: Asked, outcome: Result<Option<Value>, Failure>) {
        self.effects.push(Effect::Send(Outgoing::Response { request_seq: asked.seq, command: asked.command, outcome }));
    }

    /// Sends an event of the protocol.
    pub(super) fn emit(&mut self, event: DapEvent) {
        match types::event(event) {
            Ok((event, body)) => self.effects.push(Effect::Send(Outgoing::Event { event, body })),
            Err(error) => tracing::error!("an event could not be written: {error}"),
        }
    }

    /// Sends an event of the protocol that no type of the crate holds as it should be.
    pub(super) fn emit_raw(&mut self, name: &str, body: Value) {
        self.effects.push(Effect::Send(Outgoing::Event { event: name.to_owned(), body: Some(body) }));
    }

    /// Sends an event of RipTrace's own.
    pub(super) fn emit_own(&mut self, name: &str, body: Value) {
        self.effects.push(Effect::Send(Outgoing::Event { event: format!("riptrace/{name}"), body: Some(body) }));
    }

    /// Tells the person something in the debug console.
    pub(super) fn note(&mut self, category: OutputEventCategory, text: impl Into<String>) {
        let mut output = text.into();
        output.push('\n');
        self.emit(DapEvent::Output(OutputEventBody { category: Some(category), output, ..OutputEventBody::default() }));
    }
}

impl State {
    /// A session before its first request.
    pub(crate) fn new(files: Box<dyn LocalFiles>, limits: TimelineLimits) -> State {
        State {
            phase: Phase::Fresh,
            client: Client::default(),
            attachment: Attachment::default(),
            configured: false,
            breakpoints: Breakpoints::default(),
            timeline: Timeline::new(limits),
            dictionaries: Dictionaries::default(),
            values: ValueCache::default(),
            handles: Handles::default(),
            threads: Threads::default(),
            view: View::Running { stop_after: Some(0) },
            rows: Rows::default(),
            statistics: Statistics::default(),
            rates: Rates::default(),
            sources: Sources::default(),
            progress: Progress::default(),
            recordings: Recordings::default(),
            past: Past::default(),
            told_modules: BTreeMap::new(),
            paths: Paths::new(files),
        }
    }

    /// Takes one event and says what is to be done. `now` is the time since the session began.
    pub(crate) fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        let mut turn = Turn { now, effects };
        match event {
            Event::Request { seq, command, arguments } => self.request(&mut turn, Asked { seq, command }, arguments),
            Event::Malformed(malformed) => malformed_request(&mut turn, malformed),
            Event::Garbage(why) => turn.note(
                OutputEventCategory::Stderr,
                format!("RipTrace skipped what is no message of the debug adapter protocol: {why}."),
            ),
            Event::Joined { attempt, outcome } => self.joined(&mut turn, attempt, outcome),
            Event::RecordingOpened { attempt, outcome } => self.recording_opened(&mut turn, attempt, outcome),
            Event::RecordingRead { attempt, outcome } => self.recording_read(&mut turn, attempt, outcome),
            Event::Saved { save, outcome } => self.saved(&mut turn, save, outcome),
            Event::PastRead { before, outcome } => self.past_read(&mut turn, before, outcome),
            Event::Fleet(outcome) => self.fleet_seen(&mut turn, outcome),
            Event::Mapped { breakpoint, outcome } => self.mapped(&mut turn, breakpoint, outcome),
            Event::FunctionFound { find, name, place } => self.function_found(&mut turn, find, &name, place),
            Event::SourceRead { read, file, text } => self.source_read(&mut turn, read, &file, text),
            Event::Located { locate, lines } => self.located(&mut turn, locate, lines),
            Event::Created { tracepoint, outcome } => self.created(&mut turn, &tracepoint, outcome),
            Event::Removed { tracepoint, outcome } => self.removed(&mut turn, &tracepoint, outcome),
            Event::Stream(event) => self.stream(&mut turn, event),
            Event::StreamEnded => self.stream_ended(&mut turn),
            Event::EditorGone => self.editor_gone(&mut turn),
            Event::Closed(outcome) => self.closed(&mut turn, outcome),
            Event::Tick => {}
        }
        self.due(&mut turn);
    }

    /// When [`Event::Tick`] is wanted, as time since the session began.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let changes = if self.phase == Phase::Joined { self.statistics.deadline() } else { None };
        let rest = self.rows.rest(super::super::limits::BREAKPOINT_EVENT_INTERVAL);
        [self.breakpoints.deadline(rest), self.rows.deadline(self.phase), self.attachment.deadline(self.phase), changes]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    fn due(&mut self, turn: &mut Turn<'_>) {
        self.breakpoints_due(turn);
        self.rows_due(turn);
        self.changes_due(turn);
        self.fleet_due(turn);
    }

    fn request(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: Option<Value>) {
        let announces_ansi = arguments.as_ref().is_some_and(|a| a["supportsANSIStyling"] == Value::Bool(true));
        let modes = types::modes(&asked.command, arguments.as_ref());
        let request = match types::parse_request(&asked.command, arguments) {
            Ok(request) => request,
            Err(error) => return turn.answer(asked, Err(Failure::quiet(error.to_string()))),
        };
        if let Some(failure) = self.out_of_order(&request) {
            return turn.answer(asked, Err(failure));
        }
        let command = match request {
            Request::Known(command) => *command,
            Request::Custom { name, arguments } => return self.own_request(turn, asked, &name, arguments),
            Request::Newer { name: "locations", arguments } => return self.locations(turn, asked, &arguments),
            Request::Newer { .. } | Request::Unknown => {
                let why = format!("RipTrace does not know the request '{}'", asked.command);
                return turn.answer(asked, Err(Failure::quiet(why)));
            }
        };
        match command {
            Command::Initialize(arguments) => self.initialize(turn, asked, &arguments, announces_ansi),
            Command::Attach(arguments) => self.attach(turn, asked, arguments.additional_data.unwrap_or_default()),
            Command::Launch(arguments) => self.launch(turn, asked, &arguments.additional_data.unwrap_or_default()),
            Command::ConfigurationDone => self.configuration_done(turn, asked),
            Command::Restart(arguments) => self.restart(turn, asked, arguments),
            Command::Terminate(_) => self.terminate(turn, asked),
            Command::Disconnect(_) => self.disconnect(turn, asked),
            Command::Cancel(arguments) => self.cancel(turn, asked, &arguments),

            Command::SetBreakpoints(arguments) => self.set_breakpoints(turn, asked, arguments, modes),
            Command::SetFunctionBreakpoints(arguments) => {
                self.set_function_breakpoints(turn, asked, arguments.breakpoints, modes)
            }
            Command::SetExceptionBreakpoints(arguments) => {
                self.set_exception_breakpoints(turn, asked, arguments, modes)
            }
            Command::SetDataBreakpoints(_) | Command::SetInstructionBreakpoints(_) | Command::DataBreakpointInfo(_) => {
                self.other_kinds(turn, asked, command)
            }
            Command::BreakpointLocations(arguments) => self.breakpoint_locations(turn, asked, &arguments),

            Command::Continue(_) => self.resume(turn, asked),
            Command::ReverseContinue(_) => self.reverse(turn, asked),
            Command::Next(_) => self.step(turn, asked, true),
            Command::StepBack(_) => self.step(turn, asked, false),
            Command::StepIn(_) => self.step_request(turn, asked, true),
            Command::StepOut(_) => self.step_request(turn, asked, false),
            Command::GotoTargets(arguments) => self.goto_targets(turn, asked, &arguments),
            Command::Goto(arguments) => self.goto_target(turn, asked, arguments.target_id),
            Command::ExceptionInfo(arguments) => self.exception_info(turn, asked, arguments.thread_id),
            Command::Pause(_) => self.pause(turn, asked),

            Command::Threads => self.list_threads(turn, asked),
            Command::StackTrace(arguments) => self.stack_trace(turn, asked, &arguments),
            Command::Scopes(arguments) => self.scopes(turn, asked, arguments.frame_id),
            Command::Source(arguments) => self.source(turn, asked, arguments.source_reference),
            Command::Modules(arguments) => {
                self.modules(turn, asked, arguments.start_module, arguments.module_count);
            }
            Command::LoadedSources => self.loaded_sources(turn, asked),
            Command::Variables(arguments) => self.list_variables(turn, asked, &arguments),
            Command::Evaluate(arguments) => self.evaluate(turn, asked, &arguments),
            Command::Completions(arguments) => self.completions(turn, asked, &arguments),

            Command::SetVariable(_) | Command::SetExpression(_) | Command::WriteMemory(_) => {
                turn.answer(
                    asked,
                    Err(Failure::shown("RipTrace never changes a running service: values cannot be set.")),
                );
            }
            Command::TerminateThreads(_) => {
                turn.answer(asked, Err(Failure::shown("RipTrace never ends a thread of a running service.")));
            }
            Command::Disassemble(_) | Command::ReadMemory(_) | Command::RestartFrame(_) | Command::StepInTargets(_) => {
                let why = format!("RipTrace does not support '{}'; its capabilities do not offer it", asked.command);
                turn.answer(asked, Err(Failure::quiet(why)));
            }
        }
    }

    /// Why a request cannot be taken now.
    fn out_of_order(&self, request: &Request) -> Option<Failure> {
        let Request::Known(command) = request else {
            if self.phase == Phase::Ended {
                return Some(Failure::quiet("the session has ended; send 'disconnect'"));
            }
            return (self.phase == Phase::Fresh).then(|| Failure::quiet("send 'initialize' first"));
        };
        match (self.phase, command.as_ref()) {
            (Phase::Fresh, Command::Initialize(_) | Command::Disconnect(_)) => None,
            (Phase::Fresh, _) => Some(Failure::quiet("send 'initialize' first")),
            (_, Command::Initialize(_)) => Some(Failure::quiet("'initialize' was sent already; it is sent once")),
            (Phase::Ended, Command::Disconnect(_) | Command::Terminate(_) | Command::Threads | Command::Cancel(_)) => {
                None
            }
            (Phase::Ended, _) => Some(Failure::quiet("the session has ended; send 'disconnect'")),
            (Phase::Joining | Phase::Joined, Command::Attach(_) | Command::Launch(_)) => Some(Failure::quiet(
                "'attach' or 'launch' was sent already; disconnect and start a new session for another fleet",
            )),
            _ => None,
        }
    }

    /// The hit of a number: in the timeline, or the one that is looked at.
    pub(super) fn hit(&self, seq: u64) -> Option<Arc<OrderedHit>> {
        match (&self.view, self.timeline.get(seq)) {
            (_, Some(hit)) => Some(hit),
            (View::Paused { hit }, None) if hit.seq == seq => Some(hit.clone()),
            _ => self.past_hit(seq),
        }
    }

    /// Whether the session is part of a fleet.
    pub(super) fn is_joined(&self) -> bool {
        self.phase == Phase::Joined
    }

    /// The hit that the editor looks at.
    pub(super) fn paused_hit(&self) -> Option<&Arc<OrderedHit>> {
        match &self.view {
            View::Paused { hit } => Some(hit),
            View::Running { .. } => None,
        }
    }

    /// Why there is no hit of a number.
    pub(super) fn no_such_hit(&self, seq: u64) -> Failure {
        let kept = limits_text(self.timeline.len());
        Failure::quiet(format!("hit {seq} has made room for newer ones; {kept}"))
    }
}

fn limits_text(kept: usize) -> String {
    format!("the newest {kept} hits are kept")
}

fn malformed_request(turn: &mut Turn<'_>, malformed: Malformed) {
    let failure = Failure::quiet(malformed.why.clone());
    match malformed.seq {
        Some(seq) => {
            let command = malformed.command.unwrap_or_else(|| "unknown".to_owned());
            turn.answer(Asked { seq, command }, Err(failure));
        }
        None => turn.note(
            OutputEventCategory::Stderr,
            format!("RipTrace could not answer a message of the editor: {}.", malformed.why),
        ),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

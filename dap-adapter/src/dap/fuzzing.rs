//! Whole conversations made of arbitrary bytes: what the fuzz target of this crate (`fuzz`) and its random tests reach of
//! the adapter's private parts. No part of the library's interface.

use super::codec::{DapCodec, Frame, Transport};
use super::envelope::{self, Incoming, Outgoing};
use super::session::{Effect, Event, JoinedFleet, LocalFiles, Mapped, OpenedRecording, State};
use crate::environment::CheckoutDefaults;
use crate::timeline::TimelineLimits;
use crate::timeline::recording::Header;
use bytes::BytesMut;
use riptrace_protocol::fleet::{FleetView, TracepointStatus};
use riptrace_protocol::ids::{Incarnation, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;
use tokio_util::codec::Decoder;

/// A machine without files.
pub(crate) struct NoFiles;

impl LocalFiles for NoFiles {
    fn is_file(&self, _: &Path) -> bool {
        false
    }

    fn go_module(&self, _: &Path) -> Option<String> {
        None
    }
}

/// What a world without processes answers to an effect; `None` where nothing is to be answered.
pub(crate) fn answer(effect: Effect, fails: bool) -> Option<Event> {
    fn outcome<T>(fails: bool, value: T) -> Result<T, String> {
        if fails { Err("the fleet is away".to_owned()) } else { Ok(value) }
    }
    let fleet = || FleetView { coordinator: Incarnation(1), hosts: Vec::new(), tracepoints: Vec::new() };
    Some(match effect {
        Effect::Join { attempt, .. } => {
            let session = SessionId::new("s").ok()?;
            let joined = JoinedFleet { session, defaults: CheckoutDefaults::default(), fleet: fleet() };
            Event::Joined { attempt, outcome: outcome(fails, Box::new(joined)) }
        }
        Effect::AskFleet => Event::Fleet(outcome(true, fleet())),
        Effect::Map { breakpoint, .. } => Event::Mapped { breakpoint, outcome: outcome(fails, Mapped::Unread) },
        Effect::Create { tracepoint, .. } => {
            let status = TracepointStatus {
                tracepoint: tracepoint.id.clone(),
                location: tracepoint.location,
                probes: Vec::new(),
                ended: None,
            };
            Event::Created { tracepoint: tracepoint.id, outcome: outcome(fails, status) }
        }
        Effect::Remove(tracepoint) => Event::Removed { tracepoint, outcome: outcome(fails, ()) },
        Effect::ReadSource { read, file, .. } => {
            Event::SourceRead { read, file, text: outcome(fails, "package main\n".to_owned()).ok() }
        }
        Effect::FindFunction { find, name } => {
            Event::FunctionFound { find, name, place: outcome(fails, ("/shop/cart.go".into(), 3)).ok() }
        }
        Effect::Locate { locate, from, to, .. } => Event::Located { locate, lines: (from..=to).collect() },
        Effect::OpenRecording { attempt, .. } => {
            let header = Header::new(&fleet(), &[], String::new(), 0);
            let opened = OpenedRecording { defaults: CheckoutDefaults::default(), header };
            Event::RecordingOpened { attempt, outcome: outcome(fails, Box::new(opened)) }
        }
        Effect::ReadRecording { attempt } => Event::RecordingRead { attempt, outcome: outcome(fails, None) },
        Effect::BeginSave { save, .. } | Effect::SaveItems { save, .. } => {
            Event::Saved { save, outcome: outcome(fails, None) }
        }
        Effect::EndSave { save } => Event::Saved { save, outcome: outcome(fails, Some(1)) },
        Effect::ReadPast { before, .. } => Event::PastRead { before, outcome: outcome(fails, Vec::new()) },
        Effect::Close => Event::Closed(outcome(fails, ())),
        Effect::AbortSave | Effect::Send(_) | Effect::Exit => return None,
    })
}

/// A conversation under way.
struct Conversation {
    state: State,
    now: Duration,
    /// How often each number was asked, less how often it was answered.
    open: BTreeMap<i64, i64>,
    waiting: VecDeque<Effect>,
    answered: usize,
    exited: bool,
}

impl Conversation {
    fn happen(&mut self, event: Event) {
        if self.exited {
            return;
        }
        if let Event::Request { seq, .. } = &event {
            *self.open.entry(*seq).or_default() += 1;
        }
        if let Event::Malformed(malformed) = &event
            && let Some(seq) = malformed.seq
        {
            *self.open.entry(seq).or_default() += 1;
        }
        let mut effects = Vec::new();
        self.state.handle(self.now, event, &mut effects);
        for effect in effects {
            assert!(!self.exited, "nothing is done after the end: {effect:?}");
            match effect {
                Effect::Send(Outgoing::Response { request_seq, .. }) => {
                    let open = self.open.entry(request_seq).or_default();
                    *open -= 1;
                    assert!(*open >= 0, "request {request_seq} was answered more often than asked");
                    self.answered += 1;
                }
                Effect::Exit => self.exited = true,
                effect => self.waiting.push_back(effect),
            }
        }
        if let Some(deadline) = self.state.deadline().filter(|_| !self.exited) {
            assert!(deadline > self.now, "what is due is done, or the driver would spin");
        }
    }

    /// Answers what waits longest.
    fn answer_one(&mut self, fails: bool) {
        if let Some(event) = self.waiting.pop_front().and_then(|effect| answer(effect, fails)) {
            self.happen(event);
        }
    }
}

/// Reads `input` as what an editor sends to an adapter that is attached, answers what the adapter wants done, and says
/// how many answers it gave.
///
/// # Panics
/// When a request is answered twice or not at all, or when anything happens after the end.
pub fn conversation(input: &[u8]) -> usize {
    let mut talk = Conversation {
        state: State::new(Box::new(NoFiles), TimelineLimits { hits: 8, bytes: 1 << 20 }),
        now: Duration::ZERO,
        open: BTreeMap::new(),
        waiting: VecDeque::new(),
        answered: 0,
        exited: false,
    };
    for (seq, command) in [(-2, "initialize"), (-1, "attach")] {
        talk.happen(Event::Request { seq, command: command.to_owned(), arguments: None });
    }
    talk.answer_one(false);
    let mut codec = DapCodec::new(Transport::Stdio);
    let mut buffer = BytesMut::from(input);
    let mut steps = 0u64;
    while let Ok(Some(frame)) = codec.decode(&mut buffer) {
        steps += 1;
        match frame {
            Frame::Body(body) => match envelope::parse(&body) {
                Ok(Incoming::Request { seq, command, arguments }) => {
                    talk.happen(Event::Request { seq, command, arguments });
                }
                Ok(Incoming::Response) => {}
                Err(malformed) => talk.happen(Event::Malformed(malformed)),
            },
            Frame::Garbage(garbage) => talk.happen(Event::Garbage(garbage.to_string())),
        }
        // Some answers come at once, some late, some not before the end; each fifth is a failure.
        if !steps.is_multiple_of(3) {
            talk.answer_one(steps.is_multiple_of(5));
        }
        if steps.is_multiple_of(4) {
            talk.now += Duration::from_millis(300);
            talk.happen(Event::Tick);
        }
    }
    talk.happen(Event::Request { seq: i64::MIN, command: "disconnect".to_owned(), arguments: None });
    while !talk.exited && !talk.waiting.is_empty() {
        talk.answer_one(false);
    }
    assert!(talk.exited, "the conversation ends");
    let open: Vec<&i64> = talk.open.iter().filter(|(_, count)| **count > 0).map(|(seq, _)| seq).collect();
    assert!(open.is_empty(), "requests {open:?} were not answered");
    talk.answered
}

//! The coordinator's side towards viewers: sessions, tracepoints, and the view of the fleet.

use super::{Asked, Awaited, Phase, Retired, Session, State, Waiter, Wanted};
use crate::effect::{Ask, Effect, ReplyBody, SessionRecord, TracepointRecord};
use crate::event::{AskId, Request, RequestId};
use crate::limits::{MS, REMOVE_WAIT_MS, RETIRED_MS, SESSION_TRACEPOINTS_MAX, SESSIONS_MAX, STATUS_INTERVAL_MS};
use crate::session::SessionStream;
use riptrace_protocol::agent_api::LinesGet;
use riptrace_protocol::coordinator_api::{SessionOpen, SessionOpened, SessionState};
use riptrace_protocol::fleet::{FleetView, HostView, ProbeState, TracepointStatus};
use riptrace_protocol::ids::{BuildId, SessionId, TracepointId};
use riptrace_protocol::limits::{AGENT_REQUEST_MS, EXPRESSION_BYTES_MAX, SESSION_LEASE_MS};
use riptrace_protocol::location::Location;
use riptrace_protocol::stream::Resume;
use riptrace_protocol::tracepoint::{HitCondition, Tracepoint};

/// Expressions that one tracepoint may capture besides the variables in scope, at most: more than a person reads.
const CAPTURES_MAX: usize = 64;
/// Questions about lines that are under way at a time, at most: editors ask when a file is looked at.
const LINES_ASKED_MAX: usize = 64;

/// Why a request is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("session {0} is not open: its lease has passed, or it was closed; open it again")]
    NotOpen(SessionId),
    #[error("there are {SESSIONS_MAX} sessions already: close one first")]
    Sessions,
    #[error("session {0} was closed while it was being opened; open it again")]
    Closed(SessionId),
    #[error("session {0} has {SESSION_TRACEPOINTS_MAX} tracepoints already: remove one first")]
    Tracepoints(SessionId),
    #[error("tracepoint {0} belongs to another session: choose another id")]
    Taken(TracepointId),
    #[error("session {session} has no tracepoint {tracepoint}")]
    NoTracepoint { session: SessionId, tracepoint: TracepointId },
    #[error("no process that can be traced runs build {0} now")]
    NoSuchBuild(BuildId),
    #[error("{LINES_ASKED_MAX} questions about lines are under way: ask again")]
    Busy,
    #[error("tracepoint {tracepoint}: {what}")]
    Malformed { tracepoint: TracepointId, what: &'static str },
}

impl State {
    pub(super) fn request(&mut self, now_ns: u64, request: RequestId, body: Request, effects: &mut Vec<Effect>) {
        let reply = match body {
            Request::FleetGet => Ok(Some(ReplyBody::Fleet(Box::new(self.fleet())))),
            Request::SessionOpen(open) => self.open(now_ns, request, open, effects),
            Request::SessionRenew(renew) => self.renew(now_ns, renew.session),
            Request::SessionClose(close) => Ok(self.close(now_ns, request, &close.session, effects)),
            Request::TracepointCreate(create) => {
                self.create(now_ns, request, create.session, create.tracepoint, effects).map(|()| None)
            }
            Request::TracepointRemove(remove) => {
                self.remove(now_ns, request, remove.session, remove.tracepoint, effects).map(|()| None)
            }
            Request::LinesGet(lines) => self.lines(request, lines, effects).map(|()| None),
        };
        match reply.map_err(|refusal| refusal.to_string()) {
            // The answer waits for others.
            Ok(None) => {}
            Ok(Some(body)) => effects.push(Effect::Reply { request, reply: Ok(body) }),
            Err(why) => effects.push(Effect::Reply { request, reply: Err(why) }),
        }
    }

    fn open(
        &mut self,
        now_ns: u64,
        request: RequestId,
        open: SessionOpen,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<ReplyBody>, Refusal> {
        let SessionOpen { session: id, viewer } = open;
        let viewer: String = viewer.chars().take(256).collect();
        let lease_until_ns = now_ns + SESSION_LEASE_MS * MS;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.lease_until_ns = lease_until_ns;
            return Ok(match &mut session.phase {
                Phase::Open => Some(self.opened()),
                Phase::Opening(waiting) => {
                    waiting.push(request);
                    None
                }
            });
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::Sessions);
        }
        let trace_sequence = self.trace_next;
        let session = Session {
            viewer,
            lease_until_ns,
            phase: Phase::Opening(vec![request]),
            stream: SessionStream::new(id.clone(), None, trace_sequence),
            trace_sequence,
            status_dirty: false,
            status_due_ns: now_ns,
            status_said: Vec::new(),
        };
        self.sessions.insert(id.clone(), session);
        effects.push(Effect::LoadSession(id));
        Ok(None)
    }

    pub(super) fn session_loaded(
        &mut self,
        now_ns: u64,
        id: &SessionId,
        resume: Option<Resume>,
        effects: &mut Vec<Effect>,
    ) {
        let opened = self.opened();
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Phase::Opening(waiting) = &mut session.phase else { return };
        let waiting = std::mem::take(waiting);
        session.phase = Phase::Open;
        session.lease_until_ns = now_ns + SESSION_LEASE_MS * MS;
        // It may have been open before: its numbers go on, its tracepoints and their counts are gone.
        let resume = resume.map(|resume| Resume { counted: Vec::new(), ..resume });
        session.stream = SessionStream::new(id.clone(), resume, session.trace_sequence);
        for request in waiting {
            effects.push(Effect::Reply { request, reply: Ok(opened.clone()) });
        }
        self.save(id, effects);
    }

    fn opened(&self) -> ReplyBody {
        ReplyBody::Opened(SessionOpened { coordinator: self.config.incarnation, lease_ms: SESSION_LEASE_MS })
    }

    fn open_session(&mut self, id: &SessionId) -> Result<&mut Session, Refusal> {
        let open = self.sessions.get_mut(id).filter(|session| matches!(session.phase, Phase::Open));
        open.ok_or_else(|| Refusal::NotOpen(id.clone()))
    }

    fn renew(&mut self, now_ns: u64, id: SessionId) -> Result<Option<ReplyBody>, Refusal> {
        self.open_session(&id)?.lease_until_ns = now_ns + SESSION_LEASE_MS * MS;
        Ok(Some(ReplyBody::Session(self.session_state(&id))))
    }

    /// Ends a session; one that is not open is closed already.
    fn close(
        &mut self,
        now_ns: u64,
        request: RequestId,
        id: &SessionId,
        effects: &mut Vec<Effect>,
    ) -> Option<ReplyBody> {
        let mut state = self.session_state(id);
        state.tracepoints.iter_mut().for_each(|last| self.until_told(last));
        if !self.sessions.contains_key(id) {
            return Some(ReplyBody::Session(state));
        }
        self.end_session(id, effects);
        self.waiters.push(Waiter {
            request,
            deadline_ns: now_ns + REMOVE_WAIT_MS * MS,
            session: id.clone(),
            awaited: Awaited::Closed { last: state.tracepoints },
        });
        None
    }

    /// Of what is being removed the counts are those of a while ago, until its agent tells the last ones.
    fn until_told(&self, last: &mut TracepointStatus) {
        for told in &mut last.probes {
            let link = self.hosts.get(&told.process.host).and_then(|host| host.links.get(&told.tracepoint));
            let counts = !matches!(told.state, ProbeState::Refused | ProbeState::Absent);
            told.unfinished |= counts && link.is_some_and(|link| link.may_be_armed);
        }
    }

    fn end_session(&mut self, id: &SessionId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.remove(id) else { return };
        tracing::info!(session = %id, viewer = session.viewer, "session ends");
        if let Phase::Opening(waiting) = session.phase {
            for request in waiting {
                effects.push(Effect::Reply { request, reply: Err(Refusal::Closed(id.clone()).to_string()) });
            }
        }
        self.wanted.retain(|_, wanted| wanted.session != *id);
        self.retired.retain(|_, retired| retired.session != *id);
        effects.push(Effect::ForgetSession(id.clone()));
        self.dirty = true;
    }

    fn create(
        &mut self,
        now_ns: u64,
        request: RequestId,
        id: SessionId,
        tracepoint: Tracepoint,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let session = self.open_session(&id)?;
        session.lease_until_ns = session.lease_until_ns.max(now_ns + SESSION_LEASE_MS * MS);
        session.status_dirty = true;
        check(&tracepoint)?;
        let known = self.wanted.get(&tracepoint.id);
        if known.is_some_and(|wanted| wanted.session != id) {
            return Err(Refusal::Taken(tracepoint.id));
        }
        let owned = self.wanted.values().filter(|wanted| wanted.session == id).count();
        if known.is_none() && owned >= SESSION_TRACEPOINTS_MAX {
            return Err(Refusal::Tracepoints(id));
        }
        // Asked again with the same content (the answer was lost): go on with what is there.
        let same = known.filter(|wanted| wanted.tracepoint == tracepoint && wanted.ended.is_none());
        let generation = match same {
            Some(wanted) => wanted.generation,
            None => {
                self.generation += 1;
                if let Ok(session) = self.open_session(&id) {
                    session.stream.reset_count(&tracepoint.id);
                }
                let wanted = Wanted {
                    session: id.clone(),
                    tracepoint: tracepoint.clone(),
                    generation: self.generation,
                    ended: None,
                    counted: 0,
                    beyond: 0,
                };
                self.wanted.insert(tracepoint.id.clone(), wanted);
                self.retired.remove(&tracepoint.id);
                // What failed before says nothing about this version.
                for link in self.hosts.values_mut().filter_map(|host| host.links.get_mut(&tracepoint.id)) {
                    link.failure = None;
                    link.call.due_ns = 0;
                }
                self.save(&id, effects);
                self.generation
            }
        };
        self.waiters.push(Waiter {
            request,
            deadline_ns: now_ns + AGENT_REQUEST_MS * MS,
            session: id,
            awaited: Awaited::Created { tracepoint: tracepoint.id, generation },
        });
        self.dirty = true;
        Ok(())
    }

    fn remove(
        &mut self,
        now_ns: u64,
        request: RequestId,
        id: SessionId,
        tracepoint: TracepointId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.open_session(&id)?.status_dirty = true;
        let Some(wanted) = self.wanted.get(&tracepoint).filter(|wanted| wanted.session == id) else {
            return Err(Refusal::NoTracepoint { session: id, tracepoint });
        };
        let mut last = Box::new(self.tracepoint_status(wanted));
        self.until_told(&mut last);
        let count_max = wanted.tracepoint.limits.count.unwrap_or(u64::MAX);
        let remaining = count_max.saturating_sub(wanted.counted);
        let retired = Retired { session: id.clone(), until_ns: now_ns + RETIRED_MS * MS, remaining };
        self.wanted.remove(&tracepoint);
        self.retired.insert(tracepoint, retired);
        self.save(&id, effects);
        self.waiters.push(Waiter {
            request,
            deadline_ns: now_ns + REMOVE_WAIT_MS * MS,
            session: id,
            awaited: Awaited::Removed { last },
        });
        self.dirty = true;
        Ok(())
    }

    /// Hands a question about lines to an agent on whose host a process runs the build.
    fn lines(&mut self, request: RequestId, lines: LinesGet, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let runs = |host: &&crate::fleet::Host| {
            let processes = host.profile.iter().flat_map(|profile| &profile.processes);
            host.alive
                && processes.into_iter().any(|process| process.build.id == lines.build && process.refused.is_none())
        };
        let Some(host) = self.hosts.values().find(runs).map(|host| host.name.clone()) else {
            return Err(Refusal::NoSuchBuild(lines.build));
        };
        let under_way = self.asks.values().filter(|(_, asked)| matches!(asked, Asked::Lines { .. })).count();
        if under_way >= LINES_ASKED_MAX {
            return Err(Refusal::Busy);
        }
        let ask = AskId(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(ask, (host.clone(), Asked::Lines { request }));
        effects.push(Effect::Ask { ask, host, body: Ask::Lines(lines) });
        Ok(())
    }

    /// Answers those whose wait is over.
    pub(super) fn answer_waiters(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            let out = |state: &State, id: &TracepointId| state.hosts.values().all(|host| host.removed(id));
            let over = now_ns >= waiter.deadline_ns
                || match &waiter.awaited {
                    Awaited::Created { tracepoint, generation } => match self.wanted.get(tracepoint) {
                        Some(wanted) if wanted.generation == *generation && wanted.ended.is_none() => {
                            let settled = |host: &crate::fleet::Host| host.settled(&wanted.tracepoint, *generation);
                            self.hosts.values().all(settled)
                        }
                        // It was replaced, removed or has ended meanwhile.
                        _ => true,
                    },
                    Awaited::Removed { last } => out(self, &last.tracepoint),
                    Awaited::Closed { last } => last.iter().all(|last| out(self, &last.tracepoint)),
                };
            if !over {
                self.waiters.push(waiter);
                continue;
            }
            let Waiter { request, session, awaited, .. } = waiter;
            let reply = match awaited {
                Awaited::Created { tracepoint, .. } => match self.wanted.get(&tracepoint) {
                    Some(wanted) => Ok(ReplyBody::Tracepoint(Box::new(self.tracepoint_status(wanted)))),
                    None => Err(Refusal::NoTracepoint { session, tracepoint }.to_string()),
                },
                Awaited::Removed { last } => Ok(ReplyBody::Tracepoint(last)),
                Awaited::Closed { last } => {
                    let coordinator = self.config.incarnation;
                    Ok(ReplyBody::Session(SessionState { session, coordinator, tracepoints: last }))
                }
            };
            effects.push(Effect::Reply { request, reply });
        }
    }

    pub(super) fn tick_sessions(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        // A session whose stream's end cannot be read yet has not begun its lease.
        let over = |session: &Session| matches!(session.phase, Phase::Open) && now_ns >= session.lease_until_ns;
        let ended: Vec<SessionId> = self.sessions.iter().filter(|(_, s)| over(s)).map(|(id, _)| id.clone()).collect();
        ended.iter().for_each(|id| self.end_session(id, effects));
        self.retired.retain(|_, retired| now_ns < retired.until_ns);
    }

    pub(super) fn publish_statuses(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        let due = |session: &Session| {
            session.status_dirty && now_ns >= session.status_due_ns && matches!(session.phase, Phase::Open)
        };
        let due: Vec<SessionId> = self.sessions.iter().filter(|(_, s)| due(s)).map(|(id, _)| id.clone()).collect();
        for id in due {
            let state = self.session_state(&id);
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.status_dirty = false;
            if session.status_said != state.tracepoints {
                session.status_said.clone_from(&state.tracepoints);
                session.status_due_ns = now_ns + STATUS_INTERVAL_MS * MS;
                effects.push(Effect::PublishStatus(Box::new(state)));
            }
        }
    }

    pub(super) fn save(&self, id: &SessionId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get(id) else { return };
        let tracepoints = self.wanted.values().filter(|wanted| wanted.session == *id);
        let record = SessionRecord {
            session: id.clone(),
            viewer: session.viewer.clone(),
            lease_ms: SESSION_LEASE_MS,
            trace_sequence: session.trace_sequence,
            tracepoints: tracepoints
                .map(|w| TracepointRecord { tracepoint: w.tracepoint.clone(), ended: w.ended.clone() })
                .collect(),
        };
        effects.push(Effect::SaveSession(Box::new(record)));
    }

    fn session_state(&self, id: &SessionId) -> SessionState {
        let wanted = self.wanted.values().filter(|wanted| wanted.session == *id);
        let tracepoints = wanted.map(|wanted| self.tracepoint_status(wanted)).collect();
        SessionState { session: id.clone(), coordinator: self.config.incarnation, tracepoints }
    }

    fn tracepoint_status(&self, wanted: &Wanted) -> TracepointStatus {
        // Hosts are in the order of their names, and each one's processes in the order of pids.
        let probes = self.hosts.values().flat_map(|host| host.statuses(&wanted.tracepoint, wanted.generation));
        let ended = wanted.ended.as_ref().map(|why| match wanted.beyond {
            0 => why.clone(),
            beyond => format!("{why}; {beyond} later ones were not kept"),
        });
        TracepointStatus {
            tracepoint: wanted.tracepoint.id.clone(),
            location: wanted.tracepoint.location.clone(),
            probes: probes.collect(),
            ended,
        }
    }

    fn fleet(&self) -> FleetView {
        let hosts = self.hosts.values().filter_map(|host| {
            let profile = host.profile.clone()?;
            let clock_uncertainty_ns = self.clocks.get(&profile.clock_domain).and_then(|clock| clock.uncertainty_ns());
            Some(HostView { profile, alive: host.alive, clock_uncertainty_ns })
        });
        FleetView {
            coordinator: self.config.incarnation,
            hosts: hosts.collect(),
            tracepoints: self.wanted.values().map(|wanted| self.tracepoint_status(wanted)).collect(),
        }
    }
}

/// Checks what needs no symbols; the rest is the agents' to judge, each for its builds.
fn check(tracepoint: &Tracepoint) -> Result<(), Refusal> {
    let malformed = |what| Err(Refusal::Malformed { tracepoint: tracepoint.id.clone(), what });
    let texts = tracepoint.condition.iter().chain(&tracepoint.log_message).chain(&tracepoint.captures);
    if texts.map(String::len).max().unwrap_or(0) > EXPRESSION_BYTES_MAX {
        return malformed("a condition, message or capture is longer than 4096 bytes");
    }
    if tracepoint.captures.len() > CAPTURES_MAX {
        return malformed("more than 64 captures");
    }
    match &tracepoint.location {
        Location::Line { line: 0, .. } => return malformed("lines count from 1"),
        Location::Line { file: name, .. } | Location::Function { name, .. } if name.is_empty() => {
            return malformed("the location names no file or function");
        }
        Location::Line { file: name, .. } | Location::Function { name, .. } if name.len() > EXPRESSION_BYTES_MAX => {
            return malformed("the location is longer than 4096 bytes");
        }
        _ => {}
    }
    if tracepoint.limits.count == Some(0) {
        return malformed("a count of 0 hits asks for nothing: leave it out, or ask for at least 1");
    }
    if matches!(tracepoint.hit_condition, Some(HitCondition::Every { n: 0 })) {
        return malformed("every 0th passage is none: write %1 or more");
    }
    Ok(())
}

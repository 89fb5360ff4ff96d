//! The coordinator's side towards agents: who is there, what they are asked, what their answers mean.

use super::{Asked, State, Wanted};
use crate::clock::{Exchange, Outcome};
use crate::effect::{Ask, Effect, ReplyBody};
use crate::event::{Answer, AskError, AskId};
use crate::fleet::{Due, Heard, Host, Link};
use crate::limits::{HOST_FORGET_MS, HOSTS_MAX, MS, PING_BURST, PING_BURST_MS, RELIST_MS};
use crate::merge::SourceId;
use riptrace_protocol::agent_api::{Create, CreateReply, Heartbeat, ListReply};
use riptrace_protocol::fleet::{HostProfile, ProbeState, ProbeStatus};
use riptrace_protocol::ids::{HostName, TracepointId};
use riptrace_protocol::limits::{COORDINATOR_LEASE_MS, HOST_LEASE_MS};
use riptrace_protocol::time::ClockDomain;

impl Host {
    /// When time alone will change something about this host.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = u64> {
        let lease_ms = if self.alive { HOST_LEASE_MS } else { HOST_FORGET_MS };
        let relist = (self.alive && !self.list_wanted).then_some(self.list_asked_ns + RELIST_MS * MS);
        let ping = (self.alive && !self.pings.in_flight).then_some(self.pings.due_ns);
        let due = |call: &crate::fleet::Call| (call.in_flight.is_none() && call.due_ns > 0).then_some(call.due_ns);
        let calls = [due(&self.profile_call), due(&self.list_call)];
        let links = self.links.values().filter_map(move |link| due(&link.call)).min();
        let calls = calls.into_iter().flatten().chain(links).filter(|_| self.alive);
        [Some(self.heard_ns + lease_ms * MS), relist, ping].into_iter().flatten().chain(calls)
    }
}

impl State {
    pub(super) fn heartbeat(&mut self, now_ns: u64, heartbeat: Heartbeat) {
        let Heartbeat { host: name, incarnation, profile_revision, probes, leaving } = heartbeat;
        if !self.hosts.contains_key(&name) {
            if self.hosts.len() >= HOSTS_MAX {
                self.counters.hosts_refused += 1;
                return;
            }
            self.hosts.insert(name.clone(), Host::new(name.clone(), incarnation, now_ns));
            self.dirty = true;
        }
        let Some(host) = self.hosts.get_mut(&name) else { return };
        match host.heard(incarnation, now_ns) {
            Heard::Known => {}
            Heard::Back => {
                host.alive = true;
                host.relist();
                host.pings.due_ns = now_ns;
                self.dirty = true;
            }
            Heard::NewRun => {
                // All its batches are still to come.
                self.ingest.seed(SourceId { host: name.clone(), incarnation }, 0, true);
                self.all_statuses_dirty();
            }
            Heard::Past => {
                self.counters.heartbeats_past += 1;
                // Once per power of two: two agents of one name go on for hours.
                if self.counters.heartbeats_past.is_power_of_two() {
                    tracing::warn!(host = %name, "two agents run under one host name: give one of them another --host");
                }
                return;
            }
        }
        let Some(host) = self.hosts.get_mut(&name) else { return };
        if leaving {
            host.gone();
            host.left = true;
            // Whatever was armed is out.
            host.links.values_mut().for_each(|link| link.may_be_armed = false);
            self.all_statuses_dirty();
            return;
        }
        if profile_revision > host.profile_revision {
            host.profile_revision = profile_revision;
            self.dirty = true;
        }
        host.pings.heard(now_ns);
        for status in probes {
            self.probe_changed(&name, status);
        }
    }

    /// An agent tells a change of a probe on its own.
    fn probe_changed(&mut self, name: &HostName, status: ProbeStatus) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if status.process.host != *name {
            return;
        }
        let tracepoint = status.tracepoint.clone();
        match self.wanted.get(&tracepoint) {
            Some(wanted) => {
                let link = host.links.entry(tracepoint.clone()).or_default();
                // While a request is under way, its answer tells what is true after it.
                if link.generation == Some(wanted.generation) && link.call.in_flight.is_none() {
                    link.probes.insert(status.process.key, status);
                    self.status_dirty(&tracepoint);
                }
            }
            None if status.state == ProbeState::Armed => {
                // Nobody wants it: an orphan.
                host.links.entry(tracepoint).or_default().may_be_armed = true;
                self.dirty = true;
            }
            None => {}
        }
    }

    pub(super) fn pong(&mut self, now_ns: u64, name: &HostName, domain: &ClockDomain, exchange: Exchange) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        host.pings.in_flight = false;
        host.pings.answered = host.pings.answered.saturating_add(1);
        if host.pings.answered <= PING_BURST {
            host.pings.due_ns = now_ns + PING_BURST_MS * MS;
        }
        // The agent may have taken our probes out because it did not hear us: ask what it has.
        if now_ns >= host.ponged_ns + COORDINATOR_LEASE_MS * MS {
            host.relist();
            self.dirty = true;
        }
        host.ponged_ns = now_ns;
        if host.profile.as_ref().is_some_and(|profile| profile.clock_domain == *domain) {
            let clock = self.clocks.entry(domain.clone()).or_default();
            if clock.exchange(exchange) == Outcome::Restarted {
                tracing::warn!(%name, restarts = clock.restarts(), "the clock of a host was stepped");
            }
        }
    }

    pub(super) fn ping_lost(&mut self, name: &HostName) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.pings.in_flight = false;
        }
    }

    pub(super) fn ping(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        if !self.connected {
            return;
        }
        for host in self.hosts.values_mut().filter(|host| host.alive) {
            if !host.pings.in_flight && now_ns >= host.pings.due_ns {
                let is_waited_for = host.pings.start(now_ns);
                effects.push(Effect::Ping { host: host.name.clone(), is_waited_for });
            }
        }
    }

    pub(super) fn tick_hosts(&mut self, now_ns: u64) {
        let mut changed = false;
        self.hosts.retain(|name, host| {
            if host.alive && now_ns >= host.heard_ns + HOST_LEASE_MS * MS {
                tracing::warn!(%name, "host is not heard any more");
                host.gone();
                changed = true;
            }
            if now_ns >= host.list_asked_ns + RELIST_MS * MS {
                host.relist();
            }
            host.alive || now_ns < host.heard_ns + HOST_FORGET_MS * MS
        });
        if changed {
            self.all_statuses_dirty();
        }
        // A run that has been replaced, and all of whose batches are behind us, says nothing more.
        let keep_ns = COORDINATOR_LEASE_MS * MS;
        let (hosts, position) = (&self.hosts, &self.position);
        let over: Vec<SourceId> = (self.sources.iter())
            .filter(|(source, (sequence, heard_ns))| {
                let replaced = hosts.get(&source.host).is_none_or(|host| host.incarnation != source.incarnation);
                replaced && *sequence < position.trace_sequence && now_ns >= heard_ns + keep_ns
            })
            .map(|(source, _)| source.clone())
            .collect();
        for source in over {
            self.sources.remove(&source);
            self.position.next_hit.remove(&source);
            self.merge.forget(&source);
            self.ingest.forget(&source);
            self.sessions.values_mut().for_each(|session| session.stream.forget(&source));
        }
    }

    /// Compares what is wanted with what is known of each host, and asks for the difference.
    pub(super) fn reconcile(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        if !self.connected {
            return;
        }
        let (wanted, asks, next_ask) = (&self.wanted, &mut self.asks, &mut self.next_ask);
        let mut put = |host: &HostName, asked: Asked, body: Ask| {
            let ask = AskId(*next_ask);
            *next_ask += 1;
            asks.insert(ask, (host.clone(), asked));
            effects.push(Effect::Ask { ask, host: host.clone(), body });
            ask
        };
        for host in self.hosts.values_mut().filter(|host| host.alive) {
            let known = host.profile.as_ref().map(|profile| profile.revision);
            if known.is_none_or(|known| known < host.profile_revision) && host.profile_call.may_start(now_ns) {
                host.profile_call.in_flight = Some(put(&host.name, Asked::Profile, Ask::Profile));
            }
            if host.list_wanted && host.list_call.may_start(now_ns) {
                host.list_wanted = false;
                host.list_asked_ns = now_ns;
                host.list_call.in_flight = Some(put(&host.name, Asked::List, Ask::List));
            }
            if host.profile.is_none() || !host.listed {
                continue;
            }
            for (id, wanted) in wanted.iter().filter(|(_, wanted)| wanted.ended.is_none()) {
                if !host.links.contains_key(id) && !host.desired(&wanted.tracepoint).is_empty() {
                    host.links.insert(id.clone(), Link::default());
                }
            }
            let mut forget = Vec::new();
            let ids: Vec<TracepointId> = host.links.keys().cloned().collect();
            for id in ids {
                let wanted = wanted.get(&id);
                let live = wanted.filter(|wanted| wanted.ended.is_none());
                let desired = live.map(|wanted| host.desired(&wanted.tracepoint));
                let Some(link) = host.links.get_mut(&id) else { continue };
                if let (Some(wanted), Some(desired)) = (live, &desired)
                    && link.generation != Some(wanted.generation)
                    && link.call.in_flight.is_none()
                {
                    link.remove_first |= link.may_be_armed && link.probes.keys().any(|key| !desired.contains(key));
                    link.remove_first |= link.may_be_armed && desired.is_empty();
                }
                match link.due(now_ns, wanted.map_or(0, |wanted| wanted.generation), desired.as_deref()) {
                    Due::Nothing => {}
                    // An ended tracepoint keeps its last counts.
                    Due::Forget if wanted.is_some() => {}
                    Due::Forget => forget.push(id),
                    Due::Remove => {
                        link.touched_ns = now_ns;
                        let asked = Asked::Remove { tracepoint: id.clone() };
                        link.call.in_flight = Some(put(&host.name, asked, Ask::Remove(id)));
                    }
                    Due::Create(processes) => {
                        let Some(Wanted { tracepoint, generation, .. }) = live else { continue };
                        if link.generation != Some(*generation) {
                            link.generation = Some(*generation);
                            link.probes.clear();
                        }
                        link.may_be_armed = true;
                        link.touched_ns = now_ns;
                        let asked =
                            Asked::Create { tracepoint: id, generation: *generation, processes: processes.clone() };
                        let create = Create { tracepoint: tracepoint.clone(), processes };
                        link.call.in_flight = Some(put(&host.name, asked, Ask::Create(Box::new(create))));
                    }
                }
            }
            forget.iter().for_each(|id| drop(host.links.remove(id)));
        }
    }

    pub(super) fn answered(
        &mut self,
        now_ns: u64,
        ask: AskId,
        answer: Result<Answer, AskError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((name, asked)) = self.asks.remove(&ask) else { return };
        self.dirty = true;
        let answer = answer.inspect_err(|error| tracing::info!(host = %name, ?asked, %error, "no answer"));
        match asked {
            Asked::Profile => self.profile_answered(now_ns, &name, ask, answer),
            Asked::List => self.list_answered(now_ns, &name, ask, answer),
            Asked::Create { tracepoint, generation, processes } => {
                let answer = answer.and_then(|answer| match answer {
                    Answer::Create(reply) => Ok(reply),
                    _ => Err(AskError::Malformed("it answers another question".to_owned())),
                });
                self.create_answered(now_ns, &name, ask, &tracepoint, generation, &processes, answer);
            }
            Asked::Remove { tracepoint } => self.remove_answered(now_ns, &name, ask, &tracepoint, answer),
            Asked::Lines { request } => {
                let reply = match answer {
                    Ok(Answer::Lines(reply)) => Ok(ReplyBody::Lines(reply)),
                    Ok(_) => Err(AskError::Malformed("it answers another question".to_owned()).to_string()),
                    // It is not asked again: whoever wants to know asks.
                    Err(AskError::Timeout | AskError::NoResponder) => {
                        Err(format!("the agent of {name} did not answer: ask again"))
                    }
                    Err(why) => Err(why.to_string()),
                };
                effects.push(Effect::Reply { request, reply });
            }
        }
    }

    fn profile_answered(&mut self, now_ns: u64, name: &HostName, ask: AskId, answer: Result<Answer, AskError>) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if host.profile_call.in_flight != Some(ask) {
            return;
        }
        let profile: HostProfile = match answer {
            Ok(Answer::Profile(profile)) if profile.host == *name && profile.incarnation == host.incarnation => profile,
            _ => return host.profile_call.failed(now_ns),
        };
        host.profile_call.answered();
        host.profile_revision = host.profile_revision.max(profile.revision);
        for process in &profile.processes {
            self.knowledge.learn_service(name, process.key, &process.service);
        }
        // What is said of processes that are gone is not kept.
        for link in host.links.values_mut() {
            link.probes.retain(|key, _| profile.processes.iter().any(|process| process.key == *key));
        }
        host.profile = Some(profile);
        self.all_statuses_dirty();
    }

    fn list_answered(&mut self, now_ns: u64, name: &HostName, ask: AskId, answer: Result<Answer, AskError>) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if host.list_call.in_flight != Some(ask) {
            return;
        }
        let list: ListReply = match answer {
            Ok(Answer::List(list)) if list.incarnation == host.incarnation => *list,
            _ => {
                host.list_wanted = true;
                return host.list_call.failed(now_ns);
            }
        };
        host.list_call.answered();
        host.listed = true;
        // Whatever was asked since is told by its own answer.
        let asked_ns = host.list_asked_ns;
        let concerned = |link: &Link| link.call.in_flight.is_none() && link.touched_ns < asked_ns;
        let mut layouts_bad = 0;
        list.layouts
            .into_iter()
            .for_each(|layout| layouts_bad += u64::from(self.knowledge.learn_layout(layout).is_err()));
        self.counters.layouts_bad += layouts_bad;
        list.frames.into_iter().for_each(|entry| self.knowledge.learn_frames(name, entry));
        for (id, link) in &mut host.links {
            if concerned(link) {
                link.may_be_armed = false;
                if self.wanted.get(id).is_some_and(|wanted| wanted.ended.is_none()) {
                    link.probes.clear();
                }
            }
        }
        for tracepoint in list.tracepoints {
            let link = host.links.entry(tracepoint.id.clone()).or_default();
            if !concerned(link) {
                continue;
            }
            link.may_be_armed = true;
            // The same id with other content is another version: it is created anew.
            let wanted = self.wanted.get(&tracepoint.id);
            link.generation = wanted.filter(|w| w.tracepoint == tracepoint).map(|wanted| wanted.generation);
        }
        for status in list.probes.into_iter().filter(|status| status.process.host == *name) {
            let link = host.links.entry(status.tracepoint.clone()).or_default();
            if concerned(link) {
                link.may_be_armed |= status.state == ProbeState::Armed;
                link.probes.insert(status.process.key, status);
            }
        }
        self.all_statuses_dirty();
    }

    #[expect(clippy::too_many_arguments, reason = "one answer and what was asked")]
    fn create_answered(
        &mut self,
        now_ns: u64,
        name: &HostName,
        ask: AskId,
        tracepoint: &TracepointId,
        generation: u64,
        processes: &[riptrace_protocol::ids::ProcessKey],
        answer: Result<CreateReply, AskError>,
    ) {
        self.status_dirty(tracepoint);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let incarnation = host.incarnation;
        let Some(link) = host.links.get_mut(tracepoint).filter(|link| link.call.in_flight == Some(ask)) else { return };
        link.touched_ns = now_ns;
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                link.failure = Some((error.to_string(), matches!(error, AskError::Refused(_))));
                return link.call.failed(now_ns);
            }
        };
        for layout in reply.layouts {
            if let Err(error) = self.knowledge.learn_layout(layout) {
                tracing::warn!(host = %name, %tracepoint, %error, "an agent's layout cannot be used");
                self.counters.layouts_bad += 1;
            }
        }
        let mut armed = false;
        for status in reply.probes {
            let meant = status.process.host == *name && processes.contains(&status.process.key);
            if meant && status.tracepoint == *tracepoint && link.generation == Some(generation) {
                armed |= status.state == ProbeState::Armed;
                link.probes.insert(status.process.key, status);
            }
        }
        if armed {
            // From now on its watermarks count.
            self.merge.expect(&SourceId { host: name.clone(), incarnation }, now_ns);
        }
        if processes.iter().all(|key| link.probes.contains_key(key)) {
            link.failure = None;
            link.call.answered();
        } else {
            link.failure = Some(("the agent did not tell about this process; it is asked again".to_owned(), false));
            link.call.failed(now_ns);
        }
    }

    fn remove_answered(
        &mut self,
        now_ns: u64,
        name: &HostName,
        ask: AskId,
        tracepoint: &TracepointId,
        answer: Result<Answer, AskError>,
    ) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let Some(link) = host.links.get_mut(tracepoint).filter(|link| link.call.in_flight == Some(ask)) else { return };
        link.touched_ns = now_ns;
        let Ok(Answer::Remove(reply)) = answer else { return link.call.failed(now_ns) };
        // While something is not counted yet, it is asked again.
        let is_final = !reply.probes.iter().any(|status| status.unfinished);
        if is_final {
            link.call.answered();
            link.may_be_armed = false;
            link.remove_first = false;
        } else {
            link.call.failed(now_ns);
        }
        if is_final {
            // Those that were off before and that it does not know any more have had their last counts.
            let mentioned =
                |key: &riptrace_protocol::ids::ProcessKey| reply.probes.iter().any(|status| status.process.key == *key);
            for last in self.waiters.iter_mut().flat_map(|waiter| waiter.awaited.last()) {
                let of_host = last.probes.iter_mut().filter(|told| told.process.host == *name);
                for told in of_host.filter(|told| told.tracepoint == *tracepoint && told.state == ProbeState::Off) {
                    told.unfinished &= mentioned(&told.process.key);
                }
            }
        }
        let ended = self.wanted.get(tracepoint).and_then(|wanted| wanted.ended.clone());
        for mut status in reply.probes {
            if status.process.host != *name || status.tracepoint != *tracepoint {
                continue;
            }
            for waiter in &mut self.waiters {
                let last = waiter.awaited.last();
                let same = |told: &&mut ProbeStatus| told.tracepoint == *tracepoint && told.process == status.process;
                if let Some(told) = last.iter_mut().flat_map(|last| &mut last.probes).find(same) {
                    told.clone_from(&status);
                }
            }
            if ended.is_some() {
                (status.state, status.reason) = (ProbeState::Off, ended.clone());
                link.probes.insert(status.process.key, status);
            }
        }
        if ended.is_none() && is_final {
            // It is to be created anew, or is wanted no more.
            link.probes.clear();
        }
        self.status_dirty(tracepoint);
    }
}

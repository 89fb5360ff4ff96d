//! The way of the hits: batch, ingest, merge, session stream.

use super::{Carried, Outstanding, Payload, State};
use crate::clock::DomainClock;
use crate::effect::Effect;
use crate::ingest::{InTurn, Stored, Taken};
use crate::limits::{MS, OUTSTANDING_MAX, RETRY_MS_MIN};
use crate::merge::{Item, Released, SourceId};
use crate::session::hit_bytes;
use riptrace_protocol::batch::Batch;
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::stream::StreamDrop;

impl State {
    pub(super) fn batch(&mut self, now_ns: u64, trace_sequence: u64, batch: Batch) {
        if trace_sequence < self.trace_next {
            // A consumer that was made anew began too early.
            self.counters.batches_duplicate += 1;
            return;
        }
        self.trace_next = trace_sequence.saturating_add(1);
        let source = SourceId { host: batch.host.clone(), incarnation: batch.incarnation };
        self.sources.insert(source, (trace_sequence, now_ns));
        // One more than its hits until its turn has come: so the position does not pass a batch that waits.
        let remaining = batch.hits.len() + 1;
        let outstanding = Outstanding { host: batch.host.clone(), remaining, drops: batch.drops.clone() };
        self.outstanding.insert(trace_sequence, outstanding);
        if self.outstanding.len() > OUTSTANDING_MAX
            && let Some((sequence, oldest)) = self.outstanding.pop_first()
        {
            self.show_drops(sequence, oldest);
        }
        let stored = Stored { trace_sequence, arrived_ns: self.config.anchor.unix_ns(now_ns), batch };
        let mut turns = Vec::new();
        match self.ingest.accept(now_ns, stored, &mut turns) {
            Taken::Yes => {}
            Taken::TooLate => {
                self.counters.batches_late += 1;
                self.outstanding.entry(trace_sequence).and_modify(|outstanding| outstanding.remaining = 0);
            }
            Taken::Duplicate => {
                self.counters.batches_duplicate += 1;
                self.outstanding.remove(&trace_sequence);
            }
        }
        self.put_in_merge(now_ns, turns);
    }

    pub(super) fn bad_batch(&mut self, trace_sequence: u64) {
        self.counters.batches_bad += 1;
        self.trace_next = self.trace_next.max(trace_sequence.saturating_add(1));
    }

    pub(super) fn tick_ingest(&mut self, now_ns: u64) {
        let mut turns = Vec::new();
        self.ingest.tick(now_ns, &mut turns);
        self.put_in_merge(now_ns, turns);
    }

    /// The store was lost: what is held here goes on, but sequence numbers begin again.
    pub(super) fn trace_reset(&mut self) {
        let outstanding = std::mem::take(&mut self.outstanding);
        for (sequence, batch) in outstanding {
            self.show_drops(sequence, batch);
        }
        self.trace_next = 0;
        self.position.trace_sequence = 0;
        self.sources.values_mut().for_each(|(sequence, _)| *sequence = 0);
        self.sessions.values_mut().for_each(|session| {
            session.trace_sequence = 0;
            session.stream.forget_trace_sequence();
        });
    }

    fn put_in_merge(&mut self, now_ns: u64, turns: Vec<InTurn>) {
        let has_hits = turns.iter().any(|turn| !turn.stored.batch.hits.is_empty());
        for InTurn { stored, lost } in turns {
            let Stored { trace_sequence, arrived_ns, batch } = stored;
            let source = SourceId { host: batch.host.clone(), incarnation: batch.incarnation };
            self.position.next_hit.entry(source.clone()).or_insert(lost.start);
            batch.frames.into_iter().for_each(|entry| self.knowledge.learn_frames(&batch.host, entry));
            if let Some(outstanding) = self.outstanding.get_mut(&trace_sequence) {
                outstanding.remaining = batch.hits.len() + usize::from(!lost.is_empty());
            }
            self.merge.heard(&source, &batch.clock_domain, batch.watermark_ns, now_ns);
            if !lost.is_empty() {
                tracing::warn!(host = %source.host, count = lost.end - lost.start, "hits were lost on the way");
                let domain_ns = batch.hits.first().map_or(batch.watermark_ns, |hit| hit.time_ns);
                let payload = Carried { trace_sequence, payload: Payload::Lost { end: lost.end } };
                self.merge.push(&source, Item { number: lost.start, domain_ns, arrived_ns, bytes: 64, payload });
            }
            if !batch.hits.is_empty()
                && let Some(host) = self.hosts.get_mut(&batch.host)
            {
                host.pings.has_hits(now_ns);
            }
            for hit in batch.hits {
                let (number, domain_ns, bytes) = (hit.number, hit.time_ns, hit_bytes(&hit));
                let payload = Carried { trace_sequence, payload: Payload::Hit(Box::new(hit)) };
                self.merge.push(&source, Item { number, domain_ns, arrived_ns, bytes, payload });
            }
        }
        if has_hits {
            for source in self.merge.waited_for(now_ns) {
                if let Some(host) = self.hosts.get_mut(&source.host) {
                    host.pings.is_waited_for(now_ns);
                }
            }
        }
    }

    /// Releases what the merge lets go, and appends it to the streams of the sessions that want it.
    pub(super) fn release(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        let mut released = Vec::new();
        // While the bus is away, nobody can be heard: nobody is given up either.
        if self.connected {
            let (clocks, anchor) = (&self.clocks, self.config.anchor);
            let coordinated =
                |domain: &_, at_ns| clocks.get(domain).and_then(|c: &DomainClock| c.coordinated(at_ns, anchor));
            self.merge.release(now_ns, coordinated, |item| released.push(item));
        }
        for item in released {
            let Released { source, domain, number, time_ns, interval, late, payload } = item;
            let Carried { trace_sequence, payload } = payload;
            if let Some(outstanding) = self.outstanding.get_mut(&trace_sequence) {
                outstanding.remaining = outstanding.remaining.saturating_sub(1);
            }
            let end = match payload {
                Payload::Lost { end } => {
                    self.show_loss(&source, number, end, trace_sequence);
                    end
                }
                Payload::Hit(raw) => {
                    let hit =
                        Released { source: source.clone(), domain, number, time_ns, interval, late, payload: *raw };
                    self.show_hit(now_ns, hit, trace_sequence, effects);
                    number.saturating_add(1)
                }
            };
            let position = self.position.next_hit.entry(source).or_insert(end);
            *position = (*position).max(end);
        }
        // Drops are shown once all batches before theirs are released: so one number tells which were shown.
        while let Some(entry) = self.outstanding.first_entry() {
            if entry.get().remaining > 0 {
                self.position.trace_sequence = self.position.trace_sequence.max(*entry.key());
                return;
            }
            let (sequence, batch) = entry.remove_entry();
            self.position.trace_sequence = self.position.trace_sequence.max(sequence.saturating_add(1));
            self.show_drops(sequence, batch);
        }
        self.position.trace_sequence = self.position.trace_sequence.max(self.trace_next);
    }

    fn show_hit(&mut self, now_ns: u64, hit: Released<RawHit>, trace_sequence: u64, effects: &mut Vec<Effect>) {
        let id = hit.payload.tracepoint.clone();
        let Some(wanted) = self.wanted.get_mut(&id) else {
            // It was captured before its tracepoint was removed.
            let Some(retired) = self.retired.get_mut(&id).filter(|retired| retired.remaining > 0) else {
                self.counters.hits_unwanted += 1;
                return;
            };
            let Some(session) = self.sessions.get_mut(&retired.session) else { return };
            if !session.stream.has_shown(&hit.source, hit.number, trace_sequence) && session.stream.admit(now_ns, hit) {
                retired.remaining -= 1;
            }
            return;
        };
        let Some(session) = self.sessions.get_mut(&wanted.session) else { return };
        if session.stream.has_shown(&hit.source, hit.number, trace_sequence) {
            return;
        }
        let count_max = wanted.tracepoint.limits.count;
        if count_max.is_some_and(|max| wanted.counted >= max) {
            wanted.beyond += 1;
            session.status_dirty = true;
        } else if session.stream.admit(now_ns, hit) {
            wanted.counted += 1;
        }
        if count_max.is_some_and(|max| wanted.counted >= max) && wanted.ended.is_none() {
            wanted.ended = Some(format!("its count of {} hits was reached", wanted.counted));
            session.status_dirty = true;
            self.dirty = true;
            let session = wanted.session.clone();
            self.save(&session, effects);
        }
    }

    /// Tells every session whose tracepoints the host may have had that hits of it are missing.
    fn show_loss(&mut self, source: &SourceId, first: u64, end: u64, trace_sequence: u64) {
        let wanted = &self.wanted;
        for (id, session) in &mut self.sessions {
            let concerned = |w: &super::Wanted| w.session == *id && w.tracepoint.selector.may_match_host(&source.host);
            if wanted.values().any(concerned) {
                session.stream.lost(source, first, end, trace_sequence);
            }
        }
    }

    fn show_drops(&mut self, trace_sequence: u64, batch: Outstanding) {
        for drop in batch.drops {
            let retired = self.retired.get(&drop.tracepoint).map(|retired| &retired.session);
            let owner = self.wanted.get(&drop.tracepoint).map(|wanted| &wanted.session).or(retired);
            let Some(session) = owner.and_then(|id| self.sessions.get_mut(id)) else { continue };
            let drop = StreamDrop {
                host: batch.host.clone(),
                process: Some(drop.process),
                tracepoint: Some(drop.tracepoint),
                reason: drop.reason,
                count: drop.count,
            };
            session.stream.agent_drop(drop, trace_sequence);
        }
    }

    /// Publishes what is ready, one message at a time for each session.
    pub(super) fn flush(&mut self, now_ns: u64, effects: &mut Vec<Effect>) {
        let mut relist = Vec::new();
        for (id, session) in &mut self.sessions {
            let number = self.next_message;
            if let Some(message) = session.stream.next_message(number, now_ns, &self.knowledge, &self.position) {
                self.next_message += 1;
                effects.push(Effect::PublishStream { session: id.clone(), number, message: Box::new(message) });
            }
            relist.extend(session.stream.waits_for(&self.knowledge, now_ns).cloned());
        }
        // A hit waits for facts that its agent has: ask for them, but not all the time if that does not help.
        for name in relist {
            if let Some(host) = self.hosts.get_mut(&name)
                && now_ns >= host.facts_due_ns
            {
                host.relist();
                host.facts_due_ns = now_ns + RETRY_MS_MIN * MS;
                self.dirty = true;
            }
        }
    }
}

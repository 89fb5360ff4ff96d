//! A passage: a thread stands behind a site's breakpoint, is looked at, and is sent to the site's slot.
//!
//! Everything here is bounded: the thread stands still for it. No lock is waited for but the publisher's queue, which is
//! held for the time of a push.

use super::sites::{ArmedProbe, User};
use super::tracer::Tracer;
use crate::capture::interpreter::{Truth, capture, test};
use crate::capture::memory::CachedMemory;
use crate::capture::registers::Registers;
use crate::clock::domain_now_ns;
use crate::engine::memory::TargetMemory;
use crate::engine::sys::{self, Tid, UserRegisters};
use crate::engine::x86_64::registers::{captured, is_same_moment};
use crate::publish::sink::{CapturedHit, InProgress};
use riptrace_protocol::hit::DropReason;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::io;

impl Tracer {
    /// A thread has run into a live site.
    pub(super) fn passed(&mut self, tid: Tid, at: Avma, mut user: UserRegisters) -> io::Result<()> {
        let faulted = self.threads.get_mut(&tid).and_then(|thread| thread.faulted.take());
        let is_new = faulted.is_none_or(|(site, before)| site != at || !is_same_moment(&before, &user));
        let Some(site) = self.sites.live.get(&at) else { return self.go_on(tid, 0) };
        let slot = site.slot;
        self.memory.read_by(tid);
        if is_new {
            let begun = self.sink.begin();
            let mut passage = begun.stamp(domain_now_ns());
            let xmm = match site.users.iter().any(|user| user.reads_vectors) {
                true => sys::vectors(tid)?,
                false => [[0; 16]; 16],
            };
            let look = Look {
                process: self.key,
                thread: tid as u32,
                registers: captured(&user, at, xmm),
                memory: &self.memory,
                cached: CachedMemory::new(&self.memory),
            };
            for wants in &site.users {
                if let Some(probe) = self.sites.probes[wants.probe].as_mut() {
                    look.passage(&mut passage, probe, wants);
                }
            }
        }
        user.rip = slot.0;
        sys::set_registers(tid, &user)?;
        self.go_on(tid, 0)
    }
}

/// A thread at a site.
struct Look<'a> {
    process: ProcessKey,
    thread: u32,
    registers: Registers,
    memory: &'a TargetMemory,
    cached: CachedMemory<'a, TargetMemory>,
}

impl Look<'_> {
    /// What the passage is to one probe. The order is the promise: the condition decides whether it is a passage, then it
    /// is counted, then the hit condition, then the budget; only then anything is copied.
    fn passage(&self, passage: &mut InProgress<'_>, probe: &mut ArmedProbe, wants: &User) {
        let program = &*wants.program;
        let truth = test(program, &self.registers, &self.cached);
        if truth == Truth::False {
            return;
        }
        probe.counters.passage();
        if truth != Truth::True {
            return self.dropped(passage, probe, DropReason::Condition);
        }
        probe.admitted += 1;
        if program.hit_condition.is_some_and(|condition| !condition.admits(probe.admitted)) {
            return;
        }
        if program.count_only {
            return probe.counters.hit();
        }
        let time_ns = passage.time_ns();
        if probe.budget.as_mut().is_some_and(|budget| !budget.take(time_ns)) {
            return self.dropped(passage, probe, DropReason::Rate);
        }
        let captured = capture(program, &self.registers, &self.cached);
        if self.memory.was_gone() {
            return self.dropped(passage, probe, DropReason::Capture);
        }
        let hit = CapturedHit {
            tracepoint: probe.tracepoint.clone(),
            process: self.process,
            layout: wants.layout,
            time_ns,
            thread: self.thread,
            captured,
        };
        match passage.submit(hit) {
            Ok(()) => probe.counters.hit(),
            // The sink has counted it for the publisher.
            Err(_) => probe.counters.dropped(DropReason::Queue),
        }
    }

    fn dropped(&self, passage: &InProgress<'_>, probe: &ArmedProbe, reason: DropReason) {
        probe.counters.dropped(reason);
        passage.count_dropped(&probe.tracepoint, self.process, reason, 1);
    }
}

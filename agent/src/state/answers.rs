//! Answers to the requests that waited for work: when it has ended, or with what is known at the deadline.

use super::{ANSWER_MS, Owed, PROBES_MAX, Phase, State, TRACEPOINTS_MAX};
use crate::event::{Answer, Effect, RequestId};
use riptrace_protocol::agent_api::{CreateReply, RemoveReply};
use riptrace_protocol::fleet::{ProbeState, ProbeStatus};
use riptrace_protocol::ids::{LayoutId, ProcessKey};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::tracepoint::Tracepoint;
use std::collections::BTreeMap;
use std::sync::Arc;

impl State {
    pub(super) fn owed_by(&self, is: impl Fn(&Owed) -> bool) -> Option<RequestId> {
        self.owed.iter().find(|(_, (_, owed))| is(owed)).map(|(request, _)| *request)
    }

    pub(super) fn answer(&mut self, request: RequestId, answer: Answer, effects: &mut Vec<Effect>) {
        if self.owed.remove(&request).is_some() {
            effects.push(Effect::Reply { request, answer });
        }
    }

    /// Answers whatever waits for no work any more, and says whether there are probes.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        let ready: Vec<RequestId> = (self.owed.iter())
            .filter(|(_, (_, owed))| match owed {
                Owed::Create { jobs, .. } | Owed::Remove { jobs, .. } => jobs.is_empty(),
                Owed::Attach { .. } | Owed::Detach { .. } | Owed::Lines { .. } => false,
            })
            .map(|(request, _)| *request)
            .collect();
        for request in ready {
            self.answer_late(request, effects);
        }
        let exist = !self.ending.is_empty()
            || self.probes.values().any(|probe| matches!(probe.phase, Phase::Arming(_) | Phase::Armed(_)));
        if exist != self.probes_exist {
            self.probes_exist = exist;
            effects.push(Effect::ProbesExist(exist));
        }
    }

    /// Answers with what is known now.
    pub(super) fn answer_late(&mut self, request: RequestId, effects: &mut Vec<Effect>) {
        let Some((_, owed)) = self.owed.get(&request) else { return };
        let seconds = ANSWER_MS / 1_000;
        let answer = match owed {
            Owed::Attach { process, .. } => Answer::Error(format!(
                "symbols of process {} are still being loaded after {seconds} s: ask again",
                process.pid
            )),
            Owed::Detach { process, .. } => Answer::Error(format!(
                "process {} is not let go of after {seconds} s: its probes are being taken out, ask again",
                process.pid
            )),
            Owed::Lines { .. } => Answer::Error(format!(
                "the debug information of the build is still being read after {seconds} s: ask again"
            )),
            Owed::Create { tracepoint, processes, .. } => Answer::Create(self.created(tracepoint, processes)),
            Owed::Remove { jobs, probes } => {
                // Counts of a while ago.
                let ending = jobs.iter().filter_map(|job| self.ending.get(job));
                let unfinished = ending.map(|status| ProbeStatus { unfinished: true, ..status.clone() });
                Answer::Remove(RemoveReply { probes: probes.iter().cloned().chain(unfinished).collect() })
            }
        };
        self.answer(request, answer, effects);
    }

    fn created(&self, tracepoint: &Arc<Tracepoint>, processes: &[ProcessKey]) -> CreateReply {
        let mut layouts: BTreeMap<LayoutId, Layout> = BTreeMap::new();
        let mut probes = Vec::new();
        for &process in processes {
            match self.probes.get(&(tracepoint.id.clone(), process)) {
                Some(probe) if Arc::ptr_eq(&probe.tracepoint, tracepoint) => {
                    layouts.extend(probe.layouts.iter().map(|layout| (layout.id(), (**layout).clone())));
                    probes.push(probe.status.clone());
                }
                _ => probes.push(self.not_created(tracepoint, process)),
            }
        }
        CreateReply { probes, layouts: layouts.into_values().collect() }
    }

    fn not_created(&self, tracepoint: &Arc<Tracepoint>, process: ProcessKey) -> ProbeStatus {
        let known = self.tracepoints.get(&tracepoint.id).is_some_and(|known| Arc::ptr_eq(known, tracepoint));
        let facts = self.processes.get(&process).map(|known| &known.facts);
        let mut status = self.status(&tracepoint.id, process, facts);
        status.state = ProbeState::Refused;
        status.reason = Some(if facts.is_none() {
            self.not_running(process)
        } else if self.probes.len() >= PROBES_MAX {
            format!("host {} has {PROBES_MAX} probes already: remove some first", self.profile.host)
        } else if !known && self.tracepoints.len() >= TRACEPOINTS_MAX {
            format!("host {} has {TRACEPOINTS_MAX} tracepoints already: remove some first", self.profile.host)
        } else {
            status.state = ProbeState::Off;
            "removed or replaced before it was armed".to_owned()
        });
        status
    }
}

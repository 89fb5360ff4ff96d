//! How probes go: their work is asked for, their last counts are told, and kept for a while for whoever asks again.

use super::{ENDED_KEPT_MS, Owed, Phase, REMOVED_MAX, REPLACED, State, set_counts};
use crate::event::{Effect, JobId, ProbeCounts, Work};
use riptrace_protocol::fleet::{ProbeState, ProbeStatus};
use riptrace_protocol::ids::{ProcessKey, TracepointId};
use std::collections::BTreeSet;

impl State {
    pub(super) fn remove(&mut self, now_ms: u64, id: &TracepointId, effects: &mut Vec<Effect>) -> Owed {
        let mut probes = Vec::new();
        // A second request for the same tracepoint waits for the work of the first.
        let mut jobs: BTreeSet<JobId> =
            (self.ending.iter()).filter(|(_, status)| status.tracepoint == *id).map(|(job, _)| *job).collect();
        for (job, status) in self.end_tracepoint(id, "removed", effects) {
            jobs.extend(job);
            probes.extend(status);
        }
        // Those of which an earlier request was told nothing, or not all.
        let gone = self.removed.iter().filter(|(_, status)| status.tracepoint == *id).map(|(_, status)| status.clone());
        let gone: Vec<ProbeStatus> = gone.collect();
        for status in probes.clone() {
            self.keep_removed(now_ms, status);
        }
        probes.extend(gone);
        Owed::Remove { jobs, probes }
    }

    pub(super) fn end_tracepoint(
        &mut self,
        id: &TracepointId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) -> Vec<(Option<JobId>, Option<ProbeStatus>)> {
        let processes: Vec<ProcessKey> = self.probes_of(id).collect();
        let ended = processes.into_iter().filter_map(|process| self.end_probe(id, process, reason, effects)).collect();
        self.tracepoints.remove(id);
        ended
    }

    /// A probe is not wanted any more: the work that takes it out, or its last status when there is none.
    pub(super) fn end_probe(
        &mut self,
        id: &TracepointId,
        process: ProcessKey,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) -> Option<(Option<JobId>, Option<ProbeStatus>)> {
        let probe = self.probes.remove(&(id.clone(), process))?;
        let mut status = probe.status;
        match probe.phase {
            Phase::Arming(arming) => {
                self.job_over(arming);
                status.state = ProbeState::Off;
                status.reason = Some(reason.to_owned());
            }
            Phase::Armed(_) => {
                status.state = ProbeState::Off;
                status.reason = Some(reason.to_owned());
            }
            Phase::Refused | Phase::Off { .. } => return Some((None, Some(status))),
        }
        let job = self.job(process, Work::Disarm(id.clone()), effects);
        self.ending.insert(job, status);
        Some((Some(job), None))
    }

    pub(super) fn disarmed(&mut self, now_ms: u64, job: JobId, counts: Option<ProbeCounts>) {
        let Some(mut status) = self.ending.remove(&job) else { return };
        match counts {
            Some(counts) => {
                status.unfinished = counts.unfinished;
                set_counts(&mut status, counts);
            }
            // Its engine is gone, and the counts with it: those that are known may be older. One that was never armed has
            // none.
            None => status.unfinished = status.mechanism.is_some(),
        }
        let mut is_told = false;
        for (_, owed) in self.owed.values_mut() {
            if let Owed::Remove { jobs, probes } = owed
                && jobs.remove(&job)
            {
                probes.push(status.clone());
                is_told = true;
            }
        }
        if !is_told && status.reason.as_deref() != Some(REPLACED) {
            self.parting.push(status.clone());
            self.urgent = true;
        }
        self.keep_removed(now_ms, status);
    }

    /// Keeps the last status of a probe that is gone.
    fn keep_removed(&mut self, now_ms: u64, status: ProbeStatus) {
        if status.reason.as_deref() == Some(REPLACED) {
            return;
        }
        if self.removed.len() >= REMOVED_MAX {
            self.removed.pop_front();
        }
        self.removed.push_back((now_ms + ENDED_KEPT_MS, status));
    }

    pub(super) fn end_all(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        for id in self.tracepoints.keys().cloned().collect::<Vec<_>>() {
            for (job, status) in self.end_tracepoint(&id, reason, effects) {
                self.parting.extend(status);
                let ending = job.and_then(|job| self.ending.get(&job));
                self.parting.extend(ending.map(|status| ProbeStatus { unfinished: true, ..status.clone() }));
                self.urgent = true;
            }
        }
    }
}

//! Where a breakpoint's line is in each build: one tracepoint per place, and what is to be said of builds that do not
//! have the line, or whose text is not known.
//!
//! Builds that appear later are mapped when they are first seen; a tracepoint whose place stays is left alone.

use super::super::limits::REASONS_NAMED_MAX;
use super::breakpoints::Place;
use super::event::{Effect, Mapped};
use super::state::{Phase, State, Turn};
use crate::lines::Plan;
use riptrace_protocol::fleet::{BuildFacts, ProbeState, TracepointStatus};
use riptrace_protocol::ids::BuildId;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is known of a breakpoint's line in the builds.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    /// Asked, not answered yet.
    pub(super) under_way: bool,
    /// Why builds do not have the line, for a person.
    pub(super) refused: Vec<String>,
    notes: Vec<(BuildId, String)>,
    /// Builds that were mapped.
    builds: BTreeSet<BuildId>,
}

impl Mapping {
    /// What is not certain of the builds that are armed.
    pub(super) fn notes_of(&self, statuses: &[&TracepointStatus]) -> Vec<String> {
        let probes = statuses.iter().flat_map(|status| &status.probes);
        let armed = || probes.clone().filter(|probe| probe.state == ProbeState::Armed);
        let mut texts = Vec::new();
        for (build, note) in &self.notes {
            if let Some(probe) = armed().find(|probe| probe.build == *build) {
                let text = format!("{}: {note}", probe.service);
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
        texts.truncate(REASONS_NAMED_MAX);
        texts
    }

    fn take(&mut self, plan: &Plan) {
        self.refused = plan.refused.iter().take(REASONS_NAMED_MAX).map(|refused| refused.why.to_string()).collect();
        let notes = plan.targets.iter().flat_map(|target| &target.notes);
        self.notes = notes.map(|(build, note)| (build.clone(), note.to_string())).collect();
    }
}

impl State {
    /// Asks where a breakpoint's line is.
    pub(super) fn map(&mut self, turn: &mut Turn<'_>, id: i64) {
        let builds = self.builds_meant();
        let Some(breakpoint) = self.breakpoints.set.get_mut(&id) else { return };
        let Some((path, line)) = breakpoint.plan.as_ref().ok().and_then(|plan| plan.local.clone()) else { return };
        breakpoint.mapping.under_way = true;
        breakpoint.mapping.builds = builds.iter().map(|build| build.id.clone()).collect();
        turn.effect(Effect::Map { breakpoint: id, path: PathBuf::from(path), line, builds });
    }

    pub(super) fn mapped(&mut self, turn: &mut Turn<'_>, id: i64, outcome: Result<Mapped, String>) {
        if self.phase != Phase::Joined {
            return;
        }
        let Some(breakpoint) = self.breakpoints.set.get_mut(&id) else { return };
        breakpoint.mapping.under_way = false;
        let Some((path, line)) = breakpoint.plan.as_ref().ok().and_then(|plan| plan.local.clone()) else { return };
        let selector = self.attachment.config.selector.clone().unwrap_or_default();
        let as_it_is = |file| {
            vec![Place { location: Location::Line { file, line }, selector: selector.clone(), source: Vec::new() }]
        };
        let places = match outcome {
            Err(why) => {
                breakpoint.mapping.refused = vec![why];
                Vec::new()
            }
            Ok(Mapped::Unread) => as_it_is(self.paths.to_build(&path)),
            Ok(Mapped::Path(file)) if !file.starts_with('/') => as_it_is(file),
            Ok(Mapped::Path(_)) => as_it_is(self.paths.to_build(&path)),
            Ok(Mapped::Plan(mut plan)) => {
                breakpoint.mapping.take(&plan);
                // A file of no module and no repository is known by its path below the checkout.
                let below = self.paths.to_build(&path);
                if !below.starts_with('/') {
                    let whole = plan.targets.iter_mut().filter(|target| target.file.starts_with('/'));
                    whole.for_each(|target| target.file.clone_from(&below));
                }
                let places = plan.places(&selector).into_iter();
                places.collect()
            }
        };
        self.reconcile(turn, id, places);
    }

    /// Maps breakpoints to builds that were not there before.
    pub(super) fn map_new_builds(&mut self, turn: &mut Turn<'_>) {
        let builds: BTreeSet<BuildId> = self.builds_meant().into_iter().map(|build| build.id).collect();
        let set = self.breakpoints.set.iter();
        if self.attachment.is_recording {
            return;
        }
        let stale = set.filter(|(_, breakpoint)| {
            let is_line = breakpoint.plan.as_ref().is_ok_and(|plan| plan.local.is_some());
            is_line && !breakpoint.mapping.under_way && !builds.is_subset(&breakpoint.mapping.builds)
        });
        let stale: Vec<i64> = stale.map(|(id, _)| *id).collect();
        for id in stale {
            self.map(turn, id);
        }
    }

    /// The builds of the processes that the session's selector means.
    pub(super) fn builds_meant(&self) -> Vec<BuildFacts> {
        let everything = Selector::default();
        let selector = self.attachment.config.selector.as_ref().unwrap_or(&everything);
        let mut seen = BTreeSet::new();
        let hosts = self.attachment.fleet.iter().flat_map(|fleet| &fleet.hosts).filter(|host| host.alive);
        hosts
            .flat_map(|host| {
                let processes = host.profile.processes.iter();
                processes.filter(move |process| selector.matches(&host.profile.host, process))
            })
            .filter(|process| seen.insert(process.build.id.clone()))
            .map(|process| process.build.clone())
            .collect()
    }
}

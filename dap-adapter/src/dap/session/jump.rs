//! Jumps to a hit that is named by a place, a number or a time.

use super::super::envelope::Failure;
use super::super::limits::GOTO_TARGETS_MAX;
use super::super::types::GotoTargetsArguments;
use super::handles::Thing;
use super::motion::Reason;
use super::state::{Asked, State, Turn};
use crate::render::time;
use riptrace_protocol::stream::OrderedHit;
use serde_json::{Value, json};
use std::sync::Arc;

impl State {
    /// `gotoTargets`: the hits of a line, those nearest to the open one first.
    pub(super) fn goto_targets(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &GotoTargetsArguments) {
        let outcome = self.targets(arguments);
        turn.answer_raw(asked, outcome.map(|targets| Some(json!({"targets": targets}))));
    }

    fn targets(&mut self, arguments: &GotoTargetsArguments) -> Result<Vec<Value>, Failure> {
        let path = arguments.source.path.as_deref().unwrap_or_default();
        let path = self.client.path_in(path).map_err(|error| Failure::quiet(error.to_string()))?;
        let Some(line) = self.client.line_in(arguments.line) else {
            return Err(Failure::quiet(format!("{} is not a line of a file", arguments.line)));
        };
        let here = (path, line);
        let marks = self.timeline.mark_tracepoints(|tracepoint| self.breakpoints.local(tracepoint) == Some(&here));
        let open = self.paused_hit().map(|hit| hit.seq);
        let mut found: Vec<(&str, Arc<OrderedHit>)> = Vec::new();
        if let Some(open) = open {
            found.extend(self.timeline.next(open, |hit| hit.is_of(&marks)).map(|hit| ("next", hit)));
            found.extend(self.timeline.previous(open, |hit| hit.is_of(&marks)).map(|hit| ("previous", hit)));
        }
        found.extend(self.timeline.next(0, |hit| hit.is_of(&marks)).map(|hit| ("first", hit)));
        let mut newest: Vec<_> =
            self.timeline.before(u64::MAX).filter(|hit| hit.is_of(&marks)).take(GOTO_TARGETS_MAX).collect();
        newest.reverse();
        let newest: Vec<Arc<OrderedHit>> = newest.into_iter().rev().filter_map(|hit| hit.whole()).collect();
        found.extend(newest.into_iter().enumerate().map(|(index, hit)| (if index == 0 { "newest" } else { "" }, hit)));
        let mut seen = Vec::new();
        found.retain(|(_, hit)| {
            let is_new = !seen.contains(&hit.seq);
            seen.push(hit.seq);
            is_new && Some(hit.seq) != open
        });
        found.truncate(GOTO_TARGETS_MAX);
        let target = |(which, hit): (&str, Arc<OrderedHit>)| {
            let which = if which.is_empty() { String::new() } else { format!("{which}: ") };
            let label = format!("{which}hit {} · {} {} {}", hit.seq, hit.host, hit.service, time::clock(hit.time_ns));
            json!({"id": self.handles.number(Thing::Row(hit.seq)), "label": label, "line": arguments.line})
        };
        Ok(found.into_iter().map(target).collect())
    }

    /// `goto`: opens the hit of a target.
    pub(super) fn goto_target(&mut self, turn: &mut Turn<'_>, asked: Asked, target: i64) {
        let hit = match self.handles.thing(target) {
            Some(Thing::Row(seq)) => self.hit(seq).ok_or_else(|| self.no_such_hit(seq)),
            _ => Err(Failure::quiet(format!("there is no target {target}; ask for 'gotoTargets' first"))),
        };
        match hit {
            Err(failure) => turn.answer(asked, Err(failure)),
            Ok(hit) => {
                turn.answer(asked, Ok(None));
                self.open_hit(turn, hit, Reason::Goto);
            }
        }
    }

    /// The hit that a person names: a number, or a time (`2026-11-23T10:00:00.5Z`, or of the newest hit's day
    /// `10:00:00.5`): the first hit at or after it.
    pub(super) fn hit_named(&self, name: &str) -> Result<Arc<OrderedHit>, Failure> {
        let name = name.trim().trim_start_matches('#');
        if let Ok(seq) = name.parse::<u64>() {
            return self.hit(seq).ok_or_else(|| self.no_such_hit(seq));
        }
        let day = self.timeline.newest().map_or(0, |hit| hit.time_ns);
        let Some(time_ns) = time::parse(name, day) else {
            return Err(Failure::quiet(format!(
                "{name:?} is neither the number of a hit nor a time (10:00:00.5, or 2026-11-23T10:00:00.5Z)"
            )));
        };
        let found = self.timeline.from(0).find(|hit| hit.time_ns() >= time_ns).and_then(|hit| hit.whole());
        found.ok_or_else(|| Failure::quiet(format!("no hit is as late as {}", time::rfc3339(time_ns))))
    }
}

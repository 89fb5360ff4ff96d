//! New questions to hits that are already there: a breakpoint that is changed takes over the hits that its place had
//! before. Its log message is told of them anew, its condition says which of them count.

use super::super::limits::{RETOLD_MAX, SEARCH_HITS_MAX};
use super::super::types::{Event as DapEvent, OutputEventBody, OutputEventCategory};
use super::breakpoints::Plan;
use super::modes::HitMode;
use super::state::{State, Turn};
use crate::render::text;
use crate::timeline::values::HitValues;
use crate::timeline::{Glance, Marks, Timeline};
use riptrace_protocol::expression;
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::value::Scalar;
use serde_json::json;
use std::cell::Cell;
use std::sync::Arc;

/// Which hits continue and reverse continue go to.
pub(super) struct Stations {
    marks: Marks,
    /// Tracepoints whose condition came after their hits.
    asked_later: Marks,
    looked_at: Cell<usize>,
}

impl Stations {
    /// Whether the search looked at as many hits as it may.
    pub(super) fn is_cut(&self) -> bool {
        self.looked_at.get() >= SEARCH_HITS_MAX
    }
}

impl State {
    /// Hits of breakpoints; where there are only logpoints, theirs.
    pub(super) fn stations(&self) -> Stations {
        self.stations_of(&self.timeline)
    }

    /// As [`State::stations`], of the hits that a timeline holds.
    pub(super) fn stations_of(&self, timeline: &Timeline) -> Stations {
        let all = !self.breakpoints.has_plain();
        // In a recording the breakpoints of the editor say which of the recorded hits are meant.
        let is_set =
            |tracepoint: &TracepointId| !self.attachment.is_recording || self.breakpoints.of(tracepoint).is_some();
        let is_meant = |tracepoint: &TracepointId| !self.breakpoints.is_log(tracepoint) && is_set(tracepoint);
        Stations {
            marks: timeline.mark_tracepoints(|tracepoint| all || is_meant(tracepoint)),
            asked_later: timeline.mark_tracepoints(|tracepoint| self.breakpoints.recheck(tracepoint).is_some()),
            looked_at: Cell::new(0),
        }
    }

    /// Whether a search ends at this hit.
    pub(super) fn is_station(&self, stations: &Stations, hit: &Glance<'_>) -> bool {
        if !hit.is_of(&stations.marks) {
            return false;
        }
        if !hit.is_of(&stations.asked_later) {
            return true;
        }
        stations.looked_at.set(stations.looked_at.get() + 1);
        !stations.is_cut() && self.passes(hit)
    }

    /// Whether a hit fulfils the condition that its breakpoint has now.
    fn passes(&self, hit: &Glance<'_>) -> bool {
        let Some(condition) = hit.tracepoint().and_then(|tracepoint| self.breakpoints.recheck(tracepoint)) else {
            return true;
        };
        let Some(hit) = hit.whole() else { return false };
        let values = HitValues::decode(&hit, &self.dictionaries);
        matches!(values.evaluate(condition), Ok(value) if value.scalar == Some(Scalar::Bool(true)))
    }

    /// Gives a new breakpoint the hits that were recorded at its place before it.
    pub(super) fn adopt(&mut self, turn: &mut Turn<'_>, id: i64) {
        let Some(breakpoint) = self.breakpoints.set.get(&id) else { return };
        let Ok(Plan { local, functions, template, mode, .. }) = breakpoint.plan.clone() else { return };
        let condition = breakpoint.spec.condition.as_deref().and_then(|text| expression::parse(text).ok());
        let adopted =
            self.breakpoints.adopt(id, local.as_ref(), &functions, !mode.opens_timeline(), condition.map(Arc::new));
        if adopted.is_empty() {
            return;
        }
        for tracepoint in &adopted {
            self.dictionaries.set_message(tracepoint, template.clone());
        }
        self.statistics.timeline_changed();
        if template.is_some() && mode != HitMode::Metric {
            self.tell_again(turn, &adopted);
        }
    }

    /// Tells the newest hits of these tracepoints with their new message, folded away.
    fn tell_again(&mut self, turn: &mut Turn<'_>, tracepoints: &[TracepointId]) {
        let marks = self.timeline.mark_tracepoints(|tracepoint| tracepoints.contains(tracepoint));
        let all = self.timeline.from(0).filter(|hit| hit.is_of(&marks)).count();
        let looked_at = self.timeline.before(u64::MAX).filter(|hit| hit.is_of(&marks)).take(SEARCH_HITS_MAX);
        let newest = looked_at.filter(|hit| self.passes(hit)).take(RETOLD_MAX).filter_map(|hit| hit.whole());
        let mut rows: Vec<String> = newest.map(|hit| text::hit(&hit, &self.dictionaries, self.client.style)).collect();
        if rows.is_empty() {
            return;
        }
        rows.reverse();
        let row = |output: String, group: Option<&str>| {
            let mut body = json!({"category": "console", "output": format!("{output}\n")});
            if let Some(group) = group {
                body["group"] = json!(group);
            }
            body
        };
        let title =
            format!("RipTrace: the new message for the newest {} of {all} hits that are already there", rows.len());
        turn.emit_raw("output", row(title, Some("startCollapsed")));
        for text in rows {
            turn.emit(DapEvent::Output(OutputEventBody {
                category: Some(OutputEventCategory::Console),
                output: format!("{text}\n"),
                ..OutputEventBody::default()
            }));
        }
        turn.emit_raw("output", json!({"category": "console", "output": "", "group": "end"}));
    }
}

//! Requests that RipTrace adds to the protocol (`riptrace/..`); `DAP.md` documents them.

use super::super::envelope::Failure;
use super::super::limits::TIMELINE_PAGE_MAX;
use super::motion::Reason;
use super::state::{Asked, State, Turn};
use crate::render::json as rendered;
use serde_json::{Value, json};

impl State {
    pub(super) fn own_request(&mut self, turn: &mut Turn<'_>, asked: Asked, name: &str, arguments: &Value) {
        let outcome = match name {
            "fleet" => self.fleet_json(),
            "timeline" => self.timeline_json(arguments),
            "open" => return self.open_asked(turn, asked, arguments),
            _ => Err(Failure::quiet(format!("RipTrace does not know the request 'riptrace/{name}'"))),
        };
        turn.answer_raw(asked, outcome.map(Some));
    }

    fn fleet_json(&self) -> Result<Value, Failure> {
        let fleet = self.attachment.fleet.as_ref().ok_or_else(|| Failure::quiet("not attached to a fleet yet"))?;
        serde_json::to_value(fleet).map_err(|error| Failure::quiet(format!("the fleet is no JSON: {error}")))
    }

    /// A page of hits: `from` (a `seq`; absent: the newest page) and `count`.
    fn timeline_json(&self, arguments: &Value) -> Result<Value, Failure> {
        let number = |key: &str| match &arguments[key] {
            Value::Null => Ok(None),
            value => {
                value.as_u64().map(Some).ok_or_else(|| Failure::quiet(format!("\"{key}\" must be a whole number")))
            }
        };
        let count = number("count")?.map_or(TIMELINE_PAGE_MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let count = count.min(TIMELINE_PAGE_MAX);
        let newest = self.timeline.newest(|_| true).map_or(0, |hit| hit.seq);
        let from = number("from")?.unwrap_or_else(|| (newest + 1).saturating_sub(count as u64));
        let hits: Vec<Value> =
            self.timeline.from(from).take(count).map(|hit| rendered::hit(hit, &self.dictionaries)).collect();
        let (arrived, dropped) = self.rows.counts();
        Ok(json!({
            "hits": hits,
            "oldest": self.timeline.from(0).next().map(|hit| hit.seq),
            "newest": (newest > 0).then_some(newest),
            "open": self.paused_hit().map(|hit| hit.seq),
            "arrived": arrived,
            "evicted": self.timeline.evicted(),
            "dropped": dropped,
        }))
    }

    /// Opens a hit by its number.
    fn open_asked(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &Value) {
        let Some(seq) = arguments["seq"].as_u64() else {
            return turn.answer(asked, Err(Failure::quiet("\"seq\" must be the number of a hit")));
        };
        match self.timeline.get(seq).cloned() {
            None => {
                let failure = self.no_such_hit(seq);
                turn.answer(asked, Err(failure));
            }
            Some(hit) => {
                turn.answer(asked, Ok(None));
                self.open_hit(turn, hit, Reason::Pause);
            }
        }
    }
}

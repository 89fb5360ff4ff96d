//! Tracepoints whose hits are there and that nobody wants any more: those of a recording, and those that a change of
//! their breakpoint has replaced.

use super::super::functions;
use super::super::status::{Arrived, Folded};
use super::{Armed, Breakpoints, Place, Stage};
use crate::timeline::recording::AskedFor;
use riptrace_protocol::expression::Expr;
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::location::Location;
use riptrace_protocol::tracepoint::Tracepoint;
use std::sync::Arc;

impl Breakpoints {
    /// Gives a breakpoint the tracepoints that were at its place before; returns them.
    pub(in super::super) fn adopt(
        &mut self,
        breakpoint: i64,
        local: Option<&(String, u32)>,
        functions: &[String],
        is_log: bool,
        condition: Option<Arc<Expr>>,
    ) -> Vec<TracepointId> {
        let locations: Vec<Location> = functions.iter().map(|name| functions::location(name)).collect();
        let mut adopted = Vec::new();
        for (id, armed) in self.tracepoints.iter_mut().filter(|(_, armed)| !armed.wanted) {
            let is_here = match local {
                Some(local) => armed.local.as_ref() == Some(local),
                None => armed.local.is_none() && locations.contains(&armed.place.location),
            };
            if is_here {
                armed.breakpoint = breakpoint;
                armed.adopted = true;
                armed.is_log = is_log;
                armed.recheck.clone_from(&condition);
                adopted.push(id.clone());
            }
        }
        adopted
    }

    /// A tracepoint of a recording: it is not wanted, and its hits wait for a breakpoint at its place.
    pub(in super::super) fn recorded(&mut self, tracepoint: Tracepoint, local: Option<(String, u32)>, is_log: bool) {
        let place = Place {
            location: tracepoint.location.clone(),
            selector: tracepoint.selector.clone(),
            source: tracepoint.source.clone(),
        };
        let id = tracepoint.id.clone();
        let armed = Armed {
            breakpoint: 0,
            place,
            stage: Stage::Gone,
            wanted: false,
            adopted: false,
            recheck: None,
            exception: None,
            is_log,
            metric: None,
            local,
            asked: tracepoint,
            status: None,
            arrived: Arrived::default(),
        };
        self.tracepoints.insert(id, armed);
    }

    /// What was asked of the fleet, for a recording.
    pub(in super::super) fn asked_for(&self) -> Vec<AskedFor> {
        let asked = |armed: &Armed| AskedFor { tracepoint: armed.asked.clone(), local: armed.local.clone() };
        self.tracepoints.values().map(asked).collect()
    }

    /// What is said of a breakpoint in a recording.
    pub(in super::super) fn folded_in_recording(&self, id: i64) -> Folded {
        let adopted = self.tracepoints.values().filter(|armed| armed.breakpoint == id && armed.adopted);
        let hits: u64 = adopted.map(|armed| armed.arrived.hits).sum();
        match hits {
            0 => Folded { verified: false, message: "the recording has no hits of this place".to_owned() },
            1 => Folded { verified: true, message: "1 recorded hit".to_owned() },
            hits => Folded { verified: true, message: format!("{hits} recorded hits") },
        }
    }
}

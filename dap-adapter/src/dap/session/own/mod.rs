//! Requests that RipTrace adds to the protocol (`riptrace/..`), and its own events; `DAP.md` documents them.

mod fleet;
mod statistics;
mod timeline;

use super::super::envelope::Failure;
use super::state::{Asked, State, Turn};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use fleet::Rates;
pub(super) use statistics::Statistics;
pub(super) use timeline::PageArguments;

impl State {
    pub(super) fn own_request(&mut self, turn: &mut Turn<'_>, asked: Asked, name: &str, arguments: Value) {
        let outcome = match name {
            "fleet" => return self.own_fleet(turn, asked, arguments),
            "timeline" => self.whole_hits(&arguments),
            "timelinePage" => match read(name, arguments) {
                Ok(arguments) => return self.page_asked(turn, asked, arguments),
                Err(failure) => Err(failure),
            },
            "timelineOverview" => read(name, arguments).and_then(|arguments| self.overview(arguments)),
            "statistics" => Ok(self.statistics_json(turn.now)),
            "openHit" => return self.open_asked(turn, asked, &arguments),
            "save" => return self.save_asked(turn, asked, arguments),
            "capture" => read(name, arguments).and_then(|arguments| self.capture_asked(turn, arguments)),
            _ => Err(Failure::quiet(format!("RipTrace does not know the request 'riptrace/{name}'"))),
        };
        turn.answer_raw(asked, outcome.map(Some));
    }
}

/// Arguments of `riptrace/capture`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureArguments {
    breakpoint: i64,
    expression: String,
}

impl State {
    fn capture_asked(&mut self, turn: &mut Turn<'_>, arguments: CaptureArguments) -> Result<Value, Failure> {
        self.capture_expression(turn, arguments.breakpoint, &arguments.expression)?;
        Ok(json!({}))
    }
}

/// Reads the arguments of a request of ours.
pub(super) fn read<T: DeserializeOwned>(name: &str, arguments: Value) -> Result<T, Failure> {
    serde_json::from_value(arguments)
        .map_err(|error| Failure::quiet(format!("the arguments of 'riptrace/{name}' cannot be read: {error}")))
}

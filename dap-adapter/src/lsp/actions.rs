//! What can be done on a line, and the commands that do it.
//!
//! The commands' names and arguments are part of the server's interface: an editor without a plugin of ours runs them as
//! they are, through `workspace/executeCommand`.

use serde::{Deserialize, Serialize};
use tower_lsp::lsp_types::Url;

/// Traces a line, a function or an expression: arguments are one [`Trace`].
pub(super) const TRACE: &str = "riptrace.trace";
/// Removes what [`TRACE`] has asked for on a line: arguments are one [`Line`].
pub(super) const STOP: &str = "riptrace.stop";

/// Shows behind the lines around one which of them can be traced, and what is there to be read; a second time, it is
/// hidden again. Arguments are one [`Line`].
pub(super) const SHOW: &str = "riptrace.show";

/// All commands.
pub(super) const ALL: [&str; 3] = [TRACE, STOP, SHOW];

/// Longest expression that is offered: what is selected is mostly a name.
const EXPRESSION_BYTES_MAX: usize = 200;

/// A line of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) uri: Url,
    /// From 0, as everywhere in the protocol.
    pub(super) line: u32,
}

/// What is to be traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    #[serde(flatten)]
    pub(super) at: Line,
    /// Each call of the function that the line belongs to, rather than the line.
    #[serde(default)]
    pub(super) function: bool,
    /// Capture and show this expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expression: Option<String>,
}

/// A command with its title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) title: String,
    pub(super) command: &'static str,
    pub(super) arguments: serde_json::Value,
}

/// What is offered on a line. `own` tells whether the server itself traces it, `shown` whether [`SHOW`] hides.
pub(super) fn offers(at: &Line, selected: Option<&str>, own: bool, shown: bool) -> Vec<Offer> {
    let offer = |title: String, command, arguments: Result<serde_json::Value, _>| Offer {
        title,
        command,
        // Plain data with text keys: JSON takes it.
        arguments: arguments.unwrap_or_default(),
    };
    let show = if shown { "hide what can be traced" } else { "show what can be traced around here" };
    let show = offer(format!("RipTrace: {show}"), SHOW, serde_json::to_value(at));
    if own {
        return vec![offer("RipTrace: stop tracing this line".to_owned(), STOP, serde_json::to_value(at)), show];
    }
    let trace = |function, expression: Option<&str>| {
        serde_json::to_value(Trace { at: at.clone(), function, expression: expression.map(str::to_owned) })
    };
    let mut offers = Vec::new();
    let parses = |text: &&str| text.len() <= EXPRESSION_BYTES_MAX && riptrace_protocol::expression::parse(text).is_ok();
    if let Some(expression) = selected.filter(parses) {
        offers.push(offer(format!("RipTrace: trace {expression} here"), TRACE, trace(false, Some(expression))));
    }
    offers.push(offer("RipTrace: trace this line".to_owned(), TRACE, trace(false, None)));
    offers.push(offer("RipTrace: trace calls of this function".to_owned(), TRACE, trace(true, None)));
    offers.push(show);
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line { uri: Url::parse("file:///cart.go").unwrap(), line: 3 }
    }

    #[test]
    fn a_line_is_offered_with_what_is_selected_on_it() {
        let titles = |selected, own| -> Vec<String> {
            offers(&line(), selected, own, own).into_iter().map(|offer| offer.title).collect()
        };
        let plain = [
            "RipTrace: trace this line",
            "RipTrace: trace calls of this function",
            "RipTrace: show what can be traced around here",
        ];
        assert_eq!(titles(None, false), plain);
        assert_eq!(titles(Some("c.Items[0]"), false)[0], "RipTrace: trace c.Items[0] here");
        assert_eq!(titles(Some("x := ("), false), plain, "it is no expression");
        let own = ["RipTrace: stop tracing this line", "RipTrace: hide what can be traced"];
        assert_eq!(titles(Some("x"), true), own);
    }

    #[test]
    fn arguments_read_back() {
        let offers = offers(&line(), Some("n"), false, false);
        let trace: Trace = serde_json::from_value(offers[0].arguments.clone()).unwrap();
        assert_eq!(trace, Trace { at: line(), function: false, expression: Some("n".into()) });
        let by_hand: Trace = serde_json::from_str(r#"{"uri": "file:///cart.go", "line": 3}"#).unwrap();
        assert_eq!(by_hand, Trace { at: line(), function: false, expression: None });
    }
}

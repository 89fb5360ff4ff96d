//! What the hits of a breakpoint are for: a snapshot to look at, a line in the log, a count, the numbers of a metric.
//!
//! An editor that knows modes (VS Code: "Edit Mode..") sends one with the breakpoint; without one, a breakpoint with a log
//! message is a log, all others are snapshots.

use riptrace_protocol::expression::{Expr, Template};
use riptrace_protocol::tracepoint::Mode;
use riptrace_protocol::value::{Scalar, Status, Value};
use serde_json::{Value as Json, json};

/// What a breakpoint's hits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HitMode {
    /// Each hit is a row with its variables; the first opens the timeline.
    Snapshot,
    /// Each hit is a row with its message; none opens the timeline.
    Log,
    /// Passages are counted where they happen; nothing is captured.
    Count,
    /// The numbers of an expression are summed up; the hits have no rows.
    Metric,
}

impl HitMode {
    const ALL: [HitMode; 4] = [HitMode::Snapshot, HitMode::Log, HitMode::Count, HitMode::Metric];

    fn id(self) -> &'static str {
        match self {
            HitMode::Snapshot => "snapshot",
            HitMode::Log => "log",
            HitMode::Count => "count",
            HitMode::Metric => "metric",
        }
    }

    fn description(self) -> &'static str {
        match self {
            HitMode::Snapshot => "Each hit is recorded with its variables; the first opens the timeline.",
            HitMode::Log => "Each hit is a row of the debug console; none opens the timeline.",
            HitMode::Count => "Passages are counted where they happen; nothing is captured.",
            HitMode::Metric => {
                "The log message's first {expression} is summed up: values, least, mean, greatest, last."
            }
        }
    }

    /// Whether a word is the name of a mode.
    pub(super) fn is_known(named: &str) -> bool {
        HitMode::ALL.iter().any(|mode| mode.id() == named)
    }

    /// The mode of a breakpoint, as the editor names it; the error is a sentence for a person.
    pub(super) fn of(named: Option<&str>, message: Option<&Template>) -> Result<HitMode, String> {
        let Some(named) = named else {
            return Ok(if message.is_some() { HitMode::Log } else { HitMode::Snapshot });
        };
        let Some(mode) = HitMode::ALL.into_iter().find(|mode| mode.id() == named) else {
            let known = HitMode::ALL.map(HitMode::id).join(", ");
            return Err(format!("RipTrace has no breakpoint mode {named:?}; there are {known}"));
        };
        match (mode, message) {
            (HitMode::Metric, message) if message.and_then(first_expression).is_none() => {
                Err("a metric needs a log message with the expression that is measured, e.g. {len(items)}".to_owned())
            }
            _ => Ok(mode),
        }
    }

    /// Whether its first hit opens the timeline.
    pub(super) fn opens_timeline(self) -> bool {
        self == HitMode::Snapshot
    }

    /// What a passage leaves behind at the target.
    pub(super) fn at_target(self) -> Mode {
        if self == HitMode::Count { Mode::Count } else { Mode::Hit }
    }
}

/// What `initialize` offers as `breakpointModes`.
pub(super) fn offered() -> Json {
    let mode = |mode: HitMode| {
        let mut label = mode.id().to_owned();
        label[..1].make_ascii_uppercase();
        // A metric needs a log message, which only lines have.
        let applies_to: &[&str] = if mode == HitMode::Metric { &["source"] } else { &["source", "exception"] };
        json!({"mode": mode.id(), "label": label, "description": mode.description(), "appliesTo": applies_to})
    };
    Json::from(HitMode::ALL.map(mode).to_vec())
}

fn first_expression(message: &Template) -> Option<&Expr> {
    message.expressions().next()
}

/// The numbers of an expression over the hits of a tracepoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    expression: Expr,
    values: u64,
    /// Hits for which the expression has no number.
    without: u64,
    sum: f64,
    least: f64,
    greatest: f64,
    last: f64,
}

impl Metric {
    /// Of a message's first expression.
    pub(super) fn of(message: &Template) -> Option<Metric> {
        let expression = first_expression(message)?.clone();
        Some(Metric {
            expression,
            values: 0,
            without: 0,
            sum: 0.0,
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
            last: 0.0,
        })
    }

    /// What is measured.
    pub(super) fn expression(&self) -> &Expr {
        &self.expression
    }

    /// Takes the value of a hit in; `None` where it has none.
    pub(super) fn add(&mut self, value: Option<&Value>) {
        let Some(number) = value.and_then(number) else {
            self.without += 1;
            return;
        };
        self.values += 1;
        self.sum += number;
        self.least = self.least.min(number);
        self.greatest = self.greatest.max(number);
        self.last = number;
    }

    /// Adds the numbers of another tracepoint of the same breakpoint.
    pub(super) fn merge(&mut self, other: &Metric) {
        if other.values > 0 {
            self.last = other.last;
        }
        self.values += other.values;
        self.without += other.without;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    fn mean(&self) -> f64 {
        self.sum / self.values as f64
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let mut text = match self.values {
            0 => format!("{}: no value yet", self.expression),
            1 => format!("{}: 1 value, {}", self.expression, short(self.last)),
            n => format!(
                "{}: {n} values, least {}, mean {}, greatest {}, last {}",
                self.expression,
                short(self.least),
                short(self.mean()),
                short(self.greatest),
                short(self.last)
            ),
        };
        if self.without > 0 {
            text.push_str(&format!(", {} hits without a number", self.without));
        }
        text
    }

    /// For a program.
    pub(super) fn json(&self) -> Json {
        let known = |number: f64| (self.values > 0).then_some(number);
        json!({
            "expression": self.expression.to_string(), "values": self.values, "without": self.without,
            "least": known(self.least), "mean": known(self.mean()), "greatest": known(self.greatest),
            "last": known(self.last),
        })
    }
}

/// The number that a value is, where it is known exactly.
fn number(value: &Value) -> Option<f64> {
    if value.status != Status::Exact {
        return None;
    }
    match value.scalar.as_ref()? {
        Scalar::Int(number) => Some(*number as f64),
        Scalar::Float(number) => Some(*number).filter(|number| number.is_finite()),
        Scalar::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    }
}

/// With four digits behind the point at most, and none that are zero.
fn short(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_named_or_follows_from_the_message() {
        let message = Template::parse("qty is {qty}").unwrap();
        let plain = Template::parse("here").unwrap();
        assert_eq!(HitMode::of(None, None), Ok(HitMode::Snapshot));
        assert_eq!(HitMode::of(None, Some(&plain)), Ok(HitMode::Log));
        assert_eq!(HitMode::of(Some("snapshot"), Some(&message)), Ok(HitMode::Snapshot));
        assert_eq!(HitMode::of(Some("metric"), Some(&message)), Ok(HitMode::Metric));
        for (mode, message) in [("metric", None), ("metric", Some(&plain)), ("often", None)] {
            assert!(HitMode::of(Some(mode), message).is_err(), "{mode}");
        }
        for mode in offered().as_array().unwrap() {
            assert!(HitMode::of(mode["mode"].as_str(), Some(&message)).is_ok(), "{mode}");
        }
    }

    #[test]
    fn a_metric_sums_numbers_up_and_counts_what_is_none() {
        let int = |n| Value { scalar: Some(Scalar::Int(n)), ..Value::exact("qty", "int", "x") };
        let mut metric = Metric::of(&Template::parse("{qty}").unwrap()).unwrap();
        assert_eq!(metric.text(), "qty: no value yet");
        assert_eq!(metric.json()["least"], Json::Null);
        for n in [3, -1, 5] {
            metric.add(Some(&int(n)));
        }
        metric.add(None);
        let unknown = Value { scalar: Some(Scalar::Int(9)), ..Value::missing("qty", "int", Status::OptimisedOut) };
        metric.add(Some(&unknown));
        metric.add(Some(&Value { scalar: Some(Scalar::Float(f64::NAN)), ..Value::exact("qty", "float64", "NaN") }));
        let mut other = metric.clone();
        other.merge(&Metric::of(&Template::parse("{qty}").unwrap()).unwrap());
        assert_eq!(other, metric);
        let text = "qty: 3 values, least -1, mean 2.3333, greatest 5, last 5, 3 hits without a number";
        assert_eq!(metric.text(), text);
    }
}

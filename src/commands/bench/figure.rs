//! Figures: a name, a value, and what it has to be.

use crate::failure::Failure;
use crate::output;
use serde_json::{Value, json};

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// It is shown beside the others.
    None,
}

/// A measured figure.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) bound: Bound,
    /// Whose figure it is, if it is not RipTrace's.
    pub(super) peer: Option<&'static str>,
    /// How to read it.
    pub(super) note: String,
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str, bound: Bound) -> Figure {
        Figure { name: name.into(), value, unit, bound, peer: None, note: String::new() }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    pub(super) fn peer(mut self, peer: &'static str) -> Figure {
        self.peer = Some(peer);
        self
    }

    /// A value that is no number misses every bound.
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
            Bound::None => true,
        }
    }

    fn json(&self) -> Value {
        let mut object = json!({"figure": self.name, "value": rounded(self.value), "unit": self.unit});
        match self.bound {
            Bound::AtMost(most) => object["at_most"] = json!(most),
            Bound::AtLeast(least) => object["at_least"] = json!(least),
            Bound::None => {}
        }
        if let Some(peer) = self.peer {
            object["peer"] = json!(peer);
        }
        if !self.note.is_empty() {
            object["note"] = json!(self.note);
        }
        object
    }

    fn row(&self) -> Vec<String> {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("at most {most}"),
            Bound::AtLeast(least) => format!("at least {least}"),
            Bound::None => String::new(),
        };
        let verdict = match (self.bound, self.holds()) {
            (Bound::None, _) => "",
            (_, true) => "ok",
            (_, false) => "MISSED",
        };
        let value = format!("{} {}", rounded(self.value), self.unit);
        vec![self.name.clone(), value, bound, verdict.to_owned(), self.note.clone()]
    }
}

/// Three significant digits or more: nothing here is measured better.
fn rounded(value: f64) -> f64 {
    let digits = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
    (value * digits).round() / digits
}

/// The median; `NaN` of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// What was measured so far.
pub(super) struct Report {
    json: bool,
    figures: Vec<Figure>,
    /// What could not be measured, and why.
    absent: Vec<(String, String)>,
}

impl Report {
    pub(super) fn new(json: bool) -> Report {
        Report { json, figures: Vec::new(), absent: Vec::new() }
    }

    /// Takes a figure; as JSON it is printed at once.
    pub(super) fn add(&mut self, figure: Figure) {
        if self.json {
            // Nobody reads any more: the exit status still tells.
            let _ = output::json_line(&figure.json());
        } else {
            output::note(&format!("  {}", figure.row()[..2].join("  ")));
        }
        self.figures.push(figure);
    }

    /// Says that a peer, or a figure without a bound, is not there.
    pub(super) fn absent(&mut self, what: &str, why: impl Into<String>) {
        let why = why.into();
        if self.json {
            let _ = output::json_line(&json!({"figure": what, "absent": why}));
        }
        self.absent.push((what.to_owned(), why));
    }

    /// Prints the table; fails when a figure misses its bound.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if !self.json {
            let rows: Vec<Vec<String>> = self.figures.iter().map(Figure::row).collect();
            let absent = self.absent.iter().map(|(what, why)| format!("{what}: not measured: {why}"));
            for line in output::table(&["FIGURE", "VALUE", "BOUND", "", ""], &rows).into_iter().chain(absent) {
                if output::line(&line).is_err() {
                    break;
                }
            }
        }
        let missed: Vec<&str> =
            self.figures.iter().filter(|figure| !figure.holds()).map(|figure| figure.name.as_str()).collect();
        if missed.is_empty() {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "{} of {} figures miss their bounds: {}",
            missed.len(),
            self.figures.len(),
            missed.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_holds_within_its_bound_and_not_without_a_value() {
        let of = |value, bound| Figure::new("f", value, "ns", bound).holds();
        assert!(of(60.0, Bound::AtMost(60.0)) && !of(60.1, Bound::AtMost(60.0)));
        assert!(of(100.0, Bound::AtLeast(100.0)) && !of(99.0, Bound::AtLeast(100.0)));
        assert!(!of(f64::NAN, Bound::AtMost(1.0)) && !of(f64::NAN, Bound::AtLeast(1.0)) && of(f64::NAN, Bound::None));
    }

    #[test]
    fn a_figure_is_one_object_with_its_bound_and_its_peer() {
        let figure = Figure::new("jump-64B-drained", 52.1234, "ns", Bound::AtMost(60.0));
        assert_eq!(
            figure.json(),
            json!({"figure": "jump-64B-drained", "value": 52.123, "unit": "ns", "at_most": 60.0})
        );
        let peer = Figure::new("uprobe", 9000.04, "ns", Bound::None).peer("uprobe");
        assert_eq!(peer.json(), json!({"figure": "uprobe", "value": 9000.0, "unit": "ns", "peer": "uprobe"}));
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}

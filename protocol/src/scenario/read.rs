//! TOML to a [`Scenario`], with every problem that is found and its place.

use super::{
    DURATION_MAX, EXPECTATIONS_MAX, Expectation, Expected, PROBLEMS_MAX, SCENARIO_BYTES_MAX, Scenario, ScenarioProblem,
    Stimulus, TRACEPOINTS_MAX, WITHIN_DEFAULT, Watched,
};
use crate::expression;
use crate::location::Location;
use crate::selector::Selector;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;

type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    within: Option<Text>,
    #[serde(default)]
    tracepoint: Vec<Spanned<TracepointTable>>,
    stimulus: Option<Spanned<StimulusTable>>,
    #[serde(default)]
    expect: Vec<Spanned<ExpectTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TracepointTable {
    name: Text,
    at: Text,
    #[serde(rename = "where")]
    selector: Option<Text>,
    when: Option<Text>,
    #[serde(default)]
    capture: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StimulusTable {
    run: Option<Vec<String>>,
    http: Option<Text>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    status: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectTable {
    tracepoint: Option<Text>,
    count: Option<Spanned<toml::Value>>,
    each: Option<Text>,
    some: Option<Text>,
    order: Option<Spanned<Vec<Text>>>,
    absent: Option<Text>,
    from: Option<Text>,
    to: Option<Text>,
    at_most: Option<Text>,
    at_least: Option<Text>,
}

/// Reads a scenario.
///
/// # Errors
/// What is wrong with it: all that is found, by place, at most [`PROBLEMS_MAX`]; at least one. Where the text is no TOML, or
/// has keys that no scenario has, that alone is told.
pub fn parse(text: &str) -> Result<Scenario, Vec<ScenarioProblem>> {
    if text.len() > SCENARIO_BYTES_MAX {
        let message = format!("{} bytes; a scenario has at most {SCENARIO_BYTES_MAX}", text.len());
        return Err(vec![ScenarioProblem { message, span: 0..0 }]);
    }
    let file: File = toml::from_str(text).map_err(|error| {
        vec![ScenarioProblem { message: error.message().to_owned(), span: error.span().unwrap_or(0..0) }]
    })?;
    let mut reader = Reader::default();
    let scenario = reader.scenario(file);
    reader.problems.sort_by_key(|problem| problem.span.start);
    reader.problems.truncate(PROBLEMS_MAX);
    if reader.problems.is_empty() { Ok(scenario) } else { Err(reader.problems) }
}

/// What is known while a scenario is read.
#[derive(Debug, Default)]
struct Reader {
    names: Vec<String>,
    problems: Vec<ScenarioProblem>,
}

impl Reader {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(ScenarioProblem { message: message.into(), span });
    }

    /// What was read, or the problem that it has.
    fn checked<T, E: ToString>(&mut self, text: &Text, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        read(text.get_ref()).map_err(|why| self.wrong(text.span(), why.to_string())).ok()
    }

    fn expression(&mut self, text: Option<&Text>) -> Option<String> {
        let text = text?;
        self.checked(text, expression::parse)?;
        Some(text.get_ref().clone())
    }

    fn duration(&mut self, text: Option<&Text>) -> Option<Duration> {
        self.checked(text?, duration)
    }

    fn scenario(&mut self, file: File) -> Scenario {
        let within = self.duration(file.within.as_ref()).unwrap_or(WITHIN_DEFAULT);
        if file.tracepoint.is_empty() {
            self.wrong(0..0, "nothing is watched: add a [[tracepoint]] with `name` and `at`");
        }
        if file.expect.is_empty() {
            self.wrong(
                0..0,
                "nothing is expected: add an [[expect]] with `tracepoint`, `order`, `absent`, or `from` and `to`",
            );
        }
        for (most, (number, span)) in [
            (TRACEPOINTS_MAX, (file.tracepoint.len(), file.tracepoint.last().map(Spanned::span))),
            (EXPECTATIONS_MAX, (file.expect.len(), file.expect.last().map(Spanned::span))),
        ] {
            if number > most {
                self.wrong(span.unwrap_or(0..0), format!("{number} of these; a scenario has at most {most}"));
            }
        }
        let tracepoints = file.tracepoint.into_iter().take(TRACEPOINTS_MAX);
        let tracepoints: Vec<Option<Watched>> = tracepoints.map(|table| self.tracepoint(table)).collect();
        let stimulus = file.stimulus.and_then(|table| self.stimulus(table));
        let expectations = file.expect.into_iter().take(EXPECTATIONS_MAX);
        let expectations: Vec<Option<Expectation>> = expectations.map(|table| self.expectation(table)).collect();
        Scenario {
            name: file.name,
            within,
            tracepoints: tracepoints.into_iter().flatten().collect(),
            stimulus,
            expectations: expectations.into_iter().flatten().collect(),
        }
    }

    fn tracepoint(&mut self, table: Spanned<TracepointTable>) -> Option<Watched> {
        let span = table.span();
        let table = table.into_inner();
        let name = table.name.get_ref().clone();
        if name.is_empty() {
            self.wrong(table.name.span(), "an empty name: expectations call a tracepoint by it");
        } else if self.names.contains(&name) {
            self.wrong(
                table.name.span(),
                format!("another tracepoint is called {name:?}, too: give each its own name"),
            );
        }
        // A tracepoint that cannot be read has its name all the same.
        self.names.push(name.clone());
        let location = self.checked(&table.at, Location::parse);
        let selector = match &table.selector {
            Some(text) => self.checked(text, Selector::parse),
            None => Some(Selector::default()),
        };
        let condition = self.expression(table.when.as_ref());
        let captures = table.capture.iter().filter_map(|text| self.expression(Some(text))).collect();
        Some(Watched { name, location: location?, selector: selector?, condition, captures, span })
    }

    fn stimulus(&mut self, table: Spanned<StimulusTable>) -> Option<Stimulus> {
        let span = table.span();
        let table = table.into_inner();
        let of_http = !table.headers.is_empty() || table.body.is_some() || table.status.is_some();
        match (table.run, table.http) {
            (Some(run), None) => {
                if of_http {
                    self.wrong(span.clone(), "`headers`, `body` and `status` belong to `http`, not to `run`");
                }
                if run.first().is_none_or(String::is_empty) {
                    self.wrong(span, "`run` names no program: write [\"PROGRAM\", \"ARGUMENT\", ..]");
                    return None;
                }
                Some(Stimulus::Run(run))
            }
            (None, Some(http)) => {
                let (method, url) = self.checked(&http, request)?;
                let status = match table.status {
                    Some(status) => {
                        match u16::try_from(*status.get_ref()).ok().filter(|code| (100..600).contains(code)) {
                            Some(code) => Some(code),
                            None => {
                                self.wrong(status.span(), "a status is a number from 100 to 599");
                                None
                            }
                        }
                    }
                    None => None,
                };
                let headers = table.headers.into_iter().collect();
                Some(Stimulus::Http { method, url, headers, body: table.body.unwrap_or_default(), status })
            }
            _ => {
                self.wrong(span, "a stimulus is either `run = [..]` or `http = \"METHOD URL\"`");
                None
            }
        }
    }

    /// The tracepoint of a name.
    fn named(&mut self, text: &Text) -> Option<usize> {
        let found = self.names.iter().position(|name| name == text.get_ref());
        if found.is_none() {
            let known = match self.names.as_slice() {
                [] => "there is none".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            self.wrong(text.span(), format!("no tracepoint is called {:?}: {known}", text.get_ref()));
        }
        found
    }

    fn expectation(&mut self, table: Spanned<ExpectTable>) -> Option<Expectation> {
        let span = table.span();
        let table = table.into_inner();
        let has_hits = table.count.is_some() || table.each.is_some() || table.some.is_some();
        let has_times =
            table.from.is_some() || table.to.is_some() || table.at_most.is_some() || table.at_least.is_some();
        let kinds = [table.tracepoint.is_some() || has_hits, table.order.is_some(), table.absent.is_some(), has_times];
        if kinds.into_iter().filter(|is_there| *is_there).count() != 1 {
            let message = "an expectation is one of: `tracepoint` (with `count`, `each`, `some`), `order`, `absent`, or `from` \
                           and `to` (with `at_most`, `at_least`)";
            self.wrong(span, message);
            return None;
        }
        let what = if let Some(order) = &table.order {
            let places: Vec<Option<usize>> = order.get_ref().iter().map(|name| self.named(name)).collect();
            if places.len() < 2 {
                self.wrong(order.span(), "an order is of two tracepoints at least");
            }
            Expected::Order(places.into_iter().collect::<Option<_>>()?)
        } else if let Some(absent) = &table.absent {
            Expected::Absent(self.named(absent)?)
        } else if has_times {
            self.between(&table, span.clone())?
        } else {
            let Some(of) = &table.tracepoint else {
                self.wrong(span, "`count`, `each` and `some` are of a tracepoint: add `tracepoint = \"NAME\"`");
                return None;
            };
            let of = self.named(of);
            let count = match &table.count {
                Some(text) => count(text.get_ref()).map_err(|why| self.wrong(text.span(), why)).ok(),
                None => Some(1..=u64::MAX),
            };
            let (each, some) = (self.expression(table.each.as_ref()), self.expression(table.some.as_ref()));
            Expected::Hits { of: of?, count: count?, each, some }
        };
        Some(Expectation { what, span })
    }

    fn between(&mut self, table: &ExpectTable, span: Range<usize>) -> Option<Expected> {
        let (Some(from), Some(to)) = (&table.from, &table.to) else {
            self.wrong(span, "a time is between two tracepoints: write `from` and `to`");
            return None;
        };
        let (from, to) = (self.named(from), self.named(to));
        if table.at_most.is_none() && table.at_least.is_none() {
            self.wrong(span.clone(), "how long may it take? write `at_most` or `at_least`");
        }
        let at_least = self.duration(table.at_least.as_ref()).unwrap_or(Duration::ZERO);
        let at_most = self.duration(table.at_most.as_ref()).unwrap_or(DURATION_MAX);
        if at_least > at_most {
            self.wrong(span, "`at_least` is longer than `at_most`: no time is both");
        }
        Some(Expected::Between { from: from?, to: to?, at_least, at_most })
    }
}

/// `250ms`, `1.5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration up to 24h: write such as 250ms, 1.5s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= DURATION_MAX).ok_or_else(wrong)
}

/// `POST http://..`: method and URL; the URL alone is fetched.
fn request(text: &str) -> Result<(String, String), &'static str> {
    let (method, url) = text.trim().split_once(' ').unwrap_or(("GET", text.trim()));
    let url = url.trim();
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_url = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if !is_method || !is_url || url.contains(char::is_whitespace) {
        return Err("a request is written \"METHOD URL\", such as \"POST http://127.0.0.1:8080/orders\"");
    }
    Ok((method.to_owned(), url.to_owned()))
}

/// `3`, `"3"`, `"1..3"`, `"2.."`, `"..5"`.
fn count(value: &toml::Value) -> Result<RangeInclusive<u64>, &'static str> {
    const WRONG: &str = "a count is a number from 1 (`absent` means none), or a range: \"1..3\", \"2..\", \"..5\"";
    let number = |text: &str, absent: u64| match text.trim() {
        "" => Ok(absent),
        text => text.parse().map_err(|_| WRONG),
    };
    let range = match value {
        toml::Value::Integer(number) => u64::try_from(*number).map(|number| number..=number).map_err(|_| WRONG)?,
        toml::Value::String(text) => match text.split_once("..") {
            Some((from, to)) if !(from.trim().is_empty() && to.trim().is_empty()) => {
                number(from, 0)?..=number(to, u64::MAX)?
            }
            Some(_) => return Err(WRONG),
            None => {
                let number = text.trim().parse().map_err(|_| WRONG)?;
                number..=number
            }
        },
        _ => return Err(WRONG),
    };
    if range.is_empty() || *range.end() == 0 { Err(WRONG) } else { Ok(range) }
}

//! TOML to a [`Scenario`], with every problem that is found and its place.

use super::table::{Table, Text, listed, nearest};
use super::{
    COUNT_MAX, DURATION_MAX, EXPECTATIONS_MAX, Expectation, Expected, NAME_CHARACTERS_MAX, PROBLEMS_MAX,
    SCENARIO_BYTES_MAX, SETTLE_DEFAULT, Scenario, ScenarioProblem, Stimulus, TRACEPOINTS_MAX, VERSION, WITHIN_DEFAULT,
    Watched,
};
use crate::expression::{self, Capture, Template};
use crate::location::Location;
use crate::selector::Selector;
use crate::tracepoint::Mode;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads a scenario.
///
/// # Errors
/// What is wrong with it: all that is found, by place, at most [`PROBLEMS_MAX`]; at least one. Where the text is no TOML, or
/// is written in a version that is not known, that alone is told.
pub fn parse(text: &str) -> Result<Scenario, Vec<ScenarioProblem>> {
    let only = |span, message: String| vec![ScenarioProblem { message, span }];
    if text.len() > SCENARIO_BYTES_MAX {
        let message = format!("{} bytes; a scenario has at most {SCENARIO_BYTES_MAX}", text.len());
        return Err(only(0..0, message));
    }
    let file = DeTable::parse(text)
        .map_err(|error| only(error.span().unwrap_or(0..0), error.message().trim_end().replace('\n', "; ")))?;
    let span = file.span();
    let mut reader = Reader::default();
    let mut file = Table::new("", Spanned::new(span, DeValue::Table(file.into_inner())), &mut reader.problems);
    if let Some(version) = file.number("version", &mut reader.problems)
        && *version.get_ref() != i64::from(VERSION)
    {
        let message = format!(
            "version {} of the format is not known: this riptrace reads version {VERSION}; use a newer one, or write the \
             file for it",
            version.get_ref()
        );
        return Err(only(version.span(), message));
    }
    let scenario = reader.scenario(file);
    reader.problems.sort_by_key(|problem| problem.span.start);
    reader.problems.truncate(PROBLEMS_MAX);
    if reader.problems.is_empty() { Ok(scenario) } else { Err(reader.problems) }
}

/// What expectations know of a tracepoint, whether the rest of it could be read or not.
#[derive(Debug)]
struct Named {
    name: String,
    mode: Mode,
}

/// What is known while a scenario is read.
#[derive(Debug, Default)]
struct Reader {
    named: Vec<Named>,
    problems: Vec<ScenarioProblem>,
}

impl Reader {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>) {
        super::table::wrong(&mut self.problems, span, message);
    }

    /// What was read, or the problem that it has.
    fn checked<T, E: ToString>(&mut self, text: &Text, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        read(text.get_ref()).map_err(|why| self.wrong(text.span(), why.to_string())).ok()
    }

    /// The text of a key that can be read so.
    fn readable<T, E: ToString>(
        &mut self,
        table: &mut Table<'_>,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<String> {
        let text = table.text(key, &mut self.problems)?;
        self.checked(&text, read)?;
        Some(text.into_inner())
    }

    fn expression(&mut self, table: &mut Table<'_>, key: &str) -> Option<String> {
        self.readable(table, key, expression::parse)
    }

    fn duration(&mut self, table: &mut Table<'_>, key: &str) -> Option<Duration> {
        let text = table.text(key, &mut self.problems)?;
        self.checked(&text, duration)
    }

    fn scenario(&mut self, mut file: Table<'_>) -> Scenario {
        let name = file.text("name", &mut self.problems).map(Spanned::into_inner);
        let within = self.duration(&mut file, "within").unwrap_or(WITHIN_DEFAULT);
        let settle = self.duration(&mut file, "settle").unwrap_or(SETTLE_DEFAULT);
        let tracepoints = self.tables(&mut file, "tracepoint", TRACEPOINTS_MAX);
        if tracepoints.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(0..0, "nothing is watched: add a [[tracepoint]] with `at`");
        }
        let expectations = self.tables(&mut file, "expect", EXPECTATIONS_MAX);
        if expectations.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(
                0..0,
                "nothing is expected: add an [[expect]] with `tracepoint`, `order`, `absent`, or `from` and `to`",
            );
        }
        let tracepoints: Vec<Option<Watched>> =
            tracepoints.into_iter().flatten().map(|table| self.tracepoint(table)).collect();
        let stimulus = file.table("stimulus", &mut self.problems).and_then(|table| self.stimulus(table));
        let expectations: Vec<Option<Expectation>> =
            expectations.into_iter().flatten().map(|table| self.expectation(table)).collect();
        Scenario {
            name,
            within,
            settle,
            tracepoints: tracepoints.into_iter().flatten().collect(),
            stimulus,
            expectations: expectations.into_iter().flatten().collect(),
        }
    }

    /// The tables of a key that may be given several times, at most `most`; `None` where it is something else.
    fn tables<'t>(&mut self, file: &mut Table<'t>, key: &'static str, most: usize) -> Option<Vec<Table<'t>>> {
        let mut tables = file.tables(key, most, &mut self.problems)?;
        if let (true, Some(last)) = (tables.len() > most, tables.last()) {
            self.wrong(last.span.clone(), format!("a scenario has at most {most} of [[{key}]]"));
            tables.truncate(most);
        }
        Some(tables)
    }

    fn tracepoint(&mut self, mut table: Table<'_>) -> Option<Watched> {
        let at = table.text("at", &mut self.problems);
        if at.is_none() && !table.had("at") {
            self.wrong(table.span.clone(), "where is it? add `at = \"FILE:LINE\"`, or a function");
        }
        let name = table.text("name", &mut self.problems);
        let has_no_name = name.is_none() && table.had("name");
        if let Some(name) = &name {
            let length = name.get_ref().chars().count();
            if !(1..=NAME_CHARACTERS_MAX).contains(&length) {
                self.wrong(
                    name.span(),
                    format!("a name of {length} characters: expectations call it so; 1 to {NAME_CHARACTERS_MAX}"),
                );
            }
        }
        let called = name.as_ref().or(at.as_ref());
        let name = called.map(|text| text.get_ref().clone()).unwrap_or_default();
        if let Some(called) = called
            && self.named.iter().any(|named| named.name == name)
        {
            let message = format!("another tracepoint is called {}, too: give each a `name` of its own", quoted(&name));
            self.wrong(called.span(), message);
        }
        let mode = self.mode(&mut table);
        // A tracepoint that cannot be read has its name all the same.
        if !has_no_name {
            self.named.push(Named { name: name.clone(), mode });
        }
        let location = at.and_then(|at| self.checked(&at, Location::parse));
        let selector = match table.text("where", &mut self.problems) {
            Some(text) => self.checked(&text, Selector::parse),
            None => Some(Selector::default()),
        };
        let condition = self.expression(&mut table, "when");
        let log_message = self.readable(&mut table, "log", Template::parse);
        let captures = table.texts("capture", &mut self.problems).map(Spanned::into_inner).unwrap_or_default();
        let captures: Vec<String> = captures
            .into_iter()
            .filter_map(|text| self.checked(&text, Capture::parse).map(|_| text.into_inner()))
            .collect();
        if mode == Mode::Count && (log_message.is_some() || !captures.is_empty()) {
            let message = "`log` and `capture` are of hits, of which mode = \"count\" makes none: leave out either";
            self.wrong(table.span.clone(), message);
        }
        let rate_per_s = self.rate(&mut table);
        let span = table.span;
        Some(Watched {
            name,
            location: location?,
            selector: selector?,
            condition,
            log_message,
            captures,
            mode,
            rate_per_s,
            span,
        })
    }

    fn mode(&mut self, table: &mut Table<'_>) -> Mode {
        let Some(text) = table.text("mode", &mut self.problems) else { return Mode::default() };
        let read = |text: &str| match text {
            "hit" => Ok(Mode::Hit),
            "count" => Ok(Mode::Count),
            _ => Err("a mode is \"hit\" (the default) or \"count\" (a number alone, at far less cost)"),
        };
        self.checked(&text, read).unwrap_or_default()
    }

    /// `None` where it is the fleet's default, `Some(None)` where there is no budget.
    fn rate(&mut self, table: &mut Table<'_>) -> Option<Option<u32>> {
        let value = table.take("rate")?;
        let rate = match value.get_ref() {
            DeValue::String(text) if text == "none" => return Some(None),
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let rate = rate.filter(|rate| *rate > 0);
        if rate.is_none() {
            self.wrong(value.span(), "a rate is a number from 1 of hits per second and process, or \"none\"");
        }
        rate.map(Some)
    }

    fn stimulus(&mut self, mut table: Table<'_>) -> Option<Stimulus> {
        let span = table.span.clone();
        let had = |table: &Table<'_>, keys: &[&str]| keys.iter().any(|key| table.had(key));
        if had(&table, &["run"]) == had(&table, &["http"]) {
            self.wrong(span, "a stimulus is either `run = [\"PROGRAM\", ..]` or `http = \"METHOD URL\"`");
            return None;
        }
        if had(&table, &["run"]) {
            if had(&table, &["headers", "body", "status"]) {
                self.wrong(span, "`headers`, `body` and `status` belong to `http`, not to `run`");
            }
            let run = table.texts("run", &mut self.problems)?;
            if run.get_ref().first().is_none_or(|program| program.get_ref().is_empty()) {
                self.wrong(run.span(), "`run` names no program: write [\"PROGRAM\", \"ARGUMENT\", ..]");
                return None;
            }
            return Some(Stimulus::Run(run.into_inner().into_iter().map(Spanned::into_inner).collect()));
        }
        let http = table.text("http", &mut self.problems)?;
        let headers = table.map("headers", &mut self.problems);
        let body = table.text("body", &mut self.problems).map(Spanned::into_inner).unwrap_or_default();
        let status = table.number("status", &mut self.problems);
        let status = status.and_then(|status| {
            let code = u16::try_from(*status.get_ref()).ok().filter(|code| (100..600).contains(code));
            if code.is_none() {
                self.wrong(status.span(), "a status is a number from 100 to 599");
            }
            code
        });
        let (method, url) = self.checked(&http, request)?;
        Some(Stimulus::Http { method, url, headers, body, status })
    }

    /// The tracepoint of a name; its passages may be counted alone only where that is `enough`.
    fn named(&mut self, text: &Text, enough: bool) -> Option<usize> {
        let Some(found) = self.named.iter().position(|named| named.name == *text.get_ref()) else {
            // As many as are told need no more of them to be looked for.
            if self.problems.len() < PROBLEMS_MAX {
                let names = || self.named.iter().map(|named| named.name.as_str());
                let known = match nearest(text.get_ref(), names()) {
                    Some(name) => format!("did you mean {}?", quoted(name)),
                    None if self.named.is_empty() => "there is none".to_owned(),
                    None => format!("there are {}", listed(names())),
                };
                let message = format!("no tracepoint is called {}: {known}", quoted(text.get_ref()));
                self.wrong(text.span(), message);
            }
            return None;
        };
        if self.named[found].mode == Mode::Count && !enough {
            let message = format!(
                "{} is only counted (mode = \"count\"): that has neither values nor times; leave out its mode",
                quoted(text.get_ref())
            );
            self.wrong(text.span(), message);
        }
        Some(found)
    }

    fn expectation(&mut self, mut table: Table<'_>) -> Option<Expectation> {
        let span = table.span.clone();
        let had = |keys: &[&str]| keys.iter().any(|key| table.had(key));
        let kinds = [
            had(&["tracepoint", "count", "each", "some"]),
            had(&["order"]),
            had(&["absent"]),
            had(&["from", "to", "at_most", "at_least"]),
        ];
        if kinds.into_iter().filter(|is_there| *is_there).count() != 1 {
            let message = "an expectation is one of: `tracepoint` (with `count`, `each`, `some`), `order`, `absent`, or `from` \
                           and `to` (with `at_most`, `at_least`)";
            self.wrong(span, message);
            return None;
        }
        let what = match kinds {
            [true, ..] => self.hits(&mut table),
            [_, true, ..] => self.order(&mut table),
            [_, _, true, _] => {
                let absent = table.text("absent", &mut self.problems)?;
                self.named(&absent, true).map(Expected::Absent)
            }
            _ => self.between(&mut table),
        };
        Some(Expectation { what: what?, span })
    }

    fn hits(&mut self, table: &mut Table<'_>) -> Option<Expected> {
        let (each, some) = (self.expression(table, "each"), self.expression(table, "some"));
        let is_counted = !table.had("each") && !table.had("some");
        let count = match table.take("count") {
            Some(value) => count(value.get_ref()).map_err(|why| self.wrong(value.span(), why)).ok(),
            None => Some(1..=COUNT_MAX),
        };
        if !table.had("tracepoint") {
            self.wrong(
                table.span.clone(),
                "`count`, `each` and `some` are of a tracepoint: add `tracepoint = \"NAME\"`",
            );
        }
        let of = table.text("tracepoint", &mut self.problems)?;
        let of = self.named(&of, is_counted);
        Some(Expected::Hits { of: of?, count: count?, each, some })
    }

    fn order(&mut self, table: &mut Table<'_>) -> Option<Expected> {
        let order = table.texts("order", &mut self.problems)?;
        let span = order.span();
        let names = order.into_inner();
        let places: Vec<Option<usize>> = names.iter().map(|name| self.named(name, false)).collect();
        if places.len() < 2 {
            self.wrong(span, "an order is of two tracepoints at least");
        }
        for (at, place) in places.iter().enumerate() {
            if place.is_some() && places[..at].contains(place) {
                self.wrong(names[at].span(), "it is in this order already: its first hit comes once");
            }
        }
        Some(Expected::Order(places.into_iter().collect::<Option<_>>()?))
    }

    fn between(&mut self, table: &mut Table<'_>) -> Option<Expected> {
        let span = table.span.clone();
        if !table.had("from") || !table.had("to") {
            self.wrong(span.clone(), "a time is between two tracepoints: write `from` and `to`");
        }
        if !table.had("at_most") && !table.had("at_least") {
            self.wrong(span.clone(), "how long may it take? write `at_most` or `at_least`");
        }
        let at_least = self.duration(table, "at_least").unwrap_or(Duration::ZERO);
        let at_most = self.duration(table, "at_most").unwrap_or(DURATION_MAX);
        if at_least > at_most {
            self.wrong(span.clone(), "`at_least` is longer than `at_most`: no time is both");
        }
        let (from, to) = (table.text("from", &mut self.problems), table.text("to", &mut self.problems));
        let from = from.and_then(|name| self.named(&name, false));
        let to = to.and_then(|name| self.named(&name, false));
        if from.is_some() && from == to {
            self.wrong(
                span,
                "`from` and `to` are the same tracepoint: there is no time between its first hit and itself",
            );
        }
        Some(Expected::Between { from: from?, to: to?, at_least, at_most })
    }
}

/// A name as it stands in a message: not longer than a line.
fn quoted(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}..", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// `250ms`, `1.5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration up to 24h: write such as 250ms, 1.5s, 2m or 1h", quoted(text));
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
    if !is_method || !is_url || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a request is written \"METHOD URL\", such as \"POST http://127.0.0.1:8080/orders\"");
    }
    Ok((method.to_owned(), url.to_owned()))
}

/// `3`, `"3"`, `"1..3"`, `"2.."`, `"..5"`.
fn count(value: &DeValue<'_>) -> Result<RangeInclusive<u64>, &'static str> {
    const WRONG: &str = "a count is a number from 1 (`absent` means none), or a range: \"1..3\", \"2..\", \"..5\"";
    let number = |text: &str, absent: u64| match text.trim() {
        "" => Ok(absent),
        text => text.parse().map_err(|_| WRONG),
    };
    let range = match value {
        DeValue::Integer(number) => {
            u64::from_str_radix(number.as_str(), number.radix()).map(|number| number..=number).map_err(|_| WRONG)?
        }
        DeValue::String(text) => match text.split_once("..") {
            Some((from, to)) if !(from.trim().is_empty() && to.trim().is_empty()) => {
                number(from, 0)?..=number(to, COUNT_MAX)?
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

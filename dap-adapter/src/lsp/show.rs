//! The texts of lenses and hints: plain data in, plain text out.

use super::state::{Shown, State, counts_by_host, relevant};
use crate::render::text::{origin, value_text};
use riptrace_protocol::decode::Decoder;
use riptrace_protocol::fleet::ProbeState;
use riptrace_protocol::ids::HostName;
use riptrace_protocol::layout::{Layout, Scope};
use riptrace_protocol::stream::OrderedHit;
use std::path::Path;

/// Hosts that a lens names before it counts the rest.
const HOSTS_NAMED_MAX: usize = 6;
/// Characters of a hint: the code in front of it should stay readable.
const HINT_CHARS_MAX: usize = 100;
/// Characters of one value in a hint.
const VALUE_CHARS_MAX: usize = 32;

/// What stands above a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lens {
    /// Line, from 1.
    pub(super) line: u32,
    pub(super) title: String,
}

/// What stands behind a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hint {
    /// Line, from 1.
    pub(super) line: u32,
    pub(super) text: String,
    /// What stands above the line, and the last values of every host, a line each.
    pub(super) tooltip: String,
}

/// The lenses of a document: hit counts per host, drops, the rate of both, and how many processes have it.
pub(super) fn lenses(state: &State, path: &Path) -> Vec<Lens> {
    let lines = state.lines(path).into_iter();
    lines.flat_map(|(line, shown)| shown.into_iter().map(move |shown| Lens { line, title: title(&shown) })).collect()
}

pub(super) fn title(shown: &Shown<'_>) -> String {
    let mut title = counts(shown);
    if let Some(rate) = shown.rate {
        title.push_str(&format!(" · {rate}"));
    }
    let probes = relevant(shown.status);
    let armed = probes.iter().filter(|probe| probe.state == ProbeState::Armed).count();
    if let Some(ended) = &shown.status.ended {
        title.push_str(&format!(" · ended: {ended}"));
    } else if armed < probes.len() {
        title.push_str(&format!(" · armed in {armed} of {}", plural(probes.len() as u64, "process", "es")));
    } else if armed > 0 {
        title.push_str(&format!(" · armed in {}", plural(armed as u64, "process", "es")));
    }
    if shown.note.is_some() {
        title.push_str(" · line not certain");
    }
    title
}

/// `web-1: 120 hits, web-2: 3 hits (10 dropped)`.
fn counts(shown: &Shown<'_>) -> String {
    let hosts = counts_by_host(shown.status, shown.hosts);
    let hit: Vec<(&HostName, (u64, u64))> = hosts.into_iter().filter(|(_, counts)| *counts != (0, 0)).collect();
    if hit.is_empty() {
        return "no hits yet".to_owned();
    }
    let text = |(host, (hits, dropped)): &(&HostName, (u64, u64))| {
        let dropped = if *dropped == 0 { String::new() } else { format!(" ({dropped} dropped)") };
        format!("{host}: {}{dropped}", plural(*hits, "hit", "s"))
    };
    let mut text: Vec<String> = hit.iter().take(HOSTS_NAMED_MAX).map(text).collect();
    if hit.len() > HOSTS_NAMED_MAX {
        let rest = &hit[HOSTS_NAMED_MAX..];
        let hits = rest.iter().map(|(_, (hits, _))| hits).sum();
        text.push(format!("{} more: {}", plural(rest.len() as u64, "host", "s"), plural(hits, "hit", "s")));
    }
    text.join(", ")
}

fn plural(count: u64, word: &str, ending: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}{ending}") }
}

/// The hints of the lines from `first` to `last` of a document, in order: the values of the newest hit, or what can be read
/// where that was asked for.
pub(super) fn hints(state: &State, path: &Path, first: u32, last: u32) -> Vec<Hint> {
    let mut hints = Vec::new();
    for (line, shown) in state.lines(path).range(first..=last.max(first)) {
        let mut newest: Vec<&OrderedHit> =
            shown.iter().flat_map(|shown| shown.hosts.values()).filter_map(|seen| seen.last.as_deref()).collect();
        newest.sort_by_key(|hit| std::cmp::Reverse((hit.time_ns, hit.seq)));
        let mut hits = newest.iter().map(|hit| (hit, state.layout_of(hit).map(|layout| values(hit, layout))));
        let Some((hit, Some(values))) =
            hits.next().filter(|(_, values)| values.as_ref().is_some_and(|v| !v.is_empty()))
        else {
            continue;
        };
        let short = short(&values);
        let text = if newest.len() > 1 { format!("{short}  {}", hit.host) } else { short };
        let told = |(hit, values): (&&OrderedHit, Option<Vec<(String, String)>>)| {
            let mut text = origin(hit);
            match values {
                Some(values) => {
                    text.push(':');
                    values.iter().for_each(|(name, value)| text.extend([" ", name, "=", value]));
                }
                None => text.push_str(": its layout has not arrived"),
            }
            text
        };
        let mut tooltip: Vec<String> = shown.iter().map(title).collect();
        tooltip.push(told((hit, Some(values))));
        tooltip.extend(hits.map(told));
        tooltip.extend(shown.iter().filter_map(|shown| shown.note.clone()));
        hints.push(Hint { line: *line, text, tooltip: tooltip.join("\n") });
    }
    let asked = state.traceable(path).into_iter().flatten();
    let silent: Vec<Hint> = asked
        .filter(|(line, _)| (first..=last).contains(line) && !hints.iter().any(|hint| hint.line == **line))
        .map(|(line, sees)| Hint {
            line: *line,
            text: format!("○ {}", cut(sees, HINT_CHARS_MAX)),
            tooltip: sees.clone(),
        })
        .collect();
    if !silent.is_empty() {
        hints.extend(silent);
        hints.sort_by_key(|hint| hint.line);
    }
    hints
}

/// Names and values: asked-for captures first, then arguments and locals.
fn values(hit: &OrderedHit, layout: &Layout) -> Vec<(String, String)> {
    let decoder = Decoder::new(layout, &hit.raw);
    let scopes = [Scope::Capture, Scope::Argument, Scope::Local, Scope::Result];
    let there = scopes.into_iter().filter(|scope| decoder.has(*scope));
    let values = there.flat_map(|scope| decoder.variables(Some(scope)));
    values.map(|value| (value_text(&value), value.name)).map(|(text, name)| (name, text)).collect()
}

/// `qty=3 sku="tea"`: as many as fit a hint.
fn short(values: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut chars = 0;
    for (name, value) in values {
        let part = format!("{name}={}", cut(value, VALUE_CHARS_MAX));
        let more = part.chars().count() + 1;
        if chars > 0 && chars + more > HINT_CHARS_MAX {
            text.push_str(" …");
            break;
        }
        if chars > 0 {
            text.push(' ');
        }
        text.push_str(&part);
        chars += more;
    }
    text
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

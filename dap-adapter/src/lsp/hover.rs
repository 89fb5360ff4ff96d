//! What a hover says: the values of a line's recent hits, or, on a line that nobody traces, what a tracepoint there would
//! see. Plain data in, Markdown out.

use super::show;
use super::state::{Shown, State};
use crate::render::text::{origin, value_text};
use riptrace_protocol::agent_api::LineFacts;
use riptrace_protocol::decode::Decoder;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::Scalar;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Distinct values of a variable that are named before the rest is counted.
const VALUES_NAMED_MAX: usize = 5;
/// Variables that are told of, unless the cursor is on one.
const VARIABLES_MAX: usize = 12;
/// Of one host's in a table of several: a column is narrow.
const VALUES_NAMED_BY_HOST_MAX: usize = 3;
/// Hosts that have a column of their own: what is beside them is counted together.
const HOSTS_MAX: usize = 4;
/// Hits that are shown one by one.
const HITS_SHOWN: usize = 5;
/// Characters of a value in a table.
const VALUE_CHARS_MAX: usize = 60;

/// The recent values at a line of a document; `None` where there is no tracepoint. With a `name` that is a variable there,
/// only that one is told of.
pub(super) fn values(state: &State, path: &Path, line: u32, name: Option<&str>) -> Option<String> {
    let lines = state.lines(path);
    let shown = lines.get(&line)?;
    let mut text = String::new();
    for shown in shown {
        if !text.is_empty() {
            text.push_str("\n---\n");
        }
        let _ = writeln!(text, "**RipTrace** {}\n", escaped(&show::title(shown)));
        recent(state, shown, name, &mut text);
    }
    Some(text)
}

/// The values of one tracepoint's recent hits.
fn recent(state: &State, shown: &Shown<'_>, name: Option<&str>, text: &mut String) {
    let hits: Vec<(&Arc<OrderedHit>, Vec<Seen>)> = (shown.recent.iter())
        .filter_map(|hit| {
            let layout = state.layout_of(hit)?;
            let values = Decoder::new(layout, &hit.raw).variables(None);
            let seen = values.iter().map(|value| Seen {
                name: value.name.clone(),
                text: value_text(value),
                number: match value.scalar {
                    Some(Scalar::Int(number)) if value.status.is_shown() => Some(number),
                    _ => None,
                },
            });
            Some((hit, seen.collect()))
        })
        .collect();
    if hits.is_empty() {
        return;
    }
    let mut names: Vec<&str> = Vec::new();
    for seen in hits.iter().flat_map(|(_, values)| values) {
        if !names.contains(&seen.name.as_str()) {
            names.push(&seen.name);
        }
    }
    let asked = name.filter(|name| names.contains(name));
    let told: Vec<&str> = match asked {
        Some(name) => vec![name],
        None => names.iter().copied().take(VARIABLES_MAX).collect(),
    };
    if !told.is_empty() {
        let columns = by_host(&hits.iter().map(|(hit, _)| hit.host.as_str()).collect::<Vec<_>>());
        let titles: String = columns.iter().map(|(title, _)| format!(" | {}", escaped(title))).collect();
        let _ = writeln!(text, "| last {} | values{titles} |", plural(hits.len(), "hit"));
        let _ = writeln!(text, "| --- | ---{} |", " | ---".repeat(columns.len()));
        for name in &told {
            let of = |values: &Vec<Seen>| values.iter().find(|seen| seen.name == *name).cloned();
            let seen: Vec<Option<Seen>> = hits.iter().map(|(_, values)| of(values)).collect();
            let all: Vec<Seen> = seen.iter().flatten().cloned().collect();
            let _ = write!(text, "| `{name}` | {}", distribution(&all, VALUES_NAMED_MAX));
            for (_, places) in &columns {
                let theirs: Vec<Seen> = places.iter().filter_map(|at| seen[*at].clone()).collect();
                let _ = write!(text, " | {}", distribution(&theirs, VALUES_NAMED_BY_HOST_MAX));
            }
            let _ = writeln!(text, " |");
        }
        if asked.is_none() && names.len() > told.len() {
            let more = plural(names.len() - told.len(), "variable");
            let _ = writeln!(text, "| … | {more} more{} |", " |".repeat(columns.len()));
        }
    }
    let _ = writeln!(text);
    for (hit, values) in hits.iter().take(HITS_SHOWN) {
        let values = values.iter().filter(|seen| told.contains(&seen.name.as_str()));
        let values: Vec<String> = values.map(|seen| format!("{}={}", seen.name, seen.text)).collect();
        let _ = writeln!(text, "- {}: {}", escaped(&origin(hit)), code(&values.join(" ")));
    }
}

/// The hosts that hits are of, those with the most first: what stands above their column, and which of the hits are theirs.
/// None where there is one host only: its column would say the same again.
fn by_host(hosts: &[&str]) -> Vec<(String, Vec<usize>)> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    hosts.iter().enumerate().for_each(|(at, host)| places.entry(host).or_default().push(at));
    if places.len() < 2 {
        return Vec::new();
    }
    let mut columns: Vec<(&str, Vec<usize>)> = places.into_iter().collect();
    columns.sort_by(|left, right| right.1.len().cmp(&left.1.len()).then(left.0.cmp(right.0)));
    let own = if columns.len() > HOSTS_MAX { HOSTS_MAX - 1 } else { HOSTS_MAX };
    let others = columns.split_off(own.min(columns.len()));
    let mut columns: Vec<(String, Vec<usize>)> =
        columns.into_iter().map(|(host, places)| (host.to_owned(), places)).collect();
    if !others.is_empty() {
        columns.push((
            format!("{} other hosts", others.len()),
            others.into_iter().flat_map(|(_, places)| places).collect(),
        ));
    }
    columns
}

/// One variable in one hit.
#[derive(Debug, Clone)]
struct Seen {
    name: String,
    text: String,
    number: Option<i128>,
}

/// How often which value was there: all of them where there are no more than `named`, else the most frequent and, of
/// integers, the range.
fn distribution(seen: &[Seen], named: usize) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    seen.iter().for_each(|seen| *counts.entry(&seen.text).or_default() += 1);
    let distinct = counts.len();
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    // The newest first among equals is what is looked for; the text decides the rest, so that nothing jumps about.
    counts.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
    let mut text: Vec<String> =
        counts.iter().take(named).map(|(value, count)| format!("{} ×{count}", code(value))).collect();
    if distinct > named {
        text.push(format!("{} more", distinct - named));
        let numbers: Option<Vec<i128>> = seen.iter().map(|seen| seen.number).collect();
        if let Some(mut numbers) = numbers {
            numbers.sort_unstable();
            if let (Some(least), Some(most)) = (numbers.first(), numbers.last()) {
                text.push(format!("{least} to {most}, median {}", numbers[numbers.len() / 2]));
            }
        }
    }
    text.join(", ")
}

/// What a tracepoint on a line would see, by the builds that run.
pub(super) fn prospect(builds: &[(String, Result<Option<LineFacts>, String>)]) -> Option<String> {
    let mut text = String::new();
    for (who, facts) in builds {
        match facts {
            Ok(Some(LineFacts { refused: Some(why), .. })) => {
                let _ = writeln!(text, "- {}: cannot be traced: {}", escaped(who), escaped(why));
            }
            Ok(Some(facts)) => {
                let (there, missing): (Vec<_>, Vec<_>) =
                    facts.variables.iter().partition(|variable| variable.missing.is_none());
                let there: Vec<String> = there
                    .iter()
                    .map(|variable| format!("`{}` {}", variable.name, escaped(&variable.type_name)))
                    .collect();
                let there = if there.is_empty() { "no variables".to_owned() } else { there.join(", ") };
                let _ = writeln!(text, "- {}: a tracepoint sees {there}", escaped(who));
                for variable in missing {
                    let why = variable.missing.as_deref().unwrap_or_default();
                    let _ = writeln!(text, "  - not `{}`: {}", variable.name, escaped(why));
                }
            }
            Ok(None) => {
                let _ = writeln!(text, "- {}: no code on this line", escaped(who));
            }
            Err(why) => {
                let _ = writeln!(text, "- {}: {}", escaped(who), escaped(why));
            }
        }
    }
    // Nothing is said of lines that no build has: comments, declarations, files of other programs.
    let any = builds.iter().any(|(_, facts)| matches!(facts, Ok(Some(_))));
    any.then(|| format!("**RipTrace**\n\n{text}"))
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// A value as code, on one line, short enough for a table; backticks and bars of its own do no harm.
fn code(value: &str) -> String {
    let mut short: String = value.chars().take(VALUE_CHARS_MAX).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    let short = short.replace(['\n', '\r'], " ").replace('|', "\\|");
    if short.is_empty() {
        return "``` ```".to_owned();
    }
    // A fence longer than any inside it.
    let longest = short.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{short}{pad}{fence}")
}

/// Text that Markdown shows as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => {
                out.push('\\');
                out.push(character);
            }
            '\n' | '\r' => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::agent_api::VariableFacts;
    use riptrace_protocol::layout::Scope;

    fn seen(values: &[(&str, Option<i128>)]) -> Vec<Seen> {
        let one =
            |(text, number): &(&str, Option<i128>)| Seen { name: "n".into(), text: (*text).into(), number: *number };
        values.iter().map(one).collect()
    }

    #[test]
    fn few_values_are_all_named_and_many_are_summed_up() {
        assert_eq!(
            distribution(&seen(&[("3", Some(3)), ("4", Some(4)), ("3", Some(3))]), VALUES_NAMED_MAX),
            "`3` ×2, `4` ×1"
        );
        let many: Vec<(String, Option<i128>)> = (0..9).map(|n| (n.to_string(), Some(n))).collect();
        let many: Vec<(&str, Option<i128>)> = many.iter().map(|(text, number)| (text.as_str(), *number)).collect();
        let text = distribution(&seen(&many), VALUES_NAMED_MAX);
        assert_eq!(text, "`0` ×1, `1` ×1, `2` ×1, `3` ×1, `4` ×1, 4 more, 0 to 8, median 4");
        let mut mixed = many;
        mixed.push(("<optimised out>", None));
        assert!(
            !distribution(&seen(&mixed), VALUES_NAMED_MAX).contains("median"),
            "no number is made up for what has none"
        );
    }

    #[test]
    fn hosts_are_told_apart_where_there_are_several() {
        assert_eq!(by_host(&["a", "a"]), []);
        assert_eq!(by_host(&["b", "a", "a"]), [("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![0])]);
        let columns = by_host(&["e", "d", "c", "b", "a", "a"]);
        let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["a", "b", "c", "2 other hosts"]);
        assert_eq!(columns[3].1, [1, 0]);
        assert_eq!(by_host(&["d", "c", "b", "a"]).len(), HOSTS_MAX);
    }

    #[test]
    fn values_cannot_break_out_of_their_place() {
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(code("a|b\nc"), "`a\\|b c`");
        assert_eq!(escaped("<b> [x](y)"), "\\<b\\> \\[x\\](y)");
        assert!(code(&"x".repeat(100)).ends_with("…`"));
    }

    #[test]
    fn what_a_line_would_tell_is_told_with_what_it_would_not() {
        let variable = |name: &str, missing: Option<&str>| VariableFacts {
            name: name.into(),
            type_name: "int".into(),
            scope: Scope::Local,
            missing: missing.map(str::to_owned),
        };
        let facts = LineFacts {
            line: 3,
            function: "main.f".into(),
            refused: None,
            variables: vec![variable("a", None), variable("b", Some("optimised out"))],
        };
        let text = prospect(&[("cart".into(), Ok(Some(facts))), ("stock".into(), Ok(None))]).unwrap();
        let expected = "**RipTrace**\n\n- cart: a tracepoint sees `a` int\n  - not `b`: optimised out\n- stock: no code on this line\n";
        assert_eq!(text, expected);
        assert_eq!(prospect(&[("stock".into(), Ok(None))]), None);
    }
}

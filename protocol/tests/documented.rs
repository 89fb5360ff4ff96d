//! `PROTOCOL.md` names what exists: every subject, every message with its example, every limit.
//!
//! Examples and limits stand between markers in the document; `UPDATE=1 cargo test -p riptrace-protocol` rewrites what
//! is between them.

mod samples;

use std::path::PathBuf;

const SUBJECTS: &str = include_str!("../src/subject.rs");
const LIMITS: &str = include_str!("../src/limits.rs");

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md")
}

/// What stands between `<!-- name -->` and the `<!-- end -->` after it.
fn section<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<!-- {name} -->\n"))?;
    Some(rest.split_once("<!-- end -->")?.0)
}

/// The generated sections: marker and what belongs there.
fn generated() -> Vec<(String, String)> {
    let example = |json: &samples::Json| {
        let text = if json.now.len() <= 110 { json.now.clone() } else { spread(&json.now) };
        (format!("example: {}", json.name), format!("```json\n{text}\n```\n"))
    };
    let mut sections: Vec<_> = samples::json_messages().iter().map(example).collect();
    sections.push(("limits".to_owned(), limits_table()));
    sections
}

/// JSON over several lines, in the order of the wire. Objects of scalars stay on one line where they are short.
fn spread(compact: &str) -> String {
    let (mut out, mut depth, mut in_text, mut escaped, mut flat_until) = (String::new(), 0usize, false, false, 0);
    for (at, c) in compact.char_indices() {
        let newline = |depth: usize| format!("\n{}", "  ".repeat(depth));
        match c {
            _ if in_text => {
                out.push(c);
                in_text = escaped || c != '"';
                escaped = c == '\\' && !escaped;
                continue;
            }
            '{' | '[' if at >= flat_until => {
                out.push(c);
                let close =
                    compact[at + 1..].find(['{', '[', '}', ']']).map_or(compact.len(), |length| at + 1 + length);
                if compact[close..].starts_with(['}', ']']) && close - at <= 90 {
                    flat_until = close + 1;
                } else {
                    depth += 1;
                    out.push_str(&newline(depth));
                }
            }
            '}' | ']' if at >= flat_until => {
                depth -= 1;
                out.push_str(&newline(depth));
                out.push(c);
            }
            ',' if at >= flat_until => {
                out.push(c);
                out.push_str(&newline(depth));
            }
            ',' | ':' => {
                out.push(c);
                out.push(' ');
            }
            _ => out.push(c),
        }
        in_text = c == '"';
    }
    out
}

fn limits_table() -> String {
    let mut table = String::from("| limit | value | meaning |\n| --- | --- | --- |\n");
    let mut doc = Vec::new();
    for line in LIMITS.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some(constant) = line.strip_prefix("pub const ") {
            let (name, rest) = constant.split_once(':').unwrap();
            let (_, value) = rest.split_once("= ").unwrap();
            let value = value.trim_end_matches(';').replace('_', " ");
            table.push_str(&format!("| `{name}` | {value} | {} |\n", doc.join(" ")));
            doc.clear();
        }
    }
    table
}

#[test]
fn examples_and_limits_are_those_of_the_code() {
    let mut document = std::fs::read_to_string(path()).unwrap();
    for (name, now) in generated() {
        let there = section(&document, &name).unwrap_or_else(|| panic!("PROTOCOL.md has no place for {name}"));
        if there != now && std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            let marker = format!("<!-- {name} -->\n");
            document = document.replacen(&format!("{marker}{there}"), &format!("{marker}{now}"), 1);
            std::fs::write(path(), &document).unwrap();
        } else {
            assert_eq!(there, now, "PROTOCOL.md, {name}: UPDATE=1 rewrites it");
        }
    }
}

#[test]
fn every_subject_is_documented() {
    let document = std::fs::read_to_string(path()).unwrap();
    let code = SUBJECTS.lines().filter(|line| !line.trim_start().starts_with("//"));
    let subjects: Vec<String> = code
        .filter_map(|line| line.split('"').nth(1))
        .map(|text| text.replace("{host}", "<host>").replace("{session}", "<id>"))
        .collect();
    let declared =
        SUBJECTS.lines().filter(|line| line.starts_with("pub fn ") || line.starts_with("pub const ")).count();
    assert_eq!(subjects.len(), declared, "each subject is one literal: {subjects:?}");
    for subject in subjects {
        assert!(document.contains(&format!("`{subject}`")), "PROTOCOL.md does not name {subject}");
    }
}

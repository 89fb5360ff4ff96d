//! `riptrace.toml` in the editor: what is wrong with it, which keys it may have, and what they mean.
//!
//! What it may hold is not known here: the environment says it, which is what reads the file in earnest.

use super::text::{Encoding, Text};
use crate::environment::{Environment, SettingsKey};
use tower_lsp::lsp_types::{
    CompletionItem, CompletionItemKind, Diagnostic, DiagnosticSeverity, Documentation, MarkupContent, MarkupKind,
    Position, Range, Url,
};

const NAME: &str = "riptrace.toml";

/// Whether a document is a settings file.
pub(super) fn is_settings(uri: &Url) -> bool {
    uri.path_segments().and_then(|mut segments| segments.next_back()).is_some_and(|name| name == NAME)
}

/// What is wrong with a text.
pub(super) fn diagnostics(environment: &dyn Environment, text: &Text, encoding: Encoding) -> Vec<Diagnostic> {
    let Err(problem) = environment.check_settings(text.as_str()) else { return Vec::new() };
    let range = Range::new(text.position(problem.span.start, encoding), text.position(problem.span.end, encoding));
    vec![Diagnostic {
        range,
        severity: Some(DiagnosticSeverity::ERROR),
        source: Some("riptrace".to_owned()),
        message: problem.message,
        ..Diagnostic::default()
    }]
}

/// The table that a line belongs to: the last header above it.
fn table_at(text: &Text, line: u32) -> &str {
    let headers = (1..=line).rev().map(|line| text.line(line).trim());
    let header = headers.filter_map(|line| line.strip_prefix('[')).next();
    let name = header.and_then(|header| header.trim_start_matches('[').split(']').next());
    name.map_or("", str::trim)
}

/// The keys that may stand at a position: those of its table that it does not have yet.
pub(super) fn completions(keys: &[SettingsKey], text: &Text, at: Position) -> Vec<CompletionItem> {
    let line = at.line.saturating_add(1);
    // Behind the equals sign stands a value, of which nothing is known here.
    if text.line(line).contains('=') {
        return Vec::new();
    }
    let table = table_at(text, line);
    // The lines of the table that the position is in: from the header above it to the next.
    let is_header = |line: &u32| text.line(*line).trim_start().starts_with('[');
    let first = (1..=line).rev().find(is_header).unwrap_or(1);
    let last = (line + 1..=text.lines()).find(is_header).unwrap_or(text.lines() + 1);
    let is_set = |key: &SettingsKey| {
        let sets = |line: u32| text.line(line).split('=').next().is_some_and(|name| name.trim() == key.name);
        // A table that may be given once.
        let header = format!("[{}]", key.name);
        let is_once = key.example.starts_with(&header);
        (first..last).any(sets) || is_once && (1..=text.lines()).any(|line| text.line(line).trim() == header)
    };
    let fitting = keys.iter().filter(|key| (key.table == table || key.example.starts_with('[')) && !is_set(key));
    let item = |key: &SettingsKey| CompletionItem {
        label: key.name.to_owned(),
        kind: Some(CompletionItemKind::PROPERTY),
        documentation: Some(Documentation::MarkupContent(MarkupContent {
            kind: MarkupKind::Markdown,
            value: documentation(key),
        })),
        insert_text: Some(key.example.to_owned()),
        ..CompletionItem::default()
    };
    fitting.map(item).collect()
}

/// What the key at a position means.
pub(super) fn meaning(keys: &[SettingsKey], text: &Text, at: Position, encoding: Encoding) -> Option<String> {
    let (name, _) = text.name_at(at, encoding)?;
    let table = table_at(text, at.line.saturating_add(1));
    let named = || keys.iter().filter(|key| key.name == name);
    let key = named().find(|key| key.table == table).or_else(|| named().next())?;
    Some(documentation(key))
}

fn documentation(key: &SettingsKey) -> String {
    format!("{}\n\n```toml\n{}\n```", key.meaning, key.example)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [SettingsKey; 3] = [
        SettingsKey { name: "rate", table: "", meaning: "Hits per second.", example: "rate = 500" },
        SettingsKey { name: "paths", table: "", meaning: "Paths.", example: "[[paths]]\nfrom = \".\"" },
        SettingsKey { name: "from", table: "paths", meaning: "Here.", example: "from = \".\"" },
    ];

    fn labels(text: &str, line: u32) -> Vec<String> {
        let text = Text::from(text.to_owned());
        completions(&KEYS, &text, Position::new(line, 0)).into_iter().map(|item| item.label).collect()
    }

    #[test]
    fn keys_of_the_table_that_are_missing_are_offered() {
        assert_eq!(labels("\n", 0), ["rate", "paths"]);
        assert_eq!(labels("rate = 1\n\n", 1), ["paths"]);
        assert_eq!(labels("rate = 1\n[[paths]]\n\n", 2), ["paths", "from"]);
        assert_eq!(labels("rate = \n", 0), [""; 0]);
        assert_eq!(labels("\n[[paths]]\nrate = 1\n", 0), ["rate", "paths"], "another table's is another");
        assert_eq!(labels("[[paths]]\n\nfrom = 1\n[[paths]]\n", 1), ["paths"]);
    }

    #[test]
    fn a_key_is_explained() {
        let text = Text::from("rate = 1\n[[paths]]\nfrom = 2\n".to_owned());
        let at = |line, column| meaning(&KEYS, &text, Position::new(line, column), Encoding::Utf16);
        assert_eq!(at(0, 2).unwrap(), "Hits per second.\n\n```toml\nrate = 500\n```");
        assert!(at(1, 3).unwrap().starts_with("Paths."));
        assert!(at(2, 0).unwrap().starts_with("Here."));
        assert_eq!(at(0, 7), None);
    }

    #[test]
    fn settings_files_are_known_by_their_name() {
        assert!(is_settings(&Url::parse("file:///shop/riptrace.toml").unwrap()));
        assert!(!is_settings(&Url::parse("file:///shop/other.toml").unwrap()));
        assert!(!is_settings(&Url::parse("untitled:x").unwrap()));
    }
}

//! Scenario files in the editor: what is wrong with them, what they hold, which keys and names they may have.
//!
//! What a scenario is, `riptrace_protocol::scenario` says, which also reads it. A file that is being written is mostly
//! wrong; symbols and names are therefore found line by line, so that they are there all the same.

use super::settings;
use super::text::{Encoding, Text};
use crate::environment::SettingsKey;
use riptrace_protocol::scenario::{self, SCENARIO_BYTES_MAX};
use std::ops::Range as Lines;
use std::path::{Path, PathBuf};
use tower_lsp::lsp_types::{
    CompletionItem, CompletionItemKind, Diagnostic, DiagnosticSeverity, DocumentSymbol, Location, Position, Range,
    SymbolInformation, SymbolKind, Url,
};

/// A scenario file is called so, or ends so.
const NAME: &str = "scenario.toml";
/// Folders below the workspace's that are searched, at most: a person waits for the answer.
const FOLDERS_MAX: usize = 10_000;
/// How deep they are searched.
const DEPTH_MAX: usize = 12;
/// Scenario files that are read for one search, at most.
const FILES_MAX: usize = 500;
/// Symbols in one answer, at most: editors ask again when more is typed.
const SYMBOLS_MAX: usize = 500;
/// Folders that hold what others have made, and much of it.
const SKIPPED: [&str; 3] = ["node_modules", "target", "vendor"];

/// The keys, as the settings' are shown.
pub(super) const KEYS: [SettingsKey; scenario::KEYS.len()] = {
    let empty = SettingsKey { name: "", table: "", meaning: "", example: "" };
    let mut keys = [empty; scenario::KEYS.len()];
    let mut at = 0;
    while at < keys.len() {
        let scenario::Key { name, table, meaning, example } = scenario::KEYS[at];
        keys[at] = SettingsKey { name, table, meaning, example };
        at += 1;
    }
    keys
};

fn is_named_so(name: &str) -> bool {
    name.strip_suffix(NAME).is_some_and(|stem| stem.is_empty() || stem.ends_with('.'))
}

/// Whether a document is a scenario: `scenario.toml`, or `NAME.scenario.toml`.
pub(super) fn is_scenario(uri: &Url) -> bool {
    uri.path_segments().and_then(|mut segments| segments.next_back()).is_some_and(is_named_so)
}

/// What is wrong with a text.
pub(super) fn diagnostics(text: &Text, encoding: Encoding) -> Vec<Diagnostic> {
    let problems = scenario::parse(text.as_str()).err().unwrap_or_default();
    let diagnostic = |problem: scenario::ScenarioProblem| Diagnostic {
        range: Range::new(text.position(problem.span.start, encoding), text.position(problem.span.end, encoding)),
        severity: Some(DiagnosticSeverity::ERROR),
        source: Some("riptrace".to_owned()),
        message: problem.message,
        ..Diagnostic::default()
    };
    problems.into_iter().map(diagnostic).collect()
}

/// A table of a scenario as it is written: its name, its lines (from 1, the header's first), and what its keys are set to.
#[derive(Debug)]
struct Table<'t> {
    name: &'t str,
    lines: Lines<u32>,
    keys: Vec<(&'t str, &'t str)>,
}

impl<'t> Table<'t> {
    /// What a key is set to, without quotes.
    fn value(&self, key: &str) -> Option<&'t str> {
        let (_, value) = self.keys.iter().find(|(name, _)| *name == key)?;
        Some(value.trim_matches('"')).filter(|value| !value.is_empty())
    }

    /// What it is called among the symbols.
    fn title(&self) -> String {
        let of = |key: &str| self.value(key);
        let pair = |what: &str, value: Option<&str>| value.map(|value| format!("{what}{value}"));
        let title = match self.name {
            "tracepoint" => pair("", of("name").or(of("at"))),
            "stimulus" => pair("stimulus: ", of("http").or(of("run"))),
            _ => pair("expect ", of("tracepoint"))
                .or(pair("expect order ", of("order")))
                .or(pair("expect no ", of("absent")))
                .or(of("from").map(|from| format!("expect time from {from} to {}", of("to").unwrap_or("?")))),
        };
        title.unwrap_or_else(|| self.name.to_owned())
    }
}

/// A line without what stands behind a `#` that is in no text.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.char_indices().find(|(_, character)| {
        quoted ^= *character == '"';
        *character == '#' && !quoted
    });
    line[..end.map_or(line.len(), |(at, _)| at)].trim()
}

/// The tables of a text.
fn tables(text: &Text) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    for line in 1..=text.lines() {
        let content = without_comment(text.line(line));
        if let Some(header) = content.strip_prefix('[') {
            let name = header.trim_start_matches('[').split(']').next().map_or("", str::trim);
            if ["tracepoint", "stimulus", "expect"].contains(&name) {
                tables.push(Table { name, lines: line..line + 1, keys: Vec::new() });
            }
        } else if let (Some(table), false) = (tables.last_mut(), content.is_empty()) {
            table.lines.end = line + 1;
            if let Some((key, value)) = content.split_once('=') {
                table.keys.push((key.trim(), value.trim()));
            }
        }
    }
    tables
}

/// From the beginning of the first line to the end of the last.
fn range(text: &Text, lines: &Lines<u32>, encoding: Encoding) -> Range {
    let last = lines.end.saturating_sub(1).max(lines.start);
    Range::new(
        Position::new(lines.start.saturating_sub(1), 0),
        Position::new(last.saturating_sub(1), text.code(last, encoding).end),
    )
}

fn kind(table: &Table<'_>) -> SymbolKind {
    match table.name {
        "tracepoint" => SymbolKind::EVENT,
        "stimulus" => SymbolKind::FUNCTION,
        _ => SymbolKind::BOOLEAN,
    }
}

/// What a scenario holds.
#[allow(deprecated, reason = "the field must be given a value all the same")]
pub(super) fn symbols(text: &Text, encoding: Encoding) -> Vec<DocumentSymbol> {
    let symbol = |table: &Table<'_>| DocumentSymbol {
        name: table.title(),
        detail: if table.name == "tracepoint" { table.value("at").map(str::to_owned) } else { None },
        kind: kind(table),
        tags: None,
        deprecated: None,
        range: range(text, &table.lines, encoding),
        selection_range: range(text, &(table.lines.start..table.lines.start + 1), encoding),
        children: None,
    };
    tables(text).iter().map(symbol).collect()
}

/// What may stand at a position: the keys of its table that it does not have yet; behind a key that takes one, the names of
/// the tracepoints.
pub(super) fn completions(text: &Text, at: Position, encoding: Encoding) -> Vec<CompletionItem> {
    let line = text.line(at.line.saturating_add(1));
    let Some((key, value)) = line.split_once('=') else {
        return settings::completions(&KEYS, text, at);
    };
    if !["tracepoint", "absent", "from", "to", "order"].contains(&key.trim()) {
        return Vec::new();
    }
    // Within quotes the name alone is missing.
    let before = text.before(at, encoding);
    let is_quoted = before.matches('"').count() % 2 == 1;
    let tables = tables(text);
    let names = tables.iter().filter(|table| table.name == "tracepoint");
    let named = names.filter_map(|table| Some((table.value("name").or(table.value("at"))?, table.value("at"))));
    let is_there = |name: &str| key.trim() == "order" && value.contains(&format!("\"{name}\""));
    let item = |(name, place): (&str, Option<&str>)| CompletionItem {
        label: name.to_owned(),
        kind: Some(CompletionItemKind::REFERENCE),
        detail: place.map(str::to_owned),
        insert_text: Some(if is_quoted { name.to_owned() } else { format!("\"{name}\"") }),
        ..CompletionItem::default()
    };
    named.filter(|(name, _)| !is_there(name)).map(item).collect()
}

/// The tracepoints of the scenario files below some folders whose names or places have `query` in them, whatever its case.
/// What an editor has open counts as it is there; it is `open`'s answer.
#[allow(deprecated, reason = "the field must be given a value all the same")]
pub(super) fn workspace(
    folders: &[PathBuf],
    query: &str,
    encoding: Encoding,
    open: impl Fn(&Path) -> Option<String>,
) -> Vec<SymbolInformation> {
    let query = query.to_lowercase();
    let mut found = Vec::new();
    for path in files(folders) {
        let Ok(uri) = Url::from_file_path(&path) else { continue };
        let Some(text) = open(&path.canonicalize().unwrap_or_else(|_| path.clone())).or_else(|| read(&path)) else {
            continue;
        };
        let text = Text::from(text);
        for table in tables(&text).iter().filter(|table| table.name == "tracepoint") {
            let place = table.value("at").unwrap_or_default();
            if found.len() >= SYMBOLS_MAX {
                return found;
            }
            if format!("{} {place}", table.title()).to_lowercase().contains(&query) {
                found.push(SymbolInformation {
                    name: table.title(),
                    kind: kind(table),
                    tags: None,
                    deprecated: None,
                    location: Location::new(uri.clone(), range(&text, &table.lines, encoding)),
                    container_name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
                });
            }
        }
    }
    found
}

fn read(path: &Path) -> Option<String> {
    let bytes = std::fs::metadata(path).ok()?.len();
    if bytes > SCENARIO_BYTES_MAX as u64 {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// The scenario files below some folders, in the order of their paths in each. Links to folders are not followed.
fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = FOLDERS_MAX;
    let mut waiting: Vec<(PathBuf, usize)> = folders.iter().rev().map(|folder| (folder.clone(), 0)).collect();
    while let Some((folder, depth)) = waiting.pop()
        && left > 0
        && found.len() < FILES_MAX
    {
        left -= 1;
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries.into_iter().rev() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    let is_searched = depth < DEPTH_MAX && !name.starts_with('.') && !SKIPPED.contains(&&*name);
                    if is_searched {
                        waiting.push((entry.path(), depth + 1));
                    }
                }
                Ok(_) if is_named_so(&name) && found.len() < FILES_MAX => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "within = \"10s\"\n\n[[tracepoint]] # 😀\nname = \"charge\" # what\nat = \"payment/charge.go:42\"\n\n\
                        [[tracepoint]]\nname = \"reserve\"\nat = \"stock.go:1\"\n[stimulus]\nrun = [\"./order\"]\n\
                        [[expect]]\norder = [\"reserve\", ]\n[[expect]]\nabsent = \"nobody\"\n";

    fn text(text: &str) -> Text {
        Text::from(text.to_owned())
    }

    #[test]
    fn scenarios_are_known_by_their_names() {
        for (name, is_one) in [("scenario.toml", true), ("paid.scenario.toml", true), ("myscenario.toml", false)] {
            assert_eq!(is_scenario(&Url::parse(&format!("file:///shop/{name}")).unwrap()), is_one, "{name}");
        }
        assert!(!is_scenario(&Url::parse("untitled:x").unwrap()));
    }

    #[test]
    fn what_is_wrong_stands_where_it_is() {
        let found = diagnostics(&text(TEXT), Encoding::Utf16);
        let [order, absent] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((order.range.start, order.range.end), (Position::new(12, 8), Position::new(12, 21)));
        assert!(absent.message.contains("no tracepoint is called \"nobody\": there are charge, reserve"), "{absent:?}");
        let broken = diagnostics(&text("[[tracepoint]\n"), Encoding::Utf8);
        assert_eq!(broken.len(), 1);
    }

    #[test]
    fn a_scenario_is_told_by_its_tables_though_it_is_wrong() {
        let found = symbols(&text(TEXT), Encoding::Utf16);
        let told: Vec<(&str, u32, u32)> =
            found.iter().map(|symbol| (symbol.name.as_str(), symbol.range.start.line, symbol.range.end.line)).collect();
        let expected = [
            ("charge", 2, 4),
            ("reserve", 6, 8),
            ("stimulus: [\"./order\"]", 9, 10),
            ("expect order [\"reserve\", ]", 11, 12),
            ("expect no nobody", 13, 14),
        ];
        assert_eq!(told, expected);
        assert_eq!(found[0].detail.as_deref(), Some("payment/charge.go:42"));
        assert_eq!(symbols(&text("[[expect]]\n[[tracepoint]]\n= \n"), Encoding::Utf8).len(), 2);
    }

    #[test]
    fn keys_and_names_are_offered_where_they_fit() {
        let labels = |line: u32, column: u32| -> Vec<(String, String)> {
            let items = completions(&text(TEXT), Position::new(line, column), Encoding::Utf16);
            items.into_iter().map(|item| (item.label, item.insert_text.unwrap())).collect()
        };
        let keys = labels(1, 0);
        assert_eq!(keys.first().map(|(key, _)| key.as_str()), Some("version"));
        assert!(keys.iter().all(|(key, _)| key != "within" && key != "absent"), "{keys:?}");
        assert!(keys.iter().all(|(key, _)| key != "stimulus"), "there is one: {keys:?}");
        assert!(
            labels(5, 0).iter().any(|(key, _)| key == "capture") && labels(5, 0).iter().all(|(key, _)| key != "at")
        );
        assert_eq!(labels(12, 19), [("charge".to_owned(), "\"charge\"".to_owned())], "reserve is there");
        assert_eq!(labels(14, 10)[1], ("reserve".to_owned(), "reserve".to_owned()), "within quotes");
        assert_eq!(labels(3, 8), [], "a name is the person's");
        let nameless = text("[[tracepoint]]\nat = \"a.go:1\"\n[[expect]]\nabsent = \n");
        let items = completions(&nameless, Position::new(3, 9), Encoding::Utf16);
        assert_eq!(items[0].label, "a.go:1", "what has no name is called as its place");
        assert_eq!(symbols(&nameless, Encoding::Utf16)[0].name, "a.go:1");
    }

    #[test]
    fn tracepoints_are_found_in_all_files_as_the_editor_has_them() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a/scenario.toml", TEXT),
            ("b/paid.scenario.toml", "[[tracepoint]]\nname = \"saved\"\nat = \"x.go:1\"\n"),
            ("node_modules/scenario.toml", TEXT),
            (".git/scenario.toml", TEXT),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let open = |path: &Path| {
            path.ends_with("paid.scenario.toml")
                .then(|| "[[tracepoint]]\nname = \"edited\"\nat = \"x.go:1\"".to_owned())
        };
        let names = |query: &str| -> Vec<String> {
            let found = workspace(&[folder.path().to_owned()], query, Encoding::Utf16, open);
            found.into_iter().map(|symbol| format!("{} {}", symbol.container_name.unwrap(), symbol.name)).collect()
        };
        assert_eq!(names(""), ["scenario.toml charge", "scenario.toml reserve", "paid.scenario.toml edited"]);
        assert_eq!(names("STOCK"), ["scenario.toml reserve"]);
        assert_eq!(names("nothing"), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(lines in "(\\[\\[tracepoint\\]\\]|\\[\\[expect\\]\\]|name = \"a\"|order = \\[\"|\\PC{0,9}|\n){0,20}", at in 0u32..60) {
            let text = text(&lines);
            for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
                symbols(&text, encoding);
                diagnostics(&text, encoding);
                completions(&text, Position::new(at % text.lines(), at), encoding);
            }
        }
    }
}

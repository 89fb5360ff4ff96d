//! One table of a scenario: its keys with their places, and what is wrong with them.
//!
//! What a key may be is said once, in [`KEYS`]: a key that is not there is refused with the one that may have been meant, and
//! one of another type with its example.

use super::keys::{KEYS, Key, MEANT};
use super::{PROBLEMS_MAX, ScenarioProblem};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) type Text = Spanned<String>;

/// A name that is longer, in bytes, is not compared with others: nobody has mistyped it.
const COMPARED_BYTES_MAX: usize = 64;
/// Names that a message lists, at most: a line of them.
const LISTED_MAX: usize = 8;

/// Adds a problem, while there are fewer than are told.
pub(super) fn wrong(problems: &mut Vec<ScenarioProblem>, span: Range<usize>, message: impl Into<String>) {
    if problems.len() < PROBLEMS_MAX {
        problems.push(ScenarioProblem { message: message.into(), span });
    }
}

/// A table that is being read: what is taken of it is no longer there.
#[derive(Debug)]
pub(super) struct Table<'t> {
    name: &'static str,
    entries: DeTable<'t>,
    /// Keys that it had, whether they could be read or not.
    had: Vec<&'static str>,
    /// Bytes of the text that its header is in.
    pub(super) span: Range<usize>,
}

impl<'t> Table<'t> {
    /// Keys that no such table has become problems, and so does a value that is no table, which then has no keys.
    pub(super) fn new(
        name: &'static str,
        value: Spanned<DeValue<'t>>,
        problems: &mut Vec<ScenarioProblem>,
    ) -> Table<'t> {
        let span = value.span();
        let written = match value.into_inner() {
            DeValue::Table(entries) => entries,
            _ => {
                wrong(problems, span.clone(), format!("`{name}` is a table: {}", example("", name)));
                DeTable::new()
            }
        };
        let known = || KEYS.iter().filter(|key| key.table == name).map(|key| key.name);
        let mut entries = DeTable::new();
        for (key, value) in written {
            if known().any(|known| known == key.get_ref()) {
                entries.insert(key, value);
            } else if problems.len() < PROBLEMS_MAX {
                wrong(problems, key.span(), unknown(name, key.get_ref(), known()));
            }
        }
        let had = known().filter(|name| entries.contains_key(*name)).collect();
        Table { name, entries, had, span }
    }

    /// Whether a key was given, right or wrong.
    pub(super) fn had(&self, key: &str) -> bool {
        self.had.contains(&key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'t>>> {
        debug_assert!(KEYS.iter().any(|known| known.table == self.name && known.name == key), "{key}");
        self.entries.remove(key)
    }

    fn wrong_type(&self, key: &str, span: Range<usize>, problems: &mut Vec<ScenarioProblem>) {
        wrong(problems, span, format!("`{key}` is written otherwise: {}", example(self.name, key)));
    }

    pub(super) fn text(&mut self, key: &str, problems: &mut Vec<ScenarioProblem>) -> Option<Text> {
        let value = self.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some(Spanned::new(span, text.into_owned())),
            _ => {
                self.wrong_type(key, span, problems);
                None
            }
        }
    }

    pub(super) fn number(&mut self, key: &str, problems: &mut Vec<ScenarioProblem>) -> Option<Spanned<i64>> {
        let value = self.take(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(key, value.span(), problems);
        }
        Some(Spanned::new(value.span(), number?))
    }

    /// A list of texts; what is none in it is a problem, and left out.
    pub(super) fn texts(&mut self, key: &str, problems: &mut Vec<ScenarioProblem>) -> Option<Spanned<Vec<Text>>> {
        let value = self.take(key)?;
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            self.wrong_type(key, span, problems);
            return None;
        };
        let mut texts = Vec::new();
        for value in values {
            let span = value.span();
            match value.into_inner() {
                DeValue::String(text) => texts.push(Spanned::new(span, text.into_owned())),
                _ => self.wrong_type(key, span, problems),
            }
        }
        Some(Spanned::new(span, texts))
    }

    /// A table of texts under names that are the person's, in the order of the names; empty where there is none.
    pub(super) fn map(&mut self, key: &str, problems: &mut Vec<ScenarioProblem>) -> Vec<(String, String)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        let DeValue::Table(entries) = value.into_inner() else {
            self.wrong_type(key, span, problems);
            return Vec::new();
        };
        let mut map = Vec::new();
        for (name, value) in entries {
            match value.get_ref() {
                DeValue::String(text) => map.push((name.into_inner().into_owned(), text.clone().into_owned())),
                _ => self.wrong_type(key, value.span(), problems),
            }
        }
        map
    }

    /// The table of a key.
    pub(super) fn table(&mut self, key: &'static str, problems: &mut Vec<ScenarioProblem>) -> Option<Table<'t>> {
        let value = self.take(key)?;
        Some(Table::new(key, value, problems))
    }

    /// The tables of a key that may be given several times, and at most one more than `most`; empty where there is none.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        most: usize,
        problems: &mut Vec<ScenarioProblem>,
    ) -> Option<Vec<Table<'t>>> {
        let Some(value) = self.take(key) else { return Some(Vec::new()) };
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            wrong(problems, span, format!("`{key}` may be given several times: {}", example("", key)));
            return None;
        };
        Some(values.into_iter().take(most + 1).map(|value| Table::new(key, value, problems)).collect())
    }
}

/// How a key is written.
fn example(table: &str, key: &str) -> String {
    let written = KEYS.iter().find(|known: &&Key| known.table == table && known.name == key);
    written.map_or_else(String::new, |key| format!("write such as {}", key.example.replace('\n', " / ")))
}

/// What is said of a key that no such table has.
fn unknown<'k>(table: &str, key: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let shown: String = key.chars().take(COMPARED_BYTES_MAX).collect();
    let of = if table.is_empty() { "a scenario".to_owned() } else { format!("a {table}") };
    let other_word = MEANT.iter().find(|(word, name)| *word == key && known.clone().any(|key| key == *name));
    let elsewhere = KEYS.iter().find(|other| other.name == key && !other.table.is_empty());
    if let Some(name) = nearest(key, known.clone()).or(other_word.map(|(_, name)| *name)) {
        format!("{of} has no `{shown}`: did you mean `{name}`?")
    } else if let Some(other) = elsewhere {
        format!("{of} has no `{shown}`: it belongs to a {}", other.table)
    } else {
        format!("{of} has no `{shown}`: its keys are {}", known.collect::<Vec<_>>().join(", "))
    }
}

/// The name that is most like what was written, if one is so like it that it may have been meant.
pub(super) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if written.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let allowed = (written.chars().count() / 3).max(1);
    let near = names.filter(|name| name.len() <= COMPARED_BYTES_MAX).map(|name| (edits(written, name), name));
    near.filter(|(edits, name)| *edits <= allowed && *edits < name.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Letters to add, take out, change, or swap with their neighbours, to make one text of the other (the distance of optimal
/// string alignment).
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let changed = above[column] + usize::from(letter != wanted);
            let mut least = changed.min(above[column + 1] + 1).min(line[column] + 1);
            if row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *wanted {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut above, line);
    }
    above[other.len()]
}

/// Some names, and how many more there are.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut shown = Vec::new();
    let mut more = 0;
    for name in names {
        if shown.len() < LISTED_MAX {
            shown.push(name.chars().take(COMPARED_BYTES_MAX).collect::<String>());
        } else {
            more += 1;
        }
    }
    let list = shown.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_mistyped_is_found_and_another_is_not() {
        let names = || ["charge", "reserve", "at", "refund"].into_iter();
        for (written, found) in [
            ("chrage", Some("charge")),
            ("charges", Some("charge")),
            ("Refund", Some("refund")),
            ("ta", Some("at")),
            ("pay", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names()), found, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(COMPARED_BYTES_MAX + 1), names()), None);
        assert_eq!(
            (edits("", "abc"), edits("abc", ""), edits("abcd", "acbd"), edits("kitten", "sitting")),
            (3, 3, 1, 3)
        );
        assert_eq!(listed(["a"; LISTED_MAX + 2].into_iter()), "a, a, a, a, a, a, a, a and 2 more");
    }
}

//! Lines and columns of one text, in the units that the editor counts columns in.
//!
//! Lines are found once per text, so that a hint in a long file costs no search from its beginning.

use std::ops::Range;
use tower_lsp::lsp_types::{Position, PositionEncodingKind};

/// What a column counts. The protocol's own is UTF-16; editors that can do better say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    #[default]
    Utf16,
    Utf32,
}

impl Encoding {
    /// The first that the editor names and that we know; UTF-16 where it names none, as the protocol says.
    pub(super) fn agreed(offered: &[PositionEncodingKind]) -> Encoding {
        let known = |kind: &PositionEncodingKind| match kind.as_str() {
            "utf-8" => Some(Encoding::Utf8),
            "utf-16" => Some(Encoding::Utf16),
            "utf-32" => Some(Encoding::Utf32),
            _ => None,
        };
        offered.iter().find_map(known).unwrap_or_default()
    }

    pub(super) fn kind(self) -> PositionEncodingKind {
        match self {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
            Encoding::Utf32 => PositionEncodingKind::UTF32,
        }
    }

    /// Units of a text.
    fn units(self, text: &str) -> u32 {
        let count = match self {
            Encoding::Utf8 => text.len(),
            Encoding::Utf16 => text.encode_utf16().count(),
            Encoding::Utf32 => text.chars().count(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn of_char(self, character: char) -> usize {
        match self {
            Encoding::Utf8 => character.len_utf8(),
            Encoding::Utf16 => character.len_utf16(),
            Encoding::Utf32 => 1,
        }
    }
}

/// A text with its lines.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Text { text, starts }
    }
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// How many lines there are; at least one.
    pub(super) fn lines(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// The position of a byte of the text; bytes beyond the end mean the end.
    pub(super) fn position(&self, byte: usize, encoding: Encoding) -> Position {
        let byte = byte.min(self.text.len());
        let index = self.starts.partition_point(|start| *start <= byte).saturating_sub(1);
        let line = u32::try_from(index).unwrap_or(u32::MAX);
        let start = self.starts.get(index).copied().unwrap_or(0);
        let column = self.text.get(start..byte).map_or(0, |text| encoding.units(text));
        Position::new(line, column)
    }

    /// A line, counted from 1, without its end; empty beyond the last.
    pub(super) fn line(&self, line: u32) -> &str {
        let Some(index) = (line as usize).checked_sub(1) else { return "" };
        let Some(&start) = self.starts.get(index) else { return "" };
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }

    /// Columns at which the code of a line begins and ends.
    pub(super) fn code(&self, line: u32, encoding: Encoding) -> Range<u32> {
        let line = self.line(line);
        let code = line.trim_end();
        encoding.units(&code[..code.len() - code.trim_start().len()])..encoding.units(code)
    }

    /// The byte of its line that a position means: positions beyond the end mean the end, as the protocol says; one
    /// within a character means its begin.
    fn byte(&self, position: Position, encoding: Encoding) -> usize {
        let line = self.line(position.line.saturating_add(1));
        let mut left = position.character as usize;
        for (at, character) in line.char_indices() {
            let units = encoding.of_char(character);
            if left < units {
                return at;
            }
            left -= units;
        }
        line.len()
    }

    /// What stands in front of a position in its line.
    pub(super) fn before(&self, position: Position, encoding: Encoding) -> &str {
        &self.line(position.line.saturating_add(1))[..self.byte(position, encoding)]
    }

    /// The name at a position, with the columns it takes: letters, digits and `_`, beginning with no digit.
    pub(super) fn name_at(&self, position: Position, encoding: Encoding) -> Option<(&str, Range<u32>)> {
        let line = self.line(position.line.saturating_add(1));
        let at = self.byte(position, encoding);
        let part = |character: char| character.is_alphanumeric() || character == '_';
        let start = line[..at]
            .rfind(|c| !part(c))
            .map_or(0, |before| before + line[before..].chars().next().map_or(1, char::len_utf8));
        let end = line[at..].find(|c| !part(c)).map_or(line.len(), |after| at + after);
        let name = &line[start..end];
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        Some((name, encoding.units(&line[..start])..encoding.units(&line[..end])))
    }

    /// What a selection within one line holds, trimmed; `None` when it is empty or goes over several lines.
    pub(super) fn selected(&self, from: Position, to: Position, encoding: Encoding) -> Option<&str> {
        if from.line != to.line {
            return None;
        }
        let line = self.line(from.line.saturating_add(1));
        let (from, to) = (self.byte(from, encoding), self.byte(to, encoding));
        let selected = line.get(from..to)?.trim();
        (!selected.is_empty()).then_some(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_count_what_was_agreed() {
        let text = Text::from("a\n\tx := \"😀é\" \r\n".to_owned());
        assert_eq!(text.code(2, Encoding::Utf8), 1..14);
        assert_eq!(text.code(2, Encoding::Utf16), 1..11);
        assert_eq!(text.code(2, Encoding::Utf32), 1..10);
        assert_eq!(text.code(3, Encoding::Utf16), 0..0);
        assert_eq!(text.code(0, Encoding::Utf16), 0..0);
        assert_eq!(Text::from("a".to_owned()).code(2, Encoding::Utf16), 0..0);
    }

    #[test]
    fn an_editor_that_names_no_encoding_counts_in_utf_16() {
        assert_eq!(Encoding::agreed(&[]), Encoding::Utf16);
        assert_eq!(Encoding::agreed(&["utf-7", "utf-32", "utf-8"].map(PositionEncodingKind::from)), Encoding::Utf32);
    }

    #[test]
    fn names_are_found_wherever_in_them_the_cursor_is() {
        let text = Text::from("\tπ1 := größe.Total[i]".to_owned());
        let at = |column| text.name_at(Position::new(0, column), Encoding::Utf16);
        for column in 7..=12 {
            assert_eq!(at(column), Some(("größe", 7..12)), "{column}");
        }
        assert_eq!(at(1), Some(("π1", 1..3)));
        assert_eq!(at(14), Some(("Total", 13..18)));
        assert_eq!((at(4), at(0)), (None, None));
        assert_eq!(at(99), None, "beyond the end, behind a bracket");
        let numbers = Text::from("12 + x".to_owned());
        assert_eq!(numbers.name_at(Position::new(0, 1), Encoding::Utf16), None);
    }

    #[test]
    fn a_selection_is_taken_from_one_line() {
        let text = Text::from("a + b\nc".to_owned());
        let selected = |from: (u32, u32), to: (u32, u32)| {
            text.selected(Position::new(from.0, from.1), Position::new(to.0, to.1), Encoding::Utf16)
        };
        assert_eq!(selected((0, 3), (0, 99)), Some("b"));
        assert_eq!(selected((0, 1), (0, 2)), None);
        assert_eq!(selected((0, 0), (1, 1)), None);
        assert_eq!(selected((0, 4), (0, 1)), None, "backwards");
    }

    proptest! {
        #[test]
        fn no_position_panics(text in "(\\PC|\n|\r){0,40}", line in 0u32..5, column in 0u32..50, to in 0u32..50) {
            let text = Text::from(text);
            for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
                if let Some((name, columns)) = text.name_at(Position::new(line, column), encoding) {
                    prop_assert!(!name.is_empty() && columns.start < columns.end);
                }
                text.selected(Position::new(line, column), Position::new(line, to), encoding);
                let code = text.code(line, encoding);
                prop_assert!(code.start <= code.end);
            }
        }
    }
}

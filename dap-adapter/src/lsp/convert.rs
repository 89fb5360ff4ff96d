//! Our values to the protocol's, and back. Lines count from 1 here and from 0 there; columns there are UTF-16 units.

use super::show::{Hint, Lens};
use super::state::Problem;
use std::path::PathBuf;
use tower_lsp::lsp_types::{
    CodeLens, Command, Diagnostic, DiagnosticSeverity, InlayHint, InlayHintLabel, InlayHintTooltip, Position, Range,
    Url,
};

/// The local file of a document; `None` for a document that is no file.
pub(super) fn path(uri: &Url) -> Option<PathBuf> {
    let path = uri.to_file_path().ok()?;
    // Line mapping names files by their real path; a file that is not saved yet has only its name.
    Some(path.canonicalize().unwrap_or(path))
}

pub(super) fn lens(lens: &Lens) -> CodeLens {
    let position = Position::new(lens.line.saturating_sub(1), 0);
    // A lens needs a command to be shown; one without a name does nothing when it is clicked.
    let command = Command { title: lens.title.clone(), command: String::new(), arguments: None };
    CodeLens { range: Range::new(position, position), command: Some(command), data: None }
}

pub(super) fn hint(hint: &Hint, text: &str) -> InlayHint {
    InlayHint {
        position: Position::new(hint.line.saturating_sub(1), columns(text, hint.line).1),
        label: InlayHintLabel::String(hint.text.clone()),
        kind: None,
        text_edits: None,
        tooltip: Some(InlayHintTooltip::String(hint.tooltip.clone())),
        padding_left: Some(true),
        padding_right: None,
        data: None,
    }
}

pub(super) fn diagnostic(problem: &Problem, text: &str) -> Diagnostic {
    let line = problem.line.saturating_sub(1);
    let (start, end) = columns(text, problem.line);
    Diagnostic {
        range: Range::new(Position::new(line, start), Position::new(line, end)),
        severity: Some(DiagnosticSeverity::WARNING),
        source: Some("riptrace".to_owned()),
        message: problem.message.clone(),
        ..Diagnostic::default()
    }
}

/// Columns at which the code of a line begins and ends.
fn columns(text: &str, line: u32) -> (u32, u32) {
    let line = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    let units = |text: &str| u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX);
    let code = line.trim_end();
    (units(&code[..code.len() - code.trim_start().len()]), units(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_utf_16_units() {
        assert_eq!(columns("a\n\tx := \"😀\" \r\n", 2), (1, 10));
        assert_eq!(columns("a", 2), (0, 0));
        assert_eq!(columns("", 0), (0, 0));
    }
}

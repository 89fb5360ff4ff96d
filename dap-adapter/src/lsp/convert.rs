//! Our values to the protocol's, and back. Lines count from 1 here and from 0 there; columns there count what was agreed
//! with the editor ([`Encoding`]).

use super::show::{Hint, Lens};
use super::state::Problem;
use super::text::{Encoding, Text};
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

pub(super) fn hint(hint: &Hint, text: &Text, encoding: Encoding) -> InlayHint {
    InlayHint {
        position: Position::new(hint.line.saturating_sub(1), text.code(hint.line, encoding).end),
        label: InlayHintLabel::String(hint.text.clone()),
        kind: None,
        text_edits: None,
        tooltip: Some(InlayHintTooltip::String(hint.tooltip.clone())),
        padding_left: Some(true),
        padding_right: None,
        data: None,
    }
}

pub(super) fn diagnostic(problem: &Problem, text: &Text, encoding: Encoding) -> Diagnostic {
    let line = problem.line.saturating_sub(1);
    let columns = text.code(problem.line, encoding);
    Diagnostic {
        range: Range::new(Position::new(line, columns.start), Position::new(line, columns.end)),
        severity: Some(DiagnosticSeverity::WARNING),
        source: Some("riptrace".to_owned()),
        message: problem.message.clone(),
        ..Diagnostic::default()
    }
}

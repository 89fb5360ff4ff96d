//! Messages of an editor made of arbitrary bytes, and what the server does with them between its transport and its
//! answers: framing, JSON-RPC, parameters, texts and positions. No part of the library's interface.

use super::actions;
use super::convert;
use super::hover;
use super::input;
use super::scenario;
use super::settings;
use super::show;
use super::state::{Event, State, handle};
use super::text::Encoding;
use crate::environment::SettingsKey;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use tower_lsp::jsonrpc::Request;
use tower_lsp::lsp_types::{
    CodeActionParams, DidChangeTextDocumentParams, DidOpenTextDocumentParams, ExecuteCommandParams, HoverParams,
    InitializeParams, InlayHintParams, Url,
};

const KEYS: [SettingsKey; 2] = [
    SettingsKey { name: "rate", table: "", meaning: "Hits per second.", example: "rate = 500" },
    SettingsKey { name: "from", table: "substitute_path", meaning: "Here.", example: "from = \".\"" },
];

/// The parameters of a request, where they are such.
fn read<P: DeserializeOwned>(request: &Request) -> Option<P> {
    serde_json::from_value(request.params()?.clone()).ok()
}

/// As [`convert::path`], of a machine without files.
fn path(uri: &Url) -> Option<PathBuf> {
    uri.to_file_path().ok()
}

/// Reads `input` as what an editor sends; says how many of its messages were requests or notifications.
pub fn language_server(input: &[u8]) -> usize {
    let mut state = State::default();
    let mut encoding = Encoding::default();
    let mut effects = Vec::new();
    let mut requests = 0;
    for body in input::bodies(input) {
        let Ok(request) = serde_json::from_slice::<Request>(&body) else { continue };
        requests += 1;
        message(&mut state, &mut encoding, &request);
        handle(&mut state, Event::Tick(std::time::Duration::ZERO), &mut effects);
        effects.clear();
    }
    requests
}

fn message(state: &mut State, encoding: &mut Encoding, request: &Request) {
    let mut text = |uri: &Url, version, text| {
        if let Some(path) = path(uri) {
            handle(state, Event::Text { path, version, text }, &mut Vec::new());
        }
    };
    if let Some(params) = read::<InitializeParams>(request) {
        let offered = params.capabilities.general.and_then(|general| general.position_encodings);
        *encoding = Encoding::agreed(&offered.unwrap_or_default());
    }
    if let Some(params) = read::<DidOpenTextDocumentParams>(request) {
        text(&params.text_document.uri, params.text_document.version, params.text_document.text);
    }
    if let Some(params) = read::<DidChangeTextDocumentParams>(request)
        && let Some(change) = params.content_changes.into_iter().next_back()
    {
        text(&params.text_document.uri, params.text_document.version, change.text);
    }
    if let Some(params) = read::<HoverParams>(request) {
        let at = params.text_document_position_params;
        if let Some(path) = path(&at.text_document.uri) {
            hover::values(state, &path, at.position.line.saturating_add(1), None);
            if let Some(text) = state.document(&path) {
                text.name_at(at.position, *encoding);
                settings::completions(&KEYS, text, at.position);
                settings::meaning(&KEYS, text, at.position, *encoding);
                scenario::completions(text, at.position, *encoding);
                scenario::symbols(text, *encoding);
                scenario::diagnostics(text, *encoding);
            }
        }
    }
    if let Some(params) = read::<InlayHintParams>(request)
        && let Some(path) = path(&params.text_document.uri)
        && let Some(text) = state.document(&path)
    {
        let (first, last) = (params.range.start.line.saturating_add(1), params.range.end.line.saturating_add(1));
        let hints = show::hints(state, &path, first, last);
        hints.iter().for_each(|hint| drop(convert::hint(hint, text, *encoding)));
        show::lenses(state, &path).iter().for_each(|lens| drop(convert::lens(lens)));
    }
    if let Some(params) = read::<CodeActionParams>(request)
        && let Some(path) = path(&params.text_document.uri)
    {
        let at = actions::Line { uri: params.text_document.uri, line: params.range.start.line };
        let text = state.document(&path);
        let selected = text.and_then(|text| text.selected(params.range.start, params.range.end, *encoding));
        assert!(!actions::offers(&at, selected, false, false).is_empty());
    }
    if let Some(params) = read::<ExecuteCommandParams>(request) {
        let argument = params.arguments.into_iter().next().unwrap_or_default();
        let _ = serde_json::from_value::<actions::Trace>(argument);
    }
}

//! The thin face of tower-lsp: handlers read or change the state and return at once.
//!
//! tower-lsp runs handlers concurrently; a text change is therefore taken in before the first `await` of its handler,
//! and an older version never replaces a newer one.

use super::convert;
use super::driver::{Editor, Shared, drive};
use super::input::{MALFORMED, pump};
use super::show;
use super::state::{Event, Problem};
use crate::environment::Environment;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::lsp_types::{
    CodeLens, CodeLensOptions, CodeLensParams, DidChangeTextDocumentParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, InitializeParams, InitializeResult, InitializedParams, InlayHint, InlayHintParams,
    OneOf, ServerCapabilities, ServerInfo, TextDocumentSyncCapability, TextDocumentSyncKind, Url,
};
use tower_lsp::{Client, LanguageServer, LspService, Server};

/// Notification of our own editor plugins: all breakpoints of the editor, whether a session runs or not. With them,
/// lines that no build has are told while the code is edited; without, when a tracepoint is asked for.
const BREAKPOINTS: &str = "riptrace/breakpoints";

/// Content of [`BREAKPOINTS`].
#[derive(Debug, serde::Deserialize)]
struct BreakpointsParams {
    breakpoints: Vec<DocumentBreakpoints>,
}

/// The breakpoints of one document.
#[derive(Debug, serde::Deserialize)]
struct DocumentBreakpoints {
    uri: Url,
    /// From 0, as everywhere in the protocol.
    lines: Vec<u32>,
}

/// Bytes of checked input that wait for the server: it holds back the editor, not the memory.
const PIPE_BYTES: usize = 64 * 1024;
/// How long the last answers may take at the end.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Serves one editor until it says `exit` or closes its end. Nothing else may write to `stdout`.
pub async fn serve_lsp<R, W>(stdin: R, stdout: W, environment: Arc<dyn Environment>)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Send,
{
    serve(stdin, stdout, environment, Shared::default()).await;
}

pub(super) async fn serve<R, W>(stdin: R, stdout: W, environment: Arc<dyn Environment>, shared: Shared)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Send,
{
    let build = LspService::build(|client| Backend::new(client, environment, shared));
    let (service, socket) =
        build.custom_method(MALFORMED, Backend::malformed).custom_method(BREAKPOINTS, Backend::breakpoints).finish();
    let (checked, checked_in) = tokio::io::duplex(PIPE_BYTES);
    let serving = Server::new(checked, stdout, socket).serve(service);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = pump(stdin, checked_in) => {
            // What was asked before the end is answered, unless the editor does not read any more.
            if tokio::time::timeout(END_DEADLINE, serving).await.is_err() {
                tracing::warn!("the editor does not read its answers");
            }
        }
    }
}

/// What the editor can do.
#[derive(Debug, Clone, Copy, Default)]
struct Abilities {
    refresh_lenses: bool,
    refresh_hints: bool,
}

/// The editor, as the driver sees it.
struct LspEditor {
    client: Client,
    abilities: Mutex<Abilities>,
    /// The name by which the editor knows a file.
    uris: Mutex<HashMap<PathBuf, Url>>,
}

impl Editor for LspEditor {
    async fn refresh(&self) {
        let abilities = *self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        if abilities.refresh_lenses
            && let Err(why) = self.client.code_lens_refresh().await
        {
            tracing::debug!("refresh of code lenses: {why}");
        }
        if abilities.refresh_hints
            && let Err(why) = self.client.inlay_hint_refresh().await
        {
            tracing::debug!("refresh of inlay hints: {why}");
        }
    }

    async fn publish(&self, path: &Path, problems: &[Problem], text: &str) {
        let uri = self.uris.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(uri) = uri {
            let diagnostics = problems.iter().map(|problem| convert::diagnostic(problem, text)).collect();
            self.client.publish_diagnostics(uri, diagnostics, None).await;
        }
    }
}

struct Backend {
    shared: Shared,
    editor: Arc<LspEditor>,
    environment: Arc<dyn Environment>,
    folders: Mutex<Vec<PathBuf>>,
    /// The driver: ended with the server.
    driving: Mutex<JoinSet<()>>,
}

impl Backend {
    fn new(client: Client, environment: Arc<dyn Environment>, shared: Shared) -> Backend {
        let editor = LspEditor { client, abilities: Mutex::default(), uris: Mutex::default() };
        Backend { shared, editor: Arc::new(editor), environment, folders: Mutex::default(), driving: Mutex::default() }
    }

    /// Answers what the input could not read.
    async fn malformed(&self, params: serde_json::Value) -> Result<serde_json::Value> {
        let why = params.get("why").and_then(serde_json::Value::as_str).unwrap_or("the message cannot be read");
        Err(Error { code: ErrorCode::ParseError, message: why.to_owned().into(), data: None })
    }

    async fn breakpoints(&self, params: BreakpointsParams) {
        let of = |document: DocumentBreakpoints| {
            let path = convert::path(&document.uri);
            let lines = document.lines.into_iter().map(|line| line.saturating_add(1));
            path.into_iter().flat_map(move |path| lines.clone().map(move |line| (path.clone(), line)))
        };
        self.shared.apply(Event::Breakpoints(params.breakpoints.into_iter().flat_map(of).collect()));
    }

    /// A new text of a document.
    fn text(&self, uri: &Url, version: i32, text: String) {
        if let Some(path) = convert::path(uri) {
            self.editor.uris.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), uri.clone());
            // Texts lead to effects only at a tick.
            self.shared.apply(Event::Text { path, version, text });
        }
    }
}

#[tower_lsp::async_trait]
impl LanguageServer for Backend {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        *self.folders.lock().unwrap_or_else(PoisonError::into_inner) = folders(&params);
        let workspace = params.capabilities.workspace.unwrap_or_default();
        *self.editor.abilities.lock().unwrap_or_else(PoisonError::into_inner) = Abilities {
            refresh_lenses: workspace.code_lens.and_then(|ability| ability.refresh_support).unwrap_or(false),
            refresh_hints: workspace.inlay_hint.and_then(|ability| ability.refresh_support).unwrap_or(false),
        };
        Ok(InitializeResult {
            capabilities: ServerCapabilities {
                text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
                code_lens_provider: Some(CodeLensOptions { resolve_provider: Some(false) }),
                inlay_hint_provider: Some(OneOf::Left(true)),
                ..ServerCapabilities::default()
            },
            server_info: Some(ServerInfo {
                name: "riptrace".to_owned(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            }),
        })
    }

    async fn initialized(&self, _: InitializedParams) {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let driving = drive(self.shared.clone(), self.editor.clone(), self.environment.clone(), folders);
        let mut tasks = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            tasks.spawn(driving);
        }
    }

    async fn shutdown(&self) -> Result<()> {
        self.driving.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        self.text(&document.uri, document.version, document.text);
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        // Whole texts were asked for: the last one counts.
        if let Some(change) = params.content_changes.into_iter().next_back() {
            self.text(&params.text_document.uri, params.text_document.version, change.text);
        }
    }

    async fn did_close(&self, params: DidCloseTextDocumentParams) {
        let uri = params.text_document.uri;
        if let Some(path) = convert::path(&uri) {
            self.shared.apply(Event::Closed { path: path.clone() });
            self.editor.uris.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            self.editor.client.publish_diagnostics(uri, Vec::new(), None).await;
        }
    }

    async fn code_lens(&self, params: CodeLensParams) -> Result<Option<Vec<CodeLens>>> {
        let Some(path) = convert::path(&params.text_document.uri) else { return Ok(None) };
        let lenses = self.shared.look(|state| show::lenses(state, &path));
        Ok(Some(lenses.iter().map(convert::lens).collect()))
    }

    async fn inlay_hint(&self, params: InlayHintParams) -> Result<Option<Vec<InlayHint>>> {
        let Some(path) = convert::path(&params.text_document.uri) else { return Ok(None) };
        let (first, last) = (params.range.start.line.saturating_add(1), params.range.end.line.saturating_add(1));
        Ok(Some(self.shared.look(|state| {
            let text = state.document(&path).unwrap_or_default();
            show::hints(state, &path, first, last).iter().map(|hint| convert::hint(hint, text)).collect()
        })))
    }
}

/// The folders that the editor works in; where it names none, the one that the server was started in.
fn folders(params: &InitializeParams) -> Vec<PathBuf> {
    let named = params.workspace_folders.iter().flatten().map(|folder| &folder.uri);
    let mut folders: Vec<PathBuf> = named.filter_map(convert::path).collect();
    if folders.is_empty() {
        folders.extend(params.root_uri.as_ref().and_then(convert::path));
    }
    if folders.is_empty() {
        folders.extend(std::env::current_dir());
    }
    folders
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

//! The thin face of tower-lsp: handlers read or change the state and return at once.
//!
//! tower-lsp runs handlers concurrently; a text change is therefore taken in before the first `await` of its handler,
//! and an older version never replaces a newer one.

use super::actions;
use super::convert;
use super::driver::{Editor, Shared, drive, mappers};
use super::hover;
use super::input::{MALFORMED, pump};
use super::scenario;
use super::settings;
use super::show;
use super::state::{Event, Problem};
use super::text::{Encoding, Text};
use super::traces::{Around, Traces, Wish};
use crate::environment::Environment;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::lsp_types::{
    CodeAction, CodeActionKind, CodeActionOptions, CodeActionOrCommand, CodeActionParams, CodeActionProviderCapability,
    CodeLens, CodeLensOptions, CodeLensParams, Command, CompletionOptions, CompletionParams, CompletionResponse,
    DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams, DocumentSymbolParams,
    DocumentSymbolResponse, ExecuteCommandOptions, ExecuteCommandParams, Hover, HoverContents, HoverParams,
    HoverProviderCapability, InitializeParams, InitializeResult, InitializedParams, InlayHint, InlayHintParams,
    MarkupContent, MarkupKind, MessageType, OneOf, ServerCapabilities, ServerInfo, SymbolInformation,
    TextDocumentSyncCapability, TextDocumentSyncKind, Url, WorkspaceSymbolParams,
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

/// `RequestFailed` of the protocol: the request was right, and could not be done.
const REQUEST_FAILED: i64 = -32803;
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

/// The files that are RipTrace's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnFile {
    Settings,
    Scenario,
}

impl OwnFile {
    fn of(uri: &Url) -> Option<OwnFile> {
        match uri {
            uri if settings::is_settings(uri) => Some(OwnFile::Settings),
            uri if scenario::is_scenario(uri) => Some(OwnFile::Scenario),
            _ => None,
        }
    }
}

/// The editor, as the driver sees it.
struct LspEditor {
    client: Client,
    abilities: Mutex<Abilities>,
    encoding: Mutex<Encoding>,
    /// The name by which the editor knows a file.
    uris: Mutex<HashMap<PathBuf, Url>>,
}

impl LspEditor {
    fn encoding(&self) -> Encoding {
        *self.encoding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is wrong with a settings file or a scenario, or that nothing is; of other files, nothing.
    async fn publish_own(&self, uri: Url, text: &str, environment: &dyn Environment) {
        let text = Text::from(text.to_owned());
        let diagnostics = match OwnFile::of(&uri) {
            Some(OwnFile::Settings) => settings::diagnostics(environment, &text, self.encoding()),
            Some(OwnFile::Scenario) => scenario::diagnostics(&text, self.encoding()),
            None => return,
        };
        self.client.publish_diagnostics(uri, diagnostics, None).await;
    }
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

    async fn publish(&self, path: &Path, problems: &[Problem], text: &Text) {
        let uri = self.uris.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(uri) = uri {
            let encoding = self.encoding();
            let diagnostics = problems.iter().map(|problem| convert::diagnostic(problem, text, encoding)).collect();
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
    /// Tracepoints of the server's own, once it knows its folders.
    traces: Mutex<Option<Arc<Traces>>>,
}

impl Backend {
    fn new(client: Client, environment: Arc<dyn Environment>, shared: Shared) -> Backend {
        let editor =
            LspEditor { client, abilities: Mutex::default(), encoding: Mutex::default(), uris: Mutex::default() };
        Backend {
            shared,
            editor: Arc::new(editor),
            environment,
            folders: Mutex::default(),
            driving: Mutex::default(),
            traces: Mutex::default(),
        }
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

    fn traces(&self) -> Option<Arc<Traces>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a command; what became of it, for a person.
    async fn run(&self, params: ExecuteCommandParams) -> std::result::Result<String, String> {
        let Some(traces) = self.traces() else { return Err("the editor has not told that it is ready".to_owned()) };
        let argument = params.arguments.into_iter().next().unwrap_or_default();
        let wrong = |why: serde_json::Error| format!("{}: its argument cannot be read: {why}", params.command);
        let path = |line: &actions::Line| {
            convert::path(&line.uri).ok_or_else(|| format!("{} is no file: save it first", line.uri))
        };
        match params.command.as_str() {
            actions::TRACE => {
                let trace: actions::Trace = serde_json::from_value(argument).map_err(wrong)?;
                let wish = Wish { function: trace.function, expression: trace.expression };
                traces.trace(&path(&trace.at)?, trace.at.line.saturating_add(1), &wish).await
            }
            actions::STOP => {
                let line: actions::Line = serde_json::from_value(argument).map_err(wrong)?;
                traces.stop(&path(&line)?, line.line.saturating_add(1)).await
            }
            actions::SHOW => {
                let line: actions::Line = serde_json::from_value(argument).map_err(wrong)?;
                let path = path(&line)?;
                let is_shown = self.shared.look(|state| state.traceable(&path).is_some());
                if is_shown {
                    self.shared.apply(Event::TraceableHidden { path });
                    return Ok("what can be traced is hidden again".to_owned());
                }
                let Around { version, lines } = traces.around(&path, line.line.saturating_add(1)).await?;
                let count = lines.len();
                self.shared.apply(Event::Traceable { path, version, lines });
                Ok(format!("{count} lines around here have code in what runs; each says what can be read there"))
            }
            other => Err(format!("there is no command {other}; there are {}", actions::ALL.join(", "))),
        }
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
        let offered = params.capabilities.general.and_then(|general| general.position_encodings).unwrap_or_default();
        let encoding = Encoding::agreed(&offered);
        *self.editor.encoding.lock().unwrap_or_else(PoisonError::into_inner) = encoding;
        Ok(InitializeResult {
            capabilities: capabilities(encoding),
            server_info: Some(ServerInfo {
                name: "riptrace".to_owned(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            }),
        })
    }

    async fn initialized(&self, _: InitializedParams) {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mappers = mappers(&*self.environment, &folders);
        let traces = Traces::new(self.shared.clone(), self.environment.clone(), mappers.clone());
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Arc::new(traces));
        let driving = drive(self.shared.clone(), self.editor.clone(), self.environment.clone(), folders, mappers);
        let mut tasks = self.driving.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            tasks.spawn(driving);
        }
    }

    async fn shutdown(&self) -> Result<()> {
        if let Some(traces) = self.traces() {
            traces.close().await;
        }
        self.driving.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        self.text(&document.uri, document.version, document.text.clone());
        self.editor.publish_own(document.uri, &document.text, &*self.environment).await;
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        // Whole texts were asked for: the last one counts.
        if let Some(change) = params.content_changes.into_iter().next_back() {
            let uri = params.text_document.uri;
            self.text(&uri, params.text_document.version, change.text.clone());
            self.editor.publish_own(uri, &change.text, &*self.environment).await;
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
        let encoding = self.editor.encoding();
        Ok(Some(self.shared.look(|state| {
            let Some(text) = state.document(&path) else { return Vec::new() };
            show::hints(state, &path, first, last).iter().map(|hint| convert::hint(hint, text, encoding)).collect()
        })))
    }

    async fn hover(&self, params: HoverParams) -> Result<Option<Hover>> {
        let at = params.text_document_position_params;
        let (encoding, line) = (self.editor.encoding(), at.position.line.saturating_add(1));
        let Some(path) = convert::path(&at.text_document.uri) else { return Ok(None) };
        if let Some(own) = OwnFile::of(&at.text_document.uri) {
            let keys = match own {
                OwnFile::Settings => self.environment.settings_keys(),
                OwnFile::Scenario => &scenario::KEYS,
            };
            let meaning =
                self.shared.look(|state| settings::meaning(keys, state.document(&path)?, at.position, encoding));
            return Ok(meaning.map(markdown));
        }
        let values = self.shared.look(|state| {
            let name = state.document(&path).and_then(|text| text.name_at(at.position, encoding));
            hover::values(state, &path, line, name.map(|(name, _)| name))
        });
        if values.is_some() {
            return Ok(values.map(markdown));
        }
        let Some(traces) = self.traces().filter(|_| self.shared.look(|state| state.has_builds())) else {
            return Ok(None);
        };
        Ok(hover::prospect(&traces.look(&path, line).await).map(markdown))
    }

    async fn code_action(&self, params: CodeActionParams) -> Result<Option<Vec<CodeActionOrCommand>>> {
        let uri = params.text_document.uri;
        let Some(path) = convert::path(&uri).filter(|_| OwnFile::of(&uri).is_none()) else { return Ok(None) };
        let Some(traces) = self.traces().filter(|_| self.shared.look(|state| state.has_builds())) else {
            return Ok(None);
        };
        let (from, to, encoding) = (params.range.start, params.range.end, self.editor.encoding());
        let at = actions::Line { uri, line: from.line };
        let own = traces.has(&path, from.line.saturating_add(1));
        let offers = self.shared.look(|state| {
            let text = state.document(&path);
            actions::offers(
                &at,
                text.and_then(|text| text.selected(from, to, encoding)),
                own,
                state.traceable(&path).is_some(),
            )
        });
        let action = |offer: actions::Offer| {
            let command = Command {
                title: offer.title.clone(),
                command: offer.command.to_owned(),
                arguments: Some(vec![offer.arguments]),
            };
            let action = CodeAction { title: offer.title, command: Some(command), ..CodeAction::default() };
            CodeActionOrCommand::CodeAction(action)
        };
        Ok(Some(offers.into_iter().map(action).collect()))
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<serde_json::Value>> {
        match self.run(params).await {
            Ok(done) => {
                self.editor.client.show_message(MessageType::INFO, format!("RipTrace: {done}")).await;
                Ok(Some(serde_json::Value::String(done)))
            }
            Err(why) => Err(Error { code: ErrorCode::ServerError(REQUEST_FAILED), message: why.into(), data: None }),
        }
    }

    async fn completion(&self, params: CompletionParams) -> Result<Option<CompletionResponse>> {
        let at = params.text_document_position;
        let Some(path) = convert::path(&at.text_document.uri) else { return Ok(None) };
        let Some(own) = OwnFile::of(&at.text_document.uri) else { return Ok(None) };
        let (keys, encoding) = (self.environment.settings_keys(), self.editor.encoding());
        let items = self.shared.look(|state| {
            let text = state.document(&path)?;
            Some(match own {
                OwnFile::Settings => settings::completions(keys, text, at.position),
                OwnFile::Scenario => scenario::completions(text, at.position, encoding),
            })
        });
        Ok(items.map(CompletionResponse::Array))
    }

    async fn document_symbol(&self, params: DocumentSymbolParams) -> Result<Option<DocumentSymbolResponse>> {
        let uri = params.text_document.uri;
        let Some(path) = convert::path(&uri).filter(|_| OwnFile::of(&uri) == Some(OwnFile::Scenario)) else {
            return Ok(None);
        };
        let encoding = self.editor.encoding();
        let symbols = self.shared.look(|state| Some(scenario::symbols(state.document(&path)?, encoding)));
        Ok(symbols.map(DocumentSymbolResponse::Nested))
    }

    async fn symbol(&self, params: WorkspaceSymbolParams) -> Result<Option<Vec<SymbolInformation>>> {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (shared, encoding) = (self.shared.clone(), self.editor.encoding());
        let searching = tokio::task::spawn_blocking(move || {
            let open = |path: &Path| shared.look(|state| state.document(path).map(|text| text.as_str().to_owned()));
            scenario::workspace(&folders, &params.query, encoding, open)
        });
        searching.await.map(Some).map_err(|_| Error::internal_error())
    }
}

/// What the server offers.
fn capabilities(encoding: Encoding) -> ServerCapabilities {
    ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
        code_lens_provider: Some(CodeLensOptions { resolve_provider: Some(false) }),
        inlay_hint_provider: Some(OneOf::Left(true)),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
            code_action_kinds: Some(vec![CodeActionKind::EMPTY]),
            ..CodeActionOptions::default()
        })),
        execute_command_provider: Some(ExecuteCommandOptions {
            commands: actions::ALL.map(str::to_owned).to_vec(),
            ..ExecuteCommandOptions::default()
        }),
        completion_provider: Some(CompletionOptions::default()),
        document_symbol_provider: Some(OneOf::Left(true)),
        workspace_symbol_provider: Some(OneOf::Left(true)),
        position_encoding: Some(encoding.kind()),
        ..ServerCapabilities::default()
    }
}

fn markdown(value: String) -> Hover {
    Hover { contents: HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value }), range: None }
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

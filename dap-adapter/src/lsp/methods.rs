//! Every request and notification that an editor may send by version 3.17 of the Language Server Protocol, and what
//! RipTrace does with it: the table of `LSP.md` is made of this one.
//!
//! The table is data beside the code that acts; tests hold it to the capabilities that are offered, and to what the
//! server answers.

/// What the server does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// What the protocol says.
    Full,
    /// It is a notification of which nothing follows.
    Ignored,
    /// It is not offered; a request is answered with "method not found".
    None,
}

use Support::{Full, Ignored, None as No};

/// Method, support, and what RipTrace does.
pub(super) type Entry = (&'static str, Support, &'static str);

const OTHER: &str = "what the language's own server does is not done twice";
const WHOLE: &str = "answers are whole from the beginning";

/// Messages of the protocol, from the editor to the server.
pub(super) const METHODS: &[Entry] = &[
    ("initialize", Full, "agrees on the units of columns (UTF-8, UTF-16, UTF-32); says what this table says"),
    (
        "initialized",
        Full,
        "looks for a fleet from here on; without one everything is empty, and it is looked for again",
    ),
    ("shutdown", Full, "takes the server's own tracepoints out of the fleet"),
    ("exit", Full, "ends, though the input stays open"),
    ("$/cancelRequest", Full, "the answer is not waited for any more"),
    ("$/progress", Ignored, "the server begins no work of the editor's"),
    ("$/setTrace", Ignored, "what the server logs is told by `RUST_LOG`"),
    ("textDocument/didOpen", Full, "its lines are followed; `riptrace.toml` and scenario files are checked"),
    ("textDocument/didChange", Full, "whole texts; lines move with the text at once"),
    ("textDocument/didClose", Full, "is forgotten, with its diagnostics"),
    ("textDocument/didSave", Ignored, "the text is known from its changes"),
    ("textDocument/willSave", Ignored, "nothing depends on what is saved"),
    ("textDocument/willSaveWaitUntil", No, "nothing is formatted"),
    (
        "textDocument/hover",
        Full,
        "values over the recent hits of the line: distribution, the last five, by host; on a line \
      that is not traced, what a tracepoint would see there; in `riptrace.toml` and scenario files, what a key means",
    ),
    (
        "textDocument/inlayHint",
        Full,
        "the last values behind each line that is traced; where it was asked for, which lines can be traced \
      and what is there to be read",
    ),
    (
        "textDocument/codeLens",
        Full,
        "hits per host, drops, how many of both come in a second, and in how many processes the line is armed",
    ),
    (
        "textDocument/codeAction",
        Full,
        "trace this line, this function, this expression; stop; show what can be traced around here",
    ),
    (
        "textDocument/completion",
        Full,
        "keys of `riptrace.toml` and of scenario files, and in these the names of their tracepoints",
    ),
    (
        "textDocument/documentSymbol",
        Full,
        "of scenario files: tracepoints, stimulus, expectations; of others the language's own server does",
    ),
    ("workspace/symbol", Full, "tracepoints of the scenario files in the folders, saved or not"),
    ("workspace/executeCommand", Full, "the commands of the code actions"),
    (
        "textDocument/publishDiagnostics",
        Full,
        "(to the editor) lines that no running build has, with the reason of each; \
      what is wrong in `riptrace.toml` and in scenario files",
    ),
    ("workspace/codeLens/refresh", Full, "(to the editor) once a second at most, while hits arrive"),
    ("workspace/inlayHint/refresh", Full, "(to the editor) with it"),
    ("window/showMessage", Full, "(to the editor) what became of a command"),
    ("inlayHint/resolve", No, WHOLE),
    ("codeLens/resolve", No, WHOLE),
    ("codeAction/resolve", No, WHOLE),
    ("completionItem/resolve", No, WHOLE),
    ("documentLink/resolve", No, WHOLE),
    ("workspaceSymbol/resolve", No, WHOLE),
    ("textDocument/inlineValue", No, "while a hit is open, the debug adapter tells the values"),
    ("textDocument/diagnostic", No, "diagnostics are told when they change"),
    ("workspace/diagnostic", No, "diagnostics are told when they change"),
    ("textDocument/signatureHelp", No, OTHER),
    ("textDocument/declaration", No, OTHER),
    ("textDocument/definition", No, OTHER),
    ("textDocument/typeDefinition", No, OTHER),
    ("textDocument/implementation", No, OTHER),
    ("textDocument/references", No, OTHER),
    ("textDocument/documentHighlight", No, OTHER),
    ("textDocument/documentLink", No, OTHER),
    ("textDocument/documentColor", No, OTHER),
    ("textDocument/colorPresentation", No, OTHER),
    ("textDocument/formatting", No, OTHER),
    ("textDocument/rangeFormatting", No, OTHER),
    ("textDocument/onTypeFormatting", No, OTHER),
    ("textDocument/rename", No, OTHER),
    ("textDocument/prepareRename", No, OTHER),
    ("textDocument/foldingRange", No, OTHER),
    ("textDocument/selectionRange", No, OTHER),
    ("textDocument/linkedEditingRange", No, OTHER),
    ("textDocument/moniker", No, OTHER),
    ("textDocument/prepareCallHierarchy", No, OTHER),
    ("callHierarchy/incomingCalls", No, OTHER),
    ("callHierarchy/outgoingCalls", No, OTHER),
    ("textDocument/prepareTypeHierarchy", No, OTHER),
    ("typeHierarchy/supertypes", No, OTHER),
    ("typeHierarchy/subtypes", No, OTHER),
    ("textDocument/semanticTokens/full", No, OTHER),
    ("textDocument/semanticTokens/full/delta", No, OTHER),
    ("textDocument/semanticTokens/range", No, OTHER),
    ("workspace/willCreateFiles", No, "no file belongs to the server"),
    ("workspace/willRenameFiles", No, "no file belongs to the server"),
    ("workspace/willDeleteFiles", No, "no file belongs to the server"),
    ("workspace/didCreateFiles", Ignored, "no file belongs to the server"),
    ("workspace/didRenameFiles", Ignored, "no file belongs to the server"),
    ("workspace/didDeleteFiles", Ignored, "no file belongs to the server"),
    ("workspace/didChangeConfiguration", Ignored, "settings are in `riptrace.toml`, which is read where it is used"),
    ("workspace/didChangeWatchedFiles", Ignored, "files are read where they are used"),
    ("workspace/didChangeWorkspaceFolders", Ignored, "the folders of the beginning count"),
    ("window/workDoneProgress/cancel", Ignored, "the server begins no work of the editor's"),
    ("notebookDocument/didOpen", Ignored, "notebooks are not followed"),
    ("notebookDocument/didChange", Ignored, "notebooks are not followed"),
    ("notebookDocument/didSave", Ignored, "notebooks are not followed"),
    ("notebookDocument/didClose", Ignored, "notebooks are not followed"),
    ("riptrace/breakpoints", Full, "RipTrace's own: all breakpoints of the editor, whether a session runs or not"),
];

/// The table of `LSP.md`.
pub(super) fn table() -> String {
    let mut table = String::from("| method | | what RipTrace does |\n| --- | --- | --- |\n");
    for (method, support, does) in METHODS {
        let support = match support {
            Full => "yes",
            Ignored => "ignored",
            No => "no",
        };
        table.push_str(&format!("| `{method}` | {support} | {does} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BEGIN: &str =
        "<!-- The table is made by the crate's tests from src/lsp/methods.rs: UPDATE=1 writes it. -->\n";
    const END: &str = "<!-- end of the table -->\n";

    #[test]
    fn each_method_has_one_row() {
        let distinct: BTreeSet<&str> = METHODS.iter().map(|(method, ..)| *method).collect();
        assert_eq!(distinct.len(), METHODS.len());
    }

    #[test]
    fn the_documents_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/LSP.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("LSP.md has the beginning of the table");
        let (table_there, after) = rest.split_once(END).expect("LSP.md has the end of the table");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", table())).unwrap();
            return;
        }
        assert_eq!(table_there.trim(), table().trim(), "run this test with UPDATE=1 and read the difference");
    }
}

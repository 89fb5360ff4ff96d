//! What the editor can and how it counts: from its `initialize` request.

use super::super::types::{InitializeArguments, PathFormat};
use crate::render::text::Style;

/// The editor, as it introduced itself.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Whether output may hold colours.
    pub(super) style: Style,
    /// Whether children may be asked for in pages.
    pub(super) pages_variables: bool,
    /// Whether variables may have a type.
    pub(super) shows_types: bool,
    /// Whether it shows what takes long.
    pub(super) shows_progress: bool,
    /// Whether it is told of each row's hit once more, for a plugin that draws hits itself.
    pub(super) takes_hits: bool,
    /// Whether it can be told that what it shows is out of date.
    pub(super) takes_invalidated: bool,
    lines_start_at: i64,
    columns_start_at: i64,
    uris: bool,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            style: Style::Plain,
            pages_variables: false,
            shows_types: false,
            shows_progress: false,
            takes_hits: true,
            takes_invalidated: false,
            lines_start_at: 1,
            columns_start_at: 1,
            uris: false,
        }
    }
}

/// A path of the editor that names no file here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a file of this machine, so it cannot be found in the builds of the fleet")]
pub(super) struct NotAFile(String);

impl Client {
    /// Reads the arguments. `supportsANSIStyling` is newer than the crate's type: it is read from the raw arguments.
    pub(super) fn new(arguments: &InitializeArguments, announces_ansi: bool) -> Client {
        let start = |from_one: Option<bool>| i64::from(from_one != Some(false));
        // VS Code showed colours long before it said so.
        let is_vscode = arguments.client_id.as_deref() == Some("vscode");
        Client {
            style: if announces_ansi || is_vscode { Style::Ansi } else { Style::Plain },
            pages_variables: arguments.supports_variable_paging == Some(true),
            shows_types: arguments.supports_variable_type == Some(true),
            shows_progress: arguments.supports_progress_reporting == Some(true),
            // It draws the row itself, and each message more is one that a key has to wait for.
            takes_hits: !is_vscode,
            takes_invalidated: arguments.supports_invalidated_event == Some(true),
            lines_start_at: start(arguments.lines_start_at1),
            columns_start_at: start(arguments.columns_start_at1),
            uris: matches!(arguments.path_format, Some(PathFormat::Uri)),
        }
    }

    /// The editor's line as a line from 1; `None` when it is no line.
    pub(super) fn line_in(&self, line: i64) -> Option<u32> {
        u32::try_from(line.checked_sub(self.lines_start_at)?.checked_add(1)?).ok().filter(|&line| line > 0)
    }

    /// A line from 1 as the editor counts.
    pub(super) fn line_out(&self, line: u32) -> i64 {
        i64::from(line) - 1 + self.lines_start_at
    }

    /// The first column as the editor counts.
    pub(super) fn first_column(&self) -> i64 {
        self.columns_start_at
    }

    /// The file that a path of the editor names.
    pub(super) fn path_in(&self, path: &str) -> Result<String, NotAFile> {
        match path.split_once("://") {
            Some(("file", rest)) => percent_decoded(rest).ok_or_else(|| NotAFile(path.to_owned())),
            Some(_) => Err(NotAFile(path.to_owned())),
            None => Ok(path.to_owned()),
        }
    }

    /// A file's path as the editor wants it.
    pub(super) fn path_out(&self, path: &str) -> String {
        if self.uris { format!("file://{}", percent_encoded(path)) } else { path.to_owned() }
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn percent_encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_the_editor_counts() {
        let from_one = Client::default();
        let zero = InitializeArguments { lines_start_at1: Some(false), ..InitializeArguments::default() };
        let from_zero = Client::new(&zero, false);
        assert_eq!((from_one.line_in(42), from_one.line_out(42)), (Some(42), 42));
        assert_eq!((from_zero.line_in(41), from_zero.line_out(42)), (Some(42), 41));
        assert_eq!((from_one.line_in(0), from_zero.line_in(-1), from_one.line_in(i64::MIN)), (None, None, None));
        assert_eq!(from_zero.line_in(i64::MAX), None);
    }

    #[test]
    fn paths_may_be_uris() {
        let arguments = InitializeArguments { path_format: Some(PathFormat::Uri), ..InitializeArguments::default() };
        let client = Client::new(&arguments, false);
        assert_eq!(client.path_in("file:///a%20b/%C3%A9.go").as_deref(), Ok("/a b/é.go"));
        assert_eq!(client.path_out("/a b/é.go"), "file:///a%20b/%C3%A9.go");
        assert_eq!(client.path_in("/plain").as_deref(), Ok("/plain"));
        for bad in ["vscode-remote://ssh/a.go", "git://x", "file:///%zz", "file:///%ff", "file:///%"] {
            assert!(client.path_in(bad).is_err(), "{bad}");
        }
    }
}

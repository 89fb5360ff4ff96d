//! The tokens of a Go source: names, literals, symbols and where statements end.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    /// A number or a text.
    Literal,
    Symbol,
    /// A line that ends a statement, or a semicolon.
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// From 1.
    pub(super) line: u32,
}

impl Token<'_> {
    pub(super) fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }
}

/// Longest first.
const SYMBOLS: [&str; 24] = [
    "<<=", ">>=", "&^=", "...", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "++", "--", "==", "!=", "<=",
    ">=", "&&", "||", "<-", "<<", ">>",
];

/// Words after which a line does not end its statement; after all others that are names it does.
const OPEN_WORDS: [&str; 21] = [
    "case",
    "chan",
    "const",
    "default",
    "defer",
    "else",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut found: Vec<Token<'_>> = Vec::new();
    let (mut at, mut line) = (0, 1u32);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let first_line = line;
        match byte {
            b'\n' => {
                at += 1;
                if found.last().is_some_and(ends_statement) {
                    found.push(Token { kind: Kind::End, text: ";", line });
                }
                line += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += source[at..].find('\n').unwrap_or(source.len() - at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let length = source[at + 2..].find("*/").map_or(source.len() - at, |length| length + 4);
                let lines = bytes[at..at + length].iter().filter(|&&byte| byte == b'\n').count() as u32;
                at += length;
                // A comment over several lines is like a line's end.
                if lines > 0 && found.last().is_some_and(ends_statement) {
                    found.push(Token { kind: Kind::End, text: ";", line });
                }
                line += lines;
                continue;
            }
            b'"' | b'\'' | b'`' => {
                at += 1;
                while let Some(&inner) = bytes.get(at) {
                    at += 1;
                    match inner {
                        b'\\' if byte != b'`' => at += 1,
                        b'\n' if byte == b'`' => line += 1,
                        b'\n' => break,
                        _ if inner == byte => break,
                        _ => {}
                    }
                }
                at = at.min(bytes.len());
                // A broken escape may end inside a character.
                while !source.is_char_boundary(at) {
                    at += 1;
                }
                found.push(Token { kind: Kind::Literal, text: &source[start..at], line: first_line });
                continue;
            }
            b'0'..=b'9' => {
                while bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')) {
                    at += 1;
                }
                found.push(Token { kind: Kind::Literal, text: &source[start..at], line });
                continue;
            }
            _ => {}
        }
        let rest = &source[at..];
        let first = rest.chars().next().unwrap_or(' ');
        if first == '_' || first.is_alphabetic() {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            at += length;
            found.push(Token { kind: Kind::Name, text: &rest[..length], line });
            continue;
        }
        let length =
            SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)).map_or(first.len_utf8(), |symbol| symbol.len());
        at += length;
        let text = &rest[..length];
        found.push(Token { kind: if text == ";" { Kind::End } else { Kind::Symbol }, text, line });
    }
    found.push(Token { kind: Kind::End, text: ";", line });
    found
}

/// <https://go.dev/ref/spec#Semicolons>
fn ends_statement(last: &Token<'_>) -> bool {
    match last.kind {
        Kind::Name => !OPEN_WORDS.contains(&last.text),
        Kind::Literal => true,
        Kind::Symbol => matches!(last.text, "++" | "--" | ")" | "]" | "}"),
        Kind::End => false,
    }
}

/// The bracket that closes the one at `open`; the last token where there is none.
pub(super) fn matching(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.kind != Kind::Symbol {
            continue;
        }
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len().saturating_sub(1)
}

/// Words of the language that no variable can be named.
pub(super) fn is_word(name: &str) -> bool {
    OPEN_WORDS.contains(&name) || matches!(name, "break" | "continue" | "fallthrough" | "return")
}

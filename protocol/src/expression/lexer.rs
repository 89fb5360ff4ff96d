//! Text to tokens, one at a time. Numbers and quoted texts are read as in <https://go.dev/ref/spec#Lexical_elements>.

use super::parser::{ParseError, ParseProblem};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    /// A name, or one of the words `true`, `false`, `nil`.
    Name(&'a str),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A character.
    Rune(char),
    /// A text.
    Text(Vec<u8>),
    /// An operator or bracket.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// Longest first, so that `<<` is not read as two `<`.
const SYMBOLS: [&str; 28] = [
    "||", "&&", "&^", "==", "!=", "<=", ">=", "<<", ">>", ":=", "<", ">", "+", "-", "|", "^", "*", "/", "%", "&", "!",
    "(", ")", "[", "]", "{", "}", ":",
];
/// Symbols that stand for themselves only in error messages, and the selector's point.
const MORE_SYMBOLS: [&str; 6] = [".", ",", "=", ";", "~", "?"];

/// Reads tokens from `at` on.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Offset of the next byte.
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Lexer<'a> {
        Lexer { text, at }
    }

    /// The next token and its offset.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), ParseError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let (rest, offset) = (self.rest(), self.at);
        let Some(first) = rest.chars().next() else {
            return Ok((Token::End, offset));
        };
        let token = if first == '_' || first.is_alphabetic() {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            self.at += length;
            Token::Name(&rest[..length])
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            self.number()?
        } else if first == '"' {
            self.quoted()?
        } else if first == '`' {
            self.raw()?
        } else if first == '\'' {
            self.rune()?
        } else if let Some(&symbol) = SYMBOLS.iter().chain(&MORE_SYMBOLS).find(|&&symbol| rest.starts_with(symbol)) {
            self.at += symbol.len();
            Token::Symbol(symbol)
        } else {
            return Err(ParseError { offset, problem: ParseProblem::Character(first) });
        };
        Ok((token, offset))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn number(&mut self) -> Result<Token<'a>, ParseError> {
        let (rest, offset) = (self.rest(), self.at);
        let bad = |text: &str| ParseError { offset, problem: ParseProblem::Number(text.to_owned()) };
        let bytes = rest.as_bytes();
        let hex = bytes.first() == Some(&b'0') && matches!(bytes.get(1), Some(b'x' | b'X'));
        let mut end = 0;
        while let Some(&byte) = bytes.get(end) {
            let sign_of_exponent =
                !hex && matches!(byte, b'+' | b'-') && matches!(bytes[..end].last(), Some(b'e' | b'E'));
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || sign_of_exponent {
                end += 1;
            } else {
                break;
            }
        }
        let text = &rest[..end];
        self.at += end;
        let radix = match bytes.get(..2) {
            Some(b"0x" | b"0X") => 16,
            Some(b"0b" | b"0B") => 2,
            Some(b"0o" | b"0O") => 8,
            _ => 10,
        };
        let body = if radix == 10 { text } else { &text[2..] };
        // `_` stands between digits, or between prefix and digits.
        if body.ends_with('_') || body.contains("__") || (radix == 10 && body.starts_with('_')) {
            return Err(bad(text));
        }
        let digits = body.replace('_', "");
        if radix == 10 && digits.contains(['.', 'e', 'E']) {
            if body.contains("_.") || body.contains("._") || body.contains("_e") || body.contains("_E") {
                return Err(bad(text));
            }
            return match digits.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Token::Float(value)),
                Ok(_) => Err(ParseError { offset, problem: ParseProblem::NumberTooLarge(text.to_owned()) }),
                Err(_) => Err(bad(text)),
            };
        }
        // As in Go, a leading 0 alone means octal.
        let radix = if radix == 10 && digits.len() > 1 && digits.starts_with('0') { 8 } else { radix };
        if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
            return Err(bad(text));
        }
        match i128::from_str_radix(&digits, radix) {
            Ok(value) => Ok(Token::Int(value)),
            Err(_) => Err(ParseError { offset, problem: ParseProblem::NumberTooLarge(text.to_owned()) }),
        }
    }

    fn quoted(&mut self) -> Result<Token<'a>, ParseError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.rest().chars().next() {
                Some('"') => {
                    self.at += 1;
                    return Ok(Token::Text(bytes));
                }
                Some('\\') => match self.escape('"')? {
                    Escaped::Char(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    Escaped::Byte(byte) => bytes.push(byte),
                },
                Some(c) if c != '\n' => {
                    bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += c.len_utf8();
                }
                _ => return Err(ParseError { offset: start, problem: ParseProblem::OpenText('"') }),
            }
        }
    }

    fn raw(&mut self) -> Result<Token<'a>, ParseError> {
        let body = &self.rest()[1..];
        let Some(length) = body.find('`') else {
            return Err(ParseError { offset: self.at, problem: ParseProblem::OpenText('`') });
        };
        self.at += length + 2;
        Ok(Token::Text(body[..length].bytes().filter(|&byte| byte != b'\r').collect()))
    }

    fn rune(&mut self) -> Result<Token<'a>, ParseError> {
        let start = self.at;
        let open = ParseError { offset: start, problem: ParseProblem::OpenText('\'') };
        self.at += 1;
        let value = match self.rest().chars().next() {
            Some('\\') => match self.escape('\'')? {
                Escaped::Char(c) => c,
                Escaped::Byte(byte) => char::from(byte),
            },
            Some(c) if c != '\'' && c != '\n' => {
                self.at += c.len_utf8();
                c
            }
            _ => return Err(open),
        };
        if !self.rest().starts_with('\'') {
            return Err(open);
        }
        self.at += 1;
        Ok(Token::Rune(value))
    }

    /// Reads an escape that starts at `\`.
    fn escape(&mut self, quote: char) -> Result<Escaped, ParseError> {
        let (rest, offset) = (self.rest(), self.at);
        let bad = |length: usize| {
            let text = rest.chars().take(length).collect();
            ParseError { offset, problem: ParseProblem::Escape(text) }
        };
        let Some(letter) = rest[1..].chars().next() else {
            return Err(bad(1));
        };
        let simple = match letter {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' => Some('\\'),
            _ if letter == quote => Some(quote),
            _ => None,
        };
        if let Some(c) = simple {
            self.at += 2;
            return Ok(Escaped::Char(c));
        }
        let (skip, digits, radix) = match letter {
            'x' => (2, 2, 16),
            'u' => (2, 4, 16),
            'U' => (2, 8, 16),
            '0'..='7' => (1, 3, 8),
            _ => return Err(bad(2)),
        };
        let code = rest
            .get(skip..skip + digits)
            .filter(|text| text.chars().all(|c| c.is_digit(radix)))
            .and_then(|text| u32::from_str_radix(text, radix).ok())
            .ok_or_else(|| bad(skip + digits))?;
        self.at += skip + digits;
        match letter {
            'u' | 'U' => char::from_u32(code).map(Escaped::Char).ok_or_else(|| bad(skip + digits)),
            _ => u8::try_from(code).map(Escaped::Byte).map_err(|_| bad(skip + digits)),
        }
    }
}

enum Escaped {
    Char(char),
    Byte(u8),
}

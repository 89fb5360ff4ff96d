//! Quoting as Go's `strconv.Quote` does it: what is printable stays, everything else is escaped.

use std::fmt::Write as _;

/// `bytes` between double quotes; bytes that are no UTF-8 become `\x..`.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    escape_into(&mut out, bytes, Some('"'));
    out.push('"');
    out
}

/// `c` between single quotes.
pub fn rune(c: char) -> String {
    let mut out = String::from("'");
    escape_char(&mut out, c, Some('\''));
    out.push('\'');
    out
}

/// `bytes` without quotes, on one line: for text that a person reads as text. Quotes and backslashes stay.
pub fn plain(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(&mut out, bytes, None);
    out
}

/// A float as Go's `%v` writes it: the shortest digits that read back to it, with an exponent below 1e-4 and from
/// 1e21 on. `single` says that the program has it in 32 bits.
pub fn float(value: f64, single: bool) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = if single { format!("{:e}", value as f32) } else { format!("{value:e}") };
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    if value == 0.0 || (-4..21).contains(&exponent) {
        return if single { format!("{}", value as f32) } else { format!("{value}") };
    }
    let digits = scientific.split_once('e').map_or(scientific.as_str(), |(digits, _)| digits);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn escape_into(out: &mut String, bytes: &[u8], quote: Option<char>) {
    for part in bytes.utf8_chunks() {
        part.valid().chars().for_each(|c| escape_char(out, c, quote));
        for byte in part.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

fn escape_char(out: &mut String, c: char, quote: Option<char>) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0b' => out.push_str("\\v"),
        '\x0c' => out.push_str("\\f"),
        '\\' if quote.is_some() => out.push_str("\\\\"),
        _ if Some(c) == quote => {
            out.push('\\');
            out.push(c);
        }
        _ if c.is_ascii() && !c.is_ascii_control() => out.push(c),
        _ if !c.is_ascii() && is_printable(c) => out.push(c),
        _ => {
            // Writing to a string cannot fail.
            let _ = match u32::from(c) {
                code @ 0..=0x7f => write!(out, "\\x{code:02x}"),
                code @ 0x80..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// Whether a character beyond ASCII has a glyph of its own or joins the one before it.
fn is_printable(c: char) -> bool {
    if c.is_whitespace() {
        return false;
    }
    // Behind a letter, `escape_debug` leaves combining marks as they are, and escapes only what cannot be printed.
    let mut behind_a_letter = String::with_capacity(5);
    behind_a_letter.push('a');
    behind_a_letter.push(c);
    behind_a_letter.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (bytes, quoted) in [
            (b"a\"b\\c'".as_slice(), r#""a\"b\\c'""#),
            (b"\n\t\r\x00\x1b\x7f", r#""\n\t\r\x00\x1b\x7f""#),
            ("é日\u{301}😀".as_bytes(), "\"é日\u{301}😀\""),
            (b"ok\xff\xc3", r#""ok\xff\xc3""#),
            ("\u{200b}\u{a0}\u{e0001}".as_bytes(), r#""\u200b\u00a0\U000e0001""#),
            (b"", "\"\""),
        ] {
            assert_eq!(text(bytes), quoted);
        }
        assert_eq!(rune('\''), r"'\''");
        assert_eq!(rune('"'), "'\"'");
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (-2.5e300, "-2.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(value, false), text);
        }
        assert_eq!(float(f64::from(0.1f32), true), "0.1");
        assert_eq!(float(f64::from(1e-7f32), true), "1e-07");
    }

    #[test]
    fn plain_text_stays_on_one_line() {
        assert_eq!(plain(b"say \"hi\"\n\xff"), "say \"hi\"\\n\\xff");
    }
}

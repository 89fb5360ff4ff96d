//! Standard output: JSON lines for programs, aligned text for people.
//!
//! A reader that went away (`riptrace trace .. | head`) ends the command quietly instead of with a panic.

use std::io::{self, IsTerminal, Write};

/// Writes one JSON object and a line end, at once.
pub fn json_line(object: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, object)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes one line of text.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Says what is going on, on standard error.
pub fn note(text: &str) {
    // Nobody reads standard error any more: there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether standard output is a terminal that may be coloured (<https://no-color.org>).
pub fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Lays out rows in columns as wide as their widest cell; the last column is not padded.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..header.len())
        .map(|i| {
            let widest = rows.iter().map(|row| cell(row, i).chars().count()).max().unwrap_or(0);
            widest.max(header[i].chars().count())
        })
        .collect();
    let lay = |row: &[String]| {
        let mut text = String::new();
        for (i, width) in widths.iter().enumerate() {
            let value = cell(row, i);
            if i + 1 == widths.len() {
                text.push_str(&value);
            } else {
                text.push_str(&format!("{value:width$}  "));
            }
        }
        text.trim_end().to_owned()
    };
    let header: Vec<String> = header.iter().map(|&h| h.to_owned()).collect();
    std::iter::once(lay(&header)).chain(rows.iter().map(|row| lay(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["web-1".into(), "1".into()], vec!["a".into(), "200".into()]];
        assert_eq!(table(&["HOST", "N"], &rows), ["HOST   N", "web-1  1", "a      200"]);
    }
}

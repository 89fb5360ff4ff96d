//! Hits, drops and states as lines of text.

use super::time;
use crate::timeline::Dictionaries;
use crate::timeline::values::HitValues;
use riptrace_protocol::fleet::{Mechanism, ProbeState, ProbeStatus};
use riptrace_protocol::layout::Moment;
use riptrace_protocol::stream::{OrderedHit, StreamDrop};
use riptrace_protocol::value::{Scalar, Value};
use std::fmt::Write as _;

/// Characters of all values in a line without a log message.
const SUMMARY_CHARS_MAX: usize = 120;
/// Characters of one value in such a line.
const SUMMARY_VALUE_CHARS_MAX: usize = 40;

/// Bytes of a text that are written in base 16, at most.
const BYTES_SHOWN_MAX: usize = 1024;

/// Whether a line may have colours (ANSI escape sequences).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// With colours.
    Ansi,
}

impl Style {
    /// `text` in grey.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// `text` in yellow.
    pub fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The line of a hit, without an end: its log message, or its place and values; then host, service, time and
/// uncertainty, and what is to be said of its order.
pub fn hit(hit: &OrderedHit, dictionaries: &Dictionaries, style: Style) -> String {
    hit_with(hit, dictionaries, &HitValues::decode(hit, dictionaries), style)
}

/// As [`hit`], with values that were decoded before.
pub fn hit_with(hit: &OrderedHit, dictionaries: &Dictionaries, values: &HitValues, style: Style) -> String {
    let told = match dictionaries.message(&hit.raw.tracepoint) {
        Some(_) => format!("{} {}", message(hit, dictionaries, values), took(hit)),
        None => {
            let place = place(hit, dictionaries);
            let passage = passage(hit, dictionaries);
            format!("hit {} {place} {passage}{}", hit.seq, message(hit, dictionaries, values))
        }
    };
    format!("{}  {}", told.trim_end(), style.dim(&origin(hit)))
}

/// `→ main.Add `, `← main.Add (took 1.2 ms) `, or nothing where just a line is passed.
fn passage(hit: &OrderedHit, dictionaries: &Dictionaries) -> String {
    let Some(layout) = dictionaries.layout(&hit.raw.layout) else { return String::new() };
    let function = layout.site.function.rsplit('/').next().unwrap_or_default();
    match (layout.moment, took(hit)) {
        (Moment::Line, _) => String::new(),
        (Moment::Entry, _) => format!("→ {function} "),
        (Moment::Return, took) if took.is_empty() => format!("← {function} "),
        (Moment::Return, took) => format!("← {function} {took} "),
    }
}

/// `(took 1.2 ms)` where that is known, else nothing.
fn took(hit: &OrderedHit) -> String {
    hit.raw.duration_ns.map_or_else(String::new, |ns| format!("(took {})", time::duration(ns)))
}

/// What a hit says: its log message with values, else a summary of its values.
pub fn message(hit: &OrderedHit, dictionaries: &Dictionaries, values: &HitValues) -> String {
    match dictionaries.message(&hit.raw.tracepoint) {
        Some(template) => one_line(&values.format(template)),
        None => summary(values),
    }
}

/// `cart.go:42`: the innermost file's name and line; the site's address where nothing else is known.
pub fn place(hit: &OrderedHit, dictionaries: &Dictionaries) -> String {
    match dictionaries.place(hit) {
        Some(frame) if !frame.file.is_empty() => {
            format!("{}:{}", frame.file.rsplit('/').next().unwrap_or_default(), frame.line)
        }
        Some(frame) => frame.function,
        None => hit.raw.stack.first().map_or_else(|| "at an unknown place".to_owned(), |pc| format!("{:#x}", pc.0)),
    }
}

/// `web-1 cart 10:00:00.000123 ±41µs`, and what is to be said of the order.
pub fn origin(hit: &OrderedHit) -> String {
    let clock = time::clock(hit.time_ns);
    let uncertainty = time::uncertainty(hit.uncertainty_ns, "");
    let mut text = format!("{} {} {clock} {uncertainty}", hit.host, hit.service);
    if !hit.undetermined_with.is_empty() {
        text.push_str(&format!(" (order not certain with {})", list(&hit.undetermined_with)));
    }
    if hit.late {
        text.push_str(" (late: later hits were shown before it)");
    }
    text
}

/// `1, 2, 3`.
pub fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// `qty=3 sku="tea"`: as many variables as fit a line.
fn summary(values: &HitValues) -> String {
    if let Some(problem) = &values.problem {
        return format!("<{problem}>");
    }
    let mut text = String::new();
    let mut chars = 0;
    let count = values.all().len();
    for (index, value) in values.all().iter().enumerate() {
        let part = format!("{}={}", value.name, cut(&value_text(value), SUMMARY_VALUE_CHARS_MAX));
        chars += part.chars().count() + 1;
        if chars > SUMMARY_CHARS_MAX {
            text.push_str(&format!(" (and {} more)", count - index));
            break;
        }
        if index > 0 {
            text.push(' ');
        }
        text.push_str(&part);
    }
    text
}

/// A value as the language writes it, with the note of its status behind it.
pub fn value_text(value: &Value) -> String {
    let note = value.status.note();
    match (value.value.is_empty(), note.is_empty()) {
        (_, true) => value.value.clone(),
        (true, false) => note,
        (false, false) => format!("{} {note}", value.value),
    }
}

/// How whole numbers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// As the language writes the value.
    #[default]
    Natural,
    /// In base 16: `0x1f`.
    Hex,
    /// In base 8: `0o17`.
    Octal,
    /// In base 2: `0b101`.
    Binary,
    /// As a character: `'a'`.
    Character,
    /// The bytes of a text in base 16.
    Bytes,
}

impl Format {
    /// The format of a letter behind an expression (`qty,x`).
    pub fn of(letter: &str) -> Option<Format> {
        Some(match letter {
            "d" => Format::Natural,
            "x" | "h" => Format::Hex,
            "o" => Format::Octal,
            "b" => Format::Binary,
            "c" => Format::Character,
            "m" => Format::Bytes,
            _ => return None,
        })
    }
}

/// A value's text in a format; what the format is not for is written naturally.
pub fn formatted(value: &Value, format: Format) -> String {
    let number = match &value.scalar {
        Some(Scalar::Int(number)) if value.status.is_shown() => *number,
        Some(Scalar::Text(bytes) | Scalar::TextPart { shown: bytes, .. }) if format == Format::Bytes => {
            let digits: Vec<String> = bytes.iter().take(BYTES_SHOWN_MAX).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > BYTES_SHOWN_MAX { " …" } else { "" };
            return format!("{}{more}", digits.join(" "));
        }
        _ => return value_text(value),
    };
    let sign = if number < 0 { "-" } else { "" };
    let size = number.unsigned_abs();
    match format {
        Format::Hex => format!("{sign}{size:#x}"),
        Format::Octal => format!("{sign}{size:#o}"),
        Format::Binary => format!("{sign}{size:#b}"),
        Format::Character => match u32::try_from(number).ok().and_then(char::from_u32) {
            Some(character) => format!("{character:?}"),
            None => value_text(value),
        },
        Format::Natural | Format::Bytes => value_text(value),
    }
}

/// A value with all that is known of its parts, a line for each: what a person wants to paste elsewhere.
pub fn whole(value: &Value) -> String {
    if value.children.is_empty() {
        return match &value.scalar {
            Some(Scalar::Text(bytes)) if value.status.is_shown() => String::from_utf8_lossy(bytes).into_owned(),
            _ => value_text(value),
        };
    }
    let mut text = String::new();
    tree(value, 0, &mut text);
    text
}

fn tree(value: &Value, depth: usize, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{:indent$}{}", "", value_text(value), indent = 0);
    for part in &value.children {
        let _ = write!(text, "\n{:indent$}{}: ", "", part.name, indent = 2 * (depth + 1));
        tree(part, depth + 1, text);
    }
}

/// The first `max` characters.
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Line ends would tear a row apart.
fn one_line(text: &str) -> String {
    text.replace("\r\n", "⏎").replace(['\n', '\r'], "⏎")
}

/// The line of missing hits, without an end.
pub fn drop(drop: &StreamDrop, style: Style) -> String {
    let hits = if drop.count == 1 { "1 hit".to_owned() } else { format!("{} hits", drop.count) };
    let process = drop.process.map_or_else(String::new, |key| format!(" pid {}", key.pid));
    style.warning(&format!("{hits} dropped ({}) at {}{process}", drop.reason.as_str(), drop.host))
}

/// The line of a probe's state, without an end.
pub fn status(status: &ProbeStatus, style: Style) -> String {
    let who = format!("{} {}[{}]", status.process.host, status.service, status.process.key.pid);
    match status.state {
        ProbeState::Pending => format!("{who}: arming"),
        ProbeState::Armed => {
            let sites =
                if status.sites.len() == 1 { "1 site".to_owned() } else { format!("{} sites", status.sites.len()) };
            let mechanism = status.mechanism.map_or_else(String::new, |m| format!(", {}", mechanism(m)));
            let note = status.note.as_deref().map_or_else(String::new, |note| format!(": {note}"));
            format!("{who}: armed ({sites}{mechanism}){note}")
        }
        ProbeState::Refused | ProbeState::Absent | ProbeState::Off => {
            let word = super::json::state_word(status.state);
            let reason = status.reason.as_deref().unwrap_or("no reason given");
            let rest = if status.unfinished { "; what it counted last is still to come" } else { "" };
            style.warning(&format!("{who}: {word}: {reason}{rest}"))
        }
    }
}

/// The word of a mechanism, with its cost where a person should know it.
pub fn mechanism(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Jump => "jump",
        Mechanism::Trap => "trap, microseconds per hit",
        Mechanism::Ptrace => "ptrace, stops the hitting thread for tens of microseconds",
    }
}

//! Where a tracepoint is: `FILE:LINE` or a function name, as a person writes it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a tracepoint is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Location {
    /// A line of a source file.
    Line {
        /// Path, or any suffix of it that starts at a `/` boundary, as the build knows it.
        file: String,
        /// Line, from 1.
        line: u32,
    },
    /// A function: its entry past the prologue, its returns, or both.
    Function {
        /// Full name (`main.(*Cart).Add`), or an unambiguous suffix that starts at a `/` or `.` boundary. With a `*` that
        /// does not follow a `(`, it is a pattern: all functions that fit it, at most
        /// [`PATTERN_FUNCTIONS_MAX`](crate::limits::PATTERN_FUNCTIONS_MAX) of a build; never those of Go's runtime.
        name: String,
        /// Which of its ends.
        #[serde(default, skip_serializing_if = "FunctionPoint::is_entry")]
        at: FunctionPoint,
    },
}

/// Which ends of a function a tracepoint is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionPoint {
    /// Its entry, past the prologue: written as the name alone.
    #[default]
    Entry,
    /// Every return: written `NAME:return`.
    Return,
    /// Its entry and every return, so that each return says how long the call took: written `NAME:call`.
    Call,
}

impl FunctionPoint {
    /// Whether it is the entry alone.
    pub fn is_entry(&self) -> bool {
        *self == FunctionPoint::Entry
    }

    /// What stands behind the name: `:return`, `:call` or nothing.
    pub fn suffix(self) -> &'static str {
        match self {
            FunctionPoint::Entry => "",
            FunctionPoint::Return => ":return",
            FunctionPoint::Call => ":call",
        }
    }
}

/// A text that is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLocation {
    /// Nothing there.
    #[error("empty location: write FILE:LINE or a function name")]
    Empty,
    /// The line is 0 or does not fit.
    #[error("{0:?} is not a line number: lines count from 1")]
    Line(String),
}

impl Location {
    /// Reads `FILE:LINE` or a function name, which `:return` or `:call` may follow. A text whose last `:` is followed by
    /// digits is a line; the `::` of a path (`queue::call`) begins no suffix.
    pub fn parse(text: &str) -> Result<Location, BadLocation> {
        let text = text.trim();
        if let Some((file, line)) = text.rsplit_once(':')
            && !file.is_empty()
            && !line.is_empty()
            && line.bytes().all(|b| b.is_ascii_digit())
        {
            return match line.parse() {
                Ok(line) if line > 0 => Ok(Location::Line { file: file.to_owned(), line }),
                _ => Err(BadLocation::Line(line.to_owned())),
            };
        }
        if text.is_empty() {
            return Err(BadLocation::Empty);
        }
        let points = [FunctionPoint::Return, FunctionPoint::Call];
        let ends = |at: &FunctionPoint| {
            let name = text.strip_suffix(at.suffix())?;
            (!name.is_empty() && !name.ends_with(':')).then(|| Location::Function { name: name.to_owned(), at: *at })
        };
        let named = || Location::Function { name: text.to_owned(), at: FunctionPoint::Entry };
        Ok(points.iter().find_map(ends).unwrap_or_else(named))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Line { file, line } => write!(f, "{file}:{line}"),
            Location::Function { name, at } => write!(f, "{name}{}", at.suffix()),
        }
    }
}

/// Whether `path` is `suffix`, or ends in it at a `/` boundary.
pub fn path_has_suffix(path: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_start_matches("./");
    match path.strip_suffix(suffix) {
        Some(rest) => !suffix.is_empty() && (rest.is_empty() || rest.ends_with('/') || suffix.starts_with('/')),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_a_function_are_told_apart() {
        let line = |file: &str, line| Ok(Location::Line { file: file.into(), line });
        let function = |name: &str| Ok(Location::Function { name: name.into(), at: FunctionPoint::Entry });
        assert_eq!(Location::parse("cart/cart.go:42"), line("cart/cart.go", 42));
        assert_eq!(Location::parse("main.(*Cart).Add"), function("main.(*Cart).Add"));
        assert_eq!(Location::parse("std::vec::push"), function("std::vec::push"));
        assert_eq!(Location::parse("a.go:0"), Err(BadLocation::Line("0".into())));
        assert_eq!(Location::parse("  "), Err(BadLocation::Empty));
    }

    #[test]
    fn the_ends_of_a_function_are_named_behind_it() {
        let end = |name: &str, at| Ok(Location::Function { name: name.into(), at });
        for (text, expected) in [
            ("main.(*Cart).Add:return", end("main.(*Cart).Add", FunctionPoint::Return)),
            ("main.(*Cart).Add:call", end("main.(*Cart).Add", FunctionPoint::Call)),
            ("queue::call", end("queue::call", FunctionPoint::Entry)),
            ("queue::call:call", end("queue::call", FunctionPoint::Call)),
            (":call", end(":call", FunctionPoint::Entry)),
        ] {
            assert_eq!(Location::parse(text), expected);
            assert_eq!(expected.map(|location| location.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_suffix_starts_at_a_slash() {
        assert!(path_has_suffix("/src/shop/cart/cart.go", "cart/cart.go"));
        assert!(path_has_suffix("cart.go", "cart.go"));
        assert!(!path_has_suffix("/src/mycart.go", "cart.go"));
        assert!(!path_has_suffix("/src/cart.go", ""));
    }
}

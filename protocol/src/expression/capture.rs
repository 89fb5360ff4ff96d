//! Captures: an expression, and behind the word `with` the limits that hold for it alone:
//! `order.Lines with elements=500, string_bytes=64`.
//!
//! `with` is no operator of the languages that are traced, so it ends the expression. The limits are those of a tracepoint
//! ([`CaptureLimits`]) that are of one value; those that are not written are the tracepoint's.

use super::ast::Expr;
use super::lexer::Token;
use super::parser::{ParseError, ParseProblem, Parser, checked_length};
use crate::limits::{HIT_BYTES_MAX, VALUE_CHILDREN_MAX, VALUE_DEPTH_MAX};
use crate::tracepoint::CaptureLimits;
use std::fmt;

/// What a tracepoint captures besides the variables in scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// Of what.
    pub expr: Expr,
    /// How much of it, where that is not what the tracepoint says.
    pub limits: OwnLimits,
}

/// Limits of one capture; `None` where the tracepoint's holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnLimits {
    /// Bytes of a string, 0 to [`HIT_BYTES_MAX`].
    pub string_bytes: Option<u32>,
    /// Elements of a slice, array, map or channel, 0 to [`VALUE_CHILDREN_MAX`].
    pub elements: Option<u32>,
    /// Pointers followed below the value, 0 to [`VALUE_DEPTH_MAX`].
    pub depth: Option<u32>,
    /// Fields of a struct, 0 to [`VALUE_CHILDREN_MAX`].
    pub fields: Option<u32>,
}

/// Names of the limits, and the largest of each.
const LIMITS: [(&str, usize); 4] = [
    ("string_bytes", HIT_BYTES_MAX),
    ("elements", VALUE_CHILDREN_MAX),
    ("depth", VALUE_DEPTH_MAX),
    ("fields", VALUE_CHILDREN_MAX),
];

impl OwnLimits {
    /// The limits that hold for a capture of a tracepoint with these.
    pub fn over(self, tracepoint: &CaptureLimits) -> CaptureLimits {
        CaptureLimits {
            string_bytes: self.string_bytes.unwrap_or(tracepoint.string_bytes),
            elements: self.elements.unwrap_or(tracepoint.elements),
            depth: self.depth.unwrap_or(tracepoint.depth),
            fields: self.fields.unwrap_or(tracepoint.fields),
            ..tracepoint.clone()
        }
    }

    /// In the order of [`LIMITS`].
    fn all(self) -> [Option<u32>; 4] {
        [self.string_bytes, self.elements, self.depth, self.fields]
    }

    fn slot(&mut self, name: &str) -> Option<(&mut Option<u32>, usize)> {
        let (_, most) = LIMITS.into_iter().find(|(known, _)| *known == name)?;
        let slot = match name {
            "string_bytes" => &mut self.string_bytes,
            "elements" => &mut self.elements,
            "depth" => &mut self.depth,
            _ => &mut self.fields,
        };
        Some((slot, most))
    }
}

impl Capture {
    /// Reads a capture.
    pub fn parse(text: &str) -> Result<Capture, ParseError> {
        checked_length(text)?;
        let mut parser = Parser::new(text, 0)?;
        let (expr, _) = parser.binary(1, 0)?;
        let mut limits = OwnLimits::default();
        match parser.token {
            Token::End => return Ok(Capture { expr, limits }),
            Token::Name("with") => {}
            _ => return Err(parser.unexpected("an operator, 'with' or the end of the expression")),
        }
        loop {
            parser.advance()?;
            let Token::Name(name) = parser.token else {
                return Err(parser.unexpected("a limit: string_bytes, elements, depth or fields"));
            };
            let Some((slot, most)) = limits.slot(name).filter(|(slot, _)| slot.is_none()) else {
                return parser.error(ParseProblem::Limit(name.to_owned()));
            };
            parser.advance()?;
            parser.expect("=", "'=' and a number")?;
            let number = match parser.token {
                Token::Int(number) => number,
                _ => return Err(parser.unexpected("a number")),
            };
            // At most 65536.
            let fitting = u32::try_from(number).ok().filter(|&number| number as usize <= most);
            let Some(fitting) = fitting else {
                return parser.error(ParseProblem::LimitRange { name: name.to_owned(), most });
            };
            *slot = Some(fitting);
            parser.advance()?;
            match parser.token {
                Token::End => return Ok(Capture { expr, limits }),
                Token::Symbol(",") => {}
                _ => return Err(parser.unexpected("',' and a further limit, or the end")),
            }
        }
    }
}

impl fmt::Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expr)?;
        let mut before = " with ";
        for ((name, _), limit) in LIMITS.into_iter().zip(self.limits.all()) {
            if let Some(limit) = limit {
                write!(f, "{before}{name}={limit}")?;
                before = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;

    #[test]
    fn limits_stand_behind_the_expression_and_come_before_the_tracepoints() {
        let read = |text: &str| Capture::parse(text).unwrap();
        assert_eq!(read("a.b"), Capture { expr: parse("a.b").unwrap(), limits: OwnLimits::default() });
        let limited = read(r#"m["with depth=1"] with elements = 500, depth=0x4"#);
        assert_eq!(limited.expr, parse(r#"m["with depth=1"]"#).unwrap());
        assert_eq!(limited.limits, OwnLimits { elements: Some(500), depth: Some(4), ..OwnLimits::default() });
        let of_tracepoint = CaptureLimits { string_bytes: 7, ..CaptureLimits::default() };
        let wanted = CaptureLimits { elements: 500, depth: 4, ..of_tracepoint.clone() };
        assert_eq!(limited.limits.over(&of_tracepoint), wanted);
        for text in ["x", "x with fields=3", "x[1] with string_bytes=65536, elements=0, depth=24, fields=1000"] {
            assert_eq!(read(text).to_string(), text);
        }
        // A variable may have the name.
        assert_eq!(read("with").expr, parse("with").unwrap());
        assert_eq!(read("with with depth=1").limits.depth, Some(1));
    }

    #[test]
    fn what_is_no_capture_is_refused_with_the_place() {
        for (bad, message) in [
            ("a b", "at byte 2: expected an operator, 'with' or the end of the expression, found \"b\""),
            ("a with", "at byte 6: expected a limit: string_bytes, elements, depth or fields, found the end"),
            (
                "a with size=3",
                "at byte 7: \"size\" is no limit, or was given before: there are string_bytes, elements, depth and fields",
            ),
            (
                "a with depth=1, depth=2",
                "at byte 16: \"depth\" is no limit, or was given before: there are string_bytes, elements, depth and fields",
            ),
            ("a with depth 3", "at byte 13: expected '=' and a number, found a number"),
            ("a with depth=x", "at byte 13: expected a number, found \"x\""),
            ("a with depth=25", "at byte 13: depth is 0 to 24"),
            ("a with elements=1 depth=2", "at byte 18: expected ',' and a further limit, or the end, found \"depth\""),
        ] {
            assert_eq!(Capture::parse(bad).unwrap_err().to_string(), message, "{bad}");
        }
        assert!(Capture::parse(&"x".repeat(5000)).is_err());
    }
}

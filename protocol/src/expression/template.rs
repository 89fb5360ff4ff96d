//! Log messages: text with `{expression}` parts. `{{` and `}}` stand for the braces themselves.

use super::ast::Expr;
use super::eval::{Scope, eval, in_message};
use super::parser::{ParseError, parse_in_braces};
use crate::limits::EXPRESSION_BYTES_MAX;
use std::fmt;

/// A log message that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Its parts, in order; no two texts follow each other.
    pub parts: Vec<Part>,
}

/// A part of a log message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Shown as it is.
    Text(String),
    /// Shown by its value.
    Expr(Expr),
}

/// A text that is not a log message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than a log message may be.
    #[error("the log message has {0} bytes, at most {EXPRESSION_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// What stands in braces is no expression.
    #[error("log message, {0} (write {{{{ for a brace itself)")]
    Expression(#[from] ParseError),
    /// A `}` that closes nothing.
    #[error("log message, at byte {0}: '}}' closes nothing (write }}}} for a brace itself)")]
    Unopened(usize),
}

impl Template {
    /// Reads a log message.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(TemplateError::TooLong(text.len()));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(length) = text[at..].find(['{', '}']) {
            plain.push_str(&text[at..at + length]);
            at += length;
            let rest = &text[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                plain.push_str(&rest[..1]);
                at += 2;
            } else if rest.starts_with('}') {
                return Err(TemplateError::Unopened(at));
            } else {
                let (expr, end) = parse_in_braces(text, at + 1)?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Expr(expr));
                at = end;
            }
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// The message with its values; an expression that has none leaves the reason in angle brackets.
    pub fn render(&self, scope: &dyn Scope) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Expr(expr) => text.push_str(&match eval(expr, scope) {
                    Ok(value) => in_message(&value),
                    Err(error) => error.note(),
                }),
            }
        }
        text
    }

    /// The expressions in it, in order.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Expr(expr) => Some(expr),
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Expr(expr) => write!(f, "{{{expr}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::parse;
    use proptest::prelude::*;

    #[test]
    fn text_and_expressions_are_told_apart() {
        let template = Template::parse(r#"qty={qty * 2} of {m["}"]} {{x}} {a} {b}"#).unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        let expr = |text: &str| Part::Expr(parse(text).unwrap());
        let parts = vec![
            text("qty="),
            expr("qty * 2"),
            text(" of "),
            expr(r#"m["}"]"#),
            text(" {x} "),
            expr("a"),
            text(" "),
            expr("b"),
        ];
        assert_eq!(template.parts, parts);
        assert_eq!(Template::parse("").unwrap().parts, []);
        assert_eq!(Template::parse("plain").unwrap().expressions().count(), 0);
    }

    #[test]
    fn errors_name_the_place_in_the_whole_message() {
        for (bad, message) in [
            (
                "a {b",
                "log message, at byte 4: expected an operator or '}', found the end (write {{ for a brace itself)",
            ),
            ("a {}", "log message, at byte 3: expected a value, found '}' (write {{ for a brace itself)"),
            ("a } b", "log message, at byte 2: '}' closes nothing (write }} for a brace itself)"),
            (
                "é{a b}",
                "log message, at byte 5: expected an operator or '}', found \"b\" (write {{ for a brace itself)",
            ),
        ] {
            assert_eq!(Template::parse(bad).unwrap_err().to_string(), message, "{bad}");
        }
        assert_eq!(Template::parse(&"x".repeat(4097)), Err(TemplateError::TooLong(4097)));
    }

    proptest! {
        #[test]
        fn a_template_reads_back_from_its_text(text in "[a-c{} .+\"é]{0,30}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }
    }
}

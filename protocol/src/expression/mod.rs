//! Expressions over a program's variables, as conditions, log messages, watches and captures write them.
//!
//! The syntax is Go's, reduced to what can be computed without running code of the target: names, fields, elements,
//! slices, dereferences, type assertions, literals, operators, and `len`, `cap` and `string`. One syntax tree
//! ([`ast::Expr`]) serves the agent, which compiles conditions and captures, and whoever looks at hits. A capture may have
//! limits of its own ([`capture`]).
//!
//! Invariants
//! - [`parser::parse`] never panics, and its result is at most [`crate::limits::EXPRESSION_DEPTH_MAX`] high: whoever
//!   walks it may recurse.
//! - The text of a parsed expression (`Display`) parses to the same expression again, where its brackets and escapes do not
//!   make it longer than [`crate::limits::EXPRESSION_BYTES_MAX`].
//! - [`eval::eval`] returns a value that the program would have computed, or says why it cannot.

pub mod ast;
pub mod capture;
mod compute;
pub mod eval;
mod lexer;
pub mod parser;
mod parts;
pub mod quote;
mod reach;
pub mod template;

pub use ast::{BinaryOp, Builtin, Expr, Literal, UnaryOp};
pub use capture::{Capture, OwnLimits};
pub use eval::{EvalError, Scope, eval, in_message};
pub use parser::{ParseError, ParseProblem, parse};
pub use reach::is_type_named;
pub use template::{Part, Template, TemplateError};

//! Tokens to a syntax tree: precedence climbing, with Go's precedences
//! (<https://go.dev/ref/spec#Operator_precedence>).
//!
//! What Go has and RipTrace refuses (calls, `&x`, `a[i:j:k]`, conversions) is recognised, to say so instead of reporting a
//! stray character.

use super::ast::{BinaryOp, Builtin, Expr, Literal, UnaryOp};
use super::lexer::{Lexer, Token};
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};

/// A text that is not an expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("at byte {offset}: {problem}")]
pub struct ParseError {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong there.
    pub problem: ParseProblem,
}

/// What is wrong with a text that is not an expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseProblem {
    /// Longer than an expression may be.
    #[error("the expression has {0} bytes, at most {EXPRESSION_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Nested deeper than an expression may be.
    #[error("the expression is nested more than {EXPRESSION_DEPTH_MAX} deep: split it")]
    TooDeep,
    /// A character that no expression has.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// Something else was expected.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What would have been right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A number that is not written as Go writes it.
    #[error("{0:?} is not a number")]
    Number(String),
    /// A number beyond 128 bits or beyond the floats.
    #[error("the number {0} is too large")]
    NumberTooLarge(String),
    /// A quoted text without its end.
    #[error("missing closing {0}")]
    OpenText(char),
    /// An escape that Go has not.
    #[error("unknown escape {0}")]
    Escape(String),
    /// `=`.
    #[error("'=' would assign, and RipTrace never changes a value: write '==' to compare")]
    Assignment,
    /// `&x`.
    #[error("the address of a variable is not captured: name the variable itself")]
    AddressOf,
    /// `a[i:j:k]`.
    #[error("a capacity cannot be given here: write a[low:high]")]
    FullSlice,
    /// `x.(type)`.
    #[error("x.(type) is for switches: write the type, such as x.(*pkg.Name)")]
    TypeSwitch,
    /// A call of a function of the program.
    #[error("cannot call {0}: RipTrace never runs code of the target; len, cap and string can be used")]
    Call(String),
    /// A limit of a capture that there is not, or that was given before.
    #[error("{0:?} is no limit, or was given before: there are string_bytes, elements, depth and fields")]
    Limit(String),
    /// A limit of a capture beyond its largest value.
    #[error("{name} is 0 to {most}")]
    LimitRange {
        /// Which.
        name: String,
        /// Its largest value.
        most: usize,
    },
    /// A call with no or more than one argument.
    #[error("{0} takes exactly one argument")]
    Arguments(&'static str),
}

/// Reads a whole text as one expression.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    checked_length(text)?;
    let mut parser = Parser::new(text, 0)?;
    let (expr, _) = parser.binary(1, 0)?;
    match parser.token {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("an operator or the end of the expression")),
    }
}

/// Refuses a text that is too long for an expression.
pub(super) fn checked_length(text: &str) -> Result<(), ParseError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(ParseError { offset: EXPRESSION_BYTES_MAX, problem: ParseProblem::TooLong(text.len()) });
    }
    Ok(())
}

/// Reads the expression that starts at `offset` and ends in front of a `}`; also tells the offset behind the `}`.
/// The caller has checked the length of the text.
pub(super) fn parse_in_braces(text: &str, offset: usize) -> Result<(Expr, usize), ParseError> {
    let mut parser = Parser::new(text, offset)?;
    let (expr, _) = parser.binary(1, 0)?;
    match parser.token {
        Token::Symbol("}") => Ok((expr, parser.offset + 1)),
        _ => Err(parser.unexpected("an operator or '}'")),
    }
}

/// An expression and how high its tree is: a leaf is 1 high.
type Tree = (Expr, usize);

pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next token.
    pub(super) token: Token<'a>,
    /// Where `token` starts.
    offset: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, offset: usize) -> Result<Parser<'a>, ParseError> {
        let mut lexer = Lexer::new(text, offset);
        let (token, offset) = lexer.next()?;
        Ok(Parser { lexer, token, offset })
    }

    pub(super) fn advance(&mut self) -> Result<(), ParseError> {
        (self.token, self.offset) = self.lexer.next()?;
        Ok(())
    }

    pub(super) fn error<T>(&self, problem: ParseProblem) -> Result<T, ParseError> {
        Err(ParseError { offset: self.offset, problem })
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> ParseError {
        let found = match &self.token {
            Token::Symbol("=" | ":=") => {
                return ParseError { offset: self.offset, problem: ParseProblem::Assignment };
            }
            Token::Name(name) => format!("{name:?}"),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Rune(_) => "a character".to_owned(),
            Token::Text(_) => "a text".to_owned(),
            Token::Symbol(symbol) => format!("'{symbol}'"),
            Token::End => "the end".to_owned(),
        };
        ParseError { offset: self.offset, problem: ParseProblem::Expected { expected, found } }
    }

    pub(super) fn expect(&mut self, symbol: &'static str, expected: &'static str) -> Result<(), ParseError> {
        if self.token == Token::Symbol(symbol) { self.advance() } else { Err(self.unexpected(expected)) }
    }

    /// One level higher than the higher of the two.
    fn above(&self, left: usize, right: usize) -> Result<usize, ParseError> {
        let height = left.max(right) + 1;
        if height > EXPRESSION_DEPTH_MAX { self.error(ParseProblem::TooDeep) } else { Ok(height) }
    }

    /// Operators of at least this precedence; `depth` counts the calls around, for texts such as `((((`.
    pub(super) fn binary(&mut self, precedence_min: u8, depth: usize) -> Result<Tree, ParseError> {
        let (mut left, mut height) = self.unary(depth)?;
        while let Token::Symbol(symbol) = self.token
            && let Some(op) = binary_op(symbol)
            && op.precedence() >= precedence_min
        {
            self.advance()?;
            let (right, right_height) = self.binary(op.precedence() + 1, depth + 1)?;
            height = self.above(height, right_height)?;
            left = Expr::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
        Ok((left, height))
    }

    fn unary(&mut self, depth: usize) -> Result<Tree, ParseError> {
        if depth > EXPRESSION_DEPTH_MAX {
            return self.error(ParseProblem::TooDeep);
        }
        let op = match self.token {
            Token::Symbol("-") => UnaryOp::Negate,
            Token::Symbol("+") => UnaryOp::Plus,
            Token::Symbol("!") => UnaryOp::Not,
            Token::Symbol("^") => UnaryOp::Complement,
            Token::Symbol("*") => UnaryOp::Deref,
            Token::Symbol("&" | "&&" | "&^") => return self.error(ParseProblem::AddressOf),
            _ => return self.primary(depth),
        };
        self.advance()?;
        let (of, height) = self.unary(depth + 1)?;
        let height = self.above(height, 0)?;
        Ok((Expr::Unary { op, of: Box::new(of) }, height))
    }

    fn primary(&mut self, depth: usize) -> Result<Tree, ParseError> {
        let (mut expr, mut height) = self.operand(depth)?;
        loop {
            match self.token {
                Token::Symbol(".") => {
                    self.advance()?;
                    let field = match self.token {
                        Token::Name(name) => name.to_owned(),
                        Token::Symbol("(") => {
                            self.advance()?;
                            if self.token == Token::Name("type") {
                                return self.error(ParseProblem::TypeSwitch);
                            }
                            let type_name = self.type_name(depth + 1)?;
                            self.expect(")", "')' behind the type")?;
                            expr = Expr::Assert { of: Box::new(expr), type_name };
                            height = self.above(height, 0)?;
                            continue;
                        }
                        _ => return Err(self.unexpected("the name of a field")),
                    };
                    self.advance()?;
                    expr = Expr::Select { of: Box::new(expr), field };
                    height = self.above(height, 0)?;
                }
                Token::Symbol("[") => {
                    self.advance()?;
                    (expr, height) = self.in_brackets(expr, height, depth + 1)?;
                }
                Token::Symbol("(") => return self.error(ParseProblem::Call(expr.to_string())),
                _ => return Ok((expr, height)),
            }
        }
    }

    /// What stands behind `of[`: an index, or the bounds of a slice.
    fn in_brackets(&mut self, of: Expr, mut height: usize, depth: usize) -> Result<Tree, ParseError> {
        let of = Box::new(of);
        let low = match self.token {
            Token::Symbol(":") => None,
            _ => {
                let (low, low_height) = self.binary(1, depth)?;
                height = height.max(low_height);
                Some(low)
            }
        };
        if self.token != Token::Symbol(":") {
            self.expect("]", "an operator or ']'")?;
            let height = self.above(height, 0)?;
            return match low {
                Some(index) => Ok((Expr::Index { of, index: Box::new(index) }, height)),
                None => Err(self.unexpected("an index")),
            };
        }
        self.advance()?;
        let high = match self.token {
            Token::Symbol("]") => None,
            Token::Symbol(":") => return self.error(ParseProblem::FullSlice),
            _ => {
                let (high, high_height) = self.binary(1, depth)?;
                height = height.max(high_height);
                Some(Box::new(high))
            }
        };
        if self.token == Token::Symbol(":") {
            return self.error(ParseProblem::FullSlice);
        }
        self.expect("]", "an operator or ']'")?;
        Ok((Expr::Slice { of, low: low.map(Box::new), high }, self.above(height, 0)?))
    }

    /// A type (<https://go.dev/ref/spec#Types>), as far as a dynamic type has a name: no struct, interface or function
    /// is written out.
    fn type_name(&mut self, depth: usize) -> Result<String, ParseError> {
        if depth > EXPRESSION_DEPTH_MAX {
            return self.error(ParseProblem::TooDeep);
        }
        match self.token {
            Token::Symbol("*") => {
                self.advance()?;
                Ok(format!("*{}", self.type_name(depth + 1)?))
            }
            Token::Symbol("[") => {
                self.advance()?;
                let count = match self.token {
                    Token::Int(count) => {
                        self.advance()?;
                        count.to_string()
                    }
                    _ => String::new(),
                };
                self.expect("]", "']' or the length of an array")?;
                Ok(format!("[{count}]{}", self.type_name(depth + 1)?))
            }
            Token::Name("map") => {
                self.advance()?;
                self.expect("[", "'[' and the type of the keys")?;
                let key = self.type_name(depth + 1)?;
                self.expect("]", "']' behind the type of the keys")?;
                Ok(format!("map[{key}]{}", self.type_name(depth + 1)?))
            }
            Token::Name("chan") => {
                self.advance()?;
                Ok(format!("chan {}", self.type_name(depth + 1)?))
            }
            Token::Name(name) => {
                self.advance()?;
                self.named_type(name.to_owned(), depth)
            }
            _ => Err(self.unexpected("a type")),
        }
    }

    /// The rest of a type that begins with a name: its path, its type arguments.
    fn named_type(&mut self, mut name: String, depth: usize) -> Result<String, ParseError> {
        loop {
            match self.token {
                Token::Symbol(separator @ ("." | "/" | "-")) => {
                    self.advance()?;
                    let Token::Name(next) = self.token else {
                        return Err(self.unexpected("the rest of a type's name"));
                    };
                    name.push_str(separator);
                    name.push_str(next);
                    self.advance()?;
                }
                Token::Symbol("[") => {
                    name.push('[');
                    loop {
                        self.advance()?;
                        name.push_str(&self.type_name(depth + 1)?);
                        if self.token != Token::Symbol(",") {
                            break;
                        }
                        name.push(',');
                    }
                    self.expect("]", "']' behind the type arguments")?;
                    name.push(']');
                    return Ok(name);
                }
                _ => return Ok(name),
            }
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Tree, ParseError> {
        let literal = match &mut self.token {
            Token::Symbol("(") => {
                self.advance()?;
                let tree = self.binary(1, depth + 1)?;
                self.expect(")", "an operator or ')'")?;
                return Ok(tree);
            }
            Token::Name("true") => Literal::Bool(true),
            Token::Name("false") => Literal::Bool(false),
            Token::Name("nil") => Literal::Nil,
            Token::Name(name) => {
                let name = *name;
                self.advance()?;
                if self.token == Token::Symbol("(")
                    && let Some(function) = Builtin::named(name)
                {
                    return self.call(function, depth);
                }
                return Ok((Expr::Name(name.to_owned()), 1));
            }
            Token::Int(value) => Literal::Int(*value),
            Token::Float(value) => Literal::Float(*value),
            Token::Rune(value) => Literal::Rune(*value),
            Token::Text(bytes) => Literal::Text(std::mem::take(bytes)),
            Token::Symbol(_) | Token::End => return Err(self.unexpected("a value")),
        };
        self.advance()?;
        Ok((Expr::Literal(literal), 1))
    }

    fn call(&mut self, function: Builtin, depth: usize) -> Result<Tree, ParseError> {
        self.advance()?;
        if self.token == Token::Symbol(")") {
            return self.error(ParseProblem::Arguments(function.name()));
        }
        let (argument, height) = self.binary(1, depth + 1)?;
        if self.token == Token::Symbol(",") {
            return self.error(ParseProblem::Arguments(function.name()));
        }
        self.expect(")", "an operator or ')'")?;
        let height = self.above(height, 0)?;
        Ok((Expr::Call { function, argument: Box::new(argument) }, height))
    }
}

fn binary_op(symbol: &str) -> Option<BinaryOp> {
    Some(match symbol {
        "||" => BinaryOp::Or,
        "&&" => BinaryOp::And,
        "==" => BinaryOp::Equal,
        "!=" => BinaryOp::NotEqual,
        "<" => BinaryOp::Less,
        "<=" => BinaryOp::LessOrEqual,
        ">" => BinaryOp::Greater,
        ">=" => BinaryOp::GreaterOrEqual,
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Subtract,
        "|" => BinaryOp::BitOr,
        "^" => BinaryOp::BitXor,
        "*" => BinaryOp::Multiply,
        "/" => BinaryOp::Divide,
        "%" => BinaryOp::Remainder,
        "<<" => BinaryOp::ShiftLeft,
        ">>" => BinaryOp::ShiftRight,
        "&" => BinaryOp::BitAnd,
        "&^" => BinaryOp::BitClear,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, canonical: &str) {
        let expr = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(expr.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical).unwrap(), expr, "{text}");
    }

    fn refused(text: &str, message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
    }

    #[test]
    fn operators_bind_as_in_go() {
        check("a+b*c", "a + b * c");
        check("(a+b)*c", "(a + b) * c");
        check("a-(b-c)", "a - (b - c)");
        check("a - b - c", "a - b - c");
        check("a || b && c == d | e & f", "a || b && c == d | e & f");
        check("a == (b == c)", "a == (b == c)");
        check("((a)) &^ b << 2", "a &^ b << 2");
        check("-x * -y", "-x * -y");
        check("-(x*y)", "-(x * y)");
        check("!(a && b) || ^c == +d", "!(a && b) || ^c == +d");
        check("x<-1", "x < -1");
    }

    #[test]
    fn what_follows_an_operand_binds_before_what_precedes_it() {
        check("*p.next", "*p.next");
        check("(*p).next[ i+1 ] . SKU", "(*p).next[i + 1].SKU");
        check("len(items) > 3 && items[0].Qty>=2", "len(items) > 3 && items[0].Qty >= 2");
        check("string( b ) == cap(c)", "string(b) == cap(c)");
        check("größe.日本_1", "größe.日本_1");
        check("len", "len");
    }

    #[test]
    fn slices_and_type_assertions_read_as_in_go() {
        check("a[1:n+1]", "a[1:n + 1]");
        check("a[:2][3:][:]", "a[:2][3:][:]");
        check("a [ len(b) : ] [0]", "a[len(b):][0]");
        check("err.( * fs . PathError ).Op", "err.(*fs.PathError).Op");
        check("x.([]string)[0]", "x.([]string)[0]");
        check("x.(map[string] [] int)[\"k\"][1]", "x.(map[string][]int)[\"k\"][1]");
        check("x.([4]byte)[0]", "x.([4]byte)[0]");
        check("x.(chan int)", "x.(chan int)");
        check("x.(example.com/a-b/pkg.Pair[ int , []string ]).Left", "x.(example.com/a-b/pkg.Pair[int,[]string]).Left");
    }

    #[test]
    fn literals_read_as_in_go() {
        check("0x_1F + 0b1_01 + 0o17 + 017 + 1_000_000", "31 + 5 + 15 + 15 + 1000000");
        check("1.5 + .25 + 1e3 + 2E-2 + 1.", "1.5 + 0.25 + 1000.0 + 0.02 + 1.0");
        check("'x' + '\\n' + '\\'' + '\\xff' + '\\u00e9' + '\"'", r#"'x' + '\n' + '\'' + 'ÿ' + 'é' + '"'"#);
        check(r#""a\"b\\\t\x00\xff\101é\U0001F600""#, r#""a\"b\\\t\x00\xffAé😀""#);
        check("`raw \\n \"x\"`", r#""raw \\n \"x\"""#);
        check("true != false || nil == p", "true != false || nil == p");
        check("(1).x", "(1).x");
        refused(
            "340282366920938463463374607431768211455",
            "at byte 0: the number 340282366920938463463374607431768211455 is too large",
        );
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        refused("", "at byte 0: expected a value, found the end");
        refused("a +", "at byte 3: expected a value, found the end");
        refused("a b", "at byte 2: expected an operator or the end of the expression, found \"b\"");
        refused("(a", "at byte 2: expected an operator or ')', found the end");
        refused("a[1", "at byte 3: expected an operator or ']', found the end");
        refused("a.1", "at byte 1: expected an operator or the end of the expression, found a number");
        refused("a.", "at byte 2: expected the name of a field, found the end");
        refused("a = 1", "at byte 2: '=' would assign, and RipTrace never changes a value: write '==' to compare");
        refused("&a", "at byte 0: the address of a variable is not captured: name the variable itself");
        refused("a[1:2:3]", "at byte 5: a capacity cannot be given here: write a[low:high]");
        refused("a[::3]", "at byte 3: a capacity cannot be given here: write a[low:high]");
        refused("a[]", "at byte 2: expected a value, found ']'");
        refused("a.(type)", "at byte 3: x.(type) is for switches: write the type, such as x.(*pkg.Name)");
        refused("a.(3)", "at byte 3: expected a type, found a number");
        refused("a.(p.)", "at byte 5: expected the rest of a type's name, found ')'");
        refused("a.(int", "at byte 6: expected ')' behind the type, found the end");
        refused(
            "a.f(1)",
            "at byte 3: cannot call a.f: RipTrace never runs code of the target; len, cap and string can be used",
        );
        refused("len()", "at byte 4: len takes exactly one argument");
        refused("len(a, b)", "at byte 5: len takes exactly one argument");
        refused("a # b", "at byte 2: unexpected character '#'");
        refused("\"abc", "at byte 0: missing closing \"");
        refused("'ab'", "at byte 0: missing closing '");
        refused(r#""\q""#, r"at byte 1: unknown escape \q");
        refused(r#""\400""#, r"at byte 1: unknown escape \400");
        refused("08", "at byte 0: \"08\" is not a number");
        refused("1__0", "at byte 0: \"1__0\" is not a number");
        refused("12ab", "at byte 0: \"12ab\" is not a number");
        refused("1e999", "at byte 0: the number 1e999 is too large");
    }

    #[test]
    fn nesting_and_length_are_bounded() {
        for text in ["(".repeat(4000), "-".repeat(4000), "a[".repeat(2000), format!("a{}", ".b".repeat(1000))] {
            let problem = parse(&text).unwrap_err().problem;
            assert_eq!(problem, ParseProblem::TooDeep, "{:.10}", text);
        }
        let deep = format!("{}a", "-".repeat(EXPRESSION_DEPTH_MAX - 1));
        assert!(parse(&deep).is_ok());
        assert_eq!(parse(&"a".repeat(4097)).unwrap_err().problem, ParseProblem::TooLong(4097));
    }

    fn expressions() -> impl Strategy<Value = Expr> {
        let leaf = prop_oneof![
            "[a-z_é][a-z0-9_]{0,5}"
                .prop_filter("a word", |s| !["true", "false", "nil"].contains(&s.as_str()))
                .prop_map(Expr::Name),
            (0..=i128::MAX).prop_map(|v| Expr::Literal(Literal::Int(v))),
            any::<f64>()
                .prop_filter("finite", |v| v.is_finite() && v.is_sign_positive())
                .prop_map(|v| Expr::Literal(Literal::Float(v))),
            any::<char>().prop_map(|v| Expr::Literal(Literal::Rune(v))),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(|v| Expr::Literal(Literal::Text(v))),
            any::<bool>().prop_map(|v| Expr::Literal(Literal::Bool(v))),
            Just(Expr::Literal(Literal::Nil)),
        ];
        leaf.prop_recursive(6, 48, 2, |inner| {
            let ops = [
                BinaryOp::Or,
                BinaryOp::And,
                BinaryOp::Equal,
                BinaryOp::NotEqual,
                BinaryOp::Less,
                BinaryOp::LessOrEqual,
                BinaryOp::Greater,
                BinaryOp::GreaterOrEqual,
                BinaryOp::Add,
                BinaryOp::Subtract,
                BinaryOp::BitOr,
                BinaryOp::BitXor,
                BinaryOp::Multiply,
                BinaryOp::Divide,
                BinaryOp::Remainder,
                BinaryOp::ShiftLeft,
                BinaryOp::ShiftRight,
                BinaryOp::BitAnd,
                BinaryOp::BitClear,
            ];
            let unary = [UnaryOp::Negate, UnaryOp::Plus, UnaryOp::Not, UnaryOp::Complement, UnaryOp::Deref];
            let calls = [Builtin::Len, Builtin::Cap, Builtin::String];
            prop_oneof![
                (inner.clone(), inner.clone(), proptest::sample::select(ops.to_vec()))
                    .prop_map(|(l, r, op)| Expr::Binary { op, left: Box::new(l), right: Box::new(r) }),
                (inner.clone(), proptest::sample::select(unary.to_vec()))
                    .prop_map(|(of, op)| Expr::Unary { op, of: Box::new(of) }),
                (inner.clone(), "[a-z]{1,4}").prop_map(|(of, field)| Expr::Select { of: Box::new(of), field }),
                (inner.clone(), inner.clone()).prop_map(|(of, i)| Expr::Index { of: Box::new(of), index: Box::new(i) }),
                (inner.clone(), proptest::option::of(inner.clone()), proptest::option::of(inner.clone())).prop_map(
                    |(of, low, high)| Expr::Slice {
                        of: Box::new(of),
                        low: low.map(Box::new),
                        high: high.map(Box::new)
                    }
                ),
                (inner.clone(), "(\\*|\\[\\]|map\\[string\\]|chan )?[a-z]{2,3}(\\.[A-Z]{1,2}(\\[[a-z]{2}\\])?)?")
                    .prop_filter("no word", |(_, name)| !name.contains("map") || name.starts_with("map["))
                    .prop_map(|(of, type_name)| Expr::Assert { of: Box::new(of), type_name }),
                (inner, proptest::sample::select(calls.to_vec()))
                    .prop_map(|(of, function)| Expr::Call { function, argument: Box::new(of) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_expression_reads_back_from_its_text(expr in expressions()) {
            let text = expr.to_string();
            prop_assume!(text.len() <= EXPRESSION_BYTES_MAX);
            prop_assert_eq!(parse(&text), Ok(expr), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-a-c0-9x.()\\[\\]!&|^*+\"'`\\\\ {}é=<>_e]{0,40}") {
            if let Ok(expr) = parse(&text) {
                let canonical = expr.to_string();
                prop_assert_eq!(parse(&canonical), Ok(expr), "{} -> {}", text, canonical);
            }
        }

        #[test]
        fn any_characters_are_read_or_refused(text in any::<String>()) {
            if let Err(error) = parse(&text) {
                prop_assert!(error.offset <= text.len());
            }
        }
    }
}

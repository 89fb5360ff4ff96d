//! The syntax tree of an expression, and its text.
//!
//! Parentheses are not kept: `Display` writes them where precedence needs them.

use super::quote;
use std::fmt;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Literal),
    /// A variable.
    Name(String),
    /// `of.field`: a field, through a pointer or embedded fields where needed; or a package's variable.
    Select {
        /// What has the field.
        of: Box<Expr>,
        /// The field's name.
        field: String,
    },
    /// `of[index]`: an element of an array, slice, string or map.
    Index {
        /// What has elements.
        of: Box<Expr>,
        /// Which one: its number, or its key.
        index: Box<Expr>,
    },
    /// `of[low:high]`: a part of an array, slice or string.
    Slice {
        /// What is cut.
        of: Box<Expr>,
        /// Number of its first element; 0 where it is left out.
        low: Option<Box<Expr>>,
        /// Number of the element behind its last; the length where it is left out.
        high: Option<Box<Expr>>,
    },
    /// `of.(type)`: the value in an interface, whose dynamic type must be this one.
    Assert {
        /// The interface.
        of: Box<Expr>,
        /// The type, written without spaces that mean nothing.
        type_name: String,
    },
    /// An operator in front of its operand.
    Unary {
        /// Which.
        op: UnaryOp,
        /// Its operand.
        of: Box<Expr>,
    },
    /// An operator between its operands.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Evaluated first.
        left: Box<Expr>,
        /// Evaluated second; not at all where `&&` and `||` are decided by the left one.
        right: Box<Expr>,
    },
    /// A call of a function that the language itself has.
    Call {
        /// Which.
        function: Builtin,
        /// Its only argument.
        argument: Box<Expr>,
    },
}

/// A constant. Numbers are not negative here: the sign is [`UnaryOp::Negate`].
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `12`, `0x1f`, `0b101`, `0o17`, `1_000`.
    Int(i128),
    /// `1.5`, `1e3`; finite.
    Float(f64),
    /// `'x'`.
    Rune(char),
    /// `"text"` or a raw string between backquotes: any bytes.
    Text(Vec<u8>),
    /// `true`, `false`.
    Bool(bool),
    /// `nil`.
    Nil,
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-x`.
    Negate,
    /// `+x`.
    Plus,
    /// `!x`.
    Not,
    /// `^x`: all bits turned.
    Complement,
    /// `*x`: what a pointer points to.
    Deref,
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `||`.
    Or,
    /// `&&`.
    And,
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
    /// `+`: sum, or texts put together.
    Add,
    /// `-`.
    Subtract,
    /// `|`.
    BitOr,
    /// `^`.
    BitXor,
    /// `*`.
    Multiply,
    /// `/`: integers are cut towards zero.
    Divide,
    /// `%`: has the sign of the left operand.
    Remainder,
    /// `<<`.
    ShiftLeft,
    /// `>>`.
    ShiftRight,
    /// `&`.
    BitAnd,
    /// `&^`: the left operand's bits that the right one has not.
    BitClear,
}

/// Functions of the language that read and never run code of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `len(x)`.
    Len,
    /// `cap(x)`.
    Cap,
    /// `string(x)`: text of a string, a byte slice or a rune.
    String,
}

impl UnaryOp {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            UnaryOp::Negate => "-",
            UnaryOp::Plus => "+",
            UnaryOp::Not => "!",
            UnaryOp::Complement => "^",
            UnaryOp::Deref => "*",
        }
    }
}

impl BinaryOp {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "||",
            BinaryOp::And => "&&",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Less => "<",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::BitOr => "|",
            BinaryOp::BitXor => "^",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Remainder => "%",
            BinaryOp::ShiftLeft => "<<",
            BinaryOp::ShiftRight => ">>",
            BinaryOp::BitAnd => "&",
            BinaryOp::BitClear => "&^",
        }
    }

    /// How strongly it binds, 1 to 5, as in <https://go.dev/ref/spec#Operator_precedence>; equal ones group from
    /// the left.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And => 2,
            BinaryOp::Equal
            | BinaryOp::NotEqual
            | BinaryOp::Less
            | BinaryOp::LessOrEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterOrEqual => 3,
            BinaryOp::Add | BinaryOp::Subtract | BinaryOp::BitOr | BinaryOp::BitXor => 4,
            BinaryOp::Multiply
            | BinaryOp::Divide
            | BinaryOp::Remainder
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight
            | BinaryOp::BitAnd
            | BinaryOp::BitClear => 5,
        }
    }

    /// Whether it compares, so that its result is a truth value whatever its operands are.
    pub fn compares(self) -> bool {
        self.precedence() == 3
    }
}

impl Builtin {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Builtin::Len => "len",
            Builtin::Cap => "cap",
            Builtin::String => "string",
        }
    }

    /// The function of this name.
    pub fn named(name: &str) -> Option<Builtin> {
        [Builtin::Len, Builtin::Cap, Builtin::String].into_iter().find(|builtin| builtin.name() == name)
    }
}

impl Expr {
    /// The variables that the expression names, in the order of their first use: what has to be captured for it.
    pub fn names(&self) -> Vec<&str> {
        fn walk<'a>(expr: &'a Expr, into: &mut Vec<&'a str>) {
            match expr {
                Expr::Literal(_) => {}
                Expr::Name(name) => {
                    if !into.contains(&name.as_str()) {
                        into.push(name);
                    }
                }
                Expr::Select { of, .. }
                | Expr::Assert { of, .. }
                | Expr::Unary { of, .. }
                | Expr::Call { argument: of, .. } => walk(of, into),
                Expr::Slice { of, low, high } => {
                    walk(of, into);
                    for bound in [low, high].into_iter().flatten() {
                        walk(bound, into);
                    }
                }
                Expr::Index { of: left, index: right } | Expr::Binary { left, right, .. } => {
                    walk(left, into);
                    walk(right, into);
                }
            }
        }
        let mut names = Vec::new();
        walk(self, &mut names);
        names
    }
}

/// Writes `expr`, in parentheses unless it binds at least as strongly as `min`: 1 to 5 are the operators between
/// operands, 6 those in front, 7 what may have `.field` and `[index]` behind it.
fn write(f: &mut fmt::Formatter<'_>, expr: &Expr, min: u8) -> fmt::Result {
    let strength = match expr {
        Expr::Binary { op, .. } => op.precedence(),
        // `1.x` would read as a float: literals get parentheses in front of a field.
        Expr::Unary { .. } | Expr::Literal(_) => 6,
        Expr::Name(_)
        | Expr::Select { .. }
        | Expr::Index { .. }
        | Expr::Slice { .. }
        | Expr::Assert { .. }
        | Expr::Call { .. } => 7,
    };
    if strength < min {
        f.write_str("(")?;
        write(f, expr, 0)?;
        return f.write_str(")");
    }
    match expr {
        Expr::Literal(literal) => write!(f, "{literal}"),
        Expr::Name(name) => f.write_str(name),
        Expr::Select { of, field } => {
            write(f, of, 7)?;
            write!(f, ".{field}")
        }
        Expr::Index { of, index } => {
            write(f, of, 7)?;
            f.write_str("[")?;
            write(f, index, 0)?;
            f.write_str("]")
        }
        Expr::Slice { of, low, high } => {
            write(f, of, 7)?;
            f.write_str("[")?;
            if let Some(low) = low {
                write(f, low, 0)?;
            }
            f.write_str(":")?;
            if let Some(high) = high {
                write(f, high, 0)?;
            }
            f.write_str("]")
        }
        Expr::Assert { of, type_name } => {
            write(f, of, 7)?;
            write!(f, ".({type_name})")
        }
        Expr::Unary { op, of } => {
            f.write_str(op.symbol())?;
            write(f, of, 6)
        }
        Expr::Binary { op, left, right } => {
            write(f, left, op.precedence())?;
            write!(f, " {} ", op.symbol())?;
            write(f, right, op.precedence() + 1)
        }
        Expr::Call { function, argument } => {
            write!(f, "{}(", function.name())?;
            write(f, argument, 0)?;
            f.write_str(")")
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self, 0)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Int(value) => write!(f, "{value}"),
            // `{:?}` always writes a point or an exponent: it reads back as a float.
            Literal::Float(value) => write!(f, "{value:?}"),
            Literal::Rune(value) => f.write_str(&quote::rune(*value)),
            Literal::Text(bytes) => f.write_str(&quote::text(bytes)),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Nil => f.write_str("nil"),
        }
    }
}

//! Conditions: an expression compiled to a test of the capture program.
//!
//! The rules are Go's: operands of one operator have the same type or one is a constant that fits it; integers wrap at
//! their width. What cannot be told at the hit (a nil pointer on the way, an index beyond the slice, a division by zero)
//! makes the test unknown, which is counted, and never false.

use super::path::{Found, Guard, Names, Problem, is_logical};
use super::roots;
use crate::capture::program::{Arithmetic, Comparison, FloatOperand, Operand, Test, TextOperand};
use crate::symbols::place::Part;
use crate::symbols::types::Shape;
use riptrace_protocol::expression::{BinaryOp, Builtin, Expr, Literal, UnaryOp};

/// Compiles a condition.
pub(super) fn compile(names: &Names<'_, '_>, bias: u64, expr: &Expr) -> Result<Test, Problem> {
    Compiler { names, bias }.truth(expr)
}

struct Compiler<'n, 'v, 'a> {
    names: &'n Names<'v, 'a>,
    bias: u64,
}

/// An integer type of the program.
#[derive(Debug, Clone, PartialEq)]
struct IntegerType {
    name: String,
    bits: u8,
    signed: bool,
}

/// A compiled operand.
enum Compiled {
    /// Without a type: a constant.
    Integer(Operand, Option<IntegerType>),
    /// Bytes of the type; `None` for a constant.
    Float(FloatOperand, Option<u8>),
    Text(TextOperand),
    Truth(Test),
    /// A word that is zero for nil, and what it is.
    Reference(Operand, String),
    Nil,
}

/// An operand with what must hold for it to mean anything.
struct Guarded {
    compiled: Compiled,
    guards: Vec<Guard>,
}

impl From<Compiled> for Guarded {
    fn from(compiled: Compiled) -> Guarded {
        Guarded { compiled, guards: Vec::new() }
    }
}

impl Compiler<'_, '_, '_> {
    fn truth(&self, expr: &Expr) -> Result<Test, Problem> {
        match expr {
            Expr::Binary { op, left, right } if is_logical(*op) => {
                let (left, right) = (Box::new(self.truth(left)?), Box::new(self.truth(right)?));
                Ok(if *op == BinaryOp::And { Test::And(left, right) } else { Test::Or(left, right) })
            }
            Expr::Unary { op: UnaryOp::Not, of } => Ok(Test::Not(Box::new(self.truth(of)?))),
            Expr::Binary { op, left, right } if op.compares() => self.comparison(*op, left, right),
            other => {
                let operand = self.operand(other)?;
                match operand.compiled {
                    Compiled::Truth(test) => self.guarded(test, operand.guards),
                    compiled => Err(Problem::NotTruth(kind(&compiled))),
                }
            }
        }
    }

    fn comparison(&self, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Test, Problem> {
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        let guards: Vec<Guard> = left.guards.into_iter().chain(right.guards).collect();
        let comparison = match op {
            BinaryOp::Equal => Comparison::Equal,
            BinaryOp::NotEqual => Comparison::NotEqual,
            BinaryOp::Less => Comparison::Less,
            BinaryOp::LessOrEqual => Comparison::LessOrEqual,
            BinaryOp::Greater => Comparison::Greater,
            _ => Comparison::GreaterOrEqual,
        };
        let test = compare(self.names.is_go, comparison, op.symbol(), left.compiled, right.compiled)?;
        self.guarded(test, guards)
    }

    /// A test that is unknown unless all places are some.
    fn guarded(&self, test: Test, guards: Vec<Guard>) -> Result<Test, Problem> {
        guards.into_iter().try_fold(test, |test, guard| {
            let compute = |operation, left, right| Operand::Arithmetic {
                operation,
                left: Box::new(left),
                right: Box::new(right),
                bits: 64,
                signed: true,
            };
            // A number that is negative where the place is none: its sign bit, shifted over the word, is then -1, and one
            // more is a zero to divide by, which makes the test unknown.
            let left = match guard {
                Guard::Element { length, index } => {
                    let no_place = || Problem::NoPlace("the length".to_owned());
                    let length = self.integer(&length, true).ok_or_else(no_place)?;
                    let last = compute(Arithmetic::Subtract, length, Operand::Constant(1));
                    compute(Arithmetic::Subtract, last, Operand::Constant(i128::from(index)))
                }
                // Of two numbers that differ, the difference or its opposite is negative.
                Guard::Type { word, description } => {
                    let no_place = || Problem::NoPlace("the type".to_owned());
                    let word = self.integer(&word, true).ok_or_else(no_place)?;
                    let wanted = Operand::Constant(i128::from(description.in_process(self.bias).0 as i64));
                    let apart = compute(Arithmetic::Subtract, word, wanted);
                    let opposite = compute(Arithmetic::Subtract, Operand::Constant(0), apart.clone());
                    compute(Arithmetic::Or, apart, opposite)
                }
            };
            let sign = compute(Arithmetic::ShiftRight, left, Operand::Constant(63));
            let divisor = compute(Arithmetic::Add, sign, Operand::Constant(1));
            let quotient = compute(Arithmetic::Divide, Operand::Constant(0), divisor);
            let exists = Test::Integer { comparison: Comparison::Equal, left: quotient, right: Operand::Constant(0) };
            // `exists` is true or unknown, and unknown must win over a test that is false by chance.
            let both = Test::And(Box::new(exists.clone()), Box::new(test));
            Ok(Test::Or(Box::new(both), Box::new(Test::Not(Box::new(exists)))))
        })
    }

    fn operand(&self, expr: &Expr) -> Result<Guarded, Problem> {
        match expr {
            Expr::Literal(literal) => Ok(self.literal(literal).into()),
            Expr::Unary { op: UnaryOp::Not, .. } => Ok(Compiled::Truth(self.truth(expr)?).into()),
            Expr::Unary { op: UnaryOp::Deref, .. }
            | Expr::Name(_)
            | Expr::Select { .. }
            | Expr::Index { .. }
            | Expr::Assert { .. } => self.read(expr),
            Expr::Slice { .. } => Err(Problem::Unsupported(expr.to_string())),
            Expr::Unary { op, of } => self.unary(expr, *op, of),
            Expr::Binary { op, .. } if op.compares() || is_logical(*op) => {
                Ok(Compiled::Truth(self.truth(expr)?).into())
            }
            Expr::Binary { op, left, right } => self.arithmetic(expr, *op, left, right),
            Expr::Call { function, argument } => self.call(expr, *function, argument),
        }
    }

    fn literal(&self, literal: &Literal) -> Compiled {
        match literal {
            Literal::Int(number) => Compiled::Integer(Operand::Constant(*number), None),
            Literal::Rune(rune) => Compiled::Integer(Operand::Constant(i128::from(u32::from(*rune))), None),
            Literal::Float(number) => Compiled::Float(FloatOperand::Constant(*number), None),
            Literal::Text(bytes) => Compiled::Text(TextOperand::Constant(bytes.clone())),
            Literal::Bool(truth) => Compiled::Truth(Test::Bool(Operand::Constant(i128::from(*truth)))),
            Literal::Nil => Compiled::Nil,
        }
    }

    /// The integer that some parts hold; `None` where they do not make one.
    fn integer(&self, parts: &[Part], signed: bool) -> Option<Operand> {
        Some(Operand::Read { pieces: roots::pieces(parts, self.bias)?, signed })
    }

    fn read(&self, expr: &Expr) -> Result<Guarded, Problem> {
        let found = match self.names.place(expr) {
            Err(unknown @ Problem::NoSuchName { .. }) => {
                let (value, ty) = self.names.constant(expr)?.ok_or(unknown)?;
                let name = go_name(&ty.name);
                let signed = matches!(ty.shape, Shape::Signed | Shape::Enum { signed: true, .. });
                let ty = IntegerType { name, bits: ty.bytes as u8 * 8, signed };
                return Ok(Compiled::Integer(Operand::Constant(value.into()), Some(ty)).into());
            }
            found => found?,
        };
        let facts = self.names.facts(&found)?;
        let Found { parts, guards, .. } = found;
        let no_place = || Problem::NoPlace(expr.to_string());
        let integer = |signed| -> Result<Compiled, Problem> {
            if !matches!(facts.bytes, 1 | 2 | 4 | 8) {
                return Err(Problem::Unsupported(format!("{expr} of {} bytes", facts.bytes)));
            }
            let ty = IntegerType { name: go_name(&facts.name), bits: facts.bytes as u8 * 8, signed };
            Ok(Compiled::Integer(self.integer(&parts, signed).ok_or_else(no_place)?, Some(ty)))
        };
        let reference = || -> Result<Compiled, Problem> {
            let word = roots::range(&parts, 0, 8).ok_or_else(no_place)?;
            Ok(Compiled::Reference(self.integer(&word, false).ok_or_else(no_place)?, facts.name.clone()))
        };
        let compiled = match &facts.shape {
            Shape::Signed => integer(true)?,
            Shape::Unsigned => integer(false)?,
            Shape::Enum { signed, .. } => integer(*signed)?,
            Shape::Bool => Compiled::Truth(Test::Bool(self.integer(&parts, false).ok_or_else(no_place)?)),
            Shape::Float => Compiled::Float(
                FloatOperand::Read { pieces: roots::pieces(&parts, self.bias).ok_or_else(no_place)? },
                Some(facts.bytes as u8),
            ),
            Shape::GoString => {
                Compiled::Text(TextOperand::GoString { pieces: roots::pieces(&parts, self.bias).ok_or_else(no_place)? })
            }
            Shape::Pointer(_)
            | Shape::GoSlice(_)
            | Shape::Interface { .. }
            | Shape::Map { .. }
            | Shape::Chan { .. }
            | Shape::Func => reference()?,
            _ => return Err(Problem::Unsupported(format!("{expr} of type {}", facts.name))),
        };
        Ok(Guarded { compiled, guards })
    }

    fn unary(&self, expr: &Expr, op: UnaryOp, of: &Expr) -> Result<Guarded, Problem> {
        let Guarded { compiled, guards } = self.operand(of)?;
        let compiled = match (op, compiled) {
            (UnaryOp::Plus, compiled @ (Compiled::Integer(..) | Compiled::Float(..))) => compiled,
            (UnaryOp::Negate, Compiled::Integer(operand, ty)) => {
                Compiled::Integer(compute(Arithmetic::Subtract, Operand::Constant(0), operand, &ty), ty)
            }
            (UnaryOp::Negate, Compiled::Float(FloatOperand::Constant(number), None)) => {
                Compiled::Float(FloatOperand::Constant(-number), None)
            }
            (UnaryOp::Complement, Compiled::Integer(operand, ty)) => {
                Compiled::Integer(compute(Arithmetic::Xor, operand, Operand::Constant(-1), &ty), ty)
            }
            _ => return Err(Problem::Unsupported(expr.to_string())),
        };
        Ok(Guarded { compiled, guards })
    }

    fn arithmetic(&self, expr: &Expr, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Guarded, Problem> {
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        let guards: Vec<Guard> = left.guards.into_iter().chain(right.guards).collect();
        let (Compiled::Integer(left, left_type), Compiled::Integer(right, right_type)) =
            (left.compiled, right.compiled)
        else {
            return Err(Problem::Unsupported(expr.to_string()));
        };
        let is_shift = matches!(op, BinaryOp::ShiftLeft | BinaryOp::ShiftRight);
        let ty = if is_shift {
            left_type
        } else {
            common(self.names.is_go, op.symbol(), (&left, left_type), (&right, right_type))?
        };
        let operation = match op {
            BinaryOp::Add => Arithmetic::Add,
            BinaryOp::Subtract => Arithmetic::Subtract,
            BinaryOp::Multiply => Arithmetic::Multiply,
            BinaryOp::Divide => Arithmetic::Divide,
            BinaryOp::Remainder => Arithmetic::Remainder,
            BinaryOp::BitAnd => Arithmetic::And,
            BinaryOp::BitOr => Arithmetic::Or,
            BinaryOp::BitXor => Arithmetic::Xor,
            BinaryOp::ShiftLeft => Arithmetic::ShiftLeft,
            BinaryOp::ShiftRight => Arithmetic::ShiftRight,
            BinaryOp::BitClear => {
                let mask = compute(Arithmetic::Xor, right, Operand::Constant(-1), &ty);
                let compiled = Compiled::Integer(compute(Arithmetic::And, left, mask, &ty), ty);
                return Ok(Guarded { compiled, guards });
            }
            _ => return Err(Problem::Unsupported(expr.to_string())),
        };
        Ok(Guarded { compiled: Compiled::Integer(compute(operation, left, right, &ty), ty), guards })
    }

    fn call(&self, expr: &Expr, function: Builtin, argument: &Expr) -> Result<Guarded, Problem> {
        if function == Builtin::String {
            // The text of a string is the string.
            let operand = self.operand(argument)?;
            return match operand.compiled {
                Compiled::Text(_) => Ok(operand),
                _ => Err(Problem::Unsupported(expr.to_string())),
            };
        }
        if let (Builtin::Len, Expr::Literal(Literal::Text(text))) = (function, argument) {
            return Ok(Compiled::Integer(Operand::Constant(text.len() as i128), None).into());
        }
        let found = self.names.place(argument)?;
        let facts = self.names.facts(&found)?;
        let int = IntegerType { name: "int".to_owned(), bits: 64, signed: true };
        let offset = match (&facts.shape, function) {
            (Shape::Array { count, .. }, _) => {
                return Ok(Compiled::Integer(Operand::Constant(i128::from(*count)), Some(int)).into());
            }
            (Shape::GoString | Shape::GoSlice(_), Builtin::Len) => 8,
            (Shape::GoSlice(_), Builtin::Cap) => 16,
            _ => return Err(Problem::Unsupported(format!("{expr} of type {}", facts.name))),
        };
        let word = roots::range(&found.parts, offset, 8).and_then(|parts| self.integer(&parts, true));
        let word = word.ok_or_else(|| Problem::NoPlace(expr.to_string()))?;
        Ok(Guarded { compiled: Compiled::Integer(word, Some(int)), guards: found.guards })
    }
}

/// `byte` and `rune` are other names of types.
fn go_name(name: &str) -> String {
    match name {
        "byte" => "uint8".to_owned(),
        "rune" => "int32".to_owned(),
        name => name.to_owned(),
    }
}

fn compute(operation: Arithmetic, left: Operand, right: Operand, ty: &Option<IntegerType>) -> Operand {
    let (bits, signed) = ty.as_ref().map_or((0, true), |ty| (ty.bits, ty.signed));
    Operand::Arithmetic { operation, left: Box::new(left), right: Box::new(right), bits, signed }
}

fn kind(compiled: &Compiled) -> String {
    match compiled {
        Compiled::Integer(_, Some(ty)) => ty.name.clone(),
        Compiled::Integer(_, None) => "constant".to_owned(),
        Compiled::Float(_, Some(bytes)) => format!("float{}", u32::from(*bytes) * 8),
        Compiled::Float(_, None) => "constant".to_owned(),
        Compiled::Text(_) => "string".to_owned(),
        Compiled::Truth(_) => "bool".to_owned(),
        Compiled::Reference(_, name) => name.clone(),
        Compiled::Nil => "nil".to_owned(),
    }
}

/// The type that two integers share; a constant takes the other's, if it fits.
fn common(
    is_go: bool,
    operator: &'static str,
    (left, left_type): (&Operand, Option<IntegerType>),
    (right, right_type): (&Operand, Option<IntegerType>),
) -> Result<Option<IntegerType>, Problem> {
    match (left_type, right_type) {
        (Some(left), Some(right)) if left == right => Ok(Some(left)),
        // C's usual conversions: the wider type, and of two equally wide ones the unsigned.
        (Some(left), Some(right)) if !is_go => {
            let right_wins = (right.bits, !right.signed) > (left.bits, !left.signed);
            Ok(Some(if right_wins { right } else { left }))
        }
        (Some(left), Some(right)) => Err(Problem::Mismatch { left: left.name, operator, right: right.name }),
        (Some(ty), None) => fits(right, &ty).map(|()| Some(ty)),
        (None, Some(ty)) => fits(left, &ty).map(|()| Some(ty)),
        (None, None) => Ok(None),
    }
}

fn fits(constant: &Operand, ty: &IntegerType) -> Result<(), Problem> {
    let value = match constant {
        Operand::Constant(value) => *value,
        // `-1` is a negated constant.
        Operand::Arithmetic { operation: Arithmetic::Subtract, left, right, .. } => match (&**left, &**right) {
            (Operand::Constant(0), Operand::Constant(value)) => -*value,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let (low, high) =
        if ty.signed { (-(1i128 << (ty.bits - 1)), (1i128 << (ty.bits - 1)) - 1) } else { (0, (1i128 << ty.bits) - 1) };
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Problem::ConstantRange { value: value.to_string(), type_name: ty.name.clone() })
    }
}

fn compare(
    is_go: bool,
    comparison: Comparison,
    operator: &'static str,
    left: Compiled,
    right: Compiled,
) -> Result<Test, Problem> {
    let mismatch = Problem::Mismatch { left: kind(&left), operator, right: kind(&right) };
    let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    match (left, right) {
        (Compiled::Integer(left, left_type), Compiled::Integer(right, right_type)) => {
            common(is_go, operator, (&left, left_type), (&right, right_type))?;
            Ok(Test::Integer { comparison, left, right })
        }
        (Compiled::Float(left, Some(bytes)), right @ (Compiled::Float(_, None) | Compiled::Integer(_, None))) => {
            Ok(Test::Float { comparison, left, right: rounded(right, bytes).ok_or(mismatch)? })
        }
        (left @ (Compiled::Float(_, None) | Compiled::Integer(_, None)), Compiled::Float(right, Some(bytes))) => {
            Ok(Test::Float { comparison, left: rounded(left, bytes).ok_or(mismatch)?, right })
        }
        (Compiled::Float(left, left_bytes), Compiled::Float(right, right_bytes)) if left_bytes == right_bytes => {
            Ok(Test::Float { comparison, left, right })
        }
        (Compiled::Text(left), Compiled::Text(right)) => Ok(Test::Text { comparison, left, right }),
        (Compiled::Truth(left), Compiled::Truth(right)) if is_equality => {
            let (not_left, not_right) = (Test::Not(Box::new(left.clone())), Test::Not(Box::new(right.clone())));
            let both = Test::And(Box::new(left), Box::new(right));
            let neither = Test::And(Box::new(not_left), Box::new(not_right));
            let equal = Test::Or(Box::new(both), Box::new(neither));
            Ok(if comparison == Comparison::Equal { equal } else { Test::Not(Box::new(equal)) })
        }
        (Compiled::Reference(word, _), Compiled::Nil) | (Compiled::Nil, Compiled::Reference(word, _))
            if is_equality =>
        {
            Ok(Test::Integer { comparison, left: word, right: Operand::Constant(0) })
        }
        (Compiled::Reference(left, left_type), Compiled::Reference(right, right_type))
            if is_equality && left_type == right_type && left_type.starts_with('*') =>
        {
            Ok(Test::Integer { comparison, left, right })
        }
        _ => Err(mismatch),
    }
}

/// A constant, as a float of a type.
fn rounded(constant: Compiled, bytes: u8) -> Option<FloatOperand> {
    match constant {
        Compiled::Float(FloatOperand::Constant(number), None) if bytes == 4 => {
            Some(FloatOperand::Constant(f64::from(number as f32)))
        }
        Compiled::Float(operand, None) => Some(operand),
        Compiled::Integer(operand, None) => Some(FloatOperand::Integer(operand)),
        _ => None,
    }
}

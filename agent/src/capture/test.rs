//! Conditions: three-valued, over the same registers and memory as the capture.
//!
//! What cannot be read or computed is unknown, never false. `false and unknown` is false, as `true or unknown` is true:
//! there the unknown side cannot change the answer.
//!
//! The code generator of the engine is its twin: it folds constants with the arithmetic here.

use super::interpreter::{pieces, pieces_bytes};
use super::memory::{Fault, Memory};
use super::program::{Arithmetic, Comparison, FloatOperand, Operand, Piece, Program, Test, TextOperand};
use super::registers::Registers;
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::EXPRESSION_DEPTH_MAX;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Strings longer than this are compared by their lengths alone, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Nesting of tests and operands together, at most: an expression of the deepest kind allowed, twice over.
pub(crate) const DEPTH_MAX: usize = 2 * EXPRESSION_DEPTH_MAX;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown(Unknown),
}

/// Why a condition cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Memory could not be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Division by zero.
    #[error("the condition divides by zero")]
    DivisionByZero,
    /// Shift by a negative count.
    #[error("the condition shifts by a negative count")]
    NegativeShift,
    /// A constant expression does not fit 128 bits.
    #[error("a constant of the condition does not fit 128 bits")]
    Overflow,
    /// A string has a negative length.
    #[error("a string of the condition has a negative length")]
    NegativeLength,
    /// A string is too long to be compared.
    #[error("a string of the condition is longer than {TEXT_BYTES_MAX} bytes")]
    LongText,
    /// An operand has a size that no value of its kind has.
    #[error("an operand of the condition has {bytes} bytes, which no value of its kind has")]
    Size {
        /// Its size.
        bytes: u64,
    },
    /// The condition is nested too deeply.
    #[error("the condition is nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// Whether the program's condition holds; one without a condition always does.
pub fn test(program: &Program, registers: &Registers, memory: &dyn Memory) -> Truth {
    let Some(condition) = &program.condition else { return Truth::True };
    match (Evaluation { registers, memory }).test(condition, 0) {
        Ok(true) => Truth::True,
        Ok(false) => Truth::False,
        Err(unknown) => Truth::Unknown(unknown),
    }
}

struct Evaluation<'a> {
    registers: &'a Registers,
    memory: &'a dyn Memory,
}

impl Evaluation<'_> {
    fn test(&self, test: &Test, depth: usize) -> Result<bool, Unknown> {
        let depth = deeper(depth)?;
        match test {
            Test::And(left, right) => match (self.test(left, depth), self.test(right, depth)) {
                (Ok(false), _) | (_, Ok(false)) => Ok(false),
                (Err(unknown), _) | (_, Err(unknown)) => Err(unknown),
                (Ok(true), Ok(true)) => Ok(true),
            },
            Test::Or(left, right) => match (self.test(left, depth), self.test(right, depth)) {
                (Ok(true), _) | (_, Ok(true)) => Ok(true),
                (Err(unknown), _) | (_, Err(unknown)) => Err(unknown),
                (Ok(false), Ok(false)) => Ok(false),
            },
            Test::Not(inner) => self.test(inner, depth).map(|holds| !holds),
            Test::Bool(operand) => Ok(self.integer(operand, depth)? != 0),
            Test::Integer { comparison, left, right } => {
                let ordering = self.integer(left, depth)?.cmp(&self.integer(right, depth)?);
                Ok(compares(*comparison, Some(ordering)))
            }
            Test::Float { comparison, left, right } => {
                let (left, right) = (self.float(left, right, depth)?, self.float(right, left, depth)?);
                Ok(compares(*comparison, left.partial_cmp(&right)))
            }
            Test::Text { comparison, left, right } => self.text(*comparison, left, right),
        }
    }

    fn integer(&self, operand: &Operand, depth: usize) -> Result<i128, Unknown> {
        let depth = deeper(depth)?;
        match operand {
            Operand::Constant(value) => Ok(*value),
            Operand::Read { pieces: from, signed } => {
                let bytes = pieces_bytes(from);
                if !matches!(bytes, 1 | 2 | 4 | 8) {
                    return Err(Unknown::Size { bytes });
                }
                let mut value = [0; 8];
                pieces(from, self.registers, self.memory, &mut value[..bytes as usize])?;
                Ok(wrap(i128::from(u64::from_le_bytes(value)), (bytes * 8) as u8, *signed))
            }
            Operand::Arithmetic { operation, left, right, bits, signed } => {
                let (left, right) = (self.integer(left, depth)?, self.integer(right, depth)?);
                arithmetic(*operation, left, right, *bits, *signed)
            }
        }
    }

    fn float(&self, operand: &FloatOperand, beside: &FloatOperand, depth: usize) -> Result<f64, Unknown> {
        match operand {
            FloatOperand::Constant(value) => Ok(rounded(*value, beside)),
            // The nearest float, as Go converts.
            FloatOperand::Integer(integer) => Ok(self.integer(integer, depth)? as f64),
            FloatOperand::Read { pieces: from } => {
                let mut value = [0; 8];
                match pieces_bytes(from) {
                    4 => {
                        let mut single = [0; 4];
                        pieces(from, self.registers, self.memory, &mut single)?;
                        Ok(f64::from(f32::from_le_bytes(single)))
                    }
                    8 => {
                        pieces(from, self.registers, self.memory, &mut value)?;
                        Ok(f64::from_le_bytes(value))
                    }
                    bytes => Err(Unknown::Size { bytes }),
                }
            }
        }
    }

    fn text(&self, comparison: Comparison, left: &TextOperand, right: &TextOperand) -> Result<bool, Unknown> {
        let (left, right) = (self.locate(left)?, self.locate(right)?);
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if equality && left.length() != right.length() {
            return Ok(comparison == Comparison::NotEqual);
        }
        let long = |text: &Text<'_>| matches!(text, Text::At(_, length) if *length > TEXT_BYTES_MAX as u64);
        if long(&left) || long(&right) {
            return Err(Unknown::LongText);
        }
        let ordering = match self.first_difference(&left, &right)? {
            Some(ordering) => ordering,
            None => left.length().cmp(&right.length()),
        };
        Ok(compares(comparison, Some(ordering)))
    }

    /// How the first bytes that differ compare, as far as both strings go: what lies behind them does not matter, also
    /// when it cannot be read.
    fn first_difference(&self, left: &Text<'_>, right: &Text<'_>) -> Result<Option<Ordering>, Unknown> {
        let common = left.length().min(right.length()) as usize;
        let ((left, left_fault), (right, right_fault)) = (self.prefix(left, common), self.prefix(right, common));
        let differ = left.iter().zip(right.iter()).find(|(left, right)| left != right);
        match (differ, left_fault.or(right_fault)) {
            (Some((left, right)), _) => Ok(Some(left.cmp(right))),
            (None, Some(fault)) => Err(Unknown::Fault(fault)),
            (None, None) => Ok(None),
        }
    }

    /// The first bytes of a string, and the fault that hides the rest.
    fn prefix<'t>(&self, text: &Text<'t>, bytes: usize) -> (Cow<'t, [u8]>, Option<Fault>) {
        match *text {
            Text::Known(known) => (Cow::Borrowed(&known[..bytes]), None),
            Text::At(at, _) => {
                let mut into = vec![0; bytes];
                let read = self.memory.read_prefix(at, &mut into).min(bytes);
                into.truncate(read);
                let fault = (read < bytes).then(|| Fault { at: Avma(at.0.wrapping_add(read as u64)) });
                (Cow::Owned(into), fault)
            }
        }
    }

    fn locate<'t>(&self, operand: &'t TextOperand) -> Result<Text<'t>, Unknown> {
        match operand {
            TextOperand::Constant(bytes) => Ok(Text::Known(bytes)),
            TextOperand::GoString { pieces: from } => self.go_string(from),
        }
    }

    fn go_string(&self, from: &[Piece]) -> Result<Text<'static>, Unknown> {
        let bytes = pieces_bytes(from);
        let mut header = [0; 16];
        if bytes != 16 {
            return Err(Unknown::Size { bytes });
        }
        pieces(from, self.registers, self.memory, &mut header)?;
        let header = u128::from_le_bytes(header);
        let (at, length) = (header as u64, (header >> 64) as u64);
        if i64::try_from(length).is_err() {
            return Err(Unknown::NegativeLength);
        }
        Ok(Text::At(Avma(at), length))
    }
}

/// A string whose bytes are not read yet.
enum Text<'a> {
    Known(&'a [u8]),
    At(Avma, u64),
}

impl Text<'_> {
    fn length(&self) -> u64 {
        match self {
            Text::Known(bytes) => bytes.len() as u64,
            Text::At(_, length) => *length,
        }
    }
}

fn deeper(depth: usize) -> Result<usize, Unknown> {
    if depth == DEPTH_MAX { Err(Unknown::Depth) } else { Ok(depth + 1) }
}

/// A literal beside a four-byte float is one, too: `x == 0.1` holds for the `float32` nearest to 0.1.
pub(crate) fn rounded(literal: f64, beside: &FloatOperand) -> f64 {
    match beside {
        FloatOperand::Read { pieces } if pieces_bytes(pieces) == 4 => f64::from(literal as f32),
        _ => literal,
    }
}

/// How two literals compare.
pub(crate) fn text_of_constants(comparison: Comparison, left: &[u8], right: &[u8]) -> bool {
    compares(comparison, Some(left.cmp(right)))
}

/// Whether a comparison holds; what has no order (a NaN) is only unequal.
pub(crate) fn compares(comparison: Comparison, ordering: Option<Ordering>) -> bool {
    match comparison {
        Comparison::Equal => ordering == Some(Ordering::Equal),
        Comparison::NotEqual => ordering != Some(Ordering::Equal),
        Comparison::Less => ordering == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => ordering == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// The lowest `bits` of a value, as a signed or unsigned integer; as it is for 0 bits and for 128 or more.
pub(crate) fn wrap(value: i128, bits: u8, signed: bool) -> i128 {
    if bits == 0 || bits >= 128 {
        return value;
    }
    let unused = 128 - u32::from(bits);
    if signed { value << unused >> unused } else { ((value << unused) as u128 >> unused) as i128 }
}

pub(crate) fn arithmetic(
    operation: Arithmetic,
    left: i128,
    right: i128,
    bits: u8,
    signed: bool,
) -> Result<i128, Unknown> {
    // An untyped constant has no width to wrap at.
    let exact = |checked: Option<i128>, wrapped: i128| {
        if bits == 0 { checked.ok_or(Unknown::Overflow) } else { Ok(wrapped) }
    };
    let result = match operation {
        Arithmetic::Add => exact(left.checked_add(right), left.wrapping_add(right))?,
        Arithmetic::Subtract => exact(left.checked_sub(right), left.wrapping_sub(right))?,
        Arithmetic::Multiply => exact(left.checked_mul(right), left.wrapping_mul(right))?,
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => return Err(Unknown::DivisionByZero),
        Arithmetic::Divide => exact(left.checked_div(right), left.wrapping_div(right))?,
        Arithmetic::Remainder => left.wrapping_rem(right),
        Arithmetic::And => left & right,
        Arithmetic::Or => left | right,
        Arithmetic::Xor => left ^ right,
        Arithmetic::ShiftLeft | Arithmetic::ShiftRight if right < 0 => return Err(Unknown::NegativeShift),
        Arithmetic::ShiftLeft => {
            let shifted = u32::try_from(right).ok().and_then(|count| left.checked_shl(count)).unwrap_or(0);
            let lost = right > 127 && left != 0 || right <= 127 && shifted >> right != left;
            exact((!lost).then_some(shifted), shifted)?
        }
        Arithmetic::ShiftRight => left >> right.min(127),
    };
    Ok(wrap(result, bits, signed))
}

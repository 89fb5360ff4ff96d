//! Conditions, made ready: constants are folded, what can never be told is said so, and chains of `and` and `or` are
//! flat.
//!
//! Folding is the interpreter's own arithmetic: a constant means the same to both executors.

use super::reads::{is_somewhere, may_fail};
use crate::capture::interpreter::pieces_bytes;
use crate::capture::program::{Arithmetic, Comparison, FloatOperand, Operand, Piece, Place, Test, TextOperand};
use crate::capture::test::{DEPTH_MAX, arithmetic, compares, rounded, text_of_constants, wrap};

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Truth<'p> {
    Known(bool),
    /// It cannot be told, whatever the registers and memory hold.
    Unknown,
    All(Vec<Truth<'p>>),
    Any(Vec<Truth<'p>>),
    Not(Box<Truth<'p>>),
    /// Not zero.
    Bool(Integer<'p>),
    Integer(Comparison, Integer<'p>, Integer<'p>),
    Float(Comparison, Float<'p>, Float<'p>),
    Text(Comparison, Text<'p>, Text<'p>),
}

/// An integer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Integer<'p> {
    Known(i128),
    Read { pieces: &'p [Piece], bits: u8, signed: bool },
    Compute { operation: Arithmetic, sides: Box<(Integer<'p>, Integer<'p>)>, bits: u8, signed: bool },
}

/// A float.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Float<'p> {
    Known(f64),
    Single(&'p [Piece]),
    Double(&'p [Piece]),
    Integer(Integer<'p>),
}

/// A string.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text<'p> {
    Known(&'p [u8]),
    /// 16 bytes: address and length.
    Read(&'p [Piece]),
}

/// Cannot be told, whatever the registers and memory hold.
struct Never;

/// Makes a condition ready.
pub(super) fn lower(test: &Test) -> Truth<'_> {
    at_depth(test, 0)
}

fn at_depth(test: &Test, depth: usize) -> Truth<'_> {
    if depth == DEPTH_MAX {
        return Truth::Unknown;
    }
    let depth = depth + 1;
    match test {
        Test::And(left, right) => chain(true, at_depth(left, depth), at_depth(right, depth)),
        Test::Or(left, right) => chain(false, at_depth(left, depth), at_depth(right, depth)),
        Test::Not(inner) => match at_depth(inner, depth) {
            Truth::Known(holds) => Truth::Known(!holds),
            Truth::Unknown => Truth::Unknown,
            Truth::Not(inner) => *inner,
            inner => Truth::Not(Box::new(inner)),
        },
        Test::Bool(operand) => match integer(operand, depth) {
            Err(Never) => Truth::Unknown,
            Ok(Integer::Known(value)) => Truth::Known(value != 0),
            Ok(value) => Truth::Bool(value),
        },
        Test::Integer { comparison, left, right } => match (integer(left, depth), integer(right, depth)) {
            (Ok(Integer::Known(left)), Ok(Integer::Known(right))) => {
                Truth::Known(compares(*comparison, Some(left.cmp(&right))))
            }
            (Ok(left), Ok(right)) => Truth::Integer(*comparison, left, right),
            _ => Truth::Unknown,
        },
        Test::Float { comparison, left, right } => match (float(left, right, depth), float(right, left, depth)) {
            (Ok(Float::Known(left)), Ok(Float::Known(right))) => {
                Truth::Known(compares(*comparison, left.partial_cmp(&right)))
            }
            (Ok(left), Ok(right)) => Truth::Float(*comparison, left, right),
            _ => Truth::Unknown,
        },
        Test::Text { comparison, left, right } => match (text(left), text(right)) {
            (Ok(Text::Known(left)), Ok(Text::Known(right))) => {
                Truth::Known(text_of_constants(*comparison, left, right))
            }
            (Ok(left), Ok(right)) => Truth::Text(*comparison, left, right),
            _ => Truth::Unknown,
        },
    }
}

/// `and` where all must hold, else `or`; both are what they are in any order.
fn chain<'p>(all: bool, left: Truth<'p>, right: Truth<'p>) -> Truth<'p> {
    let mut parts = Vec::new();
    for side in [left, right] {
        match side {
            // It decides, whatever the other is; or it says nothing.
            Truth::Known(holds) if holds != all => return Truth::Known(holds),
            Truth::Known(_) => {}
            Truth::All(inner) if all => parts.extend(inner),
            Truth::Any(inner) if !all => parts.extend(inner),
            other => parts.push(other),
        }
    }
    match parts.len() {
        0 => Truth::Known(all),
        1 => parts.remove(0),
        _ if parts.iter().all(|part| *part == Truth::Unknown) => Truth::Unknown,
        _ if all => Truth::All(parts),
        _ => Truth::Any(parts),
    }
}

fn integer(operand: &Operand, depth: usize) -> Result<Integer<'_>, Never> {
    if depth == DEPTH_MAX {
        return Err(Never);
    }
    let depth = depth + 1;
    match operand {
        Operand::Constant(value) => Ok(Integer::Known(*value)),
        Operand::Read { pieces, signed } => {
            let bits = match pieces_bytes(pieces) {
                bytes @ (1 | 2 | 4 | 8) => bytes as u8 * 8,
                _ => return Err(Never),
            };
            if !pieces.iter().all(is_somewhere) {
                return Err(Never);
            }
            match constant(pieces) {
                Some(bytes) => {
                    let value = bytes.iter().rev().fold(0i128, |value, &byte| value << 8 | i128::from(byte));
                    Ok(Integer::Known(wrap(value, bits, *signed)))
                }
                None => Ok(Integer::Read { pieces, bits, signed: *signed }),
            }
        }
        Operand::Arithmetic { operation, left, right, bits, signed } => {
            // Both sides are computed in any case: what cannot be told on one cannot be told at all.
            match (integer(left, depth)?, integer(right, depth)?) {
                (Integer::Known(left), Integer::Known(right)) => {
                    arithmetic(*operation, left, right, *bits, *signed).map(Integer::Known).map_err(|_| Never)
                }
                sides => {
                    let sides = Box::new(sides);
                    Ok(Integer::Compute { operation: *operation, sides, bits: *bits, signed: *signed })
                }
            }
        }
    }
}

fn float<'p>(operand: &'p FloatOperand, beside: &FloatOperand, depth: usize) -> Result<Float<'p>, Never> {
    match operand {
        FloatOperand::Constant(value) => Ok(Float::Known(rounded(*value, beside))),
        FloatOperand::Integer(operand) => match integer(operand, depth)? {
            Integer::Known(value) => Ok(Float::Known(value as f64)),
            value => Ok(Float::Integer(value)),
        },
        FloatOperand::Read { pieces } => {
            let bytes = pieces_bytes(pieces);
            if !matches!(bytes, 4 | 8) || !pieces.iter().all(is_somewhere) {
                return Err(Never);
            }
            match constant(pieces) {
                Some(bytes) => Ok(Float::Known(match <[u8; 8]>::try_from(bytes.as_slice()) {
                    Ok(double) => f64::from_le_bytes(double),
                    Err(_) => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
                })),
                None if bytes == 4 => Ok(Float::Single(pieces)),
                None => Ok(Float::Double(pieces)),
            }
        }
    }
}

fn text(operand: &TextOperand) -> Result<Text<'_>, Never> {
    match operand {
        TextOperand::Constant(bytes) => Ok(Text::Known(bytes)),
        TextOperand::GoString { pieces } if pieces_bytes(pieces) == 16 && pieces.iter().all(is_somewhere) => {
            Ok(Text::Read(pieces))
        }
        TextOperand::GoString { .. } => Err(Never),
    }
}

/// The bytes of pieces that are all constants.
fn constant(pieces: &[Piece]) -> Option<Vec<u8>> {
    let bytes = pieces.iter().map(|piece| match &piece.place {
        Place::Constant(bytes) => bytes.get(..piece.bytes as usize),
        _ => None,
    });
    bytes.collect::<Option<Vec<_>>>().map(|bytes| bytes.concat())
}

impl Truth<'_> {
    /// Whether it may turn out that it cannot be told.
    pub(super) fn may_be_unknown(&self) -> bool {
        match self {
            Truth::Known(_) => false,
            Truth::Unknown | Truth::Text(..) => true,
            Truth::All(parts) | Truth::Any(parts) => parts.iter().any(Truth::may_be_unknown),
            Truth::Not(inner) => inner.may_be_unknown(),
            Truth::Bool(value) => value.may_be_unknown(),
            Truth::Integer(_, left, right) => left.may_be_unknown() || right.may_be_unknown(),
            Truth::Float(_, left, right) => left.may_be_unknown() || right.may_be_unknown(),
        }
    }
}

impl Float<'_> {
    fn may_be_unknown(&self) -> bool {
        match self {
            Float::Known(_) => false,
            Float::Single(pieces) | Float::Double(pieces) => pieces.iter().any(may_fail),
            Float::Integer(value) => value.may_be_unknown(),
        }
    }
}

impl Integer<'_> {
    pub(super) fn may_be_unknown(&self) -> bool {
        match self {
            Integer::Known(_) => false,
            Integer::Read { pieces, .. } => pieces.iter().any(may_fail),
            Integer::Compute { operation, sides, bits, .. } => {
                let (left, right) = &**sides;
                let own = match operation {
                    Arithmetic::Divide | Arithmetic::Remainder => {
                        !matches!(right, Integer::Known(value) if *value != 0)
                    }
                    Arithmetic::ShiftLeft | Arithmetic::ShiftRight => !right.fits_unsigned(),
                    _ => false,
                };
                // Without a width, what does not fit 128 bits cannot be told.
                own || *bits == 0 || left.may_be_unknown() || right.may_be_unknown()
            }
        }
    }

    /// Whether it is always a signed integer of 64 bits.
    pub(super) fn fits_signed(&self) -> bool {
        match self {
            Integer::Known(value) => i64::try_from(*value).is_ok(),
            Integer::Read { bits, signed, .. } => *signed || *bits < 64,
            Integer::Compute { bits, signed, .. } => (*signed && (1..=64).contains(bits)) || (1..64).contains(bits),
        }
    }

    /// Whether it is always an unsigned integer of 64 bits.
    pub(super) fn fits_unsigned(&self) -> bool {
        match self {
            Integer::Known(value) => u64::try_from(*value).is_ok(),
            Integer::Read { signed, .. } => !signed,
            Integer::Compute { bits, signed, .. } => !signed && (1..=64).contains(bits),
        }
    }

    /// Whether it needs more than 64 bits.
    pub(super) fn is_wide(&self) -> bool {
        !self.fits_signed() && !self.fits_unsigned()
    }

    /// Whether it is loaded into any register without another.
    pub(super) fn is_leaf(&self) -> bool {
        match self {
            Integer::Known(_) => !self.is_wide(),
            Integer::Read { pieces, .. } => pieces.len() == 1,
            Integer::Compute { .. } => false,
        }
    }

    /// How many values must be kept at once while it is computed (its Strahler number).
    pub(super) fn weight(&self) -> usize {
        match self {
            Integer::Known(_) | Integer::Read { .. } => 1,
            Integer::Compute { sides, .. } => {
                let (left, right) = (sides.0.weight(), sides.1.weight());
                if left == right { left + 1 } else { left.max(right) }
            }
        }
    }
}

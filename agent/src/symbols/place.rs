//! Where a variable is at one address: DWARF location expressions and lists, reduced to what a capture program can
//! read without computing.
//!
//! Source: DWARF 5, sections 2.5 (expressions), 2.6 (locations), 6.4 (call frames); DWARF 4's `.debug_loc` through
//! `gimli`. An expression is evaluated symbolically, to registers and addresses relative to registers. What does not
//! reduce to that is reported with the operation's name, never approximated.

use super::ResolveError;
use super::call_frame;
use super::debug_info::{Bytes, Die, Unit, Value, View};
use gimli::{AttributeValue, Expression, Operation};

/// Operations of one expression, at most: compilers write fewer than twenty.
const OPERATIONS_MAX: usize = 256;
/// Dereferences of one address, at most.
const DEREFERENCES_MAX: usize = 8;
/// Entries of a location list that are looked at: the longest lists have thousands.
const LIST_ENTRIES_MAX: usize = 65_536;
/// Bytes that a single register can hold, by its kind.
const GENERAL_BYTES: u64 = 8;
const VECTOR_BYTES: u64 = 16;

/// An address at the moment of the hit: base plus offset, then for each entry of `derefs` the word there plus the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    /// DWARF number of a register; `None` for an address of the file.
    pub(crate) base: Option<u16>,
    pub(crate) offset: i64,
    pub(crate) derefs: Vec<i64>,
}

impl Spot {
    /// The address `bytes` further on.
    pub(crate) fn plus(mut self, bytes: i64) -> Spot {
        let last = self.derefs.last_mut().unwrap_or(&mut self.offset);
        *last = last.wrapping_add(bytes);
        self
    }

    /// The address that the word at this one holds.
    pub(crate) fn deref(mut self) -> Spot {
        self.derefs.push(0);
        self
    }
}

/// Where some bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a register, by its DWARF number, from its lowest byte.
    Register(u16),
    Memory(Spot),
    /// Known to the compiler, lowest byte first.
    Constant(Vec<u8>),
    /// The compiler kept them nowhere.
    Nothing,
}

/// Some bytes of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) bytes: u64,
    pub(crate) place: Place,
}

/// What the debug information says about a variable's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Located {
    /// Nowhere at this address.
    Nowhere,
    /// Described as one place, without a size of its own.
    Whole(Place),
    /// Described piece by piece.
    Pieces(Vec<Part>),
    /// In a way that RipTrace cannot read.
    Unknown(String),
}

/// What expressions are relative to at one address.
pub(crate) struct Moment<'v, 'a> {
    view: &'v View<'a>,
    pc: u64,
    /// What `DW_OP_fbreg` is relative to.
    frame_base: Option<Spot>,
    /// What `DW_OP_call_frame_cfa` is.
    frame: Option<Spot>,
}

impl<'v, 'a> Moment<'v, 'a> {
    /// The moment when `pc`, in the function `body`, is about to run.
    pub(crate) fn new(view: &'v View<'a>, body: Die, pc: u64) -> Result<Moment<'v, 'a>, ResolveError> {
        let mut moment = Moment { view, pc, frame_base: None, frame: call_frame::canonical(view.sections, pc) };
        let (unit, entry) = view.entry(body)?;
        if let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_frame_base) {
            moment.frame_base = match moment.evaluate(&unit, expression) {
                // A register as frame base means the address that it holds.
                Located::Whole(Place::Register(register)) => {
                    Some(Spot { base: Some(register), offset: 0, derefs: Vec::new() })
                }
                Located::Whole(Place::Memory(spot)) => Some(spot),
                _ => None,
            };
        }
        Ok(moment)
    }

    /// The canonical frame address: the return address is in the word below it.
    pub(crate) fn frame(&self) -> Option<Spot> {
        self.frame.clone()
    }

    /// Place by `DW_AT_location`, of an entry of `unit`.
    pub(crate) fn locate(&self, unit: &Unit<'a>, location: Option<Value<'a>>) -> Result<Located, ResolveError> {
        let Some(location) = location else { return Ok(Located::Nowhere) };
        if let AttributeValue::Exprloc(expression) = location {
            return Ok(self.evaluate(unit, expression));
        }
        let Some(mut list) = self.view.dwarf.attr_locations(unit, location)? else {
            return Ok(Located::Unknown("its location has an unknown form".to_owned()));
        };
        let mut seen = 0;
        while let Some(entry) = list.next()? {
            seen += 1;
            if seen > LIST_ENTRIES_MAX {
                return Ok(Located::Unknown("its location list is too long".to_owned()));
            }
            if (entry.range.begin..entry.range.end).contains(&self.pc) {
                return Ok(self.evaluate(unit, entry.data));
            }
        }
        Ok(Located::Nowhere)
    }

    /// All entries of a location list: from which address on they hold, and what they say. Offsets of the frame are those of
    /// this moment. Nothing for what has one place for good.
    pub(crate) fn history(
        &self,
        unit: &Unit<'a>,
        location: Option<Value<'a>>,
    ) -> Result<Vec<(u64, Located)>, ResolveError> {
        let mut found = Vec::new();
        let Some(location) = location else { return Ok(found) };
        if matches!(location, AttributeValue::Exprloc(_)) {
            return Ok(found);
        }
        let Some(mut list) = self.view.dwarf.attr_locations(unit, location)? else { return Ok(found) };
        while let Some(entry) = list.next()? {
            if found.len() == LIST_ENTRIES_MAX {
                return Ok(Vec::new());
            }
            found.push((entry.range.begin, self.evaluate(unit, entry.data)));
        }
        Ok(found)
    }

    fn evaluate(&self, unit: &Unit<'a>, expression: Expression<Bytes<'a>>) -> Located {
        self.reduce(unit, expression).unwrap_or_else(Located::Unknown)
    }

    fn reduce(&self, unit: &Unit<'a>, expression: Expression<Bytes<'a>>) -> Result<Located, String> {
        let mut stack: Vec<Term> = Vec::new();
        let mut place: Option<Place> = None;
        let mut parts: Vec<Part> = Vec::new();
        let mut operations = expression.operations(unit.encoding());
        let mut count = 0;
        while let Some(operation) = operations.next().map_err(|error| format!("its location is damaged: {error}"))? {
            count += 1;
            if count > OPERATIONS_MAX {
                return Err("its location has too many operations".to_owned());
            }
            match operation {
                Operation::Register { register } => place = Some(Place::Register(register.0)),
                Operation::ImplicitValue { data } => place = Some(Place::Constant(data.slice().to_vec())),
                Operation::StackValue => place = Some(as_value(stack.pop())?),
                Operation::Piece { size_in_bits, bit_offset } => {
                    if size_in_bits % 8 != 0 || bit_offset.unwrap_or(0) != 0 {
                        return Err("it is described bit by bit".to_owned());
                    }
                    let place = match place.take() {
                        Some(place) => place,
                        None => stack.pop().map_or(Ok(Place::Nothing), as_memory)?,
                    };
                    parts.push(Part { bytes: size_in_bits / 8, place });
                }
                other => self.step(unit, other, &mut stack)?,
            }
        }
        if !parts.is_empty() {
            return Ok(Located::Pieces(parts));
        }
        match place {
            Some(place) => Ok(Located::Whole(place)),
            None => match stack.pop() {
                Some(term) => Ok(Located::Whole(as_memory(term)?)),
                None => Ok(Located::Nowhere),
            },
        }
    }

    fn step(&self, unit: &Unit<'a>, operation: Operation<Bytes<'a>>, stack: &mut Vec<Term>) -> Result<(), String> {
        let empty = || "its location takes from an empty stack".to_owned();
        let term = match operation {
            Operation::RegisterOffset { register, offset, .. } => {
                Term::Address(Spot { base: Some(register.0), offset, derefs: Vec::new() })
            }
            Operation::FrameOffset { offset } => {
                let base = self.frame_base.clone().ok_or("its function's frame is not described here")?;
                Term::Address(base.plus(offset))
            }
            Operation::CallFrameCFA => {
                Term::Address(self.frame.clone().ok_or("its function's frame is not described here")?)
            }
            Operation::Address { address } => Term::Address(file_address(address)),
            Operation::AddressIndex { index } => {
                let address = self.view.dwarf.address(unit, index);
                Term::Address(file_address(address.map_err(|error| format!("its address is damaged: {error}"))?))
            }
            Operation::UnsignedConstant { value } => Term::Number(i128::from(value)),
            Operation::SignedConstant { value } => Term::Number(i128::from(value)),
            Operation::PlusConstant { value } => add(stack.pop().ok_or_else(empty)?, Term::Number(i128::from(value)))?,
            Operation::Plus => {
                let (right, left) = (stack.pop().ok_or_else(empty)?, stack.pop().ok_or_else(empty)?);
                add(left, right)?
            }
            Operation::Minus => match (stack.pop().ok_or_else(empty)?, stack.pop().ok_or_else(empty)?) {
                (Term::Number(right), left) => add(left, Term::Number(-right))?,
                _ => return Err("its location subtracts an address".to_owned()),
            },
            Operation::Deref { size: 8, space: false, .. } => match stack.pop().ok_or_else(empty)? {
                Term::Address(spot) if spot.derefs.len() < DEREFERENCES_MAX => Term::Address(spot.deref()),
                _ => return Err("its location reads from a computed address".to_owned()),
            },
            Operation::Nop => return Ok(()),
            Operation::EntryValue { .. } => {
                return Err("its value is only known from the caller (DW_OP_entry_value)".to_owned());
            }
            Operation::ImplicitPointer { .. } => {
                return Err("the pointer was optimised away, only what it points to exists".to_owned());
            }
            other => return Err(format!("its location is computed ({})", operation_name(&other))),
        };
        stack.push(term);
        Ok(())
    }
}

enum Term {
    Number(i128),
    Address(Spot),
}

fn file_address(address: u64) -> Spot {
    Spot { base: None, offset: address as i64, derefs: Vec::new() }
}

fn add(left: Term, right: Term) -> Result<Term, String> {
    let narrow = |number: i128| number as u64 as i64;
    match (left, right) {
        (Term::Number(left), Term::Number(right)) => Ok(Term::Number(left.wrapping_add(right))),
        (Term::Address(spot), Term::Number(number)) | (Term::Number(number), Term::Address(spot)) => {
            Ok(Term::Address(spot.plus(narrow(number))))
        }
        (Term::Address(_), Term::Address(_)) => Err("its location adds two addresses".to_owned()),
    }
}

fn as_memory(term: Term) -> Result<Place, String> {
    match term {
        Term::Address(spot) => Ok(Place::Memory(spot)),
        Term::Number(_) => Err("its location is an absolute number".to_owned()),
    }
}

/// A term that is the value itself, not where it is.
fn as_value(term: Option<Term>) -> Result<Place, String> {
    match term {
        Some(Term::Number(number)) => Ok(Place::Constant(number.to_le_bytes().to_vec())),
        Some(Term::Address(mut spot)) => match spot.derefs.pop() {
            // The value of a dereference is in memory where the dereference reads.
            Some(0) => Ok(Place::Memory(spot)),
            None if spot.offset == 0 && spot.base.is_some() => Ok(spot.base.map_or(Place::Nothing, Place::Register)),
            _ => Err("its value is computed from a register".to_owned()),
        },
        None => Err("its location takes from an empty stack".to_owned()),
    }
}

fn operation_name(operation: &Operation<Bytes<'_>>) -> String {
    let debug = format!("{operation:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// How many bytes a single place can hold of a value, at most.
pub(crate) fn capacity(place: &Place) -> u64 {
    match place {
        // System V ABI, AMD64, figure 3.36: 17 to 32 are xmm0 to xmm15.
        Place::Register(17..=32) => VECTOR_BYTES,
        Place::Register(_) => GENERAL_BYTES,
        Place::Memory(_) => u64::MAX,
        Place::Constant(bytes) => bytes.len() as u64,
        Place::Nothing => 0,
    }
}

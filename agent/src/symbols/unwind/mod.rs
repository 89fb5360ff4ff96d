//! Unwinding: from a copy of the innermost part of a thread's stack and its registers to the frames on it, by unwind
//! tables. It happens in the agent, when the hit is packed: the process has only copied bytes.
//!
//! A frame's row of the tables ([`table`]) says where the caller's registers are; that gives the caller's program counter
//! and stack pointer, and so on outwards:
//!
//! ```text
//! registers, pc --row of pc--> frame address --> return address, rsp, rbx, rbp, r12-r15 of the caller --row of pc-1--> ..
//! ```
//!
//! A caller that cannot be found ends the stack, and the end says why: what is shown is never a guess from words that look
//! like return addresses. Rules that an unwinder follows where the tables are silent: System V ABI, AMD64 supplement,
//! figure 3.4 (which registers a call keeps).
//!
//! Invariants: bounded by frames, by operations of an expression and by the copy; nothing but the copy is read; the
//! stack pointer of a caller is above that of what it called, but for signal handlers on stacks of their own.

mod table;
#[cfg(test)]
mod tests;

pub(crate) use table::{Row, UnwindTables};

use crate::capture::interpreter::{STACK_REGISTERS, StackMemory};
use gimli::{Encoding, EndianSlice, Evaluation, EvaluationResult, Format, LittleEndian, Location, Value};
use riptrace_protocol::hit::StackEnd;
use riptrace_protocol::ids::Avma;
use std::sync::Arc;
use table::{Frame, REGISTERS, Rule};

/// Operations of one expression, at most: real ones have a dozen, damaged ones loop.
const OPERATIONS_MAX: u32 = 1000;
/// DWARF number of rsp.
const RSP: usize = 7;
/// DWARF number of rip.
const RIP: usize = 16;

/// Whether a call keeps a register, so that a table that says nothing of it means that it is unchanged: rbx, rbp, r12
/// to r15.
fn is_kept(register: usize) -> bool {
    matches!(register, 3 | 6 | 12..=15)
}

/// The frames of a copied stack whose innermost program counter is `pc`, at most `frames_max` of them: program counters,
/// innermost first, the others as return addresses. `row` gives the row of an address of the process.
pub(crate) fn unwind(
    memory: &StackMemory,
    pc: Avma,
    frames_max: usize,
    mut row: impl FnMut(Avma) -> Option<Arc<Row>>,
) -> (Vec<Avma>, StackEnd) {
    let mut frames = vec![pc];
    let mut thread = Thread::new(memory, pc);
    let mut is_exact = true;
    loop {
        let at = Avma(thread.pc().wrapping_sub(u64::from(!is_exact)));
        let Some(row) = row(at) else { return (frames, StackEnd::Unknown) };
        match thread.leave(&row) {
            Step::Outermost => return (frames, StackEnd::Whole),
            Step::Lost => return (frames, StackEnd::Unknown),
            Step::BeyondCopy => {
                let is_full = memory.bytes.len() == memory.bytes_max as usize;
                return (frames, if is_full { StackEnd::Bytes(memory.bytes_max) } else { StackEnd::Unknown });
            }
            Step::Caller if frames.len() >= frames_max => return (frames, StackEnd::Frames),
            // A return address stands for the call before it; what a signal interrupted stands for itself.
            Step::Caller => {
                is_exact = row.is_signal;
                frames.push(Avma(thread.pc().wrapping_add(u64::from(is_exact))));
            }
        }
    }
}

/// What leaving a function leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Caller,
    Outermost,
    /// What is needed is not in the copy.
    BeyondCopy,
    /// The tables contradict what is there.
    Lost,
}

/// Why a value is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    BeyondCopy,
    Nowhere,
}

/// A thread inside one of its frames: registers as far as they are known, and the copy of its stack.
struct Thread<'m> {
    registers: [Option<u64>; REGISTERS],
    stack_at: u64,
    stack: &'m [u8],
}

impl<'m> Thread<'m> {
    fn new(memory: &'m StackMemory, pc: Avma) -> Thread<'m> {
        let mut registers = [None; REGISTERS];
        for (to, &from) in registers.iter_mut().zip(&memory.registers[..STACK_REGISTERS]) {
            *to = Some(from);
        }
        registers[RIP] = Some(pc.0);
        Thread { registers, stack_at: memory.registers[RSP], stack: &memory.bytes }
    }

    fn pc(&self) -> u64 {
        self.registers[RIP].unwrap_or(0)
    }

    /// Goes from a function to its caller.
    fn leave(&mut self, row: &Row) -> Step {
        if matches!(row.rules[row.return_address], Some(Rule::Nowhere)) {
            return Step::Outermost;
        }
        let missing = |missing| match missing {
            Missing::BeyondCopy => Step::BeyondCopy,
            Missing::Nowhere => Step::Lost,
        };
        let frame = match &row.frame {
            Frame::At { register, offset } => self.register(*register).map(|base| base.wrapping_add_signed(*offset)),
            Frame::Expression(expression) => self.evaluate(expression, None),
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(why) => return missing(why),
        };
        let mut caller = [None; REGISTERS];
        for (number, slot) in caller.iter_mut().enumerate() {
            *slot = match &row.rules[number] {
                None if number == RSP => Some(frame),
                None if is_kept(number) => self.registers[number],
                None => None,
                // Only the return address is needed; a register that is not in the copy may never be.
                Some(rule) => self.restore(rule, number, frame).ok(),
            };
        }
        let pc = match &row.rules[row.return_address] {
            Some(rule) => self.restore(rule, row.return_address, frame),
            None => Err(Missing::Nowhere),
        };
        let pc = match pc {
            Ok(0) => return Step::Outermost,
            Ok(pc) => pc,
            Err(why) => return missing(why),
        };
        caller[RIP] = Some(pc);
        let is_outwards = caller[RSP].zip(self.registers[RSP]).is_some_and(|(caller, own)| caller > own);
        if !is_outwards && !row.is_signal {
            return Step::Lost;
        }
        self.registers = caller;
        Step::Caller
    }

    fn register(&self, number: usize) -> Result<u64, Missing> {
        self.registers.get(number).copied().flatten().ok_or(Missing::Nowhere)
    }

    fn restore(&self, rule: &Rule, number: usize, frame: u64) -> Result<u64, Missing> {
        match rule {
            Rule::Nowhere => Err(Missing::Nowhere),
            Rule::Same => self.register(number),
            Rule::Saved(offset) => self.word(frame.wrapping_add_signed(*offset), 8),
            Rule::Frame(offset) => Ok(frame.wrapping_add_signed(*offset)),
            Rule::Register(other) => self.register(*other),
            Rule::At(expression) => self.word(self.evaluate(expression, Some(frame))?, 8),
            Rule::Is(expression) => self.evaluate(expression, Some(frame)),
        }
    }

    /// Up to eight bytes of the copy, as a number.
    fn word(&self, at: u64, bytes: usize) -> Result<u64, Missing> {
        let start = at.checked_sub(self.stack_at).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.stack.get(start..start.checked_add(bytes)?));
        let bytes = bytes.ok_or(Missing::BeyondCopy)?;
        Ok(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
    }

    /// What an expression gives; `first` is on its stack at the start (the frame, in rules of registers).
    fn evaluate(&self, expression: &[u8], first: Option<u64>) -> Result<u64, Missing> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
        let mut evaluation = Evaluation::new(EndianSlice::new(expression, LittleEndian), encoding);
        evaluation.set_max_iterations(OPERATIONS_MAX);
        if let Some(first) = first {
            evaluation.set_initial_value(first);
        }
        let lost = |_| Missing::Nowhere;
        let mut state = evaluation.evaluate().map_err(lost)?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.register(usize::from(register.0))?;
                    evaluation.resume_with_register(Value::Generic(value)).map_err(lost)?
                }
                EvaluationResult::RequiresMemory { address, size, .. } if (1..=8).contains(&size) => {
                    let value = self.word(address, usize::from(size))?;
                    evaluation.resume_with_memory(Value::Generic(value)).map_err(lost)?
                }
                _ => return Err(Missing::Nowhere),
            };
        }
        match evaluation.as_result() {
            [gimli::Piece { location: Location::Address { address }, .. }] => Ok(*address),
            _ => Err(Missing::Nowhere),
        }
    }
}

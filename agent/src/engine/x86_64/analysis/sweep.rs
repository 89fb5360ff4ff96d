//! The sweep: every instruction of a function, decoded once, and every way into its middle.
//!
//! Instructions are decoded one after the other from the function's first byte: compilers put nothing else between
//! them. Where a branch leads into the middle of one (glibc jumps over `lock` prefixes), the instructions seen from
//! there are decoded as well until they fall in with the others, and their bytes are marked: two readings of the same
//! bytes cannot both be kept.

use super::facts::{Entry, EntryKind, FunctionFacts};
use super::indirect::{self, Jumps};
use super::instruction::{self, Kind};
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};

/// What is known of one byte of the function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// Length of the instruction that begins here, in bytes; 0 where none does.
    pub(super) length: u8,
    /// What that instruction is.
    pub(super) kind: Kind,
    traits: u8,
    marks: u8,
}

const RIP_RELATIVE: u8 = 1;
const TOUCHES_MEMORY: u8 = 2;

/// Somebody arrives here by a branch.
const TARGET: u8 = 1;
/// A branch from further on leads here: a loop may begin here.
const LOOP: u8 = 2;
/// Somebody arrives here by other means than a branch of this function.
const ENTRY: u8 = 4;
/// Go's `recover` arrives here.
const RECOVERY: u8 = 8;
/// Part of an instruction that is only seen from a branch into the middle of another.
const SECOND_READING: u8 = 16;
/// Such an instruction begins here.
const SECOND_BEGINNING: u8 = 32;

impl Cell {
    const NOTHING: Cell = Cell { length: 0, kind: Kind::Fixed, traits: 0, marks: 0 };

    /// Its displacement changes when it moves.
    pub(super) fn is_rip_relative(self) -> bool {
        self.traits & RIP_RELATIVE != 0
    }

    /// It may fault.
    pub(super) fn touches_memory(self) -> bool {
        self.traits & TOUCHES_MEMORY != 0
    }

    /// Somebody may arrive here other than by the instruction before.
    pub(super) fn is_entered(self) -> bool {
        self.marks & (TARGET | ENTRY | RECOVERY) != 0
    }

    /// A loop may begin here.
    pub(super) fn is_loop_head(self) -> bool {
        self.marks & LOOP != 0
    }

    /// Go's `recover` arrives here.
    pub(super) fn is_recovery(self) -> bool {
        self.marks & RECOVERY != 0
    }

    /// These bytes are read in two ways.
    pub(super) fn is_read_twice(self) -> bool {
        self.marks & SECOND_READING != 0
    }
}

/// All that one pass over a function finds.
#[derive(Debug)]
pub(super) struct Sweep {
    /// One for each byte of the function and of the padding behind it.
    pub(super) cells: Vec<Cell>,
    /// Offset of the first bytes that are no instruction.
    pub(super) undecoded: Option<usize>,
    /// Some indirect jump may go anywhere.
    pub(super) any_target: bool,
    /// Ways into other functions: where its code branches to, what addresses it takes, what its jump tables may hold.
    pub(super) outgoing: Vec<Entry>,
}

/// Decodes `code`, the function's first `length` bytes and the padding behind it.
pub(super) fn sweep(code: &[u8], start: u64, length: usize, facts: &FunctionFacts<'_>) -> Sweep {
    let mut pass = Pass {
        code,
        start,
        length,
        facts,
        found: Sweep {
            cells: vec![Cell::NOTHING; code.len()],
            undecoded: None,
            any_target: !facts.entries_complete,
            outgoing: Vec::new(),
        },
        inside: Vec::new(),
    };
    let jumps = pass.decode();
    for &Entry { address, kind } in facts.entries {
        match kind {
            EntryKind::Guess => pass.guess(address),
            EntryKind::Pointer | EntryKind::LandingPad => pass.arrive(address, ENTRY),
            EntryKind::Branch => {
                pass.arrive(address, ENTRY);
                pass.read_from(address);
            }
        }
    }
    for target in std::mem::take(&mut pass.inside) {
        pass.read_from(target);
    }
    // Only now are all branch targets known, which a jump's way back to its table must not cross.
    pass.follow(&jumps);
    pass.found
}

struct Pass<'a> {
    code: &'a [u8],
    start: u64,
    length: usize,
    facts: &'a FunctionFacts<'a>,
    found: Sweep,
    /// Branch targets within the function.
    inside: Vec<u64>,
}

impl Pass<'_> {
    /// The one pass over all instructions.
    fn decode(&mut self) -> Jumps {
        let mut decoder = Decoder::with_ip(64, &self.code[..self.length], self.start, DecoderOptions::NONE);
        let mut jumps = Jumps::default();
        let function = self.start..self.start + self.length as u64;
        let mut instruction = Instruction::default();
        let mut offset = 0;
        while offset < self.length {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                self.found.undecoded = Some(offset);
                // What follows may branch to anywhere.
                self.found.any_target = true;
                break;
            }
            let kind = self.note(&instruction, offset);
            jumps.see(&instruction, kind, &function);
            offset += instruction.len();
        }
        jumps
    }

    /// Records an instruction and where it leads.
    fn note(&mut self, instruction: &Instruction, offset: usize) -> Kind {
        let kind = instruction::kind_of(instruction);
        let mut traits = 0;
        if instruction::is_rip_relative(instruction) {
            traits |= RIP_RELATIVE;
        }
        if kind.is_call() || kind == Kind::Return || instruction::touches_memory(instruction) {
            traits |= TOUCHES_MEMORY;
        }
        let cell = &mut self.found.cells[offset];
        cell.length = instruction.len() as u8;
        cell.kind = kind;
        cell.traits = traits;
        match kind {
            Kind::Branch | Kind::Jump => self.branch(instruction.ip(), instruction.near_branch_target()),
            Kind::Call => {
                let target = instruction.near_branch_target();
                if self.facts.deferreturn == Some(target) {
                    self.found.cells[offset].marks |= RECOVERY;
                }
                self.branch(instruction.ip(), target);
            }
            Kind::Fixed => {
                // xbegin names where an aborted transaction goes on.
                if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64 {
                    self.branch(instruction.ip(), instruction.near_branch_target());
                }
            }
            _ => {
                if let Some(address) = instruction::formed_address(instruction, self.facts.position_independent) {
                    self.taken(address);
                }
            }
        }
        kind
    }

    fn branch(&mut self, from: u64, to: u64) {
        if self.is_inside(to) {
            self.arrive(to, if to <= from { TARGET | LOOP } else { TARGET });
            self.inside.push(to);
        } else {
            self.found.outgoing.push(Entry { address: to, kind: EntryKind::Branch });
        }
    }

    /// The code makes a value of an address: it may jump there by it.
    fn taken(&mut self, address: u64) {
        if self.is_inside(address) {
            self.arrive(address, ENTRY);
        } else if super::facts::holds(self.facts.text, address) {
            self.found.outgoing.push(Entry { address, kind: EntryKind::Pointer });
        }
    }

    fn is_inside(&self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|into| into < self.length as u64)
    }

    fn arrive(&mut self, address: u64, mark: u8) {
        let cell =
            address.checked_sub(self.start).and_then(|into| self.found.cells.get_mut(usize::try_from(into).ok()?));
        if let Some(cell) = cell {
            cell.marks |= mark;
        }
    }

    /// Decodes what is seen from a branch target that is not where an instruction begins.
    fn read_from(&mut self, target: u64) {
        let mut next = vec![target];
        while let Some(address) = next.pop() {
            let Some(mut offset) = address.checked_sub(self.start).and_then(|into| usize::try_from(into).ok()) else {
                continue;
            };
            let stop = self.found.undecoded.unwrap_or(self.length);
            while offset < stop && self.found.cells[offset].length == 0 {
                let mut decoder = Decoder::with_ip(
                    64,
                    &self.code[offset..self.length],
                    self.start + offset as u64,
                    DecoderOptions::NONE,
                );
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    self.found.any_target = true;
                    break;
                }
                let bytes = &mut self.found.cells[offset..offset + instruction.len()];
                if bytes[0].marks & SECOND_BEGINNING != 0 {
                    break;
                }
                bytes[0].marks |= SECOND_BEGINNING;
                bytes.iter_mut().for_each(|cell| cell.marks |= SECOND_READING);
                let kind = instruction::kind_of(&instruction);
                if matches!(kind, Kind::Branch | Kind::Jump | Kind::Call) {
                    let to = instruction.near_branch_target();
                    self.branch(instruction.ip(), to);
                    next.push(to);
                } else if kind == Kind::IndirectJump || kind == Kind::Fixed {
                    self.found.any_target = true;
                }
                if kind.ends_block() {
                    break;
                }
                offset += instruction.len();
            }
        }
        self.inside.clear();
    }

    /// Marks what the indirect jumps may lead to.
    fn follow(&mut self, jumps: &Jumps) {
        let entered = |address: u64| {
            let into = address.checked_sub(self.start).and_then(|into| usize::try_from(into).ok());
            into.and_then(|into| self.found.cells.get(into)).is_some_and(|cell| cell.is_entered())
        };
        let Some(targets) = indirect::targets(jumps, self.facts, entered) else {
            self.found.any_target = true;
            return;
        };
        for target in targets {
            if self.is_inside(target) {
                // A table that is read past its end yields addresses within instructions; no compiler writes those.
                self.guess(target);
            } else {
                self.found.outgoing.push(Entry { address: target, kind: EntryKind::Guess });
            }
        }
    }

    /// Marks an address, if an instruction begins there.
    fn guess(&mut self, address: u64) {
        if self.is_inside(address) && self.found.cells[(address - self.start) as usize].length != 0 {
            self.arrive(address, ENTRY);
        }
    }
}

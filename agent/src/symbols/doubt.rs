//! Variables whose described place may hold another value than the variable's: what the source says of them, held against
//! the machine code.
//!
//! Go's compiler describes the places of the values that it computes, under the names of all variables that ever have
//! them. So, in optimised code,
//! - a variable that was assigned a new value may still be described at the place of its old one: the new one was computed
//!   under another name, or later, or only where it is needed;
//! - a variable that is assigned the value of another one later may be described at that one's place before;
//! - a constant that hides an outer variable of its name is not described at all.
//!
//! A variable that is assigned only where it is declared is believed. For one that is assigned again, each assignment
//! that may have run must be seen in the code: an instruction of its line that writes the variable's place, or what is
//! moved there. And what was written there last must be of a line that assigns the variable, other than the line that is
//! about to run. What is not seen so is suspect; nothing becomes more certain here.
//!
//! The code is read in the order of addresses, not of its flow: compilers lay out what runs later behind, mostly; what
//! this misses the truth corpus has to find.

use super::debug_info::View;
use super::functions::Functions;
use super::image::Image;
use super::lines::Lines;
use super::place::{Part, Place, Spot};
use super::scope::{Local, Presence};
use super::types::{self, Shape};
use super::{Build, ResolveError, Site, Svma};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use iced_x86::{Register, UsedMemory};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::source::{Assigned, AssignedPart, SOURCE_BYTES_MAX, SourceFacts};
use std::collections::BTreeSet;
use std::path::Path;

/// Code of one function that is looked at, at most; in a larger one, what is assigned again is suspect.
const CODE_BYTES_MAX: u64 = 1 << 20;
/// Moves from one place to another that are followed back.
const MOVES_MAX: usize = 6;
/// DWARF number of the stack pointer.
const STACK_POINTER: u16 = 7;

const UNSEEN: &str = "the code does not show that this place has what was assigned to it";

/// A place that an instruction may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// A general register, or a vector register, in full.
    Register(Register),
    /// Bytes from an offset to the stack pointer.
    Stack { offset: i64, bytes: u64 },
}

/// What an instruction does to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    /// It computes what is there then.
    Writes,
    /// It moves there what is in another cell.
    Moves(Cell),
}

/// Where the content of a cell comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was there when the function was entered.
    Entry,
    /// An instruction of this line; 0 for one of another file or of none.
    Line(u32),
}

/// The code of a function, with the lines of its instructions.
struct Code {
    instructions: Vec<(Instruction, u32)>,
}

/// Makes suspect what cannot be confirmed.
pub(crate) fn judge(
    build: &Build,
    view: &View<'_>,
    site: &Site,
    facts: &SourceFacts,
    locals: &mut [Local],
) -> Result<(), ResolveError> {
    if !site.is_go() || is_unoptimised(view, site)? || !fits(facts, locals) {
        return Ok(());
    }
    let code = Code::of(&build.image, view, site)?;
    let begun = begun(view, site)?;
    for local in locals {
        if local.declared_line == 0 || local.scope == Scope::Capture {
            continue;
        }
        let means = facts.declared.iter().find(|declared| declared.visible && declared.name == local.name);
        if let Some(means) = means.filter(|means| means.line != local.declared_line) {
            let line = means.line;
            local.presence =
                Presence::Unknown(format!("the variable of this name that line {line} declares is not described"));
            continue;
        }
        let Presence::Here(parts) = &local.presence else { continue };
        if code.as_ref().is_some_and(|code| is_begun(code, &begun, parts)) {
            local.presence = Presence::Suspect("the line has begun to change it in front of this place".to_owned());
            continue;
        }
        if let Some(why) = doubt(view, &code, site, facts, local, parts)? {
            local.presence = Presence::Suspect(why);
        }
    }
    Ok(())
}

/// What the source of a site says, where it is on this host, as it is where programs are developed.
///
/// The path is the executable's, which is outside data: only a plain file of moderate size is read, and nothing of it is
/// shown.
pub(crate) fn facts_here(site: &Site) -> SourceFacts {
    let path = Path::new(&site.file);
    let is_plain = || std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= SOURCE_BYTES_MAX as u64);
    if !site.is_go() || !path.is_absolute() || !is_plain() {
        return SourceFacts::default();
    }
    let text = std::fs::read_to_string(path);
    text.map(|text| SourceFacts::of_go(&text, site.line)).unwrap_or_default()
}

/// Whether the facts are of the source of this build: they know every variable that the debug information describes.
fn fits(facts: &SourceFacts, locals: &[Local]) -> bool {
    let is_known = |local: &Local| {
        let declared =
            |it: &riptrace_protocol::source::Declared| it.name == local.name && it.line == local.declared_line;
        local.declared_line == 0 || facts.declared.iter().any(declared)
    };
    !facts.is_empty() && locals.iter().all(is_known)
}

/// Whether the compiler was told not to optimise: its places are the variables' own then.
fn is_unoptimised(view: &View<'_>, site: &Site) -> Result<bool, ResolveError> {
    let unit = view.unit(site.body().unit)?;
    let mut reader = unit.entries_raw(None)?;
    let mut entry = super::debug_info::Entry::null();
    if !reader.read_entry(&mut entry)? {
        return Ok(false);
    }
    let Some(value) = entry.attr_value(gimli::DW_AT_producer) else { return Ok(false) };
    let producer = view.dwarf.attr_string(&unit, value)?.to_string_lossy().into_owned();
    Ok(producer.split([';', ' ']).any(|flag| flag == "-N"))
}

/// Why a variable is not to be believed.
fn doubt(
    view: &View<'_>,
    code: &Option<Code>,
    site: &Site,
    facts: &SourceFacts,
    local: &Local,
    parts: &[Part],
) -> Result<Option<String>, ResolveError> {
    let shape = match local.ty {
        Some(ty) => types::read(view, ty)?.shape,
        None => return Ok(None),
    };
    let assigned: Vec<(&Assigned, Option<(u64, u64)>)> = facts
        .assigned
        .iter()
        .filter(|it| it.name == local.name && it.declared == local.declared_line)
        .map(|it| Ok((it, range_of(view, &shape, &it.part)?)))
        .collect::<Result<_, ResolveError>>()?;
    // What is assigned is behind the variable, not in it.
    let assigned: Vec<_> = assigned.into_iter().filter_map(|(it, range)| range.map(|range| (it, range))).collect();
    if assigned.is_empty() {
        return Ok(None);
    }
    let Some(code) = code else { return Ok(Some(UNSEEN.to_owned())) };
    let is_argument = matches!(local.scope, Scope::Argument | Scope::Result);
    let own: BTreeSet<u32> =
        assigned.iter().filter(|(it, _)| it.before).map(|(it, _)| it.line).chain([local.declared_line]).collect();
    // `i++` in the head of a loop is of the line that declares `i`, and runs behind the body.
    let is_stepped = assigned.iter().any(|(it, _)| it.line == it.declared);
    let mut at = 0;
    for part in parts {
        let (start, end) = (at, at + part.bytes);
        at = end;
        let Some(cell) = cell(part) else {
            match &part.place {
                // Behind a pointer it is in memory of its own, which its assignments write; a constant is padding.
                Place::Memory(_) | Place::Constant(_) => continue,
                _ => return Ok(Some(UNSEEN.to_owned())),
            }
        };
        let is_memory = matches!(cell, Cell::Stack { .. }) && part.bytes > 8;
        if !is_memory {
            let (origin, by) = code.origin(code.index(site.address.0), cell, 0);
            let is_right = match origin {
                Origin::Entry => is_argument,
                // Code of the line itself, in front of this place, has changed it already.
                Origin::Line(line) if line == site.line => false,
                Origin::Line(line) if !own.contains(&line) => false,
                // What runs behind this place is in front of it only the last time round.
                Origin::Line(line) if line > site.line || is_stepped && line == local.declared_line => {
                    code.is_constant(by) || code.branches(by, site.address.0)
                }
                Origin::Line(_) => true,
            };
            if !is_right {
                return Ok(Some(format!("{UNSEEN} (it is of {})", origin.said())));
            }
        }
        let lines = code.written_at(cell);
        for (it, (from, to)) in assigned.iter().filter(|(it, _)| it.before) {
            let touches = *from < end && start < *to;
            if touches && !lines.contains(&it.line) {
                return Ok(Some(format!("{UNSEEN} on line {}", it.line)));
            }
        }
    }
    Ok(None)
}

/// Whether the line has begun: a call of it that was inlined has written a variable in front of the site.
fn is_begun(code: &Code, begun: &[(u64, u64)], parts: &[Part]) -> bool {
    let mut info = InstructionInfoFactory::new();
    parts.iter().filter_map(cell).any(|cell| {
        begun.iter().any(|&(start, end)| {
            let within = code.instructions.get(code.index(start)..code.index(end)).unwrap_or_default();
            within.iter().any(|(instruction, _)| effect(instruction, cell, &mut info) != Effect::Nothing)
        })
    })
}

/// The code between the beginnings of the line's inlined calls and the site, where they are in front of it.
fn begun(view: &View<'_>, site: &Site) -> Result<Vec<(u64, u64)>, ResolveError> {
    let functions = Functions::of_unit(view, site.body().unit)?;
    let Some(function) = functions.at(site.address.0) else { return Ok(Vec::new()) };
    let is_of_line = |call: &&super::functions::Inlined| {
        call.call_line == site.line && call.call_file.is_some_and(|file| view.index.path(file) == site.file.as_str())
    };
    let starts = function.inlined.iter().filter(is_of_line).flat_map(|call| &call.ranges).map(|range| range.start);
    Ok(starts.filter(|start| *start < site.address.0).map(|start| (start, site.address.0)).collect())
}

impl Origin {
    fn said(self) -> String {
        match self {
            Origin::Entry => "the call".to_owned(),
            Origin::Line(0) => "no line of it".to_owned(),
            Origin::Line(line) => format!("line {line}"),
        }
    }
}

/// The bytes of a variable that an assignment changes; `None` where it changes what the variable points to.
fn range_of(view: &View<'_>, shape: &Shape, part: &AssignedPart) -> Result<Option<(u64, u64)>, ResolveError> {
    const ALL: (u64, u64) = (0, u64::MAX);
    Ok(match (part, shape) {
        (AssignedPart::Whole, _) | (AssignedPart::Element, Shape::Array { .. }) => Some(ALL),
        (AssignedPart::Field { name, deeper }, Shape::Struct(members)) => {
            let Some(member) = members.iter().find(|member| member.name == *name) else {
                // A promoted one: in an embedded struct, or behind an embedded pointer.
                return Ok(Some(ALL));
            };
            let Some(ty) = member.ty else { return Ok(Some(ALL)) };
            let facts = types::read(view, ty)?;
            let is_in_it = matches!(facts.shape, Shape::Struct(_) | Shape::Array { .. });
            (!deeper || is_in_it).then_some((member.offset, member.offset.saturating_add(facts.bytes)))
        }
        _ => None,
    })
}

/// Where a part is, if the function's own code writes it.
fn cell(part: &Part) -> Option<Cell> {
    match &part.place {
        Place::Register(number) => register(*number).map(Cell::Register),
        Place::Memory(Spot { base: Some(STACK_POINTER), offset, derefs }) if derefs.is_empty() => {
            Some(Cell::Stack { offset: *offset, bytes: part.bytes })
        }
        _ => None,
    }
}

/// System V ABI, AMD64, figure 3.36.
fn register(number: u16) -> Option<Register> {
    use Register::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, XMM0};
    const GENERAL: [Register; 16] = [RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15];
    match number {
        0..=15 => Some(GENERAL[usize::from(number)]),
        17..=32 => Some(XMM0 + u32::from(number - 17)),
        _ => None,
    }
}

/// The register that holds all bits of one.
fn whole(register: Register) -> Register {
    if register.is_vector_register() {
        return Register::XMM0 + (register.number() as u32);
    }
    register.full_register()
}

impl Code {
    /// `None` for a function that is too large.
    fn of(image: &Image, view: &View<'_>, site: &Site) -> Result<Option<Code>, ResolveError> {
        let functions = Functions::of_unit(view, site.body().unit)?;
        let range = functions
            .at(site.address.0)
            .and_then(|function| function.ranges.iter().find(|range| range.contains(&site.address.0)).cloned());
        let Some(range) = range.filter(|range| range.end - range.start <= CODE_BYTES_MAX) else { return Ok(None) };
        let lines = Lines::of_unit(view, image, site.body().unit)?;
        let bytes = image.read(Svma(range.start), range.end - range.start);
        let mut decoder = Decoder::with_ip(64, &bytes, range.start, DecoderOptions::NONE);
        let mut instructions = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let row = lines.at(instruction.ip());
            let is_here =
                |row: &&super::lines::Row| row.file.is_some_and(|file| view.index.path(file) == site.file.as_str());
            let line = row.filter(is_here).map_or(0, |row| row.line);
            instructions.push((instruction, line));
        }
        Ok(Some(Code { instructions }))
    }

    /// Number of the first instruction at or behind an address.
    fn index(&self, address: u64) -> usize {
        self.instructions.partition_point(|(instruction, _)| instruction.ip() < address)
    }

    /// Where the content of a cell comes from before an instruction, and the number of the instruction that made it.
    fn origin(&self, before: usize, cell: Cell, moves: usize) -> (Origin, usize) {
        let mut info = InstructionInfoFactory::new();
        for (by, (instruction, line)) in self.instructions.iter().enumerate().take(before).rev() {
            match effect(instruction, cell, &mut info) {
                Effect::Nothing => {}
                Effect::Writes => return (Origin::Line(*line), by),
                Effect::Moves(from) if moves < MOVES_MAX => return self.origin(by, from, moves + 1),
                Effect::Moves(_) => return (Origin::Line(0), by),
            }
        }
        (Origin::Entry, 0)
    }

    /// Whether an instruction makes a constant, as what initialises a counter does.
    fn is_constant(&self, number: usize) -> bool {
        self.instructions.get(number).is_some_and(|(instruction, _)| {
            let is_zeroed = instruction.mnemonic() == Mnemonic::Xor
                && instruction.op1_kind() == OpKind::Register
                && instruction.op0_register() == instruction.op1_register();
            let is_loaded = instruction.mnemonic() == Mnemonic::Mov
                && !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
            is_zeroed || is_loaded
        })
    }

    /// Whether there is a conditional branch between an instruction and an address behind it.
    fn branches(&self, from: usize, to: u64) -> bool {
        let between = self.instructions.get(from..self.index(to)).unwrap_or_default();
        between.iter().any(|(instruction, _)| instruction.flow_control() == FlowControl::ConditionalBranch)
    }

    /// The lines whose instructions write a cell, or what is moved to it.
    fn written_at(&self, cell: Cell) -> BTreeSet<u32> {
        let mut lines = BTreeSet::new();
        let mut info = InstructionInfoFactory::new();
        for (number, (instruction, line)) in self.instructions.iter().enumerate() {
            match effect(instruction, cell, &mut info) {
                Effect::Nothing => {}
                Effect::Writes => {
                    lines.insert(*line);
                }
                Effect::Moves(from) => {
                    if let (Origin::Line(line), _) = self.origin(number, from, 1) {
                        lines.insert(line);
                    }
                }
            }
        }
        lines
    }
}

fn effect(instruction: &Instruction, cell: Cell, info: &mut InstructionInfoFactory) -> Effect {
    let calls = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
    match cell {
        Cell::Register(register) => {
            // Go's calls keep no register but these.
            if calls && !matches!(register, Register::RSP | Register::RBP | Register::R14) {
                return Effect::Writes;
            }
            let used = info.info(instruction);
            let writes =
                used.used_registers().iter().any(|used| whole(used.register()) == register && is_write(used.access()));
            if !writes {
                return Effect::Nothing;
            }
        }
        Cell::Stack { offset, bytes } => {
            let used = info.info(instruction);
            let writes = used.used_memory().iter().any(|memory| {
                is_write(memory.access())
                    && (on_stack(memory).is_some_and(|(at, size)| overlaps(at, size, offset, bytes)))
            });
            // What a call or an instruction with an address of its own writes is not seen; where it may be of a variable
            // that is in memory for good, it is taken to be.
            let elsewhere = |memory: &UsedMemory| is_write(memory.access()) && on_stack(memory).is_none();
            let blind = bytes > 8 && (calls || used.used_memory().iter().any(elsewhere));
            if !writes && !blind {
                return Effect::Nothing;
            }
        }
    }
    match moved(instruction, cell) {
        Some(from) => Effect::Moves(from),
        None => Effect::Writes,
    }
}

fn is_write(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Offset to the stack pointer and size of an access to the stack.
fn on_stack(memory: &UsedMemory) -> Option<(i64, u64)> {
    let is_plain = memory.base() == Register::RSP && memory.index() == Register::None;
    is_plain.then(|| (memory.displacement() as i64, memory.memory_size().size() as u64))
}

fn overlaps(at: i64, size: u64, offset: i64, bytes: u64) -> bool {
    let end = |at: i64, size: u64| i128::from(at) + i128::from(size);
    i128::from(at) < end(offset, bytes) && i128::from(offset) < end(at, size)
}

/// The cell whose content an instruction moves, as it is, to the one that it writes.
fn moved(instruction: &Instruction, to: Cell) -> Option<Cell> {
    let is_move = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Movss
            | Mnemonic::Movsd
            | Mnemonic::Movups
            | Mnemonic::Movaps
            | Mnemonic::Movq
            | Mnemonic::Movd
    );
    if !is_move || instruction.op_count() != 2 {
        return None;
    }
    match instruction.op1_kind() {
        OpKind::Register => Some(Cell::Register(whole(instruction.op1_register()))),
        OpKind::Memory => {
            let is_plain = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
            let bytes = match to {
                Cell::Stack { bytes, .. } => bytes,
                Cell::Register(_) => instruction.memory_size().size() as u64,
            };
            is_plain.then(|| Cell::Stack { offset: instruction.memory_displacement64() as i64, bytes })
        }
        _ => None,
    }
}

//! The code of one function in the order in which it may run, and where the content of a place comes from at an
//! instruction of it: the definitions that reach it, through moves from place to place.
//!
//! Jumps through tables may lead to every instruction that nothing else leads to. What cannot be followed has an origin
//! that is of no line, which no variable is assigned at.

use super::effect::{Cell, Effect, effect, whole};
use super::flow::moves_stack;
use crate::symbols::debug_info::View;
use crate::symbols::functions::{Function, Functions, Inlined};
use crate::symbols::image::Image;
use crate::symbols::lines::Lines;
use crate::symbols::{ResolveError, Site, Svma};
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind,
    Register,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// Code of one function that is looked at, at most; in a larger one, what is assigned again is suspect.
const CODE_BYTES_MAX: u64 = 1 << 20;
/// Steps from instruction to instruction for one question, at most: a few milliseconds.
const STEPS_MAX: usize = 1 << 16;
/// `mov r11d, imm32; jmp`: `runtime.gcWriteBarrier1` to `8` (`runtime/asm_amd64.s`), which keep all registers but R11.
const BARRIER_BYTES: u64 = 7;

/// Where the content of a cell may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// It was there when the function was entered.
    Entry,
    /// An instruction computes it.
    Made {
        /// Its line in the function that the site belongs to, that of the call for what was inlined there; 0 for one of
        /// another file, of none, or that cannot be told.
        line: u32,
        /// Whether it makes a constant, as what initialises a counter does.
        is_constant: bool,
        /// Whether another line runs between it and the place that was asked about.
        is_left: bool,
        /// Whether the way from it to that place leads back somewhere, as it does from one turn of a loop to the next.
        is_back: bool,
        /// Whether it computes it of what was there before, or leaves that there: a sum, a conditional move.
        keeps: bool,
        /// Number of the instruction.
        at: u32,
    },
}

impl Origin {
    /// As a part of a sentence: "it is of ...".
    pub(super) fn said(self) -> String {
        match self {
            Origin::Entry => "the call".to_owned(),
            Origin::Made { line: 0, .. } => "no line of it".to_owned(),
            Origin::Made { line, .. } => format!("line {line}"),
        }
    }
}

/// An edge of the flow, by the instruction that it comes from.
#[derive(Debug, Clone, Copy)]
struct From {
    instruction: u32,
    is_back: bool,
}

/// The code of a function, with the lines of its instructions.
pub(super) struct Code {
    instructions: Vec<Instruction>,
    lines: Vec<u32>,
    /// What may run just before each instruction; the first one is also entered.
    before: Vec<Vec<From>>,
    /// Where the runtime goes on in the middle, or nobody knows who comes from where.
    entered: HashSet<u32>,
    /// Calls that keep the registers.
    barriers: HashSet<u32>,
    /// Calls that move a slice to other memory: it is the same to the source.
    moves: HashSet<u32>,
    /// The line of the site.
    line: u32,
    /// The stack pointer in front of each instruction, relative to what it is at the entry; `None` where that is not known.
    depths: Vec<Option<i64>>,
}

impl Code {
    /// `None` for a function that is too large.
    pub(super) fn of(image: &Image, view: &View<'_>, site: &Site) -> Result<Option<Code>, ResolveError> {
        let functions = Functions::of_unit(view, site.body().unit)?;
        let Some(function) = functions.at(site.address.0) else { return Ok(None) };
        let range = function.ranges.iter().find(|range| range.contains(&site.address.0)).cloned();
        let Some(range) = range.filter(|range| range.end - range.start <= CODE_BYTES_MAX) else { return Ok(None) };
        let bytes = image.read(Svma(range.start), range.end - range.start);
        let instructions: Vec<Instruction> =
            Decoder::with_ip(64, &bytes, range.start, DecoderOptions::NONE).into_iter().collect();
        let table = Lines::of_unit(view, image, site.body().unit)?;
        let lines = instructions.iter().map(|at| line_of(view, &table, function, site, at.ip())).collect();
        let barriers = (0..).zip(&instructions).filter(|(_, at)| is_barrier(image, at)).map(|(number, _)| number);
        let barriers = barriers.collect();
        let (before, entered, moves) = edges(&instructions, &range, |target| callee(view, target));
        let depths = depths(&instructions, &before);
        Ok(Some(Code { instructions, lines, before, entered, barriers, moves, line: site.line, depths }))
    }

    pub(super) fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The stack pointer in front of an instruction, relative to what it is at the entry; `None` where that is not known.
    pub(super) fn depth(&self, number: usize) -> Option<i64> {
        self.depths.get(number).copied().flatten()
    }

    /// The same behind an instruction.
    pub(super) fn depth_behind(&self, number: usize) -> Option<i64> {
        let by = moves_stack(self.instructions.get(number)?, &mut InstructionInfoFactory::new())?;
        self.depth(number)?.checked_add(by)
    }

    /// Whether an instruction is also entered from where nobody knows.
    pub(super) fn is_entered(&self, number: usize) -> bool {
        number == 0 || self.entered.contains(&(number as u32))
    }

    /// Whether an instruction is a call that keeps the registers.
    pub(super) fn is_barrier(&self, number: usize) -> bool {
        self.barriers.contains(&(number as u32))
    }

    /// The instructions that may run just before one, and whether that is a jump back.
    pub(super) fn ways_to(&self, number: usize) -> impl Iterator<Item = (usize, bool)> {
        let before = self.before.get(number).map(Vec::as_slice).unwrap_or_default();
        before.iter().map(|from| (from.instruction as usize, from.is_back))
    }

    /// The register that an instruction writes as its first operand.
    pub(super) fn target(&self, number: usize) -> Option<Cell> {
        let instruction = self.instructions.get(number)?;
        let is_register = instruction.op0_kind() == OpKind::Register;
        is_register.then(|| Cell::Register(whole(instruction.op0_register())))
    }

    /// What a conditional move of whole registers chooses between: what is there, and what it would move there.
    pub(super) fn choice(&self, number: usize) -> Option<(Cell, Cell)> {
        let instruction = self.instructions.get(number)?;
        let is_move = instruction.condition_code() != ConditionCode::None
            && instruction.flow_control() == FlowControl::Next
            && instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register().size() == 8;
        is_move
            .then(|| (instruction.op0_register(), instruction.op1_register()))
            .map(|(kept, chosen)| (Cell::Register(whole(kept)), Cell::Register(whole(chosen))))
    }

    /// The cell whose content, and a number, an instruction makes the sum of.
    pub(super) fn next_of(&self, number: usize) -> Option<Cell> {
        let it = self.instructions.get(number)?;
        let is_whole = it.op0_kind() == OpKind::Register && it.op0_register().size() == 8;
        let from = match it.mnemonic() {
            Mnemonic::Inc | Mnemonic::Dec => it.op0_register(),
            Mnemonic::Add | Mnemonic::Sub if it.op1_kind() != OpKind::Register && it.op1_kind() != OpKind::Memory => {
                it.op0_register()
            }
            Mnemonic::Lea if it.memory_index() == Register::None => it.memory_base(),
            _ => return None,
        };
        (is_whole && from.size() == 8 && from.is_gpr()).then(|| Cell::Register(whole(from)))
    }

    /// The head of a loop that all ways to an instruction come from, and where the content of a cell is there.
    pub(super) fn head_before(&self, at: usize, cell: Cell) -> Option<(usize, Cell)> {
        let mut info = InstructionInfoFactory::new();
        let (mut at, mut cell) = (at, cell);
        for _ in 0..self.instructions.len() {
            if self.entered.contains(&(at as u32)) {
                return None;
            }
            match self.before.get(at)?.as_slice() {
                [from] if !from.is_back => {
                    at = from.instruction as usize;
                    match self.effect(at, self.instructions.get(at)?, cell, &mut info) {
                        Effect::Nothing => {}
                        Effect::Moves(from) => cell = from,
                        Effect::Writes => return None,
                    }
                }
                several => {
                    let is_head = several.iter().any(|from| from.is_back) && several.iter().any(|from| !from.is_back);
                    return is_head.then_some((at, cell));
                }
            }
        }
        None
    }

    /// Whether an instruction may run again after it has.
    pub(super) fn is_repeated(&self, number: usize) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![number as u32];
        while let Some(at) = open.pop() {
            for from in self.before.get(at as usize).into_iter().flatten() {
                if from.instruction as usize == number {
                    return true;
                }
                if seen.insert(from.instruction) {
                    open.push(from.instruction);
                }
            }
        }
        false
    }

    /// Number of the instruction at an address.
    pub(super) fn exactly(&self, address: u64) -> Option<usize> {
        let number = self.index(address);
        self.instructions.get(number).filter(|it| it.ip() == address).map(|_| number)
    }

    /// Number of the first instruction at or behind an address.
    pub(super) fn index(&self, address: u64) -> usize {
        self.instructions.partition_point(|instruction| instruction.ip() < address)
    }

    /// Where the content of a cell comes from before an instruction; `None` where that takes too long to find out.
    pub(super) fn origins(&self, at: usize, cell: Cell) -> Option<BTreeSet<Origin>> {
        let mut info = InstructionInfoFactory::new();
        let mut found = BTreeSet::new();
        let mut seen = HashSet::new();
        // Instructions behind which the cell, or what it was moved from, is asked for.
        let mut open = Vec::new();
        self.step_back(at, cell, (false, false), &mut open, &mut found);
        while let Some((number, cell, is_left, is_back)) = open.pop() {
            if !seen.insert((number, cell, is_left, is_back)) {
                continue;
            }
            if seen.len() > STEPS_MAX {
                return None;
            }
            let (instruction, line) = (self.instructions.get(number)?, self.line_at(number));
            match self.effect(number, instruction, cell, &mut info) {
                Effect::Writes => {
                    let (is_constant, keeps, at) = (is_constant(instruction), keeps(instruction, cell), number as u32);
                    found.insert(Origin::Made { line, is_constant, is_left, is_back, keeps, at });
                }
                effect => {
                    let cell = if let Effect::Moves(from) = effect { from } else { cell };
                    let is_left = is_left || line != 0 && line != self.line;
                    self.step_back(number, cell, (is_left, is_back), &mut open, &mut found);
                }
            }
        }
        Some(found)
    }

    fn step_back(
        &self,
        number: usize,
        cell: Cell,
        (is_left, is_back): (bool, bool),
        open: &mut Vec<(usize, Cell, bool, bool)>,
        found: &mut BTreeSet<Origin>,
    ) {
        if number == 0 {
            found.insert(Origin::Entry);
        }
        let before = self.before.get(number).map(Vec::as_slice).unwrap_or_default();
        if self.entered.contains(&(number as u32)) {
            let at = number as u32;
            found.insert(Origin::Made { line: 0, is_constant: false, is_left, is_back, keeps: false, at });
        }
        open.extend(before.iter().map(|from| (from.instruction as usize, cell, is_left, is_back || from.is_back)));
    }

    fn effect(
        &self,
        number: usize,
        instruction: &Instruction,
        cell: Cell,
        info: &mut InstructionInfoFactory,
    ) -> Effect {
        if self.barriers.contains(&(number as u32)) && cell != Cell::Register(iced_x86::Register::R11) {
            return Effect::Nothing;
        }
        if self.moves.contains(&(number as u32))
            && let Some(from) = moved_slice(cell)
        {
            return Effect::Moves(from);
        }
        effect(instruction, cell, info)
    }

    fn line_at(&self, number: usize) -> u32 {
        self.lines.get(number).copied().unwrap_or(0)
    }

    /// The lines whose instructions write a cell, or make what is moved to it.
    pub(super) fn written_at(&self, cell: Cell) -> Option<BTreeSet<u32>> {
        let mut lines = BTreeSet::new();
        let mut info = InstructionInfoFactory::new();
        for (number, instruction) in self.instructions.iter().enumerate() {
            match self.effect(number, instruction, cell, &mut info) {
                Effect::Nothing => {}
                Effect::Writes => {
                    lines.insert(self.line_at(number));
                }
                Effect::Moves(from) => {
                    // What is wide is in memory of its own: whatever is stored there, the line that stores it assigns it.
                    if matches!(cell, Cell::Stack { bytes, .. } if bytes > 8) {
                        lines.insert(self.line_at(number));
                    }
                    lines.extend(self.origins(number, from)?.into_iter().filter_map(|it| match it {
                        Origin::Made { line, .. } => Some(line),
                        Origin::Entry => None,
                    }))
                }
            }
        }
        Some(lines)
    }

    /// Whether code between two addresses may write a cell.
    pub(super) fn may_write(&self, (start, end): (u64, u64), cell: Cell) -> bool {
        let mut info = InstructionInfoFactory::new();
        (self.index(start)..self.index(end)).any(|number| {
            let instruction = self.instructions.get(number);
            instruction.is_some_and(|it| self.effect(number, it, cell, &mut info) != Effect::Nothing)
        })
    }
}

/// The line of an instruction as the function of the site sees it.
fn line_of(view: &View<'_>, table: &Lines, function: &Function, site: &Site, address: u64) -> u32 {
    let is_here = |file| view.index.path(file) == site.file.as_str();
    // Copies around the instruction, innermost first, up to the one that the site is in.
    let mut inner = None;
    let copies = function.inlined_from(function.innermost(address));
    let is_sites = |die| site.is_inlined() && die == site.scope;
    let mut found = !site.is_inlined();
    for copy in copies {
        // The body of a loop over a function, and what is called where it is written, is the function's own text.
        if is_sites(copy.die) || is_inside(view, copy, site) {
            found = true;
            break;
        }
        inner = Some((copy.call_file, copy.call_line));
    }
    match inner {
        Some((file, line)) if found => file.filter(|&file| is_here(file)).map_or(0, |_| line),
        _ => {
            let row = table.at(address).filter(|row| row.file.is_some_and(is_here));
            row.map_or(0, |row| row.line)
        }
    }
}

/// Whether a copy is of a closure that is written in the site's function: `f-range1`, `f.func2`
/// (`cmd/compile/internal/ir`, `closureName`).
fn is_inside(view: &View<'_>, copy: &Inlined, site: &Site) -> bool {
    let name = copy.origin.and_then(|origin| view.name(origin).ok().flatten());
    name.is_some_and(|name| is_closure_of(&name, &site.function))
}

fn is_closure_of(name: &str, function: &str) -> bool {
    let Some(mut rest) = name.strip_prefix(function).filter(|rest| !rest.is_empty()) else { return false };
    while !rest.is_empty() {
        let Some(number) = rest.strip_prefix("-range").or_else(|| rest.strip_prefix(".func")) else { return false };
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return false;
        }
        rest = &number[digits..];
    }
    true
}

fn is_barrier(image: &Image, instruction: &Instruction) -> bool {
    let is_call = instruction.flow_control() == FlowControl::Call && instruction.is_call_near();
    let code = || image.read(Svma(instruction.near_branch_target()), BARRIER_BYTES);
    is_call && matches!(code().as_slice(), [0x41, 0xbb, _, 0, 0, 0, 0xe9 | 0xeb])
}

/// `runtime.moveSliceNoCap(et, old, len)` and its kin return pointer and length where `ABIInternal` has the first results,
/// and take them as the second and third argument (`runtime/slice.go`).
fn moved_slice(cell: Cell) -> Option<Cell> {
    match cell {
        Cell::Register(Register::RAX) => Some(Cell::Register(Register::RBX)),
        Cell::Register(Register::RBX) => Some(Cell::Register(Register::RCX)),
        _ => None,
    }
}

/// What a call does to the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callee {
    Returns,
    /// A function of the runtime that does not return, as the compiler knows (`cmd/compile/internal/ssagen`).
    Never,
    /// It moves a slice to other memory.
    Moves,
    /// `runtime.deferreturn`: the runtime goes on at the call after a panic that was recovered.
    Recovery,
}

fn callee(view: &View<'_>, target: u64) -> Callee {
    let units = view.index.units_at(target);
    let names = units.filter_map(|unit| Functions::of_unit(view, unit).ok()).filter_map(|functions| {
        functions.at(target).filter(|function| function.entry == target).map(|function| function.name.clone())
    });
    let name = names.take(1).next().unwrap_or_default();
    let Some(name) = name.strip_prefix("runtime.") else { return Callee::Returns };
    let panics = ["panic", "goPanic"].iter().any(|prefix| name.starts_with(prefix));
    match name {
        "deferreturn" => Callee::Recovery,
        "moveSlice" | "moveSliceNoScan" | "moveSliceNoCap" | "moveSliceNoCapNoScan" => Callee::Moves,
        "gopanic" | "block" | "throw" | "throwinit" => Callee::Never,
        _ if panics && !name.starts_with("panicCheck") => Callee::Never,
        _ => Callee::Returns,
    }
}

/// What may run just before each instruction, where else the function is entered, and which calls move a slice.
fn edges(
    instructions: &[Instruction],
    range: &Range<u64>,
    callee: impl Fn(u64) -> Callee,
) -> (Vec<Vec<From>>, HashSet<u32>, HashSet<u32>) {
    let mut moves = HashSet::new();
    let mut before: Vec<Vec<From>> = vec![Vec::new(); instructions.len()];
    let mut through_tables = Vec::new();
    let mut callees: HashMap<u64, Callee> = HashMap::new();
    let mut entered = HashSet::new();
    // What stands behind a call that does not return is there for the return address.
    let mut is_dead = false;
    let mut dead = HashSet::new();
    for (number, instruction) in (0u32..).zip(instructions) {
        let flow = instruction.flow_control();
        let target = instruction.near_branch_target();
        if matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch) && range.contains(&target)
        {
            let at = instructions.partition_point(|other| other.ip() < target);
            if instructions.get(at).is_some_and(|other| other.ip() == target) {
                before[at].push(From { instruction: number, is_back: false });
            }
        }
        if flow == FlowControl::IndirectBranch {
            through_tables.push(number);
        }
        let goes_on = match flow {
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::IndirectCall => true,
            FlowControl::Call => {
                let callee = *callees.entry(target).or_insert_with(|| callee(target));
                match callee {
                    Callee::Recovery => drop(entered.insert(number)),
                    Callee::Moves => drop(moves.insert(number)),
                    Callee::Returns | Callee::Never => {}
                }
                callee != Callee::Never
            }
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Interrupt
            | FlowControl::XbeginXabortXend
            | FlowControl::Exception => false,
        };
        if is_dead {
            dead.insert(number);
        }
        is_dead = flow == FlowControl::Call && !goes_on;
        if goes_on && let Some(next) = before.get_mut(number as usize + 1) {
            next.push(From { instruction: number, is_back: false });
        }
    }
    for (at, from) in before.iter_mut().enumerate().skip(1) {
        if from.is_empty() && !dead.contains(&(at as u32)) {
            let leads = |&number: &u32| From { instruction: number, is_back: false };
            from.extend(through_tables.iter().map(leads));
            if from.is_empty() {
                entered.insert(at as u32);
            }
        }
    }
    mark_back(&mut before, &entered);
    (before, entered, moves)
}

/// Marks the edges that lead back: to an instruction that is on the way to where they come from, as the last one of a loop's
/// turn does. The order of the addresses does not tell: compilers put the head of a loop behind its body.
fn mark_back(before: &mut [Vec<From>], entered: &HashSet<u32>) {
    let mut behind: Vec<Vec<u32>> = vec![Vec::new(); before.len()];
    for (to, froms) in (0u32..).zip(before.iter()) {
        for from in froms {
            if let Some(next) = behind.get_mut(from.instruction as usize) {
                next.push(to);
            }
        }
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Never,
        OnTheWay,
        Done,
    }
    let mut seen = vec![Seen::Never; before.len()];
    let mut back: HashSet<(u32, u32)> = HashSet::new();
    let mut roots: Vec<u32> = entered.iter().copied().collect();
    roots.sort_unstable();
    // What nothing leads to is a root as well.
    let roots = std::iter::once(0).chain(roots).chain(0..before.len() as u32);
    for root in roots {
        let mut way: Vec<(u32, usize)> = Vec::new();
        if seen.get(root as usize) == Some(&Seen::Never) {
            seen[root as usize] = Seen::OnTheWay;
            way.push((root, 0));
        }
        while let Some((at, next)) = way.last_mut() {
            let at = *at;
            let Some(&to) = behind[at as usize].get(*next) else {
                seen[at as usize] = Seen::Done;
                way.pop();
                continue;
            };
            *next += 1;
            match seen[to as usize] {
                Seen::Never => {
                    seen[to as usize] = Seen::OnTheWay;
                    way.push((to, 0));
                }
                Seen::OnTheWay => {
                    back.insert((at, to));
                }
                Seen::Done => {}
            }
        }
    }
    for (to, froms) in (0u32..).zip(before.iter_mut()) {
        froms.iter_mut().for_each(|from| from.is_back = back.contains(&(from.instruction, to)));
    }
}

/// The stack pointer in front of each instruction: the first way that leads there tells, and all others must agree.
fn depths(instructions: &[Instruction], before: &[Vec<From>]) -> Vec<Option<i64>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Depth {
        Unseen,
        Known(i64),
        Unknown,
    }
    let mut info = InstructionInfoFactory::new();
    let moves: Vec<Option<i64>> = instructions.iter().map(|it| moves_stack(it, &mut info)).collect();
    let mut depths = vec![Depth::Unseen; instructions.len()];
    loop {
        let mut is_changed = false;
        for number in 0..depths.len() {
            let mut depth = if number == 0 { Depth::Known(0) } else { Depth::Unseen };
            for from in &before[number] {
                let from = from.instruction as usize;
                let behind = match (depths[from], moves[from]) {
                    (Depth::Unseen, _) => continue,
                    (Depth::Known(at), Some(by)) => at.checked_add(by).map_or(Depth::Unknown, Depth::Known),
                    _ => Depth::Unknown,
                };
                depth = if depth == Depth::Unseen || depth == behind { behind } else { Depth::Unknown };
            }
            // Each goes from unseen to known to unknown, and never back.
            if depth != depths[number] && depths[number] != Depth::Unknown {
                depths[number] = if depths[number] == Depth::Unseen { depth } else { Depth::Unknown };
                is_changed = true;
            }
        }
        if !is_changed {
            break;
        }
    }
    let known = |depth| if let Depth::Known(at) = depth { Some(at) } else { None };
    depths.into_iter().map(known).collect()
}

/// Whether an instruction that writes a cell leaves something there of what was there: it reads it, too.
fn keeps(instruction: &Instruction, cell: Cell) -> bool {
    let Cell::Register(register) = cell else { return false };
    let is_kept = matches!(instruction.mnemonic(), Mnemonic::Add | Mnemonic::Sub | Mnemonic::Inc | Mnemonic::Dec)
        || instruction.condition_code() != ConditionCode::None && instruction.flow_control() == FlowControl::Next;
    let is_cmov = || instruction.op_count() == 2 || matches!(instruction.mnemonic(), Mnemonic::Inc | Mnemonic::Dec);
    is_kept
        && is_cmov()
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().size() >= 4
        && whole(instruction.op0_register()) == register
}

fn is_constant(instruction: &Instruction) -> bool {
    let is_zeroed = matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Xorps | Mnemonic::Pxor)
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let is_loaded =
        instruction.mnemonic() == Mnemonic::Mov && !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    is_zeroed || is_loaded
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use iced_x86::code_asm::*;

    const NEVER: u64 = 0x9000;

    /// Code at 0x1000 of lines that `emit` gives each instruction; the line of the site is 5.
    pub(in crate::symbols::doubt) fn code(
        lines: &[u32],
        emit: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) -> Code {
        let mut assembler = CodeAssembler::new(64).unwrap();
        emit(&mut assembler).unwrap();
        let bytes = assembler.assemble(0x1000).unwrap();
        let decoder = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE);
        let instructions: Vec<Instruction> = decoder.into_iter().collect();
        assert_eq!(instructions.len(), lines.len());
        let named = |target| if target == NEVER { Callee::Never } else { Callee::Returns };
        let (before, entered, moves) = edges(&instructions, &(0x1000..0x1000 + bytes.len() as u64), named);
        let depths = depths(&instructions, &before);
        Code { instructions, lines: lines.to_vec(), before, entered, barriers: HashSet::new(), moves, line: 5, depths }
    }

    fn made(line: u32, is_constant: bool, is_left: bool, is_back: bool) -> Origin {
        Origin::Made { line, is_constant, is_left, is_back, keeps: false, at: 0 }
    }

    /// Origins without what tells their instructions apart.
    fn origins(code: &Code, at: usize, cell: Cell) -> Option<BTreeSet<Origin>> {
        let plain = |origin| match origin {
            Origin::Made { line, is_constant, is_left, is_back, .. } => made(line, is_constant, is_left, is_back),
            Origin::Entry => Origin::Entry,
        };
        Some(code.origins(at, cell)?.into_iter().map(plain).collect())
    }

    const RAX: Cell = Cell::Register(Register::RAX);

    #[test]
    fn a_sum_is_of_its_first_value_and_of_the_turn_before() {
        // sum := 0; for ... { rcx-- (4); sum += rdx (5) }, the sum spilled in between.
        let code = code(&[3, 4, 4, 5, 5, 4, 6], |a| {
            let (mut head, mut end) = (a.create_label(), a.create_label());
            a.xor(eax, eax)?;
            a.set_label(&mut head)?;
            a.dec(rcx)?;
            a.je(end)?;
            a.mov(qword_ptr(rsp + 8), rax)?;
            a.add(rax, rdx)?;
            a.jmp(head)?;
            a.set_label(&mut end)?;
            a.ret()
        });
        let spilled = Cell::Stack { offset: 8, bytes: 8 };
        let first = made(3, true, true, false);
        let before = made(5, false, true, true);
        assert_eq!(origins(&code, 3, RAX), Some(BTreeSet::from([first, before])));
        assert_eq!(origins(&code, 4, spilled), Some(BTreeSet::from([first, before])));
        // Behind the addition the line has changed it already.
        assert_eq!(origins(&code, 5, RAX), Some(BTreeSet::from([made(5, false, false, false)])));
        // On the way in, nothing was spilled.
        assert_eq!(
            origins(&code, 3, spilled),
            Some(BTreeSet::from([Origin::Entry, made(3, true, true, true), before]))
        );
        assert_eq!(code.written_at(spilled), Some(BTreeSet::from([3, 5])));
    }

    #[test]
    fn what_is_stored_in_an_array_is_assigned_where_it_is_stored() {
        // x := rdx + 1 (3); list[rcx] = x (4); for a word in the frame, the store says nothing.
        let code = code(&[3, 4, 5], |a| {
            a.inc(rdx)?;
            a.mov(qword_ptr(rsp + rcx * 8), rdx)?;
            a.ret()
        });
        assert_eq!(code.written_at(Cell::Stack { offset: 0, bytes: 64 }), Some(BTreeSet::from([3, 4])));
        assert_eq!(code.written_at(Cell::Stack { offset: 0, bytes: 8 }), Some(BTreeSet::new()));
    }

    #[test]
    fn a_loop_leads_back_where_its_head_is_entered_again_wherever_it_stands() {
        // jmp head; body: inc rax; head: dec rcx; jne body; ret: the way from the body to the head falls through.
        let code = code(&[3, 3, 7, 6, 6, 8], |a| {
            let (mut body, mut head) = (a.create_label(), a.create_label());
            a.xor(eax, eax)?;
            a.jmp(head)?;
            a.set_label(&mut body)?;
            a.inc(rax)?;
            a.set_label(&mut head)?;
            a.dec(rcx)?;
            a.jne(body)?;
            a.ret()
        });
        let ways: Vec<(usize, bool)> = code.ways_to(3).collect();
        assert_eq!(ways, [(1, false), (2, true)]);
        assert!(code.ways_to(2).all(|(_, is_back)| !is_back));
        let found = origins(&code, 3, RAX);
        assert_eq!(found, Some(BTreeSet::from([made(3, true, true, false), made(7, false, false, true)])));
    }

    #[test]
    fn a_sum_in_place_and_a_conditional_move_keep_what_was_there() {
        let code = code(&[3, 4, 4, 5], |a| {
            a.xor(eax, eax)?;
            a.add(rax, rdx)?;
            a.cmovl(rbx, rsi)?;
            a.ret()
        });
        let keeps = |number: usize, cell| {
            let found = code.origins(number, cell).unwrap();
            matches!(found.first(), Some(Origin::Made { keeps: true, .. }))
        };
        assert!(keeps(2, RAX) && keeps(3, Cell::Register(Register::RBX)));
        assert!(!keeps(1, RAX));
        assert_eq!(code.target(1), Some(RAX));
    }

    #[test]
    fn closures_of_a_function_are_its_own_text() {
        for name in ["main.f-range1", "main.f.func2", "main.f.func1-range3", "main.f.func1.func2"] {
            let is_one = name.starts_with("main.f") && is_closure_of(name, "main.f");
            assert!(is_one, "{name}");
        }
        for name in ["main.f", "main.ff", "main.f.func", "main.f.deferwrap1", "main.f-rangeX", "main.g.func1"] {
            assert!(!is_closure_of(name, "main.f"), "{name}");
        }
    }

    #[test]
    fn what_follows_a_call_that_never_returns_has_nothing_of_it() {
        let code = code(&[3, 4, 4, 0, 5], |a| {
            let mut end = a.create_label();
            a.mov(eax, 7)?;
            a.jne(end)?;
            a.call(NEVER)?;
            a.nop()?;
            a.set_label(&mut end)?;
            a.ret()
        });
        assert_eq!(origins(&code, 4, RAX), Some(BTreeSet::from([made(3, true, true, false)])));
    }

    #[test]
    fn where_nothing_leads_to_nothing_is_known_but_through_tables() {
        let unknown = code(&[3, 3, 5], |a| {
            a.mov(eax, 7)?;
            a.ret()?;
            a.nop()
        });
        assert_eq!(origins(&unknown, 2, RAX), Some(BTreeSet::from([made(0, false, false, false)])));
        let table = code(&[3, 3, 5], |a| {
            a.mov(eax, 7)?;
            a.jmp(rdx)?;
            a.nop()
        });
        assert_eq!(origins(&table, 2, RAX), Some(BTreeSet::from([made(3, true, true, false)])));
    }
}

//! The choice: which patch one address can take, and why not a cheaper one.

use super::function::FunctionAnalysis;
use super::instruction::Kind;
use std::fmt;

/// Length of `jmp rel32`, in bytes.
pub(super) const JUMP_BYTES: usize = 5;
/// `int3`: one byte that traps, for the first three bytes of a displacement.
const BREAKPOINT: u8 = 0xcc;
/// `push es`, which 64-bit mode has not: one byte that raises SIGILL. For the last byte of a displacement, which 0xcc
/// would send two gigabytes back.
const UNDEFINED: u8 = 0x06;

/// An instruction that a patch displaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Displaced {
    /// Where it begins, in bytes from the site.
    pub offset: u8,
    /// Its length, in bytes.
    pub bytes: u8,
    /// It names memory relative to the instruction pointer: its displacement changes, and the pad must be in reach.
    pub is_rip_relative: bool,
    /// It reads or writes memory, so that it may fault in the pad.
    pub may_fault: bool,
    /// It pushes a return address, which must be the original one.
    pub is_call: bool,
    /// The instruction behind it is not reached from it.
    pub ends_block: bool,
}

/// What the 32-bit displacement of a jump must look like, as the little-endian number that stands behind the opcode:
/// `displacement & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rel32 {
    /// Bits that are given.
    pub mask: u32,
    /// Their values; zero elsewhere.
    pub value: u32,
}

impl Rel32 {
    /// Whether a displacement has the given bits.
    pub fn allows(self, displacement: i32) -> bool {
        displacement as u32 & self.mask == self.value
    }

    /// Makes an instruction that begins at `offset` (1 to 4) from the jump's opcode trap.
    fn trap_at(&mut self, offset: usize) {
        let byte = if offset == JUMP_BYTES - 1 { UNDEFINED } else { BREAKPOINT };
        let shift = 8 * (offset - 1);
        self.mask |= 0xff << shift;
        self.value |= u32::from(byte) << shift;
    }
}

/// A five-byte jump to a pad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpPatch {
    /// Bytes from the site on that belong to the patch: the jump's five, or to the end of the last displaced
    /// instruction, whichever is more. Those behind the jump stay as they are.
    pub patch_bytes: u8,
    /// What runs in the pad instead, in order; at least one.
    pub displaced: Vec<Displaced>,
    /// The jump covers one instruction only: it can be written while threads run.
    pub single_instruction: bool,
    /// Makes every instruction within the jump trap. Optional for a [`SiteChoice::Jump`], where threads and goroutines
    /// that are stopped inside are its only use; a must for a [`SiteChoice::PunnedJump`].
    pub rel32: Rel32,
}

impl JumpPatch {
    /// Where the pad goes on, in bytes from the site; `None` when its last instruction does not.
    pub fn resume(&self) -> Option<u8> {
        self.displaced.last().filter(|last| !last.ends_block).map(|last| last.offset + last.bytes)
    }
}

/// What a site can take. The reasons say why it is not the cheaper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteChoice {
    /// A jump with any displacement. `why_stop`: why it cannot be written while threads run.
    Jump {
        /// The patch.
        patch: JumpPatch,
        /// `None` for a single instruction.
        why_stop: Option<Obstacle>,
    },
    /// A jump whose displacement makes those trap who arrive within it; the handler sends them to the pad.
    PunnedJump {
        /// The patch.
        patch: JumpPatch,
        /// Addresses within the patch where branches may arrive, each time at the cost of a trap. Empty when only
        /// unknown indirect jumps may.
        slow_entries: Vec<u64>,
        /// Why not just any displacement.
        why: Obstacle,
    },
    /// A breakpoint. The first instruction is displaced, and nothing else.
    Trap {
        /// The instruction.
        displaced: Displaced,
        /// Why no jump.
        why: Obstacle,
    },
    /// Nothing.
    Refused {
        /// Why.
        why: Refusal,
    },
}

impl SiteChoice {
    /// Why it is not cheaper; `None` when it is the cheapest.
    pub fn reason(&self) -> Option<String> {
        match self {
            SiteChoice::Jump { why_stop, .. } => why_stop.map(|why| why.to_string()),
            SiteChoice::PunnedJump { why, .. } | SiteChoice::Trap { why, .. } => Some(why.to_string()),
            SiteChoice::Refused { why } => Some(why.to_string()),
        }
    }

    /// The patch, if it is a jump of either kind.
    pub fn patch(&self) -> Option<&JumpPatch> {
        match self {
            SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } => Some(patch),
            SiteChoice::Trap { .. } | SiteChoice::Refused { .. } => None,
        }
    }
}

/// Why a site cannot take the cheaper patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The instruction is shorter than a jump, so its neighbours are displaced with it.
    Short {
        /// Its length.
        bytes: u8,
    },
    /// A branch, table or landing pad leads into the five bytes.
    Target {
        /// Where.
        at: u64,
    },
    /// An indirect jump of the function may lead anywhere.
    UnknownTargets,
    /// A loop begins within the five bytes: each round would trap.
    LoopHead {
        /// Where.
        at: u64,
    },
    /// Somebody arrives in the middle of an instruction.
    MidInstruction {
        /// Where.
        at: u64,
    },
    /// Go's `recover` goes on there.
    Recovery {
        /// Where.
        at: u64,
    },
    /// A call there would return into the five bytes.
    Call {
        /// Where.
        at: u64,
    },
    /// The code ends there, and what follows within the five bytes belongs to another path.
    BlockEnd {
        /// Where the other path's code is.
        at: u64,
    },
    /// The function ends within the five bytes.
    FunctionEnd,
    /// `endbr64` within the five bytes.
    Landing {
        /// Where.
        at: u64,
    },
    /// An instruction within the five bytes cannot run elsewhere, or raises a signal on purpose.
    Fixed {
        /// Where.
        at: u64,
    },
    /// Bytes that are no instruction.
    Undecodable {
        /// Where.
        at: u64,
    },
    /// A restartable sequence begins within the five bytes.
    Restartable {
        /// Where.
        at: u64,
    },
    /// Another tracepoint's patch is within the five bytes.
    Neighbour {
        /// Its site.
        at: u64,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Short { bytes } => {
                write!(f, "the instruction has {bytes} of the 5 bytes of a jump, so those behind it move as well")
            }
            Obstacle::Target { at } => write!(f, "other code leads to {at:#x}, within the 5 bytes of a jump"),
            Obstacle::UnknownTargets => f.write_str("the function has an indirect jump whose targets are not known"),
            Obstacle::LoopHead { at } => write!(f, "a loop begins at {at:#x}, within the 5 bytes of a jump"),
            Obstacle::MidInstruction { at } => {
                write!(f, "other code leads into the middle of an instruction at {at:#x}")
            }
            Obstacle::Recovery { at } => {
                write!(f, "recover() goes on at {at:#x}, within the 5 bytes of a jump")
            }
            Obstacle::Call { at } => write!(f, "the call at {at:#x} would return into the 5 bytes of a jump"),
            Obstacle::BlockEnd { at } => {
                write!(f, "the path ends, and other code begins at {at:#x}, within the 5 bytes of a jump")
            }
            Obstacle::FunctionEnd => f.write_str("the function ends within the 5 bytes of a jump"),
            Obstacle::Landing { at } => {
                write!(f, "the endbr64 at {at:#x} must stay, and is within the 5 bytes of a jump")
            }
            Obstacle::Fixed { at } => {
                write!(f, "the instruction at {at:#x} cannot run elsewhere, and is within the 5 bytes of a jump")
            }
            Obstacle::Undecodable { at } => write!(f, "there is no instruction at {at:#x}"),
            Obstacle::Restartable { at } => write!(f, "a restartable sequence begins at {at:#x}"),
            Obstacle::Neighbour { at } => {
                write!(f, "the tracepoint at {at:#x} is within the 5 bytes of a jump")
            }
        }
    }
}

/// Why a site can take no patch at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in the function.
    Outside,
    /// No instruction begins there.
    NoBoundary,
    /// It lies in bytes that are read in two ways, and a patch would change the other.
    ReadTwice,
    /// It, or something before it, is no instruction.
    Undecodable {
        /// Where.
        at: u64,
    },
    /// The function must not be traced.
    Denied {
        /// Why.
        why: &'static str,
    },
    /// The instruction raises a signal on purpose, and who handles it looks at where.
    Raises,
    /// The instruction cannot run elsewhere.
    Fixed,
    /// `endbr64`, which must stay.
    Landing {
        /// The instruction behind it, which can be traced instead.
        next: u64,
    },
    /// The kernel restarts the sequence that it belongs to by its address.
    Restartable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Outside => f.write_str("the address is not in the function; choose one that is"),
            Refusal::NoBoundary => {
                f.write_str("no instruction begins at the address; the debug information is of another build")
            }
            Refusal::ReadTwice => f.write_str("the instruction is part of another one; choose another line"),
            Refusal::Undecodable { at } => {
                write!(
                    f,
                    "the bytes at {at:#x} are no instruction, so what follows is unknown; choose a line before it"
                )
            }
            Refusal::Denied { why } => write!(f, "{why}; choose a place in the code that calls it"),
            Refusal::Raises => f.write_str("the instruction raises a signal on purpose; choose the line before it"),
            Refusal::Fixed => f.write_str(
                "the instruction (a system call, far transfer or transaction) must stay; choose another line",
            ),
            Refusal::Landing { next } => {
                write!(f, "the endbr64 must stay where indirect branches arrive; choose {next:#x}, behind it")
            }
            Refusal::Restartable => {
                f.write_str("the kernel restarts this sequence by its address; choose a line outside of it")
            }
        }
    }
}

/// See [`FunctionAnalysis::site`].
pub(super) fn site(function: &FunctionAnalysis, address: u64) -> SiteChoice {
    match first(function, address) {
        Err(why) => SiteChoice::Refused { why },
        Ok((offset, displaced)) => match Walk::along(function, offset) {
            Err(why) => SiteChoice::Trap { displaced, why },
            Ok(walk) => walk.choice(function, offset),
        },
    }
}

/// The instruction at a site; an error where none can be displaced.
fn first(function: &FunctionAnalysis, address: u64) -> Result<(usize, Displaced), Refusal> {
    let offset = address.checked_sub(function.start).and_then(|into| usize::try_from(into).ok());
    let offset = offset.filter(|offset| *offset < function.length).ok_or(Refusal::Outside)?;
    if let Some(why) = function.denied {
        return Err(Refusal::Denied { why });
    }
    if let Some(undecoded) = function.sweep.undecoded.filter(|undecoded| offset >= *undecoded) {
        return Err(Refusal::Undecodable { at: function.start + undecoded as u64 });
    }
    let cell = function.sweep.cells[offset];
    if cell.length == 0 {
        return Err(Refusal::NoBoundary);
    }
    if cell.is_read_twice() {
        return Err(Refusal::ReadTwice);
    }
    if function.is_restartable(address) {
        return Err(Refusal::Restartable);
    }
    match cell.kind {
        Kind::Breakpoint | Kind::Raises => Err(Refusal::Raises),
        Kind::Fixed => Err(Refusal::Fixed),
        Kind::Landing => Err(Refusal::Landing { next: address + u64::from(cell.length) }),
        _ => Ok((offset, displaced(function, offset, offset))),
    }
}

fn displaced(function: &FunctionAnalysis, site: usize, offset: usize) -> Displaced {
    let cell = function.sweep.cells[offset];
    Displaced {
        offset: (offset - site) as u8,
        bytes: cell.length,
        is_rip_relative: cell.is_rip_relative(),
        may_fault: cell.touches_memory(),
        is_call: cell.kind.is_call(),
        ends_block: cell.kind.ends_block(),
    }
}

/// The instructions that five bytes cover.
struct Walk {
    displaced: Vec<Displaced>,
    /// First way in.
    target: Option<u64>,
    slow_entries: Vec<u64>,
    rel32: Rel32,
}

impl Walk {
    /// Collects them; an error where no jump can be.
    fn along(function: &FunctionAnalysis, site: usize) -> Result<Walk, Obstacle> {
        let address = |offset: usize| function.start + offset as u64;
        let mut walk =
            Walk { displaced: Vec::with_capacity(3), target: None, slow_entries: Vec::new(), rel32: Rel32::default() };
        let mut offset = site;
        loop {
            if offset != site {
                walk.enter(function, site, offset)?;
            }
            let cell = function.sweep.cells[offset];
            let end = offset + usize::from(cell.length);
            for inner in offset + 1..end.min(site + JUMP_BYTES) {
                let inner_cell = function.sweep.cells[inner];
                if inner_cell.is_entered() || inner_cell.is_read_twice() {
                    return Err(Obstacle::MidInstruction { at: address(inner) });
                }
            }
            walk.displaced.push(displaced(function, site, offset));
            if end >= site + JUMP_BYTES {
                return Ok(walk);
            }
            if cell.kind.is_call() {
                return Err(Obstacle::Call { at: address(offset) });
            }
            if cell.kind.ends_block() {
                return match other_path(function, end, site + JUMP_BYTES) {
                    None => Ok(walk),
                    Some(obstacle) => Err(obstacle),
                };
            }
            if end >= function.length {
                return Err(Obstacle::FunctionEnd);
            }
            offset = end;
        }
    }

    /// Looks at an instruction behind the first one, before it is taken along.
    fn enter(&mut self, function: &FunctionAnalysis, site: usize, offset: usize) -> Result<(), Obstacle> {
        let at = function.start + offset as u64;
        let cell = function.sweep.cells[offset];
        if cell.length == 0 {
            return Err(Obstacle::Undecodable { at });
        }
        if cell.is_read_twice() {
            return Err(Obstacle::MidInstruction { at });
        }
        if function.is_restartable(at) {
            return Err(Obstacle::Restartable { at });
        }
        match cell.kind {
            Kind::Landing => return Err(Obstacle::Landing { at }),
            Kind::Fixed | Kind::Raises | Kind::Breakpoint => return Err(Obstacle::Fixed { at }),
            _ => {}
        }
        if cell.is_recovery() {
            return Err(Obstacle::Recovery { at });
        }
        if cell.is_loop_head() {
            return Err(Obstacle::LoopHead { at });
        }
        if cell.is_entered() {
            self.target.get_or_insert(at);
            self.slow_entries.push(at);
        }
        self.rel32.trap_at(offset - site);
        Ok(())
    }

    fn choice(self, function: &FunctionAnalysis, site: usize) -> SiteChoice {
        let single_instruction = self.displaced.len() == 1 && usize::from(self.displaced[0].bytes) >= JUMP_BYTES;
        let last = self.displaced[self.displaced.len() - 1];
        let patch = JumpPatch {
            patch_bytes: (last.offset + last.bytes).max(JUMP_BYTES as u8),
            displaced: self.displaced,
            single_instruction,
            rel32: self.rel32,
        };
        // Nobody arrives within a single instruction.
        let has_inner = patch.displaced.len() > 1;
        let why = match self.target {
            Some(at) => Some(Obstacle::Target { at }),
            None if has_inner && function.sweep.any_target => Some(Obstacle::UnknownTargets),
            None => None,
        };
        match why {
            Some(why) => SiteChoice::PunnedJump { patch, slow_entries: self.slow_entries, why },
            None => {
                let bytes = function.sweep.cells[site].length;
                SiteChoice::Jump { patch, why_stop: (!single_instruction).then_some(Obstacle::Short { bytes }) }
            }
        }
    }
}

/// Whether something else than padding is between two offsets, the first of which is not reached from before it.
fn other_path(function: &FunctionAnalysis, from: usize, to: usize) -> Option<Obstacle> {
    if to > function.sweep.cells.len() {
        return Some(Obstacle::FunctionEnd);
    }
    let at = |offset: usize| function.start + offset as u64;
    let mut offset = from;
    while offset < to {
        let cell = function.sweep.cells[offset];
        let byte = function.code[offset];
        let bytes = if offset >= function.length {
            // Behind the function: nothing was decoded. Linkers fill with int3 (Go, lld), zeros or nops.
            match byte {
                BREAKPOINT | 0 => 1,
                _ => match nop_bytes(&function.code[offset..]) {
                    Some(bytes) => bytes,
                    None => return Some(Obstacle::FunctionEnd),
                },
            }
        } else if function.sweep.any_target {
            return Some(Obstacle::UnknownTargets);
        } else {
            match cell.kind {
                Kind::Nop | Kind::Breakpoint if cell.length != 0 => usize::from(cell.length),
                _ => return Some(Obstacle::BlockEnd { at: at(offset) }),
            }
        };
        let end = (offset + bytes).min(to);
        if function.sweep.cells[offset..end].iter().any(|cell| cell.is_entered() || cell.is_read_twice()) {
            return Some(Obstacle::BlockEnd { at: at(offset) });
        }
        offset += bytes;
    }
    None
}

/// Length of the nop that code begins with.
fn nop_bytes(code: &[u8]) -> Option<usize> {
    let mut decoder = iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE);
    let instruction = decoder.decode();
    (instruction.mnemonic() == iced_x86::Mnemonic::Nop).then(|| instruction.len())
}

//! Pads: what runs in the process when a thread comes to a site, and the signal handlers that belong to it.
//!
//! ```text
//! site   jmp pad | int3 -> handler -> pad
//! pad    [lea rsp, [rsp-128]]; push rax; lahf; seto al; push rax
//!        [cmp dword [alive], 0; je end]
//!        for each probe: cmp dword [enabled], 0; je next; body; next:
//!        pop rax; add al, 127; sahf; pop rax; [lea rsp, [rsp+128]]
//!        displaced instructions ([`relocate`])
//!        jmp behind them
//! twin   the same, elsewhere; where the pad leaves, the twin has int3 ([`relocate`])
//! ```
//!
//! A program that is preempted by a signal (Go's SIGURG) cannot be preempted in a pad: its runtime does not know the
//! address. The handler moves such a thread to the twin, whose end calls the runtime's handler again, at an address that
//! it knows.
//!
//! Files: `mod` assembles a pad, `relocate` one displaced instruction, `tables` is what handlers know of a pad, `island`
//! writes both to an island, `room` finds a place for them, `handlers` is the machine code of the handlers.
//!
//! Invariants
//! - A pad uses the stack below the program's (and below its red zone) and nothing else of the program's; rax and the
//!   flags come back from the stack. DF, AC and the vector registers are not touched.
//! - Each instruction of a pad has a span: the place in the program that it stands for, and how to get back to the
//!   program's state.
//! - The same request gives the same bytes, but for displacements: the length does not depend on the place.
//!
//! Not here: bodies ([`super::codegen`]), which bytes may be patched ([`super::analysis`]), who writes them.

pub(in crate::engine) mod handlers;
pub(in crate::engine) mod island;
mod relocate;
mod room;
pub(in crate::engine) mod tables;

use super::codegen::{self, Body, BodyContext, CodegenError};
use crate::engine::area::{CODE_BYTES, Island, PROBE_ENABLED, TABLES_BYTES};
use iced_x86::code_asm::{CodeAssembler, CodeAssemblerResult, CodeLabel, al, rax, rsp};
use iced_x86::{BlockEncoderOptions, Code, Decoder, DecoderOptions, IcedError, Instruction, MemoryOperand, Register};
use relocate::{Relocator, Side, Tail};
use riptrace_protocol::ids::Avma;
use tables::{JUMP_BYTES, ORIGINAL_MAX, PAD_LENGTH_MAX, Saved, Span, SpanKind, TablesError};

/// Bytes below the stack pointer that belong to a function (System V ABI, AMD64 supplement, 3.2.2).
pub(super) const RED_ZONE_BYTES: u8 = 128;
/// rax among the general registers of a `ucontext_t` (glibc's sys/ucontext.h).
const REG_RAX: u8 = 13;
/// rax and the flags.
const STATE_BYTES: u16 = 16;

/// What a pad runs for one probe.
pub(in crate::engine) trait PadBody {
    /// Number of the probe.
    fn probe(&self) -> u32;
    /// Appends it; as [`codegen::emit`].
    fn emit(&self, asm: &mut CodeAssembler) -> Result<Body, CodegenError>;
}

impl PadBody for BodyContext<'_> {
    fn probe(&self) -> u32 {
        self.probe
    }

    fn emit(&self, asm: &mut CodeAssembler) -> Result<Body, CodegenError> {
        codegen::emit(asm, self)
    }
}

/// How a site leads to its pad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum PatchKind {
    /// `jmp rel32` over one instruction, or over several of which only the first is ever arrived at.
    Jump,
    /// `jmp rel32` with `rel32 & mask == value`: whoever arrives at an instruction inside meets a byte that traps.
    Punned {
        /// Bits that are given.
        mask: u32,
        /// Their values.
        value: u32,
    },
    /// `int3`.
    Trap,
}

impl PatchKind {
    /// How many bytes it replaces.
    pub(in crate::engine) fn bytes(self) -> usize {
        match self {
            PatchKind::Jump | PatchKind::Punned { .. } => JUMP_BYTES,
            PatchKind::Trap => 1,
        }
    }
}

/// What pad is wanted.
#[derive(Clone, Copy)]
pub(in crate::engine) struct PadRequest<'a> {
    /// The island it will be in.
    pub(in crate::engine) island: Island,
    /// The site: address of an instruction.
    pub(in crate::engine) site: Avma,
    /// The program's bytes at the site, as they are without any patch: at least those that the patch replaces and those
    /// that are displaced.
    pub(in crate::engine) original: &'a [u8],
    /// How many of them are displaced: whole instructions.
    pub(in crate::engine) displaced: usize,
    /// How the site leads to the pad.
    pub(in crate::engine) patch: PatchKind,
    /// What runs there.
    pub(in crate::engine) bodies: &'a [&'a dyn PadBody],
    /// Whether the function may use the bytes below its stack pointer: every one that is not Go's.
    pub(in crate::engine) red_zone: bool,
    /// Whether the function is preempted by SIGURG: Go's. Such a pad has a twin.
    pub(in crate::engine) go: bool,
    /// Whether the process has a shadow stack: calls are refused then, as theirs and the pad's differ.
    pub(in crate::engine) shadow_stack: bool,
}

/// Where a pad and its twin are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Places {
    /// First byte of the pad.
    pub(in crate::engine) start: Avma,
    /// First byte of the twin, if there is to be one.
    pub(in crate::engine) twin: Option<Avma>,
}

/// A pad, assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct PadImage {
    /// Where it is.
    pub(in crate::engine) places: Places,
    /// Its bytes.
    pub(in crate::engine) code: Vec<u8>,
    /// The twin's bytes: as many, or none.
    pub(in crate::engine) twin_code: Vec<u8>,
    /// What is written to the site.
    pub(in crate::engine) patch: Vec<u8>,
    /// Instructions that may fault, and where to go on; offsets in the pad.
    pub(in crate::engine) fixups: Vec<(u16, u16)>,
    /// What stands for what.
    pub(in crate::engine) spans: Vec<Span>,
    /// Each displaced instruction: where the program has it, and the pad's.
    pub(in crate::engine) boundaries: Vec<(Avma, Avma)>,
    /// Where the pad goes on without doing anything for its probes.
    pub(in crate::engine) bypass: Avma,
}

/// Why there is no pad for a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum PadError {
    /// The bytes are no instructions, or the patch would replace more of them than is known.
    #[error("there is no whole instruction at {:#x}: the process's memory is not the build's file", at.0)]
    NoInstruction {
        /// Where.
        at: Avma,
    },
    /// The instruction depends on where it stands.
    #[error("the instruction at {:#x} ({instruction}) cannot run elsewhere; choose another line", at.0)]
    Kind {
        /// Where.
        at: Avma,
        /// Which.
        instruction: String,
    },
    /// What an instruction names is too far from the pad.
    #[error("the instruction at {:#x} leads further than 2 GB from the injected code; choose another line", at.0)]
    TooFar {
        /// Where.
        at: Avma,
    },
    /// A call in a process with a shadow stack.
    #[error("the instruction at {:#x} is a call, and the process has a shadow stack; choose another line", at.0)]
    ShadowStack {
        /// Where.
        at: Avma,
    },
    /// The capture has no code.
    #[error(transparent)]
    Body(#[from] CodegenError),
    /// The pad is too long.
    #[error(
        "the captures at one site need {bytes} bytes of code, and {PAD_LENGTH_MAX} are the most; capture less there"
    )]
    Long {
        /// How long it would be.
        bytes: usize,
    },
    /// The island has no room.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The assembler refused an instruction.
    #[error("the pad cannot be assembled: {0}; trace this site through ptrace and report it")]
    Assembler(String),
    /// Pad and twin differ.
    #[error("the pad's two copies differ in length: a defect; trace this site through ptrace and report it")]
    Layout,
}

impl From<IcedError> for PadError {
    fn from(error: IcedError) -> PadError {
        PadError::Assembler(error.to_string())
    }
}

impl PadError {
    fn refused(instruction: &Instruction) -> PadError {
        let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
        PadError::Kind { at: Avma(instruction.ip()), instruction: name }
    }
}

/// The displaced instructions of a request.
fn instructions(request: &PadRequest<'_>) -> Result<Vec<Instruction>, PadError> {
    let none = |at| PadError::NoInstruction { at };
    let enough = request.original.len() >= request.patch.bytes() && request.displaced <= ORIGINAL_MAX;
    let bytes = request.original.get(..request.displaced).filter(|_| enough).ok_or(none(request.site))?;
    let mut decoder = Decoder::with_ip(64, bytes, request.site.0, DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(none(Avma(instruction.ip())));
        }
        found.push(instruction);
    }
    if found.is_empty() { Err(none(request.site)) } else { Ok(found) }
}

/// Assembles a pad. Pure: the same request and places give the same bytes.
pub(in crate::engine) fn build(request: &PadRequest<'_>, places: Places) -> Result<PadImage, PadError> {
    let displaced = instructions(request)?;
    let first = Assembled::assemble(request, &displaced, Side::First { alone: places.twin.is_none() }, places.start)?;
    let twin = match places.twin {
        Some(place) => Some(Assembled::assemble(request, &displaced, Side::Twin, place)?),
        None => None,
    };
    if twin.as_ref().is_some_and(|twin| !twin.is_laid_out_as(&first)) {
        return Err(PadError::Layout);
    }
    if first.code.len() > PAD_LENGTH_MAX {
        return Err(PadError::Long { bytes: first.code.len() });
    }
    let at = |offset: u16| Avma(places.start.0 + u64::from(offset));
    let boundaries = displaced.iter().zip(&first.boundaries);
    Ok(PadImage {
        places,
        patch: tables::patch(request.site, places.start, request.patch.bytes() as u8),
        boundaries: boundaries.map(|(instruction, offset)| (Avma(instruction.ip()), at(*offset))).collect(),
        bypass: at(first.bypass),
        spans: twin.as_ref().map_or(first.spans, |twin| twin.spans.clone()),
        code: first.code,
        twin_code: twin.map(|twin| twin.code).unwrap_or_default(),
        fixups: first.fixups,
    })
}

/// Length of the pad of a request, wherever it will be.
pub(in crate::engine) fn length(request: &PadRequest<'_>) -> Result<usize, PadError> {
    let displaced = instructions(request)?;
    let start = Avma(request.island.tables().0 + TABLES_BYTES as u64);
    Ok(Assembled::assemble(request, &displaced, Side::First { alone: !request.go }, start)?.code.len())
}

/// One of the two copies.
#[derive(Debug)]
struct Assembled {
    code: Vec<u8>,
    fixups: Vec<(u16, u16)>,
    spans: Vec<Span>,
    boundaries: Vec<u16>,
    bypass: u16,
}

/// A span whose place is known only as the number of an instruction.
struct Mark {
    index: usize,
    depth: u16,
    kind: SpanKind,
    original: u8,
    saved: Option<Saved>,
}

impl Assembled {
    fn is_laid_out_as(&self, other: &Assembled) -> bool {
        let same = self.code.len() == other.code.len() && self.bypass == other.bypass;
        // The twin has spans of its own where it puts the address on the stack to which the other jumps.
        let has = |span: &Span| self.spans.contains(span);
        same && self.fixups == other.fixups && self.boundaries == other.boundaries && other.spans.iter().all(has)
    }

    fn assemble(
        request: &PadRequest<'_>,
        displaced: &[Instruction],
        side: Side,
        at: Avma,
    ) -> Result<Assembled, PadError> {
        let mut asm = CodeAssembler::new(64)?;
        let mut marks = Vec::new();
        let mut fixups: Vec<(usize, CodeLabel)> = Vec::new();
        let mut to_displaced = asm.create_label();
        let mut bypass = asm.create_label();
        let below = if request.red_zone { u16::from(RED_ZONE_BYTES) } else { 0 };
        let mut recoveries = Vec::new();
        if !request.bodies.is_empty() {
            recoveries = prologue(&mut asm, request, below, &mut marks)?;
            if !request.go {
                // A child by fork(2) has no control, and perhaps no handler of ours any more.
                fixups.push((asm.instructions().len(), bypass));
                let alive = MemoryOperand::with_base_displ(Register::RIP, request.island.alive().0 as i64);
                asm.add_instruction(Instruction::with2(Code::Cmp_rm32_imm8, alive, 0)?)?;
                asm.je(bypass)?;
            }
            for body in request.bodies {
                body_of(&mut asm, *body, request.island, below, bypass, &mut fixups, &mut marks)?;
            }
        }
        let bypass_index = asm.instructions().len();
        asm.set_label(&mut bypass)?;
        asm.zero_bytes()?;
        if !request.bodies.is_empty() {
            epilogue(&mut asm, below, &mut marks)?;
        }
        asm.set_label(&mut to_displaced)?;
        let code = request.island.tables().0 + TABLES_BYTES as u64;
        let mut relocator = Relocator {
            asm: &mut asm,
            side,
            reach: code..code + (CODE_BYTES - TABLES_BYTES) as u64,
            red_zone: request.red_zone,
            shadow_stack: request.shadow_stack,
            tail: Tail::default(),
            original: 0,
            parts: Vec::new(),
        };
        let mut boundaries = Vec::new();
        for instruction in displaced {
            relocator.original = (instruction.ip() - request.site.0) as u8;
            boundaries.push(relocator.asm.instructions().len());
            relocator.displace(instruction)?;
        }
        relocator.original = request.displaced as u8;
        relocator.go_on(displaced.last())?;
        relocator.finish()?;
        let parts = std::mem::take(&mut relocator.parts);
        marks.extend(parts.into_iter().map(|part| Mark {
            index: part.index,
            depth: part.depth,
            kind: if part.exit { SpanKind::Exit } else { SpanKind::Displaced },
            original: part.original,
            saved: part.saved.map(|register| Saved { register, slot: 0 }),
        }));
        recover(&mut asm, recoveries, below, to_displaced, &mut fixups, &mut marks)?;
        let labels = label_places(&asm, fixups.iter().map(|(_, label)| *label))?;
        let assembled = asm.assemble_options(at.0, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        Assembled::of(&assembled, &marks, &fixups, labels, &boundaries, bypass_index)
    }

    fn of(
        assembled: &CodeAssemblerResult,
        marks: &[Mark],
        fixups: &[(usize, CodeLabel)],
        recoveries: Vec<usize>,
        boundaries: &[usize],
        bypass: usize,
    ) -> Result<Assembled, PadError> {
        let code = assembled.inner.code_buffer.clone();
        let bytes = code.len();
        let offset = |index: usize| -> Result<u16, PadError> {
            let offset = *assembled.inner.new_instruction_offsets.get(index).ok_or(PadError::Layout)?;
            u16::try_from(offset)
                .map_err(|_| if bytes > PAD_LENGTH_MAX { PadError::Long { bytes } } else { PadError::Layout })
        };
        let mut spans: Vec<Span> = Vec::new();
        for mark in marks {
            let span = Span {
                start: offset(mark.index)?,
                depth: mark.depth,
                kind: mark.kind,
                original: mark.original,
                saved: mark.saved,
            };
            // Marks without instructions between them: the later one says what is there.
            spans.retain(|other| other.start != span.start);
            spans.push(span);
        }
        spans.dedup_by(|next, previous| Span { start: previous.start, ..*next } == *previous);
        let mut resolved = Vec::new();
        for ((index, _), recovery) in fixups.iter().zip(recoveries) {
            resolved.push((offset(*index)?, offset(recovery)?));
        }
        resolved.sort_unstable();
        let boundaries = boundaries.iter().map(|index| offset(*index)).collect::<Result<_, _>>()?;
        Ok(Assembled { spans, fixups: resolved, boundaries, bypass: offset(bypass)?, code })
    }
}

/// Numbers of the instructions that labels are at. A label knows its own only after it was set, and a copy of it that was
/// made before never does; the instruction has the label's number for its address.
fn label_places(asm: &CodeAssembler, labels: impl Iterator<Item = CodeLabel>) -> Result<Vec<usize>, PadError> {
    let place = |label| {
        let id = relocate::label_id(label)?;
        asm.instructions().iter().position(|instruction| instruction.ip() == id).ok_or(PadError::Layout)
    };
    labels.map(place).collect()
}

/// Saves rax and the flags. Returns the two pushes: a thread at the very end of its stack faults there.
fn prologue(
    asm: &mut CodeAssembler,
    request: &PadRequest<'_>,
    below: u16,
    marks: &mut Vec<Mark>,
) -> Result<Vec<usize>, PadError> {
    let here = |asm: &CodeAssembler| asm.instructions().len();
    marks.push(body_mark(here(asm), 0, None));
    if request.red_zone {
        asm.lea(rsp, rsp - i32::from(below))?;
    }
    marks.push(body_mark(here(asm), below, None));
    let mut pushes = vec![here(asm)];
    asm.push(rax)?;
    marks.push(body_mark(here(asm), below + 8, Some(0)));
    asm.lahf()?;
    asm.seto(al)?;
    pushes.push(here(asm));
    asm.push(rax)?;
    marks.push(body_mark(here(asm), below + STATE_BYTES, Some(8)));
    Ok(pushes)
}

/// A place of the program's own code is the site's; `rax_at` says where its rax is.
fn body_mark(index: usize, depth: u16, rax_at: Option<u32>) -> Mark {
    let saved = rax_at.and_then(|at| u8::try_from(at).ok()).map(|slot| Saved { register: REG_RAX, slot });
    Mark { index, depth, kind: SpanKind::Body, original: 0, saved }
}

/// One probe's part of a pad.
fn body_of(
    asm: &mut CodeAssembler,
    body: &dyn PadBody,
    island: Island,
    below: u16,
    bypass: CodeLabel,
    fixups: &mut Vec<(usize, CodeLabel)>,
    marks: &mut Vec<Mark>,
) -> Result<(), PadError> {
    let enabled = island.probe_words(body.probe()).0 + PROBE_ENABLED as u64;
    let mut next = asm.create_label();
    // A child by fork(2) has no control: it goes on without any probe.
    fixups.push((asm.instructions().len(), bypass));
    let word = MemoryOperand::with_base_displ(Register::RIP, enabled as i64);
    asm.add_instruction(Instruction::with2(Code::Cmp_rm32_imm8, word, 0)?)?;
    asm.je(next)?;
    let written = body.emit(asm)?;
    fixups.extend(written.fixups);
    for (index, pushed) in written.depths {
        let depth = u16::try_from(pushed).map_err(|_| PadError::Layout)?;
        marks.push(body_mark(index, below + STATE_BYTES + depth, Some(8 + pushed)));
    }
    marks.push(body_mark(asm.instructions().len(), below + STATE_BYTES, Some(8)));
    // A label at the body's end has its own place.
    asm.zero_bytes()?;
    asm.set_label(&mut next)?;
    asm.zero_bytes()?;
    Ok(())
}

/// Brings rax and the flags back.
fn epilogue(asm: &mut CodeAssembler, below: u16, marks: &mut Vec<Mark>) -> Result<(), PadError> {
    asm.pop(rax)?;
    marks.push(body_mark(asm.instructions().len(), below + 8, Some(0)));
    asm.add(al, 127)?;
    asm.sahf()?;
    asm.pop(rax)?;
    marks.push(body_mark(asm.instructions().len(), below, None));
    if below != 0 {
        asm.lea(rsp, rsp + i32::from(below))?;
    }
    Ok(())
}

/// Where a push of the prologue that found no stack goes on: the probes are left out.
fn recover(
    asm: &mut CodeAssembler,
    pushes: Vec<usize>,
    below: u16,
    displaced: CodeLabel,
    fixups: &mut Vec<(usize, CodeLabel)>,
    marks: &mut Vec<Mark>,
) -> Result<(), PadError> {
    for (number, push) in pushes.into_iter().enumerate() {
        let mut recovery = asm.create_label();
        fixups.push((push, recovery));
        let depth = below + 8 * number as u16;
        marks.push(body_mark(asm.instructions().len(), depth, (number == 1).then_some(0)));
        asm.set_label(&mut recovery)?;
        if number == 1 {
            asm.pop(rax)?;
            marks.push(body_mark(asm.instructions().len(), below, None));
        }
        if below != 0 {
            asm.lea(rsp, rsp + i32::from(below))?;
            marks.push(body_mark(asm.instructions().len(), 0, None));
        }
        asm.jmp(displaced)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! The code generator: a capture program as machine code, the *body* of a probe in a pad.
//!
//! It is one of the two executors of a [`Program`]; [`crate::capture::interpreter`] is the other, and the two give the
//! same record for the same program, registers and memory. A body is position independent but for what it reaches by a
//! displacement (control, the rings): it may be assembled at any place of its island, and again further on.
//!
//! Invariants:
//! - No register of the process is restored from memory that it shares; no call, so that no address of the pad ever lies
//!   on a stack; no address of code is kept in a register (but for a [`Guard`]'s, which has no twin), so that a thread may be
//!   moved to the twin between any two instructions; no vector register and no floating-point state is touched; no string instruction, as the direction
//!   flag is the process's.
//! - Every load from an address that the program computes is in [`Body::fixups`]; in a body with a [`Guard`] it moreover
//!   does not fault.
//! - What is read back from shared memory (ring positions, the record itself) is masked or clamped before it is used:
//!   whatever is in it, nothing outside of the rings and of control is written, and every loop ends.
//!
//! Not here: what is around a body (`pads`), what a record looks like ([`crate::engine::record`]).

mod admission;
mod condition;
mod emitter;
mod floats;
mod follow;
mod guard;
mod integers;
mod passage;
mod reads;
mod roots;
mod stack;
mod texts;
mod truth;
mod wide;

#[cfg(test)]
mod tests;

use crate::capture::program::{GoroutinePointer, Program};
use crate::engine::area::Island;
use crate::engine::record::RecordLayout;
pub(in crate::engine) use guard::Guard;
use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use riptrace_protocol::ids::Avma;

/// What a body is made of.
#[derive(Debug, Clone)]
pub(in crate::engine) struct BodyContext<'a> {
    /// What a passage does.
    pub(in crate::engine) program: &'a Program,
    /// What its records look like; made of the same program and the site's address.
    pub(in crate::engine) record: &'a RecordLayout,
    /// Written to each record: one per site, program and layout, never reused.
    pub(in crate::engine) kind: u32,
    /// Number of the probe: where its words and counters are, below [`crate::engine::area::PROBES_MAX`].
    pub(in crate::engine) probe: u32,
    /// The island that the pad is in.
    pub(in crate::engine) island: Island,
    /// Address of ring 0 in the process ([`crate::engine::area::Header::rings`]).
    pub(in crate::engine) rings: Avma,
    /// CPUs that have a ring, 1 to [`crate::engine::area::CPUS_MAX`].
    pub(in crate::engine) cpus: u32,
    /// Whether a hit takes a token of the budget.
    pub(in crate::engine) has_budget: bool,
    /// Where the thread's id is.
    pub(in crate::engine) thread: ThreadPlace,
    /// Where the current `g` is, whose stack must have room for the body. `None` where stacks have no known end.
    pub(in crate::engine) goroutine: Option<GoroutinePointer>,
    /// Whether the pad has skipped a red zone of 128 bytes before it pushed rax and the flags.
    pub(in crate::engine) red_zone: bool,
    /// What may be loaded without asking; `None` where a load that faults is led on, whatever the program does: Go's.
    /// Only for pads without a twin.
    pub(in crate::engine) guard: Option<Guard>,
    /// Whether the CPU has `rdpid`; else its number is read by `lsl`.
    pub(in crate::engine) rdpid: bool,
}

/// Where the id of the current thread is, as its own pid namespace numbers it. What cannot be read is recorded as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum ThreadPlace {
    /// Nowhere that is known.
    Unknown,
    /// `[[g + m] + procid]`, 8 bytes: the thread (`m`) that a goroutine runs on.
    Go {
        /// Where the address of the current `g` is.
        g: GoroutinePointer,
        /// Offset of `m` in `runtime.g`, in bytes.
        m_offset: u32,
        /// Offset of `procid` in `runtime.m`, in bytes.
        procid_offset: u32,
    },
    /// 4 bytes at the FS base plus this: `struct pthread.tid` of the C library.
    ThreadLocal {
        /// Offset from the FS base, in bytes.
        offset: i32,
    },
}

/// What is to be known about the instructions of a body. Indices are those of [`CodeAssembler::instructions`].
#[derive(Debug, Default)]
pub(in crate::engine) struct Body {
    /// Instructions that may fault, in order, and where to go on then: inside the same body, with the stack as deep.
    pub(in crate::engine) fixups: Vec<(usize, CodeLabel)>,
    /// From which instruction on how many bytes the body has pushed, in order; the first entry is its first instruction
    /// with 0.
    pub(in crate::engine) depths: Vec<(usize, u32)>,
}

/// Why a program has no machine code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum CodegenError {
    /// The assembler refused an instruction: a defect here.
    #[error("the capture cannot be assembled: {0}; trace this site through ptrace and report it")]
    Assembler(String),
}

/// Appends the body of a probe. On entry rax and flags are on the stack as a pad leaves them; its last instruction falls
/// through with the stack as it was, all registers but rax and flags unchanged.
pub(in crate::engine) fn emit(asm: &mut CodeAssembler, context: &BodyContext<'_>) -> Result<Body, CodegenError> {
    // How deep the stack becomes is known when it is written, and looked at before.
    let mut nowhere = CodeAssembler::new(64)?;
    let depth = passage::write(&mut nowhere, context, 0)?.1;
    passage::write(asm, context, depth).map(|(body, _)| body)
}

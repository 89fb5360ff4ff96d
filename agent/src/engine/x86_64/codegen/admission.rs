//! Admission: what becomes of a passage before anything is copied: hit condition, counting, sampling, budget, and a place
//! in the ring.
//!
//! Counters and rings are the CPU's that the thread was on a moment ago: it may be another by now, and every access is one
//! that bears it.

use super::condition::{USES_RCX, USES_RDX};
use super::emitter::{Emitter, Frame, Label};
use super::{BodyContext, CodegenError};
use crate::capture::program::GoroutinePointer;
use crate::engine::area::{
    COUNTER_COUNTED, COUNTER_RATE, COUNTER_RING, COUNTER_SAMPLED, COUNTER_SAMPLED_OUT, COUNTER_UNSELECTED,
    COUNTERS_BYTES, PROBE_HELD, PROBE_SAMPLING, PROBE_TOKENS, PROBES_MAX, RING_BYTES, RING_CONTROL_BYTES, RING_HEAD,
    RING_TAIL,
};
use crate::engine::record::{KIND, LENGTH, TSC};
use iced_x86::code_asm::{byte_ptr, dword_ptr, gpr32::*, gpr64::*, ptr, qword_ptr};
use riptrace_protocol::tracepoint::HitCondition;

/// Selector of the segment whose limit is the CPU's number and node, as `rdpid` gives them
/// (arch/x86/include/asm/segment.h: `__CPUNODE_SEG`).
const CPU_SEGMENT: u32 = 0x7b;
/// Bits of that word that are the CPU's number (`VDSO_CPUNODE_MASK`).
const CPU_MASK: i32 = 0xfff;
/// Bytes of stack that stay free below what a body uses.
const STACK_SPARE: u32 = 32;
/// From the counters of a probe on one CPU to those on the next, as a power of two.
const COUNTERS_SHIFT: u32 = (PROBES_MAX * COUNTERS_BYTES).trailing_zeros();
/// From one ring control to the next, as a power of two.
const CONTROL_SHIFT: u32 = RING_CONTROL_BYTES.trailing_zeros();
/// From one ring to the next, as a power of two: each is mapped twice.
const RING_SHIFT: u32 = (2 * RING_BYTES).trailing_zeros();

const _: () = assert!((PROBES_MAX * COUNTERS_BYTES).is_power_of_two() && RING_CONTROL_BYTES.is_power_of_two());

/// Bytes of a cache line.
const CACHE_LINE: u32 = 64;
/// Lines of a record that are fetched ahead, at most: what most records need, and what the clock hides.
const PREFETCHED_LINES: u32 = 8;

/// What the rest of a body finds on the stack, as offsets of variables.
pub(super) const POSITION: u32 = 0;
/// Address of the control of the ring.
pub(super) const RING: u32 = 8;
/// Bytes of both.
pub(super) const ADMISSION_LOCALS: u32 = 16;

/// A counter is counted off the path, then the body ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    pub(super) label: Label,
    pub(super) counter: usize,
    pub(super) frame: Frame,
}

/// Code off the path of a body.
#[derive(Debug, Default)]
pub(super) struct Aside {
    exits: Vec<Exit>,
    /// Sampling is on: label, where to go on, frame.
    sampling: Option<(Label, Label, Frame)>,
    /// The last token was another's: give it back.
    overdrawn: Option<(Label, Frame)>,
}

impl Aside {
    /// Where to jump to with the present stack, to count and end.
    pub(super) fn exit(&mut self, e: &mut Emitter<'_>, counter: usize) -> Label {
        let frame = e.frame();
        if let Some(exit) = self.exits.iter().find(|exit| exit.counter == counter && exit.frame == frame) {
            return exit.label;
        }
        let label = e.label();
        self.exits.push(Exit { label, counter, frame });
        label
    }

    /// Writes what was jumped to.
    pub(super) fn write(self, e: &mut Emitter<'_>, context: &BodyContext<'_>, end: Label) -> Result<(), CodegenError> {
        let mut exits = self.exits;
        if let Some((label, back, frame)) = self.sampling {
            e.stack_is(frame);
            e.bind(label)?;
            // edx: the mask. The number of the passage on this CPU.
            e.a.mov(edx, eax)?;
            counters(e, context)?;
            e.a.mov(eax, 1)?;
            e.a.lock().xadd(qword_ptr(rcx + COUNTER_SAMPLED), rax)?;
            e.a.test(eax, edx)?;
            let out = e.label();
            exits.push(Exit { label: out, counter: COUNTER_SAMPLED_OUT, frame });
            let out = e.at(out);
            e.a.jne(out)?;
            e.load_near(rcx, context.island.probe_words(context.probe))?;
            let back = e.at(back);
            e.a.jmp(back)?;
        }
        if let Some((label, frame)) = self.overdrawn {
            e.stack_is(frame);
            e.bind(label)?;
            e.a.lock().inc(qword_ptr(rcx + PROBE_TOKENS))?;
            match exits.iter().find(|exit| exit.counter == COUNTER_RATE && exit.frame == frame) {
                Some(exit) => {
                    let rate = e.at(exit.label);
                    e.a.jmp(rate)?;
                }
                None => unreachable!("who overdraws has looked at the tokens before"),
            }
        }
        for exit in exits {
            e.stack_is(exit.frame);
            e.bind(exit.label)?;
            if exit.frame.saved < USES_RCX {
                e.save(USES_RCX)?;
            }
            counters(e, context)?;
            e.a.lock().inc(qword_ptr(rcx + exit.counter))?;
            e.unwind(Frame::NONE)?;
            let end = e.at(end);
            e.a.jmp(end)?;
        }
        Ok(())
    }
}

/// Loads the address of the probe's counters on this CPU into rcx. Uses rax.
fn counters(e: &mut Emitter<'_>, context: &BodyContext<'_>) -> Result<(), CodegenError> {
    cpu(e, context)?;
    e.a.shl(rax, COUNTERS_SHIFT)?;
    e.load_near(rcx, context.island.counters(context.probe))?;
    Ok(e.a.add(rcx, rax)?)
}

/// Loads the number of the CPU into rax; one that has no ring is taken for the first.
fn cpu(e: &mut Emitter<'_>, context: &BodyContext<'_>) -> Result<(), CodegenError> {
    if context.rdpid {
        e.a.rdpid(rax)?;
    } else {
        e.a.mov(eax, CPU_SEGMENT)?;
        e.a.lsl(eax, eax)?;
    }
    e.a.and(eax, CPU_MASK)?;
    e.a.cmp(eax, context.cpus)?;
    let known = e.label();
    let to = e.at(known);
    e.a.jb(to)?;
    e.a.xor(eax, eax)?;
    e.bind(known)
}

/// Whether the goroutine's stack has room for `depth` bytes more. A thread that is no goroutine's has another stack.
/// Uses rax.
pub(super) fn stack_room(
    e: &mut Emitter<'_>,
    g: GoroutinePointer,
    depth: u32,
    none: Label,
) -> Result<(), CodegenError> {
    let enough = e.label();
    let to = e.at(enough);
    e.may_fault_at_thread(enough, g, rax)?;
    e.a.test(rax, rax)?;
    e.a.je(to)?;
    e.may_fault(enough);
    // runtime.g begins with its stack's bounds, and those with the lower one (runtime/runtime2.go).
    e.a.mov(rax, qword_ptr(rax))?;
    e.a.add(rax, (depth + STACK_SPARE) as i32)?;
    e.a.cmp(rax, rsp)?;
    let none = e.at(none);
    e.a.ja(none)?;
    e.bind(enough)
}

/// Decides whether the passage becomes a hit, and reserves its record: rbx. The registers that this uses, and `saved`,
/// are saved; there is room for [`ADMISSION_LOCALS`] and `locals` more.
pub(super) fn admit(
    e: &mut Emitter<'_>,
    context: &BodyContext<'_>,
    aside: &mut Aside,
    saved: usize,
    locals: u32,
) -> Result<(), CodegenError> {
    let program = context.program;
    if e.frame().saved < USES_RDX {
        e.save(USES_RDX)?;
    }
    let words = context.island.probe_words(context.probe);
    if let Some(condition) = program.hit_condition {
        e.load_near(rcx, words)?;
        e.a.mov(eax, 1)?;
        e.a.lock().xadd(qword_ptr(rcx + PROBE_HELD), rax)?;
        e.a.inc(rax)?;
        let unselected = aside.exit(e, COUNTER_UNSELECTED);
        select(e, condition, unselected)?;
    }
    if program.count_only {
        let counted = aside.exit(e, COUNTER_COUNTED);
        let counted = e.at(counted);
        return Ok(e.a.jmp(counted)?);
    }
    e.load_near(rcx, words)?;
    e.a.mov(eax, dword_ptr(rcx + PROBE_SAMPLING))?;
    e.a.test(eax, eax)?;
    let (sampling, back) = (e.label(), e.label());
    aside.sampling = Some((sampling, back, e.frame()));
    let sampling = e.at(sampling);
    e.a.jne(sampling)?;
    e.bind(back)?;
    if context.has_budget {
        // Looked at first: a probe over its budget must not write a word that all CPUs share.
        let rate = aside.exit(e, COUNTER_RATE);
        let overdrawn = e.label();
        aside.overdrawn = Some((overdrawn, e.frame()));
        let (rate, overdrawn) = (e.at(rate), e.at(overdrawn));
        e.a.cmp(qword_ptr(rcx + PROBE_TOKENS), 0)?;
        e.a.jle(rate)?;
        e.a.lock().dec(qword_ptr(rcx + PROBE_TOKENS))?;
        e.a.js(overdrawn)?;
    }
    e.save(saved)?;
    e.reserve(ADMISSION_LOCALS + locals)?;
    reserve(e, context, aside)
}

/// Whether the passage of the number in rax is selected. Uses rcx and rdx.
fn select(e: &mut Emitter<'_>, condition: HitCondition, unselected: Label) -> Result<(), CodegenError> {
    let unselected = e.at(unselected);
    match condition {
        HitCondition::Every { n: 0 } => e.a.jmp(unselected)?,
        HitCondition::Every { n } => {
            // rdx is 0 and the divisor is not: it cannot fault.
            e.load(rcx, n)?;
            e.a.xor(edx, edx)?;
            e.a.div(rcx)?;
            e.a.test(rdx, rdx)?;
            e.a.jne(unselected)?;
        }
        HitCondition::Exactly { n } | HitCondition::From { n } | HitCondition::UpTo { n } => {
            e.load(rcx, n)?;
            e.a.cmp(rax, rcx)?;
            match condition {
                HitCondition::Exactly { .. } => e.a.jne(unselected)?,
                HitCondition::From { .. } => e.a.jb(unselected)?,
                _ => e.a.ja(unselected)?,
            }
        }
    }
    Ok(())
}

/// Reserves the record in the CPU's ring and stamps it.
fn reserve(e: &mut Emitter<'_>, context: &BodyContext<'_>, aside: &mut Aside) -> Result<(), CodegenError> {
    let bytes = context.record.max_bytes;
    let full = aside.exit(e, COUNTER_RING);
    let full = e.at(full);
    cpu(e, context)?;
    e.a.mov(edx, eax)?;
    e.load_near(rsi, context.island.ring_controls())?;
    e.a.shl(rax, CONTROL_SHIFT)?;
    e.a.add(rsi, rax)?;
    // Its address is part of the code: nothing that the process can write decides where a record is written.
    e.load(rdi, context.rings.0)?;
    e.a.shl(rdx, RING_SHIFT)?;
    e.a.add(rdi, rdx)?;
    e.a.mov(rax, qword_ptr(rsi + RING_HEAD))?;
    let again = e.label();
    e.bind(again)?;
    e.a.mov(rcx, rax)?;
    e.a.sub(rcx, qword_ptr(rsi + RING_TAIL))?;
    e.a.cmp(rcx, RING_BYTES as i32 - bytes as i32)?;
    e.a.ja(full)?;
    e.a.lea(rcx, ptr(rax + bytes as i32))?;
    e.a.lock().cmpxchg(qword_ptr(rsi + RING_HEAD), rcx)?;
    let again = e.at(again);
    e.a.jne(again)?;
    let (position, ring) = (e.local(POSITION), e.local(RING));
    e.a.mov(qword_ptr(rsp + position), rax)?;
    e.a.mov(qword_ptr(rsp + ring), rsi)?;
    // Whatever the position is, the record begins in the first mapping of the ring, aligned.
    e.a.and(eax, RING_BYTES as i32 - 8)?;
    e.a.lea(rbx, ptr(rdi + rax))?;
    e.a.mov(dword_ptr(rbx + LENGTH), bytes)?;
    e.a.mov(dword_ptr(rbx + KIND), context.kind)?;
    // The reader's CPU had these lines last. They come while the clock is waited for, which takes as long.
    for line in 1..(bytes / CACHE_LINE).clamp(1, PREFETCHED_LINES) {
        e.a.prefetchw(byte_ptr(rbx + line * CACHE_LINE))?;
    }
    // Not before the reservation: a reader that has seen the ring's head knows that what is reserved later is stamped
    // later.
    let stamped = e.label();
    e.a.lfence()?;
    // A process may forbid itself to read the clock (PR_SET_TSC, prctl(2)): the record stays without a time.
    e.may_fault(stamped);
    e.a.rdtsc()?;
    e.a.shl(rdx, 32)?;
    e.a.or(rax, rdx)?;
    e.a.mov(qword_ptr(rbx + TSC), rax)?;
    e.bind(stamped)
}

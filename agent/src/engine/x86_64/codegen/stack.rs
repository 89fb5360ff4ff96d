//! Identity and call stack of a passage: thread, goroutine, and the walk along the frame pointers.

use super::admission::RING;
use super::emitter::{Emitter, Label};
use super::reads::{All, Spot};
use super::{BodyContext, CodegenError, ThreadPlace};
use crate::capture::interpreter::STACK_REGISTERS;
use crate::capture::program::{Goroutine, GoroutinePointer, Register, StackSlice};
use crate::capture::registers::{RBP, RSP};
use crate::engine::area::{RING_BYTES, RING_HEAD, RING_TAIL};
use crate::engine::record::{
    FLAG_GOROUTINE, FLAG_STACK_TRUNCATED, FLAGS, FRAMES, GOROUTINE, SHORT_STACK_WORDS, THREAD,
};
use iced_x86::code_asm::{AsmRegister64, dword_ptr, gpr8::*, gpr16::*, gpr32::*, gpr64::*, ptr, qword_ptr, word_ptr};
use std::ops::ControlFlow;

/// A ring that holds more than this has a reader that does not keep up: one that does reads at an eighth.
const FILLING_BYTES: usize = RING_BYTES / 4;

impl Emitter<'_> {
    /// Loads the address of the current `g`.
    pub(super) fn may_fault_at_thread(
        &mut self,
        recovery: Label,
        g: GoroutinePointer,
        into: AsmRegister64,
    ) -> Result<(), CodegenError> {
        let GoroutinePointer::ThreadLocal { offset } = g;
        match i32::try_from(offset) {
            Ok(offset) => {
                self.may_fault(recovery);
                self.a.mov(into, qword_ptr(offset).fs())?;
            }
            Err(_) => {
                self.load(into, offset as u64)?;
                self.may_fault(recovery);
                self.a.mov(into, qword_ptr(into).fs())?;
            }
        }
        Ok(())
    }

    /// Loads the word at an unsigned offset from a register.
    fn load_field(&mut self, recovery: Label, into: AsmRegister64, offset: u32) -> Result<(), CodegenError> {
        match i32::try_from(offset) {
            Ok(offset) => {
                self.may_fault(recovery);
                self.a.mov(into, qword_ptr(into + offset))?;
            }
            Err(_) => {
                self.a.mov(edx, offset)?;
                self.may_fault(recovery);
                self.a.mov(into, qword_ptr(into + rdx))?;
            }
        }
        Ok(())
    }
}

/// Who passes. Uses rax, rcx and rdx.
pub(super) fn identity(e: &mut Emitter<'_>, context: &BodyContext<'_>) -> Result<(), CodegenError> {
    let unknown = e.label();
    let none = e.at(unknown);
    match context.thread {
        ThreadPlace::Unknown => {}
        ThreadPlace::ThreadLocal { offset } => {
            e.may_fault(unknown);
            e.a.mov(eax, dword_ptr(offset).fs())?;
            e.a.mov(qword_ptr(rbx + THREAD), rax)?;
        }
        ThreadPlace::Go { g, m_offset, procid_offset } => {
            e.may_fault_at_thread(unknown, g, rax)?;
            e.a.test(rax, rax)?;
            e.a.je(none)?;
            e.load_field(unknown, rax, m_offset)?;
            e.load_field(unknown, rax, procid_offset)?;
            e.a.mov(qword_ptr(rbx + THREAD), rax)?;
        }
    }
    e.bind(unknown)?;
    if let Some(Goroutine { g, goid_offset }) = context.program.goroutine {
        let unknown = e.label();
        let none = e.at(unknown);
        e.may_fault_at_thread(unknown, g, rax)?;
        e.a.test(rax, rax)?;
        e.a.je(none)?;
        e.load_field(unknown, rax, goid_offset)?;
        e.a.mov(qword_ptr(rbx + GOROUTINE), rax)?;
        e.a.mov(word_ptr(rbx + FLAGS), u32::from(FLAG_GOROUTINE))?;
        e.bind(unknown)?;
    }
    Ok(())
}

/// Walks the frame pointers, or copies the stack; rdi is behind the last word then. Uses all registers of a simple body.
pub(super) fn frames(e: &mut Emitter<'_>, context: &BodyContext<'_>) -> Result<(), CodegenError> {
    let record = context.record;
    let [again, linked, truncated, done, capped] = [(); 5].map(|()| e.label());
    e.a.lea(rdi, ptr(rbx + record.frames_at as i32))?;
    if context.program.stack_frames_max == 0 {
        return e.bind(done);
    }
    if let Some(slice) = context.program.stack_slice {
        memory(e, slice)?;
        e.bind(done)?;
        return count(e, record.frames_at);
    }
    let (to_truncated, to_done) = (e.at(truncated), e.at(done));
    match (&context.program.return_address, record.frames_max) {
        (Some(_), 0) => e.a.jmp(to_truncated)?,
        (Some(place), _) => {
            let found = e.spot(place, rax, &mut All(truncated))?;
            if let ControlFlow::Continue(spot) = found {
                e.a.lea(rdx, ptr(spot.at(0)))?;
                e.guard(spot, 8, truncated)?;
                e.may_fault(truncated);
                e.a.mov(rax, qword_ptr(rdx))?;
                e.a.test(rax, rax)?;
                e.a.je(to_done)?;
                e.a.mov(qword_ptr(rdi), rax)?;
                e.a.add(rdi, 8)?;
                e.a.mov(ecx, u32::from(record.frames_max) - 1)?;
                load(e, RBP, rsi)?;
                // The function keeps its caller's rbp right below its return address: this link is done.
                e.a.lea(rax, ptr(rsi + 8))?;
                e.a.cmp(rax, rdx)?;
                let to = e.at(linked);
                e.a.jne(to)?;
                e.guard(Spot { base: rsi, displacement: 0 }, 8, truncated)?;
                e.may_fault(truncated);
                e.a.mov(rsi, qword_ptr(rsi))?;
                e.bind(linked)?;
                e.a.add(rdx, 8)?;
                let to = e.at(capped);
                e.a.jnc(to)?;
                e.load(rdx, u64::MAX)?;
                e.bind(capped)?;
            }
        }
        (None, frames) => {
            load(e, RBP, rsi)?;
            load(e, RSP, rdx)?;
            e.a.mov(ecx, u32::from(frames))?;
        }
    }
    e.bind(again)?;
    e.a.test(rsi, rsi)?;
    e.a.je(to_done)?;
    e.a.test(ecx, ecx)?;
    e.a.je(to_truncated)?;
    e.a.cmp(rsi, rdx)?;
    e.a.jb(to_truncated)?;
    e.a.test(sil, 7)?;
    e.a.jne(to_truncated)?;
    e.guard(Spot { base: rsi, displacement: 0 }, 16, truncated)?;
    e.may_fault(truncated);
    e.a.mov(rax, qword_ptr(rsi + 8))?;
    // Aligned and readable: 16 more is no overflow.
    e.a.lea(rdx, ptr(rsi + 16))?;
    e.may_fault(truncated);
    e.a.mov(rsi, qword_ptr(rsi))?;
    e.a.test(rax, rax)?;
    e.a.je(to_done)?;
    e.a.mov(qword_ptr(rdi), rax)?;
    e.a.add(rdi, 8)?;
    e.a.dec(ecx)?;
    let to = e.at(again);
    e.a.jmp(to)?;
    e.bind(truncated)?;
    e.a.or(word_ptr(rbx + FLAGS), i32::from(FLAG_STACK_TRUNCATED))?;
    e.bind(done)?;
    count(e, record.frames_at)
}

/// Copies the registers and the stack's words from rsp on to rdi, which is behind them then. Fewer of them while the ring
/// is filling up: hits come faster than they are read, and a hit with a short stack is better than none.
fn memory(e: &mut Emitter<'_>, slice: StackSlice) -> Result<(), CodegenError> {
    let [again, unknown, done, roomy] = [(); 4].map(|()| e.label());
    for number in 0..STACK_REGISTERS {
        load(e, Register(number as u16), rax)?;
        e.a.mov(qword_ptr(rdi + number as i32 * 8), rax)?;
    }
    e.a.add(rdi, STACK_REGISTERS as i32 * 8)?;
    load(e, RSP, rsi)?;
    e.a.mov(ecx, slice.words_max())?;
    if slice.words_max() > SHORT_STACK_WORDS {
        let ring = qword_ptr(rsp + e.local(RING));
        e.a.mov(rdx, ring)?;
        e.a.mov(rax, qword_ptr(rdx + RING_HEAD))?;
        e.a.sub(rax, qword_ptr(rdx + RING_TAIL))?;
        e.a.cmp(rax, FILLING_BYTES as i32)?;
        let to = e.at(roomy);
        e.a.jbe(to)?;
        e.a.mov(ecx, SHORT_STACK_WORDS)?;
        e.a.or(word_ptr(rbx + FLAGS), i32::from(FLAG_STACK_TRUNCATED))?;
        e.bind(roomy)?;
    }
    if let Some(end) = slice.first_thread_end {
        e.load(rax, end)?;
        at_most(e)?;
    }
    // The first word of the thread control block is its own address (System V ABI, AMD64: thread-local storage).
    e.may_fault(unknown);
    e.a.mov(rax, qword_ptr(0).fs())?;
    at_most(e)?;
    e.bind(unknown)?;
    e.a.test(ecx, ecx)?;
    let to = e.at(done);
    e.a.je(to)?;
    e.bind(again)?;
    // Its first page is the stack pointer's.
    e.guard_next_page(rsi, done)?;
    e.may_fault(done);
    e.a.mov(rax, qword_ptr(rsi))?;
    e.a.mov(qword_ptr(rdi), rax)?;
    e.a.add(rsi, 8)?;
    e.a.add(rdi, 8)?;
    e.a.dec(ecx)?;
    let to = e.at(again);
    e.a.jne(to)?;
    e.bind(done)
}

/// rcx words, but none beyond the address in rax. An address below the stack pointer is another stack's, and far away.
fn at_most(e: &mut Emitter<'_>) -> Result<(), CodegenError> {
    e.a.sub(rax, rsi)?;
    e.a.shr(rax, 3)?;
    e.a.cmp(rax, rcx)?;
    Ok(e.a.cmovb(rcx, rax)?)
}

/// Notes the number of words until rdi.
fn count(e: &mut Emitter<'_>, frames_at: u32) -> Result<(), CodegenError> {
    e.a.mov(rax, rdi)?;
    e.a.sub(rax, rbx)?;
    e.a.sub(eax, frames_at as i32)?;
    e.a.shr(eax, 3)?;
    Ok(e.a.mov(word_ptr(rbx + FRAMES), ax)?)
}

fn load(e: &mut Emitter<'_>, register: Register, into: AsmRegister64) -> Result<(), CodegenError> {
    match e.kept(register) {
        Some(kept) => e.load_kept(into, kept),
        None => unreachable!("all of rax to r15 are registers"),
    }
}

//! Loads that do not fault: in programs that are not Go's, the kernel is asked before memory is touched that may not be
//! there.
//!
//! A load that faults is led on by the engine's handler of SIGSEGV and SIGBUS (`pads::handlers`). Go's runtime keeps that
//! handler for as long as the program runs. Any other program may install one of its own at any time, and its threads may
//! block the signals, which makes the kernel end the process at the fault (`force_sig`, kernel/signal.c). So a body for
//! such a program has no load that needs the handler. What it may load:
//!
//! - what is in the page that the stack pointer is in, as most variables of the function are: something was just pushed
//!   there;
//! - what is in the mapped file of the image that the site is in: that is there for as long as its code runs;
//! - anything else after `rt_sigprocmask(-1, address, NULL, 8)` has failed with EINVAL. The kernel reads the set before it
//!   looks at the first argument (kernel/signal.c), so EFAULT says that the page cannot be read, and nothing changes in
//!   either case. Any other answer (that of a system call filter) counts as "cannot be read". It costs one trivial system
//!   call a page, a seventh of process_vm_readv(2), which moreover many system call filters end a process for; this one
//!   every C library makes itself.
//!
//! What is left: memory that another thread unmaps between question and load, some nanoseconds later, in a program that
//! has also taken the handler away: all loads keep their fixups, so it takes both. And a program that, after it was
//! armed, gives itself a filter that ends it for rt_sigprocmask(2): strict mode, which allows four calls.
//!
//! The red zone below the body's own stack pointer, which the kernel leaves alone when it delivers a signal, holds what a
//! question needs: the stack stays as deep as it was.

use super::CodegenError;
use super::emitter::{Emitter, Frame, Label};
use super::reads::Spot;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, gpr32::*, gpr64::*, ptr, qword_ptr};
use riptrace_protocol::ids::Avma;
use std::ops::Range;

/// What needs no question: where the file of the site's image is mapped, without holes. May be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Guard {
    /// The addresses.
    pub(in crate::engine) image: Range<Avma>,
}

// Places below the stack pointer.
const RAX: i32 = -8;
const ADDRESS: i32 = -16;
const LAST: i32 = -24;
const BACK: i32 = -32;
const RCX: i32 = -40;
const RDX: i32 = -48;
const RSI: i32 = -56;
const RDI: i32 = -64;
const R10: i32 = -72;
const R11: i32 = -80;
/// Bytes below the stack pointer that a question uses.
pub(super) const BELOW_BYTES: u32 = 80;
/// Bytes of a page, less one.
const PAGE_MASK: i32 = 0xfff;
const PAGE_SHIFT: u32 = 12;

/// What questions of one body share.
#[derive(Debug)]
pub(super) struct Guards {
    image: Range<Avma>,
    /// The code that asks, for each depth of the stack from which it is gone to.
    asking: Vec<(Frame, Label)>,
}

impl Guards {
    pub(super) fn new(guard: &Guard) -> Guards {
        Guards { image: guard.image.clone(), asking: Vec::new() }
    }
}

fn below(offset: i32) -> AsmMemoryOperand {
    qword_ptr(rsp + offset)
}

impl Emitter<'_> {
    /// Whether loads that may fault are asked for.
    pub(super) fn is_guarded(&self) -> bool {
        self.guards.is_some()
    }

    /// Goes on at `recovery` unless all of so many bytes (at least one) at a place can be read. Changes the flags.
    pub(super) fn guard(&mut self, spot: Spot, bytes: u32, recovery: Label) -> Result<(), CodegenError> {
        if !self.is_guarded() || bytes == 0 {
            return Ok(());
        }
        if spot.base != rsp || spot.displacement < 0 {
            return self.ask(spot, bytes, recovery);
        }
        // Variables of the function that passes are mostly in the page of the stack pointer.
        let near = self.label();
        self.a.mov(below(RAX), rax)?;
        self.a.lea(rax, ptr(spot.at(bytes as i32 - 1)))?;
        self.a.xor(rax, rsp)?;
        self.a.shr(rax, PAGE_SHIFT)?;
        self.a.mov(rax, below(RAX))?;
        let to = self.at(near);
        self.a.je(to)?;
        self.ask(spot, bytes, recovery)?;
        self.bind(near)
    }

    /// Goes on at `none` unless the stack has room for so many bytes more. Changes rax and the flags.
    pub(super) fn guard_stack(&mut self, bytes: u32, none: Label) -> Result<(), CodegenError> {
        let enough = self.label();
        let lowest = Spot { base: rsp, displacement: -((bytes + BELOW_BYTES) as i32) };
        self.a.lea(rax, ptr(lowest.at(0)))?;
        self.a.xor(rax, rsp)?;
        self.a.shr(rax, PAGE_SHIFT)?;
        let to = self.at(enough);
        self.a.je(to)?;
        self.ask(lowest, 1, none)?;
        self.bind(enough)
    }

    /// Clamps rcx, the bytes wanted at rsi, to those that can be read, and goes on at `cut` if those are fewer. Changes
    /// rax, rdx and the flags.
    pub(super) fn guard_as_many(&mut self, cut: Label) -> Result<(), CodegenError> {
        if !self.is_guarded() {
            return Ok(());
        }
        let [again, fewer, all] = [(); 3].map(|()| self.label());
        let (to_again, to_all, to_cut) = (self.at(again), self.at(all), self.at(cut));
        self.a.test(rcx, rcx)?;
        self.a.je(to_all)?;
        self.a.mov(rdx, rsi)?;
        self.bind(again)?;
        self.guard(Spot { base: rdx, displacement: 0 }, 1, fewer)?;
        self.a.or(rdx, PAGE_MASK)?;
        self.a.inc(rdx)?;
        self.a.mov(rax, rdx)?;
        self.a.sub(rax, rsi)?;
        self.a.cmp(rax, rcx)?;
        self.a.jb(to_again)?;
        self.a.jmp(to_all)?;
        self.bind(fewer)?;
        self.a.mov(rcx, rdx)?;
        self.a.sub(rcx, rsi)?;
        self.a.jmp(to_cut)?;
        self.bind(all)
    }

    /// Before a load of a word in a loop whose first page was asked for: goes on at `recovery` unless the page can be read
    /// that the word at `at` is the first one to reach into. Changes rax and the flags.
    pub(super) fn guard_next_page(&mut self, at: AsmRegister64, recovery: Label) -> Result<(), CodegenError> {
        if !self.is_guarded() {
            return Ok(());
        }
        let same = self.label();
        self.a.lea(rax, ptr(at + 7))?;
        self.a.test(eax, PAGE_MASK & !7)?;
        let to = self.at(same);
        self.a.jne(to)?;
        self.guard(Spot { base: at, displacement: 0 }, 8, recovery)?;
        self.bind(same)
    }

    /// Before a load of a byte in such a loop: the same where the byte is the first one of a page. Changes rax and the
    /// flags.
    pub(super) fn guard_first_byte(&mut self, at: AsmRegister64, recovery: Label) -> Result<(), CodegenError> {
        if !self.is_guarded() {
            return Ok(());
        }
        let same = self.label();
        self.a.mov(rax, at)?;
        self.a.test(eax, PAGE_MASK)?;
        let to = self.at(same);
        self.a.jne(to)?;
        self.guard(Spot { base: at, displacement: 0 }, 1, recovery)?;
        self.bind(same)
    }

    fn ask(&mut self, spot: Spot, bytes: u32, recovery: Label) -> Result<(), CodegenError> {
        let frame = self.frame();
        let Some(guards) = &self.guards else { return Ok(()) };
        let known = guards.asking.iter().find(|(known, _)| *known == frame).map(|&(_, label)| label);
        let asking = known.unwrap_or_else(|| self.label());
        if known.is_none()
            && let Some(guards) = &mut self.guards
        {
            guards.asking.push((frame, asking));
        }
        let back = self.label();
        let (to_asking, to_back, to_recovery) = (self.at(asking), self.at(back), self.at(recovery));
        self.a.mov(below(RAX), rax)?;
        self.a.lea(rax, ptr(spot.at(0)))?;
        self.a.mov(below(ADDRESS), rax)?;
        if bytes > 1 {
            self.a.add(rax, bytes as i32 - 1)?;
        }
        self.a.mov(below(LAST), rax)?;
        self.a.lea(rax, ptr(to_back))?;
        self.a.mov(below(BACK), rax)?;
        self.a.jmp(to_asking)?;
        self.bind(back)?;
        Ok(self.a.jne(to_recovery)?)
    }

    /// Writes the code that asks; nothing falls into it. It leaves the zero flag set where all can be read, and all
    /// registers as they were.
    pub(super) fn write_guards(&mut self) -> Result<(), CodegenError> {
        let Some(guards) = self.guards.take() else { return Ok(()) };
        for (frame, label) in guards.asking {
            self.stack_is(frame);
            self.bind(label)?;
            self.asking(&guards.image)?;
        }
        Ok(())
    }

    fn asking(&mut self, image: &Range<Avma>) -> Result<(), CodegenError> {
        let [elsewhere, slow, again, asked, yes, out] = [(); 6].map(|()| self.label());
        let at = |e: &Self, label| e.at(label);
        self.a.mov(below(RCX), rcx)?;
        // Around the end of the address space nothing is mapped.
        self.a.mov(rax, below(ADDRESS))?;
        self.a.cmp(below(LAST), rax)?;
        let to = at(self, slow);
        self.a.jb(to)?;
        let to = at(self, elsewhere);
        for place in [ADDRESS, LAST] {
            self.a.mov(rcx, below(place))?;
            self.a.xor(rcx, rsp)?;
            self.a.shr(rcx, PAGE_SHIFT)?;
            self.a.jne(to)?;
        }
        let to = at(self, yes);
        self.a.jmp(to)?;
        self.bind(elsewhere)?;
        if image.start < image.end {
            let word = |word: u64| word.to_le_bytes();
            let (start, bytes) = (self.data(&word(image.start.0)), self.data(&word(image.end.0 - image.start.0)));
            let (start, bytes, to) = (at(self, start), at(self, bytes), at(self, slow));
            for place in [ADDRESS, LAST] {
                self.a.mov(rcx, below(place))?;
                self.a.sub(rcx, qword_ptr(start))?;
                self.a.cmp(rcx, qword_ptr(bytes))?;
                self.a.jae(to)?;
            }
            let to = at(self, yes);
            self.a.jmp(to)?;
        }
        self.bind(slow)?;
        for (place, register) in [(RDX, rdx), (RSI, rsi), (RDI, rdi), (R10, r10), (R11, r11)] {
            self.a.mov(below(place), register)?;
        }
        // The aligned word is in the same page.
        self.a.mov(rsi, rax)?;
        self.a.and(rsi, -8)?;
        self.bind(again)?;
        self.a.mov(edi, -1)?;
        self.a.xor(edx, edx)?;
        self.a.mov(r10d, 8)?;
        self.a.mov(eax, libc::SYS_rt_sigprocmask as i32)?;
        self.a.syscall()?;
        self.a.cmp(eax, -libc::EINVAL)?;
        let to = at(self, asked);
        self.a.jne(to)?;
        self.a.or(rsi, PAGE_MASK)?;
        self.a.inc(rsi)?;
        self.a.cmp(rsi, below(LAST))?;
        let to = at(self, again);
        self.a.jbe(to)?;
        self.a.cmp(eax, eax)?;
        self.bind(asked)?;
        for (place, register) in [(RDX, rdx), (RSI, rsi), (RDI, rdi), (R10, r10), (R11, r11)] {
            self.a.mov(register, below(place))?;
        }
        let to = at(self, out);
        self.a.jmp(to)?;
        self.bind(yes)?;
        self.a.cmp(eax, eax)?;
        self.bind(out)?;
        self.a.mov(rcx, below(RCX))?;
        self.a.mov(rax, below(RAX))?;
        Ok(self.a.jmp(below(BACK))?)
    }
}

const _: () = assert!(BELOW_BYTES <= 128 && R11 == -(BELOW_BYTES as i32));

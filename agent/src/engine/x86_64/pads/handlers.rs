//! The signal handlers: machine code in island 0, entered by the kernel in the place of the process's own handlers.
//!
//! ```text
//! SIGTRAP   int3 at a site, or in a punned jump             go on in the pad
//!           int3 at the end of a twin                       go on behind the site, and call Go's SIGURG handler there
//! SIGILL    0x06 in a punned jump                           go on in the pad
//! SIGSEGV, SIGBUS, SIGFPE, SIGILL
//!           a guarded access of a pad                       go on at its recovery
//!           a displaced instruction                         the old handler sees the original place
//! SIGURG    in a pad that has a twin                        call the old handler, then go on in the twin
//! SIGPROF, and what another thread or process sent
//!           in a pad                                        the old handler sees the original place
//! ```
//!
//! Everything else goes to the old action as if it were still installed. The new action has the old one's mask and flags
//! ([`action`]), so the old handler is jumped to: same stack, same arguments, same return address. Where something is to
//! be done after it, it is called; a frame pointer leads through. Where it sees an original place, what it makes of the
//! context is honoured: an address that it put there stays; one inside the displaced instructions is led to the pad's
//! copy; an unchanged one is put back.
//!
//! Default action: the signal is sent to the thread again, with the same siginfo and the default action installed, so
//! that it takes the process when the handler returns, at the original place. SA_RESETHAND: the kernel would install the
//! default action; this installs a second entry that takes the old action for SIG_DFL. So all state is the kernel's,
//! and a child by fork(2) has its own.
//!
//! A program that is not Go's may put a handler of its own in their place, or block the signals, at any time: then none of
//! this happens. Its pads are made so that nothing but two things is lost by that (`codegen::guard`, `area`): a displaced
//! instruction that faults shows its place in the pad, with the program's own registers and stack (a handler that ends the
//! program, leaves by a long jump or has the instruction repeated does what it did before; one that looks the address up
//! finds nothing), and so does a profiler's signal. Where the default action was installed the program ends either way.
//!
//! Invariants: no stack but the signal frame's and less than 200 bytes; no vector registers; reads nothing but the
//! tables, the frame and the word on top of the interrupted stack that a pad has just put there; waits for nothing; no
//! call leads out of the handlers but the old handler and the four system calls of the default action.
//!
//! Sources: arch/x86/kernel/signal_64.c, kernel/signal.c; `struct rt_sigframe`, glibc's sys/ucontext.h.

use super::PadError;
use super::relocate::POP_LIMIT;
use super::tables::*;
use crate::engine::area::{CODE_BYTES, ISLANDS_MAX, TABLES_BYTES};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, Instruction, MemoryOperand, Register};
use riptrace_protocol::ids::Avma;

/// `siginfo_t.si_code`.
const INFO_CODE: i32 = 8;
/// `ucontext_t.uc_mcontext.gregs`.
const CONTEXT_REGISTERS: i32 = 40;
const CONTEXT_RSP: i32 = CONTEXT_REGISTERS + 15 * 8;
const CONTEXT_RIP: i32 = CONTEXT_REGISTERS + 16 * 8;
const CONTEXT_TRAP: i32 = CONTEXT_REGISTERS + 20 * 8;
/// Exception numbers (Intel SDM volume 3, table 6-1).
const EXCEPTION_BREAKPOINT: i32 = 3;
const EXCEPTION_OPCODE: i32 = 6;
const SI_KERNEL: i32 = 0x80;
const SI_TKILL: i32 = -6;
const SA_SIGINFO: u64 = 4;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_RESETHAND: u64 = 0x8000_0000;
/// Everything; the kernel leaves SIGKILL and SIGSTOP out.
const ALL_SIGNALS: u64 = u64::MAX;
/// Bytes of a signal set, as system calls want it.
const SIGNAL_SET_BYTES: i32 = 8;
/// `mov rax, 15; syscall`: exactly the bytes by which unwinders know a signal frame.
const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The handlers' code.
#[derive(Debug)]
pub(super) struct HandlersImage {
    pub(super) code: Vec<u8>,
    pub(super) handlers: Handlers,
}

/// What rt_sigaction(2) is to be given for a signal, whose action is `old` now. `None`: nothing, as the handler would have
/// nothing to do and its presence would be felt.
pub(in crate::engine) fn action(signal: Signal, old: &KernelAction, handlers: &Handlers) -> Option<KernelAction> {
    let handler = handlers.entries[signal as usize].entry.0;
    let own_restorer = handlers.restorer.0;
    if old.is_handler() {
        let restorer = if old.flags & SA_RESTORER != 0 { old.restorer } else { own_restorer };
        let flags = old.flags & !SA_RESETHAND | SA_SIGINFO | SA_RESTORER;
        return Some(KernelAction { handler, flags, restorer, mask: old.mask });
    }
    match signal {
        Signal::Urgent | Signal::Profile | Signal::Arithmetic => None,
        Signal::Trap | Signal::Illegal | Signal::Segment | Signal::Bus => Some(KernelAction {
            handler,
            flags: SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_RESTART,
            restorer: own_restorer,
            mask: ALL_SIGNALS,
        }),
    }
}

/// Labels of the common parts.
#[derive(Clone, Copy)]
struct Labels {
    trap: CodeLabel,
    illegal: CodeLabel,
    fault: CodeLabel,
    urgent: CodeLabel,
    asynchronous: CodeLabel,
    chain: CodeLabel,
    present_fault: CodeLabel,
    present_asynchronous: CodeLabel,
    default: CodeLabel,
    find_pad: CodeLabel,
    find_trap: CodeLabel,
    reset: CodeLabel,
    die: CodeLabel,
    none: CodeLabel,
    restorer: CodeLabel,
}

struct Writer {
    asm: CodeAssembler,
    tables: Avma,
    labels: Labels,
}

/// The handlers for an island 0 whose tables are at `tables`, to be placed at `at`.
pub(super) fn emit(tables: Avma, at: Avma) -> Result<HandlersImage, PadError> {
    let mut asm = CodeAssembler::new(64)?;
    let mut label = || asm.create_label();
    let labels = Labels {
        trap: label(),
        illegal: label(),
        fault: label(),
        urgent: label(),
        asynchronous: label(),
        chain: label(),
        present_fault: label(),
        present_asynchronous: label(),
        default: label(),
        find_pad: label(),
        find_trap: label(),
        reset: label(),
        die: label(),
        none: label(),
        restorer: label(),
    };
    let mut writer = Writer { asm, tables, labels };
    let entries = writer.entries()?;
    writer.trap()?;
    writer.illegal()?;
    writer.fault()?;
    writer.urgent()?;
    writer.asynchronous()?;
    writer.chain()?;
    writer.present()?;
    writer.reset()?;
    writer.die()?;
    writer.find_pad()?;
    writer.find_trap()?;
    let mut restorer = writer.labels.restorer;
    writer.asm.set_label(&mut restorer)?;
    writer.asm.db(&RESTORER)?;
    let mut none = writer.labels.none;
    writer.asm.set_label(&mut none)?;
    writer.asm.dq(&[0; ACTION_RECORD_BYTES / 8])?;
    let assembled = writer.asm.assemble_options(at.0, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let address = |label: &CodeLabel| assembled.label_ip(label).map(Avma);
    let mut found = [Entry { entry: at, defaulted: at }; Signal::ALL.len()];
    for (found, (entry, defaulted)) in found.iter_mut().zip(&entries) {
        *found = Entry { entry: address(entry)?, defaulted: address(defaulted)? };
    }
    let handlers = Handlers {
        code: at..Avma(at.0 + assembled.inner.code_buffer.len() as u64),
        entries: found,
        restorer: address(&restorer)?,
    };
    Ok(HandlersImage { code: assembled.inner.code_buffer, handlers })
}

/// All parts have on entry, as the kernel left them: edi the signal, rsi its siginfo, rdx the context, [rsp] the
/// restorer; and r8 the record of the old action.
impl Writer {
    fn address(&mut self, into: Register, offset: usize) -> Result<(), PadError> {
        let place = MemoryOperand::with_base_displ(Register::RIP, (self.tables.0 + offset as u64) as i64);
        Ok(self.asm.add_instruction(Instruction::with2(Code::Lea_r64_m, into, place)?)?)
    }

    fn entries(&mut self) -> Result<Vec<(CodeLabel, CodeLabel)>, PadError> {
        let mut entries = Vec::new();
        for signal in Signal::ALL {
            let (mut entry, mut defaulted) = (self.asm.create_label(), self.asm.create_label());
            let common = match signal {
                Signal::Trap => self.labels.trap,
                Signal::Illegal => self.labels.illegal,
                Signal::Segment | Signal::Bus | Signal::Arithmetic => self.labels.fault,
                Signal::Urgent => self.labels.urgent,
                Signal::Profile => self.labels.asynchronous,
            };
            self.asm.set_label(&mut entry)?;
            self.asm.endbr64()?;
            self.address(Register::R8, signal.record_at())?;
            self.asm.jmp(common)?;
            self.asm.set_label(&mut defaulted)?;
            self.asm.endbr64()?;
            self.asm.lea(r8, qword_ptr(self.labels.none))?;
            self.asm.jmp(common)?;
            entries.push((entry, defaulted));
        }
        Ok(entries)
    }

    fn trap(&mut self) -> Result<(), PadError> {
        let Labels { mut trap, asynchronous, find_pad, find_trap, .. } = self.labels;
        let mut elsewhere = self.asm.create_label();
        let mut fixed = self.asm.create_label();
        let mut done = self.asm.create_label();
        let asm = &mut self.asm;
        asm.set_label(&mut trap)?;
        asm.cmp(dword_ptr(rsi + INFO_CODE), SI_KERNEL)?;
        asm.jne(asynchronous)?;
        asm.cmp(qword_ptr(rdx + CONTEXT_TRAP), EXCEPTION_BREAKPOINT)?;
        asm.jne(asynchronous)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.dec(rax)?;
        asm.call(find_pad)?;
        asm.jc(elsewhere)?;
        // Of all code of pads only the ends of twins have int3.
        asm.cmp(r10d, dword_ptr(r9 + PAD_TWIN as i32))?;
        asm.jne(asynchronous)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.mov(rcx, qword_ptr(rax))?;
        asm.cmp(rcx, POP_LIMIT as i32)?;
        asm.jae(fixed)?;
        asm.mov(r9, qword_ptr(rdx + CONTEXT_RSP))?;
        asm.mov(rax, qword_ptr(r9))?;
        asm.add(r9, rcx)?;
        asm.mov(qword_ptr(rdx + CONTEXT_RSP), r9)?;
        asm.mov(rcx, rax)?;
        asm.set_label(&mut fixed)?;
        asm.mov(qword_ptr(rdx + CONTEXT_RIP), rcx)?;
        // The preemption that was asked for in the pad happens here, as if the signal came now.
        self.address(Register::R8, Signal::Urgent.record_at())?;
        let asm = &mut self.asm;
        asm.cmp(qword_ptr(r8), 1)?;
        asm.jbe(done)?;
        asm.mov(edi, Signal::Urgent.number())?;
        asm.mov(dword_ptr(rsi), Signal::Urgent.number())?;
        asm.mov(dword_ptr(rsi + INFO_CODE), SI_TKILL)?;
        asm.xor(eax, eax)?;
        asm.jmp(qword_ptr(r8))?;
        asm.set_label(&mut elsewhere)?;
        asm.call(find_trap)?;
        asm.jc(asynchronous)?;
        asm.mov(qword_ptr(rdx + CONTEXT_RIP), rax)?;
        asm.set_label(&mut done)?;
        asm.ret()?;
        Ok(())
    }

    fn illegal(&mut self) -> Result<(), PadError> {
        let Labels { mut illegal, asynchronous, find_trap, fault, .. } = self.labels;
        let asm = &mut self.asm;
        asm.set_label(&mut illegal)?;
        asm.cmp(dword_ptr(rsi + INFO_CODE), 0)?;
        asm.jle(asynchronous)?;
        asm.cmp(qword_ptr(rdx + CONTEXT_TRAP), EXCEPTION_OPCODE)?;
        asm.jne(fault)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.call(find_trap)?;
        asm.jc(fault)?;
        asm.mov(qword_ptr(rdx + CONTEXT_RIP), rax)?;
        asm.ret()?;
        Ok(())
    }

    fn fault(&mut self) -> Result<(), PadError> {
        let Labels { mut fault, asynchronous, chain, find_pad, present_fault, .. } = self.labels;
        let mut next = self.asm.create_label();
        let mut found = self.asm.create_label();
        let mut none = self.asm.create_label();
        let asm = &mut self.asm;
        asm.set_label(&mut fault)?;
        asm.cmp(dword_ptr(rsi + INFO_CODE), 0)?;
        asm.jle(asynchronous)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.call(find_pad)?;
        asm.jc(chain)?;
        asm.push(rbx)?;
        asm.movzx(eax, word_ptr(r9 + PAD_FIXUPS as i32))?;
        asm.mov(ebx, dword_ptr(r9 + PAD_HEAP as i32))?;
        asm.add(rbx, r11)?;
        asm.set_label(&mut next)?;
        asm.sub(eax, 1)?;
        asm.jb(none)?;
        asm.cmp(word_ptr(rbx), cx)?;
        asm.je(found)?;
        asm.add(rbx, FIXUP_BYTES as i32)?;
        asm.jmp(next)?;
        asm.set_label(&mut found)?;
        asm.movzx(eax, word_ptr(rbx + 2))?;
        asm.add(rax, r10)?;
        asm.add(rax, r11)?;
        asm.mov(qword_ptr(rdx + CONTEXT_RIP), rax)?;
        asm.pop(rbx)?;
        asm.ret()?;
        asm.set_label(&mut none)?;
        asm.pop(rbx)?;
        asm.jmp(present_fault)?;
        Ok(())
    }

    fn urgent(&mut self) -> Result<(), PadError> {
        let Labels { mut urgent, chain, find_pad, present_asynchronous, reset, .. } = self.labels;
        let mut out = self.asm.create_label();
        let mut done = self.asm.create_label();
        let asm = &mut self.asm;
        asm.set_label(&mut urgent)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.call(find_pad)?;
        asm.jc(chain)?;
        asm.cmp(dword_ptr(r9 + PAD_TWIN as i32), 0)?;
        asm.je(present_asynchronous)?;
        asm.cmp(qword_ptr(r8), 1)?;
        asm.jbe(done)?;
        asm.push(rbp)?;
        asm.mov(rbp, rsp)?;
        asm.mov(rbx, rdx)?;
        asm.mov(r12, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.mov(r13d, dword_ptr(r9 + PAD_TWIN as i32))?;
        asm.sub(r13, r10)?;
        asm.add(r13, r12)?;
        asm.call(reset)?;
        asm.xor(eax, eax)?;
        asm.call(qword_ptr(r8))?;
        // A handler that led the thread elsewhere has its way.
        asm.cmp(qword_ptr(rbx + CONTEXT_RIP), r12)?;
        asm.jne(out)?;
        asm.mov(qword_ptr(rbx + CONTEXT_RIP), r13)?;
        asm.set_label(&mut out)?;
        asm.leave()?;
        asm.set_label(&mut done)?;
        asm.ret()?;
        Ok(())
    }

    fn asynchronous(&mut self) -> Result<(), PadError> {
        let Labels { mut asynchronous, chain, find_pad, present_asynchronous, .. } = self.labels;
        let asm = &mut self.asm;
        asm.set_label(&mut asynchronous)?;
        asm.mov(rax, qword_ptr(rdx + CONTEXT_RIP))?;
        asm.call(find_pad)?;
        asm.jnc(present_asynchronous)?;
        asm.jmp(chain)?;
        Ok(())
    }

    /// The old action, exactly.
    fn chain(&mut self) -> Result<(), PadError> {
        let Labels { mut chain, mut default, reset, die, .. } = self.labels;
        let mut none = self.asm.create_label();
        let mut done = self.asm.create_label();
        let asm = &mut self.asm;
        asm.set_label(&mut chain)?;
        asm.cmp(qword_ptr(r8), 1)?;
        asm.jbe(none)?;
        asm.call(reset)?;
        asm.xor(eax, eax)?;
        asm.jmp(qword_ptr(r8))?;
        asm.set_label(&mut none)?;
        asm.jb(default)?;
        // SIG_IGN does not hold for what the CPU raises: the kernel takes the process then (force_sig).
        for signal in [Signal::Urgent, Signal::Profile] {
            asm.cmp(edi, signal.number())?;
            asm.je(done)?;
        }
        asm.cmp(dword_ptr(rsi + INFO_CODE), 0)?;
        asm.jle(done)?;
        asm.set_label(&mut default)?;
        asm.cmp(edi, Signal::Urgent.number())?;
        asm.je(done)?;
        asm.call(die)?;
        asm.set_label(&mut done)?;
        asm.ret()?;
        Ok(())
    }

    /// The old action, which sees the place in the program that a place in a pad stands for. r9 is the pad's record, r11
    /// the tables, r10 the offset of the copy, ecx the offset in it.
    fn present(&mut self) -> Result<(), PadError> {
        const SHOWN_RIP: i32 = -8;
        const SHOWN_RSP: i32 = -16;
        const RIP: i32 = -24;
        const RSP: i32 = -32;
        const REGISTER: i32 = -40;
        const SPANS: i32 = -48;
        const LOCALS: i32 = 48;
        let Labels { mut present_fault, mut present_asynchronous, reset, die, .. } = self.labels;
        let mut label = || self.asm.create_label();
        let [mut common, mut next, mut found, mut no_register, mut other] = std::array::from_fn(|_| label());
        let [mut put_back, mut moved, mut search, mut copy, mut out] = std::array::from_fn(|_| label());
        let [mut no_handler, mut take] = std::array::from_fn(|_| label());
        let asm = &mut self.asm;
        asm.set_label(&mut present_fault)?;
        asm.mov(eax, 1)?;
        asm.jmp(common)?;
        asm.set_label(&mut present_asynchronous)?;
        asm.xor(eax, eax)?;
        asm.set_label(&mut common)?;
        asm.push(rbp)?;
        asm.mov(rbp, rsp)?;
        asm.sub(rsp, LOCALS)?;
        // The kernel brings all registers of the program back from the context.
        asm.mov(rbx, rdx)?;
        asm.mov(r12, r9)?;
        asm.lea(r13, qword_ptr(r11 + r10))?;
        asm.mov(r14d, eax)?;
        // The last span that begins at the place or before it; the first one begins with the pad.
        asm.movzx(eax, word_ptr(r9 + PAD_FIXUPS as i32))?;
        asm.shl(eax, FIXUP_BYTES.trailing_zeros())?;
        asm.add(eax, dword_ptr(r9 + PAD_HEAP as i32))?;
        asm.lea(r15, qword_ptr(r11 + rax))?;
        asm.mov(qword_ptr(rbp + SPANS), r15)?;
        asm.movzx(eax, word_ptr(r9 + PAD_SPANS as i32))?;
        asm.set_label(&mut next)?;
        asm.dec(eax)?;
        asm.jle(found)?;
        asm.cmp(word_ptr(r15 + (SPAN_BYTES + SPAN_START) as i32), cx)?;
        asm.ja(found)?;
        asm.add(r15, SPAN_BYTES as i32)?;
        asm.jmp(next)?;
        asm.set_label(&mut found)?;
        // Show it.
        asm.mov(rax, qword_ptr(rbx + CONTEXT_RIP))?;
        asm.mov(qword_ptr(rbp + RIP), rax)?;
        asm.movzx(eax, byte_ptr(r15 + SPAN_ORIGINAL as i32))?;
        asm.add(rax, qword_ptr(r12 + PAD_SITE as i32))?;
        asm.mov(qword_ptr(rbp + SHOWN_RIP), rax)?;
        asm.mov(qword_ptr(rbx + CONTEXT_RIP), rax)?;
        asm.mov(r9, qword_ptr(rbx + CONTEXT_RSP))?;
        asm.mov(qword_ptr(rbp + RSP), r9)?;
        asm.movzx(eax, word_ptr(r15 + SPAN_DEPTH as i32))?;
        asm.add(rax, r9)?;
        asm.mov(qword_ptr(rbp + SHOWN_RSP), rax)?;
        asm.mov(qword_ptr(rbx + CONTEXT_RSP), rax)?;
        asm.movzx(ecx, byte_ptr(r15 + SPAN_REGISTER as i32))?;
        asm.cmp(ecx, i32::from(NO_REGISTER))?;
        asm.je(no_register)?;
        asm.lea(rcx, qword_ptr(rbx + rcx * 8 + CONTEXT_REGISTERS))?;
        asm.mov(rax, qword_ptr(rcx))?;
        asm.mov(qword_ptr(rbp + REGISTER), rax)?;
        asm.movzx(eax, byte_ptr(r15 + SPAN_SLOT as i32))?;
        asm.mov(rax, qword_ptr(r9 + rax))?;
        asm.mov(qword_ptr(rcx), rax)?;
        asm.set_label(&mut no_register)?;
        asm.cmp(qword_ptr(r8), 1)?;
        asm.jbe(no_handler)?;
        asm.call(reset)?;
        asm.xor(eax, eax)?;
        asm.call(qword_ptr(r8))?;
        asm.mov(rax, qword_ptr(rbx + CONTEXT_RIP))?;
        asm.cmp(rax, qword_ptr(rbp + SHOWN_RIP))?;
        asm.jne(moved)?;
        asm.mov(rcx, qword_ptr(rbx + CONTEXT_RSP))?;
        asm.cmp(rcx, qword_ptr(rbp + SHOWN_RSP))?;
        asm.jne(moved)?;
        asm.test(r14d, r14d)?;
        asm.je(put_back)?;
        // A displaced instruction that is to be tried again: from its beginning, with what the handler made of the
        // registers.
        asm.cmp(byte_ptr(r15 + SPAN_KIND as i32), SPAN_DISPLACED)?;
        asm.je(moved)?;
        asm.set_label(&mut put_back)?;
        asm.mov(rax, qword_ptr(rbp + RIP))?;
        asm.mov(qword_ptr(rbx + CONTEXT_RIP), rax)?;
        asm.mov(rax, qword_ptr(rbp + RSP))?;
        asm.mov(qword_ptr(rbx + CONTEXT_RSP), rax)?;
        asm.movzx(ecx, byte_ptr(r15 + SPAN_REGISTER as i32))?;
        asm.cmp(ecx, i32::from(NO_REGISTER))?;
        asm.je(out)?;
        asm.mov(rax, qword_ptr(rbp + REGISTER))?;
        asm.mov(qword_ptr(rbx + rcx * 8 + CONTEXT_REGISTERS), rax)?;
        asm.jmp(out)?;
        // Elsewhere in the displaced instructions: a jump may stand there, so it is the pad's copy.
        asm.set_label(&mut moved)?;
        asm.cmp(byte_ptr(r15 + SPAN_KIND as i32), SPAN_BODY)?;
        asm.je(out)?;
        asm.sub(rax, qword_ptr(r12 + PAD_SITE as i32))?;
        asm.movzx(ecx, byte_ptr(r12 + PAD_ORIGINAL_BYTES as i32))?;
        asm.cmp(rax, rcx)?;
        asm.jae(out)?;
        // The first span for this place is where the copy begins; those of bodies stand for the site, too.
        asm.mov(r15, qword_ptr(rbp + SPANS))?;
        asm.movzx(ecx, word_ptr(r12 + PAD_SPANS as i32))?;
        asm.set_label(&mut search)?;
        asm.dec(ecx)?;
        asm.js(out)?;
        asm.cmp(byte_ptr(r15 + SPAN_KIND as i32), SPAN_BODY)?;
        asm.je(other)?;
        asm.cmp(byte_ptr(r15 + SPAN_ORIGINAL as i32), al)?;
        asm.je(copy)?;
        asm.set_label(&mut other)?;
        asm.add(r15, SPAN_BYTES as i32)?;
        asm.jmp(search)?;
        asm.set_label(&mut copy)?;
        asm.movzx(eax, word_ptr(r15 + SPAN_START as i32))?;
        asm.add(rax, r13)?;
        asm.mov(qword_ptr(rbx + CONTEXT_RIP), rax)?;
        asm.set_label(&mut out)?;
        asm.leave()?;
        asm.ret()?;
        asm.set_label(&mut no_handler)?;
        asm.test(r14d, r14d)?;
        asm.jne(take)?;
        asm.cmp(qword_ptr(r8), 1)?;
        asm.je(put_back)?;
        asm.cmp(edi, Signal::Urgent.number())?;
        asm.je(put_back)?;
        asm.set_label(&mut take)?;
        asm.call(die)?;
        // It could not be sent: the instruction faults again, and the default action is there.
        asm.js(put_back)?;
        asm.jmp(out)?;
        Ok(())
    }

    /// SA_RESETHAND of the old action: what the kernel would do before it enters a handler. Changes rax, rcx, r11.
    fn reset(&mut self) -> Result<(), PadError> {
        let Labels { mut reset, restorer, .. } = self.labels;
        let mut needed = self.asm.create_label();
        let asm = &mut self.asm;
        asm.set_label(&mut reset)?;
        asm.test(dword_ptr(r8 + ACTION_FLAGS as i32), SA_RESETHAND as u32)?;
        asm.jne(needed)?;
        asm.ret()?;
        asm.set_label(&mut needed)?;
        for register in [rdi, rsi, rdx, r10] {
            asm.push(register)?;
        }
        asm.push(-1)?; // ALL_SIGNALS
        asm.lea(rax, qword_ptr(restorer))?;
        asm.push(rax)?;
        asm.push((SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_RESTART) as i32)?;
        asm.push(qword_ptr(r8 + ACTION_DEFAULTED as i32))?;
        asm.mov(rsi, rsp)?;
        asm.xor(edx, edx)?;
        asm.mov(r10d, SIGNAL_SET_BYTES)?;
        asm.mov(eax, libc::SYS_rt_sigaction as i32)?;
        asm.syscall()?;
        asm.add(rsp, KERNEL_ACTION_BYTES as i32)?;
        for register in [r10, rdx, rsi, rdi] {
            asm.pop(register)?;
        }
        asm.ret()?;
        Ok(())
    }

    /// Default action: the signal is sent to the thread again, with all it said. Returns with the sign flag set where
    /// that is not possible. Changes rax, rcx, r9, r10, r11.
    fn die(&mut self) -> Result<(), PadError> {
        let Labels { mut die, none, .. } = self.labels;
        let asm = &mut self.asm;
        asm.set_label(&mut die)?;
        for register in [rdi, rsi, rdx] {
            asm.push(register)?;
        }
        asm.lea(rsi, qword_ptr(none))?;
        asm.xor(edx, edx)?;
        asm.mov(r10d, SIGNAL_SET_BYTES)?;
        asm.mov(eax, libc::SYS_rt_sigaction as i32)?;
        asm.syscall()?;
        asm.mov(eax, libc::SYS_getpid as i32)?;
        asm.syscall()?;
        asm.mov(r9d, eax)?;
        asm.mov(eax, libc::SYS_gettid as i32)?;
        asm.syscall()?;
        asm.mov(edi, r9d)?;
        asm.mov(esi, eax)?;
        asm.mov(rdx, qword_ptr(rsp + 16))?;
        asm.mov(r10, qword_ptr(rsp + 8))?;
        asm.mov(eax, libc::SYS_rt_tgsigqueueinfo as i32)?;
        asm.syscall()?;
        for register in [rdx, rsi, rdi] {
            asm.pop(register)?;
        }
        asm.test(eax, eax)?;
        asm.ret()?;
        Ok(())
    }

    /// The pad that the address in rax belongs to: r9 its record, r11 the island's tables, r10 the offset of the copy,
    /// ecx the offset in it. Carry: it belongs to none. As [`View::find_pad`].
    fn find_pad(&mut self) -> Result<(), PadError> {
        let Labels { mut find_pad, .. } = self.labels;
        let [mut next, mut island, mut found, mut none] = std::array::from_fn(|_| self.asm.create_label());
        self.asm.set_label(&mut find_pad)?;
        self.address(Register::R9, ISLANDS_AT)?;
        let asm = &mut self.asm;
        asm.mov(ecx, ISLANDS_MAX as i32)?;
        asm.set_label(&mut next)?;
        asm.mov(r11, qword_ptr(r9))?;
        asm.test(r11, r11)?;
        asm.je(none)?;
        asm.mov(r10, rax)?;
        asm.sub(r10, r11)?;
        asm.cmp(r10, CODE_BYTES as i32)?;
        asm.jb(island)?;
        asm.add(r9, 8)?;
        asm.dec(ecx)?;
        asm.jne(next)?;
        asm.set_label(&mut none)?;
        asm.stc()?;
        asm.ret()?;
        asm.set_label(&mut island)?;
        asm.mov(ecx, r10d)?;
        asm.sub(ecx, TABLES_BYTES as i32)?;
        asm.jb(none)?;
        asm.shr(ecx, GRANULE_SHIFT)?;
        asm.mov(ecx, dword_ptr(r11 + rcx * 4 + GRANULES_AT as i32))?;
        asm.dec(ecx)?;
        asm.cmp(ecx, PADS_MAX as i32)?;
        asm.jae(none)?;
        asm.shl(ecx, PAD_BYTES.trailing_zeros())?;
        asm.lea(r9, qword_ptr(r11 + rcx + PADS_AT as i32))?;
        for copy in [PAD_START, PAD_TWIN] {
            asm.mov(ecx, r10d)?;
            asm.sub(ecx, dword_ptr(r9 + copy as i32))?;
            asm.cmp(ecx, dword_ptr(r9 + PAD_LENGTH as i32))?;
            asm.jb(found)?;
        }
        asm.jmp(none)?;
        asm.set_label(&mut found)?;
        asm.sub(r10d, ecx)?;
        asm.clc()?;
        asm.ret()?;
        Ok(())
    }

    /// Where a thread goes on that trapped at the address in rax, in rax. Carry: it is none of the engine's. As
    /// [`View::find_trap`], in all islands. Changes rcx, r9, r10, r11.
    fn find_trap(&mut self) -> Result<(), PadError> {
        let Labels { mut find_trap, .. } = self.labels;
        let [mut next, mut slot, mut island, mut found, mut none] = std::array::from_fn(|_| self.asm.create_label());
        self.asm.set_label(&mut find_trap)?;
        self.address(Register::R9, ISLANDS_AT)?;
        let asm = &mut self.asm;
        asm.push(rbx)?;
        asm.mov(ebx, ISLANDS_MAX as i32)?;
        asm.set_label(&mut next)?;
        asm.mov(r11, qword_ptr(r9))?;
        asm.test(r11, r11)?;
        asm.je(none)?;
        asm.mov(rcx, HASH_FACTOR)?;
        asm.imul_2(rcx, rax)?;
        asm.shr(rcx, HASH_SHIFT)?;
        asm.set_label(&mut slot)?;
        asm.mov(r10d, ecx)?;
        asm.shl(r10, TRAP_BYTES.trailing_zeros())?;
        asm.lea(r10, qword_ptr(r11 + r10 + TRAPS_AT as i32))?;
        asm.cmp(qword_ptr(r10), rax)?;
        asm.je(found)?;
        asm.cmp(qword_ptr(r10), 0)?;
        asm.je(island)?;
        asm.inc(ecx)?;
        asm.and(ecx, TRAP_SLOTS as i32 - 1)?;
        asm.jmp(slot)?;
        asm.set_label(&mut island)?;
        asm.add(r9, 8)?;
        asm.dec(ebx)?;
        asm.jne(next)?;
        asm.set_label(&mut none)?;
        asm.pop(rbx)?;
        asm.stc()?;
        asm.ret()?;
        asm.set_label(&mut found)?;
        asm.mov(rax, qword_ptr(r10 + 8))?;
        asm.pop(rbx)?;
        asm.clc()?;
        asm.ret()?;
        Ok(())
    }
}

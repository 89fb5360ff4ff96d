//! What a breakpoint does when no tracer is there: the agent was killed.
//!
//! While the agent lives, no SIGTRAP of a site reaches the process. If the agent is killed (SIGKILL, out of memory), the
//! kernel lets go of the threads, and the next one that runs into a site would die of SIGTRAP. So the page of the slots
//! begins with a handler for it, which takes the breakpoint out and goes on as if it had never been there:
//!
//! ```text
//! int3 at a site    /proc/self/mem := original byte; rip := site     (writes code without making it writable)
//!                   where that is refused: rip := slot
//! int3, rip in a slot (the agent died while it answered the stop)    goes on
//! single step       (the agent died while it led a thread out of a slot)    goes on
//! anything else     the handler that was there before; default action: done again without a handler
//! ```
//!
//! Not covered, each a matter of microseconds at the moment of the kill: a displaced instruction that faults just then
//! shows its slot's address to the handler of the fault; a signal that waits for a thread to be led out of a slot is
//! lost, and its thread's signals stay blocked; a thread that makes a system call for the tracer (once, when the first
//! probe of a process is armed) comes back with the call's registers.
//!
//! Nor is a process whose threads block SIGTRAP: the kernel answers a breakpoint of such a thread by taking the handler
//! away (`force_sig`, kernel/signal.c), with or without a tracer.
//!
//! An agent that is inside the process next puts its handler before this one, takes the breakpoints out and waits until no
//! thread is in here (`inprocess/chain.rs`); one that traces from outside again sees to it that what is put back is its
//! own breakpoint (`ptrace/left.rs`).
//!
//! So a process that is left behind mends itself, site by site, at the first passage of each. The handler uses no stack
//! but its own few words, no C library, and runs on the alternate signal stack where there is one (goroutine stacks are
//! small). It is installed when the first slots are mapped, and the former one is put back before they are unmapped.

use super::displaced::{ORIGINAL_AT, SITE_AT, SLOT_BYTES};
use riptrace_protocol::ids::Avma;

/// Bytes at the beginning of the slots' memory that the handler takes.
pub(in super::super) const HEADER_BYTES: u64 = 512;
/// `struct sigaction` as the kernel has it on x86-64: handler, flags, restorer, mask (arch/x86 uapi/asm/signal.h).
pub(in super::super) const ACTION_BYTES: usize = 32;

const SA_SIGINFO: u64 = 4;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
/// Where the bit set of blocked signals of the process is, while the handler runs: none but SIGTRAP itself.
const NO_MASK: u64 = 0;

// ucontext_t: gregs begin at 40; RIP is the seventeenth (glibc sys/ucontext.h, kernel uapi/asm/sigcontext.h).
// siginfo_t: si_code is at 8; 0x80 is SI_KERNEL, 1 is TRAP_BRKPT, 2 is TRAP_TRACE.
// System calls: 2 open, 3 close, 13 rt_sigaction, 15 rt_sigreturn, 18 pwrite64, 39 getpid, 186 gettid, 234 tgkill.
core::arch::global_asm!(
    ".pushsection .rodata.riptrace_fallback, \"a\"",
    ".balign 64",
    ".hidden riptrace_fallback, riptrace_fallback_restorer, riptrace_fallback_old, riptrace_fallback_put_back",
    ".hidden riptrace_fallback_action, riptrace_fallback_end",
    ".globl riptrace_fallback, riptrace_fallback_restorer, riptrace_fallback_old, riptrace_fallback_put_back",
    ".globl riptrace_fallback_action, riptrace_fallback_end",
    "riptrace_fallback:",
    "mov ecx, dword ptr [rsi + 8]",
    "lea ecx, [rcx - 1]",
    "cmp ecx, 1",
    "jbe 40f",
    "cmp ecx, 0x7f",
    "jne 50f",
    "mov rax, qword ptr [rdx + 168]",
    "lea r8, [rip + riptrace_fallback]",
    "mov rcx, rax",
    "sub rcx, r8",
    "cmp rcx, {pool_bytes}",
    "jb 40f",
    "dec rax",
    "lea r9, [r8 + {header_bytes}]",
    "lea r10, [r8 + {pool_bytes}]",
    "22:",
    "cmp r9, r10",
    "jae 50f",
    "mov rcx, qword ptr [r9 + {site_at}]",
    "test rcx, rcx",
    "jz 50f",
    "cmp rcx, rax",
    "je 20f",
    "add r9, {slot_bytes}",
    "jmp 22b",
    "20:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "mov rbx, r9",
    "mov r12, rax",
    "mov r13, rdx",
    "lea rdi, [rip + 90f]",
    "mov esi, 0x80002", // O_RDWR | O_CLOEXEC
    "xor edx, edx",
    "mov eax, 2",
    "syscall",
    "test eax, eax",
    "js 30f",
    "mov ebp, eax",
    "mov edi, eax",
    "lea rsi, [rbx + {original_at}]",
    "mov edx, 1",
    "mov r10, r12",
    "mov eax, 18",
    "syscall",
    "xchg rbp, rax",
    "mov edi, eax",
    "mov eax, 3",
    "syscall",
    "cmp rbp, 1",
    "jne 30f",
    "mov qword ptr [r13 + 168], r12",
    "jmp 35f",
    "30:",
    "mov qword ptr [r13 + 168], rbx",
    "35:",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "40:",
    "ret",
    "50:",
    "mov rax, qword ptr [rip + riptrace_fallback_old]",
    "cmp rax, 1",
    "je 40b",
    "jb 60f",
    "jmp rax",
    "60:",
    "mov edi, 5",
    "lea rsi, [rip + 91f]",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 13",
    "syscall",
    "mov eax, 39",
    "syscall",
    "mov edi, eax",
    "mov eax, 186",
    "syscall",
    "mov esi, eax",
    "mov edx, 5",
    "mov eax, 234",
    "syscall",
    "ret",
    "riptrace_fallback_restorer:",
    "mov eax, 15",
    "syscall",
    ".balign 8",
    "riptrace_fallback_old: .quad 0, 0, 0, 0",
    "riptrace_fallback_put_back: .quad 0, 0, 0, 0",
    "riptrace_fallback_action: .quad 0, 0, 0, 0",
    "91: .quad 0, 0, 0, 0",
    "90: .asciz \"/proc/self/mem\"",
    "riptrace_fallback_end:",
    ".popsection",
    pool_bytes = const POOL_BYTES,
    header_bytes = const HEADER_BYTES,
    slot_bytes = const SLOT_BYTES,
    site_at = const SITE_AT,
    original_at = const ORIGINAL_AT,
);

/// Memory for slots is mapped so many bytes at a time: a thousand sites, more than most processes ever get.
pub(in super::super) const POOL_BYTES: u64 = SLOT_BYTES as u64 * 1024;

unsafe extern "C" {
    static riptrace_fallback: u8;
    static riptrace_fallback_restorer: u8;
    static riptrace_fallback_old: u8;
    static riptrace_fallback_put_back: u8;
    static riptrace_fallback_action: u8;
    static riptrace_fallback_end: u8;
}

fn offset(of: *const u8) -> usize {
    of.addr() - (&raw const riptrace_fallback).addr()
}

/// Where the former action is kept: the handler jumps to the first word of it.
pub(in super::super) fn old_at(base: Avma) -> Avma {
    Avma(base.0 + offset(&raw const riptrace_fallback_old) as u64)
}

/// Where the action is that is put back before the memory goes.
pub(in super::super) fn put_back_at(base: Avma) -> Avma {
    Avma(base.0 + offset(&raw const riptrace_fallback_put_back) as u64)
}

/// Where the action is that installs the handler.
pub(in super::super) fn action_at(base: Avma) -> Avma {
    Avma(base.0 + offset(&raw const riptrace_fallback_action) as u64)
}

/// The handler and its data, for memory at `base`.
pub(in super::super) fn header(base: Avma) -> Vec<u8> {
    let length = offset(&raw const riptrace_fallback_end);
    // SAFETY: the block above puts these bytes between the two symbols, in read-only data of this program.
    let mut bytes = unsafe { std::slice::from_raw_parts(&raw const riptrace_fallback, length) }.to_vec();
    let restorer = base.0 + offset(&raw const riptrace_fallback_restorer) as u64;
    let action = [base.0, SA_SIGINFO | SA_ONSTACK | SA_RESTORER, restorer, NO_MASK];
    let at = offset(&raw const riptrace_fallback_action);
    for (field, word) in bytes[at..at + ACTION_BYTES].chunks_exact_mut(8).zip(action) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    debug_assert!(bytes.len() as u64 <= HEADER_BYTES);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_fits_before_the_slots_and_knows_its_own_address() {
        let header = header(Avma(0x30_0000));
        assert!(header.len() as u64 <= HEADER_BYTES, "{}", header.len());
        let at = (action_at(Avma(0)).0) as usize;
        assert_eq!(header[at..at + 8], 0x30_0000u64.to_le_bytes());
        assert_eq!(put_back_at(Avma(0)).0 - old_at(Avma(0)).0, ACTION_BYTES as u64);
        assert_eq!(action_at(Avma(0)).0 - put_back_at(Avma(0)).0, ACTION_BYTES as u64);
    }
}

//! Registers: from the kernel's order to DWARF numbers, and a system call's.

use super::super::sys::UserRegisters;
use crate::capture::registers::Registers;
use riptrace_protocol::ids::Avma;

/// What a capture program sees at a site: the instruction pointer is the site's.
pub(in super::super) fn captured(user: &UserRegisters, site: Avma, xmm: [[u8; 16]; 16]) -> Registers {
    // System V ABI, AMD64 supplement, figure 3.36: rdx, rcx and rbx are 1, 2 and 3.
    let gpr = [
        user.rax, user.rdx, user.rcx, user.rbx, user.rsi, user.rdi, user.rbp, user.rsp, user.r8, user.r9, user.r10,
        user.r11, user.r12, user.r13, user.r14, user.r15, site.0,
    ];
    Registers { gpr, xmm, fs_base: user.fs_base }
}

/// All registers of a thread that can hold an address, but for the stack and the instruction pointer.
pub(in super::super) fn general(user: &UserRegisters) -> [u64; 15] {
    [
        user.rax, user.rdx, user.rcx, user.rbx, user.rsi, user.rdi, user.rbp, user.r8, user.r9, user.r10, user.r11,
        user.r12, user.r13, user.r14, user.r15,
    ]
}

/// Whether a thread is where it was, with all that it had in its registers: it has done nothing but come back.
pub(in super::super) fn is_same_moment(one: &UserRegisters, other: &UserRegisters) -> bool {
    let words = |user: &UserRegisters| {
        [
            user.rax, user.rdx, user.rcx, user.rbx, user.rsi, user.rdi, user.rbp, user.rsp, user.r8, user.r9, user.r10,
            user.r11, user.r12, user.r13, user.r14, user.r15,
        ]
    };
    words(one) == words(other)
}

/// The registers with which a thread makes a system call at `instruction` (x86-64 calling convention, syscall(2)).
/// `orig_rax` says that the thread is in no system call, so that the kernel restarts none (ptrace(2), arch/x86 signal.c).
pub(in super::super) fn system_call(
    user: &UserRegisters,
    instruction: Avma,
    call: i64,
    args: [u64; 6],
) -> UserRegisters {
    let mut call_registers = *user;
    call_registers.rip = instruction.0;
    call_registers.orig_rax = u64::MAX;
    call_registers.rax = call as u64;
    [
        call_registers.rdi,
        call_registers.rsi,
        call_registers.rdx,
        call_registers.r10,
        call_registers.r8,
        call_registers.r9,
    ] = args;
    call_registers
}

/// System calls that fail with EINTR when their thread is stopped and resumed, though no signal came (signal(7)), and
/// that may simply be made again: nothing was done yet.
const INTERRUPTED_BY_STOPS: [i64; 17] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_io_getevents,
    libc::SYS_io_uring_enter,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_write,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// `-ERESTARTNOHAND` (include/linux/errno.h): the kernel makes the call again, unless a handler runs: then it is EINTR.
const RESTART_UNLESS_HANDLED: i64 = -514;

/// A call that the tracer's own stop has interrupted goes on as if nothing had been. `None` where nothing is to be done.
pub(in super::super) fn restarted(user: &UserRegisters) -> Option<UserRegisters> {
    let interrupted =
        user.rax as i64 == -i64::from(libc::EINTR) && INTERRUPTED_BY_STOPS.contains(&(user.orig_rax as i64));
    interrupted.then_some(UserRegisters { rax: RESTART_UNLESS_HANDLED as u64, ..*user })
}

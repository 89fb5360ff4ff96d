//! A call slot: the few instructions by which a stopped thread makes one system call and goes back to where it was, by
//! itself if it must.
//!
//! ```text
//! 0   syscall
//! 2   mov rdi, ..; mov rsi, ..; mov rdx, ..; mov r10, ..; mov r8, ..; mov r9, ..; mov rax, ..; mov rcx, ..; mov r11, ..
//! 92  jmp [rip]
//! 98  the address
//! ```
//!
//! Invariants:
//! - A thread comes in by one change of its registers, with the call's number and arguments in them, and everything that
//!   is changed until it is out again is put back by the slot: a call changes rax, rcx and r11 only (System V ABI, AMD64
//!   supplement, A.2.1), its arguments are in six registers more, and no instruction here touches a flag, the stack, a
//!   vector or the signal mask. So it does not matter where the tracer is killed.
//! - A call that the stop has interrupted is made again ([`back`]); one with a timeout goes on by restart_syscall(2).
//! - A slot is never written while a thread may be in it.

use super::super::sys::UserRegisters;
use super::SYSTEM_CALL;
use super::registers::{restarted, system_call};
use riptrace_protocol::ids::Avma;

/// Bytes of the instructions and the address.
pub(in super::super) const CALL_SLOT_BYTES: usize = 106;
/// Code segment of a thread that runs 64-bit code (`__USER_CS`, arch/x86/include/asm/segment.h).
const USER_CODE_SEGMENT: u64 = 0x33;
/// The kernel's own results of a call that a signal or a stop has interrupted (include/linux/errno.h): ERESTARTSYS,
/// ERESTARTNOINTR, ERESTARTNOHAND. The call is made again.
const RESTART: [i64; 3] = [-512, -513, -514];
/// ERESTART_RESTARTBLOCK: the call goes on with the time that is left.
const RESTART_BLOCK: i64 = -516;

/// Whether a stopped thread runs 64-bit code.
pub(in super::super) fn is_64_bit(user: &UserRegisters) -> bool {
    user.cs == USER_CODE_SEGMENT
}

/// Whether a result is the kernel's way to say that the call was interrupted and has done nothing.
pub(in super::super) fn is_interrupted(result: u64) -> bool {
    let result = result as i64;
    RESTART.contains(&result) || result == RESTART_BLOCK || result == -i64::from(libc::EINTR)
}

/// What a stopped thread's registers must be set to so that the kernel lets it go on as if it had not been stopped. To be
/// followed by a detach (or the tracer's death): both make the kernel look at the interrupted call.
pub(in super::super) fn kept(user: &UserRegisters) -> UserRegisters {
    restarted(user).unwrap_or(*user)
}

/// The registers with which a thread goes on by itself after a call in a slot. `user` are those it was stopped with.
fn back(user: &UserRegisters) -> UserRegisters {
    let user = kept(user);
    if user.orig_rax as i64 == -1 {
        return user;
    }
    let number = match user.rax as i64 {
        result if RESTART.contains(&result) => user.orig_rax,
        RESTART_BLOCK => libc::SYS_restart_syscall as u64,
        _ => return user,
    };
    UserRegisters { rax: number, rip: user.rip - SYSTEM_CALL.len() as u64, ..user }
}

/// The slot for a thread that was stopped with `user`.
pub(in super::super) fn call_slot(user: &UserRegisters) -> [u8; CALL_SLOT_BYTES] {
    let user = back(user);
    // REX prefix and opcode of `mov register, imm64` (Intel SDM volume 2, B8+rd io).
    let moves: [([u8; 2], u64); 9] = [
        ([0x48, 0xbf], user.rdi),
        ([0x48, 0xbe], user.rsi),
        ([0x48, 0xba], user.rdx),
        ([0x49, 0xba], user.r10),
        ([0x49, 0xb8], user.r8),
        ([0x49, 0xb9], user.r9),
        ([0x48, 0xb8], user.rax),
        ([0x48, 0xb9], user.rcx),
        ([0x49, 0xbb], user.r11),
    ];
    let mut slot = [0; CALL_SLOT_BYTES];
    slot[..2].copy_from_slice(&SYSTEM_CALL);
    for (bytes, (opcode, value)) in slot[2..92].chunks_exact_mut(10).zip(moves) {
        bytes[..2].copy_from_slice(&opcode);
        bytes[2..].copy_from_slice(&value.to_le_bytes());
    }
    // jmp qword ptr [rip+0]
    slot[92..98].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
    slot[98..].copy_from_slice(&user.rip.to_le_bytes());
    slot
}

/// The registers with which a thread that was stopped with `user` makes a call in the slot at `slot`.
pub(in super::super) fn entering(user: &UserRegisters, slot: Avma, number: i64, args: [u64; 6]) -> UserRegisters {
    system_call(user, slot, number, args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

    fn stopped(rax: i64, orig_rax: i64) -> UserRegisters {
        // SAFETY: a structure of integers; all zeroes is one of its values.
        let zero: UserRegisters = unsafe { std::mem::zeroed() };
        UserRegisters {
            rip: 0x1000_2000_3002,
            rdi: 1,
            rsi: 2,
            rdx: 3,
            r10: 4,
            r8: 5,
            r9: 6,
            rcx: 7,
            r11: 8,
            rax: rax as u64,
            orig_rax: orig_rax as u64,
            ..zero
        }
    }

    /// What the slot leaves in the registers, read from its instructions.
    fn leaves(user: &UserRegisters) -> (Vec<(Register, u64)>, u64) {
        let slot = call_slot(user);
        let instructions: Vec<_> = Decoder::new(64, &slot[..98], DecoderOptions::NONE).iter().collect();
        assert_eq!(instructions[0].mnemonic(), Mnemonic::Syscall);
        let (jump, moves) = instructions[1..].split_last().unwrap();
        assert_eq!((jump.mnemonic(), jump.ip_rel_memory_address()), (Mnemonic::Jmp, 98));
        let moves = moves.iter().map(|instruction| {
            assert_eq!((instruction.mnemonic(), instruction.op1_kind()), (Mnemonic::Mov, OpKind::Immediate64));
            (instruction.op0_register(), instruction.immediate64())
        });
        (moves.collect(), u64::from_le_bytes(slot[98..].try_into().unwrap()))
    }

    #[test]
    fn a_thread_leaves_with_what_it_came_with() {
        use Register::*;
        let (moves, rip) = leaves(&stopped(9, -1));
        assert_eq!(moves, [(RDI, 1), (RSI, 2), (RDX, 3), (R10, 4), (R8, 5), (R9, 6), (RAX, 9), (RCX, 7), (R11, 8)]);
        assert_eq!(rip, 0x1000_2000_3002);
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let after = |rax, orig_rax| {
            let (moves, rip) = leaves(&stopped(rax, orig_rax));
            (moves[6].1 as i64, rip & 0xff)
        };
        for result in [-512, -513, -514] {
            assert_eq!(after(result, libc::SYS_read), (libc::SYS_read, 0), "{result}");
        }
        assert_eq!(after(-516, libc::SYS_nanosleep), (libc::SYS_restart_syscall, 0));
        // Interrupted by the stop itself, which the kernel does not tell from a signal.
        assert_eq!(after(-4, libc::SYS_epoll_wait), (libc::SYS_epoll_wait, 0));
        assert_eq!(after(-4, libc::SYS_close), (-4, 2), "its own result");
        assert_eq!(after(-512, -1), (-512, 2), "a number, in no call");
        assert_eq!(after(17, libc::SYS_read), (17, 2), "a result");
    }
}

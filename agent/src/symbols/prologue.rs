//! Where a function's prologue ends.
//!
//! A site at a function's very entry is wrong twice: Go's stack check may grow the stack and start the function again,
//! which would count one call twice; and the frame pointer is still the caller's, which would lose the caller from the
//! call stack. So a site at the entry moves to the first instruction after the frame is set up.
//!
//! Go's prologue (`cmd/internal/obj/x86/obj6.go`, `preprocess` and `stacksplit`): compare the stack pointer with
//! `g.stackguard0`, jump to the call of `morestack`, `push rbp; mov rbp, rsp; sub rsp, N` (before Go 1.21:
//! `sub rsp, N; mov [rsp+N-8], rbp; lea rbp, [rsp+N-8]`). C compilers: `endbr64; push rbp; mov rbp, rsp; sub rsp, N`.

use super::lines::Lines;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Bytes of a function that are looked at: the longest prologue (a huge frame's stack check) is about 60.
pub(super) const PROLOGUE_BYTES_MAX: u64 = 256;

/// Address of the first instruction after the prologue of a function, whose first bytes are `code`.
pub(super) fn end(entry: u64, function_end: u64, code: &[u8], lines: &Lines, is_go: bool) -> u64 {
    let frame = frame_end(entry, function_end, code, is_go);
    // Go's own mark is anywhere up to the first statement, where arguments may be gone already; and its location lists
    // are right from the frame on.
    if is_go {
        return frame;
    }
    let marked = lines
        .within(entry, function_end)
        .iter()
        .find(|row| row.is_prologue_end && row.address >= frame)
        .map(|row| row.address);
    if let Some(marked) = marked
        && is_straight(entry, frame, marked, code)
    {
        return marked;
    }
    if frame == entry {
        return frame;
    }
    // A C compiler that sets up a frame pointer and marks nothing stores the parameters before the second line.
    let second = lines.within(entry, function_end).iter().find(|row| row.address > entry).map(|row| row.address);
    match second {
        Some(second) if second > frame && is_straight(entry, frame, second, code) => second,
        _ => frame,
    }
}

/// Whether the code from `from` to `to` is run through without a jump or a call.
fn is_straight(entry: u64, from: u64, to: u64, code: &[u8]) -> bool {
    if to > entry.saturating_add(code.len() as u64) {
        return false;
    }
    instructions(entry, code)
        .skip_while(|instruction| instruction.ip() < from)
        .take_while(|instruction| instruction.ip() < to)
        .all(|instruction| instruction.flow_control() == FlowControl::Next)
}

fn instructions(entry: u64, code: &[u8]) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, entry, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()).filter(|found| !found.is_invalid()))
}

/// Address after the stack check and the set-up of the frame; the entry itself where there is neither.
fn frame_end(entry: u64, function_end: u64, code: &[u8], is_go: bool) -> u64 {
    let mut end = entry;
    let mut pushed = false;
    for instruction in instructions(entry, code).take_while(|instruction| instruction.next_ip() <= function_end) {
        match step(&instruction, is_go, &mut pushed) {
            Step::Frame => end = instruction.next_ip(),
            Step::Check => {}
            Step::Other => break,
        }
    }
    end
}

enum Step {
    /// Part of the prologue, and the prologue may end behind it.
    Frame,
    /// Part of the stack check: only counts when something of the frame follows.
    Check,
    Other,
}

fn step(instruction: &Instruction, is_go: bool, pushed: &mut bool) -> Step {
    let first = instruction.op0_register();
    let second = instruction.op1_register();
    let second_is_memory = instruction.op_count() == 2 && instruction.op1_kind() == OpKind::Memory;
    let base = instruction.memory_base();
    let scratch = matches!(first, Register::R12 | Register::R13 | Register::RCX);
    match instruction.mnemonic() {
        Mnemonic::Endbr64 => Step::Frame,
        Mnemonic::Push if first == Register::RBP => {
            *pushed = true;
            Step::Frame
        }
        Mnemonic::Mov if first == Register::RBP && second == Register::RSP => Step::Frame,
        Mnemonic::Sub | Mnemonic::Add if first == Register::RSP && is_immediate(instruction) => Step::Frame,
        // Older Go: the frame pointer is saved at the top of the frame.
        Mnemonic::Mov if is_go && base == Register::RSP && second == Register::RBP && !*pushed => Step::Frame,
        Mnemonic::Lea if is_go && first == Register::RBP && base == Register::RSP => Step::Frame,
        // The stack check: the limit is in g, which is in r14 or, in assembly, behind the thread pointer.
        Mnemonic::Lea if is_go && scratch && base == Register::RSP => Step::Check,
        Mnemonic::Mov
            if is_go && scratch && (second == Register::RSP || instruction.segment_prefix() == Register::FS) =>
        {
            Step::Check
        }
        Mnemonic::Sub if is_go && scratch && is_immediate(instruction) => Step::Check,
        Mnemonic::Cmp
            if is_go && second_is_memory && matches!(first, Register::RSP | Register::R12 | Register::R13) =>
        {
            // The jump behind the check is taken when the stack must grow; nothing before it may be a site.
            Step::Frame
        }
        Mnemonic::Jbe | Mnemonic::Jb | Mnemonic::Jae | Mnemonic::Ja if is_go => Step::Frame,
        Mnemonic::Nop => Step::Check,
        _ if instruction.code() == Code::Xchg_rm16_r16 && first == Register::AX && second == Register::AX => {
            Step::Check
        }
        _ => Step::Other,
    }
}

fn is_immediate(instruction: &Instruction) -> bool {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate8 | OpKind::Immediate32
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(code: &[u8], is_go: bool) -> u64 {
        end(0x1000, 0x1000 + code.len() as u64, code, &Lines { rows: Vec::new() }, is_go) - 0x1000
    }

    #[test]
    fn go_prologue_ends_after_the_frame() {
        // cmp rsp, [r14+16]; jbe +60; push rbp; mov rbp, rsp; sub rsp, 24; mov [rsp+48], rax
        let code = [
            0x49, 0x3b, 0x66, 0x10, 0x76, 0x3c, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x44, 0x24,
            0x30, 0xc3,
        ];
        assert_eq!(end_of(&code, true), 14);
    }

    #[test]
    fn go_prologue_of_a_large_frame_and_of_old_go() {
        // lea r12, [rsp-0x98]; cmp r12, [r14+16]; jbe; push rbp; mov rbp, rsp; sub rsp, 0x110; ret
        let large = [
            0x4c, 0x8d, 0xa4, 0x24, 0x68, 0xff, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0x10, 0x02, 0x00, 0x00,
            0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 0x10, 0x01, 0x00, 0x00, 0xc3,
        ];
        assert_eq!(end_of(&large, true), 29);
        // cmp rsp, [r14+16]; jbe; sub rsp, 24; mov [rsp+16], rbp; lea rbp, [rsp+16]; ret
        let old = [
            0x49, 0x3b, 0x66, 0x10, 0x76, 0x3c, 0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x6c, 0x24, 0x10, 0x48, 0x8d, 0x6c,
            0x24, 0x10, 0xc3,
        ];
        assert_eq!(end_of(&old, true), 20);
    }

    #[test]
    fn a_function_without_a_frame_has_no_prologue() {
        // mov rcx, [rip+1]; add rax, rcx; ret
        let leaf = [0x48, 0x8b, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x48, 0x01, 0xc8, 0xc3];
        assert_eq!(end_of(&leaf, true), 0);
        assert_eq!(end_of(&[], true), 0);
    }

    #[test]
    fn a_c_frame_ends_after_the_stack_is_lowered() {
        // endbr64; push rbp; mov rbp, rsp; sub rsp, 16; mov [rbp-4], edi
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x89, 0x7d, 0xfc, 0xc3];
        assert_eq!(end_of(&code, false), 12);
    }
}

//! The exits of a function: every place where it goes back to its caller.
//!
//! Never by the return address on the stack: Go moves stacks, and unwinders read them. Each return instruction is a
//! site of its own. A direct jump that leaves the function is an exit as well (a tail call): the function it goes to
//! returns in its place, with results of its own.

use super::Svma;
use super::image::Image;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use std::ops::Range;

/// Code of one function that is decoded, at most: generated state machines have a few megabytes.
const FUNCTION_BYTES_MAX: u64 = 16 << 20;

/// One exit, by the address of its instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// A return instruction.
    Return(u64),
    /// A jump to another function.
    TailCall(u64),
}

/// The exits of a function whose code is in `ranges`, in the order of addresses.
pub(super) fn of(image: &Image, ranges: &[Range<u64>]) -> Vec<Exit> {
    let mut exits = Vec::new();
    for range in ranges {
        let bytes = range.end.saturating_sub(range.start).min(FUNCTION_BYTES_MAX);
        find(&image.read(Svma(range.start), bytes), range.start, ranges, &mut exits);
    }
    exits
}

fn find(code: &[u8], start: u64, ranges: &[Range<u64>], exits: &mut Vec<Exit>) {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        match instruction.flow_control() {
            FlowControl::Return => exits.push(Exit::Return(instruction.ip())),
            FlowControl::UnconditionalBranch
                if !ranges.iter().any(|range| range.contains(&instruction.near_branch_target())) =>
            {
                exits.push(Exit::TailCall(instruction.ip()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_out_is_found() {
        // 0: test edi,edi; 2: je 5; 4: ret; 5: jmp 0; 7: jmp 0x1000 (elsewhere); 12: ret 8
        let code =
            [0x85, 0xff, 0x74, 0x01, 0xc3, 0xeb, 0xf9, 0xe9, 0xf4, 0x0f, 0x00, 0x00, 0xc2, 0x08, 0x00].as_slice();
        let mut exits = Vec::new();
        find(code, 0, std::slice::from_ref(&(0..15)), &mut exits);
        assert_eq!(exits, [Exit::Return(4), Exit::TailCall(7), Exit::Return(12)]);
    }
}

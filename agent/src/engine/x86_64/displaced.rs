//! The displaced instruction: what stands at a site, made to run in a slot elsewhere.
//!
//! A slot holds the instruction, relocated, and the way back:
//!
//! ```text
//! any other     instruction; jmp site+length
//! branch        jcc target; jmp site+length
//! call          push [literal]; jmp target        literal: site+length, the return address that was always there
//! ```
//!
//! Behind the code a slot has the site's address and the byte that stood there ([`super::fallback`] reads them), and the
//! literal. The call is split so that a slot's address is never a return address: unwinders, garbage collectors and profilers read
//! those. Positions: the slot's first byte, where nothing is done yet, and those after it, which a thread leaves within
//! two more instructions.

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionBlock,
    Mnemonic, OpKind, Register,
};
use riptrace_protocol::ids::Avma;

/// Size of a slot, in bytes: the longest relocated instruction, the way back and the literal.
pub(in super::super) const SLOT_BYTES: usize = 64;
/// Most code in a slot.
const CODE_BYTES_MAX: usize = 40;
/// Where the site's address is, for the handler of a process that was left behind.
pub(in super::super) const SITE_AT: usize = CODE_BYTES_MAX;
/// Where the byte is that the breakpoint replaces.
pub(in super::super) const ORIGINAL_AT: usize = 48;
/// Where the literal is.
const LITERAL_AT: usize = SLOT_BYTES - 8;
/// `push qword ptr [rip + disp32]`
const PUSH_LITERAL: [u8; 2] = [0xff, 0x35];
/// Its length.
const PUSH_BYTES: usize = 6;

/// An instruction at a site.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Displaced {
    instruction: Instruction,
}

/// Why an instruction cannot run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum DisplaceError {
    /// The bytes are none.
    NoInstruction,
    /// It is a breakpoint.
    Breakpoint,
    /// It is of a kind that depends on where it stands, or leaves the program.
    Kind(String),
    /// What it names is too far from the slot.
    TooFar,
}

impl Displaced {
    /// Decodes the instruction at `site`.
    pub(in super::super) fn decode(site: Avma, bytes: &[u8]) -> Result<Displaced, DisplaceError> {
        let instruction = Decoder::with_ip(64, bytes, site.0, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            return Err(DisplaceError::NoInstruction);
        }
        let refused = || Err(DisplaceError::Kind(format!("{:?}", instruction.mnemonic()).to_lowercase()));
        match instruction.mnemonic() {
            Mnemonic::Int3 => return Err(DisplaceError::Breakpoint),
            // They read or write the trap flag, with which signals are led out of slots.
            Mnemonic::Pushf | Mnemonic::Pushfq | Mnemonic::Popf | Mnemonic::Popfq => return refused(),
            _ => {}
        }
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception => {
                if instruction.is_jmp_far_indirect()
                    || matches!(instruction.mnemonic(), Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq)
                    || matches!(instruction.mnemonic(), Mnemonic::Retf | Mnemonic::Sysretq | Mnemonic::Sysexitq)
                    || matches!(instruction.mnemonic(), Mnemonic::Sysret | Mnemonic::Sysexit)
                {
                    return refused();
                }
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                // A branch to itself would leave the site after its first passage.
                if instruction.is_jmp_far() || instruction.near_branch_target() == site.0 {
                    return refused();
                }
            }
            FlowControl::Call if instruction.is_call_near() => {}
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                if instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP {
                    return refused();
                }
            }
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt | FlowControl::XbeginXabortXend => {
                return refused();
            }
        }
        Ok(Displaced { instruction })
    }

    /// Its length, in bytes.
    pub(in super::super) fn length(&self) -> usize {
        self.instruction.len()
    }

    /// Whether it pushes a return address.
    pub(in super::super) fn is_call(&self) -> bool {
        matches!(self.instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
    }

    /// The bytes of a slot at `slot` that does what the instruction does.
    pub(in super::super) fn slot(&self, slot: Avma, original: u8) -> Result<[u8; SLOT_BYTES], DisplaceError> {
        let next = self.instruction.next_ip();
        let mut bytes = [super::BREAKPOINT; SLOT_BYTES];
        bytes[SITE_AT..ORIGINAL_AT].copy_from_slice(&self.instruction.ip().to_le_bytes());
        bytes[ORIGINAL_AT] = original;
        if self.is_call() {
            let displacement = (LITERAL_AT - PUSH_BYTES) as i32;
            bytes[..2].copy_from_slice(&PUSH_LITERAL);
            bytes[2..PUSH_BYTES].copy_from_slice(&displacement.to_le_bytes());
            let jump = encode(&[self.jump_of_call()?], slot.0 + PUSH_BYTES as u64)?;
            place(&mut bytes[PUSH_BYTES..CODE_BYTES_MAX], &jump)?;
            bytes[LITERAL_AT..].copy_from_slice(&next.to_le_bytes());
            return Ok(bytes);
        }
        let back =
            Instruction::with_branch(Code::Jmp_rel32_64, next).map_err(|_| DisplaceError::Kind("jmp".to_owned()))?;
        place(&mut bytes[..CODE_BYTES_MAX], &encode(&[self.instruction, back], slot.0)?)?;
        Ok(bytes)
    }

    /// The jump that a call is, but for the return address.
    fn jump_of_call(&self) -> Result<Instruction, DisplaceError> {
        if self.instruction.flow_control() == FlowControl::Call {
            return Instruction::with_branch(Code::Jmp_rel32_64, self.instruction.near_branch_target())
                .map_err(|_| DisplaceError::Kind("call".to_owned()));
        }
        let mut jump = self.instruction;
        jump.set_code(Code::Jmp_rm64);
        jump.set_ip(0);
        if jump.op0_kind() == OpKind::Memory && jump.memory_base() == Register::RSP {
            // The return address is pushed by now.
            jump.set_memory_displacement64(jump.memory_displacement64().wrapping_add(8));
            // 8 asks the encoder for a 32-bit displacement with 64-bit addresses.
            jump.set_memory_displ_size(8);
        }
        Ok(jump)
    }
}

fn place(into: &mut [u8], code: &[u8]) -> Result<(), DisplaceError> {
    let into = into.get_mut(..code.len()).ok_or(DisplaceError::TooFar)?;
    into.copy_from_slice(code);
    Ok(())
}

/// Encodes instructions one after the other. Those made here have the address 0, so that the encoder takes no branch
/// for one into the block.
fn encode(instructions: &[Instruction], at: u64) -> Result<Vec<u8>, DisplaceError> {
    let block = InstructionBlock::new(instructions, at);
    match BlockEncoder::encode(64, block, BlockEncoderOptions::NONE) {
        Ok(encoded) => Ok(encoded.code_buffer),
        Err(_) => Err(DisplaceError::TooFar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Avma = Avma(0x40_1000);
    const SLOT: Avma = Avma(0x30_0040);

    /// What a slot does, instruction by instruction, as (bytes, near branch target or 0, address of a memory operand).
    fn slot_of(bytes: &[u8]) -> Vec<Instruction> {
        let displaced = Displaced::decode(SITE, bytes).unwrap();
        assert_eq!(displaced.length(), bytes.len());
        let slot = displaced.slot(SLOT, bytes[0]).unwrap();
        Decoder::with_ip(64, &slot, SLOT.0, DecoderOptions::NONE)
            .into_iter()
            .take_while(|instruction| instruction.mnemonic() != Mnemonic::Int3)
            .collect()
    }

    #[test]
    fn an_ordinary_instruction_is_copied_and_goes_back() {
        let slot = slot_of(&[0x55]); // push rbp
        assert_eq!(slot[0].mnemonic(), Mnemonic::Push);
        assert_eq!((slot[1].mnemonic(), slot[1].near_branch_target()), (Mnemonic::Jmp, SITE.0 + 1));
    }

    #[test]
    fn an_operand_beside_the_code_stays_where_it_is() {
        let slot = slot_of(&[0x48, 0x8d, 0x05, 0x10, 0, 0, 0]); // lea rax, [rip+0x10]
        assert_eq!(slot[0].memory_displacement64(), SITE.0 + 7 + 0x10);
    }

    #[test]
    fn branches_keep_their_target_and_fall_through_to_the_next_instruction() {
        for bytes in [&[0x74, 0x10][..], &[0x0f, 0x84, 0x10, 0, 0, 0]] {
            let slot = slot_of(bytes);
            assert_eq!((slot[0].mnemonic(), slot[0].near_branch_target()), (Mnemonic::Je, slot_target(bytes)));
            assert_eq!(slot[1].near_branch_target(), SITE.0 + bytes.len() as u64);
        }
        // A branch to the next instruction is one into no block.
        assert_eq!(slot_of(&[0x74, 0x00])[0].near_branch_target(), SITE.0 + 2);
        assert_eq!(slot_of(&[0xeb, 0x10])[0].near_branch_target(), SITE.0 + 0x12);
    }

    fn slot_target(bytes: &[u8]) -> u64 {
        SITE.0 + bytes.len() as u64 + 0x10
    }

    #[test]
    fn a_call_returns_to_where_it_always_did() {
        let displaced = Displaced::decode(SITE, &[0xe8, 0x10, 0, 0, 0]).unwrap();
        let slot = displaced.slot(SLOT, 0xe8).unwrap();
        assert_eq!(slot[LITERAL_AT..], (SITE.0 + 5).to_le_bytes());
        assert_eq!(slot[SITE_AT..ORIGINAL_AT], SITE.0.to_le_bytes());
        assert_eq!(slot[ORIGINAL_AT], 0xe8);
        let code: Vec<Instruction> =
            Decoder::with_ip(64, &slot, SLOT.0, DecoderOptions::NONE).into_iter().take(2).collect();
        assert_eq!(code[0].mnemonic(), Mnemonic::Push);
        assert_eq!(code[0].memory_displacement64(), SLOT.0 + LITERAL_AT as u64);
        assert_eq!((code[1].mnemonic(), code[1].near_branch_target()), (Mnemonic::Jmp, SITE.0 + 5 + 0x10));
    }

    #[test]
    fn an_indirect_call_reads_its_operand_as_if_nothing_were_pushed() {
        // call [rsp+0x10]; call [rsp]; call [r12+8]; call rax; call [rip+0x10]
        for (bytes, displacement) in [
            (&[0xff, 0x54, 0x24, 0x10][..], 0x18),
            (&[0xff, 0x14, 0x24], 8),
            (&[0x41, 0xff, 0x54, 0x24, 8], 8),
            (&[0xff, 0xd0], 0),
            (&[0xff, 0x15, 0x10, 0, 0, 0], SITE.0 + 6 + 0x10),
        ] {
            let slot = slot_of(bytes);
            assert_eq!((slot[0].mnemonic(), slot[1].mnemonic()), (Mnemonic::Push, Mnemonic::Jmp), "{bytes:x?}");
            assert_eq!(slot[1].memory_displacement64(), displacement, "{bytes:x?}");
        }
    }

    #[test]
    fn what_cannot_run_elsewhere_is_refused_by_name() {
        for (bytes, name) in [
            (&[0x0f, 0x05][..], "syscall"),
            (&[0x9c], "pushfq"),
            (&[0xcd, 0x80], "int"),
            (&[0xeb, 0xfe], "jmp"),
            (&[0xe2, 0xfe], "loop"),
            (&[0xff, 0xd4], "call"),
            (&[0x48, 0xcf], "iretq"),
            (&[0xc7, 0xf8, 0, 0, 0, 0], "xbegin"),
        ] {
            assert_eq!(Displaced::decode(SITE, bytes).unwrap_err(), DisplaceError::Kind(name.to_owned()), "{bytes:x?}");
        }
        assert_eq!(Displaced::decode(SITE, &[0xcc]).unwrap_err(), DisplaceError::Breakpoint);
        assert_eq!(Displaced::decode(SITE, &[0x06]).unwrap_err(), DisplaceError::NoInstruction);
        assert_eq!(Displaced::decode(SITE, &[]).unwrap_err(), DisplaceError::NoInstruction);
    }

    #[test]
    fn an_operand_out_of_reach_is_an_error() {
        let displaced = Displaced::decode(Avma(0x7fff_0000_0000), &[0x48, 0x8d, 0x05, 0x10, 0, 0, 0]).unwrap();
        assert_eq!(displaced.slot(SLOT, 0x48).unwrap_err(), DisplaceError::TooFar);
    }
}

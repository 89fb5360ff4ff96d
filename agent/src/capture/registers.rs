//! Registers of a stopped thread, by their DWARF numbers.

use super::program::Register;
use riptrace_protocol::ids::Avma;

/// DWARF number of rbp (System V ABI, AMD64 supplement, figure 3.36).
pub const RBP: Register = Register(6);
/// DWARF number of rsp.
pub const RSP: Register = Register(7);
/// DWARF number of the return address column, which stands for rip.
pub const RIP: Register = Register(16);
/// DWARF number of xmm0; xmm15 is 32.
pub const XMM0: Register = Register(17);

/// Registers of a thread at the moment of a passage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registers {
    /// General-purpose registers by DWARF number; the last is rip, which is the site's address.
    pub gpr: [u64; 17],
    /// Vector registers; zero unless the program asks for one ([`super::program::Program::reads_vectors`]).
    pub xmm: [[u8; 16]; 16],
    /// Base of the FS segment: where thread-local storage is.
    pub fs_base: u64,
}

impl Registers {
    /// Instruction pointer.
    pub fn rip(&self) -> Avma {
        Avma(self.gpr[16])
    }

    /// A general-purpose register; `None` for any other.
    pub fn word(&self, register: Register) -> Option<u64> {
        self.gpr.get(usize::from(register.0)).copied()
    }

    /// The bytes of a register, lowest first, and how many there are; `None` for a number that is no register.
    pub fn bytes(&self, register: Register) -> Option<([u8; 16], usize)> {
        if let Some(word) = self.word(register) {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&word.to_le_bytes());
            return Some((bytes, 8));
        }
        let vector = self.xmm.get(usize::from(register.0.checked_sub(XMM0.0)?))?;
        Some((*vector, 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_their_dwarf_numbers() {
        let mut registers = Registers::default();
        registers.gpr[6] = 0x0102;
        registers.xmm[15][0] = 9;
        assert_eq!(registers.bytes(RBP).unwrap().0[..2], [2, 1]);
        assert_eq!(registers.bytes(RBP).unwrap().1, 8);
        let (bytes, size) = registers.bytes(Register(32)).unwrap();
        assert_eq!((bytes[0], size), (9, 16));
        assert_eq!(registers.bytes(Register(33)), None);
        assert_eq!(registers.word(Register(17)), None);
    }
}

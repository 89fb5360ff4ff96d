//! Landing pads: where the unwinder goes on in a function with an exception.
//!
//! `.eh_frame` names for each function its language-specific data; C++, Rust and C's cleanups have it in the same form
//! (Itanium C++ ABI, exception handling tables; LSB core, 10.6; the reader in gcc's `unwind-pe.h` and `eh_personality`):
//!
//! ```text
//! u8 encoding of the pads' base   value, if not 0xff
//! u8 encoding of the types' table uleb128 its offset, if not 0xff
//! u8 encoding of the call sites   uleb128 bytes of their table
//! each: begin, length, pad (from the base; 0: none), uleb128 action
//! ```

use super::facts::Data;
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, Pointer, UnwindSection};
use std::ops::Range;

/// Most landing pads that are kept: four times what the largest executables have.
const PADS_MAX: usize = 8 << 20;

/// What the unwinder's tables tell.
#[derive(Debug, Default)]
pub(super) struct Unwinding {
    /// Landing pads, in no order.
    pub(super) pads: Vec<u64>,
    /// Code that has an entry: a function or a part of one.
    pub(super) ranges: Vec<Range<u64>>,
    /// Some table could not be read: there may be other pads.
    pub(super) is_incomplete: bool,
}

/// Reads `.eh_frame`, which is at an address. `text_at`: start of `.text`.
pub(super) fn read(eh_frame: &[u8], eh_frame_at: u64, text_at: u64, data: &Data) -> Unwinding {
    let mut found = Unwinding::default();
    let mut section = EhFrame::new(eh_frame, LittleEndian);
    section.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(eh_frame_at).set_text(text_at);
    let mut entries = section.entries(&bases);
    loop {
        let entry = match entries.next() {
            Ok(Some(CieOrFde::Fde(entry))) => entry,
            Ok(Some(CieOrFde::Cie(_))) => continue,
            Ok(None) => break,
            Err(_) => {
                found.is_incomplete = true;
                break;
            }
        };
        let Ok(entry) = entry.parse(EhFrame::cie_from_offset) else {
            found.is_incomplete = true;
            continue;
        };
        let (start, end) = (entry.initial_address(), entry.end_address());
        if start == 0 || start >= end {
            continue;
        }
        found.ranges.push(start..end);
        match entry.lsda() {
            None | Some(Pointer::Direct(0)) => {}
            Some(Pointer::Direct(address)) => {
                let read = Table { rest: data.at(address), at: address }.pads(start, &mut found.pads);
                if read.is_none() || found.pads.len() > PADS_MAX {
                    found.is_incomplete = true;
                }
            }
            Some(Pointer::Indirect(_)) => found.is_incomplete = true,
        }
        if found.pads.len() > PADS_MAX {
            break;
        }
    }
    found
}

/// What is left of one function's table.
struct Table<'a> {
    rest: &'a [u8],
    at: u64,
}

/// No value.
const OMIT: u8 = 0xff;

impl<'a> Table<'a> {
    /// The pads of the function at `start`; `None` when it cannot be read.
    fn pads(mut self, start: u64, pads: &mut Vec<u64>) -> Option<()> {
        let base = match self.byte()? {
            OMIT => start,
            encoding => self.value(encoding)?,
        };
        if self.byte()? != OMIT {
            self.uleb()?;
        }
        let encoding = self.byte()?;
        let bytes = usize::try_from(self.uleb()?).ok()?;
        let mut sites = Table { rest: self.rest.get(..bytes)?, at: self.at };
        while !sites.rest.is_empty() {
            sites.value(encoding)?;
            sites.value(encoding)?;
            let pad = sites.value(encoding)?;
            sites.uleb()?;
            if pad != 0 {
                pads.push(base.wrapping_add(pad));
            }
        }
        Some(())
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        self.at = self.at.wrapping_add(bytes as u64);
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A value by its `DW_EH_PE` encoding (LSB core, 10.5.1): size and sign below, what it is relative to above.
    fn value(&mut self, encoding: u8) -> Option<u64> {
        let at = self.at;
        let value = match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => u64::from_le_bytes(self.take(8)?.try_into().ok()?),
            0x01 => self.uleb()?,
            0x02 => u64::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            0x03 => u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            0x0a => i64::from(i16::from_le_bytes(self.take(2)?.try_into().ok()?)) as u64,
            0x0b => i64::from(i32::from_le_bytes(self.take(4)?.try_into().ok()?)) as u64,
            _ => return None,
        };
        match encoding & 0xf0 {
            0x00 => Some(value),
            0x10 => Some(if value == 0 { 0 } else { value.wrapping_add(at) }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pads_of(table: &[u8]) -> Option<Vec<u64>> {
        let mut pads = Vec::new();
        Table { rest: table, at: 0x9000 }.pads(0x1000, &mut pads).map(|()| pads)
    }

    #[test]
    fn pads_are_relative_to_the_function_unless_the_table_says_otherwise() {
        // No base, no types, call sites in uleb128: [4, +5) to 0x20; [9, +5) to none.
        let table = [0xff, 0xff, 0x01, 8, 4, 5, 0x20, 0, 9, 5, 0, 0];
        assert_eq!(pads_of(&table).unwrap(), [0x1020]);
        // A base of 0x5000, as four bytes; a types' table; call sites of four bytes.
        let table = [0x03, 0x00, 0x50, 0, 0, 0x9b, 0x10, 0x03, 13, 4, 0, 0, 0, 5, 0, 0, 0, 0x30, 0, 0, 0, 1];
        assert_eq!(pads_of(&table).unwrap(), [0x5030]);
        // A base relative to where it stands: 0x9001 + 0xff.
        let table = [0x1b, 0xff, 0, 0, 0, 0xff, 0x01, 4, 0, 1, 2, 0];
        assert_eq!(pads_of(&table).unwrap(), [0x9102]);
    }

    #[test]
    fn a_damaged_table_is_told_from_an_empty_one() {
        assert_eq!(pads_of(&[0xff, 0xff, 0x01, 0]).unwrap(), [0u64; 0]);
        for damaged in [
            &[][..],
            &[0xff],
            &[0xff, 0xff, 0x01, 9, 0],
            &[0xff, 0xff, 0x50, 4, 0, 0, 0, 0],
            &[0xff, 0xff, 1, 3, 1, 1, 1],
        ] {
            assert_eq!(pads_of(damaged), None, "{damaged:x?}");
        }
    }
}

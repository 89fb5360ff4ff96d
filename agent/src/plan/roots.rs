//! The roots of a program: from where a variable is to the pieces that a passage copies.

use crate::capture::program::{Address, Piece, Place, Register};
use crate::symbols::place::{self, Part, Spot};

/// An address of the program; addresses of the file are moved by `bias`.
pub(super) fn address(spot: &Spot, bias: u64) -> Address {
    let offset = if spot.base.is_some() { spot.offset } else { spot.offset.wrapping_add_unsigned(bias) };
    Address { base: spot.base.map(Register), offset, derefs: spot.derefs.clone() }
}

/// The pieces of some parts; `None` where one is nowhere or too large for a piece.
pub(super) fn pieces(parts: &[Part], bias: u64) -> Option<Vec<Piece>> {
    let piece = |part: &Part| {
        let place = match &part.place {
            place::Place::Register(register) => Place::Register(Register(*register)),
            place::Place::Memory(spot) => Place::Memory(address(spot, bias)),
            place::Place::Constant(bytes) => Place::Constant(bytes.clone()),
            place::Place::Nothing => return None,
        };
        Some(Piece { bytes: u32::try_from(part.bytes).ok()?, place })
    };
    parts.iter().map(piece).collect()
}

/// The parts that make up `bytes` bytes at `offset` of a value; `None` where they are not there as parts of their own
/// (they begin inside a register).
pub(super) fn range(parts: &[Part], offset: u64, bytes: u64) -> Option<Vec<Part>> {
    let end = offset.checked_add(bytes)?;
    let mut found = Vec::new();
    let mut at = 0u64;
    for part in parts {
        let next = at.checked_add(part.bytes)?;
        let (from, to) = (offset.max(at), end.min(next));
        if from < to {
            let skipped = from - at;
            let place = match &part.place {
                place::Place::Register(_) if skipped > 0 => return None,
                place::Place::Register(register) => place::Place::Register(*register),
                place::Place::Memory(spot) => place::Place::Memory(spot.clone().plus(i64::try_from(skipped).ok()?)),
                place::Place::Constant(bytes) => {
                    let bytes = bytes.get(usize::try_from(skipped).ok()?..usize::try_from(to - at).ok()?)?;
                    place::Place::Constant(bytes.to_vec())
                }
                place::Place::Nothing => return None,
            };
            found.push(Part { bytes: to - from, place });
        }
        at = next;
    }
    (end <= at).then_some(found)
}

/// The parts of a value with zeroes in place of its secrets; `None` where a secret shares a register with other bytes.
pub(super) fn without(parts: &[Part], secrets: &[(u64, u64)]) -> Option<Vec<Part>> {
    let total: u64 = parts.iter().map(|part| part.bytes).sum();
    let mut found = Vec::new();
    let mut at = 0;
    for &(start, end) in secrets {
        let (start, end) = (start.clamp(at, total), end.clamp(at, total));
        found.extend(range(parts, at, start - at)?);
        let bytes = end - start;
        if bytes > 0 {
            let zeroes = vec![0; usize::try_from(bytes).ok()?];
            found.push(Part { bytes, place: place::Place::Constant(zeroes) });
        }
        at = end;
    }
    found.extend(range(parts, at, total - at)?);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(offset: i64, bytes: u64) -> Part {
        Part { bytes, place: place::Place::Memory(Spot { base: Some(7), offset, derefs: Vec::new() }) }
    }

    fn register(number: u16) -> Part {
        Part { bytes: 8, place: place::Place::Register(number) }
    }

    #[test]
    fn a_range_of_parts_is_cut_where_it_can_be() {
        let parts = [register(0), memory(16, 24)];
        assert_eq!(range(&parts, 0, 8), Some(vec![register(0)]));
        assert_eq!(range(&parts, 16, 8), Some(vec![memory(24, 8)]));
        assert_eq!(range(&parts, 4, 4), None);
        assert_eq!(range(&parts, 24, 16), None);
        assert_eq!(range(&parts, u64::MAX, 16), None);
    }

    #[test]
    fn secrets_become_zeroes_and_are_not_read() {
        let zeroes = Part { bytes: 16, place: place::Place::Constant(vec![0; 16]) };
        assert_eq!(without(&[memory(0, 48)], &[(24, 40)]), Some(vec![memory(0, 24), zeroes.clone(), memory(40, 8)]));
        assert_eq!(without(&[register(0), memory(0, 16)], &[(8, 24)]), Some(vec![register(0), zeroes]));
        // A secret in the upper half of a register cannot be left out of it: its lower half can be read alone.
        assert_eq!(without(&[register(0), register(1)], &[(0, 4)]), None);
    }
}

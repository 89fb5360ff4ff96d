//! Call frames: where a function's frame is at an address, by call frame information (DWARF 5, section 6.4).
//!
//! Go writes `.debug_frame` only; C compilers write `.eh_frame`. Both are lists without an index that can be relied on,
//! so one is made when the first question comes.

use super::debug_info::{Bytes, Sections};
use super::place::Spot;
use gimli::{BaseAddresses, CieOrFde, DebugFrame, EhFrame, UnwindSection};

/// Entries of both sections together, at most: four times what the largest executables have.
const ENTRIES_MAX: usize = 4 << 20;

/// Which section an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    DebugFrame,
    EhFrame,
}

/// The entries of both sections by the code they describe.
#[derive(Debug, Default)]
pub(super) struct FrameIndex {
    /// Start, end, section, offset in it; by start.
    entries: Vec<(u64, u64, Section, usize)>,
}

impl FrameIndex {
    /// Reads the headers of all entries. A damaged section counts as far as it can be read: what is missing then is
    /// said to be unknown where it is asked for.
    pub(super) fn build(
        debug_frame: &DebugFrame<Bytes<'_>>,
        eh_frame: &EhFrame<Bytes<'_>>,
        bases: &BaseAddresses,
    ) -> FrameIndex {
        let mut index = FrameIndex::default();
        index.add(debug_frame, bases, Section::DebugFrame);
        index.add(eh_frame, bases, Section::EhFrame);
        index.entries.sort_unstable();
        index
    }

    /// The entries that describe the code at `pc`: section, and offset in it.
    pub(super) fn at(&self, pc: u64) -> impl Iterator<Item = (Section, usize)> {
        /// The two sections may each have an entry for the same code; other overlaps are damage.
        const OVERLAP_MAX: usize = 8;
        let after = self.entries.partition_point(|&(start, ..)| start <= pc);
        let around = self.entries[..after].iter().rev().take(OVERLAP_MAX).filter(move |&&(_, end, ..)| pc < end);
        around.map(|&(_, _, section, offset)| (section, offset))
    }

    fn add<'a, S: UnwindSection<Bytes<'a>>>(&mut self, section: &S, bases: &BaseAddresses, kind: Section) {
        let mut entries = section.entries(bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(S::cie_from_offset) else { continue };
            let (start, end) = (fde.initial_address(), fde.end_address());
            if start != 0 && start < end && self.entries.len() < ENTRIES_MAX {
                self.entries.push((start, end, kind, fde.offset()));
            }
        }
    }
}

/// The canonical frame address at `pc`: the return address is in the word below it. `None` where it is not described,
/// or not as an offset from a register.
pub(super) fn canonical(sections: &Sections, pc: u64) -> Option<Spot> {
    let bases = sections.bases();
    sections.frame_index().at(pc).find_map(|(section, offset)| match section {
        Section::DebugFrame => rule(&sections.debug_frame(), &bases, offset, pc),
        Section::EhFrame => rule(&sections.eh_frame(), &bases, offset, pc),
    })
}

fn rule<'a, S: UnwindSection<Bytes<'a>>>(section: &S, bases: &BaseAddresses, offset: usize, pc: u64) -> Option<Spot> {
    let fde = section.fde_from_offset(bases, S::Offset::from(offset), S::cie_from_offset).ok()?;
    let mut context = gimli::UnwindContext::new();
    let row = fde.unwind_info_for_address(section, bases, &mut context, pc).ok()?;
    match row.cfa() {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            Some(Spot { base: Some(register.0), offset: *offset, derefs: Vec::new() })
        }
        gimli::CfaRule::Expression(_) => None,
    }
}

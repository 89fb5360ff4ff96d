//! Call frames: where a function's frame is at an address, by call frame information (DWARF 5, section 6.4).
//!
//! Go writes `.debug_frame` only; C compilers write `.eh_frame`. Both are lists without an index that can be relied on,
//! so one is made when the first question comes, and kept on disk: it is searched in place there.

use super::cache;
use super::debug_info::{Bytes, Sections};
use super::place::Spot;
use crate::target::{Content, Table, bytes_of};
use gimli::{BaseAddresses, CieOrFde, DebugFrame, EhFrame, UnwindSection};

/// Entries of both sections together, at most: four times what the largest executables have.
const ENTRIES_MAX: usize = 4 << 20;
/// Name of the piece in the cache; the number grows when its content means something else.
const PIECE: &str = "frames-1";
/// In a row's last word: the entry is in `.eh_frame`. Below it is its offset.
const IN_EH_FRAME: u64 = 1 << 63;

/// Which section an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    DebugFrame,
    EhFrame,
}

/// The entries of both sections by the code they describe.
#[derive(Debug, Default)]
pub(super) struct FrameIndex {
    /// Start, end, section and offset in it; by start.
    entries: Table<3>,
}

impl FrameIndex {
    /// Reads the headers of all entries. A damaged section counts as far as it can be read: what is missing then is
    /// said to be unknown where it is asked for.
    pub(super) fn build(
        debug_frame: &DebugFrame<Bytes<'_>>,
        eh_frame: &EhFrame<Bytes<'_>>,
        bases: &BaseAddresses,
    ) -> FrameIndex {
        let made = Content::Held(read(debug_frame, eh_frame, bases));
        FrameIndex { entries: Table::of(made).unwrap_or_default() }
    }

    /// The same, from the cache if it is there, and for the next agent if it is not.
    pub(super) fn kept(
        debug_frame: &DebugFrame<Bytes<'_>>,
        eh_frame: &EhFrame<Bytes<'_>>,
        bases: &BaseAddresses,
        kept: &cache::Entry,
    ) -> FrameIndex {
        let content = kept.piece(PIECE, || read(debug_frame, eh_frame, bases));
        match Table::of(content) {
            Some(entries) => FrameIndex { entries },
            None => FrameIndex::build(debug_frame, eh_frame, bases),
        }
    }

    /// The entries that describe the code at `pc`: section, and offset in it.
    pub(super) fn at(&self, pc: u64) -> impl Iterator<Item = (Section, usize)> {
        /// The two sections may each have an entry for the same code; other overlaps are damage.
        const OVERLAP_MAX: usize = 8;
        let after = self.entries.partition_point(|[start, ..]| start <= pc);
        let around = self.entries.rows(after.saturating_sub(OVERLAP_MAX)..after).rev();
        around.filter(move |&[_, end, _]| pc < end).map(|[_, _, place]| match place & IN_EH_FRAME {
            0 => (Section::DebugFrame, place as usize),
            _ => (Section::EhFrame, (place & !IN_EH_FRAME) as usize),
        })
    }
}

/// The rows of all entries.
fn read(debug_frame: &DebugFrame<Bytes<'_>>, eh_frame: &EhFrame<Bytes<'_>>, bases: &BaseAddresses) -> Vec<u8> {
    let mut rows = Vec::new();
    add(&mut rows, debug_frame, bases, 0);
    add(&mut rows, eh_frame, bases, IN_EH_FRAME);
    rows.sort_unstable();
    bytes_of(rows.into_iter().flatten())
}

fn add<'a, S: UnwindSection<Bytes<'a>>>(rows: &mut Vec<[u64; 3]>, section: &S, bases: &BaseAddresses, kind: u64) {
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(S::cie_from_offset) else { continue };
        let (start, end) = (fde.initial_address(), fde.end_address());
        if start != 0 && start < end && rows.len() < ENTRIES_MAX {
            rows.push([start, end, kind | fde.offset() as u64]);
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

//! Unwind tables: how the caller's registers are found at an address of one file, by its call frame information
//! (DWARF 5, section 6.4; `.eh_frame` as the Linux Standard Base, chapter 10, describes it).
//!
//! Compilers write `.eh_frame` for every function of C, C++ and Rust, also where a build is optimised and stripped, so
//! this needs no debug information. A [`Row`] owns what it says: it may be kept and used again for the same address.
//!
//! Invariants: a malformed table gives no row, never a panic; a row is bounded by [`EXPRESSION_BYTES_MAX`] an entry.

use super::super::SymbolsError;
use super::super::call_frame::{FrameIndex, Section};
use super::super::debug_info::Bytes;
use super::super::image::Image;
use gimli::{BaseAddresses, CfaRule, DebugFrame, EhFrame, LittleEndian, RegisterRule, UnwindSection};

/// Bytes of one expression: real ones have a dozen.
const EXPRESSION_BYTES_MAX: usize = 256;
/// General-purpose registers by DWARF number, and the return address as the last.
pub(super) const REGISTERS: usize = 17;

/// How the caller's frame is found at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(super) frame: Frame,
    /// By DWARF number; `None` where nothing is said: see [`super::is_kept`].
    pub(super) rules: [Option<Rule>; REGISTERS],
    /// Which of them is the return address.
    pub(super) return_address: usize,
    /// The kernel called this function with a signal: its caller was interrupted at the address, not behind a call.
    pub(super) is_signal: bool,
}

/// Where the frame is (the canonical frame address).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// At an offset from a register.
    At { register: usize, offset: i64 },
    /// Where an expression says.
    Expression(Vec<u8>),
}

/// Where a register of the caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nowhere. For the return address: there is no caller.
    Nowhere,
    /// Where it is now.
    Same,
    /// In memory at this offset from the frame.
    Saved(i64),
    /// It is the frame's address plus this.
    Frame(i64),
    /// In another register.
    Register(usize),
    /// In memory where an expression says.
    At(Vec<u8>),
    /// It is what an expression says.
    Is(Vec<u8>),
}

/// The tables of one file.
#[derive(Debug)]
pub(crate) struct UnwindTables {
    debug_frame: Vec<u8>,
    eh_frame: Vec<u8>,
    bases: BaseAddresses,
    index: FrameIndex,
}

impl UnwindTables {
    /// Reads the sections and the headers of all their entries.
    pub(in super::super) fn load(image: &Image) -> Result<UnwindTables, SymbolsError> {
        let at = |name| image.section_range(name).map_or(0, |range| range.start);
        let mut tables = UnwindTables {
            debug_frame: image.section(".debug_frame")?,
            eh_frame: image.section(".eh_frame")?,
            bases: BaseAddresses::default().set_eh_frame(at(".eh_frame")).set_text(at(".text")),
            index: FrameIndex::default(),
        };
        tables.index = FrameIndex::build(&tables.debug_frame(), &tables.eh_frame(), &tables.bases);
        Ok(tables)
    }

    fn debug_frame(&self) -> DebugFrame<Bytes<'_>> {
        let mut section = DebugFrame::new(&self.debug_frame, LittleEndian);
        section.set_address_size(8);
        section
    }

    fn eh_frame(&self) -> EhFrame<Bytes<'_>> {
        let mut section = EhFrame::new(&self.eh_frame, LittleEndian);
        section.set_address_size(8);
        section
    }

    /// The row for an address of the file; `None` where the tables say nothing.
    pub(crate) fn row(&self, pc: u64) -> Option<Row> {
        self.index.at(pc).find_map(|(section, offset)| match section {
            Section::DebugFrame => row(&self.debug_frame(), &self.bases, offset, pc),
            Section::EhFrame => row(&self.eh_frame(), &self.bases, offset, pc),
        })
    }
}

fn row<'a, S: UnwindSection<Bytes<'a>>>(section: &S, bases: &BaseAddresses, offset: usize, pc: u64) -> Option<Row> {
    let fde = section.fde_from_offset(bases, S::Offset::from(offset), S::cie_from_offset).ok()?;
    let mut context = gimli::UnwindContext::new();
    let row = fde.unwind_info_for_address(section, bases, &mut context, pc).ok()?;
    let expression = |expression: &gimli::UnwindExpression<usize>| {
        let bytes = expression.get(section).ok()?.0;
        (bytes.len() <= EXPRESSION_BYTES_MAX).then(|| bytes.slice().to_vec())
    };
    let frame = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            Frame::At { register: usize::from(register.0), offset: *offset }
        }
        CfaRule::Expression(it) => Frame::Expression(expression(it)?),
    };
    let mut rules: [Option<Rule>; REGISTERS] = [const { None }; REGISTERS];
    for (register, rule) in row.registers() {
        let Some(slot) = rules.get_mut(usize::from(register.0)) else { continue };
        *slot = Some(match rule {
            RegisterRule::Undefined | RegisterRule::Architectural | RegisterRule::Constant(_) => Rule::Nowhere,
            RegisterRule::SameValue => Rule::Same,
            RegisterRule::Offset(offset) => Rule::Saved(*offset),
            RegisterRule::ValOffset(offset) => Rule::Frame(*offset),
            RegisterRule::Register(other) => Rule::Register(usize::from(other.0)),
            RegisterRule::Expression(it) => Rule::At(expression(it)?),
            RegisterRule::ValExpression(it) => Rule::Is(expression(it)?),
        });
    }
    let return_address = usize::from(fde.cie().return_address_register().0);
    (return_address < REGISTERS).then(|| Row { frame, rules, return_address, is_signal: fde.is_signal_trampoline() })
}

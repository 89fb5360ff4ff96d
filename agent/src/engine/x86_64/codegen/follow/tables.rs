//! Tables: what a program follows, as the loop beside this reads it.
//!
//! Three of them: the variables, as work items; the steps of all walks; the cases of all switches. They lie behind the code,
//! where the process can read and not write.

use super::super::BodyContext;
use crate::capture::program::{Count, RootRead};
use crate::capture::walk::{Action, DEPTH_MAX, SwitchKey, WalkIndex};
use crate::engine::record::{ITEM_BYTES, ITEM_WALK};

/// No walk.
pub(super) const NONE: u32 = u32::MAX;
/// The item behind the last variable.
pub(super) const VARIABLES_END: u32 = u32::MAX - 1;
/// Bytes of a step in the table: a power of two, so that any offset leads to one. The table ends with [`OP_END`].
pub(super) const STEP_BYTES: usize = 32;
/// u8: what to do.
pub(super) const STEP_OP: usize = 0;
/// u8: how a run is counted; bytes of a switch's key; what a pointer uses up of the depth.
pub(super) const STEP_HOW: usize = 1;
/// u32: offset in the value.
pub(super) const STEP_AT: usize = 4;
/// u32: offset in the table of what comes next, or [`NONE`].
pub(super) const STEP_TO: usize = 8;
/// u32: where a run's number is; values inside; cases of a switch.
pub(super) const STEP_COUNT: usize = 12;
/// u64: bytes, or bytes of an element; where the cases of a switch are.
pub(super) const STEP_BYTES_AT: usize = 16;
/// u64: most bytes of a string, elements of a slice or run; offset of a key behind an address.
pub(super) const STEP_MOST: usize = 24;

pub(super) const OP_END: u8 = 0;
pub(super) const OP_POINTER: u8 = 1;
pub(super) const OP_TEXT: u8 = 2;
pub(super) const OP_SLICE: u8 = 3;
pub(super) const OP_RUN: u8 = 4;
pub(super) const OP_INSIDE: u8 = 5;
/// Two steps long: what comes otherwise, and the cases, are in the second.
pub(super) const OP_SWITCH: u8 = 6;
pub(super) const OP_SWITCH_CASES: u8 = 7;

pub(super) const HOW_WORD: u8 = 0;
pub(super) const HOW_MASK: u8 = 1;
pub(super) const HOW_POWER: u8 = 2;
pub(super) const HOW_END: u8 = 3;
pub(super) const HOW_BELOW: u8 = 4;
pub(super) const HOW_BEHIND: u8 = 5;
/// The key of a switch is behind an address.
pub(super) const HOW_THROUGH: u8 = 0xff;

// The dispatch relies on the order of both.
const _: () = assert!(OP_POINTER < OP_TEXT && OP_TEXT < OP_SLICE && OP_SLICE < OP_RUN && OP_RUN < OP_INSIDE);
const _: () = assert!(HOW_WORD < HOW_MASK && HOW_MASK < HOW_POWER && HOW_POWER < HOW_END && HOW_END < HOW_BELOW);
const _: () = assert!(HOW_BELOW < HOW_BEHIND);

/// Bytes of a case: key u64, walk u32, nothing u32.
pub(super) const CASE_SHIFT: u32 = 4;

/// The tables of a program.
pub(super) struct Tables {
    pub(super) variables: Vec<u8>,
    pub(super) steps: Vec<u8>,
    pub(super) cases: Vec<u8>,
}

#[derive(Default)]
struct StepEntry {
    op: u8,
    how: u8,
    at: u32,
    to: u32,
    count: u32,
    bytes: u64,
    most: u64,
}

impl StepEntry {
    fn write(&self, into: &mut Vec<u8>) {
        into.extend([self.op, self.how, 0, 0]);
        into.extend(self.at.to_le_bytes());
        into.extend(self.to.to_le_bytes());
        into.extend(self.count.to_le_bytes());
        into.extend(self.bytes.to_le_bytes());
        into.extend(self.most.to_le_bytes());
    }
}

impl Tables {
    pub(super) fn of(context: &BodyContext<'_>) -> Tables {
        let walks = &context.record.walks;
        // Where each walk begins: a switch takes two steps, and each walk has an end.
        let mut starts = Vec::new();
        let mut next = 0u32;
        for steps in walks.iter() {
            starts.push(next * STEP_BYTES as u32);
            let switches = steps.iter().filter(|step| matches!(step.action, Action::Switch { .. })).count();
            next += (steps.len() + switches + 1) as u32;
        }
        let start = |to: Option<WalkIndex>| to.map_or(NONE, |walk| starts[walk.0 as usize]);
        let (mut table, mut cases_table) = (Vec::new(), Vec::new());
        for steps in walks.iter() {
            for step in steps {
                let at = step.at;
                match &step.action {
                    Action::Pointer { bytes, to, cost } => StepEntry {
                        op: OP_POINTER,
                        how: *cost,
                        at,
                        to: start(*to),
                        bytes: *bytes,
                        ..StepEntry::default()
                    },
                    Action::Text { most } => {
                        StepEntry { op: OP_TEXT, at, to: NONE, most: u64::from(*most), ..StepEntry::default() }
                    }
                    Action::Slice { element_bytes, most, to } => StepEntry {
                        op: OP_SLICE,
                        at,
                        to: start(*to),
                        bytes: *element_bytes,
                        most: u64::from(*most),
                        ..StepEntry::default()
                    },
                    Action::Run { count_at, count, element_bytes, most, to } => StepEntry {
                        op: OP_RUN,
                        how: match count {
                            Count::Word => HOW_WORD,
                            Count::WordBehindCounts => HOW_BEHIND,
                            Count::Mask => HOW_MASK,
                            Count::Power => HOW_POWER,
                            Count::End => HOW_END,
                            Count::MaskBelow => HOW_BELOW,
                        },
                        at,
                        to: start(*to),
                        count: *count_at,
                        bytes: *element_bytes,
                        most: u64::from(*most),
                    },
                    Action::Inside { count, element_bytes, to } => StepEntry {
                        op: OP_INSIDE,
                        at,
                        to: start(Some(*to)),
                        count: *count,
                        bytes: *element_bytes,
                        ..StepEntry::default()
                    },
                    Action::Switch { key, cases, otherwise } => {
                        let (how, bytes, most) = match *key {
                            SwitchKey::Word { bytes } => (bytes, 0, 0),
                            SwitchKey::Through { offset, bytes } => (HOW_THROUGH, bytes, offset),
                        };
                        StepEntry { op: OP_SWITCH, how, at, to: NONE, count: 0, bytes, most }.write(&mut table);
                        let cases_at = cases_table.len() as u64;
                        for &(key, to) in cases {
                            cases_table.extend(key.to_le_bytes());
                            cases_table.extend(u64::from(start(to)).to_le_bytes());
                        }
                        StepEntry {
                            op: OP_SWITCH_CASES,
                            to: start(*otherwise),
                            count: cases.len() as u32,
                            bytes: cases_at,
                            ..StepEntry::default()
                        }
                    }
                }
                .write(&mut table);
            }
            StepEntry { op: OP_END, ..StepEntry::default() }.write(&mut table);
        }
        // It is never empty: its label must lead somewhere.
        cases_table.extend([0; 1 << CASE_SHIFT]);
        let mut variables = Vec::new();
        for (root, slot) in context.program.roots.iter().zip(&context.record.roots) {
            let (RootRead::Read { follow, depth, .. }, Some(slot)) = (root, slot) else { continue };
            let Some(walk) = walks.at(*follow) else { continue };
            variables.extend(slot.failed_bit.map_or(0, |bit| u64::from(bit) + 1).to_le_bytes());
            variables.extend(0u64.to_le_bytes());
            for word in [0, slot.at, slot.bytes, 0, start(Some(walk))] {
                variables.extend(word.to_le_bytes());
            }
            variables.extend(1u16.to_le_bytes());
            // It fits 16 bits.
            variables.extend(((*depth).min(DEPTH_MAX) as u16).to_le_bytes());
        }
        let mut end = [0; ITEM_BYTES];
        end[ITEM_WALK..ITEM_WALK + 4].copy_from_slice(&VARIABLES_END.to_le_bytes());
        variables.extend(end);
        Tables { variables, steps: table, cases: cases_table }
    }
}

//! The sites of one process: which patch each takes, so that no two patches overlap. Pure.
//!
//! A site's extent is from its first byte to the end of what its patch replaces or its pad displaces, whichever is more.
//! The earlier armed stays as it is, unless a later one lies inside of it: then it becomes a trap, which displaces its own
//! instruction only. Two traps never overlap.
//!
//! Where nothing may trap ([`Form::quiet`]) a site that takes no jump over whole instructions takes one that replaces its
//! first instruction only: the bytes behind that, which other code leads to, are the rest of the jump's displacement as
//! they are, and the pad is where that leads (as e9patch does: Duck, Gao, Roychoudhury, PLDI 2020).

use crate::engine::x86_64::analysis::{JumpPatch, Obstacle, Rel32, SiteChoice};
use crate::engine::x86_64::pads::PatchKind;
use riptrace_protocol::fleet::Mechanism;
use riptrace_protocol::ids::Avma;
use std::collections::BTreeMap;

/// Bytes of a jump.
pub(super) const JUMP_BYTES: usize = 5;

/// What is written at a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// A jump.
    Jump {
        /// As the analysis says.
        patch: JumpPatch,
        /// Whether its displacement must make those trap who arrive inside.
        must_pun: bool,
    },
    /// A jump whose last bytes are the program's own.
    Overlaid {
        /// Length of the instruction, 1 to 4: so many bytes change.
        bytes: usize,
        /// What the displacement must be.
        rel32: Rel32,
    },
    /// A trap.
    Trap {
        /// Length of the instruction.
        bytes: usize,
    },
}

impl Form {
    /// As the analysis chose; `None` where it refused.
    pub(super) fn of(choice: &SiteChoice) -> Option<Form> {
        match choice {
            SiteChoice::Jump { patch, .. } => Some(Form::Jump { patch: patch.clone(), must_pun: false }),
            SiteChoice::PunnedJump { patch, .. } => Some(Form::Jump { patch: patch.clone(), must_pun: true }),
            SiteChoice::Trap { displaced, .. } => Some(Form::Trap { bytes: usize::from(displaced.bytes) }),
            SiteChoice::Refused { .. } => None,
        }
    }

    /// As the analysis chose, where neither a site nor what is inside of its jump may trap; `code` is the program's, from
    /// the site on. `None` where only a trap will do.
    pub(super) fn quiet(choice: &SiteChoice, code: &[u8]) -> Option<Form> {
        match choice {
            SiteChoice::Jump { .. } => Form::of(choice),
            SiteChoice::PunnedJump { .. } | SiteChoice::Trap { .. } => Form::overlaid(choice, code),
            SiteChoice::Refused { .. } => None,
        }
    }

    /// The jump over the site's first instruction and nothing else.
    pub(super) fn overlaid(choice: &SiteChoice, code: &[u8]) -> Option<Form> {
        let first = match choice {
            // Somebody arrives in the middle of what would change.
            SiteChoice::Trap { why: Obstacle::MidInstruction { .. }, .. } | SiteChoice::Refused { .. } => return None,
            SiteChoice::Trap { displaced, .. } => displaced,
            SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } => patch.displaced.first()?,
        };
        let bytes = usize::from(first.bytes);
        let own = code.get(bytes..JUMP_BYTES)?;
        let mut rel32 = Rel32::default();
        for (n, byte) in own.iter().enumerate() {
            let shift = 8 * (bytes - 1 + n);
            rel32.mask |= 0xff << shift;
            rel32.value |= u32::from(*byte) << shift;
        }
        (bytes < JUMP_BYTES).then_some(Form::Overlaid { bytes, rel32 })
    }

    /// The trap that the same site can take.
    pub(super) fn as_trap(&self) -> Form {
        match self {
            Form::Jump { patch, .. } => {
                Form::Trap { bytes: patch.displaced.first().map_or(1, |first| usize::from(first.bytes)) }
            }
            Form::Overlaid { bytes, .. } | Form::Trap { bytes } => Form::Trap { bytes: *bytes },
        }
    }

    /// Bytes of whole instructions that the pad runs.
    pub(super) fn displaced(&self) -> usize {
        match self {
            Form::Jump { patch, .. } => patch.displaced.last().map_or(0, |last| usize::from(last.offset + last.bytes)),
            Form::Overlaid { bytes, .. } | Form::Trap { bytes } => *bytes,
        }
    }

    /// Bytes from the site on that belong to it.
    pub(super) fn extent(&self) -> usize {
        match self {
            Form::Jump { patch, .. } => usize::from(patch.patch_bytes).max(JUMP_BYTES),
            Form::Overlaid { .. } => JUMP_BYTES,
            Form::Trap { bytes } => *bytes,
        }
    }

    /// Where instructions begin within a jump, other than at the site.
    pub(super) fn boundaries(&self) -> Vec<usize> {
        match self {
            Form::Jump { patch, .. } => {
                let offsets = patch.displaced.iter().map(|displaced| usize::from(displaced.offset));
                offsets.filter(|offset| (1..JUMP_BYTES).contains(offset)).collect()
            }
            Form::Overlaid { .. } | Form::Trap { .. } => Vec::new(),
        }
    }

    /// The kinds of patch that do, the best first.
    pub(super) fn kinds(&self) -> Vec<PatchKind> {
        match self {
            Form::Trap { .. } => vec![PatchKind::Trap],
            Form::Overlaid { rel32, .. } => vec![PatchKind::Punned { mask: rel32.mask, value: rel32.value }],
            Form::Jump { patch, .. } if self.boundaries().is_empty() => {
                debug_assert_eq!(patch.rel32.mask, 0);
                vec![PatchKind::Jump]
            }
            // Even where nobody arrives inside, traps at the boundaries allow the jump to be written while threads run,
            // and rescue goroutines that were preempted there.
            Form::Jump { patch, must_pun } => {
                let punned = PatchKind::Punned { mask: patch.rel32.mask, value: patch.rel32.value };
                if *must_pun { vec![punned] } else { vec![punned, PatchKind::Jump] }
            }
        }
    }

    /// How it is probed.
    pub(super) fn mechanism(&self) -> Mechanism {
        match self {
            Form::Jump { .. } | Form::Overlaid { .. } => Mechanism::Jump,
            Form::Trap { .. } => Mechanism::Trap,
        }
    }
}

/// One of the sites of a new probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Where.
    pub(super) at: Avma,
    /// What it takes.
    pub(super) form: Form,
    /// Why it is not the cheapest.
    pub(super) why: Option<String>,
}

/// What arming some sites means for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// The sites asked for, each once, by address.
    pub(super) sites: Vec<Placed>,
    /// Sites that are armed and have to become traps first.
    pub(super) to_traps: Vec<Avma>,
}

/// A site that cannot be placed beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tracepoint at {:#x} lies within the instruction of the one at {:#x}: one of the two is from other debug \
     information", .inner.0, .outer.0
)]
pub(super) struct Overlap {
    /// The one inside.
    pub(super) inner: Avma,
    /// Its holder.
    pub(super) outer: Avma,
}

/// Places sites beside those that are armed. `wanted` are addresses of instructions, with what the analysis chose and
/// did not refuse.
pub(super) fn place(
    armed: &BTreeMap<Avma, Form>,
    wanted: &[(Avma, Form, Option<String>)],
) -> Result<Placement, Overlap> {
    let mut forms = armed.clone();
    let mut reasons: BTreeMap<Avma, Option<String>> = BTreeMap::new();
    let mut to_traps = Vec::new();
    let neighbour = |at: Avma| Some(Obstacle::Neighbour { at: at.0 }.to_string());
    for (at, form, why) in wanted {
        if forms.contains_key(at) {
            reasons.entry(*at).or_insert_with(|| why.clone());
            continue;
        }
        if let Some((&outer, holder)) = forms.range(..*at).next_back()
            && outer.0 + holder.extent() as u64 > at.0
        {
            let trap = holder.as_trap();
            if outer.0 + trap.extent() as u64 > at.0 {
                return Err(Overlap { inner: *at, outer });
            }
            forms.insert(outer, trap);
            if armed.contains_key(&outer) {
                to_traps.push(outer);
            }
            reasons.entry(outer).and_modify(|reason| *reason = neighbour(*at));
        }
        let within = |form: &Form| {
            let end = Avma(at.0 + form.extent() as u64);
            forms.range(Avma(at.0 + 1)..end).next().map(|(inner, _)| *inner)
        };
        let (form, why) = match within(form) {
            None => (form.clone(), why.clone()),
            Some(inner) => (form.as_trap(), neighbour(inner)),
        };
        if let Some(inner) = within(&form) {
            return Err(Overlap { inner, outer: *at });
        }
        forms.insert(*at, form);
        reasons.insert(*at, why);
    }
    let placed = |(at, why): (Avma, Option<String>)| forms.get(&at).map(|form| Placed { at, form: form.clone(), why });
    Ok(Placement { sites: reasons.into_iter().filter_map(placed).collect(), to_traps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::x86_64::analysis::Displaced;
    use proptest::prelude::*;

    fn jump(lengths: &[u8]) -> Form {
        let mut displaced = Vec::new();
        let mut offset = 0;
        for &bytes in lengths {
            displaced.push(Displaced {
                offset,
                bytes,
                is_rip_relative: false,
                may_fault: false,
                is_call: false,
                ends_block: false,
            });
            offset += bytes;
        }
        let single_instruction = lengths.len() == 1;
        let mask = if single_instruction { 0 } else { 0xff };
        let rel32 = Rel32 { mask, value: mask & 0xcc };
        Form::Jump {
            patch: JumpPatch { patch_bytes: offset.max(5), displaced, single_instruction, rel32 },
            must_pun: false,
        }
    }

    fn wanted(sites: &[(u64, Form)]) -> Vec<(Avma, Form, Option<String>)> {
        sites.iter().map(|(at, form)| (Avma(*at), form.clone(), None)).collect()
    }

    #[test]
    fn neighbours_become_traps_where_they_would_overlap() {
        let armed = BTreeMap::from([(Avma(100), jump(&[2, 2, 3]))]);
        // Inside: the armed one becomes a trap, the new one keeps its jump.
        let placement = place(&armed, &wanted(&[(104, jump(&[3, 4]))])).unwrap();
        assert_eq!(placement.to_traps, [Avma(100)]);
        assert_eq!(placement.sites, [Placed { at: Avma(104), form: jump(&[3, 4]), why: None }]);
        // Before: the new one becomes a trap.
        let placement = place(&armed, &wanted(&[(97, jump(&[3, 2]))])).unwrap();
        assert_eq!((placement.to_traps.len(), &placement.sites[0].form), (0, &Form::Trap { bytes: 3 }));
        assert!(placement.sites[0].why.as_ref().unwrap().contains("0x64"), "{placement:?}");
        // Beside, and the same again.
        let placement =
            place(&armed, &wanted(&[(107, jump(&[5])), (100, jump(&[2, 2, 3])), (107, jump(&[5]))])).unwrap();
        assert_eq!(placement.sites.len(), 2);
        assert!(placement.to_traps.is_empty());
        // Among themselves.
        let placement = place(&BTreeMap::new(), &wanted(&[(10, jump(&[1, 1, 7])), (11, jump(&[1, 7]))])).unwrap();
        assert_eq!(placement.to_traps, []);
        assert_eq!([&placement.sites[0].form, &placement.sites[1].form], [&Form::Trap { bytes: 1 }, &jump(&[1, 7])]);
        assert!(placement.sites[0].why.is_some());
        // Not a boundary.
        assert_eq!(place(&armed, &wanted(&[(101, jump(&[5]))])), Err(Overlap { inner: Avma(101), outer: Avma(100) }));
    }

    #[test]
    fn a_quiet_jump_keeps_the_bytes_behind_the_first_instruction() {
        let Form::Jump { patch, .. } = jump(&[3, 4]) else { unreachable!() };
        let displaced = patch.displaced[0];
        let code = [0x48, 0x89, 0xf8, 0x48, 0x8b, 0x07];
        let trap = |why| SiteChoice::Trap { displaced, why };
        let overlaid = Form::Overlaid { bytes: 3, rel32: Rel32 { mask: 0xffff_0000, value: 0x8b48_0000 } };
        let found = Form::quiet(&trap(Obstacle::LoopHead { at: 1003 }), &code).unwrap();
        assert_eq!((found.extent(), found.displaced(), found.boundaries()), (5, 3, Vec::new()));
        assert_eq!(found, overlaid);
        assert_eq!(found.kinds(), [PatchKind::Punned { mask: 0xffff_0000, value: 0x8b48_0000 }]);
        // A jump over both is as quiet, and anywhere.
        let choice = SiteChoice::Jump { patch, why_stop: Some(Obstacle::Short { bytes: 3 }) };
        assert!(matches!(Form::quiet(&choice, &code), Some(Form::Jump { must_pun: false, .. })));
        assert_eq!(Form::overlaid(&choice, &code), Some(overlaid));
        // In the middle of what changes; and at the end of the section.
        assert_eq!(Form::quiet(&trap(Obstacle::MidInstruction { at: 1001 }), &code), None);
        assert_eq!(Form::quiet(&trap(Obstacle::FunctionEnd), &code[..4]), None);
    }

    proptest! {
        /// Sites in a row of instructions, armed in any order, one by one: no two extents ever overlap.
        #[test]
        fn no_two_patches_overlap(
            lengths in prop::collection::vec(1u8..9, 4..30),
            order in prop::collection::vec(0usize..30, 1..40),
        ) {
            let starts: Vec<u64> = lengths.iter().scan(1000u64, |at, length| {
                let start = *at;
                *at += u64::from(*length);
                Some(start)
            }).collect();
            let mut armed: BTreeMap<Avma, Form> = BTreeMap::new();
            for number in order {
                let number = number % lengths.len();
                let mut covered = Vec::new();
                for &length in &lengths[number..] {
                    covered.push(length);
                    if covered.iter().map(|&length| usize::from(length)).sum::<usize>() >= 5 { break; }
                }
                let placement = place(&armed, &wanted(&[(starts[number], jump(&covered))])).unwrap();
                for at in placement.to_traps {
                    let trap = armed[&at].as_trap();
                    armed.insert(at, trap);
                }
                for site in placement.sites {
                    armed.insert(site.at, site.form);
                }
                let all: Vec<(u64, u64)> = armed.iter().map(|(at, form)| (at.0, at.0 + form.extent() as u64)).collect();
                for pair in all.windows(2) {
                    prop_assert!(pair[0].1 <= pair[1].0, "{pair:?}");
                }
            }
        }
    }
}

//! One run of the analysis on arbitrary bytes, and what must hold of its answers. Both the fuzz target and an ordinary
//! test of the agent include this file; each provides the module `analysis` beside it.

use super::analysis::{Data, Entry, EntryKind, FunctionAnalysis, FunctionFacts, Language, Place, Refusal, SiteChoice};

/// Where the function is.
const AT: u64 = 0x10_0000;
/// Where its data is.
const DATA_AT: u64 = 0x10_0400;

/// Splits the input into facts, data and code, analyses it, and asks about every address.
pub(crate) fn exercise(input: &[u8]) {
    let Some((&[flags, cut, data_bytes, entry_a, entry_b, deferred], rest)) = input.split_first_chunk::<6>() else {
        return;
    };
    let (data, code) = rest.split_at(usize::from(data_bytes).min(rest.len()));
    let data = Data::new(vec![(DATA_AT, data.to_vec())]);
    let kinds = [EntryKind::Pointer, EntryKind::LandingPad, EntryKind::Branch, EntryKind::Guess];
    let mut entries =
        [entry_a, entry_b].map(|at| Entry { address: AT + u64::from(at), kind: kinds[usize::from(at) % kinds.len()] });
    entries.sort_unstable();
    let restartable = AT + u64::from(cut)..AT + u64::from(cut) + 8;
    let text = AT..AT + 0x400;
    let facts = FunctionFacts {
        name: "",
        language: if flags & 1 == 0 { Language::Go } else { Language::Native },
        end: (AT + code.len() as u64).wrapping_sub(u64::from(cut & 7)),
        entries: if flags & 2 == 0 { &entries } else { &[] },
        entries_complete: flags & 4 == 0,
        data: &data,
        text: std::slice::from_ref(&text),
        position_independent: flags & 8 == 0,
        deferreturn: (flags & 16 != 0).then_some(AT + u64::from(deferred)),
        restartable: if flags & 32 == 0 { &[] } else { std::slice::from_ref(&restartable) },
    };
    let Ok(function) = FunctionAnalysis::of(code, AT, &facts) else { return };
    check_sites(&function, facts.end, code.len());
    check_several(&function, entry_a);
}

fn check_sites(function: &FunctionAnalysis, end: u64, bytes: usize) {
    let boundaries: Vec<u64> = function.boundaries().collect();
    let targets: Vec<u64> = function.targets().collect();
    assert!(boundaries.is_sorted() && targets.is_sorted());
    for address in AT..=end {
        let is_boundary = boundaries.binary_search(&address).is_ok();
        let choice = function.site(address);
        match &choice {
            SiteChoice::Refused { why: Refusal::NoBoundary } => assert!(!is_boundary),
            SiteChoice::Refused { .. } => {}
            SiteChoice::Trap { displaced, .. } => {
                assert!(is_boundary);
                assert_eq!(Some(usize::from(displaced.bytes)), function.instruction_bytes(address));
            }
            SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } => {
                assert!(is_boundary);
                let mut next = 0;
                for displaced in &patch.displaced {
                    let at = address + u64::from(displaced.offset);
                    assert_eq!(displaced.offset, next);
                    assert_eq!(Some(usize::from(displaced.bytes)), function.instruction_bytes(at));
                    next += displaced.bytes;
                    // Each interior boundary within the jump traps.
                    if (1..5).contains(&displaced.offset) {
                        let shift = 8 * (displaced.offset - 1);
                        assert_eq!(patch.rel32.mask >> shift & 0xff, 0xff);
                        let byte = if displaced.offset == 4 { 0x06 } else { 0xcc };
                        assert_eq!(patch.rel32.value >> shift & 0xff, byte);
                    }
                }
                let (last, before) = patch.displaced.split_last().expect("at least the instruction at the site");
                assert!(before.iter().all(|displaced| !displaced.is_call && !displaced.ends_block));
                assert!(last.offset < 5 && patch.patch_bytes >= 5 && patch.patch_bytes >= next);
                assert!(next >= 5 || last.ends_block);
                assert!(address + u64::from(patch.patch_bytes) <= AT + bytes as u64);
                assert_eq!(patch.resume().is_none(), last.ends_block);
                let inner = targets.iter().filter(|target| (address + 1..address + 5).contains(target));
                match &choice {
                    SiteChoice::PunnedJump { slow_entries, .. } => {
                        assert_eq!(inner.copied().collect::<Vec<u64>>(), *slow_entries);
                    }
                    _ => {
                        assert_eq!(inner.count(), 0);
                        assert!(patch.single_instruction || !function.has_unknown_targets() || before.is_empty());
                    }
                }
            }
        }
    }
}

/// Patches of several sites never overlap.
fn check_several(function: &FunctionAnalysis, step: u8) {
    let mut sites: Vec<u64> = function.boundaries().step_by(1 + usize::from(step % 3)).collect();
    if step & 1 != 0 {
        sites.reverse();
    }
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for placement in function.choose_all(&[], &sites) {
        let bytes = match &placement.place {
            Place::Own(SiteChoice::Trap { displaced, .. }) => displaced.bytes,
            Place::Own(choice) => choice.patch().map_or(0, |patch| patch.patch_bytes),
            Place::Inside { of } => {
                assert!(taken.iter().any(|(start, end)| start == of && (*start..*end).contains(&placement.address)));
                0
            }
        };
        let (start, end) = (placement.address, placement.address + u64::from(bytes));
        if bytes > 0 {
            assert!(taken.iter().all(|(from, to)| end <= *from || *to <= start));
            taken.push((start, end));
        }
    }
}

//! Each rule on code written by hand, whole programs, and bytes that are no code at all.

mod overlap;
mod programs;
mod random;
mod rules;
mod tables;

use super::*;
use std::ops::Range;

/// Where functions written by hand are.
const AT: u64 = 0x40_1000;

const RET: u8 = 0xc3;
const NOP: u8 = 0x90;
/// push rax; pop rax
const PUSH: u8 = 0x50;
const POP: u8 = 0x58;
/// mov eax, 7: five bytes
const MOV: [u8; 5] = [0xb8, 7, 0, 0, 0];
/// xor eax, eax
const XOR: [u8; 2] = [0x31, 0xc0];
/// endbr64
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// What a function's binary tells, by default nothing.
struct Told {
    name: &'static str,
    language: Language,
    entries: Vec<Entry>,
    entries_complete: bool,
    data: Data,
    text: Vec<Range<u64>>,
    position_independent: bool,
    deferreturn: Option<u64>,
    restartable: Vec<Range<u64>>,
    padding: usize,
}

impl Default for Told {
    fn default() -> Told {
        Told {
            name: "main.work",
            language: Language::Go,
            entries: Vec::new(),
            entries_complete: true,
            data: Data::default(),
            text: std::iter::once(AT..AT + 0x1000).collect(),
            position_independent: true,
            deferreturn: None,
            restartable: Vec::new(),
            padding: 0,
        }
    }
}

impl Told {
    fn entry(address: u64, kind: EntryKind) -> Told {
        Told { entries: vec![Entry { address, kind }], ..Told::default() }
    }

    #[track_caller]
    fn analyse(&self, code: &[u8]) -> FunctionAnalysis {
        let facts = FunctionFacts {
            name: self.name,
            language: self.language,
            end: AT + (code.len() - self.padding) as u64,
            entries: &self.entries,
            entries_complete: self.entries_complete,
            data: &self.data,
            text: &self.text,
            position_independent: self.position_independent,
            deferreturn: self.deferreturn,
            restartable: &self.restartable,
        };
        FunctionAnalysis::of(code, AT, &facts).unwrap()
    }

    /// What the site at an offset can take.
    #[track_caller]
    fn site(&self, code: &[u8], offset: u64) -> SiteChoice {
        self.analyse(code).site(AT + offset)
    }
}

/// Code, piece by piece.
fn code(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

#[track_caller]
fn patch_of(choice: &SiteChoice) -> &JumpPatch {
    choice.patch().unwrap_or_else(|| panic!("no jump: {choice:?}"))
}

#[track_caller]
fn assert_jump(choice: &SiteChoice, offsets: &[u8]) {
    assert!(matches!(choice, SiteChoice::Jump { .. }), "{choice:?}");
    let found: Vec<u8> = patch_of(choice).displaced.iter().map(|displaced| displaced.offset).collect();
    assert_eq!(found, offsets);
}

#[track_caller]
fn assert_trap(choice: &SiteChoice, want: Obstacle) {
    assert!(matches!(choice, SiteChoice::Trap { why, .. } if *why == want), "{choice:?}, not {want:?}");
}

#[track_caller]
fn assert_refused(choice: &SiteChoice, want: Refusal) {
    assert_eq!(*choice, SiteChoice::Refused { why: want });
}

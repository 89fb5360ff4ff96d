//! All statements of a binary, counted by what they can take. What `riptrace bench probe` prints.

use super::binary::BinaryCode;
use super::choice::{Obstacle, Refusal, SiteChoice};
use crate::symbols::{Build, ResolveError, SymbolsError};
use std::collections::BTreeMap;
use std::path::Path;

/// How many statement addresses can take what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Distinct addresses that were asked for.
    pub statements: usize,
    /// Functions that were decoded for it.
    pub functions: usize,
    /// A jump over one instruction: written without stopping the process.
    pub single: usize,
    /// A jump over several.
    pub several: usize,
    /// A jump whose displacement is constrained.
    pub punned: usize,
    /// A breakpoint.
    pub trap: usize,
    /// Nothing, for what they are. Those of denied functions count as if they were not denied.
    pub refused: usize,
    /// In denied functions, whatever they could take.
    pub denied: usize,
    /// Traps outside of denied functions.
    pub traps_allowed: usize,
    /// Those counted above that are not the cheapest, by why not.
    pub reasons: BTreeMap<&'static str, usize>,
}

impl Summary {
    /// Part of the addresses that need a trap, in percent.
    pub fn trap_percent(&self) -> f64 {
        100.0 * self.trap as f64 / self.statements.max(1) as f64
    }
}

/// Why the statements of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum StatementsError {
    /// The file cannot be used.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// Its debug information cannot.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

/// All distinct addresses of a file that its line tables mark as statements, in order.
///
/// # Errors
/// [`StatementsError`], when the file or its debug information cannot be read.
pub fn statements(path: &Path) -> Result<Vec<u64>, StatementsError> {
    Ok(Build::open(path)?.statements()?.into_iter().map(|address| address.0).collect())
}

/// Classifies addresses, given in order. Each function is decoded once.
pub fn classify(binary: &BinaryCode, statements: &[u64]) -> Summary {
    let mut summary = Summary { statements: statements.len(), ..Summary::default() };
    let mut rest = statements;
    while let Some(&address) = rest.first() {
        let Some(function) = binary.function_at(address) else {
            summary.refused += 1;
            *summary.reasons.entry("refused: in no known function").or_default() += 1;
            rest = &rest[1..];
            continue;
        };
        let count = rest.partition_point(|other| *other < function.range.end);
        let (inside, behind) = rest.split_at(count.max(1));
        rest = behind;
        let Ok(mut analysis) = binary.analyse(&function) else {
            summary.refused += inside.len();
            *summary.reasons.entry("refused: the function cannot be decoded").or_default() += inside.len();
            continue;
        };
        summary.functions += 1;
        let is_denied = analysis.denied.take().is_some();
        for &address in inside {
            summary.add(&analysis.site(address), is_denied);
        }
    }
    summary
}

impl Summary {
    fn add(&mut self, choice: &SiteChoice, is_denied: bool) {
        let count = match choice {
            SiteChoice::Jump { patch, .. } if patch.single_instruction => &mut self.single,
            SiteChoice::Jump { .. } => &mut self.several,
            SiteChoice::PunnedJump { .. } => &mut self.punned,
            SiteChoice::Trap { .. } => &mut self.trap,
            SiteChoice::Refused { .. } => &mut self.refused,
        };
        *count += 1;
        self.denied += usize::from(is_denied);
        self.traps_allowed += usize::from(!is_denied && matches!(choice, SiteChoice::Trap { .. }));
        if let Some(reason) = reason(choice) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

/// The kind of reason, without addresses.
fn reason(choice: &SiteChoice) -> Option<&'static str> {
    Some(match choice {
        SiteChoice::Jump { why_stop: None, .. } => return None,
        SiteChoice::Jump { .. } => "jump: several instructions",
        SiteChoice::PunnedJump { why: Obstacle::UnknownTargets, .. } => "punned: unknown indirect targets",
        SiteChoice::PunnedJump { .. } => "punned: target inside",
        SiteChoice::Trap { why, .. } => match why {
            Obstacle::Short { .. } => "trap: short instruction",
            Obstacle::Target { .. } => "trap: target inside",
            Obstacle::UnknownTargets => "trap: unknown indirect targets",
            Obstacle::LoopHead { .. } => "trap: loop head inside",
            Obstacle::MidInstruction { .. } => "trap: target within an instruction",
            Obstacle::Recovery { .. } => "trap: recover() inside",
            Obstacle::Call { .. } => "trap: call inside",
            Obstacle::BlockEnd { .. } => "trap: path ends inside",
            Obstacle::FunctionEnd => "trap: function ends inside",
            Obstacle::Landing { .. } => "trap: endbr64 inside",
            Obstacle::Fixed { .. } => "trap: instruction that must stay inside",
            Obstacle::Undecodable { .. } => "trap: no instruction inside",
            Obstacle::Restartable { .. } => "trap: restartable sequence inside",
            Obstacle::Neighbour { .. } => "trap: another site inside",
        },
        SiteChoice::Refused { why } => match why {
            Refusal::Outside => "refused: outside of the function",
            Refusal::NoBoundary => "refused: no instruction begins there",
            Refusal::ReadTwice => "refused: part of another instruction",
            Refusal::Undecodable { .. } => "refused: behind bytes that are no instruction",
            Refusal::Denied { .. } => "refused: denied function",
            Refusal::Raises => "refused: raises a signal on purpose",
            Refusal::Fixed => "refused: must stay",
            Refusal::Landing { .. } => "refused: endbr64",
            Refusal::Restartable => "refused: restartable sequence",
        },
    })
}

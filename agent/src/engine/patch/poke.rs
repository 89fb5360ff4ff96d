//! Patches under running threads: in three phases, with all processors synchronised in between
//! ([`crate::engine::x86_64::text`] says what is in a phase).

use super::memory::Text;
use super::{How, Patch, PatchError, Synchronise};
use crate::engine::x86_64::text::{self, NoTrap, Phase};
use riptrace_protocol::ids::Avma;

/// The phases of patches, each on its own.
pub(super) fn plan(patches: &[&Patch]) -> Result<Vec<[Phase; 3]>, PatchError> {
    let plan = |patch: &&Patch| {
        let unsound = |why| PatchError::Unsound { at: patch.at, why };
        if patch.how == How::Byte && patch.old[1..] != patch.new[1..] {
            return Err(unsound("more than the first byte differs"));
        }
        text::phases(&patch.old, &patch.new, &patch.boundaries)
            .map_err(|NoTrap(_)| unsound("a boundary inside is a trap neither before nor after"))
    };
    patches.iter().map(plan).collect()
}

/// Applies patches while the threads run. After an error the sites are as they were, but for those that the error names.
pub(super) fn apply(
    text: &Text,
    patches: &[&Patch],
    plans: &[[Phase; 3]],
    synchronise: &mut dyn Synchronise,
) -> Result<(), PatchError> {
    let of_phase = |phase: usize| -> Vec<(Avma, &[u8])> {
        let writes = patches.iter().zip(plans).flat_map(|(patch, plan)| plan[phase].iter().map(move |w| (patch, w)));
        writes.map(|(patch, write)| (Avma(patch.at.0 + write.offset as u64), &*write.bytes)).collect()
    };
    // A single byte that is or was a trap is the same to every processor, old or new.
    let is_bytewise = plans.iter().flatten().flatten().all(|write| write.offset == 0);
    let mut is_tail_touched = false;
    let mut run = || -> Result<(), PatchError> {
        text.write(&of_phase(0))?;
        if !is_bytewise {
            synchronise.synchronise().map_err(failed)?;
            is_tail_touched = true;
            text.write(&of_phase(1))?;
            super::checkpoint();
            synchronise.synchronise().map_err(failed)?;
        }
        text.write(&of_phase(2))
    };
    run().map_err(|error| taken_back(text, patches, plans, is_tail_touched, error))
}

fn failed(source: std::io::Error) -> PatchError {
    PatchError::Synchronise { source, left: Vec::new() }
}

/// Takes back the first phase, where nothing else was touched: each of its bytes goes back by itself. Else the traps stay.
fn taken_back(
    text: &Text,
    patches: &[&Patch],
    plans: &[[Phase; 3]],
    is_tail_touched: bool,
    error: PatchError,
) -> PatchError {
    if matches!(error, PatchError::Gone) {
        return error;
    }
    let mut left = Vec::new();
    for (patch, plan) in patches.iter().zip(plans) {
        let is_bytewise = plan.iter().flatten().all(|write| write.offset == 0);
        let is_back = (is_bytewise || !is_tail_touched)
            && plan[0].iter().all(|write| {
                let old = &patch.old[write.offset..write.offset + write.bytes.len()];
                text.write(&[(Avma(patch.at.0 + write.offset as u64), old)]).is_ok()
            });
        if !is_back {
            left.push(patch.at);
        }
    }
    match error {
        PatchError::Synchronise { source, .. } => PatchError::Synchronise { source, left },
        PatchError::Write { at, source, .. } => PatchError::Write { at, source, left },
        other => other,
    }
}

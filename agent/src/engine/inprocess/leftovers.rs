//! Processes that this agent does not trace and that have patches: children of one that it traces, and those of an agent
//! that was killed. Their patches do nothing but cost; here they are taken out.
//!
//! Memory, code and handlers stay: a thread may be in them, and an agent that attaches later takes them over.

use super::removal::{self, Written};
use crate::capture::memory::Memory;
use crate::engine::area::TABLES_BYTES;
use crate::engine::inject::InjectError;
use crate::engine::inject::leftovers::{self, Original, Owner};
use crate::engine::memory::TargetMemory;
use crate::engine::patch::visit::VisitCpus;
use crate::engine::patch::{How, Patcher, Runtime, Witness};
use crate::engine::x86_64::pads::tables::View;
use riptrace_protocol::ids::ProcessKey;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes by which a process is known again when its text is written.
const WITNESS_BYTES: usize = 16;

/// The processes that somebody in this agent cleans or takes over just now.
static TAKEN: Mutex<BTreeSet<ProcessKey>> = Mutex::new(BTreeSet::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to clean or take over a process: one thread of this agent has it at a time. Two that write the same site by
/// turns would leave half of each: the one that takes an old patch out, and the one that has just put a new one in.
pub(super) struct Alone(ProcessKey);

impl Alone {
    /// Waits until nobody else has it.
    pub(super) fn with(key: ProcessKey) -> Alone {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = |taken: &mut BTreeSet<ProcessKey>| taken.contains(&key);
        GIVEN_BACK.wait_while(taken, is_taken).unwrap_or_else(PoisonError::into_inner).insert(key);
        Alone(key)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        GIVEN_BACK.notify_all();
    }
}

/// Takes out what others have left in the text of a process that no agent traces. Says how many sites that were. Blocks,
/// for milliseconds where there is something. A process that this agent takes over meanwhile is its own then.
pub(in crate::engine) fn sweep(key: ProcessKey) -> Result<usize, InjectError> {
    sweep_alone(&Alone::with(key))
}

/// The same, for who has the right already.
pub(super) fn sweep_alone(Alone(key): &Alone) -> Result<usize, InjectError> {
    let key = *key;
    let mut swept = 0;
    for leftover in leftovers::find(key.pid)? {
        // Whoever lives takes out its own; this agent does when it lets go.
        if matches!(leftover.owner, Owner::Alive { .. }) && !leftover.is_inherited {
            continue;
        }
        let memory = TargetMemory::open(key.pid as i32);
        let mut pads = Vec::new();
        let mut known = None;
        let mut is_go = true;
        for island in &leftover.islands {
            let mut tables = vec![0; TABLES_BYTES];
            if memory.read(island.tables(), &mut tables).is_err() {
                continue;
            }
            if let Ok(view) = View::new(&tables) {
                pads.extend(view.pads());
                is_go &= view.is_go();
                known.get_or_insert(Witness { at: island.tables(), bytes: tables[..WITNESS_BYTES].to_vec() });
            }
        }
        // Its probes are off from here on; the text is changed below, where threads that run are minded.
        leftovers::clean(key.pid, &leftover, &mut |_, _| Vec::<Original>::new(), &mut |_| Ok(()))?;
        let Some(witness) = known else { continue };
        let patcher = Patcher::open(key, Runtime::Native, witness);
        for _ in 0..removal::ROUNDS_MAX {
            let mut patches = removal::of(&memory, pads.iter().cloned().map(Written::from));
            if patches.is_empty() {
                break;
            }
            if !is_go {
                // The program may have taken the handlers for itself: no breakpoint, not even for a moment.
                patches.iter_mut().for_each(|patch| patch.how = How::AllStop);
            }
            match patcher.apply(&patches, &mut VisitCpus) {
                Ok(_) => swept += patches.len(),
                Err(error) => {
                    tracing::warn!(target: "engine", pid = key.pid, %error, "patches that nobody needs stay in a process");
                    break;
                }
            }
        }
    }
    Ok(swept)
}

//! Processes that this agent does not trace and that have patches: children of one that it traces, and those of an agent
//! that was killed. Their patches do nothing but cost; here they are taken out.
//!
//! Memory, code and handlers stay: a thread may be in them, and an agent that attaches later takes them over.

use super::text::removal;
use crate::capture::memory::Memory;
use crate::engine::area::TABLES_BYTES;
use crate::engine::inject::InjectError;
use crate::engine::inject::leftovers::{self, Original, Owner};
use crate::engine::memory::TargetMemory;
use crate::engine::patch::visit::VisitCpus;
use crate::engine::patch::{Patch, Patcher, Runtime, Witness};
use crate::engine::x86_64::pads::tables::View;
use crate::target;
use riptrace_protocol::ids::{Avma, ProcessKey};
use std::collections::{BTreeMap, BTreeSet};
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
        let mut patches: BTreeMap<Avma, (Patch, Avma)> = BTreeMap::new();
        let memory = TargetMemory::open(key.pid as i32);
        let mut originals = |memory: &dyn Memory, island: crate::engine::area::Island| {
            let mut tables = vec![0; TABLES_BYTES];
            if memory.read(island.tables(), &mut tables).is_err() {
                return Vec::new();
            }
            let Ok(view) = View::new(&tables) else { return Vec::new() };
            let found = view.pads().filter_map(|pad| removal(memory, &pad));
            found.for_each(|patch| drop(patches.insert(patch.at, (patch, island.tables()))));
            Vec::<Original>::new()
        };
        // Switches its probes off; the text is changed below, where threads that run are minded.
        leftovers::clean(key.pid, &leftover, &mut originals, &mut |_| Ok(()))?;
        let Some((_, tables)) = patches.values().next() else { continue };
        let mut bytes = vec![0; WITNESS_BYTES];
        let gone = || InjectError::Target(target::TargetError::Gone { pid: key.pid });
        memory.read(*tables, &mut bytes).map_err(|_| gone())?;
        let patcher = Patcher::open(key, Runtime::Native, Witness { at: *tables, bytes });
        let patches: Vec<Patch> = patches.into_values().map(|(patch, _)| patch).collect();
        match patcher.apply(&patches, &mut VisitCpus) {
            Ok(_) => swept += patches.len(),
            Err(error) => {
                tracing::warn!(target: "engine", pid = key.pid, %error, "patches that nobody needs stay in a process");
            }
        }
    }
    Ok(swept)
}

//! The engine's signal handlers, before those of the program; and before those that killed agents have left who traced
//! from outside ([`crate::engine::ptrace::left`]).
//!
//! ```text
//! kernel -> the engine's -> [those of killed agents] -> the program's
//! ```
//!
//! An agent that traces from outside puts its handler before whatever is there, the engine's included, which an earlier
//! agent has left: put before it once more, the engine's would pass on to itself. So the last of those handlers is led to
//! what the engine's had behind it. In between, a trap that is nobody's goes round until that is done; all others find
//! their way at any moment. What the last one is to lead to is kept in its memory first: an agent that is killed here
//! leaves a ring that the next one opens.

use crate::capture::memory::Memory;
use crate::engine::inject::{InjectError, Injection, KernelAction as Action};
use crate::engine::memory::TargetMemory;
use crate::engine::ptrace::left::Left;
use crate::engine::x86_64::fallback::{ACTION_BYTES, old_at, put_back_at};
use crate::engine::x86_64::pads::handlers::action;
use crate::engine::x86_64::pads::island::IslandMemory;
use crate::engine::x86_64::pads::tables::{Handlers, KernelAction, Signal};
use riptrace_protocol::ids::{Avma, ProcessKey};

fn of_tables(known: &KernelAction) -> Action {
    let KernelAction { handler, flags, restorer, mask } = *known;
    Action { handler, flags, restorer, mask }
}

fn to_tables(known: &Action) -> KernelAction {
    let Action { handler, flags, restorer, mask } = *known;
    KernelAction { handler, flags, restorer, mask }
}

/// What a ring of handlers is to end with: what the engine's had behind it, before or after the last agent was killed here.
fn end_of_ring(memory: &TargetMemory, left: &Left, last: Avma, behind_own: Option<Action>) -> Option<Action> {
    behind_own.filter(|action| !left.has_handler(action.handler)).or_else(|| {
        let mut kept = [0; ACTION_BYTES];
        memory.read(put_back_at(last), &mut kept).ok()?;
        Some(Action::from_bytes(&kept))
    })
}

/// Installs the handlers, and says what agents have left that have traced from outside. `tables` are island 0's.
pub(super) fn install<'a>(
    key: ProcessKey,
    injection: &mut Injection,
    handlers: &Handlers,
    tables: &dyn Fn() -> Option<IslandMemory<'a>>,
) -> Result<Left, InjectError> {
    let memory = TargetMemory::open(key.pid as i32);
    let islands = injection.islands();
    let is_own = |at: u64| {
        let bytes = crate::engine::area::CODE_BYTES as u64;
        islands.iter().any(|island| at.wrapping_sub(island.tables().0) < bytes)
    };
    let behind_own = || tables().and_then(|tables| tables.view().old_action(Signal::Trap)).map(|old| of_tables(&old));
    let unwritable = |at: Avma| InjectError::Fault { what: "write", at };
    let mut failed = None;
    let numbers: Vec<i32> = Signal::ALL.iter().map(|signal| signal.number()).collect();
    let outcome = injection.install_handlers(&numbers, &mut |number, old: &Action| {
        let signal = Signal::ALL.into_iter().find(|signal| signal.number() == number)?;
        // What the program has: its mask and flags are those that count.
        let mut end = *old;
        if signal == Signal::Trap {
            let left = Left::behind(&memory, old);
            if let Some((last, below)) = left.last() {
                end = below;
                if is_own(below.handler) {
                    end = end_of_ring(&memory, &left, last, behind_own())?;
                    if memory.write(put_back_at(last), &end.to_bytes()).is_err() {
                        failed = Some(unwritable(put_back_at(last)));
                        return None;
                    }
                }
            }
        }
        let new = action(signal, &to_tables(&end), handlers)?;
        tables()?.set_old_action(signal, &to_tables(old));
        Some(of_tables(&new))
    })?;
    tracing::debug!(target: "engine", ?outcome, "signal handlers");
    if let Some(error) = failed {
        return Err(error);
    }
    let Some(first) = behind_own() else { return Ok(Left::default()) };
    let left = Left::behind(&memory, &first);
    if let Some((last, below)) = left.last()
        && is_own(below.handler)
    {
        let end = end_of_ring(&memory, &left, last, None).filter(|end| !is_own(end.handler));
        let end = end.ok_or(InjectError::Fault { what: "read", at: put_back_at(last) })?;
        memory.write(old_at(last), &end.to_bytes()).map_err(|_| unwritable(old_at(last)))?;
        return Ok(Left::behind(&memory, &first));
    }
    Ok(left)
}

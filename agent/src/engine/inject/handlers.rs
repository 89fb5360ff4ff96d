//! Setting signal handlers in a process, each so that it knows what it replaces before it can run.

use super::control::{ACTIONS_MAX, NEW_ACTIONS, OLD_ACTIONS};
use super::error::InjectError;
use super::{Injection, RemoteCall};
use riptrace_protocol::ids::Avma;

/// Bytes of a kernel's sigaction.
pub(in crate::engine) const ACTION_BYTES: usize = 32;
/// Size of the kernel's signal set, in bytes.
const SIGNAL_SET_BYTES: u64 = 8;
/// Times that a handler is set anew because the program has set its own in between.
const SETS_MAX: usize = 8;

/// An action as the kernel has it (arch/x86/include/uapi/asm/signal.h, `struct sigaction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct KernelAction {
    /// Address of the handler; 0 for the default, 1 to ignore.
    pub(in crate::engine) handler: u64,
    /// SA_* flags.
    pub(in crate::engine) flags: u64,
    /// What a handler returns to.
    pub(in crate::engine) restorer: u64,
    /// Signals that are blocked while it runs: bit 0 is signal 1.
    pub(in crate::engine) mask: u64,
}

impl KernelAction {
    /// As the kernel reads and writes it.
    pub(in crate::engine) fn to_bytes(self) -> [u8; ACTION_BYTES] {
        let mut bytes = [0; ACTION_BYTES];
        let words = [self.handler, self.flags, self.restorer, self.mask];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reverse.
    pub(in crate::engine) fn from_bytes(bytes: &[u8; ACTION_BYTES]) -> KernelAction {
        let word = |n: usize| bytes[8 * n..8 * n + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        KernelAction { handler: word(0), flags: word(1), restorer: word(2), mask: word(3) }
    }
}

/// What became of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Installed {
    /// It is set.
    Now,
    /// It was set already.
    Already,
    /// It was not wanted.
    Skipped,
}

impl Injection {
    /// The action of a signal.
    #[cfg(test)]
    pub(in crate::engine) fn action(&mut self, signal: i32) -> Result<KernelAction, InjectError> {
        Ok(self.exchange(&[(signal, None)])?[0])
    }

    /// Sets the action of a signal; returns the former one.
    pub(in crate::engine) fn set_action(
        &mut self,
        signal: i32,
        action: &KernelAction,
    ) -> Result<KernelAction, InjectError> {
        Ok(self.exchange(&[(signal, Some(*action))])?[0])
    }

    /// Asks for the actions of signals, and sets those for which there is another one; returns the former ones, as many. A
    /// thread is stopped once for up to `ACTIONS_MAX` of them.
    fn exchange(&mut self, actions: &[(i32, Option<KernelAction>)]) -> Result<Vec<KernelAction>, InjectError> {
        let control = self.first_island().control.0;
        let mut former = Vec::with_capacity(actions.len());
        for some in actions.chunks(ACTIONS_MAX) {
            let mut calls = Vec::with_capacity(some.len());
            for (place, (signal, new)) in (0..).step_by(ACTION_BYTES).zip(some) {
                let new_at = new.map_or(0, |action| {
                    self.area().control().write(NEW_ACTIONS + place, &action.to_bytes());
                    control + (NEW_ACTIONS + place) as u64
                });
                let old_at = control + (OLD_ACTIONS + place) as u64;
                let args = [*signal as u64, new_at, old_at, SIGNAL_SET_BYTES, 0, 0];
                calls.push(RemoteCall { number: libc::SYS_rt_sigaction, args });
            }
            for (place, result) in (0..).step_by(ACTION_BYTES).zip(self.call(&calls)?) {
                result.map_err(|errno| InjectError::Call { what: "rt_sigaction", errno })?;
                let mut old = [0; ACTION_BYTES];
                self.area().control().read(OLD_ACTIONS + place, &mut old);
                former.push(KernelAction::from_bytes(&old));
            }
        }
        Ok(former)
    }

    /// Sets handlers. `choose` is told a signal and the action it has now, keeps that where its handler finds it, and says
    /// what to set; `None` for nothing. It is told all of them before any is set, and those again for which the program has
    /// set another action in between.
    pub(in crate::engine) fn install_handlers(
        &mut self,
        signals: &[i32],
        choose: &mut dyn FnMut(i32, &KernelAction) -> Option<KernelAction>,
    ) -> Result<Vec<(i32, Installed)>, InjectError> {
        let asked: Vec<_> = signals.iter().map(|&signal| (signal, None)).collect();
        let known = self.exchange(&asked)?;
        let mut outcome: Vec<(i32, Installed)> = Vec::with_capacity(signals.len());
        let mut wanted = Vec::new();
        for (&signal, known) in signals.iter().zip(known) {
            let installed = if self.is_own(Avma(known.handler)) {
                Installed::Already
            } else if let Some(new) = choose(signal, &known) {
                wanted.push((outcome.len(), signal, known, new));
                Installed::Now
            } else {
                Installed::Skipped
            };
            outcome.push((signal, installed));
        }
        let actions: Vec<_> = wanted.iter().map(|&(_, signal, _, new)| (signal, Some(new))).collect();
        let replaced = self.exchange(&actions)?;
        for ((number, signal, known, new), replaced) in wanted.into_iter().zip(replaced) {
            if replaced != known && replaced != new {
                outcome[number].1 = self.install_again(signal, replaced, choose)?;
            }
        }
        Ok(outcome)
    }

    /// Sets a handler over which the program has set its own in between: the one that the engine's has just replaced.
    fn install_again(
        &mut self,
        signal: i32,
        mut known: KernelAction,
        choose: &mut dyn FnMut(i32, &KernelAction) -> Option<KernelAction>,
    ) -> Result<Installed, InjectError> {
        for _ in 1..SETS_MAX {
            let Some(new) = choose(signal, &known) else {
                self.set_action(signal, &known)?;
                return Ok(Installed::Skipped);
            };
            let replaced = self.set_action(signal, &new)?;
            if replaced == known || replaced == new {
                return Ok(Installed::Now);
            }
            known = replaced;
        }
        Err(InjectError::Call { what: "rt_sigaction (the program keeps setting its own)", errno: libc::EBUSY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_as_it_is_read() {
        let action = KernelAction { handler: 0x0102_0304_0506_0708, flags: 4, restorer: u64::MAX, mask: 1 << 63 };
        assert_eq!(KernelAction::from_bytes(&action.to_bytes()), action);
        assert_eq!(action.to_bytes()[..9], [8, 7, 6, 5, 4, 3, 2, 1, 4]);
    }
}

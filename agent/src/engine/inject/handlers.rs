//! Setting signal handlers in a process, each so that it knows what it replaces before it can run.

use super::control::{NEW_ACTION, OLD_ACTION};
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
    pub(in crate::engine) fn action(&mut self, signal: i32) -> Result<KernelAction, InjectError> {
        self.exchange(signal, None)
    }

    /// Sets the action of a signal; returns the former one.
    pub(in crate::engine) fn set_action(
        &mut self,
        signal: i32,
        action: &KernelAction,
    ) -> Result<KernelAction, InjectError> {
        self.exchange(signal, Some(action))
    }

    fn exchange(&mut self, signal: i32, new: Option<&KernelAction>) -> Result<KernelAction, InjectError> {
        let control = self.first_island().control.0;
        let new_at = new.map_or(0, |action| {
            self.area().control().write(NEW_ACTION, &action.to_bytes());
            control + NEW_ACTION as u64
        });
        let args = [signal as u64, new_at, control + OLD_ACTION as u64, SIGNAL_SET_BYTES, 0, 0];
        let results = self.call(&[RemoteCall { number: libc::SYS_rt_sigaction, args }])?;
        if let Some(Err(errno)) = results.first() {
            return Err(InjectError::Call { what: "rt_sigaction", errno: *errno });
        }
        let mut old = [0; ACTION_BYTES];
        self.area().control().read(OLD_ACTION, &mut old);
        Ok(KernelAction::from_bytes(&old))
    }

    /// Sets handlers. `choose` is told a signal and the action it has now, keeps that where its handler finds it, and says
    /// what to set; `None` for nothing. It is told again where the program has set another action in between, before any
    /// other signal is.
    pub(in crate::engine) fn install_handlers(
        &mut self,
        signals: &[i32],
        choose: &mut dyn FnMut(i32, &KernelAction) -> Option<KernelAction>,
    ) -> Result<Vec<(i32, Installed)>, InjectError> {
        let mut outcome = Vec::with_capacity(signals.len());
        for &signal in signals {
            outcome.push((signal, self.install(signal, choose)?));
        }
        Ok(outcome)
    }

    fn install(
        &mut self,
        signal: i32,
        choose: &mut dyn FnMut(i32, &KernelAction) -> Option<KernelAction>,
    ) -> Result<Installed, InjectError> {
        let mut known = self.action(signal)?;
        if self.is_own(Avma(known.handler)) {
            return Ok(Installed::Already);
        }
        for round in 0..SETS_MAX {
            let Some(new) = choose(signal, &known) else {
                if round > 0 {
                    self.set_action(signal, &known)?;
                }
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

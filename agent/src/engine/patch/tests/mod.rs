//! Patches of programs that run and check themselves.

mod c_program;
mod go_program;
mod killed;
mod support;

use std::sync::atomic::{AtomicI64, Ordering};

/// Checkpoints that this process still passes before it is killed; below 0: all.
static REMAINING: AtomicI64 = AtomicI64::new(-1);

/// A place at which the agent may be killed.
pub(super) fn checkpoint() {
    if REMAINING.load(Ordering::Relaxed) >= 0 && REMAINING.fetch_sub(1, Ordering::Relaxed) == 0 {
        // No handler, no drop, no unwinding.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

/// Has this process killed when it has passed so many checkpoints.
fn kill_after(checkpoints: i64) {
    REMAINING.store(checkpoints, Ordering::Relaxed);
}

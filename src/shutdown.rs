//! The end of a long-running command: Ctrl-C or SIGTERM, once, for all its parts.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells any number of parts that the end has come.
#[derive(Debug, Clone)]
pub struct Shutdown {
    ended: watch::Receiver<bool>,
    _end: std::sync::Arc<watch::Sender<bool>>,
}

/// Brings the end about.
#[derive(Debug, Clone)]
pub struct Trigger(std::sync::Arc<watch::Sender<bool>>);

impl Trigger {
    /// The end has come.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

/// An end that only its trigger brings about.
pub fn manual() -> (Trigger, Shutdown) {
    let (send, ended) = watch::channel(false);
    let end = std::sync::Arc::new(send);
    (Trigger(end.clone()), Shutdown { ended, _end: end })
}

/// An end that Ctrl-C (SIGINT), SIGTERM or a closed terminal (SIGHUP) bring about.
pub fn on_signals() -> std::io::Result<Shutdown> {
    let (trigger, shutdown) = manual();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        trigger.pull();
    });
    Ok(shutdown)
}

impl Shutdown {
    /// Waits for the end.
    pub async fn ended(mut self) {
        // The sender lives as long as this receiver does, so the wait can only end by the value.
        let _ = self.ended.wait_for(|&ended| ended).await;
    }
}

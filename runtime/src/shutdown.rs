//! Telling tasks to end, and waiting until they have. Shutdown is a tested path: drain, persist, confirm, end.

use tokio::sync::watch;

/// The side that says stop. Dropping it says stop, too.
#[derive(Debug)]
pub struct Stop {
    tx: watch::Sender<bool>,
}

/// The side that listens. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Stopped {
    rx: watch::Receiver<bool>,
}

/// A fresh pair.
pub fn channel() -> (Stop, Stopped) {
    let (tx, rx) = watch::channel(false);
    (Stop { tx }, Stopped { rx })
}

impl Stop {
    pub fn stop(&self) {
        let _ = self.tx.send(true);
    }
}

impl Stopped {
    pub fn is_stopped(&self) -> bool {
        *self.rx.borrow() || self.rx.has_changed().is_err()
    }
    /// Resolves once [`Stop::stop`] was called or its owner is gone. Cancel-safe.
    pub async fn wait(&mut self) {
        let _ = self.rx.wait_for(|stopped| *stopped).await;
    }
}

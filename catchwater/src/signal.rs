//! SIGINT, SIGTERM and SIGHUP (the terminal went away): the first asks for a clean end, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals are caught from [`Signals::listen`] on; before, one ends the process as it ends any.
pub struct Signals(Option<(Signal, Signal, Signal)>);

impl Signals {
    /// To be called before anybody is told that the node is ready: who is told may ask for its end at once.
    pub fn listen() -> Signals {
        let all = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        let (Ok(int), Ok(term), Ok(hup)) = all else { return Signals(None) };
        Signals(Some((int, term, hup)))
    }

    /// Exit code of the signal that came: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP (128 + number).
    pub async fn wait(self) -> u8 {
        match self.0 {
            Some(all) => wait(all).await,
            None => std::future::pending().await,
        }
    }
}

async fn wait((mut int, mut term, mut hup): (Signal, Signal, Signal)) -> u8 {
    let code = tokio::select! { _ = int.recv() => 130, _ = term.recv() => 143, _ = hup.recv() => 129 };
    // Whoever presses Ctrl-C twice means it.
    tokio::spawn(async move {
        let code = tokio::select! { _ = int.recv() => 130, _ = term.recv() => 143 };
        std::process::exit(code);
    });
    code
}

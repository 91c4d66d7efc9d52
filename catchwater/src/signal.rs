//! SIGINT, SIGTERM and SIGHUP (the terminal went away): the first asks for a clean end, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};

/// Exit code of the signal that came: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP (128 + number).
pub async fn wait() -> u8 {
    let all = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut int), Ok(mut term), Ok(mut hup)) = all else {
        return std::future::pending().await;
    };
    let code = tokio::select! { _ = int.recv() => 130, _ = term.recv() => 143, _ = hup.recv() => 129 };
    // Whoever presses Ctrl-C twice means it.
    tokio::spawn(async move {
        let code = tokio::select! { _ = int.recv() => 130, _ = term.recv() => 143 };
        std::process::exit(code);
    });
    code
}

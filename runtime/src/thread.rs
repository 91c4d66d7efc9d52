//! Named threads: the journal's and the segment writer's. They end when their owner says so and joins them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread. Join the handle at shutdown.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// Asks for nice -10 for the calling thread; true if the system allowed it (it needs a right most users lack).
pub fn raise_priority() -> bool {
    rustix::process::setpriority_process(None, -10).is_ok()
}

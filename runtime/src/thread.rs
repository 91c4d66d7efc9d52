//! Named threads: the journal's and the segment writer's. They end when their owner says so and joins them.

mod sys;

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread. Join the handle at shutdown.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// What the system allowed a thread to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// SCHED_RR, priority 1: runs before every ordinary thread.
    Realtime,
    /// nice -10.
    Nice,
    Plain,
}

impl Priority {
    /// For the log line at the start.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Realtime => "round robin, priority 1",
            Priority::Nice => "nice -10",
            Priority::Plain => "that of any thread",
        }
    }
}

/// Raises the calling thread as far as the system allows (it takes a right most users lack). On a busy machine a plain
/// thread waits for a scheduler quantum, milliseconds, at every wake-up; a raised one does not.
pub fn raise_priority() -> Priority {
    if sys::round_robin(1) {
        Priority::Realtime
    } else if rustix::process::setpriority_process(None, -10).is_ok() {
        Priority::Nice
    } else {
        Priority::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_raised_as_far_as_the_system_allows_and_only_that_thread() {
        let on_a_thread = || std::thread::spawn(|| (raise_priority(), sys::is_round_robin())).join().expect("it ends");
        let (raised, robin) = on_a_thread();
        assert_eq!(robin, raised == Priority::Realtime);
        assert!(!sys::is_round_robin(), "the caller stays what it was");
        assert_eq!(on_a_thread(), (raised, robin), "asking again gives the same");
    }
}

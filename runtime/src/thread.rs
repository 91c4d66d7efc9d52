//! Named threads: the journal's and the segment writer's. They end when their owner says so and joins them. Whatever
//! such a thread waits for (a lock, a condition, another thread's answer) is of this file, so that a simulated world can
//! run it as it is written.

mod sys;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[cfg(sim)]
pub use crate::sim::thread::{Condvar, JoinHandle, Mutex, MutexGuard, spawn};
#[cfg(not(sim))]
pub use real::{Condvar, JoinHandle, Mutex, MutexGuard, spawn};

#[cfg(not(sim))]
mod real {
    use std::io;
    pub use std::sync::{Condvar, Mutex, MutexGuard};

    /// Of a thread that returns nothing.
    pub type JoinHandle = std::thread::JoinHandle<()>;

    /// Starts a thread. Join the handle at shutdown.
    pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    }
}

/// A place for one answer that a thread waits for.
pub struct Answer<T> {
    given: Mutex<Option<T>>,
    wake: Condvar,
}

impl<T> Answer<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Answer { given: Mutex::new(None), wake: Condvar::new() })
    }

    pub fn give(&self, answer: T) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.wake.notify_one();
    }

    /// Blocks the thread; `None` = nobody answered within `limit`.
    pub fn wait(&self, limit: Duration) -> Option<T> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = given.take() {
                return Some(answer);
            }
            let (woken, late) = self.wake.wait_timeout(given, limit).unwrap_or_else(PoisonError::into_inner);
            given = woken;
            if late.timed_out() {
                return given.take();
            }
        }
    }
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
    #[cfg(sim)]
    if crate::sim::is_on() {
        return Priority::Plain;
    }
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

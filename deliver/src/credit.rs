//! Pure. How many bytes of rows a sink may hold, of those that all sinks of a process may.
//!
//! A sink that catches up fills what it may hold: with a bound of each alone, the process's memory is that times its sinks.
//! So they have a sum in common, in equal shares, as long as they work: `of = least.max(total / sinks).min(each)`. A sink
//! that comes makes the others' shares smaller; what they hold beyond that goes with the groups it is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one process, all its sinks together.
const TOTAL_BYTES: usize = 128 << 20;
/// What a sink may hold, however many there are: a fetch and a group.
const LEAST_BYTES: usize = 4 << 20;

/// What the sinks of a process have in common.
#[derive(Debug)]
pub struct Credit {
    total: usize,
    sinks: AtomicUsize,
}

impl Default for Credit {
    fn default() -> Self {
        Credit { total: TOTAL_BYTES, sinks: AtomicUsize::new(0) }
    }
}

impl Credit {
    /// A sink begins to work.
    pub fn join(self: &Arc<Self>) -> Share {
        self.sinks.fetch_add(1, Ordering::Relaxed);
        Share { of: self.clone() }
    }
}

/// One sink's; it ends with its worker.
#[derive(Debug)]
pub struct Share {
    of: Arc<Credit>,
}

impl Share {
    /// Bytes it may hold now, of the `each` it was given for itself.
    pub fn bytes(&self, each: usize) -> usize {
        let sinks = self.of.sinks.load(Ordering::Relaxed).max(1);
        (self.of.total / sinks).max(LEAST_BYTES).min(each)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.sinks.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_share_what_the_process_may_hold() {
        let credit = Arc::new(Credit::default());
        let each = 64 << 20;
        let first = credit.join();
        assert_eq!(first.bytes(each), each, "alone");
        let more: Vec<Share> = (0..3).map(|_| credit.join()).collect();
        let held: usize = more.iter().chain([&first]).map(|s| s.bytes(each)).sum();
        assert_eq!(held, TOTAL_BYTES);
        assert_eq!(first.bytes(300), 300, "what it was given for itself bounds it, too");
        let many: Vec<Share> = (0..1000).map(|_| credit.join()).collect();
        assert_eq!(first.bytes(each), LEAST_BYTES);
        drop((more, many));
        assert_eq!(first.bytes(each), each, "alone again");
    }
}

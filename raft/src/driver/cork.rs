//! Cork: what one thread queues in one turn wakes the journal once, at the end of the turn.
//!
//! A connection finds up to its whole window of produce requests in its socket. Were the journal woken by the first, it would
//! write that one alone, and the others in the next flush: twice the writes, and a wake of a thread for each. The cork is
//! the thread's own: what others queue meanwhile wakes the journal at once, and takes along what stands in the queue.

use super::Inner;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

/// So many bytes queued wake the journal although the turn is not over, at the end of the innermost one: its write takes
/// longer than the rest of the outer.
const HELD_BYTES_MAX: u64 = 64 << 10;

thread_local! {
    static TURNS: Cell<u32> = const { Cell::new(0) };
    /// More is queued than may be held: the end of the innermost turn wakes. Not at once, for locks are held then that the
    /// journal's thread wants, too.
    static ENOUGH: Cell<bool> = const { Cell::new(false) };
    /// Directories whose journal is owed a wake. One, but in tests.
    static OWED: RefCell<Vec<Arc<Inner>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, appends of this thread wake no journal; its end wakes those that are owed it. Turns may nest.
///
/// Hold it for work that does not wait: one poll of a task, never across an `await`.
#[must_use = "a cork that is dropped at once holds nothing"]
pub struct Cork {
    /// Bound to its thread.
    _thread: PhantomData<*const ()>,
}

impl Cork {
    pub fn hold() -> Cork {
        TURNS.set(TURNS.get() + 1);
        Cork { _thread: PhantomData }
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        TURNS.set(TURNS.get() - 1);
        let enough = ENOUGH.replace(false);
        if TURNS.get() > 0 && !enough {
            return;
        }
        let owed = OWED.take();
        for inner in &owed {
            inner.wake_journal_for_batches();
        }
        // Its room serves the next turn.
        let mut owed = owed;
        owed.clear();
        OWED.set(owed);
    }
}

/// Is the wake left to the end of this thread's turn? `queued` = bytes that wait for the journal.
pub(super) fn is_held(inner: &Arc<Inner>, queued: u64) -> bool {
    if TURNS.get() == 0 {
        return false;
    }
    if queued >= HELD_BYTES_MAX {
        ENOUGH.set(true);
    }
    OWED.with_borrow_mut(|owed| {
        if !owed.iter().any(|known| Arc::ptr_eq(known, inner)) {
            owed.push(inner.clone());
        }
    });
    true
}

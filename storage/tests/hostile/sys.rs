//! The counting allocator: live bytes and their peak, per thread, so that tests may run side by side.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(by: isize) {
    // A thread that ends has no counters any more; nothing is measured then.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system allocator unchanged; only numbers are kept beside it. `realloc` is the trait's own
// (allocate, copy, free), so that the moment with both blocks alive is counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `work` and gives how far above the start this thread's live memory rose.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let start = LIVE.get();
    PEAK.set(start);
    let result = work();
    (result, usize::try_from(PEAK.get() - start).unwrap_or(0))
}

#[test]
fn the_allocator_counts() {
    let (kept, peak) = peak_of(|| drop(vec![0u8; 100_000]));
    assert!((100_000..101_000).contains(&peak), "{peak}");
    let _: () = kept;
}

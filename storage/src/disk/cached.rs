//! Pure. Which bytes of a file that grows stay in the page cache. Nobody needs what is written back and that no reader
//! comes near: the tail cache has the newest entries, and a page that goes is the next one to be written into. Kept, a log
//! would push the pages of everybody else on the machine out of memory (of the database that it captures, first of all), and
//! take a fresh one for every 4 KiB: where a hypervisor gives memory at the first touch, that costs ten times the copy.
//!
//! ```text
//!  0        dropped        reader          written back ──── KEPT_BYTES ──── end
//!  │ on disk   │ go now      │ stay: it comes here next            stay      │
//! ```
//! A reader is whoever read while the last one or two [`WINDOW_BYTES`] were written; what lies before the lowest place they read is
//! behind them.

use std::ops::Range;

/// The newest bytes of a file that always stay: behind them write-back is long done.
pub const KEPT_BYTES: u64 = 16 << 20;
/// Dropped by one call at most: a call takes some milliseconds then.
const CALL_BYTES: u64 = 64 << 20;
/// Pages may be joined to blocks of this size, which go as a whole: each call begins so much before its range.
const BLOCK_BYTES: u64 = 2 << 20;
const WINDOW_BYTES: u64 = 32 << 20;

#[derive(Debug)]
pub struct Cached {
    /// Below it nothing is cached but what was read again.
    dropped: u64,
    /// Lowest place that was read in this window and in the one before it; `MAX` = nothing was.
    low: u64,
    low_before: u64,
    /// Where the file ended when the window began.
    window: u64,
}

impl Default for Cached {
    fn default() -> Self {
        Cached { dropped: 0, low: u64::MAX, low_before: u64::MAX, window: 0 }
    }
}

impl Cached {
    /// Somebody reads from there on.
    pub fn read(&mut self, at: u64) {
        self.low = self.low.min(at);
    }

    /// The file was written up to `end`, and write-back of it was asked for: the range that may leave the cache, empty = none.
    pub fn written(&mut self, end: u64) -> Range<u64> {
        // It may have been cut meanwhile.
        self.dropped = self.dropped.min(end);
        self.window = self.window.min(end);
        if end - self.window >= WINDOW_BYTES {
            self.low_before = std::mem::replace(&mut self.low, u64::MAX);
            self.window = end;
        }
        let until = end.saturating_sub(KEPT_BYTES).min(self.low).min(self.low_before).min(self.dropped + CALL_BYTES);
        // Not for every few pages.
        if until < self.dropped + BLOCK_BYTES / 4 {
            return 0..0;
        }
        let from = self.dropped.saturating_sub(BLOCK_BYTES);
        self.dropped = until;
        from..until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_nobody_reads_goes_and_the_newest_stay() {
        let mut cached = Cached::default();
        assert_eq!(cached.written(KEPT_BYTES), 0..0);
        assert_eq!(cached.written(KEPT_BYTES + MIB), 0..MIB);
        assert_eq!(cached.written(KEPT_BYTES + MIB + 1), 0..0, "not for a byte");
        // A block that the range before cut through goes with this one.
        assert_eq!(cached.written(KEPT_BYTES + 5 * MIB), 0..5 * MIB);
        assert_eq!(cached.written(KEPT_BYTES + 9 * MIB), 3 * MIB..9 * MIB);
        // Cut, and written again.
        assert_eq!(cached.written(4 * MIB), 0..0);
        assert_eq!(cached.written(KEPT_BYTES + 6 * MIB), 2 * MIB..6 * MIB);
    }

    #[test]
    fn what_a_reader_comes_to_next_stays_until_it_has_passed_or_is_gone() {
        let mut cached = Cached::default();
        let mut end = KEPT_BYTES;
        let mut write = |cached: &mut Cached, bytes: u64| {
            end += bytes;
            cached.written(end)
        };
        cached.read(3 * MIB);
        assert_eq!(write(&mut cached, 10 * MIB), 0..3 * MIB, "behind it");
        cached.read(8 * MIB);
        assert_eq!(write(&mut cached, MIB), 0..0, "the lowest place of a window counts");
        cached.read(20 * MIB);
        assert_eq!(write(&mut cached, 10 * MIB), 0..0, "this one ends the first window");
        cached.read(26 * MIB);
        assert_eq!(write(&mut cached, 31 * MIB), 0..0, "and of the one before");
        assert_eq!(write(&mut cached, MIB), MIB..26 * MIB);
        // Nobody reads any more: a call takes no more than its share.
        assert_eq!(write(&mut cached, 32 * MIB), 24 * MIB..85 * MIB);
        assert_eq!(write(&mut cached, 200 * MIB), 83 * MIB..149 * MIB);
        assert_eq!(write(&mut cached, MIB / 4), 147 * MIB..213 * MIB);
    }
}

//! Pure. When the socket of a stream is read next. A walsender sends each message by itself, so a reader that is told of each
//! wakes for every row or two, and a wake costs more than a row; so do the append, the flush, the answer to each consumer
//! and the turn of each sink that follow from it. So: what comes after a pause is read at once; where reads follow each
//! other closely, there is a rest of a millisecond behind each, until one ends and nothing is there; and where a rest finds
//! megabytes a second, as a stream does that catches up, four milliseconds, in which nobody misses a row, and ten where that
//! finds what a walsender sends at most.
//!
//! ```text
//!  now and then:   r······r·r·····r···       read at once
//!  dense:          rrrrrrrr──r──r──r──·r···  a rest behind each read; the last one ended with nothing there
//!  bulk:           rrrrrrrr──R────────R────  R found BULK_BYTES or more
//!  flood:          rrrrrrrr──R────────F────────────────────F────  F found FLOOD_BYTES or more behind a longer rest
//! ```
//! A rest ends early when [`Pace::tell_from`] bytes wait; there is none behind a read that found so much.

use catchwater_base::Mono;
use std::time::Duration;

/// Between two reads of a dense stream; timers round it up to their own millisecond.
const REST: Duration = Duration::from_millis(1);
/// The same where much comes: each read is followed by an append and a flush, which cost as much as fifty rows.
const BULK_REST: Duration = Duration::from_millis(4);
/// The same of a server that sends as fast as it can decode.
const FLOOD_REST: Duration = Duration::from_millis(10);
/// Found behind a rest, so much is no traffic of single commits (2,000 of them a second send 1 KiB in a millisecond).
const BULK_BYTES: usize = 8 * 1024;
/// Found behind [`BULK_REST`], so much is 6 MB a second or more: tens of thousands of rows.
const FLOOD_BYTES: usize = 24 * 1024;
/// Reads within [`WINDOW`] that make a stream dense: three small messages of a lone transaction are not.
const DENSE_READS: u32 = 8;
const WINDOW: Duration = Duration::from_millis(4);
/// A rest ends when so much waits: within the smallest usual receive buffer.
const REST_BYTES: usize = 32 * 1024;
/// The same of a longer rest. The kernel makes the receive buffer large enough for it.
pub const BULK_REST_BYTES: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Default)]
enum Flow {
    #[default]
    Sparse,
    Dense,
    Bulk,
    Flood,
}

#[derive(Debug, Default)]
pub struct Pace {
    /// Begin of the window, and the reads in it.
    window: Mono,
    reads: u32,
    flow: Flow,
    /// The rest in work ends then; `None` = none.
    rest: Option<Mono>,
    /// When the last one had ended.
    rested: Mono,
}

impl Pace {
    /// `bytes` were read. Some = the rest that begins ends then.
    pub fn read(&mut self, now: Mono, bytes: usize) -> Option<Mono> {
        if self.rest.take().is_none() && self.flow > Flow::Sparse && now.since(self.rested) > REST / 2 {
            // It did not wait for us.
            self.flow = Flow::Sparse;
            self.reads = 0;
        }
        if self.flow == Flow::Sparse {
            if now.since(self.window) > WINDOW {
                (self.window, self.reads) = (now, 0);
            }
            self.reads += 1;
        }
        let long = self.flow >= Flow::Bulk;
        self.flow = match bytes {
            _ if self.flow == Flow::Sparse && self.reads < DENSE_READS => Flow::Sparse,
            FLOOD_BYTES.. if long => Flow::Flood,
            BULK_BYTES.. => Flow::Bulk,
            _ => Flow::Dense,
        };
        self.rested = now;
        let rest = match self.flow {
            Flow::Sparse | Flow::Dense => REST,
            Flow::Bulk => BULK_REST,
            Flow::Flood => FLOOD_REST,
        };
        self.rest = (self.flow > Flow::Sparse && bytes < self.tell_from()).then(|| now.plus(rest));
        self.rest
    }

    /// The rest in work.
    pub fn rest(&self) -> Option<Mono> {
        self.rest
    }

    /// Bytes that end the rest in work.
    pub fn tell_from(&self) -> usize {
        if self.flow >= Flow::Bulk { BULK_REST_BYTES } else { REST_BYTES }
    }

    /// The rest is over.
    pub fn rested(&mut self, now: Mono) {
        self.rest = None;
        self.rested = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Mono {
        Mono::ZERO.plus(Duration::from_micros(10_000 + us))
    }

    #[test]
    fn a_lone_transaction_is_read_at_once_and_a_dense_stream_rests() {
        let mut pace = Pace::default();
        // Three messages each five milliseconds.
        for txn in 0..50 {
            for message in 0..3 {
                assert_eq!(pace.read(at(txn * 5_000 + message * 20), 100), None, "{txn}.{message}");
            }
        }
        // One every half millisecond.
        let from = 300_000;
        let rests = (0..DENSE_READS as u64).filter_map(|n| pace.read(at(from + n * 500), 100)).count();
        assert_eq!(rests, 1, "dense from the eighth");
        let mut now = from + u64::from(DENSE_READS - 1) * 500;
        for _ in 0..20 {
            assert_eq!(pace.rest(), Some(at(now + 1_000)));
            now += 1_000;
            pace.rested(at(now));
            assert_eq!(pace.rest(), None);
            now += 10;
            assert!(pace.read(at(now), 100).is_some(), "something had come");
        }
        // A rest that ended early, for enough was there, and more than that: no rest behind it.
        assert!(pace.read(at(now + 100), 4_000).is_some());
        assert_eq!(pace.read(at(now + 200), BULK_REST_BYTES), None);
        assert!(pace.read(at(now + 300), 100).is_some(), "and it is dense still");
        // Nothing there when the rest ends: the next one is read at once, and so is what follows it.
        pace.rested(at(now + 1_300));
        for n in 0..DENSE_READS - 1 {
            assert_eq!(pace.read(at(now + 3_000 + u64::from(n) * 100), 100), None);
        }
    }
    #[test]
    fn much_behind_a_rest_makes_the_next_one_longer_and_little_shortens_it_again() {
        let mut pace = Pace::default();
        // However much comes at once after a pause: it is read, and what follows it, too.
        for n in 0..u64::from(DENSE_READS) - 1 {
            assert_eq!(pace.read(at(n * 100), 2 * BULK_BYTES), None, "{n}");
        }
        assert_eq!(pace.read(at(800), BULK_BYTES - 1), Some(at(1_800)));
        assert_eq!(pace.tell_from(), REST_BYTES);
        let mut now = 1_800;
        for _ in 0..5 {
            pace.rested(at(now));
            assert_eq!(pace.read(at(now), BULK_BYTES), Some(at(now + 4_000)));
            assert_eq!(pace.tell_from(), BULK_REST_BYTES);
            now += 4_000;
        }
        // As much as a server sends at most: once a longer rest has found it.
        for _ in 0..5 {
            pace.rested(at(now));
            assert_eq!(pace.read(at(now), FLOOD_BYTES), Some(at(now + 10_000)));
            now += 10_000;
        }
        pace.rested(at(now));
        assert_eq!(pace.read(at(now), FLOOD_BYTES - 1), Some(at(now + 4_000)));
        now += 4_000;
        pace.rested(at(now));
        assert_eq!(pace.read(at(now), 100), Some(at(now + 1_000)));
        assert_eq!(pace.tell_from(), REST_BYTES);
        pace.rested(at(now + 1_000));
        assert_eq!(pace.read(at(now + 1_000), FLOOD_BYTES), Some(at(now + 5_000)), "not behind a short one");
        now += 5_000;
        pace.rested(at(now));
        assert_eq!(pace.read(at(now), 100), Some(at(now + 1_000)));
        // Nothing there when it ends.
        pace.rested(at(now + 1_000));
        assert_eq!(pace.read(at(now + 2_000), 100), None);
        assert_eq!(pace.read(at(now + 2_100), BULK_BYTES), None);
    }
}

//! Pure. Is the journal's disk slower than it was? Compares the worst of the last flushes with what a flush usually takes.

use catchwater_base::Mono;
use std::time::Duration;

/// Flushes that are looked at together.
const WINDOW: usize = 128;
/// Judged anew after so many.
const STRIDE: usize = 16;
/// The slowest hundredth takes so many times the usual.
const FACTOR: u32 = 10;
/// A disk is called slow once that has lasted so long.
const LASTS: Duration = Duration::from_secs(5);
/// Below this nothing is called slow, µs: a scheduler's quantum is not a disk's fault.
const FLOOR_US: u32 = 20_000;

/// What to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Slow { p99_us: u32, usual_us: u32 },
    Recovered,
}

/// See the file head.
#[derive(Debug, Default)]
pub(super) struct Pace {
    window: Vec<u32>,
    next: usize,
    /// What a flush takes on a good day: a slow mean of medians, kept while the disk is slow.
    usual_us: Option<u32>,
    since: Option<Mono>,
    slow: bool,
}

impl Pace {
    /// A flush took so long.
    pub(super) fn observe(&mut self, now: Mono, us: u32) -> Option<Change> {
        if self.window.len() < WINDOW {
            self.window.push(us);
        } else {
            self.window[self.next % WINDOW] = us;
        }
        self.next += 1;
        if self.window.len() < WINDOW || !self.next.is_multiple_of(STRIDE) {
            return None;
        }
        let mut sorted = self.window.clone();
        sorted.sort_unstable();
        let (median, p99_us) = (sorted[WINDOW / 2], sorted[WINDOW - 1 - WINDOW / 100]);
        let usual_us = *self.usual_us.get_or_insert(median);
        if p99_us <= FLOOR_US.max(usual_us.saturating_mul(FACTOR)) {
            self.since = None;
            self.usual_us = Some(((u64::from(usual_us) * 31 + u64::from(median)) / 32) as u32);
            return std::mem::take(&mut self.slow).then_some(Change::Recovered);
        }
        let since = *self.since.get_or_insert(now);
        if !self.slow && now.since(since) >= LASTS {
            self.slow = true;
            return Some(Change::Slow { p99_us, usual_us });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `n` flushes 10 ms apart; what was said, with the time in ms.
    fn feed(pace: &mut Pace, from_ms: u64, n: u64, us: impl Fn(u64) -> u32) -> Vec<(u64, Change)> {
        let at = |i: u64| from_ms + i * 10;
        (0..n).filter_map(|i| pace.observe(Mono::from_millis(at(i)), us(i)).map(|c| (at(i), c))).collect()
    }

    #[test]
    fn a_disk_that_becomes_slow_is_named_after_five_seconds_and_once() {
        let mut pace = Pace::default();
        assert_eq!(feed(&mut pace, 0, 1000, |_| 3_000), []);
        let said = feed(&mut pace, 10_000, 2000, |_| 80_000);
        let [(at, Change::Slow { usual_us: 3_000, .. })] = said[..] else { panic!("{said:?}") };
        assert!((15_000..16_000).contains(&at), "{at}");
        let said = feed(&mut pace, 40_000, 1000, |_| 3_000);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].1, Change::Recovered);
    }

    #[test]
    fn a_short_pause_a_busy_box_and_a_steadily_slow_disk_are_no_news() {
        let mut pace = Pace::default();
        assert_eq!(feed(&mut pace, 0, 1000, |_| 100), []);
        // 2 s of pauses, then good again.
        assert_eq!(feed(&mut pace, 10_000, 200, |_| 90_000), []);
        assert_eq!(feed(&mut pace, 12_000, 1000, |_| 100), []);
        // A quantum of another process in every second flush.
        assert_eq!(feed(&mut pace, 30_000, 2000, |i| if i % 2 == 0 { 4_000 } else { 100 }), []);
        let mut slow = Pace::default();
        assert_eq!(feed(&mut slow, 0, 3000, |_| 90_000), [], "that is what it takes here");
    }
}

//! Pure. How busy the lanes of a sink are: of the time that all of them have, the share in which they held rows that were
//! not committed. Told per window, so that a scrape sees what is, not what was an hour ago.

use catchwater_base::Mono;

/// Length of a window.
const WINDOW_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub struct Busy {
    from: Option<Mono>,
    at: Mono,
    lanes: usize,
    /// Microseconds of all lanes together.
    busy_us: u128,
}

impl Busy {
    /// `lanes` hold rows from now on, of `all`. `Some` = a window ended, and this was the share in it: 0.0 to 1.0.
    pub fn see(&mut self, now: Mono, lanes: usize, all: usize) -> Option<f64> {
        let from = *self.from.get_or_insert(now);
        if self.at > Mono::ZERO {
            self.busy_us += now.since(self.at).as_micros() * self.lanes as u128;
        }
        (self.at, self.lanes) = (now, lanes.min(all));
        if now < from.plus_millis(WINDOW_MS) {
            return None;
        }
        let had = now.since(from).as_micros().max(1) * all.max(1) as u128;
        let share = (self.busy_us as f64 / had as f64).min(1.0);
        (self.from, self.busy_us) = (Some(now), 0);
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_window_that_ended() {
        let at = |ms: u64| Mono::ZERO.plus_millis(100 + ms);
        let mut b = Busy::default();
        assert_eq!(b.see(at(0), 2, 4), None);
        assert_eq!(b.see(at(2_500), 0, 4), None);
        // Two of four lanes for half of the time.
        assert_eq!(b.see(at(5_000), 4, 4), Some(0.25));
        assert_eq!(b.see(at(7_000), 4, 4), None, "a long call tells nothing in between");
        assert_eq!(b.see(at(15_000), 0, 4), Some(1.0));
        assert_eq!(b.see(at(20_000), 0, 4), Some(0.0));
        // One that has a lane more than it may use is not more than busy.
        let mut b = Busy::default();
        assert_eq!((b.see(at(0), 2, 1), b.see(at(6_000), 0, 1)), (None, Some(1.0)));
    }
}

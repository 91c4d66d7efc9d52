//! Pure. Which bytes a fetch gets: partitions in the order of the request, whole batches, the first one even above the
//! limits (KIP-74), all others within them. Walk: produce-fetch 11/14.

/// Room left in one answer.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    left: u64,
    /// Nothing was given yet: the first batch may exceed everything.
    first: bool,
}

impl Room {
    pub fn new(max_bytes: u64) -> Self {
        Room { left: max_bytes, first: true }
    }

    /// Nothing was given yet.
    pub fn is_empty(&self) -> bool {
        self.first
    }

    /// How many bytes the next partition may be asked for. 0 = none at all; otherwise the log may still come back with
    /// one larger batch, which [`Room::take`] judges.
    pub fn ask(&self, partition_max_bytes: u32) -> u32 {
        if self.first {
            // Zero would mean "skip"; one asks for the first batch whatever its size.
            return u32::try_from(self.left.min(u64::from(partition_max_bytes))).unwrap_or(u32::MAX).max(1);
        }
        u32::try_from(self.left.min(u64::from(partition_max_bytes))).unwrap_or(u32::MAX)
    }

    /// The log found `bytes` for what [`Room::ask`] allowed (`asked`); `true` = they go into the answer.
    pub fn take(&mut self, asked: u32, bytes: u64) -> bool {
        if bytes == 0 || (bytes > u64::from(asked) && !self.first) {
            return false;
        }
        self.first = false;
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions as (partition_max_bytes, size of the first batch, bytes a generous log would give).
    #[track_caller]
    fn check(max_bytes: u64, partitions: &[(u32, u64, u64)], given: &[u64]) {
        let mut room = Room::new(max_bytes);
        let mut out = Vec::new();
        for (partition_max, first, all) in partitions {
            let asked = room.ask(*partition_max);
            // As `Log::plan_read`: whole batches of `first` bytes, at least one.
            let found =
                if asked == 0 || *all == 0 { 0 } else { (u64::from(asked) / first * first).clamp(*first, *all) };
            out.push(if room.take(asked, found) { found } else { 0 });
        }
        assert_eq!(out, given);
    }

    #[test]
    fn the_first_batch_comes_above_all_limits_and_no_other() {
        check(100, &[(1_000, 500, 1_000), (1_000, 10, 50)], &[500, 0]);
        check(1_000, &[(100, 500, 1_000), (1_000, 10, 50)], &[500, 50]);
        check(1_000, &[(1_000, 10, 0), (100, 500, 500), (100, 500, 500)], &[0, 500, 0]);
        check(0, &[(0, 5, 10), (9, 5, 10)], &[5, 0]);
    }

    #[test]
    fn the_sum_stays_below_the_limit() {
        check(100, &[(60, 10, 500), (60, 10, 500), (60, 10, 500)], &[60, 40, 0]);
    }
}

//! Pure. Exponential back-off with full jitter: 100 ms doubling up to a cap, drawn uniformly below.

use crate::rng::Rng;

#[derive(Clone, Debug)]
pub struct Backoff {
    base_ms: u64,
    cap_ms: u64,
    attempts: u32,
}

impl Backoff {
    pub const fn new(base_ms: u64, cap_ms: u64) -> Self {
        Backoff { base_ms, cap_ms, attempts: 0 }
    }
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
    /// Milliseconds to wait before the next try: uniform in `ceiling/2 ..= ceiling`, so it never spins.
    pub fn next_ms(&mut self, rng: &mut Rng) -> u64 {
        let ceiling = self.base_ms.saturating_mul(1 << self.attempts.min(20)).min(self.cap_ms);
        self.attempts = self.attempts.saturating_add(1);
        rng.between(ceiling / 2, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_resets() {
        let (mut b, mut r) = (Backoff::new(100, 30_000), Rng::new(3));
        let first = b.next_ms(&mut r);
        assert!((50..=100).contains(&first));
        for _ in 0..40 {
            assert!(b.next_ms(&mut r) <= 30_000);
        }
        assert!(b.next_ms(&mut r) >= 15_000);
        b.reset();
        assert!(b.next_ms(&mut r) <= 100);
    }
}

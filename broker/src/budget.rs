//! Memory that strangers can make us hold, counted in bytes: request bodies and fetch answers. Over budget = stop
//! reading, never drop.

use catchwater_base::metric::Gauge;
use catchwater_runtime::sync::{OwnedSemaphorePermit, Semaphore};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Bytes of every body that are not charged, so that heartbeats and commits never wait behind a full budget.
pub const FREE_BODY_BYTES: usize = 8 * 1024;

/// Bytes of request bodies charged now.
pub static REQUEST_BYTES: Gauge = Gauge::new();

/// A shared number of bytes; waiting for room is fair.
#[derive(Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    total: u32,
}

/// Room for one body; given back when dropped.
pub type Waiting = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

impl Budget {
    /// `bytes` is capped at 2 GiB.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.min(2 << 30)).unwrap_or(u32::MAX).max(1);
        Budget { room: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// What a frame of `length` bytes costs: nothing for small ones; one larger than the whole budget goes alone.
    fn cost(&self, length: usize) -> u32 {
        u32::try_from(length.saturating_sub(FREE_BODY_BYTES)).unwrap_or(u32::MAX).min(self.total)
    }

    /// `Ok(None)` = free of charge; `Err` = the caller must wait for it.
    pub fn try_charge(&self, length: usize) -> Result<Option<OwnedSemaphorePermit>, Waiting> {
        let cost = self.cost(length);
        if cost == 0 {
            return Ok(None);
        }
        if let Ok(permit) = self.room.clone().try_acquire_many_owned(cost) {
            return Ok(Some(permit));
        }
        let room = self.room.clone();
        Err(Box::pin(async move { room.acquire_many_owned(cost).await.ok() }))
    }

    /// As much of `bytes` as there is room for, without waiting; at least `least` is waited for by the caller.
    pub fn try_reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        self.room.clone().try_acquire_many_owned(cost).ok()
    }

    pub async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        self.room.clone().acquire_many_owned(cost).await.ok()
    }

    pub fn available(&self) -> usize {
        self.room.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_are_free_and_one_giant_goes_alone() {
        let budget = Budget::new(100_000);
        assert!(matches!(budget.try_charge(FREE_BODY_BYTES), Ok(None)));
        let giant = budget.try_charge(1 << 30);
        assert!(matches!(giant, Ok(Some(_))));
        assert_eq!(budget.available(), 0);
        assert!(matches!(budget.try_charge(100), Ok(None)));
        assert!(budget.try_charge(FREE_BODY_BYTES + 1).is_err());
        drop(giant);
        assert_eq!(budget.available(), 100_000);
    }
}

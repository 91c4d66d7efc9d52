//! The system's clocks and timers.

use catchwater_base::{Clock, Mono, Now, Wall};
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(not(sim))]
use std::time::Instant;
#[cfg(sim)]
use tokio::time::Instant;

/// Reads the operating system's clocks. One per process, shared as `Arc<dyn Clock>`.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { mono: self.mono(), wall: wall() }
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Wall time now; 0 if the system clock stands before 1970.
pub fn wall() -> Wall {
    #[cfg(sim)]
    if let Some(us) = crate::sim::wall_us() {
        return Wall::from_micros(us);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Suspends the task. Cancel-safe.
pub async fn sleep(for_: Duration) {
    tokio::time::sleep(for_).await;
}

/// The deadline passed first.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("timed out")]
pub struct TimedOut;

/// Runs `future` for at most `limit`; dropping it is its cancellation.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, TimedOut> {
    tokio::time::timeout(limit, future).await.map_err(|_| TimedOut)
}

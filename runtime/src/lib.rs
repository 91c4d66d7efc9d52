//! Rank 1. The only place below the broker that knows tokio, the clock, threads and sockets. One place swaps the real
//! world for a simulated one: `sim`, there only with `--cfg sim`.

pub mod memory;
pub mod net;
pub mod random;
pub mod shutdown;
#[cfg(sim)]
pub mod sim;
pub mod spawn;
pub mod sync;
pub mod thread;
pub mod time;

use std::future::Future;
use std::pin::Pin;

/// A boxed future, as every object-safe async trait of ours returns.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

//! Channels and wake-ups between tasks. Bounded only: an unbounded channel hides a missing limit.

pub use tokio::sync::mpsc::{Receiver, Sender};
pub use tokio::sync::{
    Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc::channel as bounded, mpsc::error, oneshot, watch,
};

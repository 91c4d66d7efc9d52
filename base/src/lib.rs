//! Rank 0: the words every part shares and nothing that touches the world.
//!
//! Clock *types* and traits, seeded randomness, the two machine shapes, bounded buffers, hashing, back-off, plain
//! metrics, assertions, crash points and mutants. No I/O, no clock reading, no thread, no dependency on tokio.

pub mod backoff;
pub mod bounded;
pub mod check;
pub mod clock;
pub mod crash;
pub mod effects;
pub mod hash;
pub mod log;
pub mod machine;
pub mod metric;
pub mod mutant;
pub mod rng;

pub use clock::{Clock, Mono, Now, Wall};
pub use effects::Effects;
pub use machine::{Decision, Local, Replicated, Ticket};
pub use rng::Rng;

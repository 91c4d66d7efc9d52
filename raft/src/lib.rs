//! Rank 3. Replication: one Raft group per partition. Only `group.rs` and `group/*` know the consensus crate; everything
//! else speaks the words of [`effect`].

pub mod driver;
pub mod effect;

pub use effect::*;

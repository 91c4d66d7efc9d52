//! Rank 3. Replication: one Raft group per partition. Only `group.rs` and `group/*` know the consensus crate; everything
//! else speaks the words of [`effect`].

pub mod driver;
pub mod effect;
pub mod group;

pub use effect::*;
pub use group::conf::{ConfChange, ConfRefused, ConfState, ConfStep};
pub use group::{GroupConfig, GroupCore, OpenError, panic_text};

//! One file per command.

pub mod explain;
pub mod group;
pub mod topic;
pub mod validate;
pub mod version;

//! One file per command.

pub mod explain;
pub mod validate;
pub mod version;

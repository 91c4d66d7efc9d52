//! Hosts: what makes a replicated machine of `coordinator` live on a partition.
//!
//! [`core`] is generic and pure: decide, propose one batch, replay speculatively, park every reply at the offset it saw,
//! release at commit. The other files are its shells, over [`log::HostLog`].

pub mod cluster;
pub mod core;
pub mod group;
pub mod log;
pub mod shell;

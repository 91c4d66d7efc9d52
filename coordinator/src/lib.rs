//! Rank 3, pure. The replicated machines: what the cluster is, who runs which task, what groups know.
//!
//! Each machine has the shape of `base::Replicated`: `decide` reads and gives records and replies, `replay` alone
//! changes state and cannot fail, so recovery is replay. No clock, socket, file, thread or random source: time and drawn
//! ids come in with the request. [`stored::Stored`] turns records into key and value bytes; the pages are
//! `docs/formats/{cluster,task,group}-records.md`.

pub mod cluster;
pub mod controller;
pub mod group;
pub mod stored;
pub mod tasks;

pub use controller::Controller;
pub use group::Groups;

//! Pure. What the cluster is: nodes, topics and their places, settings, source names, stored pipelines, id blocks.
//!
//! [`image::Image`] is the folded state that everybody reads; the files beside it decide what may become of it. The
//! machine itself is [`crate::controller::Controller`], because tasks live in the same log and see the same image.

pub mod brokers;
pub mod configs;
pub mod image;
pub mod pipelines;
pub mod records;
pub mod topics;

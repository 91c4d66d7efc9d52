//! Fakes for tests of this crate and of those above it.

pub mod memory_source;

//! Placeholder until its lane lands.
pub mod host;

//! Pure. Record schemas of the coordinators, one module per description.
// Written by `cargo xtask codegen` from protocol/messages; do not edit.
pub mod group;

//! Rank 4. Applies change topics to target systems: whole source transactions, rows and position in one target
//! transaction. Knows the log only through `client` and rows only as `change` types.

pub mod sink;

//! Rank 10. Every decoder of foreign bytes as a function `&[u8]` → nothing, and what throws bytes at them.
//!
//! `catchwater-fuzz` (`cargo xtask fuzz`) mutates seeds with a seeded generator: no coverage, but any machine, no other
//! compiler, and a run is repeated from its seed. Judged: no panic, and memory: one input may make live memory grow by at most
//! 16 × its length + 64 KiB ([`sys`] counts). Behind a checksum the harness repairs it first ([`repair`]), else nothing gets in.
//! Inputs that failed once lie in `tests/corpus/fuzz/TARGET` and are replayed first.

pub mod mutate;
mod pipeline;
pub mod repair;
pub mod seeds;
pub mod sys;
pub mod targets;

/// Largest input, bytes.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// Growth of live memory that one input may cause, bytes.
pub const fn budget(input_bytes: usize) -> usize {
    16 * input_bytes + (64 << 10)
}

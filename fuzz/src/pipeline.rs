//! The reader of pipeline files, which lives in the binary: its two files that stand alone.
#![allow(dead_code)]

#[path = "../../catchwater/src/pipeline/finding.rs"]
pub mod finding;
#[path = "../../catchwater/src/pipeline/tree.rs"]
pub mod tree;

//! One file per command.

pub mod audit;
pub mod dlq;
pub mod doctor;
pub mod explain;
pub mod group;
pub mod import;
pub mod node;
pub mod pipeline;
pub mod refused;
pub mod sink;
pub mod storage;
pub mod tap;
pub mod test;
pub mod top;
pub mod topic;
pub mod validate;
pub mod version;
pub mod wait;

//! Rank 4. Reads the changes of one source and appends them to topics, each source transaction exactly once. Knows the
//! log only through `client`; connectors know neither Kafka nor topics.

pub mod source;

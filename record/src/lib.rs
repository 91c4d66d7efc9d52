//! Rank 1, pure. Kafka's record batch as bytes, and the identifiers everything is addressed by.
//!
//! A batch is never decoded on its way through the broker: [`batch::BatchView`] reads header fields in place,
//! [`batch::patch`] writes the few that the CRC does not cover, [`batch::iterate`] looks inside for those who must.

pub mod batch;
pub mod compress;
pub mod crc;
pub mod id;
pub mod murmur2;
pub mod position;

pub use batch::BatchView;
pub use id::*;
pub use position::Position;

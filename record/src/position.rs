//! Pure. A place in a source's history: an opaque string of at most 64 bytes, ordered by memcmp.
//!
//! Capture gives it its parts (incarnation, commit sequence, ordinal, native resume token); the log only compares.

use bytes::Bytes;
use std::fmt;

/// Longest position, bytes.
pub const POSITION_BYTES_MAX: usize = 64;

/// Empty = none. Compared with memcmp.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(Bytes);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("position of {0} bytes is longer than {POSITION_BYTES_MAX}")]
pub struct PositionTooLong(pub usize);

impl Position {
    pub const NONE: Position = Position(Bytes::new());

    pub fn new(bytes: Bytes) -> Result<Self, PositionTooLong> {
        if bytes.len() > POSITION_BYTES_MAX { Err(PositionTooLong(bytes.len())) } else { Ok(Position(bytes)) }
    }
    pub fn copy_from(bytes: &[u8]) -> Result<Self, PositionTooLong> {
        Self::new(Bytes::copy_from_slice(bytes))
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Position(")?;
        for b in self.0.iter() {
            write!(f, "{b:02x}")?;
        }
        f.write_str(")")
    }
}

//! Pure. Stored bytes, one file per shape, each with its page in `docs/formats/` and golden bytes.

pub mod context;

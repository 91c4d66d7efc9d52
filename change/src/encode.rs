//! Pure. Event → record. One file per envelope and format.

pub mod debezium_json;
pub mod form;

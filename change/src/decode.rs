//! Pure. Record → event; exactly what `encode` undoes. One file per envelope and format.

pub mod debezium_json;

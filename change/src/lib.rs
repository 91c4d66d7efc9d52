//! Rank 2, pure. A row that changed: values, schema, event, stamp, position, cut; and how they become records.
//!
//! `row` is a line of a table, `event` one change of one row, `record` Kafka's unit. Conversions: event → record in
//! `encode`, record → event in `decode`; nowhere else.

pub mod calendar;
pub mod checkpoint;
pub mod connect;
pub mod cut;
pub mod decode;
pub mod encode;
pub mod event;
pub mod exact;
pub mod float_text;
pub mod json;
pub mod row;
pub mod schema;
pub mod stamp;
pub mod value;
mod wire;

pub use cut::Cut;
pub use event::{Event, Op, RowChange, SnapshotMark, SourceInfo};
pub use row::{Cell, Row};
pub use schema::{Column, KeyFrom, TableSchema, Type};
pub use stamp::{Native, Stamp, Version};
pub use value::{Decimal, Value};
